"""Answering a paused run: one answer at a time, and for a person only if no other answer stands."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

from attrs import evolve

from agentruns._values.run import Run, RunRef, RunStatus, ToolOutput
from agentruns.errors import (
    AgentRunsError,
    AlreadyAnsweredError,
    APIError,
    ConflictError,
    InvalidRequestError,
    ProtocolError,
    TransportError,
)

from .flow import Attempts
from .origins import Origins
from .performing import Performing

logger = logging.getLogger("agentruns")

_TAKEN: Final = 256
"""How many answers that were taken are remembered, so that the same one is known again."""

_MOST_WAITED: Final = 600.0
"""How long a run that came of another answer is waited for where the vendor does not say how long runs take."""

_PACE: Final = (2.0, 8.0)
"""The first and the longest gap between two reads of it, where the vendor advises none."""


class Answering:
    """Post answers, given in plain JSON types, and remember for a while which were taken."""

    def __init__(self, performing: Performing, origins: Origins) -> None:
        self._performing = performing
        self._vendor = performing.vendor
        self._origins = origins
        self._locks: WeakValueDictionary[RunRef, asyncio.Lock] = WeakValueDictionary()
        self._taken: OrderedDict[RunRef, tuple[Sequence[ToolOutput], Run]] = OrderedDict()

    async def answer(
        self, run: Run, outputs: Sequence[ToolOutput], origin: Any, attempts: Attempts | None = None
    ) -> Run:
        """Answer a paused run, which *origin* has started, and return the run that goes on."""
        async with self._locks.setdefault(run.ref, asyncio.Lock()):
            resumed = await self._resumed("resume", run, outputs, attempts, origin)
            self._take(run, outputs, resumed)
        return resumed

    async def answer_first(self, run: Run, outputs: Sequence[ToolOutput], origin: Any, *, again: bool = False) -> Run:
        """
        Answer a paused run for a person; raise `AlreadyAnsweredError` where another answer stands.

        *again*, once more, if the run that answered it has failed; where a run goes on in place, just answer it.
        """
        resume = "resume"
        if again and self._vendor.resume_again is not None:
            resume = "resume_again"
        elif self._vendor.resume_first is not None:
            resume = "resume_first"
        attempts = Attempts()
        async with self._locks.setdefault(run.ref, asyncio.Lock()):
            # Asked first: where a reply gets lost, some vendors cannot be asked whose answer they took.
            taken, followed = self._taken.get(run.ref, ((), run))
            standing = () if again else _others(taken, outputs)
            if standing:
                raise AlreadyAnsweredError(followed, standing)
            try:
                resumed = await self._resumed(resume, run, outputs, attempts, origin)
            except AlreadyAnsweredError as error:
                # What was taken cannot be read yet: it is ours if we have heard so, or if our first try got no answer.
                if error.standing:
                    raise
                if attempts.doubt or taken == outputs:
                    resumed = error.run
                elif error.run.ref != run.ref and await self._stops_moving(error.run):
                    resumed = await self._resumed(resume, run, outputs, Attempts(), origin)
                else:
                    raise
            except (ConflictError, InvalidRequestError) as error:
                if not again and not error.after_doubt:
                    await self._check_answered(run, outputs, error)
                raise
            self._take(run, outputs, resumed)
        return resumed

    async def _check_answered(self, run: Run, outputs: Sequence[ToolOutput], refusal: APIError) -> None:
        """
        Raise `AlreadyAnsweredError` if it can be seen that a refusal comes of another answer, which was first.

        That is a run that came of it, or one that goes on in place. A dialect with `resume_first` has looked at the run
        itself: what it says of a refusal is more than could be seen here, but for a run that came meanwhile.
        """
        looks_itself = self._vendor.resume_first is not None
        if looks_itself and not isinstance(refusal, ConflictError):
            return
        try:
            followed = await self._performing.answered_by(run)
            if followed is not None:
                why = f"run {run.id} was answered before, and run {followed.id} has come of it"
            elif looks_itself or self._vendor.answered_by is not None:
                return
            else:
                followed, why = await self._performing.fetch(run.ref), f"run {run.id} does not ask for this any more"
                asked = {action.id for action in followed.actions}
                if followed.status is RunStatus.FAILED or not asked.isdisjoint(each.action.id for each in outputs):
                    return  # it ended without an answer, or asks still
        except AgentRunsError:
            return  # the refusal says what there is to say
        raise AlreadyAnsweredError(followed, (), why, response=refusal.response) from refusal

    async def _resumed(
        self, name: str, run: Run, outputs: Sequence[ToolOutput], attempts: Attempts | None, origin: Any
    ) -> Run:
        """Post answers; what refuses them, or loses them, says what can be done next."""
        given = {"origin": origin} if self._vendor.asks_origin(name) else {}
        try:
            resumed = await self._performing.repeat_conflicts(name, (run, outputs), None, attempts, given)
        except AlreadyAnsweredError:
            raise
        except (APIError, TransportError) as error:
            error.remedy = error.remedy or (
                f"`client.resume(run, outputs)` answers run {run.id} once that is put right, if `client.fetch(run)` "
                "shows that it still waits"
            )
            raise
        self._origins.keep(resumed, origin)
        return resumed

    async def _stops_moving(self, run: Run) -> bool:
        """Read a run until it moves no more, as long as runs of the vendor may take; tell whether it came to that."""
        if not run.status.in_flight:
            return False
        clock = asyncio.get_running_loop().time
        until = clock() + (self._vendor.RUN_SECONDS or _MOST_WAITED)
        wait, longest = self._vendor.POLL_SECONDS or _PACE
        while clock() < until:
            await asyncio.sleep(wait)
            wait = min(2 * wait, longest)
            try:
                run = await self._performing.fetch(run.ref)
            except (APIError, ProtocolError, TransportError) as error:
                logger.debug("looking again: %s", error)
            if not run.status.in_flight:
                return True
        return False

    def _take(self, run: Run, outputs: Sequence[ToolOutput], resumed: Run) -> None:
        """Remember, for a while, what the vendor has taken, and which run came of it, without its text."""
        self._taken[run.ref] = outputs, evolve(resumed, raw={}, detail=None)
        while len(self._taken) > _TAKEN:
            self._taken.popitem(last=False)


def _others(taken: Sequence[ToolOutput], outputs: Sequence[ToolOutput]) -> tuple[ToolOutput, ...]:
    """Return the answers of *taken* to the same actions that differ."""
    given = {each.action.id: (each.output, each.is_error) for each in outputs}
    return tuple(
        each
        for each in taken
        if given.get(each.action.id, (each.output, each.is_error)) != (each.output, each.is_error)
    )
