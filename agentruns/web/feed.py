"""
One run followed once, for any number of watchers who come and go.

Each `Feed` follows one run in a task of its own, and keeps the events that came of it; `Feeds` has them all. A watcher
is a place in that history and nothing more, so that a slow one costs no memory: it reads on where it is, and finds the
latest states where it was left too far behind. Every event holds the whole state, so that is no loss.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Final, Protocol

from agentruns._aio.changed import Changed
from agentruns._aio.generator import AsyncGeneratorBase
from agentruns._values import check
from agentruns._values.run import Run, RunRef
from agentruns.errors import AgentRunsError, JournalError, NotFoundError

from .events import Event, Events, missing

UNWATCHED_SECONDS: Final = 60.0
"""How long a run that is only watched is followed when nobody watches it any more, unless `linger` says otherwise."""

READY_SECONDS: Final = 5.0
"""How long a response may wait for the first event before it begins without."""


class StoppedError(AgentRunsError):
    """Say that the server stops: nothing is begun or shown here any more, and remote runs go on."""


class Keeper(Protocol):
    """Who has all feeds, as one of them knows it."""

    linger: float | None

    def saw(self, feed: Feed) -> None:
        """Take note that a feed has a new state."""
        ...

    def retire(self, feed: Feed) -> None:
        """Take note that a feed is over."""
        ...


class Feed:
    """
    A run that is followed in the background; made by `Feeds.open`, or by the first who watches it.

    `run` is the last state seen, `runs` the ids of all (an answer may bring another run), `name` what it was opened
    under, `watching` how many watch it, and `acts` whether it was opened, so that handlers answer the run. It is
    iterated over by `feed.watch(...)`.
    """

    def __init__(self, keeper: Keeper, events: Events, name: str | None, *, acts: bool, history: int) -> None:
        self.name = name
        self.acts = acts
        self.runs: set[str] = set()
        self.watching = 0
        self.successor: Feed | None = None
        """What follows the run in the place of this, for those who watch."""
        self._keeper = keeper
        self._events = events
        self._history: deque[Event] = deque(maxlen=history)
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

    @property
    def is_paused(self) -> bool:
        """Tell whether the run was followed to a pause that no handler answers, and no further."""
        return self._is_told and self.error is None and not self.is_final

    @property
    def weight(self) -> int:
        """Return about how many bytes it holds: its events, and the last state with the text that it came as."""
        events = [len(event.data) for event in self._history]
        return 4096 + sum(events) + 2 * max(events, default=0)

    def watch(self, last_event_id: str | None = None) -> Watcher:
        """
        Return the events from the one after *last_event_id* on, to be iterated over: first those kept, then live.

        An id that is unknown, or of another process, means that all which is kept comes. Raise `ConfigurationError` for
        what is no text.
        """
        return Watcher(self, None, last_event_id)

    async def started(self) -> Run:
        """Wait for the first state, and count as watching meanwhile; raise what the stream raised if none ever came."""
        await self._until(lambda: self.run is not None)
        return self._last()

    async def ended(self) -> Run:
        """
        Wait until the run is followed no more, and return the last state; count as watching meanwhile.

        That is its end, or a pause without a handler. Raise what the stream raised, and `AgentRunsError` if the
        following was stopped before, as it is when the server stops: the run goes on at the vendor.
        """
        await self._until(lambda: False)
        if self.error is not None:
            raise self.error
        run = self._last()
        if not self._is_told:
            raise AgentRunsError(f"run {run.id} was followed no more before it ended; it goes on at the vendor")
        return run

    async def _until(self, enough: Callable[[], bool]) -> None:
        """Count as a watcher until *enough* is true or the feed is over."""
        self._joined()
        try:
            while not enough() and not self._is_over:
                await self.next_news()
        finally:
            self._left()

    def _last(self) -> Run:
        if self.run is not None:
            return self.run
        raise self.error or StoppedError("the following of this run was stopped before it had a state; it may go on")

    # The task that follows --------------------------------------------------------------------------------------------

    def begin(self, context: Context) -> asyncio.Task[None]:
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
            self._keeper.saw(self)
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
        self._keeper.retire(self)
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
        linger = self._keeper.linger
        if linger is None and not self.acts:
            linger = UNWATCHED_SECONDS
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if linger is not None and self._task is not None and not self.watching and not self._is_over:
            self._timer = self._loop.call_later(linger, self._stop)

    def _stop(self) -> None:
        """Cancel the wait, with what the stream's `on_cancel` makes of it."""
        self._is_over = True
        self._keeper.retire(self)
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

    @property
    def last_state(self) -> int:
        """Return how many events there were before the last state, and so many that none is kept if there is none."""
        states = [place for place, event in enumerate(self._history) if event.name == "run"]
        return self._count - len(self._history) + states[-1] if states else self._count

    @property
    def before_last_state(self) -> str:
        """Return the `last_event_id` of a client that has seen all before the last state, and wants no more of it."""
        return f"{self._events.epoch}-{self.last_state}"

    @property
    def has_events(self) -> bool:
        """Tell whether there is an event to see."""
        return self._count > 0

    async def next_news(self) -> None:
        """Wait until there may be something new."""
        await self._news.wait()


