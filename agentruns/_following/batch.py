"""Many runs at once: lazily taken, bounded in flight, each outcome as it comes or in order."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter, deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol

from attrs import frozen

from agentruns._aio.generator import AsyncGeneratorBase
from agentruns._values import check
from agentruns._values.generic import DetailT_co, OriginT_co
from agentruns._values.run import Origins, Outcome, Run
from agentruns.errors import AgentRunsError, ConfigurationError

from .ending import last_state

_END: Final = object()
_LATER: Final = object()

_AHEAD: Final = 8
"""How many limits of outcomes are held, at most, for one that comes before them in order."""


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

    *follow* opens the stream of an origin, under a key or none. *key* names an item. *prepare* makes its origin, unless
    *known_origin* returns the one that was made under its key before; without *prepare* the item is the origin.
    *known_origin* returns None for a key that is new, and is itself None where there is no journal.
    """

    follow: Callable[[Any, str | None], Followed]
    key: Callable[[Any], str] | None = None
    prepare: Callable[[Any], Any] | None = None
    known_origin: Callable[[str], Awaitable[Any]] | None = None

    def __attrs_post_init__(self) -> None:
        for name, given in (("key", self.key), ("prepare", self.prepare)):
            if given is not None and not callable(given):
                raise ConfigurationError(f"{name} is {given!r}; it must be a function of an origin")

    async def origin(self, item: Any, key: str | None) -> Any:
        """Return what starts the run of an item: what started it before, if anything did."""
        if self.prepare is None:
            return item
        if self.known_origin is not None and key is not None:
            known = await self.known_origin(key)
            if known is not None:
                return known
        made = self.prepare(item)
        return await made if inspect.isawaitable(made) else made

    async def run(self, index: int, item: Any, open_streams: dict[int, Followed | None]) -> Outcome:
        """Run one item to its end, and say how it ended."""
        key: str | None = None
        origin, stream = item, None
        try:
            key = None if self.key is None else self.key(item)
            origin = await self.origin(item, key)
            stream = open_streams[index] = self.follow(origin, key if self.known_origin is not None else None)
            async with aclosing(stream):
                return Outcome(index, key, origin, await stream.result())
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error: Exception = AgentRunsError("the wait was cancelled by something within it, such as a handler")
        except Exception as caught:
            error = caught
        return Outcome(index, key, origin, last_state(None if stream is None else stream.run, error), error)


class _Shared:
    """What the runs in flight and the batch share: the runs do not know the batch, so that it can be let go of."""

    def __init__(self, *, ordered: bool) -> None:
        self.tasks: set[asyncio.Task[Outcome]] = set()
        self.streams: dict[int, Followed | None] = {}
        self.ready: deque[Outcome] = deque()
        self.held: dict[int, Outcome] = {}
        self.news = asyncio.Event()
        self._ordered = ordered
        self._due = 0

    def add(self, plan: ItemRunner, index: int, item: Any) -> None:
        """Begin an item."""
        self.streams[index] = None
        task = asyncio.create_task(plan.run(index, item, self.streams))
        self.tasks.add(task)
        task.add_done_callback(lambda done: self._ended(index, done))

    def _ended(self, index: int, task: asyncio.Task[Outcome]) -> None:
        self.tasks.discard(task)
        self.streams.pop(index, None)
        if not task.cancelled() and task.exception() is None:
            if self._ordered:
                self.held[index] = task.result()
                while self._due in self.held:
                    self.ready.append(self.held.pop(self._due))
                    self._due += 1
            else:
                self.ready.append(task.result())
        self.news.set()

    def wake(self, _: object = None) -> None:
        """Have whoever waits look again."""
        self.news.set()

    def give_up_order(self) -> None:
        """Hand out what is held, although what comes before it never will."""
        self.ready.extend(self.held.pop(index) for index in sorted(self.held))


