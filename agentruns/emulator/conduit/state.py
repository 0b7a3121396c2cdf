"""Conduit's state: agents, their runs, and what the runs leave behind, moved on by the clock alone."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Prompt, Turn
from agentruns.emulator.vendor import Stage

from .bodies import DispatchBody
from .errors import bad_request, not_found
from .options import ConduitOptions
from .rows import ConduitAgent, ConduitEscalation, ConduitMessage, ConduitTrigger, ConduitWorkspace, Object, Review
from .runs import ConduitRun, as_text, reason

NO_RUN: Final = "no-run"
TWO_RUNS: Final = "two-runs"
NOT_DISPATCHED: Final = "not-dispatched"
FOREIGN_RUN: Final = "foreign-run"


class State:
    """The rows. Escalations and messages a run will leave are made with it, and seen when their time has come."""

    def __init__(self, stage: Stage, options: ConduitOptions) -> None:
        self.stage = stage
        self.options = options
        self.workspaces: dict[str, ConduitWorkspace] = {}
        self.agents: dict[str, ConduitAgent] = {}
        self.threads: dict[str, tuple[str, list[ConduitMessage]]] = {}  # workspace and messages, by conversation
        self.tickets: dict[str, str] = {}  # their conversations
        self._runs: dict[str, ConduitRun] = {}
        self._by_agent: dict[str, list[tuple[float, int, str]]] = {}
        self._turns_played: dict[str, int] = {}
        self._escalations: dict[str, ConduitEscalation] = {}
        self._answers: dict[tuple[str, str], Object] = {}

    def new_id(self, kind: str) -> str:
        """Make an opaque id of 32 lowercase letters and digits."""
        return self.stage.ids.word(kind, 30).lower()

    @property
    def runs(self) -> dict[str, ConduitRun]:
        """All runs by id, in the order of their starts, as they stand now, also those not yet shown."""
        now = self.stage.now()
        return {key: run.at(now) for key, run in self._runs.items()}

    @property
    def escalations(self) -> dict[str, ConduitEscalation]:
        """The escalations there are by now, oldest first."""
        now = self.stage.now()
        found = sorted((row.created, n, row) for n, row in enumerate(self._escalations.values()) if row.created <= now)
        return {row.id: row for _, _, row in found}

    def runs_of(self, agent_id: str) -> Iterator[ConduitRun]:
        """Walk over the runs of an agent which are shown by now, newest first."""
        now = self.stage.now()
        for _, _, key in reversed(self._by_agent.get(agent_id, ())):
            run = self._runs[key].at(now)
            if run.visible:
                yield run

    def run(self, agent_id: str, key: str) -> ConduitRun:
        """Find a run of an agent by its id, which is not its run_id."""
        found = self._runs.get(key)
        if found is None and self.options.accept_execution_ids:
            found = next((run for run in self._runs.values() if run.run_id == key), None)
        if found is None or found.agent_id != agent_id or not (run := found.at(self.stage.now())).visible:
            raise not_found("Agent run")
        return run

    def messages_of(self, conversation_id: str) -> list[ConduitMessage]:
        """List the messages of a conversation by now, oldest first."""
        now = self.stage.now()
        _, messages = self.threads[conversation_id]
        return sorted((message for message in messages if message.sent <= now), key=lambda message: message.sent)

    def conversation_of(self, contact_id: str) -> str | None:
        """Find the latest conversation with a contact."""
        runs = reversed(self._runs.values())
        return next((run.conversation_id for run in runs if run.contact_id == contact_id), None)

    def dispatch(self, agent: ConduitAgent, body: DispatchBody, key: str | None, planted: str | None) -> Object:
        """Fire a trigger at a caller's wish; the answer names no run (agents/run)."""
        memo = (agent.id, key or "")
        if key and self.options.honour_idempotency_key and (known := self._answers.get(memo)):
            return known
        if not agent.works and self.options.inactive_agents == "refuse":
            raise bad_request("This agent is inactive")
        trigger = _chosen(agent, body.trigger_id)
        # agents/run: the payload is for webhook and workflow triggers, and ignored for cron
        payload: JSON = {} if trigger.type == "cron" else body.payload
        if planted == FOREIGN_RUN:
            self.fire(agent, trigger, payload, Turn("I am the run of another caller."))
        silent = not agent.works and self.options.inactive_agents == "ignore"
        dispatched = self.options.dispatched and planted != NOT_DISPATCHED
        started: list[ConduitRun] = []
        if dispatched and not silent:
            count = {NO_RUN: 0, TWO_RUNS: 2}.get(planted or "", self.options.runs_per_dispatch)
            started = self._start(agent, trigger, payload, count=count, key=key)
        answer: Object = {"dispatched": dispatched, "trigger_id": trigger.id, "trigger_type": trigger.type}
        if self.options.names_run is not None and started:
            answer[self.options.names_run] = started[0].id
        if key:
            self._answers[memo] = answer
        return answer

    def fire(self, agent: ConduitAgent, trigger: ConduitTrigger, payload: JSON, turn: Turn | None) -> ConduitRun:
        """Fire a trigger as the world does: the run shows at once."""
        (run,) = self._start(agent, trigger, payload, turn=turn, foreign=True)
        return run

    def _start(
        self,
        agent: ConduitAgent,
        trigger: ConduitTrigger,
        payload: JSON,
        *,
        count: int = 1,
        key: str | None = None,
        turn: Turn | None = None,
        foreign: bool = False,
    ) -> list[ConduitRun]:
        event_id = self.new_id("te")
        return [self._started(agent, trigger, payload, event_id, key, turn, foreign) for _ in range(count)]

    def _started(
        self,
        agent: ConduitAgent,
        trigger: ConduitTrigger,
        payload: JSON,
        event_id: str,
        key: str | None,
        turn: Turn | None,
        foreign: bool,
    ) -> ConduitRun:
        turn = turn or self._played(agent, payload)
        now, ids = self.stage.now(), self.stage.ids
        wait = agent.custom_response_delay_ms / 1000
        created = now + (wait if self.options.response_delay == "before" else 0)
        shown = created + (0 if foreign else self.options.shown_after)
        talks = trigger.type == "message" or self._escalates(turn)
        run = ConduitRun(
            id=self.new_id("ar"),
            run_id=f"run_{ids.uuid()[:8]}",
            number=len(self._runs),
            agent_id=agent.id,
            workspace_id=agent.workspace_id,
            trigger_id=trigger.id,
            trigger_event_id=event_id,
            trace_id=ids.uuid().replace("-", "")[:16],
            session_id=f"sess_{ids.uuid()[:6]}",
            contact_id=self._party(turn, "contact_id", "co", talks),
            conversation_id=self._party(turn, "conversation_id", "cv", talks),
            payload=payload,
            foreign=foreign,
            idempotency_key=key,
            turn=turn,
            created=shown if self.options.created_when == "shown" else created,
            shown=shown,
            lag=wait if self.options.response_delay == "inside" else 0,
            now=now,
        )
        self._runs[run.id] = run
        insort(self._by_agent.setdefault(agent.id, []), (run.created, run.number, run.id))
        self._leave(agent, run, reply_after=wait if self.options.response_delay == "after" else 0)
        return run

    def _escalates(self, turn: Turn) -> bool:
        """Tell whether a turn leaves the matter to a person."""
        return turn.extra.get("disposition") in self.options.escalated_words

    def _played(self, agent: ConduitAgent, payload: JSON) -> Turn:
        index = self._turns_played.get(agent.id, 0)
        turn = self.stage.play(
            Prompt(
                index=index,
                conversation_id=agent.id,
                agent=agent.id,
                text=as_text(payload),
                system_prompt=agent.instructions or None,
                output_schema=agent.answer_schema,
            )
        )
        self._turns_played[agent.id] = index + 1
        return turn

    def _party(self, turn: Turn, name: str, kind: str, talks: bool) -> str | None:
        given = turn.extra.get(name)
        if given is not None:
            return str(given)
        return self.new_id(kind) if talks else None

    def _leave(self, agent: ConduitAgent, run: ConduitRun, *, reply_after: float) -> None:
        """Write the conversation of a run and what it hands over to a person, if anything."""
        if run.conversation_id is None:
            return
        end, said = run.at(run.ends), as_text(run.payload)
        guest = _text(run.turn, "guest_message", said) or said
        contact = run.contact_id or ""
        self.write(run.workspace_id, run.conversation_id, guest, run.created, contact, "Guest", inbound=True)
        if self._escalates(run.turn):
            row = ConduitEscalation(
                id=self.new_id("k5"),
                workspace_id=run.workspace_id,
                conversation_id=run.conversation_id,
                contact_id=contact,
                agent_run_id=run.id,
                agent_id=run.agent_id,
                disposition_reason=_text(run.turn, "disposition_reason", reason(end)) or "",
                created=run.ends,
                guest_message=guest,
                proposed_response=_text(run.turn, "proposed_response", end.response),
                question=_text(run.turn, "request_for_additional_info", None),
            )
            self._escalations[row.id] = row
        elif end.response is not None and agent.operation_mode == "autopilot":  # else it is only proposed
            self.write(
                run.workspace_id, run.conversation_id, end.response, run.ends + reply_after, agent.id, agent.name
            )

    def write(
        self,
        workspace_id: str,
        conversation_id: str,
        body: str,
        at: float,
        by: str,
        name: str,
        *,
        inbound: bool = False,
    ) -> ConduitMessage:
        """Put a message into a conversation, which it may begin."""
        message = ConduitMessage(
            id=self.new_id("ms"),
            workspace_id=workspace_id,
            conversation_id=conversation_id,
            body=body,
            direction="inbound" if inbound else "outbound",
            sent=at,
            sender_id=by,
            sender_name=name,
        )
        self.threads.setdefault(conversation_id, (workspace_id, []))[1].append(message)
        return message

    def assign(self, row: ConduitEscalation, user_id: str) -> ConduitEscalation:
        """Give an escalation to a member of its workspace (escalations/assign)."""
        if user_id not in {user.id for user in self.workspaces[row.workspace_id].users}:
            raise bad_request("assignee_id is not a member of this workspace")
        return self._changed(attrs.evolve(row, assignee_id=user_id))

    def resolve(self, row: ConduitEscalation, status: Review) -> ConduitEscalation:
        """Settle an escalation; its run stays as it is (escalations/resolve)."""
        if row.status != "pending" and not self.options.resolve_again:
            raise bad_request(f"This escalation is already {row.status}")
        reviewer = self.workspaces[row.workspace_id].users[0].id
        return self._changed(attrs.evolve(row, status=status, reviewed=self.stage.now(), reviewed_by=reviewer))

    def _changed(self, row: ConduitEscalation) -> ConduitEscalation:
        self._escalations[row.id] = row
        return row


def _chosen(agent: ConduitAgent, trigger_id: str | None) -> ConduitTrigger:
    """Find the trigger a dispatch fires; trigger_id is required when there is more than one (agents/run)."""
    attached: Mapping[str, ConduitTrigger] = {trigger.id: trigger for trigger in agent.triggers}
    if trigger_id is not None:
        if trigger_id not in attached:
            raise not_found("Trigger")
        trigger = attached[trigger_id]
    elif not attached:
        raise bad_request("This agent has no trigger")
    elif len(attached) > 1:
        raise bad_request("trigger_id is required: this agent has several triggers")
    else:
        (trigger,) = attached.values()
    if trigger.type == "message":
        raise bad_request("Channel and message triggers are not supported")
    if not trigger.enabled:
        raise bad_request("This trigger is disabled")
    return trigger


def _text(turn: Turn, name: str, usual: str | None) -> str | None:
    given = turn.extra.get(name, usual)
    return None if given is None else as_text(given)
