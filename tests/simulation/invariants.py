"""The laws: what must hold in every seed, whatever the weather, looked at as it happens and at the end."""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from attrs import define, field

from agentruns import (
    Action,
    AgentRunsError,
    APIError,
    ConfigurationError,
    ConflictError,
    DeadlineExceededError,
    JournalError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
    RateLimitedError,
    Run,
    RunError,
    RunStatus,
    ServerError,
    ToolOutcomeUnknownError,
    TransportError,
    UnsupportedError,
)
from agentruns._values.exchange import RateLimit

from .loop import PROCESS, SIGHT

if TYPE_CHECKING:
    from .callers import Sight
    from .network import Exchange
    from .process import Process
    from .simulated_world import World

_RANK: Final = {RunStatus.PENDING: 0, RunStatus.RUNNING: 1}
_OVER: Final = {RunStatus.COMPLETED, RunStatus.FAILED}
_EPSILON: Final = 1e-6
_STARTS: Final = ("/runs", "/run")
"""How the paths end to which starts are posted."""
_NO_SLOT: Final = b"CONCURRENT_LIMIT_EXCEEDED"
"""What a vendor says whose slots are all taken."""


class Flaw(Exception):  # noqa: N818 - it stands for a bug of the application
    """What a handler of the simulation raises as an exception of its own."""


@define
class Handling:
    """How often the handler of one question was run, and what came of it; for one key, or for one stream."""

    begun: int = 0
    flawed: int = 0
    cut: int = 0
    under_way: int = 0
    gave: list[str] = field(factory=list)


