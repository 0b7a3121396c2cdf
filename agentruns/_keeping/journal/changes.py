"""What other processes do to a journal: seen by looking, as long as somebody waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from agentruns.errors import AgentRunsError

if TYPE_CHECKING:
    from .store import News

logger = logging.getLogger("agentruns")

LOOK_SECONDS: Final = 0.25
"""Seconds between two looks whether another process has written to the journal."""

_GATHER_SECONDS: Final = 0.01


async def pause(news: News | None, seen: int, seconds: float) -> None:
    """
    Wait so many seconds; no longer than until *news* has another version than *seen*, if the store tells any.

    Where much is written, it waits a little still: one look is for all that was written meanwhile.
    """
    if news is None:
        await asyncio.sleep(seconds)
        return
    told, loop = asyncio.Event(), asyncio.get_running_loop()

    def tell() -> None:
        loop.call_soon_threadsafe(told.set)

    forget = news.call(seen, tell)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # unlike `wait_for`, it swallows no cancellation at the last moment
                await told.wait()
            await asyncio.sleep(_GATHER_SECONDS)
    finally:
        forget()


class JournalChanges:
    """
    Calls *on_change* when somebody else has written to a journal, as long as somebody watches.

    *version* gives a number that changes with every write of others (`Journal.version`, `JournalReader.version`).
    *on_change* is called when it is not what it was at the last look, even if nobody watched in between, and after
    *at_most* seconds in any case: a process that dies writes nothing, and a file that is deleted has no new version.
    The error of either is given to *on_error*, or logged if it is not ours, and the looks go on. *pause*, of the
    version seen and of seconds, waits between two looks: shorter where the journal tells of changes (`Journal.pause`).
    """

    def __init__(
        self,
        version: Callable[[], Awaitable[int]],
        on_change: Callable[[], Awaitable[None]],
        on_error: Callable[[AgentRunsError], None],
        *,
        at_most: float,
        pause: Callable[[int, float], Awaitable[None]] | None = None,
    ) -> None:
        self._version = version
        self._on_change = on_change
        self._on_error = on_error
        self._at_most = at_most
        self._pause = pause or _sleep
        self._seen: int | None = None
        self._seen_at = 0.0
        self._watchers = 0
        self._is_told = False
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look as long as this is entered; one task does so for all."""
        self._watchers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._look(), name="agentruns: look at the changes of a journal")
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._cancel()

    async def close(self) -> None:
        """Look no more; whoever still watches is not told anything."""
        self._cancel()
        self._seen = None  # another connection counts anew
        if self._ending:
            await asyncio.wait(self._ending)

    def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            task.cancel()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        version = 0
        while True:
            is_well = True
            try:
                version = await self._version()  # before the look: what is written in between is seen by the next
                if version != self._seen or loop.time() > self._seen_at + self._at_most:
                    await self._on_change()
                    self._seen, self._seen_at = version, loop.time()
            except AgentRunsError as error:
                self._on_error(error)
            except Exception as error:
                is_well = self._tell(error)
            try:
                await self._pause(version, LOOK_SECONDS)
            except Exception as error:
                is_well = self._tell(error)
                await asyncio.sleep(LOOK_SECONDS)
            if is_well:
                self._is_told = False

    def _tell(self, error: Exception) -> bool:
        """Log an error that is not ours, once for as long as it lasts; return False."""
        if not self._is_told:
            logger.error("what others do to a journal cannot be seen for now", exc_info=error)
        self._is_told = True
        return False


async def _sleep(_seen: int, seconds: float) -> None:
    await asyncio.sleep(seconds)
