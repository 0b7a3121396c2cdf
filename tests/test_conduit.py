"""Conduit's rules, on scripted answers; the law above all others: one start, at most one dispatch."""

import asyncio
import inspect
import json
import math
import pickle
import re
from collections.abc import Generator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest

from agentruns import (
    Action,
    AgentRunsError,
    APIError,
    AuthenticationError,
    Client,
    ConfigurationError,
    Failure,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
    RateLimitedError,
    Retry,
    Run,
    RunError,
    RunRef,
    RunStatus,
    ServerError,
    StreamOptions,
    TransportError,
    UnsupportedError,
    Usage,
    connect,
)
from agentruns._values.commands import Command, Flow, Lock, SkippedRows, Sleep
from agentruns._values.exchange import Request, Response
from agentruns.dialects import conduit
from agentruns.dialects.protocol import Cancels, Dialect, Lists, Recovers, Resumes
from agentruns.emulator import Emulator, Turn
from tests.scripted_wire import Answer, Lost, Scripted, Wire, client_of
from tests.vendor_in_memory import VendorInMemory

T = TypeVar("T")
SAMPLES = Path(__file__).parent / "samples" / "conduit"

AGENT = "agm9s346q3d25vt4f5v37e3s3e28jt97"
TRIGGER = "trpenecfseczp11hygcpwpq5e6eycndy"
RUN = "arkb6cq643dzvmxxqkfbf5kznwj47tan"
POST = f"POST /agents/{AGENT}/run"
LIST = f"GET /agents/{AGENT}/runs"
READ = f"GET /agents/{AGENT}"
POLL = f"GET /agents/{AGENT}/runs/{RUN}"
NOON = datetime(2026, 5, 11, 12, 0, tzinfo=UTC)
LOOKS = [1.0, 1.5, 2.25, 3.375, 5.0625, 7.59375, 10.0, 10.0, 10.0, 10.0]


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def run_body(status: str = "running", **changes: Any) -> dict[str, Any]:
    """Return a run as the get-run page shows it."""
    known = status if status in {"accepted", "running", "completed", "failed"} else "running"
    body: dict[str, Any] = sample(known)["data"] | {"id": RUN, "status": status}
    return body | changes


def run(status: str = "running", **changes: Any) -> Answer:
    return Answer({"data": run_body(status, **changes)})


