"""Watching never acts: who drives a run is one, wherever it was begun, and the others see what that one sees."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agentruns import Action, Backoff, Client, DeadlineExceededError, NotFoundError, Retry, Run, RunRef, RunStatus
from agentruns._following import watching
from agentruns._following.driving import RunDrive
from agentruns._keeping.journal import Journal
from agentruns._values.exchange import Request, Response
from agentruns.client import drive, keys_of, watch
from agentruns.dialects import load
from agentruns.web import Feed, Feeds, Watcher
from tests.scripted_wire import (
    CONVERSATION,
    HEAD,
    NEXT_RUN,
    POLL,
    POLL_NEXT,
    RUN,
    START,
    Answer,
    Wire,
    begun,
    client_of,
    conversation,
    problem,
    run,
)
from tests.web.scripted_runs import MESSAGE, REF, said, story

QUICK = Backoff(initial=0.01, factor=1.0, jitter=0.0)
KEY = "invoice-17"
BY_ID = RunRef(RUN)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("virtual") is None:
        monkeypatch.setattr(watching, "_LOOKS", QUICK)


class Charge:
    """A tool that counts, and waits until it may answer."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_called = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def __call__(self, action: Action) -> bool:
        self.calls += 1
        self.is_called.set()
        await self.may_answer.wait()
        return True


def paused() -> Wire:
    """Return what the vendor says to the process that drives: a pause, whose answer brings another run."""
    return Wire({
        HEAD: [conversation(0), conversation(2)],
        START: [begun(), begun(id=NEXT_RUN)],
        POLL: run("requires_action"),
        POLL_NEXT: [run("running", id=NEXT_RUN), run("completed", id=NEXT_RUN)],
    })


def silent() -> Wire:
    """Return a vendor that must not be asked."""
    return Wire({})


@asynccontextmanager
async def process(address: str, wire: Wire, **options: Any) -> AsyncIterator[tuple[Client, Feeds]]:
    """Give what a process has of its own: an open journal, a client, and feeds."""
    journal = Journal(address, "narrative")
    client = Client(load("narrative"), wire, retry=Retry(backoff=QUICK), schedule=QUICK, journal=journal)
    async with client, Feeds(client, **options) as feeds:
        yield client, feeds


async def until(feed: Feed, status: RunStatus) -> None:
    """Wait until a feed has seen a state."""
    while feed.run is None or feed.run.status is not status:
        await feed.next_news()


async def states(watcher: Watcher) -> list[Any]:
    return [status for name, status in [said(event) async for event in watcher] if name == "run"]


@pytest.mark.asyncio
async def test_who_watches_in_another_process_runs_no_tool_and_sees_what_the_driver_sees(address: str) -> None:
    charge, other = Charge(), silent()
    async with process(address, paused(), tools=charge) as (_, here), process(address, other, tools=charge) as there:
        opened = here.open(MESSAGE, key=KEY)
        await until(opened, RunStatus.REQUIRES_ACTION)
        watcher = there[1].watch(BY_ID)
        assert said(await anext(watcher)) == ("run", "requires_action")
        charge.may_answer.set()
        assert (await states(watcher))[-1] == "completed"
        assert (await opened.ended()).id == NEXT_RUN

    assert charge.calls == 1
    assert other.asked == []


@pytest.mark.asyncio
async def test_who_watches_does_nothing_even_when_the_driver_is_gone(address: str) -> None:
    charge = Charge()
    other = Wire({POLL: [run("requires_action"), run("requires_action"), run("running"), run("completed")]})
    other.script[HEAD] = [conversation(0)]
    async with process(address, other, tools=charge, on_cancel="leave") as (_, there):
        watcher = there.watch(REF)
        async with process(address, paused(), tools=charge) as (_, here):
            here.open(MESSAGE, key=KEY)
            await charge.is_called.wait()
            assert said(await anext(watcher)) == ("run", "requires_action")
        assert await states(watcher) == ["running", "completed"]

    assert charge.calls == 1
    assert {request.method for _, request in other.asked} == {"GET"}


