"""The poll clock: laws of its answers, whatever it learned, and what it makes of a few plain histories."""

import math
import random
import sys
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from agentruns._polling import clock as pollclock
from agentruns._polling.clock import Clocks, Parameters, PollClock, phase
from agentruns.errors import ConfigurationError

PRICE = 0.1
STEP = math.sqrt(PRICE)
WEEK = 7 * 86400.0
FREE = Parameters(min_gap=1e-9, max_gap=1e9)
"""Settings whose limits on the gap are never felt."""

few = settings(max_examples=100)

seconds = st.one_of(st.just(0.0), st.floats(1e-3, 1e5), st.floats(0.1, 100))
odd = st.one_of(
    seconds, st.floats(-1e6, -1e-9), st.sampled_from([-0.0, 1e300, -1e300, 5e-324, math.inf, -math.inf, WEEK])
)
elapsed = st.one_of(st.just(0.0), st.floats(1e-3, WEEK), st.floats(0.1, 300))
prices = st.floats(1e-3, 10)
phases = st.floats(0.75, 1.75, exclude_max=True)
floors = st.one_of(st.just(0.0), st.floats(0, 100))
offsets = st.floats(0, 1, exclude_max=True)
observations = st.tuples(seconds, st.one_of(st.none(), seconds))
odd_observations = st.tuples(odd, st.one_of(st.none(), odd))
plain_parameters = st.builds(
    Parameters,
    weight=st.floats(0.1, 5),
    rate=st.floats(0.2, 5),
    scale=st.floats(0.5, 20),
    smoothing=st.floats(0, 2),
    memory=st.floats(1, 200),
)

Observation = tuple[float, float | None]


def learned(seen: Iterable[Observation], by: Parameters = FREE) -> PollClock:
    clock = PollClock(by)
    for after, until in seen:
        clock.learn(after, until)
    return clock


def histories(observation: st.SearchStrategy[Observation] = observations) -> st.SearchStrategy[list[Observation]]:
    """A few observations, then one that comes many times: an empty clock, a mixed one, a settled one."""
    mixed = st.lists(observation, max_size=12)
    return st.builds(lambda many, one, times: many + [one] * times, mixed, observation, st.sampled_from([0, 0, 5, 60]))


def clocks(by: Parameters = FREE) -> st.SearchStrategy[PollClock]:
    return histories().map(lambda seen: learned(seen, by))


def polls(clock: PollClock, first: float, price: float = PRICE) -> Iterator[float]:
    """Yield when a run is polled whose answers take no time."""
    sent = clock.next(0.0, 0.0, phase=first, price=price)
    while True:
        yield sent
        sent = clock.next(sent, sent, phase=None, price=price)


def follow(clock: PollClock, run: float, first: float) -> int:
    """Poll a run of *run* seconds to its end, learn from that, and return the number of polls."""
    running = 0.0
    for count, poll in enumerate(polls(clock, first), start=1):
        if poll >= run:
            clock.learn(running, poll)
            return count
        running = poll
    raise AssertionError


def first_poll(clock: PollClock, first: float = 1.25) -> float:
    return clock.next(0.0, 0.0, phase=first, price=PRICE)


def grown(clock: PollClock, start: float, end: float) -> float:
    """Return M(end) - M(start)."""
    return clock.pressure(end, start, polled=True)


def masses(clock: PollClock) -> list[float]:
    return [*clock._done, *clock._lost]


def in_all_bins(masses: list[float]) -> list[float]:
    return [*masses, *[0.0] * (pollclock._BINS - len(masses))]


# The next poll --------------------------------------------------------------------------------------------------------


@few
@given(clocks(Parameters()), elapsed, st.floats(0, 60), st.one_of(st.none(), phases), prices, floors)
def test_the_next_poll_keeps_to_the_gaps_and_the_vendors_floor(
    clock: PollClock, sent: float, took: float, first: float | None, price: float, floor: float
) -> None:
    seen = sent + took

    at = clock.next(sent, seen, phase=first, price=price, floor=floor)

    assert at > sent
    assert at >= sent + clock.parameters.min_gap
    assert at >= seen + floor
    assert at <= max(sent + clock.parameters.max_gap, seen + floor)


