"""Many runs in one request, by their ids: as few requests as can be, none forgotten, and the news of a single read."""

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import pytest
from attrs import evolve

from agentruns import Backoff, Client, ProtocolError, Run, RunRef, RunStatus
from agentruns._polling import bulk
from agentruns._polling.watch import Watch
from agentruns._values.exchange import RateLimit
from agentruns.dialects import Flow, ReadOn
from tests.scripted_wire import STEADY
from tests.tiny_vendor import Server, client_of, tiny

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

BULK = "POST /many/runs"


async def follow_all(client: Client, server: Server, count: int, **options: Any) -> list[Any]:
    refs = [server.begin(f"a-{number}") for number in range(count)]
    options = {"timeout": None, **options}
    return list(await asyncio.gather(*(client.result(ref, **options) for ref in refs), return_exceptions=True))


def singles(server: Server) -> list[str]:
    return [line for _, line, _ in server.asked if line.startswith("GET /runs/")]


@pytest.mark.parametrize("count", [2, 99, 100, 101, 250])
async def test_there_is_at_most_a_request_per_hundred_runs_that_wait_and_none_is_forgotten(count: int) -> None:
    server = Server(20.0)
    async with client_of(server, schedule=STEADY, many=100) as client:
        ended = await follow_all(client, server, count)
        stats = client.stats()

    assert {(run.status, run.output) for run in ended} == {(RunStatus.COMPLETED, "well")}
    gap = STEADY.delay(0, noise=0.0)
    assert len(server.asked) <= math.ceil(count / 100) * (20.0 / gap + 2)
    assert stats.lists == len(server.times(BULK))
    assert stats.ended == count


async def test_runs_that_started_at_different_times_are_read_together() -> None:
    server = Server(30.0)
    async with client_of(server, many=100) as client:

        async def later(number: int) -> Run:
            await asyncio.sleep(number * 0.37)
            return await client.result(server.begin(f"a-{number}"))

        ended = await asyncio.gather(*map(later, range(80)))

    assert {run.status for run in ended} == {RunStatus.COMPLETED}
    assert len(server.asked) < 150  # some 30 polls for each of 80 runs without


async def test_one_run_alone_is_read_by_itself() -> None:
    server = Server(10.0)
    async with client_of(server, schedule=STEADY, many=100) as client:
        await follow_all(client, server, 1)

    assert server.times(BULK) == []


async def test_each_transition_is_news_as_after_a_read_of_its_own() -> None:
    server = Server(5.0, queued=3.0)

    async def words(client: Client, ref: RunRef) -> list[str]:
        return [run.vendor_status async for run in client.stream(ref, timeout=None)]

    async with client_of(server, schedule=STEADY, many=100) as client:
        refs = [server.begin(f"a-{number}") for number in range(5)]
        seen = await asyncio.gather(*(words(client, ref) for ref in refs))

    assert seen == [["queued", "working", "done"]] * 5


async def test_a_run_of_which_only_its_ref_is_told_is_in_flight_as_it_was() -> None:
    server = Server(20.0)
    server.terse = True
    async with client_of(server, schedule=STEADY, many=100) as client:
        refs = [await client.start(f"a-{number}") for number in range(50)]
        ended = await asyncio.gather(*map(client.result, refs))

    assert {run.status for run in ended} == {RunStatus.COMPLETED}
    assert singles(server) == []


async def test_a_run_that_was_never_read_is_read_by_itself_where_only_its_ref_is_told() -> None:
    server = Server(20.0)
    server.terse = True
    async with client_of(server, schedule=STEADY, many=100) as client:
        ended = await follow_all(client, server, 10)

    assert {run.status for run in ended} == {RunStatus.COMPLETED}
    assert sorted(singles(server)) == sorted(f"GET /runs/a-{number}" for number in range(10))


