"""Answering the question of a task by a message to it: the first answer stands, and none is sent twice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final
from uuid import uuid5

from attrs import frozen

from agentruns._values import codec
from agentruns._values.commands import Flow, Lock, Sleep
from agentruns._values.exchange import Request
from agentruns._values.run import Run, ToolOutput
from agentruns.dialects import wire
from agentruns.errors import (
    AlreadyAnsweredError,
    APIError,
    ConfigurationError,
    InvalidRequestError,
    OutcomeUnknownError,
    ProtocolError,
    TransportError,
)

from .objects import Task
from .parts import answer_parts, value_of
from .reading import AUTH, NAME, fetch, parse_run
from .starts import NAMES, sending, user_messages

logger = logging.getLogger("agentruns")

LOOKS: Final = (0.1, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each look whether an answer has arrived whose reply got lost."""


def resume(run: Run[Task], outputs: Sequence[ToolOutput]) -> Flow[Run[Task]]:
    """
    Answer the question of a task by a message to it, and return the task, which goes on in place.

    A text is sent as it is, parts as parts, and any other JSON as a part of data. A login that was done elsewhere ends
    its pause by itself: then nothing is sent. Where the reply gets lost, the task is read: its history shows whether
    the message has arrived.
    """
    answer = _Answer.of(run, outputs)
    yield Lock(f"{NAME} task {run.id}")
    if answer.output.action.name == AUTH:
        now = yield from fetch(run.ref, {})
        if not answer.is_awaited(now):
            return now
    return (yield from answer.sent())


def resume_first(run: Run[Task], outputs: Sequence[ToolOutput]) -> Flow[Run[Task]]:
    """
    Answer a question as `resume` does, unless it is asked no more; raise `AlreadyAnsweredError` then.

    Agents take any message to a task that is not over. So it is also raised where the history shows that another
    answer came in between our look and our message: the agent has that one first, and may have read ours as well.
    """
    answer = _Answer.of(run, outputs)
    yield Lock(f"{NAME} task {run.id}")
    now = yield from fetch(run.ref, {})
    if not answer.is_awaited(now):
        return answer.settled(now)
    now = yield from answer.sent()
    return answer.settled(now, arrived=True) if answer.standing(now) else now


@frozen
class _Answer:
    """The message that answers a question, and what a state of the task tells of it."""

    output: ToolOutput
    message_id: str
    run: Run[Task]
    request: Request

    @classmethod
    def of(cls, run: Run[Task], outputs: Sequence[ToolOutput]) -> _Answer:
        """Return the message; its id follows from the question and the answer."""
        if len(outputs) != 1:
            raise ConfigurationError(f"task {run.id} asks one thing, and got {len(outputs)} answers", field="outputs")
        (output,) = outputs
        parts = answer_parts(output.output)
        message_id = str(uuid5(NAMES, codec.encode([run.id, output.action.id, list(parts)]).decode()))
        names = wire.drop_none({"messageId": message_id, "taskId": run.id, "contextId": run.ref.parent or None})
        return cls(output, message_id, run, sending(names, parts))

    def sent(self) -> Flow[Run[Task]]:
        """Send it once, and return the task after it; raise `AlreadyAnsweredError` where the pause was over."""
        try:
            return parse_run((yield self.request))
        except OutcomeUnknownError as error:
            return (yield from self._found(error))
        except InvalidRequestError as refusal:
            now = yield from fetch(self.run.ref, {})
            if self.is_awaited(now):
                raise
            return self.settled(now, refusal=refusal)

    def _found(self, lost: OutcomeUnknownError) -> Flow[Run[Task]]:
        """Return the task once it shows that the message has arrived; raise *lost* if it does not."""
        for seconds in LOOKS:
            yield Sleep(seconds)
            try:
                now = yield from fetch(self.run.ref, {})
            except (APIError, TransportError, ProtocolError) as error:
                logger.debug("looking again: %s", error)
                continue
            if self._is_in(now):
                return now
            if not self.is_awaited(now) and not now.raw.get("history"):
                logger.warning(
                    "the reply to the answer to task %s was lost, and it goes on: it counts as answered by us, as its "
                    "agent shows no history",
                    now.id,
                )
                return now
        raise lost

    def is_awaited(self, now: Run[Task]) -> bool:
        """Tell whether the question is still asked."""
        return any(action.id == self.output.action.id for action in now.actions)

    def _is_in(self, now: Run[Task]) -> bool:
        return any(each.get("messageId") == self.message_id for each in user_messages(now))

    def standing(self, now: Run[Task]) -> tuple[ToolOutput, ...]:
        """Return the answer that the history shows right after the question, if it is another one."""
        action, is_past = self.output.action, False
        for each in wire.objects(now.raw.get("history")):
            if is_past and each.get("role") == "ROLE_USER":
                if each.get("messageId") == self.message_id:
                    return ()
                return (ToolOutput(action, value_of([wire.objects(each.get("parts"))], between="\n")),)
            is_past = is_past or each.get("messageId") == action.id
        return ()

    def settled(self, now: Run[Task], *, refusal: APIError | None = None, arrived: bool = False) -> Run[Task]:
        """Return the task if this was the first answer; else raise that another one was."""
        standing = self.standing(now)
        if self._is_in(now) and not standing:
            return now
        is_login = self.output.action.name == AUTH
        how = "was logged in to elsewhere" if is_login else "was answered by somebody else, or an earlier try"
        waits = "is over" if now.status.is_over else "waits for something else" if now.actions else "goes on"
        told = f"task {now.id} {how}, and {waits}"
        response = None if refusal is None else refusal.response
        raise AlreadyAnsweredError(now, standing, told, response=response, arrived=arrived)
