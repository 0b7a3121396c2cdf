"""What an action asks of a person, in the vendor's shapes, and what the answer is that a person gives by a form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from agentruns._values.run import Action
from agentruns.errors import ConfigurationError

from .forms import Field, Form, Path, Posted, json_of

_TEXT: Final[Mapping[str, Any]] = {"type": "string", "maxLength": 4000}


@frozen
class Answer:
    """What is sent for an action; with `is_error`, why there is no answer."""

    output: Any
    is_error: bool = False


@frozen
class Tool:
    """What is known of a tool: the schemas of what it is called with, and of what it answers."""

    description: str = ""
    arguments: Mapping[str, Any] = field(factory=dict)
    answer: Mapping[str, Any] | None = None


@frozen
class Fact:
    """A name and a value, as people read them; `is_block` asks for lines of its own."""

    name: str
    value: str
    help: str = ""
    is_block: bool = False


@frozen
class Source:
    """Where a finding comes from; `url` is empty unless a browser may follow it."""

    name: str
    url: str
    kind: str


@frozen
class Artifact:
    """A finding or a change that an agent proposes."""

    title: str
    type: str
    confidence: str
    summary: str
    sources: tuple[Source, ...]
    facts: tuple[Fact, ...]


@frozen
class Proposal:
    """What one agent proposes: its words, and its artifacts."""

    agent: str
    label: str
    artifacts: tuple[Artifact, ...]


@frozen(kw_only=True)
class Option:
    """
    One way to answer: a word to choose, what must then be filled in, and what of that is sent.

    `field` is that form as it is shown: blank, or as it was posted.
    """

    value: str
    label: str
    help: str = ""
    form: Form | None = None
    field: Field | None = None
    give: Callable[[Any], Answer]


@frozen(kw_only=True)
class Ask:
    """One action, as it is shown: what it is about, and how it may be answered. `chosen` is an option's value."""

    action: Action
    prefix: str
    title: str
    text: str = ""
    facts: tuple[Fact, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    options: tuple[Option, ...]
    chosen: str = ""
    error: str = ""

    @property
    def how(self) -> str:
        """Return the name of the field that says which option is chosen."""
        return f"{self.prefix}how"

    def read(self, posted: Posted) -> Answer | Ask:
        """Return the answer that was posted, or what was posted with its errors, to be shown again."""
        chosen = (posted.get(self.how) or ("",))[-1]
        option = next((each for each in self.options if each.value == chosen), None)
        if option is None:
            return evolve(self.filled(posted, {}), error="Choose an answer.")
        if option.form is None:
            return option.give(None)
        value, errors = option.form.read(posted)
        if not errors:
            try:
                return option.give(value)
            except ValueError as error:
                errors = {(): str(error)}
        return self.filled(posted, errors)

    def filled(self, posted: Posted, errors: Mapping[Path, str]) -> Ask:
        """Return the same with what was posted; the errors are those of the option that was chosen."""
        chosen = (posted.get(self.how) or ("",))[-1]
        options = tuple(
            each
            if each.form is None
            else evolve(each, field=each.form.filled(posted, errors if each.value == chosen else {}))
            for each in self.options
        )
        return evolve(self, options=options, chosen=chosen)

    @property
    def has_errors(self) -> bool:
        """Tell whether something must be corrected."""
        return bool(self.error) or any(_has_error(each.field) for each in self.options if each.field is not None)


def ask(vendor: str, action: Action, prefix: str, tool: Tool | None = None) -> Ask:
    """Return what *action* asks; the names of its fields begin with *prefix*."""
    made = _ASKS.get(vendor, _call)(action, prefix, tool or Tool())
    options = tuple(each if each.form is None else evolve(each, field=each.form.blank()) for each in made.options)
    return evolve(made, options=options)


def _has_error(shown: Field) -> bool:
    return bool(shown.error) or any(_has_error(each) for each in shown.fields)


# Narrative: a tool call -----------------------------------------------------------------------------------------------


def _call(action: Action, prefix: str, tool: Tool) -> Ask:
    properties = tool.arguments.get("properties")
    return Ask(
        action=action,
        prefix=prefix,
        title=action.name,
        text=tool.description,
        facts=tuple(_facts(action.arguments, properties if isinstance(properties, Mapping) else {})),
        options=tuple(_ways_to_answer(action, prefix, tool)),
        chosen="answer" if _form_of(tool.answer, prefix, "Answer") is not None else "",
    )


def _ways_to_answer(action: Action, prefix: str, tool: Tool) -> Iterator[Option]:
    """
    Yield how a tool call may be answered.

    Where the schema of its answer is known, by that; else by yes, by yes with other arguments, or by whatever the
    program would have returned.
    """
    answer = _form_of(tool.answer, f"{prefix}answer", "Answer")
    if answer is not None:
        yield Option(value="answer", label="Answer", form=answer, give=Answer)
    else:
        yield Option(
            value="approve",
            label="Approve",
            form=Form(_TEXT, f"{prefix}note", "Note", required=False),
            give=lambda note: Answer({"approved": True, **({"note": note} if note else {})}),
        )
        changed = _form_of(tool.arguments, f"{prefix}arguments", "Arguments", action.arguments)
        if changed is not None:
            yield Option(
                value="change",
                label="Approve with changes",
                help="The agent is told which arguments you approve instead of its own.",
                form=changed,
                give=lambda arguments: Answer({"approved": True, "arguments": arguments}),
            )
        yield Option(
            value="other",
            label="Answer something else",
            help="Text, or JSON: what the tool would have returned.",
            form=Form({"type": "string", "maxLength": 100_000}, f"{prefix}other", "Answer"),
            give=lambda text: Answer(_json_or_text(text)),
        )
    yield _refusal(prefix, "Refuse", "The agent is told why, and may go on without it.")


def _form_of(schema: Mapping[str, Any] | None, prefix: str, label: str, *value: Any) -> Form | None:
    """Return the form of a tool's schema, None where there is nothing to fill in, or what is declared is no schema."""
    if not schema or (schema.get("type") == "object" and not schema.get("properties")):
        return None
    try:
        return Form(schema, prefix, label, **({"value": value[0]} if value else {}))
    except ConfigurationError:
        return None


def _refusal(prefix: str, label: str, help_: str) -> Option:
    return Option(
        value="refuse",
        label=label,
        help=help_,
        form=Form(_TEXT, f"{prefix}reason", "Reason"),
        give=lambda reason: Answer(reason, is_error=True),
    )


def _json_or_text(text: str) -> Any:
    if text.lstrip()[:1] in {"{", "["} or text.strip() in {"true", "false", "null"}:
        return json_of(text)
    return text


# Origami: a question --------------------------------------------------------------------------------------------------


def _question(action: Action, prefix: str, _: Tool) -> Ask:
    if action.name == "continue":
        return _stopped(action, prefix)
    suggested = action.arguments.get("suggestedAnswers")
    answers = [each for each in suggested if isinstance(each, str)] if isinstance(suggested, list) else []
    options = [Option(value=f"answer-{place}", label=each, give=_always(each)) for place, each in enumerate(answers)]
    options.append(
        Option(
            value="other",
            label="Something else" if answers else "Answer",
            form=Form(_TEXT, f"{prefix}other", "Your answer"),
            give=Answer,
        )
    )
    options.append(_refusal(prefix, "No answer", "The agent is told why, and goes on without it."))
    return Ask(
        action=action,
        prefix=prefix,
        title=_shown(action.arguments.get("question")) or "The agent asks",
        options=tuple(options),
        chosen="" if answers else "other",
    )


def _stopped(action: Action, prefix: str) -> Ask:
    """Ask whether a run that ended before it was done shall go on."""
    return Ask(
        action=action,
        prefix=prefix,
        title="The agent stopped before it was done",
        text=_shown(action.arguments.get("text")),
        facts=(Fact("status", _shown(action.arguments.get("status"))),),
        options=(
            Option(value="continue", label="Continue", give=_always(True)),
            Option(
                value="other",
                label="Say something else",
                form=Form(_TEXT, f"{prefix}other", "What it shall do"),
                give=Answer,
            ),
        ),
    )


def _always(output: Any) -> Callable[[Any], Answer]:
    return lambda _: Answer(output)


# Middesk: an interrupt ------------------------------------------------------------------------------------------------


def _interrupt(action: Action, prefix: str, _: Tool) -> Ask:
    value = action.arguments
    wrapped = value.get("proposals")
    inner = [each for each in wrapped if isinstance(each, Mapping)] if isinstance(wrapped, list) else [value]
    proposals = tuple(_proposal(each) for each in inner)
    known = {"agent", "label", "artifacts", "proposals", "type"}
    alone = proposals[0] if len(proposals) == 1 else None
    return Ask(
        action=action,
        prefix=prefix,
        title=(alone.label if alone else "") or _shown(value.get("label")) or _words(action.name),
        text=f"Asked by {_words(alone.agent or action.name)}." if alone else f"{len(proposals)} proposals together.",
        facts=tuple(_facts({name: each for name, each in value.items() if name not in known}, {})),
        proposals=proposals,
        options=(
            Option(
                value="approve",
                label="Approve",
                form=Form(_TEXT, f"{prefix}note", "Note", required=False),
                give=lambda note: Answer({"decision": "approve", **({"note": note} if note else {})}),
            ),
            Option(
                value="reject",
                label="Reject",
                form=Form(_TEXT, f"{prefix}reason", "Reason"),
                give=lambda reason: Answer({"decision": "reject", "note": reason}),
            ),
            Option(
                value="other",
                label="Answer something else",
                help="JSON, in the shape that the agent expects: no page of the vendor says which.",
                form=Form({}, f"{prefix}other", "Answer"),
                give=Answer,
            ),
        ),
    )


def _proposal(value: Mapping[str, Any]) -> Proposal:
    artifacts = value.get("artifacts")
    return Proposal(
        _shown(value.get("agent")),
        _shown(value.get("label")),
        artifacts_of(artifacts if isinstance(artifacts, list) else ()),
    )


def artifacts_of(values: Sequence[Any]) -> tuple[Artifact, ...]:
    """Return artifacts as people read them, whatever is missing of them."""
    return tuple(_artifact(each) for each in values if isinstance(each, Mapping))


def _artifact(value: Mapping[str, Any]) -> Artifact:
    known = {"title", "type", "confidence", "summary", "sources", "id"}
    sources = value.get("sources")
    return Artifact(
        title=_shown(value.get("title")) or "Untitled",
        type=_words(_shown(value.get("type"))),
        confidence=_shown(value.get("confidence")),
        summary=_shown(value.get("summary")),
        sources=tuple(
            _source(each) for each in (sources if isinstance(sources, list) else ()) if isinstance(each, Mapping)
        ),
        facts=tuple(_facts({name: each for name, each in value.items() if name not in known}, {})),
    )


def _source(value: Mapping[str, Any]) -> Source:
    url = _shown(value.get("url"))
    kind = ", ".join(_words(_shown(value.get(name))) for name in ("source_tier", "source_type") if value.get(name))
    return Source(_shown(value.get("source_name")) or url, url if _is_web(url) else "", kind)


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


# ----------------------------------------------------------------------------------------------------------------------


def _facts(values: Mapping[str, Any], properties: Mapping[str, Any]) -> Iterator[Fact]:
    for name, value in values.items():
        known = properties.get(name)
        schema = known if isinstance(known, Mapping) else {}
        text = _shown(value)
        yield Fact(
            _shown(schema.get("title")) or _words(name),
            text,
            _shown(schema.get("description")),
            is_block=not isinstance(value, str | bool | int | float) and "\n" in text,
        )


def _shown(value: Any) -> str:
    """Return a JSON value as text: texts as they are, none for none."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and value and all(isinstance(each, str | int | float) for each in value):
        return ", ".join(str(each) for each in value)
    return json.dumps(value, ensure_ascii=False, indent=2)


def _words(name: str) -> str:
    return name.replace("_", " ")


_ASKS: Final[Mapping[str, Callable[[Action, str, Tool], Ask]]] = {
    "narrative": _call,
    "origami": _question,
    "middesk": _interrupt,
}
