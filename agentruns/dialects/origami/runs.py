"""Runs that exist: read one, list an agent's, cancel the one that was meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID, uuid5

from agentruns._values import codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Problem, Request, Response
from agentruns._values.run import Page, Run, RunRef, RunStatus
from agentruns.dialects import reading, wire
from agentruns.errors import APIError, ConfigurationError, ConflictError, ProtocolError

from .objects import RunDetail
from .reading import STATUS, as_run, is_replay, listed, paging, parse_run, started_at

KEY: Final = "Idempotency-Key"
MOST_KEYS: Final = 200
"""How many refusals one intent may have had before it is given up."""

IN_FLIGHT: Final = "IDEMPOTENCY_ERROR"
"""The first request with this key is still being worked on; or it was another request, which ours never are."""

_BY_ITSELF: Final = frozenset({"errored", "timed_out"})

_MOST_PAGES: Final = 100

_CANCELS: Final = UUID("0d0d0f57-6f4b-5d0a-8a53-1b7e6c9f2d40")
_ATTEMPTS: Final = UUID("5b1f2ed3-93c6-5c6e-b0f4-7e0a54d1c2b9")


def fetch(ref: RunRef, params: Mapping[str, str], *, words: Mapping[str, RunStatus] = STATUS) -> Flow[Run[RunDetail]]:
    """Read a run (reference/get-run); `include="stats,transcript"` asks for more of it."""
    return parse_run((yield Request("GET", agent_path(ref.parent, "runs", ref.id), params=params)), words=words)


def page(parent: str, cursor: str | None, *, words: Mapping[str, RunStatus] = STATUS) -> Flow[Page[RunDetail]]:
    """
    List an agent's runs (reference/list-runs), as summaries: no output, and no questions.

    A cursor that the vendor does not take restarts its list from the first page without a word (migration guide to v3),
    so ours carries the first run of the list and every cursor so far: what comes round again is the end.
    """
    first, *trail = _trail(cursor)
    params = paging(trail[-1] if trail else None, 100)
    response = yield Request("GET", agent_path(parent, "runs"), params=params)
    values, path, following = listed(response, "runs")
    runs = yield from reading.rows(response, values, path, lambda raw, at: as_run(response, raw, at, None, words))
    if trail and runs and runs[0].id == first:
        return Page(())
    if following is None or following in trail or not values:
        return Page(runs)
    begin = first or (runs[0].id if runs else "")
    return Page(runs, codec.encode([begin, *trail, following]).decode())


def _trail(cursor: str | None) -> list[str]:
    """Take our cursor apart; one of the vendor's own will do, too."""
    if cursor is None:
        return [""]
    try:
        trail = codec.decode(cursor)
    except codec.CodecError:
        trail = None
    return trail if isinstance(trail, list) else ["", cursor]


def turns(agent_id: str, words: Mapping[str, RunStatus] = STATUS) -> Flow[Sequence[Run[RunDetail]]]:
    """Return the runs of an agent as summaries, oldest first: no page says in which order they are listed."""
    runs: dict[str, Run[RunDetail]] = {}
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        found = yield from page(agent_id, cursor, words=words)
        runs.update((run.id, run) for run in found.runs)
        cursor = found.cursor
        if cursor is None:
            return sorted(runs.values(), key=started_at)
    raise ProtocolError(f"the list of runs of agent {agent_id} has no end: {_MOST_PAGES} pages were read")


def turns_after(run: Run[RunDetail], words: Mapping[str, RunStatus] = STATUS) -> Flow[Sequence[Run[RunDetail]]]:
    """Return the runs of the agent that began after *run*, oldest first."""
    return [each for each in (yield from turns(run.ref.parent, words)) if started_at(each) > started_at(run)]


def answered_by(run: Run[RunDetail], *, words: Mapping[str, RunStatus] = STATUS) -> Flow[Run[RunDetail] | None]:
    """Return the next run of the agent: any prompt answers a run (reference/send-run). None if there is none yet."""
    later = yield from turns_after(run, words)
    return (yield from fetch(later[0].ref, {}, words=words)) if later else None


def cancel(ref: RunRef, *, words: Mapping[str, RunStatus] = STATUS) -> Flow[Run[RunDetail] | None]:
    """
    Cancel a run (reference/cancel-run), which may go on for a while: read it until it is over.

    The vendor cancels whatever run the agent is at. So the run is read first, and left alone if it is over; and the key
    derives from it, so that a late duplicate is given the first answer again and hits nothing. Raise `ConflictError`
    if another run, started in between, was hit all the same.
    """
    meant = yield from fetch(ref, {}, words=words)
    if not meant.status.in_flight:
        return meant
    path, key = agent_path(ref.parent, "cancel"), str(uuid5(_CANCELS, ref.id))
    number = 0
    while True:
        try:
            response = yield Request("POST", path, headers={KEY: nth_key(key, number)}, idempotent=True)
        except APIError as error:
            if error.code == IN_FLIGHT:
                return (
                    yield from fetch(ref, {}, words=words)
                )  # our own request, whose answer was lost, is still worked on
            if not is_replay(error.response) or number == MOST_KEYS:
                raise
            number += 1
        else:
            return (yield from _cancelled(meant, response, words))


def _cancelled(
    meant: Run[RunDetail], response: Response, words: Mapping[str, RunStatus]
) -> Flow[Run[RunDetail] | None]:
    """Check that the run that was meant is the one in the answer, which may be one of before."""
    body = wire.read_object(response)
    if body.get("run", body) is None:
        return None
    latest = parse_run(response, words=words)
    if latest.id != meant.id and _may_be_hit(latest):
        said = f"run {meant.id} had ended, and run {latest.id} of the same agent was cancelled instead"
        raise ConflictError(response, Problem(said))
    if latest.id == meant.id and not is_replay(response):
        return latest
    return (yield from fetch(meant.ref, {}, words=words))


def _may_be_hit(run: Run[RunDetail]) -> bool:
    """Tell whether a cancel may have hit a run: it is stopping, or stopped by something other than itself."""
    return run.status.in_flight or (run.status is RunStatus.FAILED and run.vendor_status not in _BY_ITSELF)


def nth_key(key: str, number: int) -> str:
    """
    Return the key of an attempt at one intent: *key* itself, then others that derive from it.

    The order is fixed, so a process that begins anew with the same intent meets the refusals of before, one by one,
    and then the attempt that was admitted, before any key that is new.
    """
    return key if number == 0 else str(uuid5(_ATTEMPTS, f"{number} {key}"))


def agent_path(agent_id: str, *parts: str) -> str:
    """Return a path below an agent; there is no other way to its runs."""
    if not agent_id:
        raise ConfigurationError(
            "Origami finds a run only by its agent",
            field="RunRef.parent",
            remedy="pass RunRef(id, agent_id), or the Run itself",
        )
    return wire.path("agents", agent_id, *parts)
