"""
The values that move between modules: frozen, typed, free of I/O.

Vendors' words stay in `vendor_status`, `detail` and `raw`; everything else is in our own.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar, cast

from attrs import field, fields, frozen

from . import check, codec
from .errors import ConfigurationError

T = TypeVar("T")

_UNREAD: Final = ...  # which no JSON is, and which pickles as itself


class RunStatus(enum.StrEnum):
    """Where a run is in its life, in one set of words for every vendor."""

    PENDING = "pending"
    RUNNING = "running"
    REQUIRES_ACTION = "requires_action"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def in_flight(self) -> bool:
        """Tell whether the run still moves by itself: keep polling."""
        return self in {RunStatus.PENDING, RunStatus.RUNNING}


@frozen
class Request:
    """
    One HTTP request below the base URL: no host, no token.

    `idempotent` says that sending it again cannot do a thing twice; by default only GET is. `again_after_429` says that
    a refusal for lack of room may be answered by sending the very same request again, as nearly all may.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(factory=dict)
    json: Any = field(default=None, repr=False)
    headers: Mapping[str, str] = field(factory=dict)
    idempotent: bool = field()
    again_after_429: bool = True

    @idempotent.default
    def _reads_only(self) -> bool:
        return self.method == "GET"

    @property
    def line(self) -> str:
        """Return method and path, as errors and logs show them."""
        return f"{self.method} {self.path}"


@frozen
class Pause:
    """Ask, within a flow, for *seconds* of waiting."""

    seconds: float


@frozen
class Hold:
    """Ask, within a flow, to be the only flow of this client that holds *key*, until the flow ends."""

    key: str


@frozen
class Note:
    """
    Ask, within the flow of a start, that *data* is kept before the next request is sent.

    *data* is made of plain JSON types: what it takes to find out, after a crash, what became of that request. *among*
    names the starts from which this one could not be told. While another of them is under way, or has died less than
    *shown* seconds ago, so that its run may yet come to light, nothing is kept. When that is over, the verdict is
    "theirs": look again, then, at what has to be known before the request.
    """

    data: Mapping[str, Any]
    among: str = ""
    shown: float = 0.0


@frozen
class Claim:
    """Ask, within the flow of a start, whether the run of that id, which was found by looking, is its own."""

    run_id: str


class Verdict(enum.IntEnum):
    """Whose something is, as far as is known: what `Note` and `Claim` are answered, as the status of a response."""

    OURS = 204
    UNCLEAR = 300
    THEIRS = 409


@frozen
class Response:
    """One HTTP answer; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    request: Request
    _value: Any = field(default=_UNREAD, init=False, repr=False, eq=False)

    @property
    def value(self) -> Any:
        """Return the JSON value of the body, decoded once; raise `codec.CodecError` for what is not JSON."""
        if self._value is _UNREAD:
            object.__setattr__(self, "_value", codec.decode(self.body))
        return self._value


@frozen
class JsonText:
    """A JSON object as it came: text, and the keys under which it stands. It takes a third of the room of its parts."""

    body: bytes = field(repr=False)
    path: tuple[str, ...] = ()

    def read(self) -> Mapping[str, Any]:
        """Return the object."""
        value = codec.decode(self.body)
        for key in self.path:
            value = value[key]
        found: Mapping[str, Any] = value
        return found


@frozen
class Problem:
    """What a vendor's error body says, in common words."""

    message: str
    code: str | None = None
    title: str | None = None
    docs_url: str | None = None
    request_id: str | None = None
    detail: Mapping[str, Any] = field(factory=dict)


@frozen
class RunRef:
    """Name an existing run; `parent` is its conversation, thread or agent, empty where the vendor needs none."""

    id: str
    parent: str = ""


@frozen
class Action:
    """One thing that a paused run waits for; hashable, by id and name."""

    id: str
    name: str
    arguments: Mapping[str, Any] = field(factory=dict, hash=False)


def _is_action(_: object, __: object, value: Any) -> None:
    check.instance("ToolOutput.action", value, Action, "one of `run.actions`, as the paused run has it")


