"""Answers under a key: what a handler did, what was posted, and what is not known, whoever comes next."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from agentruns import (
    Action,
    Backoff,
    Client,
    OutcomeUnknownError,
    Retry,
    RunStatus,
    ToolOutcomeUnknownError,
    ToolOutput,
    Tools,
    TransportError,
)
from agentruns._keeping.journal import Journal
from agentruns._values.exchange import Request, Response
from agentruns.emulator import Call, Emulator, Turn
from tests.crash.killed_processes import KEY, PLOTS
from tests.crash.loop_steps import Inside
from tests.crash.worker import DIALECTS, HURRY, answer_to

pytestmark = pytest.mark.asyncio

QUICK = Backoff(initial=0.0002, maximum=0.001, jitter=0.0)
DAY = 24 * 3600.0

MANY = 200
"""Requests after which work counts as going round and round."""


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / HURRY)

    monkeypatch.setattr("agentruns._api.flow.sleep", sleep)
    monkeypatch.setattr("agentruns._keeping.handlers._LOOK_SECONDS", 0.005)
    monkeypatch.setattr("agentruns._keeping.keeper._LOOK_SECONDS", 0.005)


class Line(Inside):
    """A line that is cut after so many requests that are no GET: the vendor hears the last one, and nobody hears it."""

    posts = 0
    cut_after: int | None = None

    async def __call__(self, request: Request) -> Response:
        response = await super().__call__(request)
        if request.method != "GET":
            self.posts += 1
            if self.cut_after is not None and self.posts >= self.cut_after:
                raise TransportError(request, "the line is cut")
        return response


@define
class Vendor:
    emulator: Emulator[Any]
    name: str
    path: Path
    begun: Counter[str] = field(factory=Counter)
    ended: Counter[str] = field(factory=Counter)
    seconds: float = 0.0

    async def handle(self, action: Action) -> Any:
        name = str(action.arguments.get("invoice") or action.arguments.get("label") or action.arguments.get("question"))
        self.begun[name] += 1
        await asyncio.sleep(self.seconds)
        self.ended[name] += 1
        return answer_to(action)

    @asynccontextmanager
    async def client(self, *, cut_after: int | None = None) -> AsyncIterator[Client]:
        """Yield a client as another process would have it."""
        line = Line(self.emulator)
        line.cut_after = cut_after
        retry = Retry(attempts=1, backoff=QUICK)
        journal = Journal(self.path, self.name)
        async with Client(DIALECTS[self.name], line, retry=retry, schedule=QUICK, journal=journal) as client:
            yield client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def origin_of(vendor: str) -> Any:
    dialect = DIALECTS[vendor]
    if vendor == "origami":
        return dialect.Prompt("Find clinics.")
    return dialect.RunRequest("cip_orchestrator", business_id="b86f3c52-11d9-4f07-8e6a-90c2d5a7714f")


async def test_a_handler_is_not_begun_and_cut_off_because_nobody_knows_what_another_did(path: Path) -> None:
    """Both handlers of a pause: one raises, and the other, in the middle of its work, is cut off by that."""
    calls = [Call("watchlist_resolution", {"label": label, "artifacts": []}) for label in ("one", "other")]
    vendor = Vendor(Emulator("middesk", script=[Turn(calls=calls, running=0.0), Turn("Done.")]), "middesk", path)
    runs = 0

    async def flawed(action: Action) -> Any:
        nonlocal runs
        if action.arguments["label"] == "one" and not runs:
            runs += 1
            raise ZeroDivisionError("a bug")
        return await vendor.handle(action)

    vendor.seconds = 0.05
    async with vendor.client() as client:
        with pytest.raises(ZeroDivisionError):
            await client.result(origin_of("middesk"), tools=flawed, key=KEY)
        assert vendor.begun == {"other": 1}
        with pytest.raises(ToolOutcomeUnknownError) as caught:
            await client.result(origin_of("middesk"), tools=flawed, key=KEY)

        assert vendor.begun["one"] == vendor.ended["one"], "it was cut off although nothing was wrong with it"
        assert caught.value.run is not None
        outputs = [ToolOutput(action, "by hand") for action in caught.value.run.actions]
        await client.resume(caught.value.run, outputs)
        assert (await client.result(origin_of("middesk"), tools=flawed, key=KEY)).status is RunStatus.COMPLETED


@pytest.mark.parametrize("repeatable", [False, True])
async def test_two_streams_of_one_client_that_follow_one_key_start_one_run_and_run_each_handler_once(
    path: Path, repeatable: bool
) -> None:
    calls = [Call("watchlist_resolution", {"label": label, "artifacts": []}) for label in ("one", "other")]
    vendor = Vendor(Emulator("middesk", script=[Turn(calls=calls, running=0.0), Turn("Done.")]), "middesk", path)
    vendor.seconds = 0.1
    tools = Tools()
    tools.default(vendor.handle, repeatable=repeatable)
    async with vendor.client() as client:
        runs = await asyncio.gather(
            *(client.result(origin_of("middesk"), tools=tools, key=KEY, timeout=50) for _ in range(3))
        )

    assert {run.status for run in runs} == {RunStatus.COMPLETED}
    assert vendor.begun == vendor.ended == {"one": 1, "other": 1}
    assert vendor.emulator.state.runs_started == 1


async def test_an_answer_that_the_vendor_may_have_forgotten_the_key_of_is_not_posted_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Origami remembers a key for a day: an answer that is posted again later starts another run."""
    now = 0.0
    emulator = Emulator("origami", script=PLOTS["origami"].script, clock=lambda: now, retry_after=0)
    vendor = Vendor(emulator, "origami", path)
    origin = origin_of("origami")

    async def move() -> None:
        nonlocal now
        while True:
            now += 0.01
            await asyncio.sleep(0.001)

    moving = asyncio.create_task(move())
    async with vendor.client(cut_after=2) as client:  # the start, and the first answer
        with pytest.raises(TransportError):
            await client.result(origin, tools=vendor.handle, key=KEY, timeout=50)
    assert emulator.state.runs_started == 2
    now += 1.1 * DAY
    later = time.time() + 1.1 * DAY
    monkeypatch.setattr("time.time", lambda: later)
    async with vendor.client() as client:
        with suppress(OutcomeUnknownError):
            await client.result(origin, tools=vendor.handle, key=KEY, timeout=50)
    moving.cancel()

    prompts = Counter(run.prompt for run in emulator.state.runs.values())
    assert max(prompts.values()) == 1, f"{prompts}"


