"""
Requests over one aiohttp session; the only module that knows aiohttp, the base URL and the token.

aiohttp is imported when a client opens. What aiohttp does by itself and this transport does not: following redirects,
keeping cookies, reading proxies from the environment, reading bodies without bound, sending a GET twice. A borrowed
session keeps its own ways with cookies and proxies.

The token shows nowhere: not in a `repr`, a log record or a traceback, nor where a server sends it back.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias
from urllib.parse import urlencode

from attrs import field, frozen

from agentruns._aio.limits import TOO_LONG, ConcurrencyLimit, ExchangeTimeouts, Task
from agentruns._values import codec
from agentruns._values.exchange import Request, Response, ServerEvent
from agentruns._values.secret import HIDDEN, Secret
from agentruns.errors import AgentRunsError, ConfigurationError, TransportError

from .defaults import Defaults
from .sse import EventParser, TooLongError

if TYPE_CHECKING:
    import aiohttp

logger = logging.getLogger("agentruns")

MAX_BODY: Final = 8 * 2**20
CONNECT_SECONDS: Final = 10.0
_SHORTEST_SECRET: Final = 8
_EVENTS: Final = {"Accept": "text/event-stream"}
_LARGE: Final = 2**20
_MANY_ESCAPES: Final = 10_000
"""So many that looking at each by itself takes longer than searching for the token."""

_LONGEST_REASON: Final = 500
_QUOTED: Final = re.compile(r""":?\s*(?:bytearray\()?\bb['"]""")
_CLOSED: Final = "the client was closed"
_IS_CLOSED: Final = "this client is closed; open another one"


class _Mask:
    """
    Hide a token in what a server says, as it is and as JSON or a URL may escape it.

    A word of fewer than 8 characters is no secret but a placeholder (`dev`, `none`); hiding it would garble the answer.
    """

    def __init__(self, token: str) -> None:
        spelled = "".join(map(_spellings, token))
        self._codes = {f"{ord(mark):0{digits}x}".encode() for mark in token for digits in (2, 4)}
        self._kept = len(token) < _SHORTEST_SECRET
        self._sign = max(re.findall("[0-9A-Za-z]*", token), key=len).encode()
        self._text = re.compile(spelled)
        self._bytes = re.compile(spelled.encode())

    def text(self, text: str) -> str:
        return text if self._kept else self._text.sub(HIDDEN, text)

    def body(self, body: bytes) -> bytes:
        # Every spelling has an escape in it, or the longest plain part of the token as it is.
        if self._kept or not (self._sign in body or self._escapes(body, b"%", 2) or self._escapes(body, b"\\u", 4)):
            return body
        return self._bytes.sub(HIDDEN.encode(), body)

    def _escapes(self, body: bytes, sign: bytes, digits: int) -> bool:
        """Tell whether *sign* may escape a character of the token; searching for the whole token takes much longer."""
        if sign[:1] not in body or sign not in body:  # as in nearly every answer; one byte is found the fastest
            return False
        if body.count(sign) > _MANY_ESCAPES:
            return True
        return any(piece[:digits].lower() in self._codes for piece in body.split(sign)[1:])


def _spellings(mark: str) -> str:
    # Each begins with a plain character: a search passes over all others quickly.
    sign, digits = re.escape(mark), [f"[{each}{each.upper()}]" for each in f"{ord(mark):04x}"]
    escaped = "" if mark.isalnum() else rf"|\\{sign}"
    return rf"(?:{sign}{escaped}|\\u{''.join(digits)}|%{''.join(digits[2:])})"


class Headers(Mapping[str, str]):
    """The headers of an answer, by lower-case name, the token hidden; most are never looked at."""

    __slots__ = ("_mask", "_values")

    def __init__(self, values: Mapping[str, str], mask: _Mask) -> None:
        self._values = values
        self._mask = mask

    def __getitem__(self, name: str) -> str:
        return self._mask.text(self._values[name])

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header, or *default*: asked of every answer, nearly always in vain."""
        value = self._values.get(name)
        return default if value is None else self._mask.text(value)

    def __iter__(self) -> Iterator[str]:
        return iter({name.lower(): None for name in self._values})

    def __len__(self) -> int:
        return len(set(map(str.lower, self._values)))

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[type[dict[str, str]], tuple[dict[str, str]]]:
        return dict, (dict(self),)


@frozen
class Address:
    """Where to send, and with which right; both settled before a transport is made."""

    base_url: str
    token: str = field(converter=Secret, repr=False)


Heard: TypeAlias = Callable[[ServerEvent], Awaitable[None]]
"""What is awaited for each event of a stream."""

WaitResumed: TypeAlias = Callable[[], Awaitable[None]]
"""What returns when the vendor has had the rest that it asked for."""


async def _at_once() -> None:
    pass


class Transport(Protocol):
    """What carries requests: a `Send` that opens and closes."""

    async def open(self, wait_resumed: WaitResumed, /) -> None:
        """Get ready to send; what has to wait for a connection awaits *wait_resumed* before it is sent."""
        ...

    async def close(self) -> None:
        """End what is under way."""
        ...

    async def __call__(self, request: Request, /) -> Response:
        """Send *request* once."""
        ...

    async def listen(
        self, request: Request, opened: Callable[[], None], heard: Heard | None = None, /
    ) -> Response | None:
        """
        Open a stream of events, call *opened* when it is, and return when the server ends it; or its refusal.

        Await *heard* for each event.
        """
        ...


class AiohttpTransport:
    """
    Send requests, each within *timeout* seconds, at most *connections* of them at once.

    Calling it returns the `Response`, whatever its status, or raises `TransportError`. A session that is passed in is
    borrowed: it is used, and never closed. *defaults* are the headers and query parameters of every request.
    """

    def __init__(
        self,
        address: Address,
        *,
        session: aiohttp.ClientSession | None = None,
        timeout: float = 30.0,
        connections: int = 100,
        max_body: int = MAX_BODY,
        defaults: Defaults = Defaults(),  # noqa: B008 - frozen
    ) -> None:
        self._address = address
        self._defaults = defaults
        self._mask = _Mask(address.token)
        self._borrowed = session
        self._seconds = timeout
        self._connections = connections
        self._max_body = max_body
        self._timeouts = ExchangeTimeouts(timeout)
        self._other_timeouts: dict[float, ExchangeTimeouts] = {}  # by seconds
        self._closed = False

    def __repr__(self) -> str:
        return f"AiohttpTransport({self._address.base_url!r})"

    async def open(self, wait_resumed: WaitResumed = _at_once) -> None:
        """Import aiohttp and make the session; a request that waits for a connection awaits *wait_resumed* after."""
        import aiohttp
        from yarl import URL

        connections = self._connections
        own = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Authorization": Secret(f"Bearer {self._address.token}"),
        }
        headers = _merged(own, self._defaults.headers)
        if self._borrowed is None:
            # The concurrency limit bounds what is sent.
            self._session = self._made(connector_class()(limit=0, keepalive_timeout=60.0), headers)
            # A kept connection may be closed by the server just as a request goes out, and nobody knows whether that
            # was read: what must not be sent twice gets a connection of its own.
            self._once = self._made(aiohttp.TCPConnector(limit=0, force_close=True), headers)
            self._headers: Mapping[str, str] = {}
        else:
            self._session = self._once = self._borrowed
            self._headers = headers
            connector = self._borrowed.connector
            limits = (getattr(connector, "limit", 0), getattr(connector, "limit_per_host", 0))
            connections = min(connections, *(limit or connections for limit in limits))
        # Less for connecting than for all: running out of it says that nothing was sent. `_timeouts` bounds the whole.
        self._options: dict[str, Any] = {
            "timeout": aiohttp.ClientTimeout(
                total=None, sock_connect=min(0.9 * self._seconds, CONNECT_SECONDS), ceil_threshold=float("inf")
            ),
            "allow_redirects": False,
            # Those of a request replace those of its session, which has no public way to read them.
            "middlewares": (_send_once, *getattr(self._session, "_middlewares", ())),
        }
        if self._borrowed is not None:
            self._options["raise_for_status"] = False
        # Waiting for a connection inside aiohttp counts against the timeout and is lost in a crowd; here it does not.
        self._limit = ConcurrencyLimit(connections)
        self._wait_resumed = wait_resumed
        self._url = URL
        self._refused = aiohttp.ClientSSLError
        self._never_sent = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
        self._lost = (aiohttp.ClientError, TimeoutError, OSError)

    async def close(self) -> None:
        """End what is under way and release every connection; a borrowed session stays open."""
        self._closed = True
        self._limit.close()
        for timeouts in (self._timeouts, *self._other_timeouts.values()):
            timeouts.cancel_all(_CLOSED)
        if self._borrowed is None:
            await self._session.close()
            await self._once.close()

    @staticmethod
    def _made(connector: aiohttp.BaseConnector, headers: Mapping[str, str]) -> aiohttp.ClientSession:
        import aiohttp

        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=_plain(headers), raise_for_status=False
        )

    async def __call__(self, request: Request) -> Response:
        """Send *request* once and read the whole answer."""
        if self._closed:
            raise AgentRunsError(_IS_CLOSED)
        limit = self._limit
        if not limit.acquire_nowait():
            await self._acquire(limit, request)
        timeouts = self._timeouts if request.timeout is None else self._timeouts_of(request.timeout)
        task = timeouts.begin()
        answer: aiohttp.ClientResponse | None = None
        try:
            answer = await self._ask(request, request.headers)
            content = await self._content(answer, request)
        except BaseException as error:
            if answer is not None:
                answer.close()
                answer = None  # it shows the headers that came
            ours = self._in_our_words(request, error, timeouts, task)
        else:
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("%s: %d, %d bytes", request.line, answer.status, len(content))
            headers, body = Headers(answer.headers, self._mask), self._mask.body(content)
            return Response(answer.status, headers, body, request, self._address.base_url)
        finally:
            timeouts.end(task)
            limit.release()
        raise ours

    def _timeouts_of(self, seconds: float) -> ExchangeTimeouts:
        return self._other_timeouts.setdefault(seconds, ExchangeTimeouts(seconds))

    async def _acquire(self, limit: ConcurrencyLimit, request: Request) -> None:
        """Wait for a permit, and then for the end of a pause that the vendor may have asked for meanwhile."""
        if not await limit.acquire():
            raise AgentRunsError(f"{_CLOSED} while {request.line} was under way")
        try:
            await self._wait_resumed()
        except BaseException:
            limit.release()
            raise

    async def listen(self, request: Request, opened: Callable[[], None], heard: Heard | None = None) -> Response | None:
        """
        Open a stream of events, call *opened*, and return when the server ends it; *heard* is awaited for each event.

        Where it is refused, the refusal is returned, without its body. Takes no permit of the requests in flight.
        Raise `TransportError` if it cannot be opened or breaks. It may last for ever: whoever listens sets the time.
        """
        if self._closed:
            raise AgentRunsError(_IS_CLOSED)
        task = self._timeouts.begin(endless=True)
        try:
            return await self._hear(request, opened, heard)
        except BaseException as error:
            ours = self._in_our_words(request, error, self._timeouts, task)
        finally:
            self._timeouts.end(task)
        raise ours

    async def _hear(self, request: Request, opened: Callable[[], None], heard: Heard | None) -> Response | None:
        async with await self._ask(request, _merged(request.headers, _EVENTS)) as answer:
            opened()
            if answer.status != 200:
                return Response(answer.status, Headers(answer.headers, self._mask), b"", request)
            parser = EventParser()
            while piece := await answer.content.readany():
                if heard is not None:
                    for event in self._events(parser, piece, request):
                        await heard(event)
            return None

    def _events(self, parser: EventParser, piece: bytes, request: Request) -> Iterator[ServerEvent]:
        try:
            raw = parser.feed(piece)
        except TooLongError as error:
            raise TransportError(request, str(error), final=True) from None
        for event in raw:
            text = self._mask.text(event.data)
            try:
                data = codec.decode(text)
            except codec.CodecError:
                data = text
            yield ServerEvent(event.name, data, event.id)

    def _in_our_words(
        self, request: Request, error: BaseException, timeouts: ExchangeTimeouts, task: Task
    ) -> BaseException:
        """
        Return what went wrong as an error of ours; what is none of the transport's is returned as it is.

        No error of the lower library is chained, and none keeps its traceback: they hold the headers that were sent and
        the answer as it came, and what reports local variables would show them.
        """
        if isinstance(error, asyncio.CancelledError):
            reason = timeouts.reason(task)
            if reason == TOO_LONG:
                return TransportError(request, f"no whole answer within {request.timeout or self._seconds:g} s")
            if reason is not None:
                return AgentRunsError(f"{reason} while {request.line} was under way")
        elif isinstance(error, self._refused):
            return TransportError(request, f"TLS failed: {self._reason(error)}", sent=False, final=True)
        elif isinstance(error, self._never_sent):
            return TransportError(request, self._reason(error), sent=False)
        elif isinstance(error, TimeoutError):
            return TransportError(request, f"no whole answer within {self._seconds:g} s")
        elif isinstance(error, RuntimeError) and self._session.closed:
            if self._borrowed is None:
                return AgentRunsError(_IS_CLOSED)
            return ConfigurationError("the session that was passed in is closed; keep it open as long as the client")
        elif isinstance(error, ValueError) and not isinstance(error, self._lost):
            return ConfigurationError(f"{request.line} cannot be sent: {self._reason(error)}")
        elif isinstance(error, self._lost):
            return TransportError(request, self._reason(error))
        return error.with_traceback(None)

    def _ask(self, request: Request, headers: Mapping[str, str]) -> Awaitable[aiohttp.ClientResponse]:
        url = self._address.base_url + request.path
        params = {**self._defaults.params, **request.params} if self._defaults.params else request.params
        if params:
            url += ("&" if "?" in request.path else "?") + urlencode(params)
        options = self._options
        if self._headers or headers or request.method != "GET":
            # Where there is no body, there is no type of one.
            sent = _merged(self._headers, headers)
            options = {**options, "skip_auto_headers": ("Content-Type",)}
            if request.json is not None or request.data is not None:
                body, kind = _body(request)
                options["data"] = body if len(body) < _LARGE else BytesIO(body)  # aiohttp sends that piece by piece
                sent = _merged({"Content-Type": kind}, sent)
            options["headers"] = _plain(sent)
        session = self._session if request.idempotent else self._once
        return session.request(request.method, self._url(url, encoded=True), **options)

    async def _content(self, answer: aiohttp.ClientResponse, request: Request) -> bytes:
        """Read the body; unless its length is known, count as it comes: a packed body grows when unpacked."""
        length = answer.content_length
        if length is not None and length <= self._max_body and "Content-Encoding" not in answer.headers:
            return await answer.read()
        content = bytearray()
        async for chunk in answer.content.iter_any():
            content += chunk
            if len(content) > self._max_body:
                reason = f"the answer is longer than {self._max_body} bytes; a larger `max_body` allows more"
                raise TransportError(request, reason, final=True)
        answer.release()
        return bytes(content)

    def _reason(self, error: BaseException) -> str:
        """Say what a lower library said, without what it quotes of the answer."""
        said = _reason(error)
        text = self._mask.text(_QUOTED.split(said[: 2 * _LONGEST_REASON])[0])
        return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def _merged(headers: Mapping[str, str], first: Mapping[str, str]) -> dict[str, str]:
    """Return all headers; of those whose names differ at most in case, that of *first*."""
    names = {name.lower() for name in first}
    return {**{name: value for name, value in headers.items() if name.lower() not in names}, **first}


def _body(request: Request) -> tuple[bytes, str]:
    """Return the body of a request and the type of it."""
    match request.data:
        case None:
            return codec.encode(request.json), "application/json"
        case bytes(content):
            return content, "application/octet-stream"
        case str(text):
            return text.encode(), "text/plain; charset=utf-8"
        case fields:
            return urlencode(fields).encode(), "application/x-www-form-urlencoded"


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as aiohttp, and those who record what it sends, are to have them: of plain texts."""
    return {name: str(value) for name, value in headers.items()}


@cache
def connector_class() -> type[aiohttp.TCPConnector]:
    """Return the class of connections that are kept only while the server says nothing that nobody asked for."""
    import aiohttp

    class Connector(aiohttp.TCPConnector):
        async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
            while True:
                connection = await super().connect(req, traces, timeout)
                protocol = connection.protocol
                if protocol is None or not protocol.should_close:
                    return connection
                connection.close()  # what was said meanwhile would be taken for the answer to the next request

    return Connector


async def _send_once(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
    """
    Switch off aiohttp's own second try.

    It sends a GET again, unasked, when the server closes a kept connection. Retrying is `flow`'s to decide and count,
    so the two errors that trigger it are replaced by one that does not.
    """
    import aiohttp

    try:
        response: aiohttp.ClientResponse = await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        raise aiohttp.ClientConnectionError(_reason(error)) from error
    return response


def _reason(error: BaseException) -> str:
    """Say what a lower library said; some of its errors have no text."""
    return str(error) or type(error).__name__
