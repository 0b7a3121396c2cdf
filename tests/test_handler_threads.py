"""Threads of sync handlers: how many there are, what becomes of those that are stuck, and what ends in them."""

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio.from_thread
import pytest

from agentruns import Action, AgentRunsError, ToolError, ToolOutput, Tools
from agentruns._handlers import threads
from agentruns._handlers.threads import Threads

LONGEST = 30.0


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let there be two threads, and little patience."""
    monkeypatch.setattr(threads, "MOST", 2)
    monkeypatch.setattr(threads, "GRACE_SECONDS", 0.05)
    threads._pools.clear()
    yield
    threads._pools.clear()


def called(function: Callable[..., Any], **options: Any) -> Any:
    tools = Tools()
    tools.add(function, name="it", **options)
    tool = tools.find(["it"])
    assert tool is not None
    return tool(Action("1", "it"))


# Faults 20 and 30: threads that are stuck -----------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_threads_that_were_left_behind_count_until_they_end(few: None, caplog: pytest.LogCaptureFixture) -> None:
    free = threading.Event()
    running = 0

    def hang() -> int:
        nonlocal running
        running += 1
        assert free.wait(LONGEST)
        return 1

    outputs = [await called(hang, timeout=0.01) for _ in range(10)]

    assert running == 2
    assert [each.output for each in outputs[2:]] == [
        "the tool could not be run: no thread is free, as earlier calls have not ended"
    ] * 8
    assert all(each.is_error for each in outputs)
    assert "a handler waits for a thread: all 2 are busy, 2 of them with calls that have timed out" in caplog.text

    free.set()
    async with asyncio.timeout(LONGEST):  # as long as a busy machine takes to end a thread
        while (await called(lambda: "served again")).output != "served again":  # noqa: ASYNC110 - threads tell nobody
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_a_thread_that_comes_back_in_time_goes_to_the_handler_that_waits(few: None) -> None:
    free = threading.Event()
    for _ in range(2):
        await called(lambda: free.wait(LONGEST), timeout=0.01)
    waiting = asyncio.create_task(called(lambda: "served"))
    await asyncio.sleep(0)
    free.set()

    assert (await waiting).output == "served"


@pytest.mark.asyncio
async def test_a_handler_waits_for_threads_that_are_busy_and_the_log_says_so(
    few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, told = threading.Event(), asyncio.Event()
    lines: list[str] = []

    def warning(text: str, *given: object) -> None:
        lines.append(text % given)
        told.set()

    monkeypatch.setattr(threads.logger, "warning", warning)
    busy = [asyncio.create_task(called(lambda: free.wait(LONGEST))) for _ in range(2)]
    waiting = asyncio.create_task(called(lambda: "served"))
    await told.wait()
    assert lines[0].startswith("a handler waits for a thread: all 2 are busy, 0 of them")
    assert not waiting.done()
    free.set()

    assert (await waiting).output == "served"
    assert [(await each).output for each in busy] == [True, True]


@pytest.mark.asyncio
async def test_a_wait_for_a_thread_that_is_cancelled_takes_none(few: None) -> None:
    free = threading.Event()
    busy = [asyncio.create_task(called(lambda: free.wait(LONGEST))) for _ in range(2)]
    waiting = [asyncio.create_task(called(lambda: "served")) for _ in range(5)]
    await asyncio.sleep(0)
    free.set()
    for each in waiting[:4]:
        each.cancel()

    assert (await waiting[4]).output == "served"
    await asyncio.gather(*busy)
    assert [(await called(lambda: 1)).output for _ in range(3)] == [1, 1, 1]
    assert (threads._pools[0]._busy, threads._pools[0]._left) == (0, 0)


@pytest.mark.asyncio
async def test_a_thread_that_is_granted_to_a_cancelled_wait_goes_on_to_the_next() -> None:
    pool = Threads(1, 5)
    slot = await pool.acquire()
    first, second = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    slot.give_back()
    first.cancel()

    (await asyncio.wait_for(second, LONGEST)).give_back()
    assert first.cancelled()
    assert pool._busy == 0


def test_a_waiter_whose_loop_is_gone_keeps_no_thread() -> None:
    pool = Threads(1, 5)

    async def take() -> threads.Slot:
        return await pool.acquire()

    slot = asyncio.run(take())
    loop = asyncio.new_event_loop()
    task = loop.create_task(pool.acquire())
    loop.run_until_complete(asyncio.sleep(0, task))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    slot.give_back()

    assert pool._busy == 0


@pytest.mark.asyncio
async def test_a_system_without_threads_is_an_error_for_the_model(
    few: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        outputs = [await called(lambda: 1) for _ in range(3)]

    assert [(each.output, each.is_error) for each in outputs] == [
        ("the tool could not be run: no thread is free", True)
    ] * 3
    assert "the system gives no thread for a handler: can't start new thread" in caplog.text
    assert (await called(lambda: 1)).output == 1


STUCK = """
import asyncio, time
from agentruns import Action, Tools
tools = Tools()
@tools.add
def stuck() -> int:
    time.sleep(600)
