"""
Many runs followed to their ends, of six workloads: requests and CPU for each, at equal lag, beside other loops.

    python -m benchmarks.fleet [--quick] [--json PATH]

Runs last as long as those of `benchmarks.polling`. A hundred are under way at a time, each followed by the next. Time
is virtual, for clients and server: nobody is late because the machine is busy, and answers take no time. Requests are
real: each contestant has an interpreter of its own and speaks to the server through sockets.

CPU is the client's, from the first start to the last end, after a hundred runs from which a schedule learns. `own` is
agentruns as it comes. `bare` is a loop written by hand over aiohttp and msgspec, each second or each five, at the
interval that is best in hindsight (polls, and ten for each second of lag), and at the interval that sees ends as late
as `own` does: that one is at equal lag. `floor` is the least that asyncio and aiohttp allow, at that interval: msgspec
decodes two fields and skips the rest. Where valgrind is there, the instructions of a few runs are counted beside
seconds, for the contestants that the goals compare.

That interval follows from the lag of `own` and the durations, and the bare loop sees ends as late as was worked out. Of
100 runs (`--quick`) the lag differs by a twentieth from one time to the next, and so do the polls at equal lag, not
those of `own`. CPU seconds differ by far more where the machine is busy: the least of several rounds counts.

At the lag of a fixed interval no schedule can save more polls than the distribution allows: .71, .80 and .79 of them
are the least for `short`, `long` and `mixed` (see `benchmarks.polling`). So at equal lag half of the CPU cannot be had,
and the goal there is to take no more than the bare loop. The goal of half is for `long` and `mixed` beside the bare
loop at 1 s, each as it comes: ours asks less and sees ends later, by as much as is printed below the table. Both goals
are for CPU seconds, which hold what the system does for a request, too, and for instructions, which do not.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from attrs import frozen

from .contestants import Follow, Opens, bare, floor, ours
from .polling import PRICE, WORKLOADS
from .process import MIB, Spent, apart, can_count, counted, peak, pin
from .report import Goal, arguments, at_least, at_most, finish
from .stub import Stub
from .virtual import SharedTime, run_virtually

AT_ONCE: Final = 100
TARGETS: Final = {"short": 1.0, "long": 0.5, "mixed": 0.5}
"""CPU for each run beside that of the bare loop at a poll a second, each as it comes: not at equal lag."""

EQUAL: Final = ("own", "bare, equal")
COUNTED: Final = 30
"""Of so many runs the instructions are counted, which takes fifty times as long."""

SHORTEST: Final = "vendor4"

Measured: TypeAlias = Mapping[str, Any]


# In a process of its own ----------------------------------------------------------------------------------------------


def durations(workload: str, count: int) -> Sequence[float]:
    """Return how long the runs take: evenly spread over the distribution, in an order that is the same for all."""
    lasts = [round(WORKLOADS[workload]((index + 0.5) / count), 3) for index in range(count)]
    random.Random(count).shuffle(lasts)
    return lasts


def contestant(name: str, interval: float) -> Opens:
    """Return what opens a contestant that polls at an *interval*, or as it comes where that is 0."""
    made: Mapping[str, Callable[..., Any]] = {"own": ours, "bare": bare, "floor": floor}
    return lambda base_url: made[name](base_url, interval)


def measure(name: str, interval: float, workload: str, count: int, base_url: str, time: str) -> dict[str, Any]:
    """Follow *count* runs, `AT_ONCE` at a time; return CPU, lag, memory and how many were seen to complete."""
    pin("client")
    learns = workload if name == "own" else SHORTEST  # the others only open their connections meanwhile
    return run_virtually(_measure(contestant(name, interval), learns, workload, count, base_url), SharedTime(time))


async def _measure(opens: Opens, learns: str, workload: str, count: int, base_url: str) -> dict[str, Any]:
    async with opens(base_url) as follow:
        await _follow_all(follow, durations(learns, AT_ONCE), "learned")
        began = asyncio.get_running_loop().time()
        with Spent() as spent:
            lags = await _follow_all(follow, durations(workload, count), "measured")
        return {"cpu": spent.cpu, "began": began, "lag": statistics.fmean(lags), "seen": len(lags), "peak": peak()}


async def _follow_all(follow: Follow, lasts: Sequence[float], word: str) -> Sequence[float]:
    """Follow all, each in turn in its slot; return by how much later than they ended they were seen to."""
    now, spread, mean = asyncio.get_running_loop().time, random.Random(7), statistics.fmean(lasts)
    lags: list[float] = []

    async def slot(number: int, first: float) -> None:
        await asyncio.sleep(first)  # so that slots do not move in step
        for index in range(number, len(lasts), AT_ONCE):
            began = now()
            if not await follow(f"same-{lasts[index]:.3f}-{word}-{index:020}"):
                raise RuntimeError(f"run {index} was not seen to complete")
            lags.append(now() - began - lasts[index])

    await asyncio.gather(*(slot(number, spread.uniform(0.0, mean)) for number in range(AT_ONCE)))
    return lags


# Side by side ---------------------------------------------------------------------------------------------------------


@frozen
class Fixed:
    """What an interval costs for runs of known durations."""

    interval: float
    polls: float
    lag: float

    @classmethod
    def of(cls, interval: float, lasts: Sequence[float]) -> Fixed:
        """Poll runs of these durations at this interval."""
        polls = [max(-(-seconds // interval), 1.0) for seconds in lasts]
        lag = statistics.fmean(each * interval - seconds for each, seconds in zip(polls, lasts, strict=True))
        return cls(interval, statistics.fmean(polls), lag)


def best_interval(lasts: Sequence[float]) -> float:
    """Return the interval that costs least for these durations."""
    found = (Fixed.of(0.2 * 1.05**power, lasts) for power in range(120))
    return min(found, key=lambda fixed: fixed.polls + fixed.lag / PRICE).interval


def interval_of_lag(lag: float, lasts: Sequence[float]) -> float:
    """Return the interval that sees ends as late as this, in the mean."""
    found = (Fixed.of(2 * lag * (0.8 + step / 500), lasts) for step in range(250))
    return min(found, key=lambda fixed: abs(fixed.lag - lag)).interval


def compare(workload: str, count: int, rounds: int, *, counting: bool) -> dict[str, dict[str, Any]]:
    """Return the medians for each contestant; of CPU the least, since a busy machine only adds to it."""
    lasts = durations(workload, count)
    rows: dict[str, tuple[str, float]] = {"own": ("own", 0.0), "bare, 1 s": ("bare", 1.0), "bare, 5 s": ("bare", 5.0)}
    measured: dict[str, dict[str, Any]] = {}
    with SharedTime.made() as time, Stub(time) as stub:

        def once(name: str, interval: float, runs: int, by: Callable[..., Any] = apart) -> Any:
            time.write(0.0)
            told = by("benchmarks.fleet", "measure", name, interval, workload, runs, stub.base_url, time.path)
            return told, stub.log()

        def take(row: str) -> None:
            name, interval = rows[row]
            seen = []
            for _ in range(rounds):
                told, times = once(name, interval, count)
                told["requests"] = sum(moment >= told["began"] for moment in times)
                seen.append(told)
            middle = {what: statistics.median(each[what] for each in seen) for what in seen[0]}
            middle["cpu"] = min(each["cpu"] for each in seen)
            measured[row] = middle | {"interval": interval}
            if counting and (row in EQUAL or (row == "bare, 1 s" and workload in TARGETS)):
                (_, instructions), _ = once(name, interval, COUNTED, counted)
                measured[row]["instructions"] = instructions / COUNTED

        take("own")
        equal = interval_of_lag(measured["own"]["lag"], lasts)
        rows |= {
            "bare, best": ("bare", best_interval(lasts)),
            "bare, equal": ("bare", equal),
            "floor, equal": ("floor", equal),
        }
        for row in list(rows)[1:]:
            take(row)
        for row in EQUAL:  # once more, at another time: these two are compared most closely
            told, _ = once(*rows[row], count)
            measured[row]["cpu"] = min(measured[row]["cpu"], told["cpu"])
    return measured


def show(workload: str, measured: Mapping[str, Measured], count: int) -> None:
    columns = ("gap s", "requests", "lag s", "CPU ms", "x 1 s", "x equal", "K instr", "x equal", "MiB", "lost")
    print(f"{workload:<16}" + "".join(f"{column:>10}" for column in columns) + "   for each run")
    for row, of in measured.items():
        line = f"{row:<16}{of['interval']:>10.2f}{of['requests'] / count:>10.2f}{of['lag']:>10.2f}"
        line += f"{1e3 * of['cpu'] / count:>10.2f}"
        line += "".join(f"{of['cpu'] / measured[other]['cpu']:>10.2f}" for other in ("bare, 1 s", "bare, equal"))
        if "instructions" in of:
            part = of["instructions"] / measured["bare, equal"]["instructions"]
            line += f"{of['instructions'] / 1e3:>10.0f}{part:>10.2f}"
        else:
            line += f"{'-':>10}" * 2
        print(line + f"{of['peak'] / MIB:>10.0f}{count - of['seen']:>10.0f}")
    own, second = measured["own"], measured["bare, 1 s"]
    requests = own["requests"] / second["requests"]
    print(f"{workload}, each as it comes: {requests:.2f} of the requests of a poll a second,", end=" ")
    print(f"and ends are seen {own['lag']:.2f} s late beside {second['lag']:.2f} s", flush=True)


def goals(workload: str, measured: Mapping[str, Measured], count: int) -> list[Goal]:
    own, second, equal = measured["own"], measured["bare, 1 s"], measured["bare, equal"]
    found = [
        at_least(f"{workload}: part of the runs seen to complete", own["seen"] / count, 1.0),
        at_most(f"{workload}: requests / bare loop at equal lag", own["requests"] / equal["requests"], 1.0),
    ]
    for what, unit in ("cpu", "CPU"), ("instructions", "instructions"):
        if what not in own:
            continue
        found.append(at_most(f"{workload}: {unit} a run / bare loop at equal lag", own[what] / equal[what], 1.0))
        if workload in TARGETS:
            name = f"{workload}: {unit} a run / bare loop at 1 s, each as it comes"
            found.append(at_most(name, own[what] / second[what], TARGETS[workload]))
    return found


def main() -> int:
    args = arguments(__doc__)
    count = 100 if args.quick else 500
    reached: list[Goal] = []
    counting = not args.quick and can_count()
    for workload in ("short", "long", "mixed") if args.quick else WORKLOADS:
        rounds = 2 if workload in TARGETS and not args.quick else 1
        measured = compare(workload, count, rounds, counting=counting)
        show(workload, measured, count)
        reached += goals(workload, measured, count)
    return finish(reached, args)


if __name__ == "__main__":
    sys.exit(main())
