"""What several test modules share: virtual time, a scripted wire, and answers as Narrative's pages show them."""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
import pytest

from agentruns import Backoff, Client, Retry
from agentruns._values.commands import Checkpoint, Command, Flow, SkippedRows
from agentruns._values.exchange import Request, Response
from agentruns.dialects import load
from agentruns.dialects.protocol import Dialect
from agentruns.errors import ConfigurationError, TransportError

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that does not wait: when nothing is ready, its time jumps to the next timer."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        timers = [timer for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and timers:  # type: ignore[attr-defined]
            self.now = max(self.now, min(timer.when() for timer in timers))
        super()._run_once()  # type: ignore[misc]


class Answer:
    """One answer of a scripted vendor; `after` seconds pass before it comes."""

    def __init__(
        self, body: Any = None, status: int = 200, headers: Mapping[str, str] | None = None, after: float = 0.0
    ) -> None:
        self.body = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self.status = status
        self.headers = dict(headers or {})
        self.after = after

    def __repr__(self) -> str:  # it names a test
        return f"Answer({self.status}, {self.body[:40]!r}, {self.headers})"


class Lost:
    """No answer: the connection breaks, after the request was sent or before."""

    def __init__(self, reason: str = "connection reset", *, sent: bool = True, final: bool = False) -> None:
        self.reason = reason
        self.sent = sent
        self.final = final

    def __repr__(self) -> str:
        return f"Lost({self.reason!r}, sent={self.sent}, final={self.final})"


Scripted = Answer | Lost | Callable[[Request], Answer]


class Wire:
    """A transport without a network: answers by method and path, the last one for ever; remembers what was asked."""

    def __init__(self, script: Mapping[str, Scripted | Iterable[Scripted]]) -> None:
        self.script = {
            line: [answers] if isinstance(answers, Answer | Lost) or callable(answers) else list(answers)
            for line, answers in script.items()
        }
        self.asked: list[tuple[float, Request]] = []
        self.is_open = False

    async def open(self, *_: object) -> None:
        self.is_open = True

    async def ready(self, *_: object) -> None:
        pass

    async def close(self) -> None:
        self.is_open = False

    async def __call__(self, request: Request) -> Response:
        self.asked.append((asyncio.get_running_loop().time(), request))
        answers = self.script[request.line]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Lost):
            raise TransportError(request, answer.reason, answer.sent, answer.final)
        if not isinstance(answer, Answer):
            answer = answer(request)
        await asyncio.sleep(answer.after)
        return Response(answer.status, answer.headers, answer.body, request)

    async def listen(self, request: Request, opened: Callable[[], None], _: object = None) -> Response | None:
        response = await self(request)
        opened()
        return None if response.status == 200 else response

    def times(self, line: str) -> list[float]:
        return [when for when, request in self.asked if request.line == line]

    def bodies(self, line: str) -> list[Any]:
        return [request.json for _, request in self.asked if request.line == line]


NOTHING = Response(204, {}, b"", Request("NONE", "/"))
"""What a flow is sent for a command that has no answer."""


def exchange(flow: Flow[T], *answers: Answer) -> tuple[list[Request], T]:
    """Drive a flow by hand: what it asked for, and what it returned."""
    asked: list[Request] = []
    wanted: Command = next(flow)
    while isinstance(wanted, Checkpoint | SkippedRows):
        wanted = flow.send(NOTHING)
    for answer in answers:
        assert isinstance(wanted, Request)
        asked.append(wanted)
        try:
            wanted = flow.send(Response(answer.status, answer.headers, answer.body, wanted))
            while isinstance(wanted, Checkpoint | SkippedRows):
                wanted = flow.send(NOTHING)
        except StopIteration as end:
            return asked, end.value
    raise AssertionError(f"one more answer is needed, to {wanted}")


STEADY = Backoff(initial=1.0, factor=1.0, jitter=0.0)
"""Poll every second."""


def client_of(
    wire: Wire,
    dialect: Dialect | None = None,
    *,
    retry: Retry = Retry(backoff=STEADY),  # noqa: B008 - frozen
    schedule: Backoff = STEADY,
) -> Client:
    return Client(dialect or load("narrative"), wire, retry=retry, schedule=schedule)


