"""
What an app holds for its runs: each is begun under a key, brought to its end, and told of, whatever dies meanwhile.

The journal has which work is tended. Whoever starts work tends it; what nobody is at any more, another service takes
over: when it starts, and every two seconds.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from enum import Enum, auto
from itertools import count
from typing import Any, Final, Self, TypeAlias, Unpack
from uuid import uuid4

from agentruns._aio.shield import run_shielded
from agentruns._api.retry import Backoff
from agentruns._following.options import StreamOptions
from agentruns._keeping.digest import request_digest
from agentruns._keeping.starting import TENDED, check_same
from agentruns._keeping.work import Unfinished
from agentruns._values import check
from agentruns._values.exchange import Request, Response
from agentruns._values.printable import printable
from agentruns._values.run import Run, RunRef, RunStatus
from agentruns.client import Client, keys_of, watch
from agentruns.errors import AgentRunsError, ConfigurationError, NotFoundError
from agentruns.inbox import Inbox, UnknownActionError, journal_of

from .answering import Answering
from .events import Shown, Told, public, told
from .feed import Feed, StoppedError, Watcher
from .feeds import HISTORY, Feeds
from .memory import MEMORY

logger = logging.getLogger("agentruns")

OnEnd: TypeAlias = Callable[[str, Run[Any]], Awaitable[None]]
"""What is called with the key and the last state of each run that is over."""

_LOOKS: Final = Backoff(initial=2.0, factor=1.0, jitter=0.2)
"""How often it is looked for work that nobody is at; it costs little, and those who watch wait for it."""

_AGAIN: Final = Backoff(initial=1.0, factor=2.0, maximum=300.0, jitter=0.2)
"""When what has failed is tried again: following a run, and `on_end`."""

_PRUNE_SECONDS: Final = 3600.0
_STOP_SECONDS: Final = 5.0
"""How long an `on_end` that is under way may take when the service stops."""


class _End(Enum):
    """How far the end of a run is told: it is `DUE`, `on_end` has returned, or the journal has that."""

    DUE = auto()
    HANDED = auto()
    KEPT = auto()


class Service:
    """
    Begin runs for an app, show them, have them answered, and hand each that is over to *on_end*.

    An async context manager, for the lifespan of each worker process: it opens the *client* (which needs a journal, the
    same in each process) and the *inbox* (with that journal, too), and takes over the work of services that are gone.
    Leaving it stops at once: remote runs go on, and another service, or the next one, goes on with them.

    - *on_end* is an async function of the key and the last state of a run that `start` has begun, completed or failed.
      It is called at least once for each, and again, in whatever process, until it has returned and the journal has
      that. So it must not mind that it is called twice, even where it has returned: its process may die right then.
    - *inbox* answers what runs ask for, if the options have no `tools`.
    - *retention* is after how many seconds what is done is deleted from the journal; None keeps it.
    - *shown*, *told*, *history*, *memory* and the *options* are those of `Feeds`.

    `client`, `inbox` and `feeds` are there to be used directly. Raise `ConfigurationError` for a client or an inbox
    without a journal, and for options that cannot work.
    """

    def __init__(
        self,
        client: Client[Any, Any],
        *,
        inbox: Inbox | None = None,
        on_end: OnEnd | None = None,
        retention: float | None = None,
        history: int = HISTORY,
        memory: int = MEMORY,
        shown: Shown = public,
        told: Told = told,
        **options: Unpack[StreamOptions],
    ) -> None:
        if on_end is not None and not callable(on_end):
            raise ConfigurationError(f"on_end is {on_end!r}; it must be an async function of a key and a Run")
        if retention is not None:
            check.number("retention", retention, zero=True)
        if inbox is not None:
            options = {"tools": inbox, **options}
        self.client = client
        self.inbox = inbox
        self.feeds = Feeds(client, history=history, memory=memory, shown=shown, told=told, **options)
        self._keys = keys_of(client)
        if inbox is not None:
            _check_journal(inbox, self._keys.journal.path)
        self._tending = self._keys.journal.tending
        self._answering = Answering(self._keys, self.feeds, self._take_up)
        self._on_end = on_end
        self._retention = retention
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._telling: set[asyncio.Task[_End]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._has_stopped = False
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<Service of {self.client!r}, {len(self._tasks)} tended>"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.client)
            if self.inbox is not None:
                await stack.enter_async_context(self.inbox)
            await stack.enter_async_context(self.feeds)
            self._stack = stack.pop_all()
        self._has_stopped = False
        self._looking = asyncio.create_task(self._look(), name="agentruns: look for work that nobody is at")
        return self

    async def __aexit__(self, *_: object) -> None:
        await run_shielded(self._stop())

    async def _stop(self) -> None:
        """Tend no more; what is being told has a moment to end."""
        looking, self._looking = self._looking, None
        self._has_stopped = True
        stopped = [*self._tasks.values(), *([] if looking is None else [looking])]
        for task in stopped:
            task.cancel()
        try:
            if stopped:
                await asyncio.wait(stopped)
            if self._telling:
                await asyncio.wait(self._telling, timeout=_STOP_SECONDS)
            if left := tuple(self._telling):
                for telling in left:
                    telling.cancel()
                await asyncio.wait(left, timeout=_STOP_SECONDS)
        finally:
            await self._stack.aclose()

    # What a request does ----------------------------------------------------------------------------------------------

    async def start(self, origin: Any, *, key: str | None = None, digest: str | None = None) -> Run[Any]:
        """
        Begin a run under a *key*, one that is made up if none is given, and return its first state.

        It is followed to its end whether or not anybody watches, here or, if this process dies, elsewhere. What the key
        names already is begun no second time: the state is that of its run. *digest* is as in `client.stream`. Raise as
        `client.start` does, and `ConfigurationError` for a key that names other work.
        """
        key = uuid4().hex if key is None else key
        self._entered()
        self.client.stream(origin, key=key, digest=digest)  # says now what cannot work
        work = await self._found(key, origin, digest)
        is_done = work is not None and work.run is not None and work.run.status.is_over
        if work is not None and not is_done:
            await self._tending.enter(key)
        self._entered()
        known, tended = self.feeds.get(key), TENDED.set(key)
        try:
            feed = self.feeds.open(origin, key=key, digest=digest)
        finally:
            TENDED.reset(tended)
        if not is_done:
            self._tend(key, feed, enter=feed is known)
        return await feed.started()

    async def _found(self, key: str, origin: Any, digest: str | None) -> Unfinished | None:
        """Return the work of a key; refuse a key that names other work, which feeds would give to whoever asks."""
        kept = await self._keys.journal.get(key)
        if kept is None:
            return None
        check_same(kept, origin, request_digest(origin) if digest is None else digest, self._keys.journal.path)
        return self._keys.read(kept)

    def watch(self, run: Run[Any] | RunRef | str, last_event_id: str | None = None) -> Watcher:
        """
        Return the events of a run as `feeds.watch` does; *run* may be its slug, as a URL has it.

        Of a text that is no slug of this vendor, there is no run: the answer is 404.
        """
        try:
            ref = self.ref(run)
        except ConfigurationError:
            return Watcher(None, _Nowhere(), last_event_id, RunRef(""))
        return self.feeds.watch(ref, last_event_id)

    async def answer(self, run: Run[Any] | RunRef | str, action_id: str, output: Any) -> None:
        """
        Answer an action of a run through the inbox, in whatever process it waits; *run* may be a slug.

        Raise as `inbox.answer` does. A click that comes before the inbox has the action that a page shows waits a
        moment for it, then it is a `NotAskedYetError`.
        """
        inbox, ref = self._asked(run)
        await self._answering.decide(ref, action_id, lambda at: inbox.answer(action_id, output, run_id=at))

    async def refuse(self, run: Run[Any] | RunRef | str, action_id: str, why: str) -> None:
        """Give no answer to an action of a run, and tell the model *why*; for the rest as `answer`."""
        inbox, ref = self._asked(run)
        await self._answering.decide(ref, action_id, lambda at: inbox.refuse(action_id, why, run_id=at))

    def ref(self, run: Run[Any] | RunRef | str) -> RunRef:
        """Return the reference that a run, or its slug, stands for; raise `ConfigurationError` for any other text."""
        if isinstance(run, str):
            return RunRef.from_slug(run, self._keys.vendor.NAME)
        return run.ref if isinstance(run, Run) else run

    def _asked(self, run: Run[Any] | RunRef | str) -> tuple[Inbox, RunRef]:
        if self.inbox is None:
            raise ConfigurationError("this service has no inbox: pass `Service(client, inbox=Inbox(journal=...))`")
        try:
            return self.inbox, self.ref(run)
        except ConfigurationError:
            raise UnknownActionError(f"{str(run)[:80]!r} names no run, so nothing waits for an answer") from None

    async def _take_up(self, key: str) -> bool:
        """Go on with work that is to be tended, and that nobody is at; return whether it was so."""
        if key in self._tasks or not await self._tending.take(key):
            return False
        self._tend(key, None)
        return True

    def _entered(self) -> None:
        if self._has_stopped:
            raise StoppedError("this service has stopped, and begins nothing any more; what it had begun goes on")
        if self._looking is None:
            raise ConfigurationError("this service is not open; use it within `async with Service(...) as service:`")

    # What goes on by itself -------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Take over what nobody is at, again and again, and delete what was done long ago."""
        loop, prune_at = asyncio.get_running_loop(), 0.0
        for looks in count():
            try:
                for key in await self._tending.abandoned(self._tasks):
                    await self._take_up(key)
                if self._retention is not None and loop.time() >= prune_at:
                    prune_at = loop.time() + _PRUNE_SECONDS
                    await self.client.prune(older_than=self._retention)
            except Exception as error:
                trace = None if isinstance(error, AgentRunsError) else error
                logger.warning("work that nobody is at cannot be looked for now: %s", error, exc_info=trace)
            await asyncio.sleep(_LOOKS.delay(looks))

    def _tend(self, key: str, feed: Feed | None, *, enter: bool = False) -> None:
        """Tend work, which is *entered* as such once it has begun, unless it was entered together with that."""
        tending = self._tasks.get(key)
        if tending is not None and not tending.done():
            return
        self._tasks[key] = task = asyncio.create_task(self._bring(key, feed, enter), name="agentruns: tend a run")
        task.add_done_callback(lambda done: self._tended(key, done))

    def _tended(self, key: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if task.cancelled():
            if self._looking is not None:  # what `on_end` waited for was cancelled, and said so to us
                logger.warning("work was cut off while it was tended, and is taken up again by the next look")
        elif task.exception() is not None:
            logger.error("work is tended no more, and taken up again by the next look", exc_info=task.exception())

    async def _bring(self, key: str, feed: Feed | None, enter: bool) -> None:
        """Bring work to its end, and have that told; leave it to whoever else is at it."""
        with self._keys.following(key):
            if feed is not None and enter:
                with suppress(Exception):  # which was logged
                    await feed.started()
                    await self._tending.enter(key)
            failures, seen = 0, None
            while True:
                run = None if feed is None else await _followed(feed)
                if feed is not None and feed.run is not None and feed.run != seen:
                    failures, seen = 0, feed.run  # it has gone on meanwhile
                work = await self._keys.find(key)
                if work is None:  # its start was refused: nothing was begun
                    return
                if not await self._tending.take(key):  # another service is at it, or has told
                    return
                if work.run is not None and work.run.status.is_over:
                    await self._tell(key, work.run)
                    return
                if run is not None and run.status is RunStatus.REQUIRES_ACTION:
                    await self._until_answered(run)
                elif feed is not None:
                    await asyncio.sleep(_AGAIN.delay(failures))
                    failures += 1
                feed = self.feeds.open(work)

    async def _until_answered(self, run: Run[Any]) -> None:
        """Look on while a run waits for an answer that no handler here gives."""
        async with aclosing(watch(self.client, run)) as states:
            try:
                async for state in states:
                    if state.id != run.id or state.status is not RunStatus.REQUIRES_ACTION:
                        return
            except AgentRunsError as error:
                logger.warning("run %s cannot be looked at now: %s", printable(run.id), error)

    async def _tell(self, key: str, run: Run[Any]) -> None:
        """Have the end of a run told, until that has worked."""
        end = _End.DUE
        for attempts in count():
            telling = asyncio.create_task(self._tell_once(key, run, end), name="agentruns: tell the end of a run")
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)
            end = await asyncio.shield(telling)
            if end is _End.KEPT:
                return
            await asyncio.sleep(_AGAIN.delay(attempts))

    async def _tell_once(self, key: str, run: Run[Any], end: _End) -> _End:
        """
        Have the end told, as far as it is not, unless another service does or has by now; return how far it is now.

        The work stays ours until `on_end` is over, though this service may have stopped to tend it meanwhile. Where
        others may take this process for dead, `on_end` is cut off before they call theirs. Once it has returned it is
        not called again here: all that is left is to keep that.
        """
        try:
            with self._keys.following(key):
                async with self._keys.journal.acting():
                    if not await self._tending.take(key):
                        return _End.KEPT
                    if self._on_end is not None and end is _End.DUE:
                        await _called(self._on_end, key, run)
                    end = _End.HANDED
                    await self._tending.told(key)
        except Exception as error:
            about = {"agentruns_run_id": run.id, "agentruns_vendor": run.vendor, "agentruns_status": run.status.value}
            logger.error(
                "the end of run %s could not be told, and is told again", printable(run.id), exc_info=error, extra=about
            )
            return end
        return _End.KEPT


