"""
The law of reading, for all vendors: a state takes what it needs, and no more.

Whatever happens to one field that a state does not need (it is dropped, null, or of another type), every operation on
runs and a batch of them end as they did before: reading, listing, starting, finding a start again, answering, answering
again, cancelling, hearing events. `pytest -s tests/test_lenient.py` shows how many mutations were tried, by vendor and
operation.
"""

import asyncio
import json
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import msgspec
import pytest
from attrs import evolve, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from agentruns import AgentRunsError, Client, ProtocolError, Retry, Run, RunRef
from agentruns._api.api import Api
from agentruns._polling.reader import Reader
from agentruns._polling.watch import Watch
from agentruns._values import codec
from agentruns._values.commands import Flow, SkippedRows
from agentruns._values.exchange import Request, Response, ServerEvent
from agentruns.dialects import middesk, narrative, openai_responses, origami
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Turn
from tests.hostile.hostile_servers import HOUSES, TOKEN, House, answered
from tests.hostile.recorded_answers import Answer, Operation, Playback, Spoil, operations, played
from tests.scripted_wire import NOTHING, STEADY, VirtualLoop, Wire, client_of
from tests.scripted_wire import Answer as WireAnswer

VENDORS: Final = list(HOUSES)
SAMPLES: Final = Path(__file__).parent / "samples"

Place: TypeAlias = tuple[str | int, ...]
"""Where something stands in a JSON value."""

GONE: Final = object()
OTHERS: Final[tuple[Any, ...]] = (GONE, None, True, 7, 4.5, "x", [], {}, [None], {"x": None})
"""What comes in place of a field: nothing at all, or something of another type."""

# What a state needs ---------------------------------------------------------------------------------------------------


@frozen
class Needs:
    """
    What a vendor's states need, as patterns of dotted places, `*` for an index; one that ends in `.` means all below.

    `row` is what of a run in a list is needed beside that: to tell the run of a start from others.
    """

    always: frozenset[str]
    by_word: Mapping[str, frozenset[str]]
    word: str = "status"
    row: frozenset[str] = frozenset()
    answering: frozenset[str] = frozenset()
    """What of a run tells which prompt or answer it came of"""
    others: Mapping[str, frozenset[str]] = field(factory=dict)
    """By pattern of the line of a request: what is needed of answers that are no runs, `*` for any index"""

    def of(self, run: Mapping[str, Any], *, listed: bool = False, answers: bool = False) -> frozenset[str]:
        needed = self.always | self.by_word.get(run[self.word], frozenset())
        return needed | (self.row if listed else frozenset()) | (self.answering if answers else frozenset())


ASKED: Final = frozenset({"todo.pendingQuestions."})

NEEDS: Final[Mapping[str, Needs]] = {
    "narrative": Needs(
        frozenset({"id", "conversation_id", "status", "started_at", "completed_at"}),
        {
            "requires_action": frozenset({"pending_tool_calls."}),
            "completed": frozenset({"final_text", "final_structured_output."}),
            "failed": frozenset({"error.type", "error.message"}),
        },
        others={
            "GET /agents/conversations/[^/]*": frozenset({"version"}),
            "GET /agents/conversations/.*/messages": frozenset({"messages.*.content_blocks.", "messages.*.run_id"}),
        },
    ),
    "middesk": Needs(
        frozenset({"id", "thread_id", "status", "created_at"}),
        {
            "interrupted": frozenset({"interrupts."}),
            "completed": frozenset({"output."}),
            "error": frozenset({"steps."}),
        },
        row=frozenset({"agent"}),
        others={"POST /threads": frozenset({"id", "created_at"})},
    ),
    "origami": Needs(
        frozenset({"id", "agentId", "status", "startedAt", "completedAt", "response.text"}),
        {"needs_input": ASKED},
        answering=frozenset({"request.prompt"}),
        others={
            "GET /agents": frozenset({"items.*.id", "items.*.createdAt", "items.*.lastRun.", "nextCursor"}),
            "GET /agents/[^/]*": frozenset({"id", "createdAt", "lastRun."}),
            "POST /agents/.*/cancel": frozenset({"run"}),
        },
    ),
    "conduit": Needs(
        frozenset({"id", "agent_id", "status", "created_at", "completed_at"}),
        {"completed": frozenset({"response"}), "failed": frozenset({"error.", "response"})},
        row=frozenset({"trigger_id", "run_id"}),
        others={
            "POST /agents/[^/]+/run": frozenset({"data.dispatched", "data.trigger_id"}),
            "GET /agents/[^/]+": frozenset({"data.id", "data.triggers."}),
        },
    ),
}

