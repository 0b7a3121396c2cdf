"""
An emulated agent that speaks A2A 1.0, by HTTP+JSON or by JSON-RPC, written from the specification and its .proto file.

Where these leave something open, it does what the reference server does (a2a-sdk 1.3): messages have no idempotency, a
message to a task that works is kept for later, a list has what is empty.
"""

from __future__ import annotations

from .agent import A2A
from .operations import A2AOptions
from .tasks import Task

__all__ = ["A2A", "A2AOptions", "Task"]
