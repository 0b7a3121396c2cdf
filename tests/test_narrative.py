"""Narrative's rules, on scripted answers; the emulator has tests of its own, and test_end_to_end.py joins both."""

import asyncio
import itertools
import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agentruns import (
    Action,
    APIError,
    AuthenticationError,
    Client,
    ConfigurationError,
    ConflictError,
    Failure,
    InvalidRequestError,
    NotFoundError,
    Progress,
    ProtocolError,
    Retry,
    Run,
    RunRef,
    RunStatus,
    ServerError,
    ToolOutput,
    Tools,
    UnsupportedError,
    Usage,
    narrative,
)
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns.dialects.protocol import Cancels, Resumes, ResumesAgain
from tests.scripted_wire import (
    CALL,
    CONVERSATION,
    HALF,
    HEAD,
    NEXT_RUN,
    POLL,
    RUN,
    START,
    STEADY,
    Answer,
    Lost,
    Wire,
    begun,
    client_of,
    conversation,
    exchange,
    problem,
    refuses,
    run,
    run_body,
)

SAMPLES = Path(__file__).parent / "samples" / "narrative"


def paused(**changes: Any) -> Run:
    _, state = exchange(narrative.fetch(RunRef(RUN), {}), run("requires_action", **changes))
    return state


def outputs_for(state: Run, output: Any = "yes") -> list[ToolOutput]:
    return [ToolOutput(action, output) for action in state.actions]


# Starting -------------------------------------------------------------------------------------------------------------


def test_a_start_reads_the_version_right_before_it_posts() -> None:
    message = narrative.UserMessage(CONVERSATION, "Hello")
    asked, state = exchange(narrative.start(message), conversation(4), run("pending"))

    assert [request.line for request in asked] == [HEAD, START]
    assert asked[1].json == {
        "client_op_id": message.client_op_id,
        "expected_version": 4,
        "payload": {"kind": "user_message", "text": "Hello"},
    }
    assert asked[1].idempotent
    assert state.ref == RunRef(RUN, CONVERSATION)


def test_a_version_that_is_given_is_used_without_a_look() -> None:
    message = narrative.UserMessage(CONVERSATION, "Hello", expected_version=0)
    asked, _ = exchange(narrative.start(message), run("pending"))

    assert [request.json["expected_version"] for request in asked] == [0]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (narrative.AUTO, {"kind": "auto"}),
        (narrative.ANY_TOOL, {"kind": "any"}),
        (narrative.specific_tool("book"), {"kind": "specific_tool", "name": "book"}),
        (
            narrative.specific_tool("search", mcp_alias="docs"),
            {"kind": "specific_tool", "name": "search", "mcp_alias": "docs"},
        ),
        ({"kind": "any"}, {"kind": "any"}),
    ],
)
def test_each_shape_of_tool_choice_is_sent_as_documented(choice: Any, sent: dict[str, Any]) -> None:
    message = narrative.UserMessage(CONVERSATION, "Hello", tool_choice=choice, expected_version=0)
    asked, _ = exchange(narrative.start(message), run("pending"))

    assert asked[0].json["tool_choice"] == sent


def test_an_override_is_sent_sparse_with_classes_in_it_made_plain() -> None:
    server = narrative.McpServer("docs", "https://docs.example.com/mcp")
    override = {"max_iterations": 4, "temperature": 0.0, "mcp_servers": [server]}
    message = narrative.UserMessage(CONVERSATION, "Hello", config_override=override, expected_version=0)
    asked, _ = exchange(narrative.start(message), run("pending"))

    assert asked[0].json["config_override"] == {
        "max_iterations": 4,
        "temperature": 0.0,
        "mcp_servers": [{"alias": "docs", "url": "https://docs.example.com/mcp"}],
    }


def test_every_message_is_an_intent_of_its_own() -> None:
    first, second = (narrative.UserMessage(CONVERSATION, "Hello") for _ in range(2))

    assert first.client_op_id != second.client_op_id
    assert UUID(first.client_op_id).version == 4


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"conversation_id": ""}, "UserMessage.conversation_id"),
        ({"text": ""}, "UserMessage.text"),
        ({"text": None}, "UserMessage.text"),
        ({"client_op_id": "op-1"}, "UserMessage.client_op_id"),
        ({"expected_version": -1}, "UserMessage.expected_version"),
        ({"expected_version": True}, "UserMessage.expected_version"),
        ({"config_override": {"system_prompt": "x"}}, "system_prompt"),
    ],
)
def test_a_message_that_cannot_be_sent_is_refused_when_it_is_made(wrong: dict[str, Any], named: str) -> None:
    fields = {"conversation_id": CONVERSATION, "text": "Hello"} | wrong
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        narrative.UserMessage(**fields)


def test_an_override_that_json_cannot_carry_is_refused_before_any_request() -> None:
    message = narrative.UserMessage(
        CONVERSATION, "Hello", config_override={"temperature": float("nan")}, expected_version=0
    )
    with pytest.raises(ConfigurationError, match="config_override"):
        next(narrative.start(message))


# States ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["pending", "running", "requires_action", "completed", "failed"])
def test_each_status_word_is_ours(word: str) -> None:
    _, state = exchange(narrative.fetch(RunRef(RUN), {}), run(word))

    assert (state.status, state.vendor_status) == (RunStatus(word), word)
    assert state.status.in_flight == (word in {"pending", "running"})


def test_an_unknown_word_is_in_flight_and_kept() -> None:
    _, state = exchange(narrative.fetch(RunRef(RUN), {}), run("meditating"))

    assert (state.status, state.vendor_status) == (RunStatus.RUNNING, "meditating")


def test_a_completed_run_has_its_answer_usage_and_progress() -> None:
    _, state = exchange(narrative.fetch(RunRef(RUN), {}), run("completed"))

    assert state.output == "Done."
    assert state.usage == Usage(812, 64)
    assert state.progress == Progress(1, 6)
    assert state.actions == ()
    assert state.failure is None
    assert state.vendor == "narrative"


def test_a_structured_answer_is_the_output_where_there_is_no_text() -> None:
    _, state = exchange(
        narrative.fetch(RunRef(RUN), {}), run("completed", final_text=None, final_structured_output={"total": 3})
    )

    assert state.output == {"total": 3}


