"""
Threads for handlers that are not async.

Each call gets a daemon thread: one that is stuck keeps neither the process nor the loop. A thread counts until its
function ends, also when the handler has timed out and nobody waits for the thread any more. Handlers that a handler
runs in turn get threads of their own, so they never wait for the threads of those that wait for them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any

import anyio

from agentruns.errors import ToolError

logger = logging.getLogger("agentruns")

MOST = 40
"""How many threads of handlers run at the same time, for each depth of handlers within handlers."""

GRACE_SECONDS = 10.0
"""How long a handler waits for a thread before the log says so, and before it is given up if all are left behind."""

_depth: ContextVar[int] = ContextVar("agentruns_handler_depth", default=0)


class Threads:
    """At most *most* daemon threads at a time, for all event loops of the process."""

    def __init__(self, most: int, grace_seconds: float) -> None:
        self._most = most
        self._grace = grace_seconds
        self._lock = threading.Lock()
        self._busy = 0
        self._left = 0
        self._stuck_since: float | None = None  # when the last thread was left behind
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> Slot:
        """
        Return the right to one thread; wait for it while any of the threads may still come back.

        Raise `ToolError` when all have been left behind for the grace period.
        """
        with self._lock:
            if self._busy < self._most:
                self._busy += 1
                return Slot(self)
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
        try:
            await self._wait(waiter)
        except BaseException:
            self._give_up(waiter)
            raise
        return Slot(self)

    async def _wait(self, waiter: asyncio.Future[None]) -> None:
        while True:
            if self._stuck_seconds() < self._grace:
                await asyncio.wait([waiter], timeout=self._grace - self._stuck_seconds())
            if waiter.done():
                return
            logger.warning(
                "a handler waits for a thread: all %d are busy, %d of them with calls that have timed out or were "
                "cancelled, and have not ended",
                self._most,
                self._left,
            )
            if self._stuck_seconds() >= self._grace:
                raise ToolError("the tool could not be run: no thread is free, as earlier calls have not ended")

    def _stuck_seconds(self) -> float:
        """Return for how long all threads have been left behind; zero if nobody knows that of one."""
        since = self._stuck_since
        return 0.0 if since is None else time.monotonic() - since

    def _give_up(self, waiter: asyncio.Future[None]) -> None:
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                return
        if waiter.done():
            self.release()
        else:
            waiter.cancel()  # the thread that is on its way to it goes to the next one

    def release(self) -> None:
        """Give a thread back, to whoever waits for one; from any thread."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy -= 1
                    return
                waiter = self._waiting.popleft()
            try:
                waiter.get_loop().call_soon_threadsafe(self._grant, waiter)
            except RuntimeError:  # its loop is closed
                continue
            return

    def _grant(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done():
            self.release()
        else:
            waiter.set_result(None)

    def leave(self, slot: Slot) -> None:
        """Note that nobody waits for a thread any more."""
        with self._lock:
            if not slot.ended and not slot.left:
                slot.left = True
                self._left += 1
                if self._left >= self._most:
                    self._stuck_since = time.monotonic()

    def end(self, slot: Slot) -> None:
        """Note that a function has ended, and give its thread back."""
        with self._lock:
            slot.ended = True
            if slot.left:
                self._left -= 1
                self._stuck_since = None
        self.release()


class Slot:
    """The right to one thread: to be used by `run`, once, or given back."""

    __slots__ = ("_outcome", "_threads", "ended", "left")

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._outcome: tuple[Any, BaseException | None] | None = None
        self.ended = False
        self.left = False

    async def run(self, call: Callable[[], Any], guard: asyncio.Timeout) -> Any:
        """
        Call in a thread, with the context variables of here; a wait that is cancelled leaves the thread behind.

        A function that has ended before the *guard* could say that it is late has answered.

        Raise what *call* raises; what would end the thread, the loop or the process (`SystemExit` and the like) as a
        `RuntimeError`. Raise `ToolError` where the system gives no thread.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        cancelling = 0 if task is None else task.cancelling()
        future: asyncio.Future[None] = loop.create_future()
        context = copy_context()
        context.run(_depth.set, _depth.get() + 1)
        scope = anyio.CancelScope()
        thread = threading.Thread(
            target=self._work, args=(call, context, scope, loop, future), name="agentruns handler", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            self._threads.release()
            logger.warning("the system gives no thread for a handler: %s", error)
            raise ToolError("the tool could not be run: no thread is free") from error
        try:
            with scope:
                await future
        except asyncio.CancelledError:
            by_guard_alone = guard.expired() and task is not None and task.cancelling() == cancelling + 1
            if self._outcome is None or not by_guard_alone:
                self._threads.leave(self)
                scope.cancel()  # which `anyio.from_thread.check_cancelled()` tells the function
                raise
        assert self._outcome is not None
        (result, failed), self._outcome = self._outcome, None
        if failed is None:
            return result
        try:
            raise failed
        finally:
            del failed  # whose traceback has this frame

    def _work(
        self,
        call: Callable[[], Any],
        context: Context,
        scope: anyio.CancelScope,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[None],
    ) -> None:
        result: Any = None
        failed: BaseException | None = None
        try:
            with _worker_of_anyio(loop, scope, context):
                result = context.run(call)
        except (SystemExit, KeyboardInterrupt, StopIteration, StopAsyncIteration, GeneratorExit) as error:
            failed = ended_by(error)
        except BaseException as error:
            failed = error
        self._outcome = result, failed
        self._threads.end(self)
        del result, failed
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_wake, future)

    def give_back(self) -> None:
        """Give the right back, unused."""
        self._threads.release()


def ended_by(error: BaseException) -> RuntimeError:
    """Return the error of a handler that has raised what ends a loop, a generator or the process."""
    wrapped = RuntimeError(f"the handler raised {error!r}")
    wrapped.__cause__ = error
    return wrapped


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@contextmanager
def _worker_of_anyio(loop: asyncio.AbstractEventLoop, scope: anyio.CancelScope, context: Context) -> Iterator[None]:
    """
    Let `anyio.from_thread` work in this thread.

    anyio has no public way to say so of a thread that is not its own; without these private names, a function has to
    use `asyncio.run_coroutine_threadsafe`.
    """
    try:
        from anyio._core import _eventloop

        claim, threadlocals = _eventloop.claim_worker_thread, _eventloop.threadlocals
        backend = _eventloop.get_async_backend("asyncio")
        forget = getattr(_eventloop, "set_current_async_library", None)
    except (ImportError, AttributeError):
        yield
        return
    if forget is not None:
        context.run(forget, None)
    with claim(backend, loop):
        threadlocals.current_cancel_scope = scope
        try:
            yield
        finally:
            del threadlocals.current_cancel_scope


_pools: defaultdict[int, Threads] = defaultdict(lambda: Threads(MOST, GRACE_SECONDS))
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


async def acquire() -> Slot:
    """Return the right to one thread for a handler; raise as `Threads.acquire` does."""
    return await _pools[_depth.get()].acquire()
