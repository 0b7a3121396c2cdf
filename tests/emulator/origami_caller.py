"""What the tests of the emulated Origami share: a raw HTTP caller with a manual clock, and bodies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
from attrs import define, frozen

from agentruns.emulator import Call, Emulator, ManualClock, Turn
from agentruns.emulator.origami import Origami

NOON = datetime(2026, 7, 28, 12, tzinfo=UTC)
NOWHERE = "3c90c3cc-0d44-4b50-8888-8dd25736052a"
PROMPT = "Find 25 independent veterinary clinics in Leeds."
ASK = Call("ask-questions", {"type": "single-choice", "question": "Which?", "suggestedAnswers": ["Single-site", "Any"]})


def does(name: str, **arguments: Any) -> Call:
    """Make a call that the vendor carries out by itself."""
    return Call(name, arguments, server_side=True)


def builds(*more: Call, **changes: Any) -> Turn:
    """Make a turn that takes ten seconds to build a table of two leads."""
    calls = (does("table_created", tableName="Clinics"), does("leads_added", leadCount=2), *more)
    return Turn("Built it.", **{"running": 10, "iterations": 5, "calls": calls, **changes})


@frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)

    @property
    def refused(self) -> tuple[int, str]:
        """The status and the code of an error."""
        assert isinstance(self.body["error"], str)
        return self.status, self.body["code"]


@define
class Http:
    """A raw caller of one emulated Origami."""

    session: aiohttp.ClientSession
    emulator: Emulator[Origami]
    clock: ManualClock

    @property
    def state(self) -> Origami:
        return self.emulator.state

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        project: str | None = None,
        token: str | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        sent = {"Authorization": f"Bearer {self.emulator.token if token is None else token}", **(headers or {})}
        if key is not None:
            sent["Idempotency-Key"] = key
        if project is not None:
            sent["x-origami-project"] = project
        async with self.session.request(
            method,
            self.emulator.base_url + path,
            data=json.dumps(body).encode() if content is None and body is not None else content,
            params=query,
            headers=sent,
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.ask("GET", path, **more)

    async def create(
        self, prompt: str = PROMPT, *, key: str | None = None, project: str | None = None, **more: Any
    ) -> Any:
        """Create an agent; return the body, whose run is running."""
        answer = await self.ask("POST", "/agents", {"prompt": prompt, **more}, key=key, project=project)
        assert answer.status == 202, answer
        return answer.body

    async def send(self, agent_id: str, prompt: str = "Go on.", **more: Any) -> Answer:
        return await self.ask("POST", f"/agents/{agent_id}/runs", {"prompt": prompt}, **more)

    async def poll(self, run: Mapping[str, Any], **query: str) -> Answer:
        answer = await self.get(f"/agents/{run['agentId']}/runs/{run['id']}", query=query)
        assert answer.status == 200, answer
        return answer

    async def read(self, run: Mapping[str, Any], **query: str) -> Any:
        return (await self.poll(run, **query)).body

    async def play(self, **query: str) -> Any:
        """Create an agent and let its first run end; return the run."""
        run = (await self.create())["run"]
        self.clock.advance(60)
        return await self.read(run, **query)


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Http]:
    """Serve Origami with a manual clock in this loop."""
    clock = ManualClock()
    emulator = Emulator(Origami, clock=clock, **{"wall_start": NOON, **options})
    async with emulator, aiohttp.ClientSession() as session:
        yield Http(session, emulator, clock)
