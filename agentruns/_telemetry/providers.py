"""Whether anything comes of what is recorded."""

from __future__ import annotations

from typing import Final

_OF_THE_API: Final = ("opentelemetry.trace", "opentelemetry.metrics")


def is_set_up() -> bool:
    """Tell whether the application has set up an SDK by now: the providers of the API itself record nothing."""
    from opentelemetry import metrics, trace

    providers = (trace.get_tracer_provider(), metrics.get_meter_provider())
    return any(not type(each).__module__.startswith(_OF_THE_API) for each in providers)
