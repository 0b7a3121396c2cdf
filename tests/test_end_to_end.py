"""The main job over real sockets: our client and the emulator, which share no code."""

import asyncio
import gc
import warnings
from typing import Any

import anyio
import pytest

from agentruns import (
    AgentRunsError,
    APIError,
    Backoff,
    Client,
    ConflictError,
    InvalidRequestError,
    Retry,
    Run,
    RunFailedError,
    RunRef,
    RunStatus,
    Tools,
    connect,
    narrative,
    origami,
)
from agentruns.emulator import Call, Emulator, Fault, Narrative, Turn
from tests.scripted_wire import RUN

pytestmark = pytest.mark.asyncio

QUICK = Backoff(initial=0.01, maximum=0.05)
RUNS = "/agents/conversations/*/runs"
BOOKING = [Turn(calls=[Call("confirm_booking", {"proposed_slot": "tomorrow, 14:30"})]), Turn("Booked.")]


def booking_tools(given: list[str]) -> Tools:
    tools = Tools()

    @tools.add
    async def confirm_booking(proposed_slot: str) -> dict[str, bool]:
        """Ask the user to confirm a slot."""
        given.append(proposed_slot)
        return {"confirmed": True}

    return tools


def linked(emulator: Emulator[Narrative]) -> Client:
    retry = Retry(backoff=QUICK)
    return connect(narrative, token=emulator.token, base_url=emulator.base_url, schedule=QUICK, retry=retry)


def config(tools: Tools, revision: str = "A") -> narrative.Config:
    declared: dict[str, object] = (
        {"client_tools": [narrative.client_tools(tools, alias="user")]}
        if revision == "A"
        else {"tools": narrative.flat_tools(tools)}
    )
    return narrative.Config(
        model="anthropic.claude-opus-4.6",
        data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        max_iterations=8,
        max_tokens=2048,
        output_format_schema=narrative.TEXT_SCHEMA,
        **declared,  # type: ignore[arg-type]
    )


@pytest.fixture
def given() -> list[str]:
    return []


@pytest.mark.parametrize("revision", ["A", "B"])
async def test_a_run_goes_from_its_start_over_a_tool_call_to_the_answer(revision: str, given: list[str]) -> None:
    tools = booking_tools(given)
    async with (
        Emulator("narrative", script=BOOKING, revision=revision) as emulator,
        connect(
            narrative, token=emulator.token, base_url=emulator.base_url, schedule=QUICK, retry=Retry(backoff=QUICK)
        ) as client,
    ):
        conversation = await client.perform(narrative.create_conversation(config(tools, revision), name="meetings"))
        message = narrative.UserMessage(conversation.id, "Find me a meeting time.")
        states = [run async for run in client.stream(message, tools=tools)]
        log = await client.perform(narrative.list_messages(conversation.id))
        again = await client.perform(narrative.get_conversation(conversation.id))

    assert states[-1].output == "Booked."
    assert RunStatus.REQUIRES_ACTION in [run.status for run in states]
    assert given == ["tomorrow, 14:30"]
    assert emulator.state.runs_started == 2
    assert (again.name, again.version) == ("meetings", log.current_version)
    assert [message.role for message in log.items] == ["user", "assistant", "user", "assistant"]
    assert log.items[1].content_blocks[0].name == ("user-confirm_booking" if revision == "A" else "confirm_booking")


FAULTS = [
    Fault.drop(method="POST", path=RUNS),
    Fault.drop(committed=True, method="POST", path=RUNS, times=2),
    Fault.drop(committed=True, method="POST", path=RUNS, after=1),
    Fault.cut(method="POST", path=RUNS),
    Fault.answer(503, method="POST", path=RUNS),
    Fault.answer(500, committed=True, method="POST", path=RUNS),
    Fault.answer(429, retry_after=0, method="POST", path=RUNS),
    Fault.malformed("not_json", method="POST", path=RUNS),
    Fault.malformed("html", method="GET", path="/agents/runs/*"),
    Fault.drop(method="GET", path="/agents/runs/*", times=3),
    Fault.cut(method="GET", path="/agents/runs/*"),
    Fault.answer(502, method="GET", path="*", times=3),
    Fault.delay(0.05, committed=True, method="POST", path=RUNS),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind}-{fault.method}-{fault.status or ''}")
async def test_whatever_breaks_each_turn_is_started_once_and_the_tool_run_once(fault: Fault, given: list[str]) -> None:
    tools = booking_tools(given)
    async with (
        Emulator("narrative", script=BOOKING) as emulator,
        connect(
            narrative, token=emulator.token, base_url=emulator.base_url, schedule=QUICK, retry=Retry(backoff=QUICK)
        ) as client,
    ):
        conversation = await client.perform(narrative.create_conversation(config(tools)))
        emulator.fail(fault)
        last = await client.result(narrative.UserMessage(conversation.id, "Find a time."), tools=tools)

    assert last.output == "Booked."
    assert given == ["tomorrow, 14:30"]
    assert emulator.state.runs_started == 2


async def test_two_processes_that_answer_one_pause_start_one_run(given: list[str]) -> None:
    tools = booking_tools(given)
    async with (
        Emulator("narrative", script=BOOKING) as emulator,
        connect(
            narrative, token=emulator.token, base_url=emulator.base_url, schedule=QUICK, retry=Retry(backoff=QUICK)
        ) as one,
        connect(
            narrative, token=emulator.token, base_url=emulator.base_url, schedule=QUICK, retry=Retry(backoff=QUICK)
        ) as other,
    ):
        conversation = await one.perform(narrative.create_conversation(config(tools)))
        stream = one.stream(narrative.UserMessage(conversation.id, "Find a time."))
        async for _ in stream:
            pass
        assert stream.run is not None
        parked = stream.run.to_json()
        first, second = await asyncio.gather(
            one.result(stream.run, tools=tools), other.result(Run.from_json(parked), tools=tools)
        )

    assert first.id == second.id
    assert emulator.state.runs_started == 2


