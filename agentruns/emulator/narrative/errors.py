"""Narrative's error catalog: the pages under reference/architecture/agent-conversations/errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from attrs import frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.vendor import phrase

ERROR_PAGES: Final = "https://docs.narrative.io/reference/architecture/agent-conversations/errors/"

_CREATE = ("POST", "/agents/conversations")
_START = ("POST", "/agents/conversations/*/runs")
_READ = ("GET", "/agents/*")
_OUTPUTS = "tool_use_id(s)"


@frozen
class ProblemKind:
    """One page of the catalog that describes an HTTP answer; `place` is where `Fault.vendor` plants it."""

    status: int
    title: str
    detail: str
    place: tuple[str, str] = _START


PROBLEMS: Final[Mapping[str, ProblemKind]] = {
    "invalid-tool-alias": ProblemKind(
        400,
        "Invalid Tool Alias",
        "invalid tool aliases (must match ^[a-zA-Z][a-zA-Z0-9]{{0,7}}$): {names}",
        _CREATE,
    ),
    "duplicate-tool-alias": ProblemKind(
        400, "Duplicate Tool Alias", "duplicate tool aliases (must be unique {scope}): {names}", _CREATE
    ),
    "tool-name-too-long": ProblemKind(
        400, "Tool Name Too Long", "tool wire names exceed Bedrock's 64-char limit: {names}", _CREATE
    ),
    "invalid-caller-tool-name": ProblemKind(
        400,
        "Invalid Caller Tool Name",
        "invalid caller-declared tool names (must be non-empty, dash-free, and ≤ 64 chars): {names}",
        _CREATE,
    ),
    "duplicate-caller-tool-name": ProblemKind(
        400,
        "Duplicate Caller Tool Name",
        "duplicate caller-declared tool names (must be unique within tools[]): {names}",
        _CREATE,
    ),
    "unknown-tool-choice-mcp-alias": ProblemKind(
        400,
        "Unknown Tool Choice MCP Alias",
        "tool_choice references unknown mcp_alias '{names}' — not a registered MCP server",
    ),
    "unknown-tool-choice-name": ProblemKind(
        400,
        "Unknown Tool Choice Name",
        "tool_choice references unknown tool name '{names}' — not found in the catalog",
    ),
    "mcp-discovery-failed": ProblemKind(
        400, "MCP Discovery Failed", "tools/list was not answered by MCP servers: {names}"
    ),
    "no-assistant-turn": ProblemKind(
        400, "No Assistant Turn", "cannot submit tool_outputs: conversation {names} has no assistant turn yet"
    ),
    "unknown-tool-use-id": ProblemKind(
        400, "Unknown Tool Use Id", _OUTPUTS + " not found on latest assistant turn: {names}"
    ),
    "not-a-client-tool-call": ProblemKind(
        400,
        "Not A Client Tool Call",
        _OUTPUTS + " refer to server-resolved calls (no caller output expected): {names}",
    ),
    "incomplete-tool-outputs": ProblemKind(
        400,
        "Incomplete Tool Outputs",
        "tool_outputs do not match the pending client tool calls — {names}",
    ),
    "conversation-not-found": ProblemKind(
        404, "Conversation Not Found", "Resource not found or not accessible.", ("*", "/agents/conversations/*")
    ),
    "agent-run-not-found": ProblemKind(
        404, "Agent Run Not Found", "Resource not found or not accessible.", ("GET", "/agents/runs/*")
    ),
    "version-conflict": ProblemKind(
        409, "Version Conflict", "conversation version mismatch: expected {expected}, current {current}"
    ),
    "workflow-start-failed": ProblemKind(500, "Workflow Start Failed", "The workflow of the run was not started."),
    "invalid-stored-field": ProblemKind(500, "Invalid Stored Field", "A stored field could not be decoded.", _READ),
}


class ProblemError(Exception):
    """An HTTP answer that is an error; without a slug it has no page of its own."""

    def __init__(self, status: int, detail: str, *, slug: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.slug = slug

    @property
    def title(self) -> str:
        """The page's title, or the status's own words."""
        return PROBLEMS[self.slug].title if self.slug else phrase(self.status)

    @property
    def type(self) -> str:
        """The address of the page; about:blank is RFC 7807's word for none."""
        return ERROR_PAGES + self.slug if self.slug else "about:blank"


