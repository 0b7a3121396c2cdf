"""The law of the rate limiter, for any traffic of any clients: what a server can see in any window."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns._api.limiter import Permits, RateLimiter
from agentruns._values.exchange import RateLimit
from tests.scripted_wire import VirtualLoop

traffic = st.lists(
    st.tuples(
        st.sampled_from(["call", "poll"]), st.integers(0, 2), st.floats(0, 0.4), st.floats(0, 1), st.floats(0, 0.9)
    ),
    min_size=2,
    max_size=60,
)


@pytest.mark.parametrize("limit", [RateLimit(1, 1.0), RateLimit(5, 1.0), RateLimit(9, 2.0)])
@given(requests=traffic)
def test_no_window_holds_more_than_the_limit_wherever_on_the_way_the_server_sees_a_request(
    limit: RateLimit, requests: list[tuple[str, int, float, float, float]]
) -> None:
    """
    *requests* are: what it is, of which client, seconds after the one before, part of the way to the server, seconds
    of the way.
    """
    seen: list[float] = []

    async def one(permits: Permits, kind: str, part: float, way: float) -> None:
        loop = asyncio.get_running_loop()
        if kind == "call":
            await permits.acquire()
        else:
            while (wait := permits.delay(loop.time())) > 0:  # noqa: ASYNC110 - the poller sets a timer
                await asyncio.sleep(max(min(wait, 0.05), 1e-9))  # less would not move the time
            permits.acquire_nowait(loop.time())
        seen.append(loop.time() + part * way)
        await asyncio.sleep(way)
        permits.release()

    async def all_of_them() -> None:
        limiter, tasks = RateLimiter(limit), []
        clients = [Permits(limiter, vendor) for vendor in ("one", "one", "another")]
        for each in clients:
            each.open(lambda: None)
        for kind, client, after, part, way in requests:
            await asyncio.sleep(after)
            tasks.append(asyncio.create_task(one(clients[client], kind, part, way)))
        await asyncio.gather(*tasks)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(all_of_them())
    seen.sort()
    assert len(seen) == len(requests)
    for first, last in zip(seen, seen[limit.count :], strict=False):
        assert last - first >= limit.seconds - 1e-9


refusals = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 8)), min_size=1, max_size=8)


@given(requests=traffic, refusals=refusals, way=st.floats(0, 0.5))
def test_a_limit_that_a_429_has_taught_holds_and_is_forgotten_when_the_vendor_is_quiet(
    requests: list[tuple[str, int, float, float, float]], refusals: list[tuple[float, int]], way: float
) -> None:
    """
    *refusals* are: seconds after the one before, and how many requests come at once before it.

    From one on, no second has more requests than half of those that the second before it had, and what was given back
    since; one a second is always sent, so everything is sent in the end. Long after the last, nothing is held back.
    """
    limiter = RateLimiter(None)
    permits = Permits(limiter)
    sent: list[tuple[float, float]] = []  # when, and how many in a second were allowed then

    async def one() -> None:
        loop = asyncio.get_running_loop()
        await permits.acquire()
        sent.append((loop.time(), math.inf if limiter.limit is None else limiter.limit.count))
        await asyncio.sleep(way)
        permits.release()

    async def poll() -> None:
        loop = asyncio.get_running_loop()
        while (wait := permits.delay(loop.time())) > 0:  # noqa: ASYNC110 - the poller sets a timer
            await asyncio.sleep(max(min(wait, 0.05), 1e-9))
        permits.acquire_nowait(loop.time())
        sent.append((loop.time(), math.inf if limiter.limit is None else limiter.limit.count))
        await asyncio.sleep(way)
        permits.release()

    async def story() -> None:
        loop, tasks = asyncio.get_running_loop(), []
        permits.open(lambda: None)
        for after, burst in refusals:
            tasks += [asyncio.create_task(one()) for _ in range(burst)]
            await asyncio.sleep(after)
            lately = sum(when > loop.time() - 2.0 for when, _ in sent)
            before = limiter.limit
            permits.slow_down()
            if before is None:
                assert limiter.limit is None or 1 <= limiter.limit.count <= max(lately / 2, 1)
        for kind, _, after, _, _ in requests:
            await asyncio.sleep(after)
            tasks.append(asyncio.create_task(one() if kind == "call" else poll()))
        began = loop.time()
        await asyncio.gather(*tasks)
        assert loop.time() - began <= (len(tasks) + 2) * (1.0 + way)
        await asyncio.sleep(40.0)
        at_once = loop.time()
        await asyncio.gather(*(one() for _ in range(50)))
        assert loop.time() == pytest.approx(at_once + way)
        assert limiter.limit is None

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())
    for place, (first, _) in enumerate(sent):
        window = [allowed for when, allowed in sent[place:] if when < first + 1.0 - 1e-9]
        assert len(window) <= max(window)
