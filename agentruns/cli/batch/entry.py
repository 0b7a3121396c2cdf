"""What the words of a call of `agentruns batch` ask for: checked before anything is sent, then run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from agentruns._connect import connect
from agentruns._values import check
from agentruns.cli import arguments, origins
from agentruns.cli.connection import connection
from agentruns.cli.parents import NewParents, option_of
from agentruns.cli.printing import complain
from agentruns.dialects import load
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError
from agentruns.tools import Tools

from . import ray_engine
from .command import Job
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
    vendor = Vendor.of(dialect)
    tools = arguments.tools(args.tools)
    parents = _parents(args, vendor, tools)
    limits = Limits(failures=args.max_failures, tokens=args.max_total_tokens, cost=args.max_total_cost)
    if args.first is not None:
        check.integer("--first", args.first, 1)
    if args.keep_days is not None:
        check.number("--keep-days", args.keep_days)
    choice = Choice(retry_failed=args.retry_failed, again=args.again, keep=args.keep, journal=not args.no_journal)
    source = rows(Path(args.input), delimiter=args.delimiter, encoding=args.encoding)
    _check_columns(args.columns, source)
    fixed = {} if parents is None else parents.fixed
    beside = None if parents is None else parents.given
    given = origins.templates(args)
    for field in {*given}.intersection(fixed):
        raise ConfigurationError(
            f"{option_of(vendor)} makes new ones; leave {origins.option(field)} out, or use it alone"
        )
    columns, hint = source.columns, source.hint
    mapper = Mapper(dialect, given, key=args.key, columns=columns, fixed=fixed, beside=beside, hint=hint)
    unfilled = [] if parents is None else parents.columns_within(columns or ())
    for column in unfilled:
        complain(
            f"agentruns: {option_of(vendor)} has {{{column}}} in it, which is sent as it stands: no row is put in there"
        )
    if args.dry_run:
        place = None if args.output is None else _place(args.output, source)
        check_call(args, dialect, place)
        return dry_run(args, source, mapper, dialect, parents, choice, place)
    path = _place(args.output, source)
    shown = sys.stdout
    async with ray_engine.engine(args, dialect, path, own_requests=parents is not None) as engine:
        journal = args.journal or f"{path}.journal" if engine is None else engine.journal
        args.no_journal = args.no_journal or journal is None
        client = connect(
            dialect,
            **connection(args),
            budget=args.budget if engine is None or engine.budget is None else engine.budget,
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
                job = Job(args, client, dialect, source, mapper, parents, output, engine, shown, choice, limits)
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


def _parents(args: argparse.Namespace, vendor: Vendor, tools: Tools | None) -> NewParents | None:
    file = getattr(args, "parent_file", None)
    return None if file is None else NewParents.read(vendor, Path(file), tools)
