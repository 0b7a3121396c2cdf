"""Answering the interrupts of a run: by a new run, which goes on with the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid5

from agentruns._values import codec
from agentruns._values.commands import Flow, Lock, Sleep
from agentruns._values.exchange import Problem, Request
from agentruns._values.run import Run, ToolOutput
from agentruns.dialects import wire
from agentruns.errors import AgentRunsError, ConfigurationError, ConflictError, OutcomeUnknownError

from .lists import answers
from .objects import GraphRun
from .reading import NAME, State, assistant_of, fetch, run_of
from .starts import INTENT, LOOKS, find_intent

ANSWERS: Final = "agentruns_answers"
"""The key of a run's metadata that names the run which it answers."""

_INTENTS: Final = UUID("0d5f0c4e-6a0b-5f53-9a0e-3f1d7c1e8b52")


def resume(run: Run[GraphRun], outputs: Sequence[ToolOutput]) -> Flow[Run[GraphRun]]:
    """
    Answer interrupts of a run by a new run, all or some: those that are left out are those of the new run.

    The server takes an answer to what nobody asks without a word, so the state of the thread is looked at before. What
    got lost is looked for by an id of its own, and never sent twice. Raise `ConflictError` if the graph does not wait
    for these answers any more.
    """
    given = {output.action.id: output for output in outputs}
    if not given or len(given) < len(outputs):
        raise ConfigurationError(f"run {run.id} takes one answer to each of its actions, and got {len(outputs)}")
    yield Lock(f"{NAME} {run.ref.parent}")
    response = yield Request("GET", wire.path("threads", run.ref.parent, "state"))
    state = wire.read(response, State)
    asked = {action.id: action for action in state.actions}
    gone = [output.action.id for output in outputs if asked.get(output.action.id) != output.action]
    if gone:
        message = f"thread {run.ref.parent} does not wait for an answer to {', '.join(gone)} any more"
        raise ConflictError(response, Problem(message))
    interrupts = {action.id for action in state.interrupts}
    values = {name: _value(output) for name, output in given.items() if name in interrupts}
    assistant = assistant_of(run) or (wire.first_text(wire.mapping(state.metadata), "assistant_id") or "")
    intent_id = str(uuid5(_INTENTS, f"{run.id} {codec.encode(values).decode()}"))
    body: dict[str, Any] = {
        "assistant_id": assistant,
        "metadata": {INTENT: intent_id, ANSWERS: run.id},
        "multitask_strategy": "reject",
    }
    if values:
        body["command"] = {"resume": values}
    request = Request("POST", wire.path("threads", run.ref.parent, "runs"), json=body)
    try:
        posted = yield request
    except OutcomeUnknownError as lost:
        return (yield from _found(run, intent_id, lost))
    return run_of(posted)


def _value(output: ToolOutput) -> Any:
    return {"error": output.output} if output.is_error else output.output


def _found(run: Run[GraphRun], intent_id: str, lost: OutcomeUnknownError) -> Flow[Run[GraphRun]]:
    """Return the run that an answer has made whose reply got lost, or raise what was raised."""
    for seconds in LOOKS:
        yield Sleep(seconds)
        try:
            found = yield from find_intent(run.ref.parent, intent_id)
        except AgentRunsError:
            continue
        if found is not None:
            return found
    raise lost


def answered_by(run: Run[GraphRun]) -> Flow[Run[GraphRun] | None]:
    """Return the run that went on with what a run has left, None if there is none: whoever has made it."""
    response = yield Request("GET", wire.path("threads", run.ref.parent, "runs"), params={"limit": "100"})
    later: list[Mapping[str, Any]] = []
    for row in wire.objects(wire.read_value(response)):
        if row.get("run_id") == run.id:
            break
        later.insert(0, row)
    else:
        return None
    marked = [row for row in later if wire.mapping(row.get("metadata")).get(ANSWERS) == run.id]
    first = marked or [row for row in later[:1] if answers(row)]
    return (yield from fetch(run_of(response, first[0]).ref, {})) if first else None
