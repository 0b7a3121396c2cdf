"""Reading runs, lists of them, and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from attrs import field, frozen

from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.run import Action, Failure, JsonText, Page, Run, RunRef, RunStatus
from agentruns.dialects import guesses, reading, wire
from agentruns.errors import APIError, InvalidRequestError, ProtocolError, TransportError

from .objects import MiddeskRun

NAME: Final = "middesk"

STATUS: Final[Mapping[str, RunStatus]] = {
    "running": RunStatus.RUNNING,
    "interrupted": RunStatus.REQUIRES_ACTION,
    "completed": RunStatus.COMPLETED,
    "error": RunStatus.FAILED,
    # Words of an earlier wording of reference/run.
    "pending": RunStatus.PENDING,
    "failed": RunStatus.FAILED,
}

MOST_PER_PAGE: Final = 100
"""The maximum that the API states for its one list that states any, taken for that of runs and threads."""

NO_ANSWER: Final = (APIError, TransportError, ProtocolError)
"""What a read that told nothing ends in."""


@frozen
class Reading:
    """How runs and lists of them are read, where no page says it; `variant` gives other values."""

    status: Mapping[str, RunStatus] = STATUS
    per_page: int = MOST_PER_PAGE


AS_GUESSED: Final = Reading()


@frozen
class RunState:
    """What every state needs."""

    id: str
    status: str
    created_at: datetime
    thread_id: str | None = None


@frozen
class Asked:
    """What is asked."""

    id: str
    value: Mapping[str, Any] = field(factory=dict)
    agent: str | None = None


@frozen
class PausedRun:
    """What a paused run asks."""

    interrupts: tuple[Asked, ...] = ()


def fetch(ref: RunRef, params: Mapping[str, str], *, reads: Reading = AS_GUESSED) -> Flow[Run[MiddeskRun]]:
    """Read a run (get-agent-run); `include=steps` asks for its trace. The thread is not needed."""
    return parse_run((yield Request("GET", wire.path("runs", ref.id), params=params)), reads=reads)


def page(parent: str, cursor: str | None, *, reads: Reading = AS_GUESSED) -> Flow[Page[MiddeskRun]]:
    """
    Return a page of the account's runs, those of the thread *parent* if one is named (list-agent-runs).

    The vendor cannot filter. An empty page is the last one, whatever it says. A row that does not fit is left out.
    """
    number = int(cursor or 1)
    params = {"page": str(number), "per_page": str(reads.per_page)}
    try:
        response = yield Request("GET", wire.path("runs"), params=params)
    except InvalidRequestError as error:
        what = "how many runs a page may have"
        guesses.refused(error, what, params, "`middesk.variant(per_page=...)`", guessed="their number")
        raise
    raw = wire.read_object(response)
    more = wire.structure(raw, Listed, response).has_more
    data = raw.get("data") or []
    runs = yield from reading.rows(response, data, "$.data", lambda row, at: _state(row, response, at, reads))
    kept = tuple(run for run in runs if parent in {"", run.ref.parent})
    return Page(kept, str(number + 1) if more and data else None, len(data) - len(runs))


@frozen
class Listed:
    """What every list with pages needs."""

    has_more: bool


def events(ref: RunRef) -> Request:
    """Return the request for the stream of events (stream-agent-run-events); its end does not say how the run ended."""
    return Request("GET", wire.path("runs", ref.id, "stream"), headers={"Accept": "text/event-stream"})


def detail(raw: Mapping[str, Any]) -> MiddeskRun:
    """Return a run's JSON object as `MiddeskRun`; raise `ProtocolError` for what does not fit."""
    return wire.structure(raw, MiddeskRun, f"run {raw.get('id')}")


