"""Pages of lists: by cursor, or by number in the oldest generation of the pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from attrs import frozen

from agentruns.emulator.schema import JSON

_T = TypeVar("_T")


@frozen
class Page:
    """One page in words of both kinds: a cursor after it, and the numbers of G1."""

    items: Sequence[JSON]
    next_cursor: str | None
    number: int
    size: int
    total: int

    @property
    def numbers(self) -> dict[str, JSON]:
        """The `pagination` of G1."""
        more = (self.number + 1) * self.size < self.total
        return {"page": self.number, "pageSize": self.size, "total": self.total, "hasMore": more}


def after_cursor(
    items: Sequence[_T], key: Callable[[_T], str], query: Mapping[str, str], write: Callable[[_T], JSON], most: int
) -> Page:
    """Cut the page behind a cursor.

    A cursor that is not known starts over, and a limit out of range is clamped (api-v2-to-v3-migration).
    """
    after = _opened(query.get("cursor", ""))
    start = next((place for place, item in enumerate(items, start=1) if key(item) == after), 0)
    size = _clamped(query.get("limit"), 1, most)
    page = items[start : start + size]
    more = start + size < len(items)
    return Page([write(item) for item in page], _closed(key(page[-1])) if more else None, 0, size, len(items))


def by_number(items: Sequence[_T], query: Mapping[str, str], write: Callable[[_T], JSON], total: int) -> Page:
    """Cut a page by its number; `total` ignores filters, as G1's pages say."""
    number = _clamped(query.get("page"), 0, 2**31, otherwise=0)
    size = _clamped(query.get("pageSize"), 1, 100)
    page = items[number * size : (number + 1) * size]
    return Page([write(item) for item in page], None, number, size, total)


def _clamped(text: str | None, least: int, most: int, otherwise: int = 50) -> int:
    try:
        return min(max(int(text), least), most) if text is not None else otherwise
    except ValueError:
        return otherwise


def _closed(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _opened(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return ""
