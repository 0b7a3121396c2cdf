"""Reading runs, and what all reading shares: pages of lists, errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar

from attrs import frozen

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.generic import Json
from agentruns._values.run import Action, Failure, JsonText, Page, Run, RunRef, RunStatus
from agentruns.dialects import reading, wire
from agentruns.errors import ConfigurationError, ProtocolError

from .objects import ESCALATED, ConduitRun, Listing

T = TypeVar("T")

NAME: Final = "conduit"

_OTHER_ID: Final = "run_"
"""How the second identity of a run begins, which no path takes."""

STATUS: Final[Mapping[str, RunStatus]] = {
    "accepted": RunStatus.PENDING,
    "running": RunStatus.RUNNING,
    "completed": RunStatus.COMPLETED,
    "failed": RunStatus.FAILED,
}


@frozen
class Reading:
    """How runs are read, where no page says it; `variant` gives another."""

    status: Mapping[str, RunStatus] = STATUS


AS_GUESSED: Final = Reading()


@frozen
class RunState:
    """What every state needs."""

    id: str
    agent_id: str
    status: str
    created_at: datetime
    completed_at: datetime | None = None


@frozen
class MovingRun(RunState):
    """What a state in flight tells beside that: what it has used."""

    token_usage: Json = None


@frozen
class Moving:
    """The answer that brings such a state."""

    data: MovingRun


def fetch(ref: RunRef, params: Mapping[str, str], *, reads: Reading = AS_GUESSED) -> Flow[Run[ConduitRun]]:
    """Read a run with its reply and tool trace (agents/get-run)."""
    if ref.id.startswith(_OTHER_ID):  # the page's example of the path has the id
        raise ConfigurationError(
            f"{ref.id} is the run_id of a run; its id is needed, which begins with `ar` and stands beside it in "
            "the list of the agent's runs",
            field="RunRef.id",
            remedy="pass RunRef(id, agent_id)",
        )
    if not ref.parent:
        raise ConfigurationError(
            f"run {ref.id} can only be read with its agent",
            field="RunRef.parent",
            remedy=f"pass RunRef({ref.id!r}, agent_id)",
        )
    path = wire.path("agents", ref.parent, "runs", ref.id)
    return parse_run((yield Request("GET", path, params=params)), reads=reads)


def parse_run(response: Response, *, reads: Reading = AS_GUESSED) -> Run[ConduitRun]:
    """Return the run in the answer to `fetch`."""
    text = JsonText(response.body, ("data",))
    moving = wire.glance(response, Moving)
    if moving is not None and (status := _status(moving.data, reads)).in_flight:
        return _run(moving.data, status, response, "$.data", text, usage=moving.data.token_usage)
    return _state(wire.read_object(response, "data"), response, "$.data", reads, text)


def page(
    parent: str, cursor: str | None, *, reads: Reading = AS_GUESSED, workspace_id: str | None = None
) -> Flow[Page[ConduitRun]]:
    """
    Return a page of an agent's runs, newest first and without their replies (agents/list-runs).

    A row that does not fit is left out.
    """
    listed = yield from list_runs(parent, limit=100, cursor=cursor, reads=reads, workspace_id=workspace_id)
    return Page(listed.items, listed.cursor, listed.skipped)


def list_runs(
    agent_id: str,
    *,
    status: str | None = None,
    workspace_id: str | None = None,
    limit: int = 20,
    cursor: str | None = None,
    reads: Reading = AS_GUESSED,
) -> Flow[Listing[Run[ConduitRun]]]:
    """
    Return one page of an agent's runs, newest first, or of those of one *status* of Conduit (agents/list-runs).

    A page has at most *limit* runs, from 1 to 100; while there is more, its `cursor` asks for the next. A run in a list
    has no `output`: read it with `client.fetch(run)` once it is over. A row that does not fit is left out.
    """
    if not agent_id:
        raise ConfigurationError("runs are listed by their agent", field="parent", remedy="pass the id of the agent")
    path = wire.path("agents", check.non_empty_str("the agent, the parent of its runs,", agent_id), "runs")
    filters = {"status": choice_of("status", status, tuple(STATUS)), "workspace_id": workspace_id}
    response = yield _page_request(path, limit, cursor, **filters)
    return (yield from _listing(response, lambda row, at: _state(row, response, at, reads)))


def detail(raw: Mapping[str, Any]) -> ConduitRun:
    """Return a run's JSON object as `ConduitRun`; raise `ProtocolError` for what does not fit."""
    return wire.structure(raw, ConduitRun, f"run {raw.get('id')}")


def _state(raw: Any, response: Response, at: str, reads: Reading, text: JsonText | None = None) -> Run[ConduitRun]:
    """Return a run; while it is in flight it has no output, so that a list and the run by itself say the same."""
    seen = wire.structure(raw, RunState, response, at)
    status = _status(seen, reads)
    return _run(
        seen,
        status,
        response,
        at,
        text or raw,
        output=None if status.in_flight else raw.get("response"),
        failure=Failure(seen.status, _why(raw.get("error"))) if status is RunStatus.FAILED else None,
        usage=raw.get("token_usage"),
    )


