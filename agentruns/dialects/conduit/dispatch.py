"""Firing a trigger, and finding the run that it started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import evolve, field, frozen, validators

from agentruns import check, codec, wire
from agentruns.errors import AgentRunsError, ConfigurationError, OutcomeUnknownError, ProtocolError, RunError
from agentruns.model import (
    Flow,
    Hold,
    Pause,
    Request,
    Response,
    Run,
    RunStatus,
)

from .catalog import get_agent
from .reading import NAME, fetch, list_runs

_LOOKS: Final = tuple(min(1.5**look, 10.0) for look in range(10))
"""Seconds before each look for the run of a dispatch: 61 in all. A guess: no page says how soon a run is listed."""

_PAGES: Final = 10
"""How many pages of runs one look reads, should that many have been started since the dispatch."""


def _json(value: Any) -> Any:
    return codec.plain(value, "Dispatch.payload")


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


def start(origin: Dispatch) -> Flow[Run]:
    """Fire a trigger (agents/run) and find the run that this started (agents/list-runs)."""
    agent_id = origin.agent_id
    trigger_id = origin.trigger_id or (yield from _only_trigger(agent_id))
    yield Hold(f"{NAME} {agent_id} {trigger_id}")
    before = (yield from list_runs(agent_id, limit=100)).items
    body = wire.given({"trigger_id": trigger_id, "payload": origin.payload})
    request = Request("POST", wire.path("agents", agent_id, "run"), json=body)
    try:
        answer = _dispatched((yield request))
    except OutcomeUnknownError as error:
        return (yield from _find(request, agent_id, _Sought(trigger_id, before), error.reason, error))
    if answer.get("dispatched") is False:  # no page says when; nothing is refused, but no run is to be expected
        raise RunError(
            None,
            f"{request.line} was answered `dispatched: false`, so trigger {trigger_id} was not fired. Check that the "
            "trigger and the agent are enabled",
        )
    sought = _Sought(wire.first_text(answer, "trigger_id") or trigger_id, before, _named(answer))
    return (yield from _find(request, agent_id, sought, "it was dispatched"))


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
            f"{', '.join(have) or 'none at all'}. Pass `Dispatch(..., trigger_id=...)` with one that is enabled and "
            "not of type message"
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


@frozen
class _Sought:
    """How the run of a dispatch is told from others: by an id that the answer has, else by what was there *before*."""

    trigger_id: str
    before: Sequence[Run]
    named: frozenset[str] = frozenset()

    def among(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Return the runs that may be the one; times are compared with each other, and never with our clock."""
        known = {run.id for run in self.before}
        since = max((run.detail.created_at for run in self.before), default=None)
        return [run for run in runs if self.named & {run.id, run.detail.run_id}] or [
            run
            for run in runs
            if run.id not in known
            and run.detail.trigger_id == self.trigger_id
            and (since is None or run.detail.created_at >= since)
        ]


def _find(
    request: Request, agent_id: str, sought: _Sought, told: str, cause: AgentRunsError | None = None
) -> Flow[Run]:
    """
    Look for the run of a dispatch; unless there is exactly one, raise `OutcomeUnknownError` that begins with *told*.

    A look that fails is one that saw nothing. Any other error here would say that the start has failed, and whoever
    tries again would fire the trigger twice.
    """
    trouble = ""
    for pause in _LOOKS:
        yield Pause(pause)
        try:
            found = sought.among((yield from _newest(agent_id, sought.before)))
        except AgentRunsError as error:
            cause, trouble = error, f" (a look failed: {error})"
            continue
        if len(found) == 1:
            return found[0] if found[0].status.in_flight else (yield from _whole(found[0]))
        if found:
            raise OutcomeUnknownError(
                request,
                f"{told}; {len(found)} new runs of trigger {sought.trigger_id} are there, which is ambiguous: "
                f"{', '.join(run.id for run in found)}. `client.stream(RunRef(id, {agent_id!r}))` follows one of them",
            ) from cause
    raise OutcomeUnknownError(
        request,
        f"{told}; no new run of trigger {sought.trigger_id} was observed in the list of agent {agent_id} for "
        f"{sum(_LOOKS):.0f} s{trouble}",
    ) from cause


def _newest(agent_id: str, before: Sequence[Run]) -> Flow[Sequence[Run]]:
    """Read the runs back to one that was there *before*, nearly always one page; new runs may shift the pages."""
    known = {run.id for run in before}
    runs: dict[str, Run] = {}
    cursor: str | None = None
    for _ in range(_PAGES):
        listed = yield from list_runs(agent_id, limit=100, cursor=cursor)
        runs.update((run.id, run) for run in listed.items)
        cursor = listed.cursor
        if cursor is None or not known.isdisjoint(runs):
            break
    return tuple(runs.values())


def _whole(run: Run) -> Flow[Run]:
    """
    Read what a list leaves out of a run that is over: its reply.

    Where that fails, the run counts as in flight, so that who waits for it reads on, and nobody takes the start for
    failed.
    """
    try:
        return (yield from fetch(run.ref, {}))
    except AgentRunsError:
        return evolve(run, status=RunStatus.RUNNING, failure=None)