class Rejoins(Protocol):
    """Where a watcher finds what follows a run, and whether there is such a run."""

    async def enter(self, run: RunRef, /) -> None:
        """Wait until the run may be asked for; raise `NotFoundError` for one that there is not."""
        ...

    def join(self, run: RunRef, /) -> Feed:
        """Return what follows the run, begun if nothing does."""
        ...


class Watcher(AsyncGeneratorBase[Event]):
    """
    Iterate over the events of a run that others may watch, too; made by `Feeds.watch` or `Feed.watch`.

    When the server stops, it ends without an "end": a browser comes back for the rest, to whoever serves it then.
    """

    def __init__(
        self, feed: Feed | None, rejoins: Rejoins | None, last_event_id: str | None, run: RunRef | None = None
    ) -> None:
        self._feed: Feed | None = None
        check.text_or_none("last_event_id", last_event_id)
        self._known = feed
        self._run = run
        self._rejoins = rejoins
        self._last_event_id = last_event_id
        self._place = 0
        self._shown = ""
        self._missing: list[Event] = []
        self._closed = False
        self.is_done = feed is not None and not self._goes_on_after(feed) and feed._has_told(last_event_id)
        """The client has seen the end: answer 204, which tells a browser not to come back."""

    async def ready(self, seconds: float = READY_SECONDS) -> None:
        """
        Wait for the first event, so many *seconds* at most, before a response begins.

        Raise `NotFoundError` for a run that there is not: answer 404. Nothing is lost by waiting, or by not waiting.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        with suppress(TimeoutError, StoppedError):
            async with asyncio.timeout_at(until):
                feed = await self._joined()
                while not feed.has_events and not feed.is_over:
                    await feed.next_news()
        feed_error = None if self._feed is None else self._feed.error
        if self._feed is not None and self._feed.run is None and isinstance(feed_error, NotFoundError):
            self._leave()
            raise feed_error

    async def __anext__(self) -> Event:
        """Return the next event; it may be cancelled and asked for again, with nothing lost."""
        if self._missing:
            return self._missing.pop(0)
        if self._closed or self.is_done:
            raise StopAsyncIteration
        try:
            feed = await self._joined()
        except NotFoundError as error:
            self._leave()
            self._missing = missing(error)
            return self._missing.pop(0)
        except StoppedError:
            self._leave()
            raise StopAsyncIteration from None
        while True:
            found = feed._after(self._place)
            if found is not None:
                self._place, event = found
                if event.name in {"error", "end"} and self._goes_on_after(feed):
                    continue
                if event.name == "run":
                    if event.data == self._shown:
                        continue  # what followed before has shown it
                    self._shown = event.data
                return event
            if not feed.is_over and not self._closed:
                await feed.next_news()
                continue
            following = self._following(feed)
            if following is None:
                self._leave()
                raise StopAsyncIteration
            feed = self._change_to(following)

    async def aclose(self) -> None:
        """Watch no more; the run is followed for the others, and as long as its `Feeds` say."""
        self._leave()

    async def _joined(self) -> Feed:
        """Return what is watched; come to it first."""
        if self._feed is None:
            feed = self._known
            if self._rejoins is not None and self._run is not None:
                if feed is None:
                    await self._rejoins.enter(self._run)
                feed = self._rejoins.join(self._run)
            assert feed is not None
            self._feed = feed
            feed._joined()
            self._place = feed._place(self._last_event_id)
        return self._feed

    def _goes_on_after(self, feed: Feed) -> bool:
        """
        Tell whether the run is to be watched on where handlers follow it no further.

        So it is where the journal was away: the run goes on, and whoever is at it then. If it is away still, that is
        told of what only looks.
        """
        gave_up = feed.acts and feed.run is not None and isinstance(feed.error, JournalError)
        return self._rejoins is not None and (feed.is_paused or gave_up)

    def _following(self, feed: Feed) -> Feed | None:
        """Return what follows the run after a feed that is over, None if nothing does."""
        if self._closed:
            return None
        if feed.successor is None and self._rejoins is not None and feed.run is not None and self._goes_on_after(feed):
            with suppress(StoppedError):
                return self._rejoins.join(feed.run.ref)
        return feed.successor

    def _change_to(self, feed: Feed) -> Feed:
        """Watch the run by another feed from now on."""
        feed._joined()
        if self._feed is not None:
            self._feed._left()
        self._feed, self._place = feed, feed.last_state if self._shown else 0
        return feed

    def _leave(self) -> None:
        if not self._closed:
            self._closed = True
            if self._feed is not None:
                self._feed._left()

    def __del__(self) -> None:
        if self._feed is not None and not self._closed:
            self._feed._leave_soon()
