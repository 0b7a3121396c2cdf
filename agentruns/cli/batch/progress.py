"""How far a batch has come: a live table on a terminal, plain lines in a pipe, JSON lines, or nothing."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, Protocol, TextIO

from attrs import frozen

from agentruns._polling.stats import Stats
from agentruns._values import codec
from agentruns._values.printable import printable
from agentruns.cli.printing import complain, say, say_json

_WINDOW: Final = 60.0
"""Seconds over which throughput is taken."""

_SHORT: Final = 2.0
"""Seconds of lost contact that nobody is told of."""

_SHOWN: Final = 5
_BAR: Final = 60
_TOLD: Final = 20
_COLOURS: Final = {
    "completed": "green",
    "failed": "red",
    "error": "red",
    "invalid": "red",
    "requires_action": "magenta",
    "unfinished": "yellow",
    "unstarted": "yellow",
}


@frozen
class Picture:
    """
    A moment of a batch.

    `done` counts what has ended in this call by status, `flying` what is in flight by state, `before` what earlier
    calls have done by status; `total` is how many rows there are, None while that is not known. `rate` is how many runs
    have ended per second in this call, None if none has of late. `left` is how many seconds it will take yet, None
    where nothing tells: for the rows to come at that rate, and then for the runs that are in flight, as long as such
    runs have taken so far. `stats` are the client's.
    """

    seconds: float
    done: Mapping[str, int]
    flying: Mapping[str, int]
    before: Mapping[str, int]
    total: int | None
    rate: float | None
    left: float | None
    stats: Stats

    @property
    def ended(self) -> int:
        """Return how many rows are done with, by this call and by earlier ones."""
        return sum(self.before.values()) + sum(self.done.values())

    @property
    def before_words(self) -> str:
        """Return how many rows earlier calls have ended, and how many of them did not complete."""
        others = [f"{count} {status}" for status, count in sorted(self.before.items()) if status != "completed"]
        return " ".join([f"{sum(self.before.values())}", *([f"({', '.join(others)})"] if others else [])])

    def words(self) -> str:
        """Return it on one line."""
        of = "" if self.total is None else f" of {self.total}"
        parts = [f"{self.ended}{of} rows", *(f"{count} {status}" for status, count in self.done.items())]
        parts += [f"{self.before_words} before"] if self.before else []
        parts += [f"{sum(self.flying.values())} in flight"] if self.flying else []
        parts += [f"{plain(self.rate)}/s"] if self.rate else []
        parts += [f"about {duration(self.left)} left"] if self.left else []
        parts += self.waits()
        parts += [f"request budget {self.stats.budget:.0%} used"] if self.stats.budget else []
        return ", ".join(parts)

    def waits(self) -> list[str]:
        """Return what it waits for besides runs."""
        stats = self.stats
        said = [f"no contact for {duration(stats.lost_for)}, waiting"] if stats.lost_for >= _SHORT else []
        if stats.waiting_for_slot:
            said.append(f"{stats.waiting_for_slot} waiting for a slot")
        return said


class Tally:
    """What a batch has come to so far; *clock* tells seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.done: Counter[str] = Counter()
        self.before: Counter[str] = Counter()
        self.total: int | None = None
        self.stopped = False
        self._clock = clock
        self._began = clock()
        self._run = 0
        self._ends: deque[tuple[float, int]] = deque([(self._began, 0)])

    def add(self, status: str, *, run: bool = True) -> None:
        """Count an item that ended; with *run* False there was no run to wait for, so it says nothing of throughput."""
        self.done[status] += 1
        self._run += run

    def picture(self, flying: Mapping[str, int], stats: Stats) -> Picture:
        """Return where it stands now."""
        now, ended = self._clock(), self.done.total()
        self._ends.append((now, self._run))
        while len(self._ends) > 2 and self._ends[1][0] <= now - _WINDOW:
            self._ends.popleft()
        since, before = self._ends[0]
        rate = (self._run - before) / (now - since) if now > since and self._run > before else None
        left = self._left(sum(flying.values()), ended, rate, stats.seconds_left, lost=stats.lost_for >= _SHORT)
        return Picture(
            now - self._began, dict(self.done), dict(flying), dict(self.before), self.total, rate, left, stats
        )

    def _left(self, flying: int, ended: int, rate: float | None, rest: float | None, *, lost: bool) -> float | None:
        """Return the seconds until the end; the runs in flight are likely to be over after *rest*, if that is known."""
        if lost:
            return None  # as long as nothing is answered, nothing comes to an end
        if self.stopped:
            undone = flying
        elif self.total is None:
            return None
        else:
            undone = max(self.total - self.before.total() - ended, 0)
        to_come = max(undone - flying, 0)
        if undone and rest is not None:
            return rest if not to_come else to_come / rate + rest if rate else None
        return undone / rate if rate else None


class View(Protocol):
    """Where progress is shown; `every` is how many seconds lie between two pictures."""

    every: float

    def show(self, picture: Picture) -> None:
        """Show where it stands."""
        ...

    def trouble(self, text: str) -> None:
        """Report an item that did not complete."""
        ...

    def say(self, text: str) -> None:
        """Say something that must be seen."""
        ...

    def close(self, picture: Picture) -> None:
        """Show where it ended."""
        ...


