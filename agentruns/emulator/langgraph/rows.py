"""Threads and their runs: what each was asked, how it will end, and what they look like at a moment."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias

from attrs import define, field, frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Turn
from agentruns.emulator.vendor import Stage

Object: TypeAlias = dict[str, JSON]

NODE: Final = "agent"
"""The node that does all the work."""


@frozen
class Interrupt:
    """What a node asks; each call of a turn is a node that interrupts itself."""

    id: str
    node: str
    value: JSON

    def json(self) -> Object:
        """Show it."""
        return {"id": self.id, "value": self.value}


@define(kw_only=True)
class Row:
    """
    A run. One that answers only some of the interrupts of a pause, or none, makes no checkpoint: it is not *whole*.

    `values` is the state of the graph when it ends, `changed` what was set of that later; `given` are the answers that
    it brings.
    """

    id: str
    body: Mapping[str, JSON]
    metadata: Object
    turn: Turn
    interrupts: tuple[Interrupt, ...]
    values: Object
    given: Mapping[str, JSON]
    whole: bool
    changed: Object = field(factory=dict)
    began: float
    cancelled: float | None = None

    @property
    def ends(self) -> float:
        """When it moves no more, in seconds since the emulator was made."""
        return self.began + self.turn.lasts if self.cancelled is None else self.cancelled

    def moves(self, now: float) -> bool:
        """Tell whether it is in flight."""
        return now < self.ends

    def status(self, now: float) -> str:
        """Name its status."""
        if self.cancelled is not None:
            return "interrupted"
        if self.moves(now):
            return "pending" if now - self.began < self.turn.pending else self.turn.status or "running"
        return "error" if self.turn.error is not None else "success"

    @property
    def error(self) -> Object | None:
        """What it raises."""
        if self.turn.error is None:
            return None
        kind, message = (self.turn.error, "The node failed.") if isinstance(self.turn.error, str) else self.turn.error
        return {"error": kind, "message": message}


@define(kw_only=True)
class Checkpoint:
    """The state of a thread after a run, or while it goes on."""

    run: Row
    values: Object
    next: tuple[str, ...] = ()
    interrupts: tuple[Interrupt, ...] = ()
    answered: dict[str, JSON] = field(factory=dict)
    at: float = 0.0

    @property
    def pending(self) -> tuple[Interrupt, ...]:
        """The interrupts that wait."""
        return tuple(each for each in self.interrupts if each.id not in self.answered)


@define(kw_only=True)
class Thread:
    """A thread, and its runs, oldest first."""

    id: str
    metadata: Object
    made: float
    rows: list[Row] = field(factory=list)

    def checkpoints(self, now: float) -> list[Checkpoint]:
        """Return the last checkpoint of each run that has made one, oldest first."""
        found: list[Checkpoint] = []
        for row in self.rows:
            if not row.whole:
                if found and not row.moves(now):
                    found[-1].answered.update(row.given)
            elif row.status(now) != "pending":
                found.append(_checkpoint(row, now, found[-1].values if found else {}))
        return found

    def busy(self, now: float) -> bool:
        """Tell whether a run is in flight."""
        return bool(self.rows) and self.rows[-1].moves(now)

    def json(self, stage: Stage) -> Object:
        """Show it as it is now."""
        now = stage.now()
        last = self.rows[-1] if self.rows else None
        states = self.checkpoints(now)
        state = states[-1] if states else None
        changed = self.made if last is None else last.began if last.moves(now) else last.ends
        status = "idle"
        if last is not None and last.moves(now):
            status = "busy"
        elif last is not None and last.status(now) == "error":
            status = "error"
        elif state is not None and state.next:
            status = "interrupted"
        error = None if last is None or last.moves(now) else last.error
        return {
            "thread_id": self.id,
            "status": status,
            "metadata": self.metadata,
            "config": {"configurable": {}},
            "created_at": moment(stage, self.made),
            "updated_at": moment(stage, changed),
            "state_updated_at": moment(stage, changed),
            "values": None if state is None else state.values,
            "error": error,
            "interrupts": {}
            if state is None
            else {_task_id(self.id, each.node): [each.json()] for each in state.pending},
        }

    def run_json(self, row: Row, stage: Stage) -> Object:
        """Show a run as it is now."""
        now = stage.now()
        changed = row.began if row.moves(now) else row.ends
        return {
            "run_id": row.id,
            "thread_id": self.id,
            "assistant_id": row.metadata["assistant_id"],
            "metadata": row.metadata,
            "status": row.status(now),
            "kwargs": {
                "input": row.body.get("input"),
                "command": row.body.get("command"),
                "config": row.body.get("config") or {},
                "context": row.body.get("context") or _part(row.body.get("config"), "configurable"),
            },
            "multitask_strategy": row.body.get("multitask_strategy", "enqueue"),
            "created_at": moment(stage, row.began),
            "updated_at": moment(stage, changed),
            **row.turn.extra,
        }

    def state_json(self, state: Checkpoint | None, stage: Stage) -> Object:
        """Show a checkpoint; of a thread without one, its emptiness."""
        if state is None:
            return {
                "values": {},
                "next": [],
                "tasks": [],
                "metadata": None,
                "created_at": None,
                "checkpoint": None,
                "parent_checkpoint": None,
                "interrupts": [],
            }
        asked = {each.node: each for each in state.interrupts}
        pending = state.pending
        error = state.run.error if not state.run.moves(stage.now()) else None
        tasks: list[JSON] = []
        for node in state.next:
            one = asked.get(node)
            waits = one is not None and one in pending
            tasks.append({
                "id": _task_id(self.id, node),
                "name": node,
                "path": ["__pregel_pull", node],
                "error": None if error is None else f"{error['error']}('{error['message']}')",
                "interrupts": [one.json()] if one is not None and waits else [],
                "checkpoint": None,
                "state": None,
                "result": {} if one is not None and not waits else None,
            })
        at = {"thread_id": self.id, "checkpoint_ns": "", "checkpoint_id": str(uuid.uuid5(_NAMES, state.run.id))}
        return {
            "values": state.values,
            "next": [each for each in state.next if each not in asked or asked[each] in pending],
            "tasks": tasks,
            "metadata": {**state.run.metadata, "thread_id": self.id, "run_id": state.run.id, "source": "loop"},
            "created_at": moment(stage, state.at),
            "checkpoint": at,
            "parent_checkpoint": None,
            "interrupts": [each.json() for each in pending],
        }


def _checkpoint(row: Row, now: float, before: Object) -> Checkpoint:
    said = row.body.get("input")
    begun = {**before, **(said if isinstance(said, Mapping) else {}), **row.changed}
    if row.status(now) != "success":
        return Checkpoint(run=row, values=begun, next=(NODE,), at=min(now, row.ends))
    if row.interrupts:
        nodes = tuple(each.node for each in row.interrupts)
        return Checkpoint(run=row, values=begun, next=nodes, interrupts=row.interrupts, at=row.ends)
    return Checkpoint(run=row, values={**begun, **row.values, **row.changed}, at=row.ends)


_NAMES: Final = uuid.UUID("5a7a3c3e-9a57-5d0c-8d52-6f0f6b1f0a11")


def _part(value: JSON, name: str) -> JSON:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found or {}


def _task_id(thread_id: str, node: str) -> str:
    return str(uuid.uuid5(_NAMES, f"{thread_id} {node}"))


def assistant_id(graph: str) -> str:
    """Return the id of the assistant that each graph has."""
    return str(uuid.uuid5(_NAMES, graph))


def run_id(made: datetime, noise: str) -> str:
    """Make an id of version 7, which tells when the run was made."""
    low = uuid.UUID(noise).int & ((1 << 62) - 1)
    high = uuid.UUID(noise).int >> 116
    milliseconds = int(made.timestamp() * 1000)
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low))


def moment(stage: Stage, seconds: float) -> str:
    """Write a time as the server does."""
    return stage.wall(seconds).isoformat(timespec="microseconds")


def selected(rows: Sequence[Object], fields: JSON) -> list[JSON]:
    """Return the rows with no more than the fields that were asked for."""
    names = fields if isinstance(fields, list) else None
    return [row if names is None else {name: row[name] for name in row if name in names} for row in rows]
