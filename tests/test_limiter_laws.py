"""The law of the rate limiter, for any traffic of any clients: what a server can see in any window."""

import asyncio

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
