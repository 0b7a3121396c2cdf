"""
Starting runs, each intent at most once.

A start is admitted or refused at once: a run needs its agent to be free, and one of the organization's slots. What
keeps it single is the `Idempotency-Key` (https://docs.origami.chat/openapi-v2.yaml, Idempotency): for 24 hours the
vendor repeats the first answer that it gave to a key, refusals included, 5xx excluded. Hence:

- An attempt keeps its key while its outcome is open: over lost answers, 5xx, and refusals that come before the key is
  looked at (rate limits).
- A refusal of the endpoint itself ends the attempt. Whether it uses up the key is not said (only that 5xx do not), so
  the next attempt tries the same key; where the old refusal is repeated, the next key of a fixed order (`nth_key`).
- A 5xx of the API's own (it has a `code`) is not kept: the attempt may have been admitted, and repeating it could start
  a second run. So the vendor is looked at first. A 5xx that something in front of the API made up needs no look: behind
  it, the answer to the key is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from attrs import frozen

from agentruns._values import codec
from agentruns._values.commands import Flow, Sleep
from agentruns._values.exchange import Request, Response
from agentruns._values.run import Run, RunRef, RunStatus
from agentruns.dialects import wire
from agentruns.errors import (
    AgentRunsError,
    APIError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
    RateLimitedError,
    ServerError,
    TransportError,
)

from .objects import RunDetail
from .reading import NO_SLOT, STATUS, current_run, is_replay, listed, paging, parse_run
from .runs import IN_FLIGHT, KEY, MOST_KEYS, agent_path, fetch, nth_key, turns

SLOT_SECONDS: Final = 300.0
"""How long a start waits, in all, for the organization to have a free slot; one of many rows waits for its turn."""

_SLOT_WAIT: Final = 60.0  # what the vendor asks for when it knows no better (reference/create-agent)
_LEAST_WAIT: Final = 1.0
_BUSY_WAIT: Final = 15.0  # the pace of polling (reference/get-run)
_LONGEST_WAIT: Final = 60.0  # the window of the rate limits

_BUSY: Final = "AGENT_BUSY"

# Guesses: no page says how long a request may be in flight, or how soon a refused one may be sent again.
_BACKOFF: Final = (1.0, 2.0, 4.0)
_RATE_BACKOFF: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@frozen
class Intent:
    """
    What shall be started once.

    `answers` is the run that it follows, if it answers one; `path` is where it is posted, if it is no prompt. `words`
    of the vendor are read as our status.
    """

    body: Mapping[str, Any]
    key: str
    agent_id: str | None
    busy_wait: float = 0.0
    answers: str | None = None
    path: str | None = None
    words: Mapping[str, RunStatus] = STATUS

    def attempt(self, number: int) -> Request:
        """Return the request of one attempt; it is repeated here, where it is known what that takes."""
        path = self.path or ("/agents" if self.agent_id is None else agent_path(self.agent_id, "runs"))
        headers = {KEY: nth_key(self.key, number)}
        return Request("POST", path, json=self.body, headers=headers, idempotent=False, again_after_429=False)


def admit(intent: Intent, number: int = 0) -> Flow[Run[RunDetail]]:
    """Go from attempt to attempt, from that *number* on, until one is admitted, or refused for good."""
    slot_left, busy_left = SLOT_SECONDS, intent.busy_wait
    while True:
        try:
            return (yield from _attempt(intent, number))
        except APIError as error:
            refused = error
        if refused.code == IN_FLIGHT or number == MOST_KEYS:
            raise refused
        if is_replay(refused.response):  # an old refusal, which says nothing of today
            number += 1
            yield from wire.checkpoint({"attempt": number})
        elif refused.code == NO_SLOT:
            wait = _SLOT_WAIT if refused.retry_after is None else max(refused.retry_after, _LEAST_WAIT)
            if not (yield from wire.await_slot(wait, slot_left)):
                raise refused
            slot_left = max(slot_left - wait, 0.0)
        elif refused.code == _BUSY and busy_left > 0:
            busy_left = yield from _wait_for_agent(intent, refused, busy_left)
        else:
            raise refused


def _wait_for_agent(intent: Intent, refused: APIError, left: float) -> Flow[float]:
    """Wait until the run that keeps the agent busy is over; return what is left of the time, or raise the refusal."""
    busy = current_run(wire.error_body(refused.response))
    while left > 0:
        wait = min(left, _BUSY_WAIT)
        left -= wait
        yield Sleep(wait)
        if busy is None:
            return left
        try:
            run = yield from fetch(RunRef(busy, intent.agent_id or ""), {}, words=intent.words)
        except NotFoundError:
            return left
        if not run.status.in_flight:
            return left
    raise refused


def readmit(intent: Intent, note: Mapping[str, Any]) -> Flow[Run[RunDetail]]:
    """Go on with attempts that had got as far as *note* when their process died; no key before that is used again."""
    number = int(note["attempt"])
    if note.get("forgotten"):
        lost = OutcomeUnknownError(intent.attempt(number), "it was answered by a failure that no key remembers")
        since = note.get("since")
        started = yield from _look(intent, lost, since and datetime.fromisoformat(since))
        if started is not None:
            return started
    return (yield from admit(intent, number))


def _attempt(intent: Intent, number: int) -> Flow[Run[RunDetail]]:
    """Send one attempt until its outcome is clear, with one key all the while."""
    request = intent.attempt(number)
    lost, in_flight, limited = iter(_BACKOFF), iter(_BACKOFF), iter(_RATE_BACKOFF)
    forgotten: OutcomeUnknownError | None = None  # a 5xx that no key remembers
    since: datetime | None = None
    error: OutcomeUnknownError | APIError
    while True:
        try:
            response = yield request
        except (OutcomeUnknownError, APIError) as caught:
            error = caught
        else:
            return (yield from _now(response, intent.words))
        reason = error.__cause__ if isinstance(error, OutcomeUnknownError) and error.__cause__ else error
        fresh = isinstance(reason, APIError) and not is_replay(reason.response)
        code = reason.code if isinstance(reason, APIError) else None
        if isinstance(error, OutcomeUnknownError) and isinstance(reason, ServerError) and code:
            forgotten, since = error, _begun(reason.response)
            yield from wire.checkpoint({"attempt": number, "forgotten": True, "since": since and since.isoformat()})
        if forgotten is not None and (error is forgotten or (code == _BUSY and fresh)):
            started = yield from _look(intent, forgotten, since)
            if started is not None:
                return started
        if isinstance(error, OutcomeUnknownError):
            waits = lost
        elif code == IN_FLIGHT:
            waits = in_flight
        elif isinstance(error, RateLimitedError) and code != NO_SLOT and fresh:
            waits = limited
        else:
            raise error
        yield Sleep(_next(waits, reason))


def _now(response: Response, words: Mapping[str, RunStatus]) -> Flow[Run[RunDetail]]:
    """Return the run that was admitted; an answer of before shows it as it was then, so it is read."""
    run = parse_run(response, words=words)
    if not is_replay(response):
        return run
    try:
        return (yield from fetch(run.ref, {}, words=words))
    except (APIError, ProtocolError, TransportError):
        return run


def _next(waits: Iterator[float], reason: BaseException) -> float:
    """Return how long to wait before the request is sent again; give up by raising *reason*."""
    wait, asked = next(waits, None), getattr(reason, "retry_after", None) or 0.0
    if wait is None or asked > _LONGEST_WAIT or getattr(reason, "final", False):
        raise reason
    return max(wait, asked)


# After a 5xx ----------------------------------------------------------------------------------------------------------

_MOST_PAGES: Final = 100
_COMPARED: Final = 95
"""How much of a prompt is compared: lists cut it to 200 characters, perhaps of UTF-16, perhaps dots included."""


_AROUND: Final = timedelta(seconds=60)
"""How long before its answer a request may have come in: longer than one lasts, unless the user asks for it."""


def _begun(response: Response) -> datetime | None:
    """Return when a request came in at the earliest, by the vendor's clock."""
    answered = wire.http_date(response.headers.get("date", ""))
    return None if answered is None else answered - _AROUND


