"""What a journal keeps for services: which work is at a run, who takes it over, whose end is still to be told."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agentruns._keeping.journal import Journal
from agentruns._keeping.journal.moves import WaitState
from agentruns._keeping.journal.parked import ParkedRow

pytestmark = pytest.mark.asyncio

LONG_AGO = 0.0
IN_FUTURE = 1e12


def state(run_id: str, status: str = "running") -> str:
    return json.dumps({"ref": {"id": run_id, "parent": ""}, "status": status})


@pytest_asyncio.fixture
async def journal(address: str) -> AsyncIterator[Journal]:
    async with Journal(address, "narrative") as opened:
        yield opened


@pytest_asyncio.fixture
async def other(address: str, journal: Journal) -> AsyncIterator[Journal]:
    """Give the same journal as another process has it: an owner of its own."""
    async with Journal(address, "narrative") as opened:
        yield opened


async def test_work_is_found_by_each_run_that_it_was_at(journal: Journal) -> None:
    await journal.begin("invoice-17", "{}")
    assert await journal.of_run("run-1") is None
    await journal.saw("invoice-17", state("run-1", "requires_action"))
    await journal.moved("run-1", [], state("run-2"), done=False)

    for run_id in ("run-1", "run-2"):
        found = await journal.of_run(run_id)
        assert found is not None
        assert (found.key, found.run) == ("invoice-17", state("run-2"))
    assert await journal.of_run("run-3") is None


async def test_work_on_a_run_that_exists_is_found_by_it(journal: Journal) -> None:
    await journal.attach("invoice-17", "{}", state("run-1"))
    found = await journal.of_run("run-1")
    assert found is not None
    assert found.key == "invoice-17"


async def test_of_several_pieces_of_work_that_which_goes_on_is_found(journal: Journal) -> None:
    for key, done in (("first", True), ("second", False), ("third", True)):
        await journal.begin(key, "{}")
        await journal.saw(key, state("run-1"), done=done)

    found = await journal.of_run("run-1")
    assert found is not None
    assert found.key == "second"


async def test_a_state_that_names_no_run_names_no_work(journal: Journal) -> None:
    await journal.begin("k", "{}")
    for text in ("null", "[]", '{"ref": {}}', "no JSON"):
        await journal.saw("k", text)
    assert await journal.of_run("") is None


async def test_that_work_is_tended_is_entered_and_forgotten_together_with_its_beginning(journal: Journal) -> None:
    async def tended() -> list[str]:
        rows = await journal.do(lambda records: records.execute("SELECT key FROM tended ORDER BY key").fetchall())
        return [key for (key,) in rows]

    await journal.begin("refused", "{}", tended=True)
    await journal.attach("attached", "{}", state("run-1"), tended=True)
    await journal.begin("other", "{}")
    assert await tended() == ["attached", "refused"]
    await journal.forget_start("refused")
    await journal.forget_start("attached")  # which has begun
    assert await tended() == ["attached"]
    await journal.begin("other", "{}", tended=True)
    await journal.saw("attached", state("run-1", "completed"), done=True)
    await journal.tending.told("attached")
    await journal.begin("attached", "{}", tended=True)  # its end was told
    assert await tended() == ["other"]

    beginning = asyncio.create_task(journal.begin("cancelled", "{}", tended=True))
    await asyncio.sleep(0)
    beginning.cancel()
    await asyncio.wait([beginning])
    await journal.get("cancelled")
    assert await tended() == ["other"]


async def test_work_is_taken_over_by_one_once_its_owner_is_gone(journal: Journal, other: Journal) -> None:
    await journal.begin("k", "{}")
    assert not await journal.tending.take("k")  # nobody tends it
    await journal.tending.enter("k")
    assert await journal.tending.take("k")
    assert not await other.tending.take("k")
    assert not await other.tending.take("unknown")
    await journal.close()

    assert await other.tending.take("k")
    found = await other.get("k")
    assert found is not None
    assert found.mine


async def test_what_is_tended_is_abandoned_when_nobody_is_at_it_until_it_was_told(
    journal: Journal, other: Journal
) -> None:
    for key in ("begun", "done", "never begun"):
        await journal.tending.enter(key)
    for key in ("begun", "done", "not tended"):
        await journal.begin(key, "{}")
    await journal.saw("done", state("run-1", "completed"), done=True)
    assert await other.tending.abandoned() == []
    await journal.close()

    assert await other.tending.abandoned() == ["begun", "done"]
    assert await other.tending.take("done")
    assert await other.tending.abandoned() == ["begun"]
    await other.release("done")
    await other.tending.told("done")
    assert await other.tending.abandoned() == ["begun"]


async def test_what_is_still_to_be_told_is_not_pruned(journal: Journal) -> None:
    for key in ("told", "untold"):
        await journal.tending.enter(key)
        await journal.begin(key, "{}")
        await journal.saw(key, state(f"run of {key}", "completed"), done=True)
    await journal.tending.told("told")

    assert await journal.prune(IN_FUTURE) == 1
    assert await journal.get("untold") is not None
    assert await journal.of_run("run of told") is None


async def test_work_that_is_forgotten_leaves_nothing(journal: Journal) -> None:
    await journal.tending.enter("k")
    await journal.begin("k", "{}")
    await journal.saw("k", state("run-1", "requires_action"))
    await journal.handle("k", "run-1", "action-1", "approve")
    asked = ParkedRow("narrative", "run-1", "action-1", "k", WaitState.WAITING, LONG_AGO, None, None, state("run-1"))
    await journal.park(asked)
    assert not await journal.forget("k")  # somebody is at it
    await journal.release("k")

    assert await journal.forget("k")
    assert await journal.get("k") is None
    assert await journal.of_run("run-1") is None
    assert await journal.waiting() == []
    assert await journal.tending.abandoned() == []
    assert (await journal.begin("k", "{}")).fresh


async def test_what_this_process_seems_to_be_at_and_is_not_is_abandoned(journal: Journal, other: Journal) -> None:
    for each, key in ((journal, "driven"), (journal, "left"), (other, "elsewhere")):
        await each.tending.enter(key)
        await each.begin(key, "{}")

    assert await journal.tending.abandoned() == []
    assert await journal.tending.abandoned(["driven"]) == ["left"]
