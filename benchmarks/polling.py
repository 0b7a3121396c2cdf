"""
What the poll clock costs beside the best that is possible and beside usual schedules, in virtual time, seeded.

    python -m benchmarks.polling [--quick] [--json PATH]

A schedule is a sequence of poll times. A run of T seconds costs the polls up to the first one at T or later; its lag is
how much later that is; its cost is polls + lag / price. Requests take no time, for nobody. The limit is the cheapest
sequence for a distribution of durations that is known, found by dynamic programming. Clocks learn from their own polls
alone, and are frozen before they are measured. Plain Python is quick enough for all of it.
"""

from __future__ import annotations

import heapq
import math
import random
import sys
import timeit
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, count, cycle, takewhile
from statistics import NormalDist, fmean

from attrs import frozen

from agentruns._polling.clock import PollClock, phase

from .report import Goal, arguments, at_least, at_most, finish

PRICE = 0.1
PRICES = (0.03, 0.1, 0.3, 1.0)
PHASES = [0.75 + (index + 0.5) / 5 for index in range(5)]

Draw = Callable[[float], float]
"""A distribution of durations: a number in (0, 1) in, seconds out."""

Polls = Callable[[random.Random], Iterable[float]]
"""A schedule: where its polls lie, in seconds since the run was submitted."""


# Durations ------------------------------------------------------------------------------------------------------------


def lognormal(median: float, sigma: float) -> Draw:
    return lambda part: median * math.exp(sigma * NormalDist().inv_cdf(part))


def pareto(least: float, shape: float, most: float) -> Draw:
    return lambda part: min(least * (1 - part) ** (-1 / shape), most)


def half_and_half(one: Draw, other: Draw) -> Draw:
    return lambda part: one(2 * part) if part < 0.5 else other(2 * part - 1)


@frozen
class Runs:
    """Hold one workload as its quantiles, in order, with running sums of them and of their inverses."""

    draw: Draw
    runs: Sequence[float]
    sums: Sequence[float]
    inverses: Sequence[float]

    @classmethod
    def of(cls, draw: Draw, size: int) -> Runs:
        """Take *size* quantiles."""
        runs = sorted(draw((index + 0.5) / size) for index in range(size))
        inverses = (1 / run for run in runs)
        return cls(draw, runs, list(accumulate(runs, initial=0.0)), list(accumulate(inverses, initial=0.0)))


SHORT, LONG = lognormal(5, 0.5), lognormal(90, 0.6)
WORKLOADS = {
    "short": SHORT,
    "long": LONG,
    "mixed": half_and_half(SHORT, LONG),
    "heavy": pareto(3, 1.5, 3600),
    "vendor4": lognormal(4, 0.3),
    "vendor200": lognormal(200, 0.6),
}
FOUR = ("short", "long", "mixed", "heavy")
PUBLISHED = {  # polls and lag of the limit, as they were computed elsewhere
    "short": (4.83, 0.445),
    "long": (21.2, 2.05),
    "mixed": (15.4, 1.50),
    "heavy": (5.53, 0.472),
    "vendor4": (3.49, 0.31),
    "vendor200": (31.5, 3.07),
}


# What a schedule costs ------------------------------------------------------------------------------------------------


@frozen
class Cost:
    """Means over runs: polls, lag in seconds, and lag over duration."""

    polls: float
    lag: float
    relative: float

    def at(self, price: float) -> float:
        """Return the cost in polls, a poll being worth *price* seconds of lag."""
        return self.polls + self.lag / price


def mean(costs: Sequence[Cost]) -> Cost:
    return Cost(
        fmean(cost.polls for cost in costs), fmean(cost.lag for cost in costs), fmean(cost.relative for cost in costs)
    )


def measure(polls: Iterable[float], of: Runs) -> Cost:
    """Return what these polls cost, exactly for the quantiles: a poll meets every run that was not done before it."""
    size = len(of.runs)
    sent, lag, relative, done = 0, 0.0, 0.0, 0
    for poll in polls:
        sent += size - done
        before, done = done, bisect_right(of.runs, poll, done)
        lag += poll * (done - before) - (of.sums[done] - of.sums[before])
        relative += poll * (of.inverses[done] - of.inverses[before]) - (done - before)
        if done == size:
            break
    return Cost(sent / size, lag / size, relative / size)


