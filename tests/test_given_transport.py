"""A transport that is passed in carries the requests of a client; a script is one."""

import asyncio
from typing import Any

import pytest

from agentruns import (
    ConfigurationError,
    ProtocolError,
    Retry,
    RunRef,
    RunStatus,
    TransportError,
    connect,
)
from agentruns._api.retry import Backoff
from agentruns.dialects import Header, Request, Response
from agentruns.errors import AgentRunsError
from agentruns.testing import Answer, ScriptedTransport
from tests.test_auth import vendor

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

POLL = "GET /runs/a-1"
STEADY = Backoff(initial=1.0, factor=1.0, jitter=0.0)


def body(status: str, **more: Any) -> Answer:
    return Answer({"id": "a-1", "of": "a", "status": status, **more})


async def test_a_run_is_followed_by_script_without_token_or_network() -> None:
    lost = TransportError(Request("GET", "/runs/a-1"), "reset")
    script = ScriptedTransport({
        "POST /runs/a-1": body("queued"),
        POLL: [body("working"), lost, lambda request: body("done", output=request.method)],
    })
    async with connect(vendor(), transport=script, schedule=STEADY, retry=Retry(backoff=STEADY)) as client:
        run = await client.result("a-1")

    assert (run.status, run.output) == (RunStatus.COMPLETED, "GET")
    assert script.lines == ["POST /runs/a-1", POLL, POLL, POLL]


async def test_a_line_that_the_script_lacks_is_told() -> None:
    async with connect(vendor(), transport=ScriptedTransport({POLL: body("done")})) as client:
        with pytest.raises(AssertionError, match="no answer to GET /runs/b; it has GET /runs/a-1"):
            await client.fetch(RunRef("b"))
    with pytest.raises(ValueError, match="no answer for GET /runs/a-1"):
        ScriptedTransport({POLL: []})


async def test_what_every_request_has_reaches_the_transport_and_the_answer_its_base_url() -> None:
    asked: list[Request] = []

    async def transport(request: Request) -> Response:
        asked.append(request)
        return body("done").response(request)

    client = connect(
        vendor(DEFAULT_HEADERS={"x-version": "2"}),
        transport=transport,
        params={"workspace": "w"},
        base_url="http://elsewhere.test/v1",
    )
    async with client:
        response = await client._api.call(Request("GET", "/runs/a-1", headers={"X-Version": "3"}))

    assert (asked[0].headers, asked[0].params) == ({"X-Version": "3"}, {"workspace": "w"})
    assert (response.base_url, response.request.params) == ("http://elsewhere.test/v1", {})


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError()])
async def test_lost_contact_of_a_transport_is_a_transport_error(error: Exception) -> None:
    async def transport(_: Request) -> Response:
        raise error

    async with connect(vendor(), transport=transport, retry=Retry(attempts=1)) as client:
        with pytest.raises(TransportError, match=r"reset|TimeoutError"):
            await client.fetch(RunRef("a-1"))


async def test_a_transport_that_hangs_ends_in_time_and_with_the_client() -> None:
    async def hang(_: Request) -> Response:
        await asyncio.Future()
        raise AssertionError

    async with connect(vendor(), transport=hang, timeout=5.0, retry=Retry(attempts=1)) as client:
        with pytest.raises(TransportError, match="no whole answer within 5 s"):
            await client.fetch(RunRef("a-1"))
        waiting = asyncio.ensure_future(client.fetch(RunRef("a-1")))
        await asyncio.sleep(1.0)
    with pytest.raises(AgentRunsError, match="the client was closed while GET /runs/a-1 was under way"):
        await waiting


async def test_what_is_no_answer_names_its_type() -> None:
    async def transport(_: Request) -> Any:
        return {"status": "done"}

    async with connect(vendor(), transport=transport) as client:
        with pytest.raises(ProtocolError, match="answered GET /runs/a-1 with dict, not a Response"):
            await client.fetch(RunRef("a-1"))


@pytest.mark.parametrize(
    "option",
    [{"token": "a-token"}, {"auth": Header("x")}, {"proxy": "http://proxy.test"}, {"trust_env": True}],
    ids=lambda option: next(iter(option)),
)
async def test_what_a_transport_has_of_its_own_is_not_given_beside_it(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"transport and {next(iter(option))} are given"):
        connect(vendor(), transport=ScriptedTransport({}), **option)


async def test_what_is_no_transport_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="transport is of the type str"):
        connect(vendor(), transport="http")  # type: ignore[call-overload]


async def test_events_are_not_heard_over_a_transport_and_the_run_is_polled() -> None:
    script = ScriptedTransport({POLL: [body("working"), body("working"), body("done")]})
    dialect = vendor(events=lambda ref: Request("GET", f"/runs/{ref.id}/events"))
    async with (
        connect(dialect, transport=script, schedule=STEADY) as client,
        client.stream(RunRef("a-1"), events=True) as stream,
    ):
        assert (await stream.result()).status is RunStatus.COMPLETED
