"""Where actions wait for a person: in memory, for as long as the process lives, or in a journal."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import evolve, field, frozen

from agentruns._values import codec
from agentruns._values.printable import printable
from agentruns._values.run import Action, Run
from agentruns.errors import ConfigurationError, JournalError

from .digest import digest
from .journal.moves import WAIT_MOVES, WaitAct, WaitState
from .journal.parked import ParkedRow, Place

if TYPE_CHECKING:  # imported with the first journal
    from .journal import Journal

logger = logging.getLogger("agentruns")

_REMEMBERED: Final = 1000
"""How many actions that no longer wait are known by name in memory, to say what became of them."""


@frozen
class Parked:
    """
    One action that waits for a person.

    `run` is the paused state that asks for it, `key` the name of the work in the client's journal, if it has one.
    `asked_at` and `expires` are seconds since the epoch. `expires` is when the handler's own timeout ends the wait,
    None if it has none: no vendor documents an end. It may be past where the process that waited is gone. `changed`
    says that something else was asked before under the same id: an answer to that counts for nothing.
    """

    run: Run
    action: Action
    asked_at: float
    expires: float | None = None
    key: str | None = None
    changed: bool = False

    @property
    def vendor(self) -> str:
        """Return the name of the vendor."""
        return self.run.vendor

    def seconds_left(self, now: float | None = None) -> float | None:
        """
        Return the seconds that are left at *now*, seconds since the epoch, by default the present.

        Never below zero; None if the wait has no end.
        """
        return None if self.expires is None else max(self.expires - (time.time() if now is None else now), 0.0)


@frozen
class Standing:
    """How a parked action stands: `output` is the answer, or the reason why there is none."""

    parked: Parked
    state: WaitState
    output: Any = field(default=None, repr=False)

    @property
    def place(self) -> Place:
        """Return what names the action."""
        return place_of(self.parked)


def place_of(parked: Parked) -> Place:
    """Return what names a parked action: ids of actions may be mere positions."""
    return parked.run.vendor, parked.run.id, parked.action.id


class Parking(Protocol):
    """Where actions are parked."""

    async def park(self, parked: Parked) -> Standing:
        """Let an action wait, unless it has its answer; return how it stands."""
        ...

    async def settle(self, place: Place, act: WaitAct, output: Any, asked: str) -> bool:
        """End the wait of an action that asks what the digest *asked* names; return whether it did wait."""
        ...

    async def waiting(self, run_id: str | None) -> Sequence[Parked]:
        """Return what waits, of all runs or of one, oldest first."""
        ...

    async def called(self, action_id: str, run_id: str | None) -> Sequence[Standing]:
        """Return what waits under that id; if nothing does, the last that did in the same work, if it is known."""
        ...


class MemoryParking:
    """What is parked in this process."""

    def __init__(self) -> None:
        self._waiting: dict[Place, Parked] = {}
        self._over: OrderedDict[Place, Standing] = OrderedDict()

    async def park(self, parked: Parked) -> Standing:
        """Let an action wait; in memory an answer is not kept for a handler that comes back."""
        place = place_of(parked)
        over, before = self._over.pop(place, None), self._waiting.get(place)
        earlier = before or (None if over is None else over.parked)
        if earlier is not None and digest(earlier.action) != digest(parked.action):
            parked, before = evolve(parked, changed=True), None
        self._waiting[place] = before or parked
        return Standing(self._waiting[place], WaitState.WAITING)

    async def settle(self, place: Place, act: WaitAct, output: Any, asked: str) -> bool:
        """End the wait of an action."""
        parked = self._waiting.get(place)
        if parked is None or digest(parked.action) != asked:
            return False
        del self._waiting[place]
        self._over[place] = Standing(parked, WAIT_MOVES.after(WaitState.WAITING, act), output)
        if len(self._over) > _REMEMBERED:
            self._over.popitem(last=False)
        return True

    async def waiting(self, run_id: str | None) -> Sequence[Parked]:
        """Return what waits."""
        return [each for each in self._waiting.values() if run_id in {None, each.run.id}]

    async def called(self, action_id: str, run_id: str | None) -> Sequence[Standing]:
        """Return what waits under that id, else the last that did."""

        def fits(place: Place) -> bool:
            return place[2] == action_id and run_id in {None, place[1]}

        waiting = [Standing(parked, WaitState.WAITING) for place, parked in self._waiting.items() if fits(place)]
        return waiting or [standing for place, standing in self._over.items() if fits(place)][-1:]


class JournalParking:
    """What is parked in a journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: object = None
        self._told: set[Place] = set()

    async def park(self, parked: Parked) -> Standing:
        """Let an action wait, or return the answer that it was given."""
        row = ParkedRow(
            *place_of(parked),
            key=parked.key,
            state=WaitState.WAITING,
            asked=parked.asked_at,
            expires=parked.expires,
            output=None,
            run=parked.run.to_json(),
            digest=digest(parked.action),
        )
        return self._standing(await self._journal.park(row))

    async def settle(self, place: Place, act: WaitAct, output: Any, asked: str) -> bool:
        """End the wait of an action."""
        text = None if act is WaitAct.WITHDRAW else codec.encode(output).decode()
        return await self._journal.settle(place, act, text, asked)

    async def waiting(self, run_id: str | None) -> Sequence[Parked]:
        """Return what waits."""
        return [each.parked for each in self._readable(await self._journal.waiting(run_id))]

    async def called(self, action_id: str, run_id: str | None) -> Sequence[Standing]:
        """Return what waits under that id, else the last that did."""
        return list(self._readable(await self._journal.called(action_id, run_id)))

    async def changes(self, places: Sequence[Place]) -> tuple[bool, Sequence[Standing]]:
        """Tell whether what waits is not what it was at the last call, and how those of *places* stand that do not."""
        look = await self._journal.look(places)
        before, self._waiting = self._waiting, look.waiting
        return look.waiting != before, [self._standing(row) for row in look.over]

    def _standing(self, row: ParkedRow) -> Standing:
        try:
            return _standing(row)
        except (codec.CodecError, ConfigurationError) as error:
            reason = f"what it keeps of action {row.action_id!r} of run {row.run_id!r} cannot be read: {error}"
            raise JournalError(self._journal.path, printable(reason)) from error

    def _readable(self, rows: Sequence[ParkedRow]) -> Iterator[Standing]:
        """Yield what can be read: one row that cannot be is told once, and keeps nobody from answering the others."""
        for row in rows:
            try:
                yield self._standing(row)
            except JournalError as error:
                place = (row.vendor, row.run_id, row.action_id)
                if place not in self._told:
                    self._told.add(place)
                    logger.warning("an action that waits is passed over: %s", error)


def _standing(row: ParkedRow) -> Standing:
    run = Run.from_json(row.run)
    action = next((each for each in run.actions if each.id == row.action_id), Action(row.action_id, ""))
    parked = Parked(run, action, row.asked, row.expires, row.key, row.changed)
    return Standing(parked, row.state, None if row.output is None else codec.decode(row.output, trusted=True))
