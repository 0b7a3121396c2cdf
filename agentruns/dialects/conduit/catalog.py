"""
What stands around runs: agents, escalations, messages, members.

Each function is a flow for `client.perform(...)`. A list gives one page, of 1 to 100 items (*limit*); while there is
more, its `cursor` asks for the next. All raise `AuthenticationError` for a token that is wrong or may not do this,
`NotFoundError` for an unknown id, `InvalidRequestError` for what the vendor refuses, `ProtocolError` for an answer that
is not as documented, and `ConfigurationError`, before any request, for what the vendor cannot take.
"""

from __future__ import annotations

from typing import Final

from agentruns._values import check
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns.dialects import wire

from .objects import Agent, Escalation, Listing, Message, User, Workspace
from .reading import choice_of, list_of

ESCALATION_STATUS: Final = ("pending", "reviewed", "resolved", "dismissed")


def list_agents(workspace_id: str, *, limit: int = 20, cursor: str | None = None) -> Flow[Listing[Agent]]:
    """Return one page of the agents of a workspace, with their triggers (agents/list)."""
    return (
        yield from list_of(
            Agent, wire.path("agents"), limit, cursor, workspace_id=check.non_empty_str("workspace_id", workspace_id)
        )
    )


def get_agent(id: str, *, workspace_id: str | None = None) -> Flow[Agent]:  # noqa: A002
    """Return an agent with its triggers (agents/get)."""
    params = wire.drop_none({"workspace_id": workspace_id})
    return wire.read((yield Request("GET", wire.path("agents", id), params=params)), Agent, "data")


def list_escalations(
    workspace_id: str, *, status: str | None = None, limit: int = 20, cursor: str | None = None
) -> Flow[Listing[Escalation]]:
    """
    Return one page of what waits or waited for a person, or of one *status* of `ESCALATION_STATUS` (escalations/list).

    There is no filter by run or agent: compare `agent_run_id` and `agent_id`.
    """
    filters = {
        "workspace_id": check.non_empty_str("workspace_id", workspace_id),
        "status": choice_of("status", status, ESCALATION_STATUS),
    }
    return (yield from list_of(Escalation, wire.path("escalations"), limit, cursor, **filters))


def assign_escalation(id: str, *, assignee_id: str) -> Flow[Escalation]:  # noqa: A002
    """
    Give an escalation to a member of its workspace, and return it (escalations/assign).

    *assignee_id* is the `id` of one of `list_users`. No field of the escalation names the member afterwards.
    """
    body = {"assignee_id": check.non_empty_str("assignee_id", assignee_id)}
    # Assigning to the same member again changes nothing: safe to repeat.
    request = Request("POST", wire.path("escalations", id, "assign"), json=body, idempotent=True)
    return wire.read((yield request), Escalation, "data")


def resolve_escalation(id: str, *, status: str | None = None) -> Flow[Escalation]:  # noqa: A002
    """
    Settle an escalation as `resolved`, or as the *status* given, and return it (escalations/resolve).

    A status is one of `ESCALATION_STATUS` but the first. The run that raised it is not touched.
    """
    body = wire.drop_none({"status": choice_of("status", status, ESCALATION_STATUS[1:])})
    # Settling in the same way again changes nothing: safe to repeat.
    request = Request("POST", wire.path("escalations", id, "resolve"), json=body, idempotent=True)
    return wire.read((yield request), Escalation, "data")


def send_message(conversation_id: str, *, body: str) -> Flow[Message]:
    """
    Reply in a conversation, and return the message; the customer gets it, so it is never sent twice.

    The path is a guess: the page could not be read, but tickets/send-message and conversations/messages agree on it.
    """
    path = wire.path("conversations", conversation_id, "messages")
    return wire.read((yield Request("POST", path, json={"body": check.non_empty_str("body", body)})), Message, "data")


def list_messages(
    conversation_id: str, *, order: str | None = None, limit: int = 20, cursor: str | None = None
) -> Flow[Listing[Message]]:
    """Return one page of the messages of a conversation, in *order* `asc` or `desc` (conversations/messages)."""
    path = wire.path("conversations", conversation_id, "messages")
    return (yield from list_of(Message, path, limit, cursor, order=choice_of("order", order, ("asc", "desc"))))


def list_users(workspace_id: str, *, limit: int = 20, cursor: str | None = None) -> Flow[Listing[User]]:
    """Return one page of the members of a workspace (workspaces/list-users)."""
    return (yield from list_of(User, wire.path("workspaces", workspace_id, "users"), limit, cursor))


def list_workspaces(*, limit: int = 20, cursor: str | None = None) -> Flow[Listing[Workspace]]:
    """Return one page of the workspaces that the token reaches (introduction)."""
    return (yield from list_of(Workspace, wire.path("workspaces"), limit, cursor))
