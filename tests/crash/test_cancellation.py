"""Waits that are cut off at every step of the loop: nothing is left behind, and nothing is done twice."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, closing, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field

from agentruns import (
    Action,
    AgentRunsError,
    AlreadyAnsweredError,
    Backoff,
    Client,
    Retry,
    Run,
    RunRef,
    RunStatus,
    RunStream,
    ToolOutcomeUnknownError,
    ToolOutput,
    Tools,
    connect,
    narrative,
)
from agentruns._following.batch import Batch
from agentruns._keeping.journal import Journal
from agentruns.emulator import Call, Emulator, Fault, Prompt, Turn
from tests.crash.killed_processes import EXHAUSTIVE, scratch
from tests.crash.loop_steps import HANGS, LOOPS, Inside, Stepper, alone, everywhere, run
from tests.crash.ways_to_cancel import FRAMES, by_task, cut_at

pytestmark = pytest.mark.timeout(1200 if EXHAUSTIVE else 120)

QUICK = Backoff(initial=0.0002, maximum=0.001, jitter=0.0)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentruns._aio.timers.TICK", 1e-4)


@define
class Scene:
    """One vendor, one journal or none, and what was done. The name of a conversation tells its handlings apart."""

    tools: bool
    journal: Path | None
    emulator: Emulator[Any]
    origins: list[narrative.UserMessage] = field(factory=list)
    handled: Counter[str] = field(factory=Counter)
    transport: Inside = field(init=False)

    def client(self) -> Client:
        self.transport = Inside(self.emulator)
        journal = None if self.journal is None else Journal(self.journal, "narrative")
        return Client(narrative, self.transport, retry=Retry(backoff=QUICK), schedule=QUICK, journal=journal)

    def stream(self, client: Client, origin: narrative.UserMessage | None = None) -> RunStream:
        origin = origin or self.origins[0]
        tools = self.handlers() if self.tools else None
        return client.stream(origin, tools=tools, key=self.key(origin) if self.journal else None, timeout=50)

    def batch(self, client: Client) -> Batch:
        tools = self.handlers() if self.tools else None
        return client.batch(self.origins, tools=tools, key=self.key, limit=2)

    @staticmethod
    def key(origin: narrative.UserMessage) -> str:
        return f"of {origin.conversation_id}"

    def handlers(self) -> Tools:
        tools = Tools()

        @tools.add
        async def approve(of: str) -> bool:
            self.handled[f"approve {of}"] += 1
            try:
                for _ in range(3):
                    await asyncio.sleep(0)
            finally:
                await asyncio.sleep(0)
            return True

        @tools.add
        def look_up(of: str) -> str:
            self.handled[f"look up {of}"] += 1
            return of

        return tools

    @property
    def started(self) -> int:
        return int(self.emulator.state.runs_started)

    @property
    def runs(self) -> int:
        """Return how many runs are started where nothing is cut off."""
        return len(self.origins) * (2 if self.tools else 1)

    @property
    def handlings(self) -> int:
        """Return how many handlers are run where nothing is cut off."""
        return len(self.origins) * (2 if self.tools else 0)

    async def prepare(self, count: int) -> None:
        """Make as many conversations, each of which waits for its first message."""
        async with evolve(self, journal=None).client() as client:
            for _ in range(count):
                made = await client.perform(narrative.create_conversation(_config(self.handlers())))
                self.origins.append(narrative.UserMessage(made.id, "Handle it."))

    def cut_off(self) -> int:
        """Return how many handlers have begun and not answered, by the journal."""
        if self.journal is None or not self.journal.exists():
            return 0
        with closing(sqlite3.connect(self.journal)) as connection:
            (found,) = connection.execute("SELECT count(*) FROM handling WHERE state = 'running'").fetchone()
        return int(found)


def _config(tools: Tools) -> narrative.Config:
    return narrative.Config(
        model="anthropic.claude-opus-4.6",
        data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        max_iterations=8,
        max_tokens=2048,
        output_format_schema=narrative.TEXT_SCHEMA,
        client_tools=[narrative.client_tools(tools, alias="ops")],
    )


def _asks(prompt: Prompt) -> Turn:
    if prompt.index:
        return Turn("Done.", running=0.0)
    of = {"of": prompt.conversation_id}
    return Turn(calls=[Call("approve", of), Call("look_up", of)], running=0.0)


@asynccontextmanager
async def scene(*, key: bool, tools: bool, origins: int = 1) -> AsyncIterator[Scene]:
    with scratch() as folder:
        path = folder / "journal.db"
        emulator = Emulator("narrative", script=_asks if tools else [Turn("Done.", running=0.0)])
        made = Scene(tools, path if key else None, emulator)
        await made.prepare(origins)
        yield made
        assert [each.name for each in path.parent.iterdir()] in ([], ["journal.db"])


# What is cut off ------------------------------------------------------------------------------------------------------


async def held(scene: Scene, client: Client) -> None:
    """Follow a stream that nobody closes."""
    async for _ in scene.stream(client):
        pass


async def closed(scene: Scene, client: Client) -> None:
    """Follow a stream, and close it."""
    async with scene.stream(client) as stream:
        async for _ in stream:
            pass


async def result(scene: Scene, client: Client) -> None:
    origin = scene.origins[0]
    tools = scene.handlers() if scene.tools else None
    await client.result(origin, tools=tools, key=scene.key(origin) if scene.journal else None)


async def batch(scene: Scene, client: Client) -> None:
    """Run several at once, and close the batch."""
    async with scene.batch(client) as outcomes:
        async for outcome in outcomes:
            assert outcome.error is None, f"{outcome.error!r}"


async def open_batch(scene: Scene, client: Client) -> None:
    """Run several at once in a batch that nobody closes."""
    async for outcome in scene.batch(client):
        assert outcome.error is None, f"{outcome.error!r}"


Work = Callable[[Scene, Client], Coroutine[Any, Any, None]]
WORKS: dict[str, Work] = {each.__name__: each for each in (held, closed, result, batch, open_batch)}


# What must be so after ------------------------------------------------------------------------------------------------


async def nothing_left(scene: Scene) -> None:
    """Check that nothing is under way any more once what was cut off was let go of."""
    await alone()
    assert scene.transport.in_use == 0
    assert scene.started <= scene.runs
    assert max(scene.handled.values(), default=0) <= 1, f"{scene.handled}"


async def goes_on(scene: Scene, client: Client) -> None:
    """Check that who comes next with the key comes to the end, and that nothing was done twice."""
    if scene.journal is None:
        return
    unknown = scene.cut_off()
    for origin in scene.origins:
        stream = scene.stream(client, origin)
        paused: Run | None = None
        try:
            async for _ in stream:
                pass
        except ToolOutcomeUnknownError as error:
            paused = error.run
        if paused is not None:
            assert unknown > 0
            by_hand = {action.id: ToolOutput(action, "by hand") for action in paused.actions}
            try:
                await client.resume(paused, [*by_hand.values()])
            except AlreadyAnsweredError as error:  # other handlers of the pause have answered: their answers stand
                standing = {each.action.id: each for each in error.standing}
                await client.resume(paused, [*(by_hand | standing).values()])
            stream = scene.stream(client, origin)
            async for _ in stream:
                pass
        assert stream.run is not None
        assert stream.run.status is RunStatus.COMPLETED
        assert stream.run.output == "Done."
    assert scene.started == scene.runs
    assert max(scene.handled.values(), default=0) <= 1, f"{scene.handled}"
    if not unknown:
        assert len(scene.handled) == scene.handlings


# ----------------------------------------------------------------------------------------------------------------------


def cases(more: Iterable[object], *, whole: bool = False) -> pytest.MarkDecorator:
    """
    Return every work in every loop, each with one of *more*, or with all of them if everything is looked at.

    The *whole* is with and without key, with and without tools; else it is with both, and with neither.
    """
    ways = tuple(more)
    kinds = [
        kind
        for kind in product(LOOPS, WORKS, (False, True), (False, True))
        if EXHAUSTIVE or whole or kind[2] == kind[3]
    ]
    return pytest.mark.parametrize(
        ("loop", "work", "key", "tools", "way"),
        [
            pytest.param(*kind, way, id=f"{kind[0]}-{kind[1]}{'-key' * kind[2]}{'-tools' * kind[3]}-{way}")
            for number, kind in enumerate(kinds)
            for place, way in enumerate(ways)
            if EXHAUSTIVE or (number + number // len(ways)) % len(ways) == place
        ],
    )


@cases(FRAMES, whole=True)
def test_what_is_cut_off_leaves_nothing(loop: str, work: str, key: bool, tools: bool, way: str) -> None:
    async def once(stepper: Stepper, n: int) -> bool:
        async with scene(key=key, tools=tools, origins=2 if "batch" in work else 1) as made:
            async with made.client() as client:
                came = await cut_at(stepper, FRAMES[way], WORKS[work](made, client), n)
                await nothing_left(made)
                await goes_on(made, client)
            await alone(0.0)
            return came

    everywhere(loop, f"once {work} {way} {key} {tools}", once)


@cases([1, 2, 5])
def test_what_is_cut_off_again_while_it_cleans_up_leaves_nothing(
    loop: str, work: str, key: bool, tools: bool, way: int
) -> None:
    async def once(stepper: Stepper, n: int) -> bool:
        async with scene(key=key, tools=tools, origins=2 if "batch" in work else 1) as made:
            async with made.client() as client:
                await cut_at(stepper, by_task, WORKS[work](made, client), n, n + way)
                await nothing_left(made)
                await goes_on(made, client)
            await alone(0.0)
            return stepper.steps >= n

    everywhere(loop, f"twice {work} {way} {key} {tools}", once)


@cases([0, 1, 3])
def test_a_client_that_is_cut_off_once_or_twice_leaves_nothing(
    loop: str, work: str, key: bool, tools: bool, way: int
) -> None:
    async def once(stepper: Stepper, n: int) -> bool:
        async with scene(key=key, tools=tools, origins=2 if "batch" in work else 1) as made:

            async def whole() -> None:
                async with made.client() as client:
                    await WORKS[work](made, client)

            await cut_at(stepper, by_task, whole(), *{n, n + way})
            reached = stepper.steps >= n
            await nothing_left(made)
            async with made.client() as client:
                await goes_on(made, client)
            await alone(0.0)
            return reached

    everywhere(loop, f"client {work} {way} {key} {tools}", once)


@pytest.mark.parametrize(("key", "tools"), list(product((False, True), repeat=2)) if EXHAUSTIVE else [(True, True)])
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_step_that_was_cut_off_loses_nothing(loop: str, frame: str, key: bool, tools: bool) -> None:
    async def once(stepper: Stepper, n: int) -> bool:
        async with scene(key=key, tools=tools) as made, made.client() as client:
            stream = made.stream(client)

            async def follow() -> None:
                async for _ in stream:
                    pass

            came = await cut_at(stepper, FRAMES[frame], follow(), n)
            await follow()
            assert stream.run is not None
            assert stream.run.status is RunStatus.COMPLETED
            assert made.started == made.runs
            assert made.handled.total() == made.handlings
            await nothing_left(made)
            return came

    everywhere(loop, f"again {frame} {key} {tools}", once)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_cannot_be_entered_leaves_nothing(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: Inside, *_: object) -> None:
        raise ZeroDivisionError

    async def work(stepper: Stepper) -> None:
        async with scene(key=True, tools=False) as made:
            monkeypatch.setattr(Inside, "open", fails)
            with pytest.raises(ZeroDivisionError):
                await made.client().__aenter__()
            await alone(0.0)

    run(loop, work)


@pytest.mark.parametrize("later", [0, 1, 2])
@pytest.mark.parametrize("tools", [False, True], ids=["plain", "tools"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_is_being_left_is_closed_however_often_it_is_cut_off(loop: str, tools: bool, later: int) -> None:
    async def once(stepper: Stepper, n: int) -> bool:
        async with scene(key=True, tools=tools) as made:
            asked = asyncio.Event()
            steps: list[asyncio.Task[None]] = []

            async def slow(action: Action) -> None:
                asked.set()
                await asyncio.Event().wait()

            async def leave() -> None:
                async with made.client() as client:
                    stream = client.stream(made.origins[0], tools=slow if tools else None, key="k")
                    steps.append(asyncio.ensure_future(to_the_end(stream)))
                    await (asked.wait() if tools else asyncio.sleep(0.002))
                    stepper.arm({n: leaving.cancel, n + later: leaving.cancel})

            leaving = asyncio.ensure_future(leave())
            await asyncio.wait([leaving])
            reached = stepper.steps >= n
            stepper.armed = False
            await asyncio.wait(steps)
            await alone(0.0)
            return reached

    everywhere(loop, f"leaving {tools} {later}", once, few=False)


async def to_the_end(stream: RunStream) -> None:
    with suppress(AgentRunsError):
        async for _ in stream:
            pass


@pytest.mark.parametrize("loop", LOOPS)
def test_a_run_that_is_to_be_read_at_once_is(loop: str) -> None:
    async def work(stepper: Stepper) -> None:
        async with scene(key=False, tools=False) as made, made.client() as client:
            for _ in range(20):
                started = await client.start(made.origins[0])
                async with asyncio.timeout(HANGS):
                    last = await client.result(RunRef(started.id))
                assert last.status is RunStatus.COMPLETED

    run(loop, work)


# Over sockets ---------------------------------------------------------------------------------------------------------


@define
class Served(Scene):
    """A scene whose vendor is asked over sockets."""

    def client(self) -> Client:
        return connect(
            narrative,
            token=self.emulator.token,
            base_url=self.emulator.base_url,
            journal=self.journal,
            schedule=QUICK,
            retry=Retry(backoff=QUICK),
        )


async def idle(emulator: Emulator[Any], connections: int | None = None) -> None:
    """Wait until the server works on no request, and has no more than so many connections."""
    assert emulator._runner is not None
    server = emulator._runner.server
    assert server is not None
    deadline = asyncio.get_running_loop().time() + 20.0
    while (asked := len(emulator._working)) or (connections is not None and len(server.connections) > connections):
        assert asyncio.get_running_loop().time() < deadline, f"{asked} requests, {len(server.connections)} connections"
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("key", [False, True], ids=["free", "key"])
@pytest.mark.parametrize("work", ["held", "batch"])
@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_cut_off_leaves_no_connection_in_use(loop: str, work: str, key: bool) -> None:
    with Emulator("narrative", script=_asks) as emulator:

        async def once(stepper: Stepper, n: int) -> bool:
            with scratch() as folder:
                emulator.fail(Fault.delay(0.005, committed=bool(n % 2), times=None))
                made = Served(True, folder / "journal.db" if key else None, emulator)
                await made.prepare(2 if work == "batch" else 1)
                before = made.started
                async with made.client() as client:
                    came = await cut_at(stepper, FRAMES["task"], WORKS[work](made, client), n)
                    await alone()
                    await idle(emulator)
                await alone(0.0)
                await idle(emulator, connections=0)
                assert made.started - before <= made.runs
                assert max(made.handled.values(), default=0) <= 1
                return came

        everywhere(loop, f"sockets {work} {key}", once)
