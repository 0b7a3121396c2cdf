"""The economics that `include=stats` adds to tables and columns; plain arithmetic on what the table holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agentruns.emulator.schema import JSON

from .errors import Object
from .records import OrigamiColumn, OrigamiTable

_PER_SEARCH: Final = 10  # leads that one more search would bring


def column_stats(table: OrigamiTable, column: OrigamiColumn, now: float, price: float) -> Object:
    """Write `stats` of a column, and `qualification` of one that scores."""
    settled, errored = table.count("settled", now), table.count("errored", now)
    runs = settled + errored if column.filled else 0
    stats: Object = {
        "avgCreditsPerRun": price if runs else 0,
        "callRate": _rate(runs, len(table.leads)) or 0,
        "totalRuns": runs,
    }
    if column.kind != "score":
        return {"stats": stats}
    counts: Object = {"pass": settled, "fail": 0, "unsure": errored, "total": runs}
    return {"stats": stats, "qualification": counts}


def table_stats(table: OrigamiTable, now: float, used: JSON, price: float, stamp: Callable[[float], str]) -> Object:
    """Write `stats` of a table."""
    kept, gone = len(table.leads), len(table.deleted_leads)
    sourced = kept + gone
    total = used if isinstance(used, (int, float)) else 0
    running = table.count("running", now)
    per_lead = total / sourced if sourced else 0
    return {
        "creditsPerLead": per_lead,
        "creditsPerQualifiedLead": total / kept if kept else 0,
        "findMoreEstimatedCredits": price * _PER_SEARCH,
        "qualification": _qualification(table, now),
        "funnel": {
            "totalSourcedLeads": sourced,
            "postStaticLeads": kept,
            "dedupedLeads": 0,
            "dedupRate": _rate(0, sourced),
            "excludedLeads": gone,
            "excludedRate": _rate(gone, sourced),
        },
        "running": {
            "runningLeads": running,
            "oldestActiveRunStartedAt": stamp(table.updated) if running else None,
        },
        "leadSources": [
            {
                "id": table.source_id,
                "name": "Search",
                "avgCreditsPerLead": per_lead,
                "totalCredits": total,
                "totalLeads": sourced,
                "source": "historical",
            }
        ],
        "hasUnknownTotalWithMore": False,
    }


def _qualification(table: OrigamiTable, now: float) -> Object | None:
    """Sum up the scores; without a column that scores there is no condition to meet."""
    if not any(column.kind == "score" for column in table.columns):
        return None
    passed, runs = table.count("settled", now), len(table.leads) - table.count("running", now)
    return {
        "rate": _rate(passed, runs),
        "fetchRate": _rate(passed, runs),
        "qualifiedLeads": passed,
        "effectiveLeadsPerQualified": runs / passed if passed else 0,
        "estimatedQualifiedLeads": None,
    }


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
