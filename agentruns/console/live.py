"""What browsers are told while they watch: a list that changes, or one piece of work that goes on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from agentruns._keeping.journal.entries import Entry
from agentruns.web import Event

from .history import WorkHistory
from .source import Source
from .views import Card, Views

LINGER_SECONDS: Final = 30.0
"""How long a history is kept unwatched: a browser that comes back within it is sent only what is new."""

LEAST_GAP: Final = 0.2
"""Seconds between two changes of a list, at least: a batch may change a thousand entries a second."""


class Histories:
    """The histories of the entries that are watched, each shared by all who watch it."""

    def __init__(self, source: Source, *, linger: float = LINGER_SECONDS) -> None:
        self._source = source
        self._linger = linger
        self._histories: dict[str, tuple[WorkHistory, AsyncExitStack]] = {}
        self._lock = asyncio.Lock()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close all histories."""
        for timer in self._timers.values():
            timer.cancel()
        for entry_id in tuple(self._histories):
            await self._close(entry_id)
        if self._closing:
            await asyncio.wait(self._closing)

    @asynccontextmanager
    async def of(self, entry: Entry) -> AsyncIterator[WorkHistory]:
        """Yield the history of an entry, which is kept at least as long as this context."""
        async with self._lock:
            history = await self._opened(entry)
            history.watching += 1
        timer = self._timers.pop(entry.id, None)
        if timer is not None:
            timer.cancel()
        try:
            yield history
        finally:
            history.watching -= 1
            if not history.watching:
                loop = asyncio.get_running_loop()
                self._timers[entry.id] = loop.call_later(self._linger, self._close_soon, entry.id)

    async def _opened(self, entry: Entry) -> WorkHistory:
        known = self._histories.get(entry.id)
        if known is not None:
            return known[0]
        stack = AsyncExitStack()
        history = await stack.enter_async_context(WorkHistory(self._source, entry))
        self._histories[entry.id] = history, stack
        return history

    def _close_soon(self, entry_id: str) -> None:
        task = asyncio.create_task(self._close_unwatched(entry_id))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_unwatched(self, entry_id: str) -> None:
        async with self._lock:
            known = self._histories.get(entry_id)
            if known is not None and not known[0].watching:
                await self._close(entry_id)

    async def _close(self, entry_id: str) -> None:
        self._timers.pop(entry_id, None)
        _, stack = self._histories.pop(entry_id)
        await stack.aclose()


async def cards_of(source: Source, history: WorkHistory) -> list[Card]:
    """Return the forms of what a piece of work waits for."""
    groups = history.pause.groups if history.pause is not None else ()
    return [Card(group, await source.asks(group)) for group in groups]


async def work_events(
    source: Source, history: WorkHistory, views: Views, seen: str | None
) -> AsyncGenerator[Event, None]:
    """Yield what is new of one piece of work, from the change on that a browser has seen last."""
    count_seen = history.changes_seen(seen)
    while True:
        await history.news(count_seen)
        count = history.count
        cards = await cards_of(source, history)
        if history.count != count:
            continue  # it has moved meanwhile: what is sent must belong to one count
        html = views.update(history, count_seen, cards)
        count_seen = count
        yield Event(f"{history.epoch}-{count_seen}", "run", html)


async def list_events(
    source: Source, render: Callable[[], Awaitable[str]], seen: str | None
) -> AsyncGenerator[Event, None]:
    """Yield what a list shows, whenever that has changed."""
    while True:
        with source.change() as change:
            html = await render()
            digest = hashlib.sha256(html.encode()).hexdigest()[:16]
            if digest == seen:
                await change
                continue
        seen = digest
        yield Event(digest, "run", html)
        await asyncio.sleep(LEAST_GAP)
