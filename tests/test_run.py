"""Run and its parts: what makes two states equal, what cannot change, and how they are kept."""

import copy
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from attrs import evolve, fields
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from agentruns import (
    Action,
    ConfigurationError,
    Failure,
    Outcome,
    Progress,
    ProtocolError,
    Run,
    RunRef,
    RunStatus,
    ToolOutput,
    Usage,
    narrative,
)
from agentruns._values.commands import Sleep
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.run import Page, short_json_of
from tests.scripted_wire import CALL, CONVERSATION, RUN, refuses, run_body
from tests.scripted_wire import run as answer_of

ACTION = Action("call-1", "approve", {"amount": 940, "lines": [{"no": 1}]})
FULL = Run(
    RunRef("run-1", "parent-1"),
    RunStatus.REQUIRES_ACTION,
    "interrupted",
    actions=(ACTION,),
    output={"text": "so far"},
    failure=Failure("Fault", "why"),
    usage=Usage(812, 64),
    progress=Progress(1, 6),
    poll_after=2.5,
    vendor="another",
    raw={"id": "run-1", "new": [None, 1.5, {"a": True}]},
)


def narrative_run(status: str = "running", headers: Mapping[str, str] | None = None, **changes: Any) -> Run:
    """Return a run as the dialect reads it, by driving its flow by hand."""
    flow = narrative.fetch(RunRef(RUN), {})
    request = next(flow)
    assert isinstance(request, Request)
    answer = answer_of(status, **changes)
    with pytest.raises(StopIteration) as end:
        flow.send(Response(200, headers or {}, answer.body, request))
    run = end.value.value
    assert isinstance(run, Run)
    return run


# Status ---------------------------------------------------------------------------------------------------------------


def test_a_status_is_a_word_and_two_move_by_themselves_and_two_are_over() -> None:
    assert [str(status) for status in RunStatus] == ["pending", "running", "requires_action", "completed", "failed"]
    assert {status for status in RunStatus if status.in_flight} == {RunStatus.PENDING, RunStatus.RUNNING}
    assert {status for status in RunStatus if status.is_over} == {RunStatus.COMPLETED, RunStatus.FAILED}
    assert json.dumps(RunStatus.FAILED) == '"failed"'


# Equality -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"ref": RunRef("run-2", "parent-1")},
        {"ref": RunRef("run-1", "parent-2")},
        {"status": RunStatus.RUNNING},
        {"vendor_status": "needs_input"},
        {"actions": ()},
        {"actions": (evolve(ACTION, arguments={}),)},
        {"output": None},
        {"failure": None},
        {"failure": Failure("Fault", "why not")},
    ],
)
def test_a_run_that_a_reader_would_treat_differently_is_not_equal(change: dict[str, Any]) -> None:
    assert evolve(FULL, **change) != FULL


@pytest.mark.parametrize(
    "change",
    [
        {"usage": None},
        {"progress": Progress(2, 6)},
        {"poll_after": None},
        {"vendor": ""},
        {"detail": object()},
        {"raw": {}},
    ],
)
def test_counters_and_what_the_vendor_adds_do_not_make_two_states_differ(change: dict[str, Any]) -> None:
    assert evolve(FULL, **change) == FULL


def test_each_field_is_tested_for_whether_it_counts() -> None:
    assert {field.name for field in fields(Run) if field.eq} == {
        "ref",
        "status",
        "vendor_status",
        "actions",
        "output",
        "failure",
    }


def test_two_reads_of_the_same_state_are_equal_and_of_different_ones_are_not() -> None:
    assert narrative_run("running") == narrative_run("running", submitted_inference_job_ids=["a", "b"])
    assert narrative_run("running") != narrative_run("pending")


# What cannot change ---------------------------------------------------------------------------------------------------

REQUEST = Request("POST", "/runs", {"page": "1"}, {"a": 1}, {"x": "y"})
VALUES: list[Any] = [
    FULL,
    narrative_run("failed"),
    narrative_run("requires_action"),
    RunRef("run-1", "parent-1"),
    ACTION,
    ToolOutput(ACTION, {"ok": True}, is_error=True),
    Failure("Fault", "why"),
    Usage(1, 2),
    Progress(1, None),
    Outcome(3, "key", "origin", FULL, ValueError("x"), item="item"),
    Page((FULL,), "next"),
    Sleep(1.5),
    REQUEST,
    Response(404, {"date": "now"}, b"{}", REQUEST),
    Problem("why", "code", "Title", "https://docs", "log", {"a": 1}),
]
names = [type(value).__name__ for value in VALUES]


