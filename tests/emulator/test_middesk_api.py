"""Middesk: agents, threads, lists, feedback, keys, limits, refusals, and how rows are written."""

from __future__ import annotations

import base64
import math
from typing import Any

import aiohttp
import pytest

from agentruns.emulator import Emulator, Fault, Turn
from agentruns.emulator.middesk.errors import PLANTS
from tests.emulator.middesk_caller import BUSINESS, ELSEWHERE, START, Http, asking, served, yes

pytestmark = pytest.mark.asyncio

NO_CONTEXT = (400, "Provide thread_id, business_id, or context_type with context_id", None)
PAIR = {"type": "cip_orchestrator", "context_type": "business", "context_id": BUSINESS}


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


async def test_the_agents_are_listed_without_paging_and_read_by_id() -> None:
    async with served() as http:
        body = (await http.get("/agents")).body
        assert set(body) == {"data"}
        assert [agent["type"] for agent in body["data"]] == ["cip_orchestrator", "watchlist_resolution"]
        assert (await http.get(f"/agents/{body['data'][1]['id']}")).body == body["data"][1]
        assert (await http.get("/agents/cip_orchestrator")).refused == (404, "Agent not found", None)
    async with served(agents=["tin_resolution"]) as http:
        assert (await http.start({**START, "type": "tin_resolution"}))["agent"] == "tin_resolution"
        assert (await http.ask("POST", "/runs", START)).refused[0] == 404


async def test_a_new_thread_is_running_and_starts_nothing() -> None:
    async with served() as http:
        answer = await http.ask("POST", "/threads", START)
        assert answer.status == 201
        thread = answer.body
        assert thread == {
            "object": "thread",
            "id": thread["id"],
            "created_at": "2026-01-15T12:00:00Z",
            "updated_at": "2026-01-15T12:00:00Z",
            "status": "running",
            "metadata": None,
            "requester": thread["requester"],
            "steps": [],
        }
        assert (await http.get(f"/threads/{thread['id']}")).body == thread
        assert (await http.get("/threads/none")).refused == (404, "Agent thread not found", None)
        assert http.emulator.state.runs_started == 0
        assert list(http.emulator.state.threads) == [thread["id"]]


async def test_a_thread_has_the_status_and_the_steps_of_its_runs() -> None:
    turns = iter([asking(running=1), Turn("Done.", running=1), Turn(error="x", running=1), Turn("Done.", running=1)])
    async with served(script=lambda _: next(turns)) as http:
        thread = (await http.ask("POST", "/threads", START)).body["id"]
        seen: list[Any] = []

        async def look() -> dict[str, Any]:
            body: dict[str, Any] = (await http.get(f"/threads/{thread}")).body
            seen.append(body["status"])
            return body

        run = await http.start({"type": "cip_orchestrator", "thread_id": thread})
        assert run["thread_id"] == thread
        await look()
        http.clock.advance(1)
        paused = await look()
        assert paused["updated_at"] == "2026-01-15T12:00:01Z"
        run = await http.run(run)
        await http.resume(run, yes(run))
        http.clock.advance(1)
        await look()
        for _ in range(2):
            await http.start({"type": "watchlist_resolution", "thread_id": thread})
            http.clock.advance(1)
            await look()
        body = (await http.get(f"/threads/{thread}")).body
        assert seen == ["running", "interrupted", "completed", "error", "completed"]
        assert len({step["run_id"] for step in body["steps"]}) == 3


async def test_a_run_without_a_thread_gets_a_new_one_each_time() -> None:
    async with served() as http:
        first, second = await http.start(START), await http.start(PAIR)
        assert first["thread_id"] != second["thread_id"]
        assert (await http.get(f"/threads/{first['thread_id']}")).status == 200


