"""RunStream: states, waiting, answering, and what survives a cut."""

import asyncio
import contextlib
import gc
import json
import logging
import math
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import msgspec
import pytest

from agentruns import (
    Action,
    ActionRequiredError,
    AgentRunsError,
    Client,
    ConfigurationError,
    DeadlineExceededError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    Retry,
    RunFailedError,
    RunRef,
    RunStatus,
    ServerError,
    StalledError,
    Tools,
    TooManyResumesError,
    TransportError,
    UnsupportedError,
    narrative,
)
from agentruns._api.retry import Backoff
from agentruns._values.exchange import Request, Response
from agentruns.dialects import load
from agentruns.dialects.protocol import Dialect
from tests.scripted_wire import (
    CONVERSATION,
    HEAD,
    MESSAGES,
    NEXT_RUN,
    POLL,
    POLL_NEXT,
    RUN,
    START,
    Answer,
    Lost,
    Wire,
    client_of,
    conversation,
    problem,
    run,
)

SAMPLES = Path(__file__).parent / "samples"

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

MESSAGE = narrative.UserMessage(CONVERSATION, "Handle invoice RE-2026-118.")
REF = RunRef(RUN)


def story(*states: Any, **lines: Any) -> Wire:
    return Wire({HEAD: conversation(), START: run("pending"), POLL: states, **lines})


def paused(*, resumed: Any = None, then: Any = None) -> Wire:
    return Wire({
        HEAD: [conversation(0), conversation(2)],
        MESSAGES: Answer({"current_version": 0, "messages": []}),
        START: [run("pending"), *(resumed or [run("pending", id=NEXT_RUN)])],
        POLL: [run("requires_action")],
        POLL_NEXT: then or [run("running", id=NEXT_RUN), run("completed", id=NEXT_RUN)],
    })


async def test_each_state_that_differs_is_shown_once_and_the_end_ends_the_stream() -> None:
    wire = story(run("pending"), run("running"), run("running"), run("completed"))
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE)
        seen = [state.vendor_status async for state in stream]

    assert seen == ["pending", "running", "completed"]
    assert stream.run is not None
    assert stream.run.output == "Done."
    assert isinstance(stream, AsyncGenerator)


async def test_polls_are_spaced_by_the_schedule_and_start_over_when_something_changes() -> None:
    wire = story(run("pending"), run("pending"), run("running"), run("running"), run("completed"))
    async with client_of(wire, schedule=Backoff(initial=1.0, factor=2.0, jitter=0.0)) as client:
        async for _ in client.stream(MESSAGE):
            pass

    assert wire.times(POLL) == [1.0, 3.0, 7.0, 8.0, 10.0]


async def test_a_retry_after_on_a_running_state_is_a_floor() -> None:
    wire = story(Answer(run("running").body, headers={"retry-after": "15"}), run("completed"))
    async with client_of(wire) as client:
        async for _ in client.stream(MESSAGE):
            pass

    assert wire.times(POLL) == [1.0, 16.0]


async def test_nothing_is_sent_before_the_first_step() -> None:
    wire = story(run("completed"))
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE)
        await asyncio.sleep(5)

    assert wire.asked == []
    assert "not begun" in repr(stream)


async def test_progress_alone_is_shown_only_when_asked_for() -> None:
    jobs = ["e1b7c3d9-20a4-4c66-9a1f-5d8e7f6a4b32", "06d8b3e2-f74a-49c1-95b0-2e8c7a5d1f36"]
    states = (run("running"), run("running", submitted_inference_job_ids=jobs), run("completed"))
    async with client_of(story(*states)) as client:
        plain = [state.progress async for state in client.stream(MESSAGE)]
    async with client_of(story(*states)) as client:
        shown = [
            (state.progress.done if state.progress else None) async for state in client.stream(MESSAGE, progress=True)
        ]

    assert len(plain) == 3
    assert shown == [0, 1, 2, 1]


