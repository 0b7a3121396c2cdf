"""An event loop in a thread of its own, and threads that hand work over to it and wait."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from threading import Event, Lock, current_thread, main_thread
from typing import Any, Final, Generic, TypeVar

import anyio
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
                portal = opened.enter_context(start_blocking_portal(name="agentruns blocking client"))
                opened.callback(_stop, portal)
                self._loop = portal.call(asyncio.get_running_loop)
                _wait(portal, owner.__aenter__)
                opened.callback(_wait, portal, _leaving(owner))
                self._opened, self._portal = opened.pop_all(), portal
        atexit.register(self.close)

    def close(self) -> None:
        """Leave the owner, end what other threads wait for, and end the thread; do nothing if this is not open."""
        with self._lock:
            opened, self._opened, self._portal = self._opened, None, None
        atexit.unregister(self.close)
        if opened is not None and self._process == os.getpid():
            opened.close()

    def call(self, work: Callable[[], Awaitable[T]], serve: Callable[[Future[Any]], None] | None = None) -> T:
        """
        Await *work* in the loop, and return what comes of it; *serve* returns when the future that it gets is done.

        Raise what *work* raises; `ConfigurationError` if this is not open, within a running event loop, and in a
        process that was forked; `AgentRunsError` if another thread closes this meanwhile.
        """
        _check_no_loop()
        portal = self._portal
        if portal is None:
            raise ConfigurationError(_NOT_OPEN)
        self._check_process()
        return _wait(portal, work, serve)

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
    portal.call(portal.stop, True)


class _Call(Generic[T]):
    """One piece of work in the loop, which the thread that waits for it may cancel."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._scope: anyio.CancelScope | None = None
        self._has_begun = False
        self._is_given_up = False
        self._ended = Event()

    async def run(self) -> T:
        self._has_begun = True  # before it is looked whether it is given up, as `give_up` does it the other way round
        try:
            if not self._is_given_up:
                with anyio.CancelScope() as self._scope:
                    return await self._work()
            raise asyncio.CancelledError  # which nobody hears: the thread that waited was interrupted
        finally:
            self._ended.set()

    def give_up(self, portal: BlockingPortal) -> None:
        """Cancel the work, and wait until it has ended; what has not begun never will."""
        self._is_given_up = True
        if self._has_begun and not self._ended.is_set():
            with suppress(RuntimeError):  # the portal cancels it, as it is about to end
                portal.call(self._cancel)
            self._ended.wait()

    def _cancel(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


def _wait(
    portal: BlockingPortal, work: Callable[[], Awaitable[T]], serve: Callable[[Future[Any]], None] | None = None
) -> T:
    call = _Call(work)
    try:
        try:
            future = portal.start_task_soon(call.run)
        except RuntimeError:  # another thread has just closed it
            raise ConfigurationError(_NOT_OPEN) from None
        if serve is not None:
            serve(future)
        return future.result()
    except CancelledError:
        raise AgentRunsError(
            "this was cancelled while it was waited for, as it is when another thread closes the client"
        ) from None
    except BaseException:
        call.give_up(portal)  # at once if it has ended, as where it raised this
        raise
