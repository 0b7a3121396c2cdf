"""What a blocking client gives to iterate over: each step is one of the async object beneath, in the client's loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

from agentruns._following.batch import Batch as AsyncBatch
from agentruns._following.progress import BatchProgress
from agentruns._following.stream import RunStream as AsyncRunStream
from agentruns._values.exchange import ServerEvent
from agentruns._values.generic import DetailT_co, ItemT_co, OriginT_co
from agentruns._values.run import Origins, Outcome, Run, ToolOutput
from agentruns.errors import APIError

from .loop_thread import Caller, LoopThread

T_co = TypeVar("T_co", covariant=True)

_END: Final[Any] = object()


class Iteration(Iterator[T_co]):
    """
    Iterate over what an async iterator gives, in any thread; one thread at a time.

    Who leaves the loop early lets go of it: that closes it, soon. `close`, or `with`, closes it at once.
    """

    def __init__(self, loop: LoopThread, source: AsyncIterator[T_co], caller: Caller | None = None) -> None:
        self._loop = loop
        self._caller = caller
        self._source = source
        self._is_over = False

    def __repr__(self) -> str:
        return f"<blocking {self._source!r}>"

    def __next__(self) -> T_co:
        """Return the next item; raise what the step of the async iterator raises."""
        item = self._loop.call(self._step, self._caller)
        if item is _END:
            self._is_over = True
            raise StopIteration
        return item

    async def _step(self) -> T_co:
        return await anext(self._source, _END)

    def close(self) -> None:
        """End the iteration, and what it has under way; another thread that waits for a step sees the end."""
        self._is_over = True
        if self._loop.is_open:  # else it has ended with the client
            self._loop.call(partial(_close, self._source))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._is_over:
            self._loop.call_soon(partial(_close_soon, self._source))


async def _close(source: AsyncIterator[Any]) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()


def _close_soon(source: AsyncIterator[Any]) -> None:
    task = asyncio.ensure_future(_close(source))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_closing: Final[set[asyncio.Future[None]]] = set()
"""Tasks that close what was let go of: a loop alone does not keep its tasks."""

EventStream: TypeAlias = Iteration[ServerEvent]


class RunStream(Iteration[Run[DetailT_co]]):
    """
    Iterate over the states of one run; made by `client.stream(...)`, as `agentruns.RunStream` is.

    `run` is the last state seen. A step that fails, or that is interrupted, may be asked for again: it goes on where it
    was.
    """

    _source: AsyncRunStream[DetailT_co]

    def __init__(self, loop: LoopThread, source: AsyncRunStream[DetailT_co]) -> None:
        super().__init__(loop, source)

    @property
    def run(self) -> Run[DetailT_co] | None:
        """Return the last state that was seen, None before the first."""
        return self._source.run

    @property
    def outputs(self) -> tuple[ToolOutput, ...]:
        """Return the answers that handlers gave and that are not posted yet."""
        return self._source.outputs

    def result(self) -> Run[DetailT_co]:
        """Go on to the end of the run, and return its last state; raise as `agentruns.RunStream.result` does."""
        return self._loop.call(self._source.result)

    def leave(self) -> None:
        """End the stream as an interrupted wait does: the remote run is cancelled if `on_cancel` says so."""
        self._loop.call(self._source.leave)


class _Taken(AsyncIterator[Any]):
    """The items of an iterable, each taken in the thread that waits for the batch: they may block, and need it."""

    def __init__(self, items: Iterable[Any], caller: Caller) -> None:
        self._items = iter(items)
        self._caller = caller

    async def __anext__(self) -> Any:
        item = await self._caller.do(partial(next, self._items, _END))
        if item is _END:
            raise StopAsyncIteration
        return item


def taken(origins: Origins[Any], caller: Caller) -> Origins[Any]:
    """Return origins for the loop: those of an iterable are taken in the thread that waits."""
    if isinstance(origins, AsyncIterable) or not isinstance(origins, Iterable):
        return origins  # what is neither, the batch refuses
    return _Taken(origins, caller)


class Batch(Iteration[Outcome[OriginT_co, DetailT_co, ItemT_co]], Generic[OriginT_co, DetailT_co, ItemT_co]):
    """
    Iterate over the outcomes of many origins; made by `client.batch(...)`, as `agentruns.Batch` is.

    Origins are taken, and `on_progress` is called, in the thread that iterates, while it waits.
    """

    _source: AsyncBatch[OriginT_co, DetailT_co, ItemT_co]

    def __init__(self, loop: LoopThread, source: AsyncBatch[OriginT_co, DetailT_co, ItemT_co], caller: Caller) -> None:
        super().__init__(loop, source, caller)

    @property
    def taken(self) -> int:
        """Return how many origins were taken so far."""
        return self._source.taken

    @property
    def refusal(self) -> APIError | None:
        """Return the answer (401, 402 or 403) for which no more origins are taken, None while there was none."""
        return self._source.refusal

    def progress(self) -> BatchProgress:
        """Return how far it has come."""
        return self._loop.do(self._source.progress)

    def states(self) -> Mapping[str, int]:
        """Return how many of the runs in flight are in which state: "starting", or a `RunStatus`."""
        return self._loop.do(self._source.states)

    def stop(self) -> None:
        """Take no more origins; what is in flight goes on to its end, and is iterated over."""
        self._loop.do(self._source.stop)