def test_a_failed_run_says_why() -> None:
    _, state = exchange(narrative.fetch(RunRef(RUN), {}), run("failed", usage={"prompt_tokens": 5}))

    assert state.failure == Failure("AgentLoopMaxIterationsExceeded", "max iterations exceeded after 2 iterations")
    fault = state.detail.error
    assert fault is not None
    assert (fault.docs_url or "").endswith("/max-iterations-exceeded")
    assert state.usage == Usage(5, None)


def test_a_failed_run_without_an_error_is_failed_all_the_same() -> None:
    _, state = exchange(narrative.fetch(RunRef(RUN), {}), run("failed", error=None, usage=None))

    assert state.failure == Failure("failed", "")
    assert state.usage is None


def test_a_paused_run_names_its_actions() -> None:
    state = paused()

    assert state.actions == (Action(CALL["tool_use_id"], CALL["name"], CALL["arguments"]),)  # type: ignore[arg-type]


def test_a_paused_run_that_names_no_action_is_not_what_is_documented() -> None:
    with pytest.raises(ProtocolError, match=r"\$\.pending_tool_calls"):
        paused(pending_tool_calls=[])


@pytest.mark.parametrize(
    "sample",
    sorted(path.name for path in SAMPLES.glob("*.json")),
)
def test_every_documented_field_of_a_sample_is_in_detail(sample: str) -> None:
    """The samples are the pages' own examples; nested objects are compared as far as our classes name them."""
    body = json.loads((SAMPLES / sample).read_text())
    _, state = exchange(narrative.fetch(RunRef(body["id"]), {}), Answer(body))

    for name, value in body.items():
        seen = getattr(state.detail, name)
        if name.endswith("_at") and value is not None:
            assert seen == datetime.fromisoformat(value)
            assert seen.tzinfo is not None
        elif isinstance(value, str | int | float) or value is None:
            assert seen == value
        elif isinstance(value, list):
            assert len(seen) == len(value)
            assert isinstance(seen, tuple)
        elif name in {"effective_config", "usage", "error"}:
            for inner, wanted in value.items():
                got = getattr(seen, inner)
                assert (list(got) if isinstance(wanted, list) else got) == wanted
    assert state.raw == body


def test_unknown_fields_survive_in_raw() -> None:
    _, state = exchange(narrative.fetch(RunRef(RUN), {}), run("completed", cost={"eur": 0.02}))

    assert state.raw["cost"] == {"eur": 0.02}
    assert Run.from_json(state.to_json()).raw == state.raw


@pytest.mark.parametrize(
    ("status", "changes", "path"),
    [
        ("running", {"id": None}, r"expected string, got null @ \$\.id"),
        ("running", {"conversation_id": 3}, r"expected string, got integer @ \$\.conversation_id"),
        ("running", {"started_at": "yesterday"}, r"expected date-time, got 'yesterday' @ \$\.started_at"),
        ("completed", {"completed_at": 5}, r"expected date-time, got integer @ \$\.completed_at"),
        ("completed", {"final_text": 5}, r"expected string, got integer @ \$\.final_text"),
        ("failed", {"error": {"type": 7}}, r"expected string, got integer @ \$\.error\.type"),
        ("requires_action", {"pending_tool_calls": "abc"}, r"expected array, got string @ \$\.pending_tool_calls"),
        (
            "requires_action",
            {"pending_tool_calls": [{"tool_use_id": "a", "name": "b", "arguments": "x"}]},
            r"expected object, got string @ \$\.pending_tool_calls\[0\]\.arguments",
        ),
    ],
)
def test_what_a_state_needs_names_its_path_where_it_does_not_fit(
    status: str, changes: dict[str, Any], path: str
) -> None:
    with pytest.raises(ProtocolError, match=path) as caught:
        exchange(narrative.fetch(RunRef(RUN), {}), run(status, **changes))

    assert caught.value.response is not None
    assert json.loads(caught.value.response.body)["status"] == status


@pytest.mark.parametrize("field", ["id", "conversation_id", "status", "started_at"])
def test_a_missing_field_that_a_state_needs_names_the_path(field: str) -> None:
    body = run_body()
    del body[field]
    with pytest.raises(ProtocolError, match=rf"required field missing @ \$\.{field}"):
        exchange(narrative.fetch(RunRef(RUN), {}), Answer(body))


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"company_id": "77"}, r"expected integer, got string @ \$\.company_id"),
        ({"company_id": True}, r"expected integer, got boolean @ \$\.company_id"),
        ({"submitted_inference_job_ids": "abc"}, r"expected array, got string @ \$\.submitted_inference_job_ids"),
        ({"effective_config": []}, r"expected object, got array @ \$\.effective_config"),
        ({"usage": {"prompt_tokens": "many"}}, r"expected integer, got string @ \$\.usage\.prompt_tokens"),
    ],
)
def test_what_a_state_does_not_need_is_an_error_of_its_detail_alone(changes: dict[str, Any], path: str) -> None:
    _, state = exchange(narrative.fetch(RunRef(RUN), {}), run("completed", **changes))

    assert (state.status, state.output) == (RunStatus.COMPLETED, "Done.")
    with pytest.raises(ProtocolError, match=path):
        _ = state.detail
    assert state.raw.items() >= changes.items()


def test_a_run_that_has_just_begun_may_have_no_more_than_the_table_of_its_page_says() -> None:  # A4
    table = ("id", "conversation_id", "client_op_id", "effective_config", "started_at", "status")
    body = {name: value for name, value in run_body("pending").items() if name in table}

    _, state = exchange(narrative.start(narrative.UserMessage(CONVERSATION, "Hi", expected_version=0)), Answer(body))

    assert (state.status, state.actions, state.usage) == (RunStatus.PENDING, (), None)
    assert state.progress == Progress(0, 6)
    assert (state.detail.company_id, state.detail.pending_tool_calls) == (None, ())


@pytest.mark.parametrize("word", ["pending", "running", "requires_action", "failed", "meditating"])
def test_only_a_completed_run_has_an_output(word: str) -> None:  # A5
    _, state = exchange(narrative.fetch(RunRef(RUN), {}), run(word, final_text="Half an ans"))

    assert state.output is None
    assert state.detail.final_text == "Half an ans"


