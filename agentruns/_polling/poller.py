"""
Which run to ask about next: one poller for all the runs that one client waits for.

One timer serves every run. A run is asked about while somebody listens for news of it, never by two requests at once,
and every answer is for all who listen. When to ask is said by the poll clock of its kind (`pollclock`), or by the
user's schedule. Where more runs are due than the budget lets through, those go first of which news is likeliest. Where
the vendor lists runs, many of them are read by one request (`listing`).
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import random
from collections import Counter
from collections.abc import Sequence
from contextvars import copy_context
from copy import copy
from functools import partial
from typing import Any, Final

from attrs import evolve

from agentruns._aio.tasks import Tasks
from agentruns._aio.timers import Entry, TimerQueue
from agentruns._api.api import Api
from agentruns._api.flow import undecodable
from agentruns._api.operations import timing_group
from agentruns._api.retry import Schedule
from agentruns._telemetry import Telemetry
from agentruns._values import check
from agentruns._values.exchange import Request, Response, Send
from agentruns._values.run import Run, RunRef
from agentruns.dialects import wire
from agentruns.dialects.protocol import Dialect, ListsCurrentStates, ParsesRun, ReportsTimes
from agentruns.errors import (
    AgentRunsError,
    APIError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    TransportError,
)

from .clock import Clocks, PollClock, phase
from .lists import Listing, Lists
from .stats import Stats
from .watch import Listener, Watch

logger = logging.getLogger("agentruns")

SOON: Final = 0.5
"""Seconds: polls due within them count when it is weighed whether a list is cheaper, and runs are ranked as often."""

LATE: Final = 5.0
"""A timer this much too late was held up by a suspended machine or a stalled loop; what was learnt then is no good."""

_PRICE: Final = 0.1
_OLDEST: Final = 7 * 86400.0  # seconds; what claims to have taken longer has a clock of its own
_LEAST: Final = 0.01  # seconds between two polls of a run, whatever a schedule says
_BROKEN: Final = 10.0  # seconds until a run is due again whose schedule says nothing that makes sense
_OFFSET: Final = random.random()  # noqa: S311 - once per process, so that processes do not poll in step


class Poller:
    """Read runs for those who listen, as often as the rate limit and the schedule, or what was learnt, say."""

    def __init__(
        self,
        *,
        dialect: Dialect,
        api: Api,
        tasks: Tasks,
        telemetry: Telemetry,
        schedule: Schedule | None,
        at_once: int,
    ) -> None:
        self._dialect = dialect
        self._api = api
        self._tasks = tasks
        self._telemetry = telemetry
        self._permits = api.permits
        self._schedule = schedule
        self._backoff = api.retry.backoff
        self._at_once = at_once
        self._clocks = Clocks()
        self._running: Counter[PollClock] = Counter()  # segments by clock
        self._reads = dialect if isinstance(dialect, ParsesRun) else None
        self._lists = Lists(dialect) if isinstance(dialect, ListsCurrentStates) else None
        self._watches: dict[str, Watch] = {}
        self._timetable = TimerQueue(self._ring)
        self._count = 0
        self._due: dict[Watch, None] = {}
        self._seen_over: dict[Watch, None] = {}  # a list has shown that they are over: what came of it is to be read
        self._ranked: list[Watch] = []
        self._workers = 0
        self._beginning = 0  # of the workers, those that have a permit and have not begun
        self._closed = True
        self._date_of_list: str | None = None
        self._context = copy_context()  # of nobody in particular: a worker serves many
        self._polls = self._shared = self._lists_read = self._listed = self._ends = 0
        self._lag = 0.0

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Live in *loop*."""
        self._closed = False
        self._timetable.open(loop)
        self._now = loop.time
        self._permits.open(self._pump)

    def close(self) -> None:
        """Ask about nothing any more; what is under way is for the client to end."""
        self._closed = True
        self._timetable.close()
        for _ in range(self._beginning):  # else none would, for a worker that is cancelled before its first step
            self._permits.release()
        self._workers -= self._beginning
        self._beginning = 0

    def stats(self) -> Stats:
        """Return what there is to count."""
        return Stats(
            watched=len(self._watches),
            polls=self._polls,
            shared=self._shared,
            lists=self._lists_read,
            listed=self._listed,
            ends=self._ends,
            lag=self._lag / self._ends if self._ends else None,
            budget=self._permits.limiter.used,
            lost=sum(watch.lost_since is not None for watch in self._watches.values()),
            rest=self._rest(),
            rows_skipped=self._api.skipped.rows,
        )

    def _rest(self) -> float | None:
        """Return how many seconds the runs in flight are likely to take yet, all of them."""
        rests = [
            watch.clock.rest(max(self._now() - watch.began, 0.0))
            for watch in self._watches.values()
            if watch.open and watch.clock is not None
        ]
        return max((rest for rest in rests if rest is not None), default=None)

    # Who follows a run ------------------------------------------------------------------------------------------------

    def follow(self, ref: RunRef) -> Watch:
        """Return what is known of a run; `drop` it when nobody will listen any more."""
        watch = self._watches.get(ref.id)
        if watch is None:
            self._count += 1
            watch = self._watches[ref.id] = Watch(ref, phase(self._count, _OFFSET))
            watch.context = copy_context() if self._telemetry.traces else None
            if self._lists is not None:
                self._lists.add(watch)
        elif ref.parent and not watch.ref.parent:
            watch.ref, watch.request = ref, None
            if self._lists is not None:
                self._lists.add(watch)
        watch.followers += 1
        return watch

    def drop(self, watch: Watch) -> None:
        """Let go of a run; the last to do so ends the request that may be under way for it."""
        watch.followers -= 1
        if watch.followers > 0:
            return
        self._watches.pop(watch.ref.id, None)
        watch.listeners = ()  # whoever still listens has no run to hear of
        if self._lists is not None:
            self._lists.remove(watch)
        self._unplan(watch)
        if watch.open:
            self._learn(watch)
        self._leave_clock(watch)
        if watch.worker is not None:
            watch.worker.cancel()
        self._telemetry.on_unwatched(watch.ref if watch.run is None else watch.run.ref)

    def listen(self, watch: Watch, listener: Listener) -> None:
        """
        Ask about the run when it is due, and call *listener* with what comes of it.

        Raise `ConfigurationError` outside the life of the client.
        """
        self._api.check_open()
        now = self._now()
        if not watch.listeners:
            if watch.lost_since is not None:  # time in which nobody waited is no lost contact
                watch.lost_since += max(now - max(watch.due, watch.waiting_since), 0.0)
            if watch.run is None and not watch.open:
                watch.begin(now, later=False, learns=False)
                watch.due = now
        watch.listeners = (*watch.listeners, listener)
        self._plan(watch, now)

    def leave(self, watch: Watch, listener: Listener) -> None:
        """Ask no more on behalf of *listener*; an answer that is under way is kept for who listens next."""
        if listener not in watch.listeners:
            return
        watch.listeners = tuple(each for each in watch.listeners if each is not listener)
        if not watch.listeners:
            watch.waiting_since = self._now()
            self._unplan(watch)

    def set_deadline(self, listener: Listener, when: float) -> Entry:
        """Call `listener.on_deadline()` at the time *when* of the loop, unless the entry is struck out."""
        entry = self._timetable.enter(when, listener)
        self._timetable.arm(self._now())
        return entry

    def strike(self, entry: Entry) -> None:
        """Strike a deadline out."""
        self._timetable.strike(entry)

    def hurry(self, watch: Watch) -> None:
        """Ask about the run now: something says that it may have moved."""
        watch.due = min(watch.due, self._now())
        if watch.listeners:
            self._plan(watch, self._now())

    def began(self, watch: Watch, run: Run, *, later: bool, learns: bool) -> None:
        """Begin a segment with the state that starts it: of our own doing if it *learns*, else found as it was."""
        watch.whole = watch.run is None  # else it goes on in place
        now = self._now()
        self._leave_clock(watch)
        watch.begin(now, later=later, learns=learns)
        watch.open = run.status.in_flight
        watch.run, watch.body = run, None
        watch.due = self._next(watch, now, run.poll_after or 0.0)
        watch.may_hurry = run.poll_after is None

    # When -------------------------------------------------------------------------------------------------------------

    def _next(self, watch: Watch, now: float, floor: float) -> float:
        """Return when a run whose last answer came *now* is due, by the user's schedule or the clock of its kind."""
        if self._schedule is not None:
            return now + _wait(self._schedule, watch.quiet, floor)
        floor *= 1 + 0.1 * (watch.phase % 1)  # upwards only, so that a crowd does not come back as one
        first = None if watch.polled else watch.phase
        sent, seen = watch.sent - watch.began, now - watch.began
        return watch.began + self._clock(watch).next(sent, seen, phase=first, price=_PRICE, floor=floor)

    def _clock(self, watch: Watch) -> PollClock:
        """Return the clock of a segment, the same one from its begin to its end."""
        clock = watch.clock
        if clock is None:
            clock = watch.clock = self._clocks[timing_group(self._dialect, watch.run), watch.later]
            self._running[clock] += 1
        return clock

    def _learn(self, watch: Watch, until: float | None = None) -> None:
        """Close a segment, and have its clock learn from it: *until* when it took at the most, None if that is open."""
        watch.open = False
        if watch.learns:
            clock = self._clock(watch)
            clock.learn(watch.running_at, until, active=self._running[clock])
        self._leave_clock(watch)

    def _leave_clock(self, watch: Watch) -> None:
        clock, watch.clock = watch.clock, None
        if clock is not None:
            self._running[clock] -= 1
            if not self._running[clock]:
                del self._running[clock]

    def _plan(self, watch: Watch, now: float, *, arm: bool = True) -> None:
        """
        Put a run in the line of those to come, unless it is there or under way.

        Without *arm* it is for the caller to look at the line.
        """
        if watch.reading or not watch.listeners or watch in self._due or watch in self._seen_over:
            return
        due = watch.due
        if watch.lost_since is not None:  # a last look when patience runs out
            due = min(due, max(min(map(watch.given_up_at, watch.listeners)), now))
        elif watch.may_hurry:
            due = min((due, *(each.look_by for each in watch.listeners if each.look_by > now)))
        if watch.entry is not None:
            planned: Any = watch.entry[0]
            if planned <= due:
                return
            self._unplan(watch)
        watch.entry = self._timetable.enter(due, watch)
        if arm:
            self._timetable.arm(now)

    def _unplan(self, watch: Watch) -> None:
        self._due.pop(watch, None)
        self._seen_over.pop(watch, None)
        if watch.entry is not None:
            self._timetable.strike(watch.entry)
            watch.entry = None

    def _ring(self, now: float, late: float) -> None:
        if late > LATE:
            self._wake_up(now, late)
        self._pump()
        self._come_due(now)  # deadlines do not wait for a worker
        self._timetable.arm(now)

    def _wake_up(self, now: float, late: float) -> None:
        """Ask about all that is overdue, one after the other at twice the rate that was missed: no burst."""
        overdue = [what for what in self._timetable.overdue(now) if isinstance(what, Watch)]
        gap = min(late, LATE) / (2 * len(overdue)) if overdue else 0.0
        for place, watch in enumerate(overdue):
            self._unplan(watch)
            watch.due = now + place * gap
            self._plan(watch, now)
        for watch in self._watches.values():
            watch.learns = False  # nobody knows when what happened meanwhile happened

    # Going about it ---------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Set workers to all that is due and that there is room for; have the timer go off for the next."""
        now = self._now()
        while self._workers < self._at_once and not self._closed:
            job = self._job(now)
            if job is None:
                return
            self._workers += 1
            self._beginning += 1
            self._tasks.spawn(self._work(job), self._context)

    async def _work(self, job: Watch | Listing | None) -> None:
        """Do one job after the other for as long as there are any."""
        if not self._beginning:  # `close` has released the permit
            return
        self._beginning -= 1
        try:
            while job is not None:
                if isinstance(job, Watch):
                    await self._read(job)
                else:
                    await self._read_list(job)
                job = None if self._closed else self._job(self._now())
        finally:
            self._workers -= 1
            if job is not None:  # it was cut off
                self._pump()

    def _job(self, now: float) -> Watch | Listing | None:
        """Return what to read next, its permit acquired; None if nothing is due or there is no room."""
        self._come_due(now)
        if not self._due and not self._seen_over and not (self._lists and self._lists.under_way):
            self._timetable.arm(now)
            return None
        wait = self._permits.delay(now)
        if wait > 0:
            if wait > SOON:  # the vendor wants to be left alone; those who have no patience left hear so now
                wait = min(wait, self._disappoint(now))
            self._timetable.arm(now, now + wait)
            return None
        job = self._choose(now)
        self._permits.acquire_nowait(now)
        if isinstance(job, Watch):
            job.reading = True
        return job

    def _come_due(self, now: float) -> None:
        """Take note of what has come due: runs to be read, waits to be ended."""
        for what in self._timetable.take(now):
            if isinstance(what, Watch):
                what.entry = None
                (self._seen_over if what.due == -math.inf else self._due)[what] = None
            else:
                what.on_deadline()

    def _disappoint(self, now: float) -> float:
        """Tell those whose patience with lost contact is over; return the seconds until the next one's is."""
        soonest = math.inf
        for watch in [watch for watch in self._due if watch.lost_since is not None]:
            told = [listener for listener in watch.listeners if watch.gives_up(listener, now)]
            self._tell(watch, told, copy(watch.error))
            if watch.listeners:
                soonest = min(soonest, *(watch.given_up_at(listener) - now for listener in watch.listeners))
            else:
                self._unplan(watch)
        return soonest

    def _choose(self, now: float) -> Watch | Listing:
        """Return the next page of a list, or the run of which news is likeliest; an end that a list told of first."""
        ended = next(iter(self._seen_over), None)
        if ended is not None:
            del self._seen_over[ended]
            return ended
        if self._lists is not None:
            listing = self._lists.next(now + SOON, now)
            if listing is not None:
                for watch in listing.covered:
                    self._unplan(watch)
                return listing
        watch = next(iter(self._due)) if self._permits.limiter.limit is None else self._rank(now)
        del self._due[watch]
        return watch

    def _rank(self, now: float) -> Watch:
        """Return the due run under the greatest pressure; they are ranked as often as `SOON` says."""
        while self._ranked:
            watch = self._ranked.pop()
            if watch in self._due:
                return watch
        if len(self._due) == 1:
            return next(iter(self._due))
        limit = self._permits.limiter.limit
        assert limit is not None
        most = max(int(SOON * limit.count / limit.seconds), 1)
        self._ranked = sorted(
            heapq.nlargest(most, self._due, key=lambda each: self._pressure(each, now)),
            key=lambda each: self._pressure(each, now),
        )
        return self._ranked.pop()

    def _pressure(self, watch: Watch, now: float) -> float:
        if watch.run is None:  # there is an answer for the asking
            return math.inf
        if self._schedule is not None:
            return now - watch.due
        return self._clock(watch).pressure(now - watch.began, watch.sent - watch.began, polled=watch.polled)

    # One run ----------------------------------------------------------------------------------------------------------

    async def _read(self, watch: Watch) -> None:
        """Read a run with a single request, and tell who listens."""
        sent = self._now()
        watch.worker = asyncio.current_task()
        try:
            try:
                if not watch.followers:  # let go of before the worker began
                    return
                request = watch.request
                if request is None:
                    request = watch.request = self._first_request(watch.ref)
                self._polls += 1
                response = await self._api.send(request)
            finally:
                self._permits.release()
            date = response.headers.get("date")
            known = watch.run
            if response.status == 200 and known is not None and response.body == watch.body:
                # The same answer to the same question gives the same run.
                self._answered(watch, known, sent, wire.retry_after(response.headers) or 0.0, date)
            elif response.status == 200 and self._reads is not None and undecodable(response) is None:
                run = self._reads.parse_run(response)
                watch.body = response.body
                self._answered(watch, run, sent, run.poll_after or 0.0, date)
            else:
                self._api.honor_retry_after(response)
                replay = _Replay(response, self._api.call)
                run = await self._api.perform_once(self._dialect.fetch(watch.ref, {}), replay)
                watch.body = response.body if replay.asked == 1 else None  # unless it took further questions
                self._answered(watch, run, sent, run.poll_after or 0.0, date)
        except Exception as error:
            self._trouble(watch, error)
        finally:
            watch.worker, watch.reading = None, False
            self._plan(watch, self._now(), arm=False)

    def _first_request(self, ref: RunRef) -> Request:
        flow = self._dialect.fetch(ref, {})
        try:
            first = next(flow)
        finally:
            flow.close()
        assert isinstance(first, Request), "a dialect's fetch begins with its request"
        return first

    def _answered(self, watch: Watch, run: Run, sent: float, floor: float, date: str | None) -> None:
        now = self._now()
        self._telemetry.polled("unchanged" if run is watch.run else "changed")
        watch.sent, watch.polled = sent, True
        watch.lost_since = watch.error = None
        watch.may_hurry = floor == 0.0
        before = watch.run
        if before is None:
            self._leave_clock(watch)  # now its kind can be told
        if run is before:
            watch.quiet += 1
        elif watch.take(run):
            saw = partial(self._telemetry.on_state, run, before, kind=timing_group(self._dialect, run))
            _ = saw() if watch.context is None else watch.context.run(saw)
        run = watch.run or run
        if not watch.learns and watch.whole and not watch.dated and date:
            self._date(watch, run, date, now)
        if run.status.in_flight:
            watch.running_at = max(sent - watch.began, 0.0)
            watch.due = self._next(watch, now, floor)
        else:
            watch.due = now + _wait(self._backoff, watch.quiet, 0.0)  # an answered pause may show for a while
            if watch.open:
                self._ended(watch, now)
        listeners = watch.listeners
        if len(listeners) > 1:
            self._shared += len(listeners) - 1
        self._silence(watch, [listener for listener in listeners if listener.on_state(run, now)])

    def _silence(self, watch: Watch, told: Sequence[Listener]) -> None:
        """Ask no more on behalf of those who were told; they have yet to wake up, and may come again."""
        if told:
            watch.listeners = tuple(each for each in watch.listeners if each not in told)
            watch.waiting_since = self._now()

    def _date(self, watch: Watch, run: Run, date: str, now: float) -> None:
        """Find out how old a run is that was not started here: the difference of two times of the vendor."""
        watch.dated = True
        began, _ = self._dialect.times(evolve(run)) if isinstance(self._dialect, ReportsTimes) else (None, None)
        at = wire.http_date(date)
        if began is not None and at is not None:
            age = (at - began).total_seconds()
            if 0 <= age <= _OLDEST:
                watch.began = min(watch.began, now - age)

    def _ended(self, watch: Watch, now: float) -> None:
        """Learn from a segment that is over."""
        took = now - watch.began
        lag = (took - watch.running_at) / 2  # it ended somewhere between two polls
        self._ends += 1
        self._lag += lag
        lasted = self._lasted(watch)
        if lasted is not None:
            watch.learns, watch.running_at, took = True, lasted, lasted
        self._learn(watch, took)
        failed = watch.run.failure.type if watch.run and watch.run.failure else None
        whole = watch.learns and not watch.later and watch.run is not None and watch.run.status.is_over
        self._telemetry.finished(lag, took if whole else None, error_type=failed)

    def _lasted(self, watch: Watch) -> float | None:
        """Return how long a run took by the vendor's own clock, if it says so of the whole of what was waited for."""
        run = watch.run
        if run is None or not watch.whole or not run.status.is_over or not isinstance(self._dialect, ReportsTimes):
            return None
        began, ended = self._dialect.times(evolve(run))
        lasted = -1.0 if began is None or ended is None else (ended - began).total_seconds()
        return lasted if 0 <= lasted <= _OLDEST else None

    def _trouble(self, watch: Watch, error: Exception) -> None:
        """Bear with lost contact and limits; tell of anything else."""
        now = self._now()
        watch.may_hurry = False
        asked = getattr(error, "retry_after", None) or 0.0
        lost = (
            isinstance(error, TransportError | ServerError)
            or (isinstance(error, NotFoundError) and watch.is_fresh(now))
            or (isinstance(error, APIError) and error.status == 408)
        )
        final = not lost and not isinstance(error, RateLimitedError)
        self._telemetry.polled("lost" if lost else "refused")
        if not isinstance(error, AgentRunsError):
            logger.debug("reading run %s failed with %r", watch.ref.id, error)
        if lost:
            watch.lose(error, now)
        else:
            watch.error = copy(error)
            watch.quiet += 1
        try:
            wait = _wait(self._schedule or self._backoff, watch.quiet, asked)
        except Exception as broken:  # a schedule of the user's own: nobody is to spin on it
            error, final, wait = broken, True, _BROKEN
        watch.due = now + wait
        told = [listener for listener in watch.listeners if final or watch.gives_up(listener, now)]
        self._tell(watch, told, error)

    def _tell(self, watch: Watch, told: Sequence[Listener], error: Exception | None) -> None:
        self._silence(watch, told)
        for place, listener in enumerate(told):
            assert error is not None
            listener.on_error(copy(error) if place else error)  # each raises its own

    async def _send_and_heed(self, request: Request) -> Response:
        response = await self._api.send(request)
        self._api.honor_retry_after(response)
        self._date_of_list = response.headers.get("date")
        return response

    # Many runs --------------------------------------------------------------------------------------------------------

    async def _read_list(self, listing: Listing) -> None:
        """Read one page of runs; each that is on it counts as read at that moment."""
        lists = self._lists
        assert lists is not None
        sent = self._now()
        self._lists_read += 1
        found = 0
        try:
            page = await self._api.perform_once(listing.flow(), self._send_and_heed)
        except Exception as error:  # those on it are read one by one, and tell what is wrong
            logger.debug("a list of runs cannot be read: %s", error)
            listing.fail(self._now() + self._backoff.delay(listing.failures, noise=random.random()))  # noqa: S311
        else:
            for run in page.runs:
                watch = self._watches.get(run.id)
                if watch is None or (watch.reading and watch not in listing.covered) or watch.sent > sent:
                    continue
                listing.found(watch)
                found += 1
                watch.reading = False
                if not run.status.in_flight:  # a list leaves things out: an end is read once more, by itself
                    watch.due = -math.inf
                else:
                    self._unplan(watch)
                    self._answered(watch, watch.run if run == watch.run else run, sent, 0.0, self._date_of_list)
                self._plan(watch, self._now())
            self._listed += max(found - 1, 0)
            self._telemetry.listed(found)
            listing.turn(page.cursor)
            lists.turned(listing)
        finally:
            self._permits.release()
            for watch in listing.released():
                watch.reading = False
                self._plan(watch, self._now())


def _wait(schedule: Schedule, count: int, floor: float) -> float:
    """Return the seconds that a schedule says, which may be the user's own; raise what is wrong with them."""
    seconds = schedule.delay(count, at_least=floor, noise=random.random())  # noqa: S311
    check.number(f"the delay of {type(schedule).__name__}", seconds, zero=True)
    return max(seconds, _LEAST)


class _Replay:
    """Give a flow the answer that is there already; send what else it asks."""

    __slots__ = ("_answer", "_send", "asked")

    def __init__(self, answer: Response, send: Send) -> None:
        self._answer = answer
        self._send = send
        self.asked = 0

    async def __call__(self, request: Request) -> Response:
        self.asked += 1
        return self._answer if self.asked == 1 else await self._send(request)
