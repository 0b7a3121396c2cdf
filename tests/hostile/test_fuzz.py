"""
Spoiled answers to every flow of every dialect: what comes out is a value that holds together, or an error of ours.

The answers are those of the emulators, recorded once and played back spoiled; nothing is sent. `AGENTRUNS_FUZZ` scales
how many: it is 1 by default, which is a few seconds, and with 100 the bodies go into the hundreds of thousands.
`pytest -s` shows how many there were, and what they ended in.
"""

import asyncio
import contextlib
import inspect
import json
import os
import pickle
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from agentruns import AgentRunsError, ConfigurationError, OutcomeUnknownError, ProtocolError, Run, RunStatus, ToolOutput
from agentruns._values.exchange import Request, Response
from agentruns.dialects import middesk
from tests.hostile.corrupted_answers import Below, every_twist, put, spoilt, written
from tests.hostile.hostile_servers import HOUSES, Front, Trap, client_of, outcome, sane
from tests.hostile.recorded_answers import Answer, Operation, Playback, Spoil, operations, played
from tests.hostile.test_answers import LONGEST_TEXT
from tests.hostile.undocumented_answers import whole
from tests.scripted_wire import VirtualLoop

SCALE = float(os.environ.get("AGENTRUNS_FUZZ", "1"))

OPERATIONS: Sequence[Operation] = operations()
DIALECTS = {name: house.dialect for name, house in HOUSES.items()}
NAMES = [str(operation) for operation in OPERATIONS]


