"""
What one poll costs through the whole client, beside `session.get` and `msgspec.json.decode` alone: CPU of this process.

    python -m benchmarks.poll_cost [--quick] [--json PATH] [--profile]

Both wait as long between two polls of a run, and poll as many runs at once, in turn, in short blocks; each round gives
one ratio, and the median of all is what counts. Time is virtual, and requests are real: waiting takes no time, and
neither side polls more often than the other. The server says how many polls came. Bytes that `repeat` are the same in
every answer, `news` are other counts of tokens in each, and with `shown` a stream yields each state. Where valgrind is
there, instructions are counted beside seconds. `--profile` says instead where the client's time goes.
"""

from __future__ import annotations

import asyncio
import cProfile
import math
import pstats
import random
import statistics
import sys
from bisect import bisect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import process_time
from typing import Any, Final, TypeAlias

import msgspec

from agentruns import Backoff, RunRef

from .contestants import IN_FLIGHT, opened, plain_session
from .process import Spent, can_count, counted, pin
from .report import at_most, finish, parser
from .stub import Stub
from .virtual import SharedTime, run_virtually

MODES: Final = {"repeat": "same", "news": "news", "shown": "talk"}
CASES: Final = (("repeat", 64), ("news", 64), ("shown", 64), ("repeat", 1), ("news", 1))
TARGETS: Final = {"repeat": 1.10, "news": 1.25}
PACE: Final = 1.0
"""Seconds of virtual time from an answer to the next poll, for both sides."""

WARM_POLLS: Final = 4
BLOCK_POLLS: Final = 640
"""Polls of all runs in one block."""

COUNTED_POLLS: Final = 256
"""The same where instructions are counted, which takes fifty times as long, and hardly differs from poll to poll."""

Poll: TypeAlias = Callable[[str], Coroutine[Any, Any, None]]
"""Polls one run until it is over."""


@asynccontextmanager
async def plain(base_url: str) -> AsyncIterator[Poll]:
    async with plain_session() as session:

        async def poll(name: str) -> None:
            url = f"{base_url}/agents/runs/{name}"
            while True:
                async with session.get(url) as response:
                    run = msgspec.json.decode(await response.read())
                if run["status"] not in IN_FLIGHT:
                    return
                await asyncio.sleep(PACE)

        yield poll


@asynccontextmanager
async def ours(base_url: str) -> AsyncIterator[Poll]:
    schedule = Backoff(initial=PACE, factor=1.0, maximum=PACE, jitter=0.0)
    async with opened(base_url, schedule) as client:

        async def poll(name: str) -> None:
            async for _ in client.stream(RunRef(name, name), timeout=None):
                pass

        yield poll


SIDES: Final[Mapping[str, Callable[[str], AbstractAsyncContextManager[Poll]]]] = {"plain": plain, "ours": ours}


async def block(poll: Poll, names: Sequence[str], polls: int = BLOCK_POLLS) -> tuple[float, float, float]:
    """Poll all of the runs for a while; return when that began and ended, and the CPU seconds that it took."""
    now, spread = asyncio.get_running_loop().time, random.Random(7)

    async def one(name: str) -> None:
        await asyncio.sleep(spread.uniform(0.0, PACE))  # so that runs do not move in step
        await poll(name)

    tasks = [asyncio.create_task(one(name)) for name in names]
    await asyncio.sleep((WARM_POLLS + 0.5) * PACE)
    began = now()
    with Spent() as spent:
        await asyncio.sleep(PACE * polls / len(names))
    ended = now()
    for task in tasks:
        if task.done():
            raise RuntimeError("a poll has failed") from task.exception()
        task.cancel()
    await asyncio.wait(tasks)
    return began, ended, spent.cpu


def polls_within(times: Sequence[float], began: float, ended: float) -> int:
    return bisect(times, ended) - bisect(times, began)


async def compare(stub: Stub, rounds: int) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """Return, for what polls bring and how many run at once, what one cost in each round: plainly, and through us."""
    cost: dict[tuple[str, int], list[tuple[float, float]]] = {case: [] for case in CASES}
    async with plain(stub.base_url) as plainly, ours(stub.base_url) as through_us:
        for _ in range(rounds):
            for news, at_once in CASES:
                seen = {}
                for poll in random.sample((plainly, through_us), 2):
                    began, ended, cpu = await block(poll, runs(news, at_once))
                    seen[poll] = cpu / polls_within(stub.log(), began, ended)
                cost[news, at_once].append((seen[plainly], seen[through_us]))
    return cost


