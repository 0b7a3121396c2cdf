"""What carries the requests of a client, as the client sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

from agentruns._aio.limits import TOO_LONG, ConcurrencyLimit
from agentruns._values.exchange import Request, Response, ServerEvent
from agentruns.errors import AgentRunsError, TransportError

Heard: TypeAlias = Callable[[ServerEvent], Awaitable[None]]
"""What is awaited for each event of a stream."""

WaitResumed: TypeAlias = Callable[[], Awaitable[None]]
"""What returns when the vendor has had the rest that it asked for."""

CLOSED = "the client was closed"
IS_CLOSED = "this client is closed; open another one"

UNREACHED: Final = "check the base URL, and that its server can be reached"
REFUSED_TLS: Final = "check the base URL, and which certificates this machine trusts"
BY_PROXY: Final = "check the proxy: its address, its user, and what it lets through"
TOO_SLOW: Final = "a larger `timeout` of `connect` allows more"
BY_FUNCTION: Final = "look at the function that is `token`"
"""What helps where no answer came: the `hint` of a `TransportError`."""


async def at_once() -> None:
    """Return: there is nothing to wait for."""


def cut_off(request: Request, reason: str | None, seconds: float) -> AgentRunsError | None:
    """Return the error of an exchange that its timeouts have cut off for *reason*; None if it was not they."""
    if reason == TOO_LONG:
        return late(request, seconds)
    return None if reason is None else AgentRunsError(f"{reason} while {request.line} was under way")


def late(request: Request, seconds: float) -> TransportError:
    """Return the error of an exchange that took longer than that."""
    hint = TOO_SLOW if request.timeout is None else ""
    return TransportError(request, f"no whole answer within {seconds:g} s", hint=hint)


class Channel(Protocol):
    """A `Transport` that opens and closes, and that may carry streams of events."""

    async def open(self, wait_resumed: WaitResumed, /) -> None:
        """Get ready to send. What has to wait for a connection awaits *wait_resumed* before it is sent."""
        ...

    async def ready(self, request: Request, /) -> ConcurrencyLimit | None:
        """
        Return when nothing but a connection is missing to send *request*: what bounds these, None if nothing does.

        Raise what sending it would, as where no token can be had.
        """
        ...

    async def close(self) -> None:
        """End what is under way."""
        ...

    async def __call__(self, request: Request, /) -> Response:
        """Send *request* once."""
        ...

    async def listen(
        self, request: Request, opened: Callable[[], None], heard: Heard | None = None, /
    ) -> Response | None:
        """
        Open a stream of events, call *opened* when it is, and return when the server ends it; or its refusal.

        Await *heard* for each event.
        """
        ...
