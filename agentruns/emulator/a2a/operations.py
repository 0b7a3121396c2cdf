"""What an emulated agent can be asked, whatever the binding (specification, section 3)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Final

import attrs
import msgspec
from attrs import frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Output, Prompt, Turn
from agentruns.emulator.vendor import Stage, Vendor

from .tasks import ASKS, OVER, Object, Task, View, padded

MEDIA: Final = "application/a2a+json"
_MOST: Final = 100


@frozen(kw_only=True)
class A2AOptions:
    """
    The options of an emulated agent.

    * `rpc`: it speaks JSON-RPC instead of HTTP+JSON.
    * `api_key`: the header that its card wants the token in, instead of `Authorization: Bearer`.
    * `tenant`: what its card names as tenant.
    * `answers_by_message`: it answers at once by a plain message, and keeps no task.
    * `url`: what its card says it is asked at, where that is another place than here.
    * `has_card`: whether there is a card.
    """

    rpc: bool = False
    api_key: str = ""
    tenant: str = ""
    answers_by_message: bool = False
    url: str = ""
    has_card: bool = True


class RefusedError(Exception):
    """Refuse what is asked, for a reason of the specification, and the *field* that it is about."""

    def __init__(self, reason: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field


class Agent(Vendor):
    """An agent: its `tasks` by id, the `messages` that it got, and where each task's `pushes` go."""

    def __init__(self, stage: Stage, options: A2AOptions) -> None:
        super().__init__(stage)
        self.options = options
        self.tasks: dict[str, Task] = {}
        self.messages: list[Object] = []
        self.pushes: dict[str, dict[str, Object]] = {}
        self._answered = 0

    @property
    def runs_started(self) -> int:
        """Count the tasks that were started, and the messages that were answered by one."""
        return len(self.tasks) + self._answered

    def notifications(self) -> tuple[tuple[str, Mapping[str, str], bytes], ...]:
        """Return, for each push configuration, the URL, the headers and the body by which the present state is told."""
        with self.lock:
            return tuple(
                (
                    push["url"],
                    {"X-A2A-Notification-Token": push["token"], "Content-Type": MEDIA},
                    msgspec.json.encode({"statusUpdate": {"taskId": name, "status": self.view(name).status()}}),
                )
                for name, pushes in self.pushes.items()
                for push in pushes.values()
            )

    def log_in(self, name: str) -> None:
        """Log in elsewhere, for a task that needs a login: it goes on, and nobody has sent it a message."""
        with self.lock:
            self.tasks[name] = self.tasks[name].next(
                None, self._play(self.tasks[name].context_id, 1, {"parts": []}, self.tasks[name]), self.stage.now()
            )

    def send_message(self, given: Object) -> JSON:
        """Start a task by a message, or go on with the one that it names."""
        message: Object = given["message"]
        for field in ("messageId", "parts"):
            if not message.get(field):
                raise RefusedError("INVALID_PARAMS", "This field is needed.", f"message.{field}")
        self.messages.append(message)
        name = message.get("taskId")
        if name:
            return {"task": self._go_on(self.found(name), message)}
        context = message.get("contextId") or self.stage.ids.uuid()
        turn = self._play(context, 0, message)
        if self.options.answers_by_message:
            self._answered += 1
            parts = [{"text": turn.text or ""}]
            answer = {"messageId": self.stage.ids.uuid(), "contextId": context, "role": "ROLE_AGENT", "parts": parts}
            return {"message": answer}
        task = self.stage.ids.uuid()
        kept = {**message, "contextId": context, "taskId": task}
        began = self.stage.now()
        self.tasks[task] = Task(
            id=task, context_id=context, number=len(self.tasks), turn=turn, began=began, history=(kept,)
        )
        return {"task": self.view(task).json()}

    def _go_on(self, task: Task, message: Object) -> Object:
        now = self.stage.now()
        state = task.state(now)
        if state in OVER:
            raise RefusedError("UNSUPPORTED_OPERATION", f"Task {task.id} is in terminal state: {state}")
        if message.get("contextId") not in {None, "", task.context_id}:
            raise RefusedError("INVALID_PARAMS", f"Context {message['contextId']} is not that of task {task.id}")
        kept = {**message, "contextId": task.context_id}
        if state in ASKS:
            answers = sum(each.get("role") == "ROLE_USER" for each in task.history)
            task = task.next(kept, self._play(task.context_id, answers, message, task), now)
        else:
            task = attrs.evolve(task, history=(*task.history, kept))
        self.tasks[task.id] = task
        return self.view(task.id).json()

    def _play(self, context: str, index: int, message: Object, task: Task | None = None) -> Turn:
        text = "\n".join(str(part["text"]) for part in message["parts"] if "text" in part)
        outputs: tuple[Output, ...] = ()
        if task is not None and task.turn.calls:
            said = text or msgspec.json.encode(message["parts"]).decode()
            outputs = (Output(tool_use_id=task.id, name=task.turn.calls[0].name, text=said),)
        asked = None if outputs else text
        return self.stage.play(Prompt(index=index, conversation_id=context, text=asked, outputs=outputs))

    def get_task(self, given: Object) -> JSON:
        """Show a task."""
        length = given.get("historyLength")
        return self.view(self.found(given["id"]).id).json(history=None if length is None else int(length))

    def cancel_task(self, given: Object) -> JSON:
        """Cancel a task that is not over."""
        task = self.found(given["id"])
        if task.state(self.stage.now()) in OVER:
            raise RefusedError("TASK_NOT_CANCELABLE", "Task cannot be canceled")
        self.tasks[task.id] = attrs.evolve(task, canceled=self.stage.now())
        return self.view(task.id).json()

    def list_tasks(self, given: Object) -> JSON:
        """Show a page of the tasks, those that changed last first."""
        size, context = int(given.get("pageSize") or 50), given.get("contextId")
        if not 1 <= size <= _MOST:
            raise RefusedError("INVALID_PARAMS", f"pageSize is from 1 to {_MOST}.")
        now = self.stage.now()
        rows = [task for task in self.tasks.values() if not context or task.context_id == context]
        rows.sort(key=lambda task: (task.changed(now), task.number), reverse=True)
        start = _place_of(str(given.get("pageToken") or ""))
        artifacts = str(given.get("includeArtifacts", "")).lower() == "true"
        length = given.get("historyLength")
        shown = [
            padded(
                self.view(task.id).json(history=None if length is None else int(length), artifacts=artifacts),
                artifacts=artifacts,
            )
            for task in rows[start : start + size]
        ]
        token = base64.b64encode(str(start + size).encode()).decode() if start + size < len(rows) else ""
        return {"tasks": shown, "nextPageToken": token, "pageSize": size, "totalSize": len(rows)}

    def create_push(self, given: Object) -> JSON:
        """Note where what happens to a task is to be sent."""
        task = self.found(given["id"])
        name = given.get("name") or self.stage.ids.uuid()
        push = {"id": name, "taskId": task.id, "url": given["url"], "token": given.get("token", "")}
        self.pushes.setdefault(task.id, {})[name] = push
        return push

    def list_pushes(self, given: Object) -> JSON:
        """Show where what happens to a task is sent."""
        return {"configs": [*self.pushes.get(self.found(given["id"]).id, {}).values()]}

    def get_push(self, given: Object) -> JSON:
        """Show one of these."""
        pushes = self.pushes.get(self.found(given["id"]).id, {})
        if given["push"] not in pushes:
            raise RefusedError("TASK_NOT_FOUND", "There is no such configuration.")
        return pushes[given["push"]]

    def delete_push(self, given: Object) -> JSON:
        """Forget one of these."""
        self.pushes.get(self.found(given["id"]).id, {}).pop(given["push"], None)
        return {}

    def found(self, name: str) -> Task:
        """Return a task by its id."""
        if name not in self.tasks:
            raise RefusedError("TASK_NOT_FOUND", f"Task {name} not found")
        return self.tasks[name]

    def view(self, name: str) -> View:
        """Return a task as it is now."""
        return View(self.tasks[name], self.stage, self.stage.now())


def _place_of(token: str) -> int:
    try:
        found = base64.b64decode(token, validate=True).decode() if token else "0"
    except ValueError:
        found = ""
    if not re.fullmatch(r"\d+", found):
        raise RefusedError("INVALID_PARAMS", "Token is not a valid base64-encoded cursor.")
    return int(found)
