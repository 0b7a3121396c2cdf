"""What a reader tells of a journal: its entries, what was dealt with in one of them, and how many there are."""

from __future__ import annotations

from typing import Literal

from attrs import frozen


@frozen(kw_only=True)
class Entry:
    """
    One piece of work, or one run whose actions wait, as lists show it.

    `id` names it in addresses. `key` is empty where the work has none, `run_id` where no run is known to have started.
    `created` and `updated` are seconds since the epoch; `alive` says that somebody is at it now, `waiting` how many of
    its actions wait for a person in the journal.
    """

    id: str
    vendor: str
    key: str
    state: Literal["starting", "open", "done"]
    alive: bool
    created: float
    updated: float
    run_id: str
    parent: str
    status: str
    vendor_status: str
    tokens: tuple[int, int] | None
    waiting: int

    @property
    def waits(self) -> bool:
        """Tell whether somebody must answer before it goes on."""
        return self.state != "done" and (self.waiting > 0 or self.status == "requires_action")


@frozen
class Handled:
    """One action that a handler, or a person, has dealt with: `output` is JSON text."""

    run_id: str
    action_id: str
    name: str
    state: Literal["running", "answered", "posted"]
    output: str | None
    is_error: bool
    alive: bool


@frozen
class Counts:
    """How many entries there are of each sort."""

    all: int
    waiting: int
    open: int
    done: int
    failed: int
