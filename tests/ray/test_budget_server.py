"""One limit over many processes: what a server sees of all of them, as they come, die and are cut off."""

import asyncio
from collections.abc import Awaitable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentruns._api.limiter import Permits
from agentruns._values.exchange import RateLimit
from agentruns.ray.budget_server import LEASE_SECONDS, SILENCE_SECONDS, BudgetServer, Lease
from tests.scripted_wire import VirtualLoop

virtual = pytest.mark.virtual


class Actor:
    """`BudgetServer` on the clock of the loop, behind calls that may fail, and whose answers may be lost."""

    def __init__(self, limit: RateLimit, expected: int = 1) -> None:
        self.server = BudgetServer(limit, expected, lambda: asyncio.get_running_loop().time())
        self.refuses = self.loses = False

    def renew(self, name: str, life: str, held: int) -> Awaitable[tuple[int, int]]:
        return self._renew(name, life, held)

    async def _renew(self, name: str, life: str, held: int) -> tuple[int, int]:
        if self.refuses:
            raise ConnectionError("nobody there")
        answer = self.server.renew(name, life, held)
        if self.loses:
            raise ConnectionError("the answer was lost")
        return answer


class Process:
    """One worker: a share, and requests that are sent as fast as it allows."""

    def __init__(self, actor: Actor, name: str, seen: list[float], way: float = 0.05) -> None:
        assert actor.server._limit is not None
        self.lease = Lease(actor.server._limit.seconds, actor.renew, name)
        self._permits = Permits(self.lease.budget)
        self._seen = seen
        self._way = way
        self.tasks = [asyncio.create_task(self.lease.keep()), asyncio.create_task(self._send())]

    async def _send(self) -> None:
        while True:
            await self._permits.acquire()
            self.tasks = [*self.tasks[:2], asyncio.create_task(self._request())]

    async def _request(self) -> None:
        await asyncio.sleep(self._way / 2)
        self._seen.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self._way / 2)
        self._permits.release()

    def held(self) -> int:
        assert self.lease.budget.limit is not None
        return self.lease.budget.limit.count

    async def die(self) -> None:
        for task in self.tasks[:2]:
            task.cancel()
        await asyncio.wait(self.tasks[:2])


def most_in_a_window(seen: list[float], seconds: float) -> int:
    seen = sorted(seen)
    return max(sum(begin <= each < begin + seconds - 1e-9 for each in seen) for begin in seen) if seen else 0


@virtual
@pytest.mark.asyncio
async def test_places_are_divided_evenly_as_processes_come() -> None:
    actor, seen = Actor(RateLimit(10, 2.0)), list[float]()
    processes = []
    for number in range(4):
        processes.append(Process(actor, f"{number}", seen))
        await asyncio.sleep(8)
    assert [each.held() for each in processes] == [3, 3, 2, 2]
    assert most_in_a_window(seen, 2.0) == 10
    for process in processes:
        await process.die()


@virtual
@pytest.mark.asyncio
async def test_the_places_of_one_that_died_come_back_one_window_later() -> None:
    actor, seen = Actor(RateLimit(10, 2.0), expected=2), list[float]()
    first, other = Process(actor, "first", seen), Process(actor, "other", seen)
    await asyncio.sleep(5.5)
    await first.die()
    again = Process(actor, "first", seen)
    await asyncio.sleep(1.5)
    assert (again.held(), other.held()) == (0, 5)
    await asyncio.sleep(2)
    assert (again.held(), other.held()) == (5, 5)
    assert most_in_a_window(seen, 2.0) == 10
    for process in (again, other):
        await process.die()


@virtual
@pytest.mark.asyncio
async def test_one_that_cannot_renew_sends_nothing_and_others_get_its_places_when_it_is_long_silent() -> None:
    actor, seen, cut_off_seen = Actor(RateLimit(10, 2.0)), list[float](), list[float]()
    cut_off = Process(actor, "cut off", cut_off_seen)
    loop = asyncio.get_running_loop()
    await asyncio.sleep(1.5)
    actor.refuses = True
    await asyncio.sleep(LEASE_SECONDS + 1)
    ended = max(cut_off_seen)
    await asyncio.sleep(SILENCE_SECONDS - LEASE_SECONDS + 5)
    assert max(cut_off_seen) == ended < LEASE_SECONDS + 2

    actor.refuses = False
    cut_off.tasks[0].cancel()  # it stays silent
    other = Process(actor, "other", seen)
    await asyncio.sleep(4)
    assert other.held() == 10

    cut_off.tasks[0] = asyncio.create_task(cut_off.lease.keep())  # and comes back
    await asyncio.sleep(6)
    assert (cut_off.held(), other.held()) == (5, 5)
    assert max(cut_off_seen) > loop.time() - 2
    assert most_in_a_window(seen + cut_off_seen, 2.0) == 10
    for process in (cut_off, other):
        await process.die()


@virtual
@pytest.mark.asyncio
async def test_places_of_an_answer_that_was_lost_are_not() -> None:
    actor, seen = Actor(RateLimit(4, 1.0)), list[float]()
    actor.loses = True
    process = Process(actor, "a", seen)
    await asyncio.sleep(3.5)
    assert (process.held(), seen) == (0, [])
    actor.loses = False
    await asyncio.sleep(1)
    assert process.held() == 4
    await process.die()


moves = st.lists(
    st.tuples(st.sampled_from(["come", "die", "refuse", "lose", "mend", "wait"]), st.integers(0, 3), st.floats(0, 30)),
    max_size=25,
)


@settings(max_examples=60)
@given(moves=moves)
def test_no_window_holds_more_than_the_limit_whatever_becomes_of_processes(
    moves: list[tuple[str, int, float]],
) -> None:
    seen: list[float] = []

    async def story() -> None:
        actor = Actor(RateLimit(5, 3.0))
        alive: dict[int, Process] = {}
        for what, number, seconds in [*moves, ("wait", 0, 5.0)]:
            if what == "come" and number not in alive:
                alive[number] = Process(actor, f"{number}", seen, way=0.2)
            elif what == "die" and number in alive:
                await alive.pop(number).die()
            elif what in {"refuse", "lose", "mend"}:
                actor.refuses, actor.loses = what == "refuse", what == "lose"
            await asyncio.sleep(seconds)
        for process in alive.values():
            await process.die()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())
    assert most_in_a_window(seen, 3.0) <= 5
