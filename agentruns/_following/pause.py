"""The pause that handlers are answering: it may end without them, answered elsewhere or cancelled."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from agentruns._api.operations import Operations
from agentruns._values.run import Run, RunStatus


class Pause:
    """
    Look for the end of the pause that *run* shows, from the time *began* of the loop on; call *on_over* once it is.

    It is over when two reads in a row show that none of its actions is asked any more, or one that the run is over. One
    read is not enough: it may be late, and show the run as it was before the pause. It is over, too, when an answer has
    begun another run, which is `followed` then. *operations* read the run where somebody wants to know it now.
    """

    __slots__ = ("_began", "_on_over", "_operations", "_suspected", "followed", "heard", "is_over", "run")

    def __init__(self, run: Run[Any], began: float, on_over: Callable[[], None], operations: Operations) -> None:
        self.run = run
        self._operations = operations
        self.heard: Callable[[Run[Any]], None] | None = None
        """What takes in a state for all who follow the run, this among them; None where nobody does."""
        self.is_over = False
        self.followed: Run[Any] | None = None
        self._began = began
        self._on_over = on_over
        self._suspected = False

    async def look(self) -> bool:
        """Read the run now; return whether the pause is over. Raise what the reads raise."""
        loop = asyncio.get_running_loop()
        for _ in range(2):
            if self.is_over:
                return True
            sent = loop.time()
            run = await self._operations.fetch(self.run.ref)
            if self.heard is None:
                self.on_state(run, sent)
            else:
                self.heard(run)
            if not self._suspected:
                break
        if not self.is_over:
            sent = loop.time()
            followed = await self._operations.answered_by(self.run)
            if followed is not None:
                self.on_followed(followed, sent)
        return self.is_over

    def stop(self) -> None:
        """Look no more: all handlers have answered, and the run goes on by that."""
        self._began = math.inf

    def on_state(self, run: Run[Any], sent: float) -> bool:
        """Take note of a state that was read by a request of the time *sent*; return whether the pause is over."""
        if sent < self._began:
            return self.is_over
        if run.status is RunStatus.REQUIRES_ACTION and any(action in self.run.actions for action in run.actions):
            self._suspected = False
        elif run.status.is_over or self._suspected:
            self.is_over = True
            self._on_over()
        else:
            self._suspected = True
        return self.is_over

    def on_followed(self, followed: Run[Any], sent: float) -> bool:
        """Take note of the run that came of an answer, looked for since *sent*; return whether the pause is over."""
        if sent >= self._began and not self.is_over:
            self.followed, self.is_over = followed, True
            self._on_over()
        return self.is_over
