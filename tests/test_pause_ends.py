"""A pause that ends by itself: answered elsewhere, or cancelled, while a handler or a person is still at it."""

import asyncio
import gc
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentruns import Action, APIError, Backoff, Client, Inbox, Run, RunRef, RunStatus
from agentruns._api.operations import Operations
from agentruns._following.pause import Pause
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns._values.run import JsonText
from agentruns.dialects.protocol import Dialect
from agentruns.inbox import NotPendingError
from agentruns.tools import current_pause_is_over
from agentruns.web import Feeds
from tests.test_inbox import first_parked
from tests.tiny_vendor import Server, client_of, tiny

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

QUICK = Backoff(initial=1.0, factor=1.0, maximum=1.0, jitter=0.0)
ASKS = {"status": "asks"}


class Asking(Server):
    """A vendor whose run asks from the start; what it shows from which time on is planned."""

    def __init__(self, *plan: tuple[float, Mapping[str, Any]]) -> None:
        super().__init__(1e9, latency=0.0)
        self.plan = plan
        self.posted = 0

    def _answer(self, request: Request, now: float) -> Any:
        self.posted += request.method == "POST"
        shown: Mapping[str, Any] = ASKS
        for when, what in self.plan:
            shown = what if now >= when else shown
        return {"id": "a-1", "of": "a", **shown}

    @property
    def reads(self) -> list[float]:
        return [when for when, line, _ in self.asked if line.startswith("GET")]


def dialect() -> Dialect:
    def state(raw: Mapping[str, Any], text: Any) -> Run:
        words = {"asks": RunStatus.REQUIRES_ACTION, "working": RunStatus.RUNNING, "done": RunStatus.COMPLETED}
        status = words[raw["status"]]
        actions = (Action(raw.get("action", "0"), "decide", {"what": raw.get("what", "it")}),)
        asked = actions if status is RunStatus.REQUIRES_ACTION else ()
        return Run(RunRef("a-1", "a"), status, raw["status"], asked, raw.get("output"), raw=text, vendor="tiny")

    def fetch(ref: RunRef, params: Mapping[str, str]) -> Flow[Run]:
        response = yield Request("GET", f"/runs/{ref.id}", params=params)
        return state(response.value, JsonText(response.body))

    def resume(run: Run, outputs: Any) -> Flow[Run]:
        response = yield Request("POST", f"/runs/{run.id}", json={})
        return state(response.value, JsonText(response.body))

    return cast(Dialect, SimpleNamespace(**vars(tiny()) | {"fetch": fetch, "resume": resume}))


def asking(server: Asking) -> Client[Any, Any]:
    return client_of(server, dialect=dialect(), schedule=QUICK)


REF = RunRef("a-1", "a")
WORKS, DONE = {"status": "working"}, {"status": "done", "output": "well"}


class Slow:
    """A handler that never answers by itself."""

    def __init__(self) -> None:
        self.calls = 0
        self.told: list[bool] = []

    async def __call__(self, _: Action) -> Any:
        self.calls += 1
        try:
            await asyncio.sleep(1e8)
        except asyncio.CancelledError:
            self.told.append(current_pause_is_over())
            raise


@pytest.mark.parametrize("plan", [((100.0, WORKS), (400.0, DONE)), ((100.0, DONE),)])
async def test_a_handler_is_cancelled_and_told_and_the_stream_goes_on_with_what_came(plan: Any) -> None:
    server, slow = Asking(*plan), Slow()
    async with asking(server) as client, client.stream(REF, tools=slow, timeout=None) as stream:
        seen = [run.vendor_status async for run in stream]
        result = await stream.result()
    assert seen == ["asks", *(what["status"] for _, what in plan)]
    assert (result.output, slow.calls, slow.told, server.posted) == ("well", 1, [True], 0)


async def test_a_parked_run_is_looked_at_ever_more_seldom() -> None:
    server = Asking()
    async with asking(server) as client:
        waiting = asyncio.ensure_future(client.result(REF, tools=Slow(), timeout=None))
        await asyncio.sleep(3600.0)
        assert 8 <= len(server.reads) <= 14
        assert server.reads[1] - server.reads[0] >= 27.0
        waiting.cancel()
        await asyncio.sleep(1e4)
        assert len(server.reads) <= 14


