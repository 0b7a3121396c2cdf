"""What a dialect may send: paths that stay below the base URL, texts, bodies of any kind, and answers of 2xx."""

import asyncio
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from agentruns import Run, RunRef, RunStatus, connect
from agentruns._api.address import Address
from agentruns._api.api import Api
from agentruns._api.limiter import Permits, RateLimiter
from agentruns._api.retry import Retry
from agentruns._api.transport import AiohttpTransport
from agentruns.dialects import Dialect, Flow, Problem, Request, Response, wire
from agentruns.errors import (
    ConfigurationError,
    OutcomeUnknownError,
    ProtocolError,
    RateLimitedError,
    ServerError,
    TransportError,
)
from tests.scripted_wire import STEADY, Answer, Lost, Wire
from tests.tiny_vendor import tiny

BASE = "https://api.acme.test/v1"


@pytest.mark.parametrize(
    "path",
    [
        "",
        ":8443/x",
        ".evil.test/x",
        "@evil.test/x",
        "runs",
        "//evil.test/x",
        "https://evil.test/x",
        "/runs#top",
        "/runs\r\nHost: evil.test",
        "/runs\x00",
        "/runs\u2028",
        None,
        b"/runs",
    ],
)
def test_a_path_that_could_lead_elsewhere_is_refused_where_the_request_is_made(path: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"the path of a GET is .*must begin with one `/`") as refused:
        Request("GET", path)
    assert refused.value.field == "Request.path"


@given(st.text(max_size=20))
def test_whatever_path_is_taken_the_request_goes_to_the_host_of_the_base_url(path: str) -> None:
    for each in (path, f"/{path}"):
        try:
            request = Request("GET", each)
        except ConfigurationError:
            continue
        assert URL(f"https://api.acme.test{request.path}", encoded=True).host == "api.acme.test"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"params": {"limit": 3}}, "params of GET /runs have 'limit' of the type int"),
        ({"params": {"after": None}}, "params of GET /runs have 'after' of the type NoneType"),
        ({"params": {3: "x"}}, "params of GET /runs have 3 of the type int"),
        ({"params": [("a", "b")]}, "params of GET /runs are of the type list"),
        ({"params": None}, "params of GET /runs are of the type NoneType"),
        ({"headers": {"x-key": b"secret"}}, "headers of GET /runs have 'x-key' of the type bytes"),
        ({"headers": {"x-key": "secret\r\nx: y"}}, "headers of GET /runs have 'x-key', whose name or value no header"),
        ({"headers": {"x\nkey": "secret"}}, "no header can carry"),
        ({"data": 3}, "the data of GET /runs is of the type int"),
        ({"data": {"a": 1}}, "data of GET /runs have 'a' of the type int"),
        ({"data": b"x", "json": {}}, "GET /runs has both json and data"),
        ({"timeout": 0}, "Request.timeout is 0; it must be a finite number above zero"),
    ],
)
def test_what_no_request_can_carry_is_refused_by_name_and_not_shown(given: Mapping[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)) as refused:
        Request("GET", "/runs", **given)
    assert "secret" not in str(refused.value)


# Links ----------------------------------------------------------------------------------------------------------------


def answer(path: str = "/runs", base_url: str = BASE, **headers: str) -> Response:
    return Response(200, headers, b"{}", Request("GET", path), base_url)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://api.acme.test/v1/runs?after=2", "/runs?after=2"),
        ("https://API.acme.test:443/v1/runs?after=2", "/runs?after=2"),
        ("/v1/runs?after=%2F", "/runs?after=%2F"),
        ("?after=2", "/runs?after=2"),
        ("runs/1", "/runs/1"),
    ],
)
def test_a_link_of_the_vendor_becomes_a_path_below_the_base_url(url: str, path: str) -> None:
    assert Request("GET", wire.link(url, answer())).path == path


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://evil.test/v1/runs", "another origin"),
        ("//evil.test/v1/runs", "another origin"),
        ("http://api.acme.test/v1/runs", "another origin"),
        ("https://api.acme.test:8443/v1/runs", "another origin"),
        ("https://api.acme.test.evil.test/v1/runs", "another origin"),
        ("https://user@api.acme.test/v1/runs", "another origin"),
        ("/v2/runs", "leads out of /v1"),
        ("../v2/runs", "leads out of /v1"),
        ("/v1//evil.test", "leads out of /v1"),
        ("/v1/runs\r\nx: y", "no URL"),
        ("\\\\evil.test/x", "no URL"),
        ("https://[/v1", "not followed"),
        (None, "no URL"),
        (3, "no URL"),
    ],
)
def test_a_link_that_leads_elsewhere_is_not_followed(url: Any, why: str) -> None:
    with pytest.raises(ProtocolError, match=r"the answer to GET /runs has the link .*not followed") as refused:
        wire.link(url, answer())
    assert why in str(refused.value)


