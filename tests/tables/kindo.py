"""Kindo agents as the pages of docs.kindo.ai show them, and their case in the kit."""

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from agentruns import Client
from agentruns.dialects import load
from agentruns.emulator import vendor as emulated
from agentruns.testing import Case
from tests.tables.played_runs import LOST, Product

WORDS = {"pending": "in_progress", "running": "in_progress", "done": "success", "failed": "failure"}
AGENT = "18d20df4-d9b3-4cb0-a009-9f11ec9c5d3d"


class Kindo(Product):
    name: ClassVar[str] = "kindo"

    @property
    def routes(self) -> Sequence[emulated.Route]:
        return (
            emulated.Route("POST", "/v1/agents/runs", self._start),
            emulated.Route("GET", "/v1/runs/{id}", self._show),
        )

    def refusal(self, status: int, detail: str, path: str) -> emulated.Reply:
        return emulated.Reply.of(status, {"error": emulated.phrase(status), "message": detail})

    def _start(self, request: emulated.Request) -> emulated.Reply:
        body: Any = request.json
        if not isinstance(body, dict) or not body.get("agentId"):
            return self.refusal(400, "agentId is required", request.path)
        if body["agentId"] != AGENT:
            return self.refusal(404, f"Agent {body['agentId']} not found.", request.path)
        given = {each["name"]: each["value"] for each in body.get("inputs", [])}
        if "query" not in given:
            return self.refusal(422, "query is missing", request.path)
        return emulated.Reply.of(200, {"runId": self.begin(body, given["query"]).id})

    def _show(self, request: emulated.Request) -> emulated.Reply:
        row = self.rows.get(request.params["id"])
        if row is None:
            return self.refusal(404, f"Run {request.params['id']} not found.", request.path)
        state, turn = self.state(row), row.turns[0]
        message = {
            "role": "assistant",
            "parts": [{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": turn.text}],
        }
        is_over = state in {"done", "failed"}
        body: Any = {
            "runId": row.id,
            "agentId": row.asked["agentId"],
            "conversationId": "clx9a2b1c0000d4e5f6g7h8i9",
            "createdAtUtc": self.at(row.created),
            "endedAtUtc": self.at(row.began + turn.lasts) if is_over else None,
            "result": json.dumps(message) if state == "done" and turn.text else None,
            "status": WORDS.get(state, state),
            **turn.extra,
        }
        return emulated.Reply.of(200, body)


class KindoCase(Case):
    dialect = load("kindo")
    emulated = Kindo
    start_path = "/v1/agents/runs"
    poll_path = "/v1/runs/*"
    id_field = "runId"
    not_applicable: ClassVar = {
        "a start lost after it was done is not done again": LOST,
        "a start cut off under a key is gone on with": LOST,
    }

    async def origin(self, client: Client, server: Any) -> Any:
        return self.dialect.Origin(AGENT, [{"name": "query", "value": "Scan."}])
