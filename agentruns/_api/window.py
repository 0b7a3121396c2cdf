"""
The permits of a rate limit: which are free, when the others come back, and how polls are spread over them.

A permit that was taken comes back *seconds* after its request was answered: `limiter` says why.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from agentruns._values.exchange import RateLimit

_LATE_SECONDS: Final = 0.05
"""A timer may go off so late, in a loop that is busy: that is made up for, and no longer idle time is."""


class Window:
    """Count the permits of `limit`; None is no limit: all may be sent, and nothing is counted. Times are the loop's."""

    __slots__ = ("_owed", "_returning", "free", "gap", "limit", "next_poll")

    def __init__(self, limit: RateLimit | None) -> None:
        self.limit = limit
        self.free = limit.count if limit else 0
        """May be less than zero: where a limit is new, and more is in flight than it allows."""
        self.gap = limit.seconds / limit.count if limit and limit.count else 0.0
        """The seconds between two polls, if nothing else is sent."""
        self.next_poll = 0.0
        self._returning: deque[float] = deque()  # when the permits of answered requests come free
        self._owed = 0  # permits that go as they come free

    # How many there are -----------------------------------------------------------------------------------------------

    def resize(self, change: int) -> None:
        """Have *change* permits more, or fewer as they come free; whatever was to go before stays."""
        self._owed = max(-change, 0)
        self._add(max(change, 0))

    def clear(self) -> None:
        """Have no permits, as if none had been used."""
        assert self.limit is not None
        self.limit = RateLimit(0, self.limit.seconds)
        self.free = self._owed = 0
        self._returning.clear()

    def limit_to(self, limit: RateLimit, in_use: int) -> None:
        """Have a limit where there was none, while so many requests are under way."""
        self.limit, self.free = RateLimit(0, limit.seconds), -in_use
        self._add(limit.count)

    def lift(self) -> None:
        """Have no limit any more."""
        self.limit, self.gap, self.next_poll, self.free, self._owed = None, 0.0, 0.0, 0, 0
        self._returning.clear()

    def grow(self, more: int) -> None:
        """Have *more* permits; those that were to go are the first to stay."""
        self._owed, more = max(self._owed - more, 0), max(more - self._owed, 0)
        self._add(more)

    def shrink(self, fewer: int) -> None:
        """Have so many *fewer* permits, as they come free."""
        self._owed += fewer

    def _add(self, change: int) -> None:
        assert self.limit is not None
        count, seconds = self.limit.count + change, self.limit.seconds
        self.limit, self.free = RateLimit(count, seconds), self.free + change
        self.gap = seconds / count if count else 0.0

    # Which are free ---------------------------------------------------------------------------------------------------

    def collect(self, now: float) -> None:
        """Take back the permits that have come free by now."""
        while self._returning and self._returning[0] <= now:
            self._returning.popleft()
            self.free += 1
        if self._owed and self.free:
            paid = min(self._owed, self.free)
            self._owed -= paid
            self._add(-paid)

    def free_at(self, kept: int) -> float:
        """Return the time from which on a permit is free beside *kept*, as far as is known, after `collect`."""
        missing = kept - self.free
        if missing < 0:
            return -math.inf
        return self._returning[missing] if missing < len(self._returning) else math.inf

    def used_at(self, now: float) -> float | None:
        """Return which part of the limit is taken at a time, from 0 to 1, None without a limit; in any thread."""
        limit, returning = self.limit, tuple(self._returning)
        if limit is None or not limit.count:
            return None
        free = self.free + sum(at <= now for at in returning)
        return min(max(1 - free / limit.count, 0.0), 1.0)

    # What is sent -----------------------------------------------------------------------------------------------------

    def take(self, now: float) -> None:
        """Take a permit. The next poll is one gap later: one that is late, in a busy loop, puts off none after it."""
        if self.limit is not None:
            self.free -= 1
            is_late = self.next_poll < now < self.next_poll + _LATE_SECONDS
            self.next_poll = (self.next_poll if is_late else max(self.next_poll, now)) + self.gap

    def hasten(self, now: float) -> None:
        """Have the polls to come make what is left last, however many calls came at once."""
        if self.limit is not None:
            self.next_poll = min(self.next_poll, now + self._share_of_rest(now, self.limit))

    def spare(self, now: float) -> None:
        """Have the next poll wait, if need be, so that what is left lasts until a permit comes back."""
        if self._returning and self.limit is not None:
            self.next_poll = max(self.next_poll, now + self._share_of_rest(now, self.limit))

    def _share_of_rest(self, now: float, limit: RateLimit) -> float:
        """Return the seconds between polls with which the free permits last until one comes back."""
        back = self._returning[0] if self._returning else now + limit.seconds
        return (back - now) / (self.free + 1)

    def put_back(self) -> None:
        """Give back the permit of a request that was not sent."""
        self.free += 1

    def answered(self, now: float) -> None:
        """Have the permit of a request that is over come back."""
        assert self.limit is not None
        self._returning.append(now + self.limit.seconds)

    @property
    def waits_for_one(self) -> bool:
        """Tell whether none is free, and one is known to come back."""
        return not self.free and len(self._returning) == 1
