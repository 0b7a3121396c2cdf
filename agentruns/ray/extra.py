"""Ray itself, which is an extra, and the actor that divides the rate limit among the workers of a batch."""

from __future__ import annotations

from typing import Any

from agentruns import _extras as extras
from agentruns._values.exchange import RateLimit

from .budget_server import BudgetServer


def ray() -> Any:
    """Return the module `ray`; raise `ConfigurationError`, naming the extra, where it is not installed."""
    with extras.require("ray", "workers of Ray need"):
        import ray  # type: ignore[import-not-found,unused-ignore]
    return ray


def node_affinity() -> Any:
    """Return the scheduling strategy that keeps an actor on this machine."""
    ray()
    from ray.util.scheduling_strategies import (  # type: ignore[import-not-found,unused-ignore]
        NodeAffinitySchedulingStrategy,
    )

    return NodeAffinitySchedulingStrategy(node_id=ray().get_runtime_context().get_node_id(), soft=False)


def rate_limit_actor(limit: RateLimit, workers: int, *, name: str | None = None) -> Any:
    """
    Start the actor that divides *limit* among *workers*, on this machine; return its handle.

    The actor ends when its last handle is gone. With a *name*, the workers of this program can find it. Raise
    `ConfigurationError` if the extra `ray` is not installed.
    """
    options = {"num_cpus": 0, "name": name, "scheduling_strategy": node_affinity()}
    return ray().remote(BudgetServer).options(**options).remote(limit, workers)
