"""How much less is sent after a 429: what is withheld doubles the gap at once, and is given back step by step."""

from __future__ import annotations

from typing import Final

from agentruns._values.exchange import RateLimit

_DECREASE: Final = 0.5
_INCREASE: Final = 0.05
"""Which part of the limit is given back in each window without a 429."""

_LEAST_SECONDS: Final = 1.0
"""Refusals that come sooner one after another are of requests that were sent before the first was heard."""


class Slowdown:
    """The part of a rate limit that is not used, since others use it or the vendor allows less."""

    __slots__ = ("_at", "_part")

    def __init__(self) -> None:
        self._part = 1.0
        self._at = float("-inf")

    def part(self, now: float, limit: RateLimit) -> float:
        """Return which part of the limit may be used, from above 0 to 1."""
        if self._part == 1.0:
            return 1.0
        windows = (now - self._at) / max(limit.seconds, _LEAST_SECONDS)
        part = min(self._part + _INCREASE * windows, 1.0)
        if part == 1.0:
            self._part = 1.0
        return part

    def slow_down(self, now: float, limit: RateLimit) -> None:
        """Note a refusal."""
        if now - self._at >= _LEAST_SECONDS:
            self._part = max(self.part(now, limit) * _DECREASE, 1 / max(limit.count, 1))
            self._at = now

    def withheld(self, now: float, limit: RateLimit) -> int:
        """Return how many permits of the limit are not used; one at least is."""
        if self._part == 1.0:
            return 0
        return limit.count - max(round(self.part(now, limit) * limit.count), 1) if limit.count else 0
