"""The stories of Origami: clinics and leads to find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentruns._values.run import Action, Run
from agentruns.cli.display import Display
from agentruns.client import Client
from agentruns.dialects import origami

from .kit import INDENT, Follow, Trial, connected, lose, sum_up

if TYPE_CHECKING:
    from agentruns.emulator import Emulator, Prompt, Turn

# The demo -------------------------------------------------------------------------------------------------------------


async def tell(name: str, display: Display, follow: Follow) -> Run | None:
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
        connected(emulator, name) as client,
    ):
        lose(display, emulator, "/api/v2/agents")
        prompt = origami.Prompt("Find independent veterinary clinics in Leeds.")
        display.remark(f"{INDENT}  “{prompt.prompt}”")
        last = await follow(client.stream(prompt, tools=choose))
        sum_up(
            display,
            emulator,
            "/api/v2/agents",
            "the prompt and the answers, once each, by their keys",
        )
        return last


# The console ----------------------------------------------------------------------------------------------------------

_PROMPTS: Final = {
    "clinics": "Find independent veterinary clinics in Leeds.",
    "long": "Find every bakery in Europe.",
    "quick": "How many leads do we have?",
}


def _script(prompt: Prompt, pace: float) -> Turn:
    from agentruns.emulator import Call, Turn

    which = {
        "type": "single-choice",
        "question": "Which clinics count as independent?",
        "suggestedAnswers": ["Single-site only", "Up to three sites", "Anything not owned by a national group"],
    }
    spend = {
        "type": "confirm",
        "question": "Looking up work emails spends credits. Go ahead?",
        "suggestedAnswers": ["Confirm"],
    }
    if prompt.index:
        return Turn(f"Built a list of 23. I was told:\n{prompt.text}", running=2 * pace, iterations=3)
    if prompt.text == _PROMPTS["clinics"]:
        calls = [Call("ask-questions", which), Call("ask-questions", spend)]
        return Turn(calls=calls, running=2.5 * pace, iterations=2)
    if prompt.text == _PROMPTS["long"]:
        return Turn("Stopped at the cap.", running=2.5 * pace, iterations=12)
    return Turn("1,204 leads, in three tables.", running=2.5 * pace, iterations=3)


async def _origin(_: Client, name: str, __: Emulator[Any]) -> origami.Prompt:
    return origami.Prompt(_PROMPTS[name])


TRIAL: Final = Trial(
    {
        "clinics": ("Find clinics", "The agent asks two questions, with suggested answers."),
        "long": ("Find too much", "It stops at its cap of steps, and asks whether to go on."),
        "quick": ("Count leads", "It answers by itself."),
    },
    _script,
    _origin,
    {"retry_after": 0, "steps_max": 12},
    {},
)
