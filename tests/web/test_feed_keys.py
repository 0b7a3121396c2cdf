"""Feeds of a client with a journal."""

from pathlib import Path

import pytest
from attrs import evolve

from agentruns import Backoff, Client, ConfigurationError, Retry, RunStatus
from agentruns._keeping.journal import Journal
from agentruns.dialects import load
from agentruns.web import Feeds
from tests.scripted_wire import START, run
from tests.web.scripted_runs import MESSAGE, story

QUICK = Backoff(initial=0.01, factor=1.0, jitter=0.0)


@pytest.mark.asyncio
async def test_a_key_is_a_name_that_outlives_the_process(tmp_path: Path) -> None:
    wire = story(run("running"), run("running"), run("completed"))

    def opened() -> Client:
        journal = Journal(tmp_path / "work.db", "narrative")
        return Client(load("narrative"), wire, retry=Retry(), schedule=QUICK, journal=journal)

    async with opened() as client, Feeds(client) as feeds:
        first = feeds.open(MESSAGE, key="invoice-17")
        assert feeds.open(MESSAGE, key="invoice-17") is first
        assert feeds.get("invoice-17") is first
        begun = await first.started()
    async with opened() as client, Feeds(client) as feeds:
        again = await feeds.open(MESSAGE, key="invoice-17").ended()

    assert again.status is RunStatus.COMPLETED
    assert again.id == begun.id
    assert len(wire.times(START)) == 1


@pytest.mark.asyncio
async def test_a_key_of_somebody_elses_work_tells_a_watcher_nothing_of_it(tmp_path: Path) -> None:
    wire = story(run("completed"))
    journal = Journal(tmp_path / "work.db", "narrative")
    async with Client(load("narrative"), wire, retry=Retry(), schedule=QUICK, journal=journal) as client:
        await client.result(evolve(MESSAGE, text="ALICE'S PRIVATE QUESTION"), key="invoice-17")
        async with Feeds(client) as feeds:
            feed = feeds.open(evolve(MESSAGE, text="BOB'S"), key="invoice-17")
            told = [event.data async for event in feed.watch()]
            with pytest.raises(ConfigurationError, match="names other work") as caught:
                await feed.ended()

    assert '"ConfigurationError"' in told[0]
    for secret in ("ALICE", "work.db", "invoice-17"):
        assert secret not in "".join(told)
    assert "ALICE" not in str(caught.value)
