"""An SQLite file that is only read: by whoever did not make it, so that it may be anything."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from agentruns.errors import ConfigurationError, JournalError

from . import schema
from .owners import Owners, identity
from .problems import UnfitError, reason
from .queries import SQLITE_READING, EntryQueries
from .store import READ_SECONDS

T = TypeVar("T")

_STEPS: Final = 20_000
"""Instructions of SQLite between two looks at the time."""


class FileReader:
    """A connection that reads the file at *path*; raise `ConfigurationError` for what is no journal."""

    news = None

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._owners = Owners(path)
        self._deadline = math.inf
        try:
            self._connection = self._opened()
            self._identity = identity(path)
        except (OSError, sqlite3.Error, UnfitError) as error:
            raise ConfigurationError(f"cannot open the journal {path}: {reason(error)}") from error
        self._connection.set_progress_handler(self._is_late, _STEPS)
        self._queries = EntryQueries(self._connection, SQLITE_READING)

    def _opened(self) -> sqlite3.Connection:
        if not self._path.is_file():
            raise UnfitError("there is no such file; `connect(..., journal=path)` makes one")
        opened = sqlite3.connect(f"{self._path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=1.0)
        try:
            if schema.judge(opened) < len(schema.STEPS):
                raise UnfitError("an older agentruns made it; open it once by `connect(..., journal=path)`")
        except BaseException:
            opened.close()
            raise
        return opened

    def version(self) -> int:
        """Return a number that changes whenever another connection has written."""
        return self._in_time(lambda: int(self._connection.execute("PRAGMA data_version").fetchone()[0]))

    def read(self, read: Callable[[EntryQueries], T]) -> T:
        """Return what *read* finds, all of it of one moment; raise `JournalError`."""
        return self._in_time(lambda: self._read(read))

    def alive(self, owners: set[str]) -> set[str]:
        """Return which of *owners* are there; all of them, while somebody keeps the journal locked."""
        return self._in_time(lambda: self._alive(owners))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    # ------------------------------------------------------------------------------------------------------------------

    def _in_time(self, act: Callable[[], T]) -> T:
        if identity(self._path) != self._identity:
            raise JournalError(str(self._path), "it was deleted or replaced; open the new one instead", "")
        self._deadline = time.monotonic() + READ_SECONDS
        try:
            return act()
        except sqlite3.Error as error:
            is_late = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
            why = f"reading it took more than {READ_SECONDS:g} s" if is_late else str(error)
            raise JournalError(str(self._path), why, "") from error
        finally:
            self._deadline = math.inf

    def _is_late(self) -> bool:
        """Tell SQLite, which asks now and then, whether to give up."""
        return time.monotonic() > self._deadline

    def _read(self, read: Callable[[EntryQueries], T]) -> T:
        self._connection.execute("BEGIN")
        try:
            return read(self._queries)
        finally:
            if self._connection.in_transaction:  # some errors end it
                self._connection.execute("ROLLBACK")

    def _alive(self, owners: set[str]) -> set[str]:
        try:
            # Looking takes an owner's lock for a moment; under the write lock nobody else looks meanwhile.
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return owners
        try:
            self._owners.look_again()
            return {owner for owner in owners if self._owners.alive(owner)}
        finally:
            self._connection.execute("ROLLBACK")
