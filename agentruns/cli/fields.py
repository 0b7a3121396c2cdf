"""What the command line takes for a field of what starts a run: a text, JSON, or either."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import attrs

from agentruns._values import codec


class Kind(StrEnum):
    """How the value of a field is written."""

    TEXT = "text"
    JSON = "JSON"
    EITHER = "text, or a list or object of JSON"


def kind_of(field: attrs.Attribute[Any]) -> Kind:
    """Return how a field is written, by its type: a text may be one of several things that it takes."""
    names = set(_alternatives(field.type))
    if "str" not in names:
        return Kind.JSON
    return Kind.TEXT if names <= {"str", "None"} else Kind.EITHER


def either(text: str) -> Any:
    """Return a list or an object that *text* is the JSON of; any other text is itself."""
    if text.lstrip()[:1] in {"[", "{"}:
        try:
            value = codec.decode(text)
        except codec.CodecError:
            return text
        return value
    return text


def _alternatives(kind: Any) -> Iterator[str]:
    """Yield the names of the types of a union; of one as it stands in the source, by its text."""
    if isinstance(kind, str):
        yield from (each.strip() for each in _WITHIN.sub("", kind).split("|"))
    elif get_origin(kind) in {Union, UnionType}:
        for each in get_args(kind):
            yield from _alternatives(each)
    else:
        yield "None" if kind is type(None) else getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else ""


_WITHIN: Final = re.compile(r"\[.*\]")
