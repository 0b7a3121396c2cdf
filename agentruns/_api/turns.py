"""Who waits for a turn to send: calls and starts, in the order of asking, each vendor's own until its pause is over."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Hashable, Iterable
from copy import copy
from itertools import count
from typing import Final, NamedTuple, TypeAlias

LONGEST_PAUSE: Final = 3600.0
"""Seconds: a vendor that asks for more is asked again after this."""


class Turn(NamedTuple):
    """A call, or a start, that waits, of a client."""

    number: int
    future: asyncio.Future[None]
    client: Hashable


Line: TypeAlias = deque[Turn]


class Lines:
    """The calls that wait to be sent to one vendor, the starts that wait to be let through, and the pause it wants."""

    __slots__ = ("_because", "calls", "paused_until", "starts")

    def __init__(self) -> None:
        self.calls: Line = deque()
        self.starts: Line = deque()
        self.paused_until = -math.inf
        self._because: Exception | None = None

    def pause(self, seconds: float, because: Exception) -> None:
        """Note the wish for a pause; a shorter one than the last changes nothing."""
        until = asyncio.get_running_loop().time() + min(seconds, LONGEST_PAUSE)
        if until > self.paused_until:
            self.paused_until, self._because = until, because

    def check(self, now: float, longest: float) -> None:
        """Raise what asked for the pause if more than *longest* seconds of it are left."""
        if self._because is None:
            return
        left = self.paused_until - now
        if left <= 0:
            self._because = None
        elif left > longest:
            raise copy(self._because)  # one that is raised holds, by its traceback, whatever it is raised to

    async def resumed(self, longest: float) -> None:
        """Wait until the pause is over; raise as `check` does."""
        loop = asyncio.get_running_loop()
        while (left := self.paused_until - loop.time()) > 0:
            self.check(loop.time(), longest)
            await asyncio.sleep(left)

    def leave(self, client: Hashable, because: Exception) -> None:
        """Have a client wait for nothing any more: raise *because* where it does."""
        for turn in (*self.calls, *self.starts):
            if turn.client is client and not turn.future.done():
                turn.future.set_exception(copy(because))
        self.calls = deque(turn for turn in self.calls if turn.client is not client)
        self.starts = deque(turn for turn in self.starts if turn.client is not client)


class Turns:
    """All who wait, of every vendor."""

    __slots__ = ("_numbers", "_vendors")

    def __init__(self) -> None:
        self._vendors: dict[str, Lines] = {}
        self._numbers = count()

    def of(self, vendor: str) -> Lines:
        """Return the lines of a vendor."""
        return self._vendors.setdefault(vendor, Lines())

    def join(self, line: Line, client: Hashable) -> Turn:
        """Stand in a line, behind all who wait."""
        turn = Turn(next(self._numbers), asyncio.get_running_loop().create_future(), client)
        line.append(turn)
        return turn

    @property
    def is_awaited(self) -> bool:
        """Tell whether anybody waits."""
        return any(lines.calls or lines.starts for lines in self._vendors.values())

    def first_call(self, now: float) -> Line | None:
        """Return the line of calls whose first waits longest, of vendors that ask for no pause; None if none waits."""
        return _first([lines.calls for lines in self._vendors.values() if lines.paused_until <= now])

    def first_start(self, now: float) -> Line | None:
        """Return the line of starts whose first waits longest, as `first_call` does."""
        return _first([lines.starts for lines in self._vendors.values() if lines.paused_until <= now])

    def calls_from(self) -> float | None:
        """Return the time at which no pause holds back the calls of the first vendor; None if no call waits."""
        return min((lines.paused_until for lines in self._vendors.values() if lines.calls), default=None)

    def starts_from(self) -> float | None:
        """Return the time at which no pause holds back the starts of the first vendor; None if no start waits."""
        return min((lines.paused_until for lines in self._vendors.values() if lines.starts), default=None)

    def refuse(self, because: Exception) -> None:
        """Raise *because* where anybody waits."""
        for lines in self._vendors.values():
            for turn in (*lines.calls, *lines.starts):
                if not turn.future.done():
                    turn.future.set_exception(copy(because))


def _first(lines: Iterable[Line]) -> Line | None:
    """Return the line whose first turn has the lowest number, None if all are empty; turns given up are dropped."""
    first = None
    for line in lines:
        while line and line[0].future.done():
            line.popleft()
        if line and (first is None or line[0].number < first[0].number):
            first = line
    return first
