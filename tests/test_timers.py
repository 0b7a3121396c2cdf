"""Many timers behind one of the loop, on any loop."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from agentruns._aio.timers import TICK, TimerQueue

virtual = pytest.mark.virtual


def queue(rang: list[float]) -> TimerQueue[Any]:
    loop = asyncio.get_running_loop()
    made: TimerQueue[Any] = TimerQueue(lambda now, late: rang.append(now))
    made.open(loop)
    return made


def all_due(made: TimerQueue[Any], now: float) -> list[Any]:
    return list(iter(lambda: made.pop_due(now), None))


@pytest.mark.asyncio
@virtual
async def test_what_falls_due_within_a_tick_wakes_the_loop_once() -> None:
    rang: list[float] = []
    made = queue(rang)
    for place in range(10):
        made.schedule(1.0 + place * TICK / 20, place)
    made.rearm(0.0)
    await asyncio.sleep(5)

    assert rang == [1.0]
    assert all_due(made, 2.0) == list(range(10))


@pytest.mark.asyncio
@virtual
async def test_an_earlier_timer_brings_the_handle_forward_and_a_later_one_does_not_put_it_off() -> None:
    rang: list[float] = []
    made = queue(rang)
    for when in (4.0, 2.0, 8.0):
        made.schedule(when, when)
        made.rearm(0.0)
    await asyncio.sleep(3)

    assert rang == [2.0]


@pytest.mark.asyncio
@virtual
async def test_what_is_cancelled_does_not_come_up_and_takes_no_room_for_long() -> None:
    made = queue([])
    timers = [made.schedule(100.0, place) for place in range(1000)]
    for timer in timers[1:]:
        made.cancel(timer)
        made.cancel(timer)

    assert len(made) <= 130
    assert all_due(made, 100.0) == [0]


def test_it_works_on_a_loop_whose_timers_do_not_tell_when_they_go_off() -> None:
    """uvloop makes a plain handle of a timer that is due at once."""
    rang: list[float] = []

    async def ring() -> None:
        made = queue(rang)
        for _ in range(3):
            made.schedule(asyncio.get_running_loop().time(), "now")
            made.rearm(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)

    run: Callable[[Any], None] = uvloop.run
    run(ring())
    assert rang


@pytest.mark.asyncio
@virtual
async def test_a_queue_that_is_closed_arms_nothing_more_until_it_is_opened_again() -> None:
    rang: list[float] = []
    made = queue(rang)
    made.schedule(1.0, "a")
    made.rearm(0.0)
    made.close()
    made.schedule(2.0, "b")
    made.rearm(0.0)
    await asyncio.sleep(5)
    assert rang == []

    made.open(asyncio.get_running_loop())
    made.rearm(5.0)
    await asyncio.sleep(1)
    assert rang == [5.0]


@pytest.mark.asyncio
@virtual
async def test_what_is_due_farther_off_than_ticks_can_be_counted_is_borne() -> None:
    rang: list[float] = []
    made = queue(rang)
    made.schedule(1e308, "never")
    made.rearm(0.0)
    made.schedule(1.0, "soon")
    made.rearm(0.0)
    await asyncio.sleep(1)
    assert rang == [1.0]


@given(st.lists(st.floats(0, 100)), st.data())
def test_what_is_due_is_looked_at_in_the_order_in_which_it_comes_up(times: list[float], data: st.DataObject) -> None:
    made: TimerQueue[int] = TimerQueue(lambda _, __: None)
    timers = [made.schedule(when, number) for number, when in enumerate(times)]
    for timer in data.draw(st.lists(st.sampled_from(timers))) if timers else ():
        made.cancel(timer)

    seen = list(made.in_order())
    assert seen == all_due(made, 100.0)
