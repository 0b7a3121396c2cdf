"""
Clients that start a run and wait for its end by polling it once a second, each in its own usual way.

Each is an async context manager: within it stands a function that follows one run from its start to its end, and
returns whether it was seen to complete. What they wait for is the stub's: every contestant speaks to it in the form of
the service that it is made for, and starts a run with one request.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import distributions
from typing import Any, Final, TypeAlias

from .process import peak, pin

Follow: TypeAlias = Callable[[str], Awaitable[bool]]
INTERVAL: Final = 1.0
TOKEN: Final = "a-token-of-the-usual-length"
WARM: Final = 8


def decoder() -> Callable[[bytes], Any]:
    """Return what a loop written by hand decodes with."""
    try:
        import orjson  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        print("orjson is not installed; bare loops use json instead", file=sys.stderr)
        return json.loads
    loads: Callable[[bytes], Any] = orjson.loads
    return loads


@asynccontextmanager
async def bare(base_url: str) -> AsyncIterator[Follow]:
    """Write the loop by hand: aiohttp and orjson, a dict, no error handled."""
    import aiohttp

    loads = decoder()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:

        async def follow(name: str) -> bool:
            body = {"client_op_id": name, "expected_version": 0, "payload": {"kind": "user_message", "text": "Go."}}
            async with session.post(f"{base_url}/agents/conversations/{name}/runs", json=body) as response:
                run = loads(await response.read())
            url = f"{base_url}/agents/runs/{run['id']}"
            while run["status"] in {"pending", "running"}:
                await asyncio.sleep(INTERVAL)
                async with session.get(url) as response:
                    run = loads(await response.read())
            return bool(run["status"] == "completed")

        yield follow


@asynccontextmanager
async def _agentruns(base_url: str, **options: Any) -> AsyncIterator[Follow]:
    from agentruns import connect, narrative

    async with connect(narrative, token=TOKEN, base_url=base_url, **options) as client:

        async def follow(name: str) -> bool:
            run = await client.result(narrative.UserMessage(name, "Go.", expected_version=0))
            return bool(run.output == "Done.")

        yield follow


def steady(base_url: str) -> AbstractAsyncContextManager[Follow]:
    """Use agentruns, polling each run as often as the others do."""
    from agentruns import Backoff

    return _agentruns(base_url, schedule=Backoff(initial=INTERVAL, factor=1.0, jitter=0.0))


def own(base_url: str) -> AbstractAsyncContextManager[Follow]:
    """Use agentruns as it comes: it says itself when to poll."""
    return _agentruns(base_url)


@asynccontextmanager
async def openai(base_url: str) -> AsyncIterator[Follow]:
    """Use `create_and_poll` of the Assistants API; it polls each second."""
    from openai import AsyncOpenAI  # type: ignore[import-not-found,unused-ignore]

    async with AsyncOpenAI(api_key=TOKEN, base_url=f"{base_url}/openai") as client:

        async def follow(name: str) -> bool:
            run = await client.beta.threads.runs.create_and_poll(thread_id=name, assistant_id="asst_7c0a3d9e6f21")
            return bool(run.status == "completed")

        yield follow


@asynccontextmanager
async def azure(base_url: str) -> AsyncIterator[Follow]:
    """Use `create_and_process`; it polls each second, over azure-core's aiohttp transport."""
    from azure.ai.agents.aio import AgentsClient  # type: ignore[import-not-found,unused-ignore]
    from azure.core.pipeline.policies import HeadersPolicy  # type: ignore[import-not-found,unused-ignore]

    # Its own policy refuses to send a token over plain http.
    right: Any = HeadersPolicy({"Authorization": f"Bearer {TOKEN}"})
    nobody: Any = object()
    async with AgentsClient(f"{base_url}/azure", nobody, authentication_policy=right) as client:

        async def follow(name: str) -> bool:
            run = await client.runs.create_and_process(name, agent_id="asst_7c0a3d9e6f21")
            return bool(run.status == "completed")

        yield follow


@asynccontextmanager
async def langgraph(base_url: str) -> AsyncIterator[Follow]:
    """Poll by `runs.get`: `runs.join` needs a server that holds the request until the run is over."""
    from langgraph_sdk import get_client  # type: ignore[import-not-found,unused-ignore]

    async with get_client(url=f"{base_url}/langgraph", api_key=TOKEN) as client:

        async def follow(name: str) -> bool:
            run = await client.runs.create(name, "agent")
            while run["status"] in {"pending", "running"}:
                await asyncio.sleep(INTERVAL)
                run = await client.runs.get(name, run["run_id"])
            return bool(run["status"] == "success")

        yield follow


CONTESTANTS: Final[Mapping[str, tuple[str, Callable[[str], AbstractAsyncContextManager[Follow]]]]] = {
    "bare": ("aiohttp", bare),
    "steady": ("aiohttp", steady),
    "own": ("aiohttp", own),
    "azure": ("azure-ai-agents", azure),
    "openai": ("openai", openai),
    "langgraph": ("langgraph-sdk", langgraph),
}


def missing(name: str) -> str:
    """Return the package that a contestant needs and that is not installed; empty if it is."""
    package = CONTESTANTS[name][0]
    return "" if any(distributions(name=package)) else package


def measure(name: str, base_url: str, runs: int, seconds: float) -> dict[str, Any]:
    """Follow *runs* runs at once, all of them *seconds* long; return CPU and wall time, memory and what was seen."""
    pin("client")
    return asyncio.run(_measure(name, base_url, runs, seconds))


async def _measure(name: str, base_url: str, runs: int, seconds: float) -> dict[str, Any]:
    # What is imported, built or compiled on first use is set-up. A schedule that learns must not learn from dummies.
    warm = seconds if name == "own" else 0.0
    async with CONTESTANTS[name][1](base_url) as follow:
        await asyncio.gather(*(follow(f"same-{warm:g}-warm-{number}") for number in range(WARM)))
        gc.collect()
        began, cpu = time.monotonic(), time.process_time()
        names = [f"same-{seconds:g}-{number:022}" for number in range(runs)]
        waits = await asyncio.gather(*(_timed(follow, each) for each in names), return_exceptions=True)
        cpu, wall = time.process_time() - cpu, time.monotonic() - began
    seen = [wait for wait in waits if isinstance(wait, float)]
    errors = Counter(type(each).__name__ for each in waits if isinstance(each, BaseException))
    lag = sum(seen) / len(seen) - seconds if seen else 0.0
    return {"cpu": cpu, "wall": wall, "lag": lag, "peak": peak(), "seen": len(seen), "errors": errors}


async def _timed(follow: Follow, name: str) -> float:
    """Return the seconds from before the start of a run until it was seen to complete."""
    began = time.monotonic()
    if not await follow(name):
        raise RuntimeError(name)
    return time.monotonic() - began
