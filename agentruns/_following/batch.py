"""Many runs at once: lazily taken, bounded in flight, each outcome as it comes or in order."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from copy import copy
from functools import partial
from typing import Any, Final

from agentruns._aio.generator import AsyncGeneratorBase
from agentruns._api.admission import Place, forgo
from agentruns._values import check
from agentruns._values.generic import DetailT_co, ItemT_co, OriginT_co
from agentruns._values.run import Origins, Outcome
from agentruns.errors import APIError, ConfigurationError

from .ending import refuses_all
from .items import Followed, ItemRunner, NotBegunError
from .progress import BatchProgress
from .record import status_of

_END: Final = object()
_LATER: Final = object()

_AHEAD: Final = 8
"""How many limits of outcomes are held, at most, for one that comes before them in order."""


class _Shared:
    """What the runs in flight and the batch share: the runs do not know the batch, so that it can be let go of."""

    def __init__(self, *, ordered: bool) -> None:
        self.tasks: set[asyncio.Task[Outcome]] = set()
        self.streams: dict[int, Followed | None] = {}
        self.ready: deque[Outcome] = deque()
        self.held: dict[int, Outcome] = {}
        self.news = asyncio.Event()
        self.refusal: APIError | None = None
        self.not_begun: NotBegunError | None = None
        self._ordered = ordered
        self._due = 0

    def add(self, plan: ItemRunner, index: int, item: Any, place: Place | None) -> None:
        """Begin an item."""
        self.streams[index] = None
        task = asyncio.create_task(plan.run(index, item, self.streams, place))
        self.tasks.add(task)
        task.add_done_callback(partial(self._ended, index, place))

    def _ended(self, index: int, place: Place | None, task: asyncio.Task[Outcome]) -> None:
        if place is not None:
            place.leave()
        self.tasks.discard(task)
        self.streams.pop(index, None)
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, NotBegunError):
            self.not_begun = failure
        elif not task.cancelled() and failure is None:
            self.hand_out(index, task.result())
        self.news.set()

    def hand_out(self, index: int, outcome: Outcome) -> None:
        """Have an outcome taken, in its turn."""
        self.refusal = self.refusal or refuses_all(outcome.error)
        if not self._ordered:
            self.ready.append(outcome)
            return
        self.held[index] = outcome
        while self._due in self.held:
            self.ready.append(self.held.pop(self._due))
            self._due += 1

    def wake(self, _: object = None) -> None:
        """Have whoever waits look again."""
        self.news.set()

    def give_up_order(self) -> None:
        """Hand out what is held, although what comes before it never will."""
        self.ready.extend(self.held.pop(index) for index in sorted(self.held))


class Batch(AsyncGeneratorBase[Outcome[OriginT_co, DetailT_co, ItemT_co]]):
    """
    Iterate over the outcomes of many origins, as they end or in the order of the origins; made by `client.batch(...)`.

    Tasks exist only while the batch is iterated over or held open. A slow consumer holds back new starts: no more than
    the limit are in flight or waiting to be taken. (In order, those that wait for an earlier one do not count, up to 8
    times the limit.) A slow source holds back nothing that has ended; one that fails ends the batch when everything
    that was taken from it is over, with its error. So does an answer of 401, 402 or 403 end it, as every further start
    would get it, unless nothing was left to be taken.
    """

    def __init__(
        self,
        plan: ItemRunner,
        origins: Origins,
        limit: int,
        *,
        ordered: bool = False,
        on_progress: Callable[[BatchProgress], object] | None = None,
    ) -> None:
        check.boolean("ordered", ordered)
        if on_progress is not None and not callable(on_progress):
            raise ConfigurationError(f"on_progress is {on_progress!r}; it must be a function of a BatchProgress")
        self._plan = plan
        self._limit = limit
        self._board = _Shared(ordered=ordered)
        self._next: asyncio.Task[Any] | None = None
        self._item: Any = _END  # that was taken and waits for its place
        self._entering: asyncio.Task[Place] | None = None
        self._exhausted = self._stopped = False
        self._failure: BaseException | None = None
        self._count = self._told = 0
        self._ended: Counter[str] = Counter()
        self._on_progress = on_progress
        self._source = _iterator(origins)

    async def __anext__(self) -> Outcome[OriginT_co, DetailT_co, ItemT_co]:
        """
        Return the next outcome; raise only what *origins* itself raises, and what *on_progress* does.

        Where contact is lost for longer than is borne, or the vendor refuses what it would refuse every origin, raise
        that error, once all that was begun is over. Raise `ConfigurationError`, before anything is taken, if the client
        is not open.
        """
        if not self._count and not self._exhausted:
            self._plan.check_open()
        board = self._board
        while True:
            board.news.clear()
            self._fill()
            if board.ready:
                outcome = board.ready.popleft()
                self._ended[status_of(outcome.error, outcome.run)] += 1
                self._tell()
                return outcome
            if self._told != self._count:
                self._tell()
            if not board.tasks and self._next is None and self._item is _END:
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

    @property
    def refusal(self) -> APIError | None:
        """Return the answer (401, 402 or 403) for which no more origins are taken, None while there was none."""
        return self._board.refusal

    def progress(self) -> BatchProgress:
        """Return how far it has come."""
        return BatchProgress(self._count, len(self._board.tasks), dict(self._ended))

    def _tell(self) -> None:
        self._told = self._count
        if self._on_progress is not None:
            self._on_progress(self.progress())

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
        self._item = _END
        for task in (self._next, self._entering):
            if task is not None:
                task.cancel()
        self._board.wake()

    async def aclose(self) -> None:
        """Stop starting, and stop waiting for what is in flight; the remote runs go on."""
        self._exhausted = True
        self._item = _END
        board = self._board
        tasks: set[asyncio.Task[Any]] = {*board.tasks, *filter(None, (self._next, self._entering))}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            for task in tasks:
                _ = task.cancelled() or task.exception()
        if self._entering is not None:
            forgo(self._entering)
        self._next = self._entering = None
        board.ready.clear()
        board.held.clear()
        board.wake()
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    def __del__(self) -> None:
        if not hasattr(self, "_source"):  # refused before it began
            return
        for task in (*self._board.tasks, *filter(None, (self._next, self._entering))):
            if not task.done() and not (loop := task.get_loop()).is_closed():
                loop.call_soon_threadsafe(task.cancel)

    # Taking origins ---------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Take origins while there is room; one that has to be waited for is waited for beside the runs."""
        board = self._board
        if board.refusal is not None and not self._stopped:
            self._refuse(board.refusal)
        if board.not_begun is not None and not self._stopped:
            self._failure = board.not_begun.because
            self.stop()
        if self._stopped and self._next is not None and self._next.done():
            _ = self._next.cancelled() or self._next.exception()
            self._next = None
        if self._stopped and self._entering is not None and self._entering.done():
            forgo(self._entering)
            self._entering = None
        while (self._item is not _END or not self._exhausted) and self._has_room(board):
            try:
                place = self._take_item() and self._admitted()
            except (Exception, asyncio.CancelledError) as error:
                self._exhausted, self._failure, self._item = True, error, _END
                return
            if place is False or place is _LATER:
                return
            item, self._item = self._item, _END
            board.add(self._plan, self._count, item, place)
            self._count += 1

    def _refuse(self, refusal: APIError) -> None:
        """Begin nothing more, since the vendor would refuse it; what was taken and waits for its place ends so."""
        board, item = self._board, self._item
        if not self._exhausted:
            self._failure = refusal
        self.stop()
        if item is not _END:
            board.hand_out(self._count, Outcome(self._count, None, item, None, copy(refusal), item=item))
            self._count += 1

    def _take_item(self) -> bool:
        """Take the next item, unless one waits for its place; return whether there is one."""
        if self._item is _END:
            taken = next(self._source, _END) if isinstance(self._source, Iterator) else self._awaited(self._source)
            if taken is _LATER:
                return False
            self._exhausted = taken is _END
            self._item = taken
        return self._item is not _END

    def _admitted(self) -> Any:
        """Return the place of the next item, None if it needs none; `_LATER` while it is waited for."""
        entrance = self._plan.entrance
        if entrance is None:
            return None
        if self._entering is None:
            place = entrance.enter_nowait()
            if place is not None:
                return place
            self._entering = asyncio.create_task(entrance.enter())
            self._entering.add_done_callback(self._board.wake)
        if not self._entering.done():
            return _LATER
        done, self._entering = self._entering, None
        return done.result()

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
