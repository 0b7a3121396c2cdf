"""client.batch() with a journal: a second batch over the same origins starts only what is not done."""

from pathlib import Path

import pytest

from agentruns import Backoff, Client, Retry, RunFailedError, narrative
from agentruns._keeping.journal import Journal
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


async def test_an_origin_that_the_journal_knows_is_not_prepared_again(tmp_path: Path) -> None:
    crowd, prepared = Crowd(), []

    def prepare(text: str) -> narrative.UserMessage:
        prepared.append(text)
        return narrative.UserMessage(CONVERSATION if len(prepared) < 3 else "another", text)

    for _ in range(2):
        async with journaled(crowd, tmp_path / "journal") as client:
            outcomes = [outcome async for outcome in client.batch(["0.1 a", "0.2 b"], prepare=prepare, key=str)]
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