def _look(intent: Intent, unclear: OutcomeUnknownError, since: datetime | None) -> Flow[Run[RunDetail] | None]:
    """
    Return the run that an attempt without a clear answer has started, None if there is none.

    An agent runs one prompt at a time, so on an agent that is known, a run with our prompt that is under way, or that
    came after the run we answer, is ours. A new agent with our prompt may be ours or that of a twin, and so may a run
    that is over: then raise `OutcomeUnknownError`, naming it, rather than start a second one.
    """
    if "prompt" not in intent.body:
        raise unclear from unclear.__cause__
    try:
        found = yield from _with_our_prompt(intent, since)
    except AgentRunsError:
        raise unclear from unclear.__cause__
    for run in found:
        if intent.agent_id is not None and (run.status.in_flight or intent.answers is not None):
            return run
        said = f"{unclear.reason}; run {run.id} of agent {run.ref.parent} has this prompt and may be what it started"
        raise OutcomeUnknownError(unclear.request, said) from unclear.__cause__
    return None


@frozen(kw_only=True)
class Turn(codec.CamelCase):
    """A run, as far as a look needs it."""

    id: str
    agent_id: str
    prompt: str
    started_at: datetime


@frozen(kw_only=True)
class Holder(codec.CamelCase):
    """An agent, as far as a look needs it."""

    id: str
    created_at: datetime
    last_run: Turn | None = None


