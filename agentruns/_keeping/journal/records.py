"""What the operations of a journal do to its tables; each is one transaction, or part of one."""
# ruff: noqa: S608 - what is put into the SQL here is written here

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from attrs import evolve

from .moves import ANSWER_MOVES, AnswerAct, AnswerState
from .problems import UnfitError
from .tables import SQLITE, Owners, Spelling, Tables
from .values import Decision, GivenAnswer, Glance, Handling, StandingAnswer, Work

_WORK: Final = (
    "key, vendor, origin, state, start_note, group_name, posting_run, posting_at, run, owner, created, updated, digest"
)
_WORK_COLUMNS: Final = _WORK.split(", ")
_HANDLING: Final = "run_id, action_id, name, state, output, is_error, owner, digest"
_PAGE: Final = 32
"""Rows at a time: few, since each may hold megabytes."""


_MOST_NAMES: Final = 500


class Records:
    """The work of one vendor, as one owner sees it. For use within a transaction that holds the write lock."""

    def __init__(self, tables: Tables, owners: Owners, vendor: str, spelling: Spelling = SQLITE) -> None:
        self.tables: Final = tables
        self.execute = self._do = tables.execute
        self._sql = spelling
        self.vendor = self._vendor = vendor
        self.owners: Final = owners
        self._owners = owners

    # Work -------------------------------------------------------------------------------------------------------------

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
            self._was_at(key)
            return evolve(self._known(key), fresh=True)
        if found.state != "done" and not found.alive:
            self._change(key, "owner = ?", self._owners.me)
            return evolve(self._known(key), taken=True)
        return found

    def unbegin(self, key: str, begun: Work | None) -> bool:
        """Undo a `begin` whose caller never heard of it; return whether there is no such work any more."""
        if begun is not None and begun.fresh:
            self._do("DELETE FROM work WHERE vendor = ? AND key = ?", (self._vendor, key))
            return True
        if begun is not None and begun.taken:  # handlers that run are those of others here, who go on
            self._change(key, "owner = ''")
        return False

    def checkpoint(
        self, key: str, note: str, group_name: str | None = None, visible_until: float | None = None
    ) -> None:
        """Keep what the start found out, in the place of all that is known of it from before."""
        self._hold(key)
        self._change(
            key,
            "start_note = ?, group_name = ?, visible_until = ?, recovers = 0, found_run = NULL",
            note,
            group_name,
            visible_until,
        )

    def reserve(self, key: str, note: str, group_name: str, visible_after: float) -> bool:
        """
        Do as `checkpoint` does, unless a start of the same group is under way whose run is not known.

        One that has died counts as under way for as long as its run may yet be shown: *visible_after* seconds.
        """
        self._hold(key)
        now = time.time()
        for owner, recovers, visible_until in self._others(key, group_name):
            if now < visible_until or (not recovers and self._owners.alive(owner)):
                return False
        self.checkpoint(key, note, group_name, now + visible_after)
        return True

    def recovering(self, key: str) -> None:
        """Keep that a start is not gone through with any more, but looked for."""
        self._hold(key)
        self._change(key, "recovers = 1")

    def claim(self, key: str, run_id: str) -> str:
        """
        Tell whose a run is that was found by looking: "mine", which is kept, or "others".

        It is "open" while another start is under way whose run it may be, and "unclear" if one has died unsettled.
        """
        self._hold(key)
        group_name, recovers, created = self._do(
            "SELECT group_name, recovers, created FROM work WHERE vendor = ? AND key = ?", (self._vendor, key)
        ).fetchone()
        taken = self._do(
            "SELECT 1 FROM work WHERE vendor = ? AND updated >= ? AND key <> ?"
            f" AND (found_run = ? OR {self._sql.run_id} = ?) LIMIT 1",
            (self._vendor, created, key, run_id, run_id),
        ).fetchone()
        if taken is not None:
            return "others"
        if recovers and group_name is not None:
            others = self._others(key, group_name)
            if any(self._owners.alive(owner) for owner, recovers, _ in others if not recovers):
                return "open"
            if others:
                return "unclear"
        self._change(key, "found_run = ?", run_id)
        return "mine"

    def _others(self, key: str, group_name: str) -> list[tuple[str, bool, float]]:
        """
        Return the other starts of a group whose run is not known.

        That is: who is at it, whether that is to recover it, and by when, of the epoch, its run is shown.
        """
        rows = self._do(
            "SELECT owner, recovers, visible_until FROM work WHERE vendor = ? AND state <> 'done'"
            " AND state = 'starting' AND key <> ? AND group_name = ? AND found_run IS NULL",
            (self._vendor, key, group_name),
        )
        return [(owner, bool(recovers), visible_until or 0.0) for owner, recovers, visible_until in rows.fetchall()]

    def posting(self, key: str, run_id: str) -> None:
        """Keep that the answers to a run are about to be posted, and since when, if that is tried again."""
        self._change(key, *_posting(run_id))

    def not_posted(self, key: str, run_id: str) -> None:
        """Take back that the answers to a run are about to be posted."""
        if self._one("posting_run", key) == run_id:
            self._change(key, "posting_at = NULL, posting_run = NULL")

    def saw(self, key: str, run: str, done: bool) -> None:
        """Keep a state; one that comes after the end changes nothing. What the start found out has served its turn."""
        if done or self._state_of(key) != "done":
            self._change(key, "run = ?, state = ?, start_note = NULL", run, "done" if done else "open")
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
            self._change(key, "owner = ''")
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
        for some in _pieces(keys):
            for key, owner, updated, state in self._do(
                f"SELECT key, owner, updated, state FROM work WHERE vendor = ? AND key IN ({_marks(some)})",
                (self._vendor, *some),
            ).fetchall():
                is_driven = state != "done" and owner != self._owners.me and self._owners.alive(owner)
                stands[key] = updated, is_driven
        found: set[str] = set()
        for some in _pieces(run_ids):
            rows = self._do(
                "SELECT DISTINCT run_id FROM work_run JOIN work ON work = id"
                f" WHERE vendor = ? AND run_id IN ({_marks(some)})",
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
            self._change(key, "owner = ?", self._owners.me)
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

    # Handlings --------------------------------------------------------------------------------------------------------

    def handle(
        self, key: str, run_id: str, action_id: str, name: str, repeatable: bool, digest: str | None = None
    ) -> Handling:
        """
        Insert an action as running, or return what is there.

        An answer to another action of the same id, with another name or arguments, is no answer to this one.
        """
        place = (self._id_of(key), run_id, action_id)
        found = self._handling(place)
        if found is not None and found.output is not None and not found.is_of(digest):
            self._forget(place)
            found = None
        if found is None:
            self._do(
                "INSERT INTO handling (work, run_id, action_id, name, state, owner, digest) VALUES (?,?,?,?,?,?,?)",
                (*place, name, ANSWER_MOVES.after(AnswerState.OPEN, AnswerAct.HANDLE), self._owners.me, digest),
            )
            return evolve(self._present(place), fresh=True)
        if repeatable and not found.alive and ANSWER_MOVES.allows(found.state, AnswerAct.HANDLE_AGAIN):
            self._move(place, AnswerAct.HANDLE_AGAIN, owner=self._owners.me, digest=digest)
            return evolve(self._present(place), fresh=True, taken=True)
        return found

    def unhandle(self, key: str, handled: Handling | None) -> None:
        """Undo a `handle` whose caller never heard of it."""
        if handled is not None and handled.taken:
            self.cut_off(key, handled.run_id, handled.action_id)
        elif handled is not None and handled.fresh:
            self.abandon_handler(key, handled.run_id, handled.action_id)

    def answered(self, key: str, run_id: str, action_id: str, output: str, is_error: bool) -> Handling:
        """Keep the answer to an action, unless one was given by hand meanwhile; return what is kept."""
        place = (self._id_of(key), run_id, action_id)
        if ANSWER_MOVES.allows(self._present(place).state, AnswerAct.ANSWER):
            self._move(place, AnswerAct.ANSWER, output=output, is_error=is_error, owner=self._owners.me)
        return self._present(place)

    def abandon_handler(self, key: str, run_id: str, action_id: str) -> None:
        """Delete an action whose handler gave no answer, unless somebody else's handler is at it."""
        place = (self._id_of(key), run_id, action_id)
        found = self._handling(place)
        if (
            found is not None
            and (found.mine or not found.alive)
            and ANSWER_MOVES.allows(found.state, AnswerAct.ABANDON)
        ):
            self._forget(place)

    def cut_off(self, key: str, run_id: str, action_id: str) -> None:
        """Leave an action that we were at to nobody."""
        place = (self._id_of(key), run_id, action_id)
        found = self._present(place)
        if found.mine and ANSWER_MOVES.allows(found.state, AnswerAct.CUT_OFF):
            self._move(place, AnswerAct.CUT_OFF, owner="")

    def unfit(self, key: str, run_id: str, action_id: str) -> None:
        """Leave an action to nobody whose answer cannot be sent: its handler has run, and its answer is not known."""
        place = (self._id_of(key), run_id, action_id)
        found = self._present(place)
        if (found.mine or found.output is not None) and ANSWER_MOVES.allows(found.state, AnswerAct.UNFIT):
            self._move(place, AnswerAct.UNFIT, owner="", output=None, is_error=False)

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
        for key in self._at(run_id):
            work = self._id_of(key)
            if posting:
                if self._one("posting_run", key) != run_id:
                    fresh_posting.append(work)
                what, *values = _posting(run_id)
                self._do(f"UPDATE work SET {what} WHERE id = ?", (*values, work))
            for given in answers:
                place = (work, run_id, given.action_id)
                before = self._handling(place)
                if before is not None and before.output is not None and not before.is_of(given.digest):
                    self._forget(place)
                    before = None
                if before is not None and again and ANSWER_MOVES.allows(before.state, AnswerAct.TAKE_BACK):
                    self._forget(place)
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

    def _decide(self, place: tuple[int, str, str], given: GivenAnswer) -> bool:
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
            found = self._handling(place)
            if (
                found is None
                or not given.says(found.output, found.is_error)
                or not ANSWER_MOVES.allows(found.state, AnswerAct.TAKE_BACK)
            ):
                continue
            self._forget(place)
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
        for key in self._at(run_id):
            work = self._id_of(key)
            for action_id in action_ids:
                self._do(
                    "UPDATE handling SET state = ? WHERE work = ? AND run_id = ? AND action_id = ?"
                    f" AND state IN ({ANSWER_MOVES.sources(AnswerAct.POST)})",
                    (AnswerState.POSTED, work, run_id, action_id),
                )
            self.saw(key, run, done)

    def runs_since(self, created: float) -> list[str]:
        """Return the ids of the runs of work that changed at or after *created*."""
        rows = self._do(
            f"SELECT {self._sql.run_id} FROM work WHERE vendor = ? AND updated >= ? AND {self._sql.run_id} IS NOT NULL",
            (self._vendor, created),
        )
        return [run_id for (run_id,) in rows.fetchall()]

    def origins_at(self, run_id: str) -> list[str]:
        """Return what started the work whose last state is of that run."""
        return [self._known(key).origin for key in self._at(run_id)]

    def _at(self, run_id: str) -> list[str]:
        """Return the keys of the work whose last state is of that run."""
        rows = self._do(
            f"SELECT key FROM work WHERE vendor = ? AND state <> 'done' AND {self._sql.run_id} = ?"
            " AND id IN (SELECT work FROM work_run WHERE run_id = ?)",
            (self._vendor, run_id, run_id),
        )
        return [key for (key,) in rows.fetchall()]

    def posted(self, key: str, run_id: str) -> None:
        """Mark every answer of a pause as posted."""
        self._do(
            "UPDATE handling SET state = ? WHERE work = ? AND run_id = ?"
            f" AND state IN ({ANSWER_MOVES.sources(AnswerAct.POST)})",
            (AnswerState.POSTED, self._id_of(key), run_id),
        )

    def answers(self, key: str, run_id: str) -> tuple[Handling, ...]:
        """Return every action of a run, in the order in which they came up."""
        rows = self._do(
            f"SELECT {_HANDLING} FROM handling WHERE work = ? AND run_id = ? ORDER BY id", (self._id_of(key), run_id)
        )
        return tuple(self._made(row) for row in rows.fetchall())

    # ------------------------------------------------------------------------------------------------------------------

    def _known(self, key: str) -> Work:
        found = self.get(key)
        assert found is not None
        return found

    def _was_at(self, key: str) -> None:
        """Know work by the run of its last state."""
        self._do(
            f"INSERT INTO work_run (run_id, work) SELECT {self._sql.run_id}, id FROM work"
            f" WHERE vendor = ? AND key = ? AND {self._sql.run_id} IS NOT NULL ON CONFLICT DO NOTHING",
            (self._vendor, key),
        )

    def _hold(self, key: str) -> None:
        """Raise `UnfitError` for a start that is not ours any more: others took us for dead, and may be at it."""
        if self._one("owner", key) != self._owners.me:
            raise UnfitError(f"the start of {key!r} is not this process's any more; make the same call again")

    def _id_of(self, key: str) -> int:
        return int(self._one("id", key))

    def _state_of(self, key: str) -> str:
        return str(self._one("state", key))

    def _one(self, column: str, key: str) -> Any:
        row = self._do(f"SELECT {column} FROM work WHERE vendor = ? AND key = ?", (self._vendor, key)).fetchone()
        if row is None:
            raise UnfitError(f"it holds no work of {self._vendor} named {key!r}; begin it first")
        return row[0]

    def _change(self, key: str, what: str, *values: object) -> None:
        """Change a piece of work; `updated` grows even where the clock stands still or goes back."""
        self._do(
            f"UPDATE work SET {what}, updated = {self._sql.greatest}(?, updated + 0.000001) WHERE id = ?",
            (*values, time.time(), self._id_of(key)),
        )

    def _work(self, row: Sequence[Any]) -> Work:
        known = dict(zip(_WORK_COLUMNS, row, strict=True))
        owner = known["owner"]
        return Work(**known, alive=self._owners.alive(owner), mine=owner == self._owners.me)

    def _handling(self, place: tuple[int, str, str]) -> Handling | None:
        row = self._do(
            f"SELECT {_HANDLING} FROM handling WHERE work = ? AND run_id = ? AND action_id = ?", place
        ).fetchone()
        return None if row is None else self._made(row)

    def _present(self, place: tuple[int, str, str]) -> Handling:
        found = self._handling(place)
        if found is None:
            raise UnfitError(f"it holds no action {place[2]!r} of run {place[1]!r}; call handle first")
        return found

    def _forget(self, place: tuple[int, str, str]) -> None:
        self._do("DELETE FROM handling WHERE work = ? AND run_id = ? AND action_id = ?", place)

    def _move(self, place: tuple[int, str, str], act: AnswerAct, **changes: object) -> None:
        """Change an action that is there; raise `IllegalMoveError` where its state does not allow *act*."""
        state = ANSWER_MOVES.after(self._present(place).state, act)
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


def _pieces(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield names, as many at a time as a statement takes."""
    for begin in range(0, len(names), _MOST_NAMES):
        yield names[begin : begin + _MOST_NAMES]


def _marks(names: Sequence[str]) -> str:
    return ",".join("?" * len(names))


def _posting(run_id: str) -> tuple[str, str, float, str]:
    """Return how a row of work says that the answers to a run are being posted, and the values for that."""
    what = "posting_at = CASE WHEN posting_run = ? THEN posting_at ELSE ? END, posting_run = ?"
    return what, run_id, time.time(), run_id
