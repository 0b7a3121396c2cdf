"""The journal in PostgreSQL: what its URL says, what it refuses, and what it does when the database goes away."""

import asyncio
import fcntl
import os
import socket
import time
from argparse import Namespace
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
import pytest_asyncio

from agentruns._keeping.journal import Journal
from agentruns._keeping.journal.postgres import ledger, listener, schema
from agentruns._keeping.journal.postgres.address import Database, database
from agentruns._keeping.journal.postgres.opening import opened as open_postgres
from agentruns._keeping.journal.postgres.tables import translated
from agentruns._keeping.journal.problems import UnfitError
from agentruns._keeping.journal.write import Write
from agentruns.cli.batch.ray_engine import _journal
from agentruns.errors import ConfigurationError
from agentruns.inbox import Inbox
from tests.test_inbox import first_parked, parked, paused

from .postgres_server import Server

ORIGIN = '{"text":"find a slot"}'


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.url(schema=f"s{uuid4().hex[:12]}")


@pytest_asyncio.fixture
async def journal(url: str) -> AsyncIterator[Journal]:
    async with Journal(url, "narrative") as opened:
        yield opened


def admin(postgres: Server, *statements: str) -> list[tuple[Any, ...]]:
    """Execute as the owner of the database; return what the last statement finds."""
    import psycopg

    with psycopg.connect(postgres.url().partition("?")[0], autocommit=True) as connection:
        for statement in statements[:-1]:
            connection.execute(statement)
        found = connection.execute(statements[-1])
        return list(found.fetchall()) if found.description else []


# The URL --------------------------------------------------------------------------------------------------------------


def test_a_url_names_database_schema_prefix_and_lease() -> None:
    place = database("postgres://me:pass@db.example:5433/work?sslmode=require&schema=jobs&prefix=ar_&lease=30")

    assert place == Database(
        name="postgresql://db.example:5433/work?schema=jobs&prefix=ar_",
        conninfo="postgresql://me:pass@db.example:5433/work?sslmode=require",
        schema="jobs",
        prefix="ar_",
        lease_seconds=30.0,
    )


def test_what_is_shown_of_a_url_has_no_user_no_password_and_no_options() -> None:
    place = database("postgresql://me:swordfish@db/work?sslpassword=swordfish")
    journal = Journal("postgresql://me:swordfish@db/work?sslpassword=swordfish", "narrative")

    assert (place.name, journal.path) == ("postgresql://db/work", "postgresql://db/work")
    assert "swordfish" not in f"{place!r} {journal!r} {vars(journal)!r}"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("schema=Jobs", "schema is 'Jobs'; it must be lower-case letters"),
        ("schema=pg_mine", "must not begin with a digit or pg_"),
        ("schema=x%3Bdrop", "schema is 'x;drop'"),
        ("schema=", "schema is ''"),
        ("prefix=1", "prefix is '1'"),
        (f"prefix={'x' * 41}", "at most 40"),
        ("lease=0", "lease is '0'; it must be 1 to 3600 seconds"),
        ("lease=nan", "lease is 'nan'"),
        ("lease=soon", "lease is 'soon'"),
    ],
)
def test_a_url_with_strange_options_is_refused(options: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Journal(f"postgresql://db/work?{options}", "narrative")
    assert why in str(caught.value)


def test_options_of_the_database_reach_it_as_they_were_written() -> None:
    place = database("postgresql:///work?host=/var/run&options=-c%20statement_timeout%3D5000+x&lease=30")

    assert place.conninfo == "postgresql:///work?host=%2Fvar%2Frun&options=-c%20statement_timeout%3D5000%2Bx"
    assert place.name == "postgresql:///work"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:p@ss@db/work",
        "postgresql://me:p@ss/w@db/x",
        "postgresql://me:#x@db/",
        "postgresql://me:pa?ss@db/work",
        "postgresql://me:10%ss@db/work",
        "postgresql://me:p[ss@db/work",
    ],
)
def test_a_password_that_is_not_escaped_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"%40|%23|%25|%5B") as caught:
        Journal(url, "narrative")
    assert "p@ss" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "ss" not in str(caught.value).replace("password", "")


