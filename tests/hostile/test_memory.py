"""What answers without bounds cost: the peak of memory, and the work, of a process that asks for nothing else."""

import asyncio
import gzip
import json
import os
import sys
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from tests import scripted_wire
from tests.hostile import memory_process
from tests.hostile.undocumented_answers import CHUNKED, bomb, chunk, head, whole
from tests.raw_server import Server

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.timeout(150),  # the first test waits for the processes of all
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from Linux"),
]

MEGABYTE = b" " * 2**20
SIZE = 200 * 2**20

MOST_MEGABYTES = 160
"""Megabytes that an answer may cost that is refused: a few times the 32 that a body may have."""

MOST_IDLE_MEGABYTES = 24
"""Megabytes that a kept connection may cost that nobody waits on."""

CHILDREN = 5
SILENCE = 20.0
"""Seconds after which a process that tells nothing is taken to work on one answer for ever."""


MOST_SECONDS = 4.0
"""Seconds of work for what ends within a timeout of half a second; those of a clock tell more of the machine."""


@frozen
class Flood:
    """What comes first, and what comes again and again after a *pause* in seconds, until nobody listens."""

    first: bytes
    then: bytes
    times: int = 10**9
    pause: float = 0.0


RUN = scripted_wire.run("running").body
MIDDESK_RUN = json.dumps({
    "object": "run",
    "id": memory_process.NOBODY,
    "status": "running",
    **dict.fromkeys(("created_at", "updated_at"), "2026-01-15T12:00:00Z"),
}).encode()
DECLARED = f"Content-Length: {SIZE}"

FLOODS: Mapping[str, Flood] = {
    "declared": Flood(head(DECLARED) + b"[", MEGABYTE, 200),
    "declared-of-an-error": Flood(head(DECLARED, status="500 No") + b"[", MEGABYTE, 200),
    "declared-of-a-refusal": Flood(head(DECLARED, status="401 No") + b"[", MEGABYTE, 200),
    "declared-of-a-redirect": Flood(head(DECLARED, "Location: /", status="302 Away") + b"[", MEGABYTE, 200),
    "declared-beyond-all": Flood(head(f"Content-Length: {2**62}"), MEGABYTE),
    "lying": Flood(head(f"Content-Length: {len(RUN)}") + RUN, MEGABYTE, 200),
    "chunked": Flood(head(CHUNKED), chunk(MEGABYTE), 200),
    "chunked-small": Flood(head(CHUNKED), chunk(b" " * 1024) * 1024, 200),
    "chunked-tiny": Flood(head(CHUNKED), chunk(b" ") * 2**18),
    "undeclared": Flood(head(), MEGABYTE, 200),
    "gzip": Flood(head("Content-Encoding: gzip"), bomb(31), 1),
    "deflate": Flood(head("Content-Encoding: deflate"), bomb(15), 1),
    "raw-deflate": Flood(head("Content-Encoding: deflate"), bomb(-15), 1),
    "gzip-members": Flood(head("Content-Encoding: gzip"), gzip.compress(MEGABYTE), 1000),
    "gzip-of-gzip": Flood(head("Content-Encoding: gzip, gzip"), gzip.compress(bomb(31)), 1),
    "gzip-of-an-error": Flood(head("Content-Encoding: gzip", status="500 No"), bomb(31), 1),
    "interim": Flood(b"", head(status="100 Continue") * 4096),
    "early-hints": Flood(b"", head("Link: </a>", status="103 Early") * 4096),
    "empty-lines": Flood(b"", b"\r\n" * 2**19),
    "headers": Flood(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 2**17),
    "header": Flood(b"HTTP/1.1 200 OK\r\nX-A: ", b"x" * 2**20),
    "status-line": Flood(b"HTTP/1.1 200 ", b"x" * 2**20),
    "no-status-line": Flood(b"", MEGABYTE),
    "chunk-size": Flood(head(CHUNKED), b"0" * 2**20),
    "chunk-extension": Flood(head(CHUNKED) + b"2;", b"x" * 2**20),
    "trailers": Flood(head(CHUNKED) + chunk(b"{}") + b"0\r\n", b"X-A: b\r\n" * 2**17),
    "upgraded": Flood(head("Upgrade: websocket", "Connection: upgrade", status="101 Go"), MEGABYTE),
    # Whole answers that nobody asked for are not here: aiohttp keeps them, without bound, until the connection is taken
    # up again and then closed unused, and has no public way to stop that.
    "leftovers-of-one-body": Flood(whole(RUN), head(f"Content-Length: {2**40}") + MEGABYTE * 64, pause=0.1),
    "leftovers-of-one-bomb": Flood(
        whole(RUN), head("Content-Encoding: gzip", f"Content-Length: {2**40}") + bomb(31), pause=0.1
    ),
    "leftovers-of-nothing": Flood(whole(RUN), MEGABYTE, pause=0.1),
    "events": Flood(head("Content-Type: text/event-stream"), b"data: {}\n\n" * 2**17),
    "events-of-one-line": Flood(head("Content-Type: text/event-stream"), MEGABYTE),
    "events-packed": Flood(head("Content-Type: text/event-stream", "Content-Encoding: gzip"), bomb(31), 1),
}

