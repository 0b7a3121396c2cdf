"""Answering the interrupts of a run, in place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from attrs import frozen

from agentruns._values.commands import Flow, Lock, Sleep
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.generic import Json
from agentruns._values.run import Run, RunRef, ToolOutput
from agentruns.dialects import guesses, wire
from agentruns.errors import (
    AlreadyAnsweredError,
    AnswerIgnoredError,
    APIError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
)

from .objects import MiddeskRun
from .reading import AS_GUESSED, NAME, NO_ANSWER, Reading, fetch, parse_run

logger = logging.getLogger("agentruns")

_BRIEFLY: Final = 1.0
"""Seconds between two looks at an interrupt whose answer may still be under way."""

_EFFECT_LOOKS: Final = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each look whether an accepted answer takes effect: no page says how soon an interrupt is unlisted."""

_REFUSALS: Final = frozenset({400, 404, 409, 422})

ResumeBody: TypeAlias = Callable[[ToolOutput], Mapping[str, Json]]
_SWITCH: Final = "`middesk.variant(resume_body=...)`"


def resume_body(output: ToolOutput) -> Mapping[str, Json]:
    """
    Return an answer as the wire has it: a guess, all of it, which `variant(resume_body=...)` replaces.

    get-agent-run says only that the interrupt's id is posted "along with the caller-supplied input". No page names the
    keys, and none knows of an answer that says why there is none.
    """
    answer = {"error": output.output} if output.is_error else output.output
    return {"interrupt_id": output.action.id, "input": answer}


@frozen
class _Answering:
    """What all steps of an answer share."""

    ref: RunRef
    body: ResumeBody
    include: Mapping[str, str]
    reads: Reading

    def body_of(self, output: ToolOutput) -> Mapping[str, Json]:
        return guesses.mapping_of("resume_body", self.body(output))

    def fetch(self) -> Flow[Run[MiddeskRun]]:
        return fetch(self.ref, self.include, reads=self.reads)


def resume(
    run: Run[MiddeskRun],
    outputs: Sequence[ToolOutput],
    *,
    resume_body: ResumeBody = resume_body,
    include: str | None = None,
    reads: Reading = AS_GUESSED,
) -> Flow[Run[MiddeskRun]]:
    """
    Answer interrupts of a run, one by one, and return the run as it is then.

    It is read again after each: whether it goes on before the last is not documented, and what it no longer lists needs
    no answer. Interrupts that are left out stay open. With *include* `steps` the trace is asked for, too.

    Raise `AlreadyAnsweredError` for an interrupt that was resolved already, `AnswerIgnoredError` where the answers were
    accepted and the run still lists what they answer after 15 s, and a refusal as it is: it says what was sent, and how
    to send another body.
    """
    answering = _Answering(run.ref, resume_body, wire.drop_none({"include": include}), reads)
    return (yield from _resume(answering, run, outputs))


def resume_first(
    run: Run[MiddeskRun],
    outputs: Sequence[ToolOutput],
    *,
    resume_body: ResumeBody = resume_body,
    include: str | None = None,
    reads: Reading = AS_GUESSED,
) -> Flow[Run[MiddeskRun]]:
    """
    Answer interrupts of a run as `resume` does, and look first whether somebody else has answered them.

    The run may have been read long ago, while a person made up their mind. If the reply to the answer got lost then, an
    interrupt that is gone could be anybody's: Middesk does not say whose answer it took.
    """
    answering = _Answering(run.ref, resume_body, wire.drop_none({"include": include}), reads)
    return (yield from _resume(answering, run, outputs, look=True))


def _resume(
    answering: _Answering, run: Run[MiddeskRun], outputs: Sequence[ToolOutput], *, look: bool = False
) -> Flow[Run[MiddeskRun]]:
    """Answer what the run lists; with *look*, raise `AlreadyAnsweredError` for what it does not list any more."""
    given = [output.action.id for output in outputs]
    if not given or len(set(given)) < len(given):
        raise ConfigurationError(
            f"run {run.id} takes one answer to each of its actions, and got {', '.join(given) or 'none'}"
        )
    yield Lock(f"{NAME} run {run.id}")
    latest = run
    if look:
        latest = yield from answering.fetch()
        for output in outputs:
            if not _lists(latest, output):
                raise _already_resolved(latest, output)
    posted: list[ToolOutput] = []
    for output in outputs:
        if _lists(latest, output):
            latest = yield from _answered(answering, output)
            posted.append(output)
    for seconds in _EFFECT_LOOKS:
        if not any(_lists(latest, output) for output in posted):
            return latest
        yield Sleep(seconds)
        latest = yield from answering.fetch()
    ignored = [output for output in posted if _lists(latest, output)]
    if ignored:
        raise AnswerIgnoredError(latest, _ignored(answering, ignored))
    return latest


