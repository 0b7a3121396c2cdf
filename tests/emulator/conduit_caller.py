"""What the tests of the emulated Conduit share: a raw HTTP caller with a manual clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
from attrs import define, frozen

from agentruns.emulator import Emulator, ManualClock
from agentruns.emulator.conduit import Conduit

NINE = datetime(2026, 5, 11, 9, tzinfo=UTC)
ESCALATED = {"disposition": "escalated", "disposition_reason": "No rule covers it."}


@frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)

    @property
    def data(self) -> Any:
        return self.body["data"]

    @property
    def refused(self) -> tuple[int, str]:
        """The status of an error and its text, which is all there is."""
        assert set(self.body) == {"error"}
        return self.status, self.body["error"]


@define
class Http:
    """A raw caller of one emulated Conduit."""

    session: aiohttp.ClientSession
    emulator: Emulator[Conduit]
    clock: ManualClock

    @property
    def state(self) -> Conduit:
        return self.emulator.state

    @property
    def agent(self) -> str:
        return f"/agents/{self.state.agent_id}"

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        async with self.session.request(
            method,
            self.emulator.base_url + path,
            data=json.dumps(body).encode() if content is None and body is not None else content,
            headers={"Authorization": f"Bearer {self.emulator.token if token is None else token}", **(headers or {})},
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.ask("GET", path, **more)

    async def post(self, path: str, body: object = None, **more: Any) -> Answer:
        return await self.ask("POST", path, {} if body is None else body, **more)

    async def dispatch(self, body: object = None, *, agent_id: str | None = None, **more: Any) -> Answer:
        return await self.post(f"/agents/{agent_id or self.state.agent_id}/run", body, **more)

    async def listed(self, query: str = "", *, agent_id: str | None = None) -> list[dict[str, Any]]:
        answer = await self.get(f"/agents/{agent_id or self.state.agent_id}/runs{query}")
        assert answer.status == 200, answer.content
        rows: list[dict[str, Any]] = answer.data
        return rows

    async def run(self, run_id: str, *, agent_id: str | None = None) -> dict[str, Any]:
        answer = await self.get(f"/agents/{agent_id or self.state.agent_id}/runs/{run_id}")
        assert answer.status == 200, answer.content
        row: dict[str, Any] = answer.data
        return row

    async def play(self, body: object = None, **more: Any) -> dict[str, Any]:
        """Dispatch, let the run end, and read it."""
        answer = await self.dispatch(body, **more)
        assert answer.status == 200, answer.content
        self.clock.advance(60)
        (row, *_) = await self.listed(agent_id=more.get("agent_id"))
        return await self.run(row["id"], agent_id=more.get("agent_id"))


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Http]:
    """Serve Conduit with a manual clock, at nine o'clock, in this loop."""
    clock = ManualClock()
    options = {"wall_start": NINE, "seed": 7, **options}
    async with Emulator(Conduit, clock=clock, **options) as emulator, aiohttp.ClientSession() as session:
        yield Http(session, emulator, clock)
