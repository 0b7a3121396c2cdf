"""What the poller tells of a run, and to whom: listeners, who wait for news, and onlookers, who do not hurry."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from agentruns._values.news import Novelty
from agentruns._values.run import Run

Change: TypeAlias = tuple[Run | None, Novelty]
"""A state that was known, None for the first, and what the next one is beside it: found once for all who listen."""


class Listener(Protocol):
    """Whoever waits for news of a run; it is called, and does not call back."""

    @property
    def look_by(self) -> float:
        """Return the time of the loop by which it wants the run to be read at the latest."""
        ...

    @property
    def ends_at(self) -> float:
        """Return the time of the loop at which it waits no longer; infinite if it sets no end."""
        ...

    @property
    def patience(self) -> float:
        """Return how many seconds of lost contact it bears."""
        ...

    @property
    def patient_since(self) -> float:
        """Return the time of the loop at which it gave up last, minus infinity if it never did."""
        ...

    def on_state(self, run: Run, now: float, change: Change | None) -> bool:
        """
        Take note of an answer; return whether it ends the waiting.

        *change* is what the state is beside the one before, None where that depends on what was answered.
        """
        ...

    def on_deadline(self) -> None:
        """End the waiting: its deadline has come."""
        ...

    def on_error(self, error: Exception) -> None:
        """Take note that the run could not be read, and that no patience helps."""
        ...


class Onlooker(Protocol):
    """Whoever wants a run that waits for an answer to be looked at now and then: it may go on without one."""

    def on_state(self, run: Run, sent: float) -> bool:
        """Take note of what a request of the time *sent* has shown; return whether it looks no more."""
        ...

    def on_followed(self, followed: Run, sent: float) -> bool:
        """Take note of the run that came of an answer from elsewhere; return whether it looks no more."""
        ...
