"""Lives of a run: started, followed, paused, cancelled."""

from __future__ import annotations

import asyncio

from agentruns._values.run import Action, Run, RunRef, RunStatus, ToolOutput
from agentruns.emulator import ManualClock, Turn
from agentruns.errors import DeadlineExceededError, RunFailedError, UnsupportedError
from agentruns.testing.acts import PLAIN, counted, followed, raises, waits
from agentruns.testing.case import Case, Live
from agentruns.testing.scenario import scenario

_ORDER = [RunStatus.PENDING, RunStatus.RUNNING, RunStatus.COMPLETED]


@scenario("a run is started", live="yes")
async def a_run_is_started(case: Case) -> None:
    """Start a run, and read it."""
    async with case.serve(PLAIN) as server, case.connect(server) as client:
        run = await client.start(await case.origin(client, server))
        assert run.id, "the run has no id"
        assert run.vendor == case.vendor.NAME, f"Run(vendor={run.vendor!r}), and NAME is {case.vendor.NAME!r}"
        assert run.status.in_flight or run.status is RunStatus.COMPLETED
        counted(server, 1)
        assert (await client.fetch(run)).ref == run.ref, "a run that is read names itself otherwise than its start did"


@scenario("a run is followed to its end", live="yes")
async def a_run_is_followed(case: Case) -> None:
    """Follow a run to its output."""
    async with case.serve(PLAIN) as server, case.connect(server) as client:
        states = await followed(case, client, server)
        last = states[-1]
        assert last.status is RunStatus.COMPLETED, f"it ended {last.status} ({last.vendor_status})"
        assert last.output, "a run that has completed has no output"
        assert last.raw, "Run.raw is empty"
        assert last.vendor_status, "Run.vendor_status is empty"
        assert len({run.id for run in states}) == 1
        counted(server, 1)


@scenario("every transition is seen, to the end")
async def every_transition_is_seen(case: Case) -> None:
    """Move the vendor's clock, and see each state in its order."""
    clock, turn, states = ManualClock(), Turn("Done.", pending=10.0, running=10.0), []
    async with case.emulator(turn, clock=clock) as emulator, case.connect(emulator) as client:
        async for run in client.stream(await case.origin(client, emulator), timeout=20):
            states.append(run)
            clock.advance(turn.pending if run.status is RunStatus.PENDING else turn.lasts)  # the next state is there
    seen = [_ORDER.index(run.status) for run in states]
    assert seen == sorted(seen)
    assert len(states) >= 2
    assert states[-1].output
    assert states[-1].raw


@scenario("a failed run is a failed run", live="directed")
async def a_failed_run(case: Case) -> None:
    """Let a run fail: the error has the run, and the run says why."""
    async with case.serve(Turn(error=case.error, running=0.05)) as server, case.connect(server) as client:
        with raises(RunFailedError) as caught:
            await client.result(await case.origin(client, server), timeout=20)
    (error,) = caught
    assert isinstance(error, RunFailedError)
    assert error.run is not None
    assert error.run.failure is not None, "a run that has failed has no `failure`"
    assert error.run.failure.type


@scenario("a run is cancelled", "cancel", live="directed")
async def a_run_is_cancelled(case: Case) -> None:
    """Cancel a run that would never end."""
    async with case.serve(Turn("Done.", running=1e6)) as server, case.connect(server) as client:
        run = await client.start(await case.origin(client, server))
        await client.cancel(run)
        with raises(RunFailedError):
            await client.result(run.ref, timeout=20)


@scenario("cancelling the wait cancels the run", "cancel", live="directed")
async def cancelling_the_wait(case: Case) -> None:
    """Cancel the task that waits for a run, with `on_cancel="confirm"`."""
    async with case.serve(Turn("Done.", running=1e6)) as server, case.connect(server) as client:
        run = await client.start(await case.origin(client, server))
        waiting = asyncio.create_task(client.result(run, on_cancel="confirm"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with raises(asyncio.CancelledError):
            await waiting
        assert (await client.fetch(run)).status is RunStatus.FAILED


def _can_all(case: Case) -> str:
    return "" if _lacking(case) else "the dialect has all of them"


def _lacking(case: Case) -> set[str]:
    return {each for each in ("resume", "cancel", "page", "events") if getattr(case.vendor, each) is None}


@scenario("what the vendor cannot do is refused before any request", live="yes", unless=_can_all)
async def what_cannot_be_done(case: Case) -> None:
    """Ask for everything that the dialect has no function for."""
    lacking, ref = _lacking(case), RunRef("r1", "p1")
    async with case.serve(PLAIN) as server, case.connect(server) as client:
        if "cancel" in lacking:
            with raises(UnsupportedError, f"{case.vendor.NAME} has no way to cancel"):
                await client.cancel(ref)
            with raises(UnsupportedError):
                client.stream(ref, on_cancel="cancel")
        if "page" in lacking:
            with raises(UnsupportedError, "list"):
                client.runs()
        if "resume" in lacking:
            paused = Run(ref, RunStatus.REQUIRES_ACTION, "asking", (Action("1", "ask"),))
            with raises(UnsupportedError, "resume"):
                await client.resume(paused, [ToolOutput(paused.actions[0], 1)])
        if "events" in lacking:
            with raises(UnsupportedError, "events"):
                client.stream(ref, events=True)
        if not isinstance(server, Live):
            assert server.exchanges == (), f"asked for what it cannot do: {server.exchanges}"


@scenario("a wait ends at its deadline and names the run", live="directed")
async def a_wait_ends(case: Case) -> None:
    """Wait for a run that never ends."""
    async with case.serve(Turn("Done.", running=1e6)) as server, case.connect(server) as client:
        run = await client.start(await case.origin(client, server))
        with raises(DeadlineExceededError, run.id) as caught:
            await client.result(run, timeout=0.2)
    (error,) = caught
    assert isinstance(error, DeadlineExceededError)
    assert error.run is not None
    assert error.run.status.in_flight


@scenario("events are listened to, to the end", "events", live="directed")
async def events_are_listened_to(case: Case) -> None:
    """Follow a run by its events, and read them one by one."""
    async with case.serve(PLAIN, PLAIN) as server, case.connect(server) as client:
        states = await followed(case, client, server, events=True)
        assert states[-1].status is RunStatus.COMPLETED
        assert case.vendor.events is not None
        path = case.vendor.events(states[0].ref).path.partition("?")[0]
        heard_there = isinstance(server, Live) or server.requests("*", f"*{path}")
        assert heard_there, f"nobody asked for {path}, where the events come from"
        run = await client.start(await case.origin(client, server))
        async with client.events(run) as stream:
            heard = [event async for event in stream]
        assert heard, "the stream of events gave none"
        assert (await client.result(run, timeout=waits(server))).status is RunStatus.COMPLETED
