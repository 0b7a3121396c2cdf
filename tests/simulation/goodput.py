"""
The law of goodput: whoever starts runs, a larger limit of runs in flight brings no less than a smaller one.

One seed decides the budget, the timeout, how long runs take, and what the vendor has of slots. The same is played with
each limit, and rows that were completed are counted: each limit must bring `LEAST` of what the best one below it does.
A row that is begun and not ended within its timeout has cost requests and brings nothing.

`python -m tests.simulation --goodput 20` prints the figures of so many seeds.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

from attrs import frozen

from agentruns import AgentRunsError, Client, RateLimit
from agentruns.ray.worker import ClientOptions, Worker
from agentruns.web import Feeds
from benchmarks.virtual import VirtualLoop
from tests.strained_servers import Slots, with_slots
from tests.tiny_vendor import client_of, tiny

LIMITS: Final = (8, 32, 256)
LEAST: Final = 0.8
ENOUGH: Final = 20
"""Rows, at the best limit: of fewer, one more or less says nothing."""

_BUDGETS: Final = (RateLimit(5, 1.0), RateLimit(2, 1.0), RateLimit(90, 60.0), RateLimit(40, 10.0))
_TIMEOUTS: Final = (20.0, 30.0, 60.0)
_ROWS: Final = 5000

Play = Callable[[Client, int, float, Callable[[], None]], Awaitable[None]]
"""Follow rows by a client, so many at once and for so many seconds each; tell of each that was completed."""


@frozen
class Case:
    """What one seed decides; *slots* is None where the vendor has room for all."""

    seed: int
    budget: RateLimit
    timeout: float
    typical: float
    spread: float
    slots: int | None
    seconds: float

    @classmethod
    def of(cls, seed: int) -> "Case":
        """Return what a seed decides."""
        chance = random.Random(seed)
        budget, timeout = chance.choice(_BUDGETS), chance.choice(_TIMEOUTS)
        slots = chance.choice([None, None, None, 2, 6])
        typical = chance.uniform(0.1, 0.4) * timeout
        return cls(seed, budget, timeout, typical, chance.choice([0.0, 0.3, 0.6]), slots, 120.0)

    def lengths(self) -> Iterator[float]:
        """Yield how long run after run takes."""
        chance = random.Random(self.seed)
        while True:
            yield self.typical * chance.lognormvariate(0.0, self.spread)


async def _batch(client: Client, limit: int, timeout: float, completed: Callable[[], None]) -> None:
    async with client.batch(_names(), limit=limit, timeout=timeout) as outcomes:
        async for outcome in outcomes:
            if outcome.error is None:
                completed()


async def _streams(client: Client, limit: int, timeout: float, completed: Callable[[], None]) -> None:
    async def one(name: str) -> None:
        await client.result(name, timeout=timeout)

    await _at_once(one, limit, completed)


async def _feeds(client: Client, limit: int, timeout: float, completed: Callable[[], None]) -> None:
    async with Feeds(client, timeout=timeout) as feeds:

        async def one(name: str) -> None:
            await feeds.open(name).ended()

        await _at_once(one, limit, completed)


async def _worker(client: Client, limit: int, timeout: float, completed: Callable[[], None]) -> None:
    worker = Worker(ClientOptions(vendor=tiny(), timeout=timeout))
    worker._client = client

    async def one(name: str) -> None:
        _, error = await worker.follow(name, None)
        if error is not None:
            raise error

    await _at_once(one, limit, completed)


SHAPES: Final[Mapping[str, Play]] = {"batch": _batch, "streams": _streams, "feeds": _feeds, "worker": _worker}


async def _at_once(one: Callable[[str], Awaitable[None]], limit: int, completed: Callable[[], None]) -> None:
    names = _names()

    async def go_on() -> None:
        for name in names:
            try:
                await one(name)
            except AgentRunsError:
                continue
            completed()

    await asyncio.gather(*(go_on() for _ in range(limit)))


def _names() -> Iterator[str]:
    return (f"a-{number}" for number in range(_ROWS))


@frozen
class Brought:
    """What a limit has brought: rows that were completed, and requests that were sent for them and others."""

    completed: int
    sent: int


def brought(case: Case, shape: str, limit: int) -> Brought:
    """Play a case with one limit, and return what it has brought."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_play(case, SHAPES[shape], limit))


async def _play(case: Case, play: Play, limit: int) -> Brought:
    server = Slots(_ROWS if case.slots is None else case.slots)
    server.latency = 0.05
    server.lasts = dict(zip(_names(), case.lengths(), strict=False))
    completed = 0

    def count() -> None:
        nonlocal completed
        completed += 1

    make = client_of if case.slots is None else with_slots
    async with make(server, limit=case.budget) as client:
        playing = asyncio.ensure_future(play(client, limit, case.timeout, count))
        await asyncio.wait([playing], timeout=case.seconds)
        playing.cancel()
        await asyncio.wait([playing])
    return Brought(completed, len(server.asked))


def breach(case: Case, shape: str) -> str:
    """Return how the law is broken, an empty text if it is kept."""
    return broken_by(case, shape, {limit: brought(case, shape, limit) for limit in LIMITS})


def broken_by(case: Case, shape: str, found: Mapping[int, Brought]) -> str:
    """Return how what the limits have brought breaks the law, an empty text if it does not."""
    best = 0
    for limit, each in found.items():
        best = max(best, each.completed)
        if best >= ENOUGH and each.completed < LEAST * best:
            rows = ", ".join(f"{limit}: {each.completed}" for limit, each in found.items())
            return f"{shape} with limit {limit} brings {each.completed / best:.2f} of the best ({rows}): {case}"
    return ""


def table(seeds: int) -> Iterator[str]:
    """Yield, line by line, what each limit brings for each seed and shape: rows, and requests in brackets."""
    for seed in range(seeds):
        case = Case.of(seed)
        budget = f"{case.budget.count} in {case.budget.seconds:g} s"
        yield f"{budget}, timeout {case.timeout:g} s, runs of {case.typical:.1f} s, slots {case.slots}"
        for shape in SHAPES:
            found = {limit: brought(case, shape, limit) for limit in LIMITS}
            cells = "".join(f"{f'{each.completed} ({each.sent})':>14}" for each in found.values())
            yield f"  {shape:<8}{cells} {broken_by(case, shape, found)}"
