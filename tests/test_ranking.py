"""In which order due runs are read where not all can be: the most pressing first, and never many weighed at once."""

import heapq
import math
from collections.abc import Sequence
from functools import lru_cache

from hypothesis import given
from hypothesis import strategies as st

from agentruns import RunRef
from agentruns._polling.ranking import Ranking
from agentruns._polling.watch import Watch

PRESSURES = st.lists(st.integers(-9, 9), min_size=1, max_size=40)


@lru_cache(maxsize=100)
def run(number: int) -> Watch:
    return Watch(RunRef(str(number)), 1.0, 0.0)


class Line:
    """Runs that are due, each under a pressure that does not change; one is read at each second."""

    def __init__(self, pressures: Sequence[float], at_once: int, most: int) -> None:
        self.pressures: dict[Watch, float] = {}
        self.due: dict[Watch, int] = {}
        self.most = most
        self.now = 0.0
        self.weighed: list[Watch] = []
        self.ranking = Ranking(self.due, at_once)
        for number, pressure in enumerate(pressures):
            self.add(run(number), pressure)

    def add(self, watch: Watch, pressure: float) -> None:
        self.pressures[watch] = pressure
        self.due[watch] = max(self.due.values(), default=0) + 1

    def read(self) -> float:
        """Read the run whose turn it is; return its pressure."""
        self.now += 1.0
        self.weighed = []
        watch = self.ranking.take(self.pressure, self.now, most=self.most, seconds=self.most)
        del self.due[watch]
        return self.pressures[watch]

    def pressure(self, watch: Watch, at: float) -> float:
        assert watch in self.due
        assert self.now <= at <= self.now + self.most
        self.weighed.append(watch)
        return self.pressures[watch]

    def read_round(self) -> Sequence[float]:
        return [self.read() for _ in range(min(self.most, len(self.due)))]


@given(PRESSURES, st.integers(1, 9))
def test_of_runs_that_can_be_weighed_at_once_each_round_has_the_most_pressing_in_order(
    pressures: list[int], most: int
) -> None:
    line, left = Line(pressures, 40, most), list(pressures)
    while left:
        expected = heapq.nlargest(most, left)
        assert line.read_round() == expected
        for each in expected:
            left.remove(each)


@given(PRESSURES, st.integers(1, 9), st.integers(1, 9))
def test_of_a_crowd_each_round_after_the_first_has_the_most_pressing_in_order_if_there_are_reads_enough(
    pressures: list[int], at_once: int, most: int
) -> None:
    at_once = max(at_once, most, -(-len(pressures) // most))
    line = Line(pressures, at_once, most)
    first = line.read_round()
    assert list(first) == heapq.nlargest(most, pressures[:at_once])
    while line.due:
        expected = heapq.nlargest(most, (line.pressures[watch] for watch in line.due))
        assert line.read_round() == expected


@given(PRESSURES, st.integers(1, 9), st.integers(1, 9))
def test_no_read_has_more_runs_weighed_than_may_be_at_once(pressures: list[int], at_once: int, most: int) -> None:
    line = Line(pressures, at_once, most)
    while line.due:
        line.read()
        assert len(line.weighed) <= at_once


@given(PRESSURES, st.integers(1, 9), st.integers(1, 9))
def test_a_run_is_weighed_in_its_turn_whatever_comes_after_it(pressures: list[int], at_once: int, most: int) -> None:
    line, waits = Line(pressures, at_once, most), run(0)
    line.pressures[waits] = -math.inf
    reads = 0
    while waits not in line.weighed and waits in line.due:
        line.read()
        line.add(run(50 + reads % 50), 100.0)  # as pressing as can be
        reads += 1
        assert reads <= 2 * (len(pressures) + most)


@given(PRESSURES, st.integers(1, 40), st.integers(1, 9))
def test_what_comes_due_takes_part_in_the_next_round(pressures: list[int], at_once: int, most: int) -> None:
    line = Line(pressures, max(at_once, most), most)
    line.read()
    line.add(run(99), 100.0)
    rest = min(most, len(pressures)) - 1
    shown = [line.read() for _ in range(rest + 1)]
    assert shown[-1] == 100.0


@given(PRESSURES, st.integers(1, 9), st.integers(1, 9), st.data())
def test_what_is_due_no_more_is_not_read_and_what_is_due_again_is_ranked_anew(
    pressures: list[int], at_once: int, most: int, data: st.DataObject
) -> None:
    line = Line(pressures, at_once, most)
    line.read()
    if line.due:
        again = data.draw(st.sampled_from(list(line.due)))
        del line.due[again]
        if data.draw(st.booleans()):
            line.add(again, -10.0)
    while line.due:
        line.read()  # which raises `KeyError` for one that is not due
    assert all(watch not in line.due for watch in line.pressures)


def test_of_two_that_press_alike_that_one_goes_first_which_has_been_due_for_longer() -> None:
    for at_once in (2, 40):
        line = Line([1.0] * 10, at_once, 5)
        order: list[Watch] = []
        while line.due:
            before = set(line.due)
            line.read()
            order += before - set(line.due)
        assert order == [run(number) for number in range(10)]
