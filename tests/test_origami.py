"""Origami's rules, on scripted answers, and its law: whatever goes wrong, an intent starts one run at most."""

import asyncio
import itertools
import json
import pickle
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

import pytest
from attrs import evolve

from agentruns import (
    Action,
    AgentRunsError,
    AlreadyAnsweredError,
    APIError,
    AuthenticationError,
    Client,
    ConfigurationError,
    ConflictError,
    Failure,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    Progress,
    ProtocolError,
    QuotaError,
    RateLimitedError,
    Retry,
    Run,
    RunRef,
    RunStatus,
    ServerError,
    ToolOutput,
    TransportError,
)
from agentruns._keeping.journal import Journal
from agentruns._values.commands import AwaitSlot, Flow, SkippedRows
from agentruns._values.exchange import Request, Response
from agentruns.dialects import origami
from agentruns.dialects.protocol import Cancels, Dialect, Lists, Resumes
from tests.scripted_wire import NOTHING, STEADY, Answer, Lost, Scripted, Wire, client_of

T = TypeVar("T")
E = TypeVar("E", bound=Exception)
Script: TypeAlias = Mapping[str, Scripted | Iterable[Scripted]]
SAMPLES = Path(__file__).parent / "samples" / "origami"

AGENT = "7e1d0c52-4f3b-4a0e-9a6f-2d8c5b91e0a4"
RUN = "v2_run-01k1c7h4q9xw3m5t8r2zb6nfae"
NEXT_RUN = "v2_run-01k1c8b0d2ys7v4j6p9km3gtqh"
TABLE = "c4a9e2b7-61d8-4f05-8b3e-90f7ad1526ce"
KEY = "2f9b6e3c-7a14-4d85-a6c0-91e4d3b7f508"

CREATE = "POST /agents"
SEND = f"POST /agents/{AGENT}/runs"
POLL = f"GET /agents/{AGENT}/runs/{RUN}"
POLL_NEXT = f"GET /agents/{AGENT}/runs/{NEXT_RUN}"
LIST = f"GET /agents/{AGENT}/runs"
CANCEL = f"POST /agents/{AGENT}/cancel"
HEAD = f"GET /agents/{AGENT}"
RUNS = f"GET /agents/{AGENT}/runs"
AGENTS = "GET /agents"
REF = RunRef(RUN, AGENT)
REPLAY = {"idempotency-replay": "true"}


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def answer(name: str, http: int = 200, headers: Mapping[str, str] | None = None, **changes: Any) -> Answer:
    return Answer(sample(name) | changes, http, headers)


def admitted(name: str = "created", **headers: str) -> Answer:
    return answer(name, 202, headers)


def refused(status: int, code: str | None, headers: Mapping[str, str] | None = None, **fields: Any) -> Answer:
    return Answer({"error": "no", **({"code": code} if code else {}), **fields}, status, headers)


BUSY = answer("error-busy", 409)
SLOTS = answer("error-slots", 429, {"retry-after": "143"})
IN_FLIGHT = refused(409, "IDEMPOTENCY_ERROR")


def exchange(flow: Flow[T], *answers: Answer) -> tuple[list[Request], T]:
    """Drive a flow by hand: what it asked for, and what it returned."""
    asked: list[Request] = []
    assert isinstance(flow, Generator)
    wanted = next(flow)
    for each in answers:
        assert isinstance(wanted, Request)
        asked.append(wanted)
        try:
            wanted = flow.send(Response(each.status, each.headers, each.body, wanted))
            while isinstance(wanted, SkippedRows):
                wanted = flow.send(NOTHING)
        except StopIteration as end:
            return asked, end.value
    raise AssertionError(f"one more answer is needed, to {wanted}")


def fetched(name: str, **changes: Any) -> Run:
    _, run = exchange(origami.fetch(REF, {}), answer(name, **changes))
    return run


def prompt(**fields: Any) -> origami.Prompt:
    return origami.Prompt("Find vets.", **{"idempotency_key": KEY} | fields)


def follow_up(**fields: Any) -> origami.Prompt:
    return prompt(agent_id=AGENT, **fields)


def outputs_for(run: Run, *outputs: Any) -> list[ToolOutput]:
    return [ToolOutput(action, output) for action, output in zip(run.actions, outputs, strict=True)]


async def started(origin: origami.Prompt, script: Script) -> tuple[Wire, Run]:
    wire = Wire(script)
    async with client_of(wire, origami) as client:
        return wire, await client.start(origin)


async def refused_start(kind: type[E], origin: origami.Prompt, script: Script) -> tuple[Wire, E]:
    wire = Wire(script)
    async with client_of(wire, origami) as client:
        with pytest.raises(kind) as caught:
            await client.start(origin)
    return wire, caught.value


def keys(wire: Wire, line: str = CREATE) -> list[str]:
    return [request.headers["Idempotency-Key"] for _, request in wire.asked if request.line == line]


def test_the_module_is_a_dialect_that_resumes_cancels_and_lists() -> None:
    dialect: Dialect = origami

    assert (dialect.NAME, dialect.BASE_URL) == ("origami", "https://origami.chat/api/v2")
    assert (dialect.TOKEN_VARIABLE, dialect.BASE_URL_VARIABLE) == ("ORIGAMI_API_KEY", "ORIGAMI_BASE_URL")
    assert dialect.BUDGET is not None
    assert (dialect.BUDGET.count, dialect.BUDGET.seconds) == (90, 60.0)
    assert all(isinstance(dialect, capability) for capability in (Resumes, Cancels, Lists))


# What starts a run ----------------------------------------------------------------------------------------------------


def test_a_prompt_without_an_agent_creates_one() -> None:
    asked, run = exchange(
        origami.start(origami.Prompt(**sample("create-request"), idempotency_key=KEY)), admitted("created")
    )

    assert [request.line for request in asked] == [CREATE]
    assert asked[0].json == sample("create-request")
    assert asked[0].headers == {"Idempotency-Key": KEY}
    assert not asked[0].again_after_429
    assert (run.ref, run.status, run.vendor) == (REF, RunStatus.RUNNING, "origami")
    assert run.raw == sample("created")["run"]


def test_a_prompt_with_an_agent_is_the_next_turn_of_its_conversation() -> None:
    attachments = [origami.attached_document("d1"), origami.attached_table(TABLE)]
    origin = follow_up(model="origami-lite", focus_table_ids=[TABLE], attachments=attachments)
    asked, run = exchange(origami.start(origin), admitted("followed-up"))

    assert [request.line for request in asked] == [SEND]
    assert asked[0].json == {
        "prompt": "Find vets.",
        "model": "origami-lite",
        "focusTableIds": [TABLE],
        "attachments": [{"kind": "document", "documentId": "d1"}, {"kind": "table", "tableId": TABLE}],
    }
    assert run.ref == RunRef(NEXT_RUN, AGENT)


def test_every_prompt_is_an_intent_of_its_own() -> None:
    first, second = (origami.Prompt("Find vets.") for _ in range(2))

    assert first.idempotency_key != second.idempotency_key
    assert UUID(first.idempotency_key).version == 4


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"prompt": ""}, "Prompt.prompt"),
        ({"prompt": None}, "Prompt.prompt"),
        ({"prompt": "x" * 10_001}, "Prompt.prompt has 10001 characters"),
        ({"name": "x" * 81}, "Prompt.name has 81 characters"),
        ({"name": ""}, "Prompt.name"),
        ({"agent_id": ""}, "Prompt.agent_id"),
        ({"agent_id": AGENT, "name": "vets"}, "Prompt.name names a new agent"),
        ({"model": ""}, "Prompt.model"),
        ({"focus_table_ids": [TABLE] * 51}, "Prompt.focus_table_ids has 51 entries"),
        ({"focus_table_ids": TABLE}, "put it into one"),
        ({"attachments": [origami.attached_table(TABLE)] * 21}, "Prompt.attachments has 21 entries"),
        ({"attachments": origami.attached_table(TABLE)}, "put it into one"),
        ({"idempotency_key": ""}, "Prompt.idempotency_key"),
        ({"idempotency_key": "a b"}, "Prompt.idempotency_key"),
        ({"idempotency_key": "ü"}, "Prompt.idempotency_key"),
        ({"idempotency_key": "x" * 256}, "Prompt.idempotency_key"),
        ({"idempotency_key": 7}, "Prompt.idempotency_key"),
        ({"busy_wait": -1}, "Prompt.busy_wait"),
        ({"busy_wait": float("nan")}, "Prompt.busy_wait"),
    ],
)
def test_a_prompt_that_cannot_be_sent_is_refused_when_it_is_made(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        origami.Prompt(**{"prompt": "Find vets."} | wrong)


def test_a_prompt_at_its_limits_can_be_sent() -> None:
    origin = origami.Prompt(
        "x" * 10_000, name="n" * 80, focus_table_ids=[TABLE] * 50, attachments=[origami.attached_table(TABLE)] * 20
    )
    asked, _ = exchange(origami.start(origin), admitted())

    assert len(asked[0].json["focusTableIds"]) == 50


def test_an_attachment_that_json_cannot_carry_is_refused_before_any_request() -> None:
    with pytest.raises(ConfigurationError, match="Prompt"):
        next(origami.start(prompt(attachments=[{"kind": float("nan")}])))


# States ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "actions"),
    [
        ("running", RunStatus.RUNNING, []),
        ("completed", RunStatus.COMPLETED, []),
        ("needs-input", RunStatus.REQUIRES_ACTION, ["ask-questions", "ask-questions"]),
        ("incomplete", RunStatus.REQUIRES_ACTION, ["continue"]),
        ("step-cap-hit", RunStatus.REQUIRES_ACTION, ["continue"]),
        ("errored", RunStatus.FAILED, []),
        ("timed-out", RunStatus.FAILED, []),
        ("cancelled", RunStatus.FAILED, []),
    ],
)
def test_each_status_word_is_ours(name: str, status: RunStatus, actions: list[str]) -> None:
    run = fetched(name)

    assert (run.status, run.vendor_status) == (status, name.replace("-", "_"))
    assert [action.name for action in run.actions] == actions
    assert (run.failure is not None) == (status is RunStatus.FAILED)
    assert run.failure is None or run.failure.type == run.vendor_status
    assert run.usage is None


