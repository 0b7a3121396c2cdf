"""Starting a task by a message, and finding it where the answer got lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeAlias
from uuid import UUID, uuid4, uuid5

from attrs import field, frozen
from attrs.validators import optional

from agentruns._values import check
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns._values.generic import Json
from agentruns._values.minted import MINTED
from agentruns._values.run import Run
from agentruns.dialects import wire
from agentruns.dialects.search import Before, Search, find_lost, start_once

from .objects import Part, Task
from .parts import parts_of
from .reading import page, parse_run, post

NAMES: Final = UUID("6f1d6f4e-2f0e-5b38-9a55-6d1e8a3c0b77")
"""The namespace of the ids that follow from others: of a new context, of the message that answers a question."""

LOOKS: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each look for the task that a lost answer may have started."""

Content: TypeAlias = str | Sequence[str | Part | Mapping[str, Json]]
"""A text, or texts and parts: a part is a `Part`, or a mapping as the wire has it."""


def _parts(value: Content) -> str | tuple[Mapping[str, Json], ...]:
    parts = parts_of(value, "Send.parts")
    return value if isinstance(value, str) else parts


@frozen
class Send:
    """
    A message that starts a task: *parts* are a text, or a sequence of texts and parts.

    `context_id` is that of an earlier task, for a further one that knows of it; by default a new context, whose id
    follows from that of the message.
    """

    parts: str | tuple[Mapping[str, Json], ...] = field(
        converter=_parts, metadata={"help": "the message, or a list of its parts"}
    )
    context_id: str | None = field(
        default=None,
        kw_only=True,
        validator=optional(check.not_empty),
        metadata={"help": "id of the context of an earlier task; a new one if left out"},
    )
    message_id: str = field(
        factory=lambda: str(uuid4()),
        kw_only=True,
        metadata={**MINTED, "help": "id of the message; a new one if left out"},
        validator=check.not_empty,
    )

    @property
    def context(self) -> str:
        """Return the id of the context that is sent."""
        return self.context_id or str(uuid5(NAMES, self.message_id))


def example() -> Send:
    """Return a message to any agent."""
    return Send("Sort the post.")


def start(origin: Send) -> Flow[Run[Task]]:
    """
    Send a message, and return at once the task that it started, or what the agent answered (Send Message).

    The id of a message is no idempotency key, so it is sent once. Where the answer got lost, the task is looked for in
    its context, by the id of its first message. An agent that answers by a plain message leaves nothing to find: that
    is `OutcomeUnknownError`.
    """
    search = _search(origin)
    yield from wire.checkpoint(_NOTHING.note(search))
    return (yield from start_once(search, _starting(origin), parse_run, _NOTHING))


def recover(origin: Send, note: Mapping[str, Json]) -> Flow[Run[Task]]:
    """Find the task of a start whose process died before it heard the answer."""
    return (yield from find_lost(_search(origin), note, _starting(origin)))


_NOTHING: Final = Before()
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
"""The message's id tells its task from all others: what was there before, and when, does not matter."""


def _starting(origin: Send) -> Request:
    parts = parts_of(origin.parts, "Send.parts")
    return sending({"messageId": origin.message_id, "contextId": origin.context}, parts)


def sending(names: Mapping[str, Json], parts: Sequence[Mapping[str, Json]]) -> Request:
    """Return the request that sends a message with these names and parts, and is answered at once."""
    message = {**names, "role": "ROLE_USER", "parts": list(parts)}
    return post("/message:send", {"message": message, "configuration": {"returnImmediately": True}})


def _search(origin: Send) -> Search[Task]:
    return Search(
        page=partial(page, origin.context),
        created_at=lambda _: _LONG_AGO,
        fits=lambda _: False,
        is_named=lambda run: any(each.get("messageId") == origin.message_id for each in user_messages(run)),
        looks=LOOKS,
        what=f"message {origin.message_id}",
        where=f"the tasks of context {origin.context}",
        marks={"context_id": origin.context, "message_id": origin.message_id},
    )


def user_messages(run: Run[Task]) -> list[Mapping[str, Json]]:
    """Return what users said, as far as the history of a task shows it."""
    return [each for each in wire.objects(run.raw.get("history")) if each.get("role") == "ROLE_USER"]
