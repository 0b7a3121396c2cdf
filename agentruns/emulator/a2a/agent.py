"""The endpoints of an emulated agent, in both bindings (specification, sections 9 and 11)."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import attrs
import msgspec
from attrs import frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Output, Prompt, Turn
from agentruns.emulator.vendor import Reply, Request, Route, Stage, Vendor, make_options

from .tasks import ASKS, OVER, Object, Task, View, changes, padded

CARD: Final = "/.well-known/agent-card.json"
_MEDIA: Final = "application/a2a+json"
_MOST: Final = 100

_ERRORS: Final[Mapping[str, tuple[int, str, int]]] = {
    "TASK_NOT_FOUND": (404, "NOT_FOUND", -32001),
    "TASK_NOT_CANCELABLE": (400, "FAILED_PRECONDITION", -32002),
    "UNSUPPORTED_OPERATION": (400, "FAILED_PRECONDITION", -32004),
    "INVALID_PARAMS": (400, "INVALID_ARGUMENT", -32602),
    "METHOD_NOT_FOUND": (404, "NOT_FOUND", -32601),
    "VERSION_NOT_SUPPORTED": (400, "FAILED_PRECONDITION", -32009),
}
"""By reason, the status of HTTP, that of google.rpc, and the code of JSON-RPC (section 5.4)."""


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


class _RefusedError(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class A2A(Vendor):
    """An emulated agent: `tasks` by id, and the `messages` that it got."""

    name: ClassVar[str] = "a2a"

    def __init__(self, stage: Stage, options: A2AOptions) -> None:
        super().__init__(stage)
        self.options = options
        self.tasks: dict[str, Task] = {}
        self.messages: list[Object] = []
        self.pushes: dict[str, dict[str, Object]] = {}
        self._answered = 0
        rest = "/v1" + (f"/{options.tenant}" if options.tenant else "")
        configs = f"{rest}/tasks/{{id}}/pushNotificationConfigs"
        self._routes: tuple[Route, ...] = (Route("GET", CARD, self._card),) if options.has_card else ()
        if options.rpc:
            self._routes += (Route("POST", "/rpc", self._rpc),)
            return
        self._routes += (
            Route("POST", f"{rest}/message:send", self._rest(self._send)),
            Route("GET", f"{rest}/tasks", self._rest(self._list)),
            Route("GET", f"{rest}/tasks/{{id}}", self._rest(self._get)),
            Route("POST", f"{rest}/tasks/{{id}}:cancel", self._rest(self._cancel)),
            Route("POST", f"{rest}/tasks/{{id}}:subscribe", self._subscribed),
            Route("POST", configs, self._rest(self._create_push)),
            Route("GET", configs, self._rest(self._list_pushes)),
            Route("GET", f"{configs}/{{push}}", self._rest(self._get_push)),
            Route("DELETE", f"{configs}/{{push}}", self._rest(self._delete_push)),
            Route("GET", f"{rest}/extendedAgentCard", self._rest(lambda _: self._agent_card(""))),
        )

    @classmethod
    def build(cls, stage: Stage, options: Mapping[str, object]) -> Self:
        """Make the agent."""
        return cls(stage, make_options(A2AOptions, options))

    @property
    def routes(self) -> Sequence[Route]:
        """The endpoints."""
        return self._routes

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
                    {"X-A2A-Notification-Token": push["token"], "Content-Type": _MEDIA},
                    msgspec.json.encode({"statusUpdate": {"taskId": name, "status": self._view(name).status()}}),
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

    # Who may ask ------------------------------------------------------------------------------------------------------

    def admit(self, request: Request) -> Reply | None:
        """Show the card to anybody; check the token and the version for all else."""
        if request.path == CARD:
            return None
        given = request.headers.get(self.options.api_key) if self.options.api_key else request.bearer
        if given != self.stage.token:
            return self.refusal(401, "The token is missing or not valid.", request.path)
        if request.headers.get("A2A-Version") != "1.0":
            return self._error(_RefusedError("VERSION_NOT_SUPPORTED", "The version is not supported."))
        return None

    def refusal(self, status: int, detail: str, path: str) -> Reply:  # noqa: ARG002
        """Answer with an error."""
        return Reply.of(status, {"error": {"code": status, "status": "UNKNOWN", "message": detail}})

    def _error(self, error: _RefusedError) -> Reply:
        status, word, code = _ERRORS[error.reason]
        info: Object = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.reason}
        details = [{**info, "domain": "a2a-protocol.org", "metadata": {}}]
        if self.options.rpc:
            return Reply.of(200, _answer(error={"code": code, "message": str(error), "data": details}))
        told: Object = {"code": status, "status": word, "message": str(error), "details": details}
        return Reply.of(status, {"error": told})

    def _card(self, request: Request) -> Reply:
        return Reply.of(200, self._agent_card(f"http://{request.headers.get('Host', 'localhost')}"))

    def _agent_card(self, here: str) -> Object:
        binding, path = ("JSONRPC", "/rpc") if self.options.rpc else ("HTTP+JSON", "/v1")
        url = self.options.url or f"{here}{path}"
        interface = {"url": url, "protocolBinding": binding, "protocolVersion": "1.0", "tenant": self.options.tenant}
        scheme: Object = {"httpAuthSecurityScheme": {"scheme": "Bearer"}}
        if self.options.api_key:
            scheme = {"apiKeySecurityScheme": {"location": "header", "name": self.options.api_key}}
        return {
            "name": "Emulated agent",
            "description": "Plays a script.",
            "version": "1.0.0",
            "supportedInterfaces": [{key: value for key, value in interface.items() if value}],
            "capabilities": {"streaming": True, "pushNotifications": True},
            "securitySchemes": {"token": scheme},
            "securityRequirements": [{"schemes": {"token": {"list": []}}}],
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [],
        }

    # The bindings -----------------------------------------------------------------------------------------------------

    def _rest(self, handle: Callable[[Object], JSON]) -> Callable[[Request], Reply]:
        def answer(request: Request) -> Reply:
            body = request.json if isinstance(request.json, dict) else {}
            given = {**body, "name": body.get("id"), **request.query, **request.params}
            try:
                return Reply.of(200, handle(given), content_type=_MEDIA)
            except _RefusedError as error:
                return self._error(error)

        return answer

    def _rpc(self, request: Request) -> Reply:
        call: Any = request.json
        handlers: Mapping[str, Callable[[Object], JSON]] = {
            "SendMessage": self._send,
            "ListTasks": self._list,
            "GetTask": self._get,
            "CancelTask": self._cancel,
            "CreateTaskPushNotificationConfig": lambda given: self._create_push(_renamed(given)),
            "ListTaskPushNotificationConfigs": lambda given: self._list_pushes(_renamed(given)),
            "GetTaskPushNotificationConfig": lambda given: self._get_push(_renamed(given)),
            "DeleteTaskPushNotificationConfig": lambda given: self._delete_push(_renamed(given)),
            "GetExtendedAgentCard": lambda _: self._agent_card(""),
        }
        try:
            if self.options.tenant != call["params"].pop("tenant", ""):
                raise _RefusedError("INVALID_PARAMS", "There is no such tenant.")
            if call["method"] == "SubscribeToTask":
                return self._stream(call["params"]["id"])
            if call["method"] not in handlers:
                raise _RefusedError("METHOD_NOT_FOUND", "Method not found")
            return Reply.of(200, _answer(result=handlers[call["method"]](call["params"])))
        except _RefusedError as error:
            return self._error(error)

    # What can be asked ------------------------------------------------------------------------------------------------

    def _send(self, given: Object) -> JSON:
        message: Object = given["message"]
        if not message.get("messageId") or not message.get("parts"):
            raise _RefusedError("INVALID_PARAMS", "A message has an id and parts.")
        self.messages.append(message)
        name = message.get("taskId")
        if name:
            return {"task": self._go_on(self._found(name), message)}
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
        return {"task": self._view(task).json()}

    def _go_on(self, task: Task, message: Object) -> Object:
        now = self.stage.now()
        state = task.state(now)
        if state in OVER:
            raise _RefusedError("UNSUPPORTED_OPERATION", f"Task {task.id} is in terminal state: {state}")
        if message.get("contextId") not in {None, "", task.context_id}:
            raise _RefusedError("INVALID_PARAMS", f"Context {message['contextId']} is not that of task {task.id}")
        kept = {**message, "contextId": task.context_id}
        if state in ASKS:
            answers = sum(each.get("role") == "ROLE_USER" for each in task.history)
            task = task.next(kept, self._play(task.context_id, answers, message, task), now)
        else:
            task = attrs.evolve(task, history=(*task.history, kept))
        self.tasks[task.id] = task
        return self._view(task.id).json()

    def _play(self, context: str, index: int, message: Object, task: Task | None = None) -> Turn:
        text = "\n".join(str(part["text"]) for part in message["parts"] if "text" in part)
        outputs: tuple[Output, ...] = ()
        if task is not None and task.turn.calls:
            said = text or msgspec.json.encode(message["parts"]).decode()
            outputs = (Output(tool_use_id=task.id, name=task.turn.calls[0].name, text=said),)
        asked = None if outputs else text
        return self.stage.play(Prompt(index=index, conversation_id=context, text=asked, outputs=outputs))

    def _get(self, given: Object) -> JSON:
        length = given.get("historyLength")
        return self._view(self._found(given["id"]).id).json(history=None if length is None else int(length))

    def _cancel(self, given: Object) -> JSON:
        task = self._found(given["id"])
        if task.state(self.stage.now()) in OVER:
            raise _RefusedError("TASK_NOT_CANCELABLE", "Task cannot be canceled")
        self.tasks[task.id] = attrs.evolve(task, canceled=self.stage.now())
        return self._view(task.id).json()

    def _list(self, given: Object) -> JSON:
        size, context = int(given.get("pageSize") or 50), given.get("contextId")
        if not 1 <= size <= _MOST:
            raise _RefusedError("INVALID_PARAMS", f"pageSize is from 1 to {_MOST}.")
        now = self.stage.now()
        rows = [task for task in self.tasks.values() if not context or task.context_id == context]
        rows.sort(key=lambda task: (task.changed(now), task.number), reverse=True)
        start = _place_of(str(given.get("pageToken") or ""))
        artifacts = str(given.get("includeArtifacts", "")).lower() == "true"
        length = given.get("historyLength")
        shown = [
            padded(self._view(task.id).json(history=None if length is None else int(length), artifacts=artifacts))
            for task in rows[start : start + size]
        ]
        token = base64.b64encode(str(start + size).encode()).decode() if start + size < len(rows) else ""
        return {"tasks": shown, "nextPageToken": token, "pageSize": size, "totalSize": len(rows)}

    def _subscribed(self, request: Request) -> Reply:
        try:
            return self._stream(request.params["id"])
        except _RefusedError as error:
            return self._error(error)

    def _stream(self, name: str) -> Reply:
        task = self._found(name)
        state = task.state(self.stage.now())
        if state in OVER:
            raise _RefusedError("UNSUPPORTED_OPERATION", f"Task {task.id} is in terminal state: {state}")
        seen: list[View] = []

        def follow() -> bytes | None:
            with self.lock:
                if seen and seen[-1].task.state(seen[-1].now) in OVER:
                    return None
                view = self._view(name)
            told = [*changes(seen[-1] if seen else None, view)]
            seen[:] = [view]
            events = [_answer(result=each) if self.options.rpc else each for each in told]
            return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)

        return Reply(content_type="text/event-stream", headers={"Cache-Control": "no-cache"}, follow=follow)

    def _create_push(self, given: Object) -> JSON:
        task = self._found(given["id"])
        name = given.get("name") or self.stage.ids.uuid()
        push = {"id": name, "taskId": task.id, "url": given["url"], "token": given.get("token", "")}
        self.pushes.setdefault(task.id, {})[name] = push
        return push

    def _list_pushes(self, given: Object) -> JSON:
        return {"configs": [*self.pushes.get(self._found(given["id"]).id, {}).values()]}

    def _get_push(self, given: Object) -> JSON:
        pushes = self.pushes.get(self._found(given["id"]).id, {})
        if given["push"] not in pushes:
            raise _RefusedError("TASK_NOT_FOUND", "There is no such configuration.")
        return pushes[given["push"]]

    def _delete_push(self, given: Object) -> JSON:
        self.pushes.get(self._found(given["id"]).id, {}).pop(given["push"], None)
        return {}

    def _found(self, name: str) -> Task:
        if name not in self.tasks:
            raise _RefusedError("TASK_NOT_FOUND", f"Task {name} not found")
        return self.tasks[name]

    def _view(self, name: str) -> View:
        return View(self.tasks[name], self.stage, self.stage.now())


def _answer(**what: JSON) -> Object:
    return {"jsonrpc": "2.0", "id": 1, **what}


def _renamed(given: Object) -> Object:
    """Return the parameters of a call about push notifications, called as those of the paths are."""
    return {**given, "id": given["taskId"], "push": given.get("id"), "name": given.get("id")}


def _place_of(token: str) -> int:
    try:
        found = base64.b64decode(token, validate=True).decode() if token else "0"
    except ValueError:
        found = ""
    if not re.fullmatch(r"\d+", found):
        raise _RefusedError("INVALID_PARAMS", "Token is not a valid base64-encoded cursor.")
    return int(found)
