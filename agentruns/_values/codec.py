"""
JSON text and typed values, strictly.

cattrs coerces by default (`str(None)` is "None", `bool("false")` is True). The converter here takes only what the
type says; unknown fields are ignored, missing or wrong ones are reported with their JSON path. Two things are alike:
4213.0 and the integer 4213, and a null and a missing field where the class has a default that is not None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

import attrs

from . import containers
from .base import ConfigurationError
from .containers import json_name
from .generic import Json
from .jsonable import to_jsonable as to_jsonable

if TYPE_CHECKING:  # this and msgspec are imported when they are first used: `import agentruns` stays light
    import cattrs

T = TypeVar("T")

DEEPEST = 128
"""How deeply what vendors answer may be nested."""

MOST_BRACKETS = 500_000
"""How many lists and objects it may have: one of three bytes takes more than twenty times as many in memory."""

_MARK = b"\xef\xbb\xbf"  # a byte order mark, which some servers put before UTF-8


WRITTEN_AS_TEXT: Final = (datetime, date, UUID, Decimal)
"""Classes whose values stand in JSON as texts."""


class CodecError(ValueError):
    """Say what does not fit, with its JSON path; callers turn it into an error of their own."""


class CamelCase:
    """Mark, as a base, an attrs class whose JSON spells `lead_count` as `leadCount`; errors spell it so, too."""

    __slots__ = ()


_ESCAPES: Final = re.compile(rb"\\(?:u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(u[dD][89a-fA-F][\da-fA-F]{2})|.)", re.DOTALL)
"""What a backslash begins in a text of JSON: a pair of surrogates, half of one, which is the group, or another."""


def decode(body: bytes | str, *, trusted: bool = False, received: bool = False) -> Json:
    """
    Return the JSON value in *body*; empty is None.

    Raise `CodecError` for anything that is not JSON and, unless it is *trusted*, for values nested so deeply that
    comparing, copying or writing them would fail somewhere else. Half of a pair of surrogates, which no text can carry,
    is U+FFFD in what was *received*: servers whose texts are UTF-16 cut them within an emoji.
    """
    if not body:
        return None
    import msgspec

    text = b""
    try:
        text = body.encode() if isinstance(body, str) else body.removeprefix(_MARK)
        brackets = 0 if trusted else text.count(b"[") + text.count(b"{")
        if brackets > MOST_BRACKETS:
            raise CodecError(f"more than {MOST_BRACKETS} lists and objects")
        value = msgspec.json.decode(text)
    except RecursionError:
        raise CodecError("nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        half = next((found[0] for found in _ESCAPES.finditer(text) if found[1]), None)
        if half is None:
            raise CodecError(str(error)) from None
        if not received:
            raise CodecError(f"{half.decode()} alone is no character") from None
        return decode(_ESCAPES.sub(lambda found: rb"\ufffd" if found[1] else found[0], text), trusted=trusted)
    if brackets > DEEPEST and _depth(value) > DEEPEST:
        raise CodecError(f"nested too deeply: more than {DEEPEST} levels")
    return value


def glance(body: bytes, cls: type[T]) -> T | None:
    """
    Return what *body* has of the attrs class *cls*, at a fourth of the cost of reading all.

    Of one that is `CamelCase`, and has no such class within, it is something with the same fields. All else is passed
    over: it is JSON, but perhaps more deeply nested, or with larger numbers, than `decode` takes.
    None is for a body that does not fit to the letter, or is no JSON; `decode` and `structure` then say what is wrong.
    """
    try:
        if not body.isascii():
            body.decode()  # texts that are passed over are not looked at
        return cast("T", _reader(cls)(body))  # type: ignore[arg-type]
    except Exception:  # the reasons of `decode` and `structure` are the ones to tell
        return None


@cache
def _reader(cls: type[Any]) -> Callable[[bytes], Any]:
    import msgspec

    return msgspec.json.Decoder(_in_camel_case(cls) if issubclass(cls, CamelCase) else cls).decode


def _in_camel_case(cls: type[Any]) -> type[Any]:
    """Return a class of msgspec's own for one that is `CamelCase`: of attrs classes it takes the names as they are."""
    import msgspec

    told = [
        (each.name, each.type, msgspec.NODEFAULT if each.default is attrs.NOTHING else each.default)
        for each in attrs.fields(attrs.resolve_types(cls))
    ]
    return msgspec.defstruct(cls.__name__, told, rename=camel, kw_only=True)


