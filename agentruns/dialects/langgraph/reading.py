"""
Reading runs: their states, what they wait for, errors.

The server says `success` of a run that is over and of one whose graph waits. What it is, is said by the last checkpoint
that the run has made: the state of its thread, or one of the thread's history.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from attrs import evolve, frozen

from agentruns._values import codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, Request, Response, ServerEvent
from agentruns._values.generic import Json
from agentruns._values.run import Action, Failure, JsonText, Run, RunRef, RunStatus
from agentruns.dialects import wire
from agentruns.errors import NotFoundError

from .objects import GraphRun

NAME: Final = "langgraph"

_HISTORY: Final = 1000
"""How many checkpoints are looked through for one of a run, on Aegra, which cannot be asked for it."""

NEXT: Final = "next:"
"""How the id of an action begins that lets a graph go on which has stopped before a node."""

STATUS: Final[Mapping[str, RunStatus]] = {
    "pending": RunStatus.PENDING,
    "running": RunStatus.RUNNING,
    "success": RunStatus.COMPLETED,
    "interrupted": RunStatus.FAILED,
    "error": RunStatus.FAILED,
    "timeout": RunStatus.FAILED,
}
"""The words of runs; of those in `TOLD_BY_STATE`, a checkpoint says more."""

TOLD_BY_STATE: Final = frozenset({"success", "interrupted"})
"""Words of runs that are over or wait: `interrupted` is one that was cancelled and, on Aegra, also one that waits."""


@frozen
class _RunState:
    run_id: str
    thread_id: str
    status: str


@frozen
class _Interrupt:
    id: str
    value: Any = None


@frozen
class _Task:
    id: str
    name: str
    error: Any = None
    interrupts: tuple[_Interrupt, ...] = ()


@frozen
class State:
    """What is read of a checkpoint of a thread."""

    values: Any = None
    next: tuple[str, ...] = ()
    tasks: tuple[_Task, ...] = ()
    metadata: Mapping[str, Any] | None = None

    @property
    def run_id(self) -> str:
        """Return the run that made it, empty where none did."""
        return wire.first_text(wire.mapping(self.metadata), "run_id") or ""

    @property
    def interrupts(self) -> tuple[Action, ...]:
        """Return what nodes ask, each by the name of its node."""
        return tuple(
            Action(each.id, task.name, each.value if isinstance(each.value, Mapping) else {"value": each.value})
            for task in self.tasks
            for each in task.interrupts
        )

    @property
    def actions(self) -> tuple[Action, ...]:
        """Return what the graph waits for: its interrupts or, without any, to go on with the nodes that are next."""
        if self.next and not self.tasks:  # which a state need not have
            return tuple(Action(f"{NEXT}{name}", name) for name in self.next)
        return self.interrupts or tuple(
            Action(f"{NEXT}{task.id}", task.name) for task in self.tasks if task.error is None
        )


def fetch(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[GraphRun]]:
    """Read a run, and the state of its thread once the run moves no more."""
    response = yield Request("GET", wire.path("threads", ref.parent, "runs", ref.id), params=params)
    run = run_of(response)
    if run.status.in_flight:
        return run
    if run.vendor_status not in TOLD_BY_STATE:
        return evolve(run, failure=(yield from _failure(run)))
    text, state = yield from read_state(ref)
    own = state.run_id == ref.id
    if not own:
        past = yield from _last_state(run)
        if past is not None:
            own, (text, state) = True, past
    return settled(run, state, raw=_joined(response.body, text), own=own)


def _last_state(run: Run[GraphRun]) -> Flow[tuple[bytes, State] | None]:
    """Return the last checkpoint that a run has made, and its text; None if it has made none."""
    asked = {"limit": _HISTORY} if is_of_aegra(run.raw) else {"limit": 1, "metadata": {"run_id": run.id}}
    path = wire.path("threads", run.ref.parent, "history")
    response = yield Request("POST", path, json=asked, idempotent=True)
    for place, row in enumerate(wire.objects(wire.read_value(response))):
        state = wire.structure(row, State, response, f"$[{place}]")
        if state.run_id == run.id:
            return codec.encode(row), state
    return None


def fetch_settled(ref: RunRef, waits: str) -> Flow[Run[GraphRun]]:
    """
    Read a run whose thread is not busy any more by the state of that, which mostly says all; else as any run.

    *waits* is the word of the server for a run that waits.
    """
    text, state = yield from read_state(ref)
    failed = any(task.error is not None for task in state.tasks)
    if state.run_id != ref.id or failed or (state.next and not state.interrupts):
        return (yield from fetch(ref, {}))
    word = waits if state.interrupts else "success"
    told = codec.encode({"run_id": ref.id, "thread_id": ref.parent, "status": word})
    run: Run[GraphRun] = Run(ref, RunStatus.COMPLETED, word, vendor=NAME)
    return settled(run, state, raw=_joined(told, text), own=True)


def cancel(ref: RunRef) -> Flow[Run[GraphRun] | None]:
    """Cancel a run, and return it as it is then; one that is over, or waits, stays as it is."""
    path = wire.path("threads", ref.parent, "runs", ref.id, "cancel")
    with suppress(NotFoundError):  # of a run that is over, too
        yield Request("POST", path, params={"action": "interrupt"}, idempotent=True, is_json=False)
    return (yield from fetch(ref, {}))


def run_of(response: Response, row: Mapping[str, Json] | None = None) -> Run[GraphRun]:
    """Return the run in an answer, or in a *row* of one, as it is told without a checkpoint."""
    raw = wire.read_object(response) if row is None else row
    seen = wire.structure(raw, _RunState, response)
    ref = wire.ref(seen.run_id, seen.thread_id, owned=True, response=response)
    text = JsonText(response.body) if row is None else row
    return Run(ref, STATUS.get(seen.status, RunStatus.RUNNING), seen.status, vendor=NAME, raw=text)


def started(response: Response, row: Mapping[str, Json] | None = None) -> Run[GraphRun]:
    """
    Return a run that was just made, or found in a *row*: one that moves no more counts as in flight, until it is read.

    One that is quick may be over by the time of the answer, which has neither what it asks nor what it has brought.
    """
    run = run_of(response, row)
    return run if run.status.in_flight else evolve(run, status=RunStatus.RUNNING)


def read_state(ref: RunRef) -> Flow[tuple[bytes, State]]:
    """Return the state of the thread of a run, and its text."""
    response = yield Request("GET", wire.path("threads", ref.parent, "state"))
    return response.body, wire.read(response, State)


def settled(
    run: Run[GraphRun], state: State, *, own: bool, raw: JsonText | Mapping[str, Json] | None = None
) -> Run[GraphRun]:
    """
    Return a run that moves no more with the state that it has come to: its *own*, or that of its thread.

    A run that answers some of several interrupts makes no checkpoint: it waits for the rest.
    """
    raw = run.raw if raw is None else raw
    actions = wire.unique(state.actions)
    if not (waited(run) or (own and state.interrupts)):
        failure = Failure("interrupted", "the run was cancelled")
        return evolve(run, status=RunStatus.FAILED, failure=failure, raw=raw)
    output = wire.mapping(run.raw.get("output"))  # Aegra shows it
    if actions and (own or not output or run.vendor_status == "interrupted"):
        return evolve(run, status=RunStatus.REQUIRES_ACTION, actions=actions, raw=raw)
    return evolve(run, status=RunStatus.COMPLETED, output=state.values if own else output or None, raw=raw)


def waited(run: Run[GraphRun]) -> bool:
    """
    Tell whether a run that moves no more may have waited, and was not cancelled.

    Aegra says `interrupted` of both, and shows an output of one that waited alone.
    """
    return run.vendor_status == "success" or bool(run.raw.get("output"))


def is_of_aegra(raw: Mapping[str, Json]) -> bool:
    """Tell whether a run is as Aegra shows it: what it was made with stands in the row itself."""
    return "kwargs" not in raw


def given_to(raw: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return what a run was made with: its `kwargs`; a row of Aegra has all of it itself."""
    return raw if is_of_aegra(raw) else wire.mapping(raw["kwargs"])


