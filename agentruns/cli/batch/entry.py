"""What the words of a call of `agentruns batch` ask for: checked before anything is sent, then run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from agentruns._connect import connect
from agentruns._values import check
from agentruns.cli import arguments
from agentruns.cli.connection import connection
from agentruns.cli.printing import complain
from agentruns.dialects import load
from agentruns.dialects.protocol import Dialect
from agentruns.errors import ConfigurationError
from agentruns.tools import Tools

from . import ray_engine
from .command import Job
from .conversations import Conversations
from .dry_run import check_call, dry_run
from .limits import Limits
from .output import Output
from .rows import Rows, rows
from .templates import Mapper
from .turns import Choice


async def batch(args: argparse.Namespace) -> int:
    """
    Run every row that is not done, and return the exit code: the highest that any row asks for.

    Raise `ConfigurationError`, before anything is sent, for what cannot work.
    """
    check.integer("--limit", args.limit, 1)
    check.number("--patience", args.patience, zero=True)
    if args.timeout is None:
        args.timeout = "vendor"
    else:
        check.number("--timeout", args.timeout)
    if args.budget is not None:
        check.number("--budget", args.budget)
    dialect = load(args.vendor)
    tools = arguments.tools(args.tools)
    conversations = _conversations(args, dialect, tools)
    limits = Limits(failures=args.max_failures, tokens=args.max_total_tokens, cost=args.max_total_cost)
    if args.first is not None:
        check.integer("--first", args.first, 1)
    if args.keep_days is not None:
        check.number("--keep-days", args.keep_days)
    choice = Choice(retry_failed=args.retry_failed, again=args.again, keep=args.keep, journal=not args.no_journal)
    source = rows(Path(args.input), delimiter=args.delimiter, encoding=args.encoding)
    _check_columns(args.columns, source)
    fixed = {} if conversations is None else {"conversation_id": arguments.PENDING}
    beside = None if conversations is None else conversations.given
    given = arguments.templates(args)
    if conversations is not None and "conversation_id" in given:
        raise ConfigurationError("--conversation makes new conversations; leave --conversation-id out, or use it alone")
    columns, hint = source.columns, source.hint
    mapper = Mapper(dialect, given, key=args.key, columns=columns, fixed=fixed, beside=beside, hint=hint)
    unfilled = [] if conversations is None else conversations.columns_within(columns or ())
    for column in unfilled:
        complain(
            f"agentruns: --conversation has {{{column}}} in it, which is sent as it stands: no row is put in there"
        )
    if args.dry_run:
        place = None if args.output is None else _place(args.output, source)
        check_call(args, dialect, place)
        return dry_run(args, source, mapper, dialect, conversations, choice, place)
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
        with Output(path, dialect.NAME, heal=not args.no_journal) as output:
            for number in output.healed:
                complain(
                    f"agentruns: line {number} of OUTPUT was damaged, and stands in {path.name}.damaged now; its row "
                    "is made again from the journal"
                )
            async with client:
                if args.keep_days is not None and not args.no_journal:
                    await client.prune(older_than=86400 * args.keep_days)
                job = Job(args, client, dialect, source, mapper, conversations, output, engine, shown, choice, limits)
                return await job.run(tools)


def _check_columns(asked: str | None, source: Rows) -> None:
    """Refuse, at once, columns for the output that no row has."""
    names = [] if asked is None or asked == "*" else [name.strip() for name in asked.split(",")]
    strange = [name for name in names if source.columns is not None and name not in source.columns]
    if strange or not all(names):
        raise ConfigurationError(
            f"--columns is {asked!r}; INPUT has {', '.join(source.columns or ())}. Name some of them, with commas "
            "between, or * for all"
        )


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
