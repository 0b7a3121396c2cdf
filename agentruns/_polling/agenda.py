"""The line of watched runs: which are planned, due, or being read. The one owner of `Watch.stage`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Final

from agentruns._aio.timers import Timer, TimerQueue

from .listener import Listener
from .ranking import Pressure, Ranking
from .watch import DUE, ENDED, IDLE, PLANNED, READING, Stage, Watch

_MOVES: Final = (
    frozenset({PLANNED, ENDED}),  # from IDLE
    frozenset({IDLE, DUE, ENDED, READING}),  # from PLANNED
    frozenset({IDLE, ENDED, READING}),  # from DUE
    frozenset({IDLE, READING}),  # from ENDED
    frozenset({IDLE}),  # from READING
)


class Agenda:
    """
    Where each watched run stands in the line; *on_due* is called, as by `TimerQueue`, when a run is due.

    Deadlines have a queue, and a handle of the loop, of their own: they hardly move, and runs do with each poll.
    `planned` is how many runs are to be read at a time to come.

    A move that the table does not have raises `RuntimeError`: a run would be read twice at once, or never again.
    """

    def __init__(self, on_due: Callable[[float, float], None]) -> None:
        self._timers: TimerQueue[Watch] = TimerQueue(on_due)
        self._deadlines: TimerQueue[Listener] = TimerQueue(self._end_waits)
        self.planned = 0
        self._due: dict[Watch, int] = {}
        self._came_due = 0
        self._ranking = Ranking(self._due)
        self._ended: dict[Watch, None] = {}
        self.rearm = self._timers.rearm

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Live in *loop*."""
        self._timers.open(loop)
        self._deadlines.open(loop)

    def close(self) -> None:
        """Call no more, whatever is planned afterwards."""
        self._timers.close()
        self._deadlines.close()

    def __len__(self) -> int:
        return len(self._timers) + len(self._deadlines)

    @property
    def has_due(self) -> bool:
        """Tell whether a run is to be read now."""
        return bool(self._due or self._ended)

    # Moves ------------------------------------------------------------------------------------------------------------

    def plan(self, watch: Watch, now: float) -> None:
        """
        Have a run come up when it is due, if somebody listens or looks on; one that is due or being read is left there.

        `rearm` sees to the timer.
        """
        stage = watch.stage
        if stage > PLANNED or not (watch.listeners or watch.onlookers):
            return
        when, contact = watch.due, watch.contact
        if watch.wanted < when:
            when = watch.wanted
        if contact.lost_since is not None:  # a last look when patience runs out
            when = min(when, max(min(map(contact.patience_ends, watch.listeners), default=when), now))
        elif contact.may_poll_early:
            for each in watch.listeners:
                if now < each.look_by < when:
                    when = each.look_by
        if stage is PLANNED:
            assert watch.timer is not None
            if watch.timer.when <= when:
                return
            self._timers.cancel(watch.timer)
        else:
            self.planned += 1
        watch.stage = PLANNED
        watch.timer = self._timers.schedule(when, watch)

    def cancel(self, watch: Watch) -> None:
        """Take a run out of the line; one that is being read is left there."""
        if watch.stage is not IDLE and watch.stage is not READING:
            self._move(watch, IDLE)

    def end(self, watch: Watch) -> None:
        """Have a run read before all others: a list has shown that it is over."""
        if watch.stage is not ENDED:
            self._move(watch, ENDED)
            self._ended[watch] = None

    def begin_reading(self, watch: Watch) -> None:
        """Note that a request is under way for a run."""
        self._move(watch, READING)
        watch.wanted = math.inf

    def finish_reading(self, watch: Watch) -> None:
        """Note that the request for a run is over."""
        if watch.stage is not READING:
            raise RuntimeError(f"run {watch.ref.id} is {watch.stage.name}, so no read of it can end")
        watch.stage = IDLE

    def collect(self, now: float) -> None:
        """Take note of the runs that have come due."""
        while (watch := self._timers.pop_due(now)) is not None:
            watch.timer = None
            self._move(watch, DUE)
            self._came_due += 1
            self._due[watch] = self._came_due

    def _move(self, watch: Watch, to: Stage) -> None:
        stage = watch.stage
        if to not in _MOVES[stage]:
            raise RuntimeError(f"run {watch.ref.id} is {stage.name} and cannot become {to.name}")
        if stage is PLANNED:
            if watch.timer is not None:  # else it has come up
                self._timers.cancel(watch.timer)
                watch.timer = None
            self.planned -= 1
        elif stage is DUE:
            del self._due[watch]
            if not self._due:
                self._ranking.clear()
        elif stage is ENDED:
            del self._ended[watch]
        watch.stage = to

    def spread_overdue(self, now: float, seconds: float) -> None:
        """Plan all runs whose time has passed anew, one after the other within half of *seconds*: no burst."""
        overdue = self._timers.overdue(now)
        for number, watch in enumerate(overdue):
            self._move(watch, IDLE)
            watch.due = now + number * seconds / (2 * len(overdue))
            self.plan(watch, now)

    # Looking ----------------------------------------------------------------------------------------------------------

    def due_with_lost_contact(self) -> list[Watch]:
        """Return the due runs whose vendor does not answer, and which somebody waits for."""
        return [watch for watch in self._due if watch.contact.lost_since is not None and watch.listeners]

    def in_order(self) -> Iterator[Watch]:
        """Yield the runs that are due, longest first, then those that are planned, the earliest first."""
        yield from self._due
        for what in self._timers.in_order():
            if isinstance(what, Watch):
                yield what

    def lose_contact(self, error: Exception, now: float) -> None:
        """Note of the due runs that nothing can be sent to their vendor, from now on if that was not so before."""
        for watch in self._due:
            watch.contact.lose(error, now)

    def first_ended(self) -> Watch | None:
        """Return the run that a list has shown to be over and that waits longest, None if there is none."""
        return next(iter(self._ended), None)

    def first_due(self) -> Watch:
        """Return the run that has been due for longest."""
        return next(iter(self._due))

    def most_pressing(self, pressure: Pressure, now: float, *, most: int, seconds: float) -> Watch:
        """Return the run that is due and most pressing; see `Ranking`."""
        return self._ranking.take(pressure, now, most=most, seconds=seconds)

    # Deadlines --------------------------------------------------------------------------------------------------------

    def set_deadline(self, listener: Listener, when: float, now: float) -> Timer[Listener]:
        """Call `listener.on_deadline()` at the time *when* of the loop, unless that is cancelled."""
        timer = self._deadlines.schedule(when, listener)
        self._deadlines.rearm(now)
        return timer

    def cancel_deadline(self, timer: Timer[Listener]) -> None:
        """Cancel a deadline."""
        self._deadlines.cancel(timer)

    def _end_waits(self, now: float, _late: float) -> None:
        while (listener := self._deadlines.pop_due(now)) is not None:
            listener.on_deadline()
        self._deadlines.rearm(now)
