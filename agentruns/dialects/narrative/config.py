"""What the caller declares: a conversation's configuration, tools, and the choice among them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import Attribute, field, frozen

from agentruns import check
from agentruns.errors import ConfigurationError
from agentruns.tools import Tools, ToolsLike

TEXT_SCHEMA: Final[Mapping[str, Any]] = {
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


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
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
