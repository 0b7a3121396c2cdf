"""The runs that nobody drives and several processes watch: one of them reads each, and the others see what it sees."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from .session import Session
from .tables import marks, pieces

if TYPE_CHECKING:
    from .records import Records

_KEPT_SECONDS: Final = 60.0
"""How long the last state of a run is kept that is to be read no more, for those who have not seen it yet."""


@frozen
class Reader:
    """
    Who reads a run: this process (`is_ours`), or another one, which was there when this was looked at.

    `run` is the JSON text of the last state that the reader saw, None before the first. `is_done` says that nobody
    reads the run any more: it is over, or goes on as another. `version` is another number after each change.
    """

    run: str | None = field(repr=False)
    is_ours: bool
    is_done: bool
    version: float


class Reading:
    """Enter in a journal which runs this process reads for all who watch them. All as `Session` says."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def claim(self, run_id: str) -> Reader:
        """Return who reads a run: from now on this process, if nobody does."""
        return await self._session.do(lambda records: Readers(records).claim(run_id))

    async def saw(self, run_id: str, run: str, *, is_done: bool) -> bool:
        """
        Keep a state that was read, JSON text; *is_done* ends the reading.

        Return False, and change nothing, if this process is not the reader, or is it no more.
        """
        return await self._session.do(lambda records: Readers(records).saw(run_id, run, is_done))

    async def leave(self, run_id: str) -> None:
        """Read a run no more: whoever watches it still reads it."""
        await self._session.do(lambda records: Readers(records).leave(run_id))


class Readers:
    """The rows of who reads which run. For use within a transaction that holds the write lock."""

    def __init__(self, records: Records) -> None:
        self._do = records.execute
        self._owners = records.owners
        self._vendor = records.vendor
        self._greatest = records.spelling.greatest

    def claim(self, run_id: str) -> Reader:
        """Return who reads a run: from now on this owner, if nobody does."""
        row = self._do(
            "SELECT owner, is_done, updated, run FROM reading WHERE vendor = ? AND run_id = ?", (self._vendor, run_id)
        ).fetchone()
        if row is not None:
            owner, is_done, updated, run = row
            if owner == self._owners.me or is_done or self._owners.alive(owner):
                return Reader(run, owner == self._owners.me and not is_done, bool(is_done), updated)
        self._forget()
        self._do(
            "INSERT INTO reading (vendor, run_id, owner, is_done, updated) VALUES (?,?,?,?,?)",
            (self._vendor, run_id, self._owners.me, False, time.time()),
        )
        return Reader(None, is_ours=True, is_done=False, version=0.0)

    def saw(self, run_id: str, run: str, is_done: bool) -> bool:
        """Enter a state that this owner has read; return False, and change nothing, if it is not the reader."""
        changed = self._do(
            f"UPDATE reading SET run = ?, is_done = ?, updated = {self._greatest}(?, updated + 0.000001)"  # noqa: S608
            " WHERE vendor = ? AND run_id = ? AND owner = ? AND is_done = 0",
            (run, is_done, time.time(), self._vendor, run_id, self._owners.me),
        )
        return changed.rowcount == 1

    def leave(self, run_id: str) -> None:
        """Read a run no more; whoever watches it still reads it."""
        self._do(
            "DELETE FROM reading WHERE vendor = ? AND run_id = ? AND owner = ? AND is_done = 0",
            (self._vendor, run_id, self._owners.me),
        )

    def stands(self, run_ids: Sequence[str]) -> Mapping[str, float]:
        """Return the versions of those of the runs of which something is to be had from whoever reads them, or did."""
        rows: list[tuple[str, str, bool, float]] = []
        for some in pieces(run_ids):
            rows += self._do(
                "SELECT run_id, owner, is_done, updated FROM reading"  # noqa: S608
                f" WHERE vendor = ? AND run_id IN ({marks(some)})",
                (self._vendor, *some),
            ).fetchall()
        return {run_id: updated for run_id, owner, is_done, updated in rows if is_done or self._owners.alive(owner)}

    def _forget(self) -> None:
        """Delete what readers have left that are gone, and ends that are old."""
        self._do("DELETE FROM reading WHERE is_done = 1 AND updated < ?", (time.time() - _KEPT_SECONDS,))
        for (owner,) in self._do("SELECT DISTINCT owner FROM reading WHERE is_done = 0").fetchall():
            if not self._owners.alive(owner):
                self._do("DELETE FROM reading WHERE is_done = 0 AND owner = ?", (owner,))
