"""LangGraph's dialect on Aegra, a server that others wrote after LangGraph's API: what is the same, and what is not."""

import os
from typing import Any, ClassVar

import pytest

from agentruns import DeadlineExceededError, InvalidRequestError, NotFoundError, RunFailedError, RunStatus
from agentruns.dialects.langgraph import Invocation

from . import test_langgraph
from .aegra_server import make_server as make_server
from .servers import LONG, Server


class TestAegra(test_langgraph.TestLangGraph):
    name = "aegra"
    is_original = False
    many = 60
    # It interrupts them if it is asked to end; of those that were killed with it, it says for ever that they go on.
    restarted: ClassVar[Any] = {"stop": RunFailedError} | (
        {"kill": DeadlineExceededError} if LONG in os.environ else {}
    )
    most_requests = 3.0
    moments = ("before the reply to the start", "before the reply to the answer")

    @pytest.mark.asyncio
    async def test_what_fails_says_why(self, server: Server) -> None:
        async with self.client(server.url) as client:
            with pytest.raises(RunFailedError, match="error: the node fails as it was asked to"):
                await client.result(self.failing())
            with pytest.raises(RunFailedError, match="Recursion limit of 4"):
                await client.result(Invocation("loops", {"text": "x"}, config={"recursion_limit": 4}))
            with pytest.raises(NotFoundError, match="Assistant 'odd' not found"):
                await client.start(Invocation("odd", {}))
            with pytest.raises(InvalidRequestError, match="input"):
                await client.start(Invocation("agent", "no object"))

    @pytest.mark.asyncio
    async def test_a_busy_thread_refuses_and_a_cancelled_run_says_so(self, server: Server) -> None:
        """It is cancelled here; a busy thread takes another run, whatever is asked for."""
        async with self.client(server.url) as client:
            run = await client.start(self.slow())
            other = await client.result(Invocation("agent", {"text": "Hm.", "seconds": 0}, thread_id=run.ref.parent))
            assert other.status is RunStatus.COMPLETED
            await client.cancel(run)
            with pytest.raises(RunFailedError, match="the run was cancelled"):
                await client.result(run)