@pytest.mark.parametrize("path", ["/runs", "/threads"])
async def test_what_is_run_and_about_what_has_to_be_said(path: str) -> None:
    async with served() as http:
        for body, refused in [
            ({"type": "cip_orchestrator"}, NO_CONTEXT),
            ({"type": "cip_orchestrator", "context_type": "business"}, NO_CONTEXT),
            ({"type": "cip_orchestrator", "context_id": BUSINESS}, NO_CONTEXT),
            ({"type": "cip_orchestrator", "business_id": None}, NO_CONTEXT),
            ({"business_id": BUSINESS}, (422, "type is missing", "type")),
            ({**START, "type": 7}, (422, "type is not a string", "type")),
            ({**START, "business_id": "b1"}, (422, "business_id is not a UUID", "business_id")),
            ({**PAIR, "context_id": "b1"}, (422, "context_id is not a UUID", "context_id")),
            ({**PAIR, "context_type": "person"}, (422, "context_type 'person' is not known", "context_type")),
            ({**START, "type": "psychic"}, (404, "Agent not found", "type")),
            ([], (400, "The body is not a JSON object", None)),
        ]:
            assert (await http.ask("POST", path, body)).refused == refused
        assert (await http.ask("POST", path, content=b"\xff{")).refused[0] == 400
        assert http.emulator.state.threads == {}


async def test_a_run_needs_a_thread_that_is_there_or_none() -> None:
    async with served() as http:
        refused = await http.ask("POST", "/runs", {"type": "cip_orchestrator", "thread_id": ELSEWHERE})
        assert refused.refused == (404, "Agent thread not found", None)
        assert (await http.get("/runs/none")).refused == (404, "Agent run not found", None)


async def test_unknown_fields_are_ignored_and_a_lenient_account_takes_any_ids() -> None:
    async with served() as http:
        assert (await http.start({**START, "input": "Check it.", "metadata": {}}))["status"] == "running"
    async with served(strict=False) as http:
        run = await http.start({"type": "cip_orchestrator", "context_type": "person", "context_id": "p1"})
        assert run["status"] == "running"


async def test_no_run_starts_for_a_business_in_audit_until_it_has_left_it() -> None:
    async with served(in_audit=[BUSINESS]) as http:
        assert (await http.ask("POST", "/runs", START)).refused == (422, "The business is in audit", "business_id")
        assert http.emulator.state.threads == {}
        thread = (await http.ask("POST", "/threads", START)).body["id"]
        within = {"type": "cip_orchestrator", "thread_id": thread}
        assert (await http.ask("POST", "/runs", within)).status == 422
        assert (await http.start({**START, "business_id": ELSEWHERE}))["status"] == "running"
        http.emulator.state.in_audit.discard(BUSINESS)
        assert (await http.start(within))["thread_id"] == thread


async def test_a_thread_may_be_kept_to_one_run_at_a_time() -> None:
    async with served(one_run_per_thread=True) as http:
        run = await http.start()
        within = {"type": "cip_orchestrator", "thread_id": run["thread_id"]}
        refused = await http.ask("POST", "/runs", within)
        assert refused.refused == (422, "The thread works on another run", "thread_id")
        http.clock.advance(1)
        assert (await http.start(within))["status"] == "running"
    async with served() as http:
        run = await http.start()
        assert (await http.start({**within, "thread_id": run["thread_id"]}))["status"] == "running"


async def test_lists_are_numbered_pages_newest_first() -> None:
    async with served() as http:
        ids = [(await http.start())["id"] for _ in range(5)][::-1]
        pages = [(await http.get(f"/runs?page={page}&per_page=2")).body for page in (1, 2, 3, 4)]
        assert [[run["id"] for run in page["data"]] for page in pages] == [ids[:2], ids[2:4], ids[4:], []]
        assert [page["has_more"] for page in pages] == [True, True, False, False]
        assert {(page["object"], page["total_count"]) for page in pages} == {("list", 5)}
        everything = (await http.get("/runs?include=steps")).body["data"]
        assert [run["id"] for run in everything] == ids
        assert not any("steps" in run for run in everything)
        for query in ("page=0", "per_page=0", "page=x", "per_page=-1"):
            status, _, parameter = (await http.get(f"/runs?{query}")).refused
            assert (status, parameter) == (400, query.partition("=")[0])


async def test_a_page_has_no_more_than_a_hundred_rows() -> None:
    async with served(script=[Turn(running=math.inf)]) as http:
        for _ in range(101):
            await http.start()
        for query in ("", "?per_page=500"):
            page = (await http.get(f"/runs{query}")).body
            assert (len(page["data"]), page["has_more"], page["total_count"]) == (100, True, 101)


