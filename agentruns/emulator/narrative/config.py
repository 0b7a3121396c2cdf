"""The configuration rules: merge, check, and look up the tools it declares."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec
from attrs import frozen

from agentruns.emulator.schema import JSON, example, misfit
from agentruns.emulator.script import Call, Tool

from .bodies import Config, SpecificTool, ToolBody, ToolChoice
from .errors import bad_request, problem

Revision: TypeAlias = Literal["A", "B"]
"""The pages exist in two states: A declares client_tools under aliases, B declares tools by bare names."""

_ALIAS: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9]{0,7}")
_LONGEST: Final = 64
_REQUIRED: Final = ("model", "data_plane_id", "max_iterations", "output_format_schema")


class ModelError(Exception):
    """The model called a tool that cannot be called; the run fails with this type."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@frozen
class Declared:
    """One declared tool; `wire` is the name in tool_use blocks and pending_tool_calls."""

    wire: str
    body: ToolBody
    server_side: bool


@frozen
class Resolved:
    """One call of the model, matched to its declaration."""

    wire: str
    arguments: Mapping[str, JSON]
    server_side: bool
    result: JSON
    is_error: bool


def complete(config: Config, revision: Revision) -> Config:
    """Fill in what may be left out; a missing field without which no run can be made is the plain 400."""
    given = {name: getattr(config, name) for name in config.__struct_fields__}
    if missing := [name for name in _REQUIRED if given[name] is None]:
        raise bad_request(f"Object missing required field `{missing[0]}` - at `$.defaults`")
    filled = {"execution_cluster": "shared", "max_tokens": 2048, "temperature": 0, "mcp_servers": []}
    if config.client_tools is None and config.tools is None:
        filled["client_tools" if revision == "A" else "tools"] = []
    return msgspec.structs.replace(config, **{name: v for name, v in filled.items() if given[name] is None})


def without_other_tools(config: Config, revision: Revision) -> Config:
    """Drop the list of tools that this revision of the API does not know, as it drops any unknown field."""
    return msgspec.structs.replace(config, **{"tools" if revision == "A" else "client_tools": None})


def merged(defaults: Config, override: Config | None) -> Config:
    """Replace every field the override sets, lists as a whole (start-a-new-run-on-the-conversation)."""
    if override is None:
        return defaults
    changes = {name: v for name in override.__struct_fields__ if (v := getattr(override, name)) is not None}
    if "tools" in changes:
        changes["client_tools"] = None
    elif "client_tools" in changes:
        changes["tools"] = None
    return msgspec.structs.replace(defaults, **changes)


def check(config: Config, revision: Revision) -> None:
    """Raise the first documented 400 of the configuration."""
    servers = [server.alias for server in config.mcp_servers or ()]
    groups = [group.alias for group in config.client_tools or ()]
    # errors/invalid-tool-alias
    if bad := [alias for alias in servers + groups if not _ALIAS.fullmatch(alias)]:
        raise problem("invalid-tool-alias", ", ".join(bad))
    # errors/duplicate-tool-alias: over both lists on the older page, within mcp_servers on the later one
    scope = "across mcp_servers + client_tools" if revision == "A" else "within mcp_servers"
    if dupes := _repeated(servers + groups if revision == "A" else servers):
        raise problem("duplicate-tool-alias", ", ".join(dupes), scope=scope)
    # errors/tool-name-too-long: alias, dash and name together
    if long := [tool.wire for tool in declared(config) if "-" in tool.wire and len(tool.wire) > _LONGEST]:
        raise problem("tool-name-too-long", ", ".join(long))
    names = [tool.name for tool in config.tools or ()]
    # errors/invalid-caller-tool-name
    if bad := [name or "''" for name in names if not name or "-" in name or len(name) > _LONGEST]:
        raise problem("invalid-caller-tool-name", ", ".join(bad))
    # errors/duplicate-caller-tool-name
    if dupes := _repeated(names):
        raise problem("duplicate-caller-tool-name", ", ".join(dupes))


