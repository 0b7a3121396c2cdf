"""Starting a run, and finding it again when its answer was lost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from attrs import evolve, field, frozen
from attrs.validators import optional

from agentruns._values import check, codec
from agentruns._values.commands import Checkpoint, Flow, Lock, Ownership, Sleep
from agentruns._values.exchange import Request
from agentruns._values.run import Run
from agentruns.dialects import wire
from agentruns.errors import AgentRunsError, OutcomeUnknownError, ProtocolError

from .catalog import context_of, create_thread
from .objects import MiddeskRun
from .reading import NAME, NO_ANSWER, page, parse_run


@frozen
class RunRequest:
    """
    A run of the agent *type*: in the thread that is named, else in a new one.

    A new thread needs its context: `business_id`, or `context_type` together with `context_id` (create-agent-run).
    """

    type: str = field(validator=check.not_empty)
    thread_id: str | None = field(default=None, kw_only=True, validator=optional(check.not_empty))
    business_id: str | None = field(default=None, kw_only=True)
    context_type: str | None = field(default=None, kw_only=True)
    context_id: str | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        context_of(self.business_id, self.context_type, self.context_id, threaded=self.thread_id is not None)


_GRACE: Final = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each look for a run that a lost answer may have started."""

_MOST_PAGES: Final = 10
"""Pages of one look: what the limit of 20 requests per second lets a customer start in the meantime, and more."""


@frozen
class _Sought:
    """What tells the run that we started from all others."""

    thread_id: str
    agent: str
    since: datetime
    known: frozenset[str] = frozenset()

    def parked(self) -> Mapping[str, Any]:
        known = sorted(self.known)
        return {"thread_id": self.thread_id, "agent": self.agent, "since": self.since.isoformat(), "known": known}

    def is_met_by(self, run: MiddeskRun) -> bool:
        ours = run.thread_id == self.thread_id and run.agent in {None, self.agent}
        return ours and run.created_at >= self.since and run.id not in self.known


def start(origin: RunRequest) -> Flow[Run[MiddeskRun]]:
    """
    Start a run (create-agent-run), on a thread of our own unless one is named.

    The run is posted once. A thread of our own, or a look at the named one beforehand, is what lets a run be recognized
    whose answer was lost.
    """
    body = wire.drop_none(codec.unstructure(origin))
    if origin.thread_id is None:
        thread = yield from create_thread(**body)
        sought = _Sought(thread.id, origin.type, thread.created_at.replace(microsecond=0))  # some times are in seconds
        body = {"type": origin.type, "thread_id": thread.id}
        yield Checkpoint(sought.parked())
    else:
        among = f"{NAME} thread {origin.thread_id}"  # two starts on one thread could not be told apart
        yield Lock(among)
        while True:
            sought = yield from _before(origin.thread_id, origin.type)
            if (yield from wire.checkpoint(sought.parked(), among, sum(_GRACE))):
                break
    request = Request("POST", wire.path("runs"), json=body)
    try:
        response = yield request
    except OutcomeUnknownError as error:
        lost = error
    else:
        try:
            return parse_run(response)
        except ProtocolError as error:  # it has started, and must not be started again
            lost = OutcomeUnknownError(request, str(error))
    return (yield from _settled(lost, sought))


def recover(origin: RunRequest, note: Mapping[str, Any]) -> Flow[Run[MiddeskRun]]:
    """
    Find the run of a start whose process died before it heard the answer.

    None may be found because the request was never sent: that, too, is `OutcomeUnknownError`.
    """
    sought = _Sought(note["thread_id"], note["agent"], datetime.fromisoformat(note["since"]), frozenset(note["known"]))
    request = Request("POST", wire.path("runs"), json={"type": origin.type, "thread_id": sought.thread_id})
    lost = OutcomeUnknownError(request, "the process that was about to send it ended before it noted an answer")
    return (yield from _settled(lost, sought))


def _before(thread_id: str, agent: str) -> Flow[_Sought]:
    """
    Note what there is before a start: a run is new if it is created no earlier than the newest one here.

    That the newest come first is a guess (list-agent-runs does not say), so it is looked at: where a longer list is
    ordered otherwise, or begins with a page of one moment, no run counts as new.
    """
    listed = yield from page("", None)
    made = [run.detail.created_at for run in listed.runs]
    newest = max(made, default=datetime.min.replace(tzinfo=UTC))
    if listed.cursor and (made != sorted(made, reverse=True) or made[-1] == newest):
        newest = datetime.max.replace(tzinfo=UTC)
    return _Sought(thread_id, agent, newest, frozenset(run.id for run in listed.runs))


def _settled(lost: OutcomeUnknownError, sought: _Sought) -> Flow[Run[MiddeskRun]]:
    """
    Return the run that a request of unknown outcome started; raise `OutcomeUnknownError` if that cannot be told.

    No other error leaves here: whoever sees one might start again.
    """
    found: Mapping[str, Run[MiddeskRun]] = {}
    trouble = ""
    for seconds in _GRACE:
        yield Sleep(seconds)
        try:
            found, trouble = (yield from _look(sought)), ""
        except AgentRunsError as error:
            trouble = f" (the last look failed: {error})"
            if not isinstance(error, NO_ANSWER):
                break  # the client is closed, or cannot send
        if len(found) == 1:
            (only,) = found.values()
            whose = yield from wire.claim_run(only.id)
            if whose is Ownership.MINE:
                return only
            if whose is Ownership.OTHERS:
                sought, found = evolve(sought, known=sought.known | {only.id}), {}
                continue
            trouble = ", which may be that of another start that died before it heard an answer"
        if found:
            break
    raise OutcomeUnknownError(
        lost.request,
        f"{lost.reason}; a run of {sought.agent} on thread {sought.thread_id} that is certainly new was looked for in "
        f"GET /runs, and found: {' or '.join(found) or 'none'}{trouble}",
    ) from lost


def _look(sought: _Sought) -> Flow[Mapping[str, Run[MiddeskRun]]]:
    """Return the runs that may be ours, by id: new runs shift the pages, so one may be listed twice."""
    found: dict[str, Run[MiddeskRun]] = {}
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        listed = yield from page("", cursor)
        found.update({run.id: run for run in listed.runs if sought.is_met_by(run.detail)})
        cursor = listed.cursor
        if cursor is None or listed.runs[-1].detail.created_at < sought.since:
            break
    return found
