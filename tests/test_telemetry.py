"""Telemetry: what the log, the spans and the metrics say of runs, what they keep back, and that they do no harm."""

import importlib.metadata
import json
import logging
import re
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextvars import copy_context
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from attrs import define, evolve
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.sdk.metrics.export import NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from agentruns import Backoff, connect, narrative
from agentruns._telemetry import PollOutcome, Telemetry, names
from agentruns._values.run import Action, Failure, Run, RunRef, RunStatus, Usage
from agentruns.emulator import Call, Emulator, Turn
from agentruns.errors import DeadlineExceededError
from tests.guides import ROOT
from tests.recorded_telemetry import DOCUMENTED, Watched, attributes, histograms, recorded, set_up

PENDING, RUNNING, ASKING, COMPLETED, FAILED = RunStatus
SECRET = "patient-4711"


def state(
    status: RunStatus,
    run_id: str = "9a4e",
    parent: str = "5e0c",
    usage: Usage | None = None,
    failure: Failure | None = None,
) -> Run:
    return Run(RunRef(run_id, parent), status, f"vendors {status}", usage=usage, failure=failure)


@pytest.fixture
def otel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with recorded(monkeypatch) as watched:
        yield watched


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `import opentelemetry` fail."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "agentruns")
    return caplog


def live(_telemetry: Telemetry, *statuses: RunStatus, run_id: str = "9a4e", kind: str = "") -> None:
    """Let a run go through these states."""
    before = None
    for status in statuses:
        run = state(status, run_id)
        _telemetry.on_state(run, before, kind_of=lambda _: kind)
        before = run


def telemetry_of(vendor: str) -> Telemetry:
    """Return what a client of this vendor tells; "someone" is a vendor that names no roles."""
    return (
        Telemetry(vendor)
        if vendor == "someone"
        else Telemetry(vendor, import_module(f"agentruns.dialects.{vendor}").TRACE_ROLES)
    )


def finish(telemetry: Telemetry, lag: float, took: float | None, failed: str | None = None, kind: str = "") -> None:
    """Let a run be seen to end."""
    run = state(COMPLETED if failed is None else FAILED, failure=None if failed is None else Failure(failed))
    telemetry.on_stopped(run, lag, took, lambda _: kind)


class Ledger(SpanProcessor):
    """Count the spans begun and ended, and tell which are still in memory."""

    def __init__(self) -> None:
        self.begun: list[weakref.ref[Span]] = []
        self.ended = 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.begun.append(weakref.ref(span))

    def on_end(self, span: ReadableSpan) -> None:
        self.ended += 1


# The log --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("bare")
def test_every_state_is_one_line_that_a_human_can_read(told: pytest.LogCaptureFixture) -> None:
    _telemetry = telemetry_of("narrative")
    _telemetry.on_state(state(PENDING), None, started=True)
    _telemetry.on_state(state(RUNNING), state(PENDING))
    _telemetry.on_state(evolve(state(RUNNING), output="more"), state(RUNNING))
    _telemetry.on_state(state(FAILED, failure=Failure("MaxIterations", "7")), state(RUNNING))
    _telemetry.on_state(state(COMPLETED, "d37a"), None)

    assert told.messages == [
        "run 9a4e of narrative: started, pending",
        "run 9a4e of narrative: pending -> running",
        "run 9a4e of narrative: running, changed",
        "run 9a4e of narrative: running -> failed (MaxIterations)",
        "run d37a of narrative: completed",
    ]
    assert {record.levelname for record in told.records} == {"INFO"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name.startswith("agentruns_")}