def marks_of(raw: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return the metadata of a run; Aegra shows none but in its configuration."""
    return wire.mapping(raw.get("metadata") or wire.mapping(given_to(raw).get("config")).get("metadata"))


def _joined(run: bytes, state: bytes) -> JsonText:
    """Return the text of a run with that of its state as `state`."""
    return JsonText(run.rstrip()[:-1] + b',"state":' + state.removeprefix(BOM_UTF8) + b"}")


def _failure(run: Run[GraphRun]) -> Flow[Failure]:
    """Return what a run that failed has raised: its thread says it of the last run, a checkpoint of its nodes."""
    told = wire.first_text(run.raw, "error_message")  # of Aegra
    if told is not None:
        return Failure(run.vendor_status, told)
    response = yield Request("GET", wire.path("threads", run.ref.parent))
    thread = wire.read_object(response)
    error = wire.mapping(thread.get("error"))
    if error and thread.get("updated_at") == run.raw.get("updated_at"):
        return Failure(wire.first_text(error, "error") or run.vendor_status, wire.first_text(error, "message") or "")
    _, state = yield from read_state(run.ref)
    raised = [task.error for task in state.tasks if isinstance(task.error, str) and state.run_id == run.id]
    return Failure(run.vendor_status, raised[0] if raised else "")


def events(ref: RunRef) -> Request:
    """Return the request that follows a run: the server ends the stream with it."""
    return Request("GET", wire.path("threads", ref.parent, "runs", ref.id, "stream"))


def event_of(ref: RunRef, event: ServerEvent) -> bool:  # noqa: ARG001
    """Tell that a run has moved only by an error: what it does meanwhile is no state, and its end ends the stream."""
    return event.name == "error"


# ----------------------------------------------------------------------------------------------------------------------


def is_uuid(text: str) -> bool:
    """Tell whether a text is a UUID as the server writes it."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def made_at(run_id: str) -> datetime | None:
    """Return when a run was made, by the server's clock, which an id of version 7 tells; None for others."""
    if not is_uuid(run_id) or UUID(run_id).version != 7:
        return None
    return datetime.fromtimestamp((UUID(run_id).int >> 80) / 1000, UTC)


def detail(raw: Mapping[str, Any]) -> GraphRun:
    """Return the JSON object of a run as `GraphRun`; raise `ProtocolError` for what does not fit."""
    return wire.structure(raw, GraphRun, f"run {raw.get('run_id')}")


def timing_group(run: Run[GraphRun]) -> str:
    """Return the assistant."""
    made = wire.mapping(wire.mapping(run.raw.get("state")).get("metadata"))
    return wire.first_text(run.raw, "assistant_id") or wire.first_text(made, "assistant_id") or ""


def times(run: Run[GraphRun]) -> tuple[datetime | None, datetime | None]:
    """Return when a run was made, and when it was noted to be over, or made its last checkpoint."""
    raw = run.raw
    ended = wire.first_text(raw, "updated_at") or wire.first_text(wire.mapping(raw.get("state")), "created_at")
    began = wire.first_text(raw, "created_at")
    return _moment(began) or made_at(run.id), None if run.status.in_flight else _moment(ended)


def _moment(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None


def handler_names(action: Action) -> Sequence[str]:
    """Return the name of the node that asks, then `interrupt`."""
    return (action.name, "interrupt")


def problem(response: Response) -> Problem:
    """Read an error body: `{"detail": "..."}`."""
    body = wire.error_body(response)
    return Problem(wire.first_text(body, "detail", "message") or wire.body_excerpt(response), detail=body)
