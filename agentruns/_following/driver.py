"""What a stream does to its run: start it, have it handled, answer it. Reading it is for the `Waiter`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from agentruns._aio.detached import Detached
from agentruns._aio.tasks import Tasks
from agentruns._api.admission import PLACE, Place
from agentruns._api.flow import Attempts
from agentruns._api.operations import Operations
from agentruns._telemetry import WORK_KEY
from agentruns._values.run import Run, RunRef, ToolOutput
from agentruns.errors import ConfigurationError, OutcomeUnknownError
from agentruns.tools import asking

from .answers import Handlers, PendingAnswers
from .ending import Failed
from .lifecycle import Lifecycle
from .pause import Pause
from .turn import Turn

CLEAN_UP_SECONDS = 5.0
"""How long a handler that is ended may take to clean up before it is no longer waited for."""


class Driver:
    """
    Do to a run, through its *lifecycle* and in its *turn*, what must not be cut off and begun again.

    Such work goes on when the wait for it is cancelled, and whoever calls next takes it up. `resumes` counts the pauses
    that were answered. `failed` is set when work has failed for good: it is not tried again.
    """

    __slots__ = (
        "_attempts",
        "_lifecycle",
        "_operations",
        "_origin",
        "_pause",
        "_pending",
        "_turn",
        "_work",
        "failed",
        "resumes",
    )

    def __init__(self, lifecycle: Lifecycle, tasks: Tasks, turn: Turn, operations: Operations) -> None:
        self._lifecycle = lifecycle
        self._operations = operations
        self._turn = turn
        self._origin: Any = None  # what started the run, where this stream has
        self._work = Detached(tasks)
        self._attempts: Attempts | None = None  # how the requests of that work fare
        self._pending: PendingAnswers | None = None
        self._pause: Pause | None = None
        self.resumes = 0
        self.failed: Failed | None = None

    @property
    def outputs(self) -> tuple[ToolOutput, ...]:
        """Return the answers that handlers gave and that are not posted yet."""
        return () if self._pending is None else tuple(self._pending.by_action.values())

    def begins(self, origin: Any) -> bool:
        """Tell whether `begin` has anything to do for *origin*; else it is a run, to be followed as it is."""
        return self._lifecycle.begins(origin)

    async def is_known(self) -> bool:
        """Tell whether the work was begun before: there is nothing to start then."""
        return await self._lifecycle.is_known()

    async def begin(self, origin: Any) -> Run:
        """Start the run, or attach to the one that was started."""
        lifecycle = self._lifecycle
        self._origin = None if isinstance(origin, Run | RunRef) else origin
        run: Run = await self._once(lambda attempts: lifecycle.begin(origin, attempts), final=OutcomeUnknownError)
        return run

    def pause(self, run: Run) -> Pause:
        """Return what is to look for the end of the pause that is being answered, and then ends its handlers."""
        if self._pause is None:
            now = asyncio.get_running_loop().time()
            self._pause = Pause(run, now, self._work.cancel, self._operations)
        return self._pause

    async def answer(self, run: Run, handlers: Handlers, on_handled: Callable[[], None]) -> Run | None:
        """
        Run the handlers of a pause, post what they answer, and return the state that follows.

        Where the `pause` ended before they had answered, what they would have said counts for nothing: that is the run
        that an answer from elsewhere has begun, else None.
        *on_handled* is called once the handlers have ended, even where the step that waits for them was cut off.
        """
        lifecycle, pending, pause, origin = self._lifecycle, self._pending, self.pause(run), self._origin
        if pending is None:
            pending = self._pending = PendingAnswers()
        if not pending.is_collected and (not pause.is_over or self._work.is_under_way):
            handle = partial(lifecycle.handle, run, handlers, pending.by_action, origin)

            async def ask(_: Attempts) -> None:
                try:
                    await asking(run, lifecycle.key, handle, pause, origin, self._operations.tool_spans(run))
                finally:
                    on_handled()

            try:
                await self._once(ask, final=BaseException)
            except (Exception, asyncio.CancelledError):
                if not pause.is_over or self._work.is_under_way:  # the handlers failed, or the wait was cancelled
                    raise
        if not pending.is_collected:
            if pause.is_over:
                self.failed = None
                if pause.followed is not None:
                    await self._keep_surely(pause.followed)
                self._pending = self._pause = None
                return pause.followed
            pause.stop()
            pending.collected()
        outputs, again = pending.outputs(run), pending.is_unclear
        try:
            resumed: Run = await self._once(
                lambda attempts: lifecycle.answer(run, outputs, attempts, origin, again=again)
            )
        except Exception as error:
            if not (self.was_refused or isinstance(error, ConfigurationError)):  # else nothing has arrived
                pending.posting_failed()
            raise
        self._answered()
        return resumed

    def share(self) -> None:
        """Have states in flight kept, too."""
        self._lifecycle.share()

    async def keep(self, run: Run) -> None:
        """Have a state kept before it is shown, if anything keeps it."""
        if self._lifecycle.keeps(run):
            await self._keep_surely(run)

    async def _keep_surely(self, run: Run) -> None:
        # What a step that was cut off has begun to write is waited for first.
        while await self._once(lambda _: self._keep(run)) is not run:
            pass

    async def _keep(self, run: Run) -> Run:
        await self._lifecycle.saw(run)
        return run

    def leave(self) -> None:
        """Follow the work no more."""
        self._lifecycle.leave()

    # What is under way ------------------------------------------------------------------------------------------------

    def is_sending(self, run: Run | None) -> bool:
        """Tell whether the start is under way, of which *run* is None, or answers: not handlers, who send their own."""
        is_posting = self._pending is not None and self._pending.is_collected
        return self._work.is_under_way and (run is None or is_posting)

    @property
    def is_handling(self) -> bool:
        """Tell whether handlers are under way, whose pause may end without them."""
        return self._work.is_under_way and self._pending is not None and not self._pending.is_collected

    @property
    def was_refused(self) -> bool:
        """Tell whether all requests of the work were clearly refused so far, and none is under way."""
        return self._attempts is not None and self._attempts.idle and not self._attempts.doubt

    @property
    def last_failure(self) -> Exception | None:
        """Return what the last request of the work came to, if it failed."""
        return None if self._attempts is None else self._attempts.failure

    async def finish_sending(self, run: Run | None) -> Run:
        """Return the run that is being started, or the state that follows the answers to *run*."""
        found: Run = await self._work.result()
        if run is not None:
            self._answered()
        return found

    def _answered(self) -> None:
        self._pending = self._pause = None
        self.resumes += 1

    async def drop(self) -> None:
        """End what is under way, and give it `CLEAN_UP_SECONDS` to clean up."""
        await self._work.drop(CLEAN_UP_SECONDS)

    def cancel(self) -> None:
        """Ask what is under way to end, from any thread, and wait for nothing."""
        self._work.cancel()

    def abandon(self, tasks: Tasks) -> None:
        """Ask what is under way to end, and leave the work soon; the garbage collector calls this, in any thread."""
        self._work.cancel()
        if self._lifecycle.key is not None:
            tasks.call_soon(self._lifecycle.leave)

    async def _once(
        self, make: Callable[[Attempts], Coroutine[Any, Any, Any]], *, final: type[BaseException] | None = None
    ) -> Any:
        """Take up the work that is under way, or begin it; a failure of the kind *final* is final."""
        if not self._work.is_under_way:
            self._attempts = Attempts()
            self._work.begin(_within(self._turn.place, self._lifecycle.key, make, self._attempts))
        try:
            return await self._work.result()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if final is not None and isinstance(error, final):
                self.failed = Failed(error, told_once=isinstance(error, TimeoutError))
            raise


async def _within(
    place: Place | None, key: str | None, make: Callable[[Attempts], Coroutine[Any, Any, Any]], attempts: Attempts
) -> Any:
    """
    Do what *make* gives, in a task of its own, on behalf of a row, and of the work of a *key*.

    A task that never begins leaves no coroutine behind.
    """
    WORK_KEY.set(key or "")
    if place is not None:
        PLACE.set(place)
    return await make(attempts)