@few
@given(
    histories(odd_observations),
    st.one_of(elapsed, st.floats(-1e6, 1e12), st.sampled_from([1e17, 1e300])),
    st.one_of(elapsed, st.floats(-1e6, 1e12)),
    st.one_of(st.none(), phases),
    st.one_of(prices, st.sampled_from([1e-300, 1e300, math.inf])),
    st.one_of(floors, st.floats(-1e6, 0)),
)
def test_nonsense_that_was_learned_or_a_clock_that_goes_backwards_changes_no_law_of_the_next_poll(
    seen: list[Observation], sent: float, answered: float, first: float | None, price: float, floor: float
) -> None:
    clock = learned(seen, Parameters())

    at = clock.next(sent, answered, phase=first, price=price, floor=floor)

    assert at > sent
    assert at >= sent + clock.parameters.min_gap
    assert at >= answered + max(floor, 0.0)
    most = max(sent + clock.parameters.max_gap, answered + max(floor, 0.0))
    assert at <= max(most, math.nextafter(sent, math.inf))  # to a huge time no gap can be added


def test_a_floor_that_is_negative_asks_for_nothing() -> None:
    clock = PollClock()

    assert clock.next(50, 60, phase=None, price=PRICE, floor=-5) == 60
    assert clock.next(50, 50, phase=None, price=PRICE, floor=-5) == clock.next(50, 50, phase=None, price=PRICE)


def test_the_next_gap_counts_from_when_the_last_poll_left() -> None:
    clock = PollClock(Parameters(max_gap=5))

    assert clock.next(3000, 3001, phase=None, price=PRICE) == 3005
    assert clock.next(3000, 3009, phase=None, price=PRICE) == 3009


# The scale of M -------------------------------------------------------------------------------------------------------


@few
@given(st.one_of(clocks(), histories(odd_observations).map(learned)), elapsed, st.floats(1e-6, 1e5), st.floats(0, 20))
def test_due_times_grow_strictly_with_the_last_poll_and_with_the_step(
    clock: PollClock, last: float, more: float, step: float
) -> None:
    later = last + max(more, last * 1e-6)

    assert clock.due(last, step) < clock.due(later, step) < math.inf
    assert clock.due(last, step) < clock.due(last, step + 1e-4) < math.inf
    assert clock.due(last, 1e-4) > last
    assert grown(clock, last, later) > 0


@few
@given(histories(odd_observations), st.one_of(st.just(FREE), plain_parameters))
@example([(10.0, 10.0)] * 1000, FREE)
@example([(10.0, None)] * 1000, FREE)
def test_weights_are_never_negative_nor_more_in_all_than_the_memory(seen: list[Observation], by: Parameters) -> None:
    clock = PollClock(by)

    for after, until in seen:
        clock.learn(after, until)
        assert min(masses(clock)) >= 0
        assert clock.weight <= by.memory * (1 + 1e-12)

    assert clock.weight == pytest.approx(math.fsum(masses(clock)))
    assert clock.observations == len(seen)


@few
@given(clocks(), elapsed, st.floats(0, 10), st.floats(0, 10))
def test_two_steps_are_as_long_as_their_sum(clock: PollClock, last: float, one: float, other: float) -> None:
    assert clock.due(clock.due(last, one), other) == pytest.approx(clock.due(last, one + other), rel=1e-9)


@few
@given(clocks(), st.floats(0, 1e5), st.floats(1e-3, 1))
def test_the_next_poll_at_four_times_the_price_is_the_second_next_one(
    clock: PollClock, sent: float, price: float
) -> None:
    once = clock.next(sent, sent, phase=None, price=price)

    twice = clock.next(once, once, phase=None, price=price)

    assert clock.next(sent, sent, phase=None, price=4 * price) == pytest.approx(twice, rel=1e-9)


@few
@given(clocks(Parameters()), elapsed, st.one_of(st.none(), phases), prices, prices)
def test_a_higher_price_never_polls_earlier(
    clock: PollClock, sent: float, first: float | None, one: float, other: float
) -> None:
    low, high = sorted((one, other))

    later = clock.next(sent, sent, phase=first, price=high)

    assert later >= clock.next(sent, sent, phase=first, price=low) * (1 - 1e-12)


@few
@given(st.one_of(histories(), histories(odd_observations)), plain_parameters, elapsed, prices)
def test_whatever_was_learned_a_run_of_any_length_is_looked_at(
    seen: list[Observation], by: Parameters, last: float, price: float
) -> None:
    clock = learned(seen, by)
    behind = price * (by.weight + clock.weight) / (2 * by.weight * by.rate)

    bound = ((math.sqrt(last + by.scale) + math.sqrt(behind)) ** 2 - by.scale) * 1.25

    assert clock.due(last, math.sqrt(price)) <= bound


