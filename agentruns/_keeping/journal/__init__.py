"""
A write-ahead journal of pieces of work in one SQLite file: what was begun, what is known of it, and who is at it.

Many tasks and several processes may use one file. An act is written before it is done, its result after; whoever opens
the file after a crash sees how far the work had come, and whether the process that was at it is still there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .journal import Journal as Journal
    from .values import Handling as Handling
    from .values import Work as Work

__all__ = ["Handling", "Journal", "Work"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import the journal when it is first asked for: a client without one needs its names alone."""
        if name in __all__:
            return getattr(import_module(f"{__name__}.{'journal' if name == 'Journal' else 'values'}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
