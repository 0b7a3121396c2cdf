"""The clients whose polls share a rate limiter: whom to tell that polls may go, and who has waited longest."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

HEAD_START: Final = 1 / 64
"""Seconds, at most: by so much a client that has waited for a poll comes before those that have not."""


class Pollers:
    """Those that have subscribed, and those of them whose polls had to wait."""

    __slots__ = ("_overtaken", "_subscribers")

    def __init__(self) -> None:
        self._subscribers: dict[Hashable, tuple[Callable[[], None], Callable[[], bool]]] = {}
        self._overtaken: dict[Hashable, None] = {}  # the longest first

    def add(self, client: Hashable, on_change: Callable[[], None], has_due: Callable[[], bool]) -> None:
        """Tell a client from now on that polls may go, and ask it whether some are due."""
        self._subscribers[client] = on_change, has_due

    def remove(self, client: Hashable) -> None:
        """Tell it and ask it no more."""
        self._subscribers.pop(client, None)
        self._overtaken.pop(client, None)

    @property
    def have_due(self) -> bool:
        """Tell whether polls of any client are due."""
        return any(has_due() for _, has_due in self._subscribers.values())

    def notify(self) -> None:
        """Tell all that polls may go."""
        for on_change, _ in tuple(self._subscribers.values()):
            on_change()

    def handicap(self, client: Hashable, gap: float) -> float:
        """Return the seconds for which the polls of a client leave it to those of one that has waited longer."""
        overtaken = self._overtaken
        return min(gap, HEAD_START) if overtaken and next(iter(overtaken)) is not client else 0.0

    def wait(self, client: Hashable) -> None:
        """Note that the next poll of a client has to wait."""
        if len(self._subscribers) > 1:
            self._overtaken.setdefault(client)

    def go(self, client: Hashable) -> None:
        """Note that a client has sent a poll."""
        overtaken = self._overtaken
        if overtaken:
            del overtaken[next(iter(overtaken))]  # whether this is the first or comes before it: it had its chance
            overtaken.pop(client, None)