# Narrative ------------------------------------------------------------------------------------------------------------

CONVERSATION = "5e0c7d4a-93a5-4a37-8a0e-2f4b8c6d1e90"
RUN = "9a4e1f52-6b7c-4d0f-8f3e-0d2c5b1a7e64"
NEXT_RUN = "d37a0c88-4f21-4be6-9c95-1e6b2a0f7d43"
HEAD = f"GET /agents/conversations/{CONVERSATION}"
MESSAGES = f"{HEAD}/messages"
START = f"POST /agents/conversations/{CONVERSATION}/runs"
POLL = f"GET /agents/runs/{RUN}"
POLL_NEXT = f"GET /agents/runs/{NEXT_RUN}"

CALL = {
    "tool_use_id": "tooluse_Zk31mPqRt8XvB0aYw5LdGh",
    "name": "ops-approve_invoice",
    "arguments": {"invoice_no": "RE-2026-118", "amount_eur": 940},
}


def conversation(version: int = 0, **changes: Any) -> Answer:
    return Answer({
        "id": CONVERSATION,
        "company_id": 77,
        "user_id": 1204,
        "name": "invoice triage",
        "system_prompt": None,
        "defaults": {"model": "anthropic.claude-opus-4.6", "max_iterations": 6},
        "version": version,
        "created_at": "2026-06-02T08:15:04.120331Z",
        "updated_at": "2026-06-02T08:15:04Z",
        **changes,
    })


def run_body(status: str = "running", **changes: Any) -> dict[str, Any]:
    """Return a run as the get-run page shows it, in the given state."""
    over = status in {"completed", "failed", "requires_action"}
    body: dict[str, Any] = {
        "id": RUN,
        "conversation_id": CONVERSATION,
        "company_id": 77,
        "user_id": 1204,
        "client_op_id": "c8d2a7f0-1c5b-4f0c-bb52-7c0a3d9e6f21",
        "status": status,
        "effective_config": {"model": "anthropic.claude-opus-4.6", "max_iterations": 6},
        "submitted_inference_job_ids": [] if status == "pending" else ["e1b7c3d9-20a4-4c66-9a1f-5d8e7f6a4b32"],
        "pending_tool_calls": [CALL] if status == "requires_action" else [],
        "started_at": "2026-06-02T08:15:09.004512Z",
        "tool_choice": {"kind": "auto"},
        "iterations_used": 1 if over else None,
        "usage": {"prompt_tokens": 812, "completion_tokens": 64, "total_tokens": 876} if over else None,
        "final_text": "Done." if status == "completed" else None,
        "error": {
            "type": "AgentLoopMaxIterationsExceeded",
            "message": "max iterations exceeded after 2 iterations",
            "title": "Max Iterations Exceeded",
            "docs_url": "https://docs.narrative.io/reference/architecture/agent-conversations/errors/"
            "max-iterations-exceeded",
        }
        if status == "failed"
        else None,
        "completed_at": "2026-06-02T08:15:15Z" if over else None,
    }
    return body | changes


def run(status: str = "running", **changes: Any) -> Answer:
    return Answer(run_body(status, **changes))


def begun(**changes: Any) -> Answer:
    """Return what a POST is answered that begins a run; a repeated one is answered 200."""
    return Answer(run_body("pending", **changes), status=202)


def problem(status: int, slug: str, detail: str, **fields: Any) -> Answer:
    """Return an error body as the error pages show it."""
    headers = fields.pop("headers", None)
    page = f"https://docs.narrative.io/reference/architecture/agent-conversations/errors/{slug}"
    title = slug.replace("-", " ").title()
    log_id = "f2c41d7b-63a8-4e95-8b0d-5a9e7c1f2d38"
    body = {"type": page, "title": title, "status": status, "detail": detail, "instance": "/agents", "log_id": log_id}
    return Answer(body | fields, status, headers)


HALF = "\ud83d"
"""Half of a character, as a cut in the middle of UTF-16 leaves it."""


def refuses(begin: str, remedy: str) -> Any:
    """Return what expects an error that begins with a field and its value, and goes on to a remedy."""
    return pytest.raises(ConfigurationError, match=f"(?s)^{re.escape(begin)}.*{re.escape(remedy)}")