ROWS: Final[Mapping[str, Sequence[str]]] = {
    "middesk": ("data",),
    "origami": ("items", "runs"),
    "conduit": ("data",),
}
ENVELOPE: Final = frozenset({"has_more", "next_cursor", "nextCursor", "pagination."})
"""What of a list is needed besides its rows."""


def run_at(vendor: str, body: Any) -> Place | None:
    """Return where the run of an answer stands, None if it is no answer with one."""
    key = {"origami": "agentId", "conduit": "agent_id", "narrative": "conversation_id", "middesk": "thread_id"}[vendor]
    for place in ((), ("run",), ("data",)):
        inner = body
        for part in place:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if (
            isinstance(inner, dict)
            and {key, "status"} <= inner.keys()
            and "id" in inner
            and inner.get("type") != "object"
        ):
            return place
    return None


def rows_at(vendor: str, body: Any) -> str | None:
    """Return the name under which the rows of a list stand, None if there are none."""
    names = ROWS.get(vendor, ())
    found = (name for name in names if isinstance(body, dict) and isinstance(body.get(name), list))
    return next((name for name in found if all(isinstance(row, dict) and "status" in row for row in body[name])), None)


def needed(vendor: str, line: str, body: Any, *, answers: bool = False) -> Callable[[Place], bool]:
    """Return what tells whether a state needs the field at a place of an answer; *answers*, to tell whose it is."""
    needs = NEEDS[vendor]
    at, rows = run_at(vendor, body), rows_at(vendor, body)
    patterns: set[str] = set()
    if at is not None:
        inner = body
        for part in at:
            inner = inner[part]
        patterns = {".".join(map(str, (*at, each))) for each in needs.of(inner, answers=answers)}
    elif rows is not None:
        patterns = set(ENVELOPE)
        for number, row in enumerate(body[rows]):
            patterns |= {f"{rows}.{number}.{each}" for each in needs.of(row, listed=True)}
        patterns.add(rows)
    else:
        for pattern, fields in needs.others.items():
            if re.fullmatch(pattern, line):
                patterns |= fields
                break
        else:
            return lambda place: True  # an answer that no state is made of

    def tells(place: Place) -> bool:
        any_index = ".".join("*" if isinstance(part, int) else part for part in place)
        return within(any_index) or within(".".join(map(str, place)))

    def within(name: str) -> bool:
        return any(
            name == each.rstrip(".") or each.startswith(f"{name}.") or (each.endswith(".") and name.startswith(each))
            for each in patterns
        )

    return tells


# Mutations ------------------------------------------------------------------------------------------------------------


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Yield where each field of a JSON value stands, from the outside in."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield (*here, name)
        yield from places(each, (*here, name))


def changed(value: Any, place: Place, other: Any) -> Any:
    """Return a copy of a JSON value with something else at a place."""
    first: Any
    first, *rest = place
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    if rest:
        copy[first] = changed(value[first], tuple(rest), other)
    elif other is GONE:
        del copy[first]
    else:
        copy[first] = other
    return copy


def found(value: Any, place: Place) -> Any:
    for part in place:
        value = value[part]
    return value


