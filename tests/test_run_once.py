"""Work under a key is done once: what a handler has done stays done, whatever becomes of writing its answer."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from itertools import count
from pathlib import Path
from threading import get_ident
from types import SimpleNamespace
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
from attrs import evolve, field, frozen

from agentruns import (
    Action,
    Client,
    ConfigurationError,
    Retry,
    Run,
    RunRef,
    RunStatus,
    ToolError,
    ToolOutcomeUnknownError,
    ToolOutput,
    conduit,
    connect,
    langgraph,
    middesk,
    origami,
)
from agentruns._keeping.digest import request_digest
from agentruns._keeping.handlers import HandlersOnce
from agentruns._keeping.journal import Journal
from agentruns._keeping.origins import check_class, check_value
from agentruns._keeping.work import deserialize_origin, is_same_work, run_text, serialize_origin, undeclared_ids
from agentruns.dialects import MINTED, MINTED_LABEL, Problem, narrative
from agentruns.emulator import Call, Emulator, Turn
from tests.scripted_wire import HEAD, NEXT_RUN, POLL, POLL_NEXT, RUN, START, Wire, begun, conversation, run
from tests.test_keys import KEY, QUICK, client_of, message
from tests.tiny_vendor import Server, tiny

pytestmark = pytest.mark.asyncio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def wire() -> Wire:
    return Wire({
        HEAD: conversation(),
        START: [begun(), begun(id=NEXT_RUN)],
        POLL: run("requires_action"),
        POLL_NEXT: run("completed", id=NEXT_RUN),
    })


class Unwritable:
    """What no JSON can carry."""


@pytest.mark.parametrize("output", [Unwritable(), float("nan"), {"deep": [Unwritable()]}, lambda: 1])
async def test_a_handler_whose_answer_cannot_be_written_is_not_run_again(wire: Wire, path: Path, output: Any) -> None:
    ran: list[Action] = []

    async def charge(action: Action) -> Any:
        ran.append(action)
        return output

    with pytest.raises(ConfigurationError):
        async with client_of(wire, path) as client:
            await client.result(message(), tools=charge, key=KEY)
    async with client_of(wire, path) as client:
        with pytest.raises(ToolOutcomeUnknownError):
            await client.result(message(), tools=charge, key=KEY)
        with pytest.raises(ToolOutcomeUnknownError, match="its answer could not be written") as caught:
            await client.result(message(), tools=charge, key=KEY)
        assert len(ran) == 1
        # a person decides
        assert caught.value.run is not None
        await client.resume(caught.value.run, [ToolOutput(ran[0], "charged")])
        assert (await client.result(message(), tools=charge, key=KEY)).status is RunStatus.COMPLETED
    assert len(ran) == 1


async def test_an_answer_that_is_nested_as_no_vendors_may_be_is_kept_and_posted(wire: Wire, path: Path) -> None:
    tree = "[" * 200 + "]" * 200

    async def draw(_: Action) -> Any:
        return json.loads(tree)

    async with client_of(wire, path) as client:
        assert (await client.result(message(), tools=draw, key=KEY)).status is RunStatus.COMPLETED
    assert tree in json.dumps(wire.bodies(START)[-1])


async def test_an_origin_that_is_nested_as_no_answer_may_be_comes_back() -> None:
    origin = langgraph.Invocation("agent", json.loads('{"of":' * 200 + "1" + "}" * 200))
    assert is_same_work(serialize_origin(origin), origin)
    assert deserialize_origin(serialize_origin(origin), langgraph) == origin


async def test_a_handler_that_raises_has_not_done_its_work_and_is_run_again(wire: Wire, path: Path) -> None:
    ran: list[Action] = []

    async def charge(action: Action) -> str:
        ran.append(action)
        if len(ran) == 1:
            raise KeyError("broken")
        return "charged"

    async with client_of(wire, path) as client:
        with pytest.raises(KeyError):
            await client.result(message(), tools=charge, key=KEY)
    async with client_of(wire, path) as client:
        await client.result(message(), tools=charge, key=KEY)

    assert len(ran) == 2


async def test_the_reason_of_a_refusal_that_utf_8_cannot_carry_is_mended_and_kept(wire: Wire, path: Path) -> None:
    async def read(action: Action) -> str:
        raise ToolError("no such file: caf\udce9.txt")

    async with client_of(wire, path) as client:
        assert (await client.result(message(), tools=read, key=KEY)).status is RunStatus.COMPLETED
    async with Journal(path, "narrative") as journal:
        (kept,) = await journal.answers(KEY, RUN)
    assert kept.is_error
    assert kept.output is not None
    assert "no such file: caf" in kept.output


@pytest.mark.usefixtures("prompt_origami")
async def test_an_answer_that_the_vendors_dialect_refuses_is_not_kept_as_given(path: Path) -> None:
    question = Call("ask-questions", {"question": "Which?", "type": "single", "suggestedAnswers": ["a", "b"]})
    prompt, asked = origami.Prompt("Find clinics."), []

    async def choose(action: Action) -> Any:
        asked.append(action)
        return None

    def again(emulator: Emulator[Any]) -> Client[Any, Any]:
        return connect(origami, base_url=emulator.base_url, token=emulator.token, journal=path)

    with Emulator("origami", script=[Turn(calls=[question]), Turn("done")], retry_after=0) as emulator:
        async with again(emulator) as client:
            with pytest.raises(ConfigurationError, match="is empty; return a text"):
                await client.result(prompt, tools=choose, key=KEY)
        async with again(emulator) as client:
            with pytest.raises(ToolOutcomeUnknownError) as caught:
                await client.result(prompt, tools=choose, key=KEY)
            assert caught.value.run is not None
            await client.resume(caught.value.run, [ToolOutput(asked[0], "a")])
            assert (await client.result(prompt, tools=choose, key=KEY)).status is RunStatus.COMPLETED

    assert len(asked) == 1


QUESTIONS = Turn(calls=[Call("ask-questions", {"question": each}) for each in ("Which city?", "Which street?")])
LONG = "a" * 6_000  # one fits into a prompt of Origami, two do not


def asking(emulator: Emulator[Any], path: Path) -> Client[Any, Any]:
    return connect(origami, base_url=emulator.base_url, token=emulator.token, journal=path, schedule=QUICK)


async def test_an_answer_that_is_refused_beside_another_one_is_not_kept_and_the_other_one_stands(path: Path) -> None:
    prompt, ran = origami.Prompt("Find clinics."), []

    async def look_up(action: Action) -> str:
        ran.append(action.id)
        return LONG

    with Emulator("origami", script=[QUESTIONS, Turn("done")], retry_after=0) as emulator:
        async with asking(emulator, path) as client:
            with pytest.raises(ConfigurationError, match="make a prompt of 12"):
                await client.result(prompt, tools=look_up, key=KEY)
        async with asking(emulator, path) as client:
            with pytest.raises(ToolOutcomeUnknownError) as caught:
                await client.result(prompt, tools=look_up, key=KEY)
            paused = caught.value.run
            assert paused is not None
            (first,) = [each for each in await kept(path, paused.id) if each.output is not None]
            outputs = [ToolOutput(each, LONG if each.id == first.action_id else "short") for each in paused.actions]
            await client.resume(paused, outputs)
            assert (await client.result(prompt, tools=look_up, key=KEY)).output == "done"

    assert sorted(ran) == ["0", "1"]  # each once


async def test_answers_that_two_processes_have_kept_at_once_are_taken_back_where_they_cannot_be_sent_together(
    path: Path,
) -> None:
    prompt, given = origami.Prompt("Find clinics."), [LONG, LONG, "short", "short"]

    class Ask:
        repeatable = True

        async def __call__(self, action: Action) -> Any:
            return given.pop(0)

    with Emulator("origami", script=[QUESTIONS, Turn("done")], retry_after=0) as emulator:
        async with asking(emulator, path) as client:
            with pytest.MonkeyPatch.context() as patch:  # as if each had looked before the other one kept its own
                patch.setattr("agentruns._keeping.handlers.check_answers", lambda *_: None)
                with pytest.raises(ConfigurationError, match="make a prompt of 12"):
                    await client.result(prompt, tools=Ask(), key=KEY)
            assert (await client.result(prompt, tools=Ask(), key=KEY)).output == "done"

    assert given == []


async def test_an_answer_that_is_about_to_be_kept_when_another_handler_fails_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, ran, is_kept = origami.Prompt("Find clinics."), [], asyncio.Event()

    async def look(self: HandlersOnce, run: Run, action: Action) -> Sequence[ToolOutput]:
        is_kept.set()
        await asyncio.sleep(0.05)
        return ()

    monkeypatch.setattr(HandlersOnce, "_kept", look)

    async def look_up(action: Action) -> str:
        ran.append(action.id)
        if action.id == "1":
            await is_kept.wait()
            if ran.count("1") == 1:
                raise LookupError("no street of that name")
        return "short"

    with Emulator("origami", script=[QUESTIONS, Turn("done")], retry_after=0) as emulator:
        async with asking(emulator, path) as client:
            with pytest.raises(LookupError):
                await client.result(prompt, tools=look_up, key=KEY)
            assert (await client.result(prompt, tools=look_up, key=KEY)).output == "done"

    assert sorted(ran) == ["0", "1", "1"]


async def kept(path: Path, run_id: str) -> Sequence[Any]:
    async with Journal(path, "origami") as journal:
        return await journal.answers(KEY, run_id)


async def test_a_handler_that_may_be_repeated_is_asked_again_for_an_answer_that_can_be_sent(
    wire: Wire, path: Path
) -> None:
    answers: list[Any] = [Unwritable(), "yes"]

    class Ask:
        repeatable = True

        async def __call__(self, action: Action) -> Any:
            return answers.pop(0)

    async with client_of(wire, path) as client:
        with pytest.raises(ConfigurationError):
            await client.result(message(), tools=Ask(), key=KEY)
    async with client_of(wire, path) as client:
        await client.result(message(), tools=Ask(), key=KEY)

    assert answers == []


# What starts the work -------------------------------------------------------------------------------------------------


@frozen
class Place:
    city: str
    since: datetime


@frozen
class Job:
    when: datetime
    places: tuple[Place, ...]
    names: list[str]
    best: Place | None = None
    _note: str = "none"


WHEN = datetime(2024, 1, 1, tzinfo=UTC)
JOB = Job(WHEN, (Place("Oslo", WHEN), Place("Rome", WHEN)), ["a"], Place("Bonn", WHEN), note="private")


def acme(origins: Sequence[Any] = ()) -> Any:
    return SimpleNamespace(
        NAME="acme",
        BASE_URL="https://x",
        TOKEN_VARIABLE="T",
        BASE_URL_VARIABLE="U",
        BUDGET=None,
        Origin=Job,
        problem=lambda response: Problem(""),
        handler_names=lambda action: [],
    )


async def test_an_origin_of_ones_own_comes_back_as_it_was() -> None:
    assert deserialize_origin(serialize_origin(JOB), acme()) == JOB


@frozen
class Van:
    wheels: int


@frozen
class Boat:
    sails: int
    crew: tuple[str, ...] = ()


def of(origin: type[Any]) -> Any:
    """Return a dialect with that class of origins."""
    return SimpleNamespace(**{**vars(tiny()), "Origin": origin})


class Traced(dict[str, Any]):
    """An object of many parts that knows which thread wrote it last."""

    def __init__(self) -> None:
        super().__init__({str(number): [number] * 10 for number in range(1_000)})
        self.thread = 0

    def items(self) -> Any:
        self.thread = get_ident()
        return super().items()


@frozen
class Load:
    name: str
    rows: Any


def loaded() -> Any:
    return SimpleNamespace(**{**vars(tiny()), "Origin": Load, "start": lambda load: vars(tiny())["start"](load.name)})


async def test_a_large_origin_is_written_in_a_thread(path: Path) -> None:
    rows = Traced()
    journal, retry = Journal(path, "tiny"), Retry(attempts=1)
    async with Client(loaded(), Server(seconds=0.0), retry=retry, schedule=QUICK, journal=journal) as client:
        await client.result(Load("a-1", rows), key=KEY)

    assert rows.thread not in {0, get_ident()}


async def test_a_large_answer_by_hand_is_written_in_a_thread(wire: Wire, path: Path) -> None:
    rows = Traced()
    async with client_of(wire, path) as client:
        paused = [state async for state in client.stream(message(), key=KEY)][-1]
        await client.resume(paused, [ToolOutput(paused.actions[0], rows)])

    assert rows.thread not in {0, get_ident()}


async def test_a_large_state_is_written_in_a_thread() -> None:
    rows = Traced()
    state = Run(RunRef("1"), RunStatus.COMPLETED, "done", output=rows)

    assert await run_text(state) == state.to_json()
    assert rows.thread == get_ident()  # by `to_json`
    await run_text(state)
    assert rows.thread != get_ident()


class Size(Enum):
    SMALL = "s"


@frozen
class Trip:
    by: Van | Boat
    stops: list[Van | Place]
    day: date
    id: UUID
    price: Decimal
    size: Size
    kind: Literal["near", "far"]
    more: Mapping[str, Any]
    until: datetime | None = None


TRIP = Trip(
    Boat(2, ("Ann",)),
    [Van(4), Place("Oslo", WHEN)],
    date(2024, 1, 2),
    UUID(int=7),
    Decimal("1.50"),
    Size.SMALL,
    "far",
    {"a": [1, {"b": None}]},
)


async def test_unions_of_classes_dates_and_numbers_of_an_origin_come_back_as_they_were() -> None:
    vendor = of(Trip)
    text = serialize_origin(TRIP)

    assert deserialize_origin(text, vendor) == TRIP
    check_value(TRIP, text, vendor)
    check_class(Trip)


@frozen
class Vague:
    when: str | datetime = ""
    either: Van | Mapping[str, int] = Van(1)
    places: Mapping[str, Place] = field(factory=dict)
    local: datetime = WHEN
    free: Any = None


@pytest.mark.parametrize(
    ("origin", "lost"),
    [
        (Vague(), None),
        (Vague(free={1: (WHEN, Van(2))}), None),  # JSON to whoever reads it
        (Vague(when=WHEN), r"Vague\.when, of datetime"),
        (Vague(places={"a": Place("Oslo", WHEN)}), None),  # each as its type says
        (Vague(local=WHEN.replace(tzinfo=None)), r"Vague\.local"),  # of no time zone
    ],
)
async def test_an_origin_that_would_not_come_back_as_it_is_is_refused_by_the_name_of_its_field(
    origin: Vague, lost: str | None
) -> None:
    vendor = of(Vague)
    if lost is None:
        check_value(origin, serialize_origin(origin), vendor)
    else:
        with pytest.raises(ConfigurationError, match=lost):
            check_value(origin, serialize_origin(origin), vendor)


@frozen
class Opaque:
    text: str
    parts: list[Unwritable | int]


async def test_an_origin_whose_type_no_journal_brings_back_is_refused_when_the_client_is_made(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"the type of Opaque\.parts"):
        connect(of(Opaque), token="t", journal=path)
    connect(of(Opaque), token="t")


@pytest.mark.parametrize("vendor", [narrative, middesk, origami, conduit])
async def test_every_origin_of_our_vendors_comes_back(vendor: Any) -> None:
    check_class(vendor.Origin)


async def test_a_reference_and_a_message_come_back_too() -> None:
    asked = narrative.UserMessage("c", "go", config_override={"max_tokens": 3}, expected_version=4)

    assert deserialize_origin(serialize_origin(RunRef("1", "2")), acme()) == RunRef("1", "2")
    assert deserialize_origin(serialize_origin(asked), narrative) == asked


@frozen
class NewPlace(Place):
    floor: int = 0


@frozen
class NewJob(Job):
    tags: list[str] = field(factory=list)
    id: str = field(factory=lambda: str(uuid4()), metadata=MINTED)


ROME = NewJob(WHEN, (NewPlace("Rome", WHEN),), ["a"], NewPlace("Bonn", WHEN))


@pytest.mark.parametrize(
    ("now", "same"),
    [
        (ROME, True),
        (evolve(ROME, id="another"), True),
        (evolve(ROME, tags=["b"]), False),
        (evolve(ROME, names=["a", "b"]), False),
        (evolve(ROME, names=["b"]), False),
        (evolve(ROME, best=NewPlace("Bonn", WHEN, 2)), False),
        (evolve(ROME, best=None), False),
        (evolve(ROME, places=(NewPlace("Oslo", WHEN),)), False),
        (RunRef("1"), False),
    ],
)
async def test_an_origin_kept_before_a_field_existed_is_the_same_work_while_that_is_at_its_default(
    now: Any, same: bool
) -> None:
    kept = serialize_origin(Job(WHEN, (Place("Rome", WHEN),), ["a"], Place("Bonn", WHEN)))

    assert is_same_work(kept, now) is same


@pytest.mark.parametrize(
    "origin",
    [
        narrative.UserMessage("c", "go", tool_choice=narrative.AUTO, config_override={"max_tokens": 3}),
        origami.Prompt("Find vets."),
        middesk.RunRequest("a", thread_id="t"),
        conduit.Dispatch("a", payload={"n": [1, {"m": None}]}),
    ],
    ids=lambda origin: type(origin).__name__,
)
async def test_no_optional_field_of_a_vendors_origin_is_missed_where_an_older_version_kept_it(origin: Any) -> None:
    """However many of those that are at their defaults did not exist, and within what an origin holds, too."""
    kept = json.loads(serialize_origin(origin))
    for old in [*({**kept, name: ...} for name in kept if kept[name] is None), kept]:
        told = {name: each for name, each in old.items() if each is not ...}
        if told.get("tool_choice"):
            told["tool_choice"] = {"kind": "auto"}
        assert is_same_work(json.dumps(told), origin)
        assert is_same_work(json.dumps(told), evolve(origin))
        assert not is_same_work(json.dumps({**told, "unheard_of": 1}), origin)


async def test_what_is_a_list_or_an_object_by_default_tells_work_apart() -> None:
    @frozen
    class Asked:
        tags: list[str] = field(factory=list)

    assert not is_same_work(serialize_origin(Asked(["a"])), Asked(["b"]))
    assert is_same_work(serialize_origin(Asked(["a"])), Asked(["a"]))


@pytest.mark.parametrize("declared", [MINTED, MINTED_LABEL, None])
async def test_two_origins_that_differ_by_a_new_id_are_the_same_work_if_its_field_says_so(declared: Any) -> None:
    @frozen
    class Asked:
        text: str
        tags: list[str] = field(factory=list)
        id: str = field(factory=lambda: str(uuid4()), metadata=declared)

    kept = serialize_origin(Asked("a"))

    assert is_same_work(kept, Asked("a")) is (declared is not None)
    assert (request_digest(Asked("a")) == request_digest(Asked("a"))) is (declared is not None)
    assert undeclared_ids(kept, Asked("a")) == ([] if declared else ["id"])
    assert undeclared_ids(kept, Asked("b")) == []
    assert undeclared_ids(kept, "b") == []


async def test_no_default_is_made_to_compare_what_is_asked() -> None:
    numbers = count()

    @frozen
    class Asked:
        id: str = field(factory=lambda: str(next(numbers)), metadata=MINTED)

    asked = Asked()

    assert is_same_work(serialize_origin(asked), Asked())
    assert next(numbers) == 2, "a factory may count, or ask a server"


async def test_a_key_whose_origin_has_an_id_that_does_not_say_that_it_is_new_tells_the_author(path: Path) -> None:
    @frozen
    class Asked:
        text: str
        id: str = field(factory=lambda: str(uuid4()))

    dialect = SimpleNamespace(**{**vars(of(Asked)), "start": lambda asked: vars(tiny())["start"](asked.text)})
    async with Client(
        dialect, Server(seconds=0.0), retry=Retry(), schedule=QUICK, journal=Journal(path, "tiny")
    ) as client:
        await client.result(Asked("a-1"), key=KEY)
        with pytest.raises(ConfigurationError, match=r"if id is a new id with each value, .*MINTED"):
            await client.result(Asked("a-1"), key=KEY)
        with pytest.raises(ConfigurationError, match="names other work") as told:
            await client.result(Asked("a-2"), key=KEY)

    assert "MINTED" not in str(told.value)
