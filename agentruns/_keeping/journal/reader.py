"""
A journal as a reader sees it: what work there is, how it stands, who is at it, and what waits for a person.

It is read by a connection of its own, and never written. Entries are found by the numbers of their rows, which do not
change; a run whose actions wait though no work of this journal has its key is an entry, too.
"""
# ruff: noqa: S608 - what is put into the SQL here is written here

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, TypeVar

from attrs import evolve

from agentruns import _extras as extras
from agentruns._values import codec
from agentruns._values.run import Run
from agentruns.errors import ConfigurationError, JournalError

from . import schema
from .entries import Counts, Entry, Handled
from .thread import ConnectionThread

if TYPE_CHECKING:
    from .owners import Owners

T = TypeVar("T")

_LAST: Final = 253402300800.0
"""The first second after the years that a date can have."""

Which: TypeAlias = Literal["all", "waiting", "open", "done", "failed"]

PAGE: Final = 100
"""Entries of one page."""

READ_SECONDS: Final = 10.0
"""How long one read may take: a file that somebody has made for it could keep the reader for ever."""

_STEPS: Final = 20_000
"""Instructions of SQLite between two looks at the time."""

UNREADABLE: Final = "unreadable"
"""The status of an entry whose run is kept as something else than JSON."""

_RUN: Final = f"""CASE WHEN run IS NULL OR json_valid(run) THEN run ELSE '{{"status":"{UNREADABLE}"}}' END"""
_OF_RUN: Final = ", ".join(
    f"json_extract({_RUN}, '$.{path}')"
    for path in ("ref.id", "ref.parent", "status", "vendor_status", "usage.input_tokens", "usage.output_tokens")
)
_LINE: Final = f"""
    'w' || id, vendor, key, state, owner, created, updated, {_OF_RUN},
    (SELECT count(*) FROM parked WHERE parked.state = 'waiting' AND parked.vendor = work.vendor
        AND parked.key = work.key)
"""
_STRAY: Final = f"""
    'p' || min(id), vendor, coalesce(max(key), ''), 'open', '', min(asked), max(asked), {_OF_RUN}, count(*)
"""
_NO_WORK: Final = "NOT EXISTS (SELECT 1 FROM work WHERE work.vendor = parked.vendor AND work.key = parked.key)"
_WAITS: Final = f"""
    state <> 'done' AND (json_extract({_RUN}, '$.status') = 'requires_action' OR EXISTS (SELECT 1 FROM parked
        WHERE parked.state = 'waiting' AND parked.vendor = work.vendor AND parked.key = work.key))
"""
_WHERE: Final[dict[str, str]] = {
    "all": "1",
    "waiting": _WAITS,
    "open": "state <> 'done'",
    "done": "state = 'done'",
    "failed": schema.FAILED,
}


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
        self._identity: tuple[int, int] | None = None
        self._deadline = math.inf

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

    async def page(
        self, which: Which = "all", *, before: int | None = None, key: str = ""
    ) -> tuple[list[Entry], Counts]:
        """
        Return a page of entries, newest first, and how many there are of each sort, both of one moment.

        With *before*, those entries with a number less than that; with *key*, those that have it in their key.
        """
        found, counts = await self._read(lambda: self._page(which, before, key))
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
        try:
            kept = None if row is None else codec.decode(row[0], trusted=True)
        except codec.CodecError:
            return {}
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
        from .owners import identity
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
            opened.set_progress_handler(self._is_late, _STEPS)
            self._connection = opened
            self._identity = identity(self.path)
        except (OSError, sqlite3.Error, UnfitError) as error:
            raise ConfigurationError(f"cannot open the journal {self.path}: {reason(error)}") from error

    async def _read(self, read: Callable[[], T]) -> T:
        if self._thread is None:
            raise JournalError(str(self.path), "it is not open", "")
        try:
            return await self._thread.do(lambda: self._in_time(read))
        except sqlite3.Error as error:
            raise JournalError(str(self.path), str(error), "") from error

    def _in_time(self, read: Callable[[], T]) -> T:
        from .owners import identity

        if identity(self.path) != self._identity:
            raise JournalError(str(self.path), "it was deleted or replaced; open the new one instead", "")
        self._deadline = time.monotonic() + READ_SECONDS
        try:
            return read()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise JournalError(str(self.path), f"reading it took more than {READ_SECONDS:g} s", "") from error
            raise
        finally:
            self._deadline = math.inf

    def _is_late(self) -> bool:
        """Tell SQLite, which asks now and then, whether to give up."""
        return time.monotonic() > self._deadline

    def _do(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        assert self._connection is not None
        return self._connection.execute(sql, values)

    def _page(self, which: Which, before: int | None, key: str) -> tuple[list[tuple[Entry, str]], Counts]:
        self._do("BEGIN")
        try:
            return self._entries(which, before, key), self._counts()
        finally:
            self._do("ROLLBACK")

    def _counts(self) -> Counts:
        counted = [int(self._do(f"SELECT count(*) FROM work WHERE {where}").fetchone()[0]) for where in _WHERE.values()]
        strays = len(self._strays())
        every, waiting, open_, done, failed = counted
        return Counts(every + strays, waiting + strays, open_ + strays, done, failed)

    def _entries(self, which: Which, before: int | None, key: str) -> list[tuple[Entry, str]]:
        named = " AND id IN (SELECT id FROM work WHERE instr(key, ?))" if key else ""  # by the index of the keys alone
        rows = self._do(
            f"SELECT {_LINE} FROM work WHERE ({_WHERE[which]}) AND id < ?{named} ORDER BY id DESC LIMIT {PAGE}",
            (before if before is not None else 1 << 62, *([key] if key else [])),
        ).fetchall()
        shown = which not in {"done", "failed"} and before is None
        strays = [each for each in self._strays() if not key or key in str(each[0].key)] if shown else []
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
    tokens = (into, out) if isinstance(into, int) and isinstance(out, int) else None
    entry = Entry(
        id=str(id_),
        vendor=vendor,
        key=key,
        state=state,
        alive=False,
        created=_seconds(created),
        updated=_seconds(updated),
        run_id=_text(run_id),
        parent=_text(parent),
        status=_text(status),
        vendor_status=_text(word),
        tokens=tokens,
        waiting=int(waiting),
    )
    return entry, str(owner)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _seconds(value: Any) -> float:
    """Return a time as it is kept, 0 for what is none: SQLite keeps anything in any column."""
    return float(value) if isinstance(value, int | float) and 0 <= value < _LAST else 0.0
