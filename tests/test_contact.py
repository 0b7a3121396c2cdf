"""Contact with the vendor: which errors are borne with, and for how long."""

import math

import pytest

from agentruns import APIError, NotFoundError, RateLimitedError, ServerError, TransportError
from agentruns._polling.contact import Contact, Failure
from agentruns._values.exchange import Problem, Request, Response
from agentruns.errors import api_error
from tests.test_agenda import Listens

REQUEST = Request("GET", "/runs/r")


def answered(status: int) -> APIError:
    return api_error(Response(status, {}, b"{}", REQUEST), Problem("no"), None)


@pytest.mark.parametrize(
    ("error", "kind", "failure"),
    [
        (TransportError(REQUEST, "connection reset"), TransportError, Failure.LOST),
        (answered(502), ServerError, Failure.LOST),
        (answered(408), APIError, Failure.LOST),
        (answered(429), RateLimitedError, Failure.LIMITED),
        (answered(404), NotFoundError, Failure.FINAL),
        (answered(400), APIError, Failure.FINAL),
        (ValueError("odd"), ValueError, Failure.FINAL),
    ],
)
def test_what_may_pass_is_borne_with_and_all_else_is_told(
    error: Exception, kind: type[Exception], failure: Failure
) -> None:
    contact = Contact()

    assert isinstance(error, kind)
    assert contact.failed(error, 100.0) is failure
    assert (contact.lost_since == 100.0) == (failure is Failure.LOST)
    assert type(contact.error) is type(error)
    assert contact.error is not error, "one that is raised holds the frames that it went through"


def test_a_run_is_missing_only_once_its_start_must_be_visible() -> None:
    contact = Contact()
    contact.fresh_until = 10.0

    assert contact.failed(answered(404), 10.0) is Failure.LOST
    assert contact.failed(answered(404), 10.1) is Failure.FINAL


def test_patience_counts_from_the_loss_and_anew_from_when_a_listener_gave_up() -> None:
    contact, listener = Contact(), Listens()
    assert contact.patience_ends(listener) == math.inf
    assert not contact.patience_over(listener, 1e9)
    for now in (5.0, 30.0):
        contact.failed(answered(502), now)
    assert (contact.lost_since, contact.patience_ends(listener)) == (5.0, 65.0)
    assert (contact.patience_over(listener, 64.9), contact.patience_over(listener, 65.0)) == (False, True)
    listener.patient_since = 65.0

    assert contact.patience_ends(listener) == 125.0


def test_no_patience_helps_against_what_is_final() -> None:
    contact = Contact()
    contact.failed(TransportError(REQUEST, "no such host", final=True), 0.0)

    assert contact.patience_over(Listens(), 0.0)


def test_time_in_which_nobody_waited_is_no_lost_contact() -> None:
    contact = Contact()
    contact.excuse(50.0)
    assert contact.lost_since is None
    contact.failed(answered(502), 10.0)
    contact.excuse(50.0)

    assert contact.lost_since == 60.0


def test_a_run_may_be_read_early_once_it_was_answered_without_a_wish() -> None:
    contact = Contact()
    seen = [contact.may_poll_early]
    for act in (
        lambda: contact.answered(0.0),
        lambda: contact.answered(2.0),
        lambda: contact.answered(0.0),
        lambda: contact.failed(answered(429), 1.0),
        lambda: contact.answered(0.0),
    ):
        act()
        seen.append(contact.may_poll_early)

    assert seen == [False, True, False, True, False, True]
    assert contact.error is None
