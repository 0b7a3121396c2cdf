"""The answers to one pause: a table of stages, and handlers for all actions or for none."""

import pytest

from agentruns import Action, Run, RunRef, RunStatus, ToolOutput, Tools
from agentruns._following.answers import PendingAnswers, Stage, handlers_for

BOOK, PAY = Action("1", "book"), Action("2", "pay")
PAUSED = Run(RunRef("run-1"), RunStatus.REQUIRES_ACTION, "paused", actions=(BOOK, PAY))


def at(stage: Stage) -> PendingAnswers:
    pending = PendingAnswers()
    pending.stage = stage
    return pending


@pytest.mark.parametrize(
    ("stage", "event", "then"),
    [
        (Stage.COLLECTING, PendingAnswers.collected, Stage.READY),
        (Stage.COLLECTING, PendingAnswers.posting_failed, None),
        (Stage.READY, PendingAnswers.collected, None),
        (Stage.READY, PendingAnswers.posting_failed, Stage.UNCLEAR),
        (Stage.UNCLEAR, PendingAnswers.collected, None),
        (Stage.UNCLEAR, PendingAnswers.posting_failed, Stage.UNCLEAR),
    ],
)
def test_each_stage_takes_what_may_happen_in_it_and_refuses_the_rest(
    stage: Stage, event: object, then: Stage | None
) -> None:
    pending = at(stage)
    if then is None:
        with pytest.raises(RuntimeError, match=f"answers that are {stage.value} cannot go on"):
            event(pending)  # type: ignore[operator]
        assert pending.stage is stage
    else:
        event(pending)  # type: ignore[operator]
        assert pending.stage is then


@pytest.mark.parametrize(
    ("stage", "collected", "unclear"),
    [(Stage.COLLECTING, False, False), (Stage.READY, True, False), (Stage.UNCLEAR, True, True)],
)
def test_a_stage_says_what_is_left_to_do(stage: Stage, collected: bool, unclear: bool) -> None:
    assert (at(stage).is_collected, at(stage).is_unclear) == (collected, unclear)


def test_outputs_come_in_the_order_of_the_actions_whichever_handler_was_first() -> None:
    pending = PendingAnswers()
    pending.by_action["2"] = ToolOutput(PAY, "paid")
    pending.by_action["1"] = ToolOutput(BOOK, "booked")

    assert [each.output for each in pending.outputs(PAUSED)] == ["booked", "paid"]


def named(action: Action) -> list[str]:
    return [action.name]


def test_there_are_handlers_only_if_every_action_has_one() -> None:
    tools = Tools()
    tools.default(lambda action: action.id)
    one = Tools.of({"book": lambda: "booked"})
    found = handlers_for(PAUSED, tools, named)

    assert found is not None
    assert [action for action, _ in found] == [BOOK, PAY]
    assert handlers_for(PAUSED, one, named) is None
    assert handlers_for(PAUSED, None, named) is None
