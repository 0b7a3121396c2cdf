"""Mistakes of who writes a dialect: each is told in the words that the guide to the vendors shows."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from agentruns import AgentRunsError, Client, Retry, Run, RunRef, connect
from agentruns.dialects import Flow, Request
from tests.guides import ROOT
from tests.scripted_wire import Answer, Wire
from tests.tiny_vendor import tiny

GUIDE = (ROOT / "agentruns" / "dialects" / "README.md").read_text().split("### Mistakes, and what is said of them")[1]


def dialect(**names: Any) -> Any:
    """Return the tiny dialect with other names; None takes one away."""
    made = {name: value for name, value in (vars(tiny()) | names).items() if name not in names or value is not None}
    return SimpleNamespace(**made)


def said(made: Any) -> str:
    """Return what is said where the dialect is connected, and one run of it read."""

    async def fetched() -> None:
        wire = Wire({"GET /runs/1": Answer({"id": "1"}), "GET /runs/2": Answer(b"<html>Bad gateway</html>", 502)})
        async with Client(made, wire, retry=Retry(attempts=1)) as client:
            await client.fetch(RunRef("1"))

    with pytest.raises(AgentRunsError) as caught:
        asyncio.run(fetched())
    return str(caught.value)


def flow(value: Any, path: str = "/runs/1", **options: Any) -> Callable[..., Flow[Any]]:
    def fetch(ref: RunRef, params: Mapping[str, str]) -> Flow[Any]:
        response = yield Request("GET", path, **options)
        return value(response.value) if callable(value) else value

    return fetch


def texts(ref: RunRef, params: Mapping[str, str]) -> Iterator[Any]:
    yield "GET /x"


async def coroutine(ref: RunRef, params: Mapping[str, str]) -> None: ...


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"fetch": None}, ["is no dialect: it lacks fetch"]),
        ({"resume_": lambda run, outputs: None}, ["It has `resume_`: did you mean `resume`?"]),
        ({"cancel": lambda ref, why: None}, ["`cancel` must be a function of (ref), and is a function of (ref, why)"]),
        ({"fetch": coroutine}, [".fetch returned <coroutine", "which is no flow", "without async"]),
        ({"fetch": texts}, ["yielded 'GET /x', which is no Request, Sleep,"]),
        ({"fetch": flow({"id": "1"})}, [".fetch returned {", "which is no Run"]),
        (
            {"fetch": flow(lambda body: tiny_run("done"))},
            ["returned a run whose status is 'done', which is no RunStatus"],
        ),
        ({"fetch": flow(lambda body: body["state"])}, ["failed on the answer to GET /", "with KeyError: 'state', in "]),
        (
            {"fetch": flow(None, "/runs/2"), "problem": lambda response: response.value["why"]},
            ["Bad gateway", ".problem failed with "],
        ),
        ({"fetch": flow(None, "jobs/1")}, ["the path of a GET is 'jobs/1'; it must begin with one `/`"]),
        (
            {"fetch": flow(None, "/jobs", params={"n": 1})},
            ["params of GET /jobs have 'n' of the type int; names and values must be texts"],
        ),
    ],
)
def test_a_mistake_is_told_as_the_guide_shows(names: Any, told: list[str]) -> None:
    text = said(dialect(**names))

    assert [words for words in told if words not in text] == [], text
    shown = [words for words in told if words in GUIDE]
    assert shown, f"the guide does not show {told}"


def tiny_run(status: Any) -> Any:
    return Run(RunRef("1"), status, "word")


def test_a_dialect_that_is_right_is_not_complained_of() -> None:
    assert "Client of tiny" in repr(connect(dialect(), token="t"))
