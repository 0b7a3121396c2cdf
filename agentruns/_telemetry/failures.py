"""How failures are called: by their type, and nothing else of them, since texts may quote an agent."""

from __future__ import annotations

from agentruns._values.run import Run, RunStatus

from .names import OTHER


def error_type(run: Run) -> str | None:
    """Return the type of a failure, and nothing else of it; None if the run has not failed."""
    if run.status is not RunStatus.FAILED:
        return None
    return (run.failure.type if run.failure else "") or OTHER