async def test_threads_are_listed_by_business() -> None:
    async with served() as http:
        first, second = await http.start(), await http.start({**START, "business_id": ELSEWHERE})
        assert (await http.get("/threads")).body["total_count"] == 2
        (thread,) = (await http.get(f"/threads?business_id={BUSINESS}")).body["data"]
        assert thread["id"] == first["thread_id"]
        (thread,) = (await http.get(f"/threads?business_id={ELSEWHERE}&page=1&per_page=1")).body["data"]
        assert thread["id"] == second["thread_id"]


async def rated(http: Http, run: dict[str, Any], **changes: Any) -> Any:
    body = {"rating": "POSITIVE", "artifact_id": run["output"]["artifacts"][0]["id"], "comment": None, **changes}
    return await http.ask("POST", f"/runs/{run['id']}/feedback", body)


async def test_feedback_rates_an_artifact_and_supersedes_itself() -> None:
    async with served() as http:
        run = await http.play()
        first = (await rated(http, run, comment="  Good.  ")).body
        assert first == {
            "object": first["object"],
            "id": first["id"],
            "run_id": run["id"],
            "rating": "POSITIVE",
            "artifact_id": run["output"]["artifacts"][0]["id"],
            "comment": "Good.",
            "reviewer": {"type": "Account", "id": run["requester"]["id"]},
            "superseded_prior": False,
            "created_at": "2026-01-15T12:01:00Z",
        }
        again = await rated(http, run, rating="NEGATIVE", comment=" ")
        assert again.status == 201
        assert (again.body["superseded_prior"], again.body["comment"]) == (True, None)
        assert again.body["id"] != first["id"]
        assert [one.rating for one in http.emulator.state.feedback] == ["POSITIVE", "NEGATIVE"]


async def test_feedback_that_does_not_fit_is_refused() -> None:
    async with served() as http:
        run = await http.play()
        changes: list[tuple[dict[str, Any], str]] = [
            ({"rating": "GREAT"}, "rating"),
            ({"artifact_id": None}, "artifact_id"),
            ({"artifact_id": ELSEWHERE}, "artifact_id"),
            ({"comment": "x" * 5001}, "comment"),
            ({"comment": 7}, "comment"),
        ]
        for change, parameter in changes:
            status, _, named = (await rated(http, run, **change)).refused
            assert (status, named) == (422, parameter)
        assert (await http.ask("POST", f"/runs/{run['id']}/feedback", [])).refused[0] == 422
        assert (await rated(http, {**run, "id": "none"})).refused[0] == 404
        fresh = await http.start()
        assert (await rated(http, {**run, "id": fresh["id"]})).refused[2] == "artifact_id"
    async with served(operator_feedback=False) as http:
        run = await http.play()
        status, message, _ = (await rated(http, run)).refused
        assert (status, "operator_feedback" in message) == (403, True)


@pytest.mark.parametrize(
    ("requester", "name", "email", "reviewer"),
    [("user", "Ada Lin", "ada.lin@example.com", "User"), ("account", "Acme", None, "Account")],
)
async def test_runs_say_who_started_them(requester: str, name: str, email: str | None, reviewer: str) -> None:
    async with served(requester=requester, account="Acme") as http:
        run = await http.play()
        assert (run["requester"]["name"], run["requester"]["email"]) == (name, email)
        assert (await rated(http, run)).body["reviewer"] == {"type": reviewer, "id": run["requester"]["id"]}


async def test_the_system_may_start_runs() -> None:
    async with served(requester="system") as http:
        run = await http.play()
        assert run["requester"] is None
        assert (await http.get(f"/threads/{run['thread_id']}")).body["requester"] is None
        assert (await rated(http, run)).body["reviewer"]["type"] == "Account"


async def test_a_key_is_taken_as_bearer_and_as_basic_user_name() -> None:
    async with served(token="mk_test_1") as http:
        for headers, status in [
            ({"Authorization": "Bearer mk_test_1"}, 200),
            ({"Authorization": "bearer mk_test_1"}, 200),
            (basic("mk_test_1:"), 200),
            (basic("mk_test_1"), 200),
            (basic("mk_test_1:password"), 401),
            (basic("mk_live_1:"), 401),
            (basic(":mk_test_1"), 401),
            ({"Authorization": "Basic !"}, 401),
            ({"Authorization": "Basic /w=="}, 401),
            ({"Authorization": "Digest mk_test_1"}, 401),
            ({"Authorization": "Bearer mk_live_1"}, 401),
            ({"Authorization": "Bearer "}, 401),
            ({}, 401),
        ]:
            answer = await http.get("/runs", headers=headers)
            assert answer.status == status, headers
            if status == 401:
                assert answer.refused == (401, "The API key is missing or not valid", None)
        assert (await http.get("/runs", headers=basic("mk_test_1:"))).status == 200
        assert "mk_test_1" not in repr(http.emulator.exchanges)