def limit(of: Runs, price: float) -> Cost:
    """
    Return the cost of the best sequence.

    Polls lie at quantiles. With the first i runs done by the last poll, and the next poll at the j-th run, the rest
    costs n - i polls, waiting, and what follows after j. For a given j that is a straight line in i, steeper for
    greater j. So the best j is read off the lower envelope of lines, whose right end drops off as i falls to 0.
    """
    size = len(of.runs)
    best, following = [0.0] * (size + 1), [0] * (size + 1)
    lines: deque[tuple[float, float, int]] = deque()  # slope, value at 0, j; the steepest first
    for index in reversed(range(size)):
        run = of.runs[index]
        slope = -run / price
        start = (run * (index + 1) - of.sums[index + 1]) / price + best[index + 1]
        if not lines or slope > lines[-1][0]:
            while len(lines) > 1 and _hidden(lines[-2], lines[-1], (slope, start, 0)):
                lines.pop()
            lines.append((slope, start, index + 1))
        while len(lines) > 1 and lines[1][0] * index + lines[1][1] <= lines[0][0] * index + lines[0][1]:
            lines.popleft()
        slope, start, following[index] = lines[0]
        best[index] = size - index + of.sums[index] / price + slope * index + start
    polls, index = [], 0
    while index < size:
        index = following[index]
        polls.append(of.runs[index - 1])
    return measure(polls, of)


def _hidden(steep: tuple[float, float, int], middle: tuple[float, float, int], flat: tuple[float, float, int]) -> bool:
    """Say whether *middle* is nowhere the lowest of three lines."""
    return (flat[1] - middle[1]) * (steep[0] - middle[0]) >= (middle[1] - steep[1]) * (middle[0] - flat[0])


# Schedules ------------------------------------------------------------------------------------------------------------


def ours(clock: PollClock, first: float, price: float) -> Iterator[float]:
    sent = clock.next(0.0, 0.0, phase=first, price=price)
    while True:
        yield sent
        sent = clock.next(sent, sent, phase=None, price=price)


def fixed(gap: float) -> Polls:
    return lambda _: (gap * index for index in count(1))


def geometric(first: float, ratio: float) -> Polls:
    return lambda _: (first * ratio**index for index in count())


def backoff(first: float, factor: float, most: float, *, jitter: bool = False) -> Polls:
    gaps = list(takewhile(lambda gap: gap < most, (first * factor**index for index in count())))

    def polls(noise: random.Random) -> Iterator[float]:
        now = 0.0
        for gap in chain(gaps, cycle([most])):
            now += gap * (noise.random() if jitter else 1.0)
            yield now

    return polls


BACKOFF = backoff(0.5, 2, 30)
JITTERED = backoff(1, 1.5, 20, jitter=True)


def peer(polls: Polls, of: Runs, times: int = 1) -> Cost:
    noise = random.Random(1)
    return mean([measure(polls(noise), of) for _ in range(times)])


def trained(of: Runs, runs: int, price: float, seed: int) -> PollClock:
    """Return a clock that has followed so many runs, each with its own polls."""
    noise = random.Random(seed)
    offset, clock = noise.random(), PollClock()
    for index in range(runs):
        follow(clock, of.draw(noise.random() or 0.5), phase(index, offset), price)
    return clock


def follow(clock: PollClock, run: float, first: float, price: float) -> None:
    running = 0.0
    for poll in ours(clock, first, price):
        if poll >= run:
            clock.learn(running, poll)
            return
        running = poll


def clock_cost(of: Runs, runs: int, price: float, seeds: int) -> Cost:
    """Return the mean cost of clocks that learned that many runs at *price*; one clock if none."""
    clocks = [trained(of, runs, price, seed) for seed in range(seeds if runs else 1)]
    return mean([measure(ours(clock, first, price), of) for clock in clocks for first in PHASES])


def at_equal(name: str, wanted: float, of: Runs, seeds: int) -> Cost:
    """Return the cost of clocks whose price makes their mean lag, or their mean polls, the wanted one."""
    low, high = math.log(1e-3), math.log(30)
    while high - low > 5e-3:
        price = (low + high) / 2
        got = clock_cost(of, 100, math.exp(price), seeds)
        if (got.lag > wanted) if name == "lag" else (got.polls < wanted):
            high = price
        else:
            low = price
    got = clock_cost(of, 100, math.exp((low + high) / 2), seeds)
    if abs(getattr(got, name) / wanted - 1) > 0.01:
        raise RuntimeError(f"no price gives {wanted} {name}")
    return got


