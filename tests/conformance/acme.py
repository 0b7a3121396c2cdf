"""
A fifth vendor, in one file: its dialect, an emulator of it, and its case in the kit.

Acme has jobs under a project, which may ask one question at a time and are answered in place. It has a cancel, a list,
a way to read many by their ids, and a key for each start.
"""

import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import msgspec
from attrs import evolve, field, frozen

from agentruns import Client, ConfigurationError
from agentruns.dialects import (
    MINTED,
    Action,
    Failure,
    Flow,
    Page,
    Problem,
    RateLimit,
    Request,
    Response,
    Run,
    RunRef,
    RunStatus,
    ToolOutput,
    check,
    reading,
    wire,
)
from agentruns.emulator import Prompt, Turn, Vendor
from agentruns.emulator import vendor as emulated
from agentruns.testing import Case

# The dialect ----------------------------------------------------------------------------------------------------------

NAME: Final = "acme"
BASE_URL: Final = "https://api.acme.test"
TOKEN_VARIABLE: Final = "ACME_TOKEN"
BASE_URL_VARIABLE: Final = "ACME_BASE_URL"
BUDGET: Final[RateLimit | None] = None
EMULATOR: Final = f"{__name__}:Acme"

STATUS: Final = {
    "queued": RunStatus.PENDING,
    "working": RunStatus.RUNNING,
    "asking": RunStatus.REQUIRES_ACTION,
    "ok": RunStatus.COMPLETED,
    "ko": RunStatus.FAILED,
}


@frozen
class Job:
    """Start a job; the key makes it one intent."""

    project: str = field(validator=check.not_empty)
    text: str
    key: str = field(factory=lambda: str(uuid.uuid4()), kw_only=True, metadata=MINTED)


Origin: Final = Job


def example() -> Job:
    return Job("p1", "Sort the post.")


@frozen
class AcmeJob:
    id: str
    project: str
    state: str
    answer: str | None = None
    error: str | None = None
    asks: tuple[Mapping[str, Any], ...] = ()


def start(origin: Job) -> Flow[Run[AcmeJob]]:
    body = {"text": origin.text, "key": origin.key}
    return _run((yield Request("POST", wire.path("projects", origin.project, "jobs"), json=body, idempotent=True)))


def fetch(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[AcmeJob]]:
    return _run((yield Request("GET", wire.path("jobs", ref.id), params=params)))


def resume(run: Run[AcmeJob], outputs: Sequence[ToolOutput]) -> Flow[Run[AcmeJob]]:
    for output in outputs:
        if not isinstance(output.output, str | Mapping):
            raise ConfigurationError(
                f"the answer to {output.action.name} must be a text or an object", field="ToolOutput.output"
            )
    answers = {output.action.id: output.output for output in outputs}
    # The answers name what they answer, so that giving them twice changes nothing.
    return _run((yield Request("POST", wire.path("jobs", run.id, "answers"), json=answers, idempotent=True)))


def cancel(ref: RunRef) -> Flow[Run[AcmeJob] | None]:
    return _run((yield Request("POST", wire.path("jobs", ref.id, "cancel"), idempotent=True)))


def page(parent: str, cursor: str | None) -> Flow[Page[AcmeJob]]:
    params = {"after": cursor} if cursor else {}
    response = yield Request("GET", wire.path("projects", parent, "jobs"), params=params)
    listed = wire.read_object(response)
    jobs = yield from reading.rows(response, listed.get("jobs"), "$.jobs", lambda job, at: _of(job, response, at))
    return Page(jobs, listed.get("after"))


def fetch_many(refs: Sequence[RunRef]) -> Flow[Sequence[Run[AcmeJob] | RunRef]]:
    response = yield Request("POST", "/jobs:read", json=[ref.id for ref in refs])
    listed = wire.read_object(response)
    return (yield from reading.rows(response, listed.get("jobs"), "$.jobs", lambda job, at: _of(job, response, at)))


def detail(raw: Mapping[str, Any]) -> AcmeJob:
    return wire.structure(raw, AcmeJob, "a job")


def problem(response: Response) -> Problem:
    return Problem(wire.first_text(wire.error_body(response), "why") or wire.body_excerpt(response))


def handler_names(action: Action) -> Sequence[str]:
    return (action.name,)


def _run(response: Response) -> Run[AcmeJob]:
    return _of(wire.read_object(response), response)


def _of(raw: Mapping[str, Any], response: Response, path: str = "$") -> Run[AcmeJob]:
    seen = wire.structure(raw, AcmeJob, response, path)
    status = STATUS.get(seen.state, RunStatus.RUNNING)
    return Run(
        RunRef(seen.id, seen.project),
        status,
        seen.state,
        actions=tuple(Action(ask["id"], ask["name"], ask["arguments"]) for ask in seen.asks),
        output=seen.answer,
        failure=Failure(seen.error or seen.state) if status is RunStatus.FAILED else None,
        vendor=NAME,
        detail=seen,
        raw=raw,
    )