@pytest.mark.usefixtures("bare")
def test_a_line_carries_flat_fields_for_machines(told: pytest.LogCaptureFixture) -> None:
    _telemetry = telemetry_of("narrative")
    _telemetry.on_state(state(RUNNING), None, kind_of=lambda _: "opus")
    _telemetry.on_state(state(COMPLETED, usage=Usage(812, 64)), state(RUNNING), kind_of=lambda _: "opus")
    first, last = map(fields, told.records)

    assert first == {
        "agentruns_vendor": "narrative",
        "agentruns_run_id": "9a4e",
        "agentruns_parent": "5e0c",
        "agentruns_kind": "opus",
        "agentruns_key": "",
        "agentruns_status": "running",
        "agentruns_vendor_status": "vendors running",
        "agentruns_previous": "",
        "agentruns_error_type": "",
    }
    assert last == {
        **first,
        "agentruns_status": "completed",
        "agentruns_vendor_status": "vendors completed",
        "agentruns_previous": "running",
        "agentruns_input_tokens": 812,
        "agentruns_output_tokens": 64,
    }
    assert all(type(value) in {str, int} for value in last.values())
    assert json.loads(json.dumps(last)) == last


@pytest.mark.usefixtures("bare")
def test_a_format_string_may_name_the_fields_of_every_line(told: pytest.LogCaptureFixture) -> None:
    live(telemetry_of("narrative"), PENDING, FAILED)
    form = logging.Formatter(
        "%(agentruns_run_id)s %(agentruns_previous)s>%(agentruns_status)s %(agentruns_error_type)s"
    )

    assert [form.format(record) for record in told.records] == ["9a4e >pending ", "9a4e pending>failed _OTHER"]


@pytest.mark.usefixtures("bare")
def test_a_log_that_wants_no_info_gets_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "agentruns")
    live(telemetry_of("narrative"), PENDING, COMPLETED)

    assert caplog.records == []


def test_a_line_is_filed_under_the_span_of_its_run_and_not_under_the_callers(
    otel: Watched, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(told.handler, "emit", lambda record: seen.append(get_current_span().get_span_context().span_id))
    _telemetry = telemetry_of("narrative")
    with otel.provider.get_tracer("app").start_as_current_span("someone else's request") as request:
        live(_telemetry, PENDING, COMPLETED)
        assert get_current_span() is request

    ours = next(span for span in otel.spans if span.name == "invoke_agent")
    assert ours.context is not None
    assert seen == [ours.context.span_id] * 2


# Spans ----------------------------------------------------------------------------------------------------------------


def test_a_run_is_one_client_span_with_an_event_for_each_state(otel: Watched) -> None:
    _telemetry = telemetry_of("narrative")
    _telemetry.on_state(state(PENDING), None, kind_of=lambda _: "opus", started=True)
    _telemetry.on_state(state(RUNNING), state(PENDING), kind_of=lambda _: "opus")
    assert otel.spans == ()
    _telemetry.on_state(state(COMPLETED, usage=Usage(812, 64)), state(RUNNING), kind_of=lambda _: "opus")

    assert otel.span.name == "invoke_agent"
    assert otel.span.kind is SpanKind.CLIENT
    assert otel.span.status.status_code is StatusCode.UNSET
    assert dict(attributes(otel.span)) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "narrative",
        "gen_ai.conversation.id": "5e0c",
        "gen_ai.request.model": "opus",
        "gen_ai.usage.input_tokens": 812,
        "gen_ai.usage.output_tokens": 64,
        "agentruns.run.id": "9a4e",
        "agentruns.run.started": True,
        "agentruns.run.status": "completed",
        "agentruns.run.vendor_status": "vendors completed",
    }
    assert [(event.name, dict(event.attributes or {})) for event in otel.span.events] == [
        (
            "agentruns.run.status",
            {"agentruns.run.status": "pending", "agentruns.run.vendor_status": "vendors pending"},
        ),
        (
            "agentruns.run.status",
            {
                "agentruns.run.status": "running",
                "agentruns.run.vendor_status": "vendors running",
                "agentruns.run.previous_status": "pending",
            },
        ),
        (
            "agentruns.run.status",
            {
                "agentruns.run.status": "completed",
                "agentruns.run.vendor_status": "vendors completed",
                "agentruns.run.previous_status": "running",
            },
        ),
    ]


