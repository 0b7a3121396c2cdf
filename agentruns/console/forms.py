"""
From a JSON Schema to the fields of a form, and from what a browser posts back to a JSON value.

A field that no form has (a list of objects, a choice between shapes) is one of JSON text, so that nothing is out of
reach. What was posted is judged by the whole schema, and each complaint stands at its field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve, field, frozen

from agentruns.errors import ConfigurationError

from .validating import bounded_validator

Kind: TypeAlias = Literal["text", "area", "number", "flag", "choice", "many", "lines", "json", "group"]
Posted: TypeAlias = Mapping[str, Sequence[str]]
"""What a browser posts: for each name its values, in their order."""

Path: TypeAlias = tuple[str | int, ...]
Errors: TypeAlias = dict[Path, str]

_DEEPEST: Final = 4
"""Levels of objects that are shown as fields; what lies below is a field of JSON."""

_MOST_RADIOS: Final = 6
_LONG: Final = 120
_ABSENT: Final = object()

_MOST_FIELDS: Final = 500
_LONGEST_SCHEMA: Final = 100_000
_NEEDED: Final = "This is needed."
_UNFIT: Final = (RecursionError, OverflowError, ValueError, TypeError, KeyError, AttributeError)
"""What a schema that nobody can use makes of those who try."""

_HIDDEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
"""What no browser posts as it is."""

_PATTERNS: Final = {
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "time": re.compile(r"\d\d:\d\d(:\d\d(\.\d{1,3})?)?"),
}
"""What inputs of those types keep; they show anything else as nothing."""

_INPUTS: Final[Mapping[str, str]] = {
    "date": "date",
    "time": "time",
    "email": "email",
    "uri": "url",
    "url": "url",
}


@frozen
class Choice:
    """One of the values that a field offers; `value` is what the browser posts."""

    value: str
    label: str


@frozen(kw_only=True)
class Field:
    """
    One field of a form, or a group of them.

    `name` is the field's name in the form, `path` where its value stands in the whole. `value` is what is filled in,
    as text; of a field of several values, `values`. `attributes` are those of the HTML element.
    """

    name: str
    path: Path
    kind: Kind
    label: str
    help: str = ""
    required: bool = False
    value: str = ""
    values: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()
    fields: tuple[Field, ...] = ()
    attributes: Mapping[str, str] = field(factory=dict)
    error: str = ""
    kept: Mapping[str, Any] = field(factory=dict)
    """Of a group: what is given and has no field."""

    @property
    def id(self) -> str:
        """Return what identifies the element: the name, without what an id cannot have."""
        return "f-" + "".join(each if each.isalnum() else f"_{ord(each):x}_" for each in self.name)

    @property
    def is_short(self) -> bool:
        """Tell whether the choices are few enough to be seen all at once."""
        return len(self.choices) <= _MOST_RADIOS


class _TooManyFieldsError(Exception):
    """Tell that a form would have more fields than a person can fill in."""


class Form:
    """
    The fields that a JSON Schema asks for, under names that begin with *prefix*.

    They are filled in with *value*, if there is one. Raise `ConfigurationError` for a schema that is none.
    """

    def __init__(
        self, schema: Mapping[str, Any], prefix: str, label: str = "", *, value: Any = _ABSENT, required: bool = True
    ) -> None:
        import jsonschema  # type: ignore[import-untyped,unused-ignore]

        self._schema = schema
        self._prefix = prefix
        self._label = label
        self._given = value
        self._required = required
        self._count = 0
        try:
            if len(json.dumps(schema)) > _LONGEST_SCHEMA:
                self._schema = {}
            jsonschema.Draft202012Validator.check_schema(self._schema)
        except jsonschema.SchemaError as error:
            raise ConfigurationError(f"this is no JSON Schema: {error.message}") from error
        except _UNFIT as error:
            raise ConfigurationError(f"this is no JSON Schema that can be used: {type(error).__name__}") from error

    def blank(self) -> Field:
        """
        Return the fields, filled in with the value given, if there is one, else with the defaults of the schema.

        Where that would be more fields than a person can fill in, there is one field of JSON.
        """
        self._count = 0
        try:
            return self._field(self._schema, (), self._given, required=self._required, depth=0)
        except (_TooManyFieldsError, *_UNFIT):
            self._count = 0
            return self._json_field(self._made({}, (), required=self._required), self._given)

    def read(self, posted: Posted) -> tuple[Any, Errors]:
        """Return the value that was posted, and what is wrong with it, by the path of the field."""
        errors: Errors = {}
        value = self._value(self.blank(), self._schema, posted, errors)
        if value is _ABSENT:
            return None, errors
        return value, errors or self._misfits(value)

    def filled(self, posted: Posted, errors: Mapping[Path, str]) -> Field:
        """Return the fields as they were posted, each with its error."""
        shown: set[Path] = set()
        whole = _refilled(self.blank(), posted, errors, shown)
        left = [text for path, text in errors.items() if path not in shown]
        return evolve(whole, error="; ".join([*([whole.error] if whole.error else []), *left]))

    # From the schema to fields ----------------------------------------------------------------------------------------

    def _field(self, schema: Any, path: Path, value: Any, *, required: bool, depth: int) -> Field:
        self._count += 1
        if self._count > _MOST_FIELDS:
            raise _TooManyFieldsError
        schema = self._resolved(schema)
        given = value
        if value is _ABSENT and self._given is _ABSENT:  # what somebody left out stays so
            value = schema.get("default", _ABSENT)
        made = self._made(schema, path, required=required)
        filled = self._filled_in(made, schema, value, depth)
        if given is not _ABSENT and not self._survives(filled, schema, given):
            return self._json_field(made, given)
        return filled

    def _survives(self, field: Field, schema: Mapping[str, Any], value: Any) -> bool:
        """Tell whether *value* is what is read of the field that it fills in, if nobody touches that."""
        errors: Errors = {}
        read = self._value(field, schema, dict(_untouched(field)), errors)
        return not errors and read is not _ABSENT and _canonical(read) == _canonical(value)

    def _json_field(self, made: Field, value: Any) -> Field:
        help_ = f"{made.help} JSON.".strip()
        return evolve(made, kind="json", help=help_, value="" if value is _ABSENT else _json(value))

    def _made(self, schema: Mapping[str, Any], path: Path, *, required: bool) -> Field:
        name = self._prefix + "".join(f"/{_escaped(each)}" for each in path)
        return Field(
            name=name,
            path=path,
            kind="json",
            label=_text(schema.get("title")) or (str(path[-1]).replace("_", " ") if path else self._label),
            help=_text(schema.get("description")),
            required=required,
        )

    def _filled_in(self, made: Field, schema: Mapping[str, Any], value: Any, depth: int) -> Field:
        choices = _members(schema)
        if choices is not None:
            return _choice(made, choices, value)
        kind = schema.get("type")
        if kind == "object" and depth < _DEEPEST and isinstance(schema.get("properties"), Mapping):
            return self._group(made, schema, value, depth)
        if kind == "array":
            return self._list(made, schema, value)
        if kind == "boolean":
            return evolve(made, kind="flag", value="" if value is _ABSENT else "true" if value else "false")
        if kind in {"integer", "number"}:
            return _number(made, schema, kind, value)
        if kind == "string":
            return _string(made, schema, value)
        return self._json_field(made, value)

    def _group(self, made: Field, schema: Mapping[str, Any], value: Any, depth: int) -> Field:
        needed = set(schema.get("required") or ())
        given = value if isinstance(value, Mapping) else {}
        fields = tuple(
            self._field(inner, (*made.path, name), given.get(name, _ABSENT), required=name in needed, depth=depth + 1)
            for name, inner in schema["properties"].items()
        )
        kept = {name: each for name, each in given.items() if name not in schema["properties"]}
        return evolve(made, kind="group", fields=fields, kept=kept)

    def _list(self, made: Field, schema: Mapping[str, Any], value: Any) -> Field:
        items = self._resolved(schema.get("items") or {})
        given = value if isinstance(value, Sequence) and not isinstance(value, str) else []
        choices = _members(items)
        if choices is not None:
            values = tuple(str(place) for place, each in enumerate(choices) if each in given)
            return evolve(made, kind="many", choices=_offered(choices), values=values)
        if items.get("type") in {"string", "integer", "number"}:
            help_ = f"{made.help} One a line.".strip()
            return evolve(made, kind="lines", help=help_, value="\n".join(_plain(each) for each in given))
        return evolve(made, help=f"{made.help} JSON, a list.".strip(), value=_json(given) if given else "")

    def _resolved(self, given: Any) -> Mapping[str, Any]:
        """Follow references within the schema, and take the one shape that is not null."""
        schema: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        for _ in range(16):
            if isinstance(schema.get("$ref"), str):
                found = _at(self._schema, schema["$ref"])
                schema = {**found, **{key: each for key, each in schema.items() if key != "$ref"}}
                continue
            shapes = schema.get("anyOf") or schema.get("oneOf")
            left = [each for each in shapes or () if not (isinstance(each, Mapping) and each.get("type") == "null")]
            if shapes and len(left) == 1 and isinstance(left[0], Mapping):
                schema = {**left[0], **{key: each for key, each in schema.items() if key not in {"anyOf", "oneOf"}}}
                continue
            kinds = schema.get("type")
            if isinstance(kinds, list) and len([each for each in kinds if each != "null"]) == 1:
                schema = {**schema, "type": next(each for each in kinds if each != "null")}
            return schema
        return {}

    # From what is posted to a value -----------------------------------------------------------------------------------

    def _value(self, field: Field, schema: Any, posted: Posted, errors: Errors) -> Any:
        schema = self._resolved(schema)
        if field.kind == "group":
            wrong: Errors = {}
            inner = {each.path[-1]: self._inner(each, schema, posted, wrong) for each in field.fields}
            value = {name: each for name, each in inner.items() if each is not _ABSENT}
            if not value and not field.kept and not field.required and all(text == _NEEDED for text in wrong.values()):
                return _ABSENT  # nothing of it was filled in
            errors |= wrong
            return {**field.kept, **value}
        try:
            value = self._scalar(field, schema, posted)
        except ValueError as error:
            errors[field.path] = str(error)
            return _ABSENT
        if value is _ABSENT and field.required:
            errors[field.path] = _NEEDED
        return value

    def _inner(self, field: Field, schema: Mapping[str, Any], posted: Posted, errors: Errors) -> Any:
        return self._value(field, schema["properties"][field.path[-1]], posted, errors)

    def _scalar(self, field: Field, schema: Mapping[str, Any], posted: Posted) -> Any:
        """Return the value of one field; raise `ValueError`, for the reader of the form, where the text is none."""
        given = posted.get(field.name, ())
        text = given[-1] if given else ""
        if field.kind == "many":
            members = _members(self._resolved(schema.get("items") or {})) or ()
            chosen = [_chosen(members, each) for each in given]
            return chosen if chosen or field.required else _ABSENT
        if field.kind == "lines":
            kind = self._resolved(schema.get("items") or {}).get("type")
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            found = [line if kind == "string" else _number_of(line, kind) for line in lines]
            return found if found or field.required else _ABSENT
        if not text.strip():
            return _ABSENT
        if field.kind == "choice":
            return _chosen(_members(schema) or (), text)
        if field.kind == "flag":
            return text == "true"
        if field.kind == "number":
            return _number_of(text.strip(), schema.get("type"))
        if field.kind == "json":
            return json_of(text)
        return text.replace("\r\n", "\n")

    def _misfits(self, value: Any) -> Errors:
        """Return what does not fit, as far as it can be told: a schema elsewhere is not fetched."""
        from referencing.exceptions import Unresolvable

        errors: Errors = {}
        with suppress(Unresolvable, *_UNFIT):
            for error in bounded_validator(self._schema).iter_errors(value):
                path: Path = tuple(error.absolute_path)
                errors.setdefault(path, _said(error.validator, error.validator_value, error.message))
        return errors


def json_of(text: str) -> Any:
    """Return the JSON value in *text*; raise `ValueError`, saying where it is none."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"This is not JSON: {error.msg} (line {error.lineno}, column {error.colno}).") from None
    except RecursionError:
        raise ValueError("This is nested too deeply.") from None