def _with_our_prompt(intent: Intent, since: datetime | None) -> Flow[Sequence[Run[RunDetail]]]:
    """Return the runs that have the prompt of *intent*, and may be what it has started."""
    prompt = intent.body["prompt"].strip()
    agents = (yield from _every_agent()) if intent.agent_id is None else [(yield from _agent(intent.agent_id))]
    found = []
    for agent in agents:
        for each in (yield from _latest(agent, intent, since)):
            if is_prompt(each.prompt, prompt, whole=False):
                run = yield from fetch(RunRef(each.id, each.agent_id), {}, words=intent.words)
                asked = prompt_of(run)
                found += [run] if asked is None or is_prompt(asked, prompt, whole=True) else []
    return found


def _latest(agent: Holder, intent: Intent, since: datetime | None) -> Flow[Sequence[Turn]]:
    """
    Return the runs of an agent that may be what was started *since*.

    That is its last run; if that is another, since somebody has given the agent a next turn, then those before it.
    """
    last = agent.last_run
    if last is None or last.id == intent.answers:
        return ()
    if since is None or (intent.agent_id is None and agent.created_at < since):
        return (last,)
    runs = [wire.structure(run.raw, Turn, f"run {run.id}") for run in (yield from turns(agent.id))]
    answered = next((run.started_at for run in runs if run.id == intent.answers), None)
    return [run for run in runs if run.started_at >= since and (answered is None or run.started_at > answered)]


def _agent(agent_id: str) -> Flow[Holder]:
    return wire.read((yield Request("GET", agent_path(agent_id))), Holder)


def _every_agent() -> Flow[Sequence[Holder]]:
    """
    Return all agents: no page says in which order they are listed. A cursor that comes again is the end.

    An agent that cannot be read ends the look: it may be the one that was started.
    """
    agents: list[Holder] = []
    cursors: set[str | None] = {None}
    cursor = None
    for _ in range(_MOST_PAGES):
        response = yield Request("GET", "/agents", params=paging(cursor, 100))
        values, path, cursor = listed(response, "agents")
        if not isinstance(values, list):
            raise ProtocolError(f"the answer to {response.request.line} has no list @ {path}", response)
        agents += [wire.structure(each, Holder, response, f"{path}[{place}]") for place, each in enumerate(values)]
        if cursor in cursors or not values:
            return agents
        cursors.add(cursor)
    raise ProtocolError(f"the list of agents has no end: {_MOST_PAGES} pages were read")


def prompt_of(run: Run[RunDetail]) -> str | None:
    """Return the whole prompt of a run that was read by itself, None where it does not say."""
    return wire.first_text(wire.mapping(run.raw.get("request")), "prompt")


def is_prompt(seen: str, prompt: str, *, whole: bool) -> bool:
    """Tell whether a prompt that a run shows, *whole* or cut, is that one."""
    return seen.strip() == prompt.strip() if whole else _cut(seen) == _cut(prompt)


def _cut(prompt: str) -> str:
    return prompt.strip().rstrip("….")[:_COMPARED]
