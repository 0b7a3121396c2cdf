"""Who calls: each caller wants one piece of work, in one of the ways in which programs use streams."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field

from agentruns import (
    Action,
    DeadlineExceededError,
    Run,
    RunError,
    RunFailedError,
    RunRef,
    RunStatus,
    ToolError,
    ToolOutput,
    Tools,
)
from agentruns._following.stream import RunStream

from .invariants import Flaw
from .loop import PROCESS, SIGHT

if TYPE_CHECKING:
    from .process import Process
    from .simulated_vendors import Intent
    from .simulated_world import World

CALLER: Final[ContextVar[Caller | None]] = ContextVar("CALLER", default=None)


@define(eq=False)
class Sight:
    """What one stream showed, and for whom."""

    number: int
    intent: Intent
    what: str
    keyed: bool
    handles: bool
    progress: bool = False
    by_hand: bool = False
    timeout: float = float("inf")
    patience: float = 60.0
    began: float = float("inf")
    in_line: float = 0.0
    """The seconds of it that the client says it waited in its own line, before and within a start."""
    asked_first: float = float("inf")
    """When the first request for it left; polls tell nothing of whom they are for."""
    no_place_since: float | None = None
    without_place: float = 0.0
    """The seconds between refusals for want of a slot, or starts that failed, and what was sent next."""
    closed: bool = False
    """Somebody has closed it, so that it may end anywhere."""
    states: list[Run] = field(factory=list)

    def __str__(self) -> str:
        return f"stream {self.number} ({self.what} of {self.intent.name})"


LONGEST: Final = {"narrative": 600.0, "middesk": 6 * 3600.0, "origami": 21 * 60.0, "conduit": 600.0}
"""By vendor, the seconds that a wait lasts whose end nobody names, as the vendors' pages have it."""


def _seconds(timeout: float | None) -> float:
    return float("inf") if timeout is None else timeout


def in_line(stream: RunStream, sight: Sight, now: float) -> float:
    """Return the seconds for which a stream waited in the client's own line so far."""
    turn = stream._turn
    place, before = turn.place, 0.0 if turn.began is None else turn.began - sight.began
    return before if place is None else before + place.excused(now)


