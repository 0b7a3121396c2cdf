"""What other connections have written, told by the database at once: a connection of its own that listens."""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock, Thread
from typing import Any, Final

import psycopg

logger = logging.getLogger("agentruns")

_PROBE_SECONDS: Final = 30.0
"""After so many silent seconds the database is asked whether it is still there."""

_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 5.0


class Listener:
    """
    Counts what other owners write, in a thread that starts with the first question.

    *connect* makes a connection of its own. What was missed while there was none is counted as one.
    """

    def __init__(self, channel: str, owner: str, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self._channel = channel
        self._owner = owner
        self._connect = connect
        self._lock = Lock()
        self._version = 0
        self._waiting: set[Callable[[], None]] = set()
        self._wake, self._woken = socket.socketpair()
        self._thread: Thread | None = None
        self._closed = False

    def version(self) -> int:
        """Return how often others have written, as far as that was told."""
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = Thread(target=self._listen, name="agentruns-journal news", daemon=True)
                self._thread.start()
            return self._version

    def call(self, seen: int, news: Callable[[], None]) -> Callable[[], None]:
        """Call *news* once, in whichever thread, when the version is not *seen*; return what takes that back."""
        with self._lock:
            if self._version == seen:
                self._waiting.add(news)
                return lambda: self._waiting.discard(news)
        news()
        return lambda: None

    def close(self) -> None:
        """Listen no more; return when the thread has ended."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._wake.close()
        if thread is not None:
            thread.join()
        self._woken.close()

    def _tell(self) -> None:
        with self._lock:
            self._version += 1
            waiting, self._waiting = self._waiting, set()
        for each in waiting:
            with suppress(RuntimeError):  # its event loop is closed
                each()

    def _listen(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closed:
            try:
                with (
                    suppress(psycopg.Error, OSError, ValueError),
                    self._connect() as connection,
                ):  # else lost, or refused
                    connection.execute(f"LISTEN {self._channel}")
                    self._tell()
                    pause = _FIRST_PAUSE
                    self._hear(connection)
            except Exception:
                logger.exception("what others write to a journal cannot be heard for now, and is listened for again")
            if not self._closed:
                _ready(pause, self._woken)
                pause = min(2 * pause, _LAST_PAUSE)

    def _hear(self, connection: psycopg.Connection[Any]) -> None:
        """Count what is told, until this is closed or the connection is lost."""
        while not self._closed:
            ready = _ready(_PROBE_SECONDS, connection.fileno(), self._woken)
            if self._woken in ready:
                return
            others = not ready
            if others:  # it may have been told something together with the answer
                connection.execute("")
            connection.pgconn.consume_input()
            while (told := connection.pgconn.notifies()) is not None:
                others |= told.extra != self._owner.encode()
            if others:
                self._tell()


def _ready(seconds: float, *files: socket.socket | int) -> Sequence[object]:
    """Wait so long until one of *files* can be read, whatever its number is; return those that can."""
    with selectors.DefaultSelector() as selector:
        for each in files:
            selector.register(each, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(seconds)]
