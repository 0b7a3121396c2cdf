"""What a thorough run has covered is told at its end."""

import gc
import sys
from collections.abc import Iterator

import pytest

if sys.platform == "win32":  # there is no such signal, no fork and no uvloop, and no open file can be moved away
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True, scope="package")
def _thawed() -> Iterator[None]:
    """Let garbage be looked for everywhere again."""
    yield
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if sys.platform == "win32":
        return
    from tests.crash.killed_processes import EXHAUSTIVE, STORE, counted
    from tests.crash.loop_steps import cuts

    if EXHAUSTIVE or STORE != "sqlite":
        for name, number in [*sorted(counted.items()), *sorted((f"cut off: {what}", n) for what, n in cuts.items())]:
            terminalreporter.write_line(f"{number:8} {name}")
