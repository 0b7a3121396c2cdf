"""
One story of each real server, line by line: what is sent, what is logged, what comes of it.

    AGENTRUNS_REAL=FOLDER python -m tests.real.transcript [langgraph aegra a2a responses]

The reply to the start is lost, the run asks, a handler answers. Where the protocol can find no start, none is lost.
"""

import asyncio
import importlib
import logging
import sys
import tempfile
from pathlib import Path

from .proxy import Fault, proxied
from .servers import MissingServerError, running
from .stories import Answer, RealServer

NAMES = ("langgraph", "aegra", "a2a", "responses")


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Shown(list[tuple[str, str]]):
    """What a proxy has seen, each printed as it comes."""

    def append(self, seen: tuple[str, str]) -> None:
        """Print it, too."""
        say(f"  > {seen[0]} {seen[1]}")
        super().append(seen)


async def tell(of: RealServer, url: str) -> None:
    """Play the story at *url*."""
    async with proxied(url) as proxy, of.client(proxy.url) as client:
        proxy.seen = Shown()
        if of.can_find_starts:
            say("  the reply to the start is lost")
            proxy.plan(Fault(*of.posts))
        async for run in client.stream(of.asking(0), tools=of.handler(Answer())):
            asked = "".join(f" {action.name} {dict(action.arguments)}" for action in run.actions)
            say(f"  {run.status}: {run.vendor_status}{asked}{f' {run.output}' if run.output else ''}")


def main() -> None:
    """Tell the stories that were asked for, or all."""
    logging.basicConfig(level=logging.INFO, format="  log: %(message)s", stream=sys.stdout)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    for name in sys.argv[1:] or NAMES:
        module = importlib.import_module(f"{__package__}.test_{name}")
        found = next(
            each
            for each in vars(module).values()
            if getattr(each, "__module__", "") == module.__name__
            and isinstance(each, type)
            and issubclass(each, RealServer)
        )
        say(f"\n{name}")
        with tempfile.TemporaryDirectory(prefix="agentruns-") as folder:
            try:
                made = module.make_server(Path(folder))
            except MissingServerError as error:
                say(f"NOT TOLD: {error}")
                continue
            with running(made) as server:
                asyncio.run(tell(found(), server.url))


if __name__ == "__main__":
    main()
