"""
What a budget of requests buys: how late ends are seen, beside asking each run in turn; and that it is never exceeded.

    python -m benchmarks.budget [--quick] [--json PATH]

In virtual time, against a vendor that counts and refuses what is too much: 2,000 runs of three kinds at 50 requests a
second, each replaced when its end is seen, either by one that somebody else has started and hands over, or by one that
takes a request to start; and 1,000 runs of Conduit, whose lists tell of 100 runs at once, at 120 requests a minute. In
turn means one request whenever the budget allows one, for the run that was asked about longest ago, with no client in
between. At last, for some seconds of real time, against a server on this machine.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, Final

from agentruns import Run, RunRef, conduit, connect, narrative
from agentruns._values.exchange import RateLimit, Request, Response

from .contestants import TOKEN
from .process import pin
from .report import Goal, arguments, at_least, at_most, finish
from .shapes import CONDUIT, CONDUIT_LISTED, NARRATIVE
from .stub import Stub, most_within
from .virtual import Job, Kind, Seen, Slot, Vendor, client, follow, in_turn

MIXED: Final = ((0.1, Kind("fast", 5.0, 0.5)), (0.4, Kind("middling", 90.0, 0.6)), (0.5, Kind("slow", 600.0, 0.6)))
HOURLY: Final = Kind("hourly", 3600.0, 0.6)
AGENTS: Final = 10


class Narrative(Vendor):
    """Starts a run of a slot where one is posted."""

    def __init__(self, slots: Iterable[Slot], limit: RateLimit) -> None:
        super().__init__(limit)
        self.slots = {slot.parent: slot for slot in slots}
        self.jobs: dict[str, Job] = {}

    def answer(self, request: Request, now: float) -> bytes:
        """Answer a start or a look."""
        parts = request.path.split("/")
        if request.method == "POST":
            job = self.slots[parts[3]].next(now)
            self.jobs[job.id] = job
        else:
            job = self.jobs[parts[3]]
        return job.body(NARRATIVE, now)


class Conduit(Vendor):
    """Lists an agent's runs, newest first; they begin by themselves."""

    def __init__(self, slots: Iterable[Slot], limit: RateLimit) -> None:
        super().__init__(limit)
        self.jobs: dict[str, Job] = {}
        self._by_agent: dict[str, list[Job]] = {}
        for job in sorted((slot.under_way() for slot in slots), key=lambda job: job.began):
            self.add(job)

    def add(self, job: Job) -> None:
        """Take up a run that began."""
        self.jobs[job.id] = job
        self._by_agent.setdefault(job.slot.parent, []).append(job)

    def answer(self, request: Request, now: float) -> bytes:
        """Answer a look or a page of a list."""
        _, _, agent, _, *name = request.path.split("/")
        if name:
            return self.jobs[name[0]].body(CONDUIT, now)
        of_agent = self._by_agent[agent]
        until = int(request.params.get("cursor", len(of_agent)))
        since = max(until - int(request.params["limit"]), 0)
        page = b",".join(job.body(CONDUIT_LISTED, now) for job in reversed(of_agent[since:until]))
        further = json.dumps({"has_more": since > 0, "next_cursor": str(since) if since else None})
        return b'{"data":[' + page + b"]," + further[1:].encode()


# Following ------------------------------------------------------------------------------------------------------------


def follow_mixed(slots: Sequence[Slot], limit: RateLimit, seen: Seen, *, starts: bool) -> Narrative:
    """Follow the run of each slot, again and again, through one client that *starts* it or is handed it."""
    vendor = Narrative(slots, limit)
    through = client(narrative, vendor, limit)

    async def keep(slot: Slot) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(slot.first_start())
        while True:
            message = narrative.UserMessage(slot.parent, "Go.", expected_version=0)
            run = await through.result(message if starts else started(vendor, message, loop.time()), timeout=None)
            seen.end(vendor.jobs.pop(run.id), loop.time())

    follow(through, keep, slots, seen.until)
    return vendor


def started(vendor: Narrative, message: narrative.UserMessage, now: float) -> Run:
    """Return a run that somebody else starts *now*, at no cost to our budget."""
    flow = narrative.start(message)
    request = next(flow)
    assert isinstance(request, Request)
    try:
        flow.send(Response(200, {}, vendor.answer(request, now), request))
    except StopIteration as end:
        run: Run = end.value
        return run
    raise AssertionError("one request starts a run")


def follow_hourly(dialect: Any, slots: Sequence[Slot], limit: RateLimit, seen: Seen) -> Conduit:
    """Follow the run of each slot, again and again, through one client; somebody else starts them."""
    vendor = Conduit(slots, limit)
    through = client(dialect, vendor, dialect.BUDGET)
    first = {job.slot: job for job in vendor.jobs.values()}

    async def keep(slot: Slot) -> None:
        job = first[slot]
        while True:
            run = await through.result(RunRef(job.id, slot.parent), timeout=None)
            now = asyncio.get_running_loop().time()
            seen.end(vendor.jobs.pop(run.id), now)
            vendor.add(job := slot.next(now))

    follow(through, keep, slots, seen.until)
    return vendor


