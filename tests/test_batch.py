"""client.batch(): bounded, lazy, one failure never stops the others."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from agentruns import (
    AgentRunsError,
    APIError,
    BatchProgress,
    ConfigurationError,
    Outcome,
    RunFailedError,
    RunStatus,
    narrative,
)
from agentruns._following import record
from agentruns._values.exchange import Request, Response
from tests.scripted_wire import CONVERSATION, HEAD, START, Answer, Wire, client_of, conversation, run, run_body

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]
MESSAGE = narrative.UserMessage(CONVERSATION, "Handle invoice RE-2026-118.")


class Crowd(Wire):
    """Any number of runs: the text of a message says how long it takes, or that it fails."""

    def __init__(self) -> None:
        super().__init__({})
        self.in_flight = 0
        self.most = 0
        self.until: dict[str, float] = {}

    async def __call__(self, request: Request) -> Any:
        now = asyncio.get_running_loop().time()
        if request.method == "POST":
            name = request.json["payload"]["text"]
            seconds = 1.0 if name.startswith("fail") else float(name.split()[0])
            self.until[name.replace(" ", "-")] = now + seconds
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            self.script[request.line] = [Answer(run_body("running", id=name.replace(" ", "-")))]
        elif request.path.startswith("/agents/runs/"):
            name = request.path.rpartition("/")[2]
            over = now >= self.until[name]
            word = "running" if not over else "failed" if name.startswith("fail") else "completed"
            self.in_flight -= over
            self.script[request.line] = [Answer(run_body(word, id=name))]
        else:
            self.script[request.line] = [conversation()]
        return await super().__call__(request)


def messages(*texts: str) -> Iterator[narrative.UserMessage]:
    for text in texts:
        yield narrative.UserMessage(CONVERSATION, text)


async def test_outcomes_come_as_they_end_and_name_their_origin() -> None:
    async with client_of(Crowd()) as client:
        outcomes = [
            outcome async for outcome in client.batch(messages("9 a", "3 b", "6 c"), key=lambda origin: origin.text)
        ]

    assert [(outcome.index, outcome.key) for outcome in outcomes] == [(1, "3 b"), (2, "6 c"), (0, "9 a")]
    assert outcomes[0] == Outcome(1, "3 b", outcomes[0].origin, outcomes[0].run, item=outcomes[0].origin)
    assert [outcome.run.status for outcome in outcomes if outcome.run] == [RunStatus.COMPLETED] * 3


async def test_one_failure_never_stops_the_others() -> None:
    async with client_of(Crowd()) as client:
        outcomes = {outcome.index: outcome async for outcome in client.batch([*messages("fail 1", "2 b"), "nonsense"])}

    assert isinstance(outcomes[0].error, RunFailedError)
    assert outcomes[0].run is not None
    assert outcomes[1].error is None
    assert isinstance(outcomes[2].error, ConfigurationError)


async def test_never_more_than_the_limit_are_in_flight_and_the_input_is_taken_lazily() -> None:
    taken = 0

    async def endless() -> AsyncIterator[narrative.UserMessage]:
        nonlocal taken
        while True:
            taken += 1
            yield narrative.UserMessage(CONVERSATION, f"2 {taken}")

    crowd = Crowd()
    async with client_of(crowd) as client, client.batch(endless(), limit=5) as outcomes:
        async for outcome in outcomes:
            if outcome.index > 20:
                break
    assert crowd.most == 5
    assert taken < 35
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_break_without_clean_up_stops_when_the_batch_is_let_go_of() -> None:
    async with client_of(Crowd()) as client:
        async for _ in client.batch(messages("1 a", "500 b", "500 c")):
            break
        gc.collect()
        await asyncio.sleep(0.1)
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_of_the_input_itself_is_raised() -> None:
    def broken() -> Iterator[narrative.UserMessage]:
        yield from messages("1 a")
        raise OSError("the file is gone")

    async with client_of(Crowd()) as client, client.batch(broken()) as outcomes:
        with pytest.raises(OSError, match="gone"):
            async for _ in outcomes:
                pass


@pytest.mark.parametrize("limit", [0, -1, 2.5, True])
async def test_a_limit_that_cannot_work_is_refused(limit: Any) -> None:
    async with client_of(Crowd()) as client:
        with pytest.raises(ConfigurationError, match="limit"):
            client.batch([], limit=limit)


async def test_a_batch_behaves_as_an_async_generator() -> None:
    async with client_of(Crowd()) as client:
        batch = client.batch(messages("1 a"))
        assert (await batch.asend(None)).index == 0
        with pytest.raises(TypeError, match="takes no values"):
            await batch.asend(1)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="outside"):
            await batch.athrow(ValueError("outside"))
        with pytest.raises(StopAsyncIteration):
            await anext(batch)


async def test_in_order_outcomes_come_as_the_origins_did() -> None:
    async with client_of(Crowd()) as client:
        batch = client.batch(messages("9 a", "3 b", "fail 1", "6 c"), ordered=True)
        outcomes = [outcome async for outcome in batch]

    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3]
    assert isinstance(outcomes[2].error, RunFailedError)


async def test_in_order_the_wait_for_an_early_one_does_not_hold_back_the_others_but_is_bounded() -> None:
    taken: list[str] = []

    def source() -> Iterator[narrative.UserMessage]:
        for number in range(100):
            taken.append("taken")
            yield from messages("500 slow" if number == 0 else f"1 {number}")

    crowd = Crowd()
    async with client_of(crowd) as client, client.batch(source(), limit=2, ordered=True) as batch:
        first = await anext(batch)
        assert first.index == 0
        assert 16 <= len(taken) <= 20  # eight limits are held for it, and no more
        assert [outcome.index async for outcome in batch] == list(range(1, 100))
    assert crowd.most == 2


@pytest.mark.parametrize("opened", [False, True], ids=["never opened", "closed"])
async def test_a_batch_on_a_client_that_is_not_open_raises_once_and_takes_nothing(opened: bool) -> None:
    client = client_of(Crowd())
    if opened:
        async with client:
            pass
    given = messages("1 a", "1 b")
    with pytest.raises(ConfigurationError, match="this client is not open; use it within"):
        await anext(client.batch(given))
    assert next(given).text == "1 a"


async def test_a_batch_that_was_begun_hands_out_what_it_has_although_its_client_has_closed() -> None:
    async with client_of(Crowd()) as client:
        batch = client.batch(messages("1 a", "1 b"), ordered=True)
        assert (await anext(batch)).index == 0
        closed = client.batch(messages("1 c"))
        await closed.aclose()
    assert [outcome.index async for outcome in batch] == [1]
    assert [outcome async for outcome in closed] == []


async def test_stop_takes_no_more_and_lets_the_rest_end() -> None:
    crowd = Crowd()
    async with client_of(crowd) as client:
        batch = client.batch(messages("1 a", "5 b", "9 c", "1 d", "1 e"), limit=3)
        assert (await anext(batch)).index == 0
        batch.stop()
        assert [outcome.index async for outcome in batch] == [1, 2]
        assert batch.taken == 3
    assert len(crowd.until) == 3
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_stop_wakes_a_batch_that_waits_for_its_source() -> None:
    async def source() -> AsyncIterator[narrative.UserMessage]:
        for message in messages("1 a"):
            yield message
        await asyncio.Event().wait()

    async with client_of(Crowd()) as client:
        batch = client.batch(source())
        assert (await anext(batch)).index == 0
        asyncio.get_running_loop().call_later(5, batch.stop)
        with pytest.raises(StopAsyncIteration):
            await anext(batch)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_origin_that_came_just_before_the_stop_is_not_started() -> None:
    gate = asyncio.Event()

    async def source() -> AsyncIterator[narrative.UserMessage]:
        await gate.wait()
        for message in messages("1 a"):
            yield message

    crowd = Crowd()
    async with client_of(crowd) as client:
        batch = client.batch(source())
        waiting = asyncio.ensure_future(anext(batch, None))
        await asyncio.sleep(1)
        gate.set()
        await asyncio.sleep(0)
        batch.stop()
        assert await waiting is None
    assert crowd.until == {}


async def test_what_was_taken_before_the_input_broke_still_ends() -> None:
    async def broken() -> AsyncIterator[narrative.UserMessage]:
        for message in messages("3 a", "1 b"):
            yield message
        raise OSError("the file is gone")

    async with client_of(Crowd()) as client, client.batch(broken()) as batch:
        assert [(await anext(batch)).index for _ in range(2)] == [1, 0]
        with pytest.raises(OSError, match="gone"):
            await anext(batch)


async def test_a_slow_consumer_holds_back_new_starts() -> None:
    crowd = Crowd()
    async with client_of(crowd) as client, client.batch(messages(*(f"1 {n}" for n in range(50))), limit=4) as batch:
        for _ in range(3):
            await anext(batch)
            await asyncio.sleep(100)
            assert len(crowd.until) <= batch.taken <= 8


async def test_states_say_what_the_runs_in_flight_do() -> None:
    async with client_of(Crowd()) as client, client.batch(messages("1 a", "9 b", "9 c")) as batch:
        assert batch.states() == {}
        await anext(batch)
        assert batch.states() == {"running": 2}


async def test_what_a_key_raises_is_the_failure_of_its_item() -> None:
    async with client_of(Crowd()) as client:
        batch = client.batch(messages("1 a", "2 b"), key=lambda origin: {"1 a": "first"}[origin.text])
        outcomes = [outcome async for outcome in batch]

    assert [(outcome.key, type(outcome.error)) for outcome in outcomes] == [(None, KeyError), ("first", type(None))]


async def test_an_origin_is_prepared_in_the_turn_of_its_item() -> None:
    prepared = []

    async def prepare(text: str) -> narrative.UserMessage:
        prepared.append(text)
        await asyncio.sleep(1)
        if text == "oops":
            raise OSError(text)
        return narrative.UserMessage(CONVERSATION, text)

    async with client_of(Crowd()) as client, client.batch(["1 a", "oops", "1 c"], prepare=prepare, limit=2) as batch:
        outcomes = {outcome.index: outcome async for outcome in batch}

    assert prepared == ["1 a", "oops", "1 c"]
    assert isinstance(outcomes[0].origin, narrative.UserMessage)
    assert outcomes[0].origin.text == "1 a"
    assert isinstance(outcomes[1].error, OSError)
    assert outcomes[1].origin == "oops"


async def test_a_handler_that_cancels_itself_fails_its_item_alone() -> None:
    def prepare(text: str) -> narrative.UserMessage:
        if text == "cancelled":
            raise asyncio.CancelledError
        return narrative.UserMessage(CONVERSATION, text)

    async with client_of(Crowd()) as client:
        outcomes = [outcome async for outcome in client.batch(["cancelled", "1 b"], prepare=prepare)]
    assert [type(outcome.error) for outcome in outcomes] == [AgentRunsError, type(None)]


@pytest.mark.parametrize("options", [{"key": "a"}, {"prepare": 3}, {"ordered": "yes"}, {"timeout": 0}])
async def test_options_that_cannot_work_are_refused_at_once(options: dict[str, Any]) -> None:
    async with client_of(Crowd()) as client:
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            client.batch([], **options)
        gc.collect()


async def test_a_wait_that_somebody_else_cancels_holds_up_nothing() -> None:
    async with client_of(Crowd()) as client, client.batch(messages("9 a", "1 b", "2 c"), ordered=True) as batch:
        waiting = asyncio.ensure_future(anext(batch))
        await asyncio.sleep(0.5)
        ours = {asyncio.current_task(), waiting}
        first = min((task for task in asyncio.all_tasks() - ours if "ItemRunner.run" in repr(task)), key=task_number)
        first.cancel()
        assert (await waiting).index == 1
        assert [outcome.index async for outcome in batch] == [2]


def task_number(task: "asyncio.Task[Any]") -> int:
    return int(task.get_name().rpartition("-")[2])


async def test_what_is_no_iterable_of_origins_is_refused_at_once() -> None:
    async with client_of(Crowd()) as client:
        with pytest.raises(ConfigurationError, match="origins is 3"):
            client.batch(3)  # type: ignore[call-overload]
        gc.collect()


async def test_batch_yields_an_outcome_as_it_ends_while_a_slow_source_is_waited_for() -> None:
    wire = Wire({HEAD: conversation(), START: run("completed")})
    seen = asyncio.Event()

    async def source() -> AsyncIterator[narrative.UserMessage]:
        yield MESSAGE
        await seen.wait()
        yield MESSAGE

    outcomes = 0
    async with client_of(wire) as client:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1000):
                async for _ in client.batch(source()):
                    outcomes += 1
                    seen.set()

    assert outcomes == 2


async def test_a_batch_step_that_times_out_loses_no_origins() -> None:
    wire = Wire({HEAD: conversation(), START: run("completed")})

    async def source() -> AsyncIterator[narrative.UserMessage]:
        for _ in range(3):
            await asyncio.sleep(10)
            yield MESSAGE

    got = []
    async with client_of(wire) as client:
        batch = client.batch(source())
        while True:
            try:
                got.append((await asyncio.wait_for(anext(batch), 4)).index)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break

    assert got == [0, 1, 2]


async def test_another_task_can_close_a_batch_that_waits_for_its_source() -> None:
    wire = Wire({HEAD: conversation(), START: run("completed")})

    async def source() -> AsyncIterator[narrative.UserMessage]:
        await asyncio.sleep(1000)
        yield MESSAGE

    async with client_of(wire) as client:
        batch = client.batch(source())
        waiting = asyncio.create_task(batch.__anext__())
        await asyncio.sleep(1)
        try:
            await batch.aclose()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def test_a_key_that_raises_is_the_outcome_of_its_origin() -> None:
    wire = Wire({HEAD: conversation(), START: run("completed")})

    def key(origin: narrative.UserMessage) -> str:
        if origin.text == "bad":
            raise KeyError("no invoice number")
        return origin.text

    origins = [narrative.UserMessage(CONVERSATION, text) for text in ("bad", "good")]
    async with client_of(wire) as client:
        outcomes = [outcome async for outcome in client.batch(origins, key=key)]

    assert len(outcomes) == 2


# What every start would be answered -----------------------------------------------------------------------------------


async def collect(outcomes: AsyncIterator[Outcome], found: list[Outcome]) -> None:
    async for outcome in outcomes:
        found.append(outcome)  # noqa: PERF401 - it may end with an error


class Refusing(Crowd):
    """The crowd at a vendor that refuses to start anything after so many runs."""

    def __init__(self, status: int, after: int) -> None:
        super().__init__()
        self.status, self.left = status, after
        self.refused = 0

    async def __call__(self, request: Request) -> Any:
        if request.method == "POST":
            self.left -= 1
            if self.left < 0:
                self.refused += 1
                await asyncio.sleep(0.1)
                return Response(self.status, {}, b"{}", request)
        return await super().__call__(request)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refusal_that_every_start_would_meet_ends_a_batch_when_what_runs_is_over(
    status: int, ordered: bool
) -> None:
    wire = Refusing(status, after=3)
    found: list[Outcome] = []
    moments: list[BatchProgress] = []
    async with client_of(wire) as client:
        origins = messages(*(f"9 {number}" for number in range(1000)))
        async with client.batch(origins, limit=4, ordered=ordered, on_progress=moments.append) as outcomes:
            with pytest.raises(APIError) as told:
                await collect(outcomes, found)
            assert outcomes.refusal is not None
            assert outcomes.taken == len(found)

    assert told.value.status == status
    assert moments[-1].ended == {"completed": 3, "unstarted": len(found) - 3}
    assert len(found) <= 5
    assert 1 <= wire.refused <= 2


async def test_a_refusal_of_the_last_origins_is_the_error_of_their_outcomes_alone() -> None:
    async with client_of(Refusing(403, after=1)) as client:
        found = [outcome async for outcome in client.batch(messages("1 a", "1 b"))]

    assert [record.status_of(outcome.error, outcome.run) for outcome in found] == ["unstarted", "completed"]
