"""Reading responses: their states, the calls that they wait for, errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from attrs import frozen

from agentruns._values import codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.generic import Json
from agentruns._values.run import Action, Failure, JsonText, Run, RunRef, RunStatus
from agentruns.dialects import reading, wire

from .objects import ResponseDetail

NAME: Final = "openai_responses"
APPROVAL: Final = "mcp_approval_request"

STATUS: Final[Mapping[str, RunStatus]] = {
    "queued": RunStatus.PENDING,
    "in_progress": RunStatus.RUNNING,
    "completed": RunStatus.COMPLETED,
    "failed": RunStatus.FAILED,
    "cancelled": RunStatus.FAILED,
    "incomplete": RunStatus.FAILED,
}

OTHER_CALLS: Final = frozenset({"computer_call", "local_shell_call", "shell_call", "apply_patch_call"})
"""Calls of the vendor's own tools that the caller carries out; the kind of their outputs is `<kind>_output`."""


@frozen
class ResponseState:
    """What every state needs."""

    id: str
    status: str
    output: tuple[Mapping[str, Any], ...] = ()
    created_at: float | None = None
    completed_at: float | None = None


@frozen
class MovingResponse(ResponseState):
    """What a state in flight tells beside that: what it has used."""

    usage: Json = None


def fetch(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[ResponseDetail]]:
    """Read a response (responses/retrieve)."""
    return parse_run((yield Request("GET", wire.path("responses", ref.id), params=params)))


def parse_run(response: Response) -> Run[ResponseDetail]:
    """Return the run in the answer to `fetch`."""
    moving = wire.glance(response, MovingResponse)
    if moving is not None and (status := STATUS.get(moving.status, RunStatus.RUNNING)).in_flight:
        return _run(moving, status, response, moving.usage)
    raw = wire.read_object(response)
    seen = wire.structure(raw, ResponseState, response)
    status = STATUS.get(seen.status, RunStatus.RUNNING)
    actions: tuple[Action, ...] = ()
    if status is RunStatus.COMPLETED:
        actions = wire.unique(tuple(_calls(seen.output, response)), response)
        status = RunStatus.REQUIRES_ACTION if actions else status
    return _run(
        seen,
        status,
        response,
        raw.get("usage"),
        actions=actions,
        output=None if status.in_flight or actions else _output(seen.output, raw),
        failure=_failure(seen.status, raw) if status is RunStatus.FAILED else None,
    )


def _run(
    seen: ResponseState,
    status: RunStatus,
    response: Response,
    usage: Json,
    *,
    actions: tuple[Action, ...] = (),
    output: Json = None,
    failure: Failure | None = None,
) -> Run[ResponseDetail]:
    return Run(
        wire.ref(seen.id, "", response=response),
        status,
        seen.status,
        actions,
        output,
        failure,
        reading.usage(usage, "input_tokens", "output_tokens"),
        reading.progress(len(seen.output)),
        vendor=NAME,
        raw=JsonText(response.body),
    )


def cancel(ref: RunRef) -> Flow[Run[ResponseDetail] | None]:
    """Cancel a response (responses/cancel); the vendor returns one that is over as it is."""
    return parse_run((yield Request("POST", wire.path("responses", ref.id, "cancel"), idempotent=True)))


def delete_response(response_id: str) -> Flow[None]:
    """Delete a response (responses/delete): nothing can go on with it any more."""
    yield Request("DELETE", wire.path("responses", response_id), idempotent=True)


def detail(raw: Mapping[str, Any]) -> ResponseDetail:
    """Return a response's JSON object as `ResponseDetail`; raise `ProtocolError` for what does not fit."""
    return wire.structure(raw, ResponseDetail, f"response {raw.get('id')}")


# What it waits for, and what it has said ------------------------------------------------------------------------------


@frozen
class _Call:
    call_id: str
    name: str
    arguments: str = ""
    input: str = ""


@frozen
class _Approval:
    id: str
    name: str
    arguments: str
    server_label: str


def _calls(output: Sequence[Mapping[str, Any]], response: Response) -> Iterator[Action]:
    """Yield the calls that the caller is to answer: those whose outputs do not stand beside them."""
    answered = {id_of(item) for item in output if str(item.get("type")).endswith(("_output", "_response"))}
    for place, item in enumerate(output):
        action = _action(item, response, f"$.output[{place}]")
        if action is not None and action.id not in answered:
            yield action


