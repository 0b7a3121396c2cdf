"""A proxy before a real server: it counts what arrives, and loses a reply once the server has done what was asked."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Final, Literal, NoReturn

import aiohttp
from aiohttp import web
from attrs import define, field, frozen

_DROPPED: Final = {"host", "connection", "content-length", "transfer-encoding", "keep-alive"}


@frozen
class Fault:
    """
    What happens at the request number *nth*, from 1, of a method and path, which are shell patterns, with a body that
    is *holding* these bytes.

    The connection is *cut* "before" the server gets it, "after" the server has answered it, or "never". *then* is
    called just at this point.
    """

    method: str
    path: str
    nth: int = 1
    cut: Literal["before", "after", "never"] = "after"
    then: Callable[[], None] = field(default=lambda: None)
    holding: bytes = b""


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

    def _due(self, request: web.BaseRequest, body: bytes) -> Fault | None:
        due = None
        for fault, met in self._planned:
            asked = fnmatchcase(request.method, fault.method) and fnmatchcase(request.path, fault.path)
            if asked and fault.holding in body:
                met[0] += 1
                due = fault if met[0] == fault.nth else due
        return due

    async def handle(self, session: aiohttp.ClientSession, request: web.BaseRequest) -> web.StreamResponse:
        """Pass a request on and its answer back, unless a fault is due."""
        body = await request.read()
        fault = self._due(request, body)
        if fault is not None and fault.cut == "before":
            fault.then()
            _cut(request)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        self.seen.append((request.method, request.path))
        url = self.target + request.raw_path
        asking = session.request(request.method, url, data=body or None, headers=headers, allow_redirects=False)
        try:
            async with asking as answer:
                whole = await answer.read() if fault is not None else b""
                if fault is not None:
                    fault.then()
                    if fault.cut == "after":
                        _cut(request)
                return await _passed_on(request, answer, whole)
        except aiohttp.ClientError:  # the server is down
            _cut(request)


async def _passed_on(request: web.BaseRequest, answer: aiohttp.ClientResponse, whole: bytes) -> web.StreamResponse:
    """Pass an answer on: *whole*, or as it comes, since it may be a stream that says little for long."""
    kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _DROPPED]
    given = web.StreamResponse(status=answer.status, headers=kept)
    await given.prepare(request)
    await given.write(whole)
    async for part in answer.content.iter_any():
        await given.write(part)
    await given.write_eof()
    return given


def _cut(request: web.BaseRequest) -> NoReturn:
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


@asynccontextmanager
async def proxied(target: str) -> AsyncIterator[Proxy]:
    """Stand before the server at *target*. Where the server is down, the connection is cut."""
    proxy = Proxy(target)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), auto_decompress=False, timeout=aiohttp.ClientTimeout()
    ) as session:

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
