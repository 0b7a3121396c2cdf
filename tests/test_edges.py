"""Awkward moments: what a hostile review tried, and what holds since."""

import asyncio
import contextlib
import gc
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentruns import (
    Action,
    ActionRequiredError,
    AgentRunsError,
    Backoff,
    ConfigurationError,
    DeadlineExceededError,
    Run,
    RunRef,
    RunStatus,
    Tools,
    connect,
    narrative,
    origami,
)
from agentruns.emulator import Call, Emulator, Fault, Turn
from tests.kit import (
    CONVERSATION,
    HEAD,
    NEXT_RUN,
    POLL,
    POLL_NEXT,
    RUN,
    START,
    Answer,
    Wire,
    client_of,
    conversation,
    problem,
    run,
)

pytestmark = [pytest.mark.asyncio]
virtual = pytest.mark.virtual

MESSAGE = narrative.UserMessage(CONVERSATION, "Handle invoice RE-2026-118.")


def paused() -> Wire:
    return Wire({
        HEAD: [conversation(0), conversation(2)],
        START: [run("pending"), run("pending", id=NEXT_RUN)],
        POLL: [run("requires_action")],
        POLL_NEXT: [run("running", id=NEXT_RUN), run("completed", id=NEXT_RUN)],
    })


def answering(body: Any) -> dict[str, Any]:
    async def approve_invoice(invoice_no: str, amount_eur: int) -> Any:
        return await body()

    return {"approve_invoice": approve_invoice}


async def slow_to_leave() -> Any:
    """A handler whose clean-up takes a while: closing a browser, rolling back a transaction."""
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(5)


async def into_the_handler(stream: Any) -> None:
    """Step, as a web handler with heartbeats does, until the handler of the pause is under way."""
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(anext(stream), 15)


@virtual
@pytest.mark.parametrize(
    "trouble", [Answer({}, 503), Answer({}, 429, {"retry-after": "30"})], ids=["503", "429-retry-after"]
)
async def test_stall_must_not_turn_trouble_into_a_storm_of_polls(trouble: Answer) -> None:
    wire = Wire({HEAD: conversation(), START: run("running"), POLL: [run("running"), trouble]})
    async with client_of(wire) as client:

        async def follow() -> None:
            async for _ in client.stream(MESSAGE, stall=5, timeout=40):
                pass

        task = asyncio.create_task(follow())
        await asyncio.sleep(4.9)
        before = len(wire.asked)
        while asyncio.get_running_loop().time() < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        for _ in range(2000):
            await asyncio.sleep(0)
        sent = len(wire.asked) - before
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert sent < 10  # today: some 1000 requests without a tick of the clock


@virtual
async def test_stall_must_not_shorten_a_retry_after() -> None:
    wire = Wire({
        HEAD: conversation(),
        START: run("running"),
        POLL: [Answer(run("running").body, headers={"retry-after": "30"}), run("completed")],
    })
    async with client_of(wire) as client:
        with contextlib.suppress(AgentRunsError):
            await client.result(MESSAGE, stall=5)

    first, *others = wire.times(POLL)
    assert all(later >= first + 30 for later in others)


@virtual
async def test_batch_yields_an_outcome_as_it_ends_while_a_slow_source_is_waited_for() -> None:
    wire = Wire({HEAD: conversation(), START: run("completed")})
    seen = asyncio.Event()

    async def source() -> AsyncIterator[narrative.UserMessage]:
        yield MESSAGE
        await seen.wait()
        yield MESSAGE

    outcomes = 0
    async with client_of(wire) as client:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1000):
                async for _ in client.batch(source()):
                    outcomes += 1
                    seen.set()

    assert outcomes == 2


@virtual
async def test_a_batch_step_that_times_out_loses_no_origins() -> None:
    wire = Wire({HEAD: conversation(), START: run("completed")})

    async def source() -> AsyncIterator[narrative.UserMessage]:
        for _ in range(3):
            await asyncio.sleep(10)
            yield MESSAGE

    got = []
    async with client_of(wire) as client:
        batch = client.batch(source())
        while True:
            try:
                got.append((await asyncio.wait_for(anext(batch), 4)).index)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break

    assert got == [0, 1, 2]


@virtual
async def test_another_task_can_close_a_batch_that_waits_for_its_source() -> None:
    wire = Wire({HEAD: conversation(), START: run("completed")})

    async def source() -> AsyncIterator[narrative.UserMessage]:
        await asyncio.sleep(1000)
        yield MESSAGE

    async with client_of(wire) as client:
        batch = client.batch(source())
        waiting = asyncio.create_task(batch.__anext__())
        await asyncio.sleep(1)
        try:
            await batch.aclose()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


