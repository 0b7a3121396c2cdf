"""A signal that something has changed, for any number of waiters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Changed:
    """
    Wakes everybody who waits, each time that it is told to.

    A waiter that has to await something between its look and its wait takes its future before it looks (`waiter`), so
    that it misses nothing. For use within one event loop.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    @contextmanager
    def waiter(self) -> Iterator[asyncio.Future[None]]:
        """Give a future that is done at the next change; it raises what `fail` was given."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            yield waiter
        finally:
            self._waiters.discard(waiter)
            if waiter.done() and not waiter.cancelled():
                waiter.exception()  # seen, though nobody may have come to wait

    async def wait(self) -> None:
        """Wait for the next change; raise what `fail` is given."""
        with self.waiter() as waiter:
            await waiter

    def notify(self) -> None:
        """Wake everybody who waits now."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """Raise *error* where it is waited now."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
