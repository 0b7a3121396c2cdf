"""Every pause stays answerable: after any refusal or failure of an answer, the error names what can be done next."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import pytest
from attrs import frozen

from agentruns import (
    Action,
    AgentRunsError,
    AlreadyAnsweredError,
    AnswerIgnoredError,
    AuthenticationError,
    Client,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaError,
    RateLimitedError,
    Retry,
    Run,
    RunFailedError,
    RunRef,
    RunStatus,
    ServerError,
    ToolOutput,
    TransportError,
    UnsupportedError,
    conduit,
    narrative,
)
from agentruns.dialects import load
from agentruns.emulator import Emulator, Turn
from agentruns.testing import Case
from agentruns.tools import current_run
from tests.conformance.vendors import MiddeskCase, NarrativeCase, OrigamiCase
from tests.hostile.hostile_servers import TOKEN
from tests.scripted_wire import STEADY, Wire
from tests.vendor_in_memory import VendorInMemory

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

CASES: Final[Mapping[str, Case]] = {
    "narrative": NarrativeCase(),
    "middesk": MiddeskCase(),
    "origami": OrigamiCase(),
}
OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {"narrative": {"keep_failed": False}, "middesk": {}, "origami": {}}
ANSWERS: Final = {"narrative": r"POST .*/runs", "middesk": r"POST .*/resume", "origami": r"POST .*/runs"}
"""The request that answers, by vendor."""

FAILED: Final = {"narrative": "AgentLoopMaxIterationsExceeded", "origami": "errored"}


@frozen
class Stage:
    """A vendor whose run has come to a pause, and how to connect to it."""

    case: Case
    vendor: Any

    def client(self) -> tuple[Client[Any, Any], VendorInMemory]:
        wire = VendorInMemory(self.vendor)
        return Client(load(self.case.dialect), wire, retry=Retry(attempts=2, backoff=STEADY), schedule=STEADY), wire


def stage(name: str, *then: Turn, **options: Any) -> Stage:
    case = CASES[name]
    emulator: Emulator[Any] = Emulator(
        name,
        script=[Turn(calls=[case.call(0)], running=1.0), *then],
        token=TOKEN,
        clock=asyncio.get_running_loop().time,
        **{**OPTIONS[name], **options},
    )
    return Stage(case, emulator.state)


async def paused(client: Client[Any, Any], case: Case) -> Run:
    origin = await case.origin(client, None)  # none of these makes anything at the vendor
    async with client.stream(origin) as stream:
        return [state async for state in stream][-1]


def outputs(run: Run, said: str = "yes") -> list[ToolOutput]:
    return [ToolOutput(action, said) for action in run.actions]


# A second answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["narrative", "origami"])
async def test_the_same_answer_from_another_client_gives_the_run_while_the_first_is_under_way(name: str) -> None:
    scene = stage(name, Turn("Done.", running=45.0))
    (one, _), (other, _) = scene.client(), scene.client()
    async with one, other:
        run = await paused(one, scene.case)
        first = await one.resume(run, outputs(run))
        second = await other.resume(run, outputs(run))
        done = await other.result(second)

    assert first.status.in_flight
    assert second.id == first.id
    assert done.status is RunStatus.COMPLETED


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("seconds", [0.0, 90.0], ids=["under way", "over"])
@pytest.mark.parametrize("name", ["narrative", "origami"])
async def test_another_answer_is_told_what_stands_and_where_to_follow_it(
    name: str, seconds: float, again: bool
) -> None:
    scene = stage(name, Turn("Done.", running=45.0))
    (one, _), (other, _) = scene.client(), scene.client()
    async with one, other:
        run = await paused(one, scene.case)
        first = await one.resume(run, outputs(run, "yes"))
        await asyncio.sleep(seconds)
        with pytest.raises(AlreadyAnsweredError) as caught:
            await other.resume(run, outputs(run, "no"), again=again)
        done = await other.result(caught.value.run)

    assert [each.output for each in caught.value.standing] == ["yes"]
    assert 'has an answer: "yes"' in str(caught.value)
    assert caught.value.run.id == first.id == done.id
    assert len(scene.vendor.runs) == 2


@pytest.mark.parametrize("name", CASES)
async def test_another_answer_of_the_same_client_is_told_what_stands_and_where_to_follow_it(name: str) -> None:
    scene = stage(name, Turn("Done.", running=45.0))
    client, _ = scene.client()
    async with client:
        run = await paused(client, scene.case)
        await client.resume(run, outputs(run, "yes"))
        with pytest.raises(AlreadyAnsweredError, match=r'"yes".*client\.stream\(error\.run\)') as caught:
            await client.resume(run, outputs(run, "no"))
        done = await client.result(caught.value.run)

    assert not caught.value.run.raw, "hundreds of runs are remembered, and their texts may be large"
    assert done.status is RunStatus.COMPLETED


async def test_middesk_does_not_say_what_was_answered_and_the_error_says_so() -> None:
    scene = stage("middesk", Turn("Done.", running=45.0))
    (one, _), (other, _) = scene.client(), scene.client()
    async with one, other:
        run = await paused(one, scene.case)
        await one.resume(run, outputs(run, "yes"))
        same = await one.resume(run, outputs(run, "yes"))
        with pytest.raises(AlreadyAnsweredError, match=r"does not say how.*client\.stream\(error\.run\)") as caught:
            await other.resume(run, outputs(run, "no"))
        done = await other.result(caught.value.run)

    assert same.id == run.id
    assert caught.value.standing == ()
    assert done.status is RunStatus.COMPLETED


@pytest.mark.parametrize("refused", [403, 404, 500, 0])
async def test_messages_that_cannot_be_read_leave_it_open_whose_answer_stands(refused: int) -> None:
    scene = stage("narrative", Turn("Done.", running=5.0))
    (one, _), (other, wire) = scene.client(), scene.client()
    async with one, other:
        run = await paused(one, scene.case)
        first = await one.resume(run, outputs(run))
        wire.plant(r"GET .*/messages", refused, times=99)
        with pytest.raises(AlreadyAnsweredError, match=r"cannot be read \(.*client\.stream\(error\.run\)") as caught:
            await other.resume(run, outputs(run))
        same = await one.resume(run, outputs(run))

    assert caught.value.run.id == same.id == first.id
    assert caught.value.standing == ()


# An answer whose run failed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAILED)
async def test_after_an_answer_whose_run_failed_each_error_names_the_way_to_try_again(name: str) -> None:
    scene = stage(name, Turn(error=FAILED[name], running=5.0), Turn("Done.", running=5.0))
    (one, _), (other, _) = scene.client(), scene.client()
    async with one, other:
        run = await paused(one, scene.case)
        stream = one.stream(run, tools=lambda action: "yes")
        with pytest.raises(RunFailedError, match=r"again=True"):
            await stream.result()
        failed = stream.run
        assert failed is not None
        now = await one.resume(run, outputs(run, "yes"))
        with pytest.raises(AlreadyAnsweredError, match=r"has failed: `client\.resume\(\.\.\., again=True\)`"):
            await other.resume(run, outputs(run, "no"))
        again = await other.resume(run, outputs(run, "no"), again=True)
        done = await other.result(again)

    assert (now.id, now.status) == (failed.id, RunStatus.FAILED)  # as it is, not as it was
    assert done.status is RunStatus.COMPLETED
    assert len(scene.vendor.runs) == 3


async def test_a_conversation_that_has_moved_on_says_how_to_go_on() -> None:
    scene = stage(
        "narrative", Turn(error="AgentLoopMaxIterationsExceeded", running=1.0), Turn("Done."), keep_failed=True
    )
    client, _ = scene.client()
    async with client:
        run = await paused(client, scene.case)
        first = await client.resume(run, outputs(run))
        async with client.stream(first) as stream:
            assert [state async for state in stream][-1].status is RunStatus.FAILED
        with pytest.raises(InvalidRequestError, match=r"narrative\.UserMessage\(conversation_id, text\)"):
            await client.resume(run, outputs(run), again=True)
        done = await client.result(narrative.UserMessage(run.ref.parent, "Go on."))

    assert done.status is RunStatus.COMPLETED


async def test_a_handler_that_uses_the_conversation_of_its_own_run_hears_how_to_go_on() -> None:
    scene = stage("narrative", Turn("Aside."), Turn("Done."))
    client, _ = scene.client()

    async def ask(action: Action) -> str:
        aside = await client.result(narrative.UserMessage(current_run().ref.parent, "By the way?"))
        return str(aside.output)

    async with client:
        origin = await scene.case.origin(client, None)
        with pytest.raises(InvalidRequestError, match=r"narrative\.UserMessage\(conversation_id, text\)"):
            await client.result(origin, tools=ask)
        done = await client.result(narrative.UserMessage(origin.conversation_id, "Go on."))

    assert done.output == "Done."


# An answer that was refused -------------------------------------------------------------------------------------------

REFUSED: Final[Mapping[int, type[AgentRunsError]]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: QuotaError,
    403: AuthenticationError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidRequestError,
    429: RateLimitedError,
    503: ServerError,
    0: TransportError,
}


@pytest.mark.parametrize("status", REFUSED)
@pytest.mark.parametrize("name", CASES)
async def test_a_refused_answer_says_how_to_answer_and_then_can_be_given(name: str, status: int) -> None:
    scene = stage(name, Turn("Done.", running=1.0))
    client, wire = scene.client()
    async with client:
        run = await paused(client, scene.case)
        wire.plant(ANSWERS[name], status, {"message": "No.", "error": "No."}, times=2 if name != "origami" else 8)
        unclear = status in {0, 503} and name == "middesk"  # the others know the same answer again
        with pytest.raises(OutcomeUnknownError if unclear else REFUSED[status]) as caught:
            await client.resume(run, outputs(run))
        wire.planted.clear()
        resumed = await client.resume(run, outputs(run))
        done = await client.result(resumed)

    told = str(caught.value)
    if unclear:
        assert "look at what the vendor has" in told
    else:
        assert "`client.resume(run, outputs)` answers run" in told
        assert "`client.fetch(run)`" in told
    assert done.status is RunStatus.COMPLETED


async def test_an_answer_without_effect_says_how_to_watch_on_and_how_to_answer_otherwise() -> None:
    scene = stage("middesk", Turn("Done."))
    client, _ = scene.client()
    async with client:
        run = await paused(client, scene.case)
        scene.vendor.ignores_answers = True
        with pytest.raises(AnswerIgnoredError) as caught:
            await client.resume(run, outputs(run))
        scene.vendor.ignores_answers = False
        resumed = await client.resume(run, outputs(run, "no"))

    assert "client.stream(run.ref)" in str(caught.value)
    assert "middesk.variant(resume_body=...)" in str(caught.value)
    assert resumed.status is not RunStatus.REQUIRES_ACTION


async def test_a_vendor_whose_runs_cannot_be_answered_says_where_to_look() -> None:
    async with Client(conduit, Wire({}), retry=Retry()) as client:
        with pytest.raises(UnsupportedError, match="`agentruns vendors conduit`"):
            await client.resume(Run(RunRef("ar1", "ag1"), RunStatus.REQUIRES_ACTION, "waiting"), [])