def test_an_unknown_word_is_the_end_of_a_run_that_failed() -> None:
    run = fetched("completed", status="superseded", response=None)

    assert (run.status, run.vendor_status, run.output) == (RunStatus.FAILED, "superseded", None)
    assert run.failure == Failure("superseded", "the run is over with a status that is not known here: superseded")


def test_a_failure_tells_the_reason_and_the_output_what_the_agent_said() -> None:  # A8
    cancelled, unknown = fetched("cancelled"), fetched("cancelled", status="superseded")

    assert cancelled.failure == Failure("cancelled", "the run was cancelled; what it had built is kept")
    assert cancelled.output == unknown.output == "Stopped early with part of the list in place."
    assert unknown.failure is not None
    assert "not known here: superseded" in unknown.failure.message
    for name in ("errored", "timed-out"):
        failure = fetched(name, response=None).failure
        assert failure is not None
        assert failure.message


def test_a_completed_run_has_its_text_and_steps() -> None:
    run = fetched("completed")

    assert run.output == "Built a list of 23 clinics; emails are still filling in for 9 of them."
    assert run.progress == Progress(18, 50)
    assert run.detail.response.tables[0].cells.running == 9


def test_questions_are_actions_by_position() -> None:
    asked = sample("needs-input")["todo"]["pendingQuestions"]

    assert fetched("needs-input").actions == tuple(
        Action(
            str(number),
            "ask-questions",
            {"question": each["question"], "type": each["type"], "suggestedAnswers": each["suggestedAnswers"]},
        )
        for number, each in enumerate(asked)
    )


def test_questions_under_another_status_are_shown_but_not_asked() -> None:
    run = fetched("completed", todo=sample("needs-input")["todo"])

    assert run.actions == ()
    assert len(run.detail.todo.pending_questions) == 2


def test_a_pause_that_names_no_question_asks_with_the_agents_last_words() -> None:
    run = fetched("needs-input", todo={"pendingQuestions": [], "nextActions": []})

    assert [action.arguments["question"] for action in run.actions] == ["Two things to settle before I start."]


def test_a_run_that_stopped_early_waits_for_the_word_to_go_on() -> None:
    arguments = {"status": "step_cap_hit", "text": "Still working through the south of the city."}

    assert fetched("step-cap-hit").actions == (Action("continue", "continue", arguments),)


def test_a_partial_response_while_running_is_understood() -> None:
    response = {"text": None, "actions": [{"type": "hologram_added", "tableId": TABLE}], "tables": []}
    run = fetched("running", response=response)

    assert (run.status, run.output) == (RunStatus.RUNNING, None)
    assert run.detail.response.actions[0].type == "hologram_added"


def test_a_run_is_read_bare_or_wrapped_with_what_is_asked_of_it() -> None:
    asked, bare = exchange(origami.fetch(REF, {"include": "stats"}), answer("completed"))
    _, wrapped = exchange(origami.fetch(REF, {}), Answer({"run": sample("completed")}))

    assert (asked[0].line, asked[0].params) == (POLL, {"include": "stats"})
    assert bare == wrapped
    assert bare.raw == wrapped.raw == sample("completed")


def test_a_run_id_is_one_segment_of_the_path() -> None:
    request = next(origami.fetch(RunRef("../x", AGENT), {}))

    assert isinstance(request, Request)
    assert request.path == f"/agents/{AGENT}/runs/..%2Fx"


@pytest.mark.parametrize("flow", [origami.fetch(RunRef(RUN), {}), origami.cancel(RunRef(RUN)), origami.page("", None)])
def test_a_run_without_its_agent_is_refused_before_any_request(flow: Flow[Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"RunRef\(id, agent_id\)"):
        next(flow)


def assert_shown(body: Any, seen: Any, path: str) -> None:
    """Compare what stands in JSON with what stands in our classes, as far down as these go."""
    if isinstance(body, dict) and not isinstance(seen, dict):
        for name, value in body.items():
            attribute = re.sub(r"([A-Z])", r"_\1", name).lower()
            attribute = attribute + "_" * (attribute == "pass")
            assert_shown(value, getattr(seen, attribute), f"{path}.{name}")
    elif isinstance(body, list) and not isinstance(seen, list):
        assert isinstance(seen, tuple), path
        assert len(body) == len(seen), path
        for number, (value, each) in enumerate(zip(body, seen, strict=True)):
            assert_shown(value, each, f"{path}[{number}]")
    elif isinstance(seen, datetime):
        assert seen.tzinfo is not None, path
        assert seen == datetime.fromisoformat(body), path
    else:
        assert seen == body, path


RUN_SAMPLES = [
    "running",
    "completed",
    "needs-input",
    "incomplete",
    "step-cap-hit",
    "cancelled",
    "errored",
    "timed-out",
    "stats-and-transcript",
]


@pytest.mark.parametrize("name", RUN_SAMPLES)
def test_every_documented_field_of_a_sample_is_in_detail(name: str) -> None:
    run = fetched(name)

    assert isinstance(run.detail, origami.OrigamiRun)
    assert_shown(sample(name), run.detail, "$")
    assert origami.detail(run.raw) == run.detail


def test_a_run_as_before_objects_were_stamped_is_understood() -> None:
    def unstamped(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: unstamped(each) for name, each in value.items() if name not in {"object", "kind"}}
        return [unstamped(each) for each in value] if isinstance(value, list) else value

    _, run = exchange(origami.fetch(REF, {}), Answer(unstamped(sample("completed"))))

    seen = run.detail
    assert isinstance(seen, origami.OrigamiRun)
    assert seen.response is not None
    assert seen.response.tables[0].columns[0].kind is None


@pytest.mark.parametrize(
    ("name", "changes", "path"),
    [
        ("completed", {"agentId": None}, r"expected string, got null @ \$\.agentId"),
        ("completed", {"startedAt": "yesterday"}, r"expected date-time, got 'yesterday' @ \$\.startedAt"),
        ("completed", {"response": {"text": 7}}, r"expected string, got integer @ \$\.response\.text"),
        ("completed", {"response": []}, r"expected object, got array @ \$\.response"),
        (
            "needs-input",
            {"todo": {"pendingQuestions": [{"question": 3}]}},
            r"expected string, got integer @ \$\.todo\.pendingQuestions\[0\]\.question",
        ),
    ],
)
def test_what_a_state_needs_names_its_path_as_the_vendor_spells_it(
    name: str, changes: dict[str, Any], path: str
) -> None:
    with pytest.raises(ProtocolError, match=path) as caught:
        fetched(name, **changes)

    assert caught.value.response is not None


def test_a_run_within_an_envelope_names_the_whole_path() -> None:
    body = sample("created")
    body["run"]["status"] = 7
    with pytest.raises(ProtocolError, match=r"@ \$\.run\.status"):
        exchange(origami.start(prompt()), Answer(body, 202))


@pytest.mark.parametrize("name", ["id", "agentId", "status", "startedAt"])
def test_a_missing_field_that_a_state_needs_is_not_what_is_documented(name: str) -> None:
    body = sample("running")
    del body[name]
    with pytest.raises(ProtocolError, match=rf"required field missing @ \$\.{name}"):
        exchange(origami.fetch(REF, {}), Answer(body))


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"steps": {"completed": "7", "max": 50}}, r"expected integer, got string @ \$\.steps\.completed"),
        ({"todo": "none"}, r"expected object, got string @ \$\.todo"),
        ({"response": {"tables": [{"name": "t"}]}}, r"required field missing @ \$\.response\.tables\[0\]\.id"),
    ],
)
def test_what_a_state_does_not_need_is_an_error_of_its_detail_alone(  # A3
    changes: dict[str, Any], path: str
) -> None:
    run = fetched("completed", **changes)

    assert run.status is RunStatus.COMPLETED
    with pytest.raises(ProtocolError, match=path):
        _ = run.detail
    assert run.raw.items() >= changes.items()


def test_a_new_kind_of_action_and_nulls_for_empty_lists_are_taken() -> None:  # A3
    said = {
        "text": "Done.",
        "actions": [{"type": "table_shared", "with": "x"}],
        "tables": None,
        "transcriptTruncated": None,
    }
    run = fetched("completed", response=said, todo=None, steps=None)

    assert (run.output, run.progress) == ("Done.", None)
    assert [action.type for action in run.detail.response.actions] == ["table_shared"]
    assert run.detail.response.tables == ()
    assert run.detail.response.transcript_truncated is False
    assert run.detail.todo == origami.RunTodo()
    assert fetched("completed", steps={"completed": 18.0, "max": 50}).progress == Progress(18, 50)


