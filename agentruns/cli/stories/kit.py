"""What the stories of all vendors have in common: what can be tried, and how a demo is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import frozen

from agentruns._api.retry import Backoff
from agentruns._connect import connect
from agentruns._following.stream import RunStream
from agentruns._values.run import Run
from agentruns.cli.display import Display
from agentruns.client import Client
from agentruns.dialects import load

if TYPE_CHECKING:
    from agentruns.emulator import Emulator, Prompt, Turn

Follow: TypeAlias = Callable[[RunStream], Awaitable[Run | None]]
Story: TypeAlias = Callable[[Display, Follow], Awaitable[Run | None]]

QUICK: Final = Backoff(initial=0.15, maximum=0.4)
"""How often an emulated vendor is polled: a newcomer is not to wait."""

INDENT: Final = " " * 8


@frozen
class Trial:
    """
    Something to start on an emulated vendor: `jobs` by name, each with what it is called and what happens.

    `script` plays the agent, at a *pace* in seconds; `origin` makes what starts a run of a job. `options` are those of
    the emulator, `answers` the JSON Schemas of answers by the name of their tool.
    """

    jobs: Mapping[str, tuple[str, str]]
    script: Callable[[Prompt, float], Turn]
    origin: Callable[[Client, str, Emulator[Any]], Awaitable[Any]]
    options: Mapping[str, Any]
    answers: Mapping[str, Mapping[str, Any]]


def connected(emulator: Emulator[Any], vendor: str) -> Client:
    """Return a client, not open yet, of an emulated vendor."""
    return connect(load(vendor), token=emulator.token, base_url=emulator.base_url, schedule=QUICK, budget=50)


def lose(display: Display, emulator: Emulator[Any], path: str) -> None:
    """Lose the answer to the first start: the vendor has started the run, and the client is not told."""
    from agentruns.emulator import Fault

    emulator.fail(Fault.drop(committed=True, method="POST", path=path))
    vendor = emulator.state.name.capitalize()
    display.remark(f"{vendor}, emulated at {emulator.base_url}; the answer to the first start will get lost.")
    display.remark("")


def sum_up(display: Display, emulator: Emulator[Any], path: str, how: str) -> None:
    """Tell how many starts were sent and lost, and how many runs there are."""
    posts = emulator.requests("POST", path)
    lost = sum(post.status is None for post in posts)
    started = emulator.state.runs_started
    display.remark("")
    display.remark(f"Starts sent: {len(posts)}. Answers lost: {lost}. Runs started: {started}, {how}.")
    display.remark("")
