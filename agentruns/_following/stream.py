"""
One run from its start to its end, as an async iterator of its states, answering what it asks for on the way.

A class, not a generator: `wait_for(anext(stream), 15)` may time out and be called again with nothing lost. Between two
steps it holds no task, connection or timeout. There is one exception, and it is deliberate: a start, a handler or the
posting of outputs that is under way when a step is cancelled goes on, because cutting it off could start a paid run or
run a tool twice. The next step picks it up; `aclose`, the end of the client, the deadline, or letting go of the stream
ends it. A read that is under way goes on in the same way, since it may be for others too: heartbeats starve no poll.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, TypeAlias, TypedDict, TypeVar

import anyio
from attrs import field, frozen

from agentruns._aio.generator import AsyncGeneratorBase
from agentruns._aio.tasks import Tasks
from agentruns._api.flow import Tries, tries
from agentruns._api.operations import FRESH_SECONDS, Operations
from agentruns._keeping.keys import KeyedWork
from agentruns._polling.poller import Poller
from agentruns._polling.watch import Watch
from agentruns._values import check, html
from agentruns._values.generic import DetailT_co
from agentruns._values.news import actions_of, goes_back
from agentruns._values.run import Action, Run, RunRef, RunStatus, ToolOutput
from agentruns.errors import (
    AgentRunsError,
    APIError,
    ConfigurationError,
    DeadlineExceededError,
    OutcomeUnknownError,
    StalledError,
    TooManyResumesError,
    TransportError,
)
from agentruns.tools import Tool, Tools, ToolsLike, answer, asking

logger = logging.getLogger("agentruns")

T = TypeVar("T")
OnCancel: TypeAlias = Literal["leave", "cancel", "confirm"]

LISTEN_SECONDS = 30.0
"""How long a stream of events is trusted to tell of the end before a poll makes sure."""

CLEAN_UP_SECONDS = 5.0
"""How long a handler that is ended may take to clean up before it is no longer waited for."""

CONFIRM_SECONDS = 10.0
"""How long a cancelled wait may be kept back to cancel the remote run."""

CONFIRM_GAP = 0.5
"""Seconds between two looks whether a cancelled run is over."""

_NONE: Final[dict[str, ToolOutput]] = {}


def _some_time(_: object, attribute: Any, value: float | None) -> None:
    if value is not None:
        check.number(attribute.name, value)


def _zero_or_more(_: object, attribute: Any, value: float) -> None:
    check.number(attribute.name, value, zero=True)


def _count(_: object, attribute: Any, value: int) -> None:
    check.integer(attribute.name, value, 0)


def _known(_: object, attribute: Any, value: str) -> None:
    if value not in {"leave", "cancel", "confirm"}:
        raise ConfigurationError(f"{attribute.name} is {value!r}; choose 'leave', 'cancel' or 'confirm'")


@frozen(kw_only=True)
class Options:
    """How to wait for a run; seconds throughout."""

    timeout: float | None = field(default=600.0, validator=_some_time)
    max_resumes: int = field(default=10, validator=_count)
    progress: bool = False
    patience: float = field(default=60.0, validator=_zero_or_more)
    stall: float | None = field(default=None, validator=_some_time)
    on_cancel: OnCancel = field(default="leave", validator=_known)
    events: bool = False


class StreamOptions(TypedDict, total=False):
    """What `client.stream` takes beside the origin, for those who pass it on."""

    tools: ToolsLike | None
    timeout: float | None
    max_resumes: int
    progress: bool
    patience: float
    stall: float | None
    on_cancel: OnCancel
    events: bool
    key: str | None


class RunStream(AsyncGeneratorBase[Run[DetailT_co]]):
    """
    Iterate over the states of one run; made by `client.stream(...)`.

    Yields the first state, then each that differs, and ends after `completed`, `failed`, or a `requires_action` that no
    handler covers. `run` is the last state seen. Leaving the loop needs no clean-up, and never touches the remote run
    unless `on_cancel` says so. A step that fails may be asked for again: it goes on where it was.
    """

    __slots__ = (
        "__weakref__",
        "_answered",
        "_answers",
        "_began",
        "_changed",
        "_closed",
        "_failure",
        "_guard",
        "_handled",
        "_keyed",
        "_news",
        "_operations",
        "_options",
        "_origin",
        "_over",
        "_poller",
        "_resumes",
        "_taken",
        "_tasks",
        "_tools",
        "_tries",
        "_trusts_events",
        "_unclear",
        "_waited_for",
        "_watch",
        "_work",
        "patient_since",
        "run",
    )

    def __init__(
        self,
        operations: Operations,
        tasks: Tasks,
        poller: Poller,
        origin: Any,
        tools: Tools | None,
        options: Options,
        keyed: KeyedWork | None = None,
    ) -> None:
        self._operations = operations
        self._tasks = tasks
        self._poller = poller
        self._keyed = keyed
        self._origin = origin
        self._tools = tools
        self._options = options
        self.run: Run[DetailT_co] | None = None
        self._watch: Watch | None = None
        self._taken: Run | None = None  # of what the watch has read, the last that this stream has seen
        self._news: asyncio.Future[None] | None = None
        self._answers: dict[str, ToolOutput] = _NONE
        self._handled = False  # the handlers of this pause have ended, and their answers are to be posted
        self._unclear = False  # they were posted before, and nobody knows what came of it
        self._answered: frozenset[tuple[str, str]] = frozenset()
        self._resumes = 0
        self._work: asyncio.Task[Any] | None = None
        self._tries: Tries | None = None  # how requests for that work fare
        self._failure: BaseException | None = None
        self._guard: asyncio.Timeout | None = None
        self._waited_for = False
        self._closed: str | None = None
        self._over = False
        self._began: float | None = None  # the times of the loop, absolute
        self._changed = 0.0
        self.patient_since = -math.inf
        self._trusts_events = True

    def __repr__(self) -> str:
        state = f"{self.run.id} {self.run.status}" if self.run else f"{self._origin!r}, not begun"
        return f"<RunStream {state}>"

    def _repr_html_(self) -> str:
        return html.paragraph(html.cut(repr(self))) if self.run is None else self.run._repr_html_()

    @property
    def outputs(self) -> tuple[ToolOutput, ...]:
        """Return the answers that handlers gave and that are not posted yet."""
        return tuple(self._answers.values())

    # The protocol of an async generator -------------------------------------------------------------------------------

    async def __anext__(self) -> Run[DetailT_co]:
        """
        Return the next state.

        Raise `DeadlineExceededError`, `StalledError`, `TooManyResumesError`, the last `TransportError` or `ServerError`
        when contact stays lost, `OutcomeUnknownError` for a start that never got a clear answer, `APIError` for a
        refusal, and whatever a handler raises that is not a `ToolError`.
        """
        if self._waited_for:
            raise AgentRunsError("another task is waiting on this stream already; open one stream per task")
        if self._closed is None and not self._over:
            state = await self._next()
            if state is not None:
                return state
        if self._closed:
            raise AgentRunsError(self._closed)
        self._over = True
        self._leave()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream, and what it has under way; another task that waits on it sees its end."""
        self.end("")
        await self._drop_work()
        self._leave()

    def end(self, reason: str) -> None:
        """
        Wake who waits on the stream, and let its work be cancelled; nothing is waited for.

        A waiting step raises `AgentRunsError` with *reason*, or just stops if there is none.
        """
        if self._closed is None:
            self._closed = reason
        if self._guard is not None:
            with suppress(RuntimeError):  # it has expired already
                self._guard.reschedule(asyncio.get_running_loop().time())
        self._wake()
        self._forsake()

    def _forsake(self) -> None:
        """Cancel work that nobody waits for any more; the collector, in whichever thread, may ask for it."""
        work = self._work
        if work is None:
            return
        if work.done():
            if not work.cancelled() and work.exception() is not None:
                logger.warning("a stream was let go of before it could tell", exc_info=work.exception())
        elif not (loop := work.get_loop()).is_closed():
            loop.call_soon_threadsafe(work.cancel)

    def __del__(self) -> None:
        self._forsake()
        if self._watch is not None:
            self._tasks.call_soon(partial(self._poller.drop, self._watch))
        if self._keyed is not None:
            self._tasks.call_soon(self._keyed.leave)

    # One step ---------------------------------------------------------------------------------------------------------

    async def _next(self) -> Run | None:
        """Go on until there is a state to show; None at the end."""
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began = self._changed = loop.time()
        self._waited_for = True
        try:
            while True:
                run = self.run
                if self._failure is not None:
                    raise self._failure
                if run is not None and (run.status.in_flight or self._is_stale(run)):
                    news = await self._poll(loop, run.ref)
                elif run is None and self._keyed is None and isinstance(self._origin, RunRef):
                    news = await self._poll(loop, self._origin)
                else:
                    news = await self._act(loop, run)
                if news is None:
                    return None
                if news:
                    return self.run
        except asyncio.CancelledError:
            if self._options.on_cancel != "leave" and self._closed is None:
                await self._cancel_remote()
            raise
        finally:
            self._waited_for = False

    @property
    def _deadline(self) -> float:
        """Return the time of the loop at which the whole wait is over."""
        timeout = self._options.timeout
        return math.inf if timeout is None or self._began is None else self._began + timeout

    async def _act(self, loop: asyncio.AbstractEventLoop, run: Run | None) -> bool | None:
        """Start the run, or answer it; return whether there is a state to show, None if the run is over for us."""
        handlers = None
        if run is not None:
            if run.status is RunStatus.REQUIRES_ACTION:
                handlers = self._handlers(run)
            if not handlers:
                return None
        guard = asyncio.timeout_at(None if self._deadline == math.inf else self._deadline)
        try:
            async with guard as self._guard:
                return await (self._begin(loop) if run is None else self._answer(loop, run, handlers or ()))
        except TimeoutError:
            if not guard.expired():
                raise
            await self._give_up()
            return None
        finally:
            self._guard = None

    def _is_to_end(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._closed is not None or loop.time() >= self._deadline

    async def _give_up(self) -> None:
        """End at the deadline, or because somebody has closed the stream."""
        at_work = self._work is not None and (self.run is None or self._handled)  # not at handlers, who ask for others
        await self._drop_work()
        failure = self._last_failure(at_work=at_work)
        self._leave()
        if self._closed is None:
            self._over = True
            passed = f"{self._options.timeout:g} s have passed"
            if failure is None:
                raise DeadlineExceededError(self.run, passed) from None
            said = str(failure).rstrip(".")
            raise DeadlineExceededError(self.run, f"{passed}, and the last request failed ({said})") from failure

    def _last_failure(self, *, at_work: bool) -> Exception | None:
        """Return what the last request for this stream came to, if it failed."""
        if at_work:
            return None if self._tries is None else self._tries.failure
        return None if self._watch is None else self._watch.error

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> bool:
        if self._keyed is None and isinstance(self._origin, Run):
            return self._begin_segment(self._origin, loop)
        begin = self._operations.start if self._keyed is None else self._keyed.begin
        return self._begin_segment(await self._once(lambda: begin(self._origin), final=OutcomeUnknownError), loop)

    def _begin_segment(self, run: Run, loop: asyncio.AbstractEventLoop) -> bool:
        """Take in the state that a start, an answer or the caller brought; return whether it is to be shown."""
        news = self._accept(run, loop.time())
        watch = self._follow(run.ref)
        if watch.run is None or watch.run.status is RunStatus.REQUIRES_ACTION:
            started = self._operations.started_at(run.ref) > -math.inf
            self._poller.began(watch, run, later=self._resumes > 0, learns=started)
            self._taken = run
        return news

    async def _poll(self, loop: asyncio.AbstractEventLoop, ref: RunRef) -> bool | None:
        """Wait for news of a run; return whether there is a state to show, None if somebody has closed the stream."""
        watch = self._follow(ref)
        known = watch.run if self.run is not None or watch.listeners else None
        if known is not None and known is not self._taken and await self._take(known, loop):
            return True  # read while this stream did not listen
        if self._options.events and self._trusts_events:
            await self._hear_events(watch)
        self._news = news = loop.create_future()
        if self._is_to_end(loop):
            await self._give_up()
            return None
        self._poller.listen(watch, self)
        expiry = None if self._deadline == math.inf else self._poller.set_deadline(self, self._deadline)
        try:
            await news
        except AgentRunsError:
            self.patient_since = loop.time()  # whoever asks again gets the same patience
            raise
        finally:
            self._news = None
            self._poller.leave(watch, self)
            if expiry is not None:
                self._poller.strike(expiry)
            if news.done() and not news.cancelled():
                news.exception()  # told, or overtaken by a cancellation: not forgotten
        if watch.run is not None and watch.run is not self._taken and await self._take(watch.run, loop):
            return True
        if self._is_to_end(loop):
            await self._give_up()
            return None
        stall = self._options.stall
        if stall is not None and loop.time() >= self._changed + stall:
            raise StalledError(self.run, f"nothing has changed for {stall:g} s")
        return False

    async def _hear_events(self, watch: Watch) -> None:
        """
        Wait until a stream of events has ended: a reason to look, not yet news.

        A stream that could not be heard, or whose end brought nothing, is not listened to until something has changed.
        """
        self._trusts_events = False
        try:
            now = asyncio.get_running_loop().time()
            async with asyncio.timeout_at(min(now + LISTEN_SECONDS, self._deadline)) as self._guard:
                await self._operations.listen(watch.ref)
        except (TransportError, APIError, TimeoutError) as error:
            logger.debug("the events of run %s cannot be heard: %s", watch.ref.id, error)
        else:
            self._poller.hurry(watch)
        finally:
            self._guard = None

    # What the poller tells --------------------------------------------------------------------------------------------

    @property
    def patience(self) -> float:
        """Return how many seconds of lost contact this stream bears."""
        return self._options.patience

    @property
    def look_by(self) -> float:
        """Return when the run counts as stalled unless a read shows that it is not."""
        return math.inf if self._options.stall is None else self._changed + self._options.stall

    def heard(self, run: Run, now: float) -> bool:
        """Wake the step that waits if the answer is news to it, and return whether it is."""
        seen = self.run
        if run is not self._taken:
            if seen is None or run != seen or (self._options.progress and run.progress != seen.progress):
                return self._wake()
            if run.progress != seen.progress:
                self._changed = now
            self.run = self._taken = run
        stall = self._options.stall
        return stall is not None and now >= self._changed + stall and self._wake()

    def expire(self) -> None:
        """Wake the step that waits: the deadline has come."""
        self._wake()

    def failed(self, error: Exception) -> None:
        """Have the step that waits raise *error*."""
        if self._news is not None and not self._news.done():
            self._news.set_exception(error)

    def _wake(self) -> bool:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        return True

    def _follow(self, ref: RunRef) -> Watch:
        watch = self._watch
        if watch is None or watch.ref.id != ref.id:
            self._unfollow()
            watch = self._watch = self._poller.follow(ref)
            watch.fresh_until = max(watch.fresh_until, self._operations.started_at(ref) + FRESH_SECONDS)
            self._taken = None
        return watch

    def _leave(self) -> None:
        """Follow nothing any more."""
        self._unfollow()
        if self._keyed is not None:
            self._keyed.leave()

    def _unfollow(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            self._poller.drop(watch)

    async def _answer(self, loop: asyncio.AbstractEventLoop, run: Run, handlers: Sequence[tuple[Action, Tool]]) -> bool:
        if self._resumes >= self._options.max_resumes:
            raise TooManyResumesError(run, f"the run asks again after {self._resumes} answers")
        answers = self._answers
        if not self._handled:
            if answers is _NONE:
                answers = self._answers = {}
            handle = answer if self._keyed is None else partial(self._keyed.handle, run)
            key = None if self._keyed is None else self._keyed.key
            await self._once(lambda: asking(run, key, partial(handle, handlers, answers)), final=BaseException)
            self._handled = True
        outputs = tuple(answers[action.id] for action in run.actions)
        post = self._operations.answer if self._keyed is None else self._keyed.answer
        try:
            resumed = await self._once(lambda: post(run, outputs, again=self._unclear))
        except Exception:
            self._unclear = True
            raise
        self._went_on(run, resumed)
        return self._begin_segment(resumed, loop)

    def _went_on(self, run: Run, resumed: Run) -> None:
        """Note that the answers of a pause were posted."""
        self._handled = self._unclear = False
        self._answered |= {(run.id, action.id) for action in run.actions}
        if self._watch is not None and resumed.id == run.id:  # it goes on in place
            self._watch.answered |= actions_of(run)
        self._answers = _NONE
        self._resumes += 1

    def _handlers(self, run: Run) -> Sequence[tuple[Action, Tool]] | None:
        """Return a handler for every action of *run*, or None: half an answer is none."""
        if self._tools is None:
            return None
        found = [(action, self._tools.find(self._operations.handler_names(action))) for action in run.actions]
        covered = [(action, tool) for action, tool in found if tool is not None]
        return covered if covered and len(covered) == len(found) else None

    # Seeing states ----------------------------------------------------------------------------------------------------

    async def _take(self, run: Run, loop: asyncio.AbstractEventLoop) -> bool:
        """Take in what was read for all who follow the run; return whether it is to be shown."""
        if self._keyed is not None and not run.status.in_flight and not self._is_stale(run):
            # What a step that was cut off has begun to write is waited for first.
            while await self._once(partial(self._enter, self._keyed, run)) is not run:
                pass
        self._taken = run
        return self._accept(run, loop.time())

    async def _enter(self, keyed: KeyedWork, run: Run) -> Run:
        await keyed.saw(run)
        return run

    def _accept(self, run: Run, now: float) -> bool:
        """Take in a state; return whether it is to be shown."""
        before = self.run
        if before is not None and (goes_back(before, run) or (self._is_stale(run) and before.status.in_flight)):
            return False
        changed = before is None or run != before
        moved = changed or (before is not None and run.progress != before.progress)
        self.run = run
        if changed:
            self._trusts_events = True
        if moved:
            self._changed = now
        if changed and self._is_stale(run):
            return False
        return changed or (moved and self._options.progress)

    def _is_stale(self, run: Run) -> bool:
        """Tell whether the run still shows, unchanged, the pause that this stream has answered."""
        return run.status is RunStatus.REQUIRES_ACTION and any(
            (run.id, action.id) in self._answered for action in run.actions
        )

    # Work that outlives a cancelled step ------------------------------------------------------------------------------

    async def _once(
        self, make: Callable[[], Coroutine[Any, Any, T]], *, final: type[BaseException] | tuple[()] = ()
    ) -> T:
        """
        Do a thing that must not be cut off and begun again; a cancelled wait for it is taken up by the next step.

        A failure of the kind *final* is the failure of every further step: the thing is not tried again.
        """
        if self._work is None:
            self._tries = Tries()
            before = tries.set(self._tries)
            self._work = self._tasks.spawn(make())
            tries.reset(before)
        done: T = await self._under_way(final)
        return done

    async def _under_way(self, final: type[BaseException] | tuple[()] = ()) -> Any:
        """Return what comes of the thing that is being done."""
        work = self._work
        assert work is not None
        await asyncio.wait((work,))
        self._work = None
        if not work.cancelled() and isinstance(work.exception(), final):
            self._failure = work.exception()
            # Told once: a loop that takes a TimeoutError for its own heartbeat would be told for ever.
            self._over = isinstance(self._failure, TimeoutError)
        return work.result()

    async def _drop_work(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
            await asyncio.wait((work,), timeout=CLEAN_UP_SECONDS)

    async def _cancel_remote(self) -> None:
        """Cancel the remote run, and with "confirm" see it end; bounded, and safe from the cancellation around it."""
        with anyio.move_on_after(CONFIRM_SECONDS, shield=True):
            try:
                paused = self.run if self._handled else None
                if self._work is not None and (self.run is None or paused is not None):
                    if self._tries is not None and self._tries.idle and not self._tries.doubt:
                        await self._drop_work()  # all was refused so far: there is nothing to cancel
                        return
                    self.run = await self._under_way()  # what is being started, or follows an answer that is posted
                    if paused is not None and self.run is not None:
                        self._went_on(paused, self.run)
                if self.run is None and isinstance(self._origin, RunRef):
                    self.run = await self._operations.fetch(self._origin)
                if self.run is None or not self.run.status.in_flight:
                    return
                cancelled = await self._operations.cancel(self.run.ref)
                self.run = cancelled or self.run
                while self._options.on_cancel == "confirm" and self.run.status.in_flight:
                    await asyncio.sleep(max(CONFIRM_GAP, self.run.poll_after or 0.0))
                    self.run = await self._operations.fetch(self.run.ref)
            except AgentRunsError as error:
                logger.warning("the wait was cancelled, but the remote run may go on: %s", error)
