"""The journal in PostgreSQL when a process stops, the network or the database goes away: all is still done once."""
# ruff: noqa: ASYNC110 - nothing tells when that is so

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from agentruns import Action, RunStatus, Tools
from agentruns._api.limiter import Permits
from agentruns._keeping import budget
from agentruns._keeping.budget import SharedBudget
from agentruns._keeping.journal import Journal
from agentruns._keeping.journal.lease import clock
from agentruns._keeping.journal.moves import AnswerState
from agentruns._values.exchange import RateLimit
from agentruns.errors import JournalError
from tests.scripted_wire import START
from tests.test_keys import KEY, client_of, message, paused

from .postgres_server import Proxy, Server
from .test_journal import process
from .test_shared_budget import most_in_a_window

pytestmark = pytest.mark.asyncio

ORIGIN = '{"text":"find a slot"}'
LEASE = 1


@pytest.fixture
def schema() -> str:
    return f"s{uuid4().hex[:12]}"


@pytest.fixture
def url(postgres: Server, schema: str) -> str:
    return postgres.url(schema=schema, lease=LEASE)


@pytest_asyncio.fixture
async def journal(url: str) -> AsyncIterator[Journal]:
    async with Journal(url, "narrative") as opened:
        yield opened


@pytest.fixture
def proxy(postgres: Server) -> Iterator[Proxy]:
    made = Proxy(postgres.port)
    yield made
    made.close()


@pytest_asyncio.fixture
async def far(postgres: Server, proxy: Proxy, schema: str) -> AsyncIterator[Journal]:
    """Return another owner of the same journal, behind a proxy."""
    async with Journal(postgres.url(port=proxy.port, schema=schema, lease=LEASE), "narrative") as opened:
        yield opened
        proxy.mend()


async def taken(journal: Journal, key: str) -> float:
    """Return when work could be taken over."""
    while not (await journal.begin(key, ORIGIN)).taken:
        await asyncio.sleep(0.02)
    return clock()


# Leases ---------------------------------------------------------------------------------------------------------------


async def test_who_is_cut_off_from_the_database_stops_before_another_begins(
    journal: Journal, far: Journal, proxy: Proxy
) -> None:
    acts = []

    async def act() -> None:
        async with far.acting():
            while True:
                acts.append(clock())
                await asyncio.sleep(0.01)

    await far.begin("k", ORIGIN)
    acting = asyncio.create_task(act())
    await asyncio.sleep(0)
    proxy.cut()
    begun = await taken(journal, "k")

    with pytest.raises(JournalError, match="they may go on with this work"):
        await acting
    assert acts[-1] < begun


async def test_a_process_that_is_stopped_finds_itself_cut_off_when_it_goes_on(journal: Journal, url: str) -> None:
    with process("act", url, "k") as child:
        last = (await asyncio.to_thread(child.heard))["at"]
        child.popen.send_signal(signal.SIGSTOP)
        begun = await taken(journal, "k")
        child.popen.send_signal(signal.SIGCONT)
        while "at" in (said := await asyncio.to_thread(child.heard)):
            last = said["at"]

    assert said == {"cut_off": True}
    assert last < begun


async def test_who_was_taken_for_dead_goes_on_as_somebody_else(journal: Journal, far: Journal, proxy: Proxy) -> None:
    await far.begin("k", ORIGIN)
    await far.handle("k", "run", "a", "charge")
    proxy.cut()
    await taken(journal, "k")
    assert (await journal.handle("k", "run", "a", "charge", repeatable=True)).taken
    proxy.mend()

    with pytest.raises(JournalError, match="not this process's any more"):
        await far.checkpoint("k", "{}")
    found = await far.handle("k", "run", "a", "charge", repeatable=True)
    assert (found.fresh, found.mine, found.alive) == (False, False, True)
    assert (await far.begin("l", ORIGIN)).mine


async def test_a_handler_is_cut_off_before_another_process_runs_it(
    postgres: Server, proxy: Proxy, schema: str, url: str
) -> None:
    wire = paused()
    acts: list[float] = []
    again: list[float] = []

    async def charge(_: Action) -> str:
        while not again:
            acts.append(clock())
            await asyncio.sleep(0.01)
        return "charged"

    async def charge_again(_: Action) -> str:
        again.append(clock())
        return "charged again"

    tools, tools_there = Tools(), Tools()
    tools.default(charge, repeatable=True)
    tools_there.default(charge_again, repeatable=True)
    far = postgres.url(port=proxy.port, schema=schema, lease=LEASE)
    async with client_of(wire, url) as there, client_of(wire, far) as here:
        doing = asyncio.create_task(here.result(message(), tools=tools, key=KEY))
        while not acts:
            await asyncio.sleep(0.01)
        proxy.cut()
        last = await there.result(message(), tools=tools_there, key=KEY)
        assert not doing.done()  # it waits for the database still, to say what became of the handler
        proxy.mend()
        with pytest.raises(JournalError):
            await doing

    assert last.status is RunStatus.COMPLETED
    assert len(again) == 1
    assert acts[-1] < again[0]
    assert "charged again" in json.dumps(wire.bodies(START)[1])