def summary(id: str, after: float = 0.0, status: str = "accepted", **changes: Any) -> dict[str, Any]:  # noqa: A002
    """Return a run as the list-runs page shows it, created *after* seconds past noon."""
    left_out = {"session_id", "disposition_reason", "trigger_event_id", "response", "reflection", "tool_trace"}
    created = (NOON + timedelta(seconds=after)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = {name: value for name, value in run_body(status).items() if name not in left_out}
    return body | {"id": id, "run_id": f"run_{id}", "created_at": created} | changes


def listed(*runs: Mapping[str, Any], cursor: str | None = None) -> Answer:
    return Answer({"data": list(runs), "next_cursor": cursor, "has_more": cursor is not None})


def agent(*triggers: Mapping[str, Any], **changes: Any) -> Answer:
    return Answer({"data": {"id": AGENT, "name": "Janitor", "triggers": list(triggers), **changes}})


def trigger(id: str = TRIGGER, type: str = "event", **changes: Any) -> dict[str, Any]:  # noqa: A002
    return {"id": id, "type": type, "name": "Work order", "config": {"inboxTypeId": "i1"}, "enabled": True, **changes}


DISPATCHED = Answer(sample("dispatched"))
OLD = summary("old", 0, "completed")
NEW = summary("new", 60)


def dispatch(**changes: Any) -> conduit.Dispatch:
    return conduit.Dispatch(**({"agent_id": AGENT, "trigger_id": TRIGGER} | changes))


def exchange(
    flow: Flow[T], *answers: Answer | Exception, asked: list[Command] | None = None
) -> tuple[list[Command], T]:
    """Drive a flow by hand: all that it asked for, and what it returned; pauses and locks are granted at once."""
    asked = [] if asked is None else asked
    assert isinstance(flow, Generator)
    left = list(answers)
    wanted = next(flow)
    while True:
        asked.append(wanted)
        try:
            if not isinstance(wanted, Request):
                wanted = flow.send(Response(204, {}, b"", Request("NONE", "/")))
                continue
            if not left:
                raise AssertionError(f"one more answer is needed, to {wanted}")
            answer = left.pop(0)
            if isinstance(answer, Exception):
                wanted = flow.throw(answer)
            else:
                wanted = flow.send(Response(answer.status, answer.headers, answer.body, wanted))
        except StopIteration as end:
            assert left == [], "not all answers were asked for"
            return asked, end.value


def lines(asked: list[Command]) -> list[str]:
    return [each.line for each in asked if isinstance(each, Request)]


def request(asked: list[Command], line: str) -> Request:
    return next(each for each in asked if isinstance(each, Request) and each.line == line)


def fetched(answer: Answer) -> Run:
    return exchange(conduit.fetch(RunRef(RUN, AGENT), {}), answer)[1]


# Starting: what is asked, and in which order --------------------------------------------------------------------------


def test_a_start_looks_before_it_dispatches_and_again_afterwards() -> None:
    asked, state = exchange(conduit.start(dispatch(payload={"unit": "12B"})), listed(OLD), DISPATCHED, listed(NEW, OLD))

    assert asked[0] == Lock(f"conduit {AGENT} {TRIGGER}")
    assert lines(asked) == [LIST, POST, LIST]
    assert [each for each in asked if isinstance(each, Sleep)] == [Sleep(1.0)]
    assert request(asked, LIST).params == {"limit": "100"}
    assert request(asked, POST).json == {"trigger_id": TRIGGER, "payload": {"unit": "12B"}}
    assert not request(asked, POST).idempotent
    assert (state.ref, state.status, state.output) == (RunRef("new", AGENT), RunStatus.PENDING, None)


def test_the_request_is_the_one_that_the_page_shows() -> None:
    shown = sample("dispatch")
    asked, _ = exchange(
        conduit.start(dispatch(trigger_id=shown["trigger_id"], payload=shown["payload"])),
        listed(),
        DISPATCHED,
        listed(NEW),
    )

    assert request(asked, POST).json == shown


@pytest.mark.parametrize("payload", [{}, [], 0, False, "", "text", {"a": None}, [1, None]])
def test_a_payload_is_any_json_and_is_sent_as_it_is(payload: Any) -> None:
    asked, _ = exchange(conduit.start(dispatch(payload=payload)), listed(), DISPATCHED, listed(NEW))

    assert request(asked, POST).json["payload"] == payload


def test_no_payload_is_left_out_and_a_later_change_of_it_is_not_sent() -> None:
    asked, _ = exchange(conduit.start(dispatch()), listed(), DISPATCHED, listed(NEW))
    assert request(asked, POST).json == {"trigger_id": TRIGGER}

    payload = {"at": NOON}
    origin = dispatch(payload=payload)
    payload.clear()
    assert origin.payload == {"at": "2026-05-11T12:00:00Z"}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"agent_id": ""}, "Dispatch.agent_id"),
        ({"agent_id": None}, "Dispatch.agent_id"),
        ({"trigger_id": ""}, "Dispatch.trigger_id"),
        ({"trigger_id": 7}, "Dispatch.trigger_id"),
        ({"payload": float("nan")}, "Dispatch.payload"),
        ({"payload": {"x": object()}}, "Dispatch.payload"),
    ],
)
def test_a_dispatch_that_cannot_be_sent_is_refused_when_it_is_made(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        dispatch(**wrong)


@pytest.mark.parametrize(
    "triggers",
    [
        [trigger()],
        [trigger(enabled=None)],
        [trigger("m", "message"), trigger()],
        [trigger("d", enabled=False), trigger(type="cron")],
    ],
)
def test_without_a_trigger_the_only_one_that_fits_is_chosen(triggers: list[dict[str, Any]]) -> None:
    asked, _ = exchange(conduit.start(dispatch(trigger_id=None)), agent(*triggers), listed(), DISPATCHED, listed(NEW))

    assert lines(asked) == [READ, LIST, POST, LIST]
    assert asked[1] == Lock(f"conduit {AGENT} {TRIGGER}")
    assert request(asked, POST).json == {"trigger_id": TRIGGER}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (agent(), "no triggers .* it has none at all"),
        (agent(triggers=None), "no triggers .* it has none at all"),
        (agent(trigger("m", "message")), r"no triggers .* m \(message\)"),
        (agent(trigger("d", "cron", enabled=False)), r"no triggers .* d \(cron, disabled\)"),
        (agent(trigger("a"), trigger("b", "cron")), r"2 triggers .* a \(event\), b \(cron\)"),
    ],
)
def test_none_or_several_that_fit_are_refused_before_the_dispatch_and_listed(answer: Answer, said: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{said}.*pass the trigger_id of one"):
        exchange(conduit.start(dispatch(trigger_id=None)), answer)


# Starting: which run is ours ------------------------------------------------------------------------------------------


def test_a_run_that_is_not_ours_is_not_taken_for_it() -> None:
    """Another trigger's, one without a trigger, one that came before, and one that was there, as the list shows it."""
    others = [
        summary("elsewhere", 60, trigger_id="tr0yp57rcybvn5sxs5aa819x9yp98106"),
        summary("nobody's", 60, trigger_id=None),
        summary("late", -1),
        OLD,
    ]
    asked, state = exchange(conduit.start(dispatch()), listed(OLD), DISPATCHED, listed(*others), listed(NEW, *others))

    assert state.id == "new"
    assert [each.seconds for each in asked if isinstance(each, Sleep)] == [1.0, 1.5]


def test_a_run_of_the_very_moment_of_the_newest_may_be_ours() -> None:
    twin = summary("twin", 0)
    _, state = exchange(conduit.start(dispatch()), listed(OLD), DISPATCHED, listed(OLD, twin))

    assert state.id == "twin"


def test_several_new_runs_are_ambiguous_and_named() -> None:
    with pytest.raises(OutcomeUnknownError, match=r"dispatched; 2 new runs .* ambiguous: new, newer\.") as caught:
        exchange(conduit.start(dispatch()), listed(OLD), DISPATCHED, listed(NEW, summary("newer", 61), OLD))

    assert caught.value.request.line == POST
    assert f"Each can be followed, by its id and its parent '{AGENT}'" in str(caught.value)


def test_a_run_that_never_shows_is_looked_for_a_minute_and_not_started_again() -> None:
    asked: list[Command] = []
    looks = [listed(OLD)] * len(LOOKS)
    with pytest.raises(OutcomeUnknownError, match=rf"dispatched; no new run of trigger {TRIGGER} was observed .* 61 s"):
        exchange(conduit.start(dispatch()), listed(OLD), DISPATCHED, *looks, asked=asked)

    assert [each.seconds for each in asked if isinstance(each, Sleep)] == LOOKS
    assert lines(asked) == [LIST, POST] + [LIST] * len(LOOKS)


def test_the_trigger_that_the_answer_names_is_the_one_that_is_looked_for() -> None:
    answer = Answer({"data": {"dispatched": True, "trigger_id": "tr-other", "trigger_type": "cron"}})
    _, state = exchange(
        conduit.start(dispatch()), listed(), answer, listed(NEW, summary("ours", 60, trigger_id="tr-other"))
    )

    assert state.id == "ours"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": null}', b'{"data": {}}', b'{"data": {"run": "x"}}'])
def test_whatever_a_dispatch_answers_the_run_is_looked_for(body: bytes) -> None:
    _, state = exchange(conduit.start(dispatch()), listed(OLD), Answer(body, 202), listed(NEW, OLD))

    assert state.id == "new"


@pytest.mark.parametrize("naming", [{"run_id": "new"}, {"run_id": "run_new"}, {"id": "new"}, {"run": {"id": "new"}}])
def test_an_answer_that_names_its_run_one_day_settles_which_it_is(naming: dict[str, Any]) -> None:
    answer = Answer({"data": {"dispatched": True, "trigger_id": TRIGGER, **naming}})
    _, state = exchange(conduit.start(dispatch()), listed(OLD), answer, listed(summary("newer", 61), NEW, OLD))

    assert state.id == "new"


def test_a_name_that_no_run_has_settles_nothing() -> None:
    answer = Answer({"data": {"dispatched": True, "id": "dispatch-1"}})
    _, state = exchange(conduit.start(dispatch()), listed(OLD), answer, listed(NEW, OLD))

    assert state.id == "new"


def test_not_dispatched_is_an_error_of_its_own_and_nothing_is_looked_for() -> None:
    with pytest.raises(RunError, match=f"`dispatched: false`, so trigger {TRIGGER} was not fired") as caught:
        exchange(conduit.start(dispatch()), listed(), Answer({"data": {"dispatched": False, "trigger_id": TRIGGER}}))

    assert caught.value.run is None


def test_a_crowd_of_new_runs_is_read_back_to_what_was_there() -> None:
    """Ours may be on the second page; a run that slips from page to page counts once, and old ones never."""
    crowd = [summary(f"x{n}", 99, trigger_id="tr-busy") for n in range(2)]
    asked, state = exchange(
        conduit.start(dispatch()),
        listed(OLD, cursor="old-2"),
        DISPATCHED,
        listed(*crowd, NEW, cursor="2"),
        listed(NEW, OLD, cursor="3"),
    )

    assert state.id == "new"
    reads = [each.params for each in asked if isinstance(each, Request) and each.line == LIST]
    assert reads == [{"limit": "100"}, {"limit": "100"}, {"limit": "100", "cursor": "2"}]


def test_a_list_without_an_end_is_not_read_for_ever() -> None:
    pages = [listed(NEW, cursor="again")] * 10
    _, state = exchange(conduit.start(dispatch()), listed(), DISPATCHED, *pages)

    assert state.id == "new"


# Starting: a run that is over when it is found ------------------------------------------------------------------------


def test_a_run_that_is_over_when_it_is_found_is_read_for_its_reply() -> None:
    done = summary(RUN, 60, "completed")
    asked, state = exchange(conduit.start(dispatch()), listed(OLD), DISPATCHED, listed(done, OLD), run("completed"))

    assert lines(asked)[-1] == POLL
    assert (state.status, state.output) == (RunStatus.COMPLETED, "A plumber is booked for unit 12B at 14:00 today.")


@pytest.mark.parametrize("word", ["completed", "failed"])
def test_a_reply_that_cannot_be_read_yet_leaves_the_run_in_flight(word: str) -> None:
    done = summary(RUN, 60, word)
    lost = TransportError(Request("GET", "/"), "reset")
    _, state = exchange(conduit.start(dispatch()), listed(OLD), DISPATCHED, listed(done, OLD), lost)

    assert (state.status, state.vendor_status, state.failure) == (RunStatus.RUNNING, word, None)


# Starting: faults -----------------------------------------------------------------------------------------------------


class Vendor:
    """A Conduit in a few lines: what a dispatch does, what it answers, and when the run shows are set apart."""

    def __init__(
        self,
        *answers: Scripted,
        commits: tuple[bool, ...] = (True,),
        shows_after: float = 0.2,
        runs: int = 1,
        looks: Iterator[Answer] | None = None,
    ) -> None:
        self.answers = list(answers) or [DISPATCHED]
        self.commits = list(commits)
        self.shows_after = shows_after
        self.per_dispatch = runs
        self.looks = looks
        self.fired: list[tuple[float, str]] = []
        self.posts = 0
        self.wire = Wire({POST: self.dispatch, LIST: self.list, POLL: run("completed")})

    def dispatch(self, request: Request) -> Answer:
        self.posts += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if self.commits.pop(0) if len(self.commits) > 1 else self.commits[0]:
            now = asyncio.get_running_loop().time()
            for _ in range(self.per_dispatch):
                id = RUN if not self.fired else f"ar{len(self.fired)}"  # noqa: A001
                self.fired.append((now + self.shows_after, id))
                self.wire.script[f"GET /agents/{AGENT}/runs/{id}"] = [run("completed", id=id)]
        if isinstance(answer, Lost):
            raise TransportError(request, answer.reason, answer.sent, answer.final)
        assert isinstance(answer, Answer)
        return answer

    def list(self, request: Request) -> Answer:
        if self.posts and self.looks is not None:
            answer = next(self.looks, None)
            if answer is not None:
                return answer
        now = asyncio.get_running_loop().time()
        shown = [summary(name, 1 + shows, "completed") for shows, name in self.fired if shows <= now]
        return listed(*reversed(shown), OLD)


LOST_ANSWERS = [Lost(), Lost("timed out", final=True), Answer({"error": "boom"}, 500), Answer(b"<html>", 503)]
LOST_ANSWERS += [Answer({"error": "slow"}, 408), Answer(b'{"data": {"dispat')]


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("answer", LOST_ANSWERS, ids=repr)
async def test_a_lost_answer_after_the_commit_leads_to_the_run_that_it_started(answer: Answer | Lost) -> None:
    vendor = Vendor(answer, commits=(True,), shows_after=20.0)
    async with client_of(vendor.wire, conduit) as client:
        last = await client.result(dispatch())

    assert (last.id, last.status) == (RUN, RunStatus.COMPLETED)
    assert vendor.posts == len(vendor.fired) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("answer", LOST_ANSWERS, ids=repr)
async def test_a_lost_answer_without_a_commit_is_reported_and_never_dispatched_again(answer: Answer | Lost) -> None:
    vendor = Vendor(answer, commits=(False,))
    async with client_of(vendor.wire, conduit) as client:
        stream = client.stream(dispatch())
        with pytest.raises(OutcomeUnknownError, match=f"no new run of trigger {TRIGGER} was observed") as caught:
            await anext(stream)
        assert asyncio.get_running_loop().time() == pytest.approx(sum(LOOKS))
        with pytest.raises(OutcomeUnknownError):  # whoever asks again hears the same
            await anext(stream)

    assert isinstance(caught.value.__cause__, OutcomeUnknownError)
    assert caught.value.__cause__.reason in str(caught.value)
    assert vendor.posts == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_lost_answer_with_several_new_runs_is_ambiguous() -> None:
    vendor = Vendor(Lost(), runs=2)
    async with client_of(vendor.wire, conduit) as client:
        with pytest.raises(OutcomeUnknownError, match="connection reset; 2 new runs"):
            await client.start(dispatch())

    assert vendor.posts == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_what_was_certainly_not_done_is_sent_again() -> None:
    refused: list[Scripted] = [
        Lost("refused", sent=False),
        Answer({"error": "slow down"}, 429, {"retry-after": "17"}),
        DISPATCHED,
    ]
    vendor = Vendor(*refused, commits=(False, False, True))
    async with client_of(vendor.wire, conduit) as client:
        state = await client.start(dispatch())

    assert state.id == RUN
    assert (vendor.posts, len(vendor.fired)) == (3, 1)
    assert vendor.wire.times(POST)[2] >= 17.0


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer({"error": "trigger_id is required: this agent has several triggers"}, 400), InvalidRequestError),
        (Answer({"error": "This token has no access to the workspace"}, 403), AuthenticationError),
        (Answer({"error": "Agent not found"}, 404), NotFoundError),
        (Answer({"error": "Too many requests"}, 429), RateLimitedError),
        (Lost("refused", sent=False), TransportError),
        (Answer(None, 302, {"location": "https://elsewhere.test"}), ProtocolError),
    ],
)
async def test_a_refused_dispatch_is_raised_as_it_is_and_nothing_is_looked_for(
    answer: Answer | Lost, kind: type[AgentRunsError]
) -> None:
    vendor = Vendor(answer, commits=(False,))
    async with client_of(vendor.wire, conduit) as client:
        with pytest.raises(kind):
            await client.start(dispatch())

    assert len(vendor.wire.times(LIST)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_without_a_look_before_there_is_no_dispatch() -> None:
    wire = Wire({LIST: Answer({"error": "down"}, 503), POST: DISPATCHED})
    async with client_of(wire, conduit) as client:
        with pytest.raises(ServerError):
            await client.start(dispatch())

    assert wire.times(POST) == []


TROUBLES = [Answer({"error": "boom"}, 500), Answer({"error": "no"}, 401), Answer({"error": "no"}, 404)]
TROUBLES += [Answer({"error": "slow"}, 429), Answer({"data": {}}), Answer({"error": "clash"}, 409)]


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda answer: str(answer.status))
async def test_a_look_that_fails_is_not_taken_for_a_failed_start(trouble: Answer) -> None:
    vendor = Vendor(looks=iter([trouble] * 8))
    async with client_of(vendor.wire, conduit) as client:
        state = await client.start(dispatch())

    assert state.id == RUN
    assert vendor.posts == 1


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda answer: str(answer.status))
async def test_looks_that_all_fail_leave_the_outcome_unknown_for_good(trouble: Answer) -> None:
    vendor = Vendor(looks=iter([trouble] * 1000))
    async with client_of(vendor.wire, conduit) as client:
        stream = client.stream(dispatch())
        with pytest.raises(OutcomeUnknownError, match=r"61 s \(the last look failed: ") as caught:
            await anext(stream)
        with pytest.raises(OutcomeUnknownError):
            await anext(stream)

    assert isinstance(caught.value.__cause__, AgentRunsError)
    assert vendor.posts == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_reply_that_cannot_be_read_at_first_is_waited_for_by_the_stream() -> None:
    missing = Answer({"error": "Agent run not found"}, 404)
    wire = Wire({
        LIST: [listed(OLD), listed(summary(RUN, 60, "completed"), OLD)],
        POST: DISPATCHED,
        POLL: [missing, missing, Answer({"error": "boom"}, 500), run("completed")],
    })
    async with client_of(wire, conduit) as client:
        seen = [(state.status, state.output is not None) async for state in client.stream(dispatch())]

    assert seen == [(RunStatus.RUNNING, False), (RunStatus.COMPLETED, True)]
    assert len(wire.times(POST)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_starts_of_one_trigger_wait_for_each_other_and_get_a_run_each() -> None:
    vendor = Vendor(shows_after=3.0)
    async with client_of(vendor.wire, conduit) as client:
        states = await asyncio.gather(*(client.start(dispatch()) for _ in range(4)))

    assert len({state.id for state in states}) == vendor.posts == 4
    times = vendor.wire.times(POST)
    assert all(later - earlier >= 3.0 for earlier, later in pairwise(times))


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_batch_of_one_trigger_costs_three_requests_a_row_and_no_row_its_time() -> None:
    """Each waits for the one before, which is no part of its time; the agent is read once."""
    vendor = Vendor(Answer({"data": {"dispatched": True}}))
    vendor.wire.script[READ] = [agent(trigger())]
    rows = [dispatch(trigger_id=None) for _ in range(30)]
    async with client_of(vendor.wire, conduit) as client, client.batch(rows, timeout=5.0) as outcomes:
        found = [outcome async for outcome in outcomes]

    assert [outcome.error for outcome in found] == [None] * 30
    assert len(vendor.wire.asked) <= 3 * 30 + 2


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_starts_of_two_triggers_do_not_wait_for_each_other() -> None:
    other = summary("other", 60, trigger_id="tr-2")
    wire = Wire({LIST: [listed(), listed(), listed(NEW, other)], POST: Answer({"data": {"dispatched": True}})})
    async with client_of(wire, conduit) as client:
        first, second = await asyncio.gather(client.start(dispatch()), client.start(dispatch(trigger_id="tr-2")))

    assert (first.id, second.id) == ("new", "other")
    assert wire.times(POST) == [0.0, 0.0]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_stream_ends_with_the_reply() -> None:
    wire = Wire({
        LIST: [listed(OLD), listed(OLD), listed(summary(RUN, 60), OLD)],
        POST: DISPATCHED,
        POLL: [run("accepted"), run("running"), run("running"), run("completed")],
    })
    async with client_of(wire, conduit) as client:
        stream = client.stream(dispatch())
        seen = [state.vendor_status async for state in stream]

    assert seen == ["accepted", "running", "completed"]
    assert stream.run is not None
    assert stream.run.output == "A plumber is booked for unit 12B at 14:00 today."


# States ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("accepted", RunStatus.PENDING),
        ("running", RunStatus.RUNNING),
        ("completed", RunStatus.COMPLETED),
        ("failed", RunStatus.FAILED),
    ],
)
def test_each_status_word_is_ours(word: str, status: RunStatus) -> None:
    state = fetched(run(word))

    assert (state.status, state.vendor_status, state.vendor) == (status, word, "conduit")
    assert state.ref == RunRef(RUN, AGENT)


