"""The transport, against servers on real sockets."""

import asyncio
import copy
import errno
import gzip
import inspect
import json
import logging
import pickle
import ssl
import traceback
import tracemalloc
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp.client_reqrep import ConnectionKey

from agentruns import (
    AgentRunsError,
    ConfigurationError,
    OutcomeUnknownError,
    ProtocolError,
    Retry,
    TransportError,
    connect,
    narrative,
)
from agentruns._api.address import Address
from agentruns._api.flow import perform
from agentruns._api.retry import Backoff
from agentruns._api.transport import AiohttpTransport
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request, Response
from agentruns.dialects import wire
from tests import scripted_wire
from tests.raw_server import Act, Server, drip, free_port, hang_up, late, raw, reply, reset, silence

pytestmark = pytest.mark.asyncio

TOKEN = "sk-live/9f8e7d6c5b4a+32=="
GET = Request("GET", "/runs/1")
POST = Request("POST", "/runs", json={"text": "ü", "n": 1})
QUICK = Retry(attempts=3, backoff=Backoff(initial=0.001, jitter=0.0))
ONCE = Retry(attempts=1)


@asynccontextmanager
async def sending(server: Server | str, token: str = TOKEN, **options: Any) -> AsyncIterator[AiohttpTransport]:
    transport = AiohttpTransport(Address(server if isinstance(server, str) else server.url, token), **options)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


def asking(request: Request) -> Flow[Response]:
    return (yield request)


async def performed(request: Request, transport: AiohttpTransport, retry: Retry = QUICK) -> Response:
    return await perform(asking(request), transport, narrative.problem, retry)


async def failure(request: Request, server: Server | str, retry: Retry = ONCE, **options: Any) -> TransportError:
    async with sending(server, **options) as transport:
        with pytest.raises(TransportError) as caught:
            await performed(request, transport, retry)
    return caught.value


# What is sent ---------------------------------------------------------------------------------------------------------


async def test_a_get_carries_the_token_and_asks_for_plain_json() -> None:
    async with Server(reply()) as server, sending(server) as transport:
        await transport(Request("GET", "/runs/1", headers={"X-Beta": "2"}))

    (seen,) = server.seen
    assert seen.line == "GET /runs/1"
    assert seen.header("authorization") == f"Bearer {TOKEN}"
    assert seen.header("accept") == "application/json"
    assert seen.header("accept-encoding") == "identity"
    assert seen.header("x-beta") == "2"
    assert seen.header("content-type") is None
    assert seen.body == b""


@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
async def test_what_records_requests_is_given_plain_texts(borrowed: bool) -> None:
    recorded: list[Any] = []

    class Recorder(aiohttp.ClientRequest):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            recorded.extend(self.headers.items())

    async with Server(reply()) as server, aiohttp.ClientSession(request_class=Recorder) as session:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(aiohttp.ClientSession.__init__, "__kwdefaults__", session_defaults(Recorder))
            async with sending(server, session=session if borrowed else None) as transport:
                await transport(GET)

    assert ("Authorization", f"Bearer {TOKEN}") in recorded
    assert {type(value) for _, value in recorded} == {str}


def session_defaults(request_class: type[aiohttp.ClientRequest]) -> dict[str, Any]:
    return {**(aiohttp.ClientSession.__init__.__kwdefaults__ or {}), "request_class": request_class}


async def test_a_body_is_sent_as_json() -> None:
    async with Server(reply()) as server, sending(server) as transport:
        await transport(POST)

    assert server.seen[0].header("content-type") == "application/json"
    assert json.loads(server.seen[0].body) == {"text": "ü", "n": 1}


async def test_the_base_path_stays_before_the_path() -> None:
    async with Server(reply()) as server, sending(server.url + "/v1/eu") as transport:
        await transport(GET)

    assert server.lines == ["GET /v1/eu/runs/1"]


@pytest.mark.parametrize(
    ("part", "segment"),
    [
        ("../admin", "..%2Fadmin"),
        ("a/b", "a%2Fb"),
        ("a?b=c", "a%3Fb%3Dc"),
        ("a#b", "a%23b"),
        ("%2f", "%252f"),
        ("..%2f..", "..%252f.."),
        ("läuft 1", "l%C3%A4uft%201"),
        ("a\\b;c", "a%5Cb%3Bc"),
    ],
)
async def test_an_id_reaches_the_server_as_one_segment(part: str, segment: str) -> None:
    async with Server(reply()) as server, sending(server) as transport:
        await transport(Request("GET", wire.path("runs", part, "steps")))

    assert server.lines == [f"GET /runs/{segment}/steps"]


