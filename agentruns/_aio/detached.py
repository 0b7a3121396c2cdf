"""Work that a cancelled wait does not cut off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tasks import Tasks

logger = logging.getLogger("agentruns")


def _wake(over: asyncio.Future[None], _: object) -> None:
    if not over.done():
        over.set_result(None)


class Detached:
    """
    One piece of work at a time, in a task of its own: whoever waits may be cancelled, and the next wait takes it up.

    The work ends with the *tasks* that it is spawned among, or when it is dropped.
    """

    __slots__ = ("_task", "_tasks")

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._task: asyncio.Task[Any] | None = None

    @property
    def is_under_way(self) -> bool:
        """Tell whether there is work whose result nobody has taken yet."""
        return self._task is not None

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Begin *work*; raise `RuntimeError` while there is other work."""
        if self._task is not None:
            work.close()
            raise RuntimeError("there is work under way")
        self._task = self._tasks.spawn(work)

    async def result(self) -> Any:
        """Wait for the work, and return or raise what comes of it; raise `RuntimeError` if there is none."""
        task = self._task
        if task is None:
            raise RuntimeError("there is no work under way")
        if not task.done():
            over: asyncio.Future[None] = (
                task.get_loop().create_future()
            )  # what `asyncio.wait` does, and many calls less
            wake = partial(_wake, over)
            task.add_done_callback(wake)
            try:
                await over
            finally:
                task.remove_done_callback(wake)
        self._task = None
        return task.result()

    async def drop(self, seconds: float) -> None:
        """Cancel the work, and wait until it has cleaned up, *seconds* at most; forget what comes of it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,), timeout=seconds)

    def cancel(self) -> None:
        """Ask the work to end, from any thread, and wait for nothing; log an error that nobody will be told."""
        task = self._task
        if task is None:
            return
        if task.done():
            if not task.cancelled() and task.exception() is not None:
                logger.warning("work failed, and nobody waits for it any more", exc_info=task.exception())
        elif not (loop := task.get_loop()).is_closed():
            loop.call_soon_threadsafe(task.cancel)
