"""The vendor Narrative.io, written from the vendor's pages (docs.narrative.io).

Comments name the page of a rule, such as errors/version-conflict.
"""

from __future__ import annotations

from .api import Narrative, NarrativeOptions
from .rows import Conversation, Message, Run

__all__ = ["Conversation", "Message", "Narrative", "NarrativeOptions", "Run"]
