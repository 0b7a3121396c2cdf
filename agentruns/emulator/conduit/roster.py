"""Who is there: workspaces with their members, agents with their triggers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import attrs
import msgspec
from msgspec import UNSET

from .bodies import AgentBody, NewAgentBody, TriggerBody
from .rows import ConduitAgent, ConduitTrigger, ConduitUser, ConduitWorkspace, Object
from .state import State


class Roster:
    """Make and change the rows that runs refer to."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add_workspace(self, name: str, tokens: Collection[str]) -> ConduitWorkspace:
        """Make a workspace of two members."""
        new_id = self._state.new_id
        users = (
            ConduitUser(id=new_id("m4"), email="ada@example.com", first_name="Ada", last_name="Owner", role="admin"),
            ConduitUser(id=new_id("m4"), email="ben@example.com", first_name="Ben", last_name="Member"),
        )
        row = ConduitWorkspace(id=new_id("j5"), name=name, tokens=frozenset(tokens), users=users)
        self._state.workspaces[row.id] = row
        return row

    def create(self, body: NewAgentBody) -> ConduitAgent:
        """Make an agent, with its triggers if the body has some (agents/create)."""
        now = self._state.stage.now()
        bare = ConduitAgent(
            id=self._state.new_id("ag"), workspace_id=body.workspace_id, name=body.name, created=now, updated=now
        )
        return self.change(bare, body)

    def change(self, agent: ConduitAgent, body: AgentBody) -> ConduitAgent:
        """Change the fields that are in the body; lists are replaced as a whole (agents/update)."""
        changes: dict[str, Any] = {name: self._stored(agent, name, value) for name, value in _given(body).items()}
        return self._kept(attrs.evolve(agent, updated=self._state.stage.now(), **changes))

    def delete(self, agent: ConduitAgent) -> None:
        """Delete an agent softly and detach it from its triggers (agents/delete)."""
        self._kept(attrs.evolve(agent, deleted=True, triggers=()))

    def attach(self, agent: ConduitAgent, body: TriggerBody) -> ConduitTrigger:
        """Add one trigger to those an agent has."""
        trigger = self._trigger(agent, body)
        self._kept(attrs.evolve(agent, triggers=(*agent.triggers, trigger)))
        return trigger

    def _stored(self, agent: ConduitAgent, name: str, value: object) -> object:
        if name == "triggers":
            return tuple(self._trigger(agent, body) for body in cast("list[TriggerBody]", value))
        if name == "guardrails":
            found = cast("list[Object]", msgspec.to_builtins(value))
            return tuple({"id": self._state.new_id("gr"), **guardrail} for guardrail in found)
        return tuple(cast("list[object]", msgspec.to_builtins(value))) if isinstance(value, list) else value

    def _trigger(self, agent: ConduitAgent, body: TriggerBody) -> ConduitTrigger:
        now = self._state.stage.now()
        return ConduitTrigger(
            id=self._state.new_id("tr"),
            workspace_id=agent.workspace_id,
            name=body.name,
            description=body.description,
            type=body.type,
            config=body.config,
            enabled=body.enabled,
            created=now,
            updated=now,
        )

    def _kept(self, agent: ConduitAgent) -> ConduitAgent:
        self._state.agents[agent.id] = agent
        return agent


def _given(body: AgentBody) -> dict[str, object]:
    given = {name: getattr(body, name) for name in body.__struct_fields__ if name != "workspace_id"}
    return {name: value for name, value in given.items() if value is not UNSET}
