"""
What a start notes before it sends: first all that it takes to send, then the note, then the request.

A note says that a request may have been sent. The wait for its turn may be long, and may break, and so may that for a
token, or for where to send: while it lasts, nothing is noted, so that a start which was never sent is not in doubt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeAlias

from attrs import define, field

from agentruns._aio.limits import ConcurrencyLimit
from agentruns._values.commands import Checkpoint, Ownership
from agentruns._values.exchange import Request, Response
from agentruns.errors import AgentRunsError

from .channel import IS_CLOSED, Channel
from .limiter import Permits

Acquire: TypeAlias = Callable[[], Awaitable[None]]
"""What returns when a request may be sent, by a permit that is the caller's from then on."""


class Keeper(Protocol):
    """What keeps the notes of a start, and knows which runs belong to others."""

    async def reserve(self, note: Checkpoint) -> Ownership:
        """Return "mine" when no other start of the note's group is under way; "others" when that had to be awaited."""
        ...

    async def note(self, note: Checkpoint) -> None:
        """Keep a note, in the place of the one before."""
        ...

    async def take_back(self) -> None:
        """Keep what was kept before the last note: nothing was done after it."""
        ...

    async def claim(self, run_id: str) -> Ownership:
        """Tell whose run it is that was found by looking."""
        ...


@define
class Clearance:
    """What it takes to send a request at once: one of the *permits*, a *channel* that is ready, and a connection."""

    _permits: Permits
    _channel: Channel
    _longest: float
    _connections: ConcurrencyLimit | None = field(default=None, init=False)  # one of which this task may have reserved

    async def acquire(self, request: Request) -> None:
        """Wait for all, in the order in which all wait; raise as `Permits.acquire` and `Channel.ready` do."""
        await self._permits.acquire(self._longest)
        try:
            self._connections = await self._channel.ready(request)
        except BaseException:
            self._permits.release()  # to find out where to send takes a request
            raise
        try:
            if self._connections is not None and not await self._connections.reserve():
                raise AgentRunsError(IS_CLOSED)
        except BaseException:
            self._permits.give_up()
            raise

    def is_over(self) -> bool:
        """Tell whether nothing may be sent by it any more."""
        return self._permits.are_over()

    def give_up(self) -> None:
        """Give both back, unused."""
        self.leave()
        self._permits.give_up()

    def leave(self) -> None:
        """Give the connection back, if it was not used."""
        if self._connections is not None:
            self._connections.unreserve()


class Notes:
    """The notes of one start, which *keeper* keeps, and its requests, which *call* sends with *clearance*."""

    __slots__ = ("_call", "_clearance", "_due", "_keeper", "_kept")

    def __init__(
        self, keeper: Keeper, clearance: Clearance, call: Callable[[Request, Acquire | None], Awaitable[Response]]
    ) -> None:
        self._keeper = keeper
        self._clearance = clearance
        self._call = call
        self._due: Checkpoint | None = None
        self._kept: Checkpoint | None = None

    async def note(self, note: Checkpoint, *, at_once: bool) -> Ownership:
        """
        Have a note kept before the next request that may do something; *at_once*, if it tells of one in doubt.

        Return "others" where it is not, since a start of the same group had to be waited for.
        """
        if note.group and await self._keeper.reserve(note) is Ownership.OTHERS:
            return Ownership.OTHERS
        self._kept, self._due = None, note
        if at_once:
            await self._keeper.note(note)
            self._due = None
        return Ownership.MINE

    async def claim(self, run_id: str) -> Ownership:
        """Tell whose run it is that was found by looking."""
        return await self._keeper.claim(run_id)

    async def send(self, request: Request) -> Response:
        """Send a request once, when nothing holds it back and what is to be noted before is kept."""
        if self._due is None or request.idempotent:
            return await self._call(request, None)
        try:
            return await self._call(request, partial(self._acquire, request))
        finally:
            self._clearance.leave()

    def answered(self) -> None:
        """Keep the last note for good: a request after it was answered well, and may have done something."""
        self._kept = None

    async def take_back(self) -> None:
        """Keep the last note no more until the next request that may do something: nothing was done after it."""
        note, self._kept = self._kept, None
        if note is not None:
            self._due = note  # first: where that fails, nobody knows whether it is kept
            await self._keeper.take_back()

    async def _acquire(self, request: Request) -> None:
        """Wait for clearance and keep the note that is due; both anew if the clearance is over by then."""
        note, clearance = self._due, self._clearance
        assert note is not None
        while True:
            await clearance.acquire(request)
            try:
                if not clearance.is_over():
                    await self._keeper.note(note)
                    self._kept, self._due = note, None
                    if not clearance.is_over():
                        return
                    await self.take_back()
            except BaseException:
                clearance.give_up()
                raise
            clearance.give_up()