async def test_what_an_answer_leaves_out_is_read_by_itself_at_once_and_from_then_on() -> None:
    server = Server(10.0)
    server.hidden = {"a-3"}
    async with client_of(server, schedule=STEADY, many=100) as client:
        ended = await follow_all(client, server, 6)

    assert {run.status for run in ended} == {RunStatus.COMPLETED}
    assert set(singles(server)) == {"GET /runs/a-3"}
    first = server.times(BULK)[0] + server.latency
    assert server.times("GET /runs/a-3")[0] == pytest.approx(first, abs=0.01)


def reading_on(made: Any, *, fails: int = 0) -> Any:
    """Return a dialect whose request for many tells of news by `ReadOn`; so many of what it then asks fail."""
    failures = [True] * fails

    def fetch_many(refs: Sequence[RunRef]) -> Flow[Any]:
        runs = yield from made.fetch_many(refs)
        return [run.ref if run.status.in_flight else ReadOn(run.ref, partial(read, run.ref)) for run in runs]

    def read(ref: RunRef) -> Flow[Run]:
        run: Run = yield from made.fetch(ref, {"on": "1"})
        if failures:
            failures.pop()
            raise KeyError("an answer that this dialect was not written for")
        return evolve(run, output="read on")

    dialect = cast(Any, tiny(many=100))
    dialect.fetch_many = fetch_many
    return dialect


async def test_what_a_run_is_said_to_be_read_by_reads_it_at_once() -> None:
    server = Server(10.0)
    async with client_of(server, schedule=STEADY, dialect=reading_on(tiny(many=100))) as client:
        refs = [await client.start(f"a-{number}") for number in range(20)]
        ended = await asyncio.gather(*map(client.result, refs))

    assert {(run.status, run.output) for run in ended} == {(RunStatus.COMPLETED, "read on")}
    assert sorted(singles(server)) == sorted(f"GET /runs/a-{number}" for number in range(20))


async def test_a_mistake_while_a_run_is_read_on_is_told_to_those_who_follow_it_alone() -> None:
    server = Server(10.0)
    async with client_of(server, schedule=STEADY, dialect=reading_on(tiny(many=100), fails=1)) as client:
        refs = [await client.start(f"a-{number}") for number in range(2)]
        ended = await asyncio.gather(*(client.result(ref, timeout=60) for ref in refs), return_exceptions=True)

    assert len([run for run in ended if isinstance(run, ProtocolError)]) == 1
    assert [run.output for run in ended if isinstance(run, Run)] == ["read on"]


async def test_a_run_with_parameters_of_its_own_is_read_by_itself() -> None:
    server = Server(10.0)
    async with client_of(server, schedule=STEADY, many=100) as client:
        others = asyncio.create_task(follow_all(client, server, 5))
        async for _ in client.stream(server.begin("b-1"), timeout=None, include="steps"):
            pass
        await others

    assert "GET /runs/b-1" in singles(server)


async def test_no_run_is_asked_about_while_a_request_for_many_is_under_way() -> None:
    server = Server(40.0, latency=3.0)
    async with client_of(server, schedule=Backoff(initial=0.5, maximum=0.5), many=10) as client:
        await follow_all(client, server, 10)

    times = server.times(BULK)
    assert all(later - earlier >= 3.0 for earlier, later in pairwise(times))
    assert singles(server) == []


@pytest.mark.parametrize("status", [400, 404, 500, 502])
async def test_a_request_for_many_that_fails_costs_no_run(status: int) -> None:
    server = Server(20.0)
    server.trouble[BULK] = [(status, {})] * 3
    async with client_of(server, schedule=STEADY, many=100) as client:
        ended = await follow_all(client, server, 10)

    assert {run.status for run in ended} == {RunStatus.COMPLETED}
    assert len(server.times(BULK)) > 3


async def test_a_run_that_cannot_be_taken_in_is_told_to_those_who_follow_it_alone_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(5.0)
    client = client_of(server, many=100)

    def odd(run: Run) -> str:
        if run.id == "a-1":
            raise RuntimeError("a group that this dialect does not know")
        return run.ref.parent

    object.__setattr__(client._vendor, "timing_group", odd)
    async with client:
        ended = await follow_all(client, server, 6)

    assert isinstance(ended[1], RuntimeError)
    assert [each.status for each in ended if isinstance(each, Run)] == [RunStatus.COMPLETED] * 5
    assert "reading run a-1 failed with RuntimeError" in caplog.text
    assert singles(server) == []


