"""
Who is still there, told by leases that the database counts.

An owner is alive as long as its lease lasts by the clock of the database, and for as long after a start of the
database, which nobody could reach before. The owner itself stops to act earlier, by its own clock: see `Lease`.
"""

from __future__ import annotations

from uuid import uuid4

from agentruns._keeping.journal.lease import Lease

from .tables import PostgresTables


class Leases:
    """The owner of one open journal, and what it can tell about the others; ask within a transaction only."""

    def __init__(self, seconds: float) -> None:
        self.me = uuid4().hex
        self.lease = Lease(seconds)
        self.tables: PostgresTables | None = None
        self.part_seconds = seconds / 2  # by then the lease is renewed, or not over yet
        self._seen: dict[str, bool] = {}

    def look_again(self, tables: PostgresTables) -> None:
        """Forget who was alive: what was true in one transaction need not be so in the next."""
        self.tables = tables
        self._seen.clear()

    def now(self) -> float:
        """Return the time of the database."""
        assert self.tables is not None
        return float(self.tables.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()[0])

    def alive(self, owner: str) -> bool:
        """Tell whether *owner* may still act."""
        if owner not in self._seen:
            self._seen[owner] = owner == self.me or (owner != "" and self._ask(owner))
        return self._seen[owner]

    def _ask(self, owner: str) -> bool:
        assert self.tables is not None
        found = self.tables.execute(
            "SELECT clock_timestamp() < greatest(expires, pg_postmaster_start_time() + make_interval(secs => ?))"
            " FROM owner WHERE id = ?",
            (self.lease.seconds, owner),
        ).fetchone()
        return found is not None and bool(found[0])
