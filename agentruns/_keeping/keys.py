"""The journal of one client, and the keys that its streams follow."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from agentruns._aio.tasks import Tasks
from agentruns._api.operations import Operations
from agentruns._values.run import Run, ToolOutput

from .work import Unfinished, deserialize_origin, json_text

if TYPE_CHECKING:  # imported with the first journal: `import agentruns` stays light
    from .journal import Journal, Work

_MARGIN: Final = 0.9
"""How much of the time for which a vendor remembers a key is trusted."""


class Keys:
    """The journal of one client, and the keys that its streams follow."""

    def __init__(self, journal: Journal, operations: Operations, tasks: Tasks) -> None:
        self.journal = journal
        self.dialect = operations.dialect
        self.operations = operations
        self._tasks = tasks
        self._followed: Counter[str] = Counter()
        self._locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()

    def lock(self, *act: str) -> asyncio.Lock:
        """Return what one stream of this client holds while it is at an act of a piece of work."""
        return self._locks.setdefault(act, asyncio.Lock())

    def key_expired(self, since: float) -> bool:
        """Tell whether the vendor no longer knows under which key it was asked so long ago, in seconds of the epoch."""
        remembered = getattr(self.dialect, "KEY_SECONDS", None)
        return remembered is not None and time.time() - since > _MARGIN * remembered

    def follow(self, key: str) -> None:
        """Count a stream that follows *key*."""
        self._followed[key] += 1

    def leave(self, key: str) -> None:
        """Leave *key* to other processes when its last stream does."""
        self._followed[key] -= 1
        if self._followed[key] <= 0:
            del self._followed[key]
            self._tasks.spawn(self.journal.release(key))

    async def decided(self, run: Run, outputs: Sequence[ToolOutput]) -> None:
        """Enter answers given by hand, before they are posted, in whatever work *run* is the last state of."""
        answers = [(each.action.id, each.action.name, json_text(each.output), each.is_error) for each in outputs]
        await self.journal.decided(run.id, answers, posting=True)

    async def moved(self, run: Run, resumed: Run) -> None:
        """Enter that a run was answered by hand, in whatever work it is the last state of."""
        over = resumed.status.is_over
        await self.journal.moved(run.id, resumed.to_json(), done=over)

    async def unfinished(self) -> AsyncIterator[Unfinished]:
        """Iterate over the work that is not done, oldest first."""
        async for work in self.journal.unfinished():
            yield self._read(work)

    async def find(self, key: str) -> Unfinished | None:
        """Return the work named *key*, done or not; None if there is none."""
        work = await self.journal.get(key)
        return None if work is None else self._read(work)

    async def origin_of(self, key: str) -> Any:
        """Return what started the work named *key*; None if there is none."""
        work = await self.journal.get(key)
        return None if work is None else deserialize_origin(work.origin, self.dialect)

    def _read(self, work: Work) -> Unfinished:
        run = None if work.run is None else Run.from_json(work.run)
        origin = deserialize_origin(work.origin, self.dialect)
        return Unfinished(work.key, origin, run, work.alive, work.created, work.updated)