class Laws:
    """Looks on, and keeps what was broken."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.breaches: list[str] = []
        self.errors: Counter[str] = Counter()
        self.handlings: defaultdict[tuple[str, str, str], Handling] = defaultdict(Handling)
        self.given: defaultdict[str, set[str]] = defaultdict(set)
        """By the mark of a question, all answers that anybody gave."""
        self.unentered: set[str] = set()
        """The marks of questions that were answered by hand when no work of the journal was at their run."""
        self.told_taken: list[tuple[str, str]] = []
        """The marks of questions, and what was answered by hand and told to be taken."""
        self.sights: list[Sight] = []
        self.sent: set[str | None] = set()
        """The work of which a start was sent, to vendors that cannot be asked for one."""
        self.knows_steps = True
        """Whether the processes tell which steps are under way."""

    def broken(self, law: str) -> None:
        """Note a breach."""
        self.breaches.append(f"[{self.world.now:.3f}] {law}")
        self.world.note("BROKEN: %s", law)

    def check(self, kept: object, law: str) -> None:
        """Note a breach unless the law was kept."""
        if not kept:
            self.broken(law)

    # Requests --------------------------------------------------------------------------------------------------------

    def departs(self, exchange: Exchange) -> None:
        """Look at a request that leaves a process."""
        process, now = exchange.process, self.world.now
        line = f"{exchange.request.method} {exchange.request.path} of {process}"
        self.world.exchanges += 1
        if exchange.request.method == "POST" and exchange.request.path.endswith(_STARTS):
            self.sent.add(self.world.asking())
        self.check(
            now >= process.resting_until - _EPSILON,
            f"rest: {line} was sent {process.resting_until - now:.2f} s before the vendor wanted to be asked again",
        )
        if exchange.poll:
            self.check(exchange.poll not in process.polling, f"one poll at a time: {line} overlaps another")
            waits = set(process.waits.values()) | {of for of, when in process.waited.items() if when == now}
            listening = waits & {exchange.poll, None} or not self.knows_steps
            self.check(listening, f"nobody listens: {line} was sent all the same")
            process.polling.add(exchange.poll)
        elif (sight := SIGHT.get()) is not None:
            sight.asked_first = min(sight.asked_first, now)
            if sight.no_place_since is not None:
                sight.without_place, sight.no_place_since = sight.without_place + now - sight.no_place_since, None

    def over(self, exchange: Exchange) -> None:
        """Note that a request is no longer under way."""
        if exchange.poll:
            exchange.process.polling.discard(exchange.poll)

    def handled(self, exchange: Exchange) -> None:
        """Note that the vendor sees a request."""
        exchange.process.seen.append(self.world.now)

    def arrives(self, exchange: Exchange, status: int, headers: Mapping[str, str]) -> None:
        """Look at an answer that arrives."""
        process = exchange.process
        if exchange.born is not None and exchange.fault in {None, "slow"}:
            process.own[exchange.born] = self.world.now
        asked = headers.get("Retry-After")
        if (sight := SIGHT.get()) is not None and exchange.reply is not None and _NO_SLOT in exchange.reply.content:
            sight.no_place_since = self.world.now
        attempt = self.world.stand.name == "origami" and exchange.request.method == "POST"
        attempt = attempt and not exchange.request.path.endswith("/cancel")
        if status in {429, 503} and asked and not attempt:
            process.resting_until = max(process.resting_until, self.world.now + float(asked))
        if exchange.poll:
            if status == 200 and exchange.fault not in {"cut", "garbled"}:
                process.heard[exchange.poll] = self.world.now
            self.check(
                exchange.poll in process.client._poller._watches or process.waited.get(exchange.poll) == self.world.now,
                f"dropped: {exchange.request.path} of {process} was read to the end though nobody follows it",
            )

    def budget(self, process: Process, limit: RateLimit | None) -> None:
        """Look at when the vendor saw the requests of a process."""
        if limit is None:
            return
        seen = sorted(process.seen)
        for first, last in zip(seen, seen[limit.count :], strict=False):
            if last - first < limit.seconds - _EPSILON:
                self.broken(
                    f"budget: {process} sent more than {limit.count} requests within {limit.seconds} s, at {first:.3f}"
                )
                return

    # Streams ---------------------------------------------------------------------------------------------------------

    def sees(self, sight: Sight, run: Run) -> None:
        """Look at a state that a stream shows."""
        self._in_time(sight)
        before = sight.states[-1] if sight.states else None
        if before is None:
            return
        who = f"{sight} after {before.id} {before.vendor_status}"
        if before.ref.id == run.ref.id:
            same = run == before and not (sight.progress and run.progress != before.progress)
            self.check(not same, f"transitions: {who} shows the same again")
            self.check(before.status not in _OVER, f"transitions: {who} goes on with {run.vendor_status}")
            back = _RANK.get(run.status, 2) < _RANK.get(before.status, 2)
            answered = before.status is RunStatus.REQUIRES_ACTION and self.world.stand.name == "middesk"
            self.check(not back or answered, f"transitions: {who} goes back to {run.vendor_status}")
        else:
            self.check(
                before.status is RunStatus.REQUIRES_ACTION and before.actions, f"transitions: {who} turns to {run.id}"
            )
            self.check(
                run.id not in {each.id for each in sight.states}, f"transitions: {who} returns to {run.id} of before"
            )

    def fails(self, sight: Sight, error: BaseException, *, left: bool) -> None:
        """Look at an error that a stream, or a call, ended in."""
        kind = type(error).__name__
        self.errors[kind] += 1
        self._in_time(sight)
        if not sight.states and sight.no_place_since is None:
            sight.no_place_since = self.world.now  # whoever tries again waits in line again, which is no part of it
        self.world.note("%s: %s", sight, repr(error)[:300])  # the error itself would hold on to the stream
        if isinstance(error, Flaw):
            return
        if not isinstance(error, AgentRunsError):
            self.broken(f"errors: {sight} raised {error!r}")
            return
        if left:  # whatever says that the client is no longer there
            return
        undue = (ConfigurationError, UnsupportedError, ProtocolError)
        full = isinstance(error, JournalError) and not self.world.disk.full
        if isinstance(error, undue) or full:
            self.broken(f"errors: {sight} raised {kind}: {error}")
        elif self.world.peaceful and not self._is_peaceful(sight, error):
            self.broken(f"errors: without any trouble, {sight} raised {kind}: {error}")
        elif (
            isinstance(error, APIError)
            and not isinstance(error, ServerError | RateLimitedError | NotFoundError | ConflictError)
            and "denied" not in self.world.weather.struck
        ):
            self.check(error.status == 408, f"errors: {sight} raised {kind}: {error}")
        if isinstance(error, RunError) and error.run is not None:
            self._right_run(sight, error.run)
        if isinstance(error, ToolOutcomeUnknownError):
            self.was_cut(sight, error)
        self._patiently(sight, error)
        self._without_claim(sight, error)

    def was_cut(self, sight: Sight, error: ToolOutcomeUnknownError) -> None:
        """Look whether a handler of which nobody knows what it did was truly cut off."""
        cut = any(handling.cut for (scope, _, _), handling in self.handlings.items() if scope == sight.intent.key)
        cut = cut or sight.intent.killed or bool(self.world.disk.failed)
        self.check(cut, f"handlers: without any cut, {sight} met {error}")

    def _in_time(self, sight: Sight) -> None:
        """Look whether a stream has outlived its deadline, which begins with its turn; handlers clean up for 5 s."""
        late = self.world.now - sight.began - sight.in_line - sight.timeout
        self.check(late < 8.0, f"deadlines: {sight} goes on {late:.1f} s after its deadline")
        if sight.no_place_since is None and sight.asked_first != float("inf"):
            late = self.world.now - sight.asked_first - sight.without_place - sight.timeout
            self.check(late < 8.0, f"deadlines: {sight} goes on {late:.1f} s too long after its first request")

    def _without_claim(self, sight: Sight, error: AgentRunsError) -> None:
        """Look whether a start that failed has left its key to others."""
        process = PROCESS.get()
        if process is None or not sight.keyed or sight.states or self.world.disk.failed:
            return
        desk, keys = process.journal, process.client._keys
        if desk is None or keys is None or keys._followed[sight.intent.key] != 1:  # somebody else may be at it again
            return
        if isinstance(error, TransportError | APIError | OutcomeUnknownError):
            for row in self.world.disk.rows("work"):
                mine = row["key"] == sight.intent.key and row["state"] == "starting" and row["owner"] == desk.owner
                self.check(not mine, f"claims: the start of {sight} has failed, and its key is still taken")

    def _patiently(self, sight: Sight, error: AgentRunsError) -> None:
        """Look whether a stream has borne with lost contact for as long as it was told to."""
        process = PROCESS.get()
        last = sight.states[-1] if sight.states else None
        if process is None or last is None or not last.status.in_flight:
            return
        lost = isinstance(error, TransportError | ServerError)
        born = process.own.get(last.id)
        lost = lost or (isinstance(error, NotFoundError) and born is not None and self.world.now <= born + 10.0)
        request = getattr(error, "request", None) or getattr(getattr(error, "response", None), "request", None)
        if not lost or request is None or getattr(error, "final", False):
            return
        polled = self.world.stand.polls.fullmatch(self.world.stand.prefix + request.path)
        if request.method == "GET" and polled and polled[1] == last.id:
            borne = self.world.now - process.heard.get(last.id, 0.0)
            self.check(
                borne >= sight.patience - _EPSILON,
                f"patience: {sight} gave up {borne:.1f} s after the last answer: {error!r:.100}",
            )

    def _is_peaceful(self, sight: Sight, error: AgentRunsError) -> bool:
        if isinstance(error, ConflictError):
            return not sight.intent.keyed or sight.by_hand
        if isinstance(error, RateLimitedError):
            return getattr(self.world.stand, "slots", None) is not None
        if isinstance(error, DeadlineExceededError):
            return True
        troubles = (TransportError, ServerError, APIError, OutcomeUnknownError)
        return not isinstance(error, troubles)

    def _right_run(self, sight: Sight, run: Run) -> None:
        of = self.world.whose(run.id)
        self.check(of == sight.intent.name, f"the right run: {sight} ended at {run.id}, which is of {of}")

    def ends(self, sight: Sight) -> None:
        """Look at how a stream ended that ended by itself."""
        self._in_time(sight)
        if not sight.states:
            self.broken(f"ends: {sight} ended without a state")
            return
        last = sight.states[-1]
        self.check(not last.status.in_flight, f"ends: {sight} ended at {last.id}, which is {last.vendor_status}")
        if sight.handles:
            self.check(
                last.status is not RunStatus.REQUIRES_ACTION,
                f"ends: {sight} ended at {last.id} although it has handlers",
            )
        self._right_run(sight, last)

    # Handlers --------------------------------------------------------------------------------------------------------

    def begins(self, scope: str, run: str, mark: str, repeatable: bool) -> Handling:
        """Look at a handler that is about to be run."""
        handling = self.handlings[scope, run, mark]
        handling.begun += 1
        handling.under_way += 1
        self.check(handling.under_way == 1, f"handlers: that of {mark} is run twice at once, for {scope}")
        if not repeatable:
            self.check(
                handling.begun - handling.flawed <= 1,
                f"handlers: that of {mark} is run {handling.begun} times for {scope}",
            )
        return handling

    def was_told_taken(self, action: Action, text: str) -> None:
        """Note that a person was told that an answer was taken."""
        self.told_taken.append((self.world.stand.mark(action) or "", text))

    # After a process -------------------------------------------------------------------------------------------------

    def quiet(self, process: Process) -> None:
        """Look at an open client of which nobody wants anything any more."""
        client = process.client
        stats = client.stats()
        self.check(stats.watched == 0, f"leaks: {process} watches {stats.watched} runs that nobody follows")
        tasks = client._tasks._running
        self.check(not tasks, f"leaks: {process} has tasks that nobody waits for: {tasks}")
        self._no_waiters(process)
        desk = process.journal
        if desk is not None and not self.world.disk.failed:  # what could not be released is free when the process ends
            for row in self.world.disk.rows("work"):
                self.check(row["owner"] != desk.owner, f"leaks: {process} keeps {row['key']!r}, which nobody follows")

    def left(self, process: Process) -> None:
        """Look at a client that was left."""
        client = process.client
        tasks = [task for task in process.tasks if not task.done() and task is not process.main]
        self.check(not tasks, f"leaks: {process} was left, and there are tasks: {tasks[:3]}")
        poller = client._poller
        timers = [timer for timer in self.world.loop.timers if timer._context.get(PROCESS) is process]  # type: ignore[attr-defined]
        self.check(not timers, f"leaks: {process} was left, and there are timers: {timers[:3]}")
        self.check(not poller._workers, f"leaks: the poller of {process} has workers")
        busy = [watch for watch in poller._watches.values() if watch.listeners or watch.worker]
        self.check(not busy, f"leaks: {process} was left, and {len(busy)} runs are watched")
        self._no_waiters(process)

    def _no_waiters(self, process: Process) -> None:
        permits, transport = process.client._api.permits, process.transport
        waiting = [turn for turn in permits._vendor.calls if not turn.future.done()]
        self.check(not waiting, f"leaks: {len(waiting)} requests of {process} wait for a permit")
        limit, timeouts = transport._limit, transport._timeouts
        waiting_here = [turn for turn in limit._line if not turn.done()]
        self.check(not waiting_here, f"leaks: {len(waiting_here)} requests of {process} wait for a connection")
        self.check(
            limit._free == process.connections,
            f"leaks: {process} has {limit._free} permits for connections of {process.connections}",
        )
        self.check(
            not (timeouts._under_way or timeouts._endless or timeouts._timer),
            f"leaks: {process} has timeouts of exchanges under way",
        )
        self.check(not process.session.under_way, f"leaks: {process} has requests under way")

    # At the end ------------------------------------------------------------------------------------------------------

    def at_the_end(self) -> None:
        """Look at what the vendor has, and at what everybody saw."""
        for row in self.world.disk.rows("work"):
            done = row["key"] in self.world.done
            self.check(not done or row["state"] == "done", f"journal: {row['key']!r} is done, and {row['state']} in it")
        self._starts()
        self._answers()
        self._sights()
        for oddity in self.world.stand.oddities:
            self.broken(f"the right run: {oddity}")

    def _starts(self) -> None:
        births: Counter[str] = Counter()
        following: Counter[str] = Counter()
        for run_id, birth in self.world.stand.lives():
            if birth.segment == 0 and not birth.told:
                births[birth.intent] += 1
            for mark, _ in birth.told:
                following[mark] += 1
            self.world.note("at the end: run %s is of %s, segment %d", run_id, birth.intent, birth.segment)
        # Nothing but a journal knows of a start, or an answer, that its vendor has forgotten.
        forgetful = self.world.weather.struck.get("own error after")
        forgotten = {intent.name for intent in self.world.intents if forgetful and not intent.keyed}
        for name, count in births.items():
            self.check(count <= 1 or name in forgotten, f"starts: {name} was started {count} times")
        for mark, count in following.items():
            lost = mark.partition("/")[0] in forgotten
            lost = lost or (mark in self.unentered and bool(forgetful or self.world.nights))
            self.check(count <= 1 or lost, f"answers: {mark} was answered by {count} runs")

    def _answers(self) -> None:
        taken: defaultdict[str, set[str]] = defaultdict(set)
        for mark, text, by in self.world.stand.answers():
            self.check(
                text in self.given[mark],
                f"answers: {mark} was answered {text!r} by {by}, and what was said is {sorted(self.given[mark])}",
            )
            taken[mark].add(text)
        for mark, text in self.told_taken:
            self.check(
                mark not in taken or text in taken[mark],
                f"the first answer stands: a person was told that {text!r} was taken, and {sorted(taken[mark])} was",
            )

    def _sights(self) -> None:
        truths: dict[str, Run | None] = {}
        for sight in self.sights:
            if not sight.states:
                continue
            last = sight.states[-1]
            final = last.status in _OVER or (
                last.status is RunStatus.REQUIRES_ACTION and self.world.stand.name in {"narrative", "origami"}
            )
            if not final:
                continue
            if last.id not in truths:
                truths[last.id] = self.world.stand.truth(last.ref)
            self.check(truths[last.id] == last, f"ends: {sight} saw {last}, and the truth is {truths[last.id]}")


def collect() -> None:
    """Find what nobody holds any more, as the collector would some day."""
    gc.collect()
