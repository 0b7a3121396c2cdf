"""What a batch brings, over emulated vendors in virtual time: whatever its limit, and on one slot."""

import asyncio
from typing import Any

import pytest

from agentruns import Client, RateLimit, Retry
from agentruns.dialects import origami
from agentruns.emulator import Emulator, Turn
from benchmarks.goodput import LEAST, VENDORS, brought, least_part
from benchmarks.virtual import VirtualLoop
from tests.hostile.hostile_servers import TOKEN
from tests.vendor_in_memory import VendorInMemory


@pytest.mark.parametrize("budget", [RateLimit(5, 1.0), RateLimit(90, 60.0)], ids=["5 a second", "90 a minute"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_no_limit_brings_less_than_the_best_one_by_more_than_a_fifth(vendor: str, budget: RateLimit) -> None:
    """However many requests a row takes, and however long the window is; and few rows are begun in vain."""
    found = [brought(vendor, budget, timeout=30.0, limit=limit, seconds=90.0) for limit in (8, 256)]
    assert least_part(found) >= LEAST
    assert found[-1].lost <= 0.2 * found[-1].done


def test_one_slot_is_hardly_ever_empty() -> None:
    """40 rows of Origami, whose runs take 20 s, on one slot; polls are asked to be 15 s apart."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        found = runner.run(on_one_slot(40, 20.0))
        assert found == [None] * 40
        assert runner.run(seconds()) <= 1.15 * 40 * 20.0


async def seconds() -> float:
    return asyncio.get_running_loop().time()


async def on_one_slot(count: int, running: float) -> list[Exception | None]:
    """Return the error of each row, None for those that were done."""
    clock = asyncio.get_running_loop().time
    emulator: Emulator[Any] = Emulator(
        "origami", script=lambda _: Turn("Done.", running=running), token=TOKEN, clock=clock, slots=1
    )
    rows = [origami.Prompt(f"Hello {number}.") for number in range(count)]
    client = Client(origami, VendorInMemory(emulator.state), retry=Retry(), limit=RateLimit(90, 60.0))
    async with client, client.batch(rows, limit=64) as outcomes:
        return [outcome.error async for outcome in outcomes]
