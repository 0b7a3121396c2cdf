"""What the poller makes out of a run beside its state: how old it is and how long it took, by the vendor's clock."""

import json
from typing import Any

import pytest

from agentruns import Run, narrative
from agentruns._polling.reader import Reader
from agentruns._values.exchange import Request, Response
from agentruns.dialects.vendor import Vendor
from tests.scripted_wire import run_body

NO_API: Any = None
READER = Reader(Vendor.of(narrative), NO_API)
BEGAN, ENDED = "2026-06-02T08:15:09", "2026-06-02T08:15:21.5"


def read(status: str, began: str, ended: str | None = None) -> Run:
    body = json.dumps(run_body(status, started_at=began, completed_at=ended)).encode()
    return narrative.parse_run(Response(200, {}, body, Request("GET", "/")))


@pytest.mark.parametrize("began", [BEGAN, f"{BEGAN}Z", f"{BEGAN}z", f"{BEGAN}+00:00"])
@pytest.mark.parametrize("ended", [ENDED, f"{ENDED}Z"])
def test_a_time_without_an_offset_is_utc_beside_one_with_it(began: str, ended: str) -> None:
    assert READER.duration(read("completed", began, ended)) == 12.5
    assert READER.age(read("running", began), "Tue, 02 Jun 2026 08:15:29 GMT") == 20.0


def test_a_run_that_goes_on_or_does_not_say_when_it_ended_has_taken_no_time_that_is_known() -> None:
    assert READER.duration(read("running", BEGAN)) is None
    assert READER.duration(read("completed", BEGAN)) is None
