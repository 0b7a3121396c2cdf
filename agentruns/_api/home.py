"""Where an owner is open: one event loop, in one thread of one process."""

from __future__ import annotations

import asyncio
from typing import Final

from agentruns.errors import ConfigurationError

_ELSEWHERE: Final = (
    "this client is used in another event loop than the one in which it was opened: another thread, another "
    "`asyncio.run`, or a process that was forked. Open a client of its own there, or hand the call over: "
    "`asyncio.run_coroutine_threadsafe(..., loop)`"
)


class Home:
    """The event loop in which an owner was opened; what is done in another is refused before it begins."""

    __slots__ = ("_loop",)

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> asyncio.AbstractEventLoop:
        """Belong to the running loop, and return it; raise `ConfigurationError` if this belongs to one already."""
        if self._loop is not None:
            raise ConfigurationError(
                "this client is open already; use it as it is, within the `async with` that opened it, or make another "
                "one by `connect(...)`"
            )
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                "a client runs on asyncio, and no event loop of asyncio runs here; in trio, and in code that is not "
                "async, use `agentruns.blocking`, from a thread"
            ) from None
        return self._loop

    def leave(self) -> None:
        """Belong to no loop."""
        self._loop = None

    def check(self) -> None:
        """Raise `ConfigurationError` in another loop than that of the owner."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:  # a child that was forked within the loop has none
            raise ConfigurationError(_ELSEWHERE) from None
        if here is not self._loop:
            raise ConfigurationError(_ELSEWHERE)
