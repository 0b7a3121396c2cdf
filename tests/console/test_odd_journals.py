"""A journal that somebody has damaged, replaced or made for the purpose: its page says so, and shows the rest."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from agentruns import AgentRunsError, ConfigurationError, JournalError, connect
from agentruns._keeping.journal import file_reader, queries
from agentruns._keeping.journal.reader import JournalReader
from agentruns.cli import commands
from agentruns.cli.console import over_journal
from agentruns.inbox import Inbox
from tests.console.plain_browser import browsing, fill, state

from agentruns.console import Source  # isort: skip
from agentruns.console.history import WorkHistory  # isort: skip
from agentruns.console.live import cards_of  # isort: skip
from agentruns.console.views import Listing, Views  # isort: skip


def change(path: Path, sql: str, *values: Any) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("PRAGMA ignore_check_constraints = ON")
        file.execute(sql, values)


@pytest.mark.asyncio
async def test_one_row_of_bad_json_hides_no_other(tmp_path: Path) -> None:
    await fill(tmp_path / "j")
    change(tmp_path / "j", "UPDATE work SET run = '{\"ref\":' WHERE key = 'invoice-2'")
    async with over_journal(tmp_path / "j", lambda vendors: {}) as source, browsing(source) as browser:
        page = await browser.open("/")
        assert page.status == 200
        assert "Cannot be read" in page.text
        assert "Waits for an answer" in page.text
        assert (await browser.open("/work/w2")).status == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("seconds", [1e300, -1e300, float("inf"), 253402300800.0, "soon"])
async def test_far_off_times_are_shown_as_the_first(tmp_path: Path, seconds: Any) -> None:
    await fill(tmp_path / "j")
    change(tmp_path / "j", "UPDATE work SET created = ?, updated = ?", seconds, seconds)
    async with over_journal(tmp_path / "j", lambda vendors: {}) as source, browsing(source) as browser:
        assert (await browser.open("/")).status == 200
        assert "1970" in (await browser.open("/work/w1")).text


ODD = ("", "{", "[]", '{"ref":1,"status":[],"usage":{"input_tokens":"x"}}', b"\xff\x00", -1e300)
PARKED = "INSERT INTO parked VALUES (1, 'narrative', 'run-9', 't1', NULL, 'waiting', 1, 2, NULL, ?, 'd', 0)"
HANDLED = "INSERT INTO handling VALUES (1, 3, 'run-9', 't1', 'pay', 'answered', 0, '', '1', 'd')"


@pytest.mark.asyncio
@pytest.mark.parametrize("table", ["work", "handling", "parked"])
async def test_whatever_a_column_holds_the_list_is_shown(tmp_path: Path, table: str) -> None:
    """SQLite keeps anything in any column. Only the page of that piece of work may say that it cannot be read."""
    path = tmp_path / "j"
    await fill(path)
    change(path, HANDLED)
    change(path, PARKED, state("requires_action", id="run-9").to_json())
    views = Views("csrf", "here")
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("PRAGMA ignore_check_constraints = ON")
        columns = [row[1] for row in file.execute(f"PRAGMA table_info({table})") if row[1] not in {"id", "work"}]
        async with over_journal(path, lambda vendors: {}) as source:
            for column in columns:
                (before,) = file.execute(f"SELECT {column} FROM {table} WHERE id = 1").fetchone()
                for odd in ODD:
                    file.execute(f"UPDATE {table} SET {column} = ? WHERE id = 1", (odd,))
                    entries, counts = await source.book.page()
                    assert len(entries) >= 4
                    views.entries(Listing(entries=entries, counts=counts, which="all", before=None, older=None))
                    for entry_id in ("w1", "w3", "p1"):
                        await show(source, views, entry_id)
                file.execute(f"UPDATE {table} SET {column} = ? WHERE id = 1", (before,))


async def show(source: Source, views: Views, entry_id: str) -> None:
    entry = await source.book.entry(entry_id)
    if entry is not None:
        with suppress(AgentRunsError):
            async with WorkHistory(source, entry) as history:
                views.work(history, await cards_of(source, history), [])


@pytest.mark.asyncio
async def test_an_action_that_waits_and_cannot_be_read_keeps_nobody_from_answering_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(tmp_path / "j")
    change(tmp_path / "j", PARKED, "{")
    change(tmp_path / "j", PARKED.replace("(1,", "(2,").replace("'t1'", "'t2'"), state("requires_action").to_json())
    async with Inbox(journal=tmp_path / "j") as inbox:
        assert [each.asked_at for each in await inbox.pending()] == [1.0]
        assert [each.asked_at for each in await inbox.pending()] == [1.0]
    assert [record.message.count("passed over") for record in caplog.records] == [1]


@pytest.mark.asyncio
async def test_a_journal_that_is_deleted_or_replaced_is_shown_no_more(tmp_path: Path) -> None:
    await fill(tmp_path / "j")
    await fill(tmp_path / "other")
    async with over_journal(tmp_path / "j", lambda vendors: {}) as source, browsing(source) as browser:
        assert (await browser.open("/")).status == 200
        (tmp_path / "j").rename(tmp_path / "moved")
        page = await browser.open("/")
        assert (page.status, "it was deleted or replaced" in page.text) == (502, True)
        (tmp_path / "other").rename(tmp_path / "j")
        assert (await browser.open("/work/w1")).status == 502
        (tmp_path / "moved").rename(tmp_path / "j")
        assert (await browser.open("/")).status == 200


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "made",
    [
        "CREATE VIEW work AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id FROM n",
        "CREATE TRIGGER parrot AFTER UPDATE ON work BEGIN DELETE FROM handling; END",
    ],
)
async def test_a_file_that_would_run_what_others_wrote_is_no_journal(tmp_path: Path, made: str) -> None:
    await fill(tmp_path / "j")
    if "VIEW" in made:
        change(tmp_path / "j", "ALTER TABLE work RENAME TO was")
    change(tmp_path / "j", made)
    with pytest.raises(ConfigurationError, match="which agentruns never makes"):
        await JournalReader(tmp_path / "j").__aenter__()
    with pytest.raises(ConfigurationError, match="which agentruns never makes"):
        await connect("narrative", token="t", journal=tmp_path / "j").__aenter__()


@pytest.mark.asyncio
async def test_a_read_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "READ_SECONDS", 0.05)
    monkeypatch.setitem(
        queries._WHERE,
        "all",
        "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n)",
    )
    await fill(tmp_path / "j")
    async with JournalReader(tmp_path / "j") as book:
        with pytest.raises(JournalError, match="took more than"):
            await book.page()
        assert await book.vendors() == ["narrative"]


def test_a_path_that_cannot_be_looked_at_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["console", "x" * 300]) == commands.USAGE
    said = capsys.readouterr().err
    assert "cannot be looked at" in said
    assert "Traceback" not in said
