"""What the journal keeps of actions that wait for a person."""
# ruff: noqa: S608 - what is put into the SQL here is written here

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import field, frozen

from agentruns._values import codec
from agentruns._values.run import RunStatus

from .moves import WAIT_MOVES, WaitAct, WaitState
from .values import GivenAnswer, StandingAnswer

if TYPE_CHECKING:
    from .records import Records

Place: TypeAlias = tuple[str, str, str]
"""Vendor, run and action: ids of actions may be mere positions."""

_ROW: Final = "vendor, run_id, action_id, key, state, asked, expires, output, run, digest, changed"
_HERE: Final = "vendor = ? AND run_id = ? AND action_id = ?"


@frozen
class ParkedRow:
    """
    One action that waits, or waited, for a person.

    `run` is the JSON text of the state that asks, `output` that of the answer, or of the reason why there is none.
    `asked` and `expires` are seconds since the epoch. `digest` names what is asked, None where that is not known;
    `changed` says that something else was asked before under the same id.
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
    digest: str | None = None
    changed: bool = False

    def is_of(self, digest: str | None) -> bool:
        """Tell whether this is of an action of that digest, as far as that is known."""
        return self.digest is None or digest is None or self.digest == digest


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
        self._do = records.execute
        self._vendor = records.vendor

    def park(self, row: ParkedRow) -> ParkedRow:
        """
        Enter an action that waits, and return what is there: it may wait already, or have its answer.

        One that was withdrawn waits again, from now on; one that waits keeps the time at which it was asked first. An
        answer to something else of the same id counts for nothing: what has changed is asked anew.
        """
        place = (row.vendor, row.run_id, row.action_id)
        changed = row.changed
        for before in self._rows(_HERE, place):
            changed = before.changed or not before.is_of(row.digest)
            if not before.is_of(row.digest):
                self._do(f"DELETE FROM parked WHERE {_HERE}", place)
        self._do(
            f"INSERT INTO parked ({_ROW}) VALUES (?,?,?,?,?,?,?,NULL,?,?,?)"
            " ON CONFLICT (vendor, run_id, action_id) DO UPDATE SET state = excluded.state, key = excluded.key,"
            " expires = excluded.expires, run = excluded.run, digest = excluded.digest,"
            " asked = CASE parked.state WHEN excluded.state THEN parked.asked ELSE excluded.asked END"
            f" WHERE parked.state IN ({WAIT_MOVES.sources(WaitAct.PARK)})",
            (*place, row.key, WaitState.WAITING, row.asked, row.expires, row.run, row.digest, changed),
        )
        (found,) = self._rows(_HERE, place)
        return found

    def settle(self, place: Place, act: WaitAct, output: str | None, digest: str | None = None) -> bool:
        """End the wait of an action; return False, and change nothing, if it does not wait, or asks something else."""
        changed = self._do(
            f"UPDATE parked SET state = ?, output = ? WHERE {_HERE} AND state IN ({WAIT_MOVES.sources(act)})"
            " AND (digest IS NULL OR ? IS NULL OR digest = ?)",
            (WAIT_MOVES.after(WaitState.WAITING, act), output, *place, digest, digest),
        )
        return changed.rowcount == 1

    def decided(self, run_id: str, action_ids: Iterable[str]) -> tuple[str, ...]:
        """Withdraw actions of a run of this journal's vendor, since they were answered by hand; return those."""
        return tuple(
            action_id
            for action_id in action_ids
            if self.settle((self._vendor, run_id, action_id), WaitAct.WITHDRAW, None)
        )

    def wait_again(self, run_id: str, action_ids: Iterable[str]) -> None:
        """Undo a `decided`."""
        for action_id in action_ids:
            self._do(
                f"UPDATE parked SET state = 'waiting' WHERE {_HERE} AND state = 'withdrawn'",
                (self._vendor, run_id, action_id),
            )

    def take_back(self, run_id: str, action_id: str) -> None:
        """Ask again for an answer that cannot be sent, to an action of a run of this journal's vendor."""
        self._do(
            f"UPDATE parked SET state = ?, output = NULL WHERE {_HERE}"
            f" AND state IN ({WAIT_MOVES.sources(WaitAct.TAKE_BACK)})",
            (WaitState.WAITING, self._vendor, run_id, action_id),
        )

    def standing(self, run_id: str, answers: Iterable[GivenAnswer]) -> tuple[StandingAnswer, ...]:
        """Return what persons have answered to the same actions, where it says something else."""
        standing = []
        for given in answers:
            for row in self._rows(f"{_HERE} AND output IS NOT NULL", (self._vendor, run_id, given.action_id)):
                refused = row.state is WaitState.REFUSED
                if row.is_of(given.digest) and row.output is not None and not given.says(row.output, refused):
                    standing.append(StandingAnswer(given.action_id, row.output, refused))
        return tuple(standing)

    def seen(self, run: str) -> None:
        """Withdraw what a run no longer asks for; *run* is its JSON text."""
        if self._do("SELECT 1 FROM parked WHERE state = 'waiting' LIMIT 1").fetchone() is None:
            return  # as nearly always: a run may be megabytes of text
        run_id, asked_for = _asks(run)
        rows = self._do(
            "SELECT action_id FROM parked WHERE state = 'waiting' AND vendor = ? AND run_id = ?", (self._vendor, run_id)
        )
        self.decided(run_id, [action_id for (action_id,) in rows.fetchall() if action_id not in asked_for])

    def waiting(self, run_id: str | None) -> list[ParkedRow]:
        """Return what waits, of all runs or of one, in the order in which it was entered."""
        return self._rows("state = 'waiting' AND run_id = coalesce(?, run_id) ORDER BY id", (run_id,))

    def called(self, action_id: str, run_id: str | None) -> list[ParkedRow]:
        """
        Return what waits under that id; if nothing does, the last that did.

        Of a run that has begun by an answer, that may be what an earlier run of the same work has asked for.
        """
        where, values = "action_id = ?", [action_id]
        if run_id is not None:
            where, values = f"{where} AND run_id = ?", [action_id, run_id]
        found = self._rows(f"state = 'waiting' AND {where} ORDER BY id", values) or self._rows(
            f"{where} ORDER BY id DESC LIMIT 1", values
        )
        if found or run_id is None:
            return found
        return self._rows(
            "state <> 'waiting' AND action_id = ? AND run_id IN (SELECT run_id FROM work_run WHERE work IN"
            " (SELECT work FROM work_run WHERE run_id = ?)) ORDER BY id DESC LIMIT 1",
            values,
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


def _asks(run: str) -> tuple[str, Collection[object]]:
    """Return the id of a run, and the ids of the actions for which it waits; *run* is its JSON text."""
    with suppress(codec.CodecError, AttributeError, KeyError, TypeError):  # some texts are no runs
        kept = codec.decode(run, trusted=True)
        actions = kept["actions"] if kept["status"] == RunStatus.REQUIRES_ACTION else ()
        return str(kept["ref"]["id"]), [each["id"] for each in actions]
    return "", ()
