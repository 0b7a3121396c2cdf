"""Connections on which nobody has signed in: few at a time, and none for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

PATIENCE_SECONDS: Final = 10.0
"""Seconds that a connection has for showing the cookie of a session."""

MOST: Final = 32
"""Such connections at a time: whoever opens more loses the oldest, and takes no descriptors from others."""


class Newcomers:
    """Ends connections on which nobody signs in within *patience* seconds, and the oldest beyond *most*."""

    def __init__(self, *, patience: float = PATIENCE_SECONDS, most: int = MOST) -> None:
        self._patience = patience
        self._most = most
        self._timers: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def watched(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Return what makes protocols for a server: those of *make*, each known here when its connection is made."""
        return lambda: _Doorstep(self, make)

    def arrive(self, transport: asyncio.Transport) -> None:
        """Take in a new connection."""
        while len(self._timers) >= self._most:
            self._end(cast("asyncio.Transport", next(iter(self._timers))))
        loop = asyncio.get_running_loop()
        self._timers[transport] = loop.call_later(self._patience, self._end, transport)

    def admit(self, transport: asyncio.BaseTransport | None) -> None:
        """Leave a connection alone from now on: somebody has signed in on it."""
        timer = self._timers.pop(transport, None) if transport is not None else None
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """End all of them."""
        for transport in tuple(self._timers):
            self._end(cast("asyncio.Transport", transport))

    def _end(self, transport: asyncio.Transport) -> None:
        self.admit(transport)
        transport.abort()


class _Doorstep(asyncio.Protocol):
    """Gives its connection to another protocol as soon as it is made."""

    def __init__(self, newcomers: Newcomers, make: Callable[[], asyncio.Protocol]) -> None:
        self._newcomers = newcomers
        self._make = make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection on."""
        protocol = self._make()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self._newcomers.arrive(cast("asyncio.Transport", transport))
