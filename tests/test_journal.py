"""The journal: what it keeps, who may take what over, and the files that it refuses and leaves alone."""
# ruff: noqa: ASYNC240 - the files are small, and nobody else waits

import asyncio
import errno
import fcntl
import gc
import hashlib
import json
import os
import pickle
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from filelock import FileLock

from agentruns._aio.shield import run_shielded
from agentruns._keeping.journal import Handling, Journal, Work, ledger, owners, problems, schema, thread
from agentruns._keeping.journal.owners import Owners
from agentruns._keeping.journal.records import Records
from agentruns._keeping.journal.write import Write
from agentruns.errors import AgentRunsError, ConfigurationError, JournalError

ORIGIN = '{"text":"find a slot"}'
RUN = '{"status":"running"}'
OVER = '{"status":"completed"}'
STRANGE = '"\\u0000 \x00 \u2028 \U0001f9fe e\u0301 \u202e \x7f"'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest_asyncio.fixture
async def journal(path: Path) -> AsyncIterator[Journal]:
    async with Journal(path, "narrative") as opened:
        yield opened


@pytest_asyncio.fixture
async def other(path: Path) -> AsyncIterator[Journal]:
    """Return another owner on the same file."""
    async with Journal(path, "narrative") as opened:
        yield opened


async def sql(journal: Journal, text: str) -> Any:
    """Execute on the journal's own connection."""
    return await journal.write(lambda records: records.execute(text).fetchall(), "").future


def lock_files(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.glob("*.lock"))


def workers() -> list[str]:
    """Return the threads of open files; one that has said its last word may take a moment to end."""
    deadline = time.monotonic() + 5
    while True:
        found = [each.name for each in threading.enumerate() if each.name.startswith(thread.NAME)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.001)


class Process:
    """A run of tests/journal_process.py."""

    def __init__(self, *words: object) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.journal_process", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )

    def heard(self) -> dict[str, Any]:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        return dict(json.loads(line))

    def tell(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def kill(self) -> list[dict[str, Any]]:
        """Kill with a signal that nothing can catch; return what was said until then."""
        self.popen.send_signal(signal.SIGKILL)
        return self.end()

    def end(self) -> list[dict[str, Any]]:
        said, _ = self.popen.communicate()
        whole = said.splitlines(keepends=True)
        return [json.loads(line) for line in whole if line.endswith("\n")]


@contextmanager
def process(*words: object) -> Iterator[Process]:
    running = Process(*words)
    try:
        yield running
    finally:
        running.popen.kill()
        running.end()


# Owners ---------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_of_fifty_tasks_one_begins_and_one_handles(journal: Journal) -> None:
    begun = await asyncio.gather(*(journal.begin("k", ORIGIN) for _ in range(50)))
    handled = await asyncio.gather(*(journal.handle("k", "run", "a", "name") for _ in range(50)))

    assert sum(work.fresh for work in begun) == sum(each.fresh for each in handled) == 1


@pytest.mark.asyncio
async def test_of_fifty_tasks_one_takes_over(journal: Journal, path: Path) -> None:
    async with Journal(path, "narrative") as closed:
        await closed.begin("k", ORIGIN)
    begun = await asyncio.gather(*(journal.begin("k", ORIGIN) for _ in range(50)))

    assert [work.taken for work in begun] == [True] + [False] * 49


def test_of_several_processes_one_begins_and_one_handles(path: Path) -> None:
    running = [Process("race", path, "k", 5) for _ in range(4)]
    try:
        for each in running:
            assert each.heard() == {"ready": True}
        for each in running:
            each.tell()
        said = [each.heard() for each in running]
    finally:
        for each in running:
            each.kill()

    assert sorted(each["fresh"] for each in said) == [0, 0, 0, 1]
    assert sorted(each["handlers"] for each in said) == [0, 0, 0, 1]


@pytest.mark.asyncio
async def test_the_work_of_a_killed_process_is_taken_over_and_of_a_live_one_not(journal: Journal, path: Path) -> None:
    with process("hold", path, "k") as running:
        said = running.heard()
        live, held = await journal.begin("k", ORIGIN), await journal.handle("k", "run-1", "action-1", "approve")
        running.kill()
        left = await journal.get("k")
        files = lock_files(path)
        taken = await journal.begin("k", ORIGIN)
        unknown = await journal.handle("k", "run-1", "action-1", "approve")

    assert said["fresh"]
    assert said["running"]
    assert (live.mine, live.alive, live.taken, live.owner) == (False, True, False, said["owner"])
    assert (held.state, held.mine, held.alive) == ("running", False, True)
    assert left is not None
    assert not left.alive
    assert len(files) == 1  # ours: the dead one's was found and deleted
    assert (taken.taken, taken.state, taken.run) == (True, "open", '{"state":1}')
    assert (unknown.state, unknown.alive, unknown.fresh) == ("running", False, False)


@pytest.mark.asyncio
async def test_two_live_processes_wait_for_each_other_and_never_take_over(path: Path) -> None:
    with process("hold", path, "k") as one, process("hold", path, "k") as two:
        said = one.heard(), two.heard()

    assert sorted(each["fresh"] for each in said) == [False, True]
    assert [each["taken"] for each in said] == [False, False]
    assert sorted(each["running"] for each in said) == [False, True]


@pytest.mark.asyncio
async def test_a_forked_child_is_no_sign_of_life_of_its_parent(journal: Journal, path: Path) -> None:
    with process("fork", path, "k") as running:
        child = running.heard()["child"]
        try:
            assert not (await journal.begin("k", ORIGIN)).taken
            running.popen.send_signal(signal.SIGKILL)
            running.popen.wait()
            os.kill(child, 0)
            assert (await journal.begin("k", ORIGIN)).taken
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("moment", [0.0, 0.03, 0.1, 0.3])
def test_what_a_killed_process_had_written_is_there_and_whole(path: Path, moment: float) -> None:
    with process("steps", path) as running:
        said = [running.heard()]
        time.sleep(moment)
        said += running.kill()

    async def found() -> tuple[list[tuple[Work | None, tuple[Handling, ...]]], list[Work]]:
        async with Journal(path, "narrative") as journal:
            keys = dict.fromkeys(each["key"] for each in said)
            each = [(await journal.get(key), await journal.answers(key, "run")) for key in keys]
            return each, [work async for work in journal.unfinished()]

    order = ["starting", "open", "done"]
    steps = ["running", "answered", "posted"]
    works, unfinished = asyncio.run(found())
    for work, handlings in works:
        assert work is not None
        states = [order.index(each["state"]) for each in said if each["key"] == work.key and "state" in each]
        handled = [steps.index(each["action"]) for each in said if each["key"] == work.key and "action" in each]
        assert order.index(work.state) >= max(states, default=0)
        assert json.loads(work.origin) == {"origin": work.key}
        assert not handled or steps.index(handlings[0].state) >= max(handled)
        assert all(each.output == json.dumps({"answer": work.key}) for each in handlings if each.state != "running")
        assert not work.alive
    assert len(unfinished) <= 4


@pytest.mark.asyncio
async def test_stale_lock_files_are_swept_and_others_left_alone(path: Path) -> None:
    stale = path.with_name(f"{path.name}.{'0' * 32}.lock")
    foreign = path.with_name(f"{path.name}.mine.lock")
    neighbour = path.with_name(f"other.db.{'0' * 32}.lock")
    for each in (stale, foreign, neighbour):
        each.touch()
    async with Journal(path, "narrative") as journal:
        await journal.begin("k", ORIGIN)
        work = await journal.get("k")
        assert work is not None
        assert lock_files(path) == sorted([f"{path.name}.{work.owner}.lock", foreign.name, neighbour.name])

    assert lock_files(path) == sorted([foreign.name, neighbour.name])


@pytest.mark.asyncio
async def test_an_owner_that_cannot_be_looked_at_counts_as_alive(journal: Journal, path: Path) -> None:
    await journal.begin("k", ORIGIN)
    path.with_name(f"{path.name}.{'1' * 32}.lock").mkdir()
    await sql(journal, f"UPDATE work SET owner = '{'1' * 32}'")

    work = await journal.begin("k", ORIGIN)
    assert (work.alive, work.taken) == (True, False)


@pytest.mark.asyncio
async def test_an_owner_that_is_no_id_is_not_looked_for(journal: Journal, path: Path) -> None:
    await journal.begin("k", ORIGIN)
    outside = path.parent / "x.lock"
    outside.touch()
    await sql(journal, "UPDATE work SET owner = '/../x'")

    assert (await journal.begin("k", ORIGIN)).taken
    assert outside.exists()


def test_an_owner_that_is_looked_at_before_it_has_its_lock_comes_to_life_all_the_same(path: Path) -> None:
    owners, others = Owners(str(path)), Owners(str(path))
    file = path.with_name(f"{path.name}.{owners.me}.lock")
    looking = FileLock(file)
    looking.acquire()

    def delete() -> None:
        file.unlink()
        looking.release()

    timer = threading.Timer(0.05, delete)
    timer.start()
    owners.enter()
    timer.join()

    assert owners.intact()
    assert others.alive(owners.me)
    others.look_again()
    owners.leave()
    assert not others.alive(owners.me)


@pytest.mark.asyncio
async def test_opening_a_file_twice_in_one_process_ends_none_of_its_locks(journal: Journal, path: Path) -> None:
    """The system drops a process's locks on a file when any of its descriptors is closed, if one is not careful."""
    await journal.begin("k", ORIGIN)
    async with Journal(path, "narrative"):
        pass
    code = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('PRAGMA journal_mode = DELETE')"
    said = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)

    assert "database is locked" in said.stderr


