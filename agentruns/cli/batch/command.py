"""What `agentruns batch` does, and which exit code it ends with."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from attrs import frozen

from agentruns._connect import connect
from agentruns._following import record
from agentruns._following.batch import Batch
from agentruns._values import check, codec
from agentruns._values.commands import Flow, first_request
from agentruns._values.run import Outcome, Run, RunRef
from agentruns.cli import arguments, shell_text
from agentruns.cli.connection import connection
from agentruns.cli.printing import complain, say, say_json, shell
from agentruns.client import Client
from agentruns.dialects import load
from agentruns.dialects.protocol import Dialect
from agentruns.dialects.vendor import Vendor
from agentruns.errors import APIError, ConfigurationError, JournalError, OutcomeUnknownError
from agentruns.tools import Tools

from . import progress, ray_engine
from .conversations import PENDING, Conversations
from .file_errors import FileError, file_error
from .output import INVALID, Known, Output, check_output
from .rows import Problem, Rows, rows
from .templates import Item, Mapper

if TYPE_CHECKING:
    from agentruns.ray.engine import WorkerPool

_CODES: Final = {"completed": 0, "failed": 1, INVALID: 2, "requires_action": 3, "unfinished": 4, "error": 5}
_INTERRUPTED: Final = 130
_TROUBLE: Final = 5

_HOPELESS: Final = frozenset({401, 402})
"""What every further start would be answered, too."""

_TOLD: Final = 20
_PIECE: Final = 256


async def batch(args: argparse.Namespace) -> int:
    """
    Run every row that is not done, and return the exit code: the highest that any row asks for.

    Raise `ConfigurationError`, before anything is sent, for what cannot work.
    """
    check.integer("--limit", args.limit, 1)
    if args.timeout is None:
        args.timeout = "vendor"
    else:
        check.number("--timeout", args.timeout)
    if args.budget is not None:
        check.number("--budget", args.budget)
    dialect = load(args.vendor)
    tools = arguments.tools(args.tools)
    conversations = _conversations(args, dialect, tools)
    source = rows(Path(args.input), delimiter=args.delimiter)
    fixed = {} if conversations is None else {"conversation_id": PENDING}
    given = arguments.templates(args)
    if conversations is not None and "conversation_id" in given:
        raise ConfigurationError("--conversation makes new conversations; leave --conversation-id out, or use it alone")
    mapper = Mapper(dialect, given, key=args.key, columns=source.columns, fixed=fixed)
    if args.dry_run:
        _check(args, dialect, source)
        return _dry_run(source, mapper, dialect, conversations, json=args.json)
    path = _place(args.output, source)
    shown = sys.stdout
    async with ray_engine.engine(args, dialect, path, own_requests=conversations is not None) as engine:
        journal = args.journal or f"{path}.journal" if engine is None else engine.journal
        args.no_journal = args.no_journal or journal is None
        client = connect(
            dialect,
            **connection(args),
            budget=args.budget if engine is None else engine.budget,
            journal=None if args.no_journal else journal,
        )
        with Output(path, dialect.NAME) as output:
            async with client:
                job = _Job(args, client, dialect, source, mapper, conversations, output, engine, shown)
                return await job.run(tools)


def _place(output: str | None, source: Rows) -> Path:
    if output is None:
        raise ConfigurationError("there is no OUTPUT; say where the results go: -o results.jsonl")
    if output == "-":
        raise ConfigurationError("OUTPUT is '-'; it must be a file, by which a second call knows what is done")
    path = Path(output)
    if path.exists() and path.samefile(source.path):
        raise ConfigurationError("OUTPUT is INPUT; use another file")
    return path


def _conversations(args: argparse.Namespace, dialect: Dialect, tools: Tools | None) -> Conversations | None:
    file = getattr(args, "conversation", None)
    if file is None:
        return None
    assert dialect.NAME == "narrative"
    return Conversations.read(Path(file), tools)


# A dry run ------------------------------------------------------------------------------------------------------------


def _check(args: argparse.Namespace, dialect: Dialect, source: Rows) -> None:
    """Refuse what the real call would, as far as that can be told without a token, workers or a journal."""
    if args.output is not None:
        check_output(_place(args.output, source), dialect.NAME)
    ray_engine.check_options(args)
    variable = dialect.TOKEN_VARIABLE
    can_do = Vendor.of(dialect).AUTH.optional or os.environ.get(variable, "").strip()
    connect(dialect, token=None if can_do else lambda: "", **connection(args))


def _dry_run(source: Rows, mapper: Mapper, dialect: Dialect, conversations: Conversations | None, *, json: bool) -> int:
    """Look at every row, send nothing, and show the first request."""
    first: Item | None = None
    usable = unusable = 0
    for read in source:
        item = read if isinstance(read, Problem) else mapper.item(read)
        if isinstance(item, Problem):
            unusable += 1
            complain(f"agentruns: {item}")
        else:
            usable += 1
            first = first or item
    shown: dict[str, Any] = {"usable": usable, "unusable": unusable, "request": None}
    if first is not None:
        begin: Flow[Any] = dialect.start(first.origin) if conversations is None else conversations.flow()
        request = first_request(begin)
        shown["origin"] = codec.to_jsonable(codec.unstructure(first.origin), "the origin")
        shown["request"] = {"method": request.method, "path": request.path, "params": request.params}
        shown["request"]["json"] = request.json
    if json:
        say_json(codec.encode(codec.to_jsonable(shown, "the request")).decode())
    else:
        say(f"{usable} rows can be used, {unusable} cannot; nothing was sent")
        if first is not None:
            say(f"the first (line {first.line}) would start from {codec.encode(shown['origin']).decode()}")
            say(*_http(shown["request"]))
    return _CODES[INVALID] if unusable else 0


def _http(request: dict[str, Any]) -> list[str]:
    params = "&".join(f"{name}={value}" for name, value in request["params"].items())
    line = f"its first request would be {request['method']} {request['path']}{'?' if params else ''}{params}"
    return [line] if request["json"] is None else [line, codec.encode(request["json"]).decode()]


# A run of the batch ---------------------------------------------------------------------------------------------------


@frozen
class _Turn:
    """One item as this call takes it up: `key` is its key of this attempt, `run` what to go on with, if known."""

    item: Item
    key: str
    attempt: int
    run: RunRef | None
    began: float


class _Job:
    """One call of the command, from the first row that is not done to the last line of the output."""

    def __init__(
        self,
        args: argparse.Namespace,
        client: Client,
        dialect: Dialect,
        source: Rows,
        mapper: Mapper,
        conversations: Conversations | None,
        output: Output,
        engine: WorkerPool | None,
        shown: TextIO,
    ) -> None:
        self._args = args
        self._client = client
        self._dialect = dialect
        self._source = source
        self._mapper = mapper
        self._conversations = conversations
        self._output = output
        self._engine = engine
        self._shown = shown
        self._tally = progress.Tally()
        self._turns: dict[int, _Turn] = {}
        self._open: set[str] = set()
        self._begun: set[str] = set()
        self._codes: set[int] = {0}
        self._count = self._refused = 0
        self._stopping = ""
        self._left = False
        self._task = asyncio.current_task()

    async def run(self, tools: Tools | None) -> int:
        """Run it, and return the exit code."""
        if not self._args.no_journal:
            self._open = {work.key async for work in self._client.unfinished()}
        args = self._args
        self._view = progress.choose(json=args.json, quiet=args.quiet, out=self._shown)
        self._outcomes = self._outcomes_of(tools)
        leave = threading.Event()
        beside = [asyncio.create_task(self._watch()), asyncio.create_task(self._count_rows(leave))]
        try:
            with _interrupts(self._interrupted):
                async with self._outcomes as outcomes:
                    async for outcome in outcomes:
                        self._ended(outcome)
        except asyncio.CancelledError:
            if not self._left or self._task is None:
                raise
            self._task.uncancel()
        except FileError as error:
            complain(f"agentruns: {error}")
            self._codes.add(_TROUBLE)
            self._stopping = self._stopping or "trouble with a file"
        finally:
            leave.set()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)  # a count that failed is shown by nothing
            self._tell(lambda: self._view.close(self._picture()))
        return self._end()

    def _outcomes_of(self, tools: Tools | None) -> Batch:
        args, key = self._args, attrgetter("key")
        if self._engine is not None:
            return self._engine.batch(self._client, self._take(), key=key, prepare=self._prepare)
        options: Any = {"limit": args.limit, "timeout": args.timeout, "key": key, "prepare": self._prepare}
        return self._client.batch(self._take(), tools=tools, **options)

    # Rows -------------------------------------------------------------------------------------------------------------

    async def _take(self) -> AsyncIterator[_Turn]:
        """Yield what is to be run, row by row; report what cannot be."""
        for number, read in enumerate(self._source, 1):
            if not number % _PIECE:
                await asyncio.sleep(0)  # a long way to the first row that is not done holds up nothing
            item = read if isinstance(read, Problem) else self._mapper.item(read)
            if isinstance(item, Problem):
                self._refuse(item)
                continue
            turn = self._turn(item, self._output.known.get(item.key))
            if turn is not None:
                self._turns[self._count] = turn
                self._count += 1
                yield turn

    def _turn(self, item: Item, known: Known | None) -> _Turn | None:
        """Return how an item is taken up, None if it is done."""
        attempt = 1 if known is None else known.attempts
        run = None if known is None else known.run
        if known is not None and self._is_done(known):
            again = self._args.retry_failed and known.status != "completed"
            if not again and _attempt_key(item.key, attempt + 1) not in self._open:
                self._tally.before += 1
                self._codes.add(_CODES[known.status])
                return None
            attempt, run = attempt + 1, None
        return _Turn(item, _attempt_key(item.key, attempt), attempt, run, time.time())

    def _is_done(self, known: Known) -> bool:
        """Tell whether an item is over, or must not be begun again blindly."""
        blind = self._args.no_journal and known.run is None and known.reason == OutcomeUnknownError.__name__
        return known.status in {"completed", "failed"} or blind

    async def _prepare(self, turn: _Turn) -> Any:
        """Return what starts an item that the journal does not know."""
        self._begun.add(turn.key)
        if turn.run is not None:
            return turn.run
        origin = turn.item.origin
        if self._conversations is not None:
            origin = await self._conversations.begin(self._client, origin)
        return ray_engine.with_stable_id(self._engine, origin, turn.key)

    def _refuse(self, problem: Problem) -> None:
        """Report a row that cannot be used."""
        self._refused += 1
        if self._refused <= _TOLD:
            self._tell(lambda: self._view.say(f"agentruns: {problem}"))
        elif self._refused == _TOLD + 1:
            self._tell(lambda: self._view.say("agentruns: further rows that cannot be used stand in the output only"))
        now = time.time()
        failure = {"type": "InvalidRow", "message": str(problem), "field": problem.field}
        self._write(problem, INVALID, 1, now, None, failure, waited=False)

    # Outcomes ---------------------------------------------------------------------------------------------------------

    def _ended(self, outcome: Outcome) -> None:
        """Enter how an item ended."""
        turn = self._turns.pop(outcome.index)
        error = self._other_work(turn, outcome) or outcome.error
        status, failure = record.status_of(error, outcome.run), record.failure_of(error, outcome.run)
        if failure is not None and failure["message"] == str(error) and error is not None:
            failure["message"] = shell_text.translate(error, self._args)
        waited = turn.key in self._begun or turn.key in self._open  # else the journal knew its end
        self._begun.discard(turn.key)
        self._write(turn.item, status, turn.attempt, turn.began, outcome.run, failure, waited=waited)
        if failure is not None:
            text = f"{failure['type']}: {failure['message']}"
            text = f"line {turn.item.line} ({turn.item.key}): {status}: {text}"
            self._tell(lambda: self._view.trouble(text))
        if not self._stopping and isinstance(error, APIError) and error.status in _HOPELESS:
            said = shell_text.translate(error, self._args)
            self._stop(f"the vendor answers {error.status}, as it would to every further row: {said}")
        if not self._stopping and isinstance(error, JournalError):
            said = shell_text.translate(error, self._args)
            self._codes.add(_TROUBLE)
            self._stop(f"{said} (without the journal nothing can be started safely)")

    def _other_work(self, turn: _Turn, outcome: Outcome) -> Exception | None:
        """Return what is wrong with a key under which the journal knows other work."""
        kind = self._dialect.Origin
        if not isinstance(outcome.origin, kind) or self._mapper.same(outcome.origin, turn.item.origin):
            return None
        return ConfigurationError(
            f"key {turn.key!r} names other work in the journal: its row was another when it was begun. Give it another "
            "key, or use another journal and output"
        )

    def _write(
        self,
        read: Item | Problem,
        status: str,
        attempts: int,
        began: float,
        run: Run | None,
        failure: dict[str, Any] | None,
        *,
        waited: bool,
    ) -> None:
        key = read.key if isinstance(read, Item) else None  # any text may be the key of another row
        times = {"began": began, "ended": time.time()}
        entry = record.line(
            self._dialect, key or "", status, run, failure, number=read.line, attempts=attempts, **times
        )
        try:
            self._output.append(entry | {"key": key})
        except OSError as error:
            raise file_error("OUTPUT", self._output.path, "written", error) from error
        self._tally.add(status, run=waited)
        self._codes.add(_CODES[status])

    # The end ----------------------------------------------------------------------------------------------------------

    def _interrupted(self) -> None:
        if not self._stopping:
            flying = sum(self._outcomes.states().values())
            self._stop(
                f"Ctrl-C: no more rows are started, and {flying} in flight are waited for; Ctrl-C again leaves them to "
                "the vendor, where they go on"
            )
            self._codes.add(_INTERRUPTED)
        elif not self._left:
            self._left = True
            self._codes.add(_INTERRUPTED)
            assert self._task is not None
            self._task.cancel()

    def _stop(self, why: str) -> None:
        self._stopping = why
        self._tally.stopped = True
        self._outcomes.stop()
        self._tell(lambda: self._view.say(f"agentruns: {why}"))

    def _end(self) -> int:
        with contextlib.suppress(OSError):  # every line is there, if not tidily
            self._output.tidy()
        if self._stopping:
            done = self._tally.done.total()
            complain(f"this call has brought {done} rows to an end; go on with:", f"  {self._again()}")
        elif not self._args.quiet and max(self._codes) in {3, 4, 5}:
            complain("what is not done is taken up again by:", f"  {self._again()}")
        elif not self._args.quiet and max(self._codes) == 1:
            complain("failed runs are started again by:", f"  {self._again()} --retry-failed")
        return max(self._codes)

    def _again(self) -> str:
        return shell(["agentruns", *(word for word in self._args.typed if word != "--retry-failed")])

    # Progress ---------------------------------------------------------------------------------------------------------

    def _picture(self) -> progress.Picture:
        flying = self._outcomes.states()
        if self._engine is None:
            return self._tally.picture(flying, self._client.stats())
        return self._tally.picture(self._engine.states() if flying else {}, self._engine.stats())

    def _tell(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except OSError as error:  # the pipe is closed, or there is no room; the work goes on
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._shown.fileno())
            self._view = progress.Quiet()
            if not isinstance(error, BrokenPipeError):
                self._view.say(f"agentruns: progress cannot be shown ({error.strerror or error}); the work goes on")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._view.every)
            self._tell(lambda: self._view.show(self._picture()))

    async def _count_rows(self, leave: threading.Event) -> None:
        if not self._args.quiet:
            self._tally.total = await asyncio.to_thread(self._source.count, leave)


def _attempt_key(key: str, attempt: int) -> str:
    return key if attempt == 1 else f"{key} (attempt {attempt})"


@contextlib.contextmanager
def _interrupts(act: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C call *act*, where the system allows it; else it ends the call at once."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGINT, act)
    except (NotImplementedError, ValueError, RuntimeError):
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
