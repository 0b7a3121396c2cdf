"""
Types as shapes.

msgspec is the engine for plain values: it takes what the type says and nothing else, and has the same words in its
schemas and its errors. It is not asked to make objects, since it skips `__init__` and converters, nor for unions of
classes, which it has not; those are walked here, and what is found is built by its own class. pydantic is not
depended on: it does not know attrs classes, which this library itself is made of. Where it is installed, its models
and types are taken by it.
"""

from __future__ import annotations

import enum
import types
from collections import OrderedDict, abc, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import InitVar
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PurePath
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    LiteralString,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
    is_typeddict,
)
from uuid import UUID

import msgspec

from agentruns._values.run import Action

from . import classes
from .metadata import Notes
from .shapes import Choice, Described, Fields, Items, Made, Member, Members, Named, OneOf, Plain, Row, Schema, Shape

_PLAIN: Final[Mapping[Any, str]] = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    type(None): "null",
    bytes: "bytes",
    datetime: "datetime",
    date: "date",
    time: "time",
    timedelta: "duration",
    UUID: "uuid",
    Decimal: "decimal",
    Any: "value",
}
_COMPARED_HERE: Final = {datetime, date, time, timedelta, Decimal}  # msgspec has bounds for numbers only
_LISTS: Final[Mapping[Any, Callable[[list[Any]], Any]]] = {
    list: list,
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Iterable: list,
    abc.Collection: list,
    set: set,
    abc.Set: set,
    abc.MutableSet: set,
    frozenset: frozenset,
    deque: deque,
}
_MAPS: Final[Mapping[Any, Callable[[dict[Any, Any]], Any]]] = {
    dict: dict,
    abc.Mapping: dict,
    abc.MutableMapping: dict,
    OrderedDict: OrderedDict,
}
_WRAPPERS: Final = {Final, ClassVar, Required, NotRequired}


class UnfitError(Exception):
    """Say why a type has no JSON Schema."""


