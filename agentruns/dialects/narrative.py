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

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

from attrs import Attribute, field, frozen

from agentruns import check, codec, wire
from agentruns.errors import ConfigurationError, ProtocolError
from agentruns.model import (
    Action,
    Failure,
    Flow,
    Problem,
    Progress,
    Request,
    Response,
    Run,
    RunRef,
    RunStatus,
    ToolOutput,
    Usage,
)
from agentruns.tools import Tools, ToolsLike

NAME: Final = "narrative"
BASE_URL: Final = "https://api.narrative.io"
TOKEN_VARIABLE: Final = "NARRATIVE_TOKEN"  # noqa: S105
BASE_URL_VARIABLE: Final = "NARRATIVE_BASE_URL"
BUDGET: Final[float | None] = None  # the knowledge base says that no limit is enforced

STATUS: Final[Mapping[str, RunStatus]] = {
    "pending": RunStatus.PENDING,
    "running": RunStatus.RUNNING,
    "requires_action": RunStatus.REQUIRES_ACTION,
    "completed": RunStatus.COMPLETED,
    "failed": RunStatus.FAILED,
}

TEXT_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["text"],
    "properties": {"text": {"type": "string"}},
}
"""The `output_format_schema` of a plain text answer: `final_text` is taken from its `text`."""


# What the caller declares ---------------------------------------------------------------------------------------------

_ALIAS: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9]{0,7}")  # errors/invalid-tool-alias
_LONGEST_TOOL_NAME: Final = 64  # errors/tool-name-too-long, errors/invalid-caller-tool-name


def _alias(owner: object, _: Attribute[str], value: Any) -> None:
    if not isinstance(value, str) or not _ALIAS.fullmatch(value):
        raise ConfigurationError(
            f"{type(owner).__name__}.alias is {value!r}; it must be 1 to 8 letters and digits, a letter first"
        )


@frozen
class Tool:
    """A tool as the model sees it; `input_schema` is a JSON Schema of its arguments."""

    name: str = field(validator=check.not_empty)
    description: str
    input_schema: Mapping[str, Any]
    strict: bool | None = None


@frozen
class ClientTools:
    """Tools that the caller runs (revision A); the model calls them `alias-name`."""

    alias: str = field(validator=_alias)
    tools: Sequence[Tool]

    def __attrs_post_init__(self) -> None:
        long = [tool.name for tool in self.tools if len(self.alias) + 1 + len(tool.name) > _LONGEST_TOOL_NAME]
        if long:
            raise ConfigurationError(
                f"with the alias {self.alias!r} these tool names exceed {_LONGEST_TOOL_NAME} characters: "
                f"{', '.join(long)}. Shorten them, or give the tools other names: `tools.add(function, name=...)`"
            )


@frozen
class McpServer:
    """Tools that the platform runs; `tools` is pinned in revision A and discovered by the platform in B."""

    alias: str = field(validator=_alias)
    url: str = field(validator=check.not_empty)
    tools: Sequence[Tool] | None = None
    description: str | None = None


@frozen(kw_only=True)
class Config:
    """
    How a conversation's runs work, unless one of them overrides it.

    Give the caller's tools either as `client_tools` (revision A) or as `tools` (revision B), never as both.
    """

    model: str = field(validator=check.not_empty)
    data_plane_id: str = field(validator=check.not_empty)
    max_iterations: int = field(validator=check.at_least_one)
    max_tokens: int = field(validator=check.at_least_one)
    output_format_schema: Mapping[str, Any]
    execution_cluster: str = "shared"
    compute_pool_id: str | None = None
    temperature: float = 0.0
    mcp_servers: Sequence[McpServer] = ()
    client_tools: Sequence[ClientTools] | None = None
    tools: Sequence[Tool] | None = None

    def __attrs_post_init__(self) -> None:
        if self.client_tools is not None and self.tools is not None:
            raise ConfigurationError(
                "Config has both client_tools (revision A of the API) and tools (revision B); give the one that your "
                "account understands"
            )
        aliases = [each.alias for each in self.mcp_servers] + [each.alias for each in self.client_tools or ()]
        twice = sorted({alias for alias in aliases if aliases.count(alias) > 1})
        if twice:
            raise ConfigurationError(
                f"Config uses an alias twice over mcp_servers and client_tools: {', '.join(twice)}. Rename one of each"
            )


