"""
What test_kills.py runs in processes of its own: one life of somebody who works under a key.

A life may end itself, with a signal that nothing can catch, right before, within or right after a commit of the
journal, or around a request. A life that is not ended says in a file what became of it. By hand, to look at one life:
`python -m tests.crash.worker FILE`, where the file is a pickled `Life`.
"""

import asyncio
import json
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import evolve, frozen

from agentruns import (
    Action,
    AgentRunsError,
    Backoff,
    Client,
    OutcomeUnknownError,
    Retry,
    Run,
    ToolOutcomeUnknownError,
    ToolOutput,
    Tools,
    conduit,
    connect,
    middesk,
    narrative,
    origami,
)
from agentruns._api import flow
from agentruns._api.transport import AiohttpTransport
from agentruns._keeping.journal.ledger import Ledger
from agentruns._values.exchange import Request, Response

DIALECTS: dict[str, Any] = {"narrative": narrative, "middesk": middesk, "origami": origami, "conduit": conduit}
QUICK = Backoff(initial=0.003, maximum=0.02, jitter=0.0)
HURRY = 100
"""How much shorter the waits of a dialect are: those for a run that a lost answer may have started, say."""

DURING = 0.02
"""Seconds into a request at which a life ends that ends during it."""


@frozen
class Kill:
    """Where a life ends: at the *n*-th commit, counted from 1, or at the *n*-th request that is no GET."""

    what: Literal["commit", "request"]
    n: int
    side: Literal["before", "within", "after"]

    def __str__(self) -> str:
        return f"{self.side} {self.what} {self.n}"


@frozen(kw_only=True)
class Life:
    """
    What one process does.

    `by_hand` answers what no handler may: a pause whose outcome is unknown. With `others`, the origin is but one of a
    batch.
    """

    vendor: str
    base_url: str
    token: str
    journal: Path | str
    key: str
    origin: Any
    others: Sequence[Any] = ()
    effects: Path
    said: Path
    kill: Kill | None = None
    repeatable: bool = False
    handler_seconds: float = 0.0
    by_hand: bool = False
    timeout: float = 40.0


def live(life: Life) -> None:
    """Live, and say what came of it."""
    warnings.simplefilter("error")
    complaints: list[str] = []
    sys.unraisablehook = lambda what: complaints.append(f"{what.err_msg}: {what.exc_value!r}")
    counts = {"commit": 0, "request": 0}
    _count(counts, life.kill)
    if isinstance(life.journal, str):
        _count_in_postgres(counts, life.kill)
    setattr(flow, "sleep", _hurried)  # noqa: B010 - a name that flow does not export
    said = asyncio.run(work(life, complaints))
    part = life.said.with_suffix(".part")
    part.write_text(json.dumps({**said, "complaints": complaints, **counts}))
    part.rename(life.said)


async def _hurried(seconds: float) -> None:
    await asyncio.sleep(seconds / HURRY)


async def work(life: Life, complaints: list[str]) -> dict[str, Any]:
    """Do what there is to be done, and return what came of it."""
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
    async with connect(
        DIALECTS[life.vendor],
        token=life.token,
        base_url=life.base_url,
        journal=life.journal,
        schedule=QUICK,
        budget=1000,
        retry=Retry(attempts=2, backoff=QUICK),
    ) as client:
        try:
            return _told(await (_batch(client, life) if life.others else _result(client, life)))
        except AgentRunsError as error:
            request = error.request.line if isinstance(error, OutcomeUnknownError) else None
            return {"error": type(error).__name__, "message": str(error), "request": request}


async def _batch(client: Client, life: Life) -> Run:
    """Run all of a batch, and return the last run; raise the first error that is left."""
    last: Run | None = None
    async with client.batch(
        [life.origin, *life.others], tools=_tools(life), timeout=life.timeout, key=repr, limit=3
    ) as outcomes:
        async for outcome in outcomes:
            last = outcome.run
            if isinstance(outcome.error, ToolOutcomeUnknownError) and life.by_hand:
                last = await _result(client, evolve(life, origin=outcome.origin, key=repr(outcome.origin)))
            elif outcome.error is not None:
                raise outcome.error
    assert last is not None
    return last


