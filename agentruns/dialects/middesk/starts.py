"""Starting a run, and finding it again when its answer was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from attrs import field, frozen
from attrs.validators import optional

from agentruns._values import check, codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns._values.generic import Json
from agentruns._values.run import Run
from agentruns.dialects import wire
from agentruns.dialects.search import Before, Search, find_lost, look_before, start_once

from .catalog import context_of, open_thread
from .objects import MiddeskRun
from .reading import AS_GUESSED, NAME, Reading, created_at, page, parse_run


@frozen
class RunRequest:
    """
    A run of the agent *type*: in the thread that is named, else in a new one.

    A new thread needs its context: `business_id`, or `context_type` together with `context_id` (create-agent-run).
    """

    type: str = field(validator=check.not_empty, metadata={"help": "type of the agent"})
    thread_id: str | None = field(
        default=None,
        kw_only=True,
        validator=optional(check.not_empty),
        metadata={"help": "id of a thread that exists; a new one if left out"},
    )
    business_id: str | None = field(
        default=None, kw_only=True, metadata={"help": "id of the business that a new thread is about"}
    )
    context_type: str | None = field(
        default=None, kw_only=True, metadata={"help": "type of what a new thread is about"}
    )
    context_id: str | None = field(default=None, kw_only=True, metadata={"help": "id of what a new thread is about"})

    def __attrs_post_init__(self) -> None:
        context_of(self.business_id, self.context_type, self.context_id, threaded=self.thread_id is not None)


START_LOOKS: Final = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each look for a run that a lost answer may have started: no page says how soon a run is listed."""


def start(
    origin: RunRequest, *, reads: Reading = AS_GUESSED, looks: Sequence[float] = START_LOOKS
) -> Flow[Run[MiddeskRun]]:
    """
    Start a run (create-agent-run), on a thread of our own unless one is named.

    The run is posted once. A thread of our own, or a look at the named one beforehand, is what lets a run be recognized
    whose answer was lost.
    """
    body = wire.drop_none(codec.unstructure(origin))
    if origin.thread_id is None:
        thread = yield from open_thread(**body)
        body = {"type": origin.type, "thread_id": thread.id}
        search = _search(origin, thread.id, reads, looks)
        before = Before(since=thread.created_at.replace(microsecond=0))  # some times are in seconds
        yield from wire.checkpoint(before.note(search))
    else:
        search = _search(origin, origin.thread_id, reads, looks)
        before = yield from look_before(search)
    request = Request("POST", wire.path("runs"), json=body)
    return (yield from start_once(search, request, partial(parse_run, reads=reads), before))


def recover(
    origin: RunRequest,
    note: Mapping[str, Json],
    *,
    reads: Reading = AS_GUESSED,
    looks: Sequence[float] = START_LOOKS,
) -> Flow[Run[MiddeskRun]]:
    """
    Find the run of a start whose process died before it heard the answer.

    None may be found because the request was never sent: that, too, is `OutcomeUnknownError`.
    """
    search = _search(origin, note["thread_id"], reads, looks)
    request = Request("POST", wire.path("runs"), json={"type": origin.type, "thread_id": note["thread_id"]})
    return (yield from find_lost(search, note, request))


def _search(origin: RunRequest, thread_id: str, reads: Reading, looks: Sequence[float]) -> Search[MiddeskRun]:
    """
    Look for a run of the origin's agent on a thread.

    A run that names no agent is known by its thread. Only starts on a thread that the origin names can be confused.
    """
    agent = origin.type
    return Search(
        page=partial(page, "", reads=reads),
        created_at=created_at,
        fits=lambda run: run.ref.parent == thread_id and run.raw.get("agent") in (None, agent),
        looks=looks,
        what=f"{agent} on thread {thread_id}",
        where="GET /runs",
        group=f"{NAME} thread {thread_id}" if origin.thread_id else "",
        marks={"thread_id": thread_id, "agent": agent},
        switch="`middesk.variant(looks=...)`",
        order_is_a_guess=True,  # list-agent-runs does not say
    )
