"""The request bodies of Narrative, decoded: wrong or missing fields become the plain 400."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias, TypeVar, cast

import msgspec
from msgspec import Meta, Struct

from agentruns.emulator.schema import JSON

from .errors import bad_request

_B = TypeVar("_B", "CreateBody", "StartBody")
_Count: TypeAlias = Annotated[int, Meta(ge=1)]


class ToolBody(Struct, frozen=True, omit_defaults=True):
    """One tool declaration."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class ServerBody(Struct, frozen=True, omit_defaults=True):
    """One MCP server; its tools are pinned in revision A, discovered in B."""

    alias: str
    url: str
    tools: list[ToolBody] | None = None
    description: str | None = None


class GroupBody(Struct, frozen=True, omit_defaults=True):
    """One alias of client-side tools (revision A)."""

    alias: str
    tools: list[ToolBody]


class Config(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`defaults`, `config_override` and `effective_config`: one type, where None means "not set"."""

    model: str | None = None
    data_plane_id: uuid.UUID | None = None
    execution_cluster: str | None = None
    compute_pool_id: uuid.UUID | None = None
    max_iterations: _Count | None = None
    max_tokens: _Count | None = None
    temperature: Annotated[int, Meta(ge=0, le=1)] | Annotated[float, Meta(ge=0, le=1)] | None = None
    output_format_schema: dict[str, Any] | None = None
    mcp_servers: list[ServerBody] | None = None
    client_tools: list[GroupBody] | None = None
    tools: list[ToolBody] | None = None


class CreateBody(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The body of POST /agents/conversations."""

    defaults: Config
    name: str | None = None
    system_prompt: str | None = None

    @property
    def config(self) -> Config | None:
        """The configuration in the body."""
        return self.defaults


class UserMessage(Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="user_message"):
    """Payload: a fresh user turn."""

    text: str


class OutputBody(Struct, frozen=True, omit_defaults=True):
    """One tool's answer; the name and type of its result field is not settled by any page."""

    tool_use_id: str
    is_error: bool = False
    content_blocks: list[dict[str, Any]] | None = None
    content: str | list[Any] | None = None


class ToolOutputs(Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="tool_outputs"):
    """Payload: the answers to the calls a run stopped for."""

    outputs: list[OutputBody]


class Auto(Struct, frozen=True, tag_field="kind", tag="auto"):
    """tool_choice: the model decides."""


class AnyTool(Struct, frozen=True, tag_field="kind", tag="any"):
    """tool_choice: the model has to call some tool."""


class SpecificTool(Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="specific_tool"):
    """tool_choice: the model has to call this tool, of an MCP server if one is named."""

    name: str
    mcp_alias: str | None = None


ToolChoice: TypeAlias = Auto | AnyTool | SpecificTool


class StartBody(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The body of POST /agents/conversations/{id}/runs."""

    client_op_id: uuid.UUID
    expected_version: Annotated[int, Meta(ge=0)]
    payload: UserMessage | ToolOutputs
    tool_choice: ToolChoice | None = None
    config_override: Config | None = None

    @property
    def config(self) -> Config | None:
        """The configuration in the body."""
        return self.config_override


def decode(kind: type[_B], content: bytes, *, strict: bool) -> _B:
    """Decode a body; strict refuses unknown fields too, otherwise they are ignored."""
    try:
        body = msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(str(error)) from error
    given = cast(JSON, msgspec.json.decode(content))
    _refuse_pinned(given)
    config = body.config
    if config is not None and config.tools is not None and config.client_tools is not None:
        # The two revisions of the pages know one of the lists each; which would win is not said, so both are refused.
        raise bad_request("tools and client_tools exclude each other")
    if strict and (unknown := _unknown(given, msgspec.to_builtins(body))):
        raise bad_request(f"unknown field {unknown}")
    return body


def builtins(body: Struct) -> dict[str, JSON]:
    """Turn a decoded value back into JSON."""
    json: dict[str, JSON] = msgspec.to_builtins(body)
    return json


def result_blocks(output: OutputBody, *, strict: bool) -> list[JSON]:
    """Normalise the answer of a tool to content blocks."""
    if output.content_blocks is not None:
        return list(output.content_blocks)
    if strict or output.content is None:
        field = "content_blocks" if strict else "content_blocks or content"
        raise bad_request(f"outputs[] of {output.tool_use_id} has no {field}")
    parts = [output.content] if isinstance(output.content, str) else output.content
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]


def outputs_under(field: str, content: bytes) -> bytes:
    """Read the results of tools from *field* alone: under any other name they are unknown, and none are there."""
    try:
        body = msgspec.json.decode(content)
        outputs = body["payload"]["outputs"]
        for item in outputs:
            item["content"] = item.pop(field, None)
            item.pop("content_blocks", None)
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        return content  # which is refused for what it is
    return msgspec.json.encode(body)


def _refuse_pinned(given: JSON) -> None:
    """Refuse what the pages say cannot be set.

    create-an-agent-conversation: company_id and user_id come from the token.
    start-a-new-run-on-the-conversation: system_prompt cannot be overridden.
    """
    body = given if isinstance(given, Mapping) else {}
    if taken := [name for name in ("company_id", "user_id") if name in body]:
        raise bad_request(f"{' and '.join(taken)} cannot be set: pinned from the token")
    override = body.get("config_override")
    if isinstance(override, Mapping) and "system_prompt" in override:
        raise bad_request("system_prompt cannot be overridden")


def _unknown(given: JSON, understood: JSON, path: str = "$") -> str | None:
    if isinstance(given, Mapping) and isinstance(understood, Mapping):
        for name, value in given.items():
            if name in understood:
                if found := _unknown(value, understood[name], f"{path}.{name}"):
                    return found
            elif value is not None and value is not False:  # these two may be an omitted default
                return f"{path}.{name}"
    elif isinstance(given, list) and isinstance(understood, list):
        pairs = enumerate(zip(given, understood, strict=True))
        return next((found for i, (a, b) in pairs if (found := _unknown(a, b, f"{path}[{i}]"))), None)
    return None
