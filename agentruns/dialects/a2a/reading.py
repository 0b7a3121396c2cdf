"""Reading tasks, lists of them, and errors, in either binding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from attrs import field, frozen

from agentruns._values.codec import CamelCase
from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.generic import Json
from agentruns._values.run import Action, Failure, JsonText, Page, Run, RunRef, RunStatus
from agentruns.dialects import reading, wire

from .objects import Task
from .parts import filled, text_of, value_of

NAME: Final = "a2a"

INPUT: Final = "input_required"
AUTH: Final = "auth_required"
"""The names of the two actions, under which their handlers are looked for."""

NEEDS_LOGIN: Final = "TASK_STATE_AUTH_REQUIRED"

STATUS: Final[Mapping[str, RunStatus]] = {
    "TASK_STATE_SUBMITTED": RunStatus.PENDING,
    "TASK_STATE_WORKING": RunStatus.RUNNING,
    "TASK_STATE_INPUT_REQUIRED": RunStatus.REQUIRES_ACTION,
    NEEDS_LOGIN: RunStatus.REQUIRES_ACTION,
    "TASK_STATE_COMPLETED": RunStatus.COMPLETED,
    "TASK_STATE_FAILED": RunStatus.FAILED,
    "TASK_STATE_CANCELED": RunStatus.FAILED,
    "TASK_STATE_REJECTED": RunStatus.FAILED,
}

MESSAGE: Final = "message"
"""The `vendor_status` of a run whose agent answered at once, by a plain message: there is no task."""

LOGIN_SECONDS: Final = 1.0
"""When a task is looked at again that needs a login: it may go on once somebody has logged in elsewhere."""

PER_PAGE: Final = 50
"""The default of the specification; a page has the artifacts of so many tasks."""


@frozen
class _Said(CamelCase):
    parts: tuple[Mapping[str, Any], ...] = ()
    message_id: str = ""


@frozen
class _Status(CamelCase):
    state: str


@frozen
class _Saying(CamelCase):
    """What the status of a task has that asks, has failed, or has completed without an artifact."""

    message: _Said = _Said()


@frozen
class _Seen(CamelCase):
    """What every state needs."""

    id: str
    status: _Status
    context_id: str = ""


@frozen
class _Results(CamelCase):
    """What a completed task has."""

    artifacts: tuple[_Said, ...] = ()


@frozen
class _Direct(CamelCase):
    """What an answer needs that is a plain message."""

    message_id: str
    context_id: str = ""
    parts: tuple[Mapping[str, Any], ...] = ()


@frozen
class _Listed(CamelCase):
    next_page_token: str = ""
    tasks: tuple[Any, ...] = field(factory=tuple)


def fetch(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[Task]]:
    """Read a task (Get Task)."""
    return parse_run((yield Request("GET", wire.path("tasks", ref.id), params=params)))


def cancel(ref: RunRef) -> Flow[Run[Task] | None]:
    """Cancel a task; an error where it is over already (Cancel Task)."""
    return parse_run((yield post(wire.path("tasks", ref.id) + ":cancel", {}, idempotent=True)))


def page(parent: str, cursor: str | None) -> Flow[Page[Task]]:
    """Return a page of tasks, whole, of a context or of all: those that changed last come first (List Tasks)."""
    params = {"pageSize": str(PER_PAGE), "includeArtifacts": "true"}
    params |= {name: value for name, value in (("contextId", parent), ("pageToken", cursor)) if value}
    response = yield Request("GET", wire.path("tasks"), params=params)
    raw, path = unwrapped(response)
    at = ".".join(("$", *path))
    token = wire.structure({**raw, "tasks": []}, _Listed, response, at).next_page_token
    rows = raw.get("tasks") or []
    runs = yield from reading.rows(response, rows, f"{at}.tasks", lambda row, place: _task(row, response, place))
    return Page(runs, token or None, len(rows) - len(runs))


def list_parent(_: RunRef) -> str:
    """Return the list of all tasks that the token may see: each has its state as it is now."""
    return ""


def parse_run(response: Response) -> Run[Task]:
    """Return the task in an answer: by itself, in the envelope of `message:send`, or in that of JSON-RPC."""
    raw, path = unwrapped(response)
    for key, read in (("task", _task), ("message", _message)):
        inner = raw.get(key)
        if isinstance(inner, Mapping) and "status" not in raw:
            where = (*path, key)
            return read(inner, response, ".".join(("$", *where)), JsonText(response.body, where))
    return _task(raw, response, ".".join(("$", *path)), JsonText(response.body, path))


def unwrapped(response: Response) -> tuple[Mapping[str, Json], tuple[str, ...]]:
    """Return the object in an answer, and the keys that lead to it: those of JSON-RPC, or none."""
    body = wire.read_object(response)
    return (wire.read_object(response, "result"), ("result",)) if "jsonrpc" in body else (body, ())


def _task(raw: Any, response: Response | str, at: str, text: JsonText | None = None) -> Run[Task]:
    seen = wire.structure(raw, _Seen, response, at)
    word = seen.status.state
    status = STATUS.get(word, RunStatus.RUNNING)  # an unknown word: in flight until the deadline

    def said() -> _Said:
        return wire.structure(raw["status"], _Saying, response, f"{at}.status").message

    output: Json = None
    if status is RunStatus.COMPLETED:
        groups = [each.parts for each in wire.structure(raw, _Results, response, at).artifacts]
        output = value_of(groups) if any(groups) else value_of([said().parts], between="\n")
    return Run(
        wire.ref(seen.id, seen.context_id, response=response if isinstance(response, Response) else None),
        status,
        word,
        actions=(_asked(raw, word, said()),) if status is RunStatus.REQUIRES_ACTION else (),
        output=output,
        failure=Failure(word, text_of(said().parts)) if status is RunStatus.FAILED else None,
        poll_after=LOGIN_SECONDS if word == NEEDS_LOGIN else None,
        vendor=NAME,
        raw=text or raw,
    )


def _asked(raw: Mapping[str, Any], word: str, said: _Said) -> Action:
    """Return the question; its id is that of its message, else what tells it from an earlier one of the same task."""
    name = AUTH if word == NEEDS_LOGIN else INPUT
    more = [filled(part) for part in said.parts if "text" not in part]
    arguments: dict[str, Json] = {"text": text_of(said.parts), **({"parts": more} if more else {})}
    since = wire.first_text(raw["status"], "timestamp") or raw["id"]
    return Action(said.message_id or f"{name} {since}", name, arguments)


def _message(raw: Any, response: Response, at: str, text: JsonText | None = None) -> Run[Task]:
    seen = wire.structure(raw, _Direct, response, at)
    return Run(
        wire.ref(seen.message_id, seen.context_id, response=response),
        RunStatus.COMPLETED,
        MESSAGE,
        output=value_of([seen.parts], between="\n"),
        vendor=NAME,
        raw=text or raw,
    )


def run_of(raw: Any, source: str) -> Run[Task]:
    """Return the state that a task's JSON object shows which came otherwise than as an answer: by *source*."""
    return _task(raw, source, "$")