def test_statements_find_the_tables_under_their_names_and_their_values() -> None:
    assert translated(
        "DELETE FROM parked WHERE key IN (SELECT key FROM work WHERE id = ? AND work.run LIKE '%')", "a_"
    ) == (
        'DELETE FROM "a_parked" AS parked WHERE key IN (SELECT key FROM "a_work" AS work WHERE id = %s'
        " AND work.run LIKE '%%')"
    )
    assert translated("SELECT work FROM work_run JOIN handling ON work = ?", "") == (
        'SELECT work FROM "work_run" AS work_run JOIN "handling" AS handling ON work = %s'
    )


def test_workers_of_ray_are_given_the_url_as_it_is_and_a_file_by_its_whole_path(tmp_path: Path) -> None:
    given = [SimpleNamespace(no_journal=False, journal=each) for each in ("postgresql://db/work", "work.db")]
    url, path = (_journal(cast(Namespace, each), tmp_path / "out.jsonl", 3) for each in given)
    assert (url, path) == ("postgresql://db/work", str(Path("work.db").resolve()))


# Tables ---------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_two_prefixes_in_one_schema_are_two_journals(postgres: Server) -> None:
    place = f"s{uuid4().hex[:12]}"
    one, two = (Journal(postgres.url(schema=place, prefix=prefix), "narrative") for prefix in ("a_", "b_"))
    async with one, two:
        assert (await one.begin("k", ORIGIN)).fresh
        assert (await two.begin("k", ORIGIN)).fresh
    names = admin(postgres, f"SELECT tablename FROM pg_tables WHERE schemaname = '{place}' ORDER BY 1")
    assert [name for (name,) in names if name.startswith("a_")] == [
        "a_budget_part", "a_handling", "a_owner", "a_parked", "a_reading", "a_tended", "a_version", "a_work",
        "a_work_run",
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_tables_of_a_newer_version_are_left_alone(postgres: Server, journal: Journal, url: str) -> None:
    place = url.rpartition("=")[2]
    await journal.close()
    admin(postgres, f"UPDATE {place}.version SET number = 99")

    with pytest.raises(ConfigurationError, match="schema version 99, and this agentruns knows versions up to"):
        await Journal(url, "narrative").open()


@pytest.mark.asyncio
async def test_tables_of_another_program_are_left_alone(postgres: Server, url: str) -> None:
    place = url.rpartition("=")[2]
    admin(postgres, f"CREATE SCHEMA {place}", f"CREATE TABLE {place}.handling (x int)")

    with pytest.raises(ConfigurationError, match="has a table handling of another program; choose another schema, or"):
        await Journal(url, "narrative").open()
    assert admin(postgres, f"SELECT tablename FROM pg_tables WHERE schemaname = '{place}'") == [("handling",)]


@pytest.mark.asyncio
async def test_many_who_open_a_new_journal_at_once_make_its_tables_once(url: str) -> None:
    journals = [Journal(url, "narrative") for _ in range(6)]
    await asyncio.gather(*(each.open() for each in journals))
    begun = await asyncio.gather(*(each.begin("k", ORIGIN) for each in journals))
    await asyncio.gather(*(each.close() for each in journals))

    assert sum(work.fresh for work in begun) == 1


@pytest.mark.asyncio
async def test_the_rights_that_the_guide_names_are_enough_and_without_them_it_says_so(
    postgres: Server, journal: Journal, url: str
) -> None:
    place = url.rpartition("=")[2]
    role = f"app_{place}"
    admin(postgres, f"CREATE ROLE {role} LOGIN")
    as_app = url.replace("agentruns:not-to-be-shown", role)
    with pytest.raises(ConfigurationError, match="this user lacks a right; grant what the guide names"):
        await Journal(as_app, "narrative").open()
    admin(
        postgres,
        f"GRANT USAGE ON SCHEMA {place} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {place} TO {role}",
    )

    async with Journal(as_app, "narrative") as app:
        assert (await app.begin("k", ORIGIN)).fresh
        await app.saw("k", '{"status":"completed","ref":{"id":"run-1"}}', done=True)
        assert await app.prune(time.time() + 60) == 1
    assert await journal.get("k") is None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("127.0.0.1:", "127.0.0.1:1"), "it cannot be reached; look at the database and the network"),
        (("/postgres", "/nowhere"), "there is no such database; create it, or use another one"),
    ],
)
async def test_a_database_that_is_not_there_is_told_without_the_password(
    url: str, change: tuple[str, str], why: str
) -> None:
    wrong = url.replace(*change) if change[0].startswith("/") else url.replace(url.split(":")[3].split("/")[0], "1")
    with pytest.raises(ConfigurationError) as caught:
        await Journal(wrong, "narrative").open()
    assert why in str(caught.value)
    assert "not-to-be-shown" not in str(caught.value)


