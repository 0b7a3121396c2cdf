"""
What it takes to wait for very many runs with one client: memory, CPU while they sleep, and letting go of them.

    python -m benchmarks.watch [--quick] [--json PATH]

Each contestant has an interpreter of its own. `bare` is a task that reads its run once and sleeps, holding it; `ours`
is a task that iterates over the run's stream. Memory is what the process grows by until all have read their run once.
Time per waiter is CPU time, from making the tasks until all wait, and from cancelling them until all have ended; they
are cancelled a few at a time, and the longest time in which the loop did nothing else is what it stalls.

Seconds of a machine that is shared drift by half from one interpreter to the next, and only upwards. So how time grows
with the number of waiters is told by the least of several rounds. Counted in instructions, opening one of 10,000 takes
1.07 of what one of 2,000 does, and that is the garbage collector, which has more to go over: without it, 1.00.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Iterable
from itertools import islice
from typing import Final

from attrs import evolve

from agentruns import Backoff, Client, Run, RunRef

from .contestants import opened
from .process import Stall, apart, pin, resident
from .report import arguments, at_most, finish
from .stub import Stub

HOURS: Final = 36000.0
LATER: Final = Backoff(initial=HOURS, factor=1.0, maximum=HOURS, jitter=0.0)
AT_A_TIME: Final = 100
CONTESTANTS: Final = ("bare", "ours")


class Waiters:
    """Tasks that wait for one run each."""

    def __init__(self, contestant: str, client: Client) -> None:
        self._client = client
        self._wait = {"bare": self._bare, "ours": self._ours}[contestant]
        self._tasks: list[asyncio.Task[object]] = []
        self._to_begin = 0
        self._all_wait = asyncio.Event()

    async def _bare(self, origin: Run | RunRef) -> Run:
        run = await self._client.fetch(origin) if isinstance(origin, RunRef) else origin
        self._begin()
        await asyncio.sleep(HOURS)
        return run  # held until now

    async def _ours(self, origin: Run | RunRef) -> None:
        async for _ in self._client.stream(origin):
            self._begin()

    def _begin(self) -> None:
        self._to_begin -= 1
        if not self._to_begin:
            self._all_wait.set()

    async def open(self, origins: Iterable[Run | RunRef], at_a_time: int) -> None:
        """Have one more waiter for each of *origins*, and return when all of them wait."""
        origins = iter(origins)
        while some := list(islice(origins, at_a_time)):
            self._all_wait.clear()
            self._to_begin = len(some)
            self._tasks += [asyncio.create_task(self._wait(origin)) for origin in some]
            await self._all_wait.wait()

    async def cancel(self, at_a_time: int) -> None:
        """Let go of all."""
        while self._tasks:
            some = self._tasks[-at_a_time:]
            del self._tasks[-at_a_time:]
            for task in some:
                task.cancel()
            await asyncio.wait(some)
            assert all(task.cancelled() for task in some), "a waiter has failed"


def refs(word: str, count: int) -> Iterable[RunRef]:
    return (
        RunRef(f"same-86400-{word}-{number:020}", "5e0c7d4a-93a5-4a37-8a0e-2f4b8c6d1e90") for number in range(count)
    )


# In a process of their own --------------------------------------------------------------------------------------------


def asleep(contestant: str, base_url: str, count: int, seconds: float) -> dict[str, float]:
    """Return the bytes per waiter, and the part of a processor that all of them take while they sleep."""

    async def main() -> dict[str, float]:
        async with opened(base_url, LATER) as client:
            waiters = Waiters(contestant, client)
            await waiters.open(refs("warm", AT_A_TIME), AT_A_TIME)
            await waiters.cancel(AT_A_TIME)
            gc.collect()
            before = resident()
            await waiters.open(refs("run", count), AT_A_TIME)
            gc.collect()
            grown = resident() - before
            cpu = time.process_time()
            await asyncio.sleep(seconds)
            cpu = time.process_time() - cpu
            await waiters.cancel(AT_A_TIME)
        return {"bytes": grown / count, "cpu": cpu / seconds}

    pin("client")
    return asyncio.run(main())


def let_go(contestant: str, base_url: str, count: int) -> dict[str, float]:
    """Return the CPU seconds per waiter that opening and cancelling take, and the longest stall while cancelling."""

    async def main() -> dict[str, float]:
        async with opened(base_url, LATER) as client:
            run = await client.fetch(RunRef("same-86400-known"))
            runs = [evolve(run, ref=ref) for ref in refs("known", count)]
            waiters = Waiters(contestant, client)
            gc.collect()
            cpu = time.process_time()
            await waiters.open(runs, AT_A_TIME)
            opening = time.process_time() - cpu
            gc.collect()
            gc.freeze()  # a pass of the collector over all there is would be a stall, but not of ours
            cpu = time.process_time()
            with Stall() as stall:
                await waiters.cancel(AT_A_TIME)
            cancelling = time.process_time() - cpu
        return {"open": opening / count, "cancel": cancelling / count, "stall": stall.longest}

    pin("client")
    return asyncio.run(main())


# Side by side ---------------------------------------------------------------------------------------------------------


def main() -> int:
    args = arguments(__doc__)
    watched, few, many, rounds, seconds = (4000, 2000, 10000, 3, 1.0) if args.quick else (20000, 10000, 50000, 5, 5.0)
    asleep_of: dict[str, dict[str, float]] = {}
    let_go_of: dict[tuple[str, int], list[dict[str, float]]] = {
        (name, count): [] for name in CONTESTANTS for count in (few, many)
    }
    with Stub() as stub:
        for name in CONTESTANTS:
            asleep_of[name] = apart("benchmarks.watch", "asleep", name, stub.base_url, watched, seconds)
        for _ in range(rounds):
            for (name, count), measured in let_go_of.items():
                measured.append(apart("benchmarks.watch", "let_go", name, stub.base_url, count))

    print(f"{f'{watched} runs watched':<20}{'KiB each':>10}{'CPU asleep':>12}")
    for name, sleeping in asleep_of.items():
        print(f"{name:<20}{sleeping['bytes'] / 1024:>10.2f}{sleeping['cpu']:>12.2%}")
    print(f"{'let go of':<20}{'open us':>10}{'cancel us':>12}{'stall ms':>10}")
    middle = {
        case: {what: statistics.median(each[what] for each in measured) for what in ("open", "cancel", "stall")}
        for case, measured in let_go_of.items()
    }
    for (name, count), took in middle.items():
        shown = f"{name}, {count}"
        print(f"{shown:<20}{1e6 * took['open']:>10.1f}{1e6 * took['cancel']:>12.1f}{1e3 * took['stall']:>10.1f}")

    def growth(what: str) -> float:
        little, much = (min(each[what] for each in let_go_of["ours", count]) for count in (few, many))
        return much / little

    goals = [
        at_most("KiB for each run watched, its task and its state included", asleep_of["ours"]["bytes"] / 1024, 6.5),
        at_most("part of a processor while all sleep", asleep_of["ours"]["cpu"], 0.01),
        at_most(f"CPU to open one of {many} / one of {few}", growth("open"), 1.5),
        at_most(f"CPU to cancel one of {many} / one of {few}", growth("cancel"), 1.5),
        at_most(f"seconds of stall while {many} are cancelled", middle["ours", many]["stall"], 0.05),
    ]
    return finish(goals, args)


if __name__ == "__main__":
    sys.exit(main())
