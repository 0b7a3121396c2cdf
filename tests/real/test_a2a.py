"""A2A on a server that nobody here wrote: the reference server, `a2a-sdk`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import aiohttp
import pytest
from aiohttp import web

from agentruns import (
    Action,
    AlreadyAnsweredError,
    AuthenticationError,
    Backoff,
    Client,
    DeadlineExceededError,
    InvalidRequestError,
    NotFoundError,
    RunFailedError,
    RunRef,
    RunStatus,
    ToolOutput,
    Tools,
    a2a,
    connect,
)
from agentruns.emulator import Call, Emulator, Prompt, Turn

from .a2a_server import KEY
from .a2a_server import make_server as make_server
from .a2a_tour import tour
from .servers import Server
from .stories import RealServer


@asynccontextmanager
async def listening(handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve a hook on a port of this machine, and give its URL."""
    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


CARDS = pytest.mark.parametrize("card", ["", "/only-rpc", "/keyed", "/rented"])
BINDINGS = pytest.mark.parametrize("card", ["/keyed", "/only-rpc"], ids=["http", "rpc"])


def of_card(server: Server, card: str, **options: Any) -> Client[a2a.Send, a2a.Task]:
    return connect(a2a, base_url=server.url + card, token=KEY, **options)


class TestA2A(RealServer):
    dialect: ClassVar[Any] = a2a
    name = "a2a-sdk"
    path = "/acme"  # below it there is no card, so it is spoken HTTP+JSON there, also to a proxy
    token = KEY
    posts = ("POST", "*/message:send")
    reads = ("GET", "*/tasks*")
    asks = "input_required"
    restarted: ClassVar[Any] = {"stop": DeadlineExceededError, "kill": NotFoundError}  # its store is our agent's
    not_applicable: ClassVar[Mapping[str, str]] = {
        "several pending actions are answered together": "a task asks one thing at a time"
    }

    @pytest.fixture(autouse=True)
    def _looks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give up soon to look for a start that was never sent."""
        monkeypatch.setattr("agentruns.dialects.a2a.starts.LOOKS", (0.1, 0.4))

    def plain(self, number: int) -> a2a.Send:
        return a2a.Send(f"Number {number}.")

    def asking(self, number: int, calls: int = 1) -> a2a.Send:
        return a2a.Send(f"Number {number}: ask.")

    def failing(self) -> a2a.Send:
        return a2a.Send("Please give up.")

    def working(self, number: int) -> a2a.Send:
        return a2a.Send(f"Number {number}: take 3 seconds.")

    def slow(self) -> a2a.Send:
        return a2a.Send("Be slow.")

    def handler(self, answer: Any) -> Tools:
        tools = Tools()

        @tools.add(name=self.asks, repeatable=True)
        async def ask(text: str) -> Any:
            return await answer()

        return tools

    @CARDS
    @pytest.mark.asyncio
    async def test_the_card_says_where_and_how_the_agent_is_asked(self, server: Server, card: str) -> None:
        async with of_card(server, card) as client:
            run = await client.result(a2a.Send("Hello."))
            assert (run.output, run.detail.artifacts[0].name) == ("You said: Hello.", "answer")
            assert (await client.perform(a2a.get_extended_card())).name == "Agent"

    @BINDINGS
    @pytest.mark.asyncio
    async def test_each_question_is_answered_in_place(self, server: Server, card: str) -> None:
        asked: list[str] = []

        def ask(action: Action) -> Any:
            asked.append(action.arguments["text"])
            return {"number": len(asked)}

        async with of_card(server, card) as client:
            run = await client.result(a2a.Send("Please ask twice, for data."), tools=ask)
            assert asked == ["Shall I, 0?", "Shall I, 1?"]
            assert run.output == {"seen": [{"number": 2}]}

    @BINDINGS
    @pytest.mark.asyncio
    async def test_artifacts_of_every_kind_are_the_output(self, server: Server, card: str) -> None:
        async with of_card(server, card) as client:
            run = await client.result(a2a.Send("Bring all kinds."))
            assert run.output == [
                {"text": "See "},
                {"text": "this."},
                {"data": {"a": [1, None]}},
                {"url": "https://a.example/b.pdf", "mediaType": "application/pdf"},
                {"raw": "YWJj", "filename": "a.bin"},
            ]
            (listed,) = [each async for each in client.runs(run.ref.parent)]
            assert listed.output == run.output

    @pytest.mark.asyncio
    async def test_an_agent_may_answer_by_a_plain_message(self, server: Server) -> None:
        async with of_card(server, "") as client:
            run = await client.result(a2a.Send("Just chat."))
            assert (run.vendor_status, run.output) == ("message", "Hello yourself.")

    @BINDINGS
    @pytest.mark.asyncio
    async def test_a_login_elsewhere_ends_its_pause_and_its_handler(self, server: Server, card: str) -> None:
        ended = asyncio.Event()

        async def log_in(action: Action) -> None:
            try:
                async with aiohttp.ClientSession() as session, session.post(action.arguments["text"]):
                    await asyncio.Event().wait()
            finally:
                ended.set()

        async with of_card(server, card) as client:
            run = await client.result(a2a.Send("It needs a login."), tools={"auth_required": log_in}, timeout=20)
        assert run.output == "You said: It needs a login."
        assert ended.is_set()

    @BINDINGS
    @pytest.mark.asyncio
    async def test_tasks_that_fail_are_rejected_or_cancelled_say_so(self, server: Server, card: str) -> None:
        async with of_card(server, card) as client:
            for text, told in (("Please fail.", "FAILED"), ("Give up", "I give up"), ("reject it", "Not that")):
                with pytest.raises(RunFailedError, match=told):
                    await client.result(a2a.Send(text.lower()))
            slow = await client.start(a2a.Send("Be slow."))
            cancelled = await client.cancel(slow)
            assert cancelled is not None
            assert cancelled.vendor_status == "TASK_STATE_CANCELED"
            with pytest.raises(RunFailedError, match="CANCELED"):
                await client.result(slow)
            with pytest.raises(InvalidRequestError, match="TASK_NOT_CANCELABLE"):
                await client.cancel(slow)
            with pytest.raises(NotFoundError, match="TASK_NOT_FOUND"):
                await client.fetch(RunRef("nowhere"))

    @pytest.mark.asyncio
    async def test_the_emulator_answers_as_the_server_does(self, server: Server) -> None:
        def script(prompt: Prompt) -> Turn:
            if prompt.outputs:
                return Turn(prompt.outputs[0].text)
            return Turn(calls=[Call("ask")], pending=0.02) if prompt.text == "ask" else Turn(pending=60)

        async with Emulator("a2a", script=script) as emulator:
            emulated = await tour(f"{emulator.base_url}/v1", emulator.token)
        real = await tour(server.url, KEY)
        assert {name: answer for name, answer in emulated.items() if answer != real[name]} == {}

    @pytest.mark.asyncio
    async def test_another_key_is_refused(self, server: Server) -> None:
        async with connect(a2a, base_url=server.url, token="another") as client:
            with pytest.raises(AuthenticationError):
                await client.start(a2a.Send("Hello."))

    @BINDINGS
    @pytest.mark.asyncio
    async def test_events_bring_artifacts_piece_by_piece(self, server: Server, card: str) -> None:
        async with of_card(server, card) as client:
            run = await client.start(a2a.Send("In pieces."))
            told = [a2a.TaskEvent.of(event) async for event in client.events(run)]
            pieces = [(each.artifact.text, each.appends, each.is_last) for each in told if each.artifact]
            assert pieces[-2:] == [("two ", True, False), ("three.", True, True)]
            assert (told[-1].kind, told[-1].state) == ("status", "TASK_STATE_COMPLETED")
            assert (await client.result(run)).output == "One two three."

    @BINDINGS
    @pytest.mark.asyncio
    async def test_events_tell_when_a_task_asks_and_ends(self, server: Server, card: str) -> None:
        seldom = Backoff(initial=30.0, factor=1.0, maximum=30.0)
        async with of_card(server, card, schedule=seldom) as client:
            run = await client.result(a2a.Send("Please ask twice."), tools=lambda _: "Yes.", events=True, timeout=20)
        assert run.output == "Yes."

    @BINDINGS
    @pytest.mark.asyncio
    async def test_a_push_notification_is_checked_and_heard(self, server: Server, card: str) -> None:
        heard = asyncio.Event()

        async with of_card(server, card) as client:

            async def hook(request: web.BaseRequest) -> web.StreamResponse:
                token = request.headers.get("X-A2A-Notification-Token")
                event = a2a.verify_push(await request.read(), token, "the secret of the hook")
                assert event.ref is not None
                client.heard(await client.fetch(event.ref))
                heard.set()
                return web.Response()

            async with listening(hook) as url:
                run = await client.start(a2a.Send("Please ask."))
                push = a2a.create_push_config(run.id, url, token="the secret of the hook", id="mine")
                made = await client.perform(push)
                assert (await client.perform(a2a.list_push_configs(run.id)), made.id) == ((made,), "mine")
                assert (await client.perform(a2a.get_push_config(run.id, "mine"))).url == url
                done = await client.result(run, tools=lambda _: "Yes.")
                await asyncio.wait_for(heard.wait(), 10)
                await client.perform(a2a.delete_push_config(run.id, "mine"))
                assert await client.perform(a2a.list_push_configs(run.id)) == ()
            assert done.output == "Yes."

    @pytest.mark.asyncio
    async def test_the_first_of_two_answers_stands_without_a_journal(self, server: Server) -> None:
        async with of_card(server, "") as one, of_card(server, "") as other:
            paused = [run async for run in one.stream(a2a.Send("Please ask."))][-1]
            given = await asyncio.gather(
                one.resume(paused, [ToolOutput(paused.actions[0], "yes")]),
                other.resume(paused, [ToolOutput(paused.actions[0], "no")]),
                return_exceptions=True,
            )
            (late,) = (each for each in given if isinstance(each, Exception))
            assert isinstance(late, AlreadyAnsweredError)
            assert ("has arrived as well" in str(late)) is late.arrived  # as the two met, or one was clearly first
            assert (await one.result(paused.ref)).status is RunStatus.COMPLETED
