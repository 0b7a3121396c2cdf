"""The law of goodput, by seed, for all who start runs; and what it should bring at least, in figures."""

import os

import pytest

from agentruns._api.shares import Shares

from .goodput import SHAPES, Case, breach

SCALE = float(os.environ.get("AGENTRUNS_SIMULATION", "1"))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_larger_limit_brings_no_less_than_a_smaller_one(shape: str) -> None:
    told = [breach(Case.of(seed), shape) for seed in range(max(round(4 * SCALE), 1))]

    assert not any(told), "\n".join(filter(None, told))


def _never(_: object) -> bool:
    return False


def _at_once(*_: object) -> float:
    return float("-inf")


@pytest.mark.parametrize("shape", SHAPES)
def test_the_law_notices_starts_that_leave_nothing_to_polls(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shares, "polls_owed", property(_never))
    assert any(breach(Case.of(seed), shape) for seed in range(4))
