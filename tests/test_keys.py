"""Work under a key: attached to, sent again, never run again, whatever died in between."""

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agentruns import (
    Action,
    APIError,
    Backoff,
    Client,
    ConfigurationError,
    OutcomeUnknownError,
    Retry,
    Run,
    RunFailedError,
    RunRef,
    RunStatus,
    ToolOutcomeUnknownError,
    ToolOutput,
    Tools,
    TransportError,
    conduit,
    connect,
    middesk,
    narrative,
    origami,
)
from agentruns._following.stream import RunStream
from agentruns.emulator import Call, Emulator, Fault, Turn
from tests.scripted_wire import (
    CONVERSATION,
    HEAD,
    MESSAGES,
    NEXT_RUN,
    POLL,
    POLL_NEXT,
    START,
    Answer,
    Lost,
    Wire,
    begun,
    conversation,
    problem,
    run,
)

pytestmark = pytest.mark.asyncio

QUICK = Backoff(initial=0.01, maximum=0.05, jitter=0.0)
KEY = "invoice-17"


def message(text: str = "Handle invoice RE-2026-118.") -> narrative.UserMessage:
    return narrative.UserMessage(CONVERSATION, text)


def plain(**lines: Any) -> Wire:
    return Wire({HEAD: conversation(), START: begun(), POLL: run("completed"), **lines})


def paused(**lines: Any) -> Wire:
    script: dict[str, Any] = {
        HEAD: conversation(),
        MESSAGES: Answer({"current_version": 0, "messages": []}),
        START: [begun(), begun(id=NEXT_RUN)],
        POLL: run("requires_action"),
        POLL_NEXT: run("completed", id=NEXT_RUN),
    }
    return Wire({**script, **lines})


def client_of(wire: Wire, path: Path | str, dialect: Any = narrative) -> Client:
    """Return a client as another process would have it: a journal of its own on the same file."""
    from agentruns._keeping.journal import Journal

    return Client(
        dialect, wire, retry=Retry(attempts=2, backoff=QUICK), schedule=QUICK, journal=Journal(path, dialect.NAME)
    )


