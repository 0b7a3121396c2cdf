"""
All benchmarks in one go, one after the other, and one table of all their goals.

    python -m benchmarks [--quick] [--json PATH] [--minutes NUMBER] [NAME ...]

A goal is held or missed. A benchmark that lacks what it measures, such as the clients of the extra `bench`, is skipped,
and one that fails does not keep the others from being measured; why stands in its row. All are done within 60
minutes, within 8 if it is to be quick, or so many as are given: one that takes more than a third of that is ended, and
those for which no time is left are skipped. What each prints beside its goals goes to the standard error.

`--json` writes the machine, the goals and figures of each, what it took and what it left out; `python -m
benchmarks.page` makes a page of that.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import evolve, frozen

from .process import load
from .report import CANNOT_RUN, Goal, as_json, from_json, machine, parser, table, write

BENCHMARKS: Final = (
    "imports",
    "polling",
    "poll_cost",
    "fleet",
    "crowd",
    "budget",
    "goodput",
    "watch",
    "batch",
    "web",
    "protocols",
)
MINUTES: Final = 60.0
QUICK_MINUTES: Final = 8.0
LARGEST_PART: Final = 1 / 3
"""The part of all the time that one benchmark may take."""

NOT_MEASURED: Final = "NOT MEASURED"


@frozen
class Found:
    """What one benchmark has told: its goals, or *why* there are none; *notes* are what it has left out."""

    goals: Sequence[Goal] = ()
    why: str = ""
    figures: Mapping[str, Any] = {}
    notes: Sequence[str] = ()
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def has_failed(self) -> bool:
        """Tell whether it should have been measured."""
        return self.why.startswith("FAILED")


def measure(name: str, *, quick: bool, seconds: float) -> Found:
    """Measure one benchmark, within so many *seconds*."""
    began, spent = time.monotonic(), _cpu()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "goals.json"
        command = [sys.executable, "-m", f"{__package__}.{name}", "--json", str(path), *(["--quick"] if quick else [])]
        code, said = _run(command, seconds)
        notes = [line for line in said if line.startswith(("NO ", NOT_MEASURED))]
        told: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = Found(notes=notes, seconds=time.monotonic() - began, cpu=_cpu() - spent)
    if told:
        return evolve(found, goals=from_json(told["goals"]), figures=told["figures"])
    if code == CANNOT_RUN:
        return evolve(found, why=notes[-1] if notes else NOT_MEASURED)
    if found.seconds >= seconds:
        return evolve(found, why=f"FAILED: not done within {seconds:.0f} s")
    return evolve(found, why=f"FAILED with code {code}: {said[-1] if said else 'nothing was said'}")


def _run(command: Sequence[str], seconds: float) -> tuple[int, Sequence[str]]:
    """Run a command, for so many *seconds* at most; return its exit code and the lines that it has printed."""
    said = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    ) as process:
        assert process.stdout is not None
        over = threading.Timer(seconds, _end, [process])
        over.start()
        try:
            for line in process.stdout:
                print(line, end="", file=sys.stderr, flush=True)
                if line.strip():
                    said.append(line.strip())
        finally:
            over.cancel()
            _end(process)
    return process.returncode, said


def _end(process: subprocess.Popen[str]) -> None:
    """End a benchmark that is not done, with all the processes that it has begun."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _cpu() -> float:
    """Return the seconds of CPU that the processes have taken which this one has begun, and which are over."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_all(names: Sequence[str], *, quick: bool, seconds: float) -> dict[str, Found]:
    """Measure one after the other, all within so many *seconds*."""
    ends = time.monotonic() + seconds
    found = {}
    for name in names:
        left = ends - time.monotonic()
        if left <= 0:
            found[name] = Found(why=f"{NOT_MEASURED}: no time was left; see --minutes")
            continue
        try:
            found[name] = measure(name, quick=quick, seconds=min(left, LARGEST_PART * seconds))
        except Exception as error:  # the others are measured all the same
            found[name] = Found(why=f"FAILED: {error!r}")
        print(
            f"{name}: {found[name].seconds:.0f} s, {found[name].cpu:.0f} s of CPU, {load()}",
            file=sys.stderr,
            flush=True,
        )
    return found


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--minutes", type=float, metavar="NUMBER", help="be done within so many")
    made.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(BENCHMARKS)}")
    args = made.parse_args()
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        made.error(f"{unknown[0]} is no benchmark; there are {', '.join(BENCHMARKS)}")
    before = machine()
    minutes = args.minutes or (QUICK_MINUTES if args.quick else MINUTES)
    found = measure_all(args.names or BENCHMARKS, quick=args.quick, seconds=60 * minutes)
    goals = [evolve(goal, name=f"{name}: {goal.name}") for name, each in found.items() for goal in each.goals]
    without = {name: each.why for name, each in found.items() if each.why}
    print(before)
    print(f"at the end: {load()}" + (", all of them quick" if args.quick else ""))
    table(goals, without)
    for name, each in found.items():
        for note in each.notes:
            if note != each.why:
                print(f"{name}: {note}")
    missed = sum(not goal.ok for goal in goals)
    print(f"{len(goals) - missed} of {len(goals)} goals held, {len(without)} benchmarks not measured")
    if args.json:
        took = {
            name: {"why": each.why, "notes": each.notes, "seconds": each.seconds, "cpu": each.cpu}
            for name, each in found.items()
        }
        figures = {name: each.figures for name, each in found.items() if each.figures}
        write(args.json, {"machine": before, "goals": as_json(goals), "benchmarks": took, "figures": figures})
    return 1 if missed or any(each.has_failed for each in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
