"""One call of `agentruns batch`: from the first row that is not done to its exit code."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TextIO

from agentruns._following import record
from agentruns._following.batch import Batch
from agentruns._following.options import StreamOptions
from agentruns._values import codec
from agentruns._values.run import Outcome, Run
from agentruns.cli import shell_text
from agentruns.cli.parents import NewParents
from agentruns.cli.printing import complain, drop, shell
from agentruns.client import Client
from agentruns.dialects.protocol import Dialect
from agentruns.errors import APIError, ConfigurationError, JournalError, NotFoundError, TransportError
from agentruns.tools import Tools

from . import progress, ray_engine
from .file_errors import FileError, file_error
from .limits import Limits, Spending, spent_by
from .output import INVALID, Known, Output
from .rows import Problem, Rows
from .templates import Item, Mapper
from .turns import Choice, Turn

if TYPE_CHECKING:
    from agentruns.ray.engine import WorkerPool

CODES: Final = {
    "completed": 0,
    "failed": 1,
    INVALID: 2,
    "requires_action": 3,
    "unfinished": 4,
    "unstarted": 5,
    "error": 5,
}
_TROUBLE: Final = 5
_LIMITED: Final = 4

_TOLD: Final = 20
_PIECE: Final = 256


class Job:
    """One call of the command, from the first row that is not done to the last line of the output."""

    def __init__(
        self,
        args: argparse.Namespace,
        client: Client,
        dialect: Dialect,
        source: Rows,
        mapper: Mapper,
        parents: NewParents | None,
        output: Output,
        engine: WorkerPool | None,
        shown: TextIO,
        choice: Choice,
        limits: Limits,
    ) -> None:
        self._choice = choice
        self._limits = limits
        self._args = args
        self._client = client
        self._dialect = dialect
        self._source = source
        self._mapper = mapper
        self._parents = parents
        self._output = output
        self._engine = engine
        self._shown = shown
        self._tally = progress.Tally()
        self._turns: dict[int, Turn] = {}
        self._open: set[str] = set()
        self._spending = Spending()
        for known in output.known.values():
            self._spending.add(known.spent)
        self._changed = self._gone = 0
        self._left_over = len(output.known)  # items of OUTPUT of which no row was read
        self._is_whole = False  # every row was read
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
        self._check_limits()
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
        except (APIError, TransportError) as error:
            if error is not self._outcomes.refusal:  # which was told when it came
                complain(f"agentruns: {shell_text.translate(error, self._args)}")
                self._codes.add(_TROUBLE)
                self._stopping = self._stopping or "no contact"
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
        args = self._args
        same: Any = {"key": attrgetter("key"), "prepare": self._prepare, "options": _options}
        same["changed"] = "again" if args.again else "keep" if args.keep else "refuse"
        if self._engine is not None:
            return self._engine.batch(self._client, self._take(), **same)
        return self._client.batch(
            self._take(), tools=tools, limit=args.limit, timeout=args.timeout, patience=args.patience, **same
        )

    # Rows -------------------------------------------------------------------------------------------------------------

    async def _take(self) -> AsyncIterator[Turn]:
        """Yield what is to be run, row by row; report what cannot be."""
        for number, read in enumerate(islice(self._source, self._args.first), 1):
            if not number % _PIECE:
                await asyncio.sleep(0)  # a long way to the first row that is not done holds up nothing
            item = read if isinstance(read, Problem) else self._mapper.item(read)
            if isinstance(item, Problem):
                self._refuse(item)
                continue
            self._left_over -= item.key in self._output.known
            turn = self._choice.turn(item, self._output.known.get(item.key), self._open)
            if isinstance(turn, Turn):
                self._turns[self._count] = turn
                self._count += 1
                yield turn
            else:
                self._leave(item, turn)
        self._is_whole = self._args.first is None

    def _leave(self, item: Item, known: Known) -> None:
        """Leave a row as an earlier call has brought it to its end."""
        self._tally.before[known.status] += 1
        if not self._choice.has_changed(item, known):
            self._codes.add(CODES[known.status])
            return
        self._changed += 1
        self._codes.add(CODES[INVALID])
        if self._changed <= _TOLD:
            text = (
                f"agentruns: line {item.line} ({item.key}): it asks for something else than when it was {known.status}"
            )
            self._tell(lambda: self._view.say(text))

    async def _prepare(self, turn: Turn) -> Any:
        """Return what starts an item that the journal does not know."""
        self._begun.add(turn.key)
        if turn.run is not None:
            return turn.run
        origin = turn.item.origin
        if self._parents is not None:
            origin = await self._parents.begin(self._client, origin)
        return ray_engine.with_stable_id(self._engine, origin, turn.key)

    def _refuse(self, problem: Problem) -> None:
        """Report a row that cannot be used."""
        self._refused += 1
        if self._refused <= _TOLD:
            self._tell(lambda: self._view.say(f"agentruns: {problem}"))
        elif self._refused == _TOLD + 1:
            self._tell(lambda: self._view.say("agentruns: further rows that cannot be used stand in the output only"))
        now = time.time()
        failure = {"type": "InvalidRow", "message": str(problem), "field": problem.field, "key": problem.key}
        self._write(problem, INVALID, 1, now, None, failure, waited=False)

    # Outcomes ---------------------------------------------------------------------------------------------------------

    def _ended(self, outcome: Outcome) -> None:
        """Enter how an item ended."""
        turn = self._turns.pop(outcome.index)
        error = outcome.error
        status, failure = record.status_of(error, outcome.run), record.failure_of(error, outcome.run)
        if failure is not None and failure["message"] == str(error) and error is not None:
            failure["message"] = shell_text.translate(error, self._args)
        waited = turn.key in self._begun or turn.key in self._open  # else the journal knew its end
        self._begun.discard(turn.key)
        self._gone += isinstance(error, NotFoundError)
        self._write(turn.item, status, turn.attempt, turn.began, outcome.run, failure, waited=waited, turn=turn)
        if failure is not None:
            text = f"{failure['type']}: {failure['message']}"
            text = f"line {turn.item.line} ({turn.item.key}): {status}: {text}"
            self._tell(lambda: self._view.trouble(text))
        refusal = self._outcomes.refusal
        if not self._stopping and refusal is not None:
            said = shell_text.translate(refusal, self._args)
            self._stop(f"the vendor answers {refusal.status}, as it would to every further row: {said}")
        if not self._stopping and self._engine is not None and self._engine.is_lost:
            self._codes.add(_TROUBLE)
            self._stop("no worker of Ray answers any more; the runs in flight go on at the vendor")
        if not self._stopping and isinstance(error, JournalError):
            said = shell_text.translate(error, self._args)
            self._codes.add(_TROUBLE)
            self._stop(f"{said} (without the journal nothing can be started safely)")
        self._check_limits()

    def _check_limits(self) -> None:
        """Take no more rows once the call has gone as far as it may."""
        found = self._spending
        passed = self._limits.passed(found.failures, found.tokens, found.cost)
        if passed and not self._stopping:
            self._codes.add(_LIMITED)
            self._stop(f"{passed}: no more rows are started, and those in flight are waited for")

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
        turn: Turn | None = None,
    ) -> None:
        key = read.key if isinstance(read, Item) else None  # any text may be the key of another row
        times = {"began": began, "ended": time.time()}
        entry = record.line(
            self._dialect, key or "", status, run, failure, number=read.line, attempts=attempts, **times
        )
        entry |= {"key": key, "digest": None if turn is None else turn.item.digest}
        entry["earlier"] = None if turn is None else turn.earlier
        if turn is not None and entry["run"] is None and turn.run is not None:
            entry["run"] = codec.unstructure(turn.run)  # no state of it was seen, and it is not to be started again
        if self._args.columns is not None:
            entry["columns"] = _columns(read.values, self._args.columns)
        if turn is not None:
            known = self._output.known.get(turn.item.key)
            self._spending.add(None if known is None else known.spent, sign=-1)
            self._spending.add(spent_by(entry))
        self._spending.ended(status)
        try:
            self._output.append(entry)
        except OSError as error:
            raise file_error("OUTPUT", self._output.path, "written", error) from error
        self._tally.add(status, run=waited)
        self._codes.add(CODES[status])

    # The end ----------------------------------------------------------------------------------------------------------

    def _interrupted(self, by: signal.Signals) -> None:
        self._codes.add(128 + by)
        if not self._stopping:
            flying, name = sum(self._outcomes.states().values()), "Ctrl-C" if by == signal.SIGINT else by.name
            self._stop(
                f"{name}: no more rows are started, and {flying} in flight are waited for; {name} again leaves them to "
                "the vendor, where they go on"
            )
        elif not self._left:
            self._left = True
            assert self._task is not None
            self._task.cancel()

    def _stop(self, why: str) -> None:
        self._stopping = why
        self._tally.stopped = True
        self._outcomes.stop()
        if self._engine is not None:
            self._engine.stop()
        self._tell(lambda: self._view.say(f"agentruns: {why}"))

    def _end(self) -> int:
        with contextlib.suppress(OSError):  # every line is there, if not tidily
            self._output.tidy()
        if self._stopping:
            done = self._tally.done.total() - self._tally.done["unstarted"]
            complain(f"this call has brought {done} rows to an end; go on with:", f"  {self._again()}")
        elif not self._args.quiet and max(self._codes) in {3, 4, 5}:
            complain("what is not done is taken up again by:", f"  {self._again()}")
        elif not self._args.quiet and max(self._codes) == 1:
            complain("failed runs are started again by:", f"  {self._again('--retry-failed')}")
        if self._gone:
            complain(
                f"{self._gone} rows have runs that the vendor knows no more; they are started again by:",
                f"  {self._again('--retry-failed')}",
            )
        if self._changed:
            complain(
                f"{self._changed} rows ask for something else than when they were begun; they are started again by:",
                f"  {self._again('--again')}",
                "or taken as they are by:",
                f"  {self._again('--keep')}",
            )
        if self._is_whole and self._left_over and not self._args.quiet:
            complain(
                f"lines of OUTPUT that are of no row of INPUT as it is now: {self._left_over}. They stay there"
                + ("" if self._args.no_journal else self._renewed())
            )
        return max(self._codes)

    def _renewed(self) -> str:
        journal = self._args.journal or f"{self._output.path}.journal"
        return f"; a new OUTPUT without them is made, and nothing started, by -o NEW --journal {shell([journal])}"

    def _again(self, *more: str) -> str:
        words = (word for word in self._args.typed if word not in {"--retry-failed", "--again", "--keep"})
        return shell(["agentruns", *words, *more])

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
            drop(self._shown)
            self._view = progress.Quiet()
            if not isinstance(error, BrokenPipeError):
                self._view.say(f"agentruns: progress cannot be shown ({error.strerror or error}); the work goes on")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._view.every)
            self._tell(lambda: self._view.show(self._picture()))

    async def _count_rows(self, leave: threading.Event) -> None:
        if not self._args.quiet:
            total, first = await asyncio.to_thread(self._source.count, leave), self._args.first
            self._tally.total = total if total is None or first is None else min(total, first)


def _options(turn: Turn) -> StreamOptions:
    return {"digest": turn.item.digest}


def _columns(row: Mapping[str, Any], asked: str) -> dict[str, Any]:
    """Return the columns of a row that the output is to have; null for one that the row has not."""
    names = list(row) if asked == "*" else [name.strip() for name in asked.split(",")]
    values = {name: row.get(name) for name in names}
    try:
        plain: dict[str, Any] = codec.to_jsonable(values, "the columns")
    except ConfigurationError:
        plain = {name: str(value) for name, value in values.items()}
    return plain


@contextlib.contextmanager
def _interrupts(act: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM call *act*, where the system allows it; else they end the call at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    try:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, act, each)
    except (NotImplementedError, ValueError, RuntimeError):
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.add_signal_handler(signal.SIGTERM, task.cancel)  # as it ends every command
