"""Conduit's endpoints: read the request, ask the state, write the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, get_args

from agentruns.emulator.vendor import Reply, Request, Route

from .access import Access
from .bodies import AgentBody, AssignBody, DispatchBody, NewAgentBody, ResolveBody, SendBody, decode
from .errors import RefusedError, not_found
from .paging import Row, choice, page
from .roster import Roster
from .rows import ConduitEscalation, EscalationStatus, Object
from .runs import PHASES, RunWriter
from .state import State

RUN_NOT_FOUND = "run-not-found"

R = TypeVar("R", bound=Row)


class Endpoints:
    """The functions behind the paths."""

    def __init__(self, state: State, access: Access, roster: Roster, writer: RunWriter) -> None:
        self._state = state
        self._options = state.options
        self._access = access
        self._roster = roster
        self._writer = writer

    def routes(self) -> tuple[Route, ...]:
        """List the endpoints."""
        return tuple(
            Route(method, f"/v1{template}", self._guarded(handle))
            for method, template, handle in (
                ("POST", "/agents/{agent}/run", self._dispatch),
                ("GET", "/agents/{agent}/runs", self._runs),
                ("GET", "/agents/{agent}/runs/{run}", self._run),
                ("GET", "/agents", self._agents),
                ("POST", "/agents", self._create),
                ("GET", "/agents/{agent}", self._agent),
                ("PATCH", "/agents/{agent}", self._update),
                ("DELETE", "/agents/{agent}", self._delete),
                ("GET", "/escalations", self._escalations),
                ("POST", "/escalations/{escalation}/assign", self._assign),
                ("POST", "/escalations/{escalation}/resolve", self._resolve),
                ("GET", "/conversations/{conversation}", self._conversation),
                ("GET", "/conversations/{conversation}/messages", self._messages),
                ("POST", self._options.send_path, self._send),
                ("POST", "/tickets/{ticket}/messages", self._send_on_ticket),
                ("POST", "/contacts/{contact}/messages", self._send_to_contact),
                ("GET", "/workspaces", self._workspaces),
                ("GET", "/workspaces/{workspace}/users", self._users),
            )
        )

    def _guarded(self, handle: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
        def guarded(request: Request) -> Reply:
            try:
                self._access.pay(request)
                return handle(request)
            except RefusedError as error:
                return error.reply()

        return guarded

    def _dispatch(self, request: Request) -> Reply:
        agent = self._access.agent(request)
        body = decode(DispatchBody, request.content)
        key = request.headers.get("Idempotency-Key")
        return _one(self._state.dispatch(agent, body, key, request.planted), self._options.dispatch_code)

    def _runs(self, request: Request) -> Reply:
        agent = self._access.agent(request)
        status = choice(request, "status", PHASES)
        rows = self._state.runs_of(agent.id)
        write = self._writer.summary
        return Reply.of(
            200, page(rows, request, write, self._options.cursors, lambda row: status in {None, row.status})
        )

    def _run(self, request: Request) -> Reply:
        agent = self._access.agent(request)
        if request.planted == RUN_NOT_FOUND:
            raise not_found("Agent run")
        return _one(self._writer.full(self._state.run(agent.id, request.params["run"])))

    def _agents(self, request: Request) -> Reply:
        workspace = self._access.workspace(request, request.query.get("workspace_id"))
        rows = [row for row in reversed(self._state.agents.values()) if row.workspace_id == workspace.id]
        stamp, style = self._writer.stamp, self._options.cursors
        return Reply.of(200, page(rows, request, lambda row: row.json(stamp), style, lambda row: not row.deleted))

    def _agent(self, request: Request) -> Reply:
        return _one(self._access.agent(request).json(self._writer.stamp))

    def _create(self, request: Request) -> Reply:
        body = decode(NewAgentBody, request.content)
        self._access.workspace(request, body.workspace_id)
        return _one(self._roster.create(body).json(self._writer.stamp), self._options.create_code)

    def _update(self, request: Request) -> Reply:
        agent = self._access.agent(request)
        body = decode(AgentBody, request.content)
        return _one(self._roster.change(agent, body).json(self._writer.stamp))

    def _delete(self, request: Request) -> Reply:
        self._roster.delete(self._access.agent(request))
        return Reply()  # what the body holds is on no page

    def _escalations(self, request: Request) -> Reply:
        workspace = self._access.workspace(request, request.query.get("workspace_id"))
        status = choice(request, "status", get_args(EscalationStatus))
        rows = [row for row in reversed(self._state.escalations.values()) if row.workspace_id == workspace.id]
        stamp, older = self._writer.stamp, self._options.older_escalations
        return Reply.of(
            200,
            page(
                rows,
                request,
                lambda row: row.json(stamp, older=older),
                self._options.cursors,
                lambda row: status in {None, row.status},
            ),
        )

    def _assign(self, request: Request) -> Reply:
        row = self._access.escalation(request)
        return self._escalation(self._state.assign(row, decode(AssignBody, request.content).assignee_id))

    def _resolve(self, request: Request) -> Reply:
        row = self._access.escalation(request)
        return self._escalation(self._state.resolve(row, decode(ResolveBody, request.content).status))

    def _escalation(self, row: ConduitEscalation) -> Reply:
        return _one(row.json(self._writer.stamp))

    def _messages(self, request: Request) -> Reply:
        _, rows = self._access.conversation(request)
        # conversations/messages does not say which order is usual; the other lists are newest first
        if choice(request, "order", ("asc", "desc")) != "asc":
            rows.reverse()
        stamp, style = self._writer.stamp, self._options.cursors
        return Reply.of(200, page(rows, request, lambda row: row.json(stamp), style, lambda _: True))

    def _conversation(self, request: Request) -> Reply:
        """Say how a conversation stands: conversations/get tells of these parts in words, and shows no field."""
        key, rows = self._access.conversation(request)
        stamp = self._writer.stamp
        ticket = next((ticket for ticket, of in self._state.tickets.items() if of == key), None)
        return _one({
            "id": key,
            "workspace_id": self._state.threads[key][0],
            "ticket": None if ticket is None else {"id": ticket, "status": "open"},
            "assignee": None,
            "reservation": None,
            "summary": None,
            "sentiment": None,
            "last_message": rows[-1].json(stamp) if rows else None,
        })

    def _send(self, request: Request) -> Reply:
        key, _ = self._access.conversation(request)
        return self._sent(key, request, None)

    def _send_on_ticket(self, request: Request) -> Reply:
        return self._sent(self._access.ticket(request), request, request.params["ticket"])

    def _send_to_contact(self, request: Request) -> Reply:
        return self._sent(self._access.contact(request), request, None)

    def _sent(self, key: str, request: Request, ticket_id: str | None) -> Reply:
        body = decode(SendBody, request.content)
        workspace_id, _ = self._state.threads[key]
        user = self._state.workspaces[workspace_id].users[0]
        name = f"{user.first_name} {user.last_name}"
        sent = self._state.write(workspace_id, key, body.body, self._state.stage.now(), user.id, name)
        return _one(sent.receipt(ticket_id))

    def _workspaces(self, request: Request) -> Reply:
        rows = self._access.reachable(request)
        return Reply.of(200, page(rows, request, lambda row: row.json(), self._options.cursors, lambda _: True))

    def _users(self, request: Request) -> Reply:
        workspace = self._access.workspace(request, request.params["workspace"])
        rows = workspace.users
        return Reply.of(200, page(rows, request, lambda row: row.json(), self._options.cursors, lambda _: True))


def _one(data: Object, status: int = 200) -> Reply:
    return Reply.of(status, {"data": data})