@pytest.mark.parametrize(
    ("vendor", "name", "expected"),
    [
        ("narrative", "invoke_agent", {"gen_ai.conversation.id": "parent", "gen_ai.request.model": "kind"}),
        ("middesk", "invoke_agent kind", {"gen_ai.conversation.id": "parent", "gen_ai.agent.name": "kind"}),
        ("origami", "invoke_agent", {"gen_ai.agent.id": "parent", "gen_ai.request.model": "kind"}),
        ("someone", "invoke_agent", {"agentruns.run.parent": "parent", "agentruns.run.kind": "kind"}),
    ],
)
def test_parent_and_kind_are_named_as_the_vendor_means_them(
    otel: Watched, vendor: str, name: str, expected: dict[str, str]
) -> None:
    telemetry_of(vendor).on_state(state(COMPLETED, parent="parent"), None, kind_of=lambda _: "kind")

    assert otel.span.name == name
    assert attributes(otel.span)["gen_ai.provider.name"] == vendor
    assert {key: value for key, value in attributes(otel.span).items() if value in {"parent", "kind"}} == expected


def test_conduits_runs_are_of_an_agent(otel: Watched) -> None:
    telemetry_of("conduit").on_state(state(COMPLETED, parent="ag1"), None, kind_of=lambda _: "ag1")

    assert [key for key, value in attributes(otel.span).items() if value == "ag1"] == ["gen_ai.agent.id"]


def test_what_samplers_decide_by_is_there_when_the_span_begins(otel: Watched) -> None:
    begun: list[dict[str, Any]] = []

    class Look(SpanProcessor):
        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            begun.append(dict(span.attributes or {}))

    otel.provider.add_span_processor(Look())
    live(telemetry_of("middesk"), PENDING, kind="tin_resolution")

    assert begun == [
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": "middesk",
            "gen_ai.conversation.id": "5e0c",
            "gen_ai.agent.name": "tin_resolution",
            "agentruns.run.id": "9a4e",
            "agentruns.run.started": False,
        }
    ]


def test_a_parent_or_kind_that_is_not_known_is_left_out(otel: Watched) -> None:
    telemetry_of("middesk").on_state(state(COMPLETED, parent=""), None)

    assert otel.span.name == "invoke_agent"
    assert not {"gen_ai.conversation.id", "gen_ai.agent.name"} & attributes(otel.span).keys()


def test_a_kind_that_comes_to_be_known_names_the_span(otel: Watched) -> None:
    _telemetry = telemetry_of("middesk")
    _telemetry.on_state(state(PENDING), None)
    _telemetry.on_state(state(COMPLETED), state(PENDING), kind_of=lambda _: "tin_resolution")

    assert otel.span.name == "invoke_agent tin_resolution"
    assert attributes(otel.span)["gen_ai.agent.name"] == "tin_resolution"


@pytest.mark.parametrize(
    ("failure", "error_type"),
    [(Failure("MaxIterations", "7"), "MaxIterations"), (Failure(""), "_OTHER"), (None, "_OTHER")],
)
def test_a_failed_run_is_an_error_of_its_type(otel: Watched, failure: Failure | None, error_type: str) -> None:
    _telemetry = telemetry_of("narrative")
    _telemetry.on_state(state(RUNNING), None)
    _telemetry.on_state(state(FAILED, failure=failure), state(RUNNING))

    assert otel.span.status.status_code is StatusCode.ERROR
    assert otel.span.status.description is None
    assert attributes(otel.span)["error.type"] == error_type


def test_a_run_that_requires_action_keeps_its_span(otel: Watched) -> None:
    _telemetry = telemetry_of("middesk")
    live(_telemetry, RUNNING, ASKING)
    assert otel.spans == ()
    _telemetry.on_state(state(RUNNING), state(ASKING))
    _telemetry.on_state(state(COMPLETED), state(RUNNING))

    statuses = [(event.attributes or {})["agentruns.run.status"] for event in otel.span.events]
    assert statuses == ["running", "requires_action", "running", "completed"]


