"""The vendor Middesk: agents, threads and runs, written from the vendor's pages (docs.middesk.com).

Comments name the page of a rule, such as work-with-agents/stream-runs. Where the pages are silent, the comment says so
and an option makes the other reading.
"""

from __future__ import annotations

from .api import Middesk, MiddeskOptions
from .rows import Feedback, Interrupt, Run, Segment, Step, Thread
from .webhooks import Delivery

__all__ = ["Delivery", "Feedback", "Interrupt", "Middesk", "MiddeskOptions", "Run", "Segment", "Step", "Thread"]
