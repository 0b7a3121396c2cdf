"""
A write-ahead journal of pieces of work in one SQLite file: what was begun, what is known of it, and who is at it.

Many tasks and several processes may use one file. An act is written before it is done, its result after; whoever opens
the file after a crash sees how far the work had come, and whether the process that was at it is still there.
"""

from __future__ import annotations

from .journal import Journal
from .values import Handling, Work

__all__ = ["Handling", "Journal", "Work"]