# What is kept ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "text", ["\x00", "\x10", "\x10" + "0", "a\x10\x00\x1000b", "\u2028\U0001f9fe e\u0301 \x7f '\\ \"%s ?"]
)
async def test_any_text_comes_back_as_it_was(journal: Journal, text: str) -> None:
    await journal.begin("k", text)
    await journal.handle("k", "run", text or "-", text)

    work = await journal.get("k")
    (handled,) = await journal.answers("k", "run")
    assert work is not None
    assert (work.origin, handled.action_id, handled.name) == (text, text, text)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "run", ["not JSON", '{"output":"\\u0000","ref":{"id":"run-1"},"status":"running"}', "[" * 100_000]
)
async def test_a_state_is_kept_whatever_text_it_is(journal: Journal, run: str) -> None:
    await journal.begin("k", ORIGIN)
    await journal.saw("k", run)

    work = await journal.get("k")
    assert work is not None
    assert work.run == run
    assert await journal.runs_since(0.0) == (["run-1"] if "run-1" in run else [])


# News -----------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_pause_ends_at_once_when_another_owner_has_written_and_not_for_ones_own_writes(
    journal: Journal, url: str
) -> None:
    async with Journal(url, "narrative") as other:
        seen = await other.version()
        await other.pause(seen, 5.0)  # it listens now, and counts what it may have missed
        seen = await other.version()
        await other.begin("mine", ORIGIN)
        await other.pause(seen, 0.3)
        assert await other.version() == seen

        pausing = asyncio.create_task(other.pause(seen, 30.0))
        await asyncio.sleep(0)
        await journal.begin("k", ORIGIN)
        await asyncio.wait_for(pausing, 5.0)
        assert await other.version() > seen


@pytest.mark.asyncio
async def test_reading_tells_nobody_anything(journal: Journal, url: str) -> None:
    async with Journal(url, "narrative") as other:
        await other.pause(await other.version(), 5.0)
        seen = await other.version()
        await journal.get("k")
        await journal.waiting()
        await other.pause(seen, 0.3)
        assert await other.version() == seen


