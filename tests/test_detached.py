"""Detached work: a cancelled wait does not cut it off, and the next wait takes it up."""

import asyncio
import gc
import logging
import threading

import pytest

from agentruns._aio.detached import Detached
from agentruns._aio.tasks import Tasks

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]


async def after(seconds: float, result: str, steps: list[str] | None = None) -> str:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if steps is not None:
            steps.append(f"{result} was cut off")
            await asyncio.sleep(seconds)
            steps.append(f"{result} has cleaned up")
        raise
    if steps is not None:
        steps.append(result)
    return result


async def failing(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise ValueError("no")


async def test_a_wait_that_is_cancelled_cuts_nothing_off_and_the_next_one_takes_the_work_up() -> None:
    work, steps = Detached(Tasks()), list[str]()
    work.begin(after(10, "done", steps))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work.result(), 3)

    assert work.is_under_way
    assert await work.result() == "done"
    assert steps == ["done"]
    assert not work.is_under_way


async def test_what_the_work_raises_is_raised_once_and_then_there_is_no_work() -> None:
    work = Detached(Tasks())
    work.begin(failing(1))
    with pytest.raises(ValueError, match="no"):
        await work.result()

    with pytest.raises(RuntimeError, match="no work"):
        await work.result()
    work.begin(after(1, "other"))
    assert await work.result() == "other"


async def test_there_is_one_piece_of_work_at_a_time() -> None:
    work = Detached(Tasks())
    work.begin(after(1, "first"))
    with pytest.raises(RuntimeError, match="under way"):
        work.begin(after(1, "second"))

    assert await work.result() == "first"


async def test_work_that_is_dropped_is_cancelled_and_waited_for() -> None:
    work, steps = Detached(Tasks()), list[str]()
    work.begin(after(2, "work", steps))
    await asyncio.sleep(1)
    await work.drop(5)

    assert steps == ["work was cut off", "work has cleaned up"]
    assert not work.is_under_way
    await work.drop(5)  # there is nothing left to drop


async def test_work_that_does_not_clean_up_in_time_is_left_alone() -> None:
    loop = asyncio.get_running_loop()
    work, steps = Detached(Tasks()), list[str]()
    work.begin(after(100, "work", steps))
    await asyncio.sleep(1)
    began = loop.time()
    await work.drop(5)

    assert loop.time() - began == pytest.approx(5, abs=0.1)
    assert steps == ["work was cut off"]


async def test_another_thread_may_ask_the_work_to_end() -> None:
    work = Detached(Tasks())
    work.begin(after(1000, "work"))
    await asyncio.sleep(0)
    thread = threading.Thread(target=work.cancel)
    thread.start()
    thread.join()
    with pytest.raises(asyncio.CancelledError):
        await work.result()


async def test_an_error_that_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    work = Detached(Tasks())
    work.begin(failing(1))
    await asyncio.sleep(2)
    with caplog.at_level(logging.WARNING):
        work.cancel()

    assert "nobody waits for it" in caplog.text
    assert "ValueError: no" in caplog.text


async def test_work_ends_with_the_tasks_it_is_among() -> None:
    tasks, steps = Tasks(), list[str]()
    tasks.open(asyncio.get_running_loop())
    work = Detached(tasks)
    work.begin(after(10, "work", steps))
    await asyncio.sleep(1)
    tasks.close()
    await tasks.wait_closed()

    assert steps == ["work was cut off", "work has cleaned up"]
    del work
    gc.collect()
    assert len(tasks) == 0
