"""For how long an owner may act whom others know by a lease, and what ends its acts when that time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", None)

_MARGIN: Final = 0.2
"""The part of a lease that is left for stopping: others may begin only when all of it is over."""


class LeaseLostError(Exception):
    """Say that others may take this owner for dead, since the store was not heard of; never leaves `_keeping`."""


def clock() -> float:
    """Return seconds that go on while the machine sleeps, where the system can tell."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Lease:
    """
    The time within which one owner may act; `lapses` counts how often that was over before it was renewed.

    The thread of the store renews it, with the time at which it *asked* the store to: the store counts from later on.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends = clock()
        self.lapses = 0

    def renew(self, asked: float) -> None:
        """Let it end so many seconds after *asked*, a time of `clock`."""
        if asked > self._ends:
            self.lapses += 1
        self._ends = asked + self.seconds * (1 - _MARGIN)

    def left(self) -> float:
        """Return for how many seconds the owner may act, 0 if it may not."""
        return max(self._ends - clock(), 0.0)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Cut off what is done within this when the lease ends; raise `LeaseLostError` then, and where it is over."""
        if not self.left():
            raise LeaseLostError
        scope = asyncio.timeout(None)
        try:
            async with scope:
                watch = _Watch(self, scope)
                try:
                    yield
                finally:
                    watch.end()
        except TimeoutError:
            if scope.expired():
                raise LeaseLostError from None
            raise


class _Watch:
    """Ends a scope when a lease does: looks when that is due, and again if it was renewed meanwhile."""

    def __init__(self, lease: Lease, scope: asyncio.Timeout) -> None:
        self._lease = lease
        self._scope = scope
        self._lapses = lease.lapses
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(lease.left(), self._look)

    def end(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        left = self._lease.left()
        if left and self._lease.lapses == self._lapses:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._scope.reschedule(self._loop.time())
