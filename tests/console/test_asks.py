"""What an action asks of a person, by vendor, and what is sent for each way to answer."""

from collections.abc import Mapping
from typing import Any

import pytest

from agentruns import Action

pytest.importorskip("jsonschema")

from agentruns.console.asks import Ask
from agentruns.console.asks import ask as ask_of
from agentruns.dialects import known
from agentruns.dialects.show import Answer, Tool

BOOKING = Action("t1", "user-confirm_booking", {"proposed_slot": "14:30", "guests": ["Ana", "Bo"], "extra": {"a": 1}})
BOOKING_TOOL = Tool(
    "Ask the user.",
    {
        "type": "object",
        "required": ["proposed_slot"],
        "properties": {"proposed_slot": {"type": "string", "title": "Slot", "description": "Day and time."}},
    },
)
QUESTION = Action(
    "0",
    "ask-questions",
    {"question": "Which clinics?", "type": "single-choice", "suggestedAnswers": ["Single-site", "All"]},
)
HIT = {
    "agent": "watchlist_resolution",
    "label": "Dismiss them?",
    "artifacts": [
        {
            "title": "Dismiss hit",
            "type": "dismissal",
            "confidence": 0.9,
            "sources": [{"url": "https://s.example/1", "source_name": "Register"}, {"url": "javascript:alert(1)"}, 7],
            "note": "kept",
        },
        "no artifact",
    ],
}


def ask(vendor: str, action: Action, prefix: str, tool: Tool | None = None) -> Ask:
    return ask_of(known(vendor), action, prefix, tool)


def answered(asked: Ask, **posted: str) -> Answer | Ask:
    return asked.read({f"{asked.prefix}{name}": [value] for name, value in posted.items()})


def values(asked: Ask) -> list[str]:
    return [option.value for option in asked.options]


def test_a_tool_call_shows_its_arguments_by_the_titles_of_its_schema() -> None:
    asked = ask("narrative", BOOKING, "0/", BOOKING_TOOL)

    assert asked.text == "Ask the user."
    assert [(fact.name, fact.value, fact.is_block) for fact in asked.facts] == [
        ("Slot", "14:30", False),
        ("guests", "Ana, Bo", False),
        ("extra", '{\n  "a": 1\n}', True),
    ]
    assert asked.facts[0].help == "Day and time."


@pytest.mark.parametrize(
    ("posted", "answer"),
    [
        ({"how": "approve"}, Answer({"approved": True})),
        ({"how": "approve", "note": "By all means"}, Answer({"approved": True, "note": "By all means"})),
        (
            {"how": "change", "arguments/proposed_slot": "15:00"},
            Answer({
                "approved": True,
                "arguments": {"proposed_slot": "15:00", "guests": ["Ana", "Bo"], "extra": {"a": 1}},
            }),
        ),
        ({"how": "other", "other": "Ask me tomorrow"}, Answer("Ask me tomorrow")),
        ({"how": "other", "other": '{"slot": 3}'}, Answer({"slot": 3})),
        ({"how": "other", "other": "true"}, Answer(True)),
        ({"how": "refuse", "reason": "I am away"}, Answer("I am away", is_error=True)),
    ],
)
def test_a_tool_call_is_approved_changed_answered_or_refused(posted: Mapping[str, str], answer: Answer) -> None:
    assert answered(ask("narrative", BOOKING, "0/", BOOKING_TOOL), **posted) == answer


def test_a_tool_whose_answer_has_a_schema_is_answered_by_its_form() -> None:
    schema = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}
    asked = ask("narrative", BOOKING, "0/", Tool("", {}, schema))

    assert values(asked) == ["answer", "refuse"]
    assert asked.chosen == "answer"
    assert answered(asked, **{"how": "answer", "answer/ok": "false"}) == Answer({"ok": False})


def test_a_tool_that_nothing_is_known_of_can_be_answered_all_the_same() -> None:
    assert values(ask("narrative", BOOKING, "0/")) == ["approve", "other", "refuse"]
    broken = Tool("", {"type": "nonsense"}, {"type": "nonsense"})
    assert values(ask("narrative", BOOKING, "0/", broken)) == ["approve", "other", "refuse"]


def test_what_must_be_corrected_is_shown_again_as_it_was_posted() -> None:
    asked = ask("narrative", BOOKING, "0/", BOOKING_TOOL)

    again = answered(asked, how="refuse", reason=" ", note="kept")

    assert isinstance(again, Ask)
    assert again.has_errors
    assert again.chosen == "refuse"
    shown = {option.value: option.field for option in again.options if option.field is not None}
    assert shown["refuse"].error == "This is needed."
    assert shown["approve"].value == "kept"
    assert shown["approve"].error == ""


