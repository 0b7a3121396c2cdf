"""From what users write to the store that it means. A third store is one more scheme here, and a package of its own."""

from __future__ import annotations

import os

from attrs import frozen

from agentruns import _extras as extras
from agentruns.errors import ConfigurationError

from .postgres.address import SCHEMES, Database, database
from .store import Ledger, LedgerReader, Location


@frozen
class File:
    """An SQLite file; *name* is its absolute path."""

    name: str

    def open(self, vendor: str) -> Ledger:
        """Open the file, made if there is none; raise as `Location.open` does, and where the extra is missing."""
        with extras.require("journal", "a journal needs"):
            from .opening import opened
        return opened(self.name, vendor)

    def open_reader(self) -> LedgerReader:
        """Open the file to read it; raise as `Location.open_reader` does, and where the extra is missing."""
        with extras.require("journal", "a journal needs"):
            from .file_reader import FileReader
        return FileReader(self.name)


@frozen
class InDatabase:
    """Tables in a PostgreSQL database."""

    database: Database

    @property
    def name(self) -> str:
        """Return the URL of the database, without user, password and options."""
        return self.database.name

    def open(self, vendor: str) -> Ledger:
        """Open the tables, made if there are none; raise as `Location.open` does, and where the extra is missing."""
        with extras.require("postgres", "a journal in PostgreSQL needs"):
            from .postgres.opening import opened
        return opened(self.database, vendor)

    def open_reader(self) -> LedgerReader:
        """Open the tables to read them; raise as `Location.open_reader` does, and where the extra is missing."""
        with extras.require("postgres", "a journal in PostgreSQL needs"):
            from .postgres.reader import PostgresReader
        return PostgresReader(self.database)


def is_database(address: str) -> bool:
    """Tell whether a journal is in a database, which processes on several machines may share; else it is a file."""
    return address.startswith(SCHEMES)


def location(address: object) -> Location:
    """Return where the journal is; raise `ConfigurationError` for what cannot name one."""
    if isinstance(address, str) and is_database(address):
        return InDatabase(database(address))
    if isinstance(address, str | bytes | os.PathLike):
        name = os.fsdecode(address)
        if name not in {"", ":memory:"} and "\0" not in name and is_unicode(name, "surrogateescape"):
            return File(os.path.realpath(name))  # one file, one name: the owners' files stand beside it
    raise ConfigurationError(f"journal is {address!r}; it must be the path of a file, or a URL postgresql://...")


def is_unicode(text: str, errors: str = "strict") -> bool:
    """Tell whether UTF-8 can carry a text, with what *errors* allows."""
    try:
        text.encode(errors=errors)
    except UnicodeEncodeError:
        return False
    return True
