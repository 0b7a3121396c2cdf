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
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from agentruns._api.hosts import is_loopback
from agentruns._api.retry import Backoff
from agentruns._connect import connect
from agentruns._values import check, codec
from agentruns.client import Client
from agentruns.dialects import NAMES, conduit, load, middesk, narrative, origami
from agentruns.dialects.names import installed, shipped
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError
from agentruns.inbox import Inbox
from agentruns.tools import Tools
from agentruns.web import Feeds

from .connection import connection
from .emulators import emulator_of
from .printing import complain, say

if TYPE_CHECKING:
    from aiohttp import web

    from agentruns.console import AccessGuard, Job, Source
    from agentruns.emulator import Emulator, Prompt, Turn
    from agentruns.emulator.schema import JSON

QUICK: Final = Backoff(initial=0.15, maximum=0.4)
"""How often an emulated vendor is polled: a newcomer is not to wait."""

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
            path, answers = Path(args.journal), _answers(args.answers)
            made = over_journal(path, lambda vendors: _clients(args, path, vendors), answers=answers)
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
    if args.journal and not _is_file(args.journal):
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
    path: Path,
    clients: Callable[[Sequence[str]], Mapping[str, Client]],
    *,
    answers: Mapping[str, Mapping[str, Any]] | None = None,
) -> AsyncIterator[Source]:
    """Give what the console shows of a journal; *clients* makes them for those vendors of whom there is work."""
    from agentruns.console import JournalReader, Source

    async with AsyncExitStack() as stack:
        inbox = await stack.enter_async_context(Inbox(journal=path))
        book = await stack.enter_async_context(JournalReader(path))
        opened = {
            name: await stack.enter_async_context(client) for name, client in clients(await book.vendors()).items()
        }
        yield await stack.enter_async_context(Source(book, inbox, opened, answers=answers))


def _clients(args: argparse.Namespace, path: Path, vendors: Sequence[str]) -> dict[str, Client]:
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
            client = connect(dialect, token=token or None, **connection(args), journal=path)
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


@frozen
class Trial:
    """
    An emulated vendor with something to start on it: `jobs` by name, each with what it is called and what happens.

    `script` plays the agent, at a *pace* in seconds; `origin` makes what starts a run of a job.
    """

    jobs: Mapping[str, tuple[str, str]]
    script: Callable[[Prompt, float], Turn]
    origin: Callable[[Client, str, Emulator[Any]], Awaitable[Any]]
    options: Mapping[str, Any]
    answers: Mapping[str, Mapping[str, Any]]


@asynccontextmanager
async def emulated(vendor: str, *, pace: float = 1.0, folder: Path | None = None) -> AsyncIterator[Source]:
    """
    Give a console over an emulated vendor: a client, an inbox, and jobs that may be started from the page.

    *pace* is how many seconds what an agent does takes, as a rule. The journal is in *folder*, else in a temporary one.
    """
    from agentruns.console import Job, Jobs, JournalReader, Source
    from agentruns.emulator import Emulator

    trial = TRIALS.get(vendor) or _plain_trial(vendor)
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


def _plain_trial(name: str) -> Trial:
    """Return a trial of any vendor whose dialect gives an example: its run asks once, if runs can be answered."""
    vendor = Vendor.of(load(name))
    if vendor.example is None:
        raise ConfigurationError(f"{name} cannot be tried: its dialect gives what starts a run by `example()`")

    def script(prompt: Prompt, pace: float) -> Turn:
        from agentruns.emulator import Call, Turn

        if vendor.resume is None or prompt.index:
            return Turn("Done.", pending=0.5 * pace, running=1.5 * pace)
        return Turn(calls=[Call("ask", {"question": "Shall I go on?"})], pending=0.5 * pace, running=1.5 * pace)

    async def origin(_: Client, __: str, ___: Emulator[Any]) -> Any:
        return vendor.call("example")

    return Trial({"example": ("Start the example", f"What {name} gives as an example.")}, script, origin, {}, {})


# Narrative

_INVOICE_ANSWER: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["approved", "cost_centre"],
    "properties": {
        "approved": {"type": "boolean", "title": "Approved", "description": "Whether the invoice may be paid."},
        "cost_centre": {"title": "Cost centre", "enum": ["operations", "marketing", "research"]},
        "pay_on": {"type": "string", "format": "date", "title": "Pay on"},
        "limit_eur": {"type": "number", "minimum": 0, "title": "Limit in euros", "description": "For the next ones."},
        "remark": {"type": "string", "maxLength": 500, "title": "Remark"},
    },
}