# What comes of it -----------------------------------------------------------------------------------------------------

WIDTH: Final = 40


def show(name: str, seen: Seen, requests: float) -> None:
    """Print a line of a table; *requests* in a second."""
    print(f"{name:<{WIDTH}}{seen.lag:>9.2f}{seen.ends:>10.2f}{requests:>14.2f}{requests / seen.ends:>16.2f}")


def head(title: str) -> None:
    print(f"{title:<{WIDTH}}{'lag s':>9}{'ends / s':>10}{'requests / s':>14}{'requests / end':>16}")


def mixed(count: int, rate: int, since: float, until: float) -> list[Goal]:
    """Let runs of three kinds be followed at *rate* requests a second."""
    limit = RateLimit(rate, 1.0)
    places = [kind for share, kind in MIXED for _ in range(round(share * count))]
    goals = []
    head(f"{count} mixed runs, {rate} requests a second")
    for name, starts, target in (("handed over", False, 0.4), ("started", True, 0.65)):
        turn, ours = Seen(since, until), Seen(since, until)
        slots = [[Slot(number, f"conversation-{number}", kind) for number, kind in enumerate(places)] for _ in range(2)]
        in_turn(slots[0], limit, turn, starts=starts)
        vendor = follow_mixed(slots[1], limit, ours, starts=starts)
        show(f"in turn, {name}", turn, rate)
        show(f"agentruns, {name}", ours, vendor.rate(since))
        goals += [
            at_most(f"{name}: lag / in turn", ours.lag / turn.lag, target),
            at_most(f"{name}: most requests in any second / limit", most_within(1.0, vendor.times) / rate, 1.0),
            at_most(f"{name}: requests refused (429)", vendor.refused, 0),
        ]
    return goals


def without_lists() -> Any:
    """Return the dialect of Conduit, reading run by run."""
    names = [name for name in conduit.__all__ if name not in {"list_parent", "page"}]
    return SimpleNamespace(**{name: getattr(conduit, name) for name in names})


def listed(count: int, since: float, until: float) -> list[Goal]:
    """Let runs of Conduit be followed at 120 requests a minute, with its lists and without."""
    limit = RateLimit(120, 60.0)
    single = without_lists()

    def slots() -> list[Slot]:
        return [Slot(number, f"ag{number % AGENTS}", HOURLY) for number in range(count)]

    turn, alone, ours = Seen(1800.0, 36000.0), Seen(since, until), Seen(since, until)
    in_turn(slots(), limit, turn, starts=False, under_way=True)
    by_one = follow_hourly(single, slots(), limit, alone)
    by_list = follow_hourly(conduit, slots(), limit, ours)
    head(f"{count} Conduit runs, 120 requests a minute")
    show("in turn", turn, limit.count / limit.seconds)
    show("agentruns, run by run", alone, by_one.rate(since))
    show("agentruns, with lists", ours, by_list.rate(since))
    return [
        at_most("Conduit: most requests in any minute / limit", most_within(60.0, by_list.times) / limit.count, 1.0),
        at_most("Conduit: requests refused (429)", by_list.refused, 0),
        at_most("Conduit: lag with lists / in turn", ours.lag / turn.lag, 0.1),
        at_most("Conduit: requests with lists / in turn", by_list.rate(since) * limit.seconds / limit.count, 1.0),
    ]


def real(count: int, rate: int, seconds: float) -> list[Goal]:
    """Let runs of so many *seconds*, and up to twice as many, be followed on this machine."""

    async def main(base_url: str) -> int:
        async with connect("narrative", token=TOKEN, base_url=base_url, budget=rate) as through:
            refs = [RunRef(f"same-{seconds + seconds * number / count:.3f}-{number}") for number in range(count)]
            runs = await asyncio.gather(*(through.result(ref, timeout=30.0) for ref in refs), return_exceptions=True)
            return sum(not isinstance(run, BaseException) for run in runs)

    with Stub() as stub:
        pin("client")
        began = time.monotonic()
        seen = asyncio.run(main(stub.base_url))
        took = time.monotonic() - began
        times = stub.log()
    most = most_within(1.0, times)
    print(
        f"{count} real runs, {rate} requests a second: {seen} seen to end within {took:.1f} s by {len(times)} requests"
    )
    return [
        at_most("real: most requests in any second", most, rate),
        at_least("real: part of the runs seen to end", seen / count, 1.0),
    ]


def main() -> int:
    args = arguments(__doc__)
    if args.quick:
        goals = [*mixed(400, 10, 600.0, 1200.0), *listed(1000, 300.0, 900.0), *real(100, 50, 1.5)]
    else:
        goals = [*mixed(2000, 50, 600.0, 1500.0), *listed(1000, 1800.0, 7200.0), *real(200, 50, 3.0)]
    return finish(goals, args)


if __name__ == "__main__":
    sys.exit(main())