async def test_a_run_that_is_given_counts_as_the_first_state() -> None:
    wire = story(run("completed"))
    async with client_of(wire) as client:
        first = await client.start(MESSAGE)
        seen = [state.status async for state in client.stream(first)]

    assert seen == [RunStatus.PENDING, RunStatus.COMPLETED]
    assert len(wire.times(START)) == 1


async def test_a_run_named_by_its_ref_is_read_at_once() -> None:
    wire = story(run("completed"))
    async with client_of(wire) as client:
        seen = [state.status async for state in client.stream(REF)]

    assert seen == [RunStatus.COMPLETED]
    assert wire.times(POLL) == [0.0]


async def test_an_unknown_status_word_is_in_flight_until_the_deadline_which_quotes_it() -> None:
    async with client_of(story(run("meditating"))) as client:
        with pytest.raises(DeadlineExceededError, match="meditating") as caught:
            await client.result(MESSAGE, timeout=30)

    assert caught.value.run is not None
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize(
    ("vendor", "sample", "seconds"),
    [
        ("narrative", "running", 600.0),
        ("origami", "running", 21 * 60.0),
        ("middesk", "running", 6 * 3600.0),
        ("conduit", "running", 600.0),
    ],
)
async def test_a_deadline_that_nobody_names_fits_the_vendor(vendor: str, sample: str, seconds: float) -> None:
    body = json.loads((SAMPLES / vendor / f"{sample}.json").read_text())
    dialect = load(vendor)
    response = Response(200, {}, msgspec.json.encode(body), Request("GET", "/"))
    running: Any = dialect
    ref = running.parse_run(response).ref
    line = next(running.fetch(ref, {})).line
    async with client_of(Wire({line: Answer(body)}), dialect, schedule=Backoff(initial=60.0, maximum=60.0)) as client:
        with pytest.raises(DeadlineExceededError, match=f"{seconds:g} s have passed"):
            await client.result(ref)
        batch = client.batch([ref])
        (outcome,) = [each async for each in batch]

    assert isinstance(outcome.error, DeadlineExceededError)
    assert f"{seconds:g} s have passed" in str(outcome.error)


async def test_a_run_that_failed_over_an_answer_names_the_next_move() -> None:
    async def yes() -> str:
        return "yes"

    wire = paused(then=[run("failed", id=NEXT_RUN)])
    async with client_of(wire) as client:
        with pytest.raises(RunFailedError) as caught:
            await client.result(MESSAGE, tools=answering(yes))

    told = str(caught.value)
    assert f"It answered run {RUN}, which can be answered again: `client.resume(paused, outputs, again=True)`" in told


async def test_the_deadline_counts_from_the_first_step_and_covers_a_slow_answer() -> None:
    wire = story(run("running"), Answer(run("completed").body, after=100.0))
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE, timeout=10)
        await asyncio.sleep(50)
        with pytest.raises(DeadlineExceededError, match="10 s have passed"):
            async for _ in stream:
                pass

    assert asyncio.get_running_loop().time() == pytest.approx(60.0)


async def test_a_deadline_tells_what_the_last_poll_came_to_if_it_failed() -> None:
    wire = story(run("running"), problem(503, "unavailable", "Down for a while."))
    async with client_of(wire) as client:
        with pytest.raises(DeadlineExceededError, match=r"the last request failed .*503.*Down for a while") as caught:
            await client.result(MESSAGE, timeout=30)

    assert isinstance(caught.value.__cause__, ServerError)


