"""What answers mean: runs, pages and errors, in the newest shape of version 2 and in the one before cursors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from attrs import frozen

from agentruns._values import check, codec
from agentruns._values.exchange import Problem, Response
from agentruns._values.generic import Json
from agentruns._values.run import Action, Failure, JsonText, Run, RunRef, RunStatus
from agentruns.dialects import reading, wire
from agentruns.errors import ConfigurationError

from .objects import OrigamiRun, RunDetail, RunSummary

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
STOPPED_EARLY: Final = frozenset({"incomplete", "step_cap_hit"})
CONTINUE: Final = "continue"
NO_SLOT: Final = "CONCURRENT_LIMIT_EXCEEDED"

_WHY: Final[Mapping[str, str]] = {
    "errored": "the run failed, and the vendor does not say why",
    "timed_out": "the run reached the vendor's ceiling of 20 minutes",
    "cancelled": "the run was cancelled; what it had built is kept",
}

# Runs -----------------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class RunState(codec.CamelCase):
    """What every state needs."""

    id: str
    agent_id: str
    status: str
    started_at: datetime
    completed_at: datetime | None = None


@frozen(kw_only=True)
class MovingRun(RunState):
    """What a state in flight tells beside that: how far it is, and what it has said."""

    steps: Json = None
    response: Json = None


@frozen(kw_only=True)
class Words(codec.CamelCase):
    """What the agent said."""

    text: str | None = None


@frozen(kw_only=True)
class Question(codec.CamelCase):
    """What is asked."""

    question: str = ""
    type: str = ""
    suggested_answers: tuple[str, ...] = ()


@frozen(kw_only=True)
class Questions(codec.CamelCase):
    """Everything that is asked."""

    pending_questions: tuple[Question, ...] = ()


def parse_run(response: Response, *, words: Mapping[str, RunStatus] = STATUS) -> Run[RunDetail]:
    """
    Read the run in an answer: the body itself from get-run, `run` in the body elsewhere.

    `Retry-After` paces polls while the run is running; get-run alone is documented to send it, and `wire.poll_after`
    reads it of any answer.
    """
    moving = wire.glance(response, MovingRun)
    if moving is not None and (status := words.get(moving.status, RunStatus.FAILED)).in_flight:
        said = _said(moving.response, response, "$")
        return _run(moving, status, response, moving.steps, said, JsonText(response.body))
    body = wire.read_object(response)
    path = ("run",) if "run" in body and "id" not in body else ()
    raw = wire.read_object(response, *path)
    return as_run(response, raw, ".".join(("$", *path)), JsonText(response.body, path), words)


def as_run(
    response: Response,
    raw: Mapping[str, Any],
    path: str,
    text: JsonText | None = None,
    words: Mapping[str, RunStatus] = STATUS,
) -> Run[RunDetail]:
    """
    Return a run, or the summary of one that stands in a list, in common words.

    Whatever is not `running` is over (get-run page), so an unknown word is the end of a run that we cannot call a good
    one. What the agent said of a run that failed is its output, never the reason.
    """
    seen = wire.structure(raw, RunState, response, path)
    status = words.get(seen.status, RunStatus.FAILED)
    said = _said(raw.get("response"), response, path)
    why = _WHY.get(seen.status, f"the run is over with a status that is not known here: {seen.status}")
    return _run(
        seen,
        status,
        response,
        raw.get("steps"),
        said,
        text or raw,
        actions=_actions(raw, seen.status, said, response, path) if status is RunStatus.REQUIRES_ACTION else (),
        failure=Failure(seen.status, why) if status is RunStatus.FAILED else None,
    )


def _run(
    seen: RunState,
    status: RunStatus,
    response: Response,
    steps: Json,
    said: str | None,
    raw: JsonText | Mapping[str, Any],
    *,
    actions: tuple[Action, ...] = (),
    failure: Failure | None = None,
) -> Run[RunDetail]:
    done = wire.mapping(steps)
    return Run(
        wire.ref(seen.id, seen.agent_id, owned=True, response=response),
        status,
        seen.status,
        actions,
        said,
        failure,
        progress=reading.progress(done.get("completed"), done.get("max")),
        vendor=NAME,
        raw=raw,
    )


def _said(answer: Json, response: Response, path: str) -> str | None:
    return None if answer is None else wire.structure(answer, Words, response, f"{path}.response").text


def detail(raw: Mapping[str, Any]) -> RunDetail:
    """Return a run's JSON object as `OrigamiRun`, or as `RunSummary` if it stood in a list."""
    if is_whole(raw):
        return wire.structure(raw, OrigamiRun, f"run {raw.get('id')}")
    return wire.structure(raw, RunSummary, f"run {raw.get('id')}")


def is_whole(raw: Mapping[str, Any]) -> bool:
    """Tell a run from the summary of one, which a list has: it shows nothing of what came of the run."""
    return not raw.keys().isdisjoint(("request", "response", "todo"))


