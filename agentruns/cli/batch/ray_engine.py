"""`--engine ray`: the same batch, with workers of Ray that follow the runs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentruns._api.limiter import rate_limit
from agentruns._connect import connect
from agentruns._keeping.journal.locations import is_database
from agentruns._values import check
from agentruns._values.exchange import RateLimit
from agentruns._values.minted import idempotency_field
from agentruns.cli import arguments, origins
from agentruns.cli.connection import connection
from agentruns.cli.printing import complain
from agentruns.dialects import for_workers
from agentruns.dialects.names import absolute
from agentruns.dialects.protocol import Dialect
from agentruns.errors import ConfigurationError

if TYPE_CHECKING:
    from agentruns.ray.engine import WorkerPool

_WORKERS: Final = 2


@contextlib.asynccontextmanager
async def engine(
    args: argparse.Namespace, dialect: Dialect, output: Path, *, own_requests: bool
) -> AsyncIterator[WorkerPool | None]:
    """
    Begin the workers that the options ask for, and end them; yield None for the engine in this process.

    With *own_requests* this process sends requests, too. What Ray prints meanwhile goes to stderr.
    """
    check_options(args)
    if args.engine != "ray":
        yield None
        return
    from agentruns.ray.engine import PoolOptions, WorkerPool, cluster
    from agentruns.ray.worker import ClientOptions

    limit = dialect.BUDGET if args.budget is None else rate_limit(args.budget)
    connect(dialect, **connection(args))  # what is wrong for us is wrong for workers
    with contextlib.redirect_stdout(sys.stderr), cluster() as nodes:
        options = ClientOptions(
            vendor=for_workers(args.vendor),
            base_url=args.base_url,
            insecure=args.insecure,
            timeout=args.timeout,
            patience=args.patience,
            journal=_journal(args, output, nodes),
            limit=limit,
        )
        pool = PoolOptions(
            dialect=dialect,
            options=options,
            workers=_workers(args.workers or max(_WORKERS, nodes), limit, own_requests),
            limit=args.limit,
            tools=None if args.tools is None else partial(arguments.tools, absolute(args.tools)),
            batch=None if idempotency_field(dialect.Origin) in origins.templates(args) else _name(args, output),
            own_requests=own_requests,
            same_node=options.journal is not None and args.journal is None,
        )
        async with WorkerPool(pool) as begun:
            if not begun.can_repeat:
                complain(
                    "agentruns: without a journal that all workers share, a row whose worker dies is not started again "
                    "but reported as one whose outcome is unknown"
                )
            yield begun


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that go with another engine, or cannot work with this one."""
    if args.engine == "ray":
        if args.proxy is not None:
            raise ConfigurationError("--proxy is not for --engine ray: it would not reach the workers")
        if args.workers is not None:
            check.integer("--workers", args.workers, 1)
        return
    for option, value in (("--workers", args.workers), ("--batch-name", args.batch_name)):
        if value is not None:
            raise ConfigurationError(f"{option} is for --engine ray")


def _journal(args: argparse.Namespace, output: Path, nodes: int) -> str | None:
    """Return where the journal is: beside the output where there is one machine, else only where the user says."""
    if args.no_journal:
        return None
    if args.journal is not None:
        return args.journal if is_database(args.journal) else str(Path(args.journal).resolve())
    return f"{output.resolve()}.journal" if nodes == 1 else None


def _name(args: argparse.Namespace, output: Path) -> str:
    """Return what names the batch over several calls."""
    return args.batch_name or str(output.resolve())


def _workers(asked: int, limit: RateLimit | None, own_requests: bool) -> int:
    """Return how many workers share the budget: no more than it has permits, one of which may be for this process."""
    if limit is None:
        return asked
    permits = limit.count - own_requests
    if permits < 1:
        raise ConfigurationError("--budget is too small to be shared with workers; give a larger one")
    return min(asked, permits)


def with_stable_id(engine: WorkerPool | None, origin: Any, key: str) -> Any:
    """Return the origin under the id that its key has in the batch, where a worker may be asked for it again."""
    return origin if engine is None else engine.with_stable_id(origin, key)