async def test_a_deadline_does_not_tell_of_trouble_that_is_over() -> None:
    wire = story(problem(503, "unavailable", "Down."), problem(429, "rate-limited", "Slow."), run("running"))
    async with client_of(wire) as client:
        with pytest.raises(DeadlineExceededError) as caught:
            await client.result(MESSAGE, timeout=60)

    assert "failed" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_deadline_tells_why_a_start_was_refused_all_the_while() -> None:
    refused = problem(429, "rate-limited", "Too many runs.", headers={"retry-after": "20"})
    wire = Wire({HEAD: conversation(), START: refused})
    async with client_of(wire) as client:
        with pytest.raises(DeadlineExceededError, match="Too many runs") as caught:
            await client.result(MESSAGE, timeout=30)

    assert isinstance(caught.value.__cause__, RateLimitedError)


class Broken:
    """A schedule of a user's own that says nothing that makes sense."""

    def delay(self, count: int, *, at_least: float = 0.0, noise: float = 0.5) -> float:
        return math.nan if count else 1.0


async def test_a_schedule_that_makes_no_sense_is_an_error_and_no_flood() -> None:
    wire = story(run("running"))
    async with Client(narrative, wire, retry=Retry(), schedule=Broken()) as client:
        with pytest.raises(ConfigurationError, match="the delay of Broken is nan"):
            await client.result(MESSAGE)

    assert len(wire.times(POLL)) < 4


async def test_a_schedule_that_never_waits_is_no_flood() -> None:
    class Never:
        def delay(self, count: int, *, at_least: float = 0.0, noise: float = 0.5) -> float:
            return 0.0

    wire = story(run("running"))
    async with Client(narrative, wire, retry=Retry(), schedule=Never()) as client:
        with pytest.raises(DeadlineExceededError):
            await client.result(MESSAGE, timeout=1.0)

    assert len(wire.times(POLL)) <= 101


@pytest.mark.parametrize(
    ("origin", "told"),
    [(MESSAGE, "If a start was under way"), (REF, "Nothing was started: make the same call again")],
    ids=["start", "watch"],
)
async def test_a_deadline_before_any_state_says_so(origin: Any, told: str) -> None:
    wire = Wire({HEAD: Answer(conversation().body, after=100.0), POLL: Answer({}, after=100.0)})
    async with client_of(wire) as client:
        with pytest.raises(DeadlineExceededError, match=f"no state of the run was seen. {told}") as caught:
            await client.result(origin, timeout=5)

    assert caught.value.run is None


async def test_a_frozen_run_is_stalled() -> None:
    async with client_of(story(run("running"))) as client:
        with pytest.raises(StalledError, match="nothing has changed for 20 s"):
            await client.result(MESSAGE, stall=20)

    assert asyncio.get_running_loop().time() == pytest.approx(21.0)


async def test_a_run_that_makes_progress_is_not_stalled() -> None:
    jobs = [f"{number:08d}-20a4-4c66-9a1f-5d8e7f6a4b32" for number in range(9)]
    states = [run("running", submitted_inference_job_ids=jobs[:count]) for count in range(1, 9)]
    async with client_of(story(*states, run("completed")), schedule=Backoff(initial=10, factor=1, jitter=0)) as client:
        last = await client.result(MESSAGE, stall=15)

    assert last.status is RunStatus.COMPLETED


async def test_lost_contact_is_borne_for_as_long_as_patience_allows() -> None:
    wire = story(run("running"), Lost(), Answer({}, 503), Answer(b"<html>"), run("completed"))
    async with client_of(wire) as client:
        last = await client.result(MESSAGE, patience=60)

    assert last.status is RunStatus.COMPLETED


@pytest.mark.parametrize(("trouble", "error"), [(Lost(), TransportError), (Answer({}, 502), ServerError)])
async def test_contact_that_stays_lost_raises_the_last_error(trouble: Any, error: type[Exception]) -> None:
    wire = story(run("running"), trouble)
    async with client_of(wire) as client:
        with pytest.raises(error):
            await client.result(MESSAGE, patience=20)

    assert asyncio.get_running_loop().time() == pytest.approx(22.0)


