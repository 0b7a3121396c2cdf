"""A LangGraph server, played on loopback."""

from __future__ import annotations

from .api import LangGraph, LangGraphOptions

__all__ = ["LangGraph", "LangGraphOptions"]
