"""Answering the interrupts of a run, in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentruns._values.commands import Flow, Lock, Sleep
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.run import Run, RunRef, ToolOutput
from agentruns.dialects import wire
from agentruns.errors import APIError, ConfigurationError, ConflictError, NotFoundError, OutcomeUnknownError

from .objects import MiddeskRun
from .reading import NAME, NO_ANSWER, fetch, parse_run

_BRIEFLY: Final = 1.0
"""Seconds between two looks at an interrupt whose answer may still be under way."""

_REFUSALS: Final = frozenset({400, 404, 409, 422})


def _resume_body(output: ToolOutput) -> Mapping[str, Any]:
    """
    Return an answer as the wire has it.

    A guess, all of it: get-agent-run says only that the interrupt's id is posted "along with the caller-supplied
    input". No page names the keys, and none knows of an answer that says why there is none.
    """
    answer = {"error": output.output} if output.is_error else output.output
    return {"interrupt_id": output.action.id, "input": answer}


def resume(run: Run[MiddeskRun], outputs: Sequence[ToolOutput]) -> Flow[Run[MiddeskRun]]:
    """
    Answer interrupts of a run, one by one, and return the run as it is then.

    It is read again after each: whether it goes on before the last is not documented, and what it no longer lists needs
    no answer. Interrupts that are left out stay open. Raise `ConflictError` for one that was resolved already.
    """
    given = [output.action.id for output in outputs]
    if not given or len(set(given)) < len(given):
        raise ConfigurationError(
            f"run {run.id} takes one answer to each of its actions, and got {', '.join(given) or 'none'}"
        )
    yield Lock(f"{NAME} run {run.id}")
    latest = run
    for output in outputs:
        if _lists(latest, output):
            latest = yield from _answered(run.ref, output)
    return latest


def _lists(run: Run[MiddeskRun], output: ToolOutput) -> bool:
    return any(action.id == output.action.id for action in run.actions)


def _answered(ref: RunRef, output: ToolOutput) -> Flow[Run[MiddeskRun]]:
    """
    Post an answer, once more if it seems not to have arrived, and return the run as it is then.

    The interrupt's id is the guard: an answer that was taken removes it from the run, so it cannot be given twice.
    """
    request = Request("POST", wire.path("runs", ref.id, "resume"), json=_resume_body(output))
    lost: OutcomeUnknownError | None = None
    for _ in range(2):
        try:
            response = yield request
        except OutcomeUnknownError as error:
            lost = error
            try:
                after = yield from _gone(ref, output, looks=2)
            except NO_ANSWER:
                raise error from error.__cause__
            if after is not None:
                return after
        except APIError as refusal:
            if refusal.status not in _REFUSALS:
                raise
            try:
                after = yield from _gone(ref, output, looks=1)
            except NotFoundError:
                raise refusal from None
            except NO_ANSWER as unread:
                raise _unread(ref, output, refusal, unread) from refusal
            if after is None:
                raise
            if lost is not None:  # the first try got through
                return after
            raise _already_resolved(ref, output, refusal) from refusal
        else:
            return (yield from _confirmed(ref, response))
    assert lost is not None
    raise OutcomeUnknownError(request, f"{lost.reason}; it was sent twice, and the interrupt is still listed") from lost


def _gone(ref: RunRef, output: ToolOutput, looks: int) -> Flow[Run[MiddeskRun] | None]:
    """Return the run if it no longer waits for this answer, None if it still does."""
    for look in range(looks):
        if look:
            yield Sleep(_BRIEFLY)
        run = yield from fetch(ref, {})
        if not _lists(run, output):
            return run
    return None


def _confirmed(ref: RunRef, response: Response) -> Flow[Run[MiddeskRun]]:
    """Read the run after an accepted answer; only if that fails, believe what was said when it was accepted."""
    try:
        return (yield from fetch(ref, {}))
    except NO_ANSWER:
        if wire.error_body(response).get("id") != ref.id:
            raise
        return parse_run(response)


def _unread(ref: RunRef, output: ToolOutput, refusal: APIError, unread: Exception) -> ConflictError:
    """Return a refusal of which nobody can tell whether the answer was wrong, or too late."""
    message = (
        f"the answer to interrupt {output.action.id} was refused, and whether run {ref.id} still waits for it cannot "
        f"be read ({unread}); the vendor says: {refusal.message or 'nothing'}"
    )
    return ConflictError(refusal.response, Problem(message, request_id=refusal.request_id, detail=refusal.detail))


def _already_resolved(ref: RunRef, output: ToolOutput, refusal: APIError) -> ConflictError:
    message = (
        f"interrupt {output.action.id} of run {ref.id} was already resolved, by somebody else or an earlier try; the "
        f"vendor says: {refusal.message or 'nothing'}"
    )
    return ConflictError(refusal.response, Problem(message, request_id=refusal.request_id, detail=refusal.detail))