def detail(raw: Mapping[str, Any]) -> Task:
    """Return a task's JSON object, or that of a plain message, as `Task`; raise `ProtocolError` for a misfit."""
    if "status" not in raw and "messageId" in raw:
        names = {"id": raw["messageId"], "contextId": raw.get("contextId")}
        return wire.structure({**names, "status": {"state": MESSAGE, "message": raw}}, Task, "a message")
    return wire.structure(raw, Task, f"task {raw.get('id')}")


def times(run: Run[Task]) -> tuple[datetime | None, datetime | None]:
    """Return when a task that is over came to its end; no field says when it began."""
    told = wire.mapping(run.raw.get("status")).get("timestamp") if run.status.is_over else None
    return None, None if told is None else wire.structure(told, datetime, f"task {run.id}", "$.status.timestamp")


def post(path: str, body: Mapping[str, Json], *, idempotent: bool = False) -> Request:
    """Return a POST with the media type of the binding."""
    return Request("POST", path, json=body, headers={"Content-Type": "application/a2a+json"}, idempotent=idempotent)


def handler_names(action: Action) -> Sequence[str]:
    """Return `input_required` or `auth_required`: the agent gives its questions no other names."""
    return (action.name,)


# Errors ---------------------------------------------------------------------------------------------------------------

_RPC_STATUS: Final[Mapping[int, int]] = {-32001: 404, -32601: 404, -32603: 500, -32006: 500, -32000: 500}
"""By code of JSON-RPC, the HTTP status that the other binding has for that error; 400 for all others."""


def error_status(response: Response) -> int | None:
    """Return the HTTP status for an error of JSON-RPC, which comes with 200; None for anything else."""
    body = wire.error_body(response)
    error = body.get("error")
    if "jsonrpc" not in body or not isinstance(error, Mapping):
        return None
    code = error.get("code")
    return _RPC_STATUS.get(code, 400) if isinstance(code, int) else 500


def problem(response: Response) -> Problem:
    """Read an error: a `google.rpc.Status` (AIP-193), or that of JSON-RPC, which has the same details as `data`."""
    body = wire.error_body(response)
    error = wire.mapping(body.get("error"))
    details = wire.objects(error.get("details") or error.get("data"))
    reasons = [wire.first_text(each, "reason") for each in details]
    fields = [one for each in details for one in wire.objects(each.get("fieldViolations"))]
    return Problem(
        message=wire.first_text(error, "message") or wire.body_excerpt(response),
        code=next(filter(None, reasons), None) or wire.first_text(error, "status"),
        detail=body,
        particulars=tuple(
            f"{wire.first_text(each, 'field')}: {wire.first_text(each, 'description')}" for each in fields
        ),
    )
