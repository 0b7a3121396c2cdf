"""Middesk: the life of a run, its pauses and answers, its steps and artifacts, policies."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import pytest

from agentruns.emulator import Call, Fault, Prompt, Turn
from tests.emulator.middesk_caller import ASK, BUSINESS, PROPOSAL, START, asking, served, yes

pytestmark = pytest.mark.asyncio

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def test_a_run_is_accepted_then_started_then_completed_with_one_summary() -> None:
    async with served() as http:
        run = await http.start()
        assert UUID.fullmatch(run["id"])
        assert UUID.fullmatch(run["thread_id"])
        assert run == {
            "object": "run",
            "id": run["id"],
            "created_at": "2026-01-15T12:00:00Z",
            "updated_at": "2026-01-15T12:00:00Z",
            "status": "running",
            "thread_id": run["thread_id"],
            "agent": "cip_orchestrator",
            "requester": {"id": run["requester"]["id"], "name": "Harbor Lending Inc", "email": None},
            "started_at": None,
            "ended_at": None,
            "output": None,
            "interrupts": [],
        }
        started = await http.run(run)
        assert (started["status"], started["started_at"]) == ("running", "2026-01-15T12:00:00Z")
        http.clock.advance(1)
        done = await http.run(run)
        assert (done["status"], done["interrupts"]) == ("completed", [])
        assert done["ended_at"] == done["updated_at"] is not None
        (artifact,) = done["output"]["artifacts"]
        assert (artifact["type"], artifact["summary"]) == ("cip_summary", "Name, TIN and filing match.")
        assert UUID.fullmatch(artifact["id"])
        assert artifact["sources"][0]["url"].startswith("https://")
        assert http.emulator.state.runs_started == 1


async def test_a_run_waits_before_it_starts_and_says_its_own_word_while_running() -> None:
    async with served(script=[Turn("Done.", status="thinking", pending=3, running=2, extra={"mood": "calm"})]) as http:
        run = await http.start()
        http.clock.advance(2)
        assert (await http.run(run))["started_at"] is None
        http.clock.advance(2)
        run = await http.run(run)
        assert (run["status"], run["started_at"], run["mood"]) == ("thinking", "2026-01-15T12:00:03Z", "calm")
        http.clock.advance(1)
        run = await http.run(run)
        assert (run["status"], run["ended_at"]) == ("completed", "2026-01-15T12:00:05Z")


async def test_a_run_that_takes_no_time_is_still_accepted_as_running() -> None:
    async with served(script=[asking(running=0), Turn("Done.", running=0)]) as http:
        run = await http.start()
        assert (run["status"], run["started_at"]) == ("running", None)
        run = await http.run(run)
        assert run["status"] == "interrupted"
        resumed = (await http.resume(run, yes(run), "?include=steps")).body
        assert (resumed["status"], resumed["interrupts"], resumed["id"]) == ("running", [], run["id"])
        assert [step["type"] for step in resumed["steps"]] == ["activity", "interrupt"]
        assert (await http.run(run))["status"] == "completed"


async def test_a_run_may_never_end() -> None:
    async with served(script=[Turn(running=math.inf, iterations=3)]) as http:
        run = await http.start()
        http.clock.advance(1e9)
        run = await http.run(run, steps=True)
        assert (run["status"], run["ended_at"]) == ("running", None)
        (step,) = run["steps"]
        assert (step["status"], step["completed_at"]) == ("running", None)


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (Turn("Fine."), [{"summary": "Fine."}]),
        (Turn(), [{"summary": "Done."}]),
        (Turn(structured={"artifacts": [{"title": "T", "type": "t"}, "odd"]}), [{"title": "T", "type": "t"}, "odd"]),
        (Turn(structured={"artifacts": []}), []),
        (Turn(structured={"type": "decision", "why": [1]}), [{"type": "decision", "why": [1], "summary": None}]),
        (Turn("Both.", structured=[1]), [{"summary": "Both.", "content": [1]}]),
    ],
)
async def test_an_answer_becomes_artifacts(turn: Turn, expected: list[Any]) -> None:
    async with served(script=[turn]) as http:
        run = await http.play(steps=True)
        found = run["output"]["artifacts"]
        assert len(found) == len(expected)
        for artifact, wanted in zip(found, expected, strict=True):
            if isinstance(wanted, dict):
                assert artifact.items() >= wanted.items()
                assert UUID.fullmatch(artifact["id"])
            else:
                assert artifact == wanted
        closing = run["steps"][-1]
        assert (closing["type"], closing["status"]) == ("output", "completed")
        assert closing["artifacts"] == [artifact for artifact in found if isinstance(artifact, dict)]


async def test_artifacts_have_ids_of_their_own_or_none() -> None:
    script = [Turn(structured={"artifacts": [{"title": "T", "type": "t", "id": "mine"}]})]
    async with served(script=script) as http:
        assert (await http.play())["output"]["artifacts"][0]["id"] == "mine"
    async with served(artifact_ids=False) as http:
        assert "id" not in (await http.play())["output"]["artifacts"][0]


@pytest.mark.parametrize(
    ("error", "name", "label"),
    [("source_down", "source_down", "source_down"), (("source_down", "No filing."), "source_down", "No filing.")],
)
async def test_a_failure_shows_its_reason_in_the_steps_only(error: Any, name: str, label: str) -> None:
    async with served(script=[Turn("ignored", error=error, calls=[ASK], running=2)]) as http:
        run = await http.play(steps=True)
        assert (run["status"], run["output"], run["interrupts"]) == ("error", None, [])
        assert run["ended_at"] == "2026-01-15T12:00:02Z"
        assert "error" not in run
        step = run["steps"][-1]
        assert (step["type"], step["status"], step["name"], step["label"]) == ("error", "error", name, label)


async def test_an_interrupted_run_goes_on_as_itself_after_its_answer() -> None:
    async with served(script=[asking(running=2), Turn("Dismissed.", running=3)]) as http:
        paused = await http.play()
        assert (paused["status"], paused["output"], paused["ended_at"]) == ("interrupted", None, None)
        assert paused["updated_at"] == "2026-01-15T12:00:02Z"
        (interrupt,) = paused["interrupts"]
        assert interrupt["id"].startswith("int_")
        assert (interrupt["value"], interrupt["agent"]) == (PROPOSAL, "watchlist_resolution")
        http.clock.advance(1e6)  # nobody ends it
        assert (await http.run(paused)) == paused
        answer = await http.resume(paused, yes(paused, answer={"decision": "approve"}))
        assert answer.status == 200
        assert answer.body.items() >= {"id": paused["id"], "status": "running", "interrupts": []}.items()
        assert answer.body["updated_at"] > paused["updated_at"]
        assert answer.body["started_at"] == paused["started_at"]
        assert "steps" not in answer.body
        http.clock.advance(3)
        done = await http.run(paused)
        assert (done["status"], done["output"]["artifacts"][0]["summary"]) == ("completed", "Dismissed.")
        state = http.emulator.state
        assert state.runs_started == 1
        (asked,) = state.runs[paused["id"]].segments[0].interrupts
        assert (asked.answer, asked.answered) == ({"decision": "approve"}, 1000060.0)


async def test_of_several_interrupts_each_is_answered_alone_and_the_last_lets_the_run_go_on() -> None:
    calls = [Call("tin_resolution", {"agent": "tin_resolution"}), Call("interrupt", {"label": "Sure?"}), ASK]
    async with served(script=[asking(*calls)]) as http:
        run = await http.play()
        assert [one.get("agent", "none") for one in run["interrupts"]] == [
            "tin_resolution",
            "none",
            "watchlist_resolution",
        ]
        for left in (2, 1):
            answer = await http.resume(run, yes(run, 1))
            assert (answer.status, answer.body["status"], len(answer.body["interrupts"])) == (200, "interrupted", left)
            again = await http.resume(run, yes(run, 1))
            assert again.refused == (422, "No pending interrupt with this id on the run", "interrupt_id")
            run = answer.body
        answer = await http.resume(run, yes(run))
        assert answer.body["status"] == "running"
        assert (await http.resume(run, yes(run))).refused == (422, "The run is not interrupted", None)


async def test_a_run_may_be_interrupted_again() -> None:
    async with served(script=[asking(), asking(Call("interrupt"))]) as http:
        first = await http.play()
        await http.resume(first, yes(first))
        http.clock.advance(1)
        second = await http.run(first)
        assert second["status"] == "interrupted"
        assert second["interrupts"] != first["interrupts"]
        assert second["interrupts"][0]["value"] == {"label": "May the agent go on?", "artifacts": []}
        assert (await http.resume(second, yes(first))).refused[2] == "interrupt_id"
        await http.resume(second, yes(second, answer={"ok": True}))
        http.clock.advance(1)
        done = await http.run(first)
        assert done["output"]["artifacts"][0]["summary"] == (
            'Reviewed after these decisions: interrupt was answered {"ok":true}.'
        )


@pytest.mark.parametrize("answer", [None, False, 0, "", "yes", [1], {"a": {"b": None}}])
async def test_any_json_value_is_an_answer(answer: object) -> None:
    async with served(script=[asking(Call("watchlist_resolution"))]) as http:
        run = await http.play()
        assert run["interrupts"][0]["value"]["agent"] == "watchlist_resolution"
        assert (await http.resume(run, yes(run, answer=answer))).status == 200
        assert http.emulator.state.runs[run["id"]].segments[0].interrupts[0].answer == answer


async def test_a_resume_needs_its_two_fields() -> None:
    async with served(script=[asking()]) as http:
        run = await http.play()
        key = run["interrupts"][0]["id"]
        for body, parameter in [
            ({"input": 1}, "interrupt_id"),
            ({"id": key, "input": 1}, "interrupt_id"),
            ({"interrupt_id": "", "input": 1}, "interrupt_id"),
            ({"interrupt_id": 7, "input": 1}, "interrupt_id"),
            ({"interrupt_id": key}, "input"),
            ([key], None),
            (None, None),
        ]:
            status, _, named = (await http.resume(run, body)).refused
            assert (status, named) == (422, parameter)
        assert (await http.run(run)) == run
        assert (await http.resume({"id": run["thread_id"]}, yes(run))).refused[0] == 404


async def test_the_fields_of_a_resume_may_be_called_otherwise() -> None:
    async with served(script=[asking()], resume_keys=("id", "response")) as http:
        run = await http.play()
        key = run["interrupts"][0]["id"]
        assert (await http.resume(run, yes(run))).refused[2] == "id"
        assert (await http.resume(run, {"id": key})).refused[2] == "response"
        assert (await http.resume(run, {"id": key, "response": 1})).status == 200


async def test_a_lenient_resume_takes_the_plain_id_and_no_input() -> None:
    async with served(script=[asking()], strict=False) as http:
        run = await http.play()
        assert (await http.resume(run, {"input": 1})).refused[2] == "interrupt_id"
        assert (await http.resume(run, {"id": run["interrupts"][0]["id"]})).status == 200


@pytest.mark.parametrize("status", [201, 202, 204])
async def test_a_resume_may_be_taken_with_another_status(status: int) -> None:
    async with served(script=[asking()], resume_status=status) as http:
        run = await http.play()
        answer = await http.resume(run, yes(run))
        assert answer.status == status
        assert (answer.content == b"") == (status == 204)
        assert (await http.run(run))["status"] == "running"


async def test_a_scenario_may_refuse_an_answer() -> None:
    def check(interrupt: Any, answer: object) -> str | None:
        return None if answer == {"decision": "approve"} else f"{interrupt.agent} takes a decision"

    async with served(script=[asking()], check_answer=check) as http:
        run = await http.play()
        refused = await http.resume(run, yes(run, answer="hm"))
        assert refused.refused == (422, "watchlist_resolution takes a decision", "input")
        assert (await http.run(run)) == run
        assert (await http.resume(run, yes(run, answer={"decision": "approve"}))).status == 200


async def test_the_work_is_done_when_the_answer_to_a_create_or_a_resume_is_lost() -> None:
    async with served(script=[asking()]) as http:
        http.emulator.fail(Fault.answer(502, committed=True, method="POST", path="*/runs"))
        assert (await http.ask("POST", "/runs", START)).refused[0] == 502
        (run,) = (await http.get("/runs")).body["data"]
        http.clock.advance(1)
        run = await http.run(run)
        http.emulator.fail(Fault.answer(500, committed=True, path="*/resume"))
        assert (await http.resume(run, yes(run))).status == 500
        assert (await http.run(run))["status"] == "running"


async def test_the_same_answer_sent_many_times_at_once_is_taken_once() -> None:
    async with served(script=[asking()]) as http:
        run = await http.play()
        answers = await asyncio.gather(*(http.resume(run, yes(run)) for _ in range(6)))
        assert sorted(answer.status for answer in answers) == [200] + [422] * 5
        assert len(http.emulator.state.runs[run["id"]].segments) == 2


async def test_each_run_plays_the_script_from_its_first_turn() -> None:
    async with served(script=[asking(), Turn("Second.")]) as http:
        for _ in range(2):
            run = await http.play()
            await http.resume(run, yes(run))
            http.clock.advance(1)
            assert (await http.run(run))["output"]["artifacts"][0]["summary"] == "Second."


async def test_a_script_function_learns_the_agent_the_thread_and_the_answers() -> None:
    seen: list[Prompt] = []

    def script(prompt: Prompt) -> Turn | None:
        seen.append(prompt)
        return asking() if prompt.index == 0 else None

    async with served(script=script) as http:
        run = await http.play()
        await http.resume(run, yes(run, answer={"a": 1}))
        first, second = seen
        assert (first.index, first.conversation_id, first.agent) == (0, run["thread_id"], "cip_orchestrator")
        assert (first.text, first.outputs) == (None, ())
        (output,) = second.outputs
        assert (second.index, output.name, output.text) == (1, "watchlist_resolution", '{"a":1}')
        assert output.tool_use_id == run["interrupts"][0]["id"]


async def test_a_script_that_fails_at_a_resume_leaves_the_interrupt_open() -> None:
    def script(prompt: Prompt) -> Turn:
        if prompt.outputs:
            raise LookupError("no such page")
        return asking()

    async with served(script=script) as http:
        run = await http.play()
        status, message, _ = (await http.resume(run, yes(run))).refused
        assert (status, "no such page" in message) == (500, True)
        assert (await http.run(run)) == run


async def test_steps_come_only_when_asked_for_and_nest() -> None:
    server = Call("sos_lookup", server_side=True, result={"artifacts": [{"title": "Filing", "type": "filing"}]})
    flop = Call("web_search", server_side=True, result="timed out", is_error=True)
    async with served(script=[asking(server, flop, ASK, running=4, iterations=2), Turn(running=2)]) as http:
        run = await http.start()
        http.clock.advance(1)
        assert "steps" not in await http.run(run)
        (only,) = (await http.run(run, steps=True))["steps"]
        assert (only["status"], only["completed_at"], only["artifacts"]) == ("running", None, [])
        assert "steps" not in only
        http.clock.advance(5)
        run = await http.run(run, steps=True)
        plan, review, pause = run["steps"]
        assert all(step["run_id"] == run["id"] and UUID.fullmatch(step["id"]) for step in run["steps"])
        assert [plan["status"], review["status"], pause["status"]] == ["completed", "completed", "running"]
        assert (plan["agent"], plan["parent_step_id"], plan["name"]) == ("cip_orchestrator", None, "plan_review")
        found, failed, prepared = review["steps"]
        assert {step["parent_step_id"] for step in review["steps"]} == {review["id"]}
        assert (found["agent"], found["artifacts"][0]["title"]) == ("sos_lookup", "Filing")
        assert (failed["status"], failed["label"]) == ("error", "timed out")
        assert (prepared["agent"], prepared["name"]) == ("watchlist_resolution", "prepare_proposal")
        assert (pause["type"], pause["agent"], pause["label"]) == (
            "interrupt",
            "watchlist_resolution",
            "Dismiss the hit?",
        )
        assert (pause["completed_at"], pause["artifacts"]) == (None, PROPOSAL["artifacts"])
        await http.resume(run, yes(run))
        http.clock.advance(1)
        later = (await http.get(f"/runs/{run['id']}?include=other,%20steps")).body["steps"]
        assert [step["id"] for step in later[:3]] == [plan["id"], review["id"], pause["id"]]
        assert (later[2]["status"], later[2]["completed_at"]) == ("completed", "2026-01-15T12:00:06Z")
        assert "result" not in later[2]
        assert (later[3]["name"], later[3]["status"]) == ("continue_review", "running")


async def test_a_run_without_iterations_has_no_activities() -> None:
    async with served(script=[Turn("Quick.", iterations=0)]) as http:
        assert [step["type"] for step in (await http.play(steps=True))["steps"]] == ["output"]


@pytest.mark.parametrize("mode", ["auto_approve", "skip"])
async def test_a_policy_closes_interrupts_on_the_way(mode: str) -> None:
    async with served(script=[asking(running=2), asking(running=2), Turn("Through.")], interrupt_policy=mode) as http:
        run = await http.start()
        http.clock.advance(3)
        assert (await http.run(run))["status"] == "running"
        http.clock.advance(60)
        run = await http.run(run, steps=True)
        assert (run["status"], run["interrupts"]) == ("completed", [])
        assert run["ended_at"] == "2026-01-15T12:00:04Z"
        closed = [step for step in run["steps"] if step["type"] == "interrupt"]
        assert [step["result"] for step in closed] == [{"resolution": mode}] * 2
        assert [step["completed_at"] for step in closed] == ["2026-01-15T12:00:02Z", "2026-01-15T12:00:04Z"]


async def test_a_policy_may_be_another_for_one_agent() -> None:
    seen: list[Prompt] = []

    def script(prompt: Prompt) -> Turn | None:
        seen.append(prompt)
        return asking(Call("tin_resolution"), ASK, Call("interrupt")) if prompt.index == 0 else None

    policy = {"tin_resolution": "skip", "cip_orchestrator": "auto_approve"}
    async with served(script=script, policy_overrides=policy) as http:
        run = await http.play(steps=True)
        assert (run["status"], [one["agent"] for one in run["interrupts"]]) == ("interrupted", ["watchlist_resolution"])
        results = [step.get("result") for step in run["steps"] if step["type"] == "interrupt"]
        assert results == [{"resolution": "skip"}, {"resolution": "auto_approve"}, None]
        await http.resume(run, yes(run))
        assert [(output.name, output.text) for output in seen[1].outputs] == [
            ("tin_resolution", "skip"),
            ("interrupt", "auto_approve"),
            ("watchlist_resolution", "yes"),
        ]


async def test_a_script_that_fails_or_never_ends_under_a_policy_fails_its_run() -> None:
    def script(prompt: Prompt) -> Turn:
        if prompt.agent == "cip_orchestrator" and prompt.index:
            raise LookupError("no such page")
        return asking(running=0)

    async with served(script=script, interrupt_policy="skip") as http:
        failed = await http.play(steps=True)
        assert (failed["status"], "no such page" in failed["steps"][-1]["label"]) == ("error", True)
        endless = await http.play({**START, "type": "watchlist_resolution"}, steps=True)
        assert (endless["status"], endless["steps"][-1]["name"]) == ("error", "endless")


async def test_an_orchestrator_may_wrap_its_interrupts_into_one() -> None:
    calls = [Call("tin_resolution", {"label": "Upload a letter?"}), Call("interrupt", {"label": "Sure?"}), ASK]
    async with served(script=[asking(*calls)], combine_proposals=True) as http:
        run = await http.play(steps=True)
        (interrupt,) = run["interrupts"]
        assert "agent" not in interrupt
        assert interrupt["value"] == {
            "type": "combined_proposal",
            "proposals": [{"agent": "tin_resolution", "label": "Upload a letter?"}, {"label": "Sure?"}, PROPOSAL],
        }
        step = run["steps"][-1]
        assert (step["agent"], step["artifacts"]) == ("cip_orchestrator", PROPOSAL["artifacts"])
        assert (await http.resume(run, yes(run))).body["status"] == "running"
        single = await http.play({"type": "watchlist_resolution", "business_id": BUSINESS})
        assert len(single["interrupts"]) == 3
