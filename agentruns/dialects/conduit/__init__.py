"""
Conduit.ai: agents whose triggers are fired from outside, and runs that must be found again afterwards.

A dispatch fires a trigger and says no more than that it did: it names no run, and there is no documented way to make it
repeatable. So the list of the agent's runs is read before, and read again until a run of that trigger is in it that was
not there. Exactly one is ours. None, or several, is `OutcomeUnknownError`: nothing is ever dispatched a second time. A
lost answer is reconciled in the same way. The client holds a lock per agent and trigger meanwhile; a cron tick, a real
event or another process that fires the same trigger in that moment cannot be told from us if its run shows first.

A run cannot be answered or cancelled. What needs a person is an escalation, an object of its own, and settling it does
not touch the run.

Pages: https://docs.conduit.ai/api-reference (agents/run, agents/list-runs, agents/get-run, agents/list, agents/get,
agents/create, agents/update, agents/delete, escalations/list, escalations/assign, escalations/resolve,
conversations/get, conversations/messages, conversations/send-message, tickets/send-message, contacts/send-message,
workspaces/list-users, introduction) and https://docs.conduit.ai/rate-limits.
"""

from __future__ import annotations

from typing import Final

from agentruns._values.exchange import RateLimit

from .catalog import (
    ESCALATION_STATUS,
    OPERATION_MODES,
    AgentFields,
    assign_escalation,
    create_agent,
    delete_agent,
    get_agent,
    get_conversation,
    list_agents,
    list_escalations,
    list_messages,
    list_users,
    list_workspaces,
    resolve_escalation,
    send_contact_message,
    send_message,
    send_ticket_message,
    update_agent,
)
from .dispatch import Dispatch, recover, start
from .objects import (
    ESCALATED,
    RESOLVED,
    Agent,
    ConduitRun,
    Conversation,
    Escalation,
    Listing,
    Message,
    Sender,
    TokenUsage,
    ToolCall,
    Trigger,
    User,
    Workspace,
)
from .reading import (
    NAME,
    STATUS,
    detail,
    fetch,
    handler_names,
    list_parent,
    list_runs,
    needs_human,
    page,
    parse_run,
    problem,
    times,
    timing_group,
)
from .showing import show_steps
from .variants import GUESSES, variant

__all__ = [
    "BASE_URL",
    "BASE_URL_VARIABLE",
    "BUDGET",
    "EMULATOR",
    "ESCALATED",
    "ESCALATION_STATUS",
    "GUESSES",
    "NAME",
    "OPERATION_MODES",
    "PARENT",
    "RESOLVED",
    "START_REQUESTS",
    "STATUS",
    "TOKEN_VARIABLE",
    "TRACE_ROLES",
    "Agent",
    "AgentFields",
    "ConduitRun",
    "Conversation",
    "Dispatch",
    "Escalation",
    "Listing",
    "Message",
    "Origin",
    "Sender",
    "TokenUsage",
    "ToolCall",
    "Trigger",
    "User",
    "Workspace",
    "assign_escalation",
    "create_agent",
    "delete_agent",
    "detail",
    "fetch",
    "get_agent",
    "get_conversation",
    "handler_names",
    "list_agents",
    "list_escalations",
    "list_messages",
    "list_parent",
    "list_runs",
    "list_users",
    "list_workspaces",
    "needs_human",
    "page",
    "parse_run",
    "problem",
    "recover",
    "resolve_escalation",
    "send_contact_message",
    "send_message",
    "send_ticket_message",
    "show_steps",
    "start",
    "times",
    "timing_group",
    "update_agent",
    "variant",
]

BASE_URL: Final = "https://api.conduit.ai/v1"
TOKEN_VARIABLE: Final = "CONDUIT_API_TOKEN"  # noqa: S105
BASE_URL_VARIABLE: Final = "CONDUIT_BASE_URL"
BUDGET: Final = RateLimit(108, 60.0)  # rate-limits: 120 per minute and workspace, all of its tokens together
START_REQUESTS: Final = 2  # the dispatch and the look that finds its run; the look before is that of the start before
PARENT: Final = "agent"
TRACE_ROLES: Final = ("gen_ai.agent.id", "gen_ai.agent.id")
EMULATOR: Final = "agentruns.emulator.conduit:Conduit"
Origin: Final = Dispatch
