"""What agents are asked: a prompt, which starts a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from attrs import Attribute, field, frozen
from attrs.validators import optional

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.minted import MINTED
from agentruns._values.run import Run, RunStatus
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError

from .admission import Intent, admit, readmit
from .objects import RunDetail
from .reading import STATUS

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
    _is_key(value)


def _is_key(value: Any) -> str:
    if not isinstance(value, str) or not _VALID_KEY.fullmatch(value):
        raise ConfigurationError(
            f"Prompt.idempotency_key is {value!r}; it must be 1 to 255 printable ASCII characters without spaces",
            field="Prompt.idempotency_key",
            remedy="`str(uuid.uuid4())` makes one",
        )
    return value


@frozen
class Prompt:
    """
    What an agent is asked: a new agent, or with `agent_id` the one that exists, as the next turn of its conversation.

    `idempotency_key` makes it one intent: however often this value is started within 24 hours, the vendor starts one
    run. `busy_wait` is how many seconds to wait for a run that keeps the agent busy; without it, that is an error.
    `workspace_id` names the container of a new agent, which is deprecated since July 2026.
    """

    prompt: str = field(validator=_text(LONGEST_PROMPT), metadata={"help": "what the agent is asked"})
    agent_id: str | None = field(
        default=None,
        kw_only=True,
        validator=optional(check.not_empty),
        metadata={"help": "id of an agent that exists; a new one if left out"},
    )
    name: str | None = field(
        default=None, kw_only=True, validator=optional(_text(_LONGEST_NAME)), metadata={"help": "name of a new agent"}
    )
    workspace_id: str | None = field(
        default=None,
        kw_only=True,
        validator=optional(check.not_empty),
        metadata={"help": "id of the container of a new agent (deprecated)"},
    )
    model: str | None = field(
        default=None,
        kw_only=True,
        validator=optional(check.not_empty),
        metadata={"help": "model that the agent uses"},
    )
    focus_table_ids: Sequence[str] = field(
        default=(),
        kw_only=True,
        converter=_tuple,
        validator=_no_more_than(_MOST_TABLES),
        metadata={"help": "ids of the tables to look at"},
    )
    attachments: Sequence[Mapping[str, str]] = field(
        default=(),
        kw_only=True,
        converter=_tuple,
        validator=_no_more_than(_MOST_ATTACHMENTS),
        metadata={"help": "files that go with the prompt"},
    )
    idempotency_key: str = field(
        factory=lambda: str(uuid4()),
        kw_only=True,
        metadata={**MINTED, "help": "key that makes repeated starts one run; a new one if left out"},
        validator=_key,
    )
    busy_wait: float = field(
        default=0.0,
        kw_only=True,
        validator=check.not_negative,
        metadata={"help": "seconds to wait for an agent that is busy"},
    )

    def __attrs_post_init__(self) -> None:
        for new, what in (("name", "names"), ("workspace_id", "is the container of")):
            if self.agent_id is not None and getattr(self, new) is not None:
                raise ConfigurationError(
                    f"Prompt.{new} {what} a new agent; leave it out where agent_id says which one",
                    field=f"Prompt.{new}",
                )


def start(origin: Prompt, *, words: Mapping[str, RunStatus] = STATUS) -> Flow[Run[RunDetail]]:
    """
    Start a run: the first of a new agent, or the next of one that exists.

    Raise `ConflictError` for an agent that is busy, naming its run; `RateLimitedError` when there is no free slot for
    longer than `SLOT_SECONDS`; `OutcomeUnknownError`, naming what was found, when a 5xx may have started a run.
    """
    return (yield from admit(_intent(origin, words)))


def recover(
    origin: Prompt, note: Mapping[str, Any], *, words: Mapping[str, RunStatus] = STATUS
) -> Flow[Run[RunDetail]]:
    """Go through with a start whose process died, under the keys that it has not used up."""
    return (yield from readmit(_intent(origin, words), note))


def _intent(origin: Prompt, words: Mapping[str, RunStatus]) -> Intent:
    lists = codec.to_jsonable({"focusTableIds": origin.focus_table_ids, "attachments": origin.attachments}, "Prompt")
    body = {
        **wire.drop_none({
            "prompt": origin.prompt,
            "name": origin.name,
            "model": origin.model,
            "workspaceId": origin.workspace_id,
        }),
        **{name: value for name, value in lists.items() if value},
    }
    return Intent(body, origin.idempotency_key, origin.agent_id, origin.busy_wait, words=words)


# Campaigns ------------------------------------------------------------------------------------------------------------


def draft_campaign(
    table_id: str,
    instructions: str,
    *,
    settings: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    words: Mapping[str, RunStatus] = STATUS,
) -> Flow[Run[RunDetail]]:
    """
    Have an agent draft a campaign for the leads of a table, and return the run, to be followed as any other.

    *settings* are in no description of the API; a public client sends `blockPriorContacts` and `blockActiveDuplicates`
    there. Without an *idempotency_key*, each call is an intent of its own. Raise as `client.start` does for a prompt.
    """
    path = wire.path("tables", table_id, "campaigns")
    return (yield from _instruct(path, instructions, settings, idempotency_key, words))


def edit_campaign(
    campaign_id: str,
    instructions: str,
    *,
    idempotency_key: str | None = None,
    words: Mapping[str, RunStatus] = STATUS,
) -> Flow[Run[RunDetail]]:
    """Have an agent change what a campaign says, and return the run, to be followed as any other."""
    path = wire.path("campaigns", campaign_id, "edits")
    return (yield from _instruct(path, instructions, None, idempotency_key, words))


def _instruct(
    path: str,
    instructions: str,
    settings: Mapping[str, Any] | None,
    key: str | None,
    words: Mapping[str, RunStatus],
) -> Flow[Run[RunDetail]]:
    check.non_empty_str("instructions", instructions)
    if len(instructions) > LONGEST_PROMPT:
        raise ConfigurationError(
            f"instructions has {len(instructions)} characters; it may have no more than {LONGEST_PROMPT}"
        )
    body = wire.drop_none({"instructions": instructions, "settings": settings})
    sent = codec.to_jsonable(body, "the campaign")
    return (yield from admit(Intent(sent, _is_key(key or str(uuid4())), None, path=path, words=words)))
