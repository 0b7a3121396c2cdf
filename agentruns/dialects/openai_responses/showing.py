"""How a response is shown to people: what it did, what its tools take, and how a call is approved."""

from __future__ import annotations

from collections.abc import Mapping

from agentruns._values.commands import Flow
from agentruns._values.run import Action, Run
from agentruns.dialects.show import (
    Answer,
    Choice,
    Input,
    Question,
    Step,
    Tool,
    always,
    facts,
    open_question,
    phrase,
    text_of,
    verbatim,
    words,
)
from agentruns.dialects.wire import mapping, objects

from .reading import APPROVAL


def show_question(action: Action) -> Question:
    """Return what a call asks: to be approved, or its output."""
    if action.name == APPROVAL:
        asked = action.arguments
        return Question(
            title=f"May {phrase(asked.get('server_label'))} call {phrase(asked.get('name'))}?",
            facts=facts(mapping(asked.get("arguments"))),
            choices=(
                Choice(value="approve", label="Approve", give=always(True)),
                Choice(
                    value="refuse",
                    label="Refuse",
                    input=Input(name="reason", label="Reason", is_required=False),
                    give=lambda reason: Answer({"approve": False, **({"reason": reason} if reason else {})}),
                ),
            ),
        )
    return open_question(action, "The model is told why.")


def show_steps(run: Run) -> tuple[Step, ...]:
    """Return the items of a response, in their order: messages, calls, what the vendor's tools found."""
    return tuple(_step(item) for item in objects(run.raw.get("output")))


def _step(item: Mapping[str, object]) -> Step:
    texts = [
        text_of(part.get("text") or part.get("refusal")) for part in objects(item.get("content") or item.get("summary"))
    ]
    kind = text_of(item.get("type"))
    known = {"type", "id", "name", "content", "summary", "status", "role"}
    about = verbatim(item, [name for name in item if name not in known])
    return Step(text_of(item.get("name") or item.get("role")) or words(kind), about, "\n".join(texts), kind)


def read_tools(run: Run) -> Flow[Mapping[str, Tool]]:
    """Return the functions that the response was made with: it repeats them, so nothing is asked."""
    yield from ()
    return {
        text_of(tool.get("name")): Tool(text_of(tool.get("description")), mapping(tool.get("parameters")))
        for tool in objects(run.raw.get("tools"))
        if tool.get("name")
    }
