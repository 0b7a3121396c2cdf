"""
A fresh interpreter for each contestant, a processor for each side, and what a process has taken.

`python -m benchmarks.process MODULE FUNCTION ARGUMENTS` is the other end of `apart`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, Literal

MIB: Final = 2**20


def apart(module: str, function: str, *arguments: str | float) -> Any:
    """Return what *function* of *module* returns, a JSON value, in an interpreter that nothing has used before."""
    command = [sys.executable, "-m", __name__, module, function, json.dumps(arguments)]
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(shown.stdout.splitlines()[-1])


def pin(side: Literal["client", "server"]) -> None:
    """Keep this process on a processor of its own, if the system knows how to and there are two."""
    if hasattr(os, "sched_setaffinity"):
        free = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {free[0] if side == "client" else free[-1]})


def peak() -> int:
    """Return the bytes of memory that this process had at most."""
    # ru_maxrss counts what the parent had when it made this process; the high-water mark of Linux does not.
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    """Return the bytes of memory that this process has now."""
    return _status("VmRSS") or peak()


def _status(name: str) -> int:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


if __name__ == "__main__":
    _, wanted, name, given = sys.argv
    print(json.dumps(getattr(importlib.import_module(wanted), name)(*json.loads(given))))
