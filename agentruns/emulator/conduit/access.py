"""Who may do what: tokens, the workspaces they reach, and what each call costs of the budget."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from agentruns.emulator.vendor import Request

from .budget import Budget
from .errors import bad_request, forbidden, not_found, too_many
from .rows import ConduitAgent, ConduitEscalation, ConduitMessage, ConduitWorkspace
from .state import State

_ID: Final = re.compile(r"[a-z0-9]+")
RATE_LIMITED: Final = "rate-limited"
_PLANTED_WAIT: Final = 17


class Access:
    """Check a request's token against the workspace it asks about."""

    def __init__(self, state: State, own_token: str) -> None:
        self._state = state
        self._own_token = own_token
        self.budget = Budget(state.options.requests_per_minute)

    def knows(self, token: str | None) -> bool:
        """Tell whether a token is valid."""
        return token is not None and (
            token == self._own_token
            or token in self._state.options.read_only
            or any(token in workspace.tokens for workspace in self._state.workspaces.values())
        )

    def reachable(self, request: Request) -> list[ConduitWorkspace]:
        """List the workspaces of the caller; one token may cover several (introduction)."""
        return [row for row in self._state.workspaces.values() if request.bearer in row.tokens]

    def workspace(self, request: Request, given: str | None) -> ConduitWorkspace:
        """Find the workspace a top-level request has to name."""
        if given is None:
            raise bad_request("workspace_id is required")
        if not _ID.fullmatch(given):
            raise bad_request("Invalid workspace id")
        found = self._state.workspaces.get(given)
        if found is None or request.bearer not in found.tokens:
            raise forbidden()
        return found

    def agent(self, request: Request) -> ConduitAgent:
        """Find the agent of the path."""
        found = self._state.agents.get(request.params["agent"])
        owner = None if found is None or found.deleted else found.workspace_id
        self._owned(request, owner, "Agent")
        assert found is not None
        return found

    def escalation(self, request: Request) -> ConduitEscalation:
        """Find the escalation of the path."""
        found = self._state.escalations.get(request.params["escalation"])
        self._owned(request, None if found is None else found.workspace_id, "Escalation")
        assert found is not None
        return found

    def conversation(self, request: Request) -> tuple[str, list[ConduitMessage]]:
        """Find the conversation of the path."""
        key = request.params["conversation"]
        workspace_id, _ = self._state.threads.get(key, (None, []))
        self._owned(request, workspace_id, "Conversation")
        return key, self._state.messages_of(key)

    def ticket(self, request: Request) -> str:
        """Find the conversation of the ticket of the path."""
        key = self._state.tickets.get(request.params["ticket"])
        self._owned(request, None if key is None else self._state.threads[key][0], "Ticket")
        assert key is not None
        return key

    def contact(self, request: Request) -> str:
        """Find the latest conversation of the contact of the path."""
        key = self._state.conversation_of(request.params["contact"])
        self._owned(request, None if key is None else self._state.threads[key][0], "Contact")
        assert key is not None
        return key

    def pay(self, request: Request) -> None:
        """Take the call from the budget of its workspace, or of its token where it has none (rate-limits)."""
        planted = request.planted == RATE_LIMITED
        wait = _PLANTED_WAIT if planted else self.budget.ask(self._payer(request), self._state.stage.now())
        if wait is not None:
            raise too_many(wait)

    def _owned(self, request: Request, owner: str | None, what: str) -> None:
        """Let pass who reaches the row's workspace; the optional workspace_id has to be the same one."""
        given = request.query.get("workspace_id")
        if given is not None:
            self.workspace(request, given)
        if owner is None or given not in {None, owner}:
            raise not_found(what)
        self.workspace(request, owner)

    def _payer(self, request: Request) -> str:
        """Name the workspace of the row in the path, else the one the caller names and reaches, else the token."""
        state, params = self._state, request.params
        agent = state.agents.get(params.get("agent", ""))
        escalation = state.escalations.get(params["escalation"]) if "escalation" in params else None
        ticket = state.tickets.get(params.get("ticket", ""), "")
        contact = state.conversation_of(params["contact"]) if "contact" in params else None
        thread = state.threads.get(contact or params.get("conversation", ticket))
        body = request.json
        named = (
            agent and agent.workspace_id,
            escalation and escalation.workspace_id,
            thread and thread[0],
            params.get("workspace"),
            request.query.get("workspace_id"),
            body.get("workspace_id") if isinstance(body, Mapping) else None,
        )
        reachable = {row.id for row in self.reachable(request)}
        return next((str(key) for key in named if key in reachable), f"token {request.bearer}")
