"""
The endpoints of responses: create, retrieve, cancel, delete.

Pages: https://platform.openai.com/docs (api-reference/responses, guides/background, guides/function-calling,
guides/error-codes), and the types of the package `openai`. Nothing is idempotent, and nothing is listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self

import attrs
import msgspec
from attrs import frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Output, Prompt, Tool
from agentruns.emulator.vendor import Reply, Request, Route, Stage, Vendor, make_options

from .rows import PENDING, Row, call_id, items_of

_TYPES: Final[Mapping[int, str]] = {401: "authentication_error", 429: "rate_limit_error"}
_ANSWERS: Final = {answer: kind for kind, answer in PENDING.items()}


@frozen(kw_only=True)
class OpenAIResponsesOptions:
    """What may differ: `poll_after_ms` is a hint that answers give whose response is not over; None, they give none."""

    poll_after_ms: int | None = 100


class _RefusedError(Exception):
    """A request that is refused, by status, code and the parameter that is wrong."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param


class OpenAIResponses(Vendor):
    """The emulated API: a response plays one turn, and what answers its calls is another response."""

    name: ClassVar[str] = "openai_responses"
    prefix: ClassVar[str] = "/v1"

    def __init__(self, stage: Stage, options: OpenAIResponsesOptions) -> None:
        super().__init__(stage)
        self.options = options
        self.rows: dict[str, Row] = {}
        self._made = 0

    @classmethod
    def build(cls, stage: Stage, options: Mapping[str, object]) -> Self:
        """Make it with `OpenAIResponsesOptions`."""
        return cls(stage, make_options(OpenAIResponsesOptions, options))

    @property
    def runs_started(self) -> int:
        """Count the responses that were made, those that answer calls included."""
        return self._made

    @property
    def routes(self) -> Sequence[Route]:
        """The endpoints."""
        return (
            Route("POST", "/v1/responses", self._create),
            Route("GET", "/v1/responses/{id}", lambda request: self._show(self._row(request))),
            Route("POST", "/v1/responses/{id}/cancel", self._cancel),
            Route("DELETE", "/v1/responses/{id}", self._delete),
        )

    def admit(self, request: Request) -> Reply | None:
        """Take the key as a bearer, or in the header `api-key`, as Azure does."""
        if self.stage.token in {request.bearer, request.headers.get("api-key")}:
            return None
        return _error(401, "Incorrect API key provided.", code="invalid_api_key")

    def refusal(self, status: int, detail: str, path: str) -> Reply:  # noqa: ARG002
        """Answer with `{"error": {...}}` (guides/error-codes)."""
        return _error(status, detail)

    def _create(self, request: Request) -> Reply:
        try:
            row = self._made_of(request.json)
        except _RefusedError as refused:
            return _error(refused.status, refused.message, code=refused.code, param=refused.param)
        self.rows[row.id] = row
        self._made += 1
        return self._show(row)

    def _made_of(self, body: JSON) -> Row:
        if not isinstance(body, dict):
            raise _RefusedError(400, "We could not parse the JSON body of your request.")
        for name in ("model", "input"):
            if not body.get(name):
                raise _RefusedError(
                    400, f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name
                )
        if body.get("background") and body.get("store") is False:
            raise _RefusedError(400, "Background responses must be stored.", param="store")
        if body.get("previous_response_id") and body.get("conversation"):
            raise _RefusedError(400, "Only one of conversation and previous_response_id may be set.")
        before = self._before(body)
        given = _given(body["input"])
        _check_answers(before, given)
        response_id = self.stage.ids.word("resp_", 48)
        root = response_id if before is None else before.root
        prompt = _prompt(body, given, before, root)
        turn = self.stage.play(prompt)
        return Row(
            id=response_id,
            body=body,
            turn=turn,
            items=items_of(turn, _objects(body.get("tools")), self.stage.ids),
            began=self.stage.now(),
            index=prompt.index,
            root=root,
        )

    def _before(self, body: Mapping[str, JSON]) -> Row | None:
        """Return the response that a request goes on from: by its id, or the last of its conversation."""
        conversation, wanted = body.get("conversation"), body.get("previous_response_id")
        if conversation is not None:
            return next(
                (row for row in reversed(self.rows.values()) if row.body.get("conversation") == conversation), None
            )
        if wanted is None:
            return None
        before = self.rows.get(str(wanted))
        if before is None:
            raise _RefusedError(
                400,
                f"Previous response with id '{wanted}' not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return before

    def _row(self, request: Request) -> Row | None:
        return self.rows.get(request.params["id"])

    def _show(self, row: Row | None) -> Reply:
        if row is None:
            return _error(404, "Response with that id not found.")
        reply = Reply.of(200, row.json(self.stage))
        headers = {"x-request-id": self.stage.ids.word("req_", 24)}
        if self.options.poll_after_ms is not None and not row.is_over(self.stage.now()):
            headers["openai-poll-after-ms"] = str(self.options.poll_after_ms)
        return attrs.evolve(reply, headers=headers)

    def _cancel(self, request: Request) -> Reply:
        row = self._row(request)
        if row is not None and not row.body.get("background"):
            return _error(400, "Only background responses can be cancelled.")
        if row is not None and not row.is_over(self.stage.now()):
            row = self.rows[row.id] = attrs.evolve(row, cancelled=self.stage.now())
        return self._show(row)

    def _delete(self, request: Request) -> Reply:
        if self.rows.pop(request.params["id"], None) is None:
            return self._show(None)
        return Reply.of(200, {"id": request.params["id"], "object": "response", "deleted": True})


def _error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> Reply:
    kind = _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return Reply.of(status, {"error": {"message": message, "type": kind, "param": param, "code": code}})


def _objects(value: JSON) -> list[dict[str, JSON]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _given(said: JSON) -> dict[str, dict[str, JSON]]:
    """Return the items of an input that answer calls, by the ids that they name."""
    return {call_id(item): item for item in _objects(said) if item.get("type") in _ANSWERS}


def _check_answers(before: Row | None, given: Mapping[str, Mapping[str, JSON]]) -> None:
    """Refuse answers to what nobody asked, and a request that leaves a call without one (guides/function-calling)."""
    pending = {} if before is None else before.pending
    for named, item in given.items():
        if named not in pending or pending[named]["type"] != _ANSWERS[str(item["type"])]:
            raise _RefusedError(
                400, f"No tool call found for function call output with call_id {named}.", param="input"
            )
    for named in pending:
        if named not in given:
            raise _RefusedError(400, f"No tool output found for function call {named}.", param="input")


def _prompt(body: Mapping[str, JSON], given: Mapping[str, Mapping[str, JSON]], before: Row | None, root: str) -> Prompt:
    said = body["input"]
    pending = {} if before is None else before.pending
    declared = [each for each in _objects(body.get("tools")) if each.get("name")]
    choice = body.get("tool_choice")
    return Prompt(
        index=0 if before is None else before.index + 1,
        conversation_id=root,
        text=None if given else said if isinstance(said, str) else msgspec.json.encode(said).decode(),
        outputs=tuple(
            Output(tool_use_id=named, name=str(pending[named]["name"]), text=_said(item))
            for named, item in given.items()
        ),
        tools=tuple(
            Tool(name=str(each["name"]), input_schema=_schema(each.get("parameters")), server_side=False)
            for each in declared
        ),
        forced=str(choice.get("name")) if isinstance(choice, dict) and choice.get("name") else None,
        system_prompt=str(body["instructions"]) if body.get("instructions") else None,
        agent=str(body["model"]),
    )


def _said(item: Mapping[str, JSON]) -> str:
    told = item.get("output", item.get("approve"))
    return told if isinstance(told, str) else msgspec.json.encode(told).decode()


def _schema(value: JSON) -> Mapping[str, JSON]:
    return value if isinstance(value, dict) else {}
