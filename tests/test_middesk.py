"""Middesk's rules, on scripted answers: above all that nothing is started twice, and nothing answered twice."""

import asyncio
import hashlib
import hmac
import inspect
import json
import pickle
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest

from agentruns import (
    Action,
    ActionRequiredError,
    AgentRunsError,
    AlreadyAnsweredError,
    AnswerIgnoredError,
    APIError,
    AuthenticationError,
    Client,
    ConfigurationError,
    ConflictError,
    Failure,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
    RateLimitedError,
    Retry,
    Run,
    RunRef,
    RunStatus,
    ServerError,
    ToolError,
    ToolOutput,
    Tools,
    TransportError,
    UnsupportedError,
    connect,
)
from agentruns._values import codec
from agentruns._values.commands import Checkpoint, Command, Flow, Lock, SkippedRows, Sleep
from agentruns._values.exchange import Request, Response
from agentruns.dialects import middesk
from agentruns.dialects.protocol import Cancels, Dialect, Lists, Recovers, Resumes, StreamsEvents
from agentruns.emulator import Call, Emulator, Turn
from tests.scripted_wire import NOTHING, STEADY, Answer, Lost, Scripted, Wire, client_of, refuses

T = TypeVar("T")
SAMPLES = Path(__file__).parent / "samples" / "middesk"

THREAD = "4d0c6f1e-8a53-4b0e-9c37-2f6b1a90d7e4"
RUN = "e3a9b7c4-5d21-4c88-a0f6-7b1e2d93c540"
OLD_RUN = "7f61d0a8-92c4-4e1b-bd35-18e4c7f20a96"
BUSINESS = "b86f3c52-11d9-4f07-8e6a-90c2d5a7714f"
AGENT = "cip_orchestrator"
OPEN_THREAD = "POST /threads"
START = "POST /runs"
LIST = "GET /runs"
POLL = f"GET /runs/{RUN}"
RESUME = f"POST /runs/{RUN}/resume"
ASKED, ASKED_TOO = "int_58c0e1f29a7d4b36", "int_90b2f4ac1d6e4e07"

ON_BUSINESS = middesk.RunRequest(AGENT, business_id=BUSINESS)
ON_THREAD = middesk.RunRequest(AGENT, thread_id=THREAD)


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def body(name: str = "running", **changes: Any) -> dict[str, Any]:
    return {**sample(name), **changes}


def run(name: str = "running", **changes: Any) -> Answer:
    return Answer(body(name, **changes))


def thread(**changes: Any) -> Answer:
    return Answer(sample("thread") | changes, 201)


def listed(*runs: Mapping[str, Any], more: bool = False) -> Answer:
    return Answer({"object": "list", "has_more": more, "data": runs, "total_count": 300})


def refused(status: int, message: str = "No.", **fields: Any) -> Answer:
    return Answer({"errors": [{"message": message, **fields}]}, status)


def paused(*ids: str) -> dict[str, Any]:
    """Return a run that waits for the interrupts of these ids."""
    return body("interrupted", interrupts=[{"id": each, "value": {"label": each}} for each in ids or (ASKED,)])


def state(raw: Mapping[str, Any]) -> Run:
    return drive(middesk.fetch(RunRef(RUN), {}), Answer(raw))[1]


def outputs(raw: Mapping[str, Any], output: Any = None) -> list[ToolOutput]:
    return [ToolOutput(action, output or {"decision": "approve"}) for action in state(raw).actions]


def drive(flow: Flow[T], *answers: Answer) -> tuple[list[Command], T]:
    """Drive a flow by hand, without waiting: what it asked for, and what it returned."""
    assert isinstance(flow, Generator)
    asked: list[Command] = []
    left = list(answers)
    try:
        wanted: Command = next(flow)
        while True:
            asked.append(wanted)
            answer = left.pop(0) if isinstance(wanted, Request) else Answer()
            request = wanted if isinstance(wanted, Request) else Request("NONE", "/")
            wanted = flow.send(Response(answer.status, answer.headers, answer.body, request))
    except StopIteration as end:
        assert not left
        return asked, end.value


def lines(asked: Sequence[Command]) -> list[str]:
    return [each.line if isinstance(each, Request) else repr(each) for each in asked]


def over(script: Mapping[str, Scripted | list[Scripted]]) -> tuple[Wire, Client]:
    wire = Wire(script)
    return wire, client_of(wire, middesk)


def test_the_module_is_a_dialect_that_resumes_lists_and_announces() -> None:
    dialect: Dialect = middesk

    assert (dialect.NAME, dialect.BASE_URL) == ("middesk", "https://api.middesk.com/v1")
    assert (dialect.TOKEN_VARIABLE, dialect.BASE_URL_VARIABLE) == ("MIDDESK_API_KEY", "MIDDESK_BASE_URL")
    assert dialect.BUDGET is not None
    assert (dialect.BUDGET.count, dialect.BUDGET.seconds) == (18, 1.0)
    assert isinstance(middesk, Resumes)
    assert isinstance(middesk, Lists)
    assert isinstance(middesk, StreamsEvents)
    assert not isinstance(middesk, Cancels)


# Starting -------------------------------------------------------------------------------------------------------------


def test_a_start_without_a_thread_makes_one_of_its_own_first() -> None:
    asked, started = drive(middesk.start(ON_BUSINESS), thread(), Answer(body(), 201))

    opened, noted, posted = asked
    assert lines([opened, posted]) == [OPEN_THREAD, START]
    assert isinstance(noted, Checkpoint)  # before the request whose outcome it would settle
    assert noted.data["thread_id"] == THREAD
    assert isinstance(opened, Request)
    assert isinstance(posted, Request)
    assert opened.json == sample("start-on-a-business")
    assert opened.idempotent
    assert posted.json == sample("start-on-a-thread")
    assert not posted.idempotent
    assert (started.ref, started.status) == (RunRef(RUN, THREAD), RunStatus.RUNNING)


def test_a_context_may_be_given_as_a_pair() -> None:
    pair = {"context_type": "business", "context_id": BUSINESS}
    asked, _ = drive(middesk.start(middesk.RunRequest(AGENT, **pair)), thread(), run())

    assert isinstance(asked[0], Request)
    assert asked[0].json == {"type": AGENT, **pair}


def test_a_start_on_a_named_thread_looks_at_what_is_there_and_sends_what_was_given() -> None:
    origin = middesk.RunRequest(AGENT, thread_id=THREAD, business_id=BUSINESS)
    asked, _ = drive(middesk.start(origin), listed(), run())

    held, looked, noted, posted = asked
    assert lines([held, looked, posted]) == [repr(Lock(f"middesk thread {THREAD}")), LIST, START]
    assert isinstance(noted, Checkpoint)
    assert isinstance(posted, Request)
    assert posted.json == {"type": AGENT, "thread_id": THREAD, "business_id": BUSINESS}
    assert not posted.idempotent


def test_a_first_state_need_not_be_running() -> None:
    _, started = drive(middesk.start(ON_BUSINESS), thread(), run("interrupted"))

    assert started.status is RunStatus.REQUIRES_ACTION


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"type": ""}, "RunRequest.type"),
        ({"type": None}, "RunRequest.type"),
        ({"thread_id": ""}, "RunRequest.thread_id"),
        ({"thread_id": 7}, "RunRequest.thread_id"),
        ({"business_id": ""}, "business_id is ''"),
        ({"thread_id": None, "business_id": None}, "give either business_id, or both context_type and context_id"),
        ({"business_id": None, "context_type": "business"}, "both context_type and context_id"),
        ({"business_id": None, "context_id": BUSINESS}, "both context_type and context_id"),
        ({"context_type": "business", "context_id": BUSINESS}, "either business_id"),
        ({"thread_id": THREAD, "business_id": None, "context_id": BUSINESS}, "or neither"),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_when_it_is_made(wrong: dict[str, Any], named: str) -> None:
    fields = {"type": AGENT, "business_id": BUSINESS} | wrong
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        middesk.RunRequest(**fields)


