"""How far a batch has come, as a value and as a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from attrs import field, frozen

from agentruns import _extras as extras


@frozen
class BatchProgress:
    """
    A moment of a batch.

    `taken` counts the items that were taken, `in_flight` those of them that are not over, and `ended` those whose
    outcome was handed out, by a word: completed, failed, requires_action, unfinished (the timeout has passed),
    unstarted (the vendor refuses every start) or error.
    """

    taken: int
    in_flight: int
    ended: Mapping[str, int] = field(factory=dict)

    @property
    def done(self) -> int:
        """Return how many outcomes were handed out."""
        return sum(self.ended.values())


@contextmanager
def progress_bar(total: int | None = None, *, file: TextIO | None = None) -> Iterator[Callable[[BatchProgress], None]]:
    """
    Show a bar on the terminal within this context; what it yields is for `on_progress` of `client.batch`.

    *total* is how many items there are; without it the bar has no end, and no time that is left. *file* is where it is
    shown, by default stdout. Raise `ConfigurationError` where the extra `cli` is not installed.
    """
    with extras.require("cli", "a bar needs"):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
    with Progress(*columns, console=Console(file=file)) as shown:
        task = shown.add_task("", total=total)

        def show(progress: BatchProgress) -> None:
            words = [f"{count} {word}" for word, count in sorted(progress.ended.items()) if word != "completed"]
            description = ", ".join([*words, f"{progress.in_flight} in flight"])
            shown.update(task, completed=progress.done, description=description)

        yield show