def test_a_run_that_nobody_watches_any_more_ends_its_span_without_an_error(otel: Watched) -> None:
    _telemetry = telemetry_of("narrative")
    live(_telemetry, RUNNING, run_id="1")
    live(_telemetry, RUNNING, run_id="2")
    _telemetry.on_unwatched(RunRef("1", "5e0c"))
    _telemetry.on_unwatched(RunRef("1", "5e0c"))
    _telemetry.on_unwatched(RunRef("unheard of"))

    assert attributes(otel.span)["agentruns.run.id"] == "1"
    assert attributes(otel.span)["agentruns.run.status"] == "running"
    assert otel.span.status.status_code is StatusCode.UNSET
    assert "error.type" not in attributes(otel.span)


def test_a_run_that_is_watched_again_gets_another_span(otel: Watched) -> None:
    _telemetry = telemetry_of("narrative")
    live(_telemetry, RUNNING)
    _telemetry.on_unwatched(RunRef("9a4e", "5e0c"))
    _telemetry.on_state(state(COMPLETED), state(RUNNING))

    assert [attributes(span)["agentruns.run.status"] for span in otel.spans] == ["running", "completed"]


def test_a_run_that_changes_after_its_end_gets_no_second_span(otel: Watched, told: pytest.LogCaptureFixture) -> None:
    _telemetry = telemetry_of("narrative")
    live(_telemetry, RUNNING, COMPLETED)
    _telemetry.on_state(evolve(state(COMPLETED), output="late"), state(COMPLETED))

    assert len(otel.spans) == 1
    assert len(told.records) == 3


def test_the_end_of_the_client_ends_every_span_and_begins_no_more(
    otel: Watched, told: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger()
    otel.provider.add_span_processor(ledger)
    _telemetry = telemetry_of("narrative")
    live(_telemetry, RUNNING, run_id="1")
    live(_telemetry, ASKING, run_id="2")
    _telemetry.close()
    _telemetry.close()
    live(_telemetry, RUNNING, run_id="3")

    assert sorted(attributes(span)["agentruns.run.id"] for span in otel.spans) == ["1", "2"]
    assert {span.status.status_code for span in otel.spans} == {StatusCode.UNSET}
    assert len(ledger.begun) == 2
    assert told.messages[-1] == "run 3 of narrative: running"


def test_a_span_belongs_to_whoever_saw_the_run_first(otel: Watched) -> None:
    _telemetry, app = telemetry_of("narrative"), otel.provider.get_tracer("app")
    with app.start_as_current_span("request") as request:
        context = copy_context()  # what a poller of its own, that many requests share, must carry over
    context.run(_telemetry.on_state, state(PENDING), None)
    with app.start_as_current_span("other request"):
        _telemetry.on_state(state(COMPLETED), state(PENDING))

    ours = next(span for span in otel.spans if span.name == "invoke_agent")
    assert ours.parent == request.get_span_context()


def test_runs_of_the_same_id_and_another_parent_are_others(otel: Watched) -> None:
    _telemetry = telemetry_of("origami")
    _telemetry.on_state(state(RUNNING, parent="a"), None)
    _telemetry.on_state(state(COMPLETED, parent="b"), None)

    assert attributes(otel.span)["gen_ai.agent.id"] == "b"


lives = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([*RunStatus, None])))


