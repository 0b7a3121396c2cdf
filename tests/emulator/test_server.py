"""The server: where it serves, what it logs, what faults do to answers, what it refuses to be made from."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, cast

import aiohttp
import pytest

import agentruns.emulator as package
from agentruns.emulator import Emulator, Fault, ManualClock, Narrative, Turn, Vendor
from agentruns.emulator.pytest_plugin import EmulatorFactory
from agentruns.emulator.vendor import Reply, Request, Route, Stage, phrase
from tests.emulator.narrative_caller import defaults, say, served

START = "/agents/conversations/*/runs"


def fetch(emulator: Emulator[Narrative], path: str = "/whoami") -> bytes:
    request = urllib.request.Request(emulator.base_url + path, headers={"Authorization": f"Bearer {emulator.token}"})
    with urllib.request.urlopen(request, timeout=5) as response:
        content: bytes = response.read()
        return content


def test_a_plain_with_serves_from_a_thread_and_leaves_none() -> None:
    before = threading.active_count()
    with Emulator("narrative") as emulator:
        assert b"407" in fetch(emulator)
        port = int(emulator.base_url.rpartition(":")[2])
        assert emulator.requests("GET", "/who*")[0].status == 200
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="not running"):
        _ = emulator.base_url
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_state_and_log_outlive_a_stop_and_a_stopped_emulator_starts_again() -> None:
    emulator = Emulator("narrative")
    for visits in (1, 2):
        with emulator:
            fetch(emulator)
        assert len(emulator.exchanges) == visits


def test_a_taken_port_is_reported_in_both_modes() -> None:
    with Emulator() as emulator:
        taken = Emulator(port=int(emulator.base_url.rpartition(":")[2]))
        with pytest.raises(OSError, match="in use"), taken:
            pass
        with pytest.raises(OSError, match="in use"):
            asyncio.run(taken.start())
        with pytest.raises(RuntimeError, match="running already"), emulator:
            pass


@pytest.mark.asyncio
async def test_an_emulator_starts_once_and_stops_as_often_as_asked() -> None:
    emulator = Emulator("narrative")
    await emulator.start()
    with pytest.raises(RuntimeError, match="running already"):
        await emulator.start()
    await emulator.stop()
    await emulator.stop()
    assert "not running" in repr(emulator)


def test_the_plain_fixture_serves_sync_tests(narrative_emulator: Emulator[Narrative]) -> None:
    assert b"user_id" in fetch(narrative_emulator)


@pytest.mark.asyncio
async def test_the_plain_fixture_serves_async_tests(narrative_emulator: Emulator[Narrative]) -> None:
    headers = {"Authorization": f"Bearer {narrative_emulator.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(narrative_emulator.base_url + "/whoami") as response,
    ):
        assert response.status == 200


def test_the_factory_fixture_makes_any_number(agentruns_emulator: EmulatorFactory) -> None:
    one = agentruns_emulator("narrative", script=[Turn("x")])
    two = agentruns_emulator(user_id=9)
    assert one.base_url != two.base_url
    assert b'"user_id":9' in fetch(two)
    assert one.state.options.user_id == 407


@pytest.mark.asyncio
async def test_an_ipv6_host_is_bracketed() -> None:
    try:
        async with Emulator(host="::1") as emulator:
            assert emulator.base_url.startswith("http://[::1]:")
    except OSError:
        pytest.skip("no IPv6 loopback here")


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Emulator("acme"), ValueError, "unknown vendor 'acme'; known are a2a, conduit, langgraph"),
        (lambda: Emulator(colour="red"), TypeError, "unknown option colour; allowed are absent, .*revision"),
        (lambda: Emulator(revision="C"), ValueError, "'revision' must be in"),
        (lambda: Emulator(strict="yes"), TypeError, "'strict' must be"),
        (lambda: Emulator(permissions=["fly"]), ValueError, "must be in"),
        (lambda: Emulator(max_per_page=0), ValueError, "'max_per_page' must be >= 1"),
        (lambda: Emulator(token=" "), ValueError, "a token is a word"),
        (lambda: Emulator(script=cast(Any, "abc")), TypeError, "a script is a sequence of Turn"),
        (lambda: Emulator(script=cast(Any, 7)), TypeError, "a script is a sequence of Turn"),
        (lambda: Turn(running=-1), ValueError, "running is a number of seconds"),
        (lambda: Turn(pending=float("nan")), ValueError, "pending is a number of seconds"),
        (lambda: Turn(iterations=-1), ValueError, "iterations"),
        (lambda: Fault.drop(times=0), ValueError, "times is a number from 1 on"),
        (lambda: Fault.drop(after=-1), ValueError, "after"),
        (lambda: Fault.malformed(cast(Any, "odd")), ValueError, "shape"),
        (lambda: Fault.malformed("missing_field"), ValueError, "needs target="),
        (lambda: ManualClock().advance(-1), ValueError, "cannot go back"),
    ],
)
def test_bad_values_are_refused_by_name(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_no_repr_shows_a_token() -> None:
    emulator = Emulator("narrative", token="s3cret", others={"als0": (1, 2)}, clock=ManualClock(3))
    shown = repr((emulator, emulator.state, emulator.state.options, emulator.state.stage))
    assert "s3cret" not in shown
    assert "als0" not in shown
    assert "ManualClock(3)" in shown


@pytest.mark.asyncio
async def test_the_log_has_every_exchange_without_the_token() -> None:
    async with served() as http:
        conversation = await http.create()
        http.clock.advance(2)
        await http.start(conversation, say("Log me."))
        await http.get(f"/agents/conversations/{conversation}/messages?since=0")
        created, started, read = http.emulator.exchanges
        assert (created.method, created.path, created.status) == ("POST", "/agents/conversations", 201)
        assert created.body == {"defaults": defaults()}
        assert (started.status, started.started, started.finished, started.fault) == (202, 2, 2, None)
        assert (read.query, read.body) == ({"since": "0"}, None)
        assert "authorization" not in {name.lower() for name in started.headers}
        assert started.headers["content-type"] == "application/json"
        assert http.emulator.requests("POST", START) == (started,)
        assert http.emulator.requests(path="*/messages") == (read,)


@pytest.mark.asyncio
@pytest.mark.parametrize(("committed", "started"), [(False, 0), (True, 1)])
async def test_a_dropped_request_is_handled_only_when_committed(committed: bool, started: int) -> None:
    async with served() as http:
        conversation = await http.create()
        fault = Fault.drop(committed=committed, path=START)
        http.emulator.fail(fault)
        body = say()
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await http.start(conversation, body)
        (entry,) = http.emulator.requests("POST", START)
        assert (entry.status, entry.fault) == (None, fault)
        assert http.emulator.state.runs_started == started
        assert (await http.start(conversation, body)).status == (200 if committed else 202)
        assert http.emulator.state.runs_started == 1


@pytest.mark.asyncio
async def test_a_cut_sends_half_of_the_body() -> None:
    async with served() as http:
        conversation = await http.create()
        http.emulator.fail(Fault.cut(path=START))
        with pytest.raises(aiohttp.ClientPayloadError):
            await http.start(conversation, say())
        assert http.emulator.state.runs_started == 1
        assert http.emulator.requests("POST", START)[0].status == 202


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
@pytest.mark.parametrize("committed", [False, True])
async def test_an_answered_fault_has_the_vendors_error_body(status: int, committed: bool) -> None:
    async with served() as http:
        conversation = await http.create()
        http.emulator.fail(Fault.answer(status, retry_after=2, committed=committed, path=START, headers={"X-A": "b"}))
        answer = await http.start(conversation, say())
        assert (answer.status, answer.body["status"], answer.headers["Retry-After"]) == (status, status, "2")
        assert answer.headers["X-A"] == "b"
        assert http.emulator.state.runs_started == int(committed)


@pytest.mark.asyncio
async def test_retry_after_may_be_a_date_and_the_body_ones_own() -> None:
    soon = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    async with served() as http:
        http.emulator.fail(
            Fault.answer(503, retry_after=soon, content=b"busy"),
            Fault.answer(503, retry_after=timedelta(seconds=60)),
            Fault.answer(503),
        )
        answer = await http.get("/whoami")
        assert (answer.headers["Retry-After"], answer.content) == ("Wed, 02 Jan 2030 03:04:05 GMT", b"busy")
        wait = parsedate_to_datetime((await http.get("/whoami")).headers["Retry-After"]) - datetime.now(UTC)
        assert timedelta(seconds=50) < wait <= timedelta(seconds=60)
        assert "Retry-After" not in (await http.get("/whoami")).headers


@pytest.mark.asyncio
@pytest.mark.parametrize("committed", [False, True])
async def test_a_delay_holds_the_request_before_or_after_it_is_handled(committed: bool) -> None:
    async with served() as http:
        conversation = await http.create()
        http.emulator.fail(Fault.delay(0.2, committed=committed, path=START))
        began = time.monotonic()
        pending = asyncio.create_task(http.start(conversation, say()))
        await asyncio.sleep(0.1)
        assert http.emulator.state.runs_started == int(committed)
        assert (await pending).status == 202
        assert time.monotonic() - began >= 0.19


@pytest.mark.asyncio
async def test_a_stop_does_not_wait_for_a_long_delay() -> None:
    began = time.monotonic()
    async with aiohttp.ClientSession() as session:
        async with Emulator() as emulator:
            emulator.fail(Fault.delay(60))
            pending = asyncio.create_task(session.post(emulator.base_url + "/whoami", data=b"no JSON"))
            await asyncio.sleep(0.2)
            (entry,) = emulator.exchanges
            assert (entry.body, entry.status, entry.finished) == (None, None, None)
        with pytest.raises(aiohttp.ClientError):
            await pending
    assert time.monotonic() - began < 45


@pytest.mark.asyncio
async def test_malformed_bodies_come_in_six_shapes() -> None:
    async with served() as http:
        conversation = await http.create()
        path = f"/agents/conversations/{conversation}"
        http.emulator.fail(
            Fault.malformed(),
            Fault.malformed("html"),
            Fault.malformed("empty"),
            Fault.malformed("wrong_shape"),
            Fault.malformed("missing_field", target="defaults.model"),
            Fault.malformed("wrong_type", target="version"),
            Fault.malformed("missing_field", target="no.such.field"),
        )
        broken = await http.get(path)
        assert broken.status == 200
        with pytest.raises(ValueError, match="Unterminated"):
            _ = broken.body
        page = await http.get(path)
        assert page.headers["Content-Type"] == "text/html"
        assert (await http.get(path)).content == b""
        assert isinstance((await http.get(path)).body, list)
        missing = (await http.get(path)).body
        assert "model" not in missing["defaults"]
        assert "max_iterations" in missing["defaults"]
        assert isinstance((await http.get(path)).body["version"], dict)
        assert (await http.get(path)).body == (await http.get(path)).body


@pytest.mark.asyncio
async def test_a_redirect_points_where_it_is_told() -> None:
    async with served() as http:
        conversation = await http.create()
        http.emulator.fail(Fault.redirect("https://elsewhere.example/", path=START))
        answer = await http.start(conversation, say())
        assert (answer.status, answer.headers["Location"]) == (302, "https://elsewhere.example/")
        assert http.emulator.state.runs_started == 0


@pytest.mark.asyncio
async def test_a_huge_body_is_valid_and_comes_without_a_length() -> None:
    async with served() as http:
        path = f"/agents/conversations/{await http.create()}"
        http.emulator.fail(Fault.huge(300_000), Fault.huge(10, path="/whoami"))
        huge = await http.get(path)
        assert len(huge.content) > 300_000
        assert "Content-Length" not in huge.headers
        assert huge.body["id"] in path


@pytest.mark.asyncio
async def test_faults_take_turns_and_wait_for_their_requests() -> None:
    async with served() as http:
        once = Fault.answer(500)
        http.emulator.faults.add(once, Fault.answer(501, after=2), Fault.answer(502, method="POST", times=None))
        statuses = [(await http.get("/whoami")).status for _ in range(4)]
        assert statuses == [500, 200, 501, 200]
        assert [fault.status for fault in http.emulator.faults.waiting] == [502]
        assert [(await http.ask("POST", "/whoami")).status for _ in range(2)] == [502, 502]
        http.emulator.faults.clear()
        assert (await http.ask("POST", "/whoami")).status == 405


@pytest.mark.asyncio
async def test_a_large_request_body_is_taken() -> None:
    async with served() as http:
        conversation = await http.create()
        async with http.session.post(
            f"{http.emulator.base_url}/agents/conversations/{conversation}/runs",
            data=io.BytesIO(json.dumps(say("x" * 3_000_000)).encode()),
            headers={"Authorization": f"Bearer {http.emulator.token}"},
        ) as response:
            assert response.status == 202
        http.clock.advance(1)
        (first, _) = (await http.messages(conversation))["messages"]
        assert len(first["content_blocks"][0]["text"]) == 3_000_000


@pytest.mark.asyncio
async def test_a_fault_may_be_narrowed_for_a_vendors_own_failure() -> None:
    async with served() as http:
        http.emulator.fail(Fault.vendor("invalid-stored-field", method="GET", path="/agents/conversations", after=1))
        statuses = [(await http.get("/agents/conversations")).status for _ in range(3)]
        assert statuses == [200, 500, 200]


@pytest.mark.asyncio
async def test_cut_connections_and_callers_who_left_are_no_errors_of_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served() as http:
        http.emulator.fail(Fault.delay(0.2), Fault.drop(), Fault.cut())
        leaving = asyncio.create_task(http.get("/whoami"))
        await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.wait([leaving])
        await asyncio.sleep(0.25)
        for _ in range(2):
            with pytest.raises(aiohttp.ClientError):
                await http.ask("POST", "/agents/conversations", {"defaults": defaults()})
        assert [entry.status for entry in http.emulator.exchanges] == [200, None, 201]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_wall_times_count_from_where_they_are_told() -> None:
    clock = ManualClock(100)
    emulator = Emulator(clock=clock, wall_start=datetime(2026, 1, 1, tzinfo=UTC))
    clock.advance(90)
    assert emulator.state.stage.wall(emulator.state.stage.now()) == datetime(2026, 1, 1, 0, 1, 30, tzinfo=UTC)


def test_the_package_offers_what_it_lists_and_nothing_else() -> None:
    assert {name: getattr(package, name) for name in package.__all__}.keys() == set(package.__all__)
    with pytest.raises(AttributeError, match=r"no attribute 'Simulator'"):
        _ = getattr(package, "Simulator")  # noqa: B009


def test_the_plugin_loads_the_server_only_when_it_is_used() -> None:
    code = "import sys, agentruns.emulator.pytest_plugin; print('agentruns.emulator.server' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


class Tiny(Vendor):
    """A vendor with one endpoint and nothing of its own."""

    name = "tiny"
    runs_started = 0

    @classmethod
    def build(cls, stage: Stage, options: Mapping[str, object]) -> Tiny:
        return cls(stage)

    @property
    def routes(self) -> tuple[Route, ...]:
        return (Route("GET", "/things/{id}", lambda request: Reply.of(200, request.params["id"])),)

    def refusal(self, status: int, detail: str, path: str) -> Reply:
        return Reply.of(status, phrase(status))


@pytest.mark.parametrize(
    ("header", "path", "answer"),
    [
        ("Bearer word", "/things/7", (200, "7")),
        ("bearer word", "/other", (404, "Not Found")),
        ("Bearer other", "/things/7", (401, "Unauthorized")),
        ("Basic word", "/things/7", (401, "Unauthorized")),
        ("", "/things/7", (401, "Unauthorized")),
    ],
)
def test_a_vendor_needs_little_of_its_own(header: str, path: str, answer: tuple[int, str]) -> None:
    tiny = Tiny.build(Stage("word", ManualClock(), datetime.now(UTC)), {})
    reply = tiny.respond(Request(method="GET", path=path, headers={"Authorization": header}))
    assert (reply.status, json.loads(reply.content)) == answer


def test_the_script_may_be_changed_later() -> None:
    emulator = Emulator(script=[Turn("a")])
    assert emulator.script == (Turn("a"),)
    emulator.script = None
    assert emulator.script == ()
