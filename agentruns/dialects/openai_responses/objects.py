"""What OpenAI answers: a response, as the types of its client list its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from agentruns.dialects.wire import objects


@frozen
class ResponseFailure:
    """Why a response failed; `code` is a word of the vendor's such as `server_error`."""

    code: str | None = None
    message: str = ""
    param: str | None = None
    type: str | None = None


@frozen
class IncompleteDetails:
    """Why a response ended too early; `reason` is a word such as `max_output_tokens` or `content_filter`."""

    reason: str | None = None


@frozen
class TokenDetails:
    """Which of the tokens were cached, or spent on reasoning."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


@frozen
class TokenUsage:
    """Tokens of a response."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens_details: TokenDetails | None = None
    output_tokens_details: TokenDetails | None = None


@frozen
class ResponseDetail:
    """
    A response; times are Unix seconds.

    Items, tools and settings are the vendor's objects as they came: there are dozens of kinds, and more each month.
    """

    id: str
    status: str
    model: str = ""
    created_at: float | None = None
    completed_at: float | None = None
    output: tuple[Mapping[str, Any], ...] = ()
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    usage: TokenUsage | None = None
    previous_response_id: str | None = None
    conversation: Mapping[str, Any] | None = None
    instructions: Any = None
    metadata: Mapping[str, str] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    prompt: Mapping[str, Any] | None = None
    prompt_cache_key: str | None = None
    reasoning: Mapping[str, Any] | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    text: Mapping[str, Any] | None = None
    truncation: str | None = None
    background: bool | None = None
    store: bool | None = None
    user: str | None = None

    @property
    def refusal(self) -> str:
        """Return the words in which the model has refused to answer, empty if it has not."""
        parts = (part for item in self.output for part in objects(item.get("content")))
        return "".join(part["refusal"] for part in parts if isinstance(part.get("refusal"), str))