class TypeReader:
    """Read the types of one function; `definitions` are the schemas of the classes that were met."""

    def __init__(self, warn: Callable[[Any], None]) -> None:
        self._warn = warn
        self._found: dict[str, Named] = {}
        self._known: dict[Any, Named] = {}
        self._variables: Mapping[Any, Any] = {}
        self._foreign: dict[str, Schema] = {}

    @property
    def definitions(self) -> dict[str, Schema]:
        """Return the schemas that are referred to, by name."""
        own = {name: each.target.schema for name, each in self._found.items() if each.target and each.is_used}
        return own | self._foreign

    def member(self, part: classes.Part) -> Member:
        """Return one member of an object; one whose default is None takes null."""
        shape: Shape = self.read(part.kind)
        if part.default is None and not _takes_null(shape):
            texts: Schema = {}
            if isinstance(shape, Described):
                texts, shape = shape.texts, shape.inner
            union = _one_of([shape, self._plain(type(None), Notes())])
            shape = Described(union, texts) if texts else union
        return Member(part.name, shape, part.required, part.alias, part.default)

    def read(self, kind: Any) -> Shape:
        """Return the shape of a type; raise `UnfitError`."""
        metadata: list[Any] = []
        whole = kind
        while True:
            origin = get_origin(kind)
            if origin is Annotated:
                kind, *more = get_args(kind)
                metadata = [*more, *metadata]
            elif origin in _WRAPPERS or getattr(origin, "__name__", "") == "ReadOnly":
                (kind,) = get_args(kind)
            elif isinstance(kind, InitVar):
                kind = kind.type
            elif isinstance(kind, NewType):
                kind = kind.__supertype__
            elif kind in _WRAPPERS:
                kind = Any
            elif kind is LiteralString:
                kind = str
            elif isinstance(kind, TypeVar):
                kind = self._bound(kind)
            else:
                break
        notes = Notes.of(metadata)
        for each in notes.unknown:
            self._warn(each)
        if notes.pydantic:
            return self._by_pydantic(whole)
        shape = self._read(kind, notes)
        return Described(shape, notes.texts) if notes.texts else shape

    def _bound(self, variable: Any) -> Any:
        """Return what stands for a type variable."""
        given = self._variables.get(variable, variable)
        if given is not variable:
            return given
        if variable.__constraints__:
            return Union[variable.__constraints__]  # noqa: UP007 - known at run time only
        return Any if variable.__bound__ is None else variable.__bound__

    def _read(self, kind: Any, notes: Notes) -> Shape:
        origin, arguments = get_origin(kind) or kind, get_args(kind)
        alias = origin if type(origin).__name__ == "TypeAliasType" else None
        if alias is not None:
            return self._named(kind, alias.__name__, lambda: self._alias(alias, arguments, notes))
        if origin in {Union, types.UnionType}:
            return _one_of([self._read_branch(each, notes) for each in arguments])
        if origin is Literal:
            choice = _choice([(each, each.value if isinstance(each, enum.Enum) else each) for each in arguments])
            return _checked(choice, kind, notes)
        if kind is None or (_hashable(kind) and kind in _PLAIN):
            return self._plain(kind, notes)
        if _hashable(origin) and origin in _LISTS:
            inner = arguments[0] if arguments else Any
            outline = set if issubclass(origin, abc.Set) else list
            return Items(_outline(list, notes, outline), self.read(inner), _LISTS[origin])
        if origin is tuple:
            return self._tuple(kind, arguments, notes)
        if _hashable(origin) and origin in _MAPS:
            key, value = arguments or (str, Any)
            return Members(_outline(dict, notes, dict), self.read(key), self.read(value), _MAPS[origin])
        if not isinstance(origin, type):
            raise UnfitError(f"{kind!r} is not known")
        return _checked(self._class(kind, origin), kind, notes)

    def _read_branch(self, kind: Any, notes: Notes) -> Shape:
        """Read a branch of a union, for which the bounds of the union hold."""
        if kind is type(None) or not (notes.bounds or notes.checks):
            return self.read(kind)
        return self.read(Annotated[kind, notes.constraints()])

    def _alias(self, alias: Any, arguments: tuple[Any, ...], notes: Notes) -> Shape:
        with self._given(dict(zip(alias.__type_params__, arguments, strict=False))):
            return self._read_branch(alias.__value__, notes)

    @contextmanager
    def _given(self, variables: Mapping[Any, Any]) -> Iterator[None]:
        """Let types stand for type variables."""
        before = self._variables
        self._variables = {name: _substituted(each, before) for name, each in variables.items()}
        try:
            yield
        finally:
            self._variables = before

    def _plain(self, kind: Any, notes: Notes) -> Plain:
        bounds, checks = notes.bounds, list(notes.checks)
        if kind in _COMPARED_HERE:
            checks += notes.ordered()
            bounds = {name: value for name, value in bounds.items() if name not in {"gt", "ge", "lt", "le"}}
        extra: Schema = {"format": "date-time"} if kind is datetime else {}
        try:
            bounded = Annotated[kind, msgspec.Meta(**bounds)] if bounds else kind
            schema = msgspec.json.schema(bounded)
        except (TypeError, ValueError) as error:
            raise UnfitError(str(error)) from error
        return Plain(bounded, {**schema, **extra}, _PLAIN[type(None) if kind is None else kind], checks)

    def _tuple(self, kind: Any, arguments: tuple[Any, ...], notes: Notes) -> Shape:
        if not arguments or arguments[1:] == (...,):
            return Items(_outline(list, notes, list), self.read(arguments[0] if arguments else Any), tuple)
        items = [] if arguments == ((),) else [self.read(each) for each in arguments]
        return _checked(Row(items, tuple, _row_schema(items, len(items)), len(items)), kind, notes)

    def _class(self, kind: Any, origin: type[Any]) -> Shape:
        if issubclass(origin, Action):
            raise UnfitError("an Action is no argument; take it as a parameter of the function itself")
        if issubclass(origin, enum.Enum):
            texts = {"title": origin.__name__, **_described(classes.doc_of(origin))}
            return self._named(
                kind, origin.__name__, lambda: _choice([(each, each.value) for each in origin], texts), is_used=True
            )
        if issubclass(origin, PurePath):
            return Made(self._plain(str, Notes()), Path if origin is PurePath else origin)
        if hasattr(origin, "__get_pydantic_core_schema__") or "__pydantic_core_schema__" in vars(origin):
            return self._by_pydantic(kind)
        name = "_".join([origin.__name__, *(getattr(each, "__name__", "value") for each in get_args(kind))])
        texts = {"title": origin.__name__, **_described(classes.doc_of(origin))}
        if issubclass(origin, tuple) and hasattr(origin, "_fields"):
            return self._named(kind, name, lambda: self._named_tuple(kind, origin, texts), is_used=True)
        if is_typeddict(origin) or classes.is_structured(origin):
            return self._fields(kind, name, origin, texts)
        raise UnfitError(f"{origin.__module__}.{origin.__qualname__} is not known")

    def _fields(self, kind: Any, name: str, origin: Any, texts: Schema) -> Shape:
        def made() -> Shape:
            parts = classes.parts_of_typed_dict(origin) if is_typeddict(origin) else classes.parts_of(origin)
            with self._given(classes.variables_of(kind)):
                return Fields(dict if is_typeddict(origin) else origin, texts, [self.member(each) for each in parts])

        return self._named(kind, name, made, is_used=True)

    def _named_tuple(self, kind: Any, origin: Any, texts: Schema) -> Shape:
        parts = classes.parts_of_named_tuple(origin)
        with self._given(classes.variables_of(kind)):
            items = [self.member(each).shape for each in parts]
        least = sum(each.required for each in parts)
        return Row(items, lambda given: origin(*given), {**texts, **_row_schema(items, least)}, least)

    def _named(self, kind: Any, name: str, make: Callable[[], Shape], *, is_used: bool = False) -> Shape:
        """Return what refers to a shape by its name; an alias that does not contain itself needs none."""
        key = (kind, tuple(self._variables.items()))
        known = self._known.get(key)
        if known is not None:
            known.is_used = True
            return known
        named = self._known[key] = Named(self._free(name))
        self._found[named.name] = named
        named.is_used = is_used
        try:
            named.target = make()
        except UnfitError:
            raise
        except (TypeError, NameError, ValueError, AttributeError) as error:
            raise UnfitError(str(error)) from error
        return named if named.is_used else named.target

    def _free(self, name: str) -> str:
        """Return a name for a definition that no other class has."""
        free, number = name, 2
        while self._is_taken(free):
            free, number = f"{name}_{number}", number + 1
        return free

    def _by_pydantic(self, kind: Any) -> Shape:
        from .pydantic_types import validated

        try:
            shape, definitions = validated(kind, self._free(getattr(kind, "__name__", "value")), self._is_taken)
        except (TypeError, ImportError) as error:
            raise UnfitError(str(error)) from error
        self._foreign |= definitions
        return shape

    def _is_taken(self, name: str) -> bool:
        return name in self._found or name in self._foreign


