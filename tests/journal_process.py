"""
What test_journal.py runs in processes of its own: `python -m tests.journal_process COMMAND PATH ...`.

Says what it did as lines of JSON on stdout; waits for a line on stdin where it has to wait.
"""
# ruff: noqa: ASYNC240 - there is nobody else who waits

import asyncio
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from agentruns._aio.shield import run_shielded
from agentruns._keeping.journal import Journal
from agentruns._keeping.journal.lease import clock
from agentruns.errors import AgentRunsError, JournalError

NOBODY = 65534


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def told() -> None:
    await asyncio.to_thread(sys.stdin.readline)


async def hold(path: str, key: str) -> None:
    """Be at a piece of work, with one handler running, until killed."""
    async with Journal(path, "narrative") as journal:
        work = await journal.begin(key, "{}")
        await journal.saw(key, '{"state":1}')
        handling = await journal.handle(key, "run-1", "action-1", "approve")
        say(fresh=work.fresh, taken=work.taken, owner=work.owner, running=handling.fresh)
        await told()


async def act(path: str, key: str) -> None:
    """Do something under a key as often as can be, and say when, until that is cut off."""
    async with Journal(path, "narrative") as journal:
        await journal.begin(key, "{}")
        try:
            async with journal.acting():
                while True:
                    say(at=clock())
                    await asyncio.sleep(0.01)
        except JournalError:
            say(cut_off=True)
        await told()


async def race(path: str, key: str, tasks: str) -> None:
    """Begin the same work in many tasks when told, and say how many of them won."""
    say(ready=True)
    await told()
    async with Journal(path, "narrative") as journal:
        begun = await asyncio.gather(*(journal.begin(key, "{}") for _ in range(int(tasks))))
        handled = await asyncio.gather(*(journal.handle(key, "run-1", "a", "b") for _ in range(int(tasks))))
        say(fresh=sum(work.fresh for work in begun), handlers=sum(each.fresh for each in handled))
        await told()


async def steps(path: str) -> None:
    """Write without end, and say what has been written."""
    async with Journal(path, "narrative") as journal:

        async def work(lane: int) -> None:
            number = 0
            while True:
                key = f"{lane}-{number}"
                await journal.begin(key, json.dumps({"origin": key}))
                say(key=key, state="starting")
                await journal.saw(key, json.dumps({"run": key}))
                say(key=key, state="open")
                await journal.handle(key, "run", "action", "name")
                say(key=key, action="running")
                await journal.answered(key, "run", "action", json.dumps({"answer": key}), False)
                say(key=key, action="answered")
                await journal.posted(key, "run")
                say(key=key, action="posted")
                await journal.saw(key, json.dumps({"run": key, "over": True}), done=True)
                say(key=key, state="done")
                number += 1

        await asyncio.gather(*(work(lane) for lane in range(4)))


async def fork(path: str, key: str) -> None:
    """Leave a child that knows nothing of the journal, and be at a piece of work until killed."""
    async with Journal(path, "narrative") as journal:
        await journal.begin(key, "{}")
        if not os.fork():
            say(child=os.getpid())
            signal.pause()
        await told()


async def full(path: str, key: str) -> None:
    """Write until no file may grow any more, and again when it may."""
    async with Journal(path, "narrative") as journal:
        await journal.begin(key, "{}")
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size + 50_000, most))
        outcomes = await asyncio.gather(
            journal.saw(key, json.dumps("x" * 1_000_000)),
            journal.begin("small", "{}"),
            return_exceptions=True,
        )
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        say(outcomes=[f"{type(outcome).__name__}: {outcome}" for outcome in outcomes])
        await journal.saw(key, '"later"')
        say(ok=True)


async def unprivileged(path: str) -> None:
    """Open the journal as somebody whom file modes stop."""
    importlib.import_module("agentruns._keeping.journal.opening")  # root's Python may be for root only
    await run_shielded(asyncio.sleep(0))  # anyio imports as it goes
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        async with Journal(path, "narrative"):
            say(opened=True)
    except AgentRunsError as error:
        say(error=f"{type(error).__name__}: {error}")


async def busy(path: str, tasks: str, seconds: str) -> None:
    """Write with many tasks for a while, and say how many writes there were and how long the slowest took."""
    slowest, count = 0.0, 0
    async with Journal(path, "narrative") as journal:
        end = time.monotonic() + float(seconds)

        async def lane(number: int) -> None:
            nonlocal slowest, count
            key = f"{os.getpid()}-{number}"
            await journal.begin(key, "{}")
            while (now := time.monotonic()) < end:
                await journal.saw(key, '"x"')
                slowest, count = max(slowest, time.monotonic() - now), count + 1

        await asyncio.gather(*(lane(number) for number in range(int(tasks))))
    say(slowest=slowest, count=count)


async def forgotten(path: str) -> None:
    """End without closing, while something refers to the journal."""
    kept.append(journal := Journal(path, "narrative"))
    await journal.open()
    await journal.begin("k", "{}")


async def locked_out(path: str) -> None:
    """End while a write waits for a file that somebody else keeps locked."""
    await forgotten(path)
    (journal,) = kept
    say(open=True)
    await asyncio.to_thread(sys.stdin.readline)  # it is locked now
    writing = asyncio.create_task(journal.begin("l", "{}"))
    await asyncio.sleep(0.05)
    assert not writing.done()


kept: list[Journal] = []
COMMANDS = {
    each.__name__: each for each in (hold, act, race, steps, fork, full, unprivileged, busy, forgotten, locked_out)
}

if __name__ == "__main__":
    asyncio.run(COMMANDS[sys.argv[1]](*sys.argv[2:]))
