"""What a vendor module gives to the server, and what it gets: plain values, no sockets, no waiting."""

from __future__ import annotations

import abc
import logging
import random
import re
import string
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import ClassVar, Self, TypeVar, cast

import attrs
import msgspec
from attrs import define, field, frozen

from .clock import Clock
from .schema import JSON
from .script import Prompt, Script, Turn, default_agent, play

_log = logging.getLogger("agentruns.emulator")
_T = TypeVar("_T")


@frozen(kw_only=True)
class Request:
    """One request as a vendor sees it; `params` are the named parts of the path."""

    method: str
    path: str
    query: Mapping[str, str] = field(factory=dict)
    headers: Mapping[str, str] = field(factory=dict)
    content: bytes = b""
    params: Mapping[str, str] = field(factory=dict)
    planted: str | None = None

    @property
    def bearer(self) -> str | None:
        """The token of `Authorization: Bearer <token>`."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    @property
    def json(self) -> JSON:
        """The decoded body, or None."""
        try:
            return cast(JSON, msgspec.json.decode(self.content))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


@frozen(kw_only=True)
class Reply:
    """One answer; `half` and `chunked` tell the server how to deliver it.

    An answer that goes on has `follow`, which the server asks again and again, until it returns None, for the bytes
    that have come since; it is called outside of `Vendor.respond` and takes the lock itself.
    """

    status: int = 200
    content: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(factory=dict)
    half: bool = False
    chunked: bool = False
    follow: Callable[[], bytes | None] | None = None

    @classmethod
    def of(cls, status: int, body: JSON, *, content_type: str = "application/json") -> Reply:
        """Answer with a JSON body."""
        return cls(status=status, content=msgspec.json.encode(body), content_type=content_type)


@frozen
class Route:
    """One endpoint: method, path with `{named}` parts, and the function that answers."""

    method: str
    template: str
    handle: Callable[[Request], Reply]
    pattern: re.Pattern[str] = field(init=False)

    @pattern.default
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.template))


class Ids:
    """Make ids; the same seed makes the same ids again."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def uuid(self) -> str:
        """Make a random UUID."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def word(self, prefix: str, length: int) -> str:
        """Make an opaque id of letters and digits."""
        return prefix + "".join(self._random.choices(string.ascii_letters + string.digits, k=length))

    def coin(self) -> bool:
        """Toss a coin."""
        return self._random.random() < 0.5


@define
class Stage:
    """What every vendor shares: the token, the clock, the script and the ids."""

    token: str = field(repr=False)
    clock: Clock
    wall_start: datetime
    script: Script = ()
    ids: Ids = field(factory=Ids)
    alter: Callable[[Turn], Turn] | None = None
    """What becomes of each turn before it is played."""
    _zero: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._zero = self.clock()

    def now(self) -> float:
        """Count the seconds since the emulator was made."""
        return self.clock() - self._zero

    def wall(self, seconds: float) -> datetime:
        """Tell the wall time at a number of seconds since the emulator was made."""
        return self.wall_start + timedelta(seconds=seconds)

    def play(self, prompt: Prompt, otherwise: Callable[[Prompt], Turn] = default_agent) -> Turn:
        """Choose the turn of the run that begins."""
        turn = play(self.script, prompt, otherwise)
        return turn if self.alter is None else self.alter(turn)


class Vendor(abc.ABC):
    """One vendor's rules and state.

    Methods are called one at a time, under `lock`; what a vendor shows to tests has to take the lock itself, since the
    server may run in a thread.
    """

    name: ClassVar[str]
    prefix: ClassVar[str] = ""
    """What the base URL ends with, such as `/v1`; the templates of the routes include it."""
    plants: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Names of `Fault.vendor`, each with the method and path pattern it strikes unless the fault says otherwise."""
    limits: ClassVar[Mapping[str, tuple[str, int]]] = {}
    """What `agentruns emulate` may limit, `"limit"` requests a second and `"slots"` of runs at once: by which option of
    this emulator, and times how much."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.lock = threading.RLock()

    @classmethod
    @abc.abstractmethod
    def build(cls, stage: Stage, options: Mapping[str, object]) -> Self:
        """Make the vendor from the options given to the emulator."""

    @property
    @abc.abstractmethod
    def routes(self) -> Sequence[Route]:
        """The endpoints."""

    @property
    @abc.abstractmethod
    def runs_started(self) -> int:
        """Count the runs that really started, however often a caller asked for each."""

    def example_fields(self) -> Mapping[str, JSON]:
        """Give the fields of what starts a run here, with ids that exist; none where the dialect's example will do."""
        return {}

    @abc.abstractmethod
    def refusal(self, status: int, detail: str, path: str) -> Reply:
        """Answer with an error in the vendor's shape."""

    def admit(self, request: Request) -> Reply | None:
        """Check the caller's rights; return the refusal, or None when the request may pass."""
        if request.bearer == self.stage.token:
            return None
        return self.refusal(401, "The access token is missing or not valid.", request.path)

    def respond(self, request: Request) -> Reply:
        """Answer one request: rights first, then path, then method, then the endpoint's own rules."""
        with self.lock:
            return self.admit(request) or self._dispatch(request)

    def _dispatch(self, request: Request) -> Reply:
        at_path = [(route, found) for route in self.routes if (found := route.pattern.fullmatch(request.path))]
        if not at_path:
            return self.refusal(404, f"No endpoint at {request.path}.", request.path)
        for route, found in at_path:
            if route.method == request.method:
                return self._handle(route, attrs.evolve(request, params=found.groupdict()))
        allowed = ", ".join(sorted(route.method for route, _ in at_path))
        refusal = self.refusal(405, f"{request.method} is not allowed here, only {allowed}.", request.path)
        return attrs.evolve(refusal, headers={"Allow": allowed})

    def _handle(self, route: Route, request: Request) -> Reply:
        try:
            return route.handle(request)
        except Exception as error:  # a script function's own error: show it to the caller instead of dying
            _log.exception("%s %s failed inside the emulator", request.method, request.path)
            return self.refusal(500, f"The emulator or its script failed: {error!r}", request.path)


def phrase(status: int) -> str:
    """Name a status as HTTP does."""
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"


def make_options(kind: Callable[..., _T], given: Mapping[str, object]) -> _T:
    """Make a vendor's options (an attrs class), naming what is allowed when one is unknown."""
    allowed = sorted(a.alias or a.name for a in attrs.fields(cast("type[attrs.AttrsInstance]", kind)))
    if unknown := sorted(set(given) - set(allowed)):
        raise TypeError(f"unknown option {', '.join(unknown)}; allowed are {', '.join(allowed)}")
    return kind(**given)