def _ignored(answering: _Answering, outputs: Sequence[ToolOutput]) -> str:
    ids = ", ".join(output.action.id for output in outputs)
    sent = guesses.told("the body of a resume", [answering.body_of(output) for output in outputs], _SWITCH)
    waited = f"{sum(_EFFECT_LOOKS):.0f} s"
    return f"Middesk accepted the answer to {ids}, and {waited} later the run still asks for it. {sent}"


def _lists(run: Run[MiddeskRun], output: ToolOutput) -> bool:
    return any(action.id == output.action.id for action in run.actions)


def _answered(answering: _Answering, output: ToolOutput) -> Flow[Run[MiddeskRun]]:
    """
    Post an answer, once more if it seems not to have arrived, and return the run as it is then.

    The interrupt's id is the guard: an answer that was taken removes it from the run, so it cannot be given twice.
    """
    ref, body = answering.ref, answering.body_of(output)
    request = Request("POST", wire.path("runs", ref.id, "resume"), params=answering.include, json=body)
    lost: OutcomeUnknownError | None = None
    for _ in range(2):
        try:
            response = yield request
        except OutcomeUnknownError as error:
            lost = error
            try:
                after = yield from _gone(answering, output, looks=2)
            except NO_ANSWER:
                raise error from error.__cause__
            if after is not None:
                logger.warning(
                    "the reply to the answer to interrupt %s of run %s was lost, and it is resolved now: it counts as "
                    "answered by us, as Middesk does not say whose answer it took",
                    output.action.id,
                    ref.id,
                )
                return after
        except APIError as refusal:
            if refusal.status not in _REFUSALS:
                raise
            try:
                after = yield from _gone(answering, output, looks=1)
            except NotFoundError:
                raise refusal from None
            except NO_ANSWER as unread:
                raise _unread(ref, output, refusal, unread) from refusal
            if after is None:
                guesses.refused(refusal, "the body of a resume", body, _SWITCH)
                raise
            if lost is not None:  # the first try got through
                return after
            raise _already_resolved(after, output, refusal) from refusal
        else:
            return (yield from _confirmed(answering, response))
    assert lost is not None
    told = f"{lost.reason}; it was tried twice, and the interrupt is still listed"
    raise OutcomeUnknownError(request, told) from lost


def _gone(answering: _Answering, output: ToolOutput, looks: int) -> Flow[Run[MiddeskRun] | None]:
    """Return the run if it no longer waits for this answer, None if it still does."""
    for look in range(looks):
        if look:
            yield Sleep(_BRIEFLY)
        run = yield from answering.fetch()
        if not _lists(run, output):
            return run
    return None


def _confirmed(answering: _Answering, response: Response) -> Flow[Run[MiddeskRun]]:
    """Read the run after an accepted answer; only if that fails, believe what was said when it was accepted."""
    try:
        return (yield from answering.fetch())
    except NO_ANSWER:
        if wire.error_body(response).get("id") != answering.ref.id:
            raise
        return parse_run(response, reads=answering.reads)


def _unread(ref: RunRef, output: ToolOutput, refusal: APIError, unread: Exception) -> ConflictError:
    """Return a refusal that leaves open whether the answer was wrong, or too late."""
    message = (
        f"the answer to interrupt {output.action.id} was refused, and whether run {ref.id} still waits for it cannot "
        f"be read ({unread}); the vendor says: {refusal.message or 'nothing'}"
    )
    return ConflictError(refusal.response, Problem(message, request_id=refusal.request_id, detail=refusal.detail))


def _already_resolved(run: Run, output: ToolOutput, refusal: APIError | None = None) -> AlreadyAnsweredError:
    """Return that an answer was first; which one, no answer of the vendor says."""
    says = "" if refusal is None else f"; it says: {refusal.message or 'nothing'}"
    told = (
        f"interrupt {output.action.id} of run {run.id} was already resolved, by somebody else or an earlier try, and "
        f"the vendor does not say how{says}"
    )
    return AlreadyAnsweredError(run, (), told, response=None if refusal is None else refusal.response)