def late(of: Runs, seeds: int) -> float:
    """Return the 95th percentile of the lag of clocks that learned 100 runs."""
    lags = []
    for seed in range(seeds):
        clock = trained(of, 100, PRICE, seed)
        for first in PHASES:
            polls = ours(clock, first, PRICE)
            poll = next(polls)
            for run in of.runs[:: len(of.runs) // 1000]:
                while poll < run:
                    poll = next(polls)
                lags.append(poll - run)
    return sorted(lags)[int(0.95 * len(lags))]


# Many runs at once ----------------------------------------------------------------------------------------------------


class Slot:
    """Where one run follows the other, each started as soon as the end of the one before was seen."""

    __slots__ = ("active", "began", "clock", "draw", "polled", "run", "sent")

    def __init__(self, clock: PollClock, draw: Draw, active: int, noise: random.Random) -> None:
        self.clock, self.draw, self.active = clock, draw, active
        self.run = draw(noise.random() or 0.5)
        self.began, self.sent, self.polled = -self.run * noise.random(), 0.0, False

    def poll(self, now: float, noise: random.Random) -> float | None:
        """Return the lag of the run if it is seen to be done; the next one starts then."""
        elapsed = now - self.began
        if elapsed < self.run:
            self.sent, self.polled = elapsed, True
            return None
        lag = elapsed - self.run
        self.clock.learn(self.sent, elapsed, active=self.active)
        self.began, self.run, self.sent, self.polled = now, self.draw(noise.random() or 0.5), 0.0, False
        return lag


Policy = Callable[[Sequence[Slot], float], Iterator[tuple[float, Sequence[Slot]]]]
"""Slots and requests per second in; when each request leaves, and the slots of which it tells."""


def sweep(slots: Sequence[Slot], rate: float) -> Iterator[tuple[float, Sequence[Slot]]]:
    """Every half second take the runs under the greatest pressure, as many as the budget has requests."""
    least, places = math.sqrt(PRICE), range(len(slots))
    for now in (tick / 2 for tick in count()):
        pressures = [slot.clock.pressure(now - slot.began, slot.sent, polled=slot.polled) for slot in slots]
        for index, place in enumerate(heapq.nlargest(int(rate / 2), places, key=pressures.__getitem__)):
            if pressures[place] < least:
                break
            yield now + index / rate, [slots[place]]
        yield now + 0.5, []  # nothing may be due for long


def round_robin(slots: Sequence[Slot], rate: float) -> Iterator[tuple[float, Sequence[Slot]]]:
    return ((index / rate, [slot]) for index, slot in enumerate(cycle(slots)))


def lists(slots: Sequence[Slot], rate: float) -> Iterator[tuple[float, Sequence[Slot]]]:
    """Ask for lists of a hundred runs in turn."""
    pages = [slots[first : first + 100] for first in range(0, len(slots), 100)]
    return ((index / rate, page) for index, page in enumerate(cycle(pages)))


def fleet(groups: Sequence[tuple[int, Draw]], policy: Policy, rate: float, seconds: float) -> tuple[float, float]:
    """Return the mean lag and the completions per second; as much time again goes before, so that clocks learn."""
    noise = random.Random(7)
    slots = [slot for size, draw in groups for slot in _group(size, draw, noise)]
    lags = []
    for now, asked in policy(slots, rate):
        if now >= 2 * seconds:
            break
        for slot in asked:
            lag = slot.poll(now, noise)
            if lag is not None and now >= seconds:
                lags.append(lag)
    return fmean(lags), len(lags) / seconds


def _group(size: int, draw: Draw, noise: random.Random) -> list[Slot]:
    clock = PollClock()
    return [Slot(clock, draw, size, noise) for _ in range(size)]


def herd(of: Runs, size: int, seed: int) -> float:
    """Return the polls in the worst tenth of a second, per run, of runs that were submitted in one instant."""
    noise = random.Random(1000 + seed)
    offset, clock = noise.random(), trained(of, 100, PRICE, seed)
    polls = []
    for index in range(size):
        run = of.draw(noise.random() or 0.5)
        for poll in ours(clock, phase(index, offset), PRICE):
            polls.append(poll)
            if poll >= run:
                break
    polls.sort()
    return max(bisect_left(polls, poll + 0.1) - index for index, poll in enumerate(polls)) / size


# The goals ------------------------------------------------------------------------------------------------------------


def learning(population: dict[str, Runs], limits: dict[str, Cost], seeds: int) -> Iterator[Goal]:
    """Compare with the limit; the fewer runs a clock has seen, the more seeds it takes for a steady mean."""
    for runs, times, targets in (
        (100, 1, (1.08, 1.08, 1.06, 1.15)),
        (20, 2, (1.12, 1.12, 1.10, 1.18)),
        (5, 8, (1.20, 1.20, 1.20, 1.20)),
        (0, 1, (1.55, 1.55, 1.55, 1.55)),
    ):
        for name, target in zip(FOUR, targets, strict=True):
            got = clock_cost(population[name], runs, PRICE, seeds * times)
            yield at_most(f"cost / limit, {runs} runs: {name}", got.at(PRICE) / limits[name].at(PRICE), target)


def equal_terms(population: dict[str, Runs], seeds: int) -> Iterator[Goal]:
    for name, targets in {
        "short": (0.80, 0.27, 0.25),
        "long": (0.90, 0.40, 0.47),
        "mixed": (0.86, 0.52, 0.55),
        "heavy": (0.68, 0.30, 0.27),
    }.items():
        of = population[name]
        second, doubled, jittered = peer(fixed(1), of), peer(BACKOFF, of), peer(JITTERED, of, 200)
        got = at_equal("lag", second.lag, of, seeds)
        yield at_most(f"polls / polls of fixed 1 s at its lag: {name}", got.polls / second.polls, targets[0])
        got = at_equal("polls", doubled.polls, of, seeds)
        yield at_most(f"lag / lag of backoff .5-30 s x2 at its polls: {name}", got.lag / doubled.lag, targets[1])
        got = at_equal("polls", jittered.polls, of, seeds)
        yield at_most(f"lag / lag of full jitter 1-20 s x1.5 at its polls: {name}", got.lag / jittered.lag, targets[2])


def by_default(population: dict[str, Runs], seeds: int) -> Iterator[Goal]:
    for name, polls, lag in (("short", 1.0, None), ("long", 0.25, 2.5)):
        got, second = clock_cost(population[name], 100, PRICE, seeds), peer(fixed(1), population[name])
        yield at_most(f"default: polls / polls of fixed 1 s: {name}", got.polls / second.polls, polls)
        yield at_most(f"default: lag in seconds: {name}", got.lag, lag or second.lag)


def any_price(population: dict[str, Runs], rivals: dict[str, dict[str, Cost]], seeds: int) -> Iterator[Goal]:
    """Compare the worst workload at each price, beside the one usual schedule that does best on its own worst one."""
    for price in PRICES:
        least = {name: limit(of, price).at(price) for name, of in population.items()}
        worst = max(clock_cost(of, 20, price, seeds).at(price) / least[name] for name, of in population.items())
        others = {
            title: max(cost.at(price) / least[name] for name, cost in costs.items()) for title, costs in rivals.items()
        }
        rival = min(others, key=others.__getitem__)
        print(f"worst of six workloads, price {price}: {worst:.2f}, best usual schedule {others[rival]:.2f} ({rival})")
        yield at_most(f"worst cost / limit of six workloads, 20 runs, price {price}", worst, 1.25)


def budget(seconds: float) -> Iterator[Goal]:
    three = [(100, SHORT), (400, LONG), (500, lognormal(600, 0.6))]
    (lag, ended), (turn_lag, turn_ended) = (fleet(three, policy, 50, seconds) for policy in (sweep, round_robin))
    print(f"1000 runs of three kinds, 50 requests/s: lag {lag:.2f} s, in turn {turn_lag:.2f} s")
    yield at_most("50 requests/s, three kinds: lag / lag in turn", lag / turn_lag, 0.40)
    yield at_least("50 requests/s, three kinds: ends / ends in turn", ended / turn_ended, 1.7)
    one = [(1000, LONG)]
    (lag, _), (turn_lag, _) = (fleet(one, policy, 50, seconds) for policy in (sweep, round_robin))
    (second, _), (many, _) = (fleet(one, lists, rate, seconds) for rate in (1, 50))
    print(f"1000 long runs, 50 requests/s: lag {lag:.2f} s, in turn {turn_lag:.2f} s")
    print(f"1000 long runs, lists of 100: lag {second:.2f} s at 1 list/s, {many:.2f} s at 50 lists/s")
    yield at_most("50 requests/s, long: lag / lag in turn", lag / turn_lag, 0.90)
    yield at_most("1 list/s of 100: lag / lag of 50 requests/s", second / lag, 1.0)


def speed(of: Runs) -> Iterator[Goal]:
    clock = trained(of, 100, PRICE, 1)
    noise = random.Random(2)
    slots = [Slot(clock, of.draw, 1000, noise) for _ in range(1000)]

    def decide() -> None:
        clock.next(70.0, 70.1, phase=None, price=PRICE)

    def observe() -> None:
        clock.learn(70.0, 75.0)
        clock.next(0.0, 0.0, phase=1.0, price=PRICE)

    yield at_most("CPU: a decision, us", _seconds(decide, 10_000) * 1e6, 10)
    yield at_most("CPU: an observation and its table, us", _seconds(observe, 1000) * 1e6, 150)
    yield at_most("CPU: a sweep over 1000 runs, ms", _seconds(lambda: next(sweep(slots, 50)), 20) * 1e3, 5)


def _seconds(call: Callable[[], object], number: int) -> float:
    return min(timeit.repeat(call, number=number, repeat=7)) / number


# Tables ---------------------------------------------------------------------------------------------------------------


def usual(population: dict[str, Runs]) -> dict[str, dict[str, Cost]]:
    """Return what usual schedules cost per workload; costs are polls and lag, so they hold for every price."""
    schedules: dict[str, tuple[Polls, int]] = {
        "fixed 1 s": (fixed(1), 1),
        "fixed 15 s": (fixed(15), 1),
        "backoff .5-30 s x2": (BACKOFF, 1),
        "full jitter 1-20 s x1.5": (JITTERED, 50),
    }
    for gap in (0.1 * 1.05**power for power in range(125)):
        schedules[f"every {gap:.2f} s"] = fixed(gap), 1
    for step in range(1, 60):
        schedules[f"from .5 s x{1 + step / 50:.2f}"] = geometric(0.5, 1 + step / 50), 1
    return {
        title: {name: peer(polls, of, times) for name, of in population.items()}
        for title, (polls, times) in schedules.items()
    }


def peers(rivals: dict[str, dict[str, Cost]], limits: dict[str, Cost]) -> None:
    """Print cost / limit of usual schedules; the best ones are chosen with the durations known."""
    ratios = {
        title: [costs[name].at(PRICE) / best.at(PRICE) for name, best in limits.items()]
        for title, costs in rivals.items()
    }
    rows = {title: row for title, row in ratios.items() if not title.startswith(("every ", "from "))}
    for title, prefix in (("best fixed, in hindsight", "every "), ("best geometric from .5 s", "from ")):
        family = [row for name, row in ratios.items() if name.startswith(prefix)]
        rows[title] = [min(column) for column in zip(*family, strict=True)]
    print(f"{'cost / limit':<26}" + "".join(f"{name:>12}" for name in limits))
    for title, row in rows.items():
        print(f"{title:<26}" + "".join(f"{ratio:>12.2f}" for ratio in row))
    print()


def figures(population: dict[str, Runs], limits: dict[str, Cost], seeds: int) -> None:
    print(f"{'100 runs':<12}{'polls':>8}{'lag':>8}{'p95 lag':>9}{'lag/T':>8}{'cost':>8}{'limit: polls':>15}{'lag':>8}")
    for name, of in population.items():
        got, best = clock_cost(of, 100, PRICE, seeds), limits[name]
        print(
            f"{name:<12}{got.polls:>8.2f}{got.lag:>8.3f}{late(of, seeds):>9.2f}{got.relative:>8.3f}"
            f"{got.at(PRICE):>8.2f}{best.polls:>15.2f}{best.lag:>8.3f}"
        )
    print()


def main() -> int:
    wanted = arguments(__doc__)
    size, seeds, few, seconds = (60_000, 15, 4, 300.0) if wanted.quick else (100_000, 60, 20, 2400.0)
    population = {name: Runs.of(draw, size) for name, draw in WORKLOADS.items()}
    limits = {name: limit(of, PRICE) for name, of in population.items()}
    rivals = usual(population)
    figures(population, limits, few)
    peers(rivals, limits)
    goals = []
    for name, (polls, lag) in PUBLISHED.items():
        off = abs(limits[name].at(PRICE) / (polls + lag / PRICE) - 1)
        goals.append(at_most(f"limit: distance from the published cost: {name}", off, 0.02))
    goals += learning(population, limits, seeds)
    goals += equal_terms(population, few)
    goals += by_default(population, seeds)
    goals += any_price(population, rivals, seeds)
    goals += budget(seconds)
    herds = [herd(population["short"], 1000, seed) for seed in range(seeds)]
    print(f"1000 short runs at once: polls per run in the worst 100 ms {fmean(herds):.3f}, worst seed {max(herds):.3f}")
    goals.append(at_most("1000 short runs at once: worst 100 ms, polls per run", fmean(herds), 0.12))
    goals += speed(population["long"])
    print()
    return finish(goals, wanted)


if __name__ == "__main__":
    sys.exit(main())
