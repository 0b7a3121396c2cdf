"""The request bodies of Conduit, decoded: wrong or missing fields become a 400."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from .errors import bad_request
from .rows import Mode, Review

_B = TypeVar("_B", bound=Struct)
_Text: TypeAlias = Annotated[str, Meta(min_length=1)]
_Delay: TypeAlias = Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)]
_Language: TypeAlias = Literal["English", "Original", "Spanish", "French", "German", "Italian", "Portuguese"]


class DispatchBody(Struct, frozen=True):
    """The body of POST /v1/agents/{id}/run (agents/run)."""

    trigger_id: str | None = None
    payload: Any = msgspec.field(default_factory=dict)


class GuardrailBody(Struct, frozen=True):
    """One guardrail of a new agent."""

    title: str
    knowledge: str


class FieldBody(Struct, frozen=True):
    """One field of the wanted structured result."""

    name: str
    type: str
    description: str = ""
    is_required: bool = False


class TriggerBody(Struct, frozen=True):
    """One trigger of an agent."""

    type: str
    name: str = ""
    description: str = ""
    config: dict[str, Any] = msgspec.field(default_factory=dict)
    enabled: bool = True


class AgentBody(Struct, frozen=True, kw_only=True):
    """The body of PATCH /v1/agents/{id}; what is not there stays as it is (agents/update)."""

    name: _Text | UnsetType = UNSET
    description: str | UnsetType = UNSET
    instructions: str | UnsetType = UNSET
    guardrails: list[GuardrailBody] | UnsetType = UNSET
    operation_mode: Mode | UnsetType = UNSET
    custom_response_delay_ms: _Delay | UnsetType = UNSET
    auto_mark_as_done: bool | UnsetType = UNSET
    response_language: _Language | UnsetType = UNSET
    responseflow: bool | UnsetType = UNSET
    output_schema: list[FieldBody] | UnsetType = UNSET
    skill_ids: list[str] | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    triggers: list[TriggerBody] | UnsetType = UNSET


class NewAgentBody(AgentBody, frozen=True, kw_only=True):
    """The body of POST /v1/agents (agents/create)."""

    workspace_id: str
    name: _Text


class AssignBody(Struct, frozen=True):
    """The body of POST /v1/escalations/{id}/assign (escalations/assign)."""

    assignee_id: str


class ResolveBody(Struct, frozen=True):
    """The body of POST /v1/escalations/{id}/resolve (escalations/resolve)."""

    status: Review = "resolved"


class SendBody(Struct, frozen=True):
    """The body of POST /v1/conversations/{id}/messages (conversations/send-message)."""

    body: _Text


def decode(kind: type[_B], content: bytes) -> _B:
    """Decode a body; unknown fields are ignored."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(str(error)) from error
