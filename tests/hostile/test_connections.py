"""Faults of real connections: before the request is read, after the answer, in TLS, and while a server comes back."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
import pytest
import trustme

from agentruns import (
    ActionRequiredError,
    APIError,
    OutcomeUnknownError,
    ProtocolError,
    Retry,
    Run,
    RunRef,
    RunStatus,
    ServerError,
    TransportError,
    conduit,
    middesk,
    narrative,
    origami,
)
from agentruns.emulator import Call, Turn
from tests.hostile.hostile_servers import (
    HOUSES,
    Front,
    House,
    Line,
    Talk,
    Trap,
    assert_hidden,
    besieged,
    client_of,
    debugged,
    logged,
    outcome,
    sane,
    told,
)
from tests.hostile.undocumented_answers import breaks_after, falls_silent_after, hangs_up_after, head, sends, whole
from tests.raw_server import free_port

pytestmark = [pytest.mark.asyncio, pytest.mark.hasty]

NOBODY = "3c90c3cc-0d44-4b50-8888-8dd25736052a"

STARTS: dict[str, Callable[[], Any]] = {
    "narrative": lambda: narrative.UserMessage(NOBODY, "Do it.", expected_version=0),
    "middesk": lambda: middesk.RunRequest("cip_orchestrator", thread_id=NOBODY),
    "origami": lambda: origami.Prompt("Find clinics."),
    "conduit": lambda: conduit.Dispatch(NOBODY, trigger_id=NOBODY),
}

every_vendor = pytest.mark.parametrize("vendor", HOUSES)


# Before the request is read -------------------------------------------------------------------------------------------


async def resets_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await breaks_after(b"")(writer, b"")


async def closes_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def resets_at_the_first_byte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    await breaks_after(b"")(writer, b"")


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def reads_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


async def closes_its_half_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write_eof()
    await reader.read()


async def speaks_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(whole(b"{}"))
    await reader.read()


async def refuses_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(whole(b"", "Connection: close", status="503 Full"))
    writer.write_eof()
    await reader.read()


async def greets_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.test ESMTP\r\n")
    await reader.read()


TALKS: dict[str, Talk] = {
    talk.__name__: talk
    for talk in (
        resets_at_once,
        closes_at_once,
        resets_at_the_first_byte,
        says_nothing,
        reads_nothing,
        closes_its_half_at_once,
        speaks_first,
        refuses_first,
        greets_first,
    )
}


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
@every_vendor
async def test_a_server_that_never_heard_what_was_asked_ends_every_wait(
    talk: Talk, vendor: str, everything: pytest.LogCaptureFixture
) -> None:
    debugged()
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with Line(talk) as line, client_of(HOUSES[vendor], line.url) as client:
        ends = [
            await outcome(client.fetch(RunRef(NOBODY, NOBODY))),
            await outcome(client.result(RunRef(NOBODY, NOBODY), patience=5.0)),
            await outcome(client.start(STARTS[vendor]())),
        ]
        took = loop.time() - began

    for end in ends:
        assert isinstance(end, TransportError | ProtocolError | OutcomeUnknownError | ServerError), end
        assert_hidden(told(end))
    assert_hidden(logged(everything))
    assert took < 400
    assert line.connections <= 40


@pytest.mark.parametrize("end", [hangs_up_after, breaks_after, falls_silent_after])
async def test_an_answer_that_comes_before_the_request_is_whole_ends_it_and_nothing_is_sent_twice(end: Any) -> None:
    async def refuses_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        await end(whole(b"{}", "Connection: close", status="413 Large"))(writer, b"")

    async with Line(refuses_early) as line, client_of(HOUSES["conduit"], line.url) as client:
        ended = await outcome(client.perform(conduit.send_message("cv1", body="long " * 2**21)))

    assert isinstance(ended, APIError | OutcomeUnknownError), ended
    assert line.connections == 1


@every_vendor
async def test_a_port_where_nobody_listens_is_no_unknown_outcome(vendor: str) -> None:
    async with client_of(HOUSES[vendor], f"http://127.0.0.1:{free_port()}") as client:
        read = await outcome(client.fetch(RunRef(NOBODY, NOBODY)))
        started = await outcome(client.start(STARTS[vendor]()))

    assert isinstance(read, TransportError)
    assert isinstance(started, TransportError), started
    assert (read.sent, started.sent) == (False, False)


# Kept connections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "leave",
    [
        hangs_up_after(whole),
        breaks_after(whole),
        hangs_up_after(lambda honest: whole(honest, "Connection: keep-alive", "Keep-Alive: timeout=600")),
        hangs_up_after(lambda honest: whole(honest, "Connection: close")),
    ],
    ids=["closed", "reset", "closed despite a promise", "closed as announced"],
)
@every_vendor
async def test_a_connection_that_ends_with_its_answer_costs_no_start(leave: Any, vendor: str) -> None:
    async with besieged(vendor, Trap("(GET|POST) .*", leave, times=None)) as (house, front, client):
        end = await outcome(client.start(await house.origin(client)))

    assert isinstance(end, Run), end
    assert house.vendor.runs_started == 1
    assert len(front.asked(house.start_line)) == 1


@pytest.mark.parametrize("break_", [breaks_after(b""), hangs_up_after(b"")], ids=["reset", "closed"])
@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
@every_vendor
async def test_a_kept_connection_that_breaks_under_a_start_starts_one_run_at_most(
    break_: Any, done: bool, vendor: str
) -> None:
    house = HOUSES[vendor]()
    async with Front(house) as front, client_of(house, front.url) as client:
        origin = await house.origin(client)
        await outcome(client.fetch(RunRef(NOBODY, NOBODY)))  # now there is a connection to be kept
        front.trap(Trap(house.start_line, break_, times=1, done=done))
        end = await outcome(client.start(origin))
        sent = front.asked(house.start_line)

    if done or house.repeats_starts:
        assert isinstance(end, Run), end
        assert house.vendor.runs_started == 1
    else:
        assert isinstance(end, OutcomeUnknownError), end
        assert house.vendor.runs_started == 0
    assert len(sent) == (2 if house.repeats_starts else 1)
    assert len({(each.body, each.header("idempotency-key")) for each in sent}) == 1


@pytest.mark.parametrize(
    "break_", [breaks_after(b""), hangs_up_after(b""), sends(whole(b"<html>"))], ids=["reset", "closed", "html"]
)
@pytest.mark.parametrize("vendor", ["narrative", "middesk", "origami"])
async def test_an_answer_that_is_lost_on_its_way_is_given_once(break_: Any, vendor: str) -> None:
    answers = []

    async def answer(action: Any) -> str:
        answers.append(action.id)
        return "yes"

    call = {
        "narrative": Call("user-ask", {"question": "Shall I?"}),
        "middesk": Call("watchlist_resolution", {"label": "Dismiss?", "artifacts": []}),
        "origami": Call("ask-questions", {"type": "confirm", "question": "Sure?"}),
    }[vendor]
    line = {"middesk": "POST .*/resume", "origami": "POST .*/agents/[^/]+/runs"}.get(vendor, "POST .*/runs")
    house = HOUSES[vendor](Turn(calls=[call], running=1.0), Turn("Done.", running=1.0))
    async with Front(house) as front, client_of(house, front.url) as client:
        origin = await _asking_origin(house, client)
        with pytest.raises(ActionRequiredError) as caught:
            await client.result(origin)
        paused = caught.value.run
        assert paused is not None
        front.trap(Trap(line, break_, times=1))
        before = house.vendor.runs_started
        last = await client.result(paused, tools=answer)

    assert last.status is RunStatus.COMPLETED
    assert len(answers) == 1
    assert house.vendor.runs_started == before + (0 if vendor == "middesk" else 1)


async def _asking_origin(house: House, client: Any) -> Any:
    if house.name != "narrative":
        return {
            "middesk": middesk.RunRequest("watchlist_resolution", business_id=NOBODY),
            "origami": origami.Prompt("Find clinics."),
        }[house.name]

    def ask(question: str) -> str:
        """Ask the user."""
        return question

    config = narrative.Config(
        model="anthropic.claude-opus-4.6",
        data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        max_iterations=8,
        max_tokens=2048,
        output_format_schema=narrative.TEXT_SCHEMA,
        client_tools=[narrative.client_tools({"ask": ask}, alias="user")],
    )
    conversation = await client.perform(narrative.create_conversation(config))
    return narrative.UserMessage(conversation.id, "Do it.")


# More than one answer -------------------------------------------------------------------------------------------------


def later(*more: Callable[[bytes], bytes], after: float) -> Any:
    """Answer honestly, and say more when the connection is kept for the next request."""

    async def twist(writer: asyncio.StreamWriter, honest: bytes) -> None:
        writer.write(whole(honest))
        await writer.drain()
        asyncio.get_running_loop().call_later(after, lambda: writer.write(b"".join(each(honest) for each in more)))

    return twist


def of_another_run(honest: bytes) -> bytes:
    return whole(
        honest.replace(b'"status":"running"', b'"status":"failed"').replace(b'"status":"pending"', b'"status":"failed"')
    )


LEFTOVERS: dict[str, tuple[Callable[[bytes], bytes], ...]] = {
    "an answer": (of_another_run,),
    "a hundred answers": (of_another_run,) * 100,
    "a refusal": (lambda _: whole(b"", status="408 Idle"),),
    "an error": (lambda _: whole(b"<html>", status="502 Bad"),),
    "a head": (lambda _: head("Content-Length: 10000"),),
    "half a head": (lambda _: head()[:-2],),
    "an interim answer": (lambda _: head(status="103 Early"),),
    "empty lines": (lambda _: b"\r\n" * 10,),
    "a reason to wait": (lambda _: whole(b"", "Retry-After: 50", status="429 Slow"),),
}


@pytest.mark.parametrize("after", [0.0, 0.25], ids=["at once", "late"])
@pytest.mark.parametrize("more", LEFTOVERS.values(), ids=LEFTOVERS)
async def test_what_nobody_asked_for_is_no_answer_to_the_next_request(
    more: tuple[Callable[[bytes], bytes], ...], after: float
) -> None:
    async with besieged("narrative", retry=Retry(attempts=1)) as (house, front, client):
        run = await client.start(await house.origin(client))
        front.trap(Trap(house.poll_line, later(*more, after=after), times=1))
        first = sane(await outcome(client.fetch(run)))
        await asyncio.sleep(1.0)
        second = await outcome(client.fetch(run))
        third = await outcome(client.fetch(run))

    assert first.status in {RunStatus.PENDING, RunStatus.RUNNING}
    for end in (second, third):
        assert isinstance(end, Run), end
        assert end.status is first.status
        sane(end)


@pytest.mark.parametrize("name", LEFTOVERS)
@every_vendor
async def test_what_nobody_asked_for_starts_no_second_run(name: str, vendor: str) -> None:
    house = HOUSES[vendor]()
    async with Front(house) as front, client_of(house, front.url) as client:
        origin = await house.origin(client)
        front.trap(Trap(".*", later(*LEFTOVERS[name], after=0.1), times=1))
        await outcome(client.fetch(RunRef(NOBODY, NOBODY)))
        await asyncio.sleep(1.0)
        end = await outcome(client.start(origin))

    assert house.vendor.runs_started == 1
    assert isinstance(end, Run), end


@pytest.mark.parametrize("name", LEFTOVERS)
async def test_the_timeout_holds_on_a_connection_of_a_borrowed_session_too(name: str) -> None:
    loop = asyncio.get_running_loop()
    async with (
        aiohttp.ClientSession() as session,
        besieged("narrative", retry=Retry(attempts=1), session=session) as (house, front, client),
    ):
        run = await client.start(await house.origin(client))
        front.trap(Trap(house.poll_line, later(*LEFTOVERS[name], after=0.1), times=1))
        await client.fetch(run)
        await asyncio.sleep(1.0)
        began = loop.time()
        await outcome(client.fetch(run))
        took = loop.time() - began

    assert took < 31


# TLS ------------------------------------------------------------------------------------------------------------------


def context_for(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> aiohttp.ClientSession:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Carry bytes to another port, both ways."""
    there, back = await asyncio.open_connection("127.0.0.1", port)

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()

    try:
        await asyncio.gather(carry(reader, back), carry(there, writer))
    finally:
        back.transport.abort()


