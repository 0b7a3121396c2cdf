"""What a service promises: each run that it began is brought to its end and told of, whatever dies meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve

from agentruns import (
    Action,
    AgentRunsError,
    AlreadyDecidedError,
    AuthenticationError,
    Backoff,
    Client,
    ConfigurationError,
    Inbox,
    JournalError,
    NotAskedYetError,
    NotFoundError,
    NotPendingError,
    Retry,
    Run,
    RunRef,
    RunStatus,
    ToolOutput,
    Unfinished,
    UnknownActionError,
)
from agentruns._following import watching
from agentruns._keeping.journal import Journal
from agentruns.dialects import load
from agentruns.web import Event, Feeds, Service, Watcher, answering, service
from agentruns.web import told as text_of
from tests.scripted_wire import (
    CALL,
    HEAD,
    NEXT_RUN,
    POLL,
    POLL_NEXT,
    RUN,
    START,
    Answer,
    Wire,
    begun,
    conversation,
    run,
)
from tests.web.scripted_runs import MESSAGE, said, story

pytestmark = pytest.mark.asyncio

QUICK = Backoff(initial=0.01, factor=1.0, jitter=0.0)
KEY = "invoice-17"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_LOOKS", QUICK)
    monkeypatch.setattr(service, "_LOOKS", QUICK)
    monkeypatch.setattr(service, "_AGAIN", QUICK)


class Told:
    """What `on_end` was called with."""

    def __init__(self, *, fails: int = 0) -> None:
        self.calls: list[tuple[str, str]] = []
        self.fails = fails
        self.is_called = asyncio.Event()

    async def __call__(self, key: str, ended: Run[Any]) -> None:
        self.calls.append((key, ended.status))
        self.is_called.set()
        if self.fails:
            self.fails -= 1
            raise OSError("the database is down")


def client_on(path: Path | str, wire: Wire) -> Client:
    """Return a client whose journal is in a folder, or at an address."""
    journal = Journal(path / "work.db" if isinstance(path, Path) else path, "narrative")
    return Client(load("narrative"), wire, retry=Retry(backoff=QUICK), schedule=QUICK, journal=journal)


@asynccontextmanager
async def process(path: Path | str, wire: Wire, told: Any = None, **options: Any) -> AsyncIterator[Service]:
    """Give the service of one process."""
    async with Service(client_on(path, wire), on_end=told, **options) as served:
        yield served


async def until(what: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(10):
        while not await what():  # noqa: ASYNC110 - what others write to a journal has no event to wait for
            await asyncio.sleep(0.005)


async def is_told(served: Service, key: str = KEY) -> bool:
    """Tell whether the work was begun, and nobody tends it any more."""
    tended = "SELECT 1 FROM tended WHERE key = ?"
    found = await served._tending._session.do(lambda records: records.execute(tended, (key,)).fetchone())
    return found is None and await served.client.work(key) is not None


def running() -> Wire:
    return story(run("running"))


def ending() -> Wire:
    return story(run("running"), run("completed"))


async def test_each_run_that_was_begun_is_told_once_it_is_over(address: str) -> None:
    told, wire = Told(), ending()
    async with process(address, wire, told) as served:
        assert (await served.start(MESSAGE, key=KEY)).id == RUN
        await until(lambda: is_told(served))
        assert (await served.start(MESSAGE, key=KEY)).status is RunStatus.COMPLETED
    async with process(address, Wire({}), told) as served:
        await asyncio.sleep(0.1)

    assert told.calls == [(KEY, "completed")]
    assert len(wire.times(START)) == 1


async def test_what_has_failed_to_take_the_end_gets_it_again_until_it_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(fails=2)
    async with process(tmp_path, ending(), told) as served:
        await served.start(MESSAGE, key=KEY)
        await until(lambda: is_told(served))

    assert told.calls == [(KEY, "completed")] * 3
    assert caplog.text.count(f"the end of run {RUN} could not be told, and is told again") == 2


async def test_an_end_that_was_never_taken_is_told_by_the_next_process(address: str) -> None:
    lost, told = Told(fails=10**9), Told()
    async with process(address, ending(), lost) as served:
        await served.start(MESSAGE, key=KEY)
        await lost.is_called.wait()
    async with process(address, Wire({}), told) as served:
        await until(lambda: is_told(served))

    assert told.calls == [(KEY, "completed")]


async def test_the_work_of_a_process_that_is_gone_is_taken_over_by_one_that_is_there(address: str) -> None:
    told, first, second = Told(), running(), ending()
    async with process(address, second, told) as other:
        async with process(address, first, told) as served:
            await served.start(MESSAGE, key=KEY)
            await asyncio.sleep(0.1)
            assert second.asked == []  # somebody is at it
        await until(lambda: is_told(other))

    assert told.calls == [(KEY, "completed")]
    assert len(first.times(START)) == 1
    assert second.times(START) == []


async def test_an_end_that_a_tab_has_seen_while_nobody_was_at_the_work_is_told_all_the_same(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_: object) -> list[str]:
        return []

    told = Told()
    async with process(address, story(run("completed")), told) as other:
        with monkeypatch.context() as between_two_looks:
            between_two_looks.setattr(other._tending, "abandoned", nothing)
            async with process(address, running(), told) as served:
                begun_run = await served.start(MESSAGE, key=KEY)
            seen = [event.name async for event in other.watch(begun_run)]
        await until(lambda: is_told(other))

    assert seen[-1] == "end"
    assert told.calls == [(KEY, "completed")]


async def test_a_tab_sees_the_end_of_a_run_although_the_journal_was_away_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise JournalError("work.db", "it cannot be reached")

    told = Told()
    async with process(tmp_path, story(run("running"), run("running"), run("completed")), told) as served:
        begun_run = await served.start(MESSAGE, key=KEY)
        watcher = served.watch(begun_run)
        seen = [(await anext(watcher)).name]
        with monkeypatch.context() as away:
            away.setattr(served._keys.journal, "saw", fails)
            feed = served.feeds.get(KEY)
            assert feed is not None
            with pytest.raises(JournalError):
                await feed.ended()
        seen += [event.name async for event in watcher]
        await until(lambda: is_told(served))

    assert (set(seen), seen[-1]) == ({"run", "end"}, "end")
    assert told.calls == [(KEY, "completed")]


async def test_of_two_processes_that_were_asked_for_the_same_one_begins_and_one_tells(address: str) -> None:
    told, first, second = Told(), ending(), ending()
    async with process(address, first, told) as one, process(address, second, told) as two:
        runs = await asyncio.gather(*[each.start(MESSAGE, key=KEY) for each in (one, two, one)])
        await until(lambda: is_told(one))
        await asyncio.sleep(0.1)

    assert {each.id for each in runs} == {RUN}
    assert len(first.times(START)) + len(second.times(START)) == 1
    assert told.calls == [(KEY, "completed")]


async def test_a_start_that_is_refused_is_raised_and_leaves_nothing_to_tend(address: str) -> None:
    wire, told = ending(), Told()
    wire.script[START] = [Answer({}, 401), begun()]
    async with process(address, wire, told) as served:
        with pytest.raises(AuthenticationError):
            await served.start(MESSAGE, key=KEY)
        assert await served.client.work(KEY) is None
        await served.start(MESSAGE, key=KEY)
        await until(lambda: is_told(served))

    assert told.calls == [(KEY, "completed")]


async def tended_without_work(served: Service) -> list[Any]:
    left = "SELECT key FROM tended WHERE key NOT IN (SELECT key FROM work)"
    found: list[Any] = await served._tending._session.do(lambda records: records.execute(left).fetchall())
    return found


async def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing_to_tend_that_was_not_begun(address: str) -> None:
    told, begun_keys = Told(), set[str]()
    async with process(address, ending(), told) as served:
        for steps in range(30):
            starting = asyncio.create_task(served.start(MESSAGE, key=f"key-{steps}"))
            await asyncio.sleep(steps * 0.0005)
            starting.cancel()
            await asyncio.wait([starting])
        await until(lambda: is_left(served))
        assert await tended_without_work(served) == []
        begun_keys = {work.key for steps in range(30) if (work := await served.client.work(f"key-{steps}")) is not None}

    assert begun_keys == {key for key, _ in told.calls}


async def test_what_a_handler_begins_of_its_own_is_not_tended(tmp_path: Path) -> None:
    told, wire = Told(), asking()

    async def handler(_: Any) -> bool:
        begun = await served.client.result(RunRef("third"), key="of its own")
        return begun.status is RunStatus.COMPLETED

    wire.script["GET /agents/runs/third"] = [run("completed", id="third")]
    async with process(tmp_path, wire, told, tools=handler) as served:
        await served.start(MESSAGE, key=KEY)
        await until(lambda: is_told(served))

    assert told.calls == [(KEY, "completed")]


async def test_what_was_opened_before_it_is_started_is_tended_from_then_on(tmp_path: Path) -> None:
    told = Told()
    async with process(tmp_path, ending(), told) as served:
        served.feeds.open(MESSAGE, key=KEY)
        await served.start(MESSAGE, key=KEY)
        await asyncio.wait_for(told.is_called.wait(), 10)

    assert told.calls == [(KEY, "completed")]


async def test_a_key_of_other_work_is_refused_and_the_other_work_goes_on(address: str) -> None:
    told = Told()
    async with process(address, story(*[run("running")] * 20, run("completed")), told) as served:
        await served.start(MESSAGE, key=KEY)
        await served.start(MESSAGE, key="another")
    async with process(address, story(*[run("running")] * 20, run("completed")), told) as served:
        with pytest.raises(ConfigurationError, match="names other work"):
            await served.start(evolve(MESSAGE, text="Something else."), key=KEY)
        await until(lambda: is_told(served))


async def test_a_key_of_other_work_is_refused_in_the_process_that_began_it_too(address: str) -> None:
    async with process(address, story(*[run("running")] * 20, run("completed")), Told()) as served:
        begun_here = await served.start(MESSAGE, key=KEY)
        with pytest.raises(ConfigurationError, match="names other work"):
            await served.start(evolve(MESSAGE, text="Something else."), key=KEY)
        assert (await served.start(MESSAGE, key=KEY)).id == begun_here.id


async def test_a_run_whose_following_fails_is_followed_again(address: str) -> None:
    told, wire = Told(), story(run("running"), Answer({}, 403), Answer({}, 403), run("completed"))
    async with process(address, wire, told) as served:
        await served.start(MESSAGE, key=KEY)
        await until(lambda: is_told(served))

    assert told.calls == [(KEY, "completed")]


async def test_what_fails_after_the_run_has_gone_on_is_tried_again_as_soon_as_what_fails_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, delays = Told(), list[int]()
    refused = Answer({}, 403)
    polls = (run("pending"), refused, refused, run("running"), refused, refused, run("completed"))

    def delay(failures: int) -> float:
        delays.append(failures)
        return 0.01

    monkeypatch.setattr(service, "_AGAIN", SimpleNamespace(delay=delay))
    async with process(tmp_path, story(*polls), told) as served:
        await served.start(MESSAGE, key=KEY)
        await until(lambda: is_told(served))

    assert delays == [0, 1, 0, 1]


def asking() -> Wire:
    """Return a vendor that asks, and goes on in another run when it is answered."""
    return Wire({
        HEAD: [conversation(0), conversation(2)],
        START: [begun(), begun(id=NEXT_RUN)],
        POLL: run("requires_action"),
        POLL_NEXT: [run("running", id=NEXT_RUN), run("completed", id=NEXT_RUN)],
    })


async def test_work_that_could_not_be_given_up_while_the_journal_was_away_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    async with process(tmp_path, ending(), told) as served:

        async def fails(_: str) -> None:
            raise JournalError("work.db", "it cannot be reached")

        with monkeypatch.context() as away:
            away.setattr(served._tending, "take", fails)
            away.setattr(served._keys.journal, "release", fails)
            await served.start(MESSAGE, key=KEY)
            await until(lambda: is_left(served))
        await until(lambda: is_told(served))

    assert told.calls == [(KEY, "completed")]


async def is_left(served: Service) -> bool:
    return not served._tasks


async def test_a_run_that_waits_for_an_answer_goes_on_with_it_although_no_handler_gives_it(address: str) -> None:
    told = Told()
    async with process(address, asking(), told) as served:
        begun_run = await served.start(MESSAGE, key=KEY)
        async for event in served.watch(begun_run.slug):
            if said(event) == ("run", "requires_action"):
                break
        paused = await served.client.fetch(begun_run.ref)
        await served.client.resume(paused, [ToolOutput(paused.actions[0], {"approved": True})])
        await until(lambda: is_told(served))

    assert told.calls == [(KEY, "completed")]


async def test_a_tool_that_was_cut_off_is_not_run_again_and_the_run_goes_on_once_somebody_has_decided(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    told, wire, is_called, calls = Told(), asking(), asyncio.Event(), list[str]()

    async def hangs(action: Action) -> None:
        calls.append(action.id)
        is_called.set()
        await asyncio.Event().wait()

    async def is_warned() -> bool:
        return "ToolOutcomeUnknownError" in caplog.text

    async with process(address, wire, told, tools=hangs) as served:
        ref = (await served.start(MESSAGE, key=KEY)).ref
        await is_called.wait()
    async with process(address, wire, told, tools=hangs) as served:
        await until(is_warned)
        assert not await is_told(served)
        paused = await served.client.fetch(ref)
        await served.client.resume(paused, [ToolOutput(paused.actions[0], {"approved": True})])
        await until(lambda: is_told(served))

    assert calls == [paused.actions[0].id]
    assert told.calls == [(KEY, "completed")]


async def asked_for(served: Service, slug: str, run_id: str = RUN) -> str:
    """Return what a page shows first that one run of the work asks for."""
    async for event in served.watch(slug):
        state = json.loads(event.data)
        if state["id"] == run_id and state.get("actions"):
            return str(state["actions"][0]["id"])
    raise AssertionError("nothing was asked")


async def test_a_person_answers_in_any_process_and_the_second_click_is_refused(address: str) -> None:
    told = Told()
    async with (
        process(address, asking(), told, inbox=Inbox(journal=address)) as served,
        process(address, Wire({}), told, inbox=Inbox(journal=address)) as other,
    ):
        slug = (await served.start(MESSAGE, key=KEY)).slug
        action = await asked_for(other, slug)
        for wrong in ("no slug", "narrative..unknown"):
            with pytest.raises(UnknownActionError):
                await other.answer(wrong, action, True)
        await other.answer(slug, action, True)
        for late in (served, other):
            with pytest.raises(AlreadyDecidedError, match="it was answered already: true"):
                await late.refuse(slug, action, "too late")
        await until(lambda: is_told(served))
        for late in (served, other):  # the run has moved on to another one, and is over
            with pytest.raises(AlreadyDecidedError, match="it was answered already: true"):
                await late.answer(slug, action, True)
            with pytest.raises(UnknownActionError):
                await late.answer(slug, "no such action", True)
        await (await found(served)).forget()
        with pytest.raises(UnknownActionError):
            await other.answer(slug, action, True)

    assert told.calls == [(KEY, "completed")]


async def found(served: Service) -> Unfinished:
    work = await served.client.work(KEY)
    assert work is not None
    return work


async def test_a_click_that_comes_before_anybody_is_asked_waits_for_that(address: str) -> None:
    told = Told()
    async with (
        process(address, asking(), told, inbox=Inbox(journal=address)) as served,
        process(address, asking(), told, inbox=Inbox(journal=address)) as other,
    ):
        begun_run = await served.start(MESSAGE, key=KEY)
        await other.answer(begun_run.slug, str(CALL["tool_use_id"]), True)  # nobody has seen the pause yet
        await until(lambda: is_told(served))

    assert told.calls == [(KEY, "completed")]


async def test_a_click_on_what_nobody_gets_to_ask_for_is_told_to_try_again(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_ASK_SECONDS", 0.1)
    is_free = asyncio.Event()
    inbox = Inbox(journal=address)

    async def busy(action: Action) -> Any:
        await is_free.wait()
        return await inbox(action)

    told = Told()
    async with (
        process(address, asking(), told, inbox=inbox, tools=busy) as served,
        process(address, Wire({}), told, inbox=Inbox(journal=address)) as other,
    ):
        slug = (await served.start(MESSAGE, key=KEY)).slug
        action = await asked_for(other, slug)
        for early in (served, other):
            with pytest.raises(NotAskedYetError):
                await early.answer(slug, action, True)
            with pytest.raises(UnknownActionError):
                await early.answer(slug, "no such action", True)
        is_free.set()
        await other.answer(slug, action, True)
        await until(lambda: is_told(served))

    assert told.calls == [(KEY, "completed")]


async def test_a_click_on_what_was_answered_by_hand_or_by_a_handler_hears_that(address: str) -> None:
    told, wire = Told(), asking()
    async with process(address, wire, told, inbox=Inbox(journal=address)) as served:
        slug = (await served.start(MESSAGE, key=KEY)).slug
        action = await asked_for(served, slug)
        paused = await served.client.fetch(served.ref(slug))
        await served.client.resume(paused, [ToolOutput(paused.actions[0], {"approved": True})])
        with pytest.raises(AlreadyDecidedError):
            await served.answer(slug, action, True)
        await until(lambda: is_told(served))
        with pytest.raises(AlreadyDecidedError):
            await served.answer(slug, action, True)


async def test_the_second_question_of_an_id_is_not_taken_for_the_first(address: str) -> None:
    first, second = ({**CALL, "arguments": {"invoice": each}} for each in ("17", "18"))
    wire = asking()
    wire.script[POLL_NEXT] = [run("requires_action", id=NEXT_RUN, pending_tool_calls=[second])]
    wire.script[HEAD] = [conversation(0), conversation(2), conversation(4)]
    wire.script[START] = [begun(), begun(id=NEXT_RUN), begun(id="third")]
    wire.script[POLL] = [run("requires_action", pending_tool_calls=[first])]
    wire.script["GET /agents/runs/third"] = [run("completed", id="third")]
    is_free, told = asyncio.Event(), Told()
    inbox = Inbox(journal=address)

    async def slow(action: Action) -> Any:
        if action.arguments["invoice"] == "18":
            await is_free.wait()
        return await inbox(action)

    async with process(address, wire, told, inbox=inbox, tools=slow) as served:
        slug = (await served.start(MESSAGE, key=KEY)).slug
        await served.answer(slug, await asked_for(served, slug), True)
        action = await asked_for(served, slug, NEXT_RUN)
        clicking = asyncio.create_task(served.answer(slug, action, True))
        await asyncio.sleep(0.1)
        is_free.set()
        await clicking
        await until(lambda: is_told(served))

    assert told.calls == [(KEY, "completed")]


async def test_what_a_browser_is_told_of_a_click_is_safe_and_says_what_to_do() -> None:
    kinds: list[type[NotPendingError]] = [NotPendingError, AlreadyDecidedError, NotAskedYetError, UnknownActionError]
    texts = [text_of(kind("a secret")) for kind in kinds]
    assert [each["type"] for each in texts] == [kind.__name__ for kind in kinds]
    assert len({each["message"] for each in texts}) == len(kinds)
    assert "secret" not in str(texts)
    assert [kind.status for kind in kinds] == [409, 409, 503, 404]


async def test_a_click_takes_up_work_whose_process_was_gone_before_it_could_ask(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_LOOKS", Backoff(initial=60.0))
    told, inbox, wire = Told(), Inbox(journal=address), asking()
    async with process(address, wire, told, inbox=inbox) as other:
        await asyncio.sleep(0.1)  # it has looked for work, and will not do so soon
        async with process(address, wire, told) as gone:
            slug = (await gone.start(MESSAGE, key=KEY)).slug
            action = await asked_for(gone, slug)
        await other.answer(slug, action, True)
        await until(lambda: is_told(other))

    assert told.calls == [(KEY, "completed")]


async def test_a_page_goes_back_to_no_earlier_state_when_work_is_taken_over(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_: object) -> list[str]:
        return []

    told, blind, wire = Told(), story(Answer({}, after=3600)), asking()
    wire.script[HEAD], wire.script[START] = [conversation(2)], [begun(id=NEXT_RUN)]
    async with process(address, wire, told, inbox=Inbox(journal=address)) as other:
        with monkeypatch.context() as between_two_looks:
            between_two_looks.setattr(other._tending, "abandoned", nothing)
            async with process(address, blind, told) as gone:
                slug = (await gone.start(MESSAGE, key=KEY)).slug
            page = other.watch(slug)
            seen = [await anext(page)]
            while said(seen[-1]) != ("run", "requires_action"):
                seen.append(await anext(page))
            rest = asyncio.create_task(events_of(page))
        await until(lambda: is_asked(other))
        await other.answer(slug, await asked_for(other, slug), True)
        seen += await rest
        await until(lambda: is_told(other))

    of_first_run = [json.loads(event.data)["status"] for event in seen if f'"id":"{RUN}"' in event.data]
    assert of_first_run == ["requires_action"]
    assert told.calls == [(KEY, "completed")]


async def events_of(page: Watcher) -> list[Event]:
    return [event async for event in page]


async def is_asked(served: Service) -> bool:
    assert served.inbox is not None
    return bool(await served.inbox.pending())


async def test_the_url_of_the_first_run_is_that_of_what_an_answer_brings_too(tmp_path: Path) -> None:
    wire = asking()
    wire.script[HEAD] = [conversation(0), conversation(2), conversation(4)]
    wire.script[START] = [begun(), begun(id=NEXT_RUN), begun(id="third")]
    wire.script[POLL_NEXT] = [run("requires_action", id=NEXT_RUN)]
    wire.script["GET /agents/runs/third"] = [run("completed", id="third")]
    told = Told()
    async with process(tmp_path, wire, told, inbox=Inbox(journal=tmp_path / "work.db")) as served:
        slug = (await served.start(MESSAGE, key=KEY)).slug
        for run_id in (RUN, NEXT_RUN):
            await served.answer(slug, await asked_for(served, slug, run_id), True)
        await until(lambda: is_told(served))

    assert told.calls == [(KEY, "completed")]


async def test_a_text_that_names_no_run_is_not_found_and_nothing_is_asked(address: str) -> None:
    wire = Wire({})
    async with process(address, wire) as served:
        for text in ("", "nonsense", "origami.agent.run", "narrative..~zz"):
            with pytest.raises(NotFoundError):
                await served.watch(text).ready()
            assert [event.name async for event in served.watch(text)] == ["error", "end"]

    assert wire.asked == []


async def test_when_it_stops_what_is_being_told_may_end(address: str) -> None:
    calls: list[str] = []
    is_called = asyncio.Event()

    async def slow(key: str, _: Run[Any]) -> None:
        calls.append(f"{key} begun")
        is_called.set()
        await asyncio.sleep(0.1)
        calls.append(f"{key} ended")

    async with process(address, ending(), slow) as served:
        await served.start(MESSAGE, key=KEY)
        await is_called.wait()
    async with process(address, Wire({}), slow):
        await asyncio.sleep(0.1)

    assert calls == [f"{KEY} begun", f"{KEY} ended"]
    assert len(asyncio.all_tasks()) == 1


async def test_a_service_that_begins_while_another_stops_does_not_tell_what_that_one_tells_still(address: str) -> None:
    calls: list[str] = []
    is_called, may_end = asyncio.Event(), asyncio.Event()

    async def slow(_: str, __: Run[Any]) -> None:
        calls.append("begun")
        is_called.set()
        await may_end.wait()
        calls.append("ended")

    async def stops() -> None:
        async with process(address, ending(), slow) as served:
            await served.start(MESSAGE, key=KEY)
            await is_called.wait()

    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(stops())
        await is_called.wait()
        await asyncio.sleep(0.05)  # it stops by now
        async with process(address, Wire({}), slow) as served:
            await asyncio.sleep(0.1)  # it has looked a few times
            assert not stopping.done()
            may_end.set()
            await stopping
            await until(lambda: is_told(served))

    assert calls == ["begun", "ended"]


async def test_a_service_that_has_lost_its_work_meanwhile_tells_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(fails=1)
    async with process(tmp_path, ending(), told) as served:

        async def take(_: str) -> bool:
            """Answer as a journal does that takes this process for dead once it has begun to tell."""
            return not told.calls

        monkeypatch.setattr(served._tending, "take", take)
        await served.start(MESSAGE, key=KEY)
        await told.is_called.wait()
        await until(lambda: is_left(served))

    assert told.calls == [(KEY, "completed")]


async def test_an_on_end_that_has_returned_is_not_called_again_where_the_journal_could_not_be_told(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, fails = Told(), 2
    async with process(address, ending(), told) as served:
        keep = served._tending.told

        async def away(key: str) -> None:
            """Fail as a journal does that was not heard of for as long as a lease."""
            nonlocal fails
            if fails:
                fails -= 1
                raise JournalError(address, "it was not heard of", "The end of the work was told, and may be again")
            await keep(key)

        monkeypatch.setattr(served._tending, "told", away)
        await served.start(MESSAGE, key=KEY)
        await until(lambda: is_told(served))

    assert fails == 0
    assert told.calls == [(KEY, "completed")]


async def test_a_look_that_fails_is_told_and_looked_again(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told, looks = Told(), 0
    async with process(address, ending(), Told(fails=10**9)) as served:
        await served.start(MESSAGE, key=KEY)
    async with process(address, ending(), told) as served:
        abandoned = served._tending.abandoned

        async def fails(ours: Any) -> list[str]:
            nonlocal looks
            looks += 1
            if looks < 3:
                raise ZeroDivisionError("a mistake")
            return await abandoned(ours)

        monkeypatch.setattr(served._tending, "abandoned", fails)
        await until(lambda: is_told(served))

    assert told.calls == [(KEY, "completed")]
    failed = [each for each in caplog.records if "cannot be looked for now" in each.message]
    assert len(failed) == 2
    assert all(each.exc_info for each in failed)


async def test_an_end_whose_telling_is_cancelled_from_within_is_told_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    async def told(key: str, _: Run[Any]) -> None:
        calls.append(key)
        if len(calls) == 1:
            raise asyncio.CancelledError

    async with process(tmp_path, ending(), told) as served:
        await served.start(MESSAGE, key=KEY)
        await until(lambda: is_told(served))

    assert calls == [KEY, KEY]
    assert "was cut off while it was tended" in caplog.text


@pytest.mark.parametrize("kind", [SystemExit, KeyError])
async def test_an_on_end_that_fails_or_exits_fails_alone_and_is_called_again(
    tmp_path: Path, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    async def fails(key: str, _: Run[Any]) -> None:
        calls.append(key)
        if len(calls) == 1:
            raise kind("no")

    async with process(tmp_path, ending(), fails) as served:
        await served.start(MESSAGE, key=KEY)
        await until(lambda: is_told(served))

    assert calls == [KEY, KEY]
    assert "could not be told, and is told again" in caplog.text


async def test_an_on_end_that_is_not_async_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    not_async: Any = lambda *_: None  # noqa: E731
    async with process(tmp_path, ending(), not_async) as served:
        await served.start(MESSAGE, key=KEY)
        async with asyncio.timeout(10):
            while "it must be an async function of a key and a Run" not in caplog.text:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.005)


async def test_a_form_that_is_sent_twice_begins_one_run_though_each_makes_a_conversation(address: str) -> None:
    again, third = (evolve(MESSAGE, conversation_id=each) for each in ("another", "a third"))
    async with process(address, running()) as served:
        begun_run = await served.start(MESSAGE, key=KEY, digest="Approve it.")
        assert (await served.start(again, key=KEY, digest="Approve it.")).id == begun_run.id
    wire = running()
    async with process(address, wire) as served:
        assert (await served.start(third, key=KEY, digest="Approve it.")).id == begun_run.id
        with pytest.raises(ConfigurationError, match="names other work"):
            await served.start(third, key=KEY, digest="Something else.")

    assert wire.times(START) == []


async def test_work_that_is_forgotten_while_a_tab_watches_it_is_shown_on(address: str) -> None:
    async with process(address, running()) as served:
        begun_run = await served.start(MESSAGE, key=KEY)
    async with watching_only(address, story(run("running"), run("running"), run("completed"))) as (client, feeds):
        tab = feeds.watch(begun_run)
        await anext(tab)
        work = await client.work(KEY)
        assert work is not None
        await work.forget()
        assert [said(event)[1] for event in [event async for event in tab][:-1]][-1] == "completed"


@asynccontextmanager
async def watching_only(path: str, wire: Wire) -> AsyncIterator[tuple[Client, Feeds]]:
    """Give a process that goes on with no work."""
    async with client_on(path, wire) as client, Feeds(client) as feeds:
        yield client, feeds


async def test_what_was_told_long_ago_is_deleted(address: str) -> None:
    async with process(address, ending()) as served:
        await served.start(MESSAGE, key=KEY)
        await until(lambda: is_told(served))
    async with process(address, Wire({}), retention=0.0) as served:

        async def is_gone() -> bool:
            return await served.client.work(KEY) is None

        await until(is_gone)


async def test_what_is_asked_of_a_service_that_has_stopped_is_no_mistake_of_the_app(tmp_path: Path) -> None:
    slow = Wire({HEAD: conversation(), START: Answer({}, after=3600), POLL: run("running")})
    async with process(tmp_path, slow) as served:
        starting = asyncio.create_task(served.start(MESSAGE, key=KEY))
        shown = served.watch(f"narrative..{RUN}")
        assert said(await anext(shown)) == ("run", "running")
        await asyncio.sleep(0.05)
    with pytest.raises(AgentRunsError, match="stopped") as told:
        await starting
    assert not isinstance(told.value, ConfigurationError)
    with pytest.raises(AgentRunsError, match="this service has stopped") as told:
        await served.start(MESSAGE)
    assert not isinstance(told.value, ConfigurationError)
    late = served.watch(f"narrative..{RUN}")
    await late.ready()  # a response begins, and ends: a browser comes back to another worker
    assert [event async for event in late] == [event async for event in shown] == []


async def test_what_cannot_work_is_said_before_anything_is_begun(tmp_path: Path) -> None:
    wire = Wire({})
    client = client_on(tmp_path, wire)
    wrong: Any = "a string"
    with pytest.raises(ConfigurationError, match=r"no journal, so that.*Inbox\(journal="):
        Service(client, inbox=Inbox())
    with pytest.raises(ConfigurationError, match=r"other\.db, and the client .*work\.db, so that.*Inbox\(journal="):
        Service(client, inbox=Inbox(journal=tmp_path / "other.db"))
    with pytest.raises(ConfigurationError, match="no journal: pass"):
        Service(Client(load("narrative"), wire, retry=Retry()))
    with pytest.raises(ConfigurationError, match="on_end is"):
        Service(client, on_end=wrong)
    with pytest.raises(ConfigurationError, match="retention"):
        Service(client, retention=-1.0)
    closed = Service(client)
    with pytest.raises(ConfigurationError, match=r"async with Service"):
        await closed.start(MESSAGE)
    async with closed as served:
        with pytest.raises(ConfigurationError, match="starts a run from"):
            await served.start("hello")
        with pytest.raises(ConfigurationError, match="no inbox"):
            await served.answer("narrative..r", "a", True)
        assert await served._tending.abandoned() == []
        assert "0 tended" in repr(served)

    assert wire.asked == []
