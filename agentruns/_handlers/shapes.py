"""
What a model may give for a parameter: its JSON Schema, and what becomes of it.

Each shape says both, so that they agree. Plain values are told and taken by msgspec; objects are built by their own
classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from attrs import define, field, frozen

from agentruns._values import codec
from agentruns._values.generic import Json
from agentruns.errors import ConfigurationError

Schema = dict[str, Any]
"""A JSON Schema."""

NOTHING: Any = msgspec.NODEFAULT
"""No default, or none that can be shown."""

_MOST_TOLD = 4
"""How many branches of a union are told of, when a value fits none."""


class MisfitError(ValueError):
    """
    Say what does not fit, and at which *path* it stands, such as `.lines[1].no`.

    *deep* tells that the kind of the value is right, and a part of it is not.
    """

    def __init__(self, reason: str, path: str = "", *, deep: bool = False) -> None:
        super().__init__(f"{reason} - at `${path}`" if path else reason)
        self.reason = reason
        self.path = path
        self.deep = deep

    def within(self, step: str) -> MisfitError:
        """Return the same, as the container of the value sees it."""
        return MisfitError(self.reason, step + self.path, deep=True)


class Shape(Protocol):
    """One kind of value."""

    @property
    def schema(self) -> Schema:
        """Return its JSON Schema."""
        ...

    @property
    def label(self) -> str:
        """Name it, for a misfit."""
        ...

    def build(self, value: Json, lenient: bool, /) -> Any:
        """
        Return what *value* becomes; raise `MisfitError`.

        If *lenient*, take numbers and objects that are sent as text, and drop members that are not known.
        """
        ...


@frozen
class Plain:
    """What msgspec has a type for."""

    kind: Any
    schema: Schema
    label: str
    checks: Sequence[tuple[Callable[[Any], Any], str]] = ()

    def build(self, value: Json, lenient: bool, /) -> Any:
        """Return the value of the type."""
        try:
            built = msgspec.convert(value, self.kind, str_keys=True)
        except msgspec.ValidationError as error:
            if not lenient:
                raise _misfit(error) from None
            try:
                built = msgspec.convert(value, self.kind, strict=False, str_keys=True)
            except msgspec.ValidationError:
                raise _misfit(error) from None
        for passes, reason in self.checks:
            if not passes(built):
                raise MisfitError(f"the value {reason}")
        return built


def _misfit(error: msgspec.ValidationError) -> MisfitError:
    found = re.fullmatch(r"(.*?)(?: - at `\$(.*)`)?", str(error), re.DOTALL)
    return MisfitError(found[1], found[2] or "") if found else MisfitError(str(error))


@frozen
class Choice:
    """One of a few values; `members` maps what they become to what a model gives."""

    members: Sequence[tuple[Any, Json]]
    schema: Schema
    label: str = "enum"

    def build(self, value: Json, lenient: bool, /) -> Any:
        """Return the member."""
        for member, given in self.members:
            if type(given) is type(value) and given == value:
                return member
        for member, given in self.members:
            if lenient and isinstance(value, str) and str(given) == value:
                return member
        raise MisfitError(f"Invalid enum value {value!r}" if isinstance(value, str | int) else "Invalid enum value")


@frozen
class Made:
    """What a function makes of a simpler value; a `ValueError` or `TypeError` of it tells that the value is unfit."""

    inner: Shape
    make: Callable[[Any], Any]
    checks: Sequence[tuple[Callable[[Any], Any], str]] = ()

    @property
    def schema(self) -> Schema:
        """Return the schema of the simpler value."""
        return self.inner.schema

    @property
    def label(self) -> str:
        """Return the name of the simpler value."""
        return self.inner.label

    def build(self, value: Json, lenient: bool, /) -> Any:
        """Return what the function makes."""
        built = called(self.make, self.inner.build(value, lenient))
        for passes, reason in self.checks:
            if not passes(built):
                raise MisfitError(f"the value {reason}")
        return built


@frozen
class Items:
    """A list of any length; `outline` is the list without regard to its items."""

    outline: Plain
    item: Shape
    make: Callable[[list[Any]], Any]
    label: str = "array"

    @property
    def schema(self) -> Schema:
        """Return the schema of the list and its items."""
        return {**self.outline.schema, "items": self.item.schema} if self.item.schema else self.outline.schema

    def build(self, value: Json, lenient: bool, /) -> Any:
        """Return the collection of what the items become."""
        listed = self.outline.build(_read(value, list, lenient), False)
        return called(self.make, [_at(f"[{place}]", self.item, each, lenient) for place, each in enumerate(listed)])


@frozen
class Row:
    """A list of a fixed length; `least` items must be given. `names` may be given instead, as members of an object."""

    items: Sequence[Shape]
    make: Callable[[list[Any]], Any]
    schema: Schema
    least: int
    names: Sequence[str] = ()
    label: str = "array"

    def build(self, value: Json, lenient: bool, /) -> Any:
        """Return the tuple of what the items become."""
        value = _read(value, list, lenient)
        if not isinstance(value, list):
            raise MisfitError(f"Expected `array`, got `{kind_of(value)}`")
        if not self.least <= len(value) <= len(self.items):
            least = "" if self.least == len(self.items) else f"{self.least} to "
            raise MisfitError(f"Expected `array` of length {least}{len(self.items)}, got {len(value)}")
        pairs = zip(self.items, value, strict=False)
        return called(self.make, [_at(f"[{n}]", item, each, lenient) for n, (item, each) in enumerate(pairs)])


@frozen
class Members:
    """An object whose members are all of one kind; `outline` is the object without regard to their values."""

    outline: Plain
    key: Shape
    value: Shape
    make: Callable[[dict[Any, Any]], Any]
    label: str = "object"

    @property
    def schema(self) -> Schema:
        """Return the schema of the object and its members."""
        if not self.value.schema:
            return self.outline.schema
        return {**self.outline.schema, "additionalProperties": self.value.schema}

    def build(self, value: Json, lenient: bool, /) -> Any:
        """Return the mapping of what keys and values become."""
        members = self.outline.build(_read(value, dict, lenient), False)
        return called(
            self.make,
            {
                (_at("[...]", self.key, key, True)): _at("[...]", self.value, each, lenient)  # keys are always texts
                for key, each in members.items()
            },
        )


@frozen
class Member:
    """
    One member of an object: its *name* in JSON, and by which name it is handed on.

    It is *required*, or left to its owner; `default` is what the schema shows, if anything.
    """

    name: str
    shape: Shape
    required: bool
    alias: str
    default: Any = NOTHING

    def schema(self) -> Schema:
        """Return the schema with the default, where JSON can carry that."""
        if self.default is NOTHING:
            return self.shape.schema
        try:
            return {**self.shape.schema, "default": codec.to_jsonable(self.default, self.name)}
        except ConfigurationError:
            return self.shape.schema


@define
class Fields:
    """An object with named members, which *make* gets by keyword; `members` are set once they are known."""

    make: Callable[..., Any]
    texts: Schema
    members: Sequence[Member] = ()
    label: str = "object"

    @property
    def schema(self) -> Schema:
        """Return the schema of an object that has no other members."""
        return {
            **self.texts,
            "type": "object",
            "properties": {each.name: each.schema() for each in self.members},
            "required": [each.name for each in self.members if each.required],
            "additionalProperties": False,
        }

    def build(self, value: Json, lenient: bool, /) -> Any:
        """Return the object that *make* makes."""
        return called(lambda given: self.make(**given), self.given(value, lenient))

    def given(self, value: Json, lenient: bool) -> dict[str, Any]:
        """Return what is handed on: a member that is left out is not."""
        value = _read(value, dict, lenient)
        if not isinstance(value, Mapping):
            raise MisfitError(f"Expected `object`, got `{kind_of(value)}`")
        known = {each.name for each in self.members}
        for name in value:
            if name not in known and not lenient:
                raise MisfitError(f"Object contains unknown field `{name}`", deep=True)
        built = {}
        for each in self.members:
            if each.name not in value:
                if each.required:
                    raise MisfitError(f"Object missing required field `{each.name}`", deep=True)
                continue
            try:
                built[each.alias] = _at(f".{each.name}", each.shape, value[each.name], lenient)
            except MisfitError:
                if not lenient or each.required or value[each.name] is not None:
                    raise
        return built


@frozen
class OneOf:
    """A union: the first of its branches that fits counts."""

    branches: Sequence[Shape]
    schema: Schema

    @property
    def label(self) -> str:
        """Name the branches."""
        return " | ".join(dict.fromkeys(each.label for each in self.branches))

    def build(self, value: Json, lenient: bool, /) -> Any:
        """Return what the first branch that fits makes; one that fits as it is goes before one that is lenient."""
        misfits: list[MisfitError] = []
        for each in (False, True) if lenient else (False,):
            misfits = []
            for branch in self.branches:
                try:
                    return branch.build(value, each)
                except MisfitError as error:
                    misfits.append(error)
        deep = [each for each in misfits if each.deep]
        if len(deep) == 1:
            raise deep[0]
        if deep:
            raise MisfitError("it fits none: " + "; or ".join(str(each) for each in deep[:_MOST_TOLD]))
        told = [each for each in misfits if not each.reason.startswith("Expected `")]
        if len(told) == 1:
            raise told[0]
        raise MisfitError(f"Expected `{self.label}`, got `{kind_of(value)}`")


@define
class Named:
    """A shape that others refer to by its *name*, itself included; `target` is set once it is known."""

    name: str
    target: Shape | None = field(default=None, repr=False)
    is_used: bool = False

    @property
    def schema(self) -> Schema:
        """Return the reference."""
        return {"$ref": f"#/$defs/{self.name}"}

    @property
    def label(self) -> str:
        """Return the label of the target."""
        return "object" if self.target is None else self.target.label

    def build(self, value: Json, lenient: bool, /) -> Any:
        """Return what the target makes."""
        assert self.target is not None
        return self.target.build(value, lenient)


@frozen
class Described:
    """A shape with texts of its own."""

    inner: Shape
    texts: Schema

    @property
    def schema(self) -> Schema:
        """Return the schema, with the texts."""
        return {**self.inner.schema, **self.texts}

    @property
    def label(self) -> str:
        """Return the label of the shape."""
        return self.inner.label

    def build(self, value: Json, lenient: bool, /) -> Any:
        """Return what the shape makes."""
        return self.inner.build(value, lenient)


def called(make: Callable[..., Any], value: Any) -> Any:
    """Return what *make* makes; its `ValueError` or `TypeError` is about the value."""
    try:
        return make(value)
    except MisfitError:
        raise
    except (ValueError, TypeError) as error:
        text = error.args[0] if error.args and isinstance(error.args[0], str) else type(error).__name__
        raise MisfitError(text, deep=True) from error


def _at(step: str, shape: Shape, value: Json, lenient: bool) -> Any:
    try:
        return shape.build(value, lenient)
    except MisfitError as error:
        raise error.within(step) from error.__cause__


def _read(value: Json, kind: type, lenient: bool) -> Json:
    """Return the list or object that is written in a text, if that is wanted."""
    if lenient and isinstance(value, str):
        try:
            read = codec.decode(value, received=True)
        except codec.CodecError:
            return value
        return read if isinstance(read, kind) else value
    return value


def kind_of(value: Json) -> str:
    """Name the kind of a JSON value as msgspec does."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "object"
    return "array" if isinstance(value, list) else type(value).__name__