@few
@given(st.lists(st.floats(1800, 1e6), min_size=40, max_size=60), phases)
def test_after_nothing_but_runs_of_hours_the_first_poll_still_comes_within_23_seconds(
    runs: list[float], first: float
) -> None:
    clock = learned([(run, run) for run in runs], Parameters())

    assert first_poll(clock, first) <= 23
    assert first_poll(clock, 1.0) < 11


@few
@given(clocks(), elapsed, prices, phases)
def test_a_run_that_is_due_is_under_the_pressure_of_its_price(
    clock: PollClock, sent: float, price: float, first: float
) -> None:
    at = clock.due(sent, math.sqrt(price))

    assert clock.pressure(at, sent, polled=True) == pytest.approx(math.sqrt(price), rel=1e-6)
    assert clock.pressure(at, sent, polled=False) == pytest.approx(math.sqrt(price) / 1.25, rel=1e-6)
    assert clock.pressure(first_poll(clock), 0.0, polled=False) == pytest.approx(STEP)
    assert clock.pressure(sent, sent, polled=True) == 0


# What is learned ------------------------------------------------------------------------------------------------------


@few
@given(phases)
def test_an_empty_clock_polls_first_after_about_a_second(first: float) -> None:
    assert 0.4 < first_poll(PollClock(), first) < 1.4


@pytest.mark.parametrize(("run", "count"), [(5, 6), (90, 37), (600, 104)])
def test_an_empty_clock_polls_ever_less_often(run: float, count: int) -> None:
    assert follow(PollClock(), run, 1.25) == count


@few
@given(offsets)
def test_a_clock_learns_from_its_own_polls_and_forgets(offset: float) -> None:
    clock = PollClock()

    for index in range(50):
        follow(clock, 10, phase(index, offset))
    assert 5 < first_poll(clock) < 10
    assert first_poll(clock, 0.75) > 4.5
    assert first_poll(clock, 1.75) < 10

    for index in range(100):
        follow(clock, 1, phase(index, offset))
    assert first_poll(clock, 1.75) < 1.2


@few
@given(clocks(Parameters()), phases)
def test_runs_that_nobody_watched_to_their_end_move_the_first_poll_later_never_earlier(
    clock: PollClock, first: float
) -> None:
    before = start = first_poll(clock, first)

    for _ in range(50):
        clock.learn(60)
        now = first_poll(clock, first)
        assert now >= before * (1 - 1e-12)
        before = now

    if clock.observations == 50:
        assert before > start


@few
@given(histories(), seconds, seconds, plain_parameters)
def test_an_end_adds_one_run_within_the_widened_interval(
    seen: list[Observation], one: float, other: float, by: Parameters
) -> None:
    clock = learned(seen, by)
    after, until = sorted((one, other))
    keep = 1 - 1 / by.memory
    done, lost, weight = in_all_bins(clock._done), in_all_bins(clock._lost), clock.weight

    clock.learn(after, until)

    widened = math.exp(by.smoothing)
    low, high = (max(end, 0.1) for end in (after / widened, until * widened))
    for index, (mass, now) in enumerate(zip(done, in_all_bins(clock._done), strict=True)):
        added = now - mass * keep
        overlaps = pollclock._EDGES[index] <= high * (1 + 1e-9) and pollclock._EDGES[index + 1] >= low * (1 - 1e-9)
        assert (-1e-12 < added <= 1 + 1e-12) if overlaps else added == 0
    assert in_all_bins(clock._lost) == [mass * keep for mass in lost]
    assert clock.weight == pytest.approx(weight * keep + 1)


@few
@given(histories(), odd)
def test_a_run_that_was_lost_adds_one_run_where_it_was_last_seen(seen: list[Observation], after: float) -> None:
    clock = learned(seen)
    keep = 1 - 1 / clock.parameters.memory
    done, lost = ([mass * keep for mass in in_all_bins(each)] for each in (clock._done, clock._lost))

    clock.learn(after)

    lost[min(max(bisect_right(pollclock._EDGES, after) - 1, 0), len(lost) - 1)] += 1
    assert in_all_bins(clock._done) == done
    assert in_all_bins(clock._lost) == lost


@few
@given(odd, odd)
def test_an_end_before_the_last_answer_counts_as_at_that_answer(after: float, until: float) -> None:
    assume(until < after)

    assert masses(learned([(after, until)])) == masses(learned([(after, after)]))