@pytest.mark.asyncio
async def test_of_all_processes_that_watch_a_run_that_nobody_drives_one_reads_it(address: str) -> None:
    now = "running"
    wires = [Wire({POLL: lambda _: run(now)}) for _ in range(4)]

    def readers() -> set[int]:
        return {number for number, wire in enumerate(wires) if wire.asked}

    async with AsyncExitStack() as stack:
        processes = [AsyncExitStack() for _ in wires]
        feeds = []
        for each, wire in zip(processes, wires, strict=True):
            await stack.enter_async_context(each)
            feeds.append((await each.enter_async_context(process(address, wire)))[1])
        watchers = [each.watch(REF) for each in feeds]
        shown = [[said(await anext(each))[1]] for each in watchers]
        tabs = [asyncio.create_task(states(each)) for each in watchers]
        (first,) = readers()
        while len(wires[first].asked) < 5:  # noqa: ASYNC110 - what a vendor is asked has no event
            await asyncio.sleep(0.005)
        assert readers() == {first}

        await processes[first].aclose()
        while len(readers()) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        now = "requires_action"
        for number in {0, 1, 2, 3} - {first}:
            feed = feeds[number].get(REF)
            assert feed is not None
            await until(feed, RunStatus.REQUIRES_ACTION)
        now = "completed"
        seen = await asyncio.gather(*tabs)

    assert len(readers()) == 2
    assert shown == [["running"]] * 4
    assert [each for number, each in enumerate(seen) if number != first] == [["requires_action", "completed"]] * 3


@pytest.mark.asyncio
async def test_a_tab_that_comes_back_elsewhere_while_nobody_drives_sees_no_earlier_state(address: str) -> None:
    asks, silently = Wire({POLL: run("requires_action")}), story(Answer({}, after=3600))
    async with process(address, asks) as (_, here), process(address, silent()) as (_, there):
        async with process(address, silently) as (_, driver):
            assert (await driver.open(MESSAGE, key=KEY).started()).status is RunStatus.PENDING
        watcher = here.watch(REF)
        seen = [said(await anext(watcher)), said(await anext(there.watch(REF)))]

    assert seen == [("run", "requires_action")] * 2


@pytest.mark.asyncio
@pytest.mark.parametrize("by_key", [True, False])
async def test_a_second_driver_looks_on_and_takes_over_when_the_first_is_gone(address: str, by_key: bool) -> None:
    first, second = story(run("running")), story(run("running"), run("completed"))
    async with process(address, second) as (_, there):
        async with process(address, first) as (_, here):
            begun = await here.open(MESSAGE, key=KEY).started()
            feed = there.open(MESSAGE, key=KEY) if by_key else there.open(begun.ref)
            assert (await feed.started()).id == begun.id
            await until(feed, RunStatus.RUNNING)
            assert second.asked == []
        assert (await feed.ended()).status is RunStatus.COMPLETED

    assert len(first.times(START)) == 1
    assert second.times(START) == []


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_watch_that_saw_nothing_in_time_speaks_of_no_start() -> None:
    async with client_of(Wire({POLL: Answer({}, after=100.0)})) as client:
        with pytest.raises(DeadlineExceededError, match=r"no state of the run was seen\. Nothing was started: make"):
            await anext(watch(client, BY_ID, timeout=5.0))


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [Answer({}, after=3600), run("running")], ids=["starts it", "drives it"])
async def test_the_timeout_of_a_second_driver_ends_its_wait_for_the_first(tmp_path: Path, answer: Answer) -> None:
    address = str(tmp_path / "journal.db")
    first = Wire({HEAD: conversation(), START: answer, POLL: run("running")})
    async with process(address, first) as (_, here), process(address, silent()) as (client, _):
        here.open(MESSAGE, key=KEY)
        await first_is_asked(first)
        states = drive(client, MESSAGE, key=KEY, timeout=0.3)
        with pytest.raises(DeadlineExceededError, match=r"0\.3 s have passed, and another process is at the work"):
            async for _ in states:
                pass
        with pytest.raises(StopAsyncIteration):
            await anext(states)


@pytest.mark.asyncio
async def test_the_timeout_of_a_driver_that_takes_over_counts_from_its_own_first_step(tmp_path: Path) -> None:
    address = str(tmp_path / "journal.db")
    async with process(address, story(run("running"))) as (client, _):
        async with process(address, story(run("running"))) as (_, here):
            await here.open(MESSAGE, key=KEY).started()
            states = drive(client, MESSAGE, key=KEY, timeout=60.0)
            first_step = asyncio.get_running_loop().time()
            assert (await anext(states)).id == RUN
            assert isinstance(states, RunDrive)
            assert "another process drives" in repr(states)
            await asyncio.sleep(0.1)
        async with asyncio.timeout(10):
            while not states.is_driving:
                with suppress(TimeoutError):
                    await asyncio.wait_for(anext(states), 0.1)
        assert states._stream._turn.began == pytest.approx(first_step, abs=0.05)


