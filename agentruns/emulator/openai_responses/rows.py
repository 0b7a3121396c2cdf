"""One response: what it was asked, how it will end, and how it looks at a moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from attrs import frozen

from agentruns.emulator.schema import JSON, example
from agentruns.emulator.script import Call, Turn
from agentruns.emulator.vendor import Ids, Stage

INCOMPLETE: Final = frozenset({"max_output_tokens", "max_messages", "content_filter", "steered"})
"""Errors of a turn that end a response as `incomplete` (responses/object, incomplete_details)."""

PENDING: Final[Mapping[str, str]] = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "mcp_approval_request": "mcp_approval_response",
}
"""The kinds of items that wait for the caller, and the kind of item that answers each."""

_ECHOED: Final = (
    *("model", "instructions", "metadata", "tools", "tool_choice", "parallel_tool_calls", "previous_response_id"),
    *("conversation", "temperature", "top_p", "max_output_tokens", "max_tool_calls", "reasoning", "text", "truncation"),
    *("service_tier", "safety_identifier", "prompt_cache_key", "background", "store", "user"),
)
_DEFAULTS: Final[Mapping[str, JSON]] = {
    "metadata": {},
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "top_p": 1.0,
    "text": {"format": {"type": "text"}},
    "truncation": "disabled",
    "service_tier": "default",
    "background": False,
    "store": True,
}


@frozen(kw_only=True)
class Row:
    """A response that was made; `items` are its output once it is over."""

    id: str
    body: Mapping[str, JSON]
    turn: Turn
    items: tuple[Mapping[str, JSON], ...]
    began: float
    index: int
    root: str
    cancelled: float | None = None

    @property
    def pending(self) -> Mapping[str, Mapping[str, JSON]]:
        """The items that wait for the caller, by the id that an answer names."""
        return {call_id(item): item for item in self.items if item["type"] in PENDING}

    def is_over(self, now: float) -> bool:
        """Tell whether it moves no more."""
        return self.cancelled is not None or now - self.began >= self.turn.lasts

    def json(self, stage: Stage) -> dict[str, JSON]:
        """Show it as it is now (responses/object)."""
        now = stage.now()
        over = self.is_over(now)
        ended = self.began + self.turn.lasts if self.cancelled is None else self.cancelled
        status, error, incomplete = self._ending() if over else (self._moving(now), None, None)
        done = over and status == "completed"
        return {
            "id": self.id,
            "object": "response",
            "created_at": int(stage.wall(self.began).timestamp()),
            "completed_at": int(stage.wall(ended).timestamp()) if done else None,
            "status": status,
            "error": error,
            "incomplete_details": incomplete,
            "output": list(self.items) if over and self.cancelled is None else [],
            "usage": _usage(self.turn) if over and self.cancelled is None else None,
            **{name: self.body.get(name, _DEFAULTS.get(name)) for name in _ECHOED},
            **self.turn.extra,
        }

    def _moving(self, now: float) -> str:
        return "queued" if now - self.began < self.turn.pending else self.turn.status or "in_progress"

    def _ending(self) -> tuple[str, JSON, JSON]:
        error = self.turn.error
        if self.cancelled is not None:
            return "cancelled", None, None
        if error is None:
            return "completed", None, None
        code, message = (error, "The model failed to generate a response.") if isinstance(error, str) else error
        if code in INCOMPLETE:
            return "incomplete", None, {"reason": code}
        return "failed", {"code": code, "message": message}, None


def call_id(item: Mapping[str, JSON]) -> str:
    """Return the id by which an item that waits and its answer name each other."""
    return str(item.get("approval_request_id") or item.get("call_id") or item["id"])


def items_of(turn: Turn, tools: Sequence[Mapping[str, JSON]], ids: Ids) -> tuple[Mapping[str, JSON], ...]:
    """Make the output of a turn; a model calls only what the request declares."""
    found = [item for call in turn.calls if (item := _called(call, tools, ids)) is not None]
    text = turn.text if turn.structured is None else msgspec.json.encode(turn.structured).decode()
    waits = any(item["type"] in PENDING for item in found)
    if text is None and not waits and turn.error is None:
        text = "Done."
    return (*found, *([] if text is None else [_message(text, ids)]))


def _message(text: str, ids: Ids) -> Mapping[str, JSON]:
    part: JSON = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "type": "message",
        "id": ids.word("msg_", 24),
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }


def _called(call: Call, tools: Sequence[Mapping[str, JSON]], ids: Ids) -> Mapping[str, JSON] | None:
    tool = next((each for each in tools if _offers(each, call.name)), None)
    if tool is None:
        return None
    schema = tool.get("parameters")
    arguments: JSON = dict(call.arguments) if call.arguments is not None else example(schema or {"type": "object"})
    if tool["type"] == "custom":
        said = arguments.get("input") if isinstance(arguments, dict) else None
        return {
            "type": "custom_tool_call",
            "id": ids.word("ctc_", 24),
            "call_id": ids.word("call_", 24),
            "name": call.name,
            "input": said if isinstance(said, str) else _text(arguments),
        }
    if tool["type"] == "mcp":
        return {
            "type": "mcp_approval_request",
            "id": ids.word("mcpr_", 24),
            "name": call.name,
            "server_label": tool["server_label"],
            "arguments": _text(arguments),
        }
    return {
        "type": "function_call",
        "id": ids.word("fc_", 24),
        "call_id": ids.word("call_", 24),
        "name": call.name,
        "arguments": _text(arguments),
        "status": "completed",
    }


def _offers(tool: Mapping[str, JSON], name: str) -> bool:
    allowed = tool.get("allowed_tools")
    return tool.get("name") == name or (isinstance(allowed, list) and name in allowed)


def _text(value: JSON) -> str:
    return msgspec.json.encode(value).decode()


def _usage(turn: Turn) -> JSON:
    used, said = turn.usage or (40, 12)
    return {
        "input_tokens": used,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used + said,
    }
