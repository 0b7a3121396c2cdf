"""The emulated Conduit: agents, escalations and conversations."""

from __future__ import annotations

from typing import Any

import pytest

from agentruns.emulator import Call, Turn
from tests.emulator.conduit_caller import ESCALATED, Http, served

pytestmark = pytest.mark.asyncio


async def escalated(http: Http) -> dict[str, Any]:
    """Let a run end in an escalation."""
    run = await http.play({"payload": "I want my money back."})
    assert (run["status"], run["disposition"]) == ("completed", "escalated")
    (row, *_) = (await http.get(f"/escalations?workspace_id={http.state.workspace_id}")).data
    assert row["agent_run_id"] == run["id"]
    return {"run": run, **row}


async def test_an_escalated_run_is_completed_and_leaves_an_escalation() -> None:
    extra = {**ESCALATED, "proposed_response": "A colleague will look.", "request_for_additional_info": "May we?"}
    async with served(script=[Turn(running=3, extra=extra)]) as http:
        row = await escalated(http)
        run = row.pop("run")
        assert run["response"] is None
        assert run["disposition_reason"] == "No rule covers it."
        assert "proposed_response" not in run
        assert row == {
            "id": row["id"],
            "workspace_id": http.state.workspace_id,
            "type": "chat",
            "conversation_id": run["conversation_id"],
            "contact_id": run["contact_id"],
            "agent_run_id": run["id"],
            "agent_id": http.state.agent_id,
            "disposition": "escalated",
            "disposition_reason": "No rule covers it.",
            "status": "pending",
            "created_at": run["completed_at"],
            "reviewed_at": None,
            "reviewed_by": None,
            "guest_message": "I want my money back.",
            "proposed_response": "A colleague will look.",
            "request_for_additional_info": "May we?",
            "questions_for_operator": "May we?",
        }
        assert run["contact_id"] != run["conversation_id"]


async def test_an_escalation_comes_with_the_end_of_its_run() -> None:
    async with served(script=[Turn("Draft.", running=3, extra={"disposition": "escalated"})]) as http:
        await http.dispatch()
        http.clock.advance(2)
        assert http.state.escalations == {}
        http.clock.advance(1)
        (row,) = http.state.escalations.values()
        assert (row.proposed_response, row.question) == ("Draft.", None)
        assert row.disposition_reason == "The agent asked for a person to decide."


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, "resolved"), ({"status": "reviewed"}, "reviewed"), ({"status": "dismissed"}, "dismissed")],
)
async def test_resolving_settles_the_escalation_and_not_the_run(body: object, status: str) -> None:
    async with served(script=[Turn(extra=ESCALATED)]) as http:
        row = await escalated(http)
        run = row["run"]
        answer = await http.post(f"/escalations/{row['id']}/resolve", body)
        assert answer.data["status"] == status
        assert answer.data["reviewed_at"] == "2026-05-11T09:01:00.000Z"
        (first, _) = (await http.get(f"/workspaces/{http.state.workspace_id}/users")).data
        assert answer.data["reviewed_by"] == first["id"]
        assert await http.run(run["id"]) == run
        query = f"/escalations?workspace_id={http.state.workspace_id}&status="
        assert (await http.get(query + "pending")).data == []
        assert (await http.get(query + status)).data == [answer.data]
        assert (await http.post(f"/escalations/{row['id']}/resolve", {})).data["status"] == "resolved"


async def test_a_settled_escalation_may_refuse_a_second_time() -> None:
    async with served(script=[Turn(extra=ESCALATED)], resolve_again=False) as http:
        path = f"/escalations/{(await escalated(http))['id']}/resolve"
        assert (await http.post(path)).status == 200
        assert (await http.post(path)).refused == (400, "This escalation is already resolved")


async def test_an_escalation_is_given_to_a_member() -> None:
    async with served(script=[Turn(extra=ESCALATED)]) as http:
        row = await escalated(http)
        path = f"/escalations/{row['id']}/assign"
        member = (await http.get(f"/workspaces/{http.state.workspace_id}/users?limit=1")).data[0]
        assert set(member) == {"id", "email", "first_name", "last_name", "role", "picture_url"}
        answer = await http.post(path, {"assignee_id": member["id"]})
        assert (answer.status, answer.data["status"]) == (200, "pending")
        assert http.state.escalations[row["id"]].assignee_id == member["id"]
        stranger = (400, "assignee_id is not a member of this workspace")
        assert (await http.post(path, {"assignee_id": "m4nobody"})).refused == stranger
        assert (await http.post(path, {})).status == 400
        assert (await http.post("/escalations/k5nothing/assign", {})).refused == (404, "Escalation not found")


async def test_the_older_list_of_escalations_has_fewer_fields() -> None:
    async with served(script=[Turn(extra=ESCALATED)], older_escalations=True) as http:
        await http.play()
        (row,) = (await http.get(f"/escalations?workspace_id={http.state.workspace_id}")).data
        newer = {"agent_run_id", "agent_id", "disposition", "disposition_reason", "questions_for_operator"}
        assert not newer & set(row)
        assert newer <= set((await http.post(f"/escalations/{row['id']}/resolve")).data)


