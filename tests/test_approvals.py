"""An approval is of what the person saw: of a name and arguments, not of an id."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentruns import (
    Action,
    AgentRunsError,
    ConfigurationError,
    Inbox,
    NotPendingError,
    ProtocolError,
    Run,
    RunRef,
    RunStatus,
)
from agentruns._keeping.digest import digest
from agentruns._keeping.journal import Journal
from agentruns._keeping.journal.values import GivenAnswer
from agentruns._values.run import JsonText
from agentruns.console.timeline import groups
from agentruns.dialects import middesk
from agentruns.tools import asking
from tests.scripted_wire import CALL, NEXT_RUN, POLL, POLL_NEXT, START, Answer, Wire, begun, conversation, exchange, run
from tests.scripted_wire import HEAD as HEAD_OF
from tests.test_first_answer import memory_client
from tests.test_inbox import first_parked
from tests.test_keys import KEY, client_of, message

pytestmark = pytest.mark.asyncio

SMALL, LARGE = Action("a", "pay", {"amount": 10}), Action("a", "pay", {"amount": 1_000_000})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def paused(*actions: Action) -> Run:
    return Run(RunRef("run-1"), RunStatus.REQUIRES_ACTION, "paused", actions, vendor="acme", raw=JsonText(b"{}"))


def ask(inbox: Inbox, action: Action) -> "asyncio.Task[Any]":
    async def handle() -> Any:
        return await inbox(action)

    return asyncio.ensure_future(asking(paused(action), "k", handle))


# The digest -----------------------------------------------------------------------------------------------------------


async def test_a_digest_names_the_name_and_the_arguments_in_any_order() -> None:
    same = Action("b", "pay", {"to": "x", "amount": 1})

    assert digest(same) == digest(Action("a", "pay", {"amount": 1, "to": "x"}))
    assert digest(same) != digest(Action("b", "pay", {"amount": 2, "to": "x"}))
    assert digest(same) != digest(Action("b", "refund", {"amount": 1, "to": "x"}))


# Ids that are not unique ----------------------------------------------------------------------------------------------

TWICE = {**CALL, "name": "u-pay", "arguments": {"amount": 1_000_000}}


async def test_a_pause_whose_action_ids_are_not_unique_is_refused_before_any_handler_runs() -> None:
    ran: list[Action] = []
    wire = Wire({
        HEAD_OF: conversation(),
        START: begun(),
        POLL: run("requires_action", pending_tool_calls=[CALL, TWICE]),
    })
    async with memory_client(wire) as client:
        with pytest.raises(ProtocolError, match="asks two things under one id"):
            await client.result(message(), tools=ran.append)

    assert ran == []


async def test_interrupts_with_one_id_are_refused_too() -> None:
    from tests.test_middesk import body

    asked = [{"id": "i", "value": {}}, {"id": "i", "value": {"amount": 1}}]
    twice = Answer(body("interrupted", interrupts=asked))
    with pytest.raises(ProtocolError, match="asks two things under one id: 'i'"):
        exchange(middesk.fetch(RunRef("r"), {}), twice)


# Parked actions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False], ids=["in a journal", "in memory"])
async def test_an_approval_of_other_arguments_is_not_used_and_the_person_is_asked_again(
    path: Path, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Inbox(journal=path if kept else None) as inbox:
        before = ask(inbox, SMALL)
        (parked,) = await first_parked(inbox)
        assert not parked.changed
        if kept:
            before.cancel()
            await asyncio.wait([before])
        await inbox.answer("a", "approved")
        await asyncio.wait([before])
        with caplog.at_level(logging.WARNING, logger="agentruns"):
            after = ask(inbox, LARGE)
            (again,) = await first_parked(inbox)

        assert (again.action, again.changed) == (LARGE, True)
        assert "asks something else than before" in caplog.text
        await inbox.refuse("a", "too much")
        with pytest.raises(Exception, match="too much"):
            await after


async def test_the_approval_of_the_same_arguments_is_found_again(path: Path) -> None:
    async with Inbox(journal=path) as inbox:
        before = ask(inbox, SMALL)
        await first_parked(inbox)
        before.cancel()
        await asyncio.wait([before])
        await inbox.answer("a", "approved")

        assert await ask(inbox, SMALL) == "approved"


@pytest.mark.parametrize("kept", [True, False], ids=["in a journal", "in memory"])
async def test_an_answer_to_what_was_seen_is_no_answer_to_what_is_asked_by_now(path: Path, kept: bool) -> None:
    async with Inbox(journal=path if kept else None) as inbox:
        before = ask(inbox, SMALL)
        (seen,) = await first_parked(inbox)
        after = ask(inbox, LARGE)
        with pytest.raises(AgentRunsError, match="asks something else by now"):
            await before
        with pytest.raises(NotPendingError, match="asks something else by now"):
            await inbox.answer("a", "approved", seen=seen.action)
        with pytest.raises(NotPendingError):
            await inbox.refuse("a", "no", seen=seen.action)
        await inbox.answer("a", "approved", seen=LARGE)
        assert await after == "approved"


# Under a key ----------------------------------------------------------------------------------------------------------


async def test_what_a_handler_answered_to_other_arguments_is_not_posted(path: Path) -> None:
    async with Journal(path, "narrative") as journal:
        await journal.begin(KEY, "{}")
        first = await journal.handle(KEY, "r", "a", "pay", digest=digest(SMALL))
        await journal.answered(KEY, "r", "a", '"done"', False)
        known = await journal.handle(KEY, "r", "a", "pay", digest=digest(SMALL))
        other = await journal.handle(KEY, "r", "a", "pay", digest=digest(LARGE))

    assert (first.fresh, known.fresh, known.output) == (True, False, '"done"')
    assert (other.fresh, other.output) == (True, None)


async def test_an_answer_by_hand_to_other_arguments_does_not_stand(path: Path) -> None:
    state = paused(SMALL).to_json()
    async with Journal(path, "narrative") as journal:
        await journal.attach(KEY, "{}", state)
        await journal.decided("run-1", [GivenAnswer("a", "pay", '"yes"', digest=digest(SMALL))])
        same = await journal.decided("run-1", [GivenAnswer("a", "pay", '"no"', digest=digest(SMALL))])
        other = await journal.decided("run-1", [GivenAnswer("a", "pay", '"no"', digest=digest(LARGE))])

    assert [each.output for each in same.standing] == ['"yes"']
    assert other.standing == ()


async def test_a_parked_approval_is_not_posted_for_other_arguments_after_a_crash(path: Path) -> None:
    small, large = ({**CALL, "arguments": {"amount_eur": each}} for each in (10, 1_000_000))

    def wire(call: Any) -> Wire:
        return Wire({
            HEAD_OF: conversation(),
            START: [begun(), begun(id=NEXT_RUN)],
            POLL: run("requires_action", pending_tool_calls=[call]),
            POLL_NEXT: run("completed", id=NEXT_RUN),
        })

    async with Inbox(journal=path) as desk:
        async with client_of(wire(small), path) as client:
            following = asyncio.ensure_future(client.result(message(), key=KEY, tools=desk, timeout=None))
            (seen,) = await first_parked(desk)
            following.cancel()
            await asyncio.wait([following])
        await desk.answer(seen.action.id, "approved", seen=seen.action)
        async with client_of(wire(large), path) as client:
            following = asyncio.ensure_future(client.result(message(), key=KEY, tools=desk, timeout=None))
            (again,) = await first_parked(desk)
            assert again.changed
            assert again.action.arguments == {"amount_eur": 1_000_000}
            assert not following.done()
            following.cancel()
            await asyncio.wait([following])


async def test_the_group_of_a_page_is_another_one_for_other_arguments() -> None:
    (small,) = groups(None, paused(SMALL), {"a": "inbox"})
    (large,) = groups(None, paused(LARGE), {"a": "inbox"}, {"a"})

    assert small.id != large.id
    assert (small.changed, large.changed) == (False, True)


# Other threads and loops ----------------------------------------------------------------------------------------------


def in_a_thread(call: Callable[[], Awaitable[Any]]) -> "asyncio.Future[Any]":
    """Call in a loop of its own, as a sync view of a web framework does."""

    async def main() -> Any:
        return await call()

    return asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(main()))


@pytest.mark.parametrize("kept", [True, False], ids=["in a journal", "in memory"])
async def test_an_answer_from_the_loop_of_another_thread_arrives(path: Path, kept: bool) -> None:
    async with Inbox(journal=path if kept else None) as inbox:
        task = ask(inbox, SMALL)
        await first_parked(inbox)
        (seen,) = await in_a_thread(inbox.pending)
        await in_a_thread(lambda: inbox.answer(seen.action.id, "approved"))

        async with asyncio.timeout(50):
            assert await task == "approved"
        with pytest.raises(NotPendingError, match='it was answered already: "approved"'):
            await in_a_thread(lambda: inbox.refuse(seen.action.id, "no"))


async def test_of_two_threads_that_answer_at_once_one_is_told_what_stands() -> None:
    inbox = Inbox()
    task = ask(inbox, SMALL)
    await first_parked(inbox)
    ended = await asyncio.gather(
        *(in_a_thread(lambda each=each: inbox.answer("a", each)) for each in ("yes", "no")),  # type: ignore[misc]
        return_exceptions=True,
    )
    answer = await task

    (late,) = [each for each in ended if each is not None]
    assert isinstance(late, NotPendingError)
    assert f'it was answered already: "{answer}"' in str(late)


async def test_a_second_loop_cannot_wait_in_the_inbox_of_the_first() -> None:
    inbox = Inbox()
    task = ask(inbox, SMALL)
    await first_parked(inbox)
    with pytest.raises(ConfigurationError, match="is used in another event loop already"):
        await in_a_thread(lambda: ask(inbox, LARGE))
    await inbox.answer("a", "yes")
    assert await task == "yes"


async def test_an_answer_to_a_loop_that_does_not_run_is_refused() -> None:
    await asyncio.to_thread(answers_where_nothing_runs)


def answers_where_nothing_runs() -> None:
    inbox, loop = Inbox(), asyncio.new_event_loop()

    async def parks() -> "asyncio.Task[Any]":
        task = ask(inbox, SMALL)
        await first_parked(inbox)
        return task

    task = loop.run_until_complete(parks())
    with pytest.raises(ConfigurationError, match="does not run; nothing was answered"):
        asyncio.run(inbox.answer("a", "yes"))
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