@given(lives)
def test_whatever_happens_no_span_outlives_its_run(steps: list[tuple[str, RunStatus | None]]) -> None:
    ledger, provider = Ledger(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(ledger)
    last: dict[str, Run] = {}
    with pytest.MonkeyPatch.context() as patch:
        set_up(patch, provider.get_tracer, metrics.get_meter)
        _telemetry = telemetry_of("middesk")
        for run_id, status in steps:  # None: nobody watches it any more
            if status is None:
                _telemetry.on_unwatched(RunRef(run_id, "5e0c"))
                last.pop(run_id, None)
            else:
                _telemetry.on_state(state(status, run_id), last.get(run_id))
                last[run_id] = state(status, run_id)

    going = {run_id for run_id, run in last.items() if run.status in {PENDING, RUNNING, ASKING}}
    assert len(ledger.begun) - ledger.ended == len(going)
    assert sum(span() is not None for span in ledger.begun) == len(going)
    _telemetry.close()
    assert len(ledger.begun) == ledger.ended
    assert sum(span() is not None for span in ledger.begun) == 0


# The key of the work, and the names ---------------------------------------------------------------------------------

CONFIG = narrative.Config(
    model="anthropic.claude-opus-4.6",
    data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
    max_iterations=8,
    max_tokens=2048,
    output_format_schema=narrative.TEXT_SCHEMA,
    client_tools=[narrative.client_tools({"approve": lambda: True}, alias="ops")],
)


@pytest.mark.asyncio
async def test_the_key_of_the_work_stands_in_each_line_and_in_each_span(
    otel: Watched, told: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    script = [Turn(calls=[Call("approve", {})]), Turn("Done.")]
    with Emulator("narrative", script=script) as emulator:
        client = connect(
            narrative,
            token=emulator.token,
            base_url=emulator.base_url,
            schedule=Backoff(initial=0.01),
            journal=tmp_path / "runs.db",
        )
        async with client:
            for key in ("invoice-17", None):
                conversation = await client.perform(narrative.create_conversation(CONFIG))
                origin = narrative.UserMessage(conversation.id, "Pay.")
                await client.result(origin, tools=lambda action: True, key=key)

    runs = {str(attributes(span)["agentruns.run.id"]): span for span in otel.spans if span.name == "invoke_agent"}
    keys = {run_id: attributes(span).get("agentruns.work.key") for run_id, span in runs.items()}
    assert sorted(map(str, keys.values())) == ["None", "None", "invoice-17", "invoice-17"]
    lines = [vars(record) for record in told.records if hasattr(record, "agentruns_key")]
    assert {line["agentruns_run_id"]: line["agentruns_key"] for line in lines} == {
        run_id: key or "" for run_id, key in keys.items()
    }
    assert all(line["agentruns_key"] == (keys[line["agentruns_run_id"]] or "") for line in lines)


def test_a_name_in_the_guide_is_one_that_the_package_has() -> None:
    modules = (ROOT / "agentruns").rglob("*.py")
    known = "".join(path.read_text() for path in modules if "_telemetry" in path.parts or "dialects" in path.parts)
    own = {name for name in DOCUMENTED if re.match(r"agentruns[._]|gen_ai\.|server\.|error\.", name)}
    missing = {name for name in own if f'"{name}"' not in known}
    assert missing <= {
        f"{start}{which}_tokens" for start in ("gen_ai.usage.", "agentruns_") for which in ("input", "output")
    }


def test_a_name_that_is_not_our_own_is_one_of_the_conventions() -> None:
    modules = (gen_ai_attributes, gen_ai_metrics, error_attributes, server_attributes)
    conventions = {getattr(module, name) for module in modules for name in dir(module) if name.isupper()}
    theirs = {name for name in DOCUMENTED if re.match(r"gen_ai\.|server\.|error\.", name)}
    assert len(theirs) > 15
    assert theirs <= conventions
    operations = {each.value for each in gen_ai_attributes.GenAiOperationNameValues}
    assert {names.INVOKE_AGENT, names.EXECUTE_TOOL} <= operations


# What stays inside ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", ["narrative", "middesk", "origami", "conduit", "someone"])
def test_nothing_that_an_agent_reads_or_writes_gets_out(
    otel: Watched, told: pytest.LogCaptureFixture, vendor: str
) -> None:
    _telemetry = telemetry_of(vendor)
    for end in (COMPLETED, FAILED):
        before = None
        for status in (PENDING, RUNNING, ASKING, end, end):
            run = Run(
                RunRef(f"run that {end}", "5e0c"),
                status,
                "vendors word",
                actions=(Action("call", "open_file", {"path": SECRET}),),
                output={"text": SECRET},
                failure=Failure("ToolFailed", SECRET),
                usage=Usage(1, 2),
                vendor=vendor,
                detail={"said": SECRET},
                raw={"said": SECRET},
            )
            _telemetry.on_state(run, before, kind_of=lambda _: "opus")
            before = run
        finish(_telemetry, 0.1, 2.0, "ToolFailed")
    _telemetry.close()

    lines = [f"{record.getMessage()} {vars(record)!r}" for record in told.records]
    spans = [span.to_json() for span in otel.spans]
    assert (len(lines), len(spans)) == (10, 2)
    assert all("opus" in text and "vendors word" in text for text in (*lines, *spans))
    assert ["ToolFailed" in text for text in spans] == [False, True]
    assert all(SECRET not in text for text in (*lines, *spans, repr(otel.points)))


# Metrics --------------------------------------------------------------------------------------------------------------


def test_polls_are_counted_by_what_came_of_them(otel: Watched) -> None:
    _telemetry = telemetry_of("origami")
    for times, outcome in enumerate(get_args(PollOutcome), 1):
        for _ in range(times):
            _telemetry.polled(outcome)

    counted = {
        (point.attributes or {})["agentruns.poll.outcome"]: point.value
        for point in otel.points["agentruns.polls"]
        if isinstance(point, NumberDataPoint) and (point.attributes or {})["gen_ai.provider.name"] == "origami"
    }
    assert counted == {"unchanged": 1, "changed": 2, "lost": 3, "refused": 4}


def test_lists_are_counted_with_the_runs_in_them(otel: Watched) -> None:
    _telemetry = telemetry_of("conduit")
    _telemetry.listed(20)
    _telemetry.listed(0)
    (point,) = histograms(otel, "agentruns.list.runs")

    assert (point.count, point.sum, point.attributes) == (2, 20, {"gen_ai.provider.name": "conduit"})


def test_ends_are_recorded_with_how_late_they_were_seen_and_how_long_the_run_took(otel: Watched) -> None:
    _telemetry = telemetry_of("middesk")
    finish(_telemetry, 0.25, 40.0)
    finish(_telemetry, 0.75, None)
    finish(_telemetry, 0.0, 1.0, "aborted")
    finish(_telemetry, 0.0, 2.0, "")
    (lag,) = histograms(otel, "agentruns.run.lag")
    durations = histograms(otel, "gen_ai.client.operation.duration")

    assert (lag.count, lag.sum, lag.attributes) == (4, 1.0, {"gen_ai.provider.name": "middesk"})
    operation = {"gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": "middesk"}
    failed = {**operation, "agentruns.run.status": "failed"}
    assert [(point.sum, point.attributes) for point in durations] == [
        (40.0, {**operation, "agentruns.run.status": "completed"}),
        (1.0, {**failed, "error.type": "aborted"}),
        (2.0, {**failed, "error.type": "_OTHER"}),
    ]


def test_the_bounds_of_durations_begin_as_in_the_conventions_and_go_on_to_hours(otel: Watched) -> None:
    finish(telemetry_of("middesk"), 0.1, 5000.0)
    (point,) = histograms(otel, "gen_ai.client.operation.duration")
    documented = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)

    assert tuple(point.explicit_bounds[:14]) == documented
    assert point.bucket_counts[-1] == 0


# Doing no harm --------------------------------------------------------------------------------------------------------


def exercise(_telemetry: Telemetry) -> None:
    """Do all that can be done."""
    live(_telemetry, PENDING, RUNNING, FAILED, run_id="1")
    live(_telemetry, RUNNING, run_id="2")
    live(_telemetry, RUNNING, run_id="3")
    _telemetry.on_unwatched(RunRef("2", "5e0c"))
    _telemetry.polled("changed")
    _telemetry.listed(3)
    _telemetry.watched(1)
    _telemetry.limited()
    _telemetry.rested(1.0)
    _telemetry.on_failure(RunRef("3", "5e0c"), DeadlineExceededError(None, "5 s have passed"))
    finish(_telemetry, 0.1, 1.0)
    _telemetry.close()


@pytest.mark.usefixtures("bare")
def test_without_opentelemetry_there_are_only_lines(told: pytest.LogCaptureFixture) -> None:
    exercise(telemetry_of("narrative"))

    assert len(told.records) == 5
    assert {record.levelname for record in told.records} == {"INFO"}


def test_without_an_sdk_there_are_only_lines(told: pytest.LogCaptureFixture) -> None:
    exercise(telemetry_of("narrative"))

    assert len(told.records) == 5
    assert {record.levelname for record in told.records} == {"INFO"}


def broken(*_: object, **__: object) -> Any:
    raise RuntimeError("out of order")


class Broken:
    """A span, instrument, tracer or meter of which nothing works."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return broken


@define
class Half:
    """A tracer and meter that work, and give out what does not."""

    def start_span(self, *_: object, **__: object) -> Any:
        return Broken()

    create_counter = create_histogram = create_up_down_counter = create_observable_gauge = start_span


@pytest.mark.parametrize("provider", [broken, lambda *_: Broken(), lambda *_: Half()])
def test_an_sdk_that_is_broken_breaks_nothing_and_is_complained_of_once(
    told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, provider: Callable[..., Any]
) -> None:
    set_up(monkeypatch, provider, provider)
    exercise(telemetry_of("narrative"))

    complaints = [record for record in told.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in complaints] == [
        "telemetry failed; the runs go on without: RuntimeError('out of order')"
    ]
    assert [message for message in told.messages if message.startswith("run ")] == [
        "run 1 of narrative: pending",
        "run 1 of narrative: pending -> running",
        "run 1 of narrative: running -> failed (_OTHER)",
        "run 2 of narrative: running",
        "run 3 of narrative: running",
    ]


def test_an_outcome_that_is_not_known_breaks_nothing(otel: Watched, told: pytest.LogCaptureFixture) -> None:
    telemetry_of("narrative").polled("nonsense")  # type: ignore[arg-type]

    assert "nonsense" in told.text


def test_a_span_that_takes_no_events_is_ended_all_the_same(otel: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Span, "add_event", broken)
    live(telemetry_of("narrative"), RUNNING, COMPLETED)

    assert otel.span.end_time is not None


def test_a_log_that_is_broken_breaks_nothing(
    otel: Watched, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(record: logging.LogRecord) -> bool:
        asked.append(record.getMessage())
        raise RuntimeError("out of order")

    monkeypatch.setattr(logging.getLogger("agentruns"), "filters", [refuse])
    exercise(telemetry_of("narrative"))

    assert [line.split(" of ")[0] for line in asked if line.startswith("run")] == ["run 1"] * 3 + ["run 2", "run 3"]
    assert len(otel.spans) == 3
    assert [span.status.status_code for span in otel.spans].count(StatusCode.ERROR) == 2
    assert {event.name for span in otel.spans for event in span.events} == {"agentruns.run.status"}


@pytest.mark.parametrize("sdk", [False, True], ids=["log alone", "log and SDK"])
def test_a_kind_that_cannot_be_told_is_left_out_whoever_hears_of_the_run(
    told: pytest.LogCaptureFixture, request: pytest.FixtureRequest, sdk: bool
) -> None:
    otel: Watched | None = request.getfixturevalue("otel") if sdk else None
    telemetry_of("narrative").on_state(state(COMPLETED), None, kind_of=broken)

    complaint, line = told.messages
    assert complaint.startswith("telemetry failed")
    assert line == "run 9a4e of narrative: completed"
    assert otel is None or "gen_ai.request.model" not in attributes(otel.span)


@pytest.fixture
def _version_unread() -> Iterator[None]:
    """Have the version looked up anew, and forgotten afterwards."""
    names.version.cache_clear()
    yield
    names.version.cache_clear()


@pytest.mark.usefixtures("_version_unread")
def test_spans_say_which_version_made_them(otel: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"1.2 of {name}")
    live(telemetry_of("narrative"), COMPLETED)

    scope = otel.span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("agentruns", "1.2 of agentruns")


@pytest.mark.usefixtures("_version_unread")
def test_a_source_tree_that_is_not_installed_has_no_version(otel: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    live(telemetry_of("narrative"), COMPLETED)

    assert otel.span.instrumentation_scope is not None
    assert not otel.span.instrumentation_scope.version


# In a process of its own ----------------------------------------------------------------------------------------------


def printed(program: str) -> str:
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_importing_the_module_does_not_import_opentelemetry_and_making_one_does() -> None:
    loaded = "print(any(name.split('.')[0] == 'opentelemetry' for name in sys.modules))"
    program = f"import sys; from agentruns._telemetry import Telemetry; {loaded}; Telemetry('narrative'); {loaded}"

    assert printed(program).split() == ["False", "True"]


RUN = """
from agentruns._values.run import Run, RunRef, RunStatus
from agentruns._telemetry import Telemetry
telemetry = Telemetry("narrative")
"""

SDK = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader]))
"""

SHOW = """
telemetry.on_state(Run(RunRef("9a4e", "5e0c"), RunStatus.COMPLETED, "completed"), None)
telemetry.polled("changed")
print([span.name for span in spans.get_finished_spans()])
(scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
print([metric.name for metric in scope.metrics])
"""


@pytest.mark.parametrize("program", [SDK + RUN, RUN + SDK], ids=["sdk first", "client first"])
def test_the_sdk_of_the_application_may_be_set_up_before_or_after(program: str) -> None:
    assert printed(program + SHOW).splitlines() == ["['invoke_agent']", "['agentruns.polls']"]


def test_before_the_application_has_an_sdk_no_kind_is_asked_for_and_the_first_state_after_it_begins_the_span() -> None:
    state = 'Run(RunRef("9a4e", "5e0c"), RunStatus.RUNNING, "running")'
    tell = "telemetry.on_state({run}, {before}, kind_of=lambda run: print(run.status) or 'opus')\n"
    first, second = tell.format(run=state, before=None), tell.format(run=state, before=state)

    clock = "now = [0.0]; telemetry.open(lambda: now[0])\n"

    shown = printed(RUN + clock + first + SDK + "now[0] = 1.0\n" + second + SHOW.replace(", None)", f", {state})", 1))

    assert shown.splitlines() == ["running", "['invoke_agent']", "['agentruns.polls']"]


SDK_OF_METRICS, SDK_OF_SPANS = (
    "\n".join(line for line in SDK.strip().splitlines() if f"set_{other}_provider" not in line)
    for other in ("tracer", "meter")
)


@pytest.mark.parametrize(
    ("before", "sdk"),
    [
        (f"{SDK_OF_METRICS}\ntelemetry.on_state(run, None)", SDK_OF_SPANS),
        ("telemetry.on_failure(run.ref, OSError())", SDK),
    ],
    ids=["metrics were recorded already", "a wait for the run has failed"],
)
def test_a_run_that_is_followed_when_spans_come_to_be_recorded_has_its_span(before: str, sdk: str) -> None:
    program = f"""
{RUN}
now = [0.0]
telemetry.open(lambda: now[0])
run = Run(RunRef("9a4e", "5e0c"), RunStatus.RUNNING, "running")
{before}
{sdk}
now[0] = 1.0
telemetry.on_state(Run(run.ref, RunStatus.COMPLETED, "completed"), run)
print([span.name for span in spans.get_finished_spans()])
"""

    assert printed(program) == "['invoke_agent']"


def test_a_process_without_the_extra_has_its_lines() -> None:
    program = f"""
import logging, sys
sys.modules["opentelemetry"] = None
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
{RUN}
telemetry.on_state(Run(RunRef("9a4e"), RunStatus.COMPLETED, "completed"), None)
telemetry.polled("changed")
"""

    assert printed(program) == "run 9a4e of narrative: completed"
