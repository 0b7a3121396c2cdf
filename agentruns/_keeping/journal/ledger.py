"""The open file: what waits is written by one transaction, so that many tasks share one wait for the disk."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from agentruns.errors import JournalError

from . import schema
from .owners import Owners, identity
from .problems import NO_LOCKS, UnfitError, reason
from .records import Records
from .write import Write

PATIENCE = 10.0
"""Seconds to wait for another program that keeps the file locked."""

_NAP: Final = 0.01
"""Seconds that SQLite waits by itself: it looks ever more seldom, and would miss a file that is hardly ever free."""


class Ledger(sqlite3.Connection):
    """A connection that carries out batches of writes, each as one transaction. For use in the thread that made it."""

    lease: None = None
    news: None = None
    idle_seconds: None = None

    def __init__(self, path: str, vendor: str, owners: Owners) -> None:
        super().__init__(path, isolation_level=None, timeout=_NAP)
        self._path = path
        self._owners = owners
        self._records = Records(self, owners, vendor)
        self._identity: tuple[int, int] | None = None

    @property
    def owner(self) -> str:
        """Return the id of the owner that this open file is."""
        return self._owners.me

    def prepare(self) -> None:
        """Make the file a journal that is safe to write to; raise `UnfitError` where it cannot be one."""
        self._patiently("PRAGMA synchronous = FULL")  # the first to touch the file: another may be putting it in order
        self._patiently("BEGIN IMMEDIATE")
        changed = schema.establish(self)
        self._owners.sweep()
        self.execute("COMMIT" if changed else "ROLLBACK")
        self.execute("PRAGMA foreign_keys = ON")
        # Only now, so that the header of the file itself, not of its log, says whose it is from the start.
        if self._patiently("PRAGMA journal_mode = WAL") != "wal":
            raise UnfitError(NO_LOCKS)
        self._identity = identity(self._path)

    def snapshots(self) -> None:
        """Return None: who is there is told under the lock, and a commit is short."""

    def version(self) -> int:
        """Return a number that changes whenever another connection has written to the file."""
        return int(self.execute("PRAGMA data_version").fetchone()[0])

    def carry_out(self, batch: Sequence[Write[Any]]) -> None:
        """Commit a batch. Each write is told what became of it; nothing is raised."""
        self._carry_out(batch)

    def idle(self) -> None:
        """Do nothing: the lock of the owner's file says that it is there."""

    def compact(self) -> None:
        """Give room that is not used back to the disk, unless others are at the file or the disk is full."""
        with suppress(sqlite3.OperationalError):
            self.execute("VACUUM")
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        """Close the file, and be gone."""
        try:
            super().close()
        finally:
            self._owners.leave()

    def _carry_out(self, batch: Sequence[Write[Any]]) -> None:
        try:
            self._patiently("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self._fail(batch, error)
            return
        self._owners.look_again()
        try:
            for write in batch:
                write.outcome = write.act(self._records)
            self.execute("COMMIT")
        except Exception as error:
            with suppress(sqlite3.Error):  # a full disk may have ended it already
                self.execute("ROLLBACK")
            if len(batch) == 1:
                self._fail(batch, error)
            else:
                for write in batch:  # one by one: only what is to blame fails
                    self._carry_out([write])
            return
        if lost := self._lost():
            self._fail(batch, UnfitError(lost))

    def _lost(self) -> str:
        """Say which file is not where it was: what is written then can be found by nobody, or is not believed."""
        if identity(self._path) != self._identity:
            return "the file was deleted or replaced while it was in use; put it back, and start the program again"
        if not self._owners.intact():
            return "its lock file was deleted, and others take this process for dead; start the program again"
        return ""

    def _fail(self, batch: Sequence[Write[Any]], error: Exception) -> None:
        if isinstance(error, sqlite3.Error) and (lost := self._lost()):
            error = UnfitError(lost)
        for write in batch:
            write.outcome = None
            write.error = JournalError(self._path, reason(error), write.standing)
            write.error.__cause__ = error

    def _patiently(self, sql: str) -> Any:
        """Execute *sql* as soon as others release the file; return the first value."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                row = self.execute(sql).fetchone()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_NAP / 10)  # it may have refused at once
            else:
                return row and row[0]
