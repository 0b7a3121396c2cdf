"""What a LangGraph server answers: runs, threads, their states, assistants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen


@frozen
class Interrupt:
    """What a node asks: `value` is what it gave to `interrupt(...)`."""

    id: str
    value: Any = None


@frozen
class Task:
    """A node that is next, or that waits; `error` is the representation of what it has raised."""

    id: str
    name: str
    error: str | None = None
    interrupts: tuple[Interrupt, ...] = ()
    result: Any = None
    checkpoint: Mapping[str, Any] | None = None


@frozen
class ThreadState:
    """
    The state of a thread at a checkpoint, the last one unless another was asked for.

    `values` is the state of the graph. `next` are the nodes that come next, none once the graph is through, and
    `metadata` names the run that made the checkpoint by `run_id`; it is None of a thread on which nothing ran.
    """

    values: Any = None
    next: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()
    interrupts: tuple[Interrupt, ...] = ()
    metadata: Mapping[str, Any] | None = None
    checkpoint: Mapping[str, Any] | None = None
    parent_checkpoint: Mapping[str, Any] | None = None
    created_at: datetime | None = None

    @property
    def run_id(self) -> str:
        """Return the run that made the checkpoint, empty where none did."""
        return str((self.metadata or {}).get("run_id", ""))


@frozen
class GraphRun:
    """
    A run; `state` is that of its thread, which is read once the run moves no more.

    What only a read of the run itself tells is None where its state said enough: `created_at`, `kwargs`, ....
    """

    run_id: str
    thread_id: str
    status: str
    assistant_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    metadata: Mapping[str, Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    multitask_strategy: str | None = None
    state: ThreadState | None = None


@frozen
class Thread:
    """A thread; `status` is `idle`, `busy`, `interrupted` or `error`, and `values` the state of its graph."""

    thread_id: str
    status: str
    created_at: datetime
    updated_at: datetime
    metadata: Mapping[str, Any] = field(factory=dict)
    config: Mapping[str, Any] | None = None
    values: Any = None
    interrupts: Mapping[str, tuple[Interrupt, ...]] | None = None
    state_updated_at: datetime | None = None
    error: Mapping[str, Any] | None = None


@frozen
class Assistant:
    """An assistant: a graph with a configuration. Each graph has one of its own, which its name stands for."""

    assistant_id: str
    graph_id: str
    name: str = ""
    description: str | None = None
    version: int | None = None
    config: Mapping[str, Any] = field(factory=dict)
    context: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@frozen
class AssistantSchemas:
    """The JSON schemas of what a graph takes and gives; None where the server cannot tell."""

    graph_id: str
    input_schema: Mapping[str, Any] | None = None
    output_schema: Mapping[str, Any] | None = None
    state_schema: Mapping[str, Any] | None = None
    config_schema: Mapping[str, Any] | None = None
    context_schema: Mapping[str, Any] | None = None
