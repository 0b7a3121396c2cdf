"""
What a start notes before it sends: first the permit, then the note, then the request.

A note says that a request may have been sent. The wait for a permit may be long, and may break: while it lasts, nothing
is noted, so that a start which was never sent is not in doubt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from agentruns._values.commands import Checkpoint, Ownership
from agentruns._values.exchange import Request, Response

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


class Notes:
    """The notes of one start, which *keeper* keeps, and its requests, which *call* sends."""

    __slots__ = ("_call", "_due", "_keeper", "_kept", "_longest", "_permits")

    def __init__(
        self,
        keeper: Keeper,
        permits: Permits,
        longest: float,
        call: Callable[[Request, Acquire | None], Awaitable[Response]],
    ) -> None:
        self._keeper = keeper
        self._permits = permits
        self._longest = longest
        self._call = call
        self._due: Checkpoint | None = None
        self._kept: Checkpoint | None = None

    async def note(self, note: Checkpoint, *, at_once: bool) -> Ownership:
        """
        Have a note kept before the next request is sent; *at_once*, if it tells of a request that is in doubt.

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
        """Send a request once, when a permit is free and what is to be noted before is kept."""
        return await self._call(request, None if self._due is None else self._acquire)

    def answered(self) -> None:
        """Keep the last note for good: a request after it was answered well, and may have done something."""
        self._kept = None

    async def take_back(self) -> None:
        """Keep the last note no more until the next request is sent: nothing was done after it."""
        note, self._kept = self._kept, None
        if note is not None:
            await self._keeper.take_back()
            self._due = note

    async def _acquire(self) -> None:
        """Acquire a permit and keep the note that is due; both anew if the permit has lapsed when it is kept."""
        note = self._due
        assert note is not None
        while True:
            await self._permits.acquire(self._longest)
            try:
                await self._keeper.note(note)
                self._kept, self._due = note, None
                if self._permits.are_good:
                    return
                await self.take_back()
            except BaseException:
                self._permits.give_up()
                raise
            self._permits.give_up()
