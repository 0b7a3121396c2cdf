"""The server-sent events of a run: what has happened so far, then what comes (work-with-agents/stream-runs)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal, TypeAlias

import msgspec
from attrs import define, frozen

from .rows import Object, Run, Style

Flavour: TypeAlias = Literal["middesk", "ag-ui"]
"""Middesk's pages have the type in the `event:` line and the run as `run_id`; AG-UI has `type` and `runId` inside.

AG-UI moreover has an event of its own for failures, and ends and begins a run anew at each interrupt.
"""

_NOISE = ': keep-alive\r\n\r\nid: 7\r\nevent: CUSTOM\r\ndata: {"name": "unheard-of"}\r\n\r\n'


@frozen(kw_only=True)
class Event:
    """One event, with the run as it stood."""

    type: str
    run: Run

    def write(self, style: Style, flavour: Flavour) -> str:
        """Write the event as lines of the stream."""
        body: Object = {"run_id": self.run.id}
        if flavour == "ag-ui":
            body = {"type": self.type, "runId": self.run.id, "threadId": self.run.thread_id}
        if self.type == "STATE_SNAPSHOT":
            body["snapshot"] = {"steps": self.run.trace(style), "artifacts": self.run.artifacts or []}
        elif self.type == "RUN_ERROR":
            body["message"] = next((step.label for step in self.run.steps if step.type == "error"), "The run failed.")
        elif self.type == "RUN_FINISHED" and flavour == "ag-ui":
            waiting = [{**one.json(), "reason": "input_required"} for one in self.run.interrupts]
            body["outcome"] = {"type": "interrupt", "interrupts": waiting} if waiting else {"type": "success"}
        line = f"event: {self.type}\n" if flavour == "middesk" else ""
        return f"{line}data: {msgspec.json.encode(body).decode()}\n\n"


def history(run: Run, flavour: Flavour = "middesk") -> Iterator[Event]:
    """List all events up to the moment at which the run is seen; seen later, it has the same ones and then more."""
    if run.started is None:
        return
    yield Event(type="RUN_STARTED", run=run.as_of(0, run.started))
    for number, segment in enumerate(run.segments):
        for step in segment.steps:
            if step.type == "activity" and step.starts <= run.now:
                yield Event(type="STATE_SNAPSHOT", run=run.as_of(number, step.starts))
        if segment.ends > run.now:
            return
        then = run.as_of(number, segment.ends)
        yield Event(type="STATE_SNAPSHOT", run=then)
        if then.ended is not None:
            failed = flavour == "ag-ui" and then.status == "error"
            yield Event(type="RUN_ERROR" if failed else "RUN_FINISHED", run=then)
        elif then.interrupts and flavour == "ag-ui":
            yield Event(type="RUN_FINISHED", run=then)
            if number + 1 < len(run.segments):
                yield Event(type="RUN_STARTED", run=run.as_of(number + 1, run.segments[number + 1].began))


@define
class Feed:
    """One open stream: asked again and again, it gives what has come since, and None once the run has stopped.

    `plant` is a planned fault of the stream, see `STREAM_PLANTS`.
    """

    look: Callable[[], Run]
    style: Style
    flavour: Flavour
    plant: str | None = None
    sent: int = 0
    closed: bool = False

    def __call__(self) -> bytes | None:
        """Give the bytes of the events that have come."""
        if self.closed:
            return None
        run = self.look()
        fresh = list(islice(history(run, self.flavour), self.sent, None))
        if self.plant == "stream-stall":
            fresh = fresh[: 1 - self.sent]
        else:
            self.closed = not run.moving
        self.sent += len(fresh)
        return "".join(map(self._written, fresh)).encode()

    def _written(self, event: Event) -> str:
        if self.plant == "stream-error" and event.type == "RUN_FINISHED":
            return Event(type="RUN_ERROR", run=event.run).write(self.style, self.flavour)
        if self.plant == "stream-noise":
            return _NOISE + event.write(self.style, self.flavour).replace("\n", "\r\n")
        return event.write(self.style, self.flavour)
