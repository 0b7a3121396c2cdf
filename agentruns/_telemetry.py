"""
What the runs of one client look like from outside: a log line per change, spans and metrics for OpenTelemetry.

Nothing here may break a run, and nothing that an agent reads or writes gets out: no arguments, no outputs, no failure
messages. OpenTelemetry (extra `otel`) is used where it is installed, and records only what the application's own SDK
asks for. Names are those of the OpenTelemetry conventions for generative AI, as they stood in October 2026, not yet
stable; what they have no word for begins with `agentruns.`.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ._values.printable import printable
from ._values.run import Run, RunRef, RunStatus

if TYPE_CHECKING:  # imported with the first client, if it is there at all
    from opentelemetry.trace import Span, Tracer

logger = logging.getLogger("agentruns")

PollOutcome: TypeAlias = Literal["unchanged", "changed", "lost", "refused"]

_SCOPE: Final = "agentruns"
_OPERATION: Final = "invoke_agent"

_AGENT_NAME: Final = "gen_ai.agent.name"
_ERROR_TYPE: Final = "error.type"
_OPERATION_NAME: Final = "gen_ai.operation.name"
_PROVIDER: Final = "gen_ai.provider.name"
_STATUS: Final = "agentruns.run.status"
_VENDOR_STATUS: Final = "agentruns.run.vendor_status"

DEFAULT_ROLES: Final = ("agentruns.run.parent", "agentruns.run.kind")
"""The attributes that the parent of a run and its kind go into, for a vendor that does not name its own."""

_SECONDS: Final = tuple(0.01 * 2**power for power in range(21))
"""Bounds of the histograms of time: those of the conventions, which end at 82 s, and on to three hours."""


class Telemetry:
    """
    Tell the log and OpenTelemetry what the runs of one client do; one per client.

    Every method returns at once and raises nothing. `opentelemetry` is looked for when this is made: without it there
    are only log lines. Its SDK may be set up before or after.
    """

    def __init__(self, vendor: str, roles: tuple[str, str] = DEFAULT_ROLES) -> None:
        self._vendor = vendor
        self._spans: _Spans | None = None
        self._meters: _Meters | None = None
        self._guarded = _Guard()
        with self._guarded, suppress(ImportError):  # no extra, no spans
            self._spans = _Spans(vendor, roles)
            self._meters = _Meters(vendor)

    @property
    def traces(self) -> bool:
        """Tell whether there are spans, and so whether it matters in which context a run is first seen."""
        return self._spans is not None

    def on_state(self, run: Run, before: Run | None, *, kind: str = "", started: bool = False) -> None:
        """
        Record a state that was not seen before: log it, and add it to the span of the run.

        *before* is the state of the same run that was seen last, None at first sight: then the span begins, below
        whatever span is current for the caller. It ends with the run; a run that requires action keeps it, since it may
        go on in place. *kind* is what groups runs: a model, a type of agent, an agent. *started* says that this client
        has just started the run, so that its span misses nothing of it.
        """
        within: AbstractContextManager[object] = nullcontext()
        if self._spans is not None:
            with self._guarded:
                within = self._spans.on_state(run, before, kind, started)
        if logger.isEnabledFor(logging.INFO):
            with self._guarded, within:
                self._log(run, before, kind, started)

    def on_unwatched(self, ref: RunRef) -> None:
        """Take note that a run is no longer watched: its span, if any, ends as it is, which is no error."""
        if self._spans is not None:
            with self._guarded:
                self._spans.end(ref)

    def close(self) -> None:
        """End every span that is open, and begin no more."""
        if self._spans is not None:
            for ref in self._spans.close():
                self.on_unwatched(ref)

    def polled(self, outcome: PollOutcome) -> None:
        """Count a request that read one run: what came of it."""
        if self._meters is not None:
            with self._guarded:
                self._meters.polls.add(1, self._meters.outcomes[outcome])

    def listed(self, runs: int) -> None:
        """Count a request that read a list, and the *runs* that were in it."""
        if self._meters is not None:
            with self._guarded:
                self._meters.listed.record(runs, self._meters.vendor)

    def finished(self, lag: float, duration: float | None, *, error_type: str | None = None) -> None:
        """
        Record a run that was seen to be over, and how late.

        *lag* is the seconds between its end and the poll that saw it, *duration* those that it took, None if unknown.
        *error_type* is the type of its failure, None if it did not fail.
        """
        if self._meters is not None:
            with self._guarded:
                self._meters.lag.record(lag, self._meters.vendor)
                if duration is not None:
                    failed = {} if error_type is None else {_ERROR_TYPE: error_type or "_OTHER"}
                    self._meters.duration.record(duration, {**self._meters.operation, **failed})

    def _log(self, run: Run, before: Run | None, kind: str, started: bool) -> None:
        # One field each, never an object: any formatter, filter or index takes texts and numbers, and a format string
        # can name them. So the texts are always there. The prefix keeps clear of what a LogRecord has already.
        fields: dict[str, str | int] = {
            "agentruns_vendor": self._vendor,
            "agentruns_run_id": printable(run.id),
            "agentruns_parent": printable(run.ref.parent),
            "agentruns_kind": printable(kind),
            "agentruns_status": run.status.value,
            "agentruns_vendor_status": printable(run.vendor_status),
            "agentruns_previous": before.status.value if before else "",
            "agentruns_error_type": printable(_error_type(run) or ""),
        }
        if run.usage:
            counts = {"input": run.usage.input_tokens, "output": run.usage.output_tokens}
            fields.update((f"agentruns_{which}_tokens", count) for which, count in counts.items() if count is not None)
        change = printable(_change(run, before, started))
        logger.info("run %s of %s: %s", fields["agentruns_run_id"], self._vendor, change, extra=fields)


class _Guard:
    """
    A context that lets no error out of it.

    The first one is logged as a warning, later ones for debugging only: what breaks here breaks again with every run.
    """

    __slots__ = ("_has_failed",)

    def __init__(self) -> None:
        self._has_failed = False

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._log_failure(error)
        return True

    def _log_failure(self, error: Exception) -> None:
        level = logging.DEBUG if self._has_failed else logging.WARNING
        self._has_failed = True
        with suppress(Exception):  # the log itself may be broken
            logger.log(level, "telemetry failed; the runs go on without: %r", error, exc_info=error)


class _Spans:
    """The spans of the runs that are not over."""

    def __init__(self, vendor: str, roles: tuple[str, str]) -> None:
        from opentelemetry import trace

        self._tracer: Tracer | None = trace.get_tracer(_SCOPE, _version())
        self._open: dict[RunRef, Span] = {}
        self._parent, self._kind = roles
        self._operation = {_OPERATION_NAME: _OPERATION, _PROVIDER: vendor}

    def on_state(self, run: Run, before: Run | None, kind: str, started: bool) -> AbstractContextManager[object]:
        """Carry on the span of a run; return what makes it current, for the log line to be filed under it."""
        from opentelemetry.trace import use_span

        span = self._open.get(run.ref)
        if span is None:
            if self._tracer is None or (run.status.is_over and before is not None and before.status.is_over):
                return nullcontext()
            span = self._open[run.ref] = self._begin(self._tracer, run, kind, started)
        try:
            self._describe(span, run, before, kind)
        finally:
            if run.status.is_over:
                self.end(run.ref)
        return use_span(span, record_exception=False, set_status_on_exception=False)

    def _begin(self, tracer: Tracer, run: Run, kind: str, started: bool) -> Span:
        from opentelemetry.trace import SpanKind

        attributes: dict[str, str | bool] = {
            **self._operation,
            **self._named(run, kind),
            "agentruns.run.id": run.id,
            "agentruns.run.started": started,
        }
        return tracer.start_span(self._name(kind), kind=SpanKind.CLIENT, attributes=attributes)

    def _describe(self, span: Span, run: Run, before: Run | None, kind: str) -> None:
        from opentelemetry.trace import StatusCode

        state = {_STATUS: run.status.value, _VENDOR_STATUS: run.vendor_status}
        previous = {"agentruns.run.previous_status": before.status.value} if before else {}
        span.add_event(_STATUS, {**state, **previous})
        span.set_attributes({**state, **self._named(run, kind)})
        if self._kind == _AGENT_NAME and kind:  # some vendors name it only after a while
            span.update_name(self._name(kind))
        if run.usage:
            for which, count in (("input", run.usage.input_tokens), ("output", run.usage.output_tokens)):
                if count is not None:
                    span.set_attribute(f"gen_ai.usage.{which}_tokens", count)
        error_type = _error_type(run)
        if error_type:
            span.set_attribute(_ERROR_TYPE, error_type)
            span.set_status(StatusCode.ERROR)  # no description: the vendor's message may quote the agent

    def _named(self, run: Run, kind: str) -> dict[str, str]:
        named = ((self._parent, run.ref.parent), (self._kind, kind))
        return {name: value for name, value in named if value}

    def _name(self, kind: str) -> str:
        """Return a name with few values: an agent's own, where it has one, but no id and no model."""
        return f"{_OPERATION} {kind}" if self._kind == _AGENT_NAME and kind else _OPERATION

    def end(self, ref: RunRef) -> None:
        """End the span of a run, if it has one that is open."""
        span = self._open.pop(ref, None)
        if span is not None:
            span.end()

    def close(self) -> tuple[RunRef, ...]:
        """Begin no more spans; return the runs whose spans are still open."""
        self._tracer = None
        return tuple(self._open)


