"""Sessions of aiohttp that do nothing by themselves: no second try, no cookies, no connection that is not clean."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from .body import plain

if TYPE_CHECKING:
    import aiohttp


LONGEST_HEADER: Final = 65_536
"""How many bytes one header of an answer may have; aiohttp takes 8,190, and the cookies of a proxy may be more."""


def made(connector: aiohttp.BaseConnector, headers: Mapping[str, str]) -> aiohttp.ClientSession:
    """Return a session of our own over *connector*."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=plain(headers),
        raise_for_status=False,
        max_line_size=LONGEST_HEADER,
        max_field_size=LONGEST_HEADER,
    )


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


async def send_once(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
    """
    Switch off aiohttp's own second try.

    It sends a GET again, unasked, when the server closes a kept connection, and so whatever HTTP calls idempotent: no
    POST. Retrying is `flow`'s to decide and count, so the two errors that trigger it are replaced by one that does not.
    """
    import aiohttp

    try:
        response: aiohttp.ClientResponse = await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        raise aiohttp.ClientConnectionError(said(error)) from error
    return response


def said(error: BaseException) -> str:
    """Say what a lower library said; some of its errors have no text."""
    return str(error) or type(error).__name__
