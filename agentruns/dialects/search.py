"""
Finding the run of a start that named none: the recipe for vendors without idempotency keys.

Such a start must never be sent twice, and its answer may be lost, or may not name the run. So a dialect looks at the
list before it sends (`look_before`), sends once, and then looks for the one run that was not there (`find_started`).
`start_once` is all of that for `start` of a dialect, and `find_lost` what its `recover` does.
None, or several, is `OutcomeUnknownError`: a person has to decide. The order of the commands is the safety:

1. a lock, so that no two starts of one client that nobody could tell apart overlap;
2. a look at the list, which says what is *not* the new run;
3. a checkpoint with that, so that the search can go on after a crash (`recover` of the dialect reads it);
4. the request, once;
5. looks at the list; a run that is found is claimed, so that two processes never take the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, Final, Generic

from attrs import evolve, field, frozen

from agentruns._values.commands import Flow, Lock, Ownership, Sleep, T
from agentruns._values.exchange import Request, Response
from agentruns._values.generic import DetailT
from agentruns._values.run import Page, Run
from agentruns.dialects import wire
from agentruns.errors import AgentRunsError, APIError, OutcomeUnknownError, ProtocolError, TransportError

_MOST_PAGES: Final = 10
"""How many pages one look reads, should that many runs have been started in the meantime."""

RECENT_SECONDS: Final = 1.0
"""How old a list may be that tells what was there before a start."""

_NEVER: Final = datetime.max.replace(tzinfo=UTC)
"""The `since` of a list that cannot tell new from old: no run is made later."""


def _never(_: Run[Any]) -> bool:
    return False


@frozen(kw_only=True)
class Search(Generic[DetailT]):
    """How the run of one start is told from all others."""

    page: Callable[[str | None], Flow[Page[DetailT]]]
    """Read a page of the list that the run will stand in; it takes the cursor of the page before, None for the first"""
    created_at: Callable[[Run[DetailT]], datetime]
    """When a listed run was made, by the vendor's clock"""
    fits: Callable[[Run[DetailT]], bool]
    """Whether a run can be of this start, were it new: the same trigger, say, or the same thread"""
    looks: Sequence[float]
    """Seconds before each look"""
    what: str
    """What starts the run, for error texts: `trigger t1`"""
    where: str
    """What the list is, for error texts: `the list of agent a1`"""
    group: str = ""
    """The name of all starts whose runs could not be told from this one's; empty where there can be no other"""
    marks: Mapping[str, Any] = field(factory=dict)
    """What the checkpoint has besides `known` and `since`, so that `recover` can make this search again"""
    is_named: Callable[[Run[DetailT]], bool] = _never
    """Whether the answer to the start names this run, which settles it"""
    switch: str = ""
    """What changes how the run is told from others, where that is a guess; the errors say it"""
    order_is_a_guess: bool = False
    """That the list has the newest run first is not documented: look whether it does"""


@frozen
class Before:
    """
    What was there before a start: the ids of its runs, and when the newest was made, None if there were none.

    A run is new if it is not *known*, and was made no earlier than *since*. Times are the vendor's: they are compared
    with each other, and never with our clock.
    """

    known: frozenset[str] = frozenset()
    since: datetime | None = None

    @classmethod
    def of_note(cls, note: Mapping[str, Any]) -> Before:
        """Return what a checkpoint has kept: what `recover` of a dialect begins with."""
        since = note["since"]
        return cls(frozenset(note["known"]), None if since is None else datetime.fromisoformat(since))

    def note(self, search: Search[Any]) -> Mapping[str, Any]:
        """Return the data of a checkpoint: the marks of the search, and this."""
        since = None if self.since is None else self.since.isoformat()
        return {**search.marks, "since": since, "known": sorted(self.known)}

    def lacks(self, run_id: str, created_at: datetime) -> bool:
        """Tell whether that run is new."""
        return run_id not in self.known and (self.since is None or created_at >= self.since)


def start_once(
    search: Search[DetailT], request: Request, read: Callable[[Response], Run[DetailT]], before: Before | None = None
) -> Flow[Run[DetailT]]:
    """
    Send *request*, which starts a run, once, and return the run: the whole recipe, for `start` of a dialect.

    *read* makes the run of the answer. Where the answer got lost, or cannot be read, the run is looked for. *before* is
    what was there before; by default the list is looked at. Raise `OutcomeUnknownError` where no run, or several, may
    be it, and what a refusal raises: then nothing was started.
    """
    if before is None:
        before = yield from look_before(search)
    try:
        response = yield request
    except OutcomeUnknownError as error:
        lost = error
    else:
        try:
            return read(response)
        except ProtocolError as error:  # it has started, and must not be started again
            lost = OutcomeUnknownError(request, str(error))
    return (yield from find_started(search, before, request, lost.reason, lost))


def find_lost(search: Search[DetailT], note: Mapping[str, Any], request: Request) -> Flow[Run[DetailT]]:
    """
    Find the run of a start whose process died before it heard the answer: for `recover` of a dialect.

    *note* is what the start has kept, and *request* is told in errors; nothing is sent but looks. None may be found
    because the request was never sent: that, too, is `OutcomeUnknownError`.
    """
    if search.group:
        yield Lock(search.group)
    lost = OutcomeUnknownError(request, "the process that was about to send it ended before it noted an answer")
    return (yield from find_started(search, Before.of_note(note), request, lost.reason, lost))


