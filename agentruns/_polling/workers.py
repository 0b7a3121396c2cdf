"""The tasks that read runs: a few of them wait for more work, since to begin one takes a tenth of a whole poll."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, Final, Generic, TypeVar

from agentruns._aio.tasks import Tasks

logger = logging.getLogger("agentruns")

JobT = TypeVar("JobT")

_MOST_IDLE: Final = 16


class Workers(Generic[JobT]):
    """
    Do jobs, *at_once* of them at most, each in a task of *tasks*.

    A worker *do*es one after the other, in its task, as *next_job* gives them, and waits for more as long as *expects*
    says that there will be. *on_cut_off* is called when one was cancelled in the middle of its job. `beginning` are the
    jobs that were given out and have not begun.
    """

    def __init__(
        self,
        tasks: Tasks,
        at_once: int,
        *,
        do: Callable[[JobT, asyncio.Task[Any]], Awaitable[None]],
        next_job: Callable[[], JobT | None],
        expects: Callable[[], bool],
        on_cut_off: Callable[[], None],
    ) -> None:
        self._tasks = tasks
        self._at_once = at_once
        self._do = do
        self._next_job = next_job
        self._expects = expects
        self._on_cut_off = on_cut_off
        self._busy = 0
        self.beginning = 0
        self._idle: list[asyncio.Future[JobT | None]] = []
        self._context = copy_context()  # of nobody in particular: a worker serves many

    def __len__(self) -> int:
        """Return how many jobs are under way."""
        return self._busy

    @property
    def has_room(self) -> bool:
        """Tell whether another job may begin."""
        return self._busy < self._at_once

    def begin(self, job: JobT) -> None:
        """Have a job done: by a worker that waits for one, else by a new one."""
        self._busy += 1
        self.beginning += 1
        if not self._give_to_idle(job):
            self._tasks.spawn(self._work(job), self._context)

    def close(self) -> int:
        """Begin nothing more; return how many jobs were given out and will never begin."""
        dropped, self.beginning = self.beginning, 0
        self._busy -= dropped
        self.dismiss_idle()
        return dropped

    def dismiss_idle(self) -> None:
        """Let those go that wait for work."""
        while self._give_to_idle(None):
            pass

    def _give_to_idle(self, job: JobT | None) -> bool:
        """Have a worker that waits do *job*, or end if that is None; return whether there is one."""
        while self._idle:
            waits = self._idle.pop()
            if not waits.done():  # else it was cancelled
                waits.set_result(job)
                return True
        return False

    async def _work(self, job: JobT | None) -> None:
        loop = asyncio.get_running_loop()  # asked once: before Python 3.12 that is a system call
        task = asyncio.current_task(loop)
        assert task is not None
        while job is not None and self.beginning:  # else this was closed before it began
            self.beginning -= 1
            try:
                while job is not None:
                    await self._do(job, task)
                    job = self._next_job()
            except Exception:  # a mistake, which must not end the reads of all
                logger.exception("runs could not be read, and are read again")
            finally:
                self._busy -= 1
                if job is not None:
                    self._on_cut_off()
            if len(self._idle) >= _MOST_IDLE or not self._expects():
                return
            waits: asyncio.Future[JobT | None] = loop.create_future()
            self._idle.append(waits)
            job = await waits
