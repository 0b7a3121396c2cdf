"""
What one poll costs through the whole client, beside `session.get` and `orjson.loads` alone: CPU of this process.

    python -m benchmarks.poll_cost [--quick] [--json PATH] [--profile]

Both poll back to back, in turn, in short blocks; each round gives one ratio, and the median of all is what counts. The
server says how many polls came. Bytes that `repeat` are the same in every answer, `news` are other counts of tokens in
each, and with `shown` a stream yields each state. `--profile` says instead where the client's time goes.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import math
import pstats
import random
import statistics
import sys
import time
from bisect import bisect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from agentruns import RunRef, connect

from .contestants import TOKEN, decoder
from .process import pin
from .report import arguments, at_most, finish
from .stub import Stub

MODES: Final = {"repeat": "same", "news": "news", "shown": "talk"}
CASES: Final = (("repeat", 64), ("news", 64), ("shown", 64), ("repeat", 1), ("news", 1))
TARGETS: Final = {"repeat": 1.05, "news": 1.15}
WARM_SECONDS: Final = 0.05
BLOCK_SECONDS: Final = 0.1

Poll: TypeAlias = Callable[[str], Coroutine[Any, Any, None]]
"""Polls one run for ever, back to back."""


class Now:
    """Poll again at once."""

    def delay(self, count: int, *, at_least: float = 0.0, noise: float = 0.5) -> float:  # noqa: ARG002
        """Return no time at all."""
        return 0.0


@asynccontextmanager
async def plain(base_url: str) -> AsyncIterator[Poll]:
    import aiohttp

    loads = decoder()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:

        async def poll(name: str) -> None:
            url = f"{base_url}/agents/runs/{name}"
            while True:
                async with session.get(url) as response:
                    run = loads(await response.read())
                if run["status"] not in {"running", "still running"}:
                    return

        yield poll


@asynccontextmanager
async def ours(base_url: str) -> AsyncIterator[Poll]:
    async with connect("narrative", token=TOKEN, base_url=base_url, schedule=Now()) as client:

        async def poll(name: str) -> None:
            async for _ in client.stream(RunRef(name, name), timeout=3600.0):
                pass

        yield poll


async def block(poll: Poll, names: Sequence[str], stub: Stub) -> float:
    """Return the CPU seconds per poll while all of the runs are polled."""
    gc.collect()
    tasks = [asyncio.create_task(poll(name)) for name in names]
    await asyncio.sleep(WARM_SECONDS)
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(BLOCK_SECONDS)
    ended, cpu = time.monotonic(), time.process_time() - cpu
    for task in tasks:
        if task.done():
            raise RuntimeError("a poll has failed") from task.exception()
        task.cancel()
    await asyncio.wait(tasks)
    times = stub.log()
    polls = bisect(times, ended) - bisect(times, began)
    # On a busy machine a block may pass without any.
    return cpu / polls if polls else await block(poll, names, stub)


async def compare(stub: Stub, rounds: int) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """Return, for what polls bring and how many run at once, what one cost in each round: plainly, and through us."""
    cost: dict[tuple[str, int], list[tuple[float, float]]] = {case: [] for case in CASES}
    async with plain(stub.base_url) as plainly, ours(stub.base_url) as through_us:
        for _ in range(rounds):
            for news, at_once in CASES:
                seen = {}
                for poll in random.sample((plainly, through_us), 2):
                    seen[poll] = await block(poll, runs(news, at_once), stub)
                cost[news, at_once].append((seen[plainly], seen[through_us]))
    return cost


def runs(news: str, count: int) -> list[str]:
    return [f"{MODES[news]}-86400-{number:022}" for number in range(count)]


async def profile(stub: Stub, seconds: float) -> None:
    """Print where the time of the client goes, by module and by function."""
    for news, at_once in CASES[:2]:
        profiler = cProfile.Profile()
        async with ours(stub.base_url) as poll:
            tasks = [asyncio.create_task(poll(name)) for name in runs(news, at_once)]
            await asyncio.sleep(WARM_SECONDS)
            profiler.enable()
            await asyncio.sleep(seconds)
            profiler.disable()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        print(f"--- {news}, {at_once} at once, {len(stub.log())} polls")
        stats = pstats.Stats(profiler)
        spent: Counter[str] = Counter()
        for (path, _, _), (_, _, own, _, _) in stats.stats.items():  # type: ignore[attr-defined]
            spent[_owner(path)] += own
        for package, own in spent.most_common(16):
            print(f"{own / spent.total():>8.1%}  {package}")
        stats.sort_stats("tottime").print_stats(30)


def _owner(path: str) -> str:
    """Return our module or the other package that a function belongs to."""
    _, ours, module = path.rpartition("/agentruns/")
    _, installed, package = path.rpartition("site-packages/")
    if ours:
        return f"agentruns/{module}"
    return package.partition("/")[0] if installed else "built in" if path == "~" else "standard library"


def main() -> int:
    profiling = "--profile" in sys.argv
    if profiling:
        sys.argv.remove("--profile")
    args = arguments(__doc__)
    with Stub() as stub:
        pin("client")  # not before: the server would inherit it
        if profiling:
            asyncio.run(profile(stub, 3.0))
            return 0
        cost = asyncio.run(compare(stub, 10 if args.quick else 120))
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
            goals.append(at_most(f"poll / plain poll: {name}", middle, TARGETS[news]))
    return finish(goals, args)


if __name__ == "__main__":
    sys.exit(main())
