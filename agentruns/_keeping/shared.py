"""What a journal tells, as other processes write it, of work that is followed here and not driven."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from agentruns._aio.tasks import Tasks
from agentruns._values.run import Run
from agentruns.errors import AgentRunsError

from .journal.changes import JournalChanges
from .work import run_text

if TYPE_CHECKING:  # imported with the first journal
    from .journal import Journal, Work
    from .journal.values import Glance

_SURE_SECONDS: Final = 2.0
"""Seconds after which the journal is looked into in any case: a process that dies writes nothing."""


@frozen
class SharedState:
    """
    Work as the journal has it: its key, its last state, None if none is known, and who drives it.

    That is another process (`is_driven`), this one (`is_ours`), or nobody. `version` is another number after each
    change.
    """

    key: str
    run: Run[Any] | None
    is_driven: bool
    is_ours: bool
    version: float


@frozen
class ReadState:
    """
    A run as another process has read it, for all who watch: the last state, None if there is none yet.

    `is_done` says that nobody reads it any more: it is over, or goes on as another run, whose state this is.
    """

    run: Run[Any] | None
    is_done: bool
    version: float


class Change:
    """
    A wait for a change of one run, or of the work that is at it: `future` is done when there may be one.

    *seen* is that work, as it was looked at; None if there was none, then its appearance is the change. So is, of a run
    that another process reads, whatever is not as it was `read`, if that is set.
    """

    __slots__ = ("future", "read", "run_id", "seen")

    def __init__(self, run_id: str, seen: SharedState | None) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.run_id = run_id
        self.seen = seen
        self.read: ReadState | None = None

    def wake(self) -> None:
        """Have who waits look."""
        if not self.future.done():
            self.future.set_result(None)

    def is_in(self, glance: Glance) -> bool:
        """Tell whether something has changed since it was looked at."""
        if self.read is not None and glance.readings.get(self.run_id) != self.read.version:
            return True
        if self.seen is None:
            return self.run_id in glance.runs
        return glance.stands.get(self.seen.key) != (self.seen.version, self.seen.is_driven)


class SharedStates:
    """
    The states that other processes enter into the journal of one client; for one event loop at a time.

    However many wait, a change of the journal costs one brief read, and one more of each work that has changed.
    """

    def __init__(self, journal: Journal, tasks: Tasks) -> None:
        self._journal = journal
        self._tasks = tasks
        self._read_here: Counter[str] = Counter()
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

    async def read_elsewhere(self, run_id: str, seen: ReadState | None) -> ReadState | None:
        """
        Return what the process has seen that reads a run; *seen*, if that has not changed.

        None makes this process the one that reads it, for all: `share` what is seen, and call `read_no_more` once.
        """
        self._read_here[run_id] += 1
        try:
            reader = await self._journal.reading.claim(run_id)
        except BaseException:  # it may be claimed all the same
            self.read_no_more(run_id)
            raise
        if reader.is_ours:
            return None
        self._read_here[run_id] -= 1
        if seen is not None and seen.version == reader.version:
            return seen
        return ReadState(None if reader.run is None else Run.from_json(reader.run), reader.is_done, reader.version)

    async def share(self, run_id: str, run: Run[Any]) -> bool:
        """Enter a state of a run that is read here, before it is shown; return False if it is no more."""
        is_done = run.status.is_over or run.id != run_id
        return await self._journal.reading.saw(run_id, await run_text(run), is_done=is_done)

    def read_no_more(self, run_id: str) -> None:
        """Leave the reading of a run to others, unless somebody else here watches it."""
        self._read_here[run_id] -= 1
        if self._read_here[run_id] <= 0:
            del self._read_here[run_id]
            self._tasks.spawn(self._journal.reading.leave(run_id))

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
        read = {each.run_id for each in self._changes if each.read is not None}
        if not (keys or runs):
            return
        glance = await self._journal.glance(sorted(keys), sorted(runs), sorted(read))
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
    is_at_work = work.alive and work.state != "done"
    is_driven, is_ours = is_at_work and not work.mine, is_at_work and work.mine
    if seen is not None and (seen.key, seen.version, seen.is_driven) == (work.key, work.updated, is_driven):
        return seen
    run = None if work.run is None else Run.from_json(work.run)
    return SharedState(work.key, run, is_driven, is_ours, work.updated)
