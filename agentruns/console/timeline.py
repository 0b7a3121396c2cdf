"""What a page shows of one piece of work: its history in order, and what it waits for."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias, TypeVar

from attrs import frozen

from agentruns._keeping.digest import digest
from agentruns._values.printable import printable
from agentruns._values.run import Action, Run, RunStatus
from agentruns.dialects.show import Artifact, Step, steps_in
from agentruns.dialects.vendor import MISTAKES, Vendor
from agentruns.errors import AgentRunsError

from .asks import question_of

logger = logging.getLogger("agentruns")

T = TypeVar("T")

AnswerRoute: TypeAlias = Literal["inbox", "vendor", "handler", "answered", "nobody"]
"""
Where an answer goes: to the inbox of the program that follows the run, or to the vendor itself. Or why none is wanted:
a handler works on it, it was answered already, or no client can pass it on ("nobody").
"""


@frozen(kw_only=True)
class HistoryEntry:
    """
    One thing that happened; `at` is in seconds since the epoch, None if unknown.

    `kind` is "begun", the status of a state, "action" for what became of an action, or "trouble".
    """

    number: int
    at: float | None
    kind: str
    title: str
    text: str = ""
    run: Run | None = None


@frozen(kw_only=True)
class Group:
    """Actions of a pause that are answered together, by one form."""

    run: Run
    actions: tuple[Action, ...]
    route: AnswerRoute
    changed: bool = False
    """Something else was asked before under the same id: an approval of that is not used."""

    @property
    def id(self) -> str:
        """Return what names the group in a page, the same as long as it waits for the same, arguments included."""
        asked = (part for action in self.actions for part in (action.id, digest(action)))
        text = "\0".join([self.run.vendor, self.run.id, *asked])
        return f"a-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def is_open(self) -> bool:
        """Tell whether an answer is taken."""
        return self.route in {"inbox", "vendor"}


@frozen
class Pause:
    """What a paused run waits for."""

    run: Run
    groups: tuple[Group, ...]

    def group(self, group_id: str) -> Group | None:
        """Return the group of that id."""
        return next((each for each in self.groups if each.id == group_id), None)

    @property
    def open(self) -> int:
        """Return how many actions can be answered from this page."""
        return sum(len(each.actions) for each in self.groups if each.is_open)


def groups(
    vendor: Vendor | None, run: Run, routes: Mapping[str, AnswerRoute], changed: Collection[str] = ()
) -> tuple[Group, ...]:
    """
    Return the actions of *run* in groups that are answered together; *routes* says by action id where answers go.

    *changed* are the ids of the actions that asked something else before.

    Answers that go to the vendor from here are sent all at once, and those for the inbox one by one, unless the vendor
    takes them in one way only (`ANSWERS_TOGETHER`).
    """
    together = None if vendor is None else vendor.ANSWERS_TOGETHER
    whole = "vendor" in routes.values() if together is None else together
    if whole and len(set(routes.values())) == 1:
        route = next(iter(routes.values()))
        return (Group(run=run, actions=run.actions, route=route, changed=bool(changed)),)
    return tuple(
        Group(run=run, actions=(action,), route=routes[action.id], changed=action.id in changed)
        for action in run.actions
    )


_TITLES: Mapping[str, str] = {
    RunStatus.PENDING: "Waits for its turn",
    RunStatus.RUNNING: "Runs",
    RunStatus.REQUIRES_ACTION: "Waits for an answer",
    RunStatus.COMPLETED: "Completed",
    RunStatus.FAILED: "Failed",
}


def title_of(run: Run) -> str:
    """Return what a state is called."""
    return _TITLES[run.status]


# What a run has brought -----------------------------------------------------------------------------------------------


def steps_of(vendor: Vendor | None, run: Run) -> tuple[Step, ...]:
    """Return what a run did, as far as its dialect tells it of this state."""
    return _shown(vendor, "show_steps", run, Step)


def artifacts_of(vendor: Vendor | None, run: Run) -> tuple[Artifact, ...]:
    """Return the artifacts that a run brings, if its vendor knows such things."""
    return _shown(vendor, "show_artifacts", run, Artifact)


def trace_of(vendor: Vendor | None, run: Run) -> tuple[Step, ...]:
    """Return how a run came about: what its dialect tells of this state, else what its JSON does."""
    if vendor is None or (vendor.show_steps is None and vendor.read_trace is None):
        return steps_in(run)
    return steps_of(vendor, run)


def title_of_action(vendor: Vendor | None, action: Action) -> str:
    """Return what an action asks, in one line."""
    question = question_of(vendor, action)
    return action.name if question is None else question.title


def _shown(vendor: Vendor | None, name: str, run: Run, kind: type[T]) -> tuple[T, ...]:
    """Return what a function of the dialect gives; nothing, with a warning, if that is none of *kind*."""
    if vendor is None or getattr(vendor, name) is None:
        return ()
    try:
        values = vendor.call(name, run)
        given = tuple(values)
    except (AgentRunsError, *MISTAKES) as error:
        logger.warning("what run %s did or brought is not shown: %s", printable(run.id), error)
        return ()
    return tuple(each for each in given if isinstance(each, kind))
