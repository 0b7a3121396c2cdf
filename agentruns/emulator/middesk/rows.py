"""Middesk's rows, as frozen values, and how they look on the wire.

A `Run` is a snapshot: everything it says is worked out from its segments and the moment `now` at which it is seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, TypeAlias

import attrs
from attrs import frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Turn

from .bodies import Context

Object: TypeAlias = dict[str, JSON]
Resolution: TypeAlias = Literal["auto_approve", "skip"]


@frozen
class Style:
    """How rows are written: `stamp` writes a second of the emulator's clock, `word` a status."""

    stamp: Callable[[float], str]
    word: Callable[[str], str] = str

    def at(self, seconds: float | None) -> str | None:
        """Write a moment, if there is one."""
        return None if seconds is None else self.stamp(seconds)


@frozen(kw_only=True)
class Caller:
    """Whose key it is; `requester` is what runs say of the one who started them, `reviewer` what feedback says."""

    account: str
    requester: Object | None
    reviewer: Object


@frozen(kw_only=True)
class Agent:
    """One agent the account may use; `type` is the name that requests call it by."""

    id: str
    type: str

    def json(self, style: Style) -> Object:
        """Write the agent (reference/agent)."""
        name = self.type.replace("_", " ").capitalize()
        return {
            "object": "agent",
            "id": self.id,
            "type": self.type,
            "name": name,
            "description": f"{name}, as played by the emulator",
            "created_at": style.stamp(0),
            "updated_at": style.stamp(0),
        }


@frozen(kw_only=True)
class Step:
    """One step of the trace, with the time it takes; `ends` is infinite while nobody knows."""

    id: str
    agent: str
    type: Literal["activity", "output", "interrupt", "error"]
    name: str
    label: str
    starts: float
    ends: float
    failed: bool = False
    resolution: Resolution | None = None
    artifacts: tuple[JSON, ...] = ()
    steps: tuple[Step, ...] = ()

    def json(self, style: Style, run_id: str, now: float, parent: str | None = None) -> Object:
        """Write the step and those inside it, as far as they have begun (reference/run)."""
        over = self.ends <= now
        body: Object = {
            "id": self.id,
            "run_id": run_id,
            "agent": self.agent,
            "type": self.type,
            "name": self.name,
            "label": self.label,
            "parent_step_id": parent,
            "status": ("error" if self.failed else "completed") if over else "running",
            "started_at": style.stamp(self.starts),
            "completed_at": style.stamp(self.ends) if over else None,
        }
        if parent is None or self.artifacts:
            body["artifacts"] = self.artifacts
        if inner := [step.json(style, run_id, now, self.id) for step in self.steps if step.starts <= now]:
            body["steps"] = inner
        if self.resolution is not None:
            body["result"] = {"resolution": self.resolution}
        return body


@frozen(kw_only=True)
class Interrupt:
    """One request for a decision; `resolution` is there when the policy has closed it, `answered` when a caller has."""

    id: str
    agent: str | None
    value: JSON
    step: Step
    answered: float | None = None
    answer: JSON = None

    @property
    def pending(self) -> bool:
        """Tell whether it waits for an answer."""
        return self.answered is None and self.resolution is None

    @property
    def resolution(self) -> Resolution | None:
        """How the policy has closed it."""
        return self.step.resolution

    @property
    def trace(self) -> Step:
        """The step that shows it, open until the answer."""
        return self.step if self.answered is None else attrs.evolve(self.step, ends=self.answered)

    def json(self) -> Object:
        """Write the interrupt; `agent` is left out where the payload names none (get-agent-run)."""
        body: Object = {"id": self.id, "value": self.value}
        return body if self.agent is None else {**body, "agent": self.agent}


@frozen(kw_only=True)
class Segment:
    """What a run does in one go, until it ends or pauses; `steps` and `interrupts` are those of the whole segment."""

    turn: Turn
    began: float
    steps: tuple[Step, ...]
    interrupts: tuple[Interrupt, ...] = ()
    artifacts: tuple[JSON, ...] = ()

    @property
    def ends(self) -> float:
        """The second at which it ends or pauses."""
        return self.began + self.turn.lasts

    @property
    def end(self) -> Literal["completed", "error", "interrupted", "running"]:
        """What the run is when the segment has ended; still running once nothing is left to answer."""
        if self.turn.error is not None:
            return "error"
        if not self.interrupts:
            return "completed"
        return "interrupted" if any(interrupt.pending for interrupt in self.interrupts) else "running"

    def unanswered(self) -> Segment:
        """Look at the segment before any caller has answered."""
        return attrs.evolve(
            self, interrupts=tuple(attrs.evolve(one, answered=None, answer=None) for one in self.interrupts)
        )


