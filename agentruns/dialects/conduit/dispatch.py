"""Firing a trigger, and finding the run that it started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, Final

from attrs import evolve, field, frozen, validators

from agentruns._values import check, codec
from agentruns._values.commands import Flow, Lock, Ownership, Sleep
from agentruns._values.exchange import Request, Response
from agentruns._values.run import Run, RunStatus
from agentruns.dialects import wire
from agentruns.errors import AgentRunsError, ConfigurationError, OutcomeUnknownError, ProtocolError, RunError

from .catalog import get_agent
from .objects import ConduitRun
from .reading import NAME, fetch, list_runs

_LOOKS: Final = tuple(min(1.5**look, 10.0) for look in range(10))
"""Seconds before each look for the run of a dispatch: 61 in all. A guess: no page says how soon a run is listed."""

_PAGES: Final = 10
"""How many pages of runs one look reads, should that many have been started since the dispatch."""


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
    among = _among(agent_id, trigger_id)
    yield Lock(among)
    while True:
        sought = _Sought.after((yield from list_runs(agent_id, limit=100)).items, trigger_id)
        if (yield from wire.checkpoint(sought.parked(), among, sum(_LOOKS))):
            break
    body = wire.drop_none({"trigger_id": trigger_id, "payload": origin.payload})
    request = Request("POST", wire.path("agents", agent_id, "run"), json=body)
    try:
        answer = _dispatched((yield request))
    except OutcomeUnknownError as error:
        return (yield from _find(request, agent_id, sought, error.reason, error))
    if answer.get("dispatched") is False:  # no page says when; nothing is refused, but no run is to be expected
        raise RunError(
            None,
            f"{request.line} was answered `dispatched: false`, so trigger {trigger_id} was not fired. Check that the "
            "trigger and the agent are enabled",
        )
    sought = evolve(sought, trigger_id=wire.first_text(answer, "trigger_id") or trigger_id, named=_named(answer))
    return (yield from _find(request, agent_id, sought, "it was dispatched"))


def recover(origin: Dispatch, note: Mapping[str, Any]) -> Flow[Run[ConduitRun]]:
    """
    Find the run of a dispatch whose process died before it heard the answer.

    None may be found because the trigger was never fired: that, too, is `OutcomeUnknownError`.
    """
    yield Lock(_among(origin.agent_id, note["trigger_id"]))
    since = None if note["since"] is None else datetime.fromisoformat(note["since"])
    request = Request("POST", wire.path("agents", origin.agent_id, "run"))
    told = "the process that was about to send it ended before it noted an answer"
    return (
        yield from _find(request, origin.agent_id, _Sought(note["trigger_id"], frozenset(note["known"]), since), told)
    )


def _among(agent_id: str, trigger_id: str) -> str:
    """Return a name for the starts of which nobody can tell whose run is whose."""
    return f"{NAME} {agent_id} {trigger_id}"


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
    known: frozenset[str]
    since: datetime | None
    named: frozenset[str] = frozenset()

    @classmethod
    def after(cls, before: Sequence[Run[ConduitRun]], trigger_id: str) -> _Sought:
        """Return what tells a run of the trigger from those that were there *before*."""
        since = max((run.detail.created_at for run in before), default=None)
        return cls(trigger_id, frozenset(run.id for run in before), since)

    def parked(self) -> Mapping[str, Any]:
        since = None if self.since is None else self.since.isoformat()
        return {"trigger_id": self.trigger_id, "known": sorted(self.known), "since": since}

    def among(self, runs: Sequence[Run[ConduitRun]]) -> Sequence[Run[ConduitRun]]:
        """Return the runs that may be the one; times are compared with each other, and never with our clock."""
        return [run for run in runs if self.named & {run.id, run.detail.run_id}] or [
            run
            for run in runs
            if run.id not in self.known
            and run.detail.trigger_id == self.trigger_id
            and (self.since is None or run.detail.created_at >= self.since)
        ]


def _find(
    request: Request, agent_id: str, sought: _Sought, told: str, cause: AgentRunsError | None = None
) -> Flow[Run[ConduitRun]]:
    """
    Look for the run of a dispatch; unless there is exactly one, raise `OutcomeUnknownError` that begins with *told*.

    A look that fails is one that saw nothing. Any other error here would say that the start has failed, and whoever
    tries again would fire the trigger twice.
    """
    trouble = ""
    for pause in _LOOKS:
        yield Sleep(pause)
        try:
            found = sought.among((yield from _newest(agent_id, sought.known)))
        except AgentRunsError as error:
            cause, trouble = error, f" (a look failed: {error})"
            continue
        if len(found) == 1:
            (only,) = found
            whose = yield from wire.claim_run(only.id)
            if whose is Ownership.MINE:
                return only if only.status.in_flight else (yield from _whole(only))
            if whose is Ownership.OTHERS:
                sought = evolve(sought, known=sought.known | {only.id})
                continue
            raise OutcomeUnknownError(
                request,
                f"{told}; run {only.id} of trigger {sought.trigger_id} is new, and may be that of another start which "
                "died before it heard an answer",
            ) from cause
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


def _newest(agent_id: str, known: AbstractSet[str]) -> Flow[Sequence[Run[ConduitRun]]]:
    """Read the runs back to one that was *known*, nearly always one page; new runs may shift the pages."""
    runs: dict[str, Run[ConduitRun]] = {}
    cursor: str | None = None
    for _ in range(_PAGES):
        listed = yield from list_runs(agent_id, limit=100, cursor=cursor)
        runs.update((run.id, run) for run in listed.items)
        cursor = listed.cursor
        if cursor is None or not known.isdisjoint(runs):
            break
    return tuple(runs.values())


def _whole(run: Run[ConduitRun]) -> Flow[Run[ConduitRun]]:
    """
    Read what a list leaves out of a run that is over: its reply.

    Where that fails, the run counts as in flight, so that who waits for it reads on, and nobody takes the start for
    failed.
    """
    try:
        return (yield from fetch(run.ref, {}))
    except AgentRunsError:
        return evolve(run, status=RunStatus.RUNNING, failure=None)
