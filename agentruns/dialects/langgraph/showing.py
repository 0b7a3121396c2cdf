"""How a run is shown to people: what a node asks, and what the messages of its state say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentruns._values.run import Action, Run
from agentruns.dialects.show import (
    Answer,
    Choice,
    Input,
    Question,
    Step,
    always,
    facts,
    open_question,
    phrase,
    text_of,
    words,
)
from agentruns.dialects.wire import mapping, objects


def show_question(action: Action) -> Question:
    """
    Return what a node asks: a decision on calls of tools, as the middleware of LangChain does, or anything.

    An action without arguments is a node before which the graph has stopped.
    """
    requests = objects(action.arguments.get("action_requests"))
    if requests:
        return _approval(action, len(requests))
    if not action.arguments:
        go_on = Choice(value="go_on", label="Go on", give=always(True))
        return Question(title=f"Go on with {phrase(action.name)}?", choices=(go_on,))
    return open_question(action, "The node is told why.")


def _approval(action: Action, count: int) -> Question:
    def decide(**decision: Any) -> Answer:
        return Answer({"decisions": [decision] * count})

    return Question(
        title=f"May {phrase(action.name)} go on?",
        facts=facts(action.arguments),
        choices=(
            Choice(value="approve", label="Approve", give=lambda _: decide(type="approve")),
            Choice(
                value="reject",
                label="Reject",
                input=Input(name="message", label="Why", is_required=False),
                give=lambda why: decide(type="reject", **({"message": why} if why else {})),
            ),
        ),
    )


def show_steps(run: Run) -> tuple[Step, ...]:
    """Return the messages in the state that a run has come to."""
    values = mapping(mapping(run.raw.get("state")).get("values"))
    return tuple(map(_step, objects(values.get("messages"))))


def _step(message: Mapping[str, Any]) -> Step:
    content = message.get("content")
    parts = [text_of(part.get("text")) for part in objects(content)]
    calls = {text_of(call.get("name")): call.get("args") for call in objects(message.get("tool_calls"))}
    kind = text_of(message.get("type") or message.get("role"))
    name = text_of(message.get("name")) or words(kind)
    return Step(name, facts(calls), "\n".join(parts) if parts else text_of(content), kind)
