"""What `Annotated` says of a type: texts, bounds, checks; by msgspec, annotated_types, `Doc` or pydantic's `Field`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from attrs import Factory, define

from agentruns._values.generic import Json

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
_WORDS: Final = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_BOUNDS: Final = (*_OPERATORS, "multiple_of", "pattern", "min_length", "max_length", "tz")
_TEXTS: Final = ("title", "description", "examples")
_NO_MATTER: Final = {"strict", "allow_inf_nan", "union_mode"}  # of pydantic: arguments are strict, and finite, anyway


@define
class Notes:
    """
    What is said of a type.

    `bounds` are those of `msgspec.Meta`, `texts` are members of the schema, and each of `checks` tells whether a value
    is fine. `pydantic` is set if pydantic alone understands a part. `unknown` is what nobody understands.
    """

    bounds: dict[str, Any] = Factory(dict)
    texts: dict[str, Json] = Factory(dict)
    checks: list[tuple[Callable[[Any], Any], str]] = Factory(list)
    pydantic: bool = False
    unknown: list[Any] = Factory(list)

    @classmethod
    def of(cls, metadata: Iterable[Any]) -> Notes:
        """Return what *metadata* say, one after another."""
        notes = cls()
        for each in metadata:
            notes._add(each)
        return notes

    def _add(self, note: Any) -> None:
        kind = type(note)
        if isinstance(note, str):
            self.texts.setdefault("description", note)
        elif isinstance(note, Notes):
            self.bounds |= note.bounds
            self.checks += note.checks
        elif isinstance(note, msgspec.Meta):
            self._take(note, (*_BOUNDS, *_TEXTS))
            self.texts.update(note.extra_json_schema or {})
        elif kind.__name__ == "Doc" and isinstance(getattr(note, "documentation", None), str):
            self.texts["description"] = note.documentation
        elif is_field(note):
            self._add_field(note)
        elif kind.__module__ == "annotated_types":
            self._add_annotated_type(note)
        elif kind.__module__.startswith("pydantic"):
            said = {name: value for name, value in getattr(note, "__dict__", {}).items() if value is not None}
            if set(said) == {"pattern"}:
                self.bounds.update(said)
            elif not said or not set(said) <= _NO_MATTER:
                self.pydantic = True
        elif hasattr(kind, "__get_pydantic_core_schema__"):
            self.pydantic = True
        elif note is not None:
            self.unknown.append(note)

    def _add_field(self, field: Any) -> None:
        self._take(field, _TEXTS)
        if isinstance(field.json_schema_extra, dict):
            self.texts.update(field.json_schema_extra)
        if field.alias or field.validation_alias or field.discriminator:
            self.pydantic = True
        for each in field.metadata:
            self._add(each)

    def _add_annotated_type(self, note: Any) -> None:
        name = type(note).__name__
        if name == "Predicate":
            self.checks.append((note.func, "does not pass a check"))
        elif name == "Not":
            self.checks.append((_negated(note.func), "does not pass a check"))
        elif name in {"Interval", "Len"}:
            for each in note:
                self._add(each)
        elif name in {"Gt", "Ge", "Lt", "Le", "MultipleOf", "MinLen", "MaxLen"}:
            self._take(note, _BOUNDS)
        elif name == "Timezone" and note.tz in {None, ...}:
            self.bounds["tz"] = note.tz is ...
        elif name != "Unit":
            self.unknown.append(note)

    def _take(self, note: Any, names: Iterable[str]) -> None:
        for name in names:
            value = getattr(note, name, None)
            if value is not None:
                (self.texts if name in _TEXTS else self.bounds)[name] = value

    def constraints(self) -> Notes:
        """Return what is said of the values alone, as metadata for other types."""
        return Notes(self.bounds, checks=self.checks)

    def ordered(self) -> list[tuple[Callable[[Any], Any], str]]:
        """Return the bounds of values that msgspec cannot compare, such as dates, as checks."""
        return [
            (_compared(_OPERATORS[name], bound), f"is not {_WORDS[name]} {bound}")
            for name, bound in self.bounds.items()
            if name in _OPERATORS
        ]


def _negated(passes: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: not passes(value)


def _compared(passes: Callable[[Any, Any], bool], bound: Any) -> Callable[[Any], Any]:
    return lambda value: passes(value, bound)


def is_field(value: Any) -> bool:
    """Tell whether this is what pydantic's `Field(...)` gives."""
    return any(each.__name__ == "FieldInfo" and each.__module__ == "pydantic.fields" for each in type(value).__mro__)
