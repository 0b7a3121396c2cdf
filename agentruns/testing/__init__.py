"""What tests of one's own need: the conformance kit for dialects, and flows that are driven without a loop."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .case import Case, Live
    from .conformance import Conformance
    from .driving import Answer, Exchanged, exchange
    from .scenario import Scenario
    from .scenarios import SCENARIOS
    from .transport import ScriptedTransport

__all__ = [
    "SCENARIOS",
    "Answer",
    "Case",
    "Conformance",
    "Exchanged",
    "Live",
    "Scenario",
    "ScriptedTransport",
    "exchange",
]

_MODULES = {
    "case": ("Case", "Live"),
    "conformance": ("Conformance",),
    "driving": ("Answer", "Exchanged", "exchange"),
    "scenario": ("Scenario",),
    "scenarios": ("SCENARIOS",),
    "transport": ("ScriptedTransport",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # loaded on first use: the plugin's entry point imports this package in every session of pytest

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
