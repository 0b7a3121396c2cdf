"""
What `import agentruns` costs, side by side with `import aiohttp`: fresh processes in turn, medians, one ratio.

    python -m benchmarks.imports [--quick] [--json PATH]

Where valgrind is there, the instructions of both are counted, too: seconds drift with what else a machine does.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from typing import Final

from .process import can_count, instructions_of
from .report import arguments, at_most, finish

TARGET: Final = 0.4
"""`import agentruns` takes at most this part of `import aiohttp`."""

_MODULES: Final = ("aiohttp", "agentruns", "agentruns.dialects.narrative")
_PROGRAM: Final = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def seconds(module: str) -> float:
    """Return how long a fresh interpreter takes to import *module*, as installed, its bytecode kept."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-P", "-c", _PROGRAM.format(module)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(shown.stdout)


def main() -> int:
    args = arguments(__doc__)
    for module in _MODULES:  # the first import of each compiles its bytecode
        seconds(module)
    rounds = [{module: seconds(module) for module in _MODULES} for _ in range(5 if args.quick else 15)]
    counts = {}
    if can_count():
        nothing = instructions_of("")
        counts = {module: instructions_of(f"import {module}") - nothing for module in _MODULES}
    print(f"{'import':<32}{'median ms':>10}{'x aiohttp':>11}{'M instructions':>16}{'x aiohttp':>11}")
    ratios = {}
    for module in _MODULES:
        median = statistics.median(each[module] for each in rounds)
        ratios[module] = statistics.median(each[module] / each["aiohttp"] for each in rounds)
        line = f"{module:<32}{median * 1000:>10.1f}{ratios[module]:>11.2f}"
        if counts:
            line += f"{counts[module] / 1e6:>16.0f}{counts[module] / counts['aiohttp']:>11.2f}"
        print(line)
    goals = [at_most("seconds: import agentruns / import aiohttp", ratios["agentruns"], TARGET)]
    if counts:
        part = counts["agentruns"] / counts["aiohttp"]
        goals.append(at_most("instructions: import agentruns / import aiohttp", part, TARGET))
    return finish(goals, args)


if __name__ == "__main__":
    sys.exit(main())
