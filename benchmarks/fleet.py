"""
A thousand runs of five seconds followed to their end: CPU and memory of the client, beside other clients.

    python -m benchmarks.fleet [--quick] [--json PATH]

Each contestant has an interpreter of its own, in turn, several times over. CPU is counted from the first start to the
last end, after imports and set-up; ratios are taken within a round, and their median is what counts. `bare` is a loop
written by hand over aiohttp and orjson. `steady` is agentruns with a poll each second, as all others have; `own` is
agentruns with its own schedule, after eight runs of the same length.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from .contestants import CONTESTANTS, missing
from .process import MIB, apart
from .report import arguments, at_least, at_most, finish
from .stub import Stub

OURS: Final = ("steady", "own")
PEERS: Final = ("azure", "openai", "langgraph")

Round: TypeAlias = Mapping[str, Mapping[str, Any]]


def rounds(count: int, runs: int, seconds: float) -> Sequence[Round]:
    names = []
    for name in CONTESTANTS:
        if package := missing(name):
            print(f"{name}: skipped, {package} is not installed")
        else:
            names.append(name)
    measured = []
    with Stub() as stub:
        for number in range(count):
            seen = {}
            for name in names[number % len(names) :] + names[: number % len(names)]:
                seen[name] = apart("benchmarks.contestants", "measure", name, stub.base_url, runs, seconds)
                seen[name]["requests"] = len(stub.log())
            measured.append(seen)
    return measured


def ratio(measured: Sequence[Round], what: str, name: str, other: str) -> float:
    """Return the median of the ratios, each within its round."""
    return float(statistics.median(each[name][what] / each[other][what] for each in measured))


def show(measured: Sequence[Round], title: str, runs: int) -> None:
    columns = ("CPU s", "x bare", "requests", "us each", "lag s", "MiB", "x bare", "lost")
    print(f"{title:<20}" + "".join(f"{column:>9}" for column in columns))
    for name in measured[0]:
        cpu, requests, lag, most = (
            statistics.median(each[name][what] for each in measured) for what in ("cpu", "requests", "lag", "peak")
        )
        ratios = (ratio(measured, what, name, "bare") for what in ("cpu", "peak"))
        lost = sum(runs - each[name]["seen"] for each in measured)
        errors = ", ".join({error for each in measured for error in each[name]["errors"]})
        print(
            f"{name:<20}{cpu:>9.2f}{next(ratios):>9.2f}{requests:>9.0f}{1e6 * cpu / requests:>9.0f}{lag:>9.2f}"
            f"{most / MIB:>9.0f}{next(ratios):>9.2f}{lost:>9}  {errors}".rstrip()
        )


def main() -> int:
    args = arguments(__doc__)
    runs, seconds = (150, 2.0) if args.quick else (1000, 5.0)
    measured = rounds(1 if args.quick else 3, runs, seconds)
    show(measured, f"{runs} runs of {seconds:g} s", runs)
    goals = [
        at_most("CPU / bare loop, a poll a second each", ratio(measured, "cpu", "steady", "bare"), 1.2),
        at_most("CPU / bare loop, own schedule", ratio(measured, "cpu", "own", "bare"), 1.0),
        at_least(
            "part of the runs seen to complete",
            min(each[name]["seen"] for each in measured for name in OURS) / runs,
            1.0,
        ),
        at_most("peak memory / bare loop", max(ratio(measured, "peak", name, "bare") for name in OURS), 1.3),
    ]
    # A peer that loses runs saves their cost: it is no measure.
    whole = [peer for peer in PEERS if peer in measured[0] and all(each[peer]["seen"] == runs for each in measured)]
    if whole:
        best = min(whole, key=lambda peer: ratio(measured, "cpu", peer, "bare"))
        print(f"best peer: {best}")
        goals.append(at_most("CPU / best peer, each as it comes", ratio(measured, "cpu", "own", best), 0.2))
    return finish(goals, args)


if __name__ == "__main__":
    sys.exit(main())