@frozen(kw_only=True)
class Run:
    """One run as it stands `now`; `accepted` shows it the instant its last segment begins, however short that is."""

    id: str
    number: int
    thread_id: str
    agent: str
    caller: Caller
    created: float
    segments: tuple[Segment, ...]
    now: float
    accepted: bool = False

    @property
    def moving(self) -> bool:
        """Tell whether the run goes on without anybody's help."""
        return self.accepted or self.segments[-1].ends > self.now

    @property
    def status(self) -> str:
        """The status, in the vendor's words of today."""
        last = self.segments[-1]
        return last.turn.status or "running" if self.moving else last.end

    @property
    def interrupts(self) -> tuple[Interrupt, ...]:
        """The interrupts that wait for an answer."""
        return () if self.moving else tuple(one for one in self.segments[-1].interrupts if one.pending)

    @property
    def artifacts(self) -> tuple[JSON, ...] | None:
        """The artifacts of a completed run."""
        return self.segments[-1].artifacts if self.status == "completed" else None

    @property
    def started(self) -> float | None:
        """When execution began."""
        first = self.segments[0]
        starts = first.began + first.turn.pending
        waiting = starts > self.now or (self.accepted and len(self.segments) == 1)
        return None if waiting else starts

    @property
    def ended(self) -> float | None:
        """When the run completed or failed."""
        return self.segments[-1].ends if not self.moving and self.segments[-1].end in {"completed", "error"} else None

    @property
    def updated(self) -> float:
        """When the run last changed."""
        last = self.segments[-1]
        moments = [self.started or self.created, last.began]
        if not self.moving:
            moments += [last.ends, *(one.answered for one in last.interrupts if one.answered is not None)]
        return max(moments)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The top-level steps that have begun."""
        return tuple(self._steps())

    def _steps(self) -> Iterator[Step]:
        for segment in self.segments:
            last = segment is self.segments[-1]
            if not (last and self.accepted):
                yield from (step for step in segment.steps if step.starts <= self.now)
            if not (last and self.moving):
                yield from (one.trace for one in segment.interrupts)

    def as_of(self, segment: int, moment: float, *, accepted: bool = False) -> Run:
        """Look back at a moment in one of the segments, before its interrupts were answered."""
        kept = (*self.segments[:segment], self.segments[segment].unanswered())
        return attrs.evolve(self, segments=kept, now=moment, accepted=accepted)

    def json(self, style: Style, *, steps: bool = False) -> Object:
        """Write the run (get-agent-run); the trace only when it was asked for."""
        body: Object = {
            "object": "run",
            "id": self.id,
            "created_at": style.stamp(self.created),
            "updated_at": style.stamp(self.updated),
            "status": style.word(self.status),
            "thread_id": self.thread_id,
            "agent": self.agent,
            "requester": self.caller.requester,
            "started_at": style.at(self.started),
            "ended_at": style.at(self.ended),
            "output": None if self.artifacts is None else {"artifacts": self.artifacts},
            "interrupts": [one.json() for one in self.interrupts],
        }
        if steps:
            body["steps"] = self.trace(style)
        for segment in self.segments:
            body.update(segment.turn.extra)
        return body

    def trace(self, style: Style) -> list[JSON]:
        """Write the steps."""
        return [step.json(style, self.id, self.now) for step in self.steps]


@frozen(kw_only=True)
class Thread:
    """One thread; its status is that of its runs."""

    id: str
    agent: str
    caller: Caller
    context: Context
    created: float

    def status(self, runs: Sequence[Run]) -> str:
        """Sum up the runs, oldest first (reference/thread); a thread without any is `running`, as in the sample."""
        if not runs or any(run.moving for run in runs):
            return "running"
        if any(run.status == "interrupted" for run in runs):
            return "interrupted"
        return runs[-1].status

    def json(self, style: Style, runs: Sequence[Run]) -> Object:
        """Write the thread with the steps of all its runs (get-agent-thread)."""
        return {
            "object": "thread",
            "id": self.id,
            "created_at": style.stamp(self.created),
            "updated_at": style.stamp(max([self.created, *(run.updated for run in runs)])),
            "status": style.word(self.status(runs)),
            "metadata": None,
            "requester": self.caller.requester,
            "steps": [step for run in runs for step in run.trace(style)],
        }


@frozen(kw_only=True)
class Feedback:
    """One rating of one artifact; it supersedes an earlier one by the same reviewer."""

    id: str
    run_id: str
    artifact_id: str
    rating: Literal["POSITIVE", "NEGATIVE"]
    comment: str | None
    reviewer: Object
    superseded_prior: bool
    created: float

    def json(self, style: Style) -> Object:
        """Write the feedback (submit-agent-run-feedback)."""
        return {
            "object": "agent_run_feedback",
            "id": self.id,
            "run_id": self.run_id,
            "rating": self.rating,
            "artifact_id": self.artifact_id,
            "comment": self.comment,
            "reviewer": self.reviewer,
            "superseded_prior": self.superseded_prior,
            "created_at": style.stamp(self.created),
        }


def ids_of(artifacts: Iterable[JSON] | None) -> set[JSON]:
    """Collect the ids of artifacts that have one."""
    return {one["id"] for one in artifacts or () if isinstance(one, dict) and isinstance(one.get("id"), str)}


FOREVER = math.inf
"""When a step ends that nobody has ended yet."""
