"""
The open database: what waits is written by one transaction, and a connection that is lost is made anew.

Transactions come one after the other, under one lock of the database. A connection may be lost at any moment. What was
not committed is done again. Whether a commit has happened of which no answer came, the owner's row tells, which counts
them: the number of a transaction would not, since a database that has crashed may give it to another one. So nothing is
done twice, and nothing is lost.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final
from uuid import uuid4

import psycopg
from attrs import frozen

from agentruns._keeping.journal.lease import Lease, clock
from agentruns._keeping.journal.records import Records
from agentruns._keeping.journal.write import Write
from agentruns.errors import JournalError

from . import schema
from .address import Database
from .connection import connection_to
from .listener import Listener
from .owners import Leases
from .problems import is_lost, reason_of
from .snapshots import RecordsReader
from .tables import POSTGRES, PostgresTables

PATIENCE: Final = 10.0
"""Seconds to wait for a database that restarts or cannot be reached, and for others that keep its tables locked."""

_FIRST_PAUSE: Final = 0.05
_LAST_PAUSE: Final = 1.0
_FORGET_SECONDS: Final = 3600.0
"""When the row of an owner that is gone is deleted."""

_FORGET: Final = "DELETE FROM owner WHERE expires < clock_timestamp() - make_interval(secs => ?)"
_COUNT: Final = "UPDATE owner SET commits = ? WHERE id = ?"

_LONGEST_SECONDS: Final = 0.03
"""How long one transaction keeps the others waiting, but for one write that takes longer: an answer is among them."""


@frozen
class _Doubt:
    """A commit that was not answered: whose, which one of its commits, and how many writes it has done if it was."""

    owner: str
    commits: int
    writes: int


class PostgresLedger:
    """A connection that carries out batches of writes, each as one transaction. For use in one thread."""

    def __init__(self, place: Database, vendor: str) -> None:
        self.idle_seconds = place.lease_seconds / 5
        self._place = place
        self._vendor = vendor
        self._owners = Leases(place.lease_seconds)
        self._name = uuid4().hex
        self.news = Listener(place.channel, self._name, partial(connection_to, place))
        self._connection: psycopg.Connection[Any] | None = None
        self._backend: tuple[int, str] | None = None  # what serves the connection: its process, and since when
        self._commits = 0
        self._doubt: _Doubt | None = None

    @property
    def owner(self) -> str:
        """Return the id of the owner that this open store is."""
        return self._owners.me

    @property
    def lease(self) -> Lease:
        """Return for how long this owner may act."""
        return self._owners.lease

    def snapshots(self) -> RecordsReader:
        """Return what reads in another thread, by a connection of its own, while this one writes."""
        return RecordsReader(self._place, self._vendor, self._owners, PATIENCE)

    def prepare(self) -> None:
        """Connect, and make or check the tables; raise what goes wrong."""
        connection = self._connected()
        with connection.transaction():
            schema.establish(connection, self._place)
            PostgresTables(connection, self._place.prefix).execute(_FORGET, (_FORGET_SECONDS,))
        self._commit([])

    def version(self) -> int:
        """Return a number that changes whenever another connection has written."""
        return self.news.version()

    def carry_out(self, batch: Sequence[Write[Any]]) -> None:
        """Commit a batch. Each write is told what became of it; nothing is raised."""
        if batch:
            self._carry_out(batch)

    def idle(self) -> None:
        """Renew the lease, while there is nothing else to do."""
        with suppress(psycopg.Error):
            self._patiently([], patience=0.0)

    def compact(self) -> None:
        """Leave that to the database, which does so by itself."""

    def close(self) -> None:
        """Be gone, and close the connections."""
        with suppress(psycopg.Error):
            tables = PostgresTables(self._connected(), self._place.prefix)
            tables.execute("DELETE FROM owner WHERE id = ?", (self._owners.me,))
        self.abandon()

    def abandon(self) -> None:
        """Close the connections, and leave it to the lease that others miss this owner."""
        self.news.close()
        self._disconnect()

    # ------------------------------------------------------------------------------------------------------------------

    def _carry_out(self, batch: Sequence[Write[Any]]) -> None:
        left = list(batch)
        try:
            self._patiently(left, patience=PATIENCE)
        except psycopg.OperationalError as error:
            self._fail(left, error)
        except Exception as error:
            if len(left) == 1:
                self._fail(left, error)
            else:
                for write in left:  # one by one: only what is to blame fails
                    self._carry_out([write])
        if self._owners.is_due:  # what has failed has not renewed it
            self.idle()

    def _patiently(self, left: list[Write[Any]], *, patience: float) -> None:
        """Commit a batch, on as many connections as that takes, and take out of *left* what is committed."""
        deadline, pause = time.monotonic() + patience, _FIRST_PAUSE
        while True:
            try:
                del left[: self._commit(left)]
            except psycopg.Error as error:
                if is_lost(error):
                    self._disconnect()
                    if time.monotonic() < deadline:
                        time.sleep(pause)
                        pause = min(2 * pause, _LAST_PAUSE)
                        continue
                self._doubt = None
                raise
            if not left:
                return

    def _commit(self, batch: Sequence[Write[Any]]) -> int:
        """Commit as much of a batch as can be done without keeping others waiting; return how many writes that was."""
        connection = self._connected()
        asked, done = clock(), 0
        renews = not batch or self._owners.is_due
        tables = PostgresTables(connection, self._place.prefix)
        try:
            connection.execute(
                f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_advisory_xact_lock({self._place.number})"
            )
            locked = clock()
            doubt = self._doubt
            has_committed = doubt is not None and self._has_committed(tables, doubt)
            self._doubt = None
            if doubt is not None and has_committed:
                connection.execute("ROLLBACK")
                return doubt.writes
            if renews:
                self._owners.renew(tables)
                tables.has_changed = False  # of that nobody need hear
            self._owners.look_again(tables)
            records = Records(tables, self._owners, self._vendor, POSTGRES)
            for done, write in enumerate(batch, 1):  # noqa: B007 - how many were done is told
                write.outcome = write.act(records)
                if clock() > locked + _LONGEST_SECONDS:
                    break
            end = "COMMIT"
            if tables.has_changed:
                self._commits += 1
                tables.execute(_COUNT, (self._commits, self._owners.me))
                end = f"SELECT pg_notify('{self._place.channel}', '{self._name}'); COMMIT"
        except BaseException:
            if not connection.closed:
                connection.execute("ROLLBACK")
            raise
        if tables.has_changed:
            self._doubt = _Doubt(self._owners.me, self._commits, done)
        connection.execute(end)
        self._doubt = None
        if renews:
            self._owners.lease.renew(asked)
        return done

    def _has_committed(self, tables: PostgresTables, doubt: _Doubt) -> bool:
        """Tell what became of a commit that was not answered; it is over, since it had the lock that is held here."""
        row = tables.execute("SELECT commits FROM owner WHERE id = ?", (doubt.owner,)).fetchone()
        return row is not None and row[0] == doubt.commits

    def _connected(self) -> psycopg.Connection[Any]:
        """Return the connection, made anew if it was lost."""
        if self._connection is None or self._connection.closed:
            self._disconnect()
            made = connection_to(self._place)
            try:
                self._end_before(made)
                row = made.execute(
                    "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()"
                ).fetchone()
            except BaseException:
                made.close()
                raise
            assert row is not None
            self._connection, self._backend = made, (int(row[0]), str(row[1]))
        return self._connection

    def _end_before(self, connection: psycopg.Connection[Any]) -> None:
        """End what served the connection of before: the database may not know yet that it was cut off."""
        if self._backend is not None:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s"
                " AND usename = current_user",
                self._backend,
            )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _fail(self, batch: Sequence[Write[Any]], error: Exception) -> None:
        for write in batch:
            write.outcome = None
            write.error = JournalError(self._place.name, reason_of(error), write.standing)
            write.error.__cause__ = error
