"""
When the next row may begin: not before its requests can be sent, the vendor answers, and has a slot for its run.

A *place* is what a start holds from the moment in which it is let through until its run is over, or is followed no
more. Waiting for one costs no request, and is no part of any timeout.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from copy import copy
from typing import Final

from attrs import frozen

from .accounts import Account, slots_of
from .limiter import Permits
from .outages import Outages
from .slots import Slots

PLACE: Final[ContextVar[Place | None]] = ContextVar("PLACE", default=None)
"""The place of the row for which something is done; what a handler starts within it needs no place of its own."""


class Admission:
    """Give out places to the starts of one client, in the order of asking; slots are those of its *account*."""

    def __init__(self, permits: Permits, account: Account | None = None) -> None:
        self._permits = permits
        self._account = account
        self._changed = asyncio.Event()
        self._standing_by = 0  # places for no run
        self._held = 0  # places for runs
        self._life = 0  # how often it was left
        self.waiting = 0
        """How many starts wait for a slot."""
        self.outages: Final = Outages(self._changed.set)
        self.slots = Slots()

    def open(self) -> None:
        """Share the slots of the account with its other clients in the running loop."""
        self.slots = slots_of(self._account)
        self.slots.subscribe(self._changed.set)

    def close(self) -> None:
        """Leave every place that is held still: nothing is followed any more."""
        while self._held:
            self._left(self._life, for_run=True)
        self.slots.unsubscribe(self._changed.set)
        self._life += 1
        self._standing_by = 0

    def enter_nowait(self, patience: float | None = None, *, for_run: bool = True) -> Place | None:
        """Return a place if there is one at once, and nobody waits for it; else None."""
        now = asyncio.get_running_loop().time()
        if not self._is_open(now, patience) or (for_run and not self._permits.begin_nowait(now)):
            return None
        return Place(self, patience, now, for_run=for_run)

    async def enter(self, patience: float | None = None, *, for_run: bool = True) -> Place:
        """
        Wait for a place, and return it.

        A place with *patience*, in seconds, is one of many: what it does gives up for no limit of the vendor, and for
        lost contact only after so long. One that is not *for_run*, since others follow the run, needs no permit of its
        own, and no slot. Raise the error of the last request when contact is lost for longer.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self._wait_open(patience)
            if not for_run:
                return Place(self, patience, loop.time(), for_run=False)
            await self._permits.begin()
            now = loop.time()
            if self._is_open(now, patience):
                return Place(self, patience, now)
            self._permits.end()

    async def _wait_open(self, patience: float | None) -> None:
        """Wait until a place may be given, whatever the rate limit says; raise as `enter` does."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            opens_at, ends_at = self._opens_at(now, patience), self.outages.ends_at(patience)
            if ends_at <= now:
                assert self.outages.error is not None
                raise copy(self.outages.error)
            if opens_at <= now:
                return
            self._changed.clear()
            at = min(opens_at, ends_at)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if at == math.inf else at):
                    await self._changed.wait()

    def _is_open(self, now: float, patience: float | None) -> bool:
        """Tell whether a place may be given now, whatever the rate limit says."""
        return self._opens_at(now, patience) <= now < self.outages.ends_at(patience)

    def _opens_at(self, now: float, patience: float | None) -> float:
        """Return when a place may be given, whatever the rate limit says; infinite while that depends on an answer."""
        opens_at = self.slots.opens_at(now)
        if patience is not None and self._held + self._standing_by > self.waiting:
            # A stream of its own finds out at once, and says so.
            opens_at = max(opens_at, self.outages.probe_at)
        return opens_at

    def _entered(self, now: float, *, for_run: bool) -> int:
        self.outages.tried(now)
        if for_run:
            self._held += 1
            self.slots.enter()
        else:
            self._standing_by += 1
        return self._life

    def _left(self, life: int, *, for_run: bool) -> None:
        if life != self._life:
            return  # all places were left when the client was
        if for_run:
            self._held -= 1
            self._permits.end()
            self.slots.leave()
        else:
            self._standing_by -= 1

    async def _wait_for_slot(self, seconds: float) -> None:
        self.waiting += 1
        try:
            await self.slots.wait(seconds)
        finally:
            self.waiting -= 1


@frozen
class Entrance:
    """
    The way in for the rows of a batch: one place after another, of *admission*.

    *patience* is the seconds of lost contact that the rows bear. Places that are not *for_runs* are for what is done
    before a run that others follow.
    """

    admission: Admission
    patience: float
    for_runs: bool = True

    def enter_nowait(self) -> Place | None:
        """Return the place of the next row, as `Admission.enter_nowait` does."""
        return self.admission.enter_nowait(self.patience, for_run=self.for_runs)

    async def enter(self) -> Place:
        """Wait for the place of the next row; raise as `Admission.enter` does."""
        return await self.admission.enter(self.patience, for_run=self.for_runs)


def forgo(entering: asyncio.Future[Place]) -> None:
    """Wait no longer for a place; leave it if it has just come."""
    if not entering.cancel() and not entering.cancelled() and entering.exception() is None:
        entering.result().leave()


@contextmanager
def for_row(place: Place) -> Iterator[None]:
    """Do what is within this for the row that has *place*, and leave it then."""
    before = PLACE.set(place)
    try:
        yield
    finally:
        PLACE.reset(before)
        place.leave()


class Place:
    """
    A place for one run, to be left when it is over.

    Waiting in our own line, for a slot or behind another start, is no part of a timeout. *patience* is the seconds of
    lost contact that are borne: with it, no deadline comes while contact is lost.
    """

    __slots__ = (
        "_admission",
        "_for_run",
        "_has_left",
        "_life",
        "_lost_before",
        "_waited",
        "_waiting_since",
        "patience",
    )

    def __init__(self, admission: Admission, patience: float | None, now: float, *, for_run: bool = True) -> None:
        self._admission = admission
        self._for_run = for_run
        self.patience = patience
        self._has_left = False
        self._waited = 0.0
        self._waiting_since: float | None = None
        self._lost_before = admission.outages.seconds(now)
        self._life = admission._entered(now, for_run=for_run)

    def serves(self, admission: Admission) -> bool:
        """Tell whether a start of that client needs no other place."""
        return self._admission is admission and not self._has_left

    def leave(self) -> None:
        """Leave the place to others; it may be left twice."""
        if not self._has_left:
            self._has_left = True
            self._admission._left(self._life, for_run=self._for_run)

    def excused(self, now: float) -> float:
        """Return the seconds by which a deadline is put off so far; infinite while that is not known."""
        if self._waiting_since is not None:
            return math.inf
        if self.patience is None:
            return self._waited
        if self._admission.outages.since is not None:
            return math.inf
        return self._waited + self._admission.outages.seconds(now) - self._lost_before

    def bears(self, now: float) -> bool:
        """Tell whether contact is lost, but not for longer than is borne."""
        return self._admission.outages.since is not None and now < self._admission.outages.ends_at(self.patience)

    async def wait_for_slot(self, seconds: float) -> None:
        """Wait, after a refusal, until the vendor may have a slot; it asks to be left alone for *seconds*."""
        with self.waiting():
            await self._admission._wait_for_slot(seconds)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time as waiting in our own line."""
        loop = asyncio.get_running_loop()
        self._waiting_since = loop.time()
        try:
            yield
        finally:
            self._waited += loop.time() - self._waiting_since
            self._waiting_since = None