def every(field: Field) -> Iterator[Field]:
    """Yield a field and all within it."""
    yield field
    for each in field.fields:
        yield from every(each)


def _untouched(field: Field) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what a browser posts of a field, and of all within it, that nobody has touched."""
    for each in field.fields:
        yield from _untouched(each)
    if field.kind == "group":
        return
    text, kind = field.value, field.attributes.get("type", "text")
    if field.kind == "many":
        yield field.name, field.values
    elif field.kind in {"area", "lines", "json"}:  # the first line break is dropped, and others are made alike
        text = text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\n")
        yield field.name, (_HIDDEN.sub("", text).replace("\n", "\r\n"),)
    elif field.kind == "text":
        text = _HIDDEN.sub("", text.replace("\n", "").replace("\r", ""))
        known = kind not in _PATTERNS or _PATTERNS[kind].fullmatch(text)
        yield field.name, ((text.strip() if kind in {"email", "url"} else text) if known else "",)
    else:
        yield field.name, (text,)


def _canonical(value: Any) -> str:
    """Return a JSON value as text; unlike values, 1 and true are not equal."""
    return json.dumps(value, sort_keys=True)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON.")


def _refilled(field: Field, posted: Posted, errors: Mapping[Path, str], shown: set[Path]) -> Field:
    shown.add(field.path)
    error = errors.get(field.path, "")
    if field.kind == "group":
        return evolve(field, fields=tuple(_refilled(each, posted, errors, shown) for each in field.fields), error=error)
    given = tuple(posted.get(field.name, ()))
    return evolve(field, value=given[-1] if given else "", values=given, error=error)


def _choice(made: Field, members: Sequence[Any], value: Any) -> Field:
    found = [str(place) for place, each in enumerate(members) if value is not _ABSENT and each == value]
    return evolve(made, kind="choice", choices=_offered(members), value=found[0] if found else "")


def _number(made: Field, schema: Mapping[str, Any], kind: str, value: Any) -> Field:
    bounds = {"min": schema.get("minimum"), "max": schema.get("maximum")}
    attributes = {name: _plain(bound) for name, bound in bounds.items() if isinstance(bound, int | float)}
    attributes |= {"step": "1" if kind == "integer" else "any"}
    attributes |= {"inputmode": "numeric" if kind == "integer" else "decimal"}
    return evolve(made, kind="number", attributes=attributes, value="" if value is _ABSENT else _plain(value))


def _string(made: Field, schema: Mapping[str, Any], value: Any) -> Field:
    text = "" if value is _ABSENT or value is None else _plain(value)
    longest = schema.get("maxLength")
    attributes = {"maxlength": str(longest)} if isinstance(longest, int) else {}
    kind = _INPUTS.get(str(schema.get("format")), "text")
    is_long = kind == "text" and (len(text) > _LONG or "\n" in text or (isinstance(longest, int) and longest > _LONG))
    if is_long:
        return evolve(made, kind="area", attributes=attributes, value=text)
    return evolve(made, kind="text", attributes={**attributes, "type": kind}, value=text)


def _members(schema: Mapping[str, Any]) -> Sequence[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    members = schema.get("enum")
    return members if isinstance(members, list) and members else None


def _offered(members: Sequence[Any]) -> tuple[Choice, ...]:
    return tuple(Choice(str(place), _plain(each)) for place, each in enumerate(members))


def _chosen(members: Sequence[Any], text: str) -> Any:
    if not text.isascii() or not text.isdigit() or int(text) >= len(members):
        raise ValueError("This is none of the choices.")
    return members[int(text)]


def _number_of(text: str, kind: Any) -> int | float:
    with suppress(ValueError):
        return int(text.replace("_", "?"))  # only Python spells thousands with it
    if kind == "integer":
        raise ValueError(f"“{text[:40]}” is not a whole number.")
    try:
        number = float(text.replace("_", "?"))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"“{text[:40]}” is not a number.")
    return number


def _said(keyword: str, wanted: Any, message: str) -> str:
    """Return what does not fit, in the words of a form; the library's own where there are none."""
    told = {
        "minimum": f"It must be {wanted} or more.",
        "maximum": f"It must be {wanted} or less.",
        "exclusiveMinimum": f"It must be more than {wanted}.",
        "exclusiveMaximum": f"It must be less than {wanted}.",
        "minLength": f"It must have {wanted} characters or more.",
        "maxLength": f"It must have {wanted} characters or fewer.",
        "minItems": f"There must be {wanted} or more.",
        "maxItems": f"There must be {wanted} or fewer.",
        "uniqueItems": "No two may be the same.",
    }
    return told.get(keyword, f"{message[:200]}.")


def _at(schema: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    """Return what a reference within the schema points at; an empty schema, which asks for JSON, for any other."""
    found: Any = schema
    if not reference.startswith("#"):
        return {}
    for part in reference[1:].split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _escaped(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
