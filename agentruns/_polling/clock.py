"""
When to ask about a run: a clock that learns how long the runs of one key take. Numbers in, numbers out.

A poll costs a request; a run that is done and not yet seen costs waiting. Let a request be worth `price` seconds of
waiting, and let h be the chance per second that a run which has taken t seconds ends just then. Polls g seconds apart
cost 1/g requests a second, and the ends that they find late cost h·g/2 seconds of waiting a second. The sum,
1/g + h·g / (2·price), is least at g = sqrt(2·price / h): ask often where runs end, and seldom where they do not.

So let M(t) be the integral of sqrt(h/2) from 0 to t. Polls that lie sqrt(price) apart in M have these gaps everywhere.
M knows nothing of the price: one table serves every price. The first poll of a run lies `phase` such steps from its
start; phases spread evenly over the runs of a process, so runs that start together are not asked about together.

h is counted per bin of elapsed time: ends seen in the bin, over the runs that got that far. A poll tells an end only to
an interval, so an end is a mass of 1 spread evenly in log time over that interval and a little around it. A run that
nobody watched to its end counts among those that got that far. Old runs fade. Where nothing was seen there is a prior
of rate / (t + scale) ends a second, worth `weight` runs. It makes the gaps of an empty clock grow like sqrt(t), and it
keeps h above zero, so that a run of any length is looked at.

A vendor may want to be left alone for some time after a poll (`floor`). Then a poll shortly before the end is
worse than none: one that would come within that time of the usual end waits until just after that.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Final

from attrs import frozen

from agentruns._values.check import integer
from agentruns.errors import ConfigurationError

_SHORTEST: Final = 0.1
_RATIO: Final = 1.25
_DAY: Final = 86400.0
_BINS: Final = 2 + math.floor(math.log(_DAY / _SHORTEST, _RATIO))
# The edges of the bins, for all clocks: 0, then .1 s to a day, each 1.25 times the one before.
_EDGES: Final = (0.0, *(_SHORTEST * _RATIO**power for power in range(_BINS)))
_WIDTHS: Final = tuple(right - left for left, right in pairwise(_EDGES))
_NEVER_POLLED: Final = 1.25  # the mean phase
_SURE: Final = 1.1
"""By so much later than half of the runs end, most have: the end of each is known to a bin, and spread beyond it."""
_GOLDEN: Final = 0.618034
_FOREVER: Final = 1e300  # what comes after is taken for this, so that no difference is NaN


def phase(index: int, offset: float) -> float:
    """
    Return the phase of the *index*-th run of a process, in [.75, 1.75); *offset* is random once per process.

    Runs in a row fill that unit evenly. It starts at .75 because polls before that come too early to pay.
    """
    if not math.isfinite(offset):
        raise ConfigurationError(f"offset is {offset!r}; it must be a finite number")
    return min(0.75 + (offset + _GOLDEN * index) % 1.0, math.nextafter(1.75, 0.0))


@frozen
class Parameters:
    """
    How a clock learns. There is one set, and no way for users to change it; the laws are tested with others, too.

    Gaps stay between `min_gap` and `max_gap` seconds. `weight` runs of a chance of `rate` / (elapsed + `scale`) a
    second are the prior. An end is spread by a factor of e^`smoothing` beyond both ends of its interval, and about
    `memory` runs are remembered. Twice or half of any of these five changes little once 20 runs were seen.
    """

    min_gap: float = 0.2
    max_gap: float = 30.0
    weight: float = 0.5
    rate: float = 1.0
    scale: float = 2.0
    smoothing: float = 0.4
    memory: float = 30.0


_DEFAULT: Final = Parameters()


class PollClock:
    """
    Say when to poll the runs of one key next, from how long its earlier runs took.

    All times are seconds since the run was submitted. A time before that, from a clock that went backwards, counts as
    0; one beyond the last bin, a day, is taken to be like the last bin. NaN raises ConfigurationError.
    """

    __slots__ = ("_done", "_lost", "_table", "active", "floor", "observations", "parameters")

    def __init__(self, parameters: Parameters = _DEFAULT) -> None:
        self.parameters = parameters
        self.observations = 0
        self.active = 0  # segments that go by it now
        self.floor = 0.0  # how long the vendor wanted to be left alone after a poll, when it was asked last
        self._done: list[float] = []  # by bin, as far as any run got
        self._lost: list[float] = []
        self._table: Sequence[float] | None = None

    @property
    def weight(self) -> float:
        """Return how many runs the clock remembers, faded ones as parts of a run: never more than `memory`."""
        return math.fsum(self._done) + math.fsum(self._lost)

    def learn(self, after: float, until: float | None = None, *, active: int = 1) -> None:
        """
        Take up that a run was seen running at *after* and done at *until*; None: nobody watched it to its end.

        Where the vendor tells the duration itself, give it twice. *active* is how many runs of the key are watched
        just now. If they are more than `memory`, the latest ends are those that were just asked about, which is no fair
        sample; so as many runs as are active are remembered, and each counts for less.
        """
        after = _elapsed("after", after)
        until = None if until is None else max(_elapsed("until", until), after)
        parameters = self.parameters
        self.observations += 1
        mass = parameters.memory / max(parameters.memory, min(self.observations, active))
        keep = 1 - mass / parameters.memory
        self._done = [before * keep for before in self._done]
        self._lost = [before * keep for before in self._lost]
        self._table = None
        if until is None:
            index = _bin(after)
            self._reach(index)
            self._lost[index] += mass
        else:
            widened = math.exp(parameters.smoothing)
            low, high = _place(after / widened), _place(until * widened)
            self._reach(int(high))
            _spread(self._done, mass, low, high)

    def _reach(self, index: int) -> None:
        """Have bins up to that of an *index*, or all."""
        further = [0.0] * (min(index + 1, _BINS) - len(self._done))
        self._done += further
        self._lost += further

    def due(self, last: float, step: float) -> float:
        """Return when M has grown by *step* since *last*: one gap later, if *step* is the square root of the price."""
        last = _elapsed("last", last)
        if not step >= 0:
            raise ConfigurationError(f"step is {step!r}; it must be a number of zero or above")
        table = self._table or self._build()
        goal = _grown(table, last) + step
        index = bisect_right(table, goal, 1, _BINS) - 1
        return _EDGES[index] + (goal - table[index]) * _WIDTHS[index] / (table[index + 1] - table[index])

    def next(self, sent: float, seen: float, *, phase: float | None, price: float, floor: float = 0.0) -> float:
        """
        Return when to send the next poll.

        *sent* is when the last poll left and *seen* when its answer came, both 0 before the first. *phase* is the
        run's own before its first poll, then None. *floor* is how long after *seen* the vendor wants to be left alone;
        it is never cut short.
        """
        if not price > 0:
            raise ConfigurationError(f"price is {price!r}; it must be above zero")
        if phase is not None and not phase >= 0:
            raise ConfigurationError(f"phase is {phase!r}; it must be a number of zero or above, or None")
        _elapsed("seen", seen)
        due = self.due(_elapsed("sent", sent), math.sqrt(price) * (1.0 if phase is None else phase))
        if phase is None:
            self.floor = floor
        longest = sent + self.parameters.max_gap
        due = max(min(due, longest), sent + self.parameters.min_gap, seen + _elapsed("floor", floor))
        if self.floor:
            due = max(due, min(self._late_enough(due, sent), longest))
        return due if due > sent else math.nextafter(sent, math.inf)  # a gap too small to be added to a huge time

    def _late_enough(self, due: float, sent: float) -> float:
        """Return when to poll where the next poll may not follow soon: not just before the end is expected."""
        left = self.seconds_left(sent)
        usual = due if left is None else sent + _SURE * left
        return usual if due < usual < due + self.floor else due

    def pressure(self, now: float, sent: float, *, polled: bool) -> float:
        """
        Return the square root of the price at which the run is due *now*; *sent* is as for `next`.

        Where there are fewer requests than wishes, poll the runs under the greatest pressure first.
        """
        table = self._table or self._build()
        if not 0 <= sent <= now <= _FOREVER:
            sent, now = _elapsed("sent", sent), _elapsed("now", now)
        step = _grown(table, now) - _grown(table, sent)
        return step if polled else step / _NEVER_POLLED

    def seconds_left(self, elapsed: float) -> float | None:
        """
        Return how many seconds a run that has taken *elapsed* will take yet: as likely less as more.

        None while nothing was learned.
        """
        if not self.observations:
            return None
        elapsed = _elapsed("elapsed", elapsed)
        table = self._table or self._build()
        goal, at = math.log(2), elapsed
        for index in range(_bin(elapsed), _BINS):
            width = _WIDTHS[index]
            chance = 2 * ((table[index + 1] - table[index]) / width) ** 2  # h, out of sqrt(h/2)
            end = _EDGES[index + 1] if index < _BINS - 1 else math.inf
            if goal <= chance * (end - at):
                return at + goal / chance - elapsed
            goal, at = goal - chance * (end - at), end
        raise AssertionError("the last bin has no end")

    def _build(self) -> Sequence[float]:
        """Make the table: M at each edge. From the last bin down, since each needs the weight beyond it."""
        beyond = self.parameters.weight
        prior, unseen = _prior(beyond, self.parameters.rate, self.parameters.scale)
        growth = [*unseen]
        for index in reversed(range(len(self._done))):
            done = self._done[index]
            over = done + self._lost[index]
            growth[index] = _growth(index, prior[index] + done, beyond + over / 2)
            beyond += over
        self._table = (0.0, *accumulate(growth))
        return self._table


def _growth(index: int, ends: float, weight: float) -> float:
    """Return how M grows in a bin: sqrt(h/2) times the width, where h is the *ends* over the *weight*, by the width."""
    return math.sqrt(ends * _WIDTHS[index] / (2 * weight))


@lru_cache(maxsize=16)
def _prior(weight: float, rate: float, scale: float) -> tuple[Sequence[float], Sequence[float]]:
    """Return, for each bin, the ends that were not seen but are to be expected, and how M grows by them alone."""
    ends = [weight * rate * math.log1p(width / (left + scale)) for left, width in zip(_EDGES, _WIDTHS, strict=False)]
    return ends, [_growth(index, each, weight) for index, each in enumerate(ends)]


def _elapsed(name: str, value: float) -> float:
    if 0 <= value <= _FOREVER:
        return value
    if math.isnan(value):
        raise ConfigurationError(f"{name} is {value!r}; it must be a number of seconds")
    return 0.0 if value < 0 else _FOREVER


def _bin(elapsed: float) -> int:
    return bisect_right(_EDGES, elapsed, 1, _BINS) - 1


def _grown(table: Sequence[float], elapsed: float) -> float:
    """Return M at *elapsed*: straight within a bin, and beyond the last one as steep as within it."""
    index = bisect_right(_EDGES, elapsed, 1, _BINS) - 1  # `_bin`, without a call for each run of a crowd
    return table[index] + (table[index + 1] - table[index]) * (elapsed - _EDGES[index]) / _WIDTHS[index]


def _place(elapsed: float) -> float:
    """Return where *elapsed* lies in log time: the bin, and how far into it; less than .1 s counts as that."""
    return min(1 + math.log(max(elapsed, _SHORTEST) / _SHORTEST, _RATIO), _BINS)


def _spread(masses: list[float], mass: float, low: float, high: float) -> None:
    """Add *mass*, evenly from place *low* to place *high*."""
    first, last = min(int(low), _BINS - 1), min(int(high), _BINS - 1)
    if first == last:
        masses[first] += mass
        return
    even = mass / (high - low)
    masses[first] += even * (first + 1 - low)
    for index in range(first + 1, last):
        masses[index] += even
    masses[last] += even * (high - last)


class Clocks:
    """Keep one clock per key, hashable and of the caller's choice; of more than *limit*, forget the longest unused."""

    __iter__ = None  # every key has a clock, so iteration by index would never end

    def __init__(self, limit: int = 1000) -> None:
        integer("limit", limit, 1)
        self._limit = limit
        self._clocks: OrderedDict[Hashable, PollClock] = OrderedDict()

    def __getitem__(self, key: Hashable) -> PollClock:
        """Return the clock of *key*: an empty one, if there is none yet."""
        clock = self._clocks.get(key)
        if clock is None:
            clock = self._clocks[key] = PollClock()
            if len(self._clocks) > self._limit:
                self._clocks.popitem(last=False)
        else:
            self._clocks.move_to_end(key)
        return clock

    def __contains__(self, key: Hashable) -> bool:
        return key in self._clocks

    def __len__(self) -> int:
        return len(self._clocks)