def _tools(life: Life) -> Tools:
    tools = Tools()
    tools.default(_handler(life), repeatable=life.repeatable)
    return tools


async def _result(client: Client, life: Life) -> Run:
    options: Any = {"tools": _tools(life), "key": life.key, "timeout": life.timeout, "patience": 2.0}
    try:
        return await client.result(life.origin, **options)
    except ToolOutcomeUnknownError as error:
        if not life.by_hand:
            raise
        paused = error.run
    assert paused is not None
    await client.resume(paused, [ToolOutput(action, answer_to(action)) for action in paused.actions])
    return await client.result(life.origin, **options)


def _told(run: Run) -> dict[str, Any]:
    return {"run": run.id, "status": run.status.value, "output": run.output}


def _handler(life: Life) -> Callable[[Action], Awaitable[Any]]:
    async def handle(action: Action) -> Any:
        _enter(life.effects, action)
        await asyncio.sleep(life.handler_seconds)
        return answer_to(action)

    return handle


def answer_to(action: Action) -> Any:
    suggested = action.arguments.get("suggestedAnswers")
    return suggested[0] if suggested else {"approved": True}


def _enter(effects: Path, action: Action) -> None:
    """Do what must not be done twice: a line that is on the disk before anything else happens."""
    line = json.dumps([action.id, action.arguments], sort_keys=True) + "\n"
    file = os.open(effects, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line.encode())
        os.fsync(file)
    finally:
        os.close(file)


# The end --------------------------------------------------------------------------------------------------------------


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _count(counts: dict[str, int], kill: Kill | None) -> None:
    """Count commits and requests, and end the life where it is to end."""

    def at(what: str, side: str) -> bool:
        return kill is not None and (what, counts[what], side) == (kill.what, kill.n, kill.side)

    carry_out, execute, ask = Ledger.carry_out, Ledger.execute, AiohttpTransport.__call__

    def counted_carry_out(self: Ledger, batch: Sequence[Any]) -> None:
        counts["commit"] += 1
        if at("commit", "before"):
            _die()
        carry_out(self, batch)
        if at("commit", "after"):
            _die()

    def counted_execute(self: Ledger, sql: str, /, *values: Any) -> Any:
        if sql == "COMMIT" and at("commit", "within"):
            _die()
        return execute(self, sql, *values)

    async def counted_ask(self: AiohttpTransport, request: Request) -> Response:
        if request.method == "GET":
            return await ask(self, request)
        counts["request"] += 1
        if at("request", "before"):
            _die()
        if at("request", "within"):
            asyncio.get_running_loop().call_later(DURING, _die)
        response = await ask(self, request)
        if at("request", "after"):
            _die()
        return response

    Ledger.carry_out = counted_carry_out  # type: ignore[method-assign]
    Ledger.execute = counted_execute  # type: ignore[method-assign, assignment]
    AiohttpTransport.__call__ = counted_ask  # type: ignore[method-assign]


def _count_in_postgres(counts: dict[str, int], kill: Kill | None) -> None:
    """Do the same for commits to PostgreSQL."""
    import psycopg

    from agentruns._keeping.journal.postgres.ledger import PostgresLedger

    def at(side: str) -> bool:
        return kill is not None and ("commit", counts["commit"], side) == (kill.what, kill.n, kill.side)

    carry_out, execute = PostgresLedger.carry_out, psycopg.Connection.execute

    def counted_carry_out(self: PostgresLedger, batch: Sequence[Any]) -> None:
        counts["commit"] += 1
        if at("before"):
            _die()
        carry_out(self, batch)
        if at("after"):
            _die()

    def counted_execute(self: Any, query: Any, *values: Any, **options: Any) -> Any:
        if isinstance(query, str) and query.endswith("COMMIT") and at("within"):
            _die()
        return execute(self, query, *values, **options)

    setattr(PostgresLedger, "carry_out", counted_carry_out)  # noqa: B010 - as a checker of types would not have it
    setattr(psycopg.Connection, "execute", counted_execute)  # noqa: B010


if __name__ == "__main__":
    live(pickle.loads(Path(sys.argv[1]).read_bytes()))