NEAR = 31 * 2**20
LARGE: Mapping[str, bytes] = {
    "large-text": whole(RUN[:-1] + b',"novelty":"' + b"x" * NEAR + b'"}'),
    "large-blanks": whole(RUN + b" " * NEAR),
    "large-output": whole(scripted_wire.run("completed", final_text="x" * NEAR).body),
    "large-refusal": whole(b'{"detail":"' + b"x" * NEAR + b'"}', status="401 No"),
    "large-html": whole(b"<html>" + b"x" * NEAR, status="502 No"),
}
"""Just short enough to be read."""


async def flood(writer: asyncio.StreamWriter, name: str, line: str) -> None:
    honest = MIDDESK_RUN if name.startswith("events") and not line.endswith("/stream") else RUN
    if name in LARGE or name == "warm-up" or honest is not RUN:
        writer.write(LARGE.get(name, whole(honest)))
        await writer.drain()
        return
    what = FLOODS[name]
    writer.write(what.first)
    await asyncio.sleep(what.pause)
    for _ in range(what.times):
        if writer.is_closing():
            return
        writer.write(what.then)
        await writer.drain()
        await asyncio.sleep(0)
    await asyncio.Event().wait()


@pytest.fixture(scope="module")
def costs() -> Mapping[str, Mapping[str, Any]]:
    """Put a few processes through everything; much of it is waiting."""

    async def measured() -> Mapping[str, Mapping[str, Any]]:
        def act(writer: asyncio.StreamWriter) -> Coroutine[Any, Any, None]:
            line = server.seen[-1].line  # at once: the next request may be another child's
            return flood(writer, line.split("/")[1], line)

        async with Server(act) as server:
            names = [*FLOODS, *LARGE]
            told = await asyncio.gather(*(child(server.url, names[first::CHILDREN]) for first in range(CHILDREN)))
        return {each["name"]: each for lines in told for each in map(json.loads, lines)}

    async def child(url: str, names: list[str]) -> list[bytes]:
        told: list[bytes] = []
        while names:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", memory_process.__name__, url, *names),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MALLOC_ARENA_MAX": "1"},
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdout is not None
            try:
                while line := await asyncio.wait_for(process.stdout.readline(), SILENCE):
                    told.append(line)
                    names = names[1:]
            except TimeoutError:  # what is missing is told by its test
                names = names[1:]
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return told

    return asyncio.run(measured())


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_costs_neither_memory_nor_time(name: str, costs: Mapping[str, Mapping[str, Any]]) -> None:
    assert name in costs, "this never ends"
    cost = costs[name]

    assert "nothing" not in cost["ends"], cost
    assert cost["megabytes"] < (MOST_IDLE_MEGABYTES if name.startswith("leftovers") else MOST_MEGABYTES), cost
    assert cost["seconds"] < MOST_SECONDS, cost


@pytest.mark.parametrize("name", LARGE)
async def test_a_body_that_is_just_short_enough_costs_a_few_times_its_size(
    name: str, costs: Mapping[str, Mapping[str, Any]]
) -> None:
    assert name in costs
    cost = costs[name]

    assert cost["megabytes"] < 8 * 32, cost
