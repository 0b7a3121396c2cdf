"""The ways in which work is cut off: as a task, by a timeout, by a group or a scope, of asyncio and of anyio."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio

from tests.crash.loop_steps import HANGS, Stepper


class BrokenError(Exception):
    """What another task of the group raises."""


Cut = Callable[[], object]
Frame = Callable[[Coroutine[Any, Any, None], Callable[[Cut], None]], Awaitable[None]]
"""Does work, tells how to cut it off, and raises nothing if it was."""


async def by_task(work: Coroutine[Any, Any, None], cut: Callable[[Cut], None]) -> None:
    task = asyncio.ensure_future(work)
    cut(task.cancel)
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
    if not task.cancelled():
        task.result()


async def by_timeout(work: Coroutine[Any, Any, None], cut: Callable[[Cut], None]) -> None:
    async def within() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as guard:

                def expire() -> None:
                    with suppress(RuntimeError):  # it is over
                        guard.reschedule(0.0)

                cut(expire)
                await work
        assert task.cancelling() == 0

    task = asyncio.ensure_future(within())
    await task


async def by_group(work: Coroutine[Any, Any, None], cut: Callable[[Cut], None]) -> None:
    broken = asyncio.Event()

    async def breaks() -> None:
        await broken.wait()
        raise BrokenError

    async def within() -> None:
        async with asyncio.TaskGroup() as group:
            breaking = group.create_task(breaks())
            cut(broken.set)
            await work
            breaking.cancel()

    with suppress(BaseExceptionGroup):
        await asyncio.ensure_future(within())


async def by_scope(work: Coroutine[Any, Any, None], cut: Callable[[Cut], None]) -> None:
    async def within() -> None:
        with anyio.CancelScope() as scope:
            cut(scope.cancel)
            await work
        assert task.cancelling() == 0

    task = asyncio.ensure_future(within())
    await task


async def by_anyio_group(work: Coroutine[Any, Any, None], cut: Callable[[Cut], None]) -> None:
    async def within() -> None:
        async with anyio.create_task_group() as group:
            cut(group.cancel_scope.cancel)

            async def child() -> None:
                await work

            group.start_soon(child)

    await asyncio.ensure_future(within())


FRAMES: dict[str, Frame] = {
    "task": by_task,
    "timeout": by_timeout,
    "group": by_group,
    "scope": by_scope,
    "anyio group": by_anyio_group,
}


async def cut_at(stepper: Stepper, frame: Frame, work: Coroutine[Any, Any, None], *steps: int) -> bool:
    """Do work, and cut it off at each of *steps*; return whether it came to all of them."""
    guard = asyncio.timeout(HANGS)
    try:
        async with guard:
            await frame(work, lambda cut: stepper.arm(dict.fromkeys(steps, cut)))
    except TimeoutError:
        if not guard.expired():
            raise
        raise AssertionError(f"hangs at step {stepper.steps}") from None
    return stepper.reached()
