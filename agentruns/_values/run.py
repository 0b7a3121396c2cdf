"""
A run as a value: its state, what it waits for, how it ended, what it used.

Vendors' words stay in `vendor_status`, `detail` and `raw`; everything else is in our own.
"""

from __future__ import annotations

import enum
import json
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from math import inf
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

from attrs import field, fields, frozen

from . import check, codec, html
from .base import ConfigurationError
from .generic import DetailT_co, ItemT_co, Json, OriginT, OriginT_co
from .jsonable import TooLargeError
from .slug import make_slug, parse_slug
from .twice import place_of, value_at

T = TypeVar("T")


class RunStatus(enum.StrEnum):
    """
    Where a run is in its life, in one set of words for every vendor.

    PENDING and RUNNING move on by themselves, REQUIRES_ACTION waits for answers, COMPLETED and FAILED are ends.
    """

    PENDING = "pending"
    RUNNING = "running"
    REQUIRES_ACTION = "requires_action"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def in_flight(self) -> bool:
        """Tell whether the run moves on by itself, pending or running: it is worth another read."""
        return self is PENDING or self is RUNNING

    @property
    def is_over(self) -> bool:
        """Tell whether the run has ended, completed or failed; one that requires action has not."""
        return self is COMPLETED or self is FAILED


# Looked up in the class, members take long before Python 3.12, and so does the hash of one.
PENDING, RUNNING, REQUIRES_ACTION, COMPLETED, FAILED = RunStatus


@frozen
class JsonText:
    """A JSON object as it came: text, and the keys under which it stands. It takes a third of the room of its parts."""

    body: bytes = field(repr=False)
    path: tuple[str, ...] = ()

    def read(self) -> Mapping[str, Json]:
        """Return the object."""
        value = codec.decode(self.body, received=True)
        for key in self.path:
            value = value[key]
        found: Mapping[str, Json] = value
        return found

    def glance(self, cls: type[T]) -> T | None:
        """Return what the object has of *cls*, as `codec.glance` does; None for one that stands under keys."""
        return None if self.path else codec.glance(self.body, cls)


@frozen
class RunRef:
    """Name an existing run; `parent` is its conversation, thread or agent, empty where the vendor needs none."""

    id: str
    parent: str = ""

    @classmethod
    def from_slug(cls, slug: str, vendor: str = "") -> RunRef:
        """
        Return the run that `Run.slug` names, of *vendor* if that is given.

        Raise `ConfigurationError` for a text that is no slug, and for a run of another vendor.
        """
        named, parent, run_id = parse_slug(slug)
        if vendor and named != vendor:
            raise ConfigurationError(f"{slug!r} names a run of {named or 'no vendor'}, and not of {vendor}")
        return cls(run_id, parent)


@frozen
class Action:
    """
    One thing that a paused run waits for.

    `id` is the vendor's, unique within the run. `name` says what is asked for: a tool, an agent, "ask-questions",
    "continue". `arguments` is a JSON object, empty where the vendor gives none. Hashable, by id and name.
    """

    id: str
    name: str
    arguments: Mapping[str, Json] = field(factory=dict, hash=False)


def _is_action(_: object, __: object, value: Any) -> None:
    check.instance("ToolOutput.action", value, Action, "one of `run.actions`, as the paused run has it")


@frozen
class ToolOutput:
    """
    The answer to one action.

    `output` is anything that JSON can carry: plain types, attrs classes, datetimes, enums. With `is_error` it says why
    there is no answer. Hashable, whatever the output is.
    """

    action: Action = field(validator=_is_action)
    output: Any = field(hash=False)
    is_error: bool = field(default=False, validator=check.is_boolean)


@frozen
class Failure:
    """Why a run failed, in the vendor's words; `message` is empty where the vendor gives none."""

    type: str
    message: str = ""


@frozen
class Usage:
    """Tokens that a run has used; None is a count that is not known."""

    input_tokens: int | None
    output_tokens: int | None

    def __str__(self) -> str:
        known = [(self.input_tokens, "in"), (self.output_tokens, "out")]
        return ", ".join(f"{'?' if count is None else count} {which}" for count, which in known)


@frozen
class Progress:
    """Steps done, and how many there may be; `limit` is None where the vendor names none."""

    done: int
    limit: int | None = None


