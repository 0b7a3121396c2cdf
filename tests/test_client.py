"""connect(): what it refuses; Client: results, life cycle, wrong use."""

import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

import agentruns
from agentruns import (
    ActionRequiredError,
    AgentRunsError,
    Client,
    ConfigurationError,
    RateLimit,
    Retry,
    RunFailedError,
    RunRef,
    RunStatus,
    RunStream,
    connect,
    narrative,
)
from agentruns._api.address import base_url_of
from agentruns._values.run import Page, Run
from agentruns._values.secret import Secret
from agentruns.dialects.vendor import Vendor
from agentruns.emulator import Emulator
from tests.scripted_wire import (
    CONVERSATION,
    HALF,
    HEAD,
    POLL,
    RUN,
    START,
    Answer,
    Wire,
    client_of,
    conversation,
    refuses,
    run,
)

MESSAGE = narrative.UserMessage(CONVERSATION, "Hello")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (narrative.TOKEN_VARIABLE, narrative.BASE_URL_VARIABLE):
        monkeypatch.delenv(name, raising=False)


# Connecting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"token": None}, "NARRATIVE_TOKEN"),
        ({"token": "  "}, "NARRATIVE_TOKEN"),
        ({"token": "a\nb"}, "characters that a header cannot carry"),
        ({"token": "a b"}, "characters that a header cannot carry"),
        ({"token": "schlüssel"}, "characters that a header cannot carry"),
        ({"base_url": "http://api.narrative.io"}, "unencrypted to api.narrative.io.*insecure=True"),
        ({"base_url": "http://127.0.0.1.evil.test"}, "unencrypted"),
        ({"base_url": "http://10.0.0.7:8080"}, "unencrypted"),
        ({"base_url": "ftp://api.narrative.io"}, "https://api.narrative.io"),
        ({"base_url": "api.narrative.io"}, "https://api.narrative.io"),
        ({"base_url": "https://"}, "https://api.narrative.io"),
        ({"base_url": "https://user:password@api.narrative.io"}, "no user"),
        ({"base_url": "https://api.narrative.io?x=1"}, "no user, query or fragment"),
        ({"base_url": "https://api.narrative.io?"}, "no user, query or fragment"),
        ({"base_url": "https://api.narrative.io/#"}, "no user, query or fragment"),
        ({"base_url": "https://api.narrative.io:port"}, "not a URL"),
        ({"base_url": "https://[::1"}, "not a URL"),
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": -1.0}, "timeout is -1.0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": "30"}, "timeout is '30'"),
        ({"budget": 0}, "budget is 0"),
        ({"budget": RateLimit(0, 1.0)}, "the count of budget is 0"),
        ({"budget": RateLimit(5, 0.0)}, "the seconds of budget is 0.0"),
        ({"connections": 0}, "connections is 0"),
        ({"max_body": -5}, "max_body is -5"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_opened(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as caught:
        connect(narrative, **{"token": "secret-token", **options})
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://127.0.0.1:8080",
        "http://localhost",
        "http://[::1]:80",
        "https://proxy.test/x/",
    ],
)
def test_loopback_may_be_plain_and_https_may_be_anywhere(base_url: str) -> None:
    assert base_url.rstrip("/") in repr(connect(narrative, token="secret-token", base_url=base_url))


def test_insecure_allows_plain_http_to_another_host() -> None:
    assert "http://10.0.0.7" in repr(connect(narrative, token="t", base_url="http://10.0.0.7", insecure=True))


def test_token_and_url_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NARRATIVE_TOKEN", "secret-token")
    monkeypatch.setenv("NARRATIVE_BASE_URL", "http://localhost:9/")
    client = connect("narrative")

    assert "http://localhost:9" in repr(client)
    assert "secret-token" not in repr(client)


def test_a_name_that_is_no_dialect_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match="'narative'; choose one of narrative, middesk, origami, conduit"):
        connect("narative", token="t")


def test_a_thing_that_is_no_dialect_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(ConfigurationError, match=r"lacks BASE_URL, .*start, fetch"):
        connect(SimpleNamespace(NAME="acme"), token="t")


