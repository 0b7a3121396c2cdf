"""`--engine ray`: the same batch, whose runs are followed by workers of Ray's."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentruns._api.limiter import rate_limit
from agentruns._values import check
from agentruns.cli import arguments
from agentruns.client import connect
from agentruns.dialects.protocol import Dialect
from agentruns.errors import ConfigurationError

if TYPE_CHECKING:
    from agentruns.ray.engine import Engine

_WORKERS: Final = 2


@contextlib.asynccontextmanager
async def engine(
    wanted: argparse.Namespace, dialect: Dialect, output: Path, *, beside: bool
) -> AsyncIterator[Engine | None]:
    """
    Begin the workers that the options ask for, and end them; yield None for the engine in this process.

    With *beside* this process sends requests of its own. What Ray prints, meanwhile, goes to stderr.
    """
    check_options(wanted)
    if wanted.engine != "ray":
        yield None
        return
    from agentruns.ray.engine import Crew, Engine, cluster
    from agentruns.ray.intents import minted
    from agentruns.ray.worker import Terms

    limit = dialect.BUDGET if wanted.budget is None else rate_limit(wanted.budget)
    connect(dialect, base_url=wanted.base_url, insecure=wanted.insecure)  # what is wrong for us is wrong for workers
    with contextlib.redirect_stdout(sys.stderr), cluster() as nodes:
        terms = Terms(
            vendor=wanted.vendor,
            base_url=wanted.base_url,
            insecure=wanted.insecure,
            timeout=wanted.timeout,
            journal=_journal(wanted, output, nodes),
            limit=limit,
        )
        crew = Crew(
            dialect=dialect,
            terms=terms,
            workers=_workers(wanted.workers or max(_WORKERS, nodes), None if limit is None else limit.count, beside),
            limit=wanted.limit,
            tools=None if wanted.tools is None else partial(arguments.tools, _absolute(wanted.tools)),
            batch=None if minted(dialect.Origin) in arguments.templates(wanted) else _name(wanted, output),
            beside=beside,
            here=terms.journal is not None and wanted.journal is None,
        )
        async with Engine(crew) as begun:
            if not begun.again:
                print(
                    "agentruns: without a journal that all workers share, a row whose worker dies is not started again "
                    "but reported as one whose outcome is unknown",
                    file=sys.stderr,
                )
            yield begun


def check_options(wanted: argparse.Namespace) -> None:
    """Refuse options that go with another engine, or cannot work with this one."""
    if wanted.engine == "ray":
        if wanted.workers is not None:
            check.integer("--workers", wanted.workers, 1)
        return
    for option, value in (("--workers", wanted.workers), ("--batch-name", wanted.batch_name)):
        if value is not None:
            raise ConfigurationError(f"{option} is for --engine ray")


def _journal(wanted: argparse.Namespace, output: Path, nodes: int) -> str | None:
    """Return where the journal is: beside the output where there is one machine, else only where the user says."""
    if wanted.no_journal:
        return None
    if wanted.journal is not None:
        return str(Path(wanted.journal).resolve())
    return f"{output.resolve()}.journal" if nodes == 1 else None


def _name(wanted: argparse.Namespace, output: Path) -> str:
    """Return what names the batch over several calls."""
    return wanted.batch_name or str(output.resolve())


def _workers(asked: int, places: int | None, beside: bool) -> int:
    """Return how many workers share the budget: no more than it has places, and one of those may be ours."""
    if places is None:
        return asked
    if places - beside < 1:
        raise ConfigurationError("--budget is too small to be shared with workers; give a larger one")
    return min(asked, places - beside)


def _absolute(tools: str) -> str:
    """Return where the handlers are, as another process finds them."""
    place, _, name = tools.rpartition(":")
    return f"{Path(place).resolve()}:{name}" if place.endswith(".py") else tools


def named(engine: Engine | None, origin: Any, key: str) -> Any:
    """Return the origin under the id that its key has in the batch, where a worker may be asked for it again."""
    return origin if engine is None else engine.named(origin, key)