async def test_rows_of_another_account_are_not_there() -> None:
    async with served(script=[asking()], others={"mk_test_2": "Other Inc"}) as http:
        run = await http.play()
        theirs = await http.start(token="mk_test_2")
        assert theirs["requester"]["name"] == "Other Inc"
        assert [row["id"] for row in (await http.get("/runs", token="mk_test_2")).body["data"]] == [theirs["id"]]
        for path in (f"/runs/{run['id']}", f"/runs/{run['id']}/stream", f"/threads/{run['thread_id']}"):
            assert (await http.get(path, token="mk_test_2")).refused[0] == 404
        assert (await http.resume(run, yes(run), token="mk_test_2")).refused[0] == 404
        assert (await http.get("/threads", token="mk_test_2")).body["total_count"] == 1


async def test_too_many_requests_in_a_second_are_refused_for_each_key_by_itself() -> None:
    async with served(rate_limit=20, others={"mk_test_2": "Other Inc"}) as http:
        answers = [await http.get("/runs") for _ in range(21)]
        assert [answer.status for answer in answers] == [200] * 20 + [429]
        assert answers[-1].refused == (429, "Too many requests", None)
        assert "Retry-After" not in answers[-1].headers
        assert (await http.get("/runs", token="mk_test_2")).status == 200
        assert (await http.get("/runs", token="wrong")).status == 401
        http.clock.advance(0.9)
        assert (await http.get("/runs")).status == 429
        http.clock.advance(0.1)
        assert (await http.get("/runs")).status == 200
    async with served(rate_limit=1, retry_after=3) as http:
        assert (await http.get("/runs")).status == 200
        assert (await http.get("/runs")).headers["Retry-After"] == "3"


@pytest.mark.parametrize("name", sorted(PLANTS))
async def test_every_planned_refusal_strikes_at_its_place_and_changes_nothing(name: str) -> None:
    async with served(script=[asking()]) as http:
        run = await http.play()
        plant = PLANTS[name]
        method, pattern = plant.place
        path = pattern.removeprefix("/v1").replace("/runs/*", f"/runs/{run['id']}").replace("/*", "/agents")
        body = {"POST": yes(run) if "resume" in path else START}.get(method)
        http.emulator.fail(Fault.vendor(name))
        answer = await http.ask("GET" if method == "*" else method, path, body)
        assert answer.refused == (plant.status, plant.message, plant.parameter)
        assert answer.headers.get("Retry-After") == ("1" if name == "rate-limit-retry-after" else None)
        assert http.emulator.faults.waiting == ()
        assert (await http.run(run)) == run
        assert http.emulator.state.runs_started == 1


async def test_unknown_paths_and_methods_are_refused_in_the_same_shape() -> None:
    async with served() as http:
        assert (await http.get("/threads/x/runs")).refused[0] == 404
        answer = await http.ask("DELETE", "/runs/x")
        assert (answer.refused[0], answer.headers["Allow"]) == (405, "GET")
        assert http.emulator.base_url.endswith("/v1")


async def test_the_status_words_of_earlier_days() -> None:
    turns = iter([Turn(error="x", running=1), asking(running=1)])
    async with served(script=lambda _: next(turns), old_status_words=True) as http:
        run = await http.start()
        assert run["status"] == "pending"
        http.clock.advance(1)
        assert (await http.run(run))["status"] == "failed"
        assert (await http.get(f"/threads/{run['thread_id']}")).body["status"] == "failed"
        assert (await http.play())["status"] == "interrupted"


