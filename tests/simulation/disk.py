"""
The journal, without a disk or with one.

`MemoryDisk` is the usual one: the real `Journal` and the real SQL of `Records`, over a database in memory. What is
simulated is the thread of the file and the lock of its owner: a commit takes virtual time, lies between what was asked
and what was told, and a process that is killed leaves it done or undone.

`FileDisk` is a file, and `DatabaseDisk` a schema in PostgreSQL, written by the package's own threads under its own
locks or leases. Time stands still while a thread is at it. A process that is killed is one whose journal is closed
under it: all that was asked until then is committed.
"""

from __future__ import annotations

import abc
import asyncio
import random
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast
from uuid import uuid4

from agentruns._keeping.journal import Journal
from agentruns._keeping.journal import schema as tables
from agentruns._keeping.journal.owners import Owners
from agentruns._keeping.journal.records import Records
from agentruns._keeping.journal.session import READ
from agentruns._keeping.journal.write import Write
from agentruns._keeping.journal.writer import Writer
from agentruns.errors import JournalError

from .loop import SimLoop

T = TypeVar("T")


class SimulatedJournal(Journal, abc.ABC):
    """The journal as one process opens it, and loses it."""

    @property
    @abc.abstractmethod
    def owner(self) -> str:
        """Return the owner's id."""

    @abc.abstractmethod
    def die(self) -> None:
        """End as a process ends that is killed."""

    @abc.abstractmethod
    async def dead(self) -> None:
        """Return when it has ended."""


class Disk(Protocol):
    """What is left when a process dies."""

    full: float
    """How often a commit fails."""
    failed: int

    def journal(self, vendor: str) -> SimulatedJournal:
        """Return the journal as one process opens it."""
        ...

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return a table, for the laws to read."""
        ...

    def is_alive(self, owner: str) -> bool:
        """Tell whether an owner is still there."""
        ...

    def close(self) -> None:
        """Throw it away."""
        ...


def _rows(database: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    cursor = database.execute(f"SELECT * FROM {table} ORDER BY id")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


# In memory ----------------------------------------------------------------------------------------------------------


class MemoryDisk:
    """A database in memory, and which owners are alive."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.alive: set[str] = set()
        self.full = 0.0
        self.failed = 0
        self.opened = 0
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        tables.establish(self.database)
        self.database.execute("PRAGMA foreign_keys = ON")

    def close(self) -> None:
        self.database.close()

    def journal(self, vendor: str) -> SimulatedJournal:
        return _MemoryJournal(self, vendor)

    def is_alive(self, owner: str) -> bool:
        return owner in self.alive

    def rows(self, table: str) -> list[dict[str, Any]]:
        return _rows(self.database, table)


class Locks:
    """Stands for `Owners`: an owner is alive until its process ends or is killed."""

    def __init__(self, disk: MemoryDisk) -> None:
        disk.opened += 1
        self.me = f"{disk.opened:032x}"
        self.disk = disk

    def alive(self, owner: str) -> bool:
        """Tell whether an owner is still there."""
        return owner in self.disk.alive


class _MemoryJournal(SimulatedJournal):
    def __init__(self, disk: MemoryDisk, vendor: str) -> None:
        super().__init__("/simulated/journal.db", vendor)
        self._disk = disk
        self._desk: _Desk | None = None

    async def _open(self) -> None:
        self._desk = _Desk(self._disk, self._vendor)
        self._writer = cast("Writer", self._desk)

    @property
    def owner(self) -> str:
        return self._desk.locks.me if self._desk is not None else "nobody"

    def die(self) -> None:
        if self._desk is not None:
            self._desk.die()

    async def dead(self) -> None:
        pass


