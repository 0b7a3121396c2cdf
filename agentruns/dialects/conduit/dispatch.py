"""Firing a trigger, and finding the run that it started."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Final, TypeAlias

from attrs import evolve, field, frozen, validators

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request, Response
from agentruns._values.run import Run, RunStatus
from agentruns.dialects import guesses, wire
from agentruns.dialects.search import Search, find_lost, find_started, look_before
from agentruns.errors import (
    AgentRunsError,
    ConfigurationError,
    InvalidRequestError,
    OutcomeUnknownError,
    ProtocolError,
    RunError,
)

from .objects import ConduitRun
from .reading import AS_GUESSED, NAME, Reading, created_at, fetch, page

START_LOOKS: Final = tuple(min(1.5**look, 10.0) for look in range(10))
"""Seconds before each look for the run of a dispatch, 61 in all: no page says how soon a run is listed."""

_FIRES: Final = "`conduit.variant(fires=...)`"

_AGENT_SECONDS: Final = 60.0
"""How old an agent may be, as it was read, whose one trigger is fired: the rows of a batch do not read it anew."""

Fits: TypeAlias = Callable[[Mapping[str, Any], str], bool]
Fires: TypeAlias = Callable[[Mapping[str, Any]], bool]
Names: TypeAlias = Callable[[Mapping[str, Any]], Iterable[str]]


def fits(row: Mapping[str, Any], trigger_id: str) -> bool:
    """Tell whether a row of the list can be the run of a dispatch: `variant(fits=...)` replaces it."""
    return row.get("trigger_id") == trigger_id


def fires(trigger: Mapping[str, Any]) -> bool:
    """
    Tell whether a dispatch without trigger id can mean a trigger: `variant(fires=...)` replaces it.

    The page says no more than that the id is needed where there are several triggers, and that message triggers cannot
    be dispatched (agents/run). So triggers that are disabled, or of type `message`, do not count.
    """
    return trigger.get("type") != "message" and trigger.get("enabled") is not False


def names(answer: Mapping[str, Any]) -> Iterable[str]:
    """Return the ids of a run in the answer to a dispatch, for the day that it has one: `variant(names=...)`."""
    nested = answer.get("run")
    found = (answer.get("run_id"), answer.get("id"), wire.mapping(nested).get("id"))
    return [each for each in found if isinstance(each, str)]


@frozen
class Finding:
    """How the run of a dispatch is found, where no page says it; `variant` gives other ways."""

    fits: Fits = fits
    fires: Fires = fires
    names: Names = names
    looks: Sequence[float] = START_LOOKS
    reads: Reading = AS_GUESSED


AS_FOUND: Final = Finding()


def _json(value: Any) -> Any:
    return codec.to_jsonable(value, "Dispatch.payload")


@frozen
class Dispatch:
    """
    Fire a trigger of an agent now.

    Without `trigger_id` the agent is read, and its one enabled trigger that is not of type `message` is fired. The
    `payload` is any JSON, in the shape of the real event; cron triggers ignore it. None leaves it out: Conduit takes
    `{}`. Every start of this value fires the trigger anew; two starts of one trigger wait for each other.
    `workspace_id` goes with all that finds the run; without it Conduit takes the workspace of the agent.
    """

    agent_id: str = field(validator=check.not_empty, metadata={"help": "id of the agent"})
    trigger_id: str | None = field(
        default=None,
        kw_only=True,
        validator=validators.optional(check.not_empty),
        metadata={"help": "id of the trigger; the agent's only one if left out"},
    )
    payload: Any = field(
        default=None, kw_only=True, converter=_json, metadata={"help": "event that the trigger is fired with"}
    )
    workspace_id: str | None = field(
        default=None,
        kw_only=True,
        validator=validators.optional(check.not_empty),
        metadata={"help": "id of the workspace; that of the agent if left out"},
    )

    @property
    def params(self) -> Mapping[str, str]:
        """Return the query parameters of each request."""
        return wire.drop_none({"workspace_id": self.workspace_id})


def start(origin: Dispatch, *, finding: Finding = AS_FOUND) -> Flow[Run[ConduitRun]]:
    """Fire a trigger (agents/run) and find the run that this started (agents/list-runs)."""
    agent_id = origin.agent_id
    trigger_id = origin.trigger_id or (yield from _only_trigger(origin, finding))
    search = _search(origin, trigger_id, finding)
    before = yield from look_before(search)
    body = wire.drop_none({"trigger_id": trigger_id, "payload": origin.payload})
    request = Request("POST", wire.path("agents", agent_id, "run"), params=origin.params, json=body)
    try:
        answer = _dispatched((yield request))
    except InvalidRequestError as error:
        if origin.trigger_id is None:
            what = "which trigger a dispatch without trigger_id fires"
            guesses.refused(error, what, {"trigger_id": trigger_id}, _FIRES, guessed="the one")
        raise
    except OutcomeUnknownError as error:
        found = yield from find_started(search, before, request, error.reason, error)
        return (yield from _whole(found, origin, finding))
    if answer.get("dispatched") is False:  # no page says when; nothing is refused, but no run is to be expected
        raise RunError(
            None,
            f"{request.line} was answered `dispatched: false`, so trigger {trigger_id} was not fired. Check that the "
            "trigger and the agent are enabled",
        )
    fired = wire.first_text(answer, "trigger_id") or trigger_id
    search = _search(origin, fired, finding, frozenset(finding.names(answer)))
    found = yield from find_started(search, before, request, "it was dispatched")
    return (yield from _whole(found, origin, finding))


def recover(origin: Dispatch, note: Mapping[str, Any], *, finding: Finding = AS_FOUND) -> Flow[Run[ConduitRun]]:
    """
    Find the run of a dispatch whose process died before it heard the answer.

    None may be found because the trigger was never fired: that, too, is `OutcomeUnknownError`.
    """
    search = _search(origin, note["trigger_id"], finding)
    found = yield from find_lost(search, note, Request("POST", wire.path("agents", origin.agent_id, "run")))
    return (yield from _whole(found, origin, finding))


def _search(
    origin: Dispatch, trigger_id: str, finding: Finding, named: AbstractSet[str] = frozenset()
) -> Search[ConduitRun]:
    """Look for a run of a trigger in the list of its agent; one that the answer has *named* settles it."""
    agent_id = origin.agent_id
    return Search(
        page=partial(page, agent_id, reads=finding.reads, workspace_id=origin.workspace_id),
        created_at=created_at,
        fits=lambda run: finding.fits(run.raw, trigger_id),
        looks=finding.looks,
        what=f"trigger {trigger_id}",
        where=f"the list of agent {agent_id}",
        group=f"{NAME} {agent_id} {trigger_id}",
        marks={"trigger_id": trigger_id},
        switch="`conduit.variant(fits=..., names=..., looks=...)`",
        is_named=lambda run: run.id in named or wire.first_text(run.raw, "run_id") in named,
    )


def _only_trigger(origin: Dispatch, finding: Finding) -> Flow[str]:
    """Return the one trigger that a dispatch without a trigger id can mean."""
    path = wire.path("agents", origin.agent_id)
    request = Request("GET", path, params=origin.params, max_age=_AGENT_SECONDS)
    agent = wire.read_object((yield request), "data")
    listed = agent.get("triggers")
    objects = map(wire.mapping, listed if isinstance(listed, list) else ())
    triggers = [each for each in objects if wire.first_text(each, "id")]
    fit = [each for each in triggers if finding.fires(each)]
    if len(fit) != 1:
        have = [
            f"{each['id']} ({each.get('type')}{', disabled' if each.get('enabled') is False else ''})"
            for each in triggers
        ]
        raise ConfigurationError(
            f"agent {origin.agent_id} has {len(fit) or 'no'} triggers that a dispatch without trigger_id could mean; "
            f"it has {', '.join(have) or 'none at all'}. Those that are enabled and not of type message are meant, "
            "which is a guess",
            field="Dispatch.trigger_id",
            remedy=f"pass the trigger_id of one, or choose it by {_FIRES}",
        )
    only: str = fit[0]["id"]
    return only


def _dispatched(response: Response) -> Mapping[str, Any]:
    """Read the answer to a dispatch as far as it goes: the trigger has been fired, whatever the answer looks like."""
    try:
        return wire.read_object(response, "data")
    except ProtocolError:
        return {}


def _whole(run: Run[ConduitRun], origin: Dispatch, finding: Finding) -> Flow[Run[ConduitRun]]:
    """
    Read what a list leaves out of a run that is over: its reply.

    Where that fails, the run counts as in flight, so that who waits for it reads on, and nobody takes the start for
    failed.
    """
    if run.status.in_flight:
        return run
    try:
        return (yield from fetch(run.ref, origin.params, reads=finding.reads))
    except AgentRunsError:
        return evolve(run, status=RunStatus.RUNNING, failure=None)
