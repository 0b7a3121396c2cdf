"""
Requests over one aiohttp session; the only module that knows aiohttp, the base URL and the token.

aiohttp is imported when a client opens. What aiohttp does by itself and this transport does not: following redirects,
keeping cookies, reading proxies from the environment, reading bodies without bound, sending a GET twice.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlencode

import anyio
from attrs import field, frozen

from . import codec
from .errors import AgentRunsError, TransportError
from .model import Request, Response
from .pace import Pace

if TYPE_CHECKING:
    import aiohttp

logger = logging.getLogger("agentruns")

MAX_BODY: Final = 32 * 2**20
CONNECT_SECONDS: Final = 10.0
_HIDDEN: Final = b"[token]"


class _Secret(str):
    """A text that no `repr` shows, not even that of a traceback's local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'[token]'"


@frozen
class Address:
    """Where to send, and with which right; both settled before a transport is made."""

    base_url: str
    token: str = field(converter=_Secret, repr=False)


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
        rate: float | None = None,
    ) -> None:
        self._address = address
        self._borrowed = session
        self._seconds = timeout
        self._connections = connections
        self._max_body = max_body
        self._pace = Pace(rate) if rate else None
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
                connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=60.0),
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=(_send_once,),
            )
        else:
            self._session = self._borrowed
            limit = getattr(self._borrowed.connector, "limit", 0)
            connections = min(connections, limit) if limit else connections
        # Waiting for a connection inside aiohttp counts against the timeout and is lost in a crowd; here it does not.
        self._gate = anyio.CapacityLimiter(connections)
        self._timeout = aiohttp.ClientTimeout(
            total=self._seconds, sock_connect=min(self._seconds, CONNECT_SECONDS), ceil_threshold=float("inf")
        )
        self._refused = (aiohttp.ClientSSLError, ssl.SSLError)
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
        if self._closed:
            raise AgentRunsError("this client is closed; open another with `async with connect(...)`")
        try:
            async with asyncio.timeout(None) as guard:  # `close` makes it expire
                self._guards.add(guard)
                try:
                    if self._pace is not None:
                        await self._pace.wait()
                    async with self._gate:
                        return await self._exchange(request)
                finally:
                    self._guards.discard(guard)
        except TimeoutError:
            raise AgentRunsError(f"the client was closed while {request.line} was under way") from None

    async def _exchange(self, request: Request) -> Response:
        from yarl import URL

        url = self._address.base_url + request.path
        if request.params:
            url += "?" + urlencode(request.params)
        body = None if request.json is None else codec.encode(request.json)
        try:
            answer = await self._session.request(
                request.method,
                URL(url, encoded=True),
                data=body,
                headers=self._headers(request, body),
                timeout=self._timeout,
                allow_redirects=False,
            )
            try:
                content = await self._content(answer, request)
            except BaseException:
                answer.close()
                raise
            answer.release()
        except self._refused as error:
            raise TransportError(request, f"TLS failed: {_reason(error)}", sent=False, final=True) from error
        except self._never_sent as error:
            raise TransportError(request, _reason(error), sent=False) from error
        except TimeoutError as error:
            raise TransportError(request, f"no whole answer within {self._seconds:g} s") from error
        except self._lost as error:
            raise TransportError(request, _reason(error)) from error
        logger.debug("%s: %d, %d bytes", request.line, answer.status, len(content))
        return Response(answer.status, self._readable(answer.headers), content, request)

    def _headers(self, request: Request, body: bytes | None) -> Mapping[str, str]:
        return {
            **request.headers,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Authorization": _Secret(f"Bearer {self._address.token}"),
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
        return self._without_token(bytes(content))

    def _without_token(self, content: bytes) -> bytes:
        """Hide our token where a server sends it back, so that no error text can show it."""
        return content.replace(self._address.token.encode(), _HIDDEN)

    def _readable(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name.lower(): value.replace(self._address.token, _HIDDEN.decode()) for name, value in headers.items()}


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
