"""
One run from its start to its end, as an async iterator of its states, answering what it asks for on the way.

A class, not a generator: `wait_for(anext(stream), 15)` may time out and be called again with nothing lost. Between two
steps it holds no task, connection or timeout. There is one exception, and it is deliberate: a start, a handler or the
posting of outputs that is under way when a step is cancelled goes on, because cutting it off could start a paid run or
run a tool twice. The next step picks it up; `aclose`, the end of the client, the deadline, or letting go of the stream
ends it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar

import anyio
from attrs import field, frozen

from . import check
from .errors import (
    AgentRunsError,
    APIError,
    ConfigurationError,
    DeadlineExceededError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    ServerError,
    StalledError,
    TooManyResumesError,
    TransportError,
)
from .model import Action, Run, RunRef, RunStatus, ToolOutput
from .schedule import Schedule
from .steps import Steps
from .tools import Tool, Tools, ToolsLike, answer

logger = logging.getLogger("agentruns")

T = TypeVar("T")
OnCancel: TypeAlias = Literal["leave", "cancel", "confirm"]

LISTEN_SECONDS = 30.0
"""How long a stream of events is trusted to tell of the end before a poll makes sure."""

CLEAN_UP_SECONDS = 5.0
"""How long a handler that is ended may take to clean up before it is no longer waited for."""

CONFIRM_SECONDS = 10.0
"""How long a cancelled wait may be kept back to cancel the remote run."""


class Engine(Protocol):
    """What a stream needs of its client."""

    async def start(self, origin: Any) -> Run:
        """Start a run."""
        ...

    async def resume(self, run: Run, outputs: Sequence[ToolOutput]) -> Run:
        """Answer a run."""
        ...

    async def poll(self, ref: RunRef) -> Run:
        """Read a run with a single request."""
        ...

    def is_fresh(self, ref: RunRef) -> bool:
        """Tell whether the client started the run so recently that a read may not see it yet."""
        ...

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work that outlives a step, but not the client."""
        ...

    async def cancel(self, run: Run | RunRef) -> Run | None:
        """Cancel a run."""
        ...

    async def listen(self, ref: RunRef) -> None:
        """Return when the vendor ends its stream of events."""
        ...

    def handler_names(self, action: Action) -> Sequence[str]:
        """Return the names under which a handler may be registered."""
        ...


def _some_time(_: object, attribute: Any, value: float | None) -> None:
    if value is not None:
        check.number(attribute.name, value)


def _zero_or_more(_: object, attribute: Any, value: float) -> None:
    check.number(attribute.name, value, zero=True)


def _count(_: object, attribute: Any, value: int) -> None:
    check.whole(attribute.name, value, 0)


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


