"""
Ten thousand items through one process: `client.batch` beside loops that are written by hand.

    python -m benchmarks.batch [--quick] [--json PATH]    (extra `journal`)

`semaphore` is a task per item under a semaphore, over aiohttp and msgspec, with no error handled. `paced` is the loop
that cookbooks show: one task hands out items as a budget of requests refills, retries what failed from a queue, and
keeps count. All poll as often as each other. An item costs a start and polls until its run is over. Runs `at once` are
over with their start: nobody waits, and what is left is the CPU that an item costs. Each measurement has an interpreter
of its own, in turn; ratios are taken within a round, and their median is what counts. Where valgrind is there, the
instructions of an item are counted beside seconds.

The memory of a batch is looked at with few and with many items. A batch with a journal is killed half-way and gone on
with; the emulator says how many runs were started. What the journal costs is the CPU of items with it and without.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from .contestants import TOKEN, plain_session, start_of
from .process import MIB, Spent, apart, can_count, counted, peak, pin
from .report import Goal, arguments, at_least, at_most, finish, needs
from .stub import Stub

INTERVAL: Final = 0.25
LIMIT: Final = 256
SECONDS: Final = 1.0
WARM: Final = 64
ATTEMPTS: Final = 4


def names(count: int, seconds: float) -> Iterator[str]:
    """Yield the conversations of *count* items, made as they are asked for."""
    return (f"same-{seconds:g}-{number:022}" for number in range(count))


# Contestants: each runs the items and returns how many were seen to complete ------------------------------------------


async def ours(base_url: str, items: Iterator[str], journal: str | None = None) -> int:
    from agentruns import Backoff, connect, narrative

    schedule = Backoff(initial=INTERVAL, factor=1.0, jitter=0.0)
    async with connect(narrative, token=TOKEN, base_url=base_url, schedule=schedule, journal=journal) as client:
        origins = (narrative.UserMessage(name, "Go.", expected_version=0) for name in items)
        done = 0
        async with client.batch(origins, limit=LIMIT, key=lambda origin: str(origin.conversation_id)) as outcomes:
            async for outcome in outcomes:
                done += outcome.error is None
        return done


async def follow(session: aiohttp.ClientSession, base_url: str, name: str) -> bool:
    """Start a run and poll it to its end, as one writes it by hand."""
    async with session.post(f"{base_url}/agents/conversations/{name}/runs", json=start_of(name)) as response:
        run = msgspec.json.decode(await response.read())
    while run["status"] in {"pending", "running"}:
        await asyncio.sleep(INTERVAL)
        async with session.get(f"{base_url}/agents/runs/{run['id']}") as response:
            run = msgspec.json.decode(await response.read())
    return bool(run["status"] == "completed")


async def semaphore(base_url: str, items: Iterator[str]) -> int:
    gate = asyncio.Semaphore(LIMIT)
    async with plain_session() as session:

        async def one(name: str) -> bool:
            async with gate:
                return await follow(session, base_url, name)

        return sum(await asyncio.gather(*map(one, items)))


async def paced(base_url: str, items: Iterator[str]) -> int:
    """Hand out items as the budget refills; it is so large here that it holds back nothing but LIMIT at a time."""
    again: deque[tuple[str, int]] = deque()
    tasks: set[asyncio.Task[None]] = set()
    done = 0
    capacity, refill, looked = float(LIMIT), 10.0 * LIMIT, time.monotonic()
    async with plain_session() as session:

        async def one(name: str, attempts: int) -> None:
            nonlocal done
            try:
                completed = await follow(session, base_url, name)
                done += completed
            except aiohttp.ClientError:
                if attempts > 1:
                    again.append((name, attempts - 1))

        while True:
            now = time.monotonic()
            capacity, looked = min(capacity + (now - looked) * refill, float(LIMIT)), now
            while capacity >= 1 and len(tasks) < LIMIT:
                following = again.popleft() if again else (next(items, ""), ATTEMPTS)
                if not following[0]:
                    break
                capacity -= 1
                task = asyncio.create_task(one(*following))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            if not tasks and not again and capacity >= 1:
                return done
            await asyncio.sleep(0.001)


CONTESTANTS: Final[Mapping[str, Callable[..., Awaitable[int]]]] = {
    "ours": ours,
    "semaphore": semaphore,
    "paced": paced,
}


def measure(name: str, base_url: str, count: int, seconds: float, journal: str = "") -> dict[str, Any]:
    """Run *count* items; return CPU and wall time, memory, and how many were seen to complete."""
    pin("client")
    return asyncio.run(_measure(name, base_url, count, seconds, {"journal": journal} if journal else {}))


async def _measure(name: str, base_url: str, count: int, seconds: float, options: dict[str, str]) -> dict[str, Any]:
    run = CONTESTANTS[name]
    # What is made on first use is set-up: so are the modules of a journal.
    warm = {name: f"{path}.warm" for name, path in options.items()}
    await run(base_url, (f"same-0-warm-{number}" for number in range(WARM)), **warm)
    with Spent() as spent:
        done = await run(base_url, names(count, seconds), **options)
    return {"cpu": spent.cpu, "wall": spent.wall, "peak": peak(), "done": done}


# Measurements ---------------------------------------------------------------------------------------------------------


def speed(count: int, rounds: int, few: int) -> Iterator[Goal]:
    """Compare items per second, and what an item costs; the instructions are those of *few* items."""
    title = f"{count} items, {LIMIT} at once"
    print(f"{title:<38}{'items/s':>10}{'CPU us each':>14}{'MiB':>8}")
    for title, seconds in ((f"runs of {SECONDS:g} s", SECONDS), ("at once", 0.0)):
        seen: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTESTANTS}
        for number in range(rounds):
            order = list(CONTESTANTS)[number % 3 :] + list(CONTESTANTS)[: number % 3]
            for name in order:
                with Stub() as stub:
                    seen[name].append(apart(__spec__.name, "measure", name, stub.base_url, count, seconds))
        for name, each in seen.items():
            rate, cpu, most = (statistics.median(one[what] for one in each) for what in ("wall", "cpu", "peak"))
            print(f"{title:<20}{name:<18}{count / rate:>10.0f}{1e6 * cpu / count:>14.0f}{most / MIB:>8.0f}")
            assert all(one["done"] == count for one in each), f"{name} lost items"
        if seconds:
            for name in ("semaphore", "paced"):
                pairs = zip(seen[name], seen["ours"], strict=True)
                ratio = statistics.median(other["wall"] / mine["wall"] for other, mine in pairs)
                yield at_least(f"items/s, batch / {name} loop", ratio, 0.8)
        else:
            pairs = zip(seen["semaphore"], seen["ours"], strict=True)
            ratio = statistics.median(other["cpu"] / mine["cpu"] for other, mine in pairs)
            yield at_least("items a CPU second where nobody waits, batch / semaphore loop", ratio, 0.8)
    if can_count():
        spent = {name: instructions(name, few) for name in ("ours", "semaphore")}
        print(f"{'at once':<38}" + ", ".join(f"{name} {each / 1e3:.0f} K instructions" for name, each in spent.items()))
        ratio = spent["semaphore"] / spent["ours"]
        yield at_least("items an instruction where nobody waits, batch / semaphore loop", ratio, 0.8)


def instructions(name: str, count: int) -> float:
    """Return the instructions of one item whose run is over with its start."""
    with Stub() as stub:
        return counted(__spec__.name, "measure", name, stub.base_url, count, 0.0)[1] / count


def memory(few: int, many: int) -> Iterator[Goal]:
    """Compare the memory of a short batch and of a long one."""
    most = {}
    for count in (few, many):
        with Stub() as stub:
            seen = apart(__spec__.name, "measure", "ours", stub.base_url, count, 0.0)
        assert seen["done"] == count
        most[count] = seen["peak"]
        print(f"{count} items: {seen['peak'] / MIB:.1f} MiB at most, {count / seen['wall']:.0f} items/s")
    yield at_most(f"memory, {many:,} items / {few:,} items", most[many] / most[few], 1.2)


def journal(count: int, rounds: int) -> Iterator[Goal]:
    """Compare the CPU and the time of items with a journal and without."""
    cpu, wall, size = [], [], 0
    for number in range(rounds):
        with Stub() as stub, tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "journal.db")
            order = ("", path) if number % 2 else (path, "")
            seen = {kept: apart(__spec__.name, "measure", "ours", stub.base_url, count, 0.0, kept) for kept in order}
            size = sum(each.stat().st_size for each in Path(folder).iterdir() if ".warm" not in each.name)
        cpu.append(1e3 * (seen[path]["cpu"] - seen[""]["cpu"]) / count)
        wall.append(1e3 * (seen[path]["wall"] - seen[""]["wall"]) / count)
    print(f"the journal costs {statistics.median(wall):.3f} ms of time and {size / count:.0f} bytes for each item")
    yield at_most("journal, ms of CPU for each item", statistics.median(cpu), 1.0)


def killed(count: int) -> Iterator[Goal]:
    """Kill a batch half-way, go on with it, and compare what the vendor started with the items."""
    from agentruns.emulator import Emulator, Turn

    with tempfile.TemporaryDirectory() as folder, Emulator("narrative", script=lambda _: Turn("Done.")) as emulator:
        words = [emulator.base_url, emulator.token, str(Path(folder) / "journal.db"), str(count)]
        command = [sys.executable, "-m", __spec__.name, "--work", *words]
        first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        limit = time.monotonic() + 120
        while emulator.state.runs_started < count / 2 and first.poll() is None and time.monotonic() < limit:
            time.sleep(0.005)
        first.kill()
        first.communicate()
        at_kill = emulator.state.runs_started
        assert count / 2 <= at_kill < count, f"it was killed at {at_kill} of {count}, not half-way"
        shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        started = emulator.state.runs_started
    print(f"killed when {at_kill} of {count} were started; after the second call {started} were, {shown.strip()} done")
    yield Goal("runs started after a kill / items", started / count, 1.0, started == count, "==")
    yield Goal("items done after a kill / items", int(shown) / count, 1.0, int(shown) == count, "==")


async def work(base_url: str, token: str, path: str, count: int) -> int:
    """Run the batch that is killed: an item creates a conversation, and starts a run on it."""
    from agentruns import connect, narrative

    config = narrative.Config(
        model="m",
        data_plane_id="f79cbdae-4848-47ca-95e8-69588364d185",
        max_iterations=1,
        max_tokens=64,
        output_format_schema=narrative.TEXT_SCHEMA,
    )
    async with connect(narrative, token=token, base_url=base_url, journal=path) as client:

        async def prepare(item: int) -> narrative.UserMessage:
            conversation = await client.perform(narrative.create_conversation(config))
            return narrative.UserMessage(conversation.id, f"Item {item}.")

        done = 0
        async for outcome in client.batch(range(count), prepare=prepare, key=str, limit=32):
            done += outcome.error is None
        return done


def main() -> int:
    if sys.argv[1:2] == ["--work"]:
        _, _, base_url, token, path, count = sys.argv
        print(asyncio.run(work(base_url, token, path, int(count))))
        return 0
    args = arguments(__doc__)
    needs("journal", "filelock")
    goals = [
        *speed(*((512, 1, 256) if args.quick else (10_000, 3, 512))),
        *memory(*((500, 2_000) if args.quick else (1_000, 100_000))),
        *journal(*((500, 1) if args.quick else (5_000, 5))),
        *killed(120 if args.quick else 2_000),
    ]
    return finish(goals, args)


if __name__ == "__main__":
    sys.exit(main())
