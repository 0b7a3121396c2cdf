"""
LangGraph servers: LangGraph Platform, `langgraph dev`, and others of the same API.

A run is one invocation of an assistant on a thread. Where the graph interrupts itself, the run waits: it is answered by
a new run, which goes on from the checkpoint. Nothing on this wire is idempotent; a start or an answer whose reply got
lost is found on the thread by an id in its metadata.

Pages: https://docs.langchain.com/langsmith (agent-server-api), and `/openapi.json` of langgraph-api 0.16.7.
"""

from __future__ import annotations

from typing import Final

from agentruns._values.auth import Auth, Header
from agentruns._values.exchange import RateLimit

from .answers import answered_by, resume
from .catalog import (
    create_thread,
    delete_thread,
    get_assistant,
    get_schemas,
    get_state,
    get_thread,
    list_assistants,
    list_history,
    list_threads,
    update_state,
)
from .lists import fetch_many, page
from .objects import Assistant, AssistantSchemas, GraphRun, Interrupt, Task, Thread, ThreadState
from .reading import (
    NAME,
    STATUS,
    cancel,
    detail,
    event_of,
    events,
    fetch,
    handler_names,
    problem,
    times,
    timing_group,
)
from .showing import show_question, show_steps
from .starts import Invocation, recover, start

__all__ = [
    "ANSWERS_TOGETHER",
    "AUTH",
    "BASE_URL",
    "BASE_URL_VARIABLE",
    "BUDGET",
    "EMULATOR",
    "FETCH_MANY_LIMIT",
    "MODEL_CALLS",
    "NAME",
    "PARENT",
    "POLL_SECONDS",
    "RUN_SECONDS",
    "STATUS",
    "TOKEN_VARIABLE",
    "Assistant",
    "AssistantSchemas",
    "GraphRun",
    "Interrupt",
    "Invocation",
    "Origin",
    "Task",
    "Thread",
    "ThreadState",
    "answered_by",
    "cancel",
    "create_thread",
    "delete_thread",
    "detail",
    "event_of",
    "events",
    "example",
    "fetch",
    "fetch_many",
    "get_assistant",
    "get_schemas",
    "get_state",
    "get_thread",
    "handler_names",
    "list_assistants",
    "list_history",
    "list_threads",
    "page",
    "problem",
    "recover",
    "resume",
    "show_question",
    "show_steps",
    "start",
    "times",
    "timing_group",
    "update_state",
]

BASE_URL: Final = ""  # each deployment has its own
TOKEN_VARIABLE: Final = "LANGGRAPH_API_KEY"  # noqa: S105
BASE_URL_VARIABLE: Final = "LANGGRAPH_BASE_URL"
AUTH: Final[Auth] = Header("x-api-key", optional=True)
BUDGET: Final = RateLimit(100, 1.0)  # what a server on one core bears; no page names a limit
FETCH_MANY_LIMIT: Final = 1000  # threads/search, limit
RUN_SECONDS: Final = 3660.0  # a server gives up a run after an hour: BG_JOB_TIMEOUT_SECS
POLL_SECONDS: Final = (0.5, 5.0)  # one request reads all runs that are waited for
ANSWERS_TOGETHER: Final = True
MODEL_CALLS: Final = False
PARENT: Final = "thread"
EMULATOR: Final = "agentruns.emulator.langgraph:LangGraph"
Origin: Final = Invocation


def example() -> Invocation:
    """Return an invocation of the emulated graph."""
    return Invocation("agent", {"messages": [{"role": "user", "content": "Sort the post."}]})
