"""The demo: the main job, from start to finish, on an emulated vendor in this very process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from agentruns._api.retry import Backoff
from agentruns._connect import connect
from agentruns._following.stream import RunStream
from agentruns._values.run import Action, Run
from agentruns.client import Client
from agentruns.dialects import conduit, load, middesk, narrative, origami
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError
from agentruns.tools import Tools

from .display import Display
from .emulators import emulator_of

if TYPE_CHECKING:
    from agentruns.emulator import Emulator

Follow: TypeAlias = Callable[[RunStream], Awaitable[Run | None]]
Story: TypeAlias = Callable[[Display, Follow], Awaitable[Run | None]]

QUICK: Final = Backoff(initial=0.15, maximum=0.4)
INDENT: Final = " " * 8


async def narrative_story(display: Display, follow: Follow) -> Run | None:
    """Ask for a meeting time, lose the answer to the start, answer a tool call, and get the final answer."""
    from agentruns.emulator import Call, Emulator, Turn

    tools = Tools()

    @tools.add
    async def confirm_booking(proposed_slot: str) -> dict[str, bool]:
        """Ask the user to confirm a slot."""
        display.remark(f"{INDENT}  → the handler confirm_booking({proposed_slot!r}) runs here, and says yes")
        return {"confirmed": True}

    slot = {"proposed_slot": "tomorrow, 14:30"}
    script = [
        Turn(calls=[Call("confirm_booking", slot)], pending=0.4, running=1.2, iterations=2),
        Turn("Booked: tomorrow at 14:30.", pending=0.3, running=0.9),
    ]
    async with Emulator("narrative", script=script) as emulator, _connected(emulator, "narrative") as client:
        _lose(display, emulator, "/agents/conversations/*/runs")
        config = narrative.Config(
            model="anthropic.claude-opus-4.6",
            data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
            max_iterations=8,
            max_tokens=2048,
            output_format_schema=narrative.TEXT_SCHEMA,
            client_tools=[narrative.client_tools(tools, alias="user")],
        )
        conversation = await client.perform(narrative.create_conversation(config))
        message = narrative.UserMessage(conversation.id, "Find me a meeting time for tomorrow afternoon.")
        display.remark(f"{INDENT}  “{message.text}”")
        last = await follow(client.stream(message, tools=tools))
        _sum_up(display, emulator, "/agents/conversations/*/runs", "the question and the tool's output, once each")
        return last


async def middesk_story(display: Display, follow: Follow) -> Run | None:
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
    async with Emulator("middesk", script=script) as emulator, _connected(emulator, "middesk") as client:
        _lose(display, emulator, "/v1/runs")
        display.remark(f"{INDENT}  a review of one business; Middesk has no idempotency key, so the run is looked for")
        request = middesk.RunRequest("cip_orchestrator", business_id="b86f3c52-11d9-4f07-8e6a-90c2d5a7714f")
        last = await follow(client.stream(request, tools=decide))
        _sum_up(display, emulator, "/v1/runs", "found again on its thread, never posted twice")
        return last


async def origami_story(display: Display, follow: Follow) -> Run | None:
    """Create an agent, lose the answer, and answer its two questions with one follow-up."""
    from agentruns.emulator import Call, Emulator, Turn

    async def choose(action: Action) -> str:
        first: str = action.arguments["suggestedAnswers"][0]
        display.remark(f"{INDENT}  → the default handler answers {action.arguments['question']!r}: {first}")
        return first

    which = {"type": "single-choice", "question": "Which clinics count?", "suggestedAnswers": ["Single-site only"]}
    spend = {"type": "confirm", "question": "Emails cost credits. Go ahead?", "suggestedAnswers": ["Confirm"]}
    script = [
        Turn(calls=[Call("ask-questions", which), Call("ask-questions", spend)], running=1.2, iterations=2),
        Turn("Built a list of 23 clinics.", running=1.2, iterations=3),
    ]
    async with (
        Emulator("origami", script=script, retry_after=0) as emulator,
        _connected(emulator, "origami") as client,
    ):
        _lose(display, emulator, "/api/v2/agents")
        prompt = origami.Prompt("Find independent veterinary clinics in Leeds.")
        display.remark(f"{INDENT}  “{prompt.prompt}”")
        last = await follow(client.stream(prompt, tools=choose))
        _sum_up(
            display,
            emulator,
            "/api/v2/agents",
            "the prompt and the answers, once each, by their keys",
        )
        return last


async def conduit_story(display: Display, follow: Follow) -> Run | None:
    """Dispatch an agent, lose the answer, and find the run in the agent's list."""
    from agentruns.emulator import Emulator, Turn

    script = [Turn("A plumber is booked for unit 12B at 14:00 today.", pending=0.5, running=2.5)]
    async with Emulator("conduit", script=script) as emulator, _connected(emulator, "conduit") as client:
        _lose(display, emulator, "/v1/agents/*/run")
        order = {"work_order": "WO-4417", "unit": "12B", "priority": "high"}
        display.remark(f"{INDENT}  a work order; a dispatch names no run, so the agent's list is read before and after")
        last = await follow(client.stream(conduit.Dispatch(emulator.state.agent_id, payload=order)))
        _sum_up(display, emulator, "/v1/agents/*/run", "found in the list, never dispatched twice")
        return last