async def test_what_cannot_get_better_is_not_waited_for() -> None:
    async with client_of(story(Lost("certificate refused", sent=False, final=True))) as client:
        with pytest.raises(TransportError, match="certificate"):
            await client.result(MESSAGE)

    assert asyncio.get_running_loop().time() == pytest.approx(1.0)


async def test_after_patience_has_run_out_the_next_step_tries_again() -> None:
    async with client_of(story(Lost(), run("completed"))) as client:
        stream = client.stream(MESSAGE, patience=0)
        await anext(stream)
        with pytest.raises(TransportError):
            await anext(stream)
        last = await anext(stream)

    assert last.status is RunStatus.COMPLETED


async def test_a_rate_limit_while_polling_is_waited_out_beyond_patience() -> None:
    busy = Answer({}, 429, {"retry-after": "30"})
    wire = story(busy, busy, run("completed"))
    async with client_of(wire) as client:
        await client.result(MESSAGE, patience=1)

    assert wire.times(POLL) == [1.0, 31.0, 61.0]


async def test_a_request_timeout_answer_is_lost_contact() -> None:
    async with client_of(story(Answer({}, 408), run("completed"))) as client:
        assert (await client.result(MESSAGE)).status is RunStatus.COMPLETED


async def test_a_404_right_after_our_own_start_is_an_early_read() -> None:
    missing = problem(404, "agent-run-not-found", "Resource not found or not accessible.")
    async with client_of(story(missing, missing, run("completed"))) as client:
        assert (await client.result(MESSAGE)).status is RunStatus.COMPLETED


async def test_a_404_for_a_run_that_we_did_not_start_is_final() -> None:
    missing = problem(404, "agent-run-not-found", "Resource not found or not accessible.")
    async with client_of(story(missing)) as client:
        with pytest.raises(NotFoundError, match="agent-run-not-found"):
            await client.result(REF)


async def test_a_404_that_stays_is_raised() -> None:
    missing = problem(404, "agent-run-not-found", "Resource not found or not accessible.")
    async with client_of(story(missing)) as client:
        with pytest.raises(NotFoundError):
            await client.result(MESSAGE)


async def test_a_refusal_while_polling_is_raised_at_once() -> None:
    async with client_of(story(Answer({}, 418))) as client:
        with pytest.raises(AgentRunsError, match="418"):
            await client.result(MESSAGE)


async def test_a_wrong_body_is_raised_at_once_and_the_next_step_does_not_spin() -> None:
    wire = story(Answer({"id": RUN}), run("completed"))
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE)
        await anext(stream)
        with pytest.raises(ProtocolError, match=r"\$.conversation_id"):
            await anext(stream)
        await anext(stream)

    assert wire.times(POLL) == [1.0, 2.0]


async def test_a_read_older_than_the_last_is_not_shown() -> None:
    async with client_of(story(run("running"), run("pending"), run("completed"))) as client:
        seen = [state.vendor_status async for state in client.stream(MESSAGE)]

    assert seen == ["pending", "running", "completed"]


async def test_a_heartbeat_around_a_step_loses_nothing() -> None:
    wire = story(*[run("running")] * 8, run("completed"))
    seen, beats = [], 0
    async with client_of(wire, schedule=Backoff(initial=7.0, factor=1.0, jitter=0.0)) as client:
        stream = client.stream(MESSAGE)
        while True:
            try:
                seen.append((await asyncio.wait_for(anext(stream), 1.5)).vendor_status)
            except TimeoutError:
                beats += 1
            except StopAsyncIteration:
                break

    assert seen == ["pending", "running", "completed"]
    assert wire.times(POLL) == [7.0 * number for number in range(1, 10)]
    assert beats > 30


async def test_a_start_that_a_heartbeat_cuts_is_not_posted_twice() -> None:
    wire = story(run("completed"))
    wire.script[START] = [Answer(run("pending").body, after=10.0)]
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 3)
        assert (await anext(stream)).status is RunStatus.PENDING

    assert len(wire.times(START)) == 1