UNCLEAR: list[Scripted] = [
    Lost(),
    Lost("no whole answer within 30 s"),
    Answer({"errors": [{"message": "Oops"}]}, 500),
    Answer(b"<html>bad gateway</html>", 502),
    Answer({}, 408),
    Answer(b'{"object": "run", "id"', 201),
    Answer({}, 201),
    Answer(b"", 201),
]
"""Answers that do not say whether the run was started."""


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("answer", UNCLEAR)
@pytest.mark.parametrize("origin", [ON_BUSINESS, ON_THREAD])
async def test_a_run_whose_answer_was_lost_is_found_and_never_posted_again(
    answer: Scripted, origin: middesk.RunRequest
) -> None:
    earlier = body("error", thread_id=THREAD, created_at="2026-09-14T09:00:00Z")
    there = listed(body(), earlier)
    before = [listed(earlier)] if origin.thread_id else []
    wire, client = over({OPEN_THREAD: thread(), START: answer, LIST: [*before, there]})
    async with client:
        started = await client.start(origin)

    assert started.ref == RunRef(RUN, THREAD)
    assert len(wire.bodies(START)) == 1
    assert len(wire.times(LIST)) == len(before) + 1


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("answer", UNCLEAR)
@pytest.mark.parametrize("origin", [ON_BUSINESS, ON_THREAD])
async def test_a_run_that_is_not_found_has_an_unknown_outcome_and_is_not_posted_again(
    answer: Scripted, origin: middesk.RunRequest
) -> None:
    wire, client = over({OPEN_THREAD: thread(), START: answer, LIST: listed(body("error"))})
    async with client:
        with pytest.raises(OutcomeUnknownError, match=f"no new run of {AGENT} on thread {THREAD} ") as caught:
            await client.start(origin)

    assert caught.value.request.line == START
    assert isinstance(caught.value.__cause__, OutcomeUnknownError)
    assert len(wire.bodies(START)) == 1
    assert [when for when in wire.times(LIST) if when] == [1.0, 3.0, 7.0, 15.0]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_run_that_shows_late_is_waited_for() -> None:
    nothing = listed()
    wire, client = over({OPEN_THREAD: thread(), START: Lost(), LIST: [nothing, nothing, nothing, listed(body())]})
    async with client:
        assert (await client.start(ON_BUSINESS)).id == RUN

    assert len(wire.bodies(START)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_later_pages_are_looked_at_and_a_run_listed_twice_counts_once() -> None:
    busy = [body(id=f"other-{n}", thread_id="other") for n in range(2)]
    pages = {"1": listed(*busy, body(), more=True), "2": listed(body(), *busy)}
    wire, client = over({OPEN_THREAD: thread(), START: Lost(), LIST: lambda request: pages[request.params["page"]]})
    async with client:
        assert (await client.start(ON_BUSINESS)).id == RUN

    assert [request.params for _, request in wire.asked if request.line == LIST] == [
        {"page": "1", "per_page": "100"},
        {"page": "2", "per_page": "100"},
    ]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_look_goes_no_further_back_than_the_start_and_never_on_for_ever() -> None:
    old = listed(body("error", created_at="2026-09-13T00:00:00Z"), more=True)
    wire, client = over({OPEN_THREAD: thread(), START: Lost(), LIST: old})
    async with client:
        with pytest.raises(OutcomeUnknownError):
            await client.start(ON_BUSINESS)
    assert len(wire.times(LIST)) == 4

    endless = listed(body(id="other", thread_id="other"), more=True)
    wire, client = over({OPEN_THREAD: thread(), START: Lost(), LIST: endless})
    async with client:
        with pytest.raises(OutcomeUnknownError):
            await client.start(ON_BUSINESS)
    assert len(wire.times(LIST)) == 4 * 10


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_run_may_have_coarser_times_than_its_thread() -> None:
    created = body(created_at="2026-09-14T09:05:31Z")
    _, client = over({
        OPEN_THREAD: thread(created_at="2026-09-14T09:05:31.900Z"),
        START: Lost(),
        LIST: listed(created),
    })
    async with client:
        assert (await client.start(ON_BUSINESS)).id == RUN


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    "others",
    [
        [body(id=OLD_RUN, created_at="2026-09-14T09:05:00Z")],
        [body(id="elsewhere", thread_id="other")],
        [body(id="another-agent", agent="tin_resolution")],
        [body(id="nowhere", thread_id=None)],
    ],
)
async def test_what_is_not_certainly_ours_is_not_taken_for_it(others: list[dict[str, Any]]) -> None:
    before = listed(body(id="newest", created_at="2026-09-14T09:05:10Z"))
    wire, client = over({START: Lost(), LIST: [before, listed(*others)]})
    async with client:
        with pytest.raises(OutcomeUnknownError, match=r"no new run of .* for 15 s"):
            await client.start(ON_THREAD)

    assert len(wire.bodies(START)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_run_that_names_no_agent_is_known_by_its_thread() -> None:
    unnamed = {key: value for key, value in body().items() if key != "agent"}
    _, client = over({OPEN_THREAD: thread(), START: Lost(), LIST: listed(unnamed)})
    async with client:
        assert (await client.start(ON_BUSINESS)).id == RUN


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_two_new_runs_on_the_thread_are_not_chosen_between() -> None:
    wire, client = over({START: Lost(), LIST: [listed(), listed(body(), body(id=OLD_RUN))]})
    async with client:
        with pytest.raises(OutcomeUnknownError, match=f"2 new runs .* ambiguous: {RUN}, {OLD_RUN}"):
            await client.start(ON_THREAD)

    assert len(wire.bodies(START)) == 1
    assert len(wire.times(LIST)) == 2


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("dates", "more", "found"),
    [
        (["2026-09-14T09:00:00Z", "2026-09-14T08:00:00Z"], True, True),  # newest first
        (["2026-09-14T08:00:00Z", "2026-09-14T09:00:00Z"], True, False),  # oldest first
        (["2026-09-14T08:00:00Z", "2026-09-14T09:00:00Z", "2026-09-14T07:00:00Z"], True, False),  # in no order
        (["2026-09-14T08:00:00Z", "2026-09-14T09:00:00Z"], False, True),  # but all of them
        (["2026-09-14T09:00:00Z", "2026-09-14T09:00:00Z"], True, False),  # of one moment, and perhaps further ones
    ],
)
async def test_on_a_named_thread_a_list_that_cannot_tell_new_from_old_settles_nothing(
    dates: list[str], more: bool, found: bool
) -> None:
    before = [body(id=f"run-{n}", created_at=date) for n, date in enumerate(dates)]
    wire, client = over({START: Lost(), LIST: [listed(*before, more=more), listed(body(), *before)]})
    async with client:
        if found:
            assert (await client.start(ON_THREAD)).id == RUN
        else:
            with pytest.raises(OutcomeUnknownError, match="certainly new"):
                await client.start(ON_THREAD)

    assert len(wire.bodies(START)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("trouble", [Lost(), Answer({}, 503), refused(401), Answer({"data": 1})])
async def test_looks_that_fail_leave_the_outcome_unknown_and_hide_it_behind_nothing(trouble: Scripted) -> None:
    wire, client = over({OPEN_THREAD: thread(), START: Lost(), LIST: trouble})
    async with client:
        with pytest.raises(OutcomeUnknownError, match="the last look failed: "):
            await client.start(ON_BUSINESS)

    assert len(wire.bodies(START)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_look_that_fails_is_followed_by_another() -> None:
    wire, client = over({OPEN_THREAD: thread(), START: Lost(), LIST: [Lost(final=True), listed(body())]})
    async with client:
        assert (await client.start(ON_BUSINESS)).id == RUN

    assert wire.times(LIST) == [1.0, 3.0]


def test_a_client_that_can_no_longer_send_ends_the_looking_at_once() -> None:
    flow = middesk.start(ON_BUSINESS)
    next(flow)
    opened = thread()
    assert isinstance(flow.send(Response(201, {}, opened.body, Request("POST", "/threads"))), Checkpoint)
    posted = flow.send(NOTHING)
    assert isinstance(posted, Request)
    assert isinstance(flow.throw(OutcomeUnknownError(posted, "reset")), Sleep)
    assert isinstance(flow.send(Response(204, {}, b"", posted)), Request)
    with pytest.raises(OutcomeUnknownError, match="this client is closed"):
        flow.throw(AgentRunsError("this client is closed"))


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_stream_whose_start_has_an_unknown_outcome_never_starts_again() -> None:
    wire, client = over({OPEN_THREAD: thread(), START: Lost(), LIST: [listed()]})
    async with client:
        stream = client.stream(ON_BUSINESS)
        for _ in range(3):
            with pytest.raises(OutcomeUnknownError):
                await anext(stream)

    assert len(wire.bodies(START)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_lost_thread_is_made_again_because_an_empty_one_is_harmless() -> None:
    wire, client = over({OPEN_THREAD: [Lost(), Answer({}, 500), thread()], START: run()})
    async with client:
        await client.start(ON_BUSINESS)

    assert len(wire.bodies(OPEN_THREAD)) == 3
    assert len(wire.bodies(START)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_start_that_was_certainly_not_accepted_is_sent_again() -> None:
    wire, client = over({OPEN_THREAD: thread(), START: [Lost("refused", sent=False), refused(429), run()]})
    async with client:
        assert (await client.start(ON_BUSINESS)).id == RUN

    assert len(wire.bodies(START)) == 3
    assert wire.times(LIST) == []


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (Answer(sample("refused-without-context"), 400), InvalidRequestError, "Provide thread_id, business_id"),
        (refused(401), AuthenticationError, "No."),
        (refused(404, "Thread not found"), NotFoundError, "Thread not found"),
        (refused(422, "Business is in audit"), InvalidRequestError, "Business is in audit"),
        (refused(429, "Slow down"), RateLimitedError, "Slow down"),
        (Lost("refused", sent=False), TransportError, "refused"),
    ],
)
async def test_a_refused_start_is_an_error_and_nothing_is_looked_for(
    answer: Scripted, kind: type[Exception], text: str
) -> None:
    wire, client = over({OPEN_THREAD: thread(), START: answer})
    async with client:
        with pytest.raises(kind, match=text):
            await client.start(ON_BUSINESS)

    assert wire.times(LIST) == []


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_named_thread_that_cannot_be_looked_at_beforehand_starts_nothing() -> None:
    wire, client = over({LIST: Answer({}, 503), START: run()})
    async with client:
        with pytest.raises(ServerError):
            await client.start(ON_THREAD)

    assert wire.bodies(START) == []


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_two_starts_on_one_thread_never_take_each_others_run() -> None:
    """The first loses its answer; the second must not post before the first has been settled."""
    posted: list[dict[str, Any]] = []

    def post(request: Request) -> Answer:
        posted.insert(0, body(id=f"run-{len(posted)}", created_at=f"2026-09-14T09:05:3{len(posted)}Z"))
        return Answer({}, 500) if len(posted) == 1 else Answer(posted[0], 201)

    wire, client = over({START: post, LIST: lambda _: listed(*posted)})
    async with client:
        started = await asyncio.gather(client.start(ON_THREAD), client.start(ON_THREAD))

    assert [each.id for each in started] == ["run-0", "run-1"]
    assert len(wire.bodies(START)) == 2


# States ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("running", RunStatus.RUNNING),
        ("interrupted", RunStatus.REQUIRES_ACTION),
        ("completed", RunStatus.COMPLETED),
        ("error", RunStatus.FAILED),
        ("pending", RunStatus.PENDING),
        ("failed", RunStatus.FAILED),
        ("meditating", RunStatus.RUNNING),
    ],
)
def test_each_status_word_of_now_and_then_is_ours_and_an_unknown_one_is_in_flight(word: str, status: RunStatus) -> None:
    seen = state(body(status=word))

    assert (seen.status, seen.vendor_status) == (status, word)
    assert (None if seen.failure is None else seen.failure.type) == (word if status is RunStatus.FAILED else None)