_TOOLS: Final = (
    narrative.Tool(
        "confirm_booking",
        "Ask the user to confirm a slot.",
        {
            "type": "object",
            "required": ["proposed_slot", "minutes"],
            "properties": {
                "proposed_slot": {"type": "string", "title": "Slot", "description": "Day and time."},
                "minutes": {"type": "integer", "minimum": 15, "maximum": 240, "title": "Minutes"},
                "guests": {"type": "array", "items": {"type": "string"}, "title": "Guests"},
            },
        },
    ),
    narrative.Tool(
        "approve_invoice",
        "Ask a person to approve one invoice.",
        {
            "type": "object",
            "required": ["invoice_no", "amount_eur"],
            "properties": {
                "invoice_no": {"type": "string", "title": "Invoice"},
                "amount_eur": {"type": "number", "title": "Amount in euros"},
            },
        },
    ),
)

_ASKED: Final = {
    "booking": "Find me a meeting time for tomorrow afternoon.",
    "invoice": "Have invoice RE-2026-118 paid.",
    "both": "Find a meeting time, and have invoice RE-2026-118 paid.",
    "quick": "What is on today?",
    "failure": "Read every message that there is.",
}


def _narrative_script(prompt: Prompt, pace: float) -> Turn:
    from agentruns.emulator import Call, Turn

    slot: Mapping[str, JSON] = {"proposed_slot": "tomorrow, 14:30", "minutes": 45, "guests": ["Ana", "Bo"]}
    book, pay = (
        Call("confirm_booking", slot),
        Call("approve_invoice", {"invoice_no": "RE-2026-118", "amount_eur": 940}),
    )
    if prompt.outputs:
        told = "\n".join(f"{each.name}: {'refused, ' if each.is_error else ''}{each.text}" for each in prompt.outputs)
        return Turn(f"Done. This is what I was told:\n{told}", pending=0.3 * pace, running=1.5 * pace, iterations=2)
    calls = {"booking": [book], "invoice": [pay], "both": [book, pay]}
    for name, asked in _ASKED.items():
        if prompt.text == asked and name in calls:
            return Turn(calls=calls[name], pending=0.5 * pace, running=2.5 * pace, iterations=3)
    if prompt.text == _ASKED["failure"]:
        why = ("AgentLoopMaxIterationsExceeded", "max iterations exceeded after 8 iterations")
        return Turn(error=why, pending=0.5 * pace, running=2 * pace, iterations=8)
    return Turn("Two meetings, and lunch with Ana.", pending=0.5 * pace, running=2.5 * pace, iterations=4)


async def _narrative_origin(client: Client, name: str, _: Emulator[Any]) -> narrative.UserMessage:
    config = narrative.Config(
        model="anthropic.claude-opus-4.6",
        data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        max_iterations=8,
        max_tokens=2048,
        output_format_schema=narrative.TEXT_SCHEMA,
        client_tools=[narrative.ClientTools("user", _TOOLS)],
    )
    conversation = await client.perform(narrative.create_conversation(config))
    return narrative.UserMessage(conversation.id, _ASKED[name])


# Middesk


def _middesk_script(prompt: Prompt, pace: float) -> Turn:
    from agentruns.emulator import Call, Turn

    if prompt.outputs:
        told = prompt.outputs[0].text
        found = {"title": "Review", "type": "cip_summary", "confidence": "high", "summary": f"Decided: {told}"}
        return Turn(structured={"artifacts": [found]}, running=1.5 * pace)
    hit: Mapping[str, JSON] = {
        "label": "Two possible sanctions hits look unrelated. Dismiss them?",
        "artifacts": [
            {
                "title": f"Dismiss hit: {name}",
                "type": "dismissal",
                "confidence": "high",
                "summary": why,
                "sources": [
                    {
                        "url": f"https://sanctions.example.gov/entries/{number}",
                        "source_name": "Example sanctions register",
                        "source_tier": "primary",
                        "source_type": "watchlist",
                    }
                ],
            }
            for name, number, why in (
                ("Marlow Trading FZE", 77120, "Different country, different officers, no shared address."),
                ("Marlowe & Sons", 80311, "Dissolved in 1998."),
            )
        ],
    }
    letter = {"label": "The TIN could not be confirmed. Accept the letter of 3 March instead?", "artifacts": []}
    calls = [Call("watchlist_resolution", hit), Call("tin_resolution", letter)]
    return Turn(calls=calls if prompt.agent == "cip_orchestrator" else calls[:1], running=3 * pace, iterations=3)