def parse_run(response: Response, *, reads: Reading = AS_GUESSED) -> Run[MiddeskRun]:
    """Return the run in the answer to a request."""
    text = JsonText(response.body)
    moving = wire.glance(response, RunState)
    if moving is not None and (status := _status(moving, reads)).in_flight:
        return _run(moving, status, response, text)
    return _state(wire.read_object(response), response, "$", reads, text)


def _state(raw: Any, response: Response, at: str, reads: Reading, text: JsonText | None = None) -> Run[MiddeskRun]:
    """Trust `status` alone: interrupts and output count only in the state that they belong to."""
    seen = wire.structure(raw, RunState, response, at)
    status = _status(seen, reads)
    asked: tuple[Asked, ...] = ()
    if status is RunStatus.REQUIRES_ACTION:
        asked = wire.structure(raw, PausedRun, response, at).interrupts
    return _run(
        seen,
        status,
        response,
        text or raw,
        actions=wire.unique(tuple(Action(each.id, each.agent or "interrupt", each.value) for each in asked), response),
        output=raw.get("output") if status is RunStatus.COMPLETED else None,
        failure=Failure(seen.status, _reason(raw.get("steps"))) if status is RunStatus.FAILED else None,
    )


def _status(seen: RunState, reads: Reading) -> RunStatus:
    return reads.status.get(seen.status, RunStatus.RUNNING)  # an unknown word: in flight until the deadline


def _run(
    seen: RunState,
    status: RunStatus,
    response: Response,
    raw: JsonText | Mapping[str, Any],
    *,
    actions: tuple[Action, ...] = (),
    output: Any = None,
    failure: Failure | None = None,
) -> Run[MiddeskRun]:
    ref = wire.ref(seen.id, seen.thread_id or "", response=response)
    return Run(ref, status, seen.status, actions, output, failure, vendor=NAME, raw=raw)


_NO_REASON: Final = "a run has no field for why; its trace may say it: read the run with include=steps"


def _reason(steps: Any) -> str:
    """Return what the last error step says: the run itself has no field for why it failed."""
    if not isinstance(steps, list):
        return _NO_REASON
    trace = list(_walk(steps))
    wrong = [step for step in trace if step.get("type") == "error"]
    wrong = wrong or [step for step in trace if step.get("status") == "error"]
    return (wire.first_text(wrong[-1], "label") or "") if wrong else ""


def _walk(steps: Any) -> Iterator[Mapping[str, Any]]:
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, Mapping):
            yield step
            yield from _walk(step.get("steps"))


def problem(response: Response) -> Problem:
    """
    Read an error body: `errors`, each with a message and perhaps the parameter at fault (status-codes-errors).

    There is no code. A request id is not documented, and read from `X-Request-Id` where there is one.
    """
    body = wire.error_body(response)
    texts = [_said(each) for each in wire.objects(body.get("errors"))]
    return Problem(
        message="; ".join(filter(None, texts)) or wire.body_excerpt(response),
        request_id=response.headers.get("x-request-id"),
        detail=body,
    )


def _said(error: Mapping[str, Any]) -> str:
    message, parameter = wire.first_text(error, "message") or "", wire.first_text(error, "parameter")
    return f"{message} (parameter: {parameter})" if message and parameter else message


def timing_group(run: Run[MiddeskRun]) -> str:
    """Return the type of the agent whose run it is."""
    return wire.first_text(run.raw, "agent") or ""


def list_parent(_ref: RunRef) -> str:
    """Return the whole account's list, which cannot be narrowed by thread (list-agent-runs)."""
    return ""


def created_at(run: Run[MiddeskRun]) -> datetime:
    """Return when a run was made."""
    return wire.structure(run.raw, RunState, f"run {run.id}").created_at


def times(run: Run[MiddeskRun]) -> tuple[datetime | None, datetime | None]:
    """Return when a run was made; when it ended says little of a run that may have waited for a person."""
    return created_at(run), None


def handler_names(action: Action) -> Sequence[str]:
    """Return the name of the agent that asks, or `interrupt`."""
    return (action.name,)
