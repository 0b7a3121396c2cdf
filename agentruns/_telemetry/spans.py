"""The spans of the runs that are not over, and below them those of the handlers that answer them."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING

from agentruns._values.run import Action, Run, RunRef

from . import names
from .failures import error_type

if TYPE_CHECKING:  # imported with the first client, if it is there at all
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from .guard import Guard


class Spans:
    """The spans of the runs of one client; *common* is said with each."""

    def __init__(self, common: names.Attributes, roles: names.Roles) -> None:
        from opentelemetry import trace

        self._tracer: Tracer | None = trace.get_tracer(names.SCOPE, names.version())
        # By the id alone: what follows a run may learn only later of which parent it is.
        self._open: dict[str, Span] = {}
        self._failed: dict[str, str] = {}
        self._parent, self._kind = roles
        self._common = common

    def on_state(
        self, run: Run, before: Run | None, kind: str, started: bool, key: str
    ) -> AbstractContextManager[object]:
        """Carry on the span of a run; return what makes it current, for the log line to be filed under it."""
        from opentelemetry.trace import use_span

        span = self._open.get(run.id)
        if span is None:
            if self._tracer is None or (run.status.is_over and before is not None and before.status.is_over):
                return nullcontext()
            span = self._begin(self._tracer, run.ref, kind, started, key)
        self._failed.pop(run.id, None)  # it goes on
        try:
            self._describe(span, run, before, kind)
        finally:
            if run.status.is_over:
                self.end(run.id)
        return use_span(span, record_exception=False, set_status_on_exception=False)

    def on_failure(self, ref: RunRef, error_type: str) -> None:
        """Note what ends the watching of a run; a run of which no state was seen gets a span for that."""
        if ref.id not in self._open:
            if self._tracer is None:
                return
            self._begin(self._tracer, ref, "", False, "")
        self._failed[ref.id] = error_type

    def _begin(self, tracer: Tracer, ref: RunRef, kind: str, started: bool, key: str) -> Span:
        from opentelemetry.trace import SpanKind

        attributes: dict[str, str | int] = {
            names.OPERATION_NAME: names.INVOKE_AGENT,
            **self._common,
            **self._named(ref, kind),
            names.RUN_ID: ref.id,
            names.STARTED: started,
        }
        if key:
            attributes[names.KEY] = key
        span = tracer.start_span(self._name(kind), kind=SpanKind.CLIENT, attributes=attributes)
        self._open[ref.id] = span
        return span

    def _describe(self, span: Span, run: Run, before: Run | None, kind: str) -> None:
        state = {names.STATUS: run.status.value, names.VENDOR_STATUS: run.vendor_status}
        previous = {names.PREVIOUS_STATUS: before.status.value} if before else {}
        span.add_event(names.STATUS, {**state, **previous})
        span.set_attributes({**state, **self._named(run.ref, kind)})
        if self._kind == names.AGENT_NAME and kind:  # some vendors name it only after a while
            span.update_name(self._name(kind))
        if run.usage:
            for which, count in (("input", run.usage.input_tokens), ("output", run.usage.output_tokens)):
                if count is not None:
                    span.set_attribute(f"gen_ai.usage.{which}_tokens", count)
        _fail(span, error_type(run))

    def _named(self, ref: RunRef, kind: str) -> dict[str, str]:
        named = ((self._parent, ref.parent), (self._kind, kind))
        return {name: value for name, value in named if value}

    def _name(self, kind: str) -> str:
        """Return a name with few values: an agent's own, where it has one, but no id and no model."""
        return f"{names.INVOKE_AGENT} {kind}" if self._kind == names.AGENT_NAME and kind else names.INVOKE_AGENT

    def end(self, run_id: str) -> None:
        """End the span of a run, if it has one that is open."""
        span, failed = self._open.pop(run_id, None), self._failed.pop(run_id, None)
        if span is not None:
            try:
                _fail(span, failed)
            finally:
                span.end()

    def close(self) -> tuple[str, ...]:
        """Begin no more spans; return the ids of the runs whose spans are still open."""
        self._tracer = None
        return tuple(self._open)

    # Handlers ---------------------------------------------------------------------------------------------------------

    def begin_tool(self, run: Run, tool: str, action: Action) -> tuple[Span, Token[Context]] | None:
        """Begin the span of a handler below that of its run, and make it current; None if there are no more spans."""
        if self._tracer is None:
            return None
        from opentelemetry import context, trace

        span = self._tracer.start_span(
            f"{names.EXECUTE_TOOL} {tool}",
            context=trace.set_span_in_context(self._open.get(run.id, trace.get_current_span())),
            attributes={
                names.OPERATION_NAME: names.EXECUTE_TOOL,
                names.PROVIDER: self._common[names.PROVIDER],
                names.TOOL_NAME: tool,
                names.TOOL_CALL_ID: action.id,
                names.TOOL_TYPE: "function",
                names.RUN_ID: run.id,
            },
        )
        return span, context.attach(trace.set_span_in_context(span))


class ToolSpan:
    """A context in which the span of a handler is current; it lets no error of the telemetry out, nor any other in."""

    __slots__ = ("_action", "_begun", "_guarded", "_run", "_spans", "_tool")

    def __init__(self, spans: Spans, guarded: Guard, run: Run, tool: str, action: Action) -> None:
        self._spans = spans
        self._guarded = guarded
        self._run = run
        self._tool = tool
        self._action = action
        self._begun: tuple[Span, Token[Context]] | None = None

    def __enter__(self) -> None:
        with self._guarded:
            self._begun = self._spans.begin_tool(self._run, self._tool, self._action)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._begun is None:
            return
        from opentelemetry import context

        span, token = self._begun
        with self._guarded:
            context.detach(token)
        with self._guarded:
            try:
                if kind is not None and not issubclass(kind, asyncio.CancelledError):
                    _fail(span, kind.__qualname__)
            finally:
                span.end()


def _fail(span: Span, error_type: str | None) -> None:
    """Mark a span as failed, unless there is no type of an error."""
    if error_type is not None:
        from opentelemetry.trace import StatusCode

        span.set_attribute(names.ERROR_TYPE, error_type)
        span.set_status(StatusCode.ERROR)  # no description: the vendor's message may quote the agent
