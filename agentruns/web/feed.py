"""
One run followed once, for any number of watchers who come and go.

`Feeds` owns what follows: each `Feed` drives one stream in a task of its own, and keeps the events that came of it.
A watcher is a place in that history and nothing more, so that a slow one costs no memory: it reads on where it is, and
finds the latest states where it was left too far behind. Every event holds the whole state, so that is no loss.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Final, Self, Unpack

from agentruns._aio.changed import Changed
from agentruns._aio.generator import AsyncGeneratorBase
from agentruns._aio.shield import run_shielded
from agentruns._aio.tasks import EXIT_SECONDS
from agentruns._following.options import StreamOptions
from agentruns._following.stream import RunStream
from agentruns._values import check
from agentruns._values.run import Run, RunRef
from agentruns.client import Client
from agentruns.errors import ConfigurationError

from .events import Event, Events, Shown, public

logger = logging.getLogger("agentruns")

HISTORY: Final = 256
"""How many events of a run are kept for those who come later."""

KEPT: Final = 1000
"""How many runs that are followed no more are kept for those who come later."""


class Feed:
    """
    A run that is followed in the background; made by `Feeds.open`.

    `run` is the last state seen, `runs` the ids of all (an answer may bring another run), `name` what it was opened
    under, `watching` how many watch it. It is iterated over by `feed.watch(...)`.
    """

    def __init__(self, feeds: Feeds, events: Events, name: str | None) -> None:
        self.name = name
        self.runs: set[str] = set()
        self.watching = 0
        self._feeds = feeds
        self._events = events
        self._history: deque[Event] = deque(maxlen=feeds.history)
        self._count = 0
        self._news = Changed()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_told = False  # the last event is the end
        self._is_over = False

    def __repr__(self) -> str:
        about = f"{self.run.id} {self.run.status}" if self.run else "of no run yet"
        return f"<Feed {about}, {self.watching} watching{', over' if self._is_over else ''}>"

    @property
    def run(self) -> Run | None:
        """Return the last state of the run."""
        return self._events.run

    @property
    def error(self) -> Exception | None:
        """Return what the stream has raised, if it has."""
        return self._events.error

    @property
    def is_over(self) -> bool:
        """Tell whether the run is followed no more."""
        return self._is_over

    @property
    def is_final(self) -> bool:
        """Tell whether the run is over, so that nothing can come of following it again."""
        return self.run is not None and self.run.status.is_over

    def watch(self, last_event_id: str | None = None) -> Watcher:
        """
        Return the events from the one after *last_event_id* on, to be iterated over: first those kept, then live.

        An id that is unknown, or of another process, means that all which is kept comes. Raise `ConfigurationError` for
        what is no text.
        """
        return Watcher(lambda: self, self, last_event_id)

    async def started(self) -> Run:
        """Wait for the first state, and count as watching meanwhile; raise what the stream raised if none ever came."""
        await self._until(lambda: self.run is not None)
        return self._last()

    async def ended(self) -> Run:
        """
        Wait until the run is followed no more, and return the last state; count as watching meanwhile.

        That is its end, or a pause without a handler, if the feed is not closed before. Raise what the stream raised.
        """
        await self._until(lambda: False)
        if self.error is not None:
            raise self.error
        return self._last()

    async def _until(self, enough: Callable[[], bool]) -> None:
        """Count as a watcher until *enough* is true or the feed is over."""
        self._joined()
        try:
            while not enough() and not self._is_over:
                await self._next()
        finally:
            self._left()

    def _last(self) -> Run:
        if self.run is not None:
            return self.run
        raise self.error or ConfigurationError("the following of this run was stopped before it had a state")

    # The task that follows --------------------------------------------------------------------------------------------

    def _begin(self, context: Context) -> asyncio.Task[None]:
        """Follow the run, in a task that sees the variables of *context*."""
        self._task = self._loop.create_task(self._follow(), context=context)
        self._settle()
        return self._task

    async def _follow(self) -> None:
        try:
            async with self._events as events:
                async for event in events:
                    if self._is_over:
                        return
                    self._add(event)
        finally:
            self.close()

    def _add(self, event: Event) -> None:
        self._history.append(event)
        self._count += 1
        self._is_told = event.name == "end"
        if event.name == "run":
            self._feeds._saw(self)
        self._wake()

    def _wake(self) -> None:
        self._news.notify()

    def close(self) -> None:
        """Tell all watchers that the feed is over, and end the stream; the remote run goes on."""
        if self._is_over:
            return
        self._is_over = True
        if not self._is_told:
            self._events.end()
        self._settle()
        self._feeds._retire(self)
        self._wake()

    # Who watches ------------------------------------------------------------------------------------------------------

    def _joined(self) -> None:
        """Count one more who watches."""
        self.watching += 1
        self._settle()

    def _left(self) -> None:
        """Count one less; the last may have the following stopped."""
        self.watching -= 1
        self._settle()

    def _leave_soon(self) -> None:
        """Count one watcher less, for one that was garbage-collected, in any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._left)

    def _settle(self) -> None:
        """Schedule the end of the following if there is no watcher, else cancel it."""
        linger = self._feeds.linger
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if linger is not None and self._task is not None and not self.watching and not self._is_over:
            self._timer = self._loop.call_later(linger, self._stop)

    def _stop(self) -> None:
        """Cancel the wait, with what the stream's `on_cancel` makes of it."""
        self._is_over = True
        self._feeds._retire(self)
        self._wake()
        if self._task is not None:
            self._task.cancel()

    # What a watcher reads ---------------------------------------------------------------------------------------------

    def _place(self, last_event_id: str | None) -> int:
        """Return how many events a client has seen that says *last_event_id*."""
        epoch, _, number = (last_event_id or "").rpartition("-")
        known = epoch == self._events.epoch and number.isascii() and number.isdecimal() and len(number) < 20
        return int(number) if known and int(number) <= self._count else 0

    def _has_told(self, last_event_id: str | None) -> bool:
        """Tell whether a client that says *last_event_id* has seen the end."""
        return self._is_told and self._place(last_event_id) == self._count

    def _after(self, place: int) -> tuple[int, Event] | None:
        """Return the first event kept of those after the first *place*, and how many have then been seen."""
        place = max(place, self._count - len(self._history))
        if place >= self._count:
            return None
        return place + 1, self._history[place - self._count]

    async def _next(self) -> None:
        """Wait until there may be something new."""
        await self._news.wait()


