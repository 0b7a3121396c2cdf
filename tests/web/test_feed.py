"""One run followed for many: replay, who comes and goes, what is left behind."""

import asyncio
import gc
import json
from contextvars import ContextVar
from typing import Any

import pytest

from agentruns import (
    Action,
    AgentRunsError,
    AuthenticationError,
    ConfigurationError,
    RunRef,
    RunStatus,
    TransportError,
    UnsupportedError,
)
from agentruns.web import Event, Feeds, Watcher, memory
from tests.guides import ROOT, blocks_of
from tests.scripted_wire import (
    CONVERSATION,
    HALF,
    HEAD,
    NEXT_RUN,
    POLL,
    POLL_NEXT,
    RUN,
    START,
    Answer,
    Lost,
    Wire,
    client_of,
    conversation,
    refuses,
    run,
)
from tests.web.scripted_runs import CANCEL, MESSAGE, REF, cancelling, said, story

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

WHOLE = [("run", "running"), ("run", "completed"), ("end", {"id": RUN, "status": "completed", "reason": "over"})]
STATES = (run("running"), run("running"), run("running"), run("completed"))


async def all_of(watcher: Watcher) -> list[Any]:
    return [said(event) async for event in watcher]


async def test_a_hundred_watchers_see_all_and_cost_the_polls_of_one() -> None:
    asked = []
    for watchers in (1, 100):
        wire = story(*STATES)
        async with client_of(wire) as client, Feeds(client) as feeds:
            seen = await asyncio.gather(*[all_of(feeds.watch(REF)) for _ in range(watchers)])
        assert seen == [WHOLE] * watchers
        asked.append(len(wire.asked))

    assert asked == [4, 4]


async def test_all_watchers_are_told_in_the_moment_of_the_answer() -> None:
    wire = story(*STATES)
    loop = asyncio.get_running_loop()

    async def times(watcher: Watcher) -> list[float]:
        return [loop.time() async for _ in watcher]

    async with client_of(wire) as client, Feeds(client) as feeds:
        seen = await asyncio.gather(*[times(feeds.watch(REF)) for _ in range(10)])

    assert seen == [[wire.times(POLL)[0], wire.times(POLL)[3], wire.times(POLL)[3]]] * 10


async def test_a_run_is_followed_from_the_first_step_of_its_first_watcher() -> None:
    wire = story(*STATES)
    async with client_of(wire) as client, Feeds(client) as feeds:
        watcher = feeds.watch(REF)
        await asyncio.sleep(10)
        assert wire.asked == []
        assert await all_of(watcher) == WHOLE


async def test_who_comes_late_gets_what_was_and_then_what_comes() -> None:
    async with client_of(story(*STATES)) as client, Feeds(client) as feeds:
        first = asyncio.create_task(all_of(feeds.watch(REF)))
        await asyncio.sleep(2.5)
        late = await all_of(feeds.watch(REF))

        assert late == await first == WHOLE


async def test_who_comes_after_the_end_gets_it_all_and_nothing_is_asked() -> None:
    wire = story(*STATES)
    async with client_of(wire) as client, Feeds(client) as feeds:
        await all_of(feeds.watch(REF))
        asked = len(wire.asked)

        assert await all_of(feeds.watch(REF)) == WHOLE
        assert len(wire.asked) == asked


async def test_who_comes_back_goes_on_after_the_last_event_seen() -> None:
    async with client_of(story(*STATES)) as client, Feeds(client) as feeds:
        whole = [event async for event in feeds.watch(REF)]
        for place, event in enumerate(whole):
            assert [each async for each in feeds.watch(REF, event.id)] == whole[place + 1 :]


@pytest.mark.parametrize(
    "strange",
    ["", "1", "-1", "deadbeef-1", "{epoch}-99", "{epoch}-0", "{epoch}-x", "{epoch}-", "{epoch}-٣", "{epoch}-1e9"],
)
async def test_an_id_that_is_not_ours_means_all_from_the_first_known_state(strange: str) -> None:
    async with client_of(story(*STATES)) as client, Feeds(client) as feeds:
        whole = [event async for event in feeds.watch(REF)]
        epoch = whole[0].id.rpartition("-")[0]

        assert [each async for each in feeds.watch(REF, strange.format(epoch=epoch))] == whole


