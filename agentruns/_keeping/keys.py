"""The journal of one client, and the keys that its streams follow."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from agentruns._aio.shield import run_shielded
from agentruns._aio.tasks import Tasks
from agentruns._api.operations import Operations
from agentruns._values.run import Run, RunRef, ToolOutput
from agentruns.errors import (
    AlreadyAnsweredError,
    APIError,
    ConfigurationError,
    ServerError,
    UnsupportedError,
)

from .digest import digest
from .journal.values import GivenAnswer
from .shared import SharedStates
from .work import Unfinished, deserialize_answer, deserialize_origin, json_text, run_text

if TYPE_CHECKING:  # imported with the first journal: `import agentruns` stays light
    from .journal import Journal, Work

_MARGIN: Final = 0.9
"""How much of the time for which a vendor remembers a key is trusted."""


class Keys:
    """The journal of one client, and the keys that its streams follow."""

    def __init__(self, journal: Journal, operations: Operations, tasks: Tasks) -> None:
        self.journal = journal
        self.shared = SharedStates(journal, tasks)
        self.vendor = operations.vendor
        self.operations = operations
        self._tasks = tasks
        self._followed: Counter[str] = Counter()
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    def lock(self, *act: str) -> asyncio.Lock:
        """Return what one stream of this client holds while it is at an act of a piece of work."""
        return self._locks.setdefault(act, asyncio.Lock())

    def key_expired(self, since: float) -> bool:
        """Tell whether the vendor no longer knows under which key it was asked so long ago, in seconds of the epoch."""
        remembered = self.vendor.KEY_SECONDS
        return remembered is not None and time.time() - since > _MARGIN * remembered

    async def close(self) -> None:
        """Close the journal, and look at what others write no more."""
        try:
            await self.shared.close()
        finally:
            await self.journal.close()

    def follow(self, key: str) -> None:
        """Count a stream that follows *key*."""
        self._followed[key] += 1

    def leave(self, key: str) -> None:
        """Leave *key* to other processes when its last stream does."""
        self._followed[key] -= 1
        if self._followed[key] <= 0:
            del self._followed[key]
            self._tasks.spawn(self.journal.release(key))

    @contextmanager
    def following(self, key: str) -> Iterator[None]:
        """Count as a stream that follows *key* as long as this is entered: the work is left to nobody meanwhile."""
        self.follow(key)
        try:
            yield
        finally:
            self.leave(key)

    @asynccontextmanager
    async def deciding(self, run: Run, outputs: Sequence[ToolOutput], *, again: bool) -> AsyncIterator[None]:
        """
        Enter answers given by hand in whatever work *run* is the last state of, while they are posted within.

        The first answer stands: raise `AlreadyAnsweredError` for another one, before anything is posted. A clear
        refusal takes back what was entered: who answers next is the first. Where the outcome is not clear, it stays.
        *again* replaces what was answered and not taken.
        """
        actions = {each.action.id: each.action for each in outputs}
        given = [
            GivenAnswer(each.action.id, each.action.name, json_text(each.output), each.is_error, digest(each.action))
            for each in outputs
        ]
        decision = await self.journal.decided(run.id, given, posting=True, again=again)
        if decision.standing:
            reason, remedy = "", "A stream under its key goes on with it"
            if not all(each.posted for each in decision.standing):
                reason = f"whether {run.vendor or 'the vendor'} has it, the journal does not say"
                remedy += ", or the same answer, which `error.standing` has; `again=True` replaces a failed one"
            standing = tuple(deserialize_answer(actions[each.action_id], each) for each in decision.standing)
            raise AlreadyAnsweredError(run, standing, reason, remedy=remedy)
        try:
            yield
        except (ConfigurationError, UnsupportedError):
            await run_shielded(self.journal.take_back(run.id, decision))
            raise
        except APIError as error:
            if not (isinstance(error, ServerError) or error.status == 408 or error.after_doubt):
                await run_shielded(self.journal.take_back(run.id, decision))
            if isinstance(error, AlreadyAnsweredError) and error.run.id != run.id:
                await run_shielded(self.moved(run, (), error.run))  # what was answered elsewhere goes on there
            raise

    async def moved(self, run: Run, outputs: Sequence[ToolOutput], resumed: Run) -> None:
        """Enter that *outputs* were taken, and what followed, in whatever work *run* is the last state of."""
        ids = [each.action.id for each in outputs]
        await self.journal.moved(run.id, ids, await run_text(resumed), done=resumed.status.is_over)

    async def origin_at(self, run: Run) -> Any:
        """Return what started the work that *run* is the last state of, None if it is not known, or not needed."""
        if not self.vendor.asks_origin():
            return None
        origins = [deserialize_origin(text, self.vendor) for text in await self.journal.origins_at(run.id)]
        return next((each for each in origins if not isinstance(each, RunRef)), None)

    def origin_of(self, run: Run, work: Work) -> Any:
        """
        Return what started the work of which *run* is a state, if its answers need that; None if they do not.

        Raise `ConfigurationError` where they do, and the work was begun with a run that existed.
        """
        if not self.vendor.asks_origin():
            return None
        kept = deserialize_origin(work.origin, self.vendor)
        return self.operations.origin_for(run, None if isinstance(kept, RunRef) else kept)

    async def unfinished(self) -> AsyncIterator[Unfinished]:
        """Iterate over the work that is not done, oldest first."""
        async for work in self.journal.unfinished():
            yield self.read(work)

    async def prune(self, older_than: float) -> int:
        """Delete the work that was done more than so many seconds ago; return how much it was."""
        return await self.journal.prune(time.time() - older_than)

    async def key_of(self, run_id: str) -> str | None:
        """Return the name of the work that is at a run of that id, or was; None if there is none."""
        work = await self.journal.of_run(run_id)
        return None if work is None else work.key

    async def forget(self, key: str) -> None:
        """Delete work, whatever became of it; raise `ConfigurationError` if somebody is at it."""
        if not await self.journal.forget(key):
            raise ConfigurationError(
                f"somebody is at the work that key {key!r} names, and it is not done",
                field="key",
                remedy="cancel its run, or wait for its end, then forget it",
            )

    async def find(self, key: str) -> Unfinished | None:
        """Return the work named *key*, done or not; None if there is none."""
        work = await self.journal.get(key)
        return None if work is None else self.read(work)

    def read(self, work: Work) -> Unfinished:
        """Return a piece of work as users see it."""
        run = None if work.run is None else Run.from_json(work.run)
        origin = deserialize_origin(work.origin, self.vendor)
        alive = work.alive and work.state != "done"
        return Unfinished(
            work.key, origin, run, alive, work.created, work.updated, work.digest, forget=partial(self.forget, work.key)
        )
