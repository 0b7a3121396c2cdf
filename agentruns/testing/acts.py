"""What the scenarios share: plain and pausing scripts, a handler that counts, assertions that explain themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from agentruns._values.run import Action, Run
from agentruns.client import Client
from agentruns.emulator import Emulator, Turn

from .case import Case, Live

PLAIN: Final = Turn("Done.", running=0.1)
SECONDS: Final = 20.0
"""The longest wait for a run of an emulator."""


class Handler:
    """Answer anything, and count."""

    def __init__(self) -> None:
        self.answered: list[str] = []

    async def __call__(self, action: Action) -> str:
        """Answer yes."""
        self.answered.append(action.id)
        return f"yes to {action.name}"


def pausing(case: Case, calls: int = 1) -> list[Turn]:
    """Return the script of a run that pauses for so many calls at once, and completes when they are answered."""
    return [Turn(calls=[case.call(number) for number in range(calls)], running=0.05), PLAIN]


async def followed(case: Case, client: Client, server: Emulator[Any] | Live, **options: Any) -> list[Run]:
    """Start a run and return its states."""
    origin = await case.origin(client, server)
    return [run async for run in client.stream(origin, timeout=waits(server), **options)]


async def paused(case: Case, client: Client, server: Emulator[Any] | Live) -> tuple[Run, Any]:
    """Start a run that pauses; return it as it waits, and what started it."""
    origin = await case.origin(client, server)
    states = [run async for run in client.stream(origin, timeout=waits(server))]
    return states[-1], origin


def waits(server: Emulator[Any] | Live) -> Any:
    """Return how long a run of that server is waited for: a real one takes as long as its dialect says."""
    return "vendor" if isinstance(server, Live) else SECONDS


def counted(server: Emulator[Any] | Live, runs: int) -> None:
    """Assert how many runs were really started, where the server tells."""
    if not isinstance(server, Live):
        started = server.state.runs_started
        assert started == runs, f"{started} runs were started at the vendor, not {runs}"


@contextmanager
def raises(kind: type[BaseException] | tuple[type[BaseException], ...], *told: str) -> Iterator[list[BaseException]]:
    """Assert that an error of that *kind* is raised within, whose text has each of *told*; give it in a list."""
    caught: list[BaseException] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
    if caught:
        lacking = [each for each in told if each not in str(caught[0])]
        assert not lacking, f"{type(caught[0]).__name__} does not say {lacking}: {caught[0]}"
        return
    names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
    raise AssertionError(f"no {names} was raised")