# Using ----------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    client = connect(narrative, token="t")
    with pytest.raises(ConfigurationError, match="async with connect"):
        await client.start(MESSAGE)
    with pytest.raises(ConfigurationError, match="async with connect"):
        await anext(client.stream(MESSAGE))
    async with client:
        pass
    with pytest.raises(ConfigurationError, match="async with connect"):
        await client.fetch(RunRef(RUN))


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_result_is_the_last_state() -> None:
    async with client_of(Wire({HEAD: conversation(), START: run("pending"), POLL: run("completed")})) as client:
        assert "open" in repr(client)
        last = await client.result(MESSAGE)

    assert (last.status, last.output) == (RunStatus.COMPLETED, "Done.")


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (run("failed"), RunFailedError, "AgentLoopMaxIterationsExceeded: max iterations exceeded after 2 iterations"),
        (run("failed", error=None), RunFailedError, r"the run failed \(failed\)"),
        (run("requires_action"), ActionRequiredError, "no handler for ops-approve_invoice.*tools="),
    ],
)
async def test_a_result_that_is_not_completed_is_an_error_with_the_run(
    answer: Answer, error: type[agentruns.RunError], text: str
) -> None:
    async with client_of(Wire({POLL: answer})) as client:
        with pytest.raises(error, match=text) as caught:
            await client.result(RunRef(RUN))

    assert caught.value.run is not None
    assert caught.value.run.id == RUN


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_an_origin_of_another_kind_is_refused_before_any_request() -> None:
    wire = Wire({})
    async with client_of(wire) as client:
        with pytest.raises(ConfigurationError, match="narrative starts a run from UserMessage, not from str"):
            await client.start("Hello")
        with pytest.raises(ConfigurationError, match="UserMessage"):
            client.stream({"text": "Hello"})

    assert wire.asked == []


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_query_parameters_of_a_fetch_are_passed_on() -> None:
    wire = Wire({POLL: run("completed")})
    async with client_of(wire) as client:
        first = await client.fetch(RunRef(RUN), include="steps")
        await client.fetch(first)

    assert [request.params for _, request in wire.asked] == [{"include": "steps"}, {}]


class Acme:
    """A vendor that lists and cancels."""

    NAME = "narrative"  # whose flows it uses
    BASE_URL = "https://acme.test"
    TOKEN_VARIABLE = "ACME_TOKEN"
    BASE_URL_VARIABLE = "ACME_BASE_URL"
    BUDGET = None
    Origin = narrative.UserMessage
    start = staticmethod(narrative.start)
    fetch = staticmethod(narrative.fetch)
    problem = staticmethod(narrative.problem)
    handler_names = staticmethod(narrative.handler_names)

    @staticmethod
    def cancel(ref: RunRef) -> Any:
        yield from narrative.fetch(RunRef("cancel"), {})
        return (yield from narrative.fetch(ref, {}))

    @staticmethod
    def page(parent: str, cursor: str | None) -> Any:
        state: Run = yield from narrative.fetch(RunRef(cursor or "first"), {})
        return Page((state,), {None: "second", "second": None}[cursor])