async def test_looks_go_on_while_the_steps_of_a_heartbeat_are_cut_off() -> None:
    server, slow = Asking((40.0, DONE)), Slow()
    async with asking(server) as client:
        stream = client.stream(REF, tools=slow, timeout=None)
        for _ in range(1000):
            try:
                run = await asyncio.wait_for(anext(stream), 7.0)
            except TimeoutError:
                continue
            if run.status.is_over:
                break
    assert (slow.told, len(server.reads)) == ([True], 3)


async def test_one_late_read_that_shows_the_run_before_its_pause_ends_no_handler() -> None:
    # The first look comes after 27 to 33 s, as chance spreads it, and the read that has to confirm it 10 s later.
    server = Asking((25.0, WORKS), (35.0, ASKS), (500.0, DONE))
    calls = 0

    async def answer(_: Action) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(300.0)
        return "yes"

    slow = Backoff(initial=10.0, factor=1.0, maximum=10.0, jitter=0.0)
    async with client_of(server, dialect=dialect(), schedule=slow) as client:
        run = await client.result(REF, tools=answer, timeout=None)
    assert any(25.0 <= when < 35.0 for when in server.reads)
    assert (run.output, calls, server.posted) == ("well", 1, 1)


async def test_another_question_in_place_of_the_first_is_handled_as_a_pause_of_its_own() -> None:
    server = Asking((100.0, {"status": "asks", "what": "the other"}), (300.0, DONE))
    asked: list[Any] = []

    async def decide(action: Action) -> Any:
        asked.append(action.arguments["what"])
        await asyncio.sleep(1e8)

    async with asking(server) as client:
        await client.result(REF, tools=decide, timeout=None)
    assert asked == ["it", "the other"]


async def test_a_push_that_shows_the_end_of_a_pause_is_enough() -> None:
    server, slow = Asking((5.0, DONE)), Slow()
    async with asking(server) as client:
        waiting = asyncio.ensure_future(client.result(REF, tools=slow, timeout=None))
        await asyncio.sleep(6.0)
        client.heard(Run(REF, RunStatus.COMPLETED, "done", output="pushed", vendor="tiny"))
        assert (await waiting).output == "pushed"
        assert asyncio.get_running_loop().time() == 6.0


async def test_lost_contact_and_refusals_while_it_is_looked_at_hurt_nobody() -> None:
    server = Asking((200.0, DONE))
    async with asking(server) as client:
        waiting = asyncio.ensure_future(client.result(REF, tools=Slow(), timeout=None))
        await asyncio.sleep(1.0)
        server.trouble["GET /runs/a-1"] = [(503, {}), (404, {}), (429, {"retry-after": "40"})]
        assert (await waiting).output == "well"
    assert len(server.reads) < 10


async def test_a_handler_that_ends_in_an_error_of_its_own_is_forgotten_once_the_pause_is_over() -> None:
    server = Asking((100.0, DONE))

    async def fails(_: Action) -> Any:
        try:
            await asyncio.sleep(1e8)
        finally:
            raise LookupError("while it was cleaning up")

    async with asking(server) as client:
        assert (await client.result(REF, tools=fails, timeout=None)).output == "well"


@pytest.mark.parametrize("of_whom", ["a handler", "a post"])
async def test_a_run_is_looked_at_no_more_once_the_step_that_answers_it_has_failed(of_whom: str) -> None:
    server = Asking()
    server.trouble["POST /runs/a-1"] = [(400, {})]

    async def decide(_: Action) -> str:
        if of_whom == "a handler":
            raise LookupError("by itself")
        return "yes"

    async with asking(server) as client:
        stream = client.stream(REF, tools=decide, timeout=None)
        await anext(stream)
        with pytest.raises(LookupError if of_whom == "a handler" else APIError):
            await anext(stream)
        await asyncio.sleep(3600.0)  # the stream is neither closed nor forgotten
        assert len(server.reads) == 1
        await stream.aclose()


