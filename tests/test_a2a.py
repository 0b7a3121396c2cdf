"""A2A: what is sent, what comes of each answer, and whole stories on the emulator, in both bindings."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from agentruns import (
    Action,
    AlreadyAnsweredError,
    AuthenticationError,
    Client,
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    ProtocolError,
    Retry,
    Run,
    RunFailedError,
    RunRef,
    RunStatus,
    ToolOutput,
    TransportError,
    a2a,
    connect,
)
from agentruns.dialects import Basic, Bearer, Header, Query, ServerEvent
from agentruns.emulator import A2A, Call, Emulator, Fault, Turn
from agentruns.testing import Answer, exchange
from agentruns.testing.case import QUICK

REF = RunRef("t1", "c1")
QUESTION: Mapping[str, Any] = {"messageId": "q1", "role": "ROLE_AGENT", "parts": [{"text": "Which?"}]}


def task(state: str = "COMPLETED", *, said: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    status = {"state": f"TASK_STATE_{state}", **({"message": said} if said else {})}
    return {"id": "t1", "contextId": "c1", "status": status, **more}


def artifact(*parts: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"artifactId": "a1", "parts": list(parts)}


def read(state: str = "COMPLETED", **more: Any) -> Run[a2a.Task]:
    return exchange(a2a.fetch(REF, {}), Answer(task(state, **more))).result


def mine(message: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"messageId": message["messageId"], "role": "ROLE_USER", "parts": message["parts"]}


# What is sent, and what comes of it -----------------------------------------------------------------------------------


def test_a_start_is_one_message_that_is_sent_once() -> None:
    done = exchange(a2a.start(a2a.Send("Sort the post.", message_id="m1")), Answer({"task": task("SUBMITTED")}))
    (request,) = done.requests

    assert request.line == "POST /message:send"
    assert request.headers["Content-Type"] == "application/a2a+json"
    assert not request.idempotent
    assert request.json == {
        "message": {
            "messageId": "m1",
            "contextId": a2a.Send("Anything.", message_id="m1").context,
            "role": "ROLE_USER",
            "parts": [{"text": "Sort the post."}],
        },
        "configuration": {"returnImmediately": True},
    }
    assert (done.result.ref, done.result.status) == (REF, RunStatus.PENDING)


@pytest.mark.parametrize(
    ("parts", "sent"),
    [
        ("Hello.", [{"text": "Hello."}]),
        (["Hello.", a2a.Part(url="https://a.example/b.pdf")], [{"text": "Hello."}, {"url": "https://a.example/b.pdf"}]),
        ({"data": {"a": 1}, "mediaType": "application/json"}, [{"data": {"a": 1}, "mediaType": "application/json"}]),
        (a2a.Part(raw="AAA=", media_type="image/png"), [{"raw": "AAA=", "mediaType": "image/png"}]),
    ],
)
def test_parts_are_texts_and_parts_of_every_kind(parts: Any, sent: Any) -> None:
    (request,) = exchange(a2a.start(a2a.Send(parts, context_id="c1")), Answer({"task": task("SUBMITTED")})).requests
    assert request.json["message"]["parts"] == sent
    assert request.json["message"]["contextId"] == "c1"


@pytest.mark.parametrize("parts", ["", [], 5, [""], [{"text": "a", "url": "b"}], [{"name": "a"}]])
def test_what_is_no_content_is_refused_where_it_is_made(parts: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Send\.parts"):
        a2a.Send(parts)


@pytest.mark.parametrize(("word", "status"), a2a.STATUS.items())
def test_each_state_has_its_status(word: str, status: RunStatus) -> None:
    run = read(word.removeprefix("TASK_STATE_"))
    assert (run.vendor_status, run.status, len(run.actions)) == (word, status, status is RunStatus.REQUIRES_ACTION)


def test_a_state_that_no_page_knows_is_in_flight() -> None:
    assert read("PONDERING").status is RunStatus.RUNNING


@pytest.mark.parametrize(
    ("artifacts", "output"),
    [
        ([artifact({"text": "a"}, {"text": "b"}), artifact({"text": "c"})], "ab\nc"),
        ([artifact({"text": "a"}, {}, {"text": None}), artifact({"filename": ""})], "a\n"),
        ([artifact({"data": {"a": None}})], {"a": None}),
        ([artifact({"data": False})], False),
        ([artifact({"url": "https://a.example/b"})], [{"url": "https://a.example/b"}]),
        ([artifact({"raw": "AAA=", "filename": ""})], [{"raw": "AAA="}]),
        ([artifact({"text": "see"}), artifact({"data": 1})], [{"text": "see"}, {"data": 1}]),
        ([], None),
    ],
)
def test_artifacts_of_every_kind_are_the_output(artifacts: Any, output: Any) -> None:
    assert read(artifacts=artifacts).output == output


def test_a_task_without_artifacts_says_what_its_agent_says_last() -> None:
    said = {"messageId": "m2", "role": "ROLE_AGENT", "parts": [{"text": "Sorted."}]}
    assert read(said=said).output == "Sorted."
    failure = read("REJECTED", said=said).failure
    assert failure is not None
    assert (failure.type, failure.message) == ("TASK_STATE_REJECTED", "Sorted.")


def test_a_question_is_an_action_and_a_login_may_end_by_itself() -> None:
    more = [*QUESTION["parts"], {"data": {"form": 1}}]
    asks = read("INPUT_REQUIRED", said={**QUESTION, "parts": more})
    assert asks.actions == (Action("q1", "input_required", {"text": "Which?", "parts": [{"data": {"form": 1}}]}),)
    assert asks.poll_after is None

    login = read("AUTH_REQUIRED", said=QUESTION)
    assert [action.name for action in login.actions] == ["auth_required"]
    assert login.poll_after is not None


def test_a_plain_message_is_a_run_that_is_over() -> None:
    message = {"messageId": "m2", "contextId": "c1", "role": "ROLE_AGENT", "parts": [{"text": "Hi"}, {"text": "you"}]}
    run = exchange(a2a.start(a2a.Send("Hello.")), Answer({"message": message})).result
    assert (run.ref, run.status, run.vendor_status, run.output) == (
        RunRef("m2", "c1"),
        RunStatus.COMPLETED,
        "message",
        "Hi\nyou",
    )
    assert run.detail.status.message is not None
    assert run.detail.status.message.text == "Hi\nyou"


@pytest.mark.parametrize(
    ("output", "parts"),
    [
        ("This.", [{"text": "This."}]),
        ({"chosen": 1}, [{"data": {"chosen": 1}}]),
        ({"url": "https://a.example"}, [{"url": "https://a.example"}]),
        (a2a.Part(raw="AAA=", media_type="image/png"), [{"raw": "AAA=", "mediaType": "image/png"}]),
        (attrs.asdict(a2a.Part(data=1, media_type="a/b")), [{"data": 1, "mediaType": "a/b"}]),
        ([{"text": "a"}, {"data": 1}], [{"text": "a"}, {"data": 1}]),
        ([1, 2], [{"data": [1, 2]}]),
        ("", [{"data": ""}]),
        (None, [{"data": None}]),
    ],
)
def test_an_answer_is_text_parts_or_data(output: Any, parts: Any) -> None:
    run = read("INPUT_REQUIRED", said=QUESTION)
    flow = a2a.resume(run, [ToolOutput(run.actions[0], output)])
    (request,) = exchange(flow, Answer({"task": task("WORKING")})).requests
    assert request.json["message"]["parts"] == parts
    assert (request.json["message"]["taskId"], request.json["message"]["contextId"]) == ("t1", "c1")


def test_the_same_answer_has_the_same_id_and_another_one_another() -> None:
    run = read("INPUT_REQUIRED", said=QUESTION)
    sent = [
        exchange(a2a.resume(run, [ToolOutput(run.actions[0], text)]), Answer({"task": task("WORKING")})).requests
        for text in ("This.", "This.", "That.")
    ]
    ids = [request.json["message"]["messageId"] for (request,) in sent]
    assert ids[0] == ids[1] != ids[2]


def test_times_and_detail_are_the_documented_fields() -> None:
    run = read(artifacts=[artifact({"text": "a"}, {"text": "b"})], history=[QUESTION], metadata={"a": 1})
    assert run.detail.artifacts[0].text == "ab"
    assert run.detail.history[0].text == "Which?"
    done = {**task(), "status": {"state": "TASK_STATE_COMPLETED", "timestamp": "2026-11-01T10:00:00.5Z"}}
    ended = a2a.times(exchange(a2a.fetch(REF, {}), Answer(done)).result)
    assert ended == (None, datetime(2026, 11, 1, 10, 0, 0, 500_000, tzinfo=UTC))


# What is odd ----------------------------------------------------------------------------------------------------------


def full(state: str) -> dict[str, Any]:
    """Return a task that has every field."""
    parts = [{"text": "t", "mediaType": "text/plain"}, {"url": "https://a.example", "filename": "f"}]
    said = {"messageId": "q1", "contextId": "c1", "taskId": "t1", "role": "ROLE_AGENT", "parts": parts}
    result = {"artifactId": "a", "name": "n", "description": "d", "parts": parts, "extensions": ["x"]}
    whole = task(state, said=said, artifacts=[result], history=[said], metadata={"a": 1})
    whole["status"]["timestamp"] = "2026-11-01T10:00:00Z"
    return whole


def odd(value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield where a value is odd, and the value with something odd there, or nothing."""
    for wrong in (None, 5, [None], {"a": 1}):
        yield (), wrong
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in list(steps):
        for path, changed in odd(inner):
            yield (step, *path), ({**value, step: changed} if isinstance(value, dict) else _with(value, step, changed))
        if isinstance(value, dict):
            yield (step,), {name: each for name, each in value.items() if name != step}


