"""States of a run on a terminal, in a pipe, or as JSON lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from agentruns._values import codec
from agentruns._values.run import Run, RunStatus

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
    if sys.stdout.isatty():
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
        print(f"agentruns: {self.format(record)}", file=sys.stderr, flush=True)


class JsonLines:
    """One JSON object per state, as `Run.from_json` reads it; remarks go to stderr."""

    def state(self, run: Run) -> None:
        """Print a state."""
        print(run.to_json(), flush=True)

    def entry(self, run: Run) -> None:
        """Print a run of a list."""
        self.state(run)

    def remark(self, text: str) -> None:
        """Print a remark where it does not disturb the lines."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Do nothing."""


class Plain:
    """One line per fact, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def state(self, run: Run) -> None:
        """Print a state and what it brings."""
        print(f"{self._seconds()}  {run.status:<15} {run.id}{_word(run)}", flush=True)
        for line in brings(run):
            print(f"{'':8}  {line}", flush=True)

    def entry(self, run: Run) -> None:
        """Print a run of a list, on one line."""
        print(f"{run.status:<15} {run.id}{_word(run)}{_parent(run)}", flush=True)

    def remark(self, text: str) -> None:
        """Print a remark."""
        print(text, flush=True)

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
        from rich.markup import escape

        self._stop()
        colour = _COLOURS[run.status]
        seconds = f"{time.monotonic() - self._began:6.1f} s"
        name = escape(run.id + _word(run))
        self._console.print(f"[dim]{seconds}[/]  [bold {colour}]{run.status:<15}[/] [dim]{name}[/]")
        for line in brings(run):
            self._console.print(f"{'':8}  {escape(line)}", style=colour)
        if run.status.in_flight:
            self._spinner = self._console.status(f"[dim]{run.status}[/]", spinner="dots")
            self._spinner.start()

    def entry(self, run: Run) -> None:
        """Print a run of a list, on one line."""
        from rich.markup import escape

        name, parent = escape(run.id + _word(run)), escape(_parent(run))
        self._console.print(f"[bold {_COLOURS[run.status]}]{run.status:<15}[/] {name}[dim]{parent}[/]")

    def remark(self, text: str) -> None:
        """Print a remark."""
        from rich.markup import escape

        self._console.print(f"[dim]{escape(text)}[/]")

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
