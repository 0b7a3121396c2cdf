"""A second connection, which reads what is there at one moment and waits for no lock: not for those who write."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import psycopg

from agentruns._keeping.journal.records import Records
from agentruns._keeping.journal.store import READ_SECONDS
from agentruns.errors import JournalError

from .address import Database
from .connection import connection_to
from .owners import Leases, living
from .problems import is_lost, reason_of
from .tables import POSTGRES, PostgresTables

T = TypeVar("T")

_PAUSE: Final = 0.1


class Snapshots:
    """A connection that reads, each time as of one moment; for use in one thread."""

    def __init__(self, place: Database) -> None:
        self._place = place
        self._connection: psycopg.Connection[Any] | None = None

    def connect(self) -> psycopg.Connection[Any]:
        """Return the connection, made anew where it was lost."""
        if self._connection is None or self._connection.closed:
            self._connection = connection_to(self._place)
            self._connection.execute(f"SET statement_timeout = '{READ_SECONDS:g}s'")
        return self._connection

    def read(self, read: Callable[[PostgresTables], T]) -> T:
        """Return what *read* finds within a transaction; raise what goes wrong."""
        try:
            connection = self.connect()
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                return read(PostgresTables(connection, self._place.prefix))
            finally:
                if not connection.closed:
                    connection.execute("ROLLBACK")
        except psycopg.Error as error:
            if is_lost(error):
                self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()


class RecordsReader:
    """What the records of one vendor are while others write them, as the owner sees it whose *leases* those are."""

    def __init__(self, place: Database, vendor: str, leases: Leases, patience: float) -> None:
        self._name = place.name
        self._snapshots = Snapshots(place)
        self._vendor = vendor
        self._leases = leases
        self._patience = patience

    def read(self, act: Callable[[Records], T], standing: str) -> T:
        """Return what *act* finds, all of it of one moment; raise `JournalError`. A restart is waited for."""
        ends = time.monotonic() + self._patience
        while True:
            try:
                return self._snapshots.read(
                    lambda tables: act(Records(tables, _Owners(tables, self._leases), self._vendor, POSTGRES))
                )
            except Exception as error:
                if not is_lost(error) or time.monotonic() > ends:
                    raise JournalError(self._name, reason_of(error), standing) from error
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Close the connection."""
        self._snapshots.close()


class _Owners:
    """Who is alive at the moment that is read."""

    def __init__(self, tables: PostgresTables, leases: Leases) -> None:
        self.me = leases.me
        self.part_seconds = leases.part_seconds
        self._tables = tables
        self._lease_seconds = leases.lease.seconds
        self._seen: dict[str, bool] = {}

    def alive(self, owner: str) -> bool:
        """Tell whether *owner* may still act."""
        if owner not in self._seen:
            is_there = owner == self.me or (owner != "" and bool(living(self._tables, {owner}, self._lease_seconds)))
            self._seen[owner] = is_there
        return self._seen[owner]

    def now(self) -> float:
        """Return the time of the database."""
        return float(self._tables.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()[0])