def test_an_absolute_link_in_an_answer_of_no_known_place_is_not_followed() -> None:
    with pytest.raises(ProtocolError, match="another origin"):
        wire.link("https://api.acme.test/runs", answer(base_url=""))
    assert wire.link("?page=2", answer(base_url="")) == "/runs?page=2"


def test_a_location_is_a_link() -> None:
    assert wire.location(answer(location="/v1/runs/7")) == "/runs/7"
    with pytest.raises(ProtocolError, match="another origin"):
        wire.location(answer(location="https://evil.test/"))
    with pytest.raises(ProtocolError, match="the link 'None'"):
        wire.location(answer())


# What goes out --------------------------------------------------------------------------------------------------------


async def sent(request: Request, *, timeout: float = 5.0, lasts: float = 0.0) -> Any:
    """Return what a server sees of a request."""
    seen: list[Any] = []

    async def handle(asked: web.Request) -> web.Response:
        seen.append((asked.content_type, asked.charset, await asked.read(), asked.path_qs))
        await asyncio.sleep(lasts)
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    transport = AiohttpTransport(Address(f"http://127.0.0.1:{runner.addresses[0][1]}", "t"), timeout=timeout)
    await transport.open()
    try:
        response = await transport(request)
        assert response.base_url.startswith("http://127.0.0.1:")
    finally:
        await transport.close()
        await runner.cleanup()
    return seen[0]


@pytest.mark.parametrize(
    ("given", "kind", "charset", "body"),
    [
        ({"json": {"a": 1}}, "application/json", None, b'{"a":1}'),
        ({"data": b"\x00\x01"}, "application/octet-stream", None, b"\x00\x01"),
        ({"data": "né"}, "text/plain", "utf-8", "né".encode()),
        ({"data": {"a": "x y", "b": "&"}}, "application/x-www-form-urlencoded", None, b"a=x+y&b=%26"),
        ({"json": {}, "headers": {"content-type": "application/a2a+json"}}, "application/a2a+json", None, b"{}"),
        ({"data": "<a/>", "headers": {"Content-Type": "text/xml"}}, "text/xml", None, b"<a/>"),
    ],
)
@pytest.mark.asyncio
async def test_a_body_of_any_kind_is_sent_as_what_it_is(
    given: Mapping[str, Any], kind: str, charset: str | None, body: bytes
) -> None:
    assert (await sent(Request("POST", "/runs", **given)))[:3] == (kind, charset, body)


@pytest.mark.asyncio
async def test_params_are_added_to_the_query_that_a_link_has() -> None:
    assert (await sent(Request("GET", "/runs?after=a%2Fb", params={"limit": "3"})))[3] == "/runs?after=a%2Fb&limit=3"


@pytest.mark.asyncio
async def test_a_request_may_have_a_timeout_of_its_own() -> None:
    with pytest.raises(TransportError, match=r"no whole answer within 0\.05 s$"):  # no `connect(timeout=)`
        await sent(Request("GET", "/runs", timeout=0.05), lasts=0.5)
    await sent(Request("GET", "/runs", timeout=5.0), timeout=0.05, lasts=0.1)


# What comes back ------------------------------------------------------------------------------------------------------


def error_status(response: Response) -> int | None:
    error = wire.mapping(response.value).get("error")
    return None if error is None else int(error["code"])


async def called(flow: Flow[Any], answers: Any, *, hook: bool = True) -> Any:
    """Return what a flow comes to over a scripted vendor that tells of its errors by 200."""
    network = Wire({"POST /rpc": answers})
    api = Api(
        network,
        Permits(RateLimiter(None), "acme"),
        lambda response: Problem(wire.body_excerpt(response)),
        Retry(attempts=2, backoff=STEADY),
        error_status if hook else None,
    )
    api.enter()
    await api.open()
    try:
        return await api.perform(flow)
    finally:
        api.close()


def asking(*, idempotent: bool) -> Flow[Any]:
    return (yield Request("POST", "/rpc", json={}, idempotent=idempotent)).value


WELL = Answer({"result": 1})


@pytest.mark.asyncio
async def test_an_error_that_comes_as_200_is_one_of_its_status() -> None:
    with pytest.raises(RateLimitedError, match="was answered 429"):
        await called(asking(idempotent=True), Answer({"error": {"code": 429}}))


@pytest.mark.asyncio
async def test_it_is_tried_again_where_that_status_would_be() -> None:
    assert await called(asking(idempotent=False), [Answer({"error": {"code": 429}}), WELL]) == {"result": 1}
    assert await called(asking(idempotent=True), [Answer({"error": {"code": 503}}), WELL]) == {"result": 1}


