"""One thread for one connection: SQLite blocks, and a connection belongs to the thread that made it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

logger = logging.getLogger("agentruns")

T = TypeVar("T")

NAME: Final = "agentruns-journal"


class ConnectionThread:
    """
    Does things one after the other, in a thread of its own that starts with the first of them.

    It is no executor, since the interpreter waits for the threads of executors when it exits: a journal that nobody
    closed, or one that waits for a file that another program keeps locked, would hold it up.
    """

    def __init__(self) -> None:
        self._acts: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = _Idle()
        self._thread: Thread | None = None

    def when_idle(self, seconds: float, act: Callable[[], None]) -> None:
        """Do *act* whenever there has been nothing to do for so many seconds, from the next thing on."""
        self._idle.seconds, self._idle.act = seconds, act

    def do(self, act: Callable[[], T]) -> asyncio.Future[T]:
        """Do *act* in its turn; it is done even if the future is cancelled, or its loop closed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            outcome: Any = None
            problem: BaseException | None = None
            try:
                outcome = act()
            except BaseException as error:
                problem = error
            try:
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(_tell, future, outcome, problem)
            finally:
                outcome = problem = None  # an error and the frame that it came through would hold each other

        self._acts.put(work)
        if self._thread is None:
            self._thread = Thread(target=_work, args=(self._acts, self._idle), name=NAME, daemon=True)
            self._thread.start()
        return future

    def close(self) -> None:
        """Let the thread end when everything is done; nothing may be asked of it from now on."""
        self._acts.put(None)


class _Idle:
    """What is done when there is nothing to do, and after how long."""

    seconds: float | None = None
    act: Callable[[], None] | None = None


def _work(acts: SimpleQueue[Callable[[], None] | None], idle: _Idle) -> None:
    while True:
        try:
            act = acts.get(timeout=idle.seconds)
        except Empty:
            if idle.act is not None:
                try:
                    idle.act()
                except Exception:  # what others wait for has to be done all the same
                    logger.exception("what a journal does while it is idle has failed, and is tried again")
            continue
        if act is None:
            return
        act()
        del act  # what it holds is not needed while the next is waited for


def _tell(future: asyncio.Future[Any], outcome: Any, problem: BaseException | None) -> None:
    if future.done():
        return
    if problem is None:
        future.set_result(outcome)
    else:
        future.set_exception(problem)
