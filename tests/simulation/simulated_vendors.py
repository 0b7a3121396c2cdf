"""
The four vendors, each the state of its emulator without its server: what is asked is answered at once, by loop time.

A stand also knows what the vendor does not: which piece of work each run is for. Every run is noted as it is born, with
what was posted; every question an agent asks bears a mark (`w3/0/1`: of work w3, in its first pause, the second), and
so does every answer.
"""

from __future__ import annotations

import abc
import random
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from attrs import define, frozen
from multidict import CIMultiDict

from agentruns import Action, AgentRunsError, Run, RunRef, conduit, middesk, narrative, origami
from agentruns._values.codec import encode
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request as Asked
from agentruns._values.exchange import Response
from agentruns.emulator.conduit import Conduit
from agentruns.emulator.middesk import Middesk
from agentruns.emulator.narrative import Narrative
from agentruns.emulator.origami import Origami
from agentruns.emulator.script import Call, Prompt, Turn
from agentruns.emulator.vendor import Ids, Reply, Request, Stage, Vendor

T = TypeVar("T")

TOKEN: Final = "sim"
_START: Final = datetime(2026, 3, 1, tzinfo=UTC)
_MARK: Final = re.compile(r"(w\d+)/(\d+)/(\d+)")


@frozen
class Pause:
    """Where an agent stops to ask: how many questions, or for a word to go on."""

    questions: int
    goes_on: bool = False


@define
class Intent:
    """One piece of work that shall be done once."""

    name: str
    pauses: Sequence[Pause]
    fails: bool
    lasts: Sequence[tuple[float, float]]  # of each segment: seconds pending, and running
    word: str | None = None  # that the vendor says instead of its word for running
    keyed: bool = True
    place: Any = None  # conversation, thread, agent or trigger
    started: int = 0  # how often callers asked for it without a key
    killed: bool = False  # somebody who was at it

    @property
    def key(self) -> str:
        """Return the name in the journal."""
        return f"key of {self.name}"

    def turn(self, segment: int, calls: Callable[[str], Call]) -> Turn:
        """Return what the agent does in a segment."""
        pending, running = self.lasts[min(segment, len(self.lasts) - 1)]
        common: dict[str, Any] = {"pending": pending, "running": running, "status": self.word}
        if segment < len(self.pauses):
            marks = [f"{self.name}/{segment}/{number}" for number in range(self.pauses[segment].questions)]
            if self.pauses[segment].goes_on:
                return Turn(marks[0], error="incomplete", **common)
            return Turn(calls=[calls(mark) for mark in marks], **common)
        if self.fails:
            return Turn(error=(f"{self.name} broke", "as planned"), **common)
        return Turn(f"{self.name} done", **common)


@frozen
class Birth:
    """A run as it came into the world: for which work, as which segment, and what it was told."""

    intent: str
    segment: int
    told: tuple[tuple[str, str], ...] = ()  # marks, and the answers to them