async def first_is_asked(wire: Wire) -> None:
    """Wait until a process has sent its start."""
    async with asyncio.timeout(10):
        while not wire.times(START):  # noqa: ASYNC110 - a script has no event to wait for
            await asyncio.sleep(0.005)


@pytest.mark.asyncio
async def test_a_run_that_is_opened_by_its_id_is_driven_under_the_key_that_it_was_begun_under(address: str) -> None:
    charge = Charge()
    charge.may_answer.set()
    async with process(address, paused(), tools=charge) as (_, here):
        await here.open(MESSAGE, key=KEY).ended()
    async with process(address, paused(), tools=charge) as (client, there):
        # The vendor shows the answered run as it was, for ever: only the journal knows better.
        assert (await there.open(REF).ended()).id == NEXT_RUN
        found = await client.work(KEY)

    assert found is not None
    assert found.run is not None
    assert found.run.status is RunStatus.COMPLETED
    assert charge.calls == 1


@pytest.mark.asyncio
async def test_a_tab_that_comes_back_beside_the_recovery_finds_the_one_feed(address: str) -> None:
    charge = Charge()
    async with process(address, story(run("running")), tools=charge) as (_, here):
        await until(here.open(MESSAGE, key=KEY), RunStatus.RUNNING)
    charge.may_answer.set()
    wire = paused()
    wire.script[START] = [begun(id=NEXT_RUN)]
    async with process(address, wire, tools=charge) as (client, feeds):
        recovered = [feeds.open(work) async for work in client.unfinished()]
        watched = feeds.watch(BY_ID)
        assert (await states(watched))[-1] == "completed"
        assert feeds.get(BY_ID) is recovered[0]

    assert charge.calls == 1
    assert len(recovered) == 1


