"""Conduit's stored rows beside runs, as frozen values, and how they look on the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from attrs import field, frozen

from agentruns.emulator.schema import JSON

Stamp: TypeAlias = Callable[[float], str]
"""Writes a second of the emulator's clock as a timestamp."""

Object: TypeAlias = dict[str, JSON]

Mode: TypeAlias = Literal["autopilot", "copilot", "inactive"]
Review: TypeAlias = Literal["reviewed", "resolved", "dismissed"]
EscalationStatus: TypeAlias = Literal["pending", "reviewed", "resolved", "dismissed"]

# escalations/list, an older snapshot than escalations/assign and /resolve, has no such fields
_NEWER: Final = ("agent_run_id", "agent_id", "disposition", "disposition_reason", "questions_for_operator")


@frozen(kw_only=True)
class ConduitUser:
    """A member of a workspace."""

    id: str
    email: str
    first_name: str
    last_name: str
    role: str = "member"
    picture_url: str | None = None

    def json(self) -> Object:
        """Write the user (workspaces/list-users)."""
        return {
            "id": self.id,
            "email": self.email,
            "first_name": self.first_name,
            "last_name": self.last_name,
            "role": self.role,
            "picture_url": self.picture_url,
        }


@frozen(kw_only=True)
class ConduitWorkspace:
    """A workspace, the tokens that reach it, and its members, the first of whom stands behind the tokens."""

    id: str
    name: str
    tokens: frozenset[str] = field(repr=False)
    users: tuple[ConduitUser, ...]

    def json(self) -> Object:
        """Write the workspace."""
        return {"id": self.id, "name": self.name}


@frozen(kw_only=True)
class ConduitTrigger:
    """What starts runs of an agent; `type` is "message", "cron", "event", or a word of your own."""

    id: str
    workspace_id: str
    name: str
    type: str
    description: str
    config: Mapping[str, JSON]
    enabled: bool
    created: float
    updated: float

    def json(self, stamp: Stamp) -> Object:
        """Write the trigger (agents/list)."""
        return {
            "id": self.id,
            "workspace_id": self.workspace_id,
            "name": self.name,
            "description": self.description,
            "type": self.type,
            "config": self.config,
            "enabled": self.enabled,
            "created_at": stamp(self.created),
            "updated_at": stamp(self.updated),
        }


@frozen(kw_only=True)
class ConduitAgent:
    """An agent with its triggers; a deleted one is kept but no longer found."""

    id: str
    workspace_id: str
    created: float
    updated: float
    name: str
    description: str = ""
    instructions: str = ""
    guardrails: tuple[Mapping[str, JSON], ...] = ()
    operation_mode: Mode = "autopilot"
    custom_response_delay_ms: float = 0
    auto_mark_as_done: bool = False
    response_language: str = "Original"
    responseflow: bool = False
    output_schema: tuple[Mapping[str, JSON], ...] = ()
    skill_ids: tuple[str, ...] = ()
    enabled: bool = True
    triggers: tuple[ConduitTrigger, ...] = ()
    deleted: bool = False

    @property
    def works(self) -> bool:
        """Tell whether the agent takes part at all."""
        return self.enabled and self.operation_mode != "inactive"

    @property
    def answer_schema(self) -> dict[str, JSON]:
        """The wanted structured result as JSON Schema, empty when none is wanted."""
        if not self.output_schema:
            return {}
        return {
            "type": "object",
            "properties": {str(part["name"]): {"type": part["type"]} for part in self.output_schema},
            "required": [part["name"] for part in self.output_schema if part["is_required"]],
        }

    def json(self, stamp: Stamp) -> Object:
        """Write the agent (agents/get)."""
        return {
            "id": self.id,
            "workspace_id": self.workspace_id,
            "name": self.name,
            "description": self.description,
            "version": "v2",
            "instructions": self.instructions,
            "guardrails": self.guardrails,
            "operation_mode": self.operation_mode,
            "autopilot_schedule": None,
            "custom_response_delay_ms": self.custom_response_delay_ms,
            "auto_mark_as_done": self.auto_mark_as_done,
            "response_language": self.response_language,
            "responseflow": self.responseflow,
            "output_schema": self.output_schema,
            "skill_ids": self.skill_ids,
            "enabled": self.enabled,
            "triggers": [trigger.json(stamp) for trigger in self.triggers],
            "created_at": stamp(self.created),
            "updated_at": stamp(self.updated),
        }


@frozen(kw_only=True)
class ConduitEscalation:
    """A matter left to a person; the assignee is kept but, as on the pages, not shown on the wire."""

    id: str
    workspace_id: str
    conversation_id: str
    contact_id: str
    agent_run_id: str
    agent_id: str
    disposition_reason: str
    created: float
    guest_message: str
    proposed_response: str | None
    question: str | None
    status: EscalationStatus = "pending"
    reviewed: float | None = None
    reviewed_by: str | None = None
    assignee_id: str | None = None

    def json(self, stamp: Stamp, *, older: bool = False) -> Object:
        """Write the escalation (escalations/resolve)."""
        full: Object = {
            "id": self.id,
            "workspace_id": self.workspace_id,
            "type": "chat",
            "conversation_id": self.conversation_id,
            "contact_id": self.contact_id,
            "agent_run_id": self.agent_run_id,
            "agent_id": self.agent_id,
            "disposition": "escalated",
            "disposition_reason": self.disposition_reason,
            "status": self.status,
            "created_at": stamp(self.created),
            "reviewed_at": None if self.reviewed is None else stamp(self.reviewed),
            "reviewed_by": self.reviewed_by,
            "guest_message": self.guest_message,
            "proposed_response": self.proposed_response,
            "request_for_additional_info": self.question,
            "questions_for_operator": self.question,
        }
        return {name: value for name, value in full.items() if not (older and name in _NEWER)}


@frozen(kw_only=True)
class ConduitMessage:
    """One message of a conversation; `sent` may lie ahead, then it is not yet there."""

    id: str
    workspace_id: str
    conversation_id: str
    body: str
    direction: Literal["inbound", "outbound"]
    sent: float
    sender_id: str
    sender_name: str
    channel: str = "email"

    def json(self, stamp: Stamp) -> Object:
        """Write the message (conversations/messages)."""
        return {
            "id": self.id,
            "workspace_id": self.workspace_id,
            "conversation_id": self.conversation_id,
            "channel": self.channel,
            "body": self.body,
            "direction": self.direction,
            "status": "sent",
            "sent_at": stamp(self.sent),
            "created_at": stamp(self.sent),
            "sender": {"user_id": self.sender_id, "external_id": None, "name": self.sender_name},
        }

    def receipt(self, ticket_id: str | None = None) -> Object:
        """Write the answer to sending (conversations/send-message, tickets/send-message)."""
        return {
            "id": self.id,
            "workspace_id": self.workspace_id,
            "conversation_id": self.conversation_id,
            "ticket_id": ticket_id,
            "channel": self.channel,
            "status": "sent",
        }