def _actions(raw: Mapping[str, Any], word: str, said: str | None, response: Response, path: str) -> tuple[Action, ...]:
    """
    Return what a run waits for: an answer to each question, or the word to go on.

    A summary does not show its questions: read the run by itself. Where `needs_input` comes without any, which is not
    documented, the agent's last words are the question: any text answers a run (send-run page). Another word, which a
    variant reads as a pause, is that of questions where there are some, and else waits for the word to go on.
    """
    go_on = (Action(CONTINUE, CONTINUE, {"status": word, "text": said}),)
    if word in STOPPED_EARLY:
        return go_on
    if not is_whole(raw):
        return ()
    todo = raw.get("todo")
    asked = () if todo is None else wire.structure(todo, Questions, response, f"{path}.todo").pending_questions
    if not asked and word != QUESTIONS:
        return go_on
    return tuple(
        Action(
            str(position),
            "ask-questions",
            {"question": each.question, "type": each.type, "suggestedAnswers": list(each.suggested_answers)},
        )
        for position, each in enumerate(asked or (Question(question=said or ""),))
    )


def timing_group(run: Run[RunDetail]) -> str:
    """Return the model: most agents have too few runs to learn from."""
    return wire.first_text(run.raw, "model") or ""


def list_parent(ref: RunRef) -> str:
    """Return the agent: there is no list across agents."""
    return ref.parent


def times(run: Run[RunDetail]) -> tuple[datetime | None, datetime | None]:
    """Return when a run began and ended (run-object)."""
    seen = wire.structure(run.raw, RunState, f"run {run.id}")
    return seen.started_at, seen.completed_at


def started_at(run: Run[RunDetail]) -> datetime:
    """Return when a run began."""
    return wire.structure(run.raw, RunState, f"run {run.id}").started_at


def handler_names(action: Action) -> Sequence[str]:
    """Return the name, whole."""
    return (action.name,)


# Pages ----------------------------------------------------------------------------------------------------------------


@frozen
class Pagination(codec.CamelCase):
    """How lists went on before there were cursors: pages are counted from 0."""

    page: int
    has_more: bool = False


@frozen(kw_only=True)
class Listed(codec.CamelCase):
    """How a list goes on: every list has one of the two."""

    next_cursor: str | None = None
    pagination: Pagination | None = None

    @property
    def cursor(self) -> str | None:
        """Return the vendor's cursor, or where there are none, the number of the next page in words of ours."""
        if self.pagination is not None and self.pagination.has_more:
            return f"page={self.pagination.page + 1}"
        return self.next_cursor


def listed(response: Response, older: str = "items") -> tuple[Any, str, str | None]:
    """Return the rows of a list, which stand under `items`, or *older* in an older API, their path, and the cursor."""
    body = wire.read_object(response)
    key = older if body.get("items") is None and older in body else "items"
    return body.get(key), f"$.{key}", wire.structure(body, Listed, response).cursor


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

    A refusal because of a run in progress names that run; what other fields say, such as which do not fit and how many
    credits are missing, is in the text of the error. The link that a human can act on stands as `docs_url`.
    """
    body = wire.error_body(response)
    handoff = wire.mapping(body.get("handoff"))
    said = wire.first_text(body, "error", "message") or wire.body_excerpt(response)
    busy = current_run(body)
    named = f" (run {busy}; `busy_wait` of `Prompt` waits for its end)" if busy else ""
    return Problem(
        message=said + named,
        code=wire.first_text(body, "code"),
        docs_url=wire.first_text({**handoff, "topUpUrl": body.get("topUpUrl")}, "url", "topUpUrl"),
        request_id=response.headers.get("x-request-id"),
        detail=body,
        particulars=tuple(each for each in _particulars(body) if each not in said),
        rate_limited=response.status == 429 and body.get("code") != NO_SLOT and not is_replay(response),
    )


def is_replay(response: Response) -> bool:
    """Tell an answer that the vendor gave before and repeats for the same key (openapi-v2.yaml, Idempotency)."""
    return response.headers.get("idempotency-replay", "").strip().lower() == "true"


def _particulars(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an error says beyond its text; pages put such fields at the top, and some below `details`."""
    places = (body, wire.mapping(body.get("details")))
    for issue in (each for place in places for each in wire.objects(place.get("issues"))):
        yield ": ".join(filter(None, (_dotted(issue.get("path")), wire.first_text(issue, "message"))))
    for name in ("message", "reason", "hint"):
        yield from filter(None, [next(filter(None, (wire.first_text(place, name) for place in places)), None)])
    for name, told in (("creditsRequired", "credits required"), ("creditsAvailable", "available"), ("limit", "limit")):
        yield from (f"{told}: {place[name]}" for place in places if isinstance(place.get(name), int | float))
    budgets = body.get("blockedByBudgets")
    for budget in budgets if isinstance(budgets, list) else []:
        named = budget if isinstance(budget, str) else wire.first_text(wire.mapping(budget), "name", "id")
        yield f"blocked by the budget {named}" if named else "blocked by a budget"


def _dotted(path: Any) -> str:
    """Return the path of a field: some validators give a list of its parts."""
    return path if isinstance(path, str) else ".".join(map(str, path)) if isinstance(path, list) else ""


def current_run(body: Mapping[str, Any]) -> str | None:
    """Return the id of the run that keeps an agent busy; some pages put such fields below `details`."""
    for place in (body, body.get("details")):
        busy = place.get("currentRun") if isinstance(place, Mapping) else None
        if isinstance(busy, Mapping):
            named = wire.first_text(busy, "id")
            return named if named is None or wire.is_name(named) else None
    return None
