"""client.batch() with a journal: a second batch over the same origins starts only what is not done."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest

from agentruns import Backoff, Client, ConfigurationError, Outcome, Retry, RunFailedError, narrative
from agentruns._keeping.digest import request_digest
from agentruns._keeping.journal import Journal
from agentruns.dialects import MINTED
from tests.scripted_wire import CONVERSATION
from tests.test_batch import Crowd, messages

pytestmark = pytest.mark.asyncio

QUICK = Backoff(initial=0.02, factor=1.0, jitter=0.0)


def journaled(crowd: Crowd, path: Path) -> Client:
    return Client(narrative, crowd, retry=Retry(backoff=QUICK), schedule=QUICK, journal=Journal(path, "narrative"))


def of_text(origin: narrative.UserMessage) -> str:
    return origin.text


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_second_batch_starts_only_what_is_not_done(ordered: bool, tmp_path: Path) -> None:
    crowd = Crowd()
    texts = ["0.1 a", "0.9 b", "fail 1", "0.9 c", "0.1 d"]
    async with journaled(crowd, tmp_path / "journal") as client:
        async with client.batch(messages(*texts), limit=4, key=of_text) as batch:
            seen = [await anext(batch) for _ in range(2)]
        assert {outcome.key for outcome in seen} <= {"0.1 a", "0.1 d"}
    before = dict(crowd.until)
    async with journaled(crowd, tmp_path / "journal") as client:
        batch = client.batch(messages(*texts), limit=4, key=of_text, ordered=ordered)
        outcomes = {outcome.index: outcome async for outcome in batch}

    assert before.items() <= crowd.until.items()  # nothing was started anew
    assert [outcomes[index].key for index in range(5)] == texts
    assert isinstance(outcomes[2].error, RunFailedError)
    assert [outcomes[index].error for index in (0, 1, 3, 4)] == [None] * 4


@pytest.mark.parametrize("options", [None, lambda _: {"timeout": 9.0}], ids=["shared options", "own options"])
async def test_an_origin_that_the_journal_knows_is_not_prepared_again(options: Any, tmp_path: Path) -> None:
    crowd, prepared = Crowd(), []

    def prepare(text: str) -> narrative.UserMessage:
        prepared.append(text)
        return narrative.UserMessage(CONVERSATION if len(prepared) < 3 else "another", text)

    for _ in range(2):
        async with journaled(crowd, tmp_path / "journal") as client:
            batch = client.batch(["0.1 a", "0.2 b"], prepare=prepare, key=str, options=options)
            outcomes = [outcome async for outcome in batch]
            assert [(getattr(outcome.origin, "conversation_id", None), outcome.error) for outcome in outcomes] == [
                (CONVERSATION, None)
            ] * 2
    assert prepared == ["0.1 a", "0.2 b"]


async def test_two_items_of_one_key_share_a_run_if_they_are_the_same_and_else_the_later_fails(tmp_path: Path) -> None:
    crowd = Crowd()
    async with journaled(crowd, tmp_path / "journal") as client:
        same = [outcome async for outcome in client.batch(messages("0.1 a", "0.1 a"), key=of_text)]
        other = [outcome async for outcome in client.batch(messages("0.1 b", "0.1 c"), key=lambda origin: "one")]
    assert [outcome.error for outcome in same] == [None, None]
    assert sorted(type(outcome.error).__name__ for outcome in other) == ["ConfigurationError", "NoneType"]
    assert len(crowd.until) == 2


# Items that have changed ----------------------------------------------------------------------------------------------


def prepared(text: str) -> narrative.UserMessage:
    """Make another origin of the same item each time, as one that has a conversation of its own."""
    return narrative.UserMessage(CONVERSATION, text.removeprefix("conversation "))


async def once(crowd: Crowd, path: Path, items: list[str], **options: Any) -> list[Outcome]:
    async with journaled(crowd, path / "journal") as client:
        if "prepare" not in options:
            return [each async for each in client.batch(messages(*items), key=lambda _: "row", limit=1, **options)]
        return [each async for each in client.batch(items, key=lambda _: "row", limit=1, **options)]


@pytest.mark.parametrize("options", [{}, {"prepare": prepared}], ids=["plain", "prepared"])
async def test_an_item_that_has_changed_is_refused_kept_or_started_again(
    options: dict[str, Any], tmp_path: Path
) -> None:
    crowd = Crowd()
    (first,) = await once(crowd, tmp_path, ["0.01 a"], **options)
    (refused,) = await once(crowd, tmp_path, ["0.01 b"], **options)
    (kept,) = await once(crowd, tmp_path, ["0.01 b"], changed="keep", **options)
    assert isinstance(refused.error, ConfigurationError)
    assert "the item was another" in str(refused.error)
    assert 'changed="again"' in str(refused.error)
    assert kept.run == first.run
    assert len(crowd.until) == 1

    again = [await once(crowd, tmp_path, ["0.01 b"], changed=how, **options) for how in ("again", "again", "refuse")]
    assert {outcome.run.id for (outcome,) in again if outcome.run} == {"0.01-b"}
    assert set(crowd.until) == {"0.01-a", "0.01-b"}
    (back,) = await once(crowd, tmp_path, ["0.01 a"], **options)
    assert back.run == first.run


async def test_what_becomes_of_a_changed_item_is_one_of_three_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="changed is 'maybe'; choose 'refuse', 'again', 'keep'"):
        await once(Crowd(), tmp_path, ["0.01 a"], changed="maybe")


async def test_two_batches_on_one_journal_attach_to_each_others_items_though_each_prepares_its_own_origin(
    tmp_path: Path,
) -> None:
    crowd = Crowd()
    made = iter(range(100))

    async def prepare(text: str) -> narrative.UserMessage:
        await asyncio.sleep(0.02)  # so that both are at it
        return narrative.UserMessage(CONVERSATION, text, expected_version=next(made))

    async def run() -> list[Outcome]:
        async with journaled(crowd, tmp_path / "journal") as client:
            return [each async for each in client.batch(["0.1 a", "0.1 b", "0.1 c"], prepare=prepare, key=str)]

    both = await asyncio.gather(run(), run())
    assert [outcome.error for outcomes in both for outcome in outcomes] == [None] * 6
    assert len(crowd.until) == 3
    assert sum(request.method == "POST" for _, request in crowd.asked) == 3


async def test_one_item_given_twice_to_one_batch_has_one_run_though_it_is_prepared_twice(tmp_path: Path) -> None:
    crowd = Crowd()
    made = iter(range(100))

    def prepare(text: str) -> narrative.UserMessage:
        return narrative.UserMessage(CONVERSATION, text, expected_version=next(made))

    async with journaled(crowd, tmp_path / "journal") as client:
        outcomes = [each async for each in client.batch(["0.1 a", "0.1 a"], prepare=prepare, key=str)]
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert sum(request.method == "POST" for _, request in crowd.asked) == 1


async def test_a_field_that_is_new_and_at_its_default_makes_no_other_request() -> None:
    @attrs.frozen
    class Old:
        text: str
        id: str = attrs.field(factory=lambda: str(uuid4()), metadata=MINTED)

    @attrs.frozen
    class New(Old):
        colour: str | None = None

    assert request_digest(Old("a")) == request_digest(New("a")) != request_digest(New("a", colour="red"))
    assert request_digest({"a": 1, "b": 2}) == request_digest({"b": 2, "a": 1})
    assert request_digest(object()) is None
