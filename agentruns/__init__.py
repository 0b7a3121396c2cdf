"""One small, typed, correct async client for agent-run APIs: start a run, follow its states, answer its tools."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from . import dialects as _dialects
from ._api.retry import Backoff, Retry
from ._following.stream import RunStream
from ._keeping.keys import Unfinished
from ._polling.stats import Stats
from ._values.run import Action, Failure, Outcome, Progress, Run, RunRef, RunStatus, ToolOutput, Usage
from .client import Client, connect
from .dialects.protocol import Dialect
from .errors import (
    ActionRequiredError,
    AgentRunsError,
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    DeadlineExceededError,
    InvalidRequestError,
    JournalError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
    QuotaError,
    RateLimitedError,
    RunError,
    RunFailedError,
    ServerError,
    StalledError,
    ToolError,
    ToolOutcomeUnknownError,
    TooManyResumesError,
    TransportError,
    UnsupportedError,
)
from .tools import Tools

if TYPE_CHECKING:
    from .dialects import conduit as conduit
    from .dialects import middesk as middesk
    from .dialects import narrative as narrative
    from .dialects import origami as origami

__all__ = [  # noqa: RUF022 - grouped as the documentation is
    "connect",
    "Client",
    "Dialect",
    "narrative",
    "middesk",
    "origami",
    "conduit",
    "Run",
    "RunRef",
    "RunStatus",
    "RunStream",
    "Action",
    "ToolOutput",
    "Failure",
    "Usage",
    "Progress",
    "Outcome",
    "Tools",
    "Retry",
    "Backoff",
    "Stats",
    "Unfinished",
    "AgentRunsError",
    "ConfigurationError",
    "UnsupportedError",
    "TransportError",
    "OutcomeUnknownError",
    "JournalError",
    "ProtocolError",
    "APIError",
    "AuthenticationError",
    "NotFoundError",
    "ConflictError",
    "InvalidRequestError",
    "RateLimitedError",
    "QuotaError",
    "ServerError",
    "RunError",
    "RunFailedError",
    "ActionRequiredError",
    "TooManyResumesError",
    "StalledError",
    "ToolOutcomeUnknownError",
    "DeadlineExceededError",
    "ToolError",
]


def __getattr__(name: str) -> ModuleType:
    """Import a vendor's module when it is first asked for."""
    if name in _dialects.NAMES:
        return import_module(f"{__name__}.dialects.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
