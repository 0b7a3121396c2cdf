"""One small, typed, correct async client for agent-run APIs: start a run, follow its states, answer its tools."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # imported when they are first asked for: `import agentruns` stays light
    from . import client as client
    from . import dialects as dialects
    from . import errors as errors
    from . import tools as tools
    from ._api.limiter import RateLimiter as RateLimiter
    from ._api.retry import Backoff as Backoff
    from ._api.retry import Retry as Retry
    from ._api.retry import Schedule as Schedule
    from ._connect import ConnectOptions as ConnectOptions
    from ._connect import connect as connect
    from ._following.batch import Batch as Batch
    from ._following.events import EventStream as EventStream
    from ._following.options import OnCancel as OnCancel
    from ._following.options import OnEvent as OnEvent
    from ._following.options import StreamOptions as StreamOptions
    from ._following.options import Timeout as Timeout
    from ._following.progress import BatchProgress as BatchProgress
    from ._following.progress import progress_bar as progress_bar
    from ._following.stream import RunStream as RunStream
    from ._keeping.work import Changed as Changed
    from ._keeping.work import Unfinished as Unfinished
    from ._polling.stats import Stats as Stats
    from ._values.auth import Auth as Auth
    from ._values.auth import TokenSource as TokenSource
    from ._values.commands import Flow as Flow
    from ._values.exchange import RateLimit as RateLimit
    from ._values.exchange import Request as Request
    from ._values.exchange import Response as Response
    from ._values.exchange import ServerEvent as ServerEvent
    from ._values.exchange import Transport as Transport
    from ._values.generic import Json as Json
    from ._values.run import Action as Action
    from ._values.run import Failure as Failure
    from ._values.run import Origins as Origins
    from ._values.run import Outcome as Outcome
    from ._values.run import Progress as Progress
    from ._values.run import Run as Run
    from ._values.run import RunRef as RunRef
    from ._values.run import RunStatus as RunStatus
    from ._values.run import ToolOutput as ToolOutput
    from ._values.run import Usage as Usage
    from .client import Client as Client
    from .dialects import a2a as a2a
    from .dialects import conduit as conduit
    from .dialects import langgraph as langgraph
    from .dialects import middesk as middesk
    from .dialects import narrative as narrative
    from .dialects import openai_responses as openai_responses
    from .dialects import origami as origami
    from .dialects.protocol import Dialect as Dialect
    from .errors import ActionRequiredError as ActionRequiredError
    from .errors import AgentRunsError as AgentRunsError
    from .errors import AlreadyAnsweredError as AlreadyAnsweredError
    from .errors import AnswerIgnoredError as AnswerIgnoredError
    from .errors import APIError as APIError
    from .errors import AuthenticationError as AuthenticationError
    from .errors import ConfigurationError as ConfigurationError
    from .errors import ConflictError as ConflictError
    from .errors import DeadlineExceededError as DeadlineExceededError
    from .errors import InvalidRequestError as InvalidRequestError
    from .errors import JournalError as JournalError
    from .errors import NotFoundError as NotFoundError
    from .errors import OutcomeUnknownError as OutcomeUnknownError
    from .errors import ProtocolError as ProtocolError
    from .errors import QuotaError as QuotaError
    from .errors import RateLimitedError as RateLimitedError
    from .errors import RunError as RunError
    from .errors import RunFailedError as RunFailedError
    from .errors import ServerError as ServerError
    from .errors import StalledError as StalledError
    from .errors import ToolError as ToolError
    from .errors import ToolOutcomeUnknownError as ToolOutcomeUnknownError
    from .errors import TooManyResumesError as TooManyResumesError
    from .errors import TransportError as TransportError
    from .errors import UnsupportedError as UnsupportedError
    from .inbox import AlreadyDecidedError as AlreadyDecidedError
    from .inbox import Inbox as Inbox
    from .inbox import NotAskedYetError as NotAskedYetError
    from .inbox import NotPendingError as NotPendingError
    from .inbox import Parked as Parked
    from .inbox import UnknownActionError as UnknownActionError
    from .tools import Tools as Tools
    from .tools import ToolSchema as ToolSchema
    from .tools import ToolsLike as ToolsLike

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
    "TokenSource",
    "Transport",
    "StreamOptions",
    "OnCancel",
    "OnEvent",
    "Timeout",
    "Flow",
    "Request",
    "Response",
    "Origins",
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
    "AlreadyDecidedError",
    "NotAskedYetError",
    "UnknownActionError",
    "ToolError",
]


if not TYPE_CHECKING:  # to a type checker, a name that is misspelled would be one that this function gives
    _WHERE: Final = {
        "_api.limiter": ("RateLimiter",),
        "_api.retry": (
            "Backoff",
            "Retry",
            "Schedule",
        ),
        "_connect": (
            "ConnectOptions",
            "connect",
        ),
        "_following.batch": ("Batch",),
        "_following.events": ("EventStream",),
        "_following.options": (
            "OnCancel",
            "OnEvent",
            "StreamOptions",
            "Timeout",
        ),
        "_following.progress": (
            "BatchProgress",
            "progress_bar",
        ),
        "_following.stream": ("RunStream",),
        "_keeping.work": (
            "Changed",
            "Unfinished",
        ),
        "_polling.stats": ("Stats",),
        "_values.auth": ("Auth", "TokenSource"),
        "_values.commands": ("Flow",),
        "_values.exchange": (
            "RateLimit",
            "Request",
            "Response",
            "ServerEvent",
            "Transport",
        ),
        "_values.generic": ("Json",),
        "_values.run": (
            "Action",
            "Failure",
            "Origins",
            "Outcome",
            "Progress",
            "Run",
            "RunRef",
            "RunStatus",
            "ToolOutput",
            "Usage",
        ),
        "client": ("Client",),
        "dialects.protocol": ("Dialect",),
        "errors": (
            "ActionRequiredError",
            "AgentRunsError",
            "AlreadyAnsweredError",
            "AnswerIgnoredError",
            "APIError",
            "AuthenticationError",
            "ConfigurationError",
            "ConflictError",
            "DeadlineExceededError",
            "InvalidRequestError",
            "JournalError",
            "NotFoundError",
            "OutcomeUnknownError",
            "ProtocolError",
            "QuotaError",
            "RateLimitedError",
            "RunError",
            "RunFailedError",
            "ServerError",
            "StalledError",
            "ToolError",
            "ToolOutcomeUnknownError",
            "TooManyResumesError",
            "TransportError",
            "UnsupportedError",
        ),
        "tools": (
            "Tools",
            "ToolSchema",
            "ToolsLike",
        ),
        "inbox": (
            "Inbox",
            "AlreadyDecidedError",
            "NotAskedYetError",
            "NotPendingError",
            "Parked",
            "UnknownActionError",
        ),
    }
    _MODULES: Final = {name: module for module, names in _WHERE.items() for name in names}
    _VENDORS: Final = frozenset({"a2a", "conduit", "langgraph", "middesk", "narrative", "openai_responses", "origami"})

    def __getattr__(name: str) -> Any:
        """Import what a program asks for, when it first asks: attrs makes 70 classes, and few need all vendors."""
        if name in _MODULES:
            found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        elif name in _VENDORS:
            found = import_module(f"{__name__}.dialects.{name}")
        elif name in {"client", "dialects", "errors", "tools"}:
            found = import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        """Return the public names, imported or not, and none of what this module is made with."""
        return sorted(__all__)
