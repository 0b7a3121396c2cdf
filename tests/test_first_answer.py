"""The first answer to an action stands, whoever gives it and by whatever way; the second is told what stands."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agentruns import (
    Action,
    AlreadyAnsweredError,
    AlreadyDecidedError,
    Backoff,
    Client,
    ConflictError,
    Inbox,
    InvalidRequestError,
    Retry,
    Run,
    RunRef,
    RunStatus,
    ToolOutput,
    TransportError,
    connect,
    middesk,
    narrative,
)
from agentruns._following.stream import RunStream
from agentruns._keeping.journal import Journal
from agentruns._keeping.journal.reader import JournalReader
from agentruns._values.exchange import Request, Response
from agentruns.console.source import AnsweredElsewhereError, Source
from agentruns.dialects.show import Answer
from agentruns.emulator import Call, Emulator, Turn
from agentruns.emulator.narrative import Narrative
from tests import scripted_wire
from tests.conformance import acme
from tests.scripted_wire import (
    HEAD,
    MESSAGES,
    NEXT_RUN,
    POLL,
    POLL_NEXT,
    RUN,
    START,
    Lost,
    Wire,
    begun,
    conversation,
    problem,
    run,
)
from tests.test_inbox import first_parked
from tests.test_keys import KEY, QUICK, client_of, message

pytestmark = pytest.mark.asyncio

CONFIG: dict[str, Any] = {
    "model": "m",
    "data_plane_id": "0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
    "max_iterations": 5,
    "max_tokens": 99,
    "output_format_schema": narrative.TEXT_SCHEMA,
}


BUSINESS = "b86f3c52-11d9-4f07-8e6a-90c2d5a7714f"
SCRIPT = [Turn(calls=[Call("approve", {"invoice": "17"})]), Turn("done", running=0.3)]


def approve(invoice: str) -> bool:
    """Approve an invoice."""
    raise NotImplementedError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def client(emulator: Emulator[Narrative], journal: Path | None = None) -> Client[Any, Any]:
    return connect(
        narrative,
        base_url=emulator.base_url,
        token=emulator.token,
        journal=journal,
        schedule=Backoff(initial=0.01, maximum=0.05),
    )


async def pause(opened: Client[Any, Any], key: str | None = None) -> Run:
    """Bring a run to its pause, and leave it."""
    tools = narrative.client_tools({"approve": approve}, alias="u")
    made = await opened.perform(narrative.create_conversation(narrative.Config(client_tools=[tools], **CONFIG)))
    return await last_of(opened.stream(narrative.UserMessage(made.id, "go"), key=key))


async def last_of(stream: RunStream[Any]) -> Run:
    async with stream:
        return [state async for state in stream][-1]


def memory_client(wire: Wire) -> Client[Any, Any]:
    return Client(narrative, wire, retry=Retry(attempts=2, backoff=QUICK), schedule=QUICK)


def outputs(state: Run, output: Any) -> list[ToolOutput]:
    return [ToolOutput(action, output) for action in state.actions]


def taken(emulator: Emulator[Narrative]) -> list[Any]:
    """Return what the vendor has taken as answers."""
    blocks: list[Any] = [block for each in emulator.state.messages.values() for block in each.content_blocks]
    results = [block for block in blocks if block["type"] == "tool_result"]
    return [part["text"] for block in results for part in block["content_blocks"]]


@pytest_asyncio.fixture
async def emulator() -> AsyncIterator[Emulator[Narrative]]:
    with Emulator("narrative", script=SCRIPT) as emulator:
        yield emulator


# client.resume --------------------------------------------------------------------------------------------------------


async def settled(*answers: Any) -> tuple[list[Run], list[AlreadyAnsweredError]]:
    ended = await asyncio.gather(*answers, return_exceptions=True)
    strange = [each for each in ended if not isinstance(each, Run | AlreadyAnsweredError)]
    assert strange == []
    return [each for each in ended if isinstance(each, Run)], [
        each for each in ended if isinstance(each, AlreadyAnsweredError)
    ]


@pytest.mark.parametrize("kept", [True, False], ids=["with a journal", "without"])
async def test_of_two_people_at_once_one_is_told_that_the_other_was_first(
    emulator: Emulator[Narrative], path: Path, kept: bool
) -> None:
    journal = path if kept else None
    async with client(emulator, journal) as one, client(emulator, journal) as other:
        state = await pause(one, KEY if kept else None)
        won, lost = await settled(one.resume(state, outputs(state, "yes")), other.resume(state, outputs(state, "no")))
        assert (len(won), len(lost)) == (1, 1)
        done = await one.result(won[0])

    assert done.status is RunStatus.COMPLETED
    ((answer,), said) = taken(emulator), [each.output for each in lost[0].standing]
    assert said == [answer]


@pytest.mark.parametrize("kept", [True, False], ids=["with a journal", "without"])
async def test_an_answer_that_comes_a_second_later_is_told_what_stands(
    emulator: Emulator[Narrative], path: Path, kept: bool
) -> None:
    journal = path if kept else None
    async with client(emulator, journal) as one, client(emulator, journal) as other:
        state = await pause(one, KEY if kept else None)
        resumed = await one.resume(state, outputs(state, "yes"))
        done = await one.result(resumed)
        with pytest.raises(ConflictError, match='has an answer: "yes"') as caught:
            await other.resume(state, outputs(state, "no"))
        same = await other.resume(state, outputs(state, "yes"))

    assert isinstance(caught.value, AlreadyAnsweredError)
    assert [each.output for each in caught.value.standing] == ["yes"]
    assert same.id == done.id
    assert taken(emulator) == ["yes"]


async def test_two_tasks_of_one_client_that_say_the_same_get_the_same_run(emulator: Emulator[Narrative]) -> None:
    async with client(emulator) as one:
        state = await pause(one)
        won, lost = await settled(*(one.resume(state, outputs(state, "yes")) for _ in range(4)))

    assert lost == []
    assert len({each.id for each in won}) == 1


async def test_while_the_first_is_under_way_another_one_waits_for_what_it_said(emulator: Emulator[Narrative]) -> None:
    async with client(emulator) as one, client(emulator) as other:
        state = await pause(one)
        await one.resume(state, outputs(state, "yes"))
        with pytest.raises(AlreadyAnsweredError, match='has an answer: "yes"'):
            await other.resume(state, outputs(state, "no"))
        assert (await one.resume(state, outputs(state, "yes"))).id != state.id


def resume_in_a_process(base_url: str, token: str, path: str, text: str, output: str, ready: Any, told: Any) -> None:
    async def main() -> str:
        state = Run.from_json(text)
        async with connect(narrative, base_url=base_url, token=token, journal=path) as opened:
            ready.wait()
            try:
                await opened.resume(state, outputs(state, output))
            except AlreadyAnsweredError as error:
                return f"late: {error.standing[0].output}"
            return "taken"

    told.put((output, asyncio.run(main())))


async def test_of_two_processes_at_once_one_is_told_what_stands(emulator: Emulator[Narrative], path: Path) -> None:
    async with client(emulator, path) as one:
        text = (await pause(one, KEY)).to_json()
    spawn = multiprocessing.get_context("spawn")
    ready, told = spawn.Barrier(2), spawn.Queue()
    token = str(emulator.token)
    processes = [
        spawn.Process(target=resume_in_a_process, args=(emulator.base_url, token, str(path), text, output, ready, told))
        for output in ("yes", "no")
    ]
    for each in processes:
        each.start()
    ended = dict([await asyncio.to_thread(told.get, timeout=60) for _ in processes])
    for each in processes:
        await asyncio.to_thread(each.join, 60)
    async with client(emulator, path) as one:
        assert (await to_the_end(one)).status is RunStatus.COMPLETED

    (answer,) = taken(emulator)
    assert ended == {answer: "taken", ({"yes", "no"} - {answer}).pop(): f"late: {answer}"}


async def to_the_end(opened: Client[Any, Any]) -> Run:
    work = await opened.work(KEY)
    assert work is not None
    return await opened.result(work.origin, key=KEY)


# The journal ----------------------------------------------------------------------------------------------------------


def paused(*answers: Any) -> Wire:
    return Wire({
        HEAD: conversation(),
        MESSAGES: scripted_wire.Answer({"current_version": 0, "messages": []}),
        START: [begun(), *answers],
        POLL: run("requires_action"),
        POLL_NEXT: run("completed", id=NEXT_RUN),
    })


async def waits(opened: Client[Any, Any]) -> Run:
    return await last_of(opened.stream(message(), key=KEY))


async def kept(path: Path) -> list[tuple[str, str | None]]:
    async with Journal(path, "narrative") as journal:
        return [(each.state, each.output) for each in await journal.answers(KEY, RUN)]


async def test_an_answer_is_entered_before_it_is_sent_and_marked_when_it_is_taken(path: Path) -> None:
    sent: list[Any] = []
    wire = paused(begun(id=NEXT_RUN))

    class Looking(Wire):
        async def __call__(self, request: Request) -> Response:
            if request.line == START and self.bodies(START):
                sent.append(await kept(path))
            return await super().__call__(request)

    async with client_of(Looking(wire.script), path) as one:
        state = await waits(one)
        await one.resume(state, outputs(state, "yes"))

    assert sent == [[("answered", '"yes"')]]
    assert await kept(path) == [("posted", '"yes"')]


async def test_a_refused_answer_is_taken_back_and_who_answers_next_is_the_first(path: Path) -> None:
    async with client_of(paused(problem(400, "invalid-tool-outputs", "No."), begun(id=NEXT_RUN)), path) as one:
        state = await waits(one)
        with pytest.raises(InvalidRequestError):
            await one.resume(state, outputs(state, "nonsense"))
        assert await kept(path) == []
        resumed = await one.resume(state, outputs(state, "yes"))

    assert resumed.id == NEXT_RUN
    assert await kept(path) == [("posted", '"yes"')]


async def test_an_answer_whose_outcome_is_not_clear_stays_and_goes_on_by_the_same_words(path: Path) -> None:
    lost = [Lost(), Lost()]
    async with client_of(paused(*lost, begun(id=NEXT_RUN)), path) as one:
        state = await waits(one)
        with pytest.raises(TransportError):
            await one.resume(state, outputs(state, "yes"))
        with pytest.raises(
            AlreadyAnsweredError, match=r"whether narrative has it, the journal does not say.* A stream under its key"
        ):
            await one.resume(state, outputs(state, "no"))
        resumed = await one.resume(state, outputs(state, "yes"))

    assert resumed.id == NEXT_RUN


async def test_an_answer_that_failed_is_replaced_where_that_is_asked_for(path: Path) -> None:
    wire = paused(Lost(), Lost(), begun(id=NEXT_RUN))
    async with client_of(wire, path) as one:
        state = await waits(one)
        with pytest.raises(TransportError):
            await one.resume(state, outputs(state, "yes"))
        await one.resume(state, outputs(state, "no"), again=True)

    assert await kept(path) == [("posted", '"no"')]


async def test_the_answer_of_a_handler_stands_before_it_is_posted(path: Path) -> None:
    wire = paused(Lost(), Lost(), begun(id=NEXT_RUN))

    async def yes(action: Action) -> str:
        return "yes"

    async with client_of(wire, path) as one:
        with pytest.raises(TransportError):
            await one.result(message(), key=KEY, tools=yes)
        state = await waits(one)
        with pytest.raises(AlreadyAnsweredError, match='has an answer: "yes"'):
            await one.resume(state, outputs(state, "no"))
        done = await one.result(message(), key=KEY, tools=yes)

    assert done.id == NEXT_RUN
    assert await kept(path) == [("posted", '"yes"')]


async def test_an_answer_in_an_inbox_stands_before_its_handler_has_come_back_for_it(path: Path) -> None:
    async with client_of(paused(begun(id=NEXT_RUN)), path) as one, Inbox(journal=path) as inbox:
        stream = one.stream(message(), key=KEY, tools=inbox, timeout=None)
        following = asyncio.ensure_future(stream.result())
        (parked,) = await first_parked(inbox)
        following.cancel()
        await stream.aclose()
        await inbox.answer(parked.action.id, "yes")
        with pytest.raises(AlreadyAnsweredError, match='has an answer: "yes"'):
            await one.resume(parked.run, outputs(parked.run, "no"))
        with pytest.raises(AlreadyDecidedError, match='it was answered already: "yes"'):
            await inbox.answer(parked.action.id, "no")
        assert (await one.result(message(), key=KEY, tools=inbox, timeout=None)).id == NEXT_RUN


async def test_a_refused_answer_leaves_what_is_parked_to_the_inbox(path: Path) -> None:
    async with (
        client_of(paused(problem(400, "invalid-tool-outputs", "No.")), path) as one,
        Inbox(journal=path) as inbox,
    ):
        stream = one.stream(message(), key=KEY, tools=inbox, timeout=None)
        following = asyncio.ensure_future(stream.result())
        (parked,) = await first_parked(inbox)
        following.cancel()
        await stream.aclose()
        with pytest.raises(InvalidRequestError):
            await one.resume(parked.run, outputs(parked.run, "nonsense"))
        assert [each.action.id for each in await inbox.pending()] == [parked.action.id]


async def test_two_tasks_that_answer_one_parked_action_at_once_end_it_once() -> None:
    inbox = Inbox()
    async with memory_client(paused(begun(id=NEXT_RUN))) as one:
        following = asyncio.ensure_future(one.result(message(), tools=inbox, timeout=None))
        (parked,) = await first_parked(inbox)
        ended = await asyncio.gather(
            *(inbox.answer(parked.action.id, each) for each in ("yes", "no")), return_exceptions=True
        )
        await following

    assert [type(each) for each in ended] == [type(None), AlreadyDecidedError]
    assert 'it was answered already: "yes"' in str(ended[1])


# Two consoles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one after the other"])
async def test_of_two_consoles_on_one_journal_one_is_told_that_it_is_too_late(
    emulator: Emulator[Narrative], path: Path, at_once: bool
) -> None:
    async with client(emulator, path) as one:
        await pause(one, KEY)
    async with AsyncExitStack() as stack:
        given = []
        for output in ("yes", "no"):
            book = await stack.enter_async_context(JournalReader(path))
            inbox = await stack.enter_async_context(Inbox(journal=path))
            opened = await stack.enter_async_context(client(emulator, path))
            source = await stack.enter_async_context(Source(book, inbox, {"narrative": opened}))
            (entry,) = (await book.page("all"))[0]
            waiting = await source.pause(entry, await opened.fetch(RunRef(entry.run_id, entry.parent)))
            assert waiting is not None
            (group,) = waiting.groups
            assert group.route == "vendor"
            given.append((source, group, output))
        if at_once:
            ended = await asyncio.gather(
                *(source.give(group, [Answer(output)]) for source, group, output in given), return_exceptions=True
            )
        else:
            ended = []
            for source, group, output in given:
                ended += await asyncio.gather(source.give(group, [Answer(output)]), return_exceptions=True)
        async with client(emulator, path) as opened:
            assert (await to_the_end(opened)).status is RunStatus.COMPLETED

    told_sent = [output for (_, _, output), error in zip(given, ended, strict=True) if error is None]
    assert [type(each) for each in ended if each is not None] == [AnsweredElsewhereError]
    assert taken(emulator) == told_sent
    async with Journal(path, "narrative") as journal:
        assert [each.output for each in await journal.answers(KEY, given[0][1].run.id)] == [f'"{told_sent[0]}"']


async def test_what_this_client_has_had_taken_is_told_where_the_vendor_cannot_be_asked() -> None:
    turns = [Turn(calls=[Call("tin_resolution", {"label": "Upload?"})], running=0.05), Turn("Done.", running=30.0)]
    async with (
        Emulator("middesk", script=turns) as emulator,
        connect(middesk, token=emulator.token, base_url=emulator.base_url) as client,
    ):
        stream = client.stream(middesk.RunRequest("cip_orchestrator", business_id=BUSINESS))
        async for _ in stream:
            pass
        paused = stream.run
        assert paused is not None
        (action,) = paused.actions
        await client.resume(paused, [ToolOutput(action, {"decision": "approve"})])
        with pytest.raises(AlreadyAnsweredError, match=r'has an answer: \{"decision":"approve"\}') as caught:
            await client.resume(paused, [ToolOutput(action, {"decision": "reject"})])

    assert caught.value.standing == (ToolOutput(action, {"decision": "approve"}),)


# Vendors that do not look themselves ----------------------------------------------------------------------------------


async def late(state: str, emulated: type[acme.Acme] = acme.Acme) -> Exception:
    """Answer a job of Acme that another client has brought into that *state*, and return what refuses it."""
    ask = Turn(calls=[Call("ask", {"question": "Shall I?"})], running=0)
    rest = {"answered": [Turn("Done.", running=0)], "asking": [ask, Turn("Done.")], "cancelled": [Turn("Done.")]}
    async with Emulator(emulated, script=[ask, *rest[state]]) as emulator:
        options: Any = {"token": emulator.token, "base_url": emulator.base_url, "schedule": QUICK}
        async with connect(acme, **options) as client, connect(acme, **options) as other:
            paused = [run async for run in client.stream(acme.Job("p1", "Do it."))][-1]
            if state == "cancelled":
                await other.cancel(paused)
            else:
                await other.resume(paused, [ToolOutput(paused.actions[0], "yes")])
            with pytest.raises((InvalidRequestError, AlreadyAnsweredError)) as refused:
                await client.resume(paused, [ToolOutput(paused.actions[0], "no")])
    return refused.value


class Strict(acme.Acme):
    """Acme, where an answer to what is not asked is refused, though it was answered so before."""

    def _answer(self, request: Any) -> Any:
        row = self.rows[request.params["id"]]
        if row.answered or row.cancelled:
            return self.refusal(422, "nothing is asked", "")
        return super()._answer(request)


@pytest.mark.parametrize("state", ["answered", "asking"])
async def test_a_refusal_of_a_vendor_that_tells_no_more_is_looked_into(state: str) -> None:
    error = await late(state, Strict)
    assert isinstance(error, AlreadyAnsweredError)
    assert error.run.status is (RunStatus.COMPLETED if state == "answered" else RunStatus.REQUIRES_ACTION)
    assert "does not ask for this any more. The first answer stands" in str(error)
    assert str(error).endswith("`client.stream(error.run)` follows what came of the first answer")


async def test_a_run_that_was_cancelled_was_not_answered() -> None:
    error = await late("cancelled", Strict)
    assert isinstance(error, InvalidRequestError)
    assert "nothing is asked" in str(error)