@pytest.mark.parametrize(
    ("changes", "status", "failure"),
    [
        ({"completed_at": None}, RunStatus.RUNNING, None),
        ({"completed_at": None, "error": "odd"}, RunStatus.RUNNING, None),
        ({"completed_at": "2026-05-11T09:00:09.015Z"}, RunStatus.FAILED, Failure("expired")),
        (
            {"completed_at": "2026-05-11T09:00:09.015Z", "error": "too long"},
            RunStatus.FAILED,
            Failure("expired", "too long"),
        ),
    ],
)
def test_an_unknown_word_is_over_when_the_run_has_an_end(
    changes: dict[str, Any], status: RunStatus, failure: Failure | None
) -> None:
    state = fetched(run("expired", **changes))

    assert (state.status, state.vendor_status, state.failure) == (status, "expired", failure)


def test_a_completed_run_has_its_reply_and_usage_and_a_trace() -> None:
    state = fetched(Answer(sample("documented")))

    assert state.output == state.detail.response
    assert state.output.startswith("You're all set")
    assert state.usage == Usage(1820, 342)
    assert (state.actions, state.failure, state.progress) == ((), None, None)
    assert state.detail.tool_trace == (
        conduit.ToolCall(
            "get_reservation", {"reservation_id": "res_123"}, {"status": "confirmed", "check_in": "2026-04-05"}
        ),
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("Tool find_slots did not answer in time", "Tool find_slots did not answer in time"),
        ({"message": "too slow", "code": 7}, "too slow"),
        ({"error": "too slow"}, "too slow"),
        ({"code": 7}, '{"code":7}'),
        (["a"], '["a"]'),
        ("", ""),
        (None, ""),
    ],
)
def test_a_failed_run_says_why_whatever_the_error_is_made_of(error: Any, message: str) -> None:
    state = fetched(run("failed", error=error))

    assert state.failure == Failure("failed", message)
    assert state.detail.error == error


