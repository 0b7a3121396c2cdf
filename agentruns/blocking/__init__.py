"""
The same client for code that is not async: scripts, sync views, task queues.

    with blocking.connect("narrative") as client:
        run = client.result(message, tools=tools)

Each client has one event loop, in a thread of its own. Any number of threads may use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack, overload

from agentruns import _connect
from agentruns._connect import ConnectOptions
from agentruns._values.generic import DetailT, OriginT
from agentruns.dialects.protocol import Dialect
from agentruns.errors import ConfigurationError

from .client import Client
from .iterating import Batch, EventStream, Iteration, RunStream

if TYPE_CHECKING:  # imported when they are first used
    from agentruns.dialects import a2a, conduit, langgraph, middesk, narrative, openai_responses, origami

__all__ = ["Batch", "Client", "EventStream", "Iteration", "RunStream", "connect"]


@overload
def connect(
    dialect: Literal["narrative"], **options: Unpack[ConnectOptions]
) -> Client[narrative.UserMessage, narrative.NarrativeRun]: ...
@overload
def connect(
    dialect: Literal["middesk"], **options: Unpack[ConnectOptions]
) -> Client[middesk.RunRequest, middesk.MiddeskRun]: ...
@overload
def connect(
    dialect: Literal["origami"], **options: Unpack[ConnectOptions]
) -> Client[origami.Prompt, origami.RunDetail]: ...
@overload
def connect(
    dialect: Literal["conduit"], **options: Unpack[ConnectOptions]
) -> Client[conduit.Dispatch, conduit.ConduitRun]: ...
@overload
def connect(
    dialect: Literal["langgraph"], **options: Unpack[ConnectOptions]
) -> Client[langgraph.Invocation, langgraph.GraphRun]: ...
@overload
def connect(
    dialect: Literal["openai_responses"], **options: Unpack[ConnectOptions]
) -> Client[openai_responses.ResponseRequest, openai_responses.ResponseDetail]: ...
@overload
def connect(dialect: Literal["a2a"], **options: Unpack[ConnectOptions]) -> Client[a2a.Send, a2a.Task]: ...
@overload
def connect(dialect: str, **options: Unpack[ConnectOptions]) -> Client: ...
@overload
def connect(dialect: Dialect[OriginT, DetailT], **options: Unpack[ConnectOptions]) -> Client[OriginT, DetailT]: ...
def connect(dialect: Dialect[OriginT, DetailT] | str, **options: Unpack[ConnectOptions]) -> Client[OriginT, DetailT]:
    """
    Return a client of one vendor, to be opened with `with`; the options are those of `agentruns.connect`.

    Raise `ConfigurationError` as that does, and for a *session*, which would belong to another event loop.
    """
    if options.get("session") is not None:
        raise ConfigurationError(
            "a blocking client has an event loop of its own, to which no session of yours can belong; leave it out",
            field="session",
        )
    return Client(_connect.connect(dialect, **options))
