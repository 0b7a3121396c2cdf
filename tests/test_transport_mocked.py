"""What the client makes of an answer: the server says this once, and what follows."""

from collections.abc import Iterator

import aiohttp
import pytest
from aioresponses import CallbackResult

from agentruns import (
    APIError,
    AuthenticationError,
    Client,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
    QuotaError,
    RateLimitedError,
    Retry,
    RunRef,
    RunStatus,
    ServerError,
    TransportError,
    connect,
    narrative,
)
from agentruns._api.retry import Backoff
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request, Response
from tests import scripted_wire
from tests.aioresponses_fix import Mocked, MockResponse

pytestmark = pytest.mark.asyncio

BASE = "https://api.narrative.test"
RUN_URL = f"{BASE}/agents/runs/{scripted_wire.RUN}"
CONVERSATION_URL = f"{BASE}/agents/conversations/{scripted_wire.CONVERSATION}"
START_URL = f"{CONVERSATION_URL}/runs"
ONE_SHOT_URL = f"{BASE}/one-shot"
QUICK = Retry(attempts=3, backoff=Backoff(initial=0.001, jitter=0.0))


def client() -> Client:
    return connect(narrative, token="narrative-token-1", base_url=BASE, retry=QUICK)


def one_shot() -> Flow[Response]:
    return (yield Request("POST", "/one-shot", json={"n": 1}))


@pytest.fixture
def server() -> Iterator[Mocked]:
    mocked = Mocked()
    with mocked:
        yield mocked


def count(server: Mocked) -> int:
    return sum(len(calls) for calls in server.requests.values())


async def test_a_run_is_read(server: Mocked) -> None:
    server.get(RUN_URL, body=scripted_wire.run("running").body)
    async with client() as opened:
        run = await opened.fetch(RunRef(scripted_wire.RUN))

    assert (run.id, run.status) == (scripted_wire.RUN, RunStatus.RUNNING)


async def test_a_start_carries_the_version_that_was_read(server: Mocked) -> None:
    server.get(CONVERSATION_URL, body=scripted_wire.conversation(7).body)
    server.post(START_URL, body=scripted_wire.run("pending").body, status=201)
    async with client() as opened:
        run = await opened.start(narrative.UserMessage(scripted_wire.CONVERSATION, "Handle it."))

    assert run.status is RunStatus.PENDING
    sent = [call.kwargs["data"] for (method, _), calls in server.requests.items() if method == "POST" for call in calls]
    assert len(sent) == 1
    assert b'"expected_version":7' in sent[0]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (402, QuotaError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (409, ConflictError),
        (418, APIError),
        (422, InvalidRequestError),
    ],
)
async def test_a_refusal_is_told_at_once_by_its_kind_and_in_the_vendors_words(
    server: Mocked, status: int, kind: type[APIError]
) -> None:
    server.get(RUN_URL, status=status, body=scripted_wire.problem(status, "not-this-way", "It cannot be done.").body)
    async with client() as opened:
        with pytest.raises(APIError, match=f"answered {status}: .*It cannot be done") as caught:
            await opened.fetch(RunRef(scripted_wire.RUN))

    assert type(caught.value) is kind
    assert count(server) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_trouble_that_may_pass_is_waited_out(server: Mocked, status: int) -> None:
    server.get(RUN_URL, status=status, body=b"<html>busy</html>")
    server.get(RUN_URL, body=scripted_wire.run("completed").body)
    async with client() as opened:
        run = await opened.fetch(RunRef(scripted_wire.RUN))

    assert run.status is RunStatus.COMPLETED
    assert count(server) == 2


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimitedError), (503, ServerError)])
async def test_a_wish_for_more_patience_than_we_have_is_told_at_once(
    server: Mocked, status: int, kind: type[APIError]
) -> None:
    server.get(RUN_URL, status=status, headers={"Retry-After": "61"})
    async with client() as opened:
        with pytest.raises(kind, match="retry after 61 s") as caught:
            await opened.fetch(RunRef(scripted_wire.RUN))

    assert caught.value.retry_after == 61.0
    assert count(server) == 1


