"""The inbox in memory: what is parked, who may answer, and what a stream does meanwhile."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from agentruns import (
    Action,
    AgentRunsError,
    Backoff,
    Client,
    ConfigurationError,
    DeadlineExceededError,
    Run,
    RunRef,
    RunStatus,
    Tools,
    connect,
    middesk,
    narrative,
    origami,
)
from agentruns._keeping.journal.moves import WaitAct
from agentruns._values.run import ToolOutput
from agentruns.emulator import Call, Emulator, Turn
from agentruns.inbox import AlreadyDecidedError, Inbox, Parked
from agentruns.tools import asking, current_key, current_run
from tests.scripted_wire import CALL, HEAD, NEXT_RUN, POLL, POLL_NEXT, RUN, START, Wire, client_of, conversation, run
from tests.test_keys import QUICK, config, message

pytestmark = pytest.mark.asyncio

CALL_ID = str(CALL["tool_use_id"])


def paused(run_id: str = "run-1", *actions: Action, vendor: str = "narrative") -> Run:
    asked = actions or (Action("0", "confirm_booking", {"slot": "9:00"}),)
    return Run(RunRef(run_id, "parent"), RunStatus.REQUIRES_ACTION, "requires_action", asked, vendor=vendor)


async def parked(
    inbox: Inbox, run: Run, count: int, *, timeout: float | None = None
) -> list["asyncio.Task[ToolOutput]"]:
    """Park the actions of *run* as a stream does, and return the tasks that wait once *count* actions are parked."""
    tool = Tools()
    tool.default(inbox, timeout=timeout)
    handler = tool.find(())
    assert handler is not None
    tasks = [
        asyncio.create_task(asking(run, None, lambda action=action: handler(action)))  # type: ignore[misc]
        for action in run.actions
    ]
    await first_parked(inbox, count)
    return tasks


async def first_parked(inbox: Inbox, count: int = 1) -> tuple[Parked, ...]:
    """Return what is parked as soon as there are so many."""
    async for pending in inbox.changes():
        if len(pending) >= count:
            return pending
    raise AssertionError("changes go on for ever")


def script() -> Wire:
    return Wire({
        HEAD: conversation(),
        START: [run("pending"), run("pending", id=NEXT_RUN)],
        POLL: run("requires_action"),
        POLL_NEXT: run("completed", id=NEXT_RUN),
    })


@pytest_asyncio.fixture
async def inbox() -> AsyncIterator[Inbox]:
    async with Inbox() as opened:
        yield opened


# Answers --------------------------------------------------------------------------------------------------------------


async def test_a_parked_action_says_what_is_asked_and_its_answer_is_the_handlers(inbox: Inbox) -> None:
    (task,) = await parked(inbox, paused(), 1)
    (found,) = await inbox.pending()

    assert (found.run, found.action, found.vendor, found.key) == (paused(), paused().actions[0], "narrative", None)
    assert found.expires is None
    assert found.seconds_left() is None
    await inbox.answer("0", {"confirmed": True})
    assert await task == ToolOutput(found.action, {"confirmed": True})
    assert await inbox.pending() == ()


async def test_a_refusal_tells_the_model_why(inbox: Inbox) -> None:
    (task,) = await parked(inbox, paused(), 1)
    await inbox.refuse("0", "the slot is taken")

    assert await task == ToolOutput(paused().actions[0], "the slot is taken", is_error=True)


async def test_a_refusal_needs_a_reason(inbox: Inbox) -> None:
    (task,) = await parked(inbox, paused(), 1)
    with pytest.raises(ConfigurationError, match="why is ''; it must be a text"):
        await inbox.refuse("0", "")

    await inbox.refuse("0", "no")
    await task


async def test_pending_is_in_the_order_of_asking_and_may_be_of_one_run(inbox: Inbox) -> None:
    one = await parked(inbox, paused("run-1", Action("a", "x"), Action("b", "x")), 2)
    other = await parked(inbox, paused("run-2", Action("c", "x")), 3)

    assert [each.action.id for each in await inbox.pending()] == ["a", "b", "c"]
    assert [each.action.id for each in await inbox.pending(paused("run-1"))] == ["a", "b"]
    assert [each.action.id for each in await inbox.pending(RunRef("run-2"))] == ["c"]
    assert [each.action.id for each in await inbox.pending("run-2")] == ["c"]
    for each in await inbox.pending():
        await inbox.answer(each.action.id, None)
    assert [output.output for output in await asyncio.gather(*one, *other)] == [None] * 3


async def test_an_id_that_two_runs_have_needs_the_run(inbox: Inbox) -> None:
    one = await parked(inbox, paused("run-1"), 1)
    other = await parked(inbox, paused("run-2"), 2)
    with pytest.raises(ConfigurationError, match="for 2 runs; say which by `run_id=`, one of run-1, run-2"):
        await inbox.answer("0", "which?")

    await inbox.answer("0", "second", run_id="run-2")
    await inbox.answer("0", "first")  # now the only one
    assert [(await task).output for task in [*one, *other]] == ["first", "second"]


async def test_only_the_first_answer_counts(inbox: Inbox) -> None:
    (task,) = await parked(inbox, paused(), 1)
    results = await asyncio.gather(*(inbox.answer("0", each) for each in range(5)), return_exceptions=True)

    assert [type(each) for each in results] == [type(None), *[AlreadyDecidedError] * 4]
    assert str(results[1]) == "action '0' of run run-1 is not pending: it was answered already: 0"
    assert (await task).output == 0
    with pytest.raises(ConfigurationError, match="'0' of run run-1 is not pending: it was answered already"):
        await inbox.refuse("0", "too late")


async def test_a_refused_action_cannot_be_answered(inbox: Inbox) -> None:
    (task,) = await parked(inbox, paused(), 1)
    await inbox.refuse("0", "no")
    with pytest.raises(ConfigurationError, match="is not pending: it was refused already"):
        await inbox.answer("0", "yes")
    await task


@pytest.mark.parametrize("run_id", [None, "run-9"])
async def test_an_unknown_action_is_refused(inbox: Inbox, run_id: str | None) -> None:
    (task,) = await parked(inbox, paused(), 1)
    wanted = "7" if run_id is None else "0"
    with pytest.raises(ConfigurationError, match="this inbox knows no such action"):
        await inbox.answer(wanted, "yes", run_id=run_id)
    await inbox.answer("0", "yes")
    await task


async def test_what_became_of_an_action_is_not_remembered_for_ever(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentruns._keeping.parking._REMEMBERED", 1)
    tasks = await parked(inbox, paused("run-1", Action("a", "x"), Action("b", "x")), 2)
    for each in ("a", "b"):
        await inbox.answer(each, "yes")
    with pytest.raises(ConfigurationError, match="'a' is not pending: this inbox knows no such action"):
        await inbox.answer("a", "no")
    with pytest.raises(ConfigurationError, match="'b' of run run-1 is not pending: it was answered already"):
        await inbox.answer("b", "no")
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("action_id", ["", None, 0])
async def test_an_id_is_a_text(inbox: Inbox, action_id: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"action_id is .*; it must be a text"):
        await inbox.answer(action_id, "yes")


@pytest.mark.parametrize("output", [{1, object()}, math.nan, object(), "\ud800"])
async def test_an_output_that_json_cannot_carry_is_refused_and_the_action_waits_on(inbox: Inbox, output: Any) -> None:
    (task,) = await parked(inbox, paused(), 1)
    with pytest.raises(ConfigurationError, match="the answer to action '0' is not something that JSON can carry"):
        await inbox.answer("0", {"value": [output]})

    await inbox.answer("0", "yes")
    assert (await task).output == "yes"


async def test_an_answer_that_the_vendor_would_not_take_is_refused_and_the_action_waits_on(inbox: Inbox) -> None:
    question = Action("0", "ask-questions", {"question": "Which city?", "type": "single-choice"})
    (task,) = await parked(inbox, paused("run-1", question, vendor="origami"), 1)
    with pytest.raises(ConfigurationError, match=r"the answer to 'Which city\?' is empty"):
        await inbox.answer("0", "  ")

    await inbox.answer("0", "Berlin")
    assert (await task).output == "Berlin"


async def test_a_vendor_of_the_callers_own_takes_any_answer(inbox: Inbox) -> None:
    (task,) = await parked(inbox, paused(vendor="tiny"), 1)
    await inbox.answer("0", "")
    assert (await task).output == ""


# The end of the wait --------------------------------------------------------------------------------------------------


async def test_an_action_whose_stream_has_ended_is_withdrawn(inbox: Inbox) -> None:
    (task,) = await parked(inbox, paused(), 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await inbox.pending() == ()
    with pytest.raises(ConfigurationError, match="is not pending: it was withdrawn, since nobody waits"):
        await inbox.answer("0", "yes")


async def test_an_action_that_two_streams_wait_for_stays_until_both_have_left(inbox: Inbox) -> None:
    (one,) = await parked(inbox, paused(), 1)
    (other,) = await parked(inbox, paused(), 1)
    one.cancel()
    await asyncio.wait([one])

    assert len(await inbox.pending()) == 1
    await inbox.answer("0", "yes")
    assert (await other).output == "yes"


async def test_an_action_that_was_withdrawn_may_be_asked_for_again(inbox: Inbox) -> None:
    (first,) = await parked(inbox, paused(), 1)
    first.cancel()
    await asyncio.wait([first])
    (second,) = await parked(inbox, paused(), 1)
    await inbox.answer("0", "yes")

    assert (await second).output == "yes"


@pytest.mark.virtual
async def test_a_handlers_timeout_is_shown_and_ends_the_wait(inbox: Inbox) -> None:
    (task,) = await parked(inbox, paused(), 1, timeout=90.0)
    (found,) = await inbox.pending()

    assert found.expires is not None
    assert found.expires - found.asked_at == pytest.approx(90.0)
    assert found.seconds_left(found.asked_at + 30.0) == pytest.approx(60.0)
    assert found.seconds_left(found.asked_at + 100.0) == 0.0
    assert (await task).output == "the tool gave no answer within 90 s"
    with pytest.raises(ConfigurationError, match="it was withdrawn"):
        await inbox.answer("0", "yes")


@pytest.mark.virtual
async def test_an_answer_at_the_last_moment_counts(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answered was told that it counts, so the model is not told that nobody did."""
    (task,) = await parked(inbox, paused(), 1, timeout=90.0)
    settle = inbox._parking.settle

    async def just_before(place: Any, act: Any, output: Any, asked: str) -> bool:
        assert act is WaitAct.WITHDRAW
        assert await settle(place, WaitAct.ANSWER, "yes", asked)
        return await settle(place, act, output, asked)

    monkeypatch.setattr(inbox._parking, "settle", just_before)
    output = await task
    assert (output.output, output.is_error) == ("yes", False)