@pytest.mark.parametrize("why", ["nobody vouches for it", "it is for another name", "it is for another address"])
@every_vendor
async def test_a_certificate_that_does_not_hold_is_refused_once_and_nothing_is_sent(
    why: str, vendor: str, everything: pytest.LogCaptureFixture
) -> None:
    debugged()
    authority = trustme.CA()
    names = {"it is for another name": ["api.vendor.test"], "it is for another address": ["127.0.0.2"]}
    context = context_for(authority, *names.get(why, ["127.0.0.1"]))
    house = HOUSES[vendor]()
    trusted = trustme.CA() if why == "nobody vouches for it" else authority
    async with (
        Front(house, tls=context) as front,
        Line(lambda reader, writer: tunnel(reader, writer, front.port)) as line,
        trusting(trusted) as session,
    ):
        url = line.url.replace("http:", "https:")
        ends, came = [], []
        async with client_of(house, url, session=session) as client:
            questions: Sequence[Callable[[], Awaitable[Any]]] = (
                lambda: client.fetch(RunRef(NOBODY, NOBODY)),
                lambda: client.result(RunRef(NOBODY, NOBODY)),
                lambda: client.start(STARTS[vendor]()),
            )
            for ask in questions:
                before = line.connections
                ends.append(await outcome(ask()))
                came.append(line.connections - before)

    for end in ends:
        assert isinstance(end, TransportError), end
        assert (end.sent, end.final) == (False, True)
        assert_hidden(told(end))
    assert_hidden(logged(everything))
    assert came == [1, 1, 1]
    assert front.seen == []


