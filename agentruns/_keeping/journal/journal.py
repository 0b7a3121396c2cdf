"""The journal as tasks use it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Final

from attrs import evolve

from .budget import Budgets
from .decisions import Decisions
from .handlings import Handlings
from .moves import WaitAct
from .parked import Look, ParkedActions, ParkedRow, Place
from .reading import Readers, Reading
from .session import Session, check_key
from .starts import Known, Starts
from .tending import Tended, Tending
from .values import Decision, GivenAnswer, Glance, Handling, Work

if TYPE_CHECKING:
    from .records import Records

_FIRST_LOOK: Final = 0.05
_LAST_LOOK: Final = 1.0
_UNSENT: Final = "The next request of the start was not sent"
_PRUNED: Final = 1000
"""Pieces of work that one commit deletes: others wait for it."""


class Journal(Session):
    """
    Keep what is begun, seen and answered, in the SQLite file or the PostgreSQL database at *path*.

    Texts are JSON, made and read by the caller. All is as `Session` says; a cancelled `begin`, `attach`, `handle`,
    `checkpoint` or `reserve` is undone. All raise `ConfigurationError` for a key that is none. `tending` has what
    services tend, `reading` what one process reads for all, `budgets` what may be sent.
    """

    def __init__(self, path: str | os.PathLike[str], vendor: str) -> None:
        super().__init__(path, vendor)
        self.tending: Final = Tending(self)
        self.reading: Final = Reading(self)
        self.budgets: Final = Budgets(self)

    # Work -------------------------------------------------------------------------------------------------------------

    async def begin(self, key: str, origin: str, digest: str | None = None, *, tended: bool = False) -> Work:
        """
        Insert a piece of work as "starting" (`fresh`), or return what is there; *digest* names what is asked for.

        Work that is not done and whose owner is gone is taken over (`taken`). If it is *tended*, and not done, that is
        entered together with it.
        """
        return await self._begin(key, origin, None, digest, tended)

    async def attach(self, key: str, origin: str, run: str, digest: str | None = None, *, tended: bool = False) -> Work:
        """Do as `begin` does, for work on a run that exists already: new work is "open"."""
        return await self._begin(key, origin, run, digest, tended)

    async def checkpoint(self, key: str, note: str, group_name: str = "", visible_after: float = 0.0) -> Known:
        """
        Keep what the start found out, before its next request; return what was known of it before.

        The vendor shows the run that this start makes within *visible_after* seconds.
        """
        return await self.do_or_undo(
            key,
            lambda records: Starts(records).checkpoint(key, note, group_name, visible_after),
            _UNSENT,
            lambda records, before: None if before is None else Starts(records).take_back(key, note, before),
        )

    async def not_sent(self, key: str, note: str, before: Known) -> None:
        """Undo a `checkpoint`, by what it has returned: the request was not sent, or was clearly refused."""
        await self.do_for(key, lambda records: Starts(records).take_back(key, note, before), _UNSENT)

    async def reserve(self, key: str, group_name: str) -> bool:
        """Have the start count as the one of that group that is under way, unless another one is."""
        before = await self.do_or_undo(
            key,
            lambda records: Starts(records).reserve(key, group_name),
            _UNSENT,
            lambda records, before: None if before is None else Starts(records).take_back(key, before[0], before),
        )
        return before is not None

    async def recovering(self, key: str) -> None:
        """Keep that a start is not gone through with any more, but looked for."""
        await self.do_for(
            key, lambda records: Starts(records).recovering(key), "The run goes on at the vendor, if there is one"
        )

    async def claim(self, key: str, run_id: str) -> str:
        """
        Tell whose a run is that was found by looking: "mine", which is kept, or "others".

        It is "open" while another start is under way whose run it may be, and "unclear" if one has died unsettled.
        """
        return await self.do_for(
            key, lambda records: Starts(records).claim(key, run_id), "The run goes on at the vendor"
        )

    async def saw(self, key: str, run: str, *, done: bool = False) -> None:
        """Keep a state of the run; the first makes the work "open", *done* ends it for good."""

        def saw(records: Records) -> None:
            records.saw(key, run, done)
            ParkedActions(records).seen(run)

        await self.do_for(
            key,
            saw,
            "The run goes on at the vendor; its last state is not in the journal",
        )

    async def forget_start(self, key: str) -> None:
        """Delete work whose start was refused, so that a later `begin` starts anew; other work stays."""

        def forget_start(records: Records) -> None:
            if records.forget_start(key):
                Tended(records).told(key)

        await self.do_for(key, forget_start, "The start was refused, and nothing runs")

    async def release(self, key: str) -> None:
        """
        Stop working at it, if this journal is: another may take it over at once.

        Handlers that are still running count as cut off: what they did is not known.
        """
        await self.do_for(key, lambda records: records.release(key), "The work is free when this process ends")

    async def get(self, key: str) -> Work | None:
        """Return the work named *key*, None if there is none."""
        check_key(key)
        return await self.read(lambda records: records.get(key))

    async def wait(self, key: str, seen: float) -> Work | None:
        """
        Return the work when it has changed since *seen*, an `updated` of it, when it is done, or when nobody is at it.

        None means that its start was forgotten. The file is looked at at once, then ever less often, down to once a
        second.
        """
        pause = _FIRST_LOOK
        while True:
            heard = self.heard()
            work = await self.get(key)
            if work is None or work.updated > seen or work.state == "done" or not work.alive:
                return work
            await self.pause(heard, pause)
            pause = min(pause * 1.6, _LAST_LOOK)

    async def unfinished(self) -> AsyncGenerator[Work, None]:
        """Iterate over this vendor's work that is not done, oldest first; only a page of it is held in memory."""
        after = 0
        while page := await self._page(after):
            for after, work in page:  # noqa: B007 - the next page follows the last of this one
                yield work

    async def _page(self, after: int) -> list[tuple[int, Work]]:
        return await self.read(lambda records: records.unfinished(after))

    async def of_run(self, run_id: str) -> Work | None:
        """Return the work that is at a run of that id, or was; None if there is none."""
        return await self.read(lambda records: records.of_run(run_id))

    async def glance(self, keys: Sequence[str], run_ids: Sequence[str], read: Sequence[str] = ()) -> Glance:
        """Return, by one read, how the work of keys stands, which runs have work at all, and how others are *read*."""

        def glance(records: Records) -> Glance:
            return evolve(records.glance(keys, run_ids), readings=Readers(records).stands(read))

        return await self.read(glance)

    async def forget(self, key: str) -> bool:
        """Delete work, whatever became of it; return False, and change nothing, if somebody is at it."""

        def forget(records: Records) -> bool:
            if not records.forget(key):
                return False
            Tended(records).told(key)
            return True

        return await self.do_for(key, forget, "The work is as it was")

    async def prune(self, before: float) -> int:
        """
        Delete this vendor's work that was done before a time, in seconds since the epoch; return how much it was.

        What is tended and not told of yet stays.

        The file gets smaller where nobody else reads it meanwhile; else what it holds is used again.
        """
        found = 0
        while deleted := await self.do(lambda records: records.prune(before, _PRUNED)):
            found += deleted
        if found:
            await self.compact()
        return found

    # Handlings --------------------------------------------------------------------------------------------------------

    async def handle(
        self,
        key: str,
        run_id: str,
        action_id: str,
        name: str,
        *,
        repeatable: bool = False,
        digest: str | None = None,
    ) -> Handling:
        """
        Insert an action as "running" (`fresh`: run the handler now), or return what is there.

        *digest* names what is asked: an answer to something else of the same id is not returned, but forgotten.

        With *repeatable*, one that was running when its owner went is to be run again (`fresh` and `taken`).
        """
        return await self.do_or_undo(
            key,
            lambda records: Handlings(records).handle(key, run_id, action_id, name, repeatable, digest),
            "The handler was not run",
            lambda records, handled: Handlings(records).unhandle(key, handled),
        )

    async def answered(self, key: str, run_id: str, action_id: str, output: str, is_error: bool) -> Handling:
        """Keep the answer to an action, before it is posted; return what is kept: one given by hand stands."""
        return await self.do_for(
            key,
            lambda records: Handlings(records).answered(key, run_id, action_id, output, is_error),
            f"The handler of action {action_id!r} has run, and its answer is not in the journal",
        )

    async def abandon_handler(self, key: str, run_id: str, action_id: str) -> None:
        """Forget an action whose handler ended without an answer or was cut off, so that it may be run again."""
        await self.do_for(
            key,
            lambda records: Handlings(records).abandon_handler(key, run_id, action_id),
            f"The handler of action {action_id!r} counts as running until this process ends",
        )

    async def cut_off(self, key: str, run_id: str, action_id: str) -> None:
        """Note that a handler of ours was cut off: what it did is not known, and nobody is at it any more."""
        await self.do_for(
            key,
            lambda records: Handlings(records).cut_off(key, run_id, action_id),
            f"The handler of action {action_id!r} counts as running until this process ends",
        )

    async def unfit(self, key: str, run_id: str, action_id: str, *, ask_again: bool) -> None:
        """
        Note that an answer cannot be sent: it is not kept, and what its handler did stays done.

        With *ask_again*, the handler may be run again, and a person who gave the answer is asked again.
        """

        def unfit(records: Records) -> None:
            Handlings(records).unfit(key, run_id, action_id)
            if ask_again:
                ParkedActions(records).take_back(run_id, action_id)

        await self.do_for(key, unfit, f"The answer to action {action_id!r} cannot be sent, and the journal keeps it")

    async def decided(
        self, run_id: str, answers: Sequence[GivenAnswer], *, posting: bool = False, again: bool = False
    ) -> Decision:
        """
        Keep answers that were given by hand, before they are posted, in all work whose last state that run is.

        Handlers that are running are overtaken, and nobody is asked any more. Where another answer was given before,
        by hand, by a handler or in an inbox, that one stands: nothing changes, and the decision says so. With
        *posting*, note as `posting` does that they are about to be sent; with *again*, replace what was not posted.
        """

        def decided(records: Records) -> Decision:
            parked = ParkedActions(records)
            standing = () if again else parked.standing(run_id, answers)
            if standing:
                return Decision(standing)
            decision = Decisions(records).decided(run_id, answers, posting=posting, again=again)
            if decision.standing:
                return decision
            return evolve(decision, withdrawn=parked.decided(run_id, [each.action_id for each in answers]))

        return await self.do(decided, "Nothing was posted")

    async def take_back(self, run_id: str, decision: Decision) -> None:
        """Undo what `decided` has entered, since the vendor has refused it: who answers next is the first."""

        def take_back(records: Records) -> None:
            Decisions(records).take_back(run_id, decision)
            ParkedActions(records).wait_again(run_id, decision.withdrawn)

        await self.do(take_back, "The vendor has refused the answers, and the journal keeps them")

    async def runs_since(self, created: float) -> list[str]:
        """Return the ids of the runs of all work that changed at or after *created*, seconds since the epoch."""
        return await self.read(lambda records: records.runs_since(created))

    async def origins_at(self, run_id: str) -> list[str]:
        """Return what started the work whose last state is of that run, each as it was given."""
        return await self.read(lambda records: records.origins_at(run_id))

    async def moved(self, run_id: str, action_ids: Sequence[str], run: str, *, done: bool) -> None:
        """Note that actions of a run were answered by hand: *run* follows it, in all work whose last state it was."""
        await self.do(
            lambda records: Decisions(records).moved(run_id, action_ids, run, done), "The run goes on at the vendor"
        )

    async def posting(self, key: str, run_id: str) -> None:
        """Keep that the answers to a run are about to be posted, and when that was tried first."""
        await self.do_for(key, lambda records: Handlings(records).posting(key, run_id), "Nothing was posted")

    async def not_posted(self, key: str, run_id: str) -> None:
        """Take back what `posting` kept: the answers were clearly refused."""
        await self.do_for(key, lambda records: Handlings(records).not_posted(key, run_id), "The answers were refused")

    async def posted(self, key: str, run_id: str) -> None:
        """Keep that all answers of this pause were posted."""
        await self.do_for(
            key, lambda records: Handlings(records).posted(key, run_id), "The answers were posted, and may be again"
        )

    async def answers(self, key: str, run_id: str) -> tuple[Handling, ...]:
        """Return every action of a run that `handle` was called for, oldest first, whatever became of it."""
        check_key(key)
        return await self.read(lambda records: Handlings(records).answers(key, run_id))

    # Parked actions ---------------------------------------------------------------------------------------------------

    async def park(self, row: ParkedRow) -> ParkedRow:
        """Enter an action that waits for a person, and return what is there: it may have its answer already."""
        return await self.do(lambda records: ParkedActions(records).park(row), "Nobody can answer the action")

    async def settle(self, place: Place, act: WaitAct, output: str | None = None, digest: str | None = None) -> bool:
        """
        End the wait of an action; return False, and change nothing, if it does not wait: one of many wins.

        Nor is an action ended that asks something else than what *digest* names.
        """
        return await self.do(
            lambda records: ParkedActions(records).settle(place, act, output, digest), "The action waits on"
        )

    async def waiting(self, run_id: str | None = None) -> list[ParkedRow]:
        """Return the actions of every vendor, or of one run, that wait for a person, oldest first."""
        return await self.read(lambda records: ParkedActions(records).waiting(run_id))

    async def called(self, action_id: str, run_id: str | None = None) -> list[ParkedRow]:
        """Return the actions of that id that wait; if there are none, the last one that did, in the same work."""
        return await self.read(lambda records: ParkedActions(records).called(action_id, run_id))

    async def look(self, places: Sequence[Place]) -> Look:
        """Return which actions wait, briefly, and those of *places* that do not."""
        return await self.read(lambda records: ParkedActions(records).look(places))

    # ------------------------------------------------------------------------------------------------------------------

    async def _begin(self, key: str, origin: str, run: str | None, digest: str | None, tended: bool) -> Work:
        def begin(records: Records) -> Work:
            work = records.begin(key, origin, run, digest)
            if tended and work.state != "done":
                Tended(records).enter(key)
            return work

        def undo(records: Records, begun: Work | None) -> None:
            if records.unbegin(key, begun):
                Tended(records).told(key)

        return await self.do_or_undo(key, begin, "Nothing was sent", undo)
