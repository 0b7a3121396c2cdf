"""
What stands around runs: agents, escalations, messages, members.

Each function is a flow for `client.perform(...)`. A list gives one page, of 1 to 100 items (*limit*); while there is
more, its `cursor` asks for the next. All raise `AuthenticationError` for a token that is wrong or may not do this,
`NotFoundError` for an unknown id, `InvalidRequestError` for what the vendor refuses, `ProtocolError` for an answer that
is not as documented, and `ConfigurationError`, before any request, for what the vendor cannot take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict, Unpack

from attrs import evolve

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns.dialects import guesses, wire
from agentruns.errors import APIError, ConfigurationError, NotFoundError

from .objects import Agent, Conversation, Escalation, Listing, Message, User, Workspace
from .reading import choice_of, list_of

ESCALATION_STATUS: Final = ("pending", "reviewed", "resolved", "dismissed")
OPERATION_MODES: Final = ("autopilot", "copilot", "inactive")


class AgentFields(TypedDict, total=False):
    """What can be set of an agent besides its name (agents/create, agents/update)."""

    description: str
    instructions: str
    guardrails: Sequence[Mapping[str, Any]]
    operation_mode: str
    custom_response_delay_ms: float
    auto_mark_as_done: bool
    response_language: str
    responseflow: bool
    output_schema: Sequence[Mapping[str, Any]]
    skill_ids: Sequence[str]
    enabled: bool
    triggers: Sequence[Mapping[str, Any]]


def list_agents(workspace_id: str, *, limit: int = 20, cursor: str | None = None) -> Flow[Listing[Agent]]:
    """Return one page of the agents of a workspace, with their triggers (agents/list)."""
    return (
        yield from list_of(
            Agent, wire.path("agents"), limit, cursor, workspace_id=check.non_empty_str("workspace_id", workspace_id)
        )
    )


def get_agent(id: str, *, workspace_id: str | None = None) -> Flow[Agent]:  # noqa: A002
    """Return an agent with its triggers (agents/get)."""
    params = _workspace(workspace_id)
    return wire.read((yield Request("GET", wire.path("agents", id), params=params)), Agent, "data")


def create_agent(workspace_id: str, name: str, **fields: Unpack[AgentFields]) -> Flow[Agent]:
    """
    Create an agent, with its triggers if *fields* have some, and return it (agents/create).

    What is left out is as Conduit has it by default. Sending it twice makes two agents, so it is never sent twice.
    """
    check.non_empty_str("workspace_id", workspace_id)
    body = {"workspace_id": workspace_id, "name": check.non_empty_str("name", name), **_fields(fields)}
    return wire.read((yield Request("POST", wire.path("agents"), json=body)), Agent, "data")


def update_agent(
    id: str,  # noqa: A002
    *,
    workspace_id: str | None = None,
    name: str | None = None,
    **fields: Unpack[AgentFields],
) -> Flow[Agent]:
    """
    Change the fields of an agent that are given, and return it (agents/update).

    `skill_ids` and `triggers` replace all that there were: read the agent, change, write. No page says whether triggers
    keep their ids, so read them again; nor is there a version, so the last who writes wins.
    """
    body = {**({} if name is None else {"name": check.non_empty_str("name", name)}), **_fields(fields)}
    if not body:
        raise ConfigurationError("update_agent changes nothing; pass at least one field of the agent")
    request = Request(
        "PATCH",
        wire.path("agents", id),
        params=_workspace(workspace_id),
        json=body,
        idempotent="triggers" not in body and "guardrails" not in body,  # those may be made anew each time
    )
    return wire.read((yield request), Agent, "data")


def delete_agent(id: str, *, workspace_id: str | None = None) -> Flow[None]:  # noqa: A002
    """Delete an agent, and take it from its triggers (agents/delete); its runs are not found any more then."""
    path, params = wire.path("agents", id), _workspace(workspace_id)
    try:
        yield Request("DELETE", path, params=params, idempotent=True)
    except NotFoundError as error:
        if not error.after_doubt:  # else it is our own first try, whose answer was lost
            raise


def _fields(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    unknown = sorted(set(fields) - set(AgentFields.__annotations__))
    if unknown:
        raise ConfigurationError(
            f"an agent has no field {', '.join(unknown)}; it has {', '.join(AgentFields.__annotations__)}"
        )
    choice_of("operation_mode", fields.get("operation_mode"), OPERATION_MODES)
    plain: Mapping[str, Any] = codec.to_jsonable(fields, "the fields of an agent")
    return plain


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


def assign_escalation(id: str, *, assignee_id: str, workspace_id: str | None = None) -> Flow[Escalation]:  # noqa: A002
    """
    Give an escalation to a member of its workspace, and return it (escalations/assign).

    *assignee_id* is the `id` of one of `list_users`. No field of the escalation names the member afterwards.
    """
    body = {"assignee_id": check.non_empty_str("assignee_id", assignee_id)}
    # Assigning to the same member again changes nothing: safe to repeat.
    path, params = wire.path("escalations", id, "assign"), _workspace(workspace_id)
    request = Request("POST", path, params=params, json=body, idempotent=True)
    return wire.read((yield request), Escalation, "data")


def resolve_escalation(
    id: str,  # noqa: A002
    *,
    status: str | None = None,
    workspace_id: str | None = None,
) -> Flow[Escalation]:
    """
    Settle an escalation as `resolved`, or as the *status* given, and return it (escalations/resolve).

    A status is one of `ESCALATION_STATUS` but the first. The run that raised it is not touched.
    """
    body = wire.drop_none({"status": choice_of("status", status, ESCALATION_STATUS[1:])})
    # Settling in the same way again changes nothing: safe to repeat.
    path, params = wire.path("escalations", id, "resolve"), _workspace(workspace_id)
    request = Request("POST", path, params=params, json=body, idempotent=True)
    return wire.read((yield request), Escalation, "data")


MESSAGE_PATH: Final = "/conversations/{id}/messages"
"""Where a reply is posted: the page shows no path, but conversations/messages and tickets/send-message agree on it."""


def send_message(
    conversation_id: str, *, body: str, workspace_id: str | None = None, path: str = MESSAGE_PATH
) -> Flow[Message]:
    """
    Reply in a conversation, and return the message; the customer gets it, so it is never sent twice.

    It is "accepted for delivery" then (conversations/send-message). The *path* is a guess, which
    `conduit.variant(message_path=...)` replaces.
    """
    segment = wire.path(conversation_id)[1:]
    try:
        return (yield from _sent(path.replace("{id}", segment), body, workspace_id))
    except APIError as error:
        if error.status in {404, 405}:
            guesses.refused(error, "the path of a reply", path, "`conduit.variant(message_path=...)`")
        raise


def send_ticket_message(ticket_id: str, *, body: str, workspace_id: str | None = None) -> Flow[Message]:
    """Reply on a ticket, as after an escalation, and return the message (tickets/send-message); never sent twice."""
    return (yield from _sent(wire.path("tickets", ticket_id, "messages"), body, workspace_id))


def send_contact_message(contact_id: str, *, body: str, workspace_id: str | None = None) -> Flow[Message]:
    """Write to a contact, and return the message (contacts/send-message); never sent twice."""
    return (yield from _sent(wire.path("contacts", contact_id, "messages"), body, workspace_id))


def _sent(path: str, body: str, workspace_id: str | None) -> Flow[Message]:
    request = Request("POST", path, params=_workspace(workspace_id), json={"body": check.non_empty_str("body", body)})
    return wire.read((yield request), Message, "data")


def _workspace(workspace_id: str | None) -> Mapping[str, str]:
    """Return the parameters that name a workspace: without it Conduit finds that of the id by itself."""
    check.text_or_none("workspace_id", workspace_id)
    return wire.drop_none({"workspace_id": workspace_id})


def get_conversation(id: str, *, workspace_id: str | None = None) -> Flow[Conversation]:  # noqa: A002
    """Return what a conversation is about and how it stands, without its messages (conversations/get)."""
    path = wire.path("conversations", id)
    raw = wire.read_object((response := (yield Request("GET", path, params=_workspace(workspace_id)))), "data")
    return evolve(wire.read(response, Conversation, "data"), raw=raw)


def list_messages(
    conversation_id: str,
    *,
    order: str | None = None,
    workspace_id: str | None = None,
    limit: int = 20,
    cursor: str | None = None,
) -> Flow[Listing[Message]]:
    """Return one page of the messages of a conversation, in *order* `asc` or `desc` (conversations/messages)."""
    path = wire.path("conversations", conversation_id, "messages")
    filters = {"order": choice_of("order", order, ("asc", "desc")), **_workspace(workspace_id)}
    return (yield from list_of(Message, path, limit, cursor, **filters))


def list_users(workspace_id: str, *, limit: int = 20, cursor: str | None = None) -> Flow[Listing[User]]:
    """Return one page of the members of a workspace (workspaces/list-users)."""
    return (yield from list_of(User, wire.path("workspaces", workspace_id, "users"), limit, cursor))


def list_workspaces(*, limit: int = 20, cursor: str | None = None) -> Flow[Listing[Workspace]]:
    """Return one page of the workspaces that the token reaches (introduction)."""
    return (yield from list_of(Workspace, wire.path("workspaces"), limit, cursor))