@frozen
class Run(Generic[DetailT_co]):
    """
    One state of one run, in words that are the same for every vendor.

    - `ref` names the run.
    - `status` is one of five words; `vendor_status` is the vendor's own word, as received.
    - `actions` is what a paused run waits for; empty in any other state.
    - `output` is JSON: the final text (Narrative, Origami, Conduit), or the structured answer (Narrative with another
      output schema than text, Middesk). None while there is none, and in lists of vendors that leave it out.
    - `failure` says why a run failed; None in any other state.
    - `usage` is the tokens used so far (Narrative, Conduit), `progress` the steps done (Narrative, Origami). Either is
      None where the vendor does not report it.
    - `poll_after` is the seconds that the vendor asks to wait before the next read; None where it asks for none. A run
      that waits for an answer has it where it may also go on by itself.
    - `vendor` is the name of the dialect; empty for one that does not set it.

    Two states are equal if they are of the same run and have the same status, vendor status, actions, output and
    failure; counters do not make them differ. A run is hashable, whatever its output is, and it pickles.

    The parameter is the class of `detail`. `detail` and `raw` are made of the received text when they are first asked
    for: thousands of runs that are waited for hold the text alone.
    """

    ref: RunRef
    status: RunStatus
    vendor_status: str
    actions: tuple[Action, ...] = ()
    output: Json = field(default=None, hash=False)
    failure: Failure | None = None
    usage: Usage | None = field(default=None, eq=False)
    progress: Progress | None = field(default=None, eq=False)
    poll_after: float | None = field(default=None, eq=False)
    vendor: str = field(default="", eq=False, kw_only=True)
    _detail: DetailT_co | None = field(default=None, alias="detail", eq=False, repr=False, kw_only=True)
    _raw: Mapping[str, Json] | JsonText = field(factory=dict, alias="raw", eq=False, repr=False, kw_only=True)

    @property
    def id(self) -> str:
        """Return the vendor's id of this run."""
        return self.ref.id

    @property
    def slug(self) -> str:
        """Return one text for the run, its parent and its vendor, safe in a URL; `RunRef.from_slug` reads it."""
        return make_slug(self.vendor, self.ref.parent, self.ref.id)

    def _repr_html_(self) -> str:
        return html.table(self._title(), self._rows())

    def _title(self) -> str:
        return f"Run {self.id}{f' of {self.vendor}' if self.vendor else ''}"

    def _rows(self, why: str = "") -> Iterator[tuple[str, str]]:
        """Yield the name and the text of each thing that a notebook shows; *why* says what ended the watching."""
        word = self.vendor_status
        yield "Status", self.status.value if word in {"", self.status} else f"{self.status.value} (vendor: {word})"
        if why:
            yield "Error", why
        if self.failure is not None:
            yield "Failure", f"{self.failure.type}: {self.failure.message}".removesuffix(": ")
        for action in self.actions:
            yield "Action", f"{action.name} ({action.id})\n{_text(action.arguments)}"
        if self.output is not None:
            yield "Output", self.output if isinstance(self.output, str) else _text(self.output)
        if self.progress is not None:
            most = f" of {self.progress.limit}" if self.progress.limit is not None else ""
            yield "Progress", f"{self.progress.done}{most}"
        if self.usage is not None:
            yield "Tokens", str(self.usage)

    @property
    def raw(self) -> Mapping[str, Json]:
        """
        Return the run's JSON object as received, without its envelope; unknown fields included.

        Raise `ValueError` for one in flight that is nested more deeply, or has larger numbers, than can be read.
        """
        if isinstance(self._raw, JsonText):
            # A cached_property would keep the text beside its parts, and take another slot of each run.
            object.__setattr__(self, "_raw", self._raw.read())
        return cast("Mapping[str, Json]", self._raw)

    @property
    def detail(self) -> DetailT_co:
        """
        Return the state as the vendor's own attrs class, with every documented field.

        It is read when it is first asked for. It is None for a parked run of a vendor that is not known: neither one of
        this package or of an installed one, nor of a client of this process; and where its dialect has no `detail`.
        Raise `ProtocolError`, naming the JSON path, for what does not fit; that stops nothing else, and `raw` has it
        all the same.
        """
        if self._detail is None:
            object.__setattr__(self, "_detail", _read_detail(self.vendor, self.raw))
        return cast("DetailT_co", self._detail)

    def to_json(self) -> str:
        """
        Return the run as JSON text, which `Run.from_json` reads back, in any process.

        `detail` is left out: it is read again from `raw`. Raise `ConfigurationError` for an `output` or `arguments` of
        your own that JSON cannot carry.
        """
        return json_of(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Run:
        """
        Return the run that `to_json` wrote, `detail` included for every vendor that is known.

        Raise `ConfigurationError` for any other text, and for anything but a text.
        """
        given: Any = text
        if not isinstance(given, str | bytes):
            raise ConfigurationError(f"{given!r} is not the text of a run; pass what `Run.to_json` returned")
        try:
            parked = codec.structure(codec.decode(text, trusted=True), _ParkedRun)
            return cls(
                ref=parked.ref,
                status=RunStatus(parked.status),
                vendor_status=parked.vendor_status,
                actions=parked.actions,
                output=value_at(parked.output_at, parked.raw) if parked.output_at else parked.output,
                failure=parked.failure,
                usage=parked.usage,
                progress=parked.progress,
                poll_after=parked.poll_after,
                vendor=parked.vendor,
                raw=parked.raw,
            )
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"this is not a run as `Run.to_json` writes it: {error}. Pass the text unchanged"
            ) from error