def test_the_duration_itself_is_known_better_than_an_interval() -> None:
    exact, loose = learned([(10, 10)] * 30), learned([(4, 15)] * 30)

    assert grown(exact, 6, 14) > grown(loose, 6, 14)
    assert grown(exact, 2, 6) < grown(loose, 2, 6)


@few
@given(st.integers(1, 30), histories())
def test_as_many_active_runs_as_are_remembered_change_nothing(active: int, seen: list[Observation]) -> None:
    clock = PollClock()
    for after, until in seen:
        clock.learn(after, until, active=active)

    assert masses(clock) == masses(learned(seen))


def test_with_many_active_runs_each_counts_for_less_and_is_remembered_longer() -> None:
    fleet, single = PollClock(), PollClock()
    for run in [10.0] * 100 + [1.0] * 100:
        fleet.learn(run, run, active=1000)
        single.learn(run, run)

    assert fleet.weight == pytest.approx(single.weight, rel=0.1)
    long = bisect_right(pollclock._EDGES, 5)
    assert math.fsum(fleet._done[long:]) == pytest.approx(fleet.weight / 2, rel=0.1)
    assert math.fsum(single._done[long:]) < single.weight / 20


# Phases and herds -----------------------------------------------------------------------------------------------------


@few
@given(st.integers(0, 10**6), st.integers(1, 1000), offsets, st.floats(0, 1), st.floats(0, 1))
def test_the_phases_of_runs_in_a_row_fill_one_unit_evenly(
    start: int, size: int, offset: float, one: float, other: float
) -> None:
    low, high = sorted((0.75 + one, 0.75 + other))
    found = [phase(start + index, offset) for index in range(size)]

    assert all(0.75 <= each < 1.75 for each in found)
    assert abs(sum(low <= each < high for each in found) - size * (high - low)) < 5


@given(st.integers(-(10**9), 10**9), st.one_of(st.floats(-10, 10), st.just(-1e-20), st.just(math.nextafter(1, 0))))
def test_a_phase_never_leaves_its_unit(index: int, offset: float) -> None:
    assert 0.75 <= phase(index, offset) < 1.75


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, 60)), max_size=40),
    st.integers(1, 200),
    offsets,
    st.floats(0, 20),
    st.floats(0, 20),
)
def test_runs_that_start_in_the_same_instant_are_not_polled_together(
    seen: list[tuple[float, float]], size: int, offset: float, one: float, other: float
) -> None:
    clock = learned(seen)
    start, end = sorted((one, other))
    found = 0

    for index in range(size):
        for poll in polls(clock, phase(index, offset)):
            if poll >= end:
                break
            found += poll >= start

    assert found <= size * grown(clock, start, end) / STEP + 5


# No surprises ---------------------------------------------------------------------------------------------------------


@few
@given(histories(odd_observations), elapsed, phases, prices)
def test_the_same_history_gives_the_same_answers_and_touches_no_randomness(
    seen: list[Observation], sent: float, first: float, price: float
) -> None:
    state = random.getstate()
    one, other = learned(seen), learned(seen)
    other.next(sent, sent, phase=None, price=price)  # a question leaves no trace

    assert one.next(0, 0, phase=first, price=price) == other.next(0, 0, phase=first, price=price)
    assert one.pressure(sent, 0, polled=False) == other.pressure(sent, 0, polled=False)
    assert random.getstate() == state


