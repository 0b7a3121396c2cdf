"""From a row to what starts a run: `{column}` in a text stands for what the row has in that column."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
from attrs import evolve, frozen

from agentruns._keeping.digest import request_digest, what_is_asked
from agentruns._values import codec
from agentruns.cli.fields import Kind, either, kind_of
from agentruns.dialects.protocol import Dialect
from agentruns.errors import ConfigurationError

from .rows import Problem, Row

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_INDEX: Final = re.compile(r"\[(\d+)\]")
LINE: Final = "#"
"""What stands in a template for the line of the row."""

Part: TypeAlias = str | tuple[str]
"""A text as it is, or the name of a column."""


class UnusableError(Exception):
    """Say why a template cannot be filled from a row."""


@frozen
class Text:
    """A text with places for columns; without any it is the same for every row."""

    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, template: str, where: str) -> Text:
        """Read a template; `{{` and `}}` are braces. Raise `ConfigurationError`, naming *where* it stands."""
        parts: list[Part] = []
        end = 0
        for found in _TOKEN.finditer(template):
            parts.append(template[end : found.start()])
            end = found.end()
            if found[1]:
                parts.append((found[1],))
            elif found[0] in {"{{", "}}"}:
                parts.append(found[0][0])
            else:
                raise ConfigurationError(
                    f"{where} is {template!r}, in which {found[0]!r} is no column; a column is {{name}}, and a brace "
                    "itself is written twice"
                )
        return cls(tuple(part for part in [*parts, template[end:]] if part))

    @property
    def columns(self) -> Iterator[str]:
        """Return the columns that it needs."""
        return (part[0] for part in self.parts if isinstance(part, tuple))

    @property
    def whole(self) -> str | None:
        """Return the column, if it is one and nothing else."""
        return part[0] if len(self.parts) == 1 and isinstance(part := self.parts[0], tuple) else None

    def fill(self, row: Row) -> str:
        """Return the text for a row; what is no text there is put in as JSON."""
        return "".join(part if isinstance(part, str) else _shown(row, part[0]) for part in self.parts)


def cell(row: Row, column: str) -> Any:
    """Return what a row has in a column; a name such as a.b or a[0] also reaches into objects and lists."""
    if column in row.values:
        return row.values[column]
    if column == LINE:
        return row.line
    value: Any = row.values
    for step in _steps(column):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, Sequence) and not isinstance(value, str) and _is_place(step, value):
            value = value[int(step)]
        else:
            raise UnusableError(f"it has no column {column!r}; it has {', '.join(map(str, row.values)) or 'none'}")
    return value


def _steps(column: str) -> list[str]:
    """Return the names and places that lead to a value: those of a[0].b are a, 0 and b."""
    return _INDEX.sub(r".\1", column).split(".")


def _is_place(step: str, values: Sequence[Any]) -> bool:
    return step.isdecimal() and int(step) < len(values)


def _shown(row: Row, column: str) -> str:
    value = cell(row, column)
    if value is None:
        raise UnusableError(f"column {column!r} is empty (null)")
    plain = codec.to_jsonable(value, f"column {column!r}")
    return plain if isinstance(plain, str) else codec.encode(plain).decode()


@frozen
class Value:
    """A JSON value in which texts are templates; a text that is one column alone stands for the column's own value."""

    value: Any

    @classmethod
    def parse(cls, template: str, where: str) -> Value:
        """Read JSON, or one column alone; raise `ConfigurationError`, naming *where* it stands."""
        try:
            if Text.parse(template, where).whole is not None:
                return cls(_Whole(Text.parse(template, where), decoded=True))
        except ConfigurationError:
            pass  # it has braces of its own
        try:
            return cls(_templates(codec.decode(template), where))
        except codec.CodecError as error:
            raise ConfigurationError(
                f"{where} is {template!r}, which is neither JSON nor one column such as {{name}}: {error}"
            ) from error

    @property
    def columns(self) -> Iterator[str]:
        """Return the columns that it needs."""
        return _columns(self.value)

    @property
    def whole(self) -> str | None:
        """Return the column, if it is one and nothing else."""
        return self.value.text.whole if isinstance(self.value, _Whole) else None

    def fill(self, row: Row) -> Any:
        """Return the value for a row."""
        return _filled(self.value, row)


@frozen
class Either:
    """A text, or a list or object of JSON: whichever the template is, or the row has in the column that it names."""

    text: Text

    @classmethod
    def parse(cls, template: str, where: str) -> Either | Value:
        """Read a template; raise `ConfigurationError`, naming *where* it stands."""
        return cls(Text.parse(template, where)) if isinstance(either(template), str) else Value.parse(template, where)

    @property
    def columns(self) -> Iterator[str]:
        """Return the columns that it needs."""
        return self.text.columns

    @property
    def whole(self) -> str | None:
        """Return the column, if it is one and nothing else."""
        return self.text.whole

    def fill(self, row: Row) -> Any:
        """Return the text or the value for a row."""
        if self.whole is None:
            return self.text.fill(row)
        value = cell(row, self.whole)
        return either(value) if isinstance(value, str) else value


_KINDS: Final[Mapping[Kind, type[Text | Value | Either]]] = {
    Kind.TEXT: Text,
    Kind.JSON: Value,
    Kind.EITHER: Either,
}