def _with(values: list[Any], place: int, value: Any) -> list[Any]:
    return [*values[:place], value, *values[place + 1 :]]


NEEDED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "WORKING": (),
    "COMPLETED": (("artifacts",), ("status", "message")),
    "FAILED": (("status", "message"),),
    "INPUT_REQUIRED": (("status", "message"), ("status", "timestamp")),
}


@pytest.mark.parametrize("state", NEEDED)
def test_a_state_takes_what_it_needs_and_no_more_and_what_does_not_fit_is_an_error_of_ours(state: str) -> None:
    good = exchange(a2a.fetch(REF, {}), Answer(full(state))).result
    needed = (("id",), ("contextId",), ("status",), ("status", "state"), *NEEDED[state])
    for path, changed in odd(full(state)):
        a2a.event_of(REF, event(task=changed))
        told = a2a.TaskEvent.of({"task": changed})
        assert (told.appends, told.is_last, told.artifact) == (False, False, None)
        matters = path == () or any(path[: len(each)] == each for each in needed)
        try:
            run = exchange(a2a.fetch(REF, {}), Answer(changed)).result
        except ProtocolError:
            assert matters, path
            continue
        assert run == good or matters, path
        assert len(a2a.show_steps(run)) <= 1
        assert len(a2a.show_artifacts(run)) <= 1
        assert all(a2a.show_question(action).title for action in run.actions)
        with suppress(ProtocolError):
            assert run.detail.id == run.id
        with suppress(ProtocolError):
            a2a.times(run)


