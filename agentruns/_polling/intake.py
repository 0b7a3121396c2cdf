"""What comes of a read: a state or an error is taken in once, for all who listen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial

from agentruns._api.outages import Outages
from agentruns._telemetry import Telemetry
from agentruns._values.news import ANSWERED, NEWS
from agentruns._values.printable import printable
from agentruns._values.run import Run
from agentruns.errors import AgentRunsError

from .contact import Failure
from .listener import Change, Listener
from .pace import BROKEN_SECONDS, Pace
from .reader import Reader
from .stats import Counters
from .watch import Watch

logger = logging.getLogger("agentruns")


class Intake:
    """Take in what was read of a run, wherever it came from; `now` is the clock of the loop."""

    now: Callable[[], float]

    def __init__(self, reader: Reader, pace: Pace, counters: Counters, telemetry: Telemetry, outages: Outages) -> None:
        self._reader = reader
        self._pace = pace
        self._counters = counters
        self._telemetry = telemetry
        self._outages = outages

    def on_state(self, watch: Watch, run: Run, sent: float, floor: float, date: str | None) -> None:
        """
        Take in a state that was read by a request of the time *sent*, and tell who listens.

        *date* is what its answer says of the time; it is looked at for the first read of a segment alone.
        """
        now = self.now()
        segment, before, listeners = watch.segment, watch.run, watch.listeners
        self._counters.polled("unchanged" if run is before else "changed", len(listeners))
        is_first, segment.sent = segment.sent is None, sent
        watch.contact.answered(floor)
        if self._outages.since is not None:
            self._outages.answered(now)
        if before is None:
            segment.leave_clock()  # now its timing group can be told
        change: Change | None = None
        if run is before:
            watch.unchanged_count += 1
        else:
            novelty = watch.take(run)
            if novelty is NEWS or novelty is ANSWERED:
                kind_of = self._reader.timing_group
                tell = partial(self._telemetry.on_state, run, before, kind_of=kind_of, key=watch.key)
                _ = tell() if watch.context is None else watch.context.run(tell)
            if not watch.answered:
                change = before, novelty
        run = watch.run or run
        if is_first and segment.is_whole and not segment.learns and date:
            age = self._reader.age(run, date)
            if age is not None:
                segment.set_age(now, age)
        if run.status.in_flight:
            segment.saw_running(sent)
            watch.due = self._pace.next(watch, now, floor)
        else:
            watch.due = self._pace.next_after_end(watch, now)
            if segment.is_open:
                self._end_segment(watch, run, now)
        self._unsubscribe_told(watch, [listener for listener in listeners if listener.on_state(run, now, change)])
        if watch.onlookers:
            watch.onlookers = tuple(each for each in watch.onlookers if not each.on_state(run, sent))
            if not run.status.in_flight:  # else it is looked at again soon, to make sure
                self.slow_down(watch, now)

    def slow_down(self, watch: Watch, now: float) -> None:
        """Have a run that waits for an answer, and that nobody waits for, read seldom."""
        if watch.onlookers and not watch.listeners:
            watch.due = max(watch.due, self._pace.next_look(watch, now))

    def _unsubscribe_told(self, watch: Watch, told: Sequence[Listener]) -> None:
        """Read no more on behalf of those who were told; they have yet to wake up, and may come again."""
        if told:
            watch.listeners = tuple(each for each in watch.listeners if each not in told)
            watch.waiting_since = self.now()

    def _end_segment(self, watch: Watch, run: Run, now: float) -> None:
        """Learn from a segment that is over."""
        segment = watch.segment
        took = now - segment.began
        lag = (took - segment.running_at) / 2  # it ended somewhere between two polls
        duration = self._reader.duration(run) if segment.is_whole else None
        if duration is not None:
            segment.learns, segment.running_at, took = True, duration, duration
        is_known = (segment.learns and not segment.later) or duration is not None
        self._pace.close(watch, took)
        self._counters.finished(run, lag, took if is_known else None, self._reader.timing_group)

    def on_error(self, watch: Watch, error: Exception) -> None:
        """Bear with lost contact and limits; tell of anything else."""
        now = self.now()
        failure = watch.contact.failed(error, now)
        self._outages.failed(error, now)
        self._counters.polled("lost" if failure is Failure.LOST else "refused")
        if not isinstance(error, AgentRunsError):
            logger.warning("reading run %s failed with %r", printable(watch.ref.id), error)
        watch.unchanged_count += 1
        try:
            watch.due = self._pace.next_after_error(watch, now, getattr(error, "retry_after", None) or 0.0)
        except Exception as broken:  # a schedule of the user's own: it is not to be asked again at once
            error, failure, watch.due = broken, Failure.FINAL, now + BROKEN_SECONDS
        is_final = failure is Failure.FINAL
        if is_final:
            self.give_up(watch, error)
        told = [each for each in watch.listeners if is_final or watch.contact.patience_over(each, now)]
        self.fail(watch, told, error)
        self.slow_down(watch, now)

    def give_up(self, watch: Watch, error: Exception) -> None:
        """Tell the telemetry what ends the watching of a run, unless it goes on after all."""
        tell = partial(self._telemetry.on_failure, watch.ref if watch.run is None else watch.run.ref, error)
        _ = tell() if watch.context is None else watch.context.run(tell)

    def fail(self, watch: Watch, told: Sequence[Listener], error: Exception | None) -> None:
        self._unsubscribe_told(watch, told)
        for number, listener in enumerate(told):
            assert error is not None
            listener.on_error(copy(error) if number else error)  # each raises its own
