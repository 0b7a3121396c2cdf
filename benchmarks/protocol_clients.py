"""
Clients of open protocols, ours and the official one of each, in the way that their own pages show.

Each is an async context manager, opened with the URL of a server: within it stands a function that starts a run which
takes so many seconds, waits for its end, and returns whether it was seen to complete. What is in the *text* of a run
goes with its start, so that a proxy may know it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias
from urllib.request import urlopen

from attrs import frozen

from .process import Spent, peak, pin

Follow: TypeAlias = Callable[[str, float], Awaitable[bool]]
Opens: TypeAlias = Callable[[str], AbstractAsyncContextManager[Follow]]

BEGUN: Final = "/the-clock-begins"
"""The path that is asked for once all is warm; no server knows it."""

WARM: Final = 8
KEY: Final = "the-key-of-this-server-alone"


@asynccontextmanager
async def _ours(dialect: Any, base_url: str, origin: Callable[[str, float], Any]) -> AsyncIterator[Follow]:
    from agentruns import connect

    async with connect(dialect, base_url=base_url, token=KEY) as client:

        async def follow(text: str, seconds: float) -> bool:
            return (await client.result(origin(text, seconds))).output is not None

        yield follow


def _said(text: str, seconds: float) -> str:
    return f"{text}: take {seconds:.2f} seconds."


def our_responses(url: str) -> AbstractAsyncContextManager[Follow]:
    """Use agentruns as it comes."""
    from agentruns import openai_responses

    def origin(text: str, seconds: float) -> openai_responses.ResponseRequest:
        return openai_responses.ResponseRequest("test", _said(text, seconds))

    return _ours(openai_responses, f"{url}/v1", origin)


@asynccontextmanager
async def openai(url: str) -> AsyncIterator[Follow]:
    """Retrieve each two seconds, as the guide of background mode does."""
    from openai import AsyncOpenAI  # type: ignore[import-not-found,unused-ignore]

    async with AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1") as client:

        async def follow(text: str, seconds: float) -> bool:
            response = await client.responses.create(model="test", input=_said(text, seconds), background=True)
            while response.status in {"queued", "in_progress"}:
                await asyncio.sleep(2)
                response = await client.responses.retrieve(response.id)
            return bool(response.status == "completed")

        yield follow


def our_a2a(url: str) -> AbstractAsyncContextManager[Follow]:
    """Use agentruns as it comes; below the path of a tenant the proxy has no card, so that it is spoken to as it is."""
    from agentruns import a2a

    return _ours(a2a, f"{url}/acme", lambda text, seconds: a2a.Send(_said(text, seconds)))


@asynccontextmanager
async def _a2a(url: str, *, polling: bool) -> AsyncIterator[Follow]:
    import httpx  # type: ignore[import-not-found,unused-ignore]
    from a2a.client import ClientConfig, create_client  # type: ignore[import-not-found,unused-ignore]
    from a2a.client.client_factory import minimal_agent_card  # type: ignore[import-not-found,unused-ignore]
    from a2a.helpers import new_text_message  # type: ignore[import-not-found,unused-ignore]
    from a2a.types import (  # type: ignore[import-not-found,unused-ignore]
        GetTaskRequest,
        Role,
        SendMessageRequest,
        TaskState,
    )

    card = minimal_agent_card(f"{url}/acme", ["HTTP+JSON"])
    card.capabilities.streaming = True
    over = {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
    }
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as http:
        config = ClientConfig(
            httpx_client=http, streaming=not polling, polling=polling, supported_protocol_bindings=["HTTP+JSON"]
        )
        client = await create_client(card, config)

        async def follow(text: str, seconds: float) -> bool:
            message = new_text_message(_said(text, seconds), role=Role.ROLE_USER)
            name, state = "", TaskState.TASK_STATE_UNSPECIFIED
            async for told in client.send_message(SendMessageRequest(message=message)):
                if told.HasField("task"):
                    name, state = told.task.id, told.task.status.state
                elif told.HasField("status_update"):
                    state = told.status_update.status.state
            while polling and state not in over:
                await asyncio.sleep(1)
                state = (await client.get_task(GetTaskRequest(id=name))).status.state
            return bool(state == TaskState.TASK_STATE_COMPLETED)

        yield follow


def a2a_stream(url: str) -> AbstractAsyncContextManager[Follow]:
    """Let `send_message` stream, which is what it does by itself."""
    return _a2a(url, polling=False)


def a2a_poll(url: str) -> AbstractAsyncContextManager[Follow]:
    """Let `send_message` return at once, and get the task each second: the client leaves that to its caller."""
    return _a2a(url, polling=True)


def our_langgraph(url: str) -> AbstractAsyncContextManager[Follow]:
    """Use agentruns as it comes."""
    from agentruns import langgraph

    return _ours(
        langgraph, url, lambda text, seconds: langgraph.Invocation("agent", {"text": text, "seconds": seconds})
    )


@asynccontextmanager
async def _langgraph(url: str, *, join: bool) -> AsyncIterator[Follow]:
    from langgraph_sdk import get_client  # type: ignore[import-not-found,unused-ignore]

    async with get_client(url=url) as client:

        async def follow(text: str, seconds: float) -> bool:
            thread = (await client.threads.create())["thread_id"]
            given: Any = {"text": text, "seconds": seconds}
            values: Any
            if join:
                run = await client.runs.create(thread, "agent", input=given)
                values = await client.runs.join(thread, run["run_id"])
            else:
                values = await client.runs.wait(thread, "agent", input=given)
            return "answers" in values

        yield follow


def langgraph_join(url: str) -> AbstractAsyncContextManager[Follow]:
    """Create a run, and join it: the server holds the request until the run is over."""
    return _langgraph(url, join=True)


def langgraph_wait(url: str) -> AbstractAsyncContextManager[Follow]:
    """Create a run and wait for it by one request."""
    return _langgraph(url, join=False)


@frozen
class Protocol:
    """One protocol: the module that makes its server, the requests that start runs, as shell patterns, its clients."""

    server: str
    starts: tuple[str, str]
    clients: Mapping[str, tuple[str, Opens]]


PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "responses": Protocol(
        "tests.real.responses_server",
        ("POST", "/v1/responses"),
        {"agentruns": ("agentruns", our_responses), "openai": ("openai", openai)},
    ),
    "a2a": Protocol(
        "tests.real.a2a_server",
        ("POST", "*/message:s*"),
        {
            "agentruns": ("agentruns", our_a2a),
            "a2a-sdk, streaming": ("a2a-sdk", a2a_stream),
            "a2a-sdk, polling": ("a2a-sdk", a2a_poll),
        },
    ),
    "langgraph": Protocol(
        "tests.real.langgraph_server",
        ("POST", "/threads/*/runs*"),
        {
            "agentruns": ("agentruns", our_langgraph),
            "langgraph-sdk, join": ("langgraph-sdk", langgraph_join),
            "langgraph-sdk, wait": ("langgraph-sdk", langgraph_wait),
        },
    ),
}


# In a process of their own --------------------------------------------------------------------------------------------


def lengths(runs: int, shortest: float, longest: float) -> Sequence[float]:
    """Return how many seconds each of the runs takes: the same for all clients."""
    chance = random.Random(runs)
    return [chance.uniform(shortest, longest) for _ in range(runs)]


def measure(protocol: str, name: str, url: str, runs: int, shortest: float, longest: float) -> dict[str, Any]:
    """Follow *runs* runs at once; return CPU and wall time, lag, memory and what was seen."""
    pin("client")
    return asyncio.run(_measure(PROTOCOLS[protocol].clients[name][1], url, lengths(runs, shortest, longest)))


async def _measure(opens: Opens, url: str, seconds: Sequence[float]) -> dict[str, Any]:
    async with opens(url) as follow:
        # What is imported, built or learned on first use is set-up.
        await asyncio.gather(*(follow(f"Warm {number}", sum(seconds) / len(seconds)) for number in range(WARM)))
        await asyncio.to_thread(_say_begun, url)
        with Spent() as spent:
            waits = await asyncio.gather(
                *(_timed(follow, f"Number {number}", each) for number, each in enumerate(seconds)),
                return_exceptions=True,
            )
    seen = [(wait, lasts) for wait, lasts in zip(waits, seconds, strict=True) if isinstance(wait, float)]
    lag = sum(wait - lasts for wait, lasts in seen) / len(seen) if seen else 0.0
    return {
        "cpu": spent.cpu,
        "wall": spent.wall,
        "lag": lag,
        "peak": peak(),
        "seen": len(seen),
        "errors": _errors(waits),
    }


def lose(protocol: str, name: str, url: str, runs: int) -> dict[str, Any]:
    """Follow *runs* runs whose starts a proxy knows by their text; return how many were seen to end, and the errors."""
    return asyncio.run(_lose(PROTOCOLS[protocol].clients[name][1], url, runs))


async def _lose(opens: Opens, url: str, runs: int) -> dict[str, Any]:
    async with opens(url) as follow:
        follows = (follow(f"{LOST} {number:03}", 0.1) for number in range(runs))
        ends = await asyncio.gather(*follows, return_exceptions=True)
    return {"seen": sum(end is True for end in ends), "errors": _errors(ends)}


LOST: Final = "Lost"


async def _timed(follow: Follow, text: str, seconds: float) -> float:
    """Return the seconds from before the start of a run until it was seen to complete."""
    began = time.monotonic()
    if not await follow(text, seconds):
        raise RuntimeError(text)
    return time.monotonic() - began


def _say_begun(url: str) -> None:
    try:
        with urlopen(url + BEGUN):
            pass
    except OSError:  # 404, or 401
        pass


def _errors(ends: Sequence[object]) -> dict[str, int]:
    return Counter(type(end).__name__ for end in ends if isinstance(end, BaseException))
