"""The budget of requests: what any window holds, who goes first, and the vendor's wish for rest."""

import asyncio
import math

import pytest

from agentruns._api.limiter import RateLimiter, rate_limit
from agentruns._values.exchange import RateLimit

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]


async def calls(budget: RateLimiter, count: int, latency: float = 0.0) -> list[float]:
    """Return when each of *count* calls, all made at once, was let through."""
    loop = asyncio.get_running_loop()

    async def call() -> float:
        await budget.enter()
        sent = loop.time()
        await asyncio.sleep(latency)
        budget.leave()
        return sent

    return await asyncio.gather(*(call() for _ in range(count)))


async def polls(budget: RateLimiter, count: int) -> list[float]:
    """Return when each of *count* polls in a row was let through."""
    loop = asyncio.get_running_loop()
    sent: list[float] = []
    while len(sent) < count:
        wait = budget.room(loop.time())
        if wait > 0:
            await asyncio.sleep(wait)
            continue
        budget.take(loop.time())
        sent.append(loop.time())
        budget.leave()
    return sent


async def test_calls_use_up_what_there_is_and_then_wait_for_a_place() -> None:
    assert await calls(RateLimiter(RateLimit(3, 1.0)), 7) == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0]


async def test_a_place_comes_free_one_window_after_its_answer() -> None:
    assert await calls(RateLimiter(RateLimit(1, 1.0)), 3, latency=0.5) == [0.0, 1.5, 3.0]


async def test_polls_are_evenly_spaced() -> None:
    assert await polls(RateLimiter(RateLimit(4, 1.0)), 6) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]


async def test_idle_time_saves_up_no_burst_of_polls() -> None:
    budget = RateLimiter(RateLimit(2, 1.0))
    await polls(budget, 1)
    await asyncio.sleep(10)

    assert await polls(budget, 3) == [10.0, 10.5, 11.0]


async def test_without_a_limit_everything_goes_at_once() -> None:
    budget = RateLimiter(None)

    assert await calls(budget, 100) == [0.0] * 100
    assert await polls(budget, 100) == [0.0] * 100
    assert budget.used == 0.0


async def test_while_calls_wait_there_is_no_room_for_polls() -> None:
    budget, changes = RateLimiter(RateLimit(1, 1.0)), []
    budget.on_change = lambda: changes.append(asyncio.get_running_loop().time())
    waiting = asyncio.ensure_future(calls(budget, 3))
    for _ in range(3):
        await asyncio.sleep(0)

    assert budget.room(0.0) == math.inf
    await waiting
    assert changes[-1] == 2.0


async def test_the_room_for_polls_is_announced_when_it_depended_on_an_answer() -> None:
    budget, changes = RateLimiter(RateLimit(1, 1.0)), []
    budget.on_change = lambda: changes.append(asyncio.get_running_loop().time())
    await budget.enter()
    assert budget.room(0.0) == math.inf
    await asyncio.sleep(5)
    budget.leave()

    assert changes == [5.0]
    assert budget.room(5.0) == 1.0


async def test_calls_that_are_given_up_take_no_place_and_cost_little() -> None:
    budget = RateLimiter(RateLimit(1, 1.0))
    await budget.enter()
    budget.leave()
    crowd = [asyncio.ensure_future(budget.enter()) for _ in range(1000)]
    await asyncio.sleep(0.5)
    for each in crowd:
        each.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)

    assert await calls(budget, 2) == [1.0, 2.0]


async def test_a_call_that_is_given_up_as_its_turn_comes_hands_it_on() -> None:
    budget = RateLimiter(RateLimit(1, 1.0))
    await budget.enter()
    budget.leave()
    first = asyncio.ensure_future(budget.enter())
    second = asyncio.ensure_future(calls(budget, 1))
    asyncio.get_running_loop().call_at(1.0, lambda: asyncio.get_running_loop().call_soon(first.cancel))
    await asyncio.gather(first, return_exceptions=True)

    assert await second == [1.0]


async def test_while_the_vendor_asks_for_rest_nothing_is_sent() -> None:
    budget = RateLimiter(RateLimit(10, 1.0))
    budget.rest(30.0, ValueError("slow down"))
    budget.rest(3.0, ValueError("a shorter wish changes nothing"))

    assert budget.room(0.0) == 30.0
    assert await calls(budget, 2) == [30.0, 30.0]
    assert budget.room(30.0) < 1


async def test_a_call_that_will_not_rest_so_long_is_told_what_the_vendor_said() -> None:
    budget = RateLimiter(None)
    budget.rest(3600.0, ValueError("come back in an hour"))

    with pytest.raises(ValueError, match="in an hour"):
        await budget.enter(60.0)
    await asyncio.sleep(3550)
    await budget.enter(60.0)
    assert asyncio.get_running_loop().time() == 3600.0


async def test_the_part_that_is_used_is_told() -> None:
    budget = RateLimiter(RateLimit(4, 1.0))
    await calls(budget, 3)
    assert budget.used == 0.75
    await asyncio.sleep(1)
    assert budget.used == 0.0


@pytest.mark.parametrize(
    ("rate", "limit"),
    [
        (50.0, RateLimit(50, 1.0)),
        (1.0, RateLimit(1, 1.0)),
        (1.5, RateLimit(3, 2.0)),
        (0.5, RateLimit(1, 2.0)),
        (0.1, RateLimit(1, 10.0)),
        (0.001, RateLimit(1, 1000.0)),
        (math.pi, RateLimit(188, 60.0)),
    ],
)
async def test_a_rate_is_whole_requests_in_whole_seconds(rate: float, limit: RateLimit) -> None:
    assert rate_limit(rate) == limit
