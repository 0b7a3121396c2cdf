"""Waits that are cut off and take the remote run with them: no race with its end makes up another end."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from agentruns import Action, Backoff, Client, Retry, RunStream, origami
from agentruns._keeping.journal import Journal
from agentruns._values.exchange import Request, Response
from agentruns.emulator import Call, Emulator, Turn
from tests.crash.killed_processes import EXHAUSTIVE, scratch
from tests.crash.loop_steps import LOOPS, Inside, Stepper, alone, everywhere
from tests.crash.ways_to_cancel import by_task, cut_at

pytestmark = pytest.mark.timeout(1200 if EXHAUSTIVE else 120)

QUICK = Backoff(initial=0.0002, maximum=0.001, jitter=0.0)
NEVER = float("inf")
ASK = Call("ask-questions", {"type": "single-choice", "question": "Which?", "suggestedAnswers": ["This", "That"]})
SCRIPTS = {"plain": [Turn("Done.", running=6)], "pause": [Turn(calls=[ASK], running=2), Turn("Done.", running=6)]}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentruns._following.cancelling.CONFIRM_GAP", 0.001)
    monkeypatch.setattr("agentruns._aio.timers.TICK", 1e-4)


@define
class Ticking:
    """A clock that goes on by a second with every request, so that each race is run the same way each time."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Transport(Inside):
    def __init__(self, emulator: Emulator[Any], clock: Ticking) -> None:
        super().__init__(emulator)
        self._clock = clock

    async def __call__(self, request: Request) -> Response:
        self._clock.now += 1
        return await super().__call__(request)


@define
class Race:
    emulator: Emulator[Any]
    transport: Transport
    mode: Any
    path: Path | None

    @property
    def client(self) -> Client:
        journal = None if self.path is None else Journal(self.path, "origami")
        return Client(origami, self.transport, retry=Retry(backoff=QUICK), schedule=QUICK, journal=journal)

    def stream(self, client: Client) -> RunStream:
        key = None if self.path is None else "k"
        return client.stream(origami.Prompt("Find clinics."), tools=answer, on_cancel=self.mode, key=key)

    @property
    def runs(self) -> dict[str, Any]:
        return dict(self.emulator.state.runs)


async def answer(action: Action) -> str:
    return "This"


@contextmanager
def race(script: str, mode: str, delay: float, *, key: bool) -> Iterator[Race]:
    clock = Ticking()
    emulator = Emulator("origami", script=SCRIPTS[script], clock=clock, retry_after=0, cancel_delay=delay)
    with scratch() as folder:
        yield Race(emulator, Transport(emulator, clock), mode, folder / "journal.db" if key else None)


def is_true(run: Race, stream: RunStream) -> None:
    """Check that the stream shows its run as it is at the vendor, as far as it says that it is over."""
    seen = stream.run
    if seen is None:
        assert run.runs == {}, f"nothing was seen of {run.runs}"
        return
    there = run.runs[seen.id]
    if seen.vendor_status != "running":
        assert there.status == seen.vendor_status
    if run.mode == "confirm" and seen.vendor_status == "running":
        raise AssertionError(f"not confirmed: {seen.vendor_status} here, {there.status} there")


def none_goes_on(run: Race) -> None:
    """Check that no run goes on that nobody has asked to stop."""
    left = {name: each.status for name, each in run.runs.items() if each.status == "running" and not each.cancelling}
    assert left == {}


CASES = list(product(SCRIPTS, ["cancel", "confirm"], [0.0, 2.0, NEVER], [False, True]))
SOME = [case for number, case in enumerate(CASES) if EXHAUSTIVE or not case[3] or number % 8 == 1]


@pytest.mark.parametrize(("script", "mode", "delay", "key"), SOME)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_wait_that_is_cut_off_takes_its_run_along_and_tells_its_true_end(
    loop: str, script: str, mode: str, delay: float, key: bool
) -> None:
    async def once(stepper: Stepper, n: int) -> bool:
        with race(script, mode, delay, key=key) as run:
            async with run.client as client:
                stream = run.stream(client)

                async def follow() -> None:
                    async for _ in stream:
                        pass

                came = await cut_at(stepper, by_task, follow(), n)
                is_true(run, stream)
                none_goes_on(run)
                await stream.aclose()
                none_goes_on(run)
                await alone()
            await alone(0.0)
            return came

    everywhere(loop, f"{script} {mode} {delay} {key}", once, few=key and script == "plain" and not EXHAUSTIVE)