@virtual
async def test_a_key_that_raises_is_the_outcome_of_its_origin() -> None:
    wire = Wire({HEAD: conversation(), START: run("completed")})

    def key(origin: narrative.UserMessage) -> str:
        if origin.text == "bad":
            raise KeyError("no invoice number")
        return origin.text

    origins = [narrative.UserMessage(CONVERSATION, text) for text in ("bad", "good")]
    async with client_of(wire) as client:
        outcomes = [outcome async for outcome in client.batch(origins, key=key)]

    assert len(outcomes) == 2


@virtual
async def test_the_documented_heartbeat_loop_ends_after_the_deadline() -> None:
    wire = Wire({HEAD: conversation(), START: run("running"), POLL: run("running")})
    beats_after_deadline = 0
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE, timeout=60)
        while beats_after_deadline < 100:
            try:
                await asyncio.wait_for(anext(stream), 15)
            except TimeoutError:
                if asyncio.get_running_loop().time() >= 60:
                    beats_after_deadline += 1
            except StopAsyncIteration:
                break

    assert beats_after_deadline <= 2  # the beat of that moment, and the deadline itself


@virtual
async def test_the_client_can_be_left_while_a_stream_is_giving_up_at_its_deadline() -> None:
    wire = paused()

    async def follow(client: Any) -> None:
        async for _ in client.stream(MESSAGE, tools=answering(slow_to_leave), timeout=10):
            pass

    client = client_of(wire)
    task: asyncio.Task[None] | None = None
    try:
        async with client:
            task = asyncio.create_task(follow(client))
            await asyncio.sleep(12)  # between the deadline, 10, and the end of the handler's clean-up, 15
    finally:
        assert task is not None
        await asyncio.gather(task, return_exceptions=True)

    assert not wire.is_open


@virtual
async def test_two_tasks_may_close_one_stream() -> None:
    wire = Wire({HEAD: conversation(), START: run("running"), POLL: run("running")})
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE)

        async def follow() -> None:
            async for _ in stream:
                pass

        async def close(ticks: int) -> None:
            for _ in range(ticks):
                await asyncio.sleep(0)
            await stream.aclose()

        task = asyncio.create_task(follow())
        await asyncio.sleep(3.5)
        results = await asyncio.gather(*map(close, range(6)), return_exceptions=True)
        await asyncio.gather(task, return_exceptions=True)

    assert results == [None] * 6


@virtual
async def test_leaving_the_client_under_an_anyio_scope_closes_the_transport() -> None:
    wire, before = paused(), asyncio.all_tasks()
    with anyio.move_on_after(20):
        async with client_of(wire) as client:
            async for _ in client.stream(MESSAGE, tools=answering(slow_to_leave)):
                pass
    left = asyncio.all_tasks() - before
    await asyncio.gather(*left, return_exceptions=True)

    assert (wire.is_open, len(left)) == (False, 0)


@virtual
async def test_a_second_cancel_while_the_client_is_left_still_closes_the_transport() -> None:
    wire = paused()

    async def app() -> None:
        async with client_of(wire) as client:
            async for _ in client.stream(MESSAGE, tools=answering(slow_to_leave)):
                pass

    task = asyncio.create_task(app())
    await asyncio.sleep(20)
    task.cancel()
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    is_open = wire.is_open
    await asyncio.sleep(20)

    assert not is_open


async def test_on_real_sockets_the_session_is_closed_under_an_anyio_scope() -> None:

    async def book(slot: str) -> bool:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.1)
        return True

    async with Emulator("narrative", script=[Turn(calls=[Call("book", {"slot": "9"})])]) as emulator:
        client = connect(narrative, token=emulator.token, base_url=emulator.base_url, schedule=Backoff(initial=0.01))
        with anyio.move_on_after(1):
            async with client:
                made = await client.perform(narrative.create_conversation(config({"book": book})))
                async for _ in client.stream(narrative.UserMessage(made.id, "x"), tools={"book": book}):
                    pass
        session: Any = client._transport._session  # type: ignore[attr-defined]
        closed = session.closed
        await session.close()
        await asyncio.sleep(0.2)

    assert closed


@virtual
async def test_leaving_the_client_waits_for_the_handler_of_a_stream_that_was_let_go_of() -> None:
    before = asyncio.all_tasks()
    async with client_of(paused()) as client:
        stream = client.stream(MESSAGE, tools=answering(slow_to_leave))
        await into_the_handler(stream)
        del stream
        gc.collect()
    left = asyncio.all_tasks() - before
    await asyncio.gather(*left, return_exceptions=True)

    assert not left


