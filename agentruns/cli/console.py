"""`agentruns console`: a web page over a journal, or over an emulated vendor to try it on."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import os
import tempfile
import webbrowser
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentruns._api.hosts import is_loopback
from agentruns._connect import connect
from agentruns._keeping.journal.locations import is_database
from agentruns._values import check, codec
from agentruns.client import Client
from agentruns.dialects import NAMES, load
from agentruns.dialects.names import installed, shipped
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError
from agentruns.inbox import Inbox
from agentruns.tools import Tools
from agentruns.web import Feeds

from .connection import connection
from .emulators import emulator_of
from .printing import complain, say
from .stories import QUICK, trial_of

if TYPE_CHECKING:
    from aiohttp import web

    from agentruns.console import AccessGuard, Job, Source

_STOP_SECONDS: Final = 2.0

_IDLE_SECONDS: Final = 75.0
"""How long a connection of somebody who has signed in is kept without a request."""

_BACKLOG: Final = 32
"""Connections that may be accepted at once: more of them could take all descriptors before any is looked at."""


async def console(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; raise `ConfigurationError` for what cannot work."""
    from agentruns.console import AccessGuard

    _check(args)
    async with AsyncExitStack() as stack:
        if args.emulator:
            source = await stack.enter_async_context(emulated(args.emulator))
        else:
            journal, answers = args.journal, _answers(args.answers)
            made = over_journal(journal, lambda vendors: _clients(args, journal, vendors), answers=answers)
            source = await stack.enter_async_context(made)
        guard = AccessGuard(hosts=frozenset({args.host}), exposed=args.expose)
        address = await stack.enter_async_context(served(source, args.host, args.port, guard=guard))
        say(f"the console is at {address}", "it stops with Ctrl-C")
        with contextlib.suppress(asyncio.CancelledError):
            if args.open:  # other users may see the command line of the browser: what stands there works once
                await asyncio.to_thread(webbrowser.open, address.replace(guard.token, guard.ticket()))
            await asyncio.Event().wait()
    return 0


def _check(args: argparse.Namespace) -> None:
    if bool(args.journal) == bool(args.emulator):
        raise ConfigurationError("the console needs a JOURNAL to show, or --emulator VENDOR to try it on; one of them")
    for option in ("token_env", "base_url"):
        if getattr(args, option) and not args.vendor:
            raise ConfigurationError(f"--{option.replace('_', '-')} is of one vendor; say which by --vendor")
    check.integer("--port", args.port, 0)
    if args.journal and not is_database(args.journal) and not _is_file(args.journal):
        raise ConfigurationError(
            f"there is no journal {args.journal!r}; `agentruns batch` makes one, as does a client that is given one"
        )
    if not is_loopback(args.host):
        if not args.expose:
            raise ConfigurationError(
                f"--host {args.host} can be reached by others: they need the address with its token, but all goes "
                "over the network unencrypted. If you accept that, add --expose; a tunnel, such as `ssh -L`, is safer"
            )
        complain(f"agentruns: the console listens on {args.host}, unencrypted: anyone who reads the traffic can use it")


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError as error:  # such as a folder that may not be entered
        raise ConfigurationError(f"the journal {path!r} cannot be looked at: {error}") from error


@asynccontextmanager
async def served(
    source: Source, host: str = "127.0.0.1", port: int = 0, *, guard: AccessGuard | None = None
) -> AsyncIterator[str]:
    """Serve the console over *source*, and give the address to open, its token included."""
    from aiohttp import web

    from agentruns.console import AccessGuard, application

    guard = guard or AccessGuard()
    runner = web.AppRunner(
        application(source, guard),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_STOP_SECONDS,
        keepalive_timeout=_IDLE_SECONDS,
        logger=_server_logger(),
    )
    await runner.setup()
    try:
        server = await _listen(runner, host, port, guard)
        try:
            yield _address_of(server, guard.token)
        finally:
            server.close()
            guard.newcomers.close()
    finally:
        await runner.cleanup()


def _server_logger() -> logging.Logger:
    """Return a logger that is silent about what is no request: anybody can send it, and it may quote a token."""
    from aiohttp.http import HttpProcessingError

    logger = logging.getLogger("agentruns.console.server")
    if not logger.filters:
        logger.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
    return logger


async def _listen(runner: web.AppRunner, host: str, port: int, guard: AccessGuard) -> asyncio.Server:
    assert runner.server is not None
    protocols = guard.newcomers.watched(runner.server)
    try:
        return await asyncio.get_running_loop().create_server(protocols, host, port, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"{host}, port {port}, cannot be listened on: {error}. Choose another") from error


