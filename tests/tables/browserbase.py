"""Browserbase agents as the pages of docs.browserbase.com show them, and their case in the kit."""

from collections.abc import Sequence
from typing import Any, ClassVar

from agentruns import Client
from agentruns.dialects import load
from agentruns.emulator import vendor as emulated
from agentruns.testing import Case
from tests.tables.played_runs import LOST, Product, Row

WORDS = {
    "pending": "PENDING",
    "running": "RUNNING",
    "asking": "PAUSED",
    "done": "COMPLETED",
    "failed": "FAILED",
    "stopped": "STOPPED",
}


class Browserbase(Product):
    name: ClassVar[str] = "browserbase"

    @property
    def routes(self) -> Sequence[emulated.Route]:
        run = "/v1/agents/runs/{id}"
        return (
            emulated.Route("POST", "/v1/agents/runs", self._start),
            emulated.Route("GET", "/v1/agents/runs", self._list),
            emulated.Route("GET", run, lambda request: self._shown(request, 200)),
            emulated.Route("GET", f"{run}/messages", self._messages),
            emulated.Route("POST", f"{run}/resume", self._resume),
            emulated.Route("POST", f"{run}/stop", self._stop),
        )

    def admit(self, request: emulated.Request) -> emulated.Reply | None:
        if request.headers.get("X-BB-API-Key") == self.stage.token and not request.bearer:
            return None
        return self.refusal(401, "Unauthorized", request.path)

    def refusal(self, status: int, detail: str, path: str) -> emulated.Reply:
        return emulated.Reply.of(status, {"statusCode": status, "error": emulated.phrase(status), "message": detail})

    def _start(self, request: emulated.Request) -> emulated.Reply:
        body: Any = request.json
        if not isinstance(body, dict) or not isinstance(body.get("task"), str) or not body["task"]:
            return self.refusal(400, "task is required", request.path)
        known = {"task", "agentId", "resultSchema", "browserSettings", "variables", "pauseWhen"}
        if set(body) - known:
            return self.refusal(400, f"unknown: {sorted(set(body) - known)}", request.path)
        return emulated.Reply.of(200, self._json(self.begin(body, body["task"])))

    def _shown(self, request: emulated.Request, status: int) -> emulated.Reply:
        row = self.rows.get(request.params["id"])
        return (
            self.refusal(404, "no such run", request.path)
            if row is None
            else emulated.Reply.of(status, self._json(row))
        )

    def _list(self, request: emulated.Request) -> emulated.Reply:
        rows = [row for row in self.rows.values() if request.query.get("agentId") in {None, row.asked.get("agentId")}]
        rows.reverse()
        at, limit = int(request.query.get("cursor", 0)), int(request.query.get("limit", 20))
        body: dict[str, Any] = {"data": [self._json(row) for row in rows[at : at + limit]], "limit": limit}
        if at + limit < len(rows):
            body["nextCursor"] = str(at + limit)
        return emulated.Reply.of(200, body)

    def _messages(self, request: emulated.Request) -> emulated.Reply:
        row = self.rows[request.params["id"]]
        calls = row.turns[0].calls if self.state(row) == "asking" else ()
        parts: list[Any] = [
            {
                "type": "tool-pause",
                "toolCallId": f"{row.id}-{len(row.turns)}-{number}",
                "state": "input-available",
                "input": {"message": f"{call.name}: {call.arguments}"},
            }
            for number, call in enumerate(calls)
        ]
        first: dict[str, Any] = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": row.asked["task"]}]}
        messages = [first, {"id": "m2", "role": "assistant", "parts": parts}]
        data: list[Any] = [{"id": each["id"], "createdAt": self.at(row.created), "message": each} for each in messages]
        return emulated.Reply.of(200, {"data": data, "nextSince": "m2"})

    def _resume(self, request: emulated.Request) -> emulated.Reply:
        row, body = self.rows[request.params["id"]], request.json
        if self.state(row) != "asking":
            return self.refusal(409, "the run is not paused", request.path)
        if not isinstance(body, dict) or not isinstance(body.get("task"), str):
            return self.refusal(400, "task must be a text", request.path)
        self.go_on(row, body["task"])
        return self._shown(request, 202)

    def _stop(self, request: emulated.Request) -> emulated.Reply:
        if request.params["id"] in self.rows:
            self.stop(self.rows[request.params["id"]])
        return self._shown(request, 200)

    def _json(self, row: Row) -> dict[str, Any]:
        state, turn = self.state(row), row.turns[0]
        body: dict[str, Any] = {
            "runId": row.id,
            "task": row.asked["task"],
            "status": WORDS.get(state, state),
            "createdAt": self.at(row.created),
            "updatedAt": self.at(row.began),
            "sessionId": "s1",
            **turn.extra,
        }
        if "agentId" in row.asked:
            body["agentId"] = row.asked["agentId"]
        if state == "done":
            body |= {"result": {"text": turn.text}, "endedAt": self.at(row.began + turn.lasts)}
        if state == "failed":
            body["cause"] = {"code": "AGENT_ERROR", "message": turn.error}
        return body


class BrowserbaseCase(Case):
    dialect = load("browserbase")
    emulated = Browserbase
    start_path = list_path = "/v1/agents/runs"
    resume_path = "/v1/agents/runs/*/resume"
    poll_path = "/v1/agents/runs/*"
    id_field = row_id_field = "runId"
    rows_field = "data"
    not_applicable: ClassVar = {
        "a start lost after it was done is not done again": LOST,
        "a start cut off under a key is gone on with": LOST,
        "several pending actions are answered together": "a run waits for one reply",
    }

    async def origin(self, client: Client, server: Any) -> Any:
        return self.dialect.Origin("Find the opening hours.", agent_id="a1")
