"""Ray itself, which is an extra, and the one actor that all workers of a batch talk to."""

from __future__ import annotations

from typing import Any

from agentruns import _extras as extras
from agentruns._values.exchange import RateLimit

from .shares import Shares


def ray() -> Any:
    """Return the module `ray`; raise `ConfigurationError`, naming the extra, where it is not installed."""
    with extras.require("ray", "workers of Ray need"):
        import ray  # type: ignore[import-not-found,unused-ignore]
    return ray


def here() -> Any:
    """Return Ray's word for this machine and no other."""
    ray()
    from ray.util.scheduling_strategies import (  # type: ignore[import-not-found,unused-ignore]
        NodeAffinitySchedulingStrategy,
    )

    return NodeAffinitySchedulingStrategy(node_id=ray().get_runtime_context().get_node_id(), soft=False)


def office(limit: RateLimit, workers: int, *, name: str | None = None) -> Any:
    """
    Return the actor that divides *limit* among *workers*, on this machine; it ends when nobody holds it any more.

    Under a *name* the workers of this program find it.
    """
    return ray().remote(Shares).options(num_cpus=0, name=name, scheduling_strategy=here()).remote(limit, workers)
