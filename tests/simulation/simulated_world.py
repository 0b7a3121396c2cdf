"""One seed: a vendor, weather, processes that come, go and are killed, and at the end one that puts all in order."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any, Final

from attrs import frozen

from agentruns import RunRef

from .callers import CALLER, Caller
from .disk import DatabaseDisk, Disk, FileDisk, MemoryDisk
from .invariants import Laws
from .known_defects import KNOWN
from .last_process import Finisher
from .loop import SimLoop
from .network import Weather
from .process import Process, Setup
from .simulated_vendors import STANDS, Intent, Pause, Stand

NIGHT: Final = 25 * 3600.0
"""Longer than Origami remembers what it was asked."""

_YOUNG: Final = 4.0
_STARTING: Final = frozenset({"follow", "result", "few", "cancelled", "closed", "flicker", "twice", "start"})


@frozen
class Options:
    """What a seed leaves to whoever plays it."""

    barred: frozenset[str] = frozenset()
    """Faults and habits that are left out."""
    known: frozenset[str] = frozenset(KNOWN)
    """Defects that are not complained of."""
    store: str = "memory"
    """
    Where the journal is: in "memory", in a file ("sqlite") or in a database, which is a URL.

    What is real goes through the threads and locks of the package: slower, and not the same each time.
    """
    mutation: str | None = None
    """What is broken on purpose."""

    def __str__(self) -> str:
        """Return what says the same on the command line."""
        given = (
            ["--strict"]
            if KNOWN and not self.known
            else [f"--unknown {name!r}" for name in KNOWN if name not in self.known]
        )
        given += [f"--bar {name!r}" for name in sorted(self.barred)]
        if self.store != "memory":
            given.append(f"--store {'sqlite' if self.store == 'sqlite' else 'postgresql'}")
        given += [] if self.mutation is None else [f"--mutation {self.mutation!r}"]
        return " ".join(given)


def _disk(store: str, chance: random.Random) -> Disk:
    if store == "memory":
        return MemoryDisk(chance)
    return FileDisk(chance) if store == "sqlite" else DatabaseDisk(chance, store)


class World:
    """Everything in one seed."""

    def __init__(self, vendor: str, seed: int, options: Options, loop: SimLoop) -> None:
        self.options = options
        self.loop = loop
        self.history: list[tuple[float, str, tuple[Any, ...]]] = []
        self.chance = chance = random.Random(f"{vendor} {seed}")
        self.processes: list[Process] = []
        self.callers = self.scopes = self.exchanges = self.killed = self.nights = self.ended = self.handled = 0
        self.laws = Laws(self)
        disk_chance = random.Random(chance.getrandbits(64))
        self.disk = _disk(options.store, disk_chance)
        self.stand: Stand = STANDS[vendor](random.Random(chance.getrandbits(64)), loop.time)
        self.peaceful = chance.random() < 0.15
        self.repeatable = chance.random() < 0.25
        self.tool_timeout = chance.choice([None, None, None, 1.0])
        rate = 0.0 if self.peaceful else chance.choice([0.0, 0.03, 0.1, 0.25, 0.5])
        # A 500 that Origami forgets, and a process that dies before it hears of it: nobody can tell what was started.
        self.kills = chance.random() < 0.75
        barred = options.barred | ({"own error after"} if self.kills else frozenset())
        self.weather = Weather(
            random.Random(chance.getrandbits(64)), rate, chance.choice([0.01, 0.05, 0.05, 0.4]), barred
        )
        self.done: set[str] = set()
        """The keys of work that was seen through to its end."""
        self.disk.full = 0.1 if chance.random() < 0.07 and not self.peaceful and "full disk" not in barred else 0.0
        self.shared = vendor in {"middesk", "conduit"} and chance.random() < 0.2 and "shared" not in barred
        """All work is done on one thread, or by one trigger."""
        self.intents: list[Intent] = []

    # For all ----------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Return the seconds since the world began."""
        return self.loop.now

    def knows(self, defect: str) -> bool:
        """Tell whether a defect is known, and not to be complained of."""
        return defect in self.options.known and defect in KNOWN

    def note(self, what: str, *parts: Any) -> None:
        """Add a line to the history; it is put together at the end."""
        self.history.append((self.loop.now, what, parts))

    def asking(self) -> str | None:
        """Return the work that the current task is for."""
        caller = CALLER.get()
        return None if caller is None else caller.intent.name

    def whose(self, run_id: str) -> str | None:
        """Return the work that a run is for."""
        return next((birth.intent for each, birth in self.stand.lives() if each == run_id), None)

    def runs_of(self, intent: str) -> list[RunRef]:
        """Return the runs of a piece of work, oldest first."""
        refs = [self.stand.ref(run_id) for run_id, birth in self.stand.lives() if birth.intent == intent]
        return [ref for ref in refs if self.stand.truth(ref) is not None]  # Conduit shows some later

    def is_young(self, run_id: str) -> bool:
        """Tell whether a run is so new that not every server knows it."""
        row = self.stand.vendor.runs.get(run_id)
        born = getattr(row, "created", None) or getattr(row, "started", None)
        return born is not None and self.now - float(born) < _YOUNG

    def journaled(self, intent: Intent) -> str | None:
        """Return the run that the journal has for a piece of work."""
        runs = [row["run"] for row in self.disk.rows("work") if row["key"] == intent.key and row["run"] is not None]
        return str(json.loads(runs[0])["ref"]["id"]) if runs else None

    # What there is to do ----------------------------------------------------------------------------------------------

    def draw_intents(self) -> None:
        """Draw the work."""
        for number in range(self.chance.choice([1, 1, 2, 3, 5])):
            self.add(self._intent(number))

    def add(self, intent: Intent) -> None:
        """Add a piece of work, and make what it needs."""
        if self.shared:
            intent.place = "shared"
            # Without a journal, a start that was lost could be anybody's.
            intent.keyed = intent.keyed or not self.peaceful
        self.intents.append(intent)
        self.stand.settle_in(intent)

    def _intent(self, number: int) -> Intent:
        chance = self.chance
        pauses = []
        if self.stand.resumes:
            for _ in range(chance.choice([0, 1, 1, 2])):
                goes_on = self.stand.name == "origami" and chance.random() < 0.2
                pauses.append(Pause(1 if goes_on else chance.choice([1, 1, 2, 3]), goes_on))
        longest = chance.choice([0.0, 1.0, 5.0, 20.0])
        return Intent(
            f"w{number}",
            tuple(pauses),
            chance.random() < 0.15,
            tuple((chance.choice([0.0, 0.0, 1.0]) * chance.random(), longest * chance.random()) for _ in range(4)),
            word=chance.choice([None] * 7 + ["pondering"]) if self.stand.name != "origami" else None,
            keyed=chance.random() < 0.75,
        )

    # What happens -----------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """Let it all happen."""
        chance = self.chance
        for _ in range(chance.choice([1, 1, 2, 3])):
            at_once = 1 if self.shared else chance.choice([1, 1, 2, 3])
            await asyncio.gather(*(self._process() for _ in range(at_once)))
            night = not self.peaceful and chance.random() < 0.03 and "night" not in self.options.barred
            if night and all(intent.keyed for intent in self.intents):  # origins alone are good for a day
                self.note("a long night")
                self.nights += 1
                await asyncio.sleep(NIGHT)
        self.weather.rate = self.disk.full = 0.0
        self.note("the sky is clear")
        await self._put_in_order()
        self.laws.at_the_end()

    async def _process(self) -> None:
        chance = self.chance
        process = Process(self, Setup.drawn(chance, self.stand.dialect.BUDGET))
        callers = [caller for caller in map(self._caller, range(chance.choice([1, 2, 4, 6]))) if caller is not None]
        until = chance.choice([1.0, 5.0, 20.0, 60.0]) * chance.random()
        killed = self.kills and not self.peaceful and chance.random() < 0.6
        done = self.peaceful or (not killed and chance.random() < 0.5)
        await asyncio.sleep(chance.choice([0.0, 0.0, 5.0]) * chance.random())
        main = process.begin(callers, None if done or killed else until)
        if killed:
            await asyncio.wait([main], timeout=until)
            if not main.done():
                for caller in callers:
                    caller.intent.killed = True
                await process.kill()
        else:
            await asyncio.wait([main])
        self._look_back_at(process, main)

    def _look_back_at(self, process: Process, main: asyncio.Task[None]) -> None:
        if not process.dead and (main.cancelled() or main.exception() is not None):
            error = None if main.cancelled() else main.exception()
            self.laws.broken(f"the simulation: {process} ended with {error!r}")
        elif main.done() and not main.cancelled():
            main.exception()
        self.laws.budget(process, process.setup.limit)

    def _caller(self, _: int) -> Caller | None:
        chance = self.chance
        intent = chance.choice(self.intents)
        acts = ["follow", "follow", "follow", "result", "few", "watch"]
        if not self.peaceful:
            acts += ["cancelled", "closed", "flicker", "twice", "hand"]
            acts += ["cancel", "list"] if self.stand.name == "origami" else ["list"]
        if not intent.keyed:
            if self.stand.has_keys:
                acts.append("start")
            elif intent.started:  # each start would be another run
                acts = ["watch", "list"]
        if not self.stand.resumes:
            acts = [act for act in acts if act != "hand"]
        act = chance.choice(acts)
        if not intent.keyed and act in _STARTING:
            if act == "flicker" and not self.stand.has_keys:  # it would start again and again
                act = "follow"
            intent.started += 1
        return Caller(self, intent, act)

    # The end ----------------------------------------------------------------------------------------------------------

    async def _put_in_order(self) -> None:
        """Have one more process, in fine weather, go through with all the work that has a key."""
        process = Process(self, Setup.drawn(self.chance, self.stand.dialect.BUDGET, calm=True))
        main = process.begin([Finisher(self, intent, "follow") for intent in self.intents if intent.keyed], None)
        await asyncio.wait([main])
        self._look_back_at(process, main)
        await self._look_at_unfinished()
        for row in self.disk.rows("work"):
            self.laws.check(not self.disk.is_alive(row["owner"]), f"leaks: {row['key']!r} is kept, and nobody is there")

    async def _look_at_unfinished(self) -> None:
        """Have one more process list the work that is not done."""
        process = Process(self, Setup.drawn(self.chance, None, calm=True))
        async with process.client as client:
            listed = {work.key async for work in client.unfinished()}
        begun = {row["key"] for row in self.disk.rows("work")}
        self.laws.check(
            listed == begun - self.done,
            f"journal: unfinished is {sorted(listed)}, of {sorted(begun)}, and {sorted(self.done)} is done",
        )