def look_before(search: Search[Any]) -> Flow[Before]:
    """
    Take the lock of the search's group, note what its list has, keep a checkpoint; the next command sends the start.

    Where another start of the group has to be waited for, the list is read again afterwards. Raise what a read raises:
    nothing has been sent.
    """
    yield Lock(search.group)
    # Where starts of one group come one after the other, the last look of one is the first of the next.
    listed = yield from _aged(_first_with_runs(search), RECENT_SECONDS)
    while True:
        before = _before(listed, search)
        if (yield from wire.checkpoint(before.note(search), search.group, sum(search.looks))):
            return before
        listed = yield from _first_with_runs(search)


def _aged(flow: Flow[T], max_age: float) -> Flow[T]:
    """Have *flow* take answers that are so many seconds old."""
    answer: Response | None = None
    try:
        wanted = next(flow)
        while True:
            try:
                answer = yield evolve(wanted, max_age=max_age) if isinstance(wanted, Request) else wanted
            except Exception as error:
                wanted = flow.throw(error)
            else:
                wanted = flow.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


def _first_with_runs(search: Search[DetailT]) -> Flow[Page[DetailT]]:
    """Return the first page that has a run; of a page whose rows cannot be read, nothing can be told."""
    listed = yield from search.page(None)
    while not listed.runs and listed.cursor is not None:
        listed = yield from search.page(listed.cursor)
    return listed


def _before(listed: Page[DetailT], search: Search[DetailT]) -> Before:
    """
    Return what a page tells of the runs that are there.

    Where the order is a guess, it is looked at: if a list of several pages is ordered otherwise, or its first page is
    of one moment, then no run counts as new.
    """
    made = [search.created_at(run) for run in listed.runs]
    since = max(made, default=None)
    if search.order_is_a_guess and listed.cursor and (made != sorted(made, reverse=True) or since in made[-1:]):
        since = _NEVER
    return Before(frozenset(run.id for run in listed.runs), since)


def find_started(
    search: Search[DetailT], before: Before, request: Request, told: str, cause: AgentRunsError | None = None
) -> Flow[Run[DetailT]]:
    """
    Return the one run that *request* started, as its list shows it.

    Raise `OutcomeUnknownError`, which begins with *told* and is caused by *cause* or by the last look that failed,
    unless there is exactly one. No other error leaves here: a caller that sees one might start again. Runs that
    other starts claim are passed over.
    """
    there, trouble, waited, skipped = before.known, "", 0.0, 0
    for seconds in search.looks:
        yield Sleep(seconds)
        waited += seconds
        try:
            found, skipped = yield from _aged(_look(search, before, there), 0.0)
            trouble = ""
        except AgentRunsError as error:
            cause, trouble = error, f" (the last look failed: {error})"
            if isinstance(error, APIError | TransportError | ProtocolError):
                continue
            break  # the client is closed, or cannot send
        if not found:
            continue
        guessed = f". No page says how it is told from others: {search.switch} changes that" if search.switch else ""
        if len(found) > 1:
            raise OutcomeUnknownError(
                request,
                f"{told}; {len(found)} new runs of {search.what} are there, which is ambiguous: "
                f"{', '.join(run.id for run in found)}. Each can be followed, by its id and its "
                f"parent {found[0].ref.parent!r}{guessed}",
            ) from cause
        (only,) = found
        whose = yield from wire.claim_run(only.id)
        if whose is Ownership.MINE:
            return only
        if whose is Ownership.UNCLEAR:
            raise OutcomeUnknownError(
                request,
                f"{told}; run {only.id} of {search.what} is new, and may be that of another start which died before "
                "it heard an answer",
            ) from cause
        before = evolve(before, known=before.known | {only.id})
    if skipped:
        trouble += f"; {skipped} of its rows could not be read, and one may be it"
    unordered = ", whose order does not tell what is certainly new," if before.since == _NEVER else ""
    if search.switch:
        trouble += f". No page says how it is told from others, or how soon it shows: {search.switch} changes that"
    raise OutcomeUnknownError(
        request,
        f"{told}; no new run of {search.what} was observed in {search.where}{unordered} for {waited:.0f} s{trouble}",
    ) from cause


def _look(search: Search[DetailT], before: Before, there: AbstractSet[str]) -> Flow[tuple[Sequence[Run[DetailT]], int]]:
    """
    Return the runs that may be ours, read back to what was *there*, and how many rows could not be read.

    New runs shift the pages, so each counts once.
    """
    runs: dict[str, Run[DetailT]] = {}
    skipped = 0
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        listed = yield from search.page(cursor)
        runs.update((run.id, run) for run in listed.runs)
        skipped += listed.skipped
        cursor = listed.cursor
        if cursor is None or not there.isdisjoint(runs) or _is_older(listed, search, before):
            break
    seen = runs.values()
    found = [run for run in seen if search.is_named(run)] or [
        run for run in seen if search.fits(run) and before.lacks(run.id, search.created_at(run))
    ]
    return found, skipped


def _is_older(listed: Page[DetailT], search: Search[DetailT], before: Before) -> bool:
    """Tell whether a page ends with a run that was made before the start."""
    last = search.created_at(listed.runs[-1]) if listed.runs else None
    return last is not None and before.since is not None and last < before.since
