"""A task: one scripted turn after the other, and what it shows at a moment of the clock (section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import attrs
from attrs import frozen

from agentruns.emulator.script import Turn
from agentruns.emulator.vendor import Stage

Object: TypeAlias = dict[str, Any]

OVER: Final = frozenset({
    "TASK_STATE_COMPLETED",
    "TASK_STATE_FAILED",
    "TASK_STATE_CANCELED",
    "TASK_STATE_REJECTED",
})
ASKS: Final = frozenset({"TASK_STATE_INPUT_REQUIRED", "TASK_STATE_AUTH_REQUIRED"})


@frozen(kw_only=True)
class Task:
    """
    One task.

    *turn* is what it does since *began*, a second of the stage; *history* are the messages before. A call of the name
    `auth` needs a login, any other asks: by the words of its `question`, and by its other arguments as data. An error
    of a turn whose type is `rejected` rejects the task.
    """

    id: str
    context_id: str
    number: int
    turn: Turn
    began: float
    history: tuple[Object, ...]
    artifacts: tuple[Object, ...] = ()
    canceled: float | None = None

    def state(self, now: float) -> str:
        """Return the state at a second."""
        turn, age = self.turn, now - self.began
        if self.canceled is not None:
            return "TASK_STATE_CANCELED"
        if age < turn.pending:
            return "TASK_STATE_SUBMITTED"
        if age < turn.lasts:
            return turn.status or "TASK_STATE_WORKING"
        if turn.error is not None:
            return "TASK_STATE_REJECTED" if turn.error == "rejected" else "TASK_STATE_FAILED"
        if turn.calls:
            needs_login = turn.calls[0].name == "auth"
            return "TASK_STATE_AUTH_REQUIRED" if needs_login else "TASK_STATE_INPUT_REQUIRED"
        return "TASK_STATE_COMPLETED"

    def changed(self, now: float) -> float:
        """Return the second at which the task came into the state that it has at another."""
        if self.canceled is not None:
            return self.canceled
        marks = (self.began, self.began + self.turn.pending, self.began + self.turn.lasts)
        return max(mark for mark in marks if mark <= now)

    def said(self, now: float) -> Object | None:
        """Return the message of the status: a question, or why the task failed."""
        turn, state = self.turn, self.state(now)
        if state in ASKS:
            arguments = dict(turn.calls[0].arguments or {})
            return self._message(f"{arguments.pop('question', turn.calls[0].name)}", arguments)
        if state in {"TASK_STATE_FAILED", "TASK_STATE_REJECTED"}:
            return self._message(turn.error if isinstance(turn.error, str) else ": ".join(turn.error or ()))
        return None

    def _message(self, text: str, data: Object | None = None) -> Object:
        names = {"messageId": f"{self.id}-{len(self.history)}", "contextId": self.context_id, "taskId": self.id}
        return {**names, "role": "ROLE_AGENT", "parts": [{"text": text}, *([{"data": data}] if data else [])]}

    def results(self, now: float) -> tuple[Object, ...]:
        """Return the artifacts."""
        turn, state = self.turn, self.state(now)
        if state != "TASK_STATE_COMPLETED" or (turn.text is None and turn.structured is None):
            return self.artifacts
        part = {"text": turn.text} if turn.structured is None else {"data": turn.structured}
        return (*self.artifacts, {"artifactId": f"{self.id}-{len(self.artifacts)}", "name": "answer", "parts": [part]})

    def next(self, message: Object | None, turn: Turn, now: float) -> Task:
        """Return the task after its pause, which a message has ended, or a login elsewhere."""
        said = self.said(now)
        history = (*self.history, *filter(None, (said, message)))
        return attrs.evolve(self, turn=turn, began=now, history=history)


@frozen
class View:
    """A task at a second, as JSON."""

    task: Task
    stage: Stage
    now: float

    def status(self) -> Object:
        """Return its status; one that was just submitted has no time, as with the reference server."""
        state, said = self.task.state(self.now), self.task.said(self.now)
        if state == "TASK_STATE_SUBMITTED" and len(self.task.history) == 1:
            return {"state": state}
        at = self.stage.wall(self.task.changed(self.now)).isoformat().replace("+00:00", "Z")
        return {"state": state, **({"message": said} if said else {}), "timestamp": at}

    def json(self, *, history: int | None = None, artifacts: bool = True) -> Object:
        """Return the task, with the last messages of its history."""
        results = self.task.results(self.now) if artifacts else ()
        messages = self.task.history if history is None else self.task.history[len(self.task.history) - history :]
        return {
            "id": self.task.id,
            "contextId": self.task.context_id,
            "status": self.status(),
            **({"artifacts": list(results)} if results else {}),
            **({"history": list(messages)} if messages else {}),
            **self.task.turn.extra,
        }


def padded(task: Object, *, artifacts: bool) -> Object:
    """Return a row of a list, which has what is empty."""

    def parts(value: Mapping[str, Any]) -> Object:
        return {**value, "parts": [{"filename": "", "mediaType": "", **part} for part in value["parts"]]}

    def message(value: Mapping[str, Any]) -> Object:
        return {"extensions": [], "referenceTaskIds": [], **parts(value)}

    status = dict(task["status"])
    if "message" in status:
        status["message"] = message(status["message"])
    row = {**task, "status": status, "history": [message(each) for each in task.get("history", ())]}
    if artifacts:
        row["artifacts"] = [{"description": "", "extensions": [], **parts(each)} for each in task.get("artifacts", ())]
    return row


def changes(before: View | None, after: View) -> Iterator[Object]:
    """Yield the events between two views of a task: it itself at first, then what it brings and how it stands."""
    names = {"taskId": after.task.id, "contextId": after.task.context_id}
    if before is None:
        yield {"task": after.json()}
        return
    known = len(before.task.results(before.now))
    for artifact in after.task.results(after.now)[known:]:
        yield {"artifactUpdate": {**names, "artifact": artifact, "lastChunk": True}}
    if before.status() != after.status():
        yield {"statusUpdate": {**names, "status": after.status()}}
