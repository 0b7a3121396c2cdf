"""What a run of Conduit did: the tools that its agent used."""

from __future__ import annotations

from agentruns._values.run import Run
from agentruns.dialects.show import Step, verbatim
from agentruns.dialects.wire import objects


def show_steps(run: Run) -> tuple[Step, ...]:
    """Return the tools that the agent used, with what it gave them and got of them."""
    return tuple(
        Step(str(each.get("name", "")), verbatim(each, ("input", "output")))
        for each in objects(run.raw.get("tool_trace"))
    )
