"""
Batches on Ray: many processes, on one machine or many, between them one start of each run.

Needs the extra `ray`. `map_batches` is a step of Ray Data; `agentruns batch --engine ray` does the same for a file.
"""

from __future__ import annotations

from .data import RunAgents, map_batches
from .extra import rate_limit_actor
from .stable_ids import stable_id

__all__ = ["RunAgents", "map_batches", "rate_limit_actor", "stable_id"]
