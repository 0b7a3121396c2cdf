"""The channel of a vendor whose deployments say themselves where and how they are asked: it asks that first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from attrs import evolve

from agentruns._aio.limits import ConcurrencyLimit
from agentruns._values.auth import Auth
from agentruns._values.exchange import Request, Response
from agentruns._values.place import Place
from agentruns.dialects.vendor import Vendor
from agentruns.errors import APIError, ConfigurationError, TransportError

from .address import Address, base_url_of
from .channel import Channel, Heard, WaitResumed, at_once
from .flow import perform
from .hosts import is_loopback
from .retry import Retry

_ONCE: Final = Retry(attempts=1)
_PORTS: Final = {"http": 80, "https": 443}
_ANY: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - told by a server that listens on all of its addresses


class LocatedChannel:
    """
    Carry requests to the place that `locate` of *vendor* names, which is asked at the *address* first.

    *make* makes a channel to an address. An *auth* that the user gave is kept, whatever the vendor says.
    """

    def __init__(
        self, vendor: Vendor, address: Address, make: Callable[[Address], Channel], auth: Auth | None = None
    ) -> None:
        self._vendor = vendor
        self._address = address
        self._make = make
        self._auth = auth
        self._first = make(address)
        self._found: Channel | None = None
        self._form: Callable[[Request], Request] | None = None
        self._wait_resumed: WaitResumed = at_once
        self._locating = asyncio.Lock()

    def __repr__(self) -> str:
        return f"LocatedChannel({self._found or self._first!r})"

    async def open(self, wait_resumed: WaitResumed = at_once) -> None:
        """Get ready to ask where to send to; nothing is sent yet."""
        self._wait_resumed = wait_resumed
        await self._first.open(wait_resumed)

    async def ready(self, request: Request) -> ConcurrencyLimit | None:
        """Ask where to send *request* to, and return what bounds the connections to there."""
        return await (await self._located(request)).ready(request)

    async def close(self) -> None:
        """End what is under way."""
        await self._first.close()
        if self._found is not None and self._found is not self._first:
            await self._found.close()

    def __call__(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Send *request* once; the first one asks beforehand where to."""
        if self._found is None or self._form is not None:
            return self._formed(request)
        return self._found(request)

    async def _formed(self, request: Request) -> Response:
        channel = await self._located(request)
        if self._form is None:
            return await channel(request)
        return evolve(await channel(self._form(request)), request=request)

    async def listen(self, request: Request, opened: Callable[[], None], heard: Heard | None = None) -> Response | None:
        """Open a stream of events, as `Channel` tells."""
        channel = await self._located(request)
        return await channel.listen(request if self._form is None else self._form(request), opened, heard)

    async def _located(self, request: Request) -> Channel:
        """Return the channel that *request* goes by; raise what says that it was not sent."""
        if self._found is not None:
            return self._found
        async with self._locating:
            if self._found is None:
                place = await self._place(request)
                channel = await self._channel_to(place)
                self._form = place.form
                self._found = channel
            return self._found

    async def _place(self, request: Request) -> Place:
        vendor = self._vendor
        try:
            return vendor.place(await perform(vendor.flow("locate"), self._first, vendor.read_problem, _ONCE))
        except TransportError as error:
            raise _unsent(request, error, final=error.final) from error
        except APIError as error:
            if error.status < 500:
                raise
            raise _unsent(request, error) from error

    async def _channel_to(self, place: Place) -> Channel:
        address = self._address
        url = address.base_url if place.base_url is None else self._allowed(place.base_url)
        auth = self._auth or place.auth or address.auth
        if (url, auth) == (address.base_url, address.auth):
            return self._first
        address = evolve(address, base_url=url, auth=auth)
        if isinstance(address.token, str):
            address.checked(address.token)
        channel = self._make(address)
        await channel.open(self._wait_resumed)
        return channel

    def _allowed(self, url: str) -> str:
        """Return where the vendor says it is, by the host that the user gave; refuse to take the token elsewhere."""
        given = urlsplit(self._address.base_url)
        says = f"{self._vendor.NAME} at {self._address.base_url} says that it is asked at {url!r:.200}"
        try:
            told = urlsplit(base_url_of(self._vendor, url))
        except ConfigurationError as error:
            raise ConfigurationError(f"{says}, where no request can go: {error}", field="base_url") from error
        hosts = given.hostname or "", told.hostname or ""
        same_host = hosts[0] == hosts[1] or hosts[1] in _ANY or (is_loopback(hosts[0]) and is_loopback(hosts[1]))
        if same_host and (given.scheme, _port(given)) == (told.scheme, _port(told)):
            return urlunsplit(told._replace(netloc=given.netloc))
        if self._address.token != "":
            raise ConfigurationError(
                f"{says}, which is of another origin: the token would go there",
                field="base_url",
                remedy=f"pass `base_url={url!r}` if the token is for that",
            )
        return urlunsplit(told)


def _port(parts: Any) -> int | None:
    port: int | None = parts.port or _PORTS.get(parts.scheme)
    return port


def _unsent(request: Request, error: Exception, *, final: bool = False) -> TransportError:
    """Return that *request* was not sent, since nobody could be asked where to."""
    return TransportError(request, f"where to send it could not be found out: {error}", sent=False, final=final)