# Connections ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrives", [True, False], ids=["committed", "not committed"])
async def test_a_write_whose_commit_was_not_answered_is_done_once(far: Journal, proxy: Proxy, arrives: bool) -> None:
    for number, text in enumerate([b"COMMIT"] * 3):
        proxy.lose_next(text, arrives=arrives)
        begun, again = await asyncio.gather(far.begin(f"k{number}", ORIGIN), far.begin(f"k{number}", ORIGIN))
        assert (begun.fresh, again.fresh, again.mine) == (True, False, True)
    assert proxy.lost == 3


async def test_a_database_that_never_answers_is_given_up(
    far: Journal, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentruns._keeping.journal.postgres.connection.ANSWER_SECONDS", 0.2)
    before = proxy.connections
    proxy.cut()
    writing = asyncio.create_task(far.begin("k", ORIGIN))
    while proxy.connections == before:  # it has not tried another one yet
        await asyncio.sleep(0.01)
    proxy.mend()

    assert (await writing).fresh


async def work(journals: Sequence[Journal], keys: asyncio.Queue[str], counts: dict[str, list[int]]) -> None:
    """Have several owners at the same work at once; count how many began it, and how many ran its handler."""
    while True:
        counts[key := await keys.get()] = []
        begun = await asyncio.gather(*(each.begin(key, ORIGIN) for each in journals))
        handled = await asyncio.gather(*(each.handle(key, "run", "a", "charge") for each in journals))
        for each, handling in zip(journals, handled, strict=True):
            if handling.fresh:
                await each.answered(key, "run", "a", f'"{key}"', False)
        counts[key] = [sum(each.fresh for each in begun), sum(each.fresh for each in handled)]
        keys.task_done()


async def judged(journals: Sequence[Journal], trouble: Any) -> None:
    """Work until *trouble* is over, and see that all was done once and every answer kept."""
    keys: asyncio.Queue[str] = asyncio.Queue(4)
    counts: dict[str, list[int]] = {}
    workers = [asyncio.create_task(work(journals, keys, counts)) for _ in range(4)]
    troubling = asyncio.create_task(trouble)
    number = 0
    while not troubling.done() or number < 40:
        if any(each.done() for each in workers):
            break
        await keys.put(f"k{number}")
        number += 1
    joining = asyncio.create_task(keys.join())
    ended, _ = await asyncio.wait([joining, *workers], return_when=asyncio.FIRST_COMPLETED)
    for each in (joining, *workers):
        each.cancel()
    await asyncio.gather(troubling, *ended)  # a worker ends by its error only

    assert len(counts) == number
    assert all(count == [1, 1] for count in counts.values())
    for key in counts:
        (kept,) = await journals[0].answers(key, "run")
        assert (kept.state, kept.output) == (AnswerState.ANSWERED, f'"{key}"')


async def test_nothing_is_done_twice_and_no_answer_is_lost_while_connections_break(
    postgres: Server, proxy: Proxy, schema: str
) -> None:
    address = postgres.url(port=proxy.port, schema=schema, lease=15)

    async def trouble() -> None:
        for _ in range(8):
            await asyncio.sleep(0.08)
            proxy.drop()

    async with contextlib.AsyncExitStack() as stack:
        journals = [await stack.enter_async_context(Journal(address, "narrative")) for _ in range(3)]
        await judged(journals, trouble())


async def test_nothing_is_done_twice_and_no_answer_is_lost_while_the_database_crashes(
    postgres: Server, schema: str
) -> None:
    address = postgres.url(schema=schema, lease=15)

    async def trouble() -> None:
        for how in (signal.SIGQUIT, signal.SIGINT):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(postgres.stop, how)
            await asyncio.to_thread(postgres.start)
        await asyncio.sleep(0.2)

    async with contextlib.AsyncExitStack() as stack:
        journals = [await stack.enter_async_context(Journal(address, "narrative")) for _ in range(3)]
        await judged(journals, trouble())


async def test_a_database_that_stays_away_is_told_and_used_again_when_it_is_back(
    journal: Journal, far: Journal, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentruns._keeping.journal.postgres.ledger.PATIENCE", 0.1)
    proxy.close()
    started = time.monotonic()
    with pytest.raises(JournalError, match="it cannot be reached; look at the database and the network") as caught:
        await far.begin("k", ORIGIN)
    assert time.monotonic() - started < 10
    assert "not-to-be-shown" not in str(caught.value)
    assert await journal.get("k") is None


# The budget -----------------------------------------------------------------------------------------------------------


async def test_a_budget_is_divided_and_the_part_of_who_is_cut_off_comes_back(
    journal: Journal, far: Journal, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(budget, "_RENEW_SECONDS", 0.1)
    limit, seen = RateLimit(8, 0.4), list[float]()
    here, there = (SharedBudget(each.budgets, "pool", limit) for each in (journal, far))
    await here.open()
    await there.open()
    sending = [asyncio.create_task(sends(each, seen)) for each in (here, there)]
    while [held(here), held(there)] != [4, 4]:
        await asyncio.sleep(0.02)
    proxy.cut()
    while held(here) != 8:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    for each in sending:
        each.cancel()
    proxy.mend()
    await here.leave()
    await there.leave()

    assert most_in_a_window(seen, limit.seconds) == 8


def held(shared: SharedBudget) -> int:
    assert shared.limiter.limit is not None
    return shared.limiter.limit.count


async def sends(shared: SharedBudget, seen: list[float]) -> None:
    permits = Permits(shared.limiter)
    while True:
        await permits.acquire()
        seen.append(asyncio.get_running_loop().time())
        permits.release()
