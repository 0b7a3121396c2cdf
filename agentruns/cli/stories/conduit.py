"""The stories of Conduit: plumbers to send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentruns._values.run import Run
from agentruns.cli.display import Display
from agentruns.client import Client
from agentruns.dialects import conduit

from .kit import INDENT, Follow, Trial, connected, lose, sum_up

if TYPE_CHECKING:
    from agentruns.emulator import Emulator, Prompt, Turn

# The demo -------------------------------------------------------------------------------------------------------------


async def tell(name: str, display: Display, follow: Follow) -> Run | None:
    """Dispatch an agent, lose the answer, and find the run in the agent's list."""
    from agentruns.emulator import Emulator, Turn

    script = [Turn("A plumber is booked for unit 12B at 14:00 today.", pending=0.5, running=2.5)]
    async with Emulator("conduit", script=script) as emulator, connected(emulator, name) as client:
        lose(display, emulator, "/v1/agents/*/run")
        order = {"work_order": "WO-4417", "unit": "12B", "priority": "high"}
        display.remark(f"{INDENT}  a work order; a dispatch names no run, so the agent's list is read before and after")
        last = await follow(client.stream(conduit.Dispatch(emulator.state.agent_id, payload=order)))
        sum_up(display, emulator, "/v1/agents/*/run", "found in the list, never dispatched twice")
        return last


# The console ----------------------------------------------------------------------------------------------------------

_ORDERS: Final = {
    "plumber": {"work_order": "WO-4417", "unit": "12B", "priority": "high"},
    "failure": {"work_order": "WO-4418", "unit": "?", "priority": "low"},
}


def _script(prompt: Prompt, pace: float) -> Turn:
    from agentruns.emulator import Call, Turn

    if "WO-4418" in (prompt.text or ""):
        return Turn(error=("unit_not_found", "There is no unit “?”."), pending=0.5 * pace, running=2 * pace)
    looked_up = Call("find_contractor", {"trade": "plumber"}, server_side=True, result="Hartley & Daughters, 14:00")
    text = "A plumber is booked for unit 12B at 14:00 today."
    return Turn(text, calls=[looked_up], pending=0.5 * pace, running=3 * pace, usage=(1840, 212))


async def _origin(_: Client, name: str, emulator: Emulator[Any]) -> conduit.Dispatch:
    return conduit.Dispatch(emulator.state.agent_id, payload=_ORDERS[name])


TRIAL: Final = Trial(
    {
        "plumber": ("Send a plumber", "A dispatch that looks something up and completes; Conduit has no pauses."),
        "failure": ("Send one nowhere", "A dispatch that fails."),
    },
    _script,
    _origin,
    {},
    {},
)
