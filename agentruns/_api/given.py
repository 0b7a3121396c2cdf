"""A transport that the user passes in, as the channel of a client."""

from __future__ import annotations

import asyncio
from typing import Any

from attrs import evolve

from agentruns._aio.limits import ExchangeTimeouts
from agentruns._values.exchange import Request, Response, Transport
from agentruns.errors import AgentRunsError, ProtocolError, TransportError

from .body import merged
from .channel import CLOSED, IS_CLOSED, WaitResumed, cut_off
from .defaults import Defaults
from .session import said


class GivenTransport:
    """
    Send requests by the *transport* of a user, each within *timeout* seconds.

    What it raises as `OSError` or `TimeoutError` is a `TransportError`; all else is raised as it is. It carries no
    streams of events.
    """

    def __init__(self, transport: Transport, base_url: str, timeout: float, defaults: Defaults) -> None:
        self._transport = transport
        self._base_url = base_url
        self._seconds = timeout
        self._defaults = defaults
        self._timeouts = ExchangeTimeouts(timeout)
        self._others: dict[float, ExchangeTimeouts] = {}  # by seconds
        self._closed = False

    def __repr__(self) -> str:
        return f"GivenTransport({type(self._transport).__name__}, {self._base_url!r})"

    async def open(self, _: WaitResumed) -> None:
        """There is nothing to open: the transport is the user's."""

    async def ready(self, _: Request) -> None:
        """There is nothing to wait for: what the transport needs, it gets itself."""

    async def close(self) -> None:
        """End what is under way; the transport itself is the user's to close."""
        self._closed = True
        for timeouts in (self._timeouts, *self._others.values()):
            timeouts.cancel_all(CLOSED)

    async def __call__(self, request: Request) -> Response:
        """Send *request* once, with what every request has."""
        if self._closed:
            raise AgentRunsError(IS_CLOSED)
        seconds = self._seconds if request.timeout is None else request.timeout
        timeouts = self._timeouts
        if request.timeout is not None:
            timeouts = self._others.setdefault(seconds, ExchangeTimeouts(seconds))
        task = timeouts.begin()
        try:
            response: Any = await self._transport(self._whole(request))
        except asyncio.CancelledError:
            ours = cut_off(request, timeouts.reason(task), seconds)
            if ours is not None:
                raise ours from None
            raise
        except (OSError, TimeoutError) as error:
            raise TransportError(request, said(error)) from error
        finally:
            timeouts.end(task)
        if not isinstance(response, Response):
            raise ProtocolError(f"the transport answered {request.line} with {type(response).__name__}, not a Response")
        return evolve(response, request=request, base_url=response.base_url or self._base_url)

    def _whole(self, request: Request) -> Request:
        defaults = self._defaults
        if not defaults.headers and not defaults.params:
            return request
        headers, params = merged(defaults.headers, request.headers), {**defaults.params, **request.params}
        return evolve(request, headers=headers, params=params)

    async def listen(self, request: Request, *_: Any) -> Response | None:
        """Raise `TransportError`: what is sent once and answered once tells no events."""
        raise TransportError(request, "a transport of your own carries no streams of events", sent=False, final=True)