@pytest.mark.parametrize(
    ("usage", "seen"),
    [
        (None, None),
        ("many", None),
        ({}, Usage(None, None)),
        ({"prompt_tokens": None, "completion_tokens": 7.0}, Usage(None, 7)),
        ({"prompt_tokens": "5", "completion_tokens": True}, Usage(None, None)),
        ({"prompt_tokens": -1, "completion_tokens": 2.5}, Usage(None, None)),
    ],
)
def test_a_count_that_is_not_known_is_none(usage: Any, seen: Usage | None) -> None:  # A8
    assert exchange(narrative.fetch(RunRef(RUN), {}), run("completed", usage=usage))[1].usage == seen


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"submitted_inference_job_ids": 3}, None),
        ({"effective_config": None}, Progress(1)),
        ({"effective_config": {"max_iterations": "6"}}, Progress(1)),
        ({"effective_config": {"max_iterations": 6.0}}, Progress(1, 6)),
    ],
)
def test_progress_is_none_where_it_cannot_be_read(changes: dict[str, Any], seen: Progress | None) -> None:
    assert exchange(narrative.fetch(RunRef(RUN), {}), run("running", **changes))[1].progress == seen


@pytest.mark.parametrize("call", [{"arguments": None}, {}])
def test_a_call_without_arguments_has_none(call: dict[str, Any]) -> None:
    state = paused(pending_tool_calls=[{"tool_use_id": "a", "name": "b", **call}])

    assert state.actions == (Action("a", "b", {}),)


# Resuming -------------------------------------------------------------------------------------------------------------


def test_a_resume_is_a_new_run_with_an_id_that_derives_from_the_paused_one() -> None:
    state = paused()
    asked, resumed = exchange(
        narrative.resume(state, outputs_for(state, {"approved": True})), conversation(2), run("pending", id=NEXT_RUN)
    )
    again, _ = exchange(narrative.resume(state, outputs_for(state, "other")), conversation(2), run("pending"))

    assert asked[1].json["payload"] == {
        "kind": "tool_outputs",
        "outputs": [
            {
                "tool_use_id": CALL["tool_use_id"],
                "content_blocks": [{"type": "text", "text": '{"approved":true}'}],
                "is_error": False,
            }
        ],
    }
    assert asked[1].json["expected_version"] == 2
    assert "config_override" not in asked[1].json
    assert "tool_choice" not in asked[1].json
    assert asked[1].json["client_op_id"] == again[1].json["client_op_id"]
    assert resumed.id == NEXT_RUN


def test_two_pauses_never_share_an_id() -> None:
    ids = set()
    for name in (RUN, NEXT_RUN):
        state = paused(id=name)
        asked, _ = exchange(narrative.resume(state, outputs_for(state)), conversation(2), run("pending"))
        ids.add(asked[1].json["client_op_id"])

    assert len(ids) == 2


def test_what_the_paused_run_had_overridden_stays_overridden() -> None:
    state = paused(effective_config={"model": "anthropic.claude-haiku-4.5", "max_iterations": 6, "temperature": None})
    asked, _ = exchange(narrative.resume(state, outputs_for(state)), conversation(2), run("pending"))

    assert asked[1].json["config_override"] == {"model": "anthropic.claude-haiku-4.5"}


def answer_posts(flow: Flow[Run[narrative.NarrativeRun]], *answers: Answer) -> tuple[list[Any], Run]:
    """Drive an answer that looks at the conversation before each post: the posts, and what it ended in."""
    heads = [[] if b'"messages"' in answer.body else [conversation(2)] for answer in answers]
    asked, state = exchange(
        flow, *(each for head, answer in zip(heads, answers, strict=True) for each in (*head, answer))
    )
    return [request.json for request in asked if request.method == "POST"], state


def kept(outputs: Sequence[ToolOutput]) -> Answer:
    """Return the log of a conversation that has taken those answers."""
    results = [
        {
            "type": "tool_result",
            "tool_use_id": each.action.id,
            "is_error": each.is_error,
            "content_blocks": [{"type": "text", "text": json.dumps(each.output)}],
        }
        for each in outputs
    ]
    return Answer({
        "current_version": 3,
        "messages": [{"id": "m", "sequence_no": 3, "role": "user", "content_blocks": results}],
    })


def failed(kind: str, status: int = 200, **changes: Any) -> Answer:
    return Answer(run_body("failed", error={"type": kind, "message": "no"}, **changes), status=status)


@pytest.mark.parametrize("kind", sorted(narrative.RETRYABLE))
def test_an_answer_that_failed_for_a_retryable_reason_is_stepped_over_with_the_same_outputs(kind: str) -> None:  # A1
    state = paused()
    going_on = begun(id=NEXT_RUN)

    posts, resumed = answer_posts(narrative.resume(state, outputs_for(state)), failed(kind), failed(kind), going_on)
    again, _ = answer_posts(narrative.resume(state, outputs_for(state)), failed(kind), failed(kind), going_on)

    assert (resumed.id, resumed.status) == (NEXT_RUN, RunStatus.PENDING)
    assert len({post["client_op_id"] for post in posts}) == 3
    assert len({json.dumps(post["payload"]) for post in posts}) == 1
    assert posts == again  # another process takes the same steps: one run between the two


@pytest.mark.parametrize("kind", ["AgentLoopMaxIterationsExceeded", "ToolValidation", "NewWord"])
def test_an_answer_that_failed_for_good_is_given_back_until_somebody_decides_otherwise(kind: str) -> None:  # A1
    state = paused()
    first, dead = answer_posts(narrative.resume(state, outputs_for(state)), failed(kind))
    posts, resumed = answer_posts(
        narrative.resume_again(state, outputs_for(state)),
        failed(kind),
        begun(id=NEXT_RUN),
    )

    assert (dead.status, len(first)) == (RunStatus.FAILED, 1)
    assert resumed.id == NEXT_RUN
    assert posts[0] == first[0]
    assert posts[1]["client_op_id"] != posts[0]["client_op_id"]


def test_an_attempt_that_has_just_failed_is_not_followed_by_another_at_once() -> None:
    state = paused()
    posts, resumed = answer_posts(
        narrative.resume(state, outputs_for(state)), failed("JobFailed"), failed("JobFailed", 202, id=NEXT_RUN)
    )

    assert (len(posts), resumed.id) == (2, NEXT_RUN)


