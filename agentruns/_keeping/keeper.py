"""
What a start finds out, kept before its next request; and whose run it is that was found by looking.

Two starts that could not be told apart wait for each other, whichever process they are of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from agentruns._values.commands import Checkpoint, Ownership
from agentruns.errors import JournalError

from .work import json_text

if TYPE_CHECKING:
    from .journal import Journal
    from .journal.starts import Known

_FIRST_LOOK: Final = 0.05
_LOOK_SECONDS: Final = 0.5
"""Seconds between two looks at what another start does, the first ones and the last."""

_STARTS_SECONDS: Final = 120.0
"""How long a start elsewhere is waited for whose run might be taken for ours: longer than any looks for its own."""


class StartKeeper:
    """The keeper of the start of one piece of work, for `perform`."""

    __slots__ = ("_before", "_journal", "_key", "_noted", "_stays")

    def __init__(self, journal: Journal, key: str) -> None:
        self._journal = journal
        self._key = key
        self._noted: str | None = None
        self._before: Known = ()
        self._stays = False  # though nothing was done after it, as far as is known

    async def reserve(self, note: Checkpoint) -> Ownership:
        """Have the place of the one start of a group that may be under way; wait for another one that has it."""
        if await self._journal.reserve(self._key, note.group):
            return Ownership.MINE
        for pause in poll_intervals():
            await asyncio.sleep(pause)
            if await self._journal.reserve(self._key, note.group):
                break
        return Ownership.OTHERS

    async def note(self, note: Checkpoint) -> None:
        """Keep what a start found out."""
        noted = json_text(note.data)
        before = await self._journal.checkpoint(self._key, noted, note.group, note.visible_after)
        if not self._stays:
            self._before = before
        self._noted, self._stays = noted, False

    async def take_back(self) -> None:
        """Keep what was kept before the last note."""
        if self._noted is not None:
            self._stays = True
            await self._journal.not_sent(self._key, self._noted, self._before)
            self._stays = False

    async def settle(self) -> None:
        """Try once more what `take_back` has tried in vain."""
        if self._stays:
            with suppress(JournalError):
                await self.take_back()

    @property
    def is_first(self) -> bool:
        """Tell whether a note was kept, and none was there before: what it tells of was never sent before."""
        return bool(self._before) and self._before[0] is None

    async def claim(self, run_id: str) -> Ownership:
        """Tell whose run it is that was found by looking; wait while another start may yet turn out to be its own."""
        for pause in poll_intervals():
            verdict = await self._journal.claim(self._key, run_id)
            if verdict != "open":
                return Ownership[verdict.upper()]
            await asyncio.sleep(pause)
        return Ownership.UNCLEAR


def poll_intervals() -> Iterator[float]:
    """Yield the seconds between looks at the journal, ever longer ones, until nothing is to be waited for any more."""
    waited, pause = 0.0, _FIRST_LOOK
    while waited < _STARTS_SECONDS:
        yield pause
        waited += pause
        pause = min(1.6 * pause, _LOOK_SECONDS)
