"""LangGraph on its own server, which nobody here wrote: `langgraph dev`."""

import asyncio
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from agentruns import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    RunFailedError,
    RunStatus,
    ToolOutput,
    langgraph,
)
from agentruns.dialects.langgraph import Invocation

from .langgraph_server import make_server as make_server
from .proxy import proxied
from .servers import Server
from .stories import RealServer

THREE = ["ask", "other", "third"]


def yes(question: str) -> str:
    """Answer what a node asks."""
    return f"yes to {question}"


class TestLangGraph(RealServer):
    dialect: ClassVar[Any] = langgraph
    name = "langgraph"
    posts = ("POST", "/threads/*/runs")
    restarted: ClassVar[Any] = {"stop": None, "kill": NotFoundError}  # it keeps what it has in memory when it ends
    is_original: ClassVar[bool] = True
    """Whether it lists threads with their values, and looks for states by their metadata"""

    most_requests: ClassVar[float] = 2.2
    """How many requests a run of fifty takes: two of its own, and its part of the reads of many"""

    reads = ("GET", "/threads/*/runs/*")

    @pytest.fixture(autouse=True)
    def _looks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give up soon to look for a start that was never sent."""
        monkeypatch.setattr("agentruns.dialects.langgraph.starts.LOOKS", (0.1, 0.4))

    def plain(self, number: int) -> Invocation:
        return Invocation("agent", {"text": f"Number {number}."})

    def asking(self, number: int, calls: int = 1) -> Invocation:
        return Invocation("agent", {"text": f"Number {number}?", "asks": THREE[:calls]})

    def failing(self) -> Invocation:
        return Invocation("agent", {"text": "fail"})

    def working(self, number: int) -> Invocation:
        return Invocation("agent", {"text": f"Number {number}.", "seconds": 3})

    def slow(self) -> Invocation:
        return Invocation("agent", {"text": "Be slow.", "seconds": 30})

    @pytest.mark.asyncio
    async def test_runs_of_one_thread_go_on_from_its_state(self, server: Server) -> None:
        async with self.client(server.url) as client:
            run = await client.result(Invocation("agent", {"text": "Hello."}, metadata={"team": "post"}))
            assert run.output["answers"] == ["You said: Hello."]
            assert run.detail.state.metadata["team"] == "post"

            then = await client.result(Invocation("agent", {"text": "And now?"}, thread_id=run.ref.parent))
            assert then.output["answers"] == ["You said: Hello.", "You said: And now?"]
            assert [each.id async for each in client.runs(run.ref.parent)] == [then.id, run.id]
            assert (await client.fetch(run)).output == run.output

    @pytest.mark.asyncio
    async def test_three_interrupts_are_answered_by_callbacks_that_are_named_by_their_nodes(
        self, server: Server
    ) -> None:
        async with self.client(server.url) as client:
            done = await client.result(self.asking(1, 3), tools=dict.fromkeys(THREE, yes))
        assert sorted(done.output["answers"][1:]) == [f"yes to {name}: Number 1?" for name in THREE]

    @pytest.mark.asyncio
    async def test_some_interrupts_are_answered_by_hand_and_the_rest_by_the_run_that_follows(
        self, server: Server
    ) -> None:
        async with self.client(server.url) as client:
            asked = [run async for run in client.stream(self.asking(1, 3))][-1]
            second = next(action for action in asked.actions if action.name == "other")
            partly = await client.resume(asked, [ToolOutput(second, "by hand")])
            waiting = [run async for run in client.stream(partly)][-1]
            assert sorted(action.name for action in waiting.actions) == ["ask", "third"]
            rows = {run.id: run.status async for run in client.runs(asked.ref.parent)}
            assert rows == dict.fromkeys([asked.id, waiting.id], RunStatus.REQUIRES_ACTION)

            done = await client.result(waiting, tools={"interrupt": yes})
            assert sorted(map(str, done.output["answers"]))[1:] == [
                "by hand",
                "yes to ask: Number 1?",
                "yes to third: Number 1?",
            ]
            async with self.client(server.url) as other:
                with pytest.raises(ConflictError):
                    await other.resume(asked, [ToolOutput(second, "again")])

    @pytest.mark.asyncio
    async def test_a_graph_that_stops_before_a_node_goes_on(self, server: Server) -> None:
        async with self.client(server.url) as client:
            stopped = [run async for run in client.stream(Invocation("stops", {"text": "Go."}))][-1]
            assert [(action.name, action.arguments) for action in stopped.actions] == [("work", {})]
            done = await client.result(stopped, tools={"work": lambda: True})
            assert done.output["answers"] == ["You said: Go."]

    @pytest.mark.asyncio
    async def test_answers_repeat_the_context_which_the_server_does_not_keep(self, server: Server) -> None:
        async with self.client(server.url) as client:
            for given in ({"context": {"who": "me"}}, {"config": {"configurable": {"who": "me"}}}):
                done = await client.result(Invocation("contexts", {}, **given), tools={"ask": lambda question: "yes"})
                assert done.output["answers"] == ["yes", "me"]

    @pytest.mark.asyncio
    async def test_what_fails_says_why(self, server: Server) -> None:
        async with self.client(server.url) as client:
            with pytest.raises(RunFailedError, match=r"ValueError.*the node fails as it was asked to"):
                await client.result(self.failing())
            with pytest.raises(RunFailedError, match=r"GraphRecursionError.*Recursion limit of 4"):
                await client.result(Invocation("loops", {"text": "x"}, config={"recursion_limit": 4}))
            with pytest.raises(InvalidRequestError, match="registered graphs: agent"):
                await client.start(Invocation("odd"))
            with pytest.raises(NotFoundError, match="not found"):
                await client.start(Invocation("agent", {}, thread_id=str(uuid4())))

    @pytest.mark.asyncio
    async def test_a_busy_thread_refuses_and_a_cancelled_run_says_so(self, server: Server) -> None:
        async with self.client(server.url) as client:
            run = await client.start(self.slow())
            with pytest.raises(ConflictError, match="already running"):
                await client.start(Invocation("agent", {}, thread_id=run.ref.parent))
            cancelled = await client.cancel(run)
            assert cancelled is not None
            assert (cancelled.status, cancelled.vendor_status) == (RunStatus.FAILED, "interrupted")
            assert await client.cancel(run) == cancelled

    @pytest.mark.asyncio
    async def test_events_follow_a_run(self, server: Server) -> None:
        async with self.client(server.url) as client:
            run = await client.start(self.plain(1))
            assert {event.name async for event in client.events(run)} <= {"metadata", "values", "end"}
            assert (await client.result(self.plain(2), events=True)).output is not None

    @pytest.mark.asyncio
    async def test_threads_states_history_and_assistants(self, server: Server) -> None:
        async with self.client(server.url) as client:
            thread_id = str(uuid4())
            thread = await client.perform(langgraph.create_thread(thread_id=thread_id, metadata={"mark": thread_id}))
            assert (await client.perform(langgraph.create_thread(thread_id=thread_id))).created_at == thread.created_at
            run = await client.result(Invocation("agent", {"text": "Hello."}, thread_id=thread_id))
            (found,) = await client.perform(langgraph.list_threads(metadata={"mark": thread_id}))
            assert (found.thread_id, found.status) == (thread_id, "idle")
            assert found.values == (run.output if self.is_original else None)

            wanted = {"run_id": run.id} if self.is_original else None
            (last,) = await client.perform(langgraph.list_history(thread_id, metadata=wanted, limit=1))
            assert last.values == run.output
            await client.perform(langgraph.update_state(thread_id, {"text": "Changed."}))
            state = await client.perform(langgraph.get_state(thread_id))
            assert state.values["text"] == "Changed."

            (assistant,) = await client.perform(langgraph.list_assistants(graph_id="agent"))
            assert await client.perform(langgraph.get_assistant(assistant.assistant_id)) == assistant
            assert (await client.perform(langgraph.get_schemas(assistant.assistant_id))).state_schema
            await client.perform(langgraph.delete_thread(thread_id))
            with pytest.raises(NotFoundError):
                await client.perform(langgraph.get_thread(thread_id))

    @pytest.mark.asyncio
    async def test_a_run_costs_two_requests_and_a_read_of_many(self, server: Server) -> None:
        async with proxied(server.url) as proxy, self.client(proxy.url) as client:
            origins = [Invocation("agent", {"text": "x", "seconds": 1 + number / 50}) for number in range(50)]
            runs = await asyncio.gather(*map(client.result, origins))
            assert {run.status for run in runs} == {RunStatus.COMPLETED}
            assert len(proxy.seen) <= self.most_requests * len(runs)
