"""One poller for all runs: who is asked about when, who hears of it, and what is left when nobody listens."""

import asyncio
import gc
import logging
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve

from agentruns import (
    Backoff,
    Client,
    DeadlineExceededError,
    ProtocolError,
    RateLimitedError,
    Run,
    RunRef,
    RunStatus,
    ServerError,
)
from agentruns._polling.poller import IN_ONE_TURN, Poller
from agentruns._values.commands import Flow
from agentruns._values.exchange import RateLimit
from tests.scripted_wire import STEADY
from tests.tiny_vendor import Server, client_of, tiny

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]


async def words(client: Client, origin: Any, **options: Any) -> list[str]:
    return [run.vendor_status async for run in client.stream(origin, timeout=None, **options)]


def now() -> float:
    return asyncio.get_running_loop().time()


# Sharing --------------------------------------------------------------------------------------------------------------


async def test_streams_on_one_run_share_every_answer() -> None:
    server = Server(5.0, queued=2.0)
    async with client_of(server, schedule=STEADY) as client:
        first = await client.start("a-1")
        seen = await asyncio.gather(*(words(client, first) for _ in range(100)))
        stats = client.stats()

    assert seen == [["queued", "working", "done"]] * 100
    assert len(server.times("GET /runs/a-1")) == 7
    assert stats.polls == 7
    assert stats.polls_shared == 99 * 7


async def test_a_run_that_is_over_with_its_start_is_followed_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[RunRef] = []
    acquire = Poller.acquire

    def counted(poller: Poller, ref: RunRef, *args: Any) -> Any:
        followed.append(ref)
        return acquire(poller, ref, *args)

    monkeypatch.setattr(Poller, "acquire", counted)
    server = Server(0.0)
    async with client_of(server, schedule=STEADY) as client:
        run = await client.result("a-1", timeout=None)
        assert followed == []
        assert [each async for each in client.stream(run.ref)] == [run]

    assert followed == [run.ref]


async def test_a_run_and_its_ref_are_one_run() -> None:
    server = Server(5.0)
    async with client_of(server, schedule=STEADY) as client:
        started = await client.start("a-1")
        await asyncio.gather(words(client, started), words(client, started.ref), words(client, RunRef("a-1")))

    assert server.overlaps == 0
    assert len(server.times("GET /runs/a-1")) <= 7


async def test_a_stream_that_joins_late_is_shown_what_is_known_and_goes_on_with_the_others() -> None:
    server = Server(10.0)
    async with client_of(server, schedule=STEADY) as client:
        early = asyncio.create_task(words(client, "a-1"))
        await asyncio.sleep(4.5)
        late = asyncio.create_task(words(client, RunRef("a-1", "a")))
        assert (await early, await late) == (["working", "done"], ["working", "done"])

    assert len(server.times("GET /runs/a-1")) == 10


async def test_no_run_is_asked_about_twice_at_once() -> None:
    server = Server(20.0, latency=7.0)
    async with client_of(server, schedule=Backoff(initial=0.1, maximum=0.1)) as client:
        started = await client.start("a-1")

        async def come_and_go() -> None:
            stream = client.stream(started.ref)
            for _ in range(30):
                try:
                    await asyncio.wait_for(anext(stream), 0.5)
                except (TimeoutError, StopAsyncIteration):
                    continue

        await asyncio.gather(*(come_and_go() for _ in range(5)), words(client, started))

    assert server.overlaps == 0


async def test_heartbeats_shorter_than_an_exchange_starve_no_poll() -> None:
    server, beats = Server(10.0, latency=5.0), 0
    async with client_of(server, schedule=STEADY) as client:
        stream = client.stream("a-1", timeout=100)
        seen = []
        while True:
            try:
                seen.append((await asyncio.wait_for(anext(stream), 0.7)).vendor_status)
            except TimeoutError:
                beats += 1
            except StopAsyncIteration:
                break

    assert seen == ["working", "done"]
    assert len(server.times("GET /runs/a-1")) == 2
    assert beats > 10


