"""What runs work on and draw on: agents, tables, rows, the account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from agentruns._values import codec
from agentruns._values.commands import Flow, T
from agentruns._values.exchange import Request, Response
from agentruns._values.generic import Json
from agentruns.dialects import wire
from agentruns.errors import ConfigurationError, NotFoundError, OutcomeUnknownError, ProtocolError

from .objects import Account, Agent, AgentPage, Archived, Balance, Deleted, Row, RowPage, Table, TablePage
from .reading import Listed, paging


def list_agents(*, search: str | None = None, cursor: str | None = None, limit: int = 50) -> Flow[AgentPage]:
    """List the agents that the API made; *search* is part of a name (reference/list-agents)."""
    params = paging(cursor, limit) | wire.drop_none({"search": search})
    response = yield Request("GET", "/agents", params=params)
    seen = wire.read(response, _Agents)
    return AgentPage(_either(seen.items, seen.agents, response), seen.cursor)


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
    seen = wire.read(response, _Tables)
    return TablePage(_either(seen.items, seen.tables, response), seen.workspace_id)


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
    options = {
        "filters": _as_text(filters, "filters"),
        "sort": _as_text(sort, "sort"),
        "cells": cells,
        "defaults": None if defaults is None else str(defaults).lower(),
    }
    path = wire.path("tables", table_id, "rows")
    response = yield Request("GET", path, params=paging(cursor, limit, 200) | wire.drop_none(options))
    if cells == "flat":
        flat = wire.read(response, _FlatRows)
        return RowPage(tuple(map(Row, flat.items)), flat.cursor, flat.total)
    seen = wire.read(response, _Rows)
    return RowPage(seen.items, seen.cursor, seen.total)


def get_account() -> Flow[Account]:
    """Read the plan and what it allows (openapi-v2.yaml)."""
    return wire.read((yield Request("GET", "/account")), Account)


def get_credits() -> Flow[Balance]:
    """Read how many credits are left (openapi-v2.yaml)."""
    return wire.read((yield Request("GET", "/account/credits")), Balance)


@frozen(kw_only=True)
class _Agents(Listed):
    items: tuple[Agent, ...] | None = None
    agents: tuple[Agent, ...] | None = None


@frozen(kw_only=True)
class _Tables(Listed):
    items: tuple[Table, ...] | None = None
    tables: tuple[Table, ...] | None = None
    workspace_id: str | None = None


@frozen(kw_only=True)
class _Rows(Listed):
    items: tuple[Row, ...]


@frozen(kw_only=True)
class _FlatRows(Listed):
    items: tuple[Mapping[str, Json], ...]


def _either(items: tuple[T, ...] | None, older: tuple[T, ...] | None, response: Response) -> tuple[T, ...]:
    """Return the items of a list under the name of either generation."""
    found = items if items is not None else older
    if found is None:
        raise ProtocolError(f"the answer to {response.request.line} has no list @ $.items")
    return found


def _as_text(value: Any, what: str) -> str | None:
    return None if value is None else codec.encode(codec.to_jsonable(value, what)).decode()
