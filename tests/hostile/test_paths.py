"""
Ids and parameters with everything in them that means something in a URL, as a server of raw bytes sees them.

`AGENTRUNS_FUZZ=20` asks for twenty times as many examples as by default.
"""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from agentruns import (
    Action,
    AgentRunsError,
    Client,
    ConfigurationError,
    Retry,
    Run,
    RunRef,
    RunStatus,
    ToolOutput,
    conduit,
    connect,
    middesk,
    narrative,
    origami,
)
from tests.hostile.hostile_servers import HOUSES, TOKEN, Front, HastyLoop, Trap, client_of, outcome
from tests.hostile.undocumented_answers import sends, whole
from tests.raw_server import Server, reply

SCALE = float(os.environ.get("AGENTRUNS_FUZZ", "1"))

BASE = "/base/v1"

PIECES = (
    *(
        "/",
        "//",
        "../",
        "..",
        ".",
        "./..",
        "\\",
        "..\\",
        "%2f",
        "%2F..%2F",
        "%2e%2e",
        "%",
        "%%",
        "%zz",
        "%00",
        "%0d%0a",
    ),
    *(
        "?",
        "?a=b",
        "&a=b",
        "=",
        "#",
        "#a",
        ";",
        ";a=b",
        "@",
        ":",
        ":80",
        "*",
        "+",
        "~",
        "!",
        "'",
        '"',
        "<>",
        "{}",
        "|",
        "^",
    ),
    *("//evil.test/", "http://evil.test/", "evil.test:80", "user:password@evil.test", "[::1]"),
    *(" ", "\t", "\r", "\n", "\r\n", "\r\n\r\n", "\x00", "\x1b", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "\u202e"),
    *(" HTTP/1.1\r\nHost: evil.test\r\n\r\n", "\r\nX-Evil: 1", "\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"),
    *("é", "e\u0301", "ß", "\uff0f", "\u2025", "\uff0e\uff0e", "\U0001f600", "\ud800", "\udcff", "\uffff", "x" * 3000),
)
"""What means something to somebody who reads a URL."""

ids = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), min_size=1, max_size=4).map("".join)


@frozen
class Operation:
    """One use of an id, and the path on which it has to stand: `*` is the id, all of it."""

    dialect: Any
    ask: Callable[[Client, str], Awaitable[Any]]
    path: str
    query: str | None = None
    """The parameter whose value is the id, where it is none of the path."""


def paused(id_: str, parent: str = "") -> Run:
    return Run(RunRef(id_, parent), RunStatus.REQUIRES_ACTION, "paused", (Action("a1", "ask"),), raw={})


async def listed(runs: Any) -> list[Any]:
    return [run async for run in runs]


def answered(run: Run) -> tuple[Run, Sequence[ToolOutput]]:
    return run, [ToolOutput(run.actions[0], "yes")]


def answer(client: Client, run: Run) -> Awaitable[Any]:
    return client.resume(*answered(run))


