"""Narrative's stored rows, as frozen values, and how they look on the wire."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import attrs
from attrs import field, frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Turn

from .bodies import Config, ToolChoice, builtins
from .loop import Blocks, Draft, Outcome, Role

Stamp: TypeAlias = Callable[[float], str]
"""Writes a second of the emulator's clock as a timestamp."""

Object: TypeAlias = dict[str, JSON]


@frozen
class Caller:
    """Whose token it is; rows belong to a (company, user) pair."""

    company_id: int
    user_id: int


@frozen(kw_only=True)
class Message:
    """One stored message; `client_calls` are the tool_use ids left for the caller to answer."""

    id: str
    conversation_id: str
    sequence_no: int
    role: Role
    content_blocks: Blocks
    run_id: str
    created: float
    client_calls: frozenset[str] = field(default=frozenset(), repr=False)

    def json(self, stamp: Stamp) -> Object:
        """Write the message (list-conversation-messages)."""
        return {
            "id": self.id,
            "sequence_no": self.sequence_no,
            "role": self.role,
            "content_blocks": self.content_blocks,
            "run_id": self.run_id,
            "created_at": stamp(self.created),
        }


@frozen(kw_only=True)
class Conversation:
    """One stored conversation; its version is the number of its messages."""

    id: str
    caller: Caller
    defaults: Config
    name: str | None
    system_prompt: str | None
    created: float
    updated: float
    messages: tuple[Message, ...] = ()

    @property
    def version(self) -> int:
        """The head: highest sequence_no, 0 at creation."""
        return len(self.messages)

    @property
    def latest_assistant(self) -> Message | None:
        """The latest assistant turn, whose client-side calls may be answered."""
        return next((message for message in reversed(self.messages) if message.role == "assistant"), None)

    def appended(self, run_id: str, drafts: tuple[Draft, ...], at: float, new_id: Callable[[], str]) -> Conversation:
        """Append all messages of a run, in one step."""
        added = tuple(
            Message(
                id=new_id(),
                conversation_id=self.id,
                sequence_no=number,
                role=draft.role,
                content_blocks=draft.blocks,
                run_id=run_id,
                created=at,
                client_calls=draft.client_calls,
            )
            for number, draft in enumerate(drafts, start=self.version + 1)
        )
        return attrs.evolve(self, messages=self.messages + added, updated=at if added else self.updated)

    def json(self, stamp: Stamp) -> Object:
        """Write the conversation (get-an-agent-conversation)."""
        return {
            "id": self.id,
            "company_id": self.caller.company_id,
            "user_id": self.caller.user_id,
            "name": self.name,
            "system_prompt": self.system_prompt,
            "defaults": builtins(self.defaults),
            "version": self.version,
            "created_at": stamp(self.created),
            "updated_at": stamp(self.updated),
        }


@frozen(kw_only=True)
class Run:
    """One stored run. `began` is None until its workflow started, `completed` until it ended.

    Rows are snapshots: `status` and `submitted_inference_job_ids` say what was true when the row was read.
    """

    id: str
    number: int
    conversation_id: str
    caller: Caller
    client_op_id: str
    base_version: int
    effective_config: Config
    tool_choice: ToolChoice | None
    turn: Turn
    plan: Outcome = field(repr=False)
    job_ids: tuple[str, ...] = field(repr=False)
    created: float
    began: float | None = None
    status: str = "pending"
    submitted_inference_job_ids: tuple[str, ...] = ()
    completed: float | None = None
    outcome: Outcome | None = None

    @property
    def ends(self) -> float:
        """The second at which the run is finalized."""
        return math.inf if self.began is None else self.began + self.turn.lasts

    def at(self, now: float) -> Run:
        """Look at the run at a moment; a run that ended does not change any more."""
        if self.outcome is not None or self.began is None:
            return self
        elapsed = now - self.began - self.turn.pending
        if elapsed < 0:
            return self
        # get-a-runs-current-state: one job id per iteration, appended when the iteration starts
        per_iteration = self.turn.running / max(len(self.job_ids), 1)
        begun = len(self.job_ids) if per_iteration == 0 else 1 + int(elapsed / per_iteration)
        return attrs.evolve(
            self, status=self.turn.status or "running", submitted_inference_job_ids=self.job_ids[:begun]
        )

    def finalized(self, outcome: Outcome, at: float) -> Run:
        """End the run."""
        return attrs.evolve(
            self,
            status=outcome.status,
            outcome=outcome,
            completed=at,
            submitted_inference_job_ids=self.job_ids[: outcome.iterations],
        )

    def json(self, stamp: Stamp, *, structured: bool) -> Object:
        """Write the run (get-a-runs-current-state); fields that do not apply yet are null."""
        end = self.outcome
        usage: Object | None = None
        if end is not None:
            prompt, completion = end.usage
            usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return {
            "id": self.id,
            "conversation_id": self.conversation_id,
            "company_id": self.caller.company_id,
            "user_id": self.caller.user_id,
            "client_op_id": self.client_op_id,
            "status": self.status,
            "effective_config": builtins(self.effective_config),
            "submitted_inference_job_ids": self.submitted_inference_job_ids,
            "pending_tool_calls": end.pending if end else [],
            "started_at": stamp(self.created),
            # start-a-new-run-on-the-conversation: left out, it acts as auto
            "tool_choice": builtins(self.tool_choice) if self.tool_choice else {"kind": "auto"},
            "iterations_used": end.iterations if end else None,
            "usage": usage,
            "final_text": end.final_text if end else None,
            **({"final_structured_output": end.final_structured_output if end else None} if structured else {}),
            "error": end.error if end else None,
            "completed_at": None if self.completed is None else stamp(self.completed),
            **self.turn.extra,
        }


Absent: TypeAlias = Literal["null", "omit", "random"]
"""How fields that may be null are written while they do not apply."""

NULLABLE = frozenset({
    "name",
    "system_prompt",
    "iterations_used",
    "usage",
    "final_text",
    "final_structured_output",
    "error",
    "completed_at",
})

_PENDING = frozenset({"id", "conversation_id", "client_op_id", "effective_config", "started_at", "status"})

POPULATED: Mapping[str, frozenset[str]] = {
    "pending": _PENDING,
    "running": _PENDING | {"submitted_inference_job_ids"},
}
"""The fields of a run that is not over, by the table of get-a-runs-current-state; one that is over has them all."""