@frozen(kw_only=True)
class ToolChoice:
    """What the model is asked to do in the first iteration of a run; `AUTO`, `ANY_TOOL` or `specific_tool(...)`."""

    kind: str = field(validator=check.not_empty)
    name: str | None = None
    mcp_alias: str | None = None


AUTO: Final = ToolChoice(kind="auto")
ANY_TOOL: Final = ToolChoice(kind="any")


def specific_tool(name: str, *, mcp_alias: str | None = None) -> ToolChoice:
    """Ask for one tool: a tool of the MCP server called *mcp_alias*, without one a tool that the caller declared."""
    return ToolChoice(kind="specific_tool", name=name, mcp_alias=mcp_alias)


def client_tools(tools: ToolsLike, *, alias: str) -> ClientTools:
    """Return the handlers in *tools* as the declaration of revision A."""
    return ClientTools(alias, _declared(tools, strict=True))


def flat_tools(tools: ToolsLike) -> tuple[Tool, ...]:
    """
    Return the handlers in *tools* as the declaration of revision B.

    Raise `ConfigurationError` for a name with a dash, or of more than 64 characters (errors/invalid-caller-tool-name).
    """
    declared = _declared(tools, strict=None)
    wrong = [tool.name for tool in declared if "-" in tool.name or len(tool.name) > _LONGEST_TOOL_NAME]
    if wrong:
        raise ConfigurationError(
            f"these tool names have a dash or exceed {_LONGEST_TOOL_NAME} characters: {', '.join(wrong)}. Give them "
            "other names: `tools.add(function, name=...)`"
        )
    return declared


def _declared(tools: ToolsLike, *, strict: bool | None) -> tuple[Tool, ...]:
    return tuple(
        Tool(each.name, each.description, each.input_schema, strict=strict) for each in Tools.of(tools).schemas()
    )


# What starts a run ----------------------------------------------------------------------------------------------------

_OVERRIDABLE: Final = (
    "model",
    "data_plane_id",
    "execution_cluster",
    "compute_pool_id",
    "max_iterations",
    "max_tokens",
    "temperature",
    "output_format_schema",
    "mcp_servers",
    "client_tools",
    "tools",
)


def _overridable(_: object, __: object, value: Mapping[str, Any] | None) -> None:
    """`system_prompt` is pinned with the conversation (start-run page, config_override)."""
    unknown = sorted(set(value or ()) - set(_OVERRIDABLE))
    if unknown:
        raise ConfigurationError(
            f"config_override has {', '.join(unknown)}, which a run cannot override; it may have "
            f"{', '.join(_OVERRIDABLE)}"
        )


def _version(owner: object, _: Attribute[int | None], value: int | None) -> None:
    if value is not None:
        check.whole(f"{type(owner).__name__}.expected_version", value, 0)


@frozen
class UserMessage:
    """
    A new turn of the user.

    `client_op_id` makes it one intent: however often this value is started, the vendor starts one run.
    `config_override` maps fields of `Config` to what they shall be for this run and for those that answer its calls.
    """

    conversation_id: str = field(validator=check.not_empty)
    text: str = field(validator=check.not_empty)
    tool_choice: ToolChoice | Mapping[str, Any] | None = field(default=None, kw_only=True)
    config_override: Mapping[str, Any] | None = field(default=None, kw_only=True, validator=_overridable)
    expected_version: int | None = field(default=None, kw_only=True, validator=_version)
    client_op_id: str = field(factory=lambda: str(uuid4()), kw_only=True, validator=check.is_uuid)


Origin: Final = UserMessage

# What the vendor answers ----------------------------------------------------------------------------------------------


