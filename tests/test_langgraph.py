"""LangGraph: whole stories on the emulator, and what is made of each answer."""

import asyncio
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from agentruns import (
    Action,
    AlreadyAnsweredError,
    Client,
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    Retry,
    Run,
    RunFailedError,
    RunRef,
    RunStatus,
    ToolError,
    ToolOutput,
    connect,
    langgraph,
)
from agentruns.dialects import ReadOn, Request
from agentruns.dialects.langgraph.starts import INTENT, LOOKS
from agentruns.emulator import Call, Emulator, Fault, LangGraph, Turn
from agentruns.testing import Answer, exchange
from agentruns.testing.case import QUICK

THREAD = "3c90c3cc-0d44-4b50-8888-8dd25736052a"
MADE = datetime(2026, 11, 29, 8, 40, 16, 588000, UTC)
OTHER = "0190a000-0000-7000-8000-0000000000ff"
RUN = "01a22676-4bcc-748d-8ca0-8bd8a342299d"  # an id of version 7, of that moment
REF = RunRef(RUN, THREAD)
THREE = [Turn(calls=[Call(node, {"ask": node}) for node in "abc"]), Turn("Done.")]


@asynccontextmanager
async def served(*script: Turn, **options: Any) -> AsyncIterator[tuple[Emulator[LangGraph], Client[Any, Any]]]:
    async with Emulator("langgraph", script=script, **options) as emulator:
        retry = Retry(backoff=QUICK)
        async with connect(
            langgraph, token=emulator.token, base_url=emulator.base_url, schedule=QUICK, retry=retry, budget=10_000
        ) as client:
            yield emulator, client


def invocation(**given: Any) -> langgraph.Invocation:
    return langgraph.Invocation("agent", {"text": "Sort the post."}, **given)


def run_json(status: str = "success", **more: Any) -> dict[str, Any]:
    row = {"run_id": RUN, "thread_id": THREAD, "status": status, "assistant_id": "a1"}
    return {**row, "metadata": {}, "kwargs": {}, **more}


def aegra_json(status: str, output: Any, **more: Any) -> dict[str, Any]:
    """Return a run as Aegra shows it: without metadata, and with what it was made with in the row itself."""
    row = {"run_id": RUN, "thread_id": THREAD, "status": status, "assistant_id": "a1", "output": output}
    return {**row, "input": {"text": "x"}, "config": {}, "context": {}, "error_message": None, **more}


