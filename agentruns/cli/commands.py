"""What each command does, and which exit code it ends with."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shlex
import sys
from collections.abc import Sequence

from agentruns import codec
from agentruns.cli import arguments, demo
from agentruns.cli.display import Display, choose
from agentruns.client import Client, connect
from agentruns.dialects import load
from agentruns.errors import (
    AgentRunsError,
    ConfigurationError,
    DeadlineExceededError,
    UnsupportedError,
)
from agentruns.model import Run, RunRef, RunStatus
from agentruns.stream import RunStream

COMPLETED, FAILED, USAGE, ACTION_REQUIRED, DEADLINE, TROUBLE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

_BY_STATUS = {
    RunStatus.COMPLETED: COMPLETED,
    RunStatus.FAILED: FAILED,
    RunStatus.REQUIRES_ACTION: ACTION_REQUIRED,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    wanted = arguments.parse(sys.argv[1:] if argv is None else argv)
    seen = _Seen()
    try:
        return asyncio.run(_COMMANDS[wanted.command](wanted, seen))
    except KeyboardInterrupt:
        print(f"\n{seen.how_to_go_on(wanted)}", file=sys.stderr)
        return INTERRUPTED
    except (ConfigurationError, UnsupportedError) as error:
        print(f"agentruns: {error}", file=sys.stderr)
        return USAGE
    except DeadlineExceededError as error:
        print(f"agentruns: {error}\n{seen.how_to_go_on(wanted)}", file=sys.stderr)
        return DEADLINE
    except AgentRunsError as error:
        print(f"agentruns: {error}", file=sys.stderr)
        if seen.stream is not None and seen.stream.run is not None:
            print(seen.how_to_go_on(wanted), file=sys.stderr)
        return TROUBLE
    except BrokenPipeError:  # whoever read our lines has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return TROUBLE


class _Seen:
    """The stream that is being shown, kept where an interrupt can still find it."""

    stream: RunStream | None = None

    def how_to_go_on(self, wanted: argparse.Namespace) -> str:
        """Say which run is left, and how to watch it again."""
        run = self.stream.run if self.stream is not None else None
        if run is None:
            return "interrupted; no run was seen"
        if not run.status.in_flight:
            return f"run {run.id} is {run.status}"
        words = ["agentruns", "watch", wanted.vendor, run.id, *(["--parent", run.ref.parent] if run.ref.parent else [])]
        if getattr(wanted, "base_url", None):
            words += ["--base-url", wanted.base_url]
        if getattr(wanted, "tools", None):
            words += ["--tools", wanted.tools]
        return f"run {run.id} goes on at {wanted.vendor}; watch it again with:\n  {shlex.join(words)}"


def _client(wanted: argparse.Namespace) -> Client:
    return connect(load(wanted.vendor), base_url=wanted.base_url, insecure=wanted.insecure)


async def _start(wanted: argparse.Namespace, _: _Seen) -> int:
    origin = arguments.origin(wanted)
    async with _client(wanted) as client:
        run = await client.start(origin)
    display = choose(json=wanted.json)
    display.state(run)
    display.close()
    return COMPLETED


async def _run(wanted: argparse.Namespace, seen: _Seen) -> int:
    origin = arguments.origin(wanted)
    async with _client(wanted) as client:
        return await _show(client, origin, wanted, seen)


async def _watch(wanted: argparse.Namespace, seen: _Seen) -> int:
    async with _client(wanted) as client:
        return await _show(client, RunRef(wanted.id, wanted.parent), wanted, seen)


async def _show(client: Client, origin: object, wanted: argparse.Namespace, seen: _Seen) -> int:
    tools = arguments.tools(wanted.tools)
    seen.stream = client.stream(origin, tools=tools, timeout=wanted.timeout, progress=wanted.progress)
    display = choose(json=wanted.json)
    try:
        return code_of(await follow(seen.stream, display))
    finally:
        display.close()


async def follow(stream: RunStream, display: Display) -> Run | None:
    """Show every state of a stream and return the last."""
    async for run in stream:
        display.state(run)
    return stream.run


def code_of(run: Run | None) -> int:
    """Return the exit code for a run's last state."""
    return TROUBLE if run is None else _BY_STATUS.get(run.status, TROUBLE)


async def _demo(wanted: argparse.Namespace, seen: _Seen) -> int:
    display = choose(json=wanted.json)
    try:

        async def watched(stream: RunStream) -> Run | None:
            seen.stream = stream
            return await follow(stream, display)

        return code_of(await demo.STORIES[wanted.vendor](display, watched))
    finally:
        display.close()


async def _emulate(wanted: argparse.Namespace, _: _Seen) -> int:
    from agentruns.emulator import Emulator

    dialect = load(wanted.vendor)
    async with Emulator(wanted.vendor, port=wanted.port) as emulator:
        if wanted.json:
            print(codec.encode({"base_url": emulator.base_url, "token": emulator.token}).decode(), flush=True)
        else:
            setting = f"{dialect.BASE_URL_VARIABLE}={emulator.base_url} {dialect.TOKEN_VARIABLE}={emulator.token}"
            print(
                f"{wanted.vendor} is emulated at {emulator.base_url}; stop it with Ctrl-C. In another terminal:\n\n"
                f"  export {setting}\n  agentruns run {wanted.vendor} --help",
                flush=True,
            )
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    return COMPLETED


_COMMANDS = {
    "demo": _demo,
    "emulate": _emulate,
    "start": _start,
    "run": _run,
    "watch": _watch,
}
