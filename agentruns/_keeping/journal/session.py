"""An open store, as tasks use it: what they write is handed to its thread, and what others write is waited for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from agentruns._aio.shield import run_shielded
from agentruns._values import check
from agentruns.errors import ConfigurationError, JournalError

from .changes import pause
from .lease import LeaseLostError
from .locations import is_unicode, location
from .problems import reason
from .write import Write
from .writer import Writer, connect

if TYPE_CHECKING:
    from .records import Records
    from .store import News

T = TypeVar("T")

READ: Final = "It was only to be read: nothing was sent, and what runs at the vendor goes on"
"""How things stand when a read has failed."""

_LONGEST_KEY: Final = 1000


class Session:
    """
    The store at *path*, for one vendor; each open one is an owner of its own.

    What is written is on the disk when the call returns. A call that is cancelled has written all or nothing. All raise
    `JournalError` for a store that cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], vendor: str) -> None:
        self._location = location(path)
        self._path = self._location.name
        self._vendor = check.non_empty_str("vendor", vendor)
        self._gate = asyncio.Lock()
        self._writer: Writer | None = None

    @property
    def path(self) -> str:
        """Return the absolute path of the file, or what else the store is called; no secret is in it."""
        return self._path

    # Open and closed --------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """
        Open the store, made if there is none; do nothing if it is open.

        Raise `ConfigurationError` for a path that cannot be a journal, and where the extra that it needs is missing.
        """
        async with self._gate:
            if self._writer is not None:
                return
            try:
                await run_shielded(self._open())
            except asyncio.CancelledError:
                await run_shielded(self._close())
                raise

    async def close(self) -> None:
        """Wait for what is being written, and close the store; what is not done is anybody's from now on."""
        await run_shielded(self._close_in_turn())

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # Writes -----------------------------------------------------------------------------------------------------------

    def write(self, act: Callable[[Records], T], standing: str) -> Write[T]:
        """Let *act* be part of the next commit; *standing* says how things stand if that fails."""
        if self._writer is None:
            raise JournalError(self._path, "it is not open", standing)
        write = Write(act, standing)
        self._writer.add(write)
        return write

    async def do(self, act: Callable[[Records], T], standing: str = READ) -> T:
        """Commit *act*, and return what it returns."""
        done: T = await self.write(act, standing).future
        return done

    async def read(self, act: Callable[[Records], T]) -> T:
        """Return what *act* finds, which changes nothing; where the store can, without waiting for those who write."""
        if self._writer is None:
            raise JournalError(self._path, "it is not open", READ)
        return await self._writer.read(act, READ)

    async def do_for(self, key: str, act: Callable[[Records], T], standing: str = READ) -> T:
        """Do as `do` does, for the work of one key; raise `ConfigurationError` for a key that is none."""
        check_key(key)
        return await self.do(act, standing)

    async def do_or_undo(
        self, key: str, act: Callable[[Records], T], standing: str, undo: Callable[[Records, T | None], None]
    ) -> T:
        """Do as `do_for` does, for a write that claims something; for a caller that is gone, give the claim back."""
        check_key(key)
        write = self.write(act, standing)
        try:
            done: T = await write.future
        except asyncio.CancelledError:
            if self._writer is not None:
                undoing = Write(lambda records: undo(records, write.outcome), "")
                undoing.future.add_done_callback(lambda over: over.cancelled() or over.exception())  # nobody waits
                self._writer.add(undoing)
            raise
        return done

    async def compact(self) -> None:
        """Give room that is not used back, where that costs others nothing."""
        if self._writer is not None:
            await self._writer.compact()

    # Others -----------------------------------------------------------------------------------------------------------

    async def version(self) -> int:
        """Return a number that changes with whatever others write; it waits for no lock."""
        if self._writer is None:
            raise JournalError(self._path, "it is not open", "")
        try:
            return await self._writer.version()
        except Exception as error:
            raise JournalError(self._path, reason(error), "") from error

    def heard(self) -> int:
        """Return how often others have written, as far as the store tells that by itself; nobody is asked."""
        news = self._news
        return 0 if news is None else news.version()

    async def pause(self, seen: int, seconds: float) -> None:
        """Wait so many seconds, or until more has been heard than *seen*, if the store tells."""
        await pause(self._news, seen, seconds)

    @property
    def _news(self) -> News | None:
        return None if self._writer is None else self._writer.news

    @asynccontextmanager
    async def acting(self) -> AsyncIterator[None]:
        """
        Do within this, in one task, what only one may do at a time, after it was entered.

        Where owners are known by leases, it is cut off before others may take this one for dead; then raise
        `JournalError`, as where the store cannot be heard of to begin with.
        """
        lease = None if self._writer is None else self._writer.lease
        if lease is None:
            yield
            return
        if not lease.left():
            await self.do(lambda _: None, "Nothing was done")  # this renews it
        try:
            async with lease.held():
                yield
        except LeaseLostError:
            raise JournalError(
                self._path,
                "it was not heard of for as long as others wait, and they may go on with this work",
                "What was under way here was cut off",
            ) from None

    # ------------------------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        self._writer = await connect(self._location, self._vendor)

    async def _close_in_turn(self) -> None:
        async with self._gate:
            await self._close()

    async def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.close()


def check_key(key: object) -> None:
    """Raise `ConfigurationError` for what can be no key."""
    text = check.non_empty_str("key", key)
    if len(text) > _LONGEST_KEY:
        raise ConfigurationError(f"key is {text[:40]!r}... ({len(text)} characters); at most {_LONGEST_KEY} will do")
    if "\0" in text or not is_unicode(text):
        raise ConfigurationError(f"key is {text!r}; it must be a text of Unicode characters, without NUL")
