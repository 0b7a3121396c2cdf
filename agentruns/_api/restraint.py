"""
What a 429 teaches: to send less at once, and by and by more again.

Of a limit that is known, a part is not used (`Slowdown`): others use it, or the vendor allows less. Where none is
known, one is learned (`Learning`): half of what was sent just before.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

from agentruns._values.exchange import RateLimit

from .window import Window

_SECOND: Final = 1.0
"""
The window of a learned limit, and the least one that counts for giving back.

Refusals within one are of requests that were sent before the first was heard.
"""

_DECREASE: Final = 0.5
"""Which part of a known limit is left after a refusal."""

_INCREASE: Final = 0.05
"""Which part of what was too much is given back in each window without a 429."""

_LEAST: Final = 1
"""Requests in a second, whatever the vendor answers: who sends none hears of no change."""

_LEAST_INCREASE: Final = 0.25

_QUIET_SECONDS: Final = 30.0
"""A learned limit is forgotten after so long without a 429 in which never more than half of it was used."""


class Restraint(Protocol):
    """What holds a window back, as long as 429 is remembered. Times are those of the loop."""

    def sent(self, now: float) -> None:
        """Note that a permit was taken."""
        ...

    def over(self) -> None:
        """Note that a request was answered, or was not sent or never will be answered."""
        ...

    def refused(self, now: float) -> None:
        """Note a 429: have less be sent."""
        ...

    def eased(self, now: float) -> RateLimit | None:
        """Give back what may be sent again by now, and return the limit that the window has."""
        ...

    def withheld(self, now: float) -> int:
        """Return how many permits of the window are not to be used."""
        ...


def restraint(window: Window) -> Restraint:
    """Return what will hold a window back, by whether it has a limit yet."""
    return Learning(window) if window.limit is None else Slowdown(window)


class Slowdown:
    """Withhold a part of a limit that is known: half of what was used, one permit at least is left."""

    __slots__ = ("_at", "_part", "_window")

    def __init__(self, window: Window) -> None:
        self._window = window
        self._part = 1.0  # that may be used, as it was at `_at`
        self._at = -math.inf

    def sent(self, now: float) -> None:
        """Note nothing: the limit says how many may be sent."""

    def over(self) -> None:
        """Note nothing: the window counts."""

    def refused(self, now: float) -> None:
        """Halve the part that is used."""
        limit = self._window.limit
        assert limit is not None
        if now - self._at >= _SECOND:
            self._part = max(self._part_at(now, limit) * _DECREASE, 1 / max(limit.count, 1))
            self._at = now

    def eased(self, now: float) -> RateLimit | None:  # noqa: ARG002 - what is withheld tells
        """Return the limit: what is given back is withheld no more."""
        return self._window.limit

    def withheld(self, now: float) -> int:
        """Return how many permits are not used; one at least is."""
        limit = self._window.limit
        if self._part == 1.0 or limit is None:
            return 0
        return limit.count - max(round(self._part_at(now, limit) * limit.count), 1) if limit.count else 0

    def _part_at(self, now: float, limit: RateLimit) -> float:
        """Return which part of the limit may be used, from above 0 to 1."""
        if self._part == 1.0:
            return 1.0
        windows = (now - self._at) / max(limit.seconds, _SECOND)
        part = min(self._part + _INCREASE * windows, 1.0)
        if part == 1.0:
            self._part = 1.0
        return part


class Learning:
    """
    Give a window a limit that had none: half of what was sent in the second before a 429, and by and by more.

    It grows for as long as the vendor is content, and is lifted once it has held nothing back for a while.
    """

    __slots__ = ("_at", "_before", "_count", "_full_at", "_grown", "_in_flight", "_now", "_second", "_step", "_window")

    def __init__(self, window: Window) -> None:
        self._window = window
        self._count: int | None = None  # how many requests may be sent in a second, None while nothing is known
        self._in_flight = 0
        self._second = -math.inf  # when that began in which `_now` were sent; `_before` in the one before
        self._now = self._before = 0
        self._at = self._full_at = -math.inf
        self._step = 0.0
        self._grown = 0

    def sent(self, now: float) -> None:
        """Count what is sent in a second, and note when more than half of the limit is used."""
        self._in_flight += 1
        if now >= self._second + _SECOND:
            self._before = self._now if now < self._second + 2 * _SECOND else 0
            self._second, self._now = now, 0
        self._now += 1
        limit = self._window.limit
        if limit is not None and 2 * self._window.free < limit.count:
            self._full_at = now

    def over(self) -> None:
        """Count what is under way."""
        self._in_flight -= 1

    def refused(self, now: float) -> None:
        """Have half as many sent, or, if there was no limit, half of what was; not again within a second."""
        if now < self._at + _SECOND:
            return
        before = self._count
        self._at, self._grown = now, 0
        most = max(self._sent_lately(now), self._in_flight) if before is None else before
        self._step = max(_INCREASE * most, _LEAST_INCREASE)
        self._count = max(most // 2, _LEAST)
        if self._window.limit is None:
            self._window.limit_to(RateLimit(self._count, _SECOND), self._in_flight)
        else:
            self._window.shrink(most - self._count)

    def eased(self, now: float) -> RateLimit | None:
        """Have the limit grow, or lift it."""
        if self._count is not None and now >= max(self._at, self._full_at) + _QUIET_SECONDS:
            self._count = None
            self._window.lift()
        elif self._count is not None:
            more = int(self._step * (now - self._at)) - self._grown
            self._grown += more
            self._count += more
            self._window.grow(more)
        return self._window.limit

    def withheld(self, now: float) -> int:  # noqa: ARG002 - the limit itself tells
        """Return none: the limit itself was made less."""
        return 0

    def _sent_lately(self, now: float) -> int:
        """Return how many requests were sent in the last second, by what two seconds tell."""
        age = (now - self._second) / _SECOND
        if age >= 1.0:
            return math.ceil(max(2.0 - age, 0.0) * self._now)
        return math.ceil(self._now + (1.0 - age) * self._before)
