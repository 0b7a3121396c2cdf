"""What is checked before a run starts, in this order: table ids and containers, model, credits, mutex, slots."""

from __future__ import annotations

import math
from collections.abc import Iterable

from attrs import frozen

from agentruns.emulator.schema import JSON

from .bodies import CreateBody, DocumentAttachment, RunBody
from .errors import ApiError, invalid
from .records import OrigamiAgent, OrigamiRun
from .state import State


@frozen
class Door:
    """Let runs in, or say why not."""

    state: State

    def check_create(self, body: CreateBody, project: str | None) -> None:
        """Check what a new agent's first run needs."""
        self._check_container(body, project)
        self._check_tables(body, project, self._workspace(body.workspace_id))
        self._check_plan(body)
        self._check_slot()

    def check_follow_up(self, body: RunBody, agent: OrigamiAgent) -> None:
        """Check what a follow-up run needs."""
        self._check_tables(body, agent.project, agent.workspace_id if agent.legacy else None)
        if body.public_model is not None and not self.state.options.follow_up_model:
            raise invalid("model", "A follow-up run has the model of its agent")
        self._check_plan(body)
        last = self.state.latest(agent)
        if last is not None and last.ending is None:
            raise self.busy(last)
        self._check_answer(body, last)
        self._check_slot()

    def _check_answer(self, body: RunBody, last: OrigamiRun | None) -> None:
        check = self.state.options.check_answer
        asked = last is not None and last.ending is not None and last.ending.questions
        refusal = check(body.prompt) if check is not None and asked else None
        if refusal is not None:
            raise invalid("prompt", refusal)

    def check_campaign(self) -> None:
        """Check what the first run of a campaign's agent needs: the model is the plan's own."""
        self._check_plan(RunBody(prompt="A campaign"))
        self._check_slot()

    def busy(self, run: OrigamiRun) -> ApiError:
        """Make the refusal that names the run in flight; it has no Retry-After."""
        return ApiError("AGENT_BUSY", currentRun={"id": run.id, "startedAt": self.state.stamp(run.started)})

    def full(self) -> ApiError:
        """Make the refusal for want of a slot; the pool is shared with the people in the vendor's app."""
        stamp = self.state.stamp
        agents = self.state.agents
        sessions: list[JSON] = [
            {"agentId": run.agent_id, "name": agents[run.agent_id].name, "startedAt": stamp(run.started)}
            for run in self.state.active()
        ]
        sessions += [
            {"agentId": key, "name": "A session in the app", "startedAt": stamp(0)} for key in self.state.in_app
        ]
        options = self.state.options
        return ApiError(
            "CONCURRENT_LIMIT_EXCEEDED",
            headers={"Retry-After": str(self.state.slot_wait())},
            limit=options.allowed.slots or 0,
            activeSessions=sessions,
            canUpgrade=options.plan != "enterprise",
        )

    def _workspace(self, container: str | None) -> str | None:
        """Tell whether a container is a legacy workspace, as in the oldest generation all are."""
        made = {one.workspace_id for one in self.state.agents.values()} if self.state.options.generation == "G1" else ()
        return container if container in self.state.options.workspaces or container in made else None

    def _check_container(self, body: CreateBody, project: str | None) -> None:
        given = body.workspace_id
        if given is None or self._workspace(given):
            return
        parent = self.state.agents.get(given.lower())
        if parent is None or parent.project != project or parent.deleted is not None:
            raise ApiError("UNKNOWN_WORKSPACE")

    def _check_tables(self, body: RunBody, project: str | None, workspace: str | None) -> None:
        for key in body.focus_table_ids:
            self._check_table(key, project, workspace, "UNKNOWN_TABLE", "WORKSPACE_TABLE_MISMATCH")
        for one in body.attachments:
            if not isinstance(one, DocumentAttachment):
                self._check_table(one.table_id, project, workspace, "INVALID_ATTACHMENT", "INVALID_ATTACHMENT")
            elif one.document_id not in self.state.options.documents:
                raise ApiError("INVALID_ATTACHMENT")

    def _check_table(self, key: str, project: str | None, workspace: str | None, unknown: str, elsewhere: str) -> None:
        table = self.state.tables.get(key.lower())
        if table is None or table.project != project:
            raise ApiError(unknown)
        if workspace is not None and table.workspace_id != workspace:
            raise ApiError(elsewhere)

    def _check_plan(self, body: RunBody) -> None:
        options = self.state.options
        if body.public_model is not None and body.public_model not in options.allowed.models:
            raise ApiError("MODEL_NOT_AVAILABLE")
        if options.blocked is not None:
            raise ApiError("ACCOUNT_BLOCKED", reason=options.blocked)
        if options.spent_budgets:
            raise ApiError("BUDGET_EXCEEDED", blockedByBudgets=_listed(options.spent_budgets))
        balance = self.state.balance
        if balance < options.credits_floor:
            raise poor(options.credits_floor, balance)

    def _check_slot(self) -> None:
        slots = self.state.options.allowed.slots
        if slots is not None and len(self.state.active()) + len(self.state.in_app) >= slots:
            raise self.full()


def poor(required: float, available: float) -> ApiError:
    """Make the refusal for want of credits, in whole credits."""
    needed, held = math.ceil(required), math.floor(available)
    message = f"A run needs {needed} credits to start and the wallet holds {held}."
    return ApiError("INSUFFICIENT_CREDITS", creditsRequired=needed, creditsAvailable=held, message=message)


def _listed(names: Iterable[str]) -> list[JSON]:
    return list(names)
