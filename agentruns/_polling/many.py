"""Reading many runs by one request: what is taken from the answer, and what becomes of the runs it leaves out."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from agentruns._api.api import Api
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request, Response
from agentruns._values.run import Run, RunRef
from agentruns.dialects.protocol import ReadOn
from agentruns.dialects.vendor import Vendor
from agentruns.errors import APIError, TransportError

from .agenda import Agenda
from .bulk import Bulk, Bulks
from .intake import Intake
from .lists import Listing, Lists
from .stats import Counters
from .watch import READING, Watch

logger = logging.getLogger("agentruns")

T = TypeVar("T")


class ManyReader:
    """Read the runs of a page of a list, or those that a request names; each that is told of counts as read."""

    def __init__(
        self,
        kind: Lists | Bulks,
        *,
        vendor: Vendor,
        api: Api,
        agenda: Agenda,
        intake: Intake,
        counters: Counters,
        watches: Mapping[str, Watch],
    ) -> None:
        self._kind = kind
        self._flow = "page" if isinstance(kind, Lists) else "fetch_many"
        self._vendor = vendor
        self._api = api
        self._agenda = agenda
        self._intake = intake
        self._counters = counters
        self._watches = watches
        self.now: Callable[[], float] = time.monotonic  # of the loop, once the poller is open

    async def read(self, job: Listing | Bulk) -> None:
        """Read with one request, whose permit is acquired, and tell who listens."""
        await (self._read_list(job) if isinstance(job, Listing) else self._read_bulk(job))

    async def _ask(self, flow: Flow[T]) -> tuple[T, str | None]:
        """Return what a flow of one request comes to, and the date of the answer."""
        date: str | None = None

        async def send(request: Request) -> Response:
            nonlocal date
            response = await self._api.send(request)
            self._api.note_answer(response)
            date = response.headers.get("date")
            return response

        return await self._api.perform_once(flow, send), date

    async def _read_list(self, listing: Listing) -> None:
        """Read one page of runs; each that is on it counts as read at that moment."""
        lists = self._kind
        assert isinstance(lists, Lists)
        sent = self.now()
        self._counters.lists += 1
        found = 0
        try:
            page, date = await self._ask(listing.flow())
        except Exception as error:  # those on it are read one by one, and tell what is wrong
            logger.debug("a list of runs cannot be read: %s", error)
            listing.fail(self._after_failures(listing.failures))
        else:
            for run in page.runs:
                watch = self._watches.get(run.id)
                if watch is None or not listing.finds(watch, sent):
                    continue
                found += 1
                if watch.stage is READING:
                    self._agenda.finish_reading(watch)
                self._take_one(watch, run, sent, date, is_whole=self._vendor.LIST_IS_WHOLE)
            self._counters.listed(found)
            listing.turn(page.cursor)
            lists.turned(listing)
        finally:
            self._api.permits.release()
            self._leave(listing.released())

    async def _read_bulk(self, bulk: Bulk) -> None:
        """Read many runs by one request; each that is told of counts as read at that moment."""
        bulks = self._kind
        assert isinstance(bulks, Bulks)
        sent = self.now()
        self._counters.lists += 1
        left = dict(bulk.watches)
        try:
            answer, date = await self._ask(bulks.flow(bulk))
            told = self._vendor.many(answer)
        except Exception as error:  # they are read one by one, and tell what is wrong with the vendor
            level = logging.DEBUG if isinstance(error, APIError | TransportError) else logging.WARNING
            logger.log(level, "many runs cannot be read at once: %s", error)
            bulks.fail(self._after_failures(bulks.failures))
        else:
            bulks.failures = 0
            for each in told:
                watch = left.pop(each.ref.id if isinstance(each, ReadOn) else each.id, None)
                if watch is not None:
                    self._agenda.finish_reading(watch)
                    self._take_one(watch, each, sent, date, is_whole=True)
            self._counters.listed(len(bulk.watches) - len(left))
            for watch in left.values():
                self._agenda.finish_reading(watch)
                watch.place = None
                self._read_alone(watch)
            left.clear()
        finally:
            self._api.permits.release()
            self._leave(left.values())

    def _take_one(
        self, watch: Watch, told: Run | RunRef | ReadOn, sent: float, date: str | None, *, is_whole: bool
    ) -> None:
        """
        Take in what one request told of a run among others; what goes wrong with it is told to those who follow it.

        A ref tells that the run is in flight as it was. A state that is not whole leaves things out: unless it is in
        flight, the run is read by itself.
        """
        agenda, known = self._agenda, watch.run
        if self._watches.get(watch.ref.id) is not watch:  # released meanwhile
            return
        try:
            if watch.segment.read_at > sent:  # older than what is known
                return
            if isinstance(told, ReadOn):
                watch.reads = told.read
                self._read_alone(watch)
                return
            run = known if isinstance(told, RunRef) else self._vendor.run(self._flow, told)
            if run is None or not (run.status.in_flight or (is_whole and run is told)):
                self._read_alone(watch)
                return
            agenda.cancel(watch)
            if run == known:
                run = known
            elif is_whole:
                watch.body = None  # a read that repeats the one before is news then
            floor = (run.poll_after or 0.0) if is_whole else 0.0
            self._intake.on_state(watch, run, sent, floor, date)
        except Exception as error:  # such as a mistake of the dialect
            self._intake.on_error(watch, error)
        finally:
            agenda.plan(watch, self.now())

    def _read_alone(self, watch: Watch) -> None:
        """Have a run read by itself, now and before all others, of which a request for many has told too little."""
        watch.due = self.now()
        if watch.listeners:
            self._agenda.end(watch)
        else:
            self._agenda.plan(watch, watch.due)

    def _after_failures(self, count: int) -> float:
        """Return when to ask for many runs again, after so many times in vain."""
        return self.now() + self._api.retry.backoff.delay(count, noise=random.random())  # noqa: S311

    def _leave(self, watches: Iterable[Watch]) -> None:
        """Have runs read by themselves that a request for many was under way for, and of which it told nothing."""
        now = self.now()
        for watch in watches:
            self._agenda.finish_reading(watch)
            self._agenda.plan(watch, now)
        self._agenda.rearm(now)
