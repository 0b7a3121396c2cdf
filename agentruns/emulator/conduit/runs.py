"""Conduit's runs: one scripted turn each, and what it shows at a moment of the clock (agents/get-run)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

import attrs
import msgspec
from attrs import frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Call, Turn
from agentruns.emulator.vendor import Stage

from .options import ConduitOptions
from .rows import Object

Phase: TypeAlias = Literal["accepted", "running", "completed", "failed"]

PHASES: Final = ("accepted", "running", "completed", "failed")
"""The values of the list's filter (agents/list-runs)."""

_ALWAYS: Final = frozenset({"id", "agent_id", "status", "created_at"})
_DETAIL: Final = (
    "session_id",
    "disposition_reason",
    "trigger_event_id",
    "response",
    "reflection",
    "tool_trace",
)
# words of Turn.extra that do not go on the run: two are set from its start, the others are the escalation's
_ELSEWHERE: Final = frozenset({
    "contact_id",
    "conversation_id",
    "guest_message",
    "proposed_response",
    "request_for_additional_info",
})
_IN_COST: Final = 3e-6
_OUT_COST: Final = 15e-6


@frozen(kw_only=True)
class ConduitRun:
    """One run as it stands at the second `now`.

    `foreign` runs were started by `Conduit.fire`, the others by a dispatch. `lag` is the response delay where it counts
    into the duration.
    """

    id: str
    run_id: str
    number: int
    agent_id: str
    workspace_id: str
    trigger_id: str
    trigger_event_id: str
    trace_id: str
    session_id: str
    contact_id: str | None
    conversation_id: str | None
    payload: JSON
    foreign: bool
    idempotency_key: str | None
    turn: Turn
    created: float
    shown: float
    lag: float
    now: float

    def at(self, now: float) -> ConduitRun:
        """Look at the run at another second."""
        return attrs.evolve(self, now=now)

    @property
    def begins(self) -> float:
        """The second it begins to run."""
        return self.created + self.turn.pending

    @property
    def ends(self) -> float:
        """The second it ends, maybe never."""
        return self.created + self.lag + self.turn.lasts

    @property
    def visible(self) -> bool:
        """Tell whether the list shows it."""
        return self.shown <= self.now

    @property
    def phase(self) -> Phase:
        """The state; the script may make the wire say another word while it is running."""
        if self.now >= self.ends:
            return "completed" if self.turn.error is None else "failed"
        return "accepted" if self.now < self.begins else "running"

    @property
    def status(self) -> str:
        """The word on the wire."""
        return self.turn.status if self.turn.status is not None and self.phase == "running" else self.phase

    @property
    def ended(self) -> bool:
        """Tell whether it has ended."""
        return self.phase in {"completed", "failed"}

    @property
    def disposition(self) -> JSON:
        """How the matter is left, once it has ended: none for a failed run, unless the script says otherwise."""
        if not self.ended:
            return None
        usual = "resolved" if self.turn.error is None else None
        return self.turn.extra.get("disposition", usual)

    @property
    def response(self) -> str | None:
        """What it says, once it has ended; a structured answer has no field of its own and is written as text."""
        if self.phase != "completed":
            return None
        return self.turn.text if self.turn.structured is None else as_text(self.turn.structured)


