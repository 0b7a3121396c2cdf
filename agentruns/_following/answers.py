"""The answers to one pause, on their way from the handlers to the vendor."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from attrs import evolve

from agentruns._values.run import Action, Run, ToolOutput
from agentruns.dialects import wire
from agentruns.tools import Tool, Tools

Handlers: TypeAlias = Sequence[tuple[Action, Tool]]
"""Each action of a pause, and the handler that answers it."""


class Stage(enum.Enum):
    """How far the answers to a pause are."""

    COLLECTING = "collecting"
    """Handlers are to be run, or are running."""

    READY = "ready"
    """All handlers have answered; nothing has been posted."""

    UNCLEAR = "unclear"
    """The answers were posted, and that failed: the vendor may have taken them."""


_Event: TypeAlias = Literal["collected", "posting failed"]

_MOVES: Final[Mapping[tuple[Stage, _Event], Stage]] = {
    (Stage.COLLECTING, "collected"): Stage.READY,
    (Stage.READY, "posting failed"): Stage.UNCLEAR,
    (Stage.UNCLEAR, "posting failed"): Stage.UNCLEAR,
}


class PendingAnswers:
    """What handlers have answered to a pause, until the vendor has it; `by_action` maps ids of actions to answers."""

    __slots__ = ("by_action", "stage")

    def __init__(self) -> None:
        self.by_action: dict[str, ToolOutput] = {}
        self.stage = Stage.COLLECTING

    @property
    def is_collected(self) -> bool:
        """Tell whether all handlers have answered."""
        return self.stage is not Stage.COLLECTING

    @property
    def is_unclear(self) -> bool:
        """Tell whether the answers may have been taken already."""
        return self.stage is Stage.UNCLEAR

    def collected(self) -> None:
        """Note that all handlers have answered."""
        self._move("collected")

    def posting_failed(self) -> None:
        """Note that the answers were posted, and that it is not known what came of it."""
        self._move("posting failed")

    def _move(self, event: _Event) -> None:
        moved = _MOVES.get((self.stage, event))
        if moved is None:
            raise RuntimeError(f"answers that are {self.stage.value} cannot go on by {event!r}")
        self.stage = moved

    def outputs(self, run: Run) -> tuple[ToolOutput, ...]:
        """Return the answers in the order of the actions of *run*."""
        return tuple(self.by_action[action.id] for action in run.actions)


def handlers_for(
    run: Run, tools: Tools | None, handler_names: Callable[[Action], Sequence[str]], *, model_calls: bool = True
) -> Handlers | None:
    """
    Return a handler for every action of *run*, None if one has none: half an answer is none.

    *model_calls* says that the actions are calls of a model, which is told what arguments do not fit.

    Raise `ProtocolError` where two actions have one id, before any handler is run.
    """
    if tools is None:
        return None
    wire.unique(run.actions)
    found = [(action, tools.find(handler_names(action))) for action in run.actions]
    covered = [(action, evolve(tool, for_model=model_calls)) for action, tool in found if tool is not None]
    return covered if covered and len(covered) == len(found) else None