def test_an_odd_event_or_card_raises_no_other_error_than_ours() -> None:
    status = {"taskId": "t1", "contextId": "c1", "status": {"state": "TASK_STATE_WORKING"}}
    for told in ({"statusUpdate": status}, {"artifactUpdate": {**status, "artifact": artifact({"text": "a"})}}):
        for _, changed in odd(told):
            a2a.event_of(REF, event(**changed) if isinstance(changed, dict) else ServerEvent("message", changed, ""))
            with suppress(ProtocolError):
                a2a.verify_push(json.dumps(changed).encode(), "secret", "secret")
    whole = card(
        offered("JSONRPC", tenant="t"), securitySchemes=SCHEMES, securityRequirements=[{"schemes": {"basic": {}}}]
    )
    for _, changed in odd(whole):
        with suppress(ProtocolError, ConfigurationError):
            exchange(a2a.locate(), Answer(changed))


# The card -------------------------------------------------------------------------------------------------------------


def card(*interfaces: Mapping[str, Any], **more: Any) -> Mapping[str, Any]:
    return {"name": "Agent", "supportedInterfaces": list(interfaces), **more}


def offered(binding: str, version: str = "1.0", **more: Any) -> Mapping[str, Any]:
    return {"url": "https://a.example/a2a/", "protocolBinding": binding, "protocolVersion": version, **more}


