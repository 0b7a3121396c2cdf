"""What a journal tells, as other processes write it, of work that is followed here and not driven."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from agentruns._values.run import Run
from agentruns.errors import AgentRunsError

from .journal.changes import JournalChanges

if TYPE_CHECKING:  # imported with the first journal
    from .journal import Journal, Work
    from .journal.values import Glance

_SURE_SECONDS: Final = 2.0
"""Seconds after which the journal is looked into in any case: a process that dies writes nothing."""


@frozen
class SharedState:
    """
    Work as the journal has it: its key, its last state, None if none is known, and whether another process drives it.

    `version` is another number after each change.
    """

    key: str
    run: Run[Any] | None
    is_driven: bool
    version: float


class Change:
    """
    A wait for a change of one run, or of the work that is at it: `future` is done when there may be one.

    *seen* is that work, as it was looked at; None if there was none, then its appearance is the change.
    """

    __slots__ = ("future", "run_id", "seen")

    def __init__(self, run_id: str, seen: SharedState | None) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.run_id = run_id
        self.seen = seen

    def wake(self) -> None:
        """Have who waits look."""
        if not self.future.done():
            self.future.set_result(None)

    def is_in(self, glance: Glance) -> bool:
        """Tell whether something has changed since it was looked at."""
        if self.seen is None:
            return self.run_id in glance.runs
        return glance.stands.get(self.seen.key) != (self.seen.version, self.seen.is_driven)


class SharedStates:
    """
    The states that other processes enter into the journal of one client; for one event loop at a time.

    However many wait, a change of the journal costs one brief read, and one more of each work that has changed.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._changes: set[Change] = set()
        self._looks = 0
        self._reads: dict[str, tuple[int, asyncio.Task[Work | None]]] = {}
        self._others = JournalChanges(
            journal.version, self._on_change, self._on_error, at_most=_SURE_SECONDS, pause=journal.pause
        )

    @contextmanager
    def change(self, run_id: str = "", seen: SharedState | None = None) -> Iterator[Change]:
        """Give a wait for a change; take it before you look, and tell it by `seen` what you saw."""
        change = Change(run_id, seen)
        self._changes.add(change)
        try:
            with self._others.watching():
                yield change
        finally:
            self._changes.discard(change)

    async def of_run(self, run_id: str, seen: SharedState | None = None) -> SharedState | None:
        """Return the work that is at a run of that id, or was; *seen*, if it has not changed; None if there is none."""
        return _state(await self._journal.of_run(run_id), seen)

    async def of_key(self, key: str, seen: SharedState | None = None) -> SharedState | None:
        """Return the work that has the name *key*; else as `of_run`. Those who ask at the same time share a read."""
        looks, reading = self._reads.get(key, (-1, None))
        if reading is None or looks != self._looks:  # else it was begun after the last change that was seen
            reading = asyncio.create_task(self._journal.get(key), name="agentruns: read work that others do")
            self._reads[key] = self._looks, reading
            reading.add_done_callback(partial(self._has_read, key))
        return _state(await asyncio.shield(reading), seen)

    def _has_read(self, key: str, reading: asyncio.Task[Work | None]) -> None:
        if self._reads.get(key, (0, None))[1] is reading:
            del self._reads[key]
        if not reading.cancelled():
            reading.exception()  # told to those who still wait

    async def close(self) -> None:
        """Look no more."""
        await self._others.close()
        if reading := [each for _, each in self._reads.values()]:
            await asyncio.wait(reading)

    async def _on_change(self) -> None:
        self._looks += 1
        keys = {each.seen.key for each in self._changes if each.seen is not None}
        runs = {each.run_id for each in self._changes if each.seen is None}
        if not (keys or runs):
            return
        glance = await self._journal.glance(sorted(keys), sorted(runs))
        for change in tuple(self._changes):
            if change.is_in(glance):
                change.wake()

    def _on_error(self, _: AgentRunsError) -> None:
        """Have those who wait look, and see the error for themselves."""
        for change in self._changes:
            change.wake()


def _state(work: Work | None, seen: SharedState | None) -> SharedState | None:
    if work is None:
        return None
    is_driven = work.alive and not work.mine and work.state != "done"
    if seen is not None and (seen.key, seen.version, seen.is_driven) == (work.key, work.updated, is_driven):
        return seen
    return SharedState(work.key, None if work.run is None else Run.from_json(work.run), is_driven, work.updated)