async def test_a_run_is_looked_at_no_more_once_the_handlers_have_ended_whose_step_was_cut_off() -> None:
    server = Asking()

    async def decide(_: Action) -> str:
        await asyncio.sleep(2.0)
        return "yes"

    async with asking(server) as client:
        stream = client.stream(REF, tools=decide, timeout=None)
        await anext(stream)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 1.0)
        await asyncio.sleep(3600.0)  # the stream is neither closed nor forgotten
        assert len(server.reads) == 1
        await stream.aclose()


async def test_a_stream_that_is_forgotten_looks_no_more_though_another_follows_the_run() -> None:
    server, slow = Asking(), Slow()
    async with asking(server) as client:
        kept, forgotten = (client.stream(REF, tools=tools, timeout=None) for tools in (None, slow))
        await anext(kept)
        await anext(forgotten)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(forgotten), 1.0)
        del forgotten
        gc.collect()
        await asyncio.sleep(1.0)
        reads = len(server.reads)
        await asyncio.sleep(3600.0)
        assert (len(server.reads), slow.told) == (reads, [False])
        await kept.aclose()


async def test_a_second_stream_does_not_take_a_parked_state_for_a_fresh_one() -> None:
    server = Asking((10.0, DONE))
    async with asking(server) as client:
        parked = asyncio.ensure_future(client.result(REF, tools=Slow(), timeout=None))
        await asyncio.sleep(12.0)
        run = await client.result(REF, timeout=None)
        assert (run.output, asyncio.get_running_loop().time()) == ("well", 12.0)
        assert (await parked).output == "well"
        assert asyncio.get_running_loop().time() == 12.0


# People ---------------------------------------------------------------------------------------------------------------


async def test_an_inbox_withdraws_a_question_that_nobody_asks_any_more() -> None:
    server, inbox = Asking((100.0, DONE)), Inbox()
    async with asking(server) as client:
        waiting = asyncio.ensure_future(client.result(REF, tools=inbox, timeout=None))
        (found,) = await first_parked(inbox)
        assert (await waiting).output == "well"
        assert await inbox.pending() == ()
        with pytest.raises(NotPendingError, match="withdrawn"):
            await inbox.answer(found.action.id, "yes", run_id="a-1")


@pytest.mark.parametrize("server", [Asking((5.0, WORKS), (400.0, DONE)), Asking((5.0, DONE))])
async def test_an_answer_to_what_was_answered_elsewhere_is_refused_though_nobody_has_looked_yet(server: Asking) -> None:
    inbox = Inbox()
    async with asking(server) as client:
        waiting = asyncio.ensure_future(client.result(REF, tools=inbox, timeout=None))
        (found,) = await first_parked(inbox)
        await asyncio.sleep(10.0)
        with pytest.raises(NotPendingError, match="the run goes on without this answer"):
            await inbox.answer(found.action.id, "no", run_id="a-1")
        assert (await waiting).output == "well"
        assert await inbox.pending() == ()

    assert server.posted == 0


async def test_an_answer_to_what_another_run_has_answered_is_refused_too() -> None:
    server, inbox = Answered(5.0, NEXT), Inbox()
    async with following(server) as client:
        waiting = asyncio.ensure_future(client.result(REF, tools=inbox, timeout=None))
        (found,) = await first_parked(inbox)
        await asyncio.sleep(10.0)
        with pytest.raises(NotPendingError, match="the run goes on without this answer"):
            await inbox.refuse(found.action.id, "no", run_id="a-1")
        assert (await waiting).output == "by another"

    assert (server.posted, asyncio.get_running_loop().time()) == (0, 10.0)


async def test_an_answer_counts_where_it_cannot_be_told_whether_it_is_asked_for_and_after_one_late_read() -> None:
    troubles: Any = ([(503, {})] * 100, [(200, {"id": "a-1", "of": "a", **WORKS})])
    for trouble in troubles:
        server, inbox = Asking(), Inbox()
        async with asking(server) as client:
            waiting = asyncio.ensure_future(client.result(REF, tools=inbox, timeout=None))
            (found,) = await first_parked(inbox)
            server.trouble["GET /runs/a-1"] = list(trouble)
            began = asyncio.get_running_loop().time()
            await inbox.answer(found.action.id, "yes", run_id="a-1")
            assert asyncio.get_running_loop().time() - began <= 5.0
            await asyncio.sleep(1.0)
            assert server.posted == 1
            waiting.cancel()


