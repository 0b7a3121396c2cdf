"""Firing a trigger, and finding the run that it started."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Final

from attrs import evolve, field, frozen, validators

from agentruns._values import check, codec
from agentruns._values.commands import Flow, Lock
from agentruns._values.exchange import Request, Response
from agentruns._values.run import Run, RunStatus
from agentruns.dialects import wire
from agentruns.dialects.search import Before, Search, find_started, look_before
from agentruns.errors import AgentRunsError, ConfigurationError, OutcomeUnknownError, ProtocolError, RunError

from .catalog import get_agent
from .objects import ConduitRun
from .reading import NAME, fetch, page

_LOOKS: Final = tuple(min(1.5**look, 10.0) for look in range(10))
"""Seconds before each look for the run of a dispatch: 61 in all. A guess: no page says how soon a run is listed."""


def _json(value: Any) -> Any:
    return codec.to_jsonable(value, "Dispatch.payload")


@frozen
class Dispatch:
    """
    Fire a trigger of an agent now.

    Without `trigger_id` the agent is read, and its one enabled trigger that is not of type `message` is fired. The
    `payload` is any JSON, in the shape of the real event; cron triggers ignore it. None leaves it out: Conduit takes
    `{}`. Every start of this value fires the trigger anew; two starts of one trigger wait for each other.
    """

    agent_id: str = field(validator=check.not_empty)
    trigger_id: str | None = field(default=None, kw_only=True, validator=validators.optional(check.not_empty))
    payload: Any = field(default=None, kw_only=True, converter=_json)


def start(origin: Dispatch) -> Flow[Run[ConduitRun]]:
    """Fire a trigger (agents/run) and find the run that this started (agents/list-runs)."""
    agent_id = origin.agent_id
    trigger_id = origin.trigger_id or (yield from _only_trigger(agent_id))
    search = _search(agent_id, trigger_id)
    before = yield from look_before(search)
    body = wire.drop_none({"trigger_id": trigger_id, "payload": origin.payload})
    request = Request("POST", wire.path("agents", agent_id, "run"), json=body)
    try:
        answer = _dispatched((yield request))
    except OutcomeUnknownError as error:
        return (yield from _whole((yield from find_started(search, before, request, error.reason, error))))
    if answer.get("dispatched") is False:  # no page says when; nothing is refused, but no run is to be expected
        raise RunError(
            None,
            f"{request.line} was answered `dispatched: false`, so trigger {trigger_id} was not fired. Check that the "
            "trigger and the agent are enabled",
        )
    search = _search(agent_id, wire.first_text(answer, "trigger_id") or trigger_id, _named(answer))
    return (yield from _whole((yield from find_started(search, before, request, "it was dispatched"))))


def recover(origin: Dispatch, note: Mapping[str, Any]) -> Flow[Run[ConduitRun]]:
    """
    Find the run of a dispatch whose process died before it heard the answer.

    None may be found because the trigger was never fired: that, too, is `OutcomeUnknownError`.
    """
    search = _search(origin.agent_id, note["trigger_id"])
    yield Lock(search.group)
    request = Request("POST", wire.path("agents", origin.agent_id, "run"))
    told = "the process that was about to send it ended before it noted an answer"
    return (yield from _whole((yield from find_started(search, Before.of_note(note), request, told))))


def _search(agent_id: str, trigger_id: str, named: AbstractSet[str] = frozenset()) -> Search[ConduitRun]:
    """Look for a run of a trigger in the list of its agent; one that the answer has *named* settles it."""
    return Search(
        page=partial(page, agent_id),
        created_at=lambda run: run.detail.created_at,
        fits=lambda run: run.detail.trigger_id == trigger_id,
        looks=_LOOKS,
        what=f"trigger {trigger_id}",
        where=f"the list of agent {agent_id}",
        group=f"{NAME} {agent_id} {trigger_id}",
        marks={"trigger_id": trigger_id},
        is_named=lambda run: run.id in named or run.detail.run_id in named,
    )


def _only_trigger(agent_id: str) -> Flow[str]:
    """
    Return the one trigger that a dispatch without a trigger id can mean.

    A guess: triggers that are disabled, or of type `message`, do not count. The page says no more than that the id is
    needed where there are several triggers, and that message triggers cannot be dispatched (agents/run).
    """
    triggers = (yield from get_agent(agent_id)).triggers or ()
    fit = [trigger for trigger in triggers if trigger.type != "message" and trigger.enabled is not False]
    if len(fit) != 1:
        have = [f"{each.id} ({each.type}{', disabled' if each.enabled is False else ''})" for each in triggers]
        raise ConfigurationError(
            f"agent {agent_id} has {len(fit) or 'no'} triggers that a dispatch without trigger_id could mean; it has "
            f"{', '.join(have) or 'none at all'}. Pass the trigger_id of one that is enabled and not of "
            "type message",
            field="Dispatch.trigger_id",
        )
    return fit[0].id


def _dispatched(response: Response) -> Mapping[str, Any]:
    """Read the answer to a dispatch as far as it goes: the trigger has been fired, whatever the answer looks like."""
    try:
        return wire.read_object(response, "data")
    except ProtocolError:
        return {}


def _named(answer: Mapping[str, Any]) -> frozenset[str]:
    """Return the ids of a run in the answer to a dispatch: a guess, for the day that it has one; no page shows any."""
    nested = answer.get("run")
    named = (answer.get("run_id"), answer.get("id"), nested.get("id") if isinstance(nested, Mapping) else None)
    return frozenset(each for each in named if isinstance(each, str))


def _whole(run: Run[ConduitRun]) -> Flow[Run[ConduitRun]]:
    """
    Read what a list leaves out of a run that is over: its reply.

    Where that fails, the run counts as in flight, so that who waits for it reads on, and nobody takes the start for
    failed.
    """
    if run.status.in_flight:
        return run
    try:
        return (yield from fetch(run.ref, {}))
    except AgentRunsError:
        return evolve(run, status=RunStatus.RUNNING, failure=None)