CANCEL = "GET /agents/runs/cancel"


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_runs_are_listed_over_every_page() -> None:
    wire = Wire({"GET /agents/runs/first": run("running", id="1"), "GET /agents/runs/second": run("completed", id="2")})
    async with client_of(wire, Acme()) as client:
        assert [each.id async for each in client.runs()] == ["1", "2"]


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_run_can_be_cancelled_by_hand() -> None:
    async with client_of(Wire({CANCEL: run("failed"), POLL: run("failed")}), Acme()) as client:
        cancelled = await client.cancel(RunRef(RUN))

    assert cancelled is not None
    assert cancelled.status is RunStatus.FAILED


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_cancelling_the_wait_leaves_the_remote_run_alone_by_default() -> None:
    wire = Wire({HEAD: conversation(), START: run("pending"), POLL: run("running"), CANCEL: run("failed")})
    async with client_of(wire, Acme()) as client:
        waiting = asyncio.create_task(client.result(MESSAGE))
        await asyncio.sleep(5.5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert wire.times(CANCEL) == []


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(("mode", "polls"), [("cancel", 6), ("confirm", 8)])
async def test_cancelling_the_wait_cancels_the_remote_run_where_that_is_asked_for(mode: Any, polls: int) -> None:
    answers = [*[run("running")] * 6, run("running"), run("failed")]
    wire = Wire({HEAD: conversation(), START: run("pending"), POLL: answers, CANCEL: run("running")})
    async with client_of(wire, Acme()) as client:
        waiting = asyncio.create_task(client.result(MESSAGE, on_cancel=mode))
        await asyncio.sleep(5.5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert len(wire.times(CANCEL)) == 1
    assert len(wire.times(POLL)) == polls


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_start_under_way_is_cancelled_once_it_is_known() -> None:
    slow = Answer(run("running").body, after=3.0)
    wire = Wire({HEAD: conversation(), START: slow, POLL: run("failed"), CANCEL: run("failed")})
    async with client_of(wire, Acme()) as client:
        waiting = asyncio.create_task(client.result(MESSAGE, on_cancel="cancel"))
        await asyncio.sleep(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert len(wire.times(CANCEL)) == 1


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_remote_cancel_that_never_answers_is_bounded_and_one_that_fails_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for answer in (Answer({}, after=1000.0), Answer({}, 403)):
        wire = Wire({HEAD: conversation(), START: run("running"), POLL: run("running"), CANCEL: answer})
        async with client_of(wire, Acme()) as client:
            waiting = asyncio.create_task(client.result(MESSAGE, on_cancel="confirm"))
            await asyncio.sleep(1.5)
            began = asyncio.get_running_loop().time()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert asyncio.get_running_loop().time() - began <= 10.0

    assert "the remote run may go on" in caplog.text


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize(("mode", "cancels", "polls"), [("leave", 0, 1), ("cancel", 1, 2), ("confirm", 1, 3)])
async def test_leaving_a_stream_does_to_the_remote_run_what_cancelling_a_wait_does(
    mode: Any, cancels: int, polls: int
) -> None:
    wire = Wire({
        HEAD: conversation(),
        START: run("pending"),
        POLL: [run("running"), run("running"), run("failed")],
        CANCEL: run("running"),
    })
    async with client_of(wire, Acme()) as client:
        stream = client.stream(MESSAGE, on_cancel=mode)
        assert [(await anext(stream)).status for _ in range(2)] == [RunStatus.PENDING, RunStatus.RUNNING]
        await stream.leave()

        assert [state async for state in stream] == []
        await stream.leave()  # nothing is left to do

    assert (len(wire.times(CANCEL)), len(wire.times(POLL))) == (cancels, polls)


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_leaving_a_stream_that_was_never_begun_or_is_over_sends_nothing() -> None:
    wire = Wire({HEAD: conversation(), START: run("pending"), POLL: run("completed")})
    async with client_of(wire, Acme()) as client:
        await client.stream(RunRef(RUN), on_cancel="confirm").leave()
        assert wire.asked == []
        stream = client.stream(MESSAGE, on_cancel="confirm")
        await stream.result()
        await stream.leave()

    assert wire.times(CANCEL) == []


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_stream_is_not_left_while_another_task_waits_on_it() -> None:
    wire = Wire({HEAD: conversation(), START: run("pending"), POLL: run("pending"), CANCEL: run("failed")})
    async with client_of(wire, Acme()) as client:
        stream = client.stream(MESSAGE, on_cancel="cancel")
        waiting = asyncio.create_task(stream.result())
        await asyncio.sleep(1.5)
        with pytest.raises(AgentRunsError, match="another task is waiting"):
            await stream.leave()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert len(wire.times(CANCEL)) == 1


# Options of other types -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "begin", "remedy"),
    [
        ({"base_url": 3}, "base_url is 3; ", "must be a text, or None"),
        ({"base_url": b"https://api.test"}, "base_url is b'https://api.test'; ", "must be a text, or None"),
        (
            {"base_url": f"https://{HALF}.test"},
            "base_url is a text that UTF-8 cannot carry: it has '\\ud83d' at 8, ",
            "errors='replace'",
        ),
        ({"retry": None}, "retry is None; ", "Retry(attempts=4)"),
        ({"retry": 3}, "retry is 3; ", "Retry(attempts=4)"),
        ({"retry": Retry}, f"retry is {Retry!r}; ", "Retry(attempts=4)"),
        ({"session": 3}, "session is 3; ", "leave it out"),
        ({"session": aiohttp.ClientSession}, f"session is {aiohttp.ClientSession!r}; ", "leave it out"),
        ({"insecure": "no"}, "insecure is 'no'; ", "must be True or False"),
        ({"insecure": None}, "insecure is None; ", "must be True or False"),
        ({"insecure": 1}, "insecure is 1; ", "must be True or False"),
    ],
)
def test_an_option_of_another_type_is_refused_when_the_client_is_made(
    options: dict[str, Any], begin: str, remedy: str
) -> None:
    with refuses(begin, remedy):
        connect(narrative, **({"token": "t"} | options))


@pytest.mark.parametrize(
    "cut", [lambda text: text[:80], lambda text: text[-4:], lambda text: text.strip(), lambda text: text + "..."]
)
def test_a_part_of_a_token_shows_as_little_as_the_whole(cut: Callable[[str], str]) -> None:
    token = "tok-0123456789abcdef" * 8
    with pytest.raises(ConfigurationError) as caught:
        connect(narrative, token=token, base_url="no URL")
    frames = [frame.frame.f_locals for frame in caught.traceback if "agentruns" in str(frame.path)]
    texts = [value for frame in frames[1:] for value in frame.values() if isinstance(value, str)]
    assert token in texts
    assert all("0123" not in repr(cut(text)) and "cdef" not in repr(cut(text)) for text in texts)


@pytest.mark.parametrize("token", ["Bearer abc", " bearer  abc", "Bearer"])
def test_a_token_that_brings_the_word_bearer_is_refused_in_words(token: str) -> None:
    with refuses("the token for narrative begins with the word", "give the token alone"):
        connect(narrative, token=token)


def test_a_token_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="a secret is not pickled"):
        pickle.dumps(Secret("tok-0123456789"))


@pytest.mark.parametrize("token", [b"a-token-of-bytes", 8_127_365_412, ["a-token-of-bytes"], True])
def test_a_token_that_is_no_text_is_refused_and_not_shown(token: Any) -> None:
    with refuses(f"token is of the type {type(token).__name__}; ", "must be a text") as caught:
        connect(narrative, token=token)

    frames = [frame.frame.f_locals for frame in caught.traceback if frame.name == "connect"]
    assert frames
    assert all(value is not token and str(token) not in repr(value) for each in frames for value in each.values())
    assert str(token) not in str(caught.value)


def test_a_truthy_word_opens_no_plain_http_to_another_host() -> None:
    with refuses("insecure is 'no'; ", "must be True or False"):
        connect(narrative, token="t", base_url="http://elsewhere.test", insecure="no")  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="would send the token unencrypted"):
        connect(narrative, token="t", base_url="http://elsewhere.test")
    connect(narrative, token="t", base_url="http://elsewhere.test", insecure=True)


