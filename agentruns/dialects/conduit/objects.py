"""What Conduit answers, field for field as its pages show it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from attrs import field, frozen

T = TypeVar("T")

ESCALATED: Final = "escalated"
RESOLVED: Final = "resolved"
"""The two values of `disposition` that the pages show; there may be more."""


# The pages leave open which fields may be missing or null: only those that nothing works without are required. The
# types of the rest are those of the one example that each page has.


def _items(value: Any) -> Any:
    """Take an array that is null for an empty one."""
    return value or ()


@frozen
class TokenUsage:
    """Tokens of a run: of the prompt, and generated."""

    input: int | None = None
    output: int | None = None


@frozen
class ToolCall:
    """One step of a run: a tool that the agent called, with what, and what it got."""

    name: str
    input: Any = None
    output: Any = None


@frozen
class ConduitRun:
    """
    A run, field for field as the get-run page shows it.

    The last six fields are not in a list of runs, only where a run is read by itself. `run_id` (`run_...`) is an
    identity of the execution that no path takes. `error` is null in every example, so it may be of any type; `response`
    is a text, and no page says what it is for an agent with an `output_schema`.
    """

    id: str
    agent_id: str
    status: str
    created_at: datetime
    run_id: str | None = None
    workspace_id: str | None = None
    disposition: str | None = None
    contact_id: str | None = None
    conversation_id: str | None = None
    trigger_id: str | None = None
    error: Any = None
    duration_ms: float | None = None
    token_usage: TokenUsage | None = None
    total_cost: float | None = None
    trace_id: str | None = None
    completed_at: datetime | None = None
    session_id: str | None = None
    disposition_reason: str | None = None
    trigger_event_id: str | None = None
    response: Any = None
    reflection: str | None = None
    tool_trace: tuple[ToolCall, ...] | None = field(default=(), converter=_items)

    @property
    def needs_human(self) -> bool:
        """Tell whether the agent handed the matter to a person: look for the escalation with this `agent_run_id`."""
        return self.disposition == ESCALATED


@frozen
class Trigger:
    """What sets an agent off; the keys of `config` depend on `type` and are camelCase."""

    id: str
    type: str
    workspace_id: str | None = None
    name: str | None = None
    description: str | None = None
    config: Mapping[str, Any] | None = None
    enabled: bool | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@frozen
class Agent:
    """An agent with its triggers."""

    id: str
    workspace_id: str | None = None
    name: str | None = None
    description: str | None = None
    version: str | None = None
    instructions: str | None = None
    guardrails: tuple[Mapping[str, Any], ...] | None = field(default=(), converter=_items)
    operation_mode: str | None = None
    autopilot_schedule: Any = None
    custom_response_delay_ms: float | None = None
    auto_mark_as_done: bool | None = None
    response_language: str | None = None
    responseflow: bool | None = None
    output_schema: tuple[Mapping[str, Any], ...] | None = field(default=(), converter=_items)
    skill_ids: tuple[str, ...] | None = field(default=(), converter=_items)
    enabled: bool | None = None
    triggers: tuple[Trigger, ...] | None = field(default=(), converter=_items)
    created_at: datetime | None = None
    updated_at: datetime | None = None


@frozen
class Escalation:
    """A matter that waits for a person, or did; `agent_run_id` is the `id` of the run that raised it."""

    id: str
    status: str
    workspace_id: str | None = None
    type: str | None = None
    conversation_id: str | None = None
    contact_id: str | None = None
    agent_run_id: str | None = None
    agent_id: str | None = None
    disposition: str | None = None
    disposition_reason: str | None = None
    created_at: datetime | None = None
    reviewed_at: datetime | None = None
    reviewed_by: str | None = None
    guest_message: str | None = None
    proposed_response: str | None = None
    request_for_additional_info: str | None = None
    questions_for_operator: str | None = None


@frozen
class Conversation:
    """
    A thread with a contact; its messages stand in `list_messages`.

    The page says in words what it has besides (contact, ticket, assignee, reservation, summary, sentiment, the latest
    message) but shows no field of it, so it is all in `raw`.
    """

    id: str
    workspace_id: str | None = None
    raw: Mapping[str, Any] = field(factory=dict, repr=False)


@frozen
class Sender:
    """Who sent a message."""

    user_id: str | None = None
    external_id: str | None = None
    name: str | None = None


@frozen
class Message:
    """A message of a conversation; the answer to `send_message` has only some of its fields."""

    id: str
    workspace_id: str | None = None
    conversation_id: str | None = None
    ticket_id: str | None = None
    channel: str | None = None
    body: str | None = None
    direction: str | None = None
    status: str | None = None
    sent_at: datetime | None = None
    created_at: datetime | None = None
    sender: Sender | None = None


@frozen
class User:
    """A member of a workspace; its `id` is what `assign_escalation` takes."""

    id: str
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    role: str | None = None
    picture_url: str | None = None


@frozen
class Workspace:
    """A workspace that the token reaches; the fields are a guess, no page that could be read shows them."""

    id: str
    name: str | None = None


@frozen
class Listing(Generic[T]):
    """One page of a list; while there is more, `cursor` asks for the next. `skipped` rows did not fit."""

    items: tuple[T, ...]
    cursor: str | None
    has_more: bool
    skipped: int = 0
