"""How often runs are read: by the user's schedule, or by the clock of their timing group."""

from __future__ import annotations

import math
import random
from typing import Final

from agentruns._api.retry import Backoff, Schedule
from agentruns._values import check

from .clock import Clocks, PollClock
from .reader import Reader
from .segment import Segment
from .watch import Watch

_LEAST: Final = 0.01  # seconds between two reads of a run, whatever a schedule says
_ADVISED_FACTOR: Final = 1.25
_LOOKS: Final = Backoff(initial=30.0, factor=1.5, maximum=600.0)
_LESS_OFTEN: Final = 1.25
_MOST_OFTEN: Final = 30.0
_REST: Final = 10.0
"""
A vendor that wants a least gap is let be for so many times as long as it took to answer beyond what it needs, so its
queue grows no more. What it needs is the quickest answer so far: one that is only far away is asked as one nearby.
"""

BROKEN_SECONDS: Final = 10.0
"""When a run is read again whose schedule says nothing that makes sense."""


class Pace:
    """
    Say when a run is to be read next; `clocks` learn from each segment that is closed.

    *advised* are the first and the longest gap between two reads that the vendor advises: they hold for a clock that
    has learned nothing, and for answers that do not say themselves when to come back. *least* is a gap that holds for
    such answers whatever a clock has learned, and a longer one holds where they take longer than before.
    """

    def __init__(
        self,
        reader: Reader,
        schedule: Schedule | None,
        backoff: Backoff,
        advised: tuple[float, float] | None = None,
        least: float = 0.0,
    ) -> None:
        self._reader = reader
        self._advised = advised and Backoff(initial=advised[0], factor=_ADVISED_FACTOR, maximum=advised[1], jitter=0.0)
        self._least = least
        self._quickest = math.inf  # seconds
        self._schedule = schedule
        self._backoff = backoff
        self.clocks = Clocks()

    def next(self, watch: Watch, now: float, floor: float) -> float:
        """Return when a run in flight is due: its last answer came *now*, and asked for *floor* seconds of peace."""
        if self._schedule is not None:
            return now + _delay(self._schedule, watch.unchanged_count, floor)
        clock = self.clock_of(watch)
        told = watch.run is not None and watch.run.poll_after is not None
        segment = watch.segment  # its begin is a read, too, unless the run was begun elsewhere
        follows_read = segment.sent is not None or segment.learns or segment.later
        if self._advised and not told and not clock.observations and follows_read:
            floor = max(floor, self._advised.delay(watch.unchanged_count))
            clock.floor = max(clock.floor, floor)  # else the next run, of which more is known, is polled too early
        if self._least and not told:
            return self._next_apart(segment, clock, now, floor)
        return segment.next(clock, now, floor)

    def _next_apart(self, segment: Segment, clock: PollClock, now: float, floor: float) -> float:
        """Return when a run is due if the least gap is to lie between an answer and the next read of it."""
        if segment.sent is not None:
            took = now - segment.sent
            self._quickest = min(self._quickest, took)
            return segment.next(clock, now, max(floor, self._least, _REST * (took - self._quickest)))
        clock.floor = max(clock.floor, self._least)  # so that the first read does not come just before the usual end
        spread = self._least * (segment.phase % 1) / 2  # else the first reads of a crowd would come at once after that
        return max(segment.next(clock, now, floor) + spread, segment.began + self._least * segment.phase)

    def next_after_end(self, watch: Watch, now: float) -> float:
        """Return when a run that moves no more is due: a pause that was answered may show for a while."""
        return now + _delay(self._backoff, watch.unchanged_count, 0.0)

    def next_look(self, watch: Watch, now: float) -> float:
        """
        Return when a run is due that waits for an answer, and that nobody waits for: seldom.

        One that says itself when to come back may go on without an answer: it is looked at then, and less and less
        often, every half minute at last.
        """
        asked = None if watch.run is None else watch.run.poll_after
        if asked is not None:
            looks = Backoff(initial=asked, factor=_LESS_OFTEN, maximum=max(asked, _MOST_OFTEN))
            return now + max(looks.delay(watch.unchanged_count, noise=random.random()), _LEAST)  # noqa: S311
        return now + _LOOKS.delay(watch.unchanged_count, noise=random.random())  # noqa: S311

    def next_after_error(self, watch: Watch, now: float, floor: float) -> float:
        """Return when a run whose read failed is due; raise what is wrong with the user's schedule."""
        return now + _delay(self._schedule or self._backoff, watch.unchanged_count, floor)

    def pressure(self, watch: Watch, now: float) -> float:
        """Return how much a read is wanted, beside others that are due."""
        if watch.run is None:  # there is an answer for the asking
            return math.inf
        if self._schedule is not None:
            return now - watch.due
        clock = watch.segment.clock or self.clock_of(watch)  # nearly all have one: a call less for each run of a crowd
        pressure = watch.segment.pressure(clock, now)
        ends_at = math.inf
        for listener in watch.listeners:  # `min` takes three times as long, and a crowd is weighed twice a second
            if listener.ends_at < ends_at:
                ends_at = listener.ends_at
        if ends_at == math.inf:
            return pressure
        # Of those whose wait is nearly over, news is wanted first.
        return pressure * (ends_at - watch.segment.began) / max(ends_at - now, _LEAST)

    def clock_of(self, watch: Watch) -> PollClock:
        """Return the clock of a segment, the same one until the segment leaves it."""
        segment = watch.segment
        if segment.clock is not None:
            return segment.clock
        return segment.use(self.clocks[self._reader.timing_group(watch.run), segment.later])

    def close(self, watch: Watch, until: float | None = None) -> None:
        """Close the segment of a run, and learn from it: *until* when it took at the most, None if that is open."""
        if watch.segment.learns:
            self.clock_of(watch)
        watch.segment.close(until)


def _delay(schedule: Schedule, count: int, floor: float) -> float:
    """Return the seconds that a schedule says, which may be the user's own; raise what is wrong with them."""
    seconds = schedule.delay(count, at_least=floor, noise=random.random())  # noqa: S311
    if seconds.__class__ is not float or not 0.0 <= seconds < math.inf:
        check.number(f"the delay of {type(schedule).__name__}", seconds, zero=True)
    if seconds < _LEAST:
        return _LEAST
    return seconds