def check_choice(choice: ToolChoice | None, config: Config) -> str | None:
    """Raise the 400 of a tool_choice that names what is not there; return the wire name of a forced tool."""
    if not isinstance(choice, SpecificTool):
        return None
    if choice.mcp_alias is None:
        for tool in declared(config):
            if not tool.server_side and choice.name in {tool.wire, tool.body.name}:
                return tool.wire
        raise problem("unknown-tool-choice-name", choice.name)  # errors/unknown-tool-choice-name
    server = next((s for s in config.mcp_servers or () if s.alias == choice.mcp_alias), None)
    if server is None:  # errors/unknown-tool-choice-mcp-alias: looked up in the effective list
        raise problem("unknown-tool-choice-mcp-alias", choice.mcp_alias)
    name = choice.name.removeprefix(f"{server.alias}-")
    if server.tools is not None and name not in {tool.name for tool in server.tools}:
        raise problem("unknown-tool-choice-name", choice.name)
    return f"{server.alias}-{name}"


def check_discovery(config: Config, unreachable: Collection[str]) -> None:
    """Raise errors/mcp-discovery-failed for servers that do not answer tools/list."""
    if silent := [f"{s.alias} ({s.url})" for s in config.mcp_servers or () if s.url in unreachable]:
        raise problem("mcp-discovery-failed", ", ".join(silent))


def declared(config: Config) -> list[Declared]:
    """List the declared tools: the caller's first, then those of MCP servers."""
    tools = [Declared(tool.name, tool, server_side=False) for tool in config.tools or ()]
    for group in config.client_tools or ():
        tools += [Declared(f"{group.alias}-{tool.name}", tool, server_side=False) for tool in group.tools]
    for server in config.mcp_servers or ():
        tools += [Declared(f"{server.alias}-{tool.name}", tool, server_side=True) for tool in server.tools or ()]
    return tools


def for_prompt(config: Config) -> tuple[Tool, ...]:
    """Tell a script which tools there are."""
    return tuple(
        Tool(
            name=tool.wire,
            description=tool.body.description,
            input_schema=tool.body.input_schema,
            server_side=tool.server_side,
        )
        for tool in declared(config)
    )


def resolve(call: Call, config: Config) -> Resolved:
    """Match a scripted call to a declared tool, by wire name or by the tool's own name."""
    tools = declared(config)
    named = [tool for tool in tools if tool.wire == call.name] or [
        tool for tool in tools if tool.body.name == call.name and tool.server_side == call.server_side
    ]
    if named:
        return _of_declared(call, named[0])
    return Resolved(_discovered(call, config), call.arguments or {}, True, call.result, call.is_error)


def _of_declared(call: Call, tool: Declared) -> Resolved:
    arguments = call.arguments
    if arguments is None:
        invented = example(tool.body.input_schema)
        arguments = invented if isinstance(invented, Mapping) else {}
    # errors/mcp-tool-validation
    if tool.server_side and (reason := misfit(tool.body.input_schema, dict(arguments))):
        raise ModelError("ToolValidation", f"arguments of {tool.wire} do not fit its input_schema: {reason}")
    return Resolved(tool.wire, arguments, tool.server_side, call.result, call.is_error)


def _discovered(call: Call, config: Config) -> str:
    """Name a tool of a server without a pinned catalog; names are split at the first dash."""
    alias, dash, name = call.name.partition("-")
    servers = {server.alias: server for server in config.mcp_servers or ()}
    open_servers = [server.alias for server in servers.values() if server.tools is None]
    if not dash and call.server_side and open_servers:
        return f"{open_servers[0]}-{call.name}"
    if not dash or not name or not _ALIAS.fullmatch(alias):  # errors/malformed-tool-name
        raise ModelError("AgentLoopMalformedToolName", f"the model called {call.name!r}, which no tool is named")
    if alias in open_servers:
        return call.name
    if alias in servers:  # errors/mcp-unknown-tool
        raise ModelError("UnknownTool", f"MCP server {alias} has no tool {name!r} (-32601)")
    # errors/unknown-tool-alias
    raise ModelError("AgentLoopUnknownToolAlias", f"the model called {call.name!r}; alias {alias!r} is not registered")


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
