"""
How many runs a vendor has room for, where it says so by refusing one: learned, and asked by one start at a time.

A start that was refused stands in line. It asks again when a run of ours is over, or after as long as the vendor asked
for: others may use its slots, too. Until the line is empty, no further start is let through.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final

_FIRST_WAIT: Final = 1.0
"""Seconds before a start asks again after a run of ours was over: its slot may be free a moment later than it seems."""


class Slots:
    """The slots of one account, as its clients in one event loop know them."""

    __slots__ = (
        "__weakref__",
        "_hint",
        "_left_at",
        "_line",
        "_places",
        "_probe_at",
        "_refused",
        "_subscribers",
        "_timer",
        "most",
    )

    def __init__(self) -> None:
        self._subscribers: list[Callable[[], None]] = []
        self._places = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self._refused = 0  # how often in a row since a run of ours was over
        self._left_at = -math.inf  # when one was
        self._hint = 0.0  # the seconds that the vendor asked for last
        self._probe_at = -math.inf  # when it is asked whether there is room for one more
        self._timer: asyncio.TimerHandle | None = None
        self.most: int | None = None
        """How many there are for us, None while none was refused."""

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call *changed* when a start may be let through."""
        self._subscribers.append(changed)

    def unsubscribe(self, changed: Callable[[], None]) -> None:
        """Call it no more."""
        self._subscribers.remove(changed)
        if not self._subscribers and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def held(self) -> int:
        """Return how many places are held by runs, or by starts that are under way."""
        return self._places - len(self._line)

    @property
    def waiting(self) -> int:
        """Return how many starts wait for a slot."""
        return len(self._line)

    def opens_at(self, now: float) -> float:
        """Return when a new start may be let through; infinite while others wait for a slot."""
        if self._line:
            return math.inf
        if self.most is None or self.held < self.most:
            return -math.inf
        return max(self._probe_at, now)

    def enter(self) -> None:
        """Note a start that was let through."""
        self._places += 1
        self._asks()

    def leave(self) -> None:
        """Note a run that is over, or a start that was given up."""
        self._places -= 1
        if self.most is not None:
            self._left_at, self._refused = asyncio.get_running_loop().time(), 0
        self._next()

    async def wait(self, seconds: float) -> None:
        """Wait, after a refusal that asked for so many *seconds*, until it is this start's turn to ask again."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._line.append(turn)  # from now on it holds no slot
        self.most = self.held if self.most is None else min(self.most, self.held)
        wait = seconds
        if self.held == 0 and loop.time() < self._left_at + seconds:
            wait = min(_FIRST_WAIT * 2.0 ** min(self._refused, 10), seconds)
            self._refused += 1
        self._hint, self._probe_at = seconds, loop.time() + wait
        self._arm()
        try:
            await turn
        except BaseException:
            if turn in self._line:
                self._line.remove(turn)
            raise

    def _next(self) -> None:
        """Let the first in line ask, if a slot may be free."""
        if self._line and self.most is not None and self.held < max(self.most, 1):
            self._let()
        for changed in tuple(self._subscribers):
            changed()

    def _let(self) -> None:
        turn = self._line.popleft()
        if not turn.done():
            turn.set_result(None)
        self._asks()
        self._arm()

    def _probe(self) -> None:
        """Let the first in line ask, as long after the last refusal as the vendor wanted."""
        self._timer = None
        if self._line:
            self._let()

    def _asks(self) -> None:
        """Note that one more asks; where it is refused, it stands in line again, and `most` is as before."""
        if self.most is not None and self.held > self.most:
            self.most = self.held
            self._probe_at = asyncio.get_running_loop().time() + self._hint

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._line:
            self._timer = asyncio.get_running_loop().call_at(self._probe_at, self._probe)
