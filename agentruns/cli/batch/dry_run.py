"""A look at every row that sends nothing: what would be started, and the first request."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentruns._connect import connect
from agentruns._values import codec
from agentruns._values.commands import Flow, first_request
from agentruns.cli.connection import connection
from agentruns.cli.parents import NewParents
from agentruns.cli.printing import complain, say, say_json
from agentruns.dialects.protocol import Dialect
from agentruns.dialects.vendor import Vendor

from . import ray_engine
from .output import Known, check_output, known_items
from .progress import duration
from .rows import Problem, Rows
from .templates import Item, Mapper
from .turns import Choice


def check_call(args: argparse.Namespace, dialect: Dialect, path: Path | None) -> None:
    """Refuse what the real call would, as far as that can be told without a token, workers or a journal."""
    if path is not None:
        check_output(path, dialect.NAME, heal=not args.no_journal)
    ray_engine.check_options(args)
    variable = dialect.TOKEN_VARIABLE
    can_do = Vendor.of(dialect).AUTH.optional or os.environ.get(variable, "").strip()
    connect(dialect, token=None if can_do else lambda: "", **connection(args))


def dry_run(
    args: argparse.Namespace,
    source: Rows,
    mapper: Mapper,
    dialect: Dialect,
    parents: NewParents | None,
    choice: Choice,
    path: Path | None,
) -> int:
    """Look at every row, send nothing, show the first request, and return the exit code: 2 if a row cannot be used."""
    known = {} if path is None or not path.exists() else known_items(path, dialect.NAME)
    first: Item | None = None
    usable = unusable = changed = to_start = 0
    for read in source:
        item = read if isinstance(read, Problem) else mapper.item(read)
        if isinstance(item, Problem):
            unusable += 1
            complain(f"agentruns: {item}")
            continue
        usable += 1
        turn = choice.turn(item, known.get(item.key), frozenset())
        if isinstance(turn, Known):
            changed += choice.has_changed(item, turn)
        elif turn.run is None:
            to_start += 1
            first = first or item
    shown: dict[str, Any] = {"usable": usable, "unusable": unusable, "request": None}
    shown |= {"to_start": to_start, "changed": changed, "seconds": _seconds(args, dialect, to_start)}
    if first is not None:
        begin: Flow[Any] = dialect.start(first.origin) if parents is None else parents.flow()
        request = first_request(begin)
        shown["origin"] = codec.to_jsonable(codec.unstructure(first.origin), "the origin")
        shown["request"] = {"method": request.method, "path": request.path, "params": request.params}
        shown["request"]["json"] = request.json
    if args.json:
        say_json(codec.encode(codec.to_jsonable(shown, "the request")).decode())
        return 2 if unusable else 0
    say(f"{usable} rows can be used, {unusable} cannot; nothing was sent")
    if known or changed:
        say(f"{to_start} would be started, the others are done or in flight; {changed} have changed since")
    if shown["seconds"]:
        say(f"at the vendor's budget that takes {duration(shown['seconds'])} at least")
    if first is not None:
        say(f"the first (line {first.line}) would start from {codec.encode(shown['origin']).decode()}")
        say(*_http(shown["request"]))
    return 2 if unusable else 0


def _seconds(args: argparse.Namespace, dialect: Dialect, starts: int) -> float | None:
    """Return the seconds that so many starts and one look at each take at least, None without a budget."""
    requests = (Vendor.of(dialect).START_REQUESTS + 1) * starts
    if args.budget is not None:
        return requests / float(args.budget)
    return None if dialect.BUDGET is None else requests * dialect.BUDGET.seconds / dialect.BUDGET.count


def _http(request: Mapping[str, Any]) -> list[str]:
    params = "&".join(f"{name}={value}" for name, value in request["params"].items())
    line = f"its first request would be {request['method']} {request['path']}{'?' if params else ''}{params}"
    return [line] if request["json"] is None else [line, codec.encode(request["json"]).decode()]