def mutations(vendor: str, line: str, body: Any, *, answers: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield an answer with each of its fields that no state needs dropped, null, or of another type."""
    is_needed = needed(vendor, line, body, answers=answers)
    for place in places(body):
        if is_needed(place):
            continue
        for other in OTHERS:
            if other is GONE or other != found(body, place):
                yield (
                    f"{'.'.join(map(str, place))} = {'gone' if other is GONE else other!r}",
                    changed(body, place, other),
                )


def told(run: Run) -> tuple[Any, ...]:
    """Return what a reader acts on."""
    return (run.ref, run.status, run.vendor_status, run.actions, run.output, run.failure)


def detail_error(run: Run) -> ProtocolError | None:
    try:
        _ = run.detail
    except ProtocolError as error:
        return error
    return None


class Count:
    """Count the mutations by vendor and operation, and show them at the end."""

    def __init__(self) -> None:
        self.tried: dict[tuple[str, str], int] = {}

    def add(self, vendor: str, operation: str, count: int) -> None:
        key = (vendor, operation)
        self.tried[key] = self.tried.get(key, 0) + count


@pytest.fixture(scope="module")
def count() -> Iterator[Count]:
    made = Count()
    yield made
    for (vendor, operation), tried in sorted(made.tried.items()):
        sys.stdout.write(f"\n{vendor} {operation}: {tried} mutations")
    for vendor in VENDORS:
        total = sum(tried for (each, _), tried in made.tried.items() if each == vendor)
        sys.stdout.write(f"\n{vendor} in all: {total} mutations\n")


def samples(vendor: str) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((SAMPLES / vendor).glob("*.json"))}


def runs_among_samples(vendor: str) -> dict[str, Any]:
    return {
        name: body
        for name, body in samples(vendor).items()
        if isinstance(body, dict) and body.get("object") != "thread" and run_at(vendor, body) is not None
    }


def answer(body: Any, line: str = "GET /it") -> Response:
    method, _, path = line.partition(" ")
    return Response(200, {}, msgspec.json.encode(body), Request(method, path))


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_run_is_read_whatever_happens_to_a_field_that_it_does_not_need(vendor: str, count: Count) -> None:
    dialect: Any = HOUSES[vendor].dialect
    bodies = runs_among_samples(vendor)
    assert len(bodies) >= 5

    for name, body in bodies.items():
        honest = dialect.parse_run(answer(body))
        tried = 0
        for what, mutated in mutations(vendor, "", body):
            run = dialect.parse_run(answer(mutated))
            assert told(run) == told(honest), f"{name}: {what}"
            assert dialect.times(run) == dialect.times(honest), f"{name}: {what}"
            assert dialect.timing_group(run) is not None
            tried += 1
        count.add(vendor, "fetch", tried)


def all_of(dialect: Any, response: Response) -> tuple[Any, ...] | str:
    """Return all that a state tells, or what is wrong with it."""
    try:
        run = dialect.parse_run(evolve(response))  # a copy, which has not been read yet
    except ProtocolError as error:
        return str(error)
    try:
        raw: Any = run.raw
    except ValueError as error:
        raw = error
    return *told(run), run.usage, run.progress, run.poll_after, raw


def all_of_the_whole(dialect: Any, response: Response) -> tuple[Any, ...] | str:
    """Return all that a state tells to whoever reads all of the answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "glance", lambda body, cls: None)
        return all_of(dialect, response)


RESPONSE: Final = {
    "id": "resp_1",
    "status": "in_progress",
    "output": [{"type": "reasoning", "id": "rs_1"}],
    "created_at": 1741476542,
    "usage": {"input_tokens": 3, "output_tokens": 4},
    "tools": [],
}