def _run(
    seen: RunState,
    status: RunStatus,
    response: Response,
    at: str,
    raw: JsonText | Mapping[str, Any],
    *,
    output: Json = None,
    failure: Failure | None = None,
    usage: Json,
) -> Run[ConduitRun]:
    if seen.id.startswith(_OTHER_ID):
        raise ProtocolError(
            f"the vendor gives {seen.id!r}, which is the form of a run_id, for the id of a run @ {at}.id", response
        )
    return Run(
        wire.ref(seen.id, seen.agent_id, owned=True, response=response),
        status,
        seen.status,
        output=output,
        failure=failure,
        usage=reading.usage(usage, "input", "output"),
        vendor=NAME,
        raw=raw,
    )


def _status(seen: RunState, reads: Reading) -> RunStatus:
    """Judge a word that no page has: over as soon as the run has an end; that it ended well, only a known word says."""
    return reads.status.get(seen.status) or (RunStatus.RUNNING if seen.completed_at is None else RunStatus.FAILED)


def _why(error: Any) -> str:
    """Return the text of a run's error: a guess for all but null, which is all that the pages show."""
    if isinstance(error, Mapping):
        error = wire.first_text(error, "message", "error") or error
    if error is None or isinstance(error, str):
        return error or ""
    return codec.encode(error).decode()


NeedsHuman: TypeAlias = Callable[[str | None], bool]


def is_escalated(disposition: str | None) -> bool:
    """Tell whether a run of that disposition waits for a person: `variant(needs_human=...)` replaces it."""
    return disposition == ESCALATED


def needs_human(run: Run[ConduitRun], *, by: NeedsHuman = is_escalated) -> bool:
    """Tell whether the agent handed the matter to a person: look for the escalation with this `agent_run_id`."""
    return by(wire.first_text(run.raw, "disposition"))


def timing_group(run: Run[ConduitRun]) -> str:
    """Return the agent."""
    return run.ref.parent


def list_parent(ref: RunRef) -> str:
    """Return the agent: there is no list across agents."""
    return ref.parent


def times(run: Run[ConduitRun]) -> tuple[datetime | None, datetime | None]:
    """Return when a run was accepted and when it ended: what `duration_ms` counts."""
    seen = wire.structure(run.raw, RunState, f"run {run.id}")
    return seen.created_at, seen.completed_at


def created_at(run: Run[ConduitRun]) -> datetime:
    """Return when a run was accepted."""
    return wire.structure(run.raw, RunState, f"run {run.id}").created_at


def handler_names(action: Action) -> Sequence[str]:
    """Return the name as it is; Conduit's runs ask for nothing."""
    return (action.name,)


@frozen
class Listed:
    """What every list needs."""

    has_more: bool
    next_cursor: str | None = None


def _page_request(path: str, limit: int, cursor: str | None, **filters: str | None) -> Request:
    """Ask for one page of a list, of at most 100 items (introduction)."""
    check.integer("limit", limit, 1)
    if limit > 100:
        raise ConfigurationError(f"limit is {limit}; it must be 100 or less. Follow `cursor` for more")
    return Request("GET", path, params=wire.drop_none({**filters, "limit": str(limit), "cursor": cursor}))


def _listing(response: Response, read: Callable[[Any, str], T]) -> Flow[Listing[T]]:
    """Return a page of a list, each row of which is *read* with its path; one that does not fit is left out."""
    raw = wire.read_object(response)
    seen = wire.structure(raw, Listed, response)
    items = yield from reading.rows(response, raw.get("data"), "$.data", read)
    cursor = seen.next_cursor if seen.has_more else None
    return Listing(items, cursor, seen.has_more, len(raw["data"]) - len(items))


def list_of(cls: type[T], path: str, limit: int, cursor: str | None, **filters: str | None) -> Flow[Listing[T]]:
    """Ask for one page of a list of objects of one class, and return it."""
    response = yield _page_request(path, limit, cursor, **filters)
    return (yield from _listing(response, lambda row, at: wire.structure(row, cls, response, at)))


def choice_of(name: str, value: str | None, choices: Sequence[str]) -> str | None:
    """Return *value*, and refuse what is neither None nor one of *choices*."""
    if value is not None and value not in choices:
        raise ConfigurationError(f"{name} is {value!r}; choose one of {', '.join(choices)}, or None")
    return value


def problem(response: Response) -> Problem:
    """Read an error body: `{"error": "text"}`, without a code or a request id (introduction)."""
    body = wire.error_body(response)
    return Problem(message=wire.first_text(body, "error") or wire.body_excerpt(response), detail=body)