async def test_a_client_of_the_process_before_gets_all_that_this_one_knows() -> None:
    async with client_of(story(*STATES)) as client, Feeds(client) as feeds:
        before = await anext(feeds.watch(REF))
    async with client_of(story(run("running"), run("completed"))) as client, Feeds(client) as feeds:
        assert await all_of(feeds.watch(REF, before.id)) == WHOLE


async def test_who_has_seen_the_end_is_not_kept_waiting() -> None:
    wire = story(run("completed"))
    async with client_of(wire) as client, Feeds(client) as feeds:
        *_, last = [event async for event in feeds.watch(REF)]
        again = feeds.watch(REF, last.id)

        assert again.is_done
        assert await all_of(again) == []
        assert not feeds.watch(REF).is_done
        assert len(wire.asked) == 1


async def test_a_slow_watcher_loses_nothing_while_the_history_holds() -> None:
    async with client_of(story(*STATES)) as client, Feeds(client) as feeds:
        slow = feeds.watch(REF)
        await anext(slow)
        await asyncio.sleep(60)

        assert await all_of(slow) == WHOLE[1:]


async def test_a_watcher_left_too_far_behind_finds_the_latest_states() -> None:
    words = [run(f"step {number}") for number in range(20)]
    async with client_of(story(*words, run("completed"))) as client, Feeds(client, history=4) as feeds:
        slow = feeds.watch(REF)
        await anext(slow)
        await asyncio.sleep(60)
        late = [event async for event in feeds.watch(REF)]

        assert [event async for event in slow] == late
        assert [event.name for event in late] == ["run", "run", "run", "end"]
        assert said(late[2]) == ("run", "completed")


async def test_a_step_may_time_out_and_be_asked_for_again() -> None:
    seen: list[Event] = []
    beats = 0
    async with client_of(story(*STATES)) as client, Feeds(client) as feeds:
        watcher = feeds.watch(REF)
        while True:
            try:
                seen.append(await asyncio.wait_for(anext(watcher), 0.3))
            except TimeoutError:
                beats += 1
            except StopAsyncIteration:
                break

    assert [said(event) for event in seen] == WHOLE
    assert beats > 5


# Opening --------------------------------------------------------------------------------------------------------------


async def test_a_run_that_was_opened_is_followed_although_nobody_watches() -> None:
    wire = story(*STATES)
    async with client_of(wire) as client, Feeds(client) as feeds:
        opened = feeds.open(MESSAGE)
        begun = await opened.started()
        assert begun.status is RunStatus.PENDING
        assert "pending" in repr(opened)
        last = await opened.ended()

        assert last.status is RunStatus.COMPLETED
        assert opened.is_over
        assert feeds.get(begun) is opened
        assert feeds.watch(begun.ref, None).is_done is False
        assert "completed" in repr(opened)

    assert len(wire.times(START)) == 1


async def test_a_run_that_was_started_here_is_joined_by_its_id() -> None:
    wire = story(*STATES)
    async with client_of(wire) as client, Feeds(client) as feeds:
        begun = await feeds.open(MESSAGE).started()
        seen = await all_of(feeds.watch(RunRef(begun.id)))

    assert seen == [("run", "pending"), *WHOLE]
    assert len(wire.times(POLL)) == 4


async def test_one_name_is_one_piece_of_work() -> None:
    wire = story(*STATES)
    async with client_of(wire) as client, Feeds(client) as feeds:
        first = feeds.open(MESSAGE, name="invoice-17")
        assert feeds.open(MESSAGE, name="invoice-17") is first
        assert feeds.get("invoice-17") is first
        await first.ended()
        assert feeds.open(MESSAGE, name="invoice-17") is first
        assert feeds.get("invoice-18") is None

    assert len(wire.times(START)) == 1


async def test_a_name_whose_following_failed_goes_on_with_its_run_and_starts_no_other() -> None:
    wire = story(Lost(), run("completed"))
    async with client_of(wire) as client, Feeds(client, patience=0) as feeds:
        first = feeds.open(MESSAGE, name="invoice-17")
        with pytest.raises(TransportError):
            await first.ended()
        again = feeds.open(MESSAGE, name="invoice-17")

        assert again is not first
        assert (await again.ended()).status is RunStatus.COMPLETED

    assert len(wire.times(START)) == 1