class Caller:
    """One caller, drawn by chance."""

    def __init__(self, world: World, intent: Intent, act: str) -> None:
        self.world = world
        self.intent = intent
        self.act = act
        self.chance = random.Random(world.chance.getrandbits(64))
        self.process: Process | None = None
        world.callers += 1
        self.number = world.callers

    def __repr__(self) -> str:
        return f"caller {self.number} ({self.act} {self.intent.name})"

    async def run(self, process: Process) -> None:
        """Call, some time from now."""
        self.process = process
        CALLER.set(self)
        await asyncio.sleep(self.chance.choice([0.0, 0.0, 1.0, 5.0, 20.0]) * self.chance.random())
        if process.left and self.chance.random() < 0.9:
            return
        self.world.note("%r: %r calls", process, self)
        await ACTS[self.act](self, process)
        self.world.note("%r: %r has ended", process, self)

    # Streams ----------------------------------------------------------------------------------------------------------

    def stream(
        self, process: Process, origin: Any = None, *, what: str = "", **options: Any
    ) -> tuple[RunStream, Sight]:
        """Open a stream as chance has it; of the origin of the work, unless another is given."""
        chance, intent = self.chance, self.intent
        if origin is None:
            origin = self.origin()
            if intent.keyed:
                options["key"] = intent.key
        tools = self.tools() if chance.random() < 0.75 else None
        if not self.world.peaceful:
            options.setdefault("timeout", chance.choice([600.0, 600.0, 600.0, None, 60.0, 10.0]))
            options.setdefault("patience", chance.choice([60.0, 60.0, 10.0, 0.0]))
            options.setdefault("stall", chance.choice([None, None, None, 15.0]))
        options.setdefault("progress", chance.random() < 0.2)
        options.setdefault("events", self.world.stand.name == "middesk" and chance.random() < 0.2)
        options.setdefault("tools", tools)
        sight = Sight(
            len(self.world.laws.sights) + 1,
            intent,
            self.act,
            "key" in options,
            handles=options["tools"] is not None,
            progress=options["progress"],
            timeout=_seconds(options.get("timeout", LONGEST[self.world.stand.name])),
            patience=options.get("patience", 60.0),
        )
        self.world.laws.sights.append(sight)
        return process.client.stream(origin, **options), sight

    def origin(self) -> Any:
        """Return what starts the work."""
        minted = self.intent.keyed and self.chance.random() < 0.6
        return self.world.stand.origin(self.intent, minted)

    def tools(self) -> Tools:
        """Return handlers for all questions."""
        tools = Tools()
        repeatable = self.world.repeatable
        self.world.scopes += 1
        scope = self.intent.key if self.intent.keyed else f"stream with tools {self.world.scopes}"
        tools.default(Handler(self, scope, repeatable), repeatable=repeatable, timeout=self.world.tool_timeout)
        return tools

    async def step(self, stream: RunStream, sight: Sight) -> bool:
        """Take one step; return whether there was another state."""
        assert self.process is not None
        step, of = object(), stream.run or stream._origin
        waits = self.process.waits
        waits[step] = of.id if isinstance(of, Run | RunRef) else None
        sight.began = min(sight.began, self.world.now)
        token = SIGHT.set(sight)
        try:
            run = await stream.__anext__()
        finally:
            SIGHT.reset(token)
            self.process.waited[waits.pop(step)] = self.world.now
            sight.in_line = in_line(stream, sight, self.world.now)
        self.sees(sight, run)
        return True

    def sees(self, sight: Sight, run: Run) -> None:
        """Show a state to the laws."""
        if self.process is not None and not self.process.dead:
            self.world.note("%s shows %s %s", sight, run.id, run.vendor_status)
            self.world.laws.sees(sight, run)
            sight.states.append(run)

    async def walk(self, stream: RunStream, sight: Sight, *, beats: bool = True) -> None:
        """Go to the end of a stream, or to an error."""
        again = self.chance.choice([0, 0, 1, 3])
        beat = self.chance.choice([None, None, 0.05, 0.5, 2.0]) if beats else None
        count = 0
        while True:
            try:
                if beat is None or count > 40:
                    await self.step(stream, sight)
                else:
                    await asyncio.wait_for(self.step(stream, sight), beat)
            except StopAsyncIteration:
                self.over(sight)
                return
            except TimeoutError as error:
                if isinstance(error, DeadlineExceededError):
                    self.failed(sight, error)
                    return
                count += 1
            except Exception as error:
                self.failed(sight, error)
                if again == 0 or str(error).startswith("the client was closed"):
                    return
                again -= 1

    def over(self, sight: Sight) -> None:
        """Note that a stream has ended."""
        if self.process is not None and not self.process.dead:
            self.world.note("%s has ended", sight)
            if not sight.closed:
                self.world.laws.ends(sight)
            self.world.ended += 1

    def failed(self, sight: Sight, error: BaseException) -> None:
        """Note an error."""
        sight.closed = sight.closed or isinstance(error, DeadlineExceededError)  # told once, then it just ends
        if self.process is not None and not self.process.dead:
            self.world.laws.fails(sight, error, left=self.process.left)

    # Acts -------------------------------------------------------------------------------------------------------------

    async def follow(self, process: Process) -> None:
        """Iterate to the end."""
        stream, sight = self.stream(process)
        await self.walk(stream, sight)

    async def result(self, process: Process) -> None:
        """Ask for the result."""
        stream, sight = self.stream(process)
        del stream
        options: dict[str, Any] = {"tools": self.tools() if sight.handles else None}
        if self.intent.keyed:
            options["key"] = self.intent.key
        process.waits[self] = None
        try:
            run = await process.client.result(self.origin(), **options)
        except RunFailedError as error:
            self.sees(sight, run_of(error))
            self.over(sight)
        except Exception as error:
            self.failed(sight, error)
        else:
            self.sees(sight, run)
            self.over(sight)
        finally:
            process.waited[process.waits.pop(self)] = self.world.now

    async def few(self, process: Process) -> None:
        """Leave after some states, with or without closing."""
        stream, sight = self.stream(process)
        try:
            for _ in range(self.chance.randint(0, 2)):
                await self.step(stream, sight)
            if self.chance.random() < 0.5:
                await asyncio.sleep(10 * self.chance.random())
                await stream.aclose()
        except StopAsyncIteration:
            self.over(sight)
        except Exception as error:
            self.failed(sight, error)

    async def cancelled(self, process: Process) -> None:
        """Be cancelled at some moment, and perhaps go on."""
        options: dict[str, Any] = {}
        if self.world.stand.name == "origami" and self.chance.random() < 0.5:
            options["on_cancel"] = self.chance.choice(["cancel", "confirm"])
        stream, sight = self.stream(process, **options)
        sight.closed = bool(options)  # the run is cancelled behind the stream's back
        task = asyncio.create_task(self.walk(stream, sight, beats=not options))
        await asyncio.wait([task], timeout=self.chance.choice([0.1, 1.0, 5.0, 20.0]) * self.chance.random())
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            self.world.note("%s was cancelled", sight)
        elif (error := task.exception()) is not None:
            raise error
        if options:
            await stream.aclose()  # CPython 3.11 cannot collect what the CancelledError of a task holds on to
        elif self.chance.random() < 0.5:
            await self.walk(stream, sight)

    async def flicker(self, process: Process) -> None:
        """Open and close one stream after the other, at once or nearly."""
        for _ in range(self.chance.randint(2, 6)):
            stream, sight = self.stream(process)
            sight.closed = True
            task = asyncio.create_task(self.walk(stream, sight, beats=False))
            await asyncio.wait([task], timeout=self.chance.choice([0.02, 0.1, 1.0]) * self.chance.random())
            await stream.aclose()
            task.cancel()
            await asyncio.wait([task])

    async def closed(self, process: Process) -> None:
        """Have another task close the stream at some moment."""
        stream, sight = self.stream(process)
        task = asyncio.create_task(self.walk(stream, sight))
        await asyncio.wait([task], timeout=self.chance.choice([0.1, 1.0, 5.0, 20.0]) * self.chance.random())
        sight.closed = True
        await stream.aclose()
        done, _ = await asyncio.wait([task], timeout=5.0)  # the journal may be slow
        self.world.laws.check(done, f"ends: {sight} was closed, and whoever waits for it waits on")
        task.cancel()
        await asyncio.wait([task])

    async def twice(self, process: Process) -> None:
        """Wait on one stream with two tasks, of which one is told that it may not."""
        stream, sight = self.stream(process)
        await asyncio.gather(self.walk(stream, sight), self.walk(stream, sight))

    async def start(self, process: Process) -> None:
        """Start by itself, then follow the run or its name."""
        sight = Sight(0, self.intent, "start", False, False)
        try:
            run = await process.client.start(self.origin())
        except Exception as error:
            self.failed(sight, error)
            return
        self.world.laws.check(
            self.world.whose(run.id) == self.intent.name, f"the right run: {self} started {run.id} of another"
        )
        stream, sight = self.stream(process, run if self.chance.random() < 0.5 else run.ref)
        await self.walk(stream, sight)

    async def watch(self, process: Process) -> None:
        """Follow a run that somebody else has started, if there is one."""
        for _ in range(10):
            runs = self.world.runs_of(self.intent.name)
            if runs:
                break
            await asyncio.sleep(1.0)
        else:
            return
        stream, sight = self.stream(process, self.chance.choice(runs), tools=None)
        await self.walk(stream, sight)

    async def hand(self, process: Process) -> None:
        """Answer by hand what waits for an answer."""
        sight = Sight(0, self.intent, "by hand", False, False, by_hand=True)
        for _ in range(self.chance.randint(1, 4)):
            await asyncio.sleep(5 * self.chance.random())
            runs = self.world.runs_of(self.intent.name)
            if not runs:
                continue
            try:
                run = await process.client.fetch(runs[-1])
                if run.status is RunStatus.REQUIRES_ACTION:
                    await self.two_decide(process, run, sight)
            except Exception as error:
                self.failed(sight, error)

    async def two_decide(self, process: Process, run: Run, sight: Sight) -> None:
        """Answer as two people who do not know of each other: at once, or one after the other."""
        numbers = (self.number, self.number + 1000)
        ended: list[Any] = []
        for together in (numbers,) if self.number % 2 else [(number,) for number in numbers]:
            deciding = (self.decide(process, run, number=number) for number in together)
            ended += await asyncio.gather(*deciding, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                self.failed(sight, error)

    async def decide(
        self, process: Process, run: Run, standing: Sequence[ToolOutput] = (), number: int | None = None
    ) -> Run:
        """Answer all that a run waits for, by what stands if something does; *number* is who does."""
        outputs = []
        stands = {each.action.id: each for each in standing}
        entered = self.world.journaled(self.intent) == run.id
        for action in run.actions:
            mark = self.world.stand.mark(action) or ""
            text = f"{mark}=by hand {self.number if number is None else number}"
            self.world.laws.given[mark].add(text)
            if not entered:  # the disk was full, say, when its start was to be entered
                self.world.laws.unentered.add(mark)
            outputs.append(stands.get(action.id) or ToolOutput(action, text))
        resumed = await process.client.resume(run, outputs)
        if not process.dead:
            for each in outputs:
                self.world.laws.was_told_taken(each.action, each.output)
        return resumed

    async def cancel(self, process: Process) -> None:
        """Cancel the remote run."""
        sight = Sight(0, self.intent, "cancel", False, False)
        await asyncio.sleep(10 * self.chance.random())
        runs = self.world.runs_of(self.intent.name)
        if runs:
            try:
                await process.client.cancel(runs[-1])
            except Exception as error:
                self.failed(sight, error)

    async def list(self, process: Process) -> None:
        """Go through all the runs there are beside ours."""
        sight = Sight(0, self.intent, "list", False, False)
        runs = self.world.runs_of(self.intent.name)
        if runs and self.world.stand.name != "narrative":
            try:
                async for _ in process.client.runs(runs[-1].parent if self.world.stand.name != "middesk" else None):
                    pass
            except Exception as error:
                self.failed(sight, error)


ACTS: Final[Mapping[str, Callable[[Caller, Process], Awaitable[None]]]] = {
    "follow": Caller.follow,
    "result": Caller.result,
    "few": Caller.few,
    "cancelled": Caller.cancelled,
    "closed": Caller.closed,
    "flicker": Caller.flicker,
    "twice": Caller.twice,
    "start": Caller.start,
    "watch": Caller.watch,
    "hand": Caller.hand,
    "cancel": Caller.cancel,
    "list": Caller.list,
}


def run_of(error: RunError) -> Run:
    """Return the run that an error is about."""
    assert error.run is not None
    return error.run


@define(eq=False)
class Handler:
    """Answers every question; how, and how long it takes, is drawn for each."""

    caller: Caller
    scope: str
    """What a question is answered once for: the key, or one stream."""
    repeatable: bool

    async def __call__(self, action: Action) -> str:
        caller, world = self.caller, self.caller.world
        mark = world.stand.mark(action)
        process = PROCESS.get()
        if mark is None:
            world.laws.broken(f"handlers: {action} bears no mark")
            mark = "?"
        handling = world.laws.begins(self.scope, mark.split("/")[0], mark, self.repeatable)
        world.handled += 1
        if world.tool_timeout is not None:
            world.laws.given[mark].add(f"the tool gave no answer within {world.tool_timeout:g} s")
        chance = caller.chance
        world.note("%r: the handler of %s begins", process, mark)
        try:
            await asyncio.sleep(chance.choice([0.0, 0.1, 3.0]) * chance.random())
            draw = 1.0 if world.peaceful else chance.random()
            if process is not None and process.dead:
                raise asyncio.CancelledError
            if draw < 0.08:
                handling.flawed += 1
                raise Flaw(mark)
            if draw < 0.16:
                text = f"{mark}=no answer {handling.begun}"
                world.laws.given[mark].add(text)
                raise ToolError(text)
            text = f"{mark}=yes {handling.begun}"
            world.laws.given[mark].add(text)
            handling.gave.append(text)
            world.note("%r: the handler of %s gives %s", process, mark, text)
            return text
        except asyncio.CancelledError:
            handling.cut += 1
            raise
        finally:
            handling.under_way -= 1
