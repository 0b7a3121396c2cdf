"""A journal whose file fails in the middle of a stream: said as documented, nothing done twice, the file left alone."""

import asyncio
import json
import resource
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from agentruns import (
    Action,
    Client,
    ConfigurationError,
    OutcomeUnknownError,
    Retry,
    RunStream,
    ToolOutcomeUnknownError,
    ToolOutput,
)
from agentruns._keeping.journal import Journal
from agentruns._keeping.journal.ledger import Ledger
from agentruns.errors import JournalError
from tests.crash.killed_processes import EXHAUSTIVE, KEY, PLOTS, UNSURE, Story, scratch, story
from tests.crash.loop_steps import Inside
from tests.crash.worker import DIALECTS, HURRY, QUICK, Kill, answer_to

pytestmark = pytest.mark.timeout(1200 if EXHAUSTIVE else 120)

MANY = 100
"""Commits without an end after which a stream counts as one that waits for ever, looking into its journal."""


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / HURRY)

    monkeypatch.setattr("agentruns._api.flow.sleep", sleep)
    monkeypatch.setattr("agentruns._aio.timers.TICK", 1e-4)
    for look in (
        "_keeping.handlers._LOOK_SECONDS",
        "_keeping.keeper._LOOK_SECONDS",
        "_keeping.journal.journal._FIRST_LOOK",
        "_keeping.journal.journal._LAST_LOOK",
    ):
        monkeypatch.setattr(f"agentruns.{look}", 0.001)


# What may happen to a file --------------------------------------------------------------------------------------------


