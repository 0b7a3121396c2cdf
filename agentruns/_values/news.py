"""
Whether a state that was read is news: the one rule, for a stream, the poller and the console.

Reads of a run can arrive out of order, and a pause can show for a while after it was answered. So a state is compared
with the last one that was accepted, and with the actions that were answered since. The functions are pure; each
reader of a run keeps its own last state.
"""

from __future__ import annotations

import enum
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias

from .run import PENDING, REQUIRES_ACTION, RUNNING, Run

AnsweredActions: TypeAlias = frozenset[tuple[str, str]]
"""Actions that were answered: each the id of its run, then its own id."""

NONE_ANSWERED: Final[AnsweredActions] = frozenset()


class Novelty(enum.Enum):
    """What a state is beside the last one that was accepted. All but `STALE` are to be accepted in its place."""

    NEWS = "news"
    """It differs: show it."""

    ANSWERED = "answered"
    """It differs, but shows a pause that was answered: accept it, do not show it, and read again."""

    PROGRESS = "progress"
    """It differs in progress alone."""

    SAME = "same"
    """It does not differ in what a reader acts on."""

    STALE = "stale"
    """It was read before the last one was: keep the last one."""


NEWS, ANSWERED, PROGRESS, SAME, STALE = Novelty  # before Python 3.12, to look one up in its class takes long


def compare(last: Run | None, run: Run, answered: AbstractSet[tuple[str, str]] = NONE_ANSWERED) -> Novelty:
    """Return what *run* is beside *last*, the state that was accepted last, None if there was none."""
    is_answered = shows_answered(run, answered)
    if last is not None:
        if goes_back(last, run) or (is_answered and last.status.in_flight):
            return STALE
        if run == last:
            return SAME if run.progress == last.progress else PROGRESS
    return ANSWERED if is_answered else NEWS


def goes_back(last: Run, run: Run) -> bool:
    """Tell a read that is older than the last one: no run goes from running back to pending, or leaves its end."""
    if last.ref.id != run.ref.id:
        return False
    if last.status is RUNNING:
        return run.status is PENDING
    return last.status.is_over and run.status is not last.status


def shows_answered(run: Run, answered: AbstractSet[tuple[str, str]]) -> bool:
    """Tell whether *run* still shows a pause of which an action is among those *answered*."""
    if not answered or run.status is not REQUIRES_ACTION:
        return False
    return not answered.isdisjoint(actions_of(run))


def actions_of(run: Run) -> AnsweredActions:
    """Return the pending actions of *run* as they are named once they were answered."""
    return frozenset((run.id, action.id) for action in run.actions)
