"""Sending messages: one that starts a task, and one that answers it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4, uuid5

from attrs import Attribute, field, frozen
from attrs.validators import optional

from agentruns._values import check, codec
from agentruns._values.commands import Flow, Lock, Sleep
from agentruns._values.exchange import Request
from agentruns._values.generic import Json
from agentruns._values.minted import MINTED
from agentruns._values.run import Run, ToolOutput
from agentruns.dialects import wire
from agentruns.dialects.search import Before, Search, find_lost, start_once
from agentruns.errors import (
    AlreadyAnsweredError,
    APIError,
    ConfigurationError,
    InvalidRequestError,
    OutcomeUnknownError,
    ProtocolError,
    TransportError,
)

from .objects import Part, Task
from .parts import answer_parts, parts_of, value_of
from .reading import AUTH, NAME, fetch, listed, parse_run, post

logger = logging.getLogger("agentruns")

_NAMES: Final = UUID("6f1d6f4e-2f0e-5b38-9a55-6d1e8a3c0b77")
"""The namespace of the ids that follow from others: of a new context, of the message that answers a question."""

START_LOOKS: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds before each look for the task that a lost answer may have started."""

ANSWER_LOOKS: Final = (0.1, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each look whether an answer has arrived whose reply got lost."""

Content: TypeAlias = str | Sequence[str | Part | Mapping[str, Json]]
"""A text, or texts and parts: a part is a `Part`, or a mapping as the wire has it."""


def _parts(value: Any) -> Any:
    return value if isinstance(value, str) else parts_of(value, "Send.parts")


def _not_empty(_: object, __: Attribute[Any], value: Any) -> None:
    parts_of(value, "Send.parts")


@frozen
class Send:
    """
    A message that starts a task: *parts* are a text, or a sequence of texts and parts.

    `context_id` is that of an earlier task, for a further one that knows of it; by default a new context, whose id
    follows from that of the message.
    """

    parts: str | tuple[Mapping[str, Json], ...] = field(converter=_parts, validator=_not_empty)
    context_id: str | None = field(default=None, kw_only=True, validator=optional(check.not_empty))
    message_id: str = field(factory=lambda: str(uuid4()), kw_only=True, metadata=MINTED, validator=check.not_empty)

    @property
    def context(self) -> str:
        """Return the id of the context that is sent."""
        return self.context_id or str(uuid5(_NAMES, self.message_id))


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
    return _sending({"messageId": origin.message_id, "contextId": origin.context}, parts)


def _sending(names: Mapping[str, Json], parts: Sequence[Mapping[str, Json]]) -> Request:
    message = {**names, "role": "ROLE_USER", "parts": list(parts)}
    return post("/message:send", {"message": message, "configuration": {"returnImmediately": True}})


def _search(origin: Send) -> Search[Task]:
    return Search(
        page=lambda cursor: listed(origin.context, cursor, {}),
        created_at=lambda _: _LONG_AGO,
        fits=lambda _: False,
        is_named=lambda run: origin.message_id in _user_messages(run),
        looks=START_LOOKS,
        what=f"message {origin.message_id}",
        where=f"the tasks of context {origin.context}",
        marks={"context_id": origin.context, "message_id": origin.message_id},
    )


def _history(run: Run[Task]) -> list[Mapping[str, Json]]:
    return wire.objects(run.raw.get("history"))


def _user_messages(run: Run[Task]) -> list[str]:
    return [str(each.get("messageId")) for each in _history(run) if each.get("role") == "ROLE_USER"]


# Answers --------------------------------------------------------------------------------------------------------------


def resume(run: Run[Task], outputs: Sequence[ToolOutput]) -> Flow[Run[Task]]:
    """
    Answer the question of a task by a message to it, and return the task, which goes on in place.

    A text is sent as it is, parts as parts, and any other JSON as a part of data. A login that was done elsewhere ends
    its pause by itself: then nothing is sent. Where the reply gets lost, the task is read: its history shows whether
    the message has arrived.
    """
    return (yield from _answered(run, outputs, first=False))


def resume_first(run: Run[Task], outputs: Sequence[ToolOutput]) -> Flow[Run[Task]]:
    """
    Answer a question as `resume` does, unless it is asked no more; raise `AlreadyAnsweredError` then.

    Agents take any message to a task that is not over. So it is also raised where the history shows that another
    answer came in between our look and our message: the agent has that one first, and may have read ours as well.
    """
    return (yield from _answered(run, outputs, first=True))


def _answered(run: Run[Task], outputs: Sequence[ToolOutput], *, first: bool) -> Flow[Run[Task]]:
    if len(outputs) != 1:
        raise ConfigurationError(f"task {run.id} asks one thing, and got {len(outputs)} answers", field="outputs")
    (output,) = outputs
    action = output.action
    parts = answer_parts(output.output)
    words = codec.encode([run.id, action.id, list(parts)]).decode()
    message_id = str(uuid5(_NAMES, words))
    names = {"messageId": message_id, "taskId": run.id}
    request = _sending({**names, **({"contextId": run.ref.parent} if run.ref.parent else {})}, parts)
    yield Lock(f"{NAME} task {run.id}")
    if first or action.name == AUTH:
        now = yield from fetch(run.ref, {})
        if not _asks(now, output):
            return _too_late(now, output, message_id) if first else now
    try:
        response = yield request
    except OutcomeUnknownError as error:
        now = yield from _arrived(run, output, message_id, error)
    except InvalidRequestError as refusal:
        now = yield from fetch(run.ref, {})
        if _asks(now, output):
            raise
        return _too_late(now, output, message_id, refusal=refusal)
    else:
        now = parse_run(response)
    if first and _standing(now, output, message_id):
        return _too_late(now, output, message_id, arrived=True)
    return now


def _asks(run: Run[Task], output: ToolOutput) -> bool:
    return any(action.id == output.action.id for action in run.actions)


def _arrived(run: Run[Task], output: ToolOutput, message_id: str, lost: OutcomeUnknownError) -> Flow[Run[Task]]:
    """Return the task once it shows that our message has arrived; raise *lost* if it does not."""
    for seconds in ANSWER_LOOKS:
        yield Sleep(seconds)
        try:
            now = yield from fetch(run.ref, {})
        except (APIError, TransportError, ProtocolError) as error:
            logger.debug("looking again: %s", error)
            continue
        if message_id in _user_messages(now):
            return now
        if not _asks(now, output) and not _history(now):
            logger.warning(
                "the reply to the answer to task %s was lost, and it goes on: it counts as answered by us, as its "
                "agent shows no history",
                run.id,
            )
            return now
    raise lost


def _standing(run: Run[Task], output: ToolOutput, message_id: str) -> tuple[ToolOutput, ...]:
    """Return the answer that the history shows right after the question, if it is not ours."""
    history = _history(run)
    places = [place for place, each in enumerate(history) if each.get("messageId") == output.action.id]
    after = history[places[-1] + 1 :] if places else []
    answer = next((each for each in after if each.get("role") == "ROLE_USER"), None)
    if answer is None or answer.get("messageId") == message_id:
        return ()
    return (ToolOutput(output.action, value_of([wire.objects(answer.get("parts"))], between="\n")),)


def _too_late(
    run: Run[Task], output: ToolOutput, message_id: str, *, refusal: APIError | None = None, arrived: bool = False
) -> Run[Task]:
    """Return the task if it was our own message that was first; else raise that another one was."""
    if message_id in _user_messages(run) and not _standing(run, output, message_id):
        return run
    how = "was logged in to elsewhere" if output.action.name == AUTH else "was answered by somebody else"
    waits = "is over" if run.status.is_over else "waits for something else" if run.actions else "goes on"
    told = f"task {run.id} {how}, or an earlier try, and {waits}. Go on with `client.stream(error.run)`"
    standing = _standing(run, output, message_id)
    response = None if refusal is None else refusal.response
    raise AlreadyAnsweredError(run, standing, told, response=response, arrived=arrived)
