"""
What it takes to show one run to many: requests, CPU, and the delay from the answer to a poll until watchers have it.

    python -m benchmarks.web [--quick] [--json PATH]    (extras `bench` and `web`)

Each contestant has an interpreter of its own, for one watcher and for a hundred. `streams` is a stream for each
watcher; `feed` is one that they share; `starlette` (on uvicorn) and `aiohttp` serve a feed as events to browsers, bare
sockets of the same process, so that reading them is in the figures. The run has another state in every answer, ten a
second. The delay counts from the last byte of the answer, for the first and for the last watcher who has the state;
`in time` is the part of the answers whose state all have before the next one comes.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import aiohttp

from agentruns import Backoff, Client, RunRef, connect
from agentruns.web import Feeds

from .contestants import TOKEN
from .process import apart, pin
from .report import arguments, at_most, finish, needs
from .stub import Stub

GAP: Final = 0.1
REF: Final = RunRef("talk-3600-shown", "5e0c7d4a-93a5-4a37-8a0e-2f4b8c6d1e90")
WARM: Final = 0.5
CONTESTANTS: Final = ("streams", "feed", "starlette", "aiohttp")
MANY: Final = 100

Watch: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]
"""Watch the run, and call the function for each state that is seen, for ever."""


class Delays:
    """When the last answer came, and how long after it each watcher had it."""

    def __init__(self) -> None:
        self.answers = 0
        self._answered = 0.0
        self._seen: dict[int, list[float]] = {}

    async def note(self, *_: object) -> None:
        """Note that the whole of an answer has come."""
        self._answered = time.monotonic()
        self.answers += 1

    def seen(self) -> None:
        """Note that a watcher has it."""
        self._seen.setdefault(self.answers, []).append(time.monotonic() - self._answered)

    def since(self, answer: int) -> list[list[float]]:
        """Return, for each answer after that one and before the last, the delays in order."""
        return [sorted(self._seen.get(number, [])) for number in range(answer + 1, self.answers)]


@asynccontextmanager
async def streams(client: Client) -> AsyncIterator[Watch]:
    async def watch(seen: Callable[[], None]) -> None:
        async for _ in client.stream(REF):
            seen()

    yield watch


@asynccontextmanager
async def feed(client: Client) -> AsyncIterator[Watch]:
    async with AsyncExitStack() as stack:
        feeds = await stack.enter_async_context(Feeds(client))

        async def watch(seen: Callable[[], None]) -> None:
            async for _ in feeds.watch(REF):
                seen()

        yield watch


@asynccontextmanager
async def starlette(client: Client) -> AsyncIterator[Watch]:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from agentruns.web.asgi import sse_response

    async with AsyncExitStack() as stack:
        feeds = await stack.enter_async_context(Feeds(client))

        async def page(_: Request) -> Response:
            return sse_response(feeds.watch(REF))

        app = Starlette(routes=[Route("/", page)])
        config = uvicorn.Config(app, host="127.0.0.1", port=0, ws="none", log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        for _ in range(1000):
            if server.started:
                break
            await asyncio.sleep(0.01)
        yield browser(server.servers[0].sockets[0].getsockname()[1])
        server.should_exit = True
        await serving


@asynccontextmanager
async def by_aiohttp(client: Client) -> AsyncIterator[Watch]:
    from aiohttp import web

    from agentruns.web.aiohttp import end_watching, sse_response

    async with AsyncExitStack() as stack:
        feeds = await stack.enter_async_context(Feeds(client))

        async def page(request: web.Request) -> web.StreamResponse:
            return await sse_response(request, feeds.watch(REF))

        app = web.Application()
        app.router.add_get("/", page)
        app.on_shutdown.append(end_watching)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield browser(runner.addresses[0][1])
        await runner.cleanup()


def browser(port: int) -> Watch:
    """Return what reads a page of events over a socket of its own."""

    async def watch(seen: Callable[[], None]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            while line := await reader.readline():
                if line.startswith(b"event: run"):
                    seen()
        finally:
            writer.close()

    return watch


def measure(contestant: str, base_url: str, watchers: int, seconds: float) -> dict[str, float]:
    """Return answers and CPU seconds per second, answers per state shown to a watcher, and the delays in seconds."""

    async def main() -> dict[str, float]:
        delays = Delays()
        tracing: Any = aiohttp.TraceConfig()
        tracing.on_response_chunk_received.append(delays.note)
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession(trace_configs=[tracing]))
            schedule = Backoff(initial=GAP, factor=1.0, maximum=GAP, jitter=0.0)
            client = connect("narrative", token=TOKEN, base_url=base_url, session=session, schedule=schedule)
            await stack.enter_async_context(client)
            watch = await stack.enter_async_context(_BY_NAME[contestant](client))
            tasks = [asyncio.create_task(watch(delays.seen)) for _ in range(watchers)]
            await asyncio.sleep(WARM)
            first, began, cpu = delays.answers, time.monotonic(), time.process_time()
            await asyncio.sleep(seconds)
            answers, cpu, took = delays.answers - first, time.process_time() - cpu, time.monotonic() - began
            found = delays.since(first)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        shown = [each for each in found if len(each) == watchers]
        return {
            "answers": answers / took,
            "each": len(found) * watchers / sum(map(len, found)),
            "in time": len(shown) / len(found),
            "cpu": cpu / took,
            "first": statistics.median(each[0] for each in shown),
            "last": statistics.median(each[-1] for each in shown),
            "late": statistics.quantiles((each[-1] for each in shown), n=20)[-1],
        }

    assert urlsplit(base_url).hostname == "127.0.0.1"
    pin("client")
    return asyncio.run(main())


_BY_NAME: Final[Mapping[str, Any]] = {
    "streams": streams,
    "feed": feed,
    "starlette": starlette,
    "aiohttp": by_aiohttp,
}


def main() -> int:
    args = arguments(__doc__)
    needs("bench,web", "aiohttp_sse", "sse_starlette", "starlette", "uvicorn")
    rounds, seconds = (1, 1.5) if args.quick else (3, 10.0)
    measured: dict[tuple[str, int], list[dict[str, float]]] = {
        (name, watchers): [] for name in CONTESTANTS for watchers in (1, MANY)
    }
    with Stub() as stub:
        for _ in range(rounds):
            for (name, watchers), each in measured.items():
                each.append(apart("benchmarks.web", "measure", name, stub.base_url, watchers, seconds))

    print(
        f"{'watchers of one run':<20}{'polls/s':>10}{'CPU':>10}{'first ms':>10}{'last ms':>10}{'last p95':>10}"
        f"{'us each':>10}{'in time':>10}"
    )
    middle = {
        case: {what: statistics.median(each[what] for each in found) for what in found[0]}
        for case, found in measured.items()
    }
    for (name, watchers), took in middle.items():
        cost = 1e6 * took["cpu"] / took["answers"] / watchers
        print(
            f"{f'{name}, {watchers}':<20}{took['answers']:>10.2f}{took['cpu']:>10.2%}{1e3 * took['first']:>10.2f}"
            f"{1e3 * took['last']:>10.2f}{1e3 * took['late']:>10.2f}{cost:>10.1f}{took['in time']:>10.0%}"
        )

    def ratio(what: str, case: tuple[str, int], other: tuple[str, int]) -> float:
        pairs = zip(measured[case], measured[other], strict=True)
        return statistics.median(one[what] / another[what] for one, another in pairs)

    polls = max(took["each"] for took in middle.values())
    shared = ratio("cpu", ("feed", MANY), ("streams", MANY))
    goals = [
        at_most(f"polls for each state that each of {MANY} watchers is shown", polls, 1.02),
        at_most("seconds from the answer to the event of one watcher", middle["feed", 1]["last"], 0.001),
        at_most(f"seconds until the last of {MANY} has the event", middle["feed", MANY]["last"], 0.005),
        at_most(f"CPU of {MANY} who share a feed / of {MANY} streams", shared, 1.0),
        *(
            at_most(f"seconds until the last of {MANY} browsers of {name} has it", middle[name, MANY]["last"], 0.05)
            for name in ("starlette", "aiohttp")
        ),
    ]
    return finish(goals, args)


if __name__ == "__main__":
    sys.exit(main())
