"""
What the vendor answers, field for field; page names are those below https://docs.origami.chat/agents.

`object`, which stamps every object from July 2026 on, is not read: the type says as much. Fields that an older
generation of the API lacks, and deprecated ones, are None where they are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeAlias

from attrs import frozen

from agentruns._values.codec import CamelCase

# Tables (reference/get-table) -----------------------------------------------------------------------------------------


@frozen
class Spent(CamelCase):
    """Credits that were settled; documented as whole, but charges are fractional."""

    lifetime_used: float


@frozen
class Cells(CamelCase):
    """How cells stand: while any are `running`, data still arrives, whatever the run says."""

    running: int
    errored: int


@frozen
class ColumnStats(CamelCase):
    """What running a column costs (`include=stats`)."""

    avg_credits_per_run: float
    call_rate: float
    total_runs: int


@frozen
class ColumnQualification(CamelCase):
    """How leads did on a column that filters for quality (`include=stats`)."""

    pass_: int
    fail: int
    unsure: int
    total: int


@frozen(kw_only=True)
class Column(CamelCase):
    """A column; `type` and `kind` are open words, such as `code` and `enrichment`."""

    id: str
    name: str
    type: str
    kind: str | None = None
    slug: str | None = None
    auto_trigger: bool
    credits: Spent
    cells: Cells
    stats: ColumnStats | None = None
    qualification: ColumnQualification | None = None


@frozen
class TableQualification(CamelCase):
    """How many leads pass the table's relevance conditions."""

    rate: float | None
    fetch_rate: float | None
    qualified_leads: int
    effective_leads_per_qualified: float
    estimated_qualified_leads: int | None


@frozen
class Funnel(CamelCase):
    """What became of the leads that were found."""

    total_sourced_leads: int
    post_static_leads: int
    deduped_leads: int
    dedup_rate: float | None
    excluded_leads: int
    excluded_rate: float | None


@frozen
class RunningLeads(CamelCase):
    """The leads that are being worked on."""

    running_leads: int
    oldest_active_run_started_at: datetime | None


@frozen
class LeadSource(CamelCase):
    """Where leads came from, and at what price; `source` is historical or estimate."""

    id: str
    name: str
    avg_credits_per_lead: float
    total_credits: float
    total_leads: int
    source: str


@frozen
class TableStats(CamelCase):
    """The economics of a table (`include=stats`)."""

    credits_per_lead: float
    credits_per_qualified_lead: float
    find_more_estimated_credits: float
    qualification: TableQualification | None
    funnel: Funnel
    running: RunningLeads
    lead_sources: tuple[LeadSource, ...]
    has_unknown_total_with_more: bool


@frozen(kw_only=True)
class Table(CamelCase):
    """A table of leads; `url` is for humans."""

    id: str
    workspace_id: str | None = None
    name: str
    lead_count: int
    columns: tuple[Column, ...]
    credits: Spent
    cells: Cells
    url: str
    created_at: datetime
    updated_at: datetime
    stats: TableStats | None = None


@frozen
class TablePage:
    """Every table that an agent can reach; there is no second page."""

    items: tuple[Table, ...]
    workspace_id: str | None = None


@frozen
class Row:
    """
    A row: its cells by the slugs of their columns.

    A typed cell is an object with `type` (scalar, value or sequence), `value`, and what the vendor adds; a flat one is
    the bare value. Flat rows have no documented id.
    """

    cells: Mapping[str, Any]
    id: str | None = None


@frozen
class RowPage:
    """One page of rows; `cursor` is None on the last. `total` counts all that the filters let through."""

    items: tuple[Row, ...]
    cursor: str | None = None
    total: int | None = None


# Runs (reference/get-run, run-object) ---------------------------------------------------------------------------------


@frozen
class Steps(CamelCase):
    """Steps that were taken, and the cap of the plan."""

    completed: int
    max: int


@frozen(kw_only=True)
class RunSummary(CamelCase):
    """
    A run as lists show it.

    `prompt` is cut to 200 characters. `model` is what ran; before the first step it shows the default of the plan.
    """

    id: str
    agent_id: str
    status: str
    prompt: str
    model: str
    steps: Steps
    started_at: datetime
    completed_at: datetime | None = None


