"""Many timers behind one of the loop: runs to be read, waits to be ended."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")

TICK: Final = 1 / 64
"""Seconds to which the timer is rounded up: what falls due in between goes out together, and wakes the loop once."""

_FAR: Final = 1e15
"""Seconds from which on a number of ticks is no whole number any more: what falls due then is not rounded."""


class Timer(Generic[T]):
    """What is due when: `what` is None once the timer was cancelled, or has come up."""

    __slots__ = ("what", "when")

    def __init__(self, when: float, what: T) -> None:
        self.when = when
        self.what: T | None = what


class TimerQueue(Generic[T]):
    """
    Call *on_due* when something is due, with the time of the loop and the seconds by which the call is late.

    Timers that are cancelled stay in the heap, empty, until they come up or are too many.
    """

    def __init__(self, on_due: Callable[[float, float], None]) -> None:
        self._on_due = on_due
        self._heap: list[tuple[float, int, Timer[T]]] = []  # a number orders what is due at the same time
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
        timer = Timer(when, what)
        heapq.heappush(self._heap, (when, self._count, timer))
        return timer

    def cancel(self, timer: Timer[T]) -> None:
        """Cancel a timer; it may have come up already."""
        if timer.what is None:
            return
        timer.what = None
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled > len(self._heap) // 2:
            self._heap = [each for each in self._heap if each[2].what is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def pop_due(self, now: float) -> Iterator[T]:
        """Take out, one after the other, what is due."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            timer = heapq.heappop(heap)[2]
            what, timer.what = timer.what, None
            if what is None:
                self._cancelled -= 1
            else:
                yield what
                heap = self._heap  # it may have been made anew meanwhile

    def overdue(self, now: float) -> list[T]:
        """Return what is due, in order, and leave it where it is."""
        return [
            timer.what
            for _, _, timer in sorted(each for each in self._heap if each[0] <= now)
            if timer.what is not None
        ]

    def rearm(self, now: float, when: float = math.inf) -> None:
        """Have the handle go off for the first timer, and no later than *when*."""
        if self._heap:
            first = self._heap[0][0]
            when = min(when, now if first <= now else first if first > _FAR else math.ceil(first / TICK) * TICK)
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
        self._on_due(now, max(now - self._goes_off, slept))


def _wall_minus_monotonic() -> float:
    return time.time() - time.monotonic()
