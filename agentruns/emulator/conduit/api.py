"""The emulated Conduit: what tests look at, what they add, and what the world does beside the caller."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Self

from agentruns.emulator.schema import JSON
from agentruns.emulator.script import Turn
from agentruns.emulator.vendor import Reply, Request, Route, Stage, Vendor, make_options

from .access import RATE_LIMITED, Access
from .bodies import NewAgentBody, TriggerBody
from .endpoints import RUN_NOT_FOUND, Endpoints
from .errors import RefusedError, forbidden
from .options import ConduitOptions
from .roster import Roster
from .rows import ConduitAgent, ConduitEscalation, ConduitMessage, ConduitTrigger, ConduitWorkspace, Mode
from .runs import ConduitRun, RunWriter
from .state import FOREIGN_RUN, NO_RUN, NOT_DISPATCHED, TWO_RUNS, State

_DISPATCH = ("POST", "/v1/agents/*/run")


class Conduit(Vendor):
    """The vendor Conduit: agents, their runs, and the people runs turn to.

    The n-th run of an agent plays the n-th turn of the script; a script function gets the agent's id as
    `conversation_id` and the payload as `text`. Conduit carries out all tools itself, so every call of a turn is a part
    of `tool_trace`. Fields of a run in `Turn.extra`, such as `disposition`, `disposition_reason` or `reflection`, are
    shown at its end; a run with the disposition "escalated" leaves an escalation, which takes its `guest_message`,
    `proposed_response` and `request_for_additional_info` from there too.

    There is one workspace, with one agent, with one trigger of type "event": `workspace_id`, `agent_id`, `trigger_id`.
    """

    name: ClassVar[str] = "conduit"
    prefix: ClassVar[str] = "/v1"
    plants: ClassVar[Mapping[str, tuple[str, str]]] = {
        FOREIGN_RUN: _DISPATCH,
        NO_RUN: _DISPATCH,
        NOT_DISPATCHED: _DISPATCH,
        TWO_RUNS: _DISPATCH,
        RATE_LIMITED: ("*", "/v1/*"),
        RUN_NOT_FOUND: ("GET", "/v1/agents/*/runs/*"),
    }

    def __init__(self, stage: Stage, options: ConduitOptions) -> None:
        super().__init__(stage)
        self.options = options
        self._state = State(stage, options)
        self._roster = Roster(self._state)
        self._access = Access(self._state, stage.token)
        self._routes = Endpoints(self._state, self._access, self._roster, RunWriter(stage, options)).routes()
        self.workspace_id = self.add_workspace("Emulated workspace").id
        agent = self.add_agent("Emulated agent")
        self.agent_id = agent.id
        self.trigger_id = agent.triggers[0].id

    @classmethod
    def build(cls, stage: Stage, options: Mapping[str, object]) -> Self:
        """Make the vendor from the options given to the emulator."""
        return cls(stage, make_options(ConduitOptions, options))

    @property
    def workspaces(self) -> Mapping[str, ConduitWorkspace]:
        """All workspaces by id."""
        with self.lock:
            return dict(self._state.workspaces)

    @property
    def agents(self) -> Mapping[str, ConduitAgent]:
        """All agents by id, oldest first, also deleted ones."""
        with self.lock:
            return dict(self._state.agents)

    @property
    def runs(self) -> Mapping[str, ConduitRun]:
        """All runs by id, in the order of their starts, as they stand now, also those not yet in the list."""
        with self.lock:
            return self._state.runs

    @property
    def escalations(self) -> Mapping[str, ConduitEscalation]:
        """All escalations by id, oldest first."""
        with self.lock:
            return self._state.escalations

    @property
    def runs_started(self) -> int:
        """Count the runs that dispatches started, whether or not the list shows them; foreign ones are not counted."""
        return sum(not run.foreign for run in self.runs.values())

    def example_fields(self) -> Mapping[str, JSON]:
        """Give the agent that there is, and its trigger."""
        return {"agent_id": self.agent_id, "trigger_id": self.trigger_id}

    def runs_of(self, agent_id: str) -> tuple[ConduitRun, ...]:
        """List the runs of one agent, in the order of their starts."""
        return tuple(run for run in self.runs.values() if run.agent_id == agent_id)

    def messages_of(self, conversation_id: str) -> tuple[ConduitMessage, ...]:
        """List the messages of one conversation, oldest first."""
        with self.lock:
            return tuple(self._state.messages_of(conversation_id))

    def add_workspace(self, name: str, *, tokens: Collection[str] | None = None) -> ConduitWorkspace:
        """Add a workspace, reached by these tokens; without them by the emulator's own and the read-only ones."""
        with self.lock:
            own = {self.stage.token, *self.options.read_only}
            return self._roster.add_workspace(name, own if tokens is None else tokens)

    def add_agent(
        self,
        name: str = "Another agent",
        *,
        workspace_id: str | None = None,
        triggers: Sequence[str] = ("event",),
        operation_mode: Mode = "autopilot",
        enabled: bool = True,
        custom_response_delay_ms: float = 0,
        instructions: str = "",
    ) -> ConduitAgent:
        """Add an agent with triggers of these types."""
        with self.lock:
            body = NewAgentBody(
                workspace_id=workspace_id or self.workspace_id,
                name=name,
                operation_mode=operation_mode,
                enabled=enabled,
                custom_response_delay_ms=custom_response_delay_ms,
                instructions=instructions,
                triggers=[TriggerBody(kind, kind.capitalize()) for kind in triggers],
            )
            return self._roster.create(body)

    def add_trigger(
        self,
        kind: str = "event",
        *,
        agent_id: str | None = None,
        name: str = "Another trigger",
        enabled: bool = True,
        config: Mapping[str, JSON] | None = None,
    ) -> ConduitTrigger:
        """Add a trigger of a type to an agent."""
        with self.lock:
            agent = self._state.agents[agent_id or self.agent_id]
            return self._roster.attach(agent, TriggerBody(kind, name, enabled=enabled, config=dict(config or {})))

    def add_ticket(self, conversation_id: str) -> str:
        """Add a ticket to a conversation that is there, and return its id."""
        with self.lock:
            if conversation_id not in self._state.threads:
                raise KeyError(conversation_id)
            ticket_id = self._state.new_id("xd")
            self._state.tickets[ticket_id] = conversation_id
            return ticket_id

    def fire(self, trigger_id: str | None = None, payload: JSON = None, *, turn: Turn | None = None) -> ConduitRun:
        """Fire a trigger as a contact's message, a schedule or a webhook does: a foreign run, in the list at once.

        It plays the next turn of the script unless it has a turn of its own.
        """
        with self.lock:
            wanted = trigger_id or self.trigger_id
            for agent in self._state.agents.values():
                for trigger in agent.triggers:
                    if trigger.id == wanted:
                        return self._state.fire(agent, trigger, {} if payload is None else payload, turn)
        raise KeyError(wanted)

    def spend(self, calls: int, *, workspace_id: str | None = None) -> None:
        """Let other callers spend from a workspace's budget of requests."""
        with self.lock:
            self._access.budget.spend(workspace_id or self.workspace_id, self.stage.now(), calls)

    @property
    def routes(self) -> tuple[Route, ...]:
        """The endpoints."""
        return self._routes

    def admit(self, request: Request) -> Reply | None:
        """Check the token, and that it may write where something is written."""
        if not self._access.knows(request.bearer):
            return RefusedError(401, "Invalid API token").reply()
        if request.method != "GET" and request.bearer in self.options.read_only:
            return forbidden("This token has read access only").reply()
        return None

    def refusal(self, status: int, detail: str, path: str) -> Reply:  # noqa: ARG002
        """Answer with an error in the vendor's shape."""
        return RefusedError(status, detail).reply()