class _Desk:
    """
    Stands for `Writer`: takes writes, commits them in batches and in order, and tells.

    A commit is done some time after it was begun, and told some time after it was done.
    """

    lease = news = None

    def __init__(self, disk: MemoryDisk, vendor: str) -> None:
        self._disk = disk
        self.locks = Locks(disk)
        self._records = Records(disk.database, cast("Owners", self.locks), vendor)
        self._waiting: list[Write[Any]] = []
        self._batch: list[Write[Any]] = []
        self._done = False
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._dead = False
        self._slow = 0.02 if disk.chance.random() < 0.7 else 0.5
        disk.alive.add(self.locks.me)

    def add(self, write: Write[Any]) -> None:
        """Let *write* be part of the next commit."""
        if self._dead:
            _refuse(write)
            return
        self._waiting.append(write)
        if self._timer is None:
            self._begin()

    async def read(self, act: Callable[[Records], Any], standing: str) -> Any:
        """Return what *act* finds, in its turn among the writes."""
        write = Write(act, standing)
        self.add(write)
        return await write.future

    async def close(self) -> None:
        """Be gone when all is written."""
        await self._idle.wait()
        self._disk.alive.discard(self.locks.me)

    def die(self) -> None:
        """Be gone at once; the batch that is under way may or may not be done."""
        if not self._done and self._batch and self._disk.chance.random() < 0.5:
            self._commit()
        self._dead = True
        self._disk.alive.discard(self.locks.me)
        if self._timer is not None:
            self._timer.cancel()
        self._idle.set()

    def _begin(self) -> None:
        self._batch, self._waiting, self._done = self._waiting, [], False
        self._idle.clear()
        self._after(self._half)

    def _half(self) -> None:
        self._commit()
        self._after(self._tell)

    def _commit(self) -> None:
        self._done = True
        if self._disk.full and self._disk.chance.random() < self._disk.full:
            self._disk.failed += 1
            for write in self._batch:
                write.error = JournalError("simulated", "the disk is full", write.standing)
            return
        for write in self._batch:
            try:
                write.outcome = write.act(self._records)
            except Exception as error:
                write.error = JournalError("simulated", str(error), write.standing)

    def _tell(self) -> None:
        self._timer = None
        batch, self._batch = self._batch, []
        for write in batch:
            write.tell()
        if self._waiting:
            self._begin()
        else:
            self._idle.set()

    def _after(self, act: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + self._slow * self._disk.chance.random(), act)


def _refuse(write: Write[Any]) -> None:
    write.error = JournalError("killed", "the process is dead")
    write.tell()
    _ = write.future.cancelled() or write.future.exception()  # nobody is there to hear


# In a file, or in a database ----------------------------------------------------------------------------------------


class FileDisk:
    """A file in a folder of its own."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.full = 0.0  # never
        self.failed = 0
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "journal.db"

    def close(self) -> None:
        self._folder.cleanup()

    def journal(self, vendor: str) -> SimulatedJournal:
        return _RealJournal(self.path, vendor)

    def is_alive(self, owner: str) -> bool:
        return bool(owner) and Owners(str(self.path)).alive(owner)

    def rows(self, table: str) -> list[dict[str, Any]]:
        database = sqlite3.connect(self.path)
        try:
            return _rows(database, table)
        finally:
            database.close()


class DatabaseDisk:
    """A schema of its own in the database at *url*."""

    def __init__(self, chance: random.Random, url: str) -> None:
        import psycopg  # only whoever plays with a database needs it

        self.chance = chance
        self.full = 0.0  # never
        self.failed = 0
        self._schema = f"s{uuid4().hex}"
        self._url = f"{url.partition('?')[0]}?schema={self._schema}"
        self._connection = psycopg.connect(url.partition("?")[0], autocommit=True)

    def close(self) -> None:
        self._connection.execute(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE")
        self._connection.close()

    def journal(self, vendor: str) -> SimulatedJournal:
        return _RealJournal(self._url, vendor)

    def is_alive(self, owner: str) -> bool:
        return bool(owner) and any(row["id"] == owner for row in self.rows("owner"))

    def rows(self, table: str) -> list[dict[str, Any]]:
        if self._connection.execute("SELECT to_regnamespace(%s)", (self._schema,)).fetchone() == (None,):
            return []  # nobody has opened the journal
        cursor = self._connection.execute(f"SELECT * FROM {self._schema}.{table} ORDER BY id")
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


class _RealJournal(SimulatedJournal):
    def __init__(self, path: Path | str, vendor: str) -> None:
        super().__init__(path, vendor)
        self._dead = False
        self._closing: asyncio.Task[None] | None = None

    @property
    def owner(self) -> str:
        return "nobody" if self._writer is None else self._writer.owner

    def write(self, act: Callable[[Records], Any], standing: str) -> Write[Any]:
        if self._dead:
            write = Write(act, standing)
            _refuse(write)
            return write
        write = super().write(act, standing)
        loop = _loop()
        loop.threads += 1
        write.future.add_done_callback(lambda _: _count_down(loop))
        return write

    async def read(self, act: Callable[[Records], T]) -> T:
        if self._dead:
            return cast("T", await self.write(act, READ).future)
        return await _at_once(super().read(act))

    async def _open(self) -> None:
        await _at_once(super()._open())

    async def _close(self) -> None:
        await _at_once(super()._close())

    def die(self) -> None:
        self._dead = True

    async def dead(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await _at_once(writer.close())


def _loop() -> SimLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return loop


def _count_down(loop: SimLoop) -> None:
    loop.threads -= 1


async def _at_once(work: Awaitable[T]) -> T:
    """Await what a thread does, while time stands still."""
    loop = _loop()
    loop.threads += 1
    try:
        return await work
    finally:
        loop.threads -= 1