def state_json(run_id: str = RUN, *, asks: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    tasks = [
        {"id": f"t-{node}", "name": node, "error": None, "interrupts": [{"id": f"i-{node}", "value": value}]}
        for node, value in (asks or {}).items()
    ]
    return {
        "values": {"answer": "Done."},
        "next": [*(asks or {})],
        "tasks": tasks,
        "metadata": {"run_id": run_id, "assistant_id": "a1"},
        **more,
    }


def read(*answers: Any) -> Run[Any]:
    run: Run[Any] = exchange(langgraph.fetch(REF, {}), *map(Answer, answers)).result
    return run


# Stories --------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_run_makes_its_own_thread_and_ends_with_the_state_of_its_graph() -> None:
    async with served(Turn("Sorted.")) as (_, client):
        run = await client.result(invocation(metadata={"team": "sales"}))

    assert run.output == {"text": "Sort the post.", "answer": "Sorted."}
    assert run.detail.state.values == run.output
    assert run.detail.state.metadata["team"] == "sales"


@pytest.mark.asyncio
async def test_interrupts_of_one_pause_are_answered_by_callbacks_named_by_their_nodes() -> None:
    seen: list[str] = []

    def answer(ask: str) -> str:
        seen.append(ask)
        return f"{ask}!"

    async with served(*THREE) as (emulator, client):
        run = await client.result(invocation(), tools=dict.fromkeys("abc", answer))

    assert run.status is RunStatus.COMPLETED
    assert sorted(seen) == ["a", "b", "c"]
    posts = [each for each in emulator.exchanges if each.path.endswith("/runs")]
    assert len([each for each in posts if each.method == "POST"]) == 2


@pytest.mark.asyncio
async def test_some_interrupts_are_answered_by_hand_and_the_rest_by_the_run_that_follows() -> None:
    async with served(*THREE) as (_, client):
        asked = await client.start(invocation())
        asked = [run async for run in client.stream(asked)][-1]
        first = await client.resume(asked, [ToolOutput(asked.actions[1], "by hand")])
        rest = [run async for run in client.stream(first)][-1]
        assert [action.name for action in rest.actions] == ["a", "c"]
        done = await client.result(rest, tools={"interrupt": lambda ask: ask})
        again = await client.fetch(asked)

    assert done.status is RunStatus.COMPLETED
    assert again.status is RunStatus.REQUIRES_ACTION  # it is as it was: what was answered is another run


@pytest.mark.asyncio
async def test_a_pause_that_was_answered_is_not_answered_again() -> None:
    async with served(*THREE) as (emulator, client):
        asked = [run async for run in client.stream(invocation())][-1]
        await client.result(await client.resume(asked, [ToolOutput(each, "yes") for each in asked.actions]))
        made = emulator.state.runs_started
        with pytest.raises(AlreadyAnsweredError, match="was answered before"):
            async with connect(langgraph, token=emulator.token, base_url=emulator.base_url) as other:
                await other.resume(asked, [ToolOutput(asked.actions[0], "no")])

    assert emulator.state.runs_started == made


@pytest.mark.asyncio
@pytest.mark.parametrize("given", [{"context": {"who": "me"}}, {"config": {"configurable": {"who": "me"}}}])
async def test_answers_repeat_configuration_and_context_which_the_server_does_not_keep(given: Any) -> None:
    tags = {"config": {**given.get("config", {}), "tags": ["t1"], "recursion_limit": 9}}
    async with served(*THREE) as (emulator, client):
        asked = [run async for run in client.stream(invocation(**{**given, **tags}))][-1]
        first = await client.resume(asked, [ToolOutput(asked.actions[0], "yes")])
        await client.result(first, tools={"interrupt": lambda ask: ask})

    (thread,) = emulator.state.threads.values()
    for row in thread.rows[1:]:
        assert row.body["context"] == {"who": "me"}
        assert row.body["config"] == {"tags": ["t1"], "recursion_limit": 9, "metadata": row.body["metadata"]}


@pytest.mark.asyncio
async def test_a_tool_error_is_told_to_the_node() -> None:
    def refuse(ask: str) -> str:
        raise ToolError("nobody is there")

    async with served(Turn(calls=[Call("a", {"ask": "a"})]), Turn("Done.")) as (emulator, client):
        await client.result(invocation(), tools={"a": refuse})

    answers = [row.given for thread in emulator.state.threads.values() for row in thread.rows][-1]
    assert [*answers.values()] == [{"error": "nobody is there"}]


@pytest.mark.asyncio
async def test_a_run_is_cancelled_and_one_that_is_over_stays_as_it_is() -> None:
    async with served(Turn("Done.", running=60), Turn("Done.")) as (_, client):
        run = await client.start(invocation())
        cancelled = await client.cancel(run)
        over = await client.result(invocation(thread_id=run.ref.parent))
        same = await client.cancel(over)

    assert cancelled is not None
    assert cancelled.failure is not None
    assert cancelled.failure.type == "interrupted"
    assert same == over


@pytest.mark.asyncio
async def test_a_busy_thread_an_unknown_one_and_an_unknown_graph_are_told() -> None:
    async with served(Turn("Done.", running=60)) as (_, client):
        run = await client.start(invocation())
        with pytest.raises(ConflictError, match="already running"):
            await client.start(invocation(thread_id=run.ref.parent))
        with pytest.raises(NotFoundError):
            await client.start(invocation(thread_id=THREAD))
        with pytest.raises(InvalidRequestError, match="registered graphs: agent"):
            await client.start(langgraph.Invocation("odd"))


@pytest.mark.asyncio
async def test_what_a_node_raises_is_the_failure_of_the_run() -> None:
    async with served(Turn(error=("ValueError", "no post"))) as (_, client):
        with pytest.raises(RunFailedError, match="no post") as caught:
            await client.result(invocation())

    failed = caught.value.run
    assert failed is not None
    assert failed.failure is not None
    assert failed.failure.type == "ValueError"


@pytest.mark.asyncio
async def test_a_start_whose_reply_got_lost_is_found_by_its_intent_though_others_inherit_it() -> None:
    async with served(Turn("One."), Turn("Two."), Turn("Three.")) as (emulator, client):
        origin = invocation()
        emulator.fail(Fault.drop(committed=True, method="POST", path="/threads/*/runs"))
        run = await client.result(origin)
        later = await client.result(invocation(thread_id=run.ref.parent))
        rows = emulator.state.threads[origin.intent_id].rows
        rows[1].metadata[INTENT] = origin.intent_id  # as a client has it that says nothing of its own
        found = await client.perform(langgraph.recover(origin, {"since": None, "known": []}))

    assert emulator.state.runs_started == 2
    assert found.id == run.id != later.id


@pytest.mark.asyncio
async def test_an_answer_whose_reply_got_lost_is_found() -> None:
    async with served(*THREE) as (emulator, client):
        emulator.fail(Fault.drop(committed=True, method="POST", path="/threads/*/runs", after=1))
        run = await client.result(invocation(), tools={"interrupt": lambda ask: ask})

    assert run.status is RunStatus.COMPLETED
    assert emulator.state.runs_started == 2


@pytest.mark.asyncio
async def test_many_runs_are_read_by_their_threads_and_each_end_by_one_request() -> None:
    async with served(Turn("Done.", running=0.5)) as (emulator, client):
        runs = [await client.start(invocation()) for _ in range(30)]
        ended = await asyncio.gather(*map(client.result, runs))

    assert {run.status for run in ended} == {RunStatus.COMPLETED}
    assert client.stats().polls <= 33
    states = [each for each in emulator.exchanges if each.path.endswith("/state")]
    assert len(states) == 30


@pytest.mark.asyncio
async def test_events_follow_a_run_to_its_end() -> None:
    async with served(Turn("Done.", running=0.2)) as (_, client):
        run = await client.start(invocation())
        names = [event.name async for event in client.events(run)]
        done = await client.result(invocation(), events=True)

    assert names == ["metadata", "values"]
    assert done.status is RunStatus.COMPLETED


@pytest.mark.asyncio
async def test_threads_states_history_and_assistants_are_flows() -> None:
    async with served(Turn("Done.")) as (_, client):
        thread = await client.perform(langgraph.create_thread(thread_id=THREAD, metadata={"team": "sales"}))
        assert await client.perform(langgraph.create_thread(thread_id=THREAD)) == thread
        run = await client.result(invocation(thread_id=THREAD))
        (listed,) = await client.perform(langgraph.list_threads(metadata={"team": "sales"}, status="idle"))
        assert listed == await client.perform(langgraph.get_thread(THREAD))
        assert listed.values == run.output
        await client.perform(langgraph.update_state(THREAD, {"answer": "Changed."}))
        state = await client.perform(langgraph.get_state(THREAD))
        assert state.values["answer"] == "Changed."
        assert await client.perform(langgraph.list_history(THREAD, metadata={"run_id": run.id})) == (state,)
        (assistant,) = await client.perform(langgraph.list_assistants(graph_id="agent"))
        assert assistant == await client.perform(langgraph.get_assistant(assistant.assistant_id))
        assert (await client.perform(langgraph.get_schemas(assistant.assistant_id))).input_schema
        await client.perform(langgraph.delete_thread(THREAD))
        with pytest.raises(NotFoundError):
            await client.perform(langgraph.get_thread(THREAD))


# What is made of each answer ------------------------------------------------------------------------------------------


def test_success_is_said_of_a_run_that_is_over_and_of_one_that_waits() -> None:
    assert read(run_json("running")).status is RunStatus.RUNNING
    assert read(run_json(), state_json()).output == {"answer": "Done."}
    waiting = read(run_json(), state_json(asks={"a": {"ask": 1}, "b": "text"}))
    assert waiting.actions == (Action("i-a", "a", {"ask": 1}), Action("i-b", "b", {"value": "text"}))


def test_a_run_on_whose_thread_others_came_after_is_told_by_its_history() -> None:
    asked = read(run_json(), state_json("later"), [state_json(asks={"a": 1})])
    over = read(run_json(), state_json("later", asks={"b": 1}), [state_json()])
    assert [action.id for action in asked.actions] == ["i-a"]
    assert (over.status, over.output) == (RunStatus.COMPLETED, {"answer": "Done."})


def test_a_run_that_made_no_checkpoint_waits_for_what_its_thread_waits_for() -> None:
    assert [each.id for each in read(run_json(), state_json("before", asks={"b": 1}), []).actions] == ["i-b"]
    assert read(run_json(), state_json("later"), []).output is None


def test_a_graph_that_stops_before_a_node_waits_without_arguments_and_goes_on_without_input() -> None:
    task: dict[str, Any] = {"id": "t-1", "name": "deploy", "error": None, "interrupts": []}
    stopped = state_json(next=["deploy"], tasks=[task])
    run = read(run_json(), stopped)
    assert run.actions == (Action("next:t-1", "deploy"),)

    done = exchange(langgraph.resume(run, [ToolOutput(run.actions[0], True)]), Answer([run_json()]), Answer(run_json()))
    assert done.requests[-1].json is not None
    assert "command" not in done.requests[-1].json


def test_a_run_that_is_over_when_its_start_is_answered_is_read_before_it_counts_as_over() -> None:
    quick = exchange(langgraph.start(invocation()), Answer(run_json())).result
    asks = read(run_json(), state_json(asks={"a": 1}))
    answered = exchange(
        langgraph.resume(asks, [ToolOutput(asks.actions[0], 1)]), Answer([run_json()]), Answer(run_json())
    )
    assert (quick.status, answered.result.status) == (RunStatus.RUNNING, RunStatus.RUNNING)


def test_a_byte_order_mark_before_run_and_state_is_no_part_of_what_the_run_was_received_as() -> None:
    run = read(*(BOM_UTF8 + msgspec.json.encode(each) for each in (run_json(), state_json())))

    assert run.output == {"answer": "Done."}
    assert run.raw == {**run_json(), "state": state_json()}
    assert Run.from_json(run.to_json()) == run


def test_nodes_that_are_next_are_waited_for_where_a_state_has_no_tasks() -> None:
    assert read(run_json(), state_json(next=["deploy"])).actions == (Action("next:deploy", "deploy"),)


def test_interrupted_is_the_word_of_a_run_that_was_cancelled_and_elsewhere_of_one_that_waits() -> None:
    cancelled = read(run_json("interrupted"), state_json(next=["a"]))
    waiting = read(run_json("interrupted"), state_json(asks={"a": 1}))
    assert (cancelled.status, waiting.status) == (RunStatus.FAILED, RunStatus.REQUIRES_ACTION)


@pytest.mark.parametrize(
    ("row", "state", "status", "output"),
    [
        (aegra_json("success", {"a": 1}), state_json(), RunStatus.COMPLETED, {"answer": "Done."}),
        (aegra_json("success", {"a": 1}), state_json(OTHER, asks={"a": 1}), RunStatus.COMPLETED, {"a": 1}),
        (aegra_json("success", {"a": 1}), state_json(next=["a"]), RunStatus.REQUIRES_ACTION, None),
        (aegra_json("interrupted", {"a": 1}), state_json(asks={"a": 1}), RunStatus.REQUIRES_ACTION, None),
        (aegra_json("interrupted", {"a": 1}), state_json(OTHER, asks={"a": 1}), RunStatus.REQUIRES_ACTION, None),
        (aegra_json("interrupted", {}), state_json(OTHER, asks={"a": 1}), RunStatus.FAILED, None),
        (aegra_json("interrupted", None), state_json(next=["a"]), RunStatus.FAILED, None),
        (aegra_json("error", {}, error_message="m"), None, RunStatus.FAILED, None),
    ],
)
def test_what_a_run_of_aegra_is_tell_its_output_and_the_checkpoint(
    row: Any, state: Any, status: RunStatus, output: Any
) -> None:
    past = [[state_json(str(number)) for number in range(3)]] if state and state["metadata"]["run_id"] == OTHER else []
    run = read(*[each for each in (row, state, *past) if each is not None])
    assert (run.status, run.output) == (status, output)
    assert run.failure is None or run.failure.message in {"m", "the run was cancelled"}


def test_a_start_that_got_lost_on_aegra_is_found_by_its_configuration() -> None:
    origin = invocation(config={"tags": ["t"], "metadata": {"of": "mine"}})
    posted = exchange(langgraph.start(origin), Answer(run_json("pending"))).requests[-1].json
    assert posted is not None
    assert posted["config"] == {"tags": ["t"], "metadata": {"of": "mine", INTENT: origin.intent_id}}
    lost = OutcomeUnknownError(Request("POST", "/"), "no answer")
    rows = [aegra_json("running", None), aegra_json("running", None, config=posted["config"])]
    assert exchange(langgraph.start(origin), lost, Answer(rows)).result.id == RUN


def test_answers_on_aegra_repeat_what_its_row_says() -> None:
    made = aegra_json("interrupted", {"a": 1}, config={"tags": ["t"], "metadata": {"x": 1}}, context={"who": "me"})
    run = read(made, state_json(asks={"a": 1}))
    done = exchange(langgraph.resume(run, [ToolOutput(run.actions[0], 1)]), Answer([made]), Answer(run_json()))
    sent = done.requests[-1].json
    assert sent is not None
    assert (sent["config"]["tags"], sent["context"]) == (["t"], {"who": "me"})
    assert sent["config"]["metadata"] == sent["metadata"]


@pytest.mark.parametrize(
    ("thread", "state", "told"),
    [
        ({"error": {"error": "E", "message": "m"}, "updated_at": "now"}, None, ("E", "m")),
        ({"error": {"error": "E"}, "updated_at": "later"}, {"error": "E('m')"}, ("error", "E('m')")),
        ({}, {"error": None}, ("error", "")),
    ],
)
def test_what_failed_is_told_by_the_thread_or_by_the_node(thread: Any, state: Any, told: tuple[str, str]) -> None:
    task = {"id": "t", "name": "a", **(state or {})}
    answers = [run_json("error", updated_at="now"), thread, *([] if state is None else [state_json(tasks=[task])])]
    failure = read(*answers).failure
    assert failure is not None
    assert (failure.type, failure.message) == told


def test_an_answer_that_never_arrived_is_unknown_and_not_sent_again() -> None:
    asks = state_json(asks={"a": 1})
    run = read(run_json(), asks)
    lost = OutcomeUnknownError(Request("POST", "/"), "no answer")
    with pytest.raises(OutcomeUnknownError):
        exchange(
            langgraph.resume(run, [ToolOutput(run.actions[0], 1)]),
            Answer([run_json()]),
            lost,
            *[Answer([])] * len(LOOKS),
        )


def bulk(*rows: Any) -> list[Any]:
    return list(exchange(langgraph.fetch_many([REF]), Answer(list(rows))).result)


def row(status: str, updated_at: datetime = MADE) -> dict[str, Any]:
    return {"thread_id": THREAD, "status": status, "updated_at": updated_at.isoformat()}


def test_a_thread_that_is_busy_since_the_run_was_made_is_busy_with_it() -> None:
    assert bulk(row("busy")) == [REF]
    assert bulk(row("busy", MADE + timedelta(seconds=5))) == []  # with another run
    assert bulk() == []
    assert exchange(langgraph.fetch_many([RunRef("1", "odd")])).requests == ()


def test_a_server_that_takes_no_ids_is_asked_which_threads_are_busy_and_one_that_is_not_among_them_has_moved() -> None:
    def told(*rows: Any) -> list[Any]:
        return list(exchange(langgraph.fetch_many([aegra]), Answer({}, 422), Answer(list(rows))).result)

    aegra = RunRef("a2c8a9b4-3b0f-4d0e-9d44-0d3fbb3c7a52", THREAD)  # an id that does not tell when
    busy = row("busy")
    assert told({**busy, "created_at": busy["updated_at"]}) == [aegra]
    assert told({**busy, "created_at": (MADE - timedelta(hours=1)).isoformat()}) == []  # it may be another run's
    (moved,) = told({**busy, "thread_id": OTHER})
    assert exchange(moved.read(), Answer(state_json(aegra.id, asks={"a": 1}))).result.vendor_status == "interrupted"
    assert told(*[{**busy, "thread_id": OTHER}] * 1000) == []  # there may be more


def test_a_thread_that_is_not_busy_is_asked_for_its_state_alone_where_that_says_all() -> None:
    (told,) = bulk(row("interrupted"))
    assert isinstance(told, ReadOn)
    assert len(exchange(told.read(), Answer(state_json())).requests) == 1
    assert exchange(told.read(), Answer(state_json(asks={"a": 1}))).result.actions
    full = exchange(told.read(), Answer(state_json("later")), Answer(run_json("running")))
    assert full.result.status is RunStatus.RUNNING


def test_an_invocation_says_what_is_wrong_with_it() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"assistant_id": ""}, "assistant_id"),
        ({"thread_id": "t1"}, "must be the text of a UUID"),
        ({"metadata": {INTENT: "x"}}, INTENT),
        ({"config": 7}, "must be a mapping"),
        ({"config": {"configurable": {"a": 1}}, "context": {"b": 2}}, "takes one of them"),
    ]
    for given, told in wrong:
        with pytest.raises(ConfigurationError, match=told):
            langgraph.Invocation(**({"assistant_id": "agent"} | given))


