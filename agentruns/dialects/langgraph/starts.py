"""What starts a run, and how one is found again whose reply got lost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from attrs import Attribute, field, frozen
from attrs.validators import optional

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns._values.generic import Json
from agentruns._values.minted import MINTED
from agentruns._values.run import Page, Run
from agentruns.dialects import wire
from agentruns.dialects.search import Before, Search, find_lost, start_once
from agentruns.errors import ConfigurationError, NotFoundError

from .objects import GraphRun
from .reading import marks_of, started, times

INTENT: Final = "agentruns_intent"
"""The key of a run's metadata under which its start, or answer, has put an id of its own."""

LOOKS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each look for a run whose reply got lost: it stands on its thread as soon as it was made."""


def _json(value: Any) -> Any:
    return codec.to_jsonable(value, "Invocation.input")


def _is_metadata(owner: object, attribute: Attribute[Any], value: Any) -> None:
    if value is None:
        return
    check.is_object(owner, attribute, value)
    if INTENT in value:
        raise ConfigurationError(
            f"Invocation.metadata has {INTENT!r}, by which a run is found again; leave it out",
            field="Invocation.metadata",
        )


@frozen
class Invocation:
    """
    One run of an assistant: of the graph of that name, or of the assistant of that id.

    - `input` is what the graph takes, as JSON.
    - `thread_id` is a thread that is there. Without it the run makes a thread of its own, whose id is `intent_id`.
    - `config` has `configurable`, `tags` and `recursion_limit`; `context` is the graph's static context.
    - `metadata` is kept with the run.
    - `intent_id` makes this one intent: a run whose start got lost is found by it.
    """

    assistant_id: str = field(validator=check.not_empty, metadata={"help": "name of the graph, or id of the assistant"})
    input: Any = field(default=None, converter=_json, metadata={"help": "what the graph takes"})
    thread_id: str | None = field(
        default=None,
        kw_only=True,
        validator=optional(check.is_uuid),
        metadata={"help": "id of a thread that exists; a new one if left out"},
    )
    config: Mapping[str, Json] | None = field(
        default=None,
        kw_only=True,
        validator=optional(check.is_object),
        metadata={"help": "configurable, tags and recursion_limit of the run"},
    )
    context: Mapping[str, Json] | None = field(
        default=None,
        kw_only=True,
        validator=optional(check.is_object),
        metadata={"help": "static context of the graph"},
    )
    metadata: Mapping[str, Json] | None = field(
        default=None, kw_only=True, validator=_is_metadata, metadata={"help": "what is kept with the run"}
    )
    intent_id: str = field(
        factory=lambda: str(uuid4()),
        kw_only=True,
        metadata={**MINTED, "help": "UUID by which a lost start is found; a new one if left out"},
        validator=check.is_uuid,
    )

    def __attrs_post_init__(self) -> None:
        if self.context is not None and "configurable" in (self.config or {}):
            raise ConfigurationError(
                "Invocation has context, and configurable in config; the server takes one of them: newer graphs have "
                "context",
                field="Invocation.context",
            )

    @property
    def thread(self) -> str:
        """Return the thread of the run."""
        return self.thread_id or self.intent_id


def start(origin: Invocation) -> Flow[Run[GraphRun]]:
    """
    Start a run, with a thread of its own unless one is named.

    It is posted once: nothing on this wire is idempotent. A run whose reply got lost is looked for on its thread.
    """
    search = _search(origin)
    yield from wire.checkpoint(Before().note(search))
    return (yield from start_once(search, _request(origin), started, Before()))


def recover(origin: Invocation, note: Mapping[str, Json]) -> Flow[Run[GraphRun]]:
    """
    Find the run of a start whose process died before it heard the answer.

    None may be found because the request was never sent: that, too, is `OutcomeUnknownError`.
    """
    return (yield from find_lost(_search(origin), note, _request(origin)))


def _request(origin: Invocation) -> Request:
    said = {"input": origin.input, "context": origin.context}
    body = {
        "assistant_id": origin.assistant_id,
        **wire.drop_none(said),
        **marked(origin.config, {**(origin.metadata or {}), INTENT: origin.intent_id}),
        "multitask_strategy": "reject",
        "if_not_exists": "create" if origin.thread_id is None else "reject",
    }
    return Request("POST", wire.path("threads", origin.thread, "runs"), json=body)


def marked(config: Mapping[str, Json] | None, marks: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return what puts marks on a run: as its metadata, and in its configuration, since Aegra shows only that."""
    config = config or {}
    return {"metadata": marks, "config": {**config, "metadata": {**wire.mapping(config.get("metadata")), **marks}}}


def _search(origin: Invocation) -> Search[GraphRun]:
    return Search(
        page=lambda _: _own(origin.thread, origin.intent_id),
        created_at=lambda run: times(run)[0] or datetime.now(UTC),
        fits=lambda _: True,
        looks=LOOKS,
        what=f"{origin.assistant_id} on thread {origin.thread}",
        where=f"the runs of thread {origin.thread}",
        marks={"thread_id": origin.thread},
    )


def _own(thread_id: str, intent_id: str) -> Flow[Page[GraphRun]]:
    found = yield from find_intent(thread_id, intent_id)
    return Page(() if found is None else (found,))


def find_intent(thread_id: str, intent_id: str) -> Flow[Run[GraphRun] | None]:
    """
    Return the run of a thread that one start or answer has made, as it was when it began; None if there is none.

    Runs inherit the metadata of their thread, and a thread those of the run that made it: so it is the oldest that has
    the id.
    """
    try:
        response = yield Request("GET", wire.path("threads", thread_id, "runs"), params={"limit": "100"})
    except NotFoundError:
        return None
    return next(
        (
            started(response, row)
            for row in reversed(wire.objects(wire.read_value(response)))
            if marks_of(row).get(INTENT) == intent_id
        ),
        None,
    )