def test_an_interrupted_run_has_one_action_per_interrupt() -> None:
    plain = sample("interrupt-of-one-agent")
    wrapped = sample("interrupted")["interrupts"][0]
    seen = state(body("interrupted", interrupts=[wrapped, plain]))

    assert seen.actions == (
        Action(ASKED, "interrupt", wrapped["value"]),
        Action(ASKED_TOO, "tin_resolution", plain["value"]),
    )
    assert seen.vendor == "middesk"
    assert middesk.handler_names(seen.actions[1]) == ("tin_resolution",)


def test_the_status_is_trusted_and_not_what_is_left_in_the_other_fields() -> None:
    """The sample on get-agent-run is completed, and lists an interrupt."""
    artifacts = sample("completed")["output"]
    ended = state(body("every-field"))
    waiting = state(body("interrupted", output=artifacts))

    assert (ended.actions, ended.output) == ((), body("every-field")["output"])
    assert waiting.output is None
    assert state(body("interrupted", interrupts=[])).actions == ()


def test_the_output_of_a_completed_run_is_its_envelope_as_it_came() -> None:
    envelope = {"artifacts": [{"title": "T", "type": "odd", "extra": {"kept": True}}], "more": 1}

    assert state(body("completed", output=envelope)).output == envelope
    assert state(body("completed", output=None)).output is None


def step(kind: str, status: str, label: str, *inner: Mapping[str, Any]) -> dict[str, Any]:
    return {**sample("steps")[0], "type": kind, "status": status, "label": label, "steps": [*inner]}


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (None, "a run has no field for why; its trace may say it: read the run with include=steps"),  # A8
        ([], ""),
        ([step("error", "error", "x") | {"label": 7}, "odd", {"steps": 3}], ""),
        ([step("activity", "completed", "fine")], ""),
        ([step("error", "error", "no registry answered"), step("output", "completed", "x")], "no registry answered"),
        ([step("activity", "error", "outer", step("error", "error", "inner"))], "inner"),
        ([step("activity", "error", "compare"), step("activity", "completed", "x")], "compare"),
        ([step("error", "error", "first"), step("error", "error", "last")], "last"),
    ],
)
def test_a_failed_run_says_why_where_its_steps_do(steps: Any, reason: str) -> None:
    assert state(body("error", steps=steps)).failure == Failure("error", reason)
    assert state(body("completed", steps=steps)).failure is None


def contains(seen: Any, wanted: Any) -> bool:
    """Tell whether our classes hold every field of a JSON value."""
    if isinstance(seen, tuple):
        return len(seen) == len(wanted) and all(contains(*pair) for pair in zip(seen, wanted, strict=True))
    if attrs.has(type(seen)):
        return all(contains(getattr(seen, name), value) for name, value in wanted.items())
    if isinstance(seen, datetime):
        return seen.tzinfo is not None and seen == datetime.fromisoformat(wanted)
    return type(seen) is type(wanted) and bool(seen == wanted)


@pytest.mark.parametrize("name", ["running", "interrupted", "completed", "error", "every-field"])
def test_every_documented_field_of_a_sample_is_in_detail(name: str) -> None:
    seen = state(sample(name))

    assert isinstance(seen.detail, middesk.MiddeskRun)
    assert contains(seen.detail, sample(name))
    assert seen.raw == sample(name)
    assert middesk.detail(seen.raw) == seen.detail


def test_times_come_with_and_without_fractions() -> None:
    assert state(body("error")).detail.created_at == datetime(2026, 9, 14, 10, 12, 0, 418000, UTC)
    assert state(body()).detail.created_at == datetime(2026, 9, 14, 9, 5, 31, tzinfo=UTC)


def test_nested_steps_and_the_policy_that_closed_an_interrupt_are_typed() -> None:
    plan, asked = state(body("every-field")).detail.steps

    assert plan.steps[0].parent_step_id == plan.id
    assert plan.steps[0].steps == ()
    assert (plan.resolved_by, asked.resolved_by) == (None, "auto_approve")
    assert attrs.evolve(asked, result=None, resolution="skip").resolved_by == "skip"


@pytest.mark.parametrize("confidence", ["high", 0.7, 1, None])
def test_a_confidence_is_a_label_or_a_score(confidence: Any) -> None:
    artifact = {"title": "T", "type": "t", "confidence": confidence}
    seen = state(body("completed", output={"artifacts": [artifact]}))

    assert contains(seen.detail.output.artifacts[0], artifact)


def test_a_run_as_short_as_a_webhook_has_it_is_read() -> None:
    seen = state(sample("webhook")["data"]["object"])

    assert seen.ref == RunRef(OLD_RUN, "")
    assert (seen.detail.agent, seen.detail.requester, seen.detail.output) == (None, None, None)


@pytest.mark.parametrize(("steps", "seen"), [("absent", None), (None, None), ([], ())])
def test_steps_that_were_not_asked_for_may_be_missing_in_any_way(steps: Any, seen: Any) -> None:
    raw = body() if steps == "absent" else body(steps=steps)

    assert state(raw).detail.steps == seen


@pytest.mark.parametrize("field", ["id", "created_at", "status"])
def test_a_missing_field_that_a_state_needs_names_the_path(field: str) -> None:
    raw = body()
    del raw[field]
    with pytest.raises(ProtocolError, match=rf"required field missing @ \$\.{field}") as caught:
        state(raw)

    assert caught.value.response is not None
    assert json.loads(caught.value.response.body) == raw


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"status": None}, r"expected string, got null @ \$\.status"),
        ({"thread_id": 7}, r"expected string, got integer @ \$\.thread_id"),
        ({"created_at": 1789376731}, r"expected date-time, got integer @ \$\.created_at"),
        ({"status": "interrupted", "interrupts": [{"value": {}}]}, r"field missing @ \$\.interrupts\[0\]\.id"),
        ({"status": "interrupted", "interrupts": {}}, r"expected array, got object @ \$\.interrupts"),
        (
            {"status": "interrupted", "interrupts": [{"id": ASKED, "value": "x"}]},
            r"expected object, got string @ \$\.interrupts\[0\]\.value",
        ),
    ],
)
def test_what_a_state_needs_names_its_path_where_it_does_not_fit(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(ProtocolError, match=path):
        state(body(**changes))


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"object": None}, r"expected string, got null @ \$\.object"),
        ({"updated_at": 5}, r"expected date-time, got integer @ \$\.updated_at"),
        ({"output": {"artifacts": [{"title": 1, "type": "t"}]}}, r"@ \$\.output\.artifacts\[0\]\.title"),
        ({"output": ["an", "envelope"]}, r"expected object, got array @ \$\.output"),
        ({"interrupts": [{"id": 7}]}, r"expected string, got integer @ \$\.interrupts\[0\]\.id"),
        ({"steps": [step("activity", "running", "a", {"id": "x"})]}, r"@ \$\.steps\[0\]\.steps\[0\]\.run_id"),
        ({"agent": {"type": "cip"}}, r"expected string, got object @ \$\.agent"),
    ],
)
def test_what_a_state_does_not_need_is_an_error_of_its_detail_alone(changes: dict[str, Any], path: str) -> None:  # A3
    raw = body("completed", **changes)
    seen = state(raw)

    assert (seen.status, seen.output) == (RunStatus.COMPLETED, raw["output"])
    assert middesk.timing_group(seen) == (raw["agent"] if isinstance(raw["agent"], str) else "")
    assert middesk.times(seen) == (datetime(2026, 9, 14, 9, 5, 31, tzinfo=UTC), None)
    with pytest.raises(ProtocolError, match=path):
        _ = seen.detail
    assert seen.raw == raw


