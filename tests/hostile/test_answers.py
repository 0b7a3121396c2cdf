"""
Answers that no vendor documents, over real sockets: to a read, to a stream, and to the start of a run.

Whatever comes, it ends in an error that the documents name or is survived, in bounded time; the token shows nowhere;
and a run that a vendor did start is started once.
"""

import asyncio
import time
from itertools import cycle
from typing import Any

import pytest

from agentruns import (
    APIError,
    DeadlineExceededError,
    OutcomeUnknownError,
    ProtocolError,
    RateLimitedError,
    Retry,
    Run,
    RunStatus,
    ServerError,
    conduit,
    middesk,
    narrative,
    origami,
)
from tests.hostile.hostile_servers import (
    HOUSES,
    TOKEN,
    Trap,
    assert_hidden,
    besieged,
    debugged,
    logged,
    outcome,
    sane,
    told,
)
from tests.hostile.undocumented_answers import CORE, TWISTS, Hostile, of_waits, sends, whole
from tests.raw_server import Server, reply

pytestmark = [pytest.mark.asyncio, pytest.mark.hasty]

NOBODY = "3c90c3cc-0d44-4b50-8888-8dd25736052a"

MOST_WORK = 3.0
"""Seconds of work that an answer may make, for both ends together: a client does nothing else meanwhile."""

LONGEST_TEXT = 20_000
"""Characters that the text of an error may have: a server that says much is not repeated in full."""


