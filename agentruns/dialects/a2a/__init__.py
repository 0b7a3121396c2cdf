"""
A2A 1.0: the protocol by which agents of anybody are asked, over HTTP+JSON or JSON-RPC.

A run is a task. The agent's card says where and how it is asked, and is read before the first request of a client. An
agent that asks is answered in place; one that needs a login may go on by itself. No message is idempotent: a start or
an answer of unknown outcome is settled by looking for our message in the history of the tasks.

Pages: https://a2a-protocol.org/latest/specification and https://github.com/a2aproject/A2A (specification/a2a.proto).
"""

from __future__ import annotations

from typing import Final

from agentruns._values.auth import Auth, Bearer
from agentruns._values.exchange import RateLimit

from .answers import resume, resume_first
from .card import auth_of, get_extended_card, locate
from .events import TaskEvent, event_of, events
from .objects import AgentCard, Artifact, Interface, Message, Part, PushConfig, Requirement, Task, TaskStatus
from .pushes import create_push_config, delete_push_config, get_push_config, list_push_configs, verify_push
from .reading import (
    NAME,
    STATUS,
    cancel,
    detail,
    error_status,
    fetch,
    handler_names,
    list_parent,
    page,
    parse_run,
    problem,
    times,
)
from .showing import show_artifacts, show_question, show_steps
from .starts import Content, Send, example, recover, start

__all__ = [
    "ANSWERS_TOGETHER",
    "AUTH",
    "BASE_URL",
    "BASE_URL_VARIABLE",
    "BUDGET",
    "DEFAULT_HEADERS",
    "EMULATOR",
    "LIST_IS_WHOLE",
    "MODEL_CALLS",
    "NAME",
    "PARENT",
    "STATUS",
    "TOKEN_VARIABLE",
    "TRACE_ROLES",
    "AgentCard",
    "Artifact",
    "Content",
    "Interface",
    "Message",
    "Origin",
    "Part",
    "PushConfig",
    "Requirement",
    "Send",
    "Task",
    "TaskEvent",
    "TaskStatus",
    "auth_of",
    "cancel",
    "create_push_config",
    "delete_push_config",
    "detail",
    "error_status",
    "event_of",
    "events",
    "example",
    "fetch",
    "get_extended_card",
    "get_push_config",
    "handler_names",
    "list_parent",
    "list_push_configs",
    "locate",
    "page",
    "parse_run",
    "problem",
    "recover",
    "resume",
    "resume_first",
    "show_artifacts",
    "show_question",
    "show_steps",
    "start",
    "times",
    "verify_push",
]

BASE_URL: Final = ""  # every agent has its own
TOKEN_VARIABLE: Final = "A2A_TOKEN"  # noqa: S105
BASE_URL_VARIABLE: Final = "A2A_BASE_URL"
AUTH: Final[Auth] = Bearer(optional=True)  # unless the card says otherwise
BUDGET: Final[RateLimit | None] = None
LIST_IS_WHOLE: Final = True  # with artifacts and history
DEFAULT_HEADERS: Final = {"A2A-Version": "1.0"}
PARENT: Final = "context"
MODEL_CALLS: Final = False  # an agent asks in words of its own
ANSWERS_TOGETHER: Final = True
TRACE_ROLES: Final = ("gen_ai.conversation.id", "gen_ai.agent.name")
EMULATOR: Final = "agentruns.emulator.a2a:A2A"
Origin: Final = Send