async def test_a_break_leaves_nothing_behind() -> None:
    async with client_of(story(run("running"))) as client:
        async for state in client.stream(MESSAGE):
            if state.status is RunStatus.RUNNING:
                break
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_another_task_can_close_a_stream_that_is_waited_for() -> None:
    async with client_of(story(run("running")), schedule=Backoff(initial=100, maximum=100, jitter=0)) as client:
        stream = client.stream(MESSAGE)

        async def collect() -> list[str]:
            return [state.vendor_status async for state in stream]

        waiting = asyncio.create_task(collect())
        await asyncio.sleep(5)
        await stream.aclose()

        assert await waiting == ["pending"]
    assert asyncio.get_running_loop().time() == pytest.approx(5.0)


async def test_leaving_the_client_ends_a_wait_with_an_error() -> None:
    client = client_of(story(run("running")), schedule=Backoff(initial=100, maximum=100, jitter=0))
    async with client:
        waiting = asyncio.create_task(client.result(MESSAGE))
        await asyncio.sleep(5)

    with pytest.raises(AgentRunsError, match="the client was closed"):
        await waiting
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_second_task_on_one_stream_gets_a_clear_error() -> None:
    async with client_of(story(run("running"))) as client:
        stream = client.stream(MESSAGE)
        await anext(stream)
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(AgentRunsError, match="one stream per task"):
            await anext(stream)
        waiting.cancel()


async def test_a_stream_behaves_as_an_async_generator() -> None:
    async with client_of(story(run("completed"))) as client:
        async with contextlib.aclosing(client.stream(MESSAGE)) as stream:
            assert (await stream.asend(None)).status is RunStatus.PENDING
            with pytest.raises(TypeError, match="takes no values"):
                await stream.asend(1)  # type: ignore[arg-type]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

        stream = client.stream(MESSAGE)
        with pytest.raises(ValueError, match="from outside"):
            await stream.athrow(ValueError("from outside"))
        with pytest.raises(KeyError, match="also"):
            await stream.athrow(KeyError, "also")
        with pytest.raises(LookupError):
            await stream.athrow(LookupError, LookupError(), None)


# Answering ------------------------------------------------------------------------------------------------------------


async def test_a_paused_run_is_answered_and_followed_to_the_end() -> None:
    wire = paused()

    async def approve(invoice_no: str, amount_eur: float) -> dict[str, Any]:
        return {"approved": invoice_no, "over": amount_eur}

    async with client_of(wire) as client:
        stream = client.stream(MESSAGE, tools={"approve_invoice": approve})
        seen = [(state.id, state.vendor_status) async for state in stream]

    assert seen == [
        (RUN, "pending"),
        (RUN, "requires_action"),
        (NEXT_RUN, "pending"),
        (NEXT_RUN, "running"),
        (NEXT_RUN, "completed"),
    ]
    posted = wire.bodies(START)[1]
    assert posted["expected_version"] == 2
    assert posted["payload"]["outputs"][0]["content_blocks"] == [
        {"type": "text", "text": '{"approved":"RE-2026-118","over":940.0}'}
    ]


async def test_a_pause_that_no_handler_covers_ends_the_stream() -> None:
    async with client_of(paused()) as client:
        stream = client.stream(MESSAGE, tools={"something_else": lambda: 1})
        seen = [state.status async for state in stream]

    assert seen == [RunStatus.PENDING, RunStatus.REQUIRES_ACTION]


async def test_outputs_are_kept_and_posted_again_when_posting_fails() -> None:
    calls = 0

    def approve(action: Action) -> str:
        nonlocal calls
        calls += 1
        return "yes"

    async def approve_in_loop(action: Action) -> str:
        return approve(action)

    wire = paused(resumed=[*[Answer({}, 500)] * 4, run("completed", id=NEXT_RUN)])
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE, tools=approve_in_loop)
        await anext(stream)
        await anext(stream)
        with pytest.raises(ServerError):
            await anext(stream)
        assert [output.output for output in stream.outputs] == ["yes"]
        assert (await anext(stream)).status is RunStatus.COMPLETED

    assert calls == 1
    assert len({body["client_op_id"] for body in wire.bodies(START)[1:]}) == 1


