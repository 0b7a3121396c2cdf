"""Checks of what users pass in: each error names the field, its value and the remedy."""

from __future__ import annotations

import math
from typing import Any
from uuid import UUID

from attrs import Attribute

from .errors import ConfigurationError


def number(name: str, value: Any, *, zero: bool = False) -> None:
    """Refuse anything but a finite number above zero, or with *zero* one of zero and above."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or not _finite(value) or value < 0 or (value == 0 and not zero):
        least = "zero or above" if zero else "above zero"
        raise ConfigurationError(f"{name} is {value!r}; it must be a finite number {least}")


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def whole(name: str, value: Any, least: int) -> None:
    """Refuse anything but a whole number of *least* and above."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name} is {value!r}; it must be a whole number, {least} or more")


def text(name: str, value: Any) -> str:
    """Return *value*, and refuse anything but a text with something in it."""
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{name} is {value!r}; it must be a text that is not empty")
    return value


def _name(owner: object, attribute: Attribute[Any]) -> str:
    return f"{type(owner).__name__.lstrip('_')}.{attribute.name}"


# As attrs validators --------------------------------------------------------------------------------------------------


def positive(owner: object, attribute: Attribute[Any], value: Any) -> None:
    """Refuse anything but a finite number above zero."""
    number(_name(owner, attribute), value)


def not_negative(owner: object, attribute: Attribute[Any], value: Any) -> None:
    """Refuse anything but a finite number of zero and above."""
    number(_name(owner, attribute), value, zero=True)


def count(owner: object, attribute: Attribute[Any], value: Any) -> None:
    """Refuse anything but a whole number of 0 and above."""
    whole(_name(owner, attribute), value, 0)


def at_least_one(owner: object, attribute: Attribute[Any], value: Any) -> None:
    """Refuse anything but a whole number of 1 and above."""
    whole(_name(owner, attribute), value, 1)


def not_empty(owner: object, attribute: Attribute[Any], value: Any) -> None:
    """Refuse anything but a text with something in it."""
    text(_name(owner, attribute), value)


def is_uuid(owner: object, attribute: Attribute[Any], value: Any) -> None:
    """Refuse anything but the text of a UUID."""
    try:
        UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError(
            f"{_name(owner, attribute)} is {value!r}; it must be the text of a UUID, such as str(uuid.uuid4())"
        ) from None
