"""How the following of a run ends: the state of an ended stream, and what its last state means to a caller."""

from __future__ import annotations

from typing import Final, TypeAlias

from attrs import frozen

from agentruns._values.generic import DetailT
from agentruns._values.run import Run, RunRef, RunStatus
from agentruns.errors import ActionRequiredError, APIError, RunError, RunFailedError


@frozen
class Closed:
    """Nothing more comes; a *reason* is raised by every further step, without one they just stop."""

    reason: str = ""


@frozen
class Failed:
    """
    The work of the stream has failed for good.

    Every further step raises *error*, unless it is *told_once*: a loop that takes a `TimeoutError` for that of its own
    heartbeat would be told for ever.
    """

    error: BaseException
    told_once: bool = False


Ended: TypeAlias = Closed | Failed

_MOVES: Final = {(None, Closed), (None, Failed), (Failed, Closed)}
"""How a stream may end: what has failed may still be closed, and what is closed stays as it is."""


def ended(before: Ended | None, after: Ended) -> Ended:
    """Return how a stream ends that had ended as *before*, None while it goes on; raise `RuntimeError` if it cannot."""
    kind = None if before is None else type(before)
    if (kind, type(after)) not in _MOVES:
        raise RuntimeError(f"a stream that is {before!r} cannot become {after!r}")
    return after


_AGAIN: Final = "`client.resume(paused, outputs, again=True)`, with what `client.fetch` reads of it for *paused*"


def raise_unless_completed(run: Run[DetailT] | None, paused: RunRef | None = None) -> Run[DetailT]:
    """
    Return the last state of a stream that has ended, if it is "completed"; *paused* is the run that it answered.

    Raise `RunFailedError` if the run failed, `ActionRequiredError` if it waits for an answer that no handler gives.
    """
    assert run is not None
    if run.status is RunStatus.FAILED:
        why = f"{run.failure.type}: {run.failure.message}".rstrip(": ") if run.failure else "no reason given"
        again = f". It answered run {paused.id}, which can be answered again: {_AGAIN}" if paused else ""
        raise RunFailedError(run, f"the run failed ({why}){again}")
    if run.status is RunStatus.REQUIRES_ACTION:
        raise unanswered(run)
    return run


def unanswered(run: Run[DetailT]) -> ActionRequiredError:
    """Return the error of a run that waits for an answer that no handler gives."""
    names = ", ".join(action.name for action in run.actions)
    return ActionRequiredError(run, f"no handler for {names}" if names else "it waits, and names nothing to answer yet")


_REFUSES_ALL: Final = frozenset({401, 402, 403})


def refuses_all(error: Exception | None) -> APIError | None:
    """Return a refusal that every further start would meet, too: of the token, its rights or the money; else None."""
    return error if isinstance(error, APIError) and error.status in _REFUSES_ALL else None


def last_state(run: Run | None, error: Exception) -> Run | None:
    """Return the state that *error* is about, if it says so, else *run*, the last one that was seen."""
    return error.run if isinstance(error, RunError) and error.run is not None else run