@pytest.mark.asyncio
async def test_a_session_and_a_retry_of_the_users_own_are_taken() -> None:
    class Own(Retry):
        pass

    async with aiohttp.ClientSession() as session:
        connect(narrative, token="t", session=session, retry=Own(attempts=1))


# Arguments of other types ---------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.virtual
async def test_a_flow_that_was_performed_already_is_refused() -> None:
    wire = Wire({HEAD: conversation()})
    async with client_of(wire) as client:
        flow = narrative.get_conversation(CONVERSATION)
        await client.perform(flow)
        with pytest.raises(ConfigurationError):
            await client.perform(flow)


@pytest.mark.asyncio
@pytest.mark.virtual
@pytest.mark.parametrize("wrong", ["fetch-text", "fetch-origin", "resume-ref", "resume-dict", "perform-none", "batch"])
async def test_what_is_wrong_before_any_request_is_a_configuration_error(wrong: str) -> None:
    wire = Wire({HEAD: conversation(), START: run("requires_action")})
    async with client_of(wire) as client:
        waiting = await client.start(MESSAGE)
        anything: Any = client
        calls: dict[str, Any] = {
            "fetch-text": lambda: anything.fetch(waiting.id),
            "fetch-origin": lambda: anything.fetch(MESSAGE),
            "resume-ref": lambda: anything.resume(waiting.ref, []),
            "resume-dict": lambda: anything.resume(waiting, [{"confirmed": True}]),
            "perform-none": lambda: anything.perform(narrative.get_conversation),
            "batch": lambda: anything.batch(5).__anext__(),
        }
        with pytest.raises(ConfigurationError):
            await calls[wrong]()