async def test_parameters_are_encoded_once() -> None:
    params = {"since": "a b+c&d=e/ü%20", "page": "2"}
    async with Server(reply()) as server, sending(server) as transport:
        await transport(Request("GET", "/runs", params=params))

    assert server.lines == ["GET /runs?since=a+b%2Bc%26d%3De%2F%C3%BC%2520&page=2"]


async def test_what_http_cannot_carry_is_refused_before_anything_is_sent() -> None:
    async with Server(reply()) as server, sending(server) as transport:
        with pytest.raises(ConfigurationError, match="GET /runs cannot be sent"):
            await transport(Request("GET", "/runs", params={"since": "\ud800"}))

    assert server.seen == []


async def test_cookies_are_never_sent_back() -> None:
    async with (
        Server(reply(Set_Cookie="session=1; Path=/")) as server,
        sending(f"http://localhost:{server.port}") as transport,  # no jar takes a cookie from an address
    ):
        for _ in range(2):
            await transport(GET)

    assert [seen.header("cookie") for seen in server.seen] == [None, None]


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(reply()) as server, Server(reply()) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        async with sending(server) as transport:
            await transport(GET)

    assert proxy.connections == 0
    assert server.lines == ["GET /runs/1"]


# What comes back ------------------------------------------------------------------------------------------------------


async def test_an_answer_has_lower_case_header_names_its_body_and_its_request() -> None:
    async with Server(reply(b'{"id":1}', 404, X_Log_ID="Abc", Retry_After="3")) as server, sending(server) as transport:
        answer = await transport(GET)

    assert answer.status == 404
    assert answer.headers == {"content-length": "8", "x-log-id": "Abc", "retry-after": "3"}
    assert answer.body == b'{"id":1}'
    assert answer.request is GET


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/html; charset=latin-1", ""])
async def test_json_is_read_whatever_the_content_type(kind: str) -> None:
    async with Server(reply('{"id": "ü"}'.encode(), Content_Type=kind)) as server, sending(server) as transport:
        answer = await performed(GET, transport)

    assert wire.read_object(answer) == {"id": "ü"}


async def test_an_empty_answer_is_an_answer() -> None:
    async with Server(reply(b"", 204)) as server, sending(server) as transport:
        answer = await performed(Request("DELETE", "/runs/1"), transport)

    assert (answer.status, answer.body) == (204, b"")
    with pytest.raises(ProtocolError, match=r"no object @ \$"):
        wire.read_object(answer)


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"\xff\xfe{}", b'{"id": "\xff"}', b'{"id": 1} trailing'])
async def test_a_body_that_is_not_json_is_no_answer(body: bytes) -> None:
    async with Server(reply(body)) as server:
        error = await failure(GET, server, QUICK)

    assert "not whole JSON" in error.reason
    assert len(server.seen) == 3


async def test_a_chunked_answer_is_read_whole() -> None:
    chunked = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n4\r\n: 1}\r\n0\r\n\r\n'
    async with Server(raw(chunked)) as server, sending(server) as transport:
        answer = await performed(GET, transport)

    assert answer.body == b'{"a": 1}'


async def test_a_packed_answer_is_unpacked_although_none_was_asked_for() -> None:
    async with (
        Server(reply(gzip.compress(b'{"id":1}'), Content_Encoding="gzip")) as server,
        sending(server) as transport,
    ):
        assert (await performed(GET, transport)).body == b'{"id":1}'


async def test_connections_are_kept_between_requests() -> None:
    async with Server(reply()) as server, sending(server) as transport:
        for _ in range(5):
            await transport(GET)

    assert server.connections == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("request_", [GET, POST], ids=["get", "post"])
async def test_a_redirect_is_an_error_and_the_other_host_is_never_contacted(status: int, request_: Request) -> None:
    async with (
        Server(reply()) as other,
        Server(reply(b"", status, Location=other.url + "/login")) as server,
        sending(server) as transport,
    ):
        with pytest.raises(ProtocolError, match=rf"answered {status} \(a redirect to '{other.url}/login'"):
            await performed(request_, transport)

    assert len(server.seen) == 1
    assert other.connections == 0


# Limits ---------------------------------------------------------------------------------------------------------------


async def test_no_more_requests_are_in_flight_than_connections_are_allowed() -> None:
    async with Server(reply(after=0.005)) as server, sending(server, connections=3) as transport:
        await asyncio.gather(*(transport(GET) for _ in range(20)))

    assert server.busiest == 3
    assert server.connections == 3


