"""The line of the log that a change of a run is."""

from __future__ import annotations

import logging

from agentruns._values.printable import printable
from agentruns._values.run import Run

from .failures import error_type

logger = logging.getLogger("agentruns")


def log(vendor: str, run: Run, before: Run | None, kind: str, started: bool, key: str) -> None:
    """Log a state that was not seen before."""
    # One field each, never an object: any formatter, filter or index takes texts and numbers, and a format string
    # can name them. So the texts are always there. The prefix keeps clear of what a LogRecord has already.
    fields: dict[str, str | int] = {
        "agentruns_vendor": vendor,
        "agentruns_run_id": printable(run.id),
        "agentruns_parent": printable(run.ref.parent),
        "agentruns_kind": printable(kind),
        "agentruns_key": printable(key),
        "agentruns_status": run.status.value,
        "agentruns_vendor_status": printable(run.vendor_status),
        "agentruns_previous": before.status.value if before else "",
        "agentruns_error_type": printable(error_type(run) or ""),
    }
    if run.usage:
        counts = {"input": run.usage.input_tokens, "output": run.usage.output_tokens}
        fields.update((f"agentruns_{which}_tokens", count) for which, count in counts.items() if count is not None)
    change = printable(_change(run, before, started))
    logger.info("run %s of %s: %s", fields["agentruns_run_id"], vendor, change, extra=fields)


def _change(run: Run, before: Run | None, started: bool) -> str:
    if before is None:
        change = f"started, {run.status}" if started else str(run.status)
    elif before.status is run.status:
        change = f"{run.status}, changed"
    else:
        change = f"{before.status} -> {run.status}"
    failed = error_type(run)
    return f"{change} ({failed})" if failed else change
