"""The actions of runs that were dealt with: by handlers, or by hand."""
# ruff: noqa: S608 - what is put into the SQL here is written here

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import evolve

from .moves import ANSWER_MOVES, AnswerAct, AnswerState
from .problems import UnfitError
from .values import Handling

if TYPE_CHECKING:
    from .records import Records

HandlingPlace: TypeAlias = tuple[int, str, str]
"""Number of the work, run and action: ids of actions may be mere positions."""

_HANDLING: Final = "run_id, action_id, name, state, output, is_error, owner, digest"


class Handlings:
    """The rows of actions that work has come to. For use within a transaction that holds the write lock."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._owners = records.owners
        self._do = records.execute

    def handle(
        self, key: str, run_id: str, action_id: str, name: str, repeatable: bool, digest: str | None = None
    ) -> Handling:
        """
        Insert an action as running, or return what is there.

        An answer to another action of the same id, with another name or arguments, is no answer to this one.
        """
        place = (self._records.id_of(key), run_id, action_id)
        found = self.found(place)
        if found is not None and found.output is not None and not found.is_of(digest):
            self.forget(place)
            found = None
        if found is None:
            self._do(
                "INSERT INTO handling (work, run_id, action_id, name, state, owner, digest) VALUES (?,?,?,?,?,?,?)",
                (*place, name, ANSWER_MOVES.after(AnswerState.OPEN, AnswerAct.HANDLE), self._owners.me, digest),
            )
            return evolve(self.present(place), fresh=True)
        if repeatable and not found.alive and ANSWER_MOVES.allows(found.state, AnswerAct.HANDLE_AGAIN):
            self._move(place, AnswerAct.HANDLE_AGAIN, owner=self._owners.me, digest=digest)
            return evolve(self.present(place), fresh=True, taken=True)
        return found

    def unhandle(self, key: str, handled: Handling | None) -> None:
        """Undo a `handle` whose caller never heard of it."""
        if handled is not None and handled.taken:
            self.cut_off(key, handled.run_id, handled.action_id)
        elif handled is not None and handled.fresh:
            self.abandon_handler(key, handled.run_id, handled.action_id)

    def answered(self, key: str, run_id: str, action_id: str, output: str, is_error: bool) -> Handling:
        """Keep the answer to an action, unless one was given by hand meanwhile; return what is kept."""
        place = (self._records.id_of(key), run_id, action_id)
        if ANSWER_MOVES.allows(self.present(place).state, AnswerAct.ANSWER):
            self._move(place, AnswerAct.ANSWER, output=output, is_error=is_error, owner=self._owners.me)
        return self.present(place)

    def abandon_handler(self, key: str, run_id: str, action_id: str) -> None:
        """Delete an action whose handler gave no answer, unless somebody else's handler is at it."""
        place = (self._records.id_of(key), run_id, action_id)
        found = self.found(place)
        if (
            found is not None
            and (found.mine or not found.alive)
            and ANSWER_MOVES.allows(found.state, AnswerAct.ABANDON)
        ):
            self.forget(place)

    def cut_off(self, key: str, run_id: str, action_id: str) -> None:
        """Leave an action that we were at to nobody."""
        place = (self._records.id_of(key), run_id, action_id)
        found = self.present(place)
        if found.mine and ANSWER_MOVES.allows(found.state, AnswerAct.CUT_OFF):
            self._move(place, AnswerAct.CUT_OFF, owner="")

    def unfit(self, key: str, run_id: str, action_id: str) -> None:
        """Leave an action to nobody whose answer cannot be sent: its handler has run, and its answer is not known."""
        place = (self._records.id_of(key), run_id, action_id)
        found = self.present(place)
        if (found.mine or found.output is not None) and ANSWER_MOVES.allows(found.state, AnswerAct.UNFIT):
            self._move(place, AnswerAct.UNFIT, owner="", output=None, is_error=False)

    def posting(self, key: str, run_id: str) -> None:
        """Keep that the answers to a run are about to be posted, and since when, if that is tried again."""
        self._records.change(key, *posting_columns(run_id))

    def not_posted(self, key: str, run_id: str) -> None:
        """Take back that the answers to a run are about to be posted."""
        if self._records.column("posting_run", key) == run_id:
            self._records.change(key, "posting_at = NULL, posting_run = NULL")

    def posted(self, key: str, run_id: str) -> None:
        """Mark every answer of a pause as posted."""
        self._do(
            "UPDATE handling SET state = ? WHERE work = ? AND run_id = ?"
            f" AND state IN ({ANSWER_MOVES.sources(AnswerAct.POST)})",
            (AnswerState.POSTED, self._records.id_of(key), run_id),
        )

    def answers(self, key: str, run_id: str) -> tuple[Handling, ...]:
        """Return every action of a run, in the order in which they came up."""
        rows = self._do(
            f"SELECT {_HANDLING} FROM handling WHERE work = ? AND run_id = ? ORDER BY id",
            (self._records.id_of(key), run_id),
        )
        return tuple(self._made(row) for row in rows.fetchall())

    def found(self, place: HandlingPlace) -> Handling | None:
        """Return the row of an action, None if there is none."""
        row = self._do(
            f"SELECT {_HANDLING} FROM handling WHERE work = ? AND run_id = ? AND action_id = ?", place
        ).fetchone()
        return None if row is None else self._made(row)

    def present(self, place: HandlingPlace) -> Handling:
        """Return the row of an action; raise `UnfitError` if there is none."""
        found = self.found(place)
        if found is None:
            raise UnfitError(f"it holds no action {place[2]!r} of run {place[1]!r}; call handle first")
        return found

    def forget(self, place: HandlingPlace) -> None:
        """Delete the row of an action, if there is one."""
        self._do("DELETE FROM handling WHERE work = ? AND run_id = ? AND action_id = ?", place)

    def _move(self, place: HandlingPlace, act: AnswerAct, **changes: object) -> None:
        """Change an action that is there; raise `IllegalMoveError` where its state does not allow *act*."""
        state = ANSWER_MOVES.after(self.present(place).state, act)
        what = ", ".join(f"{column} = ?" for column in changes)
        self._do(
            f"UPDATE handling SET state = ?, {what} WHERE work = ? AND run_id = ? AND action_id = ?",
            (state, *changes.values(), *place),
        )

    def _made(self, row: Sequence[Any]) -> Handling:
        run_id, action_id, name, state, output, is_error, owner, digest = row
        return Handling(
            run_id=run_id,
            action_id=action_id,
            name=name,
            state=AnswerState(state),
            output=output,
            is_error=bool(is_error),
            owner=owner,
            alive=self._owners.alive(owner),
            mine=owner == self._owners.me,
            digest=digest,
        )


def posting_columns(run_id: str) -> tuple[str, str, float, str]:
    """Return how a row of work says that the answers to a run are being posted, and the values for that."""
    what = "posting_at = CASE WHEN posting_run = ? THEN posting_at ELSE ? END, posting_run = ?"
    return what, run_id, time.time(), run_id