class Watcher(AsyncGeneratorBase[Event]):
    """Iterate over the events of a run that others may watch, too; made by `Feeds.watch` or `Feed.watch`."""

    def __init__(self, join: Callable[[], Feed], known: Feed | None, last_event_id: str | None) -> None:
        self._join = join
        self._feed: Feed | None = None
        check.text_or_none("last_event_id", last_event_id)
        self._last_event_id = last_event_id
        self._place = 0
        self._closed = False
        self.is_done = known is not None and known._has_told(last_event_id)
        """The client has seen the end: answer 204, which tells a browser not to come back."""

    async def __anext__(self) -> Event:
        """Return the next event; it may be cancelled and asked for again, with nothing lost."""
        if self._closed or self.is_done:
            raise StopAsyncIteration
        if self._feed is None:
            self._feed = feed = self._join()
            feed._joined()
            self._place = feed._place(self._last_event_id)
        feed = self._feed
        while True:
            found = feed._after(self._place)
            if found is not None:
                self._place, event = found
                return event
            if feed.is_over or self._closed:
                self._leave()
                raise StopAsyncIteration
            await feed._next()

    async def aclose(self) -> None:
        """Watch no more; the run is followed for the others, and as long as its `Feeds` say."""
        self._leave()

    def _leave(self) -> None:
        if not self._closed:
            self._closed = True
            if self._feed is not None:
                self._feed._left()

    def __del__(self) -> None:
        if self._feed is not None and not self._closed:
            self._feed._leave_soon()


