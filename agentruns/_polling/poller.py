"""
Which run to read next: one poller for all the runs that one client waits for.

One timer serves every run. A run is read while somebody listens for news of it, never by two requests at once, and
every answer is for all who listen. `Pace` says when. Where more runs are due than the rate limit lets through, those go
first of which news is likeliest. Where the vendor lists runs, or reads many by their ids, many of them are read by one
request (`lists`, `bulk`, `many`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from copy import copy
from typing import Any, Final, TypeAlias, TypeVar

from agentruns._aio.tasks import Tasks
from agentruns._aio.timers import Timer
from agentruns._api.api import Api
from agentruns._api.retry import Schedule
from agentruns._telemetry import Telemetry
from agentruns._values.exchange import NO_PARAMS
from agentruns._values.printable import printable
from agentruns._values.run import Run, RunRef
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError

from .agenda import Agenda
from .bulk import Bulk, Bulks
from .clock import phase
from .intake import Intake
from .listener import Listener, Onlooker
from .lists import Listing, Lists
from .many import ManyReader
from .pace import BROKEN_SECONDS, Pace
from .reader import Reader
from .stats import Counters, Stats
from .watch import Watch
from .workers import Workers

logger = logging.getLogger("agentruns")

T = TypeVar("T")

Job: TypeAlias = Watch | Listing | Bulk
"""What one request reads: one run, or many."""

SOON: Final = 0.5
"""Seconds: polls due within them count when it is weighed whether a list is cheaper, and runs are ranked as often."""

LATE: Final = 5.0
"""A timer this much too late was held up by a suspended machine or a stalled loop; what was learnt then is no good."""

IN_ONE_TURN: Final = 4
"""
So many reads are begun in one turn of the loop, at most. All that a late timer makes up for, begun at once, would make
the turn as long again, and so would the answers, which come at once, too: the next timer would be late as well.
"""

_OFFSET: Final = random.random()  # noqa: S311 - once per process, so that processes do not poll in step


class Poller:
    """Read runs for those who listen, as often as the rate limit and the schedule, or what was learnt, say."""

    def __init__(
        self,
        *,
        vendor: Vendor,
        api: Api,
        tasks: Tasks,
        telemetry: Telemetry,
        schedule: Schedule | None,
        at_once: int,
    ) -> None:
        self._api = api
        self._permits = api.permits
        self._telemetry = telemetry
        self._reader = Reader(vendor, api)
        self._pace = Pace(self._reader, schedule, api.retry.backoff, vendor.POLL_SECONDS, vendor.LEAST_POLL_SECONDS)
        self._agenda = Agenda(self._on_due)
        self._many: Bulks | Lists | None = None
        if vendor.fetch_many is not None:
            self._many = Bulks(vendor, self._agenda.in_order)
        elif vendor.list_parent is not None:
            self._many = Lists(vendor)
        self._counters = Counters(telemetry)
        self._intake = Intake(self._reader, self._pace, self._counters, telemetry, api.admission.outages)
        self._watches: dict[str, Watch] = {}
        self._many_reader: ManyReader | None = None
        if self._many is not None:
            self._many_reader = ManyReader(
                self._many,
                vendor=vendor,
                api=api,
                agenda=self._agenda,
                intake=self._intake,
                counters=self._counters,
                watches=self._watches,
            )
        self._count = 0
        self._begun = 0  # reads since the timer went off last
        self._workers: Workers[Job] = Workers(
            tasks,
            at_once,
            do=self._read,
            next_job=self._next_job_now,
            expects=self._expects_work,
            on_cut_off=self._dispatch,
        )
        self._closed = True
        self._now: Callable[[], float] = time.monotonic  # of the loop, once this is open

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Live in *loop*."""
        self._closed = False
        self._now = self._intake.now = loop.time
        if self._many_reader is not None:
            self._many_reader.now = loop.time
        self._agenda.open(loop)
        self._permits.open(self._dispatch, self._has_due)

    def close(self) -> None:
        """Read no more; the client ends what is under way."""
        self._closed = True
        self._agenda.close()
        for _ in range(self._workers.close()):  # else none would release their permits
            self._permits.release()

    def stats(self) -> Stats:
        """Return what there is to count."""
        used, skipped = self._permits.limiter.used, self._api.skipped.rows
        watches, admission = self._watches.values(), self._api.admission
        return self._counters.stats(watches, self._now(), admission, used=used, rows_skipped=skipped)

    # Who follows a run ------------------------------------------------------------------------------------------------

    def acquire(self, ref: RunRef, params: Mapping[str, str] = NO_PARAMS, key: str | None = None) -> Watch:
        """
        Return what is known of a run; `release` it when it is followed no more.

        *params* are sent with each read of it from now on, which lists cannot stand for. *key* names the work, if any.

        Raise `ConfigurationError` outside the life of the client.
        """
        self._check_open()
        watch = self._watches.get(ref.id)
        if watch is None:
            self._count += 1
            watch = self._watches[ref.id] = Watch(ref, phase(self._count, _OFFSET), self._now())
            watch.context = copy_context() if self._telemetry.traces else None
            self._telemetry.watched(1)
            if self._many is not None:
                self._many.add(watch)
        elif ref.parent and not watch.ref.parent:
            watch.ref, watch.request = ref, None
            if self._many is not None:
                self._many.add(watch)
        if params:
            watch.params, watch.request, watch.place = {**watch.params, **params}, None, None
        if key and not watch.key:
            watch.key = key
        watch.followers += 1
        return watch

    def is_followed(self, ref: RunRef) -> bool:
        """Tell whether anybody follows the run."""
        return ref.id in self._watches

    def release(self, watch: Watch) -> None:
        """Follow a run no more; the last to do so ends the request that may be under way for it."""
        watch.followers -= 1
        if watch.followers > 0:
            return
        if self._watches.pop(watch.ref.id, None) is not None:
            self._telemetry.watched(-1)
        watch.listeners = watch.onlookers = ()  # those who still listen have no run to hear of
        if self._many is not None:
            self._many.remove(watch)
        self._agenda.cancel(watch)
        if not self._agenda.planned:
            self._workers.dismiss_idle()
        if watch.segment.is_open:
            self._pace.close(watch)
        watch.segment.leave_clock()
        if watch.worker is not None:
            watch.worker.cancel()
        self._telemetry.on_unwatched(watch.ref if watch.run is None else watch.run.ref)

    def give_up(self, watch: Watch, error: Exception) -> None:
        """Tell the telemetry what ends the watching of a run."""
        self._intake.give_up(watch, error)

    def subscribe(self, watch: Watch, listener: Listener) -> None:
        """
        Read the run when it is due, and tell *listener* what comes of it.

        Raise `ConfigurationError` outside the life of the client.
        """
        self._check_open()
        now = self._now()
        if not watch.listeners:
            watch.contact.excuse(max(now - max(watch.due, watch.waiting_since), 0.0))
            if watch.onlookers:
                watch.due = min(watch.due, now)  # they have let it be read seldom
        watch.listeners = (*watch.listeners, listener)
        self._plan(watch, now)

    def unsubscribe(self, watch: Watch, listener: Listener) -> None:
        """Read no more on behalf of *listener*; an answer that is under way is kept for who listens next."""
        if listener not in watch.listeners:
            return
        watch.listeners = tuple(each for each in watch.listeners if each is not listener)
        if not watch.listeners:
            watch.waiting_since = self._now()
            self._rest(watch)

    def look_on(self, watch: Watch, onlooker: Onlooker) -> None:
        """
        Look at a run that waits for an answer, on behalf of *onlooker*, until it says that it has seen enough.

        That is half a minute after the last read, and then ever more seldom, every ten minutes at last; earlier where
        the run says itself when to come back. Where others wait for the run, their reads do.
        """
        watch.onlookers = (*watch.onlookers, onlooker)
        self._rest(watch)

    def look_away(self, watch: Watch, onlooker: Onlooker) -> None:
        """Look at the run no more on behalf of *onlooker*."""
        watch.onlookers = tuple(each for each in watch.onlookers if each is not onlooker)
        if not watch.onlookers:
            watch.due = min(watch.due, self._now())
        self._rest(watch)

    def _rest(self, watch: Watch) -> None:
        """Take a run that nobody waits for out of the line, or have it looked at now and then."""
        if watch.listeners:
            return
        now = self._now()
        self._agenda.cancel(watch)
        self._intake.slow_down(watch, now)
        self._plan(watch, now)
        if not self._agenda.planned:
            self._workers.dismiss_idle()

    def set_deadline(self, listener: Listener, when: float) -> Timer[Listener]:
        """Call `listener.on_deadline()` at the time *when* of the loop, unless that is cancelled."""
        return self._agenda.set_deadline(listener, when, self._now())

    def cancel_deadline(self, timer: Timer[Listener]) -> None:
        """Cancel a deadline."""
        self._agenda.cancel_deadline(timer)

    def poll_by(self, watch: Watch, when: float) -> None:
        """
        Read the run by the time *when* of the loop: something says that it may have moved.

        A read that is under way may have come too early to see it, so it does not count.
        """
        watch.wanted = min(watch.wanted, when)
        self._plan(watch, self._now())

    def heard(self, run: Run) -> bool:
        """
        Take in a state that came from elsewhere as if it had been read now; return whether anybody follows the run.

        Raise `ConfigurationError` outside the life of the client.
        """
        self._check_open()
        watch, now = self._watches.get(run.id), self._now()
        if watch is None:
            return False
        watch.body = None  # the next answer may be the last one again, and is no repetition then
        self._intake.on_state(watch, run, now, run.poll_after or 0.0, None)
        if not watch.listeners:
            self._agenda.cancel(watch)
        self._plan(watch, now)
        return True

    def begin_segment(self, watch: Watch, run: Run, *, later: bool, learns: bool) -> None:
        """Begin a segment with the state that starts it: of our own doing if it *learns*, else found as it was."""
        now = self._now()
        watch.segment.leave_clock()
        watch.begin(run, now, later=later, learns=learns)
        watch.due = self._pace.next(watch, now, run.poll_after or 0.0)

    def _plan(self, watch: Watch, now: float) -> None:
        self._agenda.plan(watch, now)
        self._agenda.rearm(now)

    def _check_open(self) -> None:
        if self._closed:
            raise ConfigurationError("this client is not open; use it within `async with connect(...) as client:`")
        self._api.check_open()

    # When -------------------------------------------------------------------------------------------------------------

    def _on_due(self, now: float, late: float) -> None:
        if late > LATE:
            self._agenda.spread_overdue(now, min(late, LATE))
            for watch in self._watches.values():
                watch.segment.learns = False  # when what happened meanwhile happened is not known
        self._begun = 0
        self._dispatch()

    # Going about it ---------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Set workers to what is due and may be sent, a few in one turn of the loop; have the timer go off for more."""
        now = self._now()
        self._agenda.collect(now)
        while self._workers.has_room and not self._closed and self._has_due():
            job = self._next_job(now)
            if job is None:
                return
            self._workers.begin(job)
        self._agenda.rearm(now)

    def _next_job_now(self) -> Job | None:
        now = self._now()
        self._agenda.collect(now)
        if self._has_due() and not self._closed:
            return self._next_job(now)
        self._agenda.rearm(now)
        return None

    def _expects_work(self) -> bool:
        """Tell whether a run is to be read later: while nobody waits for one, there is no task."""
        return self._agenda.planned > 0 and not self._closed

    def _has_due(self) -> bool:
        """Tell whether a read could be sent now."""
        return self._agenda.has_due or (self._many is not None and self._many.under_way)

    def _next_job(self, now: float) -> Job | None:
        """Return what to read next of what is due, its permit acquired; None if nothing may be sent."""
        try:
            return self._job_due(now)
        except Exception:
            logger.exception("which run to read next cannot be told, and is looked for again")
            self._agenda.rearm(now, now + BROKEN_SECONDS)
            return None

    def _job_due(self, now: float) -> Job | None:
        agenda = self._agenda
        wait = self._permits.delay(now)
        if wait > 0:
            if self._permits.refused is not None:
                agenda.lose_contact(self._permits.refused, now)
            if wait > SOON:  # the vendor wants to be left alone; those who have no patience left hear so now
                wait = min(wait, self._fail_impatient(now))
            agenda.rearm(now, now + wait)
            return None
        if self._begun == IN_ONE_TURN:
            agenda.rearm(now, now)
            return None
        job = self._choose(now)
        self._begun += 1
        for watch in (job,) if isinstance(job, Watch) else job.begin_page():
            agenda.begin_reading(watch)
        self._permits.acquire_nowait(now)
        return job

    def _fail_impatient(self, now: float) -> float:
        """Tell those whose patience with lost contact is over; return the seconds until the next one's is."""
        soonest = float("inf")
        for watch in self._agenda.due_with_lost_contact():
            contact = watch.contact
            told = [listener for listener in watch.listeners if contact.patience_over(listener, now)]
            self._intake.fail(watch, told, copy(contact.error))
            if watch.listeners:
                soonest = min(soonest, *(contact.patience_ends(listener) - now for listener in watch.listeners))
            else:
                self._rest(watch)
        return soonest

    def _choose(self, now: float) -> Job:
        """Return what reads many runs, or the run of which news is likeliest; an end that a list told of first."""
        ended = self._agenda.first_ended()
        if ended is not None:
            return ended
        if self._many is not None:
            first = self._agenda.first_due() if self._agenda.has_due else None
            many = self._many.next(now + SOON, now, first)
            if many is not None:
                return many
        limit = self._permits.limiter.limit
        if limit is None:
            return self._agenda.first_due()
        most = max(int(SOON * limit.count / limit.seconds), 1)
        return self._agenda.most_pressing(self._pace.pressure, now, most=most, seconds=SOON)

    def _read(self, job: Job, worker: asyncio.Task[Any]) -> Coroutine[Any, Any, None]:
        if isinstance(job, Watch):
            return self._read_run(job, worker)
        assert self._many_reader is not None
        return self._many_reader.read(job)

    # One run ----------------------------------------------------------------------------------------------------------

    async def _read_run(self, watch: Watch, worker: asyncio.Task[Any]) -> None:
        """Read a run with a single request, and tell who listens."""
        sent = self._now()
        watch.worker = worker
        try:
            try:
                if not watch.followers:  # released before the worker began
                    return
                request = self._reader.request(watch)
                self._counters.polls += 1
                response = await self._api.send(request)
            finally:
                self._permits.release()
            run, floor = self._reader.parse(watch, response) or await self._reader.perform(watch, response)
            date = response.headers.get("date") if watch.segment.sent is None else None
            self._intake.on_state(watch, run, sent, floor, date)
            if watch.onlookers and self._reader.may_be_followed(run):
                await self._look_for_answer(watch, run, sent)
        except Exception as error:
            self._intake.on_error(watch, error)
        finally:
            watch.worker = watch.reads = None
            self._agenda.finish_reading(watch)
            self._agenda.plan(watch, self._now())

    async def _look_for_answer(self, watch: Watch, run: Run, sent: float) -> None:
        """Look for the run that an answer from elsewhere has begun; what goes wrong is for the next look."""
        try:
            followed = await self._reader.followed_by(run)
        except Exception as error:
            logger.debug("no answer to run %s can be looked for: %s", printable(run.id), error)
            return
        if followed is not None:
            watch.onlookers = tuple(each for each in watch.onlookers if not each.on_followed(followed, sent))
