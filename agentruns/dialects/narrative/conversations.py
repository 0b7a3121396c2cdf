"""Conversations and their messages."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve, frozen

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns._values.generic import Json
from agentruns._values.printable import printable
from agentruns.dialects import guesses, reading, wire
from agentruns.errors import InvalidRequestError

from .config import Config, given
from .objects import Conversation, ConversationPage, Message, MessagePage

logger = logging.getLogger("agentruns")

_NOTHING: Final[tuple[Any, ...]] = (None, [], {})
"""Absent, null and empty are alike."""


def create_conversation(
    config: Config, *, name: str | None = None, system_prompt: str | None = None
) -> Flow[Conversation]:
    """
    Create an empty conversation; nothing starts (create-an-agent-conversation).

    The answer echoes the configuration. What was sent and is not in it, the account does not know: tools that were
    declared as the other revision has them, say. That is logged, and stands in `Conversation.dropped`.
    """
    check.instance("config", config, Config, "narrative.Config(model=..., data_plane_id=..., ...)")
    for field, value in (("name", name), ("system_prompt", system_prompt)):
        check.text_or_none(field, value)
        check.utf8(field, value or "")
    defaults = given(codec.to_jsonable(config, "Config"))
    body = {"name": name, "system_prompt": system_prompt, "defaults": defaults}
    # Creating twice leaves an empty conversation behind, which starts and costs nothing: safe to repeat.
    request = Request("POST", wire.path("agents", "conversations"), json=given(body), idempotent=True)
    try:
        response = yield request
    except InvalidRequestError as error:
        if error.code is None:
            _tell_of_revision(error, defaults)
        raise
    made = wire.read(response, Conversation)
    dropped = _dropped(defaults, wire.mapping(wire.read_object(response).get("defaults")))
    if dropped:
        logger.warning(
            "conversation %s was created without %s, which the vendor did not take: its runs go without. Tools are "
            "`client_tools` for accounts of revision A, and `tools` for those of revision B",
            printable(made.id),
            printable(", ".join(dropped)),
        )
    return evolve(made, dropped=dropped)


def _tell_of_revision(refusal: InvalidRequestError, sent: Mapping[str, Json]) -> None:
    """Have a refusal say that it is a guess how an account has tools declared: the pages exist in two revisions."""
    others = {"client_tools": "tools=narrative.flat_tools(...)", "tools": "client_tools=[narrative.client_tools(...)]"}
    for name, other in others.items():
        if sent.get(name) not in _NOTHING:
            switch = f"`narrative.Config({other})`"
            guesses.refused(refusal, f"which accounts declare tools as `{name}`", {name: sent[name]}, switch)


def _dropped(sent: Mapping[str, Json], echoed: Mapping[str, Json]) -> tuple[str, ...]:
    """Return what was sent and does not come back; an answer that echoes nothing says nothing."""
    return (
        tuple(name for name, value in sent.items() if value not in _NOTHING and echoed.get(name) in _NOTHING)
        if echoed
        else ()
    )


def get_conversation(id: str) -> Flow[Conversation]:  # noqa: A002
    """Read a conversation and its current version (get-an-agent-conversation)."""
    return wire.read((yield Request("GET", wire.path("agents", "conversations", id))), Conversation)


def list_conversations(*, page: int = 1, per_page: int = 50) -> Flow[ConversationPage]:
    """List the caller's conversations, newest first; pages start at 1 (list-the-calling-users-agent-conversations)."""
    params = {"page": str(page), "per_page": str(per_page)}
    response = yield Request("GET", wire.path("agents", "conversations"), params=params)
    raw = wire.read_object(response)
    items = yield from reading.rows_of(response, raw.get("records"), "$.records", Conversation)
    numbers = ("current_page", "next_page", "prev_page", "total_records", "total_pages")
    return ConversationPage(items, **{name: reading.count(raw.get(name)) for name in numbers})


def list_messages(conversation_id: str, *, since: int = 0) -> Flow[MessagePage]:
    """Read the messages with a `sequence_no` above *since*, a version (list-conversation-messages-delta-...)."""
    response = yield messages_request(conversation_id, since)
    version = wire.read(response, MessagesHead).current_version
    raw = wire.read_object(response)
    return MessagePage((yield from reading.rows_of(response, raw.get("messages"), "$.messages", Message)), version)


def messages_request(conversation_id: str, since: int = 0) -> Request:
    """Return the request for the messages of a conversation with a `sequence_no` above *since*."""
    path = wire.path("agents", "conversations", conversation_id, "messages")
    return Request("GET", path, params={"since": str(since)})


@frozen
class MessagesHead:
    """What a page of messages needs, besides them: the cursor."""

    current_version: int