def one_in_flight(vendor: str) -> tuple[Any, Any]:
    """Return the dialect of a vendor, and the body of a run in flight."""
    dialect: Any = openai_responses if vendor == "openai_responses" else HOUSES[vendor].dialect
    known = [RESPONSE] if dialect is openai_responses else runs_among_samples(vendor).values()
    return dialect, next(body for body in known if dialect.parse_run(answer(body)).status.in_flight)


GLANCING: Final = (*VENDORS, "openai_responses")


@pytest.mark.parametrize("vendor", GLANCING)
def test_a_glance_finds_what_reading_the_whole_does(vendor: str) -> None:
    dialect, moving = one_in_flight(vendor)
    bodies = [moving]
    bodies += [
        changed(moving, place, other)
        for place in places(moving)
        for other in (*OTHERS, "2026-07-01t09:30:00z", "2026-07-01", "\u00e9", 7.0, 2**70)
    ]

    for body in bodies:
        assert all_of(dialect, answer(body)) == all_of_the_whole(dialect, answer(body))


ODD_TEXTS: Final = (
    *rb"""NaN -0 1e-999 07 [,] "\ud83d" "\ud83d\ude00" "\u0000" "\u00e9\q" {"text":"a","text":null}""".split(),
    *b'''"2026-07-01T24:00:00Z" "2026-06-30T23:59:60Z" "2026-07-01T09:30:00.1234567+0530"'''.split(),
    *(b" null\r\n", b"\x00", b"\xef\xbb\xbf1", b'"\xed\xa0\xbd"', b'"\xff"', b'"\xc3\xa9"', b'"\x01"'),
)
BEYOND: Final = (b"1e999", b"1" * 5000, b"[" * 200 + b"]" * 200)
"""What a glance passes over, and reading the whole refuses."""


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_whatever_text_comes_a_glance_finds_what_reading_the_whole_does(data: st.DataObject) -> None:
    dialect, moving = one_in_flight(data.draw(st.sampled_from(GLANCING)))
    place = data.draw(st.sampled_from(list(places(moving))))
    odd = data.draw(st.sampled_from((*ODD_TEXTS, *BEYOND)))
    value = msgspec.json.encode(found(moving, place))
    if isinstance(place[-1], str) and (twice := data.draw(st.sampled_from((None, [odd, value], [value, odd])))):
        odd = b',"%s":'.join(twice) % place[-1].encode()
    body = msgspec.json.encode(changed(moving, place, "here")).replace(b'"here"', odd)
    if (torn := data.draw(st.none() | st.binary(max_size=2))) is not None:
        begin = data.draw(st.integers(0, len(body)))
        body = body[:begin] + torn + body[begin + data.draw(st.integers(0, 2)) :]
    response = evolve(answer({}), body=body)

    glanced, whole = all_of(dialect, response), all_of_the_whole(dialect, response)

    is_beyond = isinstance(whole, str) and re.search("out of range|too deeply", whole)
    is_let_be = isinstance(glanced, str) or glanced[1].in_flight  # or something else in it is refused, too
    assert glanced == whole or (is_beyond and is_let_be)


