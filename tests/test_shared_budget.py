"""One limit over all processes that have one journal open: what a server sees as they come, die and fall silent."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentruns import Backoff, Client, JournalError, Retry, RunRef, RunStatus, connect
from agentruns._api.limiter import Permits
from agentruns._keeping import budget
from agentruns._keeping.budget import SharedBudget
from agentruns._keeping.journal import schema
from agentruns._keeping.journal.budget import BudgetParts, Budgets, Part
from agentruns._keeping.journal.tables import Tables
from agentruns._values.exchange import RateLimit
from agentruns.dialects import load
from agentruns.testing import ScriptedTransport
from tests.postgres_server import Server
from tests.scripted_wire import POLL, RUN, VirtualLoop, Wire, run

virtual = pytest.mark.virtual


class Store:
    """The table of a journal, by default in memory, and who is alive."""

    def __init__(self, tables: Tables | None = None) -> None:
        self.file = sqlite3.connect(":memory:")
        for step in schema.STEPS:
            for statement in step:
                self.file.execute(statement)
        self.tables: Tables = self.file if tables is None else tables
        self.alive: set[str] = set()
        self.writes = 0

    def renew(self, me: str, limit: RateLimit, held: int, *, wants: bool) -> Part:
        before = self._rows()
        part = self._parts(me, limit).renew(held, wants=wants)
        self.writes += self._rows() != before
        return part

    def leave(self, me: str, limit: RateLimit, used: int) -> None:
        self._parts(me, limit).leave(used)
        self.writes += 1

    def _parts(self, me: str, limit: RateLimit) -> BudgetParts:
        return BudgetParts(self.tables, _Owners(self.alive, me), "pool", limit)

    def _rows(self) -> list[Any]:
        return self.tables.execute("SELECT * FROM budget_part ORDER BY owner").fetchall()


class _Owners:
    part_seconds = 30.0

    def __init__(self, living: set[str], me: str) -> None:
        self._living = living
        self.me = me

    def alive(self, owner: str) -> bool:
        return owner in self._living

    def now(self) -> float:
        return asyncio.get_running_loop().time()


class KeptInMemory:
    """The `Budgets` of a journal; it may fail, or not answer, and its answers may be lost."""

    path = "j"

    def __init__(self, store: Store, me: str) -> None:
        self.store, self.me = store, me
        self.fails: Exception | bool = False
        self.loses = self.hangs = False

    async def renew(self, _: str, limit: RateLimit, held: int, *, wants: bool) -> Part:
        if self.hangs:
            await asyncio.sleep(1e6)
        if self.fails:
            raise JournalError("j", "no room") if self.fails is True else self.fails
        part = self.store.renew(self.me, limit, held, wants=wants)
        if self.loses:
            raise JournalError("j", "the answer was lost")
        return part

    async def leave(self, _: str, limit: RateLimit, used: int) -> None:
        self.store.leave(self.me, limit, used)

    async def version(self) -> int:
        return self.store.writes


class Process:
    """One process: its part of the limit, and requests that are sent as fast as that allows while it is busy."""

    def __init__(self, store: Store, name: str, limit: RateLimit, seen: list[float], *, busy: bool = True) -> None:
        self.journal = KeptInMemory(store, name)
        self.shared = SharedBudget(cast(Budgets, self.journal), "pool", limit)
        self.busy = asyncio.Event()
        if busy:
            self.busy.set()
        self.sent = 0
        self._store, self._name, self._seen = store, name, seen
        self._permits = Permits(self.shared.limiter)
        self._requests: set[asyncio.Task[None]] = set()
        store.alive.add(name)

    async def begin(self) -> "Process":
        await self.shared.open()
        self._sending = asyncio.create_task(self._send())
        return self

    @property
    def held(self) -> int:
        assert self.shared.limiter.limit is not None
        return self.shared.limiter.limit.count

    async def _send(self) -> None:
        while True:
            await self.busy.wait()
            try:
                await self.send()
            except JournalError:  # its part may be that of others by now
                await asyncio.sleep(0.1)

    async def send(self) -> None:
        await self._permits.acquire()
        self.sent += 1
        task = asyncio.create_task(self._request())
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _request(self) -> None:
        await asyncio.sleep(0.05)
        self._seen.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        self._permits.release()

    async def die(self) -> None:
        """Be killed: what was sent arrives, and nothing is written any more."""
        assert self.shared._task is not None
        for task in (self._sending, self.shared._task):
            task.cancel()
        await asyncio.wait([self._sending, self.shared._task])
        await asyncio.gather(*self._requests)
        self._store.alive.discard(self._name)

    async def leave(self) -> None:
        self._sending.cancel()
        await asyncio.wait([self._sending])
        await self.shared.leave()
        await asyncio.gather(*self._requests)
        self._store.alive.discard(self._name)


def most_in_a_window(seen: list[float], seconds: float) -> int:
    seen = sorted(seen)
    return max((sum(begin <= each < begin + seconds - 1e-9 for each in seen) for begin in seen), default=0)


@virtual
@pytest.mark.asyncio
async def test_one_process_has_the_whole_limit_at_once_and_hardly_ever_writes() -> None:
    store, seen = Store(), list[float]()
    process = await Process(store, "a", RateLimit(10, 2.0), seen).begin()
    assert process.held == 10
    await asyncio.sleep(60.0)
    assert store.writes <= 5
    assert len(seen) > 270
    await process.leave()


@virtual
@pytest.mark.asyncio
async def test_processes_that_are_busy_have_even_parts_as_they_come_and_go() -> None:
    store, seen, limit = Store(), list[float](), RateLimit(10, 2.0)
    processes = []
    for name in "abcd":
        processes.append(await Process(store, name, limit, seen).begin())
        await asyncio.sleep(8.0)
    assert [each.held for each in processes] == [3, 3, 2, 2]
    await processes.pop().leave()
    await processes.pop(0).die()
    await asyncio.sleep(12.0)
    assert [each.held for each in processes] == [5, 5]
    assert most_in_a_window(seen, 2.0) == 10
    for process in processes:
        await process.leave()


@virtual
@pytest.mark.asyncio
async def test_a_process_that_sends_nothing_lends_its_part_and_has_it_back_when_it_does() -> None:
    store, seen, limit = Store(), list[float](), RateLimit(10, 1.0)
    idle = await Process(store, "idle", limit, seen, busy=False).begin()
    await asyncio.sleep(30.0)
    other = await Process(store, "other", limit, seen).begin()
    await asyncio.sleep(5.0)
    assert (idle.held, other.held) == (1, 9)
    idle.busy.set()
    await asyncio.sleep(5.0)
    assert (idle.held, other.held) == (5, 5)
    assert most_in_a_window(seen, 1.0) == 10
    for process in (idle, other):
        await process.leave()


@virtual
@pytest.mark.asyncio
async def test_processes_that_outnumber_the_permits_take_turns() -> None:
    store, seen, limit = Store(), list[float](), RateLimit(1, 1.0)
    processes = [await Process(store, name, limit, seen).begin() for name in "abc"]
    await asyncio.sleep(120.0)
    assert min(each.sent for each in processes) > 15
    assert most_in_a_window(seen, 1.0) == 1
    for process in processes:
        await process.leave()


@virtual
@pytest.mark.asyncio
async def test_a_process_that_cannot_write_the_journal_keeps_what_it_holds_and_stops_when_that_may_be_taken() -> None:
    store, seen, limit = Store(), list[float](), RateLimit(4, 1.0)
    first = await Process(store, "first", limit, seen).begin()
    first.journal.fails = True
    other = await Process(store, "other", limit, seen).begin()
    await asyncio.sleep(20.0)
    assert (first.held, other.held) == (4, 0)
    await asyncio.sleep(_Owners.part_seconds)
    sent = first.sent
    await asyncio.sleep(10.0)
    assert first.sent == sent
    first.journal.fails = False
    await asyncio.sleep(5.0)
    assert (first.held, other.held) == (2, 2)
    assert most_in_a_window(seen, 1.0) == 4
    for process in (first, other):
        await process.leave()


@virtual
@pytest.mark.asyncio
@pytest.mark.parametrize("silent", [False, True])
async def test_who_waits_for_a_part_that_cannot_be_renewed_hears_of_it_and_sends_again_when_it_is(silent: bool) -> None:
    store, seen, limit = Store(), list[float](), RateLimit(4, 1.0)
    process = await Process(store, "first", limit, seen, busy=False).begin()
    permits, loop = process._permits, asyncio.get_running_loop()
    process.journal.hangs, process.journal.fails = silent, not silent
    began = loop.time()

    async def call() -> NoReturn:
        while True:
            await permits.acquire()
            permits.release()

    with pytest.raises(JournalError, match="other processes may have this one's part"):
        await call()
    took = loop.time() - began
    assert _Owners.part_seconds <= took <= _Owners.part_seconds + 15.0
    with pytest.raises(JournalError, match="it does not answer" if silent else "no room"):
        await permits.begin()
    if not silent:
        process.journal.fails = False
        await asyncio.sleep(2.0)
        await permits.begin()
        await permits.acquire()
        permits.release()
        assert permits.refused is None
    process.busy.clear()
    await process.leave()


@virtual
@pytest.mark.asyncio
async def test_who_follows_a_run_bears_with_a_journal_that_is_away_for_as_long_as_with_a_vendor() -> None:
    store, limit = Store(), RateLimit(4, 1.0)
    journal = KeptInMemory(store, "first")
    store.alive.add("first")
    shared = SharedBudget(cast(Budgets, journal), "pool", limit)
    wire = Wire({POLL: run("running")})
    loop = asyncio.get_running_loop()
    steady = Backoff(initial=2.0, factor=1.0, jitter=0.0)
    async with Client(load("narrative"), wire, retry=Retry(backoff=steady), schedule=steady, limit=shared) as client:
        stream = client.stream(RunRef(RUN), timeout=None, patience=20.0)
        await anext(stream)
        journal.fails = True
        began = loop.time()
        with pytest.raises(JournalError, match="no room"):
            await anext(stream)
        over = _Owners.part_seconds
        assert over + 20.0 <= loop.time() - began <= over + 45.0
        last = wire.times(POLL)[-1]
        assert last <= began + over
        with pytest.raises(JournalError, match="no room"):
            await client.fetch(RunRef(RUN))
        journal.fails = False
        wire.script[POLL] = [run("completed")]
        assert (await anext(stream)).status is RunStatus.COMPLETED


@virtual
@pytest.mark.asyncio
async def test_a_renewal_that_fails_otherwise_is_told_once_and_tried_on(caplog: pytest.LogCaptureFixture) -> None:
    store, seen, limit = Store(), list[float](), RateLimit(4, 1.0)
    process = await Process(store, "first", limit, seen).begin()
    process.journal.fails = ZeroDivisionError("a mistake")
    await asyncio.sleep(_Owners.part_seconds)
    process.journal.fails = False
    await asyncio.sleep(5.0)
    sent = process.sent
    await asyncio.sleep(10.0)
    assert process.sent > sent + 30
    (told,) = [each for each in caplog.records if "cannot be renewed" in each.message]
    assert told.exc_info is not None
    await process.leave()


@virtual
@pytest.mark.asyncio
async def test_a_part_is_over_when_the_machine_has_slept_though_the_clock_of_the_loop_stood_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, seen, limit = Store(), list[float](), RateLimit(4, 1.0)
    process = await Process(store, "first", limit, seen).begin()
    asleep = 0.0
    monkeypatch.setattr(budget, "_seconds_asleep", lambda: asleep)
    await asyncio.sleep(5.0)
    process.journal.fails, asleep = True, 3600.0
    await asyncio.sleep(1.5)
    sent = process.sent
    await asyncio.sleep(10.0)
    assert process.sent == sent
    process.journal.fails = False
    await asyncio.sleep(5.0)
    assert process.sent > sent
    await process.leave()


@virtual
@pytest.mark.asyncio
async def test_what_a_process_has_not_used_before_it_is_left_is_there_at_once_for_the_next() -> None:
    store, seen, limit = Store(), list[float](), RateLimit(90, 60.0)
    first = await Process(store, "first", limit, seen, busy=False).begin()
    for _ in range(5):
        await first.send()
    await asyncio.sleep(0.5)
    await first.leave()
    second = await Process(store, "second", limit, seen).begin()
    assert second.held == 85
    await asyncio.sleep(63.0)
    assert second.held == 90
    assert most_in_a_window(seen, 60.0) <= 90
    await second.leave()


@virtual
@pytest.mark.asyncio
async def test_a_client_that_is_entered_again_has_what_it_has_not_used() -> None:
    store, seen, limit = Store(), list[float](), RateLimit(90, 60.0)
    process = await Process(store, "first", limit, seen, busy=False).begin()
    for _ in range(5):
        await process.send()
    await asyncio.sleep(0.5)
    await process.leave()
    process.journal.me = "first, open again"
    store.alive.add(process.journal.me)
    await process.shared.open()
    assert process.held == 85
    await asyncio.sleep(63.0)
    assert process.held == 90
    await process.shared.leave()


@virtual
@pytest.mark.asyncio
async def test_a_process_that_was_killed_long_ago_holds_nothing() -> None:
    store, limit = Store(), RateLimit(90, 60.0)
    await (await Process(store, "first", limit, []).begin()).die()
    await asyncio.sleep(3600.0)
    second = await Process(store, "second", limit, []).begin()
    assert second.held == 90
    await second.leave()


@virtual
@pytest.mark.asyncio
async def test_a_clock_that_was_put_back_holds_no_permit_for_long() -> None:
    store, limit = Store(), RateLimit(4, 1.0)
    store.file.execute("INSERT INTO budget_part VALUES ('pool', 'gone', 4, 1, 1e9, 1e9)")
    store.file.execute("INSERT INTO budget_part VALUES ('pool', 'killed', 4, 1, 1e9, NULL)")
    process = await Process(store, "a", limit, []).begin()
    await asyncio.sleep(2.5)
    assert process.held == 4
    await process.leave()


MOVES = ["come", "come idle", "wake", "leave", "die", "fail", "lose", "mend", "wait"]
moves = st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 3), st.floats(0, 20)), max_size=25)


limits = st.sampled_from([RateLimit(5, 3.0), RateLimit(2, 1.0), RateLimit(20, 10.0)])


def play(moves: list[tuple[str, int, float]], limit: RateLimit, store: Store) -> None:
    """See that no window holds more than the limit, and that whoever is left and busy in the end is served."""
    seen: list[float] = []

    async def story() -> None:
        number = 0
        alive: dict[int, Process] = {}
        for what, place, seconds in moves:
            process = alive.get(place)
            if process is None and what.startswith("come"):
                number += 1
                made = Process(store, f"{number}", limit, seen, busy=what == "come")
                alive[place] = await made.begin()
            elif process is not None:
                if what == "wake":
                    process.busy.set()
                elif what in {"fail", "lose", "mend"}:
                    process.journal.fails, process.journal.loses = what == "fail", what == "lose"
                elif what in {"leave", "die"}:
                    await (process.leave() if what == "leave" else process.die())
                    del alive[place]
            await asyncio.sleep(seconds)
        for process in alive.values():
            process.journal.fails = process.journal.loses = False
        before = {process: process.sent for process in alive.values()}
        await asyncio.sleep(60.0)
        for process in alive.values():
            assert process.sent > before[process] or not process.busy.is_set()
            await process.leave()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())
    assert most_in_a_window(seen, limit.seconds) <= limit.count


@settings(max_examples=60)
@given(moves=moves, limit=limits)
def test_no_window_holds_more_than_the_limit_whatever_becomes_of_processes(
    moves: list[tuple[str, int, float]], limit: RateLimit
) -> None:
    store = Store()
    with closing(store.file):
        play(moves, limit, store)


@pytest.fixture
def in_postgres(postgres: Server) -> Iterator[Tables]:
    from agentruns._keeping.journal.postgres import schema
    from agentruns._keeping.journal.postgres.address import database
    from agentruns._keeping.journal.postgres.connection import connection_to
    from agentruns._keeping.journal.postgres.tables import PostgresTables

    place = database(postgres.url(schema="budgets"))
    with closing(connection_to(place)) as connection:
        with connection.transaction():
            schema.establish(connection, place)
        yield PostgresTables(connection, place.prefix)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=moves, limit=limits)
def test_no_window_holds_more_than_the_limit_over_postgres(
    in_postgres: Tables, moves: list[tuple[str, int, float]], limit: RateLimit
) -> None:
    in_postgres.execute("DELETE FROM budget_part")
    store = Store(in_postgres)
    with closing(store.file):
        play(moves, limit, store)


@pytest.mark.asyncio
async def test_a_client_takes_its_part_when_it_is_entered_and_gives_it_back_when_it_is_left(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    def held() -> list[Any]:
        with closing(sqlite3.connect(path)) as file:
            return file.execute("SELECT pool, held FROM budget_part WHERE returns IS NULL").fetchall()

    async with connect("middesk", transport=ScriptedTransport({}), journal=path):
        assert held() == [("middesk api.middesk.com 18/1s", 18)]
        async with connect("middesk", transport=ScriptedTransport({}), journal=path, budget=RateLimit(90, 60.0)):
            assert held()[1:] == [("middesk api.middesk.com 90/60s", 90)]
    assert held() == []


# Three processes ------------------------------------------------------------------------------------------------------

SENDER = """
import asyncio, sys
from agentruns import connect
from agentruns._keeping import budget
from agentruns._values.exchange import Request

