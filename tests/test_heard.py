"""States that come from elsewhere, such as webhooks, are taken in as if they had been polled."""

import asyncio
from typing import Any

import pytest

from agentruns import Backoff, ConfigurationError, Run, RunRef, RunStatus
from tests.tiny_vendor import Server, client_of

pytestmark = [pytest.mark.asyncio, pytest.mark.virtual]

SELDOM = Backoff(initial=1000.0, factor=1.0, maximum=1000.0, jitter=0.0)


def state(status: RunStatus, word: str) -> Run[Any]:
    return Run(RunRef("a-1", "a"), status, word, output="pushed" if status.is_over else None, vendor="tiny")


async def test_who_waits_goes_on_at_once_with_a_state_that_is_heard() -> None:
    server = Server(1e6)
    async with client_of(server, schedule=SELDOM) as client:
        waiting = asyncio.ensure_future(client.result(server.begin("a-1"), timeout=None))
        await asyncio.sleep(10)
        began = asyncio.get_running_loop().time()
        reads = len(server.asked)

        assert client.heard(state(RunStatus.COMPLETED, "done"))
        run = await waiting

        assert (run.output, asyncio.get_running_loop().time() - began) == ("pushed", 0.0)
        assert len(server.asked) == reads


async def test_an_older_state_that_comes_late_takes_nothing_back() -> None:
    server = Server(30.0)
    seldom = Backoff(initial=5.0, factor=1.0, maximum=5.0, jitter=0.0)
    async with client_of(server, schedule=seldom) as client, client.stream(server.begin("a-1")) as stream:
        assert (await stream.result()).output == "well"
        client.heard(state(RunStatus.RUNNING, "working"))
        assert stream.run is not None
        assert stream.run.status is RunStatus.COMPLETED
        assert (await client.result(stream.run)).output == "well"


async def test_reads_go_on_after_a_state_that_is_not_the_last() -> None:
    server = Server(20.0)
    async with client_of(server, schedule=Backoff(initial=5.0, factor=1.0, maximum=5.0, jitter=0.0)) as client:
        waiting = asyncio.ensure_future(client.result(server.begin("a-1")))
        await asyncio.sleep(7)
        assert client.heard(state(RunStatus.RUNNING, "working"))

        assert (await waiting).output == "well"


async def test_a_run_that_nobody_follows_is_no_error_and_what_is_no_run_is() -> None:
    async with client_of(Server()) as client:
        assert client.heard(state(RunStatus.COMPLETED, "done")) is False
        strange: Any = RunRef("a-1")
        with pytest.raises(ConfigurationError, match="is no state of a run"):
            client.heard(strange)
        with pytest.raises(ConfigurationError, match="run 1 is of acme, and this client is of tiny"):
            client.heard(Run(RunRef("1"), RunStatus.RUNNING, "x", vendor="acme"))
    with pytest.raises(ConfigurationError):
        client.heard(state(RunStatus.COMPLETED, "done"))
