"""An event loop in a thread of its own, and threads that hand work over to it and wait."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from functools import partial
from queue import SimpleQueue
from threading import Lock, current_thread, main_thread
from typing import Any, Final, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from agentruns.errors import AgentRunsError, ConfigurationError

T = TypeVar("T")

_NOT_OPEN: Final = "this client is not open; use it within `with blocking.connect(...) as client:`"
_IN_A_LOOP: Final = (
    "a blocking client would stop the event loop that runs in this thread; use the async client there: `async with "
    "agentruns.connect(...) as client:`"
)
_FORKED: Final = (
    "this client was opened before the process was forked, and its thread is in the other process; open one in each "
    "process, after the fork"
)


class LoopThread:
    """
    The thread of a client, over a portal of anyio; open from `open` to `close`.

    Threads that wait in `call` may be interrupted: then the call is cancelled in the loop, and its end is waited for.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._opened: ExitStack | None = None
        self._portal: BlockingPortal | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._calls: set[HandedOver] = set()

    @property
    def is_open(self) -> bool:
        """Tell whether there is a thread that takes work."""
        return self._portal is not None and self._process == os.getpid()

    def open(self, owner: AbstractAsyncContextManager[object]) -> None:
        """
        Begin the thread, and enter *owner* in its loop.

        Raise `ConfigurationError` if this is open already, and within a running event loop.
        """
        _check_no_loop()
        with self._lock:
            if self._portal is not None:
                self._check_process()
                raise ConfigurationError("this client is open already; use it as it is, from any thread")
            self._process = os.getpid()
            with ExitStack() as opened:
                opened.callback(self._end_calls)
                portal = opened.enter_context(start_blocking_portal(name="agentruns blocking client"))
                opened.callback(_stop, portal)
                self._loop = portal.call(asyncio.get_running_loop)
                self._wait(owner.__aenter__)
                opened.callback(self._wait, _leaving(owner))
                self._opened, self._portal = opened.pop_all(), portal
        atexit.register(self.close)

    def close(self) -> None:
        """Leave the owner, end what other threads wait for, and end the thread; do nothing if this is not open."""
        with self._lock:
            opened, self._opened, self._portal = self._opened, None, None
        atexit.unregister(self.close)
        if opened is not None and self._process == os.getpid():
            opened.close()

    def call(self, work: Callable[[], Awaitable[T]], caller: Caller | None = None) -> T:
        """
        Await *work* in the loop, and return what comes of it; the *caller* does meanwhile what it needs of this thread.

        Raise what *work* raises; `ConfigurationError` if this is not open, within a running event loop, and in a
        process that was forked; `AgentRunsError` if another thread closes this meanwhile.
        """
        _check_no_loop()
        if self._portal is None:
            raise ConfigurationError(_NOT_OPEN)
        self._check_process()
        return self._wait(work, caller)

    def _wait(self, work: Callable[[], Awaitable[T]], caller: Caller | None = None) -> T:
        loop = self._loop
        assert loop is not None, "there is a loop while there is a portal"
        call = HandedOver(work, None if caller is None else caller.wanted)
        self._calls.add(call)  # before it is handed over, so that `close` finds whatever was
        try:
            try:
                loop.call_soon_threadsafe(call.begin)
            except RuntimeError:  # another thread has just closed it
                raise ConfigurationError(_NOT_OPEN) from None
            if caller is None:
                call.wait()
            else:
                caller.serve(call)
        except BaseException:
            call.give_up(loop)
            raise
        finally:
            self._calls.discard(call)
        result: T = call.result()
        return result

    def _end_calls(self) -> None:
        """Wake those who wait for what was handed over as the loop ended."""
        for call in tuple(self._calls):
            call.end()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise ConfigurationError(_FORKED)

    def do(self, act: Callable[[], T]) -> T:
        """Call *act* in the thread of the loop, and return or raise what comes of it, as `call` does."""

        async def work() -> T:
            return act()

        return self.call(work)

    def call_soon(self, act: Callable[[], object]) -> None:
        """Have *act* called in the loop, and wait for nothing; never while this is not open. A finalizer may ask."""
        loop = self._loop
        if loop is not None and self.is_open:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(act)


