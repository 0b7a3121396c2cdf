"""OpenAI's Responses: what is sent, what comes of each answer, and whole stories on the emulator."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentruns import (
    Action,
    ActionRequiredError,
    Client,
    ConfigurationError,
    InvalidRequestError,
    ProtocolError,
    QuotaError,
    Retry,
    Run,
    RunFailedError,
    RunRef,
    RunStatus,
    ToolOutput,
    Tools,
    connect,
)
from agentruns import openai_responses as oar
from agentruns.cli import commands
from agentruns.dialects import Header
from agentruns.emulator import Call, Emulator, Fault, OpenAIResponses, Turn
from agentruns.testing import Answer, exchange
from agentruns.testing.case import QUICK

ASK: Mapping[str, Any] = {"type": "function", "name": "ask", "parameters": {"type": "object"}, "strict": False}
ORIGIN = oar.ResponseRequest("gpt-5.2", "Sort the post.", tools=(ASK,), instructions="Be brief.")


def body(status: str = "completed", *output: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": status, "output": list(output), "model": "gpt-5.2", **more}


def said(*texts: str, kind: str = "output_text") -> dict[str, Any]:
    name = "text" if kind == "output_text" else "refusal"
    return {"type": "message", "role": "assistant", "content": [{"type": kind, name: text} for text in texts]}


def call(name: str = "ask", arguments: str = '{"question": "Which?"}', call_id: str = "call_1") -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": call_id, "name": name, "arguments": arguments}


CUSTOM = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "sql", "input": "SELECT 1"}
APPROVAL = {
    "type": "mcp_approval_request",
    "id": "mcpr_1",
    "name": "delete_file",
    "server_label": "files",
    "arguments": '{"path": "a.txt"}',
}
CLICK = {"type": "computer_call", "id": "cu_1", "call_id": "call_3", "action": {"type": "click"}, "status": "completed"}


def read(*output: Mapping[str, Any], status: str = "completed", **more: Any) -> Run[oar.ResponseDetail]:
    return exchange(oar.fetch(RunRef("resp_1"), {}), Answer(body(status, *output, **more))).result


def sent(run: Run[oar.ResponseDetail], *outputs: ToolOutput, origin: oar.ResponseRequest = ORIGIN) -> Mapping[str, Any]:
    """Return the body that answers a pause."""
    done = exchange(oar.resume(run, outputs, origin=origin), Answer(body("queued", id="resp_2")))
    (request,) = done.requests
    assert not request.idempotent
    return request.json  # type: ignore[no-any-return]


def given(run: Run[oar.ResponseDetail], output: Any, *, is_error: bool = False) -> Any:
    """Return the one item that answers the one action of a pause."""
    (item,) = sent(run, ToolOutput(run.actions[0], output, is_error))["input"]
    return item


# What starts a response -----------------------------------------------------------------------------------------------


def test_a_start_is_posted_once_in_the_background_and_stored() -> None:
    origin = oar.ResponseRequest(
        "gpt-5.2",
        [{"role": "user", "content": "Hello."}],
        tools=[ASK],
        previous_response_id="resp_0",
        metadata={"team": "post"},
        extra={"reasoning": {"effort": "low"}},
    )
    done = exchange(oar.start(origin), Answer(body("queued")))

    (request,) = done.requests
    assert request.line == "POST /responses"
    assert not request.idempotent
    assert request.json == {
        "model": "gpt-5.2",
        "input": [{"role": "user", "content": "Hello."}],
        "tools": [ASK],
        "previous_response_id": "resp_0",
        "metadata": {"team": "post"},
        "reasoning": {"effort": "low"},
        "background": True,
        "store": True,
    }
    assert done.result.status is RunStatus.PENDING


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": ""}, "ResponseRequest.model is ''"),
        ({"input": 3}, "ResponseRequest.input is 3; it must be a text, or a list of items"),
        ({"input": ["Hello."]}, "must be a text, or a list of items"),
        ({"tools": ASK}, "it must be a list of tools: `openai_responses.function_tools"),
        ({"metadata": {"a": 1}}, "ResponseRequest.metadata is {'a': 1}; its names and values must be texts"),
        ({"instructions": 3}, "ResponseRequest.instructions is 3; it must be a text, or None"),
        ({"extra": {"stream": True}}, "ResponseRequest.extra has stream; a field of ResponseRequest says that"),
        ({"extra": {"conversation": "c", "store": False}}, "extra has store"),
        ({"extra": {"conversation": "c"}, "previous_response_id": "r"}, "the vendor takes one of them"),
    ],
)
def test_a_request_that_the_vendor_could_not_take_is_refused_where_it_is_made(
    fields: Mapping[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told.replace("(", r"\(")):
        oar.ResponseRequest(**{"model": "m", "input": "Hello.", **fields})


def test_handlers_are_declared_as_function_tools() -> None:
    def ask(question: str) -> str:
        """Ask the user."""
        return question

    (tool,) = oar.function_tools({"ask": ask})
    assert {name: tool[name] for name in ("type", "name", "description", "strict")} == {
        "type": "function",
        "name": "ask",
        "description": "Ask the user.",
        "strict": False,
    }
    assert tool["parameters"]["required"] == ["question"]
    with pytest.raises(ConfigurationError, match="only a default handler"):
        oar.function_tools(lambda action: "yes")


# States ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "status"), [*oar.STATUS.items(), ("dreaming", RunStatus.RUNNING)])
def test_each_word_has_its_status(word: str, status: RunStatus) -> None:
    run = read(status=word)
    assert (run.status, run.vendor_status) == (status, word)


@pytest.mark.parametrize(
    ("item", "action"),
    [
        (call(), Action("call_1", "ask", {"question": "Which?"})),
        (call(arguments=""), Action("call_1", "ask", {})),
        (call(arguments='{"question": '), Action("call_1", "ask", {"arguments": '{"question": '})),
        (call(arguments="[1]"), Action("call_1", "ask", {"arguments": "[1]"})),
        (call(arguments=r'{"question": "half \ud83d"}'), Action("call_1", "ask", {"question": "half \ufffd"})),
        (CUSTOM, Action("call_2", "sql", {"input": "SELECT 1"})),
        (
            APPROVAL,
            Action(
                "mcpr_1",
                "mcp_approval_request",
                {"server_label": "files", "name": "delete_file", "arguments": {"path": "a.txt"}},
            ),
        ),
        (CLICK, Action("call_3", "computer_call", {"action": {"type": "click"}})),
    ],
)
def test_a_call_is_an_action_of_a_completed_response(item: Mapping[str, Any], action: Action) -> None:
    run = read(said("One moment."), item)
    assert (run.status, run.vendor_status, run.output) == (RunStatus.REQUIRES_ACTION, "completed", None)
    assert run.actions == (action,)
    assert read(item, status="in_progress").actions == ()
    assert read(item, status="incomplete").status is RunStatus.FAILED


def test_what_the_vendor_has_done_itself_waits_for_nobody() -> None:
    outputs = [
        call(),
        {"type": "function_call_output", "call_id": "call_1", "output": "This."},
        APPROVAL,
        {"type": "mcp_approval_response", "id": "mcpr_2", "approval_request_id": "mcpr_1", "approve": True},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "vendor:function_call", "id": "x_1", "name": "look"},
    ]
    assert read(*outputs, said("Done.")).output == "Done."


def test_two_calls_under_one_id_and_a_call_without_a_name_are_no_pause() -> None:
    with pytest.raises(ProtocolError, match="two things under one id: 'call_1'"):
        read(call(), call("other"))
    with pytest.raises(ProtocolError, match=r"\$\.output\[1\]"):
        read(said("One moment."), {"type": "function_call", "call_id": "call_1"})


@pytest.mark.parametrize(
    ("output", "more", "expected"),
    [
        ([said("Hello, ", "you.")], {}, "Hello, you."),
        ([{"type": "reasoning", "summary": []}], {}, None),
        ([said("No.", kind="refusal")], {}, None),
        ([said('{"a": 1}')], {}, '{"a": 1}'),
        ([said('{"a": 1}')], {"text": {"format": {"type": "json_schema"}}}, {"a": 1}),
        ([said(r'["cut \ud83d"]')], {"text": {"format": {"type": "json_object"}}}, ["cut \ufffd"]),
        ([said('{"a": ')], {"text": {"format": {"type": "json_object"}}}, '{"a": '),
    ],
)
def test_the_output_is_the_text_or_the_json_that_was_asked_for(
    output: Sequence[Mapping[str, Any]], more: Mapping[str, Any], expected: Any
) -> None:
    assert read(*output, **more).output == expected


@pytest.mark.parametrize("odd", [[], {}, 7, None])
def test_a_type_that_is_no_text_asks_for_nothing_and_is_no_format(odd: Any) -> None:
    run = read({**CLICK, "type": odd}, said("Hello."), text={"format": {"type": odd}})

    assert (run.status, run.output) == (RunStatus.COMPLETED, "Hello.")


@pytest.mark.parametrize("odd", [1e300, -1e300, 2**70, 1e15])
def test_a_time_that_no_calendar_has_is_none(odd: float) -> None:
    assert oar.times(read(said("Hello."), created_at=odd, completed_at=odd)) == (None, None)


@pytest.mark.parametrize(
    ("run", "kind", "message"),
    [
        (read(status="failed", error={"code": "server_error", "message": "Sorry."}), "server_error", "Sorry."),
        (read(status="failed", error=None), "failed", ""),
        (read(status="incomplete", incomplete_details={"reason": "content_filter"}), "incomplete", "content_filter"),
        (read(status="cancelled"), "cancelled", ""),
    ],
)
def test_a_failure_says_why(run: Run, kind: str, message: str) -> None:
    assert run.failure is not None
    assert (run.failure.type, run.failure.message) == (kind, message)


def test_what_was_written_of_an_incomplete_response_is_its_output() -> None:
    run = read(said("It was a dark"), status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    assert (run.status, run.output) == (RunStatus.FAILED, "It was a dark")


def test_a_detail_has_the_documented_fields_and_the_words_of_a_refusal() -> None:
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5, "input_tokens_details": {"cached_tokens": 1}}
    run = read(said("No.", kind="refusal"), created_at=1.0, completed_at=3.0, usage=usage, unknown=1)

    assert run.detail.refusal == "No."
    assert run.detail.usage is not None
    assert run.detail.usage.input_tokens_details == oar.TokenDetails(cached_tokens=1)
    assert (run.usage and run.usage.input_tokens, run.progress and run.progress.done) == (3, 1)
    assert oar.times(run) == (datetime.fromtimestamp(1, UTC), datetime.fromtimestamp(3, UTC))
    assert oar.timing_group(run) == "gpt-5.2"


# Answers --------------------------------------------------------------------------------------------------------------


def test_an_answer_repeats_model_tools_and_settings_and_goes_on_from_the_response() -> None:
    origin = oar.ResponseRequest(
        "gpt-5.2", "Hi.", tools=[ASK], instructions="Be brief.", metadata={"a": "b"}, extra={"temperature": 0.2},
        previous_response_id="resp_0",
    )  # fmt: skip
    run = read(call())

    assert sent(run, ToolOutput(run.actions[0], "This."), origin=origin) == {
        "model": "gpt-5.2",
        "instructions": "Be brief.",
        "metadata": {"a": "b"},
        "tools": [ASK],
        "temperature": 0.2,
        "background": True,
        "store": True,
        "previous_response_id": "resp_1",
        "input": [{"type": "function_call_output", "call_id": "call_1", "output": "This."}],
    }


@pytest.mark.parametrize(
    ("choice", "repeated"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "auto"),
        ({"type": "function", "name": "ask"}, "auto"),
        (
            {"type": "allowed_tools", "mode": "required", "tools": []},
            {"type": "allowed_tools", "mode": "auto", "tools": []},
        ),
    ],
)
def test_a_choice_of_tools_that_forces_a_call_is_not_forced_again(choice: Any, repeated: Any) -> None:
    run = read(call())
    origin = oar.ResponseRequest("m", "Hi.", extra={"tool_choice": choice})
    assert sent(run, ToolOutput(run.actions[0], "x"), origin=origin)["tool_choice"] == repeated


def test_in_a_conversation_of_the_vendor_an_answer_names_that_and_no_response() -> None:
    run = read(call())
    body = sent(run, ToolOutput(run.actions[0], "x"), origin=oar.ResponseRequest("m", "", extra={"conversation": "c"}))
    assert body["conversation"] == "c"
    assert "previous_response_id" not in body


@pytest.mark.parametrize(
    ("output", "is_error", "told"),
    [
        ("This.", False, "This."),
        ({"a": [1, None]}, False, '{"a":[1,null]}'),
        ([], False, "[]"),
        ([{"type": "input_image", "image_url": "https://x.test/a.png"}], False, ...),
        ("There is none.", True, '{"error":"There is none."}'),
    ],
)
def test_a_function_is_answered_by_a_text_or_by_content(output: Any, is_error: bool, told: Any) -> None:
    item = given(read(call()), output, is_error=is_error)
    assert item == {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": output if told is ... else told,
    }


def test_each_kind_of_call_has_its_kind_of_answer() -> None:
    assert given(read(CUSTOM), "1") == {"type": "custom_tool_call_output", "call_id": "call_2", "output": "1"}
    shown = {"output": {"type": "computer_screenshot", "image_url": "https://x.test/a.png"}}
    assert given(read(CLICK), shown) == {"type": "computer_call_output", "call_id": "call_3", **shown}
    local = {"type": "local_shell_call", "id": "lsh_1", "call_id": "call_4", "action": {"command": ["ls"]}}
    assert given(read(local), {"output": "a.txt"}) == {
        "type": "local_shell_call_output",
        "id": "call_4",
        "output": "a.txt",
    }
    with pytest.raises(ConfigurationError, match="must be an object: the fields of an item of the type computer_call_"):
        given(read(CLICK), "clicked")


@pytest.mark.parametrize(
    ("output", "is_error", "verdict"),
    [
        (True, False, {"approve": True}),
        (False, False, {"approve": False}),
        ({"approve": False, "reason": "It is mine."}, False, {"approve": False, "reason": "It is mine."}),
        ({"approve": True, "reason": None}, False, {"approve": True}),
        ("Nobody may.", True, {"approve": False, "reason": "Nobody may."}),
        ({"why": 1}, True, {"approve": False, "reason": '{"why":1}'}),
    ],
)
def test_an_approval_is_given_or_refused_with_a_reason(output: Any, is_error: bool, verdict: Mapping[str, Any]) -> None:
    item = given(read(APPROVAL), output, is_error=is_error)
    assert item == {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", **verdict}


@pytest.mark.parametrize("output", ["yes", None, 1, {"approve": "yes"}, {}])
def test_what_neither_approves_nor_refuses_is_not_sent(output: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"answer to an approval of delete_file is .* must be True, False, or"):
        given(read(APPROVAL), output)


def test_all_calls_are_answered_together_or_none() -> None:
    run = read(call(), CUSTOM)
    with pytest.raises(ConfigurationError, match=r"waits for 2 outputs.*there is none for sql"):
        sent(run, ToolOutput(run.actions[0], "x"))
    both = sent(run, *(ToolOutput(each, "x") for each in run.actions))["input"]
    assert [item["type"] for item in both] == ["function_call_output", "custom_tool_call_output"]


def test_a_handler_of_a_tool_is_not_taken_for_one_that_approves_its_calls() -> None:
    (asked,) = read(APPROVAL).actions
    assert oar.handler_names(asked) == ("approve_delete_file", "mcp_approval_request")
    assert oar.handler_names(Action("call_1", "ask")) == ("ask",)


# Shown to people ------------------------------------------------------------------------------------------------------


def test_an_approval_is_shown_as_a_choice_and_its_answers_can_be_sent() -> None:
    run = read(APPROVAL)
    question = oar.show_question(run.actions[0])

    assert question.title == "May files call delete_file?"
    assert [(fact.name, fact.value) for fact in question.facts] == [("path", "a.txt")]
    approve, refuse = question.choices
    assert given(run, approve.give(None).output)["approve"] is True
    assert given(run, refuse.give("It is mine.").output)["reason"] == "It is mine."
    assert given(run, refuse.give("").output)["approve"] is False


def test_a_response_shows_its_items_and_its_tools() -> None:
    run = read(
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Let me see."}]},
        {"type": "web_search_call", "id": "ws_1", "action": {"query": "post"}},
        said("Done."),
        tools=[ASK, {"type": "web_search"}],
    )
    steps = oar.show_steps(run)

    assert [(each.name, each.text, each.kind) for each in steps] == [
        ("reasoning", "Let me see.", "reasoning"),
        ("web search call", "", "web_search_call"),
        ("assistant", "Done.", "message"),
    ]
    assert [fact.name for fact in steps[1].facts] == ["action"]
    assert list(exchange(oar.read_tools(run)).result) == ["ask"]


# Whole stories --------------------------------------------------------------------------------------------------------


def open_client(emulator: Emulator[OpenAIResponses], **options: Any) -> Client[oar.ResponseRequest, oar.ResponseDetail]:
    options = {"token": emulator.token, "retry": Retry(attempts=1), **options}
    return connect(oar, base_url=emulator.base_url, schedule=QUICK, **options)


TOOLS: Sequence[Mapping[str, Any]] = (
    ASK,
    {"type": "custom", "name": "sql"},
    {"type": "mcp", "server_label": "files", "allowed_tools": ["delete_file"], "require_approval": "always"},
)
ALL_KINDS = [
    Turn(calls=[Call("ask", {"question": "Which?"}), Call("sql", {"input": "SELECT 1"})], running=0.01),
    Turn(calls=[Call("delete_file", {"path": "a.txt"})], running=0.01),
    Turn("Done.", running=0.01),
]


@pytest.mark.asyncio
async def test_functions_custom_tools_and_approvals_are_answered_by_the_same_tools() -> None:
    tools = Tools()
    called: list[Any] = []

    @tools.add
    async def ask(question: str) -> Mapping[str, str]:
        called.append(question)
        return {"chosen": "this"}

    @tools.add
    def sql(input: str) -> str:  # noqa: A002 - as the vendor calls it
        called.append(input)
        return "1"

    @tools.add
    def approve_delete_file(server_label: str, name: str, arguments: Mapping[str, Any]) -> bool:
        called.append((server_label, name, arguments))
        return False

    async with Emulator("openai_responses", script=ALL_KINDS) as emulator, open_client(emulator) as client:
        run = await client.result(oar.ResponseRequest("gpt-5.2", "Tidy up.", tools=TOOLS), tools=tools)

        assert run.output == "Done."
        assert sorted(map(str, called)) == sorted(["Which?", "SELECT 1", "('files', 'delete_file', {'path': 'a.txt'})"])
        posts = [json.loads(json.dumps(each.body)) for each in emulator.requests("POST", "/v1/responses")]
        assert [post["tools"] for post in posts] == [list(TOOLS)] * 3
        assert posts[2]["input"] == [
            {"type": "mcp_approval_response", "approval_request_id": posts[2]["input"][0]["approval_request_id"],
             "approve": False}
        ]  # fmt: skip


@pytest.mark.asyncio
async def test_a_conversation_goes_on_from_the_response_before() -> None:
    async with Emulator("openai_responses") as emulator, open_client(emulator) as client:
        first = await client.result(oar.ResponseRequest("gpt-5.2", "Hello."))
        then = await client.result(oar.ResponseRequest("gpt-5.2", "And now?", previous_response_id=first.id))

        assert then.detail.previous_response_id == first.id
        with pytest.raises(InvalidRequestError, match="previous_response_not_found; param previous_response_id"):
            await client.start(oar.ResponseRequest("gpt-5.2", "Hm?", previous_response_id="resp_x"))


@pytest.mark.asyncio
async def test_azure_takes_its_key_in_a_header_of_its_own() -> None:
    async with (
        Emulator("openai_responses") as emulator,
        open_client(emulator, auth=Header("api-key"), params={"api-version": "preview"}) as client,
    ):
        await client.result(oar.ResponseRequest("gpt-5.2", "Hello."))

        sent = emulator.requests()
        assert all(each.query == {"api-version": "preview"} for each in sent)
        assert not any("Authorization" in each.headers for each in sent)


@pytest.mark.asyncio
async def test_a_hint_in_milliseconds_says_when_to_read_again() -> None:
    script = [Turn("Done.", running=30)]
    async with (
        Emulator("openai_responses", script=script, poll_after_ms=1500) as emulator,
        open_client(emulator) as client,
    ):
        assert (await client.start(oar.ResponseRequest("gpt-5.2", "Hello."))).poll_after == 1.5


@pytest.mark.asyncio
async def test_an_account_without_credits_is_told_at_once_and_not_waited_for() -> None:
    error = {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": "insufficient_quota"}
    async with Emulator("openai_responses") as emulator, open_client(emulator, retry=Retry(attempts=4)) as client:
        emulator.fail(Fault.answer(429, content=json.dumps({"error": error}).encode()))
        with pytest.raises(QuotaError, match="You exceeded your current quota"):
            await client.start(ORIGIN)
        assert len(emulator.requests()) == 1


@pytest.mark.asyncio
async def test_a_response_that_is_over_is_cancelled_no_more_and_one_that_runs_is() -> None:
    async with (
        Emulator("openai_responses", script=[Turn("Done.", running=30)]) as emulator,
        open_client(emulator) as client,
    ):
        run = await client.start(oar.ResponseRequest("gpt-5.2", "Hello."))
        cancelled = await client.cancel(run)
        assert cancelled is not None
        assert cancelled.vendor_status == "cancelled"
        assert await client.cancel(run) == cancelled
        with pytest.raises(RunFailedError, match="cancelled"):
            await client.result(run)

        await client.perform(oar.delete_response(run.id))
        assert len(emulator.requests("DELETE")) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("key", [None, "k"])
async def test_answers_that_were_clearly_refused_are_given_again_and_their_handlers_are_not(
    key: str | None, tmp_path: Path
) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "this"

    script = [Turn(calls=[Call("ask", {"question": "Which?"})], running=0.01), Turn("Done.", running=0.01)]
    journal = None if key is None else tmp_path / "journal"
    async with (
        Emulator("openai_responses", script=script) as emulator,
        open_client(emulator, journal=journal) as client,
    ):
        emulator.fail(Fault.answer(429, method="POST", after=1))
        stream = client.stream(ORIGIN, tools={"ask": ask}, key=key)
        with pytest.raises(Exception, match="429"):
            await stream.result()
        assert (await stream.result()).output == "Done."

        assert asked == ["Which?"]
        assert emulator.state.runs_started == 2


@pytest.mark.asyncio
async def test_a_pause_that_nobody_answers_says_what_it_waits_for() -> None:
    script = [Turn(calls=[Call("ask", {"question": "Which?"})], running=0.01)]
    async with Emulator("openai_responses", script=script) as emulator, open_client(emulator) as client:
        with pytest.raises(ActionRequiredError, match="ask"):
            await client.result(ORIGIN)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator[OpenAIResponses]]:
    monkeypatch.chdir(tmp_path)
    with Emulator("openai_responses") as emulator:
        monkeypatch.setenv("OPENAI_API_KEY", emulator.token)
        monkeypatch.setenv("OPENAI_BASE_URL", emulator.base_url)
        yield emulator


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Hello.", "Hello."),
        ('[{"role": "user", "content": "Hello."}]', [{"role": "user", "content": "Hello."}]),
        ("[urgent] Hello.", "[urgent] Hello."),
        ("7", "7"),
    ],
)
def test_an_input_is_a_text_or_a_list_of_json_on_the_command_line_and_in_a_row(
    served: Emulator[OpenAIResponses], given: str, expected: Any
) -> None:
    assert commands.main(["run", "openai_responses", "--model", "gpt-5.2", "--input", given]) == 0
    with Path("in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["input"], [given]])
    words = ["batch", "openai_responses", "in.csv", "-o", "out.jsonl", "--model", "gpt-5.2", "--no-journal", "-q"]
    assert commands.main(words) == 0
    assert commands.main([*words, "-o", "other.jsonl", "--input", "About {input}"]) == 0
    sent = [each.body for each in served.requests("POST")]
    assert [each["input"] for each in sent if isinstance(each, dict)] == [expected, expected, f"About {given}"]
