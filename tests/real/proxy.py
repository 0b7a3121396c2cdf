"""A proxy before a real server: it counts what arrives, and loses a reply once the server has done what was asked."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Final, Literal, NoReturn

import aiohttp
from aiohttp import web
from attrs import define, field, frozen

_DROPPED: Final = {"host", "connection", "content-length", "content-encoding", "transfer-encoding", "keep-alive"}


@frozen
class Fault:
    """
    What happens at the request number *nth*, from 1, of a method and path, which are shell patterns.

    The connection is *cut* "before" the server gets it, "after" the server has answered it, or "never". *then* is
    called just at this point.
    """

    method: str
    path: str
    nth: int = 1
    cut: Literal["before", "after", "never"] = "after"
    then: Callable[[], None] = field(default=lambda: None)


@define
class Proxy:
    """What stands at `url` before the server at *target*; `seen` has what the server got: method and path of each."""

    target: str
    url: str = ""
    seen: list[tuple[str, str]] = field(factory=list)
    _planned: list[tuple[Fault, list[int]]] = field(factory=list)

    def plan(self, fault: Fault) -> None:
        """Plan a fault, counted from the next request."""
        self._planned.append((fault, [0]))

    def count(self, method: str, path: str) -> int:
        """Count the requests that the server got, by shell patterns."""
        return sum(fnmatchcase(got[0], method) and fnmatchcase(got[1], path) for got in self.seen)

    def _due(self, request: web.BaseRequest) -> Fault | None:
        due = None
        for fault, met in self._planned:
            if fnmatchcase(request.method, fault.method) and fnmatchcase(request.path, fault.path):
                met[0] += 1
                due = fault if met[0] == fault.nth else due
        return due

    async def handle(self, session: aiohttp.ClientSession, request: web.BaseRequest) -> web.StreamResponse:
        """Pass a request on and its answer back, unless a fault is due."""
        fault = self._due(request)
        if fault is not None and fault.cut == "before":
            fault.then()
            _cut(request)
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        self.seen.append((request.method, request.path))
        url = self.target + request.raw_path
        try:
            async with session.request(
                request.method, url, data=body or None, headers=headers, allow_redirects=False
            ) as answer:
                content = await answer.read()
        except aiohttp.ClientError:  # the server is down
            _cut(request)
        if fault is not None:
            fault.then()
            if fault.cut == "after":
                _cut(request)
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _DROPPED]
        return web.Response(status=answer.status, body=content, headers=kept)


def _cut(request: web.BaseRequest) -> NoReturn:
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


@asynccontextmanager
async def proxied(target: str) -> AsyncIterator[Proxy]:
    """Stand before the server at *target*. Where the server is down, the connection is cut."""
    proxy = Proxy(target)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await proxy.handle(session, request)

        runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield proxy
        finally:
            await runner.cleanup()
