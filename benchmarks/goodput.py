"""
What a batch brings where the vendor is the bottleneck: rows done by vendor, budget, timeout and limit.

    python -m benchmarks.goodput [--quick] [--json PATH]

In virtual time, against each emulated vendor, with runs of about 8 s. No row should be begun that cannot be served: a
larger limit than the budget can serve must not bring less than a smaller one by more than a fifth.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import msgspec
from attrs import frozen

from agentruns import Client, RateLimit, Retry
from agentruns._values.exchange import Request, Response
from agentruns.dialects import conduit, middesk, narrative, origami
from agentruns.dialects.protocol import Dialect
from agentruns.emulator import Emulator, Turn
from agentruns.emulator.vendor import Request as Incoming

from .report import Goal, arguments, at_least, finish
from .virtual import VirtualLoop

SECONDS: Final = 150.0
LEAST: Final = 0.8
"""Which part of what the best limit brings a larger one must bring."""

LIMITS: Final = (4, 16, 64, 256)
TIMEOUTS: Final = (15.0, 30.0, 120.0)
BUDGETS: Final = (RateLimit(5, 1.0), RateLimit(90, 60.0), RateLimit(18, 1.0))

_TOKEN: Final = "t"
_PLACE: Final = "0b1f6c1e-5a0d-4f5e-9d0a-6f2c1b7e4a11"
_ROWS: Final = 3000
_TYPICAL: Final = 8.0
_LATENCY: Final = 0.05


@frozen
class Contest:
    """One vendor: its dialect, an emulator that refuses nothing for its rate, and what a row of a batch is."""

    dialect: Dialect[Any, Any]
    options: Mapping[str, Any]
    origin: Callable[[Any, int], Any]


VENDORS: Final = {
    "narrative": Contest(narrative, {}, lambda _, number: number),
    "middesk": Contest(
        middesk,
        {"rate_limit": None},
        lambda _state, _number: middesk.RunRequest("cip_orchestrator", business_id=_PLACE),
    ),
    "origami": Contest(
        origami,
        {"slots": _ROWS, "requests_per_minute": None, "requests_per_minute_ip": None, "credits": 1e9},
        lambda _, number: origami.Prompt(f"Hello {number}."),
    ),
    "conduit": Contest(
        conduit,
        {"requests_per_minute": None},
        lambda state, _: conduit.Dispatch(state.agent_id, trigger_id=state.trigger_id),
    ),
}


class _Wire:
    """Carries requests to an emulated vendor in memory, and counts them."""

    def __init__(self, vendor: Any) -> None:
        self._vendor = vendor
        self.sent = 0

    async def open(self, *_: object) -> None:
        """Do nothing."""

    async def ready(self, *_: object) -> None:
        """Be there already."""

    async def close(self) -> None:
        """Do nothing."""

    async def listen(self, *_: object) -> None:
        """Tell no events."""

    async def __call__(self, request: Request) -> Response:
        """Answer a request, half of the way later."""
        self.sent += 1
        await asyncio.sleep(_LATENCY / 2)
        parts = urlsplit(f"{self._vendor.prefix}{request.path}?{urlencode(request.params)}")
        reply = self._vendor.respond(
            Incoming(
                method=request.method,
                path=unquote(parts.path),
                query=dict(parse_qsl(parts.query)),
                headers={**request.headers, "Authorization": f"Bearer {_TOKEN}"},
                content=b"" if request.json is None else msgspec.json.encode(request.json),
            )
        )
        await asyncio.sleep(_LATENCY / 2)
        headers = {name.lower(): value for name, value in reply.headers.items()}
        return Response(int(reply.status), headers, reply.content, request)


@frozen
class Brought:
    """What a batch brought: rows that were done, rows that were given up, and requests that were sent."""

    done: int
    lost: int
    sent: int


def brought(
    vendor: str, budget: RateLimit, timeout: float, limit: int, seconds: float = SECONDS, typical: float = _TYPICAL
) -> Brought:
    """Return what a batch of more rows than can be done brings within so many *seconds*; runs take about *typical*."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_batch(VENDORS[vendor], vendor, budget, timeout, limit, seconds, typical))


async def _batch(
    contest: Contest, name: str, budget: RateLimit, timeout: float, limit: int, seconds: float, typical: float
) -> Brought:
    loop, chance = asyncio.get_running_loop(), random.Random(7)
    emulator: Emulator[Any] = Emulator(
        name,
        script=lambda _: Turn("Done.", running=typical * chance.lognormvariate(0.0, 0.5)),
        token=_TOKEN,
        clock=loop.time,
        **contest.options,
    )
    wire = _Wire(emulator.state)
    done = lost = 0
    async with Client(contest.dialect, wire, retry=Retry(), limit=budget) as client:
        rows = [contest.origin(emulator.state, number) for number in range(_ROWS)]
        more: dict[str, Any] = {"prepare": conversations(client)} if name == "narrative" else {}
        async with client.batch(rows, limit=limit, timeout=timeout, **more) as outcomes:
            try:
                async with asyncio.timeout(seconds):
                    async for outcome in outcomes:
                        done, lost = done + (outcome.error is None), lost + (outcome.error is not None)
            except TimeoutError:
                pass
    return Brought(done, lost, wire.sent)


def conversations(client: Client[Any, Any]) -> Callable[[Any], Any]:
    """Return what makes a new conversation, and its first message, for the number of a row."""
    config = narrative.Config(
        model="emulated",
        data_plane_id=_PLACE,
        max_iterations=8,
        max_tokens=2048,
        output_format_schema=narrative.TEXT_SCHEMA,
    )

    async def prepare(number: int) -> narrative.UserMessage:
        conversation = await client.perform(narrative.create_conversation(config))
        return narrative.UserMessage.of(conversation, f"Hello {number}.")

    return prepare


def least_part(found: Iterable[Brought]) -> float:
    """Return the least part that a limit has brought of what the best of those below it has; limits come in order."""
    best, least = 0, 1.0
    for each in found:
        best = max(best, each.done)
        least = min(least, each.done / best if best else 1.0)
    return least


def main() -> int:
    """Print the table, and hold the goal for each of its rows."""
    args = arguments(__doc__)
    limits, timeouts = (LIMITS[1::2], TIMEOUTS[1:2]) if args.quick else (LIMITS, TIMEOUTS)
    goals: list[Goal] = []
    print(f"rows done, + rows given up, (requests) in {SECONDS:.0f} s, by --limit")
    print(f"{'':<28}" + "".join(f"{limit:>18}" for limit in limits))
    for vendor in VENDORS:
        for budget in BUDGETS:
            for timeout in timeouts:
                found = [brought(vendor, budget, timeout, limit) for limit in limits]
                name = f"{vendor}, {budget.count} in {budget.seconds:g} s, {timeout:g} s"
                print(f"{name:<28}" + "".join(f"{f'{each.done} +{each.lost} ({each.sent})':>18}" for each in found))
                goals.append(at_least(name, least_part(found), LEAST))
    return finish(goals, args)


if __name__ == "__main__":
    sys.exit(main())
