"""One run that is watched: what was seen of it last, who waits, and where it stands in the poller's line."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentruns._values.exchange import NO_PARAMS
from agentruns._values.news import ANSWERED, NEWS, NONE_ANSWERED, STALE, AnsweredActions, Novelty, compare
from agentruns._values.run import Run, RunRef

from .contact import Contact
from .listener import Listener, Onlooker
from .segment import Segment

if TYPE_CHECKING:
    import asyncio
    from contextvars import Context

    from agentruns._aio.timers import Timer
    from agentruns._values.commands import Flow
    from agentruns._values.exchange import Request


class Stage(enum.IntEnum):
    """Where a watched run stands. `Agenda` moves it, and nothing else does."""

    IDLE = 0
    """No read is planned: nobody listens."""

    PLANNED = 1
    """It is to be read at a time to come."""

    DUE = 2
    """Its time has come: it is to be read when there is room."""

    ENDED = 3
    """A list has shown that it is over; lists leave things out, so it is read by itself, before what is due."""

    READING = 4
    """A request that may tell of it is under way."""


IDLE, PLANNED, DUE, ENDED, READING = Stage  # before Python 3.12, to look one up in its class takes ten times as long


class Watch:
    """
    What is known of one run, shared by all who follow it.

    It is asked about only while somebody listens. Times are those of the loop, in seconds.
    """

    __slots__ = (
        "answered",
        "body",
        "contact",
        "context",
        "due",
        "followers",
        "key",
        "listeners",
        "onlookers",
        "params",
        "phase",
        "place",
        "reads",
        "ref",
        "request",
        "run",
        "segment",
        "stage",
        "timer",
        "unchanged_count",
        "waiting_since",
        "wanted",
        "worker",
    )

    def __init__(self, ref: RunRef, phase: float, now: float) -> None:
        self.ref = ref
        self.phase = phase
        self.run: Run | None = None
        self.body: bytes | None = None  # of the last answer that was a run by itself
        self.request: Request | None = None
        self.reads: Callable[[], Flow[Run]] | None = None  # the next read, if a request for many has told of news
        self.params: Mapping[str, str] = NO_PARAMS  # of each read of this run alone
        self.answered: AnsweredActions = NONE_ANSWERED  # those of this run that were answered here
        self.context: Context | None = None  # of who followed first, for the span of the run
        self.key = ""  # of the work whose run it is, for the log and the span
        self.followers = 0  # streams that may come to listen again
        self.listeners: Sequence[Listener] = ()
        self.onlookers: Sequence[Onlooker] = ()  # who look at a run that waits for an answer
        self.waiting_since = now  # when the last of them left, or the segment began
        self.worker: asyncio.Task[None] | None = None  # at work on the request that is under way
        self.stage = IDLE
        self.timer: Timer[Any] | None = None  # of a run that is planned
        self.due = now
        self.wanted = math.inf  # by when it is to be read, because something says that it has moved
        self.place: int | None = (
            0  # the page of the vendor's list that it is expected on; None if only a read of its own will do
        )
        self.unchanged_count = 0  # answers in a row that changed nothing
        self.contact = Contact()
        self.segment = Segment(now, phase, later=False, learns=False, is_whole=True)

    def begin(self, run: Run, now: float, *, later: bool, learns: bool) -> None:
        """Begin a segment with the state that starts it; see `Segment` for what it takes."""
        self.segment = Segment(
            now, self.phase, later=later, learns=learns, is_whole=self.run is None, is_open=run.status.in_flight
        )
        self.contact.floor = run.poll_after or 0.0
        self.waiting_since = now
        self.unchanged_count = 0
        self.run, self.body = run, None
        if self.place is None and not self.params:
            self.place = 0

    def take(self, run: Run) -> Novelty:
        """Take in a state that was read, unless it is old; return what it is beside the one before."""
        novelty = compare(self.run, run, self.answered)
        changed = novelty is NEWS or novelty is ANSWERED
        if novelty is not STALE:
            self.run = run
        self.unchanged_count = 0 if changed else self.unchanged_count + 1
        return novelty
