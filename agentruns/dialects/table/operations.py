"""The operations of a table: how a run is started, answered, cancelled and listed, and its parent made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from .expressions import Expression
from .source import Section
from .templates import Template

_LOOKS: Final = (1.0, 2.0, 5.0, 10.0)


@frozen
class FindRules:
    """How the run of a start whose answer got lost is found: by a field of ours, at a place of the rows of the list."""

    field: str
    at: Expression
    params: Mapping[str, Any]
    looks: tuple[float, ...]


@frozen
class StartRules:
    """How a run is started; with `id`, the answer names the run and is none."""

    request: Template
    id: Expression | None
    parent: Expression | None
    find: FindRules | None


@frozen
class PostRules:
    """
    How a run is answered or cancelled, and whether the answer is a run; `answer` is one of a list of answers.

    `lost` is what becomes of an answer whose reply got lost, once the run waits for it no more: "ours" or "unknown".
    """

    request: Template
    returns: str
    answer: Any = None
    lost: str = "unknown"


@frozen
class ParentRules:
    """What runs begin in: the field of the origin that names it, and how one is made from a file."""

    field: str
    name: str
    request: Template | None
    id: Expression | None


@frozen
class ListRules:
    """How runs are listed; the next page is named by a cursor, a link, or its offset."""

    request: Template
    runs: Expression
    cursor: Expression | None
    link: Expression | None
    page_size: int | None
    current: bool


def start_rules(section: Section, fields: Sequence[str]) -> StartRules:
    """Return what `[start]` says; *fields* are those of the origin."""
    request = Template.of(section, fields)
    find = section.section("find")
    rules = StartRules(
        request=request,
        id=Expression.of(section, "id"),
        parent=Expression.of(section, "parent"),
        find=None if find is None else _find(find, fields),
    )
    if rules.find is not None and request.idempotent:
        section.wrong("find", "a start that is idempotent is sent again, and need not be found")
    section.done()
    return rules


def _find(section: Section, fields: Sequence[str]) -> FindRules:
    looks = section.numbers("looks", list(_LOOKS))
    assert looks is not None
    holes = Section(section.source, section.key, {"request": "GET /", "params": section.values.get("params", {})})
    Template.of(holes, fields)
    rules = FindRules(
        field=section.choice("field", fields),
        at=Expression.needed(section, "at"),
        params=section.get("params", dict, "a table", {}),
        looks=looks,
    )
    section.done()
    return rules


_ANSWER: Final = ("output", "output_text", "action_id", "action_name", "is_error")


def resume_rules(section: Section | None) -> PostRules | None:
    """Return what `[resume]` says."""
    if section is None:
        return None
    answer = section.get("answer", (dict, list, str), "what one answer is", None)
    names = ("id", "parent", *(_ANSWER if answer is None else ("answers",)))
    if answer is not None:
        one = Section(section.source, section.key, {"request": "POST /", "body": {"answer": answer}})
        Template.of(one, _ANSWER)
    rules = PostRules(
        request=Template.of(section, names),
        returns=section.choice("returns", ("run", "nothing"), "run"),
        answer=answer,
        lost=section.choice("lost", ("unknown", "ours"), "unknown"),
    )
    section.done()
    return rules


def cancel_rules(section: Section | None) -> PostRules | None:
    """Return what `[cancel]` says."""
    if section is None:
        return None
    rules = PostRules(Template.of(section, ("id", "parent")), section.choice("returns", ("run", "nothing"), "run"))
    section.done()
    return rules


def parent_rules(section: Section | None, fields: Sequence[str]) -> ParentRules | None:
    """Return what `[parent]` says; *fields* are those of the origin."""
    if section is None:
        return None
    request = Template.of(section, ("file",)) if section.has("request") else None
    rules = ParentRules(
        field=section.choice("field", fields),
        name=section.text("name", "parent"),
        request=request,
        id=None if request is None else Expression.needed(section, "id"),
    )
    section.done()
    return rules


def list_rules(section: Section | None) -> ListRules | None:
    """Return what `[list]` says."""
    if section is None:
        return None
    size = section.get("page_size", int, "a whole number above zero", None)
    if size is not None and size <= 0:
        section.wrong("page_size", f"it is {size!r}; it must be a whole number above zero")
    rules = ListRules(
        request=Template.of(section, ("parent", "cursor")),
        runs=Expression.needed(section, "runs"),
        cursor=Expression.of(section, "cursor"),
        link=Expression.of(section, "link"),
        page_size=size,
        current=section.flag("current", default=False),
    )
    if sum(each is not None for each in (rules.cursor, rules.link, rules.page_size)) > 1:
        section.wrong("", "only one of `cursor`, `link` and `page_size` can name the next page")
    if (rules.cursor or rules.page_size) and "cursor" not in rules.request.holes:
        section.wrong("request", "`{cursor}` must stand in its path or `params`: it names the next page")
    section.done()
    return rules
