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
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlencode

import anyio
from attrs import field, frozen

from . import codec
from .errors import AgentRunsError, ConfigurationError, TransportError
from .model import Request, Response, T

if TYPE_CHECKING:
    import aiohttp

logger = logging.getLogger("agentruns")

MAX_BODY: Final = 32 * 2**20
CONNECT_SECONDS: Final = 10.0
_HIDDEN: Final = "[token]"
_SHORTEST_SECRET: Final = 8


class Secret(str):
    """A text that no `repr` shows, not even that of a traceback's local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(_HIDDEN)


class _Mask:
    """
    Hide a token in what a server says, as it is and as JSON or a URL may escape it.

    A word of fewer than 8 characters is no secret but a placeholder (`dev`, `none`); hiding it would garble the answer.
    """

    def __init__(self, token: str) -> None:
        spelled = "".join(each if each.isalnum() else _spellings(each) for each in token)
        self._kept = len(token) < _SHORTEST_SECRET
        self._text = re.compile(spelled)
        self._bytes = re.compile(spelled.encode())

    def text(self, text: str) -> str:
        return text if self._kept else self._text.sub(_HIDDEN, text)

    def body(self, body: bytes) -> bytes:
        return body if self._kept else self._bytes.sub(_HIDDEN.encode(), body)


def _spellings(mark: str) -> str:
    return rf"(?:\\?{re.escape(mark)}|(?i:\\u{ord(mark):04x}|%{ord(mark):02x}))"


@frozen
class Address:
    """Where to send, and with which right; both settled before a transport is made."""

    base_url: str
    token: str = field(converter=Secret, repr=False)


class Transport(Protocol):
    """What carries requests: a `Send` that opens and closes."""

    async def open(self) -> None:
        """Get ready to send."""
        ...

    async def close(self) -> None:
        """End what is under way."""
        ...

    async def __call__(self, request: Request, /) -> Response:
        """Send *request* once."""
        ...

    async def listen(self, request: Request, /) -> None:
        """Open a stream of events and return when the server ends it."""
        ...


class AiohttpTransport:
    """
    Send requests, each within *timeout* seconds, at most *connections* of them at once.

    Calling it returns the `Response`, whatever its status, or raises `TransportError`. A session that is passed in is
    borrowed: it is used, and never closed.
    """

    def __init__(
        self,
        address: Address,
        *,
        session: aiohttp.ClientSession | None = None,
        timeout: float = 30.0,
        connections: int = 100,
        max_body: int = MAX_BODY,
    ) -> None:
        self._address = address
        self._mask = _Mask(address.token)
        self._borrowed = session
        self._seconds = timeout
        self._connections = connections
        self._max_body = max_body
        self._guards: set[asyncio.Timeout] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"AiohttpTransport({self._address.base_url!r})"

    async def open(self) -> None:
        """Import aiohttp and make the session."""
        import aiohttp

        connections = self._connections
        if self._borrowed is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0),  # the gate bounds what is sent
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        else:
            self._session = self._borrowed
            connector = self._borrowed.connector
            limits = (getattr(connector, "limit", 0), getattr(connector, "limit_per_host", 0))
            connections = min(connections, *(limit or connections for limit in limits))
        # Those of a request replace those of its session, which has no public way to read them.
        self._middlewares = (_send_once, *getattr(self._session, "_middlewares", ()))
        # Waiting for a connection inside aiohttp counts against the timeout and is lost in a crowd; here it does not.
        self._gate = anyio.CapacityLimiter(connections)
        # Less for connecting than for all: running out of it says that nothing was sent.
        self._timeout = aiohttp.ClientTimeout(
            total=self._seconds, sock_connect=min(0.9 * self._seconds, CONNECT_SECONDS), ceil_threshold=float("inf")
        )
        self._patience = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout.sock_connect)
        self._refused = aiohttp.ClientSSLError
        self._never_sent = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
        self._lost = (aiohttp.ClientError, TimeoutError, OSError)

    async def close(self) -> None:
        """End what is under way and release every connection; a borrowed session stays open."""
        self._closed = True
        for guard in tuple(self._guards):
            guard.reschedule(asyncio.get_running_loop().time())
        if self._borrowed is None:
            await self._session.close()

    async def __call__(self, request: Request) -> Response:
        """Send *request* once and read the whole answer."""
        return await self._until_closed(request, self._in_turn)

    async def listen(self, request: Request) -> None:
        """
        Open a stream of events and return when the server ends it; what it says is not kept.

        Takes no place among the requests in flight. Raise `TransportError` if it cannot be opened or breaks. It may
        last for ever: whoever listens sets the time.
        """
        await self._until_closed(request, self._hear)

    async def _until_closed(self, request: Request, work: Callable[[Request], Awaitable[T]]) -> T:
        if self._closed:
            raise AgentRunsError("this client is closed; open another with `async with connect(...)`")
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as guard:  # `close` makes it expire
                self._guards.add(guard)
                try:
                    return await self._in_our_words(request, work)
                finally:
                    self._guards.discard(guard)
        raise AgentRunsError(f"the client was closed while {request.line} was under way")

    async def _in_our_words(self, request: Request, work: Callable[[Request], Awaitable[T]]) -> T:
        """
        Do *work* on *request*, and tell what goes wrong as an error of ours.

        No error of the lower library is chained, and none keeps its traceback: they hold the headers that were sent and
        the answer as it came, and what reports local variables would show them.
        """
        error: AgentRunsError
        try:
            return await work(request)
        except TransportError as lost:
            error = lost.with_traceback(None)
        except asyncio.CancelledError as cancelled:
            raise cancelled.with_traceback(None) from None
        except self._refused as lost:
            error = TransportError(request, f"TLS failed: {self._reason(lost)}", sent=False, final=True)
        except self._never_sent as lost:
            error = TransportError(request, self._reason(lost), sent=False)
        except TimeoutError:
            error = TransportError(request, f"no whole answer within {self._seconds:g} s")
        except ValueError as unfit:
            error = ConfigurationError(f"{request.line} cannot be sent: {self._reason(unfit)}")
        except self._lost as lost:
            error = TransportError(request, self._reason(lost))
        raise error

    async def _in_turn(self, request: Request) -> Response:
        async with self._gate:
            return await self._send(request)

    async def _send(self, request: Request) -> Response:
        body = None if request.json is None else codec.encode(request.json)
        answer = await self._ask(request, self._headers(request, body), self._timeout, body)
        try:
            content = await self._content(answer, request)
        except BaseException:
            answer.close()
            raise
        answer.release()
        logger.debug("%s: %d, %d bytes", request.line, answer.status, len(content))
        headers = {name.lower(): self._mask.text(value) for name, value in answer.headers.items()}
        return Response(answer.status, headers, self._mask.body(content), request)

    async def _hear(self, request: Request) -> None:
        headers = {**self._headers(request, None), **request.headers}
        async with await self._ask(request, headers, self._patience) as answer:
            if answer.status != 200:
                raise TransportError(request, f"the stream of events was answered {answer.status}")
            while await answer.content.readany():
                pass

    async def _ask(
        self,
        request: Request,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        body: bytes | None = None,
    ) -> aiohttp.ClientResponse:
        from yarl import URL

        if self._session.closed and self._borrowed is None:
            raise AgentRunsError("this client is closed; open another with `async with connect(...)`")
        if self._session.closed:
            raise ConfigurationError("the session that was passed in is closed; keep it open as long as the client")
        url = self._address.base_url + request.path
        if request.params:
            url += "?" + urlencode(request.params)
        return await self._session.request(
            request.method,
            URL(url, encoded=True),
            data=body,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            raise_for_status=False,
            skip_auto_headers=("Content-Type",),
            middlewares=self._middlewares,
        )

    def _headers(self, request: Request, body: bytes | None) -> Mapping[str, str]:
        return {
            **request.headers,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Authorization": Secret(f"Bearer {self._address.token}"),
            **({"Content-Type": "application/json"} if body is not None else {}),
        }

    async def _content(self, answer: aiohttp.ClientResponse, request: Request) -> bytes:
        """Read the body, counting as it comes: a declared length may lie, and a packed body grows when unpacked."""
        content = bytearray()
        async for chunk in answer.content.iter_any():
            content += chunk
            if len(content) > self._max_body:
                reason = f"the answer is longer than {self._max_body} bytes; allow more with `connect(..., max_body=)`"
                raise TransportError(request, reason, final=True)
        return bytes(content)

    def _reason(self, error: BaseException) -> str:
        return self._mask.text(_reason(error))


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
