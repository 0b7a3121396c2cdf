"""A budget of requests: never more than so many a second, evenly spaced, so that no window holds a burst."""

from __future__ import annotations

import asyncio


class Pace:
    """Let one caller through every `1 / rate` seconds, in the order of asking."""

    def __init__(self, rate: float) -> None:
        self._gap = 1.0 / rate
        self._next = 0.0

    async def wait(self) -> None:
        """Wait for a turn; one that is given up by cancellation is not given to another."""
        now = asyncio.get_running_loop().time()
        turn = max(self._next, now)
        self._next = turn + self._gap
        if turn > now:
            await asyncio.sleep(turn - now)
