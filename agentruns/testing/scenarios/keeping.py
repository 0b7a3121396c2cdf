"""Work under a key: a start that a crash cut off is found again by who comes back, and done once."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentruns._values.run import RunStatus
from agentruns.emulator import Fault
from agentruns.errors import OutcomeUnknownError
from agentruns.testing.acts import PLAIN, Handler, counted, pausing, raises, waits
from agentruns.testing.case import Case
from agentruns.testing.scenario import scenario


async def _cut_off(waiting: asyncio.Task[Any], has_arrived: Callable[[], bool]) -> None:
    """Leave, as a crash does, once the vendor has got what is waited for."""
    while not has_arrived():
        assert not waiting.done(), f"it ended before the vendor got anything: {waiting}"
        await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@scenario("a start cut off under a key is gone on with", "start_path", package="filelock")
async def cut_off_under_a_key(case: Case) -> None:
    """Leave while the answer to a start is on its way, come back with the journal, and find the run."""
    with tempfile.TemporaryDirectory(prefix="agentruns-") as folder:
        journal = Path(folder) / "journal"
        async with case.emulator(PLAIN) as emulator:
            async with case.connect(emulator, journal=journal) as client:
                origin = await case.origin(client, emulator)
                emulator.fail(Fault.delay(30.0, committed=True, method="POST", path=case.start_path))
                starting = asyncio.create_task(client.result(origin, key="k1", timeout=waits(emulator)))
                await _cut_off(starting, lambda: emulator.state.runs_started > 0)
            async with case.connect(emulator, journal=journal) as other:
                if case.can_repeat_starts or case.can_find_starts:
                    run = await other.result(origin, key="k1", timeout=waits(emulator))
                    assert run.status is RunStatus.COMPLETED
                    assert (await other.result(origin, key="k1", timeout=waits(emulator))).id == run.id
                else:
                    with raises(OutcomeUnknownError):
                        await other.result(origin, key="k1", timeout=waits(emulator))
            counted(emulator, 1)


@scenario("an answer cut off under a key is given once", "resume", "resume_path", package="filelock")
async def answer_cut_off_under_a_key(case: Case) -> None:
    """Leave while the reply to an answer is on its way, and come back with the journal: no handler is run again."""
    handler = Handler()
    with tempfile.TemporaryDirectory(prefix="agentruns-") as folder:
        journal = Path(folder) / "journal"
        async with case.emulator(*pausing(case)) as emulator:
            async with case.connect(emulator, journal=journal) as client:
                origin = await case.origin(client, emulator)
                after = 1 if case.resume_path == case.start_path else 0
                slow = Fault.delay(30.0, committed=True, method=case.resume_method, path=case.resume_path, after=after)
                emulator.fail(slow)
                following = asyncio.create_task(client.result(origin, key="k1", tools=handler, timeout=waits(emulator)))
                await _cut_off(following, lambda: not emulator.faults.waiting)
                made = emulator.state.runs_started
            async with case.connect(emulator, journal=journal) as other:
                going_on = other.result(origin, key="k1", tools=handler, timeout=waits(emulator))
                if case.can_settle_answers:
                    assert (await going_on).status is RunStatus.COMPLETED
                elif case.resume_path == case.start_path:
                    with raises(OutcomeUnknownError):
                        await going_on
                else:  # it goes on in place: it is seen that it was answered, if not by whom
                    with suppress(OutcomeUnknownError):
                        assert (await going_on).status is RunStatus.COMPLETED
            counted(emulator, made)
    assert len(handler.answered) == 1


@scenario("a pause under a key is answered by who comes back", "resume", live="directed", package="filelock")
async def answered_by_who_comes_back(case: Case) -> None:
    """Leave at a pause, come back with the journal and a handler: no run is started again, no answer given twice."""
    handler = Handler()
    with tempfile.TemporaryDirectory(prefix="agentruns-") as folder:
        journal = Path(folder) / "journal"
        async with case.serve(*pausing(case)) as server:
            async with case.connect(server, journal=journal) as client:
                origin = await case.origin(client, server)
                states = [run async for run in client.stream(origin, key="k1", timeout=waits(server))]
                assert states[-1].status is RunStatus.REQUIRES_ACTION
            async with case.connect(server, journal=journal) as other:
                last = await other.result(origin, key="k1", tools=handler, timeout=waits(server))
                assert last.status is RunStatus.COMPLETED
            counted(server, 2 if states[0].id != last.id else 1)
    assert len(handler.answered) == 1
