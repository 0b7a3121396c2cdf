"""What each command does, and which exit code it ends with."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from agentruns._connect import connect
from agentruns._following.ending import unanswered
from agentruns._following.options import Timeout
from agentruns._following.stream import RunStream
from agentruns._values import check
from agentruns._values.run import Run, RunRef, RunStatus
from agentruns.client import Client
from agentruns.dialects import load
from agentruns.dialects.vendor import Vendor
from agentruns.errors import AgentRunsError, ConfigurationError, DeadlineExceededError, UnsupportedError

from . import arguments, origins, shell_text, stories, vendors
from .batch import batch
from .connection import connection
from .display import Display, choose, warnings
from .emulate import emulate
from .parents import NewParents
from .printing import complain, complain_traceback, drop, say, shell, unwritable
from .report import report

COMPLETED, FAILED, USAGE, ACTION_REQUIRED, DEADLINE, TROUBLE = 0, 1, 2, 3, 4, 5
INTERRUPTED, UNHEARD, TERMINATED = 130, 141, 143
"""As shells say it of a command that SIGINT, SIGPIPE or SIGTERM has ended."""

_BY_STATUS = {
    RunStatus.COMPLETED: COMPLETED,
    RunStatus.FAILED: FAILED,
    RunStatus.REQUIRES_ACTION: ACTION_REQUIRED,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    typed = sys.argv[1:] if argv is None else argv
    args = arguments.parse(typed)
    args.typed = typed
    seen = _Seen()
    with warnings():
        return _code(args, seen)


def _code(args: argparse.Namespace, seen: _Seen) -> int:
    try:
        code = asyncio.run(_terminable(_COMMANDS[args.command](args, seen)))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        complain("", *seen.how_to_go_on(args))
        return _ended_by_signal(INTERRUPTED)
    except asyncio.CancelledError:  # SIGTERM
        complain(*seen.how_to_go_on(args))
        return _ended_by_signal(TERMINATED)
    except (ConfigurationError, UnsupportedError) as error:
        complain(f"agentruns: {shell_text.translate(error, args)}")
        return USAGE
    except DeadlineExceededError as error:
        complain(f"agentruns: {shell_text.translate(error, args)}", *seen.how_to_go_on(args))
        return DEADLINE
    except AgentRunsError as error:
        complain(f"agentruns: {shell_text.translate(error, args)}")
        if seen.stream is not None and seen.stream.run is not None:
            complain(*seen.how_to_go_on(args))
        return TROUBLE
    except BrokenPipeError:  # the reader of our lines has closed the pipe, as `head` does
        drop(sys.stdout)
        return UNHEARD
    except Exception as error:  # a bug, ours or a handler's: not to be taken for a run that failed
        why = unwritable()
        if why is None:
            complain_traceback(error)
        else:
            left = seen.how_to_go_on(args) if seen.stream is not None or args.command == "batch" else []
            complain(f"agentruns: stdout cannot be written: {why}", *left)
            drop(sys.stdout)
        return TROUBLE


async def _terminable(command: Coroutine[Any, Any, int]) -> int:
    """Run a command, which SIGTERM ends as Ctrl-C would: what it has made is cleared away, and it says what is left."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # not on this system, or in this thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await command


def _ended_by_signal(code: int) -> int:
    """Return the exit code; end the process with it where a handler that blocks, and cannot be stopped, is left."""
    if threading.active_count() > 1:
        with contextlib.suppress(OSError, AttributeError):  # full, or closed
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    return code


class _Seen:
    """The stream that is being shown, kept where an interrupt can still find it."""

    stream: RunStream | None = None

    def how_to_go_on(self, args: argparse.Namespace) -> list[str]:
        """Return, a line each, which run is left, and how to watch it again; nothing where none can be."""
        same = shell(["agentruns", *args.typed])
        if args.command == "batch":
            return [f"the runs in flight go on at {args.vendor}; go on with:", f"  {same}"]
        run = self.stream.run if self.stream is not None else None
        if run is not None and run.status.is_over:
            return [f"run {run.id} is {run.status}"]
        if args.command == "demo":
            return ["the emulated vendor has ended, and its runs with it; start over with:", "  agentruns demo"]
        if run is None and args.command == "watch":
            return [f"run {args.id} was not seen; watch it again with:", f"  {same}"]
        if run is None:
            told = "no run was seen; a start may have taken effect, so look at the vendor before you start again"
            return [told] if args.command in {"run", "start"} else []
        again = ["agentruns", "watch", args.vendor, run.id, *(["--parent", run.ref.parent] if run.ref.parent else [])]
        if getattr(args, "base_url", None):
            again += ["--base-url", args.base_url]
        if getattr(args, "insecure", False):
            again.append("--insecure")
        if getattr(args, "proxy", None):
            again += ["--proxy", args.proxy]
        if getattr(args, "tools", None):
            again += ["--tools", args.tools]
        where = f"goes on at {args.vendor}" if run.status.in_flight else f"waits at {args.vendor} for an answer"
        return [f"run {run.id} {where}; watch it again with:", f"  {shell(again)}"]


