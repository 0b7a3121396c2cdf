"""
The names of attributes and metrics.

Those without `agentruns.` are of the OpenTelemetry conventions, for generative AI and in general, as they stood in
November 2026. The former are not yet stable.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final, TypeAlias
from urllib.parse import urlsplit

SCOPE: Final = "agentruns"
INVOKE_AGENT: Final = "invoke_agent"
EXECUTE_TOOL: Final = "execute_tool"

AGENT_NAME: Final = "gen_ai.agent.name"
ERROR_TYPE: Final = "error.type"
MODEL: Final = "gen_ai.request.model"
OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - no secret
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"

KEY: Final = "agentruns.work.key"
POLL_OUTCOME: Final = "agentruns.poll.outcome"
PREVIOUS_STATUS: Final = "agentruns.run.previous_status"
RUN_ID: Final = "agentruns.run.id"
STARTED: Final = "agentruns.run.started"
STATUS: Final = "agentruns.run.status"
VENDOR_STATUS: Final = "agentruns.run.vendor_status"

OTHER: Final = "_OTHER"
"""The type of an error that has none."""

Roles: TypeAlias = tuple[str, str]
"""The attributes that the parent of a run and its kind go into."""

DEFAULT_ROLES: Final[Roles] = ("agentruns.run.parent", "agentruns.run.kind")
"""Those of a vendor that does not name its own."""

Attributes: TypeAlias = Mapping[str, str | int]


def of_client(vendor: str, base_url: str) -> dict[str, str | int]:
    """Return what is said with everything that a client records: whose it is, and where that is."""
    said: dict[str, str | int] = {PROVIDER: vendor}
    parts = urlsplit(base_url)
    if parts.hostname:
        said[SERVER_ADDRESS] = parts.hostname
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        if port is not None:
            said[SERVER_PORT] = port
    return said


@cache
def version() -> str:
    """Return the version of this package, empty where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("agentruns")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return ""