class RunStream(Steps[Run]):
    """
    Iterate over the states of one run; made by `client.stream(...)`.

    Yields the first state, then each that differs, and ends after `completed`, `failed`, or a `requires_action` that no
    handler covers. `run` is the last state seen. Leaving the loop needs no clean-up, and never touches the remote run
    unless `on_cancel` says so. A step that fails may be asked for again: it goes on where it was.
    """

    def __init__(self, engine: Engine, origin: Any, tools: Tools | None, options: Options, schedule: Schedule) -> None:
        self._engine = engine
        self._origin = origin
        self._tools = tools
        self._options = options
        self._schedule = schedule
        self.run: Run | None = None
        self._answers: dict[str, ToolOutput] = {}
        self._handled = False  # the handlers of this pause have ended, and their answers are to be posted
        self._answered: set[tuple[RunRef, str]] = set()
        self._resumes = 0
        self._work: asyncio.Task[Any] | None = None
        self._failure: BaseException | None = None
        self._guard: asyncio.Timeout | None = None
        self._waited_for = False
        self._closed: str | None = None
        self._over = False
        self._began: float | None = None  # the times of the loop, absolute
        self._due = 0.0
        self._changed = 0.0
        self._lost_since: float | None = None
        self._may_hurry = False  # the vendor asked for no pause, and was there when last asked
        self._quiet = 0

    def __repr__(self) -> str:
        state = f"{self.run.id} {self.run.status}" if self.run else f"{self._origin!r}, not begun"
        return f"<RunStream {state}>"

    @property
    def outputs(self) -> tuple[ToolOutput, ...]:
        """Return the answers that handlers gave and that are not posted yet."""
        return tuple(self._answers.values())

    # The protocol of an async generator -------------------------------------------------------------------------------

    async def __anext__(self) -> Run:
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
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream, and what it has under way; another task that waits on it sees its end."""
        self.end("")
        await self._drop_work()

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

    # One step ---------------------------------------------------------------------------------------------------------

    async def _next(self) -> Run | None:
        """Go on until there is a state to show; None at the end."""
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began = self._changed = loop.time()
        timeout = self._options.timeout
        if self._lost_since is not None:  # time that nobody waited is no lost contact
            self._lost_since += max(loop.time() - self._due, 0.0)
        self._waited_for = True
        try:
            async with asyncio.timeout_at(None if timeout is None else self._began + timeout) as self._guard:
                while True:
                    news = await self._advance(loop)
                    if news is None:
                        return None
                    if news:
                        return self.run
        except TimeoutError:
            guard, self._guard = self._guard, None
            if guard is None or not guard.expired():
                raise
            await self._drop_work()
            if self._closed is not None:
                return None
            self._over = True
            raise DeadlineExceededError(self.run, f"{timeout:g} s have passed") from None
        except asyncio.CancelledError:
            self._guard = None
            if self._options.on_cancel != "leave" and self._closed is None:
                await self._cancel_remote()
            raise
        finally:
            self._guard = None
            self._waited_for = False

    async def _advance(self, loop: asyncio.AbstractEventLoop) -> bool | None:
        """Do the next thing; return whether there is a state to show, None if the run is over for us."""
        if self._failure is not None:
            raise self._failure
        run = self.run
        if run is None:
            return await self._begin(loop)
        if run.status.in_flight or self._is_stale(run):
            return await self._poll(loop, run)
        if run.status is RunStatus.REQUIRES_ACTION:
            handlers = self._handlers(run)
            if handlers:
                return await self._answer(loop, run, handlers)
        return None

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> bool:
        if isinstance(self._origin, Run):
            return self._accept(self._origin, loop)
        if isinstance(self._origin, RunRef):
            return await self._poll(loop, self._origin)
        run = await self._once(lambda: self._engine.start(self._origin), final=OutcomeUnknownError)
        return self._accept(run, loop)

    async def _poll(self, loop: asyncio.AbstractEventLoop, target: Run | RunRef) -> bool:
        ref = target.ref if isinstance(target, Run) else target
        stall = math.inf if self._options.stall is None else self._options.stall
        stalls = self._changed + stall
        hurry = self._may_hurry and loop.time() < stalls < self._due
        await self._wait(loop, ref, stalls if hurry else self._due)
        try:
            run = await self._engine.poll(ref)
        except RateLimitedError as error:
            self._put_off(loop, error.retry_after or 0.0)
            return False
        except NotFoundError as error:
            if not self._engine.is_fresh(ref):
                raise
            self._lose(loop, error)
            return False
        except (TransportError, ServerError) as error:
            self._lose(loop, error)
            return False
        except APIError as error:
            if error.status != 408:
                raise
            self._lose(loop, error)
            return False
        except Exception:
            self._put_off(loop, 0.0)
            raise
        self._lost_since = None
        news = self._accept(run, loop)
        if not news and loop.time() >= self._changed + stall:
            raise StalledError(self.run, f"nothing has changed for {stall:g} s")
        return news

    async def _wait(self, loop: asyncio.AbstractEventLoop, ref: RunRef, due: float) -> None:
        """
        Wait until the next poll is due, or until a stream of events has ended: a reason to look, not yet news.

        A stream that could not be heard, or whose end brought nothing, is not listened to before the poll after it.
        """
        wait = due - loop.time()
        if self._options.events and self._quiet == 0 and wait > 0:
            try:
                async with asyncio.timeout(LISTEN_SECONDS):
                    await self._engine.listen(ref)
                return
            except (TransportError, APIError, TimeoutError) as error:
                logger.debug("the events of run %s cannot be heard: %s", ref.id, error)
                wait = due - loop.time()
        await asyncio.sleep(max(wait, 0.0))

    async def _answer(self, loop: asyncio.AbstractEventLoop, run: Run, handlers: Sequence[tuple[Action, Tool]]) -> bool:
        if self._resumes >= self._options.max_resumes:
            raise TooManyResumesError(run, f"the run asks again after {self._resumes} answers")
        answers = self._answers
        if not self._handled:
            await self._once(lambda: answer(handlers, answers), final=BaseException)
            self._handled = True
        outputs = tuple(answers[action.id] for action in run.actions)
        resumed = await self._once(lambda: self._engine.resume(run, outputs))
        self._handled = False
        self._answered.update((run.ref, action.id) for action in run.actions)
        self._answers = {}
        self._resumes += 1
        return self._accept(resumed, loop)

    def _handlers(self, run: Run) -> Sequence[tuple[Action, Tool]] | None:
        """Return a handler for every action of *run*, or None: half an answer is none."""
        if self._tools is None:
            return None
        found = [(action, self._tools.find(self._engine.handler_names(action))) for action in run.actions]
        covered = [(action, tool) for action, tool in found if tool is not None]
        return covered if covered and len(covered) == len(found) else None

    # Seeing states ----------------------------------------------------------------------------------------------------

    def _accept(self, run: Run, loop: asyncio.AbstractEventLoop) -> bool:
        """Take in a state that was read; return whether it is to be shown."""
        before, now = self.run, loop.time()
        if before is not None and before.ref == run.ref and _goes_back(before, run):
            self._put_off(loop, run.poll_after or 0.0)
            return False
        changed = before is None or run != before
        moved = changed or (before is not None and run.progress != before.progress)
        self.run = run
        self._quiet = 0 if changed else self._quiet + 1
        if moved:
            self._changed = now
        self._due = now + self._delay(run.poll_after or 0.0)
        self._may_hurry = run.poll_after is None
        if changed and self._is_stale(run):
            return False
        return changed or (moved and self._options.progress)

    def _is_stale(self, run: Run) -> bool:
        """Tell whether the run still shows, unchanged, the pause that this stream has answered."""
        return run.status is RunStatus.REQUIRES_ACTION and any(
            (run.ref, action.id) in self._answered for action in run.actions
        )

    def _lose(self, loop: asyncio.AbstractEventLoop, error: Exception) -> None:
        """Bear with lost contact for as long as `patience` allows."""
        now = loop.time()
        since = self._lost_since = now if self._lost_since is None else self._lost_since
        if now - since >= self._options.patience or getattr(error, "final", False):
            self._lost_since = None  # whoever asks again gets the same patience
            raise error
        self._put_off(loop, getattr(error, "retry_after", None) or 0.0)
        self._due = max(min(self._due, since + self._options.patience), now)

    def _put_off(self, loop: asyncio.AbstractEventLoop, at_least: float) -> None:
        self._quiet += 1
        self._may_hurry = False
        self._due = loop.time() + self._delay(at_least)

    def _delay(self, at_least: float) -> float:
        return self._schedule.delay(self._quiet, at_least=at_least, noise=random.random())  # noqa: S311

    # Work that outlives a cancelled step ------------------------------------------------------------------------------

    async def _once(
        self, make: Callable[[], Coroutine[Any, Any, T]], *, final: type[BaseException] | tuple[()] = ()
    ) -> T:
        """
        Do a thing that must not be cut off and begun again; a cancelled wait for it is taken up by the next step.

        A failure of the kind *final* is the failure of every further step: the thing is not tried again.
        """
        if self._work is None:
            self._work = self._engine.spawn(make())
        work: asyncio.Task[T] = self._work
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
                if self.run is None and self._work is not None:
                    self.run = await self._once(lambda: self._engine.start(self._origin))
                if self.run is None and isinstance(self._origin, RunRef):
                    self.run = await self._engine.poll(self._origin)
                if self.run is None or not self.run.status.in_flight:
                    return
                cancelled = await self._engine.cancel(self.run)
                self.run = cancelled or self.run
                while self._options.on_cancel == "confirm" and self.run.status.in_flight:
                    await asyncio.sleep(self._delay(self.run.poll_after or 0.0))
                    self.run = await self._engine.poll(self.run.ref)
            except AgentRunsError as error:
                logger.warning("the wait was cancelled, but the remote run may go on: %s", error)


def _goes_back(before: Run, run: Run) -> bool:
    """Tell a read that is older than the last one: no run goes from running back to pending."""
    return before.status is RunStatus.RUNNING and run.status is RunStatus.PENDING
