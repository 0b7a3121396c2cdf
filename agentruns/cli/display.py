"""States of a run on a terminal, in a pipe, or as JSON lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from agentruns._values import codec
from agentruns._values.printable import printable
from agentruns._values.run import Run, RunStatus

from .printing import complain, complain_traceback, say, say_json

_COLOURS = {
    RunStatus.PENDING: "yellow",
    RunStatus.RUNNING: "blue",
    RunStatus.REQUIRES_ACTION: "magenta",
    RunStatus.COMPLETED: "green",
    RunStatus.FAILED: "red",
}


class Display(Protocol):
    """Where states and remarks go."""

    def state(self, run: Run) -> None:
        """Show a state."""
        ...

    def entry(self, run: Run) -> None:
        """Show a run of a list."""
        ...

    def remark(self, text: str) -> None:
        """Say something that is no state."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def choose(*, json: bool) -> Display:
    """Return JSON lines if asked for, colours on a terminal where rich is installed, else plain lines."""
    if json:
        return JsonLines()
    if sys.stdout is not None and sys.stdout.isatty():  # None: it was closed
        try:
            return Coloured()
        except ImportError:
            pass
    return Plain()


@contextmanager
def warnings() -> Iterator[None]:
    """Show on stderr, a line each, what the library warns of, as long as the context lasts; nothing before or after."""
    logger = logging.getLogger("agentruns")
    logger.addHandler(_SILENT)  # stays: what the collector lets go of at the very end is not for a terminal
    shown = _Warnings(logging.WARNING)
    logger.addHandler(shown)
    try:
        yield
    finally:
        logger.removeHandler(shown)


_SILENT = logging.NullHandler()


class _Warnings(logging.Handler):
    """Print warnings without tracebacks; an error, which is a bug, with its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it, unless it is about an exception that was not awaited: what matters of it is printed elsewhere."""
        if record.exc_info and record.levelno < logging.ERROR:
            return
        complain(f"agentruns: {record.getMessage()}")
        if record.exc_info and record.exc_info[1]:
            complain_traceback(record.exc_info[1])


class JsonLines:
    """One JSON object per state, as `Run.from_json` reads it; remarks go to stderr."""

    def state(self, run: Run) -> None:
        """Print a state."""
        say_json(run.to_json())

    def entry(self, run: Run) -> None:
        """Print a run of a list."""
        self.state(run)

    def remark(self, text: str) -> None:
        """Print a remark where it does not disturb the lines."""
        complain(text)

    def close(self) -> None:
        """Do nothing."""


class Plain:
    """One line per fact, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def state(self, run: Run) -> None:
        """Print a state and what it brings."""
        say(f"{self._seconds()}  {run.status:<15} {run.id}{_word(run)}")
        say(*(f"{'':8}  {line}" for line in brings(run)))

    def entry(self, run: Run) -> None:
        """Print a run of a list, on one line."""
        say(f"{run.status:<15} {run.id}{_word(run)}{_parent(run)}")

    def remark(self, text: str) -> None:
        """Print a remark."""
        say(text)

    def close(self) -> None:
        """Do nothing."""

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._began:6.1f} s"


class Coloured:
    """The same lines in colour, and a spinner while the run is in flight."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._began = time.monotonic()
        self._spinner: Any = None

    def state(self, run: Run) -> None:
        """Print a state; while it is in flight, keep a spinner under it."""
        self._stop()
        colour = _COLOURS[run.status]
        seconds = f"{time.monotonic() - self._began:6.1f} s  "
        status, name = f"{run.status:<15} ", run.id + _word(run)
        self._print((seconds, "dim"), (status, f"bold {colour}"), (name, "dim"))
        for line in brings(run):
            self._print((f"{'':8}  {line}", colour))
        if run.status.in_flight:
            self._spinner = self._console.status(f"[dim]{run.status}[/]", spinner="dots")
            self._spinner.start()

    def entry(self, run: Run) -> None:
        """Print a run of a list, on one line."""
        colour = _COLOURS[run.status]
        self._print((f"{run.status:<15} ", f"bold {colour}"), (run.id + _word(run), ""), (_parent(run), "dim"))

    def remark(self, text: str) -> None:
        """Print a remark."""
        self._print((text, "dim"))

    def _print(self, *parts: tuple[str, str]) -> None:
        """Print one line: its parts, each with a style."""
        from rich.text import Text

        self._console.print(Text.assemble(*((printable(text), style) for text, style in parts)))

    def close(self) -> None:
        """Stop the spinner."""
        self._stop()

    def _stop(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


def brings(run: Run) -> list[str]:
    """Return, a line each, what a state asks for or gives."""
    lines = [f"asks {action.name} {_short(action.arguments)}" for action in run.actions]
    if run.failure is not None:
        lines.append(f"failed: {run.failure.type}: {run.failure.message}")
    if run.output is not None:
        lines.append(f"answer: {_short(run.output)}")
    if run.usage is not None and not run.status.in_flight:
        lines.append(f"tokens: {run.usage}")
    return lines


def _word(run: Run) -> str:
    return f" ({run.vendor_status})" if run.vendor_status != run.status else ""


def _parent(run: Run) -> str:
    return f"  of {run.ref.parent}" if run.ref.parent else ""


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else codec.encode(value).decode()
    return text if len(text) <= 400 else f"{text[:400]}…"
