"""
Who is still there, told by leases that the database counts.

An owner is alive as long as its lease lasts by the clock of the database, and for as long after a start of the
database, which nobody could reach before. The owner itself stops to act earlier, by its own clock: see `Lease`. An
owner that was dead never comes back: who has missed the end of the lease goes on as another owner.
"""
# ruff: noqa: S608 - what is put into the SQL here is written here

from __future__ import annotations

from typing import Final
from uuid import uuid4

from agentruns._keeping.journal.lease import Lease

from .tables import PostgresTables

_IS_ALIVE: Final = "clock_timestamp() < greatest(expires, pg_postmaster_start_time() + make_interval(secs => ?))"
_DUE: Final = 0.6
"""The part of a lease that is left when it is renewed together with what is written."""


class Leases:
    """The owner that one open journal is, and what it can tell about the others; ask within a transaction only."""

    def __init__(self, seconds: float) -> None:
        self.me = uuid4().hex
        self.lease = Lease(seconds)
        self.part_seconds = seconds / 2  # by then the lease is renewed, or not over yet
        self._tables: PostgresTables | None = None
        self._seen: dict[str, bool] = {}

    @property
    def is_due(self) -> bool:
        """Tell whether the lease is to be renewed."""
        return self.lease.left() < _DUE * self.lease.seconds

    def renew(self, tables: PostgresTables) -> None:
        """Have the lease last anew, in the transaction that *tables* are of; be another owner if it was over."""
        seconds = self.lease.seconds
        renewed = tables.execute(
            f"UPDATE owner SET expires = clock_timestamp() + make_interval(secs => ?) WHERE id = ? AND {_IS_ALIVE}",
            (seconds, self.me, seconds),
        )
        if not renewed.rowcount:
            self.me = uuid4().hex
            self.lease.lapse()
            tables.execute(
                "INSERT INTO owner (id, expires) VALUES (?, clock_timestamp() + make_interval(secs => ?))",
                (self.me, seconds),
            )

    def look_again(self, tables: PostgresTables) -> None:
        """Forget who was alive: what was true in one transaction need not be so in the next."""
        self._tables = tables
        self._seen.clear()

    def now(self) -> float:
        """Return the time of the database."""
        assert self._tables is not None
        return float(self._tables.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()[0])

    def alive(self, owner: str) -> bool:
        """Tell whether *owner* may still act."""
        if owner not in self._seen:
            self._seen[owner] = owner == self.me or (owner != "" and self._ask(owner))
        return self._seen[owner]

    def _ask(self, owner: str) -> bool:
        assert self._tables is not None
        return bool(living(self._tables, {owner}, self.lease.seconds))


def living(tables: PostgresTables, owners: set[str], seconds: float) -> set[str]:
    """Return which of *owners* may still act, where leases last so many seconds."""
    rows = tables.execute(f"SELECT id FROM owner WHERE id = ANY(?) AND {_IS_ALIVE}", (sorted(owners), seconds))
    return {str(owner) for (owner,) in rows.fetchall()}
