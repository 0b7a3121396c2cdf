"""
One limit of requests, divided over the open journals that ask for a part of it.

A permit is free, or one owner holds it, and only that owner may use it. Owners renew their part now and then: they get
permits as others come and go, and give back those above their due as these come free. So no window has more requests
than the limit allows, however many processes there are. Nobody takes permits from an owner that is alive; those of one
that is gone come back one window after it may have used them last.

What a store must provide: the table `budget_part`, transactions that come one after the other, and `Owners`, with a
clock that all owners share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from attrs import frozen

from agentruns._values.exchange import RateLimit

from .session import Session
from .tables import Owners, Tables

if TYPE_CHECKING:
    from .records import Records

_TURN_WINDOWS: Final = 5
"""Where owners outnumber permits, they take turns, each of so many windows of the limit."""

_LEAST_TURN: Final = 15.0
"""Seconds: an owner hears late that its turn has begun or ended."""


@frozen
class Part:
    """
    What an owner may send, after a renewal.

    It gets `given` permits more, and `due` is how many it is to have; it gives back those above, as they come free.
    It may use them for `seconds`, unless they are renewed. `is_alone` says that nobody else has a part.
    """

    given: int
    due: int
    seconds: float
    is_alone: bool


@frozen
class _Holder:
    owner: str
    held: int
    wants: bool
    seen: float


class Budgets:
    """Have a part of budgets that others have a part of, too. All as `Session` says."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def path(self) -> str:
        """Return what errors call the journal."""
        return self._session.path

    async def version(self) -> int:
        """Return a number that changes whenever others may have changed their parts."""
        return await self._session.version()

    async def renew(self, pool: str, limit: RateLimit, held: int, *, wants: bool) -> Part:
        """Renew the part of the limit that is called *pool*, as `BudgetParts.renew` does."""
        return await self._session.do(lambda records: _parts(records, pool, limit).renew(held, wants=wants))

    async def leave(self, pool: str, limit: RateLimit, used: int) -> None:
        """Give the part back; *used* permits of it only when a window is over."""
        await self._session.do(lambda records: _parts(records, pool, limit).leave(used))


def _parts(records: Records, pool: str, limit: RateLimit) -> BudgetParts:
    return BudgetParts(records.tables, records.owners, pool, limit)


class BudgetParts:
    """The parts of one budget, called *pool*. For use within a transaction that holds the write lock."""

    def __init__(self, tables: Tables, owners: Owners, pool: str, limit: RateLimit) -> None:
        self._do = tables.execute
        self._owners = owners
        self._pool = pool
        self._limit = limit

    def renew(self, held: int, *, wants: bool) -> Part:
        """
        Renew the part of this owner, which holds *held* permits, and wants them or has had nothing to send for long.

        A due of 0 may say that it counts as gone: it must have given all back before it gets any. Nothing is written
        where nothing changes, unless a third of the time is over for which the part lasts.
        """
        now, me, seconds = self._owners.now(), self._owners.me, self._owners.part_seconds
        self._bury(now)
        rows: list[tuple[str, int, bool, float, float | None]] = self._do(
            "SELECT owner, held, wants, seen, returns FROM budget_part WHERE pool = ? ORDER BY owner", (self._pool,)
        ).fetchall()
        there = [
            _Holder(owner, count, bool(wish), seen) for owner, count, wish, seen, returns in rows if returns is None
        ]
        mine = next((each for each in there if each.owner == me), None)
        is_alone = all(each is mine for each in there)
        if mine is None and (held or any(owner == me for owner, *_ in rows)):
            return Part(0, 0, seconds, is_alone)
        sharers = [each for each in there if each is not mine] + [_Holder(me, held, wants, now)]
        due = self._due(sorted(sharers, key=lambda each: each.owner), now)
        free = self._limit.count - held - sum(count for owner, count, *_ in rows if owner != me)
        given = max(min(free, due - held), 0)
        if mine is None:
            self._do(
                "INSERT INTO budget_part (pool, owner, held, wants, seen) VALUES (?, ?, ?, ?, ?)",
                (self._pool, me, given, int(wants), now),
            )
        elif (mine.held, mine.wants) != (held + given, wants) or not 0 <= now - mine.seen < seconds / 3:
            self._do(
                "UPDATE budget_part SET held = ?, wants = ?, seen = ? WHERE pool = ? AND owner = ?",
                (held + given, int(wants), now, self._pool, me),
            )
        else:
            seconds -= now - mine.seen
        return Part(given, due, seconds, is_alone)

    def leave(self, used: int) -> None:
        """Give the part of this owner back; *used* permits of it may be of requests in the window that ends now."""
        self._give_back(self._owners.me, self._owners.now(), used)

    def _due(self, sharers: Sequence[_Holder], now: float) -> int:
        """Return how many permits this owner is to have; the first get what is left over."""
        me, count = self._owners.me, self._limit.count
        wanting = [each.owner for each in sharers if each.wants]
        kept = int(count >= 2 * len(sharers))  # so that one that has had nothing to send can begin at once
        if not wanting:
            wanting = [each.owner for each in sharers]
        elif me not in wanting:
            return kept
        base, extra = divmod(count - kept * (len(sharers) - len(wanting)), len(wanting))
        place = wanting.index(me)
        if not base:
            place = (place + int(now / max(_TURN_WINDOWS * self._limit.seconds, _LEAST_TURN))) % len(wanting)
        return base + (place < extra)

    def _bury(self, now: float) -> None:
        """Note which owners are gone, and forget those whose last requests are out of every window."""
        rows: list[tuple[str, int, float]] = self._do(
            "SELECT owner, held, seen FROM budget_part WHERE pool = ? AND returns IS NULL", (self._pool,)
        ).fetchall()
        for owner, held, seen in rows:
            if not self._owners.alive(owner):
                self._give_back(owner, min(now, seen + self._owners.part_seconds), held)
        self._do(  # what is free later than a window from now is of a clock that was put back
            "DELETE FROM budget_part WHERE pool = ? AND returns IS NOT NULL AND (returns <= ? OR returns > ?)",
            (self._pool, now, now + self._limit.seconds),
        )

    def _give_back(self, owner: str, last: float, used: int) -> None:
        self._do(
            "UPDATE budget_part SET held = ?, returns = ? WHERE pool = ? AND owner = ? AND returns IS NULL",
            (used, last + self._limit.seconds, self._pool, owner),
        )