@few
@given(histories(odd_observations), odd, odd, st.one_of(st.floats(0, 1e6), st.just(math.inf)), st.booleans())
@example([(10.0, 10.0)], math.inf, math.inf, math.inf, True)
def test_no_number_but_nan_is_an_error(
    seen: list[Observation], one: float, other: float, step: float, polled: bool
) -> None:
    clock = learned(seen)

    assert not math.isnan(clock.due(one, step))
    assert not math.isnan(clock.pressure(one, other, polled=polled))
    assert not math.isnan(clock.next(one, other, phase=None, price=PRICE, floor=step))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("after", lambda clock: clock.learn(math.nan, 5.0)),
        ("until", lambda clock: clock.learn(5.0, math.nan)),
        ("last", lambda clock: clock.due(math.nan, 1.0)),
        ("step", lambda clock: clock.due(1.0, math.nan)),
        ("step", lambda clock: clock.due(1.0, -1.0)),
        ("sent", lambda clock: clock.next(math.nan, 1.0, phase=None, price=PRICE)),
        ("seen", lambda clock: clock.next(1.0, math.nan, phase=None, price=PRICE)),
        ("phase", lambda clock: clock.next(0.0, 0.0, phase=math.nan, price=PRICE)),
        ("phase", lambda clock: clock.next(0.0, 0.0, phase=-1.0, price=PRICE)),
        ("price", lambda clock: clock.next(1.0, 1.0, phase=None, price=math.nan)),
        ("price", lambda clock: clock.next(1.0, 1.0, phase=None, price=0.0)),
        ("floor", lambda clock: clock.next(1.0, 1.0, phase=None, price=PRICE, floor=math.nan)),
        ("now", lambda clock: clock.pressure(math.nan, 1.0, polled=True)),
        ("sent", lambda clock: clock.pressure(1.0, math.nan, polled=True)),
        ("offset", lambda _: phase(1, math.nan)),
        ("offset", lambda _: phase(1, math.inf)),
    ],
)
def test_what_is_no_number_is_refused_by_name_and_leaves_no_trace(
    name: str, call: Callable[[PollClock], object]
) -> None:
    clock = learned([(3, 4)])
    before = masses(clock)

    with pytest.raises(ConfigurationError, match=rf"^{name} is "):
        call(clock)

    assert masses(clock) == before
    assert clock.observations == 1


@few
@given(
    histories(odd_observations),
    st.builds(
        Parameters,
        weight=st.sampled_from([1e-3, 1e3]),
        rate=st.sampled_from([1e-3, 1e3]),
        scale=st.sampled_from([1e-3, 1e3]),
        smoothing=st.sampled_from([0, 10]),
        memory=st.sampled_from([1, 1e6]),
    ),
    elapsed,
)
def test_the_widest_parameters_still_give_a_clock_that_goes_on(
    seen: list[Observation], by: Parameters, sent: float
) -> None:
    clock = learned(seen, by)

    assert sent + by.min_gap <= clock.next(sent, sent, phase=None, price=PRICE) <= sent + by.max_gap
    assert grown(clock, sent, sent + 1) > 0


# Many keys ------------------------------------------------------------------------------------------------------------


def test_a_key_keeps_its_clock_and_keys_share_nothing() -> None:
    kept = Clocks()
    kept["vendor", "model"].learn(10, 10)

    assert kept["vendor", "model"].observations == 1
    assert kept["vendor", "other"].observations == 0


@few
@given(st.lists(st.integers(0, 8), max_size=60), st.integers(1, 5))
def test_no_more_clocks_are_kept_than_allowed_and_the_latest_used_ones(keys: list[int], limit: int) -> None:
    kept, used = Clocks(limit=limit), list[Hashable]()

    for key in keys:
        known = key in kept
        assert known == (key in used)
        assert kept[key].observations == known  # a forgotten key starts anew
        if not known:
            kept[key].learn(1, 1)
        used = [*(other for other in used if other != key), key][-limit:]

    assert len(kept) == len(used)


def test_a_thousand_keys_are_kept_by_default() -> None:
    kept = Clocks()
    for key in range(1001):
        kept[key].learn(1, 2)

    assert len(kept) == 1000
    assert 0 not in kept
    assert 1 in kept


def test_clocks_cannot_be_iterated_over_since_that_would_make_them_without_end() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        iter(Clocks())


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_a_limit_on_the_keys_that_cannot_work_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^limit is "):
        Clocks(limit=limit)


def test_a_clock_takes_less_than_four_kilobytes() -> None:
    clock = learned([(10, 12)])
    first_poll(clock)

    assert not hasattr(clock, "__dict__")
    assert clock._table is not None
    kept = (clock, clock._done, clock._lost, clock._table)
    assert sum(map(sys.getsizeof, (*kept, *clock._done, *clock._lost, *clock._table))) < 4000


@pytest.mark.parametrize("sent", [0.0, 4.0])
def test_a_poll_just_before_the_end_waits_for_it_where_the_next_one_may_not_follow_soon(sent: float) -> None:
    clock = PollClock()
    for _ in range(20):
        clock.learn(20.0, 20.0)

    def polled() -> float:
        return clock.next(sent, sent, phase=1.7 if not sent else None, price=0.1, floor=clock.floor)

    early = polled()
    assert early < 20.0
    clock.floor = 15.0
    assert 20.0 < polled() < 24.0
    clock.floor = 0.5
    assert polled() == pytest.approx(early)