def _action(item: Mapping[str, Any], response: Response, at: str) -> Action | None:
    kind = wire.first_text(item, "type")
    if kind == "function_call":
        call = wire.structure(item, _Call, response, at)
        return Action(call.call_id, call.name, _arguments(call.arguments))
    if kind == "custom_tool_call":
        call = wire.structure(item, _Call, response, at)
        return Action(call.call_id, call.name, {"input": call.input})
    if kind == APPROVAL:
        asked = wire.structure(item, _Approval, response, at)
        said = {"server_label": asked.server_label, "name": asked.name, "arguments": _arguments(asked.arguments)}
        return Action(asked.id, APPROVAL, said)
    if kind in OTHER_CALLS:
        left = {name: value for name, value in item.items() if name not in {"type", "id", "call_id", "status"}}
        return Action(id_of(item), kind, left)
    return None


def id_of(item: Mapping[str, Any]) -> str:
    """Return the id by which calls and their outputs name each other, empty for other items."""
    return wire.first_text(item, "approval_request_id", "call_id", "id") or ""


def _arguments(text: str) -> Mapping[str, Json]:
    """Return the arguments that a model has written; what is no object of JSON is told as it came."""
    try:
        value = codec.decode(text or "{}", received=True)
    except codec.CodecError:
        value = None
    return value if isinstance(value, Mapping) else {"arguments": text}


def _output(output: Sequence[Mapping[str, Any]], raw: Mapping[str, Any]) -> Json:
    """Return the text of a response, or what it says where the request asked for JSON; None if it has no text."""
    parts = (part for item in output if item.get("type") == "message" for part in wire.objects(item.get("content")))
    texts = [part["text"] for part in parts if part.get("type") == "output_text" and isinstance(part.get("text"), str)]
    text = "".join(texts)
    asked = wire.first_text(wire.mapping(wire.mapping(raw.get("text")).get("format")), "type")
    if asked in {"json_schema", "json_object"}:
        try:
            return codec.decode(text, received=True)
        except codec.CodecError:
            return text or None
    return text if texts else None


def _failure(word: str, raw: Mapping[str, Any]) -> Failure:
    error = wire.mapping(raw.get("error"))
    reason = wire.first_text(wire.mapping(raw.get("incomplete_details")), "reason")
    return Failure(wire.first_text(error, "code", "type") or word, wire.first_text(error, "message") or reason or "")


# ----------------------------------------------------------------------------------------------------------------------


def timing_group(run: Run[ResponseDetail]) -> str:
    """Return the model."""
    return wire.first_text(run.raw, "model") or ""


def times(run: Run[ResponseDetail]) -> tuple[datetime | None, datetime | None]:
    """Return when a response was made and when it was over."""
    seen = wire.structure(run.raw, ResponseState, f"response {run.id}")
    return _moment(seen.created_at), _moment(seen.completed_at)


def _moment(seconds: float | None) -> datetime | None:
    """Return a time of the vendor's, None for one that no calendar has."""
    with suppress(ValueError, OverflowError):
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return None


def handler_names(action: Action) -> Sequence[str]:
    """
    Return the name of a function or tool; for an approval `approve_<tool>`, then `mcp_approval_request`.

    A handler of the tool itself is not asked: it would do what is to be approved.
    """
    if action.name == APPROVAL:
        return (f"approve_{action.arguments.get('name')}", APPROVAL)
    return (action.name,)


def problem(response: Response) -> Problem:
    """Read an error body: `{"error": {"message", "type", "param", "code"}}`."""
    error = wire.mapping(wire.error_body(response).get("error"))
    param = wire.first_text(error, "param")
    return Problem(
        message=wire.first_text(error, "message") or wire.body_excerpt(response),
        code=wire.first_text(error, "code", "type"),
        request_id=response.headers.get("x-request-id"),
        detail=error,
        particulars=(f"param {param}",) if param else (),
    )


def error_status(response: Response) -> int | None:
    """Tell that the account has no credits left, which the vendor says by a 429: no waiting ends that."""
    if response.status != HTTPStatus.TOO_MANY_REQUESTS or problem(response).code != "insufficient_quota":
        return None
    return HTTPStatus.PAYMENT_REQUIRED
