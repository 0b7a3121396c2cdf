"""The starts of work: what each has found out, and whose a run is that was found by looking."""
# ruff: noqa: S608 - what is put into the SQL here is written here

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .problems import UnfitError

if TYPE_CHECKING:
    from .records import Records

Known: TypeAlias = tuple[Any, ...]
"""What is known of a start, as its row has it."""

_KNOWN: Final = ("start_note", "group_name", "visible_until", "recovers", "found_run")
_SET_KNOWN: Final = ", ".join(f"{column} = ?" for column in _KNOWN)


class Starts:
    """The rows of work whose run is not known yet. For use within a transaction that holds the write lock."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._owners = records.owners
        self._vendor = records.vendor
        self._do = records.execute

    def checkpoint(self, key: str, note: str, group_name: str = "", visible_after: float = 0.0) -> Known:
        """Keep what the start found out, in the place of all that is known of it from before; return that."""
        self._hold(key)
        before = self._known(key)
        group, visible_until = (group_name, time.time() + visible_after) if group_name else (None, None)
        self._records.change(key, _SET_KNOWN, note, group, visible_until, 0, None)
        return before

    def take_back(self, key: str, note: str | None, before: Known) -> None:
        """Undo a `checkpoint` or a `reserve` that has left the work with *note*: nothing was sent after that."""
        found = self._records.get(key)
        if found is not None and found.mine and (found.start_note, found.run) == (note, None):
            self._records.change(key, _SET_KNOWN, *before)

    def reserve(self, key: str, group_name: str) -> Known | None:
        """
        Have the start be of a group, and return what was known of it before.

        Return None where another start of that group is under way whose run is not known. One that has died counts as
        under way for as long as its run may yet be shown.
        """
        self._hold(key)
        now = time.time()
        for owner, recovers, visible_until, _ in self._others(key, group_name):
            if now < visible_until or (not recovers and self._owners.alive(owner)):
                return None
        before = self._known(key)
        self._records.change(key, "group_name = ?, recovers = 0, found_run = NULL", group_name)
        return before

    def _known(self, key: str) -> Known:
        return tuple(
            self._do(
                f"SELECT {', '.join(_KNOWN)} FROM work WHERE vendor = ? AND key = ?", (self._vendor, key)
            ).fetchone()
        )

    def recovering(self, key: str) -> None:
        """Keep that a start is not gone through with any more, but looked for."""
        self._hold(key)
        self._records.change(key, "recovers = 1")

    def claim(self, key: str, run_id: str) -> str:
        """
        Tell whose a run is that was found by looking: "mine", which is kept, or "others".

        It is "open" while another start is under way whose run it may be, and "unclear" if one has died unsettled.
        """
        self._hold(key)
        group_name, recovers, created = self._do(
            "SELECT group_name, recovers, created FROM work WHERE vendor = ? AND key = ?", (self._vendor, key)
        ).fetchone()
        taken = self._do(
            "SELECT 1 FROM work WHERE vendor = ? AND updated >= ? AND key <> ?"
            f" AND (found_run = ? OR {self._records.spelling.run_id} = ?) LIMIT 1",
            (self._vendor, created, key, run_id, run_id),
        ).fetchone()
        if taken is not None:
            return "others"
        if recovers and group_name is not None:
            others = [each for each in self._others(key, group_name) if each[3]]
            if any(self._owners.alive(owner) for owner, recovers, _, _ in others if not recovers):
                return "open"
            if others:
                return "unclear"
        self._records.change(key, "found_run = ?", run_id)
        return "mine"

    def _others(self, key: str, group_name: str) -> list[tuple[str, bool, float, bool]]:
        """
        Return the other starts of a group whose run is not known.

        That is: who is at it, whether that is to recover it, by when, of the epoch, its run is shown, and whether it
        may have been sent.
        """
        rows = self._do(
            "SELECT owner, recovers, visible_until, start_note IS NOT NULL FROM work"
            " WHERE vendor = ? AND state <> 'done' AND state = 'starting' AND key <> ? AND group_name = ?"
            " AND found_run IS NULL",
            (self._vendor, key, group_name),
        )
        return [(owner, bool(recovers), until or 0.0, bool(noted)) for owner, recovers, until, noted in rows.fetchall()]

    def _hold(self, key: str) -> None:
        """Raise `UnfitError` for a start that is not ours any more: others took us for dead, and may be at it."""
        if self._records.column("owner", key) != self._owners.me:
            raise UnfitError(f"the start of {key!r} is not this process's any more; make the same call again")
