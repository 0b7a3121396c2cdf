"""
All benchmarks in one go, one after the other, and one table of all their goals.

    python -m benchmarks [--quick] [--json PATH] [NAME ...]

A benchmark that lacks what it measures, such as the clients of the extra `bench`, says so in its row. What each prints
beside its goals goes to the standard error.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from attrs import evolve

from .process import load
from .report import CANNOT_RUN, Goal, as_json, from_json, machine, parser, table

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


def measure(name: str, *, quick: bool) -> list[Goal] | str:
    """Return the goals of one benchmark, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "goals.json"
        command = [sys.executable, "-m", f"{__package__}.{name}", "--json", str(path), *(["--quick"] if quick else [])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                print(line, end="", file=sys.stderr, flush=True)
                said.append(line)
        if process.returncode == CANNOT_RUN:
            return next((line.strip() for line in reversed(said) if line.startswith("NOT MEASURED")), "NOT MEASURED")
        if not path.exists():
            return f"FAILED with code {process.returncode}"
        return from_json(path.read_text(encoding="utf-8"))


def main() -> int:
    made = parser(__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(BENCHMARKS)}")
    args = made.parse_args()
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        made.error(f"{unknown[0]} is no benchmark; there are {', '.join(BENCHMARKS)}")
    goals: list[Goal] = []
    without: dict[str, str] = {}
    for name in args.names or BENCHMARKS:
        began = time.monotonic()
        found = measure(name, quick=args.quick)
        print(f"{name}: {time.monotonic() - began:.0f} s, {load()}", file=sys.stderr, flush=True)
        if isinstance(found, str):
            without[name] = found
        else:
            goals += [evolve(goal, name=f"{name}: {goal.name}") for goal in found]
    print(machine())
    table(goals)
    for name, why in without.items():
        print(f"{name}: {why}")
    missed = sum(not goal.ok for goal in goals)
    print(f"{len(goals) - missed} of {len(goals)} goals held, {len(without)} benchmarks not measured")
    if args.json:
        written = json.loads(as_json(goals)) | {name: {"ok": None, "why": why} for name, why in without.items()}
        args.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return 1 if missed or any(why.startswith("FAILED") for why in without.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
