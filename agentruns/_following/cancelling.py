"""Cancelling the remote run of a stream."""

from __future__ import annotations

import asyncio
from typing import Final

from agentruns._api.operations import Operations

from .waiter import Waiter

CONFIRM_GAP: Final = 0.5
"""Seconds between two looks whether a cancelled run is over."""


async def cancel_run(operations: Operations, seen: Waiter, *, confirm: bool) -> None:
    """Cancel the run of a stream, if it is in flight, and enter what is *seen* of it; *confirm* waits for its end."""
    run = seen.run
    if run is None or not run.status.in_flight:
        return
    seen.run = run = await operations.cancel(run.ref) or run
    while confirm and run.status.in_flight:
        await asyncio.sleep(max(CONFIRM_GAP, run.poll_after or 0.0))
        seen.run = run = await operations.fetch(run.ref)
