"""The vendor Conduit (conduit.ai): agents, runs and escalations, written from the vendor's pages (docs.conduit.ai).

Comments name the page of a rule, such as agents/list-runs.
"""

from __future__ import annotations

from .api import Conduit
from .options import ConduitOptions
from .rows import ConduitAgent, ConduitEscalation, ConduitMessage, ConduitTrigger, ConduitUser, ConduitWorkspace
from .runs import ConduitRun

__all__ = [
    "Conduit",
    "ConduitAgent",
    "ConduitEscalation",
    "ConduitMessage",
    "ConduitOptions",
    "ConduitRun",
    "ConduitTrigger",
    "ConduitUser",
    "ConduitWorkspace",
]
