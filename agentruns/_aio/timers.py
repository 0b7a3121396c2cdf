"""Many timers behind one of the loop: runs to be read, waits to be ended."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

TICK: Final = 1 / 64
"""Seconds to which the timer is rounded up: what falls due in between goes out together, and wakes the loop once."""

_FAR: Final = 1e15
"""Seconds from which on a number of ticks is no whole number any more: what falls due then is not rounded."""


class Timer(list[Any], Generic[T]):
    """
    What is due when: an entry of the heap, which orders lists faster than objects, and takes a third less memory.

    It is a time, a number that orders what is due at the same time, and what is due.
    """

    __slots__ = ()

    @property
    def when(self) -> float:
        """When it is due: a time of the loop."""
        when: float = self[0]
        return when

    @property
    def what(self) -> T | None:
        """What is due, None once the timer was cancelled, or has come up."""
        what: T | None = self[2]
        return what

    def take(self) -> T | None:
        """Return what is due, and leave None in its place."""
        what: T | None
        what, self[2] = self[2], None
        return what


class TimerQueue(Generic[T]):
    """
    Call *on_due* when something is due, with the time of the loop and the seconds by which the call is late.

    Timers that are cancelled stay in the heap, empty, until they come up or are too many.
    """

    def __init__(self, on_due: Callable[[float, float], None]) -> None:
        self._on_due = on_due
        self._heap: list[Timer[T]] = []
        self._cancelled = 0
        self._count = 0
        self._handle: asyncio.TimerHandle | None = None
        self._closed = False
        self._goes_off = math.inf  # when; not every loop's handles say so
        self._apart = _wall_minus_monotonic()

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Live in *loop*."""
        self._loop, self._closed = loop, False

    def close(self) -> None:
        """Call no more, whatever is scheduled afterwards."""
        self._closed = True
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def __len__(self) -> int:
        return len(self._heap)

    def schedule(self, when: float, what: T) -> Timer[T]:
        """Have *what* come up at the time *when* of the loop; `rearm` sees to the handle."""
        self._count += 1
        timer: Timer[T] = Timer((when, self._count, what))
        heapq.heappush(self._heap, timer)
        return timer

    def cancel(self, timer: Timer[T]) -> None:
        """Cancel a timer; it may have come up already."""
        if timer.take() is None:
            return
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled > len(self._heap) // 2:
            self._heap = [each for each in self._heap if each.what is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def pop_due(self, now: float) -> T | None:
        """Take out what has been due for longest; None if nothing is due."""
        heap = self._heap
        while heap and heap[0][0] <= now:  # `when` of the first would cost as much again
            what = heapq.heappop(heap).take()
            if what is not None:
                return what
            self._cancelled -= 1
        return None

    def in_order(self) -> Iterator[T]:
        """Yield what is due, or will be, the earliest first, and leave it where it is; only what is taken is sorted."""
        heap = self._heap
        ahead: list[tuple[Timer[T], int]] = [(heap[0], 0)] if heap else []
        while ahead:
            timer, place = heapq.heappop(ahead)
            if timer.what is not None:
                yield timer.what
            for child in range(2 * place + 1, min(2 * place + 3, len(heap))):
                heapq.heappush(ahead, (heap[child], child))

    def overdue(self, now: float) -> list[T]:
        """Return what is due, in order, and leave it where it is."""
        due = sorted(each for each in self._heap if each.when <= now)
        return [timer.what for timer in due if timer.what is not None]

    def rearm(self, now: float, when: float = math.inf) -> None:
        """Have the handle go off for the first timer, and no later than *when*."""
        if self._heap:
            first = self._heap[0][0]
            first = now if first <= now else first if first > _FAR else math.ceil(first / TICK) * TICK
            if first < when:
                when = first
        if when == math.inf or self._closed:
            return
        if self._handle is not None:
            if self._goes_off <= when:
                return
            self._handle.cancel()
        self._goes_off = when
        self._handle = self._loop.call_at(when, self._go_off)

    def _go_off(self) -> None:
        self._handle = None
        now = self._loop.time()
        apart = _wall_minus_monotonic()
        slept, self._apart = abs(apart - self._apart), apart  # the clock of the loop may stand still in a suspension
        late = now - self._goes_off
        if late < slept:
            late = slept
        self._on_due(now, late)


def _wall_minus_monotonic() -> float:
    return time.time() - time.monotonic()