@pytest.mark.parametrize("value", VALUES, ids=names)
def test_no_field_can_be_set_and_none_added(value: Any) -> None:
    for name in [*(field.name for field in fields(type(value))), "other"]:
        with pytest.raises((FrozenInstanceError, AttributeError)):
            setattr(value, name, None)


def _repickled(protocol: int) -> Callable[[Any], Any]:
    return lambda value: pickle.loads(pickle.dumps(value, protocol))


COPIES = [*map(_repickled, range(2, pickle.HIGHEST_PROTOCOL + 1)), copy.copy, copy.deepcopy]


@pytest.mark.parametrize("value", VALUES, ids=names)
def test_every_value_survives_pickling_and_copying_field_for_field(value: Any) -> None:
    for duplicate in COPIES:
        back = duplicate(value)
        assert type(back) is type(value)
        for field in fields(type(value)):
            before, after = getattr(value, field.name), getattr(back, field.name)
            assert after == before or (isinstance(before, Exception) and repr(after) == repr(before))
            assert type(after) is type(before)


# Requests -------------------------------------------------------------------------------------------------------------


def test_only_reading_is_idempotent_unless_a_request_says_so() -> None:
    assert Request("GET", "/runs").idempotent
    assert not Request("POST", "/runs").idempotent
    assert Request("POST", "/runs", idempotent=True).idempotent
    assert Request("POST", "/runs").line == "POST /runs"


def test_bodies_stay_out_of_what_is_printed() -> None:
    assert "secret" not in repr(Request("POST", "/runs", json={"secret": 1}))
    assert "secret" not in repr(Response(200, {}, b"secret", REQUEST))
    assert "new" not in repr(FULL)


# Parking --------------------------------------------------------------------------------------------------------------


def same(back: Run, run: Run) -> bool:
    names = [field.name.lstrip("_") for field in fields(Run)]
    return all(getattr(back, name) == getattr(run, name) for name in names)


@pytest.mark.parametrize("status", ["pending", "running", "requires_action", "completed", "failed", "a_new_word"])
def test_a_parked_run_comes_back_whole_detail_and_raw_included(status: str) -> None:
    run = narrative_run(status, {"retry-after": "3"}, brand_new={"field": [1, 2.5, None]})
    back = Run.from_json(run.to_json())

    assert same(back, run)
    assert isinstance(back.detail, narrative.NarrativeRun)
    assert back.raw == run_body(status, brand_new={"field": [1, 2.5, None]})
    assert back.to_json() == run.to_json()
    assert Run.from_json(run.to_json().encode()) == run


def test_half_an_emoji_in_what_was_received_is_read_and_parked_as_the_sign_for_what_is_no_character() -> None:
    body = answer_of("running").body.replace(b"{", rb'{"cut \ud83d": "\ude00", ', 1)
    run = narrative.parse_run(Response(200, {}, body, Request("GET", "/runs/1")))
    parked = Run.from_json(run.to_json())

    assert run.raw["cut \ufffd"] == parked.raw["cut \ufffd"] == "\ufffd"


def test_a_paused_run_can_be_answered_after_parking() -> None:
    back = Run.from_json(narrative_run("requires_action").to_json())

    assert back.actions == (Action(CALL["tool_use_id"], CALL["name"], CALL["arguments"]),)  # type: ignore[arg-type]
    assert back.ref == RunRef(RUN, CONVERSATION)
    flow = narrative.resume(back, [ToolOutput(back.actions[0], "yes")])
    request = next(flow)
    assert isinstance(request, Request)
    assert request.line == f"GET /agents/conversations/{CONVERSATION}"
    flow.close()


def test_a_run_of_a_vendor_that_is_not_ours_comes_back_without_detail() -> None:
    back = Run.from_json(evolve(FULL, detail={"kept": "nowhere"}).to_json())

    assert back.detail is None
    assert same(back, FULL)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
