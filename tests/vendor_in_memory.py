"""A transport to an emulated vendor in memory, for whole clients in virtual time; some answers can be others."""

import asyncio
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec
from attrs import define

from agentruns import TransportError
from agentruns._aio.limits import ConcurrencyLimit
from agentruns._values.exchange import Request, Response
from tests.hostile.hostile_servers import TOKEN, answered


@define
class Planted:
    """What is answered to the requests whose lines a pattern fits, in place of the vendor; 0 is no answer at all."""

    line: str
    status: int
    body: Any
    times: int
    done: bool


class VendorInMemory:
    """
    Carries each request to an emulated vendor, whose answer takes a hundredth of a second.

    Several clients may share the vendor, each with a transport of its own. `requests` are all that were sent.
    """

    def __init__(self, vendor: Any, token: str = TOKEN) -> None:
        self.vendor = vendor
        self.requests: list[Request] = []
        self._token = token
        self.planted: list[Planted] = []

    def plant(self, line: str, status: int, body: Any = None, *, times: int = 1, done: bool = False) -> None:
        """Answer otherwise, so many *times*, to requests that a pattern fits; *done* if the vendor gets them."""
        self.planted.append(Planted(line, status, {} if body is None else body, times, done))

    async def open(self, *_: object) -> None:
        pass

    async def ready(self, *_: object) -> ConcurrencyLimit | None:
        return None

    async def close(self) -> None:
        pass

    async def listen(self, request: Request, opened: Callable[[], None], _: object = None) -> Response | None:
        raise NotImplementedError

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        await asyncio.sleep(0.01)
        planted = next((each for each in self.planted if each.times and re.fullmatch(each.line, request.line)), None)
        if planted is None:
            return self._answered(request)
        planted.times -= 1
        if planted.done:
            self._answered(request)
        if not planted.status:
            raise TransportError(request, "the connection was reset")
        return Response(planted.status, {}, msgspec.json.encode(planted.body), request)

    def _answered(self, request: Request) -> Response:
        body = b"" if request.json is None else msgspec.json.encode(request.json)
        line = f"{request.method} {self.vendor.prefix}{request.path}?{urlencode(request.params)}"
        reply = answered(self.vendor, self._token, line, request.headers.items(), body)
        headers = {name.lower(): value for name, value in reply.headers.items()}
        return Response(int(reply.status), headers, self.spoilt(request, reply.status, reply.content), request)

    def again(self, request: Request) -> None:
        """Have the vendor get a request, at once and behind the client's back."""
        self._answered(request)

    def spoilt(self, request: Request, status: int, content: bytes) -> bytes:
        """Return the body that arrives; a subclass may change it."""
        return content
