"""Starts that get lost: done once, or said that it is unknown; never done twice."""

from __future__ import annotations

import contextlib

from agentruns._keeping.work import is_same_work, serialize_origin, undeclared_ids
from agentruns._values.run import RunStatus
from agentruns.emulator import Fault
from agentruns.errors import ConflictError, OutcomeUnknownError
from agentruns.testing.acts import PLAIN, counted, followed, raises
from agentruns.testing.case import Case
from agentruns.testing.scenario import scenario


@scenario("a start lost after it was done is not done again", "start_path")
async def lost_after(case: Case) -> None:
    """Lose the answer to a start."""
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        emulator.fail(Fault.drop(committed=True, method="POST", path=case.start_path))
        if case.can_repeat_starts or case.can_find_starts:
            assert (await followed(case, client, emulator))[-1].status is RunStatus.COMPLETED
        else:
            with raises(OutcomeUnknownError, "unknown"):
                await followed(case, client, emulator)
        assert not emulator.faults.waiting, "no start went to `start_path`"
        counted(emulator, 1)


@scenario("a start lost before it was done is repeated only where that is safe", "start_path")
async def lost_before(case: Case) -> None:
    """Lose a start on its way."""
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        emulator.fail(Fault.drop(method="POST", path=case.start_path))
        if case.can_repeat_starts:
            assert (await followed(case, client, emulator))[-1].status is RunStatus.COMPLETED
        else:
            with raises(OutcomeUnknownError, "unknown"):
                await followed(case, client, emulator)
        assert not emulator.faults.waiting, "no start went to `start_path`"
        counted(emulator, int(case.can_repeat_starts))


@scenario("a start that a 5xx followed is not done again", "start_path")
async def a_5xx_followed(case: Case) -> None:
    """Answer a start that was done by 502."""
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        emulator.fail(Fault.answer(502, committed=True, method="POST", path=case.start_path))
        with contextlib.suppress(OutcomeUnknownError, ConflictError):  # said, rather than done twice
            assert (await followed(case, client, emulator))[-1].status is RunStatus.COMPLETED
        assert not emulator.faults.waiting, "no start went to `start_path`"
        counted(emulator, 1)


def _has_no_key(case: Case) -> str:
    return "" if case.can_repeat_starts else "the vendor has no idempotency key: a second start is a second run"


@scenario("the same intent started twice is one run", live="yes", unless=_has_no_key)
async def the_same_intent_twice(case: Case) -> None:
    """Start the same origin twice."""
    async with case.serve(PLAIN) as server, case.connect(server) as client:
        origin = await case.origin(client, server)
        first = await client.start(origin)
        second = await client.start(origin)
        assert second.id == first.id, "the same origin was started twice, and began two runs"
        counted(server, 1)


@scenario("what is asked for twice is the same", "example")
async def the_same_asked_twice(case: Case) -> None:
    """Make the example twice: only ids that say so may differ, or a key would refuse the second."""
    first, second = case.vendor.call("example"), case.vendor.call("example")
    differ = undeclared_ids(serialize_origin(first), second)
    assert not differ, f"{', '.join(differ)} of the origin is another with each value: let it say `metadata=MINTED`"
    assert is_same_work(serialize_origin(first), second), "two examples ask for different things"