def test_a_run_survives_as_json_with_fields_that_nobody_knows() -> None:
    run = fetched("needs-input", cost={"eur": 0.02})

    assert run.raw["cost"] == {"eur": 0.02}
    assert Run.from_json(run.to_json()) == run


# Answering ------------------------------------------------------------------------------------------------------------


def resumed(run: Run, outputs: list[ToolOutput]) -> Request:
    (request,), _ = exchange(origami.resume(run, outputs), admitted("followed-up"))
    return request


def after(*names: str) -> tuple[Answer, list[Answer]]:
    """Return the list of runs of an agent that was asked, then came to *names*, and each of these read by itself."""
    asked = sample("needs-input")
    states = [
        sample(name) | {"id": f"v2_run-{number}", "startedAt": f"2026-07-28T10:0{number}:00Z"}
        for number, name in enumerate(names)
    ]
    items = [{name: value for name, value in each.items() if name in sample("runs")["items"][0]} for each in states]
    return Answer({"items": [*items[::-1], asked], "nextCursor": None}), list(map(Answer, states))


def test_an_answer_whose_run_failed_is_tried_again_under_another_key_when_somebody_decides_so() -> None:  # A1
    run = fetched("needs-input")
    first = resumed(run, outputs_for(run, "a", "b"))
    listed, (_, last) = after("errored", "timed-out")
    posts = [
        exchange(origami.resume_again(run, outputs_for(run, *said)), listed, last, admitted("followed-up"))[0][-1]
        for said in (("a", "b"), ("c", "d"))
    ]
    listed_too, (only,) = after("errored")
    other, _ = exchange(
        origami.resume_again(run, outputs_for(run, "a", "b")), listed_too, only, admitted("followed-up")
    )

    keys = [request.headers["Idempotency-Key"] for request in (first, *posts, other[-1])]
    assert keys[1] == keys[2]  # another process tries the same, with whatever answers: one run between the two
    assert len({keys[0], keys[1], keys[3]}) == 3
    assert posts[1].json["prompt"] != posts[0].json["prompt"]


@pytest.mark.parametrize("name", ["running", "completed", "needs-input", "incomplete"])
def test_an_answer_whose_run_has_not_failed_stands(name: str) -> None:
    run = fetched("needs-input")
    said = resumed(run, outputs_for(run, "a", "b")).json["prompt"]
    listed, (_, last) = after("errored", name)
    stands = json.loads(last.body) | {"request": {"prompt": said}}

    asked, found = exchange(origami.resume_again(run, outputs_for(run, "a", "b")), listed, Answer(stands))
    with pytest.raises(AlreadyAnsweredError) as caught:
        exchange(origami.resume_again(run, outputs_for(run, "c", "d")), listed, Answer(stands))

    assert {request.method for request in asked} == {"GET"}
    assert found.vendor_status == name.replace("-", "_")
    assert [each.output for each in caught.value.standing] == [said, said]
    assert caught.value.run == found


@pytest.mark.parametrize("shown", [{"request": {}}, {"request": None}, {"request": 7}])
def test_what_stands_is_told_from_the_list_where_the_run_does_not_show_it(shown: dict[str, Any]) -> None:
    run = fetched("needs-input")
    listed, (last,) = after("completed")
    stands = Answer(json.loads(last.body) | shown)
    prompt = json.loads(listed.body)["items"][0]["prompt"]

    with pytest.raises(AlreadyAnsweredError) as caught:
        exchange(origami.resume_first(run, outputs_for(run, "c", "d")), listed, stands)
    same = origami.variant(answer_prompt=lambda _: prompt)
    _, found = exchange(cast("Any", same).resume_first(run, outputs_for(run, "c", "d")), listed, stands)

    assert {each.output for each in caught.value.standing} == {prompt}
    assert found == caught.value.run


def test_an_answer_that_was_never_given_is_given_under_its_first_key() -> None:
    run = fetched("needs-input")
    first = resumed(run, outputs_for(run, "a", "b"))
    listed, _ = after()

    asked, _ = exchange(origami.resume_again(run, outputs_for(run, "a", "b")), listed, admitted("followed-up"))

    assert asked[-1] == first


def in_german(outputs: Sequence[ToolOutput]) -> str:
    return " ".join(f"{each.action.arguments['question']} Antwort: {each.output}" for each in outputs)


def test_a_variant_words_an_answer_otherwise_and_may_leave_the_model_to_the_plan() -> None:  # B1
    run = fetched("needs-input")
    variant: Any = pickle.loads(pickle.dumps(origami.variant(answer_prompt=in_german, keep_model=False)))
    (request,), _ = exchange(variant.resume(run, outputs_for(run, "a", "b")[::-1]), admitted("followed-up"))

    assert request.json == {
        "prompt": "Which clinics count as independent? Antwort: a "
        "Looking up work emails spends credits. Go ahead? Antwort: b"
    }
    assert isinstance(variant, Resumes)
    assert isinstance(variant, Cancels)
    assert isinstance(variant, Lists)


def test_a_word_that_no_page_has_may_be_told_to_the_dialect() -> None:
    variant: Any = pickle.loads(pickle.dumps(origami.variant(status={"queued": "pending"})))
    listed = sample("runs")
    listed["items"][0]["status"] = "queued"

    assert exchange(variant.fetch(REF, {}), answer("running", status="queued"))[1].status is RunStatus.PENDING
    assert exchange(variant.fetch(REF, {}), answer("running", status="superseded"))[1].status is RunStatus.FAILED
    assert exchange(variant.page(AGENT, None), Answer(listed))[1].runs[0].status is RunStatus.PENDING


@pytest.mark.parametrize("gave", [None, "", "  ", 7])
def test_a_wording_that_gives_no_text_is_refused_before_any_request(gave: Any) -> None:
    run = fetched("needs-input")
    variant: Any = origami.variant(answer_prompt=lambda outputs: gave)
    with pytest.raises(ConfigurationError, match="answer_prompt gave"):
        next(variant.resume(run, outputs_for(run, "a", "b")))


def test_a_container_is_named_for_a_new_agent_alone() -> None:  # C3
    asked, _ = exchange(origami.start(prompt(workspace_id=AGENT)), admitted())

    assert asked[0].json["workspaceId"] == AGENT
    with pytest.raises(ConfigurationError, match=r"Prompt\.workspace_id"):
        follow_up(workspace_id=AGENT)


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(("said", "sent"), [(None, "Continue."), ("Mind the budget.", "Mind the budget.")])
async def test_a_handler_for_continue_that_takes_no_argument_is_called_without_one(said: str | None, sent: str) -> None:
    async def go_on() -> str | None:
        return said

    stopped = answer("incomplete")
    wire = Wire({POLL: [stopped], SEND: admitted("followed-up"), POLL_NEXT: answer("completed", id=NEXT_RUN)})
    async with client_of(wire, origami) as client:
        run = await client.result(await client.fetch(REF), tools={"continue": go_on})

    assert run.status is RunStatus.COMPLETED
    assert wire.bodies(SEND)[0]["prompt"] == sent


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_handler_takes_what_it_names_of_a_question() -> None:
    def choose(question: str, suggestedAnswers: list[str] | None = None) -> str:  # noqa: N803
        return f"{question} {suggestedAnswers}"

    wire = Wire({
        POLL: [answer("needs-input")],
        SEND: admitted("followed-up"),
        POLL_NEXT: answer("completed", id=NEXT_RUN),
    })
    async with client_of(wire, origami) as client:
        paused = await client.fetch(REF)
        run = await client.result(paused, tools={"ask-questions": choose})

    assert run.status is RunStatus.COMPLETED
    said = wire.bodies(SEND)[0]["prompt"]
    assert all(str(action.arguments["question"]) in said for action in paused.actions)


@pytest.mark.asyncio
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_handler_that_no_question_fits_is_told_to_its_author_and_no_agent_is_paid_to_hear_of_it(
    key: str | None, tmp_path: Path
) -> None:
    def choose(questoin: str) -> str:
        return questoin

    def go_on(question: str) -> str:
        return question

    wire = Wire({
        POLL: [answer("needs-input")],
        SEND: admitted("followed-up"),
        POLL_NEXT: answer("completed", id=NEXT_RUN),
    })
    journal = Journal(tmp_path / "work.journal", origami.NAME)
    async with Client(origami, wire, retry=Retry(), schedule=STEADY, journal=journal) as client:
        paused = await client.fetch(REF)
        with pytest.raises(ConfigurationError, match=r"the handler 'ask-questions' .*question.*missing .*`questoin`"):
            await client.result(paused, tools={"ask-questions": choose}, key=key)
        run = await client.result(paused, tools={"ask-questions": go_on}, key=key)

    assert run.status is RunStatus.COMPLETED
    assert len(wire.bodies(SEND)) == 1


def test_one_prompt_answers_every_question_in_their_order() -> None:
    run = fetched("needs-input")
    outputs = outputs_for(run, "Up to three sites", True)
    request = resumed(run, outputs)

    assert request.line == SEND
    assert request.json == sample("follow-up-request") | {"model": "origami-max"}
    assert resumed(run, outputs[::-1]) == request


