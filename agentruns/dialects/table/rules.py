"""What a table says, checked: each part of the TOML as a value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from agentruns._values.auth import Auth, Basic, Bearer, Header, NoAuth, Query
from agentruns._values.exchange import RateLimit
from agentruns._values.run import RunStatus
from agentruns.dialects.guesses import Guess
from agentruns.errors import ConfigurationError

from . import origins
from .expressions import Expression
from .source import Section, Source
from .templates import Template

FUNCTIONS: Final = (
    "start", "fetch", "resume", "resume_again", "resume_first", "answered_by", "recover", "cancel", "page",
    "list_parent", "parse_run", "error_status", "timing_group", "times", "events", "check_token", "detail", "example",
    "problem", "handler_names",
)  # fmt: skip
"""What a function may stand for."""

_LOOKS: Final = (1.0, 2.0, 5.0, 10.0)


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
    """How a run is answered or cancelled, and whether the answer is a run; `answer` is one of a list of answers."""

    request: Template
    returns: str
    answer: Any = None


@frozen
class ListRules:
    """How runs are listed; the next page is named by a cursor, a link, or its offset."""

    request: Template
    runs: Expression
    cursor: Expression | None
    link: Expression | None
    page_size: int | None
    current: bool


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
        constants = _constants(top, name)
        start = _needed(top, "start")
        repeats = start.values.get("idempotent") is True
        origin = origins.make(_needed(top, "origin"), minted_anew=repeats)
        fields = [each.name for each in origin.__attrs_attrs__]
        example = top.get("example", dict, "a table of the fields of `[origin]`", None)
        if example is not None:
            try:
                origin(**example)
            except (ConfigurationError, TypeError) as error:
                top.wrong("example", str(error))
        run = _run(_needed(top, "run"), _needed(top, "statuses"))
        actions = _actions(top.section("actions"))
        rules = cls(
            name=name,
            constants=constants,
            origin=origin,
            start=_start(start, fields),
            fetch=_template(_needed(top, "fetch"), ("id", "parent")),
            run=run,
            actions=actions,
            resume=_resume(top.section("resume")),
            cancel=_cancel(top.section("cancel")),
            listing=_list(top.section("list")),
            events=None if (events := top.section("events")) is None else _template(events, ("id", "parent")),
            error=_pair(top.section("error"), "code", "message"),
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
    if rules.start.find is not None and rules.listing is None:
        source.wrong(("start", "find"), "a run is found in `[list]`, which is missing")


def _needed(top: Section, name: str) -> Section:
    found = top.section(name, needed=True)
    assert found is not None
    return found


def _constants(top: Section, name: str) -> Mapping[str, Any]:
    stem = "".join(each if each.isalnum() else "_" for each in name).upper()
    auth = _auth(top)
    budget = top.section("budget")
    limit = None
    if budget is not None:
        requests = budget.get("requests", int, "a whole number above zero")
        seconds = budget.seconds("seconds", 1.0)
        if requests <= 0:
            budget.wrong("requests", f"it is {requests!r}; it must be a whole number above zero")
        budget.done()
        limit = RateLimit(requests, seconds or 1.0)
    base_url = top.get("base_url", str, "a URL, or empty where each deployment has its own")
    if base_url and not base_url.startswith(("https://", "http://")):
        top.wrong("base_url", f"it is {base_url!r}; it must begin with https://")
    made: dict[str, Any] = {
        "NAME": name,
        "BASE_URL": base_url,
        "TOKEN_VARIABLE": top.text("token_variable", "" if isinstance(auth, NoAuth) else f"{stem}_TOKEN"),
        "BASE_URL_VARIABLE": top.text("base_url_variable", f"{stem}_BASE_URL"),
        "BUDGET": limit,
        "AUTH": auth,
        "DEFAULT_HEADERS": _texts(top, "headers"),
        "DEFAULT_PARAMS": _texts(top, "params"),
    }
    optional = {
        "POLL_SECONDS": top.numbers("poll_seconds", count=2),
        "RUN_SECONDS": top.seconds("run_seconds"),
        "KEY_SECONDS": top.seconds("key_seconds"),
    }
    return {**made, **{key: value for key, value in optional.items() if value is not None}}


def _texts(top: Section, name: str) -> Mapping[str, str]:
    given = top.get(name, dict, "a table of texts", {})
    for key, value in given.items():
        if not isinstance(value, str):
            top.wrong(name, f"{key} is {value!r}; it must be a text")
    return dict(given)


def _auth(top: Section) -> Auth:
    given = top.get("auth", (str, dict), '"bearer", "none", or a table such as {{ header = "x-api-key" }}', "bearer")
    if given == "bearer":
        return Bearer()
    if given == "none":
        return NoAuth()
    if isinstance(given, str):
        top.wrong("auth", f'it is {given!r}; it must be "bearer", "none", or such as {{ header = "x-api-key" }}')
    section = Section(top.source, (*top.key, "auth"), given)
    optional = section.flag("optional", default=False)
    kinds = [each for each in ("bearer", "header", "query", "basic") if section.has(each)]
    if len(kinds) != 1:
        section.has("prefix")
        section.done()
        top.wrong("auth", "it must have one of `bearer = true`, `header`, `query` and `basic`")
    try:
        made: Auth
        if kinds == ["header"]:
            made = Header(section.text("header"), prefix=section.text("prefix", ""), optional=optional)
        elif kinds == ["query"]:
            made = Query(section.text("query"), optional=optional)
        elif kinds == ["basic"]:
            made = Basic(
                section.get("basic", str, "the user, or empty: the token is user:password") or None, optional=optional
            )
        else:
            if not section.flag("bearer", default=True):
                section.wrong("bearer", "it can be `true` only")
            made = Bearer(optional=optional)
    except ConfigurationError as error:
        section.wrong(kinds[0], str(error))
    section.done()
    return made


def _template(section: Section, names: tuple[str, ...]) -> Template:
    template = Template.of(section, names)
    section.done()
    return template


def _pair(section: Section | None, first: str, second: str) -> tuple[Expression | None, Expression | None]:
    if section is None:
        return None, None
    found = Expression.of(section, first), Expression.of(section, second)
    section.done()
    return found


def _run(section: Section, words: Section) -> RunRules:
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
        failure=_pair(section.section("failure"), "type", "message"),
        usage=_pair(section.section("usage"), "input_tokens", "output_tokens"),
        progress=_pair(section.section("progress"), "done", "limit"),
        times=_pair(section.section("times"), "began", "ended"),
        statuses=statuses,
    )
    section.done()
    return rules


def _actions(section: Section | None) -> ActionRules | None:
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


def _start(section: Section, fields: list[str]) -> StartRules:
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


def _find(section: Section, fields: list[str]) -> FindRules:
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


def _resume(section: Section | None) -> PostRules | None:
    if section is None:
        return None
    answer = section.get("answer", (dict, list, str), "what one answer is", None)
    names = ("id", "parent", *(_ANSWER if answer is None else ("answers",)))
    if answer is not None:
        one = Section(section.source, section.key, {"request": "POST /", "body": {"answer": answer}})
        Template.of(one, _ANSWER)
    rules = PostRules(Template.of(section, names), section.choice("returns", ("run", "nothing"), "run"), answer)
    section.done()
    return rules


def _cancel(section: Section | None) -> PostRules | None:
    if section is None:
        return None
    rules = PostRules(Template.of(section, ("id", "parent")), section.choice("returns", ("run", "nothing"), "run"))
    section.done()
    return rules


def _list(section: Section | None) -> ListRules | None:
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
