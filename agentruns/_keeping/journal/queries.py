"""
What a reader of a journal asks its tables for: SQL that every store reads, and how each spells what differs.

Entries are found by the numbers of their rows, which do not change. A run whose actions wait though no work of this
journal has its key is an entry, too: a stray.
"""
# ruff: noqa: S608 - what is put into the SQL here is written here

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve, frozen

from .entries import Counts, Entry, Handled
from .tables import SQLITE, Tables

_LAST: Final = 253402300800.0
"""The first second after the years that a date can have."""

Which: TypeAlias = Literal["all", "waiting", "open", "done", "failed"]

PAGE: Final = 100
"""Entries of one page."""

UNREADABLE: Final = "unreadable"
"""The status of an entry whose run is kept as something else than JSON."""


@frozen
class ReadSpelling:
    """
    Expressions of SQL that stores spell in their own ways, when they are read.

    `is_json` tells whether the column `run` holds JSON. `of_run` gives what stands in it at a path, such as "ref.id",
    NULL where it has none. `status` is that of the runs of the table `work`, as its index knows it. `position` is the
    function that finds a text in another one.
    """

    is_json: str
    of_run: Callable[[str], str]
    status: str
    position: str


SQLITE_READING: Final = ReadSpelling(
    is_json="json_valid(run)",
    of_run=lambda path: f"CASE WHEN json_valid(run) THEN json_extract(run, '$.{path}') END",
    status=SQLITE.status,
    position="instr",
)

_STRAYS: Final = "NOT EXISTS (SELECT 1 FROM work WHERE work.vendor = parked.vendor AND work.key = parked.key)"
_STRAY: Final = """
    SELECT 'p' || id, vendor, key, 'open', '', created, updated, {of_run}, waiting FROM (
        SELECT min(id) AS id, vendor, coalesce(max(key), '') AS key, min(asked) AS created, max(asked) AS updated,
            max(run) AS run, count(CASE WHEN state = 'waiting' THEN 1 END) AS waiting
        FROM parked WHERE {where} GROUP BY vendor, run_id
    ) AS stray
"""
_WORK: Final = """
    SELECT 'w' || id, vendor, key, state, owner, created, updated, {of_run},
        (SELECT count(*) FROM parked WHERE parked.state = 'waiting' AND parked.vendor = work.vendor
            AND parked.key = work.key)
    FROM work
"""
_WAITS: Final = """
    state <> 'done' AND ({status} = 'requires_action' OR EXISTS (SELECT 1 FROM parked
        WHERE parked.state = 'waiting' AND parked.vendor = work.vendor AND parked.key = work.key))
"""
_WHERE: Final[dict[str, str]] = {
    "all": "1 = 1",
    "waiting": _WAITS,
    "open": "state <> 'done'",
    "done": "state = 'done'",
    "failed": "{status} = 'failed'",
}

Found: TypeAlias = tuple[Entry, str]
"""An entry, of which nobody has said yet whether somebody is at it, and who would be."""