class Feeds:
    """
    Follow runs in the background, each once, for all who watch.

    An async context manager within that of its *client*: leaving it ends every feed and every watcher, and leaves no
    task behind; remote runs go on. With *linger*, a run that nobody watches is followed for so many seconds more and no
    longer; what that does to the remote run is as `on_cancel` says. Without, each run is followed to its end. *history*
    is how many events of a run are kept. *shown* makes of a run the JSON object that watchers get (`public`, if not
    given). The *options* are those of `client.stream`; mind its `timeout` where a person has to answer.
    """

    def __init__(
        self,
        client: Client,
        *,
        linger: float | None = None,
        history: int = HISTORY,
        shown: Shown = public,
        **options: Unpack[StreamOptions],
    ) -> None:
        if linger is not None:
            check.number("linger", linger, zero=True)
        check.integer("history", history, 3)  # the last state, the error, the end
        if options.get("key") is not None:
            raise ConfigurationError("`key` names the work of one run; pass it to `feeds.open(origin, key=...)`")
        self.linger = linger
        self.history = history
        self._client = client
        self._shown = shown
        self._options = options
        self._by_run: dict[str, Feed] = {}
        self._by_name: dict[str, Feed] = {}
        self._live: set[Feed] = set()
        self._ended: dict[Feed, None] = {}  # oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._context: Context | None = None

    def __repr__(self) -> str:
        return f"<Feeds of {self._client!r}, {len(self._tasks)} followed>"

    async def __aenter__(self) -> Self:
        self._context = copy_context()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._context = None
        for feed in tuple(self._live):
            feed.close()
        await run_shielded(self._end())

    async def _end(self) -> None:
        """Wait until all following has ended, and forget the feeds."""
        if self._tasks:
            _done, left = await asyncio.wait(self._tasks, timeout=EXIT_SECONDS)
            for task in left:
                logger.warning("a run is still followed although its stream was ended: %r", task)
                task.cancel()
        self._by_run.clear()
        self._by_name.clear()
        self._ended.clear()

    def open(self, origin: Any, *, name: str | None = None, **options: Unpack[StreamOptions]) -> Feed:
        """
        Follow a run from now on, whether or not anybody watches; of a new run, if *origin* is what starts one.

        A run that is followed already, or is over and kept, is not followed once more; nor is the work of a *name* (or
        of a `key`, its name if none is given) begun twice. What was given up before it was over is gone on with. The
        *options* add to those of these feeds, and count for who comes first. Tools see the caller's context variables.

        Raise `ConfigurationError` or `UnsupportedError` at once for what cannot work.
        """
        return self._open(origin, name or options.get("key"), options, copy_context())

    def watch(self, run: Run | RunRef, last_event_id: str | None = None, **options: Unpack[StreamOptions]) -> Watcher:
        """
        Return the events of a run, which is followed from the first step on unless it is already.

        *last_event_id* is what a browser that comes back says in the header `Last-Event-ID`. Raise as `open` does.
        """
        if not isinstance(run, Run | RunRef):
            raise ConfigurationError(
                f"{run!r} is no run: to start one, call `feeds.open(origin)`, then watch what it returns; a browser "
                "that comes back would start another"
            )
        known = self.get(run)
        context = self._entered()
        if known is None:
            self._stream(run, options)  # says now what cannot work
        return Watcher(lambda: self._open(run, None, options, context), known, last_event_id)

    def get(self, run: Run | RunRef | str) -> Feed | None:
        """Return the feed of a run, or of the name that it was opened under; None if there is none, or no more."""
        if isinstance(run, str):
            return self._by_name.get(run)
        return self._by_run.get(run.id)

    def _open(self, origin: Any, name: str | None, options: StreamOptions, context: Context) -> Feed:
        self._entered()
        named = self._by_name.get(name) if name is not None else None
        known = named or (self.get(origin) if isinstance(origin, Run | RunRef) else None)
        if known is not None and (known.is_final or not known.is_over):
            return known
        if known is not None and known.run is not None and options.get("key") is None:
            origin = known.run.ref
        feed = Feed(self, Events(self._stream(origin, options), self._shown), name)
        self._live.add(feed)
        if name is not None:
            self._by_name[name] = feed
        if isinstance(origin, Run | RunRef):
            self._enter(feed, origin.id)
        task = feed._begin(context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return feed

    def _stream(self, origin: Any, options: StreamOptions) -> RunStream:
        every: StreamOptions = {**self._options, **options}
        return self._client.stream(origin, **every)

    def _entered(self) -> Context:
        if self._context is None:
            raise ConfigurationError("these feeds are not open; use them within `async with Feeds(client) as feeds:`")
        return self._context

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a run is followed no more", exc_info=task.exception())

    # What a feed tells ------------------------------------------------------------------------------------------------

    def _saw(self, feed: Feed) -> None:
        """Know a feed by the run whose state it has seen: that which its origin started, or which an answer brought."""
        if feed.run is not None and feed.run.id not in feed.runs:
            self._enter(feed, feed.run.id)

    def _enter(self, feed: Feed, run_id: str) -> None:
        known = self._by_run.get(run_id)
        if known is None or known.is_over:
            self._by_run[run_id] = feed
        feed.runs.add(run_id)

    def _retire(self, feed: Feed) -> None:
        """Keep a feed that is over for who comes later, for as long as there are not too many."""
        self._live.discard(feed)
        if self._context is None:
            return
        self._ended[feed] = None
        while len(self._ended) > KEPT:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            for run_id in oldest.runs:
                if self._by_run.get(run_id) is oldest:
                    del self._by_run[run_id]
            if oldest.name is not None and self._by_name.get(oldest.name) is oldest:
                del self._by_name[oldest.name]
