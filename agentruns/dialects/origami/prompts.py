"""What agents are asked, and what they are answered: both are prompts, and each starts a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid4, uuid5

from attrs import Attribute, field, frozen
from attrs.validators import optional

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.run import Action, Run, ToolOutput
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError

from .admission import Intent, admit, readmit
from .objects import RunDetail
from .reading import CONTINUE
from .runs import agent_path

LONGEST_PROMPT: Final = 10_000
_LONGEST_NAME: Final = 80
_MOST_TABLES: Final = 50
_MOST_ATTACHMENTS: Final = 20
_VALID_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")

# What starts a run (reference/create-agent, reference/send-run) -------------------------------------------------------


def attached_document(document_id: str) -> Mapping[str, str]:
    """Return the attachment that puts a document before the agent."""
    return {"kind": "document", "documentId": document_id}


def attached_table(table_id: str) -> Mapping[str, str]:
    """Return the attachment that adds a table to those in focus."""
    return {"kind": "table", "tableId": table_id}


def _tuple(value: Sequence[Any]) -> tuple[Any, ...]:
    if isinstance(value, str | Mapping):
        raise ConfigurationError(f"{value!r} stands where a list is needed; put it into one")
    return tuple(value)


def _text(longest: int) -> Any:
    def validator(owner: object, attribute: Attribute[Any], value: Any) -> None:
        check.not_empty(owner, attribute, value)
        if len(value) > longest:
            raise ConfigurationError(
                f"Prompt.{attribute.name} has {len(value)} characters; it may have no more than {longest}"
            )

    return validator


def _no_more_than(most: int) -> Any:
    def validator(_: object, attribute: Attribute[Any], value: tuple[Any, ...]) -> None:
        if len(value) > most:
            raise ConfigurationError(f"Prompt.{attribute.name} has {len(value)} entries; it may have {most} at most")

    return validator


def _key(_: object, __: object, value: Any) -> None:
    if not isinstance(value, str) or not _VALID_KEY.fullmatch(value):
        raise ConfigurationError(
            f"Prompt.idempotency_key is {value!r}; it must be 1 to 255 printable ASCII characters without spaces",
            field="Prompt.idempotency_key",
            remedy="`str(uuid.uuid4())` makes one",
        )


@frozen
class Prompt:
    """
    What an agent is asked: a new agent, or with `agent_id` the one that exists, as the next turn of its conversation.

    `idempotency_key` makes it one intent: however often this value is started within 24 hours, the vendor starts one
    run. `busy_wait` is how many seconds to wait for a run that keeps the agent busy; without it, that is an error.
    """

    prompt: str = field(validator=_text(LONGEST_PROMPT))
    agent_id: str | None = field(default=None, kw_only=True, validator=optional(check.not_empty))
    name: str | None = field(default=None, kw_only=True, validator=optional(_text(_LONGEST_NAME)))
    model: str | None = field(default=None, kw_only=True, validator=optional(check.not_empty))
    focus_table_ids: Sequence[str] = field(
        default=(), kw_only=True, converter=_tuple, validator=_no_more_than(_MOST_TABLES)
    )
    attachments: Sequence[Mapping[str, str]] = field(
        default=(), kw_only=True, converter=_tuple, validator=_no_more_than(_MOST_ATTACHMENTS)
    )
    idempotency_key: str = field(factory=lambda: str(uuid4()), kw_only=True, validator=_key)
    busy_wait: float = field(default=0.0, kw_only=True, validator=check.not_negative)

    def __attrs_post_init__(self) -> None:
        if self.agent_id is not None and self.name is not None:
            raise ConfigurationError(
                "Prompt.name names a new agent; leave it out where agent_id says which one", field="Prompt.name"
            )


def start(origin: Prompt) -> Flow[Run[RunDetail]]:
    """
    Start a run: the first of a new agent, or the next of one that exists.

    Raise `ConflictError` for an agent that is busy, naming its run; `RateLimitedError` when there is no free slot for
    longer than `SLOT_SECONDS`; `OutcomeUnknownError`, naming what was found, when a 5xx may have started a run.
    """
    return (yield from admit(_intent(origin)))


def recover(origin: Prompt, note: Mapping[str, Any]) -> Flow[Run[RunDetail]]:
    """Go through with a start whose process died, under the keys that it has not used up."""
    return (yield from readmit(_intent(origin), note))


def _intent(origin: Prompt) -> Intent:
    lists = codec.to_jsonable({"focusTableIds": origin.focus_table_ids, "attachments": origin.attachments}, "Prompt")
    body = {
        **wire.drop_none({"prompt": origin.prompt, "name": origin.name, "model": origin.model}),
        **{name: value for name, value in lists.items() if value},
    }
    return Intent(body, origin.idempotency_key, origin.agent_id, origin.busy_wait)


# Answering ------------------------------------------------------------------------------------------------------------

_RESUMES: Final = UUID("b7b7a7d2-1f0e-5a63-9e0c-3a4d5f6e7081")


def resume(run: Run[RunDetail], outputs: Sequence[ToolOutput]) -> Flow[Run[RunDetail]]:
    """
    Answer a run by the next run of its agent, whose prompt is the answer.

    The key derives from the run that is answered, so two processes that give the same answer start one run between
    them. The model that ran is asked for again: a follow-up without one would run on the default of the plan.
    """
    prompt = _prompt(run, outputs)
    if len(prompt) > LONGEST_PROMPT:
        raise ConfigurationError(
            f"the answers to run {run.id} make a prompt of {len(prompt)} characters; it may have {LONGEST_PROMPT}"
        )
    agent_path(run.ref.parent)
    body = wire.drop_none({"prompt": prompt, "model": wire.first_text(run.raw, "model")})
    return (yield from admit(Intent(body, str(uuid5(_RESUMES, run.id)), run.ref.parent, answers=run.id)))


def _prompt(run: Run[RunDetail], outputs: Sequence[ToolOutput]) -> str:
    """Return one text that answers everything, the same whatever the order of *outputs*."""
    given = {output.action.id: output for output in outputs}
    missing = [action.id for action in run.actions if action.id not in given]
    if not run.actions or missing or len(given) < len(outputs):
        raise ConfigurationError(
            f"run {run.id} needs exactly one answer to each of its actions ({', '.join(missing) or 'all are there'}); "
            "a run that came from a list shows none: read it by `client.fetch(run)` first"
        )
    answers = [_answer(action, given[action.id]) for action in run.actions]
    if len(answers) == 1:
        return answers[0]
    return "\n".join(
        f"{number}) {action.arguments.get('question', '')} -> {_stopped(answer)}"
        for number, (action, answer) in enumerate(zip(run.actions, answers, strict=True), start=1)
    )


def _answer(action: Action, output: ToolOutput) -> str:
    value = output.output
    if action.name == CONTINUE and (value is None or value is True or value == ""):
        return "Continue."
    if isinstance(value, bool) and action.arguments.get("type") == "confirm":
        return "Confirm" if value else "No"
    text = (value if isinstance(value, str) else codec.encode(value).decode()).strip()
    if value is None or not text:
        raise ConfigurationError(
            f"the answer to {action.arguments.get('question', action.name)!r} is empty; return a text, or raise "
            "ToolError to say why there is none"
        )
    return f"No answer: {text}" if output.is_error and action.name != CONTINUE else text


def _stopped(answer: str) -> str:
    return answer if answer.endswith((".", "!", "?")) else f"{answer}."
