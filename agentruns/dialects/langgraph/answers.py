"""Answering the interrupts of a run: by a new run, which goes on with the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid5

from agentruns._values import codec
from agentruns._values.commands import Flow, Lock, Sleep
from agentruns._values.exchange import Problem, Request
from agentruns._values.generic import Json
from agentruns._values.run import Run, ToolOutput
from agentruns.dialects import wire
from agentruns.errors import AgentRunsError, ConfigurationError, ConflictError, OutcomeUnknownError

from .lists import answers
from .objects import GraphRun
from .reading import NAME, NEXT, fetch, given_to, marks_of, read_state, run_of, started
from .starts import INTENT, LOOKS, find_intent, marked

ANSWERS: Final = "agentruns_answers"
"""The key of a run's metadata that names the run which it answers."""

_INTENTS: Final = UUID("0d5f0c4e-6a0b-5f53-9a0e-3f1d7c1e8b52")


def resume(run: Run[GraphRun], outputs: Sequence[ToolOutput]) -> Flow[Run[GraphRun]]:
    """
    Answer interrupts of a run by a new run, all or some: those that are left out are those of the new run.

    The server takes an answer to what nobody asks without a word, so the thread is looked at before. It does not keep
    the configuration and the context of a run for its answers: they are repeated. What got lost is looked for by an id
    of its own, and never sent twice. Raise `ConflictError` if the graph does not wait for these answers any more.
    """
    given = {output.action.id: output for output in outputs}
    if not given or len(given) < len(outputs):
        raise ConfigurationError(f"run {run.id} takes one answer to each of its actions, and got {len(outputs)}")
    yield Lock(f"{NAME} {run.ref.parent}")
    made = yield from _standing(run, outputs)
    values = {name: _value(output) for name, output in given.items() if not name.startswith(NEXT)}
    intent_id = str(uuid5(_INTENTS, f"{run.id} {codec.encode(values).decode()}"))
    config, context = _settings(made)
    body = {
        "assistant_id": made.get("assistant_id"),
        **({"context": context} if context else {}),
        **({"command": {"resume": values}} if values else {"checkpoint": {"checkpoint_ns": ""}}),
        **marked(config, {INTENT: intent_id, ANSWERS: run.id}),
        "multitask_strategy": "reject",
    }
    request = Request("POST", wire.path("threads", run.ref.parent, "runs"), json=body)
    try:
        posted = yield request
    except OutcomeUnknownError as lost:
        return (yield from _found(run, intent_id, lost))
    return started(posted)


def _standing(run: Run[GraphRun], outputs: Sequence[ToolOutput]) -> Flow[Mapping[str, Json]]:
    """Return a run as it was made, once it is seen that what these answers are for still waits."""
    path = wire.path("threads", run.ref.parent, "runs")
    response = yield Request("GET", path, params={"limit": "1"})
    newest = next(iter(wire.objects(wire.read_value(response))), {})
    if newest.get("run_id") == run.id:
        return newest
    _, state = yield from read_state(run.ref)  # others came after it, which may have answered something else
    asked = {action.id: action for action in state.actions}
    gone = [output.action.id for output in outputs if asked.get(output.action.id) != output.action]
    if gone:
        message = f"thread {run.ref.parent} does not wait for an answer to {', '.join(gone)} any more"
        raise ConflictError(response, Problem(message))
    return wire.read_object((yield Request("GET", wire.path("threads", run.ref.parent, "runs", run.id))))


def _settings(made: Mapping[str, Json]) -> tuple[Mapping[str, Json], Mapping[str, Json]]:
    """Return config and context of a run as its answers repeat them; what was configurable is shown as context, too."""
    given = given_to(made)
    config = wire.mapping(given.get("config"))
    return {name: config[name] for name in ("tags", "recursion_limit") if name in config}, wire.mapping(
        given.get("context")
    )


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
    ours = [row for row in later if marks_of(row).get(ANSWERS) == run.id]
    first = ours or [row for row in later[:1] if answers(row)]
    return (yield from fetch(run_of(response, first[0]).ref, {})) if first else None
