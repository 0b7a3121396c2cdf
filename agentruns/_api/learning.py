"""
A rate limit that is learned from 429, where none is known: half of what was sent just before, and by and by more.

It grows for as long as the vendor is content, and is forgotten once it has held nothing back for a while.
"""

from __future__ import annotations

import math
from typing import Final

_LEAST: Final = 1
"""Requests in a second, whatever the vendor answers: who sends none hears of no change."""

_SECOND: Final = 1.0
"""The window of a learned limit. Refusals within one are of requests that were sent before the first was heard."""

_INCREASE: Final = 0.05
"""Which part of what was too much is added in each second without a 429."""

_LEAST_INCREASE: Final = 0.25

_QUIET_SECONDS: Final = 30.0
"""A limit is forgotten after so long without a 429 in which never more than half of it was used."""


class Learning:
    """Count what is sent, and say how much may be. Times are those of the loop."""

    __slots__ = ("_at", "_before", "_full_at", "_grown", "_now", "_second", "_step", "count", "in_flight")

    def __init__(self) -> None:
        self.count: int | None = None
        """How many requests may be sent in a second, None while nothing is known."""
        self.in_flight = 0
        self._second = -math.inf  # when that began in which `_now` were sent; `_before` in the one before
        self._now = self._before = 0
        self._at = self._full_at = -math.inf
        self._step = 0.0
        self._grown = 0

    def sent(self, now: float) -> None:
        """Note a request that is sent."""
        self.in_flight += 1
        if now >= self._second + _SECOND:
            self._before = self._now if now < self._second + 2 * _SECOND else 0
            self._second, self._now = now, 0
        self._now += 1

    def is_full(self, now: float) -> None:
        """Note that more than half of the limit is used."""
        self._full_at = now

    def slow_down(self, now: float) -> int | None:
        """Note a refusal; return how many fewer may be sent, or, if there was no limit, how many; None for no news."""
        if now < self._at + _SECOND:
            return None
        before = self.count
        self._at, self._grown = now, 0
        most = max(self._sent_lately(now), self.in_flight) if before is None else before
        self._step = max(_INCREASE * most, _LEAST_INCREASE)
        self.count = max(most // 2, _LEAST)
        return self.count if before is None else before - self.count

    def grow(self, now: float) -> int | None:
        """Return how many more may be sent by now than when this was asked last, None for as many as may be."""
        if self.count is None:
            return None
        if now >= max(self._at, self._full_at) + _QUIET_SECONDS:
            self.count = None
            return None
        more = int(self._step * (now - self._at)) - self._grown
        self._grown += more
        self.count += more
        return more

    def _sent_lately(self, now: float) -> int:
        """Return how many requests were sent in the last second, by what two seconds tell."""
        age = (now - self._second) / _SECOND
        if age >= 1.0:
            return math.ceil(max(2.0 - age, 0.0) * self._now)
        return math.ceil(self._now + (1.0 - age) * self._before)
