"""What the stream of events of a run tells (work-with-agents/stream-runs)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

from attrs import field, frozen

from agentruns._values.exchange import ServerEvent
from agentruns._values.generic import Json
from agentruns._values.run import Progress
from agentruns.dialects import wire

from .objects import Artifact, Step

RUN_STARTED: Final = "RUN_STARTED"
STATE_SNAPSHOT: Final = "STATE_SNAPSHOT"
RUN_FINISHED: Final = "RUN_FINISHED"


@frozen
class RunEvent:
    """
    One event of a run: `type` is `RUN_STARTED`, `STATE_SNAPSHOT`, `RUN_FINISHED`, or a word of the future.

    `data` is as received. A snapshot has the steps and the artifacts so far; the end does not say how the run ended.
    """

    type: str
    run_id: str
    data: Mapping[str, Json] = field(factory=dict, repr=False)

    @classmethod
    def of(cls, event: ServerEvent) -> RunEvent:
        """
        Return what an event of `client.events(run)` says.

        The page has the type in the `event:` line and the run as `run_id`; the protocol that it names, AG-UI, has them
        inside as `type` and `runId`. Both are read.
        """
        data = wire.mapping(event.data)
        kind = event.name or wire.first_text(data, "type") or ""
        return cls(kind, wire.first_text(data, "run_id", "runId") or "", data)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Return the steps of a snapshot, empty for other events; raise `ProtocolError` for what does not fit."""
        return wire.structure(self._snapshot, Snapshot, f"an event of run {self.run_id}", "$.snapshot").steps

    @cached_property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Return the artifacts of a snapshot, empty for other events; raise `ProtocolError` for what does not fit."""
        return wire.structure(self._snapshot, Snapshot, f"an event of run {self.run_id}", "$.snapshot").artifacts

    @property
    def progress(self) -> Progress | None:
        """Return how many of the steps that have begun are over, None for an event that tells of no steps."""
        steps = self._snapshot.get("steps")
        if not isinstance(steps, list):
            return None
        return Progress(sum(wire.mapping(step).get("completed_at") is not None for step in steps), len(steps))

    @property
    def _snapshot(self) -> Mapping[str, Json]:
        return wire.mapping(self.data.get("snapshot"))


@frozen
class Snapshot:
    """What a snapshot shows."""

    steps: tuple[Step, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