async def test_an_answer_that_arrives_late_keeps_no_other_answer_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead process has posted the first of two answers; that request arrives right before that of the next one."""
    calls = [Call("watchlist_resolution", {"label": label, "artifacts": []}) for label in ("one", "other")]
    vendor = Vendor(Emulator("middesk", script=[Turn(calls=calls, running=0.0), Turn("Done.")]), "middesk", path)
    sent, late, asked, enough = Line.__call__, True, 0, asyncio.Event()

    async def twice(self: Line, request: Request) -> Response:
        nonlocal late, asked
        asked += 1
        if asked > MANY:
            enough.set()
        if late and request.path.endswith("/resume"):
            late = False
            await sent(self, request)
        return await sent(self, request)

    monkeypatch.setattr(Line, "__call__", twice)
    async with vendor.client() as client:
        going = asyncio.ensure_future(client.result(origin_of("middesk"), tools=vendor.handle, key=KEY))
        waiting = asyncio.ensure_future(enough.wait())
        await asyncio.wait([going, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        assert going.cancel() is False, "it looks for ever at a run that waits for an answer"

    assert (await going).status is RunStatus.COMPLETED
    assert vendor.ended == {"one": 1, "other": 1}


@pytest.mark.parametrize("vendor", ["middesk", "conduit"])
async def test_a_start_that_cannot_be_settled_says_how_to_go_on_under_its_key(vendor: str, path: Path) -> None:
    emulator: Emulator[Any] = Emulator(vendor, script=[Turn("Done.")], **PLOTS[vendor].options)
    state: Any = emulator.state
    origin = (
        origin_of("middesk")
        if vendor == "middesk"
        else DIALECTS["conduit"].Dispatch(state.agent_id, trigger_id=state.trigger_id)
    )
    about = Vendor(emulator, vendor, path)
    journal = Journal(path, vendor)
    async with about.client() as client:
        stream = client.stream(origin, key=KEY)
        note, sent = asyncio.Event(), Line.__call__

        async def stopped(self: Line, request: Request) -> Response:
            if request.method == "POST" and request.path.endswith(("/runs", "/run")):
                note.set()
                await asyncio.Event().wait()
            return await sent(self, request)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Line, "__call__", stopped)
            step = asyncio.ensure_future(anext(stream))
            await note.wait()
            step.cancel()
            await stream.aclose()
    del journal
    async with about.client() as client:
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.result(origin, key=KEY)
        assert emulator.state.runs_started == 0
        assert KEY in str(caught.value)
