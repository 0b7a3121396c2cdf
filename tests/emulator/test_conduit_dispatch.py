"""The emulated Conduit: dispatch, which names no run, and how its runs come to be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentruns.emulator import Emulator, Fault, Turn
from agentruns.emulator.conduit import Conduit
from tests.emulator.conduit_caller import Http, served

pytestmark = pytest.mark.asyncio


async def test_the_answer_names_the_trigger_and_no_run() -> None:
    async with served() as http:
        answer = await http.dispatch({"payload": {"unit": "12B"}})
        assert answer.status == 200
        assert answer.body == {
            "data": {"dispatched": True, "trigger_id": http.state.trigger_id, "trigger_type": "event"}
        }
        assert http.state.runs_started == 1


async def test_the_run_is_listed_after_a_while() -> None:
    async with served() as http:
        await http.dispatch()
        (run,) = http.state.runs.values()
        http.clock.advance(0.19)
        assert await http.listed() == []
        assert (await http.get(f"{http.agent}/runs/{run.id}")).status == 404
        http.clock.advance(0.02)
        (row,) = await http.listed()
        assert (row["id"], row["created_at"]) == (run.id, "2026-05-11T09:00:00.000Z")


async def test_a_run_may_be_created_only_when_it_shows() -> None:
    async with served(shown_after=2, created_when="shown", script=[Turn(running=1)]) as http:
        await http.dispatch()
        http.clock.advance(1.9)
        assert await http.listed() == []
        http.clock.advance(0.1)
        (row,) = await http.listed()
        assert (row["status"], row["created_at"]) == ("running", "2026-05-11T09:00:02.000Z")


async def test_a_late_run_appears_behind_a_foreign_one() -> None:
    async with served(shown_after=1) as http:
        await http.dispatch()
        http.clock.advance(0.5)
        foreign = http.state.fire()
        assert [row["id"] for row in await http.listed()] == [foreign.id]
        http.clock.advance(0.5)
        (newest, ours) = await http.listed()
        assert newest["id"] == foreign.id
        assert ours["created_at"] < newest["created_at"]


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_a_dispatch_starts_as_many_runs_as_told(count: int) -> None:
    async with served(runs_per_dispatch=count, script=[Turn("one"), Turn("two")]) as http:
        assert (await http.dispatch()).data["dispatched"] is True
        http.clock.advance(1)
        rows = await http.listed()
        assert len(rows) == http.state.runs_started == count
        details = [await http.run(row["id"]) for row in rows]
        assert [run["response"] for run in details] == ["one", "two"][:count][::-1]
        assert len({run["trigger_event_id"] for run in details}) == min(count, 1)


@pytest.mark.parametrize(
    ("name", "dispatched", "runs"),
    [("no-run", True, 0), ("two-runs", True, 2), ("not-dispatched", False, 0)],
)
async def test_one_dispatch_may_go_wrong_by_plan(name: str, dispatched: bool, runs: int) -> None:
    async with served() as http:
        http.emulator.fail(Fault.vendor(name))
        assert (await http.dispatch()).data["dispatched"] is dispatched
        assert http.state.runs_started == runs
        assert (await http.dispatch()).data["dispatched"] is True
        assert http.state.runs_started == runs + 1


async def test_dispatched_may_be_false_throughout() -> None:
    async with served(dispatched=False) as http:
        assert (await http.dispatch()).data["dispatched"] is False
        assert http.state.runs == {}


async def test_a_foreign_run_of_the_same_trigger_shows_at_once() -> None:
    async with served(script=[Turn("Ours.")]) as http:
        http.emulator.fail(Fault.vendor("foreign-run"))
        await http.dispatch({"payload": {"a": 1}})
        (foreign,) = await http.listed()
        assert http.state.runs[foreign["id"]].foreign
        http.clock.advance(1)
        ours, same = await http.listed()
        assert same["id"] == foreign["id"]
        assert ours["trigger_id"] == same["trigger_id"]
        assert (await http.run(ours["id"]))["response"] == "Ours."  # the other took no turn of the script
        assert http.state.runs_started == 1


async def test_the_world_fires_any_trigger_with_a_turn_of_its_own() -> None:
    async with served(script=[Turn("scripted")]) as http:
        inbox = http.state.add_trigger("message", enabled=False)
        run = http.state.fire(inbox.id, "Is it free?", turn=Turn("Yes."))
        http.clock.advance(1)
        (row,) = await http.listed()
        assert (row["id"], row["trigger_id"]) == (run.id, inbox.id)
        assert row["contact_id"][:2] == "co"
        assert row["conversation_id"][:2] == "cv"
        assert (await http.run(run.id))["response"] == "Yes."
        assert (await http.play({"trigger_id": http.state.trigger_id}))["response"] == "scripted"
        with pytest.raises(KeyError, match="trnothing"):
            http.state.fire("trnothing")


async def test_a_cron_trigger_ignores_the_payload() -> None:
    async with served() as http:
        nightly = http.state.add_agent("Nightly", triggers=["cron"])
        answer = await http.dispatch({"payload": {"a": 1}}, agent_id=nightly.id)
        assert answer.data["trigger_type"] == "cron"
        (run,) = http.state.runs_of(nightly.id)
        assert run.payload == {}


def _none(http: Http) -> tuple[str, object]:
    return http.state.add_agent(triggers=[]).id, {}


def _several(http: Http) -> tuple[str, object]:
    http.state.add_trigger("message")  # counts too
    return http.state.agent_id, {}


def _message(http: Http) -> tuple[str, object]:
    return http.state.add_agent(triggers=["message"]).id, {}


def _disabled(http: Http) -> tuple[str, object]:
    return http.state.agent_id, {"trigger_id": http.state.add_trigger(enabled=False).id}


def _of_another(http: Http) -> tuple[str, object]:
    return http.state.agent_id, {"trigger_id": http.state.add_agent().triggers[0].id}


def _inactive(http: Http) -> tuple[str, object]:
    return http.state.add_agent(operation_mode="inactive").id, {}


def _switched_off(http: Http) -> tuple[str, object]:
    return http.state.add_agent(enabled=False).id, {}


@pytest.mark.parametrize(
    ("prepare", "status", "text"),
    [
        (_none, 400, "This agent has no trigger"),
        (_several, 400, "trigger_id is required: this agent has several triggers"),
        (_message, 400, "Channel and message triggers are not supported"),
        (_disabled, 400, "This trigger is disabled"),
        (_of_another, 404, "Trigger not found"),
        (_inactive, 400, "This agent is inactive"),
        (_switched_off, 400, "This agent is inactive"),
        (lambda _: ("agnothing", {}), 404, "Agent not found"),
    ],
)
async def test_a_dispatch_that_cannot_be_is_refused(
    prepare: Callable[[Http], tuple[str, object]], status: int, text: str
) -> None:
    async with served() as http:
        agent_id, body = prepare(http)
        assert (await http.dispatch(body, agent_id=agent_id)).refused == (status, text)
        assert http.state.runs_started == 0


@pytest.mark.parametrize(("mode", "runs"), [("ignore", 0), ("run", 1)])
async def test_an_inactive_agent_may_take_dispatches(mode: str, runs: int) -> None:
    async with served(inactive_agents=mode) as http:
        agent_id, body = _inactive(http)
        assert (await http.dispatch(body, agent_id=agent_id)).data["dispatched"] is True
        assert http.state.runs_started == runs


async def test_a_named_trigger_of_several_is_fired() -> None:
    async with served() as http:
        second = http.state.add_trigger("workflow", config={"flowId": 7})
        answer = await http.dispatch({"trigger_id": second.id, "unknown": 1})
        assert answer.data == {"dispatched": True, "trigger_id": second.id, "trigger_type": "workflow"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"trigger_id": 7}', b'"\xff"'])
async def test_a_body_that_is_no_dispatch_is_refused(content: bytes) -> None:
    async with served() as http:
        answer = await http.ask("POST", f"{http.agent}/run", content=content)
        assert answer.refused[0] == 400
        assert http.state.runs_started == 0


async def test_an_idempotency_key_is_ignored_but_seen() -> None:
    async with served() as http:
        for _ in range(2):
            await http.dispatch(headers={"Idempotency-Key": "k-1"})
        assert http.state.runs_started == 2
        assert [run.idempotency_key for run in http.state.runs.values()] == ["k-1", "k-1"]
        assert [entry.headers["Idempotency-Key"] for entry in http.emulator.requests("POST")] == ["k-1", "k-1"]


async def test_an_idempotency_key_may_be_honoured() -> None:
    async with served(honour_idempotency_key=True) as http:
        other = http.state.add_agent().id
        first = await http.dispatch(headers={"Idempotency-Key": "k-1"})
        assert (await http.dispatch({"payload": 2}, headers={"Idempotency-Key": "k-1"})).body == first.body
        assert http.state.runs_started == 1
        await http.dispatch(headers={"Idempotency-Key": "k-2"})
        await http.dispatch(headers={"Idempotency-Key": "k-1"}, agent_id=other)
        await http.dispatch()
        await http.dispatch()
        assert http.state.runs_started == 5


async def test_a_committed_failure_leaves_a_run_the_caller_was_not_told_of() -> None:
    async with served() as http:
        http.emulator.fail(Fault.answer(502, committed=True, path="*/run"))
        assert (await http.dispatch()).refused == (502, "Planned by the emulator's user.")
        http.clock.advance(1)
        assert len(await http.listed()) == http.state.runs_started == 1


async def test_a_script_that_breaks_is_shown_and_starts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(prompt: object) -> Turn:
        raise RuntimeError("my own bug")

    async with served(script=broken) as http:
        status, text = (await http.dispatch()).refused
        assert (status, "my own bug" in text) == (500, True)
        assert http.state.runs_started == 0
    assert "failed inside the emulator" in caplog.text


async def test_success_codes_may_be_others() -> None:
    async with served(dispatch_code=202, create_code=201) as http:
        assert (await http.dispatch()).status == 202
        created = await http.post("/agents", {"workspace_id": http.state.workspace_id, "name": "New"})
        assert created.status == 201


@pytest.mark.parametrize(
    "bad",
    [
        {"shown_after": -1},
        {"shown_after": float("nan")},
        {"shown_after": float("inf")},
        {"created_when": "later"},
        {"runs_per_dispatch": -1},
        {"runs_per_dispatch": 1.5},
        {"dispatched": "no"},
        {"dispatch_code": 204},
        {"create_code": 202},
        {"inactive_agents": "maybe"},
        {"cursors": "signed"},
        {"response_delay": "never"},
        {"error_form": "list"},
        {"absent": "undefined"},
        {"empty_trace": "object"},
        {"requests_per_minute": 0},
        {"colour": "red"},
    ],
)
async def test_bad_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
        Emulator(Conduit, **bad)


async def test_the_same_seed_makes_the_same_ids() -> None:
    one, two = Emulator(Conduit, seed=3).state, Emulator("conduit", seed=3).state
    assert isinstance(two, Conduit)
    assert one.agent_id == two.agent_id != Emulator(Conduit, seed=4).state.agent_id
