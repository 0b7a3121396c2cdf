"""client.batch(): bounded, lazy, one failure never stops the others."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from agentruns import ConfigurationError, Outcome, RunFailedError, RunStatus, narrative
from agentruns.model import Request
from tests.kit import CONVERSATION, Answer, Wire, client_of, conversation, run_body

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]


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
    assert outcomes[0] == Outcome(1, "3 b", outcomes[0].origin, outcomes[0].run)
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