runs = st.builds(
    Run,
    ref=st.builds(RunRef, st.text(), st.text()),
    status=st.sampled_from(RunStatus),
    vendor_status=st.text(),
    actions=st.lists(
        st.builds(Action, st.text(), st.text(), st.dictionaries(st.text(), json_values, max_size=2)), max_size=2
    ).map(tuple),
    output=json_values,
    failure=st.none() | st.builds(Failure, st.text(), st.text()),
    usage=st.none() | st.builds(Usage, st.integers(), st.integers()),
    progress=st.none() | st.builds(Progress, st.integers(), st.none() | st.integers()),
    poll_after=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    vendor=st.text().filter(lambda name: name not in {"narrative", "middesk", "origami", "conduit"}),
    raw=st.dictionaries(st.text(), json_values, max_size=3),
)


@given(runs)
def test_any_run_comes_back_as_it_was(run: Run) -> None:
    assert same(Run.from_json(run.to_json()), run)


def test_a_deeply_nested_answer_can_be_parked() -> None:
    deep: Any = {}
    for _ in range(500):
        deep = [deep] if isinstance(deep, dict) else {"a": deep}
    run = evolve(FULL, raw={"deep": deep})

    assert same(Run.from_json(run.to_json()), run)


@pytest.mark.parametrize("output", [math.nan, object(), "\ud800"])
def test_a_run_that_json_cannot_carry_is_not_parked(output: Any) -> None:
    with pytest.raises(ConfigurationError, match="run run-1 is not something that JSON can carry"):
        evolve(FULL, output=output).to_json()


def test_a_parked_run_that_this_version_knows_otherwise_has_no_detail_but_all_the_rest() -> None:
    parked = json.dumps(json.loads(FULL.to_json()) | {"vendor": "narrative"})
    run = Run.from_json(parked)

    assert run == FULL
    with pytest.raises(ProtocolError, match=r"required field missing @ \$\.conversation_id"):
        _ = run.detail
    assert run.raw == FULL.raw


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected object, got null"),
        ("null", "expected object, got null"),
        ("[]", "expected object, got array"),
        ("{}", r"required field missing @ \$\.ref"),
        ("not json", "JSON is malformed"),
        (b"\xff", "JSON is malformed"),
        ("[" * 100_000, "nested too deeply"),
        (json.dumps(json.loads(FULL.to_json()) | {"status": "unheard"}), "'unheard' is not a valid RunStatus"),
        (json.dumps(json.loads(FULL.to_json()) | {"ref": {"id": 7}}), r"expected string, got integer @ \$\.ref\.id"),
        (
            json.dumps(json.loads(FULL.to_json()) | {"usage": {"input_tokens": 1}}),
            r"missing @ \$\.usage\.output_tokens",
        ),
        (FULL.to_json()[:-1], "truncated"),
    ],
)
def test_a_text_that_is_no_parked_run_is_refused_with_the_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"(?s)^this is not a run .*{reason}.*\. Pass the text unchanged$"):
        Run.from_json(text)


@given(st.text() | st.binary() | json_values.map(json.dumps))
def test_no_text_raises_anything_else(text: str | bytes) -> None:
    with pytest.raises(ConfigurationError):
        Run.from_json(text)


def test_the_id_of_a_run_is_that_of_its_reference() -> None:
    assert FULL.id == "run-1"
    assert RunRef("run-1") == RunRef("run-1", "")
    assert len({RunRef("run-1"), RunRef("run-1"), RunRef("run-1", "parent")}) == 2


def test_a_parked_run_whose_raw_is_not_the_details_shape_is_read_back() -> None:
    made = Run(RunRef("a"), RunStatus.REQUIRES_ACTION, "requires_action", vendor="narrative")
    assert Run.from_json(made.to_json()) == made


PAUSED = Run(RunRef("run", CONVERSATION), RunStatus.REQUIRES_ACTION, "requires_action", (ACTION,), vendor="narrative")


# Values of other types ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["a-1", None, Action, PAUSED])
def test_an_answer_is_to_an_action(action: Any) -> None:
    with refuses(f"ToolOutput.action is {action!r}; it must be of the class Action", "one of `run.actions`"):
        ToolOutput(action, 1)


@pytest.mark.parametrize("text", [3, None, 0, [], {}, PAUSED])
def test_a_run_is_read_from_text_alone(text: Any) -> None:
    with refuses(f"{text!r} is not the text of a run", "pass what `Run.to_json` returned"):
        Run.from_json(text)