class Approve:
    """A handler that counts, and waits for as long as it is told to."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.runs = 0
        self.seconds = seconds

    async def __call__(self, action: Action) -> dict[str, bool]:
        self.runs += 1
        await asyncio.sleep(self.seconds)
        return {"approved": True}


async def cut_off(stream: RunStream[Any], begun: Callable[[], object]) -> None:
    """Follow a stream until something has begun, and not for longer."""

    async def follow() -> None:
        async for _ in stream:
            pass

    following = asyncio.create_task(follow())
    while not begun():  # noqa: ASYNC110 - what begins has no event to wait for
        await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.wait([following])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_a_second_stream_attaches_to_the_run_that_the_first_started(path: Path) -> None:
    wire = plain(**{POLL: run("running")})
    async with client_of(wire, path) as client:
        stream = client.stream(message(), key=KEY)
        assert (await anext(stream)).status is RunStatus.PENDING
        await stream.aclose()
        again = client.stream(message(), key=KEY)
        assert (await anext(again)).status is RunStatus.RUNNING  # as it is now, not as it was seen last
    async with client_of(wire, path) as client:  # in another process, say
        wire.script[POLL] = [run("completed")]
        assert (await client.result(message(), key=KEY)).status is RunStatus.COMPLETED

    assert len(wire.times(START)) == 1


async def test_work_that_is_done_is_not_asked_about_again(path: Path) -> None:
    wire = plain()
    async with client_of(wire, path) as client:
        first = await client.result(message(), key=KEY)
    asked = len(wire.asked)
    async with client_of(wire, path) as client:
        second = await client.result(message(), key=KEY)

    assert second == first
    assert second.raw == first.raw
    assert len(wire.asked) == asked


async def test_a_failed_run_is_done(path: Path) -> None:
    wire = plain(**{POLL: run("failed")})
    for _ in range(2):
        async with client_of(wire, path) as client:
            with pytest.raises(RunFailedError, match="AgentLoopMaxIterationsExceeded"):
                await client.result(message(), key=KEY)

    assert len(wire.times(START)) == 1


async def test_a_key_that_names_other_work_is_refused_before_any_request(path: Path) -> None:
    wire = plain()
    async with client_of(wire, path) as client:
        await client.result(message(), key=KEY)
        asked = len(wire.asked)
        with pytest.raises(ConfigurationError, match="names other work"):
            await client.result(message("Something else."), key=KEY)
        with pytest.raises(ConfigurationError, match="names other work"):
            await client.result(Run(RunRef("another"), RunStatus.RUNNING, "running"), key=KEY)

    assert len(wire.asked) == asked


async def test_a_key_without_a_journal_is_refused() -> None:
    client = Client(narrative, plain(), retry=Retry())
    async with client:
        with pytest.raises(ConfigurationError, match="journal=path"):
            client.stream(message(), key=KEY)
        with pytest.raises(ConfigurationError, match="journal=path"):
            client.unfinished()
        with pytest.raises(ConfigurationError, match="journal=path"):
            await client.work(KEY)


async def test_a_start_that_was_refused_is_begun_anew(path: Path) -> None:
    wire = plain(**{START: [problem(400, "invalid-agent-run-payload", "No."), run("completed")]})
    async with client_of(wire, path) as client:
        with pytest.raises(APIError, match="No"):
            await client.result(message(), key=KEY)
        assert (await client.result(message("Better."), key=KEY)).status is RunStatus.COMPLETED


async def test_a_start_whose_answer_got_lost_is_sent_again_under_its_first_id(path: Path) -> None:
    wire = plain(**{START: [Lost(), Lost(), run("completed")]})
    async with client_of(wire, path) as client:
        with pytest.raises(Exception, match="no answer"):
            await client.result(message(), key=KEY)
    async with client_of(wire, path) as client:
        await client.result(message(), key=KEY)  # another value, and so another client_op_id

    assert len({body["client_op_id"] for body in wire.bodies(START)}) == 1


async def test_a_start_that_was_cut_off_is_gone_through_with(path: Path) -> None:
    wire = plain(**{START: [Answer(run("completed").body, after=100.0), run("completed")]})
    async with client_of(wire, path) as client:
        stream = client.stream(message(), key=KEY)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.1)
        await stream.aclose()
        assert (await client.result(message(), key=KEY)).status is RunStatus.COMPLETED

    assert len({body["client_op_id"] for body in wire.bodies(START)}) == 1


async def test_two_streams_at_once_start_one_run(path: Path) -> None:
    wire = plain(**{START: Answer(begun().body, after=0.2)})
    async with client_of(wire, path) as one, client_of(wire, path) as other:
        runs = await asyncio.gather(*(client.result(message(), key=KEY) for client in (one, one, other)))

    assert {each.status for each in runs} == {RunStatus.COMPLETED}
    assert len(wire.times(START)) == 1


# Handlers -------------------------------------------------------------------------------------------------------------


async def test_an_answer_that_was_given_but_not_posted_is_posted_and_the_handler_not_run_again(path: Path) -> None:
    wire = paused(**{START: [begun(), *[Answer({}, 500)] * 2, begun(id=NEXT_RUN)]})
    approve = Approve()
    async with client_of(wire, path) as client:
        with pytest.raises(APIError, match="500"):
            await client.result(message(), tools=approve, key=KEY)
    async with client_of(wire, path) as client:
        last = await client.result(message(), tools=approve, key=KEY)

    assert last.status is RunStatus.COMPLETED
    assert approve.runs == 1
    assert len({body["client_op_id"] for body in wire.bodies(START)[1:]}) == 1


async def test_a_handler_that_was_cut_off_is_not_run_again(path: Path) -> None:
    wire, approve = paused(), Approve(seconds=100)
    async with client_of(wire, path) as client:
        stream = client.stream(message(), tools=approve, key=KEY)
        await cut_off(stream, lambda: approve.runs)
        await stream.aclose()
        with pytest.raises(ToolOutcomeUnknownError, match="tooluse_Zk31mPqRt8XvB0aYw5LdGh") as caught:
            await client.result(message(), tools=approve, key=KEY)
        assert caught.value.run is not None
        answered = [ToolOutput(action, {"approved": False}) for action in caught.value.run.actions]
        await client.resume(caught.value.run, answered)
        last = await client.result(message(), tools=approve, key=KEY)

    assert last.status is RunStatus.COMPLETED
    assert approve.runs == 1
    assert '{"approved":false}' in json.dumps(wire.bodies(START)[1]).replace("\\", "")


async def test_a_handler_that_was_cut_off_is_run_again_if_it_is_repeatable(path: Path) -> None:
    wire, approve = paused(), Approve(seconds=100)
    tools = Tools()
    tools.default(approve.__call__, repeatable=True)
    async with client_of(wire, path) as client:
        stream = client.stream(message(), tools=tools, key=KEY)
        await cut_off(stream, lambda: approve.runs)
        del stream
        gc.collect()
        await asyncio.sleep(0.2)
        approve.seconds = 0
        last = await client.result(message(), tools=tools, key=KEY)

    assert last.status is RunStatus.COMPLETED
    assert approve.runs == 2


async def test_a_stream_that_is_let_go_of_leaves_its_key_whatever_still_refers_to_its_work(path: Path) -> None:
    wire, approve = paused(), Approve(seconds=100)
    async with client_of(wire, path) as client:
        stream = client.stream(message(), tools=approve, key=KEY)
        await cut_off(stream, lambda: approve.runs)
        lifecycle = stream._driver._lifecycle  # as the traceback of a cancelled handler may, until the next collection
        del stream
        gc.collect()
        await asyncio.sleep(0.2)
        work = await client.work(KEY)

    assert lifecycle.key == KEY
    assert work is not None
    assert not work.alive


async def test_nobody_is_at_work_that_is_done(path: Path) -> None:
    async with client_of(paused(), path) as client:
        stream = client.stream(message(), tools=Approve(), key=KEY)
        first = await anext(stream)
        under_way = await client.work(KEY)
        await stream.result()
        done = await client.work(KEY)

    assert first.status.in_flight
    assert under_way is not None
    assert under_way.alive
    assert done is not None
    assert done.run is not None
    assert (done.run.status, done.alive) == (RunStatus.COMPLETED, False)


async def test_a_handler_that_raised_may_be_run_again(path: Path) -> None:
    wire, runs = paused(), 0

    async def flawed(action: Action) -> bool:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ZeroDivisionError("a bug")
        return True

    async with client_of(wire, path) as client:
        with pytest.raises(ZeroDivisionError):
            await client.result(message(), tools=flawed, key=KEY)
        assert (await client.result(message(), tools=flawed, key=KEY)).status is RunStatus.COMPLETED


async def test_two_processes_that_follow_one_key_run_a_handler_once(path: Path) -> None:
    wire, approve = paused(), Approve(seconds=0.3)
    async with client_of(wire, path) as one, client_of(wire, path) as other:
        runs = await asyncio.gather(
            one.result(message(), tools=approve, key=KEY), other.result(message(), tools=approve, key=KEY)
        )

    assert {each.id for each in runs} == {NEXT_RUN}
    assert approve.runs == 1


async def test_a_run_that_exists_can_be_put_under_a_key(path: Path) -> None:
    wire, approve = paused(), Approve()
    async with client_of(wire, path) as client:
        started = await client.start(message())
        last = await client.result(started, tools=approve, key=KEY)
        again = await client.result(RunRef(started.id, CONVERSATION), tools=approve, key=KEY)
        with pytest.raises(ConfigurationError, match="names other work"):
            await client.result(message(), tools=approve, key=KEY)

    assert last.id == again.id == NEXT_RUN
    assert approve.runs == 1


async def test_what_is_not_done_is_told(path: Path) -> None:
    wire = Wire({HEAD: conversation(), START: [begun(), Lost(), Lost()], POLL: run("running")})
    async with client_of(wire, path) as client:
        stream = client.stream(message(), key="a")
        await anext(stream)
        await stream.aclose()
        with pytest.raises(Exception, match="no answer"):
            await client.result(message("Another."), key="b")
        first, second = [each async for each in client.unfinished()]

    assert (first.key, getattr(first.origin, "text", None)) == ("a", "Handle invoice RE-2026-118.")
    assert first.run is not None
    assert (second.key, second.run, getattr(second.origin, "text", None)) == ("b", None, "Another.")
    async with client_of(wire, path) as client:
        wire.script[POLL], wire.script[START] = [run("completed")], [run("completed")]
        for each in [each async for each in client.unfinished()]:
            await client.result(each.origin, key=each.key)
        assert [each async for each in client.unfinished()] == []


async def test_the_work_of_a_key_is_told_done_or_not(path: Path) -> None:
    wire = Wire({HEAD: conversation(), START: begun(), POLL: [run("running"), run("completed")]})
    async with client_of(wire, path) as client:
        async with client.stream(message(), key="a") as stream:
            await anext(stream)
            work = await client.work("a")
            await stream.result()
        done = await client.work("a")

        assert work is not None
        assert (work.key, getattr(work.origin, "text", None)) == ("a", "Handle invoice RE-2026-118.")
        assert done is not None
        assert done.run == stream.run
        assert await client.work("b") is None


async def test_the_token_and_its_kind_are_not_in_the_file(path: Path) -> None:
    async with (
        Emulator("narrative", token="secret-of-the-test") as emulator,
        connect(narrative, token=emulator.token, base_url=emulator.base_url, journal=path, schedule=QUICK) as client,
    ):
        made = await client.perform(narrative.create_conversation(config()))
        await client.result(narrative.UserMessage(made.id, "hello"), key=KEY)

    assert path.stat().st_mode & 0o777 == 0o600  # noqa: ASYNC240
    assert b"secret-of-the-test" not in path.read_bytes()  # noqa: ASYNC240


def config() -> narrative.Config:
    return narrative.Config(
        model="anthropic.claude-opus-4.6",
        data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        max_iterations=8,
        max_tokens=2048,
        output_format_schema=narrative.TEXT_SCHEMA,
    )


# Each vendor ----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def vendor(name: str, path: Path, *script: Turn) -> AsyncIterator[tuple[Emulator[Any], Any, Any]]:
    """Yield an emulator, what starts a run on it, and what makes a client of it with a journal on *path*."""
    dialect = {"narrative": narrative, "middesk": middesk, "origami": origami, "conduit": conduit}[name]
    options: dict[str, Any] = {"retry_after": 0} if name == "origami" else {}

    async with Emulator(name, script=script, **options) as emulator:

        def client() -> Client:
            return connect(
                dialect,
                token=emulator.token,
                base_url=emulator.base_url,
                journal=path,
                schedule=QUICK,
                budget=1000,
                retry=Retry(attempts=1, backoff=QUICK),
            )

        if name == "narrative":
            async with client() as opened:
                made = await opened.perform(narrative.create_conversation(config()))
            origin: Any = narrative.UserMessage(made.id, "hello")
        elif name == "middesk":
            origin = middesk.RunRequest("cip_orchestrator", business_id="b86f3c52-11d9-4f07-8e6a-90c2d5a7714f")
        elif name == "origami":
            origin = origami.Prompt("Find clinics.")
        else:
            state: Any = emulator.state
            origin = conduit.Dispatch(state.agent_id, trigger_id=state.trigger_id)
        yield emulator, origin, client


STARTS = {"narrative": "*/runs", "middesk": "/v1/runs", "origami": "*/agents", "conduit": "*/run"}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / 50)

    monkeypatch.setattr("agentruns._api.flow.sleep", sleep)


@pytest.mark.parametrize("name", STARTS)
async def test_a_start_that_dies_after_it_was_done_is_found_by_the_next_process(name: str, path: Path) -> None:
    async with vendor(name, path, Turn("Done.", running=0.1)) as (emulator, origin, client):
        emulator.fail(Fault.delay(1.0, method="POST", path=STARTS[name], committed=True))
        async with client() as first:
            stream = first.stream(origin, key=KEY)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.6)
            await stream.aclose()
        async with client() as second:
            last = await second.result(origin, key=KEY, timeout=20)

        assert last.status is RunStatus.COMPLETED
        assert emulator.state.runs_started == 1


@pytest.mark.parametrize("name", ["middesk", "conduit"])
async def test_a_start_that_may_never_have_been_sent_is_not_sent_again_blindly(name: str, path: Path) -> None:
    async with vendor(name, path, Turn("Done.")) as (emulator, origin, client):
        emulator.fail(Fault.drop(committed=False, method="POST", path=STARTS[name]))
        async with client() as first:
            with pytest.raises(OutcomeUnknownError):
                await first.result(origin, key=KEY)
        async with client() as second:
            with pytest.raises(OutcomeUnknownError):
                await second.result(origin, key=KEY)

        assert emulator.state.runs_started == 0
        assert len(emulator.requests("POST", STARTS[name])) == 1


@pytest.mark.parametrize("name", ["middesk", "conduit"])
async def test_a_start_that_cannot_be_settled_goes_on_with_the_run_that_the_caller_names(name: str, path: Path) -> None:
    async with vendor(name, path, Turn("Done.")) as (emulator, origin, client):
        emulator.fail(Fault.drop(committed=False, method="POST", path=STARTS[name]))
        async with client() as first:
            with pytest.raises(OutcomeUnknownError, match=f"client.stream.RunRef.id, parent., key='{KEY}'"):
                await first.result(origin, key=KEY)
        async with client() as second:
            found = await second.start(origin)
            assert (await second.result(found.ref, key=KEY, timeout=20)).id == found.id
            assert (await second.result(origin, key=KEY, timeout=20)).id == found.id
            assert [work async for work in second.unfinished()] == []

        assert emulator.state.runs_started == 1


async def test_two_processes_that_fire_one_trigger_each_follow_the_run_of_their_own(path: Path) -> None:
    async with vendor("conduit", path, Turn("Done."), Turn("Done.")) as (emulator, origin, client):
        async with client() as one, client() as other:
            ends = await asyncio.gather(
                *(each.result(origin, key=f"{KEY}-{number}", timeout=30) for number, each in enumerate((one, other)))
            )

        assert len({end.id for end in ends}) == 2
        assert emulator.state.runs_started == 2


@pytest.mark.parametrize("name", ["middesk", "origami"])
async def test_an_answer_whose_posting_died_is_posted_by_the_next_process(name: str, path: Path) -> None:
    calls = {
        "middesk": Call("watchlist_resolution", {"label": "Dismiss?", "artifacts": []}),
        "origami": Call(
            "ask-questions", {"type": "single-choice", "question": "Which?", "suggestedAnswers": ["This", "That"]}
        ),
    }
    posts = {"middesk": "*/resume", "origami": "*/agents/*/runs"}
    approve = Approve()

    async def answer(action: Action) -> str:
        await approve(action)
        return "This"

    async with vendor(name, path, Turn(calls=[calls[name]], running=0.05), Turn("Done.")) as (emulator, origin, client):
        emulator.fail(Fault.delay(1.5, method="POST", path=posts[name], committed=True))
        async with client() as first:
            stream = first.stream(origin, tools=answer, key=KEY)
            await cut_off(stream, lambda: emulator.requests("POST", posts[name]))
            await stream.aclose()
        async with client() as second:
            last = await second.result(origin, tools=answer, key=KEY, timeout=20)

        assert last.status is RunStatus.COMPLETED
        assert approve.runs == 1


async def test_a_key_that_origami_has_forgotten_is_not_trusted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with vendor("origami", path, Turn("Done.")) as (emulator, origin, client):
        emulator.fail(*[Fault.drop(method="POST", path=STARTS["origami"])] * 9)
        async with client() as first:
            with pytest.raises(TransportError):
                await first.result(origin, key=KEY)
        monkeypatch.setattr(origami, "KEY_SECONDS", 0.001)
        async with client() as second:
            with pytest.raises(OutcomeUnknownError, match="longer ago than the vendor remembers"):
                await second.result(origin, key=KEY)
