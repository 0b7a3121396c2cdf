"""
What the runs of one client look like from outside: a log line per change, spans and metrics for OpenTelemetry.

Nothing here may break a run, and nothing that an agent reads or writes gets out: no arguments, no outputs, no failure
messages. OpenTelemetry (extra `otel`) is used where it is installed, and records only what the application's own SDK
asks for. `names` has the names.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import ContextVar
from functools import partial
from typing import Final, TypeAlias

from agentruns._values.run import Action, Run, RunRef

from . import lines, names
from .guard import Guard
from .meters import Meters as Meters
from .meters import PollOutcome as PollOutcome
from .names import DEFAULT_ROLES as DEFAULT_ROLES
from .providers import SPANS, set_up
from .spans import Spans, ToolSpan

logger = logging.getLogger("agentruns")

WORK_KEY: Final[ContextVar[str]] = ContextVar("agentruns_work_key", default="")
"""The key of the work for which a run is started or answered; empty where it has none."""


KindOf: TypeAlias = Callable[[Run], str]
"""What tells the kind of a run (a model, a type of agent, an agent): it may have to read the whole state for that."""


def no_kind(_: Run) -> str:
    """Know no kind."""
    return ""


class Telemetry:
    """
    Tell the log and OpenTelemetry what the runs of one client do; one per client.

    Every method returns at once and raises nothing. `opentelemetry` is looked for when this is made: without it there
    are only log lines. Its SDK may be set up before or after. *base_url* is where the vendor is.
    """

    def __init__(self, vendor: str, roles: names.Roles = DEFAULT_ROLES, base_url: str = "") -> None:
        self._vendor = vendor
        self._spans: Spans | None = None
        self._meters: Meters | None = None
        self._guarded = Guard()
        self._set_up: Collection[str] = ()
        self._looked_at = -math.inf  # for an SDK, by the clock
        self._failed: dict[str, str] = {}
        self._clock: Callable[[], float] = time.monotonic
        with self._guarded, suppress(ImportError):  # no extra, no spans
            common = names.of_client(vendor, base_url)
            self._spans = Spans(common, roles)
            self._meters = Meters(common, roles)

    def open(self, clock: Callable[[], float]) -> None:
        """Go by *clock*, which gives the time in seconds, in any thread."""
        self._clock = clock

    @property
    def traces(self) -> bool:
        """Tell whether there are spans, and so whether it matters in which context a run is first seen."""
        return self._spans is not None

    @property
    def _recorded(self) -> Collection[str]:
        """Return which of spans and metrics the application has an SDK for; one that is set up is found in a second."""
        if self._spans is not None and len(self._set_up) < 2 and (now := self._clock()) >= self._looked_at + 1.0:
            self._looked_at = now
            with self._guarded:
                self._set_up = set_up()
        return self._set_up

    # Runs -------------------------------------------------------------------------------------------------------------

    def on_state(
        self,
        run: Run,
        before: Run | None,
        *,
        kind_of: KindOf = no_kind,
        started: bool = False,
        key: str | None = None,
    ) -> None:
        """
        Record a state that was not seen before: log it, and add it to the span of the run.

        *before* is the state of the same run that was seen last, None at first sight: then the span begins, below
        whatever span is current for the caller. It ends with the run; a run that requires action keeps it, since it may
        go on in place. *kind_of* tells what groups the run with others, and is asked only if somebody hears of it.
        *started* says that this client has just started the run, so that its span misses nothing of it. *key* names the
        work, by default `WORK_KEY`.
        """
        within: AbstractContextManager[object] = nullcontext()
        recorded, logs, kind = self._recorded, logger.isEnabledFor(logging.INFO), ""
        if recorded or logs:
            with self._guarded:
                kind = kind_of(run)
        key = WORK_KEY.get() if key is None else key
        if self._failed:
            self._failed.pop(run.id, None)
        if self._spans is not None and SPANS in recorded:
            with self._guarded:
                within = self._spans.on_state(run, before, kind, started, key)
        if self._meters is not None:
            with self._guarded:
                if run.status.is_over:
                    if (started or (before is not None and not before.status.is_over)) and recorded:
                        self._meters.ended(run, kind)
                elif started:
                    self._meters.began(run.id, self._clock())
        if logs:
            with self._guarded, within:
                lines.log(self._vendor, run, before, kind, started, key)

    def on_stopped(self, run: Run, lag: float, took: float | None, kind_of: KindOf = no_kind) -> None:
        """
        Record a run that was seen to be over, or to wait for an answer, and how late.

        *lag* is the seconds between that and the poll that saw it, *took* those since the run began, None where only
        the whole of a run that this client has started tells it.
        """
        if self._meters is not None:
            with self._guarded:
                self._meters.stopped(run, self._clock(), lag, took, self._kind(run, kind_of))

    def on_passed_on(self, run: Run, kind_of: KindOf = no_kind) -> None:
        """Record that an answer to *run* has begun another run: as far as it goes, it is over."""
        if self._meters is not None:
            with self._guarded:
                self._meters.passed_on(run, self._kind(run, kind_of))

    def _kind(self, run: Run, kind_of: KindOf) -> str:
        return kind_of(run) if self._recorded else ""

    def on_failure(self, ref: RunRef, error: Exception) -> None:
        """Take note of what ends the watching of a run, such as a deadline, unless it goes on after all."""
        if self._spans is not None:
            with self._guarded:
                self._failed[ref.id] = type(error).__name__
                if SPANS in self._recorded:
                    self._spans.on_failure(ref, type(error).__name__)

    def on_unwatched(self, ref: RunRef) -> None:
        """Take note that a run is no longer watched: its span, if any, ends as it is, which is no error by itself."""
        self._end(ref.id)

    def _end(self, run_id: str) -> None:
        failed = self._failed.pop(run_id, None)
        if self._spans is not None:
            with self._guarded:
                self._spans.end(run_id)
        if self._meters is not None:
            with self._guarded:
                self._meters.given_up(run_id, self._clock(), failed)

    def tool_of(self, run: Run) -> Callable[[str, Action], AbstractContextManager[None]] | None:
        """Return what gives the context of a handler of *run*, by its name and its action; None without spans."""
        return None if self._spans is None else partial(ToolSpan, self._spans, self._guarded, run)

    def close(self) -> None:
        """End every span that is open, and begin no more."""
        if self._spans is not None:
            for run_id in self._spans.close():
                self._end(run_id)
        if self._meters is not None:
            with self._guarded:
                self._meters.close()

    # Requests ---------------------------------------------------------------------------------------------------------

    def use_budget(self, used: Callable[[float], float | None]) -> None:
        """Ask *used*, in any thread, which part of the rate limit is used at a time; None where there is no limit."""
        if self._meters is not None:
            self._meters.budget = lambda: used(self._clock())

    def polled(self, outcome: PollOutcome) -> None:
        """Count a request that read one run: what came of it."""
        if self._meters is not None:
            with self._guarded:
                self._meters.polls.add(1, self._meters.outcomes[outcome])  # at once: there are many

    def listed(self, runs: int) -> None:
        """Count a request that read a list, and the *runs* that were in it."""
        if self._meters is not None:
            with self._guarded:
                self._meters.listed(runs)

    def watched(self, change: int) -> None:
        """Count so many runs that are followed from now on, or, below zero, no more."""
        if self._meters is not None:
            with self._guarded:
                self._meters.watched(change)

    def limited(self) -> None:
        """Count an answer of 429."""
        if self._meters is not None:
            with self._guarded:
                self._meters.limited()

    def rested(self, seconds: float) -> None:
        """Record a rest of so many seconds that the vendor asked for."""
        if self._meters is not None:
            with self._guarded:
                self._meters.rested(seconds)