def test_http_is_preferred_and_the_tenant_is_part_of_its_url() -> None:
    place = exchange(a2a.locate(), Answer(card(offered("JSONRPC"), offered("HTTP+JSON", tenant="t/1")))).result
    assert (place.base_url, place.form) == ("https://a.example/a2a/t%2F1", None)


def test_json_rpc_is_spoken_where_there_is_nothing_else() -> None:
    interfaces = offered("GRPC"), offered("HTTP+JSON", "0.3"), offered("JSONRPC", tenant="t1")
    place = exchange(a2a.locate(), Answer(card(*interfaces))).result
    assert place.base_url == "https://a.example"
    assert place.form is not None
    (request,) = exchange(a2a.fetch(REF, {"historyLength": "2"}), Answer(task())).requests
    called = place.form(request)
    assert called.line == "POST /a2a/"
    assert called.json == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "GetTask",
        "params": {"historyLength": 2, "id": "t1", "tenant": "t1"},
    }


def test_an_agent_of_another_protocol_says_what_it_offers() -> None:
    with pytest.raises(ConfigurationError, match=r"offers HTTP\+JSON 0\.3; spoken is A2A 1\.0"):
        exchange(a2a.locate(), Answer(card(offered("HTTP+JSON", "0.3"))))


SCHEMES = {
    "bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer"}},
    "basic": {"httpAuthSecurityScheme": {"scheme": "basic"}},
    "header": {"apiKeySecurityScheme": {"location": "header", "name": "X-Key"}},
    "query": {"apiKeySecurityScheme": {"location": "query", "name": "key"}},
    "cookie": {"apiKeySecurityScheme": {"location": "cookie", "name": "key"}},
    "oauth": {"oauth2SecurityScheme": {"flows": {}}},
    "openid": {"openIdConnectSecurityScheme": {"openIdConnectUrl": "https://a.example"}},
    "mtls": {"mtlsSecurityScheme": {}},
}


@pytest.mark.parametrize(
    ("required", "auth"),
    [
        ([["bearer"]], Bearer(optional=True)),
        ([["basic"]], Basic(optional=True)),
        ([["header"]], Header("X-Key", optional=True)),
        ([["query"]], Query("key", optional=True)),
        ([["oauth"]], Bearer(optional=True)),
        ([["openid"]], Bearer(optional=True)),
        ([["mtls"], ["cookie"], ["bearer", "header"], ["header"]], Header("X-Key", optional=True)),
        ([["mtls"]], None),
        ([], None),
    ],
)
def test_the_token_travels_as_the_first_requirement_that_one_token_meets(required: Any, auth: Any) -> None:
    wanted: list[Any] = [{"schemes": {name: {"list": []} for name in names}} for names in required]
    told = card(offered("HTTP+JSON"), securitySchemes=SCHEMES, securityRequirements=wanted)
    assert exchange(a2a.locate(), Answer(told)).result.auth == auth


# Events and pushes ----------------------------------------------------------------------------------------------------


def event(**told: Any) -> ServerEvent:
    return ServerEvent("message", told, "")


def test_an_event_tells_states_and_pieces_of_artifacts() -> None:
    status = {"taskId": "t1", "contextId": "c1", "status": {"state": "TASK_STATE_WORKING"}}
    told = a2a.TaskEvent.of(event(statusUpdate=status))
    assert (told.kind, told.ref, told.state, told.artifact) == ("status", REF, "TASK_STATE_WORKING", None)

    piece = {**status, "artifact": artifact({"text": "a"}), "append": True, "lastChunk": True}
    told = a2a.TaskEvent.of(event(jsonrpc="2.0", id=1, result={"artifactUpdate": piece}))
    assert told.artifact is not None
    assert (told.artifact.text, told.appends, told.is_last) == ("a", True, True)
    assert a2a.TaskEvent.of(event(news=1)).kind == ""


