"""
A server fast enough to measure clients with: runs that last as long as their names say, in the shape of one vendor.

A run is called `MODE-SECONDS-NAME`, such as `same-5-0017`, and so is the conversation that it is started on. A `same`
run has the same bytes in every answer until it is over, a `news` run another count of tokens in each, a `talk` run
another status word. Starting it begins its time, or the first look at a run that was never started. One that is called
`MODE-SECONDS@BEGAN-NAME` began at that moment of the server's clock.

    POST /agents/conversations/ID/runs    GET /agents/conversations/ID    GET /agents/runs/ID
    GET  /log    when each request came: doubles, of the server's clock; reading it clears it

`with Stub() as stub:` runs it as a process; `python -m benchmarks.stub` does until its input ends. Its clock is the
monotonic one that all processes share, or a `SharedTime`.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache
from typing import Final, Self

from .process import pin
from .shapes import NARRATIVE
from .virtual import SharedTime

_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class _Clock:
    """What time it is, and which date."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._origin = time.time() - now()

    def text(self, moment: float) -> str:
        return datetime.fromtimestamp(self._origin + moment, UTC).isoformat().replace("+00:00", "Z")

    def date(self) -> bytes:
        return _date(int(self._origin + self.now()))


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()


class _Run:
    """One run; its answers are made once, as far as they repeat."""

    def __init__(self, name: str, clock: _Clock) -> None:
        self._mode, lasts, _ = name.split("-", 2)
        seconds, _, began = lasts.partition("@")
        begins = float(began) if began else clock.now()
        self._clock = clock
        self._ends = begins + float(seconds)
        times = {"started": clock.text(begins), "completed": clock.text(self._ends)}
        self._fields = {"id": name, "parent": name, "count": 100_000, **times}
        self._flying = NARRATIVE.body(over=False, **self._fields)
        self._looks = 0

    def body(self) -> bytes:
        """Return what a look at the run shows now."""
        if self._clock.now() >= self._ends:
            return NARRATIVE.body(over=True, **self._fields)
        if self._mode == "same":
            return self._flying
        self._looks += 1
        if self._mode == "talk":
            return self._flying if self._looks % 2 else self._flying.replace(b'"status":"', b'"status":"still ', 1)
        return NARRATIVE.body(over=False, **self._fields | {"count": 100_000 + self._looks})


class Vendor:
    """The runs that were started or looked at, and the time of each request."""

    def __init__(self, clock: _Clock) -> None:
        self.times = array("d")
        self._clock = clock
        self._runs: dict[str, _Run] = {}

    def answer(self, method: bytes, path: bytes) -> tuple[bytes, bytes]:
        """Return the status and the body of the answer to a request."""
        if path == b"/log":
            body, self.times = self.times.tobytes(), array("d")
            return b"200 OK", body
        self.times.append(self._clock.now())
        parts = path.partition(b"?")[0].decode().replace("%40", "@").split("/")
        if method == b"POST":
            run = self._runs[parts[-2]] = _Run(parts[-2], self._clock)
            return b"200 OK", run.body()
        if parts[2] == "conversations":
            return b"200 OK", self._conversation(parts[3])
        run = self._runs.get(parts[-1]) or self._runs.setdefault(parts[-1], _Run(parts[-1], self._clock))
        return b"200 OK", run.body()

    def _conversation(self, name: str) -> bytes:
        now = self._clock.text(self._clock.now())
        stamps = {"created_at": now, "updated_at": now}
        shown = {"id": name, "company_id": 77, "user_id": 1204, "defaults": {}, "version": 0}
        return json.dumps(shown | stamps).encode()


class _Connection(asyncio.Protocol):
    """One kept connection; requests may come in pieces, or several at once."""

    def __init__(self, vendor: Vendor, clock: _Clock) -> None:
        self._vendor = vendor
        self._clock = clock
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n") + 4) >= 4:
            head = self._rest[:end]
            length = _LENGTH.search(head)
            if length is not None:
                end += int(length[1])
                if len(self._rest) < end:
                    return
            self._rest = self._rest[end:]
            method, path, _ = head.split(b" ", 2)
            status, body = self._vendor.answer(method, path)
            self._transport.write(_ANSWER % (status, self._clock.date(), len(body), body))


_ANSWER: Final = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nDate: %b\r\nContent-Length: %d\r\n\r\n%b"


async def _serve(now: Callable[[], float]) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    clock = _Clock(now)
    vendor = Vendor(clock)
    server = await loop.create_server(lambda: _Connection(vendor, clock), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop.add_reader(sys.stdin, over.set)
    await over.wait()


class Stub:
    """The server as a process: `base_url` is where it listens; *time* is its clock, if not the monotonic one."""

    def __init__(self, shared: SharedTime | None = None) -> None:
        self._words = [] if shared is None else [shared.path]

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", __name__, *self._words]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._host = f"127.0.0.1:{int(self._process.stdout.readline())}"
        self.base_url = f"http://{self._host}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def log(self) -> Sequence[float]:
        """Return the time of each request since the last call, by the server's clock."""
        connection = http.client.HTTPConnection(self._host)
        connection.request("GET", "/log")
        times = array("d", connection.getresponse().read())
        connection.close()
        return times


def most_within(seconds: float, times: Sequence[float]) -> int:
    """Return the greatest number of *times*, which are in order, that any window of *seconds* holds."""
    first, most = 0, 0
    for last, moment in enumerate(times):
        while moment - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


if __name__ == "__main__":
    pin("server")
    asyncio.run(_serve(SharedTime(sys.argv[1]).read if sys.argv[1:] else time.monotonic))
