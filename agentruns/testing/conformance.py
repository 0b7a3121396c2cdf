"""The scenarios as tests of pytest: a class of one's own for each vendor, and nothing else to edit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .case import Case
from .plugin import PROPERTY
from .scenarios import SCENARIOS


class Conformance(Case):
    """
    A case whose scenarios pytest plays: a test class of yours that inherits from this needs no more than the fields.

    At the end of the session a table shows each scenario by vendor, with the reason for each that was not played.
    Raise `TypeError` where the class gives a reason for a scenario that does not exist.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        strange = [name for name in cls.not_applicable if name not in SCENARIOS]
        if strange:
            raise TypeError(f"{cls.__name__}.not_applicable has {strange[0]!r}, which is no scenario")

    @pytest.mark.parametrize("scenario", list(SCENARIOS))
    def test_conformance(self, scenario: str, request: pytest.FixtureRequest) -> None:
        """Play one scenario."""
        request.node.user_properties.append((PROPERTY, [self.label, scenario]))
        played = SCENARIOS[scenario]
        reason = played.reason(self)
        if reason:
            pytest.skip(reason)
        asyncio.run(played.play(self))
