"""One thread for one connection: SQLite blocks, and a connection belongs to the thread that made it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

NAME = "agentruns-journal"


class ConnectionThread:
    """
    Does things one after the other, in a thread of its own that starts with the first of them.

    The interpreter waits for what is under way when it exits; a thread that has nothing to do does not keep it.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, NAME)

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

        self._executor.submit(work)
        return future

    def close(self) -> None:
        """Let the thread end when everything is done."""
        self._executor.shutdown(wait=False)


def _tell(future: asyncio.Future[Any], outcome: Any, problem: BaseException | None) -> None:
    if future.done():
        return
    if problem is None:
        future.set_result(outcome)
    else:
        future.set_exception(problem)
