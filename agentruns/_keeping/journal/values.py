"""What a journal tells of one piece of work and of one answered action."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

from .moves import AnswerState


@frozen
class Work:
    """
    One piece of work, named by its key.

    `origin`, `start_note` and `run` are JSON texts: what starts it, what the start found out before its next request,
    and the last state seen. `group_name` names the starts from which this one cannot be told. `posting_run` is the run
    whose answers were last about to be posted, `posting_at` when that was tried first. `alive` tells whether the
    journal that is at it is still open somewhere, `mine` whether it is this one. Of a `begin`, `fresh` says that the
    work is new, and `taken` that it was taken over from an owner that is gone. Times are seconds since the epoch;
    `updated` grows with every change, whatever the clock does.
    """

    key: str
    vendor: str
    origin: str = field(repr=False)
    state: Literal["starting", "open", "done"]
    start_note: str | None = field(repr=False)
    group_name: str | None
    posting_run: str | None
    posting_at: float | None
    run: str | None = field(repr=False)
    owner: str
    alive: bool
    mine: bool
    created: float
    updated: float
    fresh: bool = False
    taken: bool = False


@frozen
class Handling:
    """
    One action of one pause.

    `output` is JSON text. Of a `handle`, `fresh` says that the handler is to be run now, and `taken` that an earlier
    attempt at it was cut off. `alive` and `mine` are those of whoever ran the handler.
    """

    run_id: str
    action_id: str
    name: str
    state: AnswerState
    output: str | None = field(repr=False)
    is_error: bool
    owner: str
    alive: bool
    mine: bool
    fresh: bool = False
    taken: bool = False
