"""The script: what the emulated agent does in each run, in words no vendor owns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from attrs import Attribute, field, frozen, validators

from .schema import JSON, example


@frozen
class Call:
    """One tool call the agent makes.

    `name` is the name on the wire or, where a vendor prefixes names, the tool's own name. Without `arguments` they are
    invented from the tool's declared schema. A `server_side` call is carried out by the vendor, which gets `result`.
    """

    name: str
    arguments: Mapping[str, JSON] | None = None
    server_side: bool = field(default=False, kw_only=True)
    result: JSON = field(default="ok", kw_only=True)
    is_error: bool = field(default=False, kw_only=True)


def _calls(value: Iterable[Call]) -> tuple[Call, ...]:
    return tuple(value)


def _seconds(_: object, attribute: Attribute[float], value: float) -> None:
    if math.isnan(value) or value < 0:
        raise ValueError(f"{attribute.name} is a number of seconds from 0 on, not {value!r}")


@frozen
class Turn:
    """What one run does, from start to end.

    * `text` or `structured`: the run completes with this answer;
    * `calls`: the run stops for its client-side calls; server-side calls are answered on the way;
    * `error`: the run fails with this error type, or with this (type, message);
    * `status`: a word the run reports, verbatim, while it is running;
    * `pending`, `running`: seconds each state lasts; `math.inf` never ends;
    * `iterations`: parts into which the running time is divided; `usage`: tokens (in, out);
    * `extra`: unknown fields merged into the run's JSON.
    """

    text: str | None = None
    structured: JSON = field(default=None, kw_only=True)
    calls: tuple[Call, ...] = field(default=(), converter=_calls, kw_only=True)
    error: str | tuple[str, str] | None = field(default=None, kw_only=True)
    status: str | None = field(default=None, kw_only=True)
    pending: float = field(default=0.0, kw_only=True, validator=_seconds)
    running: float = field(default=0.02, kw_only=True, validator=_seconds)
    iterations: int = field(default=1, kw_only=True, validator=[validators.instance_of(int), validators.ge(0)])
    usage: tuple[int, int] | None = field(default=None, kw_only=True)
    extra: Mapping[str, JSON] = field(factory=dict, kw_only=True)

    @property
    def lasts(self) -> float:
        """Seconds from the start to the end of the run."""
        return self.pending + self.running


@frozen(kw_only=True)
class Tool:
    """One tool declared to the agent; `name` is the name a `Call` uses."""

    name: str
    description: str | None = None
    input_schema: Mapping[str, JSON] = field(factory=dict)
    server_side: bool = False


@frozen(kw_only=True)
class Output:
    """The caller's answer to one tool call."""

    tool_use_id: str
    name: str
    text: str
    is_error: bool = False


@frozen(kw_only=True)
class Prompt:
    """What a script function is told about the run it plays.

    Either `text` (a user's message) or `outputs` (answers to the calls of an earlier run) is set, or neither where a
    vendor's runs begin without a message. `index` counts the runs of the conversation from 0, `forced` names a tool the
    caller insists on, `agent` the kind of agent where a vendor has several.
    """

    index: int
    conversation_id: str
    text: str | None = None
    outputs: tuple[Output, ...] = ()
    tools: tuple[Tool, ...] = ()
    forced: str | None = None
    system_prompt: str | None = None
    version: int = 0
    agent: str | None = None
    output_schema: Mapping[str, JSON] = field(factory=dict)


Script: TypeAlias = Sequence[Turn] | Callable[[Prompt], Turn | None]
"""The n-th Turn for the n-th run of each conversation, or a function that decides (None: the default agent)."""


def checked(script: Script | None) -> Script:
    """Return the script, or say what a script is."""
    if script is None:
        return ()
    if callable(script):
        return script
    turns: object = script  # callers are not always type-checked
    if isinstance(turns, Sequence) and all(isinstance(turn, Turn) for turn in turns):
        return tuple(turns)
    raise TypeError(f"a script is a sequence of Turn or a function from Prompt to Turn, not {script!r}")


def play(script: Script, prompt: Prompt, otherwise: Callable[[Prompt], Turn] | None = None) -> Turn:
    """Choose the turn for a run; the default agent, or the vendor's own, plays when the script has none."""
    turn = script(prompt) if callable(script) else script[prompt.index] if prompt.index < len(script) else None
    return turn or (otherwise or default_agent)(prompt)


def default_agent(prompt: Prompt) -> Turn:
    """Call the first client-side tool once, then answer with what the tools said; without tools just echo.

    A tool the caller insists on comes before the first.
    """
    if prompt.outputs:
        said = "; ".join(f"{output.name} answered {output.text}" for output in prompt.outputs)
        return _answer(prompt, f"The tools say: {said}")
    echo = _answer(prompt, f"You said: {prompt.text}")
    wanted = [tool for tool in prompt.tools if tool.name == prompt.forced] if prompt.forced else []
    usable = wanted or [tool for tool in prompt.tools if not tool.server_side]
    if not usable:
        return echo
    call = Call(usable[0].name, server_side=usable[0].server_side)
    return Turn(echo.text, structured=echo.structured, calls=[call]) if call.server_side else Turn(calls=[call])


def _answer(prompt: Prompt, text: str) -> Turn:
    properties = prompt.output_schema.get("properties")
    if not isinstance(properties, Mapping) or set(properties) == {"text"}:
        return Turn(text)
    invented = example(prompt.output_schema)
    if isinstance(invented, dict) and "text" in invented:
        invented["text"] = text
    return Turn(structured=invented)
