"""Tasks of one owner: they outlive whoever began them, and end with the owner."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable

import pytest

from agentruns._aio.tasks import EXIT_SECONDS, Tasks

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


def opened() -> Tasks:
    tasks = Tasks()
    tasks.open(asyncio.get_running_loop())
    return tasks


async def name() -> str:
    return NAME.get()


async def stubborn(seconds: float) -> None:
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        await asyncio.sleep(seconds)
        raise


async def test_a_task_sees_the_context_of_the_caller_or_the_one_that_is_given() -> None:
    tasks, other = opened(), contextvars.copy_context()
    NAME.set("caller")

    assert await tasks.spawn(name()) == "caller"
    assert await tasks.spawn(name(), other) == "nobody"


async def test_closing_cancels_all_tasks_and_waits_until_they_have_cleaned_up() -> None:
    tasks = opened()
    running = [tasks.spawn(stubborn(seconds)) for seconds in (0, 5)]
    await asyncio.sleep(1)
    tasks.close()
    await tasks.wait_closed()

    assert all(task.cancelled() for task in running)
    assert len(tasks) == 0


async def test_a_task_that_does_not_end_is_not_waited_for_forever(caplog: pytest.LogCaptureFixture) -> None:
    loop, tasks = asyncio.get_running_loop(), opened()
    task = tasks.spawn(stubborn(1000))
    await asyncio.sleep(1)
    began = loop.time()
    tasks.close()
    with caplog.at_level(logging.WARNING):
        await tasks.wait_closed()

    assert loop.time() - began == pytest.approx(EXIT_SECONDS, abs=0.1)
    assert "does not end although it was cancelled" in caplog.text
    task.cancel()
    await asyncio.wait([task])


async def test_an_error_that_a_task_raises_breaks_nothing_else() -> None:
    async def failing() -> None:
        raise ValueError("no")

    tasks = opened()
    task = tasks.spawn(failing())
    await asyncio.wait([task])

    assert len(tasks) == 0
    with pytest.raises(ValueError, match="no"):
        task.result()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another thread"])
async def test_a_call_is_made_soon_and_never_at_once(elsewhere: bool) -> None:
    tasks, made = opened(), list[int]()

    def ask() -> None:
        tasks.call_soon(lambda: made.append(threading.get_ident()))

    if elsewhere:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    else:
        ask()
    assert made == []
    await asyncio.sleep(0.1)

    assert made == [threading.get_ident()]


async def nothing(_: Tasks) -> None: ...


async def opened_and_closed(tasks: Tasks) -> None:
    tasks.open(asyncio.get_running_loop())
    tasks.close()
    await tasks.wait_closed()


@pytest.mark.parametrize("before", [nothing, opened_and_closed])
async def test_no_call_is_made_before_the_owner_opens_or_after_it_closes(before: Callable[[Tasks], object]) -> None:
    tasks, made = Tasks(), list[int]()
    await before(tasks)  # type: ignore[misc]
    tasks.call_soon(lambda: made.append(1))
    await asyncio.sleep(0.1)

    assert made == []
