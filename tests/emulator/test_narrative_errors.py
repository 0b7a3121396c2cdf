"""Narrative: every documented error, over HTTP and in failed runs; the caller's rights; the shape of answers."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from agentruns.emulator import Call, Emulator, Fault, Narrative, Turn
from tests.emulator.narrative_caller import BOOKING, DOCS, PLANE, USER_TOOLS, defaults, output, outputs, say, served

pytestmark = pytest.mark.asyncio

PAGES = "https://docs.narrative.io/reference/architecture/agent-conversations/errors/"
LONG = "x" * 61


def group(alias: str, *names: str) -> dict[str, object]:
    return {"alias": alias, "tools": [{**BOOKING, "name": name} for name in names]}


def tool(name: str) -> dict[str, object]:
    return {**BOOKING, "name": name}


CONFIGS: dict[str, tuple[dict[str, object], str]] = {
    "invalid-tool-alias": (
        {"client_tools": [group("far-too-long", "a"), group("9", "a")]},
        "invalid tool aliases (must match ^[a-zA-Z][a-zA-Z0-9]{0,7}$): far-too-long, 9",
    ),
    "duplicate-tool-alias": (
        {"client_tools": [group("docs", "a")], "mcp_servers": [DOCS]},
        "duplicate tool aliases (must be unique across mcp_servers + client_tools): docs",
    ),
    "tool-name-too-long": (
        {"client_tools": [group("user", LONG)]},
        f"tool wire names exceed Bedrock's 64-char limit: user-{LONG}",
    ),
    "invalid-caller-tool-name": (
        {"tools": [tool("a-b"), tool(""), tool("y" * 65)]},
        "invalid caller-declared tool names (must be non-empty, dash-free, and ≤ 64 chars): a-b, '', " + "y" * 65,
    ),
    "duplicate-caller-tool-name": (
        {"tools": [tool("a"), tool("b"), tool("a")]},
        "duplicate caller-declared tool names (must be unique within tools[]): a",
    ),
}


@pytest.mark.parametrize("slug", CONFIGS)
async def test_a_bad_configuration_is_refused_at_creation_and_as_override(slug: str) -> None:
    config, detail = CONFIGS[slug]
    async with served() as http:
        answer = await http.ask("POST", "/agents/conversations", {"defaults": defaults(**config)})
        assert (answer.status, answer.body["type"], answer.body["detail"]) == (400, PAGES + slug, detail)
        assert not http.emulator.state.conversations
        refused = await http.start(await http.create(), say(config_override=config))
        assert (refused.status, refused.slug) == (400, slug)
        assert http.emulator.state.runs_started == 0


async def test_revision_b_wants_unique_aliases_among_servers_only() -> None:
    async with served(revision="B") as http:
        await http.create(client_tools=[group("docs", "a")], mcp_servers=[DOCS])
        answer = await http.ask("POST", "/agents/conversations", {"defaults": defaults(mcp_servers=[DOCS, DOCS])})
        assert answer.body["detail"] == "duplicate tool aliases (must be unique within mcp_servers): docs"


async def test_the_longest_wire_name_is_64_characters() -> None:
    async with served() as http:
        await http.create(client_tools=[group("user", "x" * 59)], mcp_servers=[])
        await http.create(tools=[tool("y" * 64)])


CHOICES = {
    "unknown-tool-choice-mcp-alias": (
        {"name": "search", "mcp_alias": "nope"},
        "tool_choice references unknown mcp_alias 'nope' — not a registered MCP server",
    ),
    "unknown-tool-choice-name": (
        {"name": "fly", "mcp_alias": "docs"},
        "tool_choice references unknown tool name 'fly' — not found in the catalog",
    ),
}


@pytest.mark.parametrize("slug", CHOICES)
async def test_a_tool_choice_has_to_name_a_declared_tool(slug: str) -> None:
    choice, detail = CHOICES[slug]
    async with served() as http:
        conversation = await http.create(client_tools=USER_TOOLS, mcp_servers=[DOCS])
        answer = await http.start(conversation, say(tool_choice={"kind": "specific_tool", **choice}))
        assert (answer.status, answer.slug, answer.body["detail"]) == (400, slug, detail)
        bare = await http.start(conversation, say(tool_choice={"kind": "specific_tool", "name": "search"}))
        assert (bare.status, bare.slug) == (400, "unknown-tool-choice-name")


async def test_a_tool_choice_looks_into_the_effective_lists() -> None:
    async with served() as http:
        conversation = await http.create(mcp_servers=[DOCS])
        choice = {"kind": "specific_tool", "name": "search", "mcp_alias": "docs"}
        gone = await http.start(conversation, say(tool_choice=choice, config_override={"mcp_servers": []}))
        assert gone.slug == "unknown-tool-choice-mcp-alias"


async def test_a_silent_mcp_server_is_the_callers_400() -> None:
    async with served(unreachable_mcp=["https://docs.example/mcp"]) as http:
        conversation = await http.create(mcp_servers=[DOCS])
        answer = await http.start(conversation, say())
        assert (answer.status, answer.slug) == (400, "mcp-discovery-failed")
        assert (await http.start(conversation, say(config_override={"mcp_servers": []}))).status == 202


async def test_outputs_have_to_answer_the_latest_assistant_turn_one_to_one() -> None:
    script = [Turn(calls=[Call("confirm_booking"), Call("confirm_booking")])]
    async with served(script=script) as http:
        conversation = await http.create(client_tools=USER_TOOLS)
        early = await http.start(conversation, outputs(0, output("tooluse_x")))
        assert (early.status, early.slug) == (400, "no-assistant-turn")
        assert early.body["detail"] == (
            f"cannot submit tool_outputs: conversation {conversation} has no assistant turn yet"
        )
        calls = (await http.play(conversation, say()))["pending_tool_calls"]
        one, two = (call["tool_use_id"] for call in calls)
        unknown = await http.start(conversation, outputs(2, output(one), output("tooluse_x")))
        assert (unknown.status, unknown.slug) == (400, "unknown-tool-use-id")
        assert unknown.body["detail"] == "tool_use_id(s) not found on latest assistant turn: tooluse_x"
        start = "tool_outputs do not match the pending client tool calls — "
        missing = await http.start(conversation, outputs(2, output(one)))
        assert (missing.status, missing.slug) == (400, "incomplete-tool-outputs")
        assert missing.body["detail"] == f"{start}missing: {two}"
        twice = await http.start(conversation, outputs(2, output(one), output(one)))
        assert twice.body["detail"] == f"{start}missing: {two}; unexpected: {one}"
        extra = await http.start(conversation, outputs(2, output(one), output(one), output(two)))
        assert extra.body["detail"] == f"{start}unexpected: {one}"
        none = await http.start(conversation, outputs(2))
        assert none.slug == "incomplete-tool-outputs"
        stale = await http.start(conversation, outputs(0, output("tooluse_x")))
        assert stale.slug == "version-conflict"
        await http.play(conversation, outputs(2, output(one), output(two)))
        late = await http.start(conversation, outputs(4, output(one), output(two)))
        assert (late.status, late.slug) == (400, "unknown-tool-use-id")
        assert (await http.start(conversation, outputs(4))).body["title"] == "Bad Request"


async def test_unknown_rows_and_rows_of_others_are_not_told_apart() -> None:
    others = {"colleague": (1, 408), "stranger": (2, 1)}
    async with served(others=others) as http:
        mine = await http.create()
        run = (await http.start(mine, say())).body["id"]
        theirs = await http.create(token="colleague")
        missing = str(uuid.uuid4())
        for path in (mine, f"{mine}/messages"):
            for token in others:
                answer = await http.get(f"/agents/conversations/{path}", token=token)
                assert (answer.status, answer.slug) == (404, "conversation-not-found")
                assert answer.body["detail"] == "Resource not found or not accessible."
        assert (await http.start(mine, say(), token="stranger")).slug == "conversation-not-found"
        assert (await http.start(missing, say())).slug == "conversation-not-found"
        assert (await http.get(f"/agents/runs/{run}", token="colleague")).slug == "agent-run-not-found"
        gone = await http.get(f"/agents/runs/{missing}")
        assert (gone.status, gone.slug) == (404, "agent-run-not-found")
        for owner, rows in (("colleague", [theirs]), ("stranger", []), (None, [mine])):
            page = (await http.get("/agents/conversations", token=owner)).body
            assert [row["id"] for row in page["records"]] == rows
        assert (await http.get("/whoami", token="stranger")).body == {
            "user_id": 1,
            "current_company_scope": {"company_id": 2},
        }


async def test_a_run_whose_workflow_did_not_start_starts_when_asked_again() -> None:
    async with served() as http:
        http.emulator.fail(Fault.vendor("workflow-start-failed", times=2))
        conversation = await http.create()
        body = say("Wake up.")
        for _ in range(2):
            failed = await http.start(conversation, body)
            assert (failed.status, failed.slug) == (500, "workflow-start-failed")
        http.clock.advance(3600)
        (row,) = http.emulator.state.runs.values()
        assert (row.status, http.emulator.state.runs_started) == ("pending", 0)
        again = await http.start(conversation, body)
        assert (again.status, again.body["id"], again.body["started_at"]) == (200, row.id, again.body["started_at"])
        http.clock.advance(1)
        assert (await http.run(row.id))["final_text"] == "You said: Wake up."
        assert http.emulator.state.runs_started == 1


async def test_a_spoiled_row_answers_500_and_a_larger_since_skips_it() -> None:
    async with served() as http:
        conversation = await http.create()
        run = await http.play(conversation, say())
        state = http.emulator.state
        first = next(iter(state.messages))
        state.spoil(first, run["id"])
        bad = await http.get(f"/agents/conversations/{conversation}/messages")
        assert (bad.status, bad.slug) == (500, "invalid-stored-field")
        assert len((await http.messages(conversation, since=1))["messages"]) == 1
        assert (await http.get(f"/agents/runs/{run['id']}")).slug == "invalid-stored-field"
        state.spoil(conversation)
        assert (await http.get(f"/agents/conversations/{conversation}")).slug == "invalid-stored-field"


@pytest.mark.parametrize("slug", sorted(Narrative.plants))
async def test_every_documented_problem_can_be_planted(slug: str) -> None:
    async with served() as http:
        conversation = await http.create()
        run = (await http.start(conversation, say())).body["id"]
        http.emulator.fail(Fault.vendor(slug))
        answers = [
            await http.ask("POST", "/agents/conversations", {"defaults": defaults()}),
            await http.get(f"/agents/conversations/{conversation}"),
            await http.start(conversation, say()),
            await http.get(f"/agents/runs/{run}"),
        ]
        (struck,) = [answer for answer in answers if answer.status >= 400]
        assert struck.body["type"] == PAGES + slug
        assert struck.status == struck.body["status"]
        assert struck.body["title"]
        assert struck.body["detail"]
        assert uuid.UUID(struck.body["log_id"]).version == 4


async def test_an_unknown_planted_name_says_which_there_are() -> None:
    emulator = Emulator("narrative")
    with pytest.raises(ValueError, match=r"narrative has no fault 'teapot'; it has .*version-conflict"):
        emulator.fail(Fault.vendor("teapot"))


RUN_ERRORS = {
    "AgentLoopMaxIterationsExceeded": ("max-iterations-exceeded", 2),
    "AgentLoopConcurrentConversationAppend": ("concurrent-conversation-append", 0),
    "AgentLoopSchemaDecodeFailed": ("schema-decode-failed", 2),
    "AgentLoopInvalidEffectiveConfig": ("invalid-effective-config", 0),
    "AgentLoopInvalidRequestPayload": ("invalid-request-payload", 0),
    "AgentLoopUnknownToolAlias": ("unknown-tool-alias", 2),
    "AgentLoopMalformedToolName": ("malformed-tool-name", 2),
    "AgentLoopMcpDiscoveryFailed": ("mcp-discovery-failed", 0),
    "McpServerError": ("mcp-server-error", 2),
    "McpProtocol": ("mcp-protocol-error", 2),
    "UnknownTool": ("mcp-unknown-tool", 2),
    "ToolValidation": ("mcp-tool-validation", 2),
    "JobFailed": ("inference-job-failed", 0),
    "AgentLoopAgentRunNotFound": ("agent-run-not-found", 0),
    "AgentLoopConversationNotFound": ("conversation-not-found", 0),
    "AgentLoopFinalizeInvariantViolated": ("invariant-violated", 0),
}


@pytest.mark.parametrize("kind", RUN_ERRORS)
async def test_every_documented_run_error_can_be_scripted(kind: str) -> None:
    slug, left = RUN_ERRORS[kind]
    async with served(script=[Turn(error=kind)]) as http:
        conversation = await http.create()
        run = await http.play(conversation, say())
        assert (run["status"], run["error"]["type"], run["error"]["docs_url"]) == ("failed", kind, PAGES + slug)
        assert run["error"]["message"]
        assert run["error"]["title"]
        assert run["completed_at"]
        assert (run["final_text"], run["pending_tool_calls"]) == (None, [])
        assert run["iterations_used"] == len(run["submitted_inference_job_ids"])
        assert (await http.messages(conversation))["current_version"] == left
    async with served(script=[Turn(error=kind)], keep_failed=False) as http:
        conversation = await http.create()
        await http.play(conversation, say())
        assert (await http.messages(conversation))["current_version"] == 0


async def test_the_iteration_cap_fails_the_run() -> None:
    async with served(script=[Turn("Never said.", iterations=3, running=3)]) as http:
        run = await http.play(await http.create(max_iterations=2), say())
        assert run["error"] == {
            "type": "AgentLoopMaxIterationsExceeded",
            "message": "max iterations exceeded after 2 iterations",
            "title": "Max Iterations Exceeded",
            "docs_url": PAGES + "max-iterations-exceeded",
        }
        assert run["iterations_used"] == 2


async def test_an_error_type_without_a_page_has_neither_title_nor_docs_url() -> None:
    script = [Turn(error=("Strange", "who knows")), Turn("I tried.", error="Stranger")]
    async with served(script=script) as http:
        conversation = await http.create()
        run = await http.play(conversation, say())
        assert run["error"] == {"type": "Strange", "message": "who knows"}
        assert (await http.messages(conversation))["current_version"] == 0
        run = await http.play(conversation, say())
        assert run["error"] == {"type": "Stranger", "message": "Stranger"}
        assert (await http.messages(conversation))["current_version"] == 2


async def test_a_failed_job_leaves_turns_only_after_its_first_iteration() -> None:
    async with served(script=[Turn(error="JobFailed", iterations=2)]) as http:
        conversation = await http.create()
        await http.play(conversation, say())
        assert (await http.messages(conversation))["current_version"] == 2


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (Call("nope-search"), "AgentLoopUnknownToolAlias"),
        (Call("undeclared"), "AgentLoopMalformedToolName"),
        (Call("9bad-search"), "AgentLoopMalformedToolName"),
        (Call("docs-fly"), "UnknownTool"),
        (Call("docs-search", {"query": 7}), "ToolValidation"),
    ],
)
async def test_a_call_of_what_is_not_declared_fails_the_run(call: Call, kind: str) -> None:
    async with served(script=[Turn(calls=[call])]) as http:
        conversation = await http.create(client_tools=USER_TOOLS, mcp_servers=[DOCS])
        run = await http.play(conversation, say())
        assert (run["status"], run["error"]["type"]) == ("failed", kind)
        (use,) = (await http.messages(conversation))["messages"][1]["content_blocks"]
        refused = await http.start(conversation, outputs(2, output(use["tool_use_id"])))
        assert refused.slug == "not-a-client-tool-call"


async def test_an_answer_that_does_not_fit_the_schema_fails_the_run() -> None:
    async with served(script=[Turn(structured={"words": "no"})]) as http:
        run = await http.play(await http.create(), say())
        assert run["error"]["type"] == "AgentLoopSchemaDecodeFailed"
        assert "$.text is missing" in run["error"]["message"]


BAD_BODIES: list[tuple[str, Any]] = [
    ("no defaults", {}),
    ("not an object", []),
    ("model missing", {"defaults": defaults(model=None)}),
    ("plane missing", {"defaults": defaults(data_plane_id=None)}),
    ("plane not a uuid", {"defaults": defaults(data_plane_id="dp")}),
    ("iterations missing", {"defaults": defaults(max_iterations=None)}),
    ("iterations zero", {"defaults": defaults(max_iterations=0)}),
    ("iterations a word", {"defaults": defaults(max_iterations="8")}),
    ("schema missing", {"defaults": defaults(output_format_schema=None)}),
    ("hot", {"defaults": defaults(temperature=2)}),
    ("owner", {"defaults": defaults(), "company_id": 1}),
    ("both lists", {"defaults": defaults(tools=[], client_tools=[])}),
]


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in BAD_BODIES])
async def test_a_bad_creation_body_is_a_plain_400(body: object) -> None:
    async with served() as http:
        answer = await http.ask("POST", "/agents/conversations", body)
        assert (answer.status, answer.body["type"], answer.body["title"]) == (400, "about:blank", "Bad Request")


BAD_STARTS: list[tuple[str, dict[str, object]]] = [
    ("id not a uuid", {"client_op_id": "one"}),
    ("version negative", {"expected_version": -1}),
    ("version a word", {"expected_version": "0"}),
    ("kind missing", {"payload": {"text": "Hello."}}),
    ("kind unknown", {"payload": {"kind": "song"}}),
    ("choice unknown", {"tool_choice": {"kind": "none"}}),
    ("prompt in override", {"config_override": {"system_prompt": "x"}}),
]


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in BAD_STARTS])
async def test_a_bad_start_body_is_a_plain_400_before_anything_is_looked_up(change: dict[str, object]) -> None:
    async with served() as http:
        answer = await http.start(str(uuid.uuid4()), {**say(), **change})
        assert (answer.status, answer.body["type"]) == (400, "about:blank")


async def test_unknown_fields_are_ignored_unless_strict() -> None:
    body = {"defaults": defaults(mcp_servers=[{**DOCS, "colour": "red"}])}
    async with served() as http:
        answer = await http.ask("POST", "/agents/conversations", body)
        assert answer.status == 201
        assert answer.body["defaults"]["mcp_servers"] == [DOCS]
    async with served(strict=True) as http:
        answer = await http.ask("POST", "/agents/conversations", body)
        assert (answer.status, answer.body["detail"]) == (400, "unknown field $.defaults.mcp_servers[0].colour")
        conversation = await http.create(client_tools=USER_TOOLS, compute_pool_id=PLANE)
        (call,) = (await http.play(conversation, say(tool_choice={"kind": "auto"})))["pending_tool_calls"]
        assert (await http.start(conversation, outputs(2, output(call["tool_use_id"])))).status == 202


async def test_bad_ids_and_cursors_are_plain_400s() -> None:
    async with served() as http:
        conversation = await http.create()
        for path in (
            "/agents/runs/first",
            "/agents/conversations/first",
            f"/agents/conversations/{conversation}/messages?since=-1",
            f"/agents/conversations/{conversation}/messages?since=all",
            "/agents/conversations?page=0",
        ):
            answer = await http.get(path)
            assert (answer.status, answer.body["title"]) == (400, "Bad Request")


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_a_wrong_token_is_a_401_problem(token: str) -> None:
    async with served() as http:
        answer = await http.get("/agents/conversations", token=token)
        assert (answer.status, answer.body["title"], answer.body["status"]) == (401, "Unauthorized", 401)
        assert http.emulator.token not in repr(http.emulator.state.stage)


async def test_auth_errors_may_take_the_platforms_other_shape() -> None:
    async with served(auth_errors="oauth", permissions=["read"]) as http:
        answer = await http.get("/agents/conversations", token="wrong")
        assert (answer.status, set(answer.body)) == (401, {"error", "error_description"})
        answer = await http.ask("POST", "/agents/conversations", {"defaults": defaults()})
        assert (answer.status, answer.body["error"]) == (403, "insufficient_scope")
        assert (await http.get("/agents/conversations")).status == 200


async def test_permissions_are_per_kind_of_access_and_whoami_needs_none() -> None:
    async with served(permissions=["write"]) as http:
        await http.create()
        answer = await http.get("/agents/conversations")
        assert (answer.status, answer.body["title"]) == (403, "Forbidden")
        assert (await http.get("/whoami")).status == 200


async def test_unknown_paths_and_methods_are_problems() -> None:
    async with served() as http:
        answer = await http.get("/agents/nothing")
        assert (answer.status, answer.body["title"], answer.body["instance"]) == (404, "Not Found", "/agents/nothing")
        answer = await http.ask("DELETE", f"/agents/conversations/{await http.create()}")
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")
        assert answer.body["title"] == "Method Not Allowed"


async def test_the_list_pages_from_newest_to_oldest() -> None:
    async with served(max_per_page=2) as http:
        empty = (await http.get("/agents/conversations?page=3")).body
        assert (empty["records"], empty["total_records"], empty["prev_page"]) == ([], 0, None)
        ids = [await http.create() for _ in range(3)]
        first = (await http.get("/agents/conversations?per_page=50")).body
        assert [row["id"] for row in first["records"]] == [ids[2], ids[1]]
        assert {name: value for name, value in first.items() if name != "records"} == {
            "prev_page": None,
            "current_page": 1,
            "next_page": 2,
            "total_records": 3,
            "total_pages": 2,
        }
        second = (await http.get("/agents/conversations?page=2&per_page=2")).body
        assert ([row["id"] for row in second["records"]], second["prev_page"], second["next_page"]) == (
            [ids[0]],
            1,
            None,
        )
        assert (await http.get("/agents/conversations?page=9")).body["prev_page"] == 2


async def test_fields_that_do_not_apply_may_be_left_out() -> None:
    nullable = {"iterations_used", "usage", "final_text", "error", "completed_at"}
    async with served(absent="omit") as http:
        started = await http.start(await http.create(), say())
        assert not nullable & set(started.body)
    async with served(absent="random", seed=1) as http:
        conversation = await http.create()
        seen = {name for _ in range(20) for name in nullable & set((await http.start(conversation, say())).body)}
        assert seen == nullable


async def test_timestamps_and_log_ids_come_in_both_spellings() -> None:
    async with served() as http:
        row = (await http.get(f"/agents/conversations/{await http.create()}")).body
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", row["created_at"])
    async with served(fractional_seconds=False, log_id_field="logId") as http:
        row = (await http.get(f"/agents/conversations/{await http.create()}")).body
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["created_at"])
        answer = await http.get(f"/agents/runs/{uuid.uuid4()}")
        assert uuid.UUID(answer.body["logId"]).version == 4
        assert "log_id" not in answer.body


async def test_a_seed_makes_the_same_ids_again() -> None:
    made = []
    for _ in range(2):
        async with served(seed=7) as http:
            run = await http.play(await http.create(client_tools=USER_TOOLS), say())
            made.append((run["id"], run["pending_tool_calls"], run["submitted_inference_job_ids"]))
    assert made[0] == made[1]