def _substituted(kind: Any, variables: Mapping[Any, Any]) -> Any:
    """Return a type with its own type variables replaced."""
    if isinstance(kind, TypeVar):
        return variables.get(kind, kind)
    own = getattr(kind, "__parameters__", ())
    return kind[tuple(variables.get(each, each) for each in own)] if own and get_origin(kind) is not None else kind


def _hashable(kind: Any) -> bool:
    try:
        hash(kind)
    except TypeError:
        return False
    return True


def _checked(shape: Shape, kind: Any, notes: Notes) -> Shape:
    if notes.bounds:
        raise UnfitError(f"{kind!r} cannot have bounds")
    return Made(shape, lambda value: value, notes.checks) if notes.checks else shape


def _described(text: str) -> Schema:
    return {"description": text} if text else {}


def _outline(kind: Any, notes: Notes, shown: Any) -> Plain:
    """Return a container without regard to what is in it."""
    try:
        meta = [msgspec.Meta(**notes.bounds)] if notes.bounds else []
        bounded = Annotated[(kind, *meta)] if meta else kind
        schema = msgspec.json.schema(Annotated[(shown, *meta)] if meta else shown)
    except (TypeError, ValueError) as error:
        raise UnfitError(str(error)) from error
    return Plain(bounded, schema, "array" if kind is list else "object", notes.checks)


def _row_schema(items: list[Shape], least: int) -> Schema:
    return {
        "type": "array",
        "prefixItems": [each.schema for each in items],
        "minItems": least,
        "maxItems": len(items),
        "items": False,
    }


def _choice(members: list[tuple[Any, Any]], texts: Schema | None = None) -> Choice:
    for _, given in members:
        if not isinstance(given, str | int | float | bool | None):
            raise UnfitError(f"{given!r} is no value that JSON has")
    return Choice(members, {**(texts or {}), "enum": [given for _, given in members]})


def _one_of(branches: list[Shape]) -> Shape:
    """Return the union; what takes any text, or any number, comes after what takes some of them."""
    flat = [inner for each in branches for inner in (each.branches if isinstance(each, OneOf) else [each])]
    if len(flat) == 1:
        return flat[0]
    return OneOf(sorted(flat, key=_rank), {"anyOf": [each.schema for each in flat]})


def _rank(shape: Shape) -> int:
    core = shape.inner if isinstance(shape, Described) else shape
    return {"int": 1, "float": 2, "str": 3, "value": 4}.get(core.label, 0) if isinstance(core, Plain) else 0


def _takes_null(shape: Shape) -> bool:
    core = shape.inner if isinstance(shape, Described) else shape
    if isinstance(core, OneOf):
        return any(map(_takes_null, core.branches))
    if isinstance(core, Named) and core.target is not None:
        return _takes_null(core.target)
    return isinstance(core, Plain) and core.label in {"null", "value"}
