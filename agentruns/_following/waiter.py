"""One stream's view of its run: what it has seen, and its wait for more."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from agentruns._aio.tasks import Tasks
from agentruns._api.operations import FRESH_SECONDS, Operations
from agentruns._polling.listener import Change
from agentruns._polling.poller import Poller
from agentruns._polling.watch import Watch
from agentruns._values.news import (
    NONE_ANSWERED,
    PROGRESS,
    SAME,
    STALE,
    AnsweredActions,
    Novelty,
    actions_of,
    compare,
    shows_answered,
)
from agentruns._values.run import Run, RunRef, RunStatus
from agentruns.errors import AgentRunsError

from .pause import Pause

if TYPE_CHECKING:
    from agentruns._aio.timers import Timer

    from .options import Options


class Waiter:
    """
    The listener of one stream: the poller tells it, and it wakes the step that waits if there is news.

    `run` is the last state that was accepted, and `taken` the last that was taken from the watch. `changed` is the time
    of the loop at which something observable changed last.
    """

    __slots__ = (
        "_alarm",
        "_answered",
        "_future",
        "_key",
        "_operations",
        "_options",
        "_pause",
        "_poller",
        "_watch",
        "changed",
        "ends_at",
        "patient_since",
        "run",
        "taken",
    )

    def __init__(self, poller: Poller, operations: Operations, options: Options, key: str | None = None) -> None:
        self._poller = poller
        self._key = key
        self._operations = operations
        self._options = options
        self._watch: Watch | None = None
        self._future: asyncio.Future[None] | None = None
        self._alarm: Timer[Any] | None = None  # at `ends_at`: one for many waits
        self._pause: Pause | None = None
        self._answered: AnsweredActions = NONE_ANSWERED
        self.run: Run | None = None
        self.taken: Run | None = None
        self.changed = 0.0
        self.ends_at = math.inf
        self.patient_since = -math.inf

    # What the poller asks and tells -----------------------------------------------------------------------------------

    @property
    def patience(self) -> float:
        """Return how many seconds of lost contact are borne."""
        return self._options.patience

    @property
    def look_by(self) -> float:
        """Return when the run counts as stalled unless a read shows that it is not."""
        return math.inf if self._options.stall is None else self.changed + self._options.stall

    def on_state(self, run: Run, now: float, change: Change | None) -> bool:
        """Wake the step that waits if the state is news to it, and return whether it is."""
        if run is not self.taken:
            novelty = change[1] if change is not None and change[0] is self.run else compare(self.run, run)
            if novelty is not SAME and (novelty is not PROGRESS or self._options.progress):
                return self.wake()
            if novelty is PROGRESS:
                self.changed = now
            self.run = self.taken = run
        return self.is_stalled(now) and self.wake()

    def on_deadline(self) -> None:
        """Wake the step that waits."""
        self.wake()

    def on_error(self, error: Exception) -> None:
        """Have the step that waits raise *error*."""
        if self._future is not None and not self._future.done():
            self._future.set_exception(error)

    # What the stream does ---------------------------------------------------------------------------------------------

    def wake(self) -> bool:
        """Wake the step that waits, if one does; return True."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
        return True

    def follow(self, ref: RunRef) -> None:
        """Follow that run, and no other."""
        watch = self._watch
        if watch is None or watch.ref.id != ref.id:
            self.unfollow()
            watch = self._watch = self._poller.acquire(ref, self._options.params, self._key)
            watch.contact.fresh_until = max(watch.contact.fresh_until, self._operations.started_at(ref) + FRESH_SECONDS)
            self.taken = None

    def give_up(self, error: Exception) -> None:
        """Tell the telemetry what ends the watching of the run."""
        if self._watch is not None:
            self._poller.give_up(self._watch, error)

    def unfollow(self) -> None:
        """Follow nothing any more."""
        if self._watch is None:
            return
        self.look_away()
        watch, self._watch = self._watch, None
        self._poller.release(watch)
        self._set_alarm(math.inf)

    def unfollow_soon(self, tasks: Tasks) -> None:
        """Follow nothing any more, for a stream that the collector has found, in whichever thread."""
        if self._watch is not None:
            tasks.call_soon(self.unfollow)

    def begin_segment(self, run: Run, *, later: bool) -> None:
        """Follow *run* from a state that a start, an answer (*later*) or the caller brought."""
        if run.status.is_over and self._watch is None and not self._poller.is_followed(run.ref):
            return  # there is nothing to wait for, and nobody to tell
        self.follow(run.ref)
        watch = self._following()
        if watch.run is None or watch.run.status is RunStatus.REQUIRES_ACTION:
            started = self._operations.started_at(run.ref) > -math.inf
            self._poller.begin_segment(watch, run, later=later, learns=started)
            self.taken = run

    def _following(self) -> Watch:
        assert self._watch is not None
        return self._watch

    @property
    def untaken(self) -> Run | None:
        """Return what was read of the run and not taken yet, None if there is nothing."""
        run = None if self._watch is None else self._watch.run  # it may be closed while it waits
        return None if run is self.taken else run

    @property
    def is_current(self) -> bool:
        """Tell whether what was read before this stream listened is no older than what it would read itself."""
        return self.run is not None or bool(self._following().listeners)

    @property
    def error(self) -> Exception | None:
        """Return why contact with the run is lost, None if it is not."""
        return None if self._watch is None else self._watch.contact.error

    def poll_by(self, when: float) -> None:
        """Have the run read by that time of the loop, if it is still followed."""
        if self._watch is not None:
            self._poller.poll_by(self._watch, when)

    def look_on(self, pause: Pause) -> None:
        """Have the run looked at now and then, since the pause may end by itself."""
        if self._pause is not pause:
            self.look_away()
            self._pause = pause
            pause.heard = self.heard
            self._poller.look_on(self._following(), pause)

    def look_away(self) -> None:
        """Look at the run no more, unless somebody waits for it."""
        pause, self._pause = self._pause, None
        if pause is not None and not pause.is_over and self._watch is not None:
            self._poller.look_away(self._watch, pause)

    def heard(self, run: Run) -> None:
        """Take in a state that an event has told, if it is one of the run that is followed."""
        if self._watch is not None and self._watch.ref.id == run.id:
            self._poller.heard(run)

    async def wait(self, deadline: float) -> None:
        """
        Wait until the poller has news, or until the *deadline*, a time of the loop.

        Raise what it cannot bear with; whoever waits again then bears with as much again.
        """
        loop = asyncio.get_running_loop()
        poller, watch = self._poller, self._following()
        self._future = future = loop.create_future()
        poller.subscribe(watch, self)
        if deadline != self.ends_at:
            self._set_alarm(deadline)
        try:
            await future
        except AgentRunsError:
            self.patient_since = loop.time()
            raise
        finally:
            self._future = None
            poller.unsubscribe(watch, self)
            if future.done() and not future.cancelled():
                future.exception()  # told, or overtaken by a cancellation: not forgotten

    def _set_alarm(self, when: float) -> None:
        """Have the step that waits at that time of the loop woken: it waits no longer."""
        if self._alarm is not None:
            self._poller.cancel_deadline(self._alarm)
        self.ends_at = when
        self._alarm = None if when == math.inf else self._poller.set_deadline(self, when)

    def accept(self, run: Run, now: float) -> Novelty:
        """Take *run* in, unless it is older than what was seen, and return what it is beside that."""
        novelty = compare(self.run, run, self._answered)
        if novelty is not STALE:
            self.run = run
            if novelty is not SAME:
                self.changed = now
        return novelty

    def is_stalled(self, now: float) -> bool:
        """Tell whether nothing observable has changed for too long."""
        stall = self._options.stall
        return stall is not None and now >= self.changed + stall

    def answered(self, run: Run, resumed: Run) -> None:
        """Note that the actions of *run* were answered, and that it goes on as *resumed*."""
        actions = actions_of(run)
        self._answered |= actions
        if self._watch is not None and resumed.id == run.id:  # it goes on in place
            self._watch.answered |= actions

    def shows_answered(self, run: Run) -> bool:
        """Tell whether *run* still shows, unchanged, a pause that was answered."""
        return shows_answered(run, self._answered)
