"""Hours within seconds: a loop whose time jumps, and a vendor without a network, asked by a real client."""

from __future__ import annotations

import asyncio
import math
import mmap
import random
import selectors
import tempfile
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any, Final, Self, TypeVar

from attrs import field, frozen

from agentruns import Client, Retry
from agentruns._values.exchange import RateLimit, Request, Response
from agentruns.dialects.protocol import Dialect
from agentruns.errors import TransportError

from .shapes import Shape

LATENCY: Final = 0.02
"""Seconds from a request to its answer; the vendor sees it half way."""

T = TypeVar("T")

_LOST: Final = 60.0
"""Seconds after which an answer will not come any more."""

_MIDNIGHT: Final = datetime(2026, 6, 2, tzinfo=UTC)


class SharedTime:
    """A time that several processes know: a number in a file, which one of them writes."""

    def __init__(self, path: str) -> None:
        self.path = path
        with Path(path).open("r+b") as file:
            self._seconds = memoryview(mmap.mmap(file.fileno(), 8)).cast("d")

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Self]:
        """Make one that begins at 0."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(8))
            file.flush()
            yield cls(file.name)

    def read(self) -> float:
        """Return the seconds."""
        return self._seconds[0]

    def write(self, seconds: float) -> None:
        """Set the seconds."""
        self._seconds[0] = seconds


class _Jump(selectors.DefaultSelector):
    """Wait for nothing but answers that are under way."""

    def __init__(self, shared: SharedTime | None) -> None:
        super().__init__()
        self.now = 0.0 if shared is None else shared.read()
        self.connectors: list[Any] = []
        self._shared = shared

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; if nothing is, let the time pass that there was to wait."""
        if timeout != 0 and any(connector._acquired for connector in self.connectors):
            return super().select(_LOST)
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
            if self._shared is not None:
                self._shared.write(self.now)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    A loop that does not wait: when nothing is ready, its time is that of the next timer.

    It may *share* its time with a server of another process. While one of the aiohttp connectors that `await_answers`
    was told of has a request under way, the time stands still: no answer takes any.
    """

    def __init__(self, shared: SharedTime | None = None) -> None:
        self._jump = _Jump(shared)
        super().__init__(self._jump)

    def time(self) -> float:
        """Return the seconds that have passed."""
        return self._jump.now

    def await_answers(self, *connectors: Any) -> None:
        """Let no time pass while one of *connectors* waits for an answer."""
        self._jump.connectors += connectors


def run_virtually(main: Coroutine[Any, Any, T], shared: SharedTime) -> T:
    """Return what *main* returns, run in a loop of its own that shares its time."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(shared)) as runner:
        return runner.run(main)


async def _for(seconds: float, works: Iterable[Coroutine[Any, Any, None]]) -> None:
    tasks = [asyncio.create_task(work) for work in works]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    for task in done:
        task.result()  # nothing ends by itself, but it may fail
    await asyncio.gather(*tasks, return_exceptions=True)


def follow(
    of: Client, work: Callable[[Slot], Coroutine[Any, Any, None]], slots: Iterable[Slot], seconds: float
) -> None:
    """Do *work* in each slot for so many seconds of virtual time."""

    async def main() -> None:
        async with of:
            await _for(seconds, map(work, slots))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def client(dialect: Dialect, vendor: Vendor, limit: RateLimit | None) -> Client:
    """Return a client of *vendor* as `connect` makes it, but without a network."""
    return Client(dialect, vendor, retry=Retry(), limit=limit)


@frozen(eq=False)
class Job:
    """A run as the vendor knows it; *began* and *ends* are times of the loop."""

    id: str
    slot: Slot
    began: float
    ends: float

    def body(self, shape: Shape, now: float) -> bytes:
        """Return what a look at the run shows *now*."""
        moments = {"started": _text(self.began), "completed": _text(self.ends)}
        names = {"id": self.id, "parent": self.slot.parent, "model": self.slot.kind.name}
        return shape.body(over=self.ends <= now, count=812, **names, **moments)


def _text(moment: float) -> str:
    return (_MIDNIGHT + timedelta(seconds=moment)).isoformat().replace("+00:00", "Z")


@frozen
class Kind:
    """Runs that take about as long: their duration in seconds is lognormal."""

    name: str
    median: float
    sigma: float

    @property
    def mean(self) -> float:
        """Return the mean duration."""
        return self.median * math.exp(self.sigma**2 / 2)