@pytest.mark.parametrize("nothing", ["absent", None, []])
def test_absent_null_and_empty_are_alike(nothing: Any) -> None:  # A3
    envelope = {"artifacts": [{"title": "T", "type": "t", "sources": nothing}]}
    left_out = {} if nothing == "absent" else {"interrupts": nothing}
    raw = {name: value for name, value in body("completed", output=envelope).items() if name != "interrupts"}
    if nothing == "absent":
        del envelope["artifacts"][0]["sources"]
    detail = state({**raw, **left_out}).detail

    assert detail.interrupts == detail.output.artifacts[0].sources == ()
    empty = {} if nothing == "absent" else {"artifacts": nothing}
    assert state(body("completed", output=empty)).detail.output.artifacts == ()


@pytest.mark.parametrize("value", ["absent", None])
def test_an_interrupt_without_a_payload_is_answerable(value: Any) -> None:
    raw = body("interrupted", interrupts=[{"id": ASKED} if value == "absent" else {"id": ASKED, "value": value}])

    assert state(raw).actions == (Action(ASKED, "interrupt", {}),)


def test_a_read_passes_its_parameters_on_and_needs_no_thread() -> None:
    asked, _ = drive(middesk.fetch(RunRef(RUN), {"include": "steps"}), run())

    assert isinstance(asked[0], Request)
    assert (asked[0].line, asked[0].params) == (POLL, {"include": "steps"})


def test_the_events_are_asked_for_as_a_stream() -> None:
    request = middesk.events(RunRef(RUN, THREAD))

    assert (request.line, request.headers) == (f"GET /runs/{RUN}/stream", {"Accept": "text/event-stream"})


# Lists ----------------------------------------------------------------------------------------------------------------


def test_pages_are_counted_up_while_there_are_more() -> None:
    asked, first = drive(middesk.page("", None), Answer(sample("list")))
    asked_too, second = drive(middesk.page("", first.cursor), listed(body(), more=False))

    assert isinstance(asked[0], Request)
    assert isinstance(asked_too[0], Request)
    assert asked[0].params == {"page": "1", "per_page": "100"}
    assert asked_too[0].params == {"page": "2", "per_page": "100"}
    assert first.runs[0].raw == sample("list")["data"][0]
    assert first.runs[0].status is RunStatus.FAILED
    assert second.cursor is None


def test_a_list_of_a_thread_leaves_out_the_others_and_goes_on_past_a_page_without_any() -> None:
    _, mixed = drive(middesk.page(THREAD, None), listed(body(), body("error"), more=True))
    _, others = drive(middesk.page(THREAD, "2"), listed(body("error"), more=True))

    assert [each.id for each in mixed.runs] == [RUN]
    assert (others.runs, others.cursor) == ((), "3")


@pytest.mark.parametrize("empty", [{"has_more": True, "data": []}, {"has_more": True}])
def test_an_empty_page_is_the_last_whatever_it_says(empty: dict[str, Any]) -> None:
    _, page = drive(middesk.page("", "7"), Answer({"object": "list", **empty}))

    assert (page.runs, page.cursor) == ((), None)


def test_a_row_that_does_not_fit_is_left_out_and_told() -> None:  # A2
    a_text: Any = "a run"
    asked, page = drive(middesk.page("", None), listed(body(), body(id=7), a_text, body("error"), more=True))

    assert [each.id for each in page.runs] == [RUN, OLD_RUN]
    assert page.cursor == "2"
    (skipped,) = [each for each in asked if isinstance(each, SkippedRows)]
    assert skipped.line == LIST
    assert [re.sub(".* documents for ", "", each) for each in skipped.misfits] == [
        "RunState: expected string, got integer @ $.data[1].id",
        "RunState: expected object, got string @ $.data[2]",
    ]


def test_a_page_without_a_row_that_fits_is_not_the_last() -> None:
    _, page = drive(middesk.page("", None), listed(body(id=7), more=True))

    assert (page.runs, page.cursor) == ((), "2")