class Batch(AsyncGeneratorBase[Outcome[OriginT_co, DetailT_co]]):
    """
    Iterate over the outcomes of many origins, as they end or in the order of the origins; made by `client.batch(...)`.

    Tasks exist only while the batch is iterated over or held open. A slow consumer holds back new starts: no more than
    the limit are in flight or waiting to be taken. (In order, those that wait for an earlier one do not count, up to 8
    times the limit.) A slow source holds back nothing that has ended; one that fails ends the batch when everything
    that was taken from it is over, with its error.
    """

    def __init__(self, plan: ItemRunner, origins: Origins, limit: int, *, ordered: bool = False) -> None:
        check.boolean("ordered", ordered)
        self._plan = plan
        self._limit = limit
        self._board = _Shared(ordered=ordered)
        self._next: asyncio.Task[Any] | None = None
        self._exhausted = self._stopped = False
        self._failure: BaseException | None = None
        self._count = 0
        self._source = _iterator(origins)

    async def __anext__(self) -> Outcome[OriginT_co, DetailT_co]:
        """Return the next outcome; raise only what *origins* itself raises."""
        board = self._board
        while True:
            board.news.clear()
            self._fill()
            if board.ready:
                return board.ready.popleft()
            if not board.tasks and self._next is None:
                if board.held:
                    board.give_up_order()
                    continue
                failure, self._failure = self._failure, None
                if failure is not None:
                    raise failure
                raise StopAsyncIteration
            await board.news.wait()

    @property
    def taken(self) -> int:
        """Return how many origins were taken so far."""
        return self._count

    def states(self) -> Mapping[str, int]:
        """Return how many of the runs in flight are in which state: "starting", or a `RunStatus`."""
        runs = [None if stream is None else stream.run for stream in self._board.streams.values()]
        return Counter("starting" if run is None else run.status.value for run in runs)

    def stop(self) -> None:
        """
        Take no more origins; what is in flight goes on to its end, and is iterated over.

        To be called in the thread of the loop, from a signal handler of the loop for example.
        """
        self._exhausted = self._stopped = True
        if self._next is not None:
            self._next.cancel()
        self._board.wake()

    async def aclose(self) -> None:
        """Stop starting, and stop waiting for what is in flight; the remote runs go on."""
        self._exhausted = True
        board = self._board
        tasks: set[asyncio.Task[Any]] = {*board.tasks, *([self._next] if self._next else [])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            for task in tasks:
                _ = task.cancelled() or task.exception()
        self._next = None
        board.ready.clear()
        board.held.clear()
        board.wake()
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    def __del__(self) -> None:
        if not hasattr(self, "_source"):  # refused before it began
            return
        for task in (*self._board.tasks, *([self._next] if self._next else [])):
            if not task.done() and not (loop := task.get_loop()).is_closed():
                loop.call_soon_threadsafe(task.cancel)

    # Taking origins ---------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Take origins while there is room; one that has to be waited for is waited for beside the runs."""
        board = self._board
        if self._stopped and self._next is not None and self._next.done():
            _ = self._next.cancelled() or self._next.exception()
            self._next = None
        while not self._exhausted and self._has_room(board):
            try:
                taken = next(self._source, _END) if isinstance(self._source, Iterator) else self._awaited(self._source)
            except (Exception, asyncio.CancelledError) as error:
                self._exhausted, self._failure = True, error
                return
            if taken is _LATER:
                return
            if taken is _END:
                self._exhausted = True
            else:
                board.add(self._plan, self._count, taken)
                self._count += 1

    def _has_room(self, board: _Shared) -> bool:
        return len(board.tasks) + len(board.ready) < self._limit and len(board.held) < _AHEAD * self._limit

    def _awaited(self, source: AsyncIterator[Any]) -> Any:
        """Return the origin that was waited for; `_LATER` while it is."""
        if self._next is None:
            self._next = asyncio.create_task(_taken(source))
            self._next.add_done_callback(self._board.wake)
        if not self._next.done():
            return _LATER
        done, self._next = self._next, None
        return done.result()


def _iterator(origins: Origins) -> Iterator[Any] | AsyncIterator[Any]:
    if isinstance(origins, AsyncIterable):
        return aiter(origins)
    if isinstance(origins, Iterable):
        return iter(origins)
    raise ConfigurationError(f"origins is {origins!r}; it must be an iterable or async iterable of what starts a run")


async def _taken(source: AsyncIterator[Any]) -> Any:
    """Return the next origin, or `_END`."""
    return await anext(source, _END)
