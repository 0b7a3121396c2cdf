"""Servers of the tiny vendor that a client has to wait for: few slots, a time without an answer, a strict limit."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from agentruns import Client, RateLimitedError, Retry, Run, TransportError
from agentruns._api.accounts import Account
from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, RateLimit, Request, Response
from agentruns._values.run import JsonText
from agentruns.dialects import wire
from tests.scripted_wire import STEADY
from tests.tiny_vendor import Server, _run, tiny


class Slots(Server):
    """The vendor with so many slots for runs; a start beyond them is refused."""

    def __init__(self, slots: int, seconds: float = 20.0) -> None:
        super().__init__(seconds)
        self.slots = slots
        self.refused = 0

    async def __call__(self, request: Request) -> Response:
        now = asyncio.get_running_loop().time()
        active = sum(now < each.begins + each.lasts for each in self.runs.values())
        if request.method == "POST" and active >= self.slots:
            self.refused += 1
            return Response(429, {"Retry-After": "60"}, b"{}", request)
        if request.method == "POST":
            self.begin(request.path.rpartition("/")[2])
        return await super().__call__(request)


def _start(origin: str) -> Flow[Run]:
    left = 300.0
    while True:
        try:
            response = yield Request("POST", f"/runs/{origin}", idempotent=True, again_after_429=False)
        except RateLimitedError as refused:
            if not (yield from wire.await_slot(refused.retry_after or 60.0, left)):
                raise
            left -= 60.0
        else:
            return _run(response.value, JsonText(response.body))


def with_slots(server: Server, account: Account | None = None, limit: RateLimit = RateLimit(90, 60.0)) -> Client:  # noqa: B008 - frozen
    dialect = SimpleNamespace(**{**vars(tiny()), "start": _start, "problem": lambda _: Problem("no slot", "FULL")})
    return Client(cast(Any, dialect), server, retry=Retry(backoff=STEADY), limit=limit, account=account)


class Cut(Server):
    """The vendor, which cannot be reached for a time."""

    def __init__(self, begins: float, ends: float, seconds: float = 5.0) -> None:
        super().__init__(seconds)
        self.outage = begins, ends

    async def __call__(self, request: Request) -> Response:
        begins, ends = self.outage
        if begins <= asyncio.get_running_loop().time() < ends:
            raise TransportError(request, "no route to host", sent=False)
        return await super().__call__(request)


class Strict(Server):
    """The vendor, which answers 429 beyond so many requests in a second, of whoever."""

    def __init__(self, most: int, others: int) -> None:
        super().__init__(3.0)
        self.left = most - others
        self.seen: list[float] = []
        self.refused = 0

    async def __call__(self, request: Request) -> Response:
        now = asyncio.get_running_loop().time()
        self.seen = [when for when in self.seen if when > now - 1.0]
        if len(self.seen) >= self.left:
            self.refused += 1
            return Response(429, {}, b"{}", request)
        self.seen.append(now)
        return await super().__call__(request)
