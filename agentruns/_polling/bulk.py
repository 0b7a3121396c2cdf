"""
Many runs in one request, named by their ids: for a vendor that reads so what it is asked for.

As soon as two runs are due, one request reads them all, up to the vendor's limit, and takes along those that are due
next: each whose wait is half over. So reads of many runs fall together by themselves. What an answer leaves out is read
by itself, then and from then on: it never means the end of a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
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


_LOOKED_AT: Final = 4
"""Of how many runs, for each that a request takes, it is asked whether they may come along."""


class Bulks:
    """
    Which of the runs that are waited for to read next by one request.

    *in_order* gives them, those that are due before those that will be; only so many are looked at as a request takes.
    """

    under_way: Final = False  # one request is all there is

    def __init__(self, vendor: Vendor, in_order: Callable[[], Iterator[Watch]]) -> None:
        self._vendor = vendor
        self._limit = vendor.FETCH_MANY_LIMIT
        self._in_order = in_order
        self._rests_until = -math.inf
        self.failures = 0

    def add(self, watch: Watch) -> None:
        """Do nothing: the line has all runs that are waited for."""

    def remove(self, watch: Watch) -> None:
        """Do nothing."""

    def next(self, soon: float, now: float, first: Watch | None) -> Bulk | None:
        """Return what to read now by one request; None unless *first*, due for longest, and another one are in it."""
        if now < self._rests_until or first is None or first.place is None:
            return None
        chosen: list[Watch] = []
        for watch in islice(self._in_order(), _LOOKED_AT * self._limit):
            if not _may_come(watch, now):
                continue
            if len(chosen) == 1 and _due(watch) > soon:
                return None
            chosen.append(watch)
            if len(chosen) == self._limit:
                break
        if len(chosen) < 2:
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
