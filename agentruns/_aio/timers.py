"""What is due when, under one timer: runs to be asked about, waits to be ended."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

TICK: Final = 1 / 64
"""Seconds to which the timer is rounded up: what falls due in between goes out together, and wakes the loop once."""

Entry: TypeAlias = list[Any]
"""When, a number that orders what is due at the same time, and what; None in its place once it is struck out."""


class TimerQueue:
    """
    Call *ring* when something is due, with the seconds by which the call is late.

    Entries that are struck out stay in the heap, empty, until they come up or are too many.
    """

    def __init__(self, ring: Callable[[float, float], None]) -> None:
        self._ring = ring
        self._heap: list[Entry] = []
        self._struck = 0
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._goes_off = math.inf  # when; not every loop's timers say so
        self._apart = _wall_minus_monotonic()

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Live in *loop*."""
        self._loop = loop

    def close(self) -> None:
        """Call nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __len__(self) -> int:
        return len(self._heap)

    def enter(self, when: float, what: object) -> Entry:
        """Enter *what* at the time *when* of the loop; `arm` sees to the timer."""
        self._count += 1
        entry = [when, self._count, what]
        heapq.heappush(self._heap, entry)
        return entry

    def strike(self, entry: Entry) -> None:
        """Strike an entry out; it may have come up already."""
        if entry[2] is None:
            return
        entry[2] = None
        self._struck += 1
        if self._struck > 64 and self._struck > len(self._heap) // 2:
            self._heap = [each for each in self._heap if each[2] is not None]
            heapq.heapify(self._heap)
            self._struck = 0

    def take(self, now: float) -> Iterator[Any]:
        """Take out, one after the other, what is due."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            entry = heapq.heappop(heap)
            what, entry[2] = entry[2], None
            if what is None:
                self._struck -= 1
            else:
                yield what
                heap = self._heap  # it may have been made anew meanwhile

    def overdue(self, now: float) -> list[Any]:
        """Return what is due, in order, and leave it where it is."""
        return [
            what for _, _, what in sorted(entry for entry in self._heap if entry[2] is not None and entry[0] <= now)
        ]

    def arm(self, now: float, when: float = math.inf) -> None:
        """Have the timer go off for the first entry, and no later than *when*."""
        if self._heap:
            when = min(when, math.ceil(self._heap[0][0] / TICK) * TICK if self._heap[0][0] > now else now)
        if when == math.inf:
            return
        if self._timer is not None:
            if self._goes_off <= when:
                return
            self._timer.cancel()
        self._goes_off = when
        self._timer = self._loop.call_at(when, self._go_off)

    def _go_off(self) -> None:
        self._timer = None
        now = self._loop.time()
        apart = _wall_minus_monotonic()
        slept, self._apart = abs(apart - self._apart), apart  # the clock of the loop may stand still in a suspension
        self._ring(now, max(now - self._goes_off, slept))


def _wall_minus_monotonic() -> float:
    return time.time() - time.monotonic()
