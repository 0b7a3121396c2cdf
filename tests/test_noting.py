"""A start that was never sent is not in doubt, in every dialect: whatever ends its wait to be sent, it is clear."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from itertools import count
from typing import Any, Final

import pytest
from attrs import define, evolve, field

from agentruns import (
    AgentRunsError,
    APIError,
    Client,
    ConflictError,
    JournalError,
    OutcomeUnknownError,
    Retry,
    Run,
    TransportError,
)
from agentruns._aio.limits import ConcurrencyLimit
from agentruns._api.flow import perform
from agentruns._api.limiter import Permits, RateLimiter
from agentruns._api.noting import Acquire, Clearance, Notes
from agentruns._values.commands import Checkpoint, Flow, Ownership, Sleep
from agentruns._values.exchange import RateLimit, Request, Response
from agentruns.dialects import narrative, wire
from agentruns.emulator import Emulator, Turn
from agentruns.testing import Case
from tests.scripted_wire import STEADY, Answer, Lost, Scripted, Wire, problem
from tests.simulation.disk import MemoryDisk, SimulatedJournal
from tests.test_doubt import CASES
from tests.vendor_in_memory import VendorInMemory

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

KEY: Final = "post 1"


class Refusing(VendorInMemory):
    """Refuses the first start that is told by *refusal*, if that is any: the vendor does not get it."""

    def __init__(self, emulator: Emulator[Any], path: str, refusal: Callable[[Request], Response] | None) -> None:
        super().__init__(emulator.state, emulator.token)
        self._path, self.refusals = path, [] if refusal is None else [refusal]
        self._base = "/v1" if path.startswith("/v1/") and not emulator.state.prefix else ""  # a card would say so
        self._headers = {"A2A-Version": "1.0", "x-api-key": emulator.token}
        self.starts = 0
        self.connections = ConcurrencyLimit(5)

    async def ready(self, *_: object) -> ConcurrencyLimit:
        return self.connections

    async def __call__(self, request: Request) -> Response:
        if not self.connections.acquire_nowait():
            await self.connections.acquire()
        try:
            return await self._sent(request)
        finally:
            self.connections.release()

    async def _sent(self, request: Request) -> Response:
        request = evolve(request, path=self._base + request.path, headers={**self._headers, **request.headers})
        if request.method == "POST" and fnmatchcase(f"{self.vendor.prefix}{request.path}", self._path):
            if self.refusals:
                return self.refusals.pop(0)(request)
            self.starts += 1
        return await super().__call__(request)


def limited(request: Request) -> Response:
    return Response(429, {}, b"{}", request)


def forbidden(request: Request) -> Response:
    return Response(403, {}, b"{}", request)


def conflicting(request: Request) -> Response:
    return Response(409, {}, b"{}", request)


def unreachable(request: Request) -> Response:
    raise TransportError(request, "connection refused", sent=False)


@define
class Line:
    """Lets calls through until the one of that *number*, which waits and waits, or hears that the budget is lost."""

    number: int
    error: Exception | None = None
    asked: int = 0
    reached: asyncio.Event = field(factory=asyncio.Event)

    @contextmanager
    def held(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        acquire = Permits.acquire

        async def in_line(permits: Permits, *longest: float) -> None:
            self.asked += 1
            if self.asked >= self.number:
                self.reached.set()
                if self.error is not None:
                    raise self.error
                await asyncio.Event().wait()
            await acquire(permits, *longest)

        with monkeypatch.context() as patched:
            patched.setattr(Permits, "acquire", in_line)
            yield


@define
class Connections(Line):
    """Lets requests have their connections until the one of that *number*, for which none comes free."""

    @contextmanager
    def held(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        acquire_nowait = ConcurrencyLimit.acquire_nowait

        def taken(connections: ConcurrencyLimit) -> bool:
            if asyncio.current_task() not in connections._reserved:
                self.asked += 1
                if self.asked >= self.number:
                    self.reached.set()
                    return False
            return acquire_nowait(connections)

        with monkeypatch.context() as patched:
            patched.setattr(ConcurrencyLimit, "acquire_nowait", taken)
            yield


@define
class Readiness(Line):
    """Has what requests need before they are sent, such as a token, until the one of that *number*, and never then."""

    @contextmanager
    def held(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        ready = Refusing.ready

        async def waited_for(over: Refusing, request: Request) -> ConcurrencyLimit:
            self.asked += 1
            if self.asked >= self.number:
                self.reached.set()
                await asyncio.Event().wait()
            return await ready(over, request)

        with monkeypatch.context() as patched:
            patched.setattr(Refusing, "ready", waited_for)
            yield


@define
class Stage:
    """One vendor and one journal, which processes open one after the other."""

    case: Case
    refusal: Callable[[Request], Response] | None
    emulator: Emulator[Any] = field(init=False)
    over: Refusing = field(init=False)
    disk: MemoryDisk = field(factory=lambda: MemoryDisk(random.Random(1)))
    origin: Any = None

    def __attrs_post_init__(self) -> None:
        self.emulator = self.case.emulator(Turn("Done."), clock=asyncio.get_running_loop().time)
        self.over = Refusing(self.emulator, self.case.start_path, self.refusal)

    def client(self, journal: SimulatedJournal | None) -> Client[Any, Any]:
        retry = Retry(attempts=3, backoff=STEADY, conflicts=1)
        return Client(self.case.vendor, self.over, retry=retry, schedule=STEADY, journal=journal)

    async def prepare(self) -> None:
        async with self.client(None) as client:
            self.origin = await self.case.origin(client, self.emulator)

    def journal(self) -> SimulatedJournal:
        return self.disk.journal(self.case.vendor.NAME)

    async def start(self, client: Client[Any, Any]) -> Run:
        async with client.stream(self.origin, key=KEY) as stream:
            return await anext(stream)


async def killed(stage: Stage, line: Line) -> None:
    """Live in a process that is killed when its start waits."""
    journal = stage.journal()
    with suppress(JournalError):
        async with stage.client(journal) as client:
            life = asyncio.create_task(stage.start(client))
            waits = asyncio.create_task(line.reached.wait())
            await asyncio.wait([life, waits], return_when=asyncio.FIRST_COMPLETED)
            waits.cancel()
            journal.die()
            life.cancel()
            await asyncio.wait([life])


async def cancelled(stage: Stage, line: Line) -> None:
    """Live in a process that gives up when its start waits."""
    async with stage.client(stage.journal()) as client:
        life = asyncio.create_task(stage.start(client))
        waits = asyncio.create_task(line.reached.wait())
        await asyncio.wait([life, waits], return_when=asyncio.FIRST_COMPLETED)
        waits.cancel()
        life.cancel()
        await asyncio.wait([life])


async def cut_off(stage: Stage, line: Line) -> None:
    """Live in a process whose part of the budget is lost when its start waits."""
    line.error = JournalError("journal.db", "it does not answer", "Nothing is sent")
    async with stage.client(stage.journal()) as client:
        with suppress(AgentRunsError):
            await stage.start(client)


async def ended_at_each_wait(
    case: Case,
    refusal: Callable[[Request], Response] | None,
    end: Callable[[Stage, Line], Any],
    line_of: Callable[[int], Line],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    """Yield a stage for each wait of a start, where a life has ended in that wait; one run is begun there by then."""
    for number in count(1):
        stage = Stage(case, refusal)
        await stage.prepare()
        line = line_of(number)
        with line.held(monkeypatch):
            await end(stage, line)
        if stage.over.starts > 0:
            return
        yield stage
        assert stage.over.starts == 1, f"wait {number}"
        stage.disk.close()


@pytest.mark.parametrize(
    ("end", "line_of", "refusal"),
    [
        (killed, Line, None),
        (killed, Line, limited),
        (killed, Line, unreachable),
        (killed, Line, conflicting),
        (cancelled, Line, None),
        (cut_off, Line, None),
        (killed, Connections, None),
        (cancelled, Connections, None),
        (killed, Readiness, None),
        (cancelled, Readiness, None),
    ],
    ids=[
        "killed",
        "killed after 429",
        "killed after a refused connection",
        "killed after a conflict",
        "cancelled",
        "cut off",
        "killed without a connection",
        "cancelled without a connection",
        "killed without a token",
        "cancelled without a token",
    ],
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
async def test_a_start_whose_wait_to_be_sent_ends_before_that_is_started_once_by_the_next(
    case: Case,
    end: Callable[[Stage, Line], Any],
    line_of: Callable[[int], Line],
    refusal: Callable[[Request], Response] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited = 0
    async for stage in ended_at_each_wait(case, refusal, end, line_of, monkeypatch):
        waited += 1
        async with stage.client(stage.journal()) as client:
            run = await stage.start(client)

        assert run.id
        assert stage.over.connections._free == 5

    assert waited or line_of is Readiness, "what is not noted is sent, and waits for a token then"


@pytest.mark.parametrize("refusal", [forbidden, unreachable], ids=["refused", "unreachable"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
async def test_a_start_that_was_never_sent_is_clear_though_the_next_one_under_its_key_fails(
    case: Case, refusal: Callable[[Request], Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = 0
    async for stage in ended_at_each_wait(case, None, killed, Line, monkeypatch):
        waited += 1
        stage.over.refusals = [refusal] * 3
        async with stage.client(stage.journal()) as client:
            with pytest.raises((APIError, TransportError)):
                await stage.start(client)
        stage.over.refusals.clear()
        async with stage.client(stage.journal()) as client:
            await stage.start(client)

    assert waited


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
async def test_a_start_is_clear_though_the_journal_fails_when_its_note_is_taken_back(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(case, limited)
    await stage.prepare()
    async with stage.client(journal := stage.journal()) as client:

        async def fail(*_: object) -> None:
            monkeypatch.undo()
            raise JournalError("journal.db", "the disk is full", "")

        monkeypatch.setattr(journal, "not_sent", fail)
        with suppress(JournalError):
            await stage.start(client)
    async with stage.client(stage.journal()) as client:
        await stage.start(client)

    assert stage.over.starts == 1
    stage.disk.close()


# What is done in which order ------------------------------------------------------------------------------------------

THING, OTHER = Request("POST", "/thing", json={"n": 1}), Request("POST", "/other", json={"n": 1})
LIMITED: Final = problem(429, "slow", "Slow down.")
PERMITS: Final = 5


class Log:
    """Sends, and keeps notes; what happens is told in order, with the permits that are free at the time."""

    def __init__(self, **answers: list[Scripted]) -> None:
        self.permits = Permits(RateLimiter(RateLimit(PERMITS, 1000.0)))
        self.wire = Wire({f"POST /{name}": scripted for name, scripted in answers.items()})
        self.said: list[str] = []
        self.free: list[int] = []
        self.trouble: Callable[[], object] = bool

    def _say(self, what: str) -> None:
        self.said.append(what)
        self.free.append(self.permits.limiter._window.free)

    async def reserve(self, note: Checkpoint) -> Ownership:
        self._say(f"reserve {note.group}")
        return Ownership.MINE

    async def note(self, note: Checkpoint) -> None:
        self._say(f"note {note.data['n']}")
        trouble, self.trouble = self.trouble, bool
        trouble()

    async def take_back(self) -> None:
        self._say("take back")
        trouble, self.trouble = self.trouble, bool
        trouble()

    async def claim(self, run_id: str) -> Ownership:
        raise AssertionError(run_id)

    async def send(self, request: Request, acquire: Acquire | None = None) -> Response:
        await (self.permits.acquire() if acquire is None else acquire())
        self._say(request.line)
        try:
            return await self.wire(request)
        finally:
            self.permits.release()

    async def performed(self, flow: Flow[object]) -> object:
        notes = Notes(self, Clearance(self.permits, self.wire, 60.0), self.send)
        return await perform(flow, notes.send, narrative.problem, Retry(attempts=3, backoff=STEADY), notes=notes)


def noted(n: int, request: Request, group: str = "") -> Flow[object]:
    yield from wire.checkpoint({"n": n}, group)
    return wire.read_object((yield request))


async def test_a_permit_is_acquired_and_then_the_note_is_kept_and_then_the_request_is_sent() -> None:
    log = Log(thing=[Answer({})])
    await log.performed(noted(1, THING, "trigger"))

    assert log.said == ["reserve trigger", "note 1", "POST /thing"]
    assert log.free == [PERMITS, PERMITS - 1, PERMITS - 1]


@pytest.mark.parametrize("refusal", [LIMITED, Lost("refused", sent=False)], ids=["limited", "unreachable"])
async def test_what_is_clearly_refused_is_not_noted_until_it_is_sent_again(refusal: Scripted) -> None:
    log = Log(thing=[refusal, Answer({})])
    await log.performed(noted(1, THING))

    assert log.said == ["note 1", "POST /thing", "take back", "note 1", "POST /thing"]


async def test_a_note_of_which_nobody_knows_if_it_is_taken_back_is_kept_again_before_anything_is_sent() -> None:
    def flow() -> Flow[object]:
        yield from wire.checkpoint({"n": 1})
        with suppress(JournalError):
            yield THING
        return wire.read_object((yield OTHER))

    log = Log(thing=[LIMITED], other=[Answer({})])

    def fail() -> None:
        raise JournalError("journal.db", "the disk is full", "")

    def later() -> None:
        log.trouble = fail

    log.trouble = later
    await log.performed(flow())

    assert log.said == ["note 1", "POST /thing", "take back", "note 1", "POST /other"]


@pytest.mark.parametrize("refusal", [problem(403, "no", "No."), problem(409, "taken", "Taken.")])
async def test_the_note_of_a_refused_request_does_not_stand_while_the_flow_does_something_else(
    refusal: Answer,
) -> None:
    def flow() -> Flow[object]:
        with suppress(APIError):
            yield from noted(1, THING)
        yield Sleep(60.0)
        yield Request("GET", "/thing")
        return wire.read_object((yield OTHER))

    log = Log(thing=[refusal], other=[Answer({})])
    log.wire.script["GET /thing"] = [Answer({})]
    await log.performed(flow())

    assert log.said == ["note 1", "POST /thing", "take back", "GET /thing", "note 1", "POST /other"]


async def test_a_start_by_a_get_is_noted_where_it_is_said_not_to_be_idempotent() -> None:
    def flow() -> Flow[object]:
        yield Request("GET", "/thing")
        return (yield from noted(1, Request("GET", "/begin", idempotent=False)))

    log = Log()
    log.wire.script |= {"GET /thing": [Answer({})], "GET /begin": [Answer({})]}
    await log.performed(flow())

    assert log.said == ["GET /thing", "note 1", "GET /begin"]


async def test_the_note_of_a_start_that_met_a_conflict_is_taken_back_since_it_may_begin_again() -> None:
    log = Log(thing=[problem(409, "taken", "Taken.")])
    with pytest.raises(ConflictError):
        await log.performed(noted(1, THING))

    assert log.said == ["note 1", "POST /thing", "take back"]


async def test_what_is_found_out_after_a_request_that_is_in_doubt_is_kept_at_once_and_for_good() -> None:
    def flow() -> Flow[object]:
        try:
            yield THING
        except OutcomeUnknownError:
            return (yield from noted(1, OTHER))
        raise AssertionError("its answer is lost")

    log = Log(thing=[Lost()], other=[LIMITED, Answer({})])
    await log.performed(flow())

    assert log.said == ["POST /thing", "note 1", "POST /other", "POST /other"]
    assert log.free[1] == log.free[0], "no permit was waited for"


async def test_a_note_after_which_something_was_done_is_not_taken_back() -> None:
    def flow() -> Flow[object]:
        yield from noted(1, THING)
        return wire.read_object((yield OTHER))

    log = Log(thing=[Answer({})], other=[LIMITED, Answer({})])
    await log.performed(flow())

    assert log.said == ["note 1", "POST /thing", "POST /other", "POST /other"]


async def test_a_note_whose_permit_has_lapsed_when_it_is_kept_is_taken_back_until_there_is_another() -> None:
    log = Log(thing=[Answer({})])
    log.trouble = lambda: log.permits.pause(30.0, Exception("not now"))
    began = asyncio.get_running_loop().time()
    await log.performed(noted(1, THING))

    assert log.said == ["note 1", "take back", "note 1", "POST /thing"]
    assert log.free[-1] == PERMITS - 1
    assert asyncio.get_running_loop().time() - began == pytest.approx(30.0)


async def test_a_note_that_cannot_be_kept_costs_no_permit() -> None:
    def fail() -> None:
        raise JournalError("journal.db", "the disk is full", "Nothing was sent")

    log = Log(thing=[Answer({})])
    log.trouble = fail
    with pytest.raises(JournalError):
        await log.performed(noted(1, THING))

    assert log.said == ["note 1"]
    assert log.permits.limiter._window.free == PERMITS
