"""What vendors answer about a run, about 1.6 KB where it can be: templates of bytes for `%`, in flight and over."""

from __future__ import annotations

import json
from typing import Any, Final

from attrs import frozen

MODEL: Final = "anthropic.claude-opus-4.6"

_TOOL: Final = {
    "name": "approve_invoice",
    "description": "Ask a human operator to approve one invoice before it is paid. The operator sees the number of the "
    "invoice, the amount in euros and the name of the supplier, and answers yes or no within a day; "
    "without an answer the invoice is put aside until the next working day.",
    "parameters": {
        "type": "object",
        "additionalProperties": False,
        "required": ["invoice_no", "amount_eur"],
        "properties": {
            "invoice_no": {"type": "string", "description": "As it is printed on the invoice."},
            "amount_eur": {"type": "number", "description": "With all taxes."},
        },
    },
}

_NARRATIVE: Final[dict[str, Any]] = {
    "id": "%(id)s",
    "conversation_id": "%(parent)s",
    "company_id": 77,
    "user_id": 1204,
    "client_op_id": "c8d2a7f0-1c5b-4f0c-bb52-7c0a3d9e6f21",
    "status": "%(status)s",
    "effective_config": {
        "model": "%(model)s",
        "data_plane_id": "f79cbdae-4848-47ca-95e8-69588364d185",
        "execution_cluster": "shared",
        "compute_pool_id": "3c90c3cc-0d44-4b50-8888-8dd25736052a",
        "max_iterations": 8,
        "max_tokens": 2048,
        "temperature": 0.2,
        "output_format_schema": {
            "type": "object",
            "additionalProperties": False,
            "required": ["text"],
            "properties": {
                "text": {
                    "type": "string",
                    "description": "What was done, in one sentence for the clerk.",
                }
            },
        },
        "mcp_servers": [],
        "client_tools": [
            {
                "alias": "ops",
                "tools": [
                    {
                        "name": _TOOL["name"],
                        "description": _TOOL["description"],
                        "input_schema": _TOOL["parameters"],
                        "strict": True,
                    }
                ],
            }
        ],
    },
    "submitted_inference_job_ids": ["e1b7c3d9-20a4-4c66-9a1f-5d8e7f6a4b32"],
    "pending_tool_calls": [],
    "started_at": "%(started)s",
    "tool_choice": {"kind": "auto"},
    "iterations_used": None,
    "usage": {"prompt_tokens": "%(count)d", "completion_tokens": 64},
    "final_text": None,
    "error": None,
    "completed_at": None,
}

_CONDUIT: Final[dict[str, Any]] = {
    "id": "%(id)s",
    "run_id": "run_9f3a1c7e",
    "agent_id": "%(parent)s",
    "workspace_id": "j57demo8f8x7c9v0n2q4r6t8y1u3i5o",
    "status": "%(status)s",
    "disposition": None,
    "contact_id": "co77c0dy0mgdpzmqz6tesry8w184002s",
    "conversation_id": "cv77c0dy0mgdpzmqz6tesry8w184002s",
    "trigger_id": "tr77c0dy0mgdpzmqz6tesry8w184002s",
    "error": None,
    "duration_ms": None,
    "token_usage": None,
    "total_cost": None,
    "trace_id": "0f9c2b1d8a7e4f36",
    "created_at": "%(started)s",
    "completed_at": None,
}
_CONDUIT_END: Final[dict[str, Any]] = {
    "disposition": "resolved",
    "duration_ms": 4213,
    "token_usage": {"input": 1820, "output": 342},
    "total_cost": 0.0121,
    "completed_at": "%(completed)s",
}
_CONDUIT_WHOLE: Final[dict[str, Any]] = {
    "session_id": "sess_4b21e9",
    "disposition_reason": "answered_from_knowledge",
    "trigger_event_id": "te77c0dy0mgdpzmqz6tesry8w184002s",
    "response": "Your booking is confirmed for the fifth of April.",
    "reflection": "The booking was found in the system, so it was confirmed.",
    "tool_trace": [{"name": "get_reservation", "input": {"id": "res_123"}, "output": {"status": "confirmed"}}],
}


@frozen
class Shape:
    """How a vendor shows a run: in flight with the status *moving*, over with the status *ended*."""

    moving: str
    ended: str
    flying: bytes
    over: bytes

    def body(self, *, over: bool, **fields: Any) -> bytes:
        """Return the body of an answer: *fields* are `id`, `parent`, `model`, `started`, `count`; perhaps `status`."""
        known = {
            "status": self.ended if over else self.moving,
            "completed": "",
            "model": "anthropic.claude-opus-4.6",
            **fields,
        }
        filled = {name.encode(): value.encode() if isinstance(value, str) else value for name, value in known.items()}
        return (self.over if over else self.flying) % filled


def _shape(run: dict[str, Any], moving: str, ended: str, **at_the_end: Any) -> Shape:
    return Shape(moving, ended, _template(run), _template(run | at_the_end))


def _template(run: dict[str, Any]) -> bytes:
    return json.dumps(run, separators=(",", ":")).replace('"%(count)d"', "%(count)d").encode()


NARRATIVE: Final = _shape(
    _NARRATIVE, "running", "completed", iterations_used=1, final_text="Done.", completed_at="%(completed)s"
)
CONDUIT: Final = _shape({"data": _CONDUIT}, "running", "completed", data=_CONDUIT | _CONDUIT_END | _CONDUIT_WHOLE)
CONDUIT_LISTED: Final = _shape(_CONDUIT, "running", "completed", **_CONDUIT_END)