@contextmanager
def full(ledger: Ledger, path: Path) -> Iterator[None]:
    """Let no file take a byte."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


@contextmanager
def read_only(ledger: Ledger, path: Path) -> Iterator[None]:
    """Let the file be read only: as if its file system were mounted so, which its owner, root, cannot be kept from."""
    ledger.execute("PRAGMA query_only = ON")
    try:
        yield
    finally:
        ledger.execute("PRAGMA query_only = OFF")


@contextmanager
def deleted(ledger: Ledger, path: Path) -> Iterator[None]:
    """Take the file away, and put it back later."""
    path.rename(path.with_name("moved"))
    try:
        yield
    finally:
        path.with_name("moved").rename(path)


@contextmanager
def replaced(ledger: Ledger, path: Path) -> Iterator[None]:
    """Put another file in its place, and take it away later."""
    with deleted(ledger, path):
        path.touch()
        yield


SAID = {
    "full": "look at the disk, then make the same call again",
    "read_only": "give this user write permission",
    "deleted": "the file was deleted or replaced while it was in use; put it back",
    "replaced": "the file was deleted or replaced while it was in use; put it back",
}
TROUBLES = {each.__name__: each for each in (full, read_only, deleted, replaced)}


@define
class Failing:
    """Commits of which the *n*-th fails, and all after it until it is mended."""

    trouble: Callable[[Ledger, Path], Any]
    n: int
    path: Path
    commits: int = 0
    struck: int = 0
    mended: bool = False
    original: Callable[[Ledger, Sequence[Any]], None] = field(default=Ledger.carry_out)

    @property
    def name(self) -> str:
        return next(name for name, trouble in TROUBLES.items() if trouble is self.trouble)

    def carry_out(self, ledger: Ledger, batch: Sequence[Any]) -> None:
        self.commits += 1
        if self.mended or self.commits < self.n:
            self.original(ledger, batch)
            return
        self.struck += 1
        with self.trouble(ledger, self.path):
            self.original(ledger, batch)


# What is done meanwhile -----------------------------------------------------------------------------------------------


@define
class Tale:
    """The work of one story, in this process."""

    story: Story
    commits: Callable[[], int]
    handled: Counter[str] = field(factory=Counter)
    unknown: bool = False

    async def handle(self, action: Action) -> Any:
        self.handled[json.dumps([action.id, action.arguments], sort_keys=True)] += 1
        return answer_to(action)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        life = self.story.life
        async with Client(
            DIALECTS[life.vendor],
            Inside(self.story.emulator),
            schedule=QUICK,
            retry=Retry(attempts=2, backoff=QUICK),
            journal=Journal(life.journal, life.vendor),
        ) as client:
            yield client

    def stream(self, client: Client) -> RunStream:
        return client.stream(self.story.life.origin, tools=self.handle, key=KEY, timeout=30)

    async def finish(self, client: Client) -> None:
        """Go on to the end; what nobody knows is decided."""
        try:
            await self.to_its_end(self.stream(client))
        except ToolOutcomeUnknownError as error:
            paused = error.run
        else:
            return
        assert paused is not None
        await client.resume(paused, [ToolOutput(action, answer_to(action)) for action in paused.actions])
        await self.to_its_end(self.stream(client))

    async def to_its_end(self, stream: RunStream) -> None:
        """Go through a stream; one that goes round and round is a failure of its own kind."""

        async def all_of_it() -> None:
            async for _ in stream:
                pass

        going, before = asyncio.ensure_future(all_of_it()), self.commits()
        while not going.done():
            await asyncio.wait([going], timeout=0.01)
            if self.commits() > before + MANY:
                going.cancel()
                await asyncio.wait([going])
                pytest.fail(f"hangs at {stream!r}")
        try:
            going.result()
        except OutcomeUnknownError:
            # The note of a start was written, and not believed, since its file was not where it was: nothing was sent.
            assert self.story.plot.vendor in UNSURE
            assert self.story.started == 0
            self.unknown = True

    def check(self) -> None:
        """Nothing was done twice."""
        assert self.story.started == (0 if self.unknown else self.story.plot.runs)
        assert set(self.handled.values()) <= {1}, f"{self.handled}"
        assert self.story.locks == []
        self.story.kept()


Act = Callable[[Tale, Client, Failing], Coroutine[Any, Any, None]]


def told(vendor: str, trouble: str, n: int, act: Act) -> bool:
    """Tell of a file that fails from the *n*-th commit on; return whether there was one."""
    with (
        story(PLOTS[vendor] if EXHAUSTIVE else PLOTS[vendor].shorter()) as story_of_it,
        pytest.MonkeyPatch.context() as patch,
    ):
        failing = Failing(TROUBLES[trouble], n, story_of_it.file)
        tale = Tale(story_of_it, lambda: failing.commits)
        patch.setattr(Ledger, "carry_out", lambda ledger, batch: failing.carry_out(ledger, batch))
        asyncio.run(_tell(tale, failing, act))
        tale.check()
        return failing.struck > 0


async def _tell(tale: Tale, failing: Failing, act: Act) -> None:
    async with tale.client() as client:
        await act(tale, client, failing)
        failing.mended = True
    async with tale.client() as client:  # as another process would
        await tale.finish(client)


def at_every_commit(vendor: str, trouble: str, act: Act) -> None:
    troubles: list[str] = []
    for n in count(1):
        try:
            if not told(vendor, trouble, n, act):
                break
        except (AssertionError, pytest.fail.Exception) as error:
            troubles.append(f"commit {n}: {error}")
    assert n > 3
    if troubles:
        pytest.fail(f"{len(troubles)} of {n - 1}\n" + "\n".join(troubles))


async def tells(tale: Tale, client: Client, failing: Failing) -> None:
    """Go on to the first error."""
    try:
        await tale.to_its_end(tale.stream(client))
    except JournalError as error:
        told = error
    else:
        assert not failing.struck
        return
    assert told.path == str(tale.story.life.journal)
    assert told.standing, f"says nothing of what stands: {told}"
    assert SAID[failing.name] in told.reason


async def asks_again(tale: Tale, client: Client, failing: Failing) -> None:
    """Ask for the step that failed again and again, while nothing is mended."""
    stream = tale.stream(client)
    try:
        await tale.to_its_end(stream)
    except JournalError:
        for _ in range(2):
            with pytest.raises(JournalError):
                await tale.to_its_end(stream)


async def goes_on(tale: Tale, client: Client, failing: Failing) -> None:
    """Mend the file, and go on with the stream; after a failure around handlers, which stays, with another one."""
    stream = tale.stream(client)
    try:
        await tale.to_its_end(stream)
    except JournalError as error:
        failing.mended = True
        if "handler" in error.standing or "only to be read" in error.standing:
            await stream.aclose()
            await tale.finish(client)
        else:
            await tale.to_its_end(stream)


async def another_goes_on(tale: Tale, client: Client, failing: Failing) -> None:
    """Mend the file, and go on with another stream, while the first is held."""
    stream = tale.stream(client)
    try:
        await tale.to_its_end(stream)
    except JournalError:
        failing.mended = True
        await tale.finish(client)
    assert stream is not None


def cases(act: Act, *, most: bool = False) -> pytest.MarkDecorator:
    """Return every vendor with every trouble, or some of them."""
    chosen = [
        (vendor, trouble)
        for vendor in PLOTS
        for trouble in TROUBLES
        if EXHAUSTIVE
        or (trouble == "full" and (most or vendor in {"narrative", "middesk"}))
        or (vendor == "narrative" and (most or trouble == "deleted"))
    ]
    return pytest.mark.parametrize(("vendor", "trouble"), chosen)


@cases(tells, most=True)
def test_a_file_that_fails_is_told_and_the_next_process_goes_on(vendor: str, trouble: str) -> None:
    at_every_commit(vendor, trouble, tells)


@cases(asks_again)
def test_a_step_that_is_asked_for_again_while_the_file_fails_raises_and_does_not_wait_for_itself(
    vendor: str, trouble: str
) -> None:
    at_every_commit(vendor, trouble, asks_again)


@cases(goes_on)
def test_a_stream_goes_on_when_its_file_is_mended(vendor: str, trouble: str) -> None:
    at_every_commit(vendor, trouble, goes_on)


@cases(another_goes_on)
def test_another_stream_goes_on_when_the_file_is_mended_while_the_first_is_still_held(
    vendor: str, trouble: str
) -> None:
    at_every_commit(vendor, trouble, another_goes_on)


class LockedError(sqlite3.OperationalError):
    sqlite_errorcode = sqlite3.SQLITE_BUSY
    sqlite_errorname = "SQLITE_BUSY_RECOVERY"


def test_an_opening_waits_while_another_process_puts_the_log_of_a_dead_one_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusals, execute = 3, Ledger.execute

    def refused(self: Ledger, sql: str, /, *values: Any) -> Any:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise LockedError("database is locked")
        return execute(self, sql, *values)

    async def opened(path: Path) -> None:
        async with Journal(path, "narrative"):
            pass

    monkeypatch.setattr(Ledger, "execute", refused)
    with scratch() as folder:
        asyncio.run(opened(folder / "journal.db"))


# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoilt", ["header", "tables", "rows"])
def test_a_file_that_is_damaged_in_the_middle_of_a_stream_is_refused_from_then_on_and_left_alone(spoilt: str) -> None:
    for n in range(1, 16, 1 if EXHAUSTIVE else 3):
        with story(PLOTS["narrative"]) as about:
            asyncio.run(damage(about, spoilt, n))


async def damage(about: Story, spoilt: str, n: int) -> None:
    path = about.file
    tale = Tale(about, lambda: commits)
    commits = 0

    def carry_out(ledger: Ledger, batch: Sequence[Any]) -> None:
        nonlocal commits
        commits += 1
        original(ledger, batch)
        if commits == n:
            _spoil(path, spoilt)

    original = Ledger.carry_out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "carry_out", carry_out)
        async with tale.client() as client:
            stream = tale.stream(client)
            with suppress(JournalError):
                await tale.to_its_end(stream)
    assert tale.story.started <= tale.story.plot.runs
    assert set(tale.handled.values()) <= {1}
    started, handled = tale.story.started, tale.handled.copy()
    before = path.read_bytes()
    refused = ""
    try:
        async with tale.client() as client:
            await tale.finish(client)
    except ConfigurationError as error:
        refused = str(error)
    if not refused:  # what was spoilt was written again from what was in memory
        tale.check()
        return
    assert "it is damaged; restore it" in refused or "it is damaged (" in refused or "not an SQLite file" in refused
    assert path.read_bytes() == before
    assert (tale.story.started, tale.handled) == (started, handled)
    assert tale.story.locks == []


def _spoil(path: Path, what: str) -> None:
    size = 4096
    with path.open("r+b") as file:
        pages = path.stat().st_size // size
        first, last = {"header": (0, 1), "tables": (1, min(pages, 3)), "rows": (3, pages)}[what]
        file.seek(first * size)
        file.write(b"\xa5" * (last - first) * size)


def test_a_journal_that_was_deleted_after_a_death_leaves_nothing_that_spoils_the_next() -> None:
    with story(PLOTS["conduit"]) as about:
        assert about.lives(kill=Kill("commit", 2, "after")) is None
        assert about.beside != []
        about.file.unlink()
        said = about.lives()
        assert said is not None
        assert said.get("status") == "completed"
        assert about.beside == []
        with closing(sqlite3.connect(about.file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