async def test_a_certificate_that_holds_is_taken() -> None:
    authority = trustme.CA()
    house = HOUSES["narrative"]()
    async with (
        Front(house, tls=context_for(authority, "127.0.0.1")) as front,
        trusting(authority) as session,
        client_of(house, front.url, session=session) as client,
    ):
        run = await client.result(await house.origin(client))

    assert run.status is RunStatus.COMPLETED


async def test_an_own_session_trusts_nobody_whom_the_system_does_not() -> None:
    house = HOUSES["narrative"]()
    async with Front(house, tls=context_for(trustme.CA(), "127.0.0.1")) as front, client_of(house, front.url) as client:
        end = await outcome(client.fetch(RunRef(NOBODY)))

    assert isinstance(end, TransportError)
    assert (end.sent, end.final) == (False, True)
    assert front.seen == []


@pytest.mark.parametrize(
    "talk", [says_nothing, closes_at_once, resets_at_once, speaks_first, greets_first], ids=lambda talk: talk.__name__
)
async def test_who_does_not_speak_tls_is_sent_nothing(talk: Talk) -> None:
    heard: list[bytes] = []

    async def listening(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(3))
        await talk(reader, writer)

    async with Line(listening) as line, client_of(HOUSES["middesk"], line.url.replace("http:", "https:")) as client:
        end = await outcome(client.start(STARTS["middesk"]()))

    assert isinstance(end, TransportError), end
    assert not end.sent
    assert {each[:1] for each in heard} == {b"\x16"}  # a handshake, and nothing else


