"""
Ten thousand runs followed by one client on one core, 2,000 of which end in a minute, by 200 requests a second.

    python -m benchmarks.crowd [--quick] [--json PATH] [--html PATH] [--python PATH ...]

In real time, with a run that follows wherever one has ended: CPU, memory, how late ends are seen, and the longest time
in which the loop did nothing else. How each grows is measured from 1,000 to 20,000 runs, of which as large a part ends,
by as many requests for each. Runs last 300 s in the mean (lognormal), and are under way from the beginning.

Each row is measured for 30 s, a minute after all runs were opened. By then each has been read for the first time, and
ends that came meanwhile are still being caught up with: a lag of 32 s, and of 20 s two minutes later. So the row that
has goals is measured after three minutes.

A loop stalls for what it does itself, and for what else the machine does: `stall` is by the clock, `busy` by the CPU
time of the process, and `own` is what is left of that without the garbage collector, whose longest pass is `gc`.
CPython goes over all objects in one pass whenever a quarter more have come: that grows with whatever a program keeps,
and only the program can have it done at another time (`gc.disable`, `gc.collect`) or leave things out (`gc.freeze`). So
both `busy` and `own` have a goal. Such a pass is rare, and may not fall within what is measured: `full` is how long one
takes when all is over.

Whatever else runs on the client's processor makes answers and polls wait, and what has piled up is done in one turn of
the loop: then `busy` and `own` are greater, too. `cut` is how often in a second the system has taken the processor
away from the client: where that is more than one or two, measure again when the machine is idle.

Beside asyncio there is uvloop (extra `bench`), and each interpreter that `--python` names. `--html` writes a page with
the growth as a plot (extra `report`).
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeAlias

from agentruns import Run, narrative
from agentruns._values.exchange import Request, Response
from agentruns._values.run import RunRef

from .contestants import opened
from .page import page
from .process import MIB, Spent, Stall, apart, pin, resident
from .report import Goal, as_json, at_most, finish, machine, parser
from .shapes import NARRATIVE
from .stub import Stub, most_within

MEAN: Final = 300.0
"""Seconds that runs last: of 10,000, so many end in a minute that it makes 2,000."""

SIGMA: Final = 0.6
PER_REQUEST: Final = 50
"""How many runs there are for each request that may be sent in a second."""

CROWD: Final = 10_000
GROWTH: Final = (1_000, 2_000, 5_000, CROWD, 20_000)
STALL_SECONDS: Final = 0.02
IN_TURN: Final = PER_REQUEST / 2
"""Seconds by which ends are seen late where each run is asked about in turn."""

Measured: TypeAlias = Mapping[str, Any]


# In a process of its own ----------------------------------------------------------------------------------------------


class Slot:
    """A place that always has a run: what is seen to end is followed by the next."""

    def __init__(self, number: int, now: float) -> None:
        self._number = number
        self._random = random.Random(number)
        self._count = 0
        # The longer a run, the likelier it is to be under way.
        lasts = self._lasts(SIGMA**2)
        self._begin(now - self._random.random() * lasts, lasts)

    def _lasts(self, longer: float = 0.0) -> float:
        return self._random.lognormvariate(math.log(MEAN) - SIGMA**2 / 2 + longer, SIGMA)

    def _begin(self, began: float, lasts: float) -> None:
        self._count += 1
        self.name = f"same-{lasts:.3f}@{began:.3f}-{self._number:06}x{self._count:03}"
        self.began, self.ends = began, began + lasts

    def next(self) -> None:
        """Have another run begin now."""
        self._begin(time.monotonic(), self._lasts())

    def run(self) -> Run[Any]:
        """Return the run as somebody else has started it, at no cost to our budget."""
        flow = narrative.fetch(RunRef(self.name, self.name), {})
        request = next(flow)
        assert isinstance(request, Request)
        origin = time.time() - time.monotonic()
        started = datetime.fromtimestamp(origin + self.began, UTC).isoformat()
        body = NARRATIVE.body(over=False, id=self.name, parent=self.name, count=0, started=started)
        try:
            flow.send(Response(200, {}, body, request))
        except StopIteration as end:
            run: Run[Any] = end.value
            return run
        raise AssertionError("one answer tells a run")


def measure(count: int, loop: str, warm: float, seconds: float, base_url: str) -> dict[str, float]:
    """Follow *count* runs at a time; return what it took in so many *seconds*, after *warm* ones."""
    pin("client")
    with asyncio.Runner(loop_factory=_loops()[loop]) as runner:
        return runner.run(_measure(count, warm, seconds, base_url))


def _loops() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if find_spec("uvloop") is not None:
        import uvloop

        loops["uvloop"] = uvloop.new_event_loop
    return loops


async def _measure(count: int, warm: float, seconds: float, base_url: str) -> dict[str, float]:
    lags: list[float] = []

    async def keep(slot: Slot) -> None:
        while True:
            await client.result(slot.run(), timeout=None)
            lags.append(time.monotonic() - slot.ends)
            slot.next()

    async with opened(base_url, budget=count / PER_REQUEST) as client:
        gc.collect()
        before = resident()
        tasks = []
        for number in range(count):
            tasks.append(asyncio.create_task(keep(Slot(number, time.monotonic()))))
            if number % 100 == 99:
                await asyncio.sleep(0)
        await asyncio.sleep(warm)
        lags.clear()
        with Spent() as spent:  # which collects what opening has left
            began, cut = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
            with Stall() as stall:
                await asyncio.sleep(seconds)
            ended, cut = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - cut
        grown, found = resident() - before, list(lags)
        with Spent() as full:  # which collects what is garbage before it measures
            gc.collect()
        for task in tasks:
            if task.done():
                raise RuntimeError("a run cannot be followed") from task.exception()
            task.cancel()
        await asyncio.wait(tasks)
    return {
        "cpu": spent.cpu / (ended - began),
        "bytes": grown,
        "ends": 60 * len(found) / (ended - began),
        "lag": statistics.fmean(found) if found else math.nan,
        "stall": stall.longest,
        "busy": stall.longest_busy,
        "own": stall.longest_own,
        "gc": stall.longest_pass,
        "passes": stall.passes * 60 / (ended - began),
        "full": full.cpu,
        "cut": cut / (ended - began),
        "began": began,
        "ended": ended,
    }


# Side by side ---------------------------------------------------------------------------------------------------------


def take(count: int, loop: str, python: str, warm: float, seconds: float) -> Measured:
    """Return what was measured in a process of its own, and how many requests the server saw in a second."""
    with Stub() as stub:
        told: dict[str, float] = apart(
            "benchmarks.crowd", "measure", count, loop, warm, seconds, stub.base_url, python=python
        )
        times = [moment for moment in stub.log() if told["began"] <= moment <= told["ended"]]
    told["requests"] = len(times) / (told["ended"] - told["began"])
    told["most"] = most_within(1.0, times) / (count / PER_REQUEST)
    return told


def show(title: str, measured: Measured) -> None:
    print(
        f"{title:<30}{measured['cpu']:>8.0%}{measured['bytes'] / MIB:>8.0f} {measured['requests']:>10.1f}"
        f"{measured['ends']:>10.0f}{measured['lag']:>8.1f}"
        + "".join(f"{1e3 * measured[what]:>9.1f}" for what in ("stall", "busy", "own", "gc", "full"))
        + f"{measured['cut']:>8.0f}",
        flush=True,
    )


def goals(measured: Measured, count: int) -> list[Goal]:
    return [
        at_most(f"{count} runs: seconds of the loop's longest stall", measured["busy"], STALL_SECONDS),
        at_most(f"{count} runs: the same without the garbage collector", measured["own"], STALL_SECONDS),
        at_most(f"{count} runs: most requests in any second / limit", measured["most"], 1.0),
        at_most(f"{count} runs: lag / in turn", measured["lag"] / IN_TURN, 0.9),
        at_most(f"{count} runs: part of one core", measured["cpu"], 0.5),
    ]


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--html", type=Path, metavar="PATH", help="write a page with the growth as a plot")
    made.add_argument("--python", action="append", default=[], metavar="PATH", help="measure under it, too")
    args = made.parse_args()
    crowd, sizes, warm, seconds = (2_000, (500, 2_000), 2.0, 5.0) if args.quick else (CROWD, GROWTH, 60.0, 30.0)
    columns = ("requests/s", "ends/min", "lag s", "stall ms", "busy ms", "own ms", "gc ms", "full ms", "cut/s")
    widths = (10, 10, 8, 9, 9, 9, 9, 9, 8)
    print(
        f"{'':<30}{'CPU':>8}{'MiB':>8} "
        + "".join(f"{column:>{width}}" for column, width in zip(columns, widths, strict=True))
    )
    rows: list[Measured] = []

    def row(count: int, loop: str, python: str = sys.executable, *, warm: float = warm) -> Measured:
        grows = loop if python == sys.executable else f"{loop}, {Path(python).resolve().name}"
        title = f"{count} runs, {grows}"
        measured = take(count, loop, python, warm, seconds)
        show(title, measured)
        rows.append({"title": title, "grows": grows, "runs": count, **measured})
        return measured

    grown = {count: row(count, "asyncio", warm=3 * warm if count == crowd else warm) for count in sizes}
    loops = [loop for loop in ("asyncio", "uvloop") if loop in _loops()]
    if len(loops) == 1:
        print("NO UVLOOP: it is not installed; pip install 'agentruns[bench]'")
    for loop in loops[1:]:
        row(crowd, loop)
    for python in args.python:
        for loop in loops:
            row(crowd, loop, python)
    reached = goals(grown[crowd], crowd)
    figures = {"rows": rows}
    if args.html and find_spec("matplotlib") is None:
        print("NO PLOT IS DRAWN: matplotlib is not installed; pip install 'agentruns[report]'")
    if args.html:
        told = {"machine": machine(), "goals": as_json(reached), "figures": {"crowd": figures}}
        args.html.write_text(page(told), encoding="utf-8")
    return finish(reached, args, figures)


if __name__ == "__main__":
    sys.exit(main())
