"""Backoff and Retry: laws of the waits, and what cannot be asked for."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentruns._api.retry import Backoff, Retry, Schedule
from agentruns.errors import ConfigurationError

seconds = st.floats(1e-3, 1e4)
counts = st.integers(0, 10**9)
noises = st.floats(0, 1, exclude_max=True)
backoffs = st.builds(
    Backoff,
    initial=seconds,
    factor=st.one_of(st.just(1.0), st.floats(1.01, 100)),
    maximum=seconds,
    jitter=st.floats(0, 1),
)


@given(backoffs, counts, seconds, noises)
def test_the_vendors_wish_is_never_shortened(backoff: Backoff, count: int, at_least: float, noise: float) -> None:
    assert backoff.delay(count, at_least=at_least, noise=noise) >= at_least


@given(backoffs, counts, st.one_of(st.just(0.0), seconds), noises)
def test_no_wait_exceeds_the_maximum_or_the_wish_by_more_than_the_jitter(
    backoff: Backoff, count: int, at_least: float, noise: float
) -> None:
    bound = max(backoff.maximum, at_least) * (1 + backoff.jitter)

    assert 0 <= backoff.delay(count, at_least=at_least, noise=noise) <= bound


@given(backoffs, counts, counts, st.one_of(st.just(0.0), seconds), noises)
def test_waits_never_shrink_as_tries_go_by(
    backoff: Backoff, one: int, other: int, at_least: float, noise: float
) -> None:
    fewer, more = sorted((one, other))

    assert backoff.delay(fewer, at_least=at_least, noise=noise) <= backoff.delay(more, at_least=at_least, noise=noise)


@given(backoffs, counts, noises, noises)
def test_more_noise_never_means_less_wait(backoff: Backoff, count: int, one: float, other: float) -> None:
    less, more = sorted((one, other))

    assert backoff.delay(count, noise=less) <= backoff.delay(count, noise=more)


@given(st.floats(0.01, 1), st.floats(100, 1000), st.floats(0, 0.45), st.floats(0.55, 1, exclude_max=True))
def test_clients_that_were_told_the_same_wait_come_back_apart(
    jitter: float, at_least: float, one: float, other: float
) -> None:
    backoff = Backoff(jitter=jitter)

    assert backoff.delay(0, at_least=at_least, noise=one) < backoff.delay(0, at_least=at_least, noise=other)


@given(st.integers(-(10**9), 0))
def test_the_first_wait_is_the_initial_one(count: int) -> None:
    assert Backoff(initial=0.7, jitter=0.5).delay(count) == 0.7


@pytest.mark.parametrize("count", [1000, 10**6, 10**400])
def test_huge_counts_wait_the_maximum(count: int) -> None:
    assert Backoff(jitter=0.0).delay(count) == 10.0
    assert Backoff(factor=7, initial=3, maximum=20, jitter=0).delay(min(count, 10**4)) == 20


def test_waits_grow_by_the_factor_up_to_the_maximum() -> None:
    backoff = Backoff(initial=1.0, factor=2.0, maximum=5.0, jitter=0.0)

    assert [backoff.delay(count) for count in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_jitter_spreads_around_the_wait_and_only_above_the_vendors_wish() -> None:
    backoff = Backoff(initial=10.0, factor=1.0, jitter=0.2)

    assert [backoff.delay(0, noise=noise) for noise in (0.0, 0.5)] == [8.0, 10.0]
    assert backoff.delay(0, noise=math.nextafter(1, 0)) == pytest.approx(12.0)
    assert backoff.delay(0, at_least=100.0, noise=0.0) == 100.0
    assert backoff.delay(0, at_least=100.0, noise=0.5) == pytest.approx(110.0)


def test_a_backoff_is_a_schedule() -> None:
    schedule: Schedule = Backoff()

    assert schedule.delay(0) == 0.5


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *((Backoff, name, value) for name in ("initial", "factor", "maximum") for value in (0, -1, "1", True, None)),
        *(
            (Backoff, name, value)
            for name in ("initial", "factor", "maximum")
            for value in (math.nan, math.inf, 10**400)
        ),
        *((Backoff, "jitter", value) for value in (-0.1, math.nan, math.inf, "0")),
        *((Retry, "attempts", value) for value in (0, -1, 1.5, True, "4", math.inf)),
        *((Retry, "conflicts", value) for value in (-1, 0.5, True, None)),
        *((Retry, "longest", value) for value in (-1, math.nan, math.inf, "60")),
    ],
)
def test_a_number_that_cannot_work_is_refused_by_the_name_of_its_field(kind: type[Any], name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{kind.__name__}\.{name} is "):
        kind(**{name: value})


def test_a_retry_may_be_a_single_attempt_that_waits_for_nothing() -> None:
    retry = Retry(attempts=1, conflicts=0, longest=0)

    assert (retry.attempts, retry.conflicts, retry.longest) == (1, 0, 0)
    assert retry.backoff == Backoff()


@pytest.mark.parametrize("value", [3, "x", Backoff, None])
def test_what_does_not_say_how_long_to_wait_is_no_schedule(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Retry.backoff is .*; it must be a Backoff"):
        Retry(backoff=value)