@pytest.mark.asyncio
async def test_an_answer_reaches_the_handler_that_waits_for_it_without_a_look(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentruns._keeping.journal.changes.LOOK_SECONDS", 1000.0)
    async with Inbox(journal=url) as inbox, Inbox(journal=url) as desk:
        (waiting,) = await parked(inbox, paused(), 1)
        await first_parked(desk)
        await desk.answer("0", "yes")
        assert (await asyncio.wait_for(waiting, 30)).output == "yes"


@pytest.mark.asyncio
async def test_what_is_only_read_waits_for_no_write_that_hangs(postgres: Server, journal: Journal, url: str) -> None:
    import psycopg

    await journal.begin("k", ORIGIN)
    async with Journal(url, "narrative") as other:
        with psycopg.connect(postgres.url().partition("?")[0]) as somebody:
            somebody.execute(f"SELECT 1 FROM {url.rpartition('=')[2]}.work FOR UPDATE")
            write = asyncio.create_task(journal.saw("k", '{"ref": {"id": "run-1"}, "status": "running"}'))
            await asyncio.sleep(0.1)
            async with asyncio.timeout(5):  # the write would wait for twice as long
                found = await asyncio.gather(journal.get("k"), other.get("k"), journal.waiting())
            assert not write.done()
        await write
        later = await other.get("k")

    assert [None if work is None else work.state for work in (*found[:2], later)] == ["starting", "starting", "open"]


@pytest.mark.asyncio
async def test_what_is_only_read_is_read_by_a_new_connection_where_that_was_cut_off(
    journal: Journal, postgres: Server
) -> None:
    await journal.begin("k", ORIGIN)
    assert (await journal.get("k")) is not None
    admin(postgres, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'agentruns'")

    found = await journal.get("k")
    assert found is not None
    assert found.mine


# Versions -------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_tables_of_an_older_version_are_brought_up_with_what_they_hold(
    postgres: Server, journal: Journal, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await journal.begin("k", ORIGIN)
    await journal.close()
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, ("ALTER TABLE {work} ADD COLUMN colour text DEFAULT 'red'",)))
    journals = [Journal(url, "narrative") for _ in range(4)]
    await asyncio.gather(*(each.open() for each in journals))  # one of them does it

    work = await journals[0].get("k")
    await asyncio.gather(*(each.close() for each in journals))
    assert work is not None
    assert work.origin == ORIGIN
    place = url.rpartition("=")[2]
    assert admin(postgres, f"SELECT number, colour FROM {place}.version, {place}.work") == [(len(schema.STEPS), "red")]


@pytest.mark.asyncio
async def test_tables_of_the_first_version_are_brought_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(schema, "STEPS", schema.STEPS[:1])
        async with Journal(url, "narrative") as journal:
            await journal.begin("k", ORIGIN)
    async with Journal(url, "narrative") as journal:
        assert (await journal.reading.claim("run-1")).is_ours
        assert await journal.get("k") is not None


@pytest.mark.asyncio
async def test_a_step_that_fails_leaves_the_tables_as_they_were(
    journal: Journal, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await journal.begin("k", ORIGIN)
    steps = ("DELETE FROM {work}", "ALTER TABLE {work} ADD COLUMN key text")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", (*schema.STEPS, steps))
        with pytest.raises(ConfigurationError, match=r'column "key" .*already exists'):
            await Journal(url, "narrative").open()

    async with Journal(url, "narrative") as other:
        assert await other.get("k") is not None


@pytest.mark.asyncio
async def test_a_write_that_cannot_be_done_leaves_those_that_are_committed_as_they_are(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_LONGEST_SECONDS", -1.0)  # so each write is a commit of its own
    done: list[str] = []
    opened = open_postgres(database(url), "narrative")

    def refuse(_: Any) -> None:
        raise UnfitError("it is another's")

    writes = [
        Write(lambda _: done.append("first"), ""),
        Write(lambda _: done.append("second"), ""),
        Write(refuse, ""),
        Write(lambda _: done.append("last"), ""),
    ]
    opened.carry_out(writes)
    opened.close()

    assert done == ["first", "second", "last"]
    assert [write.error is None for write in writes] == [True, True, False, True]


def test_what_is_waited_for_may_have_any_number() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1100:
        pytest.skip("no descriptor above 1,023 may be had")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    ours, theirs = socket.socketpair()
    high = fcntl.fcntl(ours, fcntl.F_DUPFD, 1024)
    try:
        theirs.send(b"x")
        assert high >= 1024
        assert listener._ready(10.0, high) == [high]
    finally:
        os.close(high)
        ours.close()
        theirs.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