def test_an_escalated_run_is_completed_and_needs_a_person() -> None:
    state = fetched(Answer(sample("escalated")))

    assert (state.status, state.output, state.failure) == (RunStatus.COMPLETED, None, None)
    assert state.detail.needs_human
    assert not fetched(run("completed")).detail.needs_human


RUN_SAMPLES = ["accepted", "running", "completed", "escalated", "failed", "documented"]


@pytest.mark.parametrize("name", RUN_SAMPLES)
def test_every_documented_field_of_a_run_is_in_detail(name: str) -> None:
    body = sample(name)["data"]
    state = fetched(Answer(sample(name)))

    assert len(body) == 22
    assert {each.name for each in attrs.fields(conduit.ConduitRun)} == set(body)
    assert_fields(state.detail, body)
    assert state.raw == body
    assert conduit.detail(state.raw) == state.detail


def assert_fields(seen: Any, body: Mapping[str, Any]) -> None:
    """Compare an attrs value with the JSON object that it was made of, times and nested objects included."""
    for name, value in body.items():
        got = getattr(seen, name)
        if name.endswith("_at") and value is not None:
            assert got == datetime.fromisoformat(value)
            assert got.tzinfo is not None
        elif isinstance(value, list):
            assert isinstance(got, tuple)
            assert len(got) == len(value)
            for each, wanted in zip(got, value, strict=True):
                assert_fields(each, wanted) if attrs.has(type(each)) else None
        elif attrs.has(type(got)):
            assert_fields(got, value)
        else:
            assert got == value


def test_a_run_needs_no_more_than_its_id_agent_status_and_time() -> None:
    body = {"id": RUN, "agent_id": AGENT, "status": "running", "created_at": "2026-05-11T09:00:02Z", "new": 1}
    state = fetched(Answer({"data": body}))

    assert (state.usage, state.output, state.detail.tool_trace) == (None, None, ())
    assert state.raw["new"] == 1
    assert Run.from_json(state.to_json()) == state


def test_nulls_and_halves_are_borne() -> None:
    state = fetched(run("completed", tool_trace=None, token_usage={"input": 5}, response=None))

    assert (state.detail.tool_trace, state.usage, state.output) == ((), Usage(5, None), None)  # A8


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"id": None}, r"expected string, got null @ \$\.data\.id"),
        ({"agent_id": 7}, r"expected string, got integer @ \$\.data\.agent_id"),
        ({"created_at": "soon"}, r"expected date-time, got 'soon' @ \$\.data\.created_at"),
        ({"completed_at": 1778490002}, r"expected date-time, got integer @ \$\.data\.completed_at"),
    ],
)
def test_what_a_state_needs_names_its_path_where_it_does_not_fit(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(ProtocolError, match=path) as caught:
        fetched(run("running", **changes))

    assert caught.value.response is not None


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"duration_ms": "4213"}, r"expected number, got string @ \$\.duration_ms"),
        ({"tool_trace": {}}, r"expected array, got object @ \$\.tool_trace"),
        ({"tool_trace": [{}]}, r"required field missing @ \$\.tool_trace\[0\]\.name"),
        ({"token_usage": 5}, r"expected object, got integer @ \$\.token_usage"),
        ({"total_cost": "0.0121"}, r"expected number, got string @ \$\.total_cost"),
        ({"trigger_id": 7}, r"expected string, got integer @ \$\.trigger_id"),
    ],
)
def test_what_a_state_does_not_need_is_an_error_of_its_detail_alone(changes: dict[str, Any], path: str) -> None:  # A3
    body = run_body("completed", **changes)
    state = fetched(Answer({"data": body}))

    assert (state.status, state.output) == (RunStatus.COMPLETED, body["response"])
    with pytest.raises(ProtocolError, match=path):
        _ = state.detail
    assert state.raw == body


@pytest.mark.parametrize(
    ("usage", "seen"),
    [
        (None, None),
        (5, None),
        ({}, Usage(None, None)),
        ({"input": None, "output": 7.0}, Usage(None, 7)),
        ({"input": "5", "output": True}, Usage(None, None)),
    ],
)
def test_a_count_that_is_not_known_is_none(usage: Any, seen: Usage | None) -> None:  # A8
    assert fetched(run("completed", token_usage=usage)).usage == seen


@pytest.mark.parametrize("reply", [{"slot": "14:00"}, ["14:00"], 14, "14:00", None])
def test_a_reply_may_be_of_any_shape(reply: Any) -> None:  # A3
    state = fetched(run("completed", response=reply))

    assert state.output == state.detail.response == reply


def test_numbers_may_have_a_fraction() -> None:  # A2
    assert fetched(run("completed", duration_ms=4213.25, total_cost=1)).detail.duration_ms == 4213.25


@pytest.mark.parametrize("field", ["id", "agent_id", "status", "created_at"])
def test_a_missing_field_names_the_path(field: str) -> None:
    body = run_body()
    del body[field]
    with pytest.raises(ProtocolError, match=rf"required field missing @ \$\.data\.{field}"):
        fetched(Answer({"data": body}))