async def test_a_handler_that_a_heartbeat_cuts_goes_on_and_is_not_run_again() -> None:
    calls = 0

    async def ask_a_person(action: Action) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(100)
        return "approved"

    beats, seen = 0, []
    async with client_of(paused()) as client:
        stream = client.stream(MESSAGE, tools=ask_a_person)
        while True:
            try:
                seen.append((await asyncio.wait_for(anext(stream), 15)).vendor_status)
            except TimeoutError:
                beats += 1
            except StopAsyncIteration:
                break

    assert calls == 1
    assert beats == 6
    assert seen[-1] == "completed"


async def test_a_handler_that_ends_between_two_steps_is_taken_up_by_the_next() -> None:
    calls = 0

    async def ask_a_person(action: Action) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(20)
        return "approved"

    wire = paused()
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE, tools=ask_a_person)
        for _ in range(2):
            await anext(stream)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 15)
        await asyncio.sleep(100)
        assert [output.output for output in stream.outputs] == ["approved"]
        seen = [state.vendor_status async for state in stream]

    assert calls == 1
    assert seen[-1] == "completed"
    assert len(wire.times(START)) == 2


async def test_an_exception_of_a_handler_reaches_the_caller_as_it_is_and_nothing_is_posted() -> None:
    calls = 0

    async def broken(action: Action) -> None:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError("a bug")

    wire = paused()
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE, tools=broken)
        for _ in range(2):
            await anext(stream)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="a bug") as caught:
                await anext(stream)
            assert any(entry.name == "broken" for entry in caught.traceback)

    assert calls == 1
    assert len(wire.times(START)) == 1


async def test_a_timeout_error_of_a_handler_is_told_once_so_that_a_heartbeat_loop_ends() -> None:
    async def late(action: Action) -> None:
        raise TimeoutError("of its own")

    async with client_of(paused()) as client:
        stream = client.stream(MESSAGE, tools=late)
        for _ in range(2):
            await anext(stream)
        with pytest.raises(TimeoutError, match="of its own"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_answers_that_were_given_survive_the_deadline() -> None:
    async def quick() -> str:
        return "done"

    async def slow() -> None:
        await asyncio.sleep(1000)

    calls: list[dict[str, Any]] = [
        {"tool_use_id": name, "name": f"ops-{name}", "arguments": {}} for name in ("quick", "slow")
    ]
    wire = story(run("requires_action", pending_tool_calls=calls))
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE, tools={"quick": quick, "slow": slow}, timeout=60)
        with pytest.raises(DeadlineExceededError):
            async for _ in stream:
                pass
        assert [output.output for output in stream.outputs] == ["done"]
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_letting_go_of_a_stream_ends_the_handler_that_it_left_running() -> None:
    ended = []

    async def ask_a_person(action: Action) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(asyncio.get_running_loop().time())

    async with client_of(paused()) as client:
        stream = client.stream(MESSAGE, tools=ask_a_person)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                async for _ in stream:
                    pass
        assert not ended
        del stream
        gc.collect()
        await asyncio.sleep(0.1)
        assert ended
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_run_that_asks_for_ever_is_stopped() -> None:
    async def whatever(action: Action) -> str:
        return "ok"

    wire = Wire({HEAD: conversation(), START: [run("requires_action", id=f"run-{number}") for number in range(9)]})
    async with client_of(wire) as client:
        with pytest.raises(TooManyResumesError, match="after 3 answers"):
            await client.result(MESSAGE, tools=whatever, max_resumes=3)

    assert len(wire.times(START)) == 4


async def test_a_pause_of_more_actions_than_can_be_answered_at_once_runs_no_handler() -> None:
    asked: list[Action] = []
    calls = [{"tool_use_id": f"tooluse_{number}", "name": "ask", "arguments": {}} for number in range(1001)]
    wire = Wire({
        HEAD: conversation(),
        START: [run("requires_action", pending_tool_calls=calls), run("requires_action", pending_tool_calls=calls[1:])],
    })
    async with client_of(wire) as client:
        with pytest.raises(ProtocolError, match="asks for 1001 actions at once, and handlers of 1000 at most"):
            await client.result(MESSAGE, tools=asked.append)
        assert not asked
        with pytest.raises(ActionRequiredError):
            await client.result(MESSAGE)


async def test_tools_may_be_a_registry_that_several_streams_share() -> None:
    tools = Tools()

    @tools.default
    async def anything(action: Action) -> str:
        return action.name

    async with client_of(paused()) as client:
        await client.result(MESSAGE, tools=tools)
    async with client_of(paused()) as client:
        await client.result(MESSAGE, tools=tools)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": True},
        {"patience": -1},
        {"stall": 0},
        {"max_resumes": -1},
        {"on_cancel": "shrug"},
        {"key": "invoice-17"},
    ],
)
async def test_an_option_that_cannot_work_is_refused_at_once(options: dict[str, Any]) -> None:
    wire = story(run("completed"))
    async with client_of(wire) as client:
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            client.stream(MESSAGE, **options)

    assert wire.asked == []


async def test_options_that_are_given_once_more_are_checked_again_where_they_differ() -> None:
    async with client_of(story(run("completed"))) as client:
        streams = [client.stream(MESSAGE, timeout=seconds) for seconds in (5.0, 5.0, 7.0, None, None)]
        with pytest.raises(ConfigurationError, match="timeout"):
            client.stream(MESSAGE, timeout=-1.0)
        streams.append(client.stream(MESSAGE, timeout=None))

    assert [stream._options.timeout for stream in streams] == [5.0, 5.0, 7.0, None, None, None]


async def test_cancelling_the_remote_run_is_refused_at_once_where_the_vendor_cannot() -> None:
    async with client_of(story(run("completed"))) as client:
        with pytest.raises(UnsupportedError, match="narrative has no way to cancel runs"):
            client.stream(MESSAGE, on_cancel="cancel")


# Listening ------------------------------------------------------------------------------------------------------------

EVENTS = f"GET /agents/runs/{RUN}/events"


class Announcing(SimpleNamespace):
    """Narrative, if it had a stream of events."""

    def __init__(self) -> None:
        super().__init__(**vars(narrative))

    def events(self, ref: RunRef) -> Request:
        return Request("GET", f"/agents/runs/{ref.id}/events")


SLOW = Backoff(initial=25.0, factor=1.0, maximum=25.0, jitter=0.0)


async def test_the_end_of_a_stream_of_events_is_a_reason_to_poll() -> None:
    wire = story(run("completed"), **{EVENTS: Answer(b"", after=4.0)})
    async with client_of(wire, cast(Dialect, Announcing()), schedule=SLOW) as client:
        await client.result(MESSAGE, events=True)

    assert wire.times(POLL) == [4.0]


async def test_events_that_bring_no_news_are_not_believed_twice_in_a_row() -> None:
    wire = story(run("pending"), run("pending"), run("completed"), **{EVENTS: Answer(b"", after=4.0)})
    async with client_of(wire, cast(Dialect, Announcing()), schedule=SLOW) as client:
        await client.result(MESSAGE, events=True)

    assert wire.times(EVENTS) == [0.0]
    assert wire.times(POLL) == [4.0, 29.0, 54.0]


@pytest.mark.parametrize("trouble", [Lost(), Answer({}, 404), Answer(b"", after=1000.0)])
async def test_events_that_cannot_be_heard_leave_the_polls_as_they_are(trouble: Any) -> None:
    wire = story(run("completed"), **{EVENTS: trouble})
    async with client_of(wire, cast(Dialect, Announcing()), schedule=SLOW) as client:
        await client.result(MESSAGE, events=True)

    assert wire.times(POLL) in ([25.0], [30.0])


async def test_events_of_a_vendor_that_has_none_are_refused_at_once() -> None:
    async with client_of(story(run("completed"))) as client:
        with pytest.raises(UnsupportedError, match="narrative has no way to announce events of runs"):
            client.stream(MESSAGE, events=True)


# Trouble, deadlines and closing at awkward moments --------------------------------------------------------------------


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


async def test_a_404_right_after_client_start_is_lost_contact_for_a_stream_of_that_run() -> None:
    wire = Wire({
        HEAD: conversation(),
        START: run("pending"),
        POLL: [problem(404, "agent-run-not-found", "Not yet."), run("completed")],
    })
    async with client_of(wire) as client:
        last = await client.result(await client.start(MESSAGE))

    assert last.status is RunStatus.COMPLETED


async def test_a_deadline_before_any_state_gives_a_remedy_that_works() -> None:
    wire = Wire({HEAD: Answer(conversation().body, after=100)})
    async with client_of(wire) as client:
        with pytest.raises(DeadlineExceededError) as caught:
            await client.result(MESSAGE, timeout=5)

    assert "run.ref" not in str(caught.value)


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


# Handlers that fail, or take long to leave ----------------------------------------------------------------------------


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


async def test_leaving_the_client_under_an_anyio_scope_closes_the_transport() -> None:
    wire, before = paused(), asyncio.all_tasks()
    with anyio.move_on_after(20):
        async with client_of(wire) as client:
            async for _ in client.stream(MESSAGE, tools=answering(slow_to_leave)):
                pass
    left = asyncio.all_tasks() - before
    await asyncio.gather(*left, return_exceptions=True)

    assert (wire.is_open, len(left)) == (False, 0)


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


async def test_a_stop_async_iteration_of_a_handler_reaches_the_caller() -> None:

    async def body() -> Any:
        raise StopAsyncIteration

    async with client_of(paused()) as client:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            async for _ in client.stream(MESSAGE, tools=answering(body)):
                pass
        assert not isinstance(caught.value, StopAsyncIteration)


async def test_result_does_not_blame_a_missing_handler_for_it() -> None:

    async def body() -> Any:
        raise StopAsyncIteration

    async with client_of(paused()) as client:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            await client.result(MESSAGE, tools=answering(body))

    assert not isinstance(caught.value, ActionRequiredError)


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


# To the end, and leaving ----------------------------------------------------------------------------------------------


async def test_the_result_of_a_stream_is_the_last_state() -> None:
    async with client_of(story(run("pending"), run("running"), run("completed"))) as client:
        stream = client.stream(MESSAGE)
        first = await anext(stream)
        last = await stream.result()

        assert first.status is RunStatus.PENDING
        assert last.status is RunStatus.COMPLETED
        assert await stream.result() is last


async def test_a_wait_for_the_result_that_is_cancelled_loses_nothing() -> None:
    wire = story(*[run("running")] * 5, run("completed"))
    async with client_of(wire) as client:
        stream = client.stream(MESSAGE)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.result(), 0.6)

        assert (await stream.result()).status is RunStatus.COMPLETED
        assert len(wire.times(START)) == 1


async def test_the_result_raises_what_is_in_the_way_of_completion() -> None:
    async with client_of(paused()) as client:
        with pytest.raises(ActionRequiredError):
            await client.stream(MESSAGE).result()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stream_that_was_closed_has_no_result(begun: bool) -> None:
    async with client_of(story(run("running"))) as client:
        stream = client.stream(MESSAGE)
        if begun:
            await anext(stream)
        await stream.aclose()
        with pytest.raises(AgentRunsError, match="has ended before its run did"):
            await stream.result()
