"""What a journal keeps of runs that nobody drives: of all who watch one, one reads it for the others."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agentruns._aio.tasks import Tasks
from agentruns._keeping.journal import Journal, reading
from agentruns._keeping.shared import SharedStates

pytestmark = pytest.mark.asyncio


def state(status: str, run_id: str = "run-1") -> str:
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


async def test_one_reads_a_run_and_the_other_has_what_it_saw(journal: Journal, other: Journal) -> None:
    assert (await journal.reading.claim("run-1")).is_ours
    before = await other.reading.claim("run-1")
    assert (before.is_ours, before.run, before.is_done) == (False, None, False)
    assert (await other.reading.claim("run-2")).is_ours

    assert await journal.reading.saw("run-1", state("running"), is_done=False)
    assert not await other.reading.saw("run-1", state("pending"), is_done=False)
    after = await other.reading.claim("run-1")
    assert (after.is_ours, after.run, after.is_done) == (False, state("running"), False)
    assert after.version != before.version
    assert (await journal.reading.claim("run-1")).is_ours


@pytest.mark.parametrize("how", ["leaves", "dies"])
async def test_another_reads_a_run_when_its_reader_is_gone(journal: Journal, other: Journal, how: str) -> None:
    await journal.reading.claim("run-1")
    await journal.reading.saw("run-1", state("running"), is_done=False)
    assert await other.do(lambda records: reading.Readers(records).stands(["run-1", "run-2"])) != {}
    if how == "leaves":
        await journal.reading.leave("run-1")
    else:
        await journal.close()

    assert await other.do(lambda records: reading.Readers(records).stands(["run-1", "run-2"])) == {}
    assert (await other.reading.claim("run-1")).is_ours


async def test_a_run_that_is_over_is_kept_a_while_for_those_who_have_not_seen_it(
    journal: Journal, other: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await journal.reading.claim("run-1")
    assert await journal.reading.saw("run-1", state("completed"), is_done=True)
    assert not await journal.reading.saw("run-1", state("running"), is_done=False)
    await journal.reading.leave("run-1")
    await journal.close()
    late = await other.reading.claim("run-1")
    assert (late.is_ours, late.run, late.is_done) == (False, state("completed"), True)

    monkeypatch.setattr(reading, "_KEPT_SECONDS", -1.0)
    await other.reading.claim("run-2")  # whoever begins to read cleans up
    assert (await other.reading.claim("run-1")).is_ours


async def test_what_dead_readers_have_left_is_deleted(journal: Journal, other: Journal) -> None:
    for number in range(3):
        await journal.reading.claim(f"run-{number}")
    await journal.close()
    await other.reading.claim("another")

    rows = await other.do(lambda records: records.execute("SELECT run_id FROM reading").fetchall())
    assert rows == [("another",)]


@pytest_asyncio.fixture
async def tasks() -> AsyncIterator[Tasks]:
    opened = Tasks()
    opened.open(asyncio.get_running_loop())
    yield opened
    await done(opened)


async def done(tasks: Tasks) -> None:
    await asyncio.gather(*tasks._running)


async def test_who_is_cut_off_while_asking_who_reads_keeps_nobody_from_reading(
    journal: Journal, other: Journal, tasks: Tasks
) -> None:
    here = SharedStates(journal, tasks)
    for steps in range(12):
        asking = asyncio.create_task(here.read_elsewhere(f"run-{steps}", None))
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        if not asking.cancelled():
            here.read_no_more(f"run-{steps}")
    await done(tasks)

    assert all([(await other.reading.claim(f"run-{steps}")).is_ours for steps in range(12)])


async def test_of_two_who_watch_in_one_process_the_last_one_leaves_the_reading_to_others(
    journal: Journal, other: Journal, tasks: Tasks
) -> None:
    here = SharedStates(journal, tasks)
    assert [await here.read_elsewhere("run-1", None) for _ in range(2)] == [None, None]
    here.read_no_more("run-1")
    assert not (await other.reading.claim("run-1")).is_ours
    here.read_no_more("run-1")
    await done(tasks)
    assert (await other.reading.claim("run-1")).is_ours
