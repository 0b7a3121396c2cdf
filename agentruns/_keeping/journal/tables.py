"""What the operations of a journal need of a store: its tables, how it spells SQL, and who is alive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

from attrs import frozen


@frozen
class Spelling:
    """
    Expressions of SQL that stores spell in their own ways.

    `run_id` and `status` are those of the JSON text in the column `run`, NULL where there are none; `greatest` is the
    function that returns the greater of two numbers.
    """

    run_id: str
    status: str
    greatest: str


SQLITE: Final = Spelling(
    run_id="CASE WHEN json_valid(run) THEN json_extract(run, '$.ref.id') END",
    status="CASE WHEN json_valid(run) THEN json_extract(run, '$.status') END",
    greatest="max",
)


class Rows(Protocol):
    """What a statement has found or changed."""

    @property
    def rowcount(self) -> int:
        """Return how many rows it changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, a tuple, None if there is none."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows that are left, each a tuple."""
        ...


class Tables(Protocol):
    """The tables of a journal, each by its name, within one transaction."""

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Rows:
        """Carry out a statement; each `?` stands for a value: a text, a number, a truth or None."""
        ...


class Owners(Protocol):
    """The owner that one open journal is, and what it can tell about the others."""

    me: str
    """32 hexadecimal digits; no other open journal ever has them."""

    part_seconds: float
    """
    For so long a part of a budget may be used, if it is not renewed.

    Where an owner that still runs can be taken for dead, it is no longer than that takes.
    """

    def alive(self, owner: str) -> bool:
        """Tell whether *owner* may still act; once it is told that one may not, that one never may again."""
        ...

    def now(self) -> float:
        """Return the seconds since the epoch on a clock that all owners share, to within less than a second."""
        ...


_MOST_NAMES: Final = 500


def pieces(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield names, as many at a time as a statement takes."""
    for begin in range(0, len(names), _MOST_NAMES):
        yield names[begin : begin + _MOST_NAMES]


def marks(names: Sequence[str]) -> str:
    """Return as many marks as there are names, for the list of an `IN`."""
    return ",".join("?" * len(names))
