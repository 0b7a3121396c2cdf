"""The emulated Conduit: tokens and what they may do, workspaces, and the budget of requests."""

from __future__ import annotations

import pytest

from agentruns.emulator import Fault, Turn
from tests.emulator.conduit_caller import ESCALATED, served

pytestmark = pytest.mark.asyncio

NO_ACCESS = (403, "This token has no access to the workspace")


async def test_a_request_without_a_valid_token_is_refused() -> None:
    async with served() as http:
        for token in ("wrong", ""):
            assert (await http.get("/workspaces", token=token)).refused == (401, "Invalid API token")


async def test_a_read_only_token_reads_but_does_not_write() -> None:
    async with served(read_only="capi_reader", script=[Turn(extra=ESCALATED)]) as http:
        await http.play()
        (key,) = http.state.escalations
        assert (await http.get(f"{http.agent}/runs", token="capi_reader")).status == 200
        refused = (403, "This token has read access only")
        for method, path in (
            ("POST", f"{http.agent}/run"),
            ("POST", "/agents"),
            ("PATCH", http.agent),
            ("DELETE", http.agent),
            ("POST", f"/escalations/{key}/resolve"),
            ("POST", "/conversations/cv1/messages"),
        ):
            assert (await http.ask(method, path, {}, token="capi_reader")).refused == refused
        assert http.state.runs_started == 1


async def test_a_token_reaches_its_own_workspaces_only() -> None:
    async with served(read_only=["capi_reader"]) as http:
        second = http.state.add_workspace("Second")
        foreign = http.state.add_workspace("Foreign", tokens=["capi_other"])
        theirs = http.state.add_agent(workspace_id=foreign.id)
        assert (await http.get(f"/agents/{theirs.id}")).refused == NO_ACCESS
        assert (await http.dispatch(agent_id=theirs.id)).refused == NO_ACCESS
        assert (await http.get(f"/agents/{theirs.id}/runs", token="capi_other")).status == 200
        assert (await http.get(http.agent, token="capi_other")).refused == NO_ACCESS
        assert (await http.post("/agents", {"workspace_id": foreign.id, "name": "A"})).refused == NO_ACCESS
        assert (await http.get(f"/workspaces/{foreign.id}/users")).refused == NO_ACCESS
        names = [row["name"] for row in (await http.get("/workspaces")).data]
        assert names == ["Emulated workspace", "Second"]
        assert list(http.state.workspaces) == [http.state.workspace_id, second.id, foreign.id]
        for query, refused in (
            (f"?workspace_id={http.state.workspace_id}", None),
            (f"?workspace_id={second.id}", (404, "Agent not found")),
            (f"?workspace_id={foreign.id}", NO_ACCESS),
            ("?workspace_id=j5unknown", NO_ACCESS),
            ("?workspace_id=a-b", (400, "Invalid workspace id")),
        ):
            answer = await http.get(http.agent + query)
            assert answer.status == 200 if refused is None else answer.refused == refused


@pytest.mark.parametrize("path", ["/agents", "/escalations"])
async def test_a_list_of_a_workspace_needs_to_know_which(path: str) -> None:
    async with served() as http:
        assert (await http.get(path)).refused == (400, "workspace_id is required")


async def test_unknown_paths_and_methods_are_refused_in_the_vendors_shape() -> None:
    async with served() as http:
        assert (await http.get("/tickets")).refused[0] == 404
        assert (await http.ask("PUT", http.agent, {})).refused[0] == 405


async def test_the_budget_of_a_workspace_slides_over_a_minute() -> None:
    async with served(requests_per_minute=3) as http:
        assert (await http.dispatch()).status == 200
        http.clock.advance(20.5)
        statuses = [(await http.get(f"{http.agent}/runs")).status for _ in range(2)]
        refused = await http.dispatch()
        assert statuses == [200, 200]
        assert refused.refused == (429, "Too many requests for this workspace, slow down")
        assert refused.headers["Retry-After"] == "40"
        assert http.state.runs_started == 1
        http.clock.advance(39)
        assert (await http.get(http.agent)).headers["Retry-After"] == "1"
        http.clock.advance(1)
        assert (await http.get(http.agent)).status == 200
        assert (await http.get(http.agent)).headers["Retry-After"] == "20"


async def test_every_workspace_and_token_has_a_budget_of_its_own() -> None:
    async with served(requests_per_minute=1, read_only=["capi_reader"]) as http:
        second = http.state.add_workspace("Second")
        third = http.state.add_workspace("Third")
        agent = http.state.add_agent(workspace_id=second.id)
        statuses = [
            (await http.get(http.agent)).status,
            (await http.get(f"/agents?workspace_id={http.state.workspace_id}")).status,
            (await http.get(f"/agents/{agent.id}", token="capi_reader")).status,
            (await http.get(f"/agents/{agent.id}")).status,
            (await http.post("/agents", {"workspace_id": third.id, "name": "A"})).status,
            (await http.get(f"/workspaces/{third.id}/users")).status,
            (await http.get("/workspaces")).status,
            (await http.get("/workspaces")).status,
            (await http.get("/workspaces", token="capi_reader")).status,
        ]
        assert statuses == [200, 429, 200, 429, 200, 429, 200, 429, 200]


async def test_escalations_and_conversations_are_charged_to_their_workspace() -> None:
    async with served(requests_per_minute=3, script=[Turn(extra=ESCALATED)]) as http:
        run = http.state.fire()
        http.clock.advance(1)
        (key,) = http.state.escalations
        await http.get(f"/conversations/{run.conversation_id}/messages")
        await http.post(f"/escalations/{key}/resolve")
        assert (await http.get(http.agent)).status == 200
        assert (await http.get(http.agent)).status == 429


async def test_others_may_spend_the_budget() -> None:
    async with served(requests_per_minute=120) as http:
        second = http.state.add_workspace("Second").id
        http.state.spend(130)
        http.state.spend(119, workspace_id=second)
        http.clock.advance(59.5)
        assert (await http.get(http.agent)).headers["Retry-After"] == "1"
        assert (await http.get(f"/agents?workspace_id={second}")).status == 200
        assert (await http.get(f"/agents?workspace_id={second}")).status == 429
        http.clock.advance(1)
        assert (await http.get(http.agent)).status == 200


async def test_a_refusal_for_the_rate_may_be_planned() -> None:
    async with served() as http:
        http.emulator.fail(Fault.vendor("rate-limited"))
        answer = await http.dispatch()
        assert (answer.refused[0], answer.headers["Retry-After"]) == (429, "17")
        assert http.state.runs_started == 0
        assert (await http.dispatch()).status == 200


async def test_no_repr_shows_a_token() -> None:
    async with served(token="s3cret", read_only=["als0"]) as http:
        shown = repr((http.emulator, http.state.options, http.state.workspaces))
        assert "s3cret" not in shown
        assert "als0" not in shown