@frozen
class EffectiveConfig:
    """The configuration that a run used; fields that the answer leaves out are None."""

    model: str | None = None
    data_plane_id: str | None = None
    execution_cluster: str | None = None
    compute_pool_id: str | None = None
    max_iterations: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    output_format_schema: Mapping[str, Any] | None = None
    mcp_servers: tuple[Mapping[str, Any], ...] | None = None
    client_tools: tuple[Mapping[str, Any], ...] | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None


@frozen
class PendingToolCall:
    """A tool call that the caller must answer; `name` is the wire name."""

    tool_use_id: str
    name: str
    arguments: Mapping[str, Any]


@frozen
class TokenUsage:
    """Tokens over all iterations of a run; parts may be missing on a failed one."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


@frozen
class RunFault:
    """Why a run failed; `title` and `docs_url` are missing for types that the platform does not know."""

    type: str
    message: str = ""
    title: str | None = None
    docs_url: str | None = None


@frozen
class NarrativeRun:
    """A run, field for field as the get-run page shows it."""

    id: str
    conversation_id: str
    company_id: int
    user_id: int
    client_op_id: str
    status: str
    effective_config: EffectiveConfig
    submitted_inference_job_ids: tuple[str, ...]
    pending_tool_calls: tuple[PendingToolCall, ...]
    started_at: datetime
    tool_choice: Mapping[str, Any] | None = None
    iterations_used: int | None = None
    usage: TokenUsage | None = None
    final_text: str | None = None
    final_structured_output: Any = None
    error: RunFault | None = None
    completed_at: datetime | None = None


@frozen
class Conversation:
    """A conversation; `version` is also the cursor of its messages."""

    id: str
    company_id: int
    user_id: int
    defaults: EffectiveConfig
    version: int
    created_at: datetime
    updated_at: datetime
    name: str | None = None
    system_prompt: str | None = None


@frozen
class ContentBlock:
    """A part of a message: `type` is text, tool_use, tool_result, or a word of the future."""

    type: str
    text: str | None = None
    tool_use_id: str | None = None
    name: str | None = None
    arguments: Mapping[str, Any] | None = None
    is_error: bool | None = None
    content_blocks: tuple[ContentBlock, ...] = ()


@frozen
class Message:
    """A message of the log; the caller's tool results stand in a `user` turn, those of MCP servers in a `tool` turn."""

    id: str
    sequence_no: int
    content_blocks: tuple[ContentBlock, ...]
    run_id: str
    created_at: datetime
    role: str = ""


@frozen
class ConversationPage:
    """One page of conversations, newest first; `next_page` is None on the last."""

    items: tuple[Conversation, ...]
    current_page: int | None = None
    next_page: int | None = None
    prev_page: int | None = None
    total_records: int | None = None
    total_pages: int | None = None


@frozen
class MessagePage:
    """The messages after `since`; pass `current_version` as the next `since`."""

    items: tuple[Message, ...]
    current_version: int


# Conversations --------------------------------------------------------------------------------------------------------


def create_conversation(
    config: Config, *, name: str | None = None, system_prompt: str | None = None
) -> Flow[Conversation]:
    """Create an empty conversation; nothing starts (create-an-agent-conversation)."""
    body = {"name": name, "system_prompt": system_prompt, "defaults": _given(codec.unstructure(config))}
    # Creating twice leaves an empty conversation behind, which starts and costs nothing: safe to repeat.
    request = Request("POST", wire.path("agents", "conversations"), json=_given(body), idempotent=True)
    return wire.read((yield request), Conversation)


def get_conversation(id: str) -> Flow[Conversation]:  # noqa: A002
    """Read a conversation and its current version (get-an-agent-conversation)."""
    return wire.read((yield Request("GET", wire.path("agents", "conversations", id))), Conversation)


