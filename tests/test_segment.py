"""A segment of a run: what its clock is asked and learns, and that it ends once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns._polling.clock import PollClock
from agentruns._polling.segment import PRICE, Segment

times = st.floats(0, 1e5)
phases = st.floats(0.75, 1.75, exclude_max=True)


def segment(began: float = 0.0, phase: float = 1.0, *, learns: bool = True) -> Segment:
    return Segment(began, phase, later=False, learns=learns, is_whole=True)


@given(times, phases)
def test_the_first_poll_comes_at_the_phase_of_the_run(began: float, phase: float) -> None:
    clock = PollClock()
    expected = clock.next(0.0, 0.0, phase=phase, price=PRICE)

    assert segment(began, phase).next(clock, began, 0.0) == began + expected


@given(times, phases, st.floats(0, 1e3), st.floats(0, 10))
def test_a_gap_counts_from_when_the_last_poll_left(began: float, phase: float, after: float, way: float) -> None:
    clock, made = PollClock(), segment(began, phase)
    made.sent = began + after
    expected = clock.next(made.sent - began, made.sent + way - began, phase=None, price=PRICE)

    assert made.next(clock, made.sent + way, 0.0) == began + expected


@given(phases, st.floats(0.1, 100))
def test_a_wish_to_be_left_alone_is_kept_and_drawn_out_by_a_tenth_at_most(phase: float, floor: float) -> None:
    made = segment(phase=phase)
    made.sent = 1.0

    due = made.next(PollClock(), 2.0, floor)
    assert due >= 2.0 + floor
    assert due <= max(2.0 + 1.1 * floor, made.next(PollClock(), 2.0, 0.0)) + 1e-9


def test_the_pressure_grows_with_the_time_since_the_last_poll() -> None:
    clock, made = PollClock(), segment()
    never = made.pressure(clock, 10.0)
    made.sent = 9.0

    assert 0.0 < made.pressure(clock, 10.0) < made.pressure(clock, 20.0)
    assert never > made.pressure(clock, 10.0)


def test_its_clock_counts_it_until_it_is_closed_or_goes_by_another() -> None:
    clock, other, made = PollClock(), PollClock(), segment()
    made.use(clock)
    assert clock.active == 1
    made.leave_clock()
    made.leave_clock()
    assert clock.active == 0
    made.use(other)
    made.close(5.0)

    assert (other.active, other.observations) == (0, 1)


def test_it_is_closed_once() -> None:
    made = segment(learns=False)
    made.close(None)

    assert not made.is_open
    with pytest.raises(RuntimeError, match="closed once"):
        made.close(None)


def test_one_whose_begin_is_not_known_teaches_nothing() -> None:
    clock, made = PollClock(), segment(learns=False)
    made.use(clock)
    made.close(5.0)

    assert clock.observations == 0


def test_what_is_known_of_a_run_is_as_old_as_its_last_read() -> None:
    made = segment(began=3.0)
    assert made.read_at == 3.0
    made.sent = 8.0
    made.saw_running(8.0)
    made.set_age(10.0, 9.0)
    made.set_age(10.0, 2.0)

    assert (made.read_at, made.running_at, made.began) == (8.0, 5.0, 1.0)
