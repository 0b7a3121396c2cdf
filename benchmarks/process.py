"""
A fresh interpreter for each contestant, a processor for each side, and what a process has taken.

`python -m benchmarks.process MODULE FUNCTION ARGUMENTS` is the other end of `apart` and of `counted`.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal, Self

MIB: Final = 2**20

TICK: Final = 0.002
"""Seconds after which it is looked whether a loop has stalled."""

COUNTER: Final = ("valgrind", "callgrind_control")
"""The programs that it takes to count instructions."""

_COUNTED: Final = "AGENTRUNS_COUNTED"
_COLLECTED: Final = re.compile(r"Collected : (\d+)")


def apart(module: str, function: str, *arguments: str | float, python: str = sys.executable) -> Any:
    """Return what *function* of *module* returns, a JSON value, in an interpreter that nothing has used before."""
    command = [python, "-m", __name__, module, function, json.dumps(arguments)]
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(shown.stdout.splitlines()[-1])


def counted(module: str, function: str, *arguments: str | float) -> tuple[Any, int]:
    """Return what `apart` returns, and the instructions of the user's side while a `Spent` was entered in there."""
    shown, count = _counted("--instr-atstart=no", "-m", __name__, module, function, json.dumps(arguments))
    return json.loads(shown.splitlines()[-1]), count


def instructions_of(program: str) -> int:
    """Return how many instructions a fresh interpreter takes for a *program*, its own start included."""
    return _counted("--instr-atstart=yes", "-P", "-c", program)[1]


def _counted(switch: str, *words: str) -> tuple[str, int]:
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}", switch, sys.executable, *words]
    environment = {**os.environ, _COUNTED: "1", "PYTHONHASHSEED": "0"}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = _COLLECTED.search(shown.stderr)
    assert found is not None, shown.stderr
    return shown.stdout, int(found[1])


def can_count() -> bool:
    """Tell whether instructions can be counted here, and say so aloud if not."""
    missing = [program for program in COUNTER if shutil.which(program) is None]
    if missing:
        print(f"NO INSTRUCTIONS ARE COUNTED: {' and '.join(missing)} (of valgrind) cannot be found", flush=True)
    return not missing


class Spent:
    """The CPU and wall seconds that this process spends while this is entered; counts instructions in `counted`."""

    cpu = wall = 0.0

    def __enter__(self) -> Self:
        gc.collect()
        _count("on")
        self._began, self._cpu = time.monotonic(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu, self.wall = time.process_time() - self._cpu, time.monotonic() - self._began
        _count("off")


class Stall:
    """
    The longest time, in seconds, that the running loop took to come round while this was entered.

    `longest` is by the clock, `longest_busy` by the CPU time of the process, whatever else the machine does, and
    `longest_own` what is left of that without the garbage collector. `longest_pass` is the longest that one pass of the
    collector took, and `passes` says how many there were over all objects.
    """

    longest = longest_busy = longest_own = longest_pass = 0.0
    passes = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._collected = self._pass_began = 0.0
        gc.callbacks.append(self._on_pass)
        self._last, self._cpu = time.monotonic(), time.process_time()
        self._timer = self._loop.call_later(TICK, self._tick)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        gc.callbacks.remove(self._on_pass)
        self._note()

    def _tick(self) -> None:
        self._note()
        self._timer = self._loop.call_later(TICK, self._tick)

    def _note(self) -> None:
        now, cpu = time.monotonic(), time.process_time()
        busy = cpu - self._cpu
        self.longest = max(self.longest, now - self._last)
        self.longest_busy = max(self.longest_busy, busy)
        self.longest_own = max(self.longest_own, busy - self._collected)
        self._last, self._cpu, self._collected = now, cpu, 0.0

    def _on_pass(self, phase: str, told: dict[str, int]) -> None:
        if phase == "start":
            self._pass_began = time.process_time()
            return
        took = time.process_time() - self._pass_began
        self._collected += took
        self.longest_pass = max(self.longest_pass, took)
        self.passes += told["generation"] == 2


def _count(switch: Literal["on", "off"]) -> None:
    if _COUNTED in os.environ:
        subprocess.run(["callgrind_control", "-i", switch, str(os.getpid())], capture_output=True, check=True)


def pin(side: Literal["client", "server"]) -> None:
    """Keep this process on a processor of its own, if the system knows how to and there are two."""
    if hasattr(os, "sched_setaffinity"):
        free = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {free[0] if side == "client" else free[-1]})


def load() -> str:
    """Return one line about what else the machine has to do: its load in the last minute."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs" if hasattr(os, "getloadavg") else ""


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
