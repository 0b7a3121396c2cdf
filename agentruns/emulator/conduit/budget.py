"""The rate limit: a sliding window of one minute for each payer, a workspace or a token (rate-limits)."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

_WINDOW: Final = 60.0
_GRAIN: Final = 1e-6  # sums of seconds are not exact


class Budget:
    """Remember when each payer's calls came; without a limit nothing is counted."""

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._spent: dict[str, deque[float]] = {}

    def ask(self, payer: str, now: float) -> int | None:
        """Take one call from the budget, or tell the whole seconds to wait; a refused call costs nothing."""
        if self._per_minute is None:
            return None
        spent = self._spent.setdefault(payer, deque())
        while spent and spent[0] <= now - _WINDOW + _GRAIN:
            spent.popleft()
        if len(spent) >= self._per_minute:
            freed = spent[len(spent) - self._per_minute]
            return max(1, math.ceil(freed + _WINDOW - now - _GRAIN))
        spent.append(now)
        return None

    def spend(self, payer: str, now: float, calls: int) -> None:
        """Let others spend from the budget."""
        self._spent.setdefault(payer, deque()).extend([now] * calls)
