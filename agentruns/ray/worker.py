"""One client in one process of Ray's, and the runs that it follows to their ends."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from agentruns._api.limiter import RateLimiter
from agentruns._following.batch import raise_unless_completed
from agentruns._following.stream import RunStream
from agentruns._polling.stats import Stats
from agentruns._values.exchange import RateLimit
from agentruns._values.run import Run
from agentruns.client import Client, connect
from agentruns.dialects import load
from agentruns.dialects.protocol import Dialect
from agentruns.errors import AgentRunsError, RunError
from agentruns.tools import Tools, ToolsLike

from .shares import Share

logger = logging.getLogger("agentruns")


@frozen(kw_only=True)
class Terms:
    """
    What every worker is told: where the vendor is, and how to wait for its runs.

    There is no token among it: what Ray carries, it may log, keep or show. A worker reads the token from its own
    environment, which on one machine is that of whoever called `ray.init()`. *timeout* is in seconds, for each run.
    *journal* is a path on a disk that all workers share. *limit* is that of the requests of all workers together.
    """

    vendor: str | Dialect
    base_url: str | None = None
    insecure: bool = False
    timeout: float | None = 600.0
    journal: str | None = None
    limit: RateLimit | None = None


class Office(Protocol):
    """A handle of the actor that divides the limit."""

    @property
    def renew(self) -> Any:
        """Return the method of `Shares`, to be called with `.remote(...)`."""
        ...


class Worker:
    """
    Follow runs in this process, by one client that is opened with the first of them.

    *tools* makes the handlers, here. *office* divides the limit; *name* is the same for a process that takes the place
    of one that died.
    """

    def __init__(
        self,
        terms: Terms,
        tools: Callable[[], ToolsLike | None] | None = None,
        office: Office | None = None,
        name: str = "",
    ) -> None:
        self._terms = terms
        self._load = tools
        self._tools: Tools | None = None
        self._client: Client | None = None
        self._opening = asyncio.Lock()
        self._share = None if office is None or terms.limit is None else _share(terms.limit, office, name)
        self._keeping: asyncio.Task[None] | None = None
        self._streams: set[RunStream] = set()

    async def open(self) -> Client:
        """Return the client; raise `ConfigurationError` where it cannot work here, for want of a token for example."""
        async with self._opening:
            if self._client is None:
                terms = self._terms
                given = None if self._load is None else self._load()
                self._tools = None if given is None else Tools.of(given)
                budget = RateLimiter(terms.limit) if self._share is None else self._share.budget
                vendor = load(terms.vendor) if isinstance(terms.vendor, str) else terms.vendor
                client = connect(
                    vendor, base_url=terms.base_url, insecure=terms.insecure, budget=budget, journal=terms.journal
                )
                self._client = await client.__aenter__()
                if self._share is not None:
                    self._keeping = asyncio.create_task(self._share.keep())
            return self._client

    async def ready(self) -> tuple[int, int] | None:
        """Open the client; return what identifies the file of its journal on this machine."""
        await self.open()
        if self._terms.journal is None:
            return None
        found = await asyncio.to_thread(Path(self._terms.journal).stat)
        return found.st_dev, found.st_ino

    async def follow(self, origin: Any, key: str | None) -> tuple[Run | None, Exception | None]:
        """Follow a run to its end; return its last state, and what is in the way of its completion, if anything is."""
        run: Run | None = None
        try:
            client = await self.open()
            stream = client.stream(origin, tools=self._tools, timeout=self._terms.timeout, key=key)
            self._streams.add(stream)
            try:
                async with stream:
                    async for _ in stream:
                        pass
            finally:
                self._streams.discard(stream)
                run = stream.run
            return raise_unless_completed(run), None
        except Exception as error:
            if isinstance(error, RunError) and error.run is not None:
                run = error.run
            return run, portable(error)

    async def look(self) -> tuple[Mapping[str, int], Stats | None]:
        """Return how many runs are in which state here, and the numbers of the client."""
        runs = [stream.run for stream in self._streams]
        states = Counter("starting" if run is None else run.status.value for run in runs)
        return dict(states), None if self._client is None else self._client.stats()

    async def close(self) -> None:
        """Close the client; the runs in flight go on at the vendor."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)


def _share(limit: RateLimit, office: Office, name: str) -> Share:
    async def renew(name: str, life: str, held: int) -> tuple[int, int]:
        given, due = await office.renew.remote(name, life, held)
        return given, due

    return Share(limit.seconds, renew, name)


def portable(error: Exception) -> Exception:
    """Return the error, or, if it is one that cannot be sent to another process, one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return AgentRunsError(f"{type(error).__name__}: {error}")
    return error