# A server that comes back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", [0.0, 3.0, 40.0])
@every_vendor
async def test_a_stream_survives_a_restart_on_the_same_port(away: float, vendor: str) -> None:
    house = HOUSES[vendor](Turn("Done.", running=100.0))
    front = Front(house)
    async with front, client_of(house, front.url) as client:
        stream = client.stream(await house.origin(client), patience=60.0)
        states = [await anext(stream)]
        following = asyncio.ensure_future(_rest(stream))
        await asyncio.sleep(10.0)
        await front.__aexit__()
        await asyncio.sleep(away)
        await front.__aenter__()
        states += await following

    assert states[-1].status is RunStatus.COMPLETED
    assert house.vendor.runs_started == 1
    assert len({state.id for state in states}) == 1


async def test_a_server_that_stays_away_costs_no_more_than_the_patience() -> None:
    loop = asyncio.get_running_loop()
    house = HOUSES["narrative"](Turn("Done.", running=1e6))
    front = Front(house)
    async with front, client_of(house, front.url) as client:
        stream = client.stream(await house.origin(client), patience=20.0)
        await anext(stream)
        await front.__aexit__()
        left = loop.time()
        end = await outcome(_rest(stream))
        took = loop.time() - left
        await front.__aenter__()

    assert isinstance(end, TransportError), end
    assert not end.sent
    assert 20 <= took < 45


async def test_a_server_that_hangs_for_a_while_is_waited_for() -> None:
    async with besieged("narrative") as (house, front, client):
        run = await client.start(await house.origin(client))
        front.trap(Trap(house.poll_line, falls_silent_after(b""), times=1))
        last = await client.result(run, patience=60.0)

    assert last.status is RunStatus.COMPLETED


async def _rest(stream: Any) -> list[Run]:
    return [state async for state in stream]
