"""
Read what vendors answer leniently: a state takes what it needs, and no more.

What a run cannot do without (id, parent, status, what is asked, output, failure, times) stands in a small class of each
vendor and is read strictly, by `wire.read`: a misfit is a `ProtocolError` that names its JSON path. All else is read by
the functions here, which never raise for what does not fit, or later, when somebody asks for `Run.detail`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from agentruns._values.commands import Flow, SkippedRows
from agentruns._values.exchange import Response
from agentruns._values.run import Progress, Usage
from agentruns.errors import ProtocolError

from . import wire

T = TypeVar("T")


def count(value: Any) -> int | None:
    """Return a count, None for what is none: 4213.0 is one, True and -1 are not."""
    if value.__class__ is not int:
        if value.__class__ is not float or not value.is_integer():
            return None
        value = int(value)
    return value if value >= 0 else None


def usage(value: Any, input_tokens: str, output_tokens: str) -> Usage | None:
    """Return the tokens in an object, which stand under the two keys; None for what is no object."""
    if value.__class__ is not dict and not isinstance(value, Mapping):  # the latter takes ten times as long
        return None
    return Usage(count(value.get(input_tokens)), count(value.get(output_tokens)))


def progress(done: Any, limit: Any = None) -> Progress | None:
    """Return how far a run is, None where what is *done* is no count."""
    steps = count(done)
    return None if steps is None else Progress(steps, count(limit))


def rows(response: Response, values: Any, path: str, read: Callable[[Any, str], T]) -> Flow[tuple[T, ...]]:
    """
    Read a list, which stands at *path* of an answer, row by row.

    *read* takes a row and its path. A row of which it raises `ProtocolError` is left out, logged, and counted in
    `Client.stats().rows_skipped`. Raise `ProtocolError` where there is no list.
    """
    if not isinstance(values, list):
        raise ProtocolError(f"the answer to {response.request.line} has no list @ {path}", response)
    found: list[T] = []
    misfits: list[str] = []
    for place, value in enumerate(values):
        try:
            found.append(read(value, f"{path}[{place}]"))
        except ProtocolError as error:
            misfits.append(str(error))
    if misfits:
        yield SkippedRows(response.request.line, tuple(misfits))
    return tuple(found)


def rows_of(response: Response, values: Any, path: str, cls: type[T]) -> Flow[tuple[T, ...]]:
    """Read a list of objects of one class row by row, as `rows` does."""
    return (yield from rows(response, values, path, lambda value, at: wire.structure(value, cls, response, at)))
