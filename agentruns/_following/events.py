"""The events of one run as the vendor tells them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from agentruns._aio.generator import AsyncGeneratorBase
from agentruns._aio.tasks import Tasks
from agentruns._api.channel import Heard
from agentruns._values.exchange import ServerEvent
from agentruns.errors import AgentRunsError

_AHEAD: Final = 100
"""How many events are read ahead of who iterates; then the vendor waits."""


class EventStream(AsyncGeneratorBase[ServerEvent]):
    """
    The events of a run, in the order in which the vendor sends them, until it ends the stream.

    Use it with `async with`, which hangs up. What an event says is the vendor's: `middesk.RunEvent.of(event)` reads
    those of Middesk. Events are hints: read the run with `client.fetch` for its state.
    """

    __slots__ = ("_closed", "_events", "_listen", "_room", "_task", "_tasks")

    def __init__(self, listen: Callable[[Heard], Awaitable[None]], tasks: Tasks) -> None:
        self._listen = listen
        self._tasks = tasks
        self._events: asyncio.Queue[ServerEvent | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def __anext__(self) -> ServerEvent:
        """
        Return the next event.

        Raise `TransportError` where the vendor refuses the stream, or the connection is lost; events may be missing
        then, and a new stream may tell all from the beginning.
        """
        if self._closed:
            raise StopAsyncIteration
        if self._task is None:
            self._task = self._tasks.spawn(self._hear())
        event = await self._events.get()
        self._room.set()
        if event is not None:
            return event
        self._events.put_nowait(None)  # whoever asks again hears the same
        if not self._task.cancelled():
            self._task.result()
        elif not self._closed:
            raise AgentRunsError("the client was closed while it listened to events")
        raise StopAsyncIteration

    async def _hear(self) -> None:
        try:
            await self._listen(self._put)
        finally:
            self._events.put_nowait(None)

    async def _put(self, event: ServerEvent) -> None:
        while self._events.qsize() >= _AHEAD:
            self._room.clear()
            await self._room.wait()
        self._events.put_nowait(event)

    async def aclose(self) -> None:
        """Hang up; events that were not asked for are lost."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
