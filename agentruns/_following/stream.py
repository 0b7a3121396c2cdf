"""
One run from its start to its end, as an async iterator of its states, answering what it asks for on the way.

A class, not a generator: `wait_for(anext(stream), 15)` may time out and be called again with nothing lost. Between two
steps it holds no task, connection or timeout. There is one exception, and it is deliberate: a start, a handler or the
posting of outputs that is under way when a step is cancelled goes on, because cutting it off could start a paid run or
run a tool twice. The next step picks it up; `aclose`, the end of the client, the deadline, or letting go of the stream
ends it. A read that is under way goes on in the same way, since it may be for others too: heartbeats starve no poll.
So does a stream of events that is listened to, until the run waits or is over: none of its events is lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol

import anyio

from agentruns._aio.generator import AsyncGeneratorBase
from agentruns._aio.tasks import Tasks
from agentruns._api.admission import Admission
from agentruns._api.operations import Operations
from agentruns._polling.poller import Poller
from agentruns._values import html
from agentruns._values.generic import DetailT_co
from agentruns._values.news import Novelty
from agentruns._values.run import Run, RunRef, RunStatus, ToolOutput
from agentruns.errors import (
    AgentRunsError,
    APIError,
    DeadlineExceededError,
    ProtocolError,
    StalledError,
    TooManyResumesError,
    TransportError,
)
from agentruns.tools import Tools

from .answers import Handlers, handlers_for
from .cancelling import cancel_run
from .driver import Driver
from .ending import Closed, Ended, Failed, ended, raise_unless_completed
from .lifecycle import Lifecycle
from .listening import Listening
from .options import Options
from .turn import Turn, alarm
from .waiter import Waiter

logger = logging.getLogger("agentruns")

MOST_ACTIONS: Final = 1000
"""How many actions of one pause handlers answer: all are answered at once, as people may have to."""

CONFIRM_SECONDS = 10.0
"""How long a cancelled wait may be kept back to cancel the remote run."""


class RunStream(AsyncGeneratorBase[Run[DetailT_co]]):
    """
    Iterate over the states of one run; made by `client.stream(...)`.

    Yields the first state, then each that differs, and ends after `completed`, `failed`, or a `requires_action` that no
    handler covers. `run` is the last state seen. Leaving the loop needs no clean-up, and never touches the remote run
    unless `on_cancel` says so. A step that fails may be asked for again: it goes on where it was.
    """

    __slots__ = (
        "__weakref__",
        "_driver",
        "_ended",
        "_guard",
        "_is_waited_for",
        "_listening",
        "_operations",
        "_options",
        "_origin",
        "_paused",
        "_seen",
        "_tasks",
        "_tools",
        "_turn",
    )

    def __init__(
        self,
        origin: Any,
        *,
        lifecycle: Lifecycle,
        operations: Operations,
        poller: Poller,
        tasks: Tasks,
        tools: Tools | None,
        options: Options,
        admission: Admission,
    ) -> None:
        self._origin = origin
        self._paused: RunRef | None = None
        self._operations = operations
        self._tasks = tasks
        self._tools = tools
        self._options = options
        self._turn = Turn(admission, options.timeout)
        self._driver = Driver(lifecycle, tasks, self._turn, operations)
        self._seen = Waiter(poller, operations, options, lifecycle.key)
        self._ended: Ended | None = None
        self._guard: asyncio.Timeout | None = None
        self._is_waited_for = False
        events = options.events
        self._listening: Listening | None = None
        if events:
            self._listening = Listening(operations, tasks, self._seen, None if events is True else events)

    def __repr__(self) -> str:
        state = f"{self.run.id} {self.run.status}" if self.run else f"{self._origin!r}, not begun"
        return f"<RunStream {state}>"

    def _repr_html_(self) -> str:
        return html.paragraph(html.cut(repr(self))) if self.run is None else self.run._repr_html_()

    @property
    def run(self) -> Run[DetailT_co] | None:
        """Return the last state that was seen, None before the first."""
        return self._seen.run

    @property
    def outputs(self) -> tuple[ToolOutput, ...]:
        """Return the answers that handlers gave and that are not posted yet."""
        return self._driver.outputs

    async def result(self) -> Run[DetailT_co]:
        """
        Go on to the end of the run, and return its last state.

        Raise `RunFailedError` if it failed, `ActionRequiredError` if it waits for an answer that no handler gives,
        `AgentRunsError` if the stream was closed before, and what a step raises. A cancelled wait loses nothing: wait
        again, or go on with steps.
        """
        async for _ in self:
            pass
        if self.run is None or self.run.status.in_flight:
            raise AgentRunsError("this stream has ended before its run did; open another to follow the run")
        return raise_unless_completed(self.run, self._paused)

    # The protocol of an async generator -------------------------------------------------------------------------------

    async def __anext__(self) -> Run[DetailT_co]:
        """
        Return the next state.

        Raise `DeadlineExceededError`, `StalledError`, `TooManyResumesError`, the last `TransportError` or `ServerError`
        when contact stays lost, `OutcomeUnknownError` for a start that never got a clear answer, `APIError` for a
        refusal, and whatever a handler raises that is not a `ToolError`.
        """
        self._check_not_waited_for()
        if self._ended is None:
            self._operations.check_open()
            loop = asyncio.get_running_loop()
            if self._turn.began is None:
                self._begin_wait(loop.time())
            self._is_waited_for = True
            try:
                while (news := await self._go_on(loop)) is not None:
                    if news:
                        assert self.run is not None
                        return self.run
            except asyncio.CancelledError:
                if not isinstance(self._ended, Closed):
                    await self._cancel_if_asked()
                raise
            finally:
                self._is_waited_for = False
        raise self._end()

    def _end(self) -> BaseException:
        """Return what a step raises once the stream has ended."""
        if isinstance(self._ended, Failed) and not self._ended.told_once:
            return self._ended.error
        if isinstance(self._ended, Closed) and self._ended.reason:
            return AgentRunsError(self._ended.reason)
        if self._ended is None:
            self._ended = ended(None, Closed())
        self._stop_following()
        return StopAsyncIteration()

    async def aclose(self) -> None:
        """End the stream, and what it has under way; another task that waits on it sees its end."""
        self._close("")
        await self._driver.drop()
        self._stop_following()

    async def leave(self) -> None:
        """
        End the stream as a cancelled wait does: the remote run is cancelled if `on_cancel` says so.

        Raise `AgentRunsError` while another task waits on the stream: cancel that.
        """
        self._check_not_waited_for()
        self._is_waited_for = True
        try:
            if self._turn.began is not None and self._ended is None:
                await self._cancel_if_asked()
        finally:
            self._is_waited_for = False
            await self.aclose()

    def _check_not_waited_for(self) -> None:
        if self._is_waited_for:
            raise AgentRunsError("another task is waiting on this stream already; open one stream per task")

    def _close(self, reason: str) -> None:
        if not isinstance(self._ended, Closed):
            self._ended = ended(self._ended, Closed(reason))
        if self._guard is not None:
            with suppress(RuntimeError):  # it has expired already
                self._guard.reschedule(asyncio.get_running_loop().time())
        self._seen.wake()
        self._driver.cancel()

    def __del__(self) -> None:
        self._driver.abandon(self._tasks)
        self._seen.unfollow_soon(self._tasks)
        if self._listening is not None:
            self._tasks.call_soon(self._listening.stop)
        self._turn.leave_soon(self._tasks)

    # One step ---------------------------------------------------------------------------------------------------------

    def _begin_wait(self, since: float) -> None:
        self._seen.changed = asyncio.get_running_loop().time()
        self._turn.begin(since)

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> Coroutine[Any, Any, bool | None]:
        """Read the run, or act on it; what is returned says whether there is a state to show, None at the end."""
        run = self.run
        if run is not None and (run.status.in_flight or self._seen.shows_answered(run)):
            return self._poll(loop, run.ref)
        if run is None and isinstance(self._origin, RunRef) and not self._driver.begins(self._origin):
            return self._poll(loop, self._origin)
        return self._act(loop, run)

    async def _act(self, loop: asyncio.AbstractEventLoop, run: Run | None) -> bool | None:
        """Start the run, or answer it; return whether there is a state to show, None if the run is over for us."""
        handlers: Handlers | None = None
        if run is not None:
            if run.status is RunStatus.REQUIRES_ACTION:
                vendor = self._operations.vendor
                handlers = handlers_for(
                    run, self._tools, self._operations.handler_names, model_calls=vendor.MODEL_CALLS
                )
            if not handlers:
                return None
        guard = asyncio.timeout_at(alarm(self._turn.look_at))
        try:
            async with guard as self._guard:
                if run is None and not self._has_place():
                    await self._wait_for_place(loop, guard)
                return await (self._begin(loop) if run is None else self._answer(loop, run, handlers or ()))
        except TimeoutError:
            if not guard.expired():
                raise
            if not self._is_to_end(loop):
                return False  # what is under way is taken up again
            await self._give_up()
            return None
        finally:
            self._guard = None
            if self._ended is None and self._driver.failed is not None:
                self._ended = ended(None, self._driver.failed)
            if self.run is None and not self._driver.is_sending(None):
                self._turn.leave_unused(loop.time())

    def _has_place(self) -> bool:
        """Take a place for the run, if there is one at once; return whether it has one, or needs none."""
        return isinstance(self._origin, Run | RunRef) or self._turn.enter_nowait()

    async def _wait_for_place(self, loop: asyncio.AbstractEventLoop, guard: asyncio.Timeout) -> None:
        """Wait until the run may be started, unless it was: *guard*, the deadline, does not count the wait in line."""
        if await self._driver.is_known():
            return
        self._put_off(guard, math.inf)
        await self._turn.enter()
        self._seen.changed = loop.time()
        self._put_off(guard, self._turn.look_at)

    def _put_off(self, guard: asyncio.Timeout, when: float) -> None:
        """Have the deadline come at that time of the loop, unless somebody has closed the stream just now."""
        if not isinstance(self._ended, Closed):
            guard.reschedule(alarm(when))

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> bool:
        origin = self._origin
        run = await self._driver.begin(origin) if self._driver.begins(origin) else origin
        return self._begin_segment(run, loop)

    async def _answer(self, loop: asyncio.AbstractEventLoop, run: Run, handlers: Handlers) -> bool:
        resumes = self._driver.resumes
        if resumes >= self._options.max_resumes:
            raise TooManyResumesError(run, f"the run asks again after {resumes} answers")
        if len(handlers) > MOST_ACTIONS:
            raise ProtocolError(
                f"run {run.id} asks for {len(handlers)} actions at once, and handlers of {MOST_ACTIONS} at most are "
                "run, since all run at the same time"
            )
        self._seen.look_on(self._driver.pause(run))
        try:
            resumed = await self._driver.answer(run, handlers, self._seen.look_away)
        finally:
            if not self._driver.is_handling:  # else the step was cut off, and the handlers go on
                self._seen.look_away()
        if resumed is None:
            return self._seen.untaken is not None and await self._take(self._seen.untaken, loop)
        self._seen.answered(run, resumed)
        if self._operations.resumes_again and resumed.ref != run.ref:
            self._paused = run.ref
        return self._begin_segment(resumed, loop)

    def _begin_segment(self, run: Run, loop: asyncio.AbstractEventLoop) -> bool:
        """Take in the state that a start, an answer or the caller brought; return whether it is to be shown."""
        news = self._accept(run, loop.time())
        self._seen.begin_segment(run, later=self._driver.resumes > 0)
        return news

    # Reading ----------------------------------------------------------------------------------------------------------

    async def _poll(self, loop: asyncio.AbstractEventLoop, ref: RunRef) -> bool | None:
        """Wait for news of a run; return whether there is a state to show, None if somebody has closed the stream."""
        seen = self._seen
        seen.follow(ref)
        if seen.is_current and seen.untaken is not None and await self._take(seen.untaken, loop):
            return True  # read while this stream did not listen
        if self._listening is not None:
            self._listening.follow(ref)
        if self._is_to_end(loop):
            await self._give_up()
            return None
        await seen.wait(self._turn.look_at)
        if seen.untaken is not None and await self._take(seen.untaken, loop):
            return True
        if self._is_to_end(loop):
            await self._give_up()
            return None
        if seen.is_stalled(loop.time()):
            stalled = StalledError(self.run, f"nothing has changed for {self._options.stall:g} s")
            seen.give_up(stalled)
            raise stalled
        return False

    async def _take(self, run: Run, loop: asyncio.AbstractEventLoop) -> bool:
        """Take in what was read for all who follow the run; return whether it is to be shown."""
        if self._options.include and run.status.is_over:
            run = await self._whole(run)
        if not self._seen.shows_answered(run):
            await self._driver.keep(run)
        self._seen.taken = run
        return self._accept(run, loop.time())

    async def _whole(self, run: Run) -> Run:
        """Read a run that is over once more, with what the user wants included; what is known is kept if that fails."""
        try:
            async with asyncio.timeout_at(alarm(self._turn.deadline)) as self._guard:
                whole = await self._operations.fetch(
                    run.ref, {**self._options.params, "include": self._options.include or ""}
                )
        except (TransportError, APIError, ProtocolError, TimeoutError) as error:
            logger.warning(
                "run %s is over, and could not be read with include=%s: %s", run.id, self._options.include, error
            )
            return run
        finally:
            self._guard = None
        return whole if whole.status is run.status else run

    def _accept(self, run: Run, now: float) -> bool:
        """Take in a state; return whether it is to be shown."""
        if run.status.is_over:
            self._turn.leave()
        novelty = self._seen.accept(run, now)
        if self._listening is not None and (novelty is Novelty.NEWS or novelty is Novelty.ANSWERED):
            self._listening.changed(run)
        return novelty is Novelty.NEWS or (novelty is Novelty.PROGRESS and self._options.progress)

    # Ending -----------------------------------------------------------------------------------------------------------

    def _stop_following(self) -> None:
        if self._listening is not None:
            self._listening.stop()
        self._seen.unfollow()
        self._driver.leave()
        self._turn.leave()

    def _is_to_end(self, loop: asyncio.AbstractEventLoop) -> bool:
        return isinstance(self._ended, Closed) or loop.time() >= self._turn.deadline

    async def _give_up(self) -> None:
        """End at the deadline, or because somebody has closed the stream."""
        driver = self._driver
        failure = driver.last_failure if driver.is_sending(self.run) else self._seen.error
        await driver.drop()
        if isinstance(self._ended, Closed):
            self._stop_following()
            return
        self._ended = ended(self._ended, Closed())
        why = f"{self._options.timeout:g} s have passed"
        if failure is not None:
            why += f", and the last request failed ({str(failure).rstrip('.')})"
        error = DeadlineExceededError(self.run, why, begun=not isinstance(self._origin, Run | RunRef))
        self._seen.give_up(error)
        self._stop_following()
        raise error from failure

    async def _cancel_if_asked(self) -> None:
        """
        Cancel the remote run as `on_cancel` says.

        It takes `CONFIRM_SECONDS` at most, and is safe from the cancellation around it.
        """
        if self._options.on_cancel == "leave":
            return
        driver, seen, paused = self._driver, self._seen, self.run
        with anyio.move_on_after(CONFIRM_SECONDS, shield=True):
            try:
                if driver.is_sending(paused):
                    if driver.was_refused:  # so there is nothing to cancel
                        await driver.drop()
                        return
                    seen.run = resumed = await driver.finish_sending(paused)
                    if paused is not None:
                        seen.answered(paused, resumed)
                if seen.run is None and isinstance(self._origin, RunRef):
                    seen.run = await self._operations.fetch(self._origin)
                await cancel_run(self._operations, seen, confirm=self._options.on_cancel == "confirm")
            except AgentRunsError as error:
                logger.warning("the wait was cancelled, but the remote run may go on: %s", error)


def share(stream: RunStream) -> None:
    """Have a stream enter states in flight into the journal, too, for those who look on."""
    stream._driver.share()


def count_from(stream: RunStream, since: float) -> None:
    """Have the timeout of a stream that has not begun count from a time of the loop on."""
    stream._begin_wait(since)


class Closes(Protocol):
    """What `close` ends: a stream, or something around one."""

    def _close(self, reason: str) -> None: ...


def close(stream: Closes, reason: str = "") -> None:
    """
    End a stream at once: wake who waits on it, and have its work cancelled, but wait for nothing.

    A step that waits raises `AgentRunsError` with *reason*, or just stops if there is none.
    """
    stream._close(reason)
