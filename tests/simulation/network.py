"""
The network: a stand-in for `aiohttp.ClientSession`, so that the real transport is what the client talks to.

Each exchange meets the weather: it is refused, lost before or after the vendor acted on it, cut, spoiled, delayed, or
told the past. What a law says of requests is looked at here, as they leave and as the vendor sees them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self, cast

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from attrs import define, evolve, field, frozen
from multidict import CIMultiDict

from agentruns.emulator.vendor import Reply, Request

if TYPE_CHECKING:
    from yarl import URL

    from .process import Process

NEVER: Final = 1e6

FAULTS: Final[Mapping[str, float]] = {
    "refused": 3,
    "lost before": 2,
    "lost after": 3,
    "silent before": 0.5,
    "silent after": 0.7,
    "cut": 1.5,
    "garbled": 1.5,
    "error before": 2,
    "error after": 2,
    "own error after": 3,
    "proxy error": 1,
    "408": 0.5,
    "429": 1.5,
    "429 wait": 1.5,
    "503 wait": 1,
    "denied": 0.7,
    "not found": 1.5,
    "past": 3,
    "slow": 3,
}
"""By name, how often each strikes, compared with the others."""


@define
class Weather:
    """What the wire is like: how often it fails, in which ways, and how long it takes."""

    chance: random.Random
    rate: float
    latency: float
    barred: frozenset[str] = frozenset()
    struck: dict[str, int] = field(factory=dict)
    planned: list[tuple[str, str, str]] = field(factory=list)
    """Faults that are sure to come: the method and a shell pattern of the path that each strikes next."""
    _names: list[str] = field(init=False)
    _weights: list[float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._names = [name for name in FAULTS if name not in self.barred]
        # Some seeds know few kinds of faults, and know them well.
        few = self.chance.random() < 0.3
        if few and self._names:
            self._names = self.chance.sample(self._names, k=min(3, len(self._names)))
        self._weights = [FAULTS[name] for name in self._names]

    def fault(self, request: Request) -> str | None:
        """Return what strikes a request."""
        for plan in self.planned:
            method, path, fault = plan
            if method == request.method and fnmatchcase(request.path, path):
                self.planned.remove(plan)
                return fault
        if self.chance.random() >= self.rate:
            return None
        return self.chance.choices(self._names, self._weights)[0]

    def delay(self) -> float:
        """Return the seconds that one way takes."""
        return self.latency * (0.2 + 1.6 * self.chance.random())


@define(eq=False)
class Exchange:
    """One request on its way."""

    process: Process
    request: Request
    poll: str | None
    """The run that the poller reads with it."""
    fault: str | None
    departed: float
    asking: str | None
    """The work for which it is."""
    reply: Reply | None = None
    born: str | None = None
    """The run that it started."""
    lost: bool = False
    """It will not arrive, whatever happens."""


@frozen
class _Content:
    """The body of an answer, as a stream."""

    answer: Answer

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield await self.answer.read()

    async def readany(self) -> bytes:
        return await self.answer.more()


class Answer:
    """Stands for `aiohttp.ClientResponse`."""

    def __init__(self, reply: Reply, date: str, spoilt: str | None = None) -> None:
        self.status = reply.status
        self.headers = CIMultiDict({"Date": date, **reply.headers})
        self._reply = reply
        self._spoilt = spoilt
        self._heard = False
        self.content_length = None if spoilt else len(reply.content)
        self.content = _Content(self)

    async def read(self) -> bytes:
        content = self._reply.content
        if self._spoilt == "cut":
            raise aiohttp.ClientPayloadError("the body was cut off")
        return content[: len(content) // 2 + 1] if self._spoilt == "garbled" else content

    async def more(self) -> bytes:
        """Return what comes next of a stream of events; empty at its end. A spoilt one breaks, or ends, half way."""
        while self._reply.follow is not None:
            more = self._reply.follow()
            if more is None:
                return b""
            if more and self._heard and self._spoilt == "cut":
                raise aiohttp.ClientPayloadError("the stream was cut off")
            if more:
                whole, self._heard = self._spoilt != "garbled" or not self._heard, True
                return more if whole else b""
            await asyncio.sleep(0.5)
        return b""

    def release(self) -> None:
        pass

    def close(self) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class Session:
    """Stands for the `aiohttp.ClientSession` of one process."""

    closed = False
    connector = None

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self.under_way: dict[Exchange, None] = {}

    async def request(self, method: str, url: URL, **options: Any) -> Answer:
        """Do what the weather lets happen to a request."""
        process, world = self._process, self._world
        if process.dead:
            raise aiohttp.ClientOSError("the process is dead")
        weather = world.weather
        request = Request(
            method=method,
            path=url.raw_path,
            query=dict(url.query),
            headers=options["headers"],
            content=options.get("data") or b"",
        )
        poll = None
        if _is_poll():
            found = world.stand.polls.fullmatch(request.path)
            poll = found[1] if found and not _is_look(process, found[1]) else ""
        exchange = Exchange(process, request, poll, weather.fault(request), world.now, world.asking())
        world.laws.departs(exchange)
        self.under_way[exchange] = None
        try:
            answer = await self._exchanged(exchange, weather)
        except asyncio.CancelledError:
            if not process.dead:  # else it has been decided already
                self.decide(exchange)
            raise
        finally:
            del self.under_way[exchange]
            world.laws.over(exchange)
        if not process.dead:
            world.laws.arrives(exchange, answer.status, answer.headers)
        return answer

    def decide(self, exchange: Exchange) -> None:
        """Let a request that nobody waits for any more reach the vendor, or not."""
        if exchange.reply is None and not exchange.lost and self._world.weather.chance.random() < 0.5:
            self._handle(exchange)

    def _handle(self, exchange: Exchange) -> Reply:
        self._world.laws.handled(exchange)
        stand = self._world.stand
        stand.asking, births = exchange.asking, len(stand.births)
        exchange.reply = reply = stand.respond(exchange.request)
        request = exchange.request
        if len(stand.births) > births and stand.name != "conduit":  # whose answers name no run
            exchange.born = list(stand.vendor.runs)[-1]
        self._world.note("%r: %s %s -> %d", exchange.process, request.method, request.path, reply.status)
        return reply

    async def _exchanged(self, exchange: Exchange, weather: Weather) -> Answer:
        fault = exchange.fault
        stand = self._world.stand
        if fault is not None:
            fault = self._fit(exchange, fault)
        if fault is not None:
            weather.struck[fault] = weather.struck.get(fault, 0) + 1
            self._world.note("%s for %s %s", fault, exchange.request.method, exchange.request.path)
        if fault == "refused":
            exchange.lost = True
            await asyncio.sleep(weather.delay())
            key = cast("ConnectionKey", SimpleNamespace(host="sim", port=443, is_ssl=True, ssl=True))
            raise aiohttp.ClientConnectorError(key, OSError(111, "Connection refused"))
        if fault == "lost before":
            exchange.lost = True
            await asyncio.sleep(weather.delay())
            raise aiohttp.ServerDisconnectedError
        if fault == "silent before":
            exchange.lost = True
            await asyncio.sleep(NEVER)
        await asyncio.sleep(weather.delay() + (20 * weather.chance.random() if fault == "slow" else 0.0))
        if fault == "lost after":
            self._handle(exchange)
            await asyncio.sleep(weather.delay())
            raise aiohttp.ClientOSError(104, "Connection reset by peer")
        if fault == "silent after":
            self._handle(exchange)
            await asyncio.sleep(NEVER)
        spoilt = None
        if fault in {"cut", "garbled"}:
            reply, spoilt = self._handle(exchange), fault
        elif fault == "error before":
            exchange.lost = True
            reply = stand.spoiled(weather.chance.choice([500, 502, 503]))
        elif fault == "error after":
            self._handle(exchange)
            reply = stand.spoiled(500)
        elif fault == "own error after":
            exchange.request = evolve(exchange.request, planted="ADMITTED_500")
            reply = self._handle(exchange)
        elif fault == "proxy error":
            self._handle(exchange)
            reply = Reply(status=502, content=b"<html>Bad gateway</html>", content_type="text/html")
        elif fault == "past":
            past = stand.earlier(exchange.request, weather.chance)
            current = self._handle(exchange)
            reply = past or current
        elif fault == "denied":
            exchange.lost = True
            reply = stand.spoiled(weather.chance.choice([400, 402, 403, 404, 409, 422]))
        elif fault == "not found":
            exchange.lost = True
            reply = stand.spoiled(404)
        elif fault == "408":
            if weather.chance.random() < 0.5:
                self._handle(exchange)
            exchange.lost = True
            reply = Reply(status=408, content=b"{}")
        elif fault is not None and fault.startswith(("429", "503")):
            exchange.lost = True
            headers = {}
            if "wait" in fault:  # so long, if it says how long
                headers["Retry-After"] = fault.partition("wait ")[2] or weather.chance.choice(["1", "3", "10", "90"])
            refusal = stand.spoiled(int(fault[:3]))
            reply = evolve(refusal, headers={**refusal.headers, **headers})
        else:
            reply = self._handle(exchange)
        answer = Answer(reply, stand.date(), spoilt)
        if fault == "own error after":
            return answer  # at once: where nobody hears of it, nobody can tell what was started
        await asyncio.sleep(weather.delay() + (20 * weather.chance.random() if fault == "slow" else 0.0))
        return answer

    def _fit(self, exchange: Exchange, fault: str) -> str | None:
        """Return the fault, if such a request can meet it."""
        request = exchange.request
        origami = self._world.stand.name == "origami" and request.method == "POST"
        if fault == "not found" and not (exchange.poll and self._world.is_young(exchange.poll)):
            return None
        if fault == "past" and exchange.poll is None:
            return None
        if fault == "own error after" and not (origami and not request.path.endswith("/cancel")):
            return None
        if fault == "error after" and origami:  # its own errors are those that it does not keep under a key
            return "proxy error"
        return fault


def _is_poll() -> bool:
    task = asyncio.current_task()
    assert task is not None
    return getattr(task.get_coro(), "__qualname__", "") == "Workers._work"


def _is_look(process: Process, run_id: str) -> bool:
    """Tell whether another run is being read, which is looked for as what came of an answer from elsewhere."""
    task, watches = asyncio.current_task(), process.client._poller._watches
    return any(watch.worker is task and watch.ref.id != run_id for watch in watches.values())
