"""Many runs at once: lazily taken, bounded in flight, each outcome as it comes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

from .errors import ConfigurationError, RunError
from .model import Origins, Outcome, Run
from .steps import Steps

_END: Final = object()
_LATER: Final = object()


class Batch(Steps[Outcome]):
    """
    Iterate over the outcomes of many origins in the order in which they end; made by `client.batch(...)`.

    Tasks exist only while the batch is iterated over or held open. A slow consumer holds back new starts: no more than
    the limit are in flight or waiting to be taken. A slow source holds back nothing that has ended.
    """

    def __init__(
        self,
        run: Callable[[Any], Awaitable[Run]],
        origins: Origins,
        limit: int,
        key: Callable[[Any], str] | None,
    ) -> None:
        self._run = run
        self._limit = limit
        self._key = key
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self._next: asyncio.Task[Any] | None = None
        self._ready: deque[Outcome] = deque()
        self._exhausted = False
        self._count = 0
        self._source = _iterator(origins)

    async def __anext__(self) -> Outcome:
        """Return the next outcome; raise only what *origins* itself raises."""
        while True:
            for task in [task for task in self._tasks if task.done()]:
                self._tasks.discard(task)
                self._ready.append(task.result())
            if self._ready:
                return self._ready.popleft()
            self._fill()
            waiting: set[asyncio.Task[Any]] = {*self._tasks, *([self._next] if self._next else [])}
            if not waiting and not self._ready:
                raise StopAsyncIteration
            if waiting and not self._ready:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

    def _fill(self) -> None:
        """Take origins while there is room; one that has to be waited for is waited for beside the runs."""
        while not self._exhausted and len(self._tasks) + len(self._ready) < self._limit:
            try:
                taken = next(self._source, _END) if isinstance(self._source, Iterator) else self._awaited(self._source)
            except BaseException:
                self._exhausted = True
                raise
            if taken is _LATER:
                return
            if taken is _END:
                self._exhausted = True
            else:
                self._start(taken)

    def _awaited(self, source: AsyncIterator[Any]) -> Any:
        """Return the origin that was waited for; `_LATER` while it is."""
        if self._next is None:
            self._next = asyncio.create_task(_taken(source))
        if not self._next.done():
            return _LATER
        done, self._next = self._next, None
        return done.result()

    def _start(self, origin: Any) -> None:
        index, self._count = self._count, self._count + 1
        try:
            key = None if self._key is None else self._key(origin)
        except Exception as error:
            self._ready.append(Outcome(index, None, origin, None, error))
        else:
            self._tasks.add(asyncio.create_task(_one(self._run, index, origin, key)))

    async def aclose(self) -> None:
        """Stop starting, and stop waiting for what is in flight; the remote runs go on."""
        self._exhausted = True
        tasks: set[asyncio.Task[Any]] = {*self._tasks, *([self._next] if self._next else [])}
        self._tasks, self._next = set(), None
        self._ready.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            for task in tasks:
                _ = task.cancelled() or task.exception()
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    def __del__(self) -> None:
        for task in (*self._tasks, *([self._next] if self._next else [])):
            if not task.done() and not (loop := task.get_loop()).is_closed():
                loop.call_soon_threadsafe(task.cancel)


def _iterator(origins: Origins) -> Iterator[Any] | AsyncIterator[Any]:
    if isinstance(origins, AsyncIterable):
        return aiter(origins)
    if isinstance(origins, Iterable):
        return iter(origins)
    raise ConfigurationError(f"origins is {origins!r}; it must be an iterable or async iterable of what starts a run")


async def _taken(source: AsyncIterator[Any]) -> Any:
    """Return the next origin, or `_END`."""
    return await anext(source, _END)


async def _one(run: Callable[[Any], Awaitable[Run]], index: int, origin: Any, key: str | None) -> Outcome:
    try:
        last = await run(origin)
    except Exception as error:
        seen = error.run if isinstance(error, RunError) else None
        return Outcome(index, key, origin, seen, error)
    return Outcome(index, key, origin, last)