@pytest.mark.parametrize("word", ["pending", "running", "requires_action", "completed"])
def test_an_answer_that_has_not_failed_stands(word: str) -> None:
    state = paused()
    outputs = outputs_for(state)
    posts, resumed = answer_posts(narrative.resume_again(state, outputs), run(word, id=NEXT_RUN), kept(outputs))

    assert (len(posts), resumed.id) == (1, NEXT_RUN)


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({}, {"config_override": {"max_iterations": 9}}),
        ({"config_override": None}, {}),
        ({"config_override": {"max_tokens": 5}}, {"config_override": {"max_tokens": 5}}),
        (
            {"tool_choice": narrative.ANY_TOOL},
            {"tool_choice": {"kind": "any"}, "config_override": {"max_iterations": 9}},
        ),
        (
            {"tool_choice": narrative.SAME, "config_override": narrative.SAME},
            {"tool_choice": {"kind": "specific_tool", "name": "a"}, "config_override": {"max_iterations": 9}},
        ),
    ],
)
@pytest.mark.parametrize("how", ["call", "variant"])
def test_an_answer_carries_a_choice_and_an_override_or_not_as_asked(  # A6
    options: dict[str, Any], sent: dict[str, Any], how: str
) -> None:
    state = paused(
        tool_choice={"kind": "specific_tool", "name": "a"},
        effective_config={"model": "anthropic.claude-opus-4.6", "max_iterations": 9},
    )
    other: Any = narrative.variant(**options)
    flow = (
        narrative.resume(state, outputs_for(state), **options)
        if how == "call"
        else other.resume(state, outputs_for(state))
    )
    posts, _ = answer_posts(flow, run("pending"))

    assert {name: posts[0][name] for name in ("tool_choice", "config_override") if name in posts[0]} == sent


# What no page says ----------------------------------------------------------------------------------------------------


def as_result(output: ToolOutput) -> dict[str, Any]:
    return {"tool_use_id": output.action.id, "result": output.output}


def test_a_variant_sends_another_reading_of_a_guess_and_is_the_dialect_in_all_else() -> None:  # B1
    variant: Any = pickle.loads(pickle.dumps(narrative.variant(tool_output=as_result)))
    state = paused()
    posts, _ = answer_posts(variant.resume(state, outputs_for(state, {"approved": True})), run("pending"))

    assert posts[0]["payload"]["outputs"] == [{"tool_use_id": CALL["tool_use_id"], "result": {"approved": True}}]
    assert repr(variant).startswith("narrative.variant(tool_output=as_result")
    assert isinstance(variant, Resumes)
    assert isinstance(variant, ResumesAgain)
    assert not isinstance(variant, Cancels)
    assert {name for name in narrative.__all__ if getattr(variant, name) is not getattr(narrative, name)} == {
        "STATUS",
        "answered_by",
        "fetch",
        "parse_run",
        "resume",
        "resume_again",
        "resume_first",
        "start",
    }


def test_two_variants_with_the_same_answer_start_one_run_between_them() -> None:
    state = paused()
    variant: Any = narrative.variant(tool_output=as_result)
    ours, _ = answer_posts(narrative.resume(state, outputs_for(state)), run("pending"))
    theirs, _ = answer_posts(variant.resume(state, outputs_for(state)), run("pending"))

    assert ours[0]["client_op_id"] == theirs[0]["client_op_id"]


def test_a_word_that_no_page_has_may_be_told_to_the_dialect() -> None:
    variant: Any = pickle.loads(pickle.dumps(narrative.variant(status={"expired": "failed", "queued": "pending"})))
    seen = [
        exchange(variant.fetch(RunRef(RUN), {}), run(word))[1] for word in ("expired", "queued", "completed", "new")
    ]

    assert [each.status.value for each in seen] == ["failed", "pending", "completed", "running"]
    assert seen[0].failure == Failure("expired")
    assert variant.parse_run is not narrative.parse_run