def check(end: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Check what holds of every end: it tells no secrets, and is not longer than anybody would read."""
    if isinstance(end, Run):
        sane(end)
    else:
        assert_hidden(told(end))
        assert len(str(end)) < LONGEST_TEXT
    assert_hidden(logged(caplog))


@pytest.mark.parametrize("hostile", TWISTS.values(), ids=TWISTS)
async def test_a_read_ends_as_documented_and_soon(hostile: Hostile, everything: pytest.LogCaptureFixture) -> None:
    debugged()
    loop = asyncio.get_running_loop()
    async with besieged("narrative", retry=Retry(attempts=2)) as (house, front, client):
        run = await client.start(await house.origin(client))
        front.trap(Trap(house.poll_line, hostile.twist))
        began, worked = loop.time(), time.process_time()
        end = await outcome(client.fetch(run))
        took, worked = loop.time() - began, time.process_time() - worked

    check(end, everything)
    assert isinstance(end, hostile.ends), end
    assert not isinstance(end, Run) or end.ref == run.ref
    assert front.struck <= 2
    assert took < 2 * 30 + 2
    assert worked < MOST_WORK


@pytest.mark.parametrize("name", [*CORE, *of_waits()])
async def test_a_stream_goes_on_as_soon_as_the_vendor_is_honest_again(
    name: str, everything: pytest.LogCaptureFixture
) -> None:
    hostile = TWISTS[name]
    async with besieged("narrative") as (house, front, client):
        run = await client.start(await house.origin(client))
        front.trap(Trap(house.poll_line, hostile.twist, times=2))
        end = await outcome(client.result(run.ref, timeout=500.0))

    check(end, everything)
    assert isinstance(end, Run if hostile.lost else (*hostile.ends, Run)), end
    assert not isinstance(end, Run) or (end.ref, end.status) == (run.ref, RunStatus.COMPLETED)


@pytest.mark.parametrize(
    ("vendor", "name"),
    [
        *((vendor, name) for vendor in ("narrative", "middesk") for name in CORE),
        *zip(cycle(("origami", "conduit")), (name for name in TWISTS if TWISTS[name].lost)),
    ],
)
async def test_a_run_that_was_started_is_not_started_again_whatever_the_answer(
    vendor: str, name: str, everything: pytest.LogCaptureFixture
) -> None:
    hostile = TWISTS[name]
    trap = Trap(HOUSES[vendor].start_line, hostile.twist, times=1, done=not hostile.idle)
    async with besieged(vendor, trap) as (house, front, client):
        end = await outcome(client.start(await house.origin(client)))
        if isinstance(end, Run):
            assert (await client.fetch(end)).ref == end.ref

    check(end, everything)
    assert front.struck == 1
    assert house.vendor.runs_started == (1 if isinstance(end, Run) or not hostile.idle else 0)
    assert isinstance(end, Run if hostile.lost else (*hostile.ends, Run, OutcomeUnknownError)), end


@pytest.mark.parametrize("vendor", HOUSES)
@pytest.mark.parametrize(
    "name", ["a reset", "silence", "502 html", "html", "garbage", "307 without a place to go", "101"]
)
async def test_a_start_that_is_never_answered_ends_and_says_so(
    vendor: str, name: str, everything: pytest.LogCaptureFixture
) -> None:
    async with besieged(vendor, Trap(HOUSES[vendor].start_line, TWISTS[name].twist, done=False)) as (
        house,
        front,
        client,
    ):
        origin = await house.origin(client)
        end = await outcome(client.start(origin))
        sent = front.asked(house.start_line)

    check(end, everything)
    assert isinstance(end, (*TWISTS[name].ends, OutcomeUnknownError)), end
    assert house.vendor.runs_started == 0
    if house.repeats_starts:
        assert len({each.body for each in sent}) == 1
        assert len({each.header("idempotency-key") for each in sent}) == 1
        assert len(sent) <= 4
    else:
        assert len(sent) == 1
        assert isinstance(end, OutcomeUnknownError | ProtocolError)


@pytest.mark.parametrize("vendor", HOUSES)
@pytest.mark.parametrize("name", ["silence", "502 html", "html", "an empty object", "401 html", "deep objects"])
async def test_a_vendor_that_has_nothing_to_say_but_that_ends_every_start(
    vendor: str, name: str, everything: pytest.LogCaptureFixture
) -> None:
    async with besieged(vendor, Trap(".*", TWISTS[name].twist, done=False)) as (_house, front, client):
        origin = {
            "narrative": narrative.UserMessage(NOBODY, "Do it."),
            "middesk": middesk.RunRequest("cip_orchestrator", business_id=NOBODY),
            "origami": origami.Prompt("Find clinics."),
            "conduit": conduit.Dispatch(NOBODY),
        }[vendor]
        end = await outcome(client.start(origin))

    check(end, everything)
    assert isinstance(end, (*TWISTS[name].ends, OutcomeUnknownError)), end
    assert len(front.seen) < 50


# Waits ----------------------------------------------------------------------------------------------------------------

BEYOND = ("1e308", "Fri, 31 Dec 9999 23:59:59 GMT", "31536000")
"""Wishes that nobody lives to fulfil."""


@pytest.mark.parametrize("wish", BEYOND)
@pytest.mark.parametrize("status", ["429 Slow", "503 Slow", "200 Slow"])
async def test_a_wish_for_an_eternity_ends_a_stream_at_its_deadline_at_the_latest(status: str, wish: str) -> None:
    loop = asyncio.get_running_loop()
    twist = sends(lambda honest: whole(honest, f"Retry-After: {wish}", status=status))
    async with besieged("narrative") as (house, front, client):
        run = await client.start(await house.origin(client))
        front.trap(Trap(house.poll_line, twist, times=1))
        began = loop.time()
        end = await outcome(client.result(run.ref, timeout=300.0, patience=60.0))
        took = loop.time() - began

    assert isinstance(end, Run | ServerError | RateLimitedError | DeadlineExceededError), end
    assert took < 301
    assert front.struck == 1


@pytest.mark.parametrize("wish", BEYOND)
async def test_a_failing_vendor_that_wishes_for_an_eternity_gets_the_patience_of_the_caller(wish: str) -> None:
    async with besieged("narrative") as (house, front, client):
        run = await client.start(await house.origin(client))
        front.trap(Trap(house.poll_line, sends(whole(b"", f"Retry-After: {wish}", status="503 Slow"))))
        loop = asyncio.get_running_loop()
        began = loop.time()
        end = await outcome(client.result(run.ref, timeout=300.0, patience=60.0))
        took = loop.time() - began

    assert isinstance(end, ServerError), end
    assert took < 62


@pytest.mark.parametrize("wish", BEYOND)
@pytest.mark.parametrize("status", ["429 Slow", "503 Slow"])
async def test_one_wish_for_an_eternity_does_not_make_a_client_useless_for_ever(status: str, wish: str) -> None:
    async with besieged("narrative") as (house, front, client):
        run = await client.start(await house.origin(client))
        front.trap(Trap(house.poll_line, sends(whole(b"", f"Retry-After: {wish}", status=status)), times=1))
        assert isinstance(await outcome(client.fetch(run)), ServerError | RateLimitedError)
        await asyncio.sleep(2 * 3600.0)

        assert (await client.fetch(run)).ref == run.ref


# Redirects ------------------------------------------------------------------------------------------------------------

PLACES = {
    "another port": "{other}/login",
    "another port, with the token": f"{{other}}/?token={TOKEN}",
    "without a scheme": "//127.0.0.1:{port}/login",
    "with a user": "http://user:password@127.0.0.1:{port}/",
    "upper case": "HTTP://127.0.0.1:{port}/",
    "backslashes": "http:\\\\127.0.0.1:{port}\\",
    "blanks before": "   {other}/",
    "a tab within": "ht\ttp://127.0.0.1:{port}/",
    "https": "https://127.0.0.1:{port}/",
    "relative": "login",
    "absolute": "/login",
    "itself": "",
    "upwards": "../../../../login",
    "a fragment": "#here",
    "no URL": "http://[::1",
    "a file": "file:///etc/passwd",
    "a script": "javascript:alert(1)",
    "8 KB": "{other}/" + "x" * 8000,
}


@pytest.mark.parametrize(
    ("status", "name"),
    [
        *((status, name) for status in (302, 307) for name in PLACES),
        *((status, name) for status in (300, 301, 303, 305, 308) for name in ("another port", "relative")),
    ],
)
async def test_a_redirect_leads_nowhere(status: int, name: str, everything: pytest.LogCaptureFixture) -> None:
    async with Server(reply()) as other, besieged("middesk") as (house, front, client):
        started = await client.start(await house.origin(client))
        target = PLACES[name].format(other=other.url, port=other.port)
        away = sends(whole(b"", f"Location: {target}", f"Refresh: 0; url={target}", status=f"{status} Away"))
        before = len(front.seen)
        front.trap(Trap(".*", away, done=False))
        ends = [
            await outcome(client.fetch(started)),
            await outcome(client.result(started.ref)),
            await outcome(client.start(await house.origin(client))),
        ]

    for end in ends:
        check(end, everything)
        assert isinstance(end, ProtocolError | APIError), end
    assert len(front.seen) == before + 3
    assert other.connections == 0
    assert house.vendor.runs_started == 1
