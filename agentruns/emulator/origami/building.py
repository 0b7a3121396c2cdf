"""How tables come to be and change: by an agent's deeds, or by hand before the agent starts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

import attrs

from agentruns.emulator.schema import JSON
from agentruns.emulator.vendor import Ids

from .errors import Object
from .records import OrigamiColumn, OrigamiLead, OrigamiTable
from .work import Deed

COLUMNS: Final[tuple[JSON, ...]] = ("Company", "Website", {"name": "Email", "kind": "enrichment"})
_INVENTED: Final = 3

_T = TypeVar("_T")


def new_table(
    ids: Ids,
    name: str,
    now: float,
    *,
    columns: Iterable[JSON] = COLUMNS,
    project: str | None = None,
    workspace_id: str | None = None,
) -> OrigamiTable:
    """Make an empty table."""
    return OrigamiTable(
        id=ids.uuid(),
        source_id=ids.uuid(),
        project=project,
        workspace_id=workspace_id,
        name=name,
        created=now,
        updated=now,
        columns=tuple(new_column(ids, column) for column in columns),
    )


def new_column(ids: Ids, given: JSON) -> OrigamiColumn:
    """Make a column from its name, or from `name`, `kind` and `slug`."""
    fields: Mapping[str, JSON] = given if isinstance(given, Mapping) else {"name": given}
    name = str(fields.get("name", "Column"))
    slug = str(fields.get("slug") or slug_of(name))
    return OrigamiColumn(id=ids.uuid(), name=name, slug=slug, kind=str(fields.get("kind", "input")))


def slug_of(name: str) -> str:
    """Make the slug of a name: lower case with dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "column"


def added(
    ids: Ids, table: OrigamiTable, rows: Sequence[JSON], *, failing: int = 0, due: float = math.inf
) -> OrigamiTable:
    """Add rows given by column name or slug; what a row does not give is invented, `failing` of them fail."""
    first = len(table.leads) + len(table.deleted_leads) + 1
    leads = tuple(
        OrigamiLead(
            id=ids.uuid(),
            values=_values(table.columns, row, number),
            due=due,
            failed=number >= first + len(rows) - failing,
        )
        for number, row in enumerate(rows, start=first)
    )
    return attrs.evolve(table, leads=table.leads + leads)


def _values(columns: Iterable[OrigamiColumn], row: JSON, number: int) -> dict[str, JSON]:
    given: Mapping[str, JSON] = row if isinstance(row, Mapping) else {}
    return {
        column.slug: given.get(column.slug, given.get(column.name, f"{column.name} {number}")) for column in columns
    }


def settling(table: OrigamiTable, start: float, seconds: float) -> OrigamiTable:
    """Let the rows that still have no end get one, one after another, within some seconds."""
    waiting = [lead.id for lead in table.leads if math.isinf(lead.due)]
    due = {key: start + seconds * (place / len(waiting)) for place, key in enumerate(waiting, start=1)}
    leads = tuple(attrs.evolve(lead, due=due.get(lead.id, lead.due)) for lead in table.leads)
    return attrs.evolve(table, leads=leads)


def changed(
    ids: Ids, table: OrigamiTable, deed: Deed, now: float, when: str, *, failing: int
) -> tuple[OrigamiTable, Object]:
    """Do a deed on a table; return the table and the fields of the action that reports it."""
    table = attrs.evolve(table, updated=now)
    given = deed.arguments
    match deed.type:
        case "column_added":
            column = new_column(ids, {"name": given.get("columnName", "Column"), "kind": "enrichment", **given})
            return (
                attrs.evolve(table, columns=(*table.columns, column)),
                {"columnId": column.id, "columnName": column.name},
            )
        case "columns_deleted":
            kept, gone = _split(table.columns, _count(given))
            deleted = table.deleted_columns + gone
            return (
                attrs.evolve(table, columns=kept, deleted_columns=deleted),
                {"count": len(gone), "deletedAt": when},
            )
        case "columns_restored":
            rest, back = _split(table.deleted_columns, _count(given))
            return (
                attrs.evolve(table, columns=table.columns + back, deleted_columns=rest),
                {"count": len(back)},
            )
        case "leads_added":
            rows = _rows(given)
            return added(ids, table, rows, failing=failing), {"leadCount": len(rows)}
        case "leads_deleted":
            kept_leads, gone_leads = _split(table.leads, _count(given))
            frozen = tuple(lead if lead.due <= now else attrs.evolve(lead, due=math.inf) for lead in gone_leads)
            return (
                attrs.evolve(table, leads=kept_leads, deleted_leads=table.deleted_leads + frozen),
                {"count": len(gone_leads), "deletedAt": when},
            )
        case "leads_restored":
            rest_leads, back_leads = _split(table.deleted_leads, _count(given))
            return (
                attrs.evolve(table, leads=table.leads + back_leads, deleted_leads=rest_leads),
                {"count": len(back_leads)},
            )
        case "table_restored":
            return table, {"tableName": table.name}
        case _:  # columns_updated, which has no fields of its own
            return table, {}


def _rows(given: Mapping[str, JSON]) -> Sequence[JSON]:
    rows = given.get("rows")
    if isinstance(rows, Sequence) and not isinstance(rows, str):
        return rows
    count = given.get("leadCount", _INVENTED)
    return [None] * (count if isinstance(count, int) else _INVENTED)


def _count(given: Mapping[str, JSON]) -> int:
    count = given.get("count", 1)
    return count if isinstance(count, int) else 1


def _split(items: tuple[_T, ...], count: int) -> tuple[tuple[_T, ...], tuple[_T, ...]]:
    """Split the last `count` items off."""
    at = max(len(items) - count, 0)
    return items[:at], items[at:]