def test_a_body_without_its_envelope_is_not_what_is_documented() -> None:
    with pytest.raises(ProtocolError, match=r"no object @ \$\.data"):
        fetched(Answer(run_body()))


def test_a_run_is_read_with_its_agent_and_the_parameters_given() -> None:
    asked, _ = exchange(conduit.fetch(RunRef(RUN, AGENT), {"workspace_id": "w1"}), run())

    assert lines(asked) == [POLL]
    assert request(asked, POLL).params == {"workspace_id": "w1"}


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        (RunRef("run_9f3a1c7e", AGENT), "run_9f3a1c7e is the run_id of a run; its id is needed, .* `ar`"),
        (RunRef("run_9f3a1c7e"), "run_9f3a1c7e is the run_id of a run"),
        (RunRef(RUN), "only be read with its agent"),
        (RunRef("", AGENT), "path"),
        (RunRef("..", AGENT), "path"),
    ],
)
def test_a_ref_that_names_no_path_is_refused_before_any_request(ref: RunRef, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        next(conduit.fetch(ref, {}))


# Lists of runs --------------------------------------------------------------------------------------------------------


def test_a_page_has_runs_without_replies_and_the_cursor_to_the_next() -> None:
    asked, page = exchange(conduit.page(AGENT, "b2Zmc2V0OjA"), Answer(sample("list-page")))

    assert request(asked, LIST).params == {"limit": "100", "cursor": "b2Zmc2V0OjA"}
    assert [(state.status, state.output) for state in page.runs] == [
        (RunStatus.RUNNING, None),
        (RunStatus.FAILED, None),
    ]
    assert page.runs[1].failure == Failure("failed", "Tool find_slots did not answer in time")
    assert page.cursor == "b2Zmc2V0OjI"
    for state, body in zip(page.runs, sample("list-page")["data"], strict=True):
        assert len(body) == 16
        assert_fields(state.detail, body)
        assert state.raw == body

    _, last = exchange(conduit.page(AGENT, None), Answer(sample("last-page")))
    assert (last.runs, last.cursor) == ((), None)


def test_a_cursor_counts_only_while_there_is_more() -> None:
    body = sample("last-page") | {"next_cursor": "stale"}

    assert exchange(conduit.page(AGENT, None), Answer(body))[1].cursor is None


@pytest.mark.parametrize("word", ["accepted", "running", "failed"])
def test_a_run_in_a_list_equals_the_run_by_itself_unless_it_has_a_reply(word: str) -> None:
    _, page = exchange(conduit.page(AGENT, None), listed(summary(RUN, 0, word)))

    assert page.runs[0] == fetched(run(word))


def test_a_part_of_a_reply_is_no_news_until_the_run_is_over() -> None:
    assert fetched(run("running", response="A plum")) == fetched(run("running"))


def test_the_reply_is_what_a_completed_run_has_over_its_line_in_a_list() -> None:
    _, page = exchange(conduit.page(AGENT, None), listed(summary(RUN, 0, "completed")))
    whole = fetched(run("completed"))

    assert page.runs[0] != whole
    assert page.runs[0] == attrs.evolve(whole, output=None)


def test_runs_are_listed_by_status() -> None:
    asked, seen = exchange(
        conduit.list_runs(AGENT, status="running", workspace_id="w1", limit=2, cursor="c"), listed(NEW, cursor="d")
    )

    assert request(asked, LIST).params == {"status": "running", "workspace_id": "w1", "limit": "2", "cursor": "c"}
    assert ([state.id for state in seen.items], seen.cursor, seen.has_more) == (["new"], "d", True)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"data": None, "has_more": False}, r"has no list @ \$\.data"),
        ({"data": {}, "has_more": False}, r"has no list @ \$\.data"),
        ({"data": []}, r"required field missing @ \$\.has_more"),
        ({"data": [], "has_more": 1}, r"expected boolean, got integer @ \$\.has_more"),
        ({"data": [], "has_more": True, "next_cursor": 5}, r"expected string, got integer @ \$\.next_cursor"),
    ],
)
def test_a_list_that_is_not_what_is_documented_names_the_path(body: Any, path: str) -> None:
    with pytest.raises(ProtocolError, match=path):
        exchange(conduit.list_runs(AGENT), Answer(body))


def test_a_row_that_does_not_fit_is_left_out_and_told() -> None:  # A2
    asked, seen = exchange(conduit.list_runs(AGENT), listed({**OLD, "id": None}, NEW, {}, cursor="d"))

    assert ([each.id for each in seen.items], seen.cursor, seen.skipped) == (["new"], "d", 2)
    (skipped,) = [each for each in asked if isinstance(each, SkippedRows)]
    assert skipped.line == LIST
    assert "expected string, got null @ $.data[0].id" in skipped.misfits[0]
    assert "@ $.data[2].id" in skipped.misfits[1]


ODD: list[dict[str, Any]] = [
    {"duration_ms": 4213.25},
    {"total_cost": "0.01"},
    {"token_usage": "many"},
    {"run_id": 7},
    {"created_at": 17},
]


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("odd", ODD, ids=str)
async def test_an_odd_old_row_stops_no_start_and_hides_no_run(odd: dict[str, Any]) -> None:  # A2
    older = summary("odd", -9, "completed", **odd)
    done = run_body("completed", id="new", created_at=NEW["created_at"])
    wire = Wire({
        LIST: [listed(OLD, older), listed(summary("new", 60, "completed"), OLD, older)],
        POST: DISPATCHED,
        f"GET /agents/{AGENT}/runs/new": Answer({"data": done}),
    })
    async with client_of(wire, conduit) as client:
        assert (await client.result(dispatch())).id == "new"

    assert len(wire.bodies(POST)) == 1


@pytest.mark.parametrize("odd", [each for each in ODD if "created_at" not in each], ids=str)
def test_our_own_run_is_found_whatever_its_other_fields_are(odd: dict[str, Any]) -> None:  # A2
    _, state = exchange(conduit.start(dispatch()), listed(OLD), DISPATCHED, listed({**NEW, **odd}, OLD))

    assert state.id == "new"


def test_a_run_that_cannot_be_read_is_told_where_none_is_found() -> None:  # A2
    looks = [listed({**NEW, "created_at": 17}, OLD)] * len(LOOKS)
    with pytest.raises(OutcomeUnknownError, match="61 s; 1 of its rows could not be read, and one may be it"):
        exchange(conduit.start(dispatch()), listed(OLD), DISPATCHED, *looks)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_client_iterates_over_all_pages() -> None:
    wire = Wire({LIST: [listed(NEW, cursor="2"), listed(OLD)]})
    async with client_of(wire, conduit) as client:
        seen = [state.id async for state in client.runs(AGENT)]
        with pytest.raises(ConfigurationError, match="the agent"):
            await anext(client.runs())

    assert seen == ["new", "old"]
    assert len(wire.asked) == 2


# What surrounds runs --------------------------------------------------------------------------------------------------

AGENT_BODY = {
    "id": AGENT,
    "workspace_id": "w1",
    "name": "Janitor",
    "description": "Books plumbers",
    "version": "v2",
    "instructions": "Be brief.",
    "guardrails": [{"id": "g1", "title": "Refunds", "knowledge": "Never above 200 euros."}],
    "operation_mode": "autopilot",
    "autopilot_schedule": None,
    "custom_response_delay_ms": 10000,
    "auto_mark_as_done": True,
    "response_language": "Original",
    "responseflow": False,
    "output_schema": [{"name": "slot", "description": "When", "type": "string", "is_required": True}],
    "skill_ids": ["s1"],
    "enabled": True,
    "triggers": [
        {
            "id": TRIGGER,
            "workspace_id": "w1",
            "name": "Inbox",
            "description": "",
            "type": "message",
            "config": {"inboxTypeId": "i1", "channels": ["sms"]},
            "enabled": True,
            "created_at": "2026-04-01T00:00:00.000Z",
            "updated_at": "2026-04-02T00:00:00.000Z",
        }
    ],
    "created_at": "2026-04-01T00:00:00.000Z",
    "updated_at": "2026-04-02T00:00:00.000Z",
}
MESSAGE = {
    "id": "msg1",
    "workspace_id": "w1",
    "conversation_id": "cv1",
    "channel": "sms",
    "body": "Hello",
    "direction": "outbound",
    "status": "sent",
    "sent_at": "2026-05-11T09:00:02.140Z",
    "created_at": "2026-05-11T09:00:02.140Z",
    "sender": {"user_id": "u1", "external_id": None, "name": "Ada"},
}
USER = {"id": "u1", "email": "ada@x.test", "first_name": "Ada", "last_name": "L", "role": "admin", "picture_url": None}


