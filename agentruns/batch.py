"""Many runs at once: lazily taken, bounded in flight, each outcome as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from .errors import RunError
from .model import Origins, Outcome, Run
from .steps import Steps


class Batch(Steps[Outcome]):
    """
    Iterate over the outcomes of many origins in the order in which they end; made by `client.batch(...)`.

    Tasks exist only while the batch is iterated over or held open. A slow consumer holds back new starts: no more than
    the limit are in flight or waiting to be taken.
    """

    def __init__(
        self,
        run: Callable[[Any], Awaitable[Run]],
        origins: Origins,
        limit: int,
        key: Callable[[Any], str] | None,
    ) -> None:
        self._run = run
        self._origins = _iterate(origins)
        self._limit = limit
        self._key = key
        self._tasks: set[asyncio.Task[Outcome]] = set()
        self._exhausted = False
        self._count = 0

    async def __anext__(self) -> Outcome:
        """Return the next outcome; raise only what *origins* itself raises."""
        while True:
            done = next((task for task in self._tasks if task.done()), None)
            if done is not None:
                self._tasks.discard(done)
                return done.result()
            await self._fill()
            if not self._tasks:
                raise StopAsyncIteration
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _fill(self) -> None:
        while not self._exhausted and len(self._tasks) < self._limit:
            try:
                origin = await anext(self._origins)
            except StopAsyncIteration:
                self._exhausted = True
                return
            key = None if self._key is None else self._key(origin)
            self._tasks.add(asyncio.create_task(_one(self._run, self._count, origin, key)))
            self._count += 1

    async def aclose(self) -> None:
        """Stop starting, and stop waiting for what is in flight; the remote runs go on."""
        self._exhausted = True
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        close = getattr(self._origins, "aclose", None)
        if close is not None:
            await close()

    def __del__(self) -> None:
        for task in self._tasks:
            if not task.done() and not (loop := task.get_loop()).is_closed():
                loop.call_soon_threadsafe(task.cancel)


async def _one(run: Callable[[Any], Awaitable[Run]], index: int, origin: Any, key: str | None) -> Outcome:
    try:
        last = await run(origin)
    except Exception as error:
        seen = error.run if isinstance(error, RunError) else None
        return Outcome(index, origin, seen, error, key)
    return Outcome(index, origin, last, None, key)


async def _iterate(origins: Origins) -> AsyncIterator[Any]:
    if isinstance(origins, AsyncIterable):
        async for origin in origins:
            yield origin
    else:
        assert isinstance(origins, Iterable)
        for origin in origins:
            yield origin
