"""To play a seed: the world, its loop, and what makes them the same in every run of the program."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from typing import Any, Final
from unittest import mock

from attrs import define

from agentruns import _telemetry, client
from agentruns._aio import timers
from agentruns._following.stream import RunStream
from agentruns._keeping import keys
from agentruns._keeping.journal import handlings, records, starts
from agentruns._polling import poller
from agentruns._polling.lists import Listing
from agentruns._polling.watch import Watch

from .loop import SimLoop, SimTask, StuckError
from .mutations import mutated
from .simulated_world import Options, World

logger = logging.getLogger("agentruns")


@define
class Outcome:
    """What came of a seed."""

    vendor: str
    seed: int
    options: Options
    breaches: list[str]
    history: list[str]
    digest: str
    exchanges: int
    seconds: float
    processes: int
    kills: int
    streams: int
    ended: int
    handled: int
    faults: Mapping[str, int]
    errors: Mapping[str, int]

    @property
    def again(self) -> str:
        """Return the line that plays it again."""
        return f"python -m tests.simulation --seed {self.seed} --vendor {self.vendor} {self.options}".rstrip()


def play(vendor: str, seed: int, options: Options = Options()) -> Outcome:  # noqa: B008 - frozen
    """Play one seed, and return what came of it."""

    async def live(world: World) -> None:
        world.draw_intents()
        await world.live()

    return _told(vendor, seed, _lived(vendor, seed, options, live))


def rehearse(vendor: str, story: Callable[[World], Awaitable[None]], seed: int = 0) -> World:
    """
    Play a *story* of one's own, in fine weather, and return the world after it; every law is looked at.

    Raise what the story raises.
    """

    async def live(world: World) -> None:
        world.weather.rate = world.disk.full = 0.0
        world.laws.knows_steps = False  # a story calls as it likes
        await story(world)
        world.laws.at_the_end()

    return _lived(vendor, seed, Options(known=frozenset()), live)


def _lived(vendor: str, seed: int, options: Options, live: Callable[[World], Awaitable[None]]) -> World:
    loop = SimLoop()
    collects, silent = gc.isenabled(), logger.disabled
    gc.disable()
    logger.disabled = True
    try:
        with mutated(options.mutation), _deterministic(loop, seed):
            world = World(vendor, seed, options, loop)
            try:
                _live(world, loop, live)
            finally:
                _let_go(loop)
                world.disk.close()
            return world
    finally:
        loop.close()
        logger.disabled = silent
        if collects:
            gc.enable()


def _live(world: World, loop: SimLoop, live: Callable[[World], Awaitable[None]]) -> None:
    laws = world.laws
    try:
        loop.run_until_complete(live(world))
    except StuckError as error:
        laws.broken(f"liveness: {error}: {_waiting(loop)}")
    except Exception as error:
        if not laws.breaches:
            raise
        laws.broken(f"the simulation: {error!r}")
    else:
        gc.collect()
        loop.run_until_complete(asyncio.sleep(0))
        tasks = asyncio.all_tasks(loop)
        laws.check(not tasks, f"leaks: at the end there are tasks: {list(tasks)[:3]}")
        laws.check(not loop.timers, f"leaks: at the end there are timers: {loop.timers[:3]}")
    for complaint in loop.complaints:
        laws.broken(f"unseen: {complaint}")


def _told(vendor: str, seed: int, world: World) -> Outcome:
    history = [f"[{when:9.3f}] {what % parts if parts else what}" for when, what, parts in world.history]
    return Outcome(
        vendor=vendor,
        seed=seed,
        options=world.options,
        breaches=world.laws.breaches,
        history=history,
        digest=hashlib.sha256("\n".join(history).encode()).hexdigest()[:16],
        exchanges=world.exchanges,
        seconds=world.now,
        processes=len(world.processes),
        kills=world.killed,
        streams=len(world.laws.sights),
        ended=world.ended,
        handled=world.handled,
        faults=world.weather.struck,
        errors=world.laws.errors,
    )


def _waiting(loop: SimLoop) -> str:
    """Say who waits, and where."""
    lines = []
    for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.number if isinstance(task, SimTask) else 0):
        stack = task.get_stack(limit=1)
        where = f"{stack[-1].f_code.co_filename}:{stack[-1].f_lineno}" if stack else "?"
        lines.append(f"{getattr(task, 'process', None)} {getattr(task.get_coro(), '__qualname__', '?')} at {where}")
    return "; ".join(lines)


def _let_go(loop: SimLoop) -> None:
    """End what is left of a seed that was stuck."""
    loop.rounds = 0
    for _ in range(50):
        tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        with suppress(StuckError):
            loop.run_until_complete(asyncio.sleep(0))
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]


# What differs from one run of the program to the next ---------------------------------------------------------------


class _Clock:
    """Stands for the module `time` where the package asks for the time of day."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return 1.8e9 + self._loop.now

    def monotonic(self) -> float:
        return self._loop.now


class _Numbered(RunStream):
    """A stream that hashes by number, so that sets of streams have the same order in every run."""

    __slots__ = ("number",)
    made = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _Numbered.made += 1
        self.number = _Numbered.made

    def __hash__(self) -> int:
        return self.number


_METERS: Final = _telemetry.Meters


def _meters(common: Mapping[str, str | int], roles: tuple[str, str]) -> Any:
    """Make the instruments once: OpenTelemetry keeps those of every client for ever."""
    return _meters_of(tuple(common.items()), roles)


@cache
def _meters_of(common: tuple[tuple[str, str | int], ...], roles: tuple[str, str]) -> Any:
    return _METERS(dict(common), roles)


@contextmanager
def _deterministic(loop: SimLoop, seed: int) -> Iterator[None]:
    """Take clocks, chance and addresses in memory out of it."""
    state = random.getstate()
    random.seed(seed)
    _Numbered.made = 0
    clock = _Clock(loop)
    replaced: list[tuple[Any, str, Any]] = [
        (keys, "time", clock),
        (handlings, "time", clock),
        (records, "time", clock),
        (starts, "time", clock),
        (timers, "time", clock),
        (poller, "_OFFSET", 0.25),
        (_telemetry, "Meters", _meters),
        (client, "RunStream", _Numbered),
        (Watch, "__hash__", lambda watch: hash(watch.phase)),
        (Listing, "__hash__", lambda listing: len(listing._parent)),
    ]
    with ExitStack() as stack:
        stack.callback(random.setstate, state)
        for where, name, instead in replaced:
            stack.enter_context(mock.patch.object(where, name, instead))
        yield
