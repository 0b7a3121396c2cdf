"""The stories of Middesk: a business to review, and a watchlist to check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from agentruns._values.run import Action, Run
from agentruns.cli.display import Display
from agentruns.client import Client
from agentruns.dialects import middesk

from .kit import INDENT, Follow, Trial, connected, lose, sum_up

if TYPE_CHECKING:
    from agentruns.emulator import Emulator, Prompt, Turn
    from agentruns.emulator.schema import JSON

# The demo -------------------------------------------------------------------------------------------------------------


async def tell(name: str, display: Display, follow: Follow) -> Run | None:
    """Review a business, find the run whose start was lost, and resolve an interrupt in place."""
    from agentruns.emulator import Call, Emulator, Turn

    def decide(action: Action) -> dict[str, str]:
        display.remark(f"{INDENT}  → the default handler decides {action.name}, in a worker thread: approve")
        return {"decision": "approve"}

    hit = {"label": "Two possible hits look unrelated. Dismiss them?", "artifacts": []}
    script = [
        Turn(calls=[Call("watchlist_resolution", hit)], running=2.0),
        Turn("Name, TIN and filing match; two list hits dismissed.", running=1.0),
    ]
    async with Emulator("middesk", script=script) as emulator, connected(emulator, name) as client:
        lose(display, emulator, "/v1/runs")
        display.remark(f"{INDENT}  a review of one business; Middesk has no idempotency key, so the run is looked for")
        request = middesk.RunRequest("cip_orchestrator", business_id="b86f3c52-11d9-4f07-8e6a-90c2d5a7714f")
        last = await follow(client.stream(request, tools=decide))
        sum_up(display, emulator, "/v1/runs", "found again on its thread, never posted twice")
        return last


# The console ----------------------------------------------------------------------------------------------------------


def _script(prompt: Prompt, pace: float) -> Turn:
    from agentruns.emulator import Call, Turn

    if prompt.outputs:
        told = prompt.outputs[0].text
        found = {"title": "Review", "type": "cip_summary", "confidence": "high", "summary": f"Decided: {told}"}
        return Turn(structured={"artifacts": [found]}, running=1.5 * pace)
    hit: Mapping[str, JSON] = {
        "label": "Two possible sanctions hits look unrelated. Dismiss them?",
        "artifacts": [
            {
                "title": f"Dismiss hit: {name}",
                "type": "dismissal",
                "confidence": "high",
                "summary": why,
                "sources": [
                    {
                        "url": f"https://sanctions.example.gov/entries/{number}",
                        "source_name": "Example sanctions register",
                        "source_tier": "primary",
                        "source_type": "watchlist",
                    }
                ],
            }
            for name, number, why in (
                ("Marlow Trading FZE", 77120, "Different country, different officers, no shared address."),
                ("Marlowe & Sons", 80311, "Dissolved in 1998."),
            )
        ],
    }
    letter = {"label": "The TIN could not be confirmed. Accept the letter of 3 March instead?", "artifacts": []}
    calls = [Call("watchlist_resolution", hit), Call("tin_resolution", letter)]
    return Turn(calls=calls if prompt.agent == "cip_orchestrator" else calls[:1], running=3 * pace, iterations=3)


async def _origin(_: Client, name: str, __: Emulator[Any]) -> middesk.RunRequest:
    agent = {"review": "cip_orchestrator", "watchlist": "watchlist_resolution"}[name]
    return middesk.RunRequest(agent, business_id="b86f3c52-11d9-4f07-8e6a-90c2d5a7714f")


TRIAL: Final = Trial(
    {
        "review": ("Review a business", "Two interrupts: proposed artifacts to look at, and a plain question."),
        "watchlist": ("Check a watchlist", "One interrupt with two proposed dismissals."),
    },
    _script,
    _origin,
    {"agents": ("cip_orchestrator", "watchlist_resolution", "tin_resolution")},
    {},
)
