"""One HTTP exchange as values: what is asked, what is answered, what an error body says, how much may be asked."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from attrs import Attribute, Factory, field, frozen

from . import check, codec
from .base import ConfigurationError
from .generic import Json
from .printable import printable

NO_PARAMS: Final[Mapping[str, str]] = {}
"""No query parameters: one value for the many that have none."""

_UNREAD: Final = ...  # which no JSON is, and which pickles as itself


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029#]")
_BREAK: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SHOWN: Final = 200


def _is_path(request: Request, _: Attribute[str], path: Any) -> None:
    """
    Refuse what would not stay below the base URL, which it is appended to.

    `:8443/x`, `.evil.test/x` and `@evil.test/x` would name another host, and take the token there.
    """
    if not isinstance(path, str) or not path.startswith("/") or path.startswith("//") or _CONTROL.search(path):
        shown = repr(path) if len(str(path)) <= _SHOWN else f"{str(path)[:_SHOWN]!r}..."
        raise ConfigurationError(
            f"the path of a {request.method} is {shown}; it must begin with one `/`, name no scheme or host, and have "
            "no `#` and no control characters",
            field="Request.path",
            remedy="`wire.path(...)` makes one of ids, and `wire.link(...)` one of a URL that the vendor gave",
        )


def _are_texts(request: Request, attribute: Attribute[Any], given: Any) -> None:
    """Refuse parameters and headers that are not texts; what they hold may be secret, and is not told."""
    if given.__class__ is dict and not given:
        return
    where = f"{attribute.name} of {request.line}"
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"{where} are of the type {type(given).__name__}; they must be a mapping of names to texts",
            field=f"Request.{attribute.name}",
        )
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str):
            kind = type(value if isinstance(name, str) else name).__name__
            raise ConfigurationError(
                f"{where} have {name!r} of the type {kind}; names and values must be texts",
                field=f"Request.{attribute.name}",
            )
        if attribute.name == "headers" and (_BREAK.search(name) or _BREAK.search(value) or not name):
            raise ConfigurationError(
                f"{where} have {name!r}, whose name or value no header can carry", field="Request.headers"
            )


def _is_data(request: Request, attribute: Attribute[Any], data: Any) -> None:
    if data is None:
        return
    if not isinstance(data, bytes | str | Mapping):
        raise ConfigurationError(
            f"the data of {request.line} is of the type {type(data).__name__}; it must be bytes, a text, or the fields "
            "of a form, names and values texts",
            field="Request.data",
        )
    if request.json is not None:
        raise ConfigurationError(f"{request.line} has both json and data; it can have one body", field="Request.data")
    if isinstance(data, Mapping):
        _are_texts(request, attribute, data)


def _dict(value: Any) -> Any:
    """Return other mappings as a dict: errors hold requests, and travel between processes."""
    return value if value.__class__ is dict or not isinstance(value, Mapping) else dict(value)


def _is_timeout(_: Request, attribute: Attribute[Any], seconds: Any) -> None:
    if seconds is not None:
        check.number(f"Request.{attribute.name}", seconds)


@frozen
class Request:
    """
    One HTTP request below the base URL: no host, no token.

    `idempotent` says that sending it again cannot do a thing twice; by default only GET is. `again_after_429` says that
    a refusal for lack of room may be answered by sending the very same request again, as nearly all may. `is_json` says
    that the answer is JSON; without it, the answer is taken as it comes.

    `path` begins with `/` and is appended to the base URL; it may have a query, to which `params` are added. The body
    is `json`, or `data`: bytes, a text, or the fields of a form, each with the usual `Content-Type` unless `headers`
    have one. `timeout` is in seconds, for this exchange; by default the client's. A GET with a `max_age` is answered
    by what the same GET of this client was answered no more seconds ago, if that had a `max_age`, too. Raise
    `ConfigurationError` for a path that could lead elsewhere, and for parameters or headers that are not texts.
    """

    method: str
    path: str = field(validator=_is_path)
    params: Mapping[str, str] = field(factory=dict, converter=_dict, validator=_are_texts)
    json: Json = field(default=None, repr=False)
    headers: Mapping[str, str] = field(factory=dict, converter=_dict, validator=_are_texts)
    idempotent: bool = Factory(lambda self: self.method == "GET", takes_self=True)
    again_after_429: bool = True
    is_json: bool = True
    data: bytes | str | Mapping[str, str] | None = field(default=None, repr=False, kw_only=True, validator=_is_data)
    timeout: float | None = field(default=None, kw_only=True, validator=_is_timeout)
    max_age: float | None = field(default=None, kw_only=True, eq=False, repr=False)

    @property
    def line(self) -> str:
        """Return method and path, as errors and logs show them."""
        return printable(f"{self.method} {self.path}")


@frozen(slots=False)  # attrs fills frozen slots slowly, and each poll makes one of these, which does not last
class Response:
    """One HTTP answer; header names are lower case. `base_url` is what the path of its request was appended to."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    request: Request
    base_url: str = field(default="", repr=False, eq=False)
    _value: Any = field(default=_UNREAD, init=False, repr=False, eq=False)

    @property
    def value(self) -> Json:
        """Return the JSON value of the body, decoded once; raise `codec.CodecError` for what is not JSON."""
        if self._value is _UNREAD:
            # A cached_property would take twice the time for the first read, which is the only one of most responses.
            object.__setattr__(self, "_value", codec.decode(self.body, received=True))
        return self._value


@frozen
class ServerEvent:
    """
    One event of a stream that a server keeps open.

    `name` is what the server calls it, empty where it has no name; `data` is the JSON value that it carries, or a text
    that is no JSON; `id` is the last id that the stream gave, None before the first.
    """

    name: str
    data: Json
    id: str | None = None


@frozen
class Problem:
    """
    What a vendor's error body says, in common words.

    `particulars` are shown after the message: which fields do not fit, how many credits are missing. `nothing_done`
    says that the vendor refused before it did anything, as some say by a 503: the request may then be sent again,
    whatever it asks for, and nothing is in doubt. `rate_limited` says of a 429 to a request without `again_after_429`
    that it is about the pace of requests alone, not about room for the run: a row of a batch waits it out.
    """

    message: str
    code: str | None = None
    title: str | None = None
    docs_url: str | None = None
    request_id: str | None = None
    detail: Mapping[str, Json] = field(factory=dict)
    particulars: tuple[str, ...] = ()
    nothing_done: bool = False
    rate_limited: bool = False


@frozen
class RateLimit:
    """No more than *count* requests within any *seconds*."""

    count: int
    seconds: float


Send: TypeAlias = Callable[[Request], Awaitable[Response]]


class Transport(Protocol):
    """
    What carries requests, where that is not the client itself: a recorder, another HTTP library, a script of a test.

    One async method, so an async function is one, too. It puts base URL and token to the request itself.
    """

    async def __call__(self, request: Request, /) -> Response:
        """
        Send *request* once and return the answer, whatever its status; its header names are lower case.

        Raise `TransportError(request, reason)` where none came, with `sent=False` if the vendor cannot have seen it.
        """
        ...