async def test_escalations_are_listed_newest_first_by_status() -> None:
    async with served(script=[Turn(extra=ESCALATED)] * 3) as http:
        for _ in range(3):
            await http.play()
        rows = (await http.get(f"/escalations?workspace_id={http.state.workspace_id}&limit=2")).data
        assert [row["id"] for row in rows] == list(http.state.escalations)[:0:-1]
        query = f"/escalations?workspace_id={http.state.workspace_id}&status=open"
        assert (await http.get(query)).refused[0] == 400


async def test_a_conversation_has_the_guests_message_and_the_reply() -> None:
    async with served() as http:
        inbox = http.state.add_trigger("message")
        run = http.state.fire(inbox.id, "Is it free?", turn=Turn("Yes.", running=2))
        path = f"/conversations/{run.conversation_id}/messages"
        assert [row["body"] for row in (await http.get(path)).data] == ["Is it free?"]
        http.clock.advance(2)
        rows = (await http.get(f"{path}?order=asc")).data
        assert [(row["direction"], row["body"]) for row in rows] == [("inbound", "Is it free?"), ("outbound", "Yes.")]
        assert rows[1] == {
            "id": rows[1]["id"],
            "workspace_id": http.state.workspace_id,
            "conversation_id": run.conversation_id,
            "channel": "email",
            "body": "Yes.",
            "direction": "outbound",
            "status": "sent",
            "sent_at": "2026-05-11T09:00:02.000Z",
            "created_at": "2026-05-11T09:00:02.000Z",
            "sender": {"user_id": http.state.agent_id, "external_id": None, "name": "Emulated agent"},
        }
        for query in ("", "?order=desc"):
            assert (await http.get(path + query)).data == rows[::-1]
        assert (await http.get(f"{path}?order=up")).refused == (400, "order must be one of asc, desc")


async def test_a_copilot_only_proposes_and_a_delayed_reply_comes_later() -> None:
    async with served(response_delay="after") as http:
        copilot = http.state.add_agent(triggers=["message"], operation_mode="copilot")
        slow = http.state.add_agent(triggers=["message"], custom_response_delay_ms=10_000)
        first, second = (http.state.fire(agent.triggers[0].id, "Hi.") for agent in (copilot, slow))
        http.clock.advance(5)
        assert http.state.runs[second.id].ended
        assert [len(http.state.messages_of(str(run.conversation_id))) for run in (first, second)] == [1, 1]
        http.clock.advance(6)
        assert [len(http.state.messages_of(str(run.conversation_id))) for run in (first, second)] == [1, 2]


async def test_the_caller_writes_into_a_conversation() -> None:
    script = [Turn(extra={**ESCALATED, "contact_id": "co1", "conversation_id": "cv1", "guest_message": "Help!"})]
    async with served(script=script) as http:
        row = await escalated(http)
        assert (row["contact_id"], row["conversation_id"], row["guest_message"]) == ("co1", "cv1", "Help!")
        sent = await http.post("/conversations/cv1/messages", {"body": "A colleague will call."})
        assert (sent.status, sent.data["status"], sent.data["conversation_id"]) == (200, "sent", "cv1")
        assert [message.body for message in http.state.messages_of("cv1")] == ["Help!", "A colleague will call."]
        for bad in ({}, {"body": ""}, {"body": 7}):
            assert (await http.post("/conversations/cv1/messages", bad)).refused[0] == 400
        missing = (404, "Conversation not found")
        assert (await http.post("/conversations/cv2/messages", {"body": "x"})).refused == missing
        assert (await http.get("/conversations/cv2/messages")).refused == missing


async def test_agents_are_listed_with_their_triggers() -> None:
    async with served() as http:
        second = http.state.add_agent("Nightly", triggers=["cron", "message"])
        answer = await http.get(f"/agents?workspace_id={http.state.workspace_id}")
        assert [row["name"] for row in answer.data] == ["Nightly", "Emulated agent"]
        agent = (await http.get(f"/agents/{second.id}")).data
        assert agent == answer.data[0]
        assert (agent["version"], agent["autopilot_schedule"], agent["operation_mode"]) == ("v2", None, "autopilot")
        assert [(trigger["type"], trigger["name"]) for trigger in agent["triggers"]] == [
            ("cron", "Cron"),
            ("message", "Message"),
        ]
        assert set(agent["triggers"][0]) == {
            *("id", "workspace_id", "name", "description", "type", "config", "enabled", "created_at", "updated_at")
        }


