"""OpenAI's Responses in background mode, played on loopback."""

from __future__ import annotations

from .api import OpenAIResponses, OpenAIResponsesOptions

__all__ = ["OpenAIResponses", "OpenAIResponsesOptions"]
