"""
From a JSON Schema to the fields of a form, and from what a browser posts back to a JSON value.

A field that no form has (a list of objects, a choice between shapes) is one of JSON text, so that nothing is out of
reach. What was posted is judged by the whole schema, and each complaint stands at its field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve, field, frozen

from agentruns.errors import ConfigurationError

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

    @property
    def id(self) -> str:
        """Return what identifies the element: the name, without what an id cannot have."""
        return "f-" + "".join(each if each.isalnum() else f"_{ord(each):x}_" for each in self.name)

    @property
    def is_short(self) -> bool:
        """Tell whether the choices are few enough to be seen all at once."""
        return len(self.choices) <= _MOST_RADIOS


class Form:
    """
    The fields that a JSON Schema asks for, under names that begin with *prefix*.

    They are filled in with *value*, if there is one. Raise `ConfigurationError` for a schema that is none.
    """

    def __init__(
        self, schema: Mapping[str, Any], prefix: str, label: str = "", *, value: Any = _ABSENT, required: bool = True
    ) -> None:
        import jsonschema  # type: ignore[import-untyped,unused-ignore]
        from referencing import Registry

        self._schema = schema
        self._prefix = prefix
        self._label = label
        self._given = value
        self._required = required
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
            # A registry of its own, so that no schema makes this process fetch a thing.
            self._validator = jsonschema.Draft202012Validator(schema, registry=Registry())
        except jsonschema.SchemaError as error:
            raise ConfigurationError(f"this is no JSON Schema: {error.message}") from error

    def blank(self) -> Field:
        """Return the fields, filled in with the value given, if there is one, else with the defaults of the schema."""
        return self._field(self._schema, (), self._given, required=self._required, depth=0)

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
        schema = self._resolved(schema)
        if value is _ABSENT:
            value = schema.get("default", _ABSENT)
        name = self._prefix + "".join(f"/{_escaped(each)}" for each in path)
        made = Field(
            name=name,
            path=path,
            kind="json",
            label=_text(schema.get("title")) or (str(path[-1]).replace("_", " ") if path else self._label),
            help=_text(schema.get("description")),
            required=required,
        )
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
        help_ = f"{made.help} JSON.".strip() if made.help else "JSON."
        return evolve(made, help=help_, value="" if value is _ABSENT else _json(value))

    def _group(self, made: Field, schema: Mapping[str, Any], value: Any, depth: int) -> Field:
        needed = set(schema.get("required") or ())
        given = value if isinstance(value, Mapping) else {}
        fields = tuple(
            self._field(inner, (*made.path, name), given.get(name, _ABSENT), required=name in needed, depth=depth + 1)
            for name, inner in schema["properties"].items()
        )
        return evolve(made, kind="group", fields=fields)

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
            inner = {each.path[-1]: self._inner(each, schema, posted, errors) for each in field.fields}
            value = {name: each for name, each in inner.items() if each is not _ABSENT}
            return value if value or field.required else _ABSENT
        try:
            value = self._scalar(field, schema, posted)
        except ValueError as error:
            errors[field.path] = str(error)
            return _ABSENT
        if value is _ABSENT and field.required:
            errors[field.path] = "This is needed."
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
        with suppress(Unresolvable):
            for error in self._validator.iter_errors(value):
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
