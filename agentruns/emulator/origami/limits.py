"""The request budget: a sliding minute per organization and per address (docs.origami.chat/authentication)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

from attrs import define, field

from .errors import ApiError

_MINUTE: Final = 60.0
_USUAL: Final = 100  # requests a minute of one organization


@define
class _Window:
    """The requests of the last minute under one limit."""

    scope: str
    limit: int
    seen: deque[float] = field(factory=deque)

    def forget(self, now: float) -> None:
        while self.seen and self.seen[0] <= now - _MINUTE:
            self.seen.popleft()

    @property
    def remaining(self) -> int:
        return self.limit - len(self.seen)

    def free_at(self, now: float) -> float:
        return self.seen[0] + _MINUTE if self.seen else now


class Budget:
    """Count requests; a refused one is not counted."""

    def __init__(
        self, per_organization: int | None, per_address: int | None, wall: Callable[[float], datetime], *, hint: bool
    ) -> None:
        limits = {"Global": per_organization, "IP": per_address}
        self._windows = [_Window(scope, limit) for scope, limit in limits.items() if limit is not None]
        self._wall = wall
        self._hint = hint

    def spend(self, now: float) -> None:
        """Count a request or refuse it."""
        for window in self._windows:
            window.forget(now)
        empty = [window.free_at(now) for window in self._windows if window.remaining <= 0]
        if empty:
            raise self.refusal(max(empty) - now)
        for window in self._windows:
            window.seen.append(now)

    def refusal(self, wait: float, headers: Mapping[str, str] | None = None) -> ApiError:
        """Make the refusal of a caller who should come back later."""
        pause = {"Retry-After": str(max(math.ceil(wait), 1))} if self._hint else {}
        return ApiError("RATE_LIMITED", headers={**pause, **(headers or {})})

    def planted(self, now: float) -> ApiError:
        """Make a refusal that only the test's plan calls for; without limits it shows the vendor's own."""
        windows = self._windows or [_Window("Global", _USUAL, deque([now - _MINUTE + 1] * _USUAL))]
        return self.refusal(1, self._written(windows, now))

    def headers(self, now: float) -> dict[str, str]:
        """Write the X-RateLimit headers, whose reset is a Unix time."""
        return self._written(self._windows, now)

    def _written(self, windows: Iterable[_Window], now: float) -> dict[str, str]:
        written = {}
        for window in windows:
            written[f"X-RateLimit-Limit-{window.scope}"] = str(window.limit)
            written[f"X-RateLimit-Remaining-{window.scope}"] = str(window.remaining)
            reset = self._wall(window.free_at(now)).timestamp()
            written[f"X-RateLimit-Reset-{window.scope}"] = str(math.ceil(reset))
        return written
