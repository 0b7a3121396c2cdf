"""Many runs at once: those that are waited for, by their threads, and those of one thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from attrs import evolve, frozen

from agentruns._values.commands import Flow
from agentruns._values.exchange import Request
from agentruns._values.generic import Json
from agentruns._values.run import Page, Run, RunRef, RunStatus
from agentruns.dialects import reading, wire
from agentruns.dialects.protocol import ReadOn
from agentruns.errors import InvalidRequestError

from .objects import GraphRun
from .reading import (
    TOLD_BY_STATE,
    State,
    fetch_settled,
    given_to,
    is_uuid,
    made_at,
    read_state,
    run_of,
    settled,
    waited,
)

_SELECTED: Final = ("thread_id", "status", "updated_at")

_AT_ONCE: Final = timedelta(seconds=1)
"""How long after it has made a run, at most, a server notes that the thread is busy."""

_ROWS: Final = 100
_BUSY: Final = 1000
"""How many busy threads Aegra lists at most, unless its operator says otherwise."""


@frozen
class _ThreadRow:
    thread_id: str
    status: str
    updated_at: datetime
    created_at: datetime | None = None


def fetch_many(refs: Sequence[RunRef]) -> Flow[Sequence[Run[GraphRun] | RunRef | ReadOn[GraphRun]]]:
    """
    Look which threads are busy, a thousand by one request: a run whose thread is not has moved.

    A thread may be busy with another run. It is with ours if it has been so since ours was made, which its id tells, or
    on Aegra the thread that it made. Aegra takes no ids: it is asked for all threads that are busy.
    """
    threads = sorted({ref.parent for ref in refs if is_uuid(ref.parent)})
    if not threads:
        return ()
    waits, left_out_is_idle = "success", False
    try:
        found = yield from _search({"ids": threads, "limit": len(threads), "select": _SELECTED})
    except InvalidRequestError:
        found = yield from _search({"status": "busy", "limit": _BUSY})
        waits, left_out_is_idle = "interrupted", len(found) < _BUSY
    known = {row.thread_id: row for row in found}
    told = [_told(ref, known.get(ref.parent), waits) for ref in refs if left_out_is_idle or ref.parent in known]
    return [each for each in told if each is not None]


def _search(body: Mapping[str, Json]) -> Flow[Sequence[_ThreadRow]]:
    response = yield Request("POST", "/threads/search", json=body, idempotent=True)
    return (yield from reading.rows_of(response, wire.read_value(response), "$", _ThreadRow))


def _told(ref: RunRef, thread: _ThreadRow | None, waits: str) -> RunRef | ReadOn[GraphRun] | None:
    if thread is None or thread.status != "busy":
        return ReadOn(ref, partial(fetch_settled, ref, waits))
    made = made_at(ref.id) or thread.created_at
    return ref if made is not None and abs(thread.updated_at - made) <= _AT_ONCE else None


def page(parent: str, cursor: str | None) -> Flow[Page[GraphRun]]:
    """
    Return a page of the runs of a thread, newest first.

    Whether a run waits is told by the state of the thread, for the run that made it; of an older one, by the next run:
    whether that has answered it.
    """
    done = int(cursor or 0)
    again = 1 if done else 0  # the last row of the page before: it may have answered the first of this one
    window = {"limit": str(_ROWS + again), "offset": str(done - again)}
    response = yield Request("GET", wire.path("threads", parent, "runs"), params=window)

    def read(row: Any, at: str) -> tuple[Mapping[str, Json], Run[GraphRun]]:
        raw = wire.structure(row, dict[str, Any], response, at)
        return raw, run_of(response, raw)

    rows = yield from reading.rows(response, wire.read_value(response), "$", read)
    state: State | None = None
    if any(run.vendor_status in TOLD_BY_STATE for _, run in rows):
        _, state = yield from read_state(RunRef("", parent))
    runs = [_listed(run, state, rows[place - 1][0] if place else None) for place, (_, run) in enumerate(rows)]
    count = len(wire.objects(wire.read_value(response)))
    return Page(tuple(runs[again:]), str(done + _ROWS) if count == _ROWS + again else None)


def _listed(run: Run[GraphRun], state: State | None, follower: Mapping[str, Json] | None) -> Run[GraphRun]:
    if state is None or run.vendor_status not in TOLD_BY_STATE:
        return run
    if state.run_id == run.id or follower is None:
        return settled(run, state, own=state.run_id == run.id)
    asked = waited(run) and answers(follower)
    return evolve(run, status=RunStatus.REQUIRES_ACTION) if asked else run


def answers(raw: Mapping[str, Json]) -> bool:
    """Tell whether a run goes on with what another has left: it answers interrupts, or comes without an input."""
    given = given_to(raw)
    return wire.mapping(given.get("command")).get("resume") is not None or given.get("input") in (None, {})