async def test_closing_the_inbox_ends_the_waits() -> None:
    inbox = Inbox()
    (task,) = await parked(inbox, paused(), 1)
    changes = inbox.changes()
    await anext(changes)
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    await inbox.close()

    with pytest.raises(AgentRunsError, match="the inbox was closed while it was waited for"):
        await task
    with pytest.raises(AgentRunsError, match="the inbox was closed"):
        await waiting
    assert await inbox.pending() == ()


# Changes --------------------------------------------------------------------------------------------------------------


async def test_changes_show_the_present_and_then_each_change(inbox: Inbox) -> None:
    changes = inbox.changes()
    assert await anext(changes) == ()
    (task,) = await parked(inbox, paused(), 1)
    (found,) = await anext(changes)
    assert found.action.id == "0"
    waiting = asyncio.ensure_future(anext(changes))
    await inbox.answer("0", "yes")

    assert await waiting == ()
    await task


async def test_a_step_of_changes_may_time_out_and_be_asked_for_again(inbox: Inbox) -> None:
    changes = inbox.changes()
    await anext(changes)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(changes), 0.001)
    (task,) = await parked(inbox, paused(), 1)  # while nobody asks

    assert len(await anext(changes)) == 1
    await inbox.answer("0", "yes")
    await task


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["answer", "refuse", "cancel"]), st.integers(0, 5)), max_size=20))
async def test_each_action_ends_once_whatever_is_done_in_whatever_order(acts: list[tuple[str, int]]) -> None:
    inbox = Inbox()
    actions = [Action(str(number), "x") for number in range(6)]
    tasks = await parked(inbox, paused("run-1", *actions), 6)
    ended: dict[int, str] = {}
    for act, number in acts:
        if act == "cancel":
            tasks[number].cancel()
            await asyncio.wait([tasks[number]])
            ended.setdefault(number, act)
            continue
        decide = inbox.answer if act == "answer" else inbox.refuse
        if number in ended:
            with pytest.raises(ConfigurationError, match="is not pending"):
                await decide(str(number), "word")
        else:
            await decide(str(number), "word")
            await asyncio.wait([tasks[number]])
            ended[number] = act

    assert {int(each.action.id) for each in await inbox.pending()} == set(range(6)) - set(ended)
    for number, task in enumerate(tasks):
        if number not in ended:
            await inbox.answer(str(number), "late")
        (output,) = await asyncio.gather(task, return_exceptions=True)
        if ended.get(number) == "cancel":
            assert isinstance(output, asyncio.CancelledError)
        else:
            assert isinstance(output, ToolOutput)
            assert output.is_error == (ended.get(number) == "refuse")