def _depth(value: Json) -> int:
    """Return how deeply a JSON value is nested, as far as one level beyond `DEEPEST`."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        depth += 1
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def prepare() -> None:
    """Import what reading and writing need: at its first use, files may have run out."""
    import msgspec.json

    msgspec.json.decode(b"0")
    converter()


def encode(value: Json) -> bytes:
    """Return *value*, made of plain JSON types, as JSON."""
    import msgspec

    return msgspec.json.encode(value)


def structure(value: Json, cls: type[T], path: str = "$") -> T:
    """
    Return *value*, which stands at *path*, as *cls*.

    Raise `CodecError` listing what does not fit and where, and `ConfigurationError` for a class with a field of a type
    that no JSON value becomes: it fits nothing.
    """
    with suppress(Exception):  # what is wrong, and where, is then found out at leisure
        return cast("T", _hook(cls)(value, cls))  # type: ignore[arg-type]
    try:
        return converter().structure(value, cls)
    except Exception as error:
        from cattrs import StructureHandlerNotFoundError, transform_error

        if isinstance(error, StructureHandlerNotFoundError):
            kind = _kind_name(error.type_)
            raise ConfigurationError(
                f"{_kind_name(cls)} cannot be read from JSON: nothing is known of the type {kind}",
                remedy="make its fields of texts, numbers, dates, enums, attrs classes, and lists, mappings and unions "
                "of these",
            ) from None
        told = transform_error(error, path=path, format_exception=_reason)
        more = f"; and {len(told) - containers.MOST_TOLD} more" if len(told) > containers.MOST_TOLD else ""
        raise CodecError("; ".join(told[: containers.MOST_TOLD]) + more) from None


def unstructure(value: object, *, defaults: bool = True) -> Json:
    """Return an attrs value as plain JSON types; without *defaults*, the fields that are at theirs are left out."""
    return converter(defaults=defaults).unstructure(value)


@cache
def _hook(cls: type[Any]) -> Callable[[Any, Any], Any]:
    """Return what structures one class, found once: cattrs would look it up for each value."""
    return converter(detailed=False).get_structure_hook(cls)


@cache
def converter(*, detailed: bool = True, defaults: bool = True) -> cattrs.Converter:
    """
    Return the one strict converter, built at first use: its hooks cost milliseconds.

    Its twin without *detailed* errors takes what it takes, in four fifths of the time. The one without *defaults*
    leaves out the fields that are at theirs.
    """
    import cattrs

    made = cattrs.Converter(detailed_validation=detailed, omit_if_default=not defaults)
    _exactly(made, str, "string")
    _exactly(made, bool, "boolean")
    made.register_structure_hook(int, lambda value, _: _integer(value))
    _exactly(made, float, "number", also=(int,))
    made.register_structure_hook(datetime, lambda value, _: _moment(value))
    made.register_unstructure_hook(datetime, lambda value: value.isoformat().replace("+00:00", "Z"))
    for cls in WRITTEN_AS_TEXT[1:]:
        made.register_structure_hook(cls, _from_text)
    made.register_structure_hook_factory(_is_plain_union, _union_hook)
    made.register_structure_hook_factory(attrs.has, _object_hook)
    made.register_structure_hook_factory(containers.is_array, containers.array_hook)
    made.register_structure_hook_factory(_is_optional, _optional_hook)
    made.register_structure_hook_factory(containers.is_object, containers.object_hook)
    return made


def _exactly(made: cattrs.Converter, cls: type, what: str, also: tuple[type, ...] = ()) -> None:
    def hook(value: Any, _: Any) -> Any:
        if value.__class__ is cls or value.__class__ in also:
            return value
        raise TypeError(f"expected {what}, got {json_name(value)}")

    made.register_structure_hook(cls, hook)


def _integer(value: Any) -> int:
    """Take a whole number however it is written: some encoders write 4213.0."""
    if value.__class__ is int or (value.__class__ is float and value.is_integer()):
        return int(value)
    raise TypeError(f"expected integer, got {json_name(value)}")


def _moment(value: Any) -> datetime:
    """Read ISO 8601 with any number of fraction digits; a time without an offset is UTC."""
    if not isinstance(value, str):
        raise TypeError(f"expected date-time, got {json_name(value)}")
    try:
        moment = datetime.fromisoformat(value.upper())  # RFC 3339 lets `t` and `z` be small
    except ValueError:
        raise ValueError(f"expected date-time, got {value[:40]!r}") from None
    return utc(moment)


def utc(moment: datetime) -> datetime:
    """Return a moment with its offset; one without is in UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _from_text(value: Any, kind: Any) -> Any:
    """Read a date, a UUID or a decimal number as it is written."""
    if not isinstance(value, str):
        raise TypeError(f"expected {kind.__name__} as string, got {json_name(value)}")
    try:
        return kind.fromisoformat(value) if kind is date else kind(value)
    except (ValueError, ArithmeticError):
        raise ValueError(f"expected {kind.__name__}, got {value[:40]!r}") from None


