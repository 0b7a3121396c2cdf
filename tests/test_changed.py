"""The signal that wakes waiters, and the looks at what other processes do to a journal."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from agentruns._aio.changed import Changed
from agentruns._keeping.journal.changes import LOOK_SECONDS, JournalChanges, pause
from agentruns.errors import AgentRunsError, JournalError

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_everybody_who_waits_is_woken_and_nobody_twice() -> None:
    changed = Changed()
    first, second = (asyncio.ensure_future(changed.wait()) for _ in range(2))
    await settled()
    changed.notify()
    await asyncio.gather(first, second)
    late = asyncio.ensure_future(changed.wait())
    await settled()
    assert not late.done()
    late.cancel()


async def test_a_change_between_a_look_and_the_wait_is_not_missed() -> None:
    changed = Changed()
    with changed.waiter() as change:
        changed.notify()
        changed.notify()
        await change


async def test_a_failure_is_raised_where_it_is_waited_and_is_no_complaint_where_it_is_not() -> None:
    changed = Changed()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    waiting = asyncio.ensure_future(changed.wait())
    await settled()
    with changed.waiter():
        changed.fail(AgentRunsError("closed"))
    with pytest.raises(AgentRunsError, match="closed"):
        await waiting
    changed.notify()  # nobody waits
    await settled()
    assert complaints == []


class File:
    """A journal that others write to."""

    def __init__(self) -> None:
        self.written = 1
        self.error: Exception | None = None
        self.looks = 0
        self.told = 0
        self.errors: list[AgentRunsError] = []

    async def version(self) -> int:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.written

    async def on_change(self) -> None:
        self.told += 1

    def changes(self, at_most: float = 1000.0) -> JournalChanges:
        return JournalChanges(self.version, self.on_change, self.errors.append, at_most=at_most)


async def looks(count: float) -> None:
    await asyncio.sleep(count * LOOK_SECONDS)


async def test_a_write_of_others_is_told_once_within_one_look() -> None:
    file = File()
    with file.changes().watching():
        await looks(3.5)
        assert file.told == 1  # what was there before it was looked for the first time
        file.written += 1
        await looks(1)
        assert file.told == 2
        await looks(20)
        assert file.told == 2


async def test_what_was_written_while_nobody_watched_is_told_to_who_watches_next() -> None:
    file = File()
    changes = file.changes()
    for expected in (1, 2, 2):
        with changes.watching():
            await looks(0.5)
            assert file.told == expected
        if expected == 1:
            file.written += 1


async def test_the_looks_of_many_are_those_of_one_and_end_with_the_last() -> None:
    file = File()
    changes = file.changes()
    with changes.watching():
        with changes.watching(), changes.watching():
            await looks(4.5)
            assert file.looks == 5
        await looks(4)
        assert file.looks == 9
    await looks(10)
    assert file.looks == 9
    assert len(asyncio.all_tasks()) == 1


async def test_it_is_told_now_and_then_though_nothing_was_written() -> None:
    file = File()
    with file.changes(at_most=10.0).watching():
        await asyncio.sleep(35.0)
    assert file.told == 4


async def test_an_error_is_told_and_the_looks_go_on() -> None:
    file = File()
    with file.changes().watching():
        await looks(0.5)
        file.error = JournalError("journal.db", "it is gone")
        await looks(2)
        assert file.errors == [file.error] * 2
        file.error, file.written = None, 2
        await looks(1)
        assert file.told == 2


async def test_a_mistake_is_logged_once_and_the_looks_go_on(caplog: pytest.LogCaptureFixture) -> None:
    file = File()
    with file.changes().watching():
        await looks(0.5)
        for _ in range(2):
            file.error = ZeroDivisionError("a mistake")
            await looks(3)
            file.error = None
            file.written += 1
            await looks(1)
    assert file.told == 3
    assert file.errors == []
    assert caplog.text.count("what others do to a journal cannot be seen for now") == 2


async def test_a_pause_that_fails_is_no_end_of_the_looks(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(_: int, __: float) -> None:
        raise ZeroDivisionError

    file = File()
    with JournalChanges(file.version, file.on_change, file.errors.append, at_most=1000.0, pause=fails).watching():
        await looks(5.5)
    assert file.looks == 6
    assert "cannot be seen" in caplog.text


@pytest.mark.parametrize("steps", range(5))
async def test_looks_that_are_ended_in_the_very_moment_of_news_end(steps: int) -> None:
    file, waiting = File(), list[Callable[[], None]]()

    class Told:
        def version(self) -> int:
            return file.written

        def call(self, _: int, news: Callable[[], None]) -> Callable[[], None]:
            waiting.append(news)
            return lambda: None

    changes = JournalChanges(
        file.version, file.on_change, file.errors.append, at_most=1000.0, pause=partial(pause, Told())
    )
    with changes.watching():
        await looks(0.5)
        waiting.pop()()
        for _ in range(steps):
            await asyncio.sleep(0)
    await asyncio.wait_for(changes.close(), 10.0)
    assert len(asyncio.all_tasks()) == 1


async def test_a_journal_that_is_opened_again_is_looked_at_anew() -> None:
    file = File()
    changes = file.changes()
    with changes.watching():
        await looks(0.5)
    await changes.close()
    with changes.watching():
        await looks(0.5)
    assert file.told == 2


async def test_who_watches_while_it_is_closed_is_told_nothing() -> None:
    file = File()
    changes = file.changes()
    with changes.watching():
        await looks(0.5)
        await changes.close()
        file.written += 1
        await looks(5)
    assert file.told == 1
