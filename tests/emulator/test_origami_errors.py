"""Origami: who is let in, what is refused and in which order, keys that make a POST safe, request budgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentruns.emulator import Emulator, Fault, Turn
from agentruns.emulator.origami import Origami
from tests.emulator.origami_caller import NOON, NOWHERE, PROMPT, Http, builds, served

pytestmark = pytest.mark.asyncio

PROJECT = "0b9f3c52-11d9-4f07-8e6a-90c2d5a7714f"
DAY = 24 * 3600.0


async def create(http: Http, **body: Any) -> tuple[int, str]:
    return (await http.ask("POST", "/agents", {"prompt": PROMPT, **body})).refused


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_a_wrong_key_is_refused_everywhere(token: str) -> None:
    async with served() as http:
        for path in ("/agents", "/account", "/nowhere"):
            assert (await http.get(path, token=token)).refused == (401, "UNAUTHORIZED")


async def test_a_plan_without_api_is_told_so_with_a_link_for_humans() -> None:
    async with served(plan="free") as http:
        answer = await http.get("/account")
        assert answer.refused == (402, "SUBSCRIPTION_REQUIRED")
        assert answer.body["hint"]
        assert set(answer.body["handoff"]) == {"kind", "url", "label"}


async def test_unknown_paths_and_methods_have_errors_of_the_vendors_shape() -> None:
    async with served() as http:
        assert (await http.get("/runs/v2_run-1")).refused == (404, "NOT_FOUND")
        answer = await http.ask("PATCH", "/agents")
        assert (answer.refused, answer.headers["Allow"]) == ((405, "METHOD_NOT_ALLOWED"), "GET, POST")


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "VALIDATION_ERROR"), (401, "UNAUTHORIZED"), (429, "RATE_LIMITED"), (503, "INTERNAL_ERROR")],
)
async def test_a_planned_status_has_the_code_that_fits_best(status: int, code: str) -> None:
    async with served() as http:
        http.emulator.fail(Fault.answer(status))
        assert (await http.get("/agents")).refused == (status, code)


async def test_an_error_of_the_script_is_shown_to_the_caller() -> None:
    def script(_: object) -> Turn:
        raise LookupError("oops")

    async with served(script=script) as http:
        answer = await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")
        assert answer.refused == (500, "INTERNAL_ERROR")
        assert "oops" in answer.body["error"]
        assert http.state.runs_started == 0
        http.emulator.script = None
        assert (await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")).status == 202


BODIES: dict[str, tuple[object, str]] = {
    "not an object": ([], ""),
    "no prompt": ({}, "prompt"),
    "an empty prompt": ({"prompt": ""}, "prompt"),
    "a long prompt": ({"prompt": "x" * 10_001}, "prompt"),
    "a mistyped prompt": ({"prompt": 7}, "prompt"),
    "a long name": ({"prompt": "x", "name": "x" * 81}, "name"),
    "an unknown model": ({"prompt": "x", "model": "gpt"}, "model"),
    "a container that is no UUID": ({"prompt": "x", "workspaceId": "ws_1"}, "workspaceId"),
    "a table that is no UUID": ({"prompt": "x", "focusTableIds": ["tbl_77"]}, "focusTableIds.0"),
    "many tables": ({"prompt": "x", "focusTableIds": [NOWHERE] * 51}, "focusTableIds"),
    "an unknown attachment": ({"prompt": "x", "attachments": [{"kind": "song"}]}, "attachments.0.kind"),
    "an attachment without id": ({"prompt": "x", "attachments": [{"kind": "table"}]}, "attachments.0.tableId"),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_bad_body_is_refused_with_the_place_of_what_is_wrong(name: str) -> None:
    body, path = BODIES[name]
    async with served() as http:
        answer = await http.ask("POST", "/agents", body)
        assert answer.refused == (400, "VALIDATION_ERROR")
        (issue,) = answer.body["details"]["issues"]
        assert (issue["path"], bool(issue["message"])) == (path, True)


async def test_a_body_that_is_not_json_is_refused_and_unknown_fields_are_dropped() -> None:
    async with served() as http:
        answer = await http.ask("POST", "/agents", content=b"{")
        assert answer.refused == (400, "VALIDATION_ERROR")
        await http.create(colour="red", workspaceId=None)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "origami-max"}, "MODEL_NOT_AVAILABLE"),
        ({"workspaceId": NOWHERE}, "UNKNOWN_WORKSPACE"),
        ({"focusTableIds": [NOWHERE]}, "UNKNOWN_TABLE"),
        ({"attachments": [{"kind": "table", "tableId": NOWHERE}]}, "INVALID_ATTACHMENT"),
        ({"attachments": [{"kind": "document", "documentId": NOWHERE}]}, "INVALID_ATTACHMENT"),
    ],
)
async def test_what_a_request_names_has_to_be_there(body: dict[str, Any], code: str) -> None:
    async with served() as http:
        assert await create(http, **body) == (400, code)
        assert http.state.runs_started == 0
        assert not http.state.agents


async def test_tables_and_documents_of_the_organization_may_be_named() -> None:
    async with served(documents=[NOWHERE], script=[Turn("x")]) as http:
        focus, attached = http.state.add_table("One"), http.state.add_table("Two")
        attachments = [{"kind": "document", "documentId": NOWHERE}, {"kind": "table", "tableId": attached.id}]
        run = (await http.create(focusTableIds=[focus.id.upper()], attachments=attachments))["run"]
        assert run["request"]["focusTableIds"] == [focus.id.upper()]
        http.clock.advance(1)
        done = await http.read(run)
        assert done["response"]["actions"] == []
        assert [table["name"] for table in done["response"]["tables"]] == ["One", "Two"]
        tables = (await http.get(f"/agents/{run['agentId']}/tables")).body["items"]
        assert [table["id"] for table in tables] == [focus.id, attached.id]
        again = await http.send(run["agentId"], headers={})
        assert again.body["run"]["request"]["focusTableIds"] == []


async def test_in_a_legacy_workspace_all_tables_have_to_be_of_it() -> None:
    async with served(workspaces=[PROJECT], plan="pro") as http:
        inside = http.state.add_table("In", workspace_id=PROJECT)
        outside = http.state.add_table("Out")
        assert await create(http, workspaceId=PROJECT, focusTableIds=[outside.id]) == (400, "WORKSPACE_TABLE_MISMATCH")
        attachment = {"kind": "table", "tableId": outside.id}
        assert await create(http, workspaceId=PROJECT, attachments=[attachment]) == (400, "INVALID_ATTACHMENT")
        body = await http.create(workspaceId=PROJECT, focusTableIds=[inside.id])
        assert body["workspace"]["createdByApi"] is False
        http.clock.advance(1)
        at = f"/agents/{body['agent']['id']}"
        answer = await http.ask("POST", f"{at}/runs", {"prompt": "x", "focusTableIds": [outside.id]})
        assert answer.refused == (400, "WORKSPACE_TABLE_MISMATCH")
        assert (await http.get(f"{at}/tables")).body["workspaceId"] == PROJECT
        assert (await http.ask("DELETE", at)).body["workspace"] == {
            "object": "workspace",
            "id": PROJECT,
            "deletedAt": None,
        }


async def test_what_is_not_there_is_not_found() -> None:
    async with served() as http:
        run = await http.play()
        cases = {
            f"/agents/{NOWHERE}": "AGENT_NOT_FOUND",
            "/agents/malformed": "AGENT_NOT_FOUND",
            f"/agents/{NOWHERE}/runs/{run['id']}": "AGENT_NOT_FOUND",
            f"/agents/{run['agentId']}/runs/v2_run-1": "RUN_NOT_FOUND",
            f"/tables/{NOWHERE}": "TABLE_NOT_FOUND",
            f"/tables/{NOWHERE}/rows": "TABLE_NOT_FOUND",
            f"/tables/{NOWHERE}/columns": "TABLE_NOT_FOUND",
        }
        for path, code in cases.items():
            assert (await http.get(path)).refused == (404, code)


async def test_a_run_is_found_only_under_its_own_agent() -> None:
    async with served(plan="pro") as http:
        run, other = (await http.create())["run"], await http.create()
        answer = await http.get(f"/agents/{other['agent']['id']}/runs/{run['id']}")
        assert answer.refused == (404, "RUN_NOT_FOUND")


async def test_money_is_asked_for_before_a_run_starts() -> None:
    async with served(credits=7.5, credits_per_cell=1.25) as http:
        assert (await http.get("/account/credits")).body["balance"] == 7.5
        run = await http.play()
        assert run["response"]["tables"][0]["credits"] == {"lifetimeUsed": 3.75}
        answer = await http.send(run["agentId"])
        assert answer.refused == (402, "INSUFFICIENT_CREDITS")
        facts = {name: answer.body[name] for name in ("creditsRequired", "creditsAvailable")}
        assert facts == {"creditsRequired": 5, "creditsAvailable": 3}
        assert answer.body["topUpUrl"].startswith("https://")
        assert (await http.get("/account/credits")).body == {
            "object": "credits",
            "balance": 3.75,
            "currency": "credits",
        }


async def test_budgets_and_blocks_refuse_a_run_in_spite_of_credits() -> None:
    async with served(spent_budgets=["Q3"]) as http:
        answer = await http.ask("POST", "/agents", {"prompt": PROMPT})
        assert (answer.refused, answer.body["blockedByBudgets"]) == ((402, "BUDGET_EXCEEDED"), ["Q3"])
    async with served(blocked="settlement_pending") as http:
        answer = await http.ask("POST", "/agents", {"prompt": PROMPT})
        assert (answer.refused, answer.body["reason"]) == ((402, "ACCOUNT_BLOCKED"), "settlement_pending")


async def test_an_agent_runs_one_thing_at_a_time() -> None:
    async with served(plan="pro", script=[builds()]) as http:
        run = (await http.create())["run"]
        answer = await http.send(run["agentId"])
        assert answer.refused == (409, "AGENT_BUSY")
        assert answer.body["currentRun"] == {"id": run["id"], "startedAt": run["startedAt"]}
        assert "Retry-After" not in answer.headers
        http.clock.advance(10)
        assert (await http.send(run["agentId"])).status == 202


async def test_the_organization_has_so_many_slots_and_says_who_holds_them() -> None:
    async with served(script=[builds(running=40)]) as http:
        body = await http.create(name="First")
        answer = await http.ask("POST", "/agents", {"prompt": PROMPT})
        assert answer.refused == (429, "CONCURRENT_LIMIT_EXCEEDED")
        assert answer.headers["Retry-After"] == "60"
        assert answer.body["limit"] == 1
        assert answer.body["canUpgrade"] is True
        assert answer.body["activeSessions"] == [
            {"agentId": body["agent"]["id"], "name": "First", "startedAt": body["run"]["startedAt"]}
        ]
        http.clock.advance(40)
        assert (await http.ask("POST", "/agents", {"prompt": PROMPT})).status == 202
        again = await http.ask("POST", "/agents", {"prompt": PROMPT})
        assert again.headers["Retry-After"] == "40"  # the median of what ended so far
        assert len(http.state.agents) == 2


async def test_people_in_the_app_hold_slots_too_and_other_agents_wait_for_them() -> None:
    async with served(plan="pro", slots=2, in_app=2, slot_retry_after=3) as http:
        answer = await http.ask("POST", "/agents", {"prompt": PROMPT})
        assert answer.refused == (429, "CONCURRENT_LIMIT_EXCEEDED")
        assert (answer.headers["Retry-After"], len(answer.body["activeSessions"])) == ("3", 2)
        idle = http.state.add_agent("Idle")
        assert (await http.send(idle.id)).refused == (429, "CONCURRENT_LIMIT_EXCEEDED")


async def test_the_account_tells_the_plan() -> None:
    for plan, slots in (("starter", 1), ("scale", 10), ("ultra", 20), ("enterprise", None)):
        async with served(plan=plan) as http:
            body = (await http.get("/account", project="ignored")).body
            assert body["plan"] == {"id": plan, "name": plan.capitalize()}
            assert body["capabilities"]["concurrentAgents"] == slots


async def test_any_project_is_taken_and_has_agents_and_tables_of_its_own() -> None:
    async with served(plan="pro") as http:
        run = (await http.create(project=PROJECT))["run"]
        http.clock.advance(60)
        at = f"/agents/{run['agentId']}"
        assert (await http.get(at)).refused == (404, "AGENT_NOT_FOUND")
        assert (await http.get(at, project=PROJECT)).status == 200
        assert (await http.get("/agents")).body["items"] == []
        (table,) = http.state.tables
        assert (await http.get(f"/tables/{table}")).refused == (404, "TABLE_NOT_FOUND")
        assert (await http.get(f"/tables/{table}/rows", project=PROJECT)).body["total"] == 3
        assert await create(http, focusTableIds=[table]) == (400, "UNKNOWN_TABLE")
        assert await create(http, workspaceId=run["agentId"]) == (400, "UNKNOWN_WORKSPACE")


async def test_a_project_has_to_be_well_formed_and_known() -> None:
    async with served(projects=[PROJECT]) as http:
        answer = await http.get("/agents", project="acme")
        assert answer.refused == (400, "VALIDATION_ERROR")
        assert answer.body["details"]["issues"][0]["path"] == "x-origami-project"
        assert (await http.get("/agents", project=NOWHERE)).refused == (404, "PROJECT_NOT_FOUND")
        assert (await http.get("/agents", project=PROJECT)).status == 200


async def test_a_repeated_key_gets_the_first_answer_and_starts_nothing() -> None:
    async with served() as http:
        first = await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k1")
        assert "Idempotency-Replay" not in first.headers
        http.clock.advance(60)
        again = await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k1")
        assert (again.status, again.content) == (202, first.content)
        assert again.headers["Idempotency-Replay"] == "true"
        assert http.state.runs_started == 1
        http.clock.advance(DAY)
        later = await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k1")
        assert later.body["run"]["id"] != first.body["run"]["id"]
        assert http.state.runs_started == 2


async def test_a_lost_answer_is_replayed() -> None:
    async with served() as http:
        http.emulator.fail(Fault.answer(502, committed=True, method="POST"))
        assert (await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")).status == 502
        again = await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")
        assert (again.status, again.headers["Idempotency-Replay"]) == (202, "true")
        assert http.state.runs_started == 1


async def test_a_key_may_not_be_used_for_anything_else() -> None:
    async with served(plan="pro") as http:
        body = (await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")).body
        at = f"/agents/{body['agent']['id']}"
        for path, sent in (
            ("/agents", {"prompt": "Other."}),
            (f"{at}/runs", {"prompt": PROMPT}),
            (f"{at}/cancel", None),
        ):
            answer = await http.ask("POST", path, sent, key="k")
            assert answer.refused == (409, "IDEMPOTENCY_ERROR")
            assert "different" in answer.body["error"]
        assert (await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k", project=PROJECT)).status == 202
        assert (await http.get(at, headers={"Idempotency-Key": "k"})).status == 200
        assert (await http.ask("DELETE", at, key="k")).status == 200


async def test_a_key_in_flight_is_told_to_wait() -> None:
    async with served(in_flight=5) as http:
        await http.create(key="k")
        answer = await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")
        assert (answer.refused, "progress" in answer.body["error"]) == ((409, "IDEMPOTENCY_ERROR"), True)
        http.clock.advance(5)
        assert (await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")).status == 202


async def test_a_late_cancel_under_its_old_key_does_not_hit_a_newer_run() -> None:
    async with served(script=[Turn("x"), builds()], cancel_delay=0) as http:
        run = (await http.create())["run"]
        cancelled = await http.ask("POST", f"/agents/{run['agentId']}/cancel", key="c")
        assert cancelled.body["run"]["status"] == "cancelled"
        newer = (await http.send(run["agentId"])).body["run"]
        again = await http.ask("POST", f"/agents/{run['agentId']}/cancel", key="c")
        assert (again.content, again.headers["Idempotency-Replay"]) == (cancelled.content, "true")
        assert (await http.read(newer))["status"] == "running"
        await http.ask("POST", f"/agents/{run['agentId']}/cancel")
        assert (await http.read(newer))["status"] == "cancelled"


@pytest.mark.parametrize("key", ["two words", "ключ", "x" * 256])
async def test_a_malformed_key_is_refused(key: str) -> None:
    async with served() as http:
        answer = await http.ask("POST", "/agents", {"prompt": PROMPT}, key=key)
        assert answer.refused == (400, "VALIDATION_ERROR")
        assert answer.body["details"]["issues"][0]["path"] == "Idempotency-Key"


@pytest.mark.parametrize("stored", [True, False])
async def test_refusals_of_a_handler_are_kept_under_their_key_unless_switched_off(stored: bool) -> None:
    async with served(store_refusals=stored, script=[builds()]) as http:
        await http.create()
        full = await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")
        assert full.refused == (429, "CONCURRENT_LIMIT_EXCEEDED")
        http.clock.advance(60)
        again = await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")
        assert again.status == (429 if stored else 202)
        assert again.headers.get("Idempotency-Replay") == ("true" if stored else None)
        assert again.headers.get("Retry-After") == ("60" if stored else None)
        assert (await http.ask("POST", "/agents", {"prompt": PROMPT}, key="new")).status == (202 if stored else 429)


@pytest.mark.parametrize("code", ["UNAUTHORIZED", "RATE_LIMITED", "SUBSCRIPTION_REQUIRED", "PROJECT_NOT_FOUND"])
async def test_what_is_said_before_a_handler_is_not_kept_under_a_key(code: str) -> None:
    async with served() as http:
        http.emulator.fail(Fault.vendor(code))
        assert (await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")).body["code"] == code
        answer = await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")
        assert (answer.status, answer.headers.get("Idempotency-Replay")) == (202, None)


@pytest.mark.parametrize(("plant", "started"), [("INTERNAL_ERROR", 1), ("ADMITTED_500", 2)])
async def test_a_server_fault_is_not_kept_so_the_retry_starts_again(plant: str, started: int) -> None:
    async with served(plan="pro") as http:
        http.emulator.fail(Fault.vendor(plant, method="POST"))
        answer = await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")
        assert answer.refused == (500, "INTERNAL_ERROR")
        assert (await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")).status == 202
        assert http.state.runs_started == started


async def test_the_mutex_catches_the_second_run_of_an_admitted_server_fault() -> None:
    async with served(plan="pro", script=[Turn("x"), builds()]) as http:
        run = await http.play()
        http.emulator.fail(Fault.vendor("ADMITTED_500"))
        assert (await http.send(run["agentId"], key="k")).status == 500
        answer = await http.send(run["agentId"], key="k")
        assert answer.refused == (409, "AGENT_BUSY")
        assert answer.body["currentRun"]["id"] == list(http.state.runs)[-1]


async def test_planned_refusals_tell_what_there_is() -> None:
    async with served() as http:
        run = await http.play()
        for code in ("AGENT_BUSY", "CONCURRENT_LIMIT_EXCEEDED", "VALIDATION_ERROR", "IDEMPOTENCY_ERROR"):
            http.emulator.fail(Fault.vendor(code))
        busy = await http.send(run["agentId"])
        assert (busy.refused, busy.body["currentRun"]["id"]) == ((409, "AGENT_BUSY"), run["id"])
        full = await http.send(run["agentId"])
        assert (full.refused, full.headers["Retry-After"]) == ((429, "CONCURRENT_LIMIT_EXCEEDED"), "1")
        assert (await http.send(run["agentId"])).refused == (400, "VALIDATION_ERROR")
        assert (await http.send(run["agentId"])).refused == (409, "IDEMPOTENCY_ERROR")
        assert (await http.send(run["agentId"])).status == 202


async def test_a_planned_busy_agent_may_be_one_that_is_not_there() -> None:
    async with served() as http:
        http.emulator.fail(Fault.vendor("AGENT_BUSY"))
        assert (await http.send(NOWHERE)).refused == (409, "AGENT_BUSY")
        with pytest.raises(ValueError, match="origami has no fault 'NAPPING'"):
            http.emulator.fail(Fault.vendor("NAPPING"))


async def test_every_plant_strikes_a_request_of_the_vendor() -> None:
    for name, (method, path) in Origami.plants.items():
        async with served() as http:
            http.emulator.fail(Fault.vendor(name))
            verb = "GET" if method == "*" else method
            address = path.replace("/agent*s", "/agents").replace("*", NOWHERE).removeprefix("/api/v2")
            answer = await http.ask(
                verb, "/agents" if path == "*" else address, {"prompt": PROMPT} if verb == "POST" else None
            )
            assert answer.body["code"] == {
                "CANCEL_LOST": "AGENT_NOT_FOUND",
                "ADMITTED_500": "INTERNAL_ERROR",
            }.get(name, name)


async def test_requests_are_counted_over_a_sliding_minute() -> None:
    async with served(requests_per_minute=2, requests_per_minute_ip=3) as http:
        first = await http.get("/agents")
        names = {name for name in first.headers if name.startswith("X-RateLimit-")}
        assert names == {
            f"X-RateLimit-{what}-{scope}" for what in ("Limit", "Remaining", "Reset") for scope in ("IP", "Global")
        }
        assert (first.headers["X-RateLimit-Limit-Global"], first.headers["X-RateLimit-Remaining-Global"]) == ("2", "1")
        assert (first.headers["X-RateLimit-Limit-IP"], first.headers["X-RateLimit-Remaining-IP"]) == ("3", "2")
        assert int(first.headers["X-RateLimit-Reset-Global"]) == int(NOON.timestamp()) + 60
        http.clock.advance(20)
        assert (await http.get("/agents")).status == 200
        full = await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")
        assert full.refused == (429, "RATE_LIMITED")
        assert (full.headers["Retry-After"], full.headers["X-RateLimit-Remaining-Global"]) == ("40", "0")
        http.clock.advance(40)
        assert (await http.ask("POST", "/agents", {"prompt": PROMPT}, key="k")).status == 202
        assert (await http.get("/agents")).refused == (429, "RATE_LIMITED")


async def test_the_pause_of_a_spent_budget_may_be_left_out() -> None:
    async with served(requests_per_minute=1, rate_limit_retry_after=False) as http:
        await http.get("/agents", token="wrong")
        await http.get("/agents")
        full = await http.get("/agents")
        assert (full.refused, "Retry-After" in full.headers) == ((429, "RATE_LIMITED"), False)
        assert "X-RateLimit-Reset-Global" in full.headers


@pytest.mark.parametrize(("limit", "shown"), [(None, "100"), (7, "7")])
async def test_a_planned_spent_budget_has_the_headers_too(limit: int | None, shown: str) -> None:
    async with served(requests_per_minute=limit) as http:
        http.emulator.fail(Fault.vendor("RATE_LIMITED"))
        full = await http.get("/agents")
        assert (full.headers["Retry-After"], full.headers["X-RateLimit-Limit-Global"]) == ("1", shown)


async def test_a_cancel_is_not_struck_by_the_plans_for_admission() -> None:
    async with served() as http:
        run = await http.play()
        http.emulator.fail(Fault.vendor("INSUFFICIENT_CREDITS"))
        assert (await http.ask("POST", f"/agents/{run['agentId']}/cancel")).status == 200
        assert (await http.send(run["agentId"])).refused == (402, "INSUFFICIENT_CREDITS")


async def test_a_refusal_is_never_an_admitted_server_fault() -> None:
    async with served(slots=0) as http:
        http.emulator.fail(Fault.vendor("ADMITTED_500"))
        assert await create(http) == (429, "CONCURRENT_LIMIT_EXCEEDED")


async def test_answers_may_carry_request_ids() -> None:
    async with served(request_ids=True) as http:
        assert (await http.get("/agents", headers={"X-Request-Id": "mine-1"})).headers["X-Request-Id"] == "mine-1"
        assert len((await http.get("/agents", headers={"X-Request-Id": "a b"})).headers["X-Request-Id"]) == 36
    async with served() as http:
        assert "X-Request-Id" not in (await http.get("/agents")).headers


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Emulator(Origami, colour="red"), TypeError, "unknown option colour; allowed are blocked, .*plan"),
        (lambda: Emulator(Origami, plan="gold"), ValueError, "'plan' must be in"),
        (lambda: Emulator(Origami, generation="G2"), ValueError, "'generation' must be in"),
        (lambda: Emulator(Origami, retry_after=1.5), TypeError, "'retry_after' must be"),
        (lambda: Emulator(Origami, cancel_delay=-1), ValueError, "cancel_delay is a number from 0 on"),
        (lambda: Emulator(Origami, cells_settle=float("nan")), ValueError, "cells_settle is a number"),
        (lambda: Emulator(Origami, steps_max=0), ValueError, "'steps_max' must be >= 1"),
        (lambda: Emulator(Origami, blocked="mood"), ValueError, "'blocked' must be in"),
    ],
)
async def test_bad_options_are_refused_by_name(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()
