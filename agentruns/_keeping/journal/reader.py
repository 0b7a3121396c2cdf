"""
A journal as a reader sees it: what work there is, how it stands, who is at it, and what waits for a person.

It is read by a connection of its own, and never written.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import PurePath
from types import TracebackType
from typing import Any, Self, TypeVar

from attrs import evolve

from agentruns._values import codec
from agentruns._values.run import Run
from agentruns.errors import ConfigurationError, JournalError

from .changes import pause
from .entries import Counts, Entry, Handled
from .locations import is_database, location
from .queries import EntryQueries, Found, Which
from .store import LedgerReader
from .thread import ConnectionThread

T = TypeVar("T")


class JournalReader:
    """
    Read the journal at *path*, a file or the URL of a database; open it by `async with`.

    Raise `ConfigurationError` for what is no journal, `JournalError` where it can be read no more.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._location = location(path)
        self._thread: ConnectionThread | None = None
        self._store: LedgerReader | None = None

    @property
    def name(self) -> str:
        """Return what pages call it: the name of the file, or the URL of the database, without user and password."""
        name = self._location.name
        return name if is_database(name) else PurePath(name).name

    async def __aenter__(self) -> Self:
        self._thread = ConnectionThread()
        try:
            self._store = await self._thread.do(self._location.open_reader)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        closed = self._close()
        if closed is not None:
            await closed

    def _close(self) -> asyncio.Future[None] | None:
        """Close the store after all that is being read, and let the thread end."""
        thread, self._thread = self._thread, None
        store, self._store = self._store, None
        if thread is None:
            return None
        try:
            return None if store is None else thread.do(store.close)
        finally:
            thread.close()

    async def version(self) -> int:
        """Return a number that changes whenever somebody has written to the journal."""
        return await self._ask(lambda store: store.version())

    async def pause(self, seen: int, seconds: float) -> None:
        """Wait so many seconds, or until somebody has written since the version *seen*, where the store tells that."""
        await pause(None if self._store is None else self._store.news, seen, seconds)

    async def page(
        self, which: Which = "all", *, before: int | None = None, key: str = ""
    ) -> tuple[list[Entry], Counts]:
        """
        Return a page of entries, newest first, and how many there are of each sort, both of one moment.

        With *before*, those entries with a number less than that; with *key*, those that have it in their key.
        """
        found, counts = await self._read(lambda queries: (queries.page(which, before, key), queries.counts()))
        return await self._with_life(found), counts

    async def entry(self, entry_id: str) -> Entry | None:
        """Return the entry of that id, None if there is none."""
        kind, number = entry_id[:1], entry_id[1:]
        if kind not in {"w", "p"} or not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        found = await self._with_life(await self._read(lambda queries: queries.entry(kind, int(number))))
        return found[0] if found else None

    async def named(self, key: str) -> str | None:
        """Return the id of the newest work of that key, of whichever vendor."""
        return await self._read(lambda queries: queries.named(key))

    async def run(self, entry_id: str) -> Run | None:
        """Return the last state that the journal knows of an entry."""
        kept = await self._read(lambda queries: queries.run(entry_id[0], int(entry_id[1:])))
        with suppress(ConfigurationError):  # of another version
            return None if kept is None else Run.from_json(kept)
        return None

    async def origin(self, entry_id: str) -> Mapping[str, Any]:
        """Return what started the work, as the journal keeps it; nothing where that is not known."""
        if not entry_id.startswith("w"):
            return {}
        text = await self._read(lambda queries: queries.origin(int(entry_id[1:])))
        try:
            kept = None if text is None else codec.decode(text, trusted=True)
        except codec.CodecError:
            return {}
        return kept if isinstance(kept, Mapping) else {} if kept is None else {"origin": kept}

    async def handled(self, entry: Entry) -> list[Handled]:
        """Return the actions of an entry that were dealt with, oldest first."""
        if not entry.id.startswith("w"):
            return []
        found = await self._read(lambda queries: queries.handled(int(entry.id[1:])))
        alive = await self._alive({owner for each, owner in found if each.state == "running"})
        return [evolve(each, alive=owner in alive) for each, owner in found]

    async def vendors(self) -> list[str]:
        """Return the vendors of whom there is anything."""
        return await self._read(lambda queries: queries.vendors())

    # ------------------------------------------------------------------------------------------------------------------

    async def _with_life(self, found: list[Found]) -> list[Entry]:
        alive = await self._alive({owner for entry, owner in found if entry.state != "done"})
        return [evolve(entry, alive=owner in alive) for entry, owner in found]

    async def _alive(self, owners: set[str]) -> set[str]:
        named = owners - {""}
        return await self._ask(lambda store: store.alive(named)) if named else set()

    async def _read(self, read: Callable[[EntryQueries], T]) -> T:
        return await self._ask(lambda store: store.read(read))

    async def _ask(self, ask: Callable[[LedgerReader], T]) -> T:
        store = self._store
        if self._thread is None or store is None:
            raise JournalError(self._location.name, "it is not open", "")
        return await self._thread.do(lambda: ask(store))