def test_a_state_that_is_news_is_read_as_a_whole() -> None:
    moving, over = (samples("narrative")[name] for name in ("running", "completed"))
    deep = json.loads("[" * 200 + "]" * 200)
    vendor = Vendor.of(narrative)
    reader, watch = Reader(vendor, cast("Api", None)), Watch(RunRef(moving["id"]), 1.0, 0.0)
    watch.run = narrative.parse_run(answer(moving))

    glanced = reader.parse(watch, answer({**moving, "tool_choice": deep, "usage": {"prompt_tokens": 7}}))
    assert glanced is not None
    assert glanced[0] == watch.run
    with pytest.raises(ValueError, match="nested too deeply"):
        _ = glanced[0].raw
    assert reader.parse(watch, answer({**moving, "status": "thinking", "tool_choice": deep})) is None
    assert reader.parse(watch, answer({**over, "tool_choice": deep})) is None
    assert reader.parse(watch, answer(over)) is not None


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_field_that_does_not_fit_is_an_error_of_the_detail_alone(vendor: str) -> None:
    dialect: Any = HOUSES[vendor].dialect
    refused = 0
    for body in runs_among_samples(vendor).values():
        for _, mutated in mutations(vendor, "", body):
            run = dialect.parse_run(answer(mutated))
            error = detail_error(run)
            assert error is None or " @ $" in str(error)
            refused += error is not None
            assert found(mutated, run_at(vendor, body) or ()) == run.raw
    assert refused > 100


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_needed_field_that_does_not_fit_is_told_with_its_path_and_its_answer(vendor: str) -> None:
    dialect: Any = HOUSES[vendor].dialect
    for body in runs_among_samples(vendor).values():
        at = run_at(vendor, body)
        assert at is not None
        for name in ("id", "status"):
            response = answer(changed(body, (*at, name), 7))
            with pytest.raises(ProtocolError, match=rf"@ \$\.{re.escape('.'.join((*map(str, at), name)))}") as caught:
                dialect.parse_run(response)
            assert caught.value.response == response


# Listing --------------------------------------------------------------------------------------------------------------


def listed(flow: Flow[Any], response: Response) -> tuple[Any, list[str]]:
    """Perform a list of one page: what it returned, and what was skipped."""
    skipped: list[str] = []
    next(flow)
    wanted: Any = response
    try:
        while True:
            wanted = flow.send(NOTHING if isinstance(wanted, SkippedRows) else response)
            assert isinstance(wanted, SkippedRows)
            skipped += wanted.misfits
    except StopIteration as end:
        return end.value, skipped


LISTS: Final = {"middesk": ["list"], "origami": ["runs", "runs-g1"], "conduit": ["list-page"]}
LISTED: Final = [(vendor, name) for vendor, names in LISTS.items() for name in names if vendor in VENDORS]


@pytest.mark.parametrize(("vendor", "name"), LISTED)
def test_a_list_has_every_run_whatever_happens_to_a_field_that_none_needs(vendor: str, name: str, count: Count) -> None:
    dialect: Any = HOUSES[vendor].dialect
    body = samples(vendor)[name]
    honest, _ = listed(dialect.page("p" if vendor != "middesk" else "", None), answer(body))
    tried = 0
    for what, mutated in mutations(vendor, "", body):
        page, skipped = listed(dialect.page("p" if vendor != "middesk" else "", None), answer(mutated))
        assert list(map(told, page.runs)) == list(map(told, honest.runs)), what
        assert (page.cursor is None, skipped) == (honest.cursor is None, []), what
        tried += 1
    count.add(vendor, "list", tried)
    assert honest.runs


@pytest.mark.parametrize(("vendor", "name"), LISTED)
def test_a_row_that_does_not_fit_is_skipped_and_no_other(vendor: str, name: str) -> None:
    dialect: Any = HOUSES[vendor].dialect
    body = samples(vendor)[name]
    rows = rows_at(vendor, body)
    assert rows is not None
    odd = [7, None, "row", {}, {**body[rows][0], "id": None}, {**body[rows][0], "status": 3}]
    for misfit in odd:
        mixed = {**body, rows: [misfit, *body[rows], misfit]}
        page, skipped = listed(dialect.page("p" if vendor != "middesk" else "", None), answer(mixed))
        honest, _ = listed(dialect.page("p" if vendor != "middesk" else "", None), answer(body))
        assert list(map(told, page.runs)) == list(map(told, honest.runs))
        assert [
            f"$.{rows}[{place}]" in each for place, each in zip((0, len(body[rows]) + 1), skipped, strict=True)
        ] == [
            True,
            True,
        ]


