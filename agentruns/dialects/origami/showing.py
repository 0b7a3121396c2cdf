"""What a question of Origami asks of a person, and what a run did: the changes that it made, or what was said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentruns._values.run import Action, Run
from agentruns.dialects.show import (
    Answer,
    Choice,
    Fact,
    Input,
    Question,
    Step,
    always,
    phrase,
    refusal,
    text_of,
    verbatim,
    words,
)
from agentruns.dialects.wire import mapping, objects


def show_question(action: Action) -> Question:
    """Return what a question asks, with the answers that are suggested; or whether a run that stopped shall go on."""
    if action.name == "continue":
        return _stopped(action)
    suggested = action.arguments.get("suggestedAnswers")
    answers = [each for each in suggested if isinstance(each, str)] if isinstance(suggested, list) else []
    other = Choice(
        value="other",
        label="Something else" if answers else "Answer",
        input=Input(name="other", label="Your answer"),
        give=Answer,
    )
    return Question(
        title=phrase(action.arguments.get("question")) or "The agent asks",
        choices=(
            *(Choice(value=f"answer-{place}", label=each, give=always(each)) for place, each in enumerate(answers)),
            other,
            refusal("No answer", "The agent is told why, and goes on without it."),
        ),
        chosen="" if answers else "other",
    )


def _stopped(action: Action) -> Question:
    """Ask whether a run that ended before it was done shall go on."""
    return Question(
        title="The agent stopped before it was done",
        text=phrase(action.arguments.get("text")),
        facts=(Fact("status", phrase(action.arguments.get("status"))),),
        choices=(
            Choice(value="continue", label="Continue", give=always(True)),
            Choice(
                value="other",
                label="Say something else",
                input=Input(name="other", label="What it shall do"),
                give=Answer,
            ),
        ),
    )


def show_steps(run: Run) -> tuple[Step, ...]:
    """Return the transcript of a run that was read with it, else the changes that the run made."""
    response = mapping(run.raw.get("response"))
    return tuple(_transcript(response)) or tuple(_changes(response))


def _changes(response: Mapping[str, Any]) -> Iterator[Step]:
    for each in objects(response.get("actions")):
        shown = (key for key in each if key not in {"type", "tableId", "columnId", "object"})
        yield Step(words(str(each.get("type", ""))), verbatim(each, shown))


def _transcript(response: Mapping[str, Any]) -> Iterator[Step]:
    for each in objects(response.get("transcript")):
        text = text_of(each.get("content") or each.get("result"))
        if text:
            yield Step(text_of(each.get("name")), text=text, kind=text_of(each.get("role")))
        for call in objects(each.get("toolCalls")):
            yield Step(text_of(call.get("name")), verbatim(call, ("input",)), kind="calls")
