"""A piece of work as the journal keeps it: what started it and its answers, in and out of JSON, and its states."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, get_args

import attrs
from attrs import field, frozen

from agentruns._values import codec
from agentruns._values.generic import DetailT_co, Json, OriginT_co
from agentruns._values.large import written
from agentruns._values.minted import minted
from agentruns._values.run import Action, Run, RunRef, ToolOutput, short_json_of
from agentruns.dialects.protocol import Dialect
from agentruns.errors import ConfigurationError

if TYPE_CHECKING:  # imported with the first journal: `import agentruns` stays light
    from .journal import Handling, Journal
    from .journal.values import StandingAnswer


Changed: TypeAlias = Literal["refuse", "again", "keep"]
"""What becomes of an item of a batch whose key names work that was begun for another request."""


@frozen
class Unfinished(Generic[OriginT_co, DetailT_co]):
    """
    Work of a journal that is not done: what started it, its last state, None if it is not known to have started.

    `client.stream(work.origin, key=work.key)` goes on with it. `created` and `updated` are seconds since the epoch;
    `alive` says that somebody is at it now; nobody is at what is done. `digest` names what was asked for, None where
    that is not known.
    """

    key: str
    origin: OriginT_co | RunRef
    run: Run[DetailT_co] | None
    alive: bool
    created: float
    updated: float
    digest: str | None = None
    _forget: Callable[[], Awaitable[None]] | None = field(default=None, alias="forget", eq=False, repr=False)

    async def forget(self) -> None:
        """
        Delete this work from the journal, with all that stands with it; nothing is done to its run.

        Its key names nothing any more: who uses it again starts anew. Raise `ConfigurationError` if somebody is at it
        and it is not done.
        """
        if self._forget is None:
            raise ConfigurationError("this is of no journal; take what `client.work(key)` returns")
        await self._forget()


def resolver(
    find: Callable[[str], Awaitable[Unfinished | None]], changed: Changed
) -> Callable[[str, str | None], Awaitable[tuple[str, Any]]]:
    """
    Return what tells, of a key and a digest, under which key an item of a batch goes on, and what started it there.

    That is None where nothing has. *find* returns the work of a key. Where the digest is not that of the work,
    *changed* decides: what there is is kept, or the item gets a key of its own, which follows from both. What is
    returned raises `ConfigurationError` where the item is to be refused, and has no such work yet. Raise it at once for
    a strange *changed*.
    """
    if changed not in get_args(Changed):
        raise ConfigurationError(f"changed is {changed!r}; choose {', '.join(map(repr, get_args(Changed)))}")

    async def resolve(key: str, digest: str | None) -> tuple[str, Any]:
        work = await find(key)
        if work is None:
            return key, None
        if changed == "keep" or digest is None or work.digest in {None, digest}:
            return key, work.origin
        other = f"{key} (request {digest[:12]})"
        begun = await find(other)
        if begun is not None or changed == "again":
            return other, None if begun is None else begun.origin
        raise ConfigurationError(
            f"key {key!r} names other work in the journal: the item was another when that was begun",
            field="key",
            remedy='`changed="again"` starts it as it is now, and `changed="keep"` takes what there is',
        )

    return resolve


def serialize_origin(origin: Any, most: float = inf) -> str:
    """
    Return the JSON text of what starts a run, or of the reference to a run that exists.

    Raise `ConfigurationError` for what JSON cannot carry, `TooLargeError` for more than about *most* parts.
    """
    return json_text(codec.to_jsonable({"ref": origin} if isinstance(origin, RunRef) else origin, "the origin", most))


def deserialize_origin(text: str, dialect: Dialect) -> Any:
    """Return what started the work, as it was given."""
    kept = codec.decode(text, trusted=True)
    if isinstance(kept, Mapping) and set(kept) == {"ref"}:
        return RunRef(**kept["ref"])
    if not isinstance(kept, Mapping):
        return dialect.Origin(kept)
    return dialect.Origin(**_fields(dialect.Origin, kept))


def deserialize_answer(action: Action, kept: Handling | StandingAnswer) -> ToolOutput:
    """Return the answer to *action* that the journal keeps, where it does keep one."""
    assert kept.output is not None
    return ToolOutput(action, codec.decode(kept.output, trusted=True), kept.is_error)


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
    except (codec.CodecError, ConfigurationError):
        return value


def is_same_work(text: str, origin: Any) -> bool:
    """
    Tell whether *origin* asks for what the origin that is kept as *text* asked for.

    Ids that are minted anew for each value do not count. Nor do fields at their defaults that the text does not have: a
    version whose classes had fewer fields may have written it.
    """
    kept = codec.decode(text, trusted=True)
    referred = isinstance(kept, Mapping) and set(kept) == {"ref"}
    if isinstance(origin, RunRef) or referred:
        return text == serialize_origin(origin)
    return _is_written_as(kept, origin, minted(type(origin)))


def undeclared_ids(text: str, origin: Any) -> list[str]:
    """Return the fields whose default is made for each value, and differs from what is kept: perhaps ids."""
    kept, kind = codec.decode(text, trusted=True), type(origin)
    if not attrs.has(kind) or not isinstance(kept, Mapping):
        return []
    made = {each.name for each in attrs.fields(kind) if isinstance(each.default, attrs.Factory)}  # type: ignore[arg-type]
    differ = {name for name in kept if not _is_written_as(kept[name], getattr(origin, name, None))} - minted(kind)
    return sorted(differ) if differ <= made else []


def _is_written_as(kept: Any, value: Any, ignored: frozenset[str] = frozenset()) -> bool:
    """Tell whether *kept* is *value* as written, but for the *ignored* fields and new ones at their defaults."""
    if type(value) is dict and _is_equal(kept, value):  # at once, for it may have a hundred thousand parts
        return True
    if attrs.has(type(value)) and isinstance(kept, Mapping):
        fields = {each.name: each for each in attrs.fields(type(value)) if each.name not in ignored}
        return not kept.keys() - fields.keys() - ignored and all(
            _is_written_as(kept[name], getattr(value, name)) if name in kept else _is_default(each, value)
            for name, each in fields.items()
        )
    if isinstance(value, list | tuple) and isinstance(kept, list):
        return len(value) == len(kept) and all(map(_is_written_as, kept, value))
    if isinstance(value, Mapping) and isinstance(kept, Mapping) and value.keys() == kept.keys():
        return all(_is_written_as(kept[name], value[name]) for name in value)
    return bool(codec.to_jsonable(value, "the origin") == kept)


def _is_equal(kept: Any, value: Any) -> bool:
    """Tell whether two values are equal; what cannot be compared, such as an array, is looked at part by part."""
    try:
        return bool(kept == value)
    except Exception:
        return False


def _is_default(each: attrs.Attribute[Any], owner: Any) -> bool:
    """Tell whether a field of *owner* has the value that it has when nothing is said."""
    default: Any = each.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory(owner) if default.takes_self else default.factory()
    return bool(getattr(owner, each.name) == default)


async def keep_state(journal: Journal, key: str, run: Run) -> None:
    """Keep a state of the run: that it has begun, waits, or is over."""
    await journal.saw(key, await run_text(run), done=run.status.is_over)


async def run_text(run: Run) -> str:
    """Return a run as JSON text; a large one is written in a thread."""
    return await written(partial(short_json_of, run))


def json_text(value: Any) -> str:
    """Return a value of plain JSON types as text."""
    return codec.encode(value).decode()
