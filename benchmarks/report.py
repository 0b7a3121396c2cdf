"""What the benchmarks share: `--quick` and `--json`, goals, one table of them, and what they were measured on."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from attrs import frozen


@frozen
class Goal:
    """Hold one measured *value* beside its *target*; *bound* says in the table on which side of it to be."""

    name: str
    value: float
    target: float
    ok: bool
    bound: str = ""


def at_most(name: str, value: float, target: float) -> Goal:
    """Return the goal that *value* is *target* or less; NaN never is."""
    return Goal(name, value, target, value <= target, "<=")


def at_least(name: str, value: float, target: float) -> Goal:
    """Return the goal that *value* is *target* or more; NaN never is."""
    return Goal(name, value, target, value >= target, ">=")


def arguments(doc: str) -> argparse.Namespace:
    """Return the command line's `quick` (bool) and `json` (Path or None); the first line of *doc* is the help."""
    parser = argparse.ArgumentParser(description=doc.strip().splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="measure less, within half a minute")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the goals as JSON")
    return parser.parse_args()


def machine() -> str:
    """Return one line: the package's version, the interpreter, the system and its processors."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    return f"agentruns {version('agentruns')}, {python}, {system}"


def finish(goals: Sequence[Goal], args: argparse.Namespace) -> int:
    """Print the table, write the JSON if `--json` asks for it; return 0 if every goal is met, else 1."""
    width = max((len(goal.name) for goal in goals), default=0)
    print(machine())
    print(f"{'goal':<{width}}{'value':>12}{'target':>14}  ok")
    for goal in goals:
        target = f"{goal.bound} {goal.target:.4g}"
        print(f"{goal.name:<{width}}{goal.value:>12.4g}{target:>14}  {'yes' if goal.ok else 'NO'}")
    missed = sum(not goal.ok for goal in goals)
    print(f"{len(goals) - missed} of {len(goals)} goals met")
    if args.json:
        shown = {goal.name: {"value": goal.value, "target": goal.target, "ok": goal.ok} for goal in goals}
        args.json.write_text(json.dumps(shown, indent=2) + "\n", encoding="utf-8")
    return 1 if missed else 0