# In a stream ----------------------------------------------------------------------------------------------------------


async def test_outside_a_stream_there_is_no_current_run(inbox: Inbox) -> None:
    with pytest.raises(ConfigurationError, match="there is no current run here: only a handler"):
        await inbox(Action("0", "x"))
    with pytest.raises(ConfigurationError, match="there is no current run here"):
        current_key()


async def test_every_handler_sees_the_run_that_asks() -> None:
    seen: list[Run] = []

    def in_a_thread(action: Action) -> str:
        seen.append(current_run())
        return "yes"

    async def in_the_loop(action: Action) -> str:
        seen.append(current_run())
        return "yes"

    for handler in (in_a_thread, in_the_loop):
        async with client_of(script()) as client:
            await client.result(message(), tools=handler)
    assert [each.id for each in seen] == [RUN, RUN]
    assert all(each.status is RunStatus.REQUIRES_ACTION for each in seen)
    with pytest.raises(ConfigurationError, match="no current run"):
        current_run()


@pytest.mark.virtual
@pytest.mark.parametrize("how", ["itself", "default", "name", "mapping"])
async def test_an_inbox_is_a_handler_however_it_is_given(how: str, inbox: Inbox) -> None:
    tools = Tools()
    if how == "default":
        tools.default(inbox)
    elif how == "name":
        tools.add(inbox, name="approve_invoice")
    given: dict[str, Any] = {"itself": inbox, "default": tools, "name": tools, "mapping": {CALL["name"]: inbox}}
    async with client_of(script()) as client:
        waiting = asyncio.ensure_future(client.result(message(), tools=given[how], timeout=None))
        pending = await first_parked(inbox)
        assert (pending[0].run.id, pending[0].action.arguments) == (RUN, CALL["arguments"])
        await inbox.answer(CALL_ID, {"confirmed": True})
        done = await waiting

    assert done.status is RunStatus.COMPLETED