def _is_plain_union(kind: Any) -> bool:
    return _is_union(kind) and not _is_optional(kind)


def _union_hook(kind: Any, made: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Take a value for the first member that would be written so again, else for the first that it fits."""
    members = get_args(kind)

    def hook(value: Any, _: Any) -> Any:
        if value is None and NoneType in members:
            return None
        fits: list[Any] = []
        for member in members:
            with suppress(Exception):
                taken = made.structure(value, member)
                if to_jsonable(made.unstructure(taken), "it") == value:
                    return taken
                fits.append(taken)
        if not fits:
            raise TypeError(f"expected one of {', '.join(map(_kind_name, members))}, got {json_name(value)}")
        return fits[0]

    return hook


def _kind_name(kind: Any) -> str:
    return "null" if kind is NoneType else getattr(kind, "__name__", str(kind))


def _object_hook(cls: type[Any], made: cattrs.Converter) -> Callable[[Any, Any], Any]:
    from cattrs.gen import make_dict_structure_fn, make_dict_structure_fn_from_attrs

    if issubclass(get_origin(cls) or cls, CamelCase):
        spelled = [
            each.evolve(name=camel(each.name), alias=each.alias) for each in attrs.fields(attrs.resolve_types(cls))
        ]
        fields = make_dict_structure_fn_from_attrs(spelled, cls, made)
    else:
        fields = make_dict_structure_fn(cls, made)

    never_null = _never_null(cls)

    def hook(value: Any, kind: Any) -> Any:
        if value.__class__ is not dict and not isinstance(value, Mapping):  # the latter takes ten times as long
            raise TypeError(f"expected object, got {json_name(value)}")
        for name in never_null:
            if value.get(name, never_null) is None:
                value = {key: each for key, each in value.items() if each is not None or key not in never_null}
                break
        return fields(value, kind)

    return hook


def _never_null(cls: type[Any]) -> Sequence[str]:
    """Return the JSON names of the fields for whose null the default stands, as it does for a missing field."""
    kind = get_origin(cls) or cls
    spelled = camel if issubclass(kind, CamelCase) else str
    return [
        spelled(each.name)
        for each in attrs.fields(attrs.resolve_types(kind))
        if each.default is not attrs.NOTHING and each.default is not None and not _takes_null(each.type)
    ]


def _takes_null(kind: Any) -> bool:
    return kind is Any or kind is NoneType or any(map(_takes_null, get_args(kind) if _is_union(kind) else ()))


def camel(name: str) -> str:
    """Return a name as JSON has it of a class that is `CamelCase`."""
    first, *others = name.rstrip("_").split("_")
    return first + "".join(map(str.capitalize, others))


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in {Union, UnionType}


def _is_optional(kind: Any) -> bool:
    return _is_union(kind) and len(get_args(kind)) == 2 and NoneType in get_args(kind)


def _optional_hook(kind: Any, made: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Decide `X | None` once; cattrs would dispatch anew on every call."""
    inner = next(each for each in get_args(kind) if each is not NoneType)
    hook = made.get_structure_hook(inner)
    if inner in {str, bool, int}:  # most fields are one of these: a call less for each
        return lambda value, _: value if value is None or value.__class__ is inner else hook(value, inner)
    return lambda value, _: None if value is None else hook(value, inner)


def _reason(error: BaseException, kind: type | None) -> str:
    """Keep the texts of our own hooks, which cattrs would replace."""
    from cattrs.v import format_exception

    return str(error) if type(error) in {TypeError, ValueError} else format_exception(error, kind)
