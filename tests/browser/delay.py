"""
How long a state takes into the page of a browser: `python -m tests.browser.delay [RUNS]`.

From the answer to the poll that brought it, where the console follows the run; and from the write to the journal, where
it has no token. Both ends read the clock of this machine: this process when the answer is read, or the write is done,
the browser when the piece of the page is there.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from playwright.async_api import async_playwright

from agentruns._api import transport
from agentruns._keeping.journal import Journal
from agentruns.cli.console import emulated, over_journal, served
from tests.browser.conftest import ARGUMENTS, chromium
from tests.console.plain_browser import ORIGIN, state

OBSERVE = """() => {
  window.seen = {};
  const note = () => {
    for (const each of document.querySelectorAll('#timeline > li')) {
      window.seen[each.dataset.kind] ??= performance.timeOrigin + performance.now();
    }
    window.seen.last = performance.timeOrigin + performance.now();
  };
  for (const each of document.querySelectorAll('#timeline > li')) window.seen[each.dataset.kind] = 0;
  new MutationObserver(note).observe(document.getElementById('timeline'), { childList: true });
}"""


@frozen
class Delays:
    """Seconds, of each state in each tab."""

    seconds: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def largest(self) -> float:
        return max(self.seconds)

    def __str__(self) -> str:
        ordered = sorted(self.seconds)
        tail = ordered[int(len(ordered) * 0.95)]
        parts = [("median", self.median), ("95 %", tail), ("largest", self.largest)]
        return f"{len(ordered)} states: " + ", ".join(f"{name} {each * 1000:.1f} ms" for name, each in parts)


async def measure(runs: int, *, tabs: int = 1, pace: float = 0.4) -> Delays:
    """Watch so many runs, one after the other, each in so many tabs."""
    answered: dict[tuple[str, str], float] = {}
    real = transport.AiohttpTransport.__call__

    async def noted(self: transport.AiohttpTransport, request: Any) -> Any:
        response = await real(self, request)
        if request.method == "GET" and "/runs/" in request.path and response.status == 200:
            body = json.loads(response.body)
            answered.setdefault((body["id"], body["status"]), time.time())
        return response

    transport.AiohttpTransport.__call__ = noted  # type: ignore[method-assign]
    try:
        async with (
            emulated("narrative", pace=pace) as source,
            served(source) as address,
            async_playwright() as playwright,
        ):
            browser = await playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
            context = await browser.new_context()
            pages = [await context.new_page() for _ in range(tabs)]
            for page in pages:
                await page.goto(address)
            base = address.partition("/?")[0]
            assert source.jobs.start is not None
            found: list[float] = []
            for _ in range(runs):
                entry = await source.book.named(await source.jobs.start("quick"))
                await asyncio.gather(*(page.goto(f"{base}/work/{entry}") for page in pages))
                for page in pages:
                    await page.locator("#connection[data-state=live]").wait_for()
                    await page.evaluate(OBSERVE)
                ready = time.time()  # what was answered before had to wait for the page
                for page in pages:
                    await page.locator("#summary [data-status=completed]").wait_for()
                    seen = await page.evaluate("window.seen")
                    last = await source.book.entry(str(entry))
                    assert last is not None
                    found += [
                        when - answered[last.run_id, kind]
                        for kind, when in (
                            (kind, when / 1000) for kind, when in seen.items() if when and kind != "last"
                        )
                        if answered.get((last.run_id, kind), 0.0) > ready
                    ]
            await browser.close()
    finally:
        transport.AiohttpTransport.__call__ = real  # type: ignore[method-assign]
    return Delays(found)


async def measure_journal(states: int) -> Delays:
    """Watch a piece of work that another owner of the journal writes so many states of."""
    found: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        async with (
            Journal(path, "narrative") as journal,
            async_playwright() as playwright,
        ):
            await journal.begin("job", ORIGIN)
            async with over_journal(path, lambda vendors: {}) as source, served(source) as address:
                browser = await playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
                page = await browser.new_page()
                await page.goto(address.replace("/?", "/work/w1?"))
                await page.locator("#connection[data-state=live]").wait_for()
                await page.evaluate(OBSERVE)
                for number in range(states):
                    await page.evaluate("window.seen = {}")
                    await journal.saw("job", state("running", id=f"run-{number}").to_json())
                    written = time.time()
                    await page.locator(f"#summary >> text=run-{number}").wait_for()
                    found.append((await page.evaluate("window.seen.last")) / 1000 - written)
                    await asyncio.sleep(0.1 + 0.037 * (number % 7))  # at no fixed place between two looks
                await browser.close()
    return Delays(found)


async def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for tabs in (1, 2):
        print(f"{tabs} tab{'s' * (tabs > 1)}: {await measure(runs, tabs=tabs)}")  # noqa: T201
    print(f"by the journal alone: {await measure_journal(2 * runs)}")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
