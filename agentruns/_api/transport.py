"""
Requests over one aiohttp session; what puts base URL, token and request together.

aiohttp is imported when a client opens. What aiohttp does by itself and this transport does not: following redirects,
keeping cookies, reading proxies from the environment unasked, reading bodies without bound, sending a GET twice. A
borrowed session keeps its own ways with cookies and proxies.

The token shows nowhere: not in a `repr`, a log record or a traceback, nor where a server sends it back.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode

from agentruns._aio.limits import ConcurrencyLimit, ExchangeTimeouts, Task
from agentruns._values import codec
from agentruns._values.exchange import Request, Response, ServerEvent
from agentruns._values.secret import Secret
from agentruns.errors import AgentRunsError, ConfigurationError, TransportError

from .address import Address
from .body import encoded, merged, plain, without_params
from .channel import BY_PROXY, CLOSED, IS_CLOSED, REFUSED_TLS, UNREACHED, Heard, WaitResumed, at_once, cut_off, late
from .credentials import Renewal, Right
from .defaults import Defaults
from .mask import Headers, Masks
from .outages import GATEWAY
from .proxy import Proxy
from .session import connector_class, made, said, send_once
from .sse import EventParser, TooLongError

if TYPE_CHECKING:
    import aiohttp

logger = logging.getLogger("agentruns")

AnswerT = TypeVar("AnswerT", bound=Response | None)

MAX_BODY: Final = 8 * 2**20
CONNECT_SECONDS: Final = 10.0
_EVENTS: Final = {"Accept": "text/event-stream"}
_LARGE: Final = 2**20
_LONGEST_REASON: Final = 500
_OF_OURS: Final = {errno.EMFILE, errno.ENFILE}
"""What keeps this process from connecting anywhere: it has too many files open."""
_QUOTED: Final = re.compile(r""":?\s*(?:bytearray\()?\bb['"]""")


class AiohttpTransport:
    """
    Send requests, each within *timeout* seconds, at most *connections* of them at once.

    Calling it returns the `Response`, whatever its status, or raises `TransportError`. A session that is passed in is
    borrowed: it is used, and never closed. *defaults* are the headers and query parameters of every request. All goes
    through *proxy* if there is one.

    A token that a function gives is asked for before the first request, and once more when it is answered 401.
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
        proxy: Proxy | None = None,
    ) -> None:
        self._address = address
        self._defaults = defaults
        self._proxy = proxy
        self._masks = Masks(() if proxy is None else proxy.secrets)
        self._renewal: Renewal | None = None
        self._token_params: Mapping[str, str] = {}
        token = address.token
        if isinstance(token, Secret):
            right = Right.of(address.auth, token)
            self._masks.hide(right.secrets)
            self._token_params = right.params
            self._params: Mapping[str, str] = {**defaults.params, **right.params}
            self._own: Mapping[str, str] = merged(defaults.headers, right.headers)
        else:
            self._renewal = Renewal(token, address.checked, address.auth, timeout, self._take)
            self._params = defaults.params
            self._own = defaults.headers
        self._borrowed = session
        self._seconds = timeout
        self._connections = connections
        self._max_body = max_body
        self._timeouts = ExchangeTimeouts(timeout)
        self._other_timeouts: dict[float, ExchangeTimeouts] = {}  # by seconds
        self._closed = False

    def __repr__(self) -> str:
        return f"AiohttpTransport({self._address.base_url!r})"

    async def open(self, wait_resumed: WaitResumed = at_once) -> None:
        """Import aiohttp and make the session. A request that waits for a connection awaits *wait_resumed* after."""
        import aiohttp
        from aiohttp.http_exceptions import LineTooLong
        from yarl import URL

        connections = self._connections
        headers = merged({"Accept": "application/json", "Accept-Encoding": "identity"}, self._own)
        if self._borrowed is None:
            # The concurrency limit bounds what is sent.
            connector = connector_class()(limit=0, keepalive_timeout=60.0)
            self._session = made(connector, headers)
            # A kept connection may be closed by the server just as a request goes out, and nobody knows whether that
            # was read: what must not be sent twice gets a connection of its own.
            once = aiohttp.TCPConnector(limit=0, force_close=True)
            self._once = made(once, headers)
            self._common: Mapping[str, str] = {}
        else:
            self._session = self._once = self._borrowed
            self._common = headers
            theirs = self._borrowed.connector
            limits = (getattr(theirs, "limit", 0), getattr(theirs, "limit_per_host", 0))
            connections = min(connections, *(limit or connections for limit in limits))
        self._headers = self._common
        # Less for connecting than for all: running out of it says that nothing was sent. `_timeouts` bounds the whole.
        self._options: dict[str, Any] = {
            "timeout": aiohttp.ClientTimeout(
                total=None, sock_connect=min(0.9 * self._seconds, CONNECT_SECONDS), ceil_threshold=float("inf")
            ),
            "allow_redirects": False,
        }
        if self._borrowed is not None:
            self._options["raise_for_status"] = False
        if self._proxy is not None:
            self._options |= self._proxy.options()
        # Those of a request replace those of its session, which has no public way to read them.
        middlewares = (send_once, *getattr(self._session, "_middlewares", ()))
        self._options_once: dict[str, Any] = {**self._options, "middlewares": middlewares}
        # Waiting for a connection inside aiohttp counts against the timeout and is lost in a crowd; here it does not.
        self._limit = ConcurrencyLimit(connections)
        self._wait_resumed = wait_resumed
        self._url = URL
        self._refused = (aiohttp.ClientSSLError, aiohttp.ClientHttpProxyError)
        self._never_sent = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
        self._no_proxy = aiohttp.ClientProxyConnectionError  # a borrowed session may have one
        self._lost = (aiohttp.ClientError, TimeoutError, OSError)
        self._too_long = LineTooLong

    async def close(self) -> None:
        """End what is under way and release every connection; a borrowed session stays open."""
        self._closed = True
        self._limit.close()
        for timeouts in (self._timeouts, *self._other_timeouts.values()):
            timeouts.cancel_all(CLOSED)
        if self._renewal is not None:
            await self._renewal.close()
        if self._borrowed is None:
            await self._session.close()
            await self._once.close()

    async def ready(self, request: Request) -> ConcurrencyLimit:
        """Have a token for *request*, and return what bounds the requests under way."""
        if self._renewal is not None and self._renewal.right is None:
            await self._renewal.after(None, request)
        return self._limit

    def _take(self, right: Right) -> None:
        """Send another token from now on."""
        self._masks.hide(right.secrets)
        self._headers = merged(self._common, right.headers)
        self._token_params = right.params
        self._params = {**self._defaults.params, **right.params}

    def __call__(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Send *request* once and read the whole answer; once more if a token that can be renewed was refused."""
        if self._renewal is None:
            return self._exchange(request)
        return _renewing(self._renewal, request, partial(self._exchange, request))

    async def _exchange(self, request: Request) -> Response:
        if self._closed:
            raise AgentRunsError(IS_CLOSED)
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
            headers, body = Headers(answer.headers, self._masks), self._masks.body(content)
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
            raise AgentRunsError(f"{CLOSED} while {request.line} was under way")
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
        if self._renewal is None:
            return await self._listen(request, opened, heard)
        return await _renewing(self._renewal, request, partial(self._listen, request, opened, heard))

    async def _listen(self, request: Request, opened: Callable[[], None], heard: Heard | None) -> Response | None:
        if self._closed:
            raise AgentRunsError(IS_CLOSED)
        task = self._timeouts.begin(endless=True)
        try:
            return await self._hear(request, opened, heard)
        except BaseException as error:
            ours = self._in_our_words(request, error, self._timeouts, task)
        finally:
            self._timeouts.end(task)
        raise ours

    async def _hear(self, request: Request, opened: Callable[[], None], heard: Heard | None) -> Response | None:
        async with await self._ask(request, merged(request.headers, _EVENTS)) as answer:
            opened()
            if answer.status != 200:
                return Response(answer.status, Headers(answer.headers, self._masks), b"", request)
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
            text = self._masks.text(event.data)
            try:
                data = codec.decode(text, received=True)
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
            ours = cut_off(request, timeouts.reason(task), request.timeout or self._seconds)
            if ours is not None:
                return ours
        elif isinstance(error, self._refused):
            # A gateway that cannot reach the vendor now may reach it later; whatever else was refused stays refused.
            final = getattr(error, "status", None) not in GATEWAY
            told, hint = self._refusal(error)
            return TransportError(request, told, sent=False, final=final, hint=hint)
        elif isinstance(error, self._never_sent):
            hint = BY_PROXY if self._proxy is not None or isinstance(error, self._no_proxy) else UNREACHED
            if getattr(error, "errno", None) in _OF_OURS:
                hint = ""
            return TransportError(request, self._reason(error), sent=False, hint=hint)
        elif isinstance(error, TimeoutError):
            return late(request, self._seconds)
        elif isinstance(error, RuntimeError) and self._session.closed:
            if self._borrowed is None:
                return AgentRunsError(IS_CLOSED)
            return ConfigurationError("the session that was passed in is closed; keep it open as long as the client")
        elif isinstance(error, ValueError) and not isinstance(error, self._lost):
            return ConfigurationError(f"{request.line} cannot be sent: {self._reason(error)}")
        elif any(isinstance(each, self._too_long) for each in _causes(error)):
            return TransportError(request, "a header of the answer is longer than can be read")
        elif isinstance(error, self._lost):
            return TransportError(request, self._reason(error))
        return error.with_traceback(None)

    def _ask(self, request: Request, headers: Mapping[str, str]) -> Awaitable[aiohttp.ClientResponse]:
        path = request.path
        if self._token_params and "?" in path:  # a link that the vendor gave may repeat the token, which is hidden
            path = without_params(path, self._token_params)
        url = self._address.base_url + path
        params = {**self._params, **request.params} if self._params else request.params
        if params:
            url += ("&" if "?" in path else "?") + urlencode(params, doseq=True)
        options = self._options if request.method == "POST" else self._options_once  # it sends no POST a second time
        if self._headers or headers or request.method != "GET":
            sent = merged(self._headers, headers)
            if request.json is not None or request.data is not None:
                body, kind = encoded(request)
                data = body if len(body) < _LARGE else BytesIO(body)  # aiohttp sends that piece by piece
                options = {**options, "data": data, "headers": plain(merged({"Content-Type": kind}, sent))}
            else:  # where there is no body, there is no type of one
                options = {**options, "skip_auto_headers": ("Content-Type",), "headers": plain(sent)}
        session = self._session if request.idempotent else self._once
        return session.request(request.method, self._url(url, encoded=True), **options)

    def _content(self, answer: aiohttp.ClientResponse, request: Request) -> Awaitable[bytes]:
        """Read the body, in bounds that are known before if its length is: a packed body grows when unpacked."""
        length = answer.content_length
        is_bounded = length is not None and length <= self._max_body and "Content-Encoding" not in answer.headers
        return answer.read() if is_bounded else self._counted(answer, request)

    async def _counted(self, answer: aiohttp.ClientResponse, request: Request) -> bytes:
        """Read the body, and count as it comes."""
        content = bytearray()
        async for chunk in answer.content.iter_any():
            content += chunk
            if len(content) > self._max_body:
                reason = f"the answer is longer than {self._max_body} bytes; a larger `max_body` allows more"
                raise TransportError(request, reason, final=True)
        answer.release()
        return bytes(content)

    def _refusal(self, error: BaseException) -> tuple[str, str]:
        """Return what has refused to connect, and what helps."""
        status = getattr(error, "status", None)  # of a proxy
        if status is None:
            return f"TLS failed: {self._reason(error)}", REFUSED_TLS
        return f"the proxy answered {status}", BY_PROXY

    def _reason(self, error: BaseException) -> str:
        """Say what a lower library said, without what it quotes of the answer."""
        text = self._masks.text(_QUOTED.split(said(error)[: 2 * _LONGEST_REASON])[0])
        return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


async def _renewing(renewal: Renewal, request: Request, send: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
    """Return the answer to *request*, which *send* sends; once more if it refuses a token and another is to be had."""
    right = renewal.right or await renewal.after(None, request)
    answer = await send()
    if answer is None or answer.status != 401 or await renewal.after(right, request) is right:
        return answer
    return await send()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__
