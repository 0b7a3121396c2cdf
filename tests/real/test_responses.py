"""OpenAI's Responses on a server that nobody here wrote: `fastresponses` over Pydantic AI."""

from typing import Any, ClassVar

import pytest

from agentruns import (
    AuthenticationError,
    Backoff,
    Client,
    DeadlineExceededError,
    InvalidRequestError,
    RunFailedError,
    RunStatus,
    ToolOutput,
    connect,
    openai_responses,
)
from agentruns.dialects.openai_responses import ResponseRequest
from tests.conformance.vendors import OpenAIResponsesCase

from .responses_server import KEY
from .responses_server import make_server as make_server
from .servers import Server
from .stories import RealServer


def ask(question: str) -> str:
    """Ask the user."""
    return f"yes to {question}"


TOOLS = openai_responses.function_tools({"ask": ask})
BOTH = openai_responses.function_tools({"ask": ask, "other": ask})


class TestResponses(RealServer):
    dialect: ClassVar[Any] = openai_responses
    name = "fastresponses"
    path = "/v1"
    token = KEY
    posts = ("POST", "/v1/responses")
    restarted: ClassVar[Any] = dict.fromkeys(("stop", "kill"), DeadlineExceededError)
    not_applicable = OpenAIResponsesCase.not_applicable

    def client(self, url: str, **options: Any) -> Client[Any, Any]:
        """Ask more often than the vendor wants it, whose runs take minutes."""
        return super().client(url, **{"schedule": Backoff(initial=0.1, maximum=0.5), **options})

    def plain(self, number: int) -> ResponseRequest:
        return ResponseRequest("test", f"Number {number}.")

    def asking(self, number: int, calls: int = 1) -> ResponseRequest:
        return ResponseRequest("test", f"Number {number}?", tools=TOOLS if calls == 1 else BOTH)

    def failing(self) -> ResponseRequest:
        return ResponseRequest("test", "Please fail.")

    def working(self, number: int) -> ResponseRequest:
        return ResponseRequest("test", f"Number {number}: take 3 seconds.")

    def slow(self) -> ResponseRequest:
        return ResponseRequest("test", "Be slow.")

    @pytest.mark.asyncio
    async def test_a_plain_response_its_detail_and_the_next_one_of_its_conversation(self, server: Server) -> None:
        async with self.client(server.url) as client:
            run = await client.result(ResponseRequest("test", "Hello.", metadata={"team": "post"}))
            assert run.output == "You said: Hello."
            assert (run.detail.id, run.detail.status, run.detail.model) == (run.id, "completed", "test")
            assert run.usage is not None

            then = await client.result(ResponseRequest("test", "And now?", previous_response_id=run.id))
            assert then.output == "You said: And now?"

            await client.perform(openai_responses.delete_response(then.id))
            with pytest.raises(InvalidRequestError, match="previous_response_not_found"):
                await client.start(ResponseRequest("test", "Hm?", previous_response_id=then.id))

    @pytest.mark.asyncio
    async def test_calls_are_answered_by_handlers_and_by_hand(self, server: Server) -> None:
        def other(question: str) -> dict[str, str]:
            return {"seen": question}

        both = {"ask": ask, "other": other}
        origin = ResponseRequest(
            "test", "Shall I?", tools=openai_responses.function_tools(both), instructions="Be kind."
        )
        async with self.client(server.url) as client:
            states = [run async for run in client.stream(origin, tools=both)]
            paused = next(run for run in states if run.status is RunStatus.REQUIRES_ACTION)
            assert [action.name for action in paused.actions] == ["ask", "other"]
            assert states[-1].output == 'yes to Shall I?; {"seen":"Shall I?"}'

            async with self.client(server.url) as elsewhere:
                outputs = [ToolOutput(action, "no") for action in paused.actions]
                resumed = await elsewhere.resume(paused, outputs, origin=origin)
                assert (await elsewhere.result(resumed)).output == "no; no"

    @pytest.mark.asyncio
    async def test_a_forced_call_is_forced_once(self, server: Server) -> None:
        force = {"tool_choice": {"type": "function", "name": "ask"}}
        forced = ResponseRequest("test", "Shall I?", tools=TOOLS, extra=force)
        async with self.client(server.url) as client:
            assert (await client.result(forced, tools={"ask": ask}, max_resumes=1)).output == "yes to Shall I?"

    @pytest.mark.asyncio
    async def test_responses_that_fail_end_early_or_are_cancelled_say_so(self, server: Server) -> None:
        async with self.client(server.url) as client:
            with pytest.raises(RunFailedError, match="failed"):
                await client.result(ResponseRequest("test", "Please fail."))
            with pytest.raises(RunFailedError, match="max_tool_calls"):
                await client.result(ResponseRequest("test", "Please look.", extra={"max_tool_calls": 0}))

            slow = await client.start(ResponseRequest("test", "Be slow."))
            cancelled = await client.cancel(slow)
            assert cancelled is not None
            assert cancelled.vendor_status == "cancelled"
            with pytest.raises(RunFailedError, match="cancelled"):
                await client.result(slow)

    @pytest.mark.asyncio
    async def test_another_key_is_refused(self, server: Server) -> None:
        async with connect(openai_responses, base_url=f"{server.url}/v1", token="another") as client:
            with pytest.raises(AuthenticationError, match="invalid_api_key"):
                await client.start(self.plain(0))
