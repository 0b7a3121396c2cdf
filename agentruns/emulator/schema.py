"""The small part of JSON Schema an emulator needs: invent a fitting value, say why one does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""Any decoded JSON value."""

_DEEPEST = 6  # below this depth only required properties are invented, so that recursive schemas end

_BY_FORMAT: Mapping[str, str] = {
    "date": "2026-01-15",
    "date-time": "2026-01-15T09:30:00Z",
    "time": "09:30:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "3c90c3cc-0d44-4b50-8888-8dd25736052a",
}

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "null": type(None),
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": str,
    "array": list,
    "object": dict,
}


def example(schema: JSON, name: str = "value") -> JSON:
    """Invent a value for a schema: its const, default or first enum member, else one made from its type."""
    return _invent(schema, name, schema, 0)


def misfit(schema: JSON, value: JSON, path: str = "$") -> str | None:
    """Say why a value does not fit a schema, or return None; keywords it does not know always fit."""
    if not isinstance(schema, Mapping):
        return None
    declared = schema.get("type")
    names = [declared] if isinstance(declared, str) else [n for n in _items(declared) if isinstance(n, str)]
    if names and not any(_is_a(name, value) for name in names):
        return f"{path} is not of type {' or '.join(names)}"
    choices = schema.get("enum")
    if isinstance(choices, list) and value not in choices:
        return f"{path} is not one of the allowed values"
    if isinstance(value, Mapping):
        return _object_misfit(schema, value, path)
    if isinstance(value, list):
        found = (misfit(schema.get("items"), item, f"{path}[{i}]") for i, item in enumerate(value))
        return next((text for text in found if text), None)
    return None


def _object_misfit(schema: Mapping[str, JSON], value: Mapping[str, JSON], path: str) -> str | None:
    properties = _mapping(schema.get("properties"))
    for name in _items(schema.get("required")):
        if name not in value:
            return f"{path}.{name} is missing"
    if schema.get("additionalProperties") is False:
        for name in value:
            if name not in properties:
                return f"{path}.{name} is not expected"
    found = (misfit(properties.get(name), item, f"{path}.{name}") for name, item in value.items())
    return next((text for text in found if text), None)


def _is_a(name: str, value: JSON) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return name not in _TYPES or isinstance(value, _TYPES[name])


def _invent(schema: JSON, name: str, root: JSON, depth: int) -> JSON:
    if not isinstance(schema, Mapping):
        return f"example {name}"
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if choices := _items(schema.get(key)):
            return choices[0]
    if isinstance(reference := schema.get("$ref"), str):
        return {} if depth > _DEEPEST else _invent(_follow(reference, root), name, root, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if branches := _items(schema.get(key)):
            return _invent(branches[0], name, root, depth + 1)
    return _of_type(schema, name, root, depth)


def _of_type(schema: Mapping[str, JSON], name: str, root: JSON, depth: int) -> JSON:
    declared = schema.get("type", "object" if "properties" in schema else "string")
    if not isinstance(declared, str):
        declared = next((item for item in _items(declared) if item != "null"), "null")
    match declared:
        case "object":
            return _object(schema, root, depth)
        case "array":
            least = max(_whole(schema.get("minItems"), 1), 1)
            return [_invent(schema.get("items"), name, root, depth + 1) for _ in range(least)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _string(schema, name)


def _object(schema: Mapping[str, JSON], root: JSON, depth: int) -> JSON:
    required = _items(schema.get("required"))
    properties = _mapping(schema.get("properties"))
    return {
        name: _invent(part, name, root, depth + 1)
        for name, part in properties.items()
        if depth <= _DEEPEST or name in required
    }


def _string(schema: Mapping[str, JSON], name: str) -> str:
    kind = schema.get("format")
    text = _BY_FORMAT.get(kind, f"example {name}") if isinstance(kind, str) else f"example {name}"
    text = text.ljust(_whole(schema.get("minLength"), 0), ".")
    return text[: _whole(schema.get("maxLength"), len(text))]


def _follow(reference: str, root: JSON) -> JSON:
    found = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        found = _mapping(found).get(step)
    return found


def _items(value: JSON) -> Sequence[JSON]:
    return value if isinstance(value, list) else ()


def _mapping(value: JSON) -> Mapping[str, JSON]:
    return value if isinstance(value, Mapping) else {}


def _whole(value: JSON, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise
