"""Events of one stream: what they say, and their form on the wire."""

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns import Failure, Progress, Run, RunRef, RunStatus, ToolOutput, Usage, errors
from agentruns._values import codec
from agentruns._values.exchange import Request, Response
from agentruns._values.run import Action
from agentruns.errors import (
    AlreadyAnsweredError,
    ConfigurationError,
    JournalError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
    RunError,
    TransportError,
)
from agentruns.web import Event, Told, chunks, encode, events, public, told, told_in_full
from tests.scripted_wire import CONVERSATION, RUN, Answer, Lost, Wire, client_of, run
from tests.web.scripted_runs import CANCEL, MESSAGE, REF, cancelling, decoded, said, story

UNTOLD = "something went wrong; the server's log says what"


async def told_of(wire: Wire, *, told: Told = told, **options: Any) -> list[tuple[str, Any]]:
    async with client_of(wire) as client:
        seen = events(client.stream(MESSAGE, **options), told=told)
        return [(event.name, json.loads(event.data)) async for event in seen]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_each_state_is_an_event_and_the_end_says_why() -> None:
    seen = await told_of(story(run("running"), run("completed")))

    assert [(name, data.get("status")) for name, data in seen] == [
        ("run", "pending"),
        ("run", "running"),
        ("run", "completed"),
        ("end", "completed"),
    ]
    assert seen[-1][1] == {"id": RUN, "status": "completed", "reason": "over"}


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_pause_that_nobody_answers_ends_as_paused() -> None:
    seen = await told_of(story(run("requires_action")))

    assert seen[-2][1]["actions"][0]["name"] == "ops-approve_invoice"
    assert seen[-1] == ("end", {"id": RUN, "status": "requires_action", "reason": "paused"})


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_error_of_this_library_is_told_and_then_the_end() -> None:
    seen = await told_of(story(Answer({}, 401)))

    assert [name for name, _ in seen] == ["run", "error", "end"]
    assert seen[1][1]["type"] == "AuthenticationError"
    assert seen[1][1]["message"] == UNTOLD
    assert seen[2][1]["reason"] == "error"


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_error_of_a_handler_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async def approve(action: Action) -> None:
        raise ValueError("password=hunter2")

    seen = await told_of(story(run("requires_action")), tools=approve)

    assert seen[-2] == ("error", {"type": "Error", "message": "something went wrong; the server's log says what"})
    assert "hunter2" not in str(seen)
    assert "hunter2" in caplog.text


def test_what_the_application_raises_is_told_by_no_word() -> None:
    class OursError(errors.AgentRunsError):
        pass

    class OurConflictError(errors.UnsupportedError):
        pass

    for error in (
        OursError("secret"),
        OurConflictError("secret"),
        KeyError("secret"),
        errors.ToolError("secret"),
        OSError(2, "secret"),
    ):
        assert told(error)["type"] == "Error"
        assert "secret" not in str(told(error))
    journal = told(JournalError("/srv/secret.db", "disk full"))
    assert journal["type"] == "JournalError"
    assert "secret" not in journal["message"]


FAILED = Run(RunRef("1"), RunStatus.FAILED, "failed")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ConfigurationError("the journal /srv/work.db has secret"), UNTOLD),
        (ProtocolError("a redirect to 'https://secret.internal'"), UNTOLD),
        (OutcomeUnknownError(Request("POST", "/runs"), "reset by secret.internal"), UNTOLD),
        (RunError(FAILED, "secret"), UNTOLD),
        (
            TransportError(Request("GET", "/runs/1"), "no route to secret.internal"),
            "the run cannot be reached at the moment; it may go on all the same",
        ),
        (
            AlreadyAnsweredError(FAILED, (ToolOutput(Action("a", "pay"), "secret"),)),
            "this was answered before, and the first answer stands",
        ),
        (NotFoundError(Response(404, {}, b"secret", Request("GET", "/runs/1"))), "there is no such run"),
        (JournalError("secret.db", "disk full"), "this cannot be looked up or kept at the moment; try again later"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_watcher_is_told_the_class_of_an_error_and_a_sentence_that_is_not_its_text(
    error: Exception, sentence: str
) -> None:
    assert told(error) == {"type": type(error).__name__, "message": sentence}


def test_those_who_ask_for_it_are_told_the_text_of_the_errors_of_this_library() -> None:
    error = RunError(FAILED, "the disk is full")

    assert told_in_full(error) == {"type": "RunError", "message": str(error)}
    assert told_in_full(OSError(2, "secret")) == {"type": "Error", "message": UNTOLD}


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_what_ends_the_following_is_logged_as_a_warning_with_the_run(caplog: pytest.LogCaptureFixture) -> None:
    seen = await told_of(story(Answer({}, 401)), told=lambda error: {"type": "Ours", "message": "?"})

    assert seen[1] == ("error", {"type": "Ours", "message": "?"})
    (record,) = [each for each in caplog.records if "is followed no more" in each.message]
    assert record.levelname == "WARNING"
    assert f"run {RUN} is followed no more: AuthenticationError: " in record.message
    assert record.__dict__["agentruns_error_type"] == "AuthenticationError"
    assert record.__dict__["agentruns_run_id"] == RUN


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("said_by_the_app", [KeyError("none"), object()], ids=["it fails", "it is no JSON"])
async def test_where_what_the_app_tells_of_an_error_fails_the_safe_sentence_is_told(
    said_by_the_app: object, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Exception) -> Any:
        if isinstance(said_by_the_app, Exception):
            raise said_by_the_app
        return {"message": said_by_the_app}

    seen = await told_of(story(Answer({}, 401)), told=fails)

    assert [seen[1][1]["type"], *[name for name, _ in seen]] == ["AuthenticationError", "run", "error", "end"]
    assert "`told` has failed" in caplog.text


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_output_that_json_cannot_carry_is_an_error_event(caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(story()) as client:
        done = Run(REF, RunStatus.COMPLETED, "completed", output=object())
        seen = [event.name async for event in events(client.stream(done))]

    assert seen == ["error", "end"]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_neither_raw_nor_detail_is_shown_unless_asked_for() -> None:
    async with client_of(story(run("completed", note="internal"))) as client:
        plain = [event.data async for event in events(client.stream(REF))]
        whole = [
            event.data async for event in events(client.stream(REF), shown=lambda run: {**public(run), "raw": run.raw})
        ]

    assert "internal" not in "".join(plain)
    assert "internal" in "".join(whole)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_the_whole_of_a_run_is_json() -> None:
    full = Run(
        REF,
        RunStatus.FAILED,
        "failed",
        (Action("1", "approve", {"amount": 940}),),
        {"a": [1, None]},
        Failure("JobFailed", "no"),
        Usage(3, 4),
        Progress(1, 8),
    )

    assert json.loads(json.dumps(public(full))) == {
        "id": RUN,
        "parent": CONVERSATION,
        "status": "failed",
        "vendor_status": "failed",
        "actions": [{"id": "1", "name": "approve", "arguments": {"amount": 940}}],
        "output": {"a": [1, None]},
        "failure": {"type": "JobFailed", "message": "no"},
        "usage": {"input_tokens": 3, "output_tokens": 4},
        "progress": {"done": 1, "limit": 8},
    }
    assert public(Run(REF, RunStatus.RUNNING, "running"))["usage"] is None


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_ids_increase_and_no_two_streams_share_them() -> None:
    async with client_of(story(run("completed"))) as client:
        ids = [[event.id async for event in events(client.stream(REF))] for _ in range(2)]

    assert [each.rpartition("-")[2] for each in ids[0]] == ["1", "2"]
    assert not {*ids[0]} & {*ids[1]}


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_step_may_time_out_and_be_asked_for_again() -> None:
    async with client_of(story(run("running"), run("completed"))) as client:
        stream = events(client.stream(MESSAGE))
        seen, beats = [], 0
        while True:
            try:
                seen.append((await asyncio.wait_for(anext(stream), 0.3)).name)
            except TimeoutError:
                beats += 1
            except StopAsyncIteration:
                break

    assert seen == ["run", "run", "run", "end"]
    assert beats


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_leaving_ends_the_stream() -> None:
    wire = story(run("running"))
    async with client_of(wire) as client:
        async with aclosing(events(client.stream(MESSAGE))) as stream:
            await anext(stream)
        assert [event async for event in stream] == []
        assert client.stats().watched == 0


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("wrong", [{"stream": 3}, {"shown": 3}])
async def test_what_cannot_work_is_said_at_once(wrong: dict[str, Any]) -> None:
    async with client_of(story()) as client:
        given: dict[str, Any] = {"stream": client.stream(REF), "shown": public} | wrong
        with pytest.raises(ConfigurationError):
            events(given["stream"], shown=given["shown"])


# On the wire ----------------------------------------------------------------------------------------------------------


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(-9, 9), st.lists, max_leaves=5))
def test_whatever_a_run_says_arrives_as_one_event(output: Any) -> None:
    text = codec.encode(public(Run(REF, RunStatus.COMPLETED, "done", output=output))).decode()
    (event,) = decoded(encode(Event("a-1", "run", text)))

    assert (event.id, event.name) == ("a-1", "run")
    assert json.loads(event.data)["output"] == output


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_chunks_are_the_events_and_a_heartbeat_in_each_silence() -> None:
    async with client_of(story(run("running"), run("running"), run("completed"))) as client:
        stream = client.stream(MESSAGE)
        body = b"".join([chunk async for chunk in chunks(events(stream), ping=0.4)])

    assert [event.name for event in decoded(body)] == ["run", "run", "run", "end"]
    assert body.count(b": ping\n\n") >= 6


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_heartbeat_does_not_cancel_the_remote_run() -> None:
    wire = story(run("running"), run("completed"), **{CANCEL: Answer({})})
    async with client_of(wire, cancelling()) as client:
        stream = client.stream(MESSAGE, on_cancel="cancel")
        body = b"".join([chunk async for chunk in chunks(events(stream), ping=0.4)])

    assert decoded(body)[-1].name == "end"
    assert wire.times(CANCEL) == []


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_whoever_leaves_the_chunks_cancels_the_remote_run_if_that_is_asked_for() -> None:
    wire = story(run("running"), **{CANCEL: Answer({})})
    async with client_of(wire, cancelling()) as client:
        body = chunks(events(client.stream(MESSAGE, on_cancel="cancel")), ping=0.4)
        for _ in range(4):
            await anext(body)
        await body.aclose()

    assert len(wire.times(CANCEL)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_chunks_that_are_left_early_leave_nothing_under_way() -> None:
    async with client_of(story(run("running"))) as client:
        body = chunks(events(client.stream(MESSAGE)), ping=0.4)
        for _ in range(4):
            await anext(body)
        await body.aclose()
        await asyncio.sleep(0)
        assert client.stats().watched == 0
        assert len(asyncio.all_tasks()) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_ping_must_be_a_number_above_zero() -> None:
    async with client_of(story()) as client:
        with pytest.raises(ConfigurationError, match="ping"):
            chunks(events(client.stream(REF)), ping=0)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_lost_contact_is_told_when_patience_has_run_out() -> None:
    seen = await told_of(story(Lost()), patience=3)

    assert seen[-2][1]["type"] == "TransportError"


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_run_that_does_not_exist_is_told() -> None:
    async with client_of(story(Answer({}, 404))) as client:
        stream = events(client.stream(REF))
        seen = [said(event) async for event in stream]

    assert seen[0][1]["type"] == "NotFoundError"
    assert seen[1] == ("end", {"id": None, "status": None, "reason": "error"})
    assert isinstance(stream.error, NotFoundError)
