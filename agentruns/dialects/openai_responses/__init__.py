"""
OpenAI's Responses in background mode, and servers that speak it: Azure, Open Responses.

A response is made in the background, and read until it is over. One that is completed and has calls of functions or
custom tools, or asks for approvals, waits: it is answered by a new response, which goes on from it and repeats its
model, tools and settings, since the vendor keeps the conversation only. They come from what started the run.

Nothing on this wire is repeatable, and nothing is listed. A start or an answer whose reply got lost is neither sent
again nor found: it is `OutcomeUnknownError`, and so it is after a crash. Nothing is ever made twice in silence.

Pages: https://platform.openai.com/docs (api-reference/responses, guides/background, guides/function-calling,
guides/conversation-state, guides/error-codes), and the types of the package `openai` 3.57.
"""

from __future__ import annotations

from typing import Any, Final

from agentruns._values.exchange import RateLimit
from agentruns.dialects import wire

from .answers import answered_by, resume
from .objects import IncompleteDetails, ResponseDetail, ResponseFailure, TokenDetails, TokenUsage
from .reading import (
    NAME,
    STATUS,
    cancel,
    delete_response,
    detail,
    error_status,
    fetch,
    handler_names,
    parse_run,
    problem,
    times,
    timing_group,
)
from .requests import ResponseRequest, function_tools, start
from .showing import read_tools, show_question, show_steps

__all__ = [
    "ANSWERS_TOGETHER",
    "BASE_URL",
    "BASE_URL_VARIABLE",
    "BUDGET",
    "EMULATOR",
    "LEAST_POLL_SECONDS",
    "NAME",
    "PARENT",
    "RUN_SECONDS",
    "STATUS",
    "TOKEN_VARIABLE",
    "IncompleteDetails",
    "Origin",
    "ResponseDetail",
    "ResponseFailure",
    "ResponseRequest",
    "TokenDetails",
    "TokenUsage",
    "answered_by",
    "cancel",
    "delete_response",
    "detail",
    "error_status",
    "example",
    "fetch",
    "function_tools",
    "handler_names",
    "parse_run",
    "problem",
    "read_tools",
    "recover",
    "resume",
    "show_question",
    "show_steps",
    "start",
    "times",
    "timing_group",
]

BASE_URL: Final = "https://api.openai.com/v1"
TOKEN_VARIABLE: Final = "OPENAI_API_KEY"  # noqa: S105
BASE_URL_VARIABLE: Final = "OPENAI_BASE_URL"
BUDGET: Final[RateLimit | None] = None  # each account and model has limits of its own
LEAST_POLL_SECONDS: Final = 2.0  # guides/background: its example asks each two seconds
RUN_SECONDS: Final = 1800.0  # guides/background: long tasks take minutes
ANSWERS_TOGETHER: Final = True
PARENT: Final = "conversation"
EMULATOR: Final = "agentruns.emulator.openai_responses:OpenAIResponses"
Origin: Final = ResponseRequest
recover: Final = wire.never_found


def example() -> ResponseRequest:
    """Return a request whose model may ask one question."""
    ask: dict[str, Any] = {
        "type": "function",
        "name": "ask",
        "description": "Ask the user.",
        "parameters": {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]},
        "strict": False,
    }
    return ResponseRequest("gpt-5.2", "Sort the post.", tools=(ask,))