@pytest.mark.asyncio
async def test_an_opening_of_an_open_journal_that_is_cancelled_does_not_close_it(journal: Journal) -> None:
    for turns in MOMENTS[:6]:
        await cancelled_after(turns, journal.open())
        await journal.begin(f"k{turns}", ORIGIN)


@pytest.mark.asyncio
async def test_one_file_by_two_names_is_one_journal(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    async with Journal(link, "narrative") as one, Journal(path.parent / "." / path.name, "narrative") as two:
        await one.begin("k", ORIGIN)
        work = await two.begin("k", ORIGIN)

        assert (work.mine, work.alive, work.taken) == (False, True, False)
        assert one.path == two.path == str(path)


# Many at once ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of what was committed at once."""
    sizes: list[int] = []
    carry_out = ledger.Ledger._carry_out

    def watched(self: ledger.Ledger, batch: Sequence[Write[Any]]) -> None:
        sizes.append(len(batch))
        carry_out(self, batch)

    monkeypatch.setattr(ledger.Ledger, "_carry_out", watched)
    return sizes


@pytest.mark.asyncio
async def test_writes_of_many_tasks_share_commits(journal: Journal, batches: list[int]) -> None:
    async def work(key: str) -> None:
        await journal.begin(key, ORIGIN)
        for _ in range(4):
            await journal.saw(key, RUN)

    await asyncio.gather(*(work(f"k{number}") for number in range(64)))

    assert sum(batches) == 64 * 5
    assert len(batches) <= 10


@pytest.mark.asyncio
async def test_what_comes_during_a_commit_waits_for_the_next(journal: Journal, batches: list[int]) -> None:
    going, go = threading.Event(), threading.Event()

    def slow(records: Records) -> None:
        going.set()
        go.wait(5)

    first = journal.write(slow, "")
    await asyncio.to_thread(going.wait, 5)
    others = [asyncio.create_task(journal.begin(f"k{number}", ORIGIN)) for number in range(10)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in others)
    go.set()
    await first.future
    await asyncio.gather(*others)

    assert batches == [1, 10]


@pytest.mark.asyncio
async def test_a_caller_returns_only_when_others_can_read_what_it_wrote(journal: Journal, path: Path) -> None:
    async def work(key: str) -> None:
        await journal.begin(key, ORIGIN)
        with closing(sqlite3.connect(path)) as reader:
            assert reader.execute("SELECT count(*) FROM work WHERE key = ?", (key,)).fetchone() == (1,)

    await asyncio.gather(*(work(f"k{number}") for number in range(20)))


@pytest.mark.asyncio
async def test_one_write_that_fails_fails_alone(journal: Journal, batches: list[int]) -> None:
    await journal.begin("k", ORIGIN)
    outcomes = await asyncio.gather(
        journal.begin("a", ORIGIN),
        journal.saw("unknown", RUN),
        sql(journal, "INSERT INTO work (vendor, key) VALUES ('narrative', 'half')"),
        journal.begin("\udcff".encode("utf-8", "replace").decode(), ORIGIN),
        journal.checkpoint("k", "a lone surrogate: \ud800"),
        journal.begin("b", ORIGIN),
        return_exceptions=True,
    )

    assert [type(outcome) for outcome in outcomes] == [Work, JournalError, JournalError, Work, JournalError, Work]
    assert "NOT NULL constraint failed" in str(outcomes[2])
    assert "UnicodeEncodeError" in str(outcomes[4])
    assert [work.key async for work in journal.unfinished()] == ["k", "a", "?", "b"]
    assert batches[:2] == [1, 6]


@pytest.mark.asyncio
async def test_a_store_that_makes_a_mistake_is_told_to_who_writes_and_written_to_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a mistake")

    with monkeypatch.context() as mistaken:
        mistaken.setattr(ledger.Ledger, "_carry_out", fails)
        for _ in range(2):
            with pytest.raises(JournalError, match=r"journal\.db.*a mistake"):
                await journal.begin("k", ORIGIN)
    assert (await journal.begin("k", ORIGIN)).fresh
    assert caplog.text.count("a journal cannot be written") == 2


@pytest.mark.asyncio
async def test_what_fails_while_a_connection_is_idle_keeps_nothing_from_being_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, idle = thread.ConnectionThread(), threading.Semaphore(0)

    def fails() -> None:
        idle.release()
        raise ZeroDivisionError("a mistake")

    one.when_idle(0.01, fails)
    try:
        for number in range(3):
            assert await asyncio.wait_for(one.do(partial(int, number)), 10) == number
            assert await asyncio.to_thread(idle.acquire, timeout=10)
    finally:
        one.close()
    assert "is idle has failed, and is tried again" in caplog.text


@pytest.mark.asyncio
async def test_no_task_is_left_when_idle_and_no_thread_when_closed(path: Path) -> None:
    journal = Journal(path, "narrative")
    await journal.open()
    await asyncio.gather(*(journal.begin(f"k{number}", ORIGIN) for number in range(5)))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await journal.close()
    await journal.close()

    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert workers() == []
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name]


