"""Devin sessions as the pages of docs.devin.ai (API v1) show them, and their case in the kit."""

from collections.abc import Sequence
from typing import Any, ClassVar

from agentruns import Client
from agentruns.dialects import load
from agentruns.emulator import vendor as emulated
from agentruns.testing import Case
from tests.tables.played_runs import Product, Row

WORDS = {
    "pending": "working",
    "running": "working",
    "asking": "blocked",
    "done": "finished",
    "failed": "expired",
    "stopped": "expired",
}


class Devin(Product):
    name: ClassVar[str] = "devin"

    @property
    def routes(self) -> Sequence[emulated.Route]:
        return (
            emulated.Route("POST", "/v1/sessions", self._start),
            emulated.Route("GET", "/v1/sessions", self._list),
            emulated.Route("GET", "/v1/sessions/{id}", self._show),
            emulated.Route("DELETE", "/v1/sessions/{id}", self._terminate),
            emulated.Route("POST", "/v1/sessions/{id}/message", self._message),
        )

    def refusal(self, status: int, detail: str, path: str) -> emulated.Reply:
        error: Any = [{"loc": ["body"], "msg": detail, "type": "value_error"}] if status == 422 else detail
        return emulated.Reply.of(status, {"detail": error})

    def _start(self, request: emulated.Request) -> emulated.Reply:
        body: Any = request.json
        if not isinstance(body, dict) or not body.get("prompt"):
            return self.refusal(422, "Field required: prompt", request.path)
        row = self.begin(body, body["prompt"])
        url = f"https://app.devin.ai/sessions/{row.id}"
        return emulated.Reply.of(200, {"session_id": row.id, "url": url, "is_new_session": True})

    def _list(self, request: emulated.Request) -> emulated.Reply:
        rows = list(reversed(self.rows.values()))
        if "tags" in request.query:
            rows = [row for row in rows if request.query["tags"] in row.asked.get("tags", [])]
        at, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", 100))
        sessions = [self._json(row) for row in rows[at : at + limit]]
        for each in sessions:
            del each["messages"]
        return emulated.Reply.of(200, {"sessions": sessions})

    def _show(self, request: emulated.Request) -> emulated.Reply:
        row = self.rows.get(request.params["id"])
        return (
            self.refusal(404, "Session not found", request.path)
            if row is None
            else emulated.Reply.of(200, self._json(row))
        )

    def _terminate(self, request: emulated.Request) -> emulated.Reply:
        row = self.rows[request.params["id"]]
        if self.state(row) in {"done", "failed", "stopped"}:
            return self.refusal(400, "Session is in an exited state", request.path)
        self.stop(row)
        return emulated.Reply.of(200, {"detail": "Session terminated successfully"})

    def _message(self, request: emulated.Request) -> emulated.Reply:
        row, body = self.rows[request.params["id"]], request.json
        if not isinstance(body, dict) or not isinstance(body.get("message"), str):
            return self.refusal(422, "Field required: message", request.path)
        if self.state(row) == "asking":
            self.go_on(row, body["message"])
        return emulated.Reply.of(200, None)

    def _json(self, row: Row) -> dict[str, Any]:
        state, turn = self.state(row), row.turns[0]
        said = [("initial_user_message", row.asked["prompt"]), *(("user_message", each) for each in row.answers)]
        if state == "asking":
            said.append(("devin_message", f"{turn.calls[0].name}: {turn.calls[0].arguments}"))
        if state == "done":
            said.append(("devin_message", turn.text))
        messages = [
            {"event_id": f"e{number}", "message": text, "timestamp": self.at(row.began), "type": kind}
            for number, (kind, text) in enumerate(said)
        ]
        return {
            "session_id": row.id,
            "status": "running",
            "status_enum": WORDS.get(state, state),
            "created_at": self.at(row.created),
            "updated_at": self.at(row.began),
            "messages": messages,
            "playbook_id": None,
            "pull_request": None,
            "snapshot_id": None,
            "structured_output": None,
            "tags": row.asked.get("tags"),
            "title": row.asked.get("title"),
            **turn.extra,
        }


class DevinCase(Case):
    dialect = load("devin")
    emulated = Devin
    start_path = list_path = "/v1/sessions"
    resume_path = "/v1/sessions/*/message"
    poll_path = "/v1/sessions/*"
    id_field = row_id_field = "session_id"
    rows_field = "sessions"
    not_applicable: ClassVar = {
        "several pending actions are answered together": "a session waits for one message",
    }

    async def origin(self, client: Client, server: Any) -> Any:
        return self.dialect.Origin("Add a test.")