def test_a_failure_that_no_page_has_may_be_called_retryable() -> None:
    state = paused()
    variant: Any = narrative.variant(retryable={"QuotaGlitch"})
    posts, resumed = answer_posts(
        variant.resume(state, outputs_for(state)), failed("QuotaGlitch"), Answer(run_body("pending", id=NEXT_RUN), 202)
    )
    only, _ = answer_posts(variant.resume(state, outputs_for(state)), failed("JobFailed"))

    assert (len(posts), resumed.id, len(only)) == (2, NEXT_RUN, 1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"retryable": "JobFailed"}, "retryable is 'JobFailed'"),
        ({"status": {"expired": "gone"}}, "status is"),
        ({"tool_output": "result"}, "tool_output is 'result'"),
        ({"tool_choice": 3}, "tool_choice is 3"),
        ({"config_override": 3}, "config_override is 3"),
        ({"config_override": {"system_prompt": "x"}}, "system_prompt"),
    ],
)
def test_a_variant_of_what_cannot_be_sent_is_refused_when_it_is_made(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        narrative.variant(**options)


@pytest.mark.parametrize("gave", [None, "text", [1], {"x": object()}])
def test_a_reading_that_gives_no_json_object_is_refused_before_any_request(gave: Any) -> None:
    state = paused()
    variant: Any = narrative.variant(tool_output=lambda output: gave)
    with pytest.raises(ConfigurationError, match="tool_output"):
        next(variant.resume(state, outputs_for(state)))


@pytest.mark.virtual
@pytest.mark.asyncio
async def test_a_refusal_of_a_guessed_answer_says_so_shows_what_was_sent_and_names_the_switch() -> None:  # B2
    state = paused()
    unknown = Answer({"type": "about:blank", "detail": "outputs[0]: unknown field content_blocks"}, 400)
    wire = Wire({HEAD: conversation(2), START: unknown})
    async with client_of(wire) as client:
        with pytest.raises(InvalidRequestError) as caught:
            await client.resume(state, outputs_for(state, "a secret of some length, " * 9))

    text = str(pickle.loads(pickle.dumps(caught.value)))
    assert "unknown field content_blocks" in text
    assert "its shape is a guess" in text
    assert '"content_blocks":[{"type":"text","text":"a secret of some length, a secret of som..."}]' in text
    assert "`narrative.variant(tool_output=...)` sends it" in text


@pytest.mark.virtual
@pytest.mark.asyncio
async def test_a_refusal_that_has_its_own_page_says_nothing_of_guesses() -> None:
    state = paused()
    wire = Wire({HEAD: conversation(2), START: problem(400, "incomplete-tool-outputs", "missing: x")})
    async with client_of(wire) as client:
        with pytest.raises(InvalidRequestError) as caught:
            await client.resume(state, outputs_for(state))

    assert "guess" not in str(caught.value)


def test_a_run_that_failed_over_its_payload_names_the_switch() -> None:
    _, state = exchange(narrative.fetch(RunRef(RUN), {}), failed("AgentLoopInvalidRequestPayload"))

    assert state.failure is not None
    assert "narrative.variant(tool_output=...)" in state.failure.message
    assert "again=True" in state.failure.message


@pytest.mark.virtual
@pytest.mark.asyncio
async def test_a_person_may_have_a_failed_answer_tried_again() -> None:  # A1
    state = paused()
    answers = [
        failed("ToolValidation", 202),
        failed("ToolValidation"),
        begun(id=NEXT_RUN),
    ]
    wire = Wire({HEAD: conversation(2), START: answers})
    async with client_of(wire) as client:
        dead = await client.resume(state, outputs_for(state))
        living = await client.resume(state, outputs_for(state), again=True)

    assert (dead.status, living.id) == (RunStatus.FAILED, NEXT_RUN)


@pytest.mark.parametrize("answers", [0, 2])
def test_every_action_is_answered_exactly_once(answers: int) -> None:
    state = paused()
    with pytest.raises(ConfigurationError, match="exactly one answer"):
        next(narrative.resume(state, outputs_for(state) * answers))


def test_a_name_matches_whole_or_by_the_part_after_its_first_dash() -> None:
    assert narrative.handler_names(Action("1", "user-confirm-booking")) == ("user-confirm-booking", "confirm-booking")
    assert narrative.handler_names(Action("1", "confirm_booking")) == ("confirm_booking",)


# Conversations --------------------------------------------------------------------------------------------------------


def config(**changes: Any) -> narrative.Config:
    fields: dict[str, Any] = {
        "model": "anthropic.claude-opus-4.6",
        "data_plane_id": "0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        "max_iterations": 6,
        "max_tokens": 1500,
        "output_format_schema": narrative.TEXT_SCHEMA,
    }
    return narrative.Config(**(fields | changes))


def handlers() -> Tools:
    tools = Tools()

    @tools.add
    def approve_invoice(invoice_no: str, amount_eur: float) -> bool:
        """Ask a human operator to approve one invoice."""
        return True

    return tools


def test_a_conversation_declares_tools_as_revision_a_has_them() -> None:
    declared = config(client_tools=[narrative.client_tools(handlers(), alias="ops")])
    asked, created = exchange(
        narrative.create_conversation(declared, name="invoices", system_prompt="Sort invoices."), conversation()
    )

    assert asked[0].json == {
        "name": "invoices",
        "system_prompt": "Sort invoices.",
        "defaults": {
            "model": "anthropic.claude-opus-4.6",
            "data_plane_id": "0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
            "execution_cluster": "shared",
            "max_iterations": 6,
            "max_tokens": 1500,
            "temperature": 0.0,
            "output_format_schema": narrative.TEXT_SCHEMA,
            "mcp_servers": [],
            "client_tools": [
                {
                    "alias": "ops",
                    "tools": [
                        {
                            "name": "approve_invoice",
                            "description": "Ask a human operator to approve one invoice.",
                            "input_schema": {
                                "type": "object",
                                "properties": {"invoice_no": {"type": "string"}, "amount_eur": {"type": "number"}},
                                "required": ["invoice_no", "amount_eur"],
                                "additionalProperties": False,
                            },
                            "strict": True,
                        }
                    ],
                }
            ],
        },
    }
    assert created.version == 0
    assert created.created_at == datetime(2026, 6, 2, 8, 15, 4, 120331, UTC)


def test_a_conversation_declares_tools_as_revision_b_has_them() -> None:
    asked, _ = exchange(narrative.create_conversation(config(tools=narrative.flat_tools(handlers()))), conversation())
    defaults = asked[0].json["defaults"]

    assert [tool["name"] for tool in defaults["tools"]] == ["approve_invoice"]
    assert "strict" not in defaults["tools"][0]
    assert "client_tools" not in defaults
    assert "name" not in asked[0].json


def test_a_configuration_that_json_cannot_carry_is_refused_before_any_request() -> None:
    with pytest.raises(ConfigurationError, match="Config is not something that JSON can carry"):
        next(narrative.create_conversation(config(temperature=float("nan"))))


def test_a_schema_keeps_its_nulls() -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string", "default": None}}}
    asked, _ = exchange(narrative.create_conversation(config(output_format_schema=schema)), conversation())

    assert asked[0].json["defaults"]["output_format_schema"] == schema


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: config(model=""), "Config.model"),
        (lambda: config(max_iterations=0), "Config.max_iterations"),
        (lambda: config(max_tokens=1.5), "Config.max_tokens"),
        (lambda: config(client_tools=[], tools=[]), "both client_tools .* and tools"),
        (lambda: narrative.client_tools(handlers(), alias="operations"), "alias is 'operations'"),
        (lambda: narrative.client_tools(handlers(), alias="1st"), "alias is '1st'"),
        (lambda: narrative.McpServer("docs", ""), "McpServer.url"),
        (lambda: narrative.client_tools({"x" * 62: print_it}, alias="a1"), "exceed 64 characters"),
        (lambda: narrative.flat_tools({"with-dash": print_it}), "with-dash"),
        (
            lambda: config(
                mcp_servers=[narrative.McpServer("docs", "https://x.test")],
                client_tools=[narrative.client_tools(handlers(), alias="docs")],
            ),
            "alias twice .*: docs",
        ),
    ],
)
def test_a_declaration_that_the_vendor_would_refuse_is_refused_here(make: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        make()


def print_it(text: str) -> None:
    """Print a text."""


@pytest.mark.parametrize("echoed", [None, []])
def test_a_conversation_that_was_made_without_its_tools_says_so(echoed: Any, caplog: pytest.LogCaptureFixture) -> None:
    declared = config(client_tools=[narrative.client_tools(handlers(), alias="ops")])
    defaults = {"model": "m", "data_plane_id": "d", "execution_cluster": "shared", "max_iterations": 6}
    rest = {"max_tokens": 1500, "temperature": 0, "output_format_schema": {"type": "object"}, "tools": []}
    answer = conversation(defaults=defaults | rest | ({} if echoed is None else {"client_tools": echoed}))

    _, created = exchange(narrative.create_conversation(declared), answer)

    assert created.dropped == ("client_tools",)
    assert "was created without client_tools" in caplog.text


def test_who_we_are_is_read_in_either_of_its_forms() -> None:
    nested = exchange(narrative.whoami(), Answer({"user_id": 7, "current_company_scope": {"company_id": 3}}))
    flat = exchange(narrative.whoami(), Answer({"id": 7, "company_id": 3}))

    assert [request.line for request in nested[0]] == ["GET /whoami"]
    assert nested[1] == flat[1] == narrative.Identity(7, 3)
    assert exchange(narrative.whoami(), Answer({}))[1] == narrative.Identity()


def test_a_conversation_or_message_that_does_not_fit_is_skipped_and_no_other() -> None:
    first, last = (json.loads(conversation(name=name).body) for name in ("first", "last"))
    page = Answer({"records": [first, {"id": 3}, last], "total_records": "2"})
    seen = exchange(narrative.list_conversations(), page)[1]
    message = {"id": "m", "sequence_no": 1, "content_blocks": [{"type": "hologram", "depth": 3}]}
    log = Answer({"current_version": 2.0, "messages": [message, "junk"]})

    assert [each.name for each in seen.items] == ["first", "last"]
    assert seen.total_records is None
    assert [each.content_blocks[0].type for each in exchange(narrative.list_messages("c"), log)[1].items] == [
        "hologram"
    ]


def test_conversations_are_read_and_listed() -> None:
    asked, seen = exchange(narrative.get_conversation(CONVERSATION), conversation(4))
    assert (asked[0].line, seen.version, seen.defaults.max_iterations) == (HEAD, 4, 6)

    page = {
        "prev_page": None,
        "current_page": 2,
        "next_page": 3,
        "total_records": 120,
        "total_pages": 3,
        "records": [json.loads(conversation().body)],
    }
    asked, listed = exchange(narrative.list_conversations(page=2), Answer(page))
    assert asked[0].params == {"page": "2", "per_page": "50"}
    assert (listed.items[0].id, listed.next_page, listed.total_records) == (CONVERSATION, 3, 120)

    _, empty = exchange(narrative.list_conversations(), Answer({"records": []}))
    assert empty.items == ()


def test_messages_are_read_from_a_version_on() -> None:
    blocks: list[dict[str, Any]] = [
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "tool_use_id": "t1", "name": "ops-approve", "arguments": {"a": 1}},
        {
            "type": "tool_result",
            "tool_use_id": "t1",
            "is_error": False,
            "content_blocks": [{"type": "text", "text": "yes"}],
        },
        {"type": "hologram"},
    ]
    message = {
        "id": "10a5c7e2-8d34-4f60-b9e1-6c2d0f8a7b31",
        "sequence_no": 3,
        "role": "assistant",
        "run_id": RUN,
        "created_at": "2026-06-02T08:15:15Z",
        "content_blocks": blocks,
    }
    asked, page = exchange(
        narrative.list_messages(CONVERSATION, since=2), Answer({"current_version": 4, "messages": [message]})
    )

    assert asked[0].params == {"since": "2"}
    assert page.current_version == 4
    assert [block.type for block in page.items[0].content_blocks] == ["text", "tool_use", "tool_result", "hologram"]
    assert page.items[0].content_blocks[2].content_blocks[0].text == "yes"