class Stand(abc.ABC):
    """One vendor."""

    name: ClassVar[str]
    dialect: ClassVar[Any]
    prefix: ClassVar[str] = ""
    has_keys: ClassVar[bool]  # whether the same origin value is one run, however often it is started
    resumes: ClassVar[bool] = True
    polls: ClassVar[re.Pattern[str]]  # the paths of runs

    def __init__(self, chance: random.Random, clock: Callable[[], float]) -> None:
        self.chance = chance
        self.asking: str | None = None  # the work for which a request is
        self.intents: dict[str, Intent] = {}
        self.births: list[Birth] = []
        stage = Stage(TOKEN, clock, _START, self._play, Ids(chance.getrandbits(32)))
        self.vendor: Any = self.build(stage)
        self.past: dict[str, list[tuple[float, Reply]]] = {}
        self.clock = clock
        self.oddities: list[str] = []

    @abc.abstractmethod
    def build(self, stage: Stage) -> Vendor:
        """Make the emulator's vendor."""

    @abc.abstractmethod
    def settle_in(self, intent: Intent) -> None:
        """Make what the work needs before it is started."""

    @abc.abstractmethod
    def origin(self, intent: Intent, minted: bool) -> Any:
        """Return what starts the work; if *minted*, with new ids, as a program has that was started again."""

    @abc.abstractmethod
    def play(self, prompt: Prompt) -> tuple[Birth | None, Turn]:
        """Say what the agent does, and which run is born, if one is."""

    def _play(self, prompt: Prompt) -> Turn:
        birth, turn = self.play(prompt)
        if birth is not None:
            if self.asking != birth.intent:
                self.oddities.append(f"a run for {birth.intent} was started on behalf of {self.asking}")
            self.births.append(birth)
        return turn

    # Asking -----------------------------------------------------------------------------------------------------------

    def respond(self, request: Request) -> Reply:
        """Answer, and remember what was read for those who will be shown the past."""
        reply: Reply = self.vendor.respond(request)
        if request.method == "GET":
            told = self.past.setdefault(f"{request.path}?{sorted(request.query.items())}", [])
            if not told or told[-1][1].content != reply.content:
                told.append((self.clock(), reply))
        return reply

    def earlier(self, request: Request, chance: random.Random) -> Reply | None:
        """Return an answer that was true some seconds ago, if there is one."""
        told = self.past.get(f"{request.path}?{sorted(request.query.items())}", [])
        old = [reply for when, reply in told[:-1] if reply.status == 200 and self.clock() - when < 60.0]
        return chance.choice(old) if old else None

    def ask(self, flow: Flow[T]) -> T:
        """Perform a flow without a network."""
        try:
            wanted = next(flow)
            while True:
                assert isinstance(wanted, Asked)
                wanted = flow.send(self._answered(wanted))
        except StopIteration as end:
            result: T = end.value
            return result

    def _answered(self, wanted: Asked) -> Response:
        reply = self.vendor.respond(
            Request(
                method=wanted.method,
                path=self.prefix + wanted.path,
                query=dict(wanted.params),
                headers={"Authorization": f"Bearer {TOKEN}", **wanted.headers},
                content=b"" if wanted.json is None else encode(wanted.json),
            )
        )
        return Response(reply.status, CIMultiDict(reply.headers), reply.content, wanted)

    # Looking ----------------------------------------------------------------------------------------------------------

    def truth(self, ref: RunRef) -> Run | None:
        """Return the run as it is."""
        with suppress(AgentRunsError, KeyError):
            run: Run = self.ask(self.dialect.fetch(ref, {}))
            return run
        return None

    def lives(self) -> Iterator[tuple[str, Birth]]:
        """Iterate over the runs, oldest first, and how each was born."""
        return zip(self.vendor.runs, self.births, strict=True)

    def ref(self, run_id: str) -> RunRef:
        """Return the name of a run."""
        return RunRef(run_id, self.parent(self.vendor.runs[run_id]))

    @abc.abstractmethod
    def parent(self, row: Any) -> str:
        """Return what a run hangs on."""

    def answers(self) -> Iterator[tuple[str, str, str]]:
        """Iterate over what the vendor was answered: mark, answer, and by what it came."""
        for run_id, birth in self.lives():
            for mark, text in birth.told:
                yield mark, text, run_id

    def mark(self, action: Action) -> str | None:
        """Return the mark of a question."""
        found = _MARK.search(encode(action.arguments).decode())
        return found and found[0]

    def date(self) -> str:
        """Return the time of day by the vendor's clock, as a header."""
        stage = self.vendor.stage
        return format_datetime(stage.wall(stage.now()), usegmt=True)

    def spoiled(self, status: int) -> Reply:
        """Return a refusal of the vendor's own making."""
        refusal: Reply = self.vendor.refusal(status, "Not now.", "/")
        return refusal


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


