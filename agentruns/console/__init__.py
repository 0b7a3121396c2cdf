"""
A web page over the runs of a journal, for looking at them as they go on and for answering what they ask.

Pages are made here, by templates; a small library in the browser keeps them up to date, and without it they work, too.
It is for one person on one machine: `security` says who may use it. The extra `console` has what it needs.
"""

from __future__ import annotations

from agentruns._keeping.journal.reader import JournalReader

from .app import application
from .security import Guard
from .source import Job, Jobs, Source

__all__ = ["Guard", "Job", "Jobs", "JournalReader", "Source", "application"]
