"""What the emulator's tests share: a raw HTTP caller, a manual clock, and bodies as the vendor's pages print them."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from attrs import define, frozen

from agentruns.emulator import Emulator, ManualClock, Narrative

PLANE = "f79cbdae-4848-47ca-95e8-69588364d185"
TEXT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["text"],
    "properties": {"text": {"type": "string"}},
}
BOOKING = {
    "name": "confirm_booking",
    "description": "Ask the user to confirm a slot.",
    "input_schema": {
        "type": "object",
        "required": ["proposed_slot"],
        "properties": {"proposed_slot": {"type": "string"}},
    },
    "strict": True,
}
SEARCH = {
    "name": "search",
    "description": "Search the docs.",
    "input_schema": {"type": "object", "required": ["query"], "properties": {"query": {"type": "string"}}},
}
USER_TOOLS = [{"alias": "user", "tools": [BOOKING]}]
DOCS = {"alias": "docs", "url": "https://docs.example/mcp", "tools": [SEARCH]}


def defaults(**changes: object) -> dict[str, object]:
    """Make a valid configuration; None leaves a field out."""
    base = {"model": "m", "data_plane_id": PLANE, "max_iterations": 8, "output_format_schema": TEXT, **changes}
    return {name: value for name, value in base.items() if value is not None}


def say(text: str = "Hello.", version: int = 0, **more: object) -> dict[str, object]:
    return {
        "client_op_id": str(uuid.uuid4()),
        "expected_version": version,
        "payload": {"kind": "user_message", "text": text},
        **more,
    }


def outputs(version: int, *items: Mapping[str, object], **more: object) -> dict[str, object]:
    payload = {"kind": "tool_outputs", "outputs": list(items)}
    return {"client_op_id": str(uuid.uuid4()), "expected_version": version, "payload": payload, **more}


def output(tool_use_id: object, text: str = "yes", **more: object) -> dict[str, object]:
    return {"tool_use_id": tool_use_id, "content_blocks": [{"type": "text", "text": text}], "is_error": False, **more}


@frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)

    @property
    def slug(self) -> str:
        return str(self.body["type"]).rpartition("/")[2]


@define
class Http:
    """A raw caller of one emulator."""

    session: aiohttp.ClientSession
    emulator: Emulator[Narrative]
    clock: ManualClock

    async def ask(self, method: str, path: str, body: object = None, *, token: str | None = None) -> Answer:
        async with self.session.request(
            method,
            self.emulator.base_url + path,
            json=body,
            headers={"Authorization": f"Bearer {self.emulator.token if token is None else token}"},
            allow_redirects=False,
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.ask("GET", path, **more)

    async def create(self, *, token: str | None = None, **config: object) -> str:
        answer = await self.ask("POST", "/agents/conversations", {"defaults": defaults(**config)}, token=token)
        assert answer.status == 201, answer
        return str(answer.body["id"])

    async def start(self, conversation: str, body: object, *, token: str | None = None) -> Answer:
        return await self.ask("POST", f"/agents/conversations/{conversation}/runs", body, token=token)

    async def run(self, run_id: str) -> dict[str, Any]:
        answer = await self.get(f"/agents/runs/{run_id}")
        assert answer.status == 200, answer
        body: dict[str, Any] = answer.body
        return body

    async def play(self, conversation: str, body: object) -> dict[str, Any]:
        """Start a run and let it end."""
        answer = await self.start(conversation, body)
        assert answer.status == 202, answer.content
        self.clock.advance(60)
        return await self.run(answer.body["id"])

    async def messages(self, conversation: str, since: int = 0) -> dict[str, Any]:
        body: dict[str, Any] = (await self.get(f"/agents/conversations/{conversation}/messages?since={since}")).body
        return body


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Http]:
    """Serve Narrative with a manual clock in this loop."""
    clock = ManualClock()
    async with Emulator("narrative", clock=clock, **options) as emulator, aiohttp.ClientSession() as session:
        yield Http(session, emulator, clock)