async def test_a_state_that_was_read_as_a_step_was_cut_is_shown_by_the_next() -> None:
    server = Server(3.0, latency=2.0)
    async with client_of(server, schedule=STEADY) as client:
        stream = client.stream("a-1")
        assert (await anext(stream)).vendor_status == "working"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 2.0)
        await asyncio.sleep(60)  # the read that was under way came meanwhile
        before = len(server.asked)
        assert (await anext(stream)).vendor_status == "done"

    assert len(server.asked) - before <= 1


# Coming and going -----------------------------------------------------------------------------------------------------


async def test_nobody_listens_nobody_asks() -> None:
    server = Server(1000.0)
    async with client_of(server, schedule=STEADY) as client:
        stream = client.stream("a-1")
        await anext(stream)
        await asyncio.sleep(100)
        assert server.times("GET /runs/a-1") == []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 3.5)
        await asyncio.sleep(100)

    assert len(server.times("GET /runs/a-1")) == 4
    assert server.times("GET /runs/a-1")[0] == pytest.approx(100.02)


async def test_letting_go_of_the_last_stream_ends_the_read_that_is_under_way() -> None:
    server = Server(1000.0, latency=50.0)
    async with client_of(server, schedule=STEADY) as client:
        first, second = client.stream(server.begin("a-1")), client.stream(RunRef("a-1", "a"))
        for stream in (first, second):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 1)
        await first.aclose()
        await asyncio.sleep(1)
        assert (server.cut, client.stats().watched) == (0, 1)
        del second, stream
        gc.collect()
        await asyncio.sleep(1)

        assert (server.cut, client.stats().watched) == (1, 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cancelled_wait_leaves_no_task() -> None:
    server = Server(1000.0, latency=50.0)
    async with client_of(server, schedule=STEADY) as client:
        waiting = [asyncio.create_task(client.result(f"a-{number}")) for number in range(20)]
        await asyncio.sleep(80)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        del waiting, task
        gc.collect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert client.stats().watched == 0


async def test_a_deadline_is_kept_while_every_worker_waits_for_an_answer() -> None:
    server = Server(1000.0, latency=300.0)
    async with client_of(server, schedule=STEADY, connections=1) as client:
        other = asyncio.create_task(client.result(server.begin("a-1"), timeout=None))
        await asyncio.sleep(1)
        with pytest.raises(DeadlineExceededError):
            await client.result(server.begin("a-2"), timeout=20)
        assert now() == pytest.approx(21, abs=0.1)
        other.cancel()


async def test_leaving_the_client_cuts_reads_and_asks_no_more() -> None:
    server = Server(1000.0, latency=50.0)
    async with client_of(server, schedule=STEADY) as client:
        waiting = [asyncio.create_task(client.result(server.begin(f"a-{number}"))) for number in range(200)]
        await asyncio.sleep(1)
    asked = len(server.asked)
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.sleep(100)

    assert len(server.asked) == asked == 88
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_thousands_of_waits_that_end_leave_an_empty_line() -> None:
    server = Server(1000.0)
    async with client_of(server, schedule=Backoff(initial=500.0, maximum=500.0)) as client:
        waiting = [asyncio.create_task(client.result(server.begin(f"a-{number}"))) for number in range(3000)]
        await asyncio.sleep(5)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        del waiting, task
        gc.collect()
        await asyncio.sleep(0.1)
        poller: Any = client._poller

        assert len(poller._agenda) <= 128
        assert not poller._watches


# Trouble --------------------------------------------------------------------------------------------------------------


async def test_each_stream_has_its_own_patience_with_one_run() -> None:
    server = Server(1000.0)
    server.trouble["GET /runs/a-1"] = [(502, {})] * 1000

    async def lasts(client: Client, patience: float) -> float:
        began = now()
        with pytest.raises(ServerError):
            await client.result(RunRef("a-1", "a"), patience=patience, timeout=None)
        return now() - began

    async with client_of(server, schedule=STEADY) as client:
        server.begin("a-1")
        took = await asyncio.gather(lasts(client, 10), lasts(client, 30), lasts(client, 0))
        assert client.stats().contact_lost == 0

    assert took == pytest.approx((10, 30, 0), abs=0.2)


async def test_lost_contact_is_counted() -> None:
    server = Server(1000.0)
    server.trouble["GET /runs/a-1"] = [(502, {})] * 1000
    async with client_of(server, schedule=STEADY) as client:
        waiting = asyncio.create_task(client.result(server.begin("a-1")))
        await asyncio.sleep(10)
        assert client.stats().contact_lost == 1
        waiting.cancel()


@pytest.mark.parametrize("status", [429, 503])
async def test_a_vendor_that_asks_for_rest_is_left_alone_by_all(status: int) -> None:
    server = Server(60.0)
    server.trouble["GET /runs/a-1"] = [(status, {"retry-after": "30"})]
    async with client_of(server, schedule=STEADY) as client:
        waiting = [asyncio.create_task(client.result(f"a-{number}")) for number in range(5)]
        await asyncio.sleep(5)
        fetched = await client.fetch(RunRef("a-2"))
        assert now() == pytest.approx(31, abs=1.1)
        await asyncio.gather(*waiting)

    assert fetched.vendor_status == "working"
    rested = server.times("GET /runs/a-1")[0] + server.latency
    assert not [when for when, _, _ in server.asked if rested + 0.001 < when < rested + 30]


async def test_a_call_is_told_at_once_when_the_vendor_asks_for_more_rest_than_it_has_patience() -> None:
    server = Server(60.0)
    server.trouble["GET /runs/a-1"] = [(429, {"retry-after": "3600"})]
    async with client_of(server, schedule=STEADY) as client:
        for _ in range(2):
            with pytest.raises(RateLimitedError, match="retry after 3600 s"):
                await client.fetch(server.begin("a-1"))

    assert len(server.asked) == 1


async def test_an_error_in_the_dialect_reaches_the_caller() -> None:
    server = Server(60.0)
    async with client_of(server, schedule=STEADY) as client:
        with pytest.raises(KeyError, match="nobody"):  # the tiny server knows no better
            await client.result(RunRef("nobody"))
        with pytest.raises(KeyError, match="nobody"):
            await client.result(RunRef("nobody"))


# The clock ------------------------------------------------------------------------------------------------------------


async def test_without_a_schedule_the_client_learns_how_long_runs_take() -> None:
    server = Server(10.0)
    async with client_of(server) as client:
        for number in range(40):
            await client.result(f"a-{number}")
        polls = [len(server.times(f"GET /runs/a-{number}")) for number in range(40)]
        stats = client.stats()

    assert sum(polls[30:]) < sum(polls[:10])
    begin = server.runs["a-39"].begins
    assert 3 < server.times("GET /runs/a-39")[0] - begin < 10.5  # it depends on the phase of the process
    assert stats.ended == 40
    assert stats.lag is not None
    assert 0 < stats.lag < 3


async def test_each_kind_of_run_has_a_clock_of_its_own() -> None:
    server = Server()
    server.lasts = {f"slow-{number}": 120.0 for number in range(30)} | {f"fast-{number}": 2.0 for number in range(30)}
    async with client_of(server) as client:
        for number in range(30):
            await asyncio.gather(client.result(f"slow-{number}"), client.result(f"fast-{number}"))

    assert len(server.times("GET /runs/fast-29")) <= 6
    assert server.times("GET /runs/slow-29")[0] - server.runs["slow-29"].begins > 3
    assert server.times("GET /runs/fast-29")[0] - server.runs["fast-29"].begins < 3


async def test_a_vendor_that_names_a_least_gap_is_asked_no_more_often_whatever_was_learned() -> None:
    server = Server(3.0)
    async with client_of(server, dialect=tiny(LEAST_POLL_SECONDS=2.0)) as client:
        for number in range(20):
            await client.result(f"a-{number}")
        times = [[server.runs[f"a-{n}"].begins, *server.times(f"GET /runs/a-{n}")] for n in range(20)]
        before = len(server.asked)
        await asyncio.gather(*(client.result(f"a-{number}") for number in range(100, 400)))
        crowd = sorted(when for when, line, _ in server.asked[before:] if line.startswith("GET"))

    assert min(later - sooner for polls in times for sooner, later in pairwise(polls[1:])) >= 2.0
    assert min(polls[1] - polls[0] for polls in times) >= 1.5
    assert len(crowd) <= 1.6 * 300  # most find the run over: none comes just before the usual end
    assert max(sum(begin <= each < begin + 0.1 for each in crowd) for begin in crowd) < 60


async def test_a_vendor_that_names_a_least_gap_is_asked_less_if_it_is_busy_and_not_if_it_is_far_away() -> None:
    server = Server(60.0, latency=0.5)
    async with client_of(server, dialect=tiny(LEAST_POLL_SECONDS=2.0)) as client:
        await client.result("far-1")
        server.latency = 1.0
        await client.result("busy-1")
        far, busy = server.times("GET /runs/far-1"), server.times("GET /runs/busy-1")

    assert 2.5 <= min(later - sooner for sooner, later in pairwise(far)) < 4.0
    assert min(later - sooner for sooner, later in pairwise(busy)) >= 6.0
    assert len(busy) >= 6


async def test_runs_that_start_together_are_not_asked_about_together() -> None:
    server = Server(10.0)
    async with client_of(server) as client:
        for number in range(40):
            await client.result(f"a-{number}")
        before = len(server.asked)
        await asyncio.gather(*(client.result(f"a-{number}") for number in range(100, 400)))
        times = sorted(when for when, line, _ in server.asked[before:] if line.startswith("GET"))

    worst = max(sum(begin <= each < begin + 0.1 for each in times) for begin in times)
    assert worst < 75  # of 300; a fixed interval asks about all of them at once


async def test_a_run_that_was_found_teaches_nothing() -> None:
    server = Server(10.0)
    async with client_of(server) as client:
        ref = server.begin("a-1")
        await asyncio.sleep(9)
        await client.result(ref)
        poller: Any = client._poller
        weights = [clock.weight for clock in poller._pace.clocks._clocks.values()]

    assert sum(weights) == 0


async def test_giving_up_teaches_that_the_run_takes_longer_than_that() -> None:
    server = Server(1000.0)
    async with client_of(server) as client:
        for number in range(20):
            with pytest.raises(TimeoutError):
                await client.result(f"a-{number}", timeout=60)
        polls = [len(server.times(f"GET /runs/a-{number}")) for number in range(20)]

    assert polls[-1] < polls[0]


async def test_a_wait_that_was_suspended_comes_back_without_a_burst() -> None:
    server = Server(1000.0)
    async with client_of(server, schedule=STEADY) as client:
        waiting = [
            asyncio.create_task(client.result(server.begin(f"a-{number}"), timeout=None)) for number in range(200)
        ]
        await asyncio.sleep(3.5)
        loop: Any = asyncio.get_running_loop()
        loop.now += 3600  # the timers are an hour late
        before = now()
        await asyncio.sleep(2)
        times = [when for when in server.polls() if when >= before]
        for task in waiting:
            task.cancel()

    worst = max(sum(begin <= each < begin + 0.1 for each in times) for begin in times)
    assert len(times) > 100
    assert worst <= 20


# The budget -----------------------------------------------------------------------------------------------------------


async def test_the_budget_holds_in_any_second_and_nobody_starves() -> None:
    server = Server(60.0, latency=0.05)
    async with client_of(server, limit=RateLimit(20, 1.0)) as client:
        runs = await asyncio.gather(*(client.result(f"a-{number}", timeout=None) for number in range(200)))
        assert client.stats().budget > 0.2  # starts, and so the last of the runs, are spread

    assert {run.status for run in runs} == {RunStatus.COMPLETED}
    times = [when for when, _, _ in server.asked]
    assert all(later - earlier >= 1 for earlier, later in zip(times, times[20:], strict=False))
    gaps = [
        later - earlier
        for number in range(200)
        for earlier, later in pairwise([0.0, *server.times(f"GET /runs/a-{number}")])
    ]
    assert max(gaps) < 60


async def test_starts_and_reads_of_the_user_go_before_polls() -> None:
    server = Server(1000.0)
    async with client_of(server, limit=RateLimit(5, 1.0), schedule=Backoff(initial=0.01, maximum=0.01)) as client:
        waiting = [asyncio.create_task(client.result(server.begin(f"a-{number}"))) for number in range(100)]
        await asyncio.sleep(10)
        began = now()
        await client.start("b-1")
        await client.fetch(RunRef("b-1"))
        took = now() - began
        for task in waiting:
            task.cancel()

    assert took < 1.0


async def test_under_a_tight_budget_a_schedule_of_the_users_is_kept_as_well_as_can_be() -> None:
    server = Server(1000.0)
    async with client_of(server, limit=RateLimit(10, 1.0), schedule=STEADY) as client:
        waiting = [asyncio.create_task(client.result(server.begin(f"a-{number}"))) for number in range(50)]
        await asyncio.sleep(60)
        for task in waiting:
            task.cancel()

    counts = [len(server.times(f"GET /runs/a-{number}")) for number in range(50)]
    assert max(counts) - min(counts) <= 2


# Lists ----------------------------------------------------------------------------------------------------------------


async def test_many_runs_are_refreshed_by_one_request_and_each_end_is_read_by_itself() -> None:
    server = Server(30.0)
    async with client_of(server, schedule=STEADY, lists=True) as client:
        runs = await asyncio.gather(*(client.result(f"a-{number}") for number in range(80)))
        stats = client.stats()

    assert {run.output for run in runs} == {"well"}
    singles = sum(len(server.times(f"GET /runs/a-{number}")) for number in range(80))
    lists = len(server.times("GET /lists/a"))
    assert singles <= 2 * 80
    assert 25 <= lists <= 60
    assert stats.lists == lists
    assert stats.polls_saved_by_lists > 1500
    assert stats.polls == singles


async def test_of_a_list_that_shows_all_an_end_is_taken_as_it_stands() -> None:
    server = Server(30.0)
    server.whole = True
    async with client_of(server, schedule=STEADY, dialect=tiny(lists=True, LIST_IS_WHOLE=True)) as client:
        runs = await asyncio.gather(*(client.result(f"a-{number}") for number in range(80)))

    assert {run.output for run in runs} == {"well"}
    assert sum(len(server.times(f"GET /runs/a-{number}")) for number in range(80)) <= 80 // 2


async def test_one_run_alone_is_not_looked_for_in_a_list() -> None:
    server = Server(30.0)
    async with client_of(server, schedule=STEADY, lists=True) as client:
        await client.result("a-1")

    assert server.times("GET /lists/a") == []


async def test_while_a_list_is_under_way_its_runs_are_not_asked_about() -> None:
    server = Server(60.0, latency=3.0)
    async with client_of(server, schedule=STEADY, lists=True) as client:
        await asyncio.gather(*(client.result(f"a-{number}") for number in range(10)))

    lists = server.times("GET /lists/a")
    for number in range(10):
        for when in server.times(f"GET /runs/a-{number}"):
            assert not [each for each in lists if each < when < each + 3.0]
    assert server.overlaps == 0


async def test_lists_are_read_as_far_as_they_save_requests() -> None:
    server = Server(60.0, page=10)
    async with client_of(server, schedule=STEADY, lists=True) as client:
        runs = await asyncio.gather(*(client.result(f"a-{number}") for number in range(35)))

    assert {run.status for run in runs} == {RunStatus.COMPLETED}
    pages = [params["page"] for _, line, params in server.asked if line == "GET /lists/a"]
    assert {"0", "1", "2", "3"} <= set(pages)
    assert len(pages) < 400
    singles = sum(len(server.times(f"GET /runs/a-{number}")) for number in range(35))
    assert singles < 35 * 12  # of some 60 each without lists


async def test_a_run_that_lists_do_not_have_is_asked_about_by_itself_and_not_taken_for_over() -> None:
    server = Server(30.0)
    async with client_of(server, schedule=STEADY, lists=True) as client:
        hidden = [server.begin(f"b-{number}") for number in range(3)]
        refs = [RunRef(ref.id, "a") for ref in hidden]  # said to stand where they do not
        others = [client.result(f"a-{number}") for number in range(20)]
        runs = await asyncio.gather(*others, *(client.result(ref) for ref in refs))

    assert {run.status for run in runs} == {RunStatus.COMPLETED}
    assert len(server.times("GET /runs/b-0")) > 20


async def test_a_list_that_fails_costs_no_run() -> None:
    server = Server(20.0)
    server.trouble["GET /lists/a"] = [(500, {}), (500, {}), (404, {})]
    async with client_of(server, schedule=STEADY, lists=True) as client:
        runs = await asyncio.gather(*(client.result(f"a-{number}") for number in range(10)))

    assert {run.status for run in runs} == {RunStatus.COMPLETED}


async def test_lists_keep_to_the_budget_and_beat_asking_one_by_one() -> None:
    async def lag(lists: bool) -> float:
        server = Server(latency=0.05)
        server.lasts = {f"a-{number}": 60.0 + number for number in range(200)}
        ends: list[float] = []

        async def follow(client: Client, number: int) -> None:
            await client.result(server.begin(f"a-{number}"), timeout=None)
            ends.append(now() - server._ends(f"a-{number}"))

        async with client_of(server, limit=RateLimit(2, 1.0), lists=lists) as client:
            began = now()
            await asyncio.gather(*(follow(client, number) for number in range(200)))
        times = [when - began for when, _, _ in server.asked]
        assert all(later - earlier >= 1 for earlier, later in zip(times, times[2:], strict=False))
        return sum(ends) / len(ends)

    assert await lag(True) < 0.5 * await lag(False)


# Telling --------------------------------------------------------------------------------------------------------------


async def test_each_transition_is_one_line_in_the_log_whoever_watches(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(5.0, queued=2.0)
    with caplog.at_level(logging.INFO, "agentruns"):
        async with client_of(server, schedule=STEADY) as client:
            started = await client.start("a-1")
            await asyncio.gather(words(client, started), words(client, started))

    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert lines == [
        "run a-1 of tiny: started, pending",
        "run a-1 of tiny: pending -> running",
        "run a-1 of tiny: running -> completed",
    ]


async def test_an_answer_that_repeats_byte_for_byte_is_not_read_anew() -> None:
    server = Server(1000.0)
    seen: list[Run | None] = []
    async with client_of(server, schedule=STEADY) as client:
        stream = client.stream("a-1")
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        for _ in range(20):
            await asyncio.sleep(1)
            seen.append(stream.run)
        waiting.cancel()

    assert len(set(map(id, seen[2:]))) == 1


async def test_a_wait_that_the_body_asks_for_is_kept_however_often_the_same_body_comes() -> None:
    server = Server(1000.0)
    dialect: Any = tiny()
    fetch = dialect.fetch

    def unhurried(ref: RunRef, params: Any) -> Flow[Run]:
        return evolve((yield from fetch(ref, params)), poll_after=10.0)

    dialect.fetch = unhurried
    async with client_of(server, schedule=STEADY, dialect=dialect) as client:
        with pytest.raises(DeadlineExceededError):
            await client.result("a-1", timeout=60.0)

    reads = [when for when, line, _ in server.asked if line == "GET /runs/a-1"]
    assert len(reads) > 3
    assert min(later - sooner for sooner, later in pairwise(reads)) >= 10.0


async def test_a_run_of_a_list_that_cannot_be_taken_in_is_told_to_those_who_follow_it_alone() -> None:
    server = Server(5.0)
    client = client_of(server, lists=True)

    def odd(run: Run) -> str:
        if run.id == "a-1":
            raise KeyError("a group that this dialect does not know")
        return run.ref.parent

    object.__setattr__(client._vendor, "timing_group", odd)
    async with client:
        refs = [server.begin(f"a-{number}") for number in range(6)]
        ended = await asyncio.gather(*(client.result(ref) for ref in refs), return_exceptions=True)

    assert isinstance(ended[1], ProtocolError)
    assert [each.status for each in ended if isinstance(each, Run)] == [RunStatus.COMPLETED] * 5
    assert any(line.startswith("GET /lists") for _, line, _ in server.asked)


async def test_old_runs_under_many_newer_ones_are_found_soon_and_not_page_by_page_from_the_first_each_time() -> None:
    server = Server(2.0, latency=0.02)
    old = [f"a-old{number}" for number in range(64)]
    refs = [server.begin(name) for name in old]
    for number in range(5000):
        server.begin(f"a-new{number}")
    await asyncio.sleep(10.0)
    began = asyncio.get_running_loop().time()
    async with client_of(server, lists=True, limit=RateLimit(18, 1.0)) as client:
        found = await asyncio.gather(*(client.result(ref, timeout=600.0) for ref in refs))

    assert all(run.status is RunStatus.COMPLETED for run in found)
    assert asyncio.get_running_loop().time() - began < 10.0
    assert len(server.asked) <= 120


async def test_a_mistake_in_choosing_what_to_read_ends_no_read_and_no_deadline(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    choose, mistakes = Poller._choose, 0

    def fails(self: Poller, now: float) -> Any:
        nonlocal mistakes
        mistakes += 1
        if mistakes <= 3:
            raise ZeroDivisionError("a mistake")
        return choose(self, now)

    monkeypatch.setattr(Poller, "_choose", fails)
    async with client_of(Server(5.0), schedule=STEADY) as client:
        first = await client.start("a-1")
        with pytest.raises(DeadlineExceededError):
            await client.result(first, timeout=5.0)
        assert (await client.result(first)).status is RunStatus.COMPLETED
    assert caplog.text.count("which run to read next cannot be told") == 3


async def test_one_worker_does_read_after_read_while_one_is_to_come() -> None:
    server = Server(1000.0)
    async with client_of(server, schedule=STEADY) as client:
        waiting = asyncio.create_task(client.result(server.begin("a-1"), timeout=None))
        workers = set()
        while len(server.asked) < 5:
            await asyncio.sleep(1)
            workers |= asyncio.all_tasks() - {asyncio.current_task(), waiting}
        assert len(workers) == 1
        waiting.cancel()
        await asyncio.wait((waiting,))

        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_of_many_reads_that_are_due_at_once_a_few_begin_in_each_turn_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(1000.0)
    loop: Any = asyncio.get_running_loop()
    turn, asked = loop._run_once, [0]

    def counted_turn() -> None:
        turn()
        asked.append(len(server.asked))

    async with client_of(server, schedule=STEADY) as client:
        waiting = [
            asyncio.create_task(client.result(server.begin(f"a-{number}"), timeout=None)) for number in range(50)
        ]
        monkeypatch.setattr(loop, "_run_once", counted_turn)
        await asyncio.sleep(9.5)
        for task in waiting:
            task.cancel()

    assert max(later - sooner for sooner, later in pairwise(asked)) == IN_ONE_TURN
    assert {len(server.times(f"GET /runs/a-{number}")) for number in range(50)} == {10}


async def test_a_worker_that_is_cancelled_while_it_waits_for_work_is_missed_by_nobody() -> None:
    server = Server(1000.0)
    async with client_of(server, schedule=STEADY) as client:
        waiting = asyncio.create_task(client.result(server.begin("a-1"), timeout=None))
        await asyncio.sleep(30)
        asked = len(server.asked)
        for task in asyncio.all_tasks() - {asyncio.current_task(), waiting}:
            task.cancel()
        await asyncio.sleep(60)

        assert len(server.asked) > asked
        waiting.cancel()
