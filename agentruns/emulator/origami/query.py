"""Filters, sorting and CSV of row reads (docs.origami.chat/reading-data)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, cast

import msgspec

from agentruns.emulator.schema import JSON

from .errors import ApiError, Object
from .records import OrigamiColumn, OrigamiLead, OrigamiTable


def _number(value: JSON) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float, str)) else None
    except ValueError:
        return None


def _order(value: JSON) -> tuple[int, float, str]:
    """Order numbers before texts, and both before nothing."""
    number = _number(value)
    if number is not None:
        return (0, number, "")
    return (2, 0.0, "") if _empty(value) else (1, 0.0, str(value).casefold())


def _empty(value: JSON) -> bool:
    return value is None or value == ""


def _has(value: JSON, part: JSON) -> bool:
    return not _empty(value) and str(part).casefold() in str(value).casefold()


def _equal(value: JSON, other: JSON) -> bool:
    return _order(value) == _order(other)


def _compared(fits: Callable[[float, float], bool]) -> Callable[[JSON, JSON], bool]:
    def compared(value: JSON, other: JSON) -> bool:
        left, right = _number(value), _number(other)
        return left is not None and right is not None and fits(left, right)

    return compared


_OPERATORS: Final[Mapping[str, Callable[[JSON, JSON], bool]]] = {
    "contains": _has,
    "not_contains": lambda value, part: not _has(value, part),
    "equals": _equal,
    "not_equals": lambda value, other: not _equal(value, other),
    "is_empty": lambda value, _: _empty(value),
    "is_not_empty": lambda value, _: not _empty(value),
    "greater_than": _compared(lambda left, right: left > right),
    "greater_than_or_equal": _compared(lambda left, right: left >= right),
    "less_than": _compared(lambda left, right: left < right),
    "less_than_or_equal": _compared(lambda left, right: left <= right),
}


def selected(table: OrigamiTable, query: Mapping[str, str], now: float) -> list[OrigamiLead]:
    """Choose and order the rows; what the query leaves out, the table's saved view says, unless `defaults=false`."""
    saved = query.get("defaults") != "false"
    filters: JSON = _parsed(query["filters"]) if "filters" in query else table.filters if saved else ()
    sort: JSON = _parsed(query["sort"]) if "sort" in query else table.sort if saved else None
    leads = list(table.leads)
    for column, fits, value in _filters(table, filters):
        leads = [lead for lead in leads if fits(lead.value(column, now), value)]
    if sort is not None or "sort" in query:
        by, descending = _sort(table, sort)
        leads.sort(key=lambda lead: _order(lead.value(by, now)), reverse=descending)
    return leads


def flat(table: OrigamiTable, lead: OrigamiLead, now: float) -> Object:
    """Write a row as `{slug: value}`."""
    return {column.slug: lead.value(column, now) for column in table.columns}


def csv_of(table: OrigamiTable, leads: Iterable[OrigamiLead], now: float) -> bytes:
    """Write rows as CSV, the slugs in the first line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.slug for column in table.columns])
    writer.writeheader()
    writer.writerows(flat(table, lead, now) for lead in leads)
    return text.getvalue().encode()


def _parsed(text: str) -> JSON:
    try:
        return cast(JSON, msgspec.json.decode(text))
    except msgspec.DecodeError:
        return None


def _filters(table: OrigamiTable, filters: JSON) -> Iterable[tuple[OrigamiColumn, Callable[[JSON, JSON], bool], JSON]]:
    if isinstance(filters, str) or not isinstance(filters, Sequence):
        raise ApiError("INVALID_FILTERS")
    for one in filters:
        operator = one.get("operator") if isinstance(one, Mapping) else None
        if not isinstance(one, Mapping) or operator not in _OPERATORS:
            raise ApiError("INVALID_FILTERS")
        yield _column(table, one.get("column")), _OPERATORS[str(operator)], one.get("value")


def _sort(table: OrigamiTable, sort: JSON) -> tuple[OrigamiColumn, bool]:
    if not isinstance(sort, Mapping) or sort.get("direction") not in {"asc", "desc"}:
        raise ApiError("INVALID_SORT")
    return _column(table, sort.get("column")), sort.get("direction") == "desc"


def _column(table: OrigamiTable, slug: JSON) -> OrigamiColumn:
    found = table.column(str(slug))
    if found is None:
        raise ApiError("UNKNOWN_COLUMN", f"The table has no column {slug}")
    return found