@virtual
async def test_a_stop_async_iteration_of_a_handler_reaches_the_caller() -> None:

    async def body() -> Any:
        raise StopAsyncIteration

    async with client_of(paused()) as client:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            async for _ in client.stream(MESSAGE, tools=answering(body)):
                pass
        assert not isinstance(caught.value, StopAsyncIteration)


@virtual
async def test_result_does_not_blame_a_missing_handler_for_it() -> None:

    async def body() -> Any:
        raise StopAsyncIteration

    async with client_of(paused()) as client:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            await client.result(MESSAGE, tools=answering(body))

    assert not isinstance(caught.value, ActionRequiredError)


@virtual
async def test_a_404_right_after_client_start_is_lost_contact_for_a_stream_of_that_run() -> None:
    wire = Wire({
        HEAD: conversation(),
        START: run("pending"),
        POLL: [problem(404, "agent-run-not-found", "Not yet."), run("completed")],
    })
    async with client_of(wire) as client:
        last = await client.result(await client.start(MESSAGE))

    assert last.status is RunStatus.COMPLETED


async def test_cancelling_the_first_read_of_a_known_run_cancels_the_remote_run() -> None:
    async with (
        Emulator("origami", script=[Turn("x", running=50)]) as emulator,
        connect(origami, token=emulator.token, base_url=emulator.base_url, budget=100) as client,
    ):
        started = await client.start(origami.Prompt("hi"))
        emulator.fail(Fault.delay(1, method="GET"))
        step = asyncio.create_task(client.stream(started.ref, on_cancel="confirm").__anext__())
        await asyncio.sleep(0.3)
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        await asyncio.sleep(1)

        assert (await client.fetch(started)).vendor_status == "cancelled"


@virtual
async def test_the_deadline_holds_whatever_a_handlers_clean_up_does() -> None:

    async def body() -> Any:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(300)

    async with client_of(paused()) as client:
        with pytest.raises(DeadlineExceededError):
            await client.result(MESSAGE, tools=answering(body), timeout=30)
        raised = asyncio.get_running_loop().time()

    assert raised < 60  # today: 330


@virtual
async def test_a_handler_that_fails_after_its_stream_was_let_go_of_makes_no_loop_error() -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))

    async def body() -> Any:
        await asyncio.sleep(20)
        raise RuntimeError("boom")

    async with client_of(paused()) as client:
        stream = client.stream(MESSAGE, tools=answering(body))
        await into_the_handler(stream)
        await asyncio.sleep(30)
        del stream
        gc.collect()
        await asyncio.sleep(0)

    assert told == []


@virtual
async def test_and_one_that_failed_before_the_client_is_left_is_not_swallowed(
    caplog: pytest.LogCaptureFixture,
) -> None:

    async def body() -> Any:
        await asyncio.sleep(20)
        raise RuntimeError("boom")

    with caplog.at_level(logging.WARNING, "agentruns"):
        async with client_of(paused()) as client:
            stream = client.stream(MESSAGE, tools=answering(body))
            await into_the_handler(stream)
            await asyncio.sleep(30)

    assert "boom" in caplog.text


async def test_waiting_for_a_worker_thread_does_not_use_up_the_tools_timeout() -> None:
    tools = Tools()
    gate = threading.Barrier(1)

    @tools.default(timeout=0.5)
    def look_up(action: Action) -> str:
        gate.wait()
        time.sleep(0.35)
        return action.id

    tool: Any = tools.find([])
    outputs = await asyncio.gather(*(tool(Action(str(number), "look_up")) for number in range(64)))

    assert [output for output in outputs if output.is_error] == []


@virtual
async def test_a_flow_that_was_performed_already_is_refused() -> None:
    wire = Wire({HEAD: conversation()})
    async with client_of(wire) as client:
        flow = narrative.get_conversation(CONVERSATION)
        await client.perform(flow)
        with pytest.raises(ConfigurationError):
            await client.perform(flow)


@virtual
@pytest.mark.parametrize("wrong", ["fetch-text", "fetch-origin", "resume-ref", "resume-dict", "perform-none", "batch"])
async def test_what_is_wrong_before_any_request_is_a_configuration_error(wrong: str) -> None:
    wire = Wire({HEAD: conversation(), START: run("requires_action")})
    async with client_of(wire) as client:
        waiting = await client.start(MESSAGE)
        anything: Any = client
        calls: dict[str, Any] = {
            "fetch-text": lambda: anything.fetch(waiting.id),
            "fetch-origin": lambda: anything.fetch(MESSAGE),
            "resume-ref": lambda: anything.resume(waiting.ref, []),
            "resume-dict": lambda: anything.resume(waiting, [{"confirmed": True}]),
            "perform-none": lambda: anything.perform(narrative.get_conversation),
            "batch": lambda: anything.batch(5).__anext__(),
        }
        with pytest.raises(ConfigurationError):
            await calls[wrong]()


