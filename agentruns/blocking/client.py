"""The client for code that is not async: each call is one of the async client, in the client's own loop."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack, overload

import anyio.to_thread

from agentruns._following.options import StreamOptions, Timeout
from agentruns._following.progress import BatchProgress
from agentruns._keeping.work import Changed, Unfinished
from agentruns._polling.stats import Stats
from agentruns._values.commands import Flow
from agentruns._values.generic import DetailT, OriginT
from agentruns._values.run import Origins, Run, RunRef, ToolOutput
from agentruns.client import Client as AsyncClient
from agentruns.tools import ToolsLike

from .iterating import Batch, EventStream, Iteration, RunStream, taken
from .loop_thread import Caller, LoopThread

T = TypeVar("T")
ItemT = TypeVar("ItemT")


class Client(Generic[OriginT, DetailT]):
    """
    Start, follow, answer and cancel runs of one vendor, without await; made by `agentruns.blocking.connect`.

    A context manager. Its methods are those of `agentruns.Client`, with the same arguments, results and errors, and any
    number of threads may call them. A call that is interrupted, as by Ctrl-C, ends as a cancelled wait does. Within a
    running event loop, each raises `ConfigurationError`.
    """

    def __init__(self, client: AsyncClient[OriginT, DetailT]) -> None:
        self._client = client
        self._loop = LoopThread()

    def __repr__(self) -> str:
        return f"<blocking {self._client!r}>"

    def __enter__(self) -> Self:
        self._loop.open(self._client)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.close()

    def start(self, origin: OriginT) -> Run[DetailT]:
        """Start a run and return its first state."""
        return self._loop.call(partial(self._client.start, origin))

    def fetch(self, run: Run[DetailT] | RunRef, **params: str) -> Run[DetailT]:
        """Read a run once and return its state; *params* are sent as query parameters."""
        return self._loop.call(partial(self._client.fetch, run, **params))

    def stream(self, origin: OriginT | Run[DetailT] | RunRef, **options: Unpack[StreamOptions]) -> RunStream[DetailT]:
        """
        Return the states of a run as an iterator: of a new run, if *origin* is what starts one.

        The options are those of `agentruns.Client.stream`. A function given as *events* is called in the thread of the
        client's loop.
        """
        return RunStream(self._loop, self._loop.do(partial(self._client.stream, origin, **options)))

    def events(self, run: Run[DetailT] | RunRef) -> EventStream:
        """Return the events of a run as an iterator, until the vendor ends the stream; for `with`."""
        return Iteration(self._loop, self._loop.do(partial(self._client.events, run)))

    def result(self, origin: OriginT | Run[DetailT] | RunRef, **options: Unpack[StreamOptions]) -> Run[DetailT]:
        """Follow a run until it has completed and return its last state; the options are those of `stream`."""
        return self._loop.call(partial(self._client.result, origin, **options))

    def resume(
        self,
        run: Run[DetailT],
        outputs: Sequence[ToolOutput],
        *,
        again: bool = False,
        origin: OriginT | None = None,
    ) -> Run[DetailT]:
        """Answer a paused run and return the state that follows, as `agentruns.Client.resume` does."""
        return self._loop.call(partial(self._client.resume, run, outputs, again=again, origin=origin))

    def cancel(self, run: Run[DetailT] | RunRef) -> Run[DetailT] | None:
        """Cancel a run and return its state afterwards, as `agentruns.Client.cancel` does."""
        return self._loop.call(partial(self._client.cancel, run))

    def runs(self, parent: str | None = None) -> Iteration[Run[DetailT]]:
        """Iterate over the runs of *parent*, newest first, as `agentruns.Client.runs` does."""
        return Iteration(self._loop, self._loop.do(partial(self._client.runs, parent)))

    @overload
    def batch(
        self,
        origins: Origins[OriginT],
        *,
        limit: int = 64,
        tools: ToolsLike | None = None,
        timeout: Timeout = "vendor",
        key: Callable[[OriginT], str] | None = None,
        ordered: bool = False,
        prepare: None = None,
        include: str | None = None,
        params: Mapping[str, str] | None = None,
        options: Callable[[OriginT], StreamOptions] | None = None,
        changed: Changed = "refuse",
        on_progress: Callable[[BatchProgress], object] | None = None,
        patience: float = 3600.0,
    ) -> Batch[OriginT, DetailT, OriginT]: ...
    @overload
    def batch(
        self,
        origins: Origins[Run[DetailT] | RunRef],
        *,
        limit: int = 64,
        tools: ToolsLike | None = None,
        timeout: Timeout = "vendor",
        key: Callable[[Run[DetailT] | RunRef], str] | None = None,
        ordered: bool = False,
        prepare: None = None,
        include: str | None = None,
        params: Mapping[str, str] | None = None,
        options: Callable[[Run[DetailT] | RunRef], StreamOptions] | None = None,
        changed: Changed = "refuse",
        on_progress: Callable[[BatchProgress], object] | None = None,
        patience: float = 3600.0,
    ) -> Batch[Run[DetailT] | RunRef, DetailT, Run[DetailT] | RunRef]: ...
    @overload
    def batch(
        self,
        origins: Origins[ItemT],
        *,
        limit: int = 64,
        tools: ToolsLike | None = None,
        timeout: Timeout = "vendor",
        key: Callable[[ItemT], str] | None = None,
        ordered: bool = False,
        prepare: Callable[[ItemT], OriginT | Awaitable[OriginT]],
        include: str | None = None,
        params: Mapping[str, str] | None = None,
        options: Callable[[ItemT], StreamOptions] | None = None,
        changed: Changed = "refuse",
        on_progress: Callable[[BatchProgress], object] | None = None,
        patience: float = 3600.0,
    ) -> Batch[OriginT | ItemT, DetailT, ItemT]: ...
    def batch(
        self,
        origins: Origins[Any],
        *,
        limit: int = 64,
        tools: ToolsLike | None = None,
        timeout: Timeout = "vendor",
        key: Callable[[Any], str] | None = None,
        ordered: bool = False,
        prepare: Callable[[Any], Any] | None = None,
        include: str | None = None,
        params: Mapping[str, str] | None = None,
        options: Callable[[Any], StreamOptions] | None = None,
        changed: Changed = "refuse",
        on_progress: Callable[[BatchProgress], object] | None = None,
        patience: float = 3600.0,
    ) -> Batch[Any, DetailT, Any]:
        """
        Run many origins, never more than *limit* at once, and iterate over each `Outcome` as it ends.

        The options are those of `agentruns.Client.batch`. What the code of a caller may need its own thread for happens
        in the thread that iterates, while it waits: *origins* are taken there, and *on_progress* is called there.
        *prepare* is called in threads of its own, many at a time, if it is not async. *key* and *options* are called in
        the thread of the client's loop: they must not wait.
        """
        caller = Caller()
        batch: Any = self._client.batch  # of which overload, the caller's own call says
        made = self._loop.do(
            partial(
                batch,
                taken(origins, caller),
                limit=limit,
                tools=tools,
                timeout=timeout,
                key=key,
                ordered=ordered,
                prepare=partial(_prepared, prepare) if callable(prepare) else prepare,
                include=include,
                params=params,
                options=options,
                changed=changed,
                on_progress=partial(caller.tell, on_progress) if callable(on_progress) else on_progress,
                patience=patience,
            )
        )
        return Batch(self._loop, made, caller)

    def perform(self, flow: Flow[T]) -> T:
        """Run a vendor's operation, such as `narrative.get_conversation(id)`, and return its result."""
        return self._loop.call(partial(self._client.perform, flow))

    def heard(self, run: Run[DetailT]) -> bool:
        """Take in a state of a run that came from elsewhere, such as a webhook, as if it had been polled."""
        return self._loop.do(partial(self._client.heard, run))

    def unfinished(self) -> Iteration[Unfinished[OriginT, DetailT]]:
        """Iterate over the work in the journal that is not done, oldest first."""
        return Iteration(self._loop, self._loop.do(self._client.unfinished))

    def work(self, key: str) -> Unfinished[OriginT, DetailT] | None:
        """Return the work that *key* names in the journal, done or not; None if there is none."""
        return self._loop.call(partial(self._client.work, key))

    def prune(self, *, older_than: float) -> int:
        """Delete what was done more than *older_than* seconds ago from the journal, and return how many pieces."""
        return self._loop.call(partial(self._client.prune, older_than=older_than))

    def stats(self) -> Stats:
        """Return what this client watches and sends, in numbers."""
        return self._loop.do(self._client.stats)


async def _prepared(prepare: Callable[[Any], Any], item: Any) -> Any:
    made = await anyio.to_thread.run_sync(prepare, item, abandon_on_cancel=True)
    return await made if inspect.isawaitable(made) else made