def _connected(emulator: Emulator[Any], vendor: str) -> Client:
    return connect(load(vendor), token=emulator.token, base_url=emulator.base_url, schedule=QUICK, budget=50)


def _lose(display: Display, emulator: Emulator[Any], path: str) -> None:
    """Lose the answer to the first start: the vendor has started the run, and the client is not told."""
    from agentruns.emulator import Fault

    emulator.fail(Fault.drop(committed=True, method="POST", path=path))
    vendor = emulator.state.name.capitalize()
    display.remark(f"{vendor}, emulated at {emulator.base_url}; the answer to the first start will get lost.")
    display.remark("")


def _sum_up(display: Display, emulator: Emulator[Any], path: str, how: str) -> None:
    posts = emulator.requests("POST", path)
    lost = sum(post.status is None for post in posts)
    started = emulator.state.runs_started
    display.remark("")
    display.remark(f"Starts sent: {len(posts)}. Answers lost: {lost}. Runs started: {started}, {how}.")
    display.remark("")


async def _plain_story(name: str, display: Display, follow: Follow) -> Run | None:
    """Start the example of a dialect, and follow the run to its end."""
    from agentruns.emulator import Call, Emulator, Turn

    vendor = Vendor.of(load(name))
    if vendor.example is None:
        raise ConfigurationError(f"{name} has no demo: its dialect gives what starts a run by `example()`")
    asking = Turn(calls=[Call("ask", {"question": "Shall I go on?"})], pending=0.4, running=1.2)
    script = [*([asking] if vendor.resume else []), Turn("Done.", pending=0.3, running=0.9)]
    async with Emulator(emulator_of(name), script=script) as emulator, _connected(emulator, name) as client:
        display.remark(f"{vendor.NAME}, emulated at {emulator.base_url}.")
        display.remark("")

        def answer(action: Action) -> str:
            display.remark(f"{INDENT}  → the default handler answers {action.name}: yes")
            return "yes"

        tools = None if vendor.resume is None else answer
        last = await follow(client.stream(vendor.call("example"), tools=tools))
        display.remark("")
        return last


def story_of(name: str) -> Story:
    """Return the story that `agentruns demo` tells of a vendor."""
    return STORIES.get(name) or partial(_plain_story, name)


STORIES: Final[Mapping[str, Story]] = {
    "narrative": narrative_story,
    "middesk": middesk_story,
    "origami": origami_story,
    "conduit": conduit_story,
}
"""By vendor, the story that `agentruns demo` tells."""
