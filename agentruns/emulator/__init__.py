"""A real HTTP server on loopback that behaves as a vendor's pages say, for testing apps without the vendor.

The names are loaded on first use: pytest imports this package in every session, by way of the plugin's entry point,
also in those that never start an emulator.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .a2a import A2A, A2AOptions
    from .clock import ManualClock
    from .conduit import Conduit, ConduitOptions
    from .faults import Fault, Faults
    from .langgraph import LangGraph, LangGraphOptions
    from .middesk import Middesk, MiddeskOptions
    from .narrative import Conversation, Message, Narrative, NarrativeOptions, Run
    from .openai_responses import OpenAIResponses, OpenAIResponsesOptions
    from .origami import Origami, OrigamiOptions
    from .script import Call, Output, Prompt, Tool, Turn, default_agent
    from .server import Emulator, Exchange
    from .vendor import Vendor

__all__ = [
    "A2A",
    "A2AOptions",
    "Call",
    "Conduit",
    "ConduitOptions",
    "Conversation",
    "Emulator",
    "Exchange",
    "Fault",
    "Faults",
    "LangGraph",
    "LangGraphOptions",
    "ManualClock",
    "Message",
    "Middesk",
    "MiddeskOptions",
    "Narrative",
    "NarrativeOptions",
    "OpenAIResponses",
    "OpenAIResponsesOptions",
    "Origami",
    "OrigamiOptions",
    "Output",
    "Prompt",
    "Run",
    "Tool",
    "Turn",
    "Vendor",
    "default_agent",
]

_MODULES = {
    "a2a": ("A2A", "A2AOptions"),
    "clock": ("ManualClock",),
    "conduit": ("Conduit", "ConduitOptions"),
    "faults": ("Fault", "Faults"),
    "langgraph": ("LangGraph", "LangGraphOptions"),
    "middesk": ("Middesk", "MiddeskOptions"),
    "narrative": ("Conversation", "Message", "Narrative", "NarrativeOptions", "Run"),
    "openai_responses": ("OpenAIResponses", "OpenAIResponsesOptions"),
    "origami": ("Origami", "OrigamiOptions"),
    "script": ("Call", "Output", "Prompt", "Tool", "Turn", "default_agent"),
    "server": ("Emulator", "Exchange"),
    "vendor": ("Vendor",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
