"""
Journals that older versions of this package have left: opened, brought up to date, and gone on with.

`samples/journal/schema_N.db` were written by the versions that had that schema, in the middle of their work, by a
process that was killed: runs that are followed, starts whose answer was not heard, handlers that run or have answered,
answers that were sent, and (from schema 2 on) an action that waits for a person. `schema_7.db` is that of 6, which was
brought up.
"""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentruns import Action, Backoff, Client, Inbox, Retry, RunStatus, ToolOutcomeUnknownError, Tools
from agentruns._keeping.journal import Journal, schema
from agentruns._values.exchange import Request
from agentruns.dialects import middesk, narrative
from tests.scripted_wire import (
    CALL,
    CONVERSATION,
    HEAD,
    MESSAGES,
    NEXT_RUN,
    POLL_NEXT,
    START,
    Answer,
    Wire,
    begun,
    conversation,
    run,
)
from tests.test_middesk import LIST, body, listed
from tests.test_middesk import START as START_AT_MIDDESK

SAMPLES = Path(__file__).parent / "samples" / "journal"
PARKED = "id, vendor, run_id, action_id, key, state, asked, expires, output, run"
VERSIONS = range(1, len(schema.STEPS))
QUICK = Backoff(initial=0.01, maximum=0.05, jitter=0.0)

NEW_THREAD = "4d0c6f1e-8a53-4b0e-9c37-000000000201"
OLD_THREAD = "4d0c6f1e-8a53-4b0e-9c37-2f6b1a90d7e4"
FOUND = "e3a9b7c4-5d21-4c88-a0f6-000000000003"
AT_THE_VENDOR = "e3a9b7c4-5d21-4c88-a0f6-000000000001"


def run_id(invoice: int) -> str:
    return f"9a4e1f52-6b7c-4d0f-8f3e-000000000{invoice}"


def poll(invoice: int) -> str:
    return f"GET /agents/runs/{run_id(invoice)}"


def state(invoice: int, status: str) -> Answer:
    if status == "requires_action":
        return run(status, id=run_id(invoice), pending_tool_calls=[{**CALL, "tool_use_id": f"tooluse_{invoice}"}])
    return run(status, id=run_id(invoice))


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def path(version: int, tmp_path: Path) -> Path:
    copy = tmp_path / "journal.db"
    shutil.copy(SAMPLES / f"schema_{version}.db", copy)
    return copy


def client_of(wire: Wire, path: Path, dialect: Any = narrative) -> Client:
    retry = Retry(attempts=2, backoff=QUICK)
    return Client(dialect, wire, retry=retry, schedule=QUICK, journal=Journal(path, dialect.NAME))


def invoice(number: int) -> narrative.UserMessage:
    return narrative.UserMessage(CONVERSATION, f"Handle invoice RE-2026-{number}.")


class Approve:
    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, action: Action) -> dict[str, bool]:
        self.runs += 1
        return {"approved": True}


# The file -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(path: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """Give the work in the file, by key, once it is brought up to date."""

    async def opened() -> None:
        async with Journal(path, "narrative"):
            pass

    asyncio.run(opened())
    with closing(sqlite3.connect(path)) as file:
        file.row_factory = sqlite3.Row
        yield {row["key"]: dict(row) for row in file.execute("SELECT * FROM work")}


def test_a_file_of_an_older_schema_has_that_of_this_version_once_it_was_opened(
    path: Path, rows: dict[str, Any]
) -> None:
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (len(schema.STEPS),)
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert file.execute("PRAGMA foreign_key_check").fetchall() == []
    assert len(rows) >= 8


def test_nothing_that_stood_in_the_file_is_lost(version: int, path: Path, rows: dict[str, Any]) -> None:
    kept = "id, vendor, key, state, owner, created, updated, origin, run"
    handled = "SELECT id, work, run_id, action_id, name, state, is_error, owner, output FROM handling"
    asked = [f"SELECT {kept} FROM work", handled, *([f"SELECT {PARKED} FROM parked"] if version > 1 else [])]
    with closing(sqlite3.connect(SAMPLES / f"schema_{version}.db")) as old, closing(sqlite3.connect(path)) as new:
        for each in asked:
            found = old.execute(each).fetchall()
            assert new.execute(each).fetchall() == found != []


