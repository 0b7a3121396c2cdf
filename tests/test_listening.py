"""Events that a stream listens to: polls go on beside them, and an event wakes one, or tells a state."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from agentruns import Backoff, Client, ConfigurationError, ProtocolError, RunRef, RunStatus, ServerEvent, TransportError
from agentruns._api.channel import Heard
from agentruns._values.exchange import Request
from agentruns._values.run import Progress, Run
from agentruns.dialects.vendor import Vendor
from tests.tiny_vendor import Server, client_of, tiny

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

SELDOM = Backoff(initial=100.0, factor=1.0, maximum=100.0, jitter=0.0)


class Announcing(Server):
    """A vendor that sends an event at each of those times after a stream was opened, and then keeps it open, or not."""

    def __init__(self, seconds: float, at: Sequence[float], *, ends: bool = False, refuses: bool = False) -> None:
        super().__init__(seconds, latency=0.0)
        self.at = at
        self.ends = ends
        self.refuses = refuses
        self.opened = 0
        self.open_now = 0

    async def listen(self, request: Request, opened: Callable[[], None], heard: Heard | None = None) -> None:
        self.opened += 1
        if self.refuses:
            raise TransportError(request, "lost")
        opened()
        self.open_now += 1
        began = asyncio.get_running_loop().time()
        try:
            for number, when in enumerate(self.at):
                await asyncio.sleep(began + when - asyncio.get_running_loop().time())
                if heard is not None:
                    await heard(ServerEvent("step", {"number": number}))
            if not self.ends:
                await asyncio.sleep(1e6)
        finally:
            self.open_now -= 1

    @property
    def reads(self) -> list[float]:
        return [round(when, 1) for when, line, _ in self.asked if line.startswith("GET")]


def vendor(event_of: Callable[[RunRef, ServerEvent], Any] | None = None) -> Vendor:
    names = vars(tiny()) | {"events": lambda ref: Request("GET", f"/runs/{ref.id}/events")}
    return Vendor.of(SimpleNamespace(**names, **({} if event_of is None else {"event_of": event_of})))


def listening(server: Server, event_of: Callable[[RunRef, ServerEvent], Any] | None = None) -> Client[Any, Any]:
    return client_of(server, dialect=vendor(event_of), schedule=SELDOM)


async def test_an_event_wakes_a_poll_and_news_is_seen_at_once() -> None:
    server = Announcing(7.0, [7.5])
    async with listening(server) as client:
        run = await client.result(server.begin("a-1"), events=True)
    assert run.status is RunStatus.COMPLETED
    assert server.reads == [0.0, 7.5]
    assert server.open_now == 0


async def test_polls_go_on_at_their_pace_while_nothing_is_heard() -> None:
    server = Announcing(150.0, [])
    async with listening(server) as client:
        await client.result(server.begin("a-1"), events=True)
    assert server.reads == [0.0, 100.0, 200.0]
    assert server.opened == 1


async def test_many_events_make_one_poll_a_second() -> None:
    server = Announcing(10.0, [number / 20 for number in range(201)])
    async with listening(server) as client:
        await client.result(server.begin("a-1"), events=True)
    assert len(server.reads) == 12
    assert server.reads[-1] - 10.0 <= 1.0


async def test_an_event_during_a_read_has_the_run_read_again_as_the_read_may_have_come_too_early() -> None:
    server = Announcing(8.03, [8.0, 8.04])
    server.latency = 0.05
    async with listening(server) as client:
        await client.result(server.begin("a-1"), events=True, timeout=50.0)
    assert server.reads[-1] <= 9.1


@pytest.mark.parametrize("trouble", [True, False])
async def test_a_stream_of_events_that_fails_or_ends_without_news_is_not_opened_again(trouble: bool) -> None:
    server = Announcing(250.0, [], ends=True, refuses=trouble)
    async with listening(server) as client:
        await client.result(server.begin("a-1"), events=True)
    assert server.opened == 2  # once more when the first state was read
    assert server.reads[-2:] == [200.0, 300.0]


async def test_a_function_gets_every_event_across_steps_that_are_cut_off() -> None:
    server = Announcing(50.0, [1.0, 20.0, 21.0, 50.5])
    heard: list[Any] = []
    async with listening(server) as client:
        stream = client.stream(server.begin("a-1"), events=heard.append)
        while True:
            try:
                run = await asyncio.wait_for(anext(stream), 3.0)
            except TimeoutError:
                continue
            if run.status.is_over:
                break
    assert [event.data["number"] for event in heard] == [0, 1, 2, 3]
    assert server.opened == 1


async def test_what_the_function_raises_a_step_raises_once_and_goes_on() -> None:
    server = Announcing(150.0, [5.0])

    def refuse(_: ServerEvent) -> None:
        raise LookupError("no such place")

    async with listening(server) as client:
        stream = client.stream(server.begin("a-1"), events=refuse)
        await anext(stream)
        with pytest.raises(LookupError, match="no such place"):
            await anext(stream)
        assert (await anext(stream)).status is RunStatus.COMPLETED


async def test_an_async_function_is_refused_at_once() -> None:
    async def f(_: ServerEvent) -> None: ...

    async with listening(Announcing(1.0, [])) as client:
        with pytest.raises(ConfigurationError, match="not async"):
            client.stream(RunRef("a-1"), events=f)


# What a dialect makes of an event ------------------------------------------------------------------------------------


def told(ref: RunRef, event: ServerEvent) -> Run[Any]:
    done = event.data["number"] + 1
    return Run(ref, RunStatus.RUNNING, "working", progress=Progress(done, 5), vendor="tiny")


async def test_states_that_events_tell_are_shown_to_who_asked_for_progress_and_read_by_nobody() -> None:
    server = Announcing(99.0, [1.0, 2.0, 3.0])
    async with listening(server, told) as client:
        ref = server.begin("a-1")
        seen = [run.progress async for run in client.stream(ref, events=True, progress=True)]
    assert [each.done for each in seen if each is not None] == [1, 2, 3]
    assert len(server.reads) == 2


async def test_progress_is_not_shown_to_who_did_not_ask() -> None:
    server = Announcing(99.0, [1.0, 2.0, 3.0])
    async with listening(server, told) as client:
        seen = [run.status async for run in client.stream(server.begin("a-1"), events=True)]
    assert seen == [RunStatus.RUNNING, RunStatus.COMPLETED]


async def test_an_end_that_an_event_tells_is_read_since_events_leave_things_out() -> None:
    server = Announcing(4.0, [5.0])
    async with listening(
        server, lambda ref, _: Run(ref, RunStatus.COMPLETED, "done", output=None, vendor="tiny")
    ) as client:
        run = await client.result(server.begin("a-1"), events=True)
    assert (run.output, server.reads) == ("well", [0.0, 5.0])


async def test_an_event_that_says_nothing_wakes_nobody() -> None:
    server = Announcing(50.0, [1.0, 2.0, 60.0])
    async with listening(server, lambda _, event: event.data["number"] == 2) as client:
        await client.result(server.begin("a-1"), events=True)
    assert server.reads == [0.0, 60.0]


@pytest.mark.parametrize(
    ("said", "why"),
    [(None, "it must be a Run, True"), (Run(RunRef("b-1"), RunStatus.RUNNING, "x", vendor="tiny"), "for an event of")],
)
async def test_what_a_dialect_may_not_say_of_an_event_is_an_error_that_names_the_function(said: Any, why: str) -> None:
    server = Announcing(50.0, [1.0])
    async with listening(server, lambda *_: said) as client:
        with pytest.raises(ProtocolError, match=f"tiny.event_of returned .*{why}"):
            await client.result(server.begin("a-1"), events=True)


async def test_event_of_without_events_is_refused() -> None:
    names = {**vars(tiny()), "event_of": lambda ref, event: True}
    with pytest.raises(ConfigurationError, match="events"):
        Vendor.of(SimpleNamespace(**names))


# Hanging up ----------------------------------------------------------------------------------------------------------


async def test_a_stream_that_is_closed_or_let_go_of_hangs_up() -> None:
    server = Announcing(500.0, [])
    async with listening(server) as client:
        stream = client.stream(server.begin("a-1"), events=True)
        await anext(stream)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 1.0)
        assert server.open_now == 1
        await stream.aclose()
        await asyncio.sleep(0.1)
        assert server.open_now == 0

        other = client.stream(server.begin("a-2"), events=True)
        await anext(other)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(other), 1.0)
        assert server.open_now == 1
        gone = weakref.ref(other)
        del other
        gc.collect()
        await asyncio.sleep(0.1)
        assert (gone(), server.open_now) == (None, 0)


async def test_two_streams_on_one_run_hear_and_read_once_for_both() -> None:
    server = Announcing(7.0, [7.5])
    async with listening(server) as client:
        ref = server.begin("a-1")
        await asyncio.gather(*(client.result(ref, events=True) for _ in range(2)))
    assert server.reads == [0.0, 7.5]