@frozen
class RunRequest(CamelCase):
    """What was asked for, in full; attachments are not shown again."""

    prompt: str
    model: str
    focus_table_ids: tuple[str, ...]


@frozen(kw_only=True)
class RunAction(CamelCase):
    """A change that the agent made, such as `leads_added`; which of the optional fields are set depends on `type`."""

    type: str
    table_id: str
    table_name: str | None = None
    column_id: str | None = None
    column_name: str | None = None
    count: int | None = None
    lead_count: int | None = None
    deleted_at: datetime | None = None


@frozen
class ToolCall(CamelCase):
    """A call of a tool that users see, such as `ask-questions`."""

    id: str | None = None
    name: str | None = None
    input: Any = None


@frozen(kw_only=True)
class TranscriptMessage(CamelCase):
    """A message of the conversation; the last four fields belong to those of role `tool`."""

    role: str | None = None
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    result: str | None = None
    truncated: bool | None = None


@frozen(kw_only=True)
class RunResponse(CamelCase):
    """What came of a run; `text` is withheld on errors, and one page shows a partial object while the run goes on."""

    text: str | None = None
    actions: tuple[RunAction, ...] = ()
    tables: tuple[Table, ...] = ()
    transcript: tuple[TranscriptMessage, ...] | None = None
    transcript_truncated: bool = False


@frozen
class PendingQuestion(CamelCase):
    """A question; `suggested_answers` are hints, and `freeform_option` is the caption of a button, not an answer."""

    type: str
    question: str
    suggested_answers: tuple[str, ...]
    freeform_option: str


@frozen
class NextAction(CamelCase):
    """What the agent suggests to do next."""

    label: str
    type: str | None = None
    table_slug: str | None = None


@frozen
class RunTodo(CamelCase):
    """What is left to the caller."""

    pending_questions: tuple[PendingQuestion, ...]
    next_actions: tuple[NextAction, ...]


@frozen(kw_only=True)
class OrigamiRun(RunSummary):
    """A run, field for field as the get-run page shows it."""

    workspace_id: str | None = None
    request: RunRequest
    response: RunResponse | None
    todo: RunTodo


RunDetail: TypeAlias = OrigamiRun | RunSummary
"""What `Run.detail` is: the whole run where it was read by itself, the summary where it stood in a list."""


# Agents (reference/get-agent, list-agents, archive-agent) -------------------------------------------------------------


@frozen(kw_only=True)
class Agent(CamelCase):
    """An agent: a conversation that runs one prompt at a time; `last_run` is None before its first."""

    id: str
    name: str
    workspace_id: str | None = None
    created_at: datetime
    api_key_owned: bool
    last_run: RunSummary | None


@frozen
class AgentPage:
    """One page of agents; `cursor` is None on the last."""

    items: tuple[Agent, ...]
    cursor: str | None = None


@frozen
class Deleted(CamelCase):
    """What was put away, and when: None for a container that stays."""

    id: str
    deleted_at: datetime | None


@frozen
class Archived(CamelCase):
    """An agent that was archived, and its container; None where a repeated request no longer tells."""

    agent: Deleted
    workspace: Deleted | None = None


# The account (openapi-v2.yaml) ----------------------------------------------------------------------------------------


@frozen
class Organization(CamelCase):
    """Whose key it is."""

    id: str
    name: str | None


@frozen
class Plan(CamelCase):
    """What is paid for."""

    id: str
    name: str


@frozen
class Capabilities(CamelCase):
    """What the plan allows; `concurrent_agents` is None where there is no limit."""

    can_use_api: bool
    can_run_scheduled_tasks: bool
    concurrent_agents: int | None


@frozen
class Quota(CamelCase):
    """How much is used; `limit` is None where there is none."""

    used: int
    limit: int | None


@frozen
class Account(CamelCase):
    """The organization, its plan and what that allows."""

    organization: Organization
    plan: Plan
    capabilities: Capabilities
    workspaces: Quota


@frozen
class Balance(CamelCase):
    """The credits that are left."""

    balance: float
    currency: str
