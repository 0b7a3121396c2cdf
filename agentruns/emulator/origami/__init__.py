"""The vendor Origami, Agents API v2, written from the vendor's pages (docs.origami.chat).

Comments name the page of a rule, such as get-run for docs.origami.chat/agents/reference/get-run. Where the pages are
silent or disagree, an option chooses, and the docstring of the code says so.
"""

from __future__ import annotations

from .api import Origami
from .options import OrigamiOptions
from .records import OrigamiAgent, OrigamiColumn, OrigamiLead, OrigamiRun, OrigamiTable

__all__ = ["Origami", "OrigamiAgent", "OrigamiColumn", "OrigamiLead", "OrigamiOptions", "OrigamiRun", "OrigamiTable"]
