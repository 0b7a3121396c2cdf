"""The law of goodput over emulated vendors in virtual time: a larger limit never brings much less than a smaller."""

import pytest

from agentruns import RateLimit
from benchmarks.goodput import LEAST, VENDORS, brought, least_part


@pytest.mark.parametrize("budget", [RateLimit(5, 1.0), RateLimit(90, 60.0)], ids=["5 a second", "90 a minute"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_no_limit_brings_less_than_the_best_one_by_more_than_a_fifth(vendor: str, budget: RateLimit) -> None:
    """However many requests a row takes, and however long the window is; and few rows are begun in vain."""
    found = [brought(vendor, budget, timeout=30.0, limit=limit, seconds=90.0) for limit in (8, 256)]
    assert least_part(found) >= LEAST
    assert found[-1].lost <= 0.2 * found[-1].done
