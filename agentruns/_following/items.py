"""What is done with one item of a batch: from what was given to its outcome."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from attrs import frozen

from agentruns._api.admission import PLACE, Entrance, Place
from agentruns._handlers.items import work_for
from agentruns._keeping.digest import request_digest
from agentruns._values.run import Outcome, Run
from agentruns.errors import AgentRunsError, ConfigurationError, DeadlineExceededError

from .ending import last_state
from .options import StreamOptions, Timeout
from .turn import AGAIN_SECONDS


class NotBegunError(AgentRunsError):
    """
    Report an item that is not begun, and that no further one will be: there is nothing wrong with it.

    *because* is what every further one would meet, None where somebody has stopped it.
    """

    def __init__(self, because: Exception | None = None) -> None:
        super().__init__(because)
        self.because = because

    def __str__(self) -> str:
        return f"it was not begun: {self.because or 'no more are'}"


class Followed(Protocol):
    """A run that is followed to its end: by a `RunStream`, or by another process."""

    @property
    def run(self) -> Run | None:
        """Return the last state that was seen, None before the first."""
        ...

    async def result(self) -> Run:
        """Return the last state of the run, or raise what is in the way of its completion."""
        ...

    async def aclose(self) -> None:
        """Follow the run no more."""
        ...


@frozen
class ItemRunner:
    """
    What is done with each item of a batch.

    *follow* opens the stream of an origin, under a key or none, with the digest of what is asked for, and options.
    *key* names an item. *prepare* makes its origin; without it the item is the origin. *resolve*, of a key and a digest
    of what is asked for, returns under which key the item goes on in the journal, and what started it there before, if
    anything did: then nothing is prepared. It is None where there is no journal. *options* gives the options of an
    item's stream: their timeout, in seconds, is that of *prepare*, too, and their digest is by default that of the
    item. With *keep*, what started an item before takes the place of an item that has changed. *entrance* says when the
    next item may begin; without one it may at once. *check_open* raises where nothing may begin, such as before the
    client is open.
    """

    follow: Callable[[Any, str | None, str | None, StreamOptions], Followed]
    key: Callable[[Any], str] | None = None
    prepare: Callable[[Any], Any] | None = None
    resolve: Callable[[str, str | None], Awaitable[tuple[str, Any]]] | None = None
    options: Callable[[Any], StreamOptions] = lambda _: {}
    entrance: Entrance | None = None
    keep: bool = False
    check_open: Callable[[], object] = lambda: None

    def __attrs_post_init__(self) -> None:
        for name, given in (("key", self.key), ("prepare", self.prepare), ("options", self.options)):
            if given is not None and not callable(given):
                raise ConfigurationError(f"{name} is {given!r}; it must be a function of an item")

    async def _prepared(self, prepare: Callable[[Any], Any], item: Any, timeout: Timeout) -> Any:
        """
        Return what *prepare* makes of an item.

        Raise `DeadlineExceededError` if that takes longer than the seconds of *timeout*. Waiting for a vendor that does
        not answer is no part of them.
        """
        seconds = None if isinstance(timeout, str) else timeout
        limit = asyncio.timeout(None)
        try:
            async with limit:
                with _ending(limit, seconds):
                    made = prepare(item)
                    return await made if inspect.isawaitable(made) else made
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceededError(None, f"`prepare` was not done after {seconds:g} s", begun=False) from None

    async def run(
        self, index: int, item: Any, open_streams: dict[int, Followed | None], place: Place | None
    ) -> Outcome:
        """
        Run one item, which has that *place*, to its end, and say how it ended, in a task of its own.

        Raise `NotBegunError` where it has no end, since whoever was to follow it begins nothing more.
        """
        key: str | None = None
        origin, stream = item, None
        PLACE.set(place)
        work_for(item)
        try:
            key = None if self.key is None else self.key(item)
            options: StreamOptions = self.options(item)
            digest, name, known = options.get("digest"), None, None
            if key is not None and self.resolve is not None:
                digest = digest or request_digest(item)
                name, known = await self.resolve(key, digest)
            if known is not None:
                if self.prepare is not None or self.keep:
                    origin = known
            elif self.prepare is not None:
                origin = await self._prepared(self.prepare, item, options.get("timeout"))
            stream = open_streams[index] = self.follow(origin, name, digest, options)
            try:
                return Outcome(index, key, origin, await stream.result(), item=item)
            finally:
                await stream.aclose()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error: Exception = AgentRunsError("the wait was cancelled by something within it, such as a handler")
        except NotBegunError:
            raise
        except Exception as caught:
            error = caught
        return Outcome(index, key, origin, last_state(None if stream is None else stream.run, error), error, item=item)


@contextmanager
def _ending(limit: asyncio.Timeout, seconds: float | None) -> Iterator[None]:
    """Have *limit* come after so many seconds, beside those by which the place of the row is excused."""
    if seconds is None:
        yield
        return
    loop, place = asyncio.get_running_loop(), PLACE.get()
    began = loop.time()
    timer: asyncio.TimerHandle | None = None

    def look() -> None:
        nonlocal timer
        now = loop.time()
        at = began + seconds + (0.0 if place is None else place.excused(now))
        if at <= now:
            limit.reschedule(now)
        else:
            timer = loop.call_at(at if at < math.inf else now + AGAIN_SECONDS, look)

    look()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