def _check_journal(inbox: Inbox, path: str) -> None:
    """Check that an inbox keeps its actions where the client keeps its work."""
    theirs = journal_of(inbox)
    if theirs == path:
        return
    why = "no journal" if theirs is None else f"the journal {theirs}, and the client {path}"
    raise ConfigurationError(
        f"this inbox has {why}, so that an answer would not reach whoever goes on with the work",
        field="inbox",
        remedy="pass `Inbox(journal=...)`, with the journal of the client",
    )


async def _called(on_end: OnEnd, key: str, run: Run[Any]) -> None:
    """Call the function of the app; whatever it raises fails this call alone, and ends no loop."""
    try:
        called: object = on_end(key, run)
        if not inspect.isawaitable(called):
            raise ConfigurationError(f"on_end has returned {called!r}; it must be an async function of a key and a Run")
        await called
    except SystemExit as error:
        raise RuntimeError(f"on_end raised {error!r}") from error


class _Nowhere:
    """Where a watcher comes to whose URL names no run."""

    async def enter(self, _run: RunRef, /) -> None:
        """Say that there is no such run."""
        raise NotFoundError(Response(404, {}, b"", Request("GET", "/")))

    def join(self, _run: RunRef, /) -> Feed:
        """Come to nothing."""
        raise NotImplementedError


async def _followed(feed: Feed) -> Run[Any] | None:
    """Wait until a run is followed no more; return its last state, None if that ended by an error, which was logged."""
    try:
        return await feed.ended()
    except Exception:
        return None
