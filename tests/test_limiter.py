"""The rate limiter: what any window holds, who goes first, pauses that vendors ask for, clients that share it."""

import asyncio
import math
from itertools import pairwise

import pytest

from agentruns import AgentRunsError, Backoff, RunRef
from agentruns._api.limiter import Permits, RateLimiter, rate_limit
from agentruns._values.exchange import RateLimit
from tests.tiny_vendor import Server, client_of

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]


def permits_of(limit: RateLimit | None) -> Permits:
    return Permits(RateLimiter(limit))


async def calls(permits: Permits, count: int, latency: float = 0.0) -> list[float]:
    """Return when each of *count* calls, all made at once, was let through."""
    loop = asyncio.get_running_loop()

    async def call() -> float:
        await permits.acquire()
        sent = loop.time()
        await asyncio.sleep(latency)
        permits.release()
        return sent

    return await asyncio.gather(*(call() for _ in range(count)))


async def polls(permits: Permits, count: int, *, late: float = 0.0) -> list[float]:
    """Return when each of *count* polls in a row was let through, by timers that go off so *late*."""
    loop = asyncio.get_running_loop()
    sent: list[float] = []
    while len(sent) < count:
        wait = permits.delay(loop.time())
        if wait > 0:
            await asyncio.sleep(wait + late)
            continue
        permits.acquire_nowait(loop.time())
        sent.append(loop.time())
        permits.release()
    return sent


async def test_calls_use_up_what_there_is_and_then_wait_for_a_permit() -> None:
    assert await calls(permits_of(RateLimit(3, 1.0)), 7) == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0]


async def test_a_permit_comes_free_one_window_after_its_answer() -> None:
    assert await calls(permits_of(RateLimit(1, 1.0)), 3, latency=0.5) == [0.0, 1.5, 3.0]


async def test_polls_are_evenly_spaced() -> None:
    assert await polls(permits_of(RateLimit(4, 1.0)), 6) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]


async def test_timers_that_go_off_late_take_nothing_of_the_budget() -> None:
    sent = await polls(permits_of(RateLimit(200, 1.0)), 2000, late=0.001)

    assert sent[-1] < 10.3
    assert all(later - first >= 1.0 for first, later in zip(sent, sent[200:], strict=False))


async def test_idle_time_saves_up_no_burst_of_polls() -> None:
    permits = permits_of(RateLimit(2, 1.0))
    await polls(permits, 1)
    await asyncio.sleep(10)

    assert await polls(permits, 3) == [10.0, 10.5, 11.0]


async def test_a_limiter_shows_its_limit() -> None:
    assert repr(RateLimiter(RateLimit(90, 60.0))) == "RateLimiter(RateLimit(count=90, seconds=60.0))"
    assert repr(RateLimiter(None)) == "RateLimiter(None)"


async def test_without_a_limit_everything_goes_at_once() -> None:
    permits = permits_of(None)

    assert await calls(permits, 100) == [0.0] * 100
    assert await polls(permits, 100) == [0.0] * 100
    assert permits.limiter.used == 0.0


async def test_while_calls_wait_polls_have_to_wait() -> None:
    permits, changes = permits_of(RateLimit(1, 1.0)), []
    permits.open(lambda: changes.append(asyncio.get_running_loop().time()))
    waiting = asyncio.ensure_future(calls(permits, 3))
    for _ in range(3):
        await asyncio.sleep(0)

    assert permits.delay(0.0) == math.inf
    await waiting
    assert changes[-1] == 2.0


async def test_room_for_polls_is_announced_when_it_depended_on_an_answer() -> None:
    permits, changes = permits_of(RateLimit(1, 1.0)), []
    permits.open(lambda: changes.append(asyncio.get_running_loop().time()))
    await permits.acquire()
    assert permits.delay(0.0) == math.inf
    await asyncio.sleep(5)
    permits.release()

    assert changes == [5.0]
    assert permits.delay(5.0) == 1.0


async def test_calls_that_are_given_up_take_no_permit_and_cost_little() -> None:
    permits = permits_of(RateLimit(1, 1.0))
    await permits.acquire()
    permits.release()
    crowd = [asyncio.ensure_future(permits.acquire()) for _ in range(1000)]
    await asyncio.sleep(0.5)
    for each in crowd:
        each.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)

    assert await calls(permits, 2) == [1.0, 2.0]


async def test_a_call_that_is_given_up_as_its_turn_comes_hands_it_on() -> None:
    permits = permits_of(RateLimit(1, 1.0))
    await permits.acquire()
    permits.release()
    first = asyncio.ensure_future(permits.acquire())
    second = asyncio.ensure_future(calls(permits, 1))
    asyncio.get_running_loop().call_at(1.0, lambda: asyncio.get_running_loop().call_soon(first.cancel))
    await asyncio.gather(first, return_exceptions=True)

    assert await second == [1.0]