def test_what_a_start_had_noted_stands_in_columns(version: int, rows: dict[str, Any]) -> None:
    started = rows["screening-202"]
    note = json.loads(started["start_note"])

    assert set(note) == {"thread_id", "agent", "since", "known"}
    assert note["thread_id"] == OLD_THREAD
    assert started["group_name"] == (f"middesk thread {OLD_THREAD}" if version > 1 else None)
    assert started["visible_until"] == (pytest.approx(1764331216.7, abs=0.5) if version > 1 else None)
    assert started["recovers"] == 0
    assert rows["screening-203"]["found_run"] == (FOUND if version > 1 else None)


def test_which_answers_had_been_sent_stands_in_columns(version: int, rows: dict[str, Any]) -> None:
    sent = rows["invoice-103"]

    assert sent["posting_run"] == (run_id(103) if version > 1 else None)
    assert sent["posting_at"] == (pytest.approx(1764331200.7, abs=0.5) if version > 1 else None)
    assert sent["start_note"] is None


@pytest.mark.parametrize(
    ("note", "columns"),
    [
        (None, (None, None, 0, None, None, None, None)),
        ('{"agent":1}', (None, None, 0, None, None, None, '{"agent":1}')),
        ("no JSON: \ud7ff \x00", (None, None, 0, None, None, None, "no JSON: \ud7ff \x00")),
        ('"a text"', (None, None, 0, None, None, None, '"a text"')),
        ('{"agent":1,"among":"trigger"}', ("trigger", 0.0, 0, None, None, None, '{"agent":1}')),
        (
            '{"agent":1,"among":"trigger","at":100.5,"shown":60.0,"recovers":true}',
            ("trigger", 160.5, 1, None, None, None, '{"agent":1}'),
        ),
        ('{"agent":1,"found":"run-1"}', (None, None, 0, "run-1", None, None, '{"agent":1}')),
        ('{"posting":"run-1","at":100.5}', (None, None, 0, None, "run-1", 100.5, None)),
    ],
)
def test_every_note_of_schema_2_has_its_columns(note: str | None, columns: tuple[Any, ...]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as file:
        for statement in [each for step in schema.STEPS[:2] for each in step]:
            file.execute(statement)
        file.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        file.execute("PRAGMA user_version = 2")
        work = "INSERT INTO work (vendor, key, state, owner, created, updated, origin, note)"
        file.execute(f"{work} VALUES ('middesk', 'k', 'starting', '', 1.0, 1.0, '{{}}', ?)", (note,))
        assert schema.establish(file)

        named = "group_name, visible_until, recovers, found_run, posting_run, posting_at, start_note"
        assert file.execute(f"SELECT {named} FROM work").fetchone() == columns


# The work in it -------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_work_that_is_not_done_is_told(version: int, path: Path) -> None:
    async with client_of(Wire({}), path) as client:
        open_work = {each.key: each async for each in client.unfinished()}
    parked = {"invoice-105"} if version > 1 else set()

    assert set(open_work) == {"invoice-102", "invoice-103", "invoice-104", "invoice-106"} | parked
    assert not any(each.alive for each in open_work.values())
    assert open_work["invoice-106"].run is None
    assert open_work["invoice-103"].run is not None
    assert open_work["invoice-103"].run.status is RunStatus.REQUIRES_ACTION


@pytest.mark.asyncio
async def test_work_that_is_done_is_not_asked_about(path: Path) -> None:
    wire = Wire({})
    async with client_of(wire, path) as client:
        assert (await client.result(invoice(101), key="invoice-101")).status is RunStatus.COMPLETED
    assert wire.asked == []


@pytest.mark.asyncio
async def test_a_run_that_was_followed_is_followed_on(path: Path) -> None:
    wire = Wire({poll(102): state(102, "completed")})
    async with client_of(wire, path) as client:
        assert (await client.result(invoice(102), key="invoice-102")).id == run_id(102)


@pytest.mark.asyncio
async def test_an_answer_that_a_handler_gave_is_posted_and_the_handler_is_not_run(path: Path) -> None:
    wire = Wire({
        HEAD: conversation(),
        MESSAGES: Answer({"current_version": 0, "messages": []}),
        poll(103): state(103, "requires_action"),
        START: begun(id=NEXT_RUN),
        POLL_NEXT: run("completed", id=NEXT_RUN),
        f"GET /agents/conversations/{CONVERSATION}/runs": Answer({"records": [], "total_records": 0}),
    })
    approve = Approve()
    async with client_of(wire, path) as client:
        done = await client.result(invoice(103), tools=Tools.of({"approve_invoice": approve}), key="invoice-103")

    assert (done.id, approve.runs) == (NEXT_RUN, 0)
    assert '{"approved":true}' in json.dumps(wire.bodies(START)).replace("\\", "")


@pytest.mark.asyncio
async def test_a_handler_that_was_cut_off_is_not_run_again(path: Path) -> None:
    wire = Wire({poll(104): state(104, "requires_action")})
    approve = Approve()
    async with client_of(wire, path) as client:
        with pytest.raises(ToolOutcomeUnknownError):
            await client.result(invoice(104), tools=Tools.of({"approve_invoice": approve}), key="invoice-104")
    assert approve.runs == 0


@pytest.mark.asyncio
async def test_a_start_whose_answer_was_not_heard_is_gone_through_with_under_its_own_id(path: Path) -> None:
    wire = Wire({HEAD: conversation(), START: state(106, "pending"), poll(106): state(106, "completed")})
    with closing(sqlite3.connect(path)) as file:
        (origin,) = file.execute("SELECT origin FROM work WHERE key = 'invoice-106'").fetchone()
    async with client_of(wire, path) as client:
        assert (await client.result(invoice(106), key="invoice-106")).id == run_id(106)

    assert [each["client_op_id"] for each in wire.bodies(START)] == [json.loads(origin)["client_op_id"]]


@pytest.mark.asyncio
@pytest.mark.parametrize(("key", "thread"), [("screening-201", NEW_THREAD), ("screening-202", OLD_THREAD)])
async def test_a_start_that_must_not_be_repeated_is_looked_for(path: Path, key: str, thread: str) -> None:
    def runs(_: Request) -> Answer:
        return listed(body("running", id=AT_THE_VENDOR, thread_id=thread, created_at="2026-09-14T09:05:32Z"))

    done = Answer(body("completed", id=AT_THE_VENDOR, thread_id=thread))
    wire = Wire({LIST: runs, f"GET /runs/{AT_THE_VENDOR}": done})
    async with client_of(wire, path, middesk) as client:
        work = await client.work(key)
        assert work is not None
        assert (await client.result(work.origin, key=key)).id == AT_THE_VENDOR
    assert wire.times(START_AT_MIDDESK) == []


@pytest.mark.asyncio
async def test_a_run_that_one_start_has_found_is_found_by_no_other(path: Path) -> None:
    done = Answer(body("completed", id=FOUND))
    wire = Wire({f"GET /runs/{FOUND}": done})
    async with client_of(wire, path, middesk) as client:
        work = await client.work("screening-203")
        assert work is not None
        assert (await client.result(work.origin, key="screening-203")).id == FOUND
    async with Journal(path, "middesk") as journal:
        other = await journal.get("screening-201")
        assert other is not None
        await journal.begin("screening-201", other.origin)
        assert await journal.claim("screening-201", FOUND) == "others"


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [each for each in VERSIONS if each > 1], indirect=True)  # schema 1 had no inbox
async def test_an_action_that_waits_for_a_person_waits_on_and_its_answer_is_posted(path: Path) -> None:
    wire = Wire({
        HEAD: conversation(),
        poll(105): state(105, "requires_action"),
        START: begun(id=NEXT_RUN),
        POLL_NEXT: run("completed", id=NEXT_RUN),
    })
    async with Inbox(journal=path) as desk:
        (parked,) = await desk.pending()
        assert (parked.key, parked.action.id) == ("invoice-105", "tooluse_105")
        await desk.answer(parked.action.id, "approved by hand")
    async with Inbox(journal=path) as inbox, client_of(wire, path) as client:
        tools = Tools.of({"approve_invoice": inbox})
        assert (await client.result(invoice(105), tools=tools, key="invoice-105")).id == NEXT_RUN
    assert "approved by hand" in json.dumps(wire.bodies(START))
