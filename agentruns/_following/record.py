"""How one item of a batch has ended, as a line of JSON tells it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from agentruns._values import codec
from agentruns._values.generic import Json
from agentruns._values.run import Run, RunStatus
from agentruns.dialects.protocol import Dialect
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError, DeadlineExceededError, RunFailedError, StalledError

from .ending import refuses_all


def line(
    dialect: Dialect,
    key: str,
    status: str,
    run: Run | None,
    failure: dict[str, Json] | None,
    *,
    began: float,
    ended: float,
    number: int | None = None,
    attempts: int = 1,
) -> dict[str, Json]:
    """
    Return what is told of an item: plain JSON, the key first.

    *began* and *ended* are seconds since the epoch, as this side saw it; *number* is the line of the item in its file.
    The durations are in seconds: the whole, and the run's own by the vendor's clock.
    """
    usage = None if run is None else run.usage
    return {
        "key": key,
        "line": number,
        "status": status,
        "output": None if run is None else _plain(run.output),
        "failure": failure,
        "usage": None if usage is None else codec.unstructure(usage),
        "cost": _cost(run),
        "started": _moment(began),
        "ended": _moment(ended),
        "durations": {"total": round(max(ended - began, 0.0), 3), "run": _lasted(dialect, run)},
        "attempts": attempts,
        "actions": [] if run is None or not run.actions else _plain(codec.unstructure(run.actions)),
        "run": None if run is None else codec.unstructure(run.ref),
        "vendor": dialect.NAME,
    }


def status_of(error: Exception | None, run: Run | None) -> str:
    """
    Return how an item ended in one word: completed, failed, requires_action, unfinished, unstarted or error.

    It is "unstarted" where the vendor refused to start it as it would any other: there is nothing wrong with the item.
    """
    if error is None:
        return "completed"
    if isinstance(error, RunFailedError):
        return "failed"
    if isinstance(error, DeadlineExceededError | StalledError):
        return "unfinished"
    if run is not None and run.status is RunStatus.REQUIRES_ACTION:
        return "requires_action"
    refusal = refuses_all(error)
    return "unstarted" if refusal is not None and run is None and not refusal.after_doubt else "error"


def failure_of(error: Exception | None, run: Run | None) -> dict[str, Json] | None:
    """Return why an item did not complete: the vendor's words if its run failed, else the error's."""
    if error is None:
        return None
    if isinstance(error, RunFailedError) and run is not None and run.failure is not None:
        return {"type": run.failure.type, "message": run.failure.message}
    return {"type": type(error).__name__, "message": str(error)}


def _plain(value: Any) -> Any:
    try:
        return codec.to_jsonable(value, "the output")
    except ConfigurationError:
        return repr(value)


def _cost(run: Run | None) -> float | None:
    """Return what the vendor says that the run has cost, in its own unit."""
    cost = None if run is None else run.raw.get("total_cost")
    return cost if isinstance(cost, int | float) and not isinstance(cost, bool) else None


def _lasted(dialect: Dialect, run: Run | None) -> float | None:
    """Return the seconds that the run took by the vendor's clock."""
    times = Vendor.of(dialect).times
    began, ended = (None, None) if run is None or times is None else times(run)
    return None if began is None or ended is None else round((ended - began).total_seconds(), 3)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