class EntryQueries:
    """The entries of all vendors, as one moment has them: for use within a transaction."""

    def __init__(self, tables: Tables, spelling: ReadSpelling) -> None:
        self._do = tables.execute
        of_run = (
            f"CASE WHEN run IS NULL OR {spelling.is_json} THEN {spelling.of_run('status')} ELSE '{UNREADABLE}' END"
            if path == "status"
            else spelling.of_run(path)
            for path in ("ref.id", "ref.parent", "status", "vendor_status", "usage.input_tokens", "usage.output_tokens")
        )
        self._of_run = ", ".join(of_run)
        self._spelling = spelling

    def page(self, which: Which, before: int | None, key: str) -> list[Found]:
        """Return a page of entries, newest first: those with a number less than *before*, with *key* in their key."""
        find = self._spelling.position
        named = f" AND id IN (SELECT id FROM work WHERE {find}(key, ?) > 0)" if key else ""  # by the index of the keys
        rows = self._do(
            f"{self._work} WHERE ({self._where(which)}) AND id < ?{named} ORDER BY id DESC LIMIT {PAGE}",
            (before if before is not None else 1 << 62, *([key] if key else [])),
        ).fetchall()
        shown = which not in {"done", "failed"} and before is None
        strays = [each for each in self._strays() if not key or key in str(each[0].key)] if shown else []
        return [*strays, *map(_entry, rows)]

    def counts(self) -> Counts:
        """Return how many entries there are of each sort."""
        counted = [
            int(self._do(f"SELECT count(*) FROM work WHERE {self._where(which)}").fetchone()[0]) for which in _WHERE
        ]
        strays = len(self._strays())
        every, waiting, open_, done, failed = counted
        return Counts(every + strays, waiting + strays, open_ + strays, done, failed)

    def entry(self, kind: str, number: int) -> list[Found]:
        """Return the entry of that number, an empty list if there is none."""
        if kind == "w":
            return [_entry(row) for row in self._do(f"{self._work} WHERE id = ?", (number,)).fetchall()]
        where = "(vendor, run_id) = (SELECT vendor, run_id FROM parked WHERE id = ?)"
        rows = self._do(self._stray(where), (number,)).fetchall()
        return [
            (evolve(entry, id=f"p{number}", state="open" if entry.waiting else "done"), owner)
            for entry, owner in map(_entry, rows)
        ]

    def named(self, key: str) -> str | None:
        """Return the id of the newest work of that key, of whichever vendor."""
        row = self._do("SELECT 'w' || id FROM work WHERE key = ? ORDER BY id DESC LIMIT 1", (key,)).fetchone()
        return None if row is None else str(row[0])

    def run(self, kind: str, number: int) -> Any:
        """Return the last state of an entry's run, as it is kept; None if there is none."""
        table = "work" if kind == "w" else "parked"
        row = self._do(f"SELECT run FROM {table} WHERE id = ?", (number,)).fetchone()
        return None if row is None else row[0]

    def origin(self, number: int) -> Any:
        """Return what started that work, as it is kept; None if there is none."""
        row = self._do("SELECT origin FROM work WHERE id = ?", (number,)).fetchone()
        return None if row is None else row[0]

    def handled(self, number: int) -> list[tuple[Handled, str]]:
        """Return the actions of that work that were dealt with, oldest first, each with who does or did so."""
        rows = self._do(
            "SELECT run_id, action_id, name, state, output, is_error, owner FROM handling WHERE work = ? ORDER BY id",
            (number,),
        ).fetchall()
        return [
            (Handled(run_id, action_id, name, state, output, bool(is_error), alive=False), str(owner))
            for run_id, action_id, name, state, output, is_error, owner in rows
        ]

    def vendors(self) -> list[str]:
        """Return the vendors of whom there is anything."""
        rows = self._do("SELECT vendor FROM work UNION SELECT vendor FROM parked ORDER BY 1").fetchall()
        return [vendor for (vendor,) in rows]

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def _work(self) -> str:
        return _WORK.format(of_run=self._of_run)

    def _where(self, which: str) -> str:
        return _WHERE[which].format(status=self._spelling.status)

    def _stray(self, where: str) -> str:
        return _STRAY.format(of_run=self._of_run, where=where)

    def _strays(self) -> list[Found]:
        waiting = self._stray(f"state = 'waiting' AND {_STRAYS}")
        return [_entry(row) for row in self._do(f"{waiting} ORDER BY id DESC LIMIT {PAGE}").fetchall()]


def _entry(row: Sequence[Any]) -> Found:
    id_, vendor, key, state, owner, created, updated, run_id, parent, status, word, into, out, waiting = row
    used = _count(into), _count(out)
    entry = Entry(
        id=str(id_),
        vendor=vendor,
        key=key,
        state=state,
        alive=False,
        created=_seconds(created),
        updated=_seconds(updated),
        run_id=_text(run_id),
        parent=_text(parent),
        status=_text(status),
        vendor_status=_text(word),
        tokens=None if used[0] is None or used[1] is None else (used[0], used[1]),
        waiting=int(waiting),
    )
    return entry, str(owner)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    """Return a number out of a run: PostgreSQL gives it as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return value if isinstance(value, int) else None


def _seconds(value: Any) -> float:
    """Return a time as it is kept, 0 for what is none: SQLite keeps anything in any column."""
    return float(value) if isinstance(value, int | float) and 0 <= value < _LAST else 0.0