@pytest.mark.parametrize("bad", ["", ".", ".."])
def test_an_id_that_would_climb_out_of_its_path_is_refused(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="path"):
        next(narrative.get_conversation(bad))


def test_an_id_is_one_segment_of_the_path() -> None:
    request = next(narrative.get_conversation("../a b?c=%2f"))

    assert isinstance(request, Request)
    assert request.path == "/agents/conversations/..%2Fa%20b%3Fc%3D%252f"


# Errors ---------------------------------------------------------------------------------------------------------------


SLUGS: Sequence[tuple[int, str, type[APIError]]] = [
    *[
        (400, slug, InvalidRequestError)
        for slug in (
            "invalid-tool-alias",
            "duplicate-tool-alias",
            "tool-name-too-long",
            "invalid-caller-tool-name",
            "duplicate-caller-tool-name",
            "unknown-tool-choice-mcp-alias",
            "unknown-tool-choice-name",
            "mcp-discovery-failed",
            "no-assistant-turn",
            "unknown-tool-use-id",
            "not-a-client-tool-call",
            "incomplete-tool-outputs",
        )
    ],
    (404, "conversation-not-found", NotFoundError),
    (404, "agent-run-not-found", NotFoundError),
    (409, "version-conflict", ConflictError),
    (500, "workflow-start-failed", ServerError),
    (500, "invalid-stored-field", ServerError),
]


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(("status", "slug", "kind"), SLUGS)
async def test_every_documented_error_has_its_class_code_title_page_and_log_id(
    status: int, slug: str, kind: type[APIError]
) -> None:
    async with client_of(Wire({HEAD: conversation(), START: problem(status, slug, "what is wrong")})) as client:
        with pytest.raises(kind) as caught:
            await client.start(narrative.UserMessage(CONVERSATION, "Hello"))

    error = caught.value
    page = f"https://docs.narrative.io/reference/architecture/agent-conversations/errors/{slug}"
    assert (error.status, error.code, error.message, error.docs_url) == (status, slug, "what is wrong", page)
    assert error.title == slug.replace("-", " ").title()
    assert error.request_id == "f2c41d7b-63a8-4e95-8b0d-5a9e7c1f2d38"
    assert error.detail["instance"] == "/agents"
    assert all(part in str(error) for part in (slug, page, "what is wrong", str(error.request_id), START))


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("body", "message", "code", "log_id"),
    [
        (
            {"error": "invalid_token", "error_description": "Expired.", "logId": "abc"},
            "Expired.",
            "invalid_token",
            "abc",
        ),
        ({"title": "Forbidden", "type": None}, "Forbidden", None, None),
        ({"title": "Forbidden", "type": "about:blank"}, "Forbidden", None, None),
        ([1], "[1]", None, None),
        (b"<html>no</html>", "<html>no</html>", None, None),
        (b"", "", None, None),
    ],
)
async def test_other_error_bodies_are_understood(body: Any, message: str, code: str | None, log_id: str | None) -> None:
    async with client_of(Wire({HEAD: Answer(body, 403)})) as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.perform(narrative.get_conversation(CONVERSATION))

    error = caught.value
    assert (error.message, error.code, error.request_id) == (message, code, log_id)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_version_conflict_tells_both_versions_and_is_not_looked_at_again() -> None:
    detail = "conversation version mismatch: expected 0, current 2"
    wire = Wire({HEAD: conversation(), START: problem(409, "version-conflict", detail)})
    async with client_of(wire) as client:
        with pytest.raises(ConflictError, match="expected 0, current 2"):
            await client.start(narrative.UserMessage(CONVERSATION, "Hello"))

    assert len(wire.asked) == 2


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_second_look_is_taken_where_it_is_asked_for_and_keeps_the_intent() -> None:
    conflict = problem(409, "version-conflict", "conversation version mismatch: expected 0, current 2")
    wire = Wire({HEAD: [conversation(0), conversation(2)], START: [conflict, run("pending")]})
    async with client_of(wire, retry=Retry(backoff=STEADY, conflicts=1)) as client:
        await client.start(narrative.UserMessage(CONVERSATION, "Hello"))

    posted = wire.bodies(START)
    assert [body["expected_version"] for body in posted] == [0, 2]
    assert len({body["client_op_id"] for body in posted}) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_lost_start_is_posted_again_with_the_same_id() -> None:
    wire = Wire({HEAD: conversation(), START: [Lost(), Answer({}, 500), Lost("refused", sent=False), run("running")]})
    async with client_of(wire) as client:
        state = await client.start(narrative.UserMessage(CONVERSATION, "Hello"))

    assert state.status is RunStatus.RUNNING
    assert len(wire.bodies(START)) == 4
    assert len({body["client_op_id"] for body in wire.bodies(START)}) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_what_narrative_cannot_do_is_refused_before_any_request() -> None:
    wire = Wire({})
    async with client_of(wire) as client:
        with pytest.raises(UnsupportedError, match="cancel"):
            await client.cancel(RunRef(RUN))
        with pytest.raises(UnsupportedError, match="list"):
            client.runs()

    assert wire.asked == []


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("state", "outputs", "text"),
    [
        ("running", [], "only one that requires action"),
        ("requires_action", [ToolOutput(Action("gone", "x"), 1)], "does not wait for gone"),
        ("requires_action", [], "missing: tooluse_"),
        ("requires_action", [ToolOutput(Action(CALL["tool_use_id"], "x"), {1j})], "JSON"),  # type: ignore[arg-type]
        ("requires_action", [ToolOutput(Action(CALL["tool_use_id"], "x"), float("inf"))], "JSON"),  # type: ignore[arg-type]
    ],
)
async def test_an_answer_that_cannot_be_sent_is_refused_before_any_request(
    state: str, outputs: list[ToolOutput], text: str
) -> None:
    wire = Wire({POLL: run(state)})
    async with client_of(wire) as client:
        seen = await client.fetch(RunRef(RUN))
        with pytest.raises(ConfigurationError, match=text):
            await client.resume(seen, outputs)

    assert len(wire.asked) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_run_parked_as_json_is_answered_by_another_client() -> None:
    parked = paused().to_json()
    wire = Wire({HEAD: conversation(2), START: Answer(run_body("completed", id=NEXT_RUN), status=202)})
    async with client_of(wire) as client:
        state = Run.from_json(parked)
        assert state.detail.started_at.year == 2026
        resumed = await client.resume(state, outputs_for(state))

    assert resumed.status is RunStatus.COMPLETED


