"""
Open protocols on real servers: runs lost, runs started twice, requests, CPU and memory, beside the official clients.

    python -m benchmarks.protocols [--quick] [--json PATH] [NAME ...]    (extra `bench`)

Each server is installed in an environment of its own (`uv`, and a package index) and started on this machine. Each
client has an interpreter of its own, in turn, and speaks to the same server through the same proxy, which counts the
requests. 300 runs of 2 to 6 seconds are started at once and followed to their ends. Then 20 are started whose reply the
proxy loses once the server has made the run: one that is started again is a run too many, and one whose start failed
with an error that does not say so is lost.

CPU is the client's alone, from the first start to the last end. The others that count are those that lose no run. Where
each of them loses some, they count all the same, by the run that they have seen to its end, and the table says so: a
client that loses runs saves their cost. To look seldom saves requests, so the lag has a goal, too.

300 runs at once are about what each of these servers can do on one processor, so what else the machine does is in all
figures: run this where nothing else runs. A client that asks too much is answered late by a server that it keeps busy:
of Responses, 1,690 requests of ours had made the runs 10 s late, and 800 have made them 3 s late.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tempfile
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tests.real.proxy import Fault, proxied
from tests.real.servers import HOME, MissingServerError, Server, running

from .process import MIB, apart
from .protocol_clients import BEGUN, LOST, PROTOCOLS, Protocol
from .report import CANNOT_RUN, Goal, at_most, finish, installed, parser

LOSSES = 20


async def compare(name: str, server: Server, runs: int, shortest: float, longest: float) -> dict[str, dict[str, Any]]:
    """Return what was measured of each client, by name."""
    protocol, measured = PROTOCOLS[name], {}
    for client, (package, _) in protocol.clients.items():
        version = installed(package)
        if not version and package != "agentruns":
            print(f"{client}: skipped, {package} is not installed")
            continue
        async with proxied(server.url) as proxy:
            told = await asyncio.to_thread(
                apart, "benchmarks.protocol_clients", "measure", name, client, proxy.url, runs, shortest, longest
            )
            seen = proxy.seen[[path for _, path in proxy.seen].index(BEGUN) + 1 :]
        told["requests"] = len(seen)
        told["doubled"] = max(_starts(protocol, seen) - runs, 0)
        async with proxied(server.url) as proxy:
            for number in range(LOSSES):
                proxy.plan(Fault(*protocol.starts, holding=f"{LOST} {number:03}".encode()))
            lost = await asyncio.to_thread(
                apart, "benchmarks.protocol_clients", "lose", name, client, proxy.url, LOSSES
            )
            told["again"] = _starts(protocol, proxy.seen) - LOSSES
        told["found"], told["unknown"] = lost["seen"], lost["errors"].pop("OutcomeUnknownError", 0)
        told["lost"] = LOSSES - told["found"] - told["unknown"]
        measured[f"{client} {version}" if package != "agentruns" else client] = told
    return measured


def _starts(protocol: Protocol, seen: list[tuple[str, str]]) -> int:
    return sum(fnmatchcase(got[0], protocol.starts[0]) and fnmatchcase(got[1], protocol.starts[1]) for got in seen)


def show(title: str, measured: Mapping[str, Mapping[str, Any]], runs: int) -> None:
    columns = ("CPU s", "requests", "lag s", "MiB", "wall s", "lost", "doubled", "found", "unknown", "lost", "again")
    print(f"\n{title:<28}" + "".join(f"{column:>9}" for column in columns))
    for name, of in measured.items():
        errors = ", ".join(f"{count} {error}" for error, count in of["errors"].items())
        print(
            f"{name:<28}{of['cpu']:>9.2f}{of['requests']:>9}{of['lag']:>9.2f}{of['peak'] / MIB:>9.0f}{of['wall']:>9.1f}"
            f"{runs - of['seen']:>9}{of['doubled']:>9}{of['found']:>9}{of['unknown']:>9}{of['lost']:>9}{of['again']:>9}"
            f"  {errors}".rstrip()
        )


def goals(name: str, measured: Mapping[str, Mapping[str, Any]], runs: int) -> list[Goal]:
    ours, others = measured["agentruns"], [of for client, of in measured.items() if client != "agentruns"]
    found = [
        at_most(f"{name}: runs lost", runs - ours["seen"] + ours["lost"], 0),
        at_most(f"{name}: runs started twice", ours["doubled"] + ours["again"], 0),
    ]
    whole = [of for of in others if of["seen"] == runs]
    told = "that lose none" if whole else "by run seen: no peer lost none"
    for what, title, target in (("cpu", "CPU", 0.2), ("requests", "requests", 1.0)):
        spent = [of[what] / of["seen"] for of in whole or others if of["seen"]]
        if spent and ours["seen"]:
            ratio = ours[what] / ours["seen"] / min(spent)
            found.append(at_most(f"{name}: {title} / least of others {told}", ratio, target))
    late = [of["lag"] for of in whole or others if of["seen"]]
    if late and ours["seen"]:
        found.append(at_most(f"{name}: lag / least of others {told}", ours["lag"] / min(late), 1.0))
    return found


def main() -> int:
    made = parser(__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", help=f"only: {', '.join(PROTOCOLS)}")
    args = made.parse_args()
    unknown = [name for name in args.names if name not in PROTOCOLS]
    if unknown:
        made.error(f"{unknown[0]} is no protocol; there are {', '.join(PROTOCOLS)}")
    os.environ.setdefault(HOME, str(Path(tempfile.gettempdir()) / "agentruns-servers"))
    Path(os.environ[HOME]).mkdir(parents=True, exist_ok=True)
    runs, shortest, longest = (60, 1.0, 2.0) if args.quick else (300, 2.0, 6.0)
    reached: list[Goal] = []
    missing: list[str] = []
    for name in args.names or PROTOCOLS:
        protocol = PROTOCOLS[name]
        with tempfile.TemporaryDirectory(prefix="agentruns-") as folder:
            try:
                there: Server = importlib.import_module(protocol.server).make_server(Path(folder))
            except MissingServerError as error:
                missing.append(name)
                print(f"NOT MEASURED: {error}")
                continue
            with running(there) as server:
                measured = asyncio.run(compare(name, server, runs, shortest, longest))
        title = f"{name}: {runs} runs"
        show(title, measured, runs)
        reached += goals(name, measured, runs)
    return CANNOT_RUN if not reached and missing else finish(reached, args)


if __name__ == "__main__":
    sys.exit(main())
