"""
When the next request may be sent, whoever sends it.

A limit of *count* requests within *seconds* holds in any window of that length, as the vendor's server sees it: a
permit is acquired when a request is sent and comes free *seconds* after its answer. The server saw the request
somewhere between the two, so no delay on the way can push two requests of one permit into one window.

Calls (requests of what has begun: answers, the further requests of a start, reads that a user asked for) go before all
else, in the order of asking, and may use up what there is. Polls take what is left, evenly spaced, so that no window
holds a burst of them. New starts are let through one by one, when a permit is there for their first request; where
polls are due, too, both have a share (`shares`). While a vendor asks for a pause (`Retry-After` on 429 or 503), nothing
is sent to it. When it answers 429, less is sent (`Permits.slow_down`), and then by and by more again; where no limit
is known, one is learned so.

Several clients can share one limiter, of one vendor or of several. Each has `Permits` of its own: closing them refuses
what this client still waits for, and nothing else.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from copy import copy
from itertools import count as numbers
from typing import Final, NamedTuple

from agentruns._values.exchange import RateLimit
from agentruns.errors import AgentRunsError

from .channel import IS_CLOSED
from .learning import Learning
from .shares import Shares
from .slowdown import Slowdown

LONGEST_PAUSE: Final = 3600.0
"""Seconds: a vendor that asks for more is asked again after this."""

HEAD_START: Final = 1 / 64
"""Seconds, at most: by so much a client that has waited for a poll comes before those that have not."""

_LATE_SECONDS: Final = 0.05
"""A timer may go off so late, in a loop that is busy: that is made up for, and no longer idle time is."""


def rate_limit(rate: float) -> RateLimit:
    """Return the limit that *rate* requests per second are: in no second more than that, rounded up."""
    count = math.ceil(rate)
    return RateLimit(count, count / rate)


class RateLimiter:
    """
    Give out permits to send; `limit` is None where only the vendors' pauses hold requests back, until one answers 429.

    One event loop at a time. Clients acquire by `Permits`.
    """

    def __init__(self, limit: RateLimit | None) -> None:
        self.limit = limit
        self._free = limit.count if limit else 0
        self._returning: deque[float] = deque()  # when the permits of answered requests come free
        self._gap = limit.seconds / limit.count if limit and limit.count else 0.0
        self._next_poll = 0.0
        self._vendors: dict[str, _Vendor] = {}
        self._numbers = numbers()
        self._subscribers: dict[Permits, tuple[Callable[[], None], Callable[[], bool]]] = {}
        self._shares = Shares()
        self._slowdown = Slowdown()
        self._learning = Learning() if limit is None else None
        self._overtaken: dict[Permits, None] = {}  # clients whose polls had to wait, the longest first
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._until = math.inf
        self._owed = 0
        self._refused: Exception | None = None

    def __repr__(self) -> str:
        return f"RateLimiter({self.limit!r})"

    @property
    def used(self) -> float:
        """Return which part of the limit is taken, from 0 to 1."""
        if self.limit is None:
            return 0.0
        self._collect(asyncio.get_running_loop().time())
        return 1 - self._free / self.limit.count if self.limit.count else 0.0

    @property
    def is_wanted(self) -> bool:
        """Tell whether any permit is in use, or asked for."""
        if any(vendor.line or vendor.starts for vendor in self._vendors.values()):
            return True
        return self.used > 0.0 or any(has_due() for _, has_due in self._subscribers.values())

    def used_at(self, now: float) -> float | None:
        """Return which part of the limit is taken at a time, from 0 to 1, None without a limit; in any thread."""
        limit, returning = self.limit, tuple(self._returning)
        if limit is None or not limit.count:
            return None
        free = self._free + sum(at <= now for at in returning)
        return min(max(1 - free / limit.count, 0.0), 1.0)

    def subscribe(self, permits: Permits, on_change: Callable[[], None], has_due: Callable[[], bool]) -> None:
        """Call *on_change* when polls may go for which `delay` told no time, and *has_due* to hear if some are due."""
        self._subscribers[permits] = on_change, has_due

    def unsubscribe(self, permits: Permits) -> None:
        """Call no more on behalf of *permits*."""
        self._subscribers.pop(permits, None)
        self._overtaken.pop(permits, None)

    def resize(self, change: int, until: float = math.inf) -> None:
        """
        Have *change* permits more, or fewer as they come free: then they may be used elsewhere. `limit` says how many.

        Nothing is sent from the time *until* of the loop on, unless this is called again: by then others may have all.
        """
        self._until, self._refused = until, None
        self._owed = max(-change, 0)
        self._add(max(change, 0))
        self._collect(asyncio.get_running_loop().time())
        self._advance()

    def refuse(self, because: Exception) -> None:
        """
        Send nothing, until `resize` is called: raise *because* where a call or a start waits, or would have to.

        Polls are lost contact from now on, which those who follow a run bear for so long.
        """
        self._until, self._refused = -math.inf, because
        for vendor in self._vendors.values():
            for turn in (*vendor.line, *vendor.starts):
                if not turn.future.done():
                    turn.future.set_exception(copy(because))
        self._notify()

    def clear(self) -> None:
        """Have no permits, as if none had been used: whoever gives them out knows of the windows in which they were."""
        assert self.limit is not None
        self.limit = RateLimit(0, self.limit.seconds)
        self._free = self._owed = 0
        self._returning.clear()

    def _slow_down(self, now: float) -> None:
        """Send less: of a limit that is known a part, else what is learned."""
        learning = self._learning
        if learning is None:
            assert self.limit is not None
            self._slowdown.slow_down(now, self.limit)
            return
        change = learning.slow_down(now)
        if change is not None and self.limit is None:
            self.limit, self._free = RateLimit(0, 1.0), -learning.in_flight
            self._add(change)
        elif change is not None:
            self._owed += change

    def _still_holds(self, now: float, learning: Learning) -> bool:
        """Have the limit that was learned grow, or forget it; return whether there still is one."""
        more = learning.grow(now)
        if more is None:
            self.limit, self._gap, self._next_poll, self._free, self._owed = None, 0.0, 0.0, 0, 0
            self._returning.clear()
            return False
        self._owed, more = max(self._owed - more, 0), max(more - self._owed, 0)
        self._add(more)
        return True

    def _add(self, change: int) -> None:
        assert self.limit is not None
        count, seconds = self.limit.count + change, self.limit.seconds
        self.limit, self._free = RateLimit(count, seconds), self._free + change
        self._gap = seconds / count if count else 0.0

    def _free_at(self, now: float, kept: int = 0) -> float:
        """Return the time of the loop from which on a permit is free beside *kept*, whatever the vendors ask for."""
        if self.limit is None:
            return -math.inf
        if self._learning is not None and not self._still_holds(now, self._learning):
            return -math.inf
        self._collect(now)
        if now >= self._until:
            return math.inf
        missing = kept + self._slowdown.withheld(now, self.limit) - self._free  # beside the one that is wanted
        if missing < 0:
            return -math.inf
        return self._returning[missing] if missing < len(self._returning) else math.inf

    def _free_beside(self, now: float, promised: int, reserved: int = 0) -> float:
        """Return when a permit is free beside those *promised* to starts and *reserved*, or the first promise ends."""
        at = self._free_at(now, promised + reserved)
        return min(at, self._shares.promise_ends()) if promised and at > now else at

    def _collect(self, now: float) -> None:
        while self._returning and self._returning[0] <= now:
            self._returning.popleft()
            self._free += 1
        if self._owed and self._free:
            paid = min(self._owed, self._free)
            self._owed -= paid
            self._add(-paid)

    def _take(self, now: float) -> None:
        learning = self._learning
        if learning is not None:
            learning.sent(now)
        if self.limit is not None:
            self._free -= 1
            if learning is not None and 2 * self._free < self.limit.count:
                learning.is_full(now)
            # A poll that is late, since the loop was busy, does not put off those after it.
            is_late = self._next_poll < now < self._next_poll + _LATE_SECONDS
            self._next_poll = (self._next_poll if is_late else max(self._next_poll, now)) + self._gap

    def _called(self, now: float) -> None:
        """Note that a call was sent. Polls after it make what is left last, however many calls came at once."""
        self._take(now)
        self._shares.called()
        if self.limit is not None:
            self._next_poll = min(self._next_poll, now + self._share_of_rest(now, self.limit))

    def _share_of_rest(self, now: float, limit: RateLimit) -> float:
        """Return the seconds between polls with which the free permits last until one comes back."""
        back = self._returning[0] if self._returning else now + limit.seconds
        return (back - now) / (self._free + 1)

    def _first_call(self, now: float) -> deque[_Turn] | None:
        """Return the line of calls whose first waits longest, of vendors that ask for no pause; None if none waits."""
        return _first([vendor.line for vendor in self._vendors.values() if vendor.paused_until <= now])

    def _first_start(self, now: float) -> deque[_Turn] | None:
        """Return the line of starts whose first waits longest, as `_first_call` does."""
        return _first([vendor.starts for vendor in self._vendors.values() if vendor.paused_until <= now])

    def _starts_at(self, now: float) -> float:
        """Return the time of the loop from which on a start may be let through, as far as can be told."""
        limit, shares = self.limit, self._shares
        if limit is None:
            return -math.inf
        promised = shares.promised(now)
        if not shares.polls_owed:
            reserved = 0
        elif any(has_due() for _, has_due in self._subscribers.values()):
            return max(now, self._next_poll) + self._gap  # after a poll it is looked at again anyway
        else:
            reserved = shares.reserve(limit)
        at = self._free_beside(now, promised, reserved)
        return max(at, shares.spread_at(limit)) if shares.polls_owed else at

    def _let_start(self, now: float) -> bool:
        """Let the start through whose turn it is, if it may be sent now; tell whether."""
        line = self._first_start(now)
        if line is None or self._starts_at(now) > now or self._first_call(now) is not None:
            return False
        self._shares.began(now, self.limit)
        line.popleft().future.set_result(None)
        return True

    def _advance(self) -> None:
        """Let those calls through whose turn it is, and set the timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        line = self._first_call(now)
        while line is not None and self._free_at(now) <= now:
            self._called(now)
            line.popleft().future.set_result(None)
            line = self._first_call(now)
        while line is None and self._let_start(now):
            pass
        self._arm(loop, now)
        if line is None:
            self._notify()

    def _arm(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        calls = [vendor.paused_until for vendor in self._vendors.values() if vendor.line]
        starts = [vendor.paused_until for vendor in self._vendors.values() if vendor.starts]
        at = max(self._free_at(now), min(calls)) if calls else math.inf
        if starts and not calls:
            at = max(self._starts_at(now), min(starts))
        # A time, not seconds from now: rounded down, they would come early.
        if at < (math.inf if self._timer is None else self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = loop.call_at(at, self._advance)

    def _polled(self, now: float) -> None:
        """Note that a poll was sent."""
        self._shares.polled()
        if self._shares.in_flight and self._returning:  # what starts have left has to last
            self._next_poll = max(self._next_poll, now + (self._returning[0] - now) / (self._free + 1))

    def _look_for_starts(self) -> None:
        """Have the timer go off when a start may be let through, if one waits."""
        if any(vendor.starts for vendor in self._vendors.values()):
            loop = asyncio.get_running_loop()
            self._arm(loop, loop.time())

    def _notify(self) -> None:
        for on_change, _ in tuple(self._subscribers.values()):
            on_change()


class Permits:
    """
    What one client may send under *limiter* to *vendor*.

    Each permit that was acquired is to be released when its request was answered, or never will be.
    """

    def __init__(self, limiter: RateLimiter, vendor: str = "") -> None:
        self.limiter = limiter
        self._vendor = limiter._vendors.setdefault(vendor, _Vendor())
        self._closed = False

    def open(self, on_change: Callable[[], None], has_due: Callable[[], bool] = bool) -> None:
        """Call *on_change* when polls may go for which `delay` told no time, and *has_due* to hear if some are due."""
        self.limiter.subscribe(self, on_change, has_due)

    def close(self) -> None:
        """Let no call of this client through any more; those that wait raise `AgentRunsError`."""
        self._closed = True
        self.limiter.unsubscribe(self)
        vendor = self._vendor
        turns = (*vendor.line, *vendor.starts)
        vendor.line = deque(turn for turn in vendor.line if turn.permits is not self)
        vendor.starts = deque(turn for turn in vendor.starts if turn.permits is not self)
        for turn in turns:
            if turn.permits is self and not turn.future.done():
                turn.future.set_exception(AgentRunsError("the client was closed while a request waited for its turn"))
        self.limiter._advance()

    # Calls ------------------------------------------------------------------------------------------------------------

    async def acquire(self, longest: float = math.inf) -> None:
        """
        Wait until a call may be sent.

        While the vendor asks for a pause of more than *longest* seconds, raise what it answered last.
        """
        if self._closed:
            raise AgentRunsError(IS_CLOSED)
        now = asyncio.get_running_loop().time()
        limiter, vendor = self.limiter, self._vendor
        vendor.check(now, longest)
        others = limiter._first_call(now) is not None or vendor.line
        if not others and vendor.paused_until <= now and limiter._free_at(now) <= now:
            limiter._called(now)
            return
        await self._wait_in(vendor.line, self._give_up)

    def _give_up(self) -> None:
        """Give back the permit of a request that will not be sent."""
        limiter = self.limiter
        if limiter._learning is not None:
            limiter._learning.in_flight -= 1
        if limiter.limit is not None:
            limiter._free += 1
            limiter._advance()

    async def _wait_in(self, line: deque[_Turn], undo: Callable[[], None]) -> None:
        """Stand in line; *undo* what the turn gave if it comes in the very moment in which it is given up."""
        limiter, loop = self.limiter, asyncio.get_running_loop()
        if limiter._refused is not None:
            raise copy(limiter._refused)
        turn = _Turn(next(limiter._numbers), loop.create_future(), self)
        line.append(turn)
        limiter._arm(loop, loop.time())
        try:
            await turn.future
        except BaseException:
            if turn.future.done() and not turn.future.cancelled() and turn.future.exception() is None:
                undo()
            raise

    def release(self) -> None:
        """Give back the permit of a request that was answered, or never will be."""
        limiter = self.limiter
        if limiter._learning is not None:
            limiter._learning.in_flight -= 1
        if limiter.limit is not None:
            loop = asyncio.get_running_loop()
            now = loop.time()
            limiter._returning.append(now + limiter.limit.seconds)
            limiter._arm(loop, now)
            if not limiter._free and len(limiter._returning) == 1:
                limiter._notify()

    async def wait_resumed(self, longest: float = math.inf) -> None:
        """
        Wait until a pause is over for which the vendor asked after this request had its permit.

        Where that is more than *longest* seconds, raise what it answered last.
        """
        loop = asyncio.get_running_loop()
        while (left := self._vendor.paused_until - loop.time()) > 0:
            self._vendor.check(loop.time(), longest)
            await asyncio.sleep(left)

    def pause(self, seconds: float, because: Exception) -> None:
        """Send this vendor nothing for *seconds*, an hour at the most; *because* is its answer."""
        self._vendor.pause(asyncio.get_running_loop().time() + min(seconds, LONGEST_PAUSE), because)

    def slow_down(self) -> None:
        """Send less from now on, and by and by more again: the vendor has answered 429."""
        self.limiter._slow_down(asyncio.get_running_loop().time())

    # Starts -----------------------------------------------------------------------------------------------------------

    def begin_nowait(self) -> bool:
        """Let a start through if its first request may be sent now, and nobody waits; tell whether. `end` it."""
        limiter, vendor, now = self.limiter, self._vendor, asyncio.get_running_loop().time()
        if self._closed or vendor.starts or vendor.line or vendor.paused_until > now:
            return False
        if limiter._starts_at(now) > now or limiter._first_call(now) is not None:
            return False
        if limiter._first_start(now) is not None:
            return False
        limiter._shares.began(now, limiter.limit)
        return True

    async def begin(self) -> None:
        """Wait until a start may be let through: those that have asked before go first. `end` it."""
        if self.begin_nowait():
            return
        if self._closed:
            raise AgentRunsError(IS_CLOSED)
        await self._wait_in(self._vendor.starts, self.end)

    def end(self) -> None:
        """Note that a run that was let through has ended, or is followed no more."""
        limiter = self.limiter
        limiter._shares.left()
        limiter._look_for_starts()

    # Polls ------------------------------------------------------------------------------------------------------------

    @property
    def refused(self) -> Exception | None:
        """Return why nothing is sent for now, which is no wish of the vendor's; None if something may be."""
        return self.limiter._refused

    def delay(self, now: float) -> float:
        """Return the seconds until a poll may be sent; infinite while that depends on an answer or on calls."""
        limiter, vendor = self.limiter, self._vendor
        if limiter._first_call(now) is not None or vendor.line:
            return math.inf  # `on_change` is called when the last call has gone
        promised = 0
        if limiter.limit is not None:
            promised = limiter._shares.promised(now)
            if not limiter._shares.polls_owed and limiter._first_start(now) is not None:
                return math.inf  # a start has the next permit; `on_change` is called when it was let through
        at = max(limiter._free_beside(now, promised), limiter._next_poll, vendor.paused_until)
        if limiter._overtaken and next(iter(limiter._overtaken)) is not self:
            at += min(limiter._gap, HEAD_START)
        if at <= now:
            return 0.0
        if len(limiter._subscribers) > 1:
            limiter._overtaken.setdefault(self)
        return at - now

    def acquire_nowait(self, now: float) -> None:
        """Acquire the permit of a poll, for which `delay` is zero."""
        overtaken = self.limiter._overtaken
        if overtaken:
            del overtaken[next(iter(overtaken))]  # whether this is the first or comes before it: it had its chance
            overtaken.pop(self, None)
        self.limiter._take(now)
        self.limiter._polled(now)
        self.limiter._look_for_starts()


class _Turn(NamedTuple):
    """A call that waits."""

    number: int
    future: asyncio.Future[None]
    permits: Permits


def _first(lines: Iterable[deque[_Turn]]) -> deque[_Turn] | None:
    """Return the line whose first turn has the lowest number, None if all are empty; turns given up are dropped."""
    first = None
    for line in lines:
        while line and line[0].future.done():
            line.popleft()
        if line and (first is None or line[0].number < first[0].number):
            first = line
    return first


class _Vendor:
    """The calls that wait to be sent to one vendor, and the pause that it has asked for."""

    __slots__ = ("because", "line", "paused_until", "starts")

    def __init__(self) -> None:
        self.line: deque[_Turn] = deque()
        self.starts: deque[_Turn] = deque()  # that wait to be let through
        self.paused_until = -math.inf
        self.because: Exception | None = None

    def pause(self, until: float, because: Exception) -> None:
        """Note the wish for a pause; a shorter one than the last changes nothing."""
        if until > self.paused_until:
            self.paused_until, self.because = until, because

    def check(self, now: float, longest: float) -> None:
        """Raise what asked for the pause if more than *longest* seconds of it are left."""
        if self.because is None:
            return
        left = self.paused_until - now
        if left <= 0:
            self.because = None
        elif left > longest:
            raise copy(self.because)  # one that is raised holds, by its traceback, whatever it is raised to
