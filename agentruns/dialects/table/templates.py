"""Requests with holes: `{field}` in a path is escaped, alone in a text of JSON it is the value itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, Final

from attrs import field, frozen

from agentruns._values import codec
from agentruns._values.exchange import Request
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError

from .source import Section

_HOLE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_REPEATABLE: Final = frozenset({"GET", "PUT", "DELETE"})


@frozen
class Template:
    """A request of the table; `holes` are the names that stand in it."""

    method: str
    path: str
    params: Mapping[str, Any]
    headers: Mapping[str, Any]
    body: Any
    idempotent: bool
    holes: frozenset[str] = field(repr=False)

    @classmethod
    def of(cls, section: Section, names: Collection[str]) -> Template:
        """
        Read the request of a section; *names* are what may stand in braces.

        It is idempotent by what the table says, else by its method.
        """
        method, _, path = section.text("request").partition(" ")
        if method not in _METHODS or not path.startswith("/"):
            section.wrong("request", f"it is {section.values['request']!r}; it must be such as `GET /runs/{{id}}`")
        parts = {name: section.get(name, dict, "a table", {}) for name in ("params", "headers")}
        body = section.get("body", (dict, list), "a table or a list", None)
        holes: set[str] = set()
        for name, value in (("request", path), *parts.items(), ("body", body)):
            found = _holes_of(value)
            for hole in found:
                if hole not in names:
                    near = get_close_matches(hole, names, 1)
                    hint = f"did you mean `{{{near[0]}}}`?" if near else f"there are {', '.join(sorted(names))}"
                    section.wrong(name, f"`{{{hole}}}` names nothing: {hint}")
            holes |= found
        idempotent = section.flag("idempotent", default=method in _REPEATABLE)
        template = cls(method, path, **parts, body=body, idempotent=idempotent, holes=frozenset(holes))
        try:  # what no value mends is refused now
            template.request(dict.fromkeys(names, "x"))
        except ConfigurationError as error:
            section.wrong("request", str(error))
        return template

    def request(self, values: Mapping[str, Any], params: Mapping[str, str] | None = None) -> Request:
        """
        Return the request with *values* in its holes; what is None there is left out, with its key.

        Raise `ConfigurationError` for a value that cannot stand in the path.
        """
        return Request(
            self.method,
            _HOLE.sub(lambda hole: _segment(hole, values), self.path),
            params={**texts(self.params, values), **(params or {})},
            headers=texts(self.headers, values),
            json=fill(self.body, values),
            idempotent=self.idempotent,
        )


def _holes_of(value: Any) -> set[str]:
    if isinstance(value, str):
        return {hole[1] or "" for hole in _HOLE.finditer(value) if hole[0] not in {"{{", "}}"}}
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return set().union(*map(_holes_of, inner))


def texts(params: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters or headers with *values* in their holes; what is None there is left out."""
    return wire.drop_none({name: _text(fill(value, values)) for name, value in params.items()})


def fill(value: Any, values: Mapping[str, Any]) -> Any:
    """Return JSON with *values* in its holes; what is None there is left out."""
    if isinstance(value, Mapping):
        return {name: each for name, inner in value.items() if (each := fill(inner, values)) is not None}
    if isinstance(value, list):
        return [each for inner in value if (each := fill(inner, values)) is not None]
    if not isinstance(value, str):
        return value
    alone = _HOLE.fullmatch(value)
    if alone is not None and alone[1]:
        return values[alone[1]]
    if any(values[name] is None for name in _holes_of(value)):
        return None
    return _HOLE.sub(lambda hole: hole[0][0] if hole[1] is None else _text(values[hole[1]]) or "", value)


def _segment(hole: re.Match[str], values: Mapping[str, Any]) -> str:
    if hole[1] is None:
        return hole[0][0]
    value = values[hole[1]]
    try:
        return wire.path(_text(value))[1:]
    except ConfigurationError:
        raise ConfigurationError(
            f"{hole[1]} is {value!r}, which cannot stand in the path of a request", field=hole[1]
        ) from None


def _text(value: Any) -> str | None:
    """Return a value as a path, a parameter or a header has it: JSON for all but texts."""
    return value if value is None or isinstance(value, str) else codec.encode(value).decode()
