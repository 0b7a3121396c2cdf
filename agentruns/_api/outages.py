"""Whether the vendor answers at all: since when it does not, and for how long it did not before."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from typing import Final

from agentruns.errors import APIError, TransportError

GATEWAY: Final = frozenset({502, 503, 504})
"""What something in front of the vendor says when it cannot reach it."""

PROBE_SECONDS: Final = 60.0
"""Those that are at it find out when the vendor answers again; when none has tried for so long, a start does."""


class Outages:
    """The times without an answer to anything that one client sent; *changed* is called when they begin and end."""

    __slots__ = ("_changed", "_seconds", "_tried_at", "error", "since")

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._seconds = 0.0
        self._tried_at = -math.inf
        self.since: float | None = None
        """The time of the loop since which no request has been answered, None if the last one was."""
        self.error: Exception | None = None

    def seconds(self, now: float) -> float:
        """Return for how many seconds there was no contact so far, all together."""
        return self._seconds + (0.0 if self.since is None else now - self.since)

    def ends_at(self, patience: float | None) -> float:
        """Return when lost contact has been borne with for *patience* seconds; infinite if it is not lost."""
        return math.inf if self.since is None or patience is None else self.since + patience

    @property
    def probe_at(self) -> float:
        """Return when a start is to find out whether the vendor answers again, if nobody else has tried before."""
        return -math.inf if self.since is None else self._tried_at + PROBE_SECONDS

    def tried(self, now: float) -> None:
        """Note that somebody tries, or has tried, to reach the vendor."""
        self._tried_at = now

    def answered(self, now: float) -> None:
        """Note that the vendor has answered."""
        if self.since is not None:
            self._seconds += now - self.since
            self.since = self.error = None
            self._changed()

    def failed(self, error: Exception, now: float) -> None:
        """Note what a request came to: no answer, or one that is none of the vendor's."""
        lost = isinstance(error, TransportError) and not error.final
        if lost or (isinstance(error, APIError) and error.status in GATEWAY):
            self.tried(now)
            self.error = copy(error)  # one that is raised holds, by its traceback, whatever it is raised to
            if self.since is None:
                self.since = now
                self._changed()
        elif isinstance(error, APIError) and self.since is not None:
            self.answered(now)
