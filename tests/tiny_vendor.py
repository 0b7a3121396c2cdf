"""The smallest vendor there can be, dialect and server in one, in virtual time: for the tests of the poller."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from attrs import define

from agentruns import Client, Retry, RunRef
from agentruns._api.channel import Heard
from agentruns._api.limiter import RateLimiter
from agentruns._api.retry import Schedule
from agentruns._keeping.journal import Journal
from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, RateLimit, Request, Response
from agentruns._values.run import Action, JsonText, Page, Run, RunStatus
from agentruns.dialects.protocol import Dialect
from tests.scripted_wire import STEADY

WORDS = {
    "queued": RunStatus.PENDING,
    "working": RunStatus.RUNNING,
    "done": RunStatus.COMPLETED,
    "failed": RunStatus.FAILED,
}


def _run(raw: Mapping[str, Any], text: Any) -> Run:
    return Run(RunRef(raw["id"], raw["of"]), WORDS[raw["status"]], raw["status"], output=raw.get("output"), raw=text)


def _start(origin: str) -> Flow[Run]:
    response = yield Request("POST", f"/runs/{origin}", idempotent=True)
    return _run(response.value, JsonText(response.body))


def _fetch(ref: RunRef, params: Mapping[str, str]) -> Flow[Run]:
    response = yield Request("GET", f"/runs/{ref.id}", params=params)
    return _run(response.value, JsonText(response.body))


def _page(parent: str, cursor: str | None) -> Flow[Page]:
    response = yield Request("GET", f"/lists/{parent}", params={"page": cursor or "0"})
    return Page(tuple(_run(each, each) for each in response.value["runs"]), response.value["next"])


def _fetch_many(refs: Sequence[RunRef]) -> Flow[Sequence[Run | RunRef]]:
    response = yield Request("POST", "/many/runs", json=[ref.id for ref in refs])
    return [RunRef(each["id"]) if each["status"] == "as it was" else _run(each, each) for each in response.value]


def tiny(*, lists: bool = False, many: int = 0, **more: Any) -> Dialect:
    """
    Return the dialect; its origins are texts: `a-7` starts the run of that name, of which `a` is the parent.

    With *many* it reads so many runs at once; *more* are names that it has besides.
    """
    names: dict[str, Any] = {
        "NAME": "tiny",
        "BASE_URL": "https://tiny.test",
        "TOKEN_VARIABLE": "TINY_TOKEN",
        "BASE_URL_VARIABLE": "TINY_BASE_URL",
        "BUDGET": None,
        "Origin": str,
        "start": _start,
        "fetch": _fetch,
        "problem": lambda response: Problem("no"),
        "handler_names": _handler_names,
        "timing_group": lambda run: run.ref.parent,
    }
    if lists:
        names |= {"page": _page, "list_parent": lambda ref: ref.parent}
    if many:
        names |= {"fetch_many": _fetch_many, "FETCH_MANY_LIMIT": many}
    return cast(Dialect, SimpleNamespace(**names, **more))


def _handler_names(action: Action) -> Sequence[str]:
    return (action.name,)


@define
class Known:
    """A run as the server knows it; times are those of the loop."""

    name: str
    begins: float
    queued: float
    lasts: float

    def body(self, now: float) -> dict[str, Any]:
        took = now - self.begins
        status = "queued" if took < self.queued else "working" if took < self.lasts else "done"
        return {"id": self.name, "of": self.name.split("-", maxsplit=1)[0], "status": status}


class Server:
    """A transport that is its own vendor: each run lasts as long as `lasts` says for its name, else *seconds*."""

    def __init__(self, seconds: float = 5.0, *, queued: float = 0.0, latency: float = 0.02, page: int = 100) -> None:
        self.seconds = seconds
        self.queued = queued
        self.latency = latency
        self.page = page
        self.lasts: dict[str, float] = {}
        self.runs: dict[str, Known] = {}
        self.asked: list[tuple[float, str, Mapping[str, str]]] = []
        self.in_flight: dict[str, int] = {}
        self.overlaps = 0
        self.cut = 0
        self.hidden: set[str] = set()  # runs that are left out where many are read at once
        self.terse = False  # of a run that is in flight, many that are read at once say no more
        self.whole = False  # a list shows outputs, too
        self.trouble: dict[str, list[tuple[int, dict[str, str]]]] = {}  # by line, answers to give before the true one

    async def open(self, *_: object) -> None:
        pass

    async def ready(self, *_: object) -> None:
        pass

    async def close(self) -> None:
        pass

    async def listen(self, request: Request, opened: Callable[[], None], heard: Heard | None = None) -> None:
        raise AssertionError("this vendor announces nothing")

    async def __call__(self, request: Request) -> Response:
        loop = asyncio.get_running_loop()
        self.asked.append((loop.time(), request.line, request.params))
        self.in_flight[request.line] = self.in_flight.get(request.line, 0) + 1
        self.overlaps += self.in_flight[request.line] > 1
        try:
            await asyncio.sleep(self.latency)
        except asyncio.CancelledError:
            self.cut += 1
            raise
        finally:
            self.in_flight[request.line] -= 1
        trouble = self.trouble.get(request.line)
        if trouble:
            status, headers = trouble.pop(0)
            return Response(status, headers, b"{}", request)
        return Response(200, {}, msgspec.json.encode(self._answer(request, loop.time())), request)

    def begin(self, name: str) -> RunRef:
        """Start a run behind everybody's back."""
        known = Known(
            name, asyncio.get_running_loop().time(), self.queued, self.queued + self.lasts.get(name, self.seconds)
        )
        self.runs[name] = known
        return RunRef(name, name.split("-", maxsplit=1)[0])

    def _answer(self, request: Request, now: float) -> Any:
        _, place, name = request.path.split("/")
        if place == "many":
            return [self._told(each, now) for each in cast("list[str]", request.json) if each not in self.hidden]
        if request.method == "POST":
            self.begin(name)
        if place == "runs":
            return {**self.runs[name].body(now), "output": "well" if now >= self._ends(name) else None}
        show = self._told if self.whole else lambda name, now: self.runs[name].body(now)
        mine = [show(each.name, now) for each in reversed(self.runs.values()) if each.name.startswith(f"{name}-")]
        number = int(request.params["page"])
        until = (number + 1) * self.page
        return {
            "runs": mine[number * self.page : until],
            "next": str(number + 1) if until < len(mine) else None,
        }

    def _told(self, name: str, now: float) -> Any:
        body = self.runs[name].body(now)
        if self.terse and WORDS[body["status"]].in_flight:
            return {"id": name, "status": "as it was"}
        return {**body, "output": "well" if now >= self._ends(name) else None}

    def _ends(self, name: str) -> float:
        return self.runs[name].begins + self.runs[name].lasts

    def times(self, line: str) -> list[float]:
        """Return when *line* was asked for."""
        return [when for when, each, _ in self.asked if each == line]

    def polls(self) -> list[float]:
        """Return when any run was read, by itself or in a list."""
        return [when for when, line, _ in self.asked if line.startswith("GET")]


def client_of(
    server: Server,
    *,
    schedule: Schedule | None = None,
    limit: RateLimit | RateLimiter | None = None,
    lists: bool = False,
    many: int = 0,
    connections: int = 100,
    dialect: Dialect | None = None,
    journal: Journal | None = None,
) -> Client:
    """Return a client of the tiny vendor, with the poll clock unless a schedule is given."""
    return Client(
        dialect or tiny(lists=lists, many=many),
        server,
        retry=Retry(backoff=STEADY),
        schedule=schedule,
        limit=limit,
        connections=connections,
        journal=journal,
    )
