"""Reading runs: a state takes what it needs, and no more; `detail` is everything, read when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from attrs import frozen

from agentruns._values.exchange import Response
from agentruns._values.generic import Json
from agentruns._values.run import Action, Failure, JsonText, Run, RunStatus
from agentruns.dialects import reading, wire
from agentruns.errors import ProtocolError

from .objects import NarrativeRun, PendingToolCall

NAME: Final = "narrative"

STATUS: Final[Mapping[str, RunStatus]] = {
    "pending": RunStatus.PENDING,
    "running": RunStatus.RUNNING,
    "requires_action": RunStatus.REQUIRES_ACTION,
    "completed": RunStatus.COMPLETED,
    "failed": RunStatus.FAILED,
}

_HINTS: Final[Mapping[str, str]] = {
    "AgentLoopInvalidRequestPayload": " (of a run that answers another, the shape of the answers is a guess: "
    "`narrative.variant(tool_output=...)` sends another, and `client.resume(run, outputs, again=True)` tries again)",
}
"""What is added to the vendor's word for why a run failed (errors/invalid-request-payload)."""


@frozen
class RunState:
    """What every state needs."""

    id: str
    conversation_id: str
    status: str
    started_at: datetime
    completed_at: datetime | None = None


@frozen
class Limits:
    """What bounds a run."""

    max_iterations: Json = None


@frozen
class SeenRun(RunState):
    """What a state tells beside that: how far the run is, and what it has used."""

    usage: Json = None
    submitted_inference_job_ids: Json = None
    effective_config: Limits = Limits()


@frozen
class Configured:
    """What a run goes by."""

    effective_config: Json = None


@frozen
class PausedRun:
    """What is asked."""

    pending_tool_calls: tuple[PendingToolCall, ...] = ()


@frozen
class CompletedRun:
    """What came of it: one of the two (get-a-runs-current-state)."""

    final_text: str | None = None
    final_structured_output: Json = None


@frozen
class Fault:
    """Why a run failed, as far as a state tells it."""

    type: str = ""
    message: str = ""


@frozen
class FailedRun:
    """Why it failed, if the vendor says so."""

    error: Fault | None = None


def parse_run(response: Response, *, words: Mapping[str, RunStatus] = STATUS) -> Run[NarrativeRun]:
    """
    Return the run in the answer to a request; *words* of the vendor are read as our status.

    Actions, output and failure count only in the state that they belong to: `final_text` is "populated only on status
    completed" (start-a-new-run-on-the-conversation), and the half text of a run that failed stands in `detail`.
    """
    seen = wire.glance(response, SeenRun) or _read(response)
    status = words.get(seen.status, RunStatus.RUNNING)  # an unknown word: in flight until the deadline
    raw = {} if status.in_flight else wire.read_object(response)
    return Run(
        wire.ref(seen.id, seen.conversation_id, response=response),
        status,
        seen.status,
        _actions(raw, response) if status is RunStatus.REQUIRES_ACTION else (),
        _output(raw, response) if status is RunStatus.COMPLETED else None,
        _failure(raw, seen.status, response) if status is RunStatus.FAILED else None,
        reading.usage(seen.usage, "prompt_tokens", "completion_tokens"),
        reading.progress(_iterations(seen.submitted_inference_job_ids), seen.effective_config.max_iterations),
        vendor=NAME,
        raw=JsonText(response.body),
    )


def _read(response: Response) -> SeenRun:
    """Return what a glance would, of an answer that does not fit to the letter, or say what is wrong with it."""
    raw = wire.read_object(response)
    seen = wire.structure(raw, RunState, response)
    limits = Limits(wire.mapping(raw.get("effective_config")).get("max_iterations"))
    jobs = raw.get("submitted_inference_job_ids")
    return SeenRun(
        seen.id, seen.conversation_id, seen.status, seen.started_at, seen.completed_at, raw.get("usage"), jobs, limits
    )


def _actions(raw: Mapping[str, Json], response: Response) -> tuple[Action, ...]:
    calls = wire.structure(raw, PausedRun, response).pending_tool_calls
    if not calls:
        raise ProtocolError(f"run {raw['id']} requires action but names none @ $.pending_tool_calls", response)
    return wire.unique(tuple(Action(call.tool_use_id, call.name, call.arguments) for call in calls), response)


def _output(raw: Mapping[str, Json], response: Response) -> Json:
    seen = wire.structure(raw, CompletedRun, response)
    return seen.final_structured_output if seen.final_text is None else seen.final_text


def _failure(raw: Mapping[str, Json], word: str, response: Response) -> Failure:
    error = wire.structure(raw, FailedRun, response).error
    if error is None:
        return Failure(word)
    return Failure(error.type or word, error.message + _HINTS.get(error.type, ""))


def _iterations(jobs: Json) -> int | None:
    """Count the jobs of a run, one for each iteration: none before the first, and unknown where there is no list."""
    return 0 if jobs is None else len(jobs) if isinstance(jobs, list) else None


def detail(raw: Mapping[str, Json]) -> NarrativeRun:
    """Return a run's JSON object as `NarrativeRun`; raise `ProtocolError` for what does not fit."""
    return wire.structure(raw, NarrativeRun, f"run {raw.get('id')}")


def timing_group(run: Run[NarrativeRun]) -> str:
    """Return the model: what a run takes depends on it more than on anything else that is known before."""
    return wire.first_text(wire.mapping(wire.look(run, Configured).effective_config), "model") or ""


def times(run: Run[NarrativeRun]) -> tuple[datetime | None, datetime | None]:
    """Return when a run began and ended (get-a-runs-current-state)."""
    seen = wire.look(run, RunState)
    return seen.started_at, seen.completed_at


def handler_names(action: Action) -> Sequence[str]:
    """Return the wire name, and the part after its first dash (errors/unknown-tool-alias)."""
    _, dash, name = action.name.partition("-")
    return (action.name, name) if dash else (action.name,)
