"""
What becomes of runs whose starts, tabs and clicks go to any of several worker processes, while something goes wrong.

    python -m tests.web.play_workers [--runs 60] [--workers 1 4 8] [--stores sqlite postgresql] [--harm none kill ...]

`approvals`: each run is begun by one request, watched by a second and approved by a third, which clicks again until
that is taken; a tool then charges. `budget`: 120 runs of a vendor that takes 20 requests a second. A harm is done three
times, each when all workers are there: `kill` kills one, `restart` stops PostgreSQL as a crash does and starts it, and
`cut` cuts all workers off from it by a proxy for three seconds. `part` plays on two machines, this one and a network
namespace, with so many workers on each, and takes the second one's cable to PostgreSQL away for five seconds.
"""
# ruff: noqa: T201 - it is a command

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import aiohttp
from attrs import frozen

from agentruns.emulator import Call, Emulator, Turn
from agentruns.emulator.script import Prompt
from tests.postgres_server import Proxy, Server, server
from tests.web.two_machines import DATABASE, WORLD, SecondMachine, second_machine
from tests.web.workers import Machine, Workers, kept, sample

CHARGING = """
from agentruns import Tools

def charge(invoice: str) -> str:
    \"\"\"Charge an invoice.\"\"\"
    with open("charges", "a") as file:
        file.write(invoice + "\\n")
    return "charged"

def tools_of(inbox):
    tools = Tools()
    tools.add(charge)
    tools.default(inbox)
    return tools

"""

BUSY = """
import os
from contextlib import asynccontextmanager
from uuid import NAMESPACE_URL, uuid5
from fastapi import FastAPI, Request
from agentruns import connect, middesk
from agentruns.web import Service

async def keep(key, run):
    print("into your database:", key, run.to_json(), flush=True)

@asynccontextmanager
async def lifespan(app):
    async with Service(connect("middesk", journal="runs.db"), on_end=keep) as app.state.service:
        yield

app = FastAPI(lifespan=lifespan)

@app.post("/runs")
async def start(request: Request, text: str) -> str:
    origin = middesk.RunRequest("cip_orchestrator", business_id=str(uuid5(NAMESPACE_URL, text)))
    return (await request.app.state.service.start(origin, key=text)).slug
"""

HARMS = ("none", "kill", "restart", "cut", "part")
HARMS_EACH = 3
PATIENCE_SECONDS = 60.0
"""How long what is under way may take once nothing goes wrong any more."""


def agent(prompt: Prompt) -> Turn:
    """Ask for an approval, then charge, then work for a while."""
    if prompt.index < 2:
        return Turn(calls=[Call(("approve", "charge")[prompt.index], {"invoice": prompt.conversation_id})])
    return Turn("Done.", running=1.0)


@frozen
class Stage:
    """What a play has beside its workers, where it needs that: PostgreSQL, a proxy before it, and a second machine."""

    database: Server | None = None
    proxy: Proxy | None = None
    second: SecondMachine | None = None

    def journal(self, harm: str) -> str:
        """Return where the journal is, as seen from here."""
        if self.database is None:
            return "runs.db"
        port = self.proxy.port if self.proxy is not None and harm == "cut" else None
        return self.database.url(port=port, schema=f"s{uuid4().hex}", lease=3)


@contextmanager
def stage(store: str, harm: str) -> Iterator[Stage]:
    """Set up what a play needs."""
    with ExitStack() as stack:
        database = proxy = second = None
        if store == "postgresql":
            database = stack.enter_context(server(everywhere=harm == "part"))
            proxy = Proxy(database.port)
            stack.callback(proxy.close)
        if harm == "part":
            second = stack.enter_context(second_machine())
        yield Stage(database, proxy, second)


class Clicks:
    """What came of the clicks on one run: how many, what the first answer was, and whether one was taken."""

    def __init__(self) -> None:
        self.sent = 0
        self.is_taken = False
        self.first: int | None = None