@pytest.mark.asyncio
async def test_and_it_is_in_doubt_where_that_status_would_be() -> None:
    with pytest.raises(OutcomeUnknownError):
        await called(asking(idempotent=False), [Answer({"error": {"code": 503}}), WELL])
    with pytest.raises(ServerError) as failed:
        await called(asking(idempotent=True), [Lost(), Answer({"error": {"code": 503}})])
    assert failed.value.after_doubt


@pytest.mark.asyncio
async def test_an_answer_that_is_no_json_is_not_asked_for_its_status() -> None:
    with pytest.raises(TransportError, match="not whole JSON"):
        await called(asking(idempotent=True), Answer(b"<html>"))


@pytest.mark.parametrize("empty", [Answer(b"", 204), Answer(b"", 202, {"location": "/runs/7"})])
@pytest.mark.asyncio
async def test_an_answer_that_is_meant_to_be_empty_reaches_the_flow(empty: Answer) -> None:
    def flow() -> Flow[str]:
        response = yield Request("POST", "/rpc")
        return wire.location(response) if response.status == 202 else "nothing"

    assert await called(flow(), empty, hook=False) == ("/runs/7" if empty.status == 202 else "nothing")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"openai-poll-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"openai-poll-after-ms": "soon", "retry-after-ms": "-1", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "inf"}, None),
        ({}, None),
    ],
)
@pytest.mark.asyncio
async def test_the_hints_of_any_vendor_pace_the_reads_of_its_runs(
    headers: Mapping[str, str], seconds: float | None
) -> None:
    def reading(status: RunStatus, own: float | None = None) -> Flow[Run[None]]:
        yield Request("POST", "/rpc")
        return Run(RunRef("1"), status, "word", poll_after=own)

    said = Answer({}, headers=headers)
    assert (await called(reading(RunStatus.RUNNING), said)).poll_after == seconds
    assert (await called(reading(RunStatus.RUNNING, 4.0), said)).poll_after == 4.0
    assert (await called(reading(RunStatus.COMPLETED), said)).poll_after is None


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_refusal_that_did_nothing_is_sent_again_though_it_must_not_be_repeated() -> None:
    wire_ = Wire({"POST /runs": [Answer({"why": "full"}, 503), Answer({"id": "1"})]})

    def problem(response: Response) -> Problem:
        return Problem("full", nothing_done=response.status == 503)

    api = Api(wire_, Permits(RateLimiter(None)), problem, Retry(attempts=2, backoff=STEADY))
    api.enter()
    await api.open()
    assert (await api.perform(posted())).status == 200

    sure = Wire({"POST /runs": Answer({"why": "full"}, 503)})
    api = Api(sure, Permits(RateLimiter(None)), problem, Retry(attempts=2, backoff=STEADY))
    api.enter()
    await api.open()
    with pytest.raises(ServerError) as caught:
        await api.perform(posted())
    assert (len(sure.asked), caught.value.after_doubt) == (2, False)


def posted() -> Flow[Response]:
    return (yield Request("POST", "/runs", json={}))


def test_a_parameter_is_repeated_by_the_query_of_a_path() -> None:
    path = wire.path("threads", "t 1") + wire.query({"select": ["id", "state&x"], "limit": "5", "tag": []})
    assert Request("GET", path).path == "/threads/t%201?select=id&select=state%26x&limit=5"
    assert wire.query({}) == ""


@pytest.mark.asyncio
async def test_a_start_that_can_be_neither_repeated_nor_found_is_in_doubt_after_a_crash(tmp_path: Path) -> None:
    posted: list[Request] = []

    def start(origin: str) -> Flow[Run]:
        yield from wire.checkpoint({"path": "/runs"})
        yield Request("POST", "/runs")
        raise AssertionError

    async def cut_off(request: Request) -> Response:
        posted.append(request)
        raise asyncio.CancelledError

    names = vars(tiny()) | {"start": start, "recover": wire.never_found}
    dialect = cast(Dialect, SimpleNamespace(**names))
    journal = tmp_path / "journal"
    async with connect(dialect, transport=cut_off, journal=journal) as client:
        with pytest.raises(asyncio.CancelledError):
            await client.result("a-1", key="k")
    async with connect(dialect, transport=cut_off, journal=journal) as client:
        for _ in range(2):
            with pytest.raises(OutcomeUnknownError, match="POST /runs is unknown: the process that sent"):
                await client.result("a-1", key="k")
    assert len(posted) == 1


def test_a_request_travels_between_processes_whatever_mappings_it_was_made_of() -> None:
    made = Request("GET", "/runs", params=MappingProxyType({"page": "1"}), headers=MappingProxyType({"X-A": "b"}))

    assert pickle.loads(pickle.dumps(made)) == made