async def test_the_vendors_refusals_arrive_as_they_are(given: list[str]) -> None:
    tools = booking_tools(given)
    async with (
        Emulator("narrative", script=[Turn(error="AgentLoopMaxIterationsExceeded")]) as emulator,
        connect(
            narrative, token=emulator.token, base_url=emulator.base_url, schedule=QUICK, retry=Retry(backoff=QUICK)
        ) as client,
    ):
        conversation = await client.perform(narrative.create_conversation(config(tools)))
        stale = narrative.UserMessage(conversation.id, "Find a time.", expected_version=7)
        with pytest.raises(ConflictError, match="expected 7, current 0") as conflict:
            await client.start(stale)
        choice = narrative.specific_tool("unheard_of")
        with pytest.raises(InvalidRequestError, match="unknown-tool-choice-name"):
            await client.start(narrative.UserMessage(conversation.id, "Find a time.", tool_choice=choice))
        with pytest.raises(RunFailedError, match="AgentLoopMaxIterationsExceeded"):
            await client.result(narrative.UserMessage(conversation.id, "Find a time."))

    assert conflict.value.code == "version-conflict"
    assert conflict.value.request_id
    assert emulator.state.runs_started == 1


SLUGS = Narrative.plants


async def meet(client: Client, conversation_id: str, run: Run) -> None:
    """Make every kind of request once."""
    await client.perform(narrative.create_conversation(config(booking_tools([]))))
    await client.perform(narrative.get_conversation(conversation_id))
    await client.fetch(run)
    await client.start(narrative.UserMessage(conversation_id, "And another.", expected_version=0))


@pytest.mark.parametrize("slug", SLUGS)
async def test_every_documented_refusal_of_the_vendor_arrives_with_its_code_title_page_and_log_id(slug: str) -> None:
    tools = booking_tools([])
    async with (
        Emulator("narrative", script=[Turn("Done.", running=0.05)]) as emulator,
        connect(narrative, token=emulator.token, base_url=emulator.base_url, retry=Retry(attempts=1)) as client,
    ):
        conversation = await client.perform(narrative.create_conversation(config(tools)))
        run = await client.start(narrative.UserMessage(conversation.id, "Find a time."))
        emulator.fail(Fault.vendor(slug))
        with pytest.raises(APIError) as caught:
            await meet(client, conversation.id, run)

    error = caught.value
    assert error.code == slug
    assert error.title
    assert error.docs_url
    assert error.docs_url.endswith(f"/errors/{slug}")
    assert error.request_id
    assert error.message


async def test_200_concurrent_streams_all_end_rightly_and_leave_nothing_behind(given: list[str]) -> None:
    tools = booking_tools(given)
    before = asyncio.all_tasks()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with (
            Emulator("narrative", script=BOOKING) as emulator,
            connect(
                narrative, token=emulator.token, base_url=emulator.base_url, schedule=QUICK, retry=Retry(backoff=QUICK)
            ) as client,
        ):

            async def one(number: int) -> Run:
                conversation = await client.perform(narrative.create_conversation(config(tools)))
                return await client.result(narrative.UserMessage(conversation.id, f"Meeting {number}"), tools=tools)

            last = await asyncio.gather(*(one(number) for number in range(200)))
        gc.collect()

    assert [run.output for run in last] == ["Booked."] * 200
    assert len({run.id for run in last}) == 200
    assert len(given) == 200
    assert emulator.state.runs_started == 400
    assert asyncio.all_tasks() == before


# Leaving, and cutting off ---------------------------------------------------------------------------------------------


async def test_on_real_sockets_the_session_is_closed_under_an_anyio_scope() -> None:

    async def book(slot: str) -> bool:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.1)
        return True

    async with Emulator("narrative", script=[Turn(calls=[Call("book", {"slot": "9"})])]) as emulator:
        client = connect(narrative, token=emulator.token, base_url=emulator.base_url, schedule=Backoff(initial=0.01))
        with anyio.move_on_after(1):
            async with client:
                made = await client.perform(narrative.create_conversation(config(Tools.of({"book": book}))))
                async for _ in client.stream(narrative.UserMessage(made.id, "x"), tools={"book": book}):
                    pass
        session: Any = client._transport._session  # type: ignore[attr-defined]
        closed = session.closed
        await session.close()
        await asyncio.sleep(0.2)

    assert closed


async def test_cancelling_the_first_read_of_a_known_run_cancels_the_remote_run() -> None:
    async with (
        Emulator("origami", script=[Turn("x", running=50)]) as emulator,
        connect(origami, token=emulator.token, base_url=emulator.base_url, budget=100) as client,
    ):
        started = await client.start(origami.Prompt("hi"))
        emulator.fail(Fault.delay(1, method="GET"))
        step = asyncio.create_task(client.stream(started.ref, on_cancel="confirm").__anext__())
        await asyncio.sleep(0.3)
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        await asyncio.sleep(1)

        assert (await client.fetch(started)).vendor_status == "cancelled"


async def test_a_client_that_was_left_is_not_said_to_have_been_lent_a_session() -> None:
    async with Emulator("narrative") as emulator:
        client = connect(narrative, token=emulator.token, base_url=emulator.base_url)
        async with client:
            transport: Any = client._transport
            await transport._session.close()
            with pytest.raises(AgentRunsError) as caught:
                await client.fetch(RunRef(RUN))

    assert "passed in" not in str(caught.value)
