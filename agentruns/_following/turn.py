"""The turn of one stream: what its run holds of the client's line, and when the wait for it is over."""

from __future__ import annotations

import asyncio
import math
from typing import Final

from agentruns._aio.tasks import Tasks
from agentruns._api.admission import PLACE, Admission, Place

AGAIN_SECONDS = 5.0
"""How long it is waited, while no deadline can be told, before it is asked for again."""


class Turn:
    """
    When a run may be started, and when *timeout*, in seconds, has passed: waiting in our own line is no part of it.

    `place` is what the run holds: one of its own, to be left, or that of the row that it is for. It is None for a run
    that needs none, since it was there before. `began` is the time of the loop at which the timeout began, None before
    the first step.
    """

    __slots__ = ("_admission", "_own", "_timeout", "began", "place")

    def __init__(self, admission: Admission, timeout: float | None) -> None:
        self._admission = admission
        self._timeout: Final = timeout
        self._own: Place | None = None
        self.place: Place | None = None
        self.began: float | None = None

    def begin(self, now: float) -> None:
        """Begin the wait: on behalf of a row that has a place, if there is one around."""
        self.began = now
        place = PLACE.get()
        if place is not None and place.serves(self._admission):
            self.place = place
            if (excused := place.excused(now)) < math.inf:
                self.began -= excused  # that was before

    @property
    def deadline(self) -> float:
        """Return the time of the loop at which the whole wait is over; infinite while that cannot be told."""
        if self._timeout is None or self.began is None:
            return math.inf
        end = self.began + self._timeout
        return end if self.place is None else end + self.place.excused(asyncio.get_running_loop().time())

    @property
    def look_at(self) -> float:
        """Return the time of the loop at which it is to be seen whether the wait is over."""
        deadline = self.deadline
        if deadline < math.inf or self._timeout is None:
            return deadline
        return asyncio.get_running_loop().time() + AGAIN_SECONDS

    def enter_nowait(self) -> bool:
        """Take a place, if there is one at once, unless the run has one; return whether it has."""
        if self.place is None:
            self._own = self.place = self._admission.enter_nowait()
        return self.place is not None

    async def enter(self) -> None:
        """Wait for a place; that is no part of the timeout, even where no place comes of it."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            self._own = self.place = await self._admission.enter()
        finally:
            self._put_off(loop.time() - since)

    def leave(self) -> None:
        """Leave the run's own place; what it has begun is still done on behalf of it."""
        own, self._own = self._own, None
        if own is not None:
            own.leave()

    def leave_unused(self, now: float) -> None:
        """Leave the place of a start that has failed; the step that tries again takes another."""
        if self._own is not None:
            self._put_off(self._own.excused(now))
            self.place = None
            self.leave()

    def leave_soon(self, tasks: Tasks) -> None:
        """Leave the run's own place, for a stream that the collector has found, in whichever thread."""
        if self._own is not None:
            tasks.call_soon(self._own.leave)

    def _put_off(self, seconds: float) -> None:
        """Have the timeout begin so much later."""
        if self.began is not None:
            self.began += seconds


def alarm(when: float) -> float | None:
    """Return a time as a timeout takes it: None for never."""
    return None if when == math.inf else when
