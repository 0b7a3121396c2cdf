"""Reading runs, lists of them, and errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from attrs import frozen

from agentruns._values import codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.run import Action, Failure, JsonText, Page, Run, RunRef, RunStatus
from agentruns.dialects import wire
from agentruns.errors import APIError, ProtocolError, TransportError

from .objects import MiddeskRun, Step

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
"""A guess for runs and threads: the maximum that the API states for its one list that states any."""

NO_ANSWER: Final = (APIError, TransportError, ProtocolError)
"""What a read that told nothing ends in."""


def fetch(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[MiddeskRun]]:
    """Read a run (get-agent-run); `include=steps` asks for its trace. The thread is not needed."""
    return parse_run((yield Request("GET", wire.path("runs", ref.id), params=params)))


def page(parent: str, cursor: str | None) -> Flow[Page[MiddeskRun]]:
    """
    Return a page of the account's runs, those of the thread *parent* if one is named (list-agent-runs).

    The vendor cannot filter. An empty page is the last one, whatever it says.
    """
    number = int(cursor or 1)
    params = {"page": str(number), "per_page": str(MOST_PER_PAGE)}
    response = yield Request("GET", wire.path("runs"), params=params)
    raw = wire.read_object(response)
    seen = wire.structure(raw, _Runs, response)
    runs = [_state(run, raw["data"][place], response) for place, run in enumerate(seen.data)]
    kept = tuple(run for run in runs if parent in {"", run.ref.parent})
    return Page(kept, str(number + 1) if seen.has_more and runs else None)


@frozen
class _Runs:
    has_more: bool
    data: tuple[MiddeskRun, ...] = ()


def events(ref: RunRef) -> Request:
    """Return the request for the stream of events (stream-agent-run-events); its end does not say how the run ended."""
    return Request("GET", wire.path("runs", ref.id, "stream"), headers={"Accept": "text/event-stream"})


def detail(raw: Mapping[str, Any]) -> MiddeskRun:
    """Return a run's JSON object as `MiddeskRun`."""
    return codec.structure(raw, MiddeskRun)


def parse_run(response: Response) -> Run[MiddeskRun]:
    """Return the run in the answer to a request."""
    raw = wire.read_object(response)
    return _state(wire.structure(raw, MiddeskRun, response), raw, response, JsonText(response.body))


def _state(
    seen: MiddeskRun, raw: Mapping[str, Any], response: Response, text: JsonText | None = None
) -> Run[MiddeskRun]:
    """Trust `status` alone: interrupts and output count only in the state that they belong to."""
    status = STATUS.get(seen.status, RunStatus.RUNNING)  # an unknown word: in flight until the deadline
    interrupts = seen.interrupts if status is RunStatus.REQUIRES_ACTION else ()
    return Run(
        wire.ref(seen.id, seen.thread_id or ""),
        status,
        seen.status,
        actions=tuple(Action(each.id, each.agent or "interrupt", each.value) for each in interrupts),
        output=raw.get("output") if status is RunStatus.COMPLETED else None,
        failure=Failure(seen.status, _reason(seen.steps or ())) if status is RunStatus.FAILED else None,
        poll_after=wire.retry_after(response.headers) if status.in_flight else None,
        vendor=NAME,
        raw=text or raw,
    )


def _reason(steps: Iterable[Step]) -> str:
    """Return what the last error step says: the run itself has no field for why it failed."""
    trace = list(_walk(steps))
    wrong = [step for step in trace if step.type == "error"] or [step for step in trace if step.status == "error"]
    return wrong[-1].label if wrong else ""


def _walk(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        yield from _walk(step.steps)


def problem(response: Response) -> Problem:
    """
    Read an error body: `errors`, each with a message and perhaps the parameter at fault (status-codes-errors).

    There is no code. A request id is not documented, and read from `X-Request-Id` where there is one.
    """
    body = wire.error_body(response)
    errors = body.get("errors")
    texts = [_said(each) for each in errors if isinstance(each, Mapping)] if isinstance(errors, list) else []
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


def times(run: Run[MiddeskRun]) -> tuple[datetime | None, datetime | None]:
    """Return when a run was made; when it ended says little of a run that may have waited for a person."""
    return run.detail.created_at, None


def handler_names(action: Action) -> Sequence[str]:
    """Return the name of the agent that asks, or `interrupt`."""
    return (action.name,)
