"""Answers that were given by hand: the first one stands, in all work that is at the run."""
# ruff: noqa: S608 - what is put into the SQL here is written here

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .handlings import HandlingPlace, Handlings, posting_columns
from .moves import ANSWER_MOVES, AnswerAct, AnswerState
from .values import Decision, GivenAnswer, Handling, StandingAnswer

if TYPE_CHECKING:
    from .records import Records


class Decisions:
    """The rows of actions that a person answers. For use within a transaction that holds the write lock."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._handlings = Handlings(records)
        self._owners = records.owners
        self._vendor = records.vendor
        self._do = records.execute

    def decided(
        self, run_id: str, answers: Sequence[GivenAnswer], *, posting: bool = False, again: bool = False
    ) -> Decision:
        """
        Enter answers that were given by hand, unless other ones were given before: the first stands.

        A handler that is still running is overtaken. With *posting*, keep that they are about to be posted, too; with
        *again*, they replace what was answered and not posted.
        """
        standing = () if again else self._standing(run_id, answers)
        if standing:
            return Decision(standing)
        entered: list[tuple[int, GivenAnswer, Handling | None]] = []
        fresh_posting: list[int] = []
        for key in self._records.keys_at(run_id):
            work = self._records.id_of(key)
            if posting:
                if self._records.column("posting_run", key) != run_id:
                    fresh_posting.append(work)
                what, *values = posting_columns(run_id)
                self._do(f"UPDATE work SET {what} WHERE id = ?", (*values, work))
            for given in answers:
                place = (work, run_id, given.action_id)
                before = self._handlings.found(place)
                if before is not None and before.output is not None and not before.is_of(given.digest):
                    self._handlings.forget(place)
                    before = None
                if before is not None and again and ANSWER_MOVES.allows(before.state, AnswerAct.TAKE_BACK):
                    self._handlings.forget(place)
                if self._decide(place, given):
                    entered.append((work, given, before))
        return Decision(entered=tuple(entered), fresh_posting=tuple(fresh_posting))

    def _standing(self, run_id: str, answers: Sequence[GivenAnswer]) -> tuple[StandingAnswer, ...]:
        """Return what was answered before, in any work, to the same actions, and says something else."""
        standing = []
        for given in answers:
            rows = self._do(
                "SELECT output, is_error, handling.state FROM handling JOIN work ON work.id = handling.work"
                " WHERE vendor = ? AND run_id = ? AND action_id = ? AND output IS NOT NULL"
                " AND (handling.digest IS NULL OR ? IS NULL OR handling.digest = ?)",
                (self._vendor, run_id, given.action_id, given.digest, given.digest),
            ).fetchall()
            for output, is_error, state in rows:
                if not given.says(output, bool(is_error)):
                    standing.append(
                        StandingAnswer(given.action_id, output, bool(is_error), state == AnswerState.POSTED)
                    )
                    break
        return tuple(standing)

    def _decide(self, place: HandlingPlace, given: GivenAnswer) -> bool:
        """Enter one answer of a person; return False where one stands."""
        state = ANSWER_MOVES.after(AnswerState.OPEN, AnswerAct.DECIDE)
        changed = self._do(
            "INSERT INTO handling (work, run_id, action_id, name, state, owner, output, is_error, digest)"
            " VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT (work, run_id, action_id) DO UPDATE"
            " SET state = excluded.state, output = excluded.output, is_error = excluded.is_error,"
            f" digest = excluded.digest WHERE handling.state IN ({ANSWER_MOVES.sources(AnswerAct.DECIDE)})",
            (*place, given.name, state, self._owners.me, given.output, given.is_error, given.digest),
        )
        return changed.rowcount == 1

    def take_back(self, run_id: str, decision: Decision) -> None:
        """Undo a `decided` whose answers the vendor has refused, and put back what stood there before."""
        for work, given, before in decision.entered:
            place = (work, run_id, given.action_id)
            found = self._handlings.found(place)
            if (
                found is None
                or not given.says(found.output, found.is_error)
                or not ANSWER_MOVES.allows(found.state, AnswerAct.TAKE_BACK)
            ):
                continue
            self._handlings.forget(place)
            if before is not None:
                self._do(
                    "INSERT INTO handling (work, run_id, action_id, name, state, owner, output, is_error, digest)"
                    " VALUES (?,?,?,?,?,?,?,?,?)",
                    (*place, before.name, before.state, before.owner, before.output, before.is_error, before.digest),
                )
        for work in decision.fresh_posting:
            self._do(
                "UPDATE work SET posting_run = NULL, posting_at = NULL WHERE id = ? AND posting_run = ?", (work, run_id)
            )

    def moved(self, run_id: str, action_ids: Sequence[str], run: str, done: bool) -> None:
        """Mark answers given by hand as posted, and put *run* in the place of the run that was answered."""
        for key in self._records.keys_at(run_id):
            work = self._records.id_of(key)
            for action_id in action_ids:
                self._do(
                    "UPDATE handling SET state = ? WHERE work = ? AND run_id = ? AND action_id = ?"
                    f" AND state IN ({ANSWER_MOVES.sources(AnswerAct.POST)})",
                    (AnswerState.POSTED, work, run_id, action_id),
                )
            self._records.saw(key, run, done)
