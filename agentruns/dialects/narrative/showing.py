"""What a run of Narrative can be asked for besides its state: what was said in its conversation, and its tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentruns._values import codec
from agentruns._values.commands import Flow
from agentruns._values.run import Run
from agentruns.dialects.show import Step, Tool, verbatim
from agentruns.dialects.wire import mapping, objects

from .conversations import get_conversation, list_messages
from .objects import ContentBlock, Message


def read_trace(run: Run) -> Flow[tuple[Step, ...]]:
    """Read the messages of the run's conversation, each of their blocks by itself."""
    page = yield from list_messages(run.ref.parent)
    return tuple(step for message in page.items for block in message.content_blocks for step in _block(message, block))


def _block(message: Message, block: ContentBlock) -> Iterator[Step]:
    if block.type == "tool_use":
        given = block.arguments or {}
        yield Step(block.name or "", verbatim(given, given), kind="calls")
    elif block.type == "tool_result":
        text = "\n".join(inner.text or "" for inner in block.content_blocks)
        yield Step("", text=text, kind="refused" if block.is_error else "answered")
    else:
        yield Step("", text=block.text or "", kind=message.role)


def read_tools(run: Run) -> Flow[Mapping[str, Tool]]:
    """Return the tools that a run calls as its own configuration declares them, else read those of its conversation."""
    used = mapping(run.raw.get("effective_config"))
    if used.get("client_tools") or used.get("tools"):
        return _declared(used)
    conversation = yield from get_conversation(run.ref.parent)
    return _declared(mapping(codec.unstructure(conversation.defaults)))


def _declared(config: Mapping[str, Any]) -> dict[str, Tool]:
    """Return the tools that a configuration declares for the caller, by the names that the model calls."""
    named = [("", config.get("tools"))]
    named += [(f"{each.get('alias')}-", each.get("tools")) for each in objects(config.get("client_tools"))]
    return {
        f"{prefix}{tool.get('name')}": Tool(str(tool.get("description") or ""), mapping(tool.get("input_schema")))
        for prefix, tools in named
        for tool in objects(tools)
    }