async def main():
    async with asyncio.timeout(0.2):
        await tools.find(["stuck"])(Action("1", "stuck"))
try:
    asyncio.run(main())
except TimeoutError:
    print("over")
"""


def test_a_handler_that_is_stuck_keeps_neither_the_loop_nor_the_process() -> None:
    ended = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=LONGEST, check=True)

    assert (ended.stdout, ended.stderr) == ("over\n", "")


@pytest.mark.asyncio
async def test_a_function_that_has_ended_before_its_timeout_was_noticed_has_answered() -> None:
    def brisk() -> str:
        asked.set()
        return "done"

    asked = threading.Event()
    task = asyncio.create_task(called(brisk, timeout=0.05))
    await asyncio.sleep(0)
    assert asked.wait(LONGEST)
    time.sleep(0.2)  # noqa: ASYNC251 - the loop is busy elsewhere

    assert (await task).output == "done"


# Fault 28: handlers within handlers -----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_handlers_that_wait_for_handlers_of_their_own_do_not_use_up_their_threads(few: None) -> None:
    meeting = threading.Barrier(2, timeout=LONGEST)

    def branch() -> int:
        meeting.wait()
        output: ToolOutput = anyio.from_thread.run(lambda: called(lambda: 1))
        return int(output.output)

    outputs = await asyncio.gather(called(branch), called(branch))

    assert [each.output for each in outputs] == [1, 1]


@pytest.mark.asyncio
async def test_a_handler_may_run_a_loop_of_its_own() -> None:
    async def inner() -> str:
        return "from another loop"

    assert (await called(lambda: asyncio.run(inner()))).output == "from another loop"
    assert (await called(lambda: anyio.run(inner))).output == "from another loop"


@pytest.mark.asyncio
async def test_a_handler_that_was_left_behind_can_ask_whether_it_was() -> None:
    noticed, running, left = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        running.set()
        assert left.wait(LONGEST)
        try:
            anyio.from_thread.check_cancelled()
        except asyncio.CancelledError:
            noticed.set()

    await called(slow, timeout=0.02)
    left.set()
    assert await asyncio.to_thread(noticed.wait, LONGEST)


# Fault 03: what ends a process ----------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt(), StopIteration(1), GeneratorExit()])
async def test_what_would_end_the_process_in_a_thread_is_an_error_of_that_handler(error: BaseException) -> None:
    def leave() -> None:
        raise error

    with pytest.raises(RuntimeError, match="the handler raised ") as caught:
        await called(leave)
    assert caught.value.__cause__ is error


@pytest.mark.asyncio
async def test_an_async_handler_that_exits_fails_alone() -> None:
    async def leave() -> None:
        sys.exit(2)

    with pytest.raises(RuntimeError, match=r"the handler raised SystemExit\(2\)"):
        await called(leave)


@pytest.mark.asyncio
async def test_a_thread_that_cancels_itself_leaves_the_loop_alone() -> None:
    def odd() -> None:
        raise asyncio.CancelledError

    tools = Tools()
    tools.add(odd)
    tool = tools.find(["odd"])
    assert tool is not None
    from agentruns.tools import answer

    with pytest.raises(AgentRunsError, match="the handler of 'odd' was cancelled from within"):
        await answer([(Action("1", "odd"), tool)], {})


@pytest.mark.asyncio
async def test_errors_of_many_threads_reach_their_own_callers() -> None:
    def fail(number: int) -> Callable[[], None]:
        def handler() -> None:
            raise ToolError(str(number))

        return handler

    outputs = await asyncio.gather(*(called(fail(number)) for number in range(100)))

    assert [each.output for each in outputs] == [str(number) for number in range(100)]


def test_the_log_is_the_packages() -> None:
    assert threads.logger is logging.getLogger("agentruns")
