"""The tables in a database that are only read: the rights to read them are enough."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import psycopg

from agentruns._keeping.journal.problems import UnfitError
from agentruns._keeping.journal.queries import EntryQueries, ReadSpelling
from agentruns._keeping.journal.store import READ_SECONDS
from agentruns.errors import ConfigurationError, JournalError

from . import schema
from .address import Database
from .connection import connection_to
from .listener import Listener
from .owners import living
from .problems import is_lost, reason_of
from .snapshots import Snapshots
from .tables import POSTGRES, PostgresTables

T = TypeVar("T")


class PostgresReader:
    """A connection that reads, made anew where it is lost; raise `ConfigurationError` for what is no journal."""

    def __init__(self, place: Database) -> None:
        self._place = place
        self._snapshots = Snapshots(place)
        self.news = Listener(place.channel, "", partial(connection_to, place))
        try:
            schema.judge(self._snapshots.connect(), place)
        except (psycopg.Error, UnfitError) as error:
            self.close()
            raise ConfigurationError(f"cannot open the journal {place.name}: {reason_of(error)}") from error

    def version(self) -> int:
        """Return a number that changes whenever another connection has written."""
        return self.news.version()

    def read(self, read: Callable[[EntryQueries], T]) -> T:
        """Return what *read* finds, all of it of one moment; raise `JournalError`."""
        spelling = spelling_of(self._place.prefix)
        return self._in_time(lambda tables: read(EntryQueries(tables, spelling)))

    def alive(self, owners: set[str]) -> set[str]:
        """Return which of *owners* are there."""
        return self._in_time(lambda tables: living(tables, owners, self._place.lease_seconds))

    def close(self) -> None:
        """Close the connections."""
        self.news.close()
        self._snapshots.close()

    # ------------------------------------------------------------------------------------------------------------------

    def _in_time(self, read: Callable[[PostgresTables], T]) -> T:
        try:
            try:
                return self._snapshots.read(read)
            except psycopg.Error as error:
                if not is_lost(error):
                    raise
                return self._snapshots.read(read)  # by a new connection: the database may have been restarted since
        except psycopg.errors.QueryCanceled as error:
            raise JournalError(self._place.name, f"reading it took more than {READ_SECONDS:g} s", "") from error
        except psycopg.Error as error:
            raise JournalError(self._place.name, reason_of(error), "") from error


def spelling_of(prefix: str) -> ReadSpelling:
    """Return how PostgreSQL spells what is read, where the names of the tables begin so."""

    def of_run(path: str) -> str:
        return f'"{prefix}json_text"(run, {", ".join(f"{name!r}" for name in path.split("."))})'

    return ReadSpelling(
        is_json=f""""{prefix}json_text"(run, VARIADIC '{{}}') IS NOT NULL""",
        of_run=of_run,
        status=POSTGRES.status,
        position="strpos",
    )
