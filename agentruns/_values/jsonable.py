"""
Any value in plain JSON types, as its reader will see it.

All that `json.dumps` or pydantic would write is written: subclasses count as their base. Nothing is dropped: what
cannot be written is an error. (`msgspec.to_builtins` refuses subclasses, and leaves out what list and dict subclasses
keep elsewhere, private fields, and one of two keys that are spelled alike.)
"""

from __future__ import annotations

import base64
import enum
import os
import re
from collections import UserString
from collections.abc import Callable, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from math import inf, isfinite
from types import GeneratorType
from typing import Any, Final

import attrs

from .base import ConfigurationError
from .generic import Json

_AS_TEXT: Final = {"decimal", "fractions", "ipaddress", "pathlib", "uuid"}
"""Modules whose values are written as `str()` has them."""

_WRITTEN_AT_ONCE: Final = 10_000  # bits
_MOMENTS: Final = (datetime, date, time, timedelta)


class TooLargeError(Exception):
    """Say that a value has more parts than were to be written."""


class Writer:
    """
    Write one value; what it has seen of generators is kept for a second try.

    With *mend*, texts that UTF-8 cannot carry are written with `?` for each half of a character; else they are errors.
    """

    def __init__(self, *, mend: bool = False) -> None:
        self._text: Callable[[str], str] = mended if mend else _carried
        self._drained: dict[int, list[Any]] = {}
        self._room = inf

    def write(self, value: object, what: str, most: float = inf) -> Json:
        """
        Return *value* in plain JSON types.

        Raise `ConfigurationError`, naming *what* it is, for what JSON cannot carry, and `TooLargeError` for one of more
        than about *most* parts.
        """
        self._room = most
        try:
            return self.plain(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"{what} is not something that JSON can carry ({error}). Use dicts, lists, strings, finite numbers, "
                "booleans, None, or attrs classes of these"
            ) from error

    def plain(self, value: Any) -> Any:
        """Return *value* in plain JSON types; one frame for each level, so that deep values fit into the stack."""
        kind = value.__class__
        self._room -= 1
        if self._room < 0:
            raise TooLargeError
        if value is None or kind is bool:
            return value
        if kind is str:
            self._room -= len(value) >> 10
            return value if value.isascii() else self._text(value)
        if kind is int:
            return _whole(value)
        if kind is float:
            return _finite(value)
        if kind is list or kind is tuple:
            return [self.plain(each) for each in value]
        if not isinstance(value, Mapping):
            if isinstance(value, enum.Enum):
                return self.plain(value.value)
            known, scalar = self._scalar(value)
            if known:
                return scalar
            if isinstance(value, Sequence | AbstractSet | ValuesView):
                return [self.plain(each) for each in value]
            if isinstance(value, GeneratorType):
                return [self.plain(each) for each in self._items(value)]
            members = _members(value)
            if members is None:
                return self.plain(_stand_in(value))
            value = members
        written: dict[str, Any] = {}
        for key, each in value.items():
            name = self._key(key)
            if name in written:
                raise ValueError(f"two keys of an object are both spelled {name!r}")
            written[name] = self.plain(each)
        return written

    def _key(self, key: Any) -> str:
        """Return the name of a member of an object, spelled as `json.dumps` does."""
        if key.__class__ is str and key.isascii():
            return str(key)
        plain = self.plain(key)
        if isinstance(plain, str):
            return plain
        if plain is None or isinstance(plain, bool):
            return {None: "null", True: "true", False: "false"}[plain]
        if isinstance(plain, int | float):
            return repr(plain)
        raise TypeError(f"{key!r} cannot be the name of a member of an object")

    def _scalar(self, value: Any) -> tuple[bool, Any]:
        """Return whether a value has no parts, and what is written for it."""
        if isinstance(value, str):
            return True, self._text(str.__str__(value))
        if isinstance(value, UserString):
            return True, self._text(value.data)
        if isinstance(value, int):
            return True, _whole(int.__int__(value))
        if isinstance(value, float):
            return True, _finite(float.__float__(value))
        if isinstance(value, bytes | bytearray | memoryview):
            self._room -= len(value) >> 10
            return True, base64.b64encode(value).decode()
        if isinstance(value, _MOMENTS):
            return True, _moment(value)
        if isinstance(value, os.PathLike):
            return True, self._text(os.fsdecode(value))
        if any(base.__module__ in _AS_TEXT for base in type(value).__mro__):
            return True, str(value)
        if isinstance(value, re.Pattern):
            return True, self.plain(value.pattern)
        return False, None

    def _items(self, generator: Any) -> list[Any]:
        """Return what a generator gives, which it does once only."""
        found = self._drained.get(id(generator))
        if found is None:
            found = self._drained[id(generator)] = list(generator)
        return found