def _client(args: argparse.Namespace) -> Client:
    return connect(load(args.vendor), **connection(args))


async def _start(args: argparse.Namespace, _: _Seen) -> int:
    origin = origins.origin(args)
    async with _client(args) as client:
        run = await client.start(await _with_parent(args, client, origin))
    display = choose(json=args.json)
    display.state(run)
    display.close()
    return COMPLETED


async def _with_parent(args: argparse.Namespace, client: Client, origin: object) -> object:
    """Return the origin, in a parent that is made for it if an option such as --conversation says so."""
    file = getattr(args, "parent_file", None)
    if file is None:
        return origin
    vendor = Vendor.of(load(args.vendor))
    parents = NewParents.read(vendor, Path(file), arguments.tools(getattr(args, "tools", None)))
    return await parents.begin(client, origin)


async def _run(args: argparse.Namespace, seen: _Seen) -> int:
    origin = origins.origin(args)
    async with _client(args) as client:
        return await _show(client, await _with_parent(args, client, origin), args, seen)


async def _watch(args: argparse.Namespace, seen: _Seen) -> int:
    async with _client(args) as client:
        return await _show(client, RunRef(args.id, args.parent), args, seen)


async def _list(args: argparse.Namespace, _: _Seen) -> int:
    check.integer("--limit", args.limit, 1)
    display = choose(json=args.json)
    async with _client(args) as client, contextlib.aclosing(client.runs(args.parent)) as runs:
        shown = 0
        async for run in runs:
            display.entry(run)
            shown += 1
            if shown >= args.limit:
                break
    display.close()
    return COMPLETED


async def _show(client: Client, origin: object, args: argparse.Namespace, seen: _Seen) -> int:
    timeout: Timeout = "vendor" if args.timeout is None else args.timeout
    if timeout != "vendor":
        check.number("--timeout", timeout)
    tools = arguments.tools(args.tools)
    seen.stream = client.stream(origin, tools=tools, timeout=timeout, progress=args.progress)
    display = choose(json=args.json)
    try:
        run = await follow(seen.stream, display)
    finally:
        display.close()
    if run is not None and run.status is RunStatus.REQUIRES_ACTION:
        complain(f"agentruns: {shell_text.translate(unanswered(run), args)}", *seen.how_to_go_on(args))
    return code_of(run)


async def follow(stream: RunStream, display: Display) -> Run | None:
    """Show every state of a stream and return the last."""
    async for run in stream:
        display.state(run)
    return stream.run


def code_of(run: Run | None) -> int:
    """Return the exit code for a run's last state."""
    return TROUBLE if run is None else _BY_STATUS.get(run.status, TROUBLE)


async def _demo(args: argparse.Namespace, seen: _Seen) -> int:
    display = choose(json=args.json)
    try:

        async def watched(stream: RunStream) -> Run | None:
            seen.stream = stream
            return await follow(stream, display)

        codes = [code_of(await stories.story_of(name)(display, watched)) for name in args.vendor or stories.names()]
        display.remark("That was the main job; `agentruns --help` shows the rest.")
        return max(codes)
    finally:
        display.close()


async def _emulate(args: argparse.Namespace, _: _Seen) -> int:
    return await emulate(args)


async def _batch(args: argparse.Namespace, _: _Seen) -> int:
    return await batch(args)


async def _report(args: argparse.Namespace, _: _Seen) -> int:
    return report(args)


async def _console(args: argparse.Namespace, _: _Seen) -> int:
    from .console import console

    return await console(args)


async def _vendors(args: argparse.Namespace, _: _Seen) -> int:
    vendors.show(args.vendor, json=args.json)
    return COMPLETED


async def _completion(args: argparse.Namespace, _: _Seen) -> int:
    say(*arguments.completion(args.shell).splitlines())
    return COMPLETED


_COMMANDS = {
    "completion": _completion,
    "demo": _demo,
    "emulate": _emulate,
    "start": _start,
    "run": _run,
    "watch": _watch,
    "list": _list,
    "batch": _batch,
    "report": _report,
    "console": _console,
    "vendors": _vendors,
}
