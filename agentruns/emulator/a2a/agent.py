"""The endpoints of an emulated agent, in both bindings (specification, sections 9 and 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import msgspec

from agentruns.emulator.schema import JSON
from agentruns.emulator.vendor import Reply, Request, Route, Stage, make_options

from .operations import MEDIA, A2AOptions, Agent, RefusedError
from .tasks import OVER, Object, View, changes

CARD: Final = "/.well-known/agent-card.json"
_ERRORS: Final[Mapping[str, tuple[int, str, int]]] = {
    "TASK_NOT_FOUND": (404, "NOT_FOUND", -32001),
    "TASK_NOT_CANCELABLE": (400, "FAILED_PRECONDITION", -32002),
    "UNSUPPORTED_OPERATION": (400, "FAILED_PRECONDITION", -32004),
    "INVALID_PARAMS": (400, "INVALID_ARGUMENT", -32602),
    "METHOD_NOT_FOUND": (404, "NOT_FOUND", -32601),
    "VERSION_NOT_SUPPORTED": (400, "FAILED_PRECONDITION", -32009),
}
"""By reason, the status of HTTP, that of google.rpc, and the code of JSON-RPC (section 5.4)."""


class A2A(Agent):
    """An emulated agent: `tasks` by id, and the `messages` that it got."""

    name: ClassVar[str] = "a2a"

    def __init__(self, stage: Stage, options: A2AOptions) -> None:
        super().__init__(stage, options)
        rest = "/v1" + (f"/{options.tenant}" if options.tenant else "")
        configs = f"{rest}/tasks/{{id}}/pushNotificationConfigs"
        self._routes: tuple[Route, ...] = (Route("GET", CARD, self._card),) if options.has_card else ()
        if options.rpc:
            self._routes += (Route("POST", "/rpc", self._rpc),)
            return
        self._routes += (
            Route("POST", f"{rest}/message:send", self._rest(self.send_message)),
            Route("GET", f"{rest}/tasks", self._rest(self.list_tasks)),
            Route("GET", f"{rest}/tasks/{{id}}", self._rest(self.get_task)),
            Route("POST", f"{rest}/tasks/{{id}}:cancel", self._rest(self.cancel_task)),
            Route("POST", f"{rest}/tasks/{{id}}:subscribe", self._subscribed),
            Route("POST", configs, self._rest(self.create_push)),
            Route("GET", configs, self._rest(self.list_pushes)),
            Route("GET", f"{configs}/{{push}}", self._rest(self.get_push)),
            Route("DELETE", f"{configs}/{{push}}", self._rest(self.delete_push)),
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

    # Who may ask ------------------------------------------------------------------------------------------------------

    def admit(self, request: Request) -> Reply | None:
        """Show the card to anybody; check the token and the version for all else."""
        if request.path == CARD:
            return None
        given = request.headers.get(self.options.api_key) if self.options.api_key else request.bearer
        if given != self.stage.token:
            return self.refusal(401, "The token is missing or not valid.", request.path)
        if request.headers.get("A2A-Version") != "1.0":
            return self._error(RefusedError("VERSION_NOT_SUPPORTED", "The version is not supported."))
        return None

    def refusal(self, status: int, detail: str, path: str) -> Reply:  # noqa: ARG002
        """Answer with an error."""
        return Reply.of(status, {"error": {"code": status, "status": "UNKNOWN", "message": detail}})

    def _error(self, error: RefusedError) -> Reply:
        status, word, code = _ERRORS[error.reason]
        info: Object = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.reason}
        details: list[Object] = [{**info, "domain": "a2a-protocol.org", "metadata": {}}]
        if error.field:
            violation = {"field": error.field, "description": str(error)}
            details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
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
                return Reply.of(200, handle(given), content_type=MEDIA)
            except RefusedError as error:
                return self._error(error)

        return answer

    def _rpc(self, request: Request) -> Reply:
        call: Any = request.json
        handlers: Mapping[str, Callable[[Object], JSON]] = {
            "SendMessage": self.send_message,
            "ListTasks": self.list_tasks,
            "GetTask": self.get_task,
            "CancelTask": self.cancel_task,
            "CreateTaskPushNotificationConfig": lambda given: self.create_push(_renamed(given)),
            "ListTaskPushNotificationConfigs": lambda given: self.list_pushes(_renamed(given)),
            "GetTaskPushNotificationConfig": lambda given: self.get_push(_renamed(given)),
            "DeleteTaskPushNotificationConfig": lambda given: self.delete_push(_renamed(given)),
            "GetExtendedAgentCard": lambda _: self._agent_card(""),
        }
        try:
            if self.options.tenant != call["params"].pop("tenant", ""):
                raise RefusedError("INVALID_PARAMS", "There is no such tenant.")
            if call["method"] == "SubscribeToTask":
                return self._stream(call["params"]["id"])
            if call["method"] not in handlers:
                raise RefusedError("METHOD_NOT_FOUND", "Method not found")
            return Reply.of(200, _answer(result=handlers[call["method"]](call["params"])))
        except RefusedError as error:
            return self._error(error)

    def _subscribed(self, request: Request) -> Reply:
        try:
            return self._stream(request.params["id"])
        except RefusedError as error:
            return self._error(error)

    def _stream(self, name: str) -> Reply:
        task = self.found(name)
        state = task.state(self.stage.now())
        if state in OVER:
            raise RefusedError("UNSUPPORTED_OPERATION", f"Task {task.id} is in terminal state: {state}")
        seen: list[View] = []

        def follow() -> bytes | None:
            with self.lock:
                if seen and seen[-1].task.state(seen[-1].now) in OVER:
                    return None
                view = self.view(name)
            told = [*changes(seen[-1] if seen else None, view)]
            seen[:] = [view]
            events = [_answer(result=each) if self.options.rpc else each for each in told]
            return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)

        return Reply(content_type="text/event-stream", headers={"Cache-Control": "no-cache"}, follow=follow)


def _answer(**what: JSON) -> Object:
    return {"jsonrpc": "2.0", "id": 1, **what}


def _renamed(given: Object) -> Object:
    """Return the parameters of a call about push notifications, called as those of the paths are."""
    return {**given, "id": given["taskId"], "push": given.get("id"), "name": given.get("id")}