async def test_while_the_vendor_asks_for_a_pause_nothing_is_sent() -> None:
    permits = permits_of(RateLimit(10, 1.0))
    permits.pause(30.0, ValueError("slow down"))
    permits.pause(3.0, ValueError("a shorter wish changes nothing"))

    assert permits.delay(0.0) == 30.0
    assert await calls(permits, 2) == [30.0, 30.0]
    assert permits.delay(30.0) < 1


async def test_a_call_that_will_not_wait_so_long_is_told_what_the_vendor_said() -> None:
    permits = permits_of(None)
    permits.pause(3600.0, ValueError("come back in an hour"))

    with pytest.raises(ValueError, match="in an hour"):
        await permits.acquire(60.0)
    await asyncio.sleep(3550)
    await permits.acquire(60.0)
    assert asyncio.get_running_loop().time() == 3600.0


async def test_the_part_that_is_used_is_told() -> None:
    permits = permits_of(RateLimit(4, 1.0))
    await calls(permits, 3)
    assert permits.limiter.used == 0.75
    await asyncio.sleep(1)
    assert permits.limiter.used == 0.0


@pytest.mark.parametrize(
    ("rate", "limit"),
    [
        (50.0, RateLimit(50, 1.0)),
        (1.0, RateLimit(1, 1.0)),
        (1.5, RateLimit(2, 4 / 3)),
        (4.5, RateLimit(5, 10 / 9)),
        (0.5, RateLimit(1, 2.0)),
        (0.1, RateLimit(1, 10.0)),
        (0.001, RateLimit(1, 1000.0)),
        (math.pi, RateLimit(4, 4 / math.pi)),
    ],
)
async def test_a_rate_is_whole_requests_in_as_long_as_they_take(rate: float, limit: RateLimit) -> None:
    assert rate_limit(rate) == limit


@pytest.mark.parametrize("rate", [4.5, 10.01, 0.3])
async def test_a_rate_never_sends_more_in_a_second_than_it_is_rounded_up(rate: float) -> None:
    permits, loop, sent = permits_of(rate_limit(rate)), asyncio.get_running_loop(), list[float]()

    async def one() -> None:
        await permits.acquire()
        sent.append(loop.time())
        permits.release()

    await asyncio.gather(*(one() for _ in range(60)))
    assert max(sum(begin <= each < begin + 1 for each in sent) for begin in sent) <= math.ceil(rate)
    assert len(sent) / sent[-1] == pytest.approx(rate, rel=0.12)


# Clients that share one limiter ---------------------------------------------------------------------------------------


def two(limit: RateLimit | None, *vendors: str) -> tuple[RateLimiter, Permits, Permits]:
    limiter = RateLimiter(limit)
    first, second = (Permits(limiter, vendor) for vendor in vendors or ("one", "another"))
    return limiter, first, second


def timers_of(limiter: RateLimiter) -> list[asyncio.TimerHandle]:
    return [] if limiter._timer is None else [limiter._timer]


