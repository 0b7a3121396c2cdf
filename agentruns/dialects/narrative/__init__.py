"""
Narrative.io: conversations, and runs that are answered by starting another run.

A conversation is a log of messages with a version; a run appends to it when it ends. Starting a run compares the
version (409 if it moved) and carries a `client_op_id`: the same id on the same conversation gives the same run, however
often it is posted. A run that needs a tool of the caller ends as `requires_action`; its answer is a new run.

The docs exist in two revisions. A (the primary pages, our default) declares the caller's tools as `client_tools` under
an alias; B declares them flat, as `tools`. Which one is used follows from what `Config` is given.

Pages: https://docs.narrative.io/api-reference/agent-conversations (start-a-new-run-on-the-conversation,
get-a-runs-current-state, create-an-agent-conversation, get-an-agent-conversation, list-the-calling-users-agent-
conversations, list-conversation-messages-delta-read-by-version-cursor) and, for errors,
https://docs.narrative.io/reference/architecture/agent-conversations/errors.
"""

from __future__ import annotations

from typing import Final

from agentruns._values.exchange import RateLimit

from .answers import (
    GUESSES,
    RETRYABLE,
    SAME,
    answered_by,
    resume,
    resume_again,
    resume_first,
    tool_output_item,
    variant,
)
from .config import (
    ANY_TOOL,
    AUTO,
    TEXT_SCHEMA,
    ClientTools,
    Config,
    McpServer,
    Tool,
    ToolChoice,
    client_tools,
    flat_tools,
    specific_tool,
)
from .conversations import create_conversation, get_conversation, list_conversations, list_messages
from .objects import (
    ContentBlock,
    Conversation,
    ConversationPage,
    EffectiveConfig,
    Message,
    MessagePage,
    NarrativeRun,
    PendingToolCall,
    RunFault,
    TokenUsage,
)
from .parents import PARENT_FIELD, make_parent
from .platform import Identity, whoami
from .problems import problem
from .runs import UserMessage, fetch, start
from .showing import read_tools, read_trace
from .states import NAME, STATUS, detail, handler_names, parse_run, times, timing_group

__all__ = [
    "ANY_TOOL",
    "AUTO",
    "BASE_URL",
    "BASE_URL_VARIABLE",
    "BUDGET",
    "EMULATOR",
    "GUESSES",
    "NAME",
    "PARENT",
    "PARENT_FIELD",
    "POLL_SECONDS",
    "RETRYABLE",
    "RUN_SECONDS",
    "SAME",
    "START_REQUESTS",
    "STATUS",
    "TEXT_SCHEMA",
    "TOKEN_VARIABLE",
    "TRACE_ROLES",
    "ClientTools",
    "Config",
    "ContentBlock",
    "Conversation",
    "ConversationPage",
    "EffectiveConfig",
    "Identity",
    "McpServer",
    "Message",
    "MessagePage",
    "NarrativeRun",
    "Origin",
    "PendingToolCall",
    "RunFault",
    "TokenUsage",
    "Tool",
    "ToolChoice",
    "UserMessage",
    "answered_by",
    "client_tools",
    "create_conversation",
    "detail",
    "fetch",
    "flat_tools",
    "get_conversation",
    "handler_names",
    "list_conversations",
    "list_messages",
    "make_parent",
    "parse_run",
    "problem",
    "read_tools",
    "read_trace",
    "resume",
    "resume_again",
    "resume_first",
    "specific_tool",
    "start",
    "times",
    "timing_group",
    "tool_output_item",
    "variant",
    "whoami",
]

BASE_URL: Final = "https://api.narrative.io"
TOKEN_VARIABLE: Final = "NARRATIVE_TOKEN"  # noqa: S105
BASE_URL_VARIABLE: Final = "NARRATIVE_BASE_URL"
BUDGET: Final[RateLimit | None] = None  # the knowledge base says that no limit is enforced
START_REQUESTS: Final = 2  # a look at the conversation, or a new one, and the run
PARENT: Final = "conversation"
TRACE_ROLES: Final = ("gen_ai.conversation.id", "gen_ai.request.model")
RUN_SECONDS: Final = 600.0  # get-a-runs-current-state: give up at about 5 minutes, after which it may turn failed yet
POLL_SECONDS: Final = (2.0, 8.0)  # get-a-runs-current-state: start at 2 s, back off to 4 to 8 s for longer runs
EMULATOR: Final = "agentruns.emulator.narrative:Narrative"
Origin: Final = UserMessage