def _members(value: Any) -> dict[str, Any] | None:
    """Return the fields of an attrs class or a dataclass, private ones included; None for anything else."""
    kind = type(value)
    if attrs.has(kind):
        names = [each.name for each in attrs.fields(kind)]
    elif is_dataclass(kind):
        names = [each.name for each in fields(value)]
    else:
        return None
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _stand_in(value: Any) -> Any:
    """Return what is written for an object of a library that we need not have."""
    kind = type(value)
    written: Any = value
    if hasattr(kind, "model_dump"):  # pydantic
        written = value.model_dump(mode="json")
    elif hasattr(kind, "__struct_fields__"):
        import msgspec

        written = msgspec.to_builtins(value, enc_hook=_builtins, str_keys=True)
    elif hasattr(kind, "dtype") and hasattr(kind, "tolist"):  # numpy, and the columns of pandas
        unit = getattr(value.dtype, "kind", "")
        written = (_in_microseconds(value, unit) if unit and unit in "mM" else value).tolist()
    if type(written) is kind:
        raise TypeError(f"objects of {kind.__module__}.{kind.__qualname__} have no form in JSON")
    return written


def _in_microseconds(value: Any, unit: str) -> Any:
    """Return numpy's times in a unit that has a form in JSON: in any finer one numpy would give plain numbers."""
    coarse = value.astype(f"{unit}8[us]")
    if not ((coarse != value) & (value == value)).any():  # what is no time equals nothing, itself included
        return coarse
    if unit == "m":
        raise ValueError(f"{value!r} has parts finer than microseconds, which would be lost; round it first")
    return value.astype("U")


def _moment(value: Any) -> str:
    """Return ISO 8601; a subclass counts as its base."""
    import msgspec

    if value != value:  # as is NaT of pandas, whose nanoseconds are NaN
        raise ValueError(f"{value!r} is no time")
    if getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0):  # pandas
        return str(value.isoformat())
    if isinstance(value, datetime):
        exact: Any = datetime.combine(date(value.year, value.month, value.day), _time_of(value))
    elif isinstance(value, date):
        exact = date(value.year, value.month, value.day)
    elif isinstance(value, time):
        exact = _time_of(value)
    else:
        exact = timedelta(value.days, value.seconds, value.microseconds)
    written: str = msgspec.to_builtins(exact)
    return written


def _time_of(value: datetime | time) -> time:
    """Return the time of the day, with its zone."""
    return time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold)


def _whole(value: int) -> int:
    if value.bit_length() > _WRITTEN_AT_ONCE:
        repr(value)  # which raises ValueError beyond Python's limit of digits
    return value


def _finite(value: float) -> float:
    if not isfinite(value):
        raise ValueError(f"{value!r} is not finite")
    return value


def _carried(text: str) -> str:
    text.encode()
    return text


def _builtins(value: object) -> Json:
    """Return *value* in plain JSON types; raise whatever says why not."""
    return Writer().plain(value)


def to_jsonable(value: object, what: str, most: float = inf) -> Json:
    """
    Return *value* (attrs classes, datetimes, enums and the like included) as its reader will see it: plain JSON types.

    Raise `ConfigurationError`, naming *what* it is, for what JSON cannot carry: NaN, functions, lone surrogates; and
    `TooLargeError` for a value of more than about *most* parts.
    """
    return Writer().write(value, what, most)


def mended(text: str) -> str:
    """Return *text* with `?` for each half of a character, which UTF-8 cannot carry."""
    return text.encode(errors="replace").decode()
