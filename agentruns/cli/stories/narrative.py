"""The stories of Narrative: meetings to book and invoices to pay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from agentruns._values.run import Run
from agentruns.cli.display import Display
from agentruns.client import Client
from agentruns.dialects import narrative
from agentruns.tools import Tools

from .kit import INDENT, Follow, Trial, connected, lose, sum_up

if TYPE_CHECKING:
    from agentruns.emulator import Emulator, Prompt, Turn
    from agentruns.emulator.schema import JSON

# The demo -------------------------------------------------------------------------------------------------------------


async def tell(name: str, display: Display, follow: Follow) -> Run | None:
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
    async with Emulator("narrative", script=script) as emulator, connected(emulator, name) as client:
        lose(display, emulator, "/agents/conversations/*/runs")
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
        sum_up(display, emulator, "/agents/conversations/*/runs", "the question and the tool's output, once each")
        return last


# The console ----------------------------------------------------------------------------------------------------------

_INVOICE_ANSWER: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["approved", "cost_centre"],
    "properties": {
        "approved": {"type": "boolean", "title": "Approved", "description": "Whether the invoice may be paid."},
        "cost_centre": {"title": "Cost centre", "enum": ["operations", "marketing", "research"]},
        "pay_on": {"type": "string", "format": "date", "title": "Pay on"},
        "limit_eur": {"type": "number", "minimum": 0, "title": "Limit in euros", "description": "For the next ones."},
        "remark": {"type": "string", "maxLength": 500, "title": "Remark"},
    },
}

_TOOLS: Final = (
    narrative.Tool(
        "confirm_booking",
        "Ask the user to confirm a slot.",
        {
            "type": "object",
            "required": ["proposed_slot", "minutes"],
            "properties": {
                "proposed_slot": {"type": "string", "title": "Slot", "description": "Day and time."},
                "minutes": {"type": "integer", "minimum": 15, "maximum": 240, "title": "Minutes"},
                "guests": {"type": "array", "items": {"type": "string"}, "title": "Guests"},
            },
        },
    ),
    narrative.Tool(
        "approve_invoice",
        "Ask a person to approve one invoice.",
        {
            "type": "object",
            "required": ["invoice_no", "amount_eur"],
            "properties": {
                "invoice_no": {"type": "string", "title": "Invoice"},
                "amount_eur": {"type": "number", "title": "Amount in euros"},
            },
        },
    ),
)

_ASKED: Final = {
    "booking": "Find me a meeting time for tomorrow afternoon.",
    "invoice": "Have invoice RE-2026-118 paid.",
    "both": "Find a meeting time, and have invoice RE-2026-118 paid.",
    "quick": "What is on today?",
    "failure": "Read every message that there is.",
}


def _script(prompt: Prompt, pace: float) -> Turn:
    from agentruns.emulator import Call, Turn

    slot: Mapping[str, JSON] = {"proposed_slot": "tomorrow, 14:30", "minutes": 45, "guests": ["Ana", "Bo"]}
    book, pay = (
        Call("confirm_booking", slot),
        Call("approve_invoice", {"invoice_no": "RE-2026-118", "amount_eur": 940}),
    )
    if prompt.outputs:
        told = "\n".join(f"{each.name}: {'refused, ' if each.is_error else ''}{each.text}" for each in prompt.outputs)
        return Turn(f"Done. This is what I was told:\n{told}", pending=0.3 * pace, running=1.5 * pace, iterations=2)
    calls = {"booking": [book], "invoice": [pay], "both": [book, pay]}
    for name, asked in _ASKED.items():
        if prompt.text == asked and name in calls:
            return Turn(calls=calls[name], pending=0.5 * pace, running=2.5 * pace, iterations=3)
    if prompt.text == _ASKED["failure"]:
        why = ("AgentLoopMaxIterationsExceeded", "max iterations exceeded after 8 iterations")
        return Turn(error=why, pending=0.5 * pace, running=2 * pace, iterations=8)
    return Turn("Two meetings, and lunch with Ana.", pending=0.5 * pace, running=2.5 * pace, iterations=4)


async def _origin(client: Client, name: str, _: Emulator[Any]) -> narrative.UserMessage:
    config = narrative.Config(
        model="anthropic.claude-opus-4.6",
        data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11",
        max_iterations=8,
        max_tokens=2048,
        output_format_schema=narrative.TEXT_SCHEMA,
        client_tools=[narrative.ClientTools("user", _TOOLS)],
    )
    conversation = await client.perform(narrative.create_conversation(config))
    return narrative.UserMessage(conversation.id, _ASKED[name])


TRIAL: Final = Trial(
    {
        "booking": ("Book a meeting", "The agent asks you to confirm a slot."),
        "invoice": ("Pay an invoice", "It asks for an answer whose JSON Schema is known: a form of five fields."),
        "both": ("Do both", "Two tool calls at once, answered one by one."),
        "quick": ("Just ask", "It answers by itself."),
        "failure": ("Ask too much", "The run fails."),
    },
    _script,
    _origin,
    {},
    {"approve_invoice": _INVOICE_ANSWER},
)