def test_agents_are_listed_and_read() -> None:
    asked, page = exchange(conduit.list_agents("w1"), listed(AGENT_BODY))
    assert request(asked, "GET /agents").params == {"workspace_id": "w1", "limit": "20"}
    assert_fields(page.items[0], AGENT_BODY)
    assert page.items[0].guardrails == tuple(AGENT_BODY["guardrails"])  # type: ignore[arg-type]

    asked, seen = exchange(conduit.get_agent(AGENT, workspace_id="w1"), Answer({"data": AGENT_BODY}))
    assert request(asked, READ).params == {"workspace_id": "w1"}
    assert seen == page.items[0]

    asked, bare = exchange(conduit.get_agent(AGENT), Answer({"data": {"id": AGENT, "skill_ids": None}}))
    assert request(asked, READ).params == {}
    assert (bare.triggers, bare.skill_ids, bare.enabled) == ((), (), None)


def test_escalations_are_listed_by_status() -> None:
    body = sample("escalation-dismissed")["data"]
    asked, page = exchange(
        conduit.list_escalations("w1", status="pending", limit=100, cursor="c"), listed(body, cursor="d")
    )

    sent = {"workspace_id": "w1", "status": "pending", "limit": "100", "cursor": "c"}
    assert request(asked, "GET /escalations").params == sent
    assert_fields(page.items[0], body)
    assert {each.name for each in attrs.fields(conduit.Escalation)} == set(body)
    assert (page.cursor, page.has_more) == ("d", True)


def test_an_escalation_of_the_older_list_is_read_too() -> None:
    newer = {"agent_run_id", "agent_id", "disposition", "disposition_reason", "questions_for_operator"}
    body = {name: value for name, value in sample("escalation-dismissed")["data"].items() if name not in newer}

    assert exchange(conduit.list_escalations("w1"), listed(body))[1].items[0].agent_run_id is None


def test_an_escalation_is_assigned_and_settled_and_both_may_be_repeated() -> None:
    settled = Answer(sample("escalation-dismissed"))
    asked, _ = exchange(conduit.assign_escalation("k1", assignee_id="u1"), settled)
    assign = request(asked, "POST /escalations/k1/assign")
    assert (assign.json, assign.idempotent) == ({"assignee_id": "u1"}, True)

    asked, seen = exchange(conduit.resolve_escalation("k1", status="dismissed"), settled)
    resolve = request(asked, "POST /escalations/k1/resolve")
    assert (resolve.json, resolve.idempotent) == ({"status": "dismissed"}, True)
    assert (seen.status, seen.reviewed_by) == ("dismissed", "m4fj2xbahw0gqnmf2kdpb0nr5yhcf05g")

    asked, _ = exchange(conduit.resolve_escalation("k1"), settled)
    assert request(asked, "POST /escalations/k1/resolve").json == {}


def test_messages_are_listed_in_order_and_sent() -> None:
    path = "/conversations/cv1/messages"
    asked, page = exchange(conduit.list_messages("cv1", order="asc"), listed(MESSAGE))
    assert request(asked, f"GET {path}").params == {"order": "asc", "limit": "20"}
    assert_fields(page.items[0], MESSAGE)

    sent = {"id": "msg2", "workspace_id": "w1", "conversation_id": "cv1", "ticket_id": None, "channel": "sms"}
    asked, seen = exchange(conduit.send_message("cv1", body="Hello"), Answer({"data": sent | {"status": "sent"}}))
    assert (request(asked, f"POST {path}").json, request(asked, f"POST {path}").idempotent) == (
        {"body": "Hello"},
        False,
    )
    assert_fields(seen, sent)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_message_is_never_sent_twice() -> None:
    wire = Wire({"POST /conversations/cv1/messages": [Answer({"error": "boom"}, 502), Answer({"data": MESSAGE})]})
    async with client_of(wire, conduit) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.perform(conduit.send_message("cv1", body="Hello"))

    assert len(wire.asked) == 1


def test_workspaces_and_their_members_are_listed() -> None:
    asked, found = exchange(conduit.list_workspaces(), listed({"id": "w1", "plan": "v3"}))
    assert (lines(asked), found.items) == (["GET /workspaces"], (conduit.Workspace("w1"),))

    asked, page = exchange(conduit.list_users("w1", limit=1), listed(USER))

    assert request(asked, "GET /workspaces/w1/users").params == {"limit": "1"}
    assert_fields(page.items[0], USER)