def test_an_event_in_flight_is_a_state_and_any_other_has_the_task_read() -> None:
    def heard(state: str, task_id: str = "t1") -> Any:
        return a2a.event_of(REF, event(statusUpdate={"taskId": task_id, "status": {"state": f"TASK_STATE_{state}"}}))

    assert heard("WORKING").status is RunStatus.RUNNING
    assert heard("COMPLETED") is True
    assert heard("INPUT_REQUIRED") is True
    assert heard("WORKING", "another") is True
    assert a2a.event_of(REF, event(artifactUpdate={"taskId": "t1", "artifact": artifact()})) is False


def test_a_push_is_taken_from_who_knows_the_token_alone() -> None:
    body = json.dumps({"statusUpdate": {"taskId": "t1", "contextId": "c1", "status": {"state": "X"}}}).encode()
    assert a2a.verify_push(body, "secret", "secret").ref == REF
    assert a2a.verify_push(body.replace(b'"X"', rb'"cut \ud83d"'), "secret", "secret").ref == REF
    for wrong, told in ((None, "another one"), ("Secret", "another one")):
        with pytest.raises(ProtocolError, match=told):
            a2a.verify_push(body, wrong, "secret")
    with pytest.raises(ConfigurationError, match="expected is empty"):
        a2a.verify_push(body, "", "")
    for odd, told in ((b"{", "is not JSON"), (b"[]", "tells of no task"), (b'{"task": {}}', "tells of no task")):
        with pytest.raises(ProtocolError, match=told):
            a2a.verify_push(odd, "secret", "secret")


# What an agent shows --------------------------------------------------------------------------------------------------


def test_questions_messages_and_artifacts_are_shown() -> None:
    run = read("AUTH_REQUIRED", said=QUESTION, history=[{**QUESTION, "parts": [{"text": "Hm."}, {"raw": "AAA="}]}])
    question = a2a.show_question(run.actions[0])
    assert (question.title, question.text, question.chosen) == ("The agent needs a login", "Which?", "done")
    (step,) = a2a.show_steps(run)
    assert step.text == "Hm."
    (shown,) = a2a.show_artifacts(
        read(artifacts=[{**artifact({"text": "a"}, {"url": "https://a.example/b"}), "name": "n"}])
    )
    assert (shown.title, shown.summary, len(shown.sources)) == ("n", "a", 1)


# Whole stories, in both bindings --------------------------------------------------------------------------------------


def open_client(agent: Emulator[A2A], **options: Any) -> Client[a2a.Send, a2a.Task]:
    options = {"token": agent.token, "retry": Retry(attempts=2), **options}
    return connect(a2a, base_url=agent.base_url, schedule=QUICK, **options)


BINDINGS = pytest.mark.parametrize("rpc", [False, True], ids=["http", "rpc"])
ASKS = [Turn(calls=[Call("ask", {"question": "Which?"})]), Turn("Done.")]


@BINDINGS
@pytest.mark.asyncio
async def test_questions_are_answered_in_place(rpc: bool) -> None:
    async with Emulator("a2a", script=ASKS, rpc=rpc) as agent, open_client(agent) as client:
        runs = [run async for run in client.stream(a2a.Send("Go."), tools=lambda action: {"chosen": action.id})]

        assert runs[-1].output == "Done."
        assert len({run.id for run in runs}) == 1
        assert [message["parts"][0].get("data", {}).keys() for message in agent.state.messages[1:]] == [{"chosen"}]
        listed = [run async for run in client.runs()]
        assert [(run.id, run.output) for run in listed] == [(runs[-1].id, "Done.")]


@BINDINGS
@pytest.mark.asyncio
async def test_errors_have_their_exceptions(rpc: bool) -> None:
    async with Emulator("a2a", rpc=rpc) as agent:
        async with open_client(agent) as client:
            with pytest.raises(NotFoundError, match="TASK_NOT_FOUND"):
                await client.fetch(RunRef("nowhere"))
            run = await client.result(a2a.Send("Go."))
            with pytest.raises(InvalidRequestError, match="TASK_NOT_CANCELABLE"):
                await client.cancel(run)
            with pytest.raises(AlreadyAnsweredError, match="is over"):
                await client.perform(a2a.resume(run, [ToolOutput(Action("q", "input_required", {}), "Hm.")]))
        async with open_client(agent, token="another") as client:
            with pytest.raises(AuthenticationError):
                await client.start(a2a.Send("Go."))


