"""Answering the calls of a response: a new response, which repeats what the first was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentruns._values import codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns._values.generic import Json
from agentruns._values.run import Run, ToolOutput
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError

from .objects import ResponseDetail
from .reading import APPROVAL, OTHER_CALLS, id_of, parse_run
from .requests import ResponseRequest, body_of

_FREE: Final = ("auto", "none")
"""Words for a choice of tools under which a model may answer without calling one."""

answered_by = wire.never_answered


def resume(
    run: Run[ResponseDetail], outputs: Sequence[ToolOutput], *, origin: ResponseRequest
) -> Flow[Run[ResponseDetail]]:
    """
    Answer all calls of a response by a new one that goes on from it (responses/create).

    It repeats what *origin* says but a choice of tools that forces a call, which would be forced again without end.
    It is posted once, as a start is.
    """
    given = {output.action.id for output in outputs}
    missing = [action.name for action in run.actions if action.id not in given]
    if missing:
        raise ConfigurationError(
            f"response {run.id} waits for {len(run.actions)} outputs, and the vendor takes them in one request; there "
            f"is none for {', '.join(missing)}"
        )
    kinds = {id_of(item): str(item.get("type")) for item in wire.objects(run.raw.get("output"))}
    body = body_of(origin) | {"input": [_item(output, kinds.get(output.action.id, "")) for output in outputs]}
    if "tool_choice" in body:
        body["tool_choice"] = _free(body["tool_choice"])
    if "conversation" not in body:
        body["previous_response_id"] = run.id
    return parse_run((yield Request("POST", "/responses", json=body)))


def _item(output: ToolOutput, kind: str) -> Mapping[str, Json]:
    """Return the item that answers a call of that kind."""
    call_id = output.action.id
    if output.action.name == APPROVAL and kind in {APPROVAL, ""}:
        return {"type": "mcp_approval_response", "approval_request_id": call_id, **_verdict(output)}
    if kind in OTHER_CALLS:
        if not isinstance(output.output, Mapping):
            raise ConfigurationError(
                f"the output for {output.action.name} must be an object: the fields of an item of the type "
                f"{kind}_output, without type and call_id",
                field="ToolOutput.output",
            )
        return {"type": f"{kind}_output", "id" if kind == "local_shell_call" else "call_id": call_id, **output.output}
    kind = "custom_tool_call" if kind == "custom_tool_call" else "function_call"
    return {"type": f"{kind}_output", "call_id": call_id, "output": _told(output)}


def _told(output: ToolOutput) -> Json:
    """Return an output as a model is told it: a text, or content of the vendor's kinds such as images."""
    value = {"error": output.output} if output.is_error else output.output
    if isinstance(value, str) or (value and isinstance(value, list) and all(map(_is_content, value))):
        return value
    return codec.encode(value).decode()


def _is_content(part: Any) -> bool:
    return isinstance(part, Mapping) and str(part.get("type")).startswith("input_")


def _verdict(output: ToolOutput) -> Mapping[str, Json]:
    """Return whether a call is approved: True, False, or an object that says it with a reason; an error is a no."""
    value = output.output
    if output.is_error:
        return {"approve": False, "reason": value if isinstance(value, str) else codec.encode(value).decode()}
    if isinstance(value, bool):
        return {"approve": value}
    if isinstance(value, Mapping) and isinstance(value.get("approve"), bool):
        return {name: value[name] for name in ("approve", "reason") if value.get(name) is not None}
    raise ConfigurationError(
        f"the answer to an approval of {output.action.arguments.get('name')} is {value!r}; it must be True, False, or "
        '{"approve": False, "reason": "..."}',
        field="ToolOutput.output",
    )


def _free(choice: Json) -> Json:
    """Return a choice of tools that lets the model answer at last."""
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        return {**choice, "mode": "auto"}
    return choice if choice in _FREE else "auto"
