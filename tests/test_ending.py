"""How a stream ends: the first closing stands, and what has failed may still be closed."""

import pytest

from agentruns._following.ending import Closed, Ended, Failed, ended

FAILED = Failed(ZeroDivisionError("a bug"))


@pytest.mark.parametrize(
    ("before", "after"), [(None, Closed()), (None, Closed("why")), (None, FAILED), (FAILED, Closed())]
)
def test_a_stream_ends_as_the_table_says(before: Ended | None, after: Ended) -> None:
    assert ended(before, after) is after


@pytest.mark.parametrize(
    ("before", "after"), [(Closed(), Closed("again")), (Closed("why"), FAILED), (Closed(), FAILED), (FAILED, FAILED)]
)
def test_no_other_end_follows_one(before: Ended, after: Ended) -> None:
    with pytest.raises(RuntimeError, match="cannot become"):
        ended(before, after)