def alone(side: str, news: str, at_once: int, base_url: str, time: str) -> tuple[float, float]:
    """Poll for one block in a process of its own; return when it began and ended."""

    async def main() -> tuple[float, float]:
        async with SIDES[side](base_url) as poll:
            began, ended, _ = await block(poll, runs(news, at_once), COUNTED_POLLS)
            return began, ended

    pin("client")
    return run_virtually(main(), SharedTime(time))


def instructions(stub: Stub, time: SharedTime, side: str, news: str, at_once: int) -> float:
    """Return the instructions of one poll."""
    (began, ended), count = counted("benchmarks.poll_cost", "alone", side, news, at_once, stub.base_url, time.path)
    return count / polls_within(stub.log(), began, ended)


def runs(news: str, count: int) -> list[str]:
    return [f"{MODES[news]}-1e9-{number:022}" for number in range(count)]


async def profile(stub: Stub) -> None:
    """Print where the CPU time of the client goes that polls 1,000 runs, by module and by function."""
    for news in TARGETS:
        profiler = cProfile.Profile(process_time)  # not the time that others have the processor
        async with ours(stub.base_url) as poll:
            profiler.enable()
            began, ended, _ = await block(poll, runs(news, 1000), 5000)
            profiler.disable()
        print(f"--- {news}, {polls_within(stub.log(), began, ended)} polls")
        stats = pstats.Stats(profiler)
        spent: Counter[str] = Counter()
        for (path, _, _), (_, _, own, _, _) in stats.stats.items():  # type: ignore[attr-defined]
            spent[_owner(path)] += own
        for package, own in spent.most_common(16):
            print(f"{own / spent.total():>8.1%}  {package}")
        stats.sort_stats("tottime").print_stats(15)


def _owner(path: str) -> str:
    """Return our module or the other package that a function belongs to."""
    _, ours, module = path.rpartition("/agentruns/")
    _, installed, package = path.rpartition("site-packages/")
    if ours:
        return f"agentruns/{module}"
    return package.partition("/")[0] if installed else "built in" if path == "~" else "standard library"


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--profile", action="store_true", help="say where the client's time goes")
    args = made.parse_args()
    counts: dict[tuple[str, int], tuple[float, float]] = {}
    with SharedTime.made() as time, Stub(time) as stub:
        if not args.profile and can_count():  # a process each, whose time begins anew
            for case in CASES[:2]:
                counts[case] = instructions(stub, time, "plain", *case), instructions(stub, time, "ours", *case)
        pin("client")  # not before: the server would inherit it
        if args.profile:
            run_virtually(profile(stub), time)
            return 0
        cost = run_virtually(compare(stub, 5 if args.quick else 120), time)
    print(f"{'CPU of one poll':<24}{'plain us':>10}{'ours us':>10}{'ours / plain':>14}{'95 % of the median':>20}")
    goals = []
    for (news, at_once), pairs in cost.items():
        ratios = sorted(through_us / plainly for plainly, through_us in pairs)
        middle = statistics.median(ratios)
        reach = math.sqrt(len(ratios))
        low, high = ratios[int(len(ratios) / 2 - reach)], ratios[int(len(ratios) / 2 + reach)]
        name = f"{news}, {at_once} at once"
        us = [1e6 * statistics.median(each) for each in zip(*pairs, strict=True)]
        print(f"{name:<24}{us[0]:>10.0f}{us[1]:>10.0f}{middle:>14.3f}{low:>12.3f}{high:>8.3f}")
        if news in TARGETS:
            goals.append(at_most(f"CPU of a poll / of a plain one: {name}", middle, TARGETS[news]))
    for (news, at_once), (plainly, through_us) in counts.items():
        name = f"{news}, {at_once} at once"
        print(
            f"{name:<24}{plainly / 1e3:>10.0f}{through_us / 1e3:>10.0f}{through_us / plainly:>14.3f}   K instructions"
        )
        goals.append(at_most(f"instructions of a poll / of a plain one: {name}", through_us / plainly, TARGETS[news]))
    return finish(goals, args)


if __name__ == "__main__":
    sys.exit(main())
