"""
What stands around runs: agents, threads, feedback.

Each function is a flow for `client.perform(...)`. All raise `AuthenticationError` for a wrong key, `ProtocolError` for
an answer that is not as documented, and `ConfigurationError`, before any request, for what the vendor cannot take.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from attrs import frozen

from agentruns._values import check
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request, Response
from agentruns.dialects import reading, wire
from agentruns.errors import ConfigurationError

from .objects import Agent, AgentPage, Feedback, Thread, ThreadPage
from .reading import MOST_PER_PAGE, Listed

_LONGEST_COMMENT: Final = 5000  # submit-agent-run-feedback


def list_agents() -> Flow[AgentPage]:
    """Return all agents that this account may use; this list has no pages."""
    response = yield Request("GET", wire.path("agents"))
    data = wire.read_object(response).get("data") or []
    return AgentPage((yield from reading.rows_of(response, data, "$.data", Agent)))


def get_agent(id: str) -> Flow[Agent]:  # noqa: A002
    """Return an agent by its *id*, which is not its type; raise `NotFoundError` where there is none."""
    return wire.read((yield Request("GET", wire.path("agents", id))), Agent)


def create_thread(
    type: str,  # noqa: A002
    *,
    business_id: str | None = None,
    context_type: str | None = None,
    context_id: str | None = None,
) -> Flow[Thread]:
    """
    Create an empty thread for runs of the agent *type*, and return it; nothing starts (create-agent-thread).

    It is about a business: give its *business_id*, or *context_type* together with *context_id*. Raise `NotFoundError`
    for an unknown type.
    """
    return wire.read((yield from _post_thread(type, business_id, context_type, context_id)), Thread)


@frozen
class OpenedThread:
    """A new thread, as far as a start needs it."""

    id: str
    created_at: datetime


def open_thread(
    type: str,  # noqa: A002
    *,
    business_id: str | None = None,
    context_type: str | None = None,
    context_id: str | None = None,
) -> Flow[OpenedThread]:
    """Create a thread as `create_thread` does, whatever else the vendor says of it."""
    return wire.read((yield from _post_thread(type, business_id, context_type, context_id)), OpenedThread)


def _post_thread(
    type: str,  # noqa: A002
    business_id: str | None,
    context_type: str | None,
    context_id: str | None,
) -> Flow[Response]:
    check.non_empty_str("type", type)
    body = {"type": type, **context_of(business_id, context_type, context_id)}
    # Creating twice leaves an empty thread behind, which runs nothing: safe to repeat.
    return (yield Request("POST", wire.path("threads"), json=body, idempotent=True))


def get_thread(id: str) -> Flow[Thread]:  # noqa: A002
    """Return a thread; raise `NotFoundError` where there is none (get-agent-thread)."""
    return wire.read((yield Request("GET", wire.path("threads", id))), Thread)


def list_threads(*, page: int = 1, per_page: int = MOST_PER_PAGE, business_id: str | None = None) -> Flow[ThreadPage]:
    """
    Return one page of threads, those of a business if *business_id* names one (list-agent-threads).

    Pages start at 1 and have at most 100 threads; while `has_more` is set, the next *page* has others.
    """
    check.integer("page", page, 1)
    check.integer("per_page", per_page, 1)
    if per_page > MOST_PER_PAGE:
        raise ConfigurationError(f"per_page is {per_page}; a page has {MOST_PER_PAGE} at most")
    params = wire.drop_none({"page": str(page), "per_page": str(per_page), "business_id": business_id})
    response = yield Request("GET", wire.path("threads"), params=params)
    raw, seen = wire.read_object(response), wire.read(response, Listed)
    data = raw.get("data") or []
    items = yield from reading.rows_of(response, data, "$.data", Thread)
    return ThreadPage(items, seen.has_more and bool(data), reading.count(raw.get("total_count")))


def give_feedback(run_id: str, *, rating: str, artifact_id: str, comment: str | None = None) -> Flow[Feedback]:
    """
    Rate an artifact of a run as `POSITIVE` or `NEGATIVE`, and return the feedback (submit-agent-run-feedback).

    A *comment* has at most 5000 characters. A later rating of the same artifact supersedes yours; so does one that was
    sent again because its answer was lost. Raise `NotFoundError` for an unknown run, `AuthenticationError` for an
    account without the feature `operator_feedback`, `InvalidRequestError` for an artifact that the run does not have.
    """
    if rating not in {"POSITIVE", "NEGATIVE"}:
        raise ConfigurationError(f"rating is {rating!r}; it must be 'POSITIVE' or 'NEGATIVE'")
    check.non_empty_str("artifact_id", artifact_id)
    if comment is not None and len(comment.strip()) > _LONGEST_COMMENT:
        raise ConfigurationError(
            f"comment has {len(comment.strip())} characters; shorten it to {_LONGEST_COMMENT} or fewer"
        )
    body = wire.drop_none({"rating": rating, "artifact_id": artifact_id, "comment": comment})
    path = wire.path("runs", run_id, "feedback")
    return wire.read((yield Request("POST", path, json=body, idempotent=True)), Feedback)


def context_of(
    business_id: str | None, context_type: str | None, context_id: str | None, *, threaded: bool = False
) -> Mapping[str, str]:
    """Return the fields that say what a run is about, if they do: one way of two, or none for a thread's own."""
    given = wire.drop_none({"business_id": business_id, "context_type": context_type, "context_id": context_id})
    for name, value in given.items():
        check.non_empty_str(name, value)
    if set(given) not in ({"business_id"}, {"context_type", "context_id"}, set()) or not (given or threaded):
        raise ConfigurationError(
            f"the context is {given}; give either business_id, or both context_type and context_id"
            + (", or neither" if threaded else " (a run may name a thread_id instead)")
        )
    return given
