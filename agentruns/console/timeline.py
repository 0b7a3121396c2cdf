"""What a page shows of one piece of work: its history in order, and what it waits for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from attrs import frozen

from agentruns._keeping.digest import digest
from agentruns._values.run import Action, Run, RunStatus

from .asks import Artifact, Fact, artifacts_of

AnswerRoute: TypeAlias = Literal["inbox", "vendor", "handler", "answered", "nobody"]
"""
Where an answer goes: to the inbox of the program that follows the run, or to the vendor itself. Or why none is wanted:
a handler works on it, it was answered already, or no client can pass it on ("nobody").
"""


@frozen(kw_only=True)
class HistoryEntry:
    """
    One thing that happened; `at` is in seconds since the epoch, None if unknown.

    `kind` is "begun", the status of a state, "action" for what became of an action, or "trouble".
    """

    number: int
    at: float | None
    kind: str
    title: str
    text: str = ""
    run: Run | None = None


@frozen(kw_only=True)
class Group:
    """Actions of a pause that are answered together, by one form."""

    run: Run
    actions: tuple[Action, ...]
    route: AnswerRoute
    changed: bool = False
    """Something else was asked before under the same id: an approval of that is not used."""

    @property
    def id(self) -> str:
        """Return what names the group in a page, the same as long as it waits for the same, arguments included."""
        asked = (part for action in self.actions for part in (action.id, digest(action)))
        text = "\0".join([self.run.vendor, self.run.id, *asked])
        return f"a-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def is_open(self) -> bool:
        """Tell whether an answer is taken."""
        return self.route in {"inbox", "vendor"}


@frozen
class Pause:
    """What a paused run waits for."""

    run: Run
    groups: tuple[Group, ...]

    def group(self, group_id: str) -> Group | None:
        """Return the group of that id."""
        return next((each for each in self.groups if each.id == group_id), None)

    @property
    def open(self) -> int:
        """Return how many actions can be answered from this page."""
        return sum(len(each.actions) for each in self.groups if each.is_open)


def groups(run: Run, routes: Mapping[str, AnswerRoute], changed: Collection[str] = ()) -> tuple[Group, ...]:
    """
    Return the actions of *run* in groups that are answered together; *routes* says by action id where answers go.

    *changed* are the ids of the actions that asked something else before.

    One prompt answers all questions of Origami. Answers that go to the vendor from here are sent all at once, except
    those of Middesk, whose interrupts are answered one by one.
    """
    whole = run.vendor == "origami" or ("vendor" in routes.values() and run.vendor != "middesk")
    if whole and len(set(routes.values())) == 1:
        route = next(iter(routes.values()))
        return (Group(run=run, actions=run.actions, route=route, changed=bool(changed)),)
    return tuple(
        Group(run=run, actions=(action,), route=routes[action.id], changed=action.id in changed)
        for action in run.actions
    )


_TITLES: Mapping[str, str] = {
    RunStatus.PENDING: "Waits for its turn",
    RunStatus.RUNNING: "Runs",
    RunStatus.REQUIRES_ACTION: "Waits for an answer",
    RunStatus.COMPLETED: "Completed",
    RunStatus.FAILED: "Failed",
}


def title_of(run: Run) -> str:
    """Return what a state is called."""
    return _TITLES[run.status]


# What a run has brought -----------------------------------------------------------------------------------------------


@frozen
class Call:
    """A tool that the agent has used, or a change that it has made."""

    name: str
    facts: tuple[Fact, ...]
    text: str = ""
    kind: str = ""
    level: int = 0


def calls_of(run: Run) -> tuple[Call, ...]:
    """Return the tool calls and changes in a state, in the vendor's order."""
    return tuple(_CALLS[run.vendor](run.raw)) if run.vendor in _CALLS else ()


def artifacts_in(run: Run) -> tuple[Artifact, ...]:
    """Return the artifacts in the output of a run, if it has any."""
    output = run.raw.get("output")
    found = output.get("artifacts") if run.vendor == "middesk" and isinstance(output, Mapping) else None
    return artifacts_of(found) if isinstance(found, list) else ()


def text_of(value: Any) -> str:
    """Return an output as text: texts as they are, other JSON with a line for each part."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def trace_of(run: Run) -> tuple[Call, ...]:
    """Return the steps, messages and tool calls in a state, in the vendor's order."""
    return tuple(_TRACES[run.vendor](run.raw)) if run.vendor in _TRACES else calls_of(run)


def messages_of(messages: Iterable[Any]) -> tuple[Call, ...]:
    """Return the messages of a conversation of Narrative, each of their blocks by itself."""
    return tuple(call for message in messages for block in message.content_blocks for call in _block(message, block))


def _block(message: Any, block: Any) -> Iterator[Call]:
    if block.type == "tool_use":
        yield Call(block.name or "", tuple(_facts(block.arguments or {}, block.arguments or {})), kind="calls")
    elif block.type == "tool_result":
        text = "\n".join(inner.text or "" for inner in block.content_blocks)
        yield Call("", (), text, "refused" if block.is_error else "answered")
    else:
        yield Call("", (), block.text or "", message.role)


def _conduit(raw: Mapping[str, Any]) -> Iterator[Call]:
    for each in _objects(raw.get("tool_trace")):
        yield Call(str(each.get("name", "")), tuple(_facts(each, ("input", "output"))))


def _origami(raw: Mapping[str, Any]) -> Iterator[Call]:
    response = raw.get("response")
    for each in _objects(response.get("actions") if isinstance(response, Mapping) else None):
        shown = {key: value for key, value in each.items() if key not in {"type", "tableId", "columnId", "object"}}
        yield Call(str(each.get("type", "")).replace("_", " "), tuple(_facts(shown, shown)))


def _transcript(raw: Mapping[str, Any]) -> Iterator[Call]:
    response = raw.get("response")
    for each in _objects(response.get("transcript") if isinstance(response, Mapping) else None):
        text = text_of(each.get("content") or each.get("result"))
        if text:
            yield Call(text_of(each.get("name")), (), text, text_of(each.get("role")))
        for call in _objects(each.get("toolCalls")):
            given = call.get("input")
            yield Call(text_of(call.get("name")), tuple(_facts({"input": given}, ("input",))), kind="calls")


def _steps(raw: Mapping[str, Any], level: int = 0) -> Iterator[Call]:
    for each in _objects(raw.get("steps")):
        shown = {"agent": each.get("agent"), "status": each.get("status")}
        name = text_of(each.get("label") or each.get("name"))
        yield Call(name, tuple(_facts(shown, shown)), kind=text_of(each.get("type")), level=min(level, 3))
        if level < _DEEPEST:
            yield from _steps(each, level + 1)


def _objects(values: Any) -> Iterator[Mapping[str, Any]]:
    return (each for each in values if isinstance(each, Mapping)) if isinstance(values, list) else iter(())


def _facts(value: Mapping[str, Any], names: Iterable[str]) -> Iterator[Fact]:
    for name in names:
        text = text_of(value.get(name))
        if text:
            yield Fact(name, text, is_block="\n" in text)


_DEEPEST = 20
_CALLS = {"conduit": _conduit, "origami": _origami}
_TRACES = {"origami": _transcript, "middesk": _steps}