async def test_a_start_that_was_refused_is_told_and_may_be_tried_again() -> None:
    wire = story(run("completed"))
    wire.script[START] = [Answer({}, 401), run("completed")]
    async with client_of(wire) as client, Feeds(client) as feeds:
        refused = feeds.open(MESSAGE, name="invoice-17")
        with pytest.raises(AuthenticationError):
            await refused.started()
        with pytest.raises(AuthenticationError):
            await refused.ended()
        assert [event.name async for event in refused.watch()] == ["error", "end"]

        assert (await feeds.open(MESSAGE, name="invoice-17").started()).status is RunStatus.COMPLETED


async def test_a_pause_is_no_end_for_those_who_watch() -> None:
    wire = story(run("running"), run("requires_action"), run("requires_action"), run("running"), run("completed"))
    async with client_of(wire) as client, Feeds(client) as feeds:
        seen = await all_of(feeds.watch(REF))

    assert seen == [WHOLE[0], ("run", "requires_action"), *WHOLE]


async def test_where_handlers_follow_no_further_who_watches_goes_on() -> None:
    wire = story(run("requires_action"), run("requires_action"), run("running"), run("completed"))
    async with client_of(wire) as client, Feeds(client) as feeds:
        opened = feeds.open(REF)
        of_the_feed = await all_of(opened.watch())
        seen = await all_of(feeds.watch(REF))

    assert of_the_feed[-1][1]["reason"] == "paused"
    assert seen == [("run", "requires_action"), *WHOLE]


async def test_an_answer_that_brings_another_run_is_seen_by_all_and_known_by_both_ids() -> None:
    wire = Wire({
        HEAD: [conversation(0), conversation(2)],
        START: run("pending", id=NEXT_RUN),
        POLL: run("requires_action"),
        POLL_NEXT: [run("running", id=NEXT_RUN), run("completed", id=NEXT_RUN)],
    })
    approved = asyncio.Event()

    async def approve(action: Action) -> dict[str, bool]:
        await approved.wait()
        return {"approved": True}

    async with client_of(wire) as client, Feeds(client, tools=approve) as feeds:
        feeds.open(REF)
        watchers = [asyncio.create_task(all_of(feeds.watch(REF))) for _ in range(3)]
        await asyncio.sleep(100)
        approved.set()
        seen = await asyncio.gather(*watchers)
        assert await all_of(feeds.watch(RunRef(NEXT_RUN, CONVERSATION))) == seen[0]
        assert await all_of(feeds.watch(REF)) == seen[0]

    assert [status for name, status in seen[0] if name == "run"] == [
        "requires_action",
        "pending",
        "running",
        "completed",
    ]
    assert seen == [seen[0]] * 3
    assert len(wire.times(START)) == 1


async def test_tools_see_the_variables_of_who_opened() -> None:
    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen = []

    async def approve(action: Action) -> bool:
        seen.append(who.get())
        return True

    wire = story(run("requires_action"), **{HEAD: [conversation(0), conversation(2)]})
    wire.script[START] = [run("completed", id=NEXT_RUN)]
    async with client_of(wire) as client, Feeds(client, tools=approve) as feeds:
        token = who.set("Ada")
        feeds.open(REF)
        who.reset(token)
        await all_of(feeds.watch(REF))

    assert seen == ["Ada"]


async def test_only_so_many_runs_that_are_over_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEPT", 2)
    names = ["a", "b", "c"]
    wire = Wire({f"GET /agents/runs/{name}": run("completed", id=name) for name in names})
    async with client_of(wire) as client, Feeds(client) as feeds:
        for name in names:
            await feeds.open(RunRef(name), name=f"work {name}").ended()

        assert [feeds.get(RunRef(name)) is not None for name in names] == [False, True, True]
        assert [feeds.get(f"work {name}") is not None for name in names] == [False, True, True]


# Leaving --------------------------------------------------------------------------------------------------------------


async def test_a_watcher_that_leaves_stops_nothing_for_the_others() -> None:
    async with client_of(story(*STATES)) as client, Feeds(client, linger=0) as feeds:
        leaver = feeds.watch(REF)
        stayer = asyncio.create_task(all_of(feeds.watch(REF)))
        await anext(leaver)
        await leaver.aclose()

        assert await stayer == WHOLE
        assert await all_of(leaver) == []