@pytest.mark.parametrize("status", [408, 500, 503])
async def test_a_post_that_may_have_been_done_is_not_repeated(server: Mocked, status: int) -> None:
    server.post(ONE_SHOT_URL, status=status, repeat=True)
    async with client() as opened:
        with pytest.raises(OutcomeUnknownError, match="POST /one-shot is unknown"):
            await opened.perform(one_shot())

    assert count(server) == 1


async def test_a_post_that_was_turned_away_is_repeated(server: Mocked) -> None:
    server.post(ONE_SHOT_URL, status=429)
    server.post(ONE_SHOT_URL, body=b"{}")
    async with client() as opened:
        assert (await opened.perform(one_shot())).status == 200

    assert count(server) == 2


async def test_a_broken_connection_is_tried_again_for_a_get_and_not_for_a_post(server: Mocked) -> None:
    server.get(RUN_URL, exception=aiohttp.ServerDisconnectedError())
    server.get(RUN_URL, body=scripted_wire.run("running").body)
    server.post(ONE_SHOT_URL, exception=aiohttp.ServerDisconnectedError())
    async with client() as opened:
        assert (await opened.fetch(RunRef(scripted_wire.RUN))).status is RunStatus.RUNNING
        with pytest.raises(OutcomeUnknownError, match="Server disconnected"):
            await opened.perform(one_shot())

    assert count(server) == 3


async def test_an_error_without_a_text_is_called_by_its_name(server: Mocked) -> None:
    server.get(RUN_URL, exception=aiohttp.ClientPayloadError(), repeat=True)
    async with client() as opened:
        with pytest.raises(TransportError, match="ClientPayloadError"):
            await opened.fetch(RunRef(scripted_wire.RUN))


async def test_a_timeout_is_told_in_seconds(server: Mocked) -> None:
    server.get(RUN_URL, timeout=True, repeat=True)
    async with client() as opened:
        with pytest.raises(TransportError, match="no whole answer within 30 s"):
            await opened.fetch(RunRef(scripted_wire.RUN))

    assert count(server) == 3


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"run"', b'{"id": 7}'])
async def test_an_answer_of_another_shape_is_told_with_where_it_differs(server: Mocked, body: bytes) -> None:
    server.get(RUN_URL, body=body)
    async with client() as opened:
        with pytest.raises(ProtocolError, match=r"@ \$"):
            await opened.fetch(RunRef(scripted_wire.RUN))

    assert count(server) == 1


async def test_a_redirect_is_not_followed_and_says_where_it_would_lead(server: Mocked) -> None:
    server.get(RUN_URL, status=302, headers={"Location": "https://login.test/"})
    async with client() as opened:
        with pytest.raises(ProtocolError, match=r"a redirect to 'https://login\.test/'"):
            await opened.fetch(RunRef(scripted_wire.RUN))

    assert count(server) == 1


async def test_a_request_has_the_token_and_neither_follows_nor_raises_by_itself(server: Mocked) -> None:
    noted: list[object] = []

    def note(_: object, **kwargs: object) -> CallbackResult:
        noted.append(kwargs)
        return CallbackResult(body=scripted_wire.run("running").body, response_class=MockResponse)

    server.get(RUN_URL, callback=note)
    async with client() as opened:
        await opened.fetch(RunRef(scripted_wire.RUN))

    (kwargs,) = noted
    assert isinstance(kwargs, dict)
    assert kwargs["headers"]["Authorization"] == "Bearer narrative-token-1"
    assert kwargs["allow_redirects"] is False
    assert kwargs.get("raise_for_status", False) is False  # which is what the session was made with
    assert type(kwargs["headers"]["Authorization"]) is str  # so that tools which record requests can write it down
