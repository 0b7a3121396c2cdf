"""Starting, reading and answering runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

from attrs import Attribute, field, frozen

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request, Response
from agentruns._values.run import Action, Failure, JsonText, Progress, Run, RunRef, RunStatus, ToolOutput, Usage
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError, ProtocolError

from .config import ToolChoice, given
from .objects import NarrativeRun, RunFault

NAME: Final = "narrative"

STATUS: Final[Mapping[str, RunStatus]] = {
    "pending": RunStatus.PENDING,
    "running": RunStatus.RUNNING,
    "requires_action": RunStatus.REQUIRES_ACTION,
    "completed": RunStatus.COMPLETED,
    "failed": RunStatus.FAILED,
}

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


def _overridable(owner: object, attribute: Attribute[Any], value: Any) -> None:
    """`system_prompt` is pinned with the conversation (start-run page, config_override)."""
    if value is None:
        return
    check.is_object(owner, attribute, value)
    unknown = sorted(map(str, set(value) - set(_OVERRIDABLE)))
    if unknown:
        raise ConfigurationError(
            f"config_override has {', '.join(unknown)}, which a run cannot override; it may have "
            f"{', '.join(_OVERRIDABLE)}"
        )


def _choice(_: object, __: object, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, ToolChoice | Mapping):
        raise ConfigurationError(
            f"UserMessage.tool_choice is {value!r}; it must be narrative.AUTO, narrative.ANY_TOOL, "
            "narrative.specific_tool(name), or a mapping as the vendor documents it"
        )


def _as_sent(name: str, value: Any) -> Mapping[str, Any]:
    """Return an option of a run as its request has it; raise `ConfigurationError` for what JSON cannot carry."""
    return given(codec.to_jsonable(codec.unstructure(value or {}), f"UserMessage.{name}"))


def _version(owner: object, _: Attribute[int | None], value: int | None) -> None:
    if value is not None:
        check.integer(f"{type(owner).__name__}.expected_version", value, 0)


@frozen
class UserMessage:
    """
    A new turn of the user.

    `client_op_id` makes it one intent: however often this value is started, the vendor starts one run.
    `config_override` maps fields of `Config` to what they shall be for this run and for those that answer its calls.
    """

    conversation_id: str = field(validator=check.not_empty)
    text: str = field(validator=check.not_empty)
    tool_choice: ToolChoice | Mapping[str, Any] | None = field(default=None, kw_only=True, validator=_choice)
    config_override: Mapping[str, Any] | None = field(default=None, kw_only=True, validator=_overridable)
    expected_version: int | None = field(default=None, kw_only=True, validator=_version)
    client_op_id: str = field(factory=lambda: str(uuid4()), kw_only=True, validator=check.is_uuid)


def start(origin: UserMessage) -> Flow[Run[NarrativeRun]]:
    """Start a run with a user's message (start-a-new-run-on-the-conversation)."""
    options = {
        "tool_choice": _as_sent("tool_choice", origin.tool_choice),
        "config_override": _as_sent("config_override", origin.config_override),
    }
    version = origin.expected_version
    if version is None:
        version = (yield from _head(origin.conversation_id))[0]
    payload = {"kind": "user_message", "text": origin.text}
    return (yield from _post_run(origin.conversation_id, origin.client_op_id, version, payload, options))


def fetch(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[NarrativeRun]]:
    """Read a run (get-a-runs-current-state); the conversation is not needed."""
    return parse_run((yield Request("GET", wire.path("agents", "runs", ref.id), params=params)))


_RESUMES: Final = UUID("6d9d2c1e-5f5c-5f0e-9a55-0c7f4c1a1d3b")


def resume(run: Run[NarrativeRun], outputs: Sequence[ToolOutput]) -> Flow[Run[NarrativeRun]]:
    """
    Answer a paused run by starting the next one on its conversation.

    Every pending call is answered exactly once (errors/incomplete-tool-outputs). The id of the new run's intent derives
    from the paused run, so two processes that answer the same pause start one run between them. What the paused run had
    overridden stays overridden, since a run starts from the conversation's defaults again.
    """
    _answers_all(run, outputs)
    version, defaults = yield from _head(run.ref.parent)
    used = wire.mapping(run.raw.get("effective_config"))
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


def _answers_all(run: Run[NarrativeRun], outputs: Sequence[ToolOutput]) -> None:
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
    return wire.structure(seen, _Head, response).version, wire.mapping(seen.get("defaults"))


@frozen
class _Head:
    version: int


def _post_run(
    conversation_id: str, op_id: str, version: int, payload: Mapping[str, Any], options: Mapping[str, Any]
) -> Flow[Run[NarrativeRun]]:
    """Post a run; a repeated `client_op_id` gives the first run back, so a lost answer is asked for again."""
    body = {"client_op_id": op_id, "expected_version": version, "payload": payload}
    body.update({key: value for key, value in options.items() if value})
    path = wire.path("agents", "conversations", conversation_id, "runs")
    return parse_run((yield Request("POST", path, json=body, idempotent=True)))


def detail(raw: Mapping[str, Any]) -> NarrativeRun:
    """Return a run's JSON object as `NarrativeRun`."""
    return codec.structure(raw, NarrativeRun)


def parse_run(response: Response) -> Run[NarrativeRun]:
    """Return the run in the answer to a request."""
    raw = wire.read_object(response)
    seen = wire.structure(raw, NarrativeRun, response)
    status = STATUS.get(seen.status, RunStatus.RUNNING)  # an unknown word: in flight until the deadline
    calls = seen.pending_tool_calls if status is RunStatus.REQUIRES_ACTION else ()
    if status is RunStatus.REQUIRES_ACTION and not calls:
        raise ProtocolError(f"run {seen.id} requires action but names none @ $.pending_tool_calls")
    error = seen.error if status is RunStatus.FAILED else None
    return Run(
        wire.ref(seen.id, seen.conversation_id),
        status,
        seen.status,
        actions=tuple(Action(call.tool_use_id, call.name, call.arguments) for call in calls),
        output=seen.final_text if seen.final_text is not None else seen.final_structured_output,
        failure=_failure(seen, error) if status is RunStatus.FAILED else None,
        usage=Usage(seen.usage.prompt_tokens or 0, seen.usage.completion_tokens or 0) if seen.usage else None,
        progress=Progress(len(seen.submitted_inference_job_ids), seen.effective_config.max_iterations),
        poll_after=wire.retry_after(response.headers) if status.in_flight else None,
        vendor=NAME,
        raw=JsonText(response.body),
    )


def _failure(seen: NarrativeRun, error: RunFault | None) -> Failure:
    return Failure(error.type, error.message) if error else Failure(seen.status)


def timing_group(run: Run[NarrativeRun]) -> str:
    """Return the model: what a run takes depends on it more than on anything else that is known before."""
    return wire.first_text(wire.mapping(run.raw.get("effective_config")), "model") or ""


def times(run: Run[NarrativeRun]) -> tuple[datetime | None, datetime | None]:
    """Return when a run began and ended (get-a-runs-current-state)."""
    return run.detail.started_at, run.detail.completed_at


def handler_names(action: Action) -> Sequence[str]:
    """Return the wire name, and the part after its first dash (errors/unknown-tool-alias)."""
    _, dash, name = action.name.partition("-")
    return (action.name, name) if dash else (action.name,)