@pytest.mark.parametrize("how", ["", "nonsense"])
def test_a_form_without_a_choice_is_shown_again(how: str) -> None:
    again = answered(ask("narrative", BOOKING, "0/"), how=how)

    assert isinstance(again, Ask)
    assert again.error == "Choose an answer."


def test_json_that_is_none_is_told_at_the_field() -> None:
    again = answered(ask("narrative", BOOKING, "0/"), how="other", other='{"slot": ')

    assert isinstance(again, Ask)
    (field,) = [option.field for option in again.options if option.value == "other"]
    assert field is not None
    assert field.error.startswith("This is not JSON")


# Origami --------------------------------------------------------------------------------------------------------------


def test_a_question_offers_its_suggested_answers_and_free_text() -> None:
    asked = ask("origami", QUESTION, "0/")

    assert asked.title == "Which clinics?"
    assert [option.label for option in asked.options] == ["Single-site", "All", "Something else", "No answer"]
    assert answered(asked, how="answer-1") == Answer("All")
    assert answered(asked, how="other", other="Those in Leeds") == Answer("Those in Leeds")
    assert answered(asked, how="refuse", reason="I cannot say") == Answer("I cannot say", is_error=True)


def test_a_question_without_suggestions_is_answered_by_text() -> None:
    asked = ask("origami", Action("0", "ask-questions", {"question": "Where?", "suggestedAnswers": None}), "0/")

    assert asked.chosen == "other"
    assert values(asked) == ["other", "refuse"]


def test_a_run_that_stopped_early_goes_on_or_is_told_what_to_do() -> None:
    asked = ask("origami", Action("continue", "continue", {"status": "step_cap_hit", "text": "So far"}), "0/")

    assert asked.text == "So far"
    assert answered(asked, how="continue") == Answer(True)
    assert answered(asked, how="other", other="Only Leeds") == Answer("Only Leeds")


# Middesk --------------------------------------------------------------------------------------------------------------


def test_an_interrupt_shows_what_is_proposed() -> None:
    asked = ask("middesk", Action("i1", "watchlist_resolution", HIT), "0/")

    assert asked.title == "Dismiss them?"
    (proposal,) = asked.proposals
    (artifact,) = proposal.artifacts
    assert (artifact.title, artifact.type, artifact.confidence) == ("Dismiss hit", "dismissal", "0.9")
    assert [fact.name for fact in artifact.facts] == ["note"]
    assert [(source.name, source.url) for source in artifact.sources] == [
        ("Register", "https://s.example/1"),
        ("javascript:alert(1)", ""),  # shown, but not to be followed
    ]


def test_proposals_that_come_together_are_shown_together() -> None:
    wrapped = {"type": "combined_proposal", "proposals": [HIT, {"agent": "tin_resolution", "label": "Accept it?"}, 5]}

    asked = ask("middesk", Action("i1", "interrupt", wrapped), "0/")

    assert [proposal.label for proposal in asked.proposals] == ["Dismiss them?", "Accept it?"]
    assert asked.text == "2 proposals together."


@pytest.mark.parametrize(
    ("posted", "answer"),
    [
        ({"how": "approve"}, {"decision": "approve"}),
        ({"how": "approve", "note": "Reviewed"}, {"decision": "approve", "note": "Reviewed"}),
        ({"how": "reject", "reason": "Same address"}, {"decision": "reject", "note": "Same address"}),
        ({"how": "other", "other": '{"dismiss": [1]}'}, {"dismiss": [1]}),
    ],
)
def test_an_interrupt_is_approved_rejected_or_answered_in_the_agents_own_shape(
    posted: Mapping[str, str], answer: Any
) -> None:
    assert answered(ask("middesk", Action("i1", "a", HIT), "0/"), **posted) == Answer(answer)


def test_a_rejection_needs_a_reason() -> None:
    assert isinstance(answered(ask("middesk", Action("i1", "a", HIT), "0/"), how="reject"), Ask)


def test_strange_values_break_nothing() -> None:
    strange: Any
    for strange in (None, 5, "text", [], {"artifacts": 5, "proposals": {}, "label": {"a": 1}}):
        assert ask("middesk", Action("i", "a", {"artifacts": [strange], "label": strange}), "0/").options
        assert ask(
            "origami", Action("0", "ask-questions", {"question": strange, "suggestedAnswers": strange}), ""
        ).title
        assert ask("acme", Action("0", "x", {"a": strange}), "0/").options
