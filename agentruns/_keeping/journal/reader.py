"""
A journal as a reader sees it: what work there is, how it stands, who is at it, and what waits for a person.

It is read by a connection of its own, and never written. Entries are found by the numbers of their rows, which do not
change; a run whose actions wait though no work of this journal has its key is an entry, too.
"""
# ruff: noqa: S608 - what is put into the SQL here is written here

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, TypeVar

from attrs import evolve, frozen

from agentruns import _extras as extras
from agentruns._values import codec
from agentruns._values.run import Run
from agentruns.errors import ConfigurationError, JournalError

from .thread import ConnectionThread

if TYPE_CHECKING:
    from .owners import Owners

T = TypeVar("T")
Which: TypeAlias = Literal["all", "waiting", "open", "done"]

PAGE: Final = 100
"""Entries of one page."""

_LINE: Final = """
    'w' || id, vendor, key, state, owner, created, updated, json_extract(run, '$.ref.id'),
    json_extract(run, '$.ref.parent'), json_extract(run, '$.status'), json_extract(run, '$.vendor_status'),
    json_extract(run, '$.usage.input_tokens'), json_extract(run, '$.usage.output_tokens'),
    (SELECT count(*) FROM parked WHERE parked.state = 'waiting' AND parked.vendor = work.vendor
        AND parked.key = work.key)
"""
_STRAY: Final = """
    'p' || min(id), vendor, coalesce(max(key), ''), 'open', '', min(asked), max(asked),
    json_extract(run, '$.ref.id'), json_extract(run, '$.ref.parent'), json_extract(run, '$.status'),
    json_extract(run, '$.vendor_status'), json_extract(run, '$.usage.input_tokens'),
    json_extract(run, '$.usage.output_tokens'), count(*)
"""
_NO_WORK: Final = "NOT EXISTS (SELECT 1 FROM work WHERE work.vendor = parked.vendor AND work.key = parked.key)"
_WAITS: Final = """
    state <> 'done' AND (json_extract(run, '$.status') = 'requires_action' OR EXISTS (SELECT 1 FROM parked
        WHERE parked.state = 'waiting' AND parked.vendor = work.vendor AND parked.key = work.key))
"""
_WHERE: Final[dict[str, str]] = {"all": "1", "waiting": _WAITS, "open": "state <> 'done'", "done": "state = 'done'"}


@frozen(kw_only=True)
class Entry:
    """
    One piece of work, or one run whose actions wait, as lists show it.

    `id` names it in addresses. `key` is empty where the work has none, `run_id` where no run is known to have started.
    `created` and `updated` are seconds since the epoch; `alive` says that somebody is at it now, `waiting` how many of
    its actions wait for a person in the journal.
    """

    id: str
    vendor: str
    key: str
    state: Literal["starting", "open", "done"]
    alive: bool
    created: float
    updated: float
    run_id: str
    parent: str
    status: str
    vendor_status: str
    tokens: tuple[int, int] | None
    waiting: int

    @property
    def waits(self) -> bool:
        """Tell whether somebody must answer before it goes on."""
        return self.state != "done" and (self.waiting > 0 or self.status == "requires_action")


@frozen
class Handled:
    """One action that a handler, or a person, has dealt with: `output` is JSON text."""

    run_id: str
    action_id: str
    name: str
    state: Literal["running", "answered", "posted"]
    output: str | None
    is_error: bool
    alive: bool


@frozen
class Counts:
    """How many entries there are of each sort."""

    all: int
    waiting: int
    open: int
    done: int


