"""A piece of work as the journal keeps it: what started it, in and out of JSON, and the states that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic

import attrs
from attrs import frozen

from agentruns._values import codec
from agentruns._values.generic import DetailT_co, Json, OriginT_co
from agentruns._values.run import Run, RunRef
from agentruns.dialects.protocol import Dialect

if TYPE_CHECKING:  # imported with the first journal: `import agentruns` stays light
    from .journal import Journal


@frozen
class Unfinished(Generic[OriginT_co, DetailT_co]):
    """
    Work of a journal that is not done: what started it, its last state, None if it is not known to have started.

    `client.stream(work.origin, key=work.key)` goes on with it. `created` and `updated` are seconds since the epoch;
    `alive` says that somebody is at it now.
    """

    key: str
    origin: OriginT_co | RunRef
    run: Run[DetailT_co] | None
    alive: bool
    created: float
    updated: float


def serialize_origin(origin: Any) -> str:
    """Return the JSON text of what starts a run, or of the reference to a run that exists."""
    value = {"ref": codec.unstructure(origin)} if isinstance(origin, RunRef) else codec.unstructure(origin)
    return json_text(codec.to_jsonable(value, "the origin"))


def deserialize_origin(text: str, dialect: Dialect) -> Any:
    """Return what started the work, as it was given."""
    kept = codec.decode(text)
    if isinstance(kept, Mapping) and set(kept) == {"ref"}:
        return RunRef(**kept["ref"])
    if not isinstance(kept, Mapping):
        return dialect.Origin(kept)
    return dialect.Origin(**_fields(dialect.Origin, kept))


def _fields(cls: type[Any], kept: Mapping[str, Json]) -> Mapping[str, Any]:
    """
    Return the fields of a class by the names that its `__init__` takes, each as its type says.

    What the type does not tell, such as a union of classes, stays the JSON that it is.
    """
    if not attrs.has(cls):
        return kept
    try:
        known = attrs.fields_dict(attrs.resolve_types(cls))
    except NameError:  # a type that is imported for type checkers only
        return kept
    made: dict[str, Any] = {}
    for name, value in kept.items():
        each = known.get(name)
        if each is None:
            made[name] = value
        elif each.init:
            made[each.alias or name] = _as_type(value, each.type)
    return made


def _as_type(value: Json, kind: Any) -> Any:
    if kind is None:
        return value
    try:
        return codec.structure(value, kind)
    except codec.CodecError:
        return value


def identity(origin: Any) -> Any:
    """Return what of an origin makes it what it is: all but the ids that are minted anew for each value."""
    if not attrs.has(type(origin)):
        return origin
    minted = {each.name for each in attrs.fields(type(origin)) if isinstance(each.default, attrs.Factory)}  # type: ignore[arg-type]
    value = codec.to_jsonable(codec.unstructure(origin), "the origin")
    return {name: value[name] for name in value if name not in minted}


async def keep_state(journal: Journal, key: str, run: Run) -> None:
    """Keep a state of the run: that it has begun, waits, or is over."""
    await journal.saw(key, run.to_json(), done=run.status.is_over)


def json_text(value: Any) -> str:
    """Return a value of plain JSON types as text."""
    return codec.encode(value).decode()
