"""What an agent asks of a person, what was said in a task, and what the task has brought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentruns._values.run import Action, Run
from agentruns.dialects import show
from agentruns.dialects.show import Answer, Choice, Input, Question, Step, always
from agentruns.dialects.wire import objects

from .parts import text_of
from .reading import AUTH


def show_question(action: Action) -> Question:
    """Return what the agent says, to be answered by a text or by JSON; a login may also be done elsewhere."""
    said = show.phrase(action.arguments.get("text"))
    done = Choice(
        value="done",
        label="I have logged in",
        help="Most agents notice by themselves, and the question goes away.",
        give=always("Done."),
    )
    return Question(
        title="The agent needs a login" if action.name == AUTH else "The agent asks",
        text=said,
        facts=show.facts({"parts": action.arguments["parts"]} if action.arguments.get("parts") else {}),
        choices=(
            *((done,) if action.name == AUTH else ()),
            Choice(value="text", label="Answer", input=Input(name="text", label="Your answer"), give=Answer),
            Choice(
                value="data",
                label="Answer by JSON",
                help="For an agent that asks for data.",
                input=Input(name="data", label="JSON", schema={}),
                give=Answer,
            ),
        ),
        chosen="done" if action.name == AUTH else "text",
    )


def show_steps(run: Run) -> tuple[Step, ...]:
    """Return the messages of a task, as far as its history is shown."""
    return tuple(
        Step("", _facts(each), text=_text(each), kind="user" if each.get("role") == "ROLE_USER" else "agent")
        for each in objects(run.raw.get("history"))
    )


def show_artifacts(run: Run) -> tuple[show.Artifact, ...]:
    """Return the artifacts of a task."""
    return tuple(
        show.Artifact(
            title=show.phrase(each.get("name")) or "Artifact",
            summary="\n".join(filter(None, (show.phrase(each.get("description")), _text(each)))),
            sources=tuple(
                show.link(part.get("filename") or part["url"], part["url"], part.get("mediaType") or "")
                for part in objects(each.get("parts"))
                if part.get("url")
            ),
            facts=_facts(each),
        )
        for each in objects(run.raw.get("artifacts"))
    )


def _text(said: Mapping[str, Any]) -> str:
    return text_of(objects(said.get("parts")))


def _facts(said: Mapping[str, Any]) -> tuple[show.Fact, ...]:
    """Return what is no text among the parts; bytes by their name and type alone."""
    others = [part for part in objects(said.get("parts")) if not part.get("text") and not part.get("url")]
    shown = [{key: value for key, value in part.items() if key != "raw" and value not in ("", None)} for part in others]
    return show.facts({f"part {number}": each for number, each in enumerate(shown, 1)})
