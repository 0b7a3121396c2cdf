"""One run that is waited for: what was seen of it last, who waits, and since when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Protocol

from agentruns._values.news import NONE_ANSWERED, AnsweredActions, Novelty, compare
from agentruns._values.run import Run, RunRef

if TYPE_CHECKING:
    import asyncio
    from contextvars import Context

    from agentruns._aio.timers import Entry
    from agentruns._values.exchange import Request

    from .clock import PollClock


class Listener(Protocol):
    """Whoever waits for news of a run; it is called, and does not call back."""

    @property
    def look_by(self) -> float:
        """Return the time of the loop by which it wants the run to be read at the latest."""
        ...

    @property
    def patience(self) -> float:
        """Return how many seconds of lost contact it bears."""
        ...

    @property
    def patient_since(self) -> float:
        """Return the time of the loop at which it gave up last, minus infinity if it never did."""
        ...

    def on_state(self, run: Run, now: float) -> bool:
        """Take note of an answer; return whether it ends the waiting."""
        ...

    def on_deadline(self) -> None:
        """End the waiting: its deadline has come."""
        ...

    def on_error(self, error: Exception) -> None:
        """Take note that the run could not be read, and that no patience helps."""
        ...


class Watch:
    """
    What is known of one run, shared by all who follow it.

    It is asked about only while somebody listens. Times are those of the loop, in seconds. A *segment* is the time from
    a start, or an answer, to the next stop: what the poll clock learns the length of.
    """

    __slots__ = (
        "answered",
        "began",
        "body",
        "clock",
        "context",
        "dated",
        "due",
        "entry",
        "error",
        "followers",
        "fresh_until",
        "later",
        "learns",
        "listeners",
        "lost_since",
        "may_hurry",
        "open",
        "phase",
        "place",
        "polled",
        "quiet",
        "reading",
        "ref",
        "request",
        "run",
        "running_at",
        "sent",
        "waiting_since",
        "whole",
        "worker",
    )

    def __init__(self, ref: RunRef, phase: float) -> None:
        self.ref = ref
        self.run: Run | None = None
        self.body: bytes | None = None  # of the last answer that was a run by itself
        self.request: Request | None = None
        self.answered: AnsweredActions = NONE_ANSWERED  # those of this run that were answered here
        self.context: Context | None = None  # of who followed first, for the span of the run
        self.followers = 0  # streams that may come to listen again
        self.listeners: Sequence[Listener] = ()
        self.worker: asyncio.Task[None] | None = None  # at work on the request that is under way
        self.reading = False  # a request that may tell of the run is under way
        self.entry: Entry | None = None  # in the timetable
        self.due = -math.inf
        self.phase = phase
        self.place: int | None = 0  # the page of the vendor's list that it is expected on; None if lists do not have it
        self.may_hurry = False  # the vendor was there when last asked, and asked for no pause
        self.quiet = 0  # answers in a row that changed nothing
        self.lost_since: float | None = None
        self.error: Exception | None = None  # why contact is lost
        self.fresh_until = -math.inf  # until then a 404 is a read that came before the write was seen
        self.whole = True  # the segment is all there is of the run so far
        self.dated = False  # it was looked for how old the run is
        # The segment.
        self.open = False
        self.later = False
        self.learns = False
        self.clock: PollClock | None = None
        self.began = self.sent = self.waiting_since = 0.0
        self.running_at = 0.0  # seconds after its begin at which it was last seen in flight
        self.polled = False

    def begin(self, now: float, *, later: bool, learns: bool) -> None:
        """Begin a segment: *learns* says whether *now* is when the run began to move, so that its length is known."""
        self.open, self.later, self.learns = True, later, learns
        self.began = self.sent = self.waiting_since = now
        self.running_at, self.polled, self.quiet = 0.0, False, 0

    def take(self, run: Run) -> bool:
        """Take in a state that was read; return whether it differs from the one before."""
        novelty = compare(self.run, run, self.answered)
        changed = novelty is Novelty.NEWS or novelty is Novelty.ANSWERED
        if novelty is not Novelty.STALE:
            self.run = run
        self.quiet = 0 if changed else self.quiet + 1
        return changed

    def lose(self, error: Exception, now: float) -> None:
        """Note that contact is lost, since now or since before."""
        self.error = copy(error)  # one that is raised holds, by its traceback, whoever it is raised to
        self.quiet += 1
        if self.lost_since is None:
            self.lost_since = now

    def is_fresh(self, now: float) -> bool:
        """Tell whether a read may still come before the start is visible to it."""
        return now <= self.fresh_until

    def gives_up(self, listener: Listener, now: float) -> bool:
        """Tell whether contact has been lost for longer than *listener* bears."""
        if self.lost_since is None:
            return False
        return now >= self.given_up_at(listener) or bool(getattr(self.error, "final", False))

    def given_up_at(self, listener: Listener) -> float:
        """Return when *listener* will have borne with lost contact for long enough."""
        since = math.inf if self.lost_since is None else self.lost_since
        return max(since, listener.patient_since) + listener.patience