# The emulator ---------------------------------------------------------------------------------------------------------


@frozen
class _Row:
    id: str
    project: str
    turns: tuple[Turn, ...]
    began: float
    answered: frozenset[str] = frozenset()
    cancelled: bool = False

    @property
    def turn(self) -> Turn:
        return self.turns[0]


class Acme(Vendor):
    """The emulated Acme: a job plays one turn after the other, each time it is answered."""

    name: ClassVar[str] = "acme"

    def __init__(self, stage: emulated.Stage) -> None:
        super().__init__(stage)
        self.rows: dict[str, _Row] = {}
        self.keys: dict[str, str] = {}

    @classmethod
    def build(cls, stage: emulated.Stage, options: Mapping[str, object]) -> Self:
        return cls(stage)

    @property
    def runs_started(self) -> int:
        return len(self.rows)

    @property
    def routes(self) -> Sequence[emulated.Route]:
        return (
            emulated.Route("POST", "/projects/{project}/jobs", self._start),
            emulated.Route("GET", "/projects/{project}/jobs", self._list),
            emulated.Route("POST", "/jobs:read", self._read),
            emulated.Route("GET", "/jobs/{id}", lambda request: self._show(request.params["id"])),
            emulated.Route("POST", "/jobs/{id}/answers", self._answer),
            emulated.Route("POST", "/jobs/{id}/cancel", self._cancel),
        )

    def refusal(self, status: int, detail: str, path: str) -> emulated.Reply:
        return emulated.Reply.of(status, {"why": detail})

    def _start(self, request: emulated.Request) -> emulated.Reply:
        body = msgspec.json.decode(request.content)
        if body["key"] not in self.keys:
            turns = [self.stage.play(Prompt(index=0, conversation_id="", text=body["text"]))]
            while turns[-1].calls:
                turns.append(self.stage.play(Prompt(index=len(turns), conversation_id="", text="")))
            row = _Row(str(uuid.uuid4()), request.params["project"], tuple(turns), self.stage.now())
            self.rows[row.id], self.keys[body["key"]] = row, row.id
        return self._show(self.keys[body["key"]])

    def _list(self, request: emulated.Request) -> emulated.Reply:
        ids = [row.id for row in self.rows.values() if row.project == request.params["project"]]
        at = int(request.query.get("after", 0))
        jobs = [self._json(self.rows[name]) for name in ids[at : at + 1]]
        return emulated.Reply.of(200, {"jobs": jobs, "after": str(at + 1) if at + 1 < len(ids) else None})

    def _read(self, request: emulated.Request) -> emulated.Reply:
        found = [self.rows[name] for name in msgspec.json.decode(request.content) if name in self.rows]
        return emulated.Reply.of(200, {"jobs": [self._json(row) for row in found]})

    def _answer(self, request: emulated.Request) -> emulated.Reply:
        row = self.rows[request.params["id"]]
        given = set(msgspec.json.decode(request.content))
        if not given <= row.answered:
            asked = {f"{len(row.turns)}-{number}" for number, _ in enumerate(row.turn.calls)}
            if given != asked:
                return self.refusal(422, f"it asks for {sorted(asked)}, and {sorted(given)} are answered", "")
            row = evolve(row, turns=row.turns[1:], began=self.stage.now(), answered=row.answered | given)
            self.rows[row.id] = row
        return self._show(row.id)

    def _cancel(self, request: emulated.Request) -> emulated.Reply:
        self.rows[request.params["id"]] = evolve(self.rows[request.params["id"]], cancelled=True)
        return self._show(request.params["id"])

    def _show(self, name: str) -> emulated.Reply:
        if name not in self.rows:
            return self.refusal(404, "no such job", "")
        return emulated.Reply.of(200, self._json(self.rows[name]))

    def _json(self, row: _Row) -> dict[str, Any]:
        age, turn = self.stage.now() - row.began, row.turn
        job: dict[str, Any] = {"id": row.id, "project": row.project, **turn.extra}
        if row.cancelled:
            return job | {"state": "ko", "error": "cancelled"}
        if age < turn.pending:
            return job | {"state": "queued"}
        if age < turn.lasts:
            return job | {"state": turn.status or "working"}
        if turn.calls:
            asks = [
                {"id": f"{len(row.turns)}-{number}", "name": call.name, "arguments": call.arguments}
                for number, call in enumerate(turn.calls)
            ]
            return job | {"state": "asking", "asks": asks}
        if turn.error:
            return job | {"state": "ko", "error": turn.error}
        return job | {"state": "ok", "answer": turn.text}


# Its case in the kit --------------------------------------------------------------------------------------------------


class AcmeCase(Case):
    dialect = sys.modules[__name__]
    start_path = list_path = "/projects/*/jobs"
    resume_path = "/jobs/*/answers"
    poll_path = "/jobs/*"
    rows_field = "jobs"

    async def origin(self, client: Client, server: Any) -> Job:
        return Job("p1", "Do it.")
