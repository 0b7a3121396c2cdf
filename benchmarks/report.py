"""What the benchmarks share: the command line, goals and their table, what is missing, and the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from .process import load

CANNOT_RUN: Final = 3
"""The exit code of a benchmark that lacks what it measures."""


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


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a command line with `quick` (bool) and `json` (Path or None); the first line of *doc* is the help."""
    made = argparse.ArgumentParser(description=(doc or "").strip().splitlines()[0])
    made.add_argument("--quick", action="store_true", help="measure less, within half a minute")
    made.add_argument("--json", type=Path, metavar="PATH", help="write the goals as JSON")
    return made


def arguments(doc: str | None) -> argparse.Namespace:
    """Return what `parser` makes of the command line."""
    return parser(doc).parse_args()


def needs(extra: str, *modules: str) -> None:
    """End with `CANNOT_RUN`, and say which *extra* of this package brings it, if one of *modules* is missing."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        print(f"NOT MEASURED: {', '.join(missing)} cannot be imported; pip install 'agentruns[{extra}]'", flush=True)
        sys.exit(CANNOT_RUN)


def installed(package: str) -> str:
    """Return the version of a package, empty if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def machine() -> str:
    """Return one line: the package's version, the interpreter, the system, its processors and their load."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    ours = installed("agentruns") or "of a checkout"
    return f"agentruns {ours}, aiohttp {version('aiohttp')}, {python}, {system}, {load()}"


def table(goals: Sequence[Goal], others: Mapping[str, str] | None = None) -> None:
    """Print a line for each goal, then one for each of the *others*, with what became of it."""
    others = others or {}
    width = max(map(len, (*others, *(goal.name for goal in goals))), default=0)
    print(f"{'goal':<{width}}{'value':>12}{'target':>14}  held")
    for goal in goals:
        target = f"{goal.bound} {goal.target:.4g}"
        print(f"{goal.name:<{width}}{goal.value:>12.4g}{target:>14}  {'yes' if goal.ok else 'MISSED'}")
    for name, why in others.items():
        print(f"{name:<{width}}{'-':>12}{'-':>14}  {why}")


def finish(goals: Sequence[Goal], args: argparse.Namespace, figures: Mapping[str, Any] | None = None) -> int:
    """
    Print the table, and write the goals and the *figures* as JSON if `--json` asks for it.

    Return 0 if every goal is held, else 1.
    """
    print(machine())
    table(goals)
    missed = sum(not goal.ok for goal in goals)
    print(f"{len(goals) - missed} of {len(goals)} goals held")
    if args.json:
        write(args.json, {"machine": machine(), "goals": as_json(goals), "figures": figures or {}})
    return 1 if missed else 0


def write(path: Path, told: Mapping[str, Any]) -> None:
    """Write what was measured as JSON."""
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def as_json(goals: Sequence[Goal]) -> Mapping[str, Any]:
    """Return the goals by name, as a JSON value."""
    return {
        goal.name: {"value": goal.value, "bound": goal.bound, "target": goal.target, "ok": goal.ok} for goal in goals
    }


def from_json(told: Mapping[str, Any]) -> list[Goal]:
    """Return the goals that `as_json` told."""
    return [Goal(name, **shown) for name, shown in told.items()]
