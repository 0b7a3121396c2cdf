"""
A web page over the runs of a journal, for looking at them as they go on and for answering what they ask.

Templates make the pages; a small library in the browser keeps them up to date, and they work without it, too. The
console is for one person on one machine: `security` says who may use it. It needs the extra `console`.
"""

from __future__ import annotations

from agentruns._keeping.journal.reader import JournalReader

from .app import application
from .security import AccessGuard
from .source import Job, Jobs, Source

__all__ = ["AccessGuard", "Job", "Jobs", "JournalReader", "Source", "application"]