def problem(slug: str, names: str = "", **facts: object) -> ProblemError:
    """Make the error of a page, its detail filled in."""
    kind = PROBLEMS[slug]
    return ProblemError(kind.status, kind.detail.format(names=names, **facts), slug=slug)


def planted(slug: str) -> ProblemError:
    """Make the error of a page that nothing but the test's plan calls for."""
    return problem(slug, "planned", scope="within this request", expected="0", current="1")


def bad_request(detail: str) -> ProblemError:
    """Make the plain 400 for missing and mistyped fields, which has no page (create-an-agent-conversation)."""
    return ProblemError(400, detail)


Leaves: TypeAlias = Literal["nothing", "turn", "later turn"]
"""What a failed run leaves behind: never anything, its turn, or its turn only if an iteration before had ended well."""


@frozen
class RunErrorKind:
    """One page of the catalog that describes `error` of a failed run."""

    slug: str
    title: str
    message: str
    leaves: Leaves = "nothing"
    at_load: bool = False


RUN_ERRORS: Final[Mapping[str, RunErrorKind]] = {
    "AgentLoopMaxIterationsExceeded": RunErrorKind(
        "max-iterations-exceeded",
        "Max Iterations Exceeded",
        "max iterations exceeded after {iterations} iterations",
        "turn",
    ),
    "AgentLoopConcurrentConversationAppend": RunErrorKind(
        "concurrent-conversation-append",
        "Concurrent Conversation Append",
        "another run appended to the conversation first; the messages of this run were not saved",
    ),
    "AgentLoopSchemaDecodeFailed": RunErrorKind(
        "schema-decode-failed",
        "Schema Decode Failed",
        "final answer did not parse against output_format_schema",
        "turn",
    ),
    "AgentLoopInvalidEffectiveConfig": RunErrorKind(
        "invalid-effective-config",
        "Invalid Effective Config",
        "cannot decode effective_config at $.mcp_servers[0]",
        at_load=True,
    ),
    "AgentLoopInvalidRequestPayload": RunErrorKind(
        "invalid-request-payload", "Invalid Request Payload", "cannot decode the stored payload", at_load=True
    ),
    "AgentLoopUnknownToolAlias": RunErrorKind(
        "unknown-tool-alias", "Unknown Tool Alias", "the model called a tool of an alias that is not registered", "turn"
    ),
    "AgentLoopMalformedToolName": RunErrorKind(
        "malformed-tool-name", "Malformed Tool Name", "the model called a tool by a malformed name", "turn"
    ),
    "AgentLoopMcpDiscoveryFailed": RunErrorKind(
        "mcp-discovery-failed", "MCP Discovery Failed", "tools/list failed at the start of the run", at_load=True
    ),
    "McpServerError": RunErrorKind(
        "mcp-server-error", "MCP Server Error", "the MCP server answered 503 on every one of 5 attempts", "turn"
    ),
    "McpProtocol": RunErrorKind(
        "mcp-protocol-error", "MCP Protocol Error", "the MCP server's answer is not JSON-RPC 2.0", "turn"
    ),
    "UnknownTool": RunErrorKind("mcp-unknown-tool", "MCP Unknown Tool", "the MCP server answered -32601", "turn"),
    "ToolValidation": RunErrorKind(
        "mcp-tool-validation", "MCP Tool Validation", "the arguments do not fit the tool's input_schema", "turn"
    ),
    "JobFailed": RunErrorKind(
        "inference-job-failed", "Inference Job Failed", "an inference job of the run failed", "later turn"
    ),
    "AgentLoopAgentRunNotFound": RunErrorKind(
        "agent-run-not-found", "Agent Run Not Found", "the run's row is gone", at_load=True
    ),
    "AgentLoopConversationNotFound": RunErrorKind(
        "conversation-not-found", "Conversation Not Found", "the conversation's row is gone", at_load=True
    ),
    "AgentLoopFinalizeInvariantViolated": RunErrorKind(
        "invariant-violated", "Invariant Violated", "an invariant of finalize was violated"
    ),
}


def run_error(kind: str, message: str | None = None, *, iterations: int = 0) -> dict[str, JSON]:
    """Write `error` of a failed run; title and docs_url only for types the API knows (get-a-runs-current-state)."""
    known = RUN_ERRORS.get(kind)
    if known is None:
        return {"type": kind, "message": kind if message is None else message}
    text = known.message.format(iterations=iterations) if message is None else message
    return {"type": kind, "message": text, "title": known.title, "docs_url": ERROR_PAGES + known.slug}