@pytest.mark.virtual
@pytest.mark.asyncio
async def test_what_was_skipped_is_counted_and_each_misfit_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    body = samples("origami")["runs"]
    body["items"] += [{**body["items"][0], "id": 7}, {"status": "running"}]
    agent = body["items"][0]["agentId"]
    wire = Wire({f"GET /agents/{agent}/runs": WireAnswer(body)})
    async with client_of(wire, origami) as client:
        for _ in range(3):
            assert len([run async for run in client.runs(agent)]) == len(body["items"]) - 2
        stats = client.stats()

    assert stats.rows_skipped == 6
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "2 rows of GET" in record.getMessage()
    assert "$.items[2].id (and 1 more)" in record.getMessage()


# Starting, finding again, answering, cancelling -----------------------------------------------------------------------

OPERATIONS: Final = [
    each
    for each in operations()
    if re.match(r"(start|recover|resume|answer|cancel|fetch|page|runs|campaign|edit)\b", each.name)
]
ON_RUNS: Final = {
    "narrative": {"start", "resume", "resume first", "resume again", "answer", "fetch"},
    "middesk": {"start", "recover", "resume", "resume first", "fetch", "page"},
    "origami": {"start", "recover", "resume", "resume first", "resume again", "answer", "cancel", "fetch", "page"},
    "conduit": {"start", "recover", "fetch", "page"},
}
"""What can be done to runs, by vendor: the law is held over all of it."""


def kind_of(operation: Operation) -> str:
    """Return what an operation is, without what came of it: `start, lost` is a start."""
    kinds = sorted(ON_RUNS[operation.vendor], key=len, reverse=True)
    return next((each for each in kinds if operation.name.startswith(each)), operation.name)


def bodies_of(operation: Operation) -> Iterator[tuple[Answer, Any]]:
    """Yield each answer of an operation that is no refusal, and its JSON body."""
    for recorded in operation.answers:
        if recorded.body and recorded.status < 400:
            yield recorded, json.loads(recorded.body)


def outcome(end: Any) -> Any:
    """Return what of an end its caller acts on."""
    if isinstance(end, Run):
        return told(end)
    runs = getattr(end, "runs", None) or getattr(end, "items", None)
    return type(end) if runs is None else list(map(told, runs))


def spoiling(recorded: Answer, body: Any) -> Spoil:
    """Return what puts another body into one answer."""
    spoilt = Answer(recorded.line, recorded.status, recorded.headers, msgspec.json.encode(body))
    return lambda each: spoilt if each is recorded else each


def test_the_law_is_held_over_every_operation_on_runs_of_every_vendor() -> None:
    held = {vendor: {kind_of(each) for each in OPERATIONS if each.vendor == vendor} for vendor in VENDORS}
    extra = {"origami": {"campaign", "edit"}, "conduit": {"runs"}}
    assert held == {vendor: kinds | extra.get(vendor, set()) for vendor, kinds in ON_RUNS.items()}


@pytest.mark.parametrize("operation", OPERATIONS, ids=map(str, OPERATIONS))
def test_an_operation_ends_as_before_whatever_happens_to_a_field_that_it_does_not_need(
    operation: Operation, count: Count
) -> None:
    kind = kind_of(operation)
    answers = kind.startswith("resume") or kind == "recover"
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        honest = outcome(runner.run(played(Playback(operation, lambda each: each), operation, 4)))
        tried = 0
        for recorded, body in bodies_of(operation):
            for what, mutated in mutations(operation.vendor, recorded.line, body, answers=answers):
                end = runner.run(played(Playback(operation, spoiling(recorded, mutated)), operation, 4))
                assert outcome(end) == honest, f"{recorded.line}: {what}: {end}"
                tried += 1
    assert tried or kind == "cancel"
    count.add(operation.vendor, kind, tried)


