"""For every vendor: a run that one process begins is shown and answered in another by its slug alone."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from agentruns import Inbox, Run
from agentruns.emulator import Turn
from agentruns.testing import Case
from agentruns.web import AlreadyDecidedError, Service
from tests.conformance import vendors

CASES = [
    vendors.NarrativeCase,
    vendors.MiddeskCase,
    vendors.OrigamiCase,
    vendors.ConduitCase,
    vendors.OpenAIResponsesCase,
    vendors.A2ACase,
    vendors.LangGraphCase,
]


@pytest.mark.asyncio
@pytest.mark.usefixtures("prompt_origami")
@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind().label)
async def test_a_run_is_shown_and_answered_by_its_slug_in_another_process(kind: type[Case], tmp_path: Path) -> None:
    case, told = kind(), asyncio.get_running_loop().create_future()
    asks = case.vendor.resume is not None
    turns = [Turn(calls=[case.call(0)]), Turn("Done.")] if asks else [Turn("Done.")]

    async def on_end(_: str, ended: Run[Any]) -> None:
        told.set_result(ended)

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(case.serve(*turns))
        one, other = [
            await stack.enter_async_context(
                Service(
                    case.connect(server, journal=tmp_path / "work.db"),
                    inbox=Inbox(journal=tmp_path / "work.db"),
                    on_end=on_end,
                )
            )
            for _ in range(2)
        ]
        slug = (await one.start(await case.origin(one.client, server))).slug
        assert quote(slug, safe="") == slug
        async with asyncio.timeout(30):
            if asks:
                await clicked(other, slug)
            ended = await told
        events = [json.loads(event.data) async for event in other.watch(slug)]

    assert (events[-1]["status"], events[-1]["reason"]) == (ended.status, "over") == ("completed", "over")


async def clicked(served: Service, slug: str) -> None:
    """Answer what a page asks, and click once more."""
    async for event in served.watch(slug):
        state = json.loads(event.data)
        if event.name == "run" and state["actions"]:
            action = state["actions"][0]["id"]
            await served.answer(slug, action, "Yes.")
            with pytest.raises(AlreadyDecidedError):
                await served.answer(slug, action, "No.")
            return
    raise AssertionError("nothing was asked")