def _check_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if not _is_cell():
        raise ConfigurationError(_IN_A_LOOP)


def _is_cell() -> bool:
    """Tell whether this is a cell of a notebook, whose loop waits for the cell anyway."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None and current_thread() is main_thread()


def _leaving(owner: AbstractAsyncContextManager[object]) -> Callable[[], Awaitable[object]]:
    return lambda: owner.__aexit__(None, None, None)


def _stop(portal: BlockingPortal) -> None:
    portal.call(portal.stop)


class HandedOver:
    """
    One piece of work in the loop, and the thread that waits for it and may be interrupted at any moment.

    So the two share no lock that is held while code of Python runs: an interruption could leave it locked, and the loop
    would wait for it for ever. `told`, if there is one, gets this when the work has ended.
    """

    def __init__(self, work: Callable[[], Awaitable[Any]], told: SimpleQueue[Any] | None = None) -> None:
        self._work = work
        self._told = told
        self._task: asyncio.Future[Any] | None = None
        self._is_given_up = False
        self._ended = Lock()
        self._ended.acquire()

    def begin(self) -> None:
        """Begin the work, in the thread of the loop, unless it is given up."""
        if self._is_given_up:
            self.end()
            return
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(self.end)

    async def _run(self) -> Any:
        return await self._work()

    def end(self, task: asyncio.Future[Any] | None = None) -> None:
        """Wake the thread that waits, once."""
        if task is not None and not task.cancelled():
            task.exception()  # seen, so that nobody complains where the thread was interrupted
        if self._ended.locked():
            self._ended.release()
            if self._told is not None:
                self._told.put(self)

    def wait(self) -> None:
        """Wait until the work has ended."""
        with self._ended:
            pass

    def result(self) -> Any:
        """Return or raise what came of the work that has ended; `AgentRunsError` if the client was closed before."""
        task = self._task
        if task is None or not task.done() or task.cancelled():
            raise AgentRunsError(
                "this was cancelled while it was waited for, as it is when another thread closes the client"
            )
        return task.result()

    def give_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel the work, and wait until it has ended; what has not begun never will."""
        self._is_given_up = True
        if self._ended.locked():
            with suppress(RuntimeError):  # the loop is closed, and all that it had to do has ended
                loop.call_soon_threadsafe(self._cancel)
                self.wait()

    def _cancel(self) -> None:
        if self._task is None:
            self.end()
        else:
            self._task.cancel()


class Caller:
    """What code in a loop has done in the thread that waits for it."""

    def __init__(self) -> None:
        self.wanted: Final[SimpleQueue[Callable[[], object] | HandedOver]] = SimpleQueue()

    def serve(self, step: HandedOver) -> None:
        """Do what is wanted, in this thread, until *step* has ended; raise what an act raises that nobody awaits."""
        while (wanted := self.wanted.get()) is not step:
            if not isinstance(wanted, HandedOver):  # a step that was interrupted
                wanted()

    def tell(self, act: Callable[[Any], object], value: Any) -> None:
        """Have *act* called with *value*, and wait for nothing."""
        self.wanted.put(partial(act, value))

    async def do(self, act: Callable[[], Any]) -> Any:
        """Have *act* called, and return or raise what comes of it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def done() -> None:
            if future.done():  # nobody wants it any more
                return
            error, value = None, None
            try:
                value = act()
            except Exception as caught:
                error = caught
            except BaseException:  # the thread is interrupted; who goes on, tries again
                self.wanted.put(done)
                raise
            loop.call_soon_threadsafe(_settle, future, value, error)

        self.wanted.put(done)
        return await future


def _settle(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