async def test_calls_of_all_clients_go_in_the_order_of_asking() -> None:
    _, first, second = two(RateLimit(1, 1.0))
    seen: list[tuple[str, float]] = []

    async def call(name: str, permits: Permits) -> None:
        await permits.acquire()
        seen.append((name, asyncio.get_running_loop().time()))
        permits.release()

    await asyncio.gather(call("a", first), call("b", second), call("c", first), call("d", second))

    assert seen == [("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 3.0)]


async def test_both_clients_hear_that_polls_may_go_again() -> None:
    _, first, second = two(RateLimit(1, 1.0))
    heard: list[str] = []
    first.open(lambda: heard.append("first"))
    second.open(lambda: heard.append("second"))
    await second.acquire()
    assert (first.delay(0.0), second.delay(0.0)) == (math.inf, math.inf)
    second.release()

    assert sorted(heard) == ["first", "second"]


@pytest.mark.parametrize("vendors", [("one", "one"), ("one", "another")])
@pytest.mark.parametrize("closed", [0, 1])
async def test_a_client_that_closes_refuses_its_own_calls_and_no_others(vendors: tuple[str, str], closed: int) -> None:
    _, *clients = two(RateLimit(1, 1.0), *vendors)
    heard: list[int] = []
    for number, each in enumerate(clients):
        each.open(lambda number=number: heard.append(number))  # type: ignore[misc]
    leaves, stays = clients[closed], clients[1 - closed]
    await leaves.acquire()
    waiting = [asyncio.ensure_future(calls(each, 2)) for each in (leaves, stays, leaves)]
    await asyncio.sleep(0.25)
    leaves.close()
    leaves.release()  # of the request that the end of the client has cut off

    assert [type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)] == [
        AgentRunsError,
        list,
        AgentRunsError,
    ]
    assert await waiting[1] == [1.25, 2.25]
    with pytest.raises(AgentRunsError, match="this client is closed"):
        await leaves.acquire()
    heard.clear()
    await calls(stays, 1)
    await polls(stays, 1)
    assert set(heard) <= {1 - closed}


async def test_a_limiter_whose_clients_have_all_left_keeps_no_timer_and_serves_the_next() -> None:
    limiter, first, second = two(RateLimit(1, 1.0))
    await calls(first, 1)
    waiting = asyncio.ensure_future(second.acquire())
    await asyncio.sleep(0)
    first.close()
    assert timers_of(limiter) != []
    second.close()
    with pytest.raises(AgentRunsError, match="closed while a request waited"):
        await waiting

    assert timers_of(limiter) == []
    assert await calls(Permits(limiter), 2) == [1.0, 2.0]


async def test_a_pause_is_for_all_clients_of_the_vendor_and_for_no_other_vendor() -> None:
    limiter, mine, others = two(RateLimit(3, 1.0))
    sibling = Permits(limiter, "one")
    mine.pause(30.0, ValueError("slow down"))
    waiting = asyncio.ensure_future(calls(sibling, 1))
    await asyncio.sleep(0.01)

    assert (mine.delay(0.01), others.delay(0.01)) == (math.inf, 0.0)  # a call of its vendor waits before its polls
    assert await calls(others, 4) == [0.01, 0.01, 0.01, 1.01]
    with pytest.raises(ValueError, match="slow down"):
        await sibling.acquire(longest=20.0)
    await others.acquire(longest=20.0)
    assert await waiting == [30.0]


async def test_calls_of_a_paused_vendor_hold_up_no_polls_of_another() -> None:
    _, paused, others = two(RateLimit(2, 1.0))
    paused.pause(10.0, ValueError("slow down"))
    waiting = asyncio.ensure_future(calls(paused, 1))

    assert await polls(others, 3) == [0.0, 0.5, 1.0]
    assert await waiting == [10.0]


async def test_polls_of_two_clients_take_turns() -> None:
    _, first, second = two(RateLimit(4, 1.0))
    for each in (first, second):
        each.open(lambda: None)

    seen = await asyncio.gather(polls(first, 10), polls(second, 10))

    assert sorted(seen[0] + seen[1]) == pytest.approx([0.25 * number for number in range(20)], abs=1 / 32)
    assert all(later - one <= 0.5 + 1 / 32 for mine in seen for one, later in pairwise(mine))


async def test_a_client_that_polls_no_more_costs_the_others_one_moment() -> None:
    _, busy, idle = two(RateLimit(4, 1.0))
    for each in (busy, idle):
        each.open(lambda: None)
    await polls(busy, 1)
    assert idle.delay(0.0) == 0.25

    assert await polls(busy, 3) == pytest.approx([0.25, 0.5, 0.75], abs=1 / 32)


@pytest.mark.parametrize("leaves_first", [0, 1])
async def test_two_open_clients_share_one_limiter_until_either_leaves(leaves_first: int) -> None:
    limiter, steady = RateLimiter(RateLimit(5, 1.0)), Backoff(initial=0.1, maximum=0.1)
    servers = [Server(10.0), Server(10.0)]
    clients = [client_of(server, schedule=steady, limit=limiter) for server in servers]
    left, stays = clients[leaves_first], clients[1 - leaves_first]
    async with stays:
        async with left:
            refs = [[server.begin(f"a-{number}") for number in range(5)] for server in servers]
            waiting = [
                [asyncio.create_task(client.result(ref, timeout=None)) for ref in mine]
                for client, mine in zip(clients, refs, strict=True)
            ]
            await asyncio.sleep(4)
            assert min(len(server.asked) for server in servers) >= 8, "one starves the other"
        ended = await asyncio.gather(*waiting[leaves_first], return_exceptions=True)
        assert all(isinstance(each, AgentRunsError) for each in ended)
        runs = await asyncio.gather(*waiting[1 - leaves_first])
        assert [run.vendor_status for run in runs] == ["done"] * 5
        assert (await stays.fetch(RunRef("a-1", "a"))).vendor_status == "done"

    times = sorted(servers[0].polls() + servers[1].polls())
    assert all(last - first >= 1.0 for first, last in zip(times, times[5:], strict=False))


async def test_leaving_a_client_whose_polls_are_just_to_be_sent_gives_their_permits_back() -> None:
    limiter = RateLimiter(RateLimit(2, 1.0))
    server = Server(100.0)
    async with client_of(server, limit=limiter) as client:
        waiting = asyncio.create_task(client.result(server.begin("a-1")))
        while not client._poller._workers.beginning:  # noqa: ASYNC110 - what is waited for lasts one turn of the loop
            await asyncio.sleep(0)
    await asyncio.gather(waiting, return_exceptions=True)

    assert server.asked == []
    assert await calls(Permits(limiter), 2) == [0.0, 1.0]
