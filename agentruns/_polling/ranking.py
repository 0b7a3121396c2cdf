"""Which due run is read next where not all can be: the most pressing first, told in rounds that never take long."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappush, heappushpop
from typing import Final, TypeAlias

from .watch import Watch

Pressure: TypeAlias = Callable[[Watch, float], float]
"""How much a read of a run is wanted at a time of the loop, beside others."""

_Weighed: TypeAlias = tuple[float, float, Watch]
"""How much a run presses, and its number in `due` negated: of two that press alike the greater one comes first."""

AT_ONCE: Final = 500
"""So many runs are weighed at once, at most: that takes two milliseconds of the loop."""


class Ranking:
    """
    The order in which the runs of *due* are read; *due* tells for each the number under which it came due.

    Runs are ranked in rounds of so many reads. Up to *at_once* are weighed when a round begins. Of more, weighing takes
    the time of the round before: with each read some are weighed, for the moment at which the next round is to begin,
    so that all are compared at one moment. What comes due meanwhile is weighed last. So a round has the most pressing
    of all. Where there are too few reads for that, and in the first round of a crowd, it has the most pressing of those
    that were weighed since the last one, and all are weighed in turn.

    Of two that press alike that one goes first which has been due for longer.
    """

    def __init__(self, due: dict[Watch, int], at_once: int = AT_ONCE) -> None:
        self._due = due
        self._at_once = at_once
        self.clear()

    def clear(self) -> None:
        """Forget what was ranked: nothing is due any more."""
        self._round: list[_Weighed] = []  # the most pressing last
        self._best: list[_Weighed] = []  # a heap: the first *most* of those weighed for the next round
        self._unweighed: dict[Watch, None] = {}  # what has been due for longest last
        self._newest = 0  # the last number that was in `_unweighed`: what has a later one comes in with the next round
        self._begins = 0.0  # when the next round is to begin

    def take(self, pressure: Pressure, now: float, *, most: int, seconds: float) -> Watch:
        """Return the run to read *now*, of one or more; a round is *most* reads, within about so many *seconds*."""
        due, ranked = self._due, self._round
        while ranked:
            _, number, watch = ranked.pop()
            if due.get(watch) == -number:  # else it was read, or left
                if self._unweighed:
                    self._weigh(pressure, -(-len(self._unweighed) // (len(ranked) + 1)), most)
                return watch
        if len(due) == 1:
            return next(iter(due))
        self._begin_round(pressure, now, most)
        self._begins = now + seconds
        return self._round.pop()[2]

    def _begin_round(self, pressure: Pressure, now: float, most: int) -> None:
        due = self._due
        is_crowd = len(due) > self._at_once
        self._best = sorted(entry for entry in self._best if due.get(entry[2]) == -entry[1])
        is_anew = not is_crowd or not (self._best or self._unweighed)
        if not is_anew:
            self._weigh_newcomers(pressure, most)
        if is_anew or not self._best:  # what had yet to be weighed was read, or left
            is_anew = True
            self.clear()
            self._begins = now
            self._weigh_newcomers(pressure, most)
        self._round, self._best = sorted(self._best), []
        if is_crowd and (is_anew or not self._unweighed):
            self._unweighed = dict.fromkeys(reversed(due))  # no object for each, which would call the collector
            for _, _, watch in self._round:
                del self._unweighed[watch]

    def _weigh_newcomers(self, pressure: Pressure, most: int) -> None:
        """Weigh what has come due since the last round began, then what else there is to weigh."""
        newest = self._newest
        for watch, number in reversed(self._due.items()):
            if number <= newest:
                break
            self._newest = max(self._newest, number)
            self._unweighed[watch] = None
        self._weigh(pressure, self._at_once, most)

    def _weigh(self, pressure: Pressure, count: int, most: int) -> None:
        """Weigh the next *count* runs, as far as that may be done at once, and keep the first *most* of all."""
        due, unweighed, best, begins = self._due, self._unweighed, self._best, self._begins
        for _ in range(min(count, self._at_once, len(unweighed))):
            watch, _ = unweighed.popitem()
            number = due.get(watch, math.inf)
            if number > self._newest:  # it was read, or left
                continue
            pressing = pressure(watch, begins)
            if len(best) < most:
                heappush(best, (pressing, -number, watch))
            elif pressing >= best[0][0]:
                heappushpop(best, (pressing, -number, watch))