@pytest.mark.parametrize("data", [{}, "runs", 7])
def test_what_is_no_list_is_no_page(data: Any) -> None:
    with pytest.raises(ProtocolError, match=r"no list @ \$\.data") as caught:
        drive(middesk.page("", None), Answer({"object": "list", "has_more": False, "data": data or {"a": 1}}))

    assert caught.value.response is not None


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_somebodys_odd_row_stops_no_start_and_hides_no_run() -> None:  # A2
    odd = body("completed", id="odd", thread_id="other", output={"envelope": "another"})
    broken = body(id=None)
    wire, client = over({START: Lost(), LIST: [listed(odd, broken), listed(body(), odd, broken)]})
    async with client:
        assert (await client.start(ON_THREAD)).id == RUN
        assert client.stats().rows_skipped == 2

    assert len(wire.bodies(START)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_runs_are_iterated_over_every_page() -> None:
    pages = {"1": listed(body(), more=True), "2": listed(body("error"))}
    _, client = over({LIST: lambda request: pages[request.params["page"]]})
    async with client:
        assert [each.id async for each in client.runs()] == [RUN, OLD_RUN]
        assert [each.id async for each in client.runs(THREAD)] == [RUN]


# Answering ------------------------------------------------------------------------------------------------------------


def test_an_answer_is_posted_with_its_interrupt_and_the_run_read_again() -> None:
    wanted = sample("answer")
    waiting = state(paused())
    asked, after = drive(middesk.resume(waiting, outputs(paused(), wanted["input"])), Answer(paused(ASKED_TOO)), run())

    assert lines(asked) == [repr(Lock(f"middesk run {RUN}")), RESUME, POLL]
    assert isinstance(asked[1], Request)
    assert asked[1].json == wanted
    assert not asked[1].idempotent
    assert (after.ref, after.status) == (waiting.ref, RunStatus.RUNNING)


@pytest.mark.parametrize("answer", [{"a": None}, "yes", ["x"], 0, False, None])
def test_any_json_is_an_answer_and_goes_through_unchanged(answer: Any) -> None:
    waiting = state(paused())
    asked, _ = drive(middesk.resume(waiting, [ToolOutput(waiting.actions[0], answer)]), Answer({}), run())

    assert isinstance(asked[1], Request)
    assert asked[1].json == {"interrupt_id": ASKED, "input": answer}


def test_a_reason_why_there_is_no_answer_cannot_be_mistaken_for_one() -> None:
    waiting = state(paused())
    failed = ToolOutput(waiting.actions[0], "nobody is in", is_error=True)
    asked, _ = drive(middesk.resume(waiting, [failed]), Answer({}), run())

    assert isinstance(asked[1], Request)
    assert asked[1].json == {"interrupt_id": ASKED, "input": {"error": "nobody is in"}}


def test_each_interrupt_takes_a_post_of_its_own() -> None:
    both = paused(ASKED, ASKED_TOO)
    asked, after = drive(
        middesk.resume(state(both), outputs(both)), Answer({}), Answer(paused(ASKED_TOO)), Answer({}), run()
    )

    assert lines(asked)[1:] == [RESUME, POLL, RESUME, POLL]
    assert [each.json["interrupt_id"] for each in asked if isinstance(each, Request) and each.json] == [
        ASKED,
        ASKED_TOO,
    ]
    assert after.status is RunStatus.RUNNING


def test_what_the_run_no_longer_waits_for_is_not_answered() -> None:
    three = paused(ASKED, ASKED_TOO, "int_3")
    asked, _ = drive(
        middesk.resume(state(three), outputs(three)), Answer({}), Answer(paused("int_3")), Answer({}), run()
    )
    assert lines(asked)[1:] == [RESUME, POLL, RESUME, POLL]
    assert isinstance(asked[3], Request)
    assert asked[3].json["interrupt_id"] == "int_3"

    both = paused(ASKED, ASKED_TOO)
    asked, after = drive(middesk.resume(state(both), outputs(both)), Answer({}), run())
    assert lines(asked)[1:] == [RESUME, POLL]
    assert after.status is RunStatus.RUNNING


def test_one_of_two_interrupts_may_be_answered_and_the_other_left_open() -> None:
    both = paused(ASKED, ASKED_TOO)
    asked, after = drive(middesk.resume(state(both), outputs(both)[1:]), Answer({}), Answer(paused(ASKED)))

    assert lines(asked)[1:] == [RESUME, POLL]
    assert [action.id for action in after.actions] == [ASKED]


@pytest.mark.parametrize("times", [0, 2])
def test_an_interrupt_is_answered_once_in_a_call(times: int) -> None:
    with pytest.raises(ConfigurationError, match="one answer to each"):
        next(middesk.resume(state(paused()), outputs(paused()) * times))


LOST_ANSWERS: list[Scripted] = [Lost(), Answer({}, 500), Answer(b"<html>", 502), Answer(b"{", 200)]


async def resumed(wire: Wire, raw: Mapping[str, Any] | None = None, retry: Retry | None = None) -> Run:
    async with client_of(wire, middesk, retry=retry or Retry(backoff=STEADY)) as client:
        return await client.perform(middesk.resume(state(raw or paused()), outputs(raw or paused())))


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("lost", LOST_ANSWERS)
@pytest.mark.parametrize("after", [body(), body("completed"), paused(ASKED_TOO), body(status="meditating")])
async def test_a_lost_answer_that_was_taken_is_not_sent_again(lost: Scripted, after: dict[str, Any]) -> None:
    wire = Wire({RESUME: lost, POLL: Answer(after)})

    assert (await resumed(wire)).raw == after
    assert len(wire.bodies(RESUME)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_who_answers_is_told_that_somebody_else_was_first_before_anything_could_get_lost() -> None:
    wire = Wire({RESUME: Lost(), POLL: run()})
    async with client_of(wire, middesk) as client:
        with pytest.raises(AlreadyAnsweredError, match=r"already resolved.*client\.stream\(error\.run\)") as caught:
            await client.resume(state(paused()), outputs(paused()))

    assert caught.value.run.status is RunStatus.RUNNING
    assert [request.line for _, request in wire.asked] == [POLL]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_lost_answer_after_which_nothing_waits_counts_as_ours_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire = Wire({RESUME: Lost(), POLL: [Answer(paused()), run()]})
    async with client_of(wire, middesk) as client:
        after = await client.resume(state(paused()), outputs(paused()))

    assert after.status is RunStatus.RUNNING
    assert f"interrupt {ASKED} of run {RUN} was lost" in caplog.text
    assert "it counts as answered by us" in caplog.text


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_lost_answer_that_is_taken_late_is_not_sent_again() -> None:
    wire = Wire({RESUME: Lost(), POLL: [Answer(paused()), run()]})

    assert (await resumed(wire)).status is RunStatus.RUNNING
    assert len(wire.bodies(RESUME)) == 1
    assert wire.times(POLL) == [0.0, 1.0]


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("lost", LOST_ANSWERS)
async def test_a_lost_answer_that_did_not_arrive_is_sent_once_more(lost: Scripted) -> None:
    wire = Wire({RESUME: [lost, Answer({})], POLL: [Answer(paused()), Answer(paused()), run()]})

    assert (await resumed(wire)).status is RunStatus.RUNNING
    first, second = wire.bodies(RESUME)
    assert first == second
    assert [request.line for _, request in wire.asked] == [RESUME, POLL, POLL, RESUME, POLL]
    assert wire.times(RESUME) == [0.0, 1.0]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_answer_lost_twice_is_not_sent_a_third_time() -> None:
    wire = Wire({RESUME: Lost(), POLL: Answer(paused())})
    with pytest.raises(OutcomeUnknownError, match="tried twice, and the interrupt is still listed") as caught:
        await resumed(wire)

    assert caught.value.request.line == RESUME
    assert len(wire.bodies(RESUME)) == 2


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_answer_that_was_lost_and_then_could_not_be_sent_is_of_unknown_outcome() -> None:
    wire = Wire({RESUME: [Lost(), Lost("connection refused", sent=False)], POLL: Answer(paused())})
    with pytest.raises(OutcomeUnknownError, match="connection reset; then connection refused"):
        await resumed(wire, retry=Retry(attempts=1))


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_the_second_of_two_lost_answers_may_have_been_taken() -> None:
    wire = Wire({RESUME: Lost(), POLL: [Answer(paused()), Answer(paused()), run()]})

    assert (await resumed(wire)).status is RunStatus.RUNNING
    assert len(wire.bodies(RESUME)) == 2


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_repeated_answer_that_is_refused_because_the_first_was_taken_is_no_error() -> None:
    refusal = Answer(sample("refused-as-not-pending"), 422)
    wire = Wire({RESUME: [Lost(), refusal], POLL: [Answer(paused()), Answer(paused()), run()]})

    assert (await resumed(wire)).status is RunStatus.RUNNING


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("trouble", [Lost(), Answer({}, 503), refused(404), Answer({})])
async def test_a_lost_answer_to_a_run_that_cannot_be_read_is_not_sent_again(trouble: Scripted) -> None:
    wire = Wire({RESUME: Lost(), POLL: trouble})
    with pytest.raises(OutcomeUnknownError, match="connection reset") as caught:
        await resumed(wire)

    assert isinstance(caught.value.__cause__, TransportError)
    assert len(wire.bodies(RESUME)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("status", [400, 404, 409, 422])
@pytest.mark.parametrize("after", [body(), body("completed"), paused(ASKED_TOO)])
async def test_a_refusal_of_what_is_no_longer_asked_says_that_it_was_already_resolved(
    status: int, after: dict[str, Any]
) -> None:
    wire = Wire({RESUME: Answer(sample("refused-as-not-pending"), status), POLL: Answer(after)})
    with pytest.raises(ConflictError, match=f"interrupt {ASKED} of run {RUN} was already resolved") as caught:
        await resumed(wire)

    assert "No pending interrupt with this id on the run (parameter: interrupt_id)" in str(caught.value)
    assert caught.value.status == status
    assert isinstance(caught.value.__cause__, APIError)
    assert len(wire.bodies(RESUME)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("refusal", "poll", "kind"),
    [
        (refused(422, "Unknown decision"), Answer(paused()), InvalidRequestError),
        (refused(404, "Run not found"), refused(404), NotFoundError),
        (refused(403, "Not yours"), run(), AuthenticationError),
    ],
)
async def test_any_other_refusal_is_the_vendors_own(refusal: Answer, poll: Answer, kind: type[APIError]) -> None:
    wire = Wire({RESUME: refusal, POLL: poll})
    with pytest.raises(kind, match=json.loads(refusal.body)["errors"][0]["message"]) as caught:
        await resumed(wire)

    assert "already resolved" not in str(caught.value)
    assert len(wire.bodies(RESUME)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_refusal_is_a_conflict_where_it_cannot_be_read_whether_the_run_still_waits() -> None:
    wire = Wire({RESUME: refused(422, "Unknown decision"), POLL: Answer({}, 503)})
    with pytest.raises(ConflictError, match=r"whether run .* still waits for it cannot be read .*Unknown decision"):
        await resumed(wire)

    assert len(wire.bodies(RESUME)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_answer_that_was_certainly_not_accepted_is_sent_again() -> None:
    wire = Wire({RESUME: [Lost("refused", sent=False), refused(429), Answer({})], POLL: run()})

    assert (await resumed(wire)).status is RunStatus.RUNNING
    assert len(wire.bodies(RESUME)) == 3


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_what_was_said_on_acceptance_counts_only_if_the_run_cannot_be_read() -> None:
    wire = Wire({RESUME: run(), POLL: Lost()})
    assert (await resumed(wire)).status is RunStatus.RUNNING

    for silent in (Answer(b"", 204), Answer({"ok": True}), run(id="another")):
        wire = Wire({RESUME: silent, POLL: Lost()})
        with pytest.raises(TransportError):
            await resumed(wire)
        assert len(wire.bodies(RESUME)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_two_answers_to_one_pause_go_one_after_the_other() -> None:
    """The second looks before it posts, and says what it sees if it is of another client; it never overtakes."""
    taken = False

    def post(request: Request) -> Answer:
        nonlocal taken
        taken, before = True, taken
        return Answer(sample("refused-as-not-pending"), 422) if before else Answer(body(), after=5.0)

    wire = Wire({RESUME: post, POLL: lambda _: Answer(body() if taken else paused())})
    async with client_of(wire, middesk) as client:
        both = await asyncio.gather(
            client.resume(state(paused()), outputs(paused())),
            client.resume(state(paused()), outputs(paused())),
            return_exceptions=True,
        )

    first, second = both
    assert isinstance(first, Run)
    assert isinstance(second, Run)  # the same answer once more is no other
    assert wire.times(RESUME) == [0.0]
    async with client_of(wire, middesk) as other:
        with pytest.raises(AlreadyAnsweredError, match="was already resolved, by somebody else") as caught:
            await other.resume(state(paused()), outputs(paused()))
    assert caught.value.run.status is RunStatus.RUNNING


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_stream_answers_each_pause_of_one_run_until_it_is_over() -> None:
    wire = Wire({
        OPEN_THREAD: thread(),
        START: run(),
        POLL: [
            Answer(paused()),
            Answer(paused()),  # a read that is older than the answer
            run(),
            Answer(paused(ASKED_TOO)),
            run(),
            run("completed"),
        ],
        RESUME: Answer({}),
    })
    handled: list[str] = []

    async def decide(action: Action) -> dict[str, str]:
        handled.append(action.id)
        if action.id == ASKED_TOO:
            raise ToolError("nobody is in")
        return {"decision": "approve"}

    async with client_of(wire, middesk) as client:
        seen = [each.vendor_status async for each in client.stream(ON_BUSINESS, tools=decide)]

    assert seen == ["running", "interrupted", "running", "interrupted", "running", "completed"]
    assert handled == [ASKED, ASKED_TOO]
    assert [each["input"] for each in wire.bodies(RESUME)] == [{"decision": "approve"}, {"error": "nobody is in"}]
    assert len(wire.bodies(START)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_handler_that_an_interrupt_does_not_fit_resolves_nothing() -> None:
    wire = Wire({POLL: Answer(paused())})
    async with client_of(wire, middesk) as client:
        with pytest.raises(ConfigurationError, match="Let it take the `Action` instead"):
            await client.result(RunRef(RUN), tools={"interrupt": lambda verdict: verdict})

    assert wire.bodies(RESUME) == []


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_pause_that_nothing_answers_ends_the_wait() -> None:
    wire = Wire({POLL: Answer(sample("interrupted"))})
    async with client_of(wire, middesk) as client:
        with pytest.raises(ActionRequiredError, match="no handler for interrupt"):
            await client.result(RunRef(RUN), tools={"tin_resolution": lambda: 1})
        with pytest.raises(UnsupportedError, match="cancel"):
            await client.cancel(RunRef(RUN))
    async with client_of(Wire({POLL: Answer(body("interrupted", interrupts=[]))}), middesk) as client:
        with pytest.raises(ActionRequiredError, match=r"^it waits, and names nothing to answer yet; run"):
            await client.result(RunRef(RUN), tools=lambda _: 1)


# Answering: what is a guess -------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_answer_that_is_accepted_without_effect_is_told_as_that_and_not_as_a_slow_run() -> None:  # A7
    wire, client = over({POLL: Answer(paused()), RESUME: Answer(paused())})
    tools = Tools()

    @tools.default
    async def approve(_: Action) -> Any:
        return {"decision": "approve"}

    async with client:
        with pytest.raises(AnswerIgnoredError, match=f"accepted the answer to {ASKED}, and 15 s later") as caught:
            await client.result(RunRef(RUN), tools=tools)

    assert caught.value.run is not None
    assert caught.value.run.status is RunStatus.REQUIRES_ACTION
    sent = f'Sent was [{{"interrupt_id":"{ASKED}","input":{{"decision":"approve"}}}}]'
    assert f"its shape is a guess. {sent}" in str(caught.value)
    assert "`middesk.variant(resume_body=...)` sends it" in str(caught.value)
    assert len(wire.bodies(RESUME)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("looks", [1, 2, 3, 4])
async def test_an_answer_that_takes_effect_late_is_waited_for(looks: int) -> None:
    still = Answer(paused())
    wire, client = over({POLL: [still, still, *[still] * looks, run()], RESUME: still})
    async with client:
        waiting = await client.fetch(RunRef(RUN))
        after = await client.resume(waiting, outputs(paused()))

    assert after.status is RunStatus.RUNNING
    assert wire.times(POLL)[-1] == sum([1.0, 2.0, 4.0, 8.0][:looks])


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_interrupts_that_are_unlisted_together_after_the_last_answer_are_no_answers_without_effect() -> None:
    both = Answer(paused(ASKED, ASKED_TOO))
    wire, client = over({POLL: [both, both, both, run()], RESUME: both})
    async with client:
        after = await client.resume(await client.fetch(RunRef(RUN)), outputs(paused(ASKED, ASKED_TOO)))

    assert after.status is RunStatus.RUNNING
    assert len(wire.bodies(RESUME)) == 2


@pytest.mark.asyncio
async def test_kept_work_whose_answer_had_no_effect_goes_on_once_it_can_and_asks_nobody_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # A7
    monkeypatch.setattr("agentruns.dialects.middesk.answers._EFFECT_LOOKS", (0.01, 0.01))
    turns = [Turn(calls=[Call("tin_resolution", {"label": "Upload?"})], running=0.05), Turn("Done.", running=0.05)]
    asked: list[Action] = []
    tools = Tools()

    @tools.default
    async def answer(action: Action) -> Any:
        asked.append(action)
        return {"decision": "approve"}

    async with Emulator("middesk", script=turns) as emulator:
        options: Any = {"base_url": emulator.base_url, "token": emulator.token, "journal": tmp_path / "work.journal"}
        emulator.state.ignores_answers = True
        async with connect(middesk, **options) as client:
            with pytest.raises(AnswerIgnoredError):
                await client.result(ON_BUSINESS, tools=tools, key="case", timeout=20)
        emulator.state.ignores_answers = False
        async with connect(middesk, **options) as client:
            last = await client.result(ON_BUSINESS, tools=tools, key="case", timeout=20)

    assert last.status is RunStatus.COMPLETED
    assert len(asked) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("status", [400, 422])
async def test_a_refused_answer_says_that_its_shape_is_a_guess_and_names_the_switch(status: int) -> None:  # B1
    wire, client = over({POLL: Answer(paused()), RESUME: refused(status, "response is missing")})
    long = "a" * 100
    async with client:
        with pytest.raises(InvalidRequestError, match="response is missing") as caught:
            await client.resume(await client.fetch(RunRef(RUN)), outputs(paused(), {"note": long}))

    told = str(caught.value)
    assert "No page shows the body of a resume, so its shape is a guess" in told
    assert f'Sent was {{"interrupt_id":"{ASKED}","input":{{"note":"{"a" * 40}..."}}}}' in told
    assert "`middesk.variant(resume_body=...)` sends it" in told
    assert len(wire.bodies(RESUME)) == 1


def otherwise(output: ToolOutput) -> Mapping[str, Any]:
    return {"id": output.action.id, "response": output.output}


def test_a_variant_answers_in_another_shape() -> None:  # B1
    dialect: Any = middesk.variant(resume_body=otherwise, include="steps")
    asked, _ = drive(dialect.resume(state(paused()), outputs(paused())), Answer(paused()), run())

    posted, read = (each for each in asked if isinstance(each, Request))
    assert (posted.line, posted.json) == (RESUME, {"id": ASKED, "response": {"decision": "approve"}})
    assert posted.params == read.params == {"include": "steps"}  # C4


def test_a_variant_reads_other_words_pages_and_looks() -> None:
    dialect: Any = middesk.variant(
        status={"cancelled": "failed", "queued": RunStatus.PENDING}, per_page=25, looks=[0.5]
    )

    assert drive(dialect.fetch(RunRef(RUN), {}), Answer(body(status="cancelled")))[1].status is RunStatus.FAILED
    assert drive(dialect.fetch(RunRef(RUN), {}), Answer(body(status="queued")))[1].status is RunStatus.PENDING
    assert drive(dialect.fetch(RunRef(RUN), {}), run("completed"))[1].status is RunStatus.COMPLETED
    asked, _ = drive(dialect.page("", None), listed(body()))
    assert [each.params for each in asked if isinstance(each, Request)] == [{"page": "1", "per_page": "25"}]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_variant_says_how_long_a_lost_start_is_looked_for() -> None:
    wire = Wire({OPEN_THREAD: thread(), START: Lost(), LIST: listed()})
    async with client_of(wire, middesk.variant(looks=[0.5, 20.0])) as client:
        with pytest.raises(OutcomeUnknownError, match="for 20 s"):
            await client.start(ON_BUSINESS)

    assert wire.times(LIST) == [0.5, 20.5]


def test_a_variant_is_a_dialect_of_the_same_abilities_and_pickles() -> None:
    dialect: Any = pickle.loads(pickle.dumps(middesk.variant(resume_body=otherwise)))

    assert all(isinstance(dialect, ability) for ability in (Resumes, Lists, Recovers, StreamsEvents))
    assert not isinstance(dialect, Cancels)
    assert repr(dialect) == "middesk.variant(resume_body=otherwise)"
    posted = drive(dialect.resume(state(paused()), outputs(paused())), Answer(), run())[0][1]
    assert isinstance(posted, Request)
    assert set(posted.json) == {"id", "response"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"resume_body": "interrupt"}, "resume_body is 'interrupt'; it must be a function"),
        ({"status": {"done": "over"}}, "must map words of the vendor to pending, running"),
        ({"status": ["done"]}, "must map words of the vendor"),
        ({"per_page": 0}, "per_page is 0"),
        ({"looks": []}, "looks is []; it must be one or several numbers of seconds"),
        ({"looks": [-1]}, "looks is [-1]"),
        ({"looks": "soon"}, "looks is 'soon'"),
        ({"include": 5}, "include is 5"),
    ],
)
def test_a_variant_that_cannot_work_is_refused_when_it_is_made(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        middesk.variant(**wrong)


def test_a_variant_that_gives_no_body_is_refused_before_anything_is_sent() -> None:
    wrong: Any = lambda output: [output.action.id]  # noqa: E731
    dialect: Any = middesk.variant(resume_body=wrong)
    with pytest.raises(ConfigurationError, match=r"resume_body gave .* must give a mapping"):
        drive(dialect.resume(state(paused()), outputs(paused())))


def test_each_guess_has_a_switch() -> None:
    switches = set(inspect.signature(middesk.variant).parameters)

    assert {guess.name for guess in middesk.GUESSES} | {"include"} == switches


# Agents, threads, feedback --------------------------------------------------------------------------------------------

AGENT_BODY = {
    "object": "agent",
    "id": "2a6f0c1e-9d57-4b38-8e21-70f4b5c3d916",
    "type": AGENT,
    "created_at": "2026-01-15T12:00:00.000Z",
    "updated_at": "2026-01-15T12:00:00.000Z",
    "name": "CIP",
    "description": "Plans and delegates.",
}


def test_agents_are_listed_and_read() -> None:
    bare = {key: value for key, value in AGENT_BODY.items() if key not in {"name", "description"}}
    asked, page = drive(middesk.list_agents(), Answer({"data": [AGENT_BODY, bare]}))
    assert lines(asked) == ["GET /agents"]
    assert contains(page.items[0], AGENT_BODY)
    assert page.items[1].name is None

    asked, agent = drive(middesk.get_agent("a/b"), Answer(AGENT_BODY))
    assert lines(asked) == ["GET /agents/a%2Fb"]
    assert agent == page.items[0]


def test_threads_are_created_read_and_listed() -> None:
    asked, made = drive(middesk.create_thread(AGENT, business_id=BUSINESS), thread())
    assert isinstance(asked[0], Request)
    assert (asked[0].line, asked[0].json) == (OPEN_THREAD, {"type": AGENT, "business_id": BUSINESS})
    assert asked[0].idempotent
    assert contains(made, sample("thread"))

    asked, read = drive(middesk.get_thread(THREAD), thread(steps=sample("steps")))
    assert lines(asked) == [f"GET /threads/{THREAD}"]
    assert contains(read.steps, sample("steps"))

    page = {"object": "list", "has_more": True, "data": [sample("thread")], "total_count": 3}
    asked, listed_ = drive(middesk.list_threads(page=2, per_page=1, business_id=BUSINESS), Answer(page))
    assert isinstance(asked[0], Request)
    assert asked[0].params == {"page": "2", "per_page": "1", "business_id": BUSINESS}
    assert (listed_.items, listed_.has_more, listed_.total_count) == ((made,), True, 3)

    asked, empty = drive(middesk.list_threads(), Answer({"object": "list", "has_more": True}))
    assert isinstance(asked[0], Request)
    assert asked[0].params == {"page": "1", "per_page": "100"}
    assert (empty.items, empty.has_more) == ((), False)


FEEDBACK = {
    "object": "run_feedback",
    "id": "6b0d2f94-38c7-4e15-a9b0-c5f1d7e24a83",
    "run_id": RUN,
    "rating": "NEGATIVE",
    "artifact_id": "5e2b9d40-7c16-4a83-9f05-d1c8e6b3a277",
    "comment": None,
    "reviewer": {"type": "Account", "id": "0c7a15de-3b94-4e62-b8d1-64f0a2c9e873"},
    "superseded_prior": False,
    "created_at": "2026-09-14T09:40:00Z",
}


def test_feedback_is_given_and_may_be_repeated() -> None:
    artifact = str(FEEDBACK["artifact_id"])
    asked, given = drive(
        middesk.give_feedback(RUN, rating="NEGATIVE", artifact_id=artifact, comment="Wrong state."),
        Answer(FEEDBACK, 201),
    )

    assert isinstance(asked[0], Request)
    assert (asked[0].line, asked[0].idempotent) == (f"POST /runs/{RUN}/feedback", True)
    assert asked[0].json == {"rating": "NEGATIVE", "artifact_id": artifact, "comment": "Wrong state."}
    assert contains(given, FEEDBACK)

    asked, _ = drive(middesk.give_feedback(RUN, rating="POSITIVE", artifact_id=artifact), Answer(FEEDBACK))
    assert isinstance(asked[0], Request)
    assert asked[0].json == {"rating": "POSITIVE", "artifact_id": artifact}


@pytest.mark.parametrize(
    ("flow", "named"),
    [
        (lambda: middesk.create_thread("", business_id=BUSINESS), "type is ''"),
        (lambda: middesk.create_thread(AGENT), "give either business_id"),
        (lambda: middesk.create_thread(AGENT, context_id=BUSINESS), "both context_type and context_id"),
        (lambda: middesk.list_threads(page=0), "page is 0"),
        (lambda: middesk.list_threads(per_page=0), "per_page is 0"),
        (lambda: middesk.list_threads(per_page=101), "per_page is 101"),
        (lambda: middesk.give_feedback(RUN, rating="GOOD", artifact_id="a"), "rating is 'GOOD'"),
        (lambda: middesk.give_feedback(RUN, rating="POSITIVE", artifact_id=""), "artifact_id is ''"),
        (lambda: middesk.give_feedback(RUN, rating="POSITIVE", artifact_id="a", comment="x" * 5001), "5001 char"),
        (lambda: middesk.give_feedback("", rating="POSITIVE", artifact_id="a"), "path"),
        (lambda: middesk.create_webhook("", ["*"]), "url is ''"),
        (lambda: middesk.create_webhook("https://a.test", "run.completed"), "enabled_events is 'run.completed'"),
        (lambda: middesk.create_webhook("https://a.test", []), "enabled_events is []"),
        (lambda: middesk.create_webhook("https://a.test", ["*"], secrets="s"), "has no field secrets"),  # type: ignore[call-arg]
        (lambda: middesk.list_webhooks(page=0), "page is 0"),
        (lambda: middesk.update_webhook("w1"), "update_webhook changes nothing"),
        (lambda: middesk.take_action("people", "b1", "decision", {}), "choose one of businesses, watchlist_result"),
        (lambda: middesk.take_action("businesses", "b1", "party", {}), "type is 'party'; choose one of add_sources"),
        (lambda: middesk.take_action("businesses", "", "decision", {}), "object_id is ''"),
        (lambda: middesk.take_action("businesses", "b1", "decision", "yes"), "payload is 'yes'"),  # type: ignore[arg-type]
        (lambda: middesk.list_actions("business", "b1"), "object_type is 'business'"),
        (lambda: middesk.get_thread(".."), "path"),
        (lambda: middesk.get_agent(""), "path"),
        (lambda: middesk.fetch(RunRef(""), {}), "path"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_any_request(flow: Callable[[], Flow[Any]], named: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        next(flow())


HOOK: dict[str, Any] = {
    "object": "webhook",
    "id": "w1",
    "url": "https://app.example/hook",
    "enabled_events": ["run.completed"],
    "include": None,
    "created_at": "2026-09-14T09:05:29Z",
    "future": 1,
}


def test_events_are_subscribed_to_once_and_subscriptions_kept() -> None:  # D
    asked, made = drive(
        middesk.create_webhook("https://app.example/hook", ("run.completed",), secret="shh", include="*"),
        Answer(HOOK, 201),
    )
    (create,) = asked
    assert isinstance(create, Request)
    assert (create.line, create.idempotent) == ("POST /webhooks", False)
    sent = {"url": "https://app.example/hook", "enabled_events": ["run.completed"], "secret": "shh", "include": "*"}
    assert create.json == sent
    assert (made.id, made.enabled_events, made.include, made.raw) == ("w1", ("run.completed",), None, HOOK)

    asked, seen = drive(middesk.list_webhooks(page=2, per_page=1), listed(HOOK, {"id": 7}, more=True))
    assert isinstance(asked[0], Request)
    assert asked[0].params == {"page": "2", "per_page": "1"}
    assert (seen.items, seen.has_more) == ((made,), True)
    assert drive(middesk.get_webhook("w1"), Answer(HOOK))[1] == made
    assert drive(middesk.list_webhooks(), listed(more=True))[1].has_more is False

    moment = datetime(2026, 9, 14, tzinfo=UTC)
    asked, _ = drive(middesk.update_webhook("w1", disabled_at=moment, enabled_events=["*"]), Answer(HOOK))
    assert isinstance(asked[0], Request)
    assert (asked[0].line, asked[0].idempotent) == ("PUT /webhooks/w1", True)
    assert asked[0].json == {"disabled_at": "2026-09-14T00:00:00+00:00", "enabled_events": ["*"]}


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_subscription_that_a_lost_answer_ended_is_ended() -> None:
    line = "DELETE /webhooks/w1"
    async with client_of(Wire({line: [Lost(), refused(404)]}), middesk) as client:
        await client.perform(middesk.delete_webhook("w1"))
    async with client_of(Wire({line: refused(404)}), middesk) as client:
        with pytest.raises(NotFoundError):
            await client.perform(middesk.delete_webhook("w1"))


ACTION: dict[str, Any] = {
    "id": "a1",
    "type": "dismissal",
    "object_type": "Watchlist::Result",
    "object_id": "h1",
    "created_at": "2026-09-14T09:31:48Z",
    "note": None,
    "metadata": {"by": "rule"},
    "effects": [
        {"operation": "updated", "diff": {"status": ["hit", "dismissed"]}, "target": {"object": "result", "id": "h1"}},
        {"operation": "linked", "diff": None, "target": None},
    ],
    "actors": [{"actor_type": "run", "data": {"id": RUN}}, {"actor_type": "user"}],
}


def test_an_action_is_taken_once_and_told_with_its_effects() -> None:  # D
    asked, taken = drive(
        middesk.take_action("watchlist_result", "h1", "dismissal", {"reason": "x"}, note="No match.", run_id=RUN),
        Answer(ACTION, 201),
    )
    (take,) = asked
    assert isinstance(take, Request)
    assert (take.line, take.idempotent) == ("POST /actions", False)
    assert take.json == {
        "object_type": "watchlist_result",
        "object_id": "h1",
        "type": "dismissal",
        "note": "No match.",
        "run_id": RUN,
        "payload": {"reason": "x"},
    }
    assert contains(taken, ACTION)

    asked, seen = drive(middesk.list_actions("watchlist_result", "h1"), listed(ACTION, {}))
    assert isinstance(asked[0], Request)
    assert asked[0].params == {"object_type": "watchlist_result", "object_id": "h1"}
    assert seen.items == (taken,)
    assert drive(middesk.get_action("a1", "watchlist_result", "h1"), Answer(ACTION))[1] == taken


@pytest.mark.parametrize("flow", [middesk.list_agents, middesk.list_threads])
def test_odd_rows_of_other_lists_are_left_out_too(flow: Callable[[], Flow[Any]]) -> None:  # A2
    row = sample("thread") | {"type": AGENT}
    asked, seen = drive(flow(), listed({**row, "id": None}, row))

    assert [each.id for each in seen.items] == [row["id"]]
    assert isinstance(asked[-1], SkippedRows)


def test_blanks_around_a_comment_do_not_count() -> None:
    comment = " " * 5000 + "x" * 5000
    assert isinstance(next(middesk.give_feedback(RUN, rating="POSITIVE", artifact_id="a", comment=comment)), Request)


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            Answer(sample("refused-without-context"), 400),
            "Provide thread_id, business_id, or context_type with context_id",
        ),
        (
            Answer(sample("refused-as-not-pending"), 422),
            "No pending interrupt with this id on the run (parameter: interrupt_id)",
        ),
        (Answer({"errors": [{"message": "One"}, {"parameter": "x"}, 7, {"message": "Two"}]}, 400), "One; Two"),
        (Answer({"errors": []}, 404), '{"errors":[]}'),
        (Answer({"errors": "none"}, 404), '{"errors":"none"}'),
        (Answer(b"<html>bad gateway</html>", 502), "<html>bad gateway</html>"),
        (Answer(b"", 401), ""),
    ],
)
def test_an_error_body_says_what_is_wrong_in_whatever_form_it_comes(answer: Answer, message: str) -> None:
    headers = {"x-request-id": "req-1"}
    found = middesk.problem(Response(answer.status, headers, answer.body, Request("GET", "/runs")))

    assert (found.message, found.code, found.request_id) == (message, None, "req-1")


# Webhooks -------------------------------------------------------------------------------------------------------------

SECRET = "whsec-5f0c"


def signed(event: Any) -> tuple[bytes, str]:
    raw = event if isinstance(event, bytes) else codec.encode(event)
    return raw, hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()


def test_a_webhook_with_the_right_signature_is_an_event_that_names_its_run() -> None:
    raw, signature = signed(sample("webhook"))
    event = middesk.verify_webhook(raw, signature, SECRET)

    assert contains(event, sample("webhook"))
    assert (event.type, event.ref) == ("run.completed", RunRef(OLD_RUN))
    assert middesk.verify_webhook(raw, f" {signature.upper()}\n", SECRET) == event
    cut, signature = signed(raw.replace(b"run.completed", rb"cut \ud83d"))
    assert middesk.verify_webhook(cut, signature, SECRET).type == "cut \ufffd"


@pytest.mark.parametrize("signature", ["", "0" * 64, "\udcff", None, "sha256=abc"])
def test_a_webhook_with_another_signature_is_refused(signature: Any) -> None:
    raw, _ = signed(sample("webhook"))
    with pytest.raises(ProtocolError, match="signature does not match"):
        middesk.verify_webhook(raw, signature, SECRET)


def test_a_webhook_whose_body_or_secret_is_another_is_refused() -> None:
    raw, signature = signed(sample("webhook"))
    with pytest.raises(ProtocolError, match="signature does not match") as caught:
        middesk.verify_webhook(raw + b" ", signature, SECRET)
    assert SECRET not in str(caught.value)
    with pytest.raises(ProtocolError, match="signature does not match"):
        middesk.verify_webhook(raw, signature, "other")
    with pytest.raises(ConfigurationError, match="secret is ''"):
        middesk.verify_webhook(raw, signature, "")


LONG_SECRET = "whsec-0123456789abcdef" * 8


@pytest.mark.parametrize("secret", [LONG_SECRET, LONG_SECRET.encode()], ids=["text", "bytes"])
@pytest.mark.parametrize("body", [b"{}", b"<html>", "{}"])
def test_what_reports_local_variables_shows_neither_the_secret_nor_the_right_signature(secret: Any, body: Any) -> None:
    raw = body.encode() if isinstance(body, str) else body
    right = hmac.new(LONG_SECRET.encode(), raw, hashlib.sha256).hexdigest()
    for signature in ("0" * 64, *([right] if raw == b"<html>" else [])):
        with pytest.raises(AgentRunsError) as caught:
            middesk.verify_webhook(body, signature, secret)
        assert "whsec" not in str(caught.value)
        frames = [each.frame.f_locals for each in caught.traceback if each.name != caught.traceback[0].name]
        assert frames
        for each in frames:
            for name, value in each.items():
                texts = (repr(value), repr(value[:80]) if isinstance(value, str) else "")
                assert all("whsec" not in text for text in texts), name
                assert name == "signature" or all(right not in text for text in texts), name


@pytest.mark.parametrize("event", [b"<html>", [], {"id": "e", "type": "run.created"}, {"id": "e", "data": {}}])
def test_a_signed_body_that_is_no_event_is_not_what_is_documented(event: Any) -> None:
    with pytest.raises(ProtocolError, match="not an event"):
        middesk.verify_webhook(*signed(event), SECRET)


@pytest.mark.parametrize(
    ("about", "ref"),
    [
        ({"object": {"object": "run", "id": RUN, "thread_id": THREAD}}, RunRef(RUN, THREAD)),
        ({"object": {"object": "business", "id": BUSINESS}}, None),
        ({"object": {"object": "run"}}, None),
        ({"object": "run"}, None),
        ({}, None),
    ],
)
def test_an_event_names_a_run_only_if_it_is_about_one(about: dict[str, Any], ref: RunRef | None) -> None:
    event = {"id": "e1", "type": "thing.happened", "data": about, "account_id": "acc"}

    seen = middesk.verify_webhook(*signed(event), SECRET)
    assert (seen.ref, seen.account_id, seen.created_at) == (ref, "acc", None)


@pytest.mark.parametrize("body", ["{}", None, 3, {}])
def test_a_webhook_that_is_not_the_bytes_that_came_is_refused(body: Any) -> None:
    with refuses(f"body is of the type {type(body).__name__}; ", "the bytes that came"):
        middesk.verify_webhook(body, "0" * 64, "secret")


@pytest.mark.parametrize("signature", [3, b"0" * 64])
def test_a_signature_that_is_no_text_is_refused(signature: Any) -> None:
    with refuses(f"signature is {signature!r}; ", "must be a text, or None"):
        middesk.verify_webhook(b"{}", signature, "secret")