def _text(value: Any) -> str:
    try:
        return json.dumps(value, indent=1, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


@frozen
class _ParkedRun:
    """What `Run.to_json` writes; with `output_at`, the output stands there in `raw` alone."""

    ref: RunRef
    status: str
    vendor_status: str
    actions: tuple[Action, ...]
    output: Any
    failure: Failure | None
    usage: Usage | None
    progress: Progress | None
    poll_after: float | None
    vendor: str
    raw: Mapping[str, Json]
    output_at: Sequence[str | int] = ()


_TOLD: Final = tuple(each.name for each in fields(_ParkedRun) if each.name not in {"raw", "output_at"})

_BYTES_OF_A_PART: Final = 128
"""So much of a text is read and written in the time that it takes to write one part of a value."""


def json_of(run: Run, most: float = inf) -> str:
    """Return what `Run.to_json` returns; raise `TooLargeError` for a run of more than about *most* parts."""
    return codec.encode(_plain(run, most)).decode()


def short_json_of(run: Run, most: float = inf) -> str:
    """Return what `Run.from_json` reads as well, and which has the output once; raise as `json_of` does."""
    plain = _plain(run, most)
    place = place_of(plain["output"], plain["raw"])
    if place is not None:
        plain |= {"output": None, "output_at": place}
    return codec.encode(plain).decode()


def _plain(run: Run, most: float) -> dict[str, Json]:
    told, received = {name: getattr(run, name) for name in _TOLD}, run._raw
    if not isinstance(received, JsonText):
        return _written(run, {**told, "raw": received}, most)
    if len(received.body) // _BYTES_OF_A_PART > most:
        raise TooLargeError
    # What was read from JSON is made of plain JSON types; to go through it takes ten times as long as to read it.
    return {**_written(run, told, most), "raw": received.read()}


def _written(run: Run, told: Mapping[str, Any], most: float) -> dict[str, Json]:
    return cast("dict[str, Json]", codec.to_jsonable(told, f"run {run.id}", most))


def _read_detail(vendor: str, raw: Mapping[str, Json]) -> Any:
    """Return the vendor's class for what was received, None of a vendor that is not known."""
    import_module("agentruns.dialects")  # it enters itself; a program may have a run, out of a file, and no more yet
    for find in detail_finders:
        read = find(vendor)
        if read is not None:
            return read(raw)
    return None


detail_finders: Final[list[Callable[[str], Callable[[Mapping[str, Json]], Any] | None]]] = []
"""What knows, by a vendor's name, how `Run.detail` is read out of `Run.raw`; the room of the dialects enters itself."""


@frozen
class Page(Generic[DetailT_co]):
    """One page of a list of runs; `cursor` is None on the last. `skipped` rows did not fit, and were left out."""

    runs: tuple[Run[DetailT_co], ...]
    cursor: str | None = None
    skipped: int = 0


@frozen
class Outcome(Generic[OriginT_co, DetailT_co, ItemT_co]):
    """
    How one item of a batch ended.

    `index` counts the items from 0. `key` is what the batch's `key` function gave, None without one. `item` is what was
    given, and `origin` what started the run: what `prepare` made of the item, or the item itself without `prepare`, and
    if that failed. `run` is the last state that was seen, None if there was none. `error` is None if the run completed,
    else what `client.result` would have raised.
    """

    index: int
    key: str | None
    origin: OriginT_co
    run: Run[DetailT_co] | None = None
    error: Exception | None = None
    item: ItemT_co = field(kw_only=True)


Origins: TypeAlias = Iterable[OriginT] | AsyncIterable[OriginT]
