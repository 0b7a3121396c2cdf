"""
How a run is shown to people, in the console say: values of plain text that a dialect makes, and no page knows a vendor.

`show_question(action)` of a dialect says what an action asks and how it may be answered, `show_steps(run)` what a run
did, `show_artifacts(run)` what it found or proposes. `read_trace(run)` and `read_tools(run)` are flows that ask the
vendor for more. Without them a run is shown by its JSON: see `steps_in`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import field, frozen

from agentruns._values.run import Action, Run

from .wire import mapping, objects

TEXT: Final[Mapping[str, Any]] = {"type": "string", "maxLength": 4000}
"""The schema of a text that a person writes."""

DEEPEST: Final = 20
"""How many levels of steps within steps are shown."""

_LISTS: Final = (
    "steps",
    "messages",
    "transcript",
    "tool_trace",
    "tool_calls",
    "toolCalls",
    "actions",
    "events",
    "logs",
)
_WITHIN: Final = ("response", "result", "data", "output")
_NAMES: Final = ("label", "title", "name", "tool", "event")
_TEXTS: Final = ("text", "content", "message", "summary")
_KINDS: Final = ("role", "type", "kind")


@frozen
class Fact:
    """A name and a value, as people read them; `is_block` asks for lines of its own."""

    name: str
    value: str
    help: str = ""
    is_block: bool = False


@frozen
class Link:
    """Where a finding comes from; `url` is empty unless a browser may follow it."""

    name: str
    url: str
    kind: str


@frozen
class Artifact:
    """A finding or a change that an agent proposes."""

    title: str
    type: str = ""
    confidence: str = ""
    summary: str = ""
    sources: tuple[Link, ...] = ()
    facts: tuple[Fact, ...] = ()


@frozen
class Proposal:
    """What one agent proposes: its words, and its artifacts."""

    agent: str
    label: str
    artifacts: tuple[Artifact, ...]


@frozen
class Step:
    """
    One thing that a run did or said: a message, a tool that it used, a change that it made.

    `kind` is a word for it such as "answered", or the role of who speaks; `level` counts the steps that it is part of.
    """

    name: str
    facts: tuple[Fact, ...] = ()
    text: str = ""
    kind: str = ""
    level: int = 0


@frozen
class Tool:
    """What is known of a tool: the schemas of what it is called with, and of what it answers."""

    description: str = ""
    arguments: Mapping[str, Any] = field(factory=dict)
    answer: Mapping[str, Any] | None = None


@frozen
class Answer:
    """What is sent for an action; with `is_error`, why there is no answer."""

    output: Any
    is_error: bool = False


@frozen(kw_only=True)
class Input:
    """What is to be filled in for an answer, by a JSON Schema; `name` is that of its field in the form."""

    name: str
    label: str
    schema: Mapping[str, Any] = TEXT
    is_required: bool = True


@frozen(kw_only=True)
class Choice:
    """
    One way to answer: a word to choose, what must then be filled in, and what of that is sent.

    `give` is passed the value of `input`, or None without one. A `ValueError` of it is told beside the field.
    """

    value: str
    label: str
    help: str = ""
    input: Input | None = None
    give: Callable[[Any], Answer]


@frozen(kw_only=True)
class Question:
    """What an action asks of a person, and the ways to answer; `chosen` is the value of the choice that is made."""

    title: str
    text: str = ""
    facts: tuple[Fact, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    choices: tuple[Choice, ...]
    chosen: str = ""


def always(output: Any) -> Callable[[Any], Answer]:
    """Return the `give` of a choice that always sends the same."""
    return lambda _: Answer(output)


def refusal(label: str, help_: str) -> Choice:
    """Return the choice to give no answer, and a reason instead."""
    reason = Input(name="reason", label="Reason")
    return Choice(
        value="refuse", label=label, help=help_, input=reason, give=lambda given: Answer(given, is_error=True)
    )


def open_question(action: Action, refused: str) -> Question:
    """Return what asks for any answer, as text or as JSON; *refused* says who is told why there is none."""
    return Question(
        title=words(action.name),
        facts=facts(action.arguments),
        choices=(
            Choice(value="answer", label="Answer", input=Input(name="answer", label="Answer"), give=Answer),
            Choice(
                value="json", label="Answer in JSON", input=Input(name="json", label="JSON", schema={}), give=Answer
            ),
            refusal("Give no answer", refused),
        ),
    )


# Text -----------------------------------------------------------------------------------------------------------------


def text_of(value: Any) -> str:
    """Return a JSON value as text: texts as they are, none for none, other JSON with a line for each part."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def phrase(value: Any) -> str:
    """Return a JSON value as people write it: texts as they are, yes and no, lists of them with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and value and all(isinstance(each, str | int | float) for each in value):
        return ", ".join(str(each) for each in value)
    return text_of(value)


def words(name: str) -> str:
    """Return a name of code as words."""
    return name.replace("_", " ")


def facts(values: Mapping[str, Any], properties: Mapping[str, Any] | None = None) -> tuple[Fact, ...]:
    """Return the fields of an object as facts, by the titles and descriptions of a schema's *properties*."""
    return tuple(_fact(name, value, mapping((properties or {}).get(name))) for name, value in values.items())


def _fact(name: str, value: Any, schema: Mapping[str, Any]) -> Fact:
    text = phrase(value)
    return Fact(
        phrase(schema.get("title")) or words(name),
        text,
        phrase(schema.get("description")),
        is_block=not isinstance(value, str | bool | int | float) and "\n" in text,
    )


def verbatim(value: Mapping[str, Any], names: Iterable[str]) -> tuple[Fact, ...]:
    """Return the fields of those *names* that are not empty, under the vendor's own names and in its own form."""
    texts = ((name, text_of(value.get(name))) for name in names)
    return tuple(Fact(name, text, is_block="\n" in text) for name, text in texts if text)


def link(name: Any, url: Any, kind: str = "") -> Link:
    """Return a link that a browser may follow only if it leads to the web: not `javascript:`, say."""
    text = phrase(url)
    return Link(phrase(name) or text, text if _is_web(text) else "", kind)


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


# Any vendor -----------------------------------------------------------------------------------------------------------


def steps_in(run: Run) -> tuple[Step, ...]:
    """
    Return what the JSON of a run of any vendor tells of how it came about.

    That is the list of its steps, messages or tool calls, by the names that vendors give it; without one, its fields.
    """
    raw = run.raw
    for place in (raw, *(mapping(raw.get(name)) for name in _WITHIN)):
        for name in _LISTS:
            steps = tuple(_steps(place.get(name), name, 0))
            if steps:
                return steps
    told = verbatim(raw, raw)
    return (Step(run.vendor_status, told),) if told else ()


def _steps(values: Any, list_name: str, level: int) -> Iterator[Step]:
    for each in objects(values):
        called, text, kind = (_first(each, names) for names in (_NAMES, _TEXTS, _KINDS))
        inner = each.get(list_name)
        deeper = level < DEEPEST and bool(objects(inner))
        taken = {name for name, _ in (called, text, kind)} | ({list_name} if deeper else set())
        rest = verbatim(each, (name for name in each if name not in taken))
        yield Step(called[1], rest, text[1], kind[1], min(level, 3))
        if deeper:
            yield from _steps(inner, list_name, level + 1)


def _first(value: Mapping[str, Any], names: Sequence[str]) -> tuple[str, str]:
    """Return the first of the *names* that has a text, and that text."""
    found = ((name, value[name]) for name in names if isinstance(value.get(name), str) and value[name])
    return next(found, ("", ""))