@pytest.mark.parametrize("told", [{"a-0": "working"}, ["a-0"], None, "text"])
async def test_what_is_no_sequence_of_runs_is_logged_and_runs_are_read_one_by_one(
    told: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(refs: Sequence[RunRef]) -> Flow[Any]:
        yield from made.fetch_many(refs)  # what it asks does not matter
        return told

    server, made, broken = Server(5.0), cast(Any, tiny(many=100)), cast(Any, tiny(many=100))
    broken.fetch_many = wrong
    async with client_of(server, schedule=STEADY, dialect=broken) as client:
        ended = await follow_all(client, server, 3)

    assert {run.status for run in ended} == {RunStatus.COMPLETED}
    assert "tiny.fetch_many returned" in caplog.text


async def test_a_state_of_no_known_status_is_an_error_of_that_run() -> None:
    def wrong(refs: Sequence[RunRef]) -> Flow[Any]:
        runs = yield from made.fetch_many(refs)
        return [Run(run.ref, cast(Any, "odd"), "odd") if run.id == "a-1" else run for run in runs]

    server, made, broken = Server(5.0), cast(Any, tiny(many=100)), cast(Any, tiny(many=100))
    broken.fetch_many = wrong
    async with client_of(server, schedule=STEADY, dialect=broken) as client:
        ended = await follow_all(client, server, 3)

    assert isinstance(ended[1], ProtocolError)
    assert "tiny.fetch_many returned a run whose status is 'odd'" in str(ended[1])
    assert [run.status for run in (ended[0], ended[2])] == [RunStatus.COMPLETED] * 2


async def test_a_run_that_nobody_waits_for_any_more_is_forgotten_by_a_request_that_is_under_way() -> None:
    server = Server(20.0, latency=3.0)
    async with client_of(server, schedule=STEADY, many=100) as client:
        waiting = [asyncio.create_task(client.result(server.begin(f"a-{number}"))) for number in range(5)]
        await asyncio.sleep(2.0)
        waiting[0].cancel()
        await asyncio.wait(waiting)

    assert waiting[0].cancelled()
    assert {task.result().status for task in waiting[1:]} == {RunStatus.COMPLETED}


async def test_under_a_tight_budget_a_run_that_is_read_by_itself_does_not_starve() -> None:
    server = Server(400.0, latency=0.05)
    server.lasts = {"a-0": 30.0}
    server.hidden = {"a-0"}
    async with client_of(server, schedule=STEADY, limit=RateLimit(2, 1.0), many=10) as client:
        waiting = [
            asyncio.create_task(client.result(server.begin(f"a-{number}"), timeout=None)) for number in range(200)
        ]
        await asyncio.wait_for(waiting[0], 60)
        for task in waiting:
            task.cancel()

    times = [when for when, _, _ in server.asked]
    assert all(later - earlier >= 1 for earlier, later in zip(times, times[2:], strict=False))


async def test_a_choice_looks_at_so_many_runs_as_a_request_takes_however_many_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks, choices = 0, 0
    may_come, choose = bulk._may_come, bulk.Bulks.next

    def looked_at(watch: Watch, now: float) -> bool:
        nonlocal looks
        looks += 1
        return may_come(watch, now)

    def chosen(self: bulk.Bulks, *asked: Any) -> Any:
        nonlocal choices
        choices += 1
        return choose(self, *asked)

    monkeypatch.setattr(bulk, "_may_come", looked_at)
    monkeypatch.setattr(bulk.Bulks, "next", chosen)
    server = Server(20.0)
    async with client_of(server, schedule=STEADY, many=10) as client:
        ended = await follow_all(client, server, 1000)

    assert {run.status for run in ended} == {RunStatus.COMPLETED}
    assert looks <= choices * 4 * 10
    assert looks / choices < 25
