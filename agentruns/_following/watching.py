"""
One run as those see it who only look: from where it is, through every pause, to its end; nothing is done to it.

Who drives the run is not known here. It may be another process: where both have one journal, that tells what it sees,
and the vendor is not asked. A run that nobody drives is read as a stream reads it, and while it waits for an answer,
seldom. Of several processes that have one journal, one reads it, and the others see what that one sees.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NoReturn

from agentruns._aio.generator import AsyncGeneratorBase
from agentruns._aio.tasks import Tasks
from agentruns._api.operations import Operations
from agentruns._api.retry import Backoff
from agentruns._keeping.shared import Change, ReadState, SharedState, SharedStates
from agentruns._polling.poller import Poller
from agentruns._values.generic import DetailT_co
from agentruns._values.news import Novelty, compare
from agentruns._values.run import Run, RunRef
from agentruns.errors import AgentRunsError, DeadlineExceededError

from .ending import Closed, Ended, ended
from .looking import Look
from .options import Options
from .stream import RunStream, close

_LOOKS: Final = Backoff(initial=5.0, factor=1.5, maximum=30.0, jitter=0.0)
"""How often a run that waits for an answer is looked at."""


class RunWatch(AsyncGeneratorBase[Run[DetailT_co]]):
    """
    Iterate over the states of one run without any part in it; made by `watch` of the client.

    Yields the state in which the run is, then each that differs, through every pause: also those of the run that an
    answer brings, where the journal or the vendor tells which that is. It ends after `completed` or `failed`. `run` is
    the last state seen. A step may time out and be asked for again with nothing lost.
    """

    __slots__ = (
        "__weakref__",
        "_deadline",
        "_elsewhere",
        "_ended",
        "_is_waited_for",
        "_kept",
        "_look_at",
        "_look_count",
        "_news",
        "_open",
        "_operations",
        "_options",
        "_pause",
        "_poller",
        "_reads",
        "_ref",
        "_shared",
        "_stream",
        "_tasks",
        "_until_free",
        "_wake",
        "run",
    )

    def __init__(
        self,
        ref: RunRef,
        *,
        stream: Callable[[Run | RunRef], RunStream[DetailT_co]],
        operations: Operations,
        poller: Poller,
        tasks: Tasks,
        shared: SharedStates | None,
        options: Options,
        until_free: bool = False,
    ) -> None:
        self.run: Run[DetailT_co] | None = None
        self._ref = ref
        self._open = stream
        self._operations = operations
        self._poller = poller
        self._tasks = tasks
        self._shared = shared
        self._options = options
        self._until_free = until_free
        self._kept: SharedState | None = None
        self._elsewhere: ReadState | None = None  # what another process has read
        self._reads: str | None = None  # the run that this process reads for the others
        self._news = False  # a state is to be shown that the others are not told yet
        self._stream: RunStream[DetailT_co] | None = None
        self._pause: Look | None = None
        self._look_at = 0.0
        self._look_count = 0
        self._deadline: float | None = None
        self._wake: asyncio.Future[None] | None = None
        self._is_waited_for = False
        self._ended: Ended | None = None

    def __repr__(self) -> str:
        return f"<RunWatch {f'{self.run.id} {self.run.status}' if self.run else self._ref.id}>"

    async def __anext__(self) -> Run[DetailT_co]:
        """
        Return the next state.

        Raise `DeadlineExceededError`, the last `TransportError` or `ServerError` when contact stays lost, and
        `APIError` for a refusal, such as `NotFoundError` for a run that there is not.
        """
        if self._is_waited_for:
            raise AgentRunsError("another task is waiting on this watch already; open one per task")
        self._is_waited_for = True
        try:
            while self._ended is None:
                if await self._next():
                    assert self.run is not None
                    return self.run
        finally:
            self._is_waited_for = False
        await self._let_go()
        if isinstance(self._ended, Closed) and self._ended.reason:
            raise AgentRunsError(self._ended.reason)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Look no more; another task that waits sees the end."""
        self._close("")
        await self._let_go()

    async def leave(self) -> None:
        """Look no more; the run goes on."""
        await self.aclose()

    def _close(self, reason: str) -> None:
        if not isinstance(self._ended, Closed):
            self._ended = ended(self._ended, Closed(reason))
        if self._stream is not None:
            close(self._stream, reason)
        self._stir()

    def __del__(self) -> None:
        if self._pause is not None:
            self._tasks.call_soon(self._pause.stop)
        if self._reads is not None and self._shared is not None:
            self._tasks.call_soon(partial(self._shared.read_no_more, self._reads))

    async def _let_go(self) -> None:
        self._look_away()
        self._read_no_more()
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    # One step ---------------------------------------------------------------------------------------------------------

    async def _next(self) -> bool:
        """Go on by one state, or one wait; return whether there is a state to show."""
        self._operations.check_open()
        if self._news:
            return await self._tell()
        if self._deadline is None:
            seconds = self._options.timeout
            self._deadline = math.inf if seconds is None else asyncio.get_running_loop().time() + seconds
        stream = self._stream
        if stream is not None and self.run is not None and not _is_at(stream, self.run):
            await stream.aclose()
            self._stream = None
        if self.run is not None and self.run.status.is_over and self._kept is not None and self._kept.run is self.run:
            self._end()  # the journal has said so
            return False
        with self._change() as change:
            kept = await self._look()
            if change is not None:
                change.seen = kept
            if kept is not None and kept is not self._kept:
                before, self._kept = self._kept, kept
                if self._takes(before, kept):
                    return True
            if self._ended is not None or (self.run is not None and self.run.status.is_over):
                self._end()
                return False
            is_driven = kept is not None and kept.is_driven
            if self._until_free and not is_driven:
                self._end()
                return False
            if is_driven and self.run is not None:
                self._look_away()
                self._read_no_more()
                await self._rest(change, math.inf)
                return False
            is_ours = kept is not None and kept.is_ours
            if self._shared is not None and change is not None and self._reads is None and not is_ours:
                seen = self._elsewhere
                self._elsewhere = await self._shared.read_elsewhere(self._ref.id, seen)
                if self._elsewhere is not None:
                    return await self._look_on(self._elsewhere, change, is_new=self._elsewhere is not seen)
                self._reads = self._ref.id
            return await self._read_on(change)

    def _takes(self, before: SharedState | None, kept: SharedState) -> bool:
        """Take in what the journal has of the work; return whether it is to be shown."""
        if kept.run is None or not _differs(before, kept.run):
            return False
        if self.run is None and not (kept.is_driven or kept.is_ours or kept.run.status.is_over):
            self._ref = kept.run.ref  # it may have been shown in a later state: whoever reads it knows
            return False
        return self._accept(kept.run)

    async def _look_on(self, elsewhere: ReadState, change: Change, *, is_new: bool) -> bool:
        """Take in what another process has read; wait for more of it, if that is nothing to show."""
        change.run_id, change.read = self._ref.id, elsewhere
        await self._let_go()
        if is_new and elsewhere.run is not None and self._accept(elsewhere.run):
            return True
        if not elsewhere.is_done:
            await self._rest(change, math.inf)
        return False

    async def _read_on(self, change: Change | None) -> bool:
        """Wait for the next state; return whether it is to be shown."""
        if self.run is None or self.run.status.in_flight:
            self._news = await self._read()
        else:
            self._news = await self._look_at_pause(self.run, change)
        return self._news and await self._tell()

    async def _tell(self) -> bool:
        """Tell those who watch in other processes of a state that is to be shown; return True."""
        if self._reads is not None and self._shared is not None and self.run is not None:
            is_reader = await self._shared.share(self._reads, self.run)
            if not is_reader or self.run.id != self._reads:
                self._read_no_more()
        self._news = False
        return True

    def _read_no_more(self) -> None:
        """Leave it to others to read the run, if this process does."""
        run_id, self._reads = self._reads, None
        if run_id is not None and self._shared is not None:
            self._shared.read_no_more(run_id)

    async def _look(self) -> SharedState | None:
        """Return what the journal has of the run, None if it has nothing."""
        if self._shared is None:
            return None
        if self._kept is not None:
            return await self._shared.of_key(self._kept.key, self._kept)
        return await self._shared.of_run(self._ref.id)

    async def _read(self) -> bool:
        """Wait for the next state that a read shows."""
        self._look_away()
        if self._stream is None:
            self._stream = self._open(self._ref if self.run is None else self.run)
        assert self._deadline is not None
        guard = asyncio.timeout_at(None if self._deadline == math.inf else self._deadline)
        try:
            async with guard:
                run = await anext(self._stream)
        except StopAsyncIteration:
            self._stream = None
            return False
        except TimeoutError:
            if guard.expired():
                self._run_out()
            raise
        return self._accept(run)

    async def _look_at_pause(self, run: Run[Any], change: Change | None) -> bool:
        """Wait until a run that waits for an answer may have moved."""
        loop = asyncio.get_running_loop()
        if self._pause is None:
            self._pause = Look(run, self._poller, self._options, self._stir, loop.time())
            self._look_count = 0
            self._look_at = loop.time() + _LOOKS.delay(0)
        if self._pause.moved is None:
            await self._rest(change, self._look_at)
        if self._pause.moved is not None:
            return self._moved_to(self._pause.moved)
        if loop.time() >= self._look_at:
            self._look_count += 1
            self._look_at = loop.time() + _LOOKS.delay(self._look_count)
            self._pause.look_again(loop.time())
        return False

    def _moved_to(self, run: Run[Any]) -> bool:
        self._look_away()
        return self._accept(run)

    def _accept(self, run: Run[Any]) -> bool:
        """Take a state in; return whether it is to be shown."""
        novelty = compare(self.run, run)
        if novelty is Novelty.STALE or novelty is Novelty.SAME:
            return False
        if self.run is not None and run.id != self.run.id:
            self._look_away()
            self._elsewhere = None
        self.run, self._ref = run, run.ref
        return novelty is Novelty.NEWS or self._options.progress

    # Waiting ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def _change(self) -> Iterator[Change | None]:
        if self._shared is None:
            yield None
            return
        with self._shared.change(self._ref.id, self._kept) as change:
            yield change

    async def _rest(self, change: Change | None, until: float) -> None:
        """Wait until something stirs, or until a time of the loop; raise `DeadlineExceededError` at the deadline."""
        loop = asyncio.get_running_loop()
        assert self._deadline is not None
        if loop.time() >= self._deadline:
            self._run_out()
        self._wake = wake = loop.create_future()
        if change is not None:
            change.future.add_done_callback(self._stirred)
        until = min(until, self._deadline)
        timer = None if until == math.inf else loop.call_at(until, self._stir)
        try:
            await wake
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()
            if change is not None:
                change.future.remove_done_callback(self._stirred)

    def _run_out(self) -> NoReturn:
        self._end()
        raise DeadlineExceededError(self.run, f"{self._options.timeout:g} s have passed", begun=False) from None

    def _stirred(self, _: asyncio.Future[None]) -> None:
        self._stir()

    def _stir(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _look_away(self) -> None:
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.stop()

    def _end(self) -> None:
        if self._ended is None:
            self._ended = ended(None, Closed())


def _is_at(stream: RunStream[Any], run: Run[Any]) -> bool:
    """Tell whether a stream has more to show of a run: it is of that run, which is in flight."""
    return run.status.in_flight and (stream.run is None or stream.run.id == run.id)


def _differs(before: SharedState | None, run: Run[Any]) -> bool:
    """Tell whether the journal says something else of the run than before."""
    return before is None or before.run is None or before.run != run or before.run.progress != run.progress
