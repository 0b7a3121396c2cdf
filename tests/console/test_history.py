"""What is kept of a piece of work while somebody watches, and what goes wrong meanwhile."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from agentruns import AgentRunsError, ConfigurationError, ToolOutput, connect, middesk
from agentruns._keeping.journal import Journal
from agentruns.cli.console import over_journal
from agentruns.console import JournalReader, Source
from agentruns.emulator import Call, Emulator, Turn
from tests.console.plain_browser import ORIGIN, SECONDS, browsing, fill, state

from agentruns.console.live import Histories, work_events  # isort: skip
from agentruns.console.history import MOST_ENTRIES, WorkHistory  # isort: skip
from agentruns.console.views import Views  # isort: skip


@asynccontextmanager
async def source_of(path: Path, clients: Any = None) -> AsyncIterator[Source]:
    async with over_journal(path, clients or (lambda vendors: {})) as source:
        yield source


async def entry_of(source: Source, entry_id: str = "w1") -> Any:
    entry = await source.book.entry(entry_id)
    assert entry is not None
    return entry


@pytest.mark.asyncio
async def test_all_who_watch_share_a_trail_which_lingers_and_goes(tmp_path: Path) -> None:
    await fill(tmp_path / "j")
    async with source_of(tmp_path / "j") as source:
        entry = await entry_of(source)
        histories = Histories(source, linger=0.05)
        async with histories.of(entry) as one, histories.of(entry) as two:
            assert one is two
        async with histories.of(entry) as again:
            assert again is one  # whoever comes back within the time finds it
        async with asyncio.timeout(SECONDS):
            await asyncio.wait(one._tasks)
        async with histories.of(entry) as other:
            assert other.epoch != one.epoch
        await histories.close()
        assert all(task.done() for task in other._tasks)


@pytest.mark.asyncio
async def test_a_place_of_another_trail_is_none(tmp_path: Path) -> None:
    await fill(tmp_path / "j")
    async with source_of(tmp_path / "j") as source, WorkHistory(source, await entry_of(source)) as history:
        assert history.changes_seen(history.id) == history.count > 0
        for strange in (None, "", "7", f"{history.epoch}-", f"{history.epoch}-²", f"{history.epoch}-99999", "other-1"):
            assert history.changes_seen(strange) == 0


@pytest.mark.asyncio
async def test_an_older_state_changes_nothing(tmp_path: Path) -> None:
    async with Journal(tmp_path / "j", "narrative") as journal:
        await journal.begin("job", ORIGIN)
        await journal.saw("job", state("running", id="new").to_json())
        async with source_of(tmp_path / "j") as source, WorkHistory(source, await entry_of(source)) as history:
            history._take(state("pending", id="new"), 0.0)
            assert [each.kind for each in history.entries] == ["begun", "running"]
            history._take(state("running", id="newer"), 0.0)
            history._take(state("completed", id="new"), 0.0)
            assert history.run is not None
            assert history.run.id == "newer"
            assert not history.is_done


@pytest.mark.asyncio
async def test_of_very_many_entries_the_first_and_the_last_are_kept(tmp_path: Path) -> None:
    await fill(tmp_path / "j")
    async with source_of(tmp_path / "j") as source, WorkHistory(source, await entry_of(source, "w4")) as history:
        for number in range(MOST_ENTRIES + 100):
            history._take(state("running", id=f"run-{number}"), float(number))
        assert len(history.entries) == MOST_ENTRIES
        assert history.entries[0].kind == "begun"
        assert history.entries[-1].number == history.count


@pytest.mark.asyncio
async def test_what_only_counts_is_told_without_an_entry(tmp_path: Path) -> None:
    await fill(tmp_path / "j")
    async with source_of(tmp_path / "j") as source, WorkHistory(source, await entry_of(source, "w4")) as history:
        history._take(state("running"), 0.0)
        before, entries = history.count, len(history.entries)
        history._take(state("running", submitted_inference_job_ids=["a", "b", "c"]), 1.0)
        assert history.count > before
        assert len(history.entries) == entries
        events = work_events(source, history, Views("csrf", "here"), f"{history.epoch}-{before}")
        event = await anext(events)
        await events.aclose()
        assert "3 of at most 6 steps" in event.data
        assert "timeline" not in event.data
        assert event.id == history.id


@pytest.mark.asyncio
async def test_a_run_that_cannot_be_followed_is_said_so_once(tmp_path: Path) -> None:
    async with Journal(tmp_path / "j", "narrative") as journal:
        await journal.begin("job", ORIGIN)
        await journal.saw("job", state("running").to_json())
        with Emulator("narrative") as emulator:

            def clients(vendors: Any) -> Any:
                return {"narrative": connect("narrative", token=emulator.token, base_url=emulator.base_url)}

            async with source_of(tmp_path / "j", clients) as source, browsing(source) as browser:
                told = await browser.until("/work/w1/events", "It cannot be followed", "404")
                assert emulator.token not in told


@pytest.mark.asyncio
async def test_an_answer_to_a_run_that_has_moved_at_the_vendor_comes_too_late(tmp_path: Path) -> None:
    """Interrupts of Middesk go on in place, whoever answers them: the console looks before it sends."""
    path = tmp_path / "j"
    script = [Turn(calls=[Call("watchlist_resolution", {"label": "Dismiss?"}), Call("tin_resolution")]), Turn("Done.")]
    with Emulator("middesk", script=script, agents=("cip_orchestrator",)) as emulator:

        def client() -> Any:
            return connect("middesk", token=emulator.token, base_url=emulator.base_url, journal=path)

        async with client() as first:
            request = middesk.RunRequest("cip_orchestrator", business_id="b86f3c52-11d9-4f07-8e6a-90c2d5a7714f")
            async with first.stream(request, key="job") as stream:
                async for _ in stream:
                    pass
            run = stream.run
            assert run is not None
        async with (
            source_of(path, lambda vendors: {"middesk": client()}) as source,
            browsing(source) as browser,
            connect("middesk", token=emulator.token, base_url=emulator.base_url) as elsewhere,
        ):
            one, two = (await browser.open("/work/w1")).answers  # one by one: the vendor takes them so
            await elsewhere.resume(run, [ToolOutput(run.actions[0], {"decision": "approve"})])

            late = await browser.send(one.action, one.filled(how="approve"))
            assert late.status == 409
            sent = await browser.send(two.action, two.filled(how="approve"))
            assert sent.status == 200
            await browser.until("/work/w1/events", 'data-status="completed"')
        assert len(emulator.requests("POST", "*/resume")) == 2


@pytest.mark.asyncio
async def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    for path, said in ((tmp_path / "nowhere", "no such file"), (tmp_path, "no such file"), (other, "another program")):
        with pytest.raises(ConfigurationError, match=said):
            await JournalReader(path).__aenter__()


def drop(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute(f"DROP TABLE {table}")


@pytest.mark.asyncio
async def test_a_journal_that_is_closed_or_broken_raises_an_error_of_ours(tmp_path: Path) -> None:
    await fill(tmp_path / "j")
    book = JournalReader(tmp_path / "j")
    with pytest.raises(AgentRunsError, match="not open"):
        await book.version()
    async with book:
        await asyncio.to_thread(drop, tmp_path / "j", "handling")
        entry = await book.entry("w1")
        assert entry is not None
        with pytest.raises(AgentRunsError, match="no such table"):
            await book.handled(entry)


@pytest.mark.asyncio
async def test_a_journal_that_cannot_be_read_is_told_on_the_page(tmp_path: Path) -> None:
    await fill(tmp_path / "j")
    async with source_of(tmp_path / "j") as source, browsing(source) as browser:
        await source.book.__aexit__(None, None, None)
        page = await browser.open("/")
    assert page.status == 502
    assert "it is not open" in page.text
    assert 'href="/"' in page.text


@pytest.mark.asyncio
async def test_life_is_assumed_while_the_journal_is_locked(tmp_path: Path) -> None:
    async with Journal(tmp_path / "j", "narrative") as journal:
        await journal.begin("job", ORIGIN)
        async with source_of(tmp_path / "j") as source:
            locker = sqlite3.connect(tmp_path / "j", isolation_level=None)
            locker.execute("BEGIN IMMEDIATE")
            try:
                assert (await entry_of(source)).alive
            finally:
                locker.close()
