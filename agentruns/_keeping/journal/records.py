"""The work of a journal: what each operation does to its row. Each is one transaction, or part of one."""
# ruff: noqa: S608 - what is put into the SQL here is written here

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from attrs import evolve

from .problems import UnfitError
from .tables import SQLITE, Owners, Spelling, Tables, marks, pieces
from .values import Glance, Work

_WORK: Final = (
    "key, vendor, origin, state, start_note, group_name, posting_run, posting_at, run, owner, created, updated, digest"
)
_WORK_COLUMNS: Final = _WORK.split(", ")
_LEFT: Final = "group_name = CASE WHEN start_note IS NULL AND run IS NULL THEN NULL ELSE group_name END"
"""A start that was never sent, and is gone through with anew, keeps no other of its group waiting until then."""
_PAGE: Final = 32
"""Rows at a time: few, since each may hold megabytes."""


class Records:
    """The work of one vendor, as one owner sees it. For use within a transaction that holds the write lock."""

    def __init__(self, tables: Tables, owners: Owners, vendor: str, spelling: Spelling = SQLITE) -> None:
        self.tables: Final = tables
        self.execute = self._do = tables.execute
        self.spelling: Final = spelling
        self.vendor = self._vendor = vendor
        self.owners: Final = owners
        self._owners = owners

    def begin(self, key: str, origin: str, run: str | None = None, digest: str | None = None) -> Work:
        """Insert a piece of work, or return what is there, taken over if nobody is at it any more."""
        found = self.get(key)
        if found is None:
            now, state = time.time(), "starting" if run is None else "open"
            self._do(
                "INSERT INTO work (vendor, key, state, owner, created, updated, origin, run, digest)"
                " VALUES (?,?,?,?,?,?,?,?,?)",
                (self._vendor, key, state, self._owners.me, now, now, origin, run, digest),
            )
            if run is not None:
                self._was_at(key)
            return evolve(self._known(key), fresh=True)
        if found.state != "done" and not found.alive:
            self.change(key, f"owner = ?, {_LEFT}", self._owners.me)
            return evolve(self._known(key), taken=True)
        if found.mine and found.group_name is not None and found.start_note is None and found.run is None:
            self.change(key, _LEFT)
        return found

    def unbegin(self, key: str, begun: Work | None) -> bool:
        """Undo a `begin` whose caller never heard of it; return whether there is no such work any more."""
        if begun is not None and begun.fresh:
            self._do("DELETE FROM work WHERE vendor = ? AND key = ?", (self._vendor, key))
            return True
        if begun is not None and begun.taken:  # handlers that run are those of others here, who go on
            self.change(key, "owner = ''")
        return False

    def saw(self, key: str, run: str, done: bool) -> None:
        """Keep a state; one that comes after the end changes nothing. What the start found out has served its turn."""
        if done or self._state_of(key) != "done":
            self.change(key, "run = ?, state = ?, start_note = NULL", run, "done" if done else "open")
            self._was_at(key)

    def forget_start(self, key: str) -> bool:
        """Delete work that was never started, unless somebody else is at its start; return whether it is gone."""
        found = self.get(key)
        if found is None or found.state != "starting" or (found.alive and not found.mine):
            return False
        self._do("DELETE FROM work WHERE vendor = ? AND key = ?", (self._vendor, key))
        return True

    def release(self, key: str) -> None:
        """Leave the work and the handlers that were running to whoever comes."""
        found = self._do(
            "SELECT id FROM work WHERE vendor = ? AND key = ? AND owner = ?", (self._vendor, key, self._owners.me)
        ).fetchone()
        if found is not None:
            self.change(key, "owner = ''")
            self._do(
                "UPDATE handling SET owner = '' WHERE work = ? AND owner = ? AND state = 'running'",
                (found[0], self._owners.me),
            )

    def get(self, key: str) -> Work | None:
        """Return the work named *key*."""
        row = self._do(f"SELECT {_WORK} FROM work WHERE vendor = ? AND key = ?", (self._vendor, key)).fetchone()
        return None if row is None else self._work(row)

    def unfinished(self, after: int) -> list[tuple[int, Work]]:
        """Return a page of work that is not done, oldest first, each with its place; *after* is the last page's."""
        rows = self._do(
            f"SELECT {_WORK}, id FROM work WHERE vendor = ? AND state <> 'done' AND id > ? ORDER BY id LIMIT {_PAGE}",
            (self._vendor, after),
        )
        return [(place, self._work(row)) for *row, place in rows.fetchall()]

    def of_run(self, run_id: str) -> Work | None:
        """Return the work that is at a run or was: of several, one that is not done, else the newest."""
        row = self._do(
            f"SELECT {_WORK} FROM work WHERE vendor = ? AND id IN (SELECT work FROM work_run WHERE run_id = ?)"
            " ORDER BY state = 'done', id DESC LIMIT 1",
            (self._vendor, run_id),
        ).fetchone()
        return None if row is None else self._work(row)

    def glance(self, keys: Sequence[str], run_ids: Sequence[str]) -> Glance:
        """Return how work stands, briefly, and which of the runs have work at all."""
        stands: dict[str, tuple[float, bool]] = {}
        for some in pieces(keys):
            for key, owner, updated, state in self._do(
                f"SELECT key, owner, updated, state FROM work WHERE vendor = ? AND key IN ({marks(some)})",
                (self._vendor, *some),
            ).fetchall():
                is_driven = state != "done" and owner != self._owners.me and self._owners.alive(owner)
                stands[key] = updated, is_driven
        found: set[str] = set()
        for some in pieces(run_ids):
            rows = self._do(
                "SELECT DISTINCT run_id FROM work_run JOIN work ON work = id"
                f" WHERE vendor = ? AND run_id IN ({marks(some)})",
                (self._vendor, *some),
            )
            found.update(run_id for (run_id,) in rows.fetchall())
        return Glance(stands, frozenset(found))

    def take(self, key: str) -> bool:
        """Take work over whose owner is gone, done or not; return whether it is ours."""
        found = self.get(key)
        if found is None or (found.alive and not found.mine):
            return False
        if not found.mine:
            self.change(key, "owner = ?", self._owners.me)
        return True

    def forget(self, key: str) -> bool:
        """Delete work, and all that stands with it, unless somebody is at it; return whether it is gone."""
        found = self.get(key)
        if found is not None and found.alive and found.state != "done":
            return False
        self._do("DELETE FROM parked WHERE vendor = ? AND key = ?", (self._vendor, key))
        self._do("DELETE FROM work WHERE vendor = ? AND key = ?", (self._vendor, key))
        return True

    def prune(self, before: float, most: int) -> int:
        """Delete up to *most* pieces of work that were done and told before a time, with all that stands with them."""
        which = (
            (
                "SELECT id FROM work WHERE vendor = ? AND updated < ? AND state = 'done'"
                " AND (vendor, key) NOT IN (SELECT vendor, key FROM tended) ORDER BY updated LIMIT ?"
            ),
            (self._vendor, before, most),
        )
        self._do(
            "DELETE FROM parked WHERE vendor = ? AND state <> 'waiting' AND asked < ? AND key IN"
            f" (SELECT key FROM work WHERE id IN ({which[0]}))",
            (self._vendor, before, *which[1]),
        )
        return self._do(f"DELETE FROM work WHERE id IN ({which[0]})", which[1]).rowcount

    def runs_since(self, created: float) -> list[str]:
        """Return the ids of the runs of work that changed at or after *created*."""
        rows = self._do(
            f"SELECT {self.spelling.run_id} FROM work WHERE vendor = ? AND updated >= ?"
            f" AND {self.spelling.run_id} IS NOT NULL",
            (self._vendor, created),
        )
        return [run_id for (run_id,) in rows.fetchall()]

    def origins_at(self, run_id: str) -> list[str]:
        """Return what started the work whose last state is of that run."""
        return [self._known(key).origin for key in self.keys_at(run_id)]

    def keys_at(self, run_id: str) -> list[str]:
        """Return the keys of the work whose last state is of that run."""
        rows = self._do(
            f"SELECT key FROM work WHERE vendor = ? AND state <> 'done' AND {self.spelling.run_id} = ?"
            " AND id IN (SELECT work FROM work_run WHERE run_id = ?)",
            (self._vendor, run_id, run_id),
        )
        return [key for (key,) in rows.fetchall()]

    # ------------------------------------------------------------------------------------------------------------------

    def _known(self, key: str) -> Work:
        found = self.get(key)
        assert found is not None
        return found

    def _was_at(self, key: str) -> None:
        """Know work by the run of its last state."""
        self._do(
            f"INSERT INTO work_run (run_id, work) SELECT {self.spelling.run_id}, id FROM work"
            f" WHERE vendor = ? AND key = ? AND {self.spelling.run_id} IS NOT NULL ON CONFLICT DO NOTHING",
            (self._vendor, key),
        )

    def id_of(self, key: str) -> int:
        """Return the number of the work of that name; raise `UnfitError` where there is none."""
        return int(self.column("id", key))

    def _state_of(self, key: str) -> str:
        return str(self.column("state", key))

    def column(self, column: str, key: str) -> Any:
        """Return one column of the work of that name; raise `UnfitError` where there is none."""
        row = self._do(f"SELECT {column} FROM work WHERE vendor = ? AND key = ?", (self._vendor, key)).fetchone()
        if row is None:
            raise self._unknown(key)
        return row[0]

    def change(self, key: str, what: str, *values: object) -> None:
        """
        Change a piece of work; `updated` grows even where the clock stands still or goes back.

        Raise `UnfitError` where there is none of that name.
        """
        changed = self._do(
            f"UPDATE work SET {what}, updated = {self.spelling.greatest}(?, updated + 0.000001)"
            " WHERE vendor = ? AND key = ?",
            (*values, time.time(), self._vendor, key),
        )
        if not changed.rowcount:
            raise self._unknown(key)

    def _unknown(self, key: str) -> UnfitError:
        return UnfitError(f"it holds no work of {self._vendor} named {key!r}; begin it first")

    def _work(self, row: Sequence[Any]) -> Work:
        known = dict(zip(_WORK_COLUMNS, row, strict=True))
        owner = known["owner"]
        return Work(**known, alive=self._owners.alive(owner), mine=owner == self._owners.me)
