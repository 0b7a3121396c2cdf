"""What the tests of the emulated Middesk share: a raw HTTP caller with a manual clock, and bodies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
from attrs import define, frozen

from agentruns.emulator import Call, Emulator, ManualClock, Turn
from agentruns.emulator.middesk import Middesk

BUSINESS = "b86f3c52-11d9-4f07-8e6a-90c2d5a7714f"
ELSEWHERE = "0f5e8f0c-96d5-4f52-9a3e-6c1f7f2a1d11"
START = {"type": "cip_orchestrator", "business_id": BUSINESS}
PROPOSAL: dict[str, Any] = {
    "agent": "watchlist_resolution",
    "label": "Dismiss the hit?",
    "artifacts": [{"title": "Dismiss hit: Marlow Trading FZE", "type": "dismissal", "confidence": "high"}],
}
ASK = Call("watchlist_resolution", PROPOSAL)
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


@frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)

    @property
    def refused(self) -> tuple[int, str, str | None]:
        """The status of an error, its message and its parameter."""
        (error,) = self.body["errors"]
        assert set(error) <= {"message", "parameter"}
        return self.status, error["message"], error.get("parameter")


@define
class Http:
    """A raw caller of one emulated Middesk."""

    session: aiohttp.ClientSession
    emulator: Emulator[Middesk]
    clock: ManualClock

    def headers(self, token: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.emulator.token if token is None else token}"}

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
            json=body,
            data=content,
            headers=self.headers(token) if headers is None else headers,
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.ask("GET", path, **more)

    async def start(self, body: object = START, **more: Any) -> dict[str, Any]:
        answer = await self.ask("POST", "/runs", body, **more)
        assert answer.status == 201, answer
        run: dict[str, Any] = answer.body
        return run

    async def run(self, run: Mapping[str, Any], *, steps: bool = False) -> dict[str, Any]:
        """Read a run again."""
        answer = await self.get(f"/runs/{run['id']}" + ("?include=steps" if steps else ""))
        assert answer.status == 200, answer
        found: dict[str, Any] = answer.body
        return found

    async def play(self, body: object = START, **more: Any) -> dict[str, Any]:
        """Start a run and let it end or pause."""
        run = await self.start(body)
        self.clock.advance(60)
        return await self.run(run, **more)

    async def resume(self, run: Mapping[str, Any], body: object, query: str = "", **more: Any) -> Answer:
        return await self.ask("POST", f"/runs/{run['id']}/resume{query}", body, **more)

    async def events(self, run: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Read the stream of a run that does not move, to its end."""
        return parsed((await self.get(f"/runs/{run['id']}/stream")).content)


def yes(run: Mapping[str, Any], number: int = 0, answer: object = "yes") -> dict[str, object]:
    """Answer one of a run's interrupts."""
    return {"interrupt_id": run["interrupts"][number]["id"], "input": answer}


def asking(*calls: Call, **more: Any) -> Turn:
    return Turn(calls=calls or (ASK,), **more)


def parsed(content: bytes) -> list[tuple[str, Any]]:
    """Read a whole stream of server-sent events."""
    events = []
    for block in content.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if fields:
            events.append((fields.get("event", ""), json.loads(fields["data"])))
    return events


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Http]:
    """Serve Middesk with a manual clock in this loop."""
    clock = ManualClock()
    settings: dict[str, Any] = {"wall_start": NOON, **options}
    async with Emulator(Middesk, clock=clock, **settings) as emulator, aiohttp.ClientSession() as session:
        yield Http(session, emulator, clock)
