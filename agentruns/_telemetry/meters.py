"""The metrics of one client: how long runs take and what they cost, how they are read, and what the vendor asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from weakref import WeakSet

from agentruns._values.run import Run

from . import names
from .failures import error_type

if TYPE_CHECKING:  # imported with the first client, if it is there at all
    from opentelemetry.metrics import Meter

PollOutcome: TypeAlias = Literal["unchanged", "changed", "lost", "refused"]

_OUTCOMES: Final[tuple[PollOutcome, ...]] = ("unchanged", "changed", "lost", "refused")

_SECONDS: Final = tuple(0.01 * 2**power for power in range(21))
"""Bounds of the histograms of time: those of the conventions, which end at 82 s, and on to three hours."""

_TOKENS: Final = tuple(float(4**power) for power in range(14))
"""Bounds of the histogram of tokens: those of the conventions."""


class Meters:
    """
    The instruments of one client, and what to record with.

    *common* is said with everything; *roles* name the kind of a run, which is said where it is a model or an agent.
    """

    def __init__(self, common: names.Attributes, roles: names.Roles) -> None:
        from opentelemetry import metrics

        meter = metrics.get_meter(names.SCOPE, names.version())
        self._common = common
        self._operation = {names.OPERATION_NAME: names.INVOKE_AGENT, **common}
        self._kind = roles[1] if roles[1] in {names.MODEL, names.AGENT_NAME} else None
        self.outcomes: dict[PollOutcome, names.Attributes] = {
            each: {**common, names.POLL_OUTCOME: each} for each in _OUTCOMES
        }
        self._begun: dict[str, float] = {}
        self._paused: dict[str, float] = {}
        self._watched = 0
        self._is_closed = False
        self._duration = _seconds(meter, "gen_ai.client.operation.duration", "GenAI operation duration.")
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self.polls = meter.create_counter("agentruns.polls", "{poll}", "Requests that read one run.")
        self._lists = meter.create_histogram("agentruns.list.runs", "{run}", "Runs that one request for a list read.")
        self._lag = _seconds(meter, "agentruns.run.lag", "Time between the end of a run and the poll that saw it.")
        self._runs = meter.create_up_down_counter("agentruns.runs.watched", "{run}", "Runs that are followed.")
        self._refusals = meter.create_counter("agentruns.rate_limited", "{response}", "Answers of 429.")
        self._rests = _seconds(meter, "agentruns.rest", "Rests that the vendor asked for.")
        self.budget: Callable[[], float | None] = _none
        """What tells which part of the rate limit is used, in any thread; None where there is no limit."""
        meter.create_observable_gauge(
            "agentruns.budget.used", [_budgets_used], "1", "Part of the requests that may be sent that is used."
        )
        with _lock:
            _live.add(self)

    # Runs -------------------------------------------------------------------------------------------------------------

    def began(self, run_id: str, now: float) -> None:
        """Note that a run has just been started."""
        self._begun[run_id] = now

    def ended(self, run: Run, kind: str) -> None:
        """Record what a run has used in which this client had a part."""
        if run.usage is None:
            return
        for which, count in (("input", run.usage.input_tokens), ("output", run.usage.output_tokens)):
            if count is not None:
                self._tokens.record(count, {**self._of(kind), names.TOKEN_TYPE: which})

    def stopped(self, run: Run, now: float, lag: float, took: float | None, kind: str) -> None:
        """Record that a run was seen to stop, *took* seconds after it began, where that is known; see `Telemetry`."""
        self._lag.record(lag, self._common)
        if took is None and run.id in self._begun:
            took = now - self._begun[run.id]
        if took is None:
            return
        if run.status.is_over:
            self._begun.pop(run.id, None)
            self._took(took, kind, run.status.value, error_type(run))
        else:
            self._begun[run.id], self._paused[run.id] = now - took, now

    def passed_on(self, run: Run, kind: str) -> None:
        """Record a run that stopped for an answer, and that another run goes on from."""
        self.ended(run, kind)
        begun, paused = self._begun.pop(run.id, None), self._paused.pop(run.id, None)
        if begun is not None and paused is not None:
            self._took(paused - begun, kind, run.status.value, None)

    def given_up(self, run_id: str, now: float, failed: str | None) -> None:
        """Record a run that is followed no more before it was over, because of an error of the type *failed*, if so."""
        begun = self._begun.pop(run_id, None)
        self._paused.pop(run_id, None)
        if begun is not None and failed is not None:
            self._took(now - begun, "", "", failed)

    def _took(self, seconds: float, kind: str, status: str, failed: str | None) -> None:
        said = {**self._of(kind), **({names.STATUS: status} if status else {})}
        self._duration.record(seconds, said if failed is None else {**said, names.ERROR_TYPE: failed})

    def _of(self, kind: str) -> dict[str, str | int]:
        return {**self._operation, self._kind: kind} if self._kind and kind else dict(self._operation)

    # Requests ---------------------------------------------------------------------------------------------------------

    def listed(self, runs: int) -> None:
        """Count a request that read a list."""
        self._lists.record(runs, self._common)

    def watched(self, change: int) -> None:
        """Count runs that are followed from now on, or no more; none once this is closed."""
        if not self._is_closed:
            self._watched += change
            self._runs.add(change, self._common)

    def limited(self) -> None:
        """Count an answer of 429."""
        self._refusals.add(1, self._common)

    def rested(self, seconds: float) -> None:
        """Record a rest that the vendor asked for."""
        self._rests.record(seconds, self._common)

    def budget_used(self) -> tuple[names.Attributes, float] | None:
        """Return which part of the rate limit is used, and what is said with that; None where there is no limit."""
        used = self.budget()
        return None if used is None else (self._common, used)

    def close(self) -> None:
        """Follow no run any more, and tell of no budget."""
        with _lock:
            _live.discard(self)
        self.watched(-self._watched)
        self._is_closed = True


def _none() -> None:
    return None


def _seconds(meter: Meter, name: str, description: str) -> Any:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=_SECONDS)


_lock: Final = Lock()
_live: Final[WeakSet[Meters]] = WeakSet()
"""The meters of the clients that are open: a gauge is one for all of them, and asked in a thread of the SDK."""


def _budgets_used(_: object) -> Iterable[Any]:
    """Return the part of each budget that is used; of clients that are alike, the highest."""
    from opentelemetry.metrics import Observation

    with _lock:
        live = list(_live)
    highest: dict[tuple[tuple[str, str | int], ...], float] = {}
    for each in live:
        told = each.budget_used()
        if told is not None:
            who = tuple(told[0].items())
            highest[who] = max(told[1], highest.get(who, 0.0))
    return [Observation(used, dict(who)) for who, used in highest.items()]