def test_a_run_is_read_from_text_and_from_bytes() -> None:
    assert Run.from_json(PAUSED.to_json()) == PAUSED
    assert Run.from_json(PAUSED.to_json().encode()) == PAUSED


# Values that can be kept in sets --------------------------------------------------------------------------------------


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2).map(round) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


ACTIONS = st.builds(
    Action, st.sampled_from("12"), st.sampled_from("xy"), st.dictionaries(st.just("a"), JSON, max_size=1)
)


ANSWERS = st.builds(ToolOutput, ACTIONS, JSON, st.booleans())


RUNS = st.builds(
    Run,
    st.builds(RunRef, st.sampled_from("12")),
    st.sampled_from([RunStatus.COMPLETED, RunStatus.REQUIRES_ACTION]),
    st.just("word"),
    st.lists(ACTIONS, max_size=2).map(tuple),
    JSON,
    st.none() | st.just(Failure("f")),
)


@given(ACTIONS | ANSWERS | RUNS, st.data())
def test_whatever_a_value_holds_it_has_a_hash_that_equal_values_share(one: Any, data: st.DataObject) -> None:
    other = data.draw({Action: ACTIONS, ToolOutput: ANSWERS, Run: RUNS}[type(one)])

    hash(one)
    assert one in {one, other}
    if one == other:
        assert hash(one) == hash(other)
    assert hash(one) == hash(evolve(one))


def test_what_tells_values_apart_is_what_told_them_apart_before() -> None:
    assert evolve(ACTION, arguments={"day": "Friday"}) != ACTION
    assert ToolOutput(ACTION, [1]) != ToolOutput(ACTION, [2])
    assert evolve(PAUSED, output={"a": 1}) != evolve(PAUSED, output={"a": 2})
    assert len({PAUSED, evolve(PAUSED, output={"a": 1}), evolve(PAUSED, output={"a": 1})}) == 2
    assert Action("1", "x", {"n": 1}) == Action("1", "x", {"n": 1.0})
    assert hash(Action("1", "x", {"n": 1})) == hash(Action("1", "x", {"n": 1.0}))


# Kept in a journal ----------------------------------------------------------------------------------------------------

LONG = "The invoice was approved on Monday, after two checks by the finance team."


@pytest.mark.parametrize(
    ("output", "raw"),
    [
        (LONG, {"id": "r", "messages": [{"text": "Hi"}, {"text": LONG}]}),
        ({"findings": [LONG, 1]}, {"id": "r", "result": {"value": {"findings": [LONG, 1]}}}),
    ],
)
def test_a_journal_keeps_an_output_once(output: Any, raw: dict[str, Any]) -> None:
    run = Run(RunRef("r"), RunStatus.COMPLETED, "done", output=output, raw=raw)
    text = short_json_of(run)
    again = Run.from_json(text)
    assert text.count(LONG) == 1
    assert (again.output, again.raw, again) == (output, raw, run)
    assert Run.from_json(run.to_json()) == run
    assert run.to_json().count(LONG) == 2, "whoever reads it as JSON finds the output where it belongs"


@pytest.mark.parametrize("output", ["Done.", None, 7, [], {"findings": [True]}, LONG])
def test_an_output_that_is_short_or_stands_nowhere_else_is_kept_as_it_is(output: Any) -> None:
    run = Run(RunRef("r"), RunStatus.COMPLETED, "done", output=output, raw={"a": "Done.", "b": {"findings": [1]}})
    assert short_json_of(run).count("output_at") == 0
    assert Run.from_json(short_json_of(run)).output == output


def test_a_place_in_which_nothing_stands_is_told() -> None:
    run = Run(RunRef("r"), RunStatus.COMPLETED, "done", output=LONG, raw={"messages": [{"text": LONG}]})
    for damaged in (short_json_of(run).replace("messages", "message", 1), short_json_of(run).replace(",0,", ",9,")):
        with pytest.raises(ConfigurationError, match="nothing at"):
            Run.from_json(damaged)


def test_a_run_out_of_a_file_has_its_detail_in_a_program_that_imports_no_more() -> None:
    program = "import sys; from agentruns import Run; print(type(Run.from_json(sys.stdin.read()).detail).__name__)"
    command = [sys.executable, "-c", program]
    text = narrative_run("completed").to_json()

    assert subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout == "NarrativeRun\n"
