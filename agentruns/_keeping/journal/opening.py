"""From a path to an open journal, or to an error that says what is wrong, with every file left as it was."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from agentruns.errors import ConfigurationError

from . import ledger, schema
from .owners import Owners
from .problems import UnfitError, reason

_making: Final = threading.Lock()


def opened(path: str, vendor: str) -> ledger.Ledger:
    """Open the journal at *path*, made if there is none; raise `ConfigurationError`."""
    try:
        _look_at_place(Path(path))
        _look_at_header(path)
        owners = Owners(path)
        try:
            owners.enter()
            _make(path)
            _look_for_damage(path)
            return _prepared(ledger.Ledger(path, vendor, owners))
        except BaseException:
            owners.leave()
            raise
    except (OSError, ValueError, sqlite3.Error, UnfitError) as error:
        raise ConfigurationError(f"cannot open the journal {path}: {reason(error)}") from error


def _prepared(made: ledger.Ledger) -> ledger.Ledger:
    try:
        made.prepare()
    except BaseException:
        sqlite3.Connection.close(made)
        raise
    return made


def _look_at_place(path: Path) -> None:
    if path.is_dir():
        raise UnfitError(f"it is a folder; pass the path of a file in it, such as {path / 'journal.db'}")
    if not path.parent.is_dir():
        raise UnfitError(f"there is no folder {path.parent}; create it, or use another path")
    if path.exists() and not path.is_file():
        raise UnfitError("it is not a regular file; use another path")


def _look_at_header(path: str) -> None:
    """
    Refuse a file of somebody else before anything is touched.

    Told that it is immutable, SQLite puts no files beside it and rolls nothing back. What it cannot read so is looked
    at again under its locks. Reading the bytes ourselves would not do: closing a file ends this process's locks on it.
    """
    size = Path(path).stat().st_size if Path(path).exists() else 0
    if size:
        with suppress(sqlite3.DatabaseError), closing(_reader(path, "mode=ro&immutable=1")) as reader:
            if not reader.execute("PRAGMA page_count").fetchone()[0]:  # SQLite takes a single byte for nothing
                raise UnfitError("it is not an SQLite file; use another path")
            schema.judge(reader)


def _make(path: str) -> None:
    """Create the file if there is none, for its owner only; what SQLite puts beside it gets the same mode."""
    with _making:  # nobody else in this process may have it locked while it is closed here
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            if not Path(path).stat().st_size:
                Path(path).chmod(0o600)
            return
    with suppress(OSError):  # not every system can sync a folder
        folder = os.open(Path(path).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _look_for_damage(path: str) -> None:
    """
    Refuse a damaged file, through a connection that cannot write, not even when it closes.

    The indexes are looked at, too: with a damaged one, work could be begun twice.
    """
    try:
        with closing(_reader(path, "mode=ro")) as reader:
            found = reader.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK:
            return  # whoever made it died half-way: the next connection clears that away
        raise
    if found != "ok":
        raise UnfitError(f"it is damaged ({found}); restore it from a backup, or use another path")


def _reader(path: str, how: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{Path(path).as_uri()}?{how}", uri=True, timeout=ledger.PATIENCE)