# Base URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["https://api.test/a b", "https://münchen.test", "https://api.test/é", "https://a.test/\t"]
)
def test_a_base_url_that_no_request_line_carries_is_refused(url: str) -> None:
    with refuses("base_url is ", "which no request can carry; escape what is not plain ASCII"):
        connect(narrative, token="t", base_url=url)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("not a url", "base_url is not one that requests can hang on"),
        ("münchen", "base_url is not one that requests can hang on"),
        ("https://[::1", "which is not a URL"),
        ("", "base_url is empty"),
    ],
)
def test_what_is_no_base_url_is_told_what_one_looks_like(url: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one that is passed would send the token to production; of a variable it is as good as none."""
    monkeypatch.setenv(narrative.BASE_URL_VARIABLE, "")
    with pytest.raises(ConfigurationError) as caught:
        connect(narrative, token="t", base_url=url)
    assert told in str(caught.value)
    assert f"it must look like {narrative.BASE_URL}: http or https, a host" in str(caught.value)
    assert base_url_of(Vendor.of(narrative), None) == narrative.BASE_URL


@pytest.mark.parametrize("rest", ["host:80x/", "host", "host/a b", "[::1", "host:99999"])
def test_a_password_in_a_base_url_is_not_told(rest: str) -> None:
    for password in ("hunter2", "hunt/er2", "hunt@er2"):
        with pytest.raises(ConfigurationError) as caught:
            connect(narrative, token="t", base_url=f"https://user:{password}@{rest}")
        assert "hunt" not in str(caught.value)
        assert "er2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://host:80x/?key=hunter2",
        "https://[bad?mail=me@there&key=hunter2",
        "https://host:99999/#hunter2",
        "https://user:\nhunter2@[bad",
        "https:/\n/user:hunter2@[bad",
    ],
)
def test_a_secret_in_what_is_no_base_url_is_not_told(url: str) -> None:
    with pytest.raises(ConfigurationError, match="it must look like") as caught:
        connect(narrative, token="t", base_url=url)
    assert "hunter2" not in str(caught.value)


def test_a_name_below_localhost_may_be_another_machine() -> None:
    with pytest.raises(ConfigurationError, match=r"would send the token unencrypted to api\.localhost"):
        connect(narrative, token="t", base_url="http://api.localhost:1/")


# One loop -------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_client_that_is_entered_under_another_framework_than_asyncio_says_so() -> None:
    client = client_of(Wire({}))

    def without_a_loop() -> None:
        with pytest.raises(ConfigurationError, match=r"runs on asyncio.*agentruns\.blocking"):
            client.__aenter__().send(None)

    await asyncio.to_thread(without_a_loop)
    async with client:  # nothing is left of that
        pass


@pytest.mark.asyncio
async def test_a_client_is_entered_once_at_a_time() -> None:
    wire = Wire({POLL: run("completed")})
    client = client_of(wire)
    async with client:
        with pytest.raises(ConfigurationError, match="is open already; use it as it is"):
            await client.__aenter__()
        assert (await client.fetch(RunRef(RUN))).status is RunStatus.COMPLETED
    assert not wire.is_open


@pytest.mark.asyncio
async def test_of_two_tasks_that_enter_a_client_at_once_one_is_refused() -> None:
    class Slow(Wire):
        async def open(self, *_: object) -> None:
            await asyncio.sleep(0)
            await super().open()

    client = client_of(Slow({POLL: run("completed")}))
    entered: list[Any] = await asyncio.gather(client.__aenter__(), client.__aenter__(), return_exceptions=True)
    assert entered[0] is client
    assert isinstance(entered[1], ConfigurationError)
    assert (await client.fetch(RunRef(RUN))).status is RunStatus.COMPLETED
    await client.__aexit__()


@pytest.mark.asyncio
async def test_a_client_that_could_not_be_entered_may_be_entered_again() -> None:
    class Once(Wire):
        failed = False

        async def open(self, *_: object) -> None:
            if not self.failed:
                self.failed = True
                raise OSError("no more files")

    client = client_of(Once({POLL: run("completed")}))
    with pytest.raises(OSError, match="no more files"):
        await client.__aenter__()
    async with client:
        assert (await client.fetch(RunRef(RUN))).status is RunStatus.COMPLETED


USES: dict[str, Callable[[Client], Coroutine[Any, Any, Any]]] = {
    "fetch": lambda client: client.fetch(RunRef(RUN)),
    "start": lambda client: client.start(MESSAGE),
    "result": lambda client: client.result(RunRef(RUN), timeout=3),
    "result of a start": lambda client: client.result(MESSAGE, timeout=3),
    "step": lambda client: _step(client.stream(RunRef(RUN), timeout=3)),
    "perform": lambda client: client.perform(narrative.get_conversation(CONVERSATION)),
    "leave": lambda client: client.__aexit__(),
}


async def _step(stream: RunStream) -> Run:
    return await anext(stream)


@pytest.mark.asyncio
@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_another_loop_is_refused_at_once_and_the_client_goes_on(
    use: Callable[[Client], Coroutine[Any, Any, Any]],
) -> None:
    wire = Wire({POLL: run("completed"), HEAD: conversation()})
    async with client_of(wire) as client:
        for elsewhere in (asyncio.run, _forked_run):
            with pytest.raises(ConfigurationError, match="another event loop than the one in which it was opened"):
                await asyncio.to_thread(elsewhere, use(client))
        assert wire.asked == []
        assert (await client.result(RunRef(RUN))).status is RunStatus.COMPLETED


def _forked_run(work: Coroutine[Any, Any, Any]) -> None:
    """Step it where no loop runs, as in a child that was forked within one."""
    try:
        work.send(None)
    finally:
        work.close()


@pytest.mark.asyncio
async def test_a_stream_that_was_begun_here_is_not_gone_on_with_elsewhere() -> None:
    wire = Wire({POLL: [run("running"), run("completed")]})
    async with client_of(wire) as client, client.stream(RunRef(RUN)) as stream:
        await anext(stream)
        with pytest.raises(ConfigurationError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, _step(stream))
        assert (await stream.result()).status is RunStatus.COMPLETED


LATE_IMPORTS = """
import asyncio, sys
from agentruns import RunRef, connect, narrative

async def main():
    async with connect(narrative) as client:
        before = set(sys.modules)
        conversation = await client.perform(narrative.create_conversation(narrative.Config(
            model="m", data_plane_id="0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11", max_iterations=8, max_tokens=2048,
            output_format_schema=narrative.TEXT_SCHEMA,
        )))
        run = await client.result(narrative.UserMessage(conversation.id, "hi"))
    print(run.status.value, *sorted(set(sys.modules) - before))

asyncio.run(main())
"""


def test_what_a_client_needs_until_it_is_left_is_imported_when_it_is_entered() -> None:
    with Emulator("narrative") as emulator:
        variables = {narrative.TOKEN_VARIABLE: emulator.token, narrative.BASE_URL_VARIABLE: emulator.base_url}
        told = subprocess.run(
            [sys.executable, "-c", LATE_IMPORTS],
            env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        )
    assert told.stdout.split() == ["completed"]
