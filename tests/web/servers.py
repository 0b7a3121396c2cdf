"""One site with the events of runs, by each framework, on a real server on loopback; and a browser that reads them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import aiohttp
import uvicorn
from aiohttp import web
from attrs import frozen
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentruns import Backoff, Run, RunRef, connect, narrative, origami
from agentruns.emulator import Emulator, Turn
from agentruns.web import Event, Feeds, asgi, events
from agentruns.web import aiohttp as for_aiohttp
from tests.web.scripted_runs import decoded

CONFIG = narrative.Config(
    model="m",
    data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
    max_iterations=3,
    max_tokens=64,
    output_format_schema=narrative.TEXT_SCHEMA,
)

QUICK = Backoff(initial=0.02, factor=1.0, jitter=0.0)

EVER = 1e9
"""Polls that no test lives to see."""


@frozen
class Page:
    """What a browser got: the status, the headers, and every event until the server ended the response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def events(self) -> list[Event]:
        return decoded(self.body)

    @property
    def states(self) -> list[str]:
        """Return the status of each state, and the name of each other event."""
        return [json.loads(each.data)["status"] if each.name == "run" else each.name for each in self.events]


class Site:
    """
    A site with a page of events for each run: `/runs/ID` shared, `/alone/ID` for each watcher by itself.

    The vendor's time is the number of polls that it has answered: a run that lasts for 5 is over at the fifth, however
    fast the machine is.
    """

    def __init__(self, *turns: Turn, vendor: str = "narrative", ping: float = 15.0, **options: Any) -> None:
        self.vendor = vendor
        self.emulator = Emulator(vendor, script=turns or None, clock=self._time)
        self.ping = ping
        self._options = options
        self._stack = AsyncExitStack()

    def _time(self) -> float:
        return float(self.polls) if hasattr(self, "emulator") else 0.0

    async def __aenter__(self) -> Self:
        self._stack.enter_context(self.emulator)
        self.url = await self._stack.enter_async_context(self.served())
        connector = aiohttp.TCPConnector(limit=0)
        self.session = await self._stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        left = [task for task in asyncio.all_tasks() if "agentruns" in repr(task.get_coro())]
        assert left == []

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Hold what lives as long as the application."""
        client = connect(
            self.vendor, base_url=self.emulator.base_url, token=self.emulator.token, schedule=QUICK, timeout=10
        )
        async with client as self.client, Feeds(client, **self._options) as self.feeds:
            yield

    def served(self) -> Any:
        """Return the context in which the site is served, at the URL that it gives."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Stop the server as SIGTERM would."""
        raise NotImplementedError

    @property
    def polls(self) -> int:
        """Return how often runs were read."""
        return len(self.emulator.requests("GET", "*/runs/*"))

    async def began(self) -> Run:
        """Start a run."""
        if self.vendor == "origami":
            return await self.client.start(origami.Prompt("Hello"))
        conversation = await self.client.perform(narrative.create_conversation(CONFIG))
        return await self.client.start(narrative.UserMessage(conversation.id, "Hello"))

    async def visit(self, path: str, last_event_id: str | None = None) -> Page:
        """Read a page of events to its end."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        async with self.session.get(self.url + path, headers=headers) as response:
            return Page(response.status, response.headers, await response.read())

    async def restart(self) -> None:
        """Stop the server, and start another that knows nothing of the first."""
        await self.stop()
        self.url = await self._stack.enter_async_context(self.served())

    async def glance(self, path: str) -> None:
        """Read the beginning of a page of events, and close the tab."""
        async with self.session.get(self.url + path) as response:
            await response.content.readany()


class StarletteSite(Site):
    middleware: Sequence[Middleware] = ()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            async with self.opened():
                yield

        routes = [Route("/runs/{run_id}", self._page), Route("/alone/{run_id}", self._alone)]
        app = Starlette(routes=routes, lifespan=lifespan, middleware=self.middleware)
        self.server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=0, ws="none", log_config=None, lifespan="on")
        )
        self._serving = asyncio.create_task(self.server.serve())
        await until(lambda: self.server.started)
        yield f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"
        await self.stop()

    async def stop(self) -> None:
        self.server.should_exit = True  # which is what the handler of the signal does
        await self._serving

    async def _page(self, request: Request) -> Response:
        ref = RunRef(request.path_params["run_id"], request.query_params.get("parent", ""))
        return asgi.sse_response(self.feeds.watch(ref, request.headers.get("Last-Event-ID")), ping=self.ping)

    async def _alone(self, request: Request) -> Response:
        ref = RunRef(request.path_params["run_id"], request.query_params.get("parent", ""))
        stream = self.client.stream(ref, on_cancel=self._options.get("on_cancel", "leave"))
        return asgi.sse_response(events(stream), ping=self.ping)


class WrappedSite(StarletteSite):
    """As most applications are: something stands between the server and the page."""

    @staticmethod
    async def _named(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["X-Served-By"] = "a site"
        return response

    middleware = (Middleware(BaseHTTPMiddleware, dispatch=_named),)


class AiohttpSite(Site):
    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        app = web.Application()
        app.cleanup_ctx.append(lambda _: self.opened())
        app.on_shutdown.append(for_aiohttp.end_watching)
        app.router.add_get("/runs/{run_id}", self._page)
        app.router.add_get("/alone/{run_id}", self._alone)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        await self.stop()

    async def stop(self) -> None:
        await self.runner.cleanup()

    async def _page(self, request: web.Request) -> web.StreamResponse:
        ref = RunRef(request.match_info["run_id"], request.query.get("parent", ""))
        watcher = self.feeds.watch(ref, request.headers.get("Last-Event-ID"))
        return await for_aiohttp.sse_response(request, watcher, ping=self.ping)

    async def _alone(self, request: web.Request) -> web.StreamResponse:
        ref = RunRef(request.match_info["run_id"], request.query.get("parent", ""))
        stream = self.client.stream(ref, on_cancel=self._options.get("on_cancel", "leave"))
        return await for_aiohttp.sse_response(request, events(stream), ping=self.ping)


SITES: Mapping[str, type[Site]] = {"starlette": StarletteSite, "aiohttp": AiohttpSite}
WITH_WRAPPED: Mapping[str, type[Site]] = {**SITES, "wrapped": WrappedSite}


async def until(what: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until a thing comes true."""
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "it did not come true"
        await asyncio.sleep(0.005)
