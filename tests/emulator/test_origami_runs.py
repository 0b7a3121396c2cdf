"""Origami: the life of a run, its ends, questions, cancels, agents and their lists."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agentruns.emulator import Call, Emulator, Fault, Prompt, Turn
from tests.emulator.origami_caller import ASK, NOWHERE, PROMPT, Http, builds, does, served

pytestmark = pytest.mark.asyncio


async def test_a_new_agent_starts_its_first_run_at_once() -> None:
    async with served(plan="pro") as http:
        body = await http.create(name="Clinics")
        agent, run, workspace = body["agent"], body["run"], body["workspace"]
        assert set(agent) == {"object", "id", "name", "workspaceId", "createdAt"}
        assert (agent["object"], agent["name"], agent["workspaceId"]) == ("agent", "Clinics", agent["id"])
        assert (workspace["object"], workspace["id"], workspace["createdByApi"]) == ("workspace", agent["id"], True)
        assert run["id"].startswith("v2_run-")
        assert (run["object"], run["agentId"], run["status"]) == ("run", agent["id"], "running")
        assert run["steps"] == {"completed": 0, "max": 50}
        assert run["request"] == {"prompt": PROMPT, "model": "origami-max", "focusTableIds": []}
        assert (run["startedAt"], run["completedAt"]) == ("2026-07-28T12:00:00.000Z", None)
        assert (run["response"], run["todo"]) == (None, {"pendingQuestions": [], "nextActions": []})
        assert http.state.runs_started == 1


async def test_without_a_script_a_run_completes_with_a_table_and_quotes_the_prompt() -> None:
    async with served() as http:
        run = (await http.create("Find bakeries."))["run"]
        http.clock.advance(0.1)
        done = await http.read(run)
        assert (done["status"], done["steps"]["completed"]) == ("completed", 1)
        assert "Find bakeries." in done["response"]["text"]
        created, added = done["response"]["actions"]
        assert (created["type"], created["tableName"]) == ("table_created", "Find bakeries.")
        (table,) = done["response"]["tables"]
        assert added == {"leadCount": 3, "type": "leads_added", "tableId": table["id"]}
        assert (table["leadCount"], table["workspaceId"]) == (3, None)
        assert done["todo"]["nextActions"] == [{"label": "Find more leads", "type": "find_more_leads"}]
        again = await http.send(run["agentId"], "More.")
        http.clock.advance(0.1)
        more = await http.read(again.body["run"])
        assert [action["type"] for action in more["response"]["actions"]] == ["leads_added"]
        assert more["response"]["tables"][0]["leadCount"] == 6


async def test_polls_ask_for_a_pause_only_while_the_run_is_running() -> None:
    async with served(script=[Turn("x", running=10)]) as http:
        body = await http.create()
        answer = await http.poll(body["run"])
        assert answer.headers["Retry-After"] == "15"
        cancel = await http.ask("POST", f"/agents/{body['agent']['id']}/cancel")
        assert "Retry-After" not in cancel.headers
        http.clock.advance(10)
        assert "Retry-After" not in (await http.poll(body["run"])).headers


@pytest.mark.parametrize(("option", "sent"), [(0, "0"), (1, "1"), (None, None)])
async def test_the_pause_is_an_option(option: int | None, sent: str | None) -> None:
    async with served(retry_after=option) as http:
        assert (await http.poll((await http.create())["run"])).headers.get("Retry-After") == sent


async def test_steps_count_up_and_the_model_is_the_plans_default_before_the_first() -> None:
    async with served(plan="pro", script=[Turn("x", pending=4, running=10, iterations=5)]) as http:
        run = (await http.create(model="origami-fast"))["run"]
        assert (run["model"], run["request"]["model"]) == ("origami-max", "origami-lite")
        seen = []
        for _ in range(4):
            http.clock.advance(3.5)
            now = await http.read(run)
            seen.append((now["status"], now["steps"]["completed"], now["model"]))
        assert seen == [
            ("running", 0, "origami-max"),
            ("running", 1, "origami-lite"),
            ("running", 3, "origami-lite"),
            ("completed", 5, "origami-lite"),
        ]


async def test_the_post_answers_running_even_for_a_run_that_takes_no_time() -> None:
    async with served(script=[Turn("Now.", running=0)]) as http:
        run = (await http.create())["run"]
        assert run["status"] == "running"
        assert (await http.read(run))["response"]["text"] == "Now."


ENDS: dict[str, tuple[Turn, str, str | None]] = {
    "text": (Turn("Done so."), "completed", "Done so."),
    "nothing": (Turn(), "completed", "Done."),
    "structured": (Turn(structured={"a": 1}), "completed", '{"a": 1}'),
    "hidden tools": (Turn("Done.", calls=[does("search", q="x")]), "completed", "Done."),
    "a question": (Turn("Which?", calls=[ASK]), "needs_input", "Which?"),
    "only a question": (Turn(calls=[ASK]), "needs_input", "I have to ask before I go on."),
    "errored": (Turn("partial", error="errored"), "errored", None),
    "errored with words": (Turn(error=("errored", "boom")), "errored", None),
    "timed out": (Turn("partial", error="timed_out"), "timed_out", None),
    "cancelled": (Turn("partial", error="cancelled"), "cancelled", "partial"),
    "incomplete": (Turn(error="incomplete"), "incomplete", "I stopped early; what was built so far is kept."),
    "incomplete with words": (Turn(error=("incomplete", "Cut.")), "incomplete", "Cut."),
    "a word nobody knows": (Turn("x", error="exploded"), "exploded", "x"),
    "the cap by name": (Turn("x", error="step_cap_hit"), "step_cap_hit", "x"),
    "the cap": (Turn("x", iterations=30), "step_cap_hit", "x"),
    "the cap over questions": (Turn("x", iterations=30, calls=[ASK]), "step_cap_hit", "x"),
    "the cap over incomplete": (Turn("x", iterations=40, error="incomplete"), "step_cap_hit", "x"),
    "errored over the cap": (Turn("x", iterations=30, error="errored"), "errored", None),
    "cancelled over the cap": (Turn("x", iterations=30, error="cancelled"), "cancelled", "x"),
}


@pytest.mark.parametrize("name", ENDS)
async def test_the_script_chooses_how_a_run_ends(name: str) -> None:
    turn, status, text = ENDS[name]
    async with served(script=[turn]) as http:
        run = await http.play()
        assert (run["status"], run["response"]["text"]) == (status, text)
        assert run["response"]["actions"] == run["response"]["tables"] == []
        assert (run["response"]["transcript"], run["response"]["transcriptTruncated"]) == (None, False)
        assert run["completedAt"] is not None
        assert run["steps"]["max"] == 30
        if status == "step_cap_hit":
            assert run["steps"]["completed"] == 30
        assert (await http.send(run["agentId"])).status == 202  # after every end


async def test_a_run_never_exceeds_the_wall_clock_ceiling() -> None:
    async with served(script=[builds(running=math.inf), Turn(running=5000, iterations=10)]) as http:
        first = (await http.create())["run"]
        http.clock.advance(1199)
        assert (await http.read(first))["status"] == "running"
        http.clock.advance(1)
        over = await http.read(first)
        assert (over["status"], over["completedAt"]) == ("timed_out", "2026-07-28T12:20:00.000Z")
        assert (over["response"]["text"], over["response"]["actions"], over["steps"]["completed"]) == (None, [], 0)
        second = (await http.send(first["agentId"])).body["run"]
        http.clock.advance(2000)
        assert (await http.read(second))["steps"]["completed"] == 2


async def test_the_ceiling_may_be_lifted() -> None:
    async with served(script=[Turn(running=math.inf)], time_limit=math.inf) as http:
        run = (await http.create())["run"]
        http.clock.advance(1e9)
        assert (await http.read(run))["status"] == "running"


async def test_questions_chain_over_two_rounds_and_the_old_runs_stay_as_they_were() -> None:
    confirm = Call("ask-questions", {"questions": [{"type": "confirm", "question": "Spend?"}, "not a question"]})
    script = [Turn("Two things.", calls=[ASK, confirm]), Turn("And?", calls=[Call("ask-questions")]), Turn("Built.")]
    async with served(script=script) as http:
        first = await http.play()
        assert first["status"] == "needs_input"
        assert first["todo"]["pendingQuestions"] == [
            {
                "type": "single-choice",
                "question": "Which?",
                "suggestedAnswers": ["Single-site", "Any"],
                "freeformOption": "Or something else",
            },
            {
                "type": "confirm",
                "question": "Spend?",
                "suggestedAnswers": ["Confirm"],
                "freeformOption": "Or something else",
            },
        ]
        statuses = []
        for answer in ("Any. Confirm.", "Confirm."):
            run = (await http.send(first["agentId"], answer)).body["run"]
            assert run["todo"]["pendingQuestions"] == []
            http.clock.advance(1)
            statuses.append((await http.read(run))["status"])
        assert statuses == ["needs_input", "completed"]
        assert await http.read(first) == first


async def test_a_call_of_any_other_tool_asks_for_confirmation() -> None:
    calls = [Call("book", {"slot": "noon"}), Call("ping"), Call("odd", {"question": "Odd?", "type": "dance"})]
    async with served(script=[Turn("x", calls=calls)]) as http:
        run = await http.play()
        asked = [(one["type"], one["question"]) for one in run["todo"]["pendingQuestions"]]
        assert asked == [
            ("confirm", 'May I go on with book {"slot": "noon"}?'),
            ("confirm", "May I go on with ping?"),
            ("dance", "Odd?"),
        ]


async def test_questions_of_a_cancelled_run_stay_on_its_record() -> None:
    async with served(script=[Turn("x", calls=[ASK], error="cancelled")]) as http:
        run = await http.play()
        assert (run["status"], len(run["todo"]["pendingQuestions"])) == ("cancelled", 1)


async def test_words_and_fields_of_the_future_are_reported_verbatim() -> None:
    calls = [does("action", type="table_sung", pitch=3), does("action"), does("next_action", type="sing")]
    turn = builds(*calls, status="queued", extra={"mood": "calm"})
    async with served(script=[turn]) as http:
        run = (await http.create())["run"]
        assert (run["status"], run["mood"], run["response"]) == ("queued", "calm", None)
        answer = await http.poll(run)
        assert (answer.body["status"], answer.headers["Retry-After"]) == ("queued", "15")
        http.clock.advance(10)
        done = await http.read(run)
        (table,) = done["response"]["tables"]
        assert done["response"]["actions"][2] == {"type": "table_sung", "pitch": 3, "tableId": table["id"]}
        assert done["response"]["actions"][3] == {"type": "action", "tableId": table["id"]}
        assert done["todo"]["nextActions"] == [{"label": "Continue", "type": "sing"}]


async def test_an_action_may_name_a_table_that_is_not_there() -> None:
    calls = [does("action", type="gone", tableId=NOWHERE), does("leads_added", tableId=NOWHERE, leadCount=4)]
    async with served(script=[Turn("x", calls=calls)]) as http:
        run = await http.play()
        assert [action["tableId"] for action in run["response"]["actions"]] == [NOWHERE, NOWHERE]
        assert run["response"]["tables"] == []


async def test_a_partial_response_shows_the_actions_so_far() -> None:
    async with served(script=[builds()], partial_response=True) as http:
        run = (await http.create())["run"]
        empty: dict[str, object] = {
            "text": None,
            "actions": [],
            "tables": [],
            "transcript": None,
            "transcriptTruncated": False,
        }
        assert run["response"] == empty
        http.clock.advance(4)
        (action,) = (await http.read(run))["response"]["actions"]
        assert action["type"] == "table_created"
        http.clock.advance(6)
        assert len((await http.read(run))["response"]["tables"]) == 1


async def test_an_incomplete_run_may_have_built_everything() -> None:
    async with served(script=[builds(error="incomplete")], cells_settle=0) as http:
        run = await http.play()
        (table,) = run["response"]["tables"]
        assert (run["status"], table["leadCount"], table["cells"]) == ("incomplete", 2, {"running": 0, "errored": 0})


async def test_a_long_prompt_is_cut_in_summaries() -> None:
    prompt = "x" * 201
    async with served(script=[Turn(running=0)] * 2) as http:
        run = (await http.create(prompt))["run"]
        assert (run["prompt"], run["request"]["prompt"]) == ("x" * 200 + "…", prompt)
        exact = (await http.send(run["agentId"], "y" * 200)).body["run"]
        assert exact["prompt"] == "y" * 200


async def test_a_cancel_takes_effect_later_and_keeps_what_was_built() -> None:
    async with served(script=[builds()], cancel_delay=2) as http:
        run = (await http.create())["run"]
        http.clock.advance(5)
        for _ in range(2):
            answer = await http.ask("POST", f"/agents/{run['agentId']}/cancel")
            assert (answer.status, answer.body["run"]["status"]) == (200, "running")
            http.clock.advance(1)
        stopped = await http.read(run)
        assert (stopped["status"], stopped["completedAt"]) == ("cancelled", "2026-07-28T12:00:07.000Z")
        assert (stopped["steps"]["completed"], stopped["response"]["text"]) == (
            3,
            "I stopped early; what was built so far is kept.",
        )
        assert len(stopped["response"]["actions"]) == 2
        http.clock.advance(60)
        assert (await http.read(run))["status"] == "cancelled"
        late = await http.ask("POST", f"/agents/{run['agentId']}/cancel")
        assert late.body["run"]["status"] == "cancelled"


async def test_a_cancel_without_delay_answers_with_the_cancelled_run() -> None:
    async with served(script=[builds()], cancel_delay=0) as http:
        run = (await http.create())["run"]
        answer = await http.ask("POST", f"/agents/{run['agentId']}/cancel")
        assert (answer.body["run"]["status"], answer.body["run"]["response"]["actions"]) == ("cancelled", [])


@pytest.mark.parametrize("how", ["late", "never", "planted"])
async def test_a_cancel_may_lose_the_race(how: str) -> None:
    delay = {"late": 20.0, "never": math.inf, "planted": 0.0}[how]
    async with served(script=[builds()], cancel_delay=delay) as http:
        run = (await http.create())["run"]
        if how == "planted":
            http.emulator.fail(Fault.vendor("CANCEL_LOST"))
        answer = await http.ask("POST", f"/agents/{run['agentId']}/cancel")
        assert answer.body["run"]["status"] == "running"
        http.clock.advance(60)
        assert (await http.read(run))["status"] == "completed"


async def test_an_agent_that_never_ran_has_nothing_to_cancel() -> None:
    async with served() as http:
        agent = http.state.add_agent("Idle")
        assert (await http.ask("POST", f"/agents/{agent.id}/cancel")).body == {"run": None}
        assert (await http.get(f"/agents/{agent.id}")).body["lastRun"] is None
        assert (await http.get(f"/agents/{agent.id}/runs")).body["items"] == []


async def transcript(http: Http, run: Any) -> Any:
    return (await http.read(run, include="transcript, everything"))["response"]["transcript"]


async def test_the_transcript_is_the_conversation_up_to_the_run_as_users_see_it() -> None:
    plan = does("present-plan", steps=2)
    script = [Turn("Which?", calls=[does("execute-code"), plan, ASK]), Turn(error="errored"), Turn("Built.")]
    async with served(script=script) as http:
        first = await http.play()
        assert first["response"]["transcript"] is None
        await http.send(first["agentId"], "Any.")
        http.clock.advance(1)
        last = (await http.send(first["agentId"], "Again.")).body["run"]
        http.clock.advance(1)
        whole = await transcript(http, last)
        assert [message["role"] for message in whole] == [
            *("user", "assistant", "tool", "tool"),
            "user",
            *("user", "assistant"),
        ]
        assert [call["name"] for call in whole[1]["toolCalls"]] == ["present-plan", "ask-questions"]
        assert whole[1]["toolCalls"][1]["input"]["questions"][0]["question"] == "Which?"
        assert (whole[2]["result"], whole[3]["result"]) == ("ok", '{"status": "awaiting_user"}')
        assert [call["id"] for call in whole[1]["toolCalls"]] == [message["toolCallId"] for message in whole[2:4]]
        assert [message["content"] for message in whole[4:]] == ["Any.", "Again.", "Built."]
        assert await transcript(http, first) == whole[:4]


async def test_a_transcript_over_the_cap_keeps_its_latest_messages() -> None:
    async with served(script=[Turn("One."), Turn("Two.")], transcript_cap=3) as http:
        first = await http.play(include="transcript")
        assert first["response"]["transcriptTruncated"] is False
        last = (await http.send(first["agentId"])).body["run"]
        http.clock.advance(1)
        response = (await http.read(last, include="transcript"))["response"]
        assert response["transcriptTruncated"] is True
        assert [message["content"] for message in response["transcript"]] == ["One.", "Go on.", "Two."]
        assert (await http.read(last))["response"]["transcriptTruncated"] is False


async def test_a_script_function_is_told_of_the_agent_and_the_round() -> None:
    seen: list[Prompt] = []

    def script(prompt: Prompt) -> Turn | None:
        seen.append(prompt)
        return None

    async with served(script=script) as http:
        run = await http.play()
        await http.send(run["agentId"], "Again.")
        assert [(prompt.index, prompt.conversation_id, prompt.text) for prompt in seen] == [
            (0, run["agentId"], PROMPT),
            (1, run["agentId"], "Again."),
        ]


async def test_agents_are_listed_newest_first_by_cursor_and_found_by_name() -> None:
    async with served(plan="enterprise") as http:
        for name in ("Leeds vets", "York bakers", "Hull vets"):
            await http.create(name=name)
            http.clock.advance(1)
        first = (await http.get("/agents?limit=2")).body
        assert (first["object"], first["url"]) == ("list", "/api/v2/agents")
        assert [agent["name"] for agent in first["items"]] == ["Hull vets", "York bakers"]
        assert first["items"][0]["apiKeyOwned"] is True
        assert first["items"][0]["lastRun"]["status"] == "completed"
        assert "request" not in first["items"][0]["lastRun"]
        last = (await http.get("/agents", query={"limit": "2", "cursor": first["nextCursor"]})).body
        assert ([agent["name"] for agent in last["items"]], last["nextCursor"]) == (["Leeds vets"], None)
        found = (await http.get("/agents?search=VETS")).body
        assert [agent["name"] for agent in found["items"]] == ["Hull vets", "Leeds vets"]
        assert len(http.state.agents) == 3


@pytest.mark.parametrize("query", ["cursor=nonsense", "cursor=*", "cursor=_w", "limit=0", "limit=1000", "limit=many"])
async def test_a_bad_cursor_starts_over_and_a_bad_limit_is_clamped(query: str) -> None:
    async with served(plan="enterprise", script=[Turn()]) as http:
        for _ in range(101 if query == "limit=1000" else 2):
            await http.create()
        body = (await http.get(f"/agents?{query}")).body
        assert body["items"][0]["id"] == list(http.state.agents)[-1]
        assert len(body["items"]) == {"limit=0": 1, "limit=1000": 100}.get(query, 2)
        assert (body["nextCursor"] is None) == (query not in {"limit=0", "limit=1000"})


async def test_runs_are_listed_newest_first() -> None:
    async with served() as http:
        run = await http.play()
        await http.send(run["agentId"], "Second.")
        body = (await http.get(f"/agents/{run['agentId']}/runs?limit=1")).body
        assert [(one["prompt"], one["status"], one["completedAt"]) for one in body["items"]] == [
            ("Second.", "running", None)
        ]
        query = {"cursor": body["nextCursor"]}
        rest = (await http.get(f"/agents/{run['agentId']}/runs", query=query)).body
        assert ([one["id"] for one in rest["items"]], rest["nextCursor"]) == ([run["id"]], None)
        assert [one.prompt for one in http.state.runs_of(run["agentId"])] == [PROMPT, "Second."]


async def test_the_oldest_generation_counts_pages_and_names_no_kinds() -> None:
    async with served(generation="G1", plan="enterprise") as http:
        body = await http.create(name="One")
        assert all("object" not in part for part in body.values())
        agent, workspace = body["agent"], body["workspace"]
        assert (workspace["id"], workspace["createdByApi"]) == (agent["workspaceId"], True)
        assert agent["workspaceId"] != agent["id"]
        mate = await http.create(name="Two", workspaceId=agent["workspaceId"], key="same")
        assert mate["workspace"]["createdByApi"] is False
        await http.create(name="Two", workspaceId=agent["workspaceId"], key="same", project="ignored")
        http.clock.advance(1)
        page = (await http.get("/agents?pageSize=2&page=1")).body
        assert [one["name"] for one in page["agents"]] == ["One"]
        assert page["pagination"] == {"page": 1, "pageSize": 2, "total": 3, "hasMore": False}
        found = (await http.get("/agents?search=one&pageSize=1")).body
        assert (len(found["agents"]), found["pagination"]["total"]) == (1, 3)
        runs = (await http.get(f"/agents/{agent['id']}/runs")).body
        assert runs["pagination"] == {"page": 0, "pageSize": 50, "total": 1, "hasMore": False}
        assert "object" not in runs["runs"][0]
        tables = (await http.get(f"/agents/{agent['id']}/tables")).body
        assert set(tables) == {"workspaceId", "tables"}
        assert tables["tables"][0]["workspaceId"] == tables["workspaceId"] == agent["workspaceId"]


async def test_archiving_ends_the_run_in_flight_and_hides_the_agent() -> None:
    async with served(script=[builds()]) as http:
        run = (await http.create())["run"]
        at = f"/agents/{run['agentId']}"
        http.clock.advance(5)
        archived = (await http.ask("DELETE", at)).body
        when = "2026-07-28T12:00:05.000Z"
        assert archived["agent"] == {"object": "agent", "id": run["agentId"], "deletedAt": when}
        assert archived["workspace"] == {"object": "workspace", "id": run["agentId"], "deletedAt": when}
        assert [(one.status, len(one.actions)) for one in http.state.runs.values()] == [("cancelled", 1)]
        for method, path in (
            *(("GET", at), ("DELETE", at), ("GET", f"{at}/runs"), ("GET", f"{at}/runs/{run['id']}")),
            *(("POST", f"{at}/cancel"), ("GET", f"{at}/tables")),
        ):
            assert (await http.ask(method, path)).refused == (404, "AGENT_NOT_FOUND")
        assert (await http.send(run["agentId"])).refused == (404, "AGENT_NOT_FOUND")
        assert (await http.get("/agents")).body["items"] == []
        assert len(http.state.tables) == 1
        assert (await http.create())["run"]["status"] == "running"  # the slot is free again


async def test_an_agent_in_the_session_of_another_has_its_tables_and_leaves_it_when_archived() -> None:
    async with served() as http:
        first = await http.play()
        mate = await http.create(workspaceId=first["agentId"])
        assert mate["workspace"]["id"] == mate["agent"]["workspaceId"] == first["agentId"]
        assert mate["workspace"]["createdByApi"] is True
        at = f"/agents/{mate['agent']['id']}"
        assert len((await http.get(f"{at}/tables")).body["items"]) == 1
        http.clock.advance(1)
        assert (await http.ask("DELETE", at)).body["workspace"]["deletedAt"] is None


async def test_the_emulator_knows_the_vendor_by_name() -> None:
    emulator = Emulator("origami", clock=None)
    async with emulator:
        assert emulator.base_url.endswith("/api/v2")


async def test_the_same_seed_makes_the_same_ids() -> None:
    ids = []
    for _ in range(2):
        async with served(seed=7) as http:
            ids.append((await http.create())["run"]["id"])
    assert ids[0] == ids[1]
