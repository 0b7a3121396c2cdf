"""What answers mean: runs, pages and errors, in the newest shape of version 2 and in the one before cursors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from attrs import frozen

from agentruns._values import check, codec
from agentruns._values.exchange import Problem, Response
from agentruns._values.run import Action, Failure, JsonText, Progress, Run, RunRef, RunStatus
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError

from .objects import OrigamiRun, PendingQuestion, RunDetail, RunSummary

NAME: Final = "origami"

STATUS: Final[Mapping[str, RunStatus]] = {
    "running": RunStatus.RUNNING,
    "completed": RunStatus.COMPLETED,
    "needs_input": RunStatus.REQUIRES_ACTION,
    "incomplete": RunStatus.REQUIRES_ACTION,
    "step_cap_hit": RunStatus.REQUIRES_ACTION,
    "errored": RunStatus.FAILED,
    "timed_out": RunStatus.FAILED,
    "cancelled": RunStatus.FAILED,
}

QUESTIONS: Final = "needs_input"
CONTINUE: Final = "continue"

_WHY: Final[Mapping[str, str]] = {
    "errored": "the run failed, and the vendor does not say why",
    "timed_out": "the run reached the vendor's ceiling of 20 minutes",
    "cancelled": "the run was cancelled; what it had built is kept",
}

# Runs -----------------------------------------------------------------------------------------------------------------


def parse_run(response: Response) -> Run[RunDetail]:
    """
    Read the run in an answer: the body itself from get-run, `run` in the body elsewhere.

    `Retry-After` paces polls while the run is running; get-run alone is documented to send it.
    """
    body = wire.read_object(response)
    path = ("run",) if "run" in body and "id" not in body else ()
    seen = wire.read(response, OrigamiRun, *path)
    return as_run(seen, JsonText(response.body, path), wire.retry_after(response.headers))


def as_run(seen: RunSummary, raw: Mapping[str, Any] | JsonText, wait: float | None = None) -> Run[RunDetail]:
    """
    Return a run, or the summary of one, in common words.

    Whatever is not `running` is over (get-run page), so an unknown word is the end of a run that we cannot call a good
    one.
    """
    status = STATUS.get(seen.status, RunStatus.FAILED)
    text = seen.response.text if isinstance(seen, OrigamiRun) and seen.response else None
    why = text or _WHY.get(seen.status, f"the run is over with a status that is not known here: {seen.status}")
    return Run(
        wire.ref(seen.id, seen.agent_id, owned=True),
        status,
        seen.status,
        actions=_actions(seen, text) if status is RunStatus.REQUIRES_ACTION else (),
        output=text,
        failure=Failure(seen.status, why) if status is RunStatus.FAILED else None,
        progress=Progress(seen.steps.completed, seen.steps.max),
        poll_after=wait if status.in_flight else None,
        vendor=NAME,
        raw=raw,
    )


def detail(raw: Mapping[str, Any]) -> RunDetail:
    """Return a run's JSON object as `OrigamiRun`, or as `RunSummary` if it stood in a list."""
    return codec.structure(raw, OrigamiRun if "request" in raw else RunSummary)


def _actions(seen: RunSummary, text: str | None) -> tuple[Action, ...]:
    """
    Return what a run waits for: an answer to each question, or the word to go on.

    A summary does not show its questions: read the run by itself. Where `needs_input` comes without any, which is not
    documented, the agent's last words are the question: any text answers a run (send-run page).
    """
    if seen.status != QUESTIONS:
        return (Action(CONTINUE, CONTINUE, {"status": seen.status, "text": text}),)
    if not isinstance(seen, OrigamiRun):
        return ()
    asked = seen.todo.pending_questions or (PendingQuestion("", text or "", (), ""),)
    return tuple(
        Action(
            str(position),
            "ask-questions",
            {"question": each.question, "type": each.type, "suggestedAnswers": list(each.suggested_answers)},
        )
        for position, each in enumerate(asked)
    )


def timing_group(run: Run[RunDetail]) -> str:
    """Return the model: most agents have too few runs to learn from."""
    return wire.first_text(run.raw, "model") or ""


def list_parent(ref: RunRef) -> str:
    """Return the agent: there is no list across agents."""
    return ref.parent


def times(run: Run[RunDetail]) -> tuple[datetime | None, datetime | None]:
    """Return when a run began and ended (run-object)."""
    return run.detail.started_at, run.detail.completed_at


def handler_names(action: Action) -> Sequence[str]:
    """Return the name, whole."""
    return (action.name,)


# Pages ----------------------------------------------------------------------------------------------------------------


@frozen
class Pagination(codec.CamelCase):
    """How lists went on before there were cursors: pages are counted from 0."""

    page: int
    has_more: bool


@frozen(kw_only=True)
class Listed(codec.CamelCase):
    """What every list has; the class of each list adds its items, under the name of either generation."""

    next_cursor: str | None = None
    pagination: Pagination | None = None
    total: int | None = None

    @property
    def cursor(self) -> str | None:
        """Return the vendor's cursor, or where there are none, the number of the next page in words of ours."""
        if self.pagination is not None and self.pagination.has_more:
            return f"page={self.pagination.page + 1}"
        return self.next_cursor


def paging(cursor: str | None, limit: int, most: int = 100) -> dict[str, str]:
    """Return the parameters of one page; an API from before cursors does not know `limit` and gives 50."""
    check.integer("limit", limit, 1)
    if limit > most:
        raise ConfigurationError(f"limit is {limit}; a page has {most} entries at most")
    if cursor is None:
        return {"limit": str(limit)}
    numbered = re.fullmatch(r"page=(\d+)", cursor)
    return {"limit": str(limit), **({"page": numbered[1]} if numbered else {"cursor": cursor})}


# Errors ---------------------------------------------------------------------------------------------------------------


def problem(response: Response) -> Problem:
    """
    Read an error body: `{error, code, details?, handoff?}`, some codes with fields of their own beside these.

    A refusal because of a run in progress names that run. The link that a human can act on stands as `docs_url`.
    """
    body = wire.error_body(response)
    busy = current_run(body)
    named = f" (run {busy}; `busy_wait` of `Prompt` waits for its end)" if busy else ""
    handoff = body.get("handoff")
    links = {**(handoff if isinstance(handoff, Mapping) else {}), "topUpUrl": body.get("topUpUrl")}
    return Problem(
        message=(wire.first_text(body, "error", "message") or wire.body_excerpt(response)) + named,
        code=wire.first_text(body, "code"),
        docs_url=wire.first_text(links, "url", "topUpUrl"),
        request_id=response.headers.get("x-request-id"),
        detail=body,
    )


def current_run(body: Mapping[str, Any]) -> str | None:
    """Return the id of the run that keeps an agent busy; some pages put such fields below `details`."""
    for place in (body, body.get("details")):
        busy = place.get("currentRun") if isinstance(place, Mapping) else None
        if isinstance(busy, Mapping):
            named = wire.first_text(busy, "id")
            return named if named is None or wire.is_name(named) else None
    return None