async def approved(site: Workers, slug: str, action: str, clicks: Clicks) -> None:
    """Click until one is taken; a click that is lost, or comes before the action was asked for, is sent again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(3 * PATIENCE_SECONDS):
            while not clicks.is_taken:
                clicks.sent += 1
                with suppress(aiohttp.ClientError):
                    status = await site.clicked(slug, action)
                    clicks.first = status if clicks.first is None else clicks.first
                    clicks.is_taken = status == 200
                await asyncio.sleep(0.1)
                # One that was taken, and whose answer got lost, is refused when it is sent again; the page tells.
                clicks.is_taken |= action not in site.asked[slug]


async def begun(site: Workers, text: str) -> str:
    while True:
        with suppress(aiohttp.ClientError, AssertionError):
            return await site.began(text)
        await asyncio.sleep(0.2)


async def approvals(site: Workers, folder: Path, runs: int) -> Mapping[str, object]:
    """Play runs that wait for a click; return what came of them."""
    slugs = await asyncio.gather(*[begun(site, f"Handle invoice {number}.") for number in range(runs)])
    asked = [asyncio.get_running_loop().create_future() for _ in slugs]
    tabs = [asyncio.create_task(site.tab(*each)) for each in zip(slugs, asked, strict=True)]
    actions = await asyncio.gather(*asked)
    clicks = [Clicks() for _ in slugs]
    await asyncio.gather(*[approved(site, *each) for each in zip(slugs, actions, clicks, strict=True)])
    _, lost = await asyncio.wait(tabs, timeout=3 * PATIENCE_SECONDS)
    for tab in lost:
        tab.cancel()
    ended = await told(folder, runs)
    unclear = cut_off((folder / "log").read_text())
    charged = Counter((folder / "charges").read_text().split()) if (folder / "charges").exists() else Counter()
    made = Counter(each.conversation_id for each in site.emulator.state.runs.values())
    return {
        "first click taken": sum(each.first == 200 for each in clicks),
        "never answered": sum(not each.is_taken for each in clicks),
        "clicks": sum(each.sent for each in clicks),
        "tabs without end": len(lost),
        "runs too many": sum(max(count - 3, 0) for count in made.values()),
        "charged twice": sum(count > 1 for count in charged.values()),
        "never charged": runs - len(charged),
        "cut off in the middle": len(unclear),
        "ends told": len(ended),
        "told twice": sum(count > 1 for count in ended.values()),
    }


async def told(folder: Path, runs: int) -> Counter[str]:
    """Wait until all ends are told, or for long enough; return how often each was."""
    ends = time.monotonic() + 2 * PATIENCE_SECONDS
    while True:
        log = (folder / "log").read_text()
        found = kept(log)
        if len(found) + len(cut_off(log)) >= runs or time.monotonic() >= ends:
            return found
        await asyncio.sleep(0.2)  # a file has no event


def cut_off(log: str) -> set[str]:
    """Return the runs that wait for a decision, since a tool was running when its process died."""
    return set(re.findall(r"run (\S+) is followed no more: ToolOutcomeUnknownError", log))


async def budget(site: Workers, folder: Path, runs: int) -> Mapping[str, object]:
    """Play runs of a vendor with a rate limit; return what came of them."""
    since = time.monotonic()
    starts = [asyncio.create_task(begun(site, f"{number}")) for number in range(runs)]
    _, unclear = await asyncio.wait(starts, timeout=3 * PATIENCE_SECONDS)  # this vendor repeats no start
    for start in unclear:
        start.cancel()
    ended = await told(folder, runs - len(unclear))
    took = time.monotonic() - since
    times = sorted(each.started for each in site.emulator.exchanges)
    return {
        "seconds": round(took, 1),
        "requests": len(times),
        "429s": sum(each.status == 429 for each in site.emulator.exchanges),
        "most in 1 s": max(sum(at <= each < at + 1 for each in times) for at in times),
        "runs too many": max(len(site.emulator.state.runs) - runs, 0),
        "starts unclear": len(unclear),
        "told twice": sum(count > 1 for count in ended.values()),
        "ends told": len(ended),
    }


@asynccontextmanager
async def harmed(harm: str, site: Workers, stage: Stage) -> AsyncIterator[Counter[str]]:
    """Do harm a few times, each when the workers are there again; count it."""
    database, proxy, second = stage.database, stage.proxy, stage.second
    done: Counter[str] = Counter()

    async def go_on() -> None:
        for _ in range(HARMS_EACH):
            await asyncio.sleep(2.0)
            await site.all_there()
            if harm == "kill":
                os.kill(await site.someone(), signal.SIGKILL)
            elif harm == "restart":
                assert database is not None
                await asyncio.to_thread(database.stop, signal.SIGQUIT)
                await asyncio.sleep(1.0)
                await asyncio.to_thread(database.start)
                await asyncio.sleep(4.0)
            elif harm == "part":
                assert second is not None
                await asyncio.to_thread(second.cut)
                await asyncio.sleep(5.0)
                await asyncio.to_thread(second.mend)
                await asyncio.sleep(4.0)
            else:
                assert proxy is not None
                proxy.cut()
                await asyncio.sleep(3.0)
                proxy.mend()
                await asyncio.sleep(4.0)
            done[harm] += 1

    task = asyncio.create_task(go_on()) if harm != "none" else None
    try:
        yield done
    finally:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if proxy is not None:
            proxy.mend()


def site_of(what: str, folder: Path, journal: str, workers: int, second: SecondMachine | None) -> Workers:
    """Return the app of a play on so many processes, of each machine."""
    machines, host = [Machine()], "127.0.0.1"
    if second is not None:
        assert "@127.0.0.1" in journal
        there = {"AGENTRUNS_PLAY": journal.replace("@127.0.0.1", f"@{DATABASE}")}
        machines.append(Machine(second.host, second.within, there))
        host = WORLD
    if what == "budget":
        emulator = Emulator(
            "middesk",
            script=lambda _: Turn("Done.", running=3.0),
            agents=("cip_orchestrator",),
            rate_limit=20,
            host=host,
        )
        return Workers(folder, on(BUSY, journal), emulator, workers=workers, vendor="middesk", machines=machines)
    app = on(CHARGING + sample("import FastAPI"), journal)
    app = app.replace('{"approve": approve}', '{"approve": approve, "charge": charge}')
    app = app.replace("inbox=inbox, on_end=keep", "inbox=inbox, on_end=keep, tools=tools_of(inbox)")
    return Workers(folder, app, Emulator("narrative", script=agent, host=host), workers=workers, machines=machines)


def on(app: str, journal: str) -> str:
    """Return an app with another journal, or with that of its machine; the vendor may be on another one."""
    assert '"runs.db"' in app
    where = f'__import__("os").environ.get("AGENTRUNS_PLAY", {journal!r})'
    return app.replace('"runs.db"', where).replace(", journal=", ", insecure=True, journal=")


async def play(what: str, runs: int, workers: int, store: str, harm: str, stage: Stage) -> str:
    """Play once; return the line of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site = site_of(what, folder, stage.journal(harm), workers, stage.second)
        async with site.served():
            await site.all_there()
            async with harmed(harm, site, stage) as done:
                counts = await {"approvals": approvals, "budget": budget}[what](site, folder, runs)
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        return f"{what} | {store} | {workers} workers | {harm} {done[harm] or ''} | {runs} runs | {said}"


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.web.play_workers", description=__doc__)
    parser.add_argument("what", nargs="*", default=["approvals", "budget"], help="`approvals`, `budget`, or both")
    parser.add_argument("--runs", type=int, help="runs of each (default: 60 approvals, 120 for the budget)")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 4, 8])
    parser.add_argument("--stores", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--harm", nargs="*", choices=HARMS, default=["none"])
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers must not outlive this
    for what in given.what:
        runs = given.runs or {"approvals": 60, "budget": 120}[what]
        for store in given.stores:
            for workers in given.workers:
                for harm in given.harm:
                    if (harm == "kill" and workers == 1) or (harm in {"restart", "cut", "part"} and store == "sqlite"):
                        continue
                    with stage(store, harm) as set_up:
                        print(asyncio.run(play(what, runs, workers, store, harm, set_up)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
