"""
Clients that start a run of the stub and wait for its end: loops as they are written by hand, and agentruns.

Each is an async context manager: within it stands a function that follows one run from its start to its end, and
returns whether it was seen to complete. In a loop of virtual time no time passes while a request is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias

import aiohttp
import msgspec

from agentruns import Backoff, Client, connect, narrative
from agentruns._api.retry import Schedule

from .virtual import VirtualLoop

Follow: TypeAlias = Callable[[str], Awaitable[bool]]
Opens: TypeAlias = Callable[[str], AbstractAsyncContextManager[Follow]]
TOKEN: Final = "a-token-of-the-usual-length"
IN_FLIGHT: Final = frozenset({"pending", "running", "still running"})


class Polled(msgspec.Struct):
    """What a poll needs to know of a run; all else is skipped, not decoded."""

    id: str
    status: str


def start_of(name: str) -> dict[str, Any]:
    """Return the body that starts a run of this name."""
    return {"client_op_id": name, "expected_version": 0, "payload": {"kind": "user_message", "text": "Go."}}


@asynccontextmanager
async def plain_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session that sends the token."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
        _let_wait(session)
        yield session


@asynccontextmanager
async def bare(base_url: str, interval: float) -> AsyncIterator[Follow]:
    """Write the loop by hand: aiohttp, a dict that msgspec decodes, no error handled."""
    async with plain_session() as session:

        async def follow(name: str) -> bool:
            async with session.post(f"{base_url}/agents/conversations/{name}/runs", json=start_of(name)) as response:
                run = msgspec.json.decode(await response.read())
            url = f"{base_url}/agents/runs/{run['id']}"
            while run["status"] in IN_FLIGHT:
                await asyncio.sleep(interval)
                async with session.get(url) as response:
                    run = msgspec.json.decode(await response.read())
            return bool(run["status"] == "completed")

        yield follow


@asynccontextmanager
async def floor(base_url: str, interval: float) -> AsyncIterator[Follow]:
    """Do the least that asyncio and aiohttp allow: of an answer two fields are decoded."""
    decode = msgspec.json.Decoder(Polled).decode
    async with plain_session() as session:

        async def follow(name: str) -> bool:
            async with session.post(f"{base_url}/agents/conversations/{name}/runs", json=start_of(name)) as response:
                run = decode(await response.read())
            url = f"{base_url}/agents/runs/{run.id}"
            while run.status in IN_FLIGHT:
                await asyncio.sleep(interval)
                async with session.get(url) as response:
                    run = decode(await response.read())
            return run.status == "completed"

        yield follow


@asynccontextmanager
async def opened(base_url: str, schedule: Schedule | None = None, **options: Any) -> AsyncIterator[Client[Any, Any]]:
    """Open a client of ours."""
    async with connect(narrative, token=TOKEN, base_url=base_url, schedule=schedule, **options) as client:
        transport: Any = client._transport
        _let_wait(transport._session, transport._once)
        yield client


@asynccontextmanager
async def ours(base_url: str, interval: float = 0.0) -> AsyncIterator[Follow]:
    """Use agentruns, polling each run as often as the others do, or as it comes: it says itself when to poll."""
    schedule = Backoff(initial=interval, factor=1.0, maximum=interval, jitter=0.0) if interval else None
    async with opened(base_url, schedule) as client:

        async def follow(name: str) -> bool:
            run = await client.result(narrative.UserMessage(name, "Go.", expected_version=0), timeout=None)
            return bool(run.output == "Done.")

        yield follow


def _let_wait(*sessions: aiohttp.ClientSession) -> None:
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualLoop):
        loop.await_answers(*(session.connector for session in sessions))