def list_conversations(*, page: int = 1, per_page: int = 50) -> Flow[ConversationPage]:
    """List the caller's conversations, newest first; pages start at 1 (list-the-calling-users-agent-conversations)."""
    params = {"page": str(page), "per_page": str(per_page)}
    seen = wire.read((yield Request("GET", wire.path("agents", "conversations"), params=params)), _Conversations)
    return ConversationPage(
        seen.records, seen.current_page, seen.next_page, seen.prev_page, seen.total_records, seen.total_pages
    )


def list_messages(conversation_id: str, *, since: int = 0) -> Flow[MessagePage]:
    """Read the messages with a `sequence_no` above *since*, a version (list-conversation-messages-delta-...)."""
    path = wire.path("agents", "conversations", conversation_id, "messages")
    seen = wire.read((yield Request("GET", path, params={"since": str(since)})), _Messages)
    return MessagePage(seen.messages, seen.current_version)


@frozen
class _Conversations:
    records: tuple[Conversation, ...]
    current_page: int | None = None
    next_page: int | None = None
    prev_page: int | None = None
    total_records: int | None = None
    total_pages: int | None = None


@frozen
class _Messages:
    messages: tuple[Message, ...]
    current_version: int


# Runs -----------------------------------------------------------------------------------------------------------------


def start(origin: UserMessage) -> Flow[Run]:
    """Start a run with a user's message (start-a-new-run-on-the-conversation)."""
    version = origin.expected_version
    if version is None:
        version = (yield from _head(origin.conversation_id))[0]
    options = {
        "tool_choice": _given(codec.unstructure(origin.tool_choice or {})),
        "config_override": _given(codec.plain(codec.unstructure(origin.config_override or {}), "config_override")),
    }
    payload = {"kind": "user_message", "text": origin.text}
    return (yield from _post_run(origin.conversation_id, origin.client_op_id, version, payload, options))


def fetch(ref: RunRef, params: Mapping[str, str]) -> Flow[Run]:
    """Read a run (get-a-runs-current-state); the conversation is not needed."""
    return _run((yield Request("GET", wire.path("agents", "runs", ref.id), params=params)))


_RESUMES: Final = UUID("6d9d2c1e-5f5c-5f0e-9a55-0c7f4c1a1d3b")


def resume(run: Run, outputs: Sequence[ToolOutput]) -> Flow[Run]:
    """
    Answer a paused run by starting the next one on its conversation.

    Every pending call is answered exactly once (errors/incomplete-tool-outputs). The id of the new run's intent derives
    from the paused run, so two processes that answer the same pause start one run between them. What the paused run had
    overridden stays overridden, since a run starts from the conversation's defaults again.
    """
    _answers_all(run, outputs)
    version, defaults = yield from _head(run.ref.parent)
    used = run.raw.get("effective_config") or {}
    override = {key: used[key] for key in _OVERRIDABLE if defaults and used.get(key) not in (None, defaults.get(key))}
    payload = {"kind": "tool_outputs", "outputs": [_output_item(output) for output in outputs]}
    op_id = str(uuid5(_RESUMES, run.id))
    return (yield from _post_run(run.ref.parent, op_id, version, payload, {"config_override": override}))


def _output_item(output: ToolOutput) -> Mapping[str, Any]:
    """
    Return one answer as the wire has it.

    A guess: no readable page names the field of the result. The stored block nests it as `content_blocks`
    (list-conversation-messages), and that is what is sent.
    """
    text = output.output if isinstance(output.output, str) else codec.encode(output.output).decode()
    return {
        "tool_use_id": output.action.id,
        "content_blocks": [{"type": "text", "text": text}],
        "is_error": output.is_error,
    }


def _answers_all(run: Run, outputs: Sequence[ToolOutput]) -> None:
    given = [output.action.id for output in outputs]
    missing = [action.id for action in run.actions if action.id not in given]
    twice = sorted({each for each in given if given.count(each) > 1})
    if missing or twice:
        raise ConfigurationError(
            f"run {run.id} needs exactly one answer to each of its actions; missing: {', '.join(missing) or 'none'}; "
            f"given twice: {', '.join(twice) or 'none'}. What cannot be answered is sent as "
            "ToolOutput(action, 'why not', is_error=True)"
        )


