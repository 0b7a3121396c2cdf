"""Pauses and their answers: given once, together, elsewhere, and never twice."""

from __future__ import annotations

from agentruns._values.run import Run, RunStatus, ToolOutput
from agentruns.emulator import Fault
from agentruns.errors import AgentRunsError
from agentruns.testing.acts import Handler, counted, followed, pausing, waits
from agentruns.testing.case import Case
from agentruns.testing.scenario import scenario


@scenario("a pause ends a stream without tools", "resume")
async def a_pause_ends(case: Case) -> None:
    """Follow a run that pauses, with nobody to answer."""
    async with case.emulator(*pausing(case)) as emulator, case.connect(emulator) as client:
        states = await followed(case, client, emulator)
    assert states[-1].status is RunStatus.REQUIRES_ACTION
    assert len(states[-1].actions) == 1
    assert states[-1].actions[0].arguments


@scenario("an answer goes on to the end", "resume")
async def an_answer_goes_on(case: Case) -> None:
    """Answer a pause by a handler."""
    handler = Handler()
    async with case.emulator(*pausing(case)) as emulator, case.connect(emulator) as client:
        states = await followed(case, client, emulator, tools=handler)
    assert states[-1].status is RunStatus.COMPLETED
    assert len(handler.answered) == 1


@scenario("several pending actions are answered together", "resume")
async def several_together(case: Case) -> None:
    """Answer two actions of one pause."""
    handler = Handler()
    async with case.emulator(*pausing(case, 2)) as emulator, case.connect(emulator) as client:
        states = await followed(case, client, emulator, tools=handler)
    assert states[-1].status is RunStatus.COMPLETED
    assert len(handler.answered) == len(set(handler.answered)) == 2


@scenario("a paused run is parked and answered elsewhere", "resume")
async def parked_and_answered(case: Case) -> None:
    """Write a paused run down, and answer it by another client."""
    async with case.emulator(*pausing(case)) as emulator:
        async with case.connect(emulator) as client:
            parked = (await followed(case, client, emulator))[-1].to_json()
        async with case.connect(emulator) as other:
            run = Run.from_json(parked)
            resumed = await other.resume(run, [ToolOutput(action, "yes") for action in run.actions])
            assert (await other.result(resumed, timeout=20)).status is RunStatus.COMPLETED


@scenario("a lost answer to a resume answers once", "resume", "resume_path")
async def a_lost_answer(case: Case) -> None:
    """Lose what the vendor says to an answer."""
    handler = Handler()
    async with case.emulator(*pausing(case)) as emulator, case.connect(emulator) as client:
        after = 1 if case.resume_path == case.start_path else 0
        emulator.fail(Fault.drop(committed=True, method="POST", path=case.resume_path, after=after))
        states = await followed(case, client, emulator, tools=handler)
        assert not emulator.faults.waiting, "no answer went to `resume_path`"
        counted(emulator, 2 if states[0].id != states[-1].id else 1)
    assert states[-1].status is RunStatus.COMPLETED
    assert len(handler.answered) == 1


@scenario("a second answer from elsewhere changes nothing", "resume")
async def a_second_answer(case: Case) -> None:
    """Answer a pause by one client, then otherwise by another that does not know of it."""
    async with (
        case.emulator(*pausing(case)) as emulator,
        case.connect(emulator) as client,
        case.connect(emulator) as other,
    ):
        paused = (await followed(case, client, emulator))[-1]
        first = await client.resume(paused, [ToolOutput(action, "yes") for action in paused.actions])
        done = await client.result(first, timeout=waits(emulator))
        started = emulator.state.runs_started
        try:
            second = await other.resume(paused, [ToolOutput(action, "no") for action in paused.actions])
        except AgentRunsError:
            pass  # it says so
        else:
            assert second.id == done.id, "a second answer began a run of its own"
        assert (await other.fetch(done)) == done, "a second answer changed a run that was over"
        counted(emulator, started)


@scenario("a run that was answered elsewhere is seen to go on", "resume")
async def answered_elsewhere(case: Case) -> None:
    """Answer a pause by one client while the run is read by another."""
    async with (
        case.emulator(*pausing(case)) as emulator,
        case.connect(emulator) as client,
        case.connect(emulator) as other,
    ):
        paused = (await followed(case, client, emulator))[-1]
        answered = await other.resume(paused, [ToolOutput(action, "yes") for action in paused.actions])
        await other.result(answered, timeout=waits(emulator))
        if answered.id == paused.id:
            seen = await client.fetch(paused)
        else:
            seen = await client.fetch(answered)
        assert seen.status is RunStatus.COMPLETED, f"it is {seen.status} to who did not answer it"
        assert not seen.actions, "a run that is over still asks"