@pytest.mark.asyncio
async def test_closing_waits_for_what_is_being_written(path: Path) -> None:
    journal = Journal(path, "narrative")
    await journal.open()
    writing = [asyncio.create_task(journal.begin(f"k{number}", ORIGIN)) for number in range(20)]
    await asyncio.sleep(0)
    await journal.close()

    assert all(each.done() for each in writing)
    assert all(work.fresh for work in await asyncio.gather(*writing))


@pytest.mark.asyncio
async def test_a_journal_that_is_not_open_says_so_and_may_be_opened_again(path: Path) -> None:
    journal = Journal(path, "narrative")
    with pytest.raises(JournalError, match=r"it is not open\. Nothing was sent"):
        await journal.begin("k", ORIGIN)
    await asyncio.gather(journal.open(), journal.open())
    first = await journal.begin("k", ORIGIN)
    await journal.open()
    await asyncio.gather(journal.close(), journal.close())
    with pytest.raises(JournalError, match=r"it is not open"):
        await journal.get("k")
    with pytest.raises(JournalError, match=r"it is not open"):
        await anext(journal.unfinished())
    async with journal:
        second = await journal.begin("k", ORIGIN)

    assert second.taken
    assert second.owner != first.owner


def test_a_journal_works_on_uvloop(path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def use() -> list[bool]:
        async with Journal(path, "narrative") as journal:
            begun = await asyncio.gather(*(journal.begin(f"k{number % 5}", ORIGIN) for number in range(50)))
            waiting = asyncio.create_task(journal.begin("late", ORIGIN))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert [work.key async for work in journal.unfinished()] == [f"k{number}" for number in range(5)]
            return [work.fresh for work in begun]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(use()) == [True] * 5 + [False] * 45


def test_a_journal_that_nobody_closed_does_not_keep_the_interpreter(path: Path) -> None:
    with process("forgotten", path) as running:
        assert running.popen.wait(20) == 0

    async def take() -> bool:
        async with Journal(path, "narrative") as journal:
            work = await journal.begin("k", ORIGIN)
            return work.taken

    assert asyncio.run(take())


def test_a_write_that_waits_for_a_locked_file_does_not_keep_the_interpreter(path: Path) -> None:
    with process("locked_out", path) as running:
        assert running.heard() == {"open": True}
        with database(path, "BEGIN IMMEDIATE"):
            running.tell()
            assert running.popen.wait(0.9 * ledger.PATIENCE) in {0, 1}  # an exit that complains is one, too


def test_no_process_is_starved_by_busy_others(path: Path) -> None:
    running = [Process("busy", path, 16, 1.0) for _ in range(3)]
    said = [each.end()[0] for each in running]

    assert all(each["count"] > 16 for each in said)
    assert max(each["slowest"] for each in said) < ledger.PATIENCE / 2


# Cancellation ---------------------------------------------------------------------------------------------------------

MOMENTS = [0, 1, 2, 3, 4, 6, 10, 20, 50, 100, 200, 500, 2000]
"""How many turns of the loop pass before a call is cancelled."""


async def cancelled_after(turns: int, call: Coroutine[Any, Any, object]) -> bool:
    """Cancel a call at some await; tell whether it was not over before."""
    task = asyncio.create_task(call)
    for _ in range(turns):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


@pytest.mark.asyncio
async def test_a_cancelled_write_is_whole_or_not_there_and_the_others_go_on(journal: Journal) -> None:
    for number, turns in enumerate(MOMENTS):
        key = f"k{number}"
        await journal.begin(key, ORIGIN)
        others = [asyncio.create_task(journal.begin(f"{key}-{other}", ORIGIN)) for other in range(5)]
        await cancelled_after(turns, journal.saw(key, OVER, done=True))
        work = await journal.get(key)

        assert work is not None
        assert (work.state, work.run) in {("starting", None), ("done", OVER)}
        assert all(each.fresh for each in await asyncio.gather(*others))


@pytest.mark.asyncio
async def test_a_cancelled_claim_is_given_back(journal: Journal, path: Path) -> None:
    async with Journal(path, "narrative") as closed:
        await closed.begin("left", ORIGIN)
        await closed.handle("left", "run", "left", "name")
    await journal.begin("k", ORIGIN)
    cancelled = 0
    for number, turns in enumerate(MOMENTS):
        key = f"k{number}"
        if await cancelled_after(turns, journal.begin(key, ORIGIN)):
            cancelled += 1
            assert await journal.get(key) is None
        if await cancelled_after(turns, journal.attach(f"{key}-open", ORIGIN, RUN)):
            assert await journal.get(f"{key}-open") is None
        if await cancelled_after(turns, journal.handle("k", "run", key, "name")):
            assert key not in {each.action_id for each in await journal.answers("k", "run")}
        if await cancelled_after(turns, journal.begin("left", ORIGIN)):
            left = await journal.get("left")
            assert left is not None
            assert not left.alive
        else:  # the next one claims it anew
            await journal.release("left")
        if await cancelled_after(turns, journal.handle("left", "run", "left", "name", repeatable=True)):
            assert [(each.state, each.alive) for each in await journal.answers("left", "run")] == [("running", False)]
        else:
            await journal.cut_off("left", "run", "left")

    assert cancelled > 3


@pytest.mark.asyncio
async def test_a_note_of_a_start_that_is_cancelled_is_taken_back_since_nothing_was_sent(journal: Journal) -> None:
    cancelled = 0
    for number, turns in enumerate(MOMENTS):
        key = f"k{number}"
        await journal.begin(key, ORIGIN)
        if await cancelled_after(turns, journal.checkpoint(key, "1")):
            cancelled += 1
            work = await journal.get(key)
            assert work is not None
            assert work.start_note is None
        await journal.checkpoint(key, "2", key, 60.0)
        if await cancelled_after(turns, journal.reserve(key, "another")):
            work = await journal.get(key)
            assert work is not None
            assert (work.start_note, work.group_name) == ("2", key)

    assert cancelled > 1


@pytest.mark.asyncio
@pytest.mark.parametrize("cancel_when_told", [False, True])
async def test_a_claim_is_given_back_whether_or_not_the_file_was_faster(
    journal: Journal, cancel_when_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, go = threading.Event(), threading.Event()

    def slow(records: Records) -> None:
        going.set()
        go.wait(5)

    blocker = journal.write(slow, "")
    claim = asyncio.create_task(journal.begin("k", ORIGIN))
    if cancel_when_told:  # the future has its result, and the task has not taken it yet
        await asyncio.sleep(0)
        assert journal._writer is not None
        write = next(each for each in journal._writer._waiting if each is not blocker)
        tell = write.tell

        def told() -> None:
            tell()
            claim.cancel()

        monkeypatch.setattr(write, "tell", told)
    else:
        await asyncio.to_thread(going.wait, 5)
        claim.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await claim
    await blocker.future

    assert await journal.get("k") is None
    assert (await journal.begin("k", ORIGIN)).fresh


@pytest.mark.asyncio
async def test_a_claim_that_was_not_made_is_not_given_back(journal: Journal, other: Journal) -> None:
    await other.begin("k", ORIGIN)
    await other.handle("k", "run", "a", "name")
    for turns in MOMENTS[:8]:
        await cancelled_after(turns, journal.begin("k", ORIGIN))
        await cancelled_after(turns, journal.handle("k", "run", "a", "name"))
        await cancelled_after(turns, journal.handle("unknown", "run", "a", "name"))

    work = await other.get("k")
    assert work is not None
    assert work.mine
    assert [each.mine for each in await other.answers("k", "run")] == [True]


@pytest.mark.asyncio
async def test_a_claim_that_is_cancelled_while_the_journal_closes_is_anybodys(path: Path) -> None:
    for turns in MOMENTS[:10]:
        journal = Journal(path, "narrative")
        await journal.open()
        claim = asyncio.create_task(journal.begin("k", ORIGIN))
        await asyncio.sleep(0)
        closing = asyncio.create_task(journal.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        claim.cancel()
        await asyncio.wait([claim, closing])
        assert closing.exception() is None

    async with Journal(path, "narrative") as journal:
        work = await journal.begin("k", ORIGIN)
        assert work.fresh or work.taken


@pytest.mark.asyncio
async def test_an_opening_that_is_cancelled_leaves_nothing_and_a_closing_is_finished(path: Path) -> None:
    for turns in MOMENTS:
        journal = Journal(path, "narrative")
        await cancelled_after(turns, journal.open())
        if journal._writer is not None:
            await journal.begin("k", ORIGIN)
        await cancelled_after(turns, journal.close())

        # Cancelled before its first step, a close has not begun.
        await journal.close()
        assert lock_files(path) == []
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert workers() == []


@pytest.mark.asyncio
async def test_a_closing_that_has_begun_is_finished_however_often_it_is_cancelled(path: Path) -> None:
    journal = Journal(path, "narrative")
    await journal.open()
    closing = asyncio.create_task(journal.close())
    await asyncio.sleep(0)
    while not closing.done():
        closing.cancel()
        await asyncio.sleep(0)

    assert closing.cancelled()
    assert lock_files(path) == []


@pytest.mark.asyncio
async def test_an_opening_that_is_cancelled_and_would_have_failed_is_just_cancelled(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "narrative")
    opening = asyncio.create_task(journal.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    with pytest.raises(ConfigurationError, match="it is a folder"):
        await journal.open()


@pytest.mark.asyncio
async def test_a_journal_survives_that_every_task_is_cancelled(journal: Journal) -> None:
    """As some programs do when they are told to stop, before they clean up."""
    going, go = threading.Event(), threading.Event()

    def slow(records: Records) -> None:
        going.set()
        go.wait(5)

    blocker = journal.write(slow, "")
    await asyncio.to_thread(going.wait, 5)
    waiting = asyncio.create_task(journal.attach("k", ORIGIN, RUN))
    kept = journal.write(lambda records: records.begin("kept", ORIGIN), "")
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait([waiting])
    go.set()

    assert (await kept.future).fresh
    assert blocker.future.cancelled()
    assert [work.key async for work in journal.unfinished()] == ["kept"]


@pytest.mark.asyncio
async def test_what_waits_is_written_even_if_the_task_that_writes_is_cancelled(journal: Journal) -> None:
    going, go = threading.Event(), threading.Event()

    def slow(records: Records) -> None:
        going.set()
        go.wait(5)

    blocker = journal.write(slow, "")
    await asyncio.to_thread(going.wait, 5)
    waiting = asyncio.create_task(journal.begin("k", ORIGIN))
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task(), waiting}:
        task.cancel()
    go.set()

    assert (await waiting).fresh
    assert blocker.future.cancelled()


@pytest.mark.asyncio
async def test_work_that_must_be_finished_may_itself_be_cancelled() -> None:
    inner: list[asyncio.Task[None]] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        inner.append(cast("asyncio.Task[None]", task))
        await asyncio.Event().wait()

    outer = asyncio.create_task(run_shielded(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    outer.cancel()
    await asyncio.sleep(0)
    assert not outer.done()
    inner[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer


# What is kept ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("text", [STRANGE, json.dumps("x" * 1_000_000), ""], ids=["strange", "1 MB", "empty"])
async def test_any_text_comes_back_as_it_was(journal: Journal, path: Path, text: str) -> None:
    await journal.begin("k", text)
    await journal.checkpoint("k", text)
    async with Journal(path, "narrative") as other:
        started = await other.get("k")
    await journal.saw("k", text)
    await journal.handle("k", "run \x00\u2028", "action '\"", "name \U0001f9fe")
    await journal.answered("k", "run \x00\u2028", "action '\"", text, True)
    async with Journal(path, "narrative") as other:
        work, handlings = await other.get("k"), await other.answers("k", "run \x00\u2028")

    assert started is not None
    assert work is not None
    assert (work.origin, started.start_note, work.run) == (text, text, text)
    assert [(each.run_id, each.action_id, each.name, each.output, each.is_error) for each in handlings] == [
        ("run \x00\u2028", "action '\"", "name \U0001f9fe", text, True)
    ]


@pytest.mark.asyncio
async def test_what_the_journal_tells_and_raises_pickles_and_shows_no_contents(journal: Journal) -> None:
    work = await journal.begin("k", '"secret"')
    handling = await journal.handle("k", "run", "a", "name")
    error = JournalError("/x/journal.db", "the disk is full", "Nothing was sent")
    back: JournalError = pickle.loads(pickle.dumps(error))

    assert pickle.loads(pickle.dumps((work, handling))) == (work, handling)
    assert "secret" not in repr(work)
    assert isinstance(back, AgentRunsError)
    assert (back.path, back.reason, back.standing) == (error.path, error.reason, error.standing)
    assert str(back) == "could not use the journal /x/journal.db: the disk is full. Nothing was sent"
    assert str(JournalError("/x", "it broke")) == "could not use the journal /x: it broke"


@pytest.mark.asyncio
@pytest.mark.parametrize("key", ["", "a\0b", "x" * 1001, "\ud800", 5, None, b"k"])
async def test_a_key_that_is_none_is_refused(journal: Journal, key: Any) -> None:
    for call in (
        lambda: journal.begin(key, ORIGIN),
        lambda: journal.attach(key, ORIGIN, RUN),
        lambda: journal.checkpoint(key, "{}"),
        lambda: journal.saw(key, RUN),
        lambda: journal.forget_start(key),
        lambda: journal.release(key),
        lambda: journal.get(key),
        lambda: journal.wait(key, 0.0),
        lambda: journal.handle(key, "run", "a", "name"),
        lambda: journal.answered(key, "run", "a", "1", False),
        lambda: journal.abandon_handler(key, "run", "a"),
        lambda: journal.posted(key, "run"),
        lambda: journal.answers(key, "run"),
    ):
        with pytest.raises(ConfigurationError, match=r"^key is "):
            await call()


@pytest.mark.asyncio
async def test_any_other_key_is_fine(journal: Journal) -> None:
    for key in (" ", "x" * 1000, "\U0001f9fe" * 1000, "'; DROP TABLE work; --", "a\nb", "%", "K", "k"):
        assert (await journal.begin(key, ORIGIN)).fresh
        assert not (await journal.begin(key, ORIGIN)).fresh


@pytest.mark.asyncio
async def test_unfinished_work_comes_oldest_first_and_needs_no_memory(journal: Journal) -> None:
    origin = json.dumps("x" * 4000)
    await asyncio.gather(*(journal.begin(f"k{number}", origin) for number in range(5000)))
    await asyncio.gather(*(journal.saw(f"k{number}", OVER, done=True) for number in range(0, 5000, 10)))
    async with aclosing(journal.unfinished()) as first:
        await anext(first)  # what is imported at first use is not counted
    gc.collect()
    tracemalloc.start()
    expected = (number for number in range(5000) if number % 10)
    try:
        async for work in journal.unfinished():
            assert work.key == f"k{next(expected)}"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert next(expected, None) is None
    assert peak < 1_000_000  # the texts of all are 20 MB


@pytest.mark.asyncio
async def test_unfinished_work_may_be_worked_at_while_it_is_iterated_over(journal: Journal) -> None:
    await asyncio.gather(*(journal.attach(f"k{number}", ORIGIN, RUN) for number in range(100)))
    seen = []
    async for work in journal.unfinished():
        await journal.saw(work.key, OVER, done=True)
        seen.append(work.key)

    assert seen == [f"k{number}" for number in range(100)]
    assert [work async for work in journal.unfinished()] == []


# Files that are refused -----------------------------------------------------------------------------------------------


async def refused(path: Path | str) -> str:
    """Return why a path is refused, having seen that everything in its folder stays as it was."""
    folder = Path(path).parent
    before = contents(folder)
    with pytest.raises(ConfigurationError) as caught:
        await Journal(path, "narrative").open()
    assert contents(folder) == before
    assert workers() == []
    assert str(path) in str(caught.value)
    return str(caught.value)


def contents(folder: Path) -> dict[str, str]:
    return {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest()
        for each in (folder.iterdir() if folder.is_dir() else ())
        if each.is_file() and not each.name.endswith(("-shm", "-wal"))
    }


async def filled(path: Path, count: int = 200) -> None:
    async with Journal(path, "narrative") as journal:
        await asyncio.gather(*(journal.attach(f"k{number}", ORIGIN, RUN * 20) for number in range(count)))


@contextmanager
def database(path: Path, *statements: str) -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in statements:
            connection.execute(statement)
        yield
    finally:
        connection.close()


@pytest.mark.asyncio
async def test_a_folder_or_a_missing_one_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert "it is a folder; pass the path of a file in it" in await refused(tmp_path)
    assert f"there is no folder {tmp_path / 'missing'}; create it" in await refused(tmp_path / "missing" / "j.db")
    assert "there is no folder" in await refused(tmp_path / "file" / "j.db")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.asyncio
async def test_a_pipe_is_no_journal(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert "it is not a regular file; use another path" in await refused(tmp_path / "pipe")


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b", "\ud800", None, 5, b""])
def test_what_is_not_the_path_of_a_file_is_refused_at_once(path: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^journal is .*; it must be the path of a file"):
        Journal(path, "narrative")


def test_a_vendor_needs_a_name() -> None:
    with pytest.raises(ConfigurationError, match=r"^vendor is ''"):
        Journal("journal.db", "")


@pytest.mark.asyncio
@pytest.mark.parametrize("junk", [b"x", b"not a database\n" * 1000, bytes(5000), b"SQLite format 4\0" + bytes(5000)])
async def test_a_file_that_is_not_sqlites_is_left_alone(path: Path, junk: bytes) -> None:
    path.write_bytes(junk)

    assert "it is not an SQLite file; use another path" in await refused(path)


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize("application_id", [0, 0x0F055112])
async def test_another_programs_database_is_left_alone(path: Path, mode: str, application_id: int) -> None:
    made = (f"PRAGMA journal_mode = {mode}", f"PRAGMA application_id = {application_id}", "CREATE TABLE theirs (a)")
    with database(path, *made):
        pass
    assert f"of another program (application id {application_id:#x}); use another path" in await refused(path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]

    with database(path, "INSERT INTO theirs VALUES (1)"):  # while they use it
        assert "of another program" in await refused(path)


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [0, -1, len(schema.STEPS) + 1, 99])
async def test_another_version_is_left_alone(path: Path, version: int) -> None:
    await filled(path)
    with database(path, f"PRAGMA user_version = {version}"):
        pass
    text = await refused(path)

    assert f"it has schema version {version}, and this agentruns knows versions up to {len(schema.STEPS)}" in text
    assert "upgrade agentruns, or use another path" in text
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.asyncio
async def test_an_upgrade_that_happens_meanwhile_is_seen(path: Path) -> None:
    await filled(path, 1)
    with database(path, "PRAGMA user_version = 99"):  # still in the log only, not in the header
        assert "it has schema version 99" in await refused(path)


@pytest.mark.asyncio
async def test_a_file_of_an_older_version_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(path)
    newer = (*schema.STEPS, ("ALTER TABLE work ADD COLUMN mood TEXT", "UPDATE work SET mood = 'fine'"))
    monkeypatch.setattr(schema, "STEPS", newer)
    async with Journal(path, "narrative") as journal:
        assert await sql(journal, "SELECT count(*) FROM work WHERE mood = 'fine'") == [(200,)]
        assert await sql(journal, "PRAGMA user_version") == [(len(newer),)]

    monkeypatch.setattr(schema, "STEPS", newer[:1])
    assert f"it has schema version {len(newer)}, and this agentruns knows versions up to 1" in await refused(path)


@pytest.mark.asyncio
async def test_an_upgrade_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(path)
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, ("DROP TABLE handling", "DROP TABLE nonsense")))

    assert "no such table: nonsense" in await refused(path)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:8192] + os.urandom(8192) + data[16384:],
        lambda data: data[: len(data) // 2],
        lambda data: data[:100] + os.urandom(2000) + data[2100:],
        lambda data: data[:4096],
    ],
    ids=["middle", "cut off", "first page", "only one page"],
)
async def test_a_damaged_file_is_left_alone(path: Path, spoil: Callable[[bytes], bytes]) -> None:
    await filled(path)
    path.write_bytes(spoil(path.read_bytes()))

    assert "it is damaged" in await refused(path)
    assert lock_files(path) == []


@pytest.mark.asyncio
async def test_a_file_whose_index_is_damaged_is_left_alone(path: Path) -> None:
    await filled(path)
    change = "UPDATE sqlite_master SET sql = replace(sql, '<>', '=') WHERE name = 'unfinished'"
    with database(path, "PRAGMA writable_schema = ON", change):
        pass

    assert "it is damaged (" in await refused(path)


@pytest.mark.asyncio
async def test_a_damaged_file_keeps_what_only_its_log_holds(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    async with Journal(path, "narrative") as journal:
        await asyncio.gather(*(journal.attach(f"k{number}", ORIGIN, RUN * 20) for number in range(200)))
        await sql(journal, "SELECT 1")
        with database(path, "PRAGMA wal_checkpoint"):
            await journal.saw("k5", OVER)
            for each in (path, Path(f"{path}-wal")):
                shutil.copy(each, copy)
    spoilt = copy / path.name
    data = spoilt.read_bytes()
    spoilt.write_bytes(data[:8192] + os.urandom(8192) + data[16384:])
    log = Path(f"{spoilt}-wal").read_bytes()

    assert "it is damaged" in await refused(spoilt)
    assert Path(f"{spoilt}-wal").read_bytes() == log


@pytest.mark.asyncio
async def test_what_a_crash_during_the_first_opening_left_is_cleared_away(path: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.db"
    made = ("PRAGMA cache_size = 2", "BEGIN IMMEDIATE", "CREATE TABLE t (a)")
    with database(half, *made, *["INSERT INTO t VALUES (zeroblob(4000))"] * 100):
        shutil.copy(half, path)
        shutil.copy(f"{half}-journal", f"{path}-journal")
    assert path.stat().st_size > 4096

    async with Journal(path, "narrative") as journal:
        assert (await journal.begin("k", ORIGIN)).fresh


@pytest.mark.asyncio
async def test_a_file_system_without_shared_memory_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patiently = ledger.Ledger._patiently
    monkeypatch.setattr(
        ledger.Ledger, "_patiently", lambda self, sql: "delete" if "WAL" in sql else patiently(self, sql)
    )

    with pytest.raises(ConfigurationError, match="does not let several processes share it; use a path on a local disk"):
        await Journal(path, "narrative").open()
    assert lock_files(path) == []


@pytest.mark.asyncio
async def test_a_file_system_without_locks_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that the system does not hold would outlive a killed process, and its work would stay where it is."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert "does not let several processes share it; use a path on a local disk" in await refused(path)


@pytest.mark.asyncio
async def test_opening_and_closing_changes_nothing(path: Path) -> None:
    await filled(path)
    before = contents(path.parent)
    async with Journal(path, "narrative") as journal:
        await journal.get("k1")
        assert [work.key async for work in journal.unfinished()][:2] == ["k0", "k1"]

    assert contents(path.parent) == before


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
async def test_a_file_that_another_program_keeps_locked_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    await filled(path)
    monkeypatch.setattr(ledger, "PATIENCE", 0.1)
    with database(path, f"PRAGMA journal_mode = {mode}", "BEGIN EXCLUSIVE"):
        assert "another program keeps it locked" in await refused(path)
    await filled(path)


@pytest.mark.asyncio
async def test_an_opening_waits_for_another_program_to_let_go(path: Path) -> None:
    await filled(path)
    journal = Journal(path, "narrative")
    with database(path, "BEGIN IMMEDIATE"):
        opening = asyncio.create_task(journal.open())
        await asyncio.sleep(0.1)
        assert not opening.done()
    await opening
    await journal.close()


@pytest.mark.asyncio
async def test_without_the_extra_the_error_names_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("opening", "owners", "ledger", "records"):
        monkeypatch.delitem(sys.modules, f"agentruns._keeping.journal.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "filelock", None)

    with pytest.raises(ConfigurationError, match=r"filelock.*: run `pip install 'agentruns\[journal\]'`"):
        await Journal(path, "narrative").open()


def test_importing_the_journal_imports_no_driver() -> None:
    code = "import sys, agentruns._keeping.journal; print({'filelock', 'sqlite3'} & set(sys.modules))"
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it imports one
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)

    assert said.stdout == "set()\n"


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """Return a folder that everybody can reach; pytest's own are for their owner only."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("what", ["file", "folder", "file of somebody else"])
def test_a_file_or_folder_that_may_not_be_written_is_refused(open_to_all: Path, what: str) -> None:
    path = open_to_all / "journal.db"
    asyncio.run(filled(path))
    if what == "file":
        path.chmod(0o444)
        open_to_all.chmod(0o777)
    elif what == "folder":
        path.chmod(0o666)
        open_to_all.chmod(0o555)
    else:
        if os.geteuid():
            pytest.skip("only root can make a file that is somebody else's")
        open_to_all.chmod(0o777)
    before = path.read_bytes()
    with process("unprivileged", path) as running:
        text = running.heard()["error"]
    open_to_all.chmod(0o755)

    assert text.startswith(f"ConfigurationError: cannot open the journal {path}: ")
    assert "give this user write permission for the file and its folder" in text or "permissions" in text
    assert path.read_bytes() == before
    assert [each.name for each in open_to_all.iterdir() if not each.name.endswith(("-shm", "-wal"))] == ["journal.db"]


@pytest.mark.asyncio
async def test_a_folder_that_takes_no_files_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("this system has no /proc")
    monkeypatch.setattr(owners, "_PATIENCE", 0.01)
    journal = Journal("/proc/work.db", "acme")
    with pytest.raises(ConfigurationError, match="no file can be made in /proc; use a path in a folder that can be"):
        await journal.open()


@pytest.mark.asyncio
async def test_a_read_only_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File modes do not stop root; what SQLite cannot open for writing it opens for reading, and this does, too."""
    await filled(path)
    made = ledger.Ledger.__init__

    def read_only(self: ledger.Ledger, path: str, *others: Any) -> None:
        made(self, path, *others)
        sqlite3.Connection.__init__(self, f"file:{path}?mode=ro", uri=True, isolation_level=None)

    monkeypatch.setattr(ledger.Ledger, "__init__", read_only)

    assert "it cannot be written; give this user write permission" in await refused(path)


# Modes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("there", [False, True])
async def test_only_its_owner_can_read_the_journal_and_what_lies_beside_it(path: Path, there: bool) -> None:
    old = os.umask(0)
    try:
        if there:
            path.touch()
        async with Journal(path, "narrative") as journal:
            await journal.begin("k", ORIGIN)
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(old)

    assert set(modes.values()) == {0o600}
    assert len(modes) == 4
    assert {f"{path.name}-wal", f"{path.name}-shm", path.name} < set(modes)


@pytest.mark.asyncio
async def test_writes_are_on_the_disk_when_they_return(journal: Journal) -> None:
    assert await sql(journal, "PRAGMA synchronous") == [(2,)]
    assert await sql(journal, "PRAGMA journal_mode") == [("wal",)]
    assert await sql(journal, "PRAGMA foreign_keys") == [(1,)]


# Trouble while it is open ---------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_full_disk_is_told_and_the_journal_goes_on_when_there_is_room(journal: Journal, path: Path) -> None:
    await journal.begin("k", ORIGIN)
    pages = (await sql(journal, "PRAGMA page_count"))[0][0]
    await sql(journal, f"PRAGMA max_page_count = {pages + 2}")
    outcomes = await asyncio.gather(
        journal.checkpoint("k", "{}"),
        journal.begin("l", json.dumps("x" * 100_000)),
        journal.begin("small", ORIGIN),
        return_exceptions=True,
    )
    await sql(journal, "PRAGMA max_page_count = 1000000")
    begun = await journal.begin("l", json.dumps("x" * 100_000))

    assert isinstance(outcomes[0], tuple)
    assert isinstance(outcomes[2], Work)
    assert str(outcomes[1]) == (
        f"could not use the journal {path}: the disk is full; free some space, then make the same call again "
        "(SQLITE_FULL: database or disk is full). Nothing was sent"
    )
    assert isinstance(outcomes[1], JournalError)
    assert isinstance(outcomes[1].__cause__, sqlite3.OperationalError)
    assert begun.fresh


@pytest.mark.asyncio
async def test_a_disk_that_takes_no_more_bytes_is_told_and_nothing_is_lost(path: Path) -> None:
    with process("full", path, "k") as running:
        outcomes = running.heard()["outcomes"]
        assert running.heard() == {"ok": True}
        running.popen.wait(20)

    assert outcomes[0].startswith(f"JournalError: could not use the journal {path}: the disk fails or has no room")
    assert "The run goes on at the vendor" in outcomes[0]
    assert outcomes[1].startswith("Work: ")
    async with Journal(path, "narrative") as journal:
        work = await journal.get("k")
        assert work is not None
        assert work.run == '"later"'


@pytest.mark.asyncio
async def test_a_file_that_is_deleted_or_replaced_is_missed_at_the_next_write(path: Path) -> None:
    journal = Journal(path, "narrative")
    await journal.open()
    await journal.begin("k", ORIGIN)
    path.rename(path.with_name("moved"))
    with pytest.raises(JournalError, match=r"the file was deleted or replaced .* The run goes on at the vendor"):
        await journal.saw("k", RUN)
    path.touch()
    with pytest.raises(JournalError, match=r"the file was deleted or replaced"):
        await journal.begin("l", ORIGIN)
    path.with_name("moved").rename(path)
    await journal.saw("k", RUN)
    await journal.close()


@pytest.mark.asyncio
async def test_an_owner_whose_lock_file_is_gone_does_nothing_any_more(journal: Journal, path: Path) -> None:
    await journal.begin("k", ORIGIN)
    (path.parent / lock_files(path)[0]).unlink()

    with pytest.raises(JournalError, match=r"its lock file was deleted, .*; start the program again\. The handler was"):
        await journal.handle("k", "run", "a", "name")


@pytest.mark.asyncio
async def test_a_file_that_became_read_only_is_told(journal: Journal) -> None:
    await journal.begin("k", ORIGIN)
    await sql(journal, "PRAGMA query_only = ON")
    with pytest.raises(JournalError, match="it cannot be written; give this user write permission"):
        await journal.saw("k", RUN)


@pytest.mark.asyncio
async def test_a_file_that_another_program_keeps_locked_is_told_to_all_at_once(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await journal.begin("k", ORIGIN)
    monkeypatch.setattr(ledger, "PATIENCE", 1.0)
    start = time.monotonic()
    with database(path, "BEGIN IMMEDIATE"):
        outcomes = await asyncio.gather(
            *(journal.begin(f"k{number}", ORIGIN) for number in range(20)), return_exceptions=True
        )
    elapsed = time.monotonic() - start

    assert {type(outcome) for outcome in outcomes} == {JournalError}
    assert "another program keeps it locked" in str(outcomes[0])
    assert 1.0 <= elapsed < 15  # one after the other they would take 20
    assert (await journal.begin("k0", ORIGIN)).fresh


@pytest.mark.asyncio
async def test_damage_that_shows_later_is_told(journal: Journal) -> None:
    await journal.begin("k", ORIGIN)
    page = (await sql(journal, "SELECT rootpage FROM sqlite_master WHERE name = 'handling'"))[0][0]
    await sql(journal, "PRAGMA writable_schema = ON")
    await sql(journal, f"UPDATE sqlite_master SET rootpage = {page + 1000} WHERE name = 'handling'")
    await sql(journal, "PRAGMA writable_schema = RESET")

    with pytest.raises(JournalError, match=r"it is damaged; restore it from a backup, or use another path"):
        await journal.handle("k", "run", "a", "name")


def test_an_error_without_a_remedy_of_ours_is_shown_as_it_is() -> None:
    assert problems.reason(ValueError("odd")) == "ValueError: odd"
    assert problems.reason(OSError("odd")) == "odd"
    assert problems.reason(PermissionError(13, "no")).startswith("it cannot be written")
    assert problems.reason(OSError(28, "no")).startswith("the disk is full")