async def test_an_inbox_counts_as_repeatable_unless_it_is_said_otherwise() -> None:
    inbox = Inbox()
    by_default, by_name, stated = Tools.of(inbox), Tools(), Tools()
    by_name.add(inbox, name="confirm")
    stated.add(inbox, name="confirm", repeatable=False)

    assert [each.find(["confirm"]).repeatable for each in (by_default, by_name, stated)] == [True, True, False]  # type: ignore[union-attr]
    assert Tools.of(lambda action: None).find(()).repeatable is False  # type: ignore[union-attr]


async def test_a_model_is_told_that_a_person_will_be_asked() -> None:
    tools = Tools()
    tools.add(Inbox(), name="confirm_booking")

    (schema,) = tools.schemas()
    assert (schema.name, schema.description) == ("confirm_booking", "Ask a person, and wait for the answer.")
    assert schema.input_schema == {"type": "object"}


@pytest.mark.virtual
async def test_a_run_is_looked_at_seldom_while_an_action_is_parked(inbox: Inbox) -> None:
    wire = script()
    async with client_of(wire) as client:
        waiting = asyncio.ensure_future(client.result(message(), tools=inbox, timeout=None))
        await first_parked(inbox)
        sent, looks = len(wire.asked), len(wire.times(POLL))
        await asyncio.sleep(3600.0)
        assert len(wire.times(POLL)) - looks <= 12
        assert len(wire.asked) - sent <= 3 * 12  # each look also asks for the run that came of an answer
        await inbox.answer(CALL_ID, {"confirmed": True})
        await waiting
    assert len(wire.asked) > sent


@pytest.mark.virtual
async def test_the_timeout_of_the_stream_goes_on_and_withdraws_the_action(inbox: Inbox) -> None:
    async with client_of(script()) as client:
        waiting = asyncio.ensure_future(client.result(message(), tools=inbox, timeout=60.0))
        await first_parked(inbox)
        with pytest.raises(DeadlineExceededError):
            await waiting
        assert await inbox.pending() == ()


