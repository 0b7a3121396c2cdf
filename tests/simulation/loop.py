"""A loop in which the same seed gives the same history: time jumps, tasks have numbers, and waiting in vain is seen."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Final

from tests.scripted_wire import VirtualLoop

if TYPE_CHECKING:
    from .callers import Sight
    from .process import Process

PROCESS: Final[ContextVar[Process | None]] = ContextVar("PROCESS", default=None)
"""The simulated process in which something runs; None is the simulation itself."""

SIGHT: Final[ContextVar[Sight | None]] = ContextVar("SIGHT", default=None)
"""The stream whose step a task takes, or within which it was begun."""

MOST_ROUNDS: Final = 300_000


class StuckError(Exception):
    """Report that everybody waits and nothing will come, or that nobody ever stops."""


class SimTask(asyncio.Task[Any]):
    """A task that knows its process, and hashes by number: sets of tasks have the same order in every run."""

    process: Process | None = None

    def __init__(self, number: int, *args: Any, **options: Any) -> None:
        self.number = number  # first: the registry of tasks hashes them
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self.number


class SimLoop(VirtualLoop):
    """The loop of one seed."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0
        self.tasks = 0
        self.threads = 0
        """Pieces of work that other threads are at: meanwhile time stands still."""
        self.complaints: list[str] = []
        self.set_task_factory(self._made)  # type: ignore[arg-type]
        self.set_exception_handler(self._complain)

    def _made(self, _: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> SimTask:
        self.tasks += 1
        task = SimTask(self.tasks, work, loop=self, **options)
        context: Context | None = options.get("context")
        task.process = PROCESS.get() if context is None else context.get(PROCESS)
        if task.process is not None:
            task.process.tasks.append(task)
        return task

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Keep what went wrong where nobody looked, unless it was in a process that was killed."""
        task = context.get("task") or context.get("future")
        process = getattr(task, "process", None) or PROCESS.get()
        if process is None or not process.dead:
            self.complaints.append(f"{context.get('message')}: {context.get('exception')!r} ({task!r})")

    @property
    def timers(self) -> list[asyncio.TimerHandle]:
        """Return what is still to come."""
        return [timer for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]

    def _run_once(self) -> None:
        self.rounds += 1
        if self.rounds > MOST_ROUNDS:
            raise StuckError("it goes on and on")
        timers = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0].cancelled():
            timer = heapq.heappop(timers)
            timer._scheduled = False
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        if not self._ready and not self.threads:  # type: ignore[attr-defined]
            if not timers:
                raise StuckError("everybody waits, and nothing will come")
            self.now = max(self.now, timers[0].when())
        asyncio.SelectorEventLoop._run_once(self)  # type: ignore[attr-defined]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Have what goes wrong kept, never shown."""
        self._complain(self, context)
