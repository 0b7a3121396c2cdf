"""When a batch will be over: rows to come by throughput, runs in flight by what the poller has learned of such runs."""

import asyncio

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from agentruns._polling.clock import PollClock
from agentruns.cli.batch import progress
from tests.command_lines import STATS
from tests.tiny_vendor import Server, client_of


def learned(*durations: float) -> PollClock:
    clock = PollClock()
    for each in durations:
        clock.learn(each, each)
    return clock


def test_a_clock_that_has_learned_nothing_tells_nothing() -> None:
    assert PollClock().seconds_left(3.0) is None


def test_the_rest_of_a_run_is_what_is_usual_less_what_it_has_taken() -> None:
    clock = learned(*[20.0] * 40)
    early, later = clock.seconds_left(0.0), clock.seconds_left(15.0)
    assert early is not None
    assert later is not None
    assert 15 < early < 25
    assert 1 < later < 10
    assert early - later == pytest.approx(15.0, abs=3.0)


def test_a_run_that_takes_longer_than_any_before_is_not_expected_at_once() -> None:
    clock = learned(*[20.0] * 40)
    on_time, overdue = clock.seconds_left(19.0), clock.seconds_left(300.0)
    assert on_time is not None
    assert overdue is not None
    assert overdue > on_time * 5


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=30), st.floats(0, 1e6), st.floats(0, 1e4))
def test_no_run_is_expected_to_end_earlier_for_having_been_seen_running(
    durations: list[float], elapsed: float, more: float
) -> None:
    clock = learned(*durations)
    now, later = clock.seconds_left(elapsed), clock.seconds_left(elapsed + more)
    assert now is not None
    assert later is not None
    assert now > 0
    assert elapsed + more + later >= (elapsed + now) * (1 - 1e-9)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_client_tells_how_long_its_runs_are_likely_to_take_yet() -> None:
    async with client_of(Server(30.0)) as client:
        for number in range(30):
            await client.result(f"a-{number}")
        assert client.stats().seconds_left is None, "nothing is in flight"

        stream = client.stream("a-last")
        await anext(stream)
        rest = client.stats().seconds_left
        assert rest is not None
        assert 20 < rest < 45
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(20)
        later = client.stats().seconds_left
        assert later is not None
        assert later == pytest.approx(rest - 20, abs=6)
        waiting.cancel()
        await stream.aclose()


def tally(*, total: int | None, ended: int, seconds: float = 10.0) -> progress.Tally:
    now = 0.0
    made = progress.Tally(lambda: now)
    made.total = total
    for _ in range(ended):
        made.add("completed")
    now = seconds
    return made


def test_the_end_is_the_rows_to_come_and_then_the_runs_in_flight() -> None:
    stats = evolve(STATS, seconds_left=30.0)
    assert tally(total=100, ended=20).picture({"running": 10}, stats).left == 70 / 2.0 + 30.0


def test_at_the_end_only_the_runs_in_flight_count() -> None:
    assert tally(total=30, ended=20).picture({"running": 10}, evolve(STATS, seconds_left=30.0)).left == 30.0


def test_while_nothing_is_learned_throughput_must_do() -> None:
    assert tally(total=30, ended=20).picture({"running": 10}, STATS).left == 10 / 2.0


def test_what_is_learned_tells_the_end_of_the_last_runs_when_nothing_has_ended_lately() -> None:
    made = tally(total=4, ended=0)
    assert made.picture({"running": 4}, evolve(STATS, seconds_left=30.0)).left == 30.0
    assert made.picture({"running": 2}, evolve(STATS, seconds_left=30.0)).left is None, (
        "nobody knows when the others begin"
    )


def test_a_batch_that_takes_no_more_rows_ends_with_its_runs() -> None:
    made = tally(total=1000, ended=20)
    made.stopped = True
    assert made.picture({"running": 4}, evolve(STATS, seconds_left=30.0)).left == 30.0
    assert made.picture({"running": 4}, STATS).left == 4 / 2.0


def test_a_batch_that_is_done_is_done() -> None:
    assert tally(total=20, ended=20).picture({}, evolve(STATS, seconds_left=None)).left == 0.0


def test_while_nothing_is_answered_no_end_is_foretold_and_what_is_waited_for_is_said() -> None:
    stats = evolve(STATS, lost_for=40.0, waiting_for_slot=3, seconds_left=30.0)
    picture = tally(total=100, ended=20).picture({"running": 10}, stats)
    assert picture.left is None
    words = picture.words()
    assert "no contact for 40 s, waiting, 3 waiting for a slot" in words
    assert "left" not in words
