"""The part of a rate limit that one client has, among all processes that have its journal open."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from agentruns._api.limiter import RateLimiter
from agentruns._values.exchange import RateLimit
from agentruns.errors import JournalError

from .journal.lease import clock

if TYPE_CHECKING:  # imported with the first journal: `import agentruns` stays light
    from .journal.budget import Budgets

logger = logging.getLogger("agentruns")

_LOOK_SECONDS: Final = 1.0
"""How often it is looked whether others have written to the journal: that costs neither a lock nor the disk."""

_RENEW_SECONDS: Final = 5.0
"""How often a part is renewed among others, since one that dies writes nothing."""

_LINGER_SECONDS: Final = 10.0
"""For so long a client that sends nothing keeps what others want."""


_PATIENCE: Final = 10.0
"""How long, when a part is over that could not be renewed, it is waited for the next before waiting callers hear."""


class SharedBudget:
    """
    Divide *limit* over the clients that have one journal open; `limiter` has what is this client's part at the time.

    *pool* names what the limit is of; all who share it have the same limit. A client that is alone has all of it, one
    that sends nothing lends it to those that do. Where the journal cannot be written, nothing is shared: the client
    has the whole limit, as without one. If that befalls a part, it lasts for as long as others leave it alone. After
    that nothing is sent: others may have the part, and a window would hold more than the limit. Who waits hears of it
    by a `JournalError`, `_PATIENCE` later.
    """

    def __init__(self, budgets: Budgets, pool: str, limit: RateLimit) -> None:
        self.limiter: Final = RateLimiter(RateLimit(0, limit.seconds))
        self._budgets = budgets
        self._pool = f"{pool} {limit.count}/{limit.seconds:g}s"
        self._limit = limit
        self._due = self._told = 0
        self._is_alone = True
        self._wants = True
        self._version: int | None = None
        self._used_at = self._renewed_at = self._lasts = 0.0
        self._error: Exception | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._asleep = _seconds_asleep()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take a part, and renew it from then on."""
        now = asyncio.get_running_loop().time()
        self._used_at, self._wants = now, True
        try:
            await self._renew(now)
        except JournalError as error:
            logger.warning("the budget is not shared with other processes: %s", error)
            self.limiter.resize(self._limit.count - self._held)
            return
        self._task = asyncio.create_task(self._keep(), name="agentruns: renew the part of the budget")

    async def leave(self) -> None:
        """Give the part back, so that others need not wait until this process is seen to be gone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._be_heard(None)
        self.limiter.resize(-self._held)  # what is left after this is of requests that a window still has
        try:
            await self._budgets.leave(self._pool, self._limit, self._held)
        except JournalError as error:
            logger.debug("the part of the budget is given back by the end of the process: %s", error)
        self.limiter.clear()

    @property
    def _held(self) -> int:
        limit = self.limiter.limit
        return 0 if limit is None else limit.count

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._look()
            except Exception as error:
                self._version = None
                if self._error is None:
                    trace = None if isinstance(error, JournalError) else error
                    logger.warning("the part of the budget cannot be renewed: %s", error, exc_info=trace)
                self._error = error
            else:
                self._error = None

    async def _look(self) -> None:
        """Renew the part if that is due."""
        now = asyncio.get_running_loop().time()
        asleep, self._asleep = self._asleep, _seconds_asleep()
        if self._asleep - asleep > _LOOK_SECONDS:  # others may have the part, though the clock of the loop stood still
            self.limiter.resize(0, now)
            self._be_heard(now + _PATIENCE)
            self._version = None
        if self.limiter.is_wanted:
            self._used_at = now
        if await self._is_to_renew(now):
            await self._renew(now)

    def _be_heard(self, at: float | None) -> None:
        """Have those who wait hear at a time of the loop that nothing may be sent any more, unless that is put off."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if at is None else asyncio.get_running_loop().call_at(at, self._refuse)

    def _refuse(self) -> None:
        why = self._error if isinstance(self._error, JournalError) else None
        path, reason = ("", "it does not answer") if why is None else (why.path, why.reason)
        standing = "Nothing is sent: other processes may have this one's part of the budget by now"
        self.limiter.refuse(JournalError(path or self._budgets.path, reason, standing))

    async def _is_to_renew(self, now: float) -> bool:
        before, self._version = self._version, await self._budgets.version()
        if before != self._version or not self._told == self._held == self._due:
            return True
        wants = now - self._used_at < _LINGER_SECONDS
        often = self._lasts / 2 if self._is_alone else min(self._lasts / 2, _RENEW_SECONDS)
        return now - self._renewed_at >= often or (wants != self._wants and not self._is_alone)

    async def _renew(self, now: float) -> None:
        self._wants = now - self._used_at < _LINGER_SECONDS
        part = await self._budgets.renew(self._pool, self._limit, self._held, wants=self._wants)
        self._due, self._is_alone, self._lasts, self._renewed_at = part.due, part.is_alone, part.seconds, now
        until = now + part.seconds
        self.limiter.resize(part.given, until)
        self._told = self._held
        self.limiter.resize(min(part.due - self._held, 0), until)
        self._be_heard(until + _PATIENCE)


def _seconds_asleep() -> float:
    """Return for how long this machine was asleep while its other clock stood still; only differences mean anything."""
    return clock() - time.monotonic()
