"""perform(): what is sent again, when, and what a flow is told."""

import asyncio
import gc
from collections.abc import Callable, Generator
from typing import Any
from weakref import WeakValueDictionary

import pytest

from agentruns import (
    APIError,
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
    RateLimitedError,
    Retry,
    ServerError,
    TransportError,
    narrative,
)
from agentruns._api.flow import Locks, perform
from agentruns._api.retry import Backoff
from agentruns._values.commands import Flow, Lock, Sleep, T
from agentruns._values.exchange import Request, Response
from agentruns.dialects import wire
from tests.scripted_wire import STEADY, Answer, Lost, Scripted, Wire, problem

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

GET = Request("GET", "/thing")
POST = Request("POST", "/thing", json={"n": 1})
KEYED = Request("POST", "/thing", json={"key": "k"}, idempotent=True)
FINE = Answer({"fine": True})
THREE = Retry(attempts=3, backoff=STEADY)


def said(*answers: Scripted) -> Wire:
    return Wire({"GET /thing": answers, "POST /thing": answers})


def asking(request: Request) -> Flow[Any]:
    return wire.read_object((yield request))


async def performed(flow: Flow[T], over: Wire, retry: Retry = THREE) -> T:
    return await perform(flow, over, narrative.problem, retry)


def times(over: Wire) -> list[float]:
    return [when for when, _ in over.asked]


def busy(status: int = 503, **headers: str) -> Answer:
    return problem(status, "busy", "Too busy.", headers={name.replace("_", "-"): v for name, v in headers.items()})


# One request ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_an_answer_of_2xx_goes_into_the_flow(status: int) -> None:
    assert await performed(asking(GET), said(Answer({"fine": True}, status))) == {"fine": True}


@pytest.mark.parametrize(
    "trouble", [Lost(), Lost(sent=False), busy(408), busy(429), busy(500), busy(503), Answer(b'{"cut": ')]
)
@pytest.mark.parametrize("request_", [GET, KEYED], ids=["get", "keyed post"])
async def test_what_may_be_repeated_is_repeated_with_the_same_body(trouble: Scripted, request_: Request) -> None:
    over = said(trouble, trouble, FINE)

    assert await performed(asking(request_), over) == {"fine": True}
    assert over.asked == [(0.0, request_), (1.0, request_), (2.0, request_)]


@pytest.mark.parametrize("trouble", [Lost(sent=False), busy(429)])
async def test_a_post_that_was_certainly_not_acted_on_is_repeated(trouble: Scripted) -> None:
    over = said(trouble, trouble, FINE)

    assert await performed(asking(POST), over) == {"fine": True}
    assert times(over) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("trouble", [Lost(), Lost(final=True), busy(408), busy(500), busy(503), Answer(b'{"cut": ')])
async def test_a_post_that_may_have_been_acted_on_is_not_repeated(trouble: Scripted) -> None:
    over = said(trouble)
    with pytest.raises(OutcomeUnknownError, match="may do it twice") as caught:
        await performed(asking(POST), over)

    assert len(over.asked) == 1
    assert caught.value.request == POST
    assert isinstance(caught.value.__cause__, TransportError | ServerError | APIError)
    assert str(caught.value.__cause__) in str(caught.value)


async def test_a_post_that_becomes_unclear_after_a_repetition_is_not_repeated_further() -> None:
    over = said(busy(429), Lost(sent=False), Lost())
    with pytest.raises(OutcomeUnknownError):
        await performed(asking(POST), over, Retry(attempts=9, backoff=STEADY))

    assert len(over.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 410, 422])
@pytest.mark.parametrize("request_", [GET, POST, KEYED], ids=["get", "post", "keyed post"])
async def test_a_clear_no_is_not_asked_for_twice(status: int, request_: Request) -> None:
    over = said(problem(status, "no", "No."))
    with pytest.raises(APIError, match=f"answered {status}"):
        await performed(asking(request_), over)

    assert len(over.asked) == 1


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("request_", [GET, KEYED], ids=["get", "keyed post"])
async def test_what_trying_again_cannot_help_is_tried_once(request_: Request, sent: bool) -> None:
    over = said(Lost("certificate refused", sent=sent, final=True))
    with pytest.raises(TransportError, match="certificate refused"):
        await performed(asking(request_), over)

    assert len(over.asked) == 1


@pytest.mark.parametrize(
    ("request_", "trouble", "kind"),
    [
        (GET, Lost(), TransportError),
        (GET, busy(503), ServerError),
        (GET, busy(429), RateLimitedError),
        (GET, Answer(b"<html>"), TransportError),
        (KEYED, Lost(), TransportError),
        (KEYED, busy(500), ServerError),
        (POST, Lost(sent=False), TransportError),
        (POST, busy(429), RateLimitedError),
    ],
)
async def test_the_last_error_is_told_when_the_attempts_are_used_up(
    request_: Request, trouble: Scripted, kind: type[Exception]
) -> None:
    over = said(trouble)
    with pytest.raises(kind):
        await performed(asking(request_), over)

    assert times(over) == [0.0, 1.0, 2.0]


