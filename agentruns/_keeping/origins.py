"""Whether what starts a run comes back from a journal as it was: asked of its class, and then of each value."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

import attrs

from agentruns._values import codec
from agentruns.dialects.protocol import Dialect
from agentruns.errors import ConfigurationError

from .work import deserialize_origin

_PLAIN: Final = (str, int, float, bool, NoneType, *codec.WRITTEN_AS_TEXT)
_FREE: Final = frozenset({Any, object})
_REMEDY: Final = "make it of attrs classes, texts, numbers, dates, enums, and lists, mappings and unions of these"


def check_class(kind: type[Any]) -> None:
    """Raise `ConfigurationError`, naming the field, for an attrs class that a journal could not bring back."""
    lost = _unreadable(kind, kind.__name__, set()) if attrs.has(kind) else None
    if lost is not None:
        raise ConfigurationError(
            f"an origin cannot be brought back from a journal: the type of {lost} is not known",
            field="journal",
            remedy=_REMEDY,
        )


def check_value(origin: Any, text: str, dialect: Dialect) -> None:
    """Raise `ConfigurationError`, naming the field, for an origin that *text* would not bring back as it is."""
    kind = type(origin)
    if kind is not dialect.Origin or not attrs.has(kind):
        return
    lost = _difference(origin, deserialize_origin(text, dialect), kind, kind.__name__)
    if lost is not None:
        raise ConfigurationError(
            f"this origin cannot be brought back from a journal as it is: {lost}", field="origin", remedy=_REMEDY
        )


def _unreadable(kind: Any, path: str, seen: set[Any]) -> str | None:
    """Return the path of the first part of a type that nothing is known of, None if there is none."""
    base = get_origin(kind) or kind
    if kind in seen or base is Literal or not (isinstance(base, type) or get_args(kind)):
        return None
    seen.add(kind)
    if attrs.has(base):
        fields = attrs.fields(attrs.resolve_types(base))
        inner = [(each.type, f"{base.__name__}.{each.name}") for each in fields if each.init]
    else:
        if isinstance(base, type) and not _is_known(base):
            return f"{path}, {kind!r}"
        inner = [(each, path) for each in get_args(kind) if each is not ...]
    return next(filter(None, (_unreadable(each, where, seen) for each, where in inner)), None)


def _is_known(kind: type[Any]) -> bool:
    """Tell whether cattrs may have a way for a class: what it makes of a value is looked at when there is one."""
    if kind in _FREE or kind in {Union, UnionType} or issubclass(kind, (*_PLAIN, Enum)):
        return True
    is_of_fields = any(hasattr(kind, name) for name in ("__dataclass_fields__", "_fields", "__required_keys__"))
    return is_of_fields or kind.__module__ in {"builtins", "collections", "collections.abc", "typing"}


def _difference(before: Any, after: Any, kind: Any, path: str) -> str | None:
    """Return what is not the same, where the type tells; JSON without a type may come back in other classes."""
    if kind in _FREE or isinstance(kind, TypeVar | str) or kind is None:
        return None
    if attrs.has(type(before)):
        if type(after) is not type(before):
            return _told(before, after, path)
        own = type(before)
        parts = [
            (getattr(before, each.name), getattr(after, each.name), each.type, f"{own.__name__}.{each.name}")
            for each in attrs.fields(attrs.resolve_types(own))
            if each.init and each.eq
        ]
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        values = (get_args(kind) or (Any, Any))[-1] if get_origin(kind) is not Union else Any
        found = {str(name): value for name, value in after.items()}
        parts = [(value, found.get(str(name)), values, f"{path}[{name!r}]") for name, value in before.items()]
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple) and len(before) == len(after):
        items = (get_args(kind) or (Any,))[0] if get_args(kind)[1:] in {(), (...,)} else object
        parts = [
            (one, other, items, f"{path}[{at}]") for at, (one, other) in enumerate(zip(before, after, strict=True))
        ]
    else:
        return None if before == after else _told(before, after, path)
    return next(filter(None, (_difference(*part) for part in parts)), None)


def _told(before: Any, after: Any, path: str) -> str:
    return f"{path}, of {type(before).__name__}, would be another {type(after).__name__}"
