"""The emulated Conduit: the life of a run, what it shows when, and the list of runs."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from agentruns.emulator import Call, Fault, Prompt, Turn
from tests.emulator.conduit_caller import ESCALATED, Http, served

pytestmark = pytest.mark.asyncio

SUMMARY = [
    *("id", "run_id", "agent_id", "workspace_id", "status", "disposition", "contact_id", "conversation_id"),
    *("trigger_id", "error", "duration_ms", "token_usage", "total_cost", "trace_id", "created_at", "completed_at"),
]
DETAIL = ["session_id", "disposition_reason", "trigger_event_id", "response", "reflection", "tool_trace"]


def unset(row: dict[str, Any]) -> set[str]:
    return {name for name, value in row.items() if value is None}


async def the_run(http: Http) -> dict[str, Any]:
    (row,) = await http.listed()
    return await http.run(row["id"])


async def test_a_run_goes_from_accepted_over_running_to_completed() -> None:
    calls = [Call("find_slots", {"day": "today"}, server_side=True, result={"slots": ["14:00"]}), Call("book")]
    turn = Turn("Booked.", calls=calls, pending=1, running=4.213, usage=(2410, 198))
    async with served(script=[turn]) as http:
        assert (await http.dispatch({"payload": {"unit": "12B"}})).status == 200
        http.clock.advance(0.5)
        accepted = await the_run(http)
        assert list(accepted) == SUMMARY + DETAIL
        at_end = {"disposition", "duration_ms", "token_usage", "total_cost", "completed_at", "disposition_reason"}
        at_end |= {"response", "reflection"}
        never = {"contact_id", "conversation_id", "error"}
        assert accepted["status"] == "accepted"
        assert unset(accepted) == at_end | never | {"trace_id", "session_id"}
        assert accepted["tool_trace"] == []
        assert accepted["created_at"] == "2026-05-11T09:00:00.000Z"
        http.clock.advance(1)
        running = await the_run(http)
        assert (running["status"], unset(running), running["tool_trace"]) == ("running", at_end | never, [])
        http.clock.advance(10)
        done = await the_run(http)
        assert (done["status"], done["disposition"], done["response"]) == ("completed", "resolved", "Booked.")
        assert unset(done) == never
        assert (done["completed_at"], done["duration_ms"]) == ("2026-05-11T09:00:05.213Z", 5213)
        assert (done["token_usage"], done["total_cost"]) == ({"input": 2410, "output": 198}, 0.0102)
        assert done["tool_trace"] == [
            {"name": "find_slots", "input": {"day": "today"}, "output": {"slots": ["14:00"]}},
            {"name": "book", "input": {}, "output": "ok"},
        ]
        assert done["reflection"] == "I used find_slots, book and answered."
        assert {name: done[name] for name in SUMMARY} == (await http.listed())[0]


async def test_ids_look_like_the_vendors() -> None:
    async with served() as http:
        run = await http.play()
        for name, pattern in (
            ("id", "ar[a-z0-9]{30}"),
            ("run_id", "run_[0-9a-f]{8}"),
            ("agent_id", "ag[a-z0-9]{30}"),
            ("trigger_id", "tr[a-z0-9]{30}"),
            ("trigger_event_id", "te[a-z0-9]{30}"),
            ("trace_id", "[0-9a-f]{16}"),
            ("session_id", "sess_[0-9a-f]{6}"),
        ):
            assert re.fullmatch(pattern, run[name]), name
        assert run["agent_id"] == http.state.agent_id
        assert run["workspace_id"] == http.state.workspace_id
        assert run["trigger_id"] == http.state.trigger_id


async def test_without_a_script_the_agent_quotes_the_payload() -> None:
    async with served() as http:
        assert (await http.play({"payload": {"unit": "12B"}}))["response"] == 'You said: {"unit":"12B"}'
        assert (await http.play({"payload": "Hello."}))["response"] == "You said: Hello."
        assert (await http.play({"payload": None}))["response"] == "You said: null"
        assert (await http.play({}))["response"] == "You said: {}"


async def test_the_nth_run_of_each_agent_plays_the_nth_turn() -> None:
    async with served(script=[Turn("one"), Turn("two")]) as http:
        other = http.state.add_agent().id
        assert [(await http.play())["response"] for _ in range(2)] == ["one", "two"]
        assert (await http.play(agent_id=other))["response"] == "one"
        assert (await http.play())["response"] == "You said: {}"


async def test_a_script_function_is_told_the_agent_and_the_payload() -> None:
    seen: list[Prompt] = []

    def agent(prompt: Prompt) -> Turn:
        seen.append(prompt)
        return Turn("Fine.")

    async with served(script=agent) as http:
        other = http.state.add_agent(instructions="Be brief.")
        await http.play({"payload": [1]}, agent_id=other.id)
        await http.play({"payload": [2]}, agent_id=other.id)
        assert [(p.index, p.text, p.conversation_id, p.agent, p.system_prompt) for p in seen] == [
            (0, "[1]", other.id, other.id, "Be brief."),
            (1, "[2]", other.id, other.id, "Be brief."),
        ]


async def test_a_failed_run_says_why_and_nothing_else() -> None:
    turn = Turn("unsaid", error="Tool find_slots did not answer", calls=[Call("find_slots", result=None)], running=30)
    async with served(script=[turn]) as http:
        run = await http.play()
        assert (run["status"], run["error"], run["duration_ms"]) == ("failed", "Tool find_slots did not answer", 30000)
        assert unset(run) == {
            *("disposition", "contact_id", "conversation_id", "disposition_reason", "response", "reflection"),
        }
        assert run["token_usage"] == {"input": 400, "output": 0}
        assert run["tool_trace"] == [{"name": "find_slots", "input": {}, "output": None}]


async def test_a_run_may_fail_before_it_has_begun() -> None:
    async with served(script=[Turn(error="no worker", pending=5, running=0)]) as http:
        await http.dispatch()
        http.clock.advance(4.9)
        assert (await the_run(http))["status"] == "accepted"
        http.clock.advance(0.2)
        run = await the_run(http)
        assert (run["status"], run["trace_id"], run["session_id"]) == ("failed", None, None)


@pytest.mark.parametrize(
    ("error", "form", "shown"),
    [
        ("It broke.", "string", "It broke."),
        (("Timeout", "It broke."), "string", "It broke."),
        ("It broke.", "object", {"message": "It broke."}),
        (("Timeout", "It broke."), "object", {"type": "Timeout", "message": "It broke."}),
    ],
)
async def test_an_error_is_a_string_or_by_option_an_object(error: Any, form: str, shown: Any) -> None:
    async with served(script=[Turn(error=error)], error_form=form) as http:
        assert (await http.play())["error"] == shown


async def test_a_failed_tool_call_shows_its_error_as_output() -> None:
    async with served(script=[Turn("Sorry.", calls=[Call("book", result="full", is_error=True)])]) as http:
        assert (await http.play())["tool_trace"] == [{"name": "book", "input": {}, "output": {"error": "full"}}]


async def test_a_structured_answer_is_text_in_response() -> None:
    async with served(script=[Turn(structured={"slot": "14:00"}), Turn()]) as http:
        assert (await http.play())["response"] == '{"slot":"14:00"}'
        assert (await http.play())["response"] is None


async def test_an_unknown_status_word_is_reported_while_running_and_passes_no_filter() -> None:
    async with served(script=[Turn("Done.", status="thinking", running=2, pending=1)]) as http:
        await http.dispatch()
        words = []
        for _ in range(3):
            http.clock.advance(0.9)
            words.append((await the_run(http))["status"])
            assert len(await http.listed("?status=running")) == 0
        assert words == ["accepted", "thinking", "thinking"]
        http.clock.advance(1)
        assert (await the_run(http))["status"] == "completed"


async def test_a_run_may_never_end() -> None:
    async with served(script=[Turn(running=math.inf, calls=[Call("x")], extra=ESCALATED)], grow=True) as http:
        await http.dispatch()
        http.clock.advance(1e8)
        run = await the_run(http)
        assert (run["status"], run["tool_trace"], run["disposition"]) == ("running", [], None)
        assert http.state.escalations == {}


async def test_the_script_may_set_known_fields_at_the_end_and_unknown_ones_always() -> None:
    extra: dict[str, Any] = {"disposition": "needs_help", "reflection": "Hm.", "total_cost": 1.5, "mood": "calm"}
    async with served(script=[Turn("Hi.", running=2, extra=extra), Turn(extra={"disposition": None})]) as http:
        await http.dispatch()
        http.clock.advance(1)
        run = await the_run(http)
        assert (run["disposition"], run["reflection"], run["total_cost"], run["mood"]) == (None, None, None, "calm")
        http.clock.advance(1)
        run = await the_run(http)
        assert {name: run[name] for name in extra} == extra
        assert run["disposition_reason"] == "answered_from_knowledge"
        run = await http.play()
        assert (run["status"], run["disposition"], run["disposition_reason"]) == ("completed", None, None)


async def test_fields_without_a_value_may_be_left_out() -> None:
    async with served(absent="omit", empty_trace="null", script=[Turn("Hi.", pending=5)]) as http:
        await http.dispatch()
        http.clock.advance(1)
        assert set(await the_run(http)) == {
            *("id", "run_id", "agent_id", "workspace_id", "status", "trigger_id", "created_at", "trigger_event_id")
        }
    async with served(absent="random", script=[Turn("Hi.", pending=5)]) as http:
        await http.dispatch()
        http.clock.advance(1)
        assert len({frozenset(await the_run(http)) for _ in range(9)}) > 1


async def test_trace_and_tokens_may_grow_during_the_run() -> None:
    calls = [Call("a"), Call("b"), Call("c")]
    async with served(grow=True, script=[Turn("Hi.", calls=calls, pending=1, running=4, usage=(100, 40))]) as http:
        await http.dispatch()
        seen = []
        for _ in range(5):
            http.clock.advance(1)
            run = await the_run(http)
            seen.append((len(run["tool_trace"]), run["token_usage"]))
        assert [calls for calls, _ in seen] == [0, 1, 2, 3, 3]
        assert [usage["input"] for _, usage in seen] == [0, 25, 50, 75, 100]
        assert [usage["output"] for _, usage in seen] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize(
    ("where", "shown_at", "duration", "ended"),
    [("before", 10.2, 4000, "14.000"), ("inside", 0.2, 14000, "14.000"), ("after", 0.2, 4000, "04.000")],
)
async def test_the_response_delay_passes_where_the_option_says(
    where: str, shown_at: float, duration: int, ended: str
) -> None:
    async with served(response_delay=where, script=[Turn("Hi.", running=4)]) as http:
        slow = http.state.add_agent(custom_response_delay_ms=10_000).id
        await http.dispatch(agent_id=slow)
        http.clock.advance(shown_at - 0.01)
        assert await http.listed(agent_id=slow) == []
        http.clock.advance(0.02)
        (row,) = await http.listed(agent_id=slow)
        http.clock.advance(20)
        run = await http.run(row["id"], agent_id=slow)
        assert (run["duration_ms"], run["completed_at"]) == (duration, f"2026-05-11T09:00:{ended}Z")


async def test_the_list_is_newest_first_in_pages() -> None:
    async with served() as http:
        for _ in range(5):
            await http.dispatch()
            http.clock.advance(1)
        known = [run.id for run in reversed(http.state.runs_of(http.state.agent_id))]
        first = await http.get(f"{http.agent}/runs?limit=2")
        assert (first.body["has_more"], [row["id"] for row in first.data]) == (True, known[:2])
        second = await http.get(f"{http.agent}/runs?limit=3&cursor={first.body['next_cursor']}")
        assert [row["id"] for row in second.data] == known[2:]
        assert (second.body["next_cursor"], second.body["has_more"]) == (None, False)


async def test_a_page_has_twenty_rows_unless_asked_otherwise() -> None:
    async with served(runs_per_dispatch=101) as http:
        await http.dispatch()
        http.clock.advance(1)
        assert [len(await http.listed(q)) for q in ("", "?limit=1", "?limit=100")] == [20, 1, 100]


@pytest.mark.parametrize(("style", "shift"), [("offset", 1), ("keyed", 0)])
async def test_new_runs_shift_pages_unless_cursors_are_keyed(style: str, shift: int) -> None:
    async with served(cursors=style) as http:
        old = [http.state.fire().id for _ in range(4)][::-1]
        first = await http.get(f"{http.agent}/runs?limit=2")
        http.state.fire()
        second = await http.listed(f"?limit=2&cursor={first.body['next_cursor']}")
        assert [row["id"] for row in second] == old[2 - shift : 4 - shift]


async def test_the_list_filters_by_one_status() -> None:
    async with served(script=[Turn("Hi."), Turn(error="no"), Turn(running=9), Turn(pending=9)]) as http:
        made = [http.state.fire().id for _ in range(4)]
        http.clock.advance(1)
        for key, status in zip(made, ("completed", "failed", "running", "accepted"), strict=True):
            (row,) = await http.listed(f"?status={status}")
            assert (row["id"], row["status"]) == (key, status)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limit=0", "limit must be between 1 and 100"),
        ("limit=101", "limit must be between 1 and 100"),
        ("limit=", "limit must be between 1 and 100"),
        ("limit=two", "limit must be between 1 and 100"),
        ("limit=-1", "limit must be between 1 and 100"),
        ("limit=" + "9" * 5000, "limit must be between 1 and 100"),
        ("status=done", "status must be one of accepted, running, completed, failed"),
        ("status=accepted,running", "status must be one of accepted, running, completed, failed"),
        ("cursor=", "cursor is not valid"),
        ("cursor=%C3%A9", "cursor is not valid"),
        ("cursor=a", "cursor is not valid"),
        ("cursor=aGVsbG8", "cursor is not valid"),  # hello
        ("cursor=b2Zmc2V0Omxhc3Q", "cursor is not valid"),  # offset:last
        ("cursor=YWZ0ZXI6YXJ4", "cursor is not valid"),  # after:arx
    ],
)
async def test_a_bad_list_parameter_is_refused(query: str, text: str) -> None:
    async with served() as http:
        assert (await http.get(f"{http.agent}/runs?{query}")).refused == (400, text)


async def test_a_run_is_found_by_its_id_and_only_under_its_agent() -> None:
    async with served() as http:
        run = await http.play()
        other = http.state.add_agent().id
        missing = (404, "Agent run not found")
        assert (await http.get(f"{http.agent}/runs/{run['run_id']}")).refused == missing
        assert (await http.get(f"/agents/{other}/runs/{run['id']}")).refused == missing
        assert (await http.get(f"{http.agent}/runs/arnothing")).refused == missing
        assert (await http.get(f"/agents/agnothing/runs/{run['id']}")).refused == (404, "Agent not found")
    async with served(accept_execution_ids=True) as http:
        run = await http.play()
        assert await http.run(run["run_id"]) == run
        assert (await http.get(f"{http.agent}/runs/run_00000000")).refused == missing


async def test_a_run_from_the_list_may_be_missing_for_a_moment() -> None:
    async with served() as http:
        run = await http.play()
        http.emulator.fail(Fault.vendor("run-not-found", times=2))
        statuses = [(await http.get(f"{http.agent}/runs/{run['id']}")).status for _ in range(3)]
        assert statuses == [404, 404, 200]


async def test_tests_may_look_at_runs_as_they_stand() -> None:
    async with served(script=[Turn("Hi.", running=2, extra={"disposition": "odd"})]) as http:
        await http.dispatch({"payload": {"a": 1}})
        (run,) = http.state.runs_of(http.state.agent_id)
        assert (run.visible, run.status, run.disposition, run.response) == (False, "running", None, None)
        assert (run.payload, run.foreign, run.ended) == ({"a": 1}, False, False)
        http.clock.advance(2)
        run = http.state.runs[run.id]
        assert (run.visible, run.status, run.disposition, run.response) == (True, "completed", "odd", "Hi.")
