"""Finish what was begun, whatever happens to the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


def prepare_shield() -> None:
    """Have what `run_shielded` needs imported: the first scope imports it, and files may have run out by then."""
    anyio.CancelScope(shield=True)


async def run_shielded(work: Coroutine[Any, Any, T]) -> T:
    """Await *work* to its end, whatever happens to the caller; a cancellation is raised when it is over."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    # asyncio cancels once, and is put off by that; a scope of anyio's cancels at every step, unless it is shut out.
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen, so that nobody complains
        raise cancelled
    return task.result()
