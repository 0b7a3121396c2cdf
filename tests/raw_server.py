"""A server of raw bytes on 127.0.0.1, for what only a socket can show."""

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Self

from attrs import frozen

Act = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""What the server does once it has read a request."""


@frozen
class Seen:
    """One request, as it came in."""

    line: str
    head: str
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        found = re.search(rf"(?im)^{name}: (.*?)\r?$", self.head)
        return found[1] if found else None


class _Protocol(asyncio.StreamReaderProtocol):
    """Take the other side's end of talking for the end of the connection."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


class Server:
    """Do one of *acts* per request, the last one for ever; count requests, connections, and how many at once."""

    def __init__(self, *acts: Act, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._acts = list(acts)
        self._tls = tls
        self.port = port
        self.seen: list[Seen] = []
        self.connections = 0
        self.busy = 0
        self.busiest = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._called = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Protocol(asyncio.StreamReader(), self._serve), "127.0.0.1", self.port, ssl=self._tls, backlog=512
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def lines(self) -> list[str]:
        return [each.line for each in self.seen]

    async def reached(self, requests: int = 1) -> None:
        """Wait until so many requests have come."""
        async with asyncio.timeout(50):
            while len(self.seen) < requests:
                self._called.clear()
                await self._called.wait()

    async def deserted(self) -> None:
        """Wait until no connection is left."""
        async with asyncio.timeout(50):
            await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        gone = asyncio.ensure_future(writer.wait_closed())
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"(?im)^content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.seen.append(Seen(head.split(" HTTP/")[0], head, body, number))
                self._called.set()
                self.busy += 1
                self.busiest = max(self.busiest, self.busy)
                try:
                    act = self._acts.pop(0) if len(self._acts) > 1 else self._acts[0]
                    await _unless(gone, act(writer))
                finally:
                    self.busy -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


async def _unless(gone: asyncio.Future[None], act: Awaitable[None]) -> None:
    """Wait for *act*, but no longer than the other side does."""
    doing = asyncio.ensure_future(act)
    try:
        await asyncio.wait((doing, gone), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
    finally:
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)


def reply(body: bytes = b"{}", status: int = 200, after: float = 0.0, **headers: str) -> Act:
    """Answer as servers do; `_` in a header's name stands for `-`."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *lines, "", ""])

    async def act(writer: asyncio.StreamWriter) -> None:
        if after:
            await asyncio.sleep(after)
        writer.write(head.encode() + body)
        await writer.drain()

    return act


def raw(data: bytes) -> Act:
    """Send these bytes and close."""

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return act


def drip(head: bytes, gap: float = 0.01, leaping: float = 0.0) -> Act:
    """Send the head, and then for ever a byte every *gap* seconds, and let *leaping* more pass at once."""

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(gap)
            if leaping:
                leap(leaping)

    return act


async def silence(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


def late(act: Act, seconds: float = 60.0) -> Act:
    """Let so many seconds pass at once when a request has come, then do *act*.

    A timeout ends the request then, after it was sent, however slow the machine is.
    """

    async def act_late(writer: asyncio.StreamWriter) -> None:
        leap(seconds)
        await act(writer)

    return act_late


def leap(seconds: float) -> None:
    """Let so many seconds pass at once on the clock of the running loop."""
    loop = asyncio.get_running_loop()
    ahead = loop.time() - type(loop).time(loop) + seconds
    loop.time = lambda: type(loop).time(loop) + ahead  # type: ignore[method-assign]


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close without a word."""
    writer.close()


async def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection."""
    found: socket.socket = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
