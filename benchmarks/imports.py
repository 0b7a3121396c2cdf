"""
What `import agentruns` costs, side by side with `import aiohttp`: fresh processes in turn, medians, one ratio.

    python -m benchmarks.imports [--quick] [--json PATH]

Where valgrind is there, the instructions of both are counted, too, unless it is to be quick: seconds drift with what
else a machine does. What a program asks for is imported when it first asks: what `connect` takes, and a vendor's
module, stands below, each with all that it imports.
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

_IMPORTS: Final = (
    "import aiohttp",
    "import agentruns",
    "from agentruns import connect",
    "from agentruns import connect, narrative",
)
_PROGRAM: Final = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"


def seconds(statement: str) -> float:
    """Return how long a fresh interpreter takes for an import, as installed, its bytecode kept."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-P", "-c", _PROGRAM.format(statement)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(shown.stdout)


def main() -> int:
    args = arguments(__doc__)
    for statement in _IMPORTS:  # the first import of each compiles its bytecode
        seconds(statement)
    rounds = [{each: seconds(each) for each in _IMPORTS} for _ in range(5 if args.quick else 15)]
    counts: dict[str, int] = {}
    if can_count() and not args.quick:
        nothing = instructions_of("")
        counts = {each: instructions_of(each) - nothing for each in _IMPORTS}
    print(f"{'import':<44}{'median ms':>10}{'x aiohttp':>11}{'M instructions':>16}{'x aiohttp':>11}")
    theirs, ours = _IMPORTS[:2]
    ratios = {}
    for each in _IMPORTS:
        median = statistics.median(found[each] for found in rounds)
        ratios[each] = statistics.median(found[each] / found[theirs] for found in rounds)
        line = f"{each:<44}{median * 1000:>10.1f}{ratios[each]:>11.2f}"
        if counts:
            line += f"{counts[each] / 1e6:>16.0f}{counts[each] / counts[theirs]:>11.2f}"
        print(line)
    goals = [at_most("seconds: import agentruns / import aiohttp", ratios[ours], TARGET)]
    if counts:
        goals.append(at_most("instructions: import agentruns / import aiohttp", counts[ours] / counts[theirs], TARGET))
    return finish(goals, args)


if __name__ == "__main__":
    sys.exit(main())
