"""Reading one run: what the poller needs of a vendor's dialect, but for lists."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, TypeAlias

from attrs import evolve

from agentruns._api.api import Api
from agentruns._api.flow import undecodable, with_poll_hint
from agentruns._api.operations import timing_group
from agentruns._values import codec
from agentruns._values.commands import Flow, first_request
from agentruns._values.exchange import Request, Response, Send
from agentruns._values.run import Run, RunStatus
from agentruns.dialects import wire
from agentruns.dialects.vendor import MISTAKES, Vendor, mistake
from agentruns.errors import ProtocolError

from .watch import Watch

Reading: TypeAlias = tuple[Run, float]
"""A run as it was read, and the seconds for which the vendor asks not to be asked again."""

_OLDEST: Final = 7 * 86400.0  # seconds; what claims to have taken longer has a clock of its own


class Reader:
    """Ask for a run by one request, and make out what the answer says."""

    def __init__(self, vendor: Vendor, api: Api) -> None:
        self._vendor = vendor
        self._api = api
        self._parse_run = vendor.parse_run

    def request(self, watch: Watch) -> Request:
        """Return the request that reads a run: the same one each time."""
        request = watch.request if watch.reads is None else None
        if request is None:
            try:
                request = first_request(self._flow(watch))
            except MISTAKES as error:
                raise mistake(f"{self._vendor.NAME}.fetch", error, None) from error
            if watch.reads is None:
                watch.request = request
        return request

    def _flow(self, watch: Watch) -> Flow[Any]:
        return self._vendor.flow("fetch", watch.ref, watch.params) if watch.reads is None else watch.reads()

    def parse(self, watch: Watch, response: Response) -> Reading | None:
        """Return what an answer says by itself, None if it takes a flow to tell; `perform` runs it."""
        if response.status != 200 or watch.reads is not None:
            return None
        known = watch.run
        if (
            known is not None
            and response.body == watch.body
            and known.poll_after == wire.poll_after(response.headers)  # else the body has a wait of its own, perhaps
        ):
            return known, known.poll_after or 0.0  # the same answer gives the same run
        if self._parse_run is None:
            return None
        try:
            parsed = self._parse_run(response)
        except (*MISTAKES, ProtocolError) as error:
            if undecodable(response) is not None:
                return None
            if isinstance(error, ProtocolError):
                raise
            raise mistake(f"{self._vendor.NAME}.parse_run", error, response) from error
        run = with_poll_hint(self._vendor.run("parse_run", parsed, response), response)
        if (known is None or run != known) and undecodable(response) is not None:  # for counters, a glance will do
            return None
        watch.body = response.body
        return run, run.poll_after or 0.0

    async def perform(self, watch: Watch, response: Response) -> Reading:
        """Return what the dialect makes of an answer, by further requests if need be; raise what is wrong with it."""
        self._api.honor_retry_after(response)
        replay = _Replay(response, self._api.call)
        read = await self._api.perform_once(self._flow(watch), replay)
        run = self._vendor.run("fetch", read, response)
        watch.body = (
            response.body if replay.asked == 1 and watch.reads is None else None
        )  # unless it took further questions
        return run, run.poll_after or 0.0

    def may_be_followed(self, run: Run) -> bool:
        """Tell whether an answer to a paused run begins another one, by which alone it can be seen."""
        return self._vendor.answered_by is not None and run.status is RunStatus.REQUIRES_ACTION

    async def followed_by(self, run: Run) -> Run | None:
        """Return the run that an answer to a paused one has begun, None if there is none; raise what is wrong."""
        found = await self._api.perform_once(self._vendor.flow("answered_by", run), self._api.call)
        return None if found is None else self._vendor.run("answered_by", found)

    def timing_group(self, run: Run | None) -> str:
        """Return what groups a run with others that take about as long."""
        return timing_group(self._vendor, run)

    def age(self, run: Run, date: str) -> float | None:
        """Return the seconds since a run began: the difference of two times of the vendor, None if it tells none."""
        at = wire.http_date(date)
        if self._vendor.times is None or at is None:
            return None
        began, _ = self._times(run)
        age = -1.0 if began is None else (at - began).total_seconds()
        return age if 0 <= age <= _OLDEST else None

    def duration(self, run: Run) -> float | None:
        """Return the seconds that a run took by the vendor's own clock, None if it is not over or not told."""
        if self._vendor.times is None or not run.status.is_over:
            return None
        began, ended = self._times(run)
        took = -1.0 if began is None or ended is None else (ended - began).total_seconds()
        return took if 0 <= took <= _OLDEST else None

    def _times(self, run: Run) -> tuple[datetime | None, datetime | None]:
        """Return when a run began and ended, None where that is not known; a time without an offset is UTC."""
        began, ended = self._vendor.call("times", evolve(run))  # what a copy parses is not kept with the run
        return began and codec.utc(began), ended and codec.utc(ended)


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