@pytest.mark.parametrize("operation", OPERATIONS, ids=map(str, OPERATIONS))
def test_a_needed_field_that_is_missing_is_told_in_words_that_a_user_can_know(operation: Operation) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        for recorded, body in bodies_of(operation):
            is_needed = needed(operation.vendor, recorded.line, body, answers=True)
            for place in filter(is_needed, places(body)):
                end = runner.run(played(Playback(operation, spoiling(recorded, changed(body, place, GONE))), operation))
                assert not re.search(r"\b_[A-Z]\w+", str(end) if isinstance(end, AgentRunsError) else ""), str(end)


# Events ---------------------------------------------------------------------------------------------------------------


def snapshot_error(event: middesk.RunEvent) -> ProtocolError | None:
    try:
        _ = event.steps, event.artifacts
    except ProtocolError as error:
        return error
    return None


def test_an_event_tells_its_type_and_its_run_whatever_happens_to_the_rest(count: Count) -> None:
    steps = samples("middesk")["steps"]
    data = {"run_id": "r", "snapshot": {"steps": steps, "artifacts": [], "note": "x"}, "timestamp": 7}
    tried = 0
    for place in places(data):
        if place == ("run_id",):
            continue
        for other in OTHERS:
            event = middesk.RunEvent.of(ServerEvent(middesk.STATE_SNAPSHOT, changed(data, place, other)))
            assert (event.type, event.run_id) == (middesk.STATE_SNAPSHOT, "r")
            assert event.progress is None or event.progress.limit is not None
            error = snapshot_error(event)
            assert error is None or " @ $.snapshot" in str(error)
            tried += 1
    count.add("middesk", "events", tried)


# A batch --------------------------------------------------------------------------------------------------------------


class Spoiler:
    """A transport to a vendor in memory that changes something that no state needs in each answer that it gives."""

    def __init__(self, house: House, seed: int) -> None:
        self._house = house
        self._chance = random.Random(seed)
        self.changed = 0

    async def open(self, *_: object) -> None:
        pass

    async def ready(self, *_: object) -> None:
        pass

    async def close(self) -> None:
        pass

    async def listen(self, request: Request, opened: Callable[[], None], _: object = None) -> Response | None:
        raise NotImplementedError

    async def __call__(self, request: Request) -> Response:
        body = b"" if request.json is None else msgspec.json.encode(request.json)
        query = "&".join(f"{name}={value}" for name, value in request.params.items())
        line = f"{request.method} {self._house.vendor.prefix}{request.path}?{query}"
        reply = answered(self._house.vendor, TOKEN, line, request.headers.items(), body)
        headers = {name.lower(): value for name, value in reply.headers.items()}
        content = reply.content
        if reply.status < 300 and request.line != "POST /agents/conversations":
            content = self._spoilt(request.line, json.loads(content))
        await asyncio.sleep(0.01)
        return Response(int(reply.status), headers, content, request)

    def _spoilt(self, line: str, body: Any) -> bytes:
        is_needed = needed(self._house.name, line, body)
        free = [place for place in places(body) if not is_needed(place)]
        if free:
            self.changed += 1
            body = changed(body, self._chance.choice(free), self._chance.choice(OTHERS))
        return msgspec.json.encode(body)


async def batch_of(vendor: str, seed: int) -> tuple[list[Any], int]:
    house = HOUSES[vendor](*[Turn("Done.", running=5.0)] * 4)
    wire = Spoiler(house, seed)
    async with Client(house.dialect, wire, retry=Retry(backoff=STEADY), schedule=STEADY) as client:
        origins = [await house.origin(client) for _ in range(1 if vendor == "origami" else 3)]
        outcomes = [outcome async for outcome in client.batch(origins, limit=1 if vendor == "conduit" else 3)]
    return outcomes, wire.changed


@pytest.mark.parametrize("vendor", VENDORS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_a_batch_ends_as_before_whatever_happens_to_fields_that_no_state_needs(
    count: Count, vendor: str, seed: int
) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        outcomes, tried = runner.run(batch_of(vendor, seed))

    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    assert all(outcome.run.output for outcome in outcomes)
    count.add(vendor, "batch", tried)
