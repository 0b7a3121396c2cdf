"""The demo: the main job, from start to finish, on an emulated vendor in this very process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from agentruns.cli.display import Display
from agentruns.client import connect
from agentruns.dialects import load, narrative
from agentruns.model import Run
from agentruns.schedule import Backoff
from agentruns.stream import RunStream
from agentruns.tools import Tools

Follow: TypeAlias = Callable[[RunStream], Awaitable[Run | None]]
Story: TypeAlias = Callable[[Display, Follow], Awaitable[Run | None]]

QUICK: Final = Backoff(initial=0.15, maximum=0.4)


async def narrative_story(display: Display, follow: Follow) -> Run | None:
    """Ask for a meeting time, lose the answer to the start, answer a tool call, and get the final answer."""
    from agentruns.emulator import Call, Emulator, Fault, Turn

    tools = Tools()

    @tools.add
    async def confirm_booking(proposed_slot: str) -> dict[str, bool]:
        """Ask the user to confirm a slot."""
        display.remark(f"{'':8}  → the handler confirm_booking({proposed_slot!r}) runs here, and says yes")
        return {"confirmed": True}

    script = [
        Turn(
            calls=[Call("confirm_booking", {"proposed_slot": "tomorrow, 14:30"})],
            pending=0.4,
            running=1.2,
            iterations=2,
        ),
        Turn("Booked: tomorrow at 14:30.", pending=0.3, running=0.9),
    ]
    async with (
        Emulator("narrative", script=script) as emulator,
        connect(load("narrative"), token=emulator.token, base_url=emulator.base_url, schedule=QUICK) as client,
    ):
        emulator.faults.add(Fault.drop(committed=True, method="POST", path="/agents/conversations/*/runs"))
        display.remark(f"Narrative, emulated at {emulator.base_url}; the answer to the first start will get lost.\n")
        conversation = await client.perform(
            narrative.create_conversation(
                narrative.Config(
                    model="anthropic.claude-opus-4.6",
                    data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
                    max_iterations=8,
                    max_tokens=2048,
                    output_format_schema=narrative.TEXT_SCHEMA,
                    client_tools=[narrative.client_tools(tools, alias="user")],
                )
            )
        )
        question = "Find me a meeting time for tomorrow afternoon."
        display.remark(f"{'':8}  “{question}”")
        last = await follow(client.stream(narrative.UserMessage(conversation.id, question), tools=tools))
        posts = emulator.requests("POST", "/agents/conversations/*/runs")
        display.remark(
            f"\n{len(posts)} starts were sent, 1 answer was lost, {emulator.state.runs_started} runs were started: the "
            "question and\nthe tool's output, once each. That was the main job; `agentruns --help` shows the rest."
        )
        return last


STORIES: Final[Mapping[str, Story]] = {"narrative": narrative_story}
"""By vendor, the story that `agentruns demo` tells."""