@BINDINGS
@pytest.mark.asyncio
async def test_a_task_is_cancelled(rpc: bool) -> None:
    async with Emulator("a2a", script=[Turn("Done.", running=60)], rpc=rpc) as agent, open_client(agent) as client:
        run = await client.start(a2a.Send("Go."))
        await client.cancel(run)
        with pytest.raises(RunFailedError, match="TASK_STATE_CANCELED"):
            await client.result(run)


@BINDINGS
@pytest.mark.asyncio
async def test_a_start_whose_reply_got_lost_is_found_by_its_message(rpc: bool) -> None:
    async with Emulator("a2a", rpc=rpc) as agent, open_client(agent) as client:
        await client.result(a2a.Send("Before.", context_id="c1"))
        agent.fail(Fault.drop(committed=True, method="POST"))
        run = await client.result(a2a.Send("Go.", context_id="c1"))

        assert run.output == "You said: Go."
        assert agent.state.runs_started == 2


@pytest.mark.asyncio
async def test_a_plain_message_that_got_lost_is_told_and_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentruns.dialects.a2a.starts.LOOKS", (0.0,))
    async with Emulator("a2a", answers_by_message=True) as agent, open_client(agent) as client:
        assert (await client.result(a2a.Send("Go."))).output == "You said: Go."
        agent.fail(Fault.drop(committed=True, method="POST"))
        with pytest.raises(OutcomeUnknownError, match="no new run of message"):
            await client.start(a2a.Send("Go."))
        assert agent.state.runs_started == 2


@BINDINGS
@pytest.mark.asyncio
async def test_an_answer_whose_reply_got_lost_is_settled_by_the_history(rpc: bool) -> None:
    async with Emulator("a2a", script=ASKS, rpc=rpc) as agent, open_client(agent) as client:
        paused = [run async for run in client.stream(a2a.Send("Go."))][-1]
        agent.fail(Fault.drop(committed=True, method="POST"))
        run = await client.resume(paused, [ToolOutput(paused.actions[0], "This.")])

        assert (await client.result(run)).output == "Done."
        assert len(agent.state.messages) == 2


@pytest.mark.asyncio
async def test_the_first_of_two_answers_stands() -> None:
    async with Emulator("a2a", script=ASKS) as agent, open_client(agent) as client, open_client(agent) as other:
        paused = [run async for run in client.stream(a2a.Send("Go."))][-1]
        given = await asyncio.gather(
            client.resume(paused, [ToolOutput(paused.actions[0], "This.")]),
            other.resume(paused, [ToolOutput(paused.actions[0], "That.")]),
            return_exceptions=True,
        )
        (late,) = (each for each in given if isinstance(each, Exception))
        assert isinstance(late, AlreadyAnsweredError)
        assert late.arrived is (len(agent.state.messages) == 3)
        assert ("has arrived as well" in str(late)) is late.arrived
        assert (await client.result(late.run)).output == "Done."


@pytest.mark.asyncio
async def test_a_login_elsewhere_ends_its_pause_and_its_handler() -> None:
    ended = asyncio.Event()

    async def wait(_: Action) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    script = [Turn(calls=[Call("auth", {"question": "https://a.example/login"})]), Turn("Done.")]
    async with Emulator("a2a", script=script) as agent, open_client(agent) as client:
        stream = client.stream(a2a.Send("Go."), tools={"auth_required": wait})
        async for run in stream:
            if run.status is RunStatus.REQUIRES_ACTION:
                assert run.actions[0].arguments == {"text": "https://a.example/login"}
                agent.state.log_in(run.id)
        assert stream.run is not None
        assert stream.run.output == "Done."
        assert ended.is_set()


@BINDINGS
@pytest.mark.asyncio
async def test_a_stream_of_events_brings_artifacts_piece_by_piece(rpc: bool) -> None:
    async with Emulator("a2a", script=[Turn("Done.", running=0.3)], rpc=rpc) as agent, open_client(agent) as client:
        run = await client.start(a2a.Send("Go."))
        told = [a2a.TaskEvent.of(each) async for each in client.events(run)]

    assert told[0].kind == "task"
    assert [each.artifact.text for each in told if each.artifact is not None] == ["Done."]
    assert (told[-1].kind, told[-1].state) == ("status", "TASK_STATE_COMPLETED")


