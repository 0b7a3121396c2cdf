"""All runs that one client follows for the web: each once, whoever opens or watches it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Final, Self, Unpack, cast

from attrs import frozen

from agentruns._aio.shield import run_shielded
from agentruns._aio.tasks import EXIT_SECONDS
from agentruns._following.options import StreamOptions, WatchOptions
from agentruns._keeping.work import Unfinished
from agentruns._values import check
from agentruns._values.run import Run, RunRef
from agentruns.client import Client, drive, watch
from agentruns.errors import ConfigurationError, NotFoundError

from .events import Events, Shown, Source, Told, public, told
from .feed import Feed, StoppedError, Watcher
from .memory import MEMORY, EndedFeeds, UnknownRuns

logger = logging.getLogger("agentruns")

HISTORY: Final = 256
"""How many events of a run are kept for those who come later."""


class Feeds:
    """
    Follow runs in the background, each once, for all who watch.

    Those that are opened are driven: tools answer them. Those that are watched are only looked at, unless they were
    opened here, whoever drives them. Where the client has a journal, one process at a time drives the work of a key or
    a run, and the others see what that one sees.

    An async context manager within that of its *client*: leaving it ends every feed and every watcher, and leaves no
    task behind; remote runs go on. With *linger*, a run that nobody watches here is followed for so many seconds more
    and no longer; what that does to a remote run that was opened here is as `on_cancel` says. Without, each run that
    was opened is followed to its end, and one that is only watched for a minute more. *history* is how many events of a
    run are kept, *memory* how many bytes, about, runs may hold that are followed no more, for those who come late.
    *shown* makes of a run the JSON object that watchers get (`public`, if not given), *told* that of an error (`told`).
    The *options* are those of `client.stream`, except that `timeout` sets no end if it is not given.
    """

    def __init__(
        self,
        client: Client,
        *,
        linger: float | None = None,
        history: int = HISTORY,
        memory: int = MEMORY,
        shown: Shown = public,
        told: Told = told,
        **options: Unpack[StreamOptions],
    ) -> None:
        if linger is not None:
            check.number("linger", linger, zero=True)
        check.integer("history", history, 3)  # the last state, the error, the end
        check.integer("memory", memory, 0)
        if options.get("key") is not None:
            raise ConfigurationError("`key` names the work of one run; pass it to `feeds.open(origin, key=...)`")
        self.linger = linger
        self.history = history
        self._client = client
        self._shown = shown
        self._told = told
        self._options: StreamOptions = {"timeout": None, **options}
        self._watching = _of_watch(self._options)
        self._by_run: dict[str, Feed] = {}
        self._by_name: dict[str, Feed] = {}
        self._live: set[Feed] = set()
        self._ended = EndedFeeds(memory)
        self._unknown = UnknownRuns()
        self._asked: dict[Feed, str] = {}  # those of whose run nothing is known yet, and its id
        self._tasks: set[asyncio.Task[None]] = set()
        self._context: Context | None = None
        self._has_stopped = False

    def __repr__(self) -> str:
        return f"<Feeds of {self._client!r}, {len(self._tasks)} followed>"

    async def __aenter__(self) -> Self:
        self._context, self._has_stopped = copy_context(), False
        return self

    async def __aexit__(self, *_: object) -> None:
        self._context, self._has_stopped = None, True
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
        self._asked.clear()

    def open(self, origin: Any, *, name: str | None = None, **options: Unpack[StreamOptions]) -> Feed:
        """
        Follow a run from now on, whether or not anybody watches; of a new run, if *origin* is what starts one.

        A run that is driven here already, or is over and kept, is not followed once more; nor is the work of a *name*
        (or of a `key`, its name if none is given) begun twice. What was given up before it was over is gone on with.
        Where another process drives the work, it is only looked at until that process is gone. The *options* add to
        those of these feeds, and count for who comes first. Tools see the caller's context variables. *origin* may be
        what `client.unfinished()` or `client.work(key)` gives: the work is gone on with under its key.

        Raise `ConfigurationError` or `UnsupportedError` at once for what cannot work.
        """
        if isinstance(origin, Unfinished):
            options = {**options, "key": origin.key, "digest": origin.digest}
            origin = origin.origin if origin.run is None else origin.run.ref
        return self._open(origin, name or options.get("key"), options, copy_context())

    def watch(self, run: Run | RunRef, last_event_id: str | None = None, **options: Unpack[WatchOptions]) -> Watcher:
        """
        Return the events of a run, which is followed from the first step on unless it is already.

        Watching does nothing to the run: no handler is called for it, it is not answered and not cancelled, and a pause
        is no end. *last_event_id* is what a browser that comes back says in the header `Last-Event-ID`. The *options*
        are those of `client.stream` that are for looking. Raise `ConfigurationError` at once for what cannot work,
        options that would act among it: `open(run, tools=...)` drives a run.
        """
        if not isinstance(run, Run | RunRef):
            raise ConfigurationError(
                f"{run!r} is no run: to start one, call `feeds.open(origin)`, then watch what it returns; a browser "
                "that comes back would start another"
            )
        acts = sorted(options.keys() - WatchOptions.__annotations__.keys())
        if acts:
            raise ConfigurationError(
                f"watching does nothing to a run, so it takes no {', '.join(acts)}",
                field=acts[0],
                remedy="`feeds.open(run, ...)` drives a run",
            )
        if not self._has_stopped:  # else the watcher ends at once
            self._entered()
        ref = run.ref if isinstance(run, Run) else run
        watch(self._client, run, **self._watch_options(options))  # says now what cannot work
        return Watcher(self.get(ref), _Rejoining(self, options), last_event_id, ref)

    def look(self, run: RunRef) -> None:
        """Follow a run, for a minute at least, as if somebody had begun to watch it; there must be one."""
        with suppress(StoppedError):
            self._watch(run, {})

    def get(self, run: Run | RunRef | str) -> Feed | None:
        """Return the feed of a run, or of the name that it was opened under; None if there is none, or no more."""
        if isinstance(run, str):
            return self._by_name.get(run)
        return self._by_run.get(run.id)

    def _open(self, origin: Any, name: str | None, options: StreamOptions, context: Context) -> Feed:
        self._entered()
        is_run = isinstance(origin, Run | RunRef)
        named = self._by_name.get(name) if name is not None else None
        known = named or (self.get(origin) if is_run else None)
        # What has only looked has entered nothing under a key: the journal may not know the end that was seen.
        is_enough = known is not None and known.is_final and (known.acts or options.get("key") is None)
        if known is not None and (is_enough or (known.acts and not known.is_over)):
            return known
        if name is not None and named is None and not is_run:
            origin = self._ended.run_of(name) or origin
        if known is not None and known.run is not None and options.get("key") is None:
            origin = known.run.ref
        every: StreamOptions = {**self._options, **options}
        return self._begin(drive(self._client, origin, **every), name, context, origin, acts=True)

    def _watch(self, ref: RunRef, options: WatchOptions) -> Feed:
        """Return what follows a run, begun if nothing does; it only looks."""
        context = self._entered()
        known = self._by_run.get(ref.id)
        if known is not None and (known.is_final or not known.is_over):
            return known
        return self._begin(watch(self._client, ref, **self._watch_options(options)), None, context, ref, acts=False)

    def _watch_options(self, options: WatchOptions) -> WatchOptions:
        return {**self._watching, **options}

    def _begin(self, source: Source, name: str | None, context: Context, origin: Any, *, acts: bool) -> Feed:
        feed = Feed(self, Events(source, self._shown, self._told), name, acts=acts, history=self.history)
        self._live.add(feed)
        if name is not None:
            self._by_name[name] = feed
        if isinstance(origin, Run | RunRef):
            self._enter(feed, origin.id)
        task = feed.begin(context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return feed

    async def _ask(self, ref: RunRef, options: WatchOptions) -> None:
        """Begin to follow a run of which nothing is known here, in its turn; raise `NotFoundError` if there is none."""
        if self.get(ref) is not None:
            return
        await self._unknown.enter(ref.id)
        if self.get(ref) is None:
            self._asked[self._watch(ref, options)] = ref.id
        else:
            self._unknown.found()

    def _entered(self) -> Context:
        if self._has_stopped:
            raise StoppedError("these feeds have stopped, and begin nothing any more; runs go on at the vendor")
        if self._context is None:
            raise ConfigurationError("these feeds are not open; use them within `async with Feeds(client) as feeds:`")
        return self._context

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a run is followed no more", exc_info=task.exception())

    # What a feed tells ------------------------------------------------------------------------------------------------

    def saw(self, feed: Feed) -> None:
        """Know a feed by the run whose state it has seen: that which its origin started, or which an answer brought."""
        if self._asked.pop(feed, None) is not None:
            self._unknown.found()
        if feed.run is not None and feed.run.id not in feed.runs:
            self._enter(feed, feed.run.id)

    def _enter(self, feed: Feed, run_id: str) -> None:
        known = self._by_run.get(run_id)
        if known is None or known.is_over or (feed.acts and not known.acts):
            self._by_run[run_id] = feed
            if known is not None and not known.is_over and known is not feed:  # it only looked
                known.successor = feed
                known.close()
        feed.runs.add(run_id)

    def retire(self, feed: Feed) -> None:
        """Keep a feed that is over for who comes later, as far as there is room; what has shown no run is not kept."""
        self._live.discard(feed)
        run_id = self._asked.pop(feed, None)
        if run_id is not None and isinstance(feed.error, NotFoundError):
            self._unknown.missed(run_id, feed.error)
        elif run_id is not None:
            self._unknown.found()
        if self._context is None:
            return
        if feed.run is None and feed.name is None:
            self._forget(feed)
            return
        for oldest in self._ended.keep(feed):
            self._forget(oldest)

    def _forget(self, feed: Feed) -> None:
        for run_id in feed.runs:
            if self._by_run.get(run_id) is feed:
                del self._by_run[run_id]
        if feed.name is not None and self._by_name.get(feed.name) is feed:
            del self._by_name[feed.name]


@frozen
class _Rejoining:
    """How a watcher comes to what follows its run, with options of its own if nothing does."""

    feeds: Feeds
    options: WatchOptions

    async def enter(self, run: RunRef) -> None:
        """Begin to follow the run; raise `NotFoundError` for one that there is not."""
        await self.feeds._ask(run, self.options)

    def join(self, run: RunRef) -> Feed:
        """Return what follows the run."""
        return self.feeds._watch(run, self.options)


def _of_watch(options: StreamOptions) -> WatchOptions:
    """Return those of the options of a stream that are for looking at a run."""
    found: dict[str, Any] = {name: options[name] for name in WatchOptions.__annotations__ if name in options}  # type: ignore[literal-required]
    if found.get("timeout") == "vendor":
        found["timeout"] = None
    return cast("WatchOptions", found)