async def _middesk_origin(_: Client, name: str, __: Emulator[Any]) -> middesk.RunRequest:
    agent = {"review": "cip_orchestrator", "watchlist": "watchlist_resolution"}[name]
    return middesk.RunRequest(agent, business_id="b86f3c52-11d9-4f07-8e6a-90c2d5a7714f")


# Origami

_PROMPTS: Final = {
    "clinics": "Find independent veterinary clinics in Leeds.",
    "long": "Find every bakery in Europe.",
    "quick": "How many leads do we have?",
}


def _origami_script(prompt: Prompt, pace: float) -> Turn:
    from agentruns.emulator import Call, Turn

    which = {
        "type": "single-choice",
        "question": "Which clinics count as independent?",
        "suggestedAnswers": ["Single-site only", "Up to three sites", "Anything not owned by a national group"],
    }
    spend = {
        "type": "confirm",
        "question": "Looking up work emails spends credits. Go ahead?",
        "suggestedAnswers": ["Confirm"],
    }
    if prompt.index:
        return Turn(f"Built a list of 23. I was told:\n{prompt.text}", running=2 * pace, iterations=3)
    if prompt.text == _PROMPTS["clinics"]:
        calls = [Call("ask-questions", which), Call("ask-questions", spend)]
        return Turn(calls=calls, running=2.5 * pace, iterations=2)
    if prompt.text == _PROMPTS["long"]:
        return Turn("Stopped at the cap.", running=2.5 * pace, iterations=12)
    return Turn("1,204 leads, in three tables.", running=2.5 * pace, iterations=3)


async def _origami_origin(_: Client, name: str, __: Emulator[Any]) -> origami.Prompt:
    return origami.Prompt(_PROMPTS[name])


# Conduit

_ORDERS: Final = {
    "plumber": {"work_order": "WO-4417", "unit": "12B", "priority": "high"},
    "failure": {"work_order": "WO-4418", "unit": "?", "priority": "low"},
}


def _conduit_script(prompt: Prompt, pace: float) -> Turn:
    from agentruns.emulator import Call, Turn

    if "WO-4418" in (prompt.text or ""):
        return Turn(error=("unit_not_found", "There is no unit “?”."), pending=0.5 * pace, running=2 * pace)
    looked_up = Call("find_contractor", {"trade": "plumber"}, server_side=True, result="Hartley & Daughters, 14:00")
    text = "A plumber is booked for unit 12B at 14:00 today."
    return Turn(text, calls=[looked_up], pending=0.5 * pace, running=3 * pace, usage=(1840, 212))


async def _conduit_origin(_: Client, name: str, emulator: Emulator[Any]) -> conduit.Dispatch:
    return conduit.Dispatch(emulator.state.agent_id, payload=_ORDERS[name])


TRIALS: Final[Mapping[str, Trial]] = {
    "narrative": Trial(
        {
            "booking": ("Book a meeting", "The agent asks you to confirm a slot."),
            "invoice": ("Pay an invoice", "It asks for an answer whose JSON Schema is known: a form of five fields."),
            "both": ("Do both", "Two tool calls at once, answered one by one."),
            "quick": ("Just ask", "It answers by itself."),
            "failure": ("Ask too much", "The run fails."),
        },
        _narrative_script,
        _narrative_origin,
        {},
        {"approve_invoice": _INVOICE_ANSWER},
    ),
    "middesk": Trial(
        {
            "review": ("Review a business", "Two interrupts: proposed artifacts to look at, and a plain question."),
            "watchlist": ("Check a watchlist", "One interrupt with two proposed dismissals."),
        },
        _middesk_script,
        _middesk_origin,
        {"agents": ("cip_orchestrator", "watchlist_resolution", "tin_resolution")},
        {},
    ),
    "origami": Trial(
        {
            "clinics": ("Find clinics", "The agent asks two questions, with suggested answers."),
            "long": ("Find too much", "It stops at its cap of steps, and asks whether to go on."),
            "quick": ("Count leads", "It answers by itself."),
        },
        _origami_script,
        _origami_origin,
        {"retry_after": 0, "steps_max": 12},
        {},
    ),
    "conduit": Trial(
        {
            "plumber": ("Send a plumber", "A dispatch that looks something up and completes; Conduit has no pauses."),
            "failure": ("Send one nowhere", "A dispatch that fails."),
        },
        _conduit_script,
        _conduit_origin,
        {},
        {},
    ),
}