def test_a_resume_is_one_intent_per_pause() -> None:
    run = fetched("needs-input")
    first, again, other = (
        resumed(each, outputs_for(each, "Up to three sites", answer))
        for each, answer in ((run, True), (Run.from_json(run.to_json()), True), (evolve(run, ref=REF), False))
    )
    elsewhere = fetched("needs-input", id=NEXT_RUN)

    assert first == again
    assert first.headers == other.headers
    assert resumed(elsewhere, outputs_for(elsewhere, "a", "b")).headers != first.headers


@pytest.mark.parametrize(
    ("output", "sent"),
    [
        ("Up to three sites", "Up to three sites"),
        (" Yes! ", "Yes!"),
        (3, "3"),
        ({"sites": 3}, '{"sites":3}'),
        (True, "true"),
    ],
)
def test_a_single_question_is_answered_by_the_plain_answer(output: Any, sent: str) -> None:
    todo = sample("needs-input")["todo"]
    run = fetched("needs-input", todo=todo | {"pendingQuestions": todo["pendingQuestions"][:1]})

    assert resumed(run, outputs_for(run, output)).json["prompt"] == sent


def test_answers_end_as_sentences_and_a_reason_stands_for_a_missing_one() -> None:
    run = fetched("needs-input")
    outputs = [ToolOutput(run.actions[0], "Any?"), ToolOutput(run.actions[1], "nobody is in", is_error=True)]

    assert resumed(run, outputs).json["prompt"] == (
        "1) Which clinics count as independent? -> Any?\n"
        "2) Looking up work emails spends credits. Go ahead? -> No answer: nobody is in."
    )
    assert resumed(run, outputs_for(run, "Any?", False)).json["prompt"].endswith(" -> No.")


@pytest.mark.parametrize(
    ("output", "sent"),
    [
        (None, "Continue."),
        (True, "Continue."),
        ("", "Continue."),
        ("Only the north.", "Only the north."),
    ],
)
def test_a_run_that_stopped_early_goes_on_by_a_follow_up(output: Any, sent: str) -> None:
    run = fetched("incomplete")

    assert resumed(run, outputs_for(run, output)).json == {"prompt": sent, "model": "origami-max"}


def test_a_reason_not_to_go_on_is_told_to_the_agent_as_it_is() -> None:
    run = fetched("incomplete")

    assert resumed(run, [ToolOutput(run.actions[0], "Stop here.", is_error=True)]).json["prompt"] == "Stop here."


@pytest.mark.parametrize(
    ("outputs", "named"),
    [
        (["a", ""], "is empty"),
        (["a", None], "is empty"),
        (["x" * 10_000, "b"], "may have 10000"),
    ],
)
def test_an_answer_that_makes_no_prompt_is_refused_before_any_request(outputs: list[Any], named: str) -> None:
    run = fetched("needs-input")
    with pytest.raises(ConfigurationError, match=named):
        next(origami.resume(run, outputs_for(run, *outputs)))


def test_every_question_is_answered_exactly_once() -> None:
    run = fetched("needs-input")
    outputs = outputs_for(run, "a", "b")
    for wrong in (outputs[:1], outputs + outputs[:1], []):
        with pytest.raises(ConfigurationError, match="exactly one answer"):
            next(origami.resume(run, wrong))


def test_a_pause_without_its_agent_or_its_questions_is_refused_before_any_request() -> None:
    run = fetched("needs-input")
    with pytest.raises(ConfigurationError, match=r"RunRef\(id, agent_id\)"):
        next(origami.resume(evolve(run, ref=RunRef(RUN)), outputs_for(run, "a", "b")))
    with pytest.raises(ConfigurationError, match=r"client\.fetch"):
        next(origami.resume(evolve(run, actions=()), []))


def test_a_handler_is_found_by_the_whole_name() -> None:
    assert origami.handler_names(Action("0", "ask-questions")) == ("ask-questions",)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_stream_answers_questions_and_follows_the_run_that_comes_of_it() -> None:
    done = answer("stats-and-transcript", id=NEXT_RUN)
    wire = Wire({
        CREATE: admitted(),
        POLL: answer("needs-input"),
        SEND: admitted("followed-up"),
        POLL_NEXT: done,
    })

    async def ask(question: str, type: str, suggestedAnswers: list[str]) -> str:  # noqa: A002, N803
        return suggestedAnswers[0]

    async with client_of(wire, origami) as client:
        seen = [run async for run in client.stream(prompt(), tools={"ask-questions": ask})]

    assert [run.vendor_status for run in seen] == ["running", "needs_input", "running", "completed"]
    assert wire.bodies(SEND)[0]["prompt"].startswith("1) Which clinics count as independent? -> Single-site only.\n2) ")
    assert seen[-1].ref == RunRef(NEXT_RUN, AGENT)


@pytest.mark.asyncio
async def test_an_answer_that_comes_after_another_is_told_so_and_its_key_goes_on_with_what_came_of_that(
    tmp_path: Path,
) -> None:
    """The first was given by somebody whose journal is another."""
    wire = Wire({
        CREATE: admitted(),
        POLL: answer("needs-input"),
        LIST: answer("runs"),
        POLL_NEXT: answer("stats-and-transcript", id=NEXT_RUN),
    })
    journal = Journal(tmp_path / "journal.db", origami.NAME)
    async with Client(origami, wire, retry=Retry(conflicts=0), schedule=STEADY, journal=journal) as client:
        async with client.stream(prompt(), key="vets") as stream:
            paused = [state async for state in stream][-1]
        with pytest.raises(AlreadyAnsweredError, match=f"run {NEXT_RUN}, which came of it") as caught:
            await client.resume(paused, outputs_for(paused, "Single-site only", False))
        last = await client.result(prompt(), key="vets")

    assert (caught.value.run.id, last.id, last.status) == (NEXT_RUN, NEXT_RUN, RunStatus.COMPLETED)
    assert not wire.times(SEND)


@pytest.mark.asyncio
async def test_an_answer_that_an_agent_is_too_busy_for_is_a_conflict_where_nothing_is_known_to_follow_the_run() -> None:
    wire = Wire({SEND: BUSY, LIST: Answer({"items": []})})
    async with Client(origami, wire, retry=Retry(conflicts=0)) as client:
        paused = fetched("needs-input")
        with pytest.raises(ConflictError) as caught:
            await client.resume(paused, outputs_for(paused, "Up to three sites", True))

    assert not isinstance(caught.value, AlreadyAnsweredError)


