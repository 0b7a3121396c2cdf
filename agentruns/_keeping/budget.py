"""The part of a rate limit that one client has, among all processes that have its journal open."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from agentruns._api.limiter import RateLimiter
from agentruns._values.exchange import RateLimit
from agentruns.errors import JournalError

if TYPE_CHECKING:  # imported with the first journal: `import agentruns` stays light
    from .journal.budget import Budgets

logger = logging.getLogger("agentruns")

_LOOK_SECONDS: Final = 1.0
"""How often it is looked whether others have written to the journal: that costs neither a lock nor the disk."""

_RENEW_SECONDS: Final = 5.0
"""How often a part is renewed among others, since one that dies writes nothing."""

_LINGER_SECONDS: Final = 10.0
"""For so long a client that sends nothing keeps what others want."""


class SharedBudget:
    """
    Divide *limit* over the clients that have one journal open; `limiter` has what is this client's part at the time.

    *pool* names what the limit is of; all who share it have the same limit. A client that is alone has all of it, one
    that sends nothing lends it to those that do. Where the journal cannot be written, nothing is shared: the client
    has the whole limit, as without one. If that befalls a part, it lasts for as long as others leave it alone.
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
        self._failed = False
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
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = loop.time()
            if self.limiter.is_wanted:
                self._used_at = now
            try:
                if await self._is_to_renew(now):
                    await self._renew(now)
            except JournalError as error:
                self._version = None
                if not self._failed:
                    logger.warning("the part of the budget cannot be renewed: %s", error)
                self._failed = True
            else:
                self._failed = False

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
