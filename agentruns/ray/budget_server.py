"""
One limit of requests, divided over the processes that share it.

`BudgetServer` knows how many permits each process has; it lives in one small actor. A permit is free, or one process
holds it, and only that process may use it. Each process renews its `Lease` every second: it gets permits as others come
and go, and gives back those above its due as they come free. So the permits in use are never more than the limit, and
what holds for one process (`agentruns._api.limiter`) holds for all of them: no window has more requests.

The permits of a process that died come back one window later, since it may have used them just before. A process that
is silent for long counts as dead; it stopped sending some time before that.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias
from uuid import uuid4

from attrs import define

from agentruns._api.limiter import RateLimiter
from agentruns._values.exchange import RateLimit

logger = logging.getLogger("agentruns")

RENEW_SECONDS: Final = 1.0
"""How often a process renews its lease."""

LEASE_SECONDS: Final = 20.0
"""After this long without an answer, a process stops sending."""

SILENCE_SECONDS: Final = 40.0
"""After this long without a renewal, a process counts as dead: longer than the lease, by more than a slow answer."""

Renew: TypeAlias = Callable[[str, str, int], Awaitable[tuple[int, int]]]


@define
class _Holder:
    """One process: `life` tells it from one of the same name that died before it."""

    life: str
    held: int
    seen: float


class BudgetServer:
    """Divide *limit* evenly among the processes that ask, at least *expected* of them; *clock* returns seconds."""

    def __init__(self, limit: RateLimit, expected: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._expected = expected
        self._clock = clock
        self._free = limit.count
        self._returning: deque[tuple[float, int]] = deque()
        self._holders: dict[str, _Holder] = {}

    def renew(self, name: str, life: str, held: int) -> tuple[int, int]:
        """
        Renew the lease of the process *name*, which holds *held* permits.

        Return how many more it gets, and how many are its due. A due of 0 says that it counted as dead: it must send
        nothing until it has given back all permits. *life* differs for a process that replaces one of the same name;
        the permits of the earlier one are not its own.
        """
        now = self._clock()
        self._bury(name, life, now)
        while self._returning and self._returning[0][0] <= now:
            self._free += self._returning.popleft()[1]
        holder = self._holders.get(name)
        if holder is None:
            if held:
                return 0, 0
            holder = self._holders[name] = _Holder(life, 0, now)
        holder.seen = now
        self._free += holder.held - held  # also those of an answer that it never got
        due = self._due(name)
        given = max(min(self._free, due - held), 0)
        self._free -= given
        holder.held = held + given
        return given, due

    def _due(self, name: str) -> int:
        """Return the even part of *name*; the first to come get what is left over."""
        sharers = max(self._expected, len(self._holders))
        index = list(self._holders).index(name)
        return self._limit.count // sharers + (index < self._limit.count % sharers)

    def _bury(self, name: str, life: str, now: float) -> None:
        """Free the permits of processes that are gone, once their last requests are out of every window."""
        for each, holder in [*self._holders.items()]:
            if holder.life != life if each == name else now - holder.seen > SILENCE_SECONDS:
                del self._holders[each]
                if holder.held:
                    self._returning.append((now + self._limit.seconds, holder.held))


class Lease:
    """The part of a limit that one process has: `budget` is for its client, *renew* asks `BudgetServer` for permits."""

    def __init__(self, seconds: float, renew: Renew, name: str) -> None:
        self.budget = RateLimiter(RateLimit(0, seconds))
        self._renew = renew
        self._name = name
        self._life = uuid4().hex

    async def keep(self) -> None:
        """Renew the lease, and take and give back permits, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            try:
                given, due = await self._renew(self._name, self._life, self._held)
            except Exception as error:
                logger.warning("the lease of the budget cannot be renewed: %s", error)
            else:
                until = asked + LEASE_SECONDS if due else -math.inf
                self.budget.resize(given, until)
                self.budget.resize(min(due - self._held, 0), until)
            await asyncio.sleep(RENEW_SECONDS)

    @property
    def _held(self) -> int:
        limit = self.budget.limit
        return 0 if limit is None else limit.count
