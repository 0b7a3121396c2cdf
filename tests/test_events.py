"""The events of a run, live: what the vendor tells, in its order, and no more of it than somebody asks for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from agentruns import AgentRunsError, Client, RunRef, ServerEvent, TransportError, UnsupportedError, connect, middesk
from agentruns._values.run import Progress
from agentruns.emulator import Emulator, Turn
from tests.scripted_wire import Wire, client_of

pytestmark = pytest.mark.asyncio

RUN = RunRef("r1")
TOKEN = "mk_live_0123456789abcdef"
Send = Callable[[bytes], "asyncio.Future[None] | None"]


@asynccontextmanager
async def told(*pieces: bytes, status: int = 200, ends: bool = True) -> AsyncIterator[Client]:
    """Serve one stream of events, piece by piece; one that does not end waits for the client to hang up."""
    hung_up = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(status=status, headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        try:
            for piece in pieces:
                await answer.write(piece)
                await asyncio.sleep(0)
            while not ends:
                await answer.write(b": still here\n\n")
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.CancelledError):
            hung_up.set()
            raise
        return answer

    app = web.Application()
    app.router.add_get("/runs/r1/stream", stream)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with connect(middesk, token=TOKEN, base_url=f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            yield client
    finally:
        await runner.cleanup()


def event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


async def test_events_come_in_order_until_the_server_ends_the_stream() -> None:
    pieces = [event("A", '{"n": 1}'), event("A", '{"n": 2}') + event("B", "no json"), event("A", r'["cut \ud83d"]')]
    async with told(*pieces) as client, client.events(RUN) as events:
        assert [each async for each in events] == [
            ServerEvent("A", {"n": 1}),
            ServerEvent("A", {"n": 2}),
            ServerEvent("B", "no json"),
            ServerEvent("A", ["cut \ufffd"]),
        ]
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_an_event_that_quotes_the_token_does_not_show_it() -> None:
    async with told(event("A", f'{{"said": "{TOKEN}"}}')) as client, client.events(RUN) as events:
        assert TOKEN not in str(await anext(events))


async def test_a_refused_stream_is_an_error_at_every_step() -> None:
    async with told(status=404) as client, client.events(RUN) as events:
        for _ in range(2):
            with pytest.raises(TransportError, match="answered 404"):
                await anext(events)


async def test_leaving_hangs_up_and_a_step_that_waits_ends() -> None:
    async with told(event("A", "1"), ends=False) as client:
        events = client.events(RUN)
        assert (await anext(events)).data == 1
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await events.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        await events.aclose()


async def test_a_step_that_is_cut_off_loses_no_event() -> None:
    async with told(event("A", "1"), event("A", "2"), ends=False) as client, client.events(RUN) as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0)
        assert [(await anext(events)).data, (await anext(events)).data] == [1, 2]


async def test_events_are_not_read_far_ahead() -> None:
    """The server writes for ever; what was read is bounded, and all of it comes in order."""
    seen = []
    async with told(*(event("A", str(n)) for n in range(500)), ends=False) as client, client.events(RUN) as events:
        seen.append((await anext(events)).data)
        await asyncio.sleep(0.2)
        assert events._events.qsize() <= 100
        seen += [(await anext(events)).data for _ in range(499)]

    assert seen == list(range(500))


async def test_events_that_were_never_asked_for_send_nothing() -> None:
    wire = Wire({})
    async with client_of(wire, middesk) as client, client.events(RUN):
        pass
    assert wire.asked == []


async def test_closing_the_client_ends_the_wait_for_an_event() -> None:
    async with told(event("A", "1"), ends=False) as client:
        events = client.events(RUN)
        await anext(events)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
    with pytest.raises(AgentRunsError, match="closed"):
        await waiting


async def test_a_vendor_without_events_is_refused_before_any_request() -> None:
    wire = Wire({})
    async with client_of(wire) as client:
        with pytest.raises(UnsupportedError, match="announce events"):
            client.events(RUN)


@pytest.mark.parametrize("flavour", ["middesk", "ag-ui"])
async def test_the_events_of_a_run_tell_how_far_it_is(flavour: str) -> None:  # D
    async with (
        Emulator("middesk", script=[Turn("Done.", running=0.4)], stream=flavour) as emulator,
        connect(middesk, base_url=emulator.base_url, token=emulator.token) as client,
    ):
        origin = middesk.RunRequest("cip_orchestrator", business_id="b86f3c52-11d9-4f07-8e6a-90c2d5a7714f")
        run = await client.start(origin)
        async with asyncio.timeout(20), client.events(run) as events:
            told = [middesk.RunEvent.of(each) async for each in events]
        output = (await client.fetch(run)).output

    assert (told[0].type, told[-1].type) == (middesk.RUN_STARTED, middesk.RUN_FINISHED)
    assert {each.run_id for each in told} == {run.id}
    done = [each.progress.done for each in told if each.progress]
    assert done == sorted(done)
    assert done[-1] > 0
    snapshot = [each for each in told if each.type == middesk.STATE_SNAPSHOT][-1]
    assert snapshot.progress == Progress(done[-1], len(snapshot.steps))
    assert [each.title for each in snapshot.artifacts] == [each["title"] for each in output["artifacts"]]
    assert (told[0].steps, told[0].artifacts, told[0].progress) == ((), (), None)


async def test_an_event_of_another_shape_is_read_as_far_as_it_goes() -> None:
    odd = middesk.RunEvent.of(ServerEvent("STATE_SNAPSHOT", {"run_id": 7, "snapshot": {"steps": [3, {}]}}))

    assert (odd.run_id, odd.progress) == ("", Progress(0, 2))
    with pytest.raises(AgentRunsError, match=r"@ \$\.snapshot\.steps"):
        _ = odd.steps
    assert middesk.RunEvent.of(ServerEvent("", "text")) == middesk.RunEvent("", "")
