"""What an application's OpenTelemetry records: finished spans, and the points of metrics by name."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from attrs import define
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.guides import ROOT

_GUIDE = (ROOT / "agentruns" / "_polling" / "README.md").read_text()
_ROWS = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", _GUIDE, re.MULTILINE)
DOCUMENTED = {name for row in _ROWS for name in re.findall(r"`([a-z0-9_.]+)`", row)}
"""The names in the tables of the guide."""


@define
class Watched:
    """What came out: finished spans, metrics, log records."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    provider: TracerProvider

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.spans
        return span

    @property
    def points(self) -> dict[str, list[NumberDataPoint | HistogramDataPoint]]:
        data = self.reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found


def set_up(monkeypatch: pytest.MonkeyPatch, tracer: Callable[..., Any], meter: Callable[..., Any]) -> None:
    """Have these be what the SDK of the application gives."""
    monkeypatch.setattr(trace, "get_tracer", tracer)
    monkeypatch.setattr(trace, "get_tracer_provider", object)
    monkeypatch.setattr(metrics, "get_meter", meter)


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Stand in for the SDK that an application has set up for its process."""
    watched = Watched(InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider(shutdown_on_exit=False))
    watched.provider.add_span_processor(SimpleSpanProcessor(watched.exporter))
    meters = MeterProvider([watched.reader], shutdown_on_exit=False)
    set_up(monkeypatch, watched.provider.get_tracer, meters.get_meter)
    yield watched
    watched.provider.shutdown()
    meters.shutdown()


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def histograms(otel: Watched, name: str) -> list[HistogramDataPoint]:
    return [point for point in otel.points.get(name, []) if isinstance(point, HistogramDataPoint)]


def numbers(otel: Watched, name: str) -> list[NumberDataPoint]:
    return [point for point in otel.points.get(name, []) if isinstance(point, NumberDataPoint)]