budget._RENEW_SECONDS = 0.5

def ask():
    yield Request("GET", "/thing")

async def main(url, path):
    async with connect("middesk", token="t", base_url=url, journal=path, budget=20.0) as client:
        print("open", flush=True)
        while True:
            await asyncio.gather(*(client.perform(ask()) for _ in range(5)))

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def sender(*words: str) -> Iterator[Any]:
    import subprocess

    process = subprocess.Popen(
        [sys.executable, "-c", SENDER, *words],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.asyncio
async def test_three_processes_on_one_journal_send_no_more_than_one_may_and_one_that_is_killed_leaves_its_part(
    tmp_path: Path,
) -> None:
    seen: list[float] = []

    async def answer(_: web.Request) -> web.Response:
        seen.append(asyncio.get_running_loop().time())
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/thing", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    words = f"http://127.0.0.1:{runner.addresses[0][1]}", str(tmp_path / "j.db")
    try:
        with sender(*words) as first, sender(*words) as second, sender(*words) as third:
            for process in (first, second, third):
                assert await asyncio.to_thread(process.stdout.readline) == b"open\n"
            await asyncio.sleep(2.0)
            first.send_signal(signal.SIGKILL)
            second.send_signal(signal.SIGKILL)
            held: list[Any] = []
            for _ in range(200):  # the third has all of it when it has seen that they are gone
                await asyncio.sleep(0.1)
                with closing(sqlite3.connect(words[1])) as file:
                    held = file.execute("SELECT held FROM budget_part WHERE returns IS NULL").fetchall()
                if held == [(20,)]:
                    break
            assert held == [(20,)]
    finally:
        await runner.cleanup()
    assert most_in_a_window(seen, 1.0) <= 20
