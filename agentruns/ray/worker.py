"""One client in one process of Ray, and the runs that it follows to their ends."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from attrs import field, frozen

from agentruns._api.admission import Place, for_row, forgo
from agentruns._connect import connect
from agentruns._following.ending import last_state
from agentruns._following.items import NotBegunError
from agentruns._following.options import Timeout
from agentruns._following.stream import RunStream
from agentruns._keeping.journal.locations import is_database
from agentruns._polling.stats import Stats
from agentruns._values.exchange import RateLimit
from agentruns._values.run import Run
from agentruns.client import Client, entrance_of
from agentruns.dialects import load
from agentruns.dialects.protocol import Dialect
from agentruns.errors import AgentRunsError
from agentruns.tools import Tools, ToolsLike

from .budget_server import Lease

logger = logging.getLogger("agentruns")


@frozen(kw_only=True)
class ClientOptions:
    """
    What every worker makes its client with: where the vendor is, and how to wait for its runs.

    The token is not among them, since Ray may log, keep or show what it carries. A worker reads the token from its own
    environment, which on one machine is that of the process that called `ray.init()`. *timeout* is in seconds, for each
    run, by default what the vendor says, *patience* the seconds for which a vendor is waited for that does not answer.
    *journal* is a path on a disk that all workers share, or the URL of a database, better without the password. *limit*
    is for the requests of all workers together, by default what the vendor documents.
    """

    vendor: str | Dialect
    base_url: str | None = None
    insecure: bool = False
    timeout: Timeout = "vendor"
    patience: float = 3600.0
    journal: str | None = field(default=None, repr=False)
    limit: RateLimit | None = None


class RateLimitActor(Protocol):
    """A handle of the actor that divides the limit."""

    @property
    def renew(self) -> Any:
        """Return the method of `BudgetServer`, to be called with `.remote(...)`."""
        ...


class Worker:
    """
    Follow runs in this process, by one client that is opened with the first of them.

    Each waits for its place, as the rows of a batch do: nothing is begun that the rate limit or the vendor's slots
    cannot serve, and nothing is begun or given up while the vendor does not answer.

    *tools* makes the handlers, in this process. *actor* divides the limit, unless a journal does. *name* is the same
    for a process that replaces one that died.
    """

    def __init__(
        self,
        options: ClientOptions,
        tools: Callable[[], ToolsLike | None] | None = None,
        actor: RateLimitActor | None = None,
        name: str = "",
    ) -> None:
        self._options = options
        self._load = tools
        self._tools: Tools | None = None
        self._client: Client | None = None
        self._opening = asyncio.Lock()
        limit = None if actor is None or options.journal is not None else options.limit
        self._lease = None if actor is None or limit is None else _lease(limit, actor, name)
        self._keeping: asyncio.Task[None] | None = None
        self._streams: set[RunStream] = set()
        self._entering: set[asyncio.Task[Place]] = set()
        self._stopped = False

    async def open(self) -> Client:
        """Return the client; raise `ConfigurationError` where it cannot work, for example without a token."""
        async with self._opening:
            if self._client is None:
                options = self._options
                given = None if self._load is None else self._load()
                self._tools = None if given is None else Tools.of(given)
                budget = options.limit if self._lease is None else self._lease.budget
                vendor = load(options.vendor) if isinstance(options.vendor, str) else options.vendor
                client = connect(
                    vendor, base_url=options.base_url, insecure=options.insecure, budget=budget, journal=options.journal
                )
                self._client = await client.__aenter__()
                if self._lease is not None:
                    self._keeping = asyncio.create_task(self._lease.keep())
            return self._client

    async def ready(self) -> tuple[int, int] | None:
        """Open the client; return what identifies the file of its journal on this machine, None if it has none."""
        await self.open()
        if self._options.journal is None or is_database(self._options.journal):
            return None
        found = await asyncio.to_thread(Path(self._options.journal).stat)
        return found.st_dev, found.st_ino

    async def follow(
        self, origin: Any, key: str | None, digest: str | None = None
    ) -> tuple[Run | None, Exception | None]:
        """
        Follow a run to its end; return its last state, and the error if it did not complete.

        That is a `NotBegunError` where contact is lost for longer than is borne, or `stop` was called.
        """
        run: Run | None = None
        try:
            client = await self.open()
            with for_row(await self._place(client)):
                stream = client.stream(
                    origin,
                    tools=self._tools,
                    timeout=self._options.timeout,
                    patience=self._options.patience,
                    key=key,
                    digest=digest,
                )
                self._streams.add(stream)
                try:
                    async with stream:
                        return await stream.result(), None
                finally:
                    self._streams.discard(stream)
                    run = stream.run
        except Exception as error:
            return last_state(run, error), picklable(error)

    async def _place(self, client: Client) -> Place:
        """Wait for the place of a row, and return it."""
        if self._stopped:
            raise NotBegunError
        entering = asyncio.create_task(entrance_of(client, self._options.patience).enter())
        self._entering.add(entering)
        entering.add_done_callback(self._entering.discard)
        try:
            await asyncio.wait([entering])
        except asyncio.CancelledError:
            forgo(entering)
            raise
        if entering.cancelled():
            raise NotBegunError
        try:
            return entering.result()
        except Exception as because:
            raise NotBegunError(picklable(because)) from because

    async def stop(self) -> None:
        """Begin nothing more; what has its place goes on to its end."""
        self._stopped = True
        for entering in tuple(self._entering):
            entering.cancel()

    async def look(self) -> tuple[Mapping[str, int], Stats | None]:
        """Return how many runs are in which state here, and the numbers of the client."""
        runs = [stream.run for stream in self._streams]
        states = Counter("starting" if run is None else run.status.value for run in runs)
        return dict(states), None if self._client is None else self._client.stats()

    async def close(self) -> None:
        """Close the client; the runs in flight go on at the vendor."""
        await self.stop()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)


def _lease(limit: RateLimit, actor: RateLimitActor, name: str) -> Lease:
    async def renew(name: str, life: str, held: int) -> tuple[int, int]:
        given, due = await actor.renew.remote(name, life, held)
        return given, due

    return Lease(limit.seconds, renew, name)


def picklable(error: Exception) -> Exception:
    """Return the error, or one with the same text if it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return AgentRunsError(f"{type(error).__name__}: {error}")
    return error
