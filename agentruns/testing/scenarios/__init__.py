"""The scenarios, by what they are about; `SCENARIOS` has them all by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from agentruns.testing.scenario import REGISTER, Scenario

from . import answers, keeping, lists, lives, reading, starts, troubles

__all__ = ["SCENARIOS", "answers", "keeping", "lists", "lives", "reading", "starts", "troubles"]

SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(REGISTER)
