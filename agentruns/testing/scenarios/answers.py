"""Pauses and their answers: given once, together, elsewhere, and never twice."""

from __future__ import annotations

import asyncio
from typing import Final
from unittest import mock

from agentruns._api.retry import Backoff
from agentruns._values.run import Run, RunStatus, ToolOutput
from agentruns.emulator import Fault
from agentruns.errors import AgentRunsError, ConfigurationError, OutcomeUnknownError
from agentruns.inbox import Inbox
from agentruns.testing.acts import Handler, counted, followed, paused, pausing, raises, waits
from agentruns.testing.case import Case, Live
from agentruns.testing.scenario import scenario

_SOON: Final = Backoff(initial=0.05, maximum=0.2)
"""When a parked run is looked at, in place of half a minute and more."""


@scenario("a pause ends a stream without tools", "resume", live="directed")
async def a_pause_ends(case: Case) -> None:
    """Follow a run that pauses, with nobody to answer."""
    async with case.serve(*pausing(case)) as server, case.connect(server) as client:
        states = await followed(case, client, server)
    assert states[-1].status is RunStatus.REQUIRES_ACTION
    assert len(states[-1].actions) == 1
    assert states[-1].actions[0].arguments


@scenario("an answer goes on to the end", "resume", live="directed")
async def an_answer_goes_on(case: Case) -> None:
    """Answer a pause by a handler."""
    handler = Handler()
    async with case.serve(*pausing(case)) as server, case.connect(server) as client:
        states = await followed(case, client, server, tools=handler)
    assert states[-1].status is RunStatus.COMPLETED
    assert len(handler.answered) == 1


@scenario("several pending actions are answered together", "resume", live="directed")
async def several_together(case: Case) -> None:
    """Answer two actions of one pause."""
    handler = Handler()
    async with case.serve(*pausing(case, 2)) as server, case.connect(server) as client:
        states = await followed(case, client, server, tools=handler)
    assert states[-1].status is RunStatus.COMPLETED
    assert len(handler.answered) == len(set(handler.answered)) == 2


@scenario("a paused run is parked and answered elsewhere", "resume", live="directed")
async def parked_and_answered(case: Case) -> None:
    """Write a paused run down, and answer it by another client."""
    async with case.serve(*pausing(case)) as server:
        async with case.connect(server) as client:
            waiting, origin = await paused(case, client, server)
            parked = waiting.to_json()
        async with case.connect(server) as other:
            run = Run.from_json(parked)
            resumed = await other.resume(run, [ToolOutput(action, "yes") for action in run.actions], origin=origin)
            assert (await other.result(resumed, timeout=20)).status is RunStatus.COMPLETED


def _repeats_nothing(case: Case) -> str:
    return "" if case.vendor.asks_origin() else "its answers repeat nothing of what the start said"


@scenario(
    "an answer that must repeat its start is not given without it", "resume", live="directed", unless=_repeats_nothing
)
async def not_without_origin(case: Case) -> None:
    """Come with nothing but a paused run: no handler is run and nothing sent, until it is said what started it."""
    handler = Handler()
    async with case.serve(*pausing(case)) as server:
        async with case.connect(server) as client:
            asked, origin = await paused(case, client, server)
        async with case.connect(server) as other:
            outputs = [ToolOutput(action, "yes") for action in asked.actions]
            with raises(ConfigurationError, "origin"):
                await other.resume(asked, outputs)
            with raises(ConfigurationError, "origin"):
                await other.result(asked, tools=handler, timeout=waits(server))
            assert not handler.answered, "a handler was run whose answer cannot be sent"
            counted(server, 1)
            resumed = await other.resume(asked, outputs, origin=origin)
            assert (await other.result(resumed, timeout=waits(server))).status is RunStatus.COMPLETED


@scenario("a lost answer to a resume answers once", "resume", "resume_path")
async def a_lost_answer(case: Case) -> None:
    """Lose what the vendor says to an answer."""
    handler = Handler()
    async with case.emulator(*pausing(case)) as emulator, case.connect(emulator) as client:
        after = 1 if case.resume_path == case.start_path else 0
        emulator.fail(Fault.drop(committed=True, method=case.resume_method, path=case.resume_path, after=after))
        if case.can_settle_answers:
            states = await followed(case, client, emulator, tools=handler)
            assert states[-1].status is RunStatus.COMPLETED
            counted(emulator, 2 if states[0].id != states[-1].id else 1)
        else:
            with raises(OutcomeUnknownError):
                await followed(case, client, emulator, tools=handler)
            counted(emulator, 2 if case.resume_path == case.start_path else 1)
        assert not emulator.faults.waiting, f"no {case.resume_method} went to `resume_path`"
    assert len(handler.answered) == 1


@scenario("a second answer from elsewhere changes nothing", "resume", live="directed")
async def a_second_answer(case: Case) -> None:
    """Answer a pause by one client, then otherwise by another that does not know of it."""
    async with (
        case.serve(*pausing(case)) as server,
        case.connect(server) as client,
        case.connect(server) as other,
    ):
        asked, origin = await paused(case, client, server)
        first = await client.resume(asked, [ToolOutput(action, "yes") for action in asked.actions])
        done = await client.result(first, timeout=waits(server))
        started = 0 if isinstance(server, Live) else server.state.runs_started
        try:
            second = await other.resume(asked, [ToolOutput(action, "no") for action in asked.actions], origin=origin)
        except AgentRunsError:
            pass  # it says so
        else:
            assert second.id == done.id, "a second answer began a run of its own"
        assert (await other.fetch(done)) == done, "a second answer changed a run that was over"
        counted(server, started)


@scenario("a run that was answered elsewhere is seen to go on", "resume", live="directed")
async def answered_elsewhere(case: Case) -> None:
    """Answer a pause by one client while the run is read by another."""
    async with (
        case.serve(*pausing(case)) as server,
        case.connect(server) as client,
        case.connect(server) as other,
    ):
        asked, origin = await paused(case, client, server)
        answered = await other.resume(asked, [ToolOutput(action, "yes") for action in asked.actions], origin=origin)
        await other.result(answered, timeout=waits(server))
        if answered.id == asked.id:
            seen = await client.fetch(asked)
        else:
            seen = await client.fetch(answered)
        assert seen.status is RunStatus.COMPLETED, f"it is {seen.status} to who did not answer it"
        assert not seen.actions, "a run that is over still asks"


@scenario("a question that is answered elsewhere is taken back", "resume", live="directed")
async def a_question_is_taken_back(case: Case) -> None:
    """Have a person asked by one client, and answer by another."""
    inbox = Inbox()
    async with (
        case.serve(*pausing(case)) as server,
        case.connect(server) as client,
        case.connect(server) as other,
    ):
        origin = await case.origin(client, server)
        with mock.patch("agentruns._polling.pace._LOOKS", _SOON):
            waiting = asyncio.create_task(client.result(origin, tools=inbox, timeout=waits(server)))
            try:
                async for pending in inbox.changes():
                    if pending:
                        break
                paused = pending[0].run
                answered = await other.resume(paused, [ToolOutput(action, "yes") for action in paused.actions])
                assert answered.id == paused.id or case.vendor.answered_by is not None, (
                    f"the answer began run {answered.id}, and without `answered_by` nobody who waits can find it"
                )
                done = await waiting
            finally:
                waiting.cancel()
    assert done.status is RunStatus.COMPLETED
    assert done.id == answered.id, f"run {done.id} was followed, not run {answered.id}, which the answer began"
    assert await inbox.pending() == (), "the question was not taken back"