class NarrativeStand(Stand):
    """Narrative: a conversation for each piece of work."""

    name = "narrative"
    dialect: ClassVar[Any] = narrative
    has_keys = True
    polls: ClassVar[re.Pattern[str]] = re.compile(r"/agents/runs/([^/]+)")

    def build(self, stage: Stage) -> Vendor:
        absent = self.chance.choice(["null", "omit", "random"])
        return Narrative.build(stage, {"absent": absent, "fractional_seconds": self.chance.random() < 0.5})

    def settle_in(self, intent: Intent) -> None:
        tools = [narrative.Tool(f"s{s}n{n}", "Ask.", {"type": "object"}) for s in range(3) for n in range(3)]
        made = self.ask(
            narrative.create_conversation(
                narrative.Config(
                    model="sim",
                    data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
                    max_iterations=4,
                    max_tokens=64,
                    output_format_schema=narrative.TEXT_SCHEMA,
                    client_tools=[narrative.ClientTools("sim", tools)],
                )
            )
        )
        intent.place = (made.id, _uuid(self.chance))
        self.intents[made.id] = intent

    def origin(self, intent: Intent, minted: bool) -> Any:
        conversation, op_id = intent.place
        return narrative.UserMessage(
            conversation, f"do {intent.name}", client_op_id=_uuid(self.chance) if minted else op_id
        )

    def play(self, prompt: Prompt) -> tuple[Birth | None, Turn]:
        intent = self.intents[prompt.conversation_id]
        told = []
        segment = 0
        for output in prompt.outputs:
            asked, _, number = output.name.removeprefix("sim-s").partition("n")
            segment = int(asked) + 1
            told.append((f"{intent.name}/{asked}/{number}", output.text))
        return Birth(intent.name, segment, tuple(told)), intent.turn(segment, self._call)

    def _call(self, mark: str) -> Call:
        _, segment, number = mark.split("/")
        return Call(f"s{segment}n{number}", {"mark": mark})

    def parent(self, row: Any) -> str:
        return str(row.conversation_id)


class MiddeskStand(Stand):
    """Middesk: a type of agent for each piece of work, on a thread of its own or on one that is named."""

    name = "middesk"
    dialect: ClassVar[Any] = middesk
    prefix = "/v1"
    has_keys = False
    polls: ClassVar[re.Pattern[str]] = re.compile(r"/v1/runs/([^/]+)")

    def build(self, stage: Stage) -> Vendor:
        self._born: list[str] = []
        return Middesk.build(
            stage,
            {
                "agents": (*(f"agent of w{number}" for number in range(12)), "clerk"),
                "absent": self.chance.choice(["null", "omit", "random"]),
                "fractional_seconds": self.chance.random() < 0.5,
                "resume_status": self.chance.choice([200, 202, 204]),
            },
        )

    def settle_in(self, intent: Intent) -> None:
        self.intents[intent.name] = intent
        business = _uuid(self.chance)
        shared = next((each.place for each in self.intents.values() if each is not intent), None)
        kind = self.chance.random()
        if intent.place == "shared":
            thread = shared[1] if shared else self.ask(middesk.create_thread("clerk", business_id=business)).id
            intent.place = ("clerk", thread, None)
        elif kind < 0.5:
            intent.place = (f"agent of {intent.name}", None, business)
        else:
            made = self.ask(middesk.create_thread(f"agent of {intent.name}", business_id=business))
            intent.place = (f"agent of {intent.name}", made.id, None)

    def origin(self, intent: Intent, minted: bool) -> Any:
        kind, thread, business = intent.place
        return middesk.RunRequest(kind, thread_id=thread, business_id=business)

    def play(self, prompt: Prompt) -> tuple[Birth | None, Turn]:
        if prompt.index == 0:
            assert prompt.agent is not None
            name = prompt.agent.rpartition(" ")[2]
            if name == "clerk":
                assert self.asking is not None
                name = self.asking
            self._born.append(name)
            return Birth(name, 0), self.intents[name].turn(0, self._call)
        mark = self._mark_of(prompt)
        return None, self.intents[mark].turn(prompt.index, self._call)

    def _mark_of(self, prompt: Prompt) -> str:
        """Return whose run goes on: the one of which this interrupt was."""
        ids = {output.tool_use_id for output in prompt.outputs}
        for row in self.vendor._state._runs.values():
            if any(one.id in ids for segment in row.segments for one in segment.interrupts):
                return str(self._born[row.number])
        raise LookupError(prompt)

    def _call(self, mark: str) -> Call:
        return Call("reviewer", {"agent": "reviewer", "label": mark, "artifacts": []})

    def parent(self, row: Any) -> str:
        return str(row.thread_id)

    def answers(self) -> Iterator[tuple[str, str, str]]:
        for row in self.vendor.runs.values():
            for segment in row.segments:
                for one in segment.interrupts:
                    if one.answered is not None:
                        answer = one.answer["error"] if isinstance(one.answer, Mapping) else one.answer
                        yield str(one.value["label"]), str(answer), one.id