def _address_of(server: asyncio.Server, token: str) -> str:
    name, port = server.sockets[0].getsockname()[:2]
    shown = "127.0.0.1" if name == "0.0.0.0" else f"[{name}]" if ":" in name else name  # noqa: S104 - compared with
    return f"http://{shown}:{port}/?token={token}"


# Over a journal -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def over_journal(
    journal: str | Path,
    clients: Callable[[Sequence[str]], Mapping[str, Client]],
    *,
    answers: Mapping[str, Mapping[str, Any]] | None = None,
) -> AsyncIterator[Source]:
    """Give what the console shows of a journal; *clients* makes them for those vendors of whom there is work."""
    from agentruns.console import JournalReader, Source

    if is_database(str(journal)):
        async with JournalReader(journal):
            pass  # it is there: else the inbox would make it
    async with AsyncExitStack() as stack:
        inbox = await stack.enter_async_context(Inbox(journal=journal))
        book = await stack.enter_async_context(JournalReader(journal))
        opened = {
            name: await stack.enter_async_context(client) for name, client in clients(await book.vendors()).items()
        }
        yield await stack.enter_async_context(Source(book, inbox, opened, answers=answers))


def _clients(args: argparse.Namespace, journal: str | Path, vendors: Sequence[str]) -> dict[str, Client]:
    """Return a client, not open yet, for each vendor that there is a token for."""
    made: dict[str, Client] = {}
    known = {**installed(), **shipped()}
    for name in [args.vendor] if args.vendor else [name for name in vendors if name in NAMES or name in known]:
        try:
            dialect = Vendor.of(load(name))
        except ConfigurationError as error:
            if args.vendor:
                raise
            complain(f"agentruns: {error}", f"runs of {name} are shown as the journal has them")
            continue
        variable = args.token_env or dialect.TOKEN_VARIABLE
        token = os.environ.get(variable, "")
        if token.strip() or dialect.AUTH.optional:
            client = connect(dialect, token=token or None, **connection(args), journal=journal)
            made[dialect.NAME] = client  # as the journal calls it: --vendor may be a place such as file.py:attribute
        elif args.vendor:
            raise ConfigurationError(f"there is no token for {name}; set the environment variable {variable}")
        else:
            complain(f"runs of {name} are shown as the journal has them: {variable} is not set")
    return made


def _answers(path: str | None) -> dict[str, Mapping[str, Any]]:
    if path is None:
        return {}
    try:
        given = codec.decode(Path(path).read_bytes())
    except (OSError, codec.CodecError) as error:
        raise ConfigurationError(f"--answers {path!r} cannot be read: {error}") from error
    if not isinstance(given, dict) or not all(isinstance(each, dict) for each in given.values()):
        raise ConfigurationError(f"--answers {path!r} must be a JSON object of JSON Schemas, by the name of the tool")
    return given


# Over an emulator -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def emulated(vendor: str, *, pace: float = 1.0, folder: Path | None = None) -> AsyncIterator[Source]:
    """
    Give a console over an emulated vendor: a client, an inbox, and jobs that may be started from the page.

    *pace* is how many seconds what an agent does takes, as a rule. The journal is in *folder*, else in a temporary one.
    """
    from agentruns.console import Job, Jobs, JournalReader, Source
    from agentruns.emulator import Emulator

    trial = trial_of(vendor)
    count = itertools.count(1)
    async with AsyncExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentruns-")))
        path = place / "console.journal"
        emulator = await stack.enter_async_context(
            Emulator(emulator_of(vendor), script=lambda prompt: trial.script(prompt, pace), **trial.options)
        )
        inbox = await stack.enter_async_context(Inbox(journal=path))
        client = await stack.enter_async_context(
            connect(vendor, token=emulator.token, base_url=emulator.base_url, journal=path, schedule=QUICK, budget=50)
        )
        book = await stack.enter_async_context(JournalReader(path))
        runs = await stack.enter_async_context(Feeds(client, tools=Tools.of(inbox), timeout=None))

        async def start(name: str) -> str:
            key = f"{name}-{next(count)}"
            feed = runs.open(await trial.origin(client, name, emulator), key=key)
            await feed.started()
            return key

        jobs: tuple[Job, ...] = tuple(Job(name, title, text) for name, (title, text) in trial.jobs.items())
        yield await stack.enter_async_context(
            Source(
                book,
                inbox,
                {load(vendor).NAME: client},
                answers=trial.answers,
                jobs=Jobs(offered=jobs, start=start),
                place=f"{vendor}, emulated on this machine",
            )
        )