OPERATIONS: Mapping[str, Operation] = {
    # Narrative
    "narrative run": Operation(narrative, lambda c, i: c.fetch(RunRef(i)), "agents/runs/*"),
    "narrative stream": Operation(narrative, lambda c, i: c.result(RunRef(i), patience=0.0), "agents/runs/*"),
    "narrative parameter": Operation(narrative, lambda c, i: c.fetch(RunRef("r1"), x=i), "agents/runs/r1", "x"),
    "narrative conversation": Operation(
        narrative, lambda c, i: c.perform(narrative.get_conversation(i)), "agents/conversations/*"
    ),
    "narrative messages": Operation(
        narrative, lambda c, i: c.perform(narrative.list_messages(i)), "agents/conversations/*/messages"
    ),
    "narrative start": Operation(
        narrative,
        lambda c, i: c.start(narrative.UserMessage(i, "Do it.", expected_version=0)),
        "agents/conversations/*/runs",
    ),
    "narrative resume": Operation(narrative, lambda c, i: answer(c, paused("r1", i)), "agents/conversations/*"),
    "narrative answer": Operation(
        narrative, lambda c, i: c.perform(narrative.answered_by(paused("r1", i))), "agents/conversations/*"
    ),
    # Middesk
    "middesk run": Operation(middesk, lambda c, i: c.fetch(RunRef(i)), "runs/*"),
    "middesk parameter": Operation(middesk, lambda c, i: c.fetch(RunRef("r1"), include=i), "runs/r1", "include"),
    "middesk agent": Operation(middesk, lambda c, i: c.perform(middesk.get_agent(i)), "agents/*"),
    "middesk thread": Operation(middesk, lambda c, i: c.perform(middesk.get_thread(i)), "threads/*"),
    "middesk threads": Operation(
        middesk, lambda c, i: c.perform(middesk.list_threads(business_id=i)), "threads", "business_id"
    ),
    "middesk feedback": Operation(
        middesk,
        lambda c, i: c.perform(middesk.give_feedback(i, rating="POSITIVE", artifact_id="a1")),
        "runs/*/feedback",
    ),
    "middesk look before a resume": Operation(middesk, lambda c, i: answer(c, paused(i)), "runs/*"),
    "middesk resume": Operation(middesk, lambda c, i: c.perform(middesk.resume(*answered(paused(i)))), "runs/*/resume"),
    # Origami
    "origami run": Operation(origami, lambda c, i: c.fetch(RunRef(i, i)), "agents/*/runs/*"),
    "origami cancel": Operation(origami, lambda c, i: c.cancel(RunRef(i, "a1")), "agents/a1/runs/*"),
    "origami runs": Operation(origami, lambda c, i: listed(c.runs(i)), "agents/*/runs"),
    "origami agent": Operation(origami, lambda c, i: c.perform(origami.get_agent(i)), "agents/*"),
    "origami search": Operation(origami, lambda c, i: c.perform(origami.list_agents(search=i)), "agents", "search"),
    "origami archive": Operation(origami, lambda c, i: c.perform(origami.archive_agent(i)), "agents/*"),
    "origami tables": Operation(origami, lambda c, i: c.perform(origami.list_tables(i)), "agents/*/tables"),
    "origami table": Operation(origami, lambda c, i: c.perform(origami.get_table(i)), "tables/*"),
    "origami rows": Operation(origami, lambda c, i: c.perform(origami.list_rows(i)), "tables/*/rows"),
    "origami more rows": Operation(
        origami, lambda c, i: c.perform(origami.list_rows("t1", cursor=f"c{i}")), "tables/t1/rows", "cursor"
    ),
    "origami prompt": Operation(origami, lambda c, i: c.start(origami.Prompt("Go on.", agent_id=i)), "agents/*/runs"),
    "origami resume": Operation(origami, lambda c, i: answer(c, paused("r1", i)), "agents/*/runs"),
    # Conduit
    "conduit run": Operation(conduit, lambda c, i: c.fetch(RunRef(i, i)), "agents/*/runs/*"),
    "conduit runs": Operation(conduit, lambda c, i: listed(c.runs(i)), "agents/*/runs"),
    "conduit agent": Operation(conduit, lambda c, i: c.perform(conduit.get_agent(i)), "agents/*"),
    "conduit agents": Operation(conduit, lambda c, i: c.perform(conduit.list_agents(i)), "agents", "workspace_id"),
    "conduit assign": Operation(
        conduit, lambda c, i: c.perform(conduit.assign_escalation(i, assignee_id="u1")), "escalations/*/assign"
    ),
    "conduit resolve": Operation(
        conduit, lambda c, i: c.perform(conduit.resolve_escalation(i)), "escalations/*/resolve"
    ),
    "conduit message": Operation(
        conduit, lambda c, i: c.perform(conduit.send_message(i, body="Hello.")), "conversations/*/messages"
    ),
    "conduit dispatch": Operation(conduit, lambda c, i: c.start(conduit.Dispatch(i, trigger_id="t1")), "agents/*/runs"),
}


