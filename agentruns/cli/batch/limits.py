"""How far a call may go before it takes no more rows: failures, tokens, cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from agentruns._values import check

_FAILURES: Final = frozenset({"failed", "error"})


@frozen(kw_only=True)
class Limits:
    """
    How far a call may go: None sets no end.

    *failures* are those of this call. *tokens* and *cost*, in the vendor's unit, are those of the output as a whole,
    every attempt of every call included.
    """

    failures: int | None = None
    tokens: int | None = None
    cost: float | None = None

    def __attrs_post_init__(self) -> None:
        for name, count in (("--max-failures", self.failures), ("--max-total-tokens", self.tokens)):
            if count is not None:
                check.integer(name, count, 1)
        if self.cost is not None:
            check.number("--max-total-cost", self.cost)

    def passed(self, failures: int, tokens: int, cost: float) -> str:
        """Return which end is reached, and by which option more is allowed; an empty text while none is."""
        for name, what, most, found in (
            ("--max-failures", "{} rows have failed", self.failures, failures),
            ("--max-total-tokens", "{} tokens are used", self.tokens, tokens),
            ("--max-total-cost", "a cost of {} is reached", self.cost, cost),
        ):
            if most is not None and found >= most:
                return f"{what.format(f'{found:g}')}, and {name} is {most:g}"
        return ""


class Spending:
    """What the rows of an output have come to: tokens and cost of every attempt, and failures of this call."""

    def __init__(self) -> None:
        self.failures = 0
        self.tokens = 0
        self.cost = 0.0

    def add(self, spent: Mapping[str, Any] | None, *, sign: int = 1) -> None:
        """Count what an item has used; with *sign* -1, no more."""
        if spent is not None:
            self.tokens += sign * ((spent["input_tokens"] or 0) + (spent["output_tokens"] or 0))
            self.cost += sign * (spent["cost"] or 0.0)

    def ended(self, status: str) -> None:
        """Count how an item has ended."""
        self.failures += status in _FAILURES


def spent_by(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what an item of an output has used in all its attempts, None where nothing is known."""
    usage, earlier = line.get("usage") or {}, line.get("earlier") or {}
    found = {name: _sum(usage.get(name), earlier.get(name)) for name in ("input_tokens", "output_tokens")}
    found["cost"] = _sum(line.get("cost"), earlier.get("cost"))
    return found if any(each is not None for each in found.values()) else None


def _sum(one: Any, other: Any) -> Any:
    known = [each for each in (one, other) if isinstance(each, int | float)]
    return sum(known) if known else None
