"""Time as the emulator sees it: a callable of monotonic seconds, real or moved by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], float]
"""Anything that returns monotonic seconds, such as `time.monotonic` or a `ManualClock`."""


class ManualClock:
    """Stand still until told to advance, so that tests need no sleeping."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._lock = threading.Lock()

    def __call__(self) -> float:
        """Return the present second."""
        return self._now

    def __repr__(self) -> str:
        return f"ManualClock({self._now!r})"

    def advance(self, seconds: float) -> None:
        """Move the clock forward; it never goes back."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back: advance({seconds!r})")
        with self._lock:
            self._now += seconds