async def test_a_feed_shows_that_the_run_goes_on() -> None:
    server, inbox = Asking((100.0, WORKS), (400.0, DONE)), Inbox()
    async with asking(server) as client, Feeds(client, tools=inbox, timeout=None) as feeds:
        told = [event.data async for event in feeds.open(REF).watch()]
    shown = [json.loads(data)["status"] for data in told]
    assert shown == ["requires_action", "running", "completed", "completed"]
    assert await inbox.pending() == ()


# Another run ----------------------------------------------------------------------------------------------------------


def dialect_of_runs_that_follow(server: "Answered") -> Dialect:
    """Return a dialect whose answers begin another run; *server* tells which."""

    def answered_by(run: Run) -> Flow[Run | None]:
        response = yield Request("GET", f"/after/{run.id}")
        return None if response.value.get("status") is None else server.follower

    return cast(Dialect, SimpleNamespace(**vars(dialect()) | {"answered_by": answered_by}))


class Answered(Asking):
    """A vendor whose run asks for ever; another run, which answers it, is there from some time on."""

    def __init__(self, when: float, follower: Run) -> None:
        super().__init__()
        self.when, self.follower = when, follower

    def _answer(self, request: Request, now: float) -> Any:
        if request.path.startswith("/after/"):
            return {"status": "there"} if now >= self.when else {}
        if request.path == "/runs/b-1":
            return {"id": "b-1", "of": "a", **DONE}
        return super()._answer(request, now)


NEXT = Run(RunRef("b-1", "a"), RunStatus.COMPLETED, "done", output="by another", vendor="tiny")


def following(server: Answered) -> Client[Any, Any]:
    return client_of(server, dialect=dialect_of_runs_that_follow(server), schedule=QUICK)


async def test_a_run_that_came_of_another_answer_is_found_at_a_look_and_followed() -> None:
    server, slow = Answered(100.0, NEXT), Slow()
    async with following(server) as client, client.stream(REF, tools=slow, timeout=None) as stream:
        seen = [(run.id, run.status) async for run in stream]
    assert seen == [("a-1", RunStatus.REQUIRES_ACTION), ("b-1", RunStatus.COMPLETED)]
    assert (slow.calls, slow.told, server.posted) == (1, [True], 0)
    assert 100.0 < asyncio.get_running_loop().time() < 250.0


async def test_an_inbox_withdraws_a_question_that_another_run_has_answered() -> None:
    server, inbox = Answered(100.0, NEXT), Inbox()
    async with following(server) as client:
        waiting = asyncio.ensure_future(client.result(REF, tools=inbox, timeout=None))
        await first_parked(inbox)
        assert (await waiting).output == "by another"
        assert await inbox.pending() == ()


async def test_what_goes_wrong_while_an_answer_is_looked_for_hurts_nobody() -> None:
    server = Answered(100.0, NEXT)
    async with following(server) as client:
        waiting = asyncio.ensure_future(client.result(REF, tools=Slow(), timeout=None))
        await asyncio.sleep(1.0)
        server.trouble["GET /after/a-1"] = [(503, {}), (404, {})]
        assert (await waiting).output == "by another"


async def test_an_answer_from_elsewhere_counts_no_more_once_all_handlers_have_answered() -> None:
    over: list[bool] = []
    asks, unused = Run(REF, RunStatus.REQUIRES_ACTION, "asks", vendor="tiny"), cast(Operations, None)
    pause = Pause(asks, 10.0, lambda: over.append(True), unused)
    assert pause.on_followed(NEXT, 5.0) is False  # it was looked for before this pause began
    pause.stop()
    assert pause.on_followed(NEXT, 20.0) is False
    assert (pause.followed, over) == (None, [])