@BINDINGS
@pytest.mark.asyncio
async def test_a_push_is_checked_and_heard(rpc: bool) -> None:
    async with Emulator("a2a", script=[Turn("Done.", running=0.1)], rpc=rpc) as agent, open_client(agent) as client:
        run = await client.start(a2a.Send("Go."))
        url = "https://me.example/hook"
        made = await client.perform(a2a.create_push_config(run.id, url, token="secret", id="p1"))
        assert (made.id, made.url) == ("p1", url)
        assert "secret" not in repr(made)
        assert await client.perform(a2a.get_push_config(run.id, "p1")) == made
        assert await client.perform(a2a.list_push_configs(run.id)) == (made,)

        await client.result(run)
        ((to, headers, body),) = agent.state.notifications()
        news = a2a.verify_push(body, headers["X-A2A-Notification-Token"], "secret")
        assert (to, news.state) == (url, "TASK_STATE_COMPLETED")
        assert news.ref is not None
        assert (await client.fetch(news.ref)).output == "Done."

        await client.perform(a2a.delete_push_config(run.id, "p1"))
        assert await client.perform(a2a.list_push_configs(run.id)) == ()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "options", [{}, {"rpc": True}, {"tenant": "t1"}, {"rpc": True, "tenant": "t1"}, {"api_key": "X-Key"}]
)
async def test_the_card_is_read_once_and_says_how_the_agent_is_asked(options: Any) -> None:
    async with Emulator("a2a", **options) as agent, open_client(agent) as client:
        runs = await asyncio.gather(*(client.result(a2a.Send(f"Go {number}.")) for number in range(5)))
        assert {run.output for run in runs} == {f"You said: Go {number}." for number in range(5)}
        assert len(agent.requests("GET", "/.well-known/agent-card.json")) == 1
        assert (await client.perform(a2a.get_extended_card())).name == "Emulated agent"


@pytest.mark.asyncio
async def test_without_a_card_the_base_url_is_that_of_the_agent() -> None:
    async with (
        Emulator("a2a", has_card=False) as agent,
        connect(a2a, base_url=f"{agent.base_url}/v1", token=agent.token, schedule=QUICK) as client,
    ):
        assert (await client.result(a2a.Send("Go."))).output == "You said: Go."


@pytest.mark.asyncio
async def test_a_token_goes_to_no_other_origin_than_the_one_it_was_given_for() -> None:
    async with Emulator("a2a", url="https://elsewhere.example/v1") as agent, open_client(agent) as client:
        with pytest.raises(ConfigurationError, match="of another origin"):
            await client.start(a2a.Send("Go."))
        assert [each.path for each in agent.requests()] == ["/.well-known/agent-card.json"]


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://a.example/", "http://[odd", "http://u:p@127.0.0.1/", "http://a.b/?c"]
)
@BINDINGS
@pytest.mark.asyncio
async def test_a_card_with_a_url_that_no_request_can_go_to_is_told_as_that(rpc: bool, url: str) -> None:
    async with Emulator("a2a", url=url, rpc=rpc) as agent, open_client(agent) as client:
        with pytest.raises(ConfigurationError, match="says that it is asked at"):
            await client.start(a2a.Send("Go."))


@pytest.mark.asyncio
async def test_a_start_that_was_certainly_not_sent_is_made_afresh_under_its_key(tmp_path: Path) -> None:
    async with Emulator("a2a") as agent, open_client(agent, journal=tmp_path / "j", retry=Retry(attempts=1)) as client:
        agent.fail(Fault.answer(503, path="/.well-known/*"))
        with pytest.raises(TransportError, match="could not be found out"):
            await client.result(a2a.Send("Go."), key="k")
        assert await client.work("k") is None
        assert (await client.result(a2a.Send("Go."), key="k")).output == "You said: Go."
        assert agent.state.runs_started == 1


@pytest.mark.asyncio
async def test_a_card_that_cannot_be_read_yet_is_asked_for_again_and_nothing_is_sent() -> None:
    async with Emulator("a2a") as agent, open_client(agent) as client:
        agent.fail(Fault.answer(503, path="/.well-known/*"))
        assert (await client.result(a2a.Send("Go."))).output == "You said: Go."
        assert agent.state.runs_started == 1
