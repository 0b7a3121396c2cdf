"""The reads of tables: those of an agent, one table, its columns and its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import frozen

from agentruns.emulator.schema import JSON
from agentruns.emulator.vendor import Reply, Request

from .errors import ApiError, invalid
from .lists import Page
from .query import csv_of, flat, selected
from .records import OrigamiLead, OrigamiTable
from .state import State
from .wire import Pen

_CHOICES: Final = {"cells": {"flat"}, "format": {"csv"}, "defaults": {"true", "false"}}
_MOST_ROWS: Final = 200


@frozen
class TableReads:
    """Answer what is asked about tables; `project` reads the project of a request."""

    state: State
    pen: Pen
    project: Callable[[Request], str | None]

    def of_agent(self, request: Request) -> Reply:
        """List every table an agent can reach, on one page (list-agent-tables)."""
        agent = self.state.agent(request.params["id"], self.project(request))
        stats = "stats" in included(request)
        written: list[JSON] = [self.pen.table(one, stats=stats) for one in self.state.tables_at(agent.table_ids)]
        if self.pen.old:
            return Reply.of(200, {"workspaceId": agent.workspace_id, "tables": written})
        return Reply.of(200, self.pen.list(_whole(written), request.path, "tables", workspaceId=agent.workspace_id))

    def all(self, request: Request) -> Reply:
        """List the tables of the organization (openapi-v2.yaml), newest first as other lists are."""
        self.state.settle()
        project, workspace = self.project(request), request.query.get("workspaceId")
        found = [
            table
            for table in reversed(list(self.state.tables.values()))
            if table.project == project and workspace in {None, table.workspace_id}
        ]
        page = self.pen.page(
            found, lambda table: table.id, lambda table: self.pen.table(table, stats=False), request.query
        )
        return Reply.of(200, self.pen.list(page, request.path, "tables"))

    def row(self, request: Request) -> Reply:
        """Write one row (openapi-v2.yaml); the code for a row that is not there is a guess."""
        table = self._table(request)
        lead = next((lead for lead in table.leads if lead.id == request.params["row"]), None)
        if lead is None:
            raise ApiError("ROW_NOT_FOUND")
        return Reply.of(200, self.pen.row(table, lead))

    def one(self, request: Request) -> Reply:
        """Write one table (get-table)."""
        return Reply.of(200, self.pen.table(self._table(request), stats="stats" in included(request)))

    def columns(self, request: Request) -> Reply:
        """List the columns of a table, on one page."""
        columns: list[JSON] = [self.pen.column(column) for column in self._table(request).columns]
        return Reply.of(200, self.pen.list(_whole(columns), request.path, "columns"))

    def rows(self, request: Request) -> Reply:
        """List rows, or write all that are selected as CSV (docs.origami.chat/reading-data)."""
        table = self._table(request)
        for name, allowed in _CHOICES.items():
            if request.query.get(name, next(iter(allowed))) not in allowed:
                raise invalid(name, f"Must be {' or '.join(sorted(allowed))}")
        now = self.state.stage.now()
        leads = selected(table, request.query, now)
        if "format" in request.query:
            return Reply(content=csv_of(table, leads, now), content_type="text/csv")

        def write(lead: OrigamiLead) -> JSON:
            return flat(table, lead, now) if "cells" in request.query else self.pen.row(table, lead)

        page = self.pen.page(leads, lambda lead: lead.id, write, request.query, most=_MOST_ROWS)
        return Reply.of(200, self.pen.list(page, request.path, "rows", total=len(leads)))

    def _table(self, request: Request) -> OrigamiTable:
        return self.state.table(request.params["id"], self.project(request))


def included(request: Request) -> frozenset[str]:
    """Read the tokens of `include`; unknown ones are ignored."""
    return frozenset(token.strip() for token in request.query.get("include", "").split(","))


def _whole(items: list[JSON]) -> Page:
    return Page(items, None, 0, max(len(items), 1), len(items))
