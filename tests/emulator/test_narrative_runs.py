"""Narrative: the life of a run, versions, replay, resume, concurrency, messages."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

from agentruns.emulator import Call, Prompt, Turn
from tests.emulator.narrative_caller import (
    BOOKING,
    DOCS,
    SEARCH,
    TEXT,
    USER_TOOLS,
    defaults,
    output,
    outputs,
    say,
    served,
)

pytestmark = pytest.mark.asyncio

NULLS = ("iterations_used", "usage", "final_text", "error", "completed_at")


async def test_a_new_conversation_is_empty_and_starts_nothing() -> None:
    async with served() as http:
        body = {"defaults": defaults(), "name": "triage", "system_prompt": "Be brief."}
        answer = await http.ask("POST", "/agents/conversations", body)
        assert answer.status == 201
        assert answer.body["version"] == 0
        assert (answer.body["name"], answer.body["system_prompt"]) == ("triage", "Be brief.")
        assert (answer.body["company_id"], answer.body["user_id"]) == (1, 407)
        assert answer.body["defaults"]["mcp_servers"] == answer.body["defaults"]["client_tools"] == []
        assert (await http.get(f"/agents/conversations/{answer.body['id']}")).body == answer.body
        assert http.emulator.state.runs_started == 0


async def test_a_run_goes_from_pending_over_running_to_completed() -> None:
    async with served(script=[Turn("Hi there.", pending=1, running=4, iterations=2)]) as http:
        conversation = await http.create()
        started = await http.start(conversation, say())
        assert (started.status, started.body["status"]) == (202, "pending")
        assert started.body["submitted_inference_job_ids"] == []
        assert all(started.body[name] is None for name in NULLS)
        assert started.body["tool_choice"] == {"kind": "auto"}
        run_id = started.body["id"]
        http.clock.advance(0.5)
        assert (await http.run(run_id))["status"] == "pending"
        seen = []
        for _ in range(3):
            http.clock.advance(1)
            run = await http.run(run_id)
            seen.append((run["status"], len(run["submitted_inference_job_ids"])))
        assert seen == [("running", 1), ("running", 1), ("running", 2)]
        http.clock.advance(1.5)
        run = await http.run(run_id)
        assert (run["status"], run["final_text"], run["iterations_used"]) == ("completed", "Hi there.", 2)
        assert len(run["submitted_inference_job_ids"]) == 2
        assert run["usage"]["total_tokens"] == run["usage"]["prompt_tokens"] + run["usage"]["completion_tokens"]
        assert "final_structured_output" not in run


async def test_the_post_answers_pending_even_for_a_run_that_takes_no_time() -> None:
    async with served(script=[Turn("Now.", running=0)]) as http:
        started = await http.start(await http.create(), say())
        assert started.body["status"] == "pending"
        assert (await http.run(started.body["id"]))["status"] == "completed"


async def test_a_run_without_a_running_phase_goes_straight_from_pending_to_its_end() -> None:
    async with served(script=[Turn(error=("Swept", "no worker"), pending=5, running=0, iterations=0)]) as http:
        started = await http.start(await http.create(), say())
        http.clock.advance(4.9)
        assert (await http.run(started.body["id"]))["status"] == "pending"
        http.clock.advance(0.2)
        run = await http.run(started.body["id"])
        assert (run["status"], run["iterations_used"]) == ("failed", 0)
        assert run["error"] == {"type": "Swept", "message": "no worker"}


async def test_an_unknown_status_word_and_unknown_fields_are_reported_verbatim() -> None:
    turn = Turn("Done.", status="thinking", running=2, usage=(7, 5), extra={"mood": "calm", "nested": {"a": [1]}})
    async with served(script=[turn]) as http:
        started = await http.start(await http.create(), say())
        assert started.body["mood"] == "calm"
        http.clock.advance(1)
        assert (await http.run(started.body["id"]))["status"] == "thinking"
        http.clock.advance(1)
        run = await http.run(started.body["id"])
        assert (run["status"], run["nested"]) == ("completed", {"a": [1]})
        assert run["usage"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


async def test_a_run_may_never_end() -> None:
    async with served(script=[Turn(running=math.inf)]) as http:
        started = await http.start(await http.create(), say())
        http.clock.advance(1e9)
        run = await http.run(started.body["id"])
        assert (run["status"], len(run["submitted_inference_job_ids"])) == ("running", 1)


async def test_a_tool_loop_works_without_any_script() -> None:
    async with served() as http:
        conversation = await http.create(client_tools=USER_TOOLS)
        paused = await http.play(conversation, say("Book it."))
        assert paused["status"] == "requires_action"
        assert paused["completed_at"] is not None
        assert paused["final_text"] is None
        (call,) = paused["pending_tool_calls"]
        assert set(call) == {"tool_use_id", "name", "arguments"}
        assert call["tool_use_id"].startswith("tooluse_")
        assert (call["name"], call["arguments"]) == (
            "user-confirm_booking",
            {"proposed_slot": "example proposed_slot"},
        )
        done = await http.play(conversation, outputs(2, output(call["tool_use_id"], "confirmed")))
        assert (done["status"], done["pending_tool_calls"]) == ("completed", [])
        assert done["final_text"] == "The tools say: user-confirm_booking answered confirmed"
        assert (await http.run(paused["id"])) == paused
        assert http.emulator.state.runs_started == 2


async def test_without_tools_the_default_agent_echoes() -> None:
    async with served(revision="B") as http:
        done = await http.play(await http.create(), say("Ping."))
        assert (done["final_text"], done["final_structured_output"]) == ("You said: Ping.", None)


async def test_messages_of_a_run_land_together_at_its_end_and_bump_the_version() -> None:
    async with served() as http:
        conversation = await http.create(client_tools=USER_TOOLS)
        started = await http.start(conversation, say("Book it."))
        assert await http.messages(conversation) == {"current_version": 0, "messages": []}
        http.clock.advance(1)
        (call,) = (await http.run(started.body["id"]))["pending_tool_calls"]
        resumed = await http.play(conversation, outputs(2, output(call["tool_use_id"], "ok", is_error=True)))
        log = await http.messages(conversation)
        assert log["current_version"] == 4
        assert [m["sequence_no"] for m in log["messages"]] == [1, 2, 3, 4]
        assert [m["role"] for m in log["messages"]] == ["user", "assistant", "user", "assistant"]
        assert [m["run_id"] for m in log["messages"]] == [started.body["id"]] * 2 + [resumed["id"]] * 2
        first, second, third, fourth = (m["content_blocks"] for m in log["messages"])
        assert first == [{"type": "text", "text": "Book it."}]
        assert second == [{"type": "tool_use", **call}]
        result = {"type": "tool_result", "tool_use_id": call["tool_use_id"], "is_error": True}
        assert third == [{**result, "content_blocks": [{"type": "text", "text": "ok"}]}]
        assert json.loads(fourth[0]["text"]) == {"text": resumed["final_text"]}
        assert [m["sequence_no"] for m in (await http.messages(conversation, since=3))["messages"]] == [4]
        assert await http.messages(conversation, since=9) == {"current_version": 4, "messages": []}
        head = (await http.get(f"/agents/conversations/{conversation}")).body
        assert (head["version"], head["updated_at"]) == (4, resumed["completed_at"])
        assert [m.sequence_no for m in http.emulator.state.messages.values()] == [1, 2, 3, 4]


async def test_server_side_calls_are_answered_on_the_way() -> None:
    call = Call("search", server_side=True, result={"hits": 2})
    async with served(script=[Turn("Found two.", calls=[call])]) as http:
        conversation = await http.create(mcp_servers=[DOCS])
        done = await http.play(conversation, say())
        assert (done["status"], done["iterations_used"]) == ("completed", 2)
        messages = (await http.messages(conversation))["messages"]
        assert [m["role"] for m in messages] == ["user", "assistant", "tool", "assistant"]
        (use,), (result,) = messages[1]["content_blocks"], messages[2]["content_blocks"]
        assert (use["name"], use["arguments"]) == ("docs-search", {"query": "example query"})
        assert (result["tool_use_id"], result["is_error"]) == (use["tool_use_id"], False)
        assert result["content_blocks"] == [{"type": "text", "text": '{"hits":2}'}]


async def test_a_mixed_turn_keeps_server_results_and_waits_for_client_calls_only() -> None:
    calls = [Call("docs-search", {"query": "x"}, result="none", is_error=True), Call("confirm_booking")]
    async with served(script=[Turn("One moment.", calls=calls)]) as http:
        conversation = await http.create(mcp_servers=[DOCS], client_tools=USER_TOOLS)
        paused = await http.play(conversation, say())
        (pending,) = paused["pending_tool_calls"]
        assert pending["name"] == "user-confirm_booking"
        messages = (await http.messages(conversation))["messages"]
        assert [m["role"] for m in messages] == ["user", "assistant", "tool"]
        text, mcp, client = messages[1]["content_blocks"]
        assert text == {"type": "text", "text": "One moment."}
        assert messages[2]["content_blocks"][0]["is_error"] is True
        refused = await http.start(conversation, outputs(3, output(mcp["tool_use_id"]), output(client["tool_use_id"])))
        assert (refused.status, refused.slug) == (400, "not-a-client-tool-call")
        assert refused.body["detail"] == (
            f"tool_use_id(s) refer to server-resolved calls (no caller output expected): {mcp['tool_use_id']}"
        )
        done = await http.play(conversation, outputs(3, output(client["tool_use_id"])))
        assert done["status"] == "completed"


async def test_a_used_client_op_id_answers_200_with_the_original_row() -> None:
    async with served() as http:
        conversation = await http.create()
        body = say("First.")
        first = await http.start(conversation, body)
        again = await http.start(conversation, {**body, "payload": {"kind": "user_message", "text": "Other."}})
        assert (first.status, again.status) == (202, 200)
        assert again.body["id"] == first.body["id"]
        http.clock.advance(1)
        late = await http.start(conversation, body)  # the version has moved on: the replay comes first
        assert (late.status, late.body["status"]) == (200, "completed")
        assert late.body["final_text"] == "You said: First."
        assert http.emulator.state.runs_started == 1
        elsewhere = await http.start(await http.create(), body)
        assert elsewhere.status == 202
        assert elsewhere.body["id"] != first.body["id"]
        assert len(http.emulator.state.runs_of(conversation)) == 1


async def test_a_stale_version_is_a_conflict_that_leaves_no_row() -> None:
    async with served() as http:
        conversation = await http.create()
        await http.play(conversation, say())
        body = say(version=0)
        conflict = await http.start(conversation, body)
        assert (conflict.status, conflict.slug) == (409, "version-conflict")
        assert conflict.body["title"] == "Version Conflict"
        assert conflict.body["detail"] == "conversation version mismatch: expected 0, current 2"
        assert conflict.body["instance"] == f"/agents/conversations/{conversation}/runs"
        assert conflict.headers["Content-Type"].startswith("application/problem+json")
        retried = await http.start(conversation, {**body, "expected_version": 2})
        assert retried.status == 202


async def test_of_two_runs_at_one_version_the_first_to_end_wins() -> None:
    async with served(script=[Turn("Slow.", running=5), Turn("Quick.", running=1)]) as http:
        conversation = await http.create()
        slow, quick = [
            answer.body["id"]
            for answer in (
                await http.start(conversation, say("a")),
                await http.start(conversation, say("b")),
            )
        ]
        http.clock.advance(10)
        lost, won = await http.run(slow), await http.run(quick)
        assert (won["status"], won["final_text"]) == ("completed", "Quick.")
        assert (lost["status"], lost["error"]["type"]) == ("failed", "AgentLoopConcurrentConversationAppend")
        assert lost["completed_at"] > won["completed_at"]
        log = await http.messages(conversation)
        assert (log["current_version"], {m["run_id"] for m in log["messages"]}) == (2, {quick})


async def test_the_same_request_sent_many_times_at_once_starts_one_run() -> None:
    async with served() as http:
        conversation = await http.create()
        body = say()
        answers = await asyncio.gather(*(http.start(conversation, body) for _ in range(8)))
        assert sorted(answer.status for answer in answers) == [200] * 7 + [202]
        assert http.emulator.state.runs_started == 1


@pytest.mark.parametrize("shape", ["content_blocks", "string", "strings"])
async def test_results_of_tools_are_taken_in_several_forms(shape: str) -> None:
    async with served() as http:
        conversation = await http.create(client_tools=USER_TOOLS)
        (call,) = (await http.play(conversation, say()))["pending_tool_calls"]
        block = {"type": "text", "text": "fine"}
        result: dict[str, object] = {
            "content_blocks": {"content_blocks": [block]},
            "string": {"content": "fine"},
            "strings": {"content": ["fine", block]},
        }[shape]  # type: ignore[assignment]
        done = await http.play(conversation, outputs(2, {"tool_use_id": call["tool_use_id"], **result}))
        assert "answered fine" in done["final_text"]
        (stored,) = (await http.messages(conversation, since=2))["messages"][0]["content_blocks"]
        assert stored["content_blocks"][0] == block


async def test_strict_mode_takes_results_as_content_blocks_only() -> None:
    async with served(strict=True) as http:
        conversation = await http.create(client_tools=USER_TOOLS)
        (call,) = (await http.play(conversation, say()))["pending_tool_calls"]
        refused = await http.start(conversation, outputs(2, {"tool_use_id": call["tool_use_id"], "content": "x"}))
        assert (refused.status, refused.body["type"]) == (400, "about:blank")
        assert (await http.start(conversation, outputs(2, output(call["tool_use_id"])))).status == 202


async def test_an_output_without_any_result_is_a_plain_400() -> None:
    async with served() as http:
        conversation = await http.create(client_tools=USER_TOOLS)
        (call,) = (await http.play(conversation, say()))["pending_tool_calls"]
        refused = await http.start(conversation, outputs(2, {"tool_use_id": call["tool_use_id"]}))
        assert (refused.status, refused.body["title"]) == (400, "Bad Request")


async def test_an_override_replaces_set_fields_and_whole_lists_for_one_run() -> None:
    async with served() as http:
        conversation = await http.create(client_tools=USER_TOOLS, mcp_servers=[DOCS], temperature=0.5)
        override = {"max_iterations": 3, "client_tools": [], "model": "other", "temperature": None}
        run = await http.play(conversation, say(config_override=override))
        config = run["effective_config"]
        assert (config["model"], config["max_iterations"], config["temperature"]) == ("other", 3, 0.5)
        assert (config["client_tools"], config["mcp_servers"]) == ([], [DOCS])
        assert config["output_format_schema"] == TEXT
        assert config["execution_cluster"] == "shared"
        assert run["final_text"] == "You said: Hello."
        again = await http.play(conversation, say(version=2))
        assert again["status"] == "requires_action"
        assert again["effective_config"]["max_iterations"] == 8


async def test_either_revision_takes_either_list_and_names_calls_to_match() -> None:
    for revision in ("A", "B"):
        async with served(revision=revision) as http:
            under_b = await http.create(tools=[BOOKING])
            run = await http.play(under_b, say())
            assert run["pending_tool_calls"][0]["name"] == "confirm_booking"
            assert run["effective_config"]["tools"] == [BOOKING]
            assert "client_tools" not in run["effective_config"]
            under_a = await http.create(client_tools=USER_TOOLS)
            run = await http.play(under_a, say())
            assert run["pending_tool_calls"][0]["name"] == "user-confirm_booking"
            swapped = await http.play(under_a, say(version=2, config_override={"tools": [BOOKING]}))
            assert swapped["pending_tool_calls"][0]["name"] == "confirm_booking"
            assert "client_tools" not in swapped["effective_config"]
            back = await http.play(under_b, say(version=2, config_override={"client_tools": USER_TOOLS}))
            assert "tools" not in back["effective_config"]
            both = await http.start(under_a, say(config_override={"tools": [], "client_tools": []}))
            assert both.status == 400
            filled = (await http.get(f"/agents/conversations/{await http.create()}")).body["defaults"]
            assert ("client_tools" in filled, "tools" in filled) == (revision == "A", revision == "B")


async def test_every_shape_of_tool_choice_is_taken_and_echoed() -> None:
    other = {**BOOKING, "name": "cancel_booking"}
    async with served() as http:
        conversation = await http.create(
            client_tools=[{"alias": "user", "tools": [BOOKING, other]}], mcp_servers=[DOCS]
        )
        forced = {"kind": "specific_tool", "name": "cancel_booking"}
        for choice in ({"kind": "auto"}, {"kind": "any"}, forced):
            started = await http.start(conversation, say(tool_choice=choice))
            assert started.body["tool_choice"] == choice
        http.clock.advance(1)
        run = await http.play(conversation, say(version=2, tool_choice=forced))
        assert run["pending_tool_calls"][0]["name"] == "user-cancel_booking"
        wire = {"kind": "specific_tool", "name": "user-cancel_booking"}
        assert (await http.play(conversation, say(version=4, tool_choice=wire)))["status"] == "requires_action"
        mcp = {"kind": "specific_tool", "name": "search", "mcp_alias": "docs"}
        run = await http.play(conversation, say(version=6, tool_choice=mcp))
        assert (run["status"], run["iterations_used"]) == ("completed", 2)


async def test_a_discovered_catalog_takes_any_tool_name() -> None:
    discovered = {"alias": "web", "url": "https://web.example/mcp"}
    script = [Turn("a", calls=[Call("web-find")]), Turn("b", calls=[Call("look", server_side=True)])]
    async with served(script=script) as http:
        conversation = await http.create(mcp_servers=[discovered])
        choice = {"kind": "specific_tool", "name": "find", "mcp_alias": "web"}
        assert (await http.play(conversation, say(tool_choice=choice)))["status"] == "completed"
        assert (await http.play(conversation, say(version=4)))["status"] == "completed"
        messages = (await http.messages(conversation))["messages"]
        assert [m["content_blocks"][0]["name"] for m in (messages[1], messages[5])] == ["web-find", "web-look"]


async def test_a_script_function_is_told_what_it_plays() -> None:
    prompts: list[Prompt] = []

    def script(prompt: Prompt) -> Turn | None:
        prompts.append(prompt)
        return Turn(calls=[Call("confirm_booking", {"proposed_slot": "9:00"})]) if prompt.index == 0 else None

    async with served(script=script) as http:
        conversation = await http.create(client_tools=USER_TOOLS, mcp_servers=[DOCS])
        (call,) = (await http.play(conversation, say("Hi.")))["pending_tool_calls"]
        assert call["arguments"] == {"proposed_slot": "9:00"}
        await http.play(conversation, outputs(2, output(call["tool_use_id"], "no", is_error=True)))
    first, second = prompts
    assert (first.index, first.text, first.outputs, first.conversation_id) == (0, "Hi.", (), conversation)
    assert [(tool.name, tool.server_side) for tool in first.tools] == [
        ("user-confirm_booking", False),
        ("docs-search", True),
    ]
    assert first.tools[1].input_schema == SEARCH["input_schema"]
    assert first.output_schema == TEXT
    assert (second.index, second.text, second.version) == (1, None, 2)
    (told,) = second.outputs
    assert (told.tool_use_id, told.name, told.text, told.is_error) == (
        call["tool_use_id"],
        "user-confirm_booking",
        "no",
        True,
    )


async def test_a_broken_script_function_is_shown_to_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    def script(prompt: Prompt) -> Turn:
        raise LookupError("no such scene")

    async with served(script=script) as http:
        answer = await http.start(await http.create(), say())
        assert answer.status == 500
        assert "no such scene" in answer.body["detail"]
        assert "failed inside the emulator" in caplog.text
        http.emulator.script = [Turn("Better.")]
        assert (await http.play(await http.create(), say()))["final_text"] == "Better."


async def test_a_message_is_taken_while_calls_wait_unless_configured() -> None:
    async with served() as http:
        conversation = await http.create(client_tools=USER_TOOLS)
        (call,) = (await http.play(conversation, say()))["pending_tool_calls"]
        http.emulator.script = lambda prompt: Turn("Never mind.")
        await http.play(conversation, say(version=2))
        stale = await http.start(conversation, outputs(4, output(call["tool_use_id"])))
        assert (stale.status, stale.slug) == (400, "unknown-tool-use-id")
    async with served(message_while_pending=False) as http:
        conversation = await http.create(client_tools=USER_TOOLS)
        await http.play(conversation, say())
        assert (await http.start(conversation, say(version=2))).status == 400


OTHER = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}


async def test_structured_answers_follow_the_revision() -> None:
    async with served(revision="B") as http:
        run = await http.play(await http.create(output_format_schema=OTHER), say())
        assert (run["final_text"], run["final_structured_output"]) == (None, {"city": "example city"})
        http.emulator.script = [Turn(structured={"city": "Bonn"})]
        conversation = await http.create(output_format_schema=OTHER)
        run = await http.play(conversation, say())
        assert run["final_structured_output"] == {"city": "Bonn"}
        assert (await http.messages(conversation))["messages"][1]["content_blocks"][0]["text"] == '{"city":"Bonn"}'
    async with served(revision="A") as http:
        run = await http.play(await http.create(output_format_schema=OTHER), say())
        assert run["error"]["type"] == "AgentLoopSchemaDecodeFailed"
        mixed = {"type": "object", "properties": {"text": {"type": "string"}, "sure": {"type": "boolean"}}}
        run = await http.play(await http.create(output_format_schema=mixed), say("Hm."))
        assert run["final_text"] == "You said: Hm."
