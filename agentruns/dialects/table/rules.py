"""What a table says, checked: each part of the TOML as a value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from agentruns._values.run import RunStatus
from agentruns.dialects.guesses import Guess
from agentruns.dialects.vendor import FUNCTIONS
from agentruns.errors import ConfigurationError

from . import origins, product
from .answers import ActionRules, RunRules, action_rules, pair, run_rules
from .expressions import Expression
from .operations import (
    ListRules,
    ParentRules,
    PostRules,
    StartRules,
    cancel_rules,
    list_rules,
    parent_rules,
    resume_rules,
    start_rules,
)
from .source import Section, Source
from .templates import Template


@frozen
class Rules:
    """All that a table says."""

    name: str
    constants: Mapping[str, Any]
    origin: type[Any]
    start: StartRules
    fetch: Template
    run: RunRules
    actions: ActionRules | None
    resume: PostRules | None
    cancel: PostRules | None
    listing: ListRules | None
    parent: ParentRules | None
    events: Template | None
    error: tuple[Expression | None, Expression | None]
    functions: Mapping[str, str]
    guesses: tuple[Guess, ...]
    example: Mapping[str, Any] | None

    @classmethod
    def of(cls, source: Source) -> Rules:
        """Return what a table says; raise `ConfigurationError`, by line and key, for what is wrong in it."""
        top = Section(source, (), source.values)
        name = top.text("name")
        constants = product.constants(top, name)
        start = _needed(top, "start")
        repeats = start.values.get("idempotent") is True
        origin = origins.make(_needed(top, "origin"), repeats=repeats)
        fields = [each.name for each in origin.__attrs_attrs__]
        example = top.get("example", dict, "a table of the fields of `[origin]`", None)
        if example is not None:
            try:
                origin(**example)
            except (ConfigurationError, TypeError) as error:
                top.wrong("example", str(error))
        run = run_rules(_needed(top, "run"), _needed(top, "statuses"))
        actions = action_rules(top.section("actions"))
        rules = cls(
            name=name,
            constants=constants,
            origin=origin,
            start=start_rules(start, fields),
            fetch=_template(_needed(top, "fetch"), ("id", "parent")),
            run=run,
            actions=actions,
            resume=resume_rules(top.section("resume")),
            cancel=cancel_rules(top.section("cancel")),
            listing=list_rules(top.section("list")),
            parent=parent_rules(top.section("parent"), fields),
            events=None if (events := top.section("events")) is None else _template(events, ("id", "parent")),
            error=pair(top.section("error"), "code", "message"),
            functions=_functions(top.section("functions")),
            guesses=_guesses(top.section("guesses"), source.path),
            example=example,
        )
        top.done()
        _check(rules, source)
        return rules


def _check(rules: Rules, source: Source) -> None:
    """Refuse what fits by itself and not together."""
    if rules.actions is None:
        for word, status in rules.run.statuses.items():
            if status is RunStatus.REQUIRES_ACTION:
                source.wrong(("statuses", word), "a run that requires action needs `[actions]`: what it waits for")
    if "parent" in rules.fetch.holes and rules.run.parent is None:
        source.wrong(("fetch", "request"), "`{parent}` needs `run.parent`: where a run names it")
    if "parent" in rules.fetch.holes and rules.start.id is not None and rules.start.parent is None:
        source.wrong(("start",), "`{parent}` of `fetch.request` needs `start.parent`, since the answer is no run")
    if rules.listing is not None and rules.listing.current and rules.actions is not None and rules.actions.request:
        source.wrong(("list", "current"), "rows do not show what a run waits for, which takes `actions.request`")
    if rules.parent is not None and rules.parent.request is None and "make_parent" not in rules.functions:
        source.wrong(("parent",), "it needs `request` and `id`, or `functions.make_parent`")
    if rules.parent is None and "make_parent" in rules.functions:
        source.wrong(("functions", "make_parent"), "it needs `parent.field`: the field of the origin that it fills")
    if rules.start.find is not None and rules.listing is None:
        source.wrong(("start", "find"), "a run is found in `[list]`, which is missing")


def _needed(top: Section, name: str) -> Section:
    found = top.section(name, needed=True)
    assert found is not None
    return found


def _template(section: Section, names: tuple[str, ...]) -> Template:
    template = Template.of(section, names)
    section.done()
    return template


def _functions(section: Section | None) -> Mapping[str, str]:
    if section is None:
        return {}
    found = {name: section.text(name) for name in FUNCTIONS if section.has(name)}
    section.done()
    return found


def _guesses(section: Section | None, path: str) -> tuple[Guess, ...]:
    found: list[Guess] = []
    for name in () if section is None else section.values:
        assert section is not None
        one = section.section(name)
        assert one is not None
        change = one.text("change", f"edit a copy of `{Path(path).name}`")
        found.append(Guess(name, one.text("taken"), one.text("why"), change))
        one.done()
    return tuple(found)
