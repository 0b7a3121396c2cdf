"""What a batch brings, over emulated vendors in virtual time: whatever its limit, and on one slot."""

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from agentruns import Client, RateLimit, Retry, RunRef
from agentruns._api.limiter import rate_limit
from agentruns.cli import commands
from agentruns.cli.batch import entry
from agentruns.dialects import middesk, narrative, origami
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Emulator, Turn
from benchmarks.goodput import LEAST, VENDORS, brought, conversations, least_part
from benchmarks.virtual import VirtualLoop
from tests.command_lines import CONFIG
from tests.hostile.hostile_servers import TOKEN
from tests.vendor_in_memory import VendorInMemory


@pytest.mark.parametrize("budget", [RateLimit(5, 1.0), RateLimit(90, 60.0)], ids=["5 a second", "90 a minute"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_no_limit_brings_less_than_the_best_one_by_more_than_a_fifth(vendor: str, budget: RateLimit) -> None:
    """However many requests a row takes, and however long the window is; and few rows are begun in vain."""
    found = [brought(vendor, budget, timeout=30.0, limit=limit, seconds=90.0) for limit in (8, 256)]
    assert least_part(found) >= LEAST
    assert found[-1].lost <= 0.2 * found[-1].done


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_start_takes_as_many_requests_as_the_vendor_says(vendor: str) -> None:
    """Those of a row, its new conversation included; the first of many may take one more."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(requests_of_a_start(vendor)) == Vendor.of(VENDORS[vendor].dialect).START_REQUESTS


async def requests_of_a_start(vendor: str) -> int:
    contest = VENDORS[vendor]
    clock = asyncio.get_running_loop().time
    emulator: Emulator[Any] = Emulator(
        vendor, script=lambda _: Turn("Done.", running=5.0), token=TOKEN, clock=clock, **contest.options
    )
    wire = VendorInMemory(emulator.state)
    async with Client(contest.dialect, wire, retry=Retry()) as client:
        origins = [contest.origin(emulator.state, number) for number in range(5)]
        if vendor == "narrative":
            origins = [await conversations(client)(number) for number in range(5)]
        await asyncio.gather(*map(client.start, origins))
    return len(wire.requests) // 5


@pytest.mark.parametrize(("running", "least"), [(0.1, 0.9), (5.0, 0.75)])
def test_a_batch_of_conduit_has_as_many_rows_a_minute_as_three_requests_a_row_allow(
    running: float, least: float
) -> None:
    """The rest is for polls that find a run at work, and for what is in flight in the end."""
    found = brought("conduit", RateLimit(108, 60.0), timeout=60.0, limit=64, seconds=150.0, typical=running)
    assert found.lost == 0
    assert found.done >= least * 108 / 60.0 * 150.0 / 3


def test_the_command_brings_what_a_small_budget_allows_however_large_its_limit_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """500 rows of Narrative, each with a conversation of its own, 5 requests a second: three a row are 231 in 139 s."""
    monkeypatch.chdir(tmp_path)
    Path("conversation.json").write_text(json.dumps(CONFIG))
    Path("in.jsonl").write_text("".join(json.dumps({"question": f"number {n}"}) + "\n" for n in range(500)))
    words = ["batch", "narrative", "in.jsonl", "-o", "out.jsonl", "--text", "{question}", "--no-journal", "--quiet"]
    words += ["--conversation", "conversation.json", "--budget", "5", "--limit", "256", "--timeout", "30"]

    def connected(*_: Any, budget: float, **__: Any) -> Client[Any, Any]:
        emulator: Emulator[Any] = Emulator(
            "narrative", script=lambda _: Turn("Done."), token=TOKEN, clock=asyncio.get_running_loop().time
        )
        return Client(narrative, VendorInMemory(emulator.state), retry=Retry(), limit=rate_limit(budget))

    def run(command: Coroutine[Any, Any, int]) -> int:
        async def for_a_time() -> int:
            try:
                return await asyncio.wait_for(command, 139.0)
            except TimeoutError:
                return 4

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(for_a_time())

    monkeypatch.setattr(entry, "connect", connected)
    monkeypatch.setattr(asyncio, "run", run)
    assert commands.main(words) == 4
    statuses = [json.loads(line)["status"] for line in Path("out.jsonl").read_text().splitlines()]
    assert set(statuses) == {"completed"}
    assert len(statuses) >= 220


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


@pytest.mark.parametrize(("count", "most"), [(40, 1.4), (200, 1.2)])
def test_a_short_run_on_one_slot_is_looked_at_too_early_no_second_time(count: int, most: float) -> None:
    """Of runs of 2 s, the first is seen after the 15 s that the vendor wants between looks, the next just in time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(on_one_slot(count, 2.0)) == [None] * count
        assert runner.run(seconds()) <= most * count * 2.0


def test_older_runs_under_many_newer_ones_are_found_by_few_requests() -> None:
    """64 runs of Middesk, whose list shows the newest first, beneath 5,000 that others have started."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        first_news, requests = runner.run(under_newer_runs(64, 5000))
    assert first_news <= 10.0
    assert requests <= 120


async def under_newer_runs(count: int, newer: int) -> tuple[float, int]:
    """Return after how many seconds the first run was seen to be over, and how many requests it took to see all."""
    loop, running = asyncio.get_running_loop(), 60.0
    emulator: Emulator[Any] = Emulator(
        "middesk", script=lambda _: Turn("Done.", running=running), token=TOKEN, clock=loop.time, rate_limit=None
    )
    ours, theirs = VendorInMemory(emulator.state), VendorInMemory(emulator.state)
    origin = middesk.RunRequest("cip_orchestrator", business_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11")
    async with Client(middesk, theirs, retry=Retry()) as others, Client(middesk, ours, retry=Retry()) as client:
        refs = [(await others.start(origin)).ref for _ in range(count)]
        running = 0.1
        await others.start(origin)
        for _ in range(newer):
            theirs.again(theirs.requests[-1])
        await asyncio.sleep(60.0)
        began, seen = loop.time(), list[float]()

        async def follow(ref: RunRef) -> None:
            await client.result(ref)
            seen.append(loop.time() - began)

        await asyncio.gather(*map(follow, refs))
    return min(seen), len(ours.requests)
