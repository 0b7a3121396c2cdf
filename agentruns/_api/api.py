"""The requests of one client: each within the rate limit, and repeated only where that is safe."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from attrs import evolve

from agentruns._telemetry import Telemetry
from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, Request, Response, Send
from agentruns.dialects.wire import retry_after_refusal
from agentruns.errors import ConfigurationError, TransportError, api_error

from .accounts import Account
from .admission import Admission
from .channel import Channel, Heard
from .flow import Attempts, perform, undecodable
from .home import Home
from .limiter import Permits
from .noting import Acquire, Clearance, Keeper, Notes
from .outages import GATEWAY
from .recent import RecentAnswers
from .retry import Retry
from .skipped import SkippedLog

T = TypeVar("T")

_ONCE: Final = Retry(attempts=1)


class Api:
    """
    Send the requests of one client.

    `send` sends at once: the caller has acquired one of `permits` before, releases it after, and passes what was
    answered to `honor_retry_after`. `call` does all of that by itself.
    """

    def __init__(
        self,
        transport: Channel,
        permits: Permits,
        problem: Callable[[Response], Problem],
        retry: Retry,
        error_status: Callable[[Response], int | None] | None = None,
        telemetry: Telemetry | None = None,
        account: Account | None = None,
    ) -> None:
        self.send: Final[Send] = transport if error_status is None else _TrueStatus(transport, error_status)
        self.permits: Final = permits
        self.admission: Final = Admission(permits, account)
        self.retry: Final = retry
        self.skipped: Final = SkippedLog()
        self._recent = RecentAnswers()
        self._transport = transport
        self._telemetry = telemetry
        self._problem = problem
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._home = Home()
        self._is_open = False

    @property
    def is_open(self) -> bool:
        """Tell whether flows may be performed."""
        return self._is_open

    def enter(self) -> asyncio.AbstractEventLoop:
        """Belong to the running loop, and return it; raise `ConfigurationError` if this was entered before."""
        return self._home.enter()

    def leave(self) -> None:
        """Belong to no loop."""
        self._home.leave()

    async def open(self) -> None:
        """Open the transport."""
        await self._transport.open(self._wait_resumed)
        self.admission.open()
        self._is_open = True

    def close(self) -> None:
        """Perform no more flows, and let nothing through that waits for a permit."""
        self._is_open = False
        self.permits.close()

    async def wait_closed(self) -> None:
        """Close the transport."""
        self.admission.close()
        await self._transport.close()

    def check_open(self) -> None:
        """Raise `ConfigurationError` outside the life of the client, and outside its event loop."""
        if not self._is_open:
            raise ConfigurationError("this client is not open; use it within `async with connect(...) as client:`")
        self._home.check()

    async def perform(
        self, flow: Flow[T], keeper: Keeper | None = None, attempts: Attempts | None = None, *, guarded: bool = True
    ) -> T:
        """
        Run *flow* to its result; *keeper* keeps the checkpoints of a start, *attempts* is told how requests fare.

        A mistake within a flow that is *guarded* becomes a `ProtocolError`; others raise what they raise.

        Raise `ConfigurationError` for what is no flow, or one that has begun, and if this is not open.
        """
        given: object = flow
        if not inspect.isgenerator(given) or inspect.getgeneratorstate(flow) != inspect.GEN_CREATED:
            raise ConfigurationError(
                f"{flow!r} cannot be performed: pass a new flow each time, such as narrative.get_conversation(id)"
            )
        try:
            self.check_open()
        except ConfigurationError:
            flow.close()
            raise
        notes = None if keeper is None else self._notes(keeper)
        send = self.call if notes is None else notes.send
        return await perform(
            flow, send, self._problem, self.retry, self._locks, notes, self.skipped, attempts, guarded=guarded
        )

    def _notes(self, keeper: Keeper) -> Notes:
        return Notes(keeper, Clearance(self.permits, self._transport, self.retry.longest), self.call)

    async def perform_once(self, flow: Flow[T], send: Send) -> T:
        """Run *flow* to its result with each request sent once, through *send*."""
        return await perform(flow, send, self._problem, _ONCE, self._locks, skipped=self.skipped)

    async def call(self, request: Request, acquire: Acquire | None = None) -> Response:
        """
        Send a request that somebody waits for, once, when a permit is free: calls go before polls.

        *acquire* acquires that permit, where there is more to do before the request is sent.
        """
        if request.max_age is None:
            return await self._call(request, acquire)
        loop = asyncio.get_running_loop()
        async with self._locks.setdefault(f"{request.line} {request.params}", asyncio.Lock()):  # one asks, for all
            known, asked_at = self._recent.find(request, loop.time()), loop.time()
            if known is not None:
                return known
            response = await self._call(request, acquire)
            self._recent.keep(request, asked_at, response)
            return response

    async def _call(self, request: Request, acquire: Acquire | None) -> Response:
        try:
            await (self.permits.acquire(self.retry.longest) if acquire is None else acquire())
            try:
                response = await self.send(request)
            finally:
                self.permits.release()
        except TransportError as error:
            self.admission.outages.failed(error, asyncio.get_running_loop().time())
            raise
        self.note_answer(response)
        return response

    def note_answer(self, response: Response) -> None:
        """Note that the vendor is there, and hold back requests for as long as it asks by `Retry-After`."""
        self.honor_retry_after(response)
        outages = self.admission.outages
        if response.status in GATEWAY:
            outages.failed(api_error(response, self._problem(response), None), asyncio.get_running_loop().time())
        elif outages.since is not None:
            outages.answered(asyncio.get_running_loop().time())

    async def listen(self, request: Request, heard: Heard | None = None) -> None:
        """
        Return when the vendor ends the stream of events that *request* opens; await *heard* for each event.

        Raise `TransportError` if it refuses, or the connection is lost.
        """
        await self.permits.acquire(self.retry.longest)
        with ExitStack() as permit:  # held until the stream is open, or will not be
            permit.callback(self.permits.release)
            refusal = await self._transport.listen(request, permit.close, heard)
        if refusal is not None:
            self.honor_retry_after(refusal)
            raise TransportError(request, f"the stream of events was answered {refusal.status}")

    def honor_retry_after(self, response: Response) -> None:
        """Hold back all requests to the vendor for as long as it asks by `Retry-After`, or until its limit is reset."""
        if response.status not in {429, 503}:
            return
        if response.status == 429 and self._telemetry is not None:
            self._telemetry.limited()
        said = self._problem(response)
        if not (response.request.again_after_429 or said.rate_limited):
            return  # it lacks room for a run
        if response.status == 429:
            self.permits.slow_down()
        asked = retry_after_refusal(response)
        if asked:
            if self._telemetry is not None:
                self._telemetry.rested(asked)
            self.permits.pause(asked, api_error(response, said, asked))

    async def _wait_resumed(self) -> None:
        await self.permits.wait_resumed(self.retry.longest)


class _TrueStatus:
    """Give an answer that tells of another error than its status does the status which that error stands for."""

    def __init__(self, send: Send, error_status: Callable[[Response], int | None]) -> None:
        self._send = send
        self._error_status = error_status

    async def __call__(self, request: Request) -> Response:
        response = await self._send(request)
        if 300 <= response.status < 400 or undecodable(response) is not None:
            return response
        status = self._error_status(response)
        return response if status is None else evolve(response, status=status)