class World:
    """One server, and one client of each vendor, for as many questions as one likes."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=HastyLoop)
        self._server = Server(reply(b"{}", 418))  # a refusal that no flow looks into
        self._clients: dict[str, Client] = {}

    def __enter__(self) -> "World":
        self._runner.run(self._server.__aenter__())
        for house in HOUSES.values():
            client = connect(
                house.dialect,
                token=TOKEN,
                base_url=self._server.url + BASE,
                budget=1e6,
                retry=Retry(attempts=1),
            )
            self._clients[house.name] = self._runner.run(client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            self._runner.run(client.__aexit__())
        self._runner.run(self._server.__aexit__())
        self._runner.close()

    def lines(self, operation: Operation, value: str) -> Sequence[str] | ConfigurationError:
        """Return what reached the server, or why nothing was sent."""
        before = len(self._server.seen)
        try:
            self._runner.run(operation.ask(self._clients[operation.dialect.NAME], value))  # type: ignore[arg-type]
        except ConfigurationError as error:
            assert len(self._server.seen) == before
            return error
        except AgentRunsError:
            pass
        assert all(
            seen.header("host") == self._server.url.removeprefix("http://") for seen in self._server.seen[before:]
        )
        return self._server.lines[before:]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as made:
        yield made


def assert_in_place(operation: Operation, value: str, lines: Sequence[str]) -> None:
    """Check that the id is one segment of one path, or the value of one parameter, and comes out as it went in."""
    assert len(lines) == 1
    method, _, target = lines[0].partition(" ")
    assert re.fullmatch(r"[A-Z]+", method)
    assert re.fullmatch(r"[!-~]+", target), target
    path, _, query = target.partition("?")
    assert "#" not in target
    assert "\\" not in path
    below = path.removeprefix(BASE + "/")
    assert below != path
    segments, wanted = below.split("/"), operation.path.split("/")
    assert len(segments) == len(wanted), path
    for segment, want in zip(segments, wanted, strict=True):
        assert segment not in {"", ".", ".."}
        assert unquote(segment, errors="strict") == (value if want == "*" else want)
    if operation.query is not None:
        found = dict(parse_qsl(query, keep_blank_values=True, errors="strict"))
        assert found[operation.query] in {value, f"c{value}"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_id_with_something_in_it_that_means_something_stays_in_its_place(name: str, world: World) -> None:
    alone = list(OPERATIONS).index(name) % 2
    for piece in PIECES:
        value = piece if alone else f"a{piece}b"
        lines = world.lines(OPERATIONS[name], value)
        if isinstance(lines, ConfigurationError):
            assert value in {".", ".."} or not _is_text(value), value
        else:
            assert_in_place(OPERATIONS[name], value, lines)


@settings(max_examples=int(150 * SCALE))
@given(operation=st.sampled_from(list(OPERATIONS.values())), value=ids)
def test_any_id_stays_in_its_place_or_is_refused_before_anything_is_sent(
    operation: Operation, value: str, world: World
) -> None:
    lines = world.lines(operation, value)
    if not isinstance(lines, ConfigurationError):
        assert_in_place(operation, value, lines)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


# Ids that a vendor gives ----------------------------------------------------------------------------------------------


def with_ids(honest: bytes, value: str) -> bytes:
    """Put *value* in the place of every id."""

    def changed(node: Any) -> Any:
        if isinstance(node, list):
            return [changed(each) for each in node]
        if isinstance(node, dict):
            return {key: value if _is_id(key, each) else changed(each) for key, each in node.items()}
        return node

    return json.dumps(changed(json.loads(honest))).encode()


def _is_id(key: str, value: Any) -> bool:
    return isinstance(value, str) and re.search(r"(^|_)id$|Id$", key) is not None


@pytest.mark.asyncio
@pytest.mark.hasty
@pytest.mark.parametrize(
    "piece", ["../../admin", "..", ".", "", "a?b=c", "a#b", "%2e%2e/", "\r\nX-Evil: 1", "/", "é\u2028"]
)
@pytest.mark.parametrize("vendor", HOUSES)
async def test_an_id_of_the_vendors_leads_nowhere_else(vendor: str, piece: str) -> None:
    house = HOUSES[vendor]()
    async with Front(house) as front, client_of(house, front.url) as client:
        origin = await house.origin(client)
        before = len(front.seen)
        front.trap(Trap(".*", sends(lambda honest: whole(with_ids(honest, piece)))))
        await outcome(client.result(origin, timeout=100.0))
        lines = front.lines[before:]

    base = re.escape(str(house.dialect.BASE_URL).partition("//")[2].partition("/")[2])
    for line in lines:
        assert re.fullmatch(rf"[A-Z]+ /{base}[!-~]*", line), line
        path = line.partition(" ")[2].partition("?")[0]
        assert not {"", ".", ".."} & set(path.split("/")[1:]), line
        assert len(path.split("/")) <= 8, line
        assert "X-Evil" not in front.seen[-1].head.replace("%0D%0AX-Evil", "")