async def test_a_watcher_that_is_cancelled_stops_nothing_for_the_others() -> None:
    async with client_of(story(*STATES)) as client, Feeds(client) as feeds:
        leaver, stayer = (asyncio.create_task(all_of(feeds.watch(REF))) for _ in range(2))
        await asyncio.sleep(2.5)
        leaver.cancel()

        assert await stayer == WHOLE


async def test_a_run_goes_on_to_its_end_when_the_last_watcher_leaves() -> None:
    async with client_of(story(*STATES)) as client, Feeds(client) as feeds:
        leaver = feeds.watch(REF)
        await anext(leaver)
        await leaver.aclose()
        followed = feeds.get(REF)

        assert followed is not None
        assert (await followed.ended()).status is RunStatus.COMPLETED


async def test_with_linger_a_run_that_nobody_watches_is_followed_no_more() -> None:
    wire = story(run("running"))
    async with client_of(wire) as client, Feeds(client, linger=5.5) as feeds:
        leaver = feeds.watch(REF)
        await anext(leaver)
        await leaver.aclose()
        await asyncio.sleep(100)

        assert len(wire.times(POLL)) == 6
        assert client.stats().watched == 0
        assert len(asyncio.all_tasks()) == 1
        followed = feeds.get(REF)
        assert followed is not None
        assert followed.is_over
        with pytest.raises(AgentRunsError, match="was followed no more before it ended; it goes on at the vendor"):
            await followed.ended()
        assert await all_of(followed.watch()) == [("run", "running")]


async def test_who_comes_back_in_time_keeps_it_going_and_who_comes_later_begins_anew() -> None:
    wire = story(*[run("running")] * 30, run("completed"))
    async with client_of(wire) as client, Feeds(client, linger=5.5) as feeds:
        followed = []
        for pause in (3.0, 8.0, 3.0):
            watcher = feeds.watch(REF)
            await anext(watcher)
            followed.append(feeds.get(REF))
            await watcher.aclose()
            await asyncio.sleep(pause)

        assert followed[0] is followed[1] is not followed[2]
        assert await all_of(feeds.watch(REF)) == WHOLE


async def test_a_watcher_that_is_forgotten_counts_as_gone() -> None:
    wire = story(run("running"))
    async with client_of(wire) as client, Feeds(client, linger=5.5) as feeds:
        forgotten = feeds.watch(REF)
        await anext(forgotten)
        del forgotten
        gc.collect()
        await asyncio.sleep(100)

        assert client.stats().watched == 0


async def test_who_waits_for_the_end_keeps_it_going_as_one_who_watches_does() -> None:
    wire = story(*[run("running")] * 30, run("completed"))
    async with client_of(wire) as client, Feeds(client, linger=5.5) as feeds:
        assert (await feeds.open(REF).ended()).status is RunStatus.COMPLETED


async def test_a_run_that_was_opened_and_is_never_watched_lingers_no_longer() -> None:
    wire = story(run("running"))
    async with client_of(wire) as client, Feeds(client, linger=5.5) as feeds:
        opened = feeds.open(REF)
        await asyncio.sleep(100)

        assert opened.is_over
        assert len(wire.times(POLL)) == 6


@pytest.mark.parametrize(("mode", "polls"), [("leave", 6), ("cancel", 6), ("confirm", 7)])
async def test_an_opened_run_is_cancelled_with_its_last_watcher_if_that_is_asked_for(mode: Any, polls: int) -> None:
    wire = story(*[run("running")] * 6, run("failed"), **{CANCEL: Answer({})})
    async with client_of(wire, cancelling()) as client, Feeds(client, linger=5.5, on_cancel=mode) as feeds:
        feeds.open(REF)
        for _ in range(2):
            watcher = feeds.watch(REF)
            await anext(watcher)
            await watcher.aclose()
        await asyncio.sleep(100)

    assert len(wire.times(CANCEL)) == (mode != "leave")
    assert len(wire.times(POLL)) == polls


# The life of the feeds ------------------------------------------------------------------------------------------------


async def test_leaving_the_feeds_ends_watchers_without_an_end_and_leaves_no_task() -> None:
    wire = story(run("running"), **{CANCEL: Answer({})})
    async with client_of(wire, cancelling()) as client:
        async with Feeds(client, on_cancel="cancel") as feeds:
            watchers = [asyncio.create_task(all_of(feeds.watch(REF))) for _ in range(3)]
            opened = feeds.open(MESSAGE)
            await asyncio.sleep(2.5)
            assert "1 followed" in repr(feeds)
        seen = await asyncio.gather(*watchers)
        assert len(asyncio.all_tasks()) == 1
        assert client.stats().watched == 0

    assert seen == [[("run", "pending"), ("run", "running")]] * 3
    assert opened.is_over
    assert wire.times(CANCEL) == []