# Admission: what keeps its key, and what takes the next ---------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("trouble", "pauses"),
    [
        ([Lost()], [1]),
        ([Lost(), Lost(), Lost()], [1, 2, 4]),
        ([Answer(b"cut off {")], [1]),
        ([Answer({}, 502)], [1]),
        ([Answer({}, 503, {"retry-after": "7"}), Lost()], [7, 2]),
        ([Answer({}, 408)], [1]),
        ([IN_FLIGHT, IN_FLIGHT, IN_FLIGHT], [1, 2, 4]),
        ([Lost(), IN_FLIGHT, Lost()], [1, 1, 2]),
        ([refused(429, "RATE_LIMITED", {"retry-after": "20"})], [20]),
        ([refused(429, None), refused(429, "RATE_LIMITED"), refused(429, "X")], [1, 2, 4]),
    ],
)
async def test_an_attempt_keeps_its_key_and_body_while_its_outcome_is_open(
    trouble: list[Scripted], pauses: list[float]
) -> None:
    wire, run = await started(prompt(), {CREATE: [*trouble, admitted()]})
    times = wire.times(CREATE)

    assert run.ref == REF
    assert set(keys(wire)) == {KEY}
    assert all(body == {"prompt": "Find vets."} for body in wire.bodies(CREATE))
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == pauses


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("trouble", "kind", "tries"),
    [
        (Lost(), TransportError, 4),
        (Lost("too long", final=True), TransportError, 1),
        (Answer({}, 502), ServerError, 4),
        (Answer({}, 503, {"retry-after": "61"}), ServerError, 1),
        (Answer({}, 408), APIError, 4),
        (IN_FLIGHT, ConflictError, 4),
        (refused(409, "IDEMPOTENCY_ERROR", REPLAY), ConflictError, 4),
        (refused(429, "RATE_LIMITED"), RateLimitedError, 7),
        (refused(429, "RATE_LIMITED", {"retry-after": "61"}), RateLimitedError, 1),
        (refused(401, "UNAUTHORIZED"), AuthenticationError, 1),
        (answer("error-validation", 400), InvalidRequestError, 1),
        (answer("error-credits", 402), QuotaError, 1),
        (refused(404, "AGENT_NOT_FOUND"), NotFoundError, 1),
    ],
)
async def test_what_does_not_clear_is_raised_in_the_end(
    trouble: Scripted, kind: type[AgentRunsError], tries: int
) -> None:
    wire, _ = await refused_start(kind, prompt(), {CREATE: trouble})

    assert len(wire.asked) == tries
    assert set(keys(wire)) == {KEY}


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_what_was_never_sent_is_the_retry_policys_to_repeat() -> None:
    wire, _ = await refused_start(TransportError, prompt(), {CREATE: Lost("refused", sent=False)})

    assert len(wire.asked) == 4


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(("headers", "waited"), [({"retry-after": "143"}, 143), ({}, 60), ({"retry-after": "0"}, 1)])
async def test_a_start_waits_for_a_slot_and_takes_the_next_key_where_the_first_is_used_up(
    headers: Mapping[str, str], waited: float
) -> None:
    again = answer("error-slots", 429, {**headers, **REPLAY})
    wire, run = await started(prompt(), {CREATE: [answer("error-slots", 429, headers), again, admitted()]})

    assert run.ref == REF
    assert wire.times(CREATE) == [0, waited, waited]
    assert keys(wire)[:2] == [KEY, KEY]
    assert len(set(keys(wire))) == 2
    assert all(re.fullmatch(r"[\x21-\x7e]{1,255}", key) for key in keys(wire))


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_key_under_which_no_refusal_is_kept_is_not_left_to_others() -> None:
    wire, run = await started(prompt(), {CREATE: [answer("error-slots", 429), admitted()]})

    assert run.ref == REF
    assert keys(wire) == [KEY, KEY]


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("asked", [{}, {"retry-after": "90"}])
async def test_a_rate_limit_ends_no_row_of_a_batch_however_long_it_lasts(asked: Mapping[str, str]) -> None:
    limited = refused(429, "RATE_LIMITED", asked)
    wire = Wire({CREATE: [*[limited] * 40, SLOTS, limited, admitted()], POLL: answer("completed")})
    async with client_of(wire, origami) as client:
        found = [outcome async for outcome in client.batch([prompt()], timeout=None)]

    assert found[0].error is None
    assert wire.times(CREATE)[-1] > 120.0, "longer than a start of its own waits"
    assert set(keys(wire)) == {KEY}


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_waiting_for_a_slot_is_bounded() -> None:
    wire, error = await refused_start(RateLimitedError, prompt(), {CREATE: SLOTS})

    assert wire.times(CREATE) == [0, 143, 286]
    assert (error.code, error.retry_after) == ("CONCURRENT_LIMIT_EXCEEDED", 143)


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    "stored",
    [
        answer("error-slots", 429, {"retry-after": "143"} | REPLAY),
        answer("error-busy", 409, REPLAY),
        answer("error-credits", 402, REPLAY),
        answer("error-validation", 400, REPLAY),
        refused(429, "RATE_LIMITED", REPLAY),
        refused(401, "UNAUTHORIZED", REPLAY),
    ],
)
async def test_a_stored_refusal_says_nothing_of_today(stored: Answer) -> None:
    wire, run = await started(prompt(), {CREATE: [stored, stored, admitted()]})

    assert run.ref == REF
    assert wire.times(CREATE) == [0, 0, 0]
    assert len(set(keys(wire))) == 3


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_vendor_that_only_ever_replays_is_given_up() -> None:
    wire, _ = await refused_start(QuotaError, prompt(), {CREATE: answer("error-credits", 402, REPLAY)})

    assert len(set(keys(wire))) == len(wire.asked) == 201


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_busy_agent_is_an_error_that_names_its_run() -> None:
    wire, error = await refused_start(ConflictError, follow_up(), {SEND: BUSY})

    assert (error.code, len(wire.asked)) == ("AGENT_BUSY", 1)
    assert RUN in str(error)
    assert "busy_wait" in str(error)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_busy_agent_is_waited_for_as_long_as_is_asked() -> None:
    again = answer("error-busy", 409, REPLAY)
    script: Script = {SEND: [BUSY, again, admitted("followed-up")], POLL: [answer("running"), answer("completed")]}
    wire, run = await started(follow_up(busy_wait=60), script)

    assert run.ref == RunRef(NEXT_RUN, AGENT)
    assert (wire.times(SEND), wire.times(POLL)) == ([0, 30, 30], [15, 30])
    assert len(set(keys(wire, SEND))) == 2


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_waiting_for_a_busy_agent_is_bounded() -> None:
    wire, _ = await refused_start(ConflictError, follow_up(busy_wait=20), {SEND: BUSY, POLL: answer("running")})

    assert (wire.times(SEND), wire.times(POLL)) == ([0], [15, 20])


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_busy_agent_whose_run_is_named_below_details_or_gone_or_not_at_all_is_asked_again_later() -> None:
    below = refused(409, "AGENT_BUSY", details={"currentRun": {"id": RUN}})
    unnamed = refused(409, "AGENT_BUSY", currentRun={})
    gone = answer("error-run-not-found", 404)
    script: Script = {SEND: [below, unnamed, admitted("followed-up")], POLL: gone}
    wire, _ = await started(follow_up(busy_wait=60), script)

    assert (wire.times(SEND), wire.times(POLL)) == ([0, 15, 30], [15])


# The law: an intent starts one run at most ----------------------------------------------------------------------------

OWN_500 = refused(500, "INTERNAL_ERROR")


def agents(*lasts: Mapping[str, Any] | None, cursor: str | None = None) -> Answer:
    first = sample("agents")["items"][0]
    return Answer({"items": [first | {"lastRun": last} for last in lasts], "nextCursor": cursor})


