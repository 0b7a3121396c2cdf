"""Pages of a list: `limit`, an opaque `cursor`, and the envelope around them (introduction, agents/list-runs)."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, Protocol, TypeVar

from agentruns.emulator.vendor import Request

from .errors import RefusedError, bad_request
from .options import Cursors
from .rows import Object

_MOST: Final = 100
_DEFAULT: Final = 20
_CURSOR: Final = re.compile(r"(offset|after):(\w+)", re.ASCII)


class Row(Protocol):
    """Anything listed."""

    @property
    def id(self) -> str:
        """The id a keyed cursor remembers."""


R = TypeVar("R", bound=Row)


def page(
    rows: Iterable[R], request: Request, write: Callable[[R], Object], style: Cursors, keep: Callable[[R], bool]
) -> Object:
    """Write the page a request asks for; `rows` are all rows in order, `keep` chooses among them."""
    limit = _limit(request)
    walk = iter(rows)
    skipped = 0
    if "cursor" in request.query:
        kind, value = _opened(request.query["cursor"])
        if kind == "offset":
            skipped = int(value)
        else:
            _pass(walk, value)
    kept = list(islice(filter(keep, walk), skipped, skipped + limit + 1))
    more = len(kept) > limit
    kept = kept[:limit]
    after = f"offset:{skipped + limit}" if style == "offset" else f"after:{kept[-1].id}" if kept else ""
    return {
        "data": [write(row) for row in kept],
        "next_cursor": _sealed(after) if more else None,
        "has_more": more,
    }


def choice(request: Request, name: str, choices: tuple[str, ...]) -> str | None:
    """Read a query parameter that takes one of some words."""
    word = request.query.get(name)
    if word is not None and word not in choices:
        raise bad_request(f"{name} must be one of {', '.join(choices)}")
    return word


def _limit(request: Request) -> int:
    text = request.query.get("limit", str(_DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_MOST)) and 1 <= int(text) <= _MOST):
        raise bad_request(f"limit must be between 1 and {_MOST}")
    return int(text)


def _sealed(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _opened(cursor: str) -> tuple[str, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        raise _bad_cursor() from None
    found = _CURSOR.fullmatch(text)
    if found is None or (found[1] == "offset" and not re.fullmatch(r"\d{1,9}", found[2])):
        raise _bad_cursor()
    return found[1], found[2]


def _pass(walk: Iterator[Row], key: str) -> None:
    if not any(row.id == key for row in walk):
        raise _bad_cursor()


def _bad_cursor() -> RefusedError:
    return bad_request("cursor is not valid")
