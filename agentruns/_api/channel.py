"""What carries the requests of a client, as the client sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from agentruns._values.exchange import Request, Response, ServerEvent

Heard: TypeAlias = Callable[[ServerEvent], Awaitable[None]]
"""What is awaited for each event of a stream."""

WaitResumed: TypeAlias = Callable[[], Awaitable[None]]
"""What returns when the vendor has had the rest that it asked for."""

CLOSED = "the client was closed"
IS_CLOSED = "this client is closed; open another one"


async def at_once() -> None:
    """Return: there is nothing to wait for."""


class Channel(Protocol):
    """A `Transport` that opens and closes, and that may carry streams of events."""

    async def open(self, wait_resumed: WaitResumed, /) -> None:
        """Get ready to send; what has to wait for a connection awaits *wait_resumed* before it is sent."""
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
