"""The timetable: one timer for all, on any loop."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from agentruns._aio.timers import TICK, TimerQueue

virtual = pytest.mark.virtual


def timetable(rang: list[float]) -> TimerQueue:
    loop = asyncio.get_running_loop()
    made = TimerQueue(lambda now, late: rang.append(now))
    made.open(loop)
    return made


@pytest.mark.asyncio
@virtual
async def test_what_falls_due_within_a_tick_rings_once() -> None:
    rang: list[float] = []
    made = timetable(rang)
    for place in range(10):
        made.enter(1.0 + place * TICK / 20, place)
    made.arm(0.0)
    await asyncio.sleep(5)

    assert rang == [1.0]
    assert list(made.take(2.0)) == list(range(10))


@pytest.mark.asyncio
@virtual
async def test_an_earlier_entry_brings_the_ringing_forward_and_a_later_one_does_not_put_it_off() -> None:
    rang: list[float] = []
    made = timetable(rang)
    for when in (4.0, 2.0, 8.0):
        made.enter(when, when)
        made.arm(0.0)
    await asyncio.sleep(3)

    assert rang == [2.0]


@pytest.mark.asyncio
@virtual
async def test_what_is_struck_out_does_not_come_up_and_takes_no_room_for_long() -> None:
    made = timetable([])
    entries = [made.enter(100.0, place) for place in range(1000)]
    for entry in entries[1:]:
        made.strike(entry)
        made.strike(entry)

    assert len(made) <= 130
    assert list(made.take(100.0)) == [0]


def test_it_works_on_a_loop_whose_timers_do_not_tell_when_they_go_off() -> None:
    """uvloop makes a plain handle of a timer that is due at once."""
    rang: list[float] = []

    async def ring() -> None:
        made = timetable(rang)
        for _ in range(3):
            made.enter(asyncio.get_running_loop().time(), "now")
            made.arm(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)

    run: Callable[[Any], None] = uvloop.run
    run(ring())
    assert rang
