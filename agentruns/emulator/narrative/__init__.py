"""The vendor Narrative.io, written from the vendor's pages (docs.narrative.io).

Comments name the page of a rule, such as errors/version-conflict.
"""

from __future__ import annotations

from agentruns.emulator.narrative.api import Narrative, NarrativeOptions
from agentruns.emulator.narrative.rows import Conversation, Message, Run

__all__ = ["Conversation", "Message", "Narrative", "NarrativeOptions", "Run"]
