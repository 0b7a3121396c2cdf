"""A scenario: a named story that every vendor which can play it must end as it says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Final, Literal, TypeAlias
from unittest import mock

from attrs import frozen

from .case import Case

Story: TypeAlias = Callable[[Case], Awaitable[None]]

Playable: TypeAlias = Literal["no", "directed", "yes"]
"""Whether a story can be played on a real server: not, if it plans faults; where the case says what runs do; or so."""

SECONDS: Final = 60.0
"""The longest that a scenario may take on an emulator; on a real server, ten times as long."""

_PATHS: Final = ("start_path", "resume_path", "poll_path", "list_path", "rows_field")


@frozen
class Scenario:
    """
    One story, and what a vendor must have to play it: functions of its dialect, and fields of its case.

    *package* is one that has to be installed, and *unless* gives another reason why a case cannot play it. A story that
    is `live` can be played on a real server, too; one that is "directed", where the case `directs` what runs do there.
    """

    name: str
    story: Story
    needs: tuple[str, ...] = ()
    live: Playable = "no"
    package: str = ""
    unless: Callable[[Case], str] | None = None

    def reason(self, case: Case) -> str:
        """Return why *case* cannot show this; empty where it can."""
        if self.name in case.not_applicable:
            return case.not_applicable[self.name]
        if case.base_url and self.live == "no":
            return "it plans what happens, which takes an emulator"
        if case.base_url and self.live == "directed" and not case.directs:
            return "it says what a run does, and the case does not direct runs (`directs`)"
        for need in self.needs:
            if need in _PATHS:
                if not getattr(case, need):
                    return f"the case names no `{need}`"
            elif getattr(case.vendor, need) is None:
                return f"the dialect has no `{need}`"
        if self.unless is not None and (why := self.unless(case)):
            return why
        if self.package and find_spec(self.package) is None:
            return f"it needs {self.package}, which is not installed"
        return ""

    async def play(self, case: Case) -> None:
        """Play the story; raise `AssertionError`, or what the client raised, where it ends otherwise."""

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(seconds / case.hurry)

        async with asyncio.timeout(SECONDS * 10 if case.base_url else SECONDS):
            if case.base_url:
                await self.story(case)
                return
            with mock.patch("agentruns._api.flow.sleep", sleep):
                await self.story(case)


REGISTER: Final[dict[str, Scenario]] = {}
"""By name, the scenarios that were defined so far; `agentruns.testing.SCENARIOS` has all of the kit."""


def scenario(
    name: str, *needs: str, live: Playable = "no", package: str = "", unless: Callable[[Case], str] | None = None
) -> Callable[[Story], Story]:
    """Define a story as the scenario *name*; *unless* gives a reason why a case cannot play it, empty where it can."""

    def define(story: Story) -> Story:
        REGISTER[name] = Scenario(name, story, needs, live, package, unless)
        return story

    return define