class Slot:
    """A place that always has a run: what ends is followed by the next of its kind. The same seed has the same runs."""

    def __init__(self, number: int, parent: str, kind: Kind) -> None:
        self.number = number
        self.parent = parent
        self.kind = kind
        self._random = random.Random(number)
        self._count = 0

    def first_start(self) -> float:
        """Return when the first run begins, so that all slots together do not move in step."""
        return self._random.uniform(0.0, self.kind.mean)

    def under_way(self) -> Job:
        """Return a first run that is under way at time 0, as long as such runs are: the longer, the likelier to be."""
        duration = self._duration(self.kind.sigma**2)
        began = -self._random.random() * duration
        return self._job(began, duration)

    def next(self, now: float) -> Job:
        """Return the run that begins *now*."""
        return self._job(now, self._duration())

    def _duration(self, longer: float = 0.0) -> float:
        return self._random.lognormvariate(math.log(self.kind.median) + longer, self.kind.sigma)

    def _job(self, began: float, duration: float) -> Job:
        self._count += 1
        return Job(f"ar{self.number:05}x{self._count:07}", self, began, began + duration)


class Vendor:
    """
    Answer requests after `LATENCY`, and refuse those beyond *limit*; note when each came.

    A transport: `answer` says what it knows.
    """

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self.times: list[float] = []
        self.refused = 0
        self._recent: deque[float] = deque()

    async def open(self, *_: object) -> None:
        """Be there."""

    async def ready(self, *_: object) -> None:
        """Be there already."""

    async def close(self) -> None:
        """Go."""

    async def __call__(self, request: Request, /) -> Response:
        """Answer *request*."""
        now = asyncio.get_running_loop().time() + LATENCY / 2
        self.times.append(now)
        while self._recent and self._recent[0] <= now - self.limit.seconds:
            self._recent.popleft()
        if len(self._recent) >= self.limit.count:
            self.refused += 1
            status, body = 429, b"{}"
        else:
            self._recent.append(now)
            status, body = 200, self.answer(request, now)
        await asyncio.sleep(LATENCY)
        return Response(status, {"content-type": "application/json"}, body, request)

    async def listen(self, request: Request, opened: Callable[[], None], heard: object = None, /) -> None:  # noqa: ARG002
        """Announce nothing."""
        raise TransportError(request, "there are no events")

    def rate(self, since: float) -> float:
        """Return the requests in a second, from *since* on."""
        return sum(time >= since for time in self.times) / (self.times[-1] - since)

    def answer(self, request: Request, now: float) -> bytes:
        """Return the body of an answer."""
        raise NotImplementedError


@frozen
class Seen:
    """How late ends were seen, from *since* on."""

    since: float
    until: float
    _lags: list[float] = field(factory=list, init=False)

    def end(self, job: Job, now: float) -> None:
        """Note that the end of a run is seen *now*."""
        if now >= self.since:
            self._lags.append(now - job.ends)

    @property
    def lag(self) -> float:
        """Return the mean lag in seconds."""
        return fmean(self._lags)

    @property
    def ends(self) -> float:
        """Return the ends seen in a second."""
        return len(self._lags) / (self.until - self.since)


def in_turn(slots: Iterable[Slot], limit: RateLimit, seen: Seen, *, starts: bool, under_way: bool = False) -> None:
    """
    Ask about each run in turn, as often as the limit allows: the one that was asked about longest ago comes first.

    Where it takes a request to *start* a run, starts come before all else. First runs are *under_way* at time 0, or are
    spread over the time that runs take.
    """
    slots = tuple(slots)
    to_come = deque(() if under_way else sorted((slot.first_start(), slot.number, slot) for slot in slots))
    line = deque(slot.under_way() for slot in slots if under_way)
    ended: deque[Slot] = deque()
    now = 0.0
    while now < seen.until:
        while to_come and to_come[0][0] <= now:
            ended.append(to_come.popleft()[2])
        while ended and not starts:
            line.append(ended.popleft().next(now))
        if ended:
            line.append(ended.popleft().next(now + LATENCY / 2))
        elif line:
            job = line.popleft()
            if job.ends <= now + LATENCY / 2:
                seen.end(job, now + LATENCY)
                ended.append(job.slot)
            else:
                line.append(job)
        now += limit.seconds / limit.count
