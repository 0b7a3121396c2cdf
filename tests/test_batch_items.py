"""client.batch(): what an item has of its own, who is told of it, and how far the batch has come."""

import asyncio
import io
from collections.abc import Mapping
from typing import Any

import pytest

from agentruns import (
    Action,
    BatchProgress,
    ConfigurationError,
    DeadlineExceededError,
    StreamOptions,
    narrative,
    progress_bar,
)
from agentruns.tools import current_item
from tests.scripted_wire import CONVERSATION, HEAD, START, Wire, client_of, conversation, run
from tests.test_batch import Crowd, messages

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]


def message(item: Mapping[str, Any]) -> narrative.UserMessage:
    return narrative.UserMessage(CONVERSATION, item["text"])


async def test_an_outcome_has_the_item_that_was_given_with_and_without_prepare() -> None:
    items = [{"text": "1 a"}, {"text": "2 b"}]
    async with client_of(Crowd()) as client:
        prepared = [outcome async for outcome in client.batch(items, prepare=message)]
        plain = [outcome async for outcome in client.batch(messages("1 c"))]

    assert [outcome.item for outcome in prepared] == items
    assert prepared[0].item is items[0]
    assert plain[0].item is plain[0].origin


async def test_an_item_whose_prepare_fails_is_still_named_by_its_outcome() -> None:
    def fails(item: str) -> narrative.UserMessage:
        raise LookupError(item)

    async with client_of(Crowd()) as client:
        outcomes = [outcome async for outcome in client.batch(["row 7"], prepare=fails)]
    assert [(outcome.item, type(outcome.error)) for outcome in outcomes] == [("row 7", LookupError)]


async def test_a_prepare_that_hangs_ends_with_the_timeout_of_its_item() -> None:
    async def hangs(item: str) -> narrative.UserMessage:
        if item != "1 b":
            await asyncio.Event().wait()
        return narrative.UserMessage(CONVERSATION, item)

    loop = asyncio.get_running_loop()
    began = loop.time()
    async with client_of(Crowd()) as client:
        outcomes = {
            outcome.item: outcome.error async for outcome in client.batch(["1 a", "1 b"], prepare=hangs, timeout=3)
        }
    assert outcomes["1 b"] is None
    assert isinstance(outcomes["1 a"], DeadlineExceededError)
    assert "`prepare` was not done after 3 s" in str(outcomes["1 a"])
    assert "Nothing was started: make the same call again" in str(outcomes["1 a"])
    assert loop.time() - began < 5


async def test_a_timeout_error_of_prepare_itself_is_told_as_it_is() -> None:
    async def times_out(item: str) -> narrative.UserMessage:
        raise TimeoutError("the database")

    async with client_of(Crowd()) as client:
        outcomes = [outcome async for outcome in client.batch(["a"], prepare=times_out, timeout=3)]
    assert [(type(outcome.error), str(outcome.error)) for outcome in outcomes] == [(TimeoutError, "the database")]


async def test_an_item_may_have_a_timeout_of_its_own() -> None:
    def own(origin: narrative.UserMessage) -> StreamOptions:
        return {"timeout": 2} if origin.text == "9 b" else {}

    async with client_of(Crowd()) as client:
        outcomes = {
            outcome.item.text: outcome.error
            async for outcome in client.batch(messages("9 a", "9 b"), options=own, timeout=60)
        }
    assert outcomes["9 a"] is None
    assert isinstance(outcomes["9 b"], DeadlineExceededError)


@pytest.mark.parametrize("given", [{"timeouts": 3}, {"key": "another"}, 3, {"timeout": -1}])
async def test_an_option_that_there_is_not_is_the_failure_of_its_item(given: Any) -> None:
    async with client_of(Crowd()) as client:
        outcomes = [outcome async for outcome in client.batch(messages("1 a"), options=lambda _: given)]
    assert isinstance(outcomes[0].error, ConfigurationError)


async def test_prepare_and_handlers_sync_and_async_are_told_for_which_item_they_are_called() -> None:
    seen: list[Any] = []

    def prepare(item: Mapping[str, Any]) -> narrative.UserMessage:
        seen.append(current_item())
        return message(item)

    def sync_handler(action: Action) -> str:
        seen.append(current_item())
        return "done"

    async def async_handler(action: Action) -> str:
        await asyncio.sleep(0)
        seen.append(current_item())
        return "done"

    items: list[dict[str, Any]] = [{"text": "1 a", "tools": sync_handler}, {"text": "1 b", "tools": async_handler}]
    words = ("requires_action", "completed") * 2
    wire = Wire({HEAD: conversation(), START: [run(word, id=f"run-{number}") for number, word in enumerate(words)]})
    async with client_of(wire) as client:
        batch = client.batch(items, prepare=prepare, options=lambda item: {"tools": item["tools"]}, limit=1)
        outcomes = [outcome async for outcome in batch]

    assert [outcome.error for outcome in outcomes] == [None, None]
    assert seen == [items[0], items[0], items[1], items[1]]


async def test_outside_a_batch_there_is_no_current_item() -> None:
    with pytest.raises(ConfigurationError, match="no current item"):
        current_item()


async def test_progress_is_told_when_items_are_taken_and_with_each_outcome() -> None:
    told: list[BatchProgress] = []
    async with client_of(Crowd()) as client:
        batch = client.batch(messages("1 a", "fail 2", "3 c"), limit=2, on_progress=told.append)
        async for _ in batch:
            pass

    assert told[0] == BatchProgress(2, 2)
    assert told[-1] == BatchProgress(3, 0, {"completed": 2, "failed": 1})
    assert [each.done for each in told if each.done] == [1, 2, 3] or told[-1].done == 3
    assert batch.progress() == told[-1]


async def test_a_progress_function_that_is_none_is_refused_and_what_it_raises_is_raised() -> None:
    never: Any = 3

    def fails(_: BatchProgress) -> None:
        raise LookupError("progress")

    async with client_of(Crowd()) as client:
        with pytest.raises(ConfigurationError, match="on_progress"):
            client.batch(messages("1 a"), on_progress=never)
        async with client.batch(messages("1 a"), on_progress=fails) as batch:
            with pytest.raises(LookupError, match="progress"):
                await anext(batch)


async def test_a_bar_shows_how_many_of_how_many_are_done_and_what_failed() -> None:
    out = io.StringIO()
    async with client_of(Crowd()) as client:
        with progress_bar(3, file=out) as show:
            async for _ in client.batch(messages("1 a", "fail 2", "3 c"), on_progress=show):
                pass
    assert "3/3" in out.getvalue()
    assert "1 failed" in out.getvalue()
