"""
Origami: agents that build tables of leads, and runs that are answered by the next run of the same agent.

Creating an agent starts its first run; each further run is one more turn of its conversation. A run ends by itself: as
`needs_input` with questions, or as `incomplete` or `step_cap_hit`, it is over too, and answering it means a new run
whose prompt is the answer. That the run is over does not say that its tables are: `cells.running` of a table does.

Version 2 of the API is spoken as documented from 20 July 2026 on; lists in the shape of before 7 July are understood.

Pages: https://docs.origami.chat/agents (quickstart, run-object, objects, reference/...), /authentication,
/reading-data, /openapi-v2.yaml and /api-v2-to-v3-migration.
"""

from __future__ import annotations

from typing import Final

from agentruns._values.exchange import RateLimit

from .admission import SLOT_SECONDS
from .answers import GUESSES, prompt_of_answers, resume, resume_again, resume_first, variant
from .catalog import (
    archive_agent,
    get_account,
    get_agent,
    get_credits,
    get_csv,
    get_row,
    get_table,
    list_agents,
    list_columns,
    list_rows,
    list_tables,
    list_tables_of_organization,
)
from .objects import (
    Account,
    Agent,
    AgentPage,
    Archived,
    Balance,
    Column,
    OrigamiRun,
    PendingQuestion,
    Row,
    RowPage,
    RunAction,
    RunDetail,
    RunSummary,
    RunTodo,
    Table,
    TablePage,
    TranscriptMessage,
)
from .prompts import Prompt, attached_document, attached_table, draft_campaign, edit_campaign, recover, start
from .reading import NAME, STATUS, detail, handler_names, list_parent, parse_run, problem, times, timing_group
from .runs import answered_by, cancel, fetch, page
from .showing import show_question, show_steps

__all__ = [
    "ANSWERS_TOGETHER",
    "BASE_URL",
    "BASE_URL_VARIABLE",
    "BUDGET",
    "EMULATOR",
    "GUESSES",
    "KEY_SECONDS",
    "MODEL_CALLS",
    "NAME",
    "PARENT",
    "POLL_SECONDS",
    "RUN_SECONDS",
    "SLOT_SECONDS",
    "STATUS",
    "TOKEN_VARIABLE",
    "TRACE_INCLUDE",
    "TRACE_ROLES",
    "Account",
    "Agent",
    "AgentPage",
    "Archived",
    "Balance",
    "Column",
    "OrigamiRun",
    "Origin",
    "PendingQuestion",
    "Prompt",
    "Row",
    "RowPage",
    "RunAction",
    "RunDetail",
    "RunSummary",
    "RunTodo",
    "Table",
    "TablePage",
    "TranscriptMessage",
    "answered_by",
    "archive_agent",
    "attached_document",
    "attached_table",
    "cancel",
    "detail",
    "draft_campaign",
    "edit_campaign",
    "fetch",
    "get_account",
    "get_agent",
    "get_credits",
    "get_csv",
    "get_row",
    "get_table",
    "handler_names",
    "list_agents",
    "list_columns",
    "list_parent",
    "list_rows",
    "list_tables",
    "list_tables_of_organization",
    "page",
    "parse_run",
    "problem",
    "prompt_of_answers",
    "recover",
    "resume",
    "resume_again",
    "resume_first",
    "show_question",
    "show_steps",
    "start",
    "times",
    "timing_group",
    "variant",
]

BASE_URL: Final = "https://origami.chat/api/v2"
TOKEN_VARIABLE: Final = "ORIGAMI_API_KEY"  # noqa: S105
BASE_URL_VARIABLE: Final = "ORIGAMI_BASE_URL"
KEY_SECONDS: Final = 24 * 3600.0  # how long an Idempotency-Key is remembered (openapi-v2.yaml)
BUDGET: Final = RateLimit(90, 60.0)  # of 100 requests a minute and organization (authentication page)
PARENT: Final = "agent"
MODEL_CALLS: Final = False  # the vendor words what a run asks; nothing that is told of a misfit could call again
TRACE_INCLUDE: Final = "transcript"
ANSWERS_TOGETHER: Final = True  # one prompt, that of the next run
TRACE_ROLES: Final = ("gen_ai.agent.id", "gen_ai.request.model")
POLL_SECONDS: Final = (15.0, 15.0)  # reference/get-run: what Retry-After says at present
RUN_SECONDS: Final = 21 * 60.0  # openapi-v2.yaml: a run ends as timed_out after 20 minutes
EMULATOR: Final = "agentruns.emulator.origami:Origami"
Origin: Final = Prompt