class _Meters:
    """The instruments of one client, and the attributes to record with."""

    def __init__(self, vendor: str) -> None:
        from opentelemetry import metrics

        meter = metrics.get_meter(_SCOPE, _version())
        self.polls = meter.create_counter("agentruns.polls", "{poll}", "Requests that read one run.")
        self.listed = meter.create_histogram("agentruns.list.runs", "{run}", "Runs that one request for a list read.")
        self.lag = meter.create_histogram(
            "agentruns.run.lag",
            "s",
            "Time between the end of a run and the poll that saw it.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.vendor = {_PROVIDER: vendor}
        self.operation = {_OPERATION_NAME: _OPERATION, _PROVIDER: vendor}
        outcomes: tuple[PollOutcome, ...] = ("unchanged", "changed", "lost", "refused")
        self.outcomes = {each: {_PROVIDER: vendor, "agentruns.poll.outcome": each} for each in outcomes}


def _error_type(run: Run) -> str | None:
    """Return the type of a failure, and nothing else of it; None if the run has not failed."""
    if run.status is not RunStatus.FAILED:
        return None
    return (run.failure.type if run.failure else "") or "_OTHER"


def _change(run: Run, before: Run | None, started: bool) -> str:
    if before is None:
        change = f"started, {run.status}" if started else str(run.status)
    elif before.status is run.status:
        change = f"{run.status}, changed"
    else:
        change = f"{before.status} -> {run.status}"
    error_type = _error_type(run)
    return f"{change} ({error_type})" if error_type else change


@cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("agentruns")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return ""
