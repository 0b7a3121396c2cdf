"""What is remembered of runs that are followed no more, and of those that there are not: both within bounds."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from agentruns._values.run import RunRef
from agentruns.errors import NotFoundError

from .feed import Feed

MEMORY: Final = 64 * 2**20
"""Bytes that runs hold, about, which are followed no more and kept for those who come later."""

KEPT: Final = 1000
"""How many such runs are kept at the most."""

NAMES: Final = 10_000
"""Of how many more it is remembered which run a name stands for."""

UNKNOWN_SECONDS: Final = 30.0
"""How long a run that there is not is not asked for again."""

_AT_ONCE: Final = 32
_REFILL_SECONDS: Final = 1.0


class EndedFeeds:
    """Feeds that are over, the oldest first, of so many bytes at most; of older ones their names remain."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._held: OrderedDict[Feed, int] = OrderedDict()
        self._weight = 0
        self._names: OrderedDict[str, RunRef] = OrderedDict()

    def keep(self, feed: Feed) -> Iterator[Feed]:
        """Keep a feed, and yield those that are kept no longer."""
        self._held[feed] = feed.weight
        self._weight += self._held[feed]
        while len(self._held) > KEPT or (self._weight > self._memory and len(self._held) > 1):
            oldest, weight = self._held.popitem(last=False)
            self._weight -= weight
            if oldest.name is not None and oldest.run is not None:
                self._names[oldest.name] = oldest.run.ref
                self._names.move_to_end(oldest.name)
                if len(self._names) > NAMES:
                    self._names.popitem(last=False)
            yield oldest

    def run_of(self, name: str) -> RunRef | None:
        """Return the run that a name stood for, None if that is not known."""
        return self._names.get(name)

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self._names.clear()
        self._weight = 0


class UnknownRuns:
    """
    Ids of runs of which nothing is known here: some are of no run, and somebody may try many. For one event loop.

    One that there is not is not asked for again for `UNKNOWN_SECONDS`. Of the others only so many are asked for at a
    time, and after as many misses one a second: runs that are known, or turn out to exist, cost nothing of that.
    """

    def __init__(self) -> None:
        self._missed: OrderedDict[str, tuple[float, NotFoundError]] = OrderedDict()
        self._left = float(_AT_ONCE)
        self._filled = -math.inf

    async def enter(self, run_id: str) -> None:
        """Wait until an id may be asked for; raise `NotFoundError` if there was no such run a moment ago."""
        while True:
            now = asyncio.get_running_loop().time()
            ended, error = self._missed.get(run_id, (0.0, None))
            if error is not None and now < ended:
                raise error
            self._left = min(self._left + (now - self._filled) / _REFILL_SECONDS, float(_AT_ONCE))
            self._filled = now
            if self._left >= 1.0:
                self._left -= 1.0
                return
            await asyncio.sleep((1.0 - self._left) * _REFILL_SECONDS)

    def found(self) -> None:
        """Give back what `enter` has taken: there is such a run, or it could not be told."""
        self._left = min(self._left + 1.0, float(_AT_ONCE))

    def missed(self, run_id: str, error: NotFoundError) -> None:
        """Remember that there is no such run."""
        self._missed[run_id] = (asyncio.get_running_loop().time() + UNKNOWN_SECONDS, error.with_traceback(None))
        self._missed.move_to_end(run_id)
        if len(self._missed) > KEPT:
            self._missed.popitem(last=False)
