"""A simulated process: a client, a journal, and the tasks of those who call; it is left, or killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import frozen

from agentruns import Backoff, Client, Retry
from agentruns._api.address import Address
from agentruns._api.retry import Schedule
from agentruns._api.transport import AiohttpTransport
from agentruns._values.exchange import RateLimit

from .invariants import collect
from .loop import PROCESS, SimTask
from .network import Session
from .simulated_vendors import TOKEN

if TYPE_CHECKING:
    import aiohttp

    from .callers import Caller
    from .disk import SimulatedJournal
    from .simulated_world import World

LINGER: Final = 90.0
"""Seconds after a client was left in which whoever called it must have ended."""


@frozen(kw_only=True)
class Setup:
    """How a client is made."""

    retry: Retry
    schedule: Schedule | None
    limit: RateLimit | None
    connections: int
    timeout: float

    @classmethod
    def drawn(cls, chance: random.Random, usual: RateLimit | None, *, calm: bool = False) -> Setup:
        """Draw one."""
        if calm:
            return cls(retry=Retry(), schedule=None, limit=usual, connections=100, timeout=30.0)
        limit = usual
        if chance.random() < 0.3:
            limit = RateLimit(chance.randint(2, 6), chance.choice([1.0, 2.0, 5.0]))
        elif chance.random() < 0.3:
            limit = None
        return cls(
            retry=Retry(
                attempts=chance.choice([1, 2, 4, 4]),
                backoff=Backoff(initial=chance.choice([0.1, 0.5]), maximum=chance.choice([1.0, 10.0])),
                conflicts=chance.choice([0, 0, 1]),
            ),
            schedule=chance.choice([None, None, Backoff(), Backoff(initial=1.0, factor=1.0)]),
            limit=limit,
            connections=chance.choice([100, 100, 100, 2, 4]),
            timeout=chance.choice([5.0, 10.0, 30.0]),
        )


class Process:
    """One process; what it does ends when it is left, or at once when it is killed."""

    def __init__(self, world: World, setup: Setup, *, journal: bool = True) -> None:
        world.processes.append(self)
        self.world = world
        self.number = len(world.processes)
        self.dead = False
        self.left = False
        self.tasks: list[SimTask] = []
        self.connections = setup.connections
        self.setup = setup
        self.seen: list[float] = []  # when the vendor saw its requests
        self.polling: set[str] = set()
        self.heard: dict[str, float] = {}
        """When each run was last read, or first asked about."""
        self.own: dict[str, float] = {}
        """When each run was started by a request of this process that was answered."""
        self.waits: dict[object, str | None] = {}
        """The steps that are under way, and the run that each waits for; None if that is not known."""
        self.waited: dict[str | None, float] = {}
        """When the last step ended that waited for a run."""
        self.resting_until = 0.0
        self.session = Session(self)
        self.main: asyncio.Task[None] | None = None
        self.context: Context = copy_context()
        self.journal: SimulatedJournal | None = world.disk.journal(world.stand.name) if journal else None
        self.context.run(self._made)

    def __repr__(self) -> str:
        return f"p{self.number}"

    def _made(self) -> None:
        PROCESS.set(self)
        setup = self.setup
        self.transport = AiohttpTransport(
            Address("http://sim" + self.world.stand.prefix, TOKEN),
            session=cast("aiohttp.ClientSession", self.session),
            timeout=setup.timeout,
            connections=setup.connections,
        )
        self.client = Client(
            self.world.stand.dialect,
            self.transport,
            retry=setup.retry,
            schedule=setup.schedule,
            limit=setup.limit,
            connections=setup.connections,
            journal=self.journal,
        )

    def begin(self, callers: Sequence[Caller], until: float | None) -> asyncio.Task[None]:
        """Run the callers; leave the client *until* seconds later, or when all have ended."""
        loop = asyncio.get_running_loop()
        self.main = self.context.run(loop.create_task, self._main(callers, until))
        return self.main

    async def _main(self, callers: Sequence[Caller], until: float | None) -> None:
        world = self.world
        async with self.client:
            world.note("%r begins: %s", self, self.setup)
            tasks = [asyncio.create_task(caller.run(self)) for caller in callers]
            left: set[asyncio.Task[None]] = set()
            if tasks:
                _, left = await asyncio.wait(tasks, timeout=until)
            if not left:
                await self._quiet(tasks)
            world.note("%r is left", self)
            self.left = True
        begun = world.now
        if left:
            _, left = await asyncio.wait(left, timeout=LINGER)
            world.laws.check(not left, f"leaks: {len(left)} callers wait on after {self} was left: {left}")
            for task in left:
                task.cancel()
        for task in tasks:
            if not task.cancelled() and task.done() and task.exception() is not None:
                world.laws.broken(f"the simulation: a caller of {self} ended with {task.exception()!r}")
        del tasks, left
        if world.now == begun:
            await asyncio.sleep(0)
        world.laws.left(self)

    async def _quiet(self, tasks: list[asyncio.Task[None]]) -> None:
        """Look for what is left when all callers have gone, once the collector has found their streams."""
        for task in tasks:
            if task.exception() is not None:
                self.world.laws.broken(f"the simulation: a caller of {self} ended with {task.exception()!r}")
        tasks.clear()
        self.tasks = [task for task in self.tasks if not task.done()]
        await asyncio.sleep(0.1)  # until what has just ended is let go of
        collect()
        await asyncio.sleep(self.setup.timeout + 60)
        self.world.laws.quiet(self)

    async def kill(self) -> None:
        """End as by `kill -9`: nothing is written or sent any more, and the lock of the journal is free."""
        world = self.world
        world.note("%r is killed", self)
        world.killed += 1
        self.dead = True
        if self.journal is not None:
            self.journal.die()
        for exchange in tuple(self.session.under_way):
            self.session.decide(exchange)
        for _ in range(200):
            for task in self._left():
                task.cancel()
            await asyncio.sleep(0)
            if self.journal is not None:
                await self.journal.dead()
            if not self._left():
                break
        world.laws.check(not self._left(), f"the simulation: {self} cannot be killed, there are {self._left()}")
        client: Any = self.client
        client._tasks.close()
        for timer in world.loop.timers:
            if timer._context.get(PROCESS) is self:  # type: ignore[attr-defined]
                timer.cancel()
        self.tasks.clear()

    def _left(self) -> list[SimTask]:
        return [task for task in self.tasks if not task.done()]
