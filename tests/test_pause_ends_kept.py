"""A pause that ends by itself, where a journal keeps the work or the question: what is kept of it is taken back."""

import asyncio
from pathlib import Path

import pytest

from agentruns import Action, Backoff, Inbox
from agentruns._keeping.journal import Journal
from agentruns._polling import pace
from agentruns.inbox import NotPendingError
from tests.test_inbox import first_parked
from tests.test_pause_ends import DONE, NEXT, REF, Answered, Asking, Slow, dialect, dialect_of_runs_that_follow
from tests.tiny_vendor import client_of

pytestmark = pytest.mark.asyncio

SOON = Backoff(initial=0.05, factor=1.0, maximum=0.05, jitter=0.0)


@pytest.fixture(autouse=True)
def looks_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_LOOKS", SOON)


async def test_an_inbox_with_a_journal_withdraws_a_question_that_nobody_asks_any_more(tmp_path: Path) -> None:
    server = Asking()
    async with (
        Inbox(journal=tmp_path / "inbox.db") as inbox,
        client_of(server, dialect=dialect(), schedule=SOON) as client,
    ):
        waiting = asyncio.ensure_future(client.result(REF, tools=inbox, timeout=None))
        (found,) = await first_parked(inbox)
        server.plan = ((0.0, DONE),)
        assert (await asyncio.wait_for(waiting, 20.0)).output == "well"
        assert await inbox.pending() == ()
        with pytest.raises(NotPendingError, match="withdrawn"):
            await inbox.answer(found.action.id, "yes", run_id="a-1")


async def test_work_under_a_key_asks_a_new_question_after_one_that_was_taken_back(tmp_path: Path) -> None:
    server, slow = Asking(), Slow()
    next_shown = iter([{"status": "asks", "what": "the other"}, DONE])

    async def decide(action: Action) -> None:
        server.plan = ((0.0, next(next_shown)),)
        await slow(action)

    journal = Journal(tmp_path / "work.db", "tiny")
    async with client_of(server, dialect=dialect(), schedule=SOON, journal=journal) as client:
        run = await client.result(REF, tools=decide, key="one", timeout=20.0)
    assert (run.output, slow.calls, slow.told) == ("well", 2, [True, True])


async def test_work_under_a_key_is_done_by_the_run_that_another_answer_began(tmp_path: Path) -> None:
    server, slow = Answered(0.0, NEXT), Slow()
    journal = Journal(tmp_path / "work.db", "tiny")
    followed = dialect_of_runs_that_follow(server)
    async with client_of(server, dialect=followed, schedule=SOON, journal=journal) as client:
        run = await client.result(REF, tools=slow, key="one", timeout=20.0)
        kept = await client.work("one")
    assert (run.id, run.output, slow.calls, slow.told, server.posted) == ("b-1", "by another", 1, [True], 0)
    assert kept is not None
    assert kept.run == run
