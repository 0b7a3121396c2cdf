"""Starting runs and reading them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from attrs import Attribute, field, frozen

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request, Response
from agentruns._values.generic import Json
from agentruns._values.minted import MINTED
from agentruns._values.run import Run, RunRef, RunStatus
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError

from .config import ToolChoice, given
from .objects import Conversation, NarrativeRun
from .states import STATUS, parse_run

OVERRIDABLE: Final = (
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


def check_override(where: str, value: Any) -> None:
    """Refuse what a run cannot override: `system_prompt` is pinned with the conversation (start-run page)."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where} is {value!r}; it must be a mapping, such as a dict")
    unknown = sorted(map(str, set(value) - set(OVERRIDABLE)))
    if unknown:
        raise ConfigurationError(
            f"config_override has {', '.join(unknown)}, which a run cannot override; it may have "
            f"{', '.join(OVERRIDABLE)}"
        )


def check_choice(where: str, value: Any) -> None:
    """Refuse what is no choice among tools."""
    if value is not None and not isinstance(value, ToolChoice | Mapping):
        raise ConfigurationError(
            f"{where} is {value!r}; it must be narrative.AUTO, narrative.ANY_TOOL, "
            "narrative.specific_tool(name), or a mapping as the vendor documents it"
        )


def _overridable(_: object, __: object, value: Any) -> None:
    check_override("UserMessage.config_override", value)


def _choice(_: object, __: object, value: Any) -> None:
    check_choice("UserMessage.tool_choice", value)


def as_sent(name: str, value: Any) -> Mapping[str, Json]:
    """Return an option of a run as its request has it; raise `ConfigurationError` for what JSON cannot carry."""
    return given(codec.to_jsonable(value, name)) if value else {}


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

    conversation_id: str = field(validator=check.not_empty, metadata={"help": "id of the conversation"})
    text: str = field(validator=check.not_empty, metadata={"help": "what the user says"})
    tool_choice: ToolChoice | Mapping[str, Json] | None = field(
        default=None, kw_only=True, validator=_choice, metadata={"help": "which tools the model may or must call"}
    )
    config_override: Mapping[str, Json] | None = field(
        default=None,
        kw_only=True,
        validator=_overridable,
        metadata={"help": "fields of the configuration that differ for this run"},
    )
    expected_version: int | None = field(
        default=None,
        kw_only=True,
        validator=_version,
        metadata={"help": "version that the conversation must have; read if left out"},
    )
    client_op_id: str = field(
        factory=lambda: str(uuid4()),
        kw_only=True,
        metadata={**MINTED, "help": "UUID that makes repeated starts one run; a new one if left out"},
        validator=check.is_uuid,
    )

    @classmethod
    def of(
        cls,
        conversation: Conversation,
        text: str,
        *,
        tool_choice: ToolChoice | Mapping[str, Json] | None = None,
        config_override: Mapping[str, Json] | None = None,
    ) -> UserMessage:
        """
        Return a message to a conversation that was just created or read: its version is known, and not read again.

        Raise `ConfigurationError` for what is no `Conversation`. Where the conversation has moved since, the start
        raises `ConflictError`.
        """
        check.instance(
            "conversation", conversation, Conversation, "`await client.perform(create_conversation(config))`"
        )
        return cls(
            conversation.id,
            text,
            tool_choice=tool_choice,
            config_override=config_override,
            expected_version=conversation.version,
        )


def start(origin: UserMessage, *, words: Mapping[str, RunStatus] = STATUS) -> Flow[Run[NarrativeRun]]:
    """Start a run with a user's message (start-a-new-run-on-the-conversation)."""
    options = {
        "tool_choice": as_sent("UserMessage.tool_choice", origin.tool_choice),
        "config_override": as_sent("UserMessage.config_override", origin.config_override),
    }
    version = origin.expected_version
    if version is None:
        version = (yield from read_head(origin.conversation_id))[0]
    payload = {"kind": "user_message", "text": origin.text}
    response = yield from post_run(origin.conversation_id, origin.client_op_id, version, payload, options)
    return parse_run(response, words=words)


def fetch(
    ref: RunRef, params: Mapping[str, str], *, words: Mapping[str, RunStatus] = STATUS
) -> Flow[Run[NarrativeRun]]:
    """Read a run (get-a-runs-current-state); the conversation is not needed."""
    return parse_run((yield Request("GET", wire.path("agents", "runs", ref.id), params=params)), words=words)


def read_head(conversation_id: str) -> Flow[tuple[int, Mapping[str, Json]]]:
    """Read a conversation's current version and its defaults."""
    response = yield Request("GET", wire.path("agents", "conversations", conversation_id))
    seen = wire.read_object(response)
    return wire.structure(seen, ConversationHead, response).version, wire.mapping(seen.get("defaults"))


@frozen
class ConversationHead:
    """What of a conversation a start needs."""

    version: int


def post_run(
    conversation_id: str, op_id: str, version: int, payload: Mapping[str, Json], options: Mapping[str, Json]
) -> Flow[Response]:
    """Post a run; a repeated `client_op_id` gives the first run back, so a lost answer is asked for again."""
    body = {"client_op_id": op_id, "expected_version": version, "payload": payload}
    body.update({key: value for key, value in options.items() if value})
    path = wire.path("agents", "conversations", conversation_id, "runs")
    return (yield Request("POST", path, json=body, idempotent=True))
