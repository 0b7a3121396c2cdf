"""Tasks that outlive whoever began them, but not their owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from threading import get_ident
from typing import Any, Final, TypeVar

logger = logging.getLogger("agentruns")

T = TypeVar("T")

EXIT_SECONDS: Final = 30.0
"""How long tasks may take to clean up after they were cancelled before their owner closes without them."""


class Tasks:
    """
    The tasks of one owner, which ends them when it closes.

    `close` cancels at once; `wait_closed` then waits. What is spawned after `close` is not cancelled.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._cancelled: frozenset[asyncio.Task[Any]] = frozenset()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0

    def __len__(self) -> int:
        return len(self._running)

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to *loop* and to the current thread."""
        self._loop, self._thread = loop, get_ident()

    def spawn(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> asyncio.Task[T]:
        """
        Begin *work* in the running loop, and return its task.

        It sees the context variables of the caller, or those of *context*. What it raises is for the caller to handle.
        """
        task = asyncio.create_task(work, context=context)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.debug("a task ended with %r", task.exception())

    def call_soon(self, callback: Callable[[], None]) -> None:
        """
        Call *callback* in the loop, soon; never while this is not open.

        Any thread may ask, and so may a finalizer. The call is never made at once: the collector may have run in the
        middle of the loop's own work.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if get_ident() == self._thread:
            loop.call_soon(callback)
        else:
            loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """Cancel all tasks, and make no more calls; wait for nothing."""
        self._loop = None
        self._cancelled = frozenset(self._running)
        for task in self._cancelled:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the tasks that were cancelled have ended, `EXIT_SECONDS` at most; log those that have not."""
        cancelled, self._cancelled = self._cancelled, frozenset()
        if cancelled:
            _done, left = await asyncio.wait(cancelled, timeout=EXIT_SECONDS)
            for task in left:
                logger.warning("a handler does not end although it was cancelled: %r", task)