class Drive:
    """A loop of virtual time for all flows, and the count of what they ended in."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.bodies = 0
        self.ends: Counter[str] = Counter()

    def play(self, operation: Operation, spoil: Spoil, attempts: int = 1) -> tuple[Any, list[Answer]]:
        """Return how a flow ended whose answers are spoiled, and what was said to it."""
        playback = Playback(operation, spoil)
        try:
            end = self.runner.run(played(playback, operation, attempts))
            check(end)
            if isinstance(end, Run):
                next(operation.dialect.fetch(end.ref, {}))  # whatever is taken for a run can be read again
        except BaseException as error:
            error.add_note(f"{operation} was told {str(playback.said)[:3000]}")
            raise
        self.bodies += len(playback.said)
        self.ends[type(end).__name__ if isinstance(end, AgentRunsError) else "a value"] += 1
        return end, playback.said


def check(end: Any) -> None:
    """Check that what a flow ended in can be used: shown, kept, sent to another process."""
    if isinstance(end, Run):
        sane(end)
        with contextlib.suppress(ProtocolError):  # its detail is asked for, and may not fit; nothing else may fail
            assert repr(end.detail)
        return
    again = pickle.loads(pickle.dumps(end))
    if isinstance(end, AgentRunsError):
        assert (type(again), str(again)) == (type(end), str(end))
        assert len(str(end)) < LONGEST_TEXT
        assert not isinstance(end, ConfigurationError) or "Pass the trigger_id" in str(end), end
    else:
        assert again == end
        assert repr(end)


@pytest.fixture(scope="module")
def drive() -> Iterator[Drive]:
    made = Drive()
    with made.runner:
        yield made
    sys.stdout.write(f"\n{made.bodies} spoiled answers: {dict(made.ends.most_common())}\n")


def by_chance(chance: random.Random, rest: int) -> Spoil:
    """Spoil about one answer in *rest*, by chance."""

    def spoil(answer: Answer) -> Answer:
        return spoilt(answer, chance.randrange) if chance.randrange(rest) == 0 else answer

    return spoil


@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
def test_an_honest_answer_is_taken(operation: Operation, drive: Drive) -> None:
    end, _ = drive.play(operation, lambda answer: answer)

    refused = any(answer.status >= 400 for answer in operation.answers)
    assert not isinstance(end, AgentRunsError) or refused, end


@pytest.mark.parametrize("vendor", HOUSES)
def test_every_flow_of_a_dialect_is_among_them(vendor: str) -> None:
    dialect: Any = DIALECTS[vendor]

    flows = {name for name in dialect.__all__ if inspect.isgeneratorfunction(getattr(dialect, name))}

    made: list[Any] = [operation.make() for operation in OPERATIONS if operation.vendor == vendor]
    beside = {"recover", "make_parent"}  # not every crash leaves a note; a parent is made by the flow that creates it
    assert flows - beside == {flow.__name__ for flow in made} - beside


@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
def test_each_part_of_each_answer_may_be_anything(operation: Operation, drive: Drive) -> None:
    cases = [(number, spoiled) for number, answer in enumerate(operation.answers) for spoiled in every_twist(answer)]
    most = int(14 * SCALE)
    step = max(len(cases) / most, 1.0)
    for place in range(min(most, len(cases))):
        number, spoiled = cases[int(place * step)]
        drive.play(operation, _only(number, spoiled))


def _only(wanted: int, spoiled: Answer) -> Spoil:
    """Say one answer of a flow otherwise, and what follows as it was recorded."""
    count = iter(range(10**9))
    return lambda answer: spoiled if next(count) == wanted else answer


@pytest.mark.parametrize("operation", OPERATIONS, ids=NAMES)
def test_answers_that_chance_has_spoiled(operation: Operation, drive: Drive) -> None:
    for seed in range(int(8 * SCALE)):
        chance = random.Random(f"{operation} {seed}")
        drive.play(operation, by_chance(chance, rest=1 + seed % 3), attempts=1 + seed % 2)


@settings(max_examples=int(60 * SCALE))
@given(operation=st.sampled_from(OPERATIONS), data=st.data())
def test_answers_that_hypothesis_has_spoiled(operation: Operation, data: st.DataObject, drive: Drive) -> None:
    below: Below = lambda most: data.draw(st.integers(0, most - 1))  # noqa: E731
    drive.play(operation, lambda answer: spoilt(answer, below) if below(2) == 0 else answer)


FOUND: Sequence[tuple[str, int, tuple[str | int, ...], Any]] = (
    *(("narrative resume", 0, ("defaults",), junk) for junk in (1, True, "x", ["model"])),
    *(("origami start on a busy agent", 0, ("currentRun", "id"), junk) for junk in (".", "..")),
    *(("conduit start", 2, ("data", 0, "id"), junk) for junk in ("run_x", ".", "")),
)
"""By operation, number of the answer, and place in it: what was too much for somebody once."""


@pytest.mark.parametrize(("name", "number", "place", "junk"), FOUND)
def test_what_was_found_by_many_more_of_them(
    name: str, number: int, place: tuple[str | int, ...], junk: Any, drive: Drive
) -> None:
    operation = OPERATIONS[NAMES.index(name)]
    answer = operation.answers[number]
    drive.play(operation, _only(number, evolve(answer, body=written(put(json.loads(answer.body), place, junk)))))


def test_a_parked_run_whose_configuration_is_none_is_answered_or_refused(drive: Drive) -> None:
    paused, _ = drive.play(OPERATIONS[NAMES.index("narrative fetch paused")], lambda answer: answer)
    parked = json.loads(paused.to_json())
    for junk in (1, True, "x", ["model"]):
        _parked(written(put(parked, ("raw", "effective_config"), junk)))


# What is not answered, but comes all the same -------------------------------------------------------------------------


WEBHOOK = {
    "object": "event",
    "id": "evt_1",
    "type": "run.completed",
    "account_id": "acc_1",
    "created_at": "2026-01-15T12:00:00Z",
    "data": {"object": {"object": "run", "id": "r1", "thread_id": "t1", "status": "completed"}},
}


def signed(body: bytes) -> str:
    import hashlib
    import hmac

    return hmac.new(b"secret", body, hashlib.sha256).hexdigest()


def test_a_webhook_of_any_shape_is_an_event_or_a_protocol_error() -> None:
    honest = Answer("POST /hook", 200, {}, written(WEBHOOK))
    for number, spoiled in enumerate(every_twist(honest)):
        if number % max(int(4 / SCALE), 1) == 0:
            _webhook(spoiled.body)
    for seed in range(int(300 * SCALE)):
        _webhook(spoilt(honest, random.Random(seed).randrange).body)


def _webhook(body: bytes) -> None:
    try:
        event = middesk.verify_webhook(body, signed(body), "secret")
    except ProtocolError:
        return
    assert event.ref is None or event.ref.id


def test_a_parked_run_of_any_shape_is_a_run_or_a_configuration_error(drive: Drive) -> None:
    ends = [drive.play(operation, lambda answer: answer)[0] for operation in OPERATIONS]
    runs = [end for end in ends if isinstance(end, Run)]
    assert len(runs) > 20
    for run in runs:
        honest = Answer("", 200, {}, run.to_json().encode())
        for seed in range(int(5 * SCALE)):
            _parked(spoilt(honest, random.Random(seed).randrange).body)


def _parked(body: bytes) -> None:
    try:
        run = Run.from_json(body)
    except ConfigurationError:
        return
    sane(run)
    with contextlib.suppress(ProtocolError):
        assert repr(run.detail)
    dialect: Any = DIALECTS.get(run.vendor)
    if run.status is RunStatus.REQUIRES_ACTION and hasattr(dialect, "resume"):
        flow = dialect.resume(run, [ToolOutput(action, "yes") for action in run.actions])
        try:
            asked = next(flow)
            while isinstance(asked, Request):
                body = b'{"version": 1, "defaults": {"model": "m"}}' if asked.method == "GET" else b"{}"
                asked = flow.send(Response(200, {}, body, asked))
        except AgentRunsError:
            pass


# Long answers ---------------------------------------------------------------------------------------------------------


def test_a_long_list_that_does_not_fit_is_refused_as_fast_as_one_that_does(drive: Drive) -> None:
    operation = OPERATIONS[NAMES.index("narrative fetch running")]
    count = 50_000

    def refusing(item: Any) -> tuple[Any, float]:
        def spoil(answer: Answer) -> Answer:
            tree = json.loads(answer.body)
            return evolve(answer, body=written({**tree, "submitted_inference_job_ids": [item] * count}))

        began = time.process_time()
        end, _ = drive.play(operation, spoil)  # which asks for its detail, too
        return end, time.process_time() - began

    fitting, normal = refusing("x")
    unfitting, took = refusing(0)

    assert repr(fitting.detail)
    with pytest.raises(ProtocolError, match="submitted_inference_job_ids"):
        _ = unfitting.detail
    assert took < 3 * normal + 0.1


# Deep answers ---------------------------------------------------------------------------------------------------------

DEEP: dict[str, tuple[str, str]] = {
    "narrative output": ("narrative fetch completed", '"final_text":null,"final_structured_output":'),
    "narrative arguments": ("narrative fetch paused", '"arguments":'),
    "narrative configuration": ("narrative fetch running", '"output_format_schema":'),
    "middesk output": ("middesk fetch completed", '"confidence":'),
    "middesk interrupt": ("middesk fetch paused", '"value":'),
    "origami cells": ("origami rows", '"cells":'),
    "conduit error": ("conduit fetch failed", '"error":'),
    "anywhere": ("narrative fetch running", '"novelty":'),
}
"""By name, an operation, and the key whose value is deep; a key that the answer lacks is added to it."""

DEPTHS = (50, 100, 150, 200, 300, 400, 500, 700, 800, *range(850, 1001, 10), 2000, 100_000)


@pytest.mark.parametrize("kind", ["list", "object"])
@pytest.mark.parametrize("place", DEEP.values(), ids=DEEP)
def test_a_deep_answer_is_refused_or_can_be_used_like_any_other(
    place: tuple[str, str], kind: str, drive: Drive
) -> None:
    name, key = place
    operation = OPERATIONS[NAMES.index(name)]
    for depth in DEPTHS:
        deep = "[" * depth + "]" * depth if kind == "list" else '{"a":' * depth + "1" + "}" * depth
        value = f'{{"deep":{deep}}}'

        def spoil(answer: Answer, value: str = value) -> Answer:
            body = answer.body.decode()
            if key not in body:
                return evolve(answer, body=f"{body[:-1]},{key}{value}}}".encode())
            at = body.index(key) + len(key)
            end = json.JSONDecoder().raw_decode(body, at)[1]
            return evolve(answer, body=(body[:at] + value + body[end:]).encode())

        try:
            first, _ = drive.play(operation, spoil)
            second, _ = drive.play(operation, spoil)
        except BaseException as error:
            error.add_note(f"at a depth of {depth}")
            raise
        if isinstance(first, Run):
            assert first == second
            assert hasattr(first, "raw")


# Lists without an end -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["middesk start, lost", "origami start, lost", "conduit start, lost"])
def test_a_list_without_an_end_does_not_keep_a_start_for_ever(name: str, drive: Drive) -> None:
    operation = OPERATIONS[NAMES.index(name)]
    pages = iter(range(10**9))

    def spoil(answer: Answer) -> Answer:
        if answer.line.startswith("POST") and answer.line != "POST /threads":
            return evolve(answer, status=500, headers={}, body=written({"error": "Oops", "code": "INTERNAL_ERROR"}))
        if not answer.line.startswith("GET"):
            return answer
        tree, page = json.loads(answer.body), next(pages)
        for key in ("data", "items"):
            if isinstance(tree.get(key), list):  # what is there belongs to others
                tree[key] = [{**each, "id": f"{page}-{number}"} for number, each in enumerate(tree[key])]
        return evolve(
            answer, body=written(_of_others({**tree, **MORE, "nextCursor": f"c{page}", "next_cursor": f"c{page}"}))
        )

    end, said = drive.play(operation, spoil)

    assert isinstance(end, OutcomeUnknownError), end
    assert len(said) < 500


MORE = {"has_more": True, "hasMore": True}


def _of_others(tree: Any) -> Any:
    """Give what is in a list other owners, prompts and triggers than ours."""
    if isinstance(tree, list):
        return [_of_others(each) for each in tree]
    if not isinstance(tree, dict):
        return tree
    ours = ("thread_id", "trigger_id", "prompt")
    return {
        key: "of another" if key in ours and isinstance(each, str) else _of_others(each) for key, each in tree.items()
    }


# Whole clients --------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.hasty
@pytest.mark.parametrize("vendor", HOUSES)
async def test_a_client_among_spoiled_answers_ends_every_wait_and_starts_nothing_twice(vendor: str) -> None:
    for seed in range(int(6 * SCALE)):
        chance = random.Random(f"{vendor} {seed}")

        async def twist(writer: asyncio.StreamWriter, honest: bytes, chance: random.Random = chance) -> None:
            answer = Answer("GET /", 200, {}, honest)
            if chance.randrange(3) == 0:
                answer = spoilt(answer, chance.randrange)
            status = 500 if answer.status in {0, 409, 429} else answer.status  # a refusal would be believed
            lines = [f"{name}: {value}" for name, value in answer.headers.items()]
            writer.write(whole(answer.body, *lines, status=f"{status} Said"))

        house = HOUSES[vendor]()
        async with Front(house) as front, client_of(house, front.url) as client:
            origin = await house.origin(client)
            front.trap(Trap(".*", twist))
            try:
                end = await outcome(client.result(origin, timeout=300.0, patience=30.0))
                if isinstance(end, Run):
                    sane(end)
                assert house.vendor.runs_started <= 1
            except BaseException as error:
                error.add_note(f"seed {seed}: {front.lines}")
                raise
