"""Many tasks, one disk: writes that come while a commit is under way share the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from agentruns.errors import JournalError

from .problems import reason
from .thread import ConnectionThread
from .write import Write

if TYPE_CHECKING:
    from .lease import Lease
    from .records import Records
    from .store import Ledger, Location, News

T = TypeVar("T")

logger = logging.getLogger("agentruns")


async def connect(location: Location, vendor: str) -> Writer:
    """Open the store; must not be cancelled. Raise as `Location.open` does."""
    thread = ConnectionThread()

    def opened() -> Ledger:
        ledger = location.open(vendor)
        if ledger.idle_seconds is not None:
            thread.when_idle(ledger.idle_seconds, ledger.idle)
        return ledger

    try:
        return Writer(await thread.do(opened), thread, location.name)
    except BaseException:
        thread.close()
        raise


class Writer:
    """
    Hands writes to the store in batches, in the order in which they came. Its task exists only while there are any.

    *ledger* is the open store, which errors call *name*; it is touched in *thread* only.
    """

    def __init__(self, ledger: Ledger, thread: ConnectionThread, name: str) -> None:
        self._ledger = ledger
        self._name = name
        self._thread = thread
        self._snapshots = ledger.snapshots()
        self._reading = ConnectionThread()
        self._waiting: list[Write[Any]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def owner(self) -> str:
        """Return the id of the owner that this open store is."""
        return self._ledger.owner

    def add(self, write: Write[Any]) -> None:
        """Let *write* be part of the next commit."""
        self._waiting.append(write)
        if self._task is None:
            self._start()

    async def read(self, act: Callable[[Records], T], standing: str) -> T:
        """Return what *act* finds: beside the writes that are under way, where the store can, else in their turn."""
        snapshots = self._snapshots
        if snapshots is not None:
            return await self._reading.do(partial(snapshots.read, act, standing))
        write = Write(act, standing)
        self.add(write)
        found: T = await write.future
        return found

    @property
    def lease(self) -> Lease | None:
        """Return for how long the owner may act; None where nobody counts that."""
        return self._ledger.lease

    @property
    def news(self) -> News | None:
        """Return what tells of the writes of others; None where one must look, by `version`."""
        return self._ledger.news

    async def version(self) -> int:
        """Return a number that changes whenever another connection has written; wait for no lock."""
        if self._ledger.news is not None:
            return self._ledger.news.version()
        return await self._thread.do(self._ledger.version)

    async def compact(self) -> None:
        """Give room that is not used back, where that costs others nothing."""
        await self._thread.do(self._ledger.compact)

    async def close(self) -> None:
        """Close the store when everything is written that was added."""
        while self._task is not None:
            await asyncio.wait([self._task])
        if self._snapshots is not None:
            await self._reading.do(self._snapshots.close)
            self._reading.close()
        try:
            await self._thread.do(self._ledger.close)
        finally:
            self._thread.close()

    def _start(self) -> None:
        self._task = asyncio.create_task(self._commit_all(), name="agentruns: commit to the journal")

    async def _commit_all(self) -> None:
        batch: list[Write[Any]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    await self._thread.do(partial(self._ledger.carry_out, batch))
                except Exception as error:  # a mistake of the store: what it has done is not known
                    logger.exception("a journal cannot be written")
                    for each in batch:
                        each.error = each.error or JournalError(self._name, reason(error), each.standing)
                for each in batch:
                    each.tell()
        finally:
            self._task = None
            for each in batch:  # all were told, unless somebody cancelled this task; then they are still written
                each.future.cancel()
            if self._waiting:
                self._start()
