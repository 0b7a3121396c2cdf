"""The scenarios, each over every vendor; `pytest tests/conformance` prints them as a matrix."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from agentruns import (
    Action,
    APIError,
    AuthenticationError,
    Client,
    ConflictError,
    DeadlineExceededError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
    QuotaError,
    RateLimitedError,
    Run,
    RunFailedError,
    RunRef,
    RunStatus,
    ServerError,
    ToolOutput,
    UnsupportedError,
)
from agentruns.dialects import NAMES, load
from agentruns.emulator import Emulator, Fault, ManualClock, Turn
from tests.conformance.case import Case
from tests.conformance.vendors import CASES

Scenario = Callable[[Case], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}

PLAIN = Turn("Done.", running=0.1)


def scenario(name: str) -> Callable[[Scenario], Scenario]:
    def register(function: Scenario) -> Scenario:
        SCENARIOS[name] = function
        return function

    return register


class Handler:
    """Answers anything, and counts."""

    def __init__(self) -> None:
        self.answered: list[str] = []

    async def __call__(self, action: Action) -> str:
        self.answered.append(action.id)
        return f"yes to {action.name}"


async def followed(case: Case, client: Client, emulator: Emulator[Any], **options: Any) -> list[Run]:
    origin = await case.origin(client, emulator)
    return [run async for run in client.stream(origin, timeout=20, **options)]


def pausing(case: Case, calls: int = 1) -> list[Turn]:
    return [Turn(calls=[case.call(number) for number in range(calls)], running=0.05), PLAIN]


# Lives of a run -------------------------------------------------------------------------------------------------------


@scenario("a run is started")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        run = await client.start(await case.origin(client, emulator))
        assert run.id
        assert run.vendor == case.dialect.NAME
        assert run.status.in_flight or run.status is RunStatus.COMPLETED
        assert emulator.state.runs_started == 1
        assert (await client.fetch(run)).ref == run.ref


@scenario("every transition is seen, to the end")
async def _(case: Case) -> None:
    clock, turn, states = ManualClock(), Turn("Done.", pending=10.0, running=10.0), []
    async with case.emulator(turn, clock=clock) as emulator, case.connect(emulator) as client:
        async for run in client.stream(await case.origin(client, emulator), timeout=20):
            states.append(run)
            clock.advance(turn.pending if run.status is RunStatus.PENDING else turn.lasts)  # the next state is there
    order = [RunStatus.PENDING, RunStatus.RUNNING, RunStatus.COMPLETED]
    seen = [order.index(run.status) for run in states]
    assert seen == sorted(seen)
    assert len(states) >= 2
    assert states[-1].output
    assert states[-1].raw


@scenario("a failed run is a failed run")
async def _(case: Case) -> None:
    async with case.emulator(Turn(error=case.error, running=0.05)) as emulator, case.connect(emulator) as client:
        with pytest.raises(RunFailedError) as caught:
            await client.result(await case.origin(client, emulator), timeout=20)
    assert caught.value.run is not None
    assert caught.value.run.failure is not None
    assert caught.value.run.failure.type


@scenario("a pause ends a stream without tools")
async def _(case: Case) -> None:
    async with case.emulator(*pausing(case)) as emulator, case.connect(emulator) as client:
        states = await followed(case, client, emulator)
    assert states[-1].status is RunStatus.REQUIRES_ACTION
    assert len(states[-1].actions) == 1
    assert states[-1].actions[0].arguments


@scenario("an answer goes on to the end")
async def _(case: Case) -> None:
    handler = Handler()
    async with case.emulator(*pausing(case)) as emulator, case.connect(emulator) as client:
        states = await followed(case, client, emulator, tools=handler)
    assert states[-1].status is RunStatus.COMPLETED
    assert len(handler.answered) == 1


@scenario("several pending actions are answered together")
async def _(case: Case) -> None:
    handler = Handler()
    async with case.emulator(*pausing(case, 2)) as emulator, case.connect(emulator) as client:
        states = await followed(case, client, emulator, tools=handler)
    assert states[-1].status is RunStatus.COMPLETED
    assert len(handler.answered) == len(set(handler.answered)) == 2


@scenario("a paused run is parked and answered elsewhere")
async def _(case: Case) -> None:
    async with case.emulator(*pausing(case)) as emulator:
        async with case.connect(emulator) as client:
            parked = (await followed(case, client, emulator))[-1].to_json()
        async with case.connect(emulator) as other:
            run = Run.from_json(parked)
            resumed = await other.resume(run, [ToolOutput(action, "yes") for action in run.actions])
            assert (await other.result(resumed, timeout=20)).status is RunStatus.COMPLETED


@scenario("a lost answer to a resume answers once")
async def _(case: Case) -> None:
    handler = Handler()
    async with case.emulator(*pausing(case)) as emulator, case.connect(emulator) as client:
        after = 1 if case.resume_path == case.start_path else 0
        emulator.fail(Fault.drop(committed=True, method="POST", path=case.resume_path, after=after))
        states = await followed(case, client, emulator, tools=handler)
        expected = 2 if states[0].id != states[-1].id else 1
        assert emulator.state.runs_started == expected
    assert states[-1].status is RunStatus.COMPLETED
    assert len(handler.answered) == 1


# Starts that get lost -------------------------------------------------------------------------------------------------


@scenario("a start lost after it was done is not done again")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        emulator.fail(Fault.drop(committed=True, method="POST", path=case.start_path))
        assert (await followed(case, client, emulator))[-1].status is RunStatus.COMPLETED
        assert emulator.state.runs_started == 1


@scenario("a start lost before it was done is repeated only where that is safe")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        emulator.fail(Fault.drop(method="POST", path=case.start_path))
        if case.repeats_starts:
            assert (await followed(case, client, emulator))[-1].status is RunStatus.COMPLETED
        else:
            with pytest.raises(OutcomeUnknownError, match="unknown"):
                await followed(case, client, emulator)
        assert emulator.state.runs_started == int(case.repeats_starts)


@scenario("a start that a 5xx followed is not done again")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        emulator.fail(Fault.answer(502, committed=True, method="POST", path=case.start_path))
        with contextlib.suppress(OutcomeUnknownError, ConflictError):  # said, rather than done twice
            assert (await followed(case, client, emulator))[-1].status is RunStatus.COMPLETED
        assert emulator.state.runs_started == 1


@scenario("the same intent started twice is one run")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        origin = await case.origin(client, emulator)
        first = await client.start(origin)
        assert (await client.start(origin)).id == first.id
        assert emulator.state.runs_started == 1


# Around a run ---------------------------------------------------------------------------------------------------------


@scenario("a run is cancelled")
async def _(case: Case) -> None:
    async with case.emulator(Turn("Done.", running=1e6)) as emulator, case.connect(emulator) as client:
        run = await client.start(await case.origin(client, emulator))
        await client.cancel(run)
        with pytest.raises(RunFailedError):
            await client.result(run.ref, timeout=20)


@scenario("cancelling the wait cancels the run")
async def _(case: Case) -> None:
    async with case.emulator(Turn("Done.", running=1e6)) as emulator, case.connect(emulator) as client:
        run = await client.start(await case.origin(client, emulator))
        waiting = asyncio.create_task(client.result(run, on_cancel="confirm"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await client.fetch(run)).status is RunStatus.FAILED


@scenario("what the vendor cannot do is refused before any request")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        ref = RunRef("r1", "p1")
        lacking = {name for name in ("resume", "cancel", "page", "events") if not hasattr(case.dialect, name)}
        if "cancel" in lacking:
            with pytest.raises(UnsupportedError, match=f"{case.dialect.NAME} has no way to cancel"):
                await client.cancel(ref)
            with pytest.raises(UnsupportedError):
                client.stream(ref, on_cancel="cancel")
        if "page" in lacking:
            with pytest.raises(UnsupportedError, match="list"):
                client.runs()
        if "resume" in lacking:
            paused = Run(ref, RunStatus.REQUIRES_ACTION, "asking", (Action("1", "ask"),))
            with pytest.raises(UnsupportedError, match="resume"):
                await client.resume(paused, [ToolOutput(paused.actions[0], 1)])
        if "events" in lacking:
            with pytest.raises(UnsupportedError, match="events"):
                client.stream(ref, events=True)
        assert emulator.exchanges == ()


@scenario("runs are listed")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN, PLAIN) as emulator, case.connect(emulator) as client:
        run = await client.result(await case.origin(client, emulator), timeout=20)
        listed = [each async for each in client.runs(run.ref.parent)]
    assert [each.ref for each in listed] == [run.ref]
    assert listed[0].status is RunStatus.COMPLETED


@scenario("a wait ends at its deadline and names the run")
async def _(case: Case) -> None:
    async with case.emulator(Turn("Done.", running=1e6)) as emulator, case.connect(emulator) as client:
        run = await client.start(await case.origin(client, emulator))
        with pytest.raises(DeadlineExceededError, match=run.id) as caught:
            await client.result(run, timeout=0.2)
    assert caught.value.run is not None
    assert caught.value.run.status.in_flight


# What answers may look like -------------------------------------------------------------------------------------------


@scenario("an unknown status word does not crash or hang")
async def _(case: Case) -> None:
    async with (
        case.emulator(Turn("Done.", status="meditating", running=0.8)) as emulator,
        case.connect(emulator) as client,
    ):
        states = await followed(case, client, emulator)
    assert "meditating" in [run.vendor_status for run in states]
    assert not states[-1].status.in_flight


@scenario("an unknown field survives")
async def _(case: Case) -> None:
    async with (
        case.emulator(Turn("Done.", running=0.05, extra={"novelty": {"n": 1}})) as emulator,
        case.connect(emulator) as client,
    ):
        last = (await followed(case, client, emulator))[-1]
    assert last.raw["novelty"] == {"n": 1}
    assert Run.from_json(last.to_json()).raw["novelty"] == {"n": 1}


@scenario("a missing field names its path")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        run = await client.start(await case.origin(client, emulator))
        emulator.fail(Fault.malformed("missing_field", target=case.id_field, method="GET", path=case.poll_path))
        with pytest.raises(ProtocolError, match=rf"@ \$\.{re.escape(case.id_field)}"):
            await client.fetch(run)


@scenario("garbage while polling is survived")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        at: dict[str, Any] = {"method": "GET", "path": case.poll_path}
        emulator.fail(Fault.malformed("not_json", **at), Fault.malformed("html", **at))
        emulator.fail(Fault.drop(**at), Fault.cut(**at))
        assert (await followed(case, client, emulator))[-1].status is RunStatus.COMPLETED


@scenario("a redirect is not followed")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        run = await client.start(await case.origin(client, emulator))
        emulator.fail(Fault.redirect("http://127.0.0.1:9/elsewhere", method="GET", path=case.poll_path))
        with pytest.raises(ProtocolError, match="redirect"):
            await client.fetch(run)


ERRORS = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: QuotaError,
    403: AuthenticationError,
    404: NotFoundError,
    409: ConflictError,
    418: APIError,
    422: InvalidRequestError,
    429: RateLimitedError,
    500: ServerError,
    503: ServerError,
}


@scenario("each class of HTTP error has its exception")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN) as emulator, case.connect(emulator, attempts=1) as client:
        run = await client.start(await case.origin(client, emulator))
        for status, kind in ERRORS.items():
            emulator.fail(Fault.answer(status, method="GET", path=case.poll_path))
            with pytest.raises(kind) as caught:
                await client.fetch(run)
            assert caught.value.status == status
            assert caught.value.message


@scenario("a 429 is waited out, in seconds")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        emulator.fail(Fault.answer(429, retry_after=0, method="GET", path=case.poll_path, times=2))
        emulator.fail(Fault.answer(429, retry_after=0, method="POST", path=case.start_path))
        assert (await followed(case, client, emulator))[-1].status is RunStatus.COMPLETED
        assert emulator.state.runs_started == 1


@scenario("a 429 is waited out, until a date")
async def _(case: Case) -> None:
    async with case.emulator(PLAIN) as emulator, case.connect(emulator) as client:
        run = await client.start(await case.origin(client, emulator))
        emulator.fail(Fault.answer(429, retry_after=timedelta(seconds=1), method="GET", path=case.poll_path))
        assert (await client.result(run, timeout=20)).status is RunStatus.COMPLETED


@pytest.mark.asyncio
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_conformance(case: Case, name: str) -> None:
    if name in case.not_applicable:
        pytest.skip(case.not_applicable[name])
    await SCENARIOS[name](case)


def test_a_reason_is_given_only_for_a_scenario_that_exists() -> None:
    for case in CASES:
        assert set(case.not_applicable) <= set(SCENARIOS)


@pytest.mark.parametrize("name", NAMES)
def test_every_guess_has_a_vendor_here_that_reads_it_otherwise(name: str) -> None:
    other = next(case for case in CASES if case.name == f"{name}_other")
    guesses: Any = load(name)
    told = repr(other.dialect)
    switched = [guess.name for guess in guesses.GUESSES if not guess.change]
    assert [guess for guess in switched if f"{guess}=" not in told] == []
