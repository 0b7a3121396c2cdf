"""exchange(): a flow driven without a loop lets in what a client would."""

from typing import Any

import pytest

from agentruns import NotFoundError, OutcomeUnknownError, RunRef, TransportError
from agentruns.dialects import ClaimRun, Flow, Lock, Ownership, Request, Sleep, checkpoint, claim_run, wire
from agentruns.testing import Answer, exchange
from tests.conformance import acme

GET, POST = Request("GET", "/things"), Request("POST", "/things", json={"n": 1})


def asking(*requests: Request) -> Flow[list[Any]]:
    found: list[Any] = []
    for request in requests:
        response = yield request
        found += [wire.read_object(response)]
    return found


def test_each_request_gets_the_next_answer() -> None:
    done = exchange(asking(GET, POST), Answer({"a": 1}), lambda request: Answer({"asked": request.line}, 201))

    assert done.result == [{"a": 1}, {"asked": "POST /things"}]
    assert done.requests == done.commands == (GET, POST)


@pytest.mark.parametrize(
    ("request_", "answer", "kind"),
    [
        (GET, Answer({"why": "gone"}, 404), NotFoundError),
        (GET, Answer(b'{"cut', 200), TransportError),
        (POST, Answer({}, 502), OutcomeUnknownError),
        (POST, TransportError(POST, "reset", sent=True), OutcomeUnknownError),
    ],
)
def test_what_is_no_good_answer_is_thrown_as_the_caller_would_get_it(
    request_: Request, answer: Any, kind: type[Exception]
) -> None:
    def flow() -> Flow[str]:
        try:
            yield request_
        except kind as error:
            return str(error)
        return ""

    assert exchange(flow(), answer).result
    with pytest.raises(kind):
        exchange(asking(request_), answer)


def test_the_error_body_is_read_by_the_problem_of_the_dialect() -> None:
    with pytest.raises(NotFoundError, match="no such job"):
        exchange(acme.fetch(RunRef("j1"), {}), Answer({"why": "no such job"}, 404), problem=acme.problem)


def test_locks_sleeps_and_checkpoints_are_granted() -> None:
    def flow() -> Flow[tuple[bool, Ownership]]:
        yield Lock("a")
        yield Sleep(3600.0)
        kept = yield from checkpoint({"n": 1})
        return kept, (yield from claim_run("r1"))

    done = exchange(flow())

    assert done.result == (True, Ownership.MINE)
    assert done.requests == ()
    assert done.commands[0] == Lock("a")
    assert isinstance(done.commands[-1], ClaimRun)


def test_another_number_of_requests_than_answers_is_told() -> None:
    with pytest.raises(AssertionError, match="asks for GET /things, and no answer is left"):
        exchange(asking(GET))
    with pytest.raises(AssertionError, match="ended before 1 of the answers"):
        exchange(asking(), Answer({}))
