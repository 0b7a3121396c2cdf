"""
When the next request may be sent, whoever sends it.

A limit of *count* requests within *seconds* holds in any window of that length, as the vendor's server sees it: a
permit is acquired when a request is sent and comes free *seconds* after its answer. The server saw the request
somewhere between the two, so no delay on the way can push two requests of one permit into one window.

Calls (requests of what has begun: answers, the further requests of a start, reads that a user asked for) go before all
else, in the order of asking, and may use up what there is. Polls take what is left, evenly spaced, so that no window
holds a burst of them. New starts are let through one by one, when a permit is there for their first request; where
polls are due, too, both have a share (`shares`). While a vendor asks for a pause (`Retry-After` on 429 or 503), nothing
is sent to it. When it answers 429, less is sent, and by and by more again (`restraint`).

Several clients can share one limiter, of one vendor or of several. Each has `Permits` of its own: closing them refuses
what this client still waits for, and nothing else.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from copy import copy

from agentruns._values.exchange import RateLimit
from agentruns.errors import AgentRunsError

from .channel import IS_CLOSED
from .pollers import Pollers
from .restraint import restraint
from .shares import Shares
from .turns import Line, Turns
from .window import Window


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
        self._window = Window(limit)
        self._restraint = restraint(self._window)
        self._turns = Turns()
        self._shares = Shares()
        self._pollers = Pollers()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._until = math.inf
        self._refused: Exception | None = None

    def __repr__(self) -> str:
        return f"RateLimiter({self.limit!r})"

    @property
    def limit(self) -> RateLimit | None:
        """Return the limit that holds now, None if there is none."""
        return self._window.limit

    @property
    def used(self) -> float:
        """Return which part of the limit is taken, from 0 to 1."""
        if self.limit is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        self._window.collect(now)
        return self._window.used_at(now) or 0.0

    def used_at(self, now: float) -> float | None:
        """Return which part of the limit is taken at a time, from 0 to 1, None without a limit; in any thread."""
        return self._window.used_at(now)

    @property
    def is_wanted(self) -> bool:
        """Tell whether any permit is in use, or asked for."""
        return self._turns.is_awaited or self.used > 0.0 or self._pollers.have_due

    def resize(self, change: int, until: float = math.inf) -> None:
        """
        Have *change* permits more, or fewer as they come free: then they may be used elsewhere. `limit` says how many.

        Nothing is sent from the time *until* of the loop on, unless this is called again: by then others may have all.
        """
        self._until, self._refused = until, None
        self._window.resize(change)
        self._window.collect(asyncio.get_running_loop().time())
        self._advance()

    def refuse(self, because: Exception) -> None:
        """
        Send nothing, until `resize` is called: raise *because* where a call or a start waits, or would have to.

        Polls are lost contact from now on, which those who follow a run bear for so long.
        """
        self._until, self._refused = -math.inf, because
        self._turns.refuse(because)
        self._pollers.notify()

    def clear(self) -> None:
        """Have no permits, as if none had been used: whoever gives them out knows of the windows in which they were."""
        self._window.clear()

    def _free_at(self, now: float, kept: int = 0) -> float:
        """Return the time from which on a permit is free beside *kept*, whatever the vendors ask for."""
        window = self._window
        if window.limit is None or self._restraint.eased(now) is None:
            return -math.inf
        window.collect(now)
        return math.inf if now >= self._until else window.free_at(kept + self._restraint.withheld(now))

    def _free_beside(self, now: float, promised: int, reserved: int = 0) -> float:
        """Return when a permit is free beside those *promised* to starts and *reserved*, or the first promise ends."""
        at = self._free_at(now, promised + reserved)
        return min(at, self._shares.promise_ends()) if promised and at > now else at

    def _called(self, now: float) -> None:
        """Note that a call was sent. Polls after it make what is left last, however many calls came at once."""
        self._window.take(now)
        self._restraint.sent(now)
        self._shares.called()
        self._window.hasten(now)

    def _starts_at(self, now: float) -> float:
        """Return the time of the loop from which on a start may be let through, as far as can be told."""
        limit, shares = self.limit, self._shares
        if limit is None:
            return -math.inf
        promised = shares.promised(now)
        if not shares.polls_owed:
            reserved = 0
        elif self._pollers.have_due:
            return max(now, self._window.next_poll) + self._window.gap  # after a poll it is looked at again anyway
        else:
            reserved = shares.reserve(limit)
        at = self._free_beside(now, promised, reserved)
        return max(at, shares.spread_at(limit)) if shares.polls_owed else at

    def _let_start(self, now: float) -> bool:
        """Let the start through whose turn it is, if it may be sent now; tell whether."""
        line = self._turns.first_start(now)
        if line is None or self._starts_at(now) > now or self._turns.first_call(now) is not None:
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
        line = self._turns.first_call(now)
        while line is not None and self._free_at(now) <= now:
            self._called(now)
            line.popleft().future.set_result(None)
            line = self._turns.first_call(now)
        while line is None and self._let_start(now):
            pass
        self._arm(loop, now)
        if line is None:
            self._pollers.notify()

    def _arm(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        at, calls_from, starts_from = math.inf, self._turns.calls_from(), self._turns.starts_from()
        if calls_from is not None:
            at = max(self._free_at(now), calls_from)
        elif starts_from is not None:
            at = max(self._starts_at(now), starts_from)
        # A time, not seconds from now: rounded down, they would come early.
        if at < (math.inf if self._timer is None else self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = loop.call_at(at, self._advance)

    def _poll_at(self, now: float) -> float:
        """Return when the limit lets a poll through; infinite if that depends on calls, or on a start."""
        turns, shares = self._turns, self._shares
        if turns.first_call(now) is not None or (not shares.polls_owed and turns.first_start(now) is not None):
            return math.inf  # those who poll are told when it has gone
        return max(self._free_beside(now, shares.promised(now)), self._window.next_poll)

    def _polled(self, now: float) -> None:
        """Note that a poll was sent. What starts have left has to last."""
        self._window.take(now)
        self._restraint.sent(now)
        self._shares.polled()
        if self._window.limit is not None:
            if self._shares.in_flight:
                self._window.spare(now)
            self._look_for_starts()

    def _look_for_starts(self) -> None:
        """Have the timer go off when a start may be let through, if one waits."""
        if self._turns.starts_from() is not None:
            loop = asyncio.get_running_loop()
            self._arm(loop, loop.time())


class Permits:
    """
    What one client may send under *limiter* to *vendor*.

    Each permit that was acquired is to be released when its request was answered, or never will be.
    """

    def __init__(self, limiter: RateLimiter, vendor: str = "") -> None:
        self.limiter = limiter
        self._vendor = limiter._turns.of(vendor)
        self._closed = False

    def open(self, on_change: Callable[[], None], has_due: Callable[[], bool] = bool) -> None:
        """Call *on_change* when polls may go for which `delay` told no time, and *has_due* to hear if some are due."""
        self.limiter._pollers.add(self, on_change, has_due)

    def close(self) -> None:
        """Let no call of this client through any more; those that wait raise `AgentRunsError`."""
        self._closed = True
        self.limiter._pollers.remove(self)
        self._vendor.leave(self, AgentRunsError("the client was closed while a request waited for its turn"))
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
        others = limiter._turns.first_call(now) is not None or vendor.calls
        if not others and vendor.paused_until <= now and limiter._free_at(now) <= now:
            limiter._called(now)
            return
        await self._wait_in(vendor.calls, self.give_up)

    def are_over(self) -> bool:
        """Tell whether what was acquired may not be sent any more: since then there is a pause, or the part is over."""
        now = asyncio.get_running_loop().time()
        return self._closed or now < self._vendor.paused_until or now >= self.limiter._until

    def give_up(self) -> None:
        """Give back the permit of a request that will not be sent."""
        limiter = self.limiter
        limiter._restraint.over()
        if limiter.limit is not None:
            limiter._window.put_back()
            limiter._advance()

    async def _wait_in(self, line: Line, undo: Callable[[], None]) -> None:
        """Stand in line; *undo* what the turn gave if it comes in the very moment in which it is given up."""
        limiter, loop = self.limiter, asyncio.get_running_loop()
        if limiter._refused is not None:
            raise copy(limiter._refused)
        turn = limiter._turns.join(line, self)
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
        limiter._restraint.over()
        if limiter._window.limit is not None:
            loop = asyncio.get_running_loop()
            now = loop.time()
            limiter._window.answered(now)
            limiter._arm(loop, now)
            if limiter._window.waits_for_one:
                limiter._pollers.notify()

    async def wait_resumed(self, longest: float = math.inf) -> None:
        """
        Wait until a pause is over for which the vendor asked after this request had its permit.

        Where that is more than *longest* seconds, raise what it answered last.
        """
        await self._vendor.resumed(longest)

    def pause(self, seconds: float, because: Exception) -> None:
        """Send this vendor nothing for *seconds*, an hour at the most; *because* is its answer."""
        self._vendor.pause(seconds, because)

    def slow_down(self) -> None:
        """Send less from now on, and by and by more again: the vendor has answered 429."""
        self.limiter._restraint.refused(asyncio.get_running_loop().time())

    # Starts -----------------------------------------------------------------------------------------------------------

    def begin_nowait(self, now: float) -> bool:
        """Let a start through if its first request may be sent now, and nobody waits; tell whether. `end` it."""
        limiter, vendor = self.limiter, self._vendor
        if self._closed or vendor.starts or vendor.calls or vendor.paused_until > now:
            return False
        if limiter._starts_at(now) > now or limiter._turns.first_call(now) is not None:
            return False
        if limiter._turns.first_start(now) is not None:
            return False
        limiter._shares.began(now, limiter.limit)
        return True

    async def begin(self) -> None:
        """Wait until a start may be let through: those that have asked before go first. `end` it."""
        if self.begin_nowait(asyncio.get_running_loop().time()):
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
        if vendor.calls:
            return math.inf  # `on_change` is called when the last call has gone
        at = vendor.paused_until
        if limiter._window.limit is not None:
            at = max(at, limiter._poll_at(now)) + limiter._pollers.handicap(self, limiter._window.gap)
        if at <= now:
            return 0.0
        limiter._pollers.wait(self)
        return at - now

    def acquire_nowait(self, now: float) -> None:
        """Acquire the permit of a poll, for which `delay` is zero."""
        self.limiter._pollers.go(self)
        self.limiter._polled(now)