@pytest.mark.parametrize(
    ("limits", "most"), [({"limit": 2}, 2), ({"limit": 0, "limit_per_host": 3}, 3), ({"limit": 0}, 5), ({}, 5)]
)
async def test_the_limits_of_a_borrowed_connector_bound_the_requests_in_flight(
    limits: dict[str, Any], most: int
) -> None:
    async with (
        Server(reply(after=0.005)) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(**limits)) as session,
        sending(server, session=session, connections=5, timeout=5.0) as transport,
    ):
        await asyncio.gather(*(transport(GET) for _ in range(20)))

    assert server.busiest == most


@pytest.mark.parametrize("borrowed", [False, True])
async def test_waiting_for_a_free_connection_does_not_count_against_the_timeout(borrowed: bool) -> None:
    async with (
        Server(reply(after=0.03)) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=10)) as session,
    ):
        options: dict[str, Any] = {"session": session} if borrowed else {"connections": 10}
        async with sending(server, timeout=1.0, **options) as transport:
            begun = asyncio.get_running_loop().time()
            answers = await asyncio.gather(*(transport(GET) for _ in range(500)))
            took = asyncio.get_running_loop().time() - begun

    assert [answer.status for answer in answers] == [200] * 500
    assert took > 1.0
    assert server.busiest == 10


async def test_the_timeout_ends_a_body_that_drips() -> None:
    async with Server(drip(b"HTTP/1.1 200 OK\r\n\r\n", leaping=10.0)) as server:
        error = await failure(GET, server, timeout=30.0)
        await server.deserted()

    assert "no whole answer within 30 s; a larger `timeout` of `connect` allows more" in str(error)
    assert error.sent


