"""One run that several processes would drive: one does, and the others look on, and go on with it when that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from agentruns._aio.generator import AsyncGeneratorBase
from agentruns._keeping.shared import SharedState, SharedStates
from agentruns._values.generic import DetailT_co
from agentruns._values.news import Novelty, compare
from agentruns._values.run import Run, RunRef
from agentruns.errors import AgentRunsError, DeadlineExceededError

from .ending import Closed, Ended, ended
from .stream import RunStream, close, count_from
from .watching import RunWatch


class RunDrive(AsyncGeneratorBase[Run[DetailT_co]]):
    """
    Iterate over the states of one run as a stream does, but do nothing while another process is at its work.

    Made by `drive` of the client. While another process drives the run, its states come as a `RunWatch` has them; when
    that process is gone, this one goes on with the work, as `client.stream` does. `run` is the last state seen. Its
    *timeout*, in seconds, begins with the first step, whoever is at the work; None sets none.
    """

    __slots__ = (
        "__weakref__",
        "_began",
        "_ended",
        "_find",
        "_is_waited_for",
        "_looks_on",
        "_shared",
        "_stream",
        "_timeout",
        "_watch",
        "run",
    )

    def __init__(
        self,
        stream: RunStream[DetailT_co],
        watch: Callable[[RunRef], RunWatch[DetailT_co]],
        shared: SharedStates,
        find: Callable[[], Awaitable[SharedState | None]],
        timeout: float | None,
    ) -> None:
        self.run: Run[DetailT_co] | None = None
        self._stream = stream
        self._looks_on: Callable[[RunRef], RunWatch[DetailT_co]] | None = watch
        self._watch: RunWatch[DetailT_co] | None = None
        self._shared = shared
        self._find = find
        self._timeout = timeout
        self._began: float | None = None
        self._is_waited_for = False
        self._ended: Ended | None = None

    def __repr__(self) -> str:
        return f"<RunDrive of {self._stream!r}{'' if self.is_driving else ', which another process drives'}>"

    @property
    def is_driving(self) -> bool:
        """Tell whether this process drives the run; it may be found out only by the first step."""
        return self._looks_on is None

    async def __anext__(self) -> Run[DetailT_co]:
        """Return the next state; raise what a step of `client.stream` raises."""
        if self._is_waited_for:
            raise AgentRunsError("another task is waiting on this drive already; open one per task")
        self._is_waited_for = True
        try:
            while self._ended is None:
                run = await (self._next_seen_in_time() if self._looks_on is not None else anext(self._stream))
                if run is not None and compare(self.run, run) in {Novelty.NEWS, Novelty.PROGRESS}:
                    self.run = run
                    return run
        finally:
            self._is_waited_for = False
        if isinstance(self._ended, Closed) and self._ended.reason:
            raise AgentRunsError(self._ended.reason)
        raise StopAsyncIteration

    async def _next_seen_in_time(self) -> Run[DetailT_co] | None:
        """Return what `_next_seen` does; raise `DeadlineExceededError` when the timeout is over."""
        if self._began is None:
            self._began = asyncio.get_running_loop().time()
        guard = asyncio.timeout_at(None if self._timeout is None else self._began + self._timeout)
        try:
            async with guard:
                return await self._next_seen()
        except TimeoutError:
            if not guard.expired():
                raise
            self._ended = ended(self._ended, Closed()) if self._ended is None else self._ended
            why = f"{self._timeout:g} s have passed, and another process is at the work"
        await self.aclose()
        raise DeadlineExceededError(self.run, why)

    async def _next_seen(self) -> Run[DetailT_co] | None:
        """Return what the process that drives the run has seen; None if there is none, or when it is gone."""
        assert self._looks_on is not None
        if self._watch is None:
            with self._shared.change() as change:
                found = await self._find()
                if found is None or not found.is_driven:
                    self._looks_on = None
                    assert self._began is not None
                    count_from(self._stream, self._began)
                    return None
                if found.run is None:  # it is being started
                    change.seen = found
                    await asyncio.wait([change.future])
                    return None
            self._watch = self._looks_on(found.run.ref)
        try:
            return await anext(self._watch)
        except StopAsyncIteration:
            watch, self._watch = self._watch, None
            if watch.run is not None and watch.run.status.is_over:
                self._ended = ended(self._ended, Closed()) if self._ended is None else self._ended
            return None

    async def aclose(self) -> None:
        """End it, and what it has under way; another task that waits sees its end."""
        self._close("")
        if self._watch is not None:
            await self._watch.aclose()
        await self._stream.aclose()

    async def leave(self) -> None:
        """End it as a cancelled wait does: a run that is driven here is cancelled if `on_cancel` says so."""
        if self.is_driving:
            await self._stream.leave()
        await self.aclose()

    def _close(self, reason: str) -> None:
        if not isinstance(self._ended, Closed):
            self._ended = ended(self._ended, Closed(reason))
        if self._watch is not None:
            self._watch._close(reason)
        close(self._stream, reason)
