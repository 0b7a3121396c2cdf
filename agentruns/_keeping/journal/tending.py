"""The work that a service brings to its end and tells of, whichever process is at it; entered as it begins."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from .session import Session

if TYPE_CHECKING:
    from .records import Records


class Tending:
    """Enter in a journal which work is tended, find what nobody is at, and take it. All as `Session` says."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def enter(self, key: str) -> None:
        """Keep that the work of that name, which has begun, is to be brought to its end and told of."""
        await self._session.do_for(key, lambda records: Tended(records).enter(key), "The work is as it was")

    async def told(self, key: str) -> None:
        """Keep that the end of the work was told: nobody tends it any more."""
        standing = "The end of the work was told, and may be again"
        await self._session.do_for(key, lambda records: Tended(records).told(key), standing)

    async def abandoned(self, ours: Collection[str] | None = None) -> list[str]:
        """
        Return the names of this vendor's work that is tended, and at which nobody is; the oldest first.

        With *ours*, the names of what this process is at, so is all else that it seems to be at: the journal may have
        been away when it was given up.
        """
        ours = None if ours is None else frozenset(ours)
        return await self._session.read(lambda records: Tended(records).abandoned(ours))

    async def take(self, key: str) -> bool:
        """
        Be at work from now on that is tended and whose owner is gone, done or not.

        Return False if somebody else is at it, or if nobody tends it: its end was told.
        """
        return await self._session.do_for(key, lambda records: Tended(records).take(key), "The work is as it was")


class Tended:
    """The rows of the work that is tended. For use within a transaction that holds the write lock."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._owners = records.owners
        self._vendor = records.vendor
        self._do = records.execute

    def enter(self, key: str) -> None:
        """Enter that the work of that name is tended."""
        self._do("INSERT INTO tended (vendor, key) VALUES (?,?) ON CONFLICT DO NOTHING", (self._vendor, key))

    def told(self, key: str) -> None:
        """Enter that nobody has to tend the work of that name any more."""
        self._do("DELETE FROM tended WHERE vendor = ? AND key = ?", (self._vendor, key))

    def abandoned(self, ours: Collection[str] | None) -> list[str]:
        """Return the names of the work that is tended, and at which nobody is; we are at *ours* only, if given."""
        tended = "FROM tended JOIN work USING (vendor, key) WHERE vendor = ?"
        owners = self._do(f"SELECT DISTINCT owner {tended}", (self._vendor,)).fetchall()  # few, and looked at often
        found: list[tuple[int, str]] = []
        for (owner,) in owners:
            is_me = owner == self._owners.me
            if (is_me and ours is not None) or not self._owners.alive(owner):
                rows = self._do(f"SELECT id, key {tended} AND owner = ?", (self._vendor, owner)).fetchall()
                found += [(place, key) for place, key in rows if not is_me or key not in (ours or ())]
        return [key for _, key in sorted(found)]

    def take(self, key: str) -> bool:
        """Take work over that is tended, and whose owner is gone; return whether it is ours."""
        row = self._do("SELECT 1 FROM tended WHERE vendor = ? AND key = ?", (self._vendor, key)).fetchone()
        return row is not None and self._records.take(key)
