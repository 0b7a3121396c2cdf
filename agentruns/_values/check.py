"""Checks of what users pass in: each error names the field, its value and the remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from attrs import Attribute

from .base import ConfigurationError

_UUID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""How a UUID is written that we make; `UUID` knows others, and takes ten times as long."""


def number(name: str, value: object, *, zero: bool = False) -> None:
    """Refuse anything but a finite number above zero, or with *zero* one of zero and above."""
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not _finite(value)
        or value < 0
        or (value == 0 and not zero)
    ):
        least = "zero or above" if zero else "above zero"
        raise ConfigurationError(f"{name} is {value!r}; it must be a finite number {least}", field=name)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def integer(name: str, value: object, least: int) -> None:
    """Refuse anything but a whole number of *least* and above."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name} is {value!r}; it must be a whole number, {least} or more", field=name)


def non_empty_str(name: str, value: object) -> str:
    """Return *value*, and refuse anything but a text with something in it that UTF-8 can carry."""
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{name} is {value!r}; it must be a text that is not empty", field=name)
    utf8(name, value)
    return value


def text_or_none(name: str, value: object) -> None:
    """Refuse anything but a text, which may be empty, and None."""
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{name} is {value!r}; it must be a text, or None", field=name)


def utf8(name: str, value: str) -> None:
    """Refuse a text that UTF-8 cannot carry."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{name} is a text that UTF-8 cannot carry: it has {value[error.start]!r} at {error.start}, half of a "
            "character",
            field=name,
            remedy="`text.encode(errors='replace').decode()` mends it",
        ) from None


def boolean(name: str, value: object) -> None:
    """Refuse anything but True and False: a text such as "no" would count as true."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is {value!r}; it must be True or False", field=name)


def instance(name: str, value: object, kind: type, remedy: str) -> None:
    """Refuse anything but a *kind*; *remedy* says how to come by one."""
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} is {value!r}; it must be of the class {kind.__name__}: {remedy}", field=name)


def _name(owner: object, attribute: Attribute[Any]) -> str:
    return f"{type(owner).__name__.lstrip('_')}.{attribute.name}"


# As attrs validators --------------------------------------------------------------------------------------------------


def positive(owner: object, attribute: Attribute[Any], value: object) -> None:
    """Refuse anything but a finite number above zero."""
    number(_name(owner, attribute), value)


def not_negative(owner: object, attribute: Attribute[Any], value: object) -> None:
    """Refuse anything but a finite number of zero and above."""
    number(_name(owner, attribute), value, zero=True)


def count(owner: object, attribute: Attribute[Any], value: object) -> None:
    """Refuse anything but a whole number of 0 and above."""
    integer(_name(owner, attribute), value, 0)


def at_least_one(owner: object, attribute: Attribute[Any], value: object) -> None:
    """Refuse anything but a whole number of 1 and above."""
    integer(_name(owner, attribute), value, 1)


def not_empty(owner: object, attribute: Attribute[Any], value: object) -> None:
    """Refuse anything but a text with something in it."""
    non_empty_str(_name(owner, attribute), value)


def is_boolean(owner: object, attribute: Attribute[Any], value: object) -> None:
    """Refuse anything but True and False."""
    boolean(_name(owner, attribute), value)


def is_object(owner: object, attribute: Attribute[Any], value: object) -> None:
    """Refuse anything but a mapping."""
    if not isinstance(value, Mapping):
        name = _name(owner, attribute)
        raise ConfigurationError(f"{name} is {value!r}; it must be a mapping, such as a dict", field=name)


def sequence_of(kind: type, remedy: str) -> Callable[[object, Attribute[Any], object], None]:
    """Return what refuses anything but a list or tuple of *kind*; *remedy* says how to come by one of them."""

    def check(owner: object, attribute: Attribute[Any], value: object) -> None:
        name = _name(owner, attribute)
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise ConfigurationError(f"{name} is {value!r}; it must be a list of {kind.__name__}: {remedy}", field=name)
        for place, each in enumerate(value):
            instance(f"{name}[{place}]", each, kind, remedy)

    return check


def is_uuid(owner: object, attribute: Attribute[Any], value: Any) -> None:
    """Refuse anything but the text of a UUID."""
    try:
        _ = _UUID.fullmatch(value) or UUID(value)
    except (ValueError, AttributeError, TypeError):
        name = _name(owner, attribute)
        raise ConfigurationError(
            f"{name} is {value!r}; it must be the text of a UUID", field=name, remedy="`str(uuid.uuid4())` makes one"
        ) from None
