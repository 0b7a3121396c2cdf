"""
Ask a server for what its first argument names as the address, and tell what each answer cost.

Run as a process of its own, since only that has a peak of memory to measure. Each further argument names one answer;
for each, a line of JSON tells what a read and a start ended in, the seconds of work, and the megabytes at the peak.
"""

import asyncio
import gc
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from agentruns import AgentRunsError, Backoff, Retry, RunRef, connect, middesk, narrative

STATUS = Path("/proc/self/status")
NOBODY = "3c90c3cc-0d44-4b50-8888-8dd25736052a"
TIMEOUT = 0.5
HANGS = 15.0


def megabytes(name: str) -> float:
    found = re.search(rf"(?m)^{name}:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) / 1024


async def end_of(asked: Any) -> str:
    try:
        async with asyncio.timeout(HANGS):
            return f"Run of {len((await asked).raw)} fields"
    except AgentRunsError as error:
        return f"{type(error).__name__}: {error}"[:300]
    except TimeoutError:
        return "nothing"


async def ask(url: str, name: str) -> list[str]:
    options: dict[str, Any] = {"token": "a-token-of-the-child", "timeout": TIMEOUT, "retry": Retry(attempts=1)}
    if name.startswith("events"):
        async with connect(middesk, base_url=f"{url}/{name}", schedule=Backoff(initial=9.0), **options) as client:
            return [await end_of(client.result(RunRef(NOBODY), events=True, timeout=2 * TIMEOUT))]
    async with connect(narrative, base_url=f"{url}/{name}", **options) as client:
        read = end_of(client.fetch(RunRef(NOBODY)))
        start = end_of(client.start(narrative.UserMessage(NOBODY, "Do it.", expected_version=0)))
        if not name.startswith("leftovers"):
            return list(await asyncio.gather(read, start))
        ends = [await read]
        before = megabytes("VmRSS")
        for _ in range(20):  # a second, unless it is clear by then
            if megabytes("VmRSS") < before + 64:
                await asyncio.sleep(0.05)
        return [*ends, await start]


def main() -> None:
    url, *names = sys.argv[1:]
    asyncio.run(ask(url, "warm-up"))
    for name in names:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, began = megabytes("VmRSS"), time.process_time()
        ends = asyncio.run(ask(url, name))
        took, peak = time.process_time() - began, megabytes("VmHWM") - before
        sys.stdout.write(json.dumps({"name": name, "ends": ends, "seconds": took, "megabytes": peak}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
