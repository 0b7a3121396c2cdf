"""
How many exchanges are under way at once, and for how long: bounds that cost nothing while they are kept.

anyio's and asyncio's own would do, but for their price: a limiter and a timeout cost a tenth of a poll each, and a
semaphore with 50,000 waiters stalls the loop for seconds when they are cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, TypeAlias

TOO_LONG: Final = "it took too long"

Task: TypeAlias = asyncio.Task[Any]
"""The task of an exchange, which has no other exchange at the same time."""


class ConcurrencyLimit:
    """Let so many through at once; who comes later waits in line."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._line: deque[asyncio.Future[bool]] = deque()
        self._reserved: set[Task] = set()

    def acquire_nowait(self) -> bool:
        """Take a permit, if one is free or reserved for this task, and tell whether."""
        if self._reserved and self._take_reserved():
            return True
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    async def acquire(self) -> bool:
        """Wait for a permit; False if this was closed meanwhile. A wait that is cancelled takes none."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.release()
            raise

    async def reserve(self) -> bool:
        """Wait for a permit that the next `acquire_nowait` of this task takes; False if this was closed meanwhile."""
        has_one = self.acquire_nowait() or await self.acquire()
        if has_one:
            self._reserved.add(_this_task())
        return has_one

    def unreserve(self) -> None:
        """Give back the permit that is reserved for this task, if there is one that was not taken."""
        if self._take_reserved():
            self.release()

    def _take_reserved(self) -> bool:
        task = _this_task()
        is_reserved = task in self._reserved
        self._reserved.discard(task)
        return is_reserved

    def release(self) -> None:
        """Give the permit to who waits longest."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():  # else it was given up
                turn.set_result(True)
                return
        self._free += 1

    def close(self) -> None:
        """Send away who waits."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(False)


class ExchangeTimeouts:
    """
    Cancel exchanges that take longer than *seconds*, with one timer for all: the first to begin is the first to end.

    The timer stays when an exchange ends, and is set anew when it goes off, until `cancel_all`: to set and cancel one
    for each exchange fills the heap of the loop.

    It is their task that is cancelled. That is told from a cancellation that came from outside as `asyncio.timeout`
    does, by the task's own count.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._under_way: dict[Task, tuple[float, int]] = {}  # until when, and how often it was cancelled before
        self._endless: dict[Task, tuple[float, int]] = {}
        self._reasons: dict[Task, str] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, *, endless: bool = False) -> Task:
        """Begin an exchange of the current task, and return the task."""
        loop = asyncio.get_running_loop()
        task = _this_task(loop)
        until = loop.time() + self._seconds
        (self._endless if endless else self._under_way)[task] = (until, task.cancelling())
        if self._timer is None and not endless:
            self._timer = loop.call_at(until, self._on_timer)
        return task

    def end(self, task: Task) -> None:
        """End an exchange."""
        if self._under_way.pop(task, None) is None:
            self._endless.pop(task, None)
        if self._reasons:
            self._reasons.pop(task, None)

    def reason(self, task: Task) -> str | None:
        """Return why an exchange whose task was cancelled was ended; None if not from here, or not only."""
        reason = self._reasons.get(task)
        _, before = self._under_way.get(task) or self._endless.get(task) or (0.0, 0)
        return reason if reason is not None and task.uncancel() <= before else None

    def cancel_all(self, reason: str) -> None:
        """Cancel every exchange."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in (*self._under_way, *self._endless):
            self._cancel(task, reason)

    def _on_timer(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for task, (until, _) in self._under_way.items():
            if until > loop.time():
                self._timer = loop.call_at(until, self._on_timer)
                return
            self._cancel(task, TOO_LONG)

    def _cancel(self, task: Task, reason: str) -> None:
        if task not in self._reasons:
            self._reasons[task] = reason
            task.cancel()


def _this_task(loop: asyncio.AbstractEventLoop | None = None) -> Task:
    task = asyncio.current_task(loop)
    assert task is not None
    return task
