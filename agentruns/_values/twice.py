"""Where a value stands within a larger one, so that it need not be written twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from . import codec
from .generic import Json

_LEAST_LENGTH: Final = 64
"""Characters: it does not pay to say of a shorter text where it stands."""

_MOST_PARTS: Final = 1000
"""A value is looked for in so many parts, outermost first."""


def place_of(value: Json, within: Json) -> list[str | int] | None:
    """Return the path to *value* in *within*; None for one that is short, or is not found soon."""
    if not (len(value) >= _LEAST_LENGTH if isinstance(value, str) else isinstance(value, dict | list) and value):
        return None
    ahead: deque[tuple[list[str | int], Json]] = deque([([], within)])
    for _ in range(_MOST_PARTS):
        if not ahead:
            return None
        path, part = ahead.popleft()
        if path and part == value and _is_same(part, value):
            return path
        if isinstance(part, dict):
            ahead.extend(([*path, name], each) for name, each in part.items())
        elif isinstance(part, list):
            ahead.extend(([*path, index], each) for index, each in enumerate(part))
    return None


def _is_same(one: Json, other: Json) -> bool:
    """Tell whether equal values are the same JSON: 1 and True are not."""
    return isinstance(one, str) or codec.encode(one) == codec.encode(other)


def value_at(path: Sequence[str | int], within: Json) -> Json:
    """Return what stands at a path; raise `ValueError` where there is nothing."""
    for step in path:
        if isinstance(within, Mapping) and isinstance(step, str) and step in within:
            within = within[step]
        elif isinstance(within, Sequence) and not isinstance(within, str) and isinstance(step, int):
            within = within[step] if step < len(within) else _nothing(path)
        else:
            _nothing(path)
    return within


def _nothing(path: Sequence[str | int]) -> Json:
    raise ValueError(f"there is nothing at {path!r}")
