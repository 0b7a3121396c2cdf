"""Origami's stored agents, runs and tables, as frozen values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

from attrs import field, frozen

from agentruns.emulator.schema import JSON

from .errors import Object
from .work import Ending, Work

State: TypeAlias = Literal["running", "errored", "settled"]
"""How the background cells of a row stand."""


@frozen(kw_only=True)
class OrigamiAgent:
    """One agent; `workspace_id` is its container: a legacy workspace, another agent's session, or its own."""

    id: str
    project: str | None
    name: str
    workspace_id: str
    legacy: bool
    own_container: bool
    created: float
    deleted: float | None = None
    run_ids: tuple[str, ...] = ()
    table_ids: tuple[str, ...] = ()


@frozen(kw_only=True)
class OrigamiRun:
    """One run; `ending` is None until it ended, and nothing changes any more after that."""

    id: str
    agent_id: str
    workspace_id: str
    prompt: str
    model: str
    default_model: str
    focus: tuple[str, ...]
    attached: tuple[str, ...]
    steps_max: int
    started: float
    work: Work = field(repr=False)
    actions: tuple[Object, ...] = ()
    table_id: str | None = None
    cancelling: bool = False
    ending: Ending | None = None

    @property
    def status(self) -> str:
        """The status on the wire."""
        return self.ending.status if self.ending else self.work.turn.status or "running"

    def steps_at(self, now: float) -> int:
        """Count the loop iterations executed."""
        return self.ending.steps if self.ending else self.work.steps_at(now - self.started)

    def model_at(self, now: float) -> str:
        """Name the model: the plan's default until the first assistant message (get-run, `model`)."""
        return self.model if self.ending or self.steps_at(now) else self.default_model

    @property
    def touched(self) -> tuple[str, ...]:
        """The tables of the response: those of the actions, then those in focus, each once."""
        acted = (str(action["tableId"]) for action in self.actions)
        return tuple(dict.fromkeys(key.lower() for key in (*acted, *self.focus, *self.attached)))


@frozen(kw_only=True)
class OrigamiColumn:
    """One column; cells of any kind but `input` are filled in the background."""

    id: str
    name: str
    slug: str
    kind: str

    @property
    def filled(self) -> bool:
        """Tell whether cells of this column run."""
        return self.kind != "input"


@frozen(kw_only=True)
class OrigamiLead:
    """One row; its background cells are settled at `due`, `failed` ones without a value."""

    id: str
    values: Mapping[str, JSON]
    due: float = math.inf
    failed: bool = False

    def state_at(self, now: float) -> State:
        """Tell how the background cells of the row stand."""
        if self.due > now:
            return "running"
        return "errored" if self.failed else "settled"

    def value(self, column: OrigamiColumn, now: float) -> JSON:
        """Read one cell; those of the background are empty until settled."""
        return None if column.filled and self.state_at(now) != "settled" else self.values.get(column.slug)


@frozen(kw_only=True)
class OrigamiTable:
    """One table, with its saved view and what was deleted from it."""

    id: str
    source_id: str
    project: str | None
    workspace_id: str | None
    name: str
    created: float
    updated: float
    columns: tuple[OrigamiColumn, ...]
    leads: tuple[OrigamiLead, ...] = ()
    deleted_leads: tuple[OrigamiLead, ...] = ()
    deleted_columns: tuple[OrigamiColumn, ...] = ()
    filters: tuple[Object, ...] = ()
    sort: Object | None = None

    @property
    def filled(self) -> tuple[OrigamiColumn, ...]:
        """The columns whose cells run in the background."""
        return tuple(column for column in self.columns if column.filled)

    def count(self, state: State, now: float) -> int:
        """Count the rows whose background cells are running, errored or settled."""
        return sum(lead.state_at(now) == state for lead in self.leads) if self.filled else 0

    def charged(self, now: float) -> int:
        """Count the cells settled per background column, also of rows deleted since: charges never go back."""
        return sum(lead.state_at(now) == "settled" for lead in (*self.leads, *self.deleted_leads))

    def column(self, slug: str) -> OrigamiColumn | None:
        """Find a column by its slug."""
        return next((column for column in self.columns if column.slug == slug), None)