async def test_a_timeout_of_its_own_ends_a_request_and_no_option_is_said_to_allow_more() -> None:
    async with Server(late(silence)) as server:
        error = await failure(Request("GET", "/runs/1", timeout=5.0), server, timeout=30.0)

    assert str(error) == "no answer to GET /runs/1: no whole answer within 5 s"


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ECONNREFUSED, "; check the base URL, and that its server can be reached"), (errno.EMFILE, "")],
)
async def test_a_server_that_is_not_reached_is_looked_for_unless_it_is_this_process_that_cannot(
    number: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(*_: Any) -> Any:
        raise aiohttp.ClientConnectorError(key, OSError(number, "no"))

    key = ConnectionKey("localhost", 9, False, True, None, None, None)
    monkeypatch.setattr(aiohttp.TCPConnector, "connect", connect)
    error = await failure(GET, "http://127.0.0.1:9")

    assert str(error).endswith(f"[no]{told}")
    assert not error.sent


async def test_the_timeout_ends_waiting_for_a_server_that_says_nothing() -> None:
    async with Server(late(silence)) as server:
        error = await failure(GET, server, timeout=30.0)

    assert error.sent
    assert not error.final


async def test_running_out_of_time_while_connecting_says_that_nothing_was_sent() -> None:
    async with Server(silence) as server:
        error = await failure(POST, server.url.replace("http:", "https:"), timeout=2.0)

    assert not error.sent
    assert server.seen == []


@pytest.mark.parametrize("declared", [True, False])
async def test_an_answer_that_is_too_long_is_refused_and_not_asked_for_again(declared: bool) -> None:
    body = b'"' + b"x" * 5000 + b'"'
    act = reply(body) if declared else raw(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    async with Server(act) as server:
        error = await failure(GET, server, QUICK, max_body=5001)
        await server.deserted()
        async with sending(server, max_body=5002) as transport:
            assert (await performed(GET, transport)).body == body

    assert error.final
    assert "longer than 5001 bytes" in str(error)
    assert len(server.seen) == 2


async def test_a_header_of_many_bytes_is_read_and_one_without_end_is_told_as_that() -> None:
    async with Server(reply(Cookie="x" * 60_000), *[reply(Cookie="x" * 70_000)] * 4) as server:
        async with sending(server) as transport:
            assert (await performed(GET, transport)).status == 200
        error = await failure(GET, server, QUICK)
        await server.deserted()

    assert not error.final  # a vendor that is honest again at the next try costs no run
    assert "a header of the answer is longer than can be read" in str(error)
    assert len(server.seen) > 2


async def test_a_session_of_the_users_own_reads_headers_of_the_length_that_it_was_made_for() -> None:
    async with Server(*[reply(Cookie="x" * 9_000)] * 4) as server, aiohttp.ClientSession() as session:
        error = await failure(GET, server, QUICK, session=session)
        await server.deserted()

    assert "a header of the answer is longer than can be read" in str(error)


@pytest.mark.parametrize("act", [reply, raw], ids=["declared", "undeclared"])
async def test_a_packed_body_cannot_fill_the_memory(act: Any) -> None:
    bomb = gzip.compress(b" " * 2**26)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    async with (
        Server(act(bomb, Content_Encoding="gzip") if act is reply else act(head + bomb)) as server,
        sending(server, max_body=2**20) as transport,
    ):
        tracemalloc.start()
        try:
            with pytest.raises(TransportError, match="longer than 1048576 bytes"):
                await transport(GET)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak < 8 * 2**20


# What goes wrong on the way -------------------------------------------------------------------------------------------


async def test_a_refused_connection_was_never_sent_and_is_tried_again_even_for_a_post() -> None:
    port = free_port()
    server = Server(reply(), port=port)
    async with sending(f"http://127.0.0.1:{port}") as transport:
        lost: list[TransportError] = []

        async def send(request: Request) -> Response:
            try:
                return await transport(request)
            except TransportError as error:
                lost.append(error)
                await server.__aenter__()
                raise

        answer = await perform(asking(POST), send, narrative.problem, QUICK)
        await server.__aexit__()

    assert answer.status == 200
    assert [(error.sent, error.final) for error in lost] == [(False, False)]
    assert server.lines == ["POST /runs"]


async def test_a_host_without_an_address_was_never_sent_to() -> None:
    error = await failure(POST, "http://nowhere.invalid", timeout=5.0)

    assert not error.sent


@pytest.mark.parametrize("act", [reset, hang_up, raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")])
async def test_a_post_that_may_have_been_read_is_not_sent_again(act: Act) -> None:
    async with Server(act) as server, sending(server) as transport:
        with pytest.raises(OutcomeUnknownError) as caught:
            await performed(POST, transport)

    assert len(server.seen) == 1
    assert caught.value.request == POST
    assert isinstance(caught.value.__cause__, TransportError)


@pytest.mark.parametrize("act", [reset, hang_up, raw(b'HTTP/1.1 200 OK\r\n\r\n{"id"')])
async def test_a_lost_start_of_narrative_is_sent_again_with_the_same_body(act: Act) -> None:
    head = reply(scripted_wire.conversation().body)
    started = reply(scripted_wire.run("pending").body)
    async with (
        Server(head, act, started) as server,
        connect(narrative, token=TOKEN, base_url=server.url, retry=QUICK) as client,
    ):
        run = await client.start(narrative.UserMessage(scripted_wire.CONVERSATION, "Handle it."))

    assert run.id == scripted_wire.RUN
    assert server.lines == [scripted_wire.HEAD, scripted_wire.START, scripted_wire.START]
    assert server.seen[1].body == server.seen[2].body
    assert "client_op_id" in json.loads(server.seen[1].body)


async def test_a_kept_connection_that_closes_under_a_post_costs_exactly_one_more_post() -> None:
    head = reply(scripted_wire.conversation().body)
    async with (
        Server(head, hang_up, reply(scripted_wire.run("pending").body)) as server,
        connect(narrative, token=TOKEN, base_url=server.url, retry=QUICK) as client,
    ):
        await client.start(narrative.UserMessage(scripted_wire.CONVERSATION, "Handle it."))

    assert [seen.connection for seen in server.seen] == [1, 1, 2]
    assert [json.loads(seen.body)["client_op_id"] for seen in server.seen[1:]] == [
        json.loads(server.seen[1].body)["client_op_id"]
    ] * 2


@pytest.mark.parametrize("act", [hang_up, reset], ids=["closed", "reset"])
@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST", "PATCH"])
async def test_a_request_is_never_sent_twice_behind_our_back(act: Act, borrowed: bool, method: str) -> None:
    request = Request(method, "/runs/1", idempotent=True)
    async with (
        Server(reply(), act) as server,
        aiohttp.ClientSession() as session,
        sending(server, session=session if borrowed else None) as transport,
    ):
        await transport(request)
        for _ in range(2):
            with pytest.raises(TransportError):
                await performed(request, transport, ONCE)

    assert [seen.connection for seen in server.seen] == [1, 1, 2]


@pytest.mark.parametrize(
    "cut",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"id":',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{"id":\r\n',
        b'HTTP/1.1 200 OK\r\n\r\n{"id":',
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000 + b"\r\n\r\n",
    ],
    ids=["declared", "chunked", "undeclared", "head", "garbage", "long header"],
)
async def test_an_answer_that_is_cut_off_or_garbled_is_asked_for_again(cut: bytes) -> None:
    async with Server(raw(cut), reply(b'{"id":1}')) as server, sending(server) as transport:
        answer = await performed(GET, transport)

    assert answer.body == b'{"id":1}'
    assert len(server.seen) == 2


def self_signed() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_a_certificate_that_nobody_vouches_for_is_refused_once() -> None:
    async with Server(reply(), tls=self_signed()) as server, sending(server) as transport:
        tries: list[Request] = []

        async def send(request: Request) -> Response:
            tries.append(request)
            return await transport(request)

        with pytest.raises(TransportError, match=r"TLS failed.*; check the base URL, and which certificates") as caught:
            await perform(asking(POST), send, narrative.problem, QUICK)

    assert len(tries) == 1
    assert (caught.value.sent, caught.value.final) == (False, True)
    assert server.seen == []


# Sessions, and their end ----------------------------------------------------------------------------------------------


async def test_closing_ends_every_connection_of_an_own_session() -> None:
    async with Server(reply()) as server:
        async with sending(server) as transport:
            await asyncio.gather(*(transport(GET) for _ in range(3)))
        await server.deserted()

    assert server.connections == 3


async def test_a_borrowed_session_stays_open() -> None:
    async with Server(reply()) as server, aiohttp.ClientSession() as session:
        for _ in range(2):
            async with sending(server, session=session) as transport:
                await transport(GET)
        async with session.get(server.url) as answer:
            assert answer.status == 200

    assert server.connections == 1


async def test_a_borrowed_session_keeps_its_middlewares_and_their_order() -> None:
    noted: list[str] = []

    async def note(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        noted.append(request.method)
        return await handler(request)

    async with (
        Server(reply()) as server,
        aiohttp.ClientSession(middlewares=(note,)) as session,
        sending(server, session=session) as transport,
    ):
        await transport(GET)
        await transport(POST)

    assert noted == ["GET", "POST"]


async def test_a_borrowed_session_that_raises_for_status_does_not_hide_what_the_vendor_said() -> None:
    async with (
        Server(reply(b'{"detail":"no"}', 404)) as server,
        aiohttp.ClientSession(raise_for_status=True) as session,
        sending(server, session=session) as transport,
    ):
        answer = await transport(GET)

    assert (answer.status, answer.body) == (404, b'{"detail":"no"}')


async def test_a_borrowed_session_with_credentials_of_its_own_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer releases of aiohttp advise against it
        session = aiohttp.ClientSession(auth=aiohttp.BasicAuth("me", "mine"))
    async with Server(reply()) as server, session, sending(server, session=session) as transport:
        with pytest.raises(ConfigurationError, match="cannot be sent: Cannot combine AUTHORIZATION header"):
            await transport(GET)

    assert server.seen == []


async def test_a_borrowed_session_that_its_owner_has_closed_is_told_so() -> None:
    async with aiohttp.ClientSession() as session, sending("http://127.0.0.1:9", session=session) as transport:
        await session.close()
        with pytest.raises(ConfigurationError, match="the session that was passed in is closed"):
            await transport(GET)


async def test_a_borrowed_session_that_its_owner_closes_loses_what_is_under_way_and_takes_no_more() -> None:
    async with (
        Server(silence) as server,
        aiohttp.ClientSession() as session,
        sending(server, session=session, connections=1) as transport,
    ):
        asked = [asyncio.ensure_future(transport(GET)) for _ in range(2)]
        await server.reached()
        await session.close()
        ends = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(end) for end in ends] == [TransportError, ConfigurationError]


@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
@pytest.mark.parametrize("act", [silence, drip(b"HTTP/1.1 200 OK\r\n\r\n", 0.005)], ids=["head", "body"])
async def test_closing_ends_what_is_under_way_and_leaves_nothing(borrowed: bool, act: Act) -> None:
    before = asyncio.all_tasks()
    async with Server(act) as server, aiohttp.ClientSession() as session:
        async with sending(server, session=session if borrowed else None, connections=2) as transport:
            asked = [asyncio.ensure_future(performed(GET, transport)) for _ in range(4)]
            await server.reached()
        ends = await asyncio.gather(*asked, return_exceptions=True)
        await server.deserted()

    assert [type(end) for end in ends] == [AgentRunsError] * 4
    assert {str(end) for end in ends} == {"the client was closed while GET /runs/1 was under way"}
    assert server.connections <= 2
    assert asyncio.all_tasks() == before


async def test_nothing_is_sent_once_closed() -> None:
    async with Server(reply()) as server:
        async with sending(server) as transport:
            pass
        with pytest.raises(AgentRunsError, match="this client is closed"):
            await transport(GET)

    assert server.connections == 0


async def test_a_request_that_is_cancelled_gives_its_place_and_its_connection_back() -> None:
    async with Server(silence, reply()) as server, sending(server, connections=1) as transport:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(transport(GET), 0.05)
        await server.deserted()
        assert (await transport(GET)).status == 200


# Listening ------------------------------------------------------------------------------------------------------------

EVENTS = Request("GET", "/runs/1/events", params={"from": "3"}, headers={"Accept": "text/event-stream"})
OPENED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


async def test_listening_lasts_until_the_server_ends_the_stream_whatever_the_timeout() -> None:
    ends = asyncio.Event()

    async def stream(writer: asyncio.StreamWriter) -> None:
        writer.write(OPENED + b"data: {}\n\n")
        await ends.wait()
        writer.close()

    async with Server(stream) as server, sending(server, timeout=1.0) as transport:
        listening = asyncio.ensure_future(transport.listen(EVENTS, lambda: None))
        done, _ = await asyncio.wait({listening}, timeout=1.5)
        ends.set()
        await listening

    assert not done
    assert server.lines == ["GET /runs/1/events?from=3"]
    assert server.seen[0].header("accept") == "text/event-stream"
    assert server.seen[0].header("authorization") == f"Bearer {TOKEN}"


async def test_listening_takes_no_place_among_the_requests_in_flight() -> None:
    async with Server(drip(OPENED, 0.01), drip(OPENED, 0.01), reply()) as server:
        async with sending(server, connections=1, timeout=5.0) as transport:
            listening = [asyncio.ensure_future(transport.listen(EVENTS, lambda: None)) for _ in range(2)]
            await server.reached(2)
            assert (await transport(GET)).status == 200
        await asyncio.gather(*listening, return_exceptions=True)


@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
async def test_closing_ends_listening(borrowed: bool) -> None:
    async with Server(drip(OPENED, 0.01)) as server, aiohttp.ClientSession() as session:
        async with sending(server, session=session if borrowed else None) as transport:
            listening = asyncio.ensure_future(transport.listen(EVENTS, lambda: None))
            await server.reached()
        with pytest.raises(AgentRunsError, match="was closed while GET /runs/1/events was under way"):
            await listening
        await server.deserted()


@pytest.mark.parametrize(
    "act",
    [
        hang_up,
        reset,
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ndata"),
    ],
    ids=["hang up", "reset", "cut"],
)
async def test_a_stream_that_breaks_is_an_error_and_is_opened_once(act: Act) -> None:
    async with Server(act) as server, sending(server) as transport:
        with pytest.raises(TransportError):
            await transport.listen(EVENTS, lambda: None)

    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("act", "status"),
    [
        (reply(b"{}", 404), 404),
        (reply(b"", 302, Location="/elsewhere"), 302),
        (reply(b"", 204), 204),
        (reply(b"{}", 429, Retry_After="7"), 429),
    ],
    ids=["404", "302", "204", "429"],
)
async def test_a_stream_that_is_refused_gives_the_refusal_and_is_opened_once(act: Act, status: int) -> None:
    async with Server(act) as server, sending(server) as transport:
        refusal = await transport.listen(EVENTS, lambda: None)

    assert refusal is not None
    assert refusal.status == status
    assert refusal.headers.get("retry-after") == ("7" if status == 429 else None)
    assert len(server.seen) == 1


# The token ------------------------------------------------------------------------------------------------------------

ESCAPED = TOKEN.replace("/", "\\/").replace("+", "\\u002B").replace("=", "\\u003d")
QUOTED = TOKEN.replace("/", "%2f").replace("+", "%2B").replace("=", "%3D")
ECHO: dict[str, Any] = {"X_Echo": f"Bearer {TOKEN}", "Location": f"https://elsewhere.test/?token={QUOTED}"}
BODY = json.dumps({"detail": f"{TOKEN} {QUOTED}", "title": f"bad token {TOKEN}"}).encode()
TWISTED = b'{"detail": "' + ESCAPED.encode() + b'", "error": "' + ESCAPED.encode() + b'"}'
HEAD_ECHO = f"HTTP/1.1 200 OK\r\nX-Echo: {TOKEN}\r\n".encode()


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Let every logger speak, asyncio's debug mode included."""
    caplog.set_level(logging.DEBUG)
    for name in ("agentruns", "aiohttp", "aiohttp.client", "aiohttp.access", "aiohttp.internal", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


def debugged() -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0


def told(error: BaseException) -> str:
    """Return all that anything could print of an error, its causes, and the frames that they passed through."""
    texts: list[str] = []
    todo: list[BaseException | None] = [error]
    done: set[int] = set()
    while todo:
        each = todo.pop()
        if each is None or id(each) in done:
            continue
        done.add(id(each))
        todo += [each.__cause__, each.__context__]
        lines = traceback.TracebackException.from_exception(each, capture_locals=True).format(chain=False)
        texts += [repr(each), str(each), repr(vars(each)), *lines]
        if isinstance(each, AgentRunsError):
            texts.append(pickle.dumps(each, 0).decode("latin-1"))
            texts.append(repr(vars(pickle.loads(pickle.dumps(each)))))
            texts.append(repr(copy.copy(each)))
    return "\n".join(texts)


def assert_hidden(text: str) -> None:
    for spelling in (TOKEN, ESCAPED, QUOTED, ESCAPED.replace("\\", "\\\\"), TOKEN[:12]):
        assert spelling not in text


ACTS: dict[str, Act] = {
    "reset": reset,
    "hang up": hang_up,
    "silence": late(silence),
    "drip": drip(HEAD_ECHO + b"\r\n" + BODY, leaping=10.0),
    "cut": raw(HEAD_ECHO + b"Content-Length: 9999\r\n\r\n" + BODY),
    "cut chunk": raw(HEAD_ECHO + b"Transfer-Encoding: chunked\r\n\r\nFF\r\n" + BODY),
    "no chunk": raw(HEAD_ECHO + b"Transfer-Encoding: chunked\r\n\r\n" + TOKEN.encode() + b"\r\n\r\n"),
    "no length": raw(HEAD_ECHO + b"Content-Length: " + TOKEN.encode() + b"\r\n\r\n"),
    "no status line": raw(TOKEN.encode() + b"\r\n\r\n"),
    "no status": raw(f"HTTP/1.1 {TOKEN} OK\r\n\r\n".encode()),
    "no header": raw(HEAD_ECHO + TOKEN.encode() + b" : \x00\r\n\r\n"),
    "long header": raw(HEAD_ECHO + b"X: " + TOKEN.encode() * 4000 + b"\r\n\r\n"),
    "no gzip": raw(HEAD_ECHO + b"Content-Encoding: gzip\r\n\r\n" + BODY),
    "cut json": raw(HEAD_ECHO + b"\r\n" + BODY[:-4]),
    "no json": reply(TOKEN.encode(), **ECHO),
    "no escaped json": reply(TWISTED[:-1], **ECHO),
    "too long": reply(b"[" + BODY * 200 + b"]", **ECHO),
    **{str(status): reply(BODY, status, **ECHO) for status in (302, 400, 401, 403, 404, 409, 429, 500, 503)},
    "401 escaped": reply(TWISTED, 401, **ECHO),
    "500 escaped": reply(TWISTED, 500, **ECHO),
    "502 html": reply(f"<html>{TOKEN}</html>".encode(), 502, **ECHO),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("request_", [GET, POST], ids=["get", "post"])
@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
async def test_the_token_shows_in_no_failure(
    act: Act, request_: Request, borrowed: bool, everything: pytest.LogCaptureFixture
) -> None:
    debugged()
    async with Server(act) as server, aiohttp.ClientSession() as session:
        options: dict[str, Any] = {"session": session} if borrowed else {}
        async with sending(server, timeout=30.0, max_body=4096, **options) as transport:
            with pytest.raises(AgentRunsError) as caught:
                await performed(request_, transport, Retry(attempts=2, backoff=QUICK.backoff, longest=0.0))

    assert server.seen[0].header("authorization") == f"Bearer {TOKEN}"
    assert_hidden(told(caught.value))
    assert_hidden(everything.text)
    assert "took 0.0" in everything.text  # the debug mode of asyncio has spoken


@pytest.mark.parametrize("where", ["refused", "tls", "closed", "closed in the body", "params", "outside", "body"])
async def test_the_token_shows_in_no_failure_that_the_server_is_innocent_of(
    where: str, everything: pytest.LogCaptureFixture
) -> None:
    debugged()
    dripping = drip(HEAD_ECHO + b"\r\n" + BODY, 0.005)
    act = dripping if where in {"closed in the body", "body"} else silence
    async with Server(act, tls=self_signed() if where == "tls" else None) as server:
        transport = AiohttpTransport(
            Address(f"http://127.0.0.1:{free_port()}" if where == "refused" else server.url, TOKEN)
        )
        await transport.open()
        request = Request("GET", "/runs", params={"a": "\ud800"} if where == "params" else {})
        asked = asyncio.ensure_future(performed(request, transport, ONCE))
        if where in {"closed", "closed in the body"}:
            await server.reached()
            await asyncio.sleep(0.02)
            await transport.close()
        with pytest.raises((AgentRunsError, TimeoutError)) as caught:
            await asyncio.wait_for(asked, 0.1 if where in {"outside", "body"} else 5)
        await transport.close()

    assert isinstance(caught.value, TimeoutError) is (where in {"outside", "body"})
    assert_hidden(told(caught.value))
    assert_hidden(everything.text)


@pytest.mark.parametrize(
    "act",
    [
        reset,
        hang_up,
        raw(OPENED[:-2] + HEAD_ECHO[17:] + b"Content-Length: 9999\r\n\r\n" + BODY),
        raw(HEAD_ECHO + TOKEN.encode() + b" : \x00\r\n\r\n"),
        drip(HEAD_ECHO + b"\r\n" + BODY, 0.01),
    ],
    ids=["reset", "hang up", "cut", "garbled", "cancelled"],
)
async def test_the_token_shows_in_no_failure_to_listen(act: Act, everything: pytest.LogCaptureFixture) -> None:
    debugged()
    async with Server(act) as server, sending(server) as transport:
        with pytest.raises((TransportError, TimeoutError)) as caught:
            await asyncio.wait_for(transport.listen(EVENTS, lambda: None), 0.1)

    assert_hidden(told(caught.value))
    assert_hidden(everything.text)


async def test_the_token_shows_in_no_refusal_to_be_listened_to(everything: pytest.LogCaptureFixture) -> None:
    debugged()
    async with Server(reply(BODY, 401, **ECHO)) as server, sending(server) as transport:
        refusal = await transport.listen(EVENTS, lambda: None)

    assert refusal is not None
    assert_hidden(repr(refusal) + repr(refusal.headers))
    assert refusal.headers["x-echo"] == "Bearer [token]"
    assert_hidden(everything.text)


async def test_the_token_shows_in_no_repr_and_no_success(everything: pytest.LogCaptureFixture) -> None:
    debugged()
    async with (
        Server(reply(BODY, **ECHO), reply(TWISTED)) as server,
        connect(narrative, token=TOKEN, base_url=server.url) as client,
        sending(server) as transport,
    ):
        answer = await transport(GET)
        twisted = await transport(GET)
        shown = [
            client,
            transport,
            Address(server.url, TOKEN),
            GET,
            answer,
            answer.headers,
            answer.body,
            twisted.body,
        ]
        shown += [vars(client), vars(transport)]

    assert_hidden("\n".join(map(repr, shown)))
    assert_hidden(everything.text)
    assert json.loads(answer.body)["title"] == "bad token [token]"
    assert json.loads(twisted.body) == {"detail": "[token]", "error": "[token]"}
    assert answer.headers["x-echo"] == "Bearer [token]"


async def test_a_token_that_is_a_mere_placeholder_does_not_garble_answers() -> None:
    async with (
        Server(reply(b'{"tokens": 5}', X_Tokens="5 tokens")) as server,
        sending(server, token="token") as transport,
    ):
        answer = await transport(GET)

    assert answer.body == b'{"tokens": 5}'
    assert answer.headers["x-tokens"] == "5 tokens"
    assert server.seen[0].header("authorization") == "Bearer token"


async def test_the_parts_of_aiohttp_that_no_page_of_it_documents_are_there() -> None:
    """What is missing here has no public form: `agentruns/_api/transport.py` then needs another way."""

    async def mine(request: Any, handler: Any) -> Any:
        return await handler(request)

    async with aiohttp.ClientSession(middlewares=[mine]) as session:
        assert tuple(session._middlewares) == (mine,), "ClientSession._middlewares: a user's would be left out"
    taken = list(inspect.signature(aiohttp.TCPConnector.connect).parameters)
    assert taken == ["self", "req", "traces", "timeout"], "TCPConnector.connect: stale connections would be used"
    assert "protocol" in vars(aiohttp.connector.Connection), "Connection.protocol"
    protocol = aiohttp.client_proto.ResponseHandler(asyncio.get_running_loop())
    assert isinstance(protocol.should_close, bool), "ResponseHandler.should_close"