async def test_one_attempt_means_one_request() -> None:
    over = said(Lost())
    with pytest.raises(TransportError):
        await performed(asking(GET), over, Retry(attempts=1))

    assert times(over) == [0.0]


async def test_waits_grow_as_the_backoff_says_and_each_request_starts_over() -> None:
    def twice() -> Flow[None]:
        yield GET
        yield GET

    over = said(Lost(), Lost(), Lost(), FINE, Lost(), FINE)
    backoff = Backoff(initial=1.0, factor=2.0, jitter=0.0)
    await performed(twice(), over, Retry(attempts=4, backoff=backoff))

    assert times(over) == [0.0, 1.0, 3.0, 7.0, 7.0, 8.0]


async def test_jitter_spreads_the_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.75)
    over = said(Lost(), FINE)
    await performed(asking(GET), over, Retry(backoff=Backoff(initial=1.0, jitter=0.2)))

    assert times(over) == [0.0, 1.1]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize("request_", [GET, POST], ids=["get", "post"])
async def test_a_redirect_is_not_what_the_vendor_documents(status: int, request_: Request) -> None:
    over = said(Answer(b"", status, {"location": "https://elsewhere.test/"}))
    with pytest.raises(ProtocolError, match=r"a redirect to 'https://elsewhere.test/'.*Check the base URL"):
        await performed(asking(request_), over)

    assert len(over.asked) == 1


async def test_a_body_that_is_not_whole_json_is_told_with_how_it_begins() -> None:
    with pytest.raises(TransportError, match=r"not whole JSON .*; it begins '<html>Sign in"):
        await performed(asking(GET), said(Answer(b"<html>Sign in" + b" please" * 100)))


# Retry-After ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("7.5", 7.5),
        ("0", 1.0),
        ("0.2", 1.0),
        ("60", 60.0),
        ("", 1.0),
        ("soon", 1.0),
        ("-5", 1.0),
        ("nan", 1.0),
        ("inf", 1.0),
        ("7 s", 1.0),
        ("Tue, 02 Jun 2026 08:15:29 GMT", 20.0),
        ("Tue, 02 Jun 2026 10:15:29 +0200", 20.0),
        ("Tue, 02 Jun 2026 08:15:29 -0000", 20.0),
        ("Tuesday, 02-Jun-26 08:15:29 GMT", 20.0),
        ("Tue, 02 Jun 2026 08:15:00 GMT", 1.0),
        ("Tue, 99 Jun 2026 08:15:29 GMT", 1.0),
        ("Tue, 02 Jun 2026 08:15:29 +99999999999999999999", 1.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_a_floor_where_it_says_something(header: str, wait: float, status: int) -> None:
    over = said(busy(status, retry_after=header, date="Tue, 02 Jun 2026 08:15:09 GMT"), FINE)
    await performed(asking(GET), over)

    assert times(over) == [0.0, wait]


async def test_a_date_is_measured_by_our_clock_where_the_answer_has_none() -> None:
    over = said(busy(429, retry_after="Mon, 01 Jan 2001 00:00:00 GMT", date="yesterday"), FINE)
    await performed(asking(GET), over)

    assert times(over) == [0.0, 1.0]


async def test_jitter_never_goes_below_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    over = said(busy(429, retry_after="7"), FINE)
    await performed(asking(GET), over, Retry(backoff=Backoff(jitter=0.5)))

    assert times(over) == [0.0, 7.0]


@pytest.mark.parametrize("header", ["61", "1e9", "Tue, 02 Jun 2037 08:15:29 GMT"])
@pytest.mark.parametrize("request_", [GET, POST, KEYED], ids=["get", "post", "keyed post"])
async def test_a_floor_above_our_patience_is_told_at_once(header: str, request_: Request) -> None:
    over = said(busy(429, retry_after=header))
    with pytest.raises(RateLimitedError) as caught:
        await performed(asking(request_), over)

    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 60
    assert len(over.asked) == 1


async def test_more_patience_can_be_had() -> None:
    over = said(busy(503, retry_after="600"), FINE)
    await performed(asking(GET), over, Retry(backoff=STEADY, longest=600.0))

    assert times(over) == [0.0, 600.0]


# Flows ----------------------------------------------------------------------------------------------------------------


async def test_a_flow_that_asks_for_nothing_returns_its_value() -> None:
    def nothing() -> Flow[str]:
        yield from ()
        return "done"

    assert await performed(nothing(), Wire({})) == "done"


async def test_a_pause_takes_its_time_and_is_answered() -> None:
    def patient() -> Flow[int]:
        yield GET
        answer = yield Sleep(12.5)
        yield GET
        return answer.status

    over = said(FINE)

    assert await performed(patient(), over) == 204
    assert times(over) == [0.0, 12.5]


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (problem(404, "not-found", "None."), NotFoundError),
        (problem(422, "invalid", "No."), InvalidRequestError),
        (Lost(), OutcomeUnknownError),
        (Lost(sent=False), TransportError),
        (Answer(b"", 302), ProtocolError),
    ],
)
async def test_a_flow_that_knows_better_can_catch_what_went_wrong_and_go_on(
    trouble: Scripted, kind: type[Exception]
) -> None:
    def cunning() -> Flow[Any]:
        try:
            yield POST
        except kind:
            yield Sleep(1.0)
            return wire.read_object((yield GET))

    over = Wire({"POST /thing": trouble, "GET /thing": FINE})

    assert await performed(cunning(), over) == {"fine": True}