class OrigamiStand(Stand):
    """Origami: a new agent for each piece of work, or one that there is."""

    name = "origami"
    dialect: ClassVar[Any] = origami
    prefix = "/api/v2"
    has_keys = True
    polls: ClassVar[re.Pattern[str]] = re.compile(r"/api/v2/agents/[^/]+/runs/([^/]+)")

    def build(self, stage: Stage) -> Vendor:
        self.slots = self.chance.choice([None, None, None, 2])
        self._agents: dict[str, str] = {}
        return Origami.build(
            stage,
            {
                "plan": "enterprise",
                "slots": self.slots,
                "slot_retry_after": 5,
                "retry_after": self.chance.choice([None, 2, 5]),
                "store_refusals": self.chance.random() < 0.7,
                "in_flight": self.chance.choice([0.0, 0.0, 0.5]),
                "cancel_delay": self.chance.choice([0.0, 0.05, 3.0]),
                "cells_settle": 0.0,
            },
        )

    def settle_in(self, intent: Intent) -> None:
        self.intents[intent.name] = intent
        agent = self.vendor.add_agent(intent.name).id if self.chance.random() < 0.3 else None
        intent.place = (agent, _uuid(self.chance))

    def origin(self, intent: Intent, minted: bool) -> Any:
        agent, key = intent.place
        return origami.Prompt(
            f"do {intent.name}.", agent_id=agent, idempotency_key=_uuid(self.chance) if minted else key
        )

    def play(self, prompt: Prompt) -> tuple[Birth | None, Turn]:
        text = prompt.text or ""
        start = re.fullmatch(r"do (w\d+)\.", text)
        if start:
            self._agents[prompt.conversation_id] = start[1]
            name, segment = start[1], 0
            told: tuple[tuple[str, str], ...] = ()
        else:
            name = self._agents[prompt.conversation_id]
            answers = [text] if "\n" not in text else [line.partition(" -> ")[2][:-1] for line in text.split("\n")]
            marks = [_MARK.search(answer) for answer in answers]
            segment = next((int(mark[2]) + 1 for mark in marks if mark), prompt.index)
            told = tuple(
                (f"{name}/{segment - 1}/{number}", answer.removeprefix("No answer: "))
                for number, answer in enumerate(answers)
            )
        return Birth(name, segment, told), self.intents[name].turn(segment, self._call)

    def _call(self, mark: str) -> Call:
        return Call("ask-questions", {"question": mark, "type": "single-choice", "suggestedAnswers": ["yes", "no"]})

    def parent(self, row: Any) -> str:
        return str(row.agent_id)


class ConduitStand(Stand):
    """Conduit: a trigger for each piece of work, or one for all."""

    name = "conduit"
    dialect: ClassVar[Any] = conduit
    prefix = "/v1"
    has_keys = False
    resumes = False
    polls: ClassVar[re.Pattern[str]] = re.compile(r"/v1/agents/[^/]+/runs/([^/]+)")

    def build(self, stage: Stage) -> Vendor:
        self.shown_after = self.chance.choice([0.0, 0.2, 3.0])
        return Conduit.build(
            stage,
            {
                "shown_after": self.shown_after,
                "created_when": self.chance.choice(["dispatched", "shown"]),
                "cursors": self.chance.choice(["offset", "keyed"]),
                "absent": self.chance.choice(["null", "omit", "random"]),
                "grow": self.chance.random() < 0.3,
                "dispatch_code": self.chance.choice([200, 202]),
            },
        )

    def settle_in(self, intent: Intent) -> None:
        self.intents[intent.name] = intent
        if intent.place == "shared":
            intent.place = (self.vendor.agent_id, self.vendor.trigger_id)
        elif self.chance.random() < 0.3:
            agent = self.vendor.add_agent(intent.name)
            intent.place = (agent.id, None)  # it has but one trigger
        else:
            intent.place = (self.vendor.agent_id, self.vendor.add_trigger().id)

    def origin(self, intent: Intent, minted: bool) -> Any:
        agent, trigger = intent.place
        return conduit.Dispatch(agent, trigger_id=trigger, payload={"work": intent.name})

    def play(self, prompt: Prompt) -> tuple[Birth | None, Turn]:
        found = re.search(r"w\d+", prompt.text or "")
        assert found is not None
        return Birth(found[0], 0), self.intents[found[0]].turn(0, partial(Call))

    def parent(self, row: Any) -> str:
        return str(row.agent_id)


STANDS: Final[Mapping[str, type[Stand]]] = {
    each.name: each for each in (NarrativeStand, MiddeskStand, OrigamiStand, ConduitStand)
}