@pytest.mark.parametrize(
    ("flow", "said"),
    [
        (conduit.list_agents(""), "workspace_id is ''"),
        (conduit.list_agents("w1", limit=0), "limit is 0"),
        (conduit.list_agents("w1", limit=101), "limit is 101; it must be 100 or less"),
        (conduit.list_agents("w1", limit=True), "limit is True"),
        (conduit.get_agent(".."), "path"),
        (conduit.list_escalations("", status="pending"), "workspace_id is ''"),
        (conduit.list_escalations("w1", status="open"), "status is 'open'; choose one of pending, reviewed"),
        (conduit.assign_escalation("k1", assignee_id=""), "assignee_id is ''"),
        (conduit.assign_escalation("", assignee_id="u1"), "path"),
        (conduit.resolve_escalation("k1", status="pending"), "choose one of reviewed, resolved, dismissed, or None"),
        (conduit.send_message("cv1", body=""), "body is ''"),
        (conduit.send_message("cv1", body=None), "body is None"),  # type: ignore[arg-type]
        (conduit.list_messages("cv1", order="up"), "order is 'up'; choose one of asc, desc"),
        (conduit.create_agent("", "A"), "workspace_id is ''"),
        (conduit.create_agent("w1", ""), "name is ''"),
        (conduit.create_agent("w1", "A", operation_mode="off"), "choose one of autopilot, copilot, inactive, or None"),
        (conduit.create_agent("w1", "A", mode="off"), "an agent has no field mode; it has description"),  # type: ignore[call-arg]
        (conduit.create_agent("w1", "A", skill_ids={1j}), "is not something that JSON can carry"),  # type: ignore[arg-type]
        (conduit.update_agent(AGENT), "update_agent changes nothing"),
        (conduit.update_agent(AGENT, name=""), "name is ''"),
        (conduit.get_agent(AGENT, workspace_id=7), "workspace_id is 7"),  # type: ignore[arg-type]
        (conduit.send_ticket_message("", body="Hi"), "path"),
        (conduit.send_contact_message("", body="Hi"), "path"),
        (conduit.list_users(""), "path"),
        (conduit.list_runs(""), "runs are listed by their agent; pass the id of the agent"),
        (conduit.list_runs(AGENT, status="accepted,running"), "status is 'accepted,running'; choose one of accepted"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_request(flow: Flow[Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        next(flow)


@pytest.mark.parametrize(
    ("flow", "line"),
    [
        (conduit.get_agent(AGENT, workspace_id="w1"), READ),
        (conduit.update_agent(AGENT, workspace_id="w1", name="B"), f"PATCH /agents/{AGENT}"),
        (conduit.delete_agent(AGENT, workspace_id="w1"), f"DELETE /agents/{AGENT}"),
        (conduit.list_runs(AGENT, workspace_id="w1"), LIST),
        (conduit.assign_escalation("k1", assignee_id="u1", workspace_id="w1"), "POST /escalations/k1/assign"),
        (conduit.resolve_escalation("k1", workspace_id="w1"), "POST /escalations/k1/resolve"),
        (conduit.get_conversation("cv1", workspace_id="w1"), "GET /conversations/cv1"),
        (conduit.list_messages("cv1", workspace_id="w1"), "GET /conversations/cv1/messages"),
        (conduit.send_message("cv1", body="Hi", workspace_id="w1"), "POST /conversations/cv1/messages"),
        (conduit.send_ticket_message("t1", body="Hi", workspace_id="w1"), "POST /tickets/t1/messages"),
        (conduit.send_contact_message("c1", body="Hi", workspace_id="w1"), "POST /contacts/c1/messages"),
    ],
)
def test_every_call_by_id_may_name_the_workspace(flow: Flow[Any], line: str) -> None:  # C1
    asked = next(flow)

    assert isinstance(asked, Request)
    assert (asked.line, asked.params["workspace_id"]) == (line, "w1")


FIELDS: dict[str, Any] = {
    "description": "Books plumbers",
    "guardrails": [{"title": "Refunds", "knowledge": "Never."}],
    "operation_mode": "copilot",
    "custom_response_delay_ms": 0,
    "auto_mark_as_done": False,
    "triggers": ({"name": "Hook", "type": "event", "enabled": True},),
}


def test_an_agent_is_created_once_changed_and_deleted() -> None:  # D
    asked, seen = exchange(conduit.create_agent("w1", "Janitor", **FIELDS), Answer({"data": AGENT_BODY}, 201))
    create = request(asked, "POST /agents")
    sent = FIELDS | {"triggers": [{"name": "Hook", "type": "event", "enabled": True}]}
    assert (create.json, create.idempotent) == ({"workspace_id": "w1", "name": "Janitor", **sent}, False)
    assert_fields(seen, AGENT_BODY)

    asked, _ = exchange(conduit.update_agent(AGENT, auto_mark_as_done=False), Answer({"data": AGENT_BODY}))
    change = request(asked, f"PATCH /agents/{AGENT}")
    assert (change.json, change.idempotent) == ({"auto_mark_as_done": False}, True)
    asked, _ = exchange(conduit.update_agent(AGENT, triggers=[]), Answer({"data": AGENT_BODY}))
    assert not request(asked, f"PATCH /agents/{AGENT}").idempotent  # they might be made anew, with other ids

    asked, gone = exchange(conduit.delete_agent(AGENT), Answer(b"", 204))
    assert (lines(asked), gone) == ([f"DELETE /agents/{AGENT}"], None)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_agent_that_a_lost_answer_deleted_is_deleted() -> None:
    missing = Answer({"error": "Agent not found"}, 404)
    line = f"DELETE /agents/{AGENT}"
    async with client_of(Wire({line: [Lost(), missing]}), conduit) as client:
        await client.perform(conduit.delete_agent(AGENT))
    async with client_of(Wire({line: missing}), conduit) as client:
        with pytest.raises(NotFoundError):
            await client.perform(conduit.delete_agent(AGENT))


def test_a_conversation_keeps_what_no_page_shows() -> None:  # D
    body = {"id": "cv1", "workspace_id": "w1", "sentiment": "calm", "assignee": {"id": "u1"}}
    _, seen = exchange(conduit.get_conversation("cv1"), Answer({"data": body}))

    assert (seen.id, seen.workspace_id, seen.raw) == ("cv1", "w1", body)


def test_a_reply_on_a_ticket_is_never_sent_twice() -> None:  # D
    receipt = {"id": "m1", "workspace_id": "w1", "conversation_id": "cv1", "ticket_id": None, "status": "sent"}
    asked, seen = exchange(conduit.send_ticket_message("t1", body="Hello"), Answer({"data": receipt}))

    sent = request(asked, "POST /tickets/t1/messages")
    assert (sent.json, sent.idempotent) == ({"body": "Hello"}, False)
    assert_fields(seen, receipt)


# What is a guess ------------------------------------------------------------------------------------------------------


def in_payload(row: Mapping[str, Any], trigger_id: str) -> bool:
    return row.get("contact_id") == trigger_id


def test_a_variant_finds_the_run_of_a_dispatch_in_another_way() -> None:
    dialect: Any = conduit.variant(fits=in_payload, looks=[0.5])
    ours = summary("ours", 60, contact_id=TRIGGER)
    asked, state = exchange(dialect.start(dispatch()), listed(OLD), DISPATCHED, listed(ours, NEW, OLD))

    assert state.id == "ours"
    assert [each.seconds for each in asked if isinstance(each, Sleep)] == [0.5]


def test_a_variant_knows_where_an_answer_names_its_run() -> None:
    dialect: Any = conduit.variant(names=lambda answer: [answer["agent_run_id"]])
    answer = Answer({"data": {"dispatched": True, "trigger_id": TRIGGER, "agent_run_id": "new"}})
    _, state = exchange(dialect.start(dispatch()), listed(OLD), answer, listed(summary("newer", 61), NEW, OLD))

    assert state.id == "new"


def test_a_variant_says_which_triggers_a_dispatch_can_mean() -> None:
    dialect: Any = conduit.variant(fires=lambda trigger: trigger["name"] == "Nightly")
    nightly = trigger("tr-night", "message", name="Nightly", enabled=False)
    asked, _ = exchange(
        dialect.start(dispatch(trigger_id=None)), agent(trigger(), nightly), listed(OLD), DISPATCHED, listed(NEW, OLD)
    )

    assert request(asked, POST).json["trigger_id"] == "tr-night"


def test_odd_triggers_stop_no_dispatch() -> None:  # A2
    odd: Any = [{"id": "tr-odd", "type": "message", "created_at": 17}, {"type": "event"}, "trigger", trigger()]
    asked, _ = exchange(
        conduit.start(dispatch(trigger_id=None)), agent(*odd), listed(OLD), DISPATCHED, listed(NEW, OLD)
    )

    assert request(asked, POST).json["trigger_id"] == TRIGGER


def test_a_variant_reads_other_words() -> None:
    dialect: Any = conduit.variant(status={"cancelled": "failed", "done": RunStatus.COMPLETED})

    def read(word: str) -> Run:
        flow: Flow[Run] = dialect.fetch(RunRef(RUN, AGENT), {})
        return exchange(flow, run(word, response="Done."))[1]

    assert (read("cancelled").status, read("running").status) == (RunStatus.FAILED, RunStatus.RUNNING)
    assert (read("done").status, read("done").output) == (RunStatus.COMPLETED, "Done.")
    (seen,) = exchange(dialect.page(AGENT, None), listed(summary("x", 0, "done")))[1].runs
    assert seen.status is RunStatus.COMPLETED


def test_a_variant_says_which_dispositions_wait_for_a_person() -> None:
    dialect: Any = conduit.variant(needs_human=lambda disposition: disposition in {"escalated", "missing_info"})
    asks = fetched(run("completed", disposition="missing_info"))

    assert (dialect.needs_human(asks), conduit.needs_human(asks)) == (True, False)
    assert conduit.needs_human(fetched(Answer(sample("escalated"))))


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("status", [404, 405])
async def test_a_refused_reply_says_that_its_path_is_a_guess_and_names_the_switch(status: int) -> None:  # B1
    line = "POST /conversations/cv1/messages"
    async with client_of(Wire({line: Answer({"error": "Not found"}, status)}), conduit) as client:
        with pytest.raises(APIError, match=r"`conduit\.variant\(message_path=\.\.\.\)` sends it") as caught:
            await client.perform(conduit.send_message("cv1", body="Hello"))

    assert "No page shows the path of a reply" in str(caught.value)
    assert '"/conversations/{id}/messages"' in str(caught.value)


def test_a_variant_sends_messages_elsewhere() -> None:
    dialect: Any = conduit.variant(message_path="/threads/{id}/reply")
    asked = next(dialect.send_message("a/b", body="Hi"))

    assert isinstance(asked, Request)
    assert asked.line == "POST /threads/a%2Fb/reply"


def test_a_variant_is_a_dialect_of_the_same_abilities_and_pickles() -> None:
    dialect: Any = pickle.loads(pickle.dumps(conduit.variant(fits=in_payload)))

    assert all(isinstance(dialect, ability) for ability in (Lists, Recovers))
    assert not isinstance(dialect, Resumes | Cancels)
    assert repr(dialect) == "conduit.variant(fits=in_payload)"
    switches = set(inspect.signature(conduit.variant).parameters)
    assert {guess.name for guess in conduit.GUESSES} == switches - {"workspace_id"}


@pytest.mark.asyncio
async def test_a_variant_names_the_workspace_in_every_request() -> None:  # C1
    async with Emulator("conduit", script=[Turn("Done.", running=0.05)]) as emulator:
        state = emulator.state
        variant = conduit.variant(workspace_id=state.workspace_id)
        async with connect(variant, base_url=emulator.base_url, token=emulator.token) as client:
            await client.result(conduit.Dispatch(state.agent_id), timeout=20)
            assert [run.status async for run in client.runs(state.agent_id)] == [RunStatus.COMPLETED]
        asked = emulator.exchanges

    assert len(asked) > 4
    assert {each.query.get("workspace_id") for each in asked} == {state.workspace_id}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fits": "trigger_id"}, "fits is 'trigger_id'; it must be a function"),
        ({"needs_human": ["escalated"]}, "needs_human is ['escalated']"),
        ({"looks": [math.nan]}, "looks is [nan]"),
        ({"status": {"done": None}}, "must map words of the vendor"),
        ({"message_path": "/messages"}, "must begin with / and have {id} in it"),
        ({"message_path": 7}, "message_path is 7"),
        ({"workspace_id": ""}, "workspace_id is ''"),
    ],
)
def test_a_variant_that_cannot_work_is_refused_when_it_is_made(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        conduit.variant(**wrong)


# Errors, and what Conduit has not -------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (400, {"error": "limit must be between 1 and 100"}, InvalidRequestError, "limit must be between 1 and 100"),
        (401, {"error": "Invalid API token"}, AuthenticationError, "Invalid API token"),
        (403, {"error": "This token has no access to the workspace"}, AuthenticationError, "This token has no access"),
        (404, {"error": "Agent run not found"}, NotFoundError, "Agent run not found"),
        (404, {"error": {"code": 1}}, NotFoundError, '{"error":{"code":1}}'),
        (503, b"<html>down</html>", ServerError, "<html>down</html>"),
    ],
)
async def test_an_error_has_the_text_of_its_body_and_nothing_else(
    status: int, body: Any, kind: type[APIError], message: str
) -> None:
    async with client_of(Wire({READ: Answer(body, status)}), conduit) as client:
        with pytest.raises(kind) as caught:
            await client.perform(conduit.get_agent(AGENT))

    error = caught.value
    assert error.message.startswith(message)
    assert (error.code, error.request_id, error.title, error.docs_url) == (None, None, None, None)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_what_conduit_cannot_do_is_refused_before_any_request() -> None:
    wire = Wire({})
    async with client_of(wire, conduit) as client:
        with pytest.raises(UnsupportedError, match="cancel"):
            await client.cancel(RunRef(RUN, AGENT))
        with pytest.raises(UnsupportedError, match="resume"):
            await client.resume(fetched(run()), [])
        with pytest.raises(ConfigurationError, match="from Dispatch"):
            await client.start("a prompt")

    assert wire.asked == []


def test_the_module_is_a_dialect_that_lists_and_neither_resumes_nor_cancels() -> None:
    dialect: Dialect = conduit

    assert (dialect.NAME, dialect.BASE_URL) == ("conduit", "https://api.conduit.ai/v1")
    assert (dialect.TOKEN_VARIABLE, dialect.BASE_URL_VARIABLE) == ("CONDUIT_API_TOKEN", "CONDUIT_BASE_URL")
    assert dialect.BUDGET is not None
    assert (dialect.BUDGET.count, dialect.BUDGET.seconds) == (108, 60.0)
    assert isinstance(dialect, Lists)
    assert not isinstance(dialect, Resumes | Cancels)
    assert list(dialect.handler_names(Action("1", "ops-approve"))) == ["ops-approve"]


@pytest.mark.asyncio
async def test_a_contact_is_written_to_in_its_latest_conversation() -> None:
    async with (
        Emulator(
            "conduit",
            script=[Turn("Done.", extra={"conversation_id": "cv1", "disposition": "escalated"})],
            shown_after=0.0,
        ) as emulator,
        connect(conduit, token=emulator.token, base_url=emulator.base_url) as client,
    ):
        run = await client.result(conduit.Dispatch(emulator.state.agent_id), timeout=20)
        sent = await client.perform(conduit.send_contact_message(run.detail.contact_id or "", body="Hello."))
        said = emulator.state.messages_of("cv1")

    assert (said[-1].id, said[-1].body) == (sent.id, "Hello.")


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_dispatch_names_its_workspace_with_every_request_that_it_takes() -> None:  # C1
    emulator: Emulator[Any] = Emulator(
        "conduit",
        script=[Turn("Done.", running=5.0)],
        token="t",
        shown_after=0.2,
        clock=asyncio.get_running_loop().time,
    )
    state = emulator.state
    wire = VendorInMemory(state, "t")
    async with Client(conduit, wire, retry=Retry()) as client:
        run = await client.start(conduit.Dispatch(state.agent_id, workspace_id=state.workspace_id))
        with pytest.raises((AuthenticationError, InvalidRequestError, NotFoundError)):
            await client.start(conduit.Dispatch(state.agent_id, workspace_id="elsewhere"))

    assert run.ref.parent == state.agent_id
    assert len(wire.requests) >= 4
    assert {request.params.get("workspace_id") for request in wire.requests[:-1]} == {state.workspace_id}


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_every_read_of_one_stream_may_name_the_workspace() -> None:  # C1
    wire = Wire({POLL: [run(), run(), run("completed")], LIST: listed(summary(RUN, status="running"))})
    async with client_of(wire, conduit) as client:
        done = await client.result(RunRef(RUN, AGENT), params={"workspace_id": "w1"})
        with pytest.raises(ConfigurationError, match="params"):
            client.stream(RunRef(RUN, AGENT), params={"workspace_id": 7})  # type: ignore[dict-item]

    assert done.status is RunStatus.COMPLETED
    assert [request.params for _, request in wire.asked] == [{"workspace_id": "w1"}] * 3


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_every_read_of_a_batch_may_name_the_workspace_and_an_item_another() -> None:  # C1
    other = f"GET /agents/{AGENT}/runs/ar_other"
    wire = Wire({POLL: [run(), run("completed")], other: run("completed", id="ar_other")})

    def own(ref: RunRef) -> StreamOptions:
        return {"params": {"workspace_id": "w2"}} if ref.id == "ar_other" else {}

    async with client_of(wire, conduit) as client:
        refs = [RunRef(RUN, AGENT), RunRef("ar_other", AGENT)]
        outcomes = [each async for each in client.batch(refs, params={"workspace_id": "w1"}, options=own)]
        wrongs: list[dict[str, Any]] = [{"params": {"workspace_id": 7}}, {"include": 7}]
        for wrong in wrongs:
            with pytest.raises(ConfigurationError, match=next(iter(wrong))):
                client.batch(refs, **wrong)

    assert [outcome.error for outcome in outcomes] == [None, None]
    assert sorted((request.line, request.params["workspace_id"]) for _, request in wire.asked) == sorted([
        (POLL, "w1"),
        (POLL, "w1"),
        (other, "w2"),
    ])