async def test_a_flow_can_end_with_a_value_where_a_request_failed() -> None:
    def modest() -> Flow[str]:
        try:
            yield GET
        except NotFoundError:
            return "none"
        return "some"

    assert await performed(modest(), said(problem(404, "not-found", "None."))) == "none"


async def test_what_a_flow_raises_instead_is_what_the_caller_gets() -> None:
    def strict() -> Flow[None]:
        try:
            yield GET
        except NotFoundError as error:
            raise ConfigurationError("there is no such thing") from error

    with pytest.raises(ConfigurationError, match="no such thing"):
        await performed(strict(), said(problem(404, "not-found", "None.")))


async def test_what_a_flow_raises_by_itself_is_what_the_caller_gets() -> None:
    over = said(Answer(["a list"]))
    with pytest.raises(ProtocolError, match="no object"):
        await performed(asking(GET), over)

    assert len(over.asked) == 1


def watched(note: Callable[[str], None]) -> Flow[None]:
    try:
        yield GET
        yield Sleep(100.0)
    finally:
        note("cleaned up")


@pytest.mark.parametrize("after", [0.5, 2.0], ids=["request", "pause"])
async def test_a_flow_is_closed_when_its_caller_is_cancelled(after: float) -> None:
    notes: list[str] = []
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(performed(watched(notes.append), said(Answer({}, after=1.0))), after)

    assert notes == ["cleaned up"]


async def test_a_cancelled_wait_between_attempts_ends_at_once() -> None:
    over = said(busy(429, retry_after="50"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(performed(asking(GET), over), 3.0)

    assert asyncio.get_running_loop().time() == 3.0
    assert len(over.asked) == 1


async def test_an_error_of_the_sender_that_is_not_ours_reaches_the_flow_too() -> None:
    async def broken(request: Request) -> Response:
        raise ZeroDivisionError

    def curious() -> Generator[Request, Response, str]:
        try:
            yield GET
        except ZeroDivisionError:
            return "seen"
        return "unseen"

    assert await perform(curious(), broken, narrative.problem, THREE) == "seen"


# What flows hold ------------------------------------------------------------------------------------------------------


def holding(key: str) -> Flow[None]:
    yield Lock(key)
    yield GET
    yield Sleep(1.0)


async def all_at_once(over: Wire, locks: Locks | None, *keys: str) -> list[Any]:
    flows = (perform(holding(key), over, narrative.problem, THREE, locks) for key in keys)
    return await asyncio.gather(*flows, return_exceptions=True)


async def test_flows_that_hold_the_same_take_turns_and_the_others_do_not_wait() -> None:
    locks: Locks = WeakValueDictionary()
    over = said(FINE)
    await all_at_once(over, locks, "a", "a", "b", "a")

    assert times(over) == [0.0, 0.0, 1.0, 2.0]
    gc.collect()
    assert not locks


async def test_flows_of_no_client_hold_nothing_against_each_other() -> None:
    over = said(FINE)
    await all_at_once(over, None, "a", "a")

    assert times(over) == [0.0, 0.0]


async def test_a_flow_that_fails_lets_go() -> None:
    over = said(problem(404, "not-found", "None."), FINE)
    ends = await all_at_once(over, {}, "a", "a")

    assert isinstance(ends[0], NotFoundError)
    assert ends[1] is None


@pytest.mark.parametrize("holder", [0, 1], ids=["the one that holds", "the one that waits"])
async def test_a_flow_that_is_cancelled_lets_go(holder: int) -> None:
    locks: Locks = {}
    over = said(FINE)
    tasks = [asyncio.ensure_future(perform(holding("a"), over, narrative.problem, THREE, locks)) for _ in range(3)]
    await asyncio.sleep(0.5)
    tasks[holder].cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(end) for end in ends].count(asyncio.CancelledError) == 1
    assert len(over.asked) == 3 - holder
    assert not any(lock.locked() for lock in locks.values())


async def test_a_flow_that_breaks_while_it_is_closed_lets_go() -> None:
    def stubborn() -> Flow[None]:
        yield Lock("a")
        try:
            yield Sleep(10.0)
        finally:
            raise ZeroDivisionError

    locks: Locks = {}
    task = asyncio.ensure_future(perform(stubborn(), said(FINE), narrative.problem, THREE, locks))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(ZeroDivisionError):
        await task

    assert not locks["a"].locked()


# Refusals for lack of room --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_request_that_must_not_follow_a_429_is_not_repeated_after_one(idempotent: bool) -> None:
    over = said(busy(429))
    with pytest.raises(RateLimitedError):
        await performed(asking(Request("POST", "/thing", idempotent=idempotent, again_after_429=False)), over)

    assert len(over.asked) == 1
