"""A budget of requests: never more than so many a second, evenly spaced, so that no window holds a burst."""

from __future__ import annotations

import asyncio


class Pace:
    """Let one caller through every `1 / rate` seconds, in the order of asking."""

    def __init__(self, rate: float) -> None:
        self._gap = 1.0 / rate
        self._next = 0.0
        self._line = asyncio.Lock()

    async def wait(self) -> None:
        """Wait for a turn; a wait that is cancelled takes none."""
        loop = asyncio.get_running_loop()
        async with self._line:
            if self._next > loop.time():
                await asyncio.sleep(self._next - loop.time())
            self._next = loop.time() + self._gap
