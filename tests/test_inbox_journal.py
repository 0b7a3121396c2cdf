"""The inbox in a journal: what outlives the stream and the process, and who wins when several answer."""
# ruff: noqa: ASYNC240 - the files are small, and nobody else waits

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from attrs import evolve

from agentruns import (
    Action,
    AgentRunsError,
    ConfigurationError,
    JournalError,
    RunStatus,
    ToolOutput,
    Tools,
    connect,
    narrative,
    origami,
)
from agentruns._keeping.journal import Journal, schema
from agentruns.emulator import Call, Emulator, Turn
from agentruns.inbox import Inbox
from tests.scripted_wire import CALL, HEAD, NEXT_RUN, POLL, POLL_NEXT, RUN, START, Wire, begun, conversation, run
from tests.test_inbox import CALL_ID, first_parked, parked, paused
from tests.test_keys import KEY, QUICK, client_of, config, message

pytestmark = pytest.mark.asyncio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest_asyncio.fixture
async def inbox(path: Path) -> AsyncIterator[Inbox]:
    async with Inbox(journal=path) as opened:
        yield opened


@pytest_asyncio.fixture
async def desk(path: Path) -> AsyncIterator[Inbox]:
    """Return what answers: an inbox of its own on the same file, as another process would have it."""
    async with Inbox(journal=path) as opened:
        yield opened


def script(**lines: Any) -> Wire:
    return Wire({
        HEAD: conversation(),
        START: [begun(), begun(id=NEXT_RUN)],
        POLL: run("requires_action"),
        POLL_NEXT: run("completed", id=NEXT_RUN),
        **lines,
    })


