"""Narrative's HTTP face: read the request, ask the state, write the answer."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC
from http import HTTPStatus
from typing import ClassVar, Literal, Self

import msgspec
from attrs import field, frozen, validators

from agentruns.emulator.schema import JSON
from agentruns.emulator.vendor import Reply, Request, Route, Stage, Vendor, make_options

from .bodies import CreateBody, StartBody, decode, outputs_under
from .errors import PROBLEMS, ProblemError, bad_request, planted
from .rows import NULLABLE, POPULATED, Absent, Caller, Conversation, Message, Object, Run
from .state import Rules, State

_bool = validators.instance_of(bool)
_PERMISSIONS = frozenset({"read", "write"})
_HELD = "workflow-start-failed"  # needs a row to be made, unlike every other planned problem


@frozen(kw_only=True)
class NarrativeOptions(Rules):
    """The options of `Emulator("narrative", ...)`.

    * `revision`: "A" or "B", the two states of the vendor's pages. Both kinds of tool lists are taken under both;
      the revision decides which empty list is filled in, where aliases have to be unique, and whether answers may be
      in `final_structured_output`.
    * `strict`: refuse unknown fields, and results of tools under any name but `content_blocks`.
    * `output_field`: the one name under which results of tools are taken, in place of `content_blocks` and `content`:
      no page settles it.
    * `drops_tools`: the list of tools that belongs to the other revision is dropped without a word; `refuses_tools`: it
      is refused.
    * `populated`: runs have the fields of the "schema" of get-a-runs-current-state in every state, or those of its
      "table", which has fewer for a run that is pending or running.
    * `keep_failed`: failed runs leave their turns, where the pages say so.
    * `message_while_pending`: a user message is taken while tool calls wait.
    * `unreachable_mcp`: URLs of MCP servers that do not answer.
    * `company_id`, `user_id`: the owner of the emulator's token; `others` maps more tokens to (company, user);
      `permissions`: what tokens may do.
    * `auth_errors`: "problem" or "oauth" bodies for 401 and 403; `log_id_field`: "log_id" or "logId".
    * `absent`: fields that do not apply are "null", left out ("omit"), or either ("random").
    * `fractional_seconds`: six fraction digits in timestamps, or none. `max_per_page`: the cap of per_page.
    * `words`: other words for the five of `status`, such as {"completed": "done"}, on runs as they are read.
    """

    company_id: int = 1
    user_id: int = 407
    others: Mapping[str, tuple[int, int]] = field(factory=dict, repr=False)
    permissions: frozenset[str] = field(
        default=_PERMISSIONS, converter=frozenset, validator=validators.deep_iterable(validators.in_(_PERMISSIONS))
    )
    auth_errors: Literal["problem", "oauth"] = field(default="problem", validator=validators.in_(("problem", "oauth")))
    log_id_field: Literal["log_id", "logId"] = field(default="log_id", validator=validators.in_(("log_id", "logId")))
    absent: Absent = field(default="null", validator=validators.in_(("null", "omit", "random")))
    fractional_seconds: bool = field(default=True, validator=_bool)
    max_per_page: int = field(default=1000, validator=validators.ge(1))
    output_field: str = field(default="", validator=validators.instance_of(str))
    populated: Literal["schema", "table"] = field(default="schema", validator=validators.in_(("schema", "table")))
    words: Mapping[str, str] = field(factory=dict)


class Narrative(Vendor):
    """The vendor Narrative.io: agent conversations, runs and messages."""

    name: ClassVar[str] = "narrative"
    plants: ClassVar[Mapping[str, tuple[str, str]]] = {slug: kind.place for slug, kind in PROBLEMS.items()}

    def __init__(self, stage: Stage, options: NarrativeOptions) -> None:
        super().__init__(stage)
        self.options = options
        self._state = State(stage, options)
        self._callers = {stage.token: Caller(options.company_id, options.user_id)}
        self._callers.update({token: Caller(*owner) for token, owner in options.others.items()})
        self._routes = tuple(
            Route(method, template, self._guarded(handle))
            for method, template, handle in (
                ("GET", "/whoami", self._whoami),
                ("POST", "/agents/conversations", self._create),
                ("GET", "/agents/conversations", self._list),
                ("GET", "/agents/conversations/{id}", self._get),
                ("GET", "/agents/conversations/{id}/messages", self._messages),
                ("POST", "/agents/conversations/{id}/runs", self._start),
                ("GET", "/agents/runs/{id}", self._run),
            )
        )

    @classmethod
    def build(cls, stage: Stage, options: Mapping[str, object]) -> Self:
        """Make the vendor from the options given to the emulator."""
        return cls(stage, make_options(NarrativeOptions, options))

    @property
    def conversations(self) -> Mapping[str, Conversation]:
        """All conversations by id, oldest first, as they stand now."""
        with self.lock:
            return self._state.conversations

    @property
    def runs(self) -> Mapping[str, Run]:
        """All runs by id, oldest first, as they stand now."""
        with self.lock:
            return self._state.runs

    @property
    def messages(self) -> Mapping[str, Message]:
        """All messages by id, in the order of conversations and sequence_no."""
        return {message.id: message for row in self.conversations.values() for message in row.messages}

    @property
    def runs_started(self) -> int:
        """Count the runs whose workflow started; a replay or a refused request starts none."""
        return sum(run.began is not None for run in self.runs.values())

    def example_fields(self) -> Mapping[str, JSON]:
        """Create a conversation, and give its id with a message."""
        defaults: JSON = {
            "model": "emulated",
            "data_plane_id": self.stage.ids.uuid(),
            "max_iterations": 8,
            "max_tokens": 2048,
            "output_format_schema": {
                "type": "object",
                "additionalProperties": False,
                "required": ["text"],
                "properties": {"text": {"type": "string"}},
            },
        }
        content = msgspec.json.encode({"defaults": defaults})
        request = Request(
            method="POST",
            path=f"{self.prefix}/agents/conversations",
            headers={"Authorization": f"Bearer {self.stage.token}"},
            content=content,
        )
        made = self.respond(request)
        return {"conversation_id": msgspec.json.decode(made.content)["id"], "text": "Hello."}

    def runs_of(self, conversation_id: str) -> tuple[Run, ...]:
        """List the runs of one conversation, oldest first."""
        return tuple(run for run in self.runs.values() if run.conversation_id == conversation_id)

    def spoil(self, *ids: str) -> None:
        """Make stored rows unreadable: GETs that touch them answer 500 (errors/invalid-stored-field)."""
        with self.lock:
            self._state.corrupt.update(ids)

    @property
    def routes(self) -> tuple[Route, ...]:
        """The endpoints."""
        return self._routes

    def admit(self, request: Request) -> Reply | None:
        """Check the token and its permission: write for POST, read for GET, none for GET /whoami."""
        if request.bearer not in self._callers:
            return self._denied(401, "invalid_token", "The access token is missing or not valid.", request.path)
        needed = "write" if request.method == "POST" else "read"
        if request.path == "/whoami" or needed in self.options.permissions:
            return None
        return self._denied(403, "insufficient_scope", f"The token lacks agent_conversations {needed}.", request.path)

    def refusal(self, status: int, detail: str, path: str) -> Reply:
        """Answer with a problem that has no page of its own."""
        return self._problem(ProblemError(status, detail), path)

    def _denied(self, status: int, error: str, detail: str, path: str) -> Reply:
        if self.options.auth_errors == "oauth":
            return Reply.of(status, {"error": error, "error_description": detail})
        return self.refusal(status, detail, path)

    def _problem(self, error: ProblemError, path: str) -> Reply:
        body: Object = {
            "type": error.type,
            "title": error.title,
            "status": error.status,
            "detail": error.detail,
            "instance": path,
            self.options.log_id_field: self.stage.ids.uuid(),
        }
        return Reply.of(error.status, body, content_type="application/problem+json")

    def _guarded(self, handle: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
        def guarded(request: Request) -> Reply:
            try:
                if request.planted is not None and request.planted != _HELD:
                    raise planted(request.planted)
                return handle(request)
            except ProblemError as error:
                return self._problem(error, request.path)

        return guarded

    def _whoami(self, request: Request) -> Reply:
        caller = self._caller(request)
        return Reply.of(200, {"user_id": caller.user_id, "current_company_scope": {"company_id": caller.company_id}})

    def _create(self, request: Request) -> Reply:
        body = decode(CreateBody, request.content, strict=self.options.strict)
        row = self._state.create(body, self._caller(request))
        return Reply.of(HTTPStatus.CREATED, self._written(row.json(self._stamp)))

    def _list(self, request: Request) -> Reply:
        page = _number(request, "page", least=1, otherwise=1)
        size = min(_number(request, "per_page", least=1, otherwise=50), self.options.max_per_page)
        caller = self._caller(request)
        # list-the-calling-users-agent-conversations: newest first
        mine = [row for row in reversed(list(self._state.conversations.values())) if row.caller == caller]
        pages = -(-len(mine) // size)
        body: Object = {
            "prev_page": min(page - 1, pages) or None,
            "current_page": page,
            "next_page": page + 1 if page < pages else None,
            "total_records": len(mine),
            "total_pages": pages,
            "records": [self._written(row.json(self._stamp)) for row in mine[(page - 1) * size : page * size]],
        }
        return Reply.of(200, body)

    def _get(self, request: Request) -> Reply:
        row = self._state.conversation(_id(request), self._caller(request))
        self._state.readable(row.id)
        return Reply.of(200, self._written(row.json(self._stamp)))

    def _messages(self, request: Request) -> Reply:
        since = _number(request, "since", least=0, otherwise=0)
        row = self._state.conversation(_id(request), self._caller(request))
        fresh = row.messages[since:]
        # errors/invalid-stored-field: a larger `since` skips one bad row
        self._state.readable(row.id, *(message.id for message in fresh))
        return Reply.of(
            200, {"current_version": row.version, "messages": [message.json(self._stamp) for message in fresh]}
        )

    def _start(self, request: Request) -> Reply:
        key = _id(request)
        content = request.content
        if self.options.output_field:
            content = outputs_under(self.options.output_field, content)
        body = decode(StartBody, content, strict=self.options.strict)
        run, new = self._state.start(key, self._caller(request), body, stillborn=request.planted == _HELD)
        return Reply.of(HTTPStatus.ACCEPTED if new else HTTPStatus.OK, self._run_json(run))

    def _run(self, request: Request) -> Reply:
        run = self._state.run(_id(request), self._caller(request))
        self._state.readable(run.id)
        return Reply.of(200, self._run_json(run))

    def _caller(self, request: Request) -> Caller:
        return self._callers[request.bearer or ""]

    def _run_json(self, run: Run) -> Object:
        row = run.json(self._stamp, structured=self.options.revision == "B")
        if self.options.populated == "table":
            row = {name: value for name, value in row.items() if name in POPULATED.get(run.status, row)}
        row["status"] = self.options.words.get(run.status, run.status)
        return self._written(row)

    def _written(self, row: Object) -> Object:
        """Leave out or keep the fields that are null, as the options say."""
        match self.options.absent:
            case "null":
                return row
            case "omit":
                return {name: v for name, v in row.items() if v is not None or name not in NULLABLE}
            case _:
                coin = self.stage.ids.coin
                return {name: v for name, v in row.items() if v is not None or name not in NULLABLE or coin()}

    def _stamp(self, seconds: float) -> str:
        moment = self.stage.wall(seconds).astimezone(UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if self.options.fractional_seconds else "%Y-%m-%dT%H:%M:%SZ")


def _id(request: Request) -> str:
    try:
        return str(uuid.UUID(request.params["id"]))
    except ValueError:
        raise bad_request(f"{request.params['id']!r} is not a UUID") from None


def _number(request: Request, name: str, *, least: int, otherwise: int) -> int:
    text = request.query.get(name, str(otherwise))
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise bad_request(f"{name} is a whole number from {least} on, not {text!r}")
    return int(text)