async def test_an_agent_is_created_with_its_triggers_and_answers_in_its_schema() -> None:
    body = {
        "workspace_id": "",
        "name": "Booker",
        "guardrails": [{"title": "Refunds", "knowledge": "Never."}],
        "skill_ids": ["sk1"],
        "output_schema": [
            {"name": "slot", "description": "When", "type": "string", "is_required": True},
            {"name": "count", "type": "integer"},
        ],
        "triggers": [{"name": "Hook", "type": "event", "config": {"url": "x"}, "enabled": True}],
        "unknown": 1,
    }
    async with served() as http:
        body["workspace_id"] = http.state.workspace_id
        answer = await http.post("/agents", body)
        assert answer.status == 200
        (guardrail,) = answer.data["guardrails"]
        assert (guardrail["id"][:2], guardrail["title"]) == ("gr", "Refunds")
        assert (answer.data["skill_ids"], answer.data["triggers"][0]["config"]) == (["sk1"], {"url": "x"})
        agent_id = answer.data["id"]
        assert http.state.agents[agent_id].name == "Booker"
        assert (await http.play(agent_id=agent_id))["response"] == '{"slot":"example slot","count":1}'


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": None},
        {"operation_mode": "sleepy"},
        {"custom_response_delay_ms": -1},
        {"response_language": "Klingon"},
        {"triggers": [{"name": "no type"}]},
    ],
)
async def test_an_agent_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    async with served() as http:
        body = {"workspace_id": http.state.workspace_id, "name": "A", **change}
        assert (await http.post("/agents", body)).refused[0] == 400
        assert (await http.ask("PATCH", http.agent, change)).refused[0] == 400
        assert len(http.state.agents) == 1


async def test_a_change_replaces_the_lists_it_has_and_keeps_the_rest() -> None:
    async with served() as http:
        http.clock.advance(5)
        answer = await http.ask("PATCH", http.agent, {"triggers": [{"type": "cron"}], "operation_mode": "inactive"})
        assert (answer.status, answer.data["name"]) == (200, "Emulated agent")
        assert [trigger["type"] for trigger in answer.data["triggers"]] == ["cron"]
        assert answer.data["triggers"][0]["id"] != http.state.trigger_id
        assert (answer.data["created_at"], answer.data["updated_at"]) == (
            "2026-05-11T09:00:00.000Z",
            "2026-05-11T09:00:05.000Z",
        )
        assert (await http.dispatch()).refused == (400, "This agent is inactive")


async def test_a_deleted_agent_is_gone_with_its_runs() -> None:
    async with served() as http:
        run = await http.play()
        deleted = await http.ask("DELETE", http.agent)
        assert (deleted.status, deleted.content) == (200, b"")
        for path in (http.agent, f"{http.agent}/runs", f"{http.agent}/runs/{run['id']}"):
            assert (await http.get(path)).refused == (404, "Agent not found")
        assert (await http.get(f"/agents?workspace_id={http.state.workspace_id}")).data == []
        assert http.state.agents[http.state.agent_id].deleted


async def test_a_conversation_tells_how_it_stands_and_a_ticket_takes_replies_into_it() -> None:
    async with served(script=[Turn(running=3, extra=ESCALATED)]) as http:
        conversation = (await escalated(http))["conversation_id"]
        ticket = http.state.add_ticket(conversation)
        workspace = f"?workspace_id={http.state.workspace_id}"
        sent = await http.post(f"/tickets/{ticket}/messages{workspace}", {"body": "We will."})
        assert (sent.status, sent.data["ticket_id"], sent.data["conversation_id"]) == (200, ticket, conversation)
        assert (await http.post(f"/tickets/{ticket}/messages", {"body": ""})).refused[0] == 400
        assert (await http.post("/tickets/none/messages", {"body": "x"})).refused == (404, "Ticket not found")
        assert (await http.post("/contacts/none/messages", {"body": "x"})).refused == (404, "Contact not found")
        seen = (await http.get(f"/conversations/{conversation}{workspace}")).data
        assert (seen["id"], seen["workspace_id"]) == (conversation, http.state.workspace_id)
        assert (seen["ticket"]["id"], seen["last_message"]["body"]) == (ticket, "We will.")
        assert (await http.get("/conversations/none")).refused == (404, "Conversation not found")
        with pytest.raises(KeyError):
            http.state.add_ticket("none")


async def test_what_no_page_says_may_be_otherwise() -> None:
    options: dict[str, Any] = {
        "names_run": "agent_run_id",
        "words": {"completed": "done"},
        "send_path": "/threads/{conversation}/reply",
    }
    async with served(script=[Turn("Hi.", running=1, extra={"conversation_id": "cv1"})], **options) as http:
        answer = await http.dispatch()
        http.clock.advance(9)
        (row,) = await http.listed()
        assert answer.data["agent_run_id"] == row["id"]
        assert row["status"] == (await http.run(row["id"]))["status"] == "done"
        assert (await http.post("/threads/cv1/reply", {"body": "Hello."})).data["conversation_id"] == "cv1"
        assert (await http.post("/conversations/cv1/messages", {"body": "Hello."})).status == 405


async def test_a_failed_run_may_be_escalated_by_the_script() -> None:
    turn = Turn(error="The model broke.", calls=[Call("look")], extra={"disposition": "escalated"})
    async with served(script=[turn]) as http:
        run = await http.play()
        assert (run["status"], run["disposition"], run["response"]) == ("failed", "escalated", None)
        (row,) = http.state.escalations.values()
        assert (row.agent_run_id, row.proposed_response) == (run["id"], None)