def with_prompt(text: str, name: str = "running", **changes: Any) -> dict[str, Any]:
    """Return a run with this prompt, in full and as lists cut it."""
    body: dict[str, Any] = sample(name)
    cut = text if len(text) <= 200 else text[:199] + "…"
    return body | {"prompt": cut, "request": body["request"] | {"prompt": text}} | changes


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_5xx_of_the_api_itself_is_repeated_only_after_a_look_that_finds_nothing() -> None:
    other = with_prompt("Find dentists.")
    listed = [agents(None, other, cursor="c1"), agents(cursor="c2")]
    wire, run = await started(prompt(), {CREATE: [OWN_500, admitted()], AGENTS: listed})

    assert run.ref == REF
    assert [request.line for _, request in wire.asked] == [CREATE, AGENTS, AGENTS, CREATE]
    assert [request.params.get("cursor") for _, request in wire.asked[1:3]] == [None, "c1"]
    assert set(keys(wire)) == {KEY}


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("text", ["Find vets.", "Find vets in " + "Leeds, " * 60, " 👩‍⚕️" * 40])
async def test_a_5xx_that_may_have_created_an_agent_is_not_repeated(text: str) -> None:
    """Another caller may have asked the same, so it is not taken for ours either."""
    ours = with_prompt(text)
    script: Script = {CREATE: OWN_500, AGENTS: agents(ours), POLL: Answer(ours)}
    wire, error = await refused_start(OutcomeUnknownError, evolve(prompt(), prompt=text), script)

    assert len(wire.times(CREATE)) == 1
    assert RUN in str(error)
    assert AGENT in str(error)
    assert isinstance(error.__cause__, ServerError)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_prompt_that_only_begins_like_ours_is_not_ours() -> None:
    text = "Find vets in " + "Leeds, " * 60
    twin = with_prompt(text + "and York.")
    script: Script = {CREATE: [OWN_500, admitted()], AGENTS: agents(twin), POLL: Answer(twin)}
    wire, run = await started(evolve(prompt(), prompt=text), script)

    assert run.ref == REF
    assert len(wire.times(CREATE)) == 2


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_5xx_that_stays_is_raised_when_a_last_look_has_found_nothing() -> None:
    wire, _ = await refused_start(ServerError, prompt(), {CREATE: OWN_500, AGENTS: agents()})

    assert (len(wire.times(CREATE)), len(wire.times(AGENTS))) == (4, 4)


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("blind", [Lost(), OWN_500, refused(404, "AGENT_NOT_FOUND"), Answer({"nothing": []})])
async def test_a_5xx_after_which_nothing_can_be_seen_has_an_unknown_outcome(blind: Scripted) -> None:
    wire, error = await refused_start(OutcomeUnknownError, prompt(), {CREATE: OWN_500, AGENTS: blind})

    assert len(wire.times(CREATE)) == 1
    assert isinstance(error.__cause__, ServerError)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_follow_up_that_a_5xx_started_is_found_at_its_agent() -> None:
    ours = with_prompt("Find vets.")
    script: Script = {SEND: OWN_500, HEAD: Answer(sample("agents")["items"][0] | {"lastRun": ours}), POLL: Answer(ours)}
    wire, run = await started(follow_up(), script)

    assert run.ref == REF
    assert len(wire.times(SEND)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_follow_up_that_becomes_visible_late_is_found_by_the_conflict_with_itself() -> None:
    ours = with_prompt("Find vets.")
    none, last = (Answer(sample("agents")["items"][0] | {"lastRun": each}) for each in (None, ours))
    script: Script = {SEND: [OWN_500, BUSY], HEAD: [none, last], POLL: Answer(ours)}
    wire, run = await started(follow_up(busy_wait=600), script)

    assert run.ref == REF
    assert len(wire.times(SEND)) == 2


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_follow_up_with_the_prompt_of_an_earlier_one_that_is_over_is_not_guessed_at() -> None:
    over = with_prompt("Find vets.", "completed")
    script: Script = {SEND: OWN_500, HEAD: Answer(sample("agents")["items"][0] | {"lastRun": over}), POLL: Answer(over)}
    wire, error = await refused_start(OutcomeUnknownError, follow_up(), script)

    assert RUN in str(error)
    assert len(wire.times(SEND)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_answer_that_a_5xx_started_is_told_from_the_run_that_it_answers() -> None:
    paused = with_prompt("Continue.", "incomplete")
    ours = with_prompt("Continue.", "completed", id=NEXT_RUN)
    heads = [Answer(sample("agents")["items"][0] | {"lastRun": each}) for each in (paused, ours)]
    wire = Wire({
        POLL: Answer(paused),
        RUNS: Answer({"items": [paused], "nextCursor": None}),
        SEND: OWN_500,
        HEAD: heads,
        POLL_NEXT: Answer(ours),
    })
    async with client_of(wire, origami) as client:
        run = await client.fetch(REF)
        resumed = await client.resume(run, outputs_for(run, True))

    assert resumed.id == NEXT_RUN
    assert len(wire.times(SEND)) == 2


class Vendor:
    """Origami's admission in small: answers are kept by key, except 5xx; faults happen as planned, then no more."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = list(faults)
        self.kept: dict[str, Answer] = {}
        self.runs: list[dict[str, Any]] = []

    def post(self, request: Request) -> Answer:
        fault = self.faults.pop(0) if self.faults else ""
        key = request.headers["Idempotency-Key"]
        if fault == "lost before":
            raise TransportError(request, "reset")
        if fault == "rate limit":
            return refused(429, "RATE_LIMITED", {"retry-after": "5"})
        given = self.kept.get(key)
        if given is not None:
            given = Answer(given.body, given.status, {**given.headers, **REPLAY})
        else:
            given = self.admit(fault, request)
            if given.status < 500:
                self.kept[key] = given
        if fault == "lost after":
            raise TransportError(request, "reset")
        return Answer(b"<html>", 502) if fault == "gateway after" else given

    def admit(self, fault: str, request: Request) -> Answer:
        if fault in {"slot", "busy", "funds"}:
            return {"slot": SLOTS, "busy": refused(409, "AGENT_BUSY"), "funds": answer("error-credits", 402)}[fault]
        if fault == "500 before":
            return OWN_500
        if request.line == SEND and self.runs:
            return refused(409, "AGENT_BUSY", currentRun={"id": self.runs[-1]["id"]})
        self.runs.append(with_prompt(request.json["prompt"], id=f"run-{len(self.runs) + 1}"))
        return OWN_500 if fault == "500 after" else Answer({"run": self.runs[-1]}, 202)

    def agent(self, request: Request) -> Answer:
        return Answer(sample("agents")["items"][0] | {"lastRun": self.runs[-1] if self.runs else None})

    def listed(self, _: Request) -> Answer:
        agent = sample("agents")["items"][0]
        return Answer({"items": [agent | {"lastRun": run} for run in self.runs], "nextCursor": None})

    def read(self, _: Request) -> Answer:
        return Answer(self.runs[0])

    def script(self) -> Script:
        one = f"GET /agents/{AGENT}/runs/run-1"
        return {CREATE: self.post, SEND: self.post, AGENTS: self.listed, HEAD: self.agent, one: self.read}


FAULTS = [
    "lost before",
    "lost after",
    "gateway after",
    "500 before",
    "500 after",
    "rate limit",
    "slot",
    "busy",
    "funds",
]


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("first", FAULTS)
@pytest.mark.parametrize("origin", [prompt(), follow_up(busy_wait=600)], ids=["create", "follow-up"])
async def test_whatever_goes_wrong_and_however_often_it_is_started_there_is_one_run(
    origin: origami.Prompt, first: str
) -> None:
    """
    Each start is by a process that knows nothing of those before it, until one has the run, or is told that it may be.

    One more start gives the same run; except after a 5xx that no key remembers: then it meets the run as a conflict.
    """
    for others in itertools.product(FAULTS, FAULTS):
        plan = [first, *others]
        vendor = Vendor(plan)
        run = None
        for _ in range(6):
            try:
                _, run = await started(origin, vendor.script())
                break
            except OutcomeUnknownError:
                break
            except (APIError, TransportError):
                pass
        assert len(vendor.runs) == 1, plan
        consumed = plan[: len(plan) - len(vendor.faults)]
        if run is None:
            assert origin.agent_id is None, plan
            assert "500 after" in consumed, plan
        elif "500 after" not in consumed:
            vendor.faults = []
            _, again = await started(origin, vendor.script())
            assert (again.ref, len(vendor.runs)) == (run.ref, 1), plan


# Cancelling -----------------------------------------------------------------------------------------------------------


async def cancelled(script: Script) -> tuple[Wire, Run | None]:
    wire = Wire(script)
    async with client_of(wire, origami) as client:
        return wire, await client.cancel(REF)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_cancel_may_leave_the_run_running_for_a_while() -> None:
    wire, run = await cancelled({POLL: answer("running"), CANCEL: answer("cancelling")})

    assert [request.line for _, request in wire.asked] == [POLL, CANCEL]
    assert run is not None
    assert (run.ref, run.status) == (REF, RunStatus.RUNNING)
    assert wire.bodies(CANCEL) == [None]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_run_that_is_over_is_not_cancelled_so_that_no_newer_one_is_hit() -> None:
    wire, run = await cancelled({POLL: answer("completed")})

    assert run is not None
    assert run.status is RunStatus.COMPLETED
    assert [request.line for _, request in wire.asked] == [POLL]


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("status", ["running", "cancelled"])
async def test_a_cancel_that_hit_another_run_says_so(status: str) -> None:
    other = Answer({"run": sample("completed") | {"id": NEXT_RUN, "status": status}})
    with pytest.raises(ConflictError, match=f"run {RUN} had ended, and run {NEXT_RUN}"):
        await cancelled({POLL: answer("running"), CANCEL: other})


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_cancel_that_came_too_late_to_hit_anything_gives_the_run_as_it_ended() -> None:
    other = Answer({"run": sample("completed") | {"id": NEXT_RUN}})
    _, run = await cancelled({POLL: [answer("running"), answer("completed")], CANCEL: other})

    assert run is not None
    assert (run.ref, run.status) == (REF, RunStatus.COMPLETED)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_agent_that_never_ran_has_nothing_to_cancel() -> None:
    _, run = await cancelled({POLL: answer("running"), CANCEL: answer("never-ran")})

    assert run is None


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_lost_cancel_is_repeated_with_a_key_of_the_run_and_a_stale_answer_is_not_believed() -> None:
    polls = [answer("running"), answer("cancelled")]
    stale = answer("cancelling", headers=REPLAY)
    wire, run = await cancelled({POLL: polls, CANCEL: [Lost(), Answer({}, 500), stale]})
    again, _ = await cancelled({POLL: answer("running"), CANCEL: answer("cancelling")})

    assert run is not None
    assert run.vendor_status == "cancelled"
    assert set(keys(wire, CANCEL)) == set(keys(again, CANCEL))
    assert len(set(keys(wire, CANCEL))) == 1


def test_each_run_is_cancelled_with_a_key_of_its_own() -> None:
    cancels = [
        exchange(origami.cancel(RunRef(each, AGENT)), answer("running", id=each), answer("never-ran"))[0][1]
        for each in (RUN, NEXT_RUN)
    ]

    assert cancels[0].headers != cancels[1].headers


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_cancel_that_is_still_worked_on_gives_the_run_as_it_is() -> None:
    wire, run = await cancelled({POLL: answer("running"), CANCEL: [Lost(), IN_FLIGHT]})

    assert run is not None
    assert len(wire.times(POLL)) == 2


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_refused_cancel_is_raised_and_a_stored_refusal_passed_over() -> None:
    stored = answer("error-subscription", 402, REPLAY)
    wire, _ = await cancelled({POLL: answer("running"), CANCEL: [stored, answer("cancelling")]})
    assert len(set(keys(wire, CANCEL))) == 2

    for refusal in (answer("error-subscription", 402), stored):
        with pytest.raises(QuotaError):
            await cancelled({POLL: answer("running"), CANCEL: refusal})


# Lists ----------------------------------------------------------------------------------------------------------------


async def listed(*answers: Answer) -> tuple[Wire, list[Run]]:
    wire = Wire({f"GET /agents/{AGENT}/runs": answers})
    async with client_of(wire, origami) as client:
        return wire, [run async for run in client.runs(AGENT)]


def runs_page(*ids: str, cursor: str | None = None, page: int | None = None, more: bool = False) -> Answer:
    items = [sample("runs")["items"][0] | {"id": each} for each in ids]
    if page is None:
        return Answer({"object": "list", "items": items, "nextCursor": cursor, "url": "/api/v2/agents"})
    return Answer({"runs": items, "pagination": {"page": page, "pageSize": 50, "total": 9, "hasMore": more}})


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("name", ["runs", "runs-g1"])
async def test_runs_are_listed_as_summaries(name: str) -> None:
    body = sample(name)
    wire, runs = await listed(Answer(body))
    items = body.get("items") or body["runs"]

    assert [run.raw for run in runs] == items
    assert all(run.output is None and isinstance(run.detail, origami.RunSummary) for run in runs)
    for item, run in zip(items, runs, strict=True):
        assert_shown(item, run.detail, "$")
        assert origami.detail(run.raw) == run.detail
    assert len(wire.asked) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_summary_shows_no_questions_but_can_be_told_to_go_on() -> None:
    items = [sample("runs")["items"][0] | {"status": each} for each in ("needs_input", "incomplete", "cancelled")]
    _, runs = await listed(Answer({"items": items, "nextCursor": None}))

    assert [[action.name for action in run.actions] for run in runs] == [[], ["continue"], []]
    assert resumed(runs[1], outputs_for(runs[1], True)).json["prompt"] == "Continue."


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_pages_are_followed_by_cursor() -> None:
    wire, runs = await listed(runs_page("a", "b", cursor="c1"), runs_page("c", cursor="c2"), runs_page("d"))

    assert [run.id for run in runs] == ["a", "b", "c", "d"]
    assert [dict(request.params) for _, request in wire.asked] == [
        {"limit": "100"},
        {"limit": "100", "cursor": "c1"},
        {"limit": "100", "cursor": "c2"},
    ]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_pages_are_followed_by_number_where_there_are_no_cursors() -> None:
    wire, runs = await listed(
        runs_page("a", page=0, more=True), runs_page("b", page=1, more=True), runs_page("c", page=2)
    )

    assert [run.id for run in runs] == ["a", "b", "c"]
    assert [request.params.get("page") for _, request in wire.asked] == [None, "1", "2"]


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("pages", "ids"),
    [
        ([runs_page("a", cursor="c1"), runs_page("b", cursor="c1")], ["a", "b"]),
        ([runs_page("a", cursor="c1"), runs_page("b", cursor="c2"), runs_page("c", cursor="c1")], ["a", "b", "c"]),
        ([runs_page("a", cursor="c1"), runs_page("b", cursor="c2"), runs_page("a", cursor="c3")], ["a", "b"]),
        ([runs_page("a", page=0, more=True)], ["a"]),
        ([runs_page("a", page=0, more=True), runs_page(page=1, more=True)], ["a"]),
    ],
)
async def test_a_list_that_goes_round_ends(pages: list[Answer], ids: list[str]) -> None:
    _, runs = await listed(*pages)

    assert [run.id for run in runs] == ids


def test_a_cursor_of_the_vendors_own_is_taken_as_it_is() -> None:
    asked, page = exchange(origami.page(AGENT, "c7"), runs_page("a"))

    assert asked[0].params == {"limit": "100", "cursor": "c7"}
    assert page.cursor is None


@pytest.mark.parametrize(
    "flow", [origami.page(AGENT, None), origami.list_agents(), origami.list_tables(AGENT), origami.list_rows(TABLE)]
)
def test_a_list_without_items_is_not_what_is_documented(flow: Flow[Any]) -> None:
    with pytest.raises(ProtocolError, match=r"@ \$\.items"):
        exchange(flow, Answer({"things": []}))


# Agents, tables, rows, the account ------------------------------------------------------------------------------------


def test_agents_are_listed_and_read() -> None:
    body = sample("agents")
    asked, page = exchange(origami.list_agents(search="leeds", cursor="c1", limit=10), Answer(body))

    assert (asked[0].line, asked[0].params) == (AGENTS, {"limit": "10", "cursor": "c1", "search": "leeds"})
    assert page.cursor == body["nextCursor"]
    assert_shown(body["items"], page.items, "$.items")

    asked, agent = exchange(origami.get_agent(AGENT), Answer(body["items"][0]))
    assert asked[0].line == HEAD
    assert_shown(body["items"][0], agent, "$")


def test_agents_are_listed_by_page_where_there_are_no_cursors() -> None:
    pagination = {"page": 0, "pageSize": 50, "total": 51, "hasMore": True}
    _, page = exchange(origami.list_agents(), Answer({"agents": sample("agents")["items"], "pagination": pagination}))
    asked, _ = exchange(origami.list_agents(cursor=page.cursor), Answer({"agents": [], "pagination": pagination}))

    assert len(page.items) == 2
    assert asked[0].params == {"limit": "50", "page": "1"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: origami.list_agents(limit=0),
        lambda: origami.list_agents(limit=101),
        lambda: origami.list_rows(TABLE, limit=201),
        lambda: origami.list_rows(TABLE, limit=True),
        lambda: origami.list_rows(TABLE, cells="typed"),
        lambda: origami.list_rows(TABLE, filters=[{"value": float("nan")}]),
    ],
)
def test_a_list_that_cannot_be_asked_for_is_refused_before_any_request(make: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"limit|cells|filters"):
        next(make())


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_agent_is_archived_and_a_lost_answer_does_not_hide_it() -> None:
    line = f"DELETE /agents/{AGENT}"
    gone = refused(404, "AGENT_NOT_FOUND")

    async def archive(*answers: Scripted) -> origami.Archived:
        async with client_of(Wire({line: answers}), origami) as client:
            return await client.perform(origami.archive_agent(AGENT))

    assert_shown(sample("archived"), await archive(answer("archived")), "$")
    assert (await archive(Lost(), answer("archived"))).agent.deleted_at is not None
    assert_shown({"agent": {"id": AGENT, "deletedAt": None}, "workspace": None}, await archive(Lost(), gone), "$")
    with pytest.raises(NotFoundError):
        await archive(gone)


def test_tables_are_listed_and_read() -> None:
    table = sample("stats-and-transcript")["response"]["tables"][0]
    body = {"object": "list", "items": [table], "nextCursor": None, "url": "/", "workspaceId": AGENT}
    asked, page = exchange(origami.list_tables(AGENT, include="stats"), Answer(body))

    assert (asked[0].line, asked[0].params) == (f"GET /agents/{AGENT}/tables", {"include": "stats"})
    assert page.workspace_id == AGENT
    assert_shown([table], page.items, "$.items")

    _, older = exchange(origami.list_tables(AGENT), Answer({"workspaceId": AGENT, "tables": [table]}))
    assert older == page

    asked, read = exchange(origami.get_table(TABLE), Answer(table | {"credits": {"lifetimeUsed": 2.25}}))
    assert (asked[0].line, asked[0].params) == (f"GET /tables/{TABLE}", {})
    assert read.credits.lifetime_used == 2.25


def test_rows_are_read_typed() -> None:
    typed = {"clinic": {"type": "scalar", "value": "Oak Vets"}, "note": {"type": "value", "value": None, "run": {}}}
    body = {
        "items": [{"object": "row", "id": "r1", "cells": typed}],
        "nextCursor": "c2",
        "url": f"/api/v2/tables/{TABLE}/rows",
        "total": 23,
    }
    filters = [{"column": "clinic", "operator": "contains", "value": "Oak"}]
    asked, page = exchange(
        origami.list_rows(
            TABLE, limit=200, filters=filters, sort={"column": "clinic", "direction": "asc"}, defaults=False
        ),
        Answer(body),
    )

    assert asked[0].line == f"GET /tables/{TABLE}/rows"
    assert asked[0].params == {
        "limit": "200",
        "filters": '[{"column":"clinic","operator":"contains","value":"Oak"}]',
        "sort": '{"column":"clinic","direction":"asc"}',
        "defaults": "false",
    }
    assert (page.items, page.cursor, page.total) == ((origami.Row(typed, "r1", "row"),), "c2", 23)


def test_rows_are_read_flat() -> None:
    flat = [{"clinic": "Oak Vets", "sites": 2}]
    asked, page = exchange(
        origami.list_rows(TABLE, cells="flat", cursor="c2"), Answer({"items": flat, "nextCursor": None, "total": 1})
    )

    assert asked[0].params == {"limit": "50", "cursor": "c2", "cells": "flat"}
    assert page == origami.RowPage((origami.Row(flat[0]),), None, 1)


def test_a_row_is_read_by_itself_and_rows_as_csv() -> None:
    row = {"object": "row", "id": "r1", "cells": {"clinic": {"type": "scalar", "value": "Oak Vets"}}}
    asked, seen = exchange(origami.get_row(TABLE, "r1"), Answer(row))
    sort = {"column": "clinic", "direction": "asc"}
    asked_too, text = exchange(origami.get_csv(TABLE, limit=3, sort=sort), Answer(b"\xef\xbb\xbfclinic\nOak Vets\n"))

    assert [asked[0].line, asked_too[0].line] == [f"GET /tables/{TABLE}/rows/r1", f"GET /tables/{TABLE}/rows"]
    assert_shown(row, seen, "$")
    assert asked_too[0].params == {"limit": "3", "sort": '{"column":"clinic","direction":"asc"}', "format": "csv"}
    assert asked_too[0].headers == {"Accept": "text/csv"}
    assert text == "clinic\nOak Vets\n"


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_answer_that_is_csv_is_not_taken_for_a_lost_one() -> None:
    wire = Wire({f"GET /tables/{TABLE}/rows": Answer(b"clinic\nOak Vets\n")})
    async with client_of(wire, origami) as client:
        assert await client.perform(origami.get_csv(TABLE)) == "clinic\nOak Vets\n"


def test_columns_and_the_tables_of_the_organization_are_listed() -> None:
    column = {"object": "column", "id": "c1", "name": "Clinic", "slug": "clinic", "kind": "input", "autoTrigger": False}
    asked, columns = exchange(origami.list_columns(TABLE), Answer({"items": [column], "nextCursor": None}))
    asked_too, tables = exchange(
        origami.list_tables_of_organization(workspace_id=AGENT),
        Answer({"items": [{"object": "table", "id": TABLE, "name": "Clinics"}, {"name": "no id"}], "nextCursor": "c2"}),
    )

    assert [asked[0].line, asked_too[0].line] == [f"GET /tables/{TABLE}/columns", "GET /tables"]
    assert asked_too[0].params == {"limit": "50", "workspaceId": AGENT}
    assert_shown(column, columns[0], "$")
    assert ([table.name for table in tables.items], tables.cursor) == (["Clinics"], "c2")


def test_a_campaign_is_drafted_and_edited_by_a_run_that_is_followed_as_any_other() -> None:
    begun = {"agent": sample("created")["agent"], "run": sample("created")["run"], "table": {"id": TABLE}}
    toggles = {"blockPriorContacts": True}
    asked, run = exchange(origami.draft_campaign(TABLE, "Introduce us.", settings=toggles), Answer(begun, 202))
    asked_too, _ = exchange(origami.edit_campaign("c1", "Be brief.", idempotency_key="k1"), Answer(begun, 202))

    assert [asked[0].line, asked_too[0].line] == [f"POST /tables/{TABLE}/campaigns", "POST /campaigns/c1/edits"]
    assert asked[0].json == {"instructions": "Introduce us.", "settings": toggles}
    assert asked_too[0].json == {"instructions": "Be brief."}
    assert asked_too[0].headers["Idempotency-Key"] == "k1"
    assert (run.status, run.ref.parent) == (RunStatus.RUNNING, AGENT)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_campaign_that_a_5xx_may_have_begun_has_an_unknown_outcome() -> None:
    line = f"POST /tables/{TABLE}/campaigns"
    wire = Wire({line: refused(500, "INTERNAL_ERROR")})
    async with client_of(wire, origami) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.perform(origami.draft_campaign(TABLE, "Introduce us."))

    assert len(wire.times(line)) == 1


@pytest.mark.parametrize("instructions", ["", "x" * 10_001])
def test_instructions_that_no_campaign_takes_are_refused_before_any_request(instructions: str) -> None:
    with pytest.raises(ConfigurationError, match="instructions"):
        next(origami.draft_campaign(TABLE, instructions))


def test_an_entry_that_does_not_fit_is_skipped_and_no_other() -> None:  # A2
    runs = sample("runs")
    runs["items"].insert(1, runs["items"][0] | {"id": 7})
    runs["items"][-1] |= {"steps": "many", "prompt": None, "model": 3}
    _, page = exchange(origami.page(AGENT, None), Answer(runs))
    agents = sample("agents")
    agents["items"].append({"name": "no id"})
    agents["total"] = "many"

    assert len(page.runs) == len(runs["items"]) - 1
    assert len(exchange(origami.list_agents(), Answer(agents))[1].items) == len(agents["items"]) - 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_cancel_of_a_run_that_is_not_there_says_so_and_cancels_nothing() -> None:
    wire = Wire({POLL: answer("error-run-not-found", 404)})
    async with client_of(wire, origami) as client:
        with pytest.raises(NotFoundError, match="RUN_NOT_FOUND"):
            await client.cancel(REF)

    assert [request.method for _, request in wire.asked] == ["GET"]


def test_the_account_and_its_credits_are_read() -> None:
    account = {
        "object": "account",
        "organization": {"id": "o1", "name": None},
        "plan": {"id": "pro", "name": "Pro"},
        "capabilities": {"canUseApi": True, "canRunScheduledTasks": False, "concurrentAgents": None},
        "workspaces": {"used": 2, "limit": 10},
    }
    balance = {"object": "credits", "balance": 97.75, "currency": "credits"}
    asked, seen = exchange(origami.get_account(), Answer(account))
    asked_too, left = exchange(origami.get_credits(), Answer(balance))

    assert [asked[0].line, asked_too[0].line] == ["GET /account", "GET /account/credits"]
    assert_shown(account, seen, "$")
    assert_shown(balance, left, "$")


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("error-validation", 400, InvalidRequestError),
        ("error-run-not-found", 404, NotFoundError),
        ("error-credits", 402, QuotaError),
        ("error-subscription", 402, QuotaError),
    ],
)
async def test_every_documented_error_has_its_class_code_message_and_fields(
    name: str, status: int, kind: type[APIError]
) -> None:
    body = sample(name)
    wire = Wire({POLL: answer(name, status, {"x-request-id": "req_9"})})
    async with client_of(wire, origami) as client:
        with pytest.raises(kind) as caught:
            await client.fetch(REF)

    error = caught.value
    assert (error.status, error.code, error.message) == (status, body["code"], body["error"])
    assert error.request_id == "req_9"
    assert error.detail == body
    assert error.docs_url == body.get("handoff", {}).get("url", body.get("topUpUrl"))
    assert all(part in str(error) for part in (body["code"], body["error"], "req_9", error.docs_url or ""))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            {"details": {"issues": [{"path": "prompt", "message": "Too long"}, {"path": ["a", 0], "message": "Bad"}]}},
            ["prompt: Too long", "a.0: Bad"],
        ),
        ({"creditsRequired": 5, "creditsAvailable": 1.25}, ["credits required: 5", "available: 1.25"]),
        ({"message": "Budget of July is spent.", "blockedByBudgets": [{"id": "b1", "name": "July"}]}, ["July"]),
        ({"reason": "payment_failed", "message": "Pay first."}, ["payment_failed", "Pay first."]),
        ({"hint": "Upgrade to Pro.", "details": {"reason": "plan"}}, ["Upgrade to Pro.", "plan"]),
        ({"details": {"issues": "none"}, "message": 7, "blockedByBudgets": [3]}, []),
    ],
)
def test_the_text_of_a_refusal_has_the_reasons_that_stand_beside_it(
    body: dict[str, Any], told: list[str]
) -> None:  # A8
    given = Answer({"error": "no", "code": "NO"} | body, 402)
    response = Response(402, {}, given.body, Request("GET", "/agents"))
    error = QuotaError(response, origami.problem(response))

    assert error.message == "no"
    assert all(each in str(error) for each in told)
    assert len(error.particulars) >= len(told)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": "no", "handoff": "x", "details": [1], "currentRun": "x"}, "no", None),
        ({"message": "limit", "code": 7}, "limit", None),
        ([1], "[1]", None),
        (b"<html>bad gateway</html>", "<html>bad gateway</html>", None),
        (b"", "", None),
    ],
)
def test_other_error_bodies_are_understood(body: Any, message: str, code: str | None) -> None:
    given = Answer(body, 502)
    seen = origami.problem(Response(given.status, given.headers, given.body, Request("GET", "/agents")))

    assert (seen.message, seen.code, seen.docs_url, seen.request_id) == (message, code, None, None)


def test_pauses_are_plain_numbers_that_a_flow_asks_for() -> None:
    """A dialect never waits itself."""
    flow = origami.start(prompt())
    assert isinstance(flow, Generator)
    request = next(flow)
    assert isinstance(request, Request)
    error = RateLimitedError(
        Response(429, {}, SLOTS.body, request), origami.problem(Response(429, {}, SLOTS.body, request))
    )

    assert flow.throw(error) == AwaitSlot(60.0, 300.0)


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("on_cancel", ["cancel", "confirm"])
async def test_a_start_that_was_refused_so_far_is_given_up_at_once(on_cancel: Any) -> None:
    wire = Wire({CREATE: SLOTS})
    async with client_of(wire, origami) as client:
        waiting = asyncio.ensure_future(client.result(prompt(), on_cancel=on_cancel))
        await asyncio.sleep(10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.1)
    assert len(wire.asked) == 1


# More of the detail ---------------------------------------------------------------------------------------------------


def wholly(body: Any, polls: int = 1) -> tuple[Wire, list[Mapping[str, str]]]:
    """Return a vendor whose run is over after so many polls, and what it was asked for each time."""
    asked: list[Mapping[str, str]] = []

    def says(request: Request) -> Answer:
        asked.append(request.params)
        if request.params:
            return body if isinstance(body, Answer) else Answer(body)
        return answer("running" if len(asked) <= polls else "completed")

    return Wire({POLL: [says]}), asked


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("how", ["stream", "batch"])
async def test_a_run_that_is_over_is_read_once_more_with_what_is_to_be_included(how: str) -> None:  # C5
    wire, asked = wholly(sample("stats-and-transcript") | {"id": RUN})
    async with client_of(wire, origami) as client:
        if how == "stream":
            run = await client.result(REF, include="stats,transcript")
        else:
            (outcome,) = [each async for each in client.batch([REF], include="stats,transcript")]
            assert outcome.run is not None
            run = outcome.run

    assert asked == [{}, {}, {"include": "stats,transcript"}]
    assert run.detail.response.transcript is not None


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("body", [refused(500, None), refused(404, "RUN_NOT_FOUND"), {"id": 7}, sample("running")])
async def test_what_came_of_a_run_is_not_lost_where_it_cannot_be_read_once_more(
    body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    wire, _ = wholly(body)
    async with client_of(wire, origami) as client:
        run = await client.result(REF, include="stats")

    assert run.output == sample("completed")["response"]["text"]
    assert ("could not be read with include=stats" in caplog.text) == (body != sample("running"))


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_slow_last_look_does_not_hold_up_the_end_beyond_the_deadline() -> None:
    wire, _ = wholly(Answer(sample("stats-and-transcript") | {"id": RUN}, after=500.0))
    async with client_of(wire, origami) as client:
        run = await client.result(REF, include="stats", timeout=20)

    assert run.status is RunStatus.COMPLETED
    assert asyncio.get_running_loop().time() == pytest.approx(20.0)