vendor: Any = narrative  # which is given what its types forbid
TOOL = narrative.Tool("book", "", {"type": "object"})


# A message of other types ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "begin", "remedy"),
    [
        ({"tool_choice": "auto"}, "UserMessage.tool_choice is 'auto'; ", "narrative.AUTO"),
        ({"tool_choice": 3}, "UserMessage.tool_choice is 3; ", "narrative.specific_tool(name)"),
        ({"tool_choice": narrative.ToolChoice}, "UserMessage.tool_choice is <class", "narrative.AUTO"),
        ({"config_override": 3}, "UserMessage.config_override is 3; ", "must be a mapping, such as a dict"),
        ({"config_override": "model"}, "UserMessage.config_override is 'model'; ", "must be a mapping"),
        ({"config_override": {3: 1, "x": 2}}, "config_override has 3, x", "it may have model"),
        (
            {"text": f"cut {HALF}"},
            "UserMessage.text is a text that UTF-8 cannot carry: it has '\\ud83d' at 4, ",
            "errors='replace'",
        ),
        (
            {"conversation_id": HALF},
            "UserMessage.conversation_id is a text that UTF-8 cannot carry: it has '\\ud83d' at 0, ",
            "errors='replace'",
        ),
    ],
)
def test_a_message_is_refused_when_it_is_made(fields: dict[str, Any], begin: str, remedy: str) -> None:
    with refuses(begin, remedy):
        narrative.UserMessage(**({"conversation_id": CONVERSATION, "text": "Hello"} | fields))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"config_override": {"temperature": object()}}, "UserMessage.config_override"),
        ({"config_override": {"model": HALF}}, "UserMessage.config_override"),
        ({"tool_choice": {"kind": "specific_tool", "name": object()}}, "UserMessage.tool_choice"),
        ({"tool_choice": {"kind": HALF}}, "UserMessage.tool_choice"),
    ],
)
@pytest.mark.virtual
@pytest.mark.asyncio
async def test_a_message_that_json_cannot_carry_is_refused_before_any_request(
    fields: Mapping[str, Any], named: str
) -> None:
    wire = Wire({HEAD: conversation(), START: run("pending")})
    async with client_of(wire) as client:
        with refuses(f"{named} is not something that JSON can carry", "Use dicts, lists"):
            await client.start(narrative.UserMessage(CONVERSATION, "Hello", **fields))

    assert wire.asked == []


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (narrative.AUTO, {"kind": "auto"}),
        (narrative.specific_tool("book"), {"kind": "specific_tool", "name": "book"}),
        ({"kind": "specific_tool", "name": "book"}, {"kind": "specific_tool", "name": "book"}),
    ],
)
@pytest.mark.virtual
@pytest.mark.asyncio
async def test_a_choice_is_sent_in_either_of_its_forms(choice: Any, sent: Any) -> None:
    wire = Wire({HEAD: conversation(), START: run("pending")})
    async with client_of(wire) as client:
        await client.start(narrative.UserMessage(CONVERSATION, "Hello", tool_choice=choice))

    assert wire.asked[-1][1].json["tool_choice"] == sent


