"""What the classes of users are made of: attrs, dataclasses, msgspec, TypedDict and NamedTuple."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin, get_type_hints

import attrs
import msgspec
from attrs import frozen

from .shapes import NOTHING

_Kind = inspect.Parameter


@frozen
class Part:
    """One field: its *name* in JSON, the *alias* that the class takes it by, and the type that it is annotated with."""

    name: str
    alias: str
    kind: Any
    required: bool
    default: Any = NOTHING


def is_structured(kind: type) -> bool:
    """Tell whether this class has fields that it takes by keyword."""
    return attrs.has(kind) or dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct)


def parts_of(kind: type[Any]) -> list[Part]:
    """Return the fields that the class takes; raise `TypeError` for a class that takes what has no name."""
    if issubclass(kind, msgspec.Struct):
        return [
            Part(each.encode_name, each.name, each.type, each.required, each.default)
            for each in msgspec.structs.fields(kind)
        ]
    return list(_parts_by_init(kind))


def _parts_by_init(kind: type[Any]) -> Iterator[Part]:
    """Yield what `__init__` takes: the class may have one of its own, and a converter a type of its own."""
    hints = get_type_hints(kind, include_extras=True)
    fields = _fields(kind)
    init = kind.__init__
    annotated: Mapping[str, Any] = getattr(init, "__annotations__", {})
    for name, each in inspect.signature(kind).parameters.items():
        if each.kind in {_Kind.VAR_POSITIONAL, _Kind.VAR_KEYWORD, _Kind.POSITIONAL_ONLY}:
            raise TypeError(f"{kind.__name__} takes {each}, which cannot be given by name")
        field = fields.get(name)
        own, declared = annotated.get(name, NOTHING), None if field is None else field.type
        taken: Any = Any
        if own is not NOTHING and own is not declared and own != declared:
            taken = get_type_hints(init, _seen(init, kind), include_extras=True)[name]
        if taken is Any and field is not None:
            taken = hints.get(field.name, Any if declared is None else declared)
        default = each.default if field is None or each.default is each.empty else _default(field)
        yield Part(
            name if field is None else field.name,
            name,
            taken,
            each.default is each.empty,
            NOTHING if default is each.empty else default,
        )


def _seen(init: Any, kind: type[Any]) -> dict[str, Any]:
    return {**vars(sys.modules.get(kind.__module__, object)), **getattr(init, "__globals__", {})}


def _fields(kind: type[Any]) -> dict[str, Any]:
    """Return the fields by the names that the class takes them by."""
    if attrs.has(kind):
        return {each.alias or each.name: each for each in attrs.fields(kind) if each.init}
    return {each.name: each for each in dataclasses.fields(kind) if each.init}


def _default(field: Any) -> Any:
    missing = field.default is dataclasses.MISSING or field.default is attrs.NOTHING
    return NOTHING if missing or isinstance(field.default, attrs.Factory) else field.default  # type: ignore[arg-type]


def parts_of_typed_dict(kind: Any) -> list[Part]:
    """Return the keys of a TypedDict."""
    hints = get_type_hints(kind, include_extras=True)
    return [Part(name, name, hints[name], name in kind.__required_keys__) for name in hints]


def parts_of_named_tuple(kind: Any) -> list[Part]:
    """Return the items of a named tuple, in order."""
    hints = get_type_hints(kind, include_extras=True)
    defaults = kind._field_defaults
    return [
        Part(name, name, hints.get(name, Any), name not in defaults, defaults.get(name, NOTHING))
        for name in kind._fields
    ]


def variables_of(kind: Any) -> dict[Any, Any]:
    """Return what stands for each type variable of a class that is given its types, or has bases that are."""
    origin = get_origin(kind) or kind
    known = dict(zip(getattr(origin, "__parameters__", ()), get_args(kind), strict=False))
    for base in getattr(origin, "__orig_bases__", ()):
        inner = variables_of(base) if get_origin(base) is not None and isinstance(get_origin(base), type) else {}
        known |= {variable: known.get(given, given) for variable, given in inner.items() if variable not in known}
    return known


def doc_of(kind: type[Any]) -> str:
    """Return the docstring of a class, unless it was made for it."""
    text = kind.__dict__.get("__doc__") or ""
    made = text.startswith(f"{kind.__name__}(") and (dataclasses.is_dataclass(kind) or issubclass(kind, tuple))
    return "" if made else inspect.cleandoc(text)
