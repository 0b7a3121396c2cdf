"""
Many runs in one request, named by their ids: for a vendor that reads so what it is asked for.

As soon as two runs are due, one request reads them all, up to the vendor's limit, and takes along those that are due
next: each whose wait is half over. So reads of many runs fall together by themselves. What an answer leaves out is read
by itself, then and from then on: it never means the end of a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from heapq import nsmallest
from typing import Final

from attrs import frozen

from agentruns._values.commands import Flow
from agentruns._values.run import RunRef
from agentruns.dialects.vendor import Vendor

from .watch import DUE, PLANNED, Watch

_WAITING: Final = (PLANNED, DUE)


@frozen(eq=False)
class Bulk:
    """The runs that one request asks for, by their ids."""

    watches: Mapping[str, Watch]

    @property
    def refs(self) -> tuple[RunRef, ...]:
        """Return the runs as the dialect is asked for them."""
        return tuple(watch.ref for watch in self.watches.values())

    def begin_page(self) -> Iterable[Watch]:
        """Return the runs for which the request is."""
        return self.watches.values()


class Bulks:
    """All runs that are waited for, and which of them to read next by one request."""

    under_way: Final = False  # one request is all there is

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._limit = vendor.FETCH_MANY_LIMIT
        self._watches: dict[Watch, None] = {}
        self._rests_until = -math.inf
        self.failures = 0

    def add(self, watch: Watch) -> None:
        """Count a run among those that are waited for."""
        self._watches[watch] = None

    def remove(self, watch: Watch) -> None:
        """Forget a run."""
        self._watches.pop(watch, None)

    def next(self, soon: float, now: float, first: Watch | None) -> Bulk | None:
        """Return what to read now by one request; None unless *first*, due for longest, and another one are in it."""
        if now < self._rests_until or first is None or first.place is None:
            return None
        chosen = nsmallest(self._limit, filter(lambda watch: _may_come(watch, now), self._watches), key=_due)
        if len(chosen) < 2 or _due(chosen[1]) > soon:
            return None
        return Bulk({watch.ref.id: watch for watch in chosen})

    def flow(self, bulk: Bulk) -> Flow[object]:
        """Return the flow that asks for them."""
        return self._vendor.flow("fetch_many", bulk.refs)

    def fail(self, again_at: float) -> None:
        """Have runs read one by one until *again_at*."""
        self.failures += 1
        self._rests_until = again_at


def _due(watch: Watch) -> float:
    return min(watch.due, watch.wanted)


def _may_come(watch: Watch, now: float) -> bool:
    if watch.stage not in _WAITING or watch.place is None:
        return False
    return _due(watch) - now <= now - watch.segment.read_at
