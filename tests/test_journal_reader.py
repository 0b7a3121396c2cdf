"""What reads a journal and never writes it: the same of a file and of a database, and what goes wrong on the way."""

import asyncio
import time

import pytest

from agentruns._keeping.journal import Journal
from agentruns._keeping.journal.moves import WaitAct, WaitState
from agentruns._keeping.journal.parked import ParkedRow
from agentruns._keeping.journal.postgres import reader
from agentruns._keeping.journal.queries import EntryQueries
from agentruns._keeping.journal.reader import JournalReader
from agentruns.errors import ConfigurationError, JournalError

from .postgres_server import Server

RUN = (
    '{"ref":{"id":"run-1","parent":"conv-1"},"status":"%s","vendor_status":"BUSY",'
    '"usage":{"input_tokens":812,"output_tokens":64}}'
)


def stray(run_id: str, action_id: str, key: str | None = None) -> ParkedRow:
    return ParkedRow("narrative", run_id, action_id, key, WaitState.WAITING, 1.0, None, None, RUN % "requires_action")


@pytest.mark.asyncio
async def test_an_entry_has_what_its_run_says(address: str) -> None:
    async with Journal(address, "narrative") as journal, JournalReader(address) as book:
        await journal.begin("job", '{"text":"Go"}')
        await journal.saw("job", RUN % "running")
        entry = await book.entry("w1")
        assert entry is not None
        assert (entry.key, entry.state, entry.alive, entry.waits) == ("job", "open", True, False)
        assert (entry.run_id, entry.parent, entry.status, entry.vendor_status) == ("run-1", "conv-1", "running", "BUSY")
        assert entry.tokens == (812, 64)
        assert abs(entry.created - time.time()) < 60
        assert await book.named("job") == "w1"
        assert await book.named("other") is None
        assert await book.origin("w1") == {"text": "Go"}
        assert await book.vendors() == ["narrative"]


@pytest.mark.asyncio
@pytest.mark.parametrize("run", ["", "{", "[]", '{"ref":1,"status":[],"usage":{"input_tokens":"x"}}', "\0"])
async def test_a_run_that_is_no_json_hides_no_other(address: str, run: str) -> None:
    async with Journal(address, "narrative") as journal, JournalReader(address) as book:
        await journal.attach("odd", "{", run)
        await journal.attach("job", "{}", RUN % "failed")
        entries, counts = await book.page()
        assert [each.key for each in entries] == ["job", "odd"]
        assert (counts.all, counts.failed) == (2, 1)
        assert entries[1].tokens is None
        assert await book.origin("w1") == {}


@pytest.mark.asyncio
async def test_runs_that_wait_without_work_are_entries_of_their_own(address: str) -> None:
    async with Journal(address, "narrative") as journal, JournalReader(address) as book:
        for each in (stray("run-1", "a"), stray("run-1", "b"), stray("run-2", "a", "gone"), stray("run-3", "a", "job")):
            await journal.park(each)
        await journal.attach("job", "{}", RUN % "requires_action")
        entries, counts = await book.page()
        assert [(each.id, each.key, each.waiting) for each in entries] == [
            ("p3", "gone", 1),
            ("p1", "", 2),
            ("w1", "job", 1),
        ]
        assert (counts.all, counts.waiting, counts.open, counts.done) == (3, 3, 3, 0)
        assert [each.id for each in (await book.page("waiting"))[0]] == ["p3", "p1", "w1"]
        for action_id in "ab":
            assert await journal.settle(("narrative", "run-1", action_id), WaitAct.ANSWER, "1")
        entry = await book.entry("p2")
        assert entry is not None
        assert (entry.id, entry.state, entry.waiting) == ("p2", "done", 0)
        assert [each.id for each in (await book.page("waiting"))[0]] == ["p3", "w1"]


@pytest.mark.asyncio
async def test_whoever_looks_is_told_of_what_others_write(address: str) -> None:
    async with Journal(address, "narrative") as journal, JournalReader(address) as book:
        seen = await book.version()
        async with asyncio.timeout(20):
            while (version := await book.version()) != seen:  # it begins to listen
                seen = version
                await asyncio.sleep(0.05)
            await journal.begin("job", "{}")
            while await book.version() == seen:
                await book.pause(seen, 0.05)


@pytest.mark.asyncio
async def test_the_right_to_read_is_enough(postgres: Server) -> None:
    import psycopg

    url = postgres.url(schema="only_read")
    async with Journal(url, "narrative") as journal:
        await journal.attach("job", "{}", RUN % "running")
        with psycopg.connect(url.partition("?")[0], autocommit=True) as owner:
            owner.execute("CREATE ROLE reads LOGIN")
            owner.execute(
                "GRANT USAGE ON SCHEMA only_read TO reads; GRANT SELECT ON ALL TABLES IN SCHEMA only_read TO reads"
            )
        async with JournalReader(url.replace("agentruns:", "reads:")) as book:
            ((entry,), _) = await book.page()
            assert (entry.status, entry.alive) == ("running", True)


@pytest.mark.asyncio
async def test_a_database_that_was_restarted_is_read_on(postgres: Server) -> None:
    url = postgres.url(schema="restarted_and_read")
    async with Journal(url, "narrative") as journal:
        await journal.begin("job", "{}")
    async with JournalReader(url) as book:
        assert await book.named("job") == "w1"
        await asyncio.to_thread(postgres.stop)
        with pytest.raises(JournalError, match="it cannot be reached"):
            await book.named("job")
        await asyncio.to_thread(postgres.start)
        assert await book.named("job") == "w1"


@pytest.mark.asyncio
async def test_a_question_that_takes_too_long_is_given_up(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "READ_SECONDS", 0.05)
    monkeypatch.setattr(EntryQueries, "vendors", lambda queries: queries._do("SELECT pg_sleep(20)").fetchall())
    url = postgres.url(schema="slowly_read")
    async with Journal(url, "narrative") as journal, JournalReader(url) as book:
        await journal.begin("job", "{}")
        with pytest.raises(JournalError, match="took more than"):
            await book.vendors()
        assert await book.named("job") == "w1"


@pytest.mark.asyncio
async def test_tables_of_another_version_are_no_journal(postgres: Server) -> None:
    import psycopg

    url = postgres.url(schema="of_later")
    async with Journal(url, "narrative"):
        pass
    for version, said in ((99, "upgrade agentruns"), (0, "has none")):
        with psycopg.connect(url.partition("?")[0], autocommit=True) as owner:
            owner.execute(f"UPDATE of_later.version SET number = {version}")
        with pytest.raises(ConfigurationError, match=said):
            await JournalReader(url).__aenter__()
