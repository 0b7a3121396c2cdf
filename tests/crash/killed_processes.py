"""Lives, deaths, and what is left: an emulator, a journal, and processes that are killed at it."""

import atexit
import json
import multiprocessing
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from itertools import count
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
from attrs import define, evolve, field, frozen

from agentruns import Tools, connect, narrative
from agentruns.emulator import Call, Emulator, Turn
from tests.crash import worker
from tests.crash.worker import DIALECTS, Life
from tests.postgres_server import Server, server

EXHAUSTIVE = os.environ.get("AGENTRUNS_EXHAUSTIVE") == "1"
"""Whether everything is looked at, not what is for every day; `tests/crash/__init__.py` tells what that means."""

STORE = os.environ.get("AGENTRUNS_CRASH_STORE", "sqlite")
"""Which store the journals are in; `postgres` is for runs by hand, since every death is seen three seconds later."""

SEEDS = 40 if EXHAUSTIVE else 2
"""How many stories of deaths at random are told of each kind."""

UNSURE = {"middesk", "conduit"}
"""Vendors whose starts cannot be repeated: whether one was sent that nothing is seen of cannot be told."""

MEMORY = Path("/dev/shm")

AT_ONCE = 3
"""How many stories are told at once."""

LONGEST = 50.0
"""Seconds after which a life counts as one that does not end: much longer than any takes on a busy machine."""

KEY = "invoice-17"

_processes = threading.Lock()  # one thread that starts a process may take the exit code that another waits for
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["pytest", "tests.crash.fork_server"])


# What is there to be done ---------------------------------------------------------------------------------------------


@frozen
class Plot:
    """A piece of work with one vendor: what the vendor does, and what one life without any trouble comes to."""

    vendor: str
    script: tuple[Turn, ...]
    runs: int
    effects: int
    options: dict[str, Any] = field(factory=dict)

    def __str__(self) -> str:
        return self.vendor

    def shorter(self) -> "Plot":
        """Return this plot with its first pause only, if it has any."""
        if len(self.script) == 1:
            return self
        runs = 1 if self.vendor == "middesk" else 2
        return evolve(self, script=(self.script[0], self.script[-1]), runs=runs, effects=2)


def _approve(number: int) -> Call:
    return Call("approve_invoice", {"invoice": number})


def _resolve(number: int) -> Call:
    return Call("watchlist_resolution", {"label": f"Dismiss {number}?", "artifacts": []})


def _ask(number: int) -> Call:
    return Call(
        "ask-questions",
        {"type": "single-choice", "question": f"Which, {number}?", "suggestedAnswers": ["This", "That"]},
    )


def _pauses(call: Any) -> tuple[Turn, ...]:
    """Pause twice: for two answers, and for one."""
    return (
        Turn(calls=[call(1), call(2)], running=0.004),
        Turn(calls=[call(3)], running=0.004),
        Turn("Done.", running=0.004),
    )


PLOTS = {
    "narrative": Plot("narrative", _pauses(_approve), runs=3, effects=3),
    "middesk": Plot("middesk", _pauses(_resolve), runs=1, effects=3),
    "origami": Plot("origami", _pauses(_ask), runs=3, effects=3, options={"retry_after": 0}),
    "conduit": Plot(
        "conduit",
        (Turn("Done.", running=0.004),),
        runs=1,
        effects=0,
        options={"shown_after": 0.005, "requests_per_minute": None},
    ),
}


@frozen
class Kept:
    """What a journal holds."""

    work: dict[str, Any] | None = None
    handlings: list[dict[str, Any]] = field(factory=list)

    @property
    def asked(self) -> bool:
        """Tell whether a start had got as far as the request that must not be repeated, and no further."""
        return self.work is not None and self.work["start_note"] is not None and self.work["run"] is None

    @property
    def cut_off(self) -> list[str]:
        """Return the actions whose handlers have begun and not answered."""
        return [each["action_id"] for each in self.handlings if each["state"] == "running"]


@define
class Living:
    """A life that has begun."""

    story: "Story"
    life: Life
    process: ForkServerProcess

    def kill(self) -> None:
        """End it from outside."""
        with _processes:
            self.process.kill()

    def _code(self) -> int | None:
        with _processes:
            return self.process.exitcode

    def end(self) -> dict[str, Any] | None:
        """Wait for its end, and return what it said; None if it was killed."""
        wait([self.process.sentinel], timeout=LONGEST)
        code = self._code()
        with _processes:
            self.process.kill()
            self.process.join()
            self.process.close()
        assert code is not None, "the life does not end"
        if code == -9:
            self.story.deaths += 1
            return None
        assert code == 0, f"the life ended with {code}"
        said: dict[str, Any] = json.loads(self.life.said.read_text())
        assert said["complaints"] == []
        return said


