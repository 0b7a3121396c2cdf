"""The operations of a journal, which are written for SQLite, carried out by PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import psycopg

from agentruns._keeping.journal.tables import Rows, Spelling

from .schema import TABLES

POSTGRES: Final = Spelling(run_id="ref_id", status="run_status", greatest="greatest")

_TABLE: Final = re.compile(rf"\b(FROM|INTO|JOIN|UPDATE) ({'|'.join(TABLES)})\b")


class PostgresTables:
    """
    The tables of one schema, by the names that the operations know them by.

    `has_changed` tells whether any statement has changed a row since it was last set.
    """

    def __init__(self, connection: psycopg.Connection[Any], prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix
        self.has_changed = False

    def execute(self, text: str, values: Sequence[Any] = (), /) -> Rows:
        """Carry out a statement of the operations."""
        cursor = self._connection.execute(translated(text, self._prefix), [_sent(value) for value in values])
        if cursor.description is None:
            self.has_changed |= cursor.rowcount > 0
            return _Found([], cursor.rowcount)
        return _Found([tuple(map(_received, row)) for row in cursor.fetchall()], cursor.rowcount)


class _Found:
    """What a statement has found: all of it is here already."""

    def __init__(self, rows: list[tuple[Any, ...]], rowcount: int) -> None:
        self._rows = rows[::-1]
        self.rowcount = rowcount

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row."""
        return self._rows.pop() if self._rows else None

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        rows, self._rows = self._rows[::-1], []
        return rows


@lru_cache(maxsize=512)
def translated(text: str, prefix: str) -> str:
    """Return a statement with the marks of psycopg for its values, and with the names that the tables really have."""
    marked = text.replace("%", "%%").replace("?", "%s")
    return _TABLE.sub(rf'\1 "{prefix}\2" AS \2', marked)


# No text of PostgreSQL has a NUL; those of vendors may. A DLE stands before what takes its place, and before itself.
_NUL, _DLE, _ZERO = "\x00", "\x10", "0"


def _sent(value: Any) -> Any:
    if isinstance(value, str):
        plain = str.__str__(value)  # of an enum, psycopg would send the name
        if _NUL in plain or _DLE in plain:
            return plain.replace(_DLE, _DLE * 2).replace(_NUL, _DLE + _ZERO)
        return plain
    return int(value) if isinstance(value, bool) else value


def _received(value: Any) -> Any:
    if isinstance(value, str) and _DLE in value:
        return re.sub(f"{_DLE}(.)", lambda found: _NUL if found[1] == _ZERO else _DLE, value)
    return value
