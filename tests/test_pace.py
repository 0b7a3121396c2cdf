"""The budget of requests."""

import asyncio

import pytest

from agentruns.pace import Pace

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]


async def turns(pace: Pace, count: int) -> list[float]:
    """Return when each of *count* callers, all at once, was let through."""
    loop = asyncio.get_running_loop()

    async def turn() -> float:
        await pace.wait()
        return loop.time()

    return await asyncio.gather(*(turn() for _ in range(count)))


async def test_callers_are_let_through_evenly_spaced_and_in_the_order_of_asking() -> None:
    assert await turns(Pace(4.0), 5) == [0.0, 0.25, 0.5, 0.75, 1.0]


async def test_the_first_caller_does_not_wait() -> None:
    assert await turns(Pace(0.001), 1) == [0.0]


async def test_idle_time_saves_up_no_burst() -> None:
    pace = Pace(2.0)
    await turns(pace, 1)
    await asyncio.sleep(10)

    assert await turns(pace, 3) == [10.0, 10.5, 11.0]


async def test_a_caller_that_comes_later_than_its_turn_starts_the_spacing_anew() -> None:
    pace = Pace(2.0)
    await turns(pace, 1)
    await asyncio.sleep(0.7)

    assert await turns(pace, 2) == [0.7, 1.2]


async def test_no_second_holds_more_than_the_budget() -> None:
    times = await turns(Pace(7.0), 50)

    for begin in times:
        assert sum(begin <= each < begin + 0.999 for each in times) <= 7


async def test_a_wait_that_is_cancelled_takes_no_turn_from_others() -> None:
    pace = Pace(1.0)
    await pace.wait()
    crowd = [asyncio.ensure_future(pace.wait()) for _ in range(1000)]
    await asyncio.sleep(0.5)
    for each in crowd:
        each.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)

    assert await turns(pace, 2) == [1.0, 2.0]


async def test_a_wait_that_is_cancelled_in_the_middle_lets_the_next_in_line_go() -> None:
    pace = Pace(1.0)
    await pace.wait()
    first = asyncio.ensure_future(pace.wait())
    others = asyncio.ensure_future(turns(pace, 2))
    await asyncio.sleep(0.25)
    first.cancel()

    assert await others == [1.0, 2.0]
