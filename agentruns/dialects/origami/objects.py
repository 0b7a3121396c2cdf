"""
What the vendor answers, field for field; page names are those below https://docs.origami.chat/agents.

`object` stamps every object from July 2026 on. Fields that an older generation of the API lacks, and deprecated ones,
are None where they are missing; what an object is nothing without is required.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeAlias

from attrs import field, frozen

from agentruns._values.codec import CamelCase

# Tables (reference/get-table) -----------------------------------------------------------------------------------------


@frozen
class Spent(CamelCase):
    """Credits that were settled; documented as whole, but charges are fractional."""

    lifetime_used: float | None = None


@frozen
class Cells(CamelCase):
    """How cells stand: while any are `running`, data still arrives, whatever the run says."""

    running: int | None = None
    errored: int | None = None


@frozen
class ColumnStats(CamelCase):
    """What running a column costs (`include=stats`)."""

    avg_credits_per_run: float | None = None
    call_rate: float | None = None
    total_runs: int | None = None


@frozen
class ColumnQualification(CamelCase):
    """How leads did on a column that filters for quality (`include=stats`)."""

    pass_: int | None = None
    fail: int | None = None
    unsure: int | None = None
    total: int | None = None


@frozen(kw_only=True)
class Column(CamelCase):
    """A column; `type` and `kind` are open words, such as `code` and `enrichment`."""

    object: str | None = None
    id: str
    name: str = ""
    type: str | None = None
    kind: str | None = None
    slug: str | None = None
    auto_trigger: bool | None = None
    credits: Spent = field(factory=Spent)
    cells: Cells = field(factory=Cells)
    stats: ColumnStats | None = None
    qualification: ColumnQualification | None = None


@frozen
class TableQualification(CamelCase):
    """How many leads pass the table's relevance conditions."""

    rate: float | None = None
    fetch_rate: float | None = None
    qualified_leads: int | None = None
    effective_leads_per_qualified: float | None = None
    estimated_qualified_leads: int | None = None


@frozen
class Funnel(CamelCase):
    """What became of the leads that were found."""

    total_sourced_leads: int | None = None
    post_static_leads: int | None = None
    deduped_leads: int | None = None
    dedup_rate: float | None = None
    excluded_leads: int | None = None
    excluded_rate: float | None = None


@frozen
class RunningLeads(CamelCase):
    """The leads that are being worked on."""

    running_leads: int | None = None
    oldest_active_run_started_at: datetime | None = None


@frozen
class LeadSource(CamelCase):
    """Where leads came from, and at what price; `source` is historical or estimate."""

    id: str
    name: str = ""
    avg_credits_per_lead: float | None = None
    total_credits: float | None = None
    total_leads: int | None = None
    source: str | None = None


@frozen
class TableStats(CamelCase):
    """The economics of a table (`include=stats`)."""

    credits_per_lead: float | None = None
    credits_per_qualified_lead: float | None = None
    find_more_estimated_credits: float | None = None
    qualification: TableQualification | None = None
    funnel: Funnel = field(factory=Funnel)
    running: RunningLeads = field(factory=RunningLeads)
    lead_sources: tuple[LeadSource, ...] = ()
    has_unknown_total_with_more: bool | None = None


@frozen(kw_only=True)
class Table(CamelCase):
    """A table of leads; `url` is for humans."""

    object: str | None = None
    id: str
    workspace_id: str | None = None
    name: str = ""
    lead_count: int | None = None
    columns: tuple[Column, ...] = ()
    credits: Spent = field(factory=Spent)
    cells: Cells = field(factory=Cells)
    url: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    stats: TableStats | None = None


@frozen
class TablePage:
    """Every table that an agent can reach, or a page of those of the organization; `cursor` is None on the last."""

    items: tuple[Table, ...]
    workspace_id: str | None = None
    cursor: str | None = None


@frozen
class Row:
    """
    A row: its cells by the slugs of their columns.

    A typed cell is an object with `type` (scalar, value or sequence), `value`, and what the vendor adds; a flat one is
    the bare value. Flat rows have no documented id.
    """

    cells: Mapping[str, Any] = field(factory=dict)
    id: str | None = None
    object: str | None = None


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

    completed: int | None = None
    max: int | None = None


@frozen(kw_only=True)
class RunSummary(CamelCase):
    """
    A run as lists show it.

    `prompt` is cut to 200 characters. `model` is what ran; before the first step it shows the default of the plan.
    """

    object: str | None = None
    id: str
    agent_id: str
    status: str
    prompt: str = ""
    model: str | None = None
    steps: Steps = field(factory=Steps)
    started_at: datetime
    completed_at: datetime | None = None


@frozen
class RunRequest(CamelCase):
    """What was asked for, in full; attachments are not shown again."""

    prompt: str = ""
    model: str | None = None
    focus_table_ids: tuple[str, ...] = ()


@frozen(kw_only=True)
class RunAction(CamelCase):
    """A change that the agent made, such as `leads_added`; which of the optional fields are set depends on `type`."""

    type: str = ""
    table_id: str | None = None
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

    type: str = ""
    question: str = ""
    suggested_answers: tuple[str, ...] = ()
    freeform_option: str | None = None


@frozen
class NextAction(CamelCase):
    """What the agent suggests to do next."""

    label: str = ""
    type: str | None = None
    table_slug: str | None = None


@frozen
class RunTodo(CamelCase):
    """What is left to the caller."""

    pending_questions: tuple[PendingQuestion, ...] = ()
    next_actions: tuple[NextAction, ...] = ()


@frozen(kw_only=True)
class OrigamiRun(RunSummary):
    """A run, field for field as the get-run page shows it."""

    workspace_id: str | None = None
    request: RunRequest = field(factory=RunRequest)
    response: RunResponse | None = None
    todo: RunTodo = field(factory=RunTodo)


RunDetail: TypeAlias = OrigamiRun | RunSummary
"""What `Run.detail` is: the whole run where it was read by itself, the summary where it stood in a list."""


# Agents (reference/get-agent, list-agents, archive-agent) -------------------------------------------------------------


@frozen(kw_only=True)
class Agent(CamelCase):
    """An agent: a conversation that runs one prompt at a time; `last_run` is None before its first."""

    object: str | None = None
    id: str
    name: str = ""
    workspace_id: str | None = None
    created_at: datetime | None = None
    api_key_owned: bool | None = None
    last_run: RunSummary | None = None


@frozen
class AgentPage:
    """One page of agents; `cursor` is None on the last."""

    items: tuple[Agent, ...]
    cursor: str | None = None


@frozen
class Deleted(CamelCase):
    """What was put away, and when: None for a container that stays."""

    id: str
    deleted_at: datetime | None = None
    object: str | None = None


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
    name: str | None = None


@frozen
class Plan(CamelCase):
    """What is paid for."""

    id: str
    name: str = ""


@frozen
class Capabilities(CamelCase):
    """What the plan allows; `concurrent_agents` is None where there is no limit."""

    can_use_api: bool | None = None
    can_run_scheduled_tasks: bool | None = None
    concurrent_agents: int | None = None


@frozen
class Quota(CamelCase):
    """How much is used; `limit` is None where there is none."""

    used: int | None = None
    limit: int | None = None


@frozen
class Account(CamelCase):
    """The organization, its plan and what that allows."""

    organization: Organization
    plan: Plan
    capabilities: Capabilities = field(factory=Capabilities)
    workspaces: Quota = field(factory=Quota)
    object: str | None = None


@frozen
class Balance(CamelCase):
    """The credits that are left."""

    balance: float
    currency: str = "credits"
    object: str | None = None