async def test_leaving_the_feeds_ends_a_handler_that_waits_for_a_person() -> None:
    ended = []

    async def approve(action: Action) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(asyncio.get_running_loop().time())

    async with client_of(story(run("requires_action"))) as client:
        async with Feeds(client, tools=approve) as feeds:
            feeds.open(REF)
            await asyncio.sleep(50)
        assert ended == [50.0]
        assert len(asyncio.all_tasks()) == 1


async def test_leaving_the_feeds_at_once_leaves_nothing() -> None:
    wire = story(*STATES)
    async with client_of(wire) as client:
        async with Feeds(client) as feeds:
            opened = feeds.open(REF)
        with pytest.raises(AgentRunsError, match="before it had a state"):
            await opened.started()
        assert len(asyncio.all_tasks()) == 1
    assert wire.asked == []


async def test_feeds_that_are_not_open_say_so() -> None:
    async with client_of(story(*STATES)) as client:
        feeds = Feeds(client)
        with pytest.raises(ConfigurationError, match="async with Feeds"):
            feeds.watch(REF)
        with pytest.raises(ConfigurationError, match="async with Feeds"):
            feeds.open(MESSAGE)
        async with feeds:
            late = feeds.watch(REF)
        assert [event async for event in late] == []
        with pytest.raises(AgentRunsError, match="these feeds have stopped"):
            feeds.open(MESSAGE)


async def test_what_cannot_work_is_said_at_once() -> None:
    wire = story(*STATES)
    async with client_of(wire) as client, Feeds(client) as feeds:
        with pytest.raises(ConfigurationError, match="timeout"):
            feeds.watch(REF, timeout=-1.0)
        with pytest.raises(ConfigurationError, match="starts a run from"):
            feeds.open("hello")
        with pytest.raises(ConfigurationError, match=r"feeds\.open\(origin\)"):
            feeds.watch(MESSAGE)  # type: ignore[arg-type]
        with pytest.raises(UnsupportedError, match="cancel"):
            feeds.open(REF, on_cancel="cancel")
        acts: dict[str, Any] = {"tools": len, "on_cancel": "cancel", "key": "invoice-17"}
        for name, value in acts.items():
            with pytest.raises(ConfigurationError, match=f"takes no {name}.*open.* drives a run"):
                feeds.watch(REF, **{name: value})
        with pytest.raises(ConfigurationError, match="key"):
            Feeds(client, key="invoice-17")
        with pytest.raises(ConfigurationError, match="linger"):
            Feeds(client, linger=-1.0)
        with pytest.raises(ConfigurationError, match="history"):
            Feeds(client, history=2)
        assert feeds.get(REF) is None
    assert wire.asked == []


async def test_the_id_of_the_last_event_is_a_text_or_none() -> None:
    async with client_of(Wire({})) as client, Feeds(client) as feeds:
        wrong: list[Any] = [3, b"x", []]
        for value in wrong:
            with refuses(f"last_event_id is {value!r}; ", "must be a text, or None"):
                feeds.watch(REF, value)
        for text in (None, "", "x", HALF):  # a browser may say anything
            feeds.watch(REF, text)


async def test_the_guide_shows_many_runs_over_one_connection() -> None:
    (block,) = [each for name, each in blocks_of(ROOT / "agentruns/web/README.md").items() if "Many runs" in name]
    written: dict[str, Any] = {}
    exec(block, written)
    names = [f"run-{number}" for number in range(3)]
    wire = Wire({f"GET /agents/runs/{name}": [run("running", id=name), run("completed", id=name)] for name in names})
    async with client_of(wire) as client, Feeds(client) as feeds:
        page = written["together"]([feeds.watch(RunRef(name)) for name in names])
        seen = [(json.loads(event.data)["id"], json.loads(event.data)["status"]) async for event in page]
        left = written["together"]([feeds.watch(RunRef(name)) for name in names])
        await anext(left)
        await left.aclose()

    assert sorted(seen) == [(name, status) for name in names for status in ("completed", "running")]
