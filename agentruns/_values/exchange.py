"""One HTTP exchange as values: what is asked, what is answered, what an error body says, how much may be asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from attrs import Factory, field, frozen

from . import codec
from .generic import Json

_UNREAD: Final = ...  # which no JSON is, and which pickles as itself


@frozen
class Request:
    """
    One HTTP request below the base URL: no host, no token.

    `idempotent` says that sending it again cannot do a thing twice; by default only GET is. `again_after_429` says that
    a refusal for lack of room may be answered by sending the very same request again, as nearly all may. `is_json` says
    that the answer is JSON; without it, the answer is taken as it comes.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(factory=dict)
    json: Json = field(default=None, repr=False)
    headers: Mapping[str, str] = field(factory=dict)
    idempotent: bool = Factory(lambda self: self.method == "GET", takes_self=True)
    again_after_429: bool = True
    is_json: bool = True

    @property
    def line(self) -> str:
        """Return method and path, as errors and logs show them."""
        return f"{self.method} {self.path}"


@frozen
class Response:
    """One HTTP answer; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    request: Request
    _value: Any = field(default=_UNREAD, init=False, repr=False, eq=False)

    @property
    def value(self) -> Json:
        """Return the JSON value of the body, decoded once; raise `codec.CodecError` for what is not JSON."""
        if self._value is _UNREAD:
            # A cached_property would take twice the time for the first read, which is the only one of most responses.
            object.__setattr__(self, "_value", codec.decode(self.body))
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

    `particulars` are shown after the message: which fields do not fit, how many credits are missing.
    """

    message: str
    code: str | None = None
    title: str | None = None
    docs_url: str | None = None
    request_id: str | None = None
    detail: Mapping[str, Json] = field(factory=dict)
    particulars: tuple[str, ...] = ()


@frozen
class RateLimit:
    """No more than *count* requests within any *seconds*."""

    count: int
    seconds: float


Send: TypeAlias = Callable[[Request], Awaitable[Response]]
