"""Types that pydantic alone understands: its models, and what its metadata say; imported where one is used."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from attrs import frozen

from agentruns._values import codec
from agentruns._values.generic import Json

from .shapes import MisfitError, Schema

_MOST_TOLD = 10


@frozen
class Validated:
    """What a `pydantic.TypeAdapter` takes: models by their own configuration, other types strictly."""

    adapter: Any
    schema: Schema
    label: str
    is_model: bool
    is_open: bool

    def build(self, value: Json, lenient: bool, /) -> Any:
        """Return what pydantic makes of it."""
        from pydantic import ValidationError

        extra = None if self.is_open or lenient else "forbid"
        strict = None if self.is_model else not lenient
        try:
            return self.adapter.validate_json(codec.encode(value), strict=strict, extra=extra)
        except ValidationError as error:
            raise _misfit(error) from None


def _misfit(error: Any) -> MisfitError:
    told = error.errors(include_url=False, include_context=False, include_input=False)
    (first, path), *others = [(each["msg"], "".join(map(_step, each["loc"]))) for each in told[:_MOST_TOLD]]
    more = "".join(f"; {message} - at `${where}`" for message, where in others)
    if not others:
        return MisfitError(first, path, deep=bool(path))
    return MisfitError(f"{first} - at `${path}`{more}", deep=True)


def _step(place: str | int) -> str:
    return f"[{place}]" if isinstance(place, int) else f".{place}"


def validated(kind: Any, name: str, is_taken: Callable[[str], bool]) -> tuple[Validated, dict[str, Schema]]:
    """
    Return the shape of a type, its schema closed to unknown members, and the definitions that it refers to.

    These are called after the type's own *name*, if what pydantic calls one of them *is_taken*. Raise `TypeError` where
    pydantic has no schema for the type, or is too old.
    """
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    if "extra" not in inspect.signature(TypeAdapter.validate_json).parameters:
        raise TypeError("pydantic 2.12 or later is needed")
    try:
        adapter: Any = TypeAdapter(kind)
        schema = adapter.json_schema()
        if any(map(is_taken, schema.get("$defs", ()))):
            schema = adapter.json_schema(ref_template=f"#/$defs/{name}.{{model}}")
            schema["$defs"] = {f"{name}.{inner}": each for inner, each in schema["$defs"].items()}
    except PydanticUserError as error:
        raise TypeError(str(error).partition("\n")[0]) from error
    is_open = _close(schema)
    definitions: dict[str, Schema] = schema.pop("$defs", {})
    label = "object" if "properties" in schema else "value"
    return Validated(adapter, schema, label, _is_model(kind), is_open), definitions


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "__pydantic_core_schema__")


def _close(schema: Any) -> bool:
    """Say of each object that it has no other members; return whether a model says that it has."""
    if isinstance(schema, list):
        return sum(map(_close, schema)) > 0
    if not isinstance(schema, dict):
        return False
    is_open = "properties" in schema and schema.setdefault("additionalProperties", False) is not False
    return sum(map(_close, schema.values())) > 0 or is_open