async def test_timestamps_come_with_and_without_fractions() -> None:
    async with served(fractional_seconds=True) as http:
        assert (await http.start())["created_at"] == "2026-01-15T12:00:00.000Z"
        http.clock.advance(0.0205)
        (run,) = (await http.get("/runs")).body["data"]
        assert run["ended_at"] == "2026-01-15T12:00:00.020Z"


async def test_optional_fields_without_a_value_may_be_left_out() -> None:
    async with served(absent="omit") as http:
        run = await http.start()
        assert set(run) == {"object", "id", "created_at", "updated_at", "status", "thread_id", "agent", "requester"}
        assert set((await http.get("/runs?page=2")).body) == {"object", "has_more", "total_count"}
        http.clock.advance(1)
        assert "output" in await http.run(run)
    async with served(absent="random", seed=5) as http:
        shapes = {frozenset(await http.start()) for _ in range(20)}
        assert len(shapes) > 2
        assert all("thread_id" in shape for shape in shapes)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"colour": "red"}, "unknown option colour; allowed are absent, account, agents, .*strict"),
        ({"resume_keys": ("a", "a")}, "resume_keys are the two names"),
        ({"resume_keys": ("a",)}, "resume_keys are the two names"),
        ({"resume_keys": ("", "b")}, "resume_keys are the two names"),
        ({"interrupt_policy": "maybe"}, "interrupt_policy"),
        ({"policy_overrides": {"x": "maybe"}}, "in"),
        ({"resume_status": 500}, "resume_status"),
        ({"rate_limit": 0}, "rate_limit"),
        ({"stream": "grpc"}, "stream"),
    ],
)
async def test_bad_options_are_refused_by_name(options: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        Emulator("middesk", **options)


async def test_no_repr_shows_a_key() -> None:
    emulator = Emulator("middesk", token="s3cret", others={"als0": "Other Inc"})
    shown = repr((emulator, emulator.state, emulator.state.stage, emulator.state.__dict__["options"]))
    assert "s3cret" not in shown
    assert "als0" not in shown


async def test_it_serves_from_a_thread_on_the_real_clock_too() -> None:
    with Emulator("middesk", script=[Turn("Hi.", running=0)]) as emulator:
        headers = {"Authorization": f"Bearer {emulator.token}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.post(emulator.base_url + "/runs", json=START) as response:
                run = await response.json()
            async with session.get(f"{emulator.base_url}/runs/{run['id']}/stream") as response:
                text = await response.text()
        assert text.rstrip().splitlines()[-2] == "event: RUN_FINISHED"


ACTION: dict[str, Any] = {
    "object_type": "businesses",
    "object_id": BUSINESS,
    "type": "decision",
    "payload": {"decision": "approve"},
}


async def test_an_action_is_taken_by_an_account_or_a_run_and_told_of_its_object() -> None:
    async with served() as http:
        run = await http.play()
        first = await http.ask("POST", "/actions", {**ACTION, "note": "All is well."})
        assert first.status == 201
        assert (first.body["object_type"], first.body["note"]) == ("Business", "All is well.")
        assert first.body["actors"][0]["actor_type"] == "account"
        by_run = {"type": "verify_tin", "run_id": run["id"], "thread_id": run["thread_id"]}
        second = (await http.ask("POST", "/actions", {**ACTION, **by_run})).body
        assert second["actors"] == [{"actor_type": "run", "data": {"id": run["id"], "thread_id": run["thread_id"]}}]
        about = f"?object_type=businesses&object_id={BUSINESS}"
        assert (await http.ask("GET", f"/actions{about}")).body["data"] == [first.body, second]
        assert (await http.ask("GET", f"/actions/{second['id']}{about}")).body == second
        assert [action.body.type for action in http.emulator.state.actions] == ["decision", "verify_tin"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"type": "party"}, 400),
        ({"object_type": "people"}, 400),
        ({"object_id": "acme"}, 404),
        ({"payload": "approve"}, 422),
        ({"note": 7}, 422),
    ],
)
async def test_an_action_that_cannot_be_is_refused(change: dict[str, Any], status: int) -> None:
    async with served() as http:
        assert (await http.ask("POST", "/actions", {**ACTION, **change})).refused[0] == status
        assert (await http.ask("GET", "/actions?object_type=people")).refused[0] == 400
        assert (await http.ask("GET", f"/actions/a1?object_type=businesses&object_id={BUSINESS}")).refused[0] == 404