@frozen
class _Whole:
    """A column's own value; what a file without types holds as text is read as JSON if *decoded*."""

    text: Text
    decoded: bool = False

    def fill(self, row: Row) -> Any:
        column = self.text.whole
        assert column is not None
        value = cell(row, column)
        if not self.decoded or not isinstance(value, str):
            return value
        try:
            return codec.decode(value)
        except codec.CodecError as error:
            raise UnusableError(f"column {column!r} is {value[:80]!r}, which is not JSON: {error}") from error


def _templates(value: Any, where: str) -> Any:
    if isinstance(value, str):
        text = Text.parse(value, where)
        return text if text.whole is None else _Whole(text)
    if isinstance(value, dict):
        return {name: _templates(each, where) for name, each in value.items()}
    return [_templates(each, where) for each in value] if isinstance(value, list) else value


def _columns(value: Any) -> Iterator[str]:
    if isinstance(value, Text):
        yield from value.columns
    elif isinstance(value, _Whole):
        yield from value.text.columns
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _columns(each)


def _filled(value: Any, row: Row) -> Any:
    if isinstance(value, Text | _Whole):
        return value.fill(row)
    if isinstance(value, dict):
        return {name: _filled(each, row) for name, each in value.items()}
    return [_filled(each, row) for each in value] if isinstance(value, list) else value


@frozen
class Item:
    """What one row asks for: `origin` starts it, `key` names it, `digest` names what it asks for."""

    line: int
    key: str
    origin: Any
    digest: str | None
    values: Mapping[str, Any]


class Mapper:
    """
    Make the origins of a dialect out of rows.

    *given* maps fields to templates; a required field that has none is taken from the column of its name. *fixed* maps
    fields to values that stand in until they are known. *beside* is what every row asks for that is not in its origin.
    *columns* are those of the file, None where they differ; *hint* says what helps if one that is needed is none of
    them.
    """

    def __init__(
        self,
        dialect: Dialect,
        given: Mapping[str, str],
        *,
        key: str | None = None,
        columns: Sequence[str] | None = None,
        fixed: Mapping[str, Any] | None = None,
        beside: Any = None,
        hint: str = "",
    ) -> None:
        self._beside = beside
        self._hint = hint
        self._kind = dialect.Origin
        self._fixed = dict(fixed or {})
        fields = {field.name: field for field in attrs.fields(self._kind)}
        unknown = sorted(set(given) - set(fields))
        if unknown:
            raise ConfigurationError(
                f"{dialect.NAME} has no field {', '.join(unknown)}; {self._kind.__name__} has {', '.join(fields)}"
            )
        self._optional = {name for name, field in fields.items() if field.default is not attrs.NOTHING}
        needed = {name: f"{{{name}}}" for name in fields if name not in self._optional and name not in self._fixed}
        self._templates = {
            name: _KINDS[kind_of(fields[name])].parse(template, f"--{name.replace('_', '-')}")
            for name, template in {**needed, **given}.items()
        }
        self._key = None if key is None else Text.parse(key, "--key")
        self._seen: set[int] = set()
        if columns is not None:
            self._check(columns)

    def _check(self, columns: Sequence[str]) -> None:
        """Refuse, at once, templates for columns that no row has."""
        named = [*self._templates.items(), *([("key", self._key)] if self._key is not None else [])]
        for name, template in named:
            for column in template.columns:
                if column != LINE and column not in columns and _steps(column)[0] not in columns:
                    raise ConfigurationError(
                        f"--{name.replace('_', '-')} needs the column {column!r}, and INPUT has {', '.join(columns)}. "
                        f'Say what it is made of: --{name.replace("_", "-")} "{{column}}"{self._hint}'
                    )

    def item(self, row: Row) -> Item | Problem:
        """Return what a row asks for, or why it cannot be used."""
        found = self._made(row)
        if isinstance(found, Problem):
            return evolve(found, key=self._would_be_key(row), values=row.values)
        return found

    def _would_be_key(self, row: Row) -> str | None:
        try:
            return None if self._key is None else self._key.fill(row) or None
        except (UnusableError, ConfigurationError):
            return None

    def _made(self, row: Row) -> Item | Problem:
        filled: dict[str, Any] = {}
        for name, template in self._templates.items():
            try:
                if name in self._optional and template.whole is not None and cell(row, template.whole) in (None, ""):
                    continue
                filled[name] = template.fill(row)
            except (UnusableError, ConfigurationError) as error:
                return Problem(row.line, name, str(error))
        try:
            origin = self._kind(**{**self._fixed, **filled})
            digest = hashlib.blake2b(codec.encode(codec.to_jsonable(filled, "the row")), digest_size=6).hexdigest()
        except (ConfigurationError, TypeError, ValueError) as error:
            return Problem(row.line, self._field_of(str(error)), str(error))
        if self._key is None:
            return self._item(row, f"{row.line}-{digest}", origin)
        return self._named(row, origin, self._key)

    def _item(self, row: Row, key: str, origin: Any) -> Item:
        asked = origin if self._beside is None else [what_is_asked(origin), self._beside]
        return Item(row.line, key, origin, request_digest(asked), row.values)

    def _named(self, row: Row, origin: Any, template: Text) -> Item | Problem:
        try:
            key = template.fill(row)
        except (UnusableError, ConfigurationError) as error:
            return Problem(row.line, "key", str(error))
        mark = hash(key)
        if not key or mark in self._seen:
            return Problem(row.line, "key", f"{key!r} is the key of an earlier row" if key else "it is empty")
        self._seen.add(mark)
        return self._item(row, key, origin)

    def _field_of(self, text: str) -> str:
        """Return the field that an error of the origin's class names."""
        found = re.search(rf"\b{self._kind.__name__}\.(\w+)", text)
        return found[1] if found else ""
