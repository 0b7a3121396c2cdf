"""The steps of all tasks of a loop, counted, so that something can be done at the n-th; and what may be left after."""

import asyncio
import gc
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvloop
from attrs import define, field
from multidict import CIMultiDict

from agentruns._values.exchange import Request, Response
from agentruns.emulator import Emulator
from agentruns.emulator.vendor import Request as Asked
from tests.crash.killed_processes import EXHAUSTIVE

LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


FEW = 3
"""How many steps of each case are cut at every day; where the first of them lies differs from case to case."""


HANGS = 20.0
"""Seconds after which work that should have ended counts as hanging."""

NEVER = 10**9
ENOUGH = 3
"""How many troubles of one kind are told."""


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells of each of its steps before it goes on."""

    def __init__(self, inner: Coroutine[Any, Any, Any], step: Callable[[], None]) -> None:
        self._inner = inner
        self._step = step

    def __getattr__(self, name: str) -> Any:  # cr_frame and the like, which anyio looks at
        return getattr(self._inner, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def send(self, value: Any) -> Any:
        self._step()
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        self._step()
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()


@define
class Stepper:
    """Counts the steps of tasks that are made in a loop, once armed, and acts at those that it is told."""

    steps: int = 0
    acts: Mapping[int, Callable[[], object]] = field(factory=dict)
    armed: bool = False

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count the tasks that *loop* makes from now on."""
        loop.set_task_factory(self._task)  # type: ignore[arg-type]

    def arm(self, acts: Mapping[int, Callable[[], object]]) -> None:
        """Begin to count, and do each of *acts* right before its step."""
        self.steps, self.acts, self.armed = 0, acts, True

    def _task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(_Counted(work, self._step), loop=loop, **options)

    def _step(self) -> None:
        if self.armed:
            self.steps += 1
            act = self.acts.get(self.steps)
            if act is not None:
                act()

    def reached(self) -> bool:
        """Tell whether all that was to be done was done; count no more."""
        self.armed = False
        return self.steps >= max(self.acts)


@contextmanager
def complaints() -> Iterator[list[str]]:
    """Gather what Python complains about: warnings, and errors that nobody can be told."""
    found: list[str] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda what: found.append(f"{what.err_msg}: {what.exc_value!r} in {what.object!r}")
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield found
            gc.collect()
        found += [f"{each.category.__name__}: {each.message}" for each in warned]
    finally:
        sys.unraisablehook = before


def run(name: str, work: Callable[[Stepper], Coroutine[Any, Any, None]]) -> None:
    """Run *work* in a loop of the kind *name*, and have nothing complain meanwhile."""
    stepper = Stepper()
    gc.collect()
    gc.freeze()  # what there was before is not looked at again and again
    with complaints() as found:
        with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
            loop = runner.get_loop()
            loop.set_exception_handler(lambda _, context: found.append(f"{context.get('message')}: {context}"))
            stepper.watch(loop)
            runner.run(work(stepper))
        gc.collect()
    assert found == [], found


cuts: Counter[str] = Counter()
"""How often what was cut off."""


def everywhere(
    loop: str, what: str, once: Callable[[Stepper, int], Coroutine[Any, Any, bool]], *, few: bool = not EXHAUSTIVE
) -> None:
    """
    Do *once* for every *n*, until it comes to an end before that, or for a *few* of them.

    Before, it is done without being cut off.
    """

    async def all_of_them(stepper: Stepper) -> None:
        async with asyncio.timeout(2 * HANGS):
            assert not await once(stepper, NEVER)
        gap = max(stepper.steps // FEW, 1) if few else 1
        n = 1 + zlib.crc32(what.encode()) % gap
        troubles: list[str] = []
        reached = 0
        while len(troubles) < ENOUGH:
            try:
                async with asyncio.timeout(2 * HANGS):
                    came = await once(stepper, n)
            except Exception as error:
                stepper.armed, came = False, True
                troubles.append(f"step {n}: {type(error).__name__}: {error}")
            if not came:
                break
            reached += 1
            n += gap
        cuts[what.split()[0]] += reached
        assert not troubles, "\n".join(troubles)
        assert reached

    run(loop, all_of_them)


async def alone(seconds: float = 20.0) -> None:
    """Wait until the current task is the only one; what was let go of is ended soon, not at once."""
    gc.collect()
    me = asyncio.current_task()
    deadline = asyncio.get_running_loop().time() + seconds
    while left := asyncio.all_tasks() - {me}:
        if asyncio.get_running_loop().time() >= deadline:
            raise AssertionError(f"left behind: {[(each.get_name(), each.get_coro()._inner) for each in left]}")  # type: ignore[union-attr]
        await asyncio.sleep(0.001)
        gc.collect()


class Inside:
    """A transport that needs no socket: the emulated vendor answers at once, a step there and a step back."""

    goodbye = 1
    """Steps that closing takes."""

    def __init__(self, emulator: Emulator[Any]) -> None:
        self._vendor = emulator.state
        self._token = emulator.token
        self.in_use = 0

    async def open(self, *_: object) -> None:
        pass

    async def ready(self, *_: object) -> None:
        pass

    async def close(self) -> None:
        for _ in range(self.goodbye):
            await asyncio.sleep(0)

    async def listen(self, request: Request, /, *_: Any) -> None:
        raise AssertionError("nobody asked for events")

    async def __call__(self, request: Request) -> Response:
        self.in_use += 1
        try:
            await asyncio.sleep(0)
            asked = Asked(
                method=request.method,
                path=self._vendor.prefix + request.path,
                query=dict(request.params),
                headers=CIMultiDict({**request.headers, "Authorization": f"Bearer {self._token}"}),
                content=b"" if request.json is None else _encoded(request.json),
            )
            reply = self._vendor.respond(asked)
            await asyncio.sleep(0)
            headers = {name.lower(): value for name, value in reply.headers.items()}
            return Response(reply.status, headers, reply.content, request)
        finally:
            self.in_use -= 1


def _encoded(value: Any) -> bytes:
    from agentruns._values import codec

    return codec.encode(value)