@frozen
class ToolOutput:
    """The answer to one action; with `is_error`, the reason why there is none. Hashable, whatever the output is."""

    action: Action = field(validator=_is_action)
    output: Any = field(hash=False)
    is_error: bool = field(default=False, validator=check.is_flag)


@frozen
class Failure:
    """Why a run failed, in the vendor's words."""

    type: str
    message: str = ""


@frozen
class Usage:
    """Tokens that a run has used."""

    input_tokens: int
    output_tokens: int


@frozen
class Progress:
    """Steps done, and how many there may be."""

    done: int
    limit: int | None = None


@frozen
class Run:
    """
    One state of one run.

    Equality covers what a reader acts on: which run, status, actions, output, failure. Counters do not make two
    states differ. `detail` is the vendor's own attrs class; `raw` is the JSON object as received. Both are made of the
    received text when they are first asked for: thousands of runs that are waited for hold the text alone. A run is
    hashable, whatever its output is.
    """

    ref: RunRef
    status: RunStatus
    vendor_status: str
    actions: tuple[Action, ...] = ()
    output: Any = field(default=None, hash=False)
    failure: Failure | None = None
    usage: Usage | None = field(default=None, eq=False)
    progress: Progress | None = field(default=None, eq=False)
    poll_after: float | None = field(default=None, eq=False)
    vendor: str = field(default="", eq=False, kw_only=True)
    _detail: Any = field(default=None, eq=False, repr=False, kw_only=True)
    _raw: Mapping[str, Any] | JsonText = field(factory=dict, eq=False, repr=False, kw_only=True)

    @property
    def id(self) -> str:
        """Return the vendor's id of this run."""
        return self.ref.id

    def _repr_html_(self) -> str:
        from .notebook import run_html  # for notebooks only

        return run_html(self)

    @property
    def raw(self) -> Mapping[str, Any]:
        """Return the JSON object as received, unknown fields included."""
        if isinstance(self._raw, JsonText):
            object.__setattr__(self, "_raw", self._raw.read())
        return cast("Mapping[str, Any]", self._raw)

    @property
    def detail(self) -> Any:
        """Return the vendor's own attrs class, every documented field; None if this version knows the vendor not."""
        if self._detail is None:
            object.__setattr__(self, "_detail", _read_detail(self.vendor, self.raw))
        return self._detail

    def to_json(self) -> str:
        """
        Return the run as JSON text, to be parked and read back by `Run.from_json`.

        Raise `ConfigurationError` for an `output` or `arguments` of your own that JSON cannot carry.
        """
        parked = {each.name: getattr(self, each.name) for each in fields(_ParkedRun)}
        return codec.encode(codec.plain(parked, f"run {self.id}")).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Run:
        """
        Return the run that `to_json` wrote, `detail` included for the vendors of this package.

        Raise `ConfigurationError` for any other text, and for what is none.
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
                output=parked.output,
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


@frozen
class _ParkedRun:
    """What `Run.to_json` writes."""

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
    raw: Mapping[str, Any]


def _read_detail(vendor: str, raw: Mapping[str, Any]) -> Any:
    """Return the vendor's class for what was received; None for a parked run that another version knew otherwise."""
    try:
        read = detail_readers.get(vendor)
        return read(raw) if read else None
    except ValueError:
        return None


detail_readers: Final[dict[str, Callable[[Mapping[str, Any]], Any]]] = {}
"""By vendor name, what reads `Run.detail` out of `Run.raw`; each dialect enters its own."""


@frozen
class Page:
    """One page of a list of runs; `cursor` is None on the last."""

    runs: tuple[Run, ...]
    cursor: str | None = None


@frozen
class Outcome:
    """How one origin of a batch ended: `run` is its last state, `error` is None if it completed."""

    index: int
    key: str | None
    origin: Any
    run: Run | None = None
    error: Exception | None = None


@frozen
class Limit:
    """No more than *count* requests within any *seconds*."""

    count: int
    seconds: float


Command: TypeAlias = Request | Pause | Hold | Note | Claim
Flow: TypeAlias = Generator[Command, Response, T]
"""A vendor operation: yields what it wants sent, receives the answers, returns a value."""

Send: TypeAlias = Callable[[Request], Awaitable[Response]]
Origins: TypeAlias = Iterable[Any] | AsyncIterable[Any]