def spawn(program: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def pass_time(seconds: float) -> None:
    """Put the loop's clock forward: the time is up, however fast or slow the machine is."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    loop.time = lambda: clock() + seconds  # type: ignore[method-assign]


async def ended(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    await asyncio.wait([task])


# Open and closed ------------------------------------------------------------------------------------------------------


async def test_an_inbox_in_a_journal_is_used_while_it_is_open(path: Path) -> None:
    inbox = Inbox(journal=path)
    for use in (inbox.pending, lambda: inbox.answer("0", "yes"), lambda: inbox(Action("0", "x"))):
        with pytest.raises(ConfigurationError, match="is not open; use it within `async with inbox:`"):
            await use()
    async with inbox:
        assert await inbox.pending() == ()
    with pytest.raises(ConfigurationError, match="is not open"):
        inbox.changes()
    assert repr(inbox) == f"Inbox(journal={str(path)!r})"


async def test_an_inbox_that_is_entered_twice_says_so_and_goes_on(path: Path) -> None:
    for inbox in (Inbox(), Inbox(journal=path)):
        async with inbox:
            with pytest.raises(ConfigurationError, match="entered already"):
                await inbox.__aenter__()
            assert await inbox.pending() == ()
        async with inbox:
            assert await inbox.pending() == ()


async def test_closing_ends_the_waits_and_leaves_the_actions_parked(path: Path, desk: Inbox) -> None:
    inbox = await Inbox(journal=path).__aenter__()
    (task,) = await parked(inbox, paused(), 1)
    await inbox.close()

    with pytest.raises(AgentRunsError, match="the inbox was closed while it was waited for"):
        await task
    assert len(await desk.pending()) == 1


async def test_an_inbox_whose_user_is_cancelled_again_and_again_is_closed(path: Path) -> None:
    inbox = Inbox(journal=path)
    shown = asyncio.Event()

    async def watch() -> None:
        async with inbox:
            async for _ in inbox.changes():
                shown.set()

    task = asyncio.create_task(watch())
    await shown.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)

    assert inbox._journal is not None
    with pytest.raises(JournalError, match="it is not open"):
        await inbox._journal.version()


async def test_no_task_is_left_when_nobody_waits(inbox: Inbox) -> None:
    def looking() -> int:
        return sum(each.get_name() == "agentruns: look at the changes of a journal" for each in asyncio.all_tasks())

    tasks = await parked(inbox, paused(), 1) + await parked(inbox, paused("run-2"), 2)
    assert looking() == 1
    await inbox.answer("0", "yes", run_id="run-1")
    await tasks[0]
    assert looking() == 1
    await inbox.answer("0", "yes", run_id="run-2")
    await tasks[1]
    await asyncio.sleep(0)

    assert looking() == 0


async def test_who_waits_for_changes_alone_looks_no_more_often_than_others(
    inbox: Inbox, desk: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentruns._keeping.journal.changes.LOOK_SECONDS", 3600.0)
    looks, version = 0, Journal.version

    async def counted(journal: Journal) -> int:
        nonlocal looks
        looks += 1
        return await version(journal)

    monkeypatch.setattr(Journal, "version", counted)
    changes = inbox.changes()
    assert await anext(changes) == ()
    waiting = asyncio.ensure_future(anext(changes))
    for _ in range(20):
        await desk.pending()  # as long as it takes to look
    assert looks <= 3
    await ended(waiting)


async def test_the_file_is_for_its_owner_only(path: Path, inbox: Inbox) -> None:
    (task,) = await parked(inbox, paused(), 1)
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}
    await ended(task)


async def test_a_journal_that_was_deleted_ends_the_waits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentruns.inbox._SURE_SECONDS", 0.0)
    looked, look = asyncio.Event(), Journal.look

    async def remembered(journal: Journal, places: Any) -> Any:
        found = await look(journal, places)
        if places:
            looked.set()
        return found

    monkeypatch.setattr(Journal, "look", remembered)
    async with Inbox(journal=path) as inbox:
        (task,) = await parked(inbox, paused(), 1)
        await looked.wait()  # nothing is written any more
        path.unlink()
        with pytest.raises(JournalError, match="the file was deleted or replaced while it was in use"):
            await task


# One who waits, another who answers -----------------------------------------------------------------------------------


async def test_what_is_parked_is_seen_and_answered_elsewhere(inbox: Inbox, desk: Inbox) -> None:
    (task,) = await parked(inbox, paused(), 1)
    (found,) = await first_parked(desk)
    assert found == (await inbox.pending())[0]
    assert (found.run, found.action) == (paused(), paused().actions[0])
    await desk.answer("0", {"confirmed": True})

    assert await task == ToolOutput(found.action, {"confirmed": True})
    assert await inbox.pending() == await desk.pending() == ()


async def test_a_refusal_from_elsewhere_reaches_the_model(inbox: Inbox, desk: Inbox) -> None:
    (task,) = await parked(inbox, paused(), 1)
    await desk.refuse("0", "the slot is taken")

    assert await task == ToolOutput(paused().actions[0], "the slot is taken", is_error=True)


async def test_changes_are_those_of_all(inbox: Inbox, desk: Inbox) -> None:
    changes = desk.changes()
    assert await anext(changes) == ()
    (task,) = await parked(inbox, paused(), 1)
    assert [each.action.id for each in await anext(changes)] == ["0"]
    await inbox.answer("0", "yes")
    assert await anext(changes) == ()
    await task


async def test_an_id_that_two_runs_have_needs_the_run(inbox: Inbox, desk: Inbox) -> None:
    one = await parked(inbox, paused("run-1"), 1)
    other = await parked(inbox, paused("run-2"), 2)
    with pytest.raises(ConfigurationError, match="for 2 runs; say which by `run_id=`, one of run-1, run-2"):
        await desk.answer("0", "which?")
    await desk.answer("0", "second", run_id="run-2")
    await desk.answer("0", "first", run_id="run-1")

    assert [(await task).output for task in [*one, *other]] == ["first", "second"]


async def test_an_unknown_action_is_refused(desk: Inbox) -> None:
    with pytest.raises(ConfigurationError, match="action '0' is not pending: this inbox knows no such action"):
        await desk.answer("0", "yes")
    with pytest.raises(ConfigurationError, match="action '0' of run r is not pending: this inbox knows no such action"):
        await desk.refuse("0", "no", run_id="r")


ANSWERER = """
import asyncio, sys
from agentruns import ConfigurationError
from agentruns.inbox import Inbox

async def main():
    async with Inbox(journal=sys.argv[1]) as inbox:
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            await inbox.answer("0", sys.argv[2])
        except ConfigurationError as error:
            print(error)
        else:
            print("won")

asyncio.run(main())
"""


async def test_of_several_processes_that_answer_exactly_one_wins(path: Path, inbox: Inbox) -> None:
    (task,) = await parked(inbox, paused(), 1)
    processes = [spawn(ANSWERER, str(path), f"answer {number}") for number in range(3)]
    for each in processes:
        assert each.stdout is not None
        assert await asyncio.to_thread(each.stdout.readline) == "ready\n"
    said = await asyncio.gather(*(asyncio.to_thread(each.communicate, "\n") for each in processes))

    words = [out.strip() for out, _ in said]
    (stands,) = {word.rpartition(": ")[2] for word in words if word != "won"}
    assert stands in {f'"answer {number}"' for number in range(3)}
    late = f"action '0' of run run-1 is not pending: it was answered already: {stands}"
    assert sorted(words) == [late] * 2 + ["won"]
    assert (await task).output == f"answer {words.index('won')}"


# What outlives the stream ---------------------------------------------------------------------------------------------


async def test_an_action_whose_stream_has_ended_stays_parked_and_its_answer_is_taken_up(
    inbox: Inbox, desk: Inbox
) -> None:
    (first,) = await parked(inbox, paused(), 1)
    (before,) = await desk.pending()
    await ended(first)
    assert await desk.pending() == (before,)

    (second,) = await parked(inbox, paused(), 1)
    assert await desk.pending() == (before,)  # the same row, asked when it was
    await ended(second)
    await desk.answer("0", "yes")
    (third,) = await parked(inbox, paused(), 0)
    assert (await third).output == "yes"
    with pytest.raises(ConfigurationError, match="it was answered already"):
        await desk.answer("0", "no")


async def test_a_handlers_timeout_withdraws_the_action(inbox: Inbox, desk: Inbox) -> None:
    (task,) = await parked(inbox, paused(), 1, timeout=3600)
    pass_time(3600)
    assert (await task).output == "the tool gave no answer within 3600 s"
    with pytest.raises(ConfigurationError, match="it was withdrawn, since nobody waits for it any more"):
        await desk.answer("0", "yes")

    (again,) = await parked(inbox, paused(), 1)
    await desk.answer("0", "yes")
    assert (await again).output == "yes"


async def test_a_timeout_that_is_over_after_the_answer_gives_the_answer(inbox: Inbox, desk: Inbox) -> None:
    """Whoever answered was told that it counts; the inbox that waits has not looked yet."""
    (task,) = await parked(inbox, paused(), 1, timeout=3600)
    await desk.answer("0", "yes")
    pass_time(3600)

    assert (await task).output == "yes"


async def test_work_under_a_key_goes_on_with_an_answer_that_was_given_meanwhile(path: Path, desk: Inbox) -> None:
    async with Inbox(journal=path) as inbox, client_of(script(), path) as client:
        stream = client.stream(message(), key=KEY, tools=inbox, timeout=None)
        step = asyncio.ensure_future(anext(stream))
        while not (await step).actions:
            step = asyncio.ensure_future(anext(stream))
        step = asyncio.ensure_future(anext(stream))
        (found,) = await first_parked(desk)
        assert (found.key, found.run.id, found.action.arguments) == (KEY, RUN, CALL["arguments"])
        await ended(step)
        await stream.aclose()
    await desk.answer(CALL_ID, {"approved": True})

    wire = script(**{START: begun(id=NEXT_RUN)})
    async with Inbox(journal=path) as inbox, client_of(wire, path) as client:
        done = await client.result(message(), key=KEY, tools=inbox, timeout=None)
    assert done.id == NEXT_RUN
    (posted,) = wire.bodies(START)
    text = json.dumps(posted).replace("\\", "")
    assert CALL_ID in text
    assert '{"approved":true}' in text


PARKER = """
import asyncio, sys
from agentruns import connect, narrative
from agentruns.inbox import Inbox

async def main():
    path, base_url, conversation = sys.argv[1:]
    async with Inbox(journal=path) as inbox, connect(narrative, token="t", base_url=base_url, journal=path) as client:
        origin = narrative.UserMessage(conversation, "Book a slot.")
        await client.result(origin, key="booking", tools=inbox, timeout=None)

asyncio.run(main())
"""


async def test_an_action_outlives_a_process_that_was_killed(path: Path, desk: Inbox) -> None:
    tool = {"name": "confirm_booking", "description": "", "inputSchema": {"type": "object"}}
    turns = [Turn(calls=[Call("confirm_booking", {"slot": "9:00"})]), Turn("done")]
    async with Emulator("narrative", script=turns, token="t") as emulator:

        def client() -> Any:
            return connect(narrative, token="t", base_url=emulator.base_url, journal=path, schedule=QUICK)

        tools = Tools()
        tools.add(desk, name=str(tool["name"]))
        async with client() as opened:
            made = await opened.perform(
                narrative.create_conversation(
                    evolve(config(), client_tools=[narrative.client_tools(tools, alias="user")])
                )
            )
        process = spawn(PARKER, str(path), emulator.base_url, made.id)
        try:
            (found,) = await first_parked(desk)
        finally:
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.communicate)
        assert await desk.pending() == (found,)
        await desk.answer(found.action.id, {"confirmed": True})

        async with client() as opened:
            origin = narrative.UserMessage(made.id, "Book a slot.")
            done = await opened.result(origin, key="booking", tools=desk, timeout=None)
        assert done.output == "done"
        assert emulator.state.runs_started == 2  # the first, and the one that answers it


async def test_questions_are_answered_by_another_process_one_by_one(path: Path, desk: Inbox) -> None:
    questions = Turn(calls=[Call("ask-questions", {"question": each}) for each in ("Which city?", "How many?")])
    async with (
        Emulator("origami", script=[questions, Turn("done")], retry_after=0) as emulator,
        connect(
            origami, token=emulator.token, base_url=emulator.base_url, journal=path, schedule=QUICK, budget=1000
        ) as client,
        Inbox(journal=path) as inbox,
    ):
        waiting = asyncio.ensure_future(
            client.result(origami.Prompt("Find clinics."), key=KEY, tools=inbox, timeout=None)
        )
        await first_parked(desk, 2)
        await desk.answer("1", "three")
        await desk.answer("0", "Berlin")
        assert (await waiting).output == "done"


async def test_an_answer_that_is_refused_beside_another_one_is_asked_for_again(path: Path, desk: Inbox) -> None:
    questions = Turn(calls=[Call("ask-questions", {"question": each}) for each in ("Which city?", "How many?")])
    long = "a" * 6_000  # one fits into a prompt of Origami, two do not
    prompt = origami.Prompt("Find clinics.")

    async def look_up(action: Action) -> Any:
        return long if action.id == "0" else await waits_for(action)

    look_up.repeatable = True  # type: ignore[attr-defined]
    async with (
        Emulator("origami", script=[questions, Turn("done")], retry_after=0) as emulator,
        connect(
            origami, token=emulator.token, base_url=emulator.base_url, journal=path, schedule=QUICK, budget=1000
        ) as client,
        Inbox(journal=path) as waits_for,
    ):
        for _ in range(2):
            waiting = asyncio.ensure_future(client.result(prompt, key=KEY, tools=look_up, timeout=None))
            await first_parked(desk)
            await desk.answer("1", long)  # the journal of the inbox does not know what the other handler says
            with pytest.raises(ConfigurationError, match="make a prompt of 12"):
                await waiting
        waiting = asyncio.ensure_future(client.result(prompt, key=KEY, tools=look_up, timeout=None))
        await first_parked(desk)
        await desk.answer("1", "three")
        assert (await waiting).output == "done"


async def test_a_person_is_told_that_an_answer_is_refused_beside_another_one(path: Path, inbox: Inbox) -> None:
    run = paused("run-1", *(Action(each, "ask-questions", {"question": each}) for each in "ab"), vendor="origami")
    for own in (inbox, Inbox()):
        tasks = await parked(own, run, 2)
        await own.answer("a", "a" * 6_000)
        with pytest.raises(ConfigurationError, match="make a prompt of 12"):
            await own.answer("b", "b" * 6_000)
        assert [each.action.id for each in await own.pending()] == ["b"]
        await own.answer("b", "short")
        await asyncio.gather(*tasks)


# Runs that move on ----------------------------------------------------------------------------------------------------


async def test_an_answer_by_hand_withdraws_what_is_parked(path: Path, inbox: Inbox, desk: Inbox) -> None:
    wire = script()
    async with client_of(wire, path) as client:
        waiting = asyncio.ensure_future(client.result(message(), key=KEY, tools=inbox, timeout=None))
        (found,) = await first_parked(desk)
        await client.resume(found.run, [ToolOutput(found.action, "by hand")])

        assert await desk.pending() == ()
        with pytest.raises(ConfigurationError, match="it was withdrawn"):
            await desk.answer(CALL_ID, "late")
        with pytest.raises(AgentRunsError, match="was withdrawn while it was parked: the run has moved on"):
            await waiting
        done = await client.result(message(), key=KEY, tools=inbox, timeout=None)
    assert done.id == NEXT_RUN
    assert len(wire.bodies(START)) == 2


async def test_a_run_that_is_seen_to_be_over_asks_for_nothing_any_more(path: Path, inbox: Inbox, desk: Inbox) -> None:
    async with client_of(script(), path) as client:
        waiting = asyncio.ensure_future(client.result(message(), key=KEY, tools=inbox, timeout=None))
        await first_parked(desk)
        await ended(waiting)
    async with client_of(script(**{POLL: run("failed")}), path) as client:
        async for state in client.stream(message(), key=KEY, tools=inbox):
            assert state.status is RunStatus.FAILED

    assert await desk.pending() == ()


async def test_a_state_that_still_asks_withdraws_only_what_it_no_longer_asks_for(path: Path, inbox: Inbox) -> None:
    tasks = await parked(inbox, paused("run-1", Action("a", "x"), Action("b", "x")), 2)
    others = await parked(inbox, paused("run-2", Action("a", "x")), 3)
    others += await parked(inbox, paused("run-1", Action("a", "x"), vendor="middesk"), 4)
    async with Journal(path, "narrative") as journal:
        await journal.begin(KEY, "{}")
        await journal.saw(KEY, paused("run-1", Action("b", "x")).to_json())
        await journal.saw(KEY, '"\\u0000 \x00 no JSON that SQLite reads"')

    assert [(each.vendor, each.run.id, each.action.id) for each in await inbox.pending()] == [
        ("narrative", "run-1", "b"),
        ("narrative", "run-2", "a"),
        ("middesk", "run-1", "a"),
    ]
    for task in [*tasks, *others]:
        await ended(task)


# The file -------------------------------------------------------------------------------------------------------------


async def test_the_tables_of_an_upgraded_file_are_those_of_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(schema, "STEPS", schema.STEPS[:1])
        async with Journal(tmp_path / "old.db", "narrative"):
            pass
    tables = []
    for name in ("old.db", "new.db"):
        async with Journal(tmp_path / name, "narrative"):
            pass
        with closing(sqlite3.connect(tmp_path / name)) as file:
            tables.append(file.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall())
    assert tables[0] == tables[1]


async def test_the_answers_are_not_logged(inbox: Inbox, desk: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    (task,) = await parked(inbox, paused("run-1", Action("0", "x", {"note": "secret argument"})), 1)
    await desk.answer("0", "secret answer")
    await task

    assert "secret" not in caplog.text