@pytest.mark.virtual
async def test_a_step_that_times_out_leaves_the_action_parked(inbox: Inbox) -> None:
    async with client_of(script()) as client:
        stream = client.stream(message(), tools=inbox, timeout=None)
        async for state in stream:
            if state.status is RunStatus.REQUIRES_ACTION:
                break
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 15.0)
            assert len(await inbox.pending()) == 1
        await inbox.answer(CALL_ID, "yes")
        assert (await anext(stream)).id == NEXT_RUN
        await stream.aclose()


# Against the emulator -------------------------------------------------------------------------------------------------


def client_to(emulator: Emulator[Any], dialect: Any, schedule: Backoff = QUICK) -> Client:
    return connect(dialect, token=emulator.token, base_url=emulator.base_url, schedule=schedule, budget=1000)


async def test_a_parked_run_is_not_polled_while_others_are_and_goes_on_after_the_answer(inbox: Inbox) -> None:
    def play(prompt: Any) -> Turn:
        if prompt.text == "Be busy.":
            return Turn("busy", running=math.inf)
        return Turn(calls=[Call("confirm_booking", {"slot": "9:00"})]) if prompt.text else Turn("done")

    tools = Tools()
    tools.add(inbox, name="confirm_booking")
    declared = evolve(config(), client_tools=[narrative.client_tools(tools, alias="user")])
    async with Emulator("narrative", script=play) as emulator, client_to(emulator, narrative) as client:
        mine = await client.perform(narrative.create_conversation(declared))
        other = await client.perform(narrative.create_conversation(declared))
        waiting = asyncio.ensure_future(
            client.result(narrative.UserMessage(mine.id, "Book a slot."), tools=tools, timeout=None)
        )
        (found,) = await first_parked(inbox)
        polls = len(emulator.requests("GET", f"*/runs/{found.run.id}"))
        busy = asyncio.ensure_future(client.result(narrative.UserMessage(other.id, "Be busy.")))
        total = len(emulator.requests("GET", "*/runs/*"))
        while len(emulator.requests("GET", "*/runs/*")) < total + 10:  # noqa: ASYNC110 - the emulator tells nobody
            await asyncio.sleep(0.01)

        assert len(emulator.requests("GET", f"*/runs/{found.run.id}")) == polls
        await inbox.answer(found.action.id, {"confirmed": True})
        assert (await waiting).output == "done"
        busy.cancel()
        await asyncio.wait([busy])


async def test_the_questions_of_a_run_are_answered_one_by_one_and_sent_together(inbox: Inbox) -> None:
    questions = Turn(calls=[Call("ask-questions", {"question": q}) for q in ("Which city?", "How many?")])
    async with (
        Emulator("origami", script=[questions, Turn("done")], retry_after=0) as emulator,
        client_to(emulator, origami) as client,
    ):
        waiting = asyncio.ensure_future(client.result(origami.Prompt("Find clinics."), tools=inbox, timeout=None))
        await first_parked(inbox, 2)
        sent = len(emulator.requests("POST", "*"))
        await inbox.answer("0", "Berlin")
        assert [each.action.id for each in await inbox.pending()] == ["1"]
        assert len(emulator.requests("POST", "*")) == sent
        await inbox.refuse("1", "nobody knows")
        assert (await waiting).output == "done"


async def test_an_interrupt_is_answered_by_any_json(inbox: Inbox) -> None:
    asks = Turn(calls=[Call("review", {"label": "Approve?"})])
    async with (
        Emulator("middesk", script=[asks, Turn("done")]) as emulator,
        client_to(emulator, middesk) as client,
    ):
        origin = middesk.RunRequest("cip_orchestrator", business_id="b86f3c52-11d9-4f07-8e6a-90c2d5a7714f")
        waiting = asyncio.ensure_future(client.result(origin, tools=inbox, timeout=None))
        pending = await first_parked(inbox)
        await inbox.answer(pending[0].action.id, {"decision": "approve"})
        assert (await waiting).status is RunStatus.COMPLETED


async def test_a_parked_action_is_a_plain_value() -> None:
    one = Parked(paused(), paused().actions[0], 1.0)
    assert one == Parked(paused(), paused().actions[0], 1.0)
    with pytest.raises(AttributeError):
        one.asked_at = 2.0  # type: ignore[misc]
