"""What the journal keeps of actions that wait for a person."""
# ruff: noqa: S608 - what is put into the SQL here is written here

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import field, frozen

from .moves import WAIT_MOVES, WaitAct, WaitState

if TYPE_CHECKING:
    import sqlite3

    from .records import Records

Place: TypeAlias = tuple[str, str, str]
"""Vendor, run and action: ids of actions may be mere positions."""

_ROW: Final = "vendor, run_id, action_id, key, state, asked, expires, output, run"
_HERE: Final = "vendor = ? AND run_id = ? AND action_id = ?"


@frozen
class ParkedRow:
    """
    One action that waits, or waited, for a person.

    `run` is the JSON text of the state that asks, `output` that of the answer, or of the reason why there is none.
    `asked` and `expires` are seconds since the epoch.
    """

    vendor: str
    run_id: str
    action_id: str
    key: str | None
    state: WaitState
    asked: float
    expires: float | None
    output: str | None = field(repr=False)
    run: str = field(repr=False)


@frozen
class Look:
    """What a look found: which actions wait, by the numbers of their rows; of those asked about, what does not."""

    waiting: tuple[tuple[int, float], ...]
    over: tuple[ParkedRow, ...]


class ParkedActions:
    """
    The actions that wait, of every vendor. For use within a transaction that holds the write lock.

    *records* are those of the journal: what becomes of its work ends the wait of the actions that the work asked for.
    """

    def __init__(self, records: Records) -> None:
        self._do: Callable[..., sqlite3.Cursor] = records.execute
        self._vendor = records.vendor

    def park(self, row: ParkedRow) -> ParkedRow:
        """
        Enter an action that waits, and return what is there: it may wait already, or have its answer.

        One that was withdrawn waits again, from now on; one that waits keeps the time at which it was asked first.
        """
        self._do(
            f"INSERT INTO parked ({_ROW}) VALUES (?,?,?,?,?,?,?,NULL,?)"
            " ON CONFLICT (vendor, run_id, action_id) DO UPDATE SET state = excluded.state, key = excluded.key,"
            " expires = excluded.expires, run = excluded.run,"
            " asked = CASE state WHEN excluded.state THEN asked ELSE excluded.asked END"
            f" WHERE state IN ({WAIT_MOVES.sources(WaitAct.PARK)})",
            (row.vendor, row.run_id, row.action_id, row.key, WaitState.WAITING, row.asked, row.expires, row.run),
        )
        (found,) = self._rows(_HERE, (row.vendor, row.run_id, row.action_id))
        return found

    def settle(self, place: Place, act: WaitAct, output: str | None) -> bool:
        """End the wait of an action; return False, and change nothing, if it does not wait."""
        changed = self._do(
            f"UPDATE parked SET state = ?, output = ? WHERE {_HERE} AND state IN ({WAIT_MOVES.sources(act)})",
            (WAIT_MOVES.after(WaitState.WAITING, act), output, *place),
        )
        return changed.rowcount == 1

    def decided(self, run_id: str, action_ids: Iterable[str]) -> None:
        """Withdraw actions of a run of this journal's vendor: they were answered by hand."""
        for action_id in action_ids:
            self.settle((self._vendor, run_id, action_id), WaitAct.WITHDRAW, None)

    def seen(self, run: str) -> None:
        """Withdraw what a run, of which *run* is the JSON text, no longer asks for."""
        if self._do("SELECT 1 FROM parked WHERE state = 'waiting' LIMIT 1").fetchone() is None:
            return  # as nearly always: a run may be megabytes of text
        if not self._do("SELECT json_valid(?)", (run,)).fetchone()[0]:
            return
        self._do(
            "UPDATE parked SET state = 'withdrawn' WHERE state = 'waiting' AND vendor = :vendor"
            " AND run_id = json_extract(:run, '$.ref.id') AND (json_extract(:run, '$.status') <> 'requires_action'"
            " OR action_id NOT IN (SELECT json_extract(value, '$.id') FROM json_each(:run, '$.actions')))",
            {"vendor": self._vendor, "run": run},
        )

    def waiting(self, run_id: str | None) -> list[ParkedRow]:
        """Return what waits, of all runs or of one, in the order in which it was entered."""
        return self._rows("state = 'waiting' AND run_id = ifnull(?, run_id) ORDER BY id", (run_id,))

    def called(self, action_id: str, run_id: str | None) -> list[ParkedRow]:
        """Return what waits under that id; if nothing does, the last that did."""
        where, values = "action_id = ?", [action_id]
        if run_id is not None:
            where, values = f"{where} AND run_id = ?", [action_id, run_id]
        return self._rows(f"state = 'waiting' AND {where} ORDER BY id", values) or self._rows(
            f"{where} ORDER BY id DESC LIMIT 1", values
        )

    def look(self, places: Iterable[Place]) -> Look:
        """Return what waits, briefly, and those of *places* that do not."""
        waiting = self._do("SELECT id, asked FROM parked WHERE state = 'waiting' ORDER BY id").fetchall()
        over = [row for place in places for row in self._rows(f"{_HERE} AND state <> 'waiting'", place)]
        return Look(tuple(waiting), tuple(over))

    def _rows(self, where: str, values: Sequence[Any]) -> list[ParkedRow]:
        rows = self._do(f"SELECT {_ROW} FROM parked WHERE {where}", values).fetchall()
        return [
            ParkedRow(vendor, run_id, action_id, key, WaitState(state), *others)
            for vendor, run_id, action_id, key, state, *others in rows
        ]
