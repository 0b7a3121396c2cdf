"""
A budget of requests: when the next one may be sent, whoever sends it.

A limit of *count* requests within *seconds* holds in any window of that length, as the vendor's server sees it: a place
is taken when a request is sent and comes free *seconds* after its answer. The server saw the request somewhere between
the two, so no delay on the way can push two requests of one place into one window.

Calls (starts, answers, reads that a user asked for) go before polls, in the order of asking, and may use up what there
is. Polls take what is left, evenly spaced, so that no window holds a burst of them. While the vendor asks for rest
(`Retry-After` on 429 or 503), nothing is sent.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import Final

from agentruns._values.exchange import RateLimit
from agentruns.errors import AgentRunsError

LONGEST_REST: Final = 3600.0


def rate_limit(rate: float) -> RateLimit:
    """Return the limit that *rate* requests per second are: whole requests in whole seconds where there are such."""
    for seconds in range(1, 61):
        count = round(rate * seconds)
        if count and math.isclose(rate * seconds, count, rel_tol=1e-9):
            return RateLimit(count, float(seconds))
    seconds_ = max(60.0, 1 / rate)
    return RateLimit(max(int(rate * seconds_), 1), seconds_)


class RateLimiter:
    """Let requests through; `None` as *limit* lets all through that no rest holds back."""

    def __init__(self, limit: RateLimit | None) -> None:
        self.limit = limit
        self.on_change: Callable[[], None] = lambda: None
        self._free = limit.count if limit else 0
        self._returning: deque[float] = deque()  # when the places of answered requests come free
        self._gap = limit.seconds / limit.count if limit and limit.count else 0.0
        self._next_poll = 0.0
        self._rest_until = 0.0
        self._rest_because: Exception | None = None
        self._line: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._until = math.inf
        self._owed = 0

    @property
    def used(self) -> float:
        """Return which part of the limit is taken, from 0 to 1."""
        if self.limit is None:
            return 0.0
        self._collect(asyncio.get_running_loop().time())
        return 1 - self._free / self.limit.count if self.limit.count else 0.0

    # Calls ------------------------------------------------------------------------------------------------------------

    async def enter(self, longest: float = math.inf) -> None:
        """
        Wait until a call may be sent, and take its place; `leave` gives it back.

        While the vendor asks for more than *longest* seconds of rest, raise what it answered last.
        """
        if self._closed:
            raise AgentRunsError("this client is closed; open another with `async with connect(...)`")
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._rest_because is not None and self._rest_until - now > longest:
            raise copy(self._rest_because)  # one that is raised holds, by its traceback, whoever it is raised to
        if not self._line and self._wait(now) <= 0:
            self._take(now)
            return
        turn = loop.create_future()
        self._line.append(turn)
        self._arm(loop, now)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None and self.limit is not None:
                self._free += 1  # its turn came in the moment in which it was given up
                self._go_on()
            raise

    async def rested(self, longest: float = math.inf) -> None:
        """
        Wait until the vendor has had the rest that it asked for after this request took its place.

        Where that is more than *longest* seconds, raise what it answered last.
        """
        loop = asyncio.get_running_loop()
        while self._rest_because is not None and (left := self._rest_until - loop.time()) > 0:
            if left > longest:
                raise copy(self._rest_because)
            await asyncio.sleep(left)

    def leave(self) -> None:
        """Give back the place of a request that was answered, or never will be."""
        if self.limit is not None:
            self._returning.append(asyncio.get_running_loop().time() + self.limit.seconds)
            if self._line and self._timer is None:
                self._go_on()
            elif not self._free and len(self._returning) == 1:
                self.on_change()

    def close(self) -> None:
        """Let nothing through any more; who waits is told."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for turn in self._line:
            if not turn.done():
                turn.set_exception(AgentRunsError("the client was closed while a request waited for its turn"))
        self._line.clear()

    # Polls ------------------------------------------------------------------------------------------------------------

    def room(self, now: float) -> float:
        """Return the seconds until a poll may be sent; infinite while that depends on an answer."""
        if self._line:
            return math.inf  # `on_change` tells when the last call has gone
        return max(self._wait(now), self._next_poll - now, 0.0)

    def take(self, now: float) -> None:
        """Take the place of a poll, for which there is room; `leave` gives it back."""
        self._take(now)

    # The vendor's wish ------------------------------------------------------------------------------------------------

    def rest(self, seconds: float, because: Exception) -> None:
        """Send nothing for *seconds*, an hour at the most: whoever wishes for more is looked at again after it."""
        until = asyncio.get_running_loop().time() + min(seconds, LONGEST_REST)
        if until > self._rest_until:
            self._rest_until, self._rest_because = until, because

    # A limit that others share ----------------------------------------------------------------------------------------

    def resize(self, change: int, until: float = math.inf) -> None:
        """
        Have *change* places more, or fewer as they come free: then they may be used elsewhere. `limit` tells how many.

        Nothing is sent from the time *until* of the loop on, unless this is called again: by then others may have all.
        """
        self._until = until
        self._owed = max(-change, 0)
        self._add(max(change, 0))
        self._collect(asyncio.get_running_loop().time())
        self._go_on()

    def _add(self, change: int) -> None:
        assert self.limit is not None
        count, seconds = self.limit.count + change, self.limit.seconds
        self.limit, self._free = RateLimit(count, seconds), self._free + change
        self._gap = seconds / count if count else 0.0

    # Inside -----------------------------------------------------------------------------------------------------------

    def _wait(self, now: float) -> float:
        """Return the seconds until the next place is free; none are left if it is zero or less."""
        return self._free_at(now) - now

    def _free_at(self, now: float) -> float:
        """Return the time of the loop from which on a place is free."""
        if self._rest_until <= now:
            self._rest_because = None
        if self.limit is None:
            return self._rest_until
        self._collect(now)
        if now >= self._until:
            return math.inf
        if self._free:
            return self._rest_until
        return max(self._rest_until, self._returning[0]) if self._returning else math.inf

    def _collect(self, now: float) -> None:
        while self._returning and self._returning[0] <= now:
            self._returning.popleft()
            self._free += 1
        if self._owed and self._free:
            paid = min(self._owed, self._free)
            self._owed -= paid
            self._add(-paid)

    def _take(self, now: float) -> None:
        if self.limit is not None:
            self._free -= 1
            self._next_poll = max(self._next_poll, now) + self._gap

    def _arm(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        at = self._free_at(now)  # not so many seconds from now: rounded down, they would have this come round for ever
        if self._timer is None and at < math.inf:
            self._timer = loop.call_at(at, self._go_on)

    def _go_on(self) -> None:
        """Let those through whose turn it is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._line:
            if self._line[0].done():  # given up
                self._line.popleft()
            elif self._wait(now) <= 0:
                self._take(now)
                self._line.popleft().set_result(None)
            else:
                self._arm(loop, now)
                return
        self.on_change()
