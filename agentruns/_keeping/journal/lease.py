"""For how long an owner may act whom others know by a lease, and what ends its acts when that time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""That of Linux, else the one that goes on while a Mac sleeps."""

_MARGIN: Final = 0.2
"""The part of a lease that is left for stopping: others may begin only when all of it is over."""


_LOOK_SECONDS: Final = 0.5
"""How often a lease is looked at in any case: the timers of a loop stand still while the machine sleeps."""


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
        self._watches: set[_Watch] = set()
        self._timer: asyncio.TimerHandle | None = None

    def renew(self, asked: float) -> None:
        """Let it end so many seconds after *asked*, a time of `clock`."""
        if asked > self._ends:
            self.lapses += 1
        self._ends = asked + self.seconds * (1 - _MARGIN)

    def lapse(self) -> None:
        """Let what is done within it be cut off now: the store says that it was over."""
        self.lapses += 1
        for each in tuple(self._watches):
            each.look_soon()

    def left(self) -> float:
        """Return for how many seconds the owner may act, 0 if it may not."""
        return max(self._ends - clock(), 0.0)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """
        Cut off what this task does within it when the lease ends; raise `LeaseLostError` then, and if it is over.

        So it does for what has swallowed that, or has ended when the lease was over: others may have begun meanwhile.
        """
        if not self.left():
            raise LeaseLostError
        watch = _Watch(self)
        self._watches.add(watch)
        if self._timer is None:
            self._look_later()
        try:
            yield
        except asyncio.CancelledError as error:
            if watch.is_cut and not watch.is_cancelled:
                raise LeaseLostError from error
            raise
        except Exception as error:
            if watch.is_cut:
                raise LeaseLostError from error
            raise
        else:
            if watch.is_lost:
                raise LeaseLostError
        finally:
            self._watches.discard(watch)
            watch.end()
            if not self._watches and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _look_later(self) -> None:
        """Look at what is done within it when it ends, and now and then before: one timer for all."""
        self._timer = asyncio.get_running_loop().call_later(min(self.left(), _LOOK_SECONDS), self._look)

    def _look(self) -> None:
        self._timer = None
        for each in tuple(self._watches):
            each.look()
        if any(not each.is_cut for each in self._watches):
            self._look_later()


class _Watch:
    """
    Cancels a task when a lease has ended, whether or not it was renewed since.

    It does so at once, and not by `asyncio.timeout`, whose cancellation comes one turn of the loop later: a process
    that goes on after it was stopped finds all its timers due at once, and the task would go on before.
    """

    def __init__(self, lease: Lease) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._lease = lease
        self._lapses = lease.lapses
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        self.is_cut = False

    @property
    def is_lost(self) -> bool:
        """Tell whether the lease has ended since this began."""
        return self.is_cut or not self._lease.left() or self._lease.lapses != self._lapses

    @property
    def is_cancelled(self) -> bool:
        """Tell whether somebody else has cancelled the task as well."""
        return self._task.cancelling() > self._cancelling + self.is_cut

    def look_soon(self) -> None:
        """Look now; for use in any thread."""
        with suppress(RuntimeError):  # its event loop is closed
            self._loop.call_soon_threadsafe(self.look)

    def end(self) -> None:
        """Look no more."""
        self._is_over = True
        if self.is_cut:
            self._task.uncancel()

    def look(self) -> None:
        """Cancel the task if the lease has ended."""
        if not (self._is_over or self.is_cut) and self.is_lost:
            self.is_cut = True
            self._task.cancel()
