"""
Middesk: runs of its agents inside threads, paused by interrupts and resumed in place.

A run that reaches an interrupt stops as `interrupted` until it is answered; answered, the same run goes on under the
same id. Nothing can be cancelled, and no request carries an idempotency key: a start of unknown outcome is settled by
looking for a new run on its thread, an answer by looking whether its interrupt is still listed.

Pages: https://docs.middesk.com/api-reference/agents/runs (create-agent-run, get-agent-run, list-agent-runs,
stream-agent-run-events, submit-agent-run-feedback), .../agents/threads, https://docs.middesk.com/reference (run,
thread, agent), https://docs.middesk.com/work-with-agents (take-action, interrupt-policy, webhooks) and
https://docs.middesk.com/build (api-keys, status-codes-errors, webhooks, secure-webhooks).
"""

from __future__ import annotations

from typing import Final

from agentruns._values.exchange import RateLimit
from agentruns.errors import ConfigurationError

from .answers import resume, resume_body
from .catalog import create_thread, get_agent, get_thread, give_feedback, list_agents, list_threads
from .objects import (
    Agent,
    AgentPage,
    Artifact,
    Feedback,
    Interrupt,
    MiddeskRun,
    Output,
    Requester,
    Reviewer,
    Source,
    Step,
    StepResult,
    Thread,
    ThreadPage,
)
from .reading import (
    NAME,
    STATUS,
    detail,
    events,
    fetch,
    handler_names,
    list_parent,
    page,
    parse_run,
    problem,
    times,
    timing_group,
)
from .starts import RunRequest, recover, start
from .variants import GUESSES, variant
from .webhooks import WebhookEvent, verify_webhook

__all__ = [
    "BASE_URL",
    "BASE_URL_VARIABLE",
    "BUDGET",
    "GUESSES",
    "NAME",
    "SANDBOX_URL",
    "STATUS",
    "TOKEN_VARIABLE",
    "TRACE_ROLES",
    "Agent",
    "AgentPage",
    "Artifact",
    "Feedback",
    "Interrupt",
    "MiddeskRun",
    "Origin",
    "Output",
    "Requester",
    "Reviewer",
    "RunRequest",
    "Source",
    "Step",
    "StepResult",
    "Thread",
    "ThreadPage",
    "WebhookEvent",
    "check_token",
    "create_thread",
    "detail",
    "events",
    "fetch",
    "get_agent",
    "get_thread",
    "give_feedback",
    "handler_names",
    "list_agents",
    "list_parent",
    "list_threads",
    "page",
    "parse_run",
    "problem",
    "recover",
    "resume",
    "resume_body",
    "start",
    "times",
    "timing_group",
    "variant",
    "verify_webhook",
]

BASE_URL: Final = "https://api.middesk.com/v1"
SANDBOX_URL: Final = "https://api-sandbox.middesk.com/v1"
TOKEN_VARIABLE: Final = "MIDDESK_API_KEY"  # noqa: S105
BASE_URL_VARIABLE: Final = "MIDDESK_BASE_URL"
BUDGET: Final = RateLimit(18, 1.0)  # status-codes-errors: 20 requests per second per customer
TRACE_ROLES: Final = ("gen_ai.conversation.id", "gen_ai.agent.name")
Origin: Final = RunRequest


def check_token(base_url: str, token: str) -> None:
    """Refuse a key of the other environment: `mk_live` is for production, `mk_test` for the sandbox (api-keys)."""
    for url, prefix, other in ((BASE_URL, "mk_test", SANDBOX_URL), (SANDBOX_URL, "mk_live", BASE_URL)):
        if base_url == url and token.startswith(prefix):
            raise ConfigurationError(
                f"the token begins with {prefix}, and the base URL is {url}: they belong to different environments. "
                f"Use the base URL {other}, or the other key",
                field="base_url",
            )
