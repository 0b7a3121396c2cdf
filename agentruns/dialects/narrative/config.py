"""What the caller declares: a conversation's configuration, tools, and the choice among them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import Attribute, field, frozen
from attrs.validators import optional

from agentruns._values import check
from agentruns._values.generic import Json
from agentruns.errors import ConfigurationError
from agentruns.tools import Tools, ToolsLike

TEXT_SCHEMA: Final[Mapping[str, Json]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["text"],
    "properties": {"text": {"type": "string"}},
}
"""The `output_format_schema` of a plain text answer: `final_text` is taken from its `text`."""

_ALIAS: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9]{0,7}")  # errors/invalid-tool-alias
_LONGEST_TOOL_NAME: Final = 64  # errors/tool-name-too-long, errors/invalid-caller-tool-name


def _alias(owner: object, _: Attribute[str], value: Any) -> None:
    if not isinstance(value, str) or not _ALIAS.fullmatch(value):
        raise ConfigurationError(
            f"{type(owner).__name__}.alias is {value!r}; it must be 1 to 8 letters and digits, a letter first"
        )


def _text(owner: object, attribute: Attribute[Any], value: Any) -> None:
    check.text_or_none(f"{type(owner).__name__}.{attribute.name}", value)


@frozen
class Tool:
    """A tool as the model sees it; `input_schema` is a JSON Schema of its arguments."""

    name: str = field(validator=check.not_empty)
    description: str = field(validator=_text)
    input_schema: Mapping[str, Json] = field(validator=check.is_object)
    strict: bool | None = field(default=None, validator=optional(check.is_boolean))


_TOOLS: Final = check.sequence_of(Tool, "narrative.Tool(...), or what narrative.flat_tools(tools) makes of handlers")


@frozen
class ClientTools:
    """Tools that the caller runs (revision A); the model calls them `alias-name`."""

    alias: str = field(validator=_alias)
    tools: Sequence[Tool] = field(validator=_TOOLS)

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
    tools: Sequence[Tool] | None = field(default=None, validator=optional(_TOOLS))
    description: str | None = field(default=None, validator=_text)


_SERVERS: Final = check.sequence_of(McpServer, "narrative.McpServer(alias, url)")
_CLIENT_TOOLS: Final = check.sequence_of(ClientTools, "narrative.client_tools(tools, alias=...)")


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
    output_format_schema: Mapping[str, Json] = field(validator=check.is_object)
    execution_cluster: str = field(default="shared", validator=check.not_empty)
    compute_pool_id: str | None = field(default=None, validator=optional(check.not_empty))
    temperature: float = 0.0
    mcp_servers: Sequence[McpServer] = field(default=(), validator=_SERVERS)
    client_tools: Sequence[ClientTools] | None = field(default=None, validator=optional(_CLIENT_TOOLS))
    tools: Sequence[Tool] | None = field(default=None, validator=optional(_TOOLS))

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
    name: str | None = field(default=None, validator=optional(check.not_empty))
    mcp_alias: str | None = field(default=None, validator=optional(check.not_empty))


AUTO: Final = ToolChoice(kind="auto")
ANY_TOOL: Final = ToolChoice(kind="any")


def specific_tool(name: str, *, mcp_alias: str | None = None) -> ToolChoice:
    """Ask for one tool: a tool of the MCP server called *mcp_alias*, without one a tool that the caller declared."""
    return ToolChoice(kind="specific_tool", name=name, mcp_alias=mcp_alias)


def client_tools(tools: ToolsLike, *, alias: str) -> ClientTools:
    """
    Return the handlers in *tools* as the declaration of revision A.

    Raise `ConfigurationError` where there is only a default handler, which has no name for a model to call.
    """
    return ClientTools(alias, _declared(tools, strict=True))


def flat_tools(tools: ToolsLike) -> tuple[Tool, ...]:
    """
    Return the handlers in *tools* as the declaration of revision B.

    Raise `ConfigurationError` for a name with a dash, or of more than 64 characters (errors/invalid-caller-tool-name),
    and where there is only a default handler, which has no name for a model to call.
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
    known = Tools.of(tools)
    schemas = known.schemas()
    if not schemas and known.find(()) is not None:
        raise ConfigurationError(
            "there is only a default handler, and nothing to tell a model of: it has neither a name nor parameters. "
            "Name what the model may call: `tools.add(function)`, or {'name': function}"
        )
    return tuple(Tool(each.name, each.description, each.input_schema, strict=strict) for each in schemas)


def given(fields: Mapping[str, Json]) -> dict[str, Json]:
    """Drop the fields of ours that are not set, all the way down; JSON Schemas are left as they are."""
    return {
        key: value if key in {"input_schema", "output_format_schema"} else _given_value(value)
        for key, value in fields.items()
        if value is not None
    }


def _given_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return given(value)
    if isinstance(value, list | tuple):
        return [_given_value(each) for each in value]
    return value
