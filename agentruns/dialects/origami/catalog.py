"""What runs work on and draw on: agents, tables, rows, the account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentruns._values import codec
from agentruns._values.commands import Flow
from agentruns._values.exchange import Request, Response
from agentruns._values.generic import Json
from agentruns.dialects import reading, wire
from agentruns.errors import ConfigurationError, NotFoundError, OutcomeUnknownError, ProtocolError

from .objects import Account, Agent, AgentPage, Archived, Balance, Column, Deleted, Row, RowPage, Table, TablePage
from .reading import listed, paging


def list_agents(*, search: str | None = None, cursor: str | None = None, limit: int = 50) -> Flow[AgentPage]:
    """List the agents that the API made; *search* is part of a name (reference/list-agents)."""
    params = paging(cursor, limit) | wire.drop_none({"search": search})
    response = yield Request("GET", "/agents", params=params)
    values, path, following = listed(response, "agents")
    return AgentPage((yield from reading.rows_of(response, values, path, Agent)), following)


def get_agent(id: str) -> Flow[Agent]:  # noqa: A002
    """Read an agent and its last run (reference/get-agent)."""
    return wire.read((yield Request("GET", wire.path("agents", id))), Agent)


def archive_agent(id: str) -> Flow[Archived]:  # noqa: A002
    """
    Put an agent away (reference/archive-agent).

    An archived agent is not found any more, so after a lost answer that is what success looks like.
    """
    path = wire.path("agents", id)
    try:
        return wire.read((yield Request("DELETE", path, idempotent=False)), Archived)
    except OutcomeUnknownError:
        pass
    try:
        return wire.read((yield Request("DELETE", path, idempotent=True)), Archived)
    except NotFoundError:
        return Archived(Deleted(id, None))


def list_tables(agent_id: str, *, include: str | None = None) -> Flow[TablePage]:
    """List every table that an agent can reach; `include="stats"` adds economics (reference/list-agent-tables)."""
    response = yield Request(
        "GET", wire.path("agents", agent_id, "tables"), params=wire.drop_none({"include": include})
    )
    return (yield from _tables(response))


def list_tables_of_organization(
    *, cursor: str | None = None, limit: int = 50, workspace_id: str | None = None
) -> Flow[TablePage]:
    """List every table of the organization, or those of one container, deprecated as it is (openapi-v2.yaml)."""
    params = paging(cursor, limit) | wire.drop_none({"workspaceId": workspace_id})
    return (yield from _tables((yield Request("GET", "/tables", params=params))))


def _tables(response: Response) -> Flow[TablePage]:
    values, path, following = listed(response, "tables")
    workspace = wire.first_text(wire.read_object(response), "workspaceId")
    return TablePage((yield from reading.rows_of(response, values, path, Table)), workspace, following)


def list_columns(table_id: str) -> Flow[tuple[Column, ...]]:
    """List the columns of a table, without what they cost and how their cells stand (openapi-v2.yaml)."""
    response = yield Request("GET", wire.path("tables", table_id, "columns"))
    values, path, _ = listed(response, "columns")
    return (yield from reading.rows_of(response, values, path, Column))


def get_table(id: str, *, include: str | None = None) -> Flow[Table]:  # noqa: A002
    """
    Read a table; `include="stats"` adds economics (reference/get-table).

    Cells may go on filling after the run that made them is over: until `cells.running` is 0, empty is not "not found".
    """
    return wire.read(
        (yield Request("GET", wire.path("tables", id), params=wire.drop_none({"include": include}))), Table
    )


def list_rows(
    table_id: str,
    *,
    cursor: str | None = None,
    limit: int = 50,
    filters: Sequence[Mapping[str, Json]] | None = None,
    sort: Mapping[str, Json] | None = None,
    cells: str | None = None,
    defaults: bool | None = None,
) -> Flow[RowPage]:
    """
    Read rows (reference/list-rows and the page "Reading data").

    *filters* are `{"column": slug, "operator": ..., "value": ...}`, *sort* is `{"column": slug, "direction": "asc"}`.
    `cells="flat"` gives bare values. `defaults=False` lifts the filters and the order that are saved with the table.
    """
    if cells not in {None, "flat"}:
        raise ConfigurationError(f"cells is {cells!r}; it must be 'flat', or left out for typed cells")
    params = paging(cursor, limit, 200) | _selection(filters, sort, cells, defaults)
    response = yield Request("GET", wire.path("tables", table_id, "rows"), params=params)
    values, path, following = listed(response)
    total = reading.count(wire.read_object(response).get("total"))
    if cells == "flat":
        flat = yield from reading.rows(response, values, path, lambda value, at: _flat_row(value, at, response))
        return RowPage(flat, following, total)
    return RowPage((yield from reading.rows_of(response, values, path, Row)), following, total)


def _flat_row(value: Any, path: str, response: Response) -> Row:
    if not isinstance(value, Mapping):
        raise ProtocolError(f"the answer to {response.request.line} has no object @ {path}", response)
    return Row(value)


def get_row(table_id: str, row_id: str) -> Flow[Row]:
    """Read one row, its cells typed (openapi-v2.yaml)."""
    return wire.read((yield Request("GET", wire.path("tables", table_id, "rows", row_id))), Row)


def get_csv(
    table_id: str,
    *,
    cursor: str | None = None,
    limit: int = 200,
    filters: Sequence[Mapping[str, Any]] | None = None,
    sort: Mapping[str, Any] | None = None,
    defaults: bool | None = None,
) -> Flow[str]:
    """Read rows as the text of a CSV file, with a line of headers; the options are those of `list_rows`."""
    params = paging(cursor, limit, 200) | _selection(filters, sort, None, defaults) | {"format": "csv"}
    path = wire.path("tables", table_id, "rows")
    response = yield Request("GET", path, params=params, headers={"Accept": "text/csv"}, is_json=False)
    return response.body.decode("utf-8-sig", "replace")


def _selection(
    filters: Sequence[Mapping[str, Any]] | None,
    sort: Mapping[str, Any] | None,
    cells: str | None,
    defaults: bool | None,
) -> dict[str, str]:
    return wire.drop_none({
        "filters": _as_text(filters, "filters"),
        "sort": _as_text(sort, "sort"),
        "cells": cells,
        "defaults": None if defaults is None else str(defaults).lower(),
    })


def get_account() -> Flow[Account]:
    """Read the plan and what it allows (openapi-v2.yaml)."""
    return wire.read((yield Request("GET", "/account")), Account)


def get_credits() -> Flow[Balance]:
    """Read how many credits are left (openapi-v2.yaml)."""
    return wire.read((yield Request("GET", "/account/credits")), Balance)


def _as_text(value: Any, what: str) -> str | None:
    return None if value is None else codec.encode(codec.to_jsonable(value, what)).decode()
