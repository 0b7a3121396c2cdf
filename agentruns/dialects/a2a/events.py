"""What an agent tells of a task by itself: the stream of events, and what push notifications hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from attrs import field, frozen

from agentruns._values.exchange import Request, ServerEvent
from agentruns._values.generic import Json
from agentruns._values.run import Run, RunRef
from agentruns.dialects import wire
from agentruns.errors import ProtocolError

from .objects import Artifact, Task
from .reading import run_of

Kind: TypeAlias = Literal["task", "message", "status", "artifact", ""]

_KINDS: Final[Mapping[str, Kind]] = {
    "task": "task",
    "message": "message",
    "statusUpdate": "status",
    "artifactUpdate": "artifact",
}


@frozen
class TaskEvent:
    """
    One event of a task: `kind` says what `data` is, which is as received.

    "task" is the task as it was then, "status" a change of its state, "artifact" an artifact or a piece of one,
    "message" a plain message; empty is what no page knows.
    """

    kind: Kind
    data: Mapping[str, Json] = field(factory=dict, repr=False)

    @classmethod
    def of(cls, event: ServerEvent | Mapping[str, Json]) -> TaskEvent:
        """Return what an event of `client.events(run)` says, or the JSON object of a push notification."""
        told = wire.mapping(event.data if isinstance(event, ServerEvent) else event)
        told = wire.mapping(told.get("result")) if "jsonrpc" in told else told
        for key, kind in _KINDS.items():
            if isinstance(told.get(key), Mapping):
                return cls(kind, told[key])
        return cls("", told)

    @property
    def ref(self) -> RunRef | None:
        """Return the task that this is about; None where it does not say."""
        name = wire.first_text(self.data, "id" if self.kind == "task" else "taskId")
        return None if name is None else RunRef(name, wire.first_text(self.data, "contextId") or "")

    @property
    def state(self) -> str | None:
        """Return the state that it tells, such as `TASK_STATE_WORKING`; None where it tells none."""
        return wire.first_text(wire.mapping(self.data.get("status")), "state")

    @property
    def artifact(self) -> Artifact | None:
        """
        Return the artifact or the piece of one that it brings, None if it brings none.

        A piece is added to what came before where `appends` is True, and takes its place where it is not. Raise
        `ProtocolError` for what does not fit.
        """
        if self.kind != "artifact":
            return None
        return wire.structure(self.data.get("artifact"), Artifact, "an event", "$.artifact")

    @property
    def appends(self) -> bool:
        """Tell whether the piece is added to the artifact of the same id."""
        return self.data.get("append") is True

    @property
    def is_last(self) -> bool:
        """Tell whether this is the last piece of the artifact."""
        return self.data.get("lastChunk") is True


def events(ref: RunRef) -> Request:
    """Return the request for the events of a task; the stream stays open while the agent asks (Subscribe to Task)."""
    path = wire.path("tasks", ref.id) + ":subscribe"
    return Request("POST", path, json={}, headers={"Content-Type": "application/a2a+json"}, idempotent=True)


def event_of(ref: RunRef, event: ServerEvent) -> Run[Task] | bool:
    """Return the state that an event tells of a task that is in flight; have it read where it waits or is over."""
    told = TaskEvent.of(event)
    if told.kind == "artifact":
        return False
    if told.kind not in {"task", "status"} or told.ref is None or told.ref.id != ref.id:
        return True
    raw = told.data
    if told.kind == "status":
        raw = {"id": ref.id, "contextId": ref.parent, "status": raw.get("status")}
    try:
        run = run_of(raw, "an event")
    except ProtocolError:
        return True
    return run if run.status.in_flight else True
