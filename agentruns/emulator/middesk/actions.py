"""Actions: what accounts and runs do to businesses and watchlist results (business-verification/actions)."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from attrs import frozen

from agentruns.emulator.vendor import Reply, Request, Stage

from .bodies import ActionBody, action_body, object_of
from .errors import not_found
from .rows import Caller, Object, Style

_SHOWN_AS: Final = {"businesses": "Business", "watchlist_result": "Watchlist::Result"}


@frozen(kw_only=True)
class Action:
    """What was done, by whom."""

    id: str
    body: ActionBody
    caller: Caller
    created: float

    def json(self, style: Style) -> Object:
        """Write the action (create-action)."""
        shown = _SHOWN_AS[self.body.object_type]
        by_run = self.body.run_id is not None
        return {
            "id": self.id,
            "type": self.body.type,
            "object_type": shown,
            "object_id": self.body.object_id,
            "created_at": style.stamp(self.created),
            "note": self.body.note,
            "metadata": {"payload": self.body.payload},
            "effects": [{"operation": "updated", "diff": None, "target": {"object": shown, "id": self.body.object_id}}],
            "actors": [
                {"actor_type": "run", "data": {"id": self.body.run_id, "thread_id": self.body.thread_id}}
                if by_run
                else {"actor_type": "account", "data": {"name": self.caller.account}}
            ],
        }


class Actions:
    """The actions of all accounts; whether a business is there is not known here, so every UUID is one."""

    def __init__(self, stage: Stage, style: Style) -> None:
        self._stage = stage
        self._style = style
        self._rows: list[Action] = []

    @property
    def rows(self) -> Sequence[Action]:
        """All actions, oldest first."""
        return tuple(self._rows)

    def take(self, request: Request, caller: Caller) -> Reply:
        """Do something to an object."""
        body = action_body(request.content)
        row = Action(id=self._stage.ids.uuid(), body=body, caller=caller, created=self._stage.now())
        self._rows.append(row)
        return Reply.of(HTTPStatus.CREATED, row.json(self._style))

    def list(self, request: Request, caller: Caller) -> Reply:
        """List what was done to an object."""
        data = [row.json(self._style) for row in self._of(request, caller)]
        return Reply.of(200, {"object": "list", "data": data, "url": "/v1/actions"})

    def get(self, request: Request, caller: Caller) -> Reply:
        """Show one action on an object."""
        for row in self._of(request, caller):
            if row.id == request.params["id"]:
                return Reply.of(200, row.json(self._style))
        raise not_found("Action")

    def _of(self, request: Request, caller: Caller) -> Sequence[Action]:
        about = object_of(request.query)
        return [
            row
            for row in self._rows
            if (row.body.object_type, row.body.object_id) == about and row.caller.account == caller.account
        ]
