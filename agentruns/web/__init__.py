"""
A run for those who look at it over the web: states as server-sent events, one run followed for many watchers.

`Service` is what an app holds: it begins runs under keys, follows them, and hands over each that is over, whatever
process dies meanwhile. `Feeds` follows runs in the background and shares each among any number of watchers; `events` is
the simple case of one stream for one watcher. `agentruns.web.asgi` (Starlette, FastAPI) and `agentruns.web.aiohttp`
make responses of either; `chunks` and `HEADERS` do for any other framework.
"""

from __future__ import annotations

from agentruns.inbox import AlreadyDecidedError, Inbox, NotAskedYetError, NotPendingError, UnknownActionError

from .events import HEADERS, Event, Events, Shown, Told, chunks, encode, events, public, told, told_in_full
from .feed import Feed, Watcher
from .feeds import Feeds
from .service import OnEnd, Service

__all__ = [
    "HEADERS",
    "AlreadyDecidedError",
    "Event",
    "Events",
    "Feed",
    "Feeds",
    "Inbox",
    "NotAskedYetError",
    "NotPendingError",
    "OnEnd",
    "Service",
    "Shown",
    "Told",
    "UnknownActionError",
    "Watcher",
    "chunks",
    "encode",
    "events",
    "public",
    "told",
    "told_in_full",
]