def as_text(value: JSON) -> str:
    """Write a JSON value as a person would quote it."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


class RunWriter:
    """Write runs as the options say."""

    def __init__(self, stage: Stage, options: ConduitOptions) -> None:
        self._stage = stage
        self._options = options

    def stamp(self, seconds: float) -> str:
        """Write a second of the emulator's clock, in milliseconds (introduction)."""
        return self._moment(seconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def summary(self, run: ConduitRun) -> Object:
        """Write the sixteen fields of the list (agents/list-runs)."""
        left_out = {*_DETAIL, *self._options.list_lacks}
        return self._written({name: value for name, value in self._all(run).items() if name not in left_out})

    def full(self, run: ConduitRun) -> Object:
        """Write the summary and six more fields (agents/get-run)."""
        return self._written(self._all(run))

    def _all(self, run: ConduitRun) -> Object:
        ended, begun = run.ended, run.phase != "accepted"
        failed = run.phase == "failed"
        usage = self._usage(run)
        stillborn = failed and run.turn.running == 0  # failed before it began
        trace = self._trace(run)
        row: Object = {
            "id": run.id,
            "run_id": run.run_id,
            "agent_id": run.agent_id,
            "workspace_id": run.workspace_id,
            "status": self._options.words.get(run.status, run.status),
            "disposition": run.disposition,
            "contact_id": run.contact_id,
            "conversation_id": run.conversation_id,
            "trigger_id": run.trigger_id,
            "error": self._error(run.turn) if failed else None,
            "duration_ms": self._duration(run) if ended else None,
            "token_usage": None if usage is None else {"input": usage[0], "output": usage[1]},
            "total_cost": round(usage[0] * _IN_COST + usage[1] * _OUT_COST, 4) if usage and ended else None,
            "trace_id": run.trace_id if begun and not stillborn else None,
            "created_at": self.stamp(run.created),
            "completed_at": self.stamp(run.ends) if ended else None,
            "session_id": run.session_id if begun and not stillborn else None,
            "disposition_reason": reason(run),
            "trigger_event_id": run.trigger_event_id,
            "response": run.response,
            "reflection": _reflection(run) if ended else None,
            "tool_trace": trace if trace or self._options.empty_trace == "list" else None,
        }
        # what the script adds to known fields is said at the end, unknown fields always
        extra = {name: v for name, v in run.turn.extra.items() if name not in _ELSEWHERE and (ended or name not in row)}
        return {**row, **extra}

    def _moment(self, seconds: float) -> datetime:
        moment = self._stage.wall(seconds).astimezone(UTC)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def _duration(self, run: ConduitRun) -> int:
        """Count from acceptance: exactly completed_at - created_at, as in the page's example."""
        return (self._moment(run.ends) - self._moment(run.created)) // timedelta(milliseconds=1)

    def _part(self, run: ConduitRun) -> float:
        """Tell which part of the work is done, as far as the vendor shows it."""
        if run.ended:
            return 1.0
        lasts = run.ends - run.begins
        if run.phase == "accepted" or not self._options.grow or math.isinf(lasts):
            return 0.0
        return (run.now - run.begins) / lasts

    def _usage(self, run: ConduitRun) -> tuple[int, int] | None:
        if not run.ended and not (self._options.grow and run.phase == "running"):
            return None
        rounds = run.turn.iterations
        usual = (400 * rounds * (rounds + 1) // 2, 0 if run.turn.error is not None else 40 * rounds)
        total, part = run.turn.usage or usual, self._part(run)
        return int(total[0] * part), int(total[1] * part)

    def _trace(self, run: ConduitRun) -> list[JSON]:
        calls = run.turn.calls
        done = len(calls) if run.ended else int(self._part(run) * (len(calls) + 1))
        return [_traced(call) for call in calls[:done]]

    def _error(self, turn: Turn) -> JSON:
        kind, text = (None, turn.error) if isinstance(turn.error, str) or turn.error is None else turn.error
        if self._options.error_form == "string":
            return text
        return {"message": text} if kind is None else {"type": kind, "message": text}

    def _written(self, row: Object) -> Object:
        match self._options.absent:
            case "null":
                return row
            case "omit":
                return {name: v for name, v in row.items() if v is not None or name in _ALWAYS}
            case _:
                coin = self._stage.ids.coin
                return {name: v for name, v in row.items() if v is not None or name in _ALWAYS or coin()}


def _traced(call: Call) -> Object:
    """Write one call; how a failed one looks is on no page."""
    arguments: Mapping[str, JSON] = call.arguments or {}
    return {"name": call.name, "input": arguments, "output": {"error": call.result} if call.is_error else call.result}


def reason(run: ConduitRun) -> str | None:
    """Tell why: a code for what is resolved, a sentence for what is escalated (escalations/assign)."""
    match run.disposition:
        case None:
            return None
        case "escalated":
            return "The agent asked for a person to decide."
        case _:
            return "answered_from_knowledge"


def _reflection(run: ConduitRun) -> str | None:
    if run.turn.error is not None:
        return None
    if run.disposition == "escalated":
        return "This is beyond what I may decide, so a person has to."
    names: Sequence[str] = [call.name for call in run.turn.calls]
    return f"I used {', '.join(names)} and answered." if names else "I answered from what I know."
