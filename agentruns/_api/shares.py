"""
How starts and polls share what a rate limit leaves, once both want more than there is.

A run that is started has to be read before it is of use, so each start owes polls `POLLS_PER_START` requests: as long
as polls are due and have not had them, the next start waits. That bounds what is in flight by what can be read to its
end. In a round of polls that is so long, three in four find a run over, whatever runs take: fewer polls would find
none at work, more would be spent on asking again.

What a run needs besides is learned: a new conversation, a look, the start itself, answers. Where the window of the
limit is long, starts are spread by that, so that the window still has something when the runs are to be read.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from agentruns._values.exchange import RateLimit

POLLS_PER_START: Final = 4 / 3

PROMISE_SECONDS: Final = 1.0
"""How long a permit is kept for the first request of a start that was let through."""

_SHORT_SECONDS: Final = 2.0
"""Polls can wait for the end of a window of this length: nothing of it is reserved for them."""

_RESERVED_PART: Final = 0.4

_BURST_PART: Final = 0.6
"""Which part of a long window starts may use at once, with what reads them; further ones are spread."""

_UNKNOWN_CALLS: Final = 3.0
"""How many calls a run is taken to need until the first has ended: a new conversation, a look at it, the start."""

_MOST_CALLS: Final = 6.0
"""How many at the most: others that are counted are of no start."""

_LATELY: Final = 20
"""Of so many starts it is counted how many calls there were."""


class Shares:
    """Count what polls have coming, and the permits that are promised to starts. Times are those of the loop."""

    __slots__ = ("_calls", "_calls_each", "_full_at", "_owed", "_promises", "_starts", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        """Starts that were let through and have not left."""
        self._owed = 0.0
        self._promises: deque[float] = deque()  # until when each holds
        self._full_at = -math.inf  # when a whole burst of starts may be made again
        self._calls = self._starts = 0.0
        self._calls_each = _UNKNOWN_CALLS

    @property
    def polls_owed(self) -> bool:
        """Tell whether polls come before starts where both are to be sent."""
        return self._owed >= 1.0

    def promised(self, now: float) -> int:
        """Return how many permits are kept for starts."""
        promises = self._promises
        while promises and promises[0] <= now:
            promises.popleft()
        return len(promises)

    def promise_ends(self) -> float:
        """Return when the first promise ends; `promised` is not zero."""
        return self._promises[0]

    def began(self, now: float, limit: RateLimit | None) -> None:
        """Note that a start was let through."""
        if limit is not None and limit.count:
            self._full_at = max(self._full_at, now) + self._spread(limit)
        self._starts += 1.0
        self.in_flight += 1
        self._owed += POLLS_PER_START
        self._promises.append(now + PROMISE_SECONDS)

    def left(self) -> None:
        """Note that a run has ended, or is followed no more."""
        self.in_flight -= 1
        self._calls_each = min(max(self._calls / self._starts, 1.0), _MOST_CALLS)
        if self._starts > _LATELY:
            self._calls, self._starts = self._calls / 2, self._starts / 2
        self._owed = min(self._owed, POLLS_PER_START * self.in_flight)
        if len(self._promises) > self.in_flight:
            self._promises.popleft()

    def called(self) -> None:
        """Note that a call was sent: it may be the one for which a permit was kept."""
        self._calls += 1.0
        if self._promises:
            self._promises.popleft()

    def polled(self) -> None:
        """Note that a poll was sent."""
        self._owed = self._owed - 1.0 if self._owed > 1.0 else 0.0

    def spread_at(self, limit: RateLimit) -> float:
        """Return when the next start may be made, so that those of a long window do not come as one burst."""
        if limit.seconds <= _SHORT_SECONDS or not limit.count:
            return -math.inf
        return self._full_at - max(_BURST_PART * limit.seconds - self._spread(limit), 0.0)

    def reserve(self, limit: RateLimit) -> int:
        """Return how many permits of a long window starts leave to the polls to come."""
        if limit.seconds <= _SHORT_SECONDS:
            return 0
        return int(min(POLLS_PER_START * self.in_flight, _RESERVED_PART * limit.count))

    def _spread(self, limit: RateLimit) -> float:
        """Return the seconds between starts with which what they need, and what reads them, is just served."""
        return (self._calls_each + POLLS_PER_START) * limit.seconds / limit.count
