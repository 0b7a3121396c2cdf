"""
What `import agentruns` costs, side by side with `import aiohttp`: fresh processes in turn, medians, one ratio.

    python -m benchmarks.imports [--runs N] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

GOAL = 0.5
"""`import agentruns` takes at most this part of `import aiohttp`."""

_PROGRAM = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def seconds(module: str) -> float:
    """Return how long a fresh interpreter takes to import *module*, as installed, its bytecode kept."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-P", "-c", _PROGRAM.format(module)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(shown.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the goal as JSON")
    wanted = parser.parse_args()
    modules = ("aiohttp", "agentruns", "agentruns.dialects.narrative")
    for module in modules:  # the first import of each compiles its bytecode
        seconds(module)
    rounds = [{module: seconds(module) for module in modules} for _ in range(wanted.runs)]
    print(f"{'import':<32}{'median ms':>10}{'x aiohttp':>11}")
    ratios = {}
    for module in modules:
        median = statistics.median(each[module] for each in rounds)
        ratios[module] = statistics.median(each[module] / each["aiohttp"] for each in rounds)
        print(f"{module:<32}{median * 1000:>10.1f}{ratios[module]:>11.2f}")
    ok = ratios["agentruns"] <= GOAL
    print(f"goal: agentruns <= {GOAL} x aiohttp: {'met' if ok else 'MISSED'}")
    if wanted.json:
        goal = {"import agentruns / import aiohttp": {"value": ratios["agentruns"], "target": GOAL, "ok": ok}}
        wanted.json.write_text(json.dumps(goal, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