@define
class Story:
    """One plot, from its first life to its last."""

    plot: Plot
    emulator: Emulator[Any]
    folder: Path
    life: Life
    deaths: int = 0
    numbers: Iterator[int] = field(factory=count)

    @property
    def started(self) -> int:
        """Return how many runs the vendor has started."""
        return int(self.emulator.state.runs_started)

    @property
    def effects(self) -> Counter[str]:
        """Return how often each action was carried out."""
        return Counter(self.life.effects.read_text().splitlines() if self.life.effects.exists() else ())

    @property
    def file(self) -> Path:
        """Return the file that the journal is."""
        assert isinstance(self.life.journal, Path)
        return self.life.journal

    @property
    def beside(self) -> list[str]:
        """Return what lies beside the journal."""
        return sorted(each.name for each in self.folder.glob("journal*") if each.name != "journal.db")

    @property
    def locks(self) -> list[str]:
        """Return the lock files beside the journal."""
        return [each for each in self.beside if each.endswith(".lock")]

    def begin(self, **changes: Any) -> Living:
        """Begin a life."""
        life = evolve(self.life, said=self.folder / f"said-{next(self.numbers)}", **changes)
        process = _forks.Process(target=worker.live, args=(life,))
        with _processes:
            process.start()
        return Living(self, life, process)

    def lives(self, **changes: Any) -> dict[str, Any] | None:
        """Live one life to its end, and return what it said."""
        return self.begin(**changes).end()

    def kept(self) -> Kept:
        """Return what the journal holds; of a file from a copy, since looking at it must not change it."""
        if isinstance(self.life.journal, str):
            return _kept_in_postgres(self.life.journal)
        with scratch() as folder:
            for suffix in ("", "-wal"):
                if Path(f"{self.file}{suffix}").exists():
                    shutil.copy(f"{self.file}{suffix}", folder)
            copy = folder / self.file.name
            if not copy.exists():
                return Kept()
            with closing(sqlite3.connect(copy)) as connection:
                connection.row_factory = sqlite3.Row
                assert [*connection.execute("PRAGMA integrity_check").fetchone()] == ["ok"]
                if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    return Kept()
                work = connection.execute("SELECT * FROM work").fetchone()
                handlings = connection.execute("SELECT * FROM handling ORDER BY id").fetchall()
            return Kept(None if work is None else dict(work), [dict(each) for each in handlings])


def _kept_in_postgres(url: str) -> Kept:
    import psycopg
    from psycopg.rows import dict_row

    from agentruns._keeping.journal.postgres.address import database

    place = database(url)
    with psycopg.connect(place.conninfo, row_factory=dict_row) as connection:
        found = connection.execute("SELECT to_regclass(%s) AS work", (f"{place.schema}.work",)).fetchone()
        if found is None or found["work"] is None:
            return Kept()
        connection.execute(f"SET search_path = {place.schema}")
        work = connection.execute("SELECT * FROM work").fetchone()
        return Kept(work, connection.execute("SELECT * FROM handling ORDER BY id").fetchall())


@cache
def _postgres() -> Server:
    """Return a server that runs until the tests end."""
    running = ExitStack()
    atexit.register(running.close)
    return running.enter_context(server())


_starting = threading.Lock()


def journal_of(folder: Path) -> Path | str:
    """Return where the journal of a story is."""
    if STORE != "postgres":
        return folder / "journal.db"
    with _starting:
        return journal_in(_postgres())


def journal_in(running: Server) -> str:
    """Return the URL of a new journal, whose owners are missed after three seconds: a busy machine is no death."""
    return running.url(schema=f"s{uuid4().hex[:12]}", lease=3)


@contextmanager
def scratch() -> Iterator[Path]:
    """
    Make a folder, and remove it.

    It is in memory where that can be, unless everything is looked at: what a process has written outlives its death
    there as it does on a disk, and nobody waits for the disk.
    """
    memory = MEMORY if not EXHAUSTIVE and os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@contextmanager
def story(plot: Plot) -> Iterator[Story]:
    """Tell a story, in a folder of its own."""
    with scratch() as path, Emulator(plot.vendor, script=plot.script, **plot.options) as emulator:
        life = Life(
            vendor=plot.vendor,
            base_url=emulator.base_url,
            token=emulator.token,
            journal=journal_of(path),
            key=KEY,
            origin=origin_of(plot.vendor, emulator),
            effects=path / "effects",
            said=path / "said",
        )
        yield Story(plot, emulator, path, life)


def origin_of(vendor: str, emulator: Emulator[Any]) -> Any:
    """Return what starts a run; what has to be there before is made."""
    if vendor == "narrative":
        return anyio.run(_message, emulator)
    dialect = DIALECTS[vendor]
    if vendor == "middesk":
        return dialect.RunRequest("cip_orchestrator", business_id="b86f3c52-11d9-4f07-8e6a-90c2d5a7714f")
    if vendor == "origami":
        return dialect.Prompt("Find clinics.")
    return dialect.Dispatch(emulator.state.agent_id, trigger_id=emulator.state.trigger_id)


async def _message(emulator: Emulator[Any]) -> Any:
    tools = Tools()

    @tools.add
    def approve_invoice(invoice: int) -> None:
        """Approve an invoice."""

    async with connect(narrative, token=emulator.token, base_url=emulator.base_url) as client:
        made = await client.perform(
            narrative.create_conversation(
                narrative.Config(
                    model="anthropic.claude-opus-4.6",
                    data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
                    max_iterations=8,
                    max_tokens=2048,
                    output_format_schema=narrative.TEXT_SCHEMA,
                    client_tools=[narrative.client_tools(tools, alias="ops")],
                )
            )
        )
    return narrative.UserMessage(made.id, "Handle the invoices.")


def settled(story: Story, seconds: float = 0.3) -> int:
    """Return how many runs were started when what was under way at a death has arrived."""
    before, deadline = -1, time.monotonic() + seconds
    while before != story.started or time.monotonic() < deadline:
        before = story.started
        time.sleep(0.02)
    return before


counted: Counter[str] = Counter()
"""What has happened how often."""

_counting = threading.Lock()


def note(*what: str) -> None:
    """Count what has happened."""
    with _counting:
        counted.update(what)
