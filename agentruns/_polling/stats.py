"""What one client does at present, in numbers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from attrs import frozen

from agentruns._api.admission import Admission
from agentruns._telemetry import KindOf, PollOutcome, Telemetry
from agentruns._values.run import Run

from .watch import Watch


@frozen
class Stats:
    """
    A picture of the runs that one client watches and of the requests that this takes; from `client.stats()`.

    `watched`: runs that somebody follows. `polls`: requests that read one run; `lists`: requests that read many.
    `polls_shared`: polls that were saved because several streams followed one run; `polls_saved_by_lists`: those that
    lists saved. `ended`: runs, or parts of runs up to a pause, that were seen to end; `lag`: the mean seconds between
    such an end and the poll that saw it, estimated as half the time since the poll before, None while nothing has
    ended. `budget`: which part of the requests that may be sent is used, from 0 to 1. `contact_lost`: runs whose vendor
    does not answer at present. `seconds_left`: those after which the last of the runs is as likely over as not, by what
    was learned of how long such runs take; None while nothing was. `rows_skipped`: rows of lists that do not fit what
    the vendor documents, and were left out; a list that is read again counts again. `lost_for`: the seconds since which
    nothing that was sent has been answered, 0 while the vendor is there; a request to which nobody says anything counts
    when it is given up, after `timeout` of `connect`. `waiting_for_slot`: starts that wait because
    the vendor has no slot for a further run; `slots`: how many runs it has room for, of all clients in this event loop
    that are of the account, None while it has refused none.
    """

    watched: int
    polls: int
    polls_shared: int
    lists: int
    polls_saved_by_lists: int
    ended: int
    lag: float | None
    budget: float
    contact_lost: int
    seconds_left: float | None = None
    rows_skipped: int = 0
    lost_for: float = 0.0
    waiting_for_slot: int = 0
    slots: int | None = None


class Counters:
    """Count what a poller does, for `Stats` and for telemetry."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry: Final = telemetry
        self.polls = self.polls_shared = self.lists = self.polls_saved_by_lists = self.ended = 0
        self._lag = 0.0

    def stats(
        self, watches: Collection[Watch], now: float, admission: Admission, *, used: float, rows_skipped: int
    ) -> Stats:
        """Return what there is to count; *used* is the part of the rate limit that is taken."""
        segments = [watch.segment for watch in watches if watch.segment.is_open]
        left = [each.clock.seconds_left(max(now - each.began, 0.0)) for each in segments if each.clock is not None]
        return Stats(
            watched=len(watches),
            polls=self.polls,
            polls_shared=self.polls_shared,
            lists=self.lists,
            polls_saved_by_lists=self.polls_saved_by_lists,
            ended=self.ended,
            lag=self._lag / self.ended if self.ended else None,
            budget=used,
            contact_lost=sum(watch.contact.lost_since is not None for watch in watches),
            seconds_left=max((seconds for seconds in left if seconds is not None), default=None),
            rows_skipped=rows_skipped,
            lost_for=0.0 if admission.outages.since is None else now - admission.outages.since,
            waiting_for_slot=admission.waiting,
            slots=admission.slots.most,
        )

    def polled(self, outcome: PollOutcome, listeners: int = 1) -> None:
        """Count what came of a read, for so many listeners."""
        if listeners > 1:
            self.polls_shared += listeners - 1
        self._telemetry.polled(outcome)

    def listed(self, found: int) -> None:
        """Count a page of a list on which so many runs were found."""
        self.polls_saved_by_lists += max(found - 1, 0)
        self._telemetry.listed(found)

    def finished(self, run: Run, lag: float, took: float | None, kind_of: KindOf) -> None:
        """Count a segment that was seen to end *lag* seconds late, *took* after the run began, None if not known."""
        self.ended += 1
        self._lag += lag
        self._telemetry.on_stopped(run, lag, took, kind_of)