def choose(*, json: bool, quiet: bool, out: TextIO | None = None) -> View:
    """Return what the options ask for, on *out* or stdout: a live table where rich and a terminal are, else lines."""
    out = out or sys.stdout
    if quiet:
        return Quiet()
    if json:
        return JsonLines(out)
    if out.isatty():
        with contextlib.suppress(ImportError):
            from rich.console import Console

            if not Console(file=out).is_dumb_terminal:  # which shows nothing that is drawn in place
                return Live(out)
    return Plain(out)


class _Aside:
    """Says on stderr what must be seen."""

    def say(self, text: str) -> None:
        """Print it."""
        complain(text)


class Quiet(_Aside):
    """Nothing but what must be seen."""

    every = 3600.0

    def show(self, picture: Picture) -> None:
        """Do nothing."""

    def trouble(self, text: str) -> None:
        """Do nothing."""

    def close(self, picture: Picture) -> None:
        """Do nothing."""


class Plain(_Aside):
    """A line now and then; of items that did not complete, the first few are told."""

    every = 5.0

    def __init__(self, out: TextIO) -> None:
        self._told = 0
        self._out = out

    def show(self, picture: Picture) -> None:
        """Print where it stands."""
        say(f"{picture.seconds:6.1f} s  {picture.words()}", to=self._out)

    def trouble(self, text: str) -> None:
        """Print it, unless there were many."""
        self._told += 1
        if self._told <= _TOLD:
            say(f"{'':8}  {text}", to=self._out)
        elif self._told == _TOLD + 1:
            say(f"{'':8}  further ones stand in the output only", to=self._out)

    def close(self, picture: Picture) -> None:
        """Print where it ended."""
        self.show(picture)


class JsonLines(_Aside):
    """One JSON object now and then."""

    every = 1.0

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, picture: Picture) -> None:
        """Print where it stands."""
        say_json(codec.encode(_plain(picture)).decode(), to=self._out)

    def trouble(self, text: str) -> None:
        """Do nothing: it stands in the output."""

    def close(self, picture: Picture) -> None:
        """Print where it ended."""
        self.show(picture)


class Live:
    """A table that is redrawn in place, with the latest problems below it."""

    every = 0.25

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live as Screen

        self._troubles: deque[str] = deque(maxlen=_SHOWN)
        self._screen = Screen(console=Console(file=out, highlight=False), auto_refresh=False)
        self._screen.start()

    def show(self, picture: Picture) -> None:
        """Draw where it stands."""
        self._screen.update(self._drawn(picture), refresh=True)

    def trouble(self, text: str) -> None:
        """Keep it for the next drawing."""
        self._troubles.append(text)

    def say(self, text: str) -> None:
        """Print it above the table."""
        from rich.text import Text

        self._screen.console.print(Text(printable(text)))

    def close(self, picture: Picture) -> None:
        """Draw where it ended, and leave the terminal as it was."""
        self.show(picture)
        self._screen.stop()

    def _drawn(self, picture: Picture) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        of = "" if picture.total is None else f" of {picture.total}"
        table.add_row("rows", f"{picture.ended}{of}")
        if picture.before:
            table.add_row("before", picture.before_words, style="dim")
        for status, count in sorted(picture.done.items()):
            table.add_row(status, f"{count}", style=_COLOURS.get(status, ""))
        for state, count in sorted(picture.flying.items()):
            table.add_row(state, f"{count} in flight", style="blue")
        table.add_row("throughput", "-" if picture.rate is None else f"{plain(picture.rate)} a second")
        table.add_row("time", f"{duration(picture.seconds)}, {_left(picture)}")
        for waits in picture.waits():
            table.add_row("", waits, style="yellow")
        used = f"{picture.stats.budget:.0%} of the budget used, " if picture.stats.budget else ""
        table.add_row("requests", f"{used}{picture.stats.polls} polls")
        width = max(min(_BAR, self._screen.console.width - 2), 1)
        bar = Table.grid()  # a bar by itself ends no line
        bar.add_row(ProgressBar(total=picture.total or 1, completed=picture.ended if picture.total else 0, width=width))
        troubles = [Text(printable(text), style="red", overflow="ellipsis", no_wrap=True) for text in self._troubles]
        return Group(bar, table, *troubles)


def _left(picture: Picture) -> str:
    return "the end cannot be told yet" if picture.left is None else f"about {duration(picture.left)} left"


def _plain(picture: Picture) -> dict[str, Any]:
    stats = picture.stats
    return {
        "seconds": round(picture.seconds, 3),
        "done": picture.done,
        "in_flight": picture.flying,
        "before": sum(picture.before.values()),
        "total": picture.total,
        "rate": picture.rate,
        "left": picture.left,
        "budget": stats.budget,
        "no_contact": round(stats.lost_for, 3),
        "waiting_for_slot": stats.waiting_for_slot,
        "polls": stats.polls,
    }


def plain(value: float, digits: int = 3) -> str:
    """Return a number as people write it, to so many digits, and never with an exponent."""
    return f"{Decimal(f'{value:.{digits}g}'):f}"


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, hours = round(seconds / 60), round(seconds / 3600, 1)
    return f"{minutes} min" if minutes < 100 else f"{hours:g} h"
