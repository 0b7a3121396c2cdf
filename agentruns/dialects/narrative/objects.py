"""What Narrative answers, field for field as its pages show it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from attrs import field, frozen

from agentruns._values.generic import Json


@frozen
class EffectiveConfig:
    """The configuration that a run used; fields that the answer leaves out are None."""

    model: str | None = None
    data_plane_id: str | None = None
    execution_cluster: str | None = None
    compute_pool_id: str | None = None
    max_iterations: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    output_format_schema: Mapping[str, Json] | None = None
    mcp_servers: tuple[Mapping[str, Json], ...] | None = None
    client_tools: tuple[Mapping[str, Json], ...] | None = None
    tools: tuple[Mapping[str, Json], ...] | None = None


@frozen
class PendingToolCall:
    """A tool call that the caller must answer; `name` is the wire name."""

    tool_use_id: str
    name: str
    arguments: Mapping[str, Json] = field(factory=dict)


@frozen
class TokenUsage:
    """Tokens over all iterations of a run; parts may be missing on a failed one."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


@frozen
class RunFault:
    """Why a run failed; `title` and `docs_url` are missing for types that the platform does not know."""

    type: str = ""
    message: str = ""
    title: str | None = None
    docs_url: str | None = None


@frozen
class NarrativeRun:
    """
    A run, field for field as the get-run page shows it.

    The table of that page has fewer fields for a run that has just begun than its schema requires (get-a-runs-current-
    state), so only what every state has is required here.
    """

    id: str
    conversation_id: str
    status: str
    started_at: datetime
    company_id: int | None = None
    user_id: int | None = None
    client_op_id: str | None = None
    effective_config: EffectiveConfig = field(factory=EffectiveConfig)
    submitted_inference_job_ids: tuple[str, ...] = ()
    pending_tool_calls: tuple[PendingToolCall, ...] = ()
    tool_choice: Mapping[str, Json] | None = None
    iterations_used: int | None = None
    usage: TokenUsage | None = None
    final_text: str | None = None
    final_structured_output: Json = None
    error: RunFault | None = None
    completed_at: datetime | None = None


@frozen
class Conversation:
    """
    A conversation; `version` is also the cursor of its messages.

    `dropped`, which is no field of the vendor's, names what `create_conversation` sent and the answer does not echo.
    """

    id: str
    version: int
    company_id: int | None = None
    user_id: int | None = None
    defaults: EffectiveConfig = field(factory=EffectiveConfig)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    name: str | None = None
    system_prompt: str | None = None
    dropped: tuple[str, ...] = ()


@frozen
class ContentBlock:
    """A part of a message: `type` is text, tool_use, tool_result, or a word of the future."""

    type: str
    text: str | None = None
    tool_use_id: str | None = None
    name: str | None = None
    arguments: Mapping[str, Json] | None = None
    is_error: bool | None = None
    content_blocks: tuple[ContentBlock, ...] = ()


@frozen
class Message:
    """A message of the log; the caller's tool results stand in a `user` turn, those of MCP servers in a `tool` turn."""

    id: str
    sequence_no: int
    content_blocks: tuple[ContentBlock, ...] = ()
    run_id: str | None = None
    created_at: datetime | None = None
    role: str = ""


@frozen
class ConversationPage:
    """One page of conversations, newest first; `next_page` is None on the last."""

    items: tuple[Conversation, ...]
    current_page: int | None = None
    next_page: int | None = None
    prev_page: int | None = None
    total_records: int | None = None
    total_pages: int | None = None


@frozen
class MessagePage:
    """The messages after `since`; pass `current_version` as the next `since`."""

    items: tuple[Message, ...]
    current_version: int