@pytest.mark.parametrize("name", [3, "", b"x"])
def test_a_tool_is_chosen_by_a_name(name: Any) -> None:
    with refuses(f"ToolChoice.name is {name!r}; ", "must be a text"):
        narrative.specific_tool(name)


# A conversation of other types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [3, "x", b"x", True, {"alias": "u"}, frozenset([3]), iter([])])
@pytest.mark.parametrize("name", ["client_tools", "tools", "mcp_servers"])
def test_what_is_no_list_of_tools_is_refused(name: str, value: Any) -> None:
    with refuses(f"Config.{name} is {value!r}; it must be a list of", "narrative."):
        config(**{name: value})


@pytest.mark.parametrize("value", [3, None, "x", {"alias": "u", "tools": []}, narrative.Config])
@pytest.mark.parametrize("name", ["client_tools", "tools", "mcp_servers"])
def test_a_list_of_something_else_is_refused_with_the_place(name: str, value: Any) -> None:
    fitting = {
        "client_tools": narrative.ClientTools("user", [TOOL]),
        "tools": TOOL,
        "mcp_servers": narrative.McpServer("docs", "https://docs.test"),
    }[name]
    config(**{name: [fitting]})
    with refuses(f"Config.{name}[1] is {value!r}; it must be of the class {type(fitting).__name__}", "narrative."):
        config(**{name: [fitting, value]})


@pytest.mark.parametrize(
    ("make", "begin"),
    [
        (lambda: config(output_format_schema=3), "Config.output_format_schema is 3"),
        (lambda: config(output_format_schema=None), "Config.output_format_schema is None"),
        (lambda: config(execution_cluster=3), "Config.execution_cluster is 3"),
        (lambda: config(compute_pool_id=3), "Config.compute_pool_id is 3"),
        (lambda: vendor.ClientTools("user", [3]), "ClientTools.tools[0] is 3"),
        (lambda: vendor.ClientTools("user", 3), "ClientTools.tools is 3"),
        (lambda: vendor.McpServer("docs", "https://docs.test", [3]), "McpServer.tools[0] is 3"),
        (lambda: vendor.McpServer("docs", "https://docs.test", None, 3), "McpServer.description is 3"),
        (lambda: vendor.Tool("book", 3, {}), "Tool.description is 3"),
        (lambda: vendor.Tool("book", "", 3), "Tool.input_schema is 3"),
    ],
)
def test_a_declaration_of_other_types_is_refused_when_it_is_made(make: Callable[[], object], begin: str) -> None:
    with refuses(begin, "it must be"):
        make()


@pytest.mark.parametrize(
    ("given", "begin", "remedy"),
    [
        ({"config": None}, "config is None; ", "narrative.Config("),
        ({"config": {"model": "m"}}, "config is {'model': 'm'}; ", "narrative.Config("),
        ({"name": 3}, "name is 3; ", "must be a text, or None"),
        ({"system_prompt": b"x"}, "system_prompt is b'x'; ", "must be a text, or None"),
        (
            {"system_prompt": HALF},
            "system_prompt is a text that UTF-8 cannot carry: it has '\\ud83d' at 0, ",
            "errors='replace'",
        ),
    ],
)
@pytest.mark.virtual
@pytest.mark.asyncio
async def test_a_conversation_is_refused_before_any_request(given: dict[str, Any], begin: str, remedy: str) -> None:
    wire = Wire({})
    async with client_of(wire) as client:
        with refuses(begin, remedy):
            await client.perform(narrative.create_conversation(**({"config": config()} | given)))

    assert wire.asked == []


# Declaring tools ------------------------------------------------------------------------------------------------------


def book(day: str) -> str:
    """Book a day."""
    return day


async def anything(action: Action) -> str:
    return action.name


def only_default() -> Tools:
    tools = Tools()
    tools.default(anything)
    return tools


@pytest.mark.parametrize("tools", [anything, only_default()])
def test_a_default_handler_alone_cannot_be_declared(tools: Any) -> None:
    with refuses("there is only a default handler", "`tools.add(function)`"):
        narrative.client_tools(tools, alias="user")
    with refuses("there is only a default handler", "`tools.add(function)`"):
        narrative.flat_tools(tools)


def test_a_default_handler_beside_others_is_no_hindrance_and_no_tools_are_none() -> None:
    both = only_default()
    both.add(book)

    assert [tool.name for tool in narrative.flat_tools(both)] == ["book"]
    assert [tool.name for tool in narrative.client_tools(both, alias="user").tools] == ["book"]
    assert narrative.flat_tools(Tools()) == ()


# Waiting --------------------------------------------------------------------------------------------------------------


async def poll_gaps(client: Client, wire: Wire, lasts: float) -> list[float]:
    """Follow a run that is over after so many seconds, and return the seconds between the looks at it."""
    over = asyncio.get_running_loop().time() + lasts
    wire.script[POLL] = [lambda _: run("running" if asyncio.get_running_loop().time() < over else "completed")]
    wire.asked.clear()
    await client.result(narrative.UserMessage(CONVERSATION, "Hi", expected_version=0))
    return [later - earlier for earlier, later in itertools.pairwise(wire.times(POLL))]


@pytest.mark.virtual
@pytest.mark.asyncio
async def test_a_run_is_looked_at_no_more_often_than_the_page_advises_until_its_like_are_known() -> None:
    wire = Wire({START: run("pending"), POLL: run("running")})
    async with Client(narrative, wire, retry=Retry()) as client:
        first = await poll_gaps(client, wire, 60.0)
        for number in range(30):
            await poll_gaps(client, wire, 1.0 + 0.2 * number)
        learned = await poll_gaps(client, wire, 6.0)

    assert all(2.0 <= gap <= 8.8 for gap in first)
    assert max(first) >= 7.0
    assert 7 <= len(first) <= 16
    assert min(learned) < 2.0


def test_a_message_to_a_conversation_that_was_just_created_does_not_read_its_version_again() -> None:
    created = narrative.Conversation(id="c1", version=3)
    message = narrative.UserMessage.of(created, "Hello.")
    assert (message.conversation_id, message.expected_version, message.text) == ("c1", 3, "Hello.")
    with pytest.raises(ConfigurationError, match="Conversation"):
        narrative.UserMessage.of("c1", "Hello.")  # type: ignore[arg-type]
