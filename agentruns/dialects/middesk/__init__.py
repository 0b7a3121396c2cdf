"""
Middesk: runs of its agents inside threads, paused by interrupts and resumed in place.

A run that reaches an interrupt stops as `interrupted` until it is answered; answered, the same run goes on under the
same id. Nothing can be cancelled, and no request carries an idempotency key: a start of unknown outcome is settled by
looking for a new run on its thread, an answer by looking whether its interrupt is still listed.

Pages: https://docs.middesk.com/api-reference/agents/runs (create-agent-run, get-agent-run, list-agent-runs,
stream-agent-run-events, submit-agent-run-feedback), .../agents/threads, .../business-verification/actions and
.../webhooks, https://docs.middesk.com/reference (run, thread, agent, action), https://docs.middesk.com/work-with-agents
(take-action, interrupt-policy, webhooks) and https://docs.middesk.com/build (api-keys, status-codes-errors, webhooks,
secure-webhooks).
"""

from __future__ import annotations

from typing import Final

from agentruns._values.exchange import RateLimit
from agentruns.errors import ConfigurationError

from .actions import ACTION_TYPES, OBJECT_TYPES, get_action, list_actions, take_action
from .answers import resume, resume_body, resume_first
from .catalog import create_thread, get_agent, get_thread, give_feedback, list_agents, list_threads
from .events import RUN_FINISHED, RUN_STARTED, STATE_SNAPSHOT, RunEvent
from .objects import (
    ActionActor,
    ActionEffect,
    ActionTarget,
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
    TakenAction,
    TakenActions,
    Thread,
    ThreadPage,
    Webhook,
    WebhookPage,
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
from .showing import show_artifacts, show_question, show_steps
from .starts import RunRequest, recover, start
from .variants import GUESSES, variant
from .webhooks import (
    WebhookEvent,
    WebhookFields,
    create_webhook,
    delete_webhook,
    get_webhook,
    list_webhooks,
    update_webhook,
    verify_webhook,
)

__all__ = [
    "ACTION_TYPES",
    "ANSWERS_TOGETHER",
    "BASE_URL",
    "BASE_URL_VARIABLE",
    "BUDGET",
    "EMULATOR",
    "GUESSES",
    "MODEL_CALLS",
    "NAME",
    "OBJECT_TYPES",
    "PARENT",
    "RUN_FINISHED",
    "RUN_SECONDS",
    "RUN_STARTED",
    "SANDBOX_URL",
    "START_REQUESTS",
    "STATE_SNAPSHOT",
    "STATUS",
    "TOKEN_VARIABLE",
    "TRACE_INCLUDE",
    "TRACE_ROLES",
    "ActionActor",
    "ActionEffect",
    "ActionTarget",
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
    "RunEvent",
    "RunRequest",
    "Source",
    "Step",
    "StepResult",
    "TakenAction",
    "TakenActions",
    "Thread",
    "ThreadPage",
    "Webhook",
    "WebhookEvent",
    "WebhookFields",
    "WebhookPage",
    "check_token",
    "create_thread",
    "create_webhook",
    "delete_webhook",
    "detail",
    "events",
    "fetch",
    "get_action",
    "get_agent",
    "get_thread",
    "get_webhook",
    "give_feedback",
    "handler_names",
    "list_actions",
    "list_agents",
    "list_parent",
    "list_threads",
    "list_webhooks",
    "page",
    "parse_run",
    "problem",
    "recover",
    "resume",
    "resume_body",
    "resume_first",
    "show_artifacts",
    "show_question",
    "show_steps",
    "start",
    "take_action",
    "times",
    "timing_group",
    "update_webhook",
    "variant",
    "verify_webhook",
]

BASE_URL: Final = "https://api.middesk.com/v1"
SANDBOX_URL: Final = "https://api-sandbox.middesk.com/v1"
TOKEN_VARIABLE: Final = "MIDDESK_API_KEY"  # noqa: S105
BASE_URL_VARIABLE: Final = "MIDDESK_BASE_URL"
BUDGET: Final = RateLimit(18, 1.0)  # status-codes-errors: 20 requests per second per customer
START_REQUESTS: Final = 2  # a thread and the run in it
PARENT: Final = "thread"
MODEL_CALLS: Final = False  # the vendor words what a run asks; nothing that is told of a misfit could call again
TRACE_INCLUDE: Final = "steps"
ANSWERS_TOGETHER: Final = False  # get-agent-run: an interrupt is resumed by its id
TRACE_ROLES: Final = ("gen_ai.conversation.id", "gen_ai.agent.name")
RUN_SECONDS: Final = 6 * 3600.0  # webhooks: work takes seconds, minutes or hours
EMULATOR: Final = "agentruns.emulator.middesk:Middesk"
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