class JournalReader:
    """
    Read the journal at *path*; open it by `async with`.

    Raise `ConfigurationError` for a path that is no journal, `JournalError` where it can be read no more.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self._thread: ConnectionThread | None = None
        self._connection: sqlite3.Connection | None = None
        self._owners: Owners | None = None

    async def __aenter__(self) -> Self:
        with extras.require("journal", "a journal needs"):
            from .owners import Owners
        self._owners = Owners(str(self.path))
        self._thread = ConnectionThread()
        try:
            await self._thread.do(self._open)
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
        """Close the file after all that is being read, and let the thread end."""
        thread, self._thread = self._thread, None
        if thread is None:
            return None
        try:
            return thread.do(self._close_connection)
        finally:
            thread.close()

    def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def version(self) -> int:
        """Return a number that changes whenever somebody has written to the journal."""
        return await self._read(lambda: int(self._do("PRAGMA data_version").fetchone()[0]))

    async def page(self, which: Which = "all", *, before: int | None = None) -> tuple[list[Entry], Counts]:
        """
        Return a page of entries, newest first, and how many there are of each sort, both of one moment.

        With *before*, those entries with a number less than that.
        """
        found, counts = await self._read(lambda: self._page(which, before))
        return await self._read(lambda: self._with_life(found)), counts

    async def entry(self, entry_id: str) -> Entry | None:
        """Return the entry of that id, None if there is none."""
        kind, number = entry_id[:1], entry_id[1:]
        if kind not in {"w", "p"} or not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        found = await self._read(lambda: self._with_life(self._entry(kind, int(number))))
        return found[0] if found else None

    async def named(self, key: str) -> str | None:
        """Return the id of the newest work of that key, of whichever vendor."""
        row = await self._read(
            lambda: self._do("SELECT 'w' || id FROM work WHERE key = ? ORDER BY id DESC LIMIT 1", (key,)).fetchone()
        )
        return None if row is None else str(row[0])

    async def run(self, entry_id: str) -> Run | None:
        """Return the last state that the journal knows of an entry."""
        table = "work" if entry_id.startswith("w") else "parked"
        row = await self._read(
            lambda: self._do(f"SELECT run FROM {table} WHERE id = ?", (int(entry_id[1:]),)).fetchone()
        )
        with suppress(ConfigurationError):  # of another version
            return None if row is None or row[0] is None else Run.from_json(row[0])
        return None

    async def origin(self, entry_id: str) -> Mapping[str, Any]:
        """Return what started the work, as the journal keeps it; nothing where that is not known."""
        if not entry_id.startswith("w"):
            return {}
        row = await self._read(
            lambda: self._do("SELECT origin FROM work WHERE id = ?", (int(entry_id[1:]),)).fetchone()
        )
        kept = None if row is None else codec.decode(row[0], trusted=True)
        return kept if isinstance(kept, Mapping) else {} if kept is None else {"origin": kept}

    async def handled(self, entry: Entry) -> list[Handled]:
        """Return the actions of an entry that were dealt with, oldest first."""
        if not entry.id.startswith("w"):
            return []
        return await self._read(lambda: self._handled(int(entry.id[1:])))

    async def vendors(self) -> list[str]:
        """Return the vendors of whom there is anything."""
        rows = await self._read(
            lambda: self._do("SELECT vendor FROM work UNION SELECT vendor FROM parked ORDER BY 1").fetchall()
        )
        return [vendor for (vendor,) in rows]

    # ------------------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        from . import schema
        from .problems import UnfitError, reason

        try:
            if not self.path.is_file():
                raise UnfitError("there is no such file; `connect(..., journal=path)` makes one")
            opened = sqlite3.connect(f"{self.path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=1.0)
            try:
                if schema.judge(opened) < len(schema.STEPS):
                    raise UnfitError("an older agentruns made it; open it once by `connect(..., journal=path)`")
            except BaseException:
                opened.close()
                raise
            self._connection = opened
        except (OSError, sqlite3.Error, UnfitError) as error:
            raise ConfigurationError(f"cannot open the journal {self.path}: {reason(error)}") from error

    async def _read(self, read: Callable[[], T]) -> T:
        if self._thread is None:
            raise JournalError(str(self.path), "it is not open", "")
        try:
            return await self._thread.do(read)
        except sqlite3.Error as error:
            raise JournalError(str(self.path), str(error), "") from error

    def _do(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        assert self._connection is not None
        return self._connection.execute(sql, values)

    def _page(self, which: Which, before: int | None) -> tuple[list[tuple[Entry, str]], Counts]:
        self._do("BEGIN")
        try:
            return self._entries(which, before), self._counts()
        finally:
            self._do("ROLLBACK")

    def _counts(self) -> Counts:
        counted = [int(self._do(f"SELECT count(*) FROM work WHERE {where}").fetchone()[0]) for where in _WHERE.values()]
        strays = len(self._strays())
        every, waiting, open_, done = counted
        return Counts(every + strays, waiting + strays, open_ + strays, done)

    def _entries(self, which: Which, before: int | None) -> list[tuple[Entry, str]]:
        rows = self._do(
            f"SELECT {_LINE} FROM work WHERE ({_WHERE[which]}) AND id < ? ORDER BY id DESC LIMIT {PAGE}",
            (before if before is not None else 1 << 62,),
        ).fetchall()
        strays = self._strays() if which != "done" and before is None else []
        return [*strays, *map(_entry, rows)]

    def _strays(self) -> list[tuple[Entry, str]]:
        rows = self._do(
            f"SELECT {_STRAY} FROM parked WHERE state = 'waiting' AND {_NO_WORK} GROUP BY vendor, run_id"
            f" ORDER BY 1 DESC LIMIT {PAGE}"
        )
        return [_entry(row) for row in rows.fetchall()]

    def _entry(self, kind: str, number: int) -> list[tuple[Entry, str]]:
        if kind == "w":
            rows = self._do(f"SELECT {_LINE} FROM work WHERE id = ?", (number,)).fetchall()
            return [_entry(row) for row in rows]
        rows = self._do(
            f"SELECT {_STRAY}, sum(state = 'waiting') FROM parked WHERE (vendor, run_id) ="
            " (SELECT vendor, run_id FROM parked WHERE id = ?) GROUP BY vendor, run_id",
            (number,),
        ).fetchall()
        found = [(_entry(row[:-1]), int(row[-1])) for row in rows]
        return [
            (evolve(entry, id=f"p{number}", waiting=waiting, state="open" if waiting else "done"), owner)
            for (entry, owner), waiting in found
        ]

    def _handled(self, number: int) -> list[Handled]:
        rows = self._do(
            "SELECT run_id, action_id, name, state, output, is_error, owner FROM handling WHERE work = ? ORDER BY id",
            (number,),
        ).fetchall()
        alive = self._alive({row[-1] for row in rows if row[3] == "running"})
        return [
            Handled(run_id, action_id, name, state, output, bool(is_error), owner in alive)
            for run_id, action_id, name, state, output, is_error, owner in rows
        ]

    def _with_life(self, found: Iterable[tuple[Entry, str]]) -> list[Entry]:
        pairs = list(found)
        alive = self._alive({owner for entry, owner in pairs if entry.state != "done"})
        return [evolve(entry, alive=owner in alive) for entry, owner in pairs]

    def _alive(self, owners: set[str]) -> set[str]:
        """Return which owners are there; all of them, while somebody keeps the journal locked."""
        owners = owners - {""}
        if not owners or self._owners is None:
            return set()
        try:
            # Looking takes an owner's lock for a moment; under the write lock nobody else looks meanwhile.
            self._do("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return owners
        try:
            self._owners.look_again()
            return {owner for owner in owners if self._owners.alive(owner)}
        finally:
            self._do("ROLLBACK")


def _entry(row: Sequence[Any]) -> tuple[Entry, str]:
    id_, vendor, key, state, owner, created, updated, run_id, parent, status, word, into, out, waiting = row
    tokens = None if into is None or out is None else (int(into), int(out))
    entry = Entry(
        id=str(id_),
        vendor=vendor,
        key=key,
        state=state,
        alive=False,
        created=created,
        updated=updated,
        run_id=run_id or "",
        parent=parent or "",
        status=status or "",
        vendor_status=word or "",
        tokens=tokens,
        waiting=int(waiting),
    )
    return entry, str(owner)
