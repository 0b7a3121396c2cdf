"""
The endpoints: threads, runs, state and history, assistants.

Pages: https://docs.langchain.com/langsmith (agent-server-api), and `/openapi.json` of langgraph-api 0.16.7; where they
leave something open, what that server does. Nothing is idempotent.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self

import msgspec
from attrs import field, frozen

from agentruns.emulator.schema import JSON, example
from agentruns.emulator.script import Output, Prompt, Tool, Turn
from agentruns.emulator.vendor import Reply, Request, Route, Stage, Vendor, make_options

from .rows import Checkpoint, Interrupt, Object, Row, Thread, assistant_id, moment, run_id, selected

_BRIEF: Final = Turn(running=0.01)
"""What a run does that answers only some of several interrupts, or none."""


@frozen(kw_only=True)
class LangGraphOptions:
    """What may differ: `graphs` are the names of those that are served; `asks` are nodes that the default agent has."""

    graphs: Sequence[str] = ("agent",)
    asks: Sequence[str] = field(default=("ask",))


class _RefusedError(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class LangGraph(Vendor):
    """The emulated API: a run plays one turn, whose calls are nodes that interrupt themselves."""

    name: ClassVar[str] = "langgraph"

    def __init__(self, stage: Stage, options: LangGraphOptions) -> None:
        super().__init__(stage)
        self.options = options
        self.threads: dict[str, Thread] = {}
        self._made = 0

    @classmethod
    def build(cls, stage: Stage, options: Mapping[str, object]) -> Self:
        """Make it with `LangGraphOptions`."""
        return cls(stage, make_options(LangGraphOptions, options))

    @property
    def runs_started(self) -> int:
        """Count the runs that were made, those that answer interrupts included."""
        return self._made

    @property
    def routes(self) -> Sequence[Route]:
        """The endpoints."""
        return (
            Route("POST", "/assistants/search", self._assistants),
            Route("GET", "/assistants/{assistant}", self._assistant),
            Route("GET", "/assistants/{assistant}/schemas", self._schemas),
            Route("POST", "/threads", self._make_thread),
            Route("POST", "/threads/search", self._search),
            Route("GET", "/threads/{thread}", lambda request: _json(self._thread(request).json(self.stage))),
            Route("DELETE", "/threads/{thread}", self._delete_thread),
            Route("GET", "/threads/{thread}/state", self._state),
            Route("POST", "/threads/{thread}/state", self._update),
            Route("POST", "/threads/{thread}/history", self._history),
            Route("POST", "/threads/{thread}/runs", self._start),
            Route("GET", "/threads/{thread}/runs", self._list),
            Route("GET", "/threads/{thread}/runs/{run}", self._show),
            Route("POST", "/threads/{thread}/runs/{run}/cancel", self._cancel),
            Route("GET", "/threads/{thread}/runs/{run}/stream", self._stream),
        )

    def admit(self, request: Request) -> Reply | None:
        """Take the key in the header `x-api-key`."""
        if request.headers.get("x-api-key") == self.stage.token:
            return None
        return self.refusal(401, "Unauthorized", request.path)

    def refusal(self, status: int, detail: str, path: str) -> Reply:  # noqa: ARG002
        """Answer with `{"detail": ...}`."""
        return _json({"detail": detail}, status)

    def _handle(self, route: Route, request: Request) -> Reply:
        try:
            return route.handle(request)
        except _RefusedError as refused:
            return self.refusal(refused.status, refused.detail, request.path)

    # Assistants and threads -------------------------------------------------------------------------------------------

    def _assistants(self, request: Request) -> Reply:
        wanted = _mapping(request.json).get("graph_id")
        return _json([self._assistant_json(each) for each in self.options.graphs if wanted in {None, each}])

    def _assistant_json(self, graph: str) -> Object:
        made = moment(self.stage, 0.0)
        return {
            "assistant_id": assistant_id(graph),
            "graph_id": graph,
            "name": graph,
            "description": None,
            "config": {},
            "context": {},
            "metadata": {"created_by": "system"},
            "version": 1,
            "created_at": made,
            "updated_at": made,
        }

    def _graph(self, name: JSON) -> str:
        found = [each for each in self.options.graphs if name in {each, assistant_id(each)}]
        if not found:
            graphs = ", ".join(self.options.graphs)
            raise _RefusedError(
                422,
                f"Invalid assistant: '{name}'. Must be either:\n- A valid assistant UUID, or\n"
                f"- One of the registered graphs: {graphs}",
            )
        return found[0]

    def _assistant(self, request: Request) -> Reply:
        return _json(self._assistant_json(self._by_id(request)))

    def _by_id(self, request: Request) -> str:
        wanted = _uuid(request.params["assistant"], "assistant")
        if all(assistant_id(each) != wanted for each in self.options.graphs):
            raise _RefusedError(404, f"Assistant with ID {wanted} not found")
        return self._graph(wanted)

    def _schemas(self, request: Request) -> Reply:
        schema: JSON = {"type": "object", "properties": {"messages": {"type": "array"}}}
        names = ("input_schema", "output_schema", "state_schema", "config_schema", "context_schema")
        return _json({"graph_id": self._by_id(request), **dict.fromkeys(names, schema)})

    def _make_thread(self, request: Request) -> Reply:
        body = _mapping(request.json)
        name = body.get("thread_id") or self.stage.ids.uuid()
        thread_id = _uuid(str(name), "thread")
        if thread_id in self.threads and body.get("if_exists") != "do_nothing":
            raise _RefusedError(409, f"Thread with ID {thread_id} already exists")
        made = Thread(id=thread_id, metadata=dict(_mapping(body.get("metadata"))), made=self.stage.now())
        return _json(self.threads.setdefault(thread_id, made).json(self.stage))

    def _search(self, request: Request) -> Reply:
        body = _mapping(request.json)
        ids = body.get("ids") or []
        named = [_uuid(str(each), "thread", 400) for each in (ids if isinstance(ids, list) else [])]
        rows = [each.json(self.stage) for each in self.threads.values() if not named or each.id in named]
        rows = [
            row
            for row in rows
            if _has(row["metadata"], body.get("metadata")) and body.get("status") in {None, row["status"]}
        ]
        rows.sort(key=lambda row: str(row["updated_at"]), reverse=True)
        return _json(selected(_window(rows, body.get("limit"), body.get("offset")), body.get("select")))

    def _thread(self, request: Request) -> Thread:
        thread_id = _uuid(request.params["thread"], "thread")
        if thread_id not in self.threads:
            raise _RefusedError(404, f"Thread with ID {thread_id} not found")
        return self.threads[thread_id]

    def _delete_thread(self, request: Request) -> Reply:
        del self.threads[self._thread(request).id]
        return Reply(status=204)

    def _state(self, request: Request) -> Reply:
        thread = self._thread(request)
        states = thread.checkpoints(self.stage.now())
        return _json(thread.state_json(states[-1] if states else None, self.stage))

    def _update(self, request: Request) -> Reply:
        thread, said = self._thread(request), _mapping(request.json)
        states = thread.checkpoints(self.stage.now())
        if not states or thread.busy(self.stage.now()):
            raise _RefusedError(409, "The thread has no state that could be changed now.")
        values = states[-1].run.changed
        values.update(_mapping(said.get("values")))
        return _json({"checkpoint": thread.state_json(states[-1], self.stage)["checkpoint"]})

    def _history(self, request: Request) -> Reply:
        thread, body = self._thread(request), _mapping(request.json)
        rows = [thread.state_json(each, self.stage) for each in reversed(thread.checkpoints(self.stage.now()))]
        rows = [row for row in rows if _has(row["metadata"], body.get("metadata"))]
        return _json(list(_window(rows, body.get("limit", 1), 0)))

    # Runs -------------------------------------------------------------------------------------------------------------

    def _start(self, request: Request) -> Reply:
        body, now = _mapping(request.json), self.stage.now()
        thread_id = _uuid(request.params["thread"], "thread")
        graph = self._graph(body.get("assistant_id"))
        if body.get("context") and "configurable" in _mapping(body.get("config")):
            raise _RefusedError(400, "Cannot specify both configurable and context. Prefer setting context alone.")
        given = dict(_mapping(body.get("metadata")))
        made = {"graph_id": graph, "assistant_id": assistant_id(graph)}
        thread = self.threads.get(thread_id)
        if thread is None:
            if body.get("if_not_exists") != "create":
                raise _RefusedError(404, f"Thread with ID {thread_id} not found")
            thread = self.threads[thread_id] = Thread(id=thread_id, metadata={**made, **given}, made=now)
        elif thread.busy(now):
            raise _RefusedError(
                409,
                "Thread is already running a task. Wait for it to finish or choose a different multitask strategy.",
            )
        states = thread.checkpoints(now)
        row = self._row(thread, states[-1] if states else None, body, graph)
        row.metadata.update({"created_by": "system", **thread.metadata, **given, **made})
        thread.rows.append(row)
        self._made += 1
        return _json(thread.run_json(row, self.stage))

    def _row(self, thread: Thread, state: Checkpoint | None, body: Mapping[str, JSON], graph: str) -> Row:
        resume = _mapping(_mapping(body.get("command")).get("resume"))
        pending = () if state is None else state.pending
        answers = {each.id: resume[each.id] for each in pending if each.id in resume}
        whole = not resume or (bool(pending) and len(answers) == len(pending))
        index = sum(each.whole for each in thread.rows)
        outputs = () if state is None or not resume else _outputs(state, answers)
        turn = _BRIEF
        if whole:
            turn = self.stage.play(_prompt(thread, index, body, outputs, graph, self.options.asks))
        return Row(
            id=run_id(self.stage.wall(self.stage.now()), self.stage.ids.uuid()),
            body=body,
            metadata={},
            turn=turn,
            interrupts=self._interrupts(turn),
            values=_values(turn),
            given=answers,
            whole=whole,
            began=self.stage.now(),
        )

    def _interrupts(self, turn: Turn) -> tuple[Interrupt, ...]:
        return tuple(
            Interrupt(
                self.stage.ids.uuid().replace("-", ""),
                call.name,
                example(_ASK) if call.arguments is None else dict(call.arguments),
            )
            for call in turn.calls
        )

    def _list(self, request: Request) -> Reply:
        thread, query = self._thread(request), request.query
        rows = [thread.run_json(row, self.stage) for row in reversed(thread.rows)]
        rows = [row for row in rows if query.get("status") in {None, row["status"]}]
        return _json(list(_window(rows, query.get("limit"), query.get("offset"))))

    def _run(self, request: Request) -> tuple[Thread, Row]:
        thread, name = self._thread(request), _uuid(request.params["run"], "run")
        for row in thread.rows:
            if row.id == name:
                return thread, row
        raise _RefusedError(404, "Not Found")

    def _show(self, request: Request) -> Reply:
        thread, row = self._run(request)
        return _json(thread.run_json(row, self.stage))

    def _cancel(self, request: Request) -> Reply:
        _, row = self._run(request)
        if not row.moves(self.stage.now()):
            raise _RefusedError(404, "No matching runs to cancel.")
        row.cancelled = self.stage.now()
        return Reply(status=202)

    def _stream(self, request: Request) -> Reply:
        thread, row = self._run(request)
        told = [_event("metadata", {"run_id": row.id, "attempt": 1})] if row.moves(self.stage.now()) else []

        def follow() -> bytes | None:
            with self.lock:
                if told:
                    return told.pop()
                now = self.stage.now()
                if row.moves(now):
                    return b""
                if row.id in seen:
                    return None
                seen.add(row.id)
                if row.error is not None:
                    return _event("error", row.error)
                states = thread.checkpoints(now)
                return _event("values", states[-1].values if states else {})

        seen: set[str] = set() if told else {row.id}
        return Reply(content_type="text/event-stream", follow=follow)


_ASK: Final[JSON] = {"type": "object", "properties": {"question": {"type": "string"}}}


def _json(body: JSON, status: int = 200) -> Reply:
    return Reply.of(status, body)


def _event(name: str, data: JSON) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


def _mapping(value: JSON) -> Mapping[str, JSON]:
    return value if isinstance(value, Mapping) else {}


def _has(value: JSON, wanted: JSON) -> bool:
    held = _mapping(value)
    return all(held.get(name) == part for name, part in _mapping(wanted).items())


def _window(rows: Sequence[Object], limit: JSON, offset: JSON) -> Sequence[Object]:
    first = int(str(offset or 0))
    return rows[first : first + int(str(limit or 10))]


def _uuid(text: str, what: str, status: int = 422) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise _RefusedError(status, f"Invalid {what} ID: must be a UUID") from None


def _outputs(state: Checkpoint, answers: Mapping[str, JSON]) -> tuple[Output, ...]:
    said = {**state.answered, **answers}
    return tuple(
        Output(tool_use_id=each.id, name=each.node, text=_text(said.get(each.id))) for each in state.interrupts
    )


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _prompt(
    thread: Thread,
    index: int,
    body: Mapping[str, JSON],
    outputs: tuple[Output, ...],
    graph: str,
    asks: Sequence[str],
) -> Prompt:
    return Prompt(
        index=index,
        conversation_id=thread.id,
        text=None if outputs else _text(body.get("input")),
        outputs=outputs,
        tools=tuple(Tool(name=each, input_schema=_mapping(_ASK)) for each in asks),
        agent=graph,
    )


def _values(turn: Turn) -> Object:
    if isinstance(turn.structured, Mapping):
        return dict(turn.structured)
    return {} if turn.text is None else {"answer": turn.text}
