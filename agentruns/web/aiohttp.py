"""A response of events for aiohttp.web, by aiohttp-sse."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, WeakSet

import anyio
from aiohttp import web

from agentruns import _extras as extras
from agentruns.errors import NotFoundError

from .events import PING, Event, told
from .feed import Watcher

if TYPE_CHECKING:  # an extra, imported when it is first used
    from aiohttp_sse import EventSourceResponse

SEND_SECONDS = 120.0
"""How long a client may take nothing of what it is sent before it is given up."""

_open: Final[WeakKeyDictionary[web.Application, WeakSet[EventSourceResponse]]] = WeakKeyDictionary()


async def sse_response(
    request: web.Request,
    events: AsyncGenerator[Event, None],
    *,
    ping: float = PING,
    send_timeout: float | None = SEND_SECONDS,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """
    Send *events*, of `feeds.watch(...)`, `feed.watch(...)` or `events(stream)`, and return the response when they end.

    A heartbeat goes out every *ping* seconds; a client that takes nothing for *send_timeout* seconds is given up. The
    events are closed when the client has left: seen by the heartbeat that does not reach it, or at once by a server
    made with `handler_cancellation=True`. A client that has seen the end is answered 204, and one that asks for a run
    that there is not, 404. `end_watching` ends the responses when the application stops. Raise `ConfigurationError` if
    the extra `web` is not installed.
    """
    with extras.require("web", "events for aiohttp need"):
        from aiohttp_sse import EventSourceResponse

    if isinstance(events, Watcher) and events.is_done:
        return web.Response(status=204)
    if isinstance(events, Watcher) and request.method != "HEAD":
        try:
            await events.ready()
        except NotFoundError as error:
            return web.json_response(told(error), status=404)
    response = EventSourceResponse(ping_interval=ping, send_timeout=send_timeout, sep="\n")
    response.headers.update(headers or {})  # after its own, which they may take the place of
    async with aclosing(events):
        await response.prepare(request)
        with _noted(request, response):
            async with response, anyio.create_task_group() as group:
                group.start_soon(_leave, response, group.cancel_scope)
                # The heartbeats end when one does not arrive, and when a send does not; both are told by `_leave`.
                with suppress(ConnectionResetError, TimeoutError):
                    async for event in events:
                        await response.send(event.data, id=event.id, event=event.name)
                group.cancel_scope.cancel()
    return response


async def _leave(response: EventSourceResponse, scope: anyio.CancelScope) -> None:
    """End the sending when the client has left, or the application stops."""
    await response.wait()
    scope.cancel()


async def end_watching(app: web.Application) -> None:
    """
    End every open response of an application that stops; use it as `app.on_shutdown.append(end_watching)`.

    Without it the server waits for watchers, a minute unless told otherwise, before it cuts them off.
    """
    for response in tuple(_open.get(app, ())):
        response.stop_streaming()


@contextmanager
def _noted(request: web.Request, response: EventSourceResponse) -> Iterator[None]:
    """Know an open response by each application that the request came through."""
    apps = request.match_info.apps
    for app in apps:
        _open.setdefault(app, WeakSet()).add(response)
    try:
        yield
    finally:
        for app in apps:
            _open[app].discard(response)
