"""Conversations and their messages."""

from __future__ import annotations

from attrs import frozen

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns.dialects import wire

from .config import Config, given
from .objects import Conversation, ConversationPage, Message, MessagePage


def create_conversation(
    config: Config, *, name: str | None = None, system_prompt: str | None = None
) -> Flow[Conversation]:
    """Create an empty conversation; nothing starts (create-an-agent-conversation)."""
    check.instance("config", config, Config, "narrative.Config(model=..., data_plane_id=..., ...)")
    for field, value in (("name", name), ("system_prompt", system_prompt)):
        check.text_or_none(field, value)
        check.utf8(field, value or "")
    defaults = given(codec.to_jsonable(codec.unstructure(config), "Config"))
    body = {"name": name, "system_prompt": system_prompt, "defaults": defaults}
    # Creating twice leaves an empty conversation behind, which starts and costs nothing: safe to repeat.
    request = Request("POST", wire.path("agents", "conversations"), json=given(body), idempotent=True)
    return wire.read((yield request), Conversation)


def get_conversation(id: str) -> Flow[Conversation]:  # noqa: A002
    """Read a conversation and its current version (get-an-agent-conversation)."""
    return wire.read((yield Request("GET", wire.path("agents", "conversations", id))), Conversation)


def list_conversations(*, page: int = 1, per_page: int = 50) -> Flow[ConversationPage]:
    """List the caller's conversations, newest first; pages start at 1 (list-the-calling-users-agent-conversations)."""
    params = {"page": str(page), "per_page": str(per_page)}
    seen = wire.read((yield Request("GET", wire.path("agents", "conversations"), params=params)), _Conversations)
    return ConversationPage(
        seen.records, seen.current_page, seen.next_page, seen.prev_page, seen.total_records, seen.total_pages
    )


def list_messages(conversation_id: str, *, since: int = 0) -> Flow[MessagePage]:
    """Read the messages with a `sequence_no` above *since*, a version (list-conversation-messages-delta-...)."""
    path = wire.path("agents", "conversations", conversation_id, "messages")
    seen = wire.read((yield Request("GET", path, params={"since": str(since)})), _Messages)
    return MessagePage(seen.messages, seen.current_version)


@frozen
class _Conversations:
    records: tuple[Conversation, ...]
    current_page: int | None = None
    next_page: int | None = None
    prev_page: int | None = None
    total_records: int | None = None
    total_pages: int | None = None


@frozen
class _Messages:
    messages: tuple[Message, ...]
    current_version: int