@virtual
async def test_a_deadline_before_any_state_gives_a_remedy_that_works() -> None:
    wire = Wire({HEAD: Answer(conversation().body, after=100)})
    async with client_of(wire) as client:
        with pytest.raises(DeadlineExceededError) as caught:
            await client.result(MESSAGE, timeout=5)

    assert "run.ref" not in str(caught.value)


async def test_a_client_that_was_left_is_not_said_to_have_been_lent_a_session() -> None:
    async with Emulator("narrative") as emulator:
        client = connect(narrative, token=emulator.token, base_url=emulator.base_url)
        async with client:
            transport: Any = client._transport
            await transport._session.close()
            with pytest.raises(AgentRunsError) as caught:
                await client.fetch(RunRef(RUN))

    assert "passed in" not in str(caught.value)


@virtual
async def test_the_time_between_two_steps_does_not_use_up_patience() -> None:
    wire = Wire({
        HEAD: conversation(),
        START: run("running"),
        POLL: [Answer({}, 503), Answer({}, 503), run("completed")],
    })
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE)
        await anext(stream)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(anext(stream), 1.5)
        await asyncio.sleep(300)

        assert (await anext(stream)).status is RunStatus.COMPLETED


async def test_a_parked_run_whose_raw_is_not_the_details_shape_is_read_back() -> None:
    made = Run(RunRef("a"), RunStatus.REQUIRES_ACTION, "requires_action", vendor="narrative")
    assert Run.from_json(made.to_json()) == made


# 16, the command line -------------------------------------------------------------------------------------------------

HANDLERS = """
import asyncio, time
from agentruns import Tools

blocking = Tools()

@blocking.add(name="book")
def book(slot: str) -> bool:
    print("HANDLER", flush=True)
    time.sleep(30)
    return True

failing = Tools()

@failing.add(name="book")
async def fails(slot: str) -> bool:
    raise KeyError("bug")
"""


def shell(emulator: Any, conversation_id: str, place: Path, tools: str) -> subprocess.Popen[str]:
    (place / "handlers.py").write_text(HANDLERS)
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "agentruns", "run", "narrative", "--conversation-id", conversation_id),
            *("--text", "hi", "--tools", f"{place / 'handlers.py'}:{tools}"),
        ],
        env={"NARRATIVE_BASE_URL": emulator.base_url, "NARRATIVE_TOKEN": emulator.token, "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def served() -> Any:
    return Emulator("narrative", script=[Turn(calls=[Call("book", {"slot": "9"})]), Turn("done")])


async def new_conversation(emulator: Any) -> str:
    def book(slot: str) -> bool:
        return True

    async with connect(narrative, token=emulator.token, base_url=emulator.base_url) as client:
        return (await client.perform(narrative.create_conversation(config({"book": book})))).id


def config(tools: Any) -> narrative.Config:
    return narrative.Config(
        model="anthropic.claude-opus-4.6",
        data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        max_iterations=8,
        max_tokens=2048,
        output_format_schema=narrative.TEXT_SCHEMA,
        client_tools=[narrative.client_tools(tools, alias="user")],
    )


async def test_ctrl_c_does_not_wait_for_a_blocking_handler_and_says_how_to_go_on(tmp_path: Path) -> None:
    with served() as emulator:
        process = shell(emulator, await new_conversation(emulator), tmp_path, "blocking")
        assert process.stdout is not None
        for line in iter(process.stdout.readline, ""):
            if "HANDLER" in line:
                break
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, complaint = await asyncio.to_thread(process.communicate)
        took = time.monotonic() - began

    assert (took < 15, "agentruns watch" in complaint) == (True, True)


async def test_a_handler_with_a_bug_does_not_exit_as_a_failed_run(tmp_path: Path) -> None:
    with served() as emulator:
        process = shell(emulator, await new_conversation(emulator), tmp_path, "failing")
        await asyncio.to_thread(process.communicate)

    assert process.returncode != 1


async def test_a_port_in_use_is_told_without_a_traceback() -> None:
    with served() as emulator:
        port = emulator.base_url.rpartition(":")[2]
        line = [sys.executable, "-m", "agentruns", "emulate", "narrative", "--port", port]
        done = await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, timeout=30, check=False)

    assert ("Traceback" in done.stderr, done.returncode == 1) == (False, False)


# 17, not there yet ----------------------------------------------------------------------------------------------------
