"""Fixtures for pytest: emulators started before a test and stopped after it, for sync and async tests alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal, overload

import pytest

if TYPE_CHECKING:  # the emulator needs aiohttp: loaded only by tests that use a fixture
    from . import A2A, Conduit, Emulator, LangGraph, Middesk, Narrative, OpenAIResponses, Origami, Vendor


class EmulatorFactory:
    """Make started emulators; takes what `Emulator` takes."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    @overload
    def __call__(self, vendor: Literal["narrative"] = "narrative", **options: object) -> Emulator[Narrative]: ...
    @overload
    def __call__(self, vendor: Literal["middesk"], **options: object) -> Emulator[Middesk]: ...
    @overload
    def __call__(self, vendor: Literal["origami"], **options: object) -> Emulator[Origami]: ...
    @overload
    def __call__(self, vendor: Literal["conduit"], **options: object) -> Emulator[Conduit]: ...
    @overload
    def __call__(self, vendor: Literal["openai_responses"], **options: object) -> Emulator[OpenAIResponses]: ...
    @overload
    def __call__(self, vendor: Literal["a2a"], **options: object) -> Emulator[A2A]: ...
    @overload
    def __call__(self, vendor: Literal["langgraph"], **options: object) -> Emulator[LangGraph]: ...
    @overload
    def __call__(self, vendor: str, **options: object) -> Emulator[Vendor]: ...
    def __call__(self, vendor: str = "narrative", **options: object) -> object:
        """Start an emulator that is stopped when the test ends."""
        from . import Emulator

        return self._stack.enter_context(Emulator(vendor, **options))  # type: ignore[call-overload]


@pytest.fixture
def agentruns_emulator() -> Iterator[EmulatorFactory]:
    """Make any number of emulators: `agentruns_emulator("narrative", script=[...])`."""
    with ExitStack() as stack:
        yield EmulatorFactory(stack)


@pytest.fixture
def narrative_emulator() -> Iterator[Emulator[Narrative]]:
    """Serve Narrative with the default agent."""
    from . import Emulator

    with Emulator("narrative") as emulator:
        yield emulator
