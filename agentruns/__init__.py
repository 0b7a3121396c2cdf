"""One small, typed, correct async client for agent-run APIs: start a run, follow its states, answer its tools."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import dialects as _dialects
from ._api.limiter import RateLimiter
from ._api.retry import Backoff, Retry, Schedule
from ._connect import ConnectOptions, connect
from ._following.batch import Batch
from ._following.events import EventStream
from ._following.options import OnCancel, StreamOptions
from ._following.progress import BatchProgress, progress_bar
from ._following.stream import RunStream
from ._keeping.work import Changed, Unfinished
from ._polling.stats import Stats
from ._values.auth import Auth
from ._values.exchange import RateLimit, ServerEvent, Transport
from ._values.generic import Json
from ._values.run import Action, Failure, Outcome, Progress, Run, RunRef, RunStatus, ToolOutput, Usage
from .client import Client
from .dialects.protocol import Dialect
from .errors import (
    ActionRequiredError,
    AgentRunsError,
    AlreadyAnsweredError,
    AnswerIgnoredError,
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
from .tools import Tools, ToolSchema, ToolsLike

if TYPE_CHECKING:
    from .dialects import a2a as a2a
    from .dialects import conduit as conduit
    from .dialects import langgraph as langgraph
    from .dialects import middesk as middesk
    from .dialects import narrative as narrative
    from .dialects import openai_responses as openai_responses
    from .dialects import origami as origami
    from .inbox import Inbox, NotPendingError, Parked

__all__ = [  # noqa: RUF022 - grouped as the documentation is
    "connect",
    "Client",
    "Dialect",
    "narrative",
    "middesk",
    "origami",
    "conduit",
    "openai_responses",
    "a2a",
    "langgraph",
    "Run",
    "RunRef",
    "RunStatus",
    "RunStream",
    "EventStream",
    "ServerEvent",
    "Action",
    "ToolOutput",
    "Failure",
    "Usage",
    "Progress",
    "ConnectOptions",
    "Auth",
    "Transport",
    "StreamOptions",
    "OnCancel",
    "Outcome",
    "Batch",
    "BatchProgress",
    "progress_bar",
    "Tools",
    "ToolsLike",
    "ToolSchema",
    "Inbox",
    "Parked",
    "Retry",
    "Backoff",
    "Schedule",
    "RateLimit",
    "RateLimiter",
    "Stats",
    "Unfinished",
    "Changed",
    "Json",
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
    "AlreadyAnsweredError",
    "InvalidRequestError",
    "RateLimitedError",
    "QuotaError",
    "ServerError",
    "RunError",
    "RunFailedError",
    "ActionRequiredError",
    "AnswerIgnoredError",
    "TooManyResumesError",
    "StalledError",
    "ToolOutcomeUnknownError",
    "DeadlineExceededError",
    "NotPendingError",
    "ToolError",
]


if not TYPE_CHECKING:  # to a type checker, a name that is misspelled would be one that this function gives

    def __getattr__(name: str) -> Any:
        """Import what not every program needs, when it is first asked for: a vendor's module, and the inbox."""
        if name in _dialects.NAMES:
            return import_module(f"{__name__}.dialects.{name}")
        if name in {"Inbox", "NotPendingError", "Parked"}:
            return getattr(import_module(f"{__name__}.inbox"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
