"""Origami: tables, what runs do to them, cells that go on being filled, reading rows."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from agentruns.emulator import Turn
from agentruns.emulator.origami import OrigamiTable
from tests.emulator.origami_caller import Http, builds, does, served

pytestmark = pytest.mark.asyncio

COLUMNS: list[Any] = ["Name", {"name": "Sites", "slug": "n"}, {"name": "Manager email", "kind": "enrichment"}]
ROWS: list[dict[str, Any]] = [
    {"Name": "Acorn", "n": 3, "manager-email": "a@example.com"},
    {"Name": "birch", "n": 12, "manager-email": None},
    {"Name": "Cedar", "n": "", "manager-email": "c@example.com"},
]


def seeded(http: Http, **view: Any) -> OrigamiTable:
    return http.state.add_table("Clinics", ROWS, columns=COLUMNS, **view)


async def names(http: Http, table: OrigamiTable, **query: Any) -> Any:
    sent = {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
    answer = await http.get(f"/tables/{table.id}/rows", query=sent)
    assert answer.status == 200, answer
    return [row["cells"]["name"]["value"] for row in answer.body["items"]]


async def test_cells_go_on_being_filled_after_the_run_one_row_after_another() -> None:
    async with served(script=[builds(running=9)], cells_settle=20) as http:
        run = (await http.create())["run"]
        http.clock.advance(6)
        (table,) = http.state.tables.values()
        seen = []
        for _ in range(3):
            http.clock.advance(10)
            body = (await http.get(f"/tables/{table.id}")).body
            rows = (await http.get(f"/tables/{table.id}/rows")).body["items"]
            filled = [row["cells"]["email"]["value"] for row in rows]
            seen.append((body["cells"]["running"], body["credits"]["lifetimeUsed"], filled))
        assert (await http.read(run))["status"] == "completed"
        assert seen == [(2, 0, [None, None]), (1, 1, ["Email 1", None]), (0, 2, ["Email 1", "Email 2"])]
        assert (await http.get("/account/credits")).body["balance"] == 998


async def test_cells_are_running_while_the_run_is_and_may_never_settle() -> None:
    async with served(script=[builds()], cells_settle=math.inf) as http:
        run = (await http.create())["run"]
        http.clock.advance(8)
        table = f"/tables/{next(iter(http.state.tables))}"
        assert (await http.get(table)).body["cells"]["running"] == 2
        http.clock.advance(1e6)
        assert (await http.read(run))["response"]["tables"][0]["cells"] == {"running": 2, "errored": 0}


async def test_some_cells_end_without_a_value_and_cost_nothing() -> None:
    async with served(script=[builds()], cells_errored=1) as http:
        run = await http.play()
        (table,) = run["response"]["tables"]
        assert (table["cells"], table["credits"]) == ({"running": 0, "errored": 1}, {"lifetimeUsed": 1})
        by_name = {column["name"]: column for column in table["columns"]}
        assert (by_name["Company"]["type"], by_name["Company"]["kind"], by_name["Company"]["autoTrigger"]) == (
            "static",
            "input",
            False,
        )
        assert by_name["Company"]["cells"] == {"running": 0, "errored": 0}
        assert (by_name["Email"]["type"], by_name["Email"]["cells"]["errored"]) == ("code", 1)
        rows = (await http.get(f"/tables/{table['id']}/rows")).body["items"]
        assert rows[1]["cells"] == {
            "company": {"type": "scalar", "value": "Company 2"},
            "website": {"type": "scalar", "value": "Website 2"},
            "email": {"type": "value", "value": None},
        }


async def test_every_change_of_a_table_is_reported_in_order() -> None:
    calls = [
        does("table_created", tableName="Clinics", columns=["Clinic", "Town"]),
        does("column_added", columnName="Manager email"),
        does("leads_added", rows=[{"Clinic": "Acorn", "town": "Leeds"}, {}]),
        does("leads_added"),
        does("leads_deleted", count=2),
        does("leads_restored", count=1),
        does("columns_updated"),
        does("columns_deleted"),
        does("columns_restored", count="odd"),
        does("table_restored"),
    ]
    async with served(script=[Turn("x", calls=calls, running=11)], cells_settle=0) as http:
        run = await http.play(include="stats")
        (table,) = run["response"]["tables"]
        facts = [
            {name: value for name, value in action.items() if name != "tableId"}
            for action in run["response"]["actions"]
        ]
        column = table["columns"][2]
        assert facts == [
            {"type": "table_created", "tableName": "Clinics"},
            {"type": "column_added", "columnId": column["id"], "columnName": "Manager email"},
            {"type": "leads_added", "leadCount": 2},
            {"type": "leads_added", "leadCount": 3},
            {"type": "leads_deleted", "count": 2, "deletedAt": "2026-07-28T12:00:05.000Z"},
            {"type": "leads_restored", "count": 1},
            {"type": "columns_updated"},
            {"type": "columns_deleted", "count": 1, "deletedAt": "2026-07-28T12:00:08.000Z"},
            {"type": "columns_restored", "count": 1},
            {"type": "table_restored", "tableName": "Clinics"},
        ]
        assert {action["tableId"] for action in run["response"]["actions"]} == {table["id"]}
        assert (table["leadCount"], [one["slug"] for one in table["columns"]]) == (
            4,
            ["clinic", "town", "manager-email"],
        )
        assert table["stats"]["funnel"]["excludedLeads"] == 1
        rows = (await http.get(f"/tables/{table['id']}/rows?cells=flat")).body["items"]
        assert rows[:2] == [
            {"clinic": "Acorn", "town": "Leeds", "manager-email": "Manager email 1"},
            {"clinic": "Clinic 2", "town": "Town 2", "manager-email": "Manager email 2"},
        ]


async def test_charges_of_deleted_leads_stay() -> None:
    second = Turn("x", calls=[does("leads_deleted", count=9)])
    third = Turn("x", calls=[does("leads_added", leadCount="many"), does("leads_deleted")], running=3)
    async with served(script=[builds(), second, third]) as http:
        run = await http.play()
        table = f"/tables/{run['response']['tables'][0]['id']}"
        for leads, used in ((0, 2), (2, 4)):
            await http.send(run["agentId"])
            http.clock.advance(60)
            body = (await http.get(table)).body
            assert (body["leadCount"], body["credits"]["lifetimeUsed"]) == (leads, used)


async def test_a_change_may_name_its_table() -> None:
    async with served() as http:
        table = seeded(http)
        call = does("leads_added", tableId=table.id, leadCount=1)
        http.emulator.script = [Turn("x", calls=[does("table_created", tableName=7), call])]
        run = await http.play()
        assert [one["leadCount"] for one in run["response"]["tables"]] == [0, 4]
        assert http.state.tables[table.id].leads[3].values["name"] == "Name 4"


async def test_stats_are_there_only_when_asked_for() -> None:
    columns = ["Clinic", {"name": "Fit", "kind": "score"}, {"name": "!", "kind": "telepathy"}]
    calls = [does("table_created", columns=columns), does("leads_added", leadCount=2)]
    async with served(script=[Turn("x", calls=calls)], cells_errored=1, cells_settle=10) as http:
        run = (await http.create())["run"]
        http.clock.advance(1)
        plain = (await http.read(run))["response"]["tables"][0]
        assert "stats" not in plain
        assert all("stats" not in column for column in plain["columns"])
        running = (await http.get(f"/tables/{plain['id']}?include=stats")).body["stats"]
        assert running["running"]["runningLeads"] == 2
        assert running["running"]["oldestActiveRunStartedAt"] is not None
        assert running["qualification"]["rate"] is None
        http.clock.advance(60)
        table = (await http.get(f"/agents/{run['agentId']}/tables?include=stats")).body["items"][0]
        clinic, fit, odd = table["columns"]
        assert fit["qualification"] == {"pass": 1, "fail": 0, "unsure": 1, "total": 2}
        assert fit["stats"] == {"avgCreditsPerRun": 1, "callRate": 1, "totalRuns": 2}
        assert clinic["stats"]["totalRuns"] == 0
        assert (odd["kind"], odd["slug"], "qualification" in odd) == ("telepathy", "column", False)
        assert table["stats"]["qualification"]["qualifiedLeads"] == 1
        assert table["stats"]["creditsPerLead"] == 1
        assert table["stats"]["running"] == {"runningLeads": 0, "oldestActiveRunStartedAt": None}


async def test_an_empty_table_has_stats_too() -> None:
    async with served() as http:
        table = http.state.add_table("Empty", columns=["Only", {"name": "Fit", "kind": "score"}])
        stats = (await http.get(f"/tables/{table.id}?include=stats")).body["stats"]
        assert (stats["creditsPerLead"], stats["creditsPerQualifiedLead"], stats["funnel"]["dedupRate"]) == (0, 0, None)
        assert stats["qualification"]["effectiveLeadsPerQualified"] == 0


async def test_columns_are_listed_on_one_page() -> None:
    async with served() as http:
        table = seeded(http)
        body = (await http.get(f"/tables/{table.id}/columns?limit=1")).body
        assert [column["slug"] for column in body["items"]] == ["name", "n", "manager-email"]
        assert (body["nextCursor"], body["url"]) == (None, f"/api/v2/tables/{table.id}/columns")
        assert "cells" not in body["items"][0]


@pytest.mark.parametrize(
    ("column", "operator", "value", "found"),
    [
        ("name", "contains", "R", ["Acorn", "birch", "Cedar"]),
        ("name", "contains", "ir", ["birch"]),
        ("name", "not_contains", "r", []),
        ("name", "equals", "ACORN", ["Acorn"]),
        ("name", "not_equals", "acorn", ["birch", "Cedar"]),
        ("n", "equals", "3", ["Acorn"]),
        ("n", "greater_than", 3, ["birch"]),
        ("n", "greater_than_or_equal", 3, ["Acorn", "birch"]),
        ("n", "less_than", "12", ["Acorn"]),
        ("n", "less_than_or_equal", 12, ["Acorn", "birch"]),
        ("n", "less_than", "many", []),
        ("n", "less_than", None, []),
        ("n", "is_empty", None, ["Cedar"]),
        ("manager-email", "is_not_empty", None, ["Acorn", "Cedar"]),
    ],
)
async def test_rows_are_filtered(column: str, operator: str, value: Any, found: list[str]) -> None:
    async with served() as http:
        table = seeded(http)
        filters = [{"column": column, "operator": operator, "value": value}]
        assert sorted(await names(http, table, filters=filters)) == sorted(found)


async def test_rows_are_sorted_with_the_empty_ones_last() -> None:
    async with served() as http:
        table = seeded(http)
        assert await names(http, table, sort={"column": "n", "direction": "asc"}) == ["Acorn", "birch", "Cedar"]
        assert await names(http, table, sort={"column": "name", "direction": "desc"}) == ["Cedar", "birch", "Acorn"]


async def test_the_saved_view_holds_unless_it_is_switched_off_or_replaced() -> None:
    async with served() as http:
        filters = [{"column": "n", "operator": "is_not_empty"}]
        table = seeded(http, filters=filters, sort={"column": "n", "direction": "desc"})
        assert await names(http, table) == ["birch", "Acorn"]
        assert await names(http, table, defaults="true") == ["birch", "Acorn"]
        assert await names(http, table, defaults="false") == ["Acorn", "birch", "Cedar"]
        assert await names(http, table, filters=[]) == ["Cedar", "birch", "Acorn"]
        body = (await http.get(f"/tables/{table.id}/rows")).body
        assert (body["total"], (await http.get(f"/tables/{table.id}")).body["leadCount"]) == (2, 3)


async def test_rows_come_in_pages_of_at_most_two_hundred() -> None:
    async with served() as http:
        table = http.state.add_table("Long", [{}] * 230)
        first = (await http.get(f"/tables/{table.id}/rows?limit=500")).body
        assert (len(first["items"]), first["total"], first["items"][0]["object"]) == (200, 230, "row")
        query = {"limit": "200", "cursor": first["nextCursor"]}
        last = (await http.get(f"/tables/{table.id}/rows", query=query)).body
        assert (len(last["items"]), last["nextCursor"]) == (30, None)
        assert len((await http.get(f"/tables/{table.id}/rows")).body["items"]) == 50


async def test_rows_may_be_had_as_csv() -> None:
    async with served() as http:
        answer = await http.get(f"/tables/{seeded(http).id}/rows?format=csv&limit=1")
        assert answer.headers["Content-Type"].startswith("text/csv")
        assert answer.content.decode().splitlines() == [
            "name,n,manager-email",
            "Acorn,3,a@example.com",
            "birch,12,",
            "Cedar,,c@example.com",
        ]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"filters": "{"}, "INVALID_FILTERS"),
        ({"filters": '"x"'}, "INVALID_FILTERS"),
        ({"filters": '["x"]'}, "INVALID_FILTERS"),
        ({"filters": '[{"column": "n", "operator": "like"}]'}, "INVALID_FILTERS"),
        ({"filters": '[{"column": "x", "operator": "is_empty"}]'}, "UNKNOWN_COLUMN"),
        ({"sort": "n"}, "INVALID_SORT"),
        ({"sort": '{"column": "n", "direction": "up"}'}, "INVALID_SORT"),
        ({"sort": '{"column": "x", "direction": "asc"}'}, "UNKNOWN_COLUMN"),
        ({"cells": "round"}, "VALIDATION_ERROR"),
        ({"format": "xml"}, "VALIDATION_ERROR"),
        ({"defaults": "no"}, "VALIDATION_ERROR"),
    ],
)
async def test_a_bad_query_is_refused(query: dict[str, str], code: str) -> None:
    async with served() as http:
        answer = await http.get(f"/tables/{seeded(http).id}/rows", query=query)
        assert answer.refused == (400, code)


async def test_the_oldest_generation_has_rows_and_columns_without_kinds() -> None:
    async with served(generation="G1") as http:
        table = seeded(http)
        rows = (await http.get(f"/tables/{table.id}/rows")).body
        assert set(rows["rows"][0]) == {"id", "cells"}
        assert set((await http.get(f"/tables/{table.id}/columns")).body) == {"columns", "pagination"}


async def test_a_row_is_read_by_itself_as_the_list_has_it() -> None:
    async with served() as http:
        table = seeded(http)
        listed = (await http.get(f"/tables/{table.id}/rows")).body["items"]
        row = await http.get(f"/tables/{table.id}/rows/{listed[1]['id']}")
        assert row.body == listed[1]
        assert (await http.get(f"/tables/{table.id}/rows/nowhere")).refused == (404, "ROW_NOT_FOUND")


async def test_the_tables_of_the_organization_are_listed_newest_first_by_container_if_need_be() -> None:
    async with served() as http:
        tables = [
            http.state.add_table(name, workspace_id=where) for name, where in (("a", None), ("b", "w"), ("c", "w"))
        ]
        page = (await http.get("/tables", query={"limit": "2"})).body
        assert [table["name"] for table in page["items"]] == ["c", "b"]
        assert page["nextCursor"] is not None
        assert [table["name"] for table in (await http.get("/tables", query={"workspaceId": "w"})).body["items"]] == [
            tables[2].name,
            tables[1].name,
        ]


async def test_a_campaign_is_drafted_by_an_agent_of_its_own_and_edited_by_the_same() -> None:
    async with served(script=[Turn("Drafted.", running=9), Turn("Changed.")], plan="pro") as http:
        table = seeded(http)
        begun = await http.ask("POST", f"/tables/{table.id}/campaigns", {"instructions": "Introduce us."})
        assert (begun.status, begun.body["table"]["id"]) == (202, table.id)
        assert begun.body["run"]["request"]["prompt"] == "Introduce us."
        (campaign,) = http.state.campaigns.values()
        edits = f"/campaigns/{campaign.id}/edits"
        assert (await http.ask("POST", edits, {"instructions": "Be brief."})).refused == (409, "AGENT_BUSY")
        http.clock.advance(10)
        edited = await http.ask("POST", edits, {"instructions": "Be brief."})
        assert edited.body["agent"]["id"] == begun.body["agent"]["id"] == campaign.agent_id
        assert edited.body["campaign"]["id"] == campaign.id
        http.clock.advance(10)
        assert (await http.read(edited.body["run"]))["response"]["text"] == "Changed."


@pytest.mark.parametrize(
    ("path", "body", "refused"),
    [
        ("/tables/nowhere/campaigns", {"instructions": "x"}, (404, "TABLE_NOT_FOUND")),
        ("/campaigns/nowhere/edits", {"instructions": "x"}, (404, "CAMPAIGN_NOT_FOUND")),
        ("/campaigns/nowhere/edits", {"instructions": ""}, (400, "VALIDATION_ERROR")),
        ("/tables/nowhere/campaigns", {"prompt": "x"}, (400, "VALIDATION_ERROR")),
    ],
)
async def test_a_campaign_that_cannot_be_worked_on_is_refused(path: str, body: Any, refused: tuple[int, str]) -> None:
    async with served() as http:
        assert (await http.ask("POST", path, body)).refused == refused