def test_each_action_is_answered_once() -> None:
    run = read(run_json(), state_json(asks={"a": 1}))
    for outputs in ([], [ToolOutput(run.actions[0], 1)] * 2):
        with pytest.raises(ConfigurationError, match="one answer to each"):
            exchange(langgraph.resume(run, outputs))


def test_a_question_is_shown_by_what_it_asks_for() -> None:
    asked = langgraph.show_question(Action("i1", "pick_one", {"question": "Which?"}))
    assert (asked.title, [choice.value for choice in asked.choices]) == ("pick one", ["answer", "json", "refuse"])

    calls = [{"name": "send", "args": {"to": "me"}}] * 2
    approval = langgraph.show_question(Action("i1", "HumanInTheLoop", {"action_requests": calls}))
    gives = {choice.value: choice.give for choice in approval.choices}
    assert gives["approve"](None).output == {"decisions": [{"type": "approve"}] * 2}
    assert gives["reject"]("No.").output == {"decisions": [{"type": "reject", "message": "No."}] * 2}

    (go_on,) = langgraph.show_question(Action("next:t1", "deploy")).choices
    assert go_on.give(None).output is True


def test_the_messages_of_a_state_are_shown() -> None:
    messages = [
        {"type": "human", "content": "Hello."},
        {
            "type": "ai",
            "content": [{"type": "text", "text": "Hi."}],
            "tool_calls": [{"name": "look", "args": {"at": 1}}],
        },
    ]
    run = read(run_json(), state_json(values={"messages": messages}))
    human, ai = langgraph.show_steps(run)
    assert (human.kind, human.text) == ("human", "Hello.")
    assert (ai.text, ai.facts[0].name) == ("Hi.", "look")
