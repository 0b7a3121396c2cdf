"""The forms for what a run asks: the questions of a dialect, or for any vendor those of a tool call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import evolve, frozen

from agentruns._values.run import Action
from agentruns.dialects.show import TEXT, Answer, Choice, Fact, Proposal, Question, Tool, facts, refusal
from agentruns.dialects.vendor import Vendor
from agentruns.dialects.wire import mapping
from agentruns.errors import AgentRunsError, ConfigurationError

from .forms import Field, Form, Path, Posted, json_of

logger = logging.getLogger("agentruns")


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


def ask(vendor: Vendor | None, action: Action, prefix: str, tool: Tool | None = None) -> Ask:
    """
    Return what *action* asks; the names of its fields begin with *prefix*.

    It is what the dialect of *vendor* says, else a form for the result of a tool call.
    """
    question = question_of(vendor, action)
    made = None if question is None else _asked(question, action, prefix)
    return made or _blank(_call(action, prefix, tool or Tool()))


def question_of(vendor: Vendor | None, action: Action) -> Question | None:
    """Return what *vendor* says that an action asks; None if it says nothing, or, with a warning, nothing usable."""
    if vendor is None or vendor.show_question is None:
        return None
    try:
        question = vendor.call("show_question", action)
    except AgentRunsError as error:
        logger.warning("%s", error)
        return None
    if isinstance(question, Question):
        return question
    logger.warning("%s.show_question returned a %s, which is no Question", vendor.NAME, type(question).__name__)
    return None


def _asked(question: Question, action: Action, prefix: str) -> Ask | None:
    """Return the forms of a question, None, with a warning, if they cannot be made."""
    try:
        options = tuple(_option(each, prefix) for each in question.choices)
    except ConfigurationError as error:
        logger.warning("what is asked for %s is not shown as its dialect says: %s", action.name, error)
        return None
    made = Ask(
        action=action,
        prefix=prefix,
        title=question.title,
        text=question.text,
        facts=question.facts,
        proposals=question.proposals,
        options=options,
        chosen=question.chosen,
    )
    return _blank(made)


def _option(choice: Choice, prefix: str) -> Option:
    """Return a choice with its form; raise `ConfigurationError` for a schema that is none."""
    given = choice.input
    form = None if given is None else Form(given.schema, prefix + given.name, given.label, required=given.is_required)
    return Option(value=choice.value, label=choice.label, help=choice.help, form=form, give=choice.give)


def _blank(made: Ask) -> Ask:
    options = tuple(each if each.form is None else evolve(each, field=each.form.blank()) for each in made.options)
    return evolve(made, options=options)


def _has_error(shown: Field) -> bool:
    return bool(shown.error) or any(_has_error(each) for each in shown.fields)


# Any vendor: a tool call ----------------------------------------------------------------------------------------------


def _call(action: Action, prefix: str, tool: Tool) -> Ask:
    return Ask(
        action=action,
        prefix=prefix,
        title=action.name,
        text=tool.description,
        facts=facts(action.arguments, mapping(tool.arguments.get("properties"))),
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
            form=Form(TEXT, f"{prefix}note", "Note", required=False),
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
    yield _option(refusal("Refuse", "The agent is told why, and may go on without it."), prefix)


def _form_of(schema: Mapping[str, Any] | None, prefix: str, label: str, *value: Any) -> Form | None:
    """Return the form of a tool's schema, None where there is nothing to fill in, or what is declared is no schema."""
    if not schema or (schema.get("type") == "object" and not schema.get("properties")):
        return None
    try:
        return Form(schema, prefix, label, **({"value": value[0]} if value else {}))
    except ConfigurationError:
        return None


def _json_or_text(text: str) -> Any:
    if text.lstrip()[:1] in {"{", "["} or text.strip() in {"true", "false", "null"}:
        return json_of(text)
    return text
