"""What an operator sees of whole clients: spans and metrics of runs with pauses, of handlers, deadlines and limits."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from agentruns import (
    Action,
    AuthenticationError,
    Client,
    DeadlineExceededError,
    NotFoundError,
    RateLimit,
    Retry,
    RunFailedError,
    RunRef,
    StalledError,
    ToolError,
    ToolOutput,
    Tools,
    narrative,
)
from agentruns._telemetry import names
from agentruns.dialects import load
from agentruns.emulator import Emulator, Turn
from agentruns.testing.case import Case
from tests.hostile.hostile_servers import TOKEN
from tests.recorded_telemetry import DOCUMENTED, Watched, attributes, histograms, numbers, recorded
from tests.scripted_wire import CONVERSATION, HEAD, POLL, RUN, START, STEADY, Answer, Wire, client_of, conversation, run
from tests.test_next_moves import CASES, OPTIONS
from tests.vendor_in_memory import VendorInMemory

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

PLAYED = {**OPTIONS, "origami": {"retry_after": 0}}

DURATION, TOKENS = "gen_ai.client.operation.duration", "gen_ai.client.token.usage"


@pytest.fixture
def otel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with recorded(monkeypatch) as watched:
        yield watched


def vendor(name: str, *script: Turn) -> tuple[Case, VendorInMemory]:
    """Return a vendor whose time is that of the loop."""
    emulator: Emulator[Any] = Emulator(
        name, script=script, token=TOKEN, clock=asyncio.get_running_loop().time, **PLAYED[name]
    )
    return CASES[name], VendorInMemory(emulator.state)


def client(case: Case, wire: VendorInMemory, **options: Any) -> Client[Any, Any]:
    return Client(load(case.dialect), wire, retry=Retry(attempts=2, backoff=STEADY), schedule=STEADY, **options)


def asking(name: str) -> Turn:
    return Turn(calls=[CASES[name].call(0)], running=3.0, usage=(100, 10))


def by_status(otel: Watched, name: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for point in histograms(otel, name):
        found.setdefault(str((point.attributes or {}).get("agentruns.run.status", "")), []).append(point.sum)
    return found


async def patiently(_: Any) -> str:
    await asyncio.sleep(20.0)
    return "yes"


# Runs with pauses -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("prompt_origami")
@pytest.mark.parametrize("name", ["narrative", "origami"])
async def test_each_run_between_answers_has_a_duration_where_an_answer_begins_another(otel: Watched, name: str) -> None:
    case, wire = vendor(name, asking(name), Turn("Done.", running=5.0))
    async with client(case, wire) as opened:
        await opened.result(await case.origin(opened, None), tools=patiently)

    took = by_status(otel, DURATION)
    assert took.keys() == {"requires_action", "completed"}
    assert took["requires_action"] == pytest.approx([3.0], abs=1.5)
    assert took["completed"] == pytest.approx([5.0], abs=1.5)  # how long a person thinks is no part of either


async def test_a_run_that_goes_on_in_place_has_one_duration_from_its_start_to_its_end(otel: Watched) -> None:
    case, wire = vendor("middesk", asking("middesk"), Turn("Done.", running=5.0))
    async with client(case, wire) as opened:
        await opened.result(await case.origin(opened, None), tools=patiently)

    took = by_status(otel, DURATION)
    assert took.keys() == {"completed"}
    assert took["completed"][0] > 20.0


async def test_the_tokens_of_each_run_are_recorded_once_by_type_and_model(otel: Watched) -> None:
    case, wire = vendor("narrative", asking("narrative"), Turn("Done.", usage=(200, 20)))
    async with client(case, wire) as opened:
        done = await opened.result(await case.origin(opened, None), tools=patiently)
        await opened.result(done.ref)  # which has been over for long: its tokens are not used again

    used = {str((point.attributes or {})["gen_ai.token.type"]): point for point in histograms(otel, TOKENS)}
    assert {which: (point.count, point.sum) for which, point in used.items()} == {"input": (2, 300), "output": (2, 30)}
    said = dict(used["input"].attributes or {})
    assert said.pop("gen_ai.request.model")
    assert said == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "narrative",
        "gen_ai.token.type": "input",
    }


async def test_a_start_whose_state_is_answered_by_hand_has_its_durations_too(otel: Watched) -> None:
    case, wire = vendor("narrative", asking("narrative"), Turn("Done.", running=5.0))
    async with client(case, wire) as opened:
        paused = [state async for state in opened.stream(await opened.start(await case.origin(opened, None)))][-1]
        await opened.result(await opened.resume(paused, [ToolOutput(each, "yes") for each in paused.actions]))

    assert by_status(otel, DURATION)["completed"] == pytest.approx([5.0], abs=1.5)
    assert sum(point.sum for point in histograms(otel, TOKENS)) > 110


# Handlers -------------------------------------------------------------------------------------------------------------


async def test_a_handler_is_a_span_below_its_run_and_what_it_does_hangs_below_that(otel: Watched) -> None:
    case, wire = vendor("narrative", asking("narrative"), Turn("Done."))
    tools, app, called = Tools(), otel.provider.get_tracer("app"), case.call(0).name

    @tools.add(name=called)
    def look_up(action: Action) -> str:  # in a thread, which the context follows
        with app.start_as_current_span("query"):
            return action.id

    async with client(case, wire) as opened:
        await opened.result(await case.origin(opened, None), tools=tools)

    spans = {span.name: span for span in otel.spans}
    first = min((span for span in otel.spans if span.name == "invoke_agent"), key=lambda span: span.start_time or 0)
    handler, query = spans[f"execute_tool {called}"], spans["query"]
    assert (handler.parent, query.parent) == (first.context, handler.context)
    assert handler.kind is SpanKind.INTERNAL
    said = dict(attributes(handler))
    assert said.pop("gen_ai.tool.call.id")
    assert said == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.provider.name": "narrative",
        "gen_ai.tool.name": called,
        "gen_ai.tool.type": "function",
        "agentruns.run.id": attributes(first)["agentruns.run.id"],
    }


@pytest.mark.parametrize(
    ("raised", "error_type"), [(ToolError("secret"), "ToolError"), (LookupError("secret"), "LookupError"), (None, None)]
)
async def test_a_handler_that_fails_is_an_error_of_its_type_and_no_more(
    otel: Watched, raised: Exception | None, error_type: str | None
) -> None:
    async def ask(_: Any) -> str:
        if raised is not None:
            raise raised
        return "yes"

    case, wire = vendor("narrative", asking("narrative"), Turn("Done."))
    async with client(case, wire) as opened:
        try:
            await opened.result(await case.origin(opened, None), tools=ask)
        except LookupError:
            assert raised is not None

    (handler,) = [span for span in otel.spans if span.name == "execute_tool default"]
    assert attributes(handler).get("error.type") == error_type
    assert (handler.status.status_code is StatusCode.ERROR) == (raised is not None)
    assert "secret" not in handler.to_json()


async def test_a_handler_that_is_cut_off_has_a_span_that_ends_without_an_error(otel: Watched) -> None:
    case, wire = vendor("narrative", asking("narrative"))
    async with client(case, wire) as opened:
        with pytest.raises(DeadlineExceededError):
            await opened.result(await case.origin(opened, None), tools=patiently, timeout=10.0)

    (handler,) = [span for span in otel.spans if span.name == "execute_tool default"]
    assert "error.type" not in attributes(handler)


# What ends the watching of a run --------------------------------------------------------------------------------------


async def test_a_deadline_is_an_error_of_the_span_and_of_the_duration(otel: Watched) -> None:
    case, wire = vendor("narrative", Turn("Done.", running=100.0))
    async with client(case, wire) as opened:
        stream = opened.stream(await case.origin(opened, None), timeout=10.0)
        with pytest.raises(DeadlineExceededError):
            await stream.result()
        assert stream.run is not None
        await opened.result(stream.run.ref)

    late, done = otel.spans
    assert (attributes(late)["error.type"], late.status.status_code) == ("DeadlineExceededError", StatusCode.ERROR)
    assert "error.type" not in attributes(done)
    failed = [point for point in histograms(otel, DURATION) if (point.attributes or {}).get("error.type")]
    assert [point.sum for point in failed] == pytest.approx([10.0], abs=0.5)


async def test_a_run_that_the_vendor_does_not_know_is_an_error_of_its_span(otel: Watched) -> None:
    case, wire = vendor("narrative")
    async with client(case, wire) as opened:
        with pytest.raises(NotFoundError):
            await opened.result(RunRef("9a4e1f52-6b7c-4d0f-8f3e-0d2c5b1a7e64"))

    assert attributes(otel.span)["agentruns.run.id"] == "9a4e1f52-6b7c-4d0f-8f3e-0d2c5b1a7e64"
    assert (attributes(otel.span)["error.type"], otel.span.status.status_code) == ("NotFoundError", StatusCode.ERROR)


async def test_a_run_that_fails_before_its_first_state_and_goes_on_has_one_span_which_ends(otel: Watched) -> None:
    wire = Wire({POLL: [Answer({}, 403), run("running"), run("completed")]})
    async with client_of(wire) as opened:
        stream = opened.stream(RunRef(RUN))  # whose parent the first state tells
        with pytest.raises(AuthenticationError):
            await stream.result()
        assert (await stream.result()).ref.parent == CONVERSATION
        assert len(otel.spans) == 1  # before the client is closed, which ends what is open

    assert attributes(otel.span)["agentruns.run.status"] == "completed"
    assert otel.span.status.status_code is StatusCode.UNSET


async def test_a_run_that_fails_before_its_first_state_and_is_left_has_a_span_which_ends(otel: Watched) -> None:
    async with client_of(Wire({POLL: Answer({}, 403)})) as opened:
        for ref in (RunRef(RUN), RunRef(RUN, CONVERSATION)):
            watching = opened.stream(RunRef(RUN))
            with pytest.raises(AuthenticationError):
                await watching.result()
            with pytest.raises(AuthenticationError):
                await opened.result(ref)
            await watching.aclose()
        assert {attributes(each)["error.type"] for each in otel.spans} == {"AuthenticationError"}
        assert not opened._telemetry._spans._open  # type: ignore[union-attr]


async def test_a_run_that_stalls_and_goes_on_is_no_error(otel: Watched) -> None:
    case, wire = vendor("narrative", Turn("Done.", running=30.0))
    async with client(case, wire) as opened:
        stream = opened.stream(await case.origin(opened, None), stall=10.0)
        with pytest.raises(StalledError):
            await stream.result()
        while True:
            try:
                await stream.result()
                break
            except StalledError:
                await asyncio.sleep(5.0)

    assert otel.span.status.status_code is StatusCode.UNSET


async def test_a_run_that_fails_says_so_in_its_duration(otel: Watched) -> None:
    case, wire = vendor("narrative", Turn(error="AgentLoopMaxIterationsExceeded"))
    async with client(case, wire) as opened:
        with pytest.raises(RunFailedError):
            await opened.result(await case.origin(opened, None))

    (point,) = histograms(otel, DURATION)
    assert (point.attributes or {})["error.type"] == attributes(otel.span)["error.type"]


# Requests and limits --------------------------------------------------------------------------------------------------


async def test_runs_that_are_followed_are_counted_up_and_down(otel: Watched) -> None:
    case, wire = vendor("narrative", Turn("Done.", running=100.0))
    async with client(case, wire) as opened:
        one, other = opened.stream(await case.origin(opened, None)), opened.stream(await case.origin(opened, None))
        await anext(one)
        await anext(other)
        assert [point.value for point in numbers(otel, "agentruns.runs.watched")] == [2]
        await one.aclose()
        assert [point.value for point in numbers(otel, "agentruns.runs.watched")] == [1]

    assert [point.value for point in numbers(otel, "agentruns.runs.watched")] == [0]


async def test_answers_of_429_and_the_rests_that_they_ask_for_are_recorded(otel: Watched) -> None:
    limited = Answer({}, 429, {"retry-after": "2"})
    wire = Wire({HEAD: conversation(), START: [limited, run("pending")], POLL: [limited, run("completed")]})
    async with client_of(wire) as opened:
        await opened.result(narrative.UserMessage(CONVERSATION, "Hello."))

    assert [point.value for point in numbers(otel, "agentruns.rate_limited")] == [2]
    (rest,) = histograms(otel, "agentruns.rest")
    assert (rest.count, rest.sum) == (2, 4.0)


async def test_the_budget_is_a_gauge_of_what_is_used_while_the_client_is_open(otel: Watched) -> None:
    case, wire = vendor("narrative", Turn("Done.", running=20.0))
    limit = RateLimit(10, 60.0)
    async with client(case, wire, limit=limit) as one, client(case, wire, limit=limit), client(case, wire):
        await one.start(await case.origin(one, None))
        await one.fetch(RunRef((await one.start(await case.origin(one, None))).id))
        (gauge,) = numbers(otel, "agentruns.budget.used")
        assert gauge.value == pytest.approx(one.stats().budget)
        assert gauge.value > 0
        await asyncio.sleep(120.0)
        assert [point.value for point in numbers(otel, "agentruns.budget.used")] == [0.0]

    assert numbers(otel, "agentruns.budget.used") == []


async def test_where_the_vendor_is_stands_with_everything(otel: Watched) -> None:
    case, wire = vendor("narrative", Turn("Done."))
    async with client(case, wire, base_url="https://api.narrative.io/v1") as opened:
        await opened.result(await case.origin(opened, None))

    place = {"server.address": "api.narrative.io", "server.port": 443}
    assert place.items() <= attributes(otel.span).items()
    for points in otel.points.values():
        assert all(place.items() <= dict(point.attributes or {}).items() for point in points)


@pytest.mark.parametrize(
    ("base_url", "place"),
    [
        ("http://127.0.0.1:8080/v1", {"server.address": "127.0.0.1", "server.port": 8080}),
        ("http://127.0.0.1", {"server.address": "127.0.0.1", "server.port": 80}),
        ("", {}),
    ],
)
async def test_an_address_is_a_host_and_a_port(base_url: str, place: dict[str, Any]) -> None:
    assert names.of_client("acme", base_url) == {"gen_ai.provider.name": "acme", **place}


# The names ----------------------------------------------------------------------------------------------


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "agentruns")
    return caplog


async def test_the_guide_has_every_name_that_is_recorded_or_logged(
    otel: Watched, told: pytest.LogCaptureFixture
) -> None:
    for name in ("narrative", "middesk"):
        case, wire = vendor(name, asking(name), Turn("Done.", usage=(1, 2)), Turn(error="broken"))
        options = {"limit": RateLimit(100, 1.0), "base_url": "https://api.test/v1"}
        async with client(case, wire, **options) as opened:
            await opened.result(await case.origin(opened, None), tools=patiently)
            assert otel.points["agentruns.budget.used"]
    refusing = Wire({HEAD: conversation(), START: [Answer({}, 429, {"retry-after": "2"}), run("failed")]})
    async with client_of(refusing) as opened:
        with pytest.raises(RunFailedError):
            await opened.result(narrative.UserMessage(CONVERSATION, "Hello."))

    points = otel.points
    recorded_names = {name for span in otel.spans for name in attributes(span)}
    recorded_names |= {event.name for span in otel.spans for event in span.events}
    recorded_names |= {name for span in otel.spans for event in span.events for name in event.attributes or {}}
    recorded_names |= points.keys() | {
        name for each in points.values() for point in each for name in point.attributes or {}
    }
    logged = {name for record in told.records for name in vars(record) if name.startswith("agentruns_")}
    assert {
        "agentruns.rest",
        "agentruns.rate_limited",
        "error.type",
        "gen_ai.tool.name",
        DURATION,
        TOKENS,
    } <= recorded_names
    assert recorded_names | logged <= DOCUMENTED
