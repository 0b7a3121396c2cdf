"""Reading runs, and what all reading shares: pages of lists, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from attrs import frozen

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.run import Action, Failure, JsonText, Page, Run, RunRef, RunStatus, Usage
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError, ProtocolError

from .objects import ConduitRun, Listing

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


def fetch(ref: RunRef, params: Mapping[str, str]) -> Flow[Run[ConduitRun]]:
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
    return parse_run((yield Request("GET", wire.path("agents", ref.parent, "runs", ref.id), params=params)))


def parse_run(response: Response) -> Run[ConduitRun]:
    """Return the run in the answer to `fetch`."""
    return _run(JsonText(response.body, ("data",)), wire.read(response, ConduitRun, "data"))


def page(parent: str, cursor: str | None) -> Flow[Page[ConduitRun]]:
    """Return a page of an agent's runs, newest first and without their replies (agents/list-runs)."""
    listed = yield from list_runs(parent, limit=100, cursor=cursor)
    return Page(listed.items, listed.cursor)


def list_runs(
    agent_id: str,
    *,
    status: str | None = None,
    workspace_id: str | None = None,
    limit: int = 20,
    cursor: str | None = None,
) -> Flow[Listing[Run[ConduitRun]]]:
    """
    List an agent's runs, newest first, or those of one *status* (agents/list-runs).

    A run in a list has no `output`: read it with `client.fetch(run)` once it is over.
    """
    if not agent_id:
        raise ConfigurationError("runs are listed by their agent", field="parent", remedy="pass the id of the agent")
    path = wire.path("agents", check.non_empty_str("the agent, the parent of its runs,", agent_id), "runs")
    filters = {"status": choice_of("status", status, tuple(STATUS)), "workspace_id": workspace_id}
    response, seen = yield from page_of(ConduitRun, path, limit, cursor, **filters)
    runs = zip(wire.read_object(response)["data"], seen.items, strict=True)
    return Listing(tuple(_run(raw, run) for raw, run in runs), seen.cursor, seen.has_more)


def detail(raw: Mapping[str, Any]) -> ConduitRun:
    """Return a run's JSON object as `ConduitRun`."""
    return codec.structure(raw, ConduitRun)


def _run(raw: Mapping[str, Any] | JsonText, seen: ConduitRun) -> Run[ConduitRun]:
    """Return a run; while it is in flight it has no output, so that a list and the run by itself say the same."""
    status = STATUS.get(seen.status) or _unknown_status(seen)
    if seen.id.startswith(_OTHER_ID):
        raise ProtocolError(f"the vendor gives {seen.id!r}, which is the form of a run_id, for the id of a run @ $.id")
    return Run(
        wire.ref(seen.id, seen.agent_id, owned=True),
        status,
        seen.status,
        output=None if status.in_flight else seen.response,
        failure=Failure(seen.status, _why(seen.error)) if status is RunStatus.FAILED else None,
        usage=Usage(seen.token_usage.input or 0, seen.token_usage.output or 0) if seen.token_usage else None,
        vendor=NAME,
        raw=raw,
    )


def _unknown_status(seen: ConduitRun) -> RunStatus:
    """Judge a word that no page has: over as soon as the run has an end; that it ended well, only a known word says."""
    return RunStatus.RUNNING if seen.completed_at is None else RunStatus.FAILED


def _why(error: Any) -> str:
    """Return the text of a run's error: a guess for all but null, which is all that the pages show."""
    if isinstance(error, Mapping):
        error = wire.first_text(error, "message", "error") or error
    if error is None or isinstance(error, str):
        return error or ""
    return codec.encode(error).decode()


def timing_group(run: Run[ConduitRun]) -> str:
    """Return the agent."""
    return run.ref.parent


def list_parent(ref: RunRef) -> str:
    """Return the agent: there is no list across agents."""
    return ref.parent


def times(run: Run[ConduitRun]) -> tuple[datetime | None, datetime | None]:
    """Return when a run was accepted and when it ended: what `duration_ms` counts."""
    return run.detail.created_at, run.detail.completed_at


def handler_names(action: Action) -> Sequence[str]:
    """Return the name as it is; Conduit's runs ask for nothing."""
    return (action.name,)


@frozen
class _Many(Generic[T]):
    data: tuple[T, ...]
    has_more: bool
    next_cursor: str | None = None


def page_of(
    cls: type[T], path: str, limit: int, cursor: str | None, **filters: str | None
) -> Flow[tuple[Response, Listing[T]]]:
    """Ask for one page of a list, of at most 100 items (introduction)."""
    check.integer("limit", limit, 1)
    if limit > 100:
        raise ConfigurationError(f"limit is {limit}; it must be 100 or less. Follow `cursor` for more")
    response = yield Request("GET", path, params=wire.drop_none({**filters, "limit": str(limit), "cursor": cursor}))
    seen = wire.read(response, _Many[cls])  # type: ignore[valid-type]
    return response, Listing(seen.data, seen.next_cursor if seen.has_more else None, seen.has_more)


def list_of(cls: type[T], path: str, limit: int, cursor: str | None, **filters: str | None) -> Flow[Listing[T]]:
    """Ask for one page of a list, and return it."""
    return (yield from page_of(cls, path, limit, cursor, **filters))[1]


def choice_of(name: str, value: str | None, choices: Sequence[str]) -> str | None:
    """Return *value*, and refuse what is neither None nor one of *choices*."""
    if value is not None and value not in choices:
        raise ConfigurationError(f"{name} is {value!r}; choose one of {', '.join(choices)}, or None")
    return value


def problem(response: Response) -> Problem:
    """Read an error body: `{"error": "text"}`, without a code or a request id (introduction)."""
    body = wire.error_body(response)
    return Problem(message=wire.first_text(body, "error") or wire.body_excerpt(response), detail=body)