class Reads:
    """The reads that a journal is asked for."""

    def __init__(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: list[str] = []
        self.glances = 0
        get, glance = journal.get, journal.glance

        async def counted(key: str) -> Any:
            self.of.append(key)
            return await get(key)

        async def glanced(*asked: Any) -> Any:
            self.glances += 1
            return await glance(*asked)

        monkeypatch.setattr(journal, "get", counted)
        monkeypatch.setattr(journal, "glance", glanced)


@pytest.mark.asyncio
async def test_a_change_of_one_run_is_read_once_however_many_watch_it_and_others(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 40

    async def look(states: Any, seen: list[RunStatus]) -> None:
        async for state in states:
            seen.append(state.status)  # noqa: PERF401 - it is looked at meanwhile

    async with process(address, silent()) as (driver, _), process(address, silent()) as (client, _):
        journal = keys_of(driver).journal
        for number in range(count):
            await journal.attach(f"key-{number}", "{}", state_of(number, "running"))
        reads = Reads(keys_of(client).journal, monkeypatch)
        seen: list[list[RunStatus]] = [[] for _ in range(count + 2)]
        looking = [
            asyncio.create_task(look(watch(client, RunRef(f"run-{max(number, 0)}")), seen[number]))
            for number in range(-2, count)
        ]
        async with asyncio.timeout(20):
            while not all(seen):  # noqa: ASYNC110 - what all have seen is no event
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            reads.of.clear()
            reads.glances = 0
            await journal.saw("key-0", state_of(0, "completed"), done=True)
            await asyncio.gather(*looking[:3])
            await asyncio.sleep(0.3)
        for each in looking:
            each.cancel()
        await asyncio.wait(looking)

    assert [len(each) for each in seen] == [2] + [1] * (count - 1) + [2, 2]
    assert reads.of == ["key-0"]
    assert 1 <= reads.glances <= 3


def state_of(number: int, status: str) -> str:
    return Run(RunRef(f"run-{number}", CONVERSATION), RunStatus(status), status, vendor="narrative").to_json()


@pytest.mark.asyncio
async def test_a_tab_that_closes_elsewhere_cancels_nothing(address: str) -> None:
    async with process(address, story(run("running"))) as (_, here), process(address, silent(), linger=0.0) as there:
        opened = here.open(MESSAGE, key=KEY)
        await until(opened, RunStatus.RUNNING)
        tab = there[1].watch(BY_ID)
        await anext(tab)
        await tab.aclose()
        await asyncio.sleep(0.05)

        assert not opened.is_over


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_who_looks_at_a_run_that_waits_and_is_dropped_leaves_nothing_behind() -> None:
    async with client_of(Wire({POLL: run("requires_action"), HEAD: conversation(0)})) as client:
        states = watch(client, REF)
        assert (await anext(states)).status is RunStatus.REQUIRES_ACTION
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(states), 60)
        assert client.stats().watched == 1
        del states
        gc.collect()
        await asyncio.sleep(0)
        assert client.stats().watched == 0


@pytest.mark.asyncio
async def test_work_that_is_done_is_shown_without_a_request(address: str) -> None:
    async with process(address, story(run("running"), run("completed"))) as (_, here):
        await here.open(MESSAGE, key=KEY).ended()
    other = silent()
    async with process(address, other) as (_, there):
        assert await states(there.watch(BY_ID)) == ["completed"]

    assert other.asked == []


# Ids that nobody knows ------------------------------------------------------------------------------------------------


class Missing(Wire):
    """A vendor that knows one run; of any other there is none."""

    async def __call__(self, request: Request) -> Response:
        self.script.setdefault(request.line, [problem(404, "not-found", "no such run")])
        return await super().__call__(request)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_made_up_ids_cost_a_bounded_number_of_requests_and_evict_nothing() -> None:
    wire = Missing({POLL: run("completed")})
    loop = asyncio.get_running_loop()

    async def visit(feeds: Feeds, name: str) -> bool:
        watcher = feeds.watch(RunRef(name))
        try:
            await watcher.ready()
        except NotFoundError:
            return True
        finally:
            await watcher.aclose()
        return False

    async with client_of(wire) as client, Feeds(client) as feeds:
        real = feeds.open(REF, name="job")
        await real.ended()
        began, asked = loop.time(), len(wire.asked)
        known = await asyncio.gather(*[visit(feeds, f"made-up-{number}") for number in range(1100)])
        took = loop.time() - began

        assert len(wire.asked) - asked <= 32 + took + 1
        assert known.count(True) >= 32
        assert feeds.get("job") is feeds.get(REF) is real
        before = len(wire.asked)
        assert await visit(feeds, "made-up-0")
        assert len(wire.asked) == before


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_runs_that_there_are_cost_nothing_of_what_is_left_for_unknown_ids() -> None:
    names = [f"run-{number}" for number in range(200)]
    wire = Wire({f"GET /agents/runs/{name}": run("completed", id=name) for name in names})
    loop = asyncio.get_running_loop()
    async with client_of(wire) as client, Feeds(client) as feeds:
        for name in names:
            assert await states(feeds.watch(RunRef(name, CONVERSATION))) == ["completed"]

    assert loop.time() < 10.0


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_who_waits_for_a_turn_to_ask_when_the_feeds_stop_sees_the_end_and_no_error() -> None:
    wire = Missing({})
    async with client_of(wire) as client:
        async with Feeds(client) as feeds:
            tabs = [feeds.watch(RunRef(f"made-up-{number}")) for number in range(40)]
            asking = [asyncio.create_task(each.ready(60.0)) for each in tabs]
            await asyncio.sleep(2.0)
        ended = await asyncio.gather(*asking, return_exceptions=True)
        after = feeds.watch(REF)
        await after.ready()
        assert [event async for event in after] == []

    assert {type(each) for each in ended} == {type(None), NotFoundError}
    assert ended[-1] is None
    assert [event async for event in tabs[-1]] == []


# What is left of runs that are over -----------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_runs_that_are_over_are_kept_up_to_so_many_bytes_and_their_names_begin_nothing_anew() -> None:
    names = [f"run-{number}" for number in range(6)]
    text = "x" * 100_000
    wire = Wire({f"GET /agents/runs/{name}": run("completed", id=name, final_text=text) for name in names})
    async with client_of(wire) as client, Feeds(client, memory=1_000_000) as feeds:
        for name in names:
            await feeds.open(RunRef(name), name=f"work {name}").ended()
        kept = [feeds.get(RunRef(name)) is not None for name in names]
        again = feeds.open(MESSAGE, name="work run-0")

        assert kept == [False, False, False, True, True, True]
        assert (await again.ended()).id == "run-0"


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_feeds_set_no_deadline_unless_they_are_given_one() -> None:
    wire = story(*[run("running")] * 5000, run("completed"))
    async with client_of(wire) as client, Feeds(client) as feeds:
        assert (await feeds.open(MESSAGE).ended()).status is RunStatus.COMPLETED

    assert wire.times(POLL)[-1] > 1200
