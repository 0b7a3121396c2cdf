"""A response of events for Starlette and FastAPI, by sse-starlette."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING

import anyio

from agentruns import _extras as extras
from agentruns.errors import NotFoundError

from .events import HEADERS, PING, Event, steps, told
from .feed import Watcher

if TYPE_CHECKING:  # extras, imported when they are first used
    from sse_starlette import ServerSentEvent
    from starlette.background import BackgroundTask
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

SEND_SECONDS = 120.0
"""How long a client may take nothing of what it is sent before it is given up."""

GRACE_SECONDS = 1.0
"""How long a response may take to end properly when the server stops, before it is cut off."""


def sse_response(
    events: AsyncGenerator[Event, None],
    *,
    ping: float = PING,
    send_timeout: float | None = SEND_SECONDS,
    headers: Mapping[str, str] | None = None,
    background: BackgroundTask | None = None,
) -> Response:
    """
    Return the response that sends *events*: of `feeds.watch(...)`, `feed.watch(...)` or `events(stream)`.

    A heartbeat goes out every *ping* seconds; a client that takes nothing for *send_timeout* seconds is given up. When
    the client leaves, or the server stops, the events are closed. A client that has seen the end is answered 204, and
    one that asks for a run that there is not, 404.
    Raise `ConfigurationError` if the extra `web` is not installed.
    """
    with extras.require("web", "events for Starlette need"):
        from sse_starlette import EventSourceResponse
        from starlette.responses import Response

    if isinstance(events, Watcher) and events.is_done:
        return Response(status_code=204, background=background)
    stop = anyio.Event()
    response = EventSourceResponse(
        _sent(events, stop),
        headers={**HEADERS, **(headers or {})},
        ping=ping,
        sep="\n",
        send_timeout=send_timeout,
        background=background,
        shutdown_event=stop,
        shutdown_grace_period=GRACE_SECONDS,
    )
    return _once_ready(events, response) if isinstance(events, Watcher) else response


def _once_ready(watcher: Watcher, response: Response) -> Response:
    """Return what sends a response once there is something to send, or says that there is no such run."""
    from starlette.responses import JSONResponse, Response

    class Ready(Response):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                if scope["method"] != "HEAD":
                    await watcher.ready()
            except NotFoundError as error:
                await JSONResponse(told(error), 404, background=response.background)(scope, receive, send)
                return
            await response(scope, receive, send)

    made = Ready(status_code=response.status_code, background=response.background)
    made.raw_headers = response.raw_headers
    return made


async def _sent(events: AsyncGenerator[Event, None], stop: anyio.Event) -> AsyncGenerator[ServerSentEvent, None]:
    """Say each event in the library's words; a generator, since that is closed when the response is cut off."""
    from sse_starlette import ServerSentEvent

    taken = steps(events, stop=stop)
    try:
        async for event in taken:
            if event is not None:
                yield ServerSentEvent(event.data, event=event.name, id=event.id, sep="\n")
    finally:
        await taken.aclose()
