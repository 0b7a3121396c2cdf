"""Where the parts of a run, and what a paused run waits for, stand in the answers."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from agentruns._values.run import RunStatus

from .expressions import Expression
from .source import Section
from .templates import Template


@frozen
class RunRules:
    """Where the parts of a run stand in its JSON."""

    at: Expression
    id: Expression
    parent: Expression | None
    status: Expression
    output: Expression | None
    failure: tuple[Expression | None, Expression | None]
    usage: tuple[Expression | None, Expression | None]
    progress: tuple[Expression | None, Expression | None]
    times: tuple[Expression | None, Expression | None]
    statuses: Mapping[str, RunStatus]


@frozen
class ActionRules:
    """Where stands what a paused run waits for; with a request, in the answer to that."""

    request: Template | None
    at: Expression
    id: Expression
    name: Expression
    arguments: Expression | None


def pair(section: Section | None, first: str, second: str) -> tuple[Expression | None, Expression | None]:
    """Return the two expressions of a section, None for what it has not."""
    if section is None:
        return None, None
    found = Expression.of(section, first), Expression.of(section, second)
    section.done()
    return found


def run_rules(section: Section, words: Section) -> RunRules:
    """Return what `[run]` and `[statuses]` say."""
    at = Expression.of(section, "at", "@")
    assert at is not None
    statuses: dict[str, RunStatus] = {}
    for word in words.values:
        statuses[word] = RunStatus(words.choice(word, [status.value for status in RunStatus]))
    if not any(status.is_over for status in statuses.values()):
        words.wrong("", "no word means completed or failed, so no run would ever be over")
    rules = RunRules(
        at=at,
        id=Expression.needed(section, "id"),
        parent=Expression.of(section, "parent"),
        status=Expression.needed(section, "status"),
        output=Expression.of(section, "output"),
        failure=pair(section.section("failure"), "type", "message"),
        usage=pair(section.section("usage"), "input_tokens", "output_tokens"),
        progress=pair(section.section("progress"), "done", "limit"),
        times=pair(section.section("times"), "began", "ended"),
        statuses=statuses,
    )
    section.done()
    return rules


def action_rules(section: Section | None) -> ActionRules | None:
    """Return what `[actions]` says."""
    if section is None:
        return None
    request = Template.of(section, ("id", "parent")) if section.has("request") else None
    rules = ActionRules(
        request=request,
        at=Expression.needed(section, "at"),
        id=Expression.needed(section, "id"),
        name=Expression.needed(section, "name"),
        arguments=Expression.of(section, "arguments"),
    )
    section.done()
    return rules
