"""The stream of events of a run, heard beside the polls: it says when to look, and may say what there is to see."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any, Final

from agentruns._aio.tasks import Tasks
from agentruns._api.operations import Operations
from agentruns._values.exchange import ServerEvent
from agentruns._values.printable import printable
from agentruns._values.run import Run, RunRef
from agentruns.errors import APIError, TransportError

from .waiter import Waiter

if TYPE_CHECKING:
    from .options import OnEvent

logger = logging.getLogger("agentruns")

EVENT_SECONDS: Final = 1.0
"""Seconds between two reads of a run that events ask for: a vendor may send an event for each word of a model."""


class Listening:
    """
    Listen to the events of the run that a stream follows, in a task of its own, and call *on_event* for each.

    It goes on between two steps, so that no event is lost, until the run waits or is over. What was heard to its end,
    or could not be heard, is not opened again until the run has changed. It knows no stream, and keeps none alive.
    """

    __slots__ = ("_look", "_on_event", "_operations", "_ref", "_task", "_tasks", "_waiter")

    def __init__(self, operations: Operations, tasks: Tasks, waiter: Waiter, on_event: OnEvent | None) -> None:
        self._operations = operations
        self._tasks = tasks
        self._waiter = waiter
        self._on_event = on_event
        self._ref: RunRef | None = None  # the run that is listened to, or was
        self._task: asyncio.Task[None] | None = None
        self._look = -math.inf  # the time of the loop of the last read that events asked for, or of the next

    def follow(self, ref: RunRef) -> None:
        """Listen to that run and no other; raise, once, what an event that was heard has led to."""
        if ref != self._ref:
            self.stop()
            self._ref = ref
            self._task = self._tasks.spawn(self._listen(ref))
        task = self._task
        if task is not None and task.done():
            self._task = None
            if not task.cancelled():
                task.result()

    def changed(self, run: Run[Any]) -> None:
        """Take note that the run has changed: its events are worth hearing again, unless it waits or is over."""
        if not run.status.in_flight:
            self.stop()
        elif self._task is None or self._task.done():
            self._task = self._ref = None

    def stop(self) -> None:
        """Hang up."""
        task, self._task, self._ref = self._task, None, None
        if task is not None:
            task.cancel()

    async def _listen(self, ref: RunRef) -> None:
        try:
            await self._operations.listen(ref, self._heard)
        except (TransportError, APIError) as error:
            logger.debug("the events of run %s cannot be heard: %s", printable(ref.id), error)
        except Exception:
            self._waiter.wake()  # the step that waits raises it
            raise
        else:
            self._waiter.poll_by(asyncio.get_running_loop().time())  # the end of a stream tells of an end, too

    async def _heard(self, event: ServerEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)
        if self._ref is None:  # hung up
            return
        said = self._operations.event_of(self._ref, event)
        if isinstance(said, Run) and said.status.in_flight:
            self._waiter.heard(said)
        elif said:  # an event leaves things out: what moves no more is read, as a hint asks for
            now = asyncio.get_running_loop().time()
            if self._look <= now:
                self._look = max(now, self._look + EVENT_SECONDS)
            self._waiter.poll_by(self._look)
