"""What a journal tells, as other processes write it, of work that is followed here and not driven."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from agentruns._aio.changed import Changed
from agentruns._values.run import Run
from agentruns.errors import AgentRunsError

from .journal.changes import JournalChanges

if TYPE_CHECKING:  # imported with the first journal
    from .journal import Journal, Work

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


class SharedStates:
    """The states that other processes enter into the journal of one client; for one event loop at a time."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._changed = Changed()
        self._others = JournalChanges(
            journal.version, self._on_change, self._on_error, at_most=_SURE_SECONDS, pause=journal.pause
        )

    @contextmanager
    def change(self) -> Iterator[asyncio.Future[None]]:
        """Give a future that is done when something may have changed; take it before you look."""
        with self._changed.waiter() as change, self._others.watching():
            yield change

    async def of_run(self, run_id: str, seen: SharedState | None = None) -> SharedState | None:
        """Return the work that is at a run of that id, or was; *seen*, if it has not changed; None if there is none."""
        return _state(await self._journal.of_run(run_id), seen)

    async def of_key(self, key: str, seen: SharedState | None = None) -> SharedState | None:
        """Return the work that has the name *key*; else as `of_run`."""
        return _state(await self._journal.get(key), seen)

    async def close(self) -> None:
        """Look no more."""
        await self._others.close()

    async def _on_change(self) -> None:
        self._changed.notify()

    def _on_error(self, _: AgentRunsError) -> None:
        """Have those who wait look, and see the error for themselves."""
        self._changed.notify()


def _state(work: Work | None, seen: SharedState | None) -> SharedState | None:
    if work is None:
        return None
    is_driven = work.alive and not work.mine and work.state != "done"
    if seen is not None and (seen.key, seen.version, seen.is_driven) == (work.key, work.updated, is_driven):
        return seen
    return SharedState(work.key, None if work.run is None else Run.from_json(work.run), is_driven, work.updated)
