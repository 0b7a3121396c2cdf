"""What an interrupt of Middesk asks of a person, the steps of a run, and the artifacts that it brings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentruns._values.run import Action, Run
from agentruns.dialects import show
from agentruns.dialects.show import Answer, Choice, Input, Proposal, Question, Step, phrase, words
from agentruns.dialects.wire import mapping, objects


def show_question(action: Action) -> Question:
    """Return what an interrupt proposes, to be approved, rejected, or answered in the agent's own shape."""
    value = action.arguments
    wrapped = value.get("proposals")
    inner = list(objects(wrapped)) if isinstance(wrapped, list) else [value]
    proposals = tuple(_proposal(each) for each in inner)
    known = {"agent", "label", "artifacts", "proposals", "type"}
    alone = proposals[0] if len(proposals) == 1 else None
    return Question(
        title=(alone.label if alone else "") or phrase(value.get("label")) or words(action.name),
        text=f"Asked by {words(alone.agent or action.name)}." if alone else f"{len(proposals)} proposals together.",
        facts=show.facts({name: each for name, each in value.items() if name not in known}),
        proposals=proposals,
        choices=(
            Choice(
                value="approve",
                label="Approve",
                input=Input(name="note", label="Note", is_required=False),
                give=lambda note: Answer({"decision": "approve", **({"note": note} if note else {})}),
            ),
            Choice(
                value="reject",
                label="Reject",
                input=Input(name="reason", label="Reason"),
                give=lambda reason: Answer({"decision": "reject", "note": reason}),
            ),
            Choice(
                value="other",
                label="Answer something else",
                help="JSON, in the shape that the agent expects: no page of the vendor says which.",
                input=Input(name="other", label="Answer", schema={}),
                give=Answer,
            ),
        ),
    )


def _proposal(value: Mapping[str, Any]) -> Proposal:
    return Proposal(phrase(value.get("agent")), phrase(value.get("label")), _artifacts(value.get("artifacts")))


def show_artifacts(run: Run) -> tuple[show.Artifact, ...]:
    """Return the artifacts in the output of a run, if it has any."""
    return _artifacts(mapping(run.raw.get("output")).get("artifacts"))


def _artifacts(values: Any) -> tuple[show.Artifact, ...]:
    """Return artifacts as people read them, whatever is missing of them."""
    return tuple(_artifact(each) for each in objects(values))


def _artifact(value: Mapping[str, Any]) -> show.Artifact:
    known = {"title", "type", "confidence", "summary", "sources", "id"}
    return show.Artifact(
        title=phrase(value.get("title")) or "Untitled",
        type=words(phrase(value.get("type"))),
        confidence=phrase(value.get("confidence")),
        summary=phrase(value.get("summary")),
        sources=tuple(_source(each) for each in objects(value.get("sources"))),
        facts=show.facts({name: each for name, each in value.items() if name not in known}),
    )


def _source(value: Mapping[str, Any]) -> show.Link:
    kinds = (words(phrase(value.get(name))) for name in ("source_tier", "source_type") if value.get(name))
    return show.link(value.get("source_name"), value.get("url"), ", ".join(kinds))


def show_steps(run: Run) -> tuple[Step, ...]:
    """Return the steps of a run that was read with them, each followed by those within it."""
    return tuple(_steps(run.raw, 0))


def _steps(within: Mapping[str, Any], level: int) -> Iterator[Step]:
    for each in objects(within.get("steps")):
        name = show.text_of(each.get("label") or each.get("name"))
        about = show.verbatim(each, ("agent", "status"))
        yield Step(name, about, kind=show.text_of(each.get("type")), level=min(level, 3))
        if level < show.DEEPEST:
            yield from _steps(each, level + 1)
