"""What a flow may ask for besides a request, and what it would send first."""

import pytest

from agentruns._values.commands import Checkpoint, Flow, Lock, Ownership, Sleep, first_request
from agentruns._values.exchange import Request


def test_the_first_request_of_a_flow_is_known_without_sending_it() -> None:
    ended: list[str] = []

    def flow() -> Flow[None]:
        try:
            assert (yield Lock("key")).status == Ownership.MINE
            assert (yield Checkpoint({})).status == Ownership.MINE
            yield Request("POST", "/runs")
        finally:
            ended.append("closed")

    assert first_request(flow()) == Request("POST", "/runs")
    assert ended == ["closed"]


def test_a_flow_that_makes_no_request_has_no_first_one() -> None:
    def flow() -> Flow[None]:
        yield Sleep(1.0)

    with pytest.raises(ValueError, match="makes no request"):
        first_request(flow())
