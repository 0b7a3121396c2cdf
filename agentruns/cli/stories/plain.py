"""What is told of a vendor that has no story of its own: its example is started, and asks once where that can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentruns._values.run import Action, Run
from agentruns.cli.display import Display
from agentruns.cli.emulators import emulator_of, example_of, has_example
from agentruns.client import Client
from agentruns.dialects import load
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError

from .kit import INDENT, Follow, Trial, connected

if TYPE_CHECKING:
    from agentruns.emulator import Emulator, Prompt, Turn


_NOTHING: Final = "{name} cannot be tried: its dialect gives what starts a run by `example()`"


async def tell(name: str, display: Display, follow: Follow) -> Run | None:
    """Start the example of a dialect, and follow the run to its end."""
    from agentruns.emulator import Call, Emulator, Turn

    vendor = Vendor.of(load(name))
    if not has_example(name):
        raise ConfigurationError(_NOTHING.format(name=name))
    asking = Turn(calls=[Call("ask", {"question": "Shall I go on?"})], pending=0.4, running=1.2)
    script = [*([asking] if vendor.resume else []), Turn("Done.", pending=0.3, running=0.9)]
    async with Emulator(emulator_of(name), script=script) as emulator, connected(emulator, name) as client:
        example = example_of(name, emulator)
        display.remark(f"{vendor.NAME}, emulated at {emulator.base_url}.")
        display.remark("")

        def answer(action: Action) -> str:
            display.remark(f"{INDENT}  → the default handler answers {action.name}: yes")
            return "yes"

        tools = None if vendor.resume is None else answer
        last = await follow(client.stream(example, tools=tools))
        display.remark("")
        return last


def trial(name: str) -> Trial:
    """Return what can be tried of any vendor whose dialect gives an example."""
    vendor = Vendor.of(load(name))
    if not has_example(name):
        raise ConfigurationError(_NOTHING.format(name=name))

    def script(prompt: Prompt, pace: float) -> Turn:
        from agentruns.emulator import Call, Turn

        if vendor.resume is None or prompt.index:
            return Turn("Done.", pending=0.5 * pace, running=1.5 * pace)
        return Turn(calls=[Call("ask", {"question": "Shall I go on?"})], pending=0.5 * pace, running=1.5 * pace)

    async def origin(_: Client, __: str, emulator: Emulator[Any]) -> Any:
        return example_of(name, emulator)

    return Trial({"example": ("Start the example", f"What {name} gives as an example.")}, script, origin, {}, {})