def _head(conversation_id: str) -> Flow[tuple[int, Mapping[str, Any]]]:
    """Read a conversation's current version and its defaults."""
    response = yield Request("GET", wire.path("agents", "conversations", conversation_id))
    seen = wire.read_object(response)
    return wire.structure(seen, _Head, response.request.line).version, seen.get("defaults") or {}


@frozen
class _Head:
    version: int


def _post_run(
    conversation_id: str, op_id: str, version: int, payload: Mapping[str, Any], options: Mapping[str, Any]
) -> Flow[Run]:
    """Post a run; a repeated `client_op_id` gives the first run back, so a lost answer is asked for again."""
    body = {"client_op_id": op_id, "expected_version": version, "payload": payload}
    body.update({key: value for key, value in options.items() if value})
    path = wire.path("agents", "conversations", conversation_id, "runs")
    return _run((yield Request("POST", path, json=body, idempotent=True)))


def detail(raw: Mapping[str, Any]) -> NarrativeRun:
    """Return a run's JSON object as `NarrativeRun`."""
    return codec.structure(raw, NarrativeRun)


def _run(response: Response) -> Run:
    raw = wire.read_object(response)
    seen = wire.structure(raw, NarrativeRun, response.request.line)
    status = STATUS.get(seen.status, RunStatus.RUNNING)  # an unknown word: in flight until the deadline
    calls = seen.pending_tool_calls if status is RunStatus.REQUIRES_ACTION else ()
    if status is RunStatus.REQUIRES_ACTION and not calls:
        raise ProtocolError(f"run {seen.id} requires action but names none @ $.pending_tool_calls")
    error = seen.error if status is RunStatus.FAILED else None
    return Run(
        RunRef(seen.id, seen.conversation_id),
        status,
        seen.status,
        actions=tuple(Action(call.tool_use_id, call.name, call.arguments) for call in calls),
        output=seen.final_text if seen.final_text is not None else seen.final_structured_output,
        failure=_failure(seen, error) if status is RunStatus.FAILED else None,
        usage=Usage(seen.usage.prompt_tokens or 0, seen.usage.completion_tokens or 0) if seen.usage else None,
        progress=Progress(len(seen.submitted_inference_job_ids), seen.effective_config.max_iterations),
        poll_after=wire.retry_after(response.headers) if status.in_flight else None,
        vendor=NAME,
        detail=seen,
        raw=raw,
    )


def _failure(seen: NarrativeRun, error: RunFault | None) -> Failure:
    return Failure(error.type, error.message) if error else Failure(seen.status)


def handler_names(action: Action) -> Sequence[str]:
    """Return the wire name, and the part after its first dash (errors/unknown-tool-alias)."""
    _, dash, name = action.name.partition("-")
    return (action.name, name) if dash else (action.name,)


# Errors ---------------------------------------------------------------------------------------------------------------


def problem(response: Response) -> Problem:
    """
    Read an error body: problem JSON (RFC 7807), whose `type` is the URL of the error's page.

    Other platform endpoints answer `{error, error_description}`; `log_id` is spelled `logId` on one page.
    """
    body = wire.error_body(response)
    page = wire.first_text(body, "type") or ""
    slug = page.rstrip("/").rpartition("/")[2] if page.startswith("https://") else None
    return Problem(
        message=wire.first_text(body, "detail", "error_description", "title", "error") or wire.said(response),
        code=slug or wire.first_text(body, "error"),
        title=wire.first_text(body, "title"),
        docs_url=page if slug else None,
        request_id=wire.first_text(body, "log_id", "logId"),
        detail=body,
    )


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the fields of ours that are not set, all the way down; JSON Schemas are left as they are."""
    return {
        key: value if key in {"input_schema", "output_format_schema"} else _given_value(value)
        for key, value in fields.items()
        if value is not None
    }


def _given_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _given(value)
    if isinstance(value, list | tuple):
        return [_given_value(each) for each in value]
    return value
