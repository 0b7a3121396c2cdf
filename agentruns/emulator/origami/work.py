"""The work of one run: from a scripted turn to what the run does, when, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Call, Prompt, Turn

from .errors import Object

ACTIONS: Final = frozenset({
    "table_created",
    "table_restored",
    "column_added",
    "columns_updated",
    "columns_deleted",
    "columns_restored",
    "leads_added",
    "leads_deleted",
    "leads_restored",
})
"""The types of `response.actions[]`: a server-side call of such a name does it."""

ASK: Final = "ask-questions"
PUBLIC_TOOLS: Final = frozenset({ASK, "present-plan", "contact-support", "suggest-document-write"})
FREEFORM: Final = "Or something else"

PARTIAL: Final = "I stopped early; what was built so far is kept."
_SILENT: Final = frozenset({"errored", "timed_out"})  # the prose of such runs is withheld
_OUTRANKED: Final = frozenset({"completed", "needs_input", "incomplete"})  # by the step cap


@frozen(kw_only=True)
class Deed:
    """One change of a table, `after` seconds of the run; with `verbatim` it is only reported."""

    after: float
    type: str
    arguments: Mapping[str, JSON]
    verbatim: bool = False


@frozen(kw_only=True)
class Widget:
    """A call of a tool that users see, and what came of it."""

    name: str
    input: JSON
    result: JSON


@frozen(kw_only=True)
class Ending:
    """How a run ended, and what it leaves for its caller."""

    status: str
    at: float
    steps: int
    text: str | None
    questions: tuple[Object, ...] = ()
    next_actions: tuple[Object, ...] = ()
    widgets: tuple[Widget, ...] = ()


@frozen(kw_only=True)
class Work:
    """What a run will do if nobody stops it; seconds count from its start."""

    turn: Turn
    status: str
    steps: int
    text: str | None
    questions: tuple[Object, ...]
    next_actions: tuple[Object, ...]
    widgets: tuple[Widget, ...]
    deeds: tuple[Deed, ...]

    def steps_at(self, elapsed: float) -> int:
        """Count the loop iterations executed so far by a run that has not ended."""
        worked = elapsed - self.turn.pending
        if worked <= 0 or self.steps == 0:
            return 0
        return min(int(worked * self.steps / self.turn.running), self.steps - 1)

    def ended(self, at: float) -> Ending:
        """End as planned."""
        return Ending(
            status=self.status,
            at=at,
            steps=self.steps,
            text=self.text,
            questions=self.questions,
            next_actions=self.next_actions,
            widgets=self.widgets,
        )

    def stopped(self, status: str, at: float, elapsed: float) -> Ending:
        """End before the plan does."""
        text = None if status in _SILENT else PARTIAL
        return Ending(status=status, at=at, steps=self.steps_at(elapsed), text=text)


def work(turn: Turn, cap: int) -> Work:
    """Plan a run of at most `cap` steps."""
    on_the_way = [call for call in turn.calls if call.server_side]
    questions = [question for call in turn.calls if not call.server_side for question in _questions(call)]
    status, message = _status(turn, cap, asked=bool(questions))
    return Work(
        turn=turn,
        status=status,
        steps=cap if status == "step_cap_hit" else min(turn.iterations, cap),
        text=_text(turn, status, message),
        questions=tuple(questions),
        next_actions=tuple(
            {"label": "Continue", **(call.arguments or {})} for call in on_the_way if call.name == "next_action"
        ),
        widgets=tuple(_widgets(on_the_way, questions)),
        deeds=tuple(_deeds(turn, on_the_way)),
    )


def default_agent(prompt: Prompt) -> Turn:
    """Add three leads to the agent's table, which the first run makes."""
    return Turn(
        f"You said: {prompt.text} I added 3 leads.",
        calls=[
            Call("leads_added", {"leadCount": 3}, server_side=True),
            Call("next_action", {"label": "Find more leads", "type": "find_more_leads"}, server_side=True),
        ],
    )


def _status(turn: Turn, cap: int, *, asked: bool) -> tuple[str, str | None]:
    """Choose the terminal status; the step cap outranks all but cancel, error and timeout (get-run, `steps`)."""
    word, message = (turn.error, None) if isinstance(turn.error, str) or turn.error is None else turn.error
    status = word or ("needs_input" if asked else "completed")
    return "step_cap_hit" if status in _OUTRANKED and turn.iterations >= cap else status, message


def _text(turn: Turn, status: str, message: str | None) -> str | None:
    if status in _SILENT:
        return None
    if turn.text is not None or message is not None:
        return turn.text if turn.text is not None else message
    if turn.structured is not None:
        return json.dumps(turn.structured)
    otherwise = {"completed": "Done.", "needs_input": "I have to ask before I go on."}
    return otherwise.get(status, PARTIAL)


def _questions(call: Call) -> list[Object]:
    """Read the questions of a client-side call; any tool but ask-questions becomes a wish for confirmation."""
    given: Mapping[str, JSON] = call.arguments or {}
    if call.name != ASK:
        said = f"{call.name} {json.dumps(given)}" if given else call.name
        return [_question({"question": f"May I go on with {said}?", **given})]
    several = given.get("questions")
    if isinstance(several, Sequence) and not isinstance(several, str):
        return [_question(one) for one in several if isinstance(one, Mapping)]
    return [_question(given)]


def _question(given: Mapping[str, JSON]) -> Object:
    answers = given.get("suggestedAnswers") or []
    kind = given.get("type") or ("single-choice" if answers else "confirm")
    return {
        "type": kind,
        "question": given.get("question") or "May I go on?",
        "suggestedAnswers": ["Confirm"] if kind == "confirm" else answers,  # get-run: the single entry "Confirm"
        "freeformOption": FREEFORM,
    }


def _widgets(on_the_way: Iterable[Call], questions: Sequence[Object]) -> Iterable[Widget]:
    for call in on_the_way:
        if call.name in PUBLIC_TOOLS:
            yield Widget(name=call.name, input=call.arguments or {}, result=call.result)
    if questions:
        shown: list[JSON] = [{name: q[name] for name in q if name != "freeformOption"} for q in questions]
        yield Widget(name=ASK, input={"questions": shown}, result={"status": "awaiting_user"})


def _deeds(turn: Turn, on_the_way: Iterable[Call]) -> Iterable[Deed]:
    """Spread the changes of tables evenly over the running time."""
    doing = [call for call in on_the_way if call.name in ACTIONS or call.name == "action"]
    for number, call in enumerate(doing, start=1):
        arguments = call.arguments or {}
        after = turn.pending + turn.running * number / (len(doing) + 1)
        if call.name == "action":
            kind = str(arguments.get("type", "action"))
            yield Deed(after=after, type=kind, arguments=arguments, verbatim=True)
        else:
            yield Deed(after=after, type=call.name, arguments=arguments)
